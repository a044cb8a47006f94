//! The pod of a node: the user's component, and beside it the agent that moves its messages.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Capabilities, ConfigMapKeySelector, Container, ContainerPort, DownwardAPIVolumeFile,
    DownwardAPIVolumeSource, EnvVar, EnvVarSource, HTTPGetAction, HTTPHeader, KeyToPath, Lifecycle,
    LifecycleHandler, ObjectFieldSelector, PodSecurityContext, PodSpec, Probe, ResourceRequirements,
    SeccompProfile, SecretKeySelector, SecretVolumeSource, SecurityContext, Volume, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::api::container;
use crate::api::flow::node::Node;
use crate::broker::work::{NodeWork, Target};

use super::super::validate::ValidNode;
use super::{BuildConfig, FIELDS, Identity, credentials_key};

/// The user's container.
pub const COMPONENT: &str = "component";
/// The sidecar.
pub const AGENT: &str = "millrace-agent";
/// Where the agent answers to the kubelet.
pub const AGENT_PORT: u16 = 8687;
/// The file of the credentials.
pub const CREDENTIALS_KEY: &str = "nats.creds";
/// The volumes that are ours.
pub const OWN_VOLUMES: [&str; 3] = [BROKER, NODE, SECRETS];

const BROKER: &str = "millrace-broker";
const NODE: &str = "millrace-node";
const SECRETS: &str = "millrace-credentials";
/// Where the credentials for the broker are mounted.
pub const BROKER_PATH: &str = "/var/run/millrace/broker";
const NODE_PATH: &str = "/var/run/millrace/node";
const SECRETS_PATH: &str = "/var/run/millrace/credentials";
/// The user that our own containers run as, whatever the component's is.
pub const AGENT_USER: i64 = 65532;

/// The containers and volumes of a node's pod.
pub(super) fn spec(
    config: &BuildConfig,
    flow: &Identity,
    node: &ValidNode,
    given: &Node,
    drain_key: &str,
) -> PodSpec {
    PodSpec {
        security_context: Some(pod_security()),
        init_containers: Some(vec![agent(config, flow, node, drain_key)]),
        containers: vec![component(given, drain_key)],
        volumes: Some(volumes(flow, node, given)),
        ..PodSpec::default()
    }
}

/// The sidecar. It has no startup probe: that would hold the component back.
fn agent(config: &BuildConfig, flow: &Identity, node: &ValidNode, drain_key: &str) -> Container {
    let work = serde_json::to_string(&node.work).unwrap_or_default();
    let credentials = format!("{BROKER_PATH}/{CREDENTIALS_KEY}");
    let env = [
        ("MILLRACE_NAMESPACE", flow.namespace.as_str()),
        ("MILLRACE_FLOW", flow.name.as_str()),
        ("MILLRACE_WORK", &work),
        ("MILLRACE_DRAIN_KEY", drain_key),
        ("MILLRACE_NATS_URL", &config.nats_url),
        ("MILLRACE_NATS_JS_PREFIX", &config.js_prefix),
        ("MILLRACE_NATS_CREDENTIALS", &credentials),
    ];
    Container {
        name: AGENT.into(),
        image: Some(config.image.clone()),
        args: Some(vec!["agent".into()]),
        restart_policy: Some("Always".into()),
        env: Some(env.into_iter().map(|(name, value)| variable(name, value)).collect()),
        ports: Some(vec![ContainerPort {
            name: Some("agent".into()),
            container_port: AGENT_PORT.into(),
            ..ContainerPort::default()
        }]),
        readiness_probe: Some(probe("/readyz", 1, 3)),
        liveness_probe: Some(probe("/livez", 10, 6)),
        resources: Some(ResourceRequirements {
            requests: Some(quantities([("cpu", "10m"), ("memory", "16Mi")])),
            limits: Some(quantities([("memory", memory(&node.work))])),
            ..ResourceRequirements::default()
        }),
        security_context: Some(SecurityContext {
            read_only_root_filesystem: Some(true),
            run_as_user: Some(AGENT_USER),
            run_as_group: Some(AGENT_USER),
            run_as_non_root: Some(true),
            ..restricted()
        }),
        volume_mounts: Some(vec![mount(BROKER, BROKER_PATH)]),
        ..Container::default()
    }
}

/// What an agent may need: conditions read whole messages, and mappings have processes of their own.
fn memory(work: &NodeWork) -> &'static str {
    let reads = |target: &Target| target.condition.is_some() || target.transform.is_some();
    if work.targets.iter().any(reads) { "768Mi" } else { "128Mi" }
}

/// The user's container.
fn component(given: &Node, drain_key: &str) -> Container {
    let mut env = vec![variable("MILLRACE_FIELDS", &format!("{NODE_PATH}/fields.json"))];
    let mut mounts = vec![mount(NODE, NODE_PATH)];
    if given.credentials.is_some() {
        env.push(variable("MILLRACE_CREDENTIALS", SECRETS_PATH));
        mounts.push(mount(SECRETS, SECRETS_PATH));
    }
    env.extend(given.env.iter().map(environment));
    Container {
        name: COMPONENT.into(),
        image: given.image.clone(),
        env: Some(env),
        resources: given.resources.as_ref().map(resources),
        security_context: Some(restricted()),
        volume_mounts: Some(mounts),
        lifecycle: Some(Lifecycle { pre_stop: Some(drain(drain_key)), ..Lifecycle::default() }),
        // What a component said last is the best reason there is when it ends.
        termination_message_policy: Some("FallbackToLogsOnError".into()),
        ..Container::default()
    }
}

