//! How far the application in a pod is, and what keeps it.

use std::time::Duration;

use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use k8s_openapi::jiff::Timestamp;

use crate::api::condition::ConditionType;
use crate::api::instance::phase::{Application, Form};
use crate::broker::member::Stage;
use crate::controllers::flow::diagnosis::{self, Trouble};
use crate::controllers::instance::build::{APPLICATION, TEMPLATE};
use crate::controllers::instance::snapshot::Snapshot;
use crate::controllers::pod::AGENT;

use super::{PAUSE, form, was};

/// How far the application is; none without a pod.
pub fn application(seen: &Snapshot) -> Option<Application> {
    let pod = seen.pod.as_ref()?;
    if has_ended(pod) {
        return Some(Application::Down);
    }
    Some(match form(seen) {
        Form::Wrapped => wrapped(seen, pod),
        Form::Plain | Form::Record => plain(seen, pod),
    })
}

/// Under a launcher, as the agent says.
fn wrapped(seen: &Snapshot, pod: &Pod) -> Application {
    let Some(report) = &seen.report else { return unheard(seen, pod) };
    // Nobody speaks for an application whose agent has ended too.
    if is_over(pod, APPLICATION) && !is_running(pod, AGENT) {
        return Application::Down;
    }
    match report.stage {
        Stage::Down => Application::Down,
        Stage::Running | Stage::Stopping => Application::Started,
        Stage::Serving => Application::Serving,
    }
}

/// Without one the kubelet knows whether it runs, and the agent whether it answers.
fn plain(seen: &Snapshot, pod: &Pod) -> Application {
    let status = container(pod, APPLICATION);
    if !is_running(pod, APPLICATION) || status.is_some_and(|status| status.started == Some(false)) {
        return Application::Down;
    }
    let ready = status.is_some_and(|status| status.ready);
    match seen.report.as_ref().map(|report| report.stage) {
        Some(Stage::Serving) if ready => Application::Serving,
        None => unheard(seen, pod),
        Some(_) => Application::Started,
    }
}

/// What is known of a pod whose agent has said nothing that is kept: the broker is away, or has lost its disk. What was known
/// before counts, as long as it is about this pod and the kubelet says nothing else.
fn unheard(seen: &Snapshot, pod: &Pod) -> Application {
    if !is_running(pod, APPLICATION) || !is_same_pod(seen, pod) {
        return Application::Down;
    }
    let ready = container(pod, APPLICATION).is_some_and(|status| status.ready);
    if was(seen, ConditionType::Serving) && ready {
        Application::Serving
    } else if was(seen, ConditionType::Started) {
        Application::Started
    } else {
        Application::Down
    }
}

/// Whether the status is about this pod: one that was made anew under the same name has other addresses.
fn is_same_pod(seen: &Snapshot, pod: &Pod) -> bool {
    let ips = pod.status.iter().flat_map(|status| status.pod_ips.iter().flatten()).map(|ip| &ip.ip);
    let known = seen.instance.status.as_ref().map(|status| &status.addresses[..]).unwrap_or_default();
    !known.is_empty() && ips.eq(known)
}

/// Whether a pod has come to its end and will not run again: it was evicted, or its node took it not.
pub fn has_ended(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Failed" | "Succeeded"))
}

/// Why a pod has ended, in words.
pub fn why_ended(pod: &Pod) -> String {
    let status = pod.status.as_ref();
    let reason = status.and_then(|status| status.reason.as_deref()).unwrap_or("it has ended");
    match status.and_then(|status| status.message.as_deref()).map(str::trim) {
        Some(message) if !message.is_empty() => format!("its pod was lost ({reason}): {message}"),
        _ => format!("its pod was lost ({reason})"),
    }
}

/// How long a pod that ended as soon as it was made is left as it is: made again at once, it would end at once.
pub fn pause(seen: &Snapshot) -> Option<Duration> {
    let pod = seen.pod.as_ref().filter(|pod| has_ended(pod))?;
    let made = pod.metadata.creation_timestamp.as_ref()?;
    let age = between(made.0, seen.now);
    (age < PAUSE).then(|| PAUSE.saturating_sub(age))
}

/// When a container that fails again and again is looked at again.
pub fn overdue(seen: &Snapshot) -> Option<Duration> {
    let restarts = |pod: &Pod| container(pod, APPLICATION).is_some_and(|status| status.restart_count > 0);
    let serves = was(seen, ConditionType::Serving);
    seen.pod.as_ref().is_some_and(|pod| restarts(pod) && !serves).then_some(Duration::from_secs(60))
}

/// What keeps the application from running, in words, and whether it is something that is missing.
pub fn trouble(seen: &Snapshot) -> Option<Trouble> {
    let pod = seen.pod.as_ref()?;
    let of_pod = diagnosis::of_pod(pod, seen.now);
    let of_agent = seen.report.as_ref().and_then(|report| report.problem.clone());
    match (of_pod, of_agent) {
        (Some(Trouble::Missing(words)), _) => Some(Trouble::Missing(words)),
        (Some(Trouble::Stuck(words)), _) => Some(Trouble::Stuck(advised(words))),
        (None, said) => said.map(Trouble::Stuck),
    }
}

/// What to do about what the kubelet says, where its words leave that out.
fn advised(words: String) -> String {
    if words.contains("runAsNonRoot") || words.contains("run as root") {
        return format!(
            "{words}: this namespace allows no root, so choose an image with another user, or name one in \
             `podTemplate.spec.securityContext.runAsUser` of the Cartridge"
        );
    }
    words
}

/// What a pod was made from.
pub fn template(pod: &Pod) -> Option<&String> {
    pod.metadata.annotations.as_ref()?.get(TEMPLATE)
}

/// Whether a pod holds data that another one would not have.
pub fn holds_data(pod: &Pod) -> bool {
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    volumes.into_iter().any(|volume| volume.persistent_volume_claim.is_some())
}

fn container<'a>(pod: &'a Pod, name: &str) -> Option<&'a ContainerStatus> {
    let status = pod.status.as_ref()?;
    let all = status.init_container_statuses.iter().chain(&status.container_statuses).flatten();
    all.into_iter().find(|status| status.name == name)
}

fn is_running(pod: &Pod, name: &str) -> bool {
    let state = container(pod, name).and_then(|status| status.state.as_ref());
    state.is_some_and(|state| state.running.is_some())
}

fn is_over(pod: &Pod, name: &str) -> bool {
    let state = container(pod, name).and_then(|status| status.state.as_ref());
    state.is_some_and(|state| state.terminated.is_some())
}

/// How long it is from one time to another; none where a clock was set back.
pub fn between(since: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(since)).unwrap_or_default()
}
