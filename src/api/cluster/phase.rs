//! The phase of a Cluster.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::api::condition::{Reason, Refusal, Summary};
use crate::api::transition::Event;

/// Where a Cluster is in its life: Created, Starting, Active on the way up; Inactive without enough members; Failed when a
/// person must act; Terminating on its way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = crate::api::schema::undescribed)]
pub enum ClusterPhase {
    /// It is being deleted.
    Terminating,
    /// Nothing goes on until a person acts; the condition Stalled says why. Its members run on.
    Failed,
    /// No member is wanted and none is left; or it was Active before and too few members are Active now.
    Inactive,
    /// It has no member yet, and was never Active.
    Created,
    /// As many members are Active as `instances.min` asks for, and at least one.
    Active,
    /// Its first members are on their way.
    Starting,
}

impl fmt::Display for ClusterPhase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// What is announced when it is reached.
impl From<ClusterPhase> for Event {
    fn from(phase: ClusterPhase) -> Self {
        match phase {
            ClusterPhase::Terminating => Self::ClusterTerminating,
            ClusterPhase::Failed => Self::ClusterFailed,
            ClusterPhase::Inactive => Self::ClusterDeactivated,
            ClusterPhase::Created => Self::ClusterCreated,
            ClusterPhase::Active => Self::ClusterActivated,
            ClusterPhase::Starting => Self::ClusterStarting,
        }
    }
}

/// How many members there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Members {
    /// How many there should be: the replicas within `instances.min` and `instances.max`.
    pub wanted: u32,
    /// How many there are, in whatever phase.
    pub present: u32,
    /// How many of those are Active.
    pub active: u32,
    /// How many of those run on the current revision.
    pub updated: u32,
}

/// All that the phase of a Cluster depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Situation {
    /// It has a deletion timestamp.
    pub deleting: bool,
    /// Why the spec is not accepted, if it is not.
    pub refused: Option<Refusal>,
    /// Something that it needs and does not make is missing, such as its Cartridge. It says why a Cluster is not ready;
    /// one whose members are all there is ready without.
    pub waiting: bool,
    /// Its members.
    pub members: Members,
    /// The `instances.min` of its spec; 0 where there is none.
    pub min: u32,
    /// It was Active before: `status.firstActiveTime` is set.
    pub was_active: bool,
}

impl Situation {
    /// The phase, and what it means to those who wait for the Cluster. The first line that holds decides.
    #[must_use]
    pub fn assess(self) -> (ClusterPhase, Summary) {
        use ClusterPhase::{Active, Created, Failed, Inactive, Starting, Terminating};
        let Members { wanted, present, active, .. } = self.members;
        if self.deleting {
            (Terminating, Summary::Working(Reason::Deleting))
        } else if let Some(refusal) = self.refused {
            (Failed, Summary::Stalled(refusal.into()))
        } else if wanted == 0 && present == 0 {
            (Inactive, Summary::Settled(Reason::ScaledToZero))
        } else if present == 0 && !self.was_active {
            (Created, Summary::Working(self.lacks(Reason::Starting)))
        } else if active >= self.min.max(1) {
            (Active, self.active())
        } else if self.was_active {
            (Inactive, Summary::Working(self.lacks(Reason::MembersNotActive)))
        } else {
            (Starting, Summary::Working(self.lacks(Reason::Starting)))
        }
    }

    /// What Active means: ready when all that are wanted are Active and on the current revision.
    fn active(self) -> Summary {
        let Members { wanted, present, active, updated } = self.members;
        if active < wanted {
            Summary::Working(self.lacks(Reason::MembersNotActive))
        } else if updated < wanted {
            Summary::Working(self.lacks(Reason::Updating))
        } else if present > wanted {
            Summary::Changing(Reason::ScalingDown)
        } else {
            Summary::Settled(Reason::Active)
        }
    }

