//! An install of the real programs on a real control plane, with a real broker and a fake kubelet.
#![allow(dead_code, reason = "each binary of tests uses its part")]

use std::fs::File;
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt as _};
use millrace::api::condition::{self, ConditionType};
use millrace::api::definition;
use millrace::api::flow::Flow;
use millrace::api::flow::phase::FlowPhase;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rig::{Nats, Plane};
use serde_json::{Value, json};

use crate::common;
use crate::kubelet;

/// The namespace of the install.
pub const SYSTEM: &str = "millrace-system";
/// The name of the gateway's Service.
pub const SERVICE: &str = "millrace-gateway";

/// How long anything may take on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A control plane and a broker for one test.
pub struct Install {
    pub plane: Plane,
    pub client: Client,
    /// The broker's address, and that of its monitoring.
    pub nats_url: String,
    monitoring: String,
    nats: Option<Nats>,
    kubelet: tokio::task::JoinHandle<()>,
}

impl Drop for Install {
    fn drop(&mut self) {
        self.kubelet.abort();
    }
}

impl Install {
    /// Starts them, with the definitions installed. `options` are kube-apiserver's.
    pub async fn start(options: &[&str]) -> Self {
        let mut install = Self::without_broker(options).await;
        install.start_broker().await;
        install
    }

    /// Starts a control plane only; the broker has an address, where nobody answers yet.
    pub async fn without_broker(options: &[&str]) -> Self {
        let plane = Plane::start_with(options).await.unwrap();
        let client = plane.client().await.unwrap();
        for crd in definition::all() {
            common::define(&client, &crd).await;
        }
        common::make_namespace(&client, SYSTEM).await;
        let kubelet = tokio::spawn(kubelet::run(client.clone()));
        let address = |scheme: &str| format!("{scheme}://127.0.0.1:{}", free_port());
        Self { plane, client, nats_url: address("nats"), monitoring: address("http"), nats: None, kubelet }
    }

    /// Starts the broker.
    pub async fn start_broker(&mut self) {
        let at = |url: &str| url.rsplit('/').next().unwrap_or_default().to_owned();
        let listen = format!("listen: \"{}\"\nhttp: \"{}\"\n", at(&self.nats_url), at(&self.monitoring));
        self.nats = Some(Nats::start_with(&listen).await.unwrap());
    }

    /// Starts an operator with more options.
    pub fn operator(&self, name: &str, options: &[&str]) -> Process {
        self.operator_in(name, options, &[])
    }

    /// The same, with variables in its environment.
    pub fn operator_in(&self, name: &str, options: &[&str], env: &[(&str, &str)]) -> Process {
        let admin = format!("127.0.0.1:{}", free_port());
        let mut all = vec!["operator", "--namespace", SYSTEM, "--name", name, "--listen", &admin];
        all.extend(["--image", "rig.local/millrace:1", "--gateway-service", SERVICE]);
        all.extend(["--broker-secret", "millrace-broker", "--nats-auth", "none"]);
        all.extend(["--nats-monitoring-url", &self.monitoring]);
        all.extend(options);
        self.process(name, &all, env, admin.clone())
    }

    /// Starts a gateway. Nobody sends requests to it that is not told its address.
    pub fn gateway(&self, name: &str) -> Process {
        let (listen, admin) = (format!("127.0.0.1:{}", free_port()), format!("127.0.0.1:{}", free_port()));
        let key = self.plane.folder().join("message.key");
        std::fs::write(&key, "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff").unwrap();
        let key = key.display().to_string();
        let all = [
            "gateway",
            "--name",
            name,
            "--listen",
            &listen,
            "--admin-listen",
            &admin,
            "--message-key-file",
            &key,
        ];
        let mut gateway = self.process(name, &all, &[], admin.clone());
        gateway.listen.clone_from(&listen);
        gateway
    }

