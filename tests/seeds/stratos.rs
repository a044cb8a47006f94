//! The 19 steps of the document of Apache Stratos. Its Cloud Controller, Stratos Manager and Auto-scaler are the operator here,
//! its topics are the event log and the resources themselves.

use serde_json::{Value, json};

use crate::World;
use crate::house::{SYSTEM, eventually};

/// The catalogue of the deployer of cartridges, and the namespace of a tenant.
const CATALOGUE: &str = "catalogue";
const TENANT: &str = "tenant";

/// Steps of the document that come with later work: neither asserted nor faked here.
const LATER: [(u8, &str); 4] = [
    (3, "a multi-tenant Cluster, which tenants sign up to"),
    (11, "Artifact Update: a repository, and its password sealed with the subscription key"),
    (18, "the agent decrypts, clones and deploys artifacts"),
    (19, "the agent publishes memory and load: statistics, and autoscaling by them"),
];

pub async fn run(world: &World) {
    for namespace in [CATALOGUE, TENANT] {
        world.house.kubectl(&["create", "namespace", namespace]);
    }
    let node = world.house.kubectl(&["get", "nodes", "-o", "name"]);
    world.house.kubectl(&["label", &node, "zone-of-test=east", "--overwrite"]);
    step_01_02_a_cartridge_is_deployed_and_announced(world).await;
    step_04_17_a_subscription_gets_a_key(world);
    step_05_06_the_cluster_is_announced_with_its_policies(world).await;
    step_07_08_it_is_decided_where_members_run_and_they_are_announced(world).await;
    step_09_10_12_13_14_members_start_and_are_active_when_their_ports_answer(world).await;
    step_15_16_the_load_balancer_follows_the_members(world).await;
    step_04_17_the_key_is_made_once(world).await;
    for (step, what) in LATER {
        println!("step {step} is later work: {what}");
    }
}

async fn step_01_02_a_cartridge_is_deployed_and_announced(world: &World) {
    let cartridge = json!({
        "apiVersion": "millrace.dev/v1alpha1", "kind": "Cartridge", "metadata": {"name": "php"},
        "spec": {
            "image": "rig.local/tier:test", "command": ["/tier", "db"], "allowedNamespaces": [TENANT],
            // Slow to open its port: Started is said before Active.
            "env": [{"name": "TIER_DELAY_MS", "value": "1500"}, {"name": "PORT", "value": "8000"}],
            "ports": [{"name": "http", "port": 8000}],
            "exports": [{"name": "ip", "address": "PodIP"}],
        },
    });
    world.house.apply_in(CATALOGUE, &cartridge);
    let told = eventually(async || !world.events(CATALOGUE, "cartridges", "php").await.is_empty()).await;
    assert!(told);
    assert_eq!(world.event_types(CATALOGUE, "cartridges", "php").await, ["cartridge.deployed"]);
}

fn key(world: &World) -> String {
    let secret = world.kubectl(TENANT, &["get", "mcl", "php", "-o=jsonpath={.status.subscriptionSecret}"]);
    world.kubectl(TENANT, &["get", "secret", &secret, "-o=jsonpath={.data.key}"])
}

fn step_04_17_a_subscription_gets_a_key(world: &World) {
    let cluster = json!({
        "apiVersion": "millrace.dev/v1alpha1", "kind": "Cluster", "metadata": {"name": "php"},
        "spec": {
            "cartridge": {"name": "php", "namespace": CATALOGUE}, "replicas": 2, "instances": {"min": 1, "max": 3},
            "placement": {"algorithm": "RoundRobin", "partitions": [
                {"name": "east", "max": 2, "nodeSelector": {"zone-of-test": "east"}},
                {"name": "west", "max": 1, "nodeSelector": {"zone-of-test": "east"}},
            ]},
            "loadBalancer": {"drainSeconds": 1},
        },
    });
    world.house.apply_in(TENANT, &cluster);
    world.kubectl(TENANT, &["wait", "mcl/php", "--for=condition=Ready", "--timeout=120s"]);
    let key = data_encoding::BASE64.decode(key(world).as_bytes()).unwrap();
    assert_eq!(key.len(), 64);
}

