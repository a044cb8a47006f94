//! What a Flow's node and a Cartridge both say of their container.
//!
//! The types are our own and not those of a Pod: theirs rewrite what the user wrote (`0.1` becomes `100m`),
//! which GitOps tools then report as a difference, and none of their lists is bounded.
#![allow(clippy::struct_field_names, reason = "the names are those of a pod's `valueFrom`")]

use std::borrow::Cow;
use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::KubeSchema;
use kube::core::Rule;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use super::schema;

/// One environment variable.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "!has(self.value) || !has(self.valueFrom)",
    "an environment variable must have `value` or `valueFrom`, and not both",
))]
pub struct EnvVar {
    /// Name of the variable, for example `LOG_LEVEL`.
    #[schemars(length(max = 63))]
    #[x_kube(validation = (
        "self.matches('^[A-Za-z_][A-Za-z0-9_.-]*$')",
        "`name` of an environment variable must begin with a letter or `_` and hold only letters, digits, `_`, `-` \
         and `.`, such as `LOG_LEVEL`",
    ))]
    #[x_kube(validation = (
        "!self.startsWith('MILLRACE_')",
        "`name` of an environment variable must not begin with `MILLRACE_`: Millrace sets those itself",
    ))]
    pub name: String,
    /// The value itself. Absent: that of `valueFrom`, or nothing: the variable is there and empty. Example:
    /// `debug`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4096))]
    pub value: Option<String>,
    /// Where the value comes from instead. Absent: `value` is meant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value_from: Option<EnvSource>,
}

/// Where the value of an environment variable comes from.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "[has(self.secretKeyRef), has(self.configMapKeyRef), has(self.fieldRef)].filter(given, given).size() == 1",
    "`valueFrom` must have exactly one of `secretKeyRef`, `configMapKeyRef` and `fieldRef`",
))]
pub struct EnvSource {
    /// A key of a Secret in the namespace where the pod runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_key_ref: Option<KeyRef>,
    /// A key of a ConfigMap in the namespace where the pod runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_map_key_ref: Option<KeyRef>,
    /// A field of the pod itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field_ref: Option<FieldRef>,
}

/// One key of a Secret or ConfigMap.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct KeyRef {
    /// Name of the Secret or ConfigMap, for example `mysql`.
    #[schemars(length(max = 253))]
    #[x_kube(validation = schema::object_name("name", "a Secret or ConfigMap"))]
    pub name: String,
    /// The key in it, for example `password`.
    #[schemars(length(max = 253))]
    #[x_kube(validation = (
        "self.matches('^[A-Za-z0-9_.-]+$') && self != '.' && !self.startsWith('..')",
        "`key` must hold only letters, digits, `_`, `-` and `.`, such as `password`, and not begin with `..`",
    ))]
    pub key: String,
}

/// A field of the pod.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct FieldRef {
    /// Path of the field, for example `status.podIP`, `metadata.name` or `metadata.labels['tier']`.
    #[schemars(length(max = 200))]
    #[x_kube(validation = (
        "self.matches(\"^(metadata[.](name|namespace|uid)|metadata[.](labels|annotations)[[]'[^']+'[]]|\
         spec[.](nodeName|serviceAccountName)|status[.](hostIPs?|podIPs?))$\")",
        "`fieldPath` must be a field that Kubernetes gives to containers, such as `status.podIP` or `metadata.name`",
    ))]
    pub field_path: String,
}

/// Another object of the same namespace.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct LocalRef {
    /// Name of the object, for example `registry`.
    #[schemars(length(max = 253))]
    #[x_kube(validation = schema::object_name("name", "an object in this namespace"))]
    pub name: String,
}

