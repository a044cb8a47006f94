//! What it costs to start members in order and to keep them in the load balancer, on a real control plane with the real operator
//! and broker; kubelet and agents are fakes that do at once what they are told. Each figure stands beside what one write and one
//! hop of a watch cost in the same run.
//!
//! `MILLRACE_BENCH_GRAPHS` (20) says how many graphs of 50 start at once, `MILLRACE_BENCH_MEMBERS` (1000) how many members the
//! load balancer follows. A word after `--` names the one case to run: `chain`, `diamond`, `graphs` or `balancer`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "what cannot go on ends")]
#![allow(clippy::disallowed_methods, reason = "it writes to the apiserver as users do")]
#![allow(missing_docs, reason = "a program, not a library")]

#[path = "../tests/members/agents.rs"]
mod agents;
#[path = "members/balancer.rs"]
mod balancer;
#[path = "../tests/common/mod.rs"]
mod common;
#[path = "../tests/flows/install.rs"]
mod install;
#[path = "../tests/flows/kubelet.rs"]
mod kubelet;
#[path = "../tests/members/world.rs"]
mod world;
#[path = "members/writes.rs"]
mod writes;

use std::collections::HashMap;
use std::time::{Duration, Instant};

use futures::TryStreamExt as _;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::runtime::{WatchStreamExt as _, watcher};
use millrace::api::instance::Instance as Member;
use serde_json::json;
use world::{World, object};

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(run());
}

