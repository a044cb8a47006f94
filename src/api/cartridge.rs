//! A Cartridge: a type of application, or of record, that others subscribe to.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::core::Rule;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::container::{EnvVar, Probe, Resources};
use super::name::{CartridgeName, NamespaceName};
use super::schema;
use super::transition::Transitions;
use exchange::{Export, Import};
use lifecycle::Lifecycle;
use phase::CartridgePhase;

pub mod exchange;
pub mod lifecycle;
pub mod phase;

/// What a Cartridge should be.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, CustomResource, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[kube(
    group = "millrace.dev",
    version = "v1alpha1",
    kind = "Cartridge",
    plural = "cartridges",
    shortname = "cart",
    category = "millrace",
    namespaced,
    status = "CartridgeStatus",
    derive = "PartialEq",
    doc = "A Cartridge is a type of application: an image, what its members export and import, and how they live. \
           Without an image it is a type of record, whose Instances hold values and have no pod.",
    validation = schema::no_dots(),
    validation = schema::at_most(CartridgeName::MAX),
    validation = schema::rule(
        "!has(self.spec.imports) || self.spec.imports.all(i, i.cartridge != self.metadata.name || \
         (has(i.optional) && i.optional))",
        "`imports` must say `optional: true` where a cartridge imports from itself, or its first member would wait for \
         itself",
    ).field_path(".spec.imports"),
    selectable = ".status.phase",
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status",
        description = "Whether the cartridge can be subscribed to."),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase",
        description = "Whether the cartridge is accepted."),
    printcolumn(name = "Users", type_ = "integer", json_path = ".status.users",
        description = "How many Clusters and Instances use the cartridge."),
    printcolumn(name = "Image", type_ = "string", json_path = ".spec.image", priority = 1,
        description = "What the members run; a record type has none."),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].reason",
        priority = 1, description = "Why the cartridge is ready or not, in one word."),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].message",
        priority = 1, description = "Why the cartridge is ready or not, and what to do about it."),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp",
        description = "How long ago the cartridge was created.")
)]
#[x_kube(validation = of_applications("command"))]
#[x_kube(validation = of_applications("args"))]
#[x_kube(validation = of_applications("env"))]
#[x_kube(validation = of_applications("ports"))]
#[x_kube(validation = of_applications("resources"))]
#[x_kube(validation = of_applications("probes"))]
#[x_kube(validation = of_applications("podTemplate"))]
#[x_kube(validation = of_applications("imports"))]
#[x_kube(validation = of_applications("lifecycle"))]
#[x_kube(validation = exchange::no_collision_with_env())]
#[x_kube(validation = schema::rule(
    "has(self.image) || !has(self.exports) || self.exports.all(e, has(e.value))",
    "`exports` must each have a fixed `value`, or `image` must be given: without an image there is no member with an \
     address, a port or a Secret",
).field_path(".exports"))]
#[x_kube(validation = schema::rule(
    "!has(self.image) || !has(self.exports) || self.exports.all(e, !has(e.port) || \
     (has(self.ports) && self.ports.exists(p, p.name == e.port)))",
    "`exports` must name in `port` a port of `ports`: at least one names a port that is not there",
).field_path(".exports"))]
#[x_kube(validation = schema::rule(
    "!has(self.image) || has(self.command) || !has(self.lifecycle) || \
     ((!has(self.lifecycle.start) || !has(self.lifecycle.start.exec)) && \
      (!has(self.lifecycle.update) || !has(self.lifecycle.update.exec)) && \
      (!has(self.lifecycle.stop) || !has(self.lifecycle.stop.exec)))",
    "`lifecycle` must use `httpGet`, or `command` must be given: only an application that Millrace starts by its \
     `command` can be made to run an `exec` hook",
).field_path(".lifecycle"))]
pub struct CartridgeSpec {
    /// The container image of the application, for example `tomcat:10.1`. Absent: the cartridge is a type of
    /// record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    #[x_kube(validation = schema::image())]
    pub image: Option<String>,
    /// The program that starts the application, instead of the image's. With it the start waits for imports,
    /// exec hooks work, and the application can be stopped without its pod. Absent: the image's own program
    /// runs, and imports are files only. Example: `[catalina.sh, run]`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 64), inner(length(max = 4096)))]
    #[x_kube(validation = schema::command())]
    pub command: Vec<String>,
    /// The arguments of the program. Absent: those of the image, or none where `command` is given. Example:
    /// `[--verbose]`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 4096)))]
    pub args: Vec<String>,
    /// Environment variables of the application. Absent: only those that Millrace sets.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    #[x_kube(validation = (
        "self.all(e, !e.name.startsWith('VALUE_'))",
        "`env` must not hold a name that begins with `VALUE_`: the environment variables of `values` begin so",
    ))]
    pub env: Vec<EnvVar>,
    /// The ports of the application. A member is active only while each TCP port accepts connections, and the
    /// load balancer serves them all. Absent: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    #[x_kube(validation = (
        "self.all(p, self.filter(q, q.port == p.port && \
         (has(q.protocol) ? q.protocol : 'TCP') == (has(p.protocol) ? p.protocol : 'TCP')).size() == 1)",
        "`ports` must differ in `port` or `protocol`: a number is there twice for the same protocol",
    ))]
    pub ports: Vec<Port>,
    /// CPU and memory of the application. Absent: what the namespace gives by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
    /// How to see that the application is well. Absent: its ports are checked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probes: Option<Probes>,
    /// Anything else of the pod, as in a Deployment's `template`, merged over the member's pod; Millrace's
    /// own containers cannot be changed. Absent: nothing. Example: `{spec: {nodeSelector: {disk: ssd}}}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::anything")]
    pub pod_template: Option<Map<String, Value>>,
    /// What each member gives to those that import from this cartridge. Absent: nothing but its name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub exports: Vec<Export>,
    /// What each member needs from members of other cartridges before it starts. Absent: nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    #[x_kube(validation = exchange::no_collision())]
    pub imports: Vec<Import>,
    /// A JSON schema that the `values` of Clusters and Instances must fit, kept as it is. Absent: any values
    /// fit. Example: `{type: object, required: [serial], properties: {serial: {type: string}}}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::anything")]
    pub values: Option<Map<String, Value>>,
    /// What runs when a member starts, when its imports or values change, and before it stops. Absent:
    /// nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lifecycle: Option<Lifecycle>,
    /// The namespaces that may subscribe beside the cartridge's own; `*` alone means all. Absent: none.
    /// Example: `[shop, crm]`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), inner(length(max = NamespaceName::MAX)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    #[x_kube(validation = (
        "self.all(n, n == '*' || n.matches('^[a-z0-9]([a-z0-9-]*[a-z0-9])?$'))",
        "`allowedNamespaces` must hold names of namespaces, such as `shop`, or `*` alone; patterns do not work",
    ))]
    #[x_kube(validation = (
        "!('*' in self) || self.size() == 1",
        "`allowedNamespaces` must be `*` alone or names without `*`, which would allow all of them anyway",
    ))]
    pub allowed_namespaces: Vec<String>,
}

