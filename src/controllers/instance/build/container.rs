//! The containers of an Instance's pod.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Container, ContainerPort, EnvVar, EnvVarSource, ExecAction, HTTPGetAction, Lifecycle, LifecycleHandler,
    ObjectFieldSelector, Probe, ResourceRequirements, SleepAction, TCPSocketAction, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::{Map, Value};

use crate::api::cartridge::{Port, Protocol};
use crate::api::container;
use crate::broker::member::{
    IMPORTS_ENV_FILE, IMPORTS_FILE, LAUNCHER, RUN_DIR, SECRETS_DIR, SOCKET, Setup, VALUES_FILE,
};
use crate::controllers::flow::build::BuildConfig;
use crate::controllers::pod::{
    AGENT, AGENT_PORT, BROKER_PATH, CREDENTIALS_KEY, environment, mount, own_security, probe, quantities,
    resources, restricted, variable,
};

use super::pod::{APPLICATION, BROKER, Given, LAUNCH, RUN};
use super::{Identity, SEAL_KEY};

/// The folder of the launcher.
const LAUNCH_DIR: &str = "/run/millrace-launch";

/// Copies the launcher to where the application's container finds it.
pub(super) fn launch(config: &BuildConfig) -> Container {
    Container {
        name: LAUNCH.into(),
        image: Some(config.image.clone()),
        command: Some(["/launch", "install", LAUNCHER].map(Into::into).into()),
        resources: Some(ResourceRequirements {
            requests: Some(quantities([("cpu", "10m"), ("memory", "8Mi")])),
            limits: Some(quantities([("memory", "32Mi")])),
            ..ResourceRequirements::default()
        }),
        security_context: Some(own_security()),
        volume_mounts: Some(vec![writable(LAUNCH, LAUNCH_DIR)]),
        ..Container::default()
    }
}

/// The agent.
pub(super) fn agent(config: &BuildConfig, identity: &Identity, given: &Given<'_>) -> Container {
    let setup = serde_json::to_string(&setup(given)).unwrap_or_default();
    let (credentials, seal) =
        (format!("{BROKER_PATH}/{CREDENTIALS_KEY}"), format!("{BROKER_PATH}/{SEAL_KEY}"));
    let fixed = [
        ("MILLRACE_NAMESPACE", identity.namespace.as_str()),
        ("MILLRACE_INSTANCE", identity.name.as_str()),
        ("MILLRACE_MEMBER", &setup),
        ("MILLRACE_NATS_URL", &config.nats_url),
        ("MILLRACE_NATS_JS_PREFIX", &config.js_prefix),
        ("MILLRACE_NATS_CREDENTIALS", &credentials),
        ("MILLRACE_SEAL_KEY", &seal),
        ("MILLRACE_RUN_DIR", RUN_DIR),
    ];
    let of_pod = [("POD_UID", "metadata.uid"), ("POD_IP", "status.podIP")];
    let env = fixed.into_iter().map(|(name, value)| variable(name, value));
    Container {
        name: AGENT.into(),
        image: Some(config.image.clone()),
        args: Some(vec!["member".into()]),
        restart_policy: Some("Always".into()),
        env: Some(env.chain(of_pod.map(|(name, path)| field(name, path))).collect()),
        ports: Some(vec![ContainerPort {
            name: Some("agent".into()),
            container_port: AGENT_PORT.into(),
            ..ContainerPort::default()
        }]),
        // Without a launcher, the application's container begins when this passes.
        startup_probe: (!given.is_wrapped()).then(|| probe("/gate", 1, i32::MAX)),
        readiness_probe: Some(probe("/readyz", 5, 3)),
        liveness_probe: Some(probe("/livez", 10, 6)),
        resources: Some(ResourceRequirements {
            requests: Some(quantities([("cpu", "10m"), ("memory", "16Mi")])),
            limits: Some(quantities([("memory", "64Mi")])),
            ..ResourceRequirements::default()
        }),
        security_context: Some(own_security()),
        volume_mounts: Some(vec![mount(BROKER, BROKER_PATH), writable(RUN, RUN_DIR)]),
        ..Container::default()
    }
}

/// What the agent knows from the beginning.
fn setup(given: &Given<'_>) -> Setup {
    let cartridge = &given.revision.cartridge;
    let tcp = cartridge.ports.iter().filter(|port| port.protocol.unwrap_or(Protocol::Tcp) == Protocol::Tcp);
    Setup {
        wrapped: given.is_wrapped(),
        ports: tcp.map(|port| (port.name.clone(), port.port)).collect(),
        probes: cartridge.probes.clone().unwrap_or_default(),
        lifecycle: cartridge.lifecycle.clone().unwrap_or_default(),
        drain_seconds: u32::try_from(given.drain_seconds()).unwrap_or_default(),
    }
}