fn number(name: &str, otherwise: usize) -> usize {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

async fn run() {
    let world = World::start().await;
    let only = std::env::args().skip(1).find(|word| !word.starts_with("--"));
    let runs = |case: &str| only.as_ref().is_none_or(|only| only == case);
    baseline(&world).await;
    status(&world).await;
    let _operator = world.install.operator("operator-0", &[]);
    if runs("chain") {
        chain(&world, 100).await;
    }
    if runs("diamond") {
        diamond(&world, 1000).await;
    }
    if runs("graphs") {
        graphs(&world, number("MILLRACE_BENCH_GRAPHS", 20)).await;
    }
    if runs("balancer") {
        balancer::run(&world, number("MILLRACE_BENCH_MEMBERS", 1000)).await;
    }
}

/// Prints the median and the 99th percentile of some times.
fn print(what: &str, mut times: Vec<Duration>) {
    times.sort();
    let at =
        |share: usize| times.get((times.len() * share / 100).min(times.len().saturating_sub(1))).copied();
    println!(
        "{what}: {} times, p50 {:.1?}, p99 {:.1?}, most {:.1?}",
        times.len(),
        at(50).unwrap_or_default(),
        at(99).unwrap_or_default(),
        times.last().copied().unwrap_or_default()
    );
}

/// One write and one hop of a watch, one after the other.
async fn baseline(world: &World) {
    world.namespace("base").await;
    let api: Api<ConfigMap> = world.api("base");
    let map = ConfigMap {
        metadata: kube::core::ObjectMeta { name: Some("x".into()), ..Default::default() },
        ..Default::default()
    };
    api.create(&PostParams::default(), &map).await.unwrap();
    let mut seen =
        Box::pin(watcher(api.clone(), watcher::Config::default()).default_backoff().applied_objects());
    seen.try_next().await.unwrap();
    let mut times = vec![];
    for round in 0..200 {
        let began = Instant::now();
        let change = json!({"data": {"round": round.to_string()}});
        api.patch("x", &PatchParams::default(), &Patch::Merge(change)).await.unwrap();
        seen.try_next().await.unwrap();
        times.push(began.elapsed());
    }
    print("a write and a hop of a watch", times);
}

/// The same with what an operator writes: the status of an Instance, by server-side apply. Nobody else follows it yet.
async fn status(world: &World) {
    let instance = object("Instance", "x", &json!({"cartridge": {"name": "none"}}));
    world.make::<Member>("base", instance).await;
    let api: Api<Member> = world.api("base");
    let mut seen =
        Box::pin(watcher(api.clone(), watcher::Config::default()).default_backoff().applied_objects());
    seen.try_next().await.unwrap();
    let condition = |kind: &str| {
        json!({
            "type": kind, "status": "True", "reason": "Active", "message": "its ports answer",
            "observedGeneration": 1, "lastTransitionTime": "2026-01-01T00:00:00Z",
        })
    };
    let conditions = ["Ready", "Accepted", "ImportsResolved", "Started", "Serving"].map(condition);
    let mut times = vec![];
    for round in 0..200 {
        let began = Instant::now();
        let exports = json!([{"name": "port", "value": round.to_string()}]);
        let status = json!({"phase": "Active", "exports": exports, "conditions": conditions});
        let change = json!({"apiVersion": "millrace.dev/v1alpha1", "kind": "Instance", "status": status});
        api.patch_status("x", &PatchParams::apply("bench").force(), &Patch::Apply(change)).await.unwrap();
        seen.try_next().await.unwrap();
        times.push(began.elapsed());
    }
    print("a write of the status of an Instance and a hop of a watch", times);
}

/// Waits until so many applications were started in a namespace, and gives when each was, and when each served.
async fn started(
    world: &World,
    prefix: &str,
    count: usize,
) -> (HashMap<String, Instant>, HashMap<String, Instant>) {
    let end = Instant::now() + Duration::from_secs(600);
    loop {
        let starts: HashMap<_, _> = world
            .agents
            .starts()
            .into_iter()
            .filter(|start| start.instance.starts_with(prefix))
            .map(|start| {
                assert!(
                    start.imports.values().all(|members| !members.is_empty()),
                    "started before its imports: {start:?}"
                );
                (start.instance, start.at)
            })
            .collect();
        if starts.len() == count {
            return (starts, world.agents.shared.lock().unwrap().served.clone());
        }
        assert!(Instant::now() < end, "{} of {count} started", starts.len());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn chain(world: &World, length: usize) {
    world.namespace("chain").await;
    for at in (0..length).rev() {
        let import = (at > 0).then(|| format!("c{}", at - 1));
        let imports: Vec<_> = import.iter().map(String::as_str).collect();
        world.cartridge("chain", &format!("c{at}"), &imports).await;
        if at > 0 {
            world.cluster("chain", &format!("c{at}"), json!({})).await;
        }
    }
    waiting(world, "chain", length - 1).await;
    world.cluster("chain", "c0", json!({})).await;
    let (starts, served) = started(world, "chain/", length).await;
    let hop =
        |at: usize| starts[&format!("chain/c{at}-0")].duration_since(served[&format!("chain/c{}-0", at - 1)]);
    print("a chain of 100, each hop from serving to the next one's start", (1..length).map(hop).collect());
}

/// Waits until so many Instances have a pod and wait for an import.
async fn waiting(world: &World, namespace: &str, count: usize) {
    let end = Instant::now() + Duration::from_secs(600);
    loop {
        let phases = world.phases(namespace).await;
        if phases.values().filter(|phase| *phase == "Unresolved").count() == count {
            return;
        }
        assert!(Instant::now() < end, "{phases:?}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

async fn diamond(world: &World, size: usize) {
    world.namespace("diamond").await;
    for (name, imports) in [("root", &[][..]), ("mid", &["root"]), ("sink", &["mid"])] {
        world.cartridge("diamond", name, imports).await;
    }
    let middle = size - 2;
    world.cluster("diamond", "mid", json!({"replicas": middle})).await;
    world.cluster("diamond", "sink", json!({})).await;
    waiting(world, "diamond", size - 1).await;
    let began = Instant::now();
    world.cluster("diamond", "root", json!({})).await;
    let (starts, served) = started(world, "diamond/", size).await;
    let root = served["diamond/root-0"];
    let mids = starts
        .iter()
        .filter(|(name, _)| name.starts_with("diamond/mid-"))
        .map(|(_, at)| at.duration_since(root));
    print("a diamond of 1,000, from the root's serving to the starts of its 998", mids.collect());
    println!("a diamond of 1,000, all started {:.2?} after the root was applied", began.elapsed());
}

async fn graphs(world: &World, count: usize) {
    for graph in 0..count {
        let namespace = format!("graph-{graph}");
        world.namespace(&namespace).await;
        for (name, imports) in [("root", &[][..]), ("mid", &["root"]), ("sink", &["mid"])] {
            world.cartridge(&namespace, name, imports).await;
        }
        world.cluster(&namespace, "mid", json!({"replicas": 48})).await;
        world.cluster(&namespace, "sink", json!({})).await;
    }
    for graph in 0..count {
        waiting(world, &format!("graph-{graph}"), 49).await;
    }
    for graph in 0..count {
        world.cluster(&format!("graph-{graph}"), "root", json!({})).await;
    }
    let (starts, served) = started(world, "graph-", count * 50).await;
    let hop = |(name, at): (&String, &Instant)| {
        let (namespace, member) = name.split_once('/').unwrap();
        member.starts_with("mid-").then(|| at.duration_since(served[&format!("{namespace}/root-0")]))
    };
    print(
        &format!("{count} graphs of 50 at once, from the root's serving to the starts of its 48"),
        starts.iter().filter_map(hop).collect(),
    );
}
