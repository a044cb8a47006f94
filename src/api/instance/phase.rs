//! The phase of an Instance.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::api::condition::{Reason, Refusal, Summary};
use crate::api::transition::Event;

/// Where an Instance is in its life: Created, Starting, Unresolved, Started, Active on the way up; Stopping on the way
/// to Stopped, `NotDeployed` or deletion; Maintenance outside of the load balancer; Failed when a person must act.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = crate::api::schema::undescribed)]
pub enum InstancePhase {
    /// It is being deleted, or it is to be Stopped or `NotDeployed` and is not there yet.
    Stopping,
    /// As was asked for, it has no pod.
    NotDeployed,
    /// As was asked for, its application does not run.
    Stopped,
    /// As was asked for, its application runs and is out of the load balancer. Others that import from it still do.
    Maintenance,
    /// Nothing goes on until a person acts; the condition Stalled says why.
    Failed,
    /// Its application serves; a record has valid values.
    Active,
    /// The process of its application runs, and does not serve yet.
    Started,
    /// An import that it requires is missing; the condition `ImportsResolved` says which, and who could give it.
    Unresolved,
    /// Its pod exists, and the application does not run yet.
    Starting,
    /// It has no pod yet.
    Created,
}

impl fmt::Display for InstancePhase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// What is announced when it is reached.
impl From<InstancePhase> for Event {
    fn from(phase: InstancePhase) -> Self {
        match phase {
            InstancePhase::Stopping => Self::MemberStopping,
            InstancePhase::NotDeployed => Self::MemberUndeployed,
            InstancePhase::Stopped => Self::MemberStopped,
            InstancePhase::Maintenance => Self::MemberInMaintenance,
            InstancePhase::Failed => Self::MemberFailed,
            InstancePhase::Active => Self::MemberActivated,
            InstancePhase::Started => Self::MemberStarted,
            InstancePhase::Unresolved => Self::InstanceUnresolved,
            InstancePhase::Starting => Self::MemberStarting,
            InstancePhase::Created => Self::MemberCreated,
        }
    }
}

/// What somebody wants of an Instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// `desired: Started`, which is also meant where nothing is said.
    Start,
    /// `desired: Stopped`.
    Stop,
    /// `desired: NotDeployed`.
    Undeploy,
    /// `desired: Maintenance`.
    Maintain,
    /// It is to go: it has a deletion timestamp, whatever its spec says.
    Delete,
}

/// How the Instance runs, as its Cartridge has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Without an image: values to be valid, and nothing to run.
    Record,
    /// The image's own entry point: to stop the application its pod must go.
    Plain,
    /// Under the launcher, which stops and starts the application within its pod.
    Wrapped,
}

/// How far the application in a pod is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Application {
    /// Its process does not run.
    Down,
    /// Its process runs: the condition Started.
    Started,
    /// It runs, its ports answer, its container is ready: the condition Serving.
    Serving,
}

/// All that the phase of an Instance depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Situation {
    /// What is wanted.
    pub wish: Wish,
    /// Why the spec is not accepted, if it is not.
    pub refused: Option<Refusal>,
    /// How it runs.
    pub form: Form,
    /// Its pod, if there is one, by how far the application in it is.
    pub pod: Option<Application>,
    /// Something that it needs and does not make is missing, such as its Cartridge or a Secret.
    pub waiting: bool,
    /// The condition `ImportsResolved`.
    pub imports_resolved: bool,
    /// The load balancer still sends to it.
    pub in_balancer: bool,
}

impl Situation {
    /// The phase, and what it means to those who wait for the Instance. The first line that holds decides, here and in
    /// `rise`.
    #[must_use]
    pub fn assess(self) -> (InstancePhase, Summary) {
        use InstancePhase::{Maintenance, NotDeployed, Stopped, Stopping};
        use Summary::{Settled, Working};
        match self.wish {
            Wish::Delete => (Stopping, Working(Reason::Deleting)),
            Wish::Undeploy if self.pod.is_none() => (NotDeployed, Settled(Reason::NotDeployed)),
            Wish::Stop if self.is_stopped() => (Stopped, Settled(Reason::Stopped)),
            Wish::Undeploy | Wish::Stop => (Stopping, Working(Reason::Stopping)),
            Wish::Maintain if self.runs() && !self.in_balancer => (Maintenance, Settled(Reason::Maintenance)),
            Wish::Maintain | Wish::Start => self.rise(),
        }
    }

    /// The phases on the way up.
    fn rise(self) -> (InstancePhase, Summary) {
        use InstancePhase::{Active, Created, Failed, Started, Starting, Unresolved};
        use Summary::{Stalled, Working};
        if let Some(refusal) = self.refused {
            return (Failed, Stalled(refusal.into()));
        }
        match (self.form, self.pod) {
            (Form::Record, _) | (Form::Plain | Form::Wrapped, Some(Application::Serving)) => {
                (Active, self.serving())
            }
            (Form::Plain | Form::Wrapped, Some(Application::Started)) => (Started, self.started()),
            (Form::Plain | Form::Wrapped, Some(Application::Down) | None) if !self.imports_resolved => {
                (Unresolved, Working(Reason::DependencyNotReady))
            }
            (Form::Plain | Form::Wrapped, Some(Application::Down)) => (Starting, self.starting()),
            (Form::Plain | Form::Wrapped, None) => (Created, self.starting()),
        }
    }

