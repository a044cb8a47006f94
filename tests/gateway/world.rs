//! A gateway as its own process, with a real API server and a real broker, and a way to cut it off from both.

use std::net::{SocketAddr, TcpListener as StdListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use async_nats::jetstream::{self, consumer, stream};
use futures::StreamExt as _;
use kube::api::{Api, Patch, PatchParams, PostParams};
use millrace::api::flow::Flow;
use millrace::broker::work::RoutesApplied;
use rig::{Nats, Plane};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};
use tokio::sync::{OnceCell, watch};
use tokio::task::AbortHandle;

use crate::common;

/// The broker that the tests share.
pub async fn nats() -> &'static Nats {
    static NATS: OnceCell<Nats> = OnceCell::const_new();
    NATS.get_or_init(async || Nats::start().await.unwrap()).await
}

/// What a test has: a namespace with a queue, and clients.
pub struct World {
    pub namespace: String,
    pub kubeconfig: PathBuf,
    pub nats_url: String,
    pub kube: kube::Client,
    pub nats: async_nats::Client,
    pub jetstream: jetstream::Context,
}

impl World {
    /// With the API server and the broker that all share.
    pub async fn new() -> Self {
        let kube = common::client().await;
        let plane = Plane::shared().await.unwrap();
        let nats_url = nats().await.url().to_owned();
        let nats = async_nats::connect(&nats_url).await.unwrap();
        let namespace = common::namespace().await;
        let jetstream = jetstream::new(nats.clone());
        let world = Self { namespace, kubeconfig: plane.kubeconfig(), nats_url, kube, nats, jetstream };
        world.make_stream(&world.namespace, 10_000).await;
        world
    }

    /// Makes the stream of a namespace, as the operator does.
    pub async fn make_stream(&self, namespace: &str, each: i64) {
        let config = stream::Config {
            name: format!("MR_{namespace}"),
            subjects: vec![format!("millrace.flow.{namespace}.>")],
            retention: stream::RetentionPolicy::WorkQueue,
            discard: stream::DiscardPolicy::New,
            discard_new_per_subject: true,
            max_messages_per_subject: each,
            max_bytes: 64 << 20,
            max_message_size: 8 << 20,
            duplicate_window: Duration::from_secs(120),
            ..Default::default()
        };
        self.jetstream.create_stream(config).await.unwrap();
    }

    pub fn flows(&self, namespace: &str) -> Api<Flow> {
        Api::namespaced(self.kube.clone(), namespace)
    }

    /// Makes a Flow with nodes `first` and `last` whose route is wanted, and gives it as it is stored then.
    pub async fn flow(&self, namespace: &str, name: &str, webhook: Value) -> Flow {
        let flow = serde_json::from_value(json!({
            "apiVersion": "millrace.dev/v1alpha1", "kind": "Flow", "metadata": {"name": name},
            "spec": {
                "trigger": {"webhook": webhook},
                "graph": {
                    "nodes": [{"id": "last", "builtin": "log"}, {"id": "first", "image": "x"}],
                    "edges": [{"source": "first", "target": "last"}],
                },
            },
        }))
        .unwrap();
        self.flows(namespace).create(&PostParams::default(), &flow).await.unwrap();
        self.conditions(namespace, name, &["Accepted", "NodesReady"]).await
    }

    /// Makes these conditions of a Flow True, and leaves no other.
    pub async fn conditions(&self, namespace: &str, name: &str, all: &[&str]) -> Flow {
        let condition = |of: &&str| {
            json!({
                "type": of, "status": "True", "reason": "Test", "message": "", "observedGeneration": 1,
                "lastTransitionTime": "2026-01-01T00:00:00Z",
            })
        };
        let conditions: Vec<_> = all.iter().map(condition).collect();
        let status = json!({"status": {"conditions": conditions, "entry": "first"}});
        let params = PatchParams::default();
        self.flows(namespace).patch_status(name, &params, &Patch::Merge(&status)).await.unwrap()
    }

    /// Changes a Flow.
    pub async fn patch(&self, namespace: &str, name: &str, patch: Value) -> Flow {
        self.flows(namespace).patch(name, &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap()
    }

    /// The messages that wait for the first node of a Flow.
    pub async fn messages(&self, namespace: &str, flow: &str) -> Vec<Value> {
        let stream = self.jetstream.get_stream(format!("MR_{namespace}")).await.unwrap();
        let config = consumer::pull::Config {
            filter_subject: format!("millrace.flow.{namespace}.{flow}.first"),
            ..Default::default()
        };
        let consumer = stream.create_consumer(config).await.unwrap();
        let name = consumer.cached_info().name.clone();
        let waiting = usize::try_from(consumer.cached_info().num_pending).unwrap();
        if waiting == 0 {
            stream.delete_consumer(&name).await.unwrap();
            return vec![];
        }
        let messages = consumer.fetch().max_messages(waiting).messages().await.unwrap().take(waiting);
        let bodies = messages.map(|message| serde_json::from_slice(&message.unwrap().payload).unwrap());
        let bodies = bodies.collect().await;
        stream.delete_consumer(&name).await.unwrap();
        bodies
    }

    /// What gateways announce from now on.
    pub async fn announcements(&self) -> Announcements {
        let heard = self.nats.subscribe("millrace.gateway.*").await.unwrap();
        self.nats.flush().await.unwrap();
        Announcements(heard)
    }
}

/// The version of a Flow as a number.
pub fn version(flow: &Flow) -> u64 {
    flow.metadata.resource_version.as_ref().unwrap().parse().unwrap()
}

/// What gateways announce.
pub struct Announcements(async_nats::Subscriber);

impl Announcements {
    /// Waits until a gateway has announced this version or a later one.
    pub async fn reach(&mut self, gateway: &str, version: u64) {
        let heard = tokio::time::timeout(Duration::from_secs(20), async {
            while self.next(gateway).await < version {}
        });
        heard.await.unwrap_or_else(|_| panic!("{gateway} did not announce {version} within 20 s"));
    }

