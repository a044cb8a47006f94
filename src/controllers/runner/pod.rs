//! The pod of a runner.

use k8s_openapi::api::core::v1::{
    Container, ContainerPort, EnvVar, EnvVarSource, ObjectFieldSelector, PodSpec, ResourceRequirements,
    SecretVolumeSource, Volume, VolumeMount,
};

use crate::api::name::NamespaceName;
use crate::controllers::flow::build::BuildConfig;
use crate::controllers::pod::{
    AGENT_PORT, BROKER_PATH, CREDENTIALS_KEY, own_security, pod_security, probe, quantities,
};

use super::NAME;

/// Seconds that it has to finish what it handles.
const GRACE: i64 = 60;
const BROKER: &str = "millrace-broker";

pub(super) fn spec(config: &BuildConfig, namespace: &NamespaceName) -> PodSpec {
    PodSpec {
        service_account_name: Some(NAME.into()),
        automount_service_account_token: Some(false),
        enable_service_links: Some(false),
        security_context: Some(pod_security()),
        termination_grace_period_seconds: Some(GRACE),
        containers: vec![runner(config, namespace)],
        volumes: Some(vec![Volume {
            name: BROKER.into(),
            secret: Some(SecretVolumeSource {
                secret_name: Some(NAME.into()),
                ..SecretVolumeSource::default()
            }),
            ..Volume::default()
        }]),
        ..PodSpec::default()
    }
}

fn runner(config: &BuildConfig, namespace: &NamespaceName) -> Container {
    let credentials = format!("{BROKER_PATH}/{CREDENTIALS_KEY}");
    let given = [
        ("MILLRACE_NAMESPACE", namespace.as_str()),
        ("MILLRACE_NATS_URL", &config.nats_url),
        ("MILLRACE_NATS_JS_PREFIX", &config.js_prefix),
        ("MILLRACE_NATS_CREDENTIALS", &credentials),
    ];
    let allowed: Vec<_> = config.http_allow.iter().map(ToString::to_string).collect();
    let allowed = allowed.join(",");
    let allowed = Some(("MILLRACE_HTTP_ALLOW", &*allowed)).filter(|(_, allowed)| !allowed.is_empty());
    let given = given.into_iter().chain(allowed).map(|(name, value)| EnvVar {
        name: name.into(),
        value: Some(value.into()),
        value_from: None,
    });
    let name = EnvVar {
        name: "POD_NAME".into(),
        value: None,
        value_from: Some(EnvVarSource {
            field_ref: Some(ObjectFieldSelector {
                field_path: "metadata.name".into(),
                ..ObjectFieldSelector::default()
            }),
            ..EnvVarSource::default()
        }),
    };
    Container {
        name: "runner".into(),
        image: Some(config.image.clone()),
        args: Some(vec!["runner".into()]),
        env: Some(given.chain([name]).collect()),
        ports: Some(vec![ContainerPort {
            name: Some("admin".into()),
            container_port: AGENT_PORT.into(),
            ..ContainerPort::default()
        }]),
        readiness_probe: Some(probe("/readyz", 1, 3)),
        liveness_probe: Some(probe("/livez", 10, 6)),
        resources: Some(ResourceRequirements {
            requests: Some(quantities([("cpu", "10m"), ("memory", "32Mi")])),
            limits: Some(quantities([("memory", "768Mi")])),
            ..ResourceRequirements::default()
        }),
        security_context: Some(own_security()),
        volume_mounts: Some(vec![VolumeMount {
            name: BROKER.into(),
            mount_path: BROKER_PATH.into(),
            read_only: Some(true),
            ..VolumeMount::default()
        }]),
        ..Container::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_runner_is_told_what_http_nodes_may_reach_only_if_there_is_something() {
        let told = |allowed: &[&str]| {
            let config = BuildConfig {
                image: "millrace:1".into(),
                nats_url: "nats://nats:4222".into(),
                js_prefix: "$JS.API".into(),
                key: b"key".to_vec(),
                http_allow: allowed.iter().map(|net| net.parse().unwrap()).collect(),
            };
            let env = runner(&config, &"shop".parse().unwrap()).env.unwrap();
            env.into_iter()
                .find(|variable| variable.name == "MILLRACE_HTTP_ALLOW")
                .map(|it| it.value.unwrap())
        };
        assert_eq!(told(&[]), None);
        assert_eq!(told(&["127.0.0.0/8", "fe80::/10"]), Some("127.0.0.0/8,fe80::/10".into()));
    }
}
