//! `millrace dead-letters` as people run it, against a real broker and real pumps.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod mill;

use std::time::{Duration, Instant};

use async_nats::{HeaderMap, header::NATS_MESSAGE_ID};
use k8s_openapi::jiff::Timestamp;
use millrace::broker::dead_letters::DeadLetters;
use millrace::broker::dead_letters::replay::Place;
use millrace::broker::message::DeadLetter;
use millrace::broker::streams::{LimitArgs, Streams};
use millrace::broker::{BrokerArgs, Credentials, connect_now};
use millrace::controllers::foundation::{self, Auth};
use millrace::runtime::Fence;
use rig::{Nats, Plane};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::process::Command;

use mill::{Component, Mill, Queues, Role, until, work};

/// What a command did.
#[derive(Debug)]
struct Ran {
    code: i32,
    out: String,
    err: String,
}

impl Ran {
    /// The ids in a list in JSON.
    fn ids(&self) -> Vec<u64> {
        let id = |line: &str| serde_json::from_str::<Value>(line).unwrap()["id"].as_u64().unwrap();
        self.out.lines().map(id).collect()
    }
}

/// `millrace dead-letters …` at a broker that asks for no credentials.
async fn run(mill: &Mill, arguments: &str) -> Ran {
    run_at(&mill.url, &[("MILLRACE_NATS_AUTH", "none")], arguments).await
}

async fn run_at(url: &str, env: &[(&str, &str)], arguments: &str) -> Ran {
    let output = Command::new(env!("CARGO_BIN_EXE_millrace"))
        .arg("dead-letters")
        .args(arguments.split_whitespace())
        .env("MILLRACE_NATS_URL", url)
        .envs(env.iter().copied())
        .output()
        .await
        .unwrap();
    let [out, err] = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
    Ran { code: output.status.code().unwrap(), out, err }
}

/// Makes a dead letter as a pump does, and gives its id.
async fn bury(mill: &Mill, flow: &str, node: &str, id: &str, payload: impl Into<Vec<u8>>) -> u64 {
    let letter = DeadLetter {
        reason: "the component answered 422",
        namespace: &mill.namespace.parse().unwrap(),
        flow: &flow.parse().unwrap(),
        node: &node.parse().unwrap(),
        attempts: 3,
        id,
        sequence: 1,
        queued: 1,
        time: Timestamp::UNIX_EPOCH,
    };
    let payload = payload.into().into();
    let sent = mill.jetstream.publish_with_headers(letter.subject(), letter.headers(), payload).await;
    sent.unwrap().await.unwrap().sequence
}

fn message(id: &str) -> String {
    json!({"id": id, "body": {"n": 1}}).to_string()
}

#[tokio::test]
async fn what_a_node_could_not_handle_is_listed_shown_and_replayed_when_it_can() {
    let (mill, component) = (Mill::start().await, Component::start().await);
    let shop = mill.namespace.clone();
    mill.consumer("orders", "map", Queues::default()).await;
    let agent = Role::agent(&mill, "orders", &work("map", component.port, "/fail", &["store"]), &[]);
    mill.put("orders", "map", "m1", json!({"id": 1})).await;
    let reason = mill.one_dead("orders", "map").await;
    drop(agent);

    let listed = run(&mill, &format!("list -n {shop}")).await;
    let id = run(&mill, &format!("list -n {shop} -o json")).await.ids()[0];
    let mut lines = listed.out.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    assert_eq!(lines.next().unwrap(), ["ID", "NAMESPACE", "FLOW", "NODE", "ATTEMPTS", "AGE", "REASON"]);
    assert_eq!(lines.next().unwrap()[..5], [&id.to_string(), &shop, "orders", "map", "3"]);
    assert_eq!((lines.next(), listed.err.as_str(), listed.code), (None, "", 0));
    let wide = run(&mill, &format!("list -n {shop} -o wide")).await;
    assert!(wide.out.contains("  m1  ") && wide.out.contains(&reason), "{}", wide.out);

    let shown = run(&mill, &format!("show {id}")).await;
    assert!(shown.out.contains(&format!("Reason:      {reason}\n")), "{}", shown.out);
    assert!(shown.out.contains("\n    \"body\": {\n      \"id\": 1\n    }"), "{}", shown.out);
    let shown = run(&mill, &format!("show {id} -o json")).await;
    let shown: Value = serde_json::from_str(&shown.out).unwrap();
    assert_eq!((&shown["messageId"], &shown["message"]["body"]), (&json!("m1"), &json!({"id": 1})));

    let _agent = Role::agent(&mill, "orders", &work("map", component.port, "/echo", &["store"]), &[]);
    let replayed = run(&mill, &format!("replay {id}")).await;
    assert_eq!(replayed.out, format!("dead letter {id} replayed to {shop}/orders/map\n"));
    assert_eq!((replayed.err.as_str(), replayed.code), ("", 0));
    until("what comes out", async || (mill.queued("orders", "store").await.len() == 1).then_some(())).await;
    assert_eq!(mill.dead("orders", "map").await.len(), 0);
    let again = run(&mill, &format!("replay {id}")).await;
    assert!(again.err.contains(&format!("there is no dead letter {id}: it was replayed")), "{}", again.err);
    assert_eq!((again.code, mill.queued("orders", "store").await.len()), (1, 1));
}

