//! The 18 things that the document of Roboconf asks for. Its web server, Tomcat and database are web, app and db here; its virtual
//! machines are pods.

use std::time::Duration;

use serde_json::{Value, json};

use crate::World;
use crate::house::{SYSTEM, eventually};

const NS: &str = "lamp";

pub async fn run(world: &mut World) {
    world.house.kubectl(&["create", "namespace", NS]);
    step_01_the_description_is_loaded_over_rest(world);
    step_02_one_operation_deploys_and_starts_all(world);
    step_03_and_12_all_are_deployed_in_parallel(world).await;
    step_08_09_10_exports_go_to_those_who_need_them_and_the_chain_starts_in_order(world).await;
    step_04_the_agent_starts_with_its_machine_and_says_so(world).await;
    step_05_only_the_agent_concerned_gets_what_is_for_it(world).await;
    step_14_15_16_another_app_joins_the_running_web_without_a_restart(world).await;
    step_17_removing_one_is_likewise_reconfigured(world).await;
    step_07_and_11_all_turns_of_life_go_through_hooks(world).await;
    step_06_and_13_what_runs_needs_neither_operator_nor_broker(world).await;
    step_18_an_instance_goes_only_where_it_may(world);
}

fn step_01_the_description_is_loaded_over_rest(world: &World) {
    world.example(NS, "cartridges.yaml");
    let loaded = world.house.kubectl(&[
        "get",
        "--raw",
        &format!("/apis/millrace.dev/v1alpha1/namespaces/{NS}/cartridges"),
    ]);
    let loaded: Value = serde_json::from_str(&loaded).unwrap();
    assert_eq!(loaded["items"].as_array().unwrap().len(), 3);
}

fn step_02_one_operation_deploys_and_starts_all(world: &World) {
    world.example(NS, "clusters.yaml");
}

async fn step_03_and_12_all_are_deployed_in_parallel(world: &World) {
    let names = ["db-0", "app-0", "web-0", "web-1"];
    for name in names {
        world.wait_phase(NS, name, "Active").await;
    }
    // Nobody's pod waited for another's application.
    let made = |name: &str| {
        let selector = format!("millrace.dev/instance={name}");
        let path = "-o=jsonpath={.items[0].metadata.creationTimestamp}";
        world.kubectl(NS, &["get", "pod", "-l", &selector, path])
    };
    let started = world.instance(NS, "db-0")["status"]["transitions"]["recent"].clone();
    let started =
        started.as_array().unwrap().iter().find(|it| it["event"] == "MemberStarted").unwrap()["time"].clone();
    for name in names {
        assert!(made(name).as_str() <= started.as_str().unwrap(), "{name}: {} > {started}", made(name));
    }
}

async fn step_08_09_10_exports_go_to_those_who_need_them_and_the_chain_starts_in_order(world: &World) {
    let db = world.instance(NS, "db-0");
    let exports = db["status"]["exports"].as_array().unwrap();
    let value = |name: &str| exports.iter().find(|export| export["name"] == name).unwrap().clone();
    assert_eq!(
        (value("port")["value"].as_str(), value("database")["value"].as_str()),
        (Some("5000"), Some("orders"))
    );
    assert_eq!(
        value("password"),
        json!({"name": "password", "secretKeyRef": {"name": "db", "key": "password"}})
    );
    let app = world.address(NS, "app-0");
    let env = world.ask(&format!("http://{app}:8080/env")).await.unwrap();
    assert_eq!(env["DB_IP"], db["status"]["addresses"][0]);
    assert!(!env.to_string().contains("swordfish"), "a secret stands in the environment");
    let secrets = world.ask(&format!("http://{app}:8080/secrets")).await.unwrap();
    assert_eq!(secrets, json!({"db/db-0/password": 9}));
    // Each was told to start only after the one before was active.
    let order = [
        ("db-0", "member.activated"),
        ("app-0", "member.started"),
        ("app-0", "member.activated"),
        ("web-0", "member.started"),
    ];
    let mut last = 0;
    for (name, kind) in order {
        let at = world.sequence(NS, name, kind).await;
        assert!(at > last, "{name} {kind}");
        last = at;
    }
    let types = world.event_types(NS, "instances", "app-0").await;
    assert_eq!(types[..2], ["member.created", "instance.unresolved"]);
}

