//! What flows from node to node.

use async_nats::HeaderMap;
use async_nats::header::NATS_MESSAGE_ID;
use data_encoding::HEXLOWER;
use k8s_openapi::jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use crate::api::name::NodeId;

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

/// What is said of a message that a node could not handle; the message itself is the payload.
#[derive(Clone, Copy, Debug)]
pub struct DeadLetter<'a> {
    /// Why, in words.
    pub reason: &'a str,
    /// Which node.
    pub node: &'a NodeId,
    /// How often it was tried.
    pub attempts: u64,
    /// The message's id.
    pub id: &'a str,
    /// When it was given up.
    pub time: Timestamp,
}

impl DeadLetter<'_> {
    /// The most bytes of a reason: the headers must fit beside the largest message.
    const REASON_MAX: usize = 4096;

    /// The headers of the dead letter. Its own id follows from the message's, so that none is stored twice.
    #[must_use]
    pub fn headers(&self) -> HeaderMap {
        let mut id =
            HEXLOWER.encode(&Sha256::digest(format!("dead {} {} {}", self.id.len(), self.id, self.node)));
        id.truncate(32);
        let reason: String = self.reason.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        let mut headers = HeaderMap::new();
        headers.insert(NATS_MESSAGE_ID, id);
        headers.insert("Millrace-Reason", crate::api::condition::bounded(&reason, Self::REASON_MAX));
        headers.insert("Millrace-Node", self.node.as_str());
        headers.insert("Millrace-Attempts", self.attempts.to_string());
        headers.insert("Millrace-Message-Id", self.id);
        headers.insert("Millrace-Time", self.time.to_string());
        headers
    }
}