#[tokio::test]
async fn only_what_is_selected_is_listed_replayed_or_dropped() {
    let mill = Mill::start().await;
    let shop = &mill.namespace;
    let (one, two) =
        (bury(&mill, "orders", "map", "m1", "1").await, bury(&mill, "orders", "store", "m2", "2").await);
    let three = bury(&mill, "bills", "map", "m3", "3").await;
    for (selection, ids) in [
        ("", vec![one, two, three]),
        ("--flow orders", vec![one, two]),
        ("--node map", vec![one, three]),
        ("--flow bills --node store", vec![]),
        ("--limit 2", vec![one, two]),
    ] {
        assert_eq!(
            run(&mill, &format!("list -o json -n {shop} {selection}")).await.ids(),
            ids,
            "{selection}"
        );
    }
    let everywhere = run(&mill, "list -A -o json --limit 100000").await.ids();
    assert!([one, two, three].iter().all(|id| everywhere.contains(id)));

    let foreign = run(&mill, &format!("drop {one} {three} --flow bills")).await;
    assert_eq!((foreign.code, foreign.out), (1, format!("dead letter {three} dropped\n")));
    let why = format!("dead letter {one} is none of those selected: it is one of {shop}/orders/map");
    assert!(foreign.err.contains(&why) && foreign.err.contains("1 dropped, 1 not"), "{}", foreign.err);
    let foreign = run(&mill, &format!("replay {one} -n elsewhere")).await;
    assert!(foreign.code == 1 && foreign.err.contains(&why), "{}", foreign.err);

    let dropped = run(&mill, &format!("drop --all -n {shop} --node store")).await;
    assert_eq!((dropped.code, dropped.out), (0, format!("dead letter {two} dropped\n")));
    assert_eq!(run(&mill, &format!("list -o json -n {shop}")).await.ids(), [one]);
    let nothing = run(&mill, &format!("drop --all -n {shop} --node store")).await;
    assert_eq!((nothing.code, nothing.err.as_str()), (0, "No dead letters.\n"));
}

#[tokio::test]
async fn a_replay_that_was_interrupted_is_finished_and_stores_nothing_twice() {
    let mill = Mill::start().await;
    mill.consumer("orders", "map", Queues::default()).await;
    let id = bury(&mill, "orders", "map", "m1", message("m1")).await;
    // As the command does; it dies when its message is stored, and before the letter is removed.
    let args =
        BrokerArgs { nats_url: mill.url.clone(), nats_credentials: None, nats_js_prefix: "$JS.API".into() };
    let broker = connect_now(&args, Credentials::None, "test").await.unwrap();
    let letters = DeadLetters::open(broker).await.unwrap();
    let (letter, payload) = letters.get(id).await.unwrap().unwrap();
    letters.queue(&letter, payload, &Place::of(&letter)).await.unwrap();
    assert_eq!((mill.queued("orders", "map").await.len(), mill.dead("orders", "map").await.len()), (1, 1));

    let finished = run(&mill, &format!("replay {id}")).await;
    assert_eq!((finished.code, finished.out), (0, format!("dead letter {id} was replayed already\n")));
    assert_eq!((mill.queued("orders", "map").await.len(), mill.dead("orders", "map").await.len()), (1, 0));
}

#[tokio::test]
async fn two_who_replay_the_same_at_a_time_queue_it_once() {
    let mill = Mill::start().await;
    mill.consumer("orders", "map", Queues::default()).await;
    for number in 0..20 {
        bury(&mill, "orders", "map", &format!("m{number}"), message("m")).await;
    }
    let all = format!("replay --all -n {}", mill.namespace);
    let (one, two) = tokio::join!(run(&mill, &all), run(&mill, &all));
    assert_eq!((one.code, two.code), (0, 0), "{one:?} {two:?}");
    assert_eq!((mill.queued("orders", "map").await.len(), mill.dead("orders", "map").await.len()), (20, 0));
}