async fn step_05_06_the_cluster_is_announced_with_its_policies(world: &World) {
    let events = world.events(TENANT, "clusters", "php").await;
    assert_eq!(events[0]["type"], "dev.millrace.cluster.created");
    let spec = &events[0]["data"]["resource"]["spec"];
    assert_eq!(
        (&spec["placement"]["algorithm"], &spec["instances"]["max"]),
        (&json!("RoundRobin"), &json!(3))
    );
}

async fn step_07_08_it_is_decided_where_members_run_and_they_are_announced(world: &World) {
    for (member, partition) in [("php-0", "east"), ("php-1", "west")] {
        assert_eq!(world.instance(TENANT, member)["spec"]["partition"], partition);
        let created = world.events(TENANT, "instances", member).await.remove(0);
        assert_eq!(created["type"], "dev.millrace.member.created");
        let details = &created["data"]["details"];
        assert_eq!(
            (&details["member"], &details["cluster"], &details["partition"]),
            (&json!(member), &json!("php"), &json!(partition))
        );
    }
    // No partition has room for a fourth, and `max` allows none.
    world.kubectl(TENANT, &["scale", "mcl", "php", "--replicas=9"]);
    world.wait_phase(TENANT, "php-2", "Active").await;
    assert_eq!(world.instance(TENANT, "php-2")["spec"]["partition"], "east");
    assert_eq!(world.kubectl(TENANT, &["get", "mcl", "php", "-o=jsonpath={.status.replicas}"]), "3");
    // What an autoscaler reads and writes.
    let scale = world.house.kubectl(&[
        "get",
        "--raw",
        &format!("/apis/millrace.dev/v1alpha1/namespaces/{TENANT}/clusters/php/scale"),
    ]);
    let scale: Value = serde_json::from_str(&scale).unwrap();
    assert_eq!(
        (&scale["status"]["replicas"], &scale["status"]["selector"]),
        (&json!(3), &json!("millrace.dev/cluster=php"))
    );
    world.kubectl(TENANT, &["scale", "mcl", "php", "--replicas=2"]);
    let shrunk = eventually(async || world.phase(TENANT, "php-2").is_empty()).await;
    assert!(shrunk, "the fullest partition gives one");
}

async fn step_09_10_12_13_14_members_start_and_are_active_when_their_ports_answer(world: &World) {
    let types = world.event_types(TENANT, "instances", "php-0").await;
    assert_eq!(types, ["member.created", "member.starting", "member.started", "member.activated"]);
    let active = world.events(TENANT, "instances", "php-0").await.remove(3);
    let details = &active["data"]["details"];
    assert_eq!(details["addresses"][0].as_str(), Some(world.address(TENANT, "php-0").as_str()));
    assert!(details["exports"]["ip"].is_string() && details["node"].is_string(), "{details}");
}

async fn step_15_16_the_load_balancer_follows_the_members(world: &World) {
    world.balanced(TENANT, "php", 2).await;
    world.kubectl(
        TENANT,
        &["patch", "inst", "php-0", "--type=merge", "-p", r#"{"spec":{"desired":"Maintenance"}}"#],
    );
    world.wait_phase(TENANT, "php-0", "Maintenance").await;
    world.balanced(TENANT, "php", 1).await;
    let service = world.service(TENANT, "php");
    for _ in 0..10 {
        assert_eq!(world.ask(&format!("http://{service}:8000/")).await, Some(json!("php-1")));
    }
    world.kubectl(
        TENANT,
        &["patch", "inst", "php-0", "--type=merge", "-p", r#"{"spec":{"desired":"Started"}}"#],
    );
    world.wait_phase(TENANT, "php-0", "Active").await;
    world.balanced(TENANT, "php", 2).await;
}

async fn step_04_17_the_key_is_made_once(world: &World) {
    let before = key(world);
    world.kubectl(SYSTEM, &["rollout", "restart", "deployment/millrace-operator"]);
    world.kubectl(SYSTEM, &["rollout", "status", "deployment/millrace-operator", "--timeout=120s"]);
    world.kubectl(TENANT, &["scale", "mcl", "php", "--replicas=3"]);
    world.wait_phase(TENANT, "php-2", "Active").await;
    assert_eq!(key(world), before);
    world.kubectl(TENANT, &["delete", "mcl", "php", "--timeout=120s"]);
    assert_eq!(world.kubectl(TENANT, &["get", "inst,pods", "-o", "name"]), "");
}
