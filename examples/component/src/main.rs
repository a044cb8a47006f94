//! An example of a component: a web server whose functions get a message as JSON and answer with one.
//!
//! ```text
//!   POST /echo      gives the message back          /enrich   adds `body.seenBy`
//!   POST /split     gives two                       /drop     gives none (204)
//!   POST /fail      500                             /reject   422
//!   POST /poison    500 where `body.id` is "poison", or the message back
//!   POST /slow      answers after `?ms=` or `body.ms` milliseconds
//!   POST /garbage   200 and no JSON                 /huge     an answer of 10 MB
//!   POST /hang      never answers                   /exit     ends in the middle of an answer
//!   GET  /healthz   200                             /seen     the messages it got: ids, and how often
//!   GET  /orders    three new orders each time
//! ```
//! It listens on `PORT` (8080), and writes of each message the function, its id and its `body.id` to standard output. A component of yours needs nothing
//! of Millrace's: any web server that takes a POST is one.

use std::convert::Infallible;
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode, server::conn::http1};
use hyper_util::rt::TokioIo;
use serde_json::{Map, Value, json};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

mod seen;

use seen::Seen;

/// How large the answer of `/huge` is.
const HUGE: usize = 10 << 20;
/// How long `/slow` takes if nothing is said.
const SLOW: u64 = 1000;

type Answer = Response<Full<Bytes>>;

fn main() -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match runtime.and_then(|runtime| runtime.block_on(serve())) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("component: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn serve() -> std::io::Result<()> {
    let port = std::env::var("PORT").ok().and_then(|port| port.parse().ok()).unwrap_or(8080);
    let listener = TcpListener::bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))).await?;
    say(&format!("listening on {}", listener.local_addr()?));
    let seen = Arc::new(Mutex::new(Seen::default()));
    let mut terminate = signal(SignalKind::terminate())?;
    loop {
        let (stream, _) = tokio::select! {
            accepted = listener.accept() => accepted?,
            _ = terminate.recv() => return Ok(()),
        };
        let seen = Arc::clone(&seen);
        let service = service_fn(move |request| answer(request, Arc::clone(&seen)));
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
    }
}

async fn answer(request: Request<Incoming>, seen: Arc<Mutex<Seen>>) -> Result<Answer, Infallible> {
    let (head, body) = request.into_parts();
    let path = head.uri.path();
    if head.method == Method::GET {
        return Ok(match path {
            "/healthz" => text(StatusCode::OK, "ok\n"),
            "/seen" => message(&lock(&seen).list()),
            "/orders" => message(&lock(&seen).orders()),
            _ => text(StatusCode::NOT_FOUND, "no such page\n"),
        });
    }
    let Ok(body) = body.collect().await else { return Ok(text(StatusCode::BAD_REQUEST, "half a request\n")) };
    let Ok(input) = serde_json::from_slice::<Value>(&body.to_bytes()) else {
        return Ok(text(StatusCode::BAD_REQUEST, "no JSON\n"));
    };
    let id = head.headers.get("ce-id").and_then(|id| id.to_str().ok()).unwrap_or_default().to_owned();
    say(&format!("{path} {id} {}", input["body"]["id"]));
    lock(&seen).add(id, input["body"]["id"].clone());
    Ok(function(path, head.uri.query(), input).await)
}

/// One call of a function.
async fn function(path: &str, query: Option<&str>, input: Value) -> Answer {
    match path {
        "/enrich" => message(&enriched(&input)),
        "/split" => message(&split(&input)),
        "/drop" => text(StatusCode::NO_CONTENT, ""),
        "/poison" if input["body"]["id"] == "poison" => {
            text(StatusCode::INTERNAL_SERVER_ERROR, "this message is poison\n")
        }
        "/" | "/echo" | "/poison" => message(&input),
        "/fail" => text(StatusCode::INTERNAL_SERVER_ERROR, "this function fails\n"),
        "/reject" => text(StatusCode::UNPROCESSABLE_ENTITY, "this function wants nothing\n"),
        "/garbage" => text(StatusCode::OK, "<html>no message</html>\n"),
        "/huge" => message(&json!({"body": "x".repeat(HUGE)})),
        "/slow" => {
            let asked = query.and_then(|query| query.strip_prefix("ms=")?.parse().ok());
            let ms = asked.or_else(|| input["body"]["ms"].as_u64()).unwrap_or(SLOW);
            tokio::time::sleep(Duration::from_millis(ms)).await;
            message(&input)
        }
        "/hang" => std::future::pending().await,
        "/exit" => std::process::exit(1),
        _ => text(StatusCode::NOT_FOUND, "no such function\n"),
    }
}

/// The message, and who has seen it.
fn enriched(input: &Value) -> Value {
    let mut body = match &input["body"] {
        Value::Object(fields) => fields.clone(),
        other => Map::from_iter([("value".to_owned(), other.clone())]),
    };
    let name = std::env::var("HOSTNAME").unwrap_or_else(|_| "component".into());
    body.insert("seenBy".into(), name.into());
    json!({"body": body})
}

/// Two messages instead of one.
fn split(input: &Value) -> Value {
    let half = |part: u8| {
        let mut body = input["body"].clone();
        if let Value::Object(fields) = &mut body {
            fields.insert("part".into(), part.into());
        }
        json!({"body": body})
    };
    json!({"messages": [half(1), half(2)]})
}

fn message(value: &Value) -> Answer {
    let mut answer = text(StatusCode::OK, value.to_string());
    answer.headers_mut().insert("content-type", hyper::header::HeaderValue::from_static("application/json"));
    answer
}

fn text(status: StatusCode, text: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(text.into()));
    *answer.status_mut() = status;
    answer
}

fn lock(seen: &Mutex<Seen>) -> std::sync::MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Writes a line. Whoever read them may be gone.
fn say(line: &str) {
    let _ = writeln!(std::io::stdout().lock(), "{line}");
}
