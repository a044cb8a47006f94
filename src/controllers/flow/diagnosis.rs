//! Why pods are not ready, in words that stay the same while the reason does: a message with a pod's random name or a
//! growing pause in it would be written to the status again and again.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ContainerStateTerminated, ContainerStateWaiting, ContainerStatus, Pod};
use k8s_openapi::jiff::{SignedDuration, Timestamp};

use super::build::COMPONENT;
use crate::controllers::pod::AGENT;

/// A container that has run for so long since it last ended stays up.
const STAYS: SignedDuration = SignedDuration::from_secs(60);

/// What keeps a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// Something that the pod needs and the Flow does not make is not there.
    Missing(String),
    /// Anything else.
    Stuck(String),
}

/// What keeps the pods of a Deployment from being made at all: quota, Pod Security, a missing account.
#[must_use]
pub fn of_deployment(deployment: &Deployment) -> Option<String> {
    let conditions = deployment.status.as_ref()?.conditions.as_ref()?;
    let failure = conditions.iter().find(|c| c.type_ == "ReplicaFailure" && c.status == "True")?;
    let message = failure.message.as_deref().unwrap_or("the API server refuses its pods");
    // `pods "orders-x7k2-lq9vz" is forbidden: exceeded quota: …`: another name with each try.
    let text = match message.split_once("is forbidden: ") {
        Some((_, why)) => why,
        None => message,
    };
    Some(format!("its pods are refused: {text}"))
}

/// What keeps a pod from being ready.
#[must_use]
pub fn of_pod(pod: &Pod, now: Timestamp) -> Option<Trouble> {
    let status = pod.status.as_ref()?;
    let init = status.init_container_statuses.iter().flatten().filter(|container| !is_done(container));
    init.chain(status.container_statuses.iter().flatten())
        .find_map(|container| of_container(container, now))
        .or_else(|| unscheduled(pod))
        .or_else(|| unready(pod))
}

/// Whether an init container has done what it is there for.
fn is_done(container: &ContainerStatus) -> bool {
    let ended = container.state.as_ref().and_then(|state| state.terminated.as_ref());
    ended.is_some_and(|ended| ended.exit_code == 0)
}

fn unscheduled(pod: &Pod) -> Option<Trouble> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    let scheduled = conditions.iter().find(|c| c.type_ == "PodScheduled" && c.status == "False")?;
    let why = scheduled.message.as_deref().unwrap_or("no machine takes it");
    Some(Trouble::Stuck(format!("no machine takes its pod: {why}")))
}

/// All containers run, and one is not ready.
fn unready(pod: &Pod) -> Option<Trouble> {
    let status = pod.status.as_ref()?;
    let init = status.init_container_statuses.iter().flatten().find(|c| c.name == AGENT && !c.ready);
    let agent = init.filter(|agent| agent.state.as_ref().is_some_and(|state| state.running.is_some()))?;
    let component = status.container_statuses.iter().flatten().find(|c| c.name == COMPONENT)?;
    let running = component.state.as_ref().is_some_and(|state| state.running.is_some());
    (running && !agent.ready).then(|| {
        Trouble::Stuck(
            "its container runs but is not ready: it must listen on the node's `port`, and the broker must answer"
                .into(),
        )
    })
}

fn of_container(container: &ContainerStatus, now: Timestamp) -> Option<Trouble> {
    let state = container.state.as_ref()?;
    match (&state.waiting, &state.terminated, &state.running) {
        (Some(waiting), ..) => of_waiting(container, waiting),
        (_, Some(ended), _) => Some(Trouble::Stuck(crash(&container.name, ended))),
        // Between two ends it runs for a moment, and nothing else is wrong with it.
        (.., Some(running)) => {
            let ended = container.last_state.as_ref()?.terminated.as_ref()?;
            let since = running.started_at.as_ref().map(|since| now.duration_since(since.0));
            since.is_some_and(|since| since < STAYS).then(|| Trouble::Stuck(crash(&container.name, ended)))
        }
        _ => None,
    }
}

fn of_waiting(container: &ContainerStatus, waiting: &ContainerStateWaiting) -> Option<Trouble> {
    let name = &container.name;
    let message = waiting.message.as_deref().unwrap_or_default();
    match waiting.reason.as_deref().unwrap_or_default() {
        "ErrImagePull" | "ImagePullBackOff" => Some(Trouble::Stuck(format!(
            "the image '{}' cannot be pulled: correct its name, or give `imagePullSecrets`",
            container.image
        ))),
        "InvalidImageName" => {
            Some(Trouble::Stuck(format!("'{}' is no name of an image: correct it", container.image)))
        }
        "ErrImageNeverPull" => Some(Trouble::Stuck(format!("the image '{}' is not there", container.image))),
        "CrashLoopBackOff" => {
            let ended = container.last_state.as_ref()?.terminated.as_ref()?;
            Some(Trouble::Stuck(crash(name, ended)))
        }
        "CreateContainerConfigError" if message.ends_with("not found") => {
            Some(Trouble::Missing(format!("container '{name}' needs something that is missing: {message}")))
        }
        "CreateContainerConfigError" | "CreateContainerError" | "RunContainerError" => {
            // `… (pod: "orders-x7k2_shop(uid)", container: component)`: another name with each pod.
            let message = message.split(" (pod: ").next().unwrap_or(message);
            Some(Trouble::Stuck(format!("container '{name}' cannot be started: {message}")))
        }
        _ => None,
    }
}

