//! What lies in the queue of a flow's entry node, and in its ledger.
#![allow(dead_code, reason = "each binary of tests uses its part")]

use std::time::Duration;

use async_nats::jetstream::{self, stream::LastRawMessageErrorKind};
use k8s_openapi::jiff::Timestamp;
use serde_json::Value;

use crate::install::{Install, eventually};

/// One queue that nobody takes messages from.
pub struct Queue {
    jetstream: jetstream::Context,
    stream: String,
    subject: String,
    ledger: String,
    dead: String,
}

impl Queue {
    pub async fn of(install: &Install, namespace: &str, flow: &str, node: &str) -> Self {
        let client = async_nats::ConnectOptions::new().retry_on_initial_connect().connect(&install.nats_url);
        Self {
            jetstream: jetstream::new(client.await.unwrap()),
            stream: format!("MR_{namespace}"),
            subject: format!("millrace.flow.{namespace}.{flow}.{node}"),
            ledger: format!("millrace.tick.{namespace}.{flow}"),
            dead: format!("millrace.dead.{namespace}.{flow}.{node}"),
        }
    }

    /// All messages of a subject of a stream; none while the broker is away.
    async fn messages(&self, stream: &str, subject: &str) -> Option<Vec<(bool, Value)>> {
        let stream = self.jetstream.get_stream(stream).await.ok()?;
        let (mut all, mut from) = (vec![], 1);
        loop {
            match stream.raw_message_builder().sequence(from).next_by_subject(subject).send().await {
                Ok(message) => {
                    from = message.sequence + 1;
                    let has_id = message.headers.get("Nats-Msg-Id").is_some();
                    all.push((has_id, serde_json::from_slice(&message.payload).unwrap()));
                }
                Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => return Some(all),
                Err(_) => return None,
            }
        }
    }

    async fn queued(&self) -> Option<Vec<(bool, Value)>> {
        self.messages(&self.stream, &self.subject).await
    }

    /// The due times of the ticks that are there, in the order in which they were stored.
    pub async fn ticks(&self) -> Vec<Timestamp> {
        let mut all = None;
        eventually(async || {
            all = self.queued().await;
            all.is_some()
        })
        .await;
        all.unwrap().iter().map(|(_, message)| due(message)).collect()
    }

    /// Waits until there are more than so many.
    pub async fn more_than(&self, count: usize) {
        let more = eventually(async || self.queued().await.is_some_and(|all| all.len() > count));
        assert!(more.await, "there are no more than {count} ticks: {:?}", self.ticks().await);
    }

    pub async fn first(&self) -> Value {
        self.queued().await.unwrap().remove(0).1
    }

    /// Whether no message has an id for the broker's deduplication.
    pub async fn without_ids(&self) -> bool {
        self.queued().await.unwrap().iter().all(|(has_id, _)| !has_id)
    }

    /// How many messages are left; none where even the stream is gone.
    pub async fn left(&self) -> usize {
        self.queued().await.map_or(0, |all| all.len())
    }

    /// The due times of the ticks that became dead letters.
    pub async fn dead(&self) -> Vec<Timestamp> {
        let all = self.messages("MILLRACE_DEAD", &self.dead).await.unwrap();
        all.iter().map(|(_, message)| due(message)).collect()
    }

    /// How many entries the ledger has.
    pub async fn ledger(&self) -> usize {
        self.messages(&self.stream, &self.ledger).await.map_or(0, |all| all.len())
    }

    /// Forgets all ticks, and up to when they were done.
    pub async fn forget_all(&self) {
        let stream = self.jetstream.get_stream(&self.stream).await.unwrap();
        for subject in [&self.subject, &self.ledger] {
            stream.purge().filter(subject.clone()).await.unwrap();
        }
    }

    /// Makes the broker forget ids after a short time.
    pub async fn forget_ids_after(&self, window: Duration) {
        let mut stream = self.jetstream.get_stream(&self.stream).await.unwrap();
        let mut config = stream.info().await.unwrap().config.clone();
        config.duplicate_window = window;
        self.jetstream.update_stream(config).await.unwrap();
    }
}

fn due(message: &Value) -> Timestamp {
    message["metadata"]["scheduledTime"].as_str().unwrap().parse().unwrap()
}
