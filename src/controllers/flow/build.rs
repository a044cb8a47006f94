//! What a Flow makes in its namespace: a Deployment for each node that has an image, and the Secret with the credentials
//! for the broker.

use std::collections::BTreeMap;

use data_encoding::HEXLOWER;
use ipnet::IpNet;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec};
use k8s_openapi::api::core::v1::{LocalObjectReference, PodSpec, PodTemplateSpec, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta, OwnerReference};
use k8s_openapi::{ByteString, DeepMerge as _};
use kube::Resource as _;
use sha2::{Digest, Sha256};

use crate::api::child;
use crate::api::flow::Flow;
use crate::api::label;
use crate::api::name::{self, FlowName, NamespaceName, NodeId, Parent, Role};
use crate::broker::message::keyed_id;

use super::validate::{ImageNode, ValidNode, fields_file};

mod pod;

pub use pod::{COMPONENT, OWN};

/// Names the content of a Deployment as it was built: one that differs is not current.
pub const REVISION: &str = "millrace.dev/revision";
/// The settings of a node; the component reads them as a file.
pub const FIELDS: &str = "millrace.dev/fields";
/// A hash of the Secret that a node's credentials come from: a change replaces the pods.
pub const CREDENTIALS: &str = "millrace.dev/credentials";
/// The nodes that have a queue: those of the spec, and removed ones that are still being drained.
pub const QUEUES: &str = "millrace.dev/queues";

/// Seconds beyond the drain limit that a pod has to end.
const GRACE: i64 = 10;

/// What of the install's settings the objects of Flows depend on.
#[derive(Clone, Debug)]
pub struct BuildConfig {
    /// The image of Millrace itself, for the sidecars.
    pub image: String,
    /// Where pods reach the broker.
    pub nats_url: String,
    /// The prefix of the broker's JetStream API.
    pub js_prefix: String,
    /// What the keys of drain endpoints are derived from.
    pub key: Vec<u8>,
    /// Networks that http nodes may reach beside those that they may reach anyway.
    pub http_allow: Vec<IpNet>,
}

/// Whose objects are built.
#[derive(Clone, Debug, PartialEq)]
pub struct Identity {
    /// The namespace of the Flow and of all that it makes.
    pub namespace: NamespaceName,
    /// The Flow's name.
    pub name: FlowName,
    /// The Flow's uid.
    pub uid: String,
    /// The Flow's labels.
    pub labels: BTreeMap<String, String>,
    /// Makes the children go with the Flow.
    pub owner: OwnerReference,
    /// Seconds that the drain may take.
    pub drain_seconds: i32,
    /// Seconds that a start may take.
    pub progress_seconds: i32,
}

impl Identity {
    /// Who a Flow is. None where the API server would never have stored it: without a namespace or uid.
    #[must_use]
    pub fn of(flow: &Flow) -> Option<Self> {
        Some(Self {
            namespace: flow.metadata.namespace.as_deref()?.parse().ok()?,
            name: flow.metadata.name.as_deref()?.parse().ok()?,
            uid: flow.metadata.uid.clone()?,
            labels: flow.metadata.labels.clone().unwrap_or_default(),
            owner: flow.controller_owner_ref(&())?,
            drain_seconds: flow.spec.drain_seconds.unwrap_or(300),
            progress_seconds: flow.spec.progress_deadline_seconds.unwrap_or(600),
        })
    }

    /// The name of a node's Deployment.
    #[must_use]
    pub fn deployment(&self, node: &NodeId) -> String {
        name::child(&self.namespace, Parent::Flow(&self.name), Role::Node, node.as_str())
    }

    /// The name of the Secret with the credentials for the broker.
    #[must_use]
    pub fn broker_secret(&self) -> String {
        name::child(&self.namespace, Parent::Flow(&self.name), Role::Broker, "")
    }

    fn metadata(&self, name: String, own: BTreeMap<String, String>) -> ObjectMeta {
        child::metadata(&self.namespace, name, label::inherit(&self.labels, own), &self.owner)
    }
}

/// The Deployment of a node that has an image. `credentials` is the hash of its Secret, where it has one.
#[must_use]
pub fn deployment(
    config: &BuildConfig,
    flow: &Identity,
    node: &ValidNode,
    image: &ImageNode,
    credentials: Option<&str>,
) -> Deployment {
    let id = &node.work.id;
    let mut deployment = Deployment {
        metadata: flow.metadata(flow.deployment(id), label::of_node(&flow.name, id)),
        spec: Some(DeploymentSpec {
            replicas: Some(replicas(node)),
            revision_history_limit: Some(2),
            progress_deadline_seconds: Some(flow.progress_seconds),
            selector: LabelSelector {
                match_labels: Some(label::select_node(&flow.name, id)),
                ..LabelSelector::default()
            },
            template: template(config, flow, node, image, credentials),
            ..DeploymentSpec::default()
        }),
        status: None,
    };
    let revision = hash(&deployment);
    deployment.metadata.annotations = Some([(REVISION.to_owned(), revision)].into());
    deployment
}

