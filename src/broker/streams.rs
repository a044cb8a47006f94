//! Streams and consumers: made before anybody needs them, removed when nobody does. Only the operator that leads does so.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_nats::datetime::DateTime;
use async_nats::header;
use async_nats::jetstream::consumer::{AckPolicy, pull};
use async_nats::jetstream::context::{
    CreateStreamErrorKind, DeleteStreamErrorKind, GetStreamError, GetStreamErrorKind,
};
use async_nats::jetstream::stream::{
    Config, ConsumerErrorKind, DiscardPolicy, Info, LastRawMessageErrorKind, Republish, RetentionPolicy,
    StorageType, Stream,
};
use clap::{Args, value_parser};
use futures::TryStreamExt as _;
use k8s_openapi::jiff::Timestamp;
use thiserror::Error;

use super::connect::Broker;
use super::message::{DeadLetter, MAX_PAYLOAD};
use super::subject;
use crate::api::name::{FlowName, NamespaceName, NodeId};
use crate::runtime::Fence;

/// How long the server remembers message ids.
const DEDUPE: Duration = Duration::from_secs(120);
/// How long a message that is being handled may go without a sign of life before it is given to another pump.
const ACK_WAIT: Duration = Duration::from_secs(15);
/// How many messages of a node may be with its pumps at a time.
const ACK_PENDING: i64 = 1024;
/// The server's own default is 1,000.
const MAX_CONSUMERS: i32 = 10_000;
const DAY: Duration = Duration::from_secs(24 * 3600);
const MIB: i64 = 1 << 20;

/// How much the broker keeps.
#[derive(Clone, Copy, Debug, Args)]
pub struct LimitArgs {
    /// Messages that may wait for one node; more are refused
    #[arg(long, env = "MILLRACE_QUEUE_MESSAGES", value_name = "COUNT", default_value_t = 10_000)]
    pub queue_messages: i64,
    /// Mebibytes that may wait in one namespace; more are refused. The server reserves them on its disk
    #[arg(long, env = "MILLRACE_QUEUE_MEBIBYTES", value_name = "MIB", default_value_t = 256)]
    pub queue_mebibytes: i64,
    /// Days that dead letters are kept
    #[arg(long, env = "MILLRACE_DEAD_LETTER_DAYS", value_name = "DAYS", default_value_t = 14,
        value_parser = value_parser!(u32).range(1..))]
    pub dead_letter_days: u32,
    /// Mebibytes of dead letters that are kept, those of all namespaces together; then the oldest go
    #[arg(long, env = "MILLRACE_DEAD_LETTER_MEBIBYTES", value_name = "MIB", default_value_t = 256,
        value_parser = value_parser!(i64).range(16..))]
    pub dead_letter_mebibytes: i64,
    /// Servers that hold each message: 1, or 3 where NATS is a cluster
    #[arg(long, env = "MILLRACE_NATS_REPLICAS", value_name = "COUNT", default_value_t = 1)]
    pub nats_replicas: usize,
}

/// Something at the broker could not be made, looked at or removed.
#[derive(Debug, Error)]
#[error("the message broker could not {what}: {why}")]
pub struct StreamError {
    what: &'static str,
    why: String,
}

impl StreamError {
    pub(super) fn new(what: &'static str, why: &dyn ToString) -> Self {
        Self { what, why: why.to_string() }
    }
}

/// Looks after streams and consumers.
#[derive(Clone, Debug)]
pub struct Streams {
    broker: Broker,
    limits: LimitArgs,
    fence: Fence,
    /// The namespaces whose stream, and the durables, that are known to be there; and a lock for each namespace.
    known: Arc<Mutex<HashSet<(String, String)>>>,
    locks: Arc<Mutex<HashMap<NamespaceName, Arc<tokio::sync::Mutex<()>>>>>,
}

impl Streams {
    /// Nothing is known to be there yet. `fence` is asked before each removal: the broker does not know who leads.
    #[must_use]
    pub fn new(broker: Broker, limits: LimitArgs, fence: Fence) -> Self {
        Self { broker, limits, fence, known: Arc::default(), locks: Arc::default() }
    }

