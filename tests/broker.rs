//! The broker's rooms against a real nats-server.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use async_nats::jetstream::consumer::PullConsumer;
use async_nats::{HeaderMap, header};
use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use millrace::api::name::{FlowName, NamespaceName, NodeId};
use millrace::api::transition::{Transition, Transitions};
use millrace::broker::buckets::Bucket;
use millrace::broker::credentials::{Foundation, Issuer};
use millrace::broker::event_log::{EventLog, Told};
use millrace::broker::settings::{self, Settings};
use millrace::broker::streams::{LimitArgs, Streams};
use millrace::broker::{Broker, BrokerArgs, Credentials, PublishError, connect_with, subject};
use millrace::runtime::Fence;
use rig::Nats;
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(20);

fn limits() -> LimitArgs {
    LimitArgs {
        queue_messages: 5,
        queue_mebibytes: 16,
        dead_letter_days: 3,
        dead_letter_mebibytes: 32,
        nats_replicas: 1,
    }
}

async fn connect(nats: &Nats, credentials: &str, inbox: Option<&str>) -> Broker {
    let args =
        BrokerArgs { nats_url: nats.url().into(), nats_credentials: None, nats_js_prefix: "$JS.API".into() };
    let credentials = Credentials::Text(credentials.into());
    let broker = connect_with(&args, credentials, "test", inbox).await.unwrap();
    tokio::time::timeout(PATIENCE, broker.wait_connected()).await.unwrap();
    broker
}

fn orders() -> (NamespaceName, FlowName) {
    ("shop".parse().unwrap(), "orders".parse().unwrap())
}

fn nodes(ids: &[&str]) -> BTreeSet<NodeId> {
    ids.iter().map(|id| id.parse().unwrap()).collect()
}

async fn put(broker: &Broker, node: &str, id: &str) -> Result<bool, PublishError> {
    let (shop, orders) = orders();
    let mut headers = HeaderMap::new();
    headers.insert(header::NATS_MESSAGE_ID, id);
    let queue = subject::node(&shop, &orders, &node.parse().unwrap());
    broker.publish(queue, headers, id.to_owned().into()).await.map(|stored| stored.duplicate)
}

#[tokio::test]
async fn queues_are_made_counted_given_up_and_removed_with_their_stream() {
    let nats = Nats::start().await.unwrap();
    let broker = connect(&nats, "", None).await;
    let streams = Streams::new(broker.clone(), limits(), Fence::open());
    let (shop, orders) = orders();
    assert!(matches!(put(&broker, "fetch", "1").await, Err(PublishError::NoStream)));
    streams.ensure_shared().await.unwrap();
    streams.ensure_queues(&shop, &orders, &nodes(&["fetch", "store"])).await.unwrap();
    assert!(!put(&broker, "fetch", "1").await.unwrap());
    assert!(put(&broker, "fetch", "1").await.unwrap(), "the same id is stored once");
    for id in ["2", "3", "4", "5"] {
        put(&broker, "fetch", id).await.unwrap();
    }
    assert!(matches!(put(&broker, "fetch", "6").await, Err(PublishError::Full)));
    assert!(!put(&broker, "store", "7").await.unwrap(), "a full queue refuses nobody else's messages");

    let backlog = streams.backlog(&shop, &orders, &nodes(&["fetch", "store", "other"])).await.unwrap();
    let counts: Vec<_> = backlog.iter().map(|(node, count)| (node.as_str(), *count)).collect();
    assert_eq!(counts, [("fetch", 5), ("other", 0), ("store", 1)]);

    // One of them is being handled: it is given up too.
    let stream = broker.jetstream.get_stream("MR_shop").await.unwrap();
    let consumer: PullConsumer = stream.get_consumer("orders_fetch").await.unwrap();
    let mut handled = consumer.fetch().max_messages(1).messages().await.unwrap();
    handled.next().await.unwrap().unwrap();
    let fetch = "fetch".parse().unwrap();
    assert_eq!(streams.abandon(&shop, &orders, &fetch, "the flow was deleted").await.unwrap(), 5);
    assert_eq!(streams.abandon(&shop, &orders, &fetch, "the flow was deleted").await.unwrap(), 0);
    let dead = broker.jetstream.get_stream(subject::DEAD_LETTERS).await.unwrap();
    let letter = dead.get_last_raw_message_by_subject("millrace.dead.shop.orders.fetch").await.unwrap();
    let said = |name| letter.headers.get(name).map(ToString::to_string);
    assert_eq!(
        (said("Millrace-Reason"), said("Millrace-Message-Id"), &letter.payload[..]),
        (Some("the flow was deleted".into()), Some("5".into()), &b"5"[..])
    );

    streams.remove_queues(&shop, &orders, &nodes(&["fetch"])).await.unwrap();
    let left: Vec<String> = stream.consumer_names().try_collect().await.unwrap();
    assert_eq!(left, ["orders_store"]);
    streams.abandon(&shop, &orders, &"store".parse().unwrap(), "x").await.unwrap();
    streams.remove_queues(&shop, &orders, &nodes(&["store", "never-there"])).await.unwrap();
    assert!(broker.jetstream.get_stream("MR_shop").await.is_err(), "the last queue takes the stream along");
    streams.remove_queues(&shop, &orders, &nodes(&["store"])).await.unwrap();
    streams.ensure_queues(&shop, &orders, &nodes(&["store"])).await.unwrap();
    assert!(!put(&broker, "store", "8").await.unwrap());
}

