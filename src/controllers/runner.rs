//! The runner of a namespace: one Deployment for the built-in nodes of all its Flows.
//!
//! It belongs to no Flow in particular, so that it has no owner: it is made with the first built-in node of the
//! namespace, and goes when a live look finds none.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::ByteString;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, DeploymentStrategy};
use k8s_openapi::api::core::v1::{PodTemplateSpec, Secret, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use kube::api::ListParams;
use kube::core::PartialObjectMeta;
use kube::runtime::reflector::ObjectRef;
use kube::{Api, Client, ResourceExt as _};

use crate::api::flow::Flow;
use crate::api::label;
use crate::api::name::NamespaceName;
use crate::broker::subject;
use crate::broker::work::FlowWork;
use crate::runtime::{Failure, Next, WriteError, Writer};

use super::flow::build::{BuildConfig, Identity};
use super::flow::{Context, diagnosis};
use super::pod::CREDENTIALS_KEY;
use super::wake::NamespaceMeta;

mod pod;

/// Fields that the controller of runners writes are its own.
pub const MANAGER: &str = "millrace-runner";

/// How long the API server may take to list the Flows of a namespace.
const PATIENCE: Duration = Duration::from_secs(20);

/// The name of all that belongs to a namespace's runner.
pub const NAME: &str = "millrace-runner";

/// Whether a Flow needs the runner: it has a built-in node and is not (yet) at rest.
#[must_use]
pub fn needed_by(flow: &Flow) -> bool {
    let builtin = flow.spec.graph.nodes.iter().any(|node| node.builtin.is_some());
    let status = flow.status.as_ref();
    let at_rest = status.and_then(|status| status.phase)
        == Some(crate::api::flow::phase::FlowPhase::Inactive)
        && flow.spec.suspend.unwrap_or_default();
    builtin && !at_rest
}

/// What the controller works with, beside what that of Flows does.
pub struct RunnerContext {
    /// What that of Flows works with.
    pub flows: Arc<Context>,
    /// Asked before anything is removed.
    pub client: Client,
    /// Writes to the Kubernetes API.
    pub writer: Writer,
}

/// Looks at the runner of one namespace.
///
/// # Errors
/// Something could not be read or written: it is tried again.
pub async fn reconcile(namespace: Arc<NamespaceMeta>, context: Arc<RunnerContext>) -> Result<Next, Failure> {
    let Ok(name) = namespace.name_any().parse::<NamespaceName>() else { return Ok(Next::Settled) };
    // All in it goes by itself.
    if namespace.metadata.deletion_timestamp.is_some() {
        return Ok(Next::Settled);
    }
    let caches = &context.flows.caches;
    let live = caches.deployments.get(&ObjectRef::new(NAME).within(name.as_str()));
    let secret = caches.secrets.get(&ObjectRef::new(NAME).within(name.as_str()));
    let behind = context.writer.is_ahead_of::<Deployment>(
        name.as_str(),
        NAME,
        live.as_ref().map(|live| &live.metadata),
    );
    if behind {
        return Ok(Next::After(Duration::from_millis(500)));
    }
    let flows = caches.flows.state();
    let mut here = flows.iter().filter(|flow| flow.namespace().as_deref() == Some(name.as_str()));
    let mut needed = false;
    for flow in here.by_ref() {
        if needed_by(flow) || has_work(flow, &context.flows).await {
            needed = true;
            break;
        }
    }
    let seen = (live.as_deref(), secret.as_deref());
    let done = if needed {
        put(&namespace, &name, seen, &context).await
    } else if live.is_some() || secret.is_some() {
        remove(&name, seen, &context).await
    } else {
        return Ok(Next::Settled);
    };
    match done {
        Ok(()) | Err(WriteError::NamespaceEnding) => Ok(Next::Settled),
        Err(error) => Err(Failure {
            category: error.category(),
            error: anyhow::Error::new(error).context("cannot put the runner of the namespace in order"),
        }),
    }
}

/// Whether the runner still has something to do for a Flow, such as what is queued for a node that was removed.
async fn has_work(flow: &Flow, context: &Context) -> bool {
    let Some(identity) = Identity::of(flow).filter(|_| context.broker.is_known()) else { return false };
    let key = subject::flow_key(&identity.namespace, &identity.name);
    matches!(context.desired.get::<FlowWork>(&key).await, Ok(Some(work)) if work.uid == identity.uid)
}

type Seen<'a> = (Option<&'a Deployment>, Option<&'a PartialObjectMeta<Secret>>);

async fn put(
    namespace: &NamespaceMeta,
    name: &NamespaceName,
    (live, held): Seen<'_>,
    context: &RunnerContext,
) -> Result<(), WriteError> {
    let writer = &context.writer;
    let made = namespace.creation_timestamp().map_or(0, |time| time.0.as_second());
    let credentials = context.flows.broker.issuer().runner(name, made);
    let credentials = credentials.map_err(|error| WriteError::Invalid(error.to_string()))?;
    writer.put_by_hash(&secret(name, credentials), held.map(|held| &held.metadata)).await?;
    // Nobody watches accounts: where its pods are refused, it may be for want of one.
    if live.is_none_or(|live| diagnosis::of_deployment(live).is_some()) {
        writer.put(&account(name), None).await?;
    }
    writer.put(&deployment(&context.flows.config, name), live).await
}

/// Removes the runner, but only when a live look finds no Flow that needs it.
async fn remove(
    name: &NamespaceName,
    (live, held): Seen<'_>,
    context: &RunnerContext,
) -> Result<(), WriteError> {
    let api: Api<Flow> = Api::namespaced(context.client.clone(), name.as_str());
    let listed = tokio::time::timeout(PATIENCE, api.list(&ListParams::default())).await;
    let listed = listed.map_err(|_| WriteError::Timeout)??;
    if listed.iter().any(needed_by) {
        return Ok(());
    }
    tracing::info!(namespace = %name, "Removes the runner: no flow needs it");
    if let Some(live) = live {
        context.writer.delete::<Deployment>(&live.metadata).await?;
    }
    context.writer.delete_unwatched::<ServiceAccount>(&account(name).metadata).await?;
    if let Some(held) = held {
        context.writer.delete::<Secret>(&held.metadata).await?;
    }
    Ok(())
}

/// The Deployment.
#[must_use]
pub fn deployment(config: &BuildConfig, namespace: &NamespaceName) -> Deployment {
    let labels = label::of_runner();
    Deployment {
        metadata: metadata(namespace),
        spec: Some(DeploymentSpec {
            replicas: Some(1),
            revision_history_limit: Some(2),
            selector: LabelSelector {
                match_labels: Some(label::select_runner()),
                ..LabelSelector::default()
            },
            // Two at a time would answer for each other.
            strategy: Some(DeploymentStrategy {
                type_: Some("Recreate".into()),
                ..DeploymentStrategy::default()
            }),
            template: PodTemplateSpec {
                metadata: Some(ObjectMeta { labels: Some(labels), ..ObjectMeta::default() }),
                spec: Some(pod::spec(config, namespace)),
            },
            ..DeploymentSpec::default()
        }),
        status: None,
    }
}

/// The account: it has no rights, and no token is mounted.
#[must_use]
pub fn account(namespace: &NamespaceName) -> ServiceAccount {
    ServiceAccount {
        metadata: metadata(namespace),
        automount_service_account_token: Some(false),
        ..ServiceAccount::default()
    }
}

/// The Secret with the runner's credentials for the broker.
#[must_use]
pub fn secret(namespace: &NamespaceName, credentials: String) -> Secret {
    Secret {
        metadata: metadata(namespace),
        data: Some([(CREDENTIALS_KEY.to_owned(), ByteString(credentials.into_bytes()))].into()),
        type_: Some("Opaque".into()),
        ..Secret::default()
    }
}

fn metadata(namespace: &NamespaceName) -> ObjectMeta {
    ObjectMeta {
        name: Some(NAME.into()),
        namespace: Some(namespace.to_string()),
        labels: Some(label::of_runner()),
        annotations: Some(BTreeMap::new()),
        ..ObjectMeta::default()
    }
}
