//! The steps of a plan, one after the other.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::ControllerRevision;
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::reflector::ObjectRef;

use crate::api::instance::{FINALIZER, Instance};
use crate::broker::member::{MemberWork, Secrets};
use crate::broker::seal::SealKey;
use crate::broker::subject;
use crate::runtime::{Failure, WriteError};

use super::Context;
use super::build::{self, Identity};
use super::plan::Step;
use super::snapshot::{Rejected, Snapshot, Source};

/// What became of the steps.
pub struct Done {
    /// The Instance as it is now.
    pub instance: Arc<Instance>,
    /// What ended them early.
    pub failure: Option<Failure>,
}

/// Takes the steps. One that fails ends the rest.
pub async fn act(
    instance: &Arc<Instance>,
    identity: &Identity,
    seen: &Snapshot,
    steps: Vec<Step>,
    context: &Context,
) -> Done {
    let mut done = Done { instance: instance.clone(), failure: None };
    let (mut confirmed, mut rejected) = (false, None);
    let makes = steps.iter().any(|step| matches!(step, Step::CreatePod(_)));
    for step in steps {
        let words = step.note();
        let what = if matches!(step, Step::CreatePod(_) | Step::DeletePod { .. }) {
            "its pod"
        } else {
            "what it needs"
        };
        if step.destroys() && !std::mem::replace(&mut confirmed, true) {
            // The cache may be old: nothing that runs is ended because of it.
            if let Err(error) = context.writer.confirm(&*done.instance).await {
                done.failure = Some(StepError::from(error).into_failure(words));
                break;
            }
        }
        if let Err(error) = take(&mut done.instance, identity, seen, step, context).await {
            rejected = error.rejection(what);
            done.failure = Some(error.into_failure(words));
            break;
        }
    }
    if makes || rejected.is_some() || seen.pod.is_some() {
        context.rejected.set(&identity.uid, rejected);
    }
    done
}

/// Why a step failed.
#[derive(Debug, thiserror::Error)]
enum StepError {
    #[error(transparent)]
    Write(#[from] WriteError),
    #[error(transparent)]
    Publish(#[from] crate::broker::PublishError),
    #[error(transparent)]
    Key(#[from] crate::broker::credentials::KeyError),
    #[error(transparent)]
    Seal(#[from] crate::broker::seal::SealError),
}

impl StepError {
    /// What the API server has against the object itself: trying again does not help until something else changes.
    fn rejection(&self, what: &str) -> Option<Rejected> {
        match self {
            Self::Write(WriteError::Invalid(why) | WriteError::Forbidden(why)) => {
                // `pods "db-0-x" is forbidden: exceeded quota: …`
                let why = why.split_once("is forbidden: ").map_or(why.as_str(), |(_, why)| why);
                let advice = if why.contains("PodSecurity") {
                    ": name a user and drop what the standard forbids in `podTemplate` of the Cartridge"
                } else {
                    ""
                };
                Some(Rejected { foreign: false, message: format!("{what} is refused: {why}{advice}") })
            }
            Self::Write(WriteError::Foreign) => Some(Rejected {
                foreign: true,
                message: format!(
                    "{what} cannot be made, because an object of its name belongs to somebody else: remove that, or give this \
                     another name"
                ),
            }),
            _ => None,
        }
    }

    fn into_failure(self, step: &str) -> Failure {
        let category = match &self {
            Self::Write(error) => error.category(),
            Self::Publish(_) => "Broker",
            Self::Key(_) | Self::Seal(_) => "Key",
        };
        Failure { category, error: anyhow::Error::new(self).context(format!("the step that {step} failed")) }
    }
}

async fn take(
    instance: &mut Arc<Instance>,
    identity: &Identity,
    seen: &Snapshot,
    step: Step,
    context: &Context,
) -> Result<(), StepError> {
    let writer = &context.writer;
    let key = subject::instance_key(&identity.namespace, &identity.name);
    // The broker does not know who leads: one that was frozen must not speak for its successor.
    writer.fence().check().map_err(WriteError::from)?;
    match step {
        Step::AddFinalizer => *instance = Arc::new(writer.add_finalizer(&**instance, FINALIZER).await?),
        Step::RemoveFinalizer => *instance = Arc::new(writer.remove_finalizer(&**instance, FINALIZER).await?),
        Step::PutRevision => put_revision(identity, seen, context).await?,
        Step::PutSecret => put_secret(identity, context).await?,
        Step::CreatePod(pod) => create_pod(&pod, context).await?,
        Step::DeletePod { force } => {
            if let Some(pod) = &seen.pod {
                if force {
                    writer.delete_now::<Pod>(&pod.metadata).await?;
                } else {
                    writer.delete::<Pod>(&pod.metadata).await?;
                }
            }
        }
        Step::PutWork(work, secrets) => {
            let work = sealed(identity, work, &secrets, context)?;
            context.flows.desired.put(&key, &work).await?;
        }
        Step::DeleteWork => {
            context.flows.desired.delete(&key).await?;
            context.flows.observed.delete(&key).await?;
        }
    }
    Ok(())
}

/// Makes the pod. One of its name that is there already, and is ours, was made before and is not seen yet.
async fn create_pod(pod: &Pod, context: &Context) -> Result<(), StepError> {
    match context.writer.put_new(pod).await {
        Err(WriteError::Conflict) if !context.writer.is_ours(pod).await? => Err(WriteError::Foreign.into()),
        made => Ok(made?),
    }
}

fn sealed(
    identity: &Identity,
    work: MemberWork,
    secrets: &Secrets,
    context: &Context,
) -> Result<MemberWork, StepError> {
    if secrets.is_empty() {
        return Ok(work);
    }
    let key = SealKey::of_instance(&context.flows.config.key, &identity.uid)?;
    let text = serde_json::to_vec(secrets).unwrap_or_default();
    Ok(MemberWork { secrets: Some(key.seal(&text)?), ..work })
}

async fn put_secret(identity: &Identity, context: &Context) -> Result<(), StepError> {
    let issuer = context.flows.broker.issuer();
    let made = issuer.instance(&identity.namespace, &identity.name, &identity.uid, identity.made)?;
    let seal = SealKey::of_instance(&context.flows.config.key, &identity.uid)?;
    let secret = build::secret(identity, made, seal.text());
    let cached = ObjectRef::new(&identity.secret()).within(identity.namespace.as_str());
    let cached = context.flows.caches.secrets.get(&cached);
    Ok(context.writer.put_by_hash(&secret, cached.as_ref().map(|cached| &cached.metadata)).await?)
}

/// Stores what a lone Instance runs.
async fn put_revision(identity: &Identity, seen: &Snapshot, context: &Context) -> Result<(), StepError> {
    let Source::Application { name, revision, .. } = &seen.source else { return Ok(()) };
    let stored = ControllerRevision {
        metadata: identity.metadata(name.clone()),
        data: Some(revision.data()),
        revision: 1,
    };
    Ok(context.writer.put(&stored, None).await?)
}
