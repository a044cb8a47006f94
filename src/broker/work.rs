//! What the operator tells those who move messages, and what they answer.
//!
//! The sidecar of an image node reads its [`NodeWork`] from its pod's environment; a runner reads the [`FlowWork`] of each
//! Flow in its namespace from the bucket `desired`, and answers with [`Loaded`] in `observed`. Unknown fields are ignored
//! and new ones have defaults, so that operator and pods may differ by a version.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::api::name::NodeId;

/// What one node of a Flow does with messages.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeWork {
    /// Which node it is.
    pub id: NodeId,
    /// Who handles the messages.
    pub handler: Handler,
    /// The edges along which goes what comes out; none where the flow ends.
    #[serde(default)]
    pub targets: Vec<Target>,
    /// How often a message may fail for a reason that may pass.
    pub retry: RetryPolicy,
    /// How long one attempt may take, in milliseconds.
    pub timeout_millis: u64,
    /// How many messages one pump handles at a time.
    pub in_flight: u32,
}

impl NodeWork {
    /// How long one attempt may take.
    #[must_use]
    pub const fn timeout(&self) -> Duration {
        Duration::from_millis(self.timeout_millis)
    }
}

/// An edge to a node that gets what comes out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Target {
    /// The node.
    pub node: NodeId,
    /// A filter: which messages go this way. Absent: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub condition: Option<Map<String, Value>>,
    /// A jq expression: what becomes of a message on its way. Absent: it stays as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transform: Option<String>,
}

impl Target {
    /// An edge along which everything goes as it is.
    #[must_use]
    pub const fn plain(node: NodeId) -> Self {
        Self { node, condition: None, transform: None }
    }
}

/// Who handles the messages of a node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Handler {
    /// A component that listens in the same pod, on 127.0.0.1.
    #[serde(rename_all = "camelCase")]
    Component {
        /// Where it listens.
        port: u16,
        /// The path that messages are posted to, with its `/`.
        path: String,
    },
    /// A built-in, in the runner.
    #[serde(rename_all = "camelCase")]
    Builtin {
        /// Its name, such as `transform`.
        name: String,
        /// Its settings.
        #[serde(default)]
        fields: Map<String, Value>,
    },
}

/// What happens to a message that a node failed to handle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RetryPolicy {
    /// Attempts after the first.
    pub limit: u32,
    /// The pause before the second attempt, in milliseconds; each later one is twice as long.
    pub backoff_millis: u64,
    /// The longest pause, in milliseconds.
    #[serde(default = "longest_pause")]
    pub max_backoff_millis: u64,
}

/// The longest pause where nobody says: five minutes.
const fn longest_pause() -> u64 {
    300_000
}

/// The built-in nodes of one Flow.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FlowWork {
    /// The uid of the Flow: one that was made anew under the same name is another Flow.
    pub uid: String,
    /// Names this content; the runner repeats it in its answer.
    pub revision: String,
    /// The nodes to run. Those that are not listed are not run.
    pub nodes: Vec<NodeWork>,
}

/// The answer of a runner: it runs exactly the nodes of that revision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Loaded {
    /// The uid of the Flow.
    pub uid: String,
    /// The revision that it has loaded.
    pub revision: String,
    /// The pod that says so.
    pub pod: String,
    /// Why some nodes could not be loaded; empty when all were.
    #[serde(default)]
    pub problems: Vec<String>,
}

/// What a gateway announces on core NATS: how far its route table has come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RoutesApplied {
    /// The gateway's pod, as its endpoint's `targetRef` names it.
    pub gateway: String,
    /// The highest resourceVersion of a Flow that its table holds; 0 where there is no Flow.
    pub resource_version: u64,
}