async fn step_04_the_agent_starts_with_its_machine_and_says_so(world: &World) {
    let bucket = world.jetstream.get_stream("KV_observed").await.unwrap();
    let said =
        bucket.get_last_raw_message_by_subject(&format!("$KV.observed.instance.{NS}.db-0")).await.unwrap();
    let said: Value = serde_json::from_slice(&said.payload).unwrap();
    let path = "-o=jsonpath={.items[0].metadata.uid}";
    let uid = world.kubectl(NS, &["get", "pod", "-l", "millrace.dev/instance=db-0", path]);
    assert_eq!((said["stage"].as_str(), said["pod"].as_str()), (Some("Serving"), Some(uid.as_str())));
}

async fn step_05_only_the_agent_concerned_gets_what_is_for_it(world: &World) {
    let secret = world.kubectl(
        NS,
        &["get", "secrets", "-l", "millrace.dev/instance=db-0", "-o=jsonpath={.items[0].data.nats\\.creds}"],
    );
    let credentials = String::from_utf8(data_encoding::BASE64.decode(secret.as_bytes()).unwrap()).unwrap();
    let options = async_nats::ConnectOptions::with_credentials(&credentials).unwrap();
    let options = options.custom_inbox_prefix(format!("_IB.{NS}._instance.db-0"));
    let client = options.connect(format!("{}:4222", world.house.pod_address("nats"))).await.unwrap();
    let ask = async |of: &str| {
        let subject = format!("$JS.API.DIRECT.GET.KV_desired.$KV.desired.instance.{NS}.{of}");
        let asked = client.request(subject, "".into());
        tokio::time::timeout(Duration::from_secs(2), asked).await.is_ok_and(|answer| answer.is_ok())
    };
    assert!(ask("db-0").await, "it cannot read what is for it");
    assert!(!ask("app-0").await, "it reads what is for another");
}