    /// Starts the runner of a namespace.
    pub fn runner(&self, namespace: &str) -> Process {
        let admin = format!("127.0.0.1:{}", free_port());
        let name = format!("runner-{namespace}");
        self.process(
            &name,
            &["runner", "--namespace", namespace, "--name", &name, "--listen", &admin],
            &[],
            admin.clone(),
        )
    }

    fn process(&self, name: &str, options: &[&str], env: &[(&str, &str)], admin: String) -> Process {
        let path = self.plane.folder().join(format!("{name}.log"));
        let log = File::options().create(true).append(true).open(&path).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_millrace"))
            .args(options)
            .args(["--nats-url", &self.nats_url, "--log-format", "human"])
            .env("KUBECONFIG", self.plane.kubeconfig())
            .env("NO_COLOR", "1")
            .envs(env.iter().copied())
            .stdin(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        Process { child, admin, listen: String::new(), log: path }
    }

    /// Lists gateways as the endpoints of their Service: by name, and whether ready.
    pub async fn endpoints(&self, gateways: &[(&str, bool)]) {
        let endpoints: Vec<_> = gateways
            .iter()
            .enumerate()
            .map(|(at, (name, ready))| {
                json!({
                    "addresses": [format!("10.1.0.{}", at + 1)],
                    "conditions": {"ready": ready, "serving": ready},
                    "targetRef": {"kind": "Pod", "name": name, "namespace": SYSTEM},
                })
            })
            .collect();
        let slice: EndpointSlice = serde_json::from_value(json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {"name": "gateways", "namespace": SYSTEM, "labels": {"kubernetes.io/service-name": SERVICE}},
            "addressType": "IPv4", "endpoints": endpoints,
        }))
        .unwrap();
        let api: Api<EndpointSlice> = Api::namespaced(self.client.clone(), SYSTEM);
        api.patch("gateways", &PatchParams::apply(common::MANAGER).force(), &Patch::Apply(slice))
            .await
            .unwrap();
    }

    /// Kills the broker, and starts it again on its disk.
    pub async fn restart_broker(&mut self) {
        self.nats.as_mut().unwrap().restart().await.unwrap();
    }

    /// Lets the successor of an operator that died lead at once.
    pub async fn drop_lease(&self) {
        let api: Api<Lease> = Api::namespaced(self.client.clone(), SYSTEM);
        // The successor may have taken it already.
        let _ = api.delete("millrace-operator", &DeleteParams::default()).await;
    }

    /// Ends the broker; its disk is gone with it.
    pub fn stop_broker(&mut self) {
        self.nats = None;
    }

    pub fn flows(&self, namespace: &str) -> Api<Flow> {
        Api::namespaced(self.client.clone(), namespace)
    }

    /// Makes a Flow of these nodes, one after the other.
    pub async fn create(&self, namespace: &str, name: &str, nodes: &[Value]) -> Flow {
        self.flows(namespace).create(&PostParams::default(), &flow(name, nodes)).await.unwrap()
    }

    pub async fn delete(&self, namespace: &str, name: &str) {
        self.flows(namespace).delete(name, &DeleteParams::default()).await.unwrap();
    }

    pub async fn patch(&self, namespace: &str, name: &str, change: Value) -> Flow {
        let params = PatchParams::default();
        self.flows(namespace).patch(name, &params, &Patch::Merge(change)).await.unwrap()
    }

    /// Waits until a Flow is in a phase that is about its present spec.
    pub async fn phase(&self, namespace: &str, name: &str, phase: FlowPhase) -> Flow {
        let api = self.flows(namespace);
        let holds = |flow: &Flow| {
            let status = flow.status.as_ref();
            status.is_some_and(|status| {
                status.phase == Some(phase) && status.observed_generation == flow.metadata.generation
            })
        };
        let mut last = None;
        let reached = eventually(async || {
            last = api.get_opt(name).await.unwrap();
            last.as_ref().is_some_and(holds)
        });
        assert!(reached.await, "{name} never became {phase}: {:#?}", last.and_then(|flow| flow.status));
        last.unwrap()
    }

    /// Waits until a Flow is gone.
    pub async fn gone(&self, namespace: &str, name: &str) {
        let api = self.flows(namespace);
        let mut last = None;
        let reached = eventually(async || {
            last = api.get_opt(name).await.unwrap();
            last.is_none()
        });
        assert!(reached.await, "{name} never went: {:#?}", last.and_then(|flow| flow.status));
    }
}

