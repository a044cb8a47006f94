//! The status of a Cluster, from what was seen.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt as _;

use crate::api::cluster::ClusterStatus;
use crate::api::cluster::phase::{ClusterPhase, Members, Situation};
use crate::api::condition::{self, ConditionType, Reason, Refusal, Status, Summary, Visit};
use crate::api::label;
use crate::api::transition::Event;
use crate::controllers::cluster::snapshot::Snapshot;
use crate::membership::service_name;

use super::{Case, Member, Plan};

/// How many members are named in a message.
const NAMED: usize = 2;

/// The status, and what to announce of it.
pub fn report(case: &Case<'_>) -> Plan {
    let (seen, identity) = (case.seen, case.identity);
    let generation = seen.cluster.metadata.generation.unwrap_or_default();
    let visit = Visit { generation, now: seen.now };
    let mut status = seen.cluster.status.clone().unwrap_or_default();
    let members = members(case);
    let refused = refusal(case);
    status.observed_generation = Some(generation);
    // Those that are going do not count: an autoscaler would think that they still share the load.
    status.replicas = Some(count(members.present));
    status.active_replicas = Some(count(members.active));
    status.updated_replicas = Some(count(members.updated));
    status.selector = Some(label::text(&label::select_cluster(&identity.name)));
    status.subscription_secret = Some(identity.key());
    // Only what is stored: what could not be stored cannot be gone back to.
    let stored = |name: &String| seen.revisions.iter().any(|stored| stored.name_any() == *name);
    if let Some(target) = case.target.as_ref().filter(|target| stored(target)) {
        status.current_revision = Some(target.clone());
    }
    if let Some(present) = &case.present {
        let address =
            || format!("{}.{}.svc", service_name(&identity.namespace, &identity.name), identity.namespace);
        status.address = (!present.cartridge.ports.is_empty()).then(address);
    }
    let (holds, reason, said) = match &refused {
        Some((refusal, message)) => (Status::False, (*refusal).into(), message.as_str()),
        None => (Status::True, Reason::Accepted, "the spec can be acted on"),
    };
    condition::set(&mut status.conditions, visit, ConditionType::Accepted, holds, reason, said);
    let min = case.spec.instances.as_ref().and_then(|limits| limits.min).unwrap_or_default();
    let situation = Situation {
        deleting: case.is_deleting(),
        refused: refused.as_ref().map(|(refusal, _)| *refusal),
        waiting: seen.cartridge.is_err() || seen.namespace_ending,
        members,
        min: u32::try_from(min).unwrap_or_default(),
        was_active: status.first_active_time.is_some(),
    };
    let (phase, summary) = situation.assess();
    let summary = refined(case, summary);
    let message = message(case, phase, summary, members, refused.map(|(_, message)| message));
    condition::summarise(&mut status.conditions, visit, summary, &message);
    if phase == ClusterPhase::Active && status.first_active_time.is_none() {
        status.first_active_time = Some(condition::seconds(seen.now));
    }
    let event = moved(case, &mut status, phase, visit).map(|event| (event, message));
    Plan { steps: vec![], status, event, look_again: None }
}

fn count(of: u32) -> i32 {
    i32::try_from(of).unwrap_or(i32::MAX)
}

fn members(case: &Case<'_>) -> Members {
    let of = |holds: &dyn Fn(&Member<'_>) -> bool| {
        u32::try_from(case.staying().filter(|member| holds(member)).count()).unwrap_or(u32::MAX)
    };
    let updated =
        |member: &Member<'_>| member.active && member.arrived && member.revision == case.target.as_deref();
    Members {
        wanted: u32::try_from(case.wanted).unwrap_or(u32::MAX),
        present: of(&|_| true),
        active: of(&|member| member.active),
        updated: of(&updated),
    }
}

/// Why the spec is not accepted.
fn refusal(case: &Case<'_>) -> Option<(Refusal, String)> {
    let cartridge = &case.identity.cartridge.name;
    let seen = case.seen;
    if let Some(unfit) = &seen.unfit {
        let message = format!("`spec.values` must fit the schema of the Cartridge '{cartridge}': {unfit}");
        return Some((Refusal::InvalidSpec, message));
    }
    let record = seen.cartridge.as_ref().is_ok_and(|cartridge| cartridge.image.is_none());
    record.then(|| {
        let message = format!(
            "`spec.cartridge` must be a type of application: the Cartridge '{cartridge}' has no `image`, so that its Instances \
             are records"
        );
        (Refusal::InvalidSpec, message)
    })
}