#[tokio::test]
async fn what_fails_again_is_a_new_letter_and_waits_for_the_next_replay() {
    let (mill, component) = (Mill::start().await, Component::start().await);
    mill.consumer("orders", "map", Queues::default()).await;
    let mut work = work("map", component.port, "/fail", &[]);
    work.retry.limit = 0;
    let _agent = Role::agent(&mill, "orders", &work, &[]);
    // Both were at place 1 of a queue of before: one of them comes to place 1 of this one.
    for id in ["m1", "m2"] {
        bury(&mill, "orders", "map", id, message(id)).await;
    }
    let replayed = run(&mill, &format!("replay --all -n {}", mill.namespace)).await;
    assert_eq!((replayed.code, replayed.out.lines().count()), (0, 2), "{replayed:?}");
    until("them to fail", async || (mill.dead("orders", "map").await.len() == 2).then_some(())).await;
    mill.idle("orders", "map").await;
    let mut seen = component.seen().await;
    seen.sort_unstable();
    assert_eq!(seen, [("m1".to_owned(), 1), ("m2".to_owned(), 1)]);
}

#[tokio::test]
async fn a_letter_whose_node_has_no_queue_stays_and_says_what_to_do() {
    let mill = Mill::start().await;
    let shop = &mill.namespace;
    let id = bury(&mill, "orders", "map", "m1", message("m1")).await;
    let gone = run(&mill, &format!("replay {id}")).await;
    let why = format!(
        "dead letter {id} stays: the flow 'orders' in the namespace '{shop}' is gone or suspended: start it"
    );
    assert!(gone.code == 1 && gone.err.contains(&why), "{}", gone.err);

    // A flow whose name begins like the other's is another flow.
    mill.consumer("orders-2", "map", Queues::default()).await;
    for node in ["store", "enrich"] {
        mill.consumer("orders", node, Queues::default()).await;
    }
    let gone = run(&mill, &format!("replay --all -n {shop}")).await;
    let why = "has no node 'map' any more: `--to-node` sends it to one of its nodes: enrich, store";
    assert!(gone.code == 1 && gone.err.contains(why), "{}", gone.err);
    assert_eq!(mill.dead("orders", "map").await.len(), 1);
    let sent = run(&mill, &format!("replay --all -n {shop} --to-node enrich")).await;
    assert_eq!((sent.code, sent.out), (0, format!("dead letter {id} replayed to {shop}/orders/enrich\n")));
    assert_eq!(mill.queued("orders", "enrich").await[0]["id"], "m1");

    let id = bury(&mill, "orders", "map", "m2", message("m2")).await;
    mill.jetstream.delete_stream(format!("MR_{shop}")).await.unwrap();
    let gone = run(&mill, &format!("replay {id}")).await;
    let why = format!("no flow of the namespace '{shop}' runs: start its flow 'orders'");
    assert!(gone.code == 1 && gone.err.contains(&why), "{}", gone.err);
    assert_eq!(mill.dead("orders", "map").await.len(), 1);
}

#[tokio::test]
async fn a_replay_stops_at_a_queue_that_is_full() {
    let mill = Mill::with(Queues { room: 2, ..Queues::default() }).await;
    mill.consumer("orders", "map", Queues::default()).await;
    for id in ["m1", "m2", "m3", "m4"] {
        bury(&mill, "orders", "map", id, message(id)).await;
    }
    let ran = run(&mill, &format!("replay --all -n {}", mill.namespace)).await;
    assert_eq!((ran.code, ran.out.lines().count()), (1, 2));
    let full = format!("the queue of {}/orders/map is full: replay again when it has room", mill.namespace);
    assert!(
        ran.err.contains(&full) && ran.err.contains("stopped: 2 replayed, the others stay"),
        "{}",
        ran.err
    );
    assert_eq!((mill.queued("orders", "map").await.len(), mill.dead("orders", "map").await.len()), (2, 2));
}

