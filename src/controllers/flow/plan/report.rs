//! The status of a Flow, from what was seen.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use k8s_openapi::jiff::Timestamp;

use crate::api::condition::{self, ConditionType, Reason, Status, Summary, Visit};
use crate::api::flow::FlowStatus;
use crate::api::flow::phase::{FlowPhase, Nodes, Situation, Wish};
use crate::api::name::NodeId;
use crate::api::transition::Event;
use crate::controllers::flow::build::Identity;
use crate::controllers::flow::snapshot::Snapshot;
use crate::controllers::flow::validate::Invalid;

use super::nodes::{self, State};
use super::stop::Stage;
use super::trigger::Trigger;
use super::{Plan, was};

/// What is said of a Flow that should run.
pub struct Running {
    /// The node that gets what the trigger makes.
    pub entry: NodeId,
    /// How each node is.
    pub nodes: BTreeMap<NodeId, State>,
    /// What keeps everything, if anything does.
    pub blocked: Option<String>,
    /// How its trigger is.
    pub trigger: Trigger,
    /// Removed nodes that still have messages.
    pub draining: Vec<String>,
}

/// What is said of a Flow that should be at rest.
pub struct Stopping<'a> {
    /// Whether it should rest or go.
    pub wish: Wish,
    /// Why its spec could not be acted on if it were to run.
    pub invalid: Option<&'a Invalid>,
    /// How far it is.
    pub stage: &'a Stage,
}

/// A status in the making.
struct Report<'a> {
    seen: &'a Snapshot,
    visit: Visit,
    status: FlowStatus,
}

/// The status of a Flow that should run and can.
pub fn running(flow: &Identity, seen: &Snapshot, running: Running) -> Plan {
    let mut report = Report::new(seen);
    let limit = Duration::from_secs(u64::try_from(flow.progress_seconds).unwrap_or(0));
    let (nodes, message) = assess(seen, &running, limit);
    let armed = matches!(running.trigger, Trigger::Armed { .. });
    report.accepted(None);
    report.status.entry = Some(running.entry.to_string());
    condition::remove(&mut report.status.conditions, ConditionType::Drained);
    report.nodes(nodes, armed, &message);
    report.trigger(&running.trigger);
    let situation = Situation { wish: Wish::Run, drained: false, refused: None, nodes, trigger_armed: armed };
    let (phase, summary) = situation.assess();
    let (summary, message) = match (summary, running.trigger) {
        (Summary::Settled(_), _) if !running.draining.is_empty() => {
            let left = running.draining.join(", ");
            let message = format!("messages are still queued for what was removed: {left}");
            (Summary::Changing(Reason::Updating), message)
        }
        (Summary::Settled(_), _) => (summary, active(flow, seen)),
        (Summary::Working(Reason::TriggerNotArmed), Trigger::NotArmed(message)) => (summary, message),
        (Summary::Stalled(_), _) => {
            (summary, format!("the nodes were not ready within {} s: {message}", limit.as_secs()))
        }
        _ => (summary, message),
    };
    let since = (nodes == Nodes::Starting).then(|| limit.saturating_sub(elapsed(seen)));
    let mut plan = report.finish(phase, summary, &message);
    plan.look_again = since.map(|left| left + Duration::from_millis(100));
    plan
}

/// What a Flow does that is Active.
fn active(flow: &Identity, seen: &Snapshot) -> String {
    match &seen.flow.spec.trigger.cron {
        Some(cron) => {
            let zone = cron.time_zone.as_deref().unwrap_or("UTC");
            format!("runs by the schedule '{}' ({zone})", cron.schedule)
        }
        None => format!("requests to /hook/{}/{} are taken", flow.namespace, flow.name),
    }
}

/// How the nodes are together, and what to say of them.
fn assess(seen: &Snapshot, running: &Running, limit: Duration) -> (Nodes, String) {
    if let Some(blocked) = &running.blocked {
        return (Nodes::Waiting, blocked.clone());
    }
    let states = || running.nodes.values();
    let nodes = if states().all(|state| *state == State::Ready) {
        Nodes::Ready
    } else if states().any(|state| matches!(state, State::Waiting(_))) {
        Nodes::Waiting
    } else if was_overdue(seen) || elapsed(seen) >= limit {
        Nodes::Overdue
    } else {
        Nodes::Starting
    };
    (nodes, nodes::message(&running.nodes))
}

