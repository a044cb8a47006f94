//! A Flow: a graph of components and built-ins that a trigger sends messages through.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::name::{FlowName, NodeId};
use super::schema;
use super::transition::Transitions;
use node::Node;
use phase::FlowPhase;
use trigger::Trigger;

pub mod graph;
pub mod node;
pub mod phase;
pub mod route;
pub mod trigger;

/// What a Flow should be.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, CustomResource, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[kube(
    group = "millrace.dev",
    version = "v1alpha1",
    kind = "Flow",
    plural = "flows",
    shortname = "fl",
    category = "millrace",
    namespaced,
    status = "FlowStatus",
    derive = "PartialEq",
    doc = "A Flow sends messages through a graph of nodes: a trigger makes them, each node is a container or a built-in.",
    validation = schema::no_dots(),
    validation = schema::at_most(FlowName::MAX),
    selectable = ".spec.suspend",
    selectable = ".status.phase",
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status",
        description = "Whether the flow does what it should; inactive by wish is ready too."),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase",
        description = "Where the flow is between start and stop."),
    printcolumn(name = "Schedule", type_ = "string", json_path = ".spec.trigger.cron.schedule",
        description = "When a flow with a cron trigger runs."),
    printcolumn(name = "Methods", type_ = "string", json_path = ".spec.trigger.webhook.methods",
        description = "Which requests start a flow with a webhook."),
    printcolumn(name = "Zone", type_ = "string", json_path = ".spec.trigger.cron.timeZone", priority = 1,
        description = "Time zone of the schedule."),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].reason",
        priority = 1, description = "Why the flow is ready or not, in one word."),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].message",
        priority = 1, description = "Why the flow is ready or not, and what to do about it."),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp",
        description = "How long ago the flow was created.")
)]
pub struct FlowSpec {
    /// Whether the flow is stopped: no trigger fires, what is queued is worked off within `drainSeconds`,
    /// then the pods go. Absent: false, the flow runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspend: Option<bool>,
    /// What starts a run of the flow: exactly one of `cron` and `webhook`.
    pub trigger: Trigger,
    /// The nodes of the flow and the edges between them.
    pub graph: Graph,
    /// Seconds that a start or a change may take, before the flow counts as failed. Absent: 600.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 86_400))]
    pub progress_deadline_seconds: Option<i32>,
    /// Seconds for what is queued or being worked on, when the flow is suspended or deleted or a node is
    /// removed; what is left then becomes dead letters. Absent: 300. Example: `0`, at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 86_400))]
    pub drain_seconds: Option<i32>,
}

/// The nodes of a flow and the edges between them.
//
// The rules look in a list that is made once, bound by a list of one: it costs the server a tenth of looking through
// the nodes' objects for each edge, and the server pays at every write, of a status too.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = schema::rule(
    "!has(self.edges) || [self.nodes.map(n, n.id)].all(ids, self.edges.all(e, e.source in ids))",
    "`edges` must have the `id` of a node as their `source`: at least one names a node that is not in `nodes`",
).field_path(".edges"))]
#[x_kube(validation = schema::rule(
    "!has(self.edges) || [self.nodes.map(n, n.id)].all(ids, self.edges.all(e, e.target in ids))",
    "`edges` must have the `id` of a node as their `target`: at least one names a node that is not in `nodes`",
).field_path(".edges"))]
#[x_kube(validation = (
    "self.nodes.size() == 0 || [has(self.edges) ? self.edges.map(e, e.target) : []].all(targets, \
     self.nodes.filter(n, !(n.id in targets)).size() == 1)",
    "`graph` must have exactly one entry node: all `nodes` but one must be the `target` of an edge",
))]
pub struct Graph {
    /// The steps of the flow. The one that no edge points at gets what the trigger makes.
    #[schemars(length(min = 1, max = 100))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["id".into()]))]
    pub nodes: Vec<Node>,
    /// What goes where: each message that a node gives goes along all of its edges whose condition holds.
    /// Absent: the flow is one node.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 200))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["source".into(), "target".into()]))]
    pub edges: Vec<Edge>,
}

/// A way from one node to another.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "self.source != self.target",
    "`target` must be another node than `source`: a node cannot send messages to itself",
))]
pub struct Edge {
    /// The `id` of the node that gives the messages, for example `fetch`.
    #[schemars(length(max = NodeId::MAX))]
    pub source: String,
    /// The `id` of the node that gets them, for example `store`.
    #[schemars(length(max = NodeId::MAX))]
    pub target: String,
    /// Which messages go this way: a filter on the message, kept as it is. Absent: all. Example:
    /// `{range: {"body.total": {gt: 100}}}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::anything")]
    pub condition: Option<Map<String, Value>>,
    /// How a message changes on its way, after `condition`. Absent: it stays as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transform: Option<Transform>,
}

/// How a message changes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Transform {
    /// A jq expression: it gets the whole message and gives the new one. Example: `{body: {total:
    /// .body.sum}}`.
    #[schemars(length(min = 1, max = 2048))]
    pub jq: String,
}

/// What a Flow is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FlowStatus {
    /// The `metadata.generation` that this status is about; -1 until the operator has seen the flow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Where the flow is between start and stop, in one word for people. Programs read `conditions`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<FlowPhase>,
    /// What is known of the flow, by type: `Ready`, `Accepted`, `NodesReady`, `TriggerArmed`, `Drained`, and
    /// while they hold `Reconciling`, `Stalled` and `DeadLetters`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
    /// The moves of the phase, counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::transitions")]
    pub transitions: Option<Transitions>,
    /// The node that gets what the trigger makes, of the spec that was accepted last. Absent: none was yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = NodeId::MAX))]
    pub entry: Option<String>,
    /// A hash of the trigger that is armed. Absent: none is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub armed_trigger: Option<String>,
}
