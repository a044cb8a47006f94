//! A real broker with the streams of a namespace of its own for each test, and the real processes that move messages.
#![allow(dead_code, reason = "each test binary needs another part of it")]

use std::path::PathBuf;
use std::process::Stdio;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_nats::jetstream::consumer::{AckPolicy, pull};
use async_nats::jetstream::stream::{Config, DiscardPolicy, Republish, RetentionPolicy};
use async_nats::jetstream::{self, message::StreamMessage, stream};
use async_nats::{Client, HeaderMap};
use futures::TryStreamExt as _;
use millrace::broker::work::{Handler, NodeWork, RetryPolicy, Target};
use rig::Nats;
use serde_json::{Value, json};
use tokio::process::{Child, Command};
use tokio::sync::OnceCell;
use tokio::time::Instant;

pub mod builtin;
pub mod proxy;

/// How long anything may take on a busy machine.
pub const LIMIT: Duration = Duration::from_secs(40);
/// How often it is looked whether it has happened.
const GLANCE: Duration = Duration::from_millis(25);
/// The key of `/drain` in tests.
pub const DRAIN_KEY: &str = "open-sesame";

/// A namespace at the broker.
pub struct Mill {
    pub namespace: String,
    pub url: String,
    pub client: Client,
    pub jetstream: jetstream::Context,
    pub queues: stream::Stream,
}

/// How the queues of a test are.
#[derive(Clone, Copy)]
pub struct Queues {
    /// How many messages a queue holds.
    pub room: i64,
    /// How long the server waits for an acknowledgement.
    pub ack_wait: Duration,
}

impl Default for Queues {
    fn default() -> Self {
        Self { room: 10_000, ack_wait: Duration::from_secs(15) }
    }
}

/// The broker of this test binary, with the streams that all namespaces share.
async fn nats() -> &'static Nats {
    static NATS: OnceCell<Nats> = OnceCell::const_new();
    NATS.get_or_init(|| async {
        let nats = Nats::start().await.unwrap();
        let jetstream = jetstream::new(async_nats::connect(nats.url()).await.unwrap());
        let dead = Config {
            name: "MILLRACE_DEAD".into(),
            subjects: vec!["millrace.dead.>".into()],
            ..Config::default()
        };
        let bucket = |name: &str, republish| Config {
            name: format!("KV_{name}"),
            subjects: vec![format!("$KV.{name}.>")],
            max_messages_per_subject: 1,
            allow_direct: true,
            republish,
            ..Config::default()
        };
        let republish = Republish {
            source: "$KV.desired.>".into(),
            destination: "millrace.desired.>".into(),
            headers_only: false,
        };
        for config in [dead, bucket("desired", Some(republish)), bucket("observed", None)] {
            jetstream.create_stream(config).await.unwrap();
        }
        nats
    })
    .await
}

impl Mill {
    pub async fn start() -> Self {
        Self::with(Queues::default()).await
    }