/// The call to the agent that returns when nothing is in flight any more.
fn drain(key: &str) -> LifecycleHandler {
    LifecycleHandler {
        http_get: Some(HTTPGetAction {
            path: Some("/drain".into()),
            port: IntOrString::Int(AGENT_PORT.into()),
            http_headers: Some(vec![HTTPHeader { name: "millrace-drain-key".into(), value: key.into() }]),
            ..HTTPGetAction::default()
        }),
        ..LifecycleHandler::default()
    }
}

/// A request of the kubelet to one of our own containers.
#[must_use]
pub fn probe(path: &str, period_seconds: i32, failure_threshold: i32) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path.into()),
            port: IntOrString::Int(AGENT_PORT.into()),
            ..HTTPGetAction::default()
        }),
        period_seconds: Some(period_seconds),
        timeout_seconds: Some(2),
        failure_threshold: Some(failure_threshold),
        ..Probe::default()
    }
}

/// What the Pod Security Standard `restricted` asks of a pod.
#[must_use]
pub fn pod_security() -> PodSecurityContext {
    PodSecurityContext {
        run_as_non_root: Some(true),
        seccomp_profile: Some(SeccompProfile { type_: "RuntimeDefault".into(), ..SeccompProfile::default() }),
        ..PodSecurityContext::default()
    }
}

/// What the Pod Security Standard `restricted` asks of a container.
#[must_use]
pub fn restricted() -> SecurityContext {
    SecurityContext {
        allow_privilege_escalation: Some(false),
        capabilities: Some(Capabilities { drop: Some(vec!["ALL".into()]), ..Capabilities::default() }),
        ..SecurityContext::default()
    }
}

fn volumes(flow: &Identity, node: &ValidNode, given: &Node) -> Vec<Volume> {
    let secret = |volume: &str, name: String| Volume {
        name: volume.into(),
        secret: Some(SecretVolumeSource { secret_name: Some(name), ..SecretVolumeSource::default() }),
        ..Volume::default()
    };
    let fields = DownwardAPIVolumeFile {
        path: "fields.json".into(),
        field_ref: Some(ObjectFieldSelector {
            field_path: format!("metadata.annotations['{FIELDS}']"),
            ..ObjectFieldSelector::default()
        }),
        ..DownwardAPIVolumeFile::default()
    };
    let own = KeyToPath {
        key: credentials_key(&node.work.id),
        path: CREDENTIALS_KEY.into(),
        ..KeyToPath::default()
    };
    let mut broker = secret(BROKER, flow.broker_secret());
    if let Some(source) = &mut broker.secret {
        source.items = Some(vec![own]);
    }
    let node = Volume {
        name: NODE.into(),
        downward_api: Some(DownwardAPIVolumeSource {
            items: Some(vec![fields]),
            ..DownwardAPIVolumeSource::default()
        }),
        ..Volume::default()
    };
    let credentials = given.credentials.as_ref().map(|from| secret(SECRETS, from.secret_ref.name.clone()));
    [broker, node].into_iter().chain(credentials).collect()
}

fn mount(name: &str, path: &str) -> VolumeMount {
    VolumeMount {
        name: name.into(),
        mount_path: path.into(),
        read_only: Some(true),
        ..VolumeMount::default()
    }
}

fn variable(name: &str, value: &str) -> EnvVar {
    EnvVar { name: name.into(), value: Some(value.into()), value_from: None }
}

fn environment(given: &container::EnvVar) -> EnvVar {
    let source = given.value_from.as_ref().map(|from| EnvVarSource {
        secret_key_ref: from.secret_key_ref.as_ref().map(|key| SecretKeySelector {
            name: key.name.clone(),
            key: key.key.clone(),
            optional: None,
        }),
        config_map_key_ref: from.config_map_key_ref.as_ref().map(|key| ConfigMapKeySelector {
            name: key.name.clone(),
            key: key.key.clone(),
            optional: None,
        }),
        field_ref: from.field_ref.as_ref().map(|field| ObjectFieldSelector {
            field_path: field.field_path.clone(),
            ..ObjectFieldSelector::default()
        }),
        ..EnvVarSource::default()
    });
    EnvVar { name: given.name.clone(), value: given.value.clone(), value_from: source }
}

fn resources(given: &container::Resources) -> ResourceRequirements {
    let amounts = |given: &BTreeMap<String, container::Quantity>| {
        let amount = |quantity: &container::Quantity| match &quantity.0 {
            IntOrString::Int(number) => number.to_string(),
            IntOrString::String(text) => text.clone(),
        };
        let all: BTreeMap<_, _> =
            given.iter().map(|(name, quantity)| (name.clone(), Quantity(amount(quantity)))).collect();
        (!all.is_empty()).then_some(all)
    };
    ResourceRequirements {
        requests: amounts(&given.requests),
        limits: amounts(&given.limits),
        ..ResourceRequirements::default()
    }
}

/// Amounts of resources.
#[must_use]
pub fn quantities<const N: usize>(amounts: [(&str, &str); N]) -> BTreeMap<String, Quantity> {
    amounts.map(|(name, amount)| (name.to_owned(), Quantity(amount.to_owned()))).into()
}
