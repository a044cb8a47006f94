//! What flows from node to node.

use async_nats::HeaderMap;
use async_nats::header::NATS_MESSAGE_ID;
use data_encoding::HEXLOWER;
use hmac::{Hmac, Mac as _};
use k8s_openapi::jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::subject;
use crate::api::condition::bounded;
use crate::api::name::{FlowName, NamespaceName, NodeId};

/// The largest payload that the server takes, in bytes (`max_payload`).
pub const MAX_PAYLOAD: usize = 8 << 20;
/// The largest message in bytes: below the server's limit by what the headers of its dead letter need.
pub const MAX_MESSAGE: usize = MAX_PAYLOAD - (64 << 10);

/// The most messages that a node may give for one: as many as a queue takes.
pub const MAX_OUTPUTS: usize = 10_000;

/// How many bytes of a hash make an id: 128 bits, which nobody meets twice.
const ID_BYTES: usize = 16;

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
    /// The namespace of the Flow.
    pub namespace: &'a NamespaceName,
    /// The Flow.
    pub flow: &'a FlowName,
    /// Which node.
    pub node: &'a NodeId,
    /// How often it was tried.
    pub attempts: u64,
    /// The message's id.
    pub id: &'a str,
    /// The message's place in its queue.
    pub sequence: u64,
    /// When the message came into its queue, in nanoseconds since 1970.
    pub queued: i128,
    /// When it was given up.
    pub time: Timestamp,
}

impl DeadLetter<'_> {
    /// The most bytes of a reason: the headers must fit beside the largest message.
    pub(super) const REASON_MAX: usize = 1024;
    /// The header with the reason.
    pub(super) const REASON: &'static str = "Millrace-Reason";
    /// The header with the number of attempts.
    pub(super) const ATTEMPTS: &'static str = "Millrace-Attempts";
    /// The header with the message's id; a message that was replayed has it too, in its queue.
    pub(super) const MESSAGE_ID: &'static str = "Millrace-Message-Id";
    /// The header with the time.
    pub(super) const TIME: &'static str = "Millrace-Time";

    /// Where it is published.
    #[must_use]
    pub fn subject(&self) -> String {
        subject::dead_letter(self.namespace, self.flow, self.node)
    }

    /// The headers of the dead letter.
    #[must_use]
    pub fn headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(NATS_MESSAGE_ID, self.own_id());
        headers.insert(Self::REASON, one_line(self.reason, Self::REASON_MAX));
        headers.insert("Millrace-Node", self.node.as_str());
        headers.insert(Self::ATTEMPTS, self.attempts.to_string());
        headers.insert(Self::MESSAGE_ID, self.id);
        headers.insert(Self::TIME, self.time.to_string());
        headers
    }

    /// Its own id follows from the message's, so that none is stored twice. The place in the queue is part of it, and since
    /// when: two messages that somebody has given the same id are two dead letters, and so is one that was replayed into a
    /// queue that was made anew, whose places begin at 1 again.
    fn own_id(&self) -> String {
        let [namespace, flow, node] = [self.namespace.as_str(), self.flow.as_str(), self.node.as_str()];
        let parts = [b"dead", namespace.as_bytes(), flow.as_bytes(), node.as_bytes(), self.id.as_bytes()];
        let place = [&self.sequence.to_be_bytes()[..], &self.queued.to_be_bytes()];
        hash_id(parts.into_iter().chain(place))
    }
}

/// A text as a header holds it, and as a terminal may show it: one line without control characters, of at most `max` bytes.
pub(super) fn one_line(text: &str, max: usize) -> String {
    let line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    bounded(line.trim(), max)
}

/// An id of 128 bits in hexadecimal digits that follows from these parts. Each is preceded by its length, so that no two
/// lists of parts are the same text.
#[must_use]
pub fn hash_id<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    HEXLOWER.encode(&hash.finalize()[..ID_BYTES])
}

/// The same, with a key: nobody else can guess it, and have another's message taken for a duplicate.
#[must_use]
pub fn keyed_id<'a>(key: &[u8], parts: impl IntoIterator<Item = &'a [u8]>) -> String {
    // A key may have any length.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else { return String::new() };
    for part in parts {
        mac.update(&(part.len() as u64).to_be_bytes());
        mac.update(part);
    }
    HEXLOWER.encode(&mac.finalize().into_bytes()[..ID_BYTES])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn headers(reason: &str, id: &str, (sequence, queued): (u64, i128)) -> HeaderMap {
        let [namespace, flow, node] = ["shop", "orders", "map"];
        let letter = DeadLetter {
            reason,
            namespace: &namespace.parse().unwrap(),
            flow: &flow.parse().unwrap(),
            node: &node.parse().unwrap(),
            attempts: 3,
            id,
            sequence,
            queued,
            time: "2026-01-01T00:00:00Z".parse().unwrap(),
        };
        letter.headers()
    }

    fn header(headers: &HeaderMap, name: &str) -> String {
        headers.get(name).unwrap().to_string()
    }

    #[test]
    fn a_reason_is_one_line_that_is_not_too_long() {
        let reason = |text: &str| header(&headers(text, "m1", (1, 1)), "Millrace-Reason");
        assert_eq!(reason("500:\r\nMillrace-Node: x\n"), "500:  Millrace-Node: x");
        assert_eq!(reason(&"x".repeat(5000)).len(), DeadLetter::REASON_MAX);
    }

    proptest! {
        #[test]
        fn two_messages_of_one_id_are_two_dead_letters(id in "[!-~]{1,16}", one in (0_u64..3, 0_i128..3), two in (0_u64..3, 0_i128..3)) {
            let of = |place| header(&headers("x", &id, place), "Nats-Msg-Id");
            prop_assert_eq!(of(one) == of(two), one == two);
            prop_assert_eq!(of(one).len(), 32);
        }
    }
}
