//! Applications that misbehave: each is named with what to do, and disturbs nobody.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::World;
use crate::house::SHOP;

const NS: &str = "wrong";

/// Instances that misbehave: the variable by which they do, and the rest of their cartridge.
fn all() -> Vec<(&'static str, Value, Value)> {
    let none = json!({});
    vec![
        ("exits", json!({"name": "TIER_EXIT", "value": "3"}), none.clone()),
        ("forks", json!({"name": "TIER_FORK", "value": "1"}), none.clone()),
        ("silent", json!({"name": "TIER_SILENT", "value": "1"}), none.clone()),
        ("stubborn", json!({"name": "TIER_IGNORE_TERM", "value": "1"}), none.clone()),
        (
            "hookless",
            json!({"name": "X", "value": "1"}),
            json!({"lifecycle": {"start": {"exec": {"command": ["/bin/sh", "-c", "true"]}}}}),
        ),
        ("mistyped", json!({"name": "X", "value": "1"}), json!({"command": ["/teir", "db"]})),
        (
            "unwell",
            json!({"name": "X", "value": "1"}),
            json!({"probes": {"liveness": {"httpGet": {"path": "/nowhere", "port": 5000}, "periodSeconds": 1}}}),
        ),
        (
            "watched",
            json!({"name": "X", "value": "1"}),
            json!({"probes": {
                "startup": {"tcpSocket": {"port": 5000}, "periodSeconds": 1, "failureThreshold": 30},
                "liveness": {"exec": {"command": ["/tier", "db"]}, "periodSeconds": 3600, "initialDelaySeconds": 3600},
                "readiness": {"httpGet": {"path": "/healthz", "port": 5000}, "periodSeconds": 1},
            }}),
        ),
        // Without a command the image's own program runs.
        ("plain", json!({"name": "PORT", "value": "5000"}), json!({"command": null, "args": ["db"]})),
    ]
}

pub async fn begin(world: &World) {
    world.house.kubectl(&["create", "namespace", NS]);
    for (name, variable, more) in all() {
        let mut spec = json!({
            "image": "rig.local/tier:test", "command": ["/tier", "db"], "env": [variable],
            "ports": [{"name": "db", "port": 5000}],
        });
        let fields = spec.as_object_mut().unwrap();
        fields.extend(more.as_object().unwrap().clone());
        fields.retain(|_, value| !value.is_null());
        let object = |kind: &str, spec: Value| json!({"apiVersion": "millrace.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec});
        world.house.apply_in(NS, &object("Cartridge", spec.clone()));
        world.house.apply_in(NS, &object("Instance", json!({"cartridge": {"name": name}})));
        if name == "watched" {
            // The same as root, where none is allowed.
            spec["image"] = json!("rig.local/root:test");
            spec["command"] = json!(["/root", "db"]);
            world.house.apply_in(SHOP, &object("Cartridge", spec));
            world.house.apply_in(SHOP, &object("Instance", json!({"cartridge": {"name": name}})));
        }
    }
    // Awaited at once: the check's words pass when the kubelet has restarted the container a few times.
    let fails =
        "the check `liveness` fails: GET /nowhere at port 5000 is answered with 404, 3 times in a row";
    world.wait_says(NS, "unwell", fails).await;
}

pub async fn end(world: &World) {
    for (name, words) in [
        (
            "exits",
            "container 'application' does not stay up: it ended with exit code 3, and its last words were: tier: ends with code 3",
        ),
        ("forks", "start it so that its first process stays, in the foreground"),
        ("silent", "port 'db' (5000) does not accept connections at the pod's address"),
        ("hookless", "the hook `start` failed: '/bin/sh' cannot be started: No such file or directory"),
        ("mistyped", "the command '/teir' cannot be started: No such file or directory"),
    ] {
        world.wait_says(NS, name, words).await;
    }
    world.wait_says(SHOP, "watched", "choose an image with another user").await;
    for name in ["watched", "plain", "stubborn"] {
        world.wait_phase(NS, name, "Active").await;
    }
    // Stopped on purpose under a liveness check: it stays stopped, and nobody restarts it.
    let want = |name: &str, desired: &str| {
        let change = json!({"spec": {"desired": desired}}).to_string();
        world.kubectl(NS, &["patch", "inst", name, "--type=merge", "-p", &change]);
    };
    let restarts = |name: &str| {
        let selector = format!("millrace.dev/instance={name}");
        let path = "-o=jsonpath={.items[0].status.containerStatuses[0].restartCount}";
        world.kubectl(NS, &["get", "pods", "-l", &selector, path])
    };
    want("watched", "Stopped");
    want("plain", "Stopped");
    // One that ignores SIGTERM is killed after half a minute, and is then stopped like any other.
    let began = Instant::now();
    want("stubborn", "Stopped");
    for name in ["watched", "plain", "stubborn"] {
        world.wait_phase(NS, name, "Stopped").await;
    }
    assert!(began.elapsed() >= Duration::from_secs(29), "{:?}", began.elapsed());
    assert_eq!(world.kubectl(NS, &["get", "pods", "-l", "millrace.dev/instance=plain", "-o", "name"]), "");
    assert_eq!((restarts("watched"), restarts("stubborn")), ("0".into(), "0".into()));
    want("watched", "Started");
    world.wait_phase(NS, "watched", "Active").await;
    assert_eq!(restarts("watched"), "0");
}