/// How a container ended, in the same words each time that it does.
fn crash(name: &str, ended: &ContainerStateTerminated) -> String {
    let how = match ended.reason.as_deref() {
        Some("OOMKilled") => "it needs more memory than its limit".to_owned(),
        _ => format!("it ended with exit code {}", ended.exit_code),
    };
    let said = ended.message.as_deref().and_then(|text| text.trim().lines().last()).unwrap_or_default();
    let said = if said.is_empty() { String::new() } else { format!(", and its last words were: {said}") };
    format!("container '{name}' does not stay up: {how}{said}")
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(status: &Value) -> Pod {
        serde_json::from_value(json!({"metadata": {}, "status": status})).unwrap()
    }

    fn waiting(reason: &str, message: &str) -> Option<Trouble> {
        of_pod(
            &pod(&json!({"containerStatuses": [{
                "name": "component", "image": "erp:1", "imageID": "", "ready": false, "restartCount": 0,
                "state": {"waiting": {"reason": reason, "message": message}},
            }]})),
            now(),
        )
    }

    fn now() -> Timestamp {
        "2026-01-01T00:00:01Z".parse().unwrap()
    }

    fn stuck(message: &str) -> Trouble {
        Trouble::Stuck(message.into())
    }

    #[test]
    fn both_words_for_a_failed_pull_read_the_same() {
        let expected = "the image 'erp:1' cannot be pulled: correct its name, or give `imagePullSecrets`";
        assert_eq!(waiting("ErrImagePull", "rpc error: code = NotFound").unwrap(), stuck(expected));
        assert_eq!(waiting("ImagePullBackOff", "Back-off pulling image \"erp:1\"").unwrap(), stuck(expected));
    }

    #[test]
    fn a_container_that_runs_as_root_is_named_without_its_pods_random_name() {
        assert_eq!(
            waiting(
                "CreateContainerConfigError",
                "container has runAsNonRoot and image will run as root (pod: \"a-b-x_ns(1)\", container: component)"
            )
            .unwrap(),
            stuck(
                "container 'component' cannot be started: container has runAsNonRoot and image will run as root"
            )
        );
    }

    #[test]
    fn what_an_environment_variable_lacks_is_missing() {
        assert_eq!(
            waiting("CreateContainerConfigError", "secret \"erp\" not found").unwrap(),
            Trouble::Missing(
                "container 'component' needs something that is missing: secret \"erp\" not found".into()
            )
        );
    }

    #[test]
    fn a_crash_tells_the_exit_code_and_the_last_words_and_the_same_all_the_while() {
        let of = |state: Value, last: Value| {
            let container = json!({
                "name": "component", "image": "erp:1", "imageID": "", "ready": false, "restartCount": 4,
                "state": state, "lastState": last,
            });
            of_pod(&pod(&json!({"containerStatuses": [container]})), now())
        };
        let ended = json!({"terminated": {"exitCode": 3, "reason": "Error", "message": "a\nno such host\n"}});
        let waiting =
            json!({"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 40s restarting"}});
        let running = |since: &str| json!({"running": {"startedAt": since}});
        let expected = stuck(
            "container 'component' does not stay up: it ended with exit code 3, and its last words were: no such host",
        );
        for (state, last) in [
            (ended.clone(), json!({})),
            (waiting.clone(), ended.clone()),
            (running("2026-01-01T00:00:00Z"), ended.clone()),
        ] {
            assert_eq!(of(state, last).as_ref(), Some(&expected));
        }
        assert_eq!(of(running("2025-12-31T23:59:00Z"), ended), None, "that was long ago");
        let killed = json!({"terminated": {"exitCode": 137, "reason": "OOMKilled"}});
        assert_eq!(
            of(waiting, killed).unwrap(),
            stuck("container 'component' does not stay up: it needs more memory than its limit")
        );
    }

    #[test]
    fn an_init_container_that_has_done_its_work_is_no_trouble() {
        let init = |code: i32| {
            let state = json!({"terminated": {"exitCode": code}});
            let container = json!({"name": "copy", "image": "", "imageID": "", "ready": true, "restartCount": 0, "state": state});
            of_pod(&pod(&json!({"initContainerStatuses": [container]})), now())
        };
        assert_eq!(init(0), None);
        assert_eq!(init(1), Some(stuck("container 'copy' does not stay up: it ended with exit code 1")));
    }

    #[test]
    fn a_pod_that_is_just_starting_is_in_no_trouble() {
        assert_eq!(waiting("ContainerCreating", ""), None);
        assert_eq!(of_pod(&pod(&json!({})), now()), None);
    }

    #[test]
    fn refused_pods_give_the_reason_without_the_pods_random_name() {
        let deployment: Deployment =
            serde_json::from_value(json!({"metadata": {}, "status": {"conditions": [{
                "type": "ReplicaFailure", "status": "True", "reason": "FailedCreate",
                "message": "pods \"orders-7d-x2\" is forbidden: exceeded quota: small, requested: pods=1",
            }]}}))
            .unwrap();
        assert_eq!(
            of_deployment(&deployment).unwrap(),
            "its pods are refused: exceeded quota: small, requested: pods=1"
        );
    }
}