    /// What is missing comes before whatever else keeps a Cluster.
    const fn lacks(self, otherwise: Reason) -> Reason {
        if self.waiting { Reason::DependencyNotReady } else { otherwise }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: [bool; 2] = [false, true];
    const REFUSALS: [Option<Refusal>; 3] = [None, Some(Refusal::InvalidSpec), Some(Refusal::NotYetSupported)];

    /// How many members the tests go up to: beyond, nothing new can happen, since only the order of the numbers counts.
    const MOST: u32 = 4;

    /// Every set of counts that can be: the updated are among the Active, and these among the present.
    fn counts() -> Vec<(Members, u32)> {
        let mut all = vec![];
        for wanted in 0..=MOST {
            for present in 0..=MOST {
                for active in 0..=present {
                    for updated in 0..=active {
                        let members = Members { wanted, present, active, updated };
                        all.extend((0..=wanted).map(|min| (members, min)));
                    }
                }
            }
        }
        all
    }

    /// Every situation that there is, up to that many members.
    fn all() -> Vec<Situation> {
        let mut all = vec![];
        for (members, min) in counts() {
            for deleting in BOTH {
                for refused in REFUSALS {
                    for waiting in BOTH {
                        for was_active in BOTH {
                            all.push(Situation { deleting, refused, waiting, members, min, was_active });
                        }
                    }
                }
            }
        }
        all
    }

    /// A row of the phase table: phase, when it holds, and whether Ready is True then.
    type Row = (ClusterPhase, fn(Situation) -> bool, fn(Situation) -> bool);

    fn all_wanted_are_active_and_current(s: Situation) -> bool {
        (1..=s.members.wanted).all(|member| member <= s.members.active && member <= s.members.updated)
    }

    const TABLE: [Row; 7] = [
        (ClusterPhase::Terminating, |s| s.deleting, |_| false),
        (ClusterPhase::Failed, |s| s.refused.is_some(), |_| false),
        (ClusterPhase::Inactive, |s| s.members.wanted == 0 && s.members.present == 0, |_| true),
        (ClusterPhase::Created, |s| s.members.present == 0 && !s.was_active, |_| false),
        (
            ClusterPhase::Active,
            |s| s.members.active >= 1 && s.members.active >= s.min,
            all_wanted_are_active_and_current,
        ),
        (ClusterPhase::Inactive, |s| s.was_active, |_| false),
        (ClusterPhase::Starting, |_| true, |_| false),
    ];

    const CALM: Situation = Situation {
        deleting: false,
        refused: None,
        waiting: false,
        members: Members { wanted: 2, present: 2, active: 2, updated: 2 },
        min: 1,
        was_active: true,
    };

    #[test]
    fn every_situation_has_the_phase_of_the_first_row_that_holds() {
        assert_eq!(all().len(), 24 * counts().len());
        for s in all() {
            let (phase, _, ready) = TABLE.iter().find(|(_, holds, _)| holds(s)).unwrap();
            let (seen, summary) = s.assess();
            assert_eq!((seen, summary.is_ready()), (*phase, ready(s)), "{s:?}");
        }
    }

    #[test]
    fn it_is_stalled_exactly_when_failed_and_settled_exactly_when_nothing_is_left_to_do() {
        for s in all() {
            let (phase, summary) = s.assess();
            assert_eq!(matches!(summary, Summary::Stalled(_)), phase == ClusterPhase::Failed, "{s:?}");
            let Members { wanted, present, active, updated } = s.members;
            let done = wanted == present && wanted == active && wanted == updated;
            let settled = !s.deleting && s.refused.is_none() && done;
            assert_eq!(matches!(summary, Summary::Settled(_)), settled, "{s:?}");
        }
    }

    #[test]
    fn the_reason_says_what_keeps_it() {
        let members = |wanted, present, active, updated| Situation {
            members: Members { wanted, present, active, updated },
            ..CALM
        };
        let fresh = |s| Situation { was_active: false, ..s };
        for (s, reason) in [
            (CALM, Reason::Active),
            (Situation { waiting: true, ..CALM }, Reason::Active),
            (members(2, 3, 3, 3), Reason::ScalingDown),
            (members(3, 3, 2, 2), Reason::MembersNotActive),
            (members(2, 2, 2, 1), Reason::Updating),
            (members(2, 2, 0, 0), Reason::MembersNotActive),
            (Situation { waiting: true, ..members(2, 2, 0, 0) }, Reason::DependencyNotReady),
            (members(0, 0, 0, 0), Reason::ScaledToZero),
            (fresh(members(2, 0, 0, 0)), Reason::Starting),
            (fresh(members(2, 1, 0, 0)), Reason::Starting),
            (Situation { waiting: true, ..fresh(members(2, 0, 0, 0)) }, Reason::DependencyNotReady),
            (Situation { refused: Some(Refusal::InvalidSpec), ..CALM }, Reason::InvalidSpec),
            (Situation { deleting: true, ..CALM }, Reason::Deleting),
        ] {
            assert_eq!(s.assess().1.reason(), reason, "{s:?}");
        }
    }

    #[test]
    fn every_situation_has_a_way_out_by_one_change() {
        // Of wish: it can be deleted, and its spec corrected. A Cluster that is being deleted goes, which is no phase.
        for s in all().into_iter().filter(|s| !s.deleting) {
            let mut next = vec![Situation { deleting: true, ..s }];
            next.extend(REFUSALS.map(|refused| Situation { refused, ..s }));
            assert!(next.into_iter().any(|o| o.assess().0 != s.assess().0), "{s:?}");
        }
        // Of fact: without a person, the members alone lead out of every phase but Failed.
        for s in all().into_iter().filter(|s| !s.deleting && s.refused.is_none()) {
            let mut next = counts().into_iter().map(|(members, _)| Situation { members, ..s });
            assert!(next.any(|o| o.assess().0 != s.assess().0), "{s:?}");
        }
    }

    #[test]
    fn delete_and_scaling_to_zero_work_from_everywhere() {
        for s in all() {
            assert_eq!(Situation { deleting: true, ..s }.assess().0, ClusterPhase::Terminating, "{s:?}");
            let empty = Members { wanted: 0, present: 0, active: 0, updated: 0 };
            let scaled = Situation { members: empty, min: 0, ..s }.assess().0;
            let expected = match (s.deleting, s.refused) {
                (true, _) => ClusterPhase::Terminating,
                (false, Some(_)) => ClusterPhase::Failed,
                (false, None) => ClusterPhase::Inactive,
            };
            assert_eq!(scaled, expected, "{s:?}");
        }
    }

    #[test]
    fn a_phase_is_stored_as_it_is_shown() {
        for (phase, ..) in TABLE {
            assert_eq!(serde_json::to_value(phase).unwrap(), phase.to_string());
        }
    }
}
