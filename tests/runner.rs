//! The runner of a namespace against a real broker: it runs what the operator wants, says so, and no flow of it can harm
//! another.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

mod mill;

use std::process::Stdio;
use std::time::Duration;

use millrace::broker::work::{Loaded, NodeWork};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::time::{Instant, timeout};

use mill::builtin::{builtin, desire, observed, wait_loaded, work};
use mill::{LIMIT, Mill, Queues, Role, until};

fn jq(node: &str, expression: &str) -> NodeWork {
    builtin(node, "transform", &json!({"jq": expression}), &["out"])
}

/// A mill with a flow `f` that is loaded, with a consumer for each node.
async fn flow(nodes: Vec<NodeWork>) -> (Mill, Role) {
    let mill = Mill::start().await;
    for node in &nodes {
        mill.consumer("f", node.id.as_str(), Queues::default()).await;
    }
    desire(&mill, "f", Some(&work("r1", nodes))).await;
    let runner = Role::runner(&mill, &[]);
    wait_loaded(&mill, "f", "r1").await;
    (mill, runner)
}

fn bodies(messages: &[Value]) -> Vec<Value> {
    messages.iter().map(|message| message["body"].clone()).collect()
}

#[tokio::test]
async fn a_transform_gives_what_its_expression_gives() {
    let (mill, runner) = flow(vec![
        jq("one", "{body: {total: .body.total, from: .metadata.from}}"),
        jq("many", ".body.items[] | {body: .}"),
        jq("none", "empty"),
        jq("same", ".body.seen = true"),
    ])
    .await;
    runner.wait_ready().await;
    mill.put("f", "none", "m0", json!(1)).await;
    mill.idle("f", "none").await;
    assert_eq!(mill.queued("f", "out").await, Vec::<Value>::new());
    mill.put("f", "one", "m1", json!({"total": 1.5, "rest": 2})).await;
    mill.idle("f", "one").await;
    mill.put("f", "many", "m2", json!({"items": [1, 2]})).await;
    mill.idle("f", "many").await;
    mill.put("f", "same", "m3", json!({"a": 1})).await;
    mill.idle("f", "same").await;
    let out = mill.queued("f", "out").await;
    assert_eq!(
        bodies(&out),
        [json!({"total": 1.5, "from": "test"}), json!(1), json!(2), json!({"a": 1, "seen": true})]
    );
    assert!(out.iter().all(|message| message["metadata"] == json!({"from": "test"})), "{out:?}");
}

#[tokio::test]
async fn a_filter_gives_on_what_its_condition_holds_for() {
    let large = json!({"condition": {"range": {"body.total": {"gt": 100}}}});
    let (mill, _runner) = flow(vec![builtin("large", "filter", &large, &["out"])]).await;
    for total in [100, 101] {
        mill.put("f", "large", &format!("m{total}"), json!({ "total": total })).await;
    }
    mill.idle("f", "large").await;
    assert_eq!(bodies(&mill.queued("f", "out").await), [json!({"total": 101})]);
}

#[tokio::test]
async fn a_split_gives_each_element_of_a_list() {
    let orders = json!({"field": "body.orders"});
    let (mill, _runner) = flow(vec![builtin("each", "split", &orders, &["out"])]).await;
    mill.put("f", "each", "m1", json!({"orders": [{"id": 1}, {"id": 2}]})).await;
    mill.put("f", "each", "m2", json!({"orders": {"id": 3}})).await;
    let reason = mill.one_dead("f", "each").await;
    assert_eq!(reason, "`body.orders` is an object: `split` needs a list");
    mill.idle("f", "each").await;
    let out = mill.queued("f", "out").await;
    assert_eq!(bodies(&out), [json!({"id": 1}), json!({"id": 2})]);
    assert!(out.iter().all(|message| message["metadata"] == json!({"from": "test"})), "{out:?}");
}

#[tokio::test]
async fn a_message_waits_in_its_queue_whatever_is_restarted_and_it_costs_no_attempt() {
    let pause = json!({"duration": "3s"});
    let mut node = builtin("pause", "wait", &pause, &["out"]);
    node.retry.limit = 0;
    let (mill, runner) = flow(vec![node]).await;
    let put = Instant::now();
    mill.put("f", "pause", "m1", json!(1)).await;
    let put_aside = r#"millrace_pump_deliveries_total{outcome="NotYet"}"#;
    until("the message to be put aside", async || (runner.metric(put_aside).await > 0.0).then_some(())).await;
    drop(runner);
    assert_eq!(mill.queued("f", "out").await, Vec::<Value>::new());
    let _another = Role::runner(&mill, &[]);
    mill.idle("f", "pause").await;
    assert!(put.elapsed() >= Duration::from_secs(3), "it came after {:?}", put.elapsed());
    assert_eq!(bodies(&mill.queued("f", "out").await), [json!(1)]);
    assert_eq!(mill.dead("f", "pause").await.len(), 0);
}

