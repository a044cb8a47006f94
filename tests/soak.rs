//! Ten flows with a schedule while operator, broker and pods die at random: no due time is left out, and each message is
//! stored once. It takes ten minutes (`MILLRACE_SOAK_SECONDS` says otherwise), so that it is run by hand: `make soak`.
//!
//! It needs root, and what `make program` builds.
#![cfg(feature = "node")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a helper that fails fails its test")]

#[path = "node/house.rs"]
mod house;
#[path = "node/processes.rs"]
mod processes;

use async_nats::jetstream;
use house::{House, SHOP, SYSTEM, eventually};
use jiff::{SignedDuration, Timestamp};
use millrace::clock::now;
use serde_json::{Value, json};

const FLOWS: usize = 10;
/// The seconds between two due times.
const PERIOD: i64 = 5;

/// A tick goes through a built-in and a component, and stays in the queue of the last node, where it can be counted.
fn flow(name: &str) -> Value {
    let jq = format!("{{body: {{id: (\"{name} \" + .metadata.scheduledTime)}}}}");
    json!({
        "apiVersion": "millrace.dev/v1alpha1", "kind": "Flow", "metadata": {"name": name},
        "spec": {
            "trigger": {"cron": {"schedule": format!("*/{PERIOD} * * * * *")}},
            "graph": {
                "nodes": [
                    {"id": "stamp", "builtin": "transform", "fields": {"jq": jq}},
                    {"id": "work", "image": "rig.local/component:test", "function": "enrich"},
                    {"id": "last", "builtin": "wait", "fields": {"duration": "24h"}},
                ],
                "edges": [
                    {"source": "stamp", "target": "work"},
                    {"source": "work", "target": "last", "condition": {"exists": "body.id"}},
                ],
            },
            "drainSeconds": 60,
        },
    })
}

/// What dies next. Containers that die again and again are started after longer and longer pauses, so that pods are deleted
/// more often than processes are killed.
async fn accident(house: &House, random: &mut fastrand::Rng) {
    let role = random.choice(["operator", "nats", "runner", "work"]).unwrap();
    let system = matches!(role, "operator" | "nats");
    let (namespace, selector) = match role {
        "work" => (SHOP, "millrace.dev/node=work".to_owned()),
        role => (if system { SYSTEM } else { SHOP }, format!("app.kubernetes.io/component={role}")),
    };
    if random.u8(0..8) == 0 {
        let role = if role == "work" { random.choice(["component", "agent"]).unwrap() } else { role };
        println!("{} kill -9: {role}", now());
        house.kill(role);
    } else {
        println!("{} deletion: {role}", now());
        house.delete_one_pod(namespace, &selector);
    }
    house.settled(namespace, &selector).await;
}

/// The due times that are stored for the last node of a flow.
async fn arrived(broker: &jetstream::Context, flow: &str) -> Vec<Timestamp> {
    let queue = format!("millrace.flow.{SHOP}.{flow}.last");
    let all = house::messages(broker, &format!("MR_{SHOP}"), &queue).await;
    let time = |message: &Value| {
        let id = message["body"]["id"].as_str().unwrap().to_owned();
        id.strip_prefix(&format!("{flow} ")).unwrap().parse::<Timestamp>().unwrap()
    };
    let mut times: Vec<_> = all.iter().map(time).collect();
    times.sort();
    times
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "it takes ten minutes: run it with `make soak`"]
async fn ten_schedules_lose_nothing_and_double_nothing_while_everything_dies() {
    let house = House::build().await;
    let names: Vec<_> = (0..FLOWS).map(|number| format!("flow-{number}")).collect();
    for name in &names {
        house.apply(&flow(name));
    }
    for name in &names {
        house.wait(name, "Active");
    }
    let seconds =
        std::env::var("MILLRACE_SOAK_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(600);
    let seed = fastrand::u64(..);
    println!("seed {seed}, {seconds} seconds");
    let (mut random, began) = (fastrand::Rng::with_seed(seed), now());
    let mut accidents = 0;
    while now().duration_since(began) < SignedDuration::from_secs(seconds) {
        accident(&house, &mut random).await;
        accidents += 1;
    }
    // What was due by now comes to its end; then nothing new is due.
    let over = now();
    let broker = house.broker().await;
    let (mut ticks, mut wrong) = (0, vec![]);
    for name in &names {
        let complete =
            eventually(async || arrived(&broker, name).await.last().is_some_and(|last| *last >= over));
        assert!(complete.await, "{name} stands still");
        // One that was tried again may come behind those after it.
        let whole = |times: &[Timestamp]| {
            times.windows(2).all(|pair| pair[1] == pair[0] + SignedDuration::from_secs(PERIOD))
        };
        let until = async || {
            let mut times = arrived(&broker, name).await;
            times.retain(|time| *time <= over);
            times
        };
        if !eventually(async || whole(&until().await)).await {
            wrong.push(format!("{name}: {:?}", until().await));
        }
        ticks += until().await.len();
    }
    println!("{accidents} accidents; {ticks} due times are stored for the last nodes, each once");
    assert_eq!(wrong, Vec::<String>::new(), "left out, or stored twice");
    for name in &names {
        house.wait(name, "Active");
    }
    let letters = house.kubectl(&[
        "-n",
        SYSTEM,
        "exec",
        "deploy/millrace-operator",
        "--",
        "/millrace",
        "dead-letters",
        "list",
        "-A",
    ]);
    assert_eq!(letters, "", "no message was given up");
}
