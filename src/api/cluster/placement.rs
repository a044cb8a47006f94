//! Where the members of a Cluster run.

use std::collections::BTreeMap;

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::api::schema;

/// Where the members of a Cluster run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Placement {
    /// How a partition is chosen for a new member. `RoundRobin`: the one with the fewest members;
    /// `OneAfterAnother`: the first of the list that is not full. Absent: `RoundRobin`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub algorithm: Option<Algorithm>,
    /// The parts of the Kubernetes cluster that members may run in, in order. Absent: anywhere.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub partitions: Vec<Partition>,
}

/// How a partition is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = schema::undescribed)]
pub enum Algorithm {
    /// The one with the fewest members.
    RoundRobin,
    /// The first of the list that is not full.
    OneAfterAnother,
}

/// A part of the Kubernetes cluster.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Partition {
    /// Name of the partition, a DNS label, for example `east`.
    #[schemars(length(max = 63))]
    #[x_kube(validation = schema::dns_label("name", "east"))]
    pub name: String,
    /// The most members in this partition; 0 takes no new ones. Absent: no limit. Example: `3`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 10_000))]
    pub max: Option<i32>,
    /// Labels that a node must have. Absent: any node. Example: `{disk: ssd}`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::string_map")]
    #[x_kube(validation = (
        "self.all(k, k.matches('^([a-z0-9.-]{1,253}/)?[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?$') && \
         self[k].matches('^([A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?)?$'))",
        "`nodeSelector` must hold labels of nodes, such as `disk: ssd`",
    ))]
    pub node_selector: BTreeMap<String, String>,
    /// The zone that a node must be in: its label `topology.kubernetes.io/zone`. Absent: any zone. Example:
    /// `eu-west-1a`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    #[x_kube(validation = (
        "self.matches('^[A-Za-z0-9]([A-Za-z0-9_.-]*[A-Za-z0-9])?$')",
        "`zone` must be a value of the nodes' label `topology.kubernetes.io/zone`, such as `eu-west-1a`",
    ))]
    pub zone: Option<String>,
    /// The taints of nodes that members bear, as in a pod. Absent: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub tolerations: Vec<Toleration>,
}

/// A taint that members bear.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "has(self.key) || (has(self.operator) && self.operator == 'Exists')",
    "`operator` of a toleration must be `Exists` where `key` is left out",
))]
#[x_kube(validation = schema::rule(
    "!has(self.operator) || self.operator != 'Exists' || !has(self.value)",
    "`value` of a toleration must be left out where `operator` is `Exists`",
).field_path(".value"))]
#[x_kube(validation = schema::rule(
    "!has(self.tolerationSeconds) || (has(self.effect) && self.effect == 'NoExecute')",
    "`tolerationSeconds` of a toleration must be left out, or `effect` must be `NoExecute`",
).field_path(".tolerationSeconds"))]
pub struct Toleration {
    /// Key of the taint. Absent: every key, with `operator: Exists`. Example: `dedicated`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 317))]
    #[x_kube(validation = (
        "self.matches('^([a-z0-9.-]{1,253}/)?[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?$')",
        "`key` of a toleration must be the key of a taint, such as `dedicated`",
    ))]
    pub key: Option<String>,
    /// How the taint's value is compared: `Equal` or `Exists`. Absent: `Equal`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operator: Option<Operator>,
    /// Value of the taint. Absent: the empty value. Example: `orders`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    #[x_kube(validation = (
        "self.matches('^([A-Za-z0-9]([A-Za-z0-9_.-]*[A-Za-z0-9])?)?$')",
        "`value` of a toleration must be the value of a taint, such as `orders`",
    ))]
    pub value: Option<String>,
    /// The effect that is borne: `NoSchedule`, `PreferNoSchedule` or `NoExecute`. Absent: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effect: Option<Effect>,
    /// Seconds that a `NoExecute` taint is borne. Absent: for ever. Example: `60`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub toleration_seconds: Option<i64>,
}

/// How a toleration compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = schema::undescribed)]
pub enum Operator {
    /// Key and value are the same.
    Equal,
    /// The key is there.
    Exists,
}

/// What a taint does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = schema::undescribed)]
pub enum Effect {
    /// No new pods.
    NoSchedule,
    /// Rather no new pods.
    PreferNoSchedule,
    /// No pods at all.
    NoExecute,
}
