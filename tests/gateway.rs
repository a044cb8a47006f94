//! A gateway before a real API server and a real broker: what senders are answered, and what is stored.
#![allow(clippy::disallowed_methods, reason = "the tests write to the apiserver as users do")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

mod common;

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use world::{Gateway, Proxy, Way, World, dial, eventually, rest, version};

#[path = "gateway/world.rs"]
mod world;

const JSON: (&str, &str) = ("content-type", "application/json");

fn both() -> Value {
    json!({"methods": ["GET", "POST"]})
}

fn code(body: &str) -> String {
    let body: Value = serde_json::from_str(body).unwrap_or_else(|_| panic!("no JSON: {body}"));
    body["error"]["code"].as_str().unwrap_or_else(|| panic!("no code: {body}")).to_owned()
}

/// A request: method, path, headers, body. The answer: status, and the error's code.
type Row<'a> = (&'a str, &'a str, &'a [(&'a str, &'a str)], &'a [u8], u16, &'a str);

#[tokio::test]
async fn every_request_is_answered_as_the_table_says() {
    let world = World::new().await;
    let ns = &world.namespace;
    let flow = world.flow(ns, "orders", json!({"methods": ["GET", "POST"], "maxBodyBytes": 64})).await;
    world.flow(ns, "post-only", json!({"methods": ["POST"]})).await;
    let gateway = Gateway::start(&world, "table").await;
    let orders = format!("/hook/{ns}/orders");
    let by_uid = format!("/hook/{}", flow.metadata.uid.as_ref().unwrap());
    let form = ("content-type", "application/x-www-form-urlencoded");
    let text = ("content-type", "text/plain; charset=UTF-8");
    let long = format!("{{\"a\":\"{}\"}}", "x".repeat(64));
    let post_only = format!("/hook/{ns}/post-only");
    let deep = format!("/hook/{ns}/orders/a/b?x=%ff");
    let rows: &[Row<'_>] = &[
        ("POST", &orders, &[JSON], b"{}", 200, ""),
        ("POST", &orders, &[form], b"a=1", 200, ""),
        ("POST", &orders, &[text], b"hello", 200, ""),
        ("POST", &orders, &[], b"", 200, ""),
        ("GET", &orders, &[], b"", 200, ""),
        ("POST", &by_uid, &[JSON], b"{}", 200, ""),
        ("POST", &orders, &[JSON], long.as_bytes(), 413, "TooLarge"),
        ("POST", &orders, &[], b"{}", 415, "UnsupportedMediaType"),
        ("POST", &orders, &[("content-type", "application/xml")], b"<a/>", 415, "UnsupportedMediaType"),
        (
            "POST",
            &orders,
            &[("content-type", "text/plain; charset=latin1")],
            b"a",
            415,
            "UnsupportedMediaType",
        ),
        ("POST", &orders, &[JSON], b"{\"a\":", 400, "InvalidJson"),
        ("POST", &orders, &[text], b"\xff", 400, "InvalidUtf8"),
        ("POST", &orders, &[form], b"a=%ff", 400, "InvalidUtf8"),
        ("GET", &deep, &[], b"", 400, "InvalidUtf8"),
        ("DELETE", &orders, &[], b"", 405, "MethodNotAllowed"),
        ("GET", &post_only, &[], b"", 405, "MethodNotAllowed"),
        ("GET", "/", &[], b"", 404, "NotFound"),
        ("POST", "/hook/nobody/nothing", &[JSON], b"{", 404, "NotFound"),
        ("GET", "/hook/00000000-0000-0000-0000-000000000000", &[], b"", 404, "NotFound"),
    ];
    for (method, path, headers, body, status, error) in rows {
        let (seen, answered, text) = gateway.send(method, path, headers, body).await;
        assert_eq!(seen, *status, "{method} {path} {headers:?}: {text}");
        let id = answered["x-request-id"].to_str().unwrap();
        match status {
            200 => assert_eq!(text, json!({"data": {"requestId": id}}).to_string()),
            _ => assert_eq!(code(&text), *error, "{method} {path}"),
        }
    }
    let (_, headers, _) = gateway.send("GET", &post_only, &[], b"").await;
    assert_eq!(headers["allow"], "HEAD, POST");
    assert_eq!(world.messages(ns, "orders").await.len(), 6, "only what is answered with 200 is stored");
    assert_eq!(world.messages(ns, "post-only").await.len(), 0);
}

