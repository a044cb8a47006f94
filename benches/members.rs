//! What it costs to start members in order and to keep them in the load balancer, on a real control plane with the real operator
//! and broker; kubelet and agents are fakes that do at once what they are told. Each figure stands beside what one write and one
//! hop of a watch cost in the same run.
//!
//! `MILLRACE_BENCH_GRAPHS` (20) says how many graphs of 50 start at once, `MILLRACE_BENCH_MEMBERS` (1000) how many members the
//! load balancer follows.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "what cannot go on ends")]
#![allow(clippy::disallowed_methods, reason = "it writes to the apiserver as users do")]
#![allow(missing_docs, reason = "a program, not a library")]

#[path = "../tests/members/agents.rs"]
mod agents;
#[path = "../tests/common/mod.rs"]
mod common;
#[path = "../tests/flows/install.rs"]
mod install;
#[path = "../tests/flows/kubelet.rs"]
mod kubelet;
#[path = "../tests/members/world.rs"]
mod world;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures::TryStreamExt as _;
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::ResourceExt as _;
use kube::api::{Api, ListParams, Patch, PatchParams, PostParams};
use kube::runtime::{WatchStreamExt as _, watcher};
use millrace::api::cluster::Cluster;
use millrace::api::instance::Instance;
use millrace::broker::member::{MemberReport, Stage};
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
    let _operator = world.install.operator("operator-0", &[]);
    baseline(&world).await;
    chain(&world, 100).await;
    diamond(&world, 1000).await;
    graphs(&world, number("MILLRACE_BENCH_GRAPHS", 20)).await;
    membership(&world, number("MILLRACE_BENCH_MEMBERS", 1000)).await;
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

/// When each pod was first seen so, in or out.
type Seen = Arc<Mutex<HashMap<(String, bool), Instant>>>;

/// Members that stop and begin to serve, 200 times a second: how long until the load balancer has it.
async fn membership(world: &World, members: usize) {
    const EACH: usize = 10;
    const CHANGES: usize = 2000;
    world.namespace("members").await;
    world.cartridge("members", "app", &[]).await;
    let clusters = members / EACH;
    for at in 0..clusters {
        let spec =
            json!({"cartridge": {"name": "app"}, "replicas": EACH, "loadBalancer": {"drainSeconds": 0}});
        world.make::<Cluster>("members", object("Cluster", &format!("m{at}"), &spec)).await;
    }
    started(world, "members/", members).await;
    let ready = async || {
        let slices = world.list::<EndpointSlice>("members", &ListParams::default()).await;
        slices
            .iter()
            .flat_map(|slice| &slice.endpoints)
            .filter(|it| it.conditions.as_ref().and_then(|c| c.ready) == Some(true))
            .count()
    };
    while ready().await < members {
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    // When each pod was last seen to change, in the Instance and in the slice.
    let (instances, slices): (Seen, Seen) = Default::default();
    let pods = world.list::<k8s_openapi::api::core::v1::Pod>("members", &ListParams::default()).await;
    let uid_of: HashMap<String, String> =
        pods.iter().map(|pod| (pod.labels()["millrace.dev/instance"].clone(), pod.uid().unwrap())).collect();
    let (to, known) = (instances.clone(), uid_of.clone());
    let watched = watcher(world.api::<Instance>("members"), watcher::Config::default())
        .default_backoff()
        .applied_objects();
    tokio::spawn(watched.try_for_each(move |instance| {
        let conditions = instance.status.as_ref().map(|status| &status.conditions[..]).unwrap_or_default();
        let serving =
            millrace::api::condition::is_true(conditions, millrace::api::condition::ConditionType::Serving);
        if let Some(uid) = known.get(&instance.name_any()) {
            to.lock().unwrap().entry((uid.clone(), serving)).or_insert_with(Instant::now);
        }
        std::future::ready(Ok(()))
    }));
    let to = slices.clone();
    let watched = watcher(world.api::<EndpointSlice>("members"), watcher::Config::default())
        .default_backoff()
        .applied_objects();
    tokio::spawn(watched.try_for_each(move |slice| {
        for endpoint in &slice.endpoints {
            let ready =
                endpoint.conditions.as_ref().and_then(|conditions| conditions.ready).unwrap_or_default();
            let uid = endpoint.target_ref.as_ref().and_then(|target| target.uid.clone()).unwrap_or_default();
            to.lock().unwrap().entry((uid, ready)).or_insert_with(Instant::now);
        }
        std::future::ready(Ok(()))
    }));
    let mut times = vec![];
    let mut pace = tokio::time::interval(Duration::from_millis(5));
    for change in 0..CHANGES {
        pace.tick().await;
        // Far apart, so that no member changes again before it is counted.
        let (cluster, member) = (change * 7 % clusters, change / clusters % EACH);
        let name = format!("m{cluster}-{member}");
        let uid = uid_of[&name].clone();
        let serving = change / (clusters * EACH) % 2 == 1;
        for seen in [&instances, &slices] {
            seen.lock().unwrap().remove(&(uid.clone(), serving));
        }
        let stage = if serving { Stage::Serving } else { Stage::Running };
        let report = MemberReport { pod: uid.clone(), stage, starts: 1, ..MemberReport::default() };
        world.agents.say(&format!("instance.members.{name}"), &report).await;
        times.push((uid, serving));
    }
    tokio::time::sleep(Duration::from_secs(3)).await;
    let (instances, slices) = (instances.lock().unwrap(), slices.lock().unwrap());
    let lag = |key: &(String, bool)| Some(slices.get(key)?.saturating_duration_since(*instances.get(key)?));
    let lags: Vec<_> = times.iter().filter_map(lag).collect();
    println!("{} of {CHANGES} changes of {members} members in {clusters} Clusters were seen", lags.len());
    print("200 changes a second, from the Instance that was seen to the slice that was seen", lags);
}
