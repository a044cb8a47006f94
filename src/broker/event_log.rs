//! The durable event log: every transition of every object as a `CloudEvent`, each exactly once, whoever leads.
//!
//! Each is published with the sequence that its subject's last one has: where another has written meanwhile, it is read
//! again what is missing. It lags where the broker is away, and nothing waits for it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_nats::jetstream::stream::DirectGetErrorKind;
use async_nats::{HeaderMap, header};
use futures::StreamExt as _;
use k8s_openapi::jiff::Timestamp;
use kube::{Resource, ResourceExt as _};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::Notify;

use super::connect::{Broker, PublishError};
use super::subject;
use crate::api::name::NamespaceName;
use crate::api::transition::{Transition, Transitions};

/// How many objects are told of at a time.
const AT_ONCE: usize = 32;

/// An object whose transitions are told.
#[derive(Clone, Debug)]
pub struct Told {
    /// The subject of its transitions.
    pub subject: String,
    /// Where it is found in the API: `/apis/millrace.dev/v1alpha1/namespaces/shop/flows/orders`.
    pub source: String,
    /// Its uid.
    pub uid: String,
    /// Its transitions.
    pub transitions: Transitions,
    /// What those who follow the object want to know without reading all of it. None: nothing.
    pub details: Option<Value>,
    /// The object itself.
    pub resource: Value,
}

impl Told {
    /// What the log says of an object of ours in a namespace.
    pub fn of<K>(object: &K, namespace: &NamespaceName, transitions: Option<Transitions>) -> Self
    where
        K: Resource<DynamicType = ()> + Serialize,
    {
        let (plural, name) = (K::plural(&()), object.name_any());
        Self {
            subject: subject::event(namespace, &plural, &name),
            source: format!("{}/{name}", K::url_path(&(), Some(namespace.as_str()))),
            uid: object.uid().unwrap_or_default(),
            transitions: transitions.unwrap_or_default(),
            details: None,
            resource: serde_json::to_value(object).unwrap_or_default(),
        }
    }
}

/// Where the log of an object ends.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Last {
    /// The uid and counter of the last one; none where the subject is empty.
    of: Option<(String, i64)>,
    /// Its sequence in the stream; 0 where the subject is empty.
    sequence: u64,
}

/// What is to be published.
#[derive(Clone, Debug, PartialEq)]
enum Record<'a> {
    /// A transition.
    Move(&'a Transition),
    /// Transitions that nobody remembers: the first and the last counter.
    Gap(i64, i64),
}

impl Record<'_> {
    const fn counter(&self) -> i64 {
        match self {
            Self::Move(transition) => transition.counter,
            Self::Gap(_, last) => *last,
        }
    }
}

/// Tells transitions in the background.
#[derive(Clone)]
pub struct EventLog(Arc<Shared>);

struct Shared {
    broker: Broker,
    /// What the object's log lacks although it is older than this, it lacks because it was aged out.
    started: Timestamp,
    waiting: Mutex<HashMap<String, Told>>,
    /// By uid, the highest counter that is in the log.
    told: Mutex<HashMap<String, i64>>,
    more: Notify,
}

impl EventLog {
    /// Nothing is told yet. `started` is when this process began to lead.
    #[must_use]
    pub fn new(broker: Broker, started: Timestamp) -> Self {
        let (waiting, told, more) = (Mutex::default(), Mutex::default(), Notify::new());
        Self(Arc::new(Shared { broker, started, waiting, told, more }))
    }

    /// Takes note of an object's transitions. It never waits.
    pub fn tell(&self, object: Told) {
        if object.transitions.recent.is_empty() || self.has(&object.uid, last_of(&object.transitions)) {
            return;
        }
        lock(&self.0.waiting).insert(object.subject.clone(), object);
        self.0.more.notify_one();
    }

    /// Whether the log has an object's transition.
    #[must_use]
    pub fn has(&self, uid: &str, counter: i64) -> bool {
        lock(&self.0.told).get(uid).is_some_and(|told| *told >= counter)
    }

    /// Forgets an object that is gone.
    pub fn forget(&self, uid: &str) {
        lock(&self.0.told).remove(uid);
    }

