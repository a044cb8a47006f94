//! What is to end before anything else goes on, and what it waits for: a member leaves the load balancer and gives nothing to
//! others any more, then those who cannot do without it stop, and only then its own application does.

use std::time::Duration;

use crate::api::condition::{self, ConditionType, Status};
use crate::api::instance::phase::{Application, Form, Wish};
use crate::controllers::instance::build;

use super::state::{self, between};
use super::{Case, exported, was};

/// How long those who depend on an application may take to stop before it stops anyway.
const DEPENDANTS: Duration = Duration::from_secs(120);

/// Why something is to end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The Instance goes.
    Delete,
    /// It is to have no pod.
    Undeploy,
    /// Its application is to be stopped.
    Stop,
    /// An import that it requires is missing.
    Imports,
    /// It is to run something else, or elsewhere.
    Replace,
    /// Its pod has ended and will not run again.
    Ended,
    /// Its node does not answer, and the time is over.
    Lost,
    /// Its pod is being deleted by somebody else, or was told so already.
    Going,
}

/// How far that is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Nothing is in the way.
    Clear,
    /// It still exports, or counts as serving, for those who read its status.
    Withdrawing,
    /// The load balancer still sends to it.
    Balanced,
    /// These still run and cannot do without it.
    Used(Vec<String>),
}

impl Ending {
    /// Whether the pod ends, or only the application in it.
    pub fn ends_pod(&self, case: &Case<'_>) -> bool {
        match self {
            Self::Delete | Self::Undeploy | Self::Replace | Self::Ended | Self::Lost => true,
            Self::Stop | Self::Imports => case.form == Form::Plain,
            Self::Going => false,
        }
    }

    /// Whether nobody waits for the pod's own end.
    pub const fn is_forced(&self) -> bool {
        matches!(self, Self::Lost)
    }
}

/// What is to end; none where nothing is, or nothing runs.
pub fn ending(case: &Case<'_>) -> Option<Ending> {
    let (seen, pod) = (case.seen, case.seen.pod.as_ref()?);
    if is_lost(case) {
        return Some(Ending::Lost);
    }
    if pod.metadata.deletion_timestamp.is_some() {
        return Some(Ending::Going);
    }
    if state::has_ended(pod) {
        return Some(Ending::Ended).filter(|_| state::pause(seen).is_none());
    }
    match case.wish {
        Wish::Delete => return Some(Ending::Delete),
        Wish::Undeploy => return Some(Ending::Undeploy),
        Wish::Stop if case.form == Form::Plain || runs(case) => return Some(Ending::Stop),
        Wish::Stop | Wish::Start | Wish::Maintain => {}
    }
    let accepted = seen.refused_spec.is_none();
    let wanted = case.given().filter(|_| accepted).map(|given| build::template_hash(&given));
    if wanted.is_some_and(|wanted| state::template(pod) != Some(&wanted)) {
        return Some(Ending::Replace);
    }
    // One that runs what the next cartridge does without.
    if matches!(seen.source, super::Source::Record(_)) {
        return Some(Ending::Undeploy);
    }
    let waits_at_gate = case.form == Form::Plain && !was_let_in(case);
    (case.blocked.is_some() && (runs(case) || case.form == Form::Plain && !waits_at_gate))
        .then_some(Ending::Imports)
}

/// Whether the application without a launcher was told to begin: then only another pod can wait again.
fn was_let_in(case: &Case<'_>) -> bool {
    runs(case) || case.seen.told_now().is_some_and(|told| told.run)
}

fn runs(case: &Case<'_>) -> bool {
    matches!(case.application, Some(Application::Started | Application::Serving))
}

/// Whether the pod's node has been silent for too long. What has a volume cannot be in two places.
fn is_lost(case: &Case<'_>) -> bool {
    let seen = case.seen;
    let silent = seen.node_lost.map(|since| between(since, seen.now));
    let data = seen.pod.as_ref().is_some_and(|pod| state::holds_data(pod));
    silent.is_some_and(|silent| silent >= seen.node_loss) && !data
}

/// How far the ending is.
pub fn stage(case: &Case<'_>) -> Stage {
    let seen = case.seen;
    // Nothing of these runs any more, or nobody can be waited for.
    if matches!(case.ending, None | Some(Ending::Ended | Ending::Lost | Ending::Going))
        || seen.namespace_ending
    {
        return Stage::Clear;
    }
    // What is read of it in between says so first: whoever acts on the status must not believe what is over.
    if was(seen, ConditionType::Serving) && case.wish != Wish::Delete || exported(seen) {
        Stage::Withdrawing
    } else if seen.in_balancer {
        Stage::Balanced
    } else if !seen.dependants.is_empty() && waited(case) < DEPENDANTS {
        Stage::Used(seen.dependants.clone())
    } else {
        Stage::Clear
    }
}

/// How long it has not counted as serving.
fn waited(case: &Case<'_>) -> Duration {
    let conditions =
        case.seen.instance.status.as_ref().map(|status| &status.conditions[..]).unwrap_or_default();
    let serving = condition::find(conditions, ConditionType::Serving);
    let since = serving.filter(|serving| serving.status == Status::False.to_string());
    since.map_or(Duration::ZERO, |since| between(since.last_transition_time.0, case.seen.now))
}

/// When to look again although nothing is told.
pub fn look_again(case: &Case<'_>) -> Option<Duration> {
    let seen = case.seen;
    let used = matches!(case.stage, Stage::Used(_)).then(|| DEPENDANTS.saturating_sub(waited(case)));
    let lost = seen.node_lost.map(|since| seen.node_loss.saturating_sub(between(since, seen.now)));
    let lost = lost.filter(|left| !left.is_zero());
    [used, lost].into_iter().flatten().min().map(|left| left + Duration::from_millis(100))
}