#[tokio::test]
async fn too_many_or_too_large_headers_are_refused() {
    let world = World::new().await;
    let ns = &world.namespace;
    world.flow(ns, "orders", both()).await;
    let gateway = Gateway::start(&world, "short").await;
    let status = async |headers: &str| {
        let mut stream = dial(&gateway).await;
        let head = format!("GET /hook/{ns}/orders HTTP/1.1\r\nConnection: close\r\n{headers}\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        rest(&mut stream, 5).await.split(' ').nth(1).unwrap_or_default().to_owned()
    };
    assert_eq!(status(&"X-A: 1\r\n".repeat(99)).await, "200");
    assert_eq!(status(&"X-A: 1\r\n".repeat(100)).await, "431");
    assert_eq!(status(&format!("X-A: {}\r\n", "a".repeat(60_000))).await, "200");
    assert_eq!(status(&format!("X-A: {}\r\n", "a".repeat(70_000))).await, "431");
}

#[tokio::test]
async fn head_finds_a_route_and_triggers_nothing() {
    let world = World::new().await;
    let ns = &world.namespace;
    world.flow(ns, "orders", json!({"methods": ["POST"]})).await;
    let gateway = Gateway::start(&world, "head").await;
    let status = async |path: &str| gateway.send("HEAD", path, &[], b"").await;
    let (found, _, body) = status(&format!("/hook/{ns}/orders")).await;
    assert_eq!((found, &*body), (200, ""));
    assert_eq!(status(&format!("/hook/{ns}/other")).await.0, 404);
    assert_eq!(world.messages(ns, "orders").await.len(), 0);
}

#[tokio::test]
async fn a_message_holds_what_was_sent() {
    let world = World::new().await;
    let ns = &world.namespace;
    world.flow(ns, "orders", both()).await;
    let gateway = Gateway::start(&world, "shapes").await;
    let path = format!("/hook/{ns}/orders");
    let deep = format!("{path}/new/x?dry=1&tag=a&tag=b");
    let form = ("content-type", "application/x-www-form-urlencoded");
    gateway.send("POST", &deep, &[JSON, ("x-request-id", "r-1"), ("x-a", "1")], br#"{"total":1.5}"#).await;
    gateway.send("POST", &path, &[form], b"a=1&b=x+y&a=2").await;
    gateway.send("POST", &path, &[("content-type", "text/plain")], "grüezi".as_bytes()).await;
    gateway.send("GET", &format!("{path}?param1=value&param2=value"), &[("x-a", "1")], b"").await;
    let all = world.messages(ns, "orders").await;
    let [first, form, text, get] = &all[..] else { panic!("{all:?}") };
    let mut first = first.clone();
    let id = first.as_object_mut().unwrap().remove("id").unwrap();
    let digits = id.as_str().unwrap();
    assert!(digits.len() == 32 && digits.bytes().all(|digit| digit.is_ascii_hexdigit()), "{digits}");
    first["headers"].as_object_mut().unwrap().retain(|name, _| name != "host" && name != "content-length");
    assert_eq!(
        first,
        json!({
            "attachments": {}, "body": {"total": 1.5}, "metadata": {},
            "headers": {"content-type": "application/json", "x-request-id": "r-1", "x-a": "1"},
            "method": "POST", "url": deep, "query": {"dry": "1", "tag": ["a", "b"]}, "pathSuffix": "new/x",
        })
    );
    assert_eq!((&form["body"], &form["query"]), (&json!({"a": ["1", "2"], "b": "x y"}), &json!({})));
    assert_eq!(text["body"], json!("grüezi"));
    assert_eq!(
        (&get["body"], &get["method"], &get["headers"]["x-a"]),
        (&json!({"param1": "value", "param2": "value"}), &json!("GET"), &json!("1"))
    );
}

#[tokio::test]
async fn a_request_that_is_repeated_to_another_gateway_is_stored_once() {
    let world = World::new().await;
    let ns = &world.namespace;
    world.flow(ns, "orders", both()).await;
    world.flow(ns, "others", both()).await;
    let (one, two) = (Gateway::start(&world, "one").await, Gateway::start(&world, "two").await);
    let path = format!("/hook/{ns}/orders");
    let headers = [JSON, ("x-request-id", "order-4711")];
    for gateway in [&one, &two, &one] {
        let (status, answered, _) = gateway.send("POST", &path, &headers, b"{\"a\":1}").await;
        assert_eq!((status, &answered["x-request-id"]), (200, &"order-4711".parse().unwrap()));
    }
    assert_eq!(world.messages(ns, "orders").await.len(), 1);
    // Another body, another place, another flow of the same stream: another message.
    one.send("POST", &path, &headers, b"{\"a\":2}").await;
    one.send("POST", &format!("{path}/x"), &headers, b"{\"a\":1}").await;
    one.send("POST", &format!("/hook/{ns}/others"), &headers, b"{\"a\":1}").await;
    assert_eq!((world.messages(ns, "orders").await.len(), world.messages(ns, "others").await.len()), (3, 1));
    // An id that is none is replaced: nothing is suppressed by it.
    let odd = [JSON, ("x-request-id", "two words")];
    let (_, answered, _) = one.send("POST", &path, &odd, b"{}").await;
    assert_eq!(answered["x-request-id"].len(), 32);
    one.send("POST", &path, &odd, b"{}").await;
    assert_eq!(world.messages(ns, "orders").await.len(), 5);
}

#[tokio::test]
async fn unknown_and_stopped_look_the_same_and_what_is_served_is_announced() {
    let world = World::new().await;
    let ns = &world.namespace;
    let mut announced = world.announcements().await;
    let gateway = Gateway::start(&world, "announcer").await;
    let flow = world.flow(ns, "orders", both()).await;
    announced.reach("announcer", version(&flow)).await;
    let path = format!("/hook/{ns}/orders");
    assert_eq!(gateway.post(&path, &json!({})).await, 200);
    // A status that changes no route raises the version all the same.
    let armed = world.conditions(ns, "orders", &["Accepted", "NodesReady", "TriggerArmed"]).await;
    announced.reach("announcer", version(&armed)).await;
    // It stays served when its pods crash, and with another trigger it is served otherwise.
    world.conditions(ns, "orders", &["Accepted", "TriggerArmed"]).await;
    let get_only = json!({"spec": {"trigger": {"webhook": {"methods": ["GET"]}}}});
    let changed = world.patch(ns, "orders", get_only).await;
    announced.reach("announcer", version(&changed)).await;
    assert_eq!(gateway.post(&path, &json!({})).await, 405);
    assert_eq!(gateway.send("GET", &path, &[], b"").await.0, 200);
    let suspended = world.patch(ns, "orders", json!({"spec": {"suspend": true}})).await;
    announced.reach("announcer", version(&suspended)).await;
    // At the moment of the announcement, not some time after.
    let id = [JSON, ("x-request-id", "r-1")];
    let plain = |(status, mut headers, body): (u16, http::HeaderMap, String)| {
        headers.remove("date");
        (status, headers, body)
    };
    let stopped = plain(gateway.send("POST", &path, &id, b"{}").await);
    let unknown = plain(gateway.send("POST", &format!("/hook/{ns}/nobody"), &id, b"{}").await);
    assert_eq!((stopped.0, &stopped), (404, &unknown));
    let before = world.messages(ns, "orders").await.len();
    assert_eq!(before, 2);
    // Deletion takes the route away too, and a flow made anew is another.
    world.patch(ns, "orders", json!({"spec": {"suspend": false}})).await;
    gateway.until(&path, 200).await;
    let by_uid = format!("/hook/{}", flow.metadata.uid.unwrap());
    assert_eq!(gateway.send("GET", &by_uid, &[], b"").await.0, 200);
    world.flows(ns).delete("orders", &kube::api::DeleteParams::default()).await.unwrap();
    gateway.until(&path, 404).await;
    world.flow(ns, "orders", both()).await;
    gateway.until(&path, 200).await;
    assert_eq!(gateway.send("GET", &by_uid, &[], b"").await.0, 404);
}

#[tokio::test]
async fn what_was_announced_is_said_again_every_three_seconds() {
    let world = World::new().await;
    let gateway = Gateway::start(&world, "steady").await;
    let mut announced = world.announcements().await;
    let begun = Instant::now();
    // The Flows of other tests may change meanwhile: then it is said sooner.
    let first = announced.next(&gateway.name).await;
    for _ in 0..2 {
        assert!(announced.next(&gateway.name).await >= first);
    }
    assert!(begun.elapsed() <= Duration::from_secs(10), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn no_version_is_announced_while_a_message_is_on_its_way_that_it_forbids() {
    let world = World::new().await;
    let ns = &world.namespace;
    let flow = world.flow(ns, "orders", both()).await;
    let other = world.flow(ns, "other", both()).await;
    let proxy = Proxy::before(world.nats_url.trim_start_matches("nats://")).await;
    let url = format!("nats://127.0.0.1:{}", proxy.port);
    let gateway = Gateway::start_with("careful", &world.kubeconfig, &url, &[]);
    gateway.ready(200).await;
    let mut announced = world.announcements().await;
    announced.reach("careful", version(&flow).max(version(&other))).await;
    // The broker's answers do not arrive, so that nobody knows whether the message is stored.
    proxy.set(Way::Mute);
    let path = format!("/hook/{ns}/orders");
    let url = gateway.url(&path);
    let sent =
        tokio::spawn(async move { common::request("POST", &url, &[JSON], b"{}".to_vec()).await.unwrap().0 });
    eventually("the message is stored", async || !world.messages(ns, "orders").await.is_empty()).await;
    let suspended = world.patch(ns, "orders", json!({"spec": {"suspend": true}})).await;
    // Asked in a way that publishes nothing.
    let gone = async || gateway.send("HEAD", &path, &[], b"").await.0 == 404;
    eventually("the route is gone", gone).await;
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(1) {
        if let Ok(heard) = tokio::time::timeout(Duration::from_millis(200), announced.next("careful")).await {
            let over = sent.is_finished();
            assert!(heard < version(&suspended) || over, "announced too early");
        }
    }
    proxy.set(Way::Open);
    assert_eq!(sent.await.unwrap(), 200);
    announced.reach("careful", version(&suspended)).await;
}

#[tokio::test]
async fn a_slow_sender_delays_no_flow_that_stops_and_publishes_nothing_after_it() {
    let world = World::new().await;
    let ns = &world.namespace;
    world.flow(ns, "orders", both()).await;
    let gateway = Gateway::start(&world, "patient").await;
    let mut announced = world.announcements().await;
    let mut slow = dial(&gateway).await;
    let head = format!(
        "POST /hook/{ns}/orders HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: text/plain\r\nContent-Length: 4\r\n\r\nab"
    );
    slow.write_all(head.as_bytes()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    let begun = Instant::now();
    let suspended = world.patch(ns, "orders", json!({"spec": {"suspend": true}})).await;
    announced.reach("patient", version(&suspended)).await;
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    slow.write_all(b"cd").await.unwrap();
    assert!(rest(&mut slow, 5).await.starts_with("HTTP/1.1 404 "));
    assert_eq!(world.messages(ns, "orders").await.len(), 0);
}

#[tokio::test]
async fn while_the_broker_is_away_nothing_is_answered_as_stored() {
    let world = World::new().await;
    let ns = &world.namespace;
    world.flow(ns, "orders", both()).await;
    world.flow("default", "no-stream", both()).await;
    let proxy = Proxy::before(world.nats_url.trim_start_matches("nats://")).await;
    let url = format!("nats://127.0.0.1:{}", proxy.port);
    let gateway = Gateway::start_with("alone", &world.kubeconfig, &url, &[]);
    gateway.ready(200).await;
    let path = format!("/hook/{ns}/orders");
    gateway.until(&path, 200).await;
    let (status, headers, body) = gateway.send("GET", "/hook/default/no-stream", &[], b"").await;
    assert_eq!((status, &*code(&body)), (503, "NoQueue"));
    assert!(headers.contains_key("retry-after"));
    proxy.set(Way::Cut);
    for _ in 0..20 {
        let begun = Instant::now();
        let (status, headers, body) = gateway.send("GET", &path, &[], b"").await;
        assert_eq!(
            (status, &*code(&body), &headers["retry-after"]),
            (503, "BrokerUnavailable", &"5".parse().unwrap())
        );
        assert!(begun.elapsed() < Duration::from_secs(11), "{:?}", begun.elapsed());
    }
    gateway.ready(200).await;
    proxy.set(Way::Open);
    gateway.until(&path, 200).await;
    // A broker that takes what is sent and says nothing: the sender is not told that it is stored.
    proxy.set(Way::Mute);
    let (status, _, body) = gateway.send("GET", &format!("{path}?mute=1"), &[], b"").await;
    assert_eq!((status, &*code(&body)), (503, "BrokerUnavailable"));
}

#[tokio::test]
async fn a_broker_that_dies_is_not_missed_silently() {
    let world = World::new().await;
    let ns = &world.namespace;
    world.flow(ns, "orders", both()).await;
    let own = rig::Nats::start().await.unwrap();
    let client = async_nats::connect(own.url()).await.unwrap();
    let jetstream = async_nats::jetstream::new(client.clone());
    let world = World { nats_url: own.url().into(), nats: client, jetstream, ..world };
    world.make_stream(&world.namespace, 100).await;
    let gateway = Gateway::start(&world, "widow").await;
    let path = format!("/hook/{}/orders", world.namespace);
    gateway.until(&path, 200).await;
    drop(own);
    for _ in 0..20 {
        assert_eq!(gateway.send("GET", &path, &[], b"").await.0, 503);
    }
}

#[tokio::test]
async fn while_the_api_server_is_away_the_last_routes_stay_and_then_it_catches_up() {
    let world = World::new().await;
    let ns = &world.namespace;
    world.flow(ns, "stays", both()).await;
    world.flow(ns, "stops", both()).await;
    let server = rig::Plane::shared().await.unwrap().server().trim_start_matches("https://").to_owned();
    let proxy = Proxy::before(&server).await;
    let home = tempfile::tempdir().unwrap();
    let kubeconfig = home.path().join("kubeconfig");
    let text = std::fs::read_to_string(&world.kubeconfig).unwrap();
    std::fs::write(&kubeconfig, text.replace(&server, &format!("127.0.0.1:{}", proxy.port))).unwrap();
    let gateway = Gateway::start_with("islander", &kubeconfig, &world.nats_url, &[]);
    gateway.ready(200).await;
    let mut announced = world.announcements().await;
    proxy.set(Way::Cut);
    let stopped = world.patch(ns, "stops", json!({"spec": {"suspend": true}})).await;
    let (stays, stops) = (format!("/hook/{ns}/stays"), format!("/hook/{ns}/stops"));
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(4) {
        assert_eq!(gateway.send("GET", &stays, &[], b"").await.0, 200);
        assert_eq!(gateway.send("GET", &stops, &[], b"").await.0, 200);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // What it has not seen it does not announce.
    assert!(announced.next("islander").await < version(&stopped));
    proxy.set(Way::Open);
    announced.reach("islander", version(&stopped)).await;
    assert_eq!(gateway.send("GET", &stops, &[], b"").await.0, 404);
    assert_eq!(gateway.send("GET", &stays, &[], b"").await.0, 200);
    // One that starts while the API server is away is not ready: it knows no route.
    proxy.set(Way::Cut);
    let young = Gateway::start_with("young", &kubeconfig, &world.nats_url, &[]);
    young.ready(503).await;
    assert_eq!(young.send("GET", &stays, &[], b"").await.0, 404);
    proxy.set(Way::Open);
    young.ready(200).await;
    assert_eq!(young.send("GET", &stays, &[], b"").await.0, 200);
}

#[tokio::test]
async fn told_to_stop_it_turns_unready_goes_on_for_a_while_and_ends_what_has_begun() {
    let world = World::new().await;
    let ns = &world.namespace;
    world.flow(ns, "orders", both()).await;
    let more = ["--drain-delay", "2"];
    let mut gateway = Gateway::start_with("ending", &world.kubeconfig, &world.nats_url, &more);
    gateway.ready(200).await;
    let path = format!("/hook/{ns}/orders");
    let mut slow = dial(&gateway).await;
    let head =
        format!("POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: text/plain\r\nContent-Length: 4\r\n\r\nab");
    slow.write_all(head.as_bytes()).await.unwrap();
    let mut announced = world.announcements().await;
    gateway.term();
    gateway.ready(503).await;
    let (status, headers, _) = gateway.send("GET", &path, &[], b"").await;
    assert_eq!((status, &headers["connection"]), (200, &"close".parse().unwrap()));
    // It is announced to the end: the operator still counts on it.
    let stopped = world.patch(ns, "orders", json!({"metadata": {"labels": {"a": "b"}}})).await;
    announced.reach("ending", version(&stopped)).await;
    let url = gateway.url("/");
    eventually("no new connection is taken", async || common::get(&url).await.is_err()).await;
    assert!(gateway.child.try_wait().unwrap().is_none(), "it waits for the slow request");
    slow.write_all(b"cd").await.unwrap();
    assert!(rest(&mut slow, 5).await.starts_with("HTTP/1.1 200 "));
    let ended = tokio::time::timeout(Duration::from_secs(5), gateway.child.wait()).await.unwrap().unwrap();
    assert!(ended.success(), "{ended}\n{}", gateway.log());
    assert_eq!(world.messages(ns, "orders").await.len(), 2);
}

#[tokio::test]
async fn headers_that_trickle_and_bodies_that_pause_are_cut_off() {
    let world = World::new().await;
    let ns = &world.namespace;
    world.flow(ns, "orders", both()).await;
    let gateway = Gateway::start(&world, "strict").await;
    let trickle = async {
        let mut stream = dial(&gateway).await;
        let begun = Instant::now();
        stream.write_all(b"GET / HTTP/1.1\r\nX-A: ").await.unwrap();
        let (mut from, mut to) = stream.split();
        let mut sink = vec![];
        let writing = async {
            while to.write_all(b"a").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(300)).await;
            }
        };
        tokio::select! { _ = from.read_to_end(&mut sink) => {}, () = writing => {} }
        begun.elapsed().as_secs()
    };
    let pause = async {
        let mut stream = dial(&gateway).await;
        let begun = Instant::now();
        let head = format!(
            "POST /hook/{ns}/orders HTTP/1.1\r\nHost: x\r\nContent-Type: text/plain\r\nContent-Length: 9\r\n\r\na"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let answer = rest(&mut stream, 20).await;
        (begun.elapsed().as_secs(), answer)
    };
    let (trickled, (paused, answer)) = tokio::join!(trickle, pause);
    assert!((9..=12).contains(&trickled), "cut off after {trickled} s");
    assert!((5..=9).contains(&paused), "cut off after {paused} s");
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    assert_eq!(world.messages(ns, "orders").await.len(), 0);
}

#[tokio::test]
async fn a_body_of_100_mb_is_refused_without_being_read() {
    let world = World::new().await;
    let ns = &world.namespace;
    world.flow(ns, "orders", both()).await;
    let gateway = Gateway::start(&world, "small").await;
    let head = format!("POST /hook/{ns}/orders HTTP/1.1\r\nHost: x\r\nContent-Type: text/plain\r\n");
    // One that says how long it is: refused before a byte of it comes.
    let mut told = dial(&gateway).await;
    told.write_all(format!("{head}Content-Length: 100000000\r\n\r\n").as_bytes()).await.unwrap();
    let mut start = [0; 13];
    tokio::time::timeout(Duration::from_secs(2), told.read_exact(&mut start)).await.unwrap().unwrap();
    assert_eq!(&start, b"HTTP/1.1 413 ");
    // One that asks first is not told to go on.
    let mut asks = dial(&gateway).await;
    let asking = format!("{head}Content-Length: 100000000\r\nExpect: 100-continue\r\n\r\n");
    asks.write_all(asking.as_bytes()).await.unwrap();
    assert!(rest(&mut asks, 5).await.starts_with("HTTP/1.1 413 "));
    // One that does not say, and sends as long as it can.
    let mut endless = dial(&gateway).await;
    endless.write_all(format!("{head}Transfer-Encoding: chunked\r\n\r\n").as_bytes()).await.unwrap();
    let chunk = [b"10000\r\n".as_slice(), &vec![b'x'; 0x10000], b"\r\n"].concat();
    let mut sent = 0;
    while sent < 100_000_000 && endless.write_all(&chunk).await.is_ok() {
        sent += chunk.len();
    }
    assert!(sent < 30_000_000, "{sent} bytes were taken");
    // A sender that writes all before it reads, and only a little too much, can read why.
    let (status, _, body) = gateway
        .send("POST", &format!("/hook/{ns}/orders"), &[("content-type", "text/plain")], &vec![b'x'; 3 << 20])
        .await;
    assert_eq!((status, &*code(&body)), (413, "TooLarge"));
    assert_eq!(world.messages(ns, "orders").await.len(), 0);
    assert_eq!(gateway.post(&format!("/hook/{ns}/orders"), &json!({})).await, 200);
}

#[tokio::test]
async fn a_full_queue_is_its_own_flows_matter() {
    let world = World::new().await;
    let ns = common::namespace().await;
    world.make_stream(&ns, 3).await;
    world.flow(&ns, "stuck", both()).await;
    world.flow(&ns, "well", both()).await;
    let gateway = Gateway::start(&world, "fair").await;
    let (stuck, well) = (format!("/hook/{ns}/stuck"), format!("/hook/{ns}/well"));
    for number in 0..3 {
        assert_eq!(gateway.post(&stuck, &json!(number)).await, 200);
    }
    let (status, headers, body) = gateway.send("POST", &stuck, &[JSON], b"4").await;
    assert_eq!((status, &*code(&body), &headers["retry-after"]), (503, "QueueFull", &"5".parse().unwrap()));
    assert_eq!(gateway.post(&well, &json!({})).await, 200);
    assert_eq!((world.messages(&ns, "stuck").await.len(), world.messages(&ns, "well").await.len()), (3, 1));
}

#[tokio::test]
async fn one_name_in_two_namespaces_is_two_flows() {
    let world = World::new().await;
    let (here, there) = (&world.namespace, common::namespace().await);
    world.make_stream(&there, 10).await;
    world.flow(here, "orders", both()).await;
    world.flow(&there, "orders", json!({"methods": ["POST"]})).await;
    let gateway = Gateway::start(&world, "twins").await;
    let headers = [JSON, ("x-request-id", "the-same")];
    for namespace in [here, &there] {
        assert_eq!(gateway.send("POST", &format!("/hook/{namespace}/orders"), &headers, b"{}").await.0, 200);
    }
    assert_eq!(gateway.send("GET", &format!("/hook/{there}/orders"), &[], b"").await.0, 405);
    let (some, others) = (world.messages(here, "orders").await, world.messages(&there, "orders").await);
    assert_eq!((some.len(), others.len()), (1, 1));
    assert_ne!(some[0]["id"], others[0]["id"]);
}

#[tokio::test]
async fn requests_are_logged_and_counted_without_their_secrets() {
    let world = World::new().await;
    let ns = &world.namespace;
    world.flow(ns, "orders", both()).await;
    let gateway = Gateway::start(&world, "teller").await;
    let secret = ("authorization", "Bearer hunter2");
    gateway
        .send("GET", &format!("/hook/{ns}/orders/a?token=hunter2"), &[secret, ("x-request-id", "r-1")], b"")
        .await;
    gateway.send("BREW", "/coffee", &[], b"").await;
    let log = gateway.log();
    assert!(!log.contains("hunter2"), "{log}");
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let line = lines.into_iter().find(|line| line["request_id"] == "r-1").unwrap_or_else(|| panic!("{log}"));
    assert_eq!(
        [&line["method"], &line["path"], &line["status"], &line["namespace"], &line["flow"], &line["bytes"]],
        [
            &json!("GET"),
            &json!(format!("/hook/{ns}/orders/a")),
            &json!(200),
            &json!(ns),
            &json!("orders"),
            &json!(0)
        ]
    );
    let (_, metrics) = common::get(&format!("http://{}/metrics", gateway.admin)).await.unwrap();
    for line in [
        "millrace_gateway_requests_total{code=\"200\",method=\"GET\"} 1\n",
        "millrace_gateway_requests_total{code=\"404\",method=\"other\"} 1\n",
        "millrace_gateway_requests_in_flight 0\n",
        "millrace_gateway_request_duration_seconds_count 2\n",
        "\nmillrace_gateway_routes ",
        "\nmillrace_gateway_route_table_version ",
    ] {
        assert!(metrics.contains(line), "{line}{metrics}");
    }
}

#[tokio::test]
async fn an_idle_gateway_is_small() {
    let world = World::new().await;
    let gateway = Gateway::start(&world, "thrifty").await;
    let file = format!("/proc/{}/smaps_rollup", gateway.child.id().unwrap());
    let memory = std::fs::read_to_string(file).unwrap();
    // The program itself, which is mapped from its file, is several times larger without optimisation.
    let line = memory.lines().find_map(|line| line.strip_prefix("Pss_Anon:")).unwrap();
    let kilobytes: u32 = line.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(kilobytes < 10_000, "{kilobytes} kB");
}

#[tokio::test]
async fn what_a_sender_sends_is_stored_whether_it_waits_for_the_answer_or_not() {
    let world = World::new().await;
    let ns = &world.namespace;
    world.flow(ns, "orders", both()).await;
    let gateway = Gateway::start(&world, "loyal").await;
    let path = format!("/hook/{ns}/orders");
    // One that ends its side first still wants the answer.
    let mut half = dial(&gateway).await;
    half.write_all(format!("GET {path}?a=1 HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).await.unwrap();
    half.shutdown().await.unwrap();
    assert!(rest(&mut half, 5).await.starts_with("HTTP/1.1 200 "));
    let mut gone = dial(&gateway).await;
    gone.write_all(format!("GET {path}?a=2 HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).await.unwrap();
    drop(gone);
    eventually("both are stored", async || world.messages(ns, "orders").await.len() == 2).await;
}
