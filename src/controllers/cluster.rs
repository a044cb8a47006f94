//! The controller of Clusters: look, decide, act, say.
//!
//! ```text
//!   snapshot   what was seen                       plan       what to do and what to say, pure
//!   placement  which partition, and who goes first update     who moves to the present revision
//!   build      the objects that a Cluster makes
//! ```

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use data_encoding::HEXLOWER;
use k8s_openapi::api::apps::v1::ControllerRevision;
use k8s_openapi::api::core::v1::Secret;
use kube::runtime::reflector::ObjectRef;
use kube::{Resource as _, ResourceExt as _};
use ring::rand::{SecureRandom as _, SystemRandom};

use crate::api::cluster::Cluster;
use crate::api::instance::{Instance, member_of};
use crate::api::transition::Event;
use crate::broker::event_log::Told;
use crate::clock;
use crate::membership::Troubles;
use crate::runtime::{Failure, Next, Note, WriteError, Writer};

use super::flow;
use super::flow::observe::GLANCE;
use super::members::MemberCaches;
use super::schemas::Schemas;
use super::subscription;
use build::Identity;
use plan::{FINALIZER, Plan, Step};
use snapshot::Snapshot;

pub mod build;
pub mod placement;
pub mod plan;
pub mod snapshot;
pub mod update;

/// Fields that the controller of Clusters writes are its own.
pub const MANAGER: &str = "millrace-cluster";

/// How often at most a Cluster says anew how many of its members are where, when it does nothing else: the first change is said
/// at once, and those of members that come one after the other together, so that their own writes are not kept waiting.
const PACE: Duration = Duration::from_millis(250);

/// What the controller works with, beside what that of Flows does.
pub struct Context {
    /// What that of Flows works with.
    pub flows: Arc<flow::Context>,
    /// What is seen of members.
    pub caches: MemberCaches,
    /// The JSON schemas of cartridges, ready for use.
    pub schemas: Arc<Schemas>,
    /// What is wrong with load balancers.
    pub troubles: Troubles,
    /// Writes to the Kubernetes API.
    pub writer: Writer,
    /// By uid, what the API server did not take, and the ordinals that were last made.
    pub memory: Memory,
}

/// What nothing in the cluster shows.
#[derive(Debug, Default)]
pub struct Memory(Mutex<HashMap<String, Known>>);

#[derive(Clone, Debug, Default)]
struct Known {
    refused: Option<String>,
    made: BTreeSet<u32>,
    revision: Option<String>,
    /// When its status was last written.
    said: Option<Instant>,
}

impl Memory {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Known>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn of(&self, uid: &str) -> Known {
        self.lock().get(uid).cloned().unwrap_or_default()
    }

    /// How long until the status may be written once more, if that does not matter otherwise.
    fn rest(&self, uid: &str, now: Instant) -> Option<Duration> {
        let since = now.saturating_duration_since(self.lock().get(uid)?.said?);
        PACE.checked_sub(since).filter(|rest| !rest.is_zero())
    }

    fn said(&self, uid: &str, now: Instant) {
        self.lock().entry(uid.to_owned()).or_default().said = Some(now);
    }
}

/// Looks at one Cluster, and does what is to be done.
///
/// # Errors
/// Something could not be read or written: it is tried again.
pub async fn reconcile(cluster: Arc<Cluster>, context: Arc<Context>) -> Result<Next, Failure> {
    // The API server stores no Cluster without namespace and uid.
    let Some(identity) = Identity::of(&cluster) else { return Ok(Next::Settled) };
    let members = members(&identity, &context);
    if is_behind(&cluster, &identity, &members, &context) {
        return Ok(Next::After(GLANCE));
    }
    let transitions = cluster.status.as_ref().and_then(|status| status.transitions.clone());
    context.flows.log.tell(Told::of(&*cluster, &identity.namespace, transitions));
    let seen = observe(&cluster, &identity, members, &context);
    let Plan { steps, status, event, look_again } = plan::plan(&identity, &seen);
    let leaving = steps.contains(&Step::RemoveFinalizer);
    let counts_only = steps.is_empty() && event.is_none();
    let done = act(&cluster, &identity, &seen, steps, &context).await;
    if leaving && done.failure.is_none() {
        return Ok(Next::Settled);
    }
    if cluster.status.as_ref() != Some(&status) {
        let now = Instant::now();
        if let Some(rest) = context.memory.rest(&identity.uid, now).filter(|_| counts_only) {
            return Ok(Next::After(rest));
        }
        context.memory.said(&identity.uid, now);
    }
    match context.writer.put_status(&*done.cluster, cluster.status.as_ref(), &status).await {
        // It went meanwhile.
        Err(WriteError::Gone) => return Ok(Next::Settled),
        written => written.map_err(|error| Failure::of_write(error, "cannot write its status"))?,
    }
    if let Some((event, text)) = event {
        tracing::info!(namespace = %identity.namespace, cluster = %identity.name, %event, text, "A cluster has moved");
        context.flows.announcer.announce(note(&cluster, event, text));
    }
    match done.failure {
        Some(failure) => Err(failure),
        None => Ok(look_again.map_or(Next::Settled, Next::After)),
    }
}

