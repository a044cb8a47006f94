//! What a start costs, and what it is made of, on a node where the chart is installed: `make bench`.
//!
//! Each time is measured from the request that creates an object until a watch shows what is waited for. A bare Deployment
//! of the same image in the same run is the peer: what it takes is Kubernetes' own share.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a measurement that cannot go on ends")]
#![allow(clippy::disallowed_methods, reason = "it writes to the apiserver as users do")]

#[path = "../tests/node/processes.rs"]
mod processes;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::time::{Duration, Instant};

use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod};
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Client, Config, Resource, ResourceExt as _};
use millrace::api::flow::Flow;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// How often each thing is started.
const ROUNDS: usize = 5;
const NAMESPACE: &str = "bench";
/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(120);

const BARE: &str = "bare Deployment: created to ready";
const SIDECAR: &str = "bare Deployment with a native sidecar: created to ready";
const IMAGE: &str = "flow of one image: created to Active";
const BUILTINS: &str = "flow of three built-ins: created to Active";
const WRITE: &str = "one write to the API server";

/// Something that a watch has shown, for the first time or again.
type Seen = (Instant, String);

/// What was measured, by name: each round's time in milliseconds.
#[derive(Default)]
struct Table(BTreeMap<String, Vec<f64>>);

impl Table {
    fn note(&mut self, name: &str, time: Duration) {
        self.0.entry(name.to_owned()).or_default().push(time.as_secs_f64() * 1e3);
    }

    fn median(&self, name: &str) -> f64 {
        let mut all = self.0[name].clone();
        all.sort_by(f64::total_cmp);
        all[all.len() / 2]
    }

    fn print(&self) {
        println!("{:<58} {:>9} {:>9} {:>9}", "milliseconds", "least", "median", "most");
        for (name, times) in &self.0 {
            let (least, most) =
                (times.iter().copied().fold(f64::MAX, f64::min), times.iter().copied().fold(0.0, f64::max));
            println!("{name:<58} {least:>9.1} {:>9.1} {most:>9.1}", self.median(name));
        }
    }
}

#[tokio::main]
async fn main() {
    let Some(path) = std::env::var_os("MILLRACE_BENCH_KUBECONFIG") else {
        println!("Left out: it measures a cluster with Millrace in it. `make bench` starts one.");
        return;
    };
    let config = Kubeconfig::read_from(path).unwrap();
    let config = Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await.unwrap();
    let node = config.cluster_url.host().and_then(|host| host.parse().ok());
    let client = Client::try_from(config).unwrap();
    make_namespace(&client).await;
    let mut seen = watch_all(&client);
    let mut table = Table::default();
    raw_writes(&client, &mut table).await;
    // The runner of the namespace is there from here on.
    let _stays = start(&client, &mut seen, "stays", &[log("a")]).await;
    for round in 0..ROUNDS {
        let name = format!("image-{round}");
        let marks = start(&client, &mut seen, &name, &[image("a"), log("b")]).await;
        image_flow(&mut table, &marks);
        stop(&client, &mut seen, &name, "flow of one image: suspended to Inactive", &mut table).await;
        bare_deployment(&client, &mut seen, &format!("bare-{round}"), false, &mut table).await;
        bare_deployment(&client, &mut seen, &format!("sidecar-{round}"), true, &mut table).await;
        let name = format!("builtin-{round}");
        let marks = start(&client, &mut seen, &name, &[log("a"), log("b"), log("c")]).await;
        table.note(BUILTINS, marks["Active"]);
        table.note("flow of three built-ins:   until its nodes are loaded", marks["Started"]);
        stop(&client, &mut seen, &name, "flow of built-ins: suspended to Inactive", &mut table).await;
    }
    table.print();
    let ratio = |of: &str, to: &str| table.median(of) / table.median(to);
    println!();
    println!("a flow of one image takes {:.2} times what a bare Deployment of it takes", ratio(IMAGE, BARE));
    println!("and {:.2} times what one with a native sidecar takes", ratio(IMAGE, SIDECAR));
    println!(
        "a flow of three built-ins takes as long as {:.0} writes to the API server",
        ratio(BUILTINS, WRITE)
    );
    for role in ["operator", "gateway", "agent", "runner", "nats"] {
        for process in node.map(|node| processes::of(role, node)).unwrap_or_default() {
            println!("memory (PSS) of {role}: {} KiB", processes::memory(process).unwrap_or_default());
        }
    }
    let namespaces: Api<Namespace> = Api::all(client);
    namespaces.delete(NAMESPACE, &DeleteParams::default()).await.unwrap();
}