/// A field for which a Cartridge needs an image.
fn of_applications(field: &str) -> Rule {
    schema::needs(field, "image", "a record type has no pod, only `values` and fixed `exports`")
}

/// A port of the application.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Port {
    /// Name of the port, as in a Service: at most 15 lower-case letters, digits and `-`, with a letter in it.
    /// Exports and load balancers name it. Example: `http`.
    #[schemars(length(max = 15))]
    #[x_kube(validation = (
        "self.matches('^[a-z0-9]+(-[a-z0-9]+)*$') && self.matches('[a-z]')",
        "`name` of a port must be lower-case letters, digits and single `-` inside, with at least one letter, such as \
         `http`",
    ))]
    pub name: String,
    /// Number of the port in the container, from 1 to 65535. Example: `8080`.
    #[schemars(range(min = 1, max = 65535))]
    pub port: u16,
    /// The protocol of the port. Absent: `TCP`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<Protocol>,
}

/// The protocol of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
#[schemars(transform = schema::undescribed)]
pub enum Protocol {
    /// Checked by connecting.
    Tcp,
    /// Not checked.
    Udp,
    /// Not checked.
    Sctp,
}

/// How to see that an application is well.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = one_success("startup"))]
#[x_kube(validation = one_success("liveness"))]
pub struct Probes {
    /// Passes once the application is up; the other probes wait for it. Absent: it is up when its process
    /// runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub startup: Option<Probe>,
    /// Restarts the application when it fails. Absent: it is restarted when its process ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub liveness: Option<Probe>,
    /// Takes the member out of the load balancer while it fails. Absent: only the ports are checked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub readiness: Option<Probe>,
}

/// What Kubernetes asks of these probes, for it is what runs them where the application is not started by Millrace. Silent
/// where the number is wrong by itself.
fn one_success(probe: &str) -> Rule {
    let number = format!("self.{probe}.successThreshold");
    schema::rule(
        format!("!has(self.{probe}) || !has({number}) || {number} < 2 || {number} > 1000"),
        format!("`successThreshold` must be 1 or left out in `{probe}`: only `readiness` can wait for more"),
    )
    .field_path(format!(".{probe}.successThreshold"))
}

/// What a Cartridge is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CartridgeStatus {
    /// The `metadata.generation` that this status is about; -1 until the operator has seen the cartridge.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Whether the cartridge is accepted, in one word for people. Programs read `conditions`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<CartridgePhase>,
    /// What is known of the cartridge, by type: `Ready`, `Accepted`, and while they hold `Reconciling` and
    /// `Stalled`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
    /// The moves of the phase, counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::transitions")]
    pub transitions: Option<Transitions>,
    /// How many Clusters, and Instances without a Cluster, use the cartridge, in all namespaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub users: Option<i32>,
    /// The first of those users by namespace and name, at most 20. Whoever may read the cartridge sees here
    /// the namespaces and names of those who use it, also those that they could not list.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20))]
    pub used_by: Vec<User>,
}

/// Who uses a Cartridge.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct User {
    /// `Cluster` or `Instance`.
    #[schemars(length(max = 63))]
    pub kind: String,
    /// Namespace of the user.
    #[schemars(length(max = 63))]
    pub namespace: String,
    /// Name of the user.
    #[schemars(length(max = 63))]
    pub name: String,
}
