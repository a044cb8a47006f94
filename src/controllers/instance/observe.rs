//! All that is read of an Instance: from what is cached, and from the broker and Secrets where that is not enough.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::runtime::reflector::ObjectRef;
use kube::{Resource as _, ResourceExt as _};
use serde_json::{Map, Value};

use crate::api::cartridge::exchange::{Exported, Import};
use crate::api::cluster::Cluster;
use crate::api::cluster::placement::Partition;
use crate::api::condition::Refusal;
use crate::api::instance::Instance;
use crate::broker::member::Secrets;
use crate::broker::subject;
use crate::clock;
use crate::membership;
use crate::runtime::Failure;

use super::build::Identity;
use super::imports::{self, Resolution, Target, Unit};
use super::snapshot::{Invalid, Snapshot, Source};
use super::{Context, exports, source};

/// The label by which a namespace asks its pods to keep to a Pod Security Standard.
const ENFORCE: &str = "pod-security.kubernetes.io/enforce";
/// How long a node may be silent where nobody says.
const NODE_LOSS: i32 = 300;

/// Reads.
///
/// # Errors
/// The API server or the broker could not say what only they know.
pub async fn observe(
    instance: &Arc<Instance>,
    identity: &Identity,
    context: &Context,
) -> Result<Snapshot, Failure> {
    let namespace = identity.namespace.as_str();
    let own = context.flows.caches.namespaces.get(&ObjectRef::new(namespace));
    let cluster = cluster(identity, context);
    let source = source::source(instance, identity, context);
    let values = values(instance, &source);
    let pod = pod(identity, context);
    let in_balancer = pod.as_ref().is_some_and(|pod| in_balancer(identity, pod, context));
    let (exports, unexported) = own_exports(identity, &source, pod.as_deref(), context).await?;
    let (imports, secrets) = imported(identity, &source, cluster.as_deref(), context).await?;
    let key = subject::instance_key(&identity.namespace, &identity.name);
    let trouble = context.flows.broker.trouble();
    let broker = |error| Failure { category: "Broker", error: anyhow::Error::new(error) };
    let (desired, observed) = (&context.flows.desired, &context.flows.observed);
    // A record is told nothing, and while the broker is away what is known counts.
    let (told, report) = match (&source, &trouble) {
        (Source::Record(_), _) if pod.is_none() => (None, None),
        (_, None) => (desired.get(&key).await.map_err(broker)?, observed.get(&key).await.map_err(broker)?),
        (_, Some(_)) => (desired.known(&key), observed.known(&key)),
    };
    let uid = pod.as_ref().and_then(|pod| pod.metadata.uid.clone());
    let report =
        report.filter(|report: &crate::broker::member::MemberReport| Some(&report.pod) == uid.as_ref());
    let node = pod.as_ref().and_then(|pod| pod.spec.as_ref()?.node_name.clone());
    let loss = cluster.as_ref().and_then(|cluster| cluster.spec.node_loss_seconds).unwrap_or(NODE_LOSS);
    Ok(Snapshot {
        instance: instance.clone(),
        now: clock::now(),
        namespace_ending: own.as_ref().is_some_and(|own| own.metadata.deletion_timestamp.is_some()),
        restricted: own
            .as_ref()
            .is_some_and(|own| own.labels().get(ENFORCE).is_some_and(|it| it == "restricted")),
        refused_spec: refused(instance, &source, &values, context),
        partition: partition(identity, &source),
        source,
        values,
        node_loss: Duration::from_secs(u64::try_from(loss).unwrap_or_default()),
        node_lost: node.and_then(|node| context.caches.lost_nodes.since(&node)),
        told,
        report,
        broker_trouble: trouble,
        in_balancer,
        imports,
        secrets,
        exports,
        unexported,
        dependants: context.caches.exchange.dependants(namespace, identity.name.as_str()),
        refused: context.rejected.of(&identity.uid),
        announced: is_announced(instance, identity, context),
        pod,
    })
}

