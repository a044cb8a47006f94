//! A dead letter's message goes back into a queue, under an id that follows from the letter: whoever does so again, because
//! nobody knows how it ended, stores nothing twice within the two minutes in which the server remembers ids.

use std::fmt;

use async_nats::header::{HeaderMap, NATS_MESSAGE_ID};
use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::context::ConsumerInfoErrorKind;
use async_nats::jetstream::stream::{RawMessageErrorKind, Stream};
use bytes::Bytes;
use futures::TryStreamExt as _;
use thiserror::Error;

use super::{DeadLetters, Letter, Selection};
use crate::api::name::{FlowName, NamespaceName, NodeId};
use crate::broker::connect::{PublishError, Published};
use crate::broker::message::{DeadLetter, hash_id};
use crate::broker::streams::{StreamError, is_no_stream};
use crate::broker::subject;

/// A node, as people write it: `shop/orders/map`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    namespace: NamespaceName,
    flow: FlowName,
    node: NodeId,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.namespace, self.flow, self.node)
    }
}

impl Place {
    /// The node that could not handle it.
    #[must_use]
    pub fn of(letter: &Letter) -> Self {
        Self { namespace: letter.namespace.clone(), flow: letter.flow.clone(), node: letter.node.clone() }
    }

    /// Another node of the same Flow.
    #[must_use]
    pub fn at(self, node: NodeId) -> Self {
        Self { node, ..self }
    }
}

/// Why a letter stays, and what to do about it.
#[derive(Debug, Error)]
pub enum ReplayError {
    /// The namespace has no queues.
    #[error("no flow of the namespace '{}' runs: start its flow '{}', then replay again", .0.namespace, .0.flow)]
    NoNamespace(Place),
    /// The Flow has no queues.
    #[error(
        "the flow '{}' in the namespace '{}' is gone or suspended: start it (`suspend: false`), then replay again",
        .0.flow, .0.namespace
    )]
    NoFlow(Place),
    /// The Flow has queues, and none for the node.
    #[error(
        "the flow '{}' in the namespace '{}' runs, but has no node '{}' any more: `--to-node` sends it to one of its \
         nodes: {}",
        .0.flow, .0.namespace, .0.node, .1.join(", ")
    )]
    NoNode(Place, Vec<String>),
    /// There is no room.
    #[error("the queue of {0} is full: replay again when it has room")]
    Full(Place),
    /// Nobody knows whether it is queued.
    #[error(
        "the message broker does not answer, so that it may be queued or not: replay it again within two minutes, and it \
         is queued once"
    )]
    Unknown,
    /// Anything else.
    #[error(transparent)]
    Refused(PublishError),
    /// The queue could not be looked for.
    #[error(transparent)]
    Broker(#[from] StreamError),
}

impl ReplayError {
    /// Whether others would fare the same now.
    #[must_use]
    pub const fn stops(&self) -> bool {
        matches!(self, Self::Full(_) | Self::Unknown | Self::Broker(_))
    }
}

impl DeadLetters {
    /// The first letter of a selection from this id on, with its message.
    ///
    /// # Errors
    /// The broker does not answer, or refuses.
    pub async fn next(
        &self,
        selection: &Selection,
        from: u64,
    ) -> Result<Option<(Letter, Bytes)>, StreamError> {
        let mut from = from;
        loop {
            let next = self.stream.raw_message_builder().sequence(from).next_by_subject(selection.subject());
            let message = match next.send().await {
                Ok(message) => message,
                Err(error) if error.kind() == RawMessageErrorKind::NoMessageFound => return Ok(None),
                Err(error) => return Err(StreamError::new("read a dead letter", &error)),
            };
            from = message.sequence + 1;
            if let Some(found) = Letter::whole(message) {
                return Ok(Some(found));
            }
        }
    }

    /// Puts the message of a letter into a queue; it is stored when this returns. The letter stays until it is removed.
    ///
    /// # Errors
    /// It is not queued, or nobody knows; the letter stays.
    pub async fn queue(&self, letter: &Letter, payload: Bytes, to: &Place) -> Result<Published, ReplayError> {
        self.look_for(to).await?;
        let mut headers = HeaderMap::new();
        headers.insert(NATS_MESSAGE_ID, id(letter));
        headers.insert(DeadLetter::MESSAGE_ID, letter.message_id.as_str());
        let queue = subject::node(&to.namespace, &to.flow, &to.node);
        self.broker.publish(queue, headers, payload).await.map_err(|error| match error {
            PublishError::Full => ReplayError::Full(to.clone()),
            PublishError::Unavailable => ReplayError::Unknown,
            PublishError::NoStream => ReplayError::NoNamespace(to.clone()),
            other => ReplayError::Refused(other),
        })
    }

    /// Nobody takes what lies in a queue without a consumer.
    async fn look_for(&self, place: &Place) -> Result<(), ReplayError> {
        let failed = |error: &dyn ToString| StreamError::new("look for a queue", error);
        let stream = match self.broker.jetstream.get_stream(subject::stream(&place.namespace)).await {
            Ok(stream) => stream,
            Err(error) if is_no_stream(&error) => return Err(ReplayError::NoNamespace(place.clone())),
            Err(error) => return Err(failed(&error).into()),
        };
        let found = stream.consumer_info(subject::durable(&place.flow, &place.node)).await;
        let Err(error) = found else { return Ok(()) };
        match error.kind() {
            ConsumerInfoErrorKind::NotFound => {}
            ConsumerInfoErrorKind::JetStream(error)
                if error.error_code() == ErrorCode::CONSUMER_NOT_FOUND => {}
            _ => return Err(failed(&error).into()),
        }
        let nodes = nodes(&stream, &place.flow).await?;
        Err(if nodes.is_empty() {
            ReplayError::NoFlow(place.clone())
        } else {
            ReplayError::NoNode(place.clone(), nodes)
        })
    }
}

/// The nodes of a Flow that have queues.
async fn nodes(stream: &Stream, flow: &FlowName) -> Result<Vec<String>, StreamError> {
    let names = stream.consumer_names().try_collect::<Vec<String>>().await;
    let names = names.map_err(|error| StreamError::new("look for queues", &error))?;
    let of_flow = |name: &String| Some(name.strip_prefix(flow.as_str())?.strip_prefix('_')?.to_owned());
    let mut nodes: Vec<_> = names.iter().filter_map(of_flow).collect();
    nodes.sort_unstable();
    Ok(nodes)
}

/// The id under which a letter is queued, to whatever node.
fn id(letter: &Letter) -> String {
    hash_id([b"replay", letter.message_id.as_bytes(), &letter.id.to_be_bytes()])
}
