//! The ticks of schedules, each stored exactly once, whoever leads and whatever dies.
//!
//! A tick is two messages that the broker stores together or not at all (an atomic batch): one for the flow's entry node,
//! and one for the flow's *ledger*, which says up to which due time all is done. The latter is accepted only after the
//! ledger's last one that the sender knows, so that of two who want to store a tick only one can. The ledger lies in the
//! namespace's own stream, on a subject that no pod may write to and nobody takes messages from.

use async_nats::jetstream::stream::{LastRawMessageErrorKind, Stream};
use async_nats::{HeaderMap, header};
use bytes::Bytes;
use futures::future::BoxFuture;
use k8s_openapi::jiff::Timestamp;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::connect::{Broker, PublishError};
use super::streams::StreamError;
use super::subject;
use crate::api::name::{FlowName, NamespaceName, NodeId};
use crate::runtime::Fence;

/// How many ticks are stored together: the server takes batches of 1,000 messages.
pub const BATCH: usize = 500;

/// A message that is due.
#[derive(Clone, Debug, PartialEq)]
pub struct Tick {
    /// The Flow.
    pub flow: FlowName,
    /// Its uid: one that was made anew under the same name has done nothing yet.
    pub uid: String,
    /// The node that gets it.
    pub entry: NodeId,
    /// When it was due.
    pub due: Timestamp,
    /// The sequence of the last entry of the ledger; 0 where it is empty.
    pub after: u64,
    /// The message as JSON.
    pub payload: Bytes,
}

/// The last entry of a Flow's ledger.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Last {
    /// The uid of the Flow that it was about, and up to when all was done; none where the ledger is empty.
    pub of: Option<(String, Timestamp)>,
    /// Its sequence; 0 where the ledger is empty.
    pub sequence: u64,
}

/// Why a tick is not known to be stored.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum TickError {
    /// The ledger has gone on: somebody else has stored it, or a later one.
    #[error("the ledger has gone on")]
    Conflict,
    /// The queue of the entry node has no room.
    #[error("the queue of the entry node is full")]
    Full,
    /// It may be stored or not: the ledger knows.
    #[error("the message broker did not say whether it is stored")]
    Unknown,
}

#[derive(Serialize, Deserialize)]
struct Entry {
    uid: String,
    due: Timestamp,
}

/// Where ticks are stored.
#[derive(Clone, Debug)]
pub struct Ticks {
    broker: Broker,
    fence: Fence,
}

impl Ticks {
    /// `fence` is asked before each batch.
    #[must_use]
    pub const fn new(broker: Broker, fence: Fence) -> Self {
        Self { broker, fence }
    }

    /// The last entry of a Flow's ledger, as the server that leads the stream has it.
    ///
    /// # Errors
    /// The broker does not answer, or the namespace has no stream yet.
    pub async fn last(&self, namespace: &NamespaceName, flow: &FlowName) -> Result<Last, StreamError> {
        let failed = |error: &dyn ToString| StreamError::new("read a ledger", error);
        if !self.broker.connected() {
            return Err(failed(&"it is away"));
        }
        let stream = self.stream(namespace).await.map_err(|error| failed(&error))?;
        match stream.get_last_raw_message_by_subject(&subject::ledger(namespace, flow)).await {
            Ok(found) => {
                let entry = serde_json::from_slice::<Entry>(&found.payload).ok();
                Ok(Last { of: entry.map(|entry| (entry.uid, entry.due)), sequence: found.sequence })
            }
            Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => Ok(Last::default()),
            Err(error) => Err(failed(&error)),
        }
    }

