//! The pod of a node: the user's component, and beside it the agent that moves its messages.

use k8s_openapi::api::core::v1::{
    Container, ContainerPort, DownwardAPIVolumeFile, DownwardAPIVolumeSource, HTTPGetAction, HTTPHeader,
    KeyToPath, Lifecycle, LifecycleHandler, ObjectFieldSelector, PodSpec, ResourceRequirements,
    SecretVolumeSource, Volume,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::api::flow::node::Node;
use crate::broker::work::{NodeWork, Target};
use crate::controllers::pod::{
    AGENT, AGENT_PORT, BROKER_PATH, CREDENTIALS_KEY, environment, mount, own_security, pod_security, probe,
    quantities, resources, restricted, variable,
};

use crate::controllers::template::Own;

use super::super::validate::ValidNode;
use super::{BuildConfig, FIELDS, Identity, credentials_key};

/// The user's container.
pub const COMPONENT: &str = "component";
/// What of the pod is ours.
pub const OWN: Own =
    Own { main: COMPONENT, whose: "node", containers: &[AGENT], volumes: &[BROKER, NODE, SECRETS] };

const BROKER: &str = "millrace-broker";
const NODE: &str = "millrace-node";
const SECRETS: &str = "millrace-credentials";
const NODE_PATH: &str = "/var/run/millrace/node";
const SECRETS_PATH: &str = "/var/run/millrace/credentials";

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
        security_context: Some(own_security()),
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
