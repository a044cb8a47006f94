//! An Instance: one member of a Cluster, an application on its own, or a record.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema, Resource as _, ResourceExt as _};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::cartridge::exchange::Exported;
use super::cluster::{CartridgeRef, Cluster};
use super::name::{ClusterName, InstanceName};
use super::schema;
use super::transition::Transitions;
use phase::InstancePhase;

pub mod phase;

/// What keeps an Instance from going before its application is stopped, and its last transition is told.
pub const FINALIZER: &str = "millrace.dev/stop";

/// What an Instance should be.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, CustomResource, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[kube(
    group = "millrace.dev",
    version = "v1alpha1",
    kind = "Instance",
    plural = "instances",
    shortname = "inst",
    category = "millrace",
    namespaced,
    status = "InstanceStatus",
    derive = "PartialEq",
    doc = "An Instance is one member of a Cluster, an application of its own, or, where the Cartridge has no image, a \
           record: values without a pod.",
    validation = schema::no_dots(),
    validation = schema::at_most(InstanceName::MAX),
    selectable = ".spec.cartridge.name",
    selectable = ".spec.cluster",
    selectable = ".status.phase",
    selectable = ".status.node",
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status",
        description = "Whether the instance does what it should; stopped by wish is ready too."),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase",
        description = "Where the instance is in its life."),
    printcolumn(name = "Cartridge", type_ = "string", json_path = ".spec.cartridge.name",
        description = "What the instance is of."),
    printcolumn(name = "Cluster", type_ = "string", json_path = ".spec.cluster",
        description = "The cluster that it is a member of."),
    printcolumn(name = "Desired", type_ = "string", json_path = ".spec.desired", priority = 1,
        description = "What it should be, where that is not `Started`."),
    printcolumn(name = "IP", type_ = "string", json_path = ".status.addresses[0]", priority = 1,
        description = "Its first address."),
    printcolumn(name = "Node", type_ = "string", json_path = ".status.node", priority = 1,
        description = "Where its pod runs."),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].reason",
        priority = 1, description = "Why the instance is ready or not, in one word."),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].message",
        priority = 1, description = "Why the instance is ready or not, and what to do about it."),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp",
        description = "How long ago the instance was created.")
)]
#[x_kube(validation = schema::rule(
    "has(self.cluster) == has(oldSelf.cluster) && (!has(self.cluster) || self.cluster == oldSelf.cluster)",
    "`cluster` must stay as it is: the instance must be recreated to join or leave a cluster",
).field_path(".cluster"))]
#[x_kube(validation = schema::needs("partition", "cluster", "a partition is a part of a cluster's `placement`"))]
pub struct InstanceSpec {
    /// The cartridge that the instance is of. It cannot be changed.
    #[x_kube(validation = (
        "self == oldSelf",
        "`cartridge` must stay as it is: the instance must be recreated to be of another one",
    ))]
    pub cartridge: CartridgeRef,
    /// Name of the cluster, in this namespace, that the instance is a member of. It cannot be changed. The
    /// operator sets it for the members that it makes. Absent: the instance is of no cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = ClusterName::MAX))]
    #[x_kube(validation = schema::dns_label("cluster", "tomcat"))]
    pub cluster: Option<String>,
    /// Name of the partition of the cluster that the member runs in. Absent: the cluster has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    #[x_kube(validation = schema::dns_label("partition", "east"))]
    pub partition: Option<String>,
    /// Name of the ControllerRevision that the member should be on. Absent: the cartridge as it is now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    #[x_kube(validation = schema::object_name("revision", "a ControllerRevision"))]
    pub revision: Option<String>,
    /// The content of a record or the settings of an application, kept as they are; they must fit the
    /// cartridge's JSON schema. Absent: `{}`. Example: `{serial: "0815", model: X3}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::anything")]
    pub values: Option<Map<String, Value>>,
    /// What the instance should be. `Started`: running and serving; `Maintenance`: running, out of the load
    /// balancer; `Stopped`: the application does not run; `NotDeployed`: there is no pod. Absent: `Started`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub desired: Option<Desired>,
}

/// What an Instance should be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = schema::undescribed)]
pub enum Desired {
    /// The application runs and serves.
    #[default]
    Started,
    /// The application does not run.
    Stopped,
    /// There is no pod.
    NotDeployed,
    /// The application runs and is out of the load balancer.
    Maintenance,
}

/// What an Instance is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct InstanceStatus {
    /// The `metadata.generation` that this status is about; -1 until the operator has seen the instance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Where the instance is in its life, in one word for people. Programs read `conditions`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<InstancePhase>,
    /// What is known of the instance, by type: `Ready`, `ImportsResolved`, `Started`, `Serving`, and while
    /// they hold `Reconciling` and `Stalled`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
    /// The moves of the phase, counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::transitions")]
    pub transitions: Option<Transitions>,
    /// What the instance imports, by import, and from how many members.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub imports: Vec<Imported>,
    /// What the instance exports. A secret value is never here, only where it is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub exports: Vec<Exported>,
    /// Name of its pod. Absent: it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub pod: Option<String>,
    /// Name of the node that the pod runs on. Absent: none yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub node: Option<String>,
    /// The addresses of the pod, its first one first. Absent: none yet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4), inner(length(max = 45)))]
    pub addresses: Vec<String>,
    /// Name of the ControllerRevision that the pod runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub revision: Option<String>,
}

/// What an Instance gets by one import.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Imported {
    /// Name of the import in the cartridge.
    #[schemars(length(max = ClusterName::MAX))]
    pub name: String,
    /// Name of the cluster that satisfies it. Absent: none does yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = ClusterName::MAX))]
    pub cluster: Option<String>,
    /// How many members export what is needed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub members: Option<i32>,
}

/// The name and uid of the Cluster that an Instance is a member of: it is one only by its owner reference.
#[must_use]
pub fn member_of(instance: &Instance) -> Option<(String, String)> {
    let owner = instance.owner_references().iter().find(|owner| owner.controller == Some(true))?;
    let cluster = owner.kind == "Cluster" && owner.api_version == Cluster::api_version(&());
    let named = instance.spec.cluster.as_deref() == Some(owner.name.as_str());
    (cluster && named).then(|| (owner.name.clone(), owner.uid.clone()))
}
