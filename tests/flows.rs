//! Flows on a real control plane with the real operator, gateways, runner and broker. Only the kubelet is a fake: the pods
//! of image nodes become ready and do nothing.
#![allow(clippy::disallowed_methods, reason = "the tests write to the apiserver as users do")]
#![allow(
    clippy::unwrap_used,
    clippy::unwrap_in_result,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on fails"
)]

mod common;
#[path = "flows/install.rs"]
mod install;
#[path = "flows/kubelet.rs"]
mod kubelet;

use std::collections::BTreeMap;
use std::time::Duration;

use install::{Install, PATIENCE, Process, SYSTEM, eventually, flow, said};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Pod, ResourceQuota, Secret};
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Resource, ResourceExt as _};
use millrace::api::condition::ConditionType::{Ready, TriggerArmed};
use millrace::api::flow::phase::FlowPhase::{Active, Failed, Inactive, Started, Starting};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

fn component(id: &str) -> Value {
    json!({"id": id, "image": "example/component:1"})
}

fn builtin(id: &str) -> Value {
    json!({"id": id, "builtin": "log"})
}

/// The events of a Flow, in order.
fn events(flow: &millrace::api::flow::Flow) -> Vec<String> {
    let transitions = flow.status.as_ref().and_then(|status| status.transitions.clone()).unwrap_or_default();
    transitions.recent.into_iter().map(|transition| transition.event).collect()
}

/// The resourceVersions of everything that our own programs write, the lease aside.
async fn versions(install: &Install) -> BTreeMap<String, String> {
    async fn of<K>(install: &Install, all: &mut BTreeMap<String, String>)
    where
        K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + serde::de::DeserializeOwned,
    {
        let api: Api<K> = Api::all(install.client.clone());
        for it in api.list(&ListParams::default()).await.unwrap() {
            let name = format!("{} {}/{}", K::kind(&()), it.namespace().unwrap_or_default(), it.name_any());
            all.insert(name, it.resource_version().unwrap());
        }
    }
    let mut all = BTreeMap::new();
    of::<millrace::api::flow::Flow>(install, &mut all).await;
    of::<Deployment>(install, &mut all).await;
    of::<Secret>(install, &mut all).await;
    of::<Pod>(install, &mut all).await;
    all
}

