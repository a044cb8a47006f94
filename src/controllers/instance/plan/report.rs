//! The status of an Instance, from what was seen.

use std::time::Duration;

use crate::api::condition::{self, ConditionType, Reason, Status, Summary, Visit};
use crate::api::instance::InstanceStatus;
use crate::api::instance::phase::{Application, Form, InstancePhase, Situation, Wish};
use crate::api::transition::Event;
use crate::controllers::flow::diagnosis::Trouble;
use crate::controllers::instance::snapshot::{Rejected, Snapshot, Source};

use super::ending::{Ending, Stage};
use super::state::{self, between};
use super::{Case, Plan, Step, exported, was};

/// The status, and what to announce of it.
pub fn report(case: &Case<'_>, steps: &[Step]) -> Plan {
    let makes = steps.iter().any(|step| matches!(step, Step::CreatePod(_))) && case.seen.refused.is_none();
    let mut report = Report::new(case, makes);
    report.conditions();
    report.facts();
    report.finish()
}

struct Report<'a> {
    case: &'a Case<'a>,
    visit: Visit,
    status: InstanceStatus,
    /// How far the application is, as it counts for those who depend on it.
    application: Option<Application>,
}

impl<'a> Report<'a> {
    fn new(case: &'a Case<'a>, makes: bool) -> Self {
        let seen = case.seen;
        let generation = seen.instance.metadata.generation.unwrap_or_default();
        let mut status = seen.instance.status.clone().unwrap_or_default();
        status.observed_generation = Some(generation);
        let ends = !matches!(case.ending, None | Some(Ending::Lost));
        let application = match case.application {
            // The pod is on its way with this very look.
            None if makes => Some(Application::Down),
            Some(Application::Serving) if ends || seen.node_lost.is_some() => Some(Application::Started),
            application => application,
        };
        Self { case, visit: Visit { generation, now: seen.now }, status, application }
    }

    fn set(&mut self, of: ConditionType, holds: bool, reason: Reason, message: &str) {
        condition::set(&mut self.status.conditions, self.visit, of, Status::from(holds), reason, message);
    }

    fn conditions(&mut self) {
        let seen = self.case.seen;
        match &seen.refused_spec {
            Some(invalid) => {
                self.set(ConditionType::Accepted, false, invalid.refusal.into(), &invalid.message);
            }
            None => self.set(ConditionType::Accepted, true, Reason::Accepted, "the spec can be acted on"),
        }
        if self.case.form == Form::Record {
            for of in [ConditionType::ImportsResolved, ConditionType::Started, ConditionType::Serving] {
                condition::remove(&mut self.status.conditions, of);
            }
            return;
        }
        self.imports();
        let started = matches!(self.application, Some(Application::Started | Application::Serving));
        let (reason, message) = if started {
            (Reason::Running, "the application's process runs".to_owned())
        } else {
            (Reason::NotRunning, "the application's process does not run".to_owned())
        };
        self.set(ConditionType::Started, started, reason, &message);
        let serving = self.application == Some(Application::Serving);
        let (reason, message) = self.serving(serving, started);
        self.set(ConditionType::Serving, serving, reason, &message);
    }

    fn imports(&mut self) {
        let seen = self.case.seen;
        // Where the cartridge is not known, nobody knows what is needed.
        if seen.source.application().is_none() {
            return;
        }
        let (reason, message) = match (&self.case.blocked, seen.imports.len()) {
            (Some(missing), _) => (Reason::ImportsMissing, missing.as_str()),
            (None, 0) => (Reason::ImportsResolved, "nothing is imported"),
            (None, _) => (Reason::ImportsResolved, "every import that is required is there"),
        };
        self.set(ConditionType::ImportsResolved, self.case.blocked.is_none(), reason, message);
        self.status.imports = seen.imports.iter().map(super::imports::Resolution::listed).collect();
    }