    /// The next announcement of a gateway.
    pub async fn next(&mut self, gateway: &str) -> u64 {
        loop {
            let message = self.0.next().await.unwrap();
            let applied: RoutesApplied = serde_json::from_slice(&message.payload).unwrap();
            if applied.gateway == gateway {
                return applied.resource_version;
            }
        }
    }
}

/// A gateway, ended when this is dropped.
pub struct Gateway {
    pub name: String,
    pub address: SocketAddr,
    pub admin: SocketAddr,
    pub child: Child,
    home: tempfile::TempDir,
}

fn free() -> SocketAddr {
    StdListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

impl Gateway {
    /// Starts one and waits until it is ready.
    pub async fn start(world: &World, name: &str) -> Self {
        let gateway = Self::start_with(name, &world.kubeconfig, &world.nats_url, &[]);
        gateway.ready(200).await;
        gateway
    }

    /// Starts one.
    pub fn start_with(name: &str, kubeconfig: &Path, nats_url: &str, more: &[&str]) -> Self {
        let home = tempfile::tempdir().unwrap();
        let key = home.path().join("message.key");
        std::fs::write(&key, "the same key for all gateways").unwrap();
        let (address, admin) = (free(), free());
        let log = std::fs::File::create(home.path().join("log")).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_millrace"))
            .args(["gateway", "--name", name, "--nats-url", nats_url])
            .args(["--listen", &address.to_string(), "--admin-listen", &admin.to_string()])
            .arg("--message-key-file")
            .arg(&key)
            .args(more)
            .env("KUBECONFIG", kubeconfig)
            .stderr(Stdio::from(log))
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        Self { name: name.to_owned(), address, admin, child, home }
    }

    /// Waits until `/readyz` answers with this status.
    pub async fn ready(&self, status: u16) {
        let url = format!("http://{}/readyz", self.admin);
        eventually(
            &format!("{} answers {status} to /readyz", self.name),
            async || matches!(common::get(&url).await, Ok((seen, _)) if seen == status),
        )
        .await;
    }

    /// What has been logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.home.path().join("log")).unwrap()
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Sends a request: status, headers, body.
    pub async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> (u16, http::HeaderMap, String) {
        common::request(method, &self.url(path), headers, body.to_vec()).await.unwrap()
    }

    /// The status that a POST of JSON is answered with.
    pub async fn post(&self, path: &str, body: &Value) -> u16 {
        let headers = [("content-type", "application/json")];
        self.send("POST", path, &headers, body.to_string().as_bytes()).await.0
    }

    /// Waits until a GET is answered with this status.
    pub async fn until(&self, path: &str, status: u16) {
        eventually(&format!("{path} is answered with {status}"), async || {
            self.send("GET", path, &[], b"").await.0 == status
        })
        .await;
    }

    pub fn term(&self) {
        let pid = self.child.id().unwrap().to_string();
        assert!(std::process::Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    }
}

/// Waits until something holds.
pub async fn eventually(what: &str, holds: impl AsyncFn() -> bool) {
    let begun = Instant::now();
    while !holds().await {
        assert!(begun.elapsed() < Duration::from_secs(30), "within 30 s not: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// How a way between two is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// What is sent arrives.
    Open,
    /// What the server sends does not arrive yet.
    Mute,
    /// There is no way.
    Cut,
}

/// Stands between a gateway and a server.
pub struct Proxy {
    pub port: u16,
    way: watch::Sender<Way>,
    task: AbortHandle,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Proxy {
    /// Before the server at this address, such as `127.0.0.1:4222`.
    pub async fn before(server: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (way, ways) = watch::channel(Way::Open);
        let server = server.to_owned();
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::spawn(carry(stream, server.clone(), ways.clone()));
            }
        });
        Self { port, way, task: task.abort_handle() }
    }

    pub fn set(&self, way: Way) {
        self.way.send_replace(way);
    }
}

async fn carry(client: TcpStream, server: String, mut ways: watch::Receiver<Way>) {
    if *ways.borrow() == Way::Cut {
        return;
    }
    let Ok(server) = TcpStream::connect(server).await else { return };
    let ((mut from_client, mut to_client), (mut from_server, mut to_server)) =
        (client.into_split(), server.into_split());
    let mut open = ways.clone();
    let down = async {
        let mut buffer = vec![0; 1 << 16];
        while let Ok(length @ 1..) = from_server.read(&mut buffer).await {
            open.wait_for(|way| *way != Way::Mute).await.unwrap();
            if to_client.write_all(&buffer[..length]).await.is_err() {
                break;
            }
        }
    };
    tokio::select! {
        _ = tokio::io::copy(&mut from_client, &mut to_server) => {}
        () = down => {}
        _ = ways.wait_for(|way| *way == Way::Cut) => {}
    }
}

/// A connection of its own, byte by byte.
pub async fn dial(gateway: &Gateway) -> TcpStream {
    TcpStream::connect(gateway.address).await.unwrap()
}

/// Reads until the other side closes, at most so many seconds.
pub async fn rest(stream: &mut TcpStream, seconds: u64) -> String {
    let mut bytes = vec![];
    let read = tokio::time::timeout(Duration::from_secs(seconds), stream.read_to_end(&mut bytes)).await;
    // A reset after the answer is an end too.
    let _ = read.unwrap_or_else(|_| panic!("not closed within {seconds} s"));
    String::from_utf8_lossy(&bytes).into_owned()
}