    /// Whether it is as `desired: Stopped` asks: nothing runs, and under a launcher the pod stands by.
    const fn is_stopped(self) -> bool {
        match (self.form, self.pod) {
            (Form::Wrapped, Some(Application::Down)) | (Form::Record | Form::Plain, None) => true,
            (Form::Wrapped, None | Some(Application::Started | Application::Serving))
            | (Form::Record | Form::Plain, Some(_)) => false,
        }
    }

    /// Whether the application runs; a record does while its values are valid.
    const fn runs(self) -> bool {
        match (self.form, self.pod) {
            (Form::Record, _) => self.refused.is_none(),
            (Form::Plain | Form::Wrapped, Some(Application::Started | Application::Serving)) => true,
            (Form::Plain | Form::Wrapped, Some(Application::Down) | None) => false,
        }
    }

    /// It does what it is there for; if it is to be in maintenance, that is still to come.
    fn serving(self) -> Summary {
        if self.wish == Wish::Maintain {
            Summary::Changing(Reason::LeavingBalancer)
        } else {
            Summary::Settled(Reason::Active)
        }
    }

    fn started(self) -> Summary {
        Summary::Working(if self.wish == Wish::Maintain {
            Reason::LeavingBalancer
        } else {
            Reason::NotServing
        })
    }

