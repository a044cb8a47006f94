//! The controller of Flows: look, decide, act, say.
//!
//! ```text
//!   observe    all that is read                          snapshot   what was seen
//!   validate   a spec that can be acted on               diagnosis  why pods are not ready
//!   plan       what to do and what to say, pure          build      the objects that a Flow makes
//!   act        the steps of a plan, one after the other
//!   route      since when gateways must know a route     secrets    hashes of the nodes' credentials
//! ```

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Secret;
use kube::runtime::reflector::ObjectRef;
use kube::{Resource as _, ResourceExt as _};

use crate::api::condition::{ConditionType, is_true};
use crate::api::flow::Flow;
use crate::api::flow::route::RouteState;
use crate::api::name::NodeId;
use crate::api::transition::Event;
use crate::broker::buckets::Bucket;
use crate::broker::event_log::{EventLog, Told};
use crate::broker::gateways::Heard;
use crate::broker::subject;
use crate::runtime::{Announcer, Failure, Next, Note, WriteError, Writer};
use crate::scheduler::Taken;

use super::attend::Attendance;
use super::caches::Caches;
use super::dead_letters::DeadLetters;
use build::{BuildConfig, Identity};
use plan::{Plan, Step};
use route::RouteMemory;
use secrets::SecretHashes;

pub mod act;
pub mod build;
pub mod diagnosis;
pub mod observe;
pub mod plan;
pub mod route;
pub mod secrets;
pub mod snapshot;
pub mod validate;

/// Fields that the controller of Flows writes are its own.
pub const MANAGER: &str = "millrace-flow";

/// What the controller works with.
pub struct Context {
    /// The install's settings.
    pub config: BuildConfig,
    /// What is seen of the cluster.
    pub caches: Caches,
    /// The content of Secrets, as hashes.
    pub secrets: SecretHashes,
    /// Since when each Flow has its route state.
    pub routes: RouteMemory,
    /// How the broker is, and its queues.
    pub broker: Arc<Attendance>,
    /// What the runners are told.
    pub desired: Bucket,
    /// What they answer.
    pub observed: Bucket,
    /// How far the gateways are.
    pub heard: Heard,
    /// Which schedules the scheduler has taken up.
    pub scheduled: Taken,
    /// How many messages of each Flow no node could handle.
    pub dead_letters: DeadLetters,
    /// Every transition.
    pub log: EventLog,
    /// Writes to the Kubernetes API.
    pub writer: Writer,
    /// Announces to people.
    pub announcer: Announcer,
    /// By uid, the nodes whose Deployment was not taken, and why.
    pub refused: Refusals,
}

/// What the API server did not take: nothing in the cluster shows it, so that it is remembered until it is taken.
#[derive(Debug, Default)]
pub struct Refusals(Mutex<HashMap<String, BTreeMap<NodeId, String>>>);

impl Refusals {
    fn of(&self, uid: &str) -> BTreeMap<NodeId, String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(uid).cloned().unwrap_or_default()
    }

    fn set(&self, uid: &str, refused: BTreeMap<NodeId, String>) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if refused.is_empty() {
            all.remove(uid);
        } else {
            all.insert(uid.to_owned(), refused);
        }
    }
}

/// Looks at one Flow, and does what is to be done.
///
/// # Errors
/// Something could not be read or written: it is tried again.
pub async fn reconcile(flow: Arc<Flow>, context: Arc<Context>) -> Result<Next, Failure> {
    // The API server stores no Flow without namespace and uid.
    let Some(identity) = Identity::of(&flow) else { return Ok(Next::Settled) };
    if is_behind(&flow, &identity, &context) {
        return Ok(Next::After(observe::GLANCE));
    }
    let transitions = flow.status.as_ref().and_then(|status| status.transitions.clone());
    context.log.tell(Told::of(&*flow, &identity.namespace, transitions));
    let valid = validate::validate(&flow.spec);
    let seen = observe::observe(&flow, &identity, valid.as_ref().ok(), &context).await?;
    let Plan { steps, status, event, look_again } = plan::plan(&context.config, &identity, &valid, &seen);
    let leaving = steps.contains(&Step::RemoveFinalizer);
    let done = act::act(&flow, &identity, steps, &context).await;
    if leaving && done.failure.is_none() {
        return Ok(Next::Settled);
    }
    let writer = &context.writer;
    match writer.put_status(&*done.flow, flow.status.as_ref(), &status).await {
        // It went meanwhile.
        Err(WriteError::Gone) => return Ok(Next::Settled),
        written => written.map_err(|error| Failure::of_write(error, "cannot write its status"))?,
    }
    if let Some((event, text)) = event {
        tracing::info!(namespace = %identity.namespace, flow = %identity.name, %event, text, "A flow has moved");
        context.announcer.announce(note(&flow, event, text));
    }
    match done.failure {
        Some(failure) => Err(failure),
        None => Ok(look_again.map_or(Next::Settled, Next::After)),
    }
}

/// Whether what is cached is older than what we have written.
fn is_behind(flow: &Flow, identity: &Identity, context: &Context) -> bool {
    let (writer, namespace) = (&context.writer, identity.namespace.as_str());
    let child = |name: &str| {
        let cached = context.caches.deployments.get(&ObjectRef::new(name).within(namespace));
        writer.is_ahead_of::<Deployment>(namespace, name, cached.as_ref().map(|cached| &cached.metadata))
    };
    let secret = || {
        let name = identity.broker_secret();
        let cached = context.caches.secrets.get(&ObjectRef::new(&name).within(namespace));
        writer.is_ahead_of::<Secret>(namespace, &name, cached.as_ref().map(|cached| &cached.metadata))
    };
    let nodes = flow.spec.graph.nodes.iter().filter(|node| node.image.is_some());
    let mut nodes = nodes.filter_map(|node| node.id.parse::<NodeId>().ok());
    writer.is_ahead_of::<Flow>(namespace, identity.name.as_str(), Some(&flow.metadata))
        || secret()
        || nodes.any(|node| child(&identity.deployment(&node)))
}

/// Whether what gateways say can move a Flow.
#[must_use]
pub fn waits_for_gateways(flow: &Flow) -> bool {
    let conditions = flow.status.as_ref().map_or(&[][..], |status| &status.conditions);
    let armed = is_true(conditions, ConditionType::TriggerArmed);
    flow.spec.trigger.webhook.is_some() && RouteState::of(flow).wanted != armed
}

/// Whether a Flow is on its way.
#[must_use]
pub fn is_moving(flow: &Flow) -> bool {
    let conditions = flow.status.as_ref().map_or(&[][..], |status| &status.conditions);
    !is_true(conditions, ConditionType::Ready) || flow.metadata.deletion_timestamp.is_some()
}

/// Forgets a Flow that is gone.
pub fn forget(flow: &Flow, context: &Context) {
    let uid = flow.uid().unwrap_or_default();
    context.routes.forget(&uid);
    context.log.forget(&uid);
    context.refused.set(&uid, BTreeMap::new());
    if let Some(identity) = Identity::of(flow) {
        let key = subject::flow_key(&identity.namespace, &identity.name);
        context.desired.forget(&key);
        context.observed.forget(&key);
    }
}

fn note(flow: &Flow, event: Event, text: String) -> Note {
    let action = match event {
        Event::FlowStopping | Event::FlowStopped => "Stop",
        _ => "Start",
    };
    Note {
        about: flow.object_ref(&()),
        warning: event == Event::FlowFailed,
        reason: event.to_string(),
        action,
        text,
    }
}