async fn make_namespace(client: &Client) {
    let api: Api<Namespace> = Api::all(client.clone());
    let namespace = serde_json::from_value(json!({"metadata": {"name": NAMESPACE}})).unwrap();
    api.create(&PostParams::default(), &namespace).await.unwrap_or_else(|error| {
        panic!(
            "the namespace '{NAMESPACE}' cannot be made, perhaps since the last run's is still going: {error}"
        )
    });
    // Its account comes a moment later, and pods need it.
    tokio::time::sleep(Duration::from_secs(1)).await;
}

fn image(id: &str) -> Value {
    let image = std::env::var("COMPONENT_IMAGE").unwrap_or_else(|_| "rig.local/component:1".into());
    json!({"id": id, "image": image, "function": "echo"})
}

fn log(id: &str) -> Value {
    json!({"id": id, "builtin": "log"})
}

/// Watches all that says how far a start is.
fn watch_all(client: &Client) -> UnboundedReceiver<Seen> {
    let (tell, seen) = unbounded_channel();
    watch::<Flow>(client, tell.clone(), |flow| {
        let phase = flow.status.as_ref().and_then(|status| status.phase);
        vec![phase.map_or_else(|| "Created".into(), |phase| phase.to_string())]
    });
    watch::<Deployment>(client, tell.clone(), |it| {
        let ready = it.status.as_ref().and_then(|status| status.ready_replicas).unwrap_or_default() > 0;
        vec![if ready { "Deployment ready".into() } else { "Deployment".into() }]
    });
    watch::<Pod>(client, tell, |pod| {
        let status = pod.status.clone().unwrap_or_default();
        let conditions = status.conditions.into_iter().flatten().filter(|it| it.status == "True");
        let running = status.container_statuses.into_iter().flatten().any(|it| it.started == Some(true));
        let conditions = conditions.map(|condition| format!("pod {}", condition.type_));
        conditions.chain(running.then(|| "pod running".to_owned())).chain(["pod".to_owned()]).collect()
    });
    seen
}

fn watch<K>(client: &Client, tell: UnboundedSender<Seen>, says: fn(&K) -> Vec<String>)
where
    K: Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>
        + Clone
        + Debug
        + DeserializeOwned
        + Send
        + 'static,
{
    let api: Api<K> = Api::namespaced(client.clone(), NAMESPACE);
    tokio::spawn(async move {
        let mut changes =
            watcher(api, watcher::Config::default()).default_backoff().applied_objects().boxed();
        while let Ok(Some(object)) = changes.try_next().await {
            let of = object.labels().get("millrace.dev/flow").or_else(|| object.labels().get("app")).cloned();
            let of = of.unwrap_or_else(|| object.name_any());
            for said in says(&object) {
                let _ = tell.send((Instant::now(), format!("{of} {said}")));
            }
        }
    });
}

/// The times, from `began` on, at which each thing was seen of an object for the first time, until the last of them.
async fn until(
    seen: &mut UnboundedReceiver<Seen>,
    of: &str,
    last: &str,
    began: Instant,
) -> BTreeMap<String, Duration> {
    let mut marks = BTreeMap::new();
    let wait = async {
        while !marks.contains_key(last) {
            let (at, what) = seen.recv().await.unwrap();
            if let Some(what) = what.strip_prefix(of).and_then(|what| what.strip_prefix(' ')) {
                marks.entry(what.to_owned()).or_insert(at - began);
            }
        }
    };
    let came = tokio::time::timeout(PATIENCE, wait).await;
    assert!(came.is_ok(), "{of} never came to {last}: {marks:?}");
    marks
}

