//! Kubernetes Events: what people read in `kubectl describe`. Nothing waits for them, and nothing depends on them.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use tokio::sync::mpsc;

use crate::api::condition::bounded;

/// The most bytes of a note.
const NOTE_MAX: usize = 1024;
/// How many wait to be sent; more are dropped.
const WAITING: usize = 1024;
/// How many one object may send at once, and how long it takes until it may send one more.
const BURST: u32 = 25;
const REFILL: Duration = Duration::from_secs(5);
/// The pause between any two.
const PACE: Duration = Duration::from_millis(10);
const LIMIT: Duration = Duration::from_secs(10);

/// Something to tell about an object.
#[derive(Clone, Debug)]
pub struct Note {
    /// Whom it is about.
    pub about: ObjectReference,
    /// Whether it is unexpected.
    pub warning: bool,
    /// One word: what happened.
    pub reason: String,
    /// One word: what was being done.
    pub action: &'static str,
    /// The story.
    pub text: String,
}

/// Takes notes and sends them when it can.
#[derive(Clone, Debug)]
pub struct Announcer(mpsc::Sender<Note>);

impl Announcer {
    /// Starts to send, in the name of a controller and its pod, until the last one that can announce is gone.
    #[must_use]
    pub fn start(client: Client, instance: String) -> Self {
        let (sender, notes) = mpsc::channel(WAITING);
        let reporter = Reporter { controller: "millrace.dev/operator".into(), instance: Some(instance) };
        tokio::spawn(send(Recorder::new(client, reporter), notes));
        Self(sender)
    }

    /// Takes a note. It never waits: where too many wait already, this one is dropped.
    pub fn announce(&self, note: Note) {
        if self.0.try_send(note).is_err() {
            tracing::debug!("An event was dropped: too many wait");
        }
    }
}

async fn send(recorder: Recorder, mut notes: mpsc::Receiver<Note>) {
    let mut budgets = Budgets::default();
    while let Some(note) = notes.recv().await {
        let uid = note.about.uid.clone().unwrap_or_default();
        if !budgets.spend(uid, Instant::now()) {
            continue;
        }
        let event = Event {
            type_: if note.warning { EventType::Warning } else { EventType::Normal },
            reason: note.reason,
            note: Some(bounded(&note.text, NOTE_MAX)),
            action: note.action.into(),
            secondary: None,
        };
        match tokio::time::timeout(LIMIT, recorder.publish(&event, &note.about)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "An event was not taken"),
            Err(_) => tracing::debug!("An event was not taken in time"),
        }
        tokio::time::sleep(PACE).await;
    }
}

/// How many each object may still send.
#[derive(Debug, Default)]
struct Budgets(HashMap<String, (u32, Instant)>);

impl Budgets {
    fn spend(&mut self, uid: String, now: Instant) -> bool {
        // Those that are full again need not be remembered.
        if self.0.len() > 10_000 {
            self.0.retain(|_, (_, since)| now.duration_since(*since) < REFILL * BURST);
        }
        let (left, since) = self.0.entry(uid).or_insert((BURST, now));
        let regained =
            u32::try_from(now.duration_since(*since).as_millis() / REFILL.as_millis()).unwrap_or(BURST);
        if regained > 0 {
            *left = left.saturating_add(regained).min(BURST);
            *since = now;
        }
        if *left == 0 {
            return false;
        }
        *left -= 1;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_may_send_a_burst_and_then_one_at_a_time() {
        let (mut budgets, now) = (Budgets::default(), Instant::now());
        let sent = (0..100).filter(|_| budgets.spend("a".into(), now)).count();
        assert_eq!(sent, 25);
        assert!(budgets.spend("b".into(), now));
        assert!(budgets.spend("a".into(), now + REFILL));
        assert!(!budgets.spend("a".into(), now + REFILL));
    }
}
