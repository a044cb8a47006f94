//! What it costs to decide about 100,000 members, as ten Clusters of 10,000 each: at rest, where most looks end, and in the middle
//! of a rolling update. Pure: no server. Beside it stands what it costs to read the phase of as many members, which no planner
//! can do without.
#![allow(clippy::unwrap_used, reason = "what cannot go on ends")]
#![allow(missing_docs, reason = "a program, not a library")]

use std::collections::BTreeSet;
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;
use millrace::api::cluster::Cluster;
use millrace::api::instance::Instance;
use millrace::controllers::cluster::build::Identity;
use millrace::controllers::cluster::plan::{Plan, Step, plan};
use millrace::controllers::cluster::snapshot::Snapshot;
use serde_json::json;

const CLUSTERS: usize = 10;
const MEMBERS: usize = 10_000;
const ROUNDS: usize = 11;

fn main() {
    let cluster: Cluster = serde_json::from_value(json!({
        "apiVersion": "millrace.dev/v1alpha1", "kind": "Cluster",
        "metadata": {
            "namespace": "shop", "name": "web", "uid": "c1", "generation": 1, "finalizers": ["millrace.dev/members"],
        },
        "spec": {
            "cartridge": {"name": "web"}, "replicas": MEMBERS,
            "placement": {"partitions": [{"name": "east"}, {"name": "west"}]},
        },
    }))
    .unwrap();
    let identity = Identity::of(&cluster).unwrap();
    let cartridge = json!({"image": "web:1", "ports": [{"name": "http", "port": 80}]});
    let mut seen = Snapshot {
        cluster: Arc::new(cluster),
        now: Timestamp::from_second(1000).unwrap(),
        namespace_ending: false,
        cartridge: Ok(Arc::new(serde_json::from_value(cartridge).unwrap())),
        unfit: None,
        members: vec![],
        foreign: BTreeSet::new(),
        revisions: vec![],
        key: true,
        trouble: None,
        refused: None,
        announced: true,
    };
    let Plan { steps, .. } = plan(&identity, &seen);
    let revision = steps.iter().find_map(|step| match step {
        Step::CreateMember(member) => Some(member.revision.clone()),
        _ => None,
    });
    seen.members = (0..MEMBERS).map(|at| Arc::new(member(at, &revision.clone().unwrap()))).collect();
    measure("at rest", &identity, &seen);
    for at in (0..MEMBERS).filter(|at| at.is_multiple_of(2)) {
        seen.members[at] = Arc::new(member(at, "web-before"));
    }
    measure("half of them still to be updated", &identity, &seen);
}

/// A member that is Active.
fn member(at: usize, revision: &str) -> Instance {
    let condition = |kind: &str| {
        json!({
            "type": kind, "status": "True", "reason": "Active", "message": "",
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        })
    };
    serde_json::from_value(json!({
        "apiVersion": "millrace.dev/v1alpha1", "kind": "Instance",
        "metadata": {"namespace": "shop", "name": format!("web-{at}"), "uid": format!("i{at}"), "generation": 1},
        "spec": {
            "cartridge": {"name": "web"}, "revision": revision, "partition": if at.is_multiple_of(2) { "east" } else { "west" },
        },
        "status": {
            "phase": "Active", "revision": revision, "conditions": [condition("Ready"), condition("Serving")],
        },
    }))
    .unwrap()
}

fn measure(what: &str, identity: &Identity, seen: &Snapshot) {
    let planned = median(|| {
        for _ in 0..CLUSTERS {
            black_box(plan(black_box(identity), black_box(seen)));
        }
    });
    let read = median(|| {
        for _ in 0..CLUSTERS {
            let active = seen.members.iter().filter(|member| {
                member.name_any().len() > 3 && member.status.as_ref().is_some_and(|it| it.phase.is_some())
            });
            black_box(active.count());
        }
    });
    println!(
        "planning {CLUSTERS} Clusters of {MEMBERS} members, {what}: {planned:.1?}; reading their names and phases: {read:.1?}; \
         {:.1} times as long",
        planned.as_secs_f64() / read.as_secs_f64()
    );
}

/// The median of some rounds.
fn median(mut round: impl FnMut()) -> Duration {
    let mut times: Vec<_> = (0..ROUNDS)
        .map(|_| {
            let began = Instant::now();
            round();
            began.elapsed()
        })
        .collect();
    times.sort();
    times[ROUNDS / 2]
}
