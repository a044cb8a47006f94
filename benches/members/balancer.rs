//! The load balancer's members: how long until a change is in it, what a member costs in writes, and what happens when all change
//! at once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::ResourceExt as _;
use kube::api::ListParams;
use kube::runtime::{WatchStreamExt as _, watcher};
use millrace::api::cluster::Cluster;
use millrace::api::condition::{ConditionType, is_true};
use millrace::api::instance::Instance;
use millrace::broker::member::{MemberReport, Stage};
use serde_json::json;

use crate::world::{World, object};
use crate::writes::Writes;
use crate::{print, started};

/// How many members each Cluster has.
const EACH: usize = 10;
/// How long anything may take.
const LIMIT: Duration = Duration::from_secs(600);

/// When each pod was first seen so, in or out.
type Seen = Arc<Mutex<HashMap<(String, bool), Instant>>>;

pub async fn run(world: &World, members: usize) {
    world.namespace("members").await;
    world.cartridge("members", "app", &[]).await;
    let before = Writes::now(world).await;
    let began = Instant::now();
    for at in 0..members / EACH {
        let spec =
            json!({"cartridge": {"name": "app"}, "replicas": EACH, "loadBalancer": {"drainSeconds": 0}});
        world.make::<Cluster>("members", object("Cluster", &format!("m{at}"), &spec)).await;
    }
    started(world, "members/", members).await;
    wait_ready(world, members).await;
    println!("{members} members in Clusters of {EACH}, all in the load balancer: {:.1?}", began.elapsed());
    before.print(world, "the API's writes from creation to Active, those of the kubelet too", members).await;
    let pods = world.list::<Pod>("members", &ListParams::default()).await;
    let uids: HashMap<String, String> =
        pods.iter().map(|pod| (pod.labels()["millrace.dev/instance"].clone(), pod.uid().unwrap())).collect();
    for wished in [10, 200] {
        changes(world, &uids, wished).await;
    }
    for (stage, ready) in [(Stage::Running, 0), (Stage::Serving, members)] {
        let (before, began) = (Writes::now(world).await, Instant::now());
        let said = stream::iter(&uids).for_each_concurrent(64, |(name, uid)| say(world, name, uid, stage));
        said.await;
        wait_ready(world, ready).await;
        println!("{members} members at once to {stage:?}, in all slices after {:.1?}", began.elapsed());
        before.print(world, "the API's writes", members).await;
    }
}

async fn say(world: &World, name: &str, uid: &str, stage: Stage) {
    let report = MemberReport { pod: uid.into(), stage, starts: 1, ..MemberReport::default() };
    world.agents.say(&format!("instance.members.{name}"), &report).await;
}

/// Waits until so many members are ready in the slices.
async fn wait_ready(world: &World, members: usize) {
    let end = Instant::now() + LIMIT;
    loop {
        let slices = world.list::<EndpointSlice>("members", &ListParams::default()).await;
        let endpoints = slices.iter().flat_map(|slice| &slice.endpoints);
        let is_ready = |ready: Option<bool>| ready == Some(true);
        let ready =
            endpoints.filter(|it| is_ready(it.conditions.as_ref().and_then(|found| found.ready))).count();
        if ready == members {
            return;
        }
        assert!(Instant::now() < end, "{ready} of {members} are in the load balancer");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Members that stop and begin to serve, so many times a second or as often as this machine can: how long until the load
/// balancer has it.
async fn changes(world: &World, uids: &HashMap<String, String>, wished: u32) {
    const CHANGES: usize = 1000;
    let clusters = uids.len() / EACH;
    // Each of these stops and, when all have, serves again.
    let part = uids.len().min(CHANGES / 2);
    // When each pod was last seen to change, in the Instance and in the slice.
    let (instances, slices): (Seen, Seen) = Default::default();
    let (to, known) = (instances.clone(), uids.clone());
    let watched = watcher(world.api::<Instance>("members"), watcher::Config::default())
        .default_backoff()
        .applied_objects();
    tokio::spawn(watched.try_for_each(move |instance| {
        let conditions = instance.status.as_ref().map(|status| &status.conditions[..]).unwrap_or_default();
        let serving = is_true(conditions, ConditionType::Serving);
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
    let lag = |key: &(String, bool)| {
        let (instances, slices) = (instances.lock().unwrap(), slices.lock().unwrap());
        Some(slices.get(key)?.saturating_duration_since(*instances.get(key)?))
    };
    let seen = async |key: &(String, bool)| {
        let end = Instant::now() + LIMIT;
        loop {
            if let Some(lag) = lag(key) {
                return lag;
            }
            assert!(Instant::now() < end, "{key:?} was never seen");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let mut lags = vec![];
    // What was done to each member, and is not yet counted.
    let mut open: HashMap<String, bool> = HashMap::new();
    let mut pace = tokio::time::interval(Duration::from_secs(1) / wished);
    let began = Instant::now();
    for change in 0..CHANGES {
        pace.tick().await;
        let which = change % part;
        let (cluster, member) = (which * 7 % clusters, which / clusters % EACH);
        let name = format!("m{cluster}-{member}");
        let uid = uids[&name].clone();
        let serving = change % (2 * part) >= part;
        // A member changes again only when its last change was seen, or that might never be.
        if let Some(before) = open.remove(&uid) {
            lags.push(seen(&(uid.clone(), before)).await);
        }
        for seen in [&instances, &slices] {
            seen.lock().unwrap().remove(&(uid.clone(), serving));
        }
        let stage = if serving { Stage::Serving } else { Stage::Running };
        say(world, &name, &uid, stage).await;
        open.insert(uid, serving);
    }
    for key in open {
        lags.push(seen(&key).await);
    }
    let rate = f64::from(u32::try_from(CHANGES).unwrap()) / began.elapsed().as_secs_f64();
    let what = "from the Instance that was seen to the slice that was seen";
    print(&format!("{rate:.0} changes a second of {wished} wished for, {what}"), lags);
}
