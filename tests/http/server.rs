//! A server that does what servers do, the worst included.

use std::io;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures::stream::{self, Stream, StreamExt as _};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use rustls::pki_types::PrivateKeyDer;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::{Duration, Instant};
use tokio_rustls::TlsAcceptor;

type Body = UnsyncBoxBody<Bytes, io::Error>;
type Answer = Response<Body>;

/// How much is sent at a time of what is sent without end.
const PIECE: usize = 64 << 10;

/// What a server has seen.
#[derive(Default)]
pub struct Seen {
    pub requests: Mutex<Vec<Value>>,
    /// When each request for `/busy` came.
    pub busy: Mutex<Vec<Instant>>,
    pub connections: AtomicU32,
    /// Bytes of bodies that have no end.
    pub sent: AtomicU64,
}

pub struct Server {
    pub port: u16,
    pub seen: Arc<Seen>,
    task: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    pub async fn start() -> Self {
        Self::with(None).await
    }

    /// One that speaks TLS, and its certificate.
    pub async fn tls() -> (Self, String) {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let key = PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
        (Self::with(Some(Arc::new(config).into())).await, made.cert.pem())
    }

    async fn with(tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let seen = Arc::new(Seen::default());
        let state = Arc::clone(&seen);
        let task = tokio::spawn(async move {
            loop {
                let (near, _) = listener.accept().await.unwrap();
                state.connections.fetch_add(1, Ordering::Relaxed);
                tokio::spawn(serve(near, tls.clone(), port, Arc::clone(&state)));
            }
        });
        Self { port, seen, task }
    }

    pub fn at(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// The requests that it got, as `/echo` tells them.
    pub fn requests(&self) -> Vec<Value> {
        self.seen.requests.lock().unwrap().clone()
    }
}

async fn serve(near: TcpStream, tls: Option<TlsAcceptor>, port: u16, seen: Arc<Seen>) {
    let service = service_fn(move |request| {
        let seen = Arc::clone(&seen);
        async move { answer(request, port, &seen).await.ok_or("no answer") }
    });
    // Whoever hangs up early is no fault of the server.
    let _ = match tls {
        None => http1::Builder::new().serve_connection(TokioIo::new(near), service).await,
        Some(tls) => match tls.accept(near).await {
            Ok(near) => http1::Builder::new().serve_connection(TokioIo::new(near), service).await,
            Err(_) => return,
        },
    };
}

/// The answer; without one the connection ends.
async fn answer(request: Request<Incoming>, port: u16, seen: &Arc<Seen>) -> Option<Answer> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.ok()?.to_bytes();
    let headers: serde_json::Map<_, _> =
        head.headers.iter().map(|(name, value)| (name.to_string(), value.to_str().unwrap().into())).collect();
    let request = json!({
        "method": head.method.as_str(), "uri": head.uri.to_string(), "headers": headers,
        "body": String::from_utf8(body.to_vec()).unwrap(),
    });
    seen.requests.lock().unwrap().push(request.clone());
    let (_, path) = head.uri.path().split_once('/')?;
    let (name, rest) = path.split_once('/').unwrap_or((path, ""));
    Some(match name {
        "echo" => with(200, &[("content-type", "application/json"), ("x-total", "5")], request.to_string()),
        "status" => {
            with(rest.parse().unwrap(), &[("content-type", "text/plain")], format!("It is {rest}.\n"))
        }
        "media" => with(200, &[("content-type", &decoded(rest))], "x"),
        "broken" => with(200, &[("content-type", "application/json")], "{\"a\": "),
        "deep" => {
            let deep = format!("{}{}", "[".repeat(101), "]".repeat(101));
            with(200, &[("content-type", "application/json")], deep)
        }
        "gzip" => with(200, &[("content-encoding", "gzip"), ("content-type", "text/plain")], "x"),
        "large" => with(200, &[("content-type", "text/plain")], "x".repeat(rest.parse().unwrap())),
        "head" => with(200, &[("x-long", &"x".repeat(200 << 10))], ""),
        "loop" => with(302, &[("location", "/loop")], ""),
        "hops" => hop(rest.parse().unwrap()),
        "to" => with(307, &[("location", &decoded(rest))], ""),
        "to-name" => with(302, &[("location", &format!("http://localhost:{port}/echo"))], ""),
        "post-to" => with(303, &[("location", "/echo")], ""),
        "busy" => busy(seen),
        "hang" => std::future::pending().await,
        "drop" => return None,
        _ => endless(name, seen),
    })
}

fn with(status: u16, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::builder().status(status);
    for (name, value) in headers {
        answer = answer.header(*name, *value);
    }
    answer.body(Full::new(body.into()).map_err(|never| match never {}).boxed_unsync()).unwrap()
}

fn decoded(text: &str) -> String {
    percent_encoding::percent_decode_str(text).decode_utf8().unwrap().into_owned()
}

fn hop(left: u32) -> Answer {
    match left {
        0 => with(200, &[], "arrived"),
        left => with(301, &[("location", &format!("{}", left - 1))], ""),
    }
}

/// Takes the third request.
fn busy(seen: &Seen) -> Answer {
    let mut times = seen.busy.lock().unwrap();
    times.push(Instant::now());
    match times.len() {
        1 => with(429, &[("retry-after", "1")], ""),
        2 => with(503, &[], ""),
        _ => with(200, &[], "at last"),
    }
}

/// Bodies that do not end, or not well.
fn endless(name: &str, seen: &Arc<Seen>) -> Answer {
    let seen = Arc::clone(seen);
    let pieces = stream::repeat_with(move || {
        seen.sent.fetch_add(PIECE as u64, Ordering::Relaxed);
        Bytes::from(vec![b'x'; PIECE])
    });
    let drops = stream::repeat(Bytes::from_static(b"x")).then(async |drop| {
        tokio::time::sleep(Duration::from_millis(20)).await;
        drop
    });
    let answer = Response::builder().header("content-type", "text/plain");
    let answer = match name {
        "flood" => answer.body(body(pieces)),
        "gigabyte" => answer.header("content-length", 1 << 30).body(body(pieces)),
        "drip" => answer.body(body(drops)),
        "stall" => answer.body(body(pieces.take(1).chain(stream::pending()))),
        "half" => answer
            .body(failing(drops.take(2).map(Ok).chain(stream::iter([Err(io::ErrorKind::Other.into())])))),
        _ => return with(404, &[], ""),
    };
    answer.unwrap()
}

fn body(pieces: impl Stream<Item = Bytes> + Send + 'static) -> Body {
    failing(pieces.map(Ok))
}

fn failing(pieces: impl Stream<Item = io::Result<Bytes>> + Send + 'static) -> Body {
    StreamBody::new(pieces.map(|piece| piece.map(Frame::data))).boxed_unsync()
}