/// Creates a Flow, and waits until it is Active.
async fn start(
    client: &Client,
    seen: &mut UnboundedReceiver<Seen>,
    name: &str,
    nodes: &[Value],
) -> BTreeMap<String, Duration> {
    let ids: Vec<_> = nodes.iter().map(|node| node["id"].as_str().unwrap()).collect();
    let edges: Vec<_> = ids.windows(2).map(|pair| json!({"source": pair[0], "target": pair[1]})).collect();
    let flow = serde_json::from_value(json!({
        "apiVersion": "millrace.dev/v1alpha1", "kind": "Flow", "metadata": {"name": name},
        "spec": {"trigger": {"webhook": {"methods": ["POST"]}}, "graph": {"nodes": nodes, "edges": edges}},
    }))
    .unwrap();
    let api: Api<Flow> = Api::namespaced(client.clone(), NAMESPACE);
    let began = Instant::now();
    api.create(&PostParams::default(), &flow).await.unwrap();
    until(seen, name, "Active", began).await
}

/// What the start of a flow with an image is made of.
fn image_flow(table: &mut Table, marks: &BTreeMap<String, Duration>) {
    table.note(IMAGE, marks["Active"]);
    for (at, what) in [
        ("pod", "1 its pod is made"),
        ("pod PodScheduled", "2 it is scheduled"),
        ("pod running", "3 its containers run"),
        ("pod Ready", "4 it is ready"),
        ("Started", "5 Started is seen"),
        ("Active", "6 Active is seen"),
    ] {
        table.note(&format!("flow of one image:   until {what}"), marks[at]);
    }
}

/// Suspends a Flow, waits until it is at rest, and deletes it.
async fn stop(
    client: &Client,
    seen: &mut UnboundedReceiver<Seen>,
    name: &str,
    what: &str,
    table: &mut Table,
) {
    let api: Api<Flow> = Api::namespaced(client.clone(), NAMESPACE);
    let began = Instant::now();
    let suspend = json!({"spec": {"suspend": true}});
    api.patch(name, &PatchParams::default(), &Patch::Merge(suspend)).await.unwrap();
    let marks = until(seen, name, "Inactive", began).await;
    table.note(what, marks["Inactive"]);
    api.delete(name, &DeleteParams::default()).await.unwrap();
}

/// The same image without Millrace: a Deployment with a probe as anybody would write it, alone or beside a native sidecar of
/// the same image, for which the kubelet waits before it starts the container.
async fn bare_deployment(
    client: &Client,
    seen: &mut UnboundedReceiver<Seen>,
    name: &str,
    sidecar: bool,
    table: &mut Table,
) {
    let container = |name: &str, port: u16| {
        json!({
            "name": name, "image": image("a")["image"], "env": [{"name": "PORT", "value": port.to_string()}],
            "readinessProbe": {"tcpSocket": {"port": port}, "periodSeconds": 1},
        })
    };
    let mut pod = json!({
        "containers": [container("component", 8080)], "terminationGracePeriodSeconds": 1,
        "securityContext": {"runAsUser": 65532, "runAsNonRoot": true},
    });
    if sidecar {
        let mut sidecar = container("sidecar", 8081);
        sidecar["restartPolicy"] = json!("Always");
        pod["initContainers"] = json!([sidecar]);
    }
    let labels = json!({"app": name});
    let template = json!({"metadata": {"labels": labels}, "spec": pod});
    let deployment = serde_json::from_value(json!({
        "metadata": {"name": name, "labels": labels},
        "spec": {"selector": {"matchLabels": labels}, "template": template},
    }))
    .unwrap();
    let api: Api<Deployment> = Api::namespaced(client.clone(), NAMESPACE);
    let began = Instant::now();
    api.create(&PostParams::default(), &deployment).await.unwrap();
    let marks = until(seen, name, "Deployment ready", began).await;
    table.note(if sidecar { SIDECAR } else { BARE }, marks["Deployment ready"]);
    api.delete(name, &DeleteParams::background()).await.unwrap();
}

/// What one write to the API server takes.
async fn raw_writes(client: &Client, table: &mut Table) {
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), NAMESPACE);
    let map = serde_json::from_value(json!({"metadata": {"name": "raw"}})).unwrap();
    api.create(&PostParams::default(), &map).await.unwrap();
    for number in 0..50 {
        let change = json!({"data": {"number": number.to_string()}});
        let began = Instant::now();
        api.patch("raw", &PatchParams::default(), &Patch::Merge(change)).await.unwrap();
        table.note(WRITE, began.elapsed());
    }
}
