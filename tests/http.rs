//! The built-in node `http`, in a real runner with a real broker, against a server that does its worst.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

mod mill;
#[path = "http/server.rs"]
mod server;

use std::io::Write as _;
use std::sync::atomic::Ordering;
use std::time::Duration;

use millrace::broker::work::NodeWork;
use serde_json::{Value, json};

use mill::builtin::{builtin, desire, observed, wait_loaded, work};
use mill::{Mill, Queues, Role, free_port, until};
use server::Server;

/// The server is on this machine; a proxy would have to be told of it.
const ALLOWED: [(&str, &str); 3] = [
    ("MILLRACE_HTTP_ALLOW", "127.0.0.0/8"),
    ("HTTP_PROXY", "http://127.0.0.1:1"),
    ("http_proxy", "http://127.0.0.1:1"),
];

fn node(id: &str, fields: &Value) -> NodeWork {
    builtin(id, "http", fields, &["out"])
}

fn get(id: &str, url: &str) -> NodeWork {
    node(id, &json!({"url": url}))
}

fn within(millis: u64, node: NodeWork) -> NodeWork {
    NodeWork { timeout_millis: millis, ..node }
}

/// A flow `f` of these nodes that is run, with this in the runner's environment.
async fn flow(nodes: Vec<NodeWork>, env: &[(&str, &str)]) -> (Mill, Role) {
    let mill = Mill::start().await;
    for node in &nodes {
        mill.consumer("f", node.id.as_str(), Queues::default()).await;
    }
    desire(&mill, "f", Some(&work("r1", nodes))).await;
    let runner = Role::runner(&mill, env);
    let loaded = wait_loaded(&mill, "f", "r1").await;
    assert_eq!(loaded.problems, Vec::<String>::new());
    (mill, runner)
}

/// What a node gives for a message.
async fn given(mill: &Mill, node: &str, body: Value) -> Value {
    let before = mill.queued("f", "out").await.len();
    mill.put("f", node, &format!("m-{node}"), body).await;
    mill.idle("f", node).await;
    let mut out = mill.queued("f", "out").await;
    assert_eq!((out.len(), mill.dead("f", node).await), (before + 1, vec![]));
    out.pop().unwrap()
}

/// Gives each node a message, which becomes a dead letter for this reason.
async fn assert_dead(mill: &Mill, reasons: &[(&str, &str)]) {
    for (node, _) in reasons {
        mill.put("f", node, &format!("m-{node}"), json!({})).await;
    }
    for (node, reason) in reasons {
        assert_eq!(mill.one_dead("f", node).await, *reason, "{node}");
    }
    assert_eq!(mill.queued("f", "out").await, Vec::<Value>::new());
}