    pub async fn with(queues: Queues) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let namespace = format!("shop-{}", COUNT.fetch_add(1, Ordering::Relaxed));
        let url = nats().await.url().to_owned();
        // Each test has a runtime of its own, and connections do not outlive theirs: so a client each.
        let client = async_nats::connect(&url).await.unwrap();
        let jetstream = jetstream::new(client.clone());
        let config = Config {
            name: format!("MR_{namespace}"),
            subjects: vec![format!("millrace.flow.{namespace}.>")],
            retention: RetentionPolicy::WorkQueue,
            discard: DiscardPolicy::New,
            discard_new_per_subject: true,
            max_messages_per_subject: queues.room,
            duplicate_window: Duration::from_secs(120),
            ..Config::default()
        };
        let stream = jetstream.create_stream(config).await.unwrap();
        Self { namespace, url, client, jetstream, queues: stream }
    }

    /// Makes the consumer of a node.
    pub async fn consumer(&self, flow: &str, node: &str, queues: Queues) {
        let config = pull::Config {
            durable_name: Some(format!("{flow}_{node}")),
            filter_subject: self.subject(flow, node),
            ack_policy: AckPolicy::Explicit,
            ack_wait: queues.ack_wait,
            max_deliver: -1,
            max_ack_pending: 1024,
            ..pull::Config::default()
        };
        self.queues.create_consumer(config).await.unwrap();
    }

    pub fn subject(&self, flow: &str, node: &str) -> String {
        format!("millrace.flow.{}.{flow}.{node}", self.namespace)
    }

    /// Puts a message into the queue of a node.
    pub async fn put(&self, flow: &str, node: &str, id: &str, body: Value) {
        let message =
            json!({"id": id, "attachments": {}, "body": body, "headers": {}, "metadata": {"from": "test"}});
        self.put_raw(flow, node, id, message.to_string()).await;
    }

    pub async fn put_raw(&self, flow: &str, node: &str, id: &str, text: String) {
        let mut headers = HeaderMap::new();
        headers.insert("Nats-Msg-Id", id);
        let sent = self.jetstream.publish_with_headers(self.subject(flow, node), headers, text.into()).await;
        sent.unwrap().await.unwrap();
    }

    /// What waits in the queue of a node, in its order.
    pub async fn queued(&self, flow: &str, node: &str) -> Vec<Value> {
        let all = all(&self.queues, &self.subject(flow, node)).await;
        all.iter().map(|message| serde_json::from_slice(&message.payload).unwrap()).collect()
    }

    /// The same in another namespace.
    pub async fn queued_in(&self, namespace: &str, flow: &str, node: &str) -> Vec<Value> {
        let stream = self.jetstream.get_stream(format!("MR_{namespace}")).await.unwrap();
        let all = all(&stream, &format!("millrace.flow.{namespace}.{flow}.{node}")).await;
        all.iter().map(|message| serde_json::from_slice(&message.payload).unwrap()).collect()
    }

    /// The dead letters of a node: their headers and what they hold.
    pub async fn dead(&self, flow: &str, node: &str) -> Vec<(HeaderMap, String)> {
        let stream = self.jetstream.get_stream("MILLRACE_DEAD").await.unwrap();
        let all = all(&stream, &format!("millrace.dead.{}.{flow}.{node}", self.namespace)).await;
        let one =
            |message: StreamMessage| (message.headers, String::from_utf8(message.payload.to_vec()).unwrap());
        all.into_iter().map(one).collect()
    }

    /// Waits for the one dead letter of a node, and gives its reason.
    pub async fn one_dead(&self, flow: &str, node: &str) -> String {
        let dead = until("a dead letter", async || {
            Some(self.dead(flow, node).await).filter(|dead| !dead.is_empty())
        })
        .await;
        assert_eq!(dead.len(), 1, "{dead:?}");
        header(&dead[0].0, "Millrace-Reason")
    }

    /// Messages that wait for a node, and messages that wait for an acknowledgement.
    ///
    /// The stream counts them, which loses a message with its acknowledgement: what a consumer says that it has before it
    /// lags behind what was just published.
    pub async fn pending(&self, flow: &str, node: &str) -> (u64, usize) {
        let consumer: jetstream::consumer::PullConsumer =
            self.queues.get_consumer(&format!("{flow}_{node}")).await.unwrap();
        let in_hand = consumer.cached_info().num_ack_pending;
        let subjects = self.queues.info_with_subjects(self.subject(flow, node)).await.unwrap();
        let held = subjects.try_fold(0, async |held, (_, count)| Ok(held + count)).await.unwrap();
        (held.saturating_sub(in_hand) as u64, in_hand)
    }

    /// How often messages were handed out for a node.
    pub async fn handed_out(&self, flow: &str, node: &str) -> u64 {
        let consumer: jetstream::consumer::PullConsumer =
            self.queues.get_consumer(&format!("{flow}_{node}")).await.unwrap();
        consumer.cached_info().delivered.consumer_sequence
    }

    /// Waits until nothing waits for a node any more, and nothing is being handled.
    pub async fn idle(&self, flow: &str, node: &str) {
        until("an empty queue", async || (self.pending(flow, node).await == (0, 0)).then_some(())).await;
    }
}

/// All messages of a subject that a stream holds.
async fn all(stream: &stream::Stream, subject: &str) -> Vec<StreamMessage> {
    let state = stream.get_info().await.unwrap().state;
    let (mut all, mut next) = (Vec::new(), state.first_sequence.max(1));
    while next <= state.last_sequence {
        match stream.raw_message_builder().sequence(next).next_by_subject(subject).send().await {
            Ok(message) => {
                next = message.sequence + 1;
                all.push(message);
            }
            Err(_) => break,
        }
    }
    all
}

/// Waits until something is there.
pub async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let limit = Instant::now() + LIMIT;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < limit, "waited in vain for {what}");
        tokio::time::sleep(GLANCE).await;
    }
}

pub fn header(headers: &HeaderMap, name: &str) -> String {
    headers.get(name).map(ToString::to_string).unwrap_or_default()
}

/// What an address answers: status and body.
pub async fn http(method: &str, url: &str, headers: &[(&str, &str)]) -> Option<(u16, String)> {
    use http_body_util::{BodyExt as _, Empty};
    use hyper_util::client::legacy::Client;
    use hyper_util::rt::TokioExecutor;

    let mut request = http::Request::builder().method(method).uri(url);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let client = Client::builder(TokioExecutor::new()).build_http();
    let answer = client.request(request.body(Empty::<bytes::Bytes>::new()).unwrap()).await.ok()?;
    let status = answer.status().as_u16();
    let body = answer.into_body().collect().await.ok()?.to_bytes();
    Some((status, String::from_utf8_lossy(&body).into_owned()))
}

/// A port that nobody listens on.
pub fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A component that runs, on a port.
pub struct Component {
    pub port: u16,
    _child: Child,
}

impl Component {
    pub async fn start() -> Self {
        Self::on(free_port()).await
    }