    /// Stores ticks of one namespace's Flows, each of them or not: gives the sequence of its ledger's new entry. One that
    /// cannot be stored keeps no other from being stored.
    #[must_use]
    pub fn store(
        &self,
        namespace: NamespaceName,
        ticks: Vec<Tick>,
    ) -> BoxFuture<'static, Vec<(Tick, Result<u64, TickError>)>> {
        let own = self.clone();
        Box::pin(async move {
            let stored = if ticks.len() > BATCH {
                Err(PublishError::TooLarge)
            } else {
                own.batch(&namespace, &ticks).await
            };
            let all = |error: TickError| ticks.iter().map(|tick| (tick.clone(), Err(error))).collect();
            match stored {
                Ok(last) => {
                    let first = last + 1 - 2 * ticks.len() as u64;
                    (first..).step_by(2).zip(ticks).map(|(sequence, tick)| (tick, Ok(sequence))).collect()
                }
                // The server does not say which one it does not want.
                Err(error) if ticks.len() > 1 && is_refusal(&error) => {
                    let mut left = ticks;
                    let right = left.split_off(left.len() / 2);
                    let mut done = own.store(namespace.clone(), left).await;
                    done.extend(own.store(namespace, right).await);
                    done
                }
                Err(PublishError::WrongLastSequence) => all(TickError::Conflict),
                Err(PublishError::Full) => all(TickError::Full),
                Err(error) => {
                    tracing::warn!(%namespace, %error, "Could not store ticks");
                    all(TickError::Unknown)
                }
            }
        })
    }

    /// Sends one batch; gives the sequence of its last message.
    async fn batch(&self, namespace: &NamespaceName, ticks: &[Tick]) -> Result<u64, PublishError> {
        self.fence.check().map_err(|error| PublishError::Refused(error.to_string()))?;
        if !self.broker.connected() {
            return Err(PublishError::Unavailable);
        }
        let id = format!("{:032x}", fastrand::u128(..));
        let mut messages = ticks.iter().flat_map(|tick| [ledger(namespace, tick), message(namespace, tick)]);
        let last = messages.next_back();
        let mut number = 0_usize;
        let mut headers = |mut headers: HeaderMap| {
            number += 1;
            headers.insert(header::NATS_BATCH_ID, id.as_str());
            headers.insert(header::NATS_BATCH_SEQUENCE, number.to_string());
            headers
        };
        for (subject, own, payload) in messages {
            let sent = self.broker.client.publish_with_headers(subject, headers(own), payload).await;
            sent.map_err(|_| PublishError::Unavailable)?;
        }
        let Some((subject, own, payload)) = last else { return Ok(0) };
        let mut headers = headers(own);
        headers.insert(header::NATS_BATCH_COMMIT, header::NATS_BATCH_COMMIT_FINAL);
        Ok(self.broker.publish(subject, headers, payload).await?.sequence)
    }

    /// Forgets all entries of a Flow's ledger but the last.
    ///
    /// # Errors
    /// The broker does not answer.
    pub async fn tidy(&self, namespace: &NamespaceName, flow: &FlowName) -> Result<(), StreamError> {
        let failed = |error: &dyn ToString| StreamError::new("tidy a ledger", error);
        let stream = self.stream(namespace).await.map_err(|error| failed(&error))?;
        let purged = stream.purge().filter(subject::ledger(namespace, flow)).keep(1).await;
        purged.map(drop).map_err(|error| failed(&error))
    }

    async fn stream(
        &self,
        namespace: &NamespaceName,
    ) -> Result<Stream<()>, async_nats::jetstream::context::GetStreamError> {
        self.broker.jetstream.get_stream_no_info(subject::stream(namespace)).await
    }
}

/// Whether the server has said no, so that nothing of the batch is stored.
const fn is_refusal(error: &PublishError) -> bool {
    match error {
        PublishError::Full | PublishError::WrongLastSequence | PublishError::TooLarge => true,
        PublishError::NoStream | PublishError::Unavailable | PublishError::Refused(_) => false,
    }
}

fn ledger(namespace: &NamespaceName, tick: &Tick) -> (String, HeaderMap, Bytes) {
    let mut headers = HeaderMap::new();
    headers.insert(header::NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, tick.after.to_string());
    // A struct of texts can always be written.
    let entry = serde_json::to_vec(&Entry { uid: tick.uid.clone(), due: tick.due }).unwrap_or_default();
    (subject::ledger(namespace, &tick.flow), headers, entry.into())
}

fn message(namespace: &NamespaceName, tick: &Tick) -> (String, HeaderMap, Bytes) {
    (subject::node(namespace, &tick.flow, &tick.entry), HeaderMap::new(), tick.payload.clone())
}
