//! What to do about an Instance, and what to say of it: pure, total, and with the time passed in.
//!
//! ```text
//!   state    how far its application is             ending   what is to end first, and what that waits for
//!   work     what its agent is told                 report   the status that comes of it
//! ```

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;

use crate::api::condition::{self, ConditionType};
use crate::api::instance::phase::{Application, Form, Wish};
use crate::api::instance::{Desired, FINALIZER, InstanceStatus};
use crate::api::transition::Event;
use crate::broker::member::{MemberWork, Secrets};
use crate::controllers::flow::build::BuildConfig;

use super::build::{self, Given, Identity};
use super::imports;
use super::snapshot::{Snapshot, Source};

mod ending;
mod report;
mod state;
mod work;

#[cfg(test)]
mod tests;

use ending::{Ending, Stage};

/// How long an Instance that is being deleted waits until its last transition is in the event log, or for a broker that does
/// not answer.
const LAST_WORDS: Duration = Duration::from_secs(30);
/// How long until a pod that could not live is made again.
const PAUSE: Duration = Duration::from_secs(10);

/// What to do and what to say.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// What to do, in this order; a step that fails ends the rest.
    pub steps: Vec<Step>,
    /// What to say, whatever became of the steps.
    pub status: InstanceStatus,
    /// What to announce, and a note for it.
    pub events: Vec<(Event, String)>,
    /// When to look again, if nothing happens before. None: in some minutes.
    pub look_again: Option<Duration>,
}

/// One thing to do. Each can be done again, with the same end.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Keep the Instance from going before its application is stopped.
    AddFinalizer,
    /// Store what a lone Instance runs.
    PutRevision,
    /// Give the agent its credentials.
    PutSecret,
    /// Make the pod.
    CreatePod(Box<Pod>),
    /// Remove the pod: it drains by itself. At once where its node is lost.
    DeletePod {
        /// Nobody waits for its end: its node does not answer.
        force: bool,
    },
    /// Tell the agent what to do; the secrets are to be sealed.
    PutWork(MemberWork, Secrets),
    /// Tell the agent nothing any more.
    DeleteWork,
    /// Let the Instance go.
    RemoveFinalizer,
}

impl Step {
    /// Whether it takes away what cannot be had back, or what runs.
    #[must_use]
    pub fn destroys(&self) -> bool {
        match self {
            Self::DeletePod { .. } => true,
            Self::PutWork(work, _) => !work.run,
            // The last two are for what has no pod, and the last is conditional on the version that was seen.
            Self::AddFinalizer
            | Self::PutRevision
            | Self::PutSecret
            | Self::CreatePod(_)
            | Self::DeleteWork
            | Self::RemoveFinalizer => false,
        }
    }

    /// The step in words, for logs.
    #[must_use]
    pub fn note(&self) -> &'static str {
        match self {
            Self::AddFinalizer => "keeps the instance until it is stopped",
            Self::PutRevision => "stores what it runs",
            Self::PutSecret => "gives its agent credentials",
            Self::CreatePod(_) => "makes its pod",
            Self::DeletePod { force: false } => "removes its pod",
            Self::DeletePod { force: true } => "gives up the pod on a lost node",
            Self::PutWork(work, _) if work.run => "tells its agent what it imports",
            Self::PutWork(..) => "tells its agent to stop",
            Self::DeleteWork => "tells its agent nothing any more",
            Self::RemoveFinalizer => "lets the instance go",
        }
    }
}

/// What is the case, as far as both steps and status depend on it.
struct Case<'a> {
    config: &'a BuildConfig,
    identity: &'a Identity,
    seen: &'a Snapshot,
    wish: Wish,
    form: Form,
    /// How far the application is; none without a pod.
    application: Option<Application>,
    /// Why the application may not run, where an import is missing.
    blocked: Option<String>,
    /// What is to end first, if anything is.
    ending: Option<Ending>,
    /// How far that is.
    stage: Stage,
}

/// Decides.
#[must_use]
pub fn plan(config: &BuildConfig, identity: &Identity, seen: &Snapshot) -> Plan {
    let case = Case::of(config, identity, seen);
    let steps = case.steps();
    let mut plan = report::report(&case, &steps);
    plan.look_again = case.look_again();
    plan.steps = steps;
    plan
}

impl<'a> Case<'a> {
    fn of(config: &'a BuildConfig, identity: &'a Identity, seen: &'a Snapshot) -> Self {
        let (wish, form, application) = (wish(seen), form(seen), state::application(seen));
        let blocked = imports::blocked(&seen.imports);
        let mut case = Self {
            config,
            identity,
            seen,
            wish,
            form,
            application,
            blocked,
            ending: None,
            stage: Stage::Clear,
        };
        case.ending = ending::ending(&case);
        case.stage = ending::stage(&case);
        case
    }