    pub async fn on(port: u16) -> Self {
        let child = Command::new(program("component").await)
            .env("PORT", port.to_string())
            .stdout(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        until("the component", async || http("GET", &format!("http://127.0.0.1:{port}/healthz"), &[]).await)
            .await;
        Self { port, _child: child }
    }

    /// The ids of the messages that it got, and how often.
    pub async fn seen(&self) -> Vec<(String, u64)> {
        let (_, text) = http("GET", &format!("http://127.0.0.1:{}/seen", self.port), &[]).await.unwrap();
        let list: Vec<Value> = serde_json::from_str(&text).unwrap();
        list.iter()
            .map(|one| (one["id"].as_str().unwrap().to_owned(), one["count"].as_u64().unwrap()))
            .collect()
    }
}

/// A program of another package: cargo builds those for no test but their own.
pub async fn program(name: &str) -> PathBuf {
    static BUILT: OnceCell<()> = OnceCell::const_new();
    BUILT
        .get_or_init(|| async {
            let built = Command::new(env!("CARGO"))
                .args(["build", "--quiet", "--locked", "--workspace"])
                .args(["--bin", "component", "--bin", "tier", "--bin", "launch"])
                .args((!cfg!(debug_assertions)).then_some("--release"))
                .current_dir(env!("CARGO_MANIFEST_DIR"))
                .status()
                .await
                .unwrap();
            assert!(built.success(), "the programs do not build");
        })
        .await;
    PathBuf::from(env!("CARGO_BIN_EXE_millrace")).with_file_name(name)
}

/// Two attempts after the first, with short pauses.
pub const RETRY: RetryPolicy = RetryPolicy { limit: 2, backoff_millis: 20, max_backoff_millis: 1000 };

/// Edges along which everything goes.
pub fn plain(targets: &[&str]) -> Vec<Target> {
    targets.iter().map(|target| Target::plain(target.parse().unwrap())).collect()
}

/// What a node of a component does, with short pauses.
pub fn work(node: &str, port: u16, path: &str, targets: &[&str]) -> NodeWork {
    NodeWork {
        id: node.parse().unwrap(),
        handler: Handler::Component { port, path: path.into() },
        targets: plain(targets),
        retry: RETRY,
        timeout_millis: 20_000,
        in_flight: 16,
    }
}

/// A process of `millrace`.
pub struct Role {
    pub admin: String,
    pub child: Child,
}

impl Role {
    /// The sidecar of a node.
    pub fn agent(mill: &Mill, flow: &str, work: &NodeWork, env: &[(&str, &str)]) -> Self {
        let work = serde_json::to_string(work).unwrap();
        let own = [("MILLRACE_FLOW", flow), ("MILLRACE_WORK", &work), ("MILLRACE_DRAIN_KEY", DRAIN_KEY)];
        Self::spawn(mill, "agent", own.iter().chain(env).copied())
    }

    /// The runner of the namespace.
    pub fn runner(mill: &Mill, env: &[(&str, &str)]) -> Self {
        Self::spawn(mill, "runner", [("POD_NAME", "runner-1")].iter().chain(env).copied())
    }

    /// The agent of an Instance.
    pub fn member(mill: &Mill, env: &[(&str, &str)]) -> Self {
        Self::spawn(mill, "member", env.iter().copied())
    }

    /// A runner with its log in its `stderr`.
    pub fn logging_runner(mill: &Mill) -> Self {
        Self::spawn_with(mill, "runner", [("POD_NAME", "runner-1")].into_iter(), Stdio::piped())
    }

    fn spawn<'a>(mill: &Mill, role: &str, env: impl Iterator<Item = (&'a str, &'a str)>) -> Self {
        let log = std::env::var("MILLRACE_TEST_LOG").map_or(Stdio::null(), |_| Stdio::inherit());
        Self::spawn_with(mill, role, env, log)
    }

    fn spawn_with<'a>(
        mill: &Mill,
        role: &str,
        env: impl Iterator<Item = (&'a str, &'a str)>,
        log: Stdio,
    ) -> Self {
        let listen = format!("127.0.0.1:{}", free_port());
        let child = Command::new(env!("CARGO_BIN_EXE_millrace"))
            .arg(role)
            .env("MILLRACE_NATS_URL", &mill.url)
            .env("MILLRACE_NAMESPACE", &mill.namespace)
            .env("MILLRACE_LISTEN", &listen)
            .envs(env)
            .stdout(Stdio::null())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        Self { admin: format!("http://{listen}"), child }
    }

    /// Status and text of `/readyz`.
    pub async fn ready(&self) -> Option<(u16, String)> {
        http("GET", &format!("{}/readyz", self.admin), &[]).await
    }

    pub async fn wait_ready(&self) {
        until("readiness", async || self.ready().await.filter(|(status, _)| *status == 200)).await;
    }

    /// The value of a metric, with its labels.
    pub async fn metric(&self, name: &str) -> f64 {
        let (_, text) = http("GET", &format!("{}/metrics", self.admin), &[]).await.unwrap_or_default();
        let value = |line: &str| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok();
        text.lines().find_map(value).unwrap_or_default()
    }

    pub fn signal(&self, signal: nix::sys::signal::Signal) {
        let id = i32::try_from(self.child.id().unwrap()).unwrap();
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(id), signal).unwrap();
    }
}
