//! What to do about a Cluster, and what to say of it: pure, total, and with the time passed in.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use kube::ResourceExt as _;

use crate::api::cluster::{ClusterSpec, ClusterStatus};
use crate::api::condition::{ConditionType, is_true};
use crate::api::instance::{Desired, Instance};
use crate::api::revision::Revision;
use crate::api::transition::Event;

use super::build::Identity;
use super::placement::{self, Placed};
use super::snapshot::Snapshot;
use super::update::{self, Moving};

mod report;

#[cfg(test)]
mod tests;

/// What keeps a Cluster from going before its members.
pub const FINALIZER: &str = "millrace.dev/members";

/// How many members are made, moved or removed at a look: what else is to be done must not wait for thousands.
const AT_ONCE: usize = 50;
/// How many revisions that nobody runs are kept.
const KEPT: usize = 2;
/// How long a Cluster that is being deleted waits until its last transition is in the event log.
const LAST_WORDS: Duration = Duration::from_secs(30);

/// What to do and what to say.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// What to do, in this order; a step that fails ends the rest.
    pub steps: Vec<Step>,
    /// What to say, whatever became of the steps.
    pub status: ClusterStatus,
    /// What to announce, and a note for it, where the phase moved.
    pub event: Option<(Event, String)>,
    /// When to look again, if nothing happens before. None: in some minutes.
    pub look_again: Option<Duration>,
}

/// One thing to do. Each can be done again, with the same end.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Keep the Cluster from going before its members.
    AddFinalizer,
    /// Make the subscription key.
    PutKey,
    /// Store what members are to run, under a number that grows.
    PutRevision(Box<Revision>, i64),
    /// Make a member.
    CreateMember(Assignment),
    /// Move a member to another revision.
    MoveMember(Assignment),
    /// Remove a member: it leaves the load balancer and stops by itself.
    DeleteMember(u32),
    /// Remove a revision that nobody runs.
    DeleteRevision(String),
    /// Let the Cluster go.
    RemoveFinalizer,
}

/// What a member is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assignment {
    /// Its ordinal.
    pub ordinal: u32,
    /// Its partition.
    pub partition: Option<String>,
    /// Its revision.
    pub revision: String,
}

impl Step {
    /// Whether it takes away what cannot be had back, or what runs.
    #[must_use]
    pub const fn destroys(&self) -> bool {
        match self {
            Self::DeleteMember(_) | Self::MoveMember(_) | Self::DeleteRevision(_) => true,
            Self::AddFinalizer
            | Self::PutKey
            | Self::PutRevision(..)
            | Self::CreateMember(_)
            | Self::RemoveFinalizer => false,
        }
    }

    /// The step in words, for logs.
    #[must_use]
    pub fn note(&self) -> String {
        match self {
            Self::AddFinalizer => "keeps the cluster until its members are gone".into(),
            Self::PutKey => "makes the subscription key".into(),
            Self::PutRevision(..) => "stores what members are to run".into(),
            Self::CreateMember(member) => format!("makes member {}", member.ordinal),
            Self::MoveMember(member) => format!("moves member {} to {}", member.ordinal, member.revision),
            Self::DeleteMember(ordinal) => format!("removes member {ordinal}"),
            Self::DeleteRevision(name) => format!("removes revision {name}"),
            Self::RemoveFinalizer => "lets the cluster go".into(),
        }
    }
}

/// A member, as it was seen.
#[derive(Clone, Copy, Debug)]
struct Member<'a> {
    ordinal: u32,
    name: &'a str,
    partition: Option<&'a str>,
    revision: Option<&'a str>,
    active: bool,
    /// It runs the revision that it is to run.
    arrived: bool,
    going: bool,
    message: &'a str,
}

/// What is the case, as far as both steps and status depend on it.
struct Case<'a> {
    identity: &'a Identity,
    seen: &'a Snapshot,
    spec: &'a ClusterSpec,
    /// Those that stay or go, by ordinal.
    members: Vec<Member<'a>>,
    wanted: usize,
    /// The revision that members should be on: the present one, or that of before where there is none.
    target: Option<String>,
    /// The present one, where it can be known.
    present: Option<Revision>,
    /// Those for whom no partition has room.
    without_room: usize,
}

/// Decides.
#[must_use]
pub fn plan(identity: &Identity, seen: &Snapshot) -> Plan {
    let mut case = Case::of(identity, seen);
    let steps = case.steps();
    let mut plan = report::report(&case);
    plan.look_again = case.look_again(&steps);
    plan.steps = steps;
    plan
}

