//! How late ticks are when many schedules are due in the same second, and what a schedule costs: `make bench-ticks`.
//!
//! The real scheduler against a real broker that syncs before it acknowledges. Late is from the due time to the time at
//! which the broker stored the message. The peer in the same run publishes the same messages one by one, 512 at a time,
//! without any promise about those that are published twice.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a measurement that cannot go on ends")]

use std::collections::{BTreeSet, HashSet};

use async_nats::jetstream::stream::Config;
use clap::Parser;
use futures::{StreamExt as _, stream};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::runtime::reflector::{self, ObjectRef, Store};
use kube::runtime::watcher::Event;
use millrace::api::flow::Flow;
use millrace::api::flow::route::TriggerHash;
use millrace::broker::streams::{LimitArgs, Streams};
use millrace::broker::ticks::{Last, Ticks};
use millrace::broker::{self, Broker, BrokerArgs};
use millrace::clock::{Clock as _, Wall, now};
use millrace::metrics::Metrics;
use millrace::runtime::Fence;
use millrace::scheduler::timetable::{Command, Timetable};
use millrace::scheduler::{Scheduler, SchedulerMetrics, Taken};
use rig::Nats;
use serde_json::{Value, json};
use tokio::sync::mpsc;

/// The seconds between two due times: each is long over when the next one comes.
const PERIOD: i64 = 10;
const ROUNDS: usize = 3;

#[derive(Parser)]
struct Args {
    #[command(flatten)]
    broker: BrokerArgs,
    #[command(flatten)]
    limits: LimitArgs,
}

fn flow(namespace: &str, name: &str, armed: Timestamp) -> Flow {
    let schedule = format!("*/{PERIOD} * * * * *");
    let mut flow: Flow = serde_json::from_value(json!({
        "apiVersion": "millrace.dev/v1alpha1", "kind": "Flow",
        "metadata": {
            "name": name, "namespace": namespace, "uid": format!("{namespace}-{name}-0000-0000-000000000000"),
            "generation": 1, "resourceVersion": "1",
        },
        "spec": {"trigger": {"cron": {"schedule": schedule}}, "graph": {"nodes": [{"id": "a", "builtin": "log"}]}},
    }))
    .unwrap();
    let condition = json!({
        "type": "TriggerArmed", "status": "True", "reason": "TriggerArmed", "message": "", "lastTransitionTime": armed,
    });
    flow.status = serde_json::from_value(json!({
        "observedGeneration": 1, "entry": "a", "armedTrigger": TriggerHash::of(&flow.spec.trigger).as_str(),
        "conditions": [condition],
    }))
    .unwrap();
    flow
}

/// The due time that comes next, with some seconds to get ready.
fn next_due() -> Timestamp {
    let second = (now().as_second() + 3).div_euclid(PERIOD) * PERIOD + PERIOD;
    Timestamp::from_second(second).unwrap()
}

/// Least, half, most: in milliseconds.
fn print(what: &str, mut late: Vec<f64>, expected: usize) {
    late.sort_by(f64::total_cmp);
    assert_eq!(late.len(), expected, "{what}: each is there once");
    let at = |part: usize| late[(late.len() - 1) * part / 1000];
    println!("{what:<58} {:>8.1} {:>8.1} {:>8.1} {:>8.1}", at(0), at(500), at(990), at(1000));
}

/// How late each message of a subject was that is due at a time; each is there once.
async fn late(broker: &Broker, namespaces: &[String], due: Timestamp) -> Vec<f64> {
    let mut all = vec![];
    for namespace in namespaces {
        let stream = broker.jetstream.get_stream(format!("MR_{namespace}")).await.unwrap();
        let info = stream.get_info().await.unwrap();
        let read = |sequence| {
            let stream = stream.clone();
            async move { stream.get_raw_message(sequence).await.ok() }
        };
        let range = info.state.first_sequence..=info.state.last_sequence;
        let mut messages = stream::iter(range).map(read).buffered(256);
        let mut seen = HashSet::new();
        while let Some(message) = messages.next().await {
            let Some(message) = message.filter(|message| message.subject.starts_with("millrace.flow."))
            else {
                continue;
            };
            let payload: Value = serde_json::from_slice(&message.payload).unwrap();
            if payload["metadata"]["scheduledTime"] == due.to_string().as_str() {
                assert!(seen.insert(message.subject.to_string()), "{} came twice", message.subject);
                let stored = Timestamp::from_nanosecond(message.time.unix_timestamp_nanos()).unwrap();
                all.push(stored.duration_since(due).as_secs_f64() * 1e3);
            }
        }
    }
    all
}