/// How many pods a node has.
#[must_use]
pub fn replicas(node: &ValidNode) -> i32 {
    let wanted = node.image.as_ref().and_then(|image| image.node.replicas.as_ref());
    wanted.and_then(|replicas| replicas.min).unwrap_or(1)
}

fn template(
    config: &BuildConfig,
    flow: &Identity,
    node: &ValidNode,
    image: &ImageNode,
    credentials: Option<&str>,
) -> PodTemplateSpec {
    let id = &node.work.id;
    let fields = fields_file(image.node.fields.as_ref());
    let annotations = [(FIELDS, Some(fields)), (CREDENTIALS, credentials.map(str::to_owned))];
    let given = &image.node;
    let mut template = PodTemplateSpec {
        metadata: Some(ObjectMeta {
            labels: Some(label::inherit(&flow.labels, label::of_node(&flow.name, id))),
            annotations: Some(
                annotations.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))).collect(),
            ),
            ..ObjectMeta::default()
        }),
        spec: Some(PodSpec {
            // The component gets an account's token only where its account was chosen for it.
            automount_service_account_token: given.service_account_name.is_none().then_some(false),
            service_account_name: given.service_account_name.clone(),
            enable_service_links: Some(false),
            image_pull_secrets: secrets(given),
            termination_grace_period_seconds: Some(i64::from(flow.drain_seconds) + GRACE),
            ..pod::spec(config, flow, node, given, &drain_key(config, flow, id))
        }),
    };
    if let Some(given) = &image.template {
        template.merge_from((**given).clone());
    }
    template
}

fn secrets(node: &crate::api::flow::node::Node) -> Option<Vec<LocalObjectReference>> {
    let secrets: Vec<_> = node
        .image_pull_secrets
        .iter()
        .map(|secret| LocalObjectReference { name: secret.name.clone() })
        .collect();
    (!secrets.is_empty()).then_some(secrets)
}

/// What a drain request must carry: whoever reads the pod's template knows it, others cannot stop a pump.
fn drain_key(config: &BuildConfig, flow: &Identity, node: &NodeId) -> String {
    keyed_id(&config.key, [b"drain", flow.uid.as_bytes(), node.as_str().as_bytes()])
}

/// A short hash of an object.
fn hash(object: &Deployment) -> String {
    let text = serde_json::to_vec(object).unwrap_or_default();
    let mut hex = HEXLOWER.encode(&Sha256::digest(text));
    hex.truncate(16);
    hex
}

/// The key of a node's credentials in the Secret.
fn credentials_key(node: &NodeId) -> String {
    format!("{node}.creds")
}