async fn step_14_15_16_another_app_joins_the_running_web_without_a_restart(world: &World) {
    let web = format!("http://{}:8080", world.address(NS, "web-0"));
    let before = world.ask(&format!("{web}/view")).await.unwrap();
    world.kubectl(NS, &["scale", "mcl", "app", "--replicas=2"]);
    world.wait_phase(NS, "app-1", "Active").await;
    let knows = eventually(async || {
        let view = world.ask(&format!("{web}/view")).await.unwrap_or_default();
        view["imports"]["app"].as_array().is_some_and(|apps| apps.len() == 2)
    });
    assert!(knows.await, "web-0 never heard of app-1");
    let after = world.ask(&format!("{web}/view")).await.unwrap();
    assert_eq!(after["pid"], before["pid"], "it was restarted");
    let mut answers = vec![];
    for _ in 0..4 {
        answers.push(world.ask(&format!("{web}/")).await.unwrap().as_str().unwrap().to_owned());
    }
    answers.sort();
    assert_eq!(
        answers,
        ["web-0 > app-0 > db-0", "web-0 > app-0 > db-0", "web-0 > app-1 > db-0", "web-0 > app-1 > db-0"]
    );
    // In the model first, and deployed when that is asked for.
    world.kubectl(
        NS,
        &["patch", "inst", "app-1", "--type=merge", "-p", r#"{"spec":{"desired":"NotDeployed"}}"#],
    );
    world.wait_phase(NS, "app-1", "NotDeployed").await;
    let pods = world.kubectl(NS, &["get", "pods", "-l", "millrace.dev/instance=app-1", "-o", "name"]);
    assert_eq!(pods, "");
    world.kubectl(NS, &["patch", "inst", "app-1", "--type=merge", "-p", r#"{"spec":{"desired":"Started"}}"#]);
    world.wait_phase(NS, "app-1", "Active").await;
}

async fn step_17_removing_one_is_likewise_reconfigured(world: &World) {
    let web = format!("http://{}:8080", world.address(NS, "web-0"));
    let before = world.ask(&format!("{web}/view")).await.unwrap();
    world.kubectl(NS, &["scale", "mcl", "app", "--replicas=1"]);
    let knows = eventually(async || {
        let view = world.ask(&format!("{web}/view")).await.unwrap_or_default();
        view["imports"]["app"].as_array().is_some_and(|apps| apps.len() == 1)
    });
    assert!(knows.await, "web-0 still knows app-1");
    let after = world.ask(&format!("{web}/view")).await.unwrap();
    assert_eq!((&after["pid"], after["reads"].as_u64() > before["reads"].as_u64()), (&before["pid"], true));
}

async fn step_07_and_11_all_turns_of_life_go_through_hooks(world: &World) {
    // `update` has run by now; `stop` runs while the application still answers, and the process is the same afterwards.
    let pod = world.kubectl(NS, &["get", "pods", "-l", "millrace.dev/instance=web-1", "-o", "name"]);
    world.kubectl(NS, &["patch", "inst", "web-1", "--type=merge", "-p", r#"{"spec":{"desired":"Stopped"}}"#]);
    world.wait_phase(NS, "web-1", "Stopped").await;
    let log = world.kubectl(NS, &["logs", &pod, "-c", "application"]);
    let (hook, end) = (log.find("web-1: hook stopping"), log.find("web-1 was told to end"));
    assert!(hook.is_some() && hook < end, "{log}");
    world.kubectl(NS, &["patch", "inst", "web-1", "--type=merge", "-p", r#"{"spec":{"desired":"Started"}}"#]);
    world.wait_phase(NS, "web-1", "Active").await;
    let same = world.kubectl(NS, &["get", "pods", "-l", "millrace.dev/instance=web-1", "-o", "name"]);
    assert_eq!(same, pod, "stop and start need no other pod");
}

async fn step_06_and_13_what_runs_needs_neither_operator_nor_broker(world: &mut World) {
    let service = world.service(NS, "web");
    let view = format!("http://{}:8080/view", world.address(NS, "web-0"));
    let before = world.ask(&view).await.unwrap();
    world.kubectl(SYSTEM, &["scale", "deployment/millrace-operator", "--replicas=0"]);
    world.kubectl(SYSTEM, &["scale", "statefulset/millrace-nats", "--replicas=0"]);
    world.kubectl(
        SYSTEM,
        &["wait", "pod", "-l", "app.kubernetes.io/component=nats", "--for=delete", "--timeout=120s"],
    );
    for _ in 0..20 {
        let answer = world.ask(&format!("http://{service}:8080/")).await;
        assert!(answer.is_some_and(|it| it.as_str().unwrap().ends_with("> app-0 > db-0")));
    }
    // Meanwhile somebody wants another: it comes afterwards.
    world.kubectl(NS, &["scale", "mcl", "app", "--replicas=2"]);
    world.kubectl(SYSTEM, &["scale", "statefulset/millrace-nats", "--replicas=1"]);
    world.kubectl(SYSTEM, &["scale", "deployment/millrace-operator", "--replicas=2"]);
    world.wait_phase(NS, "app-1", "Active").await;
    let knows = eventually(async || {
        let now = world.ask(&view).await.unwrap_or_default();
        now["imports"]["app"].as_array().is_some_and(|apps| apps.len() == 2) && now["pid"] == before["pid"]
    });
    assert!(knows.await, "web-0 never heard of app-1");
    world.jetstream = world.house.broker().await;
}

fn step_18_an_instance_goes_only_where_it_may(world: &World) {
    let stray = json!({
        "apiVersion": "millrace.dev/v1alpha1", "kind": "Instance", "metadata": {"name": "stray"},
        "spec": {"cartridge": {"name": "app"}, "partition": "east"},
    });
    let file = std::env::temp_dir().join(format!("millrace-stray-{}.json", std::process::id()));
    std::fs::write(&file, stray.to_string()).unwrap();
    let refused = world.house.try_kubectl(&["-n", NS, "apply", "-f", file.to_str().unwrap()]).unwrap_err();
    std::fs::remove_file(&file).unwrap();
    assert!(refused.contains("a partition is a part of a cluster's `placement`"), "{refused}");
}
