//! K3: the clock of the machine is set an hour forward and back. Each due time has one message at most.

use std::collections::BTreeSet;

use clap::Parser;
use futures::future::BoxFuture;
use k8s_openapi::jiff::Timestamp;
use kube::runtime::{reflector, watcher};
use millrace::api::flow::Flow;
use millrace::api::flow::route::TriggerHash;
use millrace::broker::streams::{LimitArgs, Streams};
use millrace::broker::ticks::Ticks;
use millrace::broker::{self, BrokerArgs};
use millrace::clock::Clock;
use millrace::metrics::Metrics;
use millrace::runtime::Fence;
use millrace::scheduler::{Scheduler, SchedulerMetrics, Taken};
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};

use crate::mill::{Mill, until};

/// A clock that shows what it is told to.
struct Hand(watch::Receiver<Timestamp>);

impl Clock for Hand {
    fn now(&self) -> Timestamp {
        *self.0.borrow()
    }

    fn reached(&self, time: Timestamp) -> BoxFuture<'_, ()> {
        let mut shown = self.0.clone();
        Box::pin(async move {
            let _ = shown.wait_for(|now| *now >= time).await;
        })
    }
}

#[derive(Parser)]
struct Args {
    #[command(flatten)]
    broker: BrokerArgs,
    #[command(flatten)]
    limits: LimitArgs,
}

/// A Flow that runs each minute, armed since a time.
fn each_minute(namespace: &str, armed: &str) -> Flow {
    let mut flow: Flow = serde_json::from_value(json!({
        "apiVersion": "millrace.dev/v1alpha1", "kind": "Flow",
        "metadata": {"name": "f", "namespace": namespace, "uid": "u1", "generation": 1, "resourceVersion": "1"},
        "spec": {"trigger": {"cron": {"schedule": "* * * * *"}}, "graph": {"nodes": [{"id": "a", "builtin": "log"}]}},
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

fn due(message: &Value) -> String {
    message["metadata"]["scheduledTime"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn k3_a_clock_that_jumps_an_hour_forward_and_back_gives_each_due_time_one_message_at_most() {
    let mill = Mill::start().await;
    let args = Args::try_parse_from(["test", "--nats-url", &mill.url]).unwrap();
    let broker = broker::connect(&args.broker, "test", None).await.unwrap();
    broker.wait_connected().await;
    let namespace = format!("{}-clock", mill.namespace);
    let streams = Streams::new(broker.clone(), args.limits, Fence::open());
    let (name, node) = (namespace.parse().unwrap(), "a".parse().unwrap());
    streams.ensure_queues(&name, &"f".parse().unwrap(), &BTreeSet::from([node])).await.unwrap();

    let (flows, mut writer) = reflector::store::<Flow>();
    writer.apply_watcher_event(&watcher::Event::Init);
    writer.apply_watcher_event(&watcher::Event::InitApply(each_minute(&namespace, "2026-03-01T12:00:00Z")));
    writer.apply_watcher_event(&watcher::Event::InitDone);
    let (set, shown) = watch::channel("2026-03-01T12:00:30Z".parse().unwrap());
    let (_changes, heard) = mpsc::unbounded_channel();
    let scheduler = Scheduler {
        flows,
        ticks: Ticks::new(broker, Fence::open()),
        key: b"key".to_vec(),
        clock: Hand(shown),
        taken: Taken::default(),
        metrics: SchedulerMetrics::new(&Metrics::default()),
    };
    let running = tokio::spawn(scheduler.run(heard, |_| {}));
    let mut expected = vec![];
    for (shows, next) in [
        ("12:01:00", Some("12:01:00")),
        // An hour forward: 59 due times are passed over, and the last one is made up.
        ("13:01:45", Some("13:01:00")),
        // An hour back: what was done is not done again.
        ("12:01:50", None),
        ("12:30:00", None),
        ("13:02:10", Some("13:02:00")),
    ] {
        set.send(format!("2026-03-01T{shows}Z").parse().unwrap()).unwrap();
        expected.extend(next.map(|next| format!("2026-03-01T{next}Z")));
        let stored = until(shows, async || {
            let all: Vec<_> = mill.queued_in(&namespace, "f", "a").await.iter().map(due).collect();
            (all.len() >= expected.len()).then_some(all)
        });
        assert_eq!(stored.await, expected, "at {shows}");
    }
    running.abort();
}