    fn serving(&self, serving: bool, started: bool) -> (Reason, String) {
        let seen = self.case.seen;
        if serving {
            return (Reason::Serving, "the application answers".into());
        }
        if seen.node_lost.is_some() {
            return (Reason::NodeLost, lost(seen));
        }
        let ending = self.case.ending.as_ref().filter(|_| started);
        let (reason, message) = match ending {
            Some(Ending::Imports) => (Reason::ImportsMissing, "an import that it requires is missing".into()),
            Some(Ending::Replace) => (Reason::Updating, "its pod is to be replaced".into()),
            Some(Ending::Delete) => (Reason::Deleting, "it is being deleted".into()),
            Some(Ending::Stop | Ending::Undeploy) => (Reason::Stopping, "it is to stop".into()),
            Some(Ending::Going | Ending::Ended | Ending::Lost) => {
                (Reason::NotRunning, "its pod is ending".into())
            }
            None if started => (Reason::NotServing, not_serving(seen)),
            None => (Reason::NotRunning, "the application's process does not run".into()),
        };
        (reason, message)
    }

    /// What is published of its pod, and what it exports.
    fn facts(&mut self) {
        let seen = self.case.seen;
        let pod = seen.pod.as_ref();
        self.status.pod = pod.and_then(|pod| pod.metadata.name.clone());
        self.status.node = pod.and_then(|pod| pod.spec.as_ref()?.node_name.clone());
        let ips = pod.and_then(|pod| pod.status.as_ref()?.pod_ips.clone()).unwrap_or_default();
        self.status.addresses = ips.into_iter().map(|ip| ip.ip).take(4).collect();
        self.status.exports = if self.exports() { seen.exports.clone() } else { vec![] };
        self.status.revision = self.revision();
    }

    /// From the first time that it serves until it does not run any more, or is to end.
    fn exports(&self) -> bool {
        let case = self.case;
        if case.form == Form::Record {
            return case.seen.refused_spec.is_none() && case.wish != Wish::Delete && is_known(case.seen);
        }
        let ends = !matches!(case.ending, None | Some(Ending::Lost));
        match self.application {
            Some(Application::Serving) => true,
            Some(Application::Started) => {
                !ends && (exported(case.seen) || was(case.seen, ConditionType::Serving))
            }
            Some(Application::Down) | None => false,
        }
    }

    /// The revision that the pod runs: the one that is wanted once nothing of the pod differs, and until then the one of before.
    fn revision(&self) -> Option<String> {
        let seen = self.case.seen;
        let pod = seen.pod.as_ref()?;
        match (&seen.source, self.case.given()) {
            (Source::Application { name, .. }, Some(given))
                if state::template(pod) == Some(&super::build::template_hash(&given)) =>
            {
                Some(name.clone())
            }
            _ => self.status.revision.clone(),
        }
    }

    /// Sets the summary, and counts the moves of the phase.
    fn finish(mut self) -> Plan {
        let case = self.case;
        let seen = case.seen;
        let (source, message) = waiting(seen);
        let trouble = state::trouble(seen).filter(|_| self.application != Some(Application::Serving));
        let situation = Situation {
            wish: case.wish,
            refused: seen.refused_spec.as_ref().map(|invalid| invalid.refusal),
            form: case.form,
            pod: self.application,
            waiting: source || matches!(trouble, Some(Trouble::Missing(_))),
            imports_resolved: case.blocked.is_none(),
            in_balancer: seen.in_balancer,
        };
        let (phase, summary) = match situation.assess() {
            // Nobody knows whether its values are valid.
            (InstancePhase::Active, _) if case.form == Form::Record && !is_known(seen) => {
                (InstancePhase::Created, Summary::Working(Reason::DependencyNotReady))
            }
            assessed => assessed,
        };
        let summary = self.refined(summary);
        let message = self.message(phase, summary, &message, trouble);
        condition::summarise(&mut self.status.conditions, self.visit, summary, &message);
        let events = self.moves(phase, &message);
        self.status.phase = Some(phase);
        Plan { steps: vec![], status: self.status, events, look_again: None }
    }