/// The status of a Flow whose spec cannot be acted on: what runs goes on, and so does what is said of it.
pub fn refused(seen: &Snapshot, invalid: &Invalid) -> Plan {
    let mut report = Report::new(seen);
    report.accepted(Some(invalid));
    condition::remove(&mut report.status.conditions, ConditionType::Drained);
    let nodes = if was(seen, ConditionType::NodesReady) { Nodes::Ready } else { Nodes::Starting };
    let armed = was(seen, ConditionType::TriggerArmed);
    let refused = Some(invalid.refusal);
    let situation = Situation { wish: Wish::Run, drained: false, refused, nodes, trigger_armed: armed };
    let (phase, summary) = situation.assess();
    report.finish(phase, summary, &invalid.message)
}

/// The status of a Flow that should be at rest, or go.
pub fn stopping(flow: &Identity, seen: &Snapshot, stopping: &Stopping) -> Plan {
    let mut report = Report::new(seen);
    let Stopping { wish, invalid, stage } = stopping;
    let drained = **stage == Stage::Rest;
    let armed = matches!(stage, Stage::Disarming(_)) && was(seen, ConditionType::TriggerArmed);
    report.accepted(*invalid);
    if !armed {
        report.status.armed_trigger = None;
    }
    let reason = if drained { Reason::Suspended } else { Reason::Stopping };
    let message = explain(flow, *wish, stage);
    report.set(ConditionType::TriggerArmed, armed, reason, &message);
    if drained || matches!(stage, Stage::Removing | Stage::Cleaning) {
        report.set(ConditionType::NodesReady, false, reason, &message);
    }
    report.set(ConditionType::Drained, drained, reason, &message);
    let nodes = Nodes::Starting;
    let situation = Situation { wish: *wish, drained, refused: None, nodes, trigger_armed: armed };
    let (phase, summary) = situation.assess();
    let mut plan = report.finish(phase, summary, &message);
    if drained && *wish == Wish::Delete && !has_stopped(seen) {
        // It has no phase of its own, since the Flow goes: what is announced is the end of its way.
        let transitions = plan.status.transitions.get_or_insert_default();
        transitions.record(Event::FlowStopped, seen.now);
        plan.event = Some((Event::FlowStopped, "the flow is at rest and goes".into()));
    }
    plan
}

fn explain(flow: &Identity, wish: Wish, stage: &Stage) -> String {
    match stage {
        Stage::Disarming(who) => who.clone(),
        Stage::Draining => format!(
            "messages are still queued or being handled: those left after {} s become dead letters",
            flow.drain_seconds
        ),
        Stage::Removing => "the pods are ending".into(),
        Stage::Cleaning => "the queues are being removed".into(),
        Stage::Rest if wish == Wish::Delete => "nothing is left of it".into(),
        Stage::Rest => "suspended: set `spec.suspend` to false to start it".into(),
    }
}

impl<'a> Report<'a> {
    fn new(seen: &'a Snapshot) -> Self {
        let generation = seen.flow.metadata.generation.unwrap_or_default();
        let mut status = seen.flow.status.clone().unwrap_or_default();
        status.observed_generation = Some(generation);
        Self { seen, visit: Visit { generation, now: seen.now }, status }
    }

    fn set(&mut self, of: ConditionType, holds: bool, reason: Reason, message: &str) {
        condition::set(&mut self.status.conditions, self.visit, of, Status::from(holds), reason, message);
    }

    fn accepted(&mut self, invalid: Option<&Invalid>) {
        match invalid {
            None => self.set(ConditionType::Accepted, true, Reason::Accepted, "the spec can be acted on"),
            Some(invalid) => {
                self.set(ConditionType::Accepted, false, invalid.refusal.into(), &invalid.message);
            }
        }
    }

    fn nodes(&mut self, nodes: Nodes, armed: bool, message: &str) {
        let reason = match nodes {
            Nodes::Ready => Reason::NodesReady,
            Nodes::Waiting => Reason::DependencyNotReady,
            Nodes::Overdue => Reason::ProgressDeadlineExceeded,
            Nodes::Starting if armed => Reason::NodeUnavailable,
            Nodes::Starting => Reason::Starting,
        };
        self.set(ConditionType::NodesReady, nodes == Nodes::Ready, reason, message);
    }

    fn trigger(&mut self, trigger: &Trigger) {
        match trigger {
            Trigger::Armed { trigger, message } => {
                self.status.armed_trigger = Some(trigger.clone());
                self.set(ConditionType::TriggerArmed, true, Reason::TriggerArmed, message);
            }
            Trigger::NotArmed(why) => {
                self.status.armed_trigger = None;
                self.set(ConditionType::TriggerArmed, false, Reason::TriggerNotArmed, why);
            }
        }
    }