/// Everything that is read by the scheduler.
fn store(namespaces: &[String], each: usize) -> Store<Flow> {
    let (flows, mut writer) = reflector::store::<Flow>();
    writer.apply_watcher_event(&Event::Init);
    for namespace in namespaces {
        for number in 0..each {
            writer.apply_watcher_event(&Event::InitApply(flow(namespace, &format!("f{number}"), now())));
        }
    }
    writer.apply_watcher_event(&Event::InitDone);
    flows
}

async fn measure(broker: &Broker, limits: LimitArgs, spaces: usize, each: usize) {
    let namespaces: Vec<_> = (0..spaces).map(|number| format!("n{spaces}-{each}-{number}")).collect();
    let streams = Streams::new(broker.clone(), limits, Fence::open());
    for namespace in &namespaces {
        // One queue makes the stream; nobody takes anything here.
        let (namespace, flow, node) =
            (namespace.parse().unwrap(), "x".parse().unwrap(), "x".parse().unwrap());
        streams.ensure_queues(&namespace, &flow, &BTreeSet::from([node])).await.unwrap();
    }
    let scheduler = Scheduler {
        flows: store(&namespaces, each),
        ticks: Ticks::new(broker.clone(), Fence::open()),
        key: b"key".to_vec(),
        clock: Wall::new().unwrap(),
        taken: Taken::default(),
        metrics: SchedulerMetrics::new(&Metrics::default()),
    };
    let (_changes, heard) = mpsc::unbounded_channel();
    let running = tokio::spawn(scheduler.run(heard, |_| {}));
    // The first one also reads all ledgers.
    let wall = Wall::new().unwrap();
    for round in 0..=ROUNDS {
        let due = next_due();
        wall.reached(due + SignedDuration::from_secs(PERIOD / 2)).await;
        if round > 0 {
            let what = format!("{} schedules in {spaces} namespace(s)", spaces * each);
            print(&what, late(broker, &namespaces, due).await, spaces * each);
        }
    }
    running.abort();
    for namespace in &namespaces {
        broker.jetstream.delete_stream(format!("MR_{namespace}")).await.unwrap();
    }
}

/// The peer: each message by itself.
async fn one_by_one(broker: &Broker, count: usize) {
    let config = Config { name: "PEER".into(), subjects: vec!["peer.>".into()], ..Config::default() };
    broker.jetstream.create_stream(config).await.unwrap();
    let payload =
        json!({"id": "x".repeat(32), "body": {}, "metadata": {"scheduledTime": "2026-01-01T00:00:00Z"}});
    let payload = bytes::Bytes::from(payload.to_string());
    for _ in 0..ROUNDS {
        let due = next_due();
        Wall::new().unwrap().reached(due).await;
        let send = |number: usize| {
            let payload = payload.clone();
            async move {
                let sent = broker.jetstream.publish(format!("peer.{number}"), payload).await.unwrap();
                sent.await.unwrap();
                now().duration_since(due).as_secs_f64() * 1e3
            }
        };
        let late: Vec<_> = stream::iter(0..count).map(send).buffer_unordered(512).collect().await;
        print(&format!("peer: {count} published one by one, acknowledged"), late, count);
    }
    broker.jetstream.delete_stream("PEER").await.unwrap();
}

/// What one schedule costs beside the Flow itself, in bytes.
fn weigh() {
    const COUNT: usize = 100_000;
    let resident = || {
        let text = std::fs::read_to_string("/proc/self/statm").unwrap();
        text.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
    };
    let mut table = Timetable::default();
    let (before, now) = (resident(), now());
    for number in 0..COUNT {
        let name = format!("f{number}");
        let flow = flow("shop", &name, now);
        let commands = table.update(&ObjectRef::from_obj(&flow), Some(&flow), now);
        for command in commands {
            if let Command::Read(uid, ..) = command {
                table.read(&uid, Some(Last::default()), now);
            }
        }
    }
    let bytes = (resident() - before) / COUNT as u64;
    println!("{bytes} bytes a schedule, of {} (resident memory; the names in it included)", table.len());
}

#[tokio::main]
async fn main() {
    weigh();
    let nats = Nats::start().await.unwrap();
    let args = Args::parse_from(["bench", "--nats-url", nats.url()]);
    let broker = broker::connect(&args.broker, "bench", None).await.unwrap();
    broker.wait_connected().await;
    println!("{:<58} {:>8} {:>8} {:>8} {:>8}", "milliseconds late", "least", "p50", "p99", "most");
    for (spaces, each) in [(1, 1000), (10, 100), (1, 10_000), (10, 1000)] {
        measure(&broker, args.limits, spaces, each).await;
    }
    one_by_one(&broker, 1000).await;
    one_by_one(&broker, 10_000).await;
}