    /// The same summary with a reason that says more.
    fn refined(&self, summary: Summary) -> Summary {
        let seen = self.case.seen;
        match (summary, &seen.refused) {
            (Summary::Working(Reason::Starting), Some(Rejected { foreign: true, .. })) => {
                Summary::Working(Reason::NameConflict)
            }
            (Summary::Working(Reason::Starting), Some(_)) => Summary::Working(Reason::Refused),
            (Summary::Working(Reason::DependencyNotReady), _) if self.case.blocked.is_some() => {
                Summary::Working(Reason::ImportsMissing)
            }
            (Summary::Working(Reason::NotServing), _) if seen.node_lost.is_some() => {
                Summary::Working(Reason::NodeLost)
            }
            (Summary::Working(Reason::NotServing), _) if self.case.ending == Some(Ending::Replace) => {
                Summary::Working(Reason::Updating)
            }
            (Summary::Working(Reason::NotServing), _) if self.case.ending == Some(Ending::Imports) => {
                Summary::Working(Reason::ImportsMissing)
            }
            (summary, _) => summary,
        }
    }

    fn message(
        &self,
        phase: InstancePhase,
        summary: Summary,
        waiting: &str,
        trouble: Option<Trouble>,
    ) -> String {
        let case = self.case;
        let seen = case.seen;
        if let (Summary::Stalled(_), Some(invalid)) = (summary, &seen.refused_spec) {
            return invalid.message.clone();
        }
        let trouble = trouble.map(|(Trouble::Missing(words) | Trouble::Stuck(words))| words);
        match phase {
            InstancePhase::Active => self.active(),
            InstancePhase::Stopping => format!("{}{}", wanted(case.wish), self.stage()),
            InstancePhase::Stopped => {
                "the application is stopped: set `spec.desired` to Started to start it".into()
            }
            InstancePhase::NotDeployed => "there is no pod: set `spec.desired` to Started to start it".into(),
            InstancePhase::Maintenance => {
                "the application runs outside of the load balancer: set `spec.desired` to Started to end that"
                    .into()
            }
            InstancePhase::Unresolved => case.blocked.clone().unwrap_or_default(),
            InstancePhase::Started if seen.node_lost.is_some() => lost(seen),
            InstancePhase::Started if case.ending.is_some() => {
                let why = self.serving(false, true).1;
                format!("{why}{}", self.stage())
            }
            InstancePhase::Started => trouble.unwrap_or_else(|| not_serving(seen)),
            InstancePhase::Created | InstancePhase::Starting | InstancePhase::Failed => {
                self.starting(waiting, trouble)
            }
        }
    }

    fn starting(&self, waiting: &str, trouble: Option<String>) -> String {
        let seen = self.case.seen;
        if !waiting.is_empty() {
            return waiting.to_owned();
        }
        if let Some(rejected) = &seen.refused {
            return rejected.message.clone();
        }
        if seen.node_lost.is_some() {
            return lost(seen);
        }
        if let Some(pod) = seen.pod.as_ref().filter(|pod| state::has_ended(pod)) {
            return state::why_ended(pod);
        }
        let broker = seen.broker_trouble.clone().filter(|_| seen.told_now().is_none_or(|told| !told.run));
        let none =
            || if seen.pod.is_some() { "the application is on its way" } else { "its pod is on its way" };
        trouble.or(broker).unwrap_or_else(|| none().into())
    }

    fn active(&self) -> String {
        let seen = self.case.seen;
        let serves = match (self.case.form, self.case.wish) {
            (Form::Record, _) => "the values are valid".to_owned(),
            (_, Wish::Maintain) => "it leaves the load balancer".to_owned(),
            _ => "the application serves".to_owned(),
        };
        let hook = seen.report.as_ref().and_then(|report| report.problem.clone());
        [serves].into_iter().chain(hook).chain(seen.unexported.iter().cloned()).collect::<Vec<_>>().join("; ")
    }

    /// What the ending waits for.
    fn stage(&self) -> String {
        match &self.case.stage {
            Stage::Withdrawing | Stage::Balanced => ": it leaves the load balancer".into(),
            Stage::Used(by) => {
                let names: Vec<_> = by.iter().take(5).map(|name| format!("'{name}'")).collect();
                format!(": those that cannot do without it stop first: {}", names.join(", "))
            }
            Stage::Clear if self.application.is_some() => ": requests in flight are finished".into(),
            Stage::Clear => String::new(),
        }
    }

