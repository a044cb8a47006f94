//! Cartridges, Clusters and Instances on a real control plane with the real operator and broker. Kubelet and agents are fakes:
//! pods become ready and run nothing, and each agent does at once what it is told.
#![allow(clippy::disallowed_methods, reason = "the tests write to the apiserver as users do")]
#![allow(
    clippy::unwrap_used,
    clippy::unwrap_in_result,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on fails"
)]

#[path = "members/agents.rs"]
mod agents;
mod common;
#[path = "flows/install.rs"]
mod install;
#[path = "flows/kubelet.rs"]
mod kubelet;
#[path = "members/world.rs"]
mod world;

use std::time::Duration;

use install::eventually;
use k8s_openapi::api::core::v1::{Node, Pod, Secret, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::ResourceExt as _;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams, PropagationPolicy};
use millrace::api::cartridge::Cartridge;
use millrace::api::cluster::Cluster;
use millrace::api::instance::Instance;
use millrace::broker::member::{MemberReport, Stage};
use serde_json::{Value, json};
use world::{World, cartridge, object};

#[tokio::test(flavor = "multi_thread")]
async fn a_chain_that_is_applied_in_any_order_starts_in_the_right_one_and_stops_backwards() {
    let world = World::start().await;
    let _operator = world.install.operator("operator-0", &[]);
    world.namespace("shop").await;
    for (name, replicas) in [("web", 2), ("app", 1), ("db", 1)] {
        world.cluster("shop", name, json!({"replicas": replicas})).await;
    }
    world.cluster_says("shop", "web", "DependencyNotReady", "there is no Cartridge 'web': create it").await;
    world.cartridge("shop", "web", &["app"]).await;
    world.cartridge("shop", "app", &["db"]).await;
    world
        .instance_says(
            "shop",
            "web-1",
            "ImportsMissing",
            "import 'app' needs a member of 'app' (cartridge 'app')",
        )
        .await;
    world.cartridge("shop", "db", &[]).await;
    let all = [("app-0", "Active"), ("db-0", "Active"), ("web-0", "Active"), ("web-1", "Active")];
    world.all("shop", &all).await;
    let order: Vec<_> = world.agents.starts().iter().map(|start| start.instance.clone()).collect();
    assert_eq!(&order[..2], ["shop/db-0", "shop/app-0"]);
    for start in world.agents.starts() {
        assert!(start.imports.values().all(|members| !members.is_empty()), "{start:?}");
    }
    let balanced = eventually(async || world.balanced("shop", "web").await == ["web-0", "web-1"]).await;
    assert!(balanced);

    // One more: those who run hear of it, and nobody is started again.
    world.scale("shop", "app", 2).await;
    let heard = eventually(async || world.agents.knows("shop/web-0")["app"] == ["app-0", "app-1"]).await;
    assert!(heard, "{:?}", world.agents.knows("shop/web-0"));
    world.all("shop", &[&all[..], &[("app-1", "Active")]].concat()).await;
    assert_eq!(world.agents.starts().len(), 5);

    // The first of the chain is stopped: the others stop before it, and come back by themselves.
    world.change::<Instance>("shop", "db-0", json!({"spec": {"desired": "Stopped"}})).await;
    let waiting = ["app-0", "app-1", "web-0", "web-1"].map(|name| (name, "Unresolved"));
    world.all("shop", &[&waiting[..], &[("db-0", "Stopped")]].concat()).await;
    world.change::<Instance>("shop", "db-0", json!({"spec": {"desired": null}})).await;
    world.all("shop", &[&all[..], &[("app-1", "Active")]].concat()).await;

    // Who imports from two still has one: a member that goes stops nobody.
    let starts = world.agents.starts().len();
    world.scale("shop", "app", 1).await;
    world.all("shop", &all).await;
    assert_eq!(
        (world.agents.starts().len(), world.agents.knows("shop/web-0")["app"].clone()),
        (starts, vec!["app-0".into()])
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_members_come_to_rest_and_nothing_is_written_then() {
    const CLUSTERS: usize = 50;
    const MEMBERS: i32 = 20;
    let world = World::start().await;
    let mut operator = world.install.operator("operator-0", &[]);
    world.namespace("shop").await;
    world.cartridge("shop", "app", &[]).await;
    for number in 0..CLUSTERS {
        let spec =
            json!({"cartridge": {"name": "app"}, "replicas": MEMBERS, "loadBalancer": {"drainSeconds": 0}});
        world.make::<Cluster>("shop", object("Cluster", &format!("c{number}"), &spec)).await;
    }
    let clusters = world.api::<Cluster>("shop");
    let mut active = 0;
    let end = std::time::Instant::now() + Duration::from_secs(300);
    while std::time::Instant::now() < end {
        let all = clusters.list(&ListParams::default()).await.unwrap();
        active = all.iter().filter_map(|it| it.status.as_ref()?.active_replicas).sum();
        if active == MEMBERS * i32::try_from(CLUSTERS).unwrap() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert_eq!(active, 1000, "{}", operator.text().lines().rev().take(5).collect::<String>());
    // The last words about users and counts are written, and then nothing more.
    let mut before = world.versions().await;
    let rested = eventually(async || {
        tokio::time::sleep(Duration::from_secs(5)).await;
        let now = world.versions().await;
        std::mem::replace(&mut before, now.clone()) == now
    });
    assert!(rested.await, "it never comes to rest");
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(world.versions().await, before, "something was written at rest");
    assert!(operator.is_running());
    world.scale("shop", "c7", 21).await;
    let grown = eventually(async || world.balanced("shop", "c7").await.len() == 21).await;
    assert!(grown, "it does nothing any more");
}

/// What is left when all has come to rest, without what may differ from life to life.
async fn end_state(world: &World, namespace: &str) -> Vec<String> {
    let mut all: Vec<_> =
        world.phases(namespace).await.into_iter().map(|(name, phase)| format!("{name} {phase}")).collect();
    let pods = world.list::<Pod>(namespace, &ListParams::default()).await;
    all.extend(pods.iter().map(|pod| {
        let image = pod.spec.as_ref().and_then(|spec| spec.containers[0].image.clone());
        format!("pod {} {}", pod.name_any(), image.unwrap_or_default())
    }));
    for service in world.list::<Service>(namespace, &ListParams::default()).await {
        all.push(format!("service {}", service.name_any()));
    }
    all.extend(world.balanced(namespace, "app").await.into_iter().map(|name| format!("balanced {name}")));
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_that_ends_after_every_write_comes_to_the_same_end() {
    let world = World::start().await;
    let mut ends = vec![];
    for (namespace, options) in [("calm", &[][..]), ("rough", &["--test-exit-after-write", "1"])] {
        world.namespace(namespace).await;
        world.cartridge(namespace, "app", &[]).await;
        world.cluster(namespace, "app", json!({"replicas": 3})).await;
        let mut lives = 0;
        let mut operator = world.install.operator(&format!("{namespace}-0"), options);
        for (replicas, image) in
            [(3, "example/app:1"), (1, "example/app:1"), (4, "example/app:1"), (4, "example/app:2")]
        {
            world.scale(namespace, "app", replicas).await;
            world.change::<Cartridge>(namespace, "app", json!({"spec": {"image": image}})).await;
            let limit = std::time::Instant::now() + Duration::from_secs(180);
            loop {
                if !operator.is_running() {
                    lives += 1;
                    world.install.drop_lease().await;
                    operator = world.install.operator(&format!("{namespace}-{lives}"), options);
                }
                let cluster = world.api::<Cluster>(namespace).get("app").await.unwrap();
                let status = cluster.status.clone().unwrap_or_default();
                let settled = status.observed_generation == cluster.metadata.generation
                    && status.updated_replicas == Some(replicas)
                    && status.replicas == Some(replicas)
                    && world.balanced(namespace, "app").await.len() == usize::try_from(replicas).unwrap()
                    && world.phases(namespace).await.len() == usize::try_from(replicas).unwrap();
                let state = end_state(&world, namespace).await;
                let images =
                    state.iter().filter(|line| line.starts_with("pod ")).all(|line| line.ends_with(image));
                if settled && images {
                    break;
                }
                assert!(
                    std::time::Instant::now() < limit,
                    "{namespace} {replicas} {image}: {state:?}\n{}",
                    operator.text()
                );
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
        println!("{namespace}: {lives} operators ended");
        assert!(namespace == "calm" || lives > 20, "{lives}");
        ends.push(end_state(&world, namespace).await);
        drop(operator);
        world.install.drop_lease().await;
    }
    let plain = |state: &Vec<String>| -> Vec<String> {
        // Names of pods and Services hold a hash of their namespace.
        let cut =
            |line: &String| line.split('-').filter(|part| part.len() < 12).collect::<Vec<_>>().join("-");
        state.iter().map(cut).collect()
    };
    assert_eq!(plain(&ends[0]).len(), plain(&ends[1]).len());
    assert_eq!(ends[0].iter().filter(|it| it.contains("Active")).count(), 4);
    assert_eq!(ends[1].iter().filter(|it| it.contains("Active")).count(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_in_the_background_the_foreground_or_of_the_cluster_only_leaves_what_it_should() {
    let world = World::start().await;
    let _operator = world.install.operator("operator-0", &[]);
    world.namespace("shop").await;
    world.cartridge("shop", "app", &[]).await;
    for (name, policy) in [
        ("back", PropagationPolicy::Background),
        ("fore", PropagationPolicy::Foreground),
        ("orphan", PropagationPolicy::Orphan),
    ] {
        let spec = json!({"cartridge": {"name": "app"}, "replicas": 2, "loadBalancer": {"drainSeconds": 0}});
        world.make::<Cluster>("shop", object("Cluster", name, &spec)).await;
        let up = eventually(async || world.balanced("shop", name).await.len() == 2).await;
        assert!(up, "{name}: {:?}", world.messages("shop").await);
        let params = DeleteParams { propagation_policy: Some(policy.clone()), ..DeleteParams::default() };
        world.api::<Cluster>("shop").delete(name, &params).await.unwrap();
        let gone =
            eventually(async || world.api::<Cluster>("shop").get_opt(name).await.unwrap().is_none()).await;
        assert!(gone, "{name} never went");
        let left: Vec<_> = world.phases("shop").await.into_keys().filter(|it| it.starts_with(name)).collect();
        if policy == PropagationPolicy::Orphan {
            assert_eq!(left, ["orphan-0", "orphan-1"]);
            let orphan = world.api::<Instance>("shop").get("orphan-0").await.unwrap();
            assert_eq!(orphan.owner_references(), []);
            // They are nobody's members now, and can be deleted as any Instance can.
            world.all("shop", &[("orphan-0", "Active"), ("orphan-1", "Active")]).await;
            for name in left {
                world.api::<Instance>("shop").delete(&name, &DeleteParams::default()).await.unwrap();
            }
            world.all("shop", &[]).await;
        } else {
            assert_eq!(left, [""; 0]);
        }
    }
    // Nothing of them is left.
    let clean = eventually(async || {
        let pods = world.api::<Pod>("shop").list(&ListParams::default()).await.unwrap();
        let slices = world.api::<EndpointSlice>("shop").list(&ListParams::default()).await.unwrap();
        let secrets = world.api::<Secret>("shop").list(&ListParams::default()).await.unwrap();
        pods.items.is_empty() && slices.items.len() <= 1 && secrets.items.len() <= 1
    });
    assert!(clean.await);

    // A namespace that goes while members come.
    world.namespace("going").await;
    world.cartridge("going", "app", &[]).await;
    world.cluster("going", "app", json!({"replicas": 30})).await;
    let begun = eventually(async || !world.phases("going").await.is_empty()).await;
    assert!(begun);
    let namespaces: Api<k8s_openapi::api::core::v1::Namespace> = Api::all(world.install.client.clone());
    namespaces.delete("going", &DeleteParams::default()).await.unwrap();
    let gone = eventually(async || namespaces.get_opt("going").await.unwrap().is_none()).await;
    assert!(gone, "the namespace hangs: {:?}", world.messages("going").await);
}

#[allow(clippy::too_many_lines, reason = "it is a list")]
#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_is_named_with_what_to_do_and_disturbs_nobody() {
    let world = World::start().await;
    let _operator = world.install.operator("operator-0", &[]);
    world.namespace("shop").await;
    world.cartridge("shop", "app", &[]).await;
    world.cluster("shop", "app", json!({"replicas": 1})).await;
    world.all("shop", &[("app-0", "Active")]).await;

    world.namespace("wrong").await;
    // A cycle of required imports.
    world.cartridge("wrong", "hen", &["egg"]).await;
    world.cartridge("wrong", "egg", &["hen"]).await;
    world.cluster("wrong", "hen", json!({})).await;
    world.cluster("wrong", "egg", json!({})).await;
    world
        .instance_says("wrong", "hen-0", "ImportsMissing", "they wait for each other: hen → egg → hen")
        .await;

    // Values that do not fit, of a member's Cluster and of a record.
    let schema = json!({"type": "object", "required": ["size"], "properties": {"size": {"type": "integer"}}});
    let mut sized = cartridge("sized", &[]);
    sized["spec"]["values"] = schema.clone();
    world.make::<Cartridge>("wrong", sized).await;
    world.cluster("wrong", "sized", json!({"values": {"size": "large"}})).await;
    world.cluster_says("wrong", "sized", "InvalidSpec", "spec.values.size").await;
    world.change::<Cluster>("wrong", "sized", json!({"spec": {"values": {"size": 3}}})).await;
    world.instance_says("wrong", "sized-0", "Active", "serves").await;
    world.make::<Cartridge>("wrong", object("Cartridge", "cpe", &json!({"values": schema}))).await;
    let record =
        |values: Value| object("Instance", "cpe-1", &json!({"cartridge": {"name": "cpe"}, "values": values}));
    world.make::<Instance>("wrong", record(json!({}))).await;
    world.instance_says("wrong", "cpe-1", "InvalidSpec", "must fit the schema of the Cartridge 'cpe'").await;
    world.change::<Instance>("wrong", "cpe-1", json!({"spec": {"values": {"size": 1}}})).await;
    world.instance_says("wrong", "cpe-1", "Active", "the values are valid").await;

    // An export of a key that is missing, then there, then another.
    let mut vault = cartridge("vault", &[]);
    vault["spec"]["exports"] = json!([
        {"name": "ip", "address": "PodIP"}, {"name": "port", "port": "http"},
        {"name": "password", "secretKeyRef": {"name": "vault", "key": "password"}},
    ]);
    world.make::<Cartridge>("wrong", vault).await;
    let mut thief = cartridge("thief", &["vault"]);
    thief["spec"]["imports"][0]["variables"] = json!(["ip", "password"]);
    world.make::<Cartridge>("wrong", thief).await;
    world.cluster("wrong", "vault", json!({})).await;
    world.cluster("wrong", "thief", json!({})).await;
    world
        .instance_says("wrong", "vault-0", "Active", "the Secret 'vault' has no key 'password'; create it")
        .await;
    world.instance_says("wrong", "thief-0", "ImportsMissing", "do not export 'password'").await;
    let secret = |text: &str| json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "vault"}, "stringData": {"password": text}});
    world.make::<Secret>("wrong", secret("swordfish")).await;
    world.instance_says("wrong", "thief-0", "Active", "serves").await;
    let published =
        serde_json::to_string(&world.api::<Instance>("wrong").list(&ListParams::default()).await.unwrap())
            .unwrap();
    assert!(!published.contains("swordfish"), "a secret value stands in a status");
    let starts = world.agents.starts().len();
    world.change::<Secret>("wrong", "vault", json!({"stringData": {"password": "another"}})).await;
    let key = "instance.wrong.thief-0";
    let nats = async_nats::connect(&world.install.nats_url).await.unwrap();
    let bucket = async_nats::jetstream::new(nats).get_stream("KV_desired").await.unwrap();
    let mut revisions = std::collections::BTreeSet::new();
    let rotated = eventually(async || {
        let last = bucket.get_last_raw_message_by_subject(&format!("$KV.desired.{key}")).await.unwrap();
        let text = String::from_utf8_lossy(&last.payload).into_owned();
        assert!(
            !text.contains("swordfish") && !text.contains("another"),
            "a secret value lies open at the broker"
        );
        let work: Value = serde_json::from_str(&text).unwrap();
        revisions.insert(work["revision"].to_string());
        revisions.len() > 1 || world.agents.starts().len() > starts
    });
    // The first look may already have seen the new one.
    let _ = tokio::time::timeout(Duration::from_secs(5), rotated).await;
    assert_eq!(world.agents.starts().len(), starts, "nobody was started again");

    // An object of ours that somebody else has: a pod, and a Service.
    let probe = world
        .api::<Pod>("wrong")
        .list(&ListParams::default().labels("millrace.dev/instance=vault-0"))
        .await
        .unwrap();
    let (pod, labels) = (probe.items[0].name_any(), probe.items[0].labels().clone());
    assert_eq!(labels["app.kubernetes.io/managed-by"], "millrace");
    world.change::<Instance>("wrong", "vault-0", json!({"spec": {"desired": "NotDeployed"}})).await;
    world.instance_says("wrong", "vault-0", "NotDeployed", "").await;
    let foreign = json!({"metadata": {"name": pod}, "spec": {"containers": [{"name": "x", "image": "x"}]}});
    world.make::<Pod>("wrong", foreign).await;
    world.change::<Instance>("wrong", "vault-0", json!({"spec": {"desired": "Started"}})).await;
    world.instance_says("wrong", "vault-0", "NameConflict", "belongs to somebody else").await;
    let stranger = world.api::<Pod>("wrong").get(&pod).await.unwrap();
    assert_eq!((stranger.labels().len(), stranger.owner_references().len()), (0, 0), "it was touched");
    world.api::<Pod>("wrong").delete(&pod, &DeleteParams::default()).await.unwrap();
    world.instance_says("wrong", "vault-0", "Active", "").await;

    // Children that are deleted by hand, or changed.
    let pods = world.api::<Pod>("wrong");
    let before = pods.get(&pod).await.unwrap().uid();
    pods.delete(&pod, &DeleteParams::default()).await.unwrap();
    let again =
        eventually(async || pods.get_opt(&pod).await.unwrap().is_some_and(|it| it.uid() != before)).await;
    assert!(again, "the pod was not made again");
    world.instance_says("wrong", "vault-0", "Active", "").await;
    let services = world.api::<Service>("wrong");
    let list = ListParams::default().labels("millrace.dev/cluster=vault");
    let service = services.list(&list).await.unwrap().items[0].name_any();
    let params = PatchParams::default();
    let edit = json!({"spec": {"sessionAffinity": "ClientIP"}});
    services.patch(&service, &params, &Patch::Merge(edit)).await.unwrap();
    let restored = eventually(async || {
        let spec = services.get(&service).await.unwrap().spec.unwrap();
        spec.session_affinity.as_deref() == Some("None")
    });
    assert!(restored.await, "the Service was not put right");
    world.api::<Instance>("wrong").delete("vault-0", &DeleteParams::default()).await.unwrap();
    let made =
        eventually(async || world.phases("wrong").await.get("vault-0").map(String::as_str) == Some("Active"))
            .await;
    assert!(made, "the member was not made again: {:?}", world.messages("wrong").await);

    // A limit below the present size, and partitions without room.
    world.scale("wrong", "vault", 3).await;
    let grown = eventually(async || world.balanced("wrong", "vault").await.len() == 3).await;
    assert!(grown);
    world.change::<Cluster>("wrong", "vault", json!({"spec": {"instances": {"max": 1}}})).await;
    let shrunk = eventually(async || world.balanced("wrong", "vault").await == ["vault-0"]).await;
    assert!(shrunk);
    let narrow = json!({"replicas": 2, "placement": {"partitions": [{"name": "east", "max": 1, "nodeSelector": {"zone": "e"}}]}});
    let mut narrow_spec = narrow;
    narrow_spec["cartridge"] = json!({"name": "hen"});
    world.make::<Cluster>("wrong", object("Cluster", "narrow", &narrow_spec)).await;
    world.cluster_says("wrong", "narrow", "NoRoom", "no partition has room for 1 more").await;

    // One who stands alone, with a cartridge that comes later, and all that can be wanted of it.
    world
        .make::<Instance>("wrong", object("Instance", "lone", &json!({"cartridge": {"name": "solo"}})))
        .await;
    world
        .instance_says("wrong", "lone", "DependencyNotReady", "there is no Cartridge 'solo': create it")
        .await;
    world.cartridge("wrong", "solo", &[]).await;
    world.instance_says("wrong", "lone", "Active", "").await;
    for (desired, phase) in [
        ("Maintenance", "Maintenance"),
        ("Stopped", "Stopped"),
        ("NotDeployed", "NotDeployed"),
        ("Started", "Active"),
    ] {
        world.change::<Instance>("wrong", "lone", json!({"spec": {"desired": desired}})).await;
        let reached = eventually(async || world.phases("wrong").await["lone"] == phase).await;
        assert!(reached, "never {phase}: {:?}", world.messages("wrong").await);
    }
    world.api::<Cartridge>("wrong").delete("solo", &DeleteParams::default()).await.unwrap();
    // Who comes now is told that it is gone; who runs, runs on.
    let late = object("Instance", "late", &json!({"cartridge": {"name": "solo"}}));
    world.make::<Instance>("wrong", late).await;
    world
        .instance_says("wrong", "late", "DependencyNotReady", "there is no Cartridge 'solo': create it")
        .await;
    world.instance_says("wrong", "lone", "Active", "").await;

    assert_eq!(world.phases("shop").await, [("app-0".to_owned(), "Active".to_owned())].into());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_on_a_lost_node_leaves_at_once_and_is_replaced_and_its_old_agent_is_not_believed() {
    let world = World::start().await;
    let _operator = world.install.operator("operator-0", &[]);
    world.namespace("shop").await;
    let nodes: Api<Node> = Api::all(world.install.client.clone());
    let node: Node = serde_json::from_value(json!({"metadata": {"name": "n1"}})).unwrap();
    nodes.create(&PostParams::default(), &node).await.unwrap();
    let ready = |status: &str| {
        json!({"status": {"conditions": [{
            "type": "Ready", "status": status, "reason": "Test", "message": "",
            "lastTransitionTime": millrace::clock::now().to_string(),
        }]}})
    };
    nodes.patch_status("n1", &PatchParams::default(), &Patch::Merge(ready("True"))).await.unwrap();
    // Pods of this cartridge are bound to the node without a scheduler.
    let mut bound = cartridge("app", &[]);
    bound["spec"]["podTemplate"] = json!({"spec": {"nodeName": "n1"}});
    world.make::<Cartridge>("shop", bound).await;
    world.cluster("shop", "app", json!({"nodeLossSeconds": 4})).await;
    world.all("shop", &[("app-0", "Active")]).await;
    let balanced = eventually(async || world.balanced("shop", "app").await == ["app-0"]).await;
    assert!(balanced);
    let pods = world.api::<Pod>("shop");
    let list = ListParams::default().labels("millrace.dev/instance=app-0");
    let old = pods.list(&list).await.unwrap().items[0].clone();
    nodes.patch_status("n1", &PatchParams::default(), &Patch::Merge(ready("Unknown"))).await.unwrap();
    let left = eventually(async || world.balanced("shop", "app").await.is_empty()).await;
    assert!(left);
    assert_eq!(pods.list(&list).await.unwrap().items[0].uid(), old.uid(), "it is not replaced at once");
    world
        .instance_says(
            "shop",
            "app-0",
            "NodeLost",
            "node 'n1' does not answer; the pod is replaced after 4 s",
        )
        .await;
    let replaced = eventually(async || {
        let now = pods.list(&list).await.unwrap().items;
        now.first().is_some_and(|now| now.uid() != old.uid())
    });
    assert!(replaced.await, "it was never replaced");
    // The old one still talks.
    let lie = MemberReport { pod: old.uid().unwrap(), stage: Stage::Serving, ..MemberReport::default() };
    world.agents.say("instance.shop.app-0", &lie).await;
    world.instance_says("shop", "app-0", "", "").await;
    assert!(world.balanced("shop", "app").await.is_empty(), "the old agent was believed");
}