/// The Instances that the Cluster owns.
fn members(identity: &Identity, context: &Context) -> Vec<Arc<Instance>> {
    let caches = &context.caches;
    let all = caches.members_of.of(&caches.instances, identity.namespace.as_str(), identity.name.as_str());
    all.into_iter().filter(|it| member_of(it).is_some_and(|(_, uid)| uid == identity.uid)).collect()
}

/// Whether what is cached is older than what we have written.
fn is_behind(cluster: &Cluster, identity: &Identity, members: &[Arc<Instance>], context: &Context) -> bool {
    let (writer, namespace) = (&context.writer, identity.namespace.as_str());
    let known = context.memory.of(&identity.uid);
    let made = |ordinal: &u32| {
        let name = identity.name.member(*ordinal).to_string();
        let cached = context.caches.instances.get(&ObjectRef::new(&name).within(namespace));
        writer.is_ahead_of::<Instance>(namespace, &name, cached.as_ref().map(|it| it.meta()))
    };
    let revision = known.revision.as_ref().is_some_and(|name| {
        let cached = context.caches.revisions.get(&ObjectRef::new(name).within(namespace));
        writer.is_ahead_of::<ControllerRevision>(namespace, name, cached.as_ref().map(|it| it.meta()))
    });
    let secret = context.flows.caches.secrets.get(&ObjectRef::new(&identity.key()).within(namespace));
    writer.is_ahead_of::<Cluster>(namespace, identity.name.as_str(), Some(cluster.meta()))
        || revision
        || writer.is_ahead_of::<Secret>(namespace, &identity.key(), secret.as_ref().map(|it| it.meta()))
        || known.made.iter().any(made)
        || members.iter().any(|it| writer.is_ahead_of::<Instance>(namespace, &it.name_any(), Some(it.meta())))
}

fn observe(
    cluster: &Arc<Cluster>,
    identity: &Identity,
    members: Vec<Arc<Instance>>,
    context: &Context,
) -> Snapshot {
    let (namespace, caches) = (identity.namespace.as_str(), &context.caches);
    let going = context.flows.caches.namespaces.get(&ObjectRef::new(namespace));
    let cartridge = subscription::live(&cluster.spec.cartridge, namespace, &caches.cartridges);
    let unfit = cartridge.as_ref().ok().and_then(|cartridge| {
        let values = cluster.spec.values.clone().unwrap_or_default();
        context.schemas.check(cartridge.spec.values.as_ref(), &values).err()
    });
    let ours: BTreeSet<_> = members.iter().map(|member| member.name_any()).collect();
    // Between those that are there and those that are wanted, names may belong to others.
    let most = u32::try_from(cluster.spec.replicas.max(0)).unwrap_or_default();
    let ordinals = 0..most.min(10_000).saturating_add(u32::try_from(members.len()).unwrap_or_default() + 16);
    let foreign = ordinals.filter(|ordinal| {
        let name = identity.name.member(*ordinal).to_string();
        !ours.contains(&name) && caches.instances.get(&ObjectRef::new(&name).within(namespace)).is_some()
    });
    let revisions = caches.revisions_of.of(&caches.revisions, namespace, identity.name.as_str());
    let owned = |meta: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta| {
        meta.owner_references.iter().flatten().any(|owner| owner.uid == identity.uid)
    };
    let key = context.flows.caches.secrets.get(&ObjectRef::new(&identity.key()).within(namespace));
    let transitions = cluster.status.as_ref().and_then(|status| status.transitions.as_ref());
    let last = transitions.and_then(|transitions| transitions.counter).unwrap_or_default();
    Snapshot {
        cluster: cluster.clone(),
        now: clock::now(),
        namespace_ending: going.is_some_and(|it| it.metadata.deletion_timestamp.is_some()),
        cartridge: cartridge.map(|cartridge| Arc::new(cartridge.spec.clone())),
        unfit: unfit.map(|unfit| unfit.to_string()),
        foreign: foreign.collect(),
        members,
        revisions: revisions.into_iter().filter(|stored| owned(&stored.metadata)).collect(),
        key: key.is_some_and(|key| owned(&key.metadata)),
        trouble: context.troubles.of(&identity.uid),
        refused: context.memory.of(&identity.uid).refused,
        announced: last == 0 || context.flows.log.has(&identity.uid, last),
    }
}

/// What became of the steps.
struct Done {
    cluster: Arc<Cluster>,
    failure: Option<Failure>,
}