/// An install with one gateway and one operator, ready.
async fn whole(options: &[&str]) -> (Install, Process, Process) {
    let install = Install::start(options).await;
    install.endpoints(&[("gateway-0", true)]).await;
    let (mut operator, mut gateway) = (install.operator("operator-0", &[]), install.gateway("gateway-0"));
    operator.ready().await;
    gateway.ready().await;
    (install, operator, gateway)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flow_goes_up_takes_requests_passes_messages_on_and_goes_down() {
    let (install, _operator, gateway) = whole(&[]).await;
    common::make_namespace(&install.client, "shop").await;
    let _runner = install.runner("shop");
    install.create("shop", "orders", &[builtin("first"), builtin("last")]).await;
    let flow = install.phase("shop", "orders", Active).await;
    assert_eq!(events(&flow), ["FlowStarting", "FlowStarted", "FlowActive"]);
    let ready = said(&flow, Ready);
    assert_eq!(ready, ("True".into(), "Active".into(), "requests to /hook/shop/orders are taken".into()));

    let url = format!("http://{}/hook/shop/orders", gateway.listen);
    let json = [("content-type", "application/json")];
    let (status, _, body) = common::request("POST", &url, &json, b"{\"id\": 7}".to_vec()).await.unwrap();
    assert_eq!(status, 200, "{body}");
    assert!(serde_json::from_str::<Value>(&body).unwrap()["data"]["requestId"].is_string(), "{body}");
    let log = install.plane.folder().join("runner-shop.log");
    let seen = eventually(async || {
        let text = std::fs::read_to_string(&log).unwrap();
        text.lines().any(|line| line.contains("last") && line.contains("{\"id\":7}"))
    });
    assert!(seen.await, "{}", std::fs::read_to_string(&log).unwrap());

    install.patch("shop", "orders", json!({"spec": {"suspend": true}})).await;
    let flow = install.phase("shop", "orders", Inactive).await;
    assert_eq!(events(&flow)[3..], ["FlowStopping", "FlowStopped"]);
    assert_eq!(common::get(&url).await.unwrap().0, 404);
    install.patch("shop", "orders", json!({"spec": {"suspend": false}})).await;
    install.phase("shop", "orders", Active).await;
    install.delete("shop", "orders").await;
    install.gone("shop", "orders").await;
    let secrets: Api<Secret> = Api::namespaced(install.client.clone(), "shop");
    let left: Vec<_> =
        secrets.list(&ListParams::default()).await.unwrap().iter().map(kube::ResourceExt::name_any).collect();
    assert!(left.iter().all(|name| name == "millrace-runner"), "{left:?}");
}

/// What our own programs have written, the lease aside, as the API server's audit log says.
fn written(audit: &std::path::Path) -> Vec<String> {
    let text = std::fs::read_to_string(audit).unwrap();
    // The last line may still be on its way.
    let entries = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let ours = entries
        .filter(|entry| entry["userAgent"].as_str().unwrap_or_default().starts_with("millrace"))
        .filter(|entry| entry["objectRef"]["resource"] != "leases");
    ours.map(|entry| {
        let object = &entry["objectRef"];
        let of = |field: &str| object[field].as_str().unwrap_or_default().to_owned();
        format!("{} {}/{} {}", entry["verb"].as_str().unwrap(), of("resource"), of("subresource"), of("name"))
    })
    .collect()
}

/// How many writes of each kind there were for one Flow.
fn writes_of(written: &[String], flow: &str) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for write in written {
        let (what, name) = write.rsplit_once(' ').unwrap();
        let of_flow = name == flow || [".", "-"].iter().any(|end| name.starts_with(&format!("{flow}{end}")));
        if of_flow {
            *counts.entry(what.to_owned()).or_default() += 1;
        }
    }
    counts
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_flows_become_active_then_nothing_is_written_and_a_change_is_still_seen() {
    let folder = tempfile::tempdir().unwrap();
    let (policy, audit) = (folder.path().join("policy.yaml"), folder.path().join("audit.log"));
    std::fs::write(
        &policy,
        "apiVersion: audit.k8s.io/v1\nkind: Policy\nomitStages: [RequestReceived]\nrules:\n- level: None\n  verbs: [get, \
         list, watch]\n- level: Metadata\n",
    )
    .unwrap();
    let options = [
        format!("--audit-policy-file={}", policy.display()),
        format!("--audit-log-path={}", audit.display()),
    ];
    let (install, _operator, _gateway) = whole(&[&options[0], &options[1]]).await;
    for at in 0..200 {
        let namespace = format!("team-{}", at % 10);
        if at < 10 {
            common::make_namespace(&install.client, &namespace).await;
        }
        install.create(&namespace, &format!("flow-{at}"), &[component("a")]).await;
    }
    for at in 0..200 {
        install.phase(&format!("team-{}", at % 10), &format!("flow-{at}"), Active).await;
    }
    // Whatever was on its way when the last one became Active has landed when two looks agree: announcements are paced.
    let mut before = (versions(&install).await, written(&audit));
    let quiet = eventually(async || {
        tokio::time::sleep(Duration::from_secs(2)).await;
        let now = (versions(&install).await, written(&audit));
        std::mem::replace(&mut before, now.clone()) == now
    });
    assert!(quiet.await);
    for (what, count) in writes_of(&before.1, "flow-42") {
        println!("writes for one flow: {count} {what}");
    }
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(versions(&install).await, before.0);
    assert_eq!(written(&audit)[before.1.len()..], Vec::<String>::new());
    install.patch("team-7", "flow-17", json!({"spec": {"suspend": true}})).await;
    install.phase("team-7", "flow-17", Inactive).await;
}

/// The end of a life, whatever happened in between: what is there, by kind and name, without what differs by chance.
async fn end_state(install: &Install, namespace: &str) -> Vec<String> {
    let deployments: Api<Deployment> = Api::namespaced(install.client.clone(), namespace);
    let secrets: Api<Secret> = Api::namespaced(install.client.clone(), namespace);
    let mut all = vec![];
    for it in deployments.list(&ListParams::default()).await.unwrap() {
        let images: Vec<_> =
            it.spec.unwrap().template.spec.unwrap().containers.into_iter().map(|c| c.image).collect();
        all.push(format!("Deployment {} {images:?}", it.metadata.name.unwrap()));
    }
    for it in secrets.list(&ListParams::default()).await.unwrap() {
        all.push(format!("Secret {} {:?}", it.name_any(), it.annotations().get("millrace.dev/queues")));
    }
    let broker = async_nats::connect(&install.nats_url).await.unwrap();
    let jetstream = async_nats::jetstream::new(broker);
    if let Ok(stream) = jetstream.get_stream(format!("MR_{namespace}")).await {
        let names: Vec<_> = futures::TryStreamExt::try_collect(stream.consumer_names()).await.unwrap();
        all.extend(names.into_iter().map(|name: String| format!("Consumer {name}")));
    }
    all.sort();
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_that_ends_after_any_write_is_made_good_by_its_successor() {
    let install = Install::start(&[]).await;
    install.endpoints(&[("gateway-0", true)]).await;
    let mut gateway = install.gateway("gateway-0");
    gateway.ready().await;
    let nodes = [component("a"), component("b")];
    let mut expected: Option<[Vec<String>; 3]> = None;
    // k = 0 is a life without an accident; the last k is one that was not reached.
    for k in 0.. {
        let namespace = format!("life-{k}");
        common::make_namespace(&install.client, &namespace).await;
        let limit = k.to_string();
        let options: &[&str] = if k == 0 { &[] } else { &["--test-exit-after-write", &limit] };
        let mut accidents = 0;
        let mut ends = vec![];
        for stage in ["start", "roll", "stop"] {
            let mut operator = install.operator(&format!("operator-{k}-{stage}"), options);
            match stage {
                "start" => drop(install.create(&namespace, "orders", &nodes).await),
                "roll" => {
                    let mut changed = flow("orders", &nodes).spec.graph;
                    changed.nodes[0].image = Some("example/component:2".into());
                    let change = json!({"spec": {"graph": {"nodes": changed.nodes}}});
                    install.patch(&namespace, "orders", change).await;
                }
                _ => drop(install.patch(&namespace, "orders", json!({"spec": {"suspend": true}})).await),
            }
            let phase = if stage == "stop" { Inactive } else { Active };
            let mut successor = None;
            let api = install.flows(&namespace);
            let done = eventually(async || {
                // Asked before the state: where its last write was all that was to be done, there is no successor.
                let gone = !operator.is_running();
                let flow = api.get("orders").await.unwrap();
                let status = flow.status.clone().unwrap_or_default();
                let done = status.phase == Some(phase)
                    && status.observed_generation == flow.metadata.generation
                    && said(&flow, Ready).0 == "True";
                if !done && gone && successor.is_none() {
                    accidents += 1;
                    install.drop_lease().await;
                    successor = Some(install.operator(&format!("successor-{k}-{stage}"), &[]));
                }
                done
            });
            let reached = done.await;
            let log = successor.as_ref().map_or_else(|| operator.text(), Process::text);
            assert!(
                reached,
                "life {k} never ended its {stage}: {:#?}\n{log}",
                api.get("orders").await.unwrap().status
            );
            ends.push(
                end_state(&install, &namespace)
                    .await
                    .iter()
                    .map(|it| it.replace(&namespace, "NS"))
                    .collect::<Vec<_>>(),
            );
            // Handed over at once: nobody waits for a lease that was given back.
            let mut last = successor.unwrap_or(operator);
            last.signal(Signal::SIGTERM);
            match last.ended().await {
                Some(0) => {}
                // Its last write was the one.
                Some(87) => {
                    accidents += 1;
                    install.drop_lease().await;
                }
                other => panic!("it ended with {other:?}:\n{}", last.text()),
            }
        }
        let ends: [Vec<String>; 3] = ends.try_into().unwrap();
        // Names carry a hash of the namespace.
        let plain = ends.map(|all| all.iter().map(|it| strip_hash(it)).collect::<Vec<_>>());
        match &expected {
            None => expected = Some(plain),
            Some(expected) => assert_eq!(&plain, expected, "life {k}"),
        }
        if k > 0 && accidents == 0 {
            assert!(k > 5, "a life has more writes than {k}");
            break;
        }
    }
}

/// Without the twelve characters that a child's name ends in.
fn strip_hash(text: &str) -> String {
    let words = text.split(' ').map(|word| match word.rsplit_once('-') {
        Some((name, hash)) if hash.len() == 12 => name.to_owned(),
        _ => word.to_owned(),
    });
    words.collect::<Vec<_>>().join(" ")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_that_is_frozen_before_a_write_undoes_nothing_of_its_successor() {
    let install = Install::start(&[]).await;
    install.endpoints(&[("gateway-0", true)]).await;
    let mut gateway = install.gateway("gateway-0");
    gateway.ready().await;
    common::make_namespace(&install.client, "shop").await;
    for (at, k) in ["2", "4", "6"].into_iter().enumerate() {
        let name = format!("orders-{at}");
        let mut zombie = install.operator(&format!("zombie-{at}"), &["--test-stop-before-write", k]);
        install.create("shop", &name, &[component("a"), component("b")]).await;
        zombie.stopped().await;
        let mut successor = install.operator(&format!("heir-{at}"), &[]);
        install.phase("shop", &name, Active).await;
        successor.ready().await;
        let before = versions(&install).await;
        zombie.signal(Signal::SIGCONT);
        // It finds out that it leads no more, and ends.
        zombie.ended().await;
        let leases: Api<Lease> = Api::namespaced(install.client.clone(), SYSTEM);
        let holder =
            leases.list(&ListParams::default()).await.unwrap().items[0].spec.clone().unwrap().holder_identity;
        assert_eq!(holder.as_deref(), Some(&*format!("heir-{at}")));
        assert_eq!(versions(&install).await, before, "{}", zombie.text());
        assert_eq!(said(&install.flows("shop").get(&name).await.unwrap(), Ready).0, "True");
        successor.signal(Signal::SIGTERM);
        successor.ended().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flow_is_active_only_when_every_ready_gateway_serves_it_and_stays_so_later() {
    let (install, _operator, mut first) = whole(&[]).await;
    common::make_namespace(&install.client, "shop").await;
    install.create("shop", "early", &[component("a")]).await;
    install.phase("shop", "early", Active).await;
    let mut second = install.gateway("gateway-1");
    second.ready().await;
    install.endpoints(&[("gateway-0", true), ("gateway-1", true)]).await;
    second.signal(Signal::SIGSTOP);
    install.create("shop", "late", &[component("a")]).await;
    let flow = install.phase("shop", "late", Started).await;
    let named = eventually(async || {
        let flow = install.flows("shop").get("late").await.unwrap();
        said(&flow, TriggerArmed).2 == "waiting for gateway 'gateway-1' to take up the route"
    });
    assert!(named.await, "{:#?}", flow.status);
    assert_eq!(said(&install.flows("shop").get("early").await.unwrap(), Ready).0, "True");
    second.signal(Signal::SIGCONT);
    install.phase("shop", "late", Active).await;

    install.endpoints(&[]).await;
    install.create("shop", "nobody", &[component("a")]).await;
    install.phase("shop", "nobody", Started).await;
    let told = eventually(async || {
        let flow = install.flows("shop").get("nobody").await.unwrap();
        said(&flow, TriggerArmed).2.starts_with("no gateway is ready")
    });
    assert!(told.await);
    // A third that joins, and is not ready to say anything yet, takes nothing from those that are Active.
    install.endpoints(&[("gateway-0", true), ("gateway-2", true)]).await;
    assert!(first.is_running());
    let early = install.flows("shop").get("early").await.unwrap();
    assert_eq!(said(&early, TriggerArmed).0, "True");
    install.endpoints(&[("gateway-0", true)]).await;
    install.phase("shop", "nobody", Active).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_is_said_and_heals_and_disturbs_nobody() {
    let (install, _operator, _gateway) = whole(&[]).await;
    common::make_namespace(&install.client, "shop").await;
    common::make_namespace(&install.client, "other").await;
    install.create("other", "orders", &[component("a")]).await;

    // An image that does not exist: Failed at the deadline with the reason, and well again with another image.
    let mut missing = flow("missing", &[json!({"id": "a", "image": format!("{}x:1", kubelet::NO_IMAGE)})]);
    missing.spec.progress_deadline_seconds = Some(5);
    install.flows("shop").create(&PostParams::default(), &missing).await.unwrap();
    let failed = install.phase("shop", "missing", Failed).await;
    let (_, reason, message) = said(&failed, Ready);
    assert_eq!(reason, "ProgressDeadlineExceeded");
    assert!(message.contains("node 'a': the image 'missing.invalid/x:1' cannot be pulled"), "{message}");
    install
        .patch(
            "shop",
            "missing",
            json!({"spec": {"progressDeadlineSeconds": 600, "graph": {"nodes": [component("a")]}}}),
        )
        .await;
    install.phase("shop", "missing", Active).await;

    // A Secret that is missing, comes, and goes again.
    let wants = json!({"id": "a", "image": "x:1", "credentials": {"secretRef": {"name": "erp"}}});
    install.create("shop", "secret", &[wants]).await;
    install.phase("shop", "secret", Starting).await;
    let secrets: Api<Secret> = Api::namespaced(install.client.clone(), "shop");
    let erp: Secret =
        serde_json::from_value(json!({"metadata": {"name": "erp"}, "stringData": {"k": "v"}})).unwrap();
    secrets.create(&PostParams::default(), &erp).await.unwrap();
    install.phase("shop", "secret", Active).await;
    secrets.delete("erp", &DeleteParams::default()).await.unwrap();
    let told = eventually(async || {
        let flow = install.flows("shop").get("secret").await.unwrap();
        said(&flow, Ready).1 == "DependencyNotReady" && said(&flow, TriggerArmed).0 == "True"
    });
    assert!(told.await);

    // Specs that cannot be acted on.
    let mut cycle = flow("cycle", &[component("a"), component("b"), component("c")]);
    let edges = json!([{"source": "a", "target": "b"}, {"source": "b", "target": "c"}, {"source": "c", "target": "b"}]);
    cycle.spec.graph.edges = serde_json::from_value(edges).unwrap();
    install.flows("shop").create(&PostParams::default(), &cycle).await.unwrap();
    let failed = install.phase("shop", "cycle", Failed).await;
    assert_eq!(said(&failed, Ready).1, "InvalidSpec");
    assert!(said(&failed, Ready).2.contains("remove one of b → c → b"), "{}", said(&failed, Ready).2);
    install.create("shop", "unknown", &[json!({"id": "a", "builtin": "teleport"})]).await;
    let failed = install.phase("shop", "unknown", Failed).await;
    assert_eq!(said(&failed, Ready).1, "InvalidSpec");
    install
        .create("shop", "bad-jq", &[json!({"id": "a", "builtin": "transform", "fields": {"jq": "{body: "}})])
        .await;
    let failed = install.phase("shop", "bad-jq", Failed).await;
    assert_eq!(said(&failed, Ready).1, "InvalidSpec");
    let early = json!({"id": "a", "builtin": "log", "credentials": {"secretRef": {"name": "erp"}}});
    install.create("shop", "early", &[early]).await;
    let failed = install.phase("shop", "early", Failed).await;
    assert_eq!(said(&failed, Ready).1, "NotYetSupported");

    // All of them go when they are told to, and so does a namespace with flows in it.
    for name in ["missing", "secret", "cycle", "unknown", "bad-jq", "early"] {
        install.delete("shop", name).await;
        install.gone("shop", name).await;
    }
    install.phase("other", "orders", Active).await;
    let broker = async_nats::jetstream::new(async_nats::connect(&install.nats_url).await.unwrap());
    broker.publish("millrace.flow.other.orders.a", "waiting".into()).await.unwrap().await.unwrap();
    let namespaces: Api<k8s_openapi::api::core::v1::Namespace> = Api::all(install.client.clone());
    namespaces.delete("other", &DeleteParams::default()).await.unwrap();
    let gone = eventually(async || namespaces.get_opt("other").await.unwrap().is_none());
    assert!(
        gone.await,
        "the namespace was not gone within {PATIENCE:?}: {:#?}",
        install.flows("other").list(&ListParams::default()).await.unwrap().items
    );
    assert!(broker.get_stream("MR_other").await.is_err(), "the namespace's queues were left behind");
    let dead = broker.get_stream("MILLRACE_DEAD").await.unwrap();
    let letter = dead.direct_get_last_for_subject("millrace.dead.other.orders.a").await.unwrap();
    assert_eq!(letter.payload, "waiting");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_absent_at_install_is_waited_for_and_named() {
    let mut install = Install::without_broker(&[]).await;
    install.endpoints(&[("gateway-0", true)]).await;
    let (mut operator, mut gateway) = (install.operator("operator-0", &[]), install.gateway("gateway-0"));
    operator.ready().await;
    common::make_namespace(&install.client, "shop").await;
    let _runner = install.runner("shop");
    install.create("shop", "orders", &[component("a"), builtin("b")]).await;
    let flow = install.phase("shop", "orders", Starting).await;
    let (status, reason, message) = said(&flow, Ready);
    assert_eq!((&*status, &*reason), ("False", "DependencyNotReady"));
    assert_eq!(message, "the message broker does not answer: look at the pods of Millrace's NATS");
    // It can be taken back even so, and nothing is left of it.
    install.create("shop", "regretted", &[component("a")]).await;
    install.phase("shop", "regretted", Starting).await;
    install.delete("shop", "regretted").await;
    install.gone("shop", "regretted").await;
    install.start_broker().await;
    gateway.ready().await;
    install.phase("shop", "orders", Active).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_comes_back_without_its_disk_is_furnished_anew() {
    let mut install = Install::without_broker(&[]).await;
    install.start_broker().await;
    install.endpoints(&[("gateway-0", true)]).await;
    let (mut operator, mut gateway) = (install.operator("operator-0", &[]), install.gateway("gateway-0"));
    operator.ready().await;
    gateway.ready().await;
    common::make_namespace(&install.client, "shop").await;
    let runner = install.runner("shop");
    install.create("shop", "orders", &[builtin("first"), builtin("last")]).await;
    install.phase("shop", "orders", Active).await;
    install.stop_broker();
    // Whoever asks for something meanwhile is told why nothing happens, and may take it back.
    install.create("shop", "late", &[builtin("a")]).await;
    let late = install.phase("shop", "late", Starting).await;
    assert_eq!(said(&late, Ready).1, "DependencyNotReady");
    install.delete("shop", "late").await;
    install.gone("shop", "late").await;

    install.start_broker().await;
    let url = format!("http://{}/hook/shop/orders?id=", gateway.listen);
    let mut number = 0;
    let arrived = eventually(async || {
        number += 1;
        let _ = common::get(&format!("{url}request-{number}")).await;
        let log = runner.text();
        log.lines().any(|line| line.contains("node=last") && line.contains("request-"))
    });
    assert!(arrived.await, "{}\n{}", operator.text(), runner.text());
    install.phase("shop", "orders", Active).await;
    install.delete("shop", "orders").await;
    install.gone("shop", "orders").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quota_that_refuses_pods_is_named_and_a_larger_one_heals() {
    let (install, _operator, _gateway) = whole(&[]).await;
    common::make_namespace(&install.client, "shop").await;
    let quotas: Api<ResourceQuota> = Api::namespaced(install.client.clone(), "shop");
    let quota =
        |pods: u32| json!({"metadata": {"name": "small"}, "spec": {"hard": {"pods": pods.to_string()}}});
    quotas.create(&PostParams::default(), &serde_json::from_value(quota(0)).unwrap()).await.unwrap();
    let counted =
        eventually(async || quotas.get("small").await.unwrap().status.is_some_and(|it| it.used.is_some()));
    assert!(counted.await);
    let mut flow = flow("orders", &[component("a")]);
    flow.spec.progress_deadline_seconds = Some(5);
    install.flows("shop").create(&PostParams::default(), &flow).await.unwrap();
    let failed = install.phase("shop", "orders", Failed).await;
    let (_, reason, message) = said(&failed, Ready);
    assert_eq!(reason, "ProgressDeadlineExceeded");
    assert!(message.contains("node 'a': its pods are refused: exceeded quota: small"), "{message}");
    let params = PatchParams::default();
    quotas.patch("small", &params, &Patch::Merge(quota(9))).await.unwrap();
    install.phase("shop", "orders", Active).await;
}