#[tokio::test]
async fn a_log_node_shows_the_body_and_gives_the_message_on() {
    let mill = Mill::start().await;
    mill.consumer("f", "show", Queues::default()).await;
    desire(&mill, "f", Some(&work("r1", vec![builtin("show", "log", &json!({}), &["out"])]))).await;
    let mut runner = Role::logging_runner(&mill);
    let mut lines = BufReader::new(runner.child.stderr.take().unwrap()).lines();
    mill.put("f", "show", "m1", json!({"total": 5})).await;
    let line = timeout(LIMIT, async {
        loop {
            let line = lines.next_line().await.unwrap().unwrap();
            if line.contains("\"m1\"") {
                return line;
            }
        }
    });
    let line: Value = serde_json::from_str(&line.await.unwrap()).unwrap();
    let told = ["level", "flow", "node", "id", "body"].map(|field| line[field].as_str().unwrap().to_owned());
    assert_eq!(told, ["INFO", "f", "show", "m1", "{\"total\":5}"]);
    mill.idle("f", "show").await;
    assert_eq!(bodies(&mill.queued("f", "out").await), [json!({"total": 5})]);
}

#[tokio::test]
async fn an_expression_that_runs_away_fails_its_own_message_only() {
    let (mill, _runner) = flow(vec![
        jq("spin", "def f: f; f"),
        jq("eat", "[range(1e12)]"),
        jq("deep", "def f: 1 + f; f"),
        jq("flood", "repeat(.)"),
        jq("fail", ".body + {}"),
        jq("wrong", "{total: .body}"),
        jq("good", "{body: .body}"),
    ])
    .await;
    for node in ["spin", "eat", "deep", "flood", "fail", "wrong"] {
        mill.put("f", node, &format!("m-{node}"), json!(1)).await;
    }
    let memory =
        "the jq expression took more than 224 MiB of memory, or called itself too often, and was stopped";
    for (node, reason) in [
        ("spin", "the jq expression took longer than 5000 ms and was stopped"),
        ("eat", memory),
        ("deep", memory),
        ("flood", "the jq expression failed: it gives more than 10000 results"),
        ("fail", "the jq expression failed: cannot calculate 1 + {}"),
        (
            "wrong",
            "the answer is no message: a message has no `total`: put it under `body` at line 1 column 8",
        ),
    ] {
        let said = mill.one_dead("f", node).await;
        // On a machine that is slow enough, what eats memory is late before it is too much.
        let late = node == "eat" && said.contains("took longer than 5000 ms");
        assert!(said == reason || late, "{node}: {said}");
        mill.idle("f", node).await;
    }
    mill.put("f", "good", "m1", json!("alive")).await;
    mill.idle("f", "good").await;
    assert_eq!(bodies(&mill.queued("f", "out").await), [json!("alive")]);
}

#[tokio::test]
async fn a_flow_that_runs_away_does_not_hold_up_another() {
    let mill = Mill::start().await;
    for flow in ["bad", "worse", "good"] {
        mill.consumer(flow, "map", Queues::default()).await;
    }
    let runner = Role::runner(&mill, &[]);
    for (flow, expression) in [("bad", "def f: f; f"), ("worse", "[range(1e12)]"), ("good", ".")] {
        desire(&mill, flow, Some(&work("r1", vec![jq("map", expression)]))).await;
        wait_loaded(&mill, flow, "r1").await;
    }
    for number in 0..8 {
        mill.put("bad", "map", &format!("b{number}"), json!(number)).await;
        mill.put("worse", "map", &format!("w{number}"), json!(number)).await;
    }
    // Both have had their first chance.
    for flow in ["bad", "worse"] {
        until("a dead letter", async || (!mill.dead(flow, "map").await.is_empty()).then_some(())).await;
    }
    let began = Instant::now();
    for number in 0..50 {
        mill.put("good", "map", &format!("g{number}"), json!(number)).await;
    }
    mill.idle("good", "map").await;
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    assert_eq!(mill.queued("good", "out").await.len(), 50);
    assert!(!mill.queued("bad", "map").await.is_empty(), "it still runs away");
    drop(runner);
}

#[tokio::test]
async fn expressions_learn_nothing_of_the_runner() {
    let mill = Mill::start().await;
    mill.consumer("f", "a", Queues::default()).await;
    desire(&mill, "f", Some(&work("r1", vec![jq("a", "{body: env}")]))).await;
    let _runner = Role::runner(&mill, &[("SECRET", "hidden")]);
    mill.put("f", "a", "m1", json!(1)).await;
    mill.idle("f", "a").await;
    assert_eq!(bodies(&mill.queued("f", "out").await), [json!({})]);
}

#[tokio::test]
async fn what_is_loaded_is_said_when_it_is_and_not_before() {
    let mill = Mill::start().await;
    let runner = Role::runner(&mill, &[]);
    runner.wait_ready().await;
    mill.consumer("f", "a", Queues::default()).await;
    let nodes = vec![jq("a", "."), jq("b", ".")];
    desire(&mill, "f", Some(&work("r1", nodes))).await;
    mill.put("f", "a", "m1", json!(1)).await;
    mill.idle("f", "a").await;
    assert_eq!(observed(&mill, "f").await, None, "the consumer of b is not there");
    mill.consumer("f", "b", Queues::default()).await;
    let expected =
        Loaded { uid: "uid-1".into(), revision: "r1".into(), pod: "runner-1".into(), problems: vec![] };
    assert_eq!(wait_loaded(&mill, "f", "r1").await, expected);
}

