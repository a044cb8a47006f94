//! What the pods of nodes, runners and Instances have in common.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Capabilities, ConfigMapKeySelector, EnvVar, EnvVarSource, HTTPGetAction, ObjectFieldSelector,
    PodSecurityContext, Probe, ResourceRequirements, SeccompProfile, SecretKeySelector, SecurityContext,
    VolumeMount,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::api::container;

/// The sidecar.
pub const AGENT: &str = "millrace-agent";
/// Where the agent answers to the kubelet.
pub const AGENT_PORT: u16 = 8687;
/// The file of the credentials for the broker, and its key in their Secret.
pub const CREDENTIALS_KEY: &str = "nats.creds";
/// Where the credentials for the broker are mounted.
pub const BROKER_PATH: &str = "/var/run/millrace/broker";
/// The user that our own containers run as, whatever the component's is.
pub const AGENT_USER: i64 = 65532;

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

/// A volume that a container may only read.
#[must_use]
pub fn mount(name: &str, path: &str) -> VolumeMount {
    VolumeMount {
        name: name.into(),
        mount_path: path.into(),
        read_only: Some(true),
        ..VolumeMount::default()
    }
}

/// A variable with a fixed value.
#[must_use]
pub fn variable(name: &str, value: &str) -> EnvVar {
    EnvVar { name: name.into(), value: Some(value.into()), value_from: None }
}

/// A variable as a user gives it.
#[must_use]
pub fn environment(given: &container::EnvVar) -> EnvVar {
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

/// Resources as a user gives them.
#[must_use]
pub fn resources(given: &container::Resources) -> ResourceRequirements {
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

/// What our own sidecars may do: nothing that needs rights, under a user of their own.
#[must_use]
pub fn own_security() -> SecurityContext {
    SecurityContext {
        read_only_root_filesystem: Some(true),
        run_as_user: Some(AGENT_USER),
        run_as_group: Some(AGENT_USER),
        run_as_non_root: Some(true),
        ..restricted()
    }
}
