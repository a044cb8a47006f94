//! A Cluster: a subscription to a Cartridge, and as many members as are wanted.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::{CustomResource, KubeSchema};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::name::{CartridgeName, ClusterName, NamespaceName};
use super::schema;
use super::transition::Transitions;
use phase::ClusterPhase;
use placement::Placement;

pub mod phase;
pub mod placement;

/// What a Cluster should be.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, CustomResource, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[kube(
    group = "millrace.dev",
    version = "v1alpha1",
    kind = "Cluster",
    plural = "clusters",
    shortname = "mcl",
    category = "millrace",
    namespaced,
    status = "ClusterStatus",
    derive = "PartialEq",
    doc = "A Cluster is a subscription to a Cartridge: it keeps as many members of it running as are wanted.",
    scale(
        spec_replicas_path = ".spec.replicas",
        status_replicas_path = ".status.replicas",
        label_selector_path = ".status.selector"
    ),
    validation = schema::no_dots(),
    validation = schema::at_most(ClusterName::MAX),
    selectable = ".spec.cartridge.name",
    selectable = ".status.phase",
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status",
        description = "Whether all wanted members are active and up to date."),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase",
        description = "Where the cluster is in its life."),
    printcolumn(name = "Cartridge", type_ = "string", json_path = ".spec.cartridge.name",
        description = "What the cluster subscribes to."),
    printcolumn(name = "Members", type_ = "integer", json_path = ".status.replicas",
        description = "How many members there are."),
    printcolumn(name = "Active", type_ = "integer", json_path = ".status.activeReplicas",
        description = "How many of them serve."),
    printcolumn(name = "Address", type_ = "string", json_path = ".status.address", priority = 1,
        description = "Where the members are reached."),
    printcolumn(name = "Wanted", type_ = "integer", json_path = ".spec.replicas", priority = 1,
        description = "How many members are wished for, before `instances` limits it."),
    printcolumn(name = "Updated", type_ = "integer", json_path = ".status.updatedReplicas", priority = 1,
        description = "How many members are on the current revision."),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].reason",
        priority = 1, description = "Why the cluster is ready or not, in one word."),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].message",
        priority = 1, description = "Why the cluster is ready or not, and what to do about it."),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp",
        description = "How long ago the cluster was created.")
)]
#[x_kube(validation = schema::rule(
    "!has(self.placement) || !has(self.placement.partitions) || self.placement.partitions.size() == 0 || \
     !has(self.instances) || !has(self.instances.min) || !self.placement.partitions.all(p, has(p.max)) || \
     self.placement.partitions.map(p, p.max).sum() >= self.instances.min",
    "`placement.partitions` must have room for `instances.min` members: raise a `max`, or leave one out for no limit",
).field_path(".placement.partitions"))]
pub struct ClusterSpec {
    /// The cartridge that the members are of. It cannot be changed.
    #[x_kube(validation = (
        "self == oldSelf",
        "`cartridge` must stay as it is: the cluster must be recreated to subscribe to another one",
    ))]
    pub cartridge: CartridgeRef,
    /// Settings of the application, kept as they are; they must fit the cartridge's JSON schema. Members read
    /// them as JSON from a file, and text, numbers and booleans as environment variables `VALUE_NAME`.
    /// Absent: `{}`. Example: `{database: shop}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::anything")]
    pub values: Option<Map<String, Value>>,
    /// How many members are wanted; `kubectl scale` and autoscalers set it. A number outside of
    /// `instances.min` and `instances.max` is taken as the nearer of the two, never refused. Absent: 1.
    /// Example: `3`.
    #[serde(default = "one")]
    pub replicas: i32,
    /// The limits of `replicas`. Absent: from 0 to 10000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instances: Option<Instances>,
    /// Where the members run. Absent: anywhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub placement: Option<Placement>,
    /// How the members are reached. Absent: by a Service inside the Kubernetes cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load_balancer: Option<LoadBalancer>,
    /// Which clusters of this namespace satisfy the cartridge's imports. Absent: for each import the cluster
    /// of its name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub imports: Vec<Choice>,
    /// How members are replaced when their revision changes. Absent: one after another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub update: Option<Update>,
    /// Seconds after which a member on a node that has stopped answering is replaced; it leaves the load
    /// balancer at once. Absent: 300. Example: `60`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 86_400))]
    pub node_loss_seconds: Option<i32>,
}

/// What the schema says of `replicas` too: without it the `scale` subresource of a new object has nothing to
/// read.
const fn one() -> i32 {
    1
}