    /// Says that there are messages which no node could handle, and roughly how many: each one more would be a write.
    fn dead_letters(&mut self) {
        let (namespace, name) =
            (self.seen.flow.metadata.namespace.as_deref(), self.seen.flow.metadata.name.as_deref());
        let (namespace, name) = (namespace.unwrap_or_default(), name.unwrap_or_default());
        match self.seen.dead_letters {
            None => {}
            Some(0) => condition::remove(&mut self.status.conditions, ConditionType::DeadLetters),
            Some(count) => {
                let count = roughly(count);
                let message =
                    format!("{count}: see `millrace dead-letters list -n {namespace} --flow {name}`");
                self.set(ConditionType::DeadLetters, true, Reason::DeadLetters, &message);
            }
        }
    }

    /// Sets the summary, and counts a move of the phase.
    fn finish(mut self, phase: FlowPhase, summary: Summary, message: &str) -> Plan {
        if begins_anew(self.seen, summary) {
            // Its time is that of the work that goes on, from which the progress deadline counts.
            condition::remove(&mut self.status.conditions, ConditionType::Reconciling);
        }
        condition::summarise(&mut self.status.conditions, self.visit, summary, message);
        self.dead_letters();
        let moved = self.status.phase != Some(phase);
        self.status.phase = Some(phase);
        let event = moved.then(|| {
            let event = Event::from(phase);
            self.status.transitions.get_or_insert_default().record(event, self.visit.now);
            (event, message.to_owned())
        });
        Plan { steps: vec![], status: self.status, event, look_again: None }
    }
}

/// How many messages became dead letters: exactly up to ten, then its order of magnitude.
fn roughly(count: u64) -> String {
    match count {
        1 => "1 message could not be handled".into(),
        2..10 => format!("{count} messages could not be handled"),
        _ => format!("{} messages or more could not be handled", 10_u64.pow(count.ilog10())),
    }
}

/// Whether the work that goes on is another than that of before: the spec has changed, or what was missing is there.
fn begins_anew(seen: &Snapshot, summary: Summary) -> bool {
    let waited = of_seen(seen, ConditionType::Reconciling)
        .is_some_and(|was| was.reason == Reason::DependencyNotReady.to_string());
    !is_current(seen) || waited && summary.reason() != Reason::DependencyNotReady
}

/// Whether the status is about the spec as it is.
pub fn is_current(seen: &Snapshot) -> bool {
    let observed = seen.flow.status.as_ref().and_then(|status| status.observed_generation);
    observed == seen.flow.metadata.generation
}

/// How long the present work has been going on: since the nodes were last ready, or the spec changed.
pub fn elapsed(seen: &Snapshot) -> Duration {
    let waited = Reason::DependencyNotReady.to_string();
    let since = of_seen(seen, ConditionType::Reconciling)
        .filter(|condition| is_current(seen) && condition.reason != waited)
        .map(|condition| condition.last_transition_time.0);
    since.map_or(Duration::ZERO, |since| between(since, seen.now))
}

fn was_overdue(seen: &Snapshot) -> bool {
    let overdue = Reason::ProgressDeadlineExceeded.to_string();
    is_current(seen) && of_seen(seen, ConditionType::Stalled).is_some_and(|was| was.reason == overdue)
}

/// How long the Flow has been on its way to rest.
pub fn draining_for(seen: &Snapshot) -> Duration {
    drained_is(seen, Status::False)
}

/// How long nothing has been left of it.
pub fn at_rest_for(seen: &Snapshot) -> Duration {
    drained_is(seen, Status::True)
}

fn drained_is(seen: &Snapshot, status: Status) -> Duration {
    let since = of_seen(seen, ConditionType::Drained).filter(|was| was.status == status.to_string());
    since.map_or(Duration::ZERO, |since| between(since.last_transition_time.0, seen.now))
}

/// Whether the end of its way is counted.
pub fn has_stopped(seen: &Snapshot) -> bool {
    let transitions = seen.flow.status.as_ref().and_then(|status| status.transitions.as_ref());
    let last = transitions.and_then(|transitions| transitions.recent.last());
    last.is_some_and(|last| last.event == Event::FlowStopped.to_string())
}

fn of_seen(seen: &Snapshot, of: ConditionType) -> Option<&Condition> {
    seen.flow.status.as_ref().and_then(|status| condition::find(&status.conditions, of))
}

/// How long it is from one time to another; none where a clock was set back.
fn between(since: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(since)).unwrap_or_default()
}