    /// Publishes what it was told, for as long as the task runs; `done` hears of each object whose log is complete.
    pub async fn run(self, done: impl Fn(&Told)) {
        const PAUSE: Duration = Duration::from_secs(1);
        loop {
            self.0.more.notified().await;
            loop {
                self.0.broker.wait_connected().await;
                let all: Vec<Told> = lock(&self.0.waiting).drain().map(|(_, told)| told).collect();
                if all.is_empty() {
                    break;
                }
                let failed = AtomicBool::new(false);
                // Each on a subject of its own: those that are under way together share a commit.
                futures::stream::iter(all)
                    .for_each_concurrent(AT_ONCE, async |object| match self.complete(&object).await {
                        Ok(()) => done(&object),
                        Err(error) => {
                            tracing::debug!(subject = object.subject, %error, "Could not tell a transition yet");
                            failed.store(true, Ordering::Relaxed);
                            lock(&self.0.waiting).entry(object.subject.clone()).or_insert(object);
                        }
                    })
                    .await;
                if failed.load(Ordering::Relaxed) {
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    /// Publishes what the log of an object lacks.
    async fn complete(&self, object: &Told) -> Result<(), PublishError> {
        let mut last = self.last(&object.subject).await?;
        for record in missing(&object.uid, &object.transitions, &last, self.0.started) {
            let mut headers = HeaderMap::new();
            headers.insert(header::NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, last.sequence.to_string());
            let event = event(object, &record);
            headers.insert(header::NATS_MESSAGE_ID, event["id"].as_str().unwrap_or_default());
            let stored =
                self.0.broker.publish(object.subject.clone(), headers, event.to_string().into()).await?;
            last.sequence = stored.sequence;
        }
        lock(&self.0.told).insert(object.uid.clone(), last_of(&object.transitions));
        Ok(())
    }

    async fn last(&self, subject: &str) -> Result<Last, PublishError> {
        #[derive(Deserialize)]
        struct Id {
            id: String,
        }
        let refused = |error: &dyn ToString| PublishError::Refused(error.to_string());
        let stream = self.0.broker.jetstream.get_stream_no_info(subject::EVENTS).await;
        let stream = stream.map_err(|error| refused(&error))?;
        let found = match stream.direct_get_last_for_subject(subject).await {
            Ok(found) => found,
            Err(error) if error.kind() == DirectGetErrorKind::NotFound => return Ok(Last::default()),
            Err(error) => return Err(refused(&error)),
        };
        let id = serde_json::from_slice::<Id>(&found.payload).ok();
        let of = id.and_then(|Id { id }| {
            let (uid, counter) = id.split_once('/')?;
            Some((uid.to_owned(), counter.parse().ok()?))
        });
        Ok(Last { of, sequence: found.sequence })
    }
}

/// What the log of an object lacks.
fn missing<'a>(uid: &str, transitions: &'a Transitions, last: &Last, started: Timestamp) -> Vec<Record<'a>> {
    let recent = || transitions.recent.iter();
    let Some((_, told)) = last.of.as_ref().filter(|(of, _)| of == uid) else {
        // Nothing is there of this object: it is new, or its transitions are older than what the log keeps.
        let new = recent().any(|transition| transition.counter == 1);
        return recent().filter(|it| new || it.time.0 >= started).map(Record::Move).collect();
    };
    let moves: Vec<_> = recent().filter(|transition| transition.counter > *told).collect();
    let first = moves.first().map_or(last_of(transitions) + 1, |transition| transition.counter);
    let gap = (first > told + 1).then_some(Record::Gap(told + 1, first - 1));
    gap.into_iter().chain(moves.into_iter().map(Record::Move)).collect()
}

fn last_of(transitions: &Transitions) -> i64 {
    transitions
        .recent
        .iter()
        .map(|transition| transition.counter)
        .chain(transitions.counter)
        .max()
        .unwrap_or(0)
}

/// A record in the form of a `CloudEvent`, in structured mode.
fn event(object: &Told, record: &Record) -> Value {
    let (kind, time, data) = match record {
        Record::Move(transition) => (
            kind(&transition.event),
            Some(&transition.time),
            json!({"event": transition.event, "counter": transition.counter, "resource": object.resource}),
        ),
        Record::Gap(first, last) => {
            ("dev.millrace.gap".into(), None, json!({"firstMissing": first, "lastMissing": last}))
        }
    };
    let mut data = data;
    if let Some(details) = &object.details {
        data["details"] = details.clone();
    }
    let mut event = json!({
        "specversion": "1.0", "id": format!("{}/{}", object.uid, record.counter()), "source": object.source,
        "type": kind, "datacontenttype": "application/json", "data": data,
    });
    if let Some(time) = time {
        event["time"] = json!(time);
    }
    event
}

/// The type of a transition's event: `FlowStarted` is `dev.millrace.flow.started`.
fn kind(event: &str) -> String {
    let mut kind = "dev.millrace".to_owned();
    for c in event.chars() {
        if c.is_ascii_uppercase() {
            kind.push('.');
        }
        kind.push(c.to_ascii_lowercase());
    }
    kind
}

fn lock<T>(of: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;

    fn transitions(counters: std::ops::RangeInclusive<i64>) -> Transitions {
        let recent = counters.clone().map(|counter| Transition {
            counter,
            event: "FlowStarted".into(),
            time: Time(Timestamp::from_second(counter).unwrap()),
        });
        Transitions { counter: Some(*counters.end()), recent: recent.collect() }
    }

    fn lacks(transitions: &Transitions, told: Option<(&str, i64)>, started: i64) -> Vec<String> {
        let last = Last { of: told.map(|(uid, counter)| (uid.into(), counter)), sequence: 9 };
        let missing = missing("u", transitions, &last, Timestamp::from_second(started).unwrap());
        let text = |record: &Record| match record {
            Record::Move(transition) => transition.counter.to_string(),
            Record::Gap(first, last) => format!("gap {first}-{last}"),
        };
        missing.iter().map(text).collect()
    }

    #[test]
    fn an_object_is_told_of_by_where_it_is_found() {
        let flow: crate::api::flow::Flow = serde_json::from_value(json!({
            "apiVersion": "millrace.dev/v1alpha1", "kind": "Flow",
            "metadata": {"name": "orders", "namespace": "shop", "uid": "u"},
            "spec": {"trigger": {"webhook": {"methods": ["POST"]}}, "graph": {"nodes": []}},
        }))
        .unwrap();
        let told = Told::of(&flow, &"shop".parse().unwrap(), Some(transitions(1..=2)));
        assert_eq!(told.subject, "millrace.event.shop.flows.orders");
        assert_eq!(told.source, "/apis/millrace.dev/v1alpha1/namespaces/shop/flows/orders");
        assert_eq!((told.uid.as_str(), told.transitions.counter), ("u", Some(2)));
        assert_eq!(told.resource["kind"], "Flow");
    }

    #[test]
    fn what_is_missing_is_told_and_what_nobody_remembers_is_a_gap() {
        assert_eq!(lacks(&transitions(1..=3), None, 100), ["1", "2", "3"]);
        assert_eq!(lacks(&transitions(1..=3), Some(("u", 1)), 100), ["2", "3"]);
        assert_eq!(lacks(&transitions(1..=3), Some(("u", 3)), 100), Vec::<String>::new());
        assert_eq!(
            lacks(&transitions(5..=12), Some(("u", 2)), 100),
            ["gap 3-4", "5", "6", "7", "8", "9", "10", "11", "12"]
        );
    }

    #[test]
    fn where_the_log_is_empty_only_what_is_younger_than_the_leader_or_new_is_told() {
        assert_eq!(lacks(&transitions(5..=7), None, 6), ["6", "7"]);
        assert_eq!(lacks(&transitions(5..=7), None, 100), Vec::<String>::new());
        assert_eq!(lacks(&transitions(1..=2), Some(("another", 40)), 100), ["1", "2"]);
    }

    #[test]
    fn the_type_of_an_event_is_its_reason_in_dots() {
        assert_eq!(kind("FlowStarted"), "dev.millrace.flow.started");
    }
}
