//! All that is read of a Flow: from what is cached, and from the broker where nothing tells.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::ResourceExt as _;
use kube::runtime::reflector::ObjectRef;

use crate::api::flow::Flow;
use crate::api::label;
use crate::api::name::NodeId;
use crate::broker::subject;
use crate::clock;
use crate::runtime::Failure;

use super::Context;
use super::build::{Identity, QUEUES};
use super::diagnosis::{self, Trouble};
use super::snapshot::{Gateways, Runner, Snapshot};
use super::validate::ValidFlow;
use crate::controllers::caches::OF_RUNNER;
use crate::controllers::runner;

/// How long until a cache that is behind is looked at again, if it does not tell by itself.
pub const GLANCE: Duration = Duration::from_millis(500);

/// Reads.
///
/// # Errors
/// The API server or the broker could not say what only they know.
pub async fn observe(
    flow: &Arc<Flow>,
    identity: &Identity,
    valid: Option<&ValidFlow>,
    context: &Context,
) -> Result<Snapshot, Failure> {
    let caches = &context.caches;
    let (namespace, name) = (identity.namespace.as_str(), identity.name.as_str());
    let key = subject::flow_key(&identity.namespace, &identity.name);
    let going = caches.namespaces.get(&ObjectRef::new(namespace));
    let broker = |error| Failure { category: "Broker", error: anyhow::Error::new(error) };
    let since = context.routes.since(flow);
    let mut seen = Snapshot {
        flow: flow.clone(),
        now: clock::now(),
        namespace_ending: going.is_some_and(|namespace| namespace.metadata.deletion_timestamp.is_some()),
        deployments: deployments(identity, context),
        pods: BTreeMap::new(),
        credentials: credentials(flow, namespace, context).await?,
        queues: queues(identity, context),
        broker_trouble: context.broker.trouble(),
        refused: context.refused.of(&identity.uid),
        backlog: None,
        work: None,
        loaded: None,
        runner: runner_of(namespace, context),
        gateways: gateways(&caches.gateways.state(), context),
        dead_letters: context.dead_letters.of(namespace, name),
        scheduled: context.scheduled.of(&identity.uid),
        route_since: since.route,
        entry_since: since.entry,
        announced: is_announced(flow, identity, context),
    };
    for pod in caches.pods_of.of(&caches.pods, namespace, name) {
        if let Some(node) = node_of(&*pod) {
            seen.pods.entry(node).or_default().push(pod);
        }
    }
    // While it is away what is known counts, and nothing is where nobody knows.
    if seen.broker_up() {
        seen.work = context.desired.get(&key).await.map_err(broker)?;
        seen.loaded = context.observed.get(&key).await.map_err(broker)?;
    } else {
        (seen.work, seen.loaded) = (context.desired.known(&key), context.observed.known(&key));
    }
    let queued = seen.known();
    let stopping = identity_wants_rest(flow);
    let removed = queued.iter().any(|node| valid.is_none_or(|valid| !valid.nodes.contains_key(node)));
    if seen.broker_up() && (stopping || removed) {
        let streams = context.broker.streams();
        let counted = streams.backlog(&identity.namespace, &identity.name, &queued).await;
        seen.backlog = Some(counted.map_err(broker)?);
    }
    Ok(seen)
}

fn identity_wants_rest(flow: &Flow) -> bool {
    flow.metadata.deletion_timestamp.is_some() || flow.spec.suspend.unwrap_or_default()
}

fn node_of<K: kube::Resource>(child: &K) -> Option<NodeId> {
    child.labels().get(label::NODE)?.parse().ok()
}

/// The Deployments that the Flow owns: not those of another that had its name.
fn deployments(
    identity: &Identity,
    context: &Context,
) -> BTreeMap<NodeId, Arc<k8s_openapi::api::apps::v1::Deployment>> {
    let (caches, namespace) = (&context.caches, identity.namespace.as_str());
    let all = caches.deployments_of.of(&caches.deployments, namespace, identity.name.as_str());
    let ours = all.into_iter().filter(|child| is_owned(&child.metadata, identity));
    ours.filter_map(|child| Some((node_of(&*child)?, child))).collect()
}

fn is_owned(child: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta, identity: &Identity) -> bool {
    child.owner_references.iter().flatten().any(|owner| owner.uid == identity.uid)
}

/// The nodes that have queues, as the Secret with the broker's credentials lists them.
fn queues(identity: &Identity, context: &Context) -> Option<BTreeSet<NodeId>> {
    let name = identity.broker_secret();
    let secret = context.caches.secrets.get(&ObjectRef::new(&name).within(identity.namespace.as_str()))?;
    if !is_owned(&secret.metadata, identity) {
        return None;
    }
    let listed = secret.annotations().get(QUEUES)?;
    Some(listed.split(',').filter_map(|id| id.parse().ok()).collect())
}

/// Hashes of the Secrets that the nodes' credentials come from.
async fn credentials(
    flow: &Flow,
    namespace: &str,
    context: &Context,
) -> Result<BTreeMap<String, Option<String>>, Failure> {
    let mut all = BTreeMap::new();
    for from in flow.spec.graph.nodes.iter().filter_map(|node| node.credentials.as_ref()) {
        let name = &from.secret_ref.name;
        let hash = context.secrets.hash(namespace, name).await;
        let hash = hash.map_err(|error| Failure { category: "Secret", error: anyhow::Error::new(error) })?;
        all.insert(name.clone(), hash);
    }
    Ok(all)
}

fn runner_of(namespace: &str, context: &Context) -> Runner {
    let caches = &context.caches;
    let deployment = caches.deployments.get(&ObjectRef::new(runner::NAME).within(namespace));
    let Some(deployment) = deployment else { return Runner::Starting(None) };
    let ready = deployment.status.as_ref().and_then(|status| status.ready_replicas).unwrap_or_default();
    if ready > 0 {
        return Runner::Ready;
    }
    let pods = caches.pods_of.of(&caches.pods, namespace, OF_RUNNER);
    let mut current = pods.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none());
    let trouble = current.find_map(|pod| diagnosis::of_pod(pod, clock::now()));
    let trouble = trouble.map(|(Trouble::Missing(message) | Trouble::Stuck(message))| message);
    Runner::Starting(trouble.or_else(|| diagnosis::of_deployment(&deployment)))
}

fn gateways(slices: &[Arc<EndpointSlice>], context: &Context) -> Gateways {
    let endpoints = slices.iter().flat_map(|slice| &slice.endpoints);
    let named = endpoints.filter_map(|endpoint| {
        let name = endpoint.target_ref.as_ref()?.name.clone()?;
        let ready = endpoint.conditions.as_ref().and_then(|conditions| conditions.ready).unwrap_or(true);
        Some((name, ready))
    });
    let mut endpoints = BTreeMap::new();
    for (name, ready) in named {
        // One that has two addresses is ready where it is ready at one.
        *endpoints.entry(name).or_insert(false) |= ready;
    }
    Gateways { endpoints, applied: context.heard.lately() }
}

fn is_announced(flow: &Flow, identity: &Identity, context: &Context) -> bool {
    let transitions = flow.status.as_ref().and_then(|status| status.transitions.as_ref());
    let last = transitions.and_then(|transitions| transitions.counter).unwrap_or_default();
    last == 0 || context.log.has(&identity.uid, last)
}
