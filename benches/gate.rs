//! How long it takes from the moment when the operator writes that the last import is there, to the agent's word that the
//! application runs: through a real broker, a real agent and the real launcher. Beside it stand its raw parts in the same run:
//! a write that is heard by another, and a process that is started.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "what cannot go on ends")]
#![allow(missing_docs, reason = "a program, not a library")]

#[path = "../tests/mill/mod.rs"]
mod mill;
#[path = "../tests/member/pod.rs"]
mod pod;

use std::time::{Duration, Instant};

use futures::StreamExt as _;
use mill::Mill;
use millrace::broker::member::{MemberReport, Stage};
use pod::{Pod, setup, work};
use serde_json::json;

const ROUNDS: usize = 200;

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(run());
}

async fn run() {
    let mill = Mill::start().await;
    let heard = heard(&mill).await;
    print("a write that is heard by another", heard);
    print("a process that is started", (0..ROUNDS).map(|_| process()).collect());

    let mut member = Pod::new(&mill, setup(&json!({"ports": {}}))).await;
    member.launch(&["sleep", "3600"], &[]).await;
    let subject = format!("$KV.observed.instance.{}.web-0", mill.namespace);
    let mut said = mill.client.subscribe(subject).await.unwrap();
    mill.client.flush().await.unwrap();
    let mut reaches = async |stage: Stage| {
        loop {
            let message = said.next().await.unwrap();
            let report: MemberReport = serde_json::from_slice(&message.payload).unwrap();
            if report.stage == stage {
                return;
            }
        }
    };
    let mut times = vec![];
    for round in 0..ROUNDS {
        let began = Instant::now();
        member.want(&work(&format!("r{round}"), true, &["10.0.0.1"])).await;
        reaches(Stage::Serving).await;
        if round > 0 {
            times.push(began.elapsed());
        }
        member.want(&work(&format!("r{round}"), false, &[])).await;
        reaches(Stage::Down).await;
    }
    print("the gate: from the write to the word that the application runs", times);
}

/// A write into a bucket, and the word of it.
async fn heard(mill: &Mill) -> Vec<Duration> {
    let mut words = mill.client.subscribe("millrace.desired.bench").await.unwrap();
    mill.client.flush().await.unwrap();
    let mut times = vec![];
    for _ in 0..ROUNDS {
        let began = Instant::now();
        let written = mill.jetstream.publish("$KV.desired.bench", "{}".into()).await.unwrap();
        words.next().await.unwrap();
        times.push(began.elapsed());
        written.await.unwrap();
    }
    times
}

fn process() -> Duration {
    let began = Instant::now();
    let mut child = std::process::Command::new("sleep").arg("3600").spawn().unwrap();
    let took = began.elapsed();
    child.kill().unwrap();
    child.wait().unwrap();
    took
}

/// Prints the median and the 99th percentile of some times.
fn print(what: &str, mut times: Vec<Duration>) {
    times.sort();
    let at = |share: usize| times[(times.len() * share / 100).min(times.len() - 1)];
    println!("{what}: {} times, p50 {:.1?}, p99 {:.1?}, most {:.1?}", times.len(), at(50), at(99), at(100));
}
