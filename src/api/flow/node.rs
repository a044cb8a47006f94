//! A step of a Flow.

use kube::KubeSchema;
use kube::core::Rule;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::api::container::{EnvVar, LocalRef, Resources};
use crate::api::duration::Duration;
use crate::api::name::NodeId;
use crate::api::schema;

/// A step of a Flow: a container of the user's, or a built-in one.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "has(self.image) != has(self.builtin)",
    "a node must have `image` or `builtin`, and not both",
))]
#[x_kube(validation = container_only("function", "a built-in node is one function"))]
#[x_kube(validation = container_only("port", "a built-in node has no container"))]
#[x_kube(validation = container_only("env", "a built-in node has no container; give it `fields`"))]
#[x_kube(validation = container_only("resources", "built-in nodes share the pods of the runner"))]
#[x_kube(validation = container_only("imagePullSecrets", "a built-in node pulls no image"))]
#[x_kube(validation = container_only("serviceAccountName", "built-in nodes share the pods of the runner"))]
#[x_kube(validation = container_only("podTemplate", "built-in nodes share the pods of the runner"))]
#[x_kube(validation = container_only("replicas", "built-in nodes share the pods of the runner"))]
pub struct Node {
    /// Name of the node in this flow, a DNS label; edges name it. Example: `fetch`.
    #[schemars(length(max = NodeId::MAX))]
    #[x_kube(validation = schema::dns_label("id", "fetch"))]
    pub id: String,
    /// The container image of the component, for example `registry.example/erp-adapter:1.4`. Absent:
    /// `builtin` is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    #[x_kube(validation = schema::image())]
    pub image: Option<String>,
    /// Name of a built-in node instead of an image: `filter`, `http`, `log`, `split`, `transform`, `wait`.
    /// What is wrong with its `fields` is told by the condition `Accepted`. Absent: `image` is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 40))]
    #[x_kube(validation = schema::dns_label("builtin", "transform"))]
    pub builtin: Option<String>,
    /// The function of the component that gets the messages: they are posted to this path of its port.
    /// Absent: to `/`. Example: `getOrders`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    #[x_kube(validation = (
        "self.matches('^[A-Za-z0-9_][A-Za-z0-9_.-]*$')",
        "`function` must be one segment of a path: letters, digits, `_`, `-` and `.`, such as `getOrders`",
    ))]
    pub function: Option<String>,
    /// Settings of the component or built-in, kept as they are. A component reads them as JSON from the file
    /// named by `MILLRACE_FIELDS`; a change replaces its pods. Absent: `{}`. Example: `{url:
    /// "https://erp.example/orders"}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::anything")]
    pub fields: Option<Map<String, Value>>,
    /// Secret settings. A component reads them as files in the folder named by `MILLRACE_CREDENTIALS`; a
    /// change replaces its pods. Absent: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials: Option<Credentials>,
    /// How many pods the node has. Absent: one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<Replicas>,
    /// What happens to a message that the node fails to handle. Absent: the values of its fields when they
    /// are absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<Retry>,
    /// How long one attempt at a message may take, more than zero and at most 24h. Absent: `30s`. Example:
    /// `1m30s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Duration>,
    /// The port where the component listens for messages. Absent: 8080.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    #[x_kube(validation = (
        "self != 8687",
        "`port` must be another than 8687: Millrace's agent listens there in the same pod",
    ))]
    pub port: Option<u16>,
    /// Environment variables of the component. Absent: only those that Millrace sets.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub env: Vec<EnvVar>,
    /// CPU and memory of the component. Absent: what the namespace gives by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
    /// Secrets with the credentials of the image's registry. Absent: those of the service account.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub image_pull_secrets: Vec<LocalRef>,
    /// The account that the pods run as. Absent: the namespace's `default`. Example: `erp-adapter`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    #[x_kube(validation = schema::object_name("serviceAccountName", "a ServiceAccount"))]
    pub service_account_name: Option<String>,
    /// Anything else of the pod, as in a Deployment's `template`, merged over the node's pod; Millrace's own
    /// containers cannot be changed. Absent: nothing. Example: `{spec: {nodeSelector: {disk: ssd}}}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::anything")]
    pub pod_template: Option<Map<String, Value>>,
}

/// A field for which a node needs an image. It is silent where `image` or `builtin` is wrong by itself, so
/// that one mistake gives one message.
fn container_only(field: &str, why: &str) -> Rule {
    schema::rule(
        format!("has(self.image) || !has(self.builtin) || !has(self.{field})"),
        format!("`{field}` must be left out where `builtin` is given: {why}"),
    )
    .field_path(format!(".{field}"))
}

/// How many pods a node has.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Replicas {
    /// The fewest pods of the node, at least 1. Absent: 1. Example: `2`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub min: Option<i32>,
}

/// What happens to a message that a node fails to handle.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Retry {
    /// How many attempts a message gets after the first, before it becomes a dead letter; 0 is none. Absent:
    /// 8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    pub limit: Option<i32>,
    /// How long after the first attempt the second is made, more than zero and at most 24h; each later pause
    /// is twice as long as the one before, and each up to a quarter longer by chance. Absent: `1s`. Example: `500ms`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backoff: Option<Duration>,
    /// The longest pause between two attempts, at least `backoff` and at most 24h. Absent: `5m`, or `backoff`
    /// where that is longer. Example: `30s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_backoff: Option<Duration>,
}

/// Where a node's secret settings are.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Credentials {
    /// A Secret in the flow's namespace: each of its keys becomes a file. The flow waits until it is there.
    pub secret_ref: LocalRef,
}