    /// Counts the moves since the last look: those that nobody saw in between too.
    fn moves(&mut self, phase: InstancePhase, message: &str) -> Vec<(Event, String)> {
        let before = self.status.phase;
        let mut events = vec![];
        let first = self.status.transitions.as_ref().is_none_or(|all| all.counter.unwrap_or_default() == 0);
        if first && phase != InstancePhase::Created && self.case.form != Form::Record {
            events.push((Event::MemberCreated, "the instance was made".to_owned()));
        }
        let left = was(self.case.seen, ConditionType::Serving)
            && !condition::is_true(&self.status.conditions, ConditionType::Serving);
        if left {
            events.push((Event::MemberLeft, "the application serves no more".to_owned()));
        }
        let runs = |phase| matches!(phase, InstancePhase::Started | InstancePhase::Maintenance);
        let rose =
            phase == InstancePhase::Active && before.is_none_or(|before| !runs(before) && before != phase);
        if rose && self.case.form != Form::Record {
            events.push((Event::MemberStarted, "the application's process runs".to_owned()));
        }
        // On the way down it was started long ago, and has only left.
        let down = left && phase == InstancePhase::Started;
        if before != Some(phase) && !down {
            events.push((Event::from(phase), message.to_owned()));
        }
        let gone = self.case.wish == Wish::Delete && self.case.seen.pod.is_none();
        if gone
            && self.case.form != Form::Record
            && !is_terminated(self.case.seen)
            && super::is_kept(self.case.seen)
        {
            events.push((Event::MemberTerminated, "the member is gone".to_owned()));
        }
        if !events.is_empty() {
            let transitions = self.status.transitions.get_or_insert_default();
            for (event, _) in &events {
                transitions.record(*event, self.visit.now);
            }
        }
        events
    }
}

/// Whether nothing is missing that says what the Instance is.
const fn is_known(seen: &Snapshot) -> bool {
    !matches!(seen.source, Source::Missing(_))
}

/// What is missing that says what the Instance is, in words.
fn waiting(seen: &Snapshot) -> (bool, String) {
    match &seen.source {
        Source::Missing(why) => (true, why.clone()),
        Source::Record(_) | Source::Application { .. } if seen.namespace_ending => {
            (true, "the namespace is being deleted: nothing can be made in it".into())
        }
        Source::Record(_) | Source::Application { .. } => (false, String::new()),
    }
}

const fn wanted(wish: Wish) -> &'static str {
    match wish {
        Wish::Delete => "it is being deleted",
        Wish::Undeploy => "its pod is to go",
        Wish::Stop | Wish::Start | Wish::Maintain => "its application is to stop",
    }
}

fn not_serving(seen: &Snapshot) -> String {
    let said = seen.report.as_ref().and_then(|report| report.problem.clone());
    said.unwrap_or_else(|| "the application runs and does not answer yet".into())
}

fn lost(seen: &Snapshot) -> String {
    let node = seen.pod.as_ref().and_then(|pod| pod.spec.as_ref()?.node_name.clone()).unwrap_or_default();
    let data = seen.pod.as_ref().is_some_and(|pod| state::holds_data(pod));
    if data {
        return format!(
            "node '{node}' does not answer; the pod has a volume and is not replaced: delete the pod by hand once the node is \
             known to be off"
        );
    }
    format!("node '{node}' does not answer; the pod is replaced after {} s", seen.node_loss.as_secs())
}

/// Whether the end of its way is counted.
pub fn is_terminated(seen: &Snapshot) -> bool {
    let transitions = seen.instance.status.as_ref().and_then(|status| status.transitions.as_ref());
    let last = transitions.and_then(|transitions| transitions.recent.last());
    last.is_some_and(|last| last.event == Event::MemberTerminated.to_string())
}

/// How long that is ago.
pub fn terminated_for(seen: &Snapshot) -> Duration {
    let transitions = seen.instance.status.as_ref().and_then(|status| status.transitions.as_ref());
    let last = transitions.and_then(|transitions| transitions.recent.last());
    last.map_or(Duration::ZERO, |last| between(last.time.0, seen.now))
}