/// Takes the steps. One that fails ends the rest.
async fn act(
    cluster: &Arc<Cluster>,
    identity: &Identity,
    seen: &Snapshot,
    steps: Vec<Step>,
    context: &Context,
) -> Done {
    let mut done = Done { cluster: cluster.clone(), failure: None };
    let (mut confirmed, mut refused) = (false, None);
    for step in steps {
        let words = step.note();
        if step.destroys() && !std::mem::replace(&mut confirmed, true) {
            // The cache may be old: nothing that runs is ended because of it.
            if let Err(error) = context.writer.confirm(&*done.cluster).await {
                done.failure = Some(Failure::of_write(error, format!("the step that {words} failed")));
                break;
            }
        }
        if let Err(error) = take(&mut done.cluster, identity, seen, step, context).await {
            refused = match &error {
                WriteError::Invalid(why) | WriteError::Forbidden(why) => {
                    Some(format!("the step that {words} is refused: {why}"))
                }
                WriteError::Foreign => Some(format!(
                    "the step that {words} failed, because an object of its name belongs to somebody else: remove that"
                )),
                _ => None,
            };
            done.failure = Some(Failure::of_write(error, format!("the step that {words} failed")));
            break;
        }
    }
    context.memory.lock().entry(identity.uid.clone()).or_default().refused = refused;
    done
}

async fn take(
    cluster: &mut Arc<Cluster>,
    identity: &Identity,
    seen: &Snapshot,
    step: Step,
    context: &Context,
) -> Result<(), WriteError> {
    let writer = &context.writer;
    let live = |ordinal: u32| {
        let name = identity.name.member(ordinal).to_string();
        seen.members.iter().find(|member| member.name_any() == name)
    };
    match step {
        Step::AddFinalizer => *cluster = Arc::new(writer.add_finalizer(&**cluster, FINALIZER).await?),
        Step::RemoveFinalizer => *cluster = Arc::new(writer.remove_finalizer(&**cluster, FINALIZER).await?),
        Step::PutKey => put_key(identity, context).await?,
        Step::PutRevision(revision, number) => {
            let stored = build::revision(identity, &revision, number);
            let name = stored.name_any();
            context.memory.lock().entry(identity.uid.clone()).or_default().revision = Some(name);
            writer.put(&stored, None).await?;
        }
        Step::CreateMember(member) => {
            let made = build::member(identity, member.ordinal, member.partition, &member.revision);
            context.memory.lock().entry(identity.uid.clone()).or_default().made.insert(member.ordinal);
            writer.put(&made, None).await?;
        }
        Step::MoveMember(member) => {
            let moved = build::member(identity, member.ordinal, member.partition, &member.revision);
            writer.put(&moved, live(member.ordinal).map(|live| &**live)).await?;
        }
        Step::DeleteMember(ordinal) => {
            if let Some(live) = live(ordinal) {
                // Once it is nobody's member any more, as after `--cascade=orphan`, it is not ours to remove.
                writer.delete_exact::<Instance>(live.meta()).await?;
            }
        }
        Step::DeleteRevision(name) => {
            if let Some(stored) = seen.revisions.iter().find(|stored| stored.name_any() == name) {
                writer.delete::<ControllerRevision>(&stored.metadata).await?;
            }
        }
    }
    Ok(())
}

/// Makes the subscription key, once: one that is there is never another.
async fn put_key(identity: &Identity, context: &Context) -> Result<(), WriteError> {
    let mut random = [0_u8; 32];
    let filled = SystemRandom::new().fill(&mut random);
    filled.map_err(|_| WriteError::Invalid("the system gives no random numbers".into()))?;
    let secret = build::key(identity, &HEXLOWER.encode(&random));
    match context.writer.put_new(&secret).await {
        Err(WriteError::Conflict) if !context.writer.is_ours(&secret).await? => Err(WriteError::Foreign),
        Err(WriteError::Conflict) => Ok(()),
        made => made,
    }
}

/// Forgets a Cluster that is gone.
pub fn forget(cluster: &Cluster, context: &Context) {
    let uid = cluster.uid().unwrap_or_default();
    context.flows.log.forget(&uid);
    context.memory.lock().remove(&uid);
    context.troubles.forget(&uid);
}

fn note(cluster: &Cluster, event: Event, text: String) -> Note {
    let action = if event == Event::ClusterTerminating { "Stop" } else { "Start" };
    Note {
        about: cluster.object_ref(&()),
        warning: event == Event::ClusterFailed,
        reason: event.to_string(),
        action,
        text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_said_at_once_and_then_not_before_some_time() {
        let (memory, began) = (Memory::default(), Instant::now());
        assert_eq!(memory.rest("a", began), None);
        memory.said("a", began);
        let later = began + Duration::from_millis(100);
        assert_eq!(memory.rest("a", later), Some(PACE.saturating_sub(Duration::from_millis(100))));
        assert_eq!(memory.rest("b", later), None);
        assert_eq!(memory.rest("a", began + PACE), None);
    }
}
