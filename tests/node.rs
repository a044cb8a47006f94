//! The whole product on a real node, as its user meets it: the chart, real pods, requests without end, and things that die.
//!
//! It needs root, and what `make program` builds.
#![cfg(feature = "node")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a helper that fails fails its test")]

mod common;
#[path = "node/house.rs"]
mod house;
#[path = "node/processes.rs"]
mod processes;
#[path = "node/traffic.rs"]
mod traffic;
#[path = "node/witness.rs"]
mod witness;

use house::{House, SHOP, SYSTEM};
use millrace::broker::settings::{self, Settings};
use millrace::clock;
use serde_json::{Value, json};
use traffic::Traffic;
use witness::{Accident, Witness, assert_twice_only_after};

/// A flow with a component, a built-in, and two last nodes that both get everything.
fn orders() -> Value {
    json!({
        "apiVersion": "millrace.dev/v1alpha1", "kind": "Flow", "metadata": {"name": "orders"},
        "spec": {
            "trigger": {"webhook": {"methods": ["GET", "POST"]}},
            "graph": {
                "nodes": [
                    {"id": "enrich", "image": "rig.local/component:test", "function": "enrich"},
                    {"id": "pick", "builtin": "transform", "fields": {"jq": "{body: {id: .body.id}}"}},
                    {"id": "left", "builtin": "log"},
                    {"id": "right", "builtin": "log"},
                ],
                "edges": [
                    {"source": "enrich", "target": "pick"},
                    {"source": "pick", "target": "left"},
                    {"source": "pick", "target": "right"},
                ],
            },
            "drainSeconds": 60,
        },
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_was_answered_is_lost_whatever_dies() {
    let house = House::build().await;
    house.apply(&orders());
    house.wait("orders", "Active");
    let gateway = house.gateway();
    let component = Witness::start(|| house.kubectl_command(), "millrace.dev/node=enrich", "component");
    let runner = Witness::start(|| house.kubectl_command(), "app.kubernetes.io/component=runner", "runner");
    let traffic = Traffic::start(&format!("http://{gateway}/hook/{SHOP}/orders"));
    traffic.accepted_more(50).await;

    let mut accidents = vec![];
    let mut happen = |what: &str, happens: &dyn Fn()| {
        println!("{what}");
        let began = clock::now();
        happens();
        accidents.push(Accident { began, over: clock::now() });
    };
    for role in ["operator", "gateway", "nats"] {
        let selector = format!("app.kubernetes.io/component={role}");
        happen(&format!("kill -9: {role}"), &|| house.kill(role));
        house.settled(SYSTEM, &selector).await;
        traffic.accepted_more(20).await;
        happen(&format!("deletion: {role}"), &|| house.delete_one_pod(SYSTEM, &selector));
        house.settled(SYSTEM, &selector).await;
        traffic.accepted_more(20).await;
    }
    for role in ["component", "agent", "runner"] {
        happen(&format!("kill -9: {role}"), &|| house.kill(role));
        house.settled(SHOP, "app.kubernetes.io/part-of=millrace").await;
        traffic.accepted_more(20).await;
    }
    happen("deletion: a component", &|| house.delete_one_pod(SHOP, "millrace.dev/node=enrich"));
    house.settled(SHOP, "millrace.dev/node=enrich").await;
    traffic.accepted_more(20).await;

    let read = settings::read(&format!("http://{}:8222", house.pod_address("nats"))).await.unwrap();
    assert_eq!(read, Settings { sync_always: true, strict: true, max_payload: 8 << 20 });

    let (accepted, refused) = traffic.end().await;
    println!("{} requests were answered 2xx, {} were not", accepted.len(), refused.len());
    house.wait("orders", "Active");
    let missing = |node: &str| {
        let arrived = runner.arrived(node);
        accepted.iter().filter(|id| !arrived.contains_key(*id)).cloned().collect::<Vec<_>>()
    };
    house::eventually(async || missing("left").is_empty() && missing("right").is_empty()).await;
    for node in ["left", "right"] {
        assert_eq!(missing(node), Vec::<String>::new(), "'{node}' never got these");
        let doubled: Vec<_> = runner.arrived(node).into_iter().filter(|(_, ids)| ids.len() > 1).collect();
        assert!(doubled.is_empty(), "stored under two message ids for '{node}': {doubled:?}");
    }
    let seen = component.seen();
    let several: Vec<_> = seen.iter().filter(|(_, messages)| messages.len() > 1).collect();
    assert!(several.is_empty(), "the component saw one request as several messages: {several:?}");
    assert!(
        accepted.iter().all(|id| seen.contains_key(id)),
        "not all that arrived was seen by the component"
    );
    let twice = assert_twice_only_after(&accidents, &seen);
    println!("the component saw {twice} messages twice, each because something died in between");
    drop((component, runner));
    // Requests were queued whenever nobody was there to handle them: it was Active all the while.
    let path = "-o=jsonpath={.status.transitions.recent[*].event}";
    let moves = house.kubectl(&["-n", SHOP, "get", "flow", "orders", path]);
    assert_eq!(moves, "FlowStarting FlowStarted FlowActive");
    house.print_memory();

    // The last act: suspended, it drains and leaves nothing running.
    house.patch("orders", &json!({"spec": {"suspend": true}}));
    house.wait("orders", "Inactive");
    let url = format!("http://{gateway}/hook/{SHOP}/orders");
    assert_eq!(common::get(&url).await.unwrap().0, 404);
    let left = house.kubectl(&["-n", SHOP, "get", "pods", "-l", "millrace.dev/flow=orders", "-o", "name"]);
    assert_eq!(left, "");

    what_is_wrong_with_a_pod_is_said_by_name(&house);
}

/// On the same node, since it takes a while to build one.
fn what_is_wrong_with_a_pod_is_said_by_name(house: &House) {
    let flow = |name: &str, node: &Value| {
        json!({
            "apiVersion": "millrace.dev/v1alpha1", "kind": "Flow", "metadata": {"name": name},
            "spec": {
                "trigger": {"webhook": {"methods": ["POST"]}}, "graph": {"nodes": [node]},
                "progressDeadlineSeconds": 20, "drainSeconds": 1,
            },
        })
    };
    let image = "rig.local/component:test";
    let root = json!({"spec": {"containers": [{"name": "component", "securityContext": {"runAsUser": 0, "runAsNonRoot": false}}]}});
    let huge = json!({"requests": {"memory": "1Ti"}});
    for (name, node, word) in [
        ("no-image", json!({"id": "a", "image": "rig.local/none:1"}), "cannot be pulled"),
        ("wrong-port", json!({"id": "a", "image": image, "port": 9999}), "not ready"),
        (
            "crash",
            json!({"id": "a", "image": image, "env": [{"name": "PORT", "value": "1"}]}),
            "its last words were: component: ",
        ),
        ("as-root", json!({"id": "a", "image": image, "podTemplate": root}), "PodSecurity"),
        ("too-large", json!({"id": "a", "image": image, "resources": huge}), "memory"),
    ] {
        house.apply(&flow(name, &node));
        house.wait(name, "Failed");
        let why = house.message(name);
        assert!(why.contains(word), "{name}: {why}");
        println!("{name}: {why}");
        house.kubectl(&["-n", SHOP, "delete", "flow", name, "--wait=false"]);
    }
    house.apply(&flow("healed", &json!({"id": "a", "image": "rig.local/none:1"})));
    house.wait("healed", "Failed");
    house.patch("healed", &json!({"spec": {"graph": {"nodes": [{"id": "a", "image": image}]}}}));
    house.wait("healed", "Active");
    for name in ["no-image", "wrong-port", "crash", "as-root", "too-large", "healed", "orders"] {
        house.kubectl(&["-n", SHOP, "delete", "flow", name, "--ignore-not-found", "--timeout=60s"]);
    }
}