    /// Makes what the whole install shares: dead letters, event log, and the two buckets. Gives the time when the event log
    /// was made, by which another disk is noticed.
    ///
    /// # Errors
    /// The broker does not answer, or refuses.
    pub async fn ensure_shared(&self) -> Result<Timestamp, StreamError> {
        let mut made = None;
        let shared =
            [dead_letters(self.limits), bucket(subject::DESIRED), bucket(subject::OBSERVED), events()];
        for config in shared {
            let config = Config { num_replicas: self.limits.nats_replicas, ..config };
            made = Some(self.ensure_stream(config).await?.created);
        }
        let nanoseconds = made.map_or(0, DateTime::unix_timestamp_nanos);
        Ok(Timestamp::from_nanosecond(nanoseconds).unwrap_or_default())
    }

    /// Makes the queues of some of a Flow's nodes, and the stream that they lie in.
    ///
    /// # Errors
    /// The broker does not answer, or refuses.
    pub async fn ensure_queues(
        &self,
        namespace: &NamespaceName,
        flow: &FlowName,
        nodes: &BTreeSet<NodeId>,
    ) -> Result<(), StreamError> {
        let stream = subject::stream(namespace);
        let missing: Vec<_> =
            nodes.iter().filter(|node| !self.is_known(&stream, &subject::durable(flow, node))).collect();
        if missing.is_empty() {
            return Ok(());
        }
        let lock = self.lock(namespace);
        let _alone = lock.lock().await;
        if !self.is_known(&stream, "") {
            self.ensure_stream(self.of_namespace(namespace)).await?;
            self.learn(&stream, String::new());
        }
        for node in missing {
            self.ensure_consumer(&stream, namespace, flow, node).await?;
            self.learn(&stream, subject::durable(flow, node));
        }
        Ok(())
    }

    async fn ensure_consumer(
        &self,
        stream: &str,
        namespace: &NamespaceName,
        flow: &FlowName,
        node: &NodeId,
    ) -> Result<(), StreamError> {
        let config = pull::Config {
            durable_name: Some(subject::durable(flow, node)),
            filter_subject: subject::node(namespace, flow, node),
            ack_policy: AckPolicy::Explicit,
            ack_wait: ACK_WAIT,
            max_deliver: -1,
            max_ack_pending: ACK_PENDING,
            ..pull::Config::default()
        };
        let made = self.broker.jetstream.create_consumer_on_stream(config, stream).await;
        made.map(drop).map_err(|error| StreamError::new("make a queue", &error))
    }

    /// How many messages wait for each of these nodes or are being handled by them: a work queue keeps a message until it
    /// is acknowledged. Other nodes of the Flow for which messages wait are counted too: nobody takes those.
    ///
    /// # Errors
    /// The broker does not answer.
    pub async fn backlog(
        &self,
        namespace: &NamespaceName,
        flow: &FlowName,
        nodes: &BTreeSet<NodeId>,
    ) -> Result<BTreeMap<NodeId, u64>, StreamError> {
        const WHAT: &str = "count what is queued";
        let mut backlog: BTreeMap<_, _> = nodes.iter().map(|node| (node.clone(), 0)).collect();
        let Some(stream) = self.stream(namespace, WHAT).await? else { return Ok(backlog) };
        let all = format!("{}*", subject::node_prefix(namespace, flow));
        let counted = stream.info_with_subjects(all).await.map_err(|error| StreamError::new(WHAT, &error))?;
        let counted: HashMap<String, usize> =
            counted.try_collect().await.map_err(|error| StreamError::new(WHAT, &error))?;
        let prefix = subject::node_prefix(namespace, flow);
        for (subject, count) in counted {
            let node = subject.strip_prefix(&*prefix).and_then(|node| node.parse().ok());
            backlog.extend(node.map(|node| (node, u64::try_from(count).unwrap_or(u64::MAX))));
        }
        Ok(backlog)
    }