/// The same summary with a reason that says more.
fn refined(case: &Case<'_>, summary: Summary) -> Summary {
    match summary {
        Summary::Working(Reason::Starting | Reason::MembersNotActive) if case.without_room > 0 => {
            Summary::Working(Reason::NoRoom)
        }
        Summary::Working(Reason::Starting | Reason::MembersNotActive) if case.seen.refused.is_some() => {
            Summary::Working(Reason::Refused)
        }
        Summary::Settled(Reason::Active) if case.seen.trouble.is_some() => {
            Summary::Working(Reason::NameConflict)
        }
        summary => summary,
    }
}

fn message(
    case: &Case<'_>,
    phase: ClusterPhase,
    summary: Summary,
    members: Members,
    refused: Option<String>,
) -> String {
    let Members { wanted, present, active, updated } = members;
    let seen = case.seen;
    if phase == ClusterPhase::Terminating {
        return match case.members.len() {
            0 => "its members are gone".into(),
            left => format!("{} to go", plural(left, "member")),
        };
    }
    if let Some(refused) = refused {
        return refused;
    }
    if summary == Summary::Settled(Reason::ScaledToZero) {
        return "no member is wanted: set `spec.replicas` to have some".into();
    }
    let mut parts = vec![if active == wanted && present <= wanted {
        format!("{} active", plural(usize::try_from(active).unwrap_or_default(), "member"))
    } else {
        format!("{active} of {wanted} members are active")
    }];
    parts.extend(seen.cartridge.as_ref().err().cloned());
    parts.extend(seen.refused.clone());
    if case.without_room > 0 {
        let lack = case.without_room;
        parts.push(format!(
            "no partition has room for {lack} more: raise a `max` in `placement.partitions`, or lower `replicas`"
        ));
    }
    parts.extend(in_the_way(case));
    parts.extend(seen.trouble.clone());
    if updated < active.min(wanted) {
        parts.push(format!("{updated} run the present revision"));
    }
    if present > wanted {
        parts.push(format!("{} to go", present - wanted));
    }
    let silent = case.staying().filter(|member| !member.active && !member.message.is_empty());
    parts.extend(silent.take(NAMED).map(|member| format!("{}: {}", member.name, member.message)));
    parts.join("; ")
}

fn plural(count: usize, what: &str) -> String {
    match count {
        1 => format!("1 {what} is"),
        count => format!("{count} {what}s are"),
    }
}

/// Instances of others whose names would have been those of members.
fn in_the_way(case: &Case<'_>) -> Option<String> {
    let highest = case.members.iter().map(|member| member.ordinal).max()?;
    let mut names = case.seen.foreign.iter().filter(|ordinal| **ordinal <= highest);
    let name = case.identity.name.member(*names.next()?);
    Some(format!("the name '{name}' belongs to an Instance that is no member, and is passed over"))
}

/// Counts a move of the phase.
fn moved(case: &Case<'_>, status: &mut ClusterStatus, phase: ClusterPhase, visit: Visit) -> Option<Event> {
    let before = status.phase.replace(phase);
    if before == Some(phase) {
        return None;
    }
    let transitions = status.transitions.get_or_insert_default();
    // One whose first members are on their way at the first look was made all the same.
    if before.is_none() && phase != ClusterPhase::Created && !case.is_deleting() {
        transitions.record(Event::ClusterCreated, visit.now);
    }
    let event = Event::from(phase);
    transitions.record(event, visit.now);
    Some(event)
}

/// Whether the Cluster is said to be going.
pub fn is_terminating(seen: &Snapshot) -> bool {
    seen.cluster.status.as_ref().is_some_and(|status| status.phase == Some(ClusterPhase::Terminating))
}

/// How long it has been going.
pub fn terminating_for(seen: &Snapshot) -> Duration {
    let since = seen.cluster.metadata.deletion_timestamp.as_ref();
    let since = since.map(|Time(since)| seen.now.duration_since(*since));
    since.and_then(|since| Duration::try_from(since).ok()).unwrap_or_default()
}
