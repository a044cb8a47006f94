//! The controller of Instances: look, decide, act, say.
//!
//! ```text
//!   exchange  who offers what, and who wants it       imports  how that is resolved, pure
//!   exports   what an Instance exports, pure          source   what it runs or holds
//!   secrets   the values of Secrets that are exported
//!   observe   all that is read                        snapshot what was seen
//!   plan      what to do and what to say, pure        build    the objects that an Instance makes
//!   act       the steps of a plan, one after the other
//! ```

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use k8s_openapi::api::apps::v1::ControllerRevision;
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::runtime::reflector::ObjectRef;
use kube::{Resource as _, ResourceExt as _};
use serde_json::json;

use crate::api::instance::Instance;
use crate::api::transition::Event;
use crate::broker::event_log::Told;
use crate::broker::subject;
use crate::runtime::{Failure, Next, Note, WriteError, Writer};

use super::flow;
use super::flow::observe::GLANCE;
use super::members::{MemberCaches, SecretUsers};
use super::schemas::Schemas;
use build::Identity;
use plan::{Plan, Step};
use secrets::SecretValues;
use snapshot::Rejected;

pub mod act;
pub mod build;
pub mod exchange;
pub mod exports;
pub mod imports;
pub mod observe;
pub mod plan;
pub mod secrets;
pub mod snapshot;
pub mod source;

/// Fields that the controller of Instances writes are its own.
pub const MANAGER: &str = "millrace-instance";

/// What the controller works with, beside what that of Flows does.
pub struct Context {
    /// What that of Flows works with.
    pub flows: Arc<flow::Context>,
    /// What is seen of members.
    pub caches: MemberCaches,
    /// The values of exported Secrets.
    pub secrets: SecretValues,
    /// Which Instances read which Secrets.
    pub secret_users: SecretUsers,
    /// The JSON schemas of cartridges, ready for use.
    pub schemas: Arc<Schemas>,
    /// Writes to the Kubernetes API.
    pub writer: Writer,
    /// By uid, what the API server did not take.
    pub rejected: Rejections,
    /// Those whose agents could not be told because the broker was away.
    pub untold: Arc<Untold>,
}

/// What the API server did not take: nothing in the cluster shows it, so that it is remembered until it is taken.
#[derive(Debug, Default)]
pub struct Rejections(Mutex<HashMap<String, Rejected>>);

impl Rejections {
    fn of(&self, uid: &str) -> Option<Rejected> {
        lock(&self.0).get(uid).cloned()
    }

    fn set(&self, uid: &str, rejected: Option<Rejected>) {
        match rejected {
            Some(rejected) => drop(lock(&self.0).insert(uid.to_owned(), rejected)),
            None => drop(lock(&self.0).remove(uid)),
        }
    }
}

/// Those whose agents could not be told.
#[derive(Debug, Default)]
pub struct Untold(Mutex<BTreeSet<(String, String)>>);

impl Untold {
    fn add(&self, identity: &Identity) {
        lock(&self.0).insert((identity.namespace.to_string(), identity.name.to_string()));
    }

    /// Takes all of them, to be looked at again.
    pub fn take(&self) -> Vec<ObjectRef<Instance>> {
        let all = std::mem::take(&mut *lock(&self.0));
        all.into_iter().map(|(namespace, name)| ObjectRef::new(&name).within(&namespace)).collect()
    }
}

/// Looks at one Instance, and does what is to be done.
///
/// # Errors
/// Something could not be read or written: it is tried again.
pub async fn reconcile(instance: Arc<Instance>, context: Arc<Context>) -> Result<Next, Failure> {
    // The API server stores no Instance without namespace and uid.
    let Some(identity) = Identity::of(&instance) else { return Ok(Next::Settled) };
    if is_behind(&instance, &identity, &context) {
        return Ok(Next::After(GLANCE));
    }
    context.flows.log.tell(told(&instance, &identity));
    let seen = observe::observe(&instance, &identity, &context).await?;
    let Plan { steps, status, events, look_again } = plan::plan(&context.flows.config, &identity, &seen);
    let leaving = steps.contains(&Step::RemoveFinalizer);
    if !seen.broker_up() {
        context.untold.add(&identity);
    }
    let done = act::act(&instance, &identity, &seen, steps, &context).await;
    if leaving && done.failure.is_none() {
        return Ok(Next::Settled);
    }
    match context.writer.put_status(&*done.instance, instance.status.as_ref(), &status).await {
        // It went meanwhile.
        Err(WriteError::Gone) => return Ok(Next::Settled),
        written => written.map_err(|error| Failure::of_write(error, "cannot write its status"))?,
    }
    for (event, text) in events {
        tracing::info!(namespace = %identity.namespace, instance = %identity.name, %event, text, "An instance has moved");
        if is_announced(event, &seen) {
            context.flows.announcer.announce(note(&instance, event, text));
        }
    }
    match done.failure {
        Some(failure) => Err(failure),
        None => Ok(look_again.map_or(Next::Settled, Next::After)),
    }
}