#[tokio::test]
async fn a_thousand_letters_are_listed_replayed_and_dropped() {
    let mill = Mill::start().await;
    let shop = &mill.namespace;
    mill.consumer("orders", "map", Queues::default()).await;
    for number in 0..1000 {
        bury(&mill, "orders", "map", &format!("m{number}"), message(&format!("m{number}"))).await;
    }
    let listed = run(&mill, &format!("list -n {shop}")).await;
    assert_eq!((listed.code, listed.out.lines().count()), (0, 501));
    assert_eq!(listed.err, "The 500 oldest of 1000; --limit 1000 lists all.\n");
    let listed = run(&mill, &format!("list -n {shop} -o json --limit 1000")).await;
    assert!(listed.ids().len() == 1000 && listed.ids().is_sorted(), "{}", listed.err);

    // Who reads has seen enough.
    let head = Command::new("bash")
        .args(["-c", r#"set -o pipefail; "$0" dead-letters list -n "$1" -o json --limit 1000 | head -n 1"#])
        .args([env!("CARGO_BIN_EXE_millrace"), shop])
        .envs([("MILLRACE_NATS_URL", mill.url.as_str()), ("MILLRACE_NATS_AUTH", "none")])
        .output()
        .await
        .unwrap();
    assert!(head.status.success() && head.stderr.is_empty(), "{head:?}");

    let replayed = run(&mill, &format!("replay --all -n {shop} --flow orders")).await;
    assert_eq!((replayed.code, replayed.out.lines().count()), (0, 1000), "{}", replayed.err);
    assert_eq!(mill.pending("orders", "map").await, (1000, 0));
    let none = run(&mill, &format!("list -n {shop}")).await;
    assert_eq!((none.code, none.out.as_str(), none.err.as_str()), (0, "", "No dead letters.\n"));

    for number in 0..250 {
        bury(&mill, "orders", "store", &format!("m{number}"), "x").await;
    }
    let dropped = run(&mill, &format!("drop --all -n {shop}")).await;
    assert_eq!((dropped.code, dropped.out.lines().count()), (0, 250), "{}", dropped.err);
    assert_eq!(mill.dead("orders", "store").await.len(), 0);
}

#[tokio::test]
async fn what_is_no_message_is_shown_safely_and_replayed_byte_by_byte() {
    let mill = Mill::start().await;
    mill.consumer("orders", "map", Queues::default()).await;
    let text = bury(&mill, "orders", "map", "", "\x1b[2Jhello").await;
    let binary = bury(&mill, "orders", "store", "", [0xff, 0x00]).await;
    let shown = run(&mill, &format!("show {text}")).await;
    assert!(
        shown.out.contains("Message ID:  <none>\n") && shown.out.contains("\n  \\u001b[2Jhello\n"),
        "{shown:?}"
    );
    let shown: Value =
        serde_json::from_str(&run(&mill, &format!("show {binary} -o json")).await.out).unwrap();
    assert_eq!((&shown["binary"], &shown["size"]), (&json!("/wA="), &json!(2)));
    let replayed = run(&mill, &format!("replay {text} {binary} --to-node map")).await;
    assert_eq!(replayed.code, 0, "{}", replayed.err);
    let mut payloads = vec![];
    let queue = mill.subject("orders", "map");
    for _ in 0..2 {
        let first = mill.queues.get_first_raw_message_by_subject(&queue, 1).await.unwrap();
        payloads.push(first.payload.to_vec());
        mill.queues.delete_message(first.sequence).await.unwrap();
    }
    assert_eq!(payloads, [b"\x1b[2Jhello".to_vec(), vec![0xff, 0x00]]);
}

#[tokio::test]
async fn what_somebody_else_wrote_among_the_dead_letters_harms_nobody() {
    let mill = Mill::start().await;
    let shop = &mill.namespace;
    let mut headers = HeaderMap::new();
    headers.insert("Millrace-Reason", "\u{1b}[31mred");
    headers.insert("Millrace-Attempts", "many");
    headers.insert("Millrace-Time", "yesterday");
    headers.insert(NATS_MESSAGE_ID, shop.as_str());
    let subject = format!("millrace.dead.{shop}.orders");
    for on in [format!("{subject}.map"), format!("{subject}.Map"), subject] {
        headers.insert(NATS_MESSAGE_ID, on.as_str());
        mill.jetstream.publish_with_headers(on, headers.clone(), "x".into()).await.unwrap().await.unwrap();
    }
    let listed = run(&mill, &format!("list -n {shop}")).await;
    assert_eq!((listed.code, listed.out.lines().count()), (0, 2), "{listed:?}");
    assert!(listed.out.ends_with("[31mred\n") && !listed.out.contains('\u{1b}'), "{}", listed.out);
    let replayed = run(&mill, &format!("replay --all -n {shop}")).await;
    assert!(replayed.code == 1 && replayed.err.contains("is gone or suspended"), "{}", replayed.err);
}

#[tokio::test]
async fn wrong_usage_is_refused_before_anything_is_done() {
    let mill = Mill::start().await;
    for (arguments, named) in [
        ("replay", "<ID>"),
        ("replay --all", "--all-namespaces"),
        ("replay --all --flow orders", "--all-namespaces"),
        ("drop --all", "--namespace"),
        ("drop --all 7 -A", "--all"),
        ("list -A -n shop", "--namespace"),
        ("list -o yaml", "json"),
        ("list --limit 0", "--limit"),
        ("list -n Shop", "lower-case"),
        ("show", "<ID>"),
        ("show seven", "seven"),
        ("replay 0", "0"),
    ] {
        let ran = run(&mill, arguments).await;
        assert!(ran.code == 2 && ran.err.contains(named), "{arguments}: {ran:?}");
    }
    for command in ["show", "replay", "drop"] {
        let ran = run(&mill, &format!("{command} 123456789")).await;
        assert!(ran.code == 1 && ran.err.contains("there is no dead letter 123456789"), "{command}: {ran:?}");
    }
}

#[tokio::test]
async fn a_broker_that_is_away_or_another_is_named_at_once() {
    let none = [("MILLRACE_NATS_AUTH", "none")];
    let began = Instant::now();
    let away = run_at("nats://127.0.0.1:1", &none, "list").await;
    assert!(
        away.err.contains("the message broker at 'nats://127.0.0.1:1' cannot be reached"),
        "{}",
        away.err
    );
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("nats://{}", silent.local_addr().unwrap());
    let says_nothing = run_at(&url, &none, "list").await;
    assert!(says_nothing.err.contains("did not answer within 5 s"), "{}", says_nothing.err);
    assert_eq!((away.code, says_nothing.code), (1, 1));
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
    let other = Nats::start().await.unwrap();
    let ran = run_at(other.url(), &none, "list").await;
    assert!(ran.code == 1 && ran.err.contains("no stream 'MILLRACE_DEAD'"), "{}", ran.err);
}

#[tokio::test]
async fn the_credentials_are_those_of_the_install_and_how_much_is_kept_is_its_choice() {
    let plane = Plane::shared().await.unwrap();
    let (client, install) = (plane.client().await.unwrap(), plane.namespace("install").await.unwrap());
    let keys = foundation::keys(&client, &install, "keys", Auth::Jwt).await.unwrap();
    let secret = foundation_server(&client, &install).await;
    let nats = Nats::start_with(&secret).await.unwrap();
    let args =
        BrokerArgs { nats_url: nats.url().into(), nats_credentials: None, nats_js_prefix: "$JS.API".into() };
    let broker = connect_now(&args, Credentials::Text(keys.operator.into()), "test").await.unwrap();
    let limits = LimitArgs {
        queue_messages: 5,
        queue_mebibytes: 16,
        dead_letter_days: 3,
        dead_letter_mebibytes: 32,
        nats_replicas: 1,
    };
    Streams::new(broker.clone(), limits, Fence::open()).ensure_shared().await.unwrap();
    let made = broker.jetstream.get_stream("MILLRACE_DEAD").await.unwrap();
    let config = &made.cached_info().config;
    assert_eq!((config.max_age, config.max_bytes), (Duration::from_secs(3 * 86_400), 32 << 20));

    let kubeconfig = plane.kubeconfig();
    let env = [("KUBECONFIG", kubeconfig.to_str().unwrap()), ("POD_NAMESPACE", &install)];
    let ran = run_at(nats.url(), &env, "list -A --broker-secret keys").await;
    assert_eq!((ran.code, ran.err.as_str()), (0, "No dead letters.\n"));
    let ran = run_at(nats.url(), &env, "list -A").await;
    assert!(
        ran.err.contains(&format!("there is no Secret 'millrace-broker' in namespace '{install}'")),
        "{ran:?}"
    );
    let ran = run_at(nats.url(), &[("MILLRACE_NATS_AUTH", "none")], "list -A").await;
    assert!(ran.code == 1 && ran.err.contains("authorization violation"), "{ran:?}");
}

/// What the server of an install is configured with.
async fn foundation_server(client: &kube::Client, namespace: &str) -> String {
    use k8s_openapi::api::core::v1::Secret;
    let secret: Secret = kube::Api::namespaced(client.clone(), namespace).get("keys").await.unwrap();
    String::from_utf8(secret.data.unwrap()["auth.conf"].0.clone()).unwrap()
}