/// The Cluster that it is a member of.
fn cluster(identity: &Identity, context: &Context) -> Option<Arc<Cluster>> {
    let (name, uid) = identity.cluster.as_ref()?;
    let found =
        context.caches.clusters.get(&ObjectRef::new(name.as_str()).within(identity.namespace.as_str()));
    found.filter(|cluster| cluster.meta().uid.as_ref() == Some(uid))
}

/// The pod that the Instance owns: not that of another that had its name.
fn pod(identity: &Identity, context: &Context) -> Option<Arc<Pod>> {
    let place = ObjectRef::new(&identity.pod()).within(identity.namespace.as_str());
    let pod = context.flows.caches.pods.get(&place)?;
    let owned = pod.owner_references().iter().any(|owner| owner.uid == identity.uid);
    owned.then_some(pod)
}

fn in_balancer(identity: &Identity, pod: &Pod, context: &Context) -> bool {
    let Some((cluster, _)) = &identity.cluster else { return false };
    let slices = &context.caches.slices;
    let slices = context.caches.slices_of.of(slices, identity.namespace.as_str(), cluster.as_str());
    let uid = pod.metadata.uid.as_deref().unwrap_or_default();
    slices.iter().any(|slice| membership::is_ready_in(slice, uid))
}

/// The values: those of the Cluster, overlaid by its own.
fn values(instance: &Instance, source: &Source) -> Map<String, Value> {
    let mut values = source.application().and_then(|revision| revision.values.clone()).unwrap_or_default();
    values.extend(instance.spec.values.clone().unwrap_or_default());
    values
}

fn refused(
    instance: &Instance,
    source: &Source,
    values: &Map<String, Value>,
    context: &Context,
) -> Option<Invalid> {
    let cartridge = source.cartridge()?;
    let name = &instance.spec.cartridge.name;
    let unfit = context.schemas.check(cartridge.values.as_ref(), values).err()?;
    let message = format!("`spec.values` must fit the schema of the Cartridge '{name}': {unfit}");
    Some(Invalid { refusal: Refusal::InvalidSpec, message })
}

/// Where the Cluster wants it to run, as the revision has it: a change rolls through the members.
fn partition(identity: &Identity, source: &Source) -> Option<Partition> {
    let name = identity.partition.as_ref()?;
    source.application()?.partitions.iter().find(|partition| partition.name == *name).cloned()
}

/// What it exports when it does, and what it cannot.
async fn own_exports(
    identity: &Identity,
    source: &Source,
    pod: Option<&Pod>,
    context: &Context,
) -> Result<(Vec<Exported>, Vec<String>), Failure> {
    let Some(cartridge) = source.cartridge() else { return Ok((vec![], vec![])) };
    let mut keys = BTreeMap::new();
    for key in cartridge.exports.iter().filter_map(|export| export.secret_key_ref.as_ref()) {
        let there =
            secret(identity, &key.name, context).await?.is_some_and(|data| data.contains_key(&key.key));
        keys.insert((key.name.clone(), key.key.clone()), there);
    }
    let address = pod.and_then(|pod| pod.status.as_ref()?.pod_ip.as_deref());
    Ok(exports::exports(cartridge, address, &keys))
}

async fn secret(
    identity: &Identity,
    name: &str,
    context: &Context,
) -> Result<Option<super::secrets::Data>, Failure> {
    context.secret_users.uses(identity.namespace.as_str(), name, identity.name.as_str());
    let read = context.secrets.read(identity.namespace.as_str(), name).await;
    read.map_err(|error| Failure { category: "Secret", error: anyhow::Error::new(error) })
}