/// Whether what is cached is older than what we have written.
fn is_behind(instance: &Instance, identity: &Identity, context: &Context) -> bool {
    let (writer, namespace) = (&context.writer, identity.namespace.as_str());
    let caches = &context.flows.caches;
    let (pod, secret) = (identity.pod(), identity.secret());
    let cached_pod = caches.pods.get(&ObjectRef::new(&pod).within(namespace));
    let cached_secret = caches.secrets.get(&ObjectRef::new(&secret).within(namespace));
    writer.is_ahead_of::<Instance>(namespace, identity.name.as_str(), Some(&instance.metadata))
        || writer.is_ahead_of::<Pod>(namespace, &pod, cached_pod.as_ref().map(|it| &it.metadata))
        || writer.is_ahead_of::<Secret>(namespace, &secret, cached_secret.as_ref().map(|it| &it.metadata))
        || identity.cluster.is_none() && is_behind_revision(instance, namespace, context)
}

fn is_behind_revision(instance: &Instance, namespace: &str, context: &Context) -> bool {
    let known = instance.status.as_ref().and_then(|status| status.revision.as_ref());
    known.is_some_and(|name| {
        let cached = context.caches.revisions.get(&ObjectRef::new(name).within(namespace));
        let cached = cached.as_ref().map(|it| &it.metadata);
        context.writer.is_ahead_of::<ControllerRevision>(namespace, name, cached)
    })
}

/// Whether an Instance is on its way.
#[must_use]
pub fn is_moving(instance: &Instance) -> bool {
    let conditions = instance.status.as_ref().map_or(&[][..], |status| &status.conditions);
    !crate::api::condition::is_true(conditions, crate::api::condition::ConditionType::Ready)
        || instance.metadata.deletion_timestamp.is_some()
}

/// Forgets an Instance that is gone.
pub fn forget(instance: &Instance, context: &Context) {
    let uid = instance.uid().unwrap_or_default();
    context.flows.log.forget(&uid);
    context.rejected.set(&uid, None);
    let Some(identity) = Identity::of(instance) else { return };
    context.secret_users.forget(identity.namespace.as_str(), identity.name.as_str());
    let key = subject::instance_key(&identity.namespace, &identity.name);
    context.flows.desired.forget(&key);
    context.flows.observed.forget(&key);
}

/// Its transitions for the event log, with what those who follow members want to know.
fn told(instance: &Instance, identity: &Identity) -> Told {
    let status = instance.status.clone().unwrap_or_default();
    let ports: serde_json::Map<_, _> = status
        .exports
        .iter()
        .filter_map(|export| Some((export.name.clone(), json!(export.value.as_ref()?))))
        .collect();
    Told {
        details: Some(json!({
            "member": identity.name,
            "cluster": identity.cluster.as_ref().map(|(name, _)| name),
            "cartridge": identity.cartridge,
            "partition": identity.partition,
            "addresses": status.addresses,
            "exports": ports,
            "node": status.node,
        })),
        ..Told::of(instance, &identity.namespace, status.transitions)
    }
}

/// People hear of the moves that they wait for; a record has none.
fn is_announced(event: Event, seen: &snapshot::Snapshot) -> bool {
    let record = matches!(seen.source, snapshot::Source::Record(_));
    !record && !matches!(event, Event::MemberStarting | Event::MemberStarted)
}

fn note(instance: &Instance, event: Event, text: String) -> Note {
    let action = match event {
        Event::MemberStopping | Event::MemberStopped | Event::MemberUndeployed | Event::MemberTerminated => {
            "Stop"
        }
        _ => "Start",
    };
    Note {
        about: instance.object_ref(&()),
        warning: event == Event::MemberFailed,
        reason: event.to_string(),
        action,
        text,
    }
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}