    const fn starting(self) -> Summary {
        Summary::Working(if self.waiting { Reason::DependencyNotReady } else { Reason::Starting })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WISHES: [Wish; 5] = [Wish::Start, Wish::Stop, Wish::Undeploy, Wish::Maintain, Wish::Delete];
    const REFUSALS: [Option<Refusal>; 3] = [None, Some(Refusal::InvalidSpec), Some(Refusal::NotYetSupported)];
    const FORMS: [Form; 3] = [Form::Record, Form::Plain, Form::Wrapped];
    const PODS: [Option<Application>; 4] =
        [None, Some(Application::Down), Some(Application::Started), Some(Application::Serving)];
    const BOTH: [bool; 2] = [false, true];

    /// Every situation that there is.
    fn all() -> Vec<Situation> {
        let mut all = vec![];
        for wish in WISHES {
            for refused in REFUSALS {
                for form in FORMS {
                    for pod in PODS {
                        for waiting in BOTH {
                            for imports_resolved in BOTH {
                                all.extend(BOTH.map(|in_balancer| Situation {
                                    wish,
                                    refused,
                                    form,
                                    pod,
                                    waiting,
                                    imports_resolved,
                                    in_balancer,
                                }));
                            }
                        }
                    }
                }
            }
        }
        all
    }

    // The conditions that the phase table speaks of.
    fn started(s: Situation) -> bool {
        let record = s.form == Form::Record && s.refused.is_none();
        let process =
            s.form != Form::Record && matches!(s.pod, Some(Application::Started | Application::Serving));
        record || process
    }

    fn serving(s: Situation) -> bool {
        started(s) && (s.form == Form::Record || s.pod == Some(Application::Serving))
    }

    fn stopped(s: Situation) -> bool {
        let stands_by = s.form == Form::Wrapped && s.pod == Some(Application::Down);
        let gone = s.form != Form::Wrapped && s.pod.is_none();
        s.wish == Wish::Stop && (stands_by || gone)
    }

    fn undeployed(s: Situation) -> bool {
        s.wish == Wish::Undeploy && s.pod.is_none()
    }

    fn going_down(s: Situation) -> bool {
        let down = matches!(s.wish, Wish::Stop | Wish::Undeploy);
        s.wish == Wish::Delete || down && !stopped(s) && !undeployed(s)
    }

    /// A row of the phase table: phase, when it holds, and whether Ready is True then.
    type Row = (InstancePhase, fn(Situation) -> bool, bool);

    const TABLE: [Row; 10] = [
        (InstancePhase::Stopping, going_down, false),
        (InstancePhase::NotDeployed, undeployed, true),
        (InstancePhase::Stopped, stopped, true),
        (InstancePhase::Maintenance, |s| s.wish == Wish::Maintain && started(s) && !s.in_balancer, true),
        (InstancePhase::Failed, |s| s.refused.is_some(), false),
        (InstancePhase::Active, serving, true),
        (InstancePhase::Started, started, false),
        (InstancePhase::Unresolved, |s| !s.imports_resolved, false),
        (InstancePhase::Starting, |s| s.pod.is_some(), false),
        (InstancePhase::Created, |_| true, false),
    ];

    const ACTIVE: Situation = Situation {
        wish: Wish::Start,
        refused: None,
        form: Form::Wrapped,
        pod: Some(Application::Serving),
        waiting: false,
        imports_resolved: true,
        in_balancer: true,
    };

    /// All that differ from a situation in exactly one thing, and that may follow it: a deletion is never taken back.
    fn next(s: Situation) -> Vec<Situation> {
        let changes = |o: &Situation| {
            [
                s.wish != o.wish,
                s.refused != o.refused,
                s.form != o.form,
                s.pod != o.pod,
                s.waiting != o.waiting,
                s.imports_resolved != o.imports_resolved,
                s.in_balancer != o.in_balancer,
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
        assert_eq!(all().len(), 1440);
        for s in all() {
            let (phase, _, ready) = TABLE.iter().find(|(_, holds, _)| holds(s)).unwrap();
            let (seen, summary) = s.assess();
            assert_eq!((seen, summary.is_ready()), (*phase, *ready), "{s:?}");
        }
    }

    #[test]
    fn it_is_stalled_exactly_when_failed_and_settled_exactly_in_the_state_asked_for() {
        for s in all() {
            let (phase, summary) = s.assess();
            assert_eq!(matches!(summary, Summary::Stalled(_)), phase == InstancePhase::Failed, "{s:?}");
            let asked_for = match s.wish {
                Wish::Start => Some(InstancePhase::Active),
                Wish::Stop => Some(InstancePhase::Stopped),
                Wish::Undeploy => Some(InstancePhase::NotDeployed),
                Wish::Maintain => Some(InstancePhase::Maintenance),
                Wish::Delete => None,
            };
            assert_eq!(matches!(summary, Summary::Settled(_)), Some(phase) == asked_for, "{s:?}");
        }
    }

    #[test]
    fn the_reason_says_what_keeps_it() {
        let pod = |pod| Situation { pod, ..ACTIVE };
        let missing = |s| Situation { imports_resolved: false, ..s };
        let waiting = |s| Situation { waiting: true, ..s };
        let wish = |wish| Situation { wish, ..ACTIVE };
        for (s, reason) in [
            (ACTIVE, Reason::Active),
            (waiting(missing(ACTIVE)), Reason::Active),
            (pod(Some(Application::Started)), Reason::NotServing),
            (pod(Some(Application::Down)), Reason::Starting),
            (pod(None), Reason::Starting),
            (waiting(pod(None)), Reason::DependencyNotReady),
            (waiting(pod(Some(Application::Down))), Reason::DependencyNotReady),
            (missing(pod(Some(Application::Down))), Reason::DependencyNotReady),
            (missing(pod(None)), Reason::DependencyNotReady),
            (Situation { refused: Some(Refusal::InvalidSpec), ..ACTIVE }, Reason::InvalidSpec),
            (Situation { form: Form::Record, pod: None, imports_resolved: false, ..ACTIVE }, Reason::Active),
            (wish(Wish::Maintain), Reason::LeavingBalancer),
            (Situation { in_balancer: false, ..wish(Wish::Maintain) }, Reason::Maintenance),
            (Situation { pod: Some(Application::Started), ..wish(Wish::Maintain) }, Reason::LeavingBalancer),
            (wish(Wish::Stop), Reason::Stopping),
            (Situation { pod: Some(Application::Down), ..wish(Wish::Stop) }, Reason::Stopped),
            (Situation { pod: Some(Application::Down), ..wish(Wish::Undeploy) }, Reason::Stopping),
            (Situation { pod: None, ..wish(Wish::Undeploy) }, Reason::NotDeployed),
            (wish(Wish::Delete), Reason::Deleting),
        ] {
            assert_eq!(s.assess().1.reason(), reason, "{s:?}");
        }
    }

    #[test]
    fn every_situation_has_a_way_out_by_one_change() {
        // An Instance that is being deleted has one way out, which is no phase: it goes.
        for s in all().into_iter().filter(|s| s.wish != Wish::Delete) {
            assert!(next(s).into_iter().any(|o| o.assess().0 != s.assess().0), "{s:?}");
        }
    }

    #[test]
    fn stop_undeploy_and_delete_work_from_everywhere() {
        for s in all() {
            let wished = |wish| Situation { wish, ..s }.assess().0;
            assert_eq!(wished(Wish::Delete), InstancePhase::Stopping, "{s:?}");
            assert!(matches!(wished(Wish::Stop), InstancePhase::Stopping | InstancePhase::Stopped), "{s:?}");
            let undeployed =
                if s.pod.is_none() { InstancePhase::NotDeployed } else { InstancePhase::Stopping };
            assert_eq!(wished(Wish::Undeploy), undeployed, "{s:?}");
        }
    }

    #[test]
    fn a_phase_is_stored_as_it_is_shown() {
        for (phase, ..) in TABLE {
            assert_eq!(serde_json::to_value(phase).unwrap(), phase.to_string());
        }
    }
}