#[tokio::test]
async fn who_leads_no_more_takes_nothing_away() {
    let nats = Nats::start().await.unwrap();
    let broker = connect(&nats, "", None).await;
    let successor = Streams::new(broker.clone(), limits(), Fence::open());
    let (shop, orders) = orders();
    successor.ensure_shared().await.unwrap();
    successor.ensure_queues(&shop, &orders, &nodes(&["fetch"])).await.unwrap();
    put(&broker, "fetch", "1").await.unwrap();
    let zombie = Streams::new(broker.clone(), limits(), Fence::until(Instant::now()));
    let fetch = "fetch".parse().unwrap();
    let refused = "this process does not lead any more: its lease was not renewed in time";
    let abandoned = zombie.abandon(&shop, &orders, &fetch, "late").await.unwrap_err();
    assert_eq!(abandoned.to_string(), format!("the message broker could not make dead letters: {refused}"));
    let removed = zombie.remove_queues(&shop, &orders, &nodes(&["fetch"])).await.unwrap_err();
    assert_eq!(removed.to_string(), format!("the message broker could not remove a queue: {refused}"));
    let left = successor.backlog(&shop, &orders, &nodes(&["fetch"])).await.unwrap();
    assert_eq!(left, [(fetch, 1)].into());
    let stream = broker.jetstream.get_stream("MR_shop").await.unwrap();
    assert!(
        stream.get_consumer::<async_nats::jetstream::consumer::pull::Config>("orders_fetch").await.is_ok()
    );
}

#[tokio::test]
async fn a_value_is_told_to_those_who_listen_and_stays_known_while_the_broker_is_away() {
    let nats = Nats::start().await.unwrap();
    let (writer, reader) = (connect(&nats, "", None).await, connect(&nats, "", None).await);
    Streams::new(writer.clone(), limits(), Fence::open()).ensure_shared().await.unwrap();
    let bucket = Bucket::new(writer, subject::OBSERVED);
    let seen = Bucket::new(reader.clone(), subject::OBSERVED);
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    let listening = tokio::spawn(seen.clone().listen(move |key| tell.send(key.to_owned()).unwrap()));
    assert_eq!(seen.get::<Value>("flow.shop.orders").await.unwrap(), None);
    // The subscription has no answer of its own: put until it is told.
    let heard = async {
        let mut at = 0;
        loop {
            at += 1;
            bucket.put("flow.shop.orders", &json!({"at": at})).await.unwrap();
            if let Ok(key) = tokio::time::timeout(Duration::from_millis(200), told.recv()).await {
                break (key, at);
            }
        }
    };
    let (key, at) = tokio::time::timeout(PATIENCE, heard).await.unwrap();
    assert_eq!(key.as_deref(), Some("flow.shop.orders"));
    assert_eq!(seen.get::<Value>("flow.shop.orders").await.unwrap(), Some(json!({"at": at})));
    drop(nats);
    let away = async {
        while reader.connected() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, away).await.unwrap();
    assert_eq!(seen.get::<Value>("flow.shop.orders").await.unwrap(), Some(json!({"at": at})));
    assert!(seen.get::<Value>("flow.shop.never").await.is_err());
    assert!(bucket.put("flow.shop.orders", &json!({})).await.is_err());
    listening.abort();
}

fn told(counters: std::ops::RangeInclusive<i64>) -> Told {
    let recent = counters.clone().map(|counter| Transition {
        counter,
        event: "FlowStarted".into(),
        time: Time(Timestamp::from_second(counter).unwrap()),
    });
    Told {
        subject: "millrace.event.shop.flows.orders".into(),
        source: "/apis/millrace.dev/v1alpha1/namespaces/shop/flows/orders".into(),
        uid: "u".into(),
        transitions: Transitions { counter: Some(*counters.end()), recent: recent.collect() },
        details: None,
        resource: json!({"kind": "Flow"}),
    }
}