/// The user's container.
pub(super) fn application(identity: &Identity, given: &Given<'_>) -> Container {
    let cartridge = &given.revision.cartridge;
    let wrapped = given.is_wrapped();
    let probes = cartridge.probes.clone().unwrap_or_default();
    let command = wrapped.then(|| {
        let hold = given.drain_seconds().to_string();
        let socket = format!("{RUN_DIR}/{SOCKET}");
        let launcher = [LAUNCHER, "run", "--socket", &socket, "--hold", &hold, "--"].map(String::from);
        launcher.into_iter().chain(cartridge.command.clone()).chain(cartridge.args.clone()).collect()
    });
    let kept = |given: &Option<container::Probe>| given.as_ref().filter(|_| !wrapped).map(of_user);
    let mut mounts = vec![mount(RUN, RUN_DIR)];
    mounts.extend(wrapped.then(|| mount(LAUNCH, LAUNCH_DIR)));
    Container {
        name: APPLICATION.into(),
        image: cartridge.image.clone(),
        args: Some(cartridge.args.clone()).filter(|args| !wrapped && !args.is_empty()),
        command,
        env: Some(environment_of(identity, given)),
        ports: Some(cartridge.ports.iter().map(port).collect()).filter(|ports: &Vec<_>| !ports.is_empty()),
        resources: cartridge.resources.as_ref().map(resources),
        startup_probe: kept(&probes.startup),
        liveness_probe: kept(&probes.liveness),
        readiness_probe: if wrapped {
            Some(probe("/application/ready", 2, 1))
        } else {
            kept(&probes.readiness)
        },
        lifecycle: (!wrapped).then(|| pre_stop(given)).flatten(),
        security_context: given.restricted.then(restricted),
        // What an application said last is the best reason there is when it ends.
        termination_message_policy: Some("FallbackToLogsOnError".into()),
        volume_mounts: Some(mounts),
        ..Container::default()
    }
}

fn environment_of(identity: &Identity, given: &Given<'_>) -> Vec<EnvVar> {
    let path = |file: &str| format!("{RUN_DIR}/{file}");
    let cluster = identity.cluster.as_ref().map(|(cluster, _)| ("MILLRACE_CLUSTER", cluster.to_string()));
    let partition = identity.partition.clone().map(|partition| ("MILLRACE_PARTITION", partition));
    let own = [
        ("MILLRACE_NAMESPACE", identity.namespace.to_string()),
        ("MILLRACE_INSTANCE", identity.name.to_string()),
        ("MILLRACE_IMPORTS", path(IMPORTS_FILE)),
        ("MILLRACE_IMPORTS_ENV", path(IMPORTS_ENV_FILE)),
        ("MILLRACE_VALUES", path(VALUES_FILE)),
        ("MILLRACE_SECRETS", path(SECRETS_DIR)),
    ];
    let own = own.into_iter().chain(cluster).chain(partition).map(|(name, value)| variable(name, &value));
    let values = if given.is_wrapped() { BTreeMap::new() } else { value_variables(given.values) };
    let values = values.into_iter().map(|(name, value)| variable(&name, &value));
    own.chain(values).chain(given.revision.cartridge.env.iter().map(environment)).collect()
}

/// The variables of values that are text, numbers or booleans: `VALUE_NAME`.
#[must_use]
pub(super) fn value_variables(values: &Map<String, Value>) -> BTreeMap<String, String> {
    let variable = |(name, value): (&String, &Value)| {
        let text = match value {
            Value::String(text) => text.clone(),
            Value::Number(_) | Value::Bool(_) => value.to_string(),
            Value::Null | Value::Array(_) | Value::Object(_) => return None,
        };
        let upper = name.to_ascii_uppercase();
        let name: String = upper.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
        // Kubernetes would put something else for `$(…)`.
        Some((format!("VALUE_{name}"), text.replace("$(", "$$(")))
    };
    values.iter().filter_map(variable).collect()
}

/// What drains an application that no launcher starts: requests in flight have their time, then the hook runs.
fn pre_stop(given: &Given<'_>) -> Option<Lifecycle> {
    let hook = given.revision.cartridge.lifecycle.as_ref().and_then(|hooks| hooks.stop.as_ref());
    let handler = if hook.is_some() {
        LifecycleHandler {
            http_get: Some(HTTPGetAction {
                path: Some("/application/stop".into()),
                port: IntOrString::Int(AGENT_PORT.into()),
                ..HTTPGetAction::default()
            }),
            ..LifecycleHandler::default()
        }
    } else if given.drain_seconds() > 0 {
        LifecycleHandler {
            sleep: Some(SleepAction { seconds: given.drain_seconds().into() }),
            ..LifecycleHandler::default()
        }
    } else {
        return None;
    };
    Some(Lifecycle { pre_stop: Some(handler), ..Lifecycle::default() })
}

fn port(given: &Port) -> ContainerPort {
    ContainerPort {
        name: Some(given.name.clone()),
        container_port: given.port.into(),
        protocol: Some(protocol(given).into()),
        ..ContainerPort::default()
    }
}

fn protocol(given: &Port) -> &'static str {
    match given.protocol.unwrap_or(Protocol::Tcp) {
        Protocol::Tcp => "TCP",
        Protocol::Udp => "UDP",
        Protocol::Sctp => "SCTP",
    }
}

/// A probe of the user, for the kubelet to run.
fn of_user(given: &container::Probe) -> Probe {
    Probe {
        http_get: given.http_get.as_ref().map(|get| HTTPGetAction {
            path: get.path.clone(),
            port: IntOrString::Int(get.port.into()),
            ..HTTPGetAction::default()
        }),
        tcp_socket: given.tcp_socket.as_ref().map(|tcp| TCPSocketAction {
            port: IntOrString::Int(tcp.port.into()),
            ..TCPSocketAction::default()
        }),
        exec: given.exec.as_ref().map(|exec| ExecAction { command: Some(exec.command.clone()) }),
        initial_delay_seconds: given.initial_delay_seconds,
        period_seconds: given.period_seconds,
        timeout_seconds: given.timeout_seconds,
        success_threshold: given.success_threshold,
        failure_threshold: given.failure_threshold,
        ..Probe::default()
    }
}

fn field(name: &str, path: &str) -> EnvVar {
    let field_ref = Some(ObjectFieldSelector { field_path: path.into(), ..ObjectFieldSelector::default() });
    EnvVar {
        name: name.into(),
        value: None,
        value_from: Some(EnvVarSource { field_ref, ..EnvVarSource::default() }),
    }
}

fn writable(name: &str, path: &str) -> VolumeMount {
    VolumeMount { read_only: None, ..mount(name, path) }
}
