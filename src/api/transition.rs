//! Transitions: the moves of an object's phase, counted, so that each can be announced exactly once.

use std::fmt;

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::condition::seconds;

/// How many moves an object remembers.
pub const REMEMBERED: usize = 8;

/// The moves of an object's phase.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Transitions {
    /// How many moves there have been since the object was created. It only grows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counter: Option<i64>,
    /// The last eight moves, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub recent: Vec<Transition>,
}

/// One move of an object's phase.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Transition {
    /// The value of the counter at this move.
    pub counter: i64,
    /// What happened, as the event's reason, for example `FlowStarted`. A newer version may have written a word that this
    /// one does not know.
    #[schemars(length(max = 64))]
    pub event: String,
    /// When it was seen, to the second.
    pub time: Time,
}

/// What can happen to an object: the reasons of the Kubernetes events that announce it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Event {
    /// A Flow's pods are on their way.
    FlowStarting,
    /// The pods of all nodes of a Flow are ready.
    FlowStarted,
    /// A Flow's trigger is heard.
    FlowActive,
    /// A Flow works off what it has, on its way to rest.
    FlowStopping,
    /// A Flow is at rest.
    FlowStopped,
    /// A Flow cannot go on until a person acts.
    FlowFailed,
    /// A Cartridge can be used.
    CartridgeDeployed,
    /// A Cartridge cannot be used until a person acts.
    CartridgeFailed,
    /// A Cluster was made.
    ClusterCreated,
    /// The first members of a Cluster are on their way.
    ClusterStarting,
    /// A Cluster has enough Active members.
    ClusterActivated,
    /// A Cluster no longer has enough Active members, or was scaled to none.
    ClusterDeactivated,
    /// A Cluster cannot go on until a person acts.
    ClusterFailed,
    /// A Cluster is being deleted.
    ClusterTerminating,
    /// An Instance was made: a member of a Cluster, or one of its own.
    MemberCreated,
    /// The pod of an Instance is there, and its application is to start.
    MemberStarting,
    /// An Instance waits for an import.
    InstanceUnresolved,
    /// The process of an Instance's application runs.
    MemberStarted,
    /// A member serves.
    MemberActivated,
    /// A member left the load balancer.
    MemberLeft,
    /// A member runs outside of the load balancer, as was asked for.
    MemberInMaintenance,
    /// An Instance is on its way to rest.
    MemberStopping,
    /// The application of an Instance is stopped, as was asked for.
    MemberStopped,
    /// An Instance has no pod, as was asked for.
    MemberUndeployed,
    /// An Instance cannot go on until a person acts.
    MemberFailed,
    /// A member is gone.
    MemberTerminated,
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

impl Transitions {
    /// Counts a move, and forgets the oldest where there are more than [`REMEMBERED`].
    pub fn record(&mut self, event: Event, now: Timestamp) {
        let counter = self.last().saturating_add(1);
        self.counter = Some(counter);
        self.recent.push(Transition { counter, event: event.to_string(), time: seconds(now) });
        let forgotten = self.recent.len().saturating_sub(REMEMBERED);
        self.recent.drain(..forgotten);
    }

    /// The counter of the last move, 0 before the first. Announcements carry it as their id, so it must never fall, not
    /// even where somebody has edited the status: the highest that is written anywhere counts.
    fn last(&self) -> i64 {
        let remembered = self.recent.iter().map(|transition| transition.counter);
        remembered.chain(self.counter).max().unwrap_or(0).max(0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::api::flow::phase::FlowPhase;

    fn at(second: i64) -> Timestamp {
        Timestamp::new(second, 999_999_999).unwrap()
    }

    fn transition(counter: i64, event: &str, second: i64) -> Transition {
        Transition { counter, event: event.into(), time: Time(Timestamp::from_second(second).unwrap()) }
    }

    #[test]
    fn a_move_is_counted_and_remembered_to_the_second() {
        let mut transitions = Transitions::default();
        transitions.record(FlowPhase::Starting.into(), at(10));
        transitions.record(FlowPhase::Started.into(), at(11));
        let recent = vec![transition(1, "FlowStarting", 10), transition(2, "FlowStarted", 11)];
        assert_eq!(transitions, Transitions { counter: Some(2), recent });
    }

    #[test]
    fn a_ninth_move_pushes_out_the_first() {
        let mut transitions = Transitions::default();
        for second in 1..=9 {
            transitions.record(Event::ClusterActivated, at(second));
        }
        let recent = (2..=9).map(|second| transition(second, "ClusterActivated", second)).collect();
        assert_eq!(transitions, Transitions { counter: Some(9), recent });
    }

    #[test]
    fn what_a_newer_version_has_written_is_read_and_kept() {
        let stored = json!({
            "counter": 41,
            "recent": [{"counter": 41, "event": "FlowTeleported", "time": "2026-01-01T00:00:00Z", "by": "newer"}],
        });
        let mut transitions: Transitions = serde_json::from_value(stored).unwrap();
        transitions.record(Event::FlowStopped, at(1));
        let events: Vec<_> = transitions.recent.iter().map(|t| (t.counter, t.event.as_str())).collect();
        assert_eq!(events, [(41, "FlowTeleported"), (42, "FlowStopped")]);
    }

    #[test]
    fn a_counter_that_somebody_took_away_does_not_fall() {
        let mut transitions = Transitions { counter: None, recent: vec![transition(7, "FlowActive", 1)] };
        transitions.record(Event::FlowStopping, at(2));
        assert_eq!(transitions.counter, Some(8));
    }

    #[test]
    fn the_schema_bounds_what_is_kept() {
        let schema = schemars::schema_for!(Transitions).to_value();
        assert_eq!(schema["properties"]["recent"]["maxItems"], json!(REMEMBERED));
        assert_eq!(schema["$defs"]["Transition"]["properties"]["event"]["maxLength"], json!(64));
    }

    proptest! {
        #[test]
        fn the_counter_grows_by_one_and_ends_what_is_remembered(
            first in prop::option::of(-3i64..1000), moves in 0i64..30,
        ) {
            let mut transitions = Transitions { counter: first, recent: vec![] };
            let start = first.unwrap_or(0).max(0);
            for step in 1..=moves {
                let before = transitions.clone();
                transitions.record(Event::FlowActive, at(step));
                prop_assert_eq!(transitions.counter, Some(start + step));
                let counters: Vec<_> = transitions.recent.iter().map(|t| t.counter).collect();
                let kept = step.min(8);
                prop_assert_eq!(counters, (start + step - kept + 1..=start + step).collect::<Vec<_>>());
                let old = &transitions.recent[..transitions.recent.len() - 1];
                prop_assert!(before.recent.ends_with(old));
            }
        }

        #[test]
        fn any_stored_state_is_counted_on(counters in prop::collection::vec(any::<i64>(), 0..12), stored: Option<i64>) {
            let recent: Vec<_> = counters.iter().map(|counter| transition(*counter, "FlowActive", 1)).collect();
            let mut transitions = Transitions { counter: stored, recent };
            let highest = transitions.last();
            transitions.record(Event::FlowActive, at(1));
            prop_assert_eq!(transitions.counter, Some(highest.saturating_add(1)));
            prop_assert_eq!(transitions.recent.last().map(|t| t.counter), transitions.counter);
            prop_assert!(transitions.recent.len() <= REMEMBERED);
        }
    }
}