/// What the container may use.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
// Silent where an amount is wrong by itself.
#[x_kube(validation = schema::rule(
    "!has(self.requests) || !has(self.limits) || self.requests.all(r, !(r in self.limits) || \
     !isQuantity(string(self.requests[r])) || !isQuantity(string(self.limits[r])) || \
     quantity(string(self.requests[r])).compareTo(quantity(string(self.limits[r]))) <= 0)",
    "`requests` must not be more than `limits`",
).field_path(".requests"))]
pub struct Resources {
    /// What the container is sure to get, by resource. Absent: as much as `limits`, or nothing.
    /// Example: `{cpu: 100m, memory: 64Mi}`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 16))]
    #[x_kube(validation = resource_names("requests"))]
    pub requests: BTreeMap<String, Quantity>,
    /// What the container can never exceed, by resource. Absent: no limit. Example: `{memory: 128Mi}`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 16))]
    #[x_kube(validation = resource_names("limits"))]
    pub limits: BTreeMap<String, Quantity>,
}

/// What a container may ask for, so that a misspelt name is not found out by the pod.
fn resource_names(field: &str) -> Rule {
    schema::rule(
        "self.all(r, r in ['cpu', 'memory', 'ephemeral-storage'] || r.startsWith('hugepages-') || \
         r.matches('^[a-z0-9.-]+/[A-Za-z0-9_.-]+$'))",
        format!(
            "`{field}` must hold `cpu`, `memory`, `ephemeral-storage`, `hugepages-…` or a device such as \
             `example.com/gpu`"
        ),
    )
}

/// An amount of a resource, kept as the user wrote it: `100m`, `64Mi`, `2`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Quantity(pub IntOrString);

impl JsonSchema for Quantity {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Quantity".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "x-kubernetes-int-or-string": true,
            "maxLength": 32,
            "x-kubernetes-validations": [schema::rule(
                "type(self) == int ? self >= 0 : isQuantity(self) && !quantity(self).isLessThan(quantity('0'))",
                "a resource must be a quantity of zero or more, such as `100m`, `64Mi`, `2` or, in quotes, `\"0.5\"`",
            )],
        })
    }
}

/// A check that the container is well.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "[has(self.httpGet), has(self.tcpSocket), has(self.exec)].filter(given, given).size() == 1",
    "a probe must have exactly one of `httpGet`, `tcpSocket` and `exec`",
))]
pub struct Probe {
    /// Passes when this request is answered with a status from 200 to 399.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http_get: Option<HttpGet>,
    /// Passes when this port accepts a connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp_socket: Option<TcpSocket>,
    /// Passes when this command, run in the container, exits with 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exec: Option<Exec>,
    /// Seconds from the start of the application to the first check. Absent: 0. Example: `5`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 3600))]
    pub initial_delay_seconds: Option<i32>,
    /// Seconds between two checks. Absent: 10. Example: `2`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 3600))]
    pub period_seconds: Option<i32>,
    /// Seconds after which a check without an answer has failed. Absent: 1. Example: `3`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 3600))]
    pub timeout_seconds: Option<i32>,
    /// How many checks in a row must pass before the probe passes again. Absent: 1. Example: `2`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub success_threshold: Option<i32>,
    /// How many checks in a row must fail before the probe fails. Absent: 3. Example: `30`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub failure_threshold: Option<i32>,
}

/// A request to the container.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct HttpGet {
    /// Path of the request. Absent: `/`. Example: `/healthz`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    #[x_kube(validation = ("self.startsWith('/')", "`path` must begin with `/`, such as `/healthz`"))]
    pub path: Option<String>,
    /// Number of the port. Example: `8080`.
    #[schemars(range(min = 1, max = 65535))]
    pub port: u16,
}

/// A connection to the container.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TcpSocket {
    /// Number of the port. Example: `3306`.
    #[schemars(range(min = 1, max = 65535))]
    pub port: u16,
}

/// A command in the container.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Exec {
    /// The program and its arguments. No shell is added. Example: `[sh, -c, "apachectl graceful"]`.
    #[schemars(length(min = 1, max = 64), inner(length(max = 4096)))]
    #[x_kube(validation = schema::command())]
    pub command: Vec<String>,
}