/// What became of its imports, and the secret values among them.
async fn imported(
    identity: &Identity,
    source: &Source,
    cluster: Option<&Cluster>,
    context: &Context,
) -> Result<(Vec<Resolution>, Secrets), Failure> {
    let imports = source.application().map(|revision| &revision.cartridge.imports[..]).unwrap_or_default();
    let (mut resolutions, mut wants, mut secrets) = (vec![], BTreeMap::new(), Secrets::new());
    for import in imports {
        let must = !import.optional.unwrap_or_default();
        let chosen = cluster.and_then(|it| it.spec.imports.iter().find(|choice| choice.name == import.name));
        let name = chosen.map_or(&import.name, |choice| &choice.cluster);
        for unit in [Unit::Cluster(name.clone()), Unit::Instance(name.clone())] {
            *wants.entry(unit).or_insert(false) |= must;
        }
        let mut resolution = imports::resolve(import, &target(identity, import, name, context));
        take_secrets(identity, &mut resolution, &mut secrets, context).await?;
        resolutions.push(resolution);
    }
    context.caches.exchange.wants(identity.namespace.as_str(), identity.name.as_str(), wants);
    for resolution in resolutions.iter_mut().filter(|resolution| resolution.blocks()) {
        if let Some(cycle) = cycle(identity, &resolution.target, context) {
            let import = imports.iter().find(|import| import.name == resolution.name);
            let target = import.map(|import| Target {
                cycle: Some(cycle),
                ..target(identity, import, &resolution.target, context)
            });
            if let (Some(import), Some(target)) = (import, target) {
                *resolution = imports::resolve(import, &target);
            }
        }
    }
    Ok((resolutions, secrets))
}

/// What stands behind the name that an import asks for.
fn target(identity: &Identity, import: &Import, name: &str, context: &Context) -> Target {
    let (namespace, caches) = (identity.namespace.as_str(), &context.caches);
    let cluster = caches.clusters.get(&ObjectRef::new(name).within(namespace)).is_some();
    let unit = if cluster { Unit::Cluster(name.to_owned()) } else { Unit::Instance(name.to_owned()) };
    let mut offers = caches.exchange.offers(namespace, &unit);
    let exists = cluster || !offers.is_empty();
    offers.retain(|offer| offer.instance != identity.name.as_str());
    let others = if exists { vec![] } else { caches.clusters_of.names(namespace, &import.cartridge) };
    Target { name: name.to_owned(), exists, offers, others, cycle: None }
}

/// Takes the secret values that the members of an import export; one whose value is gone meanwhile counts no more.
async fn take_secrets(
    identity: &Identity,
    resolution: &mut Resolution,
    secrets: &mut Secrets,
    context: &Context,
) -> Result<(), Failure> {
    let mut lacking = BTreeSet::new();
    for member in &resolution.members {
        for (variable, key) in &member.secrets {
            let data = secret(identity, &key.name, context).await?;
            match data.and_then(|data| data.get(&key.key).cloned()) {
                Some(value) => {
                    let of_import = secrets.entry(resolution.name.clone()).or_default();
                    of_import.entry(member.name.clone()).or_default().insert(variable.clone(), value);
                }
                None => drop(lacking.insert((member.name.clone(), key.clone()))),
            }
        }
    }
    if let Some((_, key)) = lacking.first() {
        resolution.missing = format!(
            "import '{}' needs the key '{}' of the Secret '{}', which is gone: create it again",
            resolution.name, key.key, key.name
        );
    }
    resolution.members.retain(|member| !lacking.iter().any(|(name, _)| *name == member.name));
    Ok(())
}

/// The cycle of required imports that an import is a part of.
fn cycle(identity: &Identity, target: &str, context: &Context) -> Option<Vec<String>> {
    let own = match &identity.cluster {
        Some((cluster, _)) => Unit::Cluster(cluster.to_string()),
        None => Unit::Instance(identity.name.to_string()),
    };
    let namespace = identity.namespace.as_str();
    let exchange = &context.caches.exchange;
    let first = [Unit::Cluster(target.to_owned()), Unit::Instance(target.to_owned())];
    first.iter().find_map(|first| imports::cycle(&own, first, |unit| exchange.lacks(namespace, unit)))
}

fn is_announced(instance: &Instance, identity: &Identity, context: &Context) -> bool {
    let transitions = instance.status.as_ref().and_then(|status| status.transitions.as_ref());
    let last = transitions.and_then(|transitions| transitions.counter).unwrap_or_default();
    last == 0 || context.flows.log.has(&identity.uid, last)
}