    /// Makes dead letters of what waits for a node. Each is taken from the queue only when its dead letter is stored.
    ///
    /// # Errors
    /// The broker does not answer, or refuses: what is left stays where it is.
    pub async fn abandon(
        &self,
        namespace: &NamespaceName,
        flow: &FlowName,
        node: &NodeId,
        reason: &str,
    ) -> Result<u64, StreamError> {
        const WHAT: &str = "make dead letters";
        let failed = |error: &dyn ToString| StreamError::new(WHAT, error);
        let Some(stream) = self.stream(namespace, WHAT).await? else { return Ok(0) };
        let (queue, mut from, mut count) = (subject::node(namespace, flow, node), 1, 0);
        loop {
            let next = stream.raw_message_builder().sequence(from).next_by_subject(&queue);
            let message = match next.send().await {
                Ok(message) => message,
                Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => return Ok(count),
                Err(error) => return Err(failed(&error)),
            };
            self.may_remove(WHAT)?;
            from = message.sequence + 1;
            // One that was replayed is in its queue under another id than its own.
            let own = message.headers.get(DeadLetter::MESSAGE_ID);
            let id = own.or_else(|| message.headers.get(header::NATS_MESSAGE_ID)).map(ToString::to_string);
            let letter = DeadLetter {
                reason,
                namespace,
                flow,
                node,
                attempts: 0,
                id: &id.unwrap_or_default(),
                sequence: message.sequence,
                queued: message.time.unix_timestamp_nanos(),
                time: crate::clock::now(),
            };
            let stored = self.broker.publish(letter.subject(), letter.headers(), message.payload).await;
            stored.map_err(|error| failed(&error))?;
            stream.delete_message(message.sequence).await.map_err(|error| failed(&error))?;
            count += 1;
        }
    }

    /// Removes queues that hold nothing, and with the last one of a namespace its stream.
    ///
    /// # Errors
    /// The broker does not answer, or refuses.
    pub async fn remove_queues(
        &self,
        namespace: &NamespaceName,
        flow: &FlowName,
        nodes: &BTreeSet<NodeId>,
    ) -> Result<(), StreamError> {
        const WHAT: &str = "remove a queue";
        let lock = self.lock(namespace);
        let _alone = lock.lock().await;
        let name = subject::stream(namespace);
        let Some(mut stream) = self.stream(namespace, WHAT).await? else {
            self.forget(&name, None);
            return Ok(());
        };
        for node in nodes {
            let durable = subject::durable(flow, node);
            self.may_remove(WHAT)?;
            self.forget(&name, Some(&durable));
            match stream.delete_consumer(&durable).await {
                Ok(_) => {}
                Err(error) if is_missing(&error) => {}
                Err(error) => return Err(StreamError::new(WHAT, &error)),
            }
        }
        let state = &stream.info().await.map_err(|error| StreamError::new(WHAT, &error))?.state;
        if state.consumer_count == 0 && state.messages == 0 {
            self.may_remove(WHAT)?;
            self.forget(&name, None);
            match self.broker.jetstream.delete_stream(&name).await {
                Ok(_) => {}
                Err(error)
                    if matches!(error.kind(), DeleteStreamErrorKind::JetStream(ref error)
                        if error.error_code() == async_nats::jetstream::ErrorCode::STREAM_NOT_FOUND) => {}
                Err(error) => return Err(StreamError::new(WHAT, &error)),
            }
        }
        Ok(())
    }

    /// Removes the ledger of a Flow's schedule.
    ///
    /// # Errors
    /// The broker does not answer, or refuses.
    pub async fn remove_ledger(&self, namespace: &NamespaceName, flow: &FlowName) -> Result<(), StreamError> {
        const WHAT: &str = "remove a ledger";
        let Some(stream) = self.stream(namespace, WHAT).await? else { return Ok(()) };
        self.may_remove(WHAT)?;
        let purged = stream.purge().filter(subject::ledger(namespace, flow)).await;
        purged.map(drop).map_err(|error| StreamError::new(WHAT, &error))
    }