#[tokio::test]
async fn a_request_is_made_of_the_message_and_the_answer_becomes_a_message() {
    let server = Server::start().await;
    let fields = json!({
        "url": server.at("/echo?key=k"),
        "path": "[\"orders\", .body.id]",
        "query": "{page: (.body.page | tostring), none: .body.none}",
        "headers": {"Accept": "application/json", "x-tag": ["a", "b"]},
        "body": "{number: .body.number}",
    });
    let (mill, _runner) = flow(vec![node("a", &fields)], &ALLOWED).await;
    let body = r#"{"id": "a/b", "page": 2, "number": 12345678901234567890.10}"#;
    let message = format!(
        r#"{{"id": "m1", "attachments": {{"a": 1}}, "body": {body}, "headers": {{"b": "2"}}, "metadata": {{"from": "test"}}}}"#
    );
    mill.put_raw("f", "a", "m1", message).await;
    mill.idle("f", "a").await;
    let mut out = mill.queued("f", "out").await;
    assert_eq!(out.len(), 1, "{:?}", mill.dead("f", "a").await);
    let request = out[0]["body"].take();
    assert_eq!(request["method"], "POST");
    assert_eq!(request["uri"], "/echo/orders/a%2Fb?key=k&page=2");
    assert_eq!(request["body"], r#"{"number":12345678901234567890.10}"#);
    let sent = ["accept", "content-type", "idempotency-key", "user-agent", "x-tag", "host"]
        .map(|name| request["headers"][name].as_str().unwrap().to_owned());
    let (agent, host) =
        (format!("millrace/{}", env!("CARGO_PKG_VERSION")), format!("127.0.0.1:{}", server.port));
    assert_eq!(sent, ["application/json", "application/json", "m1", &agent, "b", &host]);
    assert_eq!(request["headers"].get("accept-encoding"), None);
    assert_eq!(out[0]["metadata"], json!({"from": "test", "http": {"status": 200}}));
    assert_eq!((&out[0]["attachments"], &out[0]["headers"]["x-total"]), (&json!({}), &json!("5")));
}

#[tokio::test]
async fn an_answer_is_what_the_node_accepts() {
    let server = Server::start().await;
    let (mill, _runner) = flow(
        vec![
            node("missing", &json!({"url": server.at("/status/404"), "accept": [404, 503]})),
            node("busy", &json!({"url": server.at("/status/503"), "accept": [404, 503]})),
            node("moved", &json!({"url": server.at("/to/x"), "accept": [307]})),
            node("head", &json!({"url": server.at("/large/9000000"), "method": "HEAD"})),
            node("delete", &json!({"url": server.at("/status/204"), "method": "DELETE"})),
            node("hops", &json!({"url": server.at("/hops/5")})),
        ],
        &ALLOWED,
    )
    .await;
    for (node, status, body) in [
        ("missing", 404, json!("It is 404.\n")),
        ("busy", 503, json!("It is 503.\n")),
        ("moved", 307, Value::Null),
        ("head", 200, Value::Null),
        ("delete", 204, Value::Null),
        ("hops", 200, json!("arrived")),
    ] {
        let message = given(&mill, node, json!(1)).await;
        assert_eq!(
            (&message["body"], &message["metadata"]["http"]["status"]),
            (&body, &json!(status)),
            "{node}"
        );
    }
}

#[tokio::test]
async fn what_would_be_the_same_each_time_is_a_dead_letter_at_once() {
    let server = Server::start().await;
    let nodes = ["status/404", "broken", "deep", "gzip", "media/image%2Fpng", "large/1048577"]
        .map(|path| get(path.split('/').next().unwrap(), &server.at(&format!("/{path}"))))
        .into_iter()
        .chain([
            get("loop", &server.at("/loop")),
            get("hops", &server.at("/hops/6")),
            get("to", &server.at("/to/ftp:%2F%2Fx")),
            node("path", &json!({"url": server.at("/"), "path": "\"/..\""})),
            node("jq", &json!({"url": server.at("/"), "query": "error(\"no\")"})),
        ])
        .collect();
    let (mill, _runner) = flow(nodes, &ALLOWED).await;
    let unusable = |why: &str| format!("the answer of 127.0.0.1 cannot be used: {why}");
    assert_dead(&mill, &[
        ("status", "127.0.0.1 answered 404: It is 404."),
        ("broken", &unusable("it is no JSON: EOF while parsing a value at line 1 column 6")),
        ("deep", &unusable("it is more than 100 levels deep")),
        ("gzip", &unusable("it has a content encoding, though none was asked for")),
        ("media", &unusable("its content type is image/png: an answer must be JSON (application/json or any +json) or text (text/*)")),
        ("large", &unusable("it is larger than 1048576 bytes (`maxResponseBytes`)")),
        ("loop", "it was redirected more than 5 times"),
        ("hops", "it was redirected more than 5 times"),
        ("to", "127.0.0.1 answered 307 and redirects to what is neither http nor https"),
        ("path", "what `path` gave has a segment that is `.` or `..`: that is not allowed"),
        ("jq", "the jq expression failed: \"no\""),
    ])
    .await;
    let asked = |path: &str| server.requests().iter().filter(|request| request["uri"] == path).count();
    assert_eq!([asked("/status/404"), asked("/loop")], [1, 6]);
}

#[tokio::test]
async fn what_may_pass_is_tried_again() {
    let server = Server::start().await;
    let closed = format!("http://127.0.0.1:{}/", free_port());
    let (mill, _runner) = flow(
        vec![
            get("busy", &server.at("/busy")),
            get("error", &server.at("/status/500")),
            get("drop", &server.at("/drop")),
            get("half", &server.at("/half")),
            get("head", &server.at("/head")),
            get("closed", &closed),
            get("unknown", "http://nobody.invalid/"),
            within(300, get("hang", &server.at("/hang"))),
            within(300, get("stall", &server.at("/stall"))),
            within(300, get("drip", &server.at("/drip"))),
        ],
        &ALLOWED,
    )
    .await;
    let thrice = |why: &str| format!("it was tried 3 times, at last: {why}");
    let unusable = |why: &str| thrice(&format!("the answer of 127.0.0.1 cannot be used: {why}"));
    assert_dead(&mill, &[
        ("error", &thrice("127.0.0.1 answered 500: It is 500.")),
        ("drop", &thrice("127.0.0.1 ended the connection without an answer (connection closed before message completed)")),
        ("head", &thrice("127.0.0.1 ended the connection without an answer (message head is too large)")),
        ("closed", &thrice("cannot connect to 127.0.0.1: connection refused")),
        ("hang", &thrice("127.0.0.1 gave no answer within 300 ms")),
        ("stall", &unusable("it did not end in time")),
        ("drip", &unusable("it did not end in time")),
    ])
    .await;
    for (node, beginning) in [
        ("half", unusable("it broke off (")),
        ("unknown", thrice("cannot connect to nobody.invalid: the name nobody.invalid has no address (")),
    ] {
        mill.put("f", node, &format!("m-{node}"), json!(1)).await;
        let reason = mill.one_dead("f", node).await;
        assert!(reason.starts_with(&beginning), "{reason}");
    }
    assert_eq!(given(&mill, "busy", json!(1)).await["body"], json!("at last"));
    let times = server.seen.busy.lock().unwrap().clone();
    assert_eq!(times.len(), 3);
    assert!(times[1] - times[0] >= Duration::from_secs(1), "the server asked for a second");
}

#[tokio::test]
async fn an_answer_without_end_is_given_up_before_it_fills_the_memory() {
    let server = Server::start().await;
    let (mill, mut runner) = flow(
        vec![
            get("flood", &server.at("/flood")),
            get("gigabyte", &server.at("/gigabyte")),
            node("longer", &json!({"url": server.at("/flood"), "maxResponseBytes": 4 << 20})),
        ],
        &ALLOWED,
    )
    .await;
    let large = |bytes: u32| {
        format!(
            "the answer of 127.0.0.1 cannot be used: it is larger than {bytes} bytes (`maxResponseBytes`)"
        )
    };
    assert_dead(
        &mill,
        &[("flood", &large(1 << 20)), ("gigabyte", &large(1 << 20)), ("longer", &large(4 << 20))],
    )
    .await;
    let sent = server.seen.sent.load(Ordering::Relaxed);
    assert!(sent < 64 << 20, "{sent} bytes were sent");
    assert!(runner.child.try_wait().unwrap().is_none(), "it lives");
}

#[tokio::test]
async fn large_answers_wait_for_each_other_and_all_arrive() {
    let server = Server::start().await;
    let fields = json!({"url": server.at("/large/8000000"), "maxResponseBytes": 8_100_000});
    let names = ["a", "b", "c", "d"];
    let (mill, runner) = flow(names.map(|id| node(id, &fields)).into(), &ALLOWED).await;
    for number in 0..4 {
        for name in names {
            mill.put("f", name, &format!("{name}{number}"), json!(number)).await;
        }
    }
    for name in names {
        mill.idle("f", name).await;
    }
    let out = mill.queued("f", "out").await;
    assert_eq!(out.len(), 16);
    assert!(out.iter().all(|message| message["body"].as_str().unwrap().len() == 8_000_000));
    let peak = peak_memory(runner.child.id().unwrap());
    assert!(peak < 256 << 10, "{peak} KiB");
}

/// The most memory that a process has had, in KiB.
fn peak_memory(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[tokio::test]
async fn connections_are_kept_between_messages() {
    let server = Server::start().await;
    let one_by_one = NodeWork { in_flight: 1, ..get("a", &server.at("/echo")) };
    let (mill, _runner) = flow(vec![one_by_one], &ALLOWED).await;
    for number in 0..20 {
        mill.put("f", "a", &format!("m{number}"), json!(number)).await;
    }
    mill.idle("f", "a").await;
    assert_eq!(server.requests().len(), 20);
    let connections = server.seen.connections.load(Ordering::Relaxed);
    assert!(connections < 20, "{connections} connections");
}

#[tokio::test]
async fn the_runners_own_pod_and_machine_are_out_of_reach() {
    let server = Server::start().await;
    let port = server.port;
    let hosts = [
        ("plain", "127.0.0.1", "127.0.0.1"),
        ("number", "2130706433", "127.0.0.1"),
        ("hex", "0x7f.0.0.1", "127.0.0.1"),
        ("octal", "0177.1", "127.0.0.1"),
        ("mapped", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]"),
        ("six", "[::1]", "[::1]"),
        ("none", "0.0.0.0", "0.0.0.0"),
        ("meta", "169.254.169.254", "169.254.169.254"),
        ("name", "localhost", "localhost"),
    ];
    let nodes = hosts.map(|(id, host, _)| get(id, &format!("http://{host}:{port}/echo")));
    let (mill, _runner) = flow(nodes.into(), &[]).await;
    for (node, _, host) in hosts {
        mill.put("f", node, &format!("m-{node}"), json!({})).await;
        let reason = mill.one_dead("f", node).await;
        assert!(reason.starts_with(&format!("{host} may not be called: ")), "{node}: {reason}");
        assert!(reason.contains("--http-allow"), "{node}: {reason}");
    }
    assert_eq!(server.seen.connections.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn a_redirect_leads_to_no_address_that_is_out_of_reach() {
    let server = Server::start().await;
    let (mill, _runner) = flow(
        vec![
            get("meta", &server.at("/to/http:%2F%2F169.254.169.254%2Flatest%2Fmeta-data")),
            get("six", &server.at("/to/http:%2F%2F[fd00:ec2::254]%2Flatest")),
            get("mapped", &server.at("/to/http:%2F%2F[::ffff:169.254.169.254]%2F")),
        ],
        &ALLOWED,
    )
    .await;
    let flag = "which http nodes may not reach unless the runner's --http-allow (in the chart: `runner.httpAllow`) holds it";
    let refused = |host: &str, what: &str| format!("{host} may not be called: {what}, {flag}");
    assert_dead(
        &mill,
        &[
            ("meta", &refused("169.254.169.254", "169.254.169.254 is a link-local address")),
            ("six", &refused("[fd00:ec2::254]", "fd00:ec2::254 is an address of cloud metadata")),
            ("mapped", &refused("[::ffff:a9fe:a9fe]", "::ffff:169.254.169.254 is a link-local address")),
        ],
    )
    .await;
}

#[tokio::test]
async fn a_redirect_to_a_name_is_followed_without_the_secrets_for_another_server() {
    let server = Server::start().await;
    let secret = json!({"authorization": "Bearer x", "cookie": "a=b", "x-api-key": "k", "accept": "a/b"});
    let (mill, _runner) = flow(
        vec![
            node("other", &json!({"url": server.at("/to-name"), "headers": secret})),
            node("same", &json!({"url": server.at("/post-to"), "headers": secret, "body": "."})),
        ],
        &ALLOWED,
    )
    .await;
    let shown = |request: &Value| {
        ["authorization", "cookie", "x-api-key", "accept"].map(|name| request["headers"][name].clone())
    };
    let other = given(&mill, "other", json!(1)).await["body"].take();
    assert_eq!(shown(&other), [Value::Null, Value::Null, Value::Null, json!("a/b")]);
    assert_eq!(other["headers"]["host"], format!("localhost:{}", server.port));
    let same = given(&mill, "same", json!(1)).await["body"].take();
    assert_eq!(shown(&same), [json!("Bearer x"), json!("a=b"), json!("k"), json!("a/b")]);
    assert_eq!((&same["method"], &same["body"]), (&json!("GET"), &json!("")));
}

#[tokio::test]
async fn tls_trusts_the_roots_that_the_runner_was_given() {
    let (server, certificate) = Server::tls().await;
    let url = format!("https://localhost:{}/echo", server.port);
    let (mill, _runner) = flow(vec![get("a", &url)], &ALLOWED).await;
    mill.put("f", "a", "m1", json!(1)).await;
    let reason = mill.one_dead("f", "a").await;
    let expected = "it was tried 3 times, at last: cannot connect to localhost: invalid peer certificate";
    assert!(reason.starts_with(expected), "{reason}");
    assert_eq!(server.requests(), Vec::<Value>::new());

    let mut roots = tempfile::NamedTempFile::new().unwrap();
    roots.write_all(certificate.as_bytes()).unwrap();
    let trusting = [ALLOWED[0], ("SSL_CERT_FILE", roots.path().to_str().unwrap())];
    let (mill, _runner) = flow(vec![get("a", &url)], &trusting).await;
    assert_eq!(given(&mill, "a", json!(1)).await["body"]["uri"], "/echo");
}

#[tokio::test]
async fn a_node_whose_server_hangs_ends_with_its_flow() {
    let server = Server::start().await;
    let (mill, _runner) = flow(vec![within(500, get("a", &server.at("/hang")))], &ALLOWED).await;
    mill.put("f", "a", "m1", json!(1)).await;
    until("the request", async || (!server.requests().is_empty()).then_some(())).await;
    desire(&mill, "f", None).await;
    until("the answer", async || (observed(&mill, "f").await == Some(None)).then_some(())).await;
}