/// A Flow with a schedule and one node, which takes nothing from its queue: its pods are fakes.
pub fn scheduled(name: &str, schedule: &str) -> Flow {
    let mut flow = flow(name, &[json!({"id": "a", "image": "example/component:1"})]);
    flow.spec.trigger = serde_json::from_value(json!({"cron": {"schedule": schedule}})).unwrap();
    flow
}

/// A Flow with a webhook and these nodes, one after the other.
pub fn flow(name: &str, nodes: &[Value]) -> Flow {
    let ids: Vec<_> = nodes.iter().map(|node| node["id"].as_str().unwrap()).collect();
    let edges: Vec<_> = ids.windows(2).map(|pair| json!({"source": pair[0], "target": pair[1]})).collect();
    serde_json::from_value(json!({
        "apiVersion": "millrace.dev/v1alpha1", "kind": "Flow", "metadata": {"name": name},
        "spec": {
            "trigger": {"webhook": {"methods": ["GET", "POST"]}},
            "graph": {"nodes": nodes, "edges": edges},
            "drainSeconds": 5,
        },
    }))
    .unwrap()
}

/// What the condition of a type says: its status, reason and message.
pub fn said(flow: &Flow, of: ConditionType) -> (String, String, String) {
    let conditions = flow.status.as_ref().map(|status| &status.conditions[..]).unwrap_or_default();
    let found = condition::find(conditions, of).unwrap_or_else(|| panic!("{} has no {of}", flow.name_any()));
    (found.status.clone(), found.reason.clone(), found.message.clone())
}

/// Asks again and again, for as long as anything may take.
pub async fn eventually(mut holds: impl AsyncFnMut() -> bool) -> bool {
    let end = Instant::now() + PATIENCE;
    while Instant::now() < end {
        if holds().await {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    false
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// One of the programs. It is killed when this is dropped.
pub struct Process {
    child: Child,
    pub admin: String,
    pub listen: String,
    pub log: std::path::PathBuf,
}

impl Process {
    pub fn signal(&self, signal: Signal) {
        // One that has ended by itself hears nothing.
        let _ = kill(Pid::from_raw(i32::try_from(self.child.id()).unwrap()), signal);
    }

    /// The exit code, once it has ended by itself.
    pub async fn ended(&mut self) -> Option<i32> {
        let mut code = None;
        let ended = eventually(async || {
            code = self.child.try_wait().unwrap();
            code.is_some()
        });
        assert!(ended.await, "it never ended:\n{}", self.text());
        code.and_then(|code| code.code())
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Waits until it stands still.
    pub async fn stopped(&self) {
        let path = format!("/proc/{}/stat", self.child.id());
        let stopped = eventually(async || {
            std::fs::read_to_string(&path)
                .is_ok_and(|stat| stat.rsplit(") ").next().is_some_and(|s| s.starts_with('T')))
        });
        assert!(stopped.await, "it never stood still:\n{}", self.text());
    }

    pub fn text(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Waits until it says that it is ready.
    pub async fn ready(&mut self) {
        let url = format!("http://{}/readyz", self.admin);
        let ready = eventually(async || {
            assert!(self.is_running(), "it ended:\n{}", self.text());
            common::get(&url).await.is_ok_and(|(status, _)| status == 200)
        });
        assert!(ready.await, "it never became ready:\n{}", self.text());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
