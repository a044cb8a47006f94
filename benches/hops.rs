//! Messages through five built-in nodes, and through five loops that pull, publish and acknowledge by hand: `make bench-hops`.
//!
//! Both move the same messages over the same broker, which syncs before it acknowledges; both hold 16 messages of a node
//! at a time, and acknowledge one when what came of it is stored. Run with the program that `make program` builds.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a measurement that cannot go on ends")]

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use async_nats::HeaderMap;
use async_nats::jetstream;
use async_nats::jetstream::consumer::{AckPolicy, PullConsumer, pull};
use async_nats::jetstream::stream::{Config, Republish, RetentionPolicy};
use futures::{StreamExt as _, stream};
use millrace::broker::work::{FlowWork, Handler, NodeWork, RetryPolicy, Target};
use rig::Nats;
use serde_json::json;

const MESSAGES: u32 = 2000;
const ROUNDS: usize = 3;
const HELD: usize = 16;
const NODES: [&str; 5] = ["a", "b", "c", "d", "e"];

fn subject(node: &str) -> String {
    format!("millrace.flow.bench.f.{node}")
}

/// The streams of one namespace, with a consumer for each node.
async fn furnish(jetstream: &jetstream::Context) {
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
    let queues = Config {
        name: "MR_bench".into(),
        subjects: vec!["millrace.flow.bench.>".into()],
        retention: RetentionPolicy::WorkQueue,
        ..Config::default()
    };
    for config in [bucket("desired", Some(republish)), bucket("observed", None), queues] {
        jetstream.create_stream(config).await.unwrap();
    }
    for node in NODES {
        let config = pull::Config {
            durable_name: Some(format!("f_{node}")),
            filter_subject: subject(node),
            ack_policy: AckPolicy::Explicit,
            ..pull::Config::default()
        };
        jetstream.create_consumer_on_stream(config, "MR_bench").await.unwrap();
    }
}

/// Puts all messages before the first node.
async fn fill(jetstream: &jetstream::Context, round: usize) {
    let put = |number: u32| async move {
        let id = format!("{round}-{number}");
        let message =
            json!({"id": id, "attachments": {}, "body": {"id": number}, "headers": {}, "metadata": {}});
        let mut headers = HeaderMap::new();
        headers.insert("Nats-Msg-Id", id);
        let sent = jetstream.publish_with_headers(subject("a"), headers, message.to_string().into()).await;
        sent.unwrap().await.unwrap();
    };
    stream::iter(0..MESSAGES).map(put).buffer_unordered(512).collect::<Vec<()>>().await;
}

/// Waits until all have come out behind the last node, and removes them.
async fn drain(jetstream: &jetstream::Context) {
    let stream = jetstream.get_stream("MR_bench").await.unwrap();
    loop {
        let out = stream.info_with_subjects(subject("out")).await.unwrap();
        let out: Vec<_> = out.collect().await;
        if out.iter().any(|counted| counted.as_ref().is_ok_and(|(_, count)| *count == MESSAGES as usize)) {
            stream.purge().filter(subject("out")).await.unwrap();
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn program() -> PathBuf {
    let target = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/image");
    let hosts = std::fs::read_dir(target).into_iter().flatten().flatten();
    let built = hosts.map(|host| host.path().join("image/millrace")).find(|program| program.exists());
    built.unwrap_or_else(|| panic!("the shipped program is not there: run `make program`"))
}

fn runner(url: &str) -> Child {
    Command::new(program())
        .arg("runner")
        .env("MILLRACE_NATS_URL", url)
        .env("MILLRACE_NAMESPACE", "bench")
        .env("POD_NAME", "runner-0")
        .env("MILLRACE_LISTEN", "127.0.0.1:0")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Five nodes that let everything through.
async fn desire(jetstream: &jetstream::Context) {
    let next = |at: usize| NODES.get(at + 1).copied().unwrap_or("out");
    let fields = json!({"condition": {"exists": "body.id"}});
    let node = |(at, id): (usize, &&str)| NodeWork {
        id: id.parse().unwrap(),
        handler: Handler::Builtin { name: "filter".into(), fields: fields.as_object().unwrap().clone() },
        targets: vec![Target::plain(next(at).parse().unwrap())],
        retry: RetryPolicy { limit: 0, backoff_millis: 1000, max_backoff_millis: 1000 },
        timeout_millis: 30_000,
        in_flight: u32::try_from(HELD).unwrap(),
    };
    let nodes = NODES.iter().enumerate().map(node).collect();
    let work = FlowWork { uid: "u".into(), revision: "r".into(), nodes };
    let payload = serde_json::to_vec(&work).unwrap();
    jetstream.publish("$KV.desired.flow.bench.f", payload.into()).await.unwrap().await.unwrap();
}

/// One node by hand.
async fn by_hand(jetstream: jetstream::Context, node: &'static str, next: &'static str) {
    let stream = jetstream.get_stream("MR_bench").await.unwrap();
    let consumer: PullConsumer = stream.get_consumer(&format!("f_{node}")).await.unwrap();
    let messages = consumer.stream().max_messages_per_batch(HELD).messages().await.unwrap();
    let each = messages.for_each_concurrent(HELD, |message| async {
        let message = message.unwrap();
        let id = message.headers.as_ref().unwrap().get("Nats-Msg-Id").unwrap().to_string();
        let mut headers = HeaderMap::new();
        headers.insert("Nats-Msg-Id", format!("{node}{id}"));
        let sent = jetstream.publish_with_headers(subject(next), headers, message.payload.clone()).await;
        sent.unwrap().await.unwrap();
        message.double_ack().await.unwrap();
    });
    each.await;
}

#[tokio::main]
async fn main() {
    let nats = Nats::start().await.unwrap();
    let jetstream = jetstream::new(async_nats::connect(nats.url()).await.unwrap());
    furnish(&jetstream).await;
    desire(&jetstream).await;
    println!("{MESSAGES} messages through five nodes, messages per second");
    for round in 0..ROUNDS {
        fill(&jetstream, round * 2).await;
        let (began, mut runner) = (Instant::now(), runner(nats.url()));
        drain(&jetstream).await;
        let built_in = f64::from(MESSAGES) / began.elapsed().as_secs_f64();
        runner.kill().unwrap();
        runner.wait().unwrap();

        fill(&jetstream, round * 2 + 1).await;
        let began = Instant::now();
        let loops: Vec<_> = NODES
            .iter()
            .zip(NODES.iter().skip(1).chain([&"out"]))
            .map(|(node, next)| tokio::spawn(by_hand(jetstream.clone(), node, next)))
            .collect();
        drain(&jetstream).await;
        let raw = f64::from(MESSAGES) / began.elapsed().as_secs_f64();
        loops.iter().for_each(tokio::task::JoinHandle::abort);
        println!("built-in nodes {built_in:>7.0}   by hand {raw:>7.0}   ratio {:.2}", built_in / raw);
    }
}
