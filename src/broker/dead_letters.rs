//! What no node could handle: it is listed without what it holds, read, and removed; `replay` queues it again.

use std::time::Duration;

use async_nats::datetime::DateTime;
use async_nats::header::HeaderMap;
use async_nats::jetstream::consumer::{AckPolicy, PullConsumer, pull};
use async_nats::jetstream::stream::{DeleteMessageErrorKind, RawMessageErrorKind, Stream};
use async_nats::jetstream::{ErrorCode, Message as Delivery, message::StreamMessage};
use bytes::Bytes;
use futures::StreamExt as _;
use k8s_openapi::jiff::Timestamp;
use serde::Serialize;
use thiserror::Error;

use super::connect::{Broker, LIMIT};
use super::message::{self, one_line};
use super::streams::{StreamError, is_no_stream};
use super::subject;
use crate::api::name::{FlowName, NamespaceName, NodeId};

pub mod replay;

/// Some of the dead letters: what is not named is any.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// Those of this namespace.
    pub namespace: Option<NamespaceName>,
    /// Those of the Flows of this name.
    pub flow: Option<FlowName>,
    /// Those of the nodes of this id.
    pub node: Option<NodeId>,
}

impl Selection {
    /// Whether a letter is one of them.
    #[must_use]
    pub fn holds(&self, letter: &Letter) -> bool {
        self.namespace.as_ref().is_none_or(|namespace| *namespace == letter.namespace)
            && self.flow.as_ref().is_none_or(|flow| *flow == letter.flow)
            && self.node.as_ref().is_none_or(|node| *node == letter.node)
    }

    fn subject(&self) -> String {
        subject::dead_letters(self.namespace.as_ref(), self.flow.as_ref(), self.node.as_ref())
    }
}

/// A dead letter without what it holds. Whoever runs a node may have written it: no text in it is taken as it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Letter {
    /// Its place in the stream of dead letters: no other ever has it.
    pub id: u64,
    /// The namespace of the Flow.
    pub namespace: NamespaceName,
    /// The Flow.
    pub flow: FlowName,
    /// The node that could not handle it.
    pub node: NodeId,
    /// How often it was tried; 0 where it was given up with its queue.
    pub attempts: u64,
    /// When it was given up.
    pub time: Timestamp,
    /// The message's own id; empty where it is no message.
    pub message_id: String,
    /// How many bytes the message has.
    pub size: u64,
    /// Why, in words.
    pub reason: String,
}

impl Letter {
    /// The longest id of a message that is shown, in bytes.
    const ID_MAX: usize = 256;

    fn read(id: u64, on: &str, headers: &HeaderMap, stored: DateTime, size: u64) -> Option<Self> {
        let Some((namespace, flow, node)) = subject::node_of_dead_letter(on) else {
            tracing::warn!(id, subject = on, "Passed over what is no dead letter of a node");
            return None;
        };
        let text = |name, max| headers.get(name).map_or_else(String::new, |it| one_line(it.as_str(), max));
        let told = text(message::DeadLetter::TIME, Self::ID_MAX).parse();
        Some(Self {
            id,
            namespace,
            flow,
            node,
            attempts: text(message::DeadLetter::ATTEMPTS, Self::ID_MAX).parse().unwrap_or_default(),
            time: told
                .or_else(|_| Timestamp::from_nanosecond(stored.unix_timestamp_nanos()))
                .unwrap_or_default(),
            message_id: text(message::DeadLetter::MESSAGE_ID, Self::ID_MAX),
            size,
            reason: text(message::DeadLetter::REASON, message::DeadLetter::REASON_MAX),
        })
    }

    /// From a consumer that gives no payloads.
    fn listed(delivery: &Delivery, id: u64, stored: DateTime) -> Option<Self> {
        let none = HeaderMap::new();
        let headers = delivery.headers.as_ref().unwrap_or(&none);
        let size = headers.get("Nats-Msg-Size").and_then(|size| size.as_str().parse().ok());
        Self::read(id, &delivery.subject, headers, stored, size.unwrap_or_default())
    }

    fn whole(message: StreamMessage) -> Option<(Self, Bytes)> {
        let StreamMessage { subject, sequence, headers, payload, time } = message;
        Some((Self::read(sequence, &subject, &headers, time, payload.len() as u64)?, payload))
    }
}

/// There are no dead letters to be had.
#[derive(Debug, Error)]
pub enum OpenError {
    /// No operator has ever used this broker, or not this account of it.
    #[error(
        "the message broker has no stream '{}': name the broker of your install, and check that its operator runs",
        subject::DEAD_LETTERS
    )]
    NoStream,
    /// The broker does not answer.
    #[error(transparent)]
    Broker(#[from] StreamError),
}

/// The stream of dead letters.
#[derive(Clone, Debug)]
pub struct DeadLetters {
    broker: Broker,
    stream: Stream,
}