/// The Secret with each node's credentials for the broker; `queues` lists the nodes.
#[must_use]
pub fn broker_secret(flow: &Identity, queues: &str, credentials: BTreeMap<NodeId, String>) -> Secret {
    let mut metadata = flow.metadata(flow.broker_secret(), label::of_flow(&flow.name));
    metadata.annotations = Some([(QUEUES.to_owned(), queues.to_owned())].into());
    Secret {
        metadata,
        data: Some(
            credentials
                .into_iter()
                .map(|(node, text)| (credentials_key(&node), ByteString(text.into_bytes())))
                .collect(),
        ),
        type_: Some("Opaque".into()),
        ..Secret::default()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::controllers::flow::validate::validate;

    fn config() -> BuildConfig {
        BuildConfig {
            image: "millrace:1".into(),
            nats_url: "nats://nats:4222".into(),
            js_prefix: "$JS.API".into(),
            key: b"key".to_vec(),
            http_allow: vec![],
        }
    }

    fn flow(nodes: &Value) -> Flow {
        serde_json::from_value(json!({
            "apiVersion": "millrace.dev/v1alpha1", "kind": "Flow",
            "metadata": {
                "name": "orders", "namespace": "shop", "uid": "u1",
                "labels": {"team": "sales", "argocd.argoproj.io/instance": "shop"},
            },
            "spec": {"trigger": {"webhook": {"methods": ["POST"]}}, "graph": {"nodes": nodes}},
        }))
        .unwrap()
    }

    fn built(node: &Value, credentials: Option<&str>) -> Deployment {
        let flow = flow(&json!([node]));
        let node = validate(&flow.spec).unwrap().nodes.pop_first().unwrap().1;
        let image = node.image.clone().unwrap();
        deployment(&config(), &Identity::of(&flow).unwrap(), &node, &image, credentials)
    }

    fn pod(deployment: &Deployment) -> PodSpec {
        deployment.spec.clone().unwrap().template.spec.unwrap()
    }

    #[test]
    fn a_deployment_belongs_to_its_flow_and_hands_down_only_what_may_be() {
        let built = built(&json!({"id": "fetch", "image": "erp:1"}), None);
        let owner = &built.metadata.owner_references.as_ref().unwrap()[0];
        assert_eq!((owner.uid.as_str(), owner.controller), ("u1", Some(true)));
        let labels = built.metadata.labels.unwrap();
        assert_eq!(
            (labels.get("team").map(String::as_str), labels.get("argocd.argoproj.io/instance")),
            (Some("sales"), None)
        );
        assert_eq!(labels["millrace.dev/node"], "fetch");
    }

    #[test]
    fn the_pod_is_restricted_and_the_agent_starts_first_without_holding_the_component_back() {
        let pod = pod(&built(&json!({"id": "fetch", "image": "erp:1"}), None));
        assert_eq!(pod.automount_service_account_token, Some(false));
        assert_eq!(pod.termination_grace_period_seconds, Some(310));
        let agent = &pod.init_containers.as_ref().unwrap()[0];
        assert_eq!((agent.restart_policy.as_deref(), agent.startup_probe.is_none()), (Some("Always"), true));
        for container in [agent, &pod.containers[0]] {
            let security = container.security_context.as_ref().unwrap();
            assert_eq!(security.allow_privilege_escalation, Some(false));
            assert_eq!(security.capabilities.as_ref().unwrap().drop, Some(vec!["ALL".into()]));
        }
        let drain = pod.containers[0].lifecycle.as_ref().unwrap().pre_stop.as_ref().unwrap();
        let key = &drain.http_get.as_ref().unwrap().http_headers.as_ref().unwrap()[0];
        let given = agent.env.as_ref().unwrap().iter().find(|env| env.name == "MILLRACE_DRAIN_KEY").unwrap();
        assert_eq!((key.value.len(), Some(&key.value)), (32, given.value.as_ref()));
    }

    #[test]
    fn settings_and_credentials_are_files_and_a_change_of_either_makes_another_revision() {
        let node = |url: &str| json!({"id": "f", "image": "i", "fields": {"url": url}, "credentials": {"secretRef": {"name": "erp"}}});
        let revision = |built: &Deployment| built.metadata.annotations.as_ref().unwrap()[REVISION].clone();
        let (one, same) = (built(&node("a"), Some("h1")), built(&node("a"), Some("h1")));
        assert_eq!(revision(&one), revision(&same));
        assert_ne!(revision(&one), revision(&built(&node("b"), Some("h1"))));
        assert_ne!(revision(&one), revision(&built(&node("a"), Some("h2"))));
        let mounts: Vec<_> = pod(&one).containers[0]
            .volume_mounts
            .iter()
            .flatten()
            .map(|mount| mount.mount_path.clone())
            .collect();
        assert_eq!(mounts, ["/var/run/millrace/node", "/var/run/millrace/credentials"]);
    }

    #[test]
    fn the_users_template_is_merged_by_the_names_of_containers_and_volumes() {
        let built = built(
            &json!({"id": "f", "image": "i", "podTemplate": {"spec": {
                "nodeSelector": {"disk": "ssd"},
                "containers": [
                    {"name": "component", "volumeMounts": [{"name": "cache", "mountPath": "/cache"}]},
                    {"name": "proxy", "image": "proxy:1"},
                ],
                "volumes": [{"name": "cache", "emptyDir": {}}],
            }}}),
            None,
        );
        let pod = pod(&built);
        let names: Vec<_> = pod
            .containers
            .iter()
            .map(|container| (container.name.as_str(), container.image.as_deref()))
            .collect();
        assert_eq!(names, [("component", Some("i")), ("proxy", Some("proxy:1"))]);
        assert_eq!(pod.containers[0].volume_mounts.as_ref().unwrap().len(), 2);
        let volumes: Vec<_> = pod.volumes.iter().flatten().map(|volume| volume.name.as_str()).collect();
        assert_eq!(volumes, ["millrace-broker", "millrace-node", "cache"]);
    }
}
