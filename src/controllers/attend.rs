//! How the broker is: whether it answers, keeps what it acknowledges, and has what the whole install shares.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;

use crate::broker::Broker;
use crate::broker::credentials::Issuer;
use crate::broker::settings::{self, Allowance};
use crate::broker::streams::Streams;

/// How long until what is wrong is looked at again.
const AGAIN: Duration = Duration::from_secs(5);

/// How the settings of the server are checked.
#[derive(Clone, Debug)]
pub struct Check {
    /// Where its monitoring answers; none where there is none.
    pub monitoring: Option<String>,
    /// What this install lives with.
    pub allowed: Vec<Allowance>,
}

/// The broker, attended to.
pub struct Attendance {
    broker: Broker,
    streams: Streams,
    issuer: Issuer,
    check: Check,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// What is wrong; none where all is well.
    trouble: Option<String>,
    /// When the event log's stream was made: another time means another disk.
    made: Option<Timestamp>,
}

impl Attendance {
    /// Nothing is known of it yet.
    #[must_use]
    pub fn new(broker: Broker, streams: Streams, issuer: Issuer, check: Check) -> Self {
        let state = State { trouble: Some(away()), made: None };
        Self { broker, streams, issuer, check, state: Mutex::new(state) }
    }

    /// Its queues.
    #[must_use]
    pub const fn streams(&self) -> &Streams {
        &self.streams
    }

    /// Makes credentials for it.
    #[must_use]
    pub const fn issuer(&self) -> &Issuer {
        &self.issuer
    }

    /// Why it cannot be used, in words for a condition; none where it can.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        if !self.broker.connected() {
            return Some(away());
        }
        self.state().trouble.clone()
    }

    /// Whether it was ever there since this process began.
    #[must_use]
    pub fn is_known(&self) -> bool {
        self.state().made.is_some()
    }

    /// Attends to it with each connection that is made; `changed` hears when it can be used again, and whether its disk is
    /// another than before. It does not end.
    pub async fn attend(self: Arc<Self>, changed: impl Fn(bool)) {
        let mut connections = self.broker.connections();
        loop {
            self.broker.wait_connected().await;
            connections.borrow_and_update();
            match self.prepare().await {
                Ok(made) => {
                    changed(self.usable(made));
                    if connections.changed().await.is_err() {
                        return;
                    }
                }
                Err(trouble) => {
                    self.unusable(trouble);
                    tokio::time::sleep(AGAIN).await;
                }
            }
        }
    }

    /// Takes note that it can be used, and says whether its disk is another than before.
    fn usable(&self, made: Timestamp) -> bool {
        let mut state = self.state();
        let another = state.made.replace(made).is_some_and(|before| before != made);
        if another {
            tracing::warn!("The message broker has lost its disk: queues are made anew");
            self.streams.forget_all();
        }
        if state.trouble.take().is_some() {
            tracing::info!("The message broker can be used");
        }
        another
    }

    fn unusable(&self, trouble: String) {
        let mut state = self.state();
        if state.trouble.as_ref() != Some(&trouble) {
            tracing::error!(trouble, "The message broker cannot be used");
            state.trouble = Some(trouble);
        }
    }

    /// Checks its settings, and makes what all share.
    async fn prepare(&self) -> Result<Timestamp, String> {
        match &self.check.monitoring {
            Some(url) => {
                let read = settings::read(url).await;
                let read = read.map_err(|error| format!("the message broker's monitoring: {error:#}"))?;
                tracing::info!(
                    sync_always = read.sync_always,
                    strict = read.strict,
                    max_payload = read.max_payload,
                    "The message broker says how it is set"
                );
                let objections = settings::objections(&read, &self.check.allowed);
                if !objections.is_empty() {
                    return Err(format!("the message broker may lose messages: {}", objections.join("; ")));
                }
            }
            None if self.check.allowed.contains(&Allowance::Unchecked) => {}
            None => {
                return Err(
                    "the message broker's settings cannot be checked: give --nats-monitoring-url, or allow \
                            'unchecked' by --nats-allow"
                        .into(),
                );
            }
        }
        self.streams.ensure_shared().await.map_err(|error| error.to_string())
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn away() -> String {
    "the message broker does not answer: look at the pods of Millrace's NATS".into()
}