#[tokio::test]
async fn every_transition_is_in_the_event_log_once_whoever_leads() {
    let nats = Nats::start().await.unwrap();
    let broker = connect(&nats, "", None).await;
    Streams::new(broker.clone(), limits(), Fence::open()).ensure_shared().await.unwrap();
    let started = Timestamp::from_second(1000).unwrap();
    let logs = [EventLog::new(broker.clone(), started), EventLog::new(broker.clone(), started)];
    let tasks = logs.clone().map(|log| tokio::spawn(log.run(|_| {})));
    let complete = async |counter: i64| {
        let done = async {
            while !logs.iter().all(|log| log.has("u", counter)) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(PATIENCE, done).await.unwrap();
    };
    for last in [3, 4, 9] {
        let first = if last == 9 { 7 } else { 1 };
        for log in &logs {
            log.tell(told(first..=last));
        }
        complete(last).await;
    }
    let stream = broker.jetstream.get_stream(subject::EVENTS).await.unwrap();
    let mut ids = vec![];
    let mut from = 1;
    while let Ok(event) =
        stream.raw_message_builder().sequence(from).next_by_subject("millrace.event.>").send().await
    {
        let event_json: Value = serde_json::from_slice(&event.payload).unwrap();
        assert_eq!(event_json["specversion"], "1.0");
        ids.push(format!("{} {}", event_json["type"].as_str().unwrap(), event_json["id"].as_str().unwrap()));
        from = event.sequence + 1;
    }
    let started = |counter| format!("dev.millrace.flow.started u/{counter}");
    let gap = "dev.millrace.gap u/6".to_owned();
    let expected: Vec<_> = (1..=4).map(started).chain([gap]).chain((7..=9).map(started)).collect();
    assert_eq!(ids, expected);
    for task in tasks {
        task.abort();
    }
}

#[tokio::test]
async fn the_server_says_how_it_is_set() {
    let nats = Nats::start().await.unwrap();
    let read = settings::read(nats.monitoring_url()).await.unwrap();
    assert_eq!(read, Settings { sync_always: true, strict: true, max_payload: 8 << 20 });
    assert_eq!(settings::objections(&read, &[]), Vec::<String>::new());
    let error = settings::read("http://127.0.0.1:1").await.unwrap_err();
    assert!(format!("{error:#}").contains("cannot ask http://127.0.0.1:1"), "{error:#}");
}

#[tokio::test]
async fn who_has_no_credentials_gets_nowhere_and_a_flow_reaches_its_own_queues_only() {
    let foundation = Foundation::new(1_700_000_000).unwrap();
    let nats = Nats::start_with(&foundation.server).await.unwrap();
    let operator = connect(&nats, &foundation.operator, None).await;
    let streams = Streams::new(operator.clone(), limits(), Fence::open());
    let (shop, orders) = orders();
    streams.ensure_shared().await.unwrap();
    streams.ensure_queues(&shop, &orders, &nodes(&["fetch", "store"])).await.unwrap();
    streams.ensure_queues(&shop, &"bills".parse().unwrap(), &nodes(&["fetch"])).await.unwrap();
    let gateway = connect(&nats, &foundation.gateway, Some("_IB.gateway")).await;
    put(&gateway, "fetch", "1").await.unwrap();

    let issuer = Issuer::new(&foundation.account).unwrap();
    let mine = issuer.node(&shop, &orders, "u", &"fetch".parse().unwrap(), 1_700_000_000).unwrap();
    let pod = connect(&nats, &mine, Some("_IB.shop.orders")).await;
    let stream = pod.jetstream.get_stream_no_info("MR_shop").await.unwrap();
    let consumer: PullConsumer = stream.get_consumer("orders_fetch").await.unwrap();
    let mut got = consumer.fetch().max_messages(1).messages().await.unwrap();
    let message = got.next().await.unwrap().unwrap();
    put(&pod, "store", "2").await.unwrap();
    message.double_ack().await.unwrap();
    pod.publish("millrace.dead.shop.orders.fetch".into(), HeaderMap::new(), "x".into()).await.unwrap();

    // What is refused has no answer.
    let foreign = pod.publish("millrace.flow.shop.bills.fetch".into(), HeaderMap::new(), "x".into()).await;
    assert!(matches!(foreign, Err(PublishError::Unavailable)), "{foreign:?}");
    let bills: Result<PullConsumer, _> = stream.get_consumer("bills_fetch").await;
    assert!(bills.is_err());

    let runner = issuer.runner(&shop, 1_700_000_000).unwrap();
    let runner = connect(&nats, &runner, Some("_IB.shop.millrace-runner")).await;
    let observed = Bucket::new(runner.clone(), subject::OBSERVED);
    observed.put("flow.shop.orders", &json!({"loaded": true})).await.unwrap();
    assert!(observed.put("flow.other.orders", &json!({})).await.is_err());

    let args =
        BrokerArgs { nats_url: nats.url().into(), nats_credentials: None, nats_js_prefix: "$JS.API".into() };
    let nobody = connect_with(&args, Credentials::None, "nobody", None).await.unwrap();
    let connected = tokio::time::timeout(Duration::from_secs(2), nobody.wait_connected()).await;
    assert!(connected.is_err(), "without credentials there is no connection");
}
