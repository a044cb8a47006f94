//! What the operator tells runners (`desired`), and what they answer (`observed`), by key.
//!
//! A value is read once and then kept as the broker tells of it, so that a broker that is away takes nothing from what is
//! known.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use async_nats::jetstream::stream::DirectGetErrorKind;
use async_nats::{HeaderMap, header};
use bytes::Bytes;
use futures::StreamExt as _;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::connect::{Broker, PublishError};
use super::streams::StreamError;
use super::subject;

/// The header that marks a key as removed.
const OPERATION: &str = "KV-Operation";

/// One bucket, as the operator sees it.
#[derive(Clone, Debug)]
pub struct Bucket {
    broker: Broker,
    name: &'static str,
    known: Arc<Mutex<HashMap<String, Value>>>,
}

/// A value of a bucket.
#[derive(Clone, Debug)]
struct Value {
    /// None where there is none, or no more.
    payload: Option<Bytes>,
    /// Its place in the bucket's stream: the higher one is the later.
    sequence: u64,
    /// Whether all that happened since has been heard.
    fresh: bool,
}

impl Bucket {
    /// Opens a bucket.
    #[must_use]
    pub fn new(broker: Broker, name: &'static str) -> Self {
        Self { broker, name, known: Arc::default() }
    }

    /// Listens to what is stored, and tells of each key that changes, for as long as `changed` wants to hear it.
    pub async fn listen(self, changed: impl Fn(&str)) {
        let mut connections = self.broker.connections();
        let prefix = subject::stored(self.name, "");
        loop {
            self.broker.wait_connected().await;
            let subscribed = self.broker.client.subscribe(subject::stored(self.name, ">")).await;
            let Ok(mut stored) = subscribed else {
                tracing::warn!(bucket = self.name, "Could not listen to a bucket");
                let _ = connections.changed().await;
                continue;
            };
            loop {
                tokio::select! {
                    message = stored.next() => {
                        let Some(message) = message else { break };
                        let Some(key) = message.subject.strip_prefix(&*prefix) else { continue };
                        let headers = message.headers.unwrap_or_default();
                        let sequence = number(&headers, header::NATS_SEQUENCE.as_ref());
                        self.learn(key, payload(&headers, message.payload), sequence);
                        changed(key);
                    }
                    // What was stored while nobody listened is read when somebody asks.
                    again = connections.changed() => {
                        if again.is_err() { return }
                        for key in self.doubt() { changed(&key); }
                    }
                }
            }
        }
    }

    /// The value of a key; none where there is none. What is known stays true while the broker is away.
    ///
    /// # Errors
    /// Nothing is known of it, and the broker does not answer.
    pub async fn get<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>, StreamError> {
        let known = self.lock().get(key).cloned();
        let payload = match known {
            Some(Value { payload, fresh: true, .. }) => payload,
            known => match self.read(key).await {
                Ok(payload) => payload,
                Err(error) => known.ok_or(error)?.payload,
            },
        };
        Ok(payload.and_then(|payload| self.parse(key, &payload)))
    }

    async fn read(&self, key: &str) -> Result<Option<Bytes>, StreamError> {
        let failed = |error: &dyn ToString| StreamError::new("read a bucket", error);
        if !self.broker.connected() {
            return Err(failed(&"it is away"));
        }
        let stream = self.broker.jetstream.get_stream_no_info(format!("KV_{}", self.name)).await;
        let stream = stream.map_err(|error| failed(&error))?;
        match stream.direct_get_last_for_subject(subject::written(self.name, key)).await {
            Ok(found) => {
                let value = payload(&found.headers, found.payload);
                self.learn(key, value.clone(), found.sequence);
                Ok(value)
            }
            Err(error) if error.kind() == DirectGetErrorKind::NotFound => {
                self.learn_none(key);
                Ok(None)
            }
            Err(error) => Err(failed(&error)),
        }
    }

    /// Sets a key.
    ///
    /// # Errors
    /// It is not known to be stored.
    pub async fn put<T: Serialize>(&self, key: &str, value: &T) -> Result<(), PublishError> {
        let payload = serde_json::to_vec(value).map_err(|error| PublishError::Refused(error.to_string()))?;
        self.write(key, HeaderMap::new(), Some(payload.into())).await
    }

    /// Removes a key.
    ///
    /// # Errors
    /// It is not known to be removed.
    pub async fn delete(&self, key: &str) -> Result<(), PublishError> {
        let mut headers = HeaderMap::new();
        headers.insert(OPERATION, "DEL");
        self.write(key, headers, None).await
    }

    async fn write(&self, key: &str, headers: HeaderMap, payload: Option<Bytes>) -> Result<(), PublishError> {
        let written = subject::written(self.name, key);
        let stored = self.broker.publish(written, headers, payload.clone().unwrap_or_default()).await?;
        self.learn(key, payload, stored.sequence);
        Ok(())
    }

    fn learn(&self, key: &str, payload: Option<Bytes>, sequence: u64) {
        let mut known = self.lock();
        match known.get_mut(key) {
            Some(value) if value.sequence > sequence => value.fresh = true,
            _ => drop(known.insert(key.to_owned(), Value { payload, sequence, fresh: true })),
        }
    }

    /// There is nothing, unless something was heard of since it was asked for.
    fn learn_none(&self, key: &str) {
        let mut known = self.lock();
        if known.get(key).is_none_or(|value| !value.fresh) {
            known.insert(key.to_owned(), Value { payload: None, sequence: 0, fresh: true });
        }
    }

    /// What is known of a key without asking; none where nothing is.
    #[must_use]
    pub fn known<T: DeserializeOwned>(&self, key: &str) -> Option<T> {
        let payload = self.lock().get(key)?.payload.clone()?;
        self.parse(key, &payload)
    }

    fn parse<T: DeserializeOwned>(&self, key: &str, payload: &[u8]) -> Option<T> {
        let parsed = serde_json::from_slice(payload);
        parsed
            .inspect_err(|error| {
                tracing::warn!(bucket = self.name, key, %error, "A value in a bucket is no JSON of its kind");
            })
            .ok()
    }

    /// Forgets everything: the bucket is another one, made anew.
    pub fn forget_all(&self) {
        self.lock().clear();
    }

    /// Says of all that is known that it may have changed.
    fn doubt(&self) -> Vec<String> {
        let mut known = self.lock();
        known.values_mut().for_each(|value| value.fresh = false);
        known.keys().cloned().collect()
    }

    /// Forgets a key that nobody will ask for again.
    pub fn forget(&self, key: &str) {
        self.lock().remove(key);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Value>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn payload(headers: &HeaderMap, payload: Bytes) -> Option<Bytes> {
    (headers.get(OPERATION).is_none() && !payload.is_empty()).then_some(payload)
}

fn number(headers: &HeaderMap, name: &str) -> u64 {
    headers.get(name).and_then(|value| value.as_str().parse().ok()).unwrap_or_default()
}