    /// What its pod is made from; none for a record, or where that is not known.
    fn given(&self) -> Option<Given<'a>> {
        Some(Given {
            revision: self.seen.source.application()?,
            values: &self.seen.values,
            partition: self.seen.partition.as_ref(),
            restricted: self.seen.restricted,
            node_loss_seconds: i64::try_from(self.seen.node_loss.as_secs()).unwrap_or(i64::MAX),
        })
    }

    fn steps(&self) -> Vec<Step> {
        if self.form == Form::Record && self.seen.pod.is_none() {
            return self.steps_of_record();
        }
        let mut steps = vec![];
        if self.wish == Wish::Delete {
            steps.extend(self.end_pod());
            if self.seen.pod.is_none() {
                steps.extend(self.leave());
            }
            return steps;
        }
        if !is_kept(self.seen) && !self.seen.namespace_ending {
            steps.push(Step::AddFinalizer);
        }
        if let Some(pod) = self.end_pod() {
            steps.push(pod);
        } else if self.seen.pod.is_none() {
            steps.extend(self.make());
        } else {
            steps.extend(self.keep_children());
            steps.extend(work::work(self));
        }
        steps
    }

    /// A record makes nothing, and goes at once.
    fn steps_of_record(&self) -> Vec<Step> {
        let goes = self.wish == Wish::Delete && is_kept(self.seen);
        goes.then_some(Step::RemoveFinalizer).into_iter().collect()
    }

    fn end_pod(&self) -> Option<Step> {
        let ending = self.ending.as_ref()?;
        (self.stage == Stage::Clear && ending.ends_pod(self))
            .then(|| Step::DeletePod { force: ending.is_forced() })
    }

    /// Its own children, and then its pod, where it should have one and can.
    fn make(&self) -> Vec<Step> {
        let wanted = match self.wish {
            Wish::Start | Wish::Maintain => true,
            // Under a launcher the pod stands by.
            Wish::Stop => self.form == Form::Wrapped,
            Wish::Undeploy | Wish::Delete => false,
        };
        let Some(given) = self.given().filter(|_| wanted && !self.seen.namespace_ending) else {
            return vec![];
        };
        if self.seen.refused_spec.is_some() || state::pause(self.seen).is_some() {
            return vec![];
        }
        let mut steps = self.keep_children();
        steps.push(Step::CreatePod(Box::new(build::pod(self.config, self.identity, &given))));
        steps
    }

    fn keep_children(&self) -> Vec<Step> {
        if self.seen.namespace_ending || self.seen.source.application().is_none() {
            return vec![];
        }
        let new = matches!(self.seen.source, Source::Application { new: true, .. });
        new.then_some(Step::PutRevision).into_iter().chain([Step::PutSecret]).collect()
    }

    /// The last steps of one that is to go.
    fn leave(&self) -> Vec<Step> {
        let seen = self.seen;
        if !is_kept(seen) {
            return vec![];
        }
        let told = report::is_terminated(seen);
        let late = report::terminated_for(seen) >= LAST_WORDS;
        let mut steps = vec![];
        if seen.told.is_some() && seen.broker_up() {
            steps.push(Step::DeleteWork);
        }
        if told && (seen.announced && (seen.told.is_none() || seen.broker_up()) || late) {
            steps.push(Step::RemoveFinalizer);
        }
        steps
    }

    fn look_again(&self) -> Option<Duration> {
        const GLANCE: Duration = Duration::from_millis(500);
        let leaving = self.wish == Wish::Delete && self.seen.pod.is_none() && is_kept(self.seen);
        [
            leaving.then_some(GLANCE),
            ending::look_again(self),
            state::pause(self.seen),
            // The kubelet's words about a container that fails change without an event of ours.
            state::overdue(self.seen),
        ]
        .into_iter()
        .flatten()
        .min()
    }
}

fn wish(seen: &Snapshot) -> Wish {
    if seen.instance.metadata.deletion_timestamp.is_some() {
        return Wish::Delete;
    }
    match seen.instance.spec.desired.unwrap_or_default() {
        Desired::Started => Wish::Start,
        Desired::Stopped => Wish::Stop,
        Desired::NotDeployed => Wish::Undeploy,
        Desired::Maintenance => Wish::Maintain,
    }
}

/// As its pod is, and without one as its next pod will be.
fn form(seen: &Snapshot) -> Form {
    let of = |wrapped: bool| if wrapped { Form::Wrapped } else { Form::Plain };
    match (&seen.pod, &seen.source) {
        (Some(pod), _) => of(build::is_wrapped(pod)),
        (None, Source::Application { revision, .. }) => of(!revision.cartridge.command.is_empty()),
        (None, Source::Record(_)) => Form::Record,
        (None, Source::Missing(_)) => Form::Plain,
    }
}

/// Whether a condition of the Instance was True when it was seen.
fn was(seen: &Snapshot, of: ConditionType) -> bool {
    seen.instance.status.as_ref().is_some_and(|status| condition::is_true(&status.conditions, of))
}

/// Whether the Instance has our finalizer.
fn is_kept(seen: &Snapshot) -> bool {
    seen.instance.metadata.finalizers.iter().flatten().any(|finalizer| finalizer == FINALIZER)
}

/// What it exported when it was seen.
fn exported(seen: &Snapshot) -> bool {
    seen.instance.status.as_ref().is_some_and(|status| !status.exports.is_empty())
}