impl<'a> Case<'a> {
    fn of(identity: &'a Identity, seen: &'a Snapshot) -> Self {
        let spec = &seen.cluster.spec;
        let mut members: Vec<_> = seen.members.iter().filter_map(|it| member(identity, it)).collect();
        members.sort_by_key(|member| member.ordinal);
        let present = present(seen);
        let stored = |name: &String| seen.revisions.iter().any(|stored| stored.name_any() == *name);
        let before =
            seen.cluster.status.as_ref().and_then(|status| status.current_revision.clone()).filter(stored);
        let target = present.as_ref().map(|present| identity.revision(present)).or(before);
        Self { identity, seen, spec, members, wanted: wanted(spec), target, present, without_room: 0 }
    }

    fn is_deleting(&self) -> bool {
        self.seen.cluster.metadata.deletion_timestamp.is_some()
    }

    /// Those that are not going.
    fn staying(&self) -> impl Iterator<Item = &Member<'a>> {
        self.members.iter().filter(|member| !member.going)
    }

    fn steps(&mut self) -> Vec<Step> {
        if self.is_deleting() {
            return self.leave();
        }
        let mut steps = vec![];
        if self.seen.namespace_ending {
            return steps;
        }
        if !is_kept(self.seen) {
            steps.push(Step::AddFinalizer);
        }
        if !self.seen.key {
            steps.push(Step::PutKey);
        }
        steps.extend(self.store());
        let surplus = self.surplus();
        steps.extend(surplus.iter().copied().take(AT_ONCE).map(Step::DeleteMember));
        steps.extend(self.moves(&surplus));
        steps.extend(self.grow());
        steps.extend(self.prune());
        steps
    }

    /// Stores the present revision, where it is not yet.
    fn store(&self) -> Option<Step> {
        let present = self.present.as_ref()?;
        let name = self.identity.revision(present);
        if self.seen.revisions.iter().any(|stored| stored.name_any() == name) {
            return None;
        }
        let number = self.seen.revisions.iter().map(|stored| stored.revision).max().unwrap_or_default() + 1;
        Some(Step::PutRevision(Box::new(present.clone()), number))
    }

    fn surplus(&self) -> Vec<u32> {
        let count = self.staying().count().saturating_sub(self.wanted);
        if count == 0 {
            return vec![];
        }
        placement::surplus(self.spec.placement.as_ref(), &self.placed(), count)
    }

    fn placed(&self) -> Vec<Placed<'a>> {
        let placed =
            |it: &Member<'a>| Placed { ordinal: it.ordinal, partition: it.partition, active: it.active };
        self.staying().map(placed).collect()
    }

    /// Members that move to the revision that they should be on.
    fn moves(&self, surplus: &[u32]) -> Vec<Step> {
        let Some(target) = &self.target else { return vec![] };
        let surplus: BTreeSet<_> = surplus.iter().collect();
        let staying = self.staying().filter(|member| !surplus.contains(&member.ordinal));
        let moving: Vec<_> = staying
            .map(|member| Moving {
                ordinal: member.ordinal,
                current: member.revision == Some(target),
                available: member.active && member.arrived,
            })
            .collect();
        let given = self.spec.update.as_ref().and_then(|update| update.max_unavailable.as_ref());
        let may_miss = update::max_unavailable(given, self.wanted);
        let mut next = update::next(&moving, self.wanted, may_miss);
        next.truncate(AT_ONCE);
        let partition = |ordinal: u32| {
            let at = self.members.binary_search_by_key(&ordinal, |member| member.ordinal).ok()?;
            self.members[at].partition.map(str::to_owned)
        };
        let assignment =
            |ordinal| Assignment { ordinal, partition: partition(ordinal), revision: target.clone() };
        next.into_iter().map(assignment).map(Step::MoveMember).collect()
    }

    /// Members that are missing: those with the lowest ordinals that nobody has. One whose predecessor is still going is made
    /// when that is gone.
    fn grow(&mut self) -> Vec<Step> {
        let Some(target) = self.target.clone() else { return vec![] };
        let missing = self.wanted.saturating_sub(self.staying().count());
        if missing == 0 {
            return vec![];
        }
        let room = placement::room(self.spec.placement.as_ref(), &self.placed(), missing);
        self.without_room = room.without;
        let taken: BTreeSet<_> = self.staying().map(|member| member.ordinal).collect();
        let going: BTreeSet<_> = self.members.iter().filter(|it| it.going).map(|it| it.ordinal).collect();
        let free = (0..).filter(|ordinal| !taken.contains(ordinal) && !self.seen.foreign.contains(ordinal));
        let new = free.zip(room.partitions).filter(|(ordinal, _)| !going.contains(ordinal)).take(AT_ONCE);
        new.map(|(ordinal, partition)| {
            Step::CreateMember(Assignment { ordinal, partition, revision: target.clone() })
        })
        .collect()
    }

    /// Revisions that nobody runs or is to run, but for the last few.
    fn prune(&self) -> Vec<Step> {
        if self.seen.revisions.len() <= KEPT {
            return vec![];
        }
        let used: BTreeSet<_> = self
            .seen
            .members
            .iter()
            .flat_map(|member| {
                let status = member.status.as_ref().and_then(|status| status.revision.as_ref());
                member.spec.revision.iter().chain(status)
            })
            .chain(&self.target)
            .chain(self.seen.cluster.status.as_ref().and_then(|status| status.current_revision.as_ref()))
            .collect();
        let idle: BTreeMap<_, _> = self
            .seen
            .revisions
            .iter()
            .filter(|stored| !used.contains(&stored.name_any()))
            .map(|stored| ((std::cmp::Reverse(stored.revision), stored.name_any()), stored))
            .collect();
        idle.values().skip(KEPT).map(|stored| Step::DeleteRevision(stored.name_any())).collect()
    }

    fn leave(&self) -> Vec<Step> {
        let finalizers = self.seen.cluster.finalizers();
        // With `--cascade=orphan` the members stay: once they are nobody's any more, there are none.
        let orphans = finalizers.iter().any(|finalizer| finalizer == "orphan");
        if !self.members.is_empty() {
            let staying = self.staying().filter(|_| !orphans);
            return staying.map(|member| Step::DeleteMember(member.ordinal)).take(AT_ONCE).collect();
        }
        let late = report::terminating_for(self.seen) >= LAST_WORDS;
        let done = report::is_terminating(self.seen) && (self.seen.announced || late);
        (is_kept(self.seen) && !orphans && done).then_some(Step::RemoveFinalizer).into_iter().collect()
    }

    fn look_again(&self, steps: &[Step]) -> Option<Duration> {
        const SOON: Duration = Duration::from_millis(500);
        // Where as many steps are taken as may be at a look, there may be more.
        let leaving = self.is_deleting() && self.members.is_empty();
        (steps.len() >= AT_ONCE || leaving).then_some(SOON)
    }
}

