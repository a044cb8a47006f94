//! What flows from node to node.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The largest payload that the server takes, in bytes (`max_payload`).
pub const MAX_PAYLOAD: usize = 8 << 20;
/// The largest message in bytes: below the server's limit by what the headers of its dead letter need.
pub const MAX_MESSAGE: usize = MAX_PAYLOAD - (64 << 10);

/// A message, in the form of the systems that Millrace replaces. A webhook's has the fields of its request as well.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Message {
    /// Its id: that of the broker's deduplication, and the component's `ce-id`.
    pub id: String,
    /// Files and the like, by name.
    pub attachments: Map<String, Value>,
    /// What it is about.
    pub body: Value,
    /// The request's headers, where it began with one.
    pub headers: Map<String, Value>,
    /// Where it comes from; kept from node to node unless a node gives another.
    pub metadata: Map<String, Value>,
    /// The method of the webhook's request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// The path and query of the webhook's request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// The query of the webhook's request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub query: Option<Map<String, Value>>,
    /// What follows the flow in the path of the webhook's request, without its `/`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path_suffix: Option<String>,
}