#[tokio::test]
async fn a_node_that_cannot_be_run_is_told_and_the_others_run() {
    let (mill, _runner) = flow(vec![jq("a", ".")]).await;
    mill.consumer("f", "b", Queues::default()).await;
    let nodes = vec![jq("a", "."), builtin("b", "magic", &json!({}), &[]), jq("c", "{")];
    desire(&mill, "f", Some(&work("r2", nodes))).await;
    let problems = wait_loaded(&mill, "f", "r2").await.problems;
    assert_eq!(
        problems,
        [
            "node 'b': `builtin` 'magic' is none: use filter, http, log, split, transform, wait or an image",
            "node 'c': `fields.jq` is no jq expression: expected closing brace at its end",
        ]
    );
    mill.put("f", "a", "m1", json!(1)).await;
    mill.idle("f", "a").await;
}

#[tokio::test]
async fn a_change_takes_effect_and_a_flow_that_is_removed_stops() {
    let (mill, runner) = flow(vec![jq("a", "{body: 1}")]).await;
    desire(&mill, "f", Some(&work("r2", vec![jq("a", "{body: 2}")]))).await;
    wait_loaded(&mill, "f", "r2").await;
    mill.put("f", "a", "m1", json!(0)).await;
    mill.idle("f", "a").await;
    assert_eq!(bodies(&mill.queued("f", "out").await), [json!(2)]);
    desire(&mill, "f", None).await;
    until("the answer", async || (observed(&mill, "f").await == Some(None)).then_some(())).await;
    mill.put("f", "a", "m2", json!(0)).await;
    assert_eq!(runner.metric("millrace_runner_nodes").await.to_string(), "0");
    assert_eq!(mill.pending("f", "a").await, (1, 0), "nobody takes it");
}

#[tokio::test]
async fn a_flow_that_is_removed_finishes_what_it_has() {
    let (mill, _runner) = flow(vec![jq("a", "reduce range(2000) as $i (0; . + $i) | {body: .}")]).await;
    for number in 0..3 {
        mill.put("f", "a", &format!("m{number}"), json!(number)).await;
    }
    until("work in hand", async || (mill.pending("f", "a").await.1 > 0).then_some(())).await;
    desire(&mill, "f", None).await;
    until("the answer", async || (observed(&mill, "f").await == Some(None)).then_some(())).await;
    let (waiting, in_hand) = mill.pending("f", "a").await;
    assert_eq!((in_hand, mill.dead("f", "a").await.len()), (0, 0));
    assert_eq!(mill.queued("f", "out").await.len() as u64 + waiting, 3);
}

#[tokio::test]
async fn what_changes_while_nobody_listens_is_read_when_a_runner_starts() {
    let mill = Mill::start().await;
    // More than are read at a time.
    let flows: Vec<_> = (0..300).map(|number| format!("f{number}")).collect();
    for flow in &flows {
        desire(&mill, flow, Some(&work("r1", vec![]))).await;
    }
    desire(&mill, "gone", None).await;
    let runner = Role::runner(&mill, &[]);
    for flow in &flows {
        wait_loaded(&mill, flow, "r1").await;
    }
    until("the answer", async || (observed(&mill, "gone").await == Some(None)).then_some(())).await;
    runner.wait_ready().await;
}

#[tokio::test]
async fn a_runner_that_is_told_to_stop_finishes_and_leaves_its_word() {
    let (mill, mut runner) = flow(vec![jq("a", ".")]).await;
    mill.put("f", "a", "m1", json!(0)).await;
    runner.signal(Signal::SIGTERM);
    let ended = timeout(LIMIT, runner.child.wait()).await.unwrap().unwrap();
    assert!(ended.success(), "{ended}");
    let (waiting, in_hand) = mill.pending("f", "a").await;
    assert_eq!((in_hand, mill.queued("f", "out").await.len() as u64 + waiting), (0, 1));
    assert!(observed(&mill, "f").await.flatten().is_some(), "another pod may run it already");
}

#[tokio::test]
async fn a_worker_for_jq_ends_with_its_runner() {
    let (mill, mut runner) = flow(vec![jq("a", "def f: f; f")]).await;
    mill.put("f", "a", "m1", json!(0)).await;
    let parent = runner.child.id().unwrap();
    let worker = until("a worker", async || children(parent).await.pop()).await;
    runner.child.kill().await.unwrap();
    until("its end", async || {
        (!std::path::Path::new(&format!("/proc/{worker}/cmdline")).exists()).then_some(())
    })
    .await;
}

/// The processes that a process has started.
async fn children(parent: u32) -> Vec<u32> {
    let found = tokio::process::Command::new("pgrep")
        .args(["-P", &parent.to_string()])
        .stdout(Stdio::piped())
        .output()
        .await
        .unwrap();
    String::from_utf8(found.stdout).unwrap().lines().map(|line| line.parse().unwrap()).collect()
}
