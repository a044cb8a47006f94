//! The sidecar of a node against a real broker and a real component: no message is lost, and none is stored twice.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

mod mill;

use std::time::Duration;

use millrace::broker::work::{RetryPolicy, Target};
use millrace::pump::test::EXIT_CODE;
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tokio::time::timeout;

use mill::proxy::Proxy;
use mill::{Component, DRAIN_KEY, LIMIT, Mill, Queues, Role, free_port, header, http, until, work};

/// A mill with a flow `f` whose node `a` is about to run.
async fn flow() -> Mill {
    let mill = Mill::start().await;
    mill.consumer("f", "a", Queues::default()).await;
    mill
}

fn bodies(messages: &[Value]) -> Vec<Value> {
    messages.iter().map(|message| message["body"].clone()).collect()
}

#[tokio::test]
async fn what_a_component_gives_goes_to_each_target_and_then_the_message_is_gone() {
    let (mill, component) = (flow().await, Component::start().await);
    let agent = Role::agent(&mill, "f", &work("a", component.port, "/enrich", &["b", "c"]), &[]);
    mill.put("f", "a", "m1", json!({"id": 1, "total": 5})).await;
    mill.idle("f", "a").await;
    for target in ["b", "c"] {
        let got = mill.queued("f", target).await;
        assert_eq!(got.len(), 1);
        assert_eq!((&got[0]["body"]["id"], &got[0]["body"]["total"]), (&json!(1), &json!(5)));
        assert!(got[0]["body"]["seenBy"].is_string());
        assert_eq!(got[0]["metadata"], json!({"from": "test"}), "the input's, since the answer gave none");
        assert_eq!(got[0]["id"].as_str().unwrap().len(), 32);
    }
    assert_ne!(mill.queued("f", "b").await[0]["id"], mill.queued("f", "c").await[0]["id"]);
    assert_eq!(mill.queued("f", "a").await, Vec::<Value>::new());
    assert_eq!(component.seen().await, [("m1".to_owned(), 1)]);
    assert_eq!(agent.metric(r#"millrace_pump_deliveries_total{outcome="Done"}"#).await.to_string(), "1");
}

#[tokio::test]
async fn several_messages_of_one_answer_come_in_their_order_and_none_ends_the_message() {
    let (mill, component) = (flow().await, Component::start().await);
    mill.consumer("f", "d", Queues::default()).await;
    let _split = Role::agent(&mill, "f", &work("a", component.port, "/split", &["b"]), &[]);
    let _drop = Role::agent(&mill, "f", &work("d", component.port, "/drop", &["b"]), &[]);
    mill.put("f", "a", "m1", json!({"id": 1})).await;
    mill.put("f", "d", "m2", json!({"id": 2})).await;
    mill.idle("f", "a").await;
    mill.idle("f", "d").await;
    assert_eq!(
        bodies(&mill.queued("f", "b").await),
        [json!({"id": 1, "part": 1}), json!({"id": 1, "part": 2})]
    );
}

/// An edge with a condition, a mapping, or both.
fn edge(target: &str, condition: Option<Value>, transform: Option<&str>) -> Target {
    let condition = condition.map(|condition| condition.as_object().unwrap().clone());
    Target { node: target.parse().unwrap(), condition, transform: transform.map(Into::into) }
}

#[tokio::test]
async fn a_message_goes_where_the_condition_of_the_edge_holds_and_its_mapping_changes_it() {
    let (mill, component) = (flow().await, Component::start().await);
    let large = json!({"range": {"body.id": {"gte": 10}}});
    let mut work = work("a", component.port, "/echo", &["all"]);
    work.targets.extend([
        edge("large", Some(large.clone()), None),
        edge("small", Some(json!({ "not": large })), None),
        edge("many", None, Some(".body.id as $id | {body: $id}, {body: -$id, metadata: {by: \"edge\"}}")),
        edge("none", None, Some("empty")),
    ]);
    let _agent = Role::agent(&mill, "f", &work, &[]);
    for id in [9, 10] {
        mill.put("f", "a", &format!("m{id}"), json!({ "id": id })).await;
        mill.idle("f", "a").await;
    }
    let (nine, ten) = (json!({"id": 9}), json!({"id": 10}));
    let queued = async |target: &str| bodies(&mill.queued("f", target).await);
    assert_eq!(queued("all").await, [nine.clone(), ten.clone()]);
    assert_eq!((queued("large").await, queued("small").await), (vec![ten], vec![nine]));
    assert_eq!(queued("many").await, [json!(9), json!(-9), json!(10), json!(-10)]);
    assert_eq!(queued("none").await, Vec::<Value>::new());
    let many = mill.queued("f", "many").await;
    assert_eq!(many[0]["metadata"], json!({"from": "test"}), "as the message before it");
    assert_eq!(many[1]["metadata"], json!({"by": "edge"}));
    assert_ne!(many[0]["id"], many[1]["id"]);
}

#[tokio::test]
async fn a_mapping_that_fails_makes_a_dead_letter_and_publishes_nothing() {
    let (mill, component) = (flow().await, Component::start().await);
    let mut work = work("a", component.port, "/split", &["b"]);
    work.targets.push(edge("c", None, Some("if .body.part == 2 then error(\"no\") else . end")));
    let _agent = Role::agent(&mill, "f", &work, &[]);
    mill.put("f", "a", "m1", json!({"id": 1})).await;
    let reason = mill.one_dead("f", "a").await;
    assert_eq!(reason, "`transform` of the edge to 'c': the jq expression failed: \"no\"");
    assert_eq!((mill.queued("f", "b").await.len(), mill.queued("f", "c").await.len()), (0, 0));
    let spin = edge("c", None, Some("def f: f; f"));
    let mut again = mill::work("b", component.port, "/echo", &[]);
    again.targets.push(spin);
    mill.consumer("f", "b", Queues::default()).await;
    let _agent = Role::agent(&mill, "f", &again, &[]);
    mill.put("f", "b", "m2", json!({"id": 2})).await;
    let reason = mill.one_dead("f", "b").await;
    assert!(
        reason.starts_with("`transform` of the edge to 'c': the jq expression took longer than"),
        "{reason}"
    );
}

#[tokio::test]
async fn a_sidecar_that_dies_between_publish_and_acknowledgement_stores_nothing_twice() {
    let mill = Mill::start().await;
    mill.consumer("f", "a", Queues { ack_wait: Duration::from_secs(1), ..Queues::default() }).await;
    let component = Component::start().await;
    let work = work("a", component.port, "/split", &["b", "c"]);
    let mut first = Role::agent(&mill, "f", &work, &[("MILLRACE_TEST_EXIT_BEFORE_ACK", "1")]);
    mill.put("f", "a", "m1", json!({"id": 1})).await;
    let died = timeout(LIMIT, first.child.wait()).await.unwrap().unwrap();
    assert_eq!(died.code(), Some(EXIT_CODE));
    assert_eq!(mill.queued("f", "b").await.len(), 2, "published");
    assert_eq!(mill.queued("f", "a").await.len(), 1, "and not acknowledged");
    let _second = Role::agent(&mill, "f", &work, &[]);
    mill.idle("f", "a").await;
    assert_eq!(component.seen().await, [("m1".to_owned(), 2)], "it was handled again, under the same id");
    assert_eq!((mill.queued("f", "b").await.len(), mill.queued("f", "c").await.len()), (2, 2));
}

#[tokio::test]
async fn a_component_that_does_not_listen_yet_costs_no_delivery() {
    let (mill, port) = (flow().await, free_port());
    let work = work("a", port, "/echo", &["b"]);
    mill.put("f", "a", "m1", json!(1)).await;
    let agent = Role::agent(&mill, "f", &work, &[]);
    let (_, text) = until("the other gates", async || {
        agent.ready().await.filter(|(status, text)| *status == 503 && !text.contains("queue"))
    })
    .await;
    assert_eq!(text, format!("component: nothing accepts connections on 127.0.0.1:{port}\n"));
    assert_eq!(mill.handed_out("f", "a").await, 0);
    let component = Component::on(port).await;
    mill.idle("f", "a").await;
    assert_eq!(component.seen().await, [("m1".to_owned(), 1)]);
    agent.wait_ready().await;
}

#[tokio::test]
async fn messages_wait_for_a_component_that_went_away_and_it_costs_no_attempt() {
    let (mill, component) = (flow().await, Component::start().await);
    let mut work = work("a", component.port, "/echo", &["b"]);
    work.retry = RetryPolicy { limit: 0, ..mill::RETRY };
    let agent = Role::agent(&mill, "f", &work, &[]);
    mill.put("f", "a", "m1", json!(1)).await;
    mill.idle("f", "a").await;
    let port = component.port;
    drop(component);
    until("the component's end", async || {
        http("GET", &format!("http://127.0.0.1:{port}/healthz"), &[]).await.is_none().then_some(())
    })
    .await;
    // The request for messages that the server still has is answered with the first of them.
    for number in 2..30 {
        mill.put("f", "a", &format!("m{number}"), json!(number)).await;
    }
    until("a held message", async || {
        (agent.metric(r#"millrace_pump_held{why="Refused"}"#).await > 0.0).then_some(())
    })
    .await;
    let handed_out = mill.handed_out("f", "a").await;
    assert!(handed_out <= 17, "{handed_out}");
    let component = Component::on(port).await;
    mill.idle("f", "a").await;
    let mut seen = component.seen().await;
    seen.sort();
    assert_eq!(seen.len(), 28);
    assert!(seen.iter().all(|(_, count)| *count == 1), "{seen:?}");
    assert_eq!(mill.dead("f", "a").await.len(), 0);
    assert_eq!(mill.handed_out("f", "a").await, 29, "each message once");
}

#[tokio::test]
async fn what_no_attempt_helps_against_is_a_dead_letter_at_once() {
    for (path, reason) in [
        ("/reject", "the component answered 422: this function wants nothing"),
        ("/nowhere", "the component answered 404: no such function"),
        ("/garbage", "the answer is no message: expected value at line 1 column 1"),
        ("/huge", "the component's answer is larger than 8323072 bytes"),
    ] {
        let (mill, component) = (flow().await, Component::start().await);
        let _agent = Role::agent(&mill, "f", &work("a", component.port, path, &["b"]), &[]);
        mill.put("f", "a", "m1", json!({"id": 1})).await;
        assert_eq!(mill.one_dead("f", "a").await, reason, "{path}");
        mill.idle("f", "a").await;
        assert_eq!(component.seen().await, [("m1".to_owned(), 1)], "{path}");
        assert_eq!(mill.queued("f", "b").await.len(), 0, "{path}");
    }
}

#[tokio::test]
async fn what_may_pass_is_tried_again_until_the_limit_and_the_dead_letter_says_so() {
    let (mill, component) = (flow().await, Component::start().await);
    let _agent = Role::agent(&mill, "f", &work("a", component.port, "/fail", &["b"]), &[]);
    mill.put("f", "a", "m1", json!({"id": 1})).await;
    let reason = mill.one_dead("f", "a").await;
    assert_eq!(reason, "it was tried 3 times, at last: the component answered 500: this function fails");
    let (headers, payload) = mill.dead("f", "a").await.remove(0);
    let headers =
        ["Millrace-Node", "Millrace-Attempts", "Millrace-Message-Id"].map(|name| header(&headers, name));
    assert_eq!(headers, ["a", "3", "m1"]);
    assert_eq!(serde_json::from_str::<Value>(&payload).unwrap()["body"], json!({"id": 1}));
    mill.idle("f", "a").await;
    assert_eq!(component.seen().await, [("m1".to_owned(), 3)]);
}

#[tokio::test]
async fn a_component_that_hangs_or_dies_fails_its_message_and_nothing_else() {
    let (mill, component) = (flow().await, Component::start().await);
    let mut hang = work("a", component.port, "/hang", &["b"]);
    (hang.timeout_millis, hang.retry.limit) = (300, 1);
    let _agent = Role::agent(&mill, "f", &hang, &[]);
    mill.put("f", "a", "m1", json!(1)).await;
    let reason = mill.one_dead("f", "a").await;
    assert_eq!(reason, "it was tried 2 times, at last: the component gave no answer within 300 ms");

    mill.consumer("f", "e", Queues::default()).await;
    let dies = Component::start().await;
    let mut exit = work("e", dies.port, "/exit", &["b"]);
    exit.retry.limit = 0;
    let _agent = Role::agent(&mill, "f", &exit, &[]);
    mill.put("f", "e", "m2", json!(1)).await;
    let reason = mill.one_dead("f", "e").await;
    assert!(reason.starts_with("it was tried once, at last: the component ended the connection"), "{reason}");
}

#[tokio::test]
async fn what_is_no_message_is_a_dead_letter_and_stops_nobody() {
    let (mill, component) = (flow().await, Component::start().await);
    let _agent = Role::agent(&mill, "f", &work("a", component.port, "/echo", &["b"]), &[]);
    mill.put_raw("f", "a", "poison", "hello".into()).await;
    mill.put("f", "a", "m1", json!(1)).await;
    mill.idle("f", "a").await;
    assert_eq!(mill.one_dead("f", "a").await, "it is no message: it must be a JSON object");
    assert_eq!(mill.dead("f", "a").await[0].1, "hello");
    assert_eq!(bodies(&mill.queued("f", "b").await), [json!(1)]);
}

#[tokio::test]
async fn a_full_queue_is_waited_for_and_costs_no_attempt() {
    let mill = Mill::with(Queues { room: 2, ..Queues::default() }).await;
    mill.consumer("f", "a", Queues::default()).await;
    let component = Component::start().await;
    let mut work = work("a", component.port, "/echo", &["b"]);
    work.retry.limit = 0;
    for number in [1, 2] {
        mill.put("f", "b", &format!("old{number}"), json!("old")).await;
    }
    let agent = Role::agent(&mill, "f", &work, &[]);
    mill.put("f", "a", "m1", json!("new")).await;
    until("a held message", async || {
        (agent.metric(r#"millrace_pump_held{why="Publish"}"#).await > 0.0).then_some(())
    })
    .await;
    assert_eq!(mill.pending("f", "a").await, (0, 1), "it is not acknowledged");
    mill.queues.purge().filter(mill.subject("f", "b")).await.unwrap();
    mill.idle("f", "a").await;
    assert_eq!(bodies(&mill.queued("f", "b").await), [json!("new")]);
    assert_eq!(component.seen().await, [("m1".to_owned(), 1)]);
    assert_eq!(mill.dead("f", "a").await.len(), 0);
}

#[tokio::test]
async fn a_broker_that_went_away_is_waited_for_with_what_is_in_flight() {
    let (mut mill, component) = (flow().await, Component::start().await);
    let proxy = Proxy::to(&mill.url).await;
    mill.url.clone_from(&proxy.url);
    let agent = Role::agent(&mill, "f", &work("a", component.port, "/slow", &["b"]), &[]);
    mill.put("f", "a", "m1", json!({"ms": 500})).await;
    until("the call", async || (!component.seen().await.is_empty()).then_some(())).await;
    proxy.cut();
    until("a held message", async || {
        (agent.metric(r#"millrace_pump_held{why="Publish"}"#).await > 0.0).then_some(())
    })
    .await;
    assert_eq!(mill.queued("f", "b").await.len(), 0);
    proxy.mend();
    mill.idle("f", "a").await;
    assert_eq!(mill.queued("f", "b").await.len(), 1);
    mill.put("f", "a", "m2", json!({"ms": 1})).await;
    mill.idle("f", "a").await;
    assert_eq!(component.seen().await, [("m1".to_owned(), 1), ("m2".to_owned(), 1)]);
}

#[tokio::test]
async fn a_drain_returns_when_nothing_is_in_flight_and_takes_nothing_more() {
    let (mill, component) = (flow().await, Component::start().await);
    let agent = Role::agent(&mill, "f", &work("a", component.port, "/slow", &["b"]), &[]);
    mill.put("f", "a", "m1", json!({"ms": 700})).await;
    until("the call", async || (!component.seen().await.is_empty()).then_some(())).await;
    let url = format!("{}/drain", agent.admin);
    for key in [vec![], vec![("millrace-drain-key", "wrong")]] {
        assert_eq!(http("GET", &url, &key).await.unwrap().0, 403);
    }
    let drained =
        timeout(LIMIT, http("GET", &url, &[("millrace-drain-key", DRAIN_KEY)])).await.unwrap().unwrap();
    assert_eq!(drained.0, 200);
    assert_eq!(mill.queued("f", "b").await.len(), 1, "it was finished");
    assert_eq!(mill.pending("f", "a").await, (0, 0), "and acknowledged");
    mill.put("f", "a", "m2", json!({"ms": 1})).await;
    let again =
        timeout(LIMIT, http("GET", &url, &[("millrace-drain-key", DRAIN_KEY)])).await.unwrap().unwrap();
    assert_eq!(again.0, 200);
    assert_eq!(mill.pending("f", "a").await, (1, 0), "it waits for another pod");
}

#[tokio::test]
async fn a_component_that_is_started_again_after_a_drain_gets_messages_again() {
    // As the kubelet does with one that fails its liveness probe: the same pod, and the same sidecar.
    let (mill, component) = (flow().await, Component::start().await);
    let agent = Role::agent(&mill, "f", &work("a", component.port, "/echo", &["b"]), &[]);
    agent.wait_ready().await;
    let url = format!("{}/drain", agent.admin);
    let drained = http("GET", &url, &[("millrace-drain-key", DRAIN_KEY)]);
    assert_eq!(timeout(LIMIT, drained).await.unwrap().unwrap().0, 200);
    until("a closed gate", async || agent.ready().await.filter(|(status, _)| *status == 503)).await;
    mill.put("f", "a", "m1", json!(1)).await;
    let port = component.port;
    drop(component);
    let ended = "queue: the component has ended";
    until("the component's end", async || agent.ready().await.filter(|(_, why)| why.contains(ended))).await;
    let component = Component::on(port).await;
    mill.idle("f", "a").await;
    assert_eq!(component.seen().await, [("m1".to_owned(), 1)]);
    agent.wait_ready().await;
}

#[tokio::test]
async fn a_sidecar_that_is_told_to_stop_finishes_and_ends() {
    let (mill, component) = (flow().await, Component::start().await);
    let mut agent = Role::agent(&mill, "f", &work("a", component.port, "/slow", &["b"]), &[]);
    mill.put("f", "a", "m1", json!({"ms": 500})).await;
    until("the call", async || (!component.seen().await.is_empty()).then_some(())).await;
    agent.signal(Signal::SIGTERM);
    let ended = timeout(LIMIT, agent.child.wait()).await.unwrap().unwrap();
    assert!(ended.success(), "{ended}");
    assert_eq!((mill.queued("f", "b").await.len(), mill.pending("f", "a").await), (1, (0, 0)));
}

#[tokio::test]
async fn many_messages_move_side_by_side_and_no_more_than_the_node_allows() {
    let (mill, component) = (flow().await, Component::start().await);
    let mut work = work("a", component.port, "/slow?ms=100", &["b"]);
    work.in_flight = 4;
    for number in 0..20 {
        mill.put("f", "a", &format!("m{number}"), json!(number)).await;
    }
    let agent = Role::agent(&mill, "f", &work, &[]);
    let mut most = 0;
    until("an empty queue", async || {
        let (waiting, handled) = mill.pending("f", "a").await;
        most = most.max(handled);
        (waiting + handled as u64 == 0).then_some(())
    })
    .await;
    assert_eq!(mill.queued("f", "b").await.len(), 20);
    assert!(most <= 4, "{most} at a time");
    assert_eq!(agent.metric("millrace_pump_in_flight").await.to_string(), "0");
}