/// How many members are wanted.
fn wanted(spec: &ClusterSpec) -> usize {
    let limits = spec.instances.clone().unwrap_or_default();
    let (min, max) = (limits.min.unwrap_or(0), limits.max.unwrap_or(10_000));
    usize::try_from(spec.replicas.min(max).max(min)).unwrap_or_default()
}

/// The revision that the spec and the cartridge make together; none where either cannot be acted on.
fn present(seen: &Snapshot) -> Option<Revision> {
    let cartridge = seen.cartridge.as_ref().ok().filter(|cartridge| cartridge.image.is_some())?;
    if seen.unfit.is_some() {
        return None;
    }
    let spec = &seen.cluster.spec;
    Some(Revision {
        cartridge: (**cartridge).clone(),
        values: spec.values.clone(),
        drain_seconds: spec.load_balancer.as_ref().and_then(|balancer| balancer.drain_seconds),
        partitions: spec.placement.as_ref().map(|placement| placement.partitions.clone()).unwrap_or_default(),
    })
}

fn member<'a>(identity: &Identity, instance: &'a Instance) -> Option<Member<'a>> {
    let name = instance.metadata.name.as_deref()?;
    let ordinal = name.strip_prefix(identity.name.as_str())?.strip_prefix('-')?.parse().ok()?;
    let status = instance.status.as_ref();
    let conditions = status.map(|status| &status.conditions[..]).unwrap_or_default();
    let desired = instance.spec.desired.unwrap_or_default() == Desired::Started;
    let ready = crate::api::condition::find(conditions, ConditionType::Ready);
    Some(Member {
        ordinal,
        name,
        partition: instance.spec.partition.as_deref(),
        revision: instance.spec.revision.as_deref(),
        active: desired
            && is_true(conditions, ConditionType::Ready)
            && is_true(conditions, ConditionType::Serving),
        arrived: status.is_some_and(|status| status.revision == instance.spec.revision),
        going: instance.metadata.deletion_timestamp.is_some(),
        message: ready.map(|ready| ready.message.as_str()).unwrap_or_default(),
    })
}

/// Whether the Cluster has our finalizer.
fn is_kept(seen: &Snapshot) -> bool {
    seen.cluster.finalizers().iter().any(|finalizer| finalizer == FINALIZER)
}