impl DeadLetters {
    /// Looks for the stream.
    ///
    /// # Errors
    /// It is not there, or the broker does not answer.
    pub async fn open(broker: Broker) -> Result<Self, OpenError> {
        match broker.jetstream.get_stream(subject::DEAD_LETTERS).await {
            Ok(stream) => Ok(Self { broker, stream }),
            Err(error) if is_no_stream(&error) => Err(OpenError::NoStream),
            Err(error) => Err(StreamError::new("look for dead letters", &error).into()),
        }
    }

    /// The last id that a letter had when the stream was looked for: later ones may be what a replay has led to.
    #[must_use]
    pub fn last(&self) -> u64 {
        self.stream.cached_info().state.last_sequence
    }

    /// Lists letters, the oldest first, and only those that are there by now.
    ///
    /// # Errors
    /// The broker does not answer, or refuses.
    pub async fn list(&self, selection: &Selection) -> Result<Listing, StreamError> {
        /// How long the server remembers who does not ask for more.
        const FORGET: Duration = Duration::from_secs(300);
        let config = pull::Config {
            filter_subject: selection.subject(),
            ack_policy: AckPolicy::None,
            headers_only: true,
            inactive_threshold: FORGET,
            memory_storage: true,
            num_replicas: 1,
            ..pull::Config::default()
        };
        let made = self.stream.create_consumer(config).await;
        let consumer = made.map_err(|error| StreamError::new("list dead letters", &error))?;
        let count = consumer.cached_info().num_pending;
        Ok(Listing { stream: self.stream.clone(), consumer, last: self.last(), count, over: count == 0 })
    }

    /// One letter and its message; none where it is not there.
    ///
    /// # Errors
    /// The broker does not answer, or refuses.
    pub async fn get(&self, id: u64) -> Result<Option<(Letter, Bytes)>, StreamError> {
        match self.stream.raw_message_builder().sequence(id).send().await {
            Ok(message) => Ok(Letter::whole(message)),
            Err(error) if error.kind() == RawMessageErrorKind::NoMessageFound => Ok(None),
            Err(error) => Err(StreamError::new("read a dead letter", &error)),
        }
    }

    /// Removes the letters of a selection that a listing has: in one go, since one after the other takes the server long.
    ///
    /// # Errors
    /// The broker does not answer, or refuses.
    pub async fn remove_all(&self, selection: &Selection) -> Result<(), StreamError> {
        let purged = self.stream.purge().filter(selection.subject()).sequence(self.last() + 1).await;
        purged.map(drop).map_err(|error| StreamError::new("remove dead letters", &error))
    }

    /// Removes a letter. False: it was not there.
    ///
    /// # Errors
    /// The broker does not answer, or refuses.
    pub async fn remove(&self, id: u64) -> Result<bool, StreamError> {
        let error = match self.stream.delete_message(id).await {
            Ok(removed) => return Ok(removed),
            Err(error) => error,
        };
        let code = match error.kind() {
            DeleteMessageErrorKind::JetStream(error) => Some(error.error_code()),
            _ => None,
        };
        let failed = code == Some(ErrorCode::STREAM_MESSAGE_DELETE_FAILED);
        if code == Some(ErrorCode::SEQUENCE_NOT_FOUND) || (failed && self.get(id).await?.is_none()) {
            return Ok(false);
        }
        Err(StreamError::new("remove a dead letter", &error))
    }
}

/// Letters that are being listed.
#[derive(Debug)]
pub struct Listing {
    stream: Stream,
    consumer: PullConsumer,
    last: u64,
    /// How many there were at the beginning.
    pub count: u64,
    over: bool,
}

impl Listing {
    /// The next letters, at most so many; it may be none of them. `None`: there are no more.
    ///
    /// # Errors
    /// The broker does not answer, or refuses.
    pub async fn next(&mut self, most: usize) -> Result<Option<Vec<Letter>>, StreamError> {
        /// More than the largest headers, so that one letter always fits.
        const BYTES: usize = 16 << 20;
        let failed = |error: &dyn ToString| StreamError::new("list dead letters", error);
        if self.over {
            return Ok(None);
        }
        let asked = self.consumer.fetch().max_messages(most).max_bytes(BYTES).messages().await;
        let mut batch = asked.map_err(|error| failed(&error))?;
        let (mut letters, mut came) = (vec![], 0_usize);
        while !self.over {
            let next = tokio::time::timeout(LIMIT, batch.next()).await;
            let delivery = match next.map_err(|_| failed(&"it does not answer"))? {
                Some(Ok(delivery)) => delivery,
                // What did not fit comes next.
                Some(Err(_)) if came > 0 => break,
                Some(Err(error)) => return Err(failed(&error)),
                None => break,
            };
            let info = delivery.info().map_err(|error| failed(&error))?;
            self.over = info.pending == 0 || info.stream_sequence >= self.last;
            came += 1;
            if info.stream_sequence <= self.last {
                letters.extend(Letter::listed(&delivery, info.stream_sequence, info.published));
            }
        }
        self.over |= came == 0;
        Ok(Some(letters))
    }

    /// Lets the server forget who listed.
    pub async fn close(self) {
        // It would do so by itself after a while.
        let _ = self.stream.delete_consumer(&self.consumer.cached_info().name).await;
    }
}
