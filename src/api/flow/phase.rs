//! The phase of a Flow.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::api::condition::{Reason, Refusal, Summary};
use crate::api::transition::Event;

/// Where a Flow is in its life: Starting, Started, Active on the way up; Stopping, Inactive on the way down; Failed when
/// a person must act.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = crate::api::schema::undescribed)]
pub enum FlowPhase {
    /// It is being deleted, or it is suspended and what is queued or in flight is still being worked off.
    Stopping,
    /// It is suspended and at rest: the trigger is not heard, nothing is queued, no pod is left.
    Inactive,
    /// Nothing goes on until a person acts; the condition Stalled says why.
    Failed,
    /// The trigger is heard, and messages flow. It stays so while pods are replaced: what arrives is queued.
    Active,
    /// The pods of every node are ready; the trigger is not heard yet.
    Started,
    /// The pods of its nodes are on their way.
    Starting,
}

impl fmt::Display for FlowPhase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// What is announced when it is reached.
impl From<FlowPhase> for Event {
    fn from(phase: FlowPhase) -> Self {
        match phase {
            FlowPhase::Stopping => Self::FlowStopping,
            FlowPhase::Inactive => Self::FlowStopped,
            FlowPhase::Failed => Self::FlowFailed,
            FlowPhase::Active => Self::FlowActive,
            FlowPhase::Started => Self::FlowStarted,
            FlowPhase::Starting => Self::FlowStarting,
        }
    }
}

/// What somebody wants of a Flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// It is to run.
    Run,
    /// It is to be at rest: `spec.suspend`.
    Suspend,
    /// It is to go: it has a deletion timestamp, whatever its spec says.
    Delete,
}

/// How the pods of a Flow's nodes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nodes {
    /// Those of every node were seen ready: the condition `NodesReady`.
    Ready,
    /// Some are not ready yet, and the progress deadline has not passed.
    Starting,
    /// Something that they need is missing, such as a Secret. The deadline says nothing here: a Secret that comes late
    /// is no dead end.
    Waiting,
    /// Some are not ready, nothing is missing, and the progress deadline has passed.
    Overdue,
}

/// All that the phase of a Flow depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Situation {
    /// What is wanted.
    pub wish: Wish,
    /// The condition Drained: trigger not heard, queue empty or the drain limit passed, pods gone.
    pub drained: bool,
    /// Why the spec is not accepted, if it is not.
    pub refused: Option<Refusal>,
    /// How the pods are.
    pub nodes: Nodes,
    /// The condition `TriggerArmed`.
    pub trigger_armed: bool,
}