/// Which Cartridge is meant.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct CartridgeRef {
    /// Name of the Cartridge, for example `tomcat`.
    #[schemars(length(max = CartridgeName::MAX))]
    #[x_kube(validation = schema::dns_label("name", "tomcat"))]
    pub name: String,
    /// Namespace of the Cartridge, which must allow this one in `allowedNamespaces`. Absent: this namespace.
    /// Example: `catalogue`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = NamespaceName::MAX))]
    #[x_kube(validation = schema::dns_label("namespace", "catalogue"))]
    pub namespace: Option<String>,
}

/// The limits of a Cluster's members.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = schema::rule(
    "!has(self.min) || !has(self.max) || self.min <= self.max",
    "`min` must not be more than `max`",
).field_path(".min"))]
pub struct Instances {
    /// The fewest members, and how many must be active before the cluster is. Absent: 0, and one must be
    /// active. Example: `2`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 10_000))]
    pub min: Option<i32>,
    /// The most members. Absent: 10000, which is also the most. Example: `5`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10_000))]
    pub max: Option<i32>,
}

/// How the members of a Cluster are reached.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LoadBalancer {
    /// The type of the Service: `ClusterIP`, `NodePort` or `LoadBalancer`. Absent: `ClusterIP`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_type: Option<ServiceType>,
    /// Whether a client stays with its member: `ClientIP` or `None`. Absent: `None`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_affinity: Option<SessionAffinity>,
    /// Seconds between the moment a member leaves the load balancer and the end of its application, for the
    /// requests in flight. Absent: 30. Example: `10`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 3600))]
    pub drain_seconds: Option<i32>,
}

/// The type of a Service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = schema::undescribed)]
pub enum ServiceType {
    /// Reached inside the Kubernetes cluster.
    #[serde(rename = "ClusterIP")]
    ClusterIp,
    /// Reached on a port of every node too.
    NodePort,
    /// Reached by a load balancer of the provider too.
    LoadBalancer,
}

/// Whether a client stays with its member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = schema::undescribed)]
pub enum SessionAffinity {
    /// It does not.
    None,
    /// It does, by its address.
    #[serde(rename = "ClientIP")]
    ClientIp,
}

/// Which Cluster satisfies an import.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Choice {
    /// Name of the import in the cartridge, for example `mysql`.
    #[schemars(length(max = ClusterName::MAX))]
    #[x_kube(validation = schema::variable("name", "mysql"))]
    pub name: String,
    /// Name of the cluster that satisfies it, in this namespace. Example: `orders-db`.
    #[schemars(length(max = ClusterName::MAX))]
    #[x_kube(validation = schema::dns_label("cluster", "orders-db"))]
    pub cluster: String,
}

/// How members are replaced when their revision changes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Update {
    /// How many members may be missing at the same time: a number, or a share of the wanted ones such as
    /// `25%`, rounded down but at least one. Absent: 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "number_or_share")]
    pub max_unavailable: Option<IntOrString>,
}

/// At least one, or a share from 1% to 100%.
fn number_or_share(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "x-kubernetes-int-or-string": true,
        "maxLength": 4,
        "x-kubernetes-validations": [schema::rule(
            "type(self) == int ? self >= 1 : self.matches('^([1-9][0-9]?|100)%$')",
            "`maxUnavailable` must be a number of at least 1, or a share from `1%` to `100%`",
        )],
    })
}

/// What a Cluster is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClusterStatus {
    /// The `metadata.generation` that this status is about; -1 until the operator has seen the cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Where the cluster is in its life, in one word for people. Programs read `conditions`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<ClusterPhase>,
    /// What is known of the cluster, by type: `Ready`, and while they hold `Reconciling` and `Stalled`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
    /// The moves of the phase, counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::transitions")]
    pub transitions: Option<Transitions>,
    /// How many members there are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub replicas: Option<i32>,
    /// The label selector of the members' pods, as text; autoscalers read it. Example:
    /// `millrace.dev/cluster=tomcat`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub selector: Option<String>,
    /// Where the members are reached: the name of the cluster's Service, as it is resolved inside the Kubernetes
    /// cluster. Absent: the cartridge has no ports. Example: `tomcat-7wq5xk2hbn4a.shop.svc`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub address: Option<String>,
    /// How many members are active: they serve.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub active_replicas: Option<i32>,
    /// How many members are on the current revision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub updated_replicas: Option<i32>,
    /// Name of the ControllerRevision that members should be on: the cartridge and the values as they were
    /// accepted last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub current_revision: Option<String>,
    /// When the cluster was active for the first time, to the second. Absent: never yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "time")]
    pub first_active_time: Option<Time>,
    /// Name of the Secret with the subscription key, which is made once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub subscription_secret: Option<String>,
}

/// A moment, to the second.
fn time(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "format": "date-time" })
}