    /// Forgets what is there: somebody else may have removed it while nobody led, or the broker lost its disk.
    pub fn forget_all(&self) {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    fn may_remove(&self, what: &'static str) -> Result<(), StreamError> {
        self.fence.check().map_err(|error| StreamError::new(what, &error))
    }

    async fn ensure_stream(&self, config: Config) -> Result<Info, StreamError> {
        let made = self.broker.jetstream.create_or_update_stream(config).await;
        made.map_err(|error| match error.kind() {
            CreateStreamErrorKind::JetStream(error) => StreamError::new("make a stream", &error),
            _ => StreamError::new("make a stream", &error),
        })
    }

    async fn stream(
        &self,
        namespace: &NamespaceName,
        what: &'static str,
    ) -> Result<Option<Stream>, StreamError> {
        match self.broker.jetstream.get_stream(subject::stream(namespace)).await {
            Ok(stream) => Ok(Some(stream)),
            Err(error) if is_no_stream(&error) => Ok(None),
            Err(error) => Err(StreamError::new(what, &error)),
        }
    }

    fn of_namespace(&self, namespace: &NamespaceName) -> Config {
        Config {
            name: subject::stream(namespace),
            subjects: vec![subject::all_nodes(namespace), subject::all_ledgers(namespace)],
            // A tick and its entry in the ledger are stored together.
            allow_atomic_publish: true,
            retention: RetentionPolicy::WorkQueue,
            discard: DiscardPolicy::New,
            discard_new_per_subject: true,
            max_messages_per_subject: self.limits.queue_messages,
            max_bytes: self.limits.queue_mebibytes.saturating_mul(MIB),
            max_consumers: MAX_CONSUMERS,
            duplicate_window: DEDUPE,
            num_replicas: self.limits.nats_replicas,
            ..basic()
        }
    }

    fn lock(&self, namespace: &NamespaceName) -> Arc<tokio::sync::Mutex<()>> {
        let mut locks = self.locks.lock().unwrap_or_else(PoisonError::into_inner);
        locks.entry(namespace.clone()).or_default().clone()
    }

    fn is_known(&self, stream: &str, durable: &str) -> bool {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.contains(&(stream.to_owned(), durable.to_owned()))
    }

    fn learn(&self, stream: &str, durable: String) {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).insert((stream.to_owned(), durable));
    }

    /// Forgets a durable, or a stream with all that is in it.
    fn forget(&self, stream: &str, durable: Option<&str>) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|(of, name)| of != stream || durable.is_some_and(|durable| durable != name));
    }
}

pub(super) fn is_no_stream(error: &GetStreamError) -> bool {
    matches!(error.kind(), GetStreamErrorKind::JetStream(ref error)
        if error.error_code() == async_nats::jetstream::ErrorCode::STREAM_NOT_FOUND)
}

pub(super) fn is_missing(error: &async_nats::jetstream::stream::ConsumerError) -> bool {
    matches!(error.kind(), ConsumerErrorKind::JetStream(ref error)
        if error.error_code() == async_nats::jetstream::ErrorCode::CONSUMER_NOT_FOUND)
}

/// What all streams have in common. Nothing that a pod writes to may allow rollups: one header would erase it.
fn basic() -> Config {
    Config {
        storage: StorageType::File,
        max_message_size: i32::try_from(MAX_PAYLOAD).unwrap_or(i32::MAX),
        allow_rollup: false,
        ..Config::default()
    }
}

fn dead_letters(limits: LimitArgs) -> Config {
    Config {
        name: subject::DEAD_LETTERS.into(),
        subjects: vec![subject::ALL_DEAD_LETTERS.into()],
        max_age: DAY * limits.dead_letter_days,
        max_bytes: limits.dead_letter_mebibytes.saturating_mul(MIB),
        // Better that the oldest go than that a node cannot go on.
        discard: DiscardPolicy::Old,
        duplicate_window: DEDUPE,
        allow_direct: true,
        ..basic()
    }
}

fn events() -> Config {
    Config {
        name: subject::EVENTS.into(),
        subjects: vec![subject::ALL_EVENTS.into()],
        max_age: 7 * DAY,
        max_bytes: 64 * MIB,
        duplicate_window: DEDUPE,
        allow_direct: true,
        ..basic()
    }
}

/// A key-value bucket that keeps one value a key. What is stored in it, and only that, is told to core subscribers.
fn bucket(name: &str) -> Config {
    Config {
        name: format!("KV_{name}"),
        subjects: vec![format!("$KV.{name}.>")],
        max_messages_per_subject: 1,
        allow_direct: true,
        republish: Some(Republish {
            source: format!("$KV.{name}.>"),
            destination: subject::stored(name, ">"),
            headers_only: false,
        }),
        ..basic()
    }
}
