//! The steps of a plan, one after the other.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::apps::v1::Deployment;
use kube::ResourceExt as _;
use kube::runtime::reflector::ObjectRef;

use crate::api::flow::Flow;
use crate::api::name::NodeId;
use crate::broker::subject;
use crate::runtime::{Failure, WriteError};

use super::Context;
use super::build::{self, Identity};
use super::plan::{FINALIZER, Step};

/// What became of the steps.
pub struct Done {
    /// The Flow as it is now.
    pub flow: Arc<Flow>,
    /// What ended them early.
    pub failure: Option<Failure>,
}

/// Takes the steps. One that fails ends the rest; but a Deployment that is refused keeps no other from being made.
pub async fn act(flow: &Arc<Flow>, identity: &Identity, steps: Vec<Step>, context: &Context) -> Done {
    let mut refused = BTreeMap::new();
    let puts = steps.iter().any(|step| matches!(step, Step::PutDeployment(..)));
    let mut done = Done { flow: flow.clone(), failure: None };
    let mut confirmed = false;
    for step in steps {
        let words = step.note();
        if step.destroys() && !std::mem::replace(&mut confirmed, true) {
            // Once: what follows takes seconds at most, and whoever changes the Flow meanwhile is seen by the next look.
            if let Err(error) = context.writer.confirm(&*done.flow).await {
                done.failure = Some(StepError::from(error).into_failure(&words));
                break;
            }
        }
        let node = match &step {
            Step::PutDeployment(id, _) => Some(id.clone()),
            _ => None,
        };
        let Err(error) = take(&mut done.flow, identity, step, context).await else { continue };
        if let (Some(node), Some(why)) = (node, error.refusal()) {
            refused.insert(node, why);
            done.failure = Some(error.into_failure(&words));
            continue;
        }
        done.failure = Some(error.into_failure(&words));
        break;
    }
    if puts {
        context.refused.set(&identity.uid, refused);
    }
    done
}

/// Why a step failed.
#[derive(Debug, thiserror::Error)]
enum StepError {
    #[error(transparent)]
    Write(#[from] WriteError),
    #[error(transparent)]
    Stream(#[from] crate::broker::streams::StreamError),
    #[error(transparent)]
    Publish(#[from] crate::broker::PublishError),
    #[error(transparent)]
    Key(#[from] crate::broker::credentials::KeyError),
}

impl StepError {
    /// What the API server has against the object itself: trying again does not help until something else changes.
    fn refusal(&self) -> Option<String> {
        match self {
            Self::Write(WriteError::Invalid(why) | WriteError::Forbidden(why)) => Some(why.clone()),
            Self::Write(error @ WriteError::Foreign) => Some(error.to_string()),
            _ => None,
        }
    }

    fn into_failure(self, step: &str) -> Failure {
        let category = match &self {
            Self::Write(error) => error.category(),
            Self::Stream(_) | Self::Publish(_) => "Broker",
            Self::Key(_) => "Key",
        };
        Failure { category, error: anyhow::Error::new(self).context(format!("the step that {step} failed")) }
    }
}

async fn take(
    flow: &mut Arc<Flow>,
    identity: &Identity,
    step: Step,
    context: &Context,
) -> Result<(), StepError> {
    let (namespace, name) = (&identity.namespace, &identity.name);
    let (writer, streams) = (&context.writer, context.broker.streams());
    let key = subject::flow_key(namespace, name);
    // The broker does not know who leads: one that was frozen must not touch its successor's queues.
    writer.fence().check().map_err(WriteError::from)?;
    match step {
        Step::AddFinalizer => *flow = Arc::new(writer.add_finalizer(&**flow, FINALIZER).await?),
        Step::RemoveFinalizer => *flow = Arc::new(writer.remove_finalizer(&**flow, FINALIZER).await?),
        Step::EnsureQueues(nodes) => streams.ensure_queues(namespace, name, &nodes).await?,
        Step::PutBrokerSecret(nodes) => put_broker_secret(flow, identity, &nodes, context).await?,
        Step::DeleteBrokerSecret => {
            let secret = ObjectRef::new(&identity.broker_secret()).within(namespace.as_str());
            if let Some(secret) = context.caches.secrets.get(&secret) {
                writer.delete::<k8s_openapi::api::core::v1::Secret>(&secret.metadata).await?;
            }
        }
        Step::PutDeployment(node, wanted) => {
            let live = ObjectRef::new(&identity.deployment(&node)).within(namespace.as_str());
            let live = context.caches.deployments.get(&live);
            writer.put(&*wanted, live.as_deref()).await?;
        }
        Step::DeleteDeployment(node) => {
            let live = ObjectRef::<Deployment>::new(&identity.deployment(&node)).within(namespace.as_str());
            if let Some(live) = context.caches.deployments.get(&live) {
                writer.delete::<Deployment>(&live.metadata).await?;
            }
        }
        Step::PutWork(work) => context.desired.put(&key, &work).await?,
        Step::DeleteWork => context.desired.delete(&key).await?,
        Step::Abandon(nodes) => {
            for node in &nodes {
                abandon(flow, identity, node, context).await?;
            }
        }
        Step::RemoveLedger => streams.remove_ledger(namespace, name).await?,
        Step::RemoveQueues(nodes) => streams.remove_queues(namespace, name, &nodes).await?,
    }
    Ok(())
}

async fn put_broker_secret(
    flow: &Flow,
    identity: &Identity,
    nodes: &BTreeSet<NodeId>,
    context: &Context,
) -> Result<(), StepError> {
    let made = flow.creation_timestamp().map_or(0, |time| time.0.as_second());
    let issuer = context.broker.issuer();
    let of_node = |node: &NodeId| {
        let made = issuer.node(&identity.namespace, &identity.name, &identity.uid, node, made)?;
        Ok::<_, StepError>((node.clone(), made))
    };
    let credentials = nodes.iter().map(of_node).collect::<Result<_, _>>()?;
    let list = nodes.iter().map(NodeId::as_str).collect::<Vec<_>>().join(",");
    let secret = build::broker_secret(identity, &list, credentials);
    let cached = ObjectRef::new(&identity.broker_secret()).within(identity.namespace.as_str());
    let cached = context.caches.secrets.get(&cached);
    Ok(context.writer.put_by_hash(&secret, cached.as_ref().map(|cached| &cached.metadata)).await?)
}

async fn abandon(
    flow: &Flow,
    identity: &Identity,
    node: &NodeId,
    context: &Context,
) -> Result<(), StepError> {
    let reason = if flow.metadata.deletion_timestamp.is_some() {
        "the flow was deleted before the message was handled"
    } else if flow.spec.suspend.unwrap_or_default() {
        "the flow was suspended before the message was handled"
    } else {
        "the node was removed before the message was handled"
    };
    let streams = context.broker.streams();
    let count = streams.abandon(&identity.namespace, &identity.name, node, reason).await?;
    if count > 0 {
        tracing::warn!(
            namespace = %identity.namespace, flow = %identity.name, %node, count, reason, "Messages became dead letters"
        );
    }
    Ok(())
}