impl Situation {
    /// The phase, and what it means to those who wait for the Flow. The first line that fits decides.
    #[must_use]
    pub fn assess(self) -> (FlowPhase, Summary) {
        use FlowPhase::{Active, Failed, Inactive, Started, Starting, Stopping};
        use Summary::{Settled, Stalled, Working};
        let Self { wish, drained, refused, nodes, trigger_armed: armed } = self;
        match (wish, drained, refused, nodes, armed) {
            (Wish::Delete, _, _, _, _) => (Stopping, Working(Reason::Deleting)),
            (Wish::Suspend, false, _, _, _) => (Stopping, Working(Reason::Stopping)),
            (Wish::Suspend, true, _, _, _) => (Inactive, Settled(Reason::Suspended)),
            (Wish::Run, _, Some(refusal), _, _) => (Failed, Stalled(refusal.into())),
            (Wish::Run, _, None, Nodes::Overdue, _) => (Failed, Stalled(Reason::ProgressDeadlineExceeded)),
            (Wish::Run, _, None, Nodes::Ready, true) => (Active, Settled(Reason::Active)),
            (Wish::Run, _, None, Nodes::Waiting, true) => (Active, Working(Reason::DependencyNotReady)),
            (Wish::Run, _, None, Nodes::Starting, true) => (Active, Working(Reason::NodeUnavailable)),
            (Wish::Run, _, None, Nodes::Ready, false) => (Started, Working(Reason::TriggerNotArmed)),
            (Wish::Run, _, None, Nodes::Waiting, false) => (Starting, Working(Reason::DependencyNotReady)),
            (Wish::Run, _, None, Nodes::Starting, false) => (Starting, Working(Reason::Starting)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WISHES: [Wish; 3] = [Wish::Run, Wish::Suspend, Wish::Delete];
    const REFUSALS: [Option<Refusal>; 3] = [None, Some(Refusal::InvalidSpec), Some(Refusal::NotYetSupported)];
    const NODES: [Nodes; 4] = [Nodes::Ready, Nodes::Starting, Nodes::Waiting, Nodes::Overdue];
    const BOTH: [bool; 2] = [false, true];

    /// Every situation that there is.
    fn all() -> Vec<Situation> {
        let mut all = vec![];
        for wish in WISHES {
            for drained in BOTH {
                for refused in REFUSALS {
                    for nodes in NODES {
                        for trigger_armed in BOTH {
                            all.push(Situation { wish, drained, refused, nodes, trigger_armed });
                        }
                    }
                }
            }
        }
        all
    }

    /// A row of the phase table: phase, when it holds, and whether Ready is True then.
    type Row = (FlowPhase, fn(Situation) -> bool, fn(Situation) -> bool);

    fn stalled(s: Situation) -> bool {
        s.refused.is_some() || s.nodes == Nodes::Overdue
    }

    const TABLE: [Row; 6] = [
        (FlowPhase::Stopping, |s| s.wish == Wish::Delete || s.wish == Wish::Suspend && !s.drained, |_| false),
        (FlowPhase::Inactive, |s| s.wish == Wish::Suspend && s.drained, |_| true),
        (FlowPhase::Failed, stalled, |_| false),
        (FlowPhase::Active, |s| s.trigger_armed, |s| s.nodes == Nodes::Ready),
        (FlowPhase::Started, |s| s.nodes == Nodes::Ready, |_| false),
        (FlowPhase::Starting, |_| true, |_| false),
    ];

    /// All that differ from a situation in exactly one thing, and that may follow it: a deletion is never taken back.
    fn next(s: Situation) -> Vec<Situation> {
        let changes = |o: &Situation| {
            [
                s.wish != o.wish,
                s.drained != o.drained,
                s.refused != o.refused,
                s.nodes != o.nodes,
                s.trigger_armed != o.trigger_armed,
            ]
        };
        all()
            .into_iter()
            .filter(|o| changes(o).into_iter().filter(|changed| *changed).count() == 1)
            .filter(|o| s.wish != Wish::Delete || o.wish == Wish::Delete)
            .collect()
    }

    #[test]
    fn every_situation_has_the_phase_of_the_first_row_that_holds() {
        assert_eq!(all().len(), 144);
        for s in all() {
            let (phase, _, ready) = TABLE.iter().find(|(_, holds, _)| holds(s)).unwrap();
            let (seen, summary) = s.assess();
            assert_eq!((seen, summary.is_ready()), (*phase, ready(s)), "{s:?}");
        }
    }

    #[test]
    fn it_is_stalled_exactly_when_failed_and_settled_exactly_when_ready() {
        for s in all() {
            let (phase, summary) = s.assess();
            assert_eq!(matches!(summary, Summary::Stalled(_)), phase == FlowPhase::Failed, "{s:?}");
            assert_eq!(matches!(summary, Summary::Settled(_)), summary.is_ready(), "{s:?}");
        }
    }

    #[test]
    fn the_reason_says_what_keeps_it() {
        let running = Situation {
            wish: Wish::Run,
            drained: false,
            refused: None,
            nodes: Nodes::Ready,
            trigger_armed: true,
        };
        let unarmed = Situation { trigger_armed: false, ..running };
        for (s, reason) in [
            (running, Reason::Active),
            (Situation { nodes: Nodes::Starting, ..running }, Reason::NodeUnavailable),
            (Situation { nodes: Nodes::Waiting, ..running }, Reason::DependencyNotReady),
            (Situation { nodes: Nodes::Overdue, ..running }, Reason::ProgressDeadlineExceeded),
            (unarmed, Reason::TriggerNotArmed),
            (Situation { nodes: Nodes::Starting, ..unarmed }, Reason::Starting),
            (Situation { nodes: Nodes::Waiting, ..unarmed }, Reason::DependencyNotReady),
            (Situation { refused: Some(Refusal::NotYetSupported), ..running }, Reason::NotYetSupported),
            (
                Situation { refused: Some(Refusal::InvalidSpec), nodes: Nodes::Overdue, ..running },
                Reason::InvalidSpec,
            ),
            (Situation { wish: Wish::Suspend, ..running }, Reason::Stopping),
            (Situation { wish: Wish::Suspend, drained: true, ..running }, Reason::Suspended),
            (Situation { wish: Wish::Delete, ..running }, Reason::Deleting),
        ] {
            assert_eq!(s.assess().1.reason(), reason, "{s:?}");
        }
    }

    #[test]
    fn every_situation_has_a_way_out_by_one_change() {
        // A Flow that is being deleted has one way out, which is no phase: it goes.
        for s in all().into_iter().filter(|s| s.wish != Wish::Delete) {
            assert!(next(s).into_iter().any(|o| o.assess().0 != s.assess().0), "{s:?}");
        }
    }

    #[test]
    fn suspend_delete_and_resume_work_from_everywhere() {
        for s in all() {
            let wished = |wish| Situation { wish, ..s }.assess().0;
            assert_eq!(wished(Wish::Delete), FlowPhase::Stopping, "{s:?}");
            let rest = if s.drained { FlowPhase::Inactive } else { FlowPhase::Stopping };
            assert_eq!(wished(Wish::Suspend), rest, "{s:?}");
            assert!(!matches!(wished(Wish::Run), FlowPhase::Stopping | FlowPhase::Inactive), "{s:?}");
        }
    }

    #[test]
    fn a_phase_is_stored_as_it_is_shown() {
        for (phase, ..) in TABLE {
            assert_eq!(serde_json::to_value(phase).unwrap(), phase.to_string());
        }
    }
}
