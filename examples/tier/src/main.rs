//! An example of an application: `tier db`, `tier app` and `tier web` are three small web servers, each of which asks the next
//! one in turn. What they know of each other is what Millrace tells them: the file named by `MILLRACE_IMPORTS`.
//!
//! ```text
//!   GET /           who answered: `web-0 > app-1 > db-0`      /healthz  200
//!   GET /view       what it imports, its process id, how often it has read its imports, and which hooks have run
//!   GET /reload     reads the imports again, as the hook `update`
//!   GET /started    /stopping    the hooks `start` and `stop`
//!   GET /env        the variables of imports and values       /secrets  the secret files, and how long each is
//!   GET /slow?ms=N  answers after N milliseconds
//! ```
//! It listens on `PORT` (db: 5000, the others: 8080). On SIGTERM it says with each answer that the connection closes, answers
//! what it has begun to answer, and ends. For tests it can be made to misbehave: `TIER_EXIT=CODE`, `TIER_IGNORE_TERM=1`, `TIER_FORK=1`,
//! `TIER_SILENT=1`, `TIER_DELAY_MS=N`.

use std::convert::Infallible;
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{CONNECTION, HeaderValue};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode, server::conn::http1};
use hyper_util::rt::TokioIo;
use hyper_util::server::graceful::GracefulShutdown;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::time::Instant;

mod peers;
mod view;

use peers::Peers;

type Answer = Response<Full<Bytes>>;

/// How long answers that have begun may take once it is to end.
const LAST: Duration = Duration::from_secs(20);
/// How long those who keep a connection have to be told by an answer that it closes: closed without a word, it would be closed
/// just when the next request is on its way.
const FAREWELL: Duration = Duration::from_secs(2);

fn main() -> ExitCode {
    let tier = std::env::args().nth(1).unwrap_or_default();
    if !["db", "app", "web"].contains(&tier.as_str()) {
        eprintln!("tier: use it as `tier db`, `tier app` or `tier web`");
        return ExitCode::from(2);
    }
    if let Some(code) = variable("TIER_EXIT").and_then(|code| code.parse::<u8>().ok()) {
        eprintln!("tier: ends with code {code}, as it was told");
        return ExitCode::from(code);
    }
    if variable("TIER_FORK").is_some() {
        return go_to_background(&tier);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match runtime.and_then(|runtime| runtime.block_on(serve(&tier))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tier: {error}");
            ExitCode::FAILURE
        }
    }
}

/// As daemons do: another process goes on, and this one ends.
fn go_to_background(tier: &str) -> ExitCode {
    let own = std::env::current_exe();
    let child = own.and_then(|own| std::process::Command::new(own).arg(tier).env_remove("TIER_FORK").spawn());
    ExitCode::from(u8::from(child.is_err()))
}

async fn serve(tier: &str) -> std::io::Result<()> {
    let millis = variable("TIER_DELAY_MS").and_then(|millis| millis.parse().ok()).unwrap_or_default();
    tokio::time::sleep(Duration::from_millis(millis)).await;
    let peers = Arc::new(Peers::new(tier));
    let mut terminate = signal(SignalKind::terminate())?;
    if variable("TIER_SILENT").is_some() {
        terminate.recv().await;
        return Ok(());
    }
    let port =
        variable("PORT").and_then(|port| port.parse().ok()).unwrap_or(if tier == "db" { 5000 } else { 8080 });
    let listener = TcpListener::bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))).await?;
    say(&format!("{} listens on {}", peers.name(), listener.local_addr()?));
    let graceful = GracefulShutdown::new();
    let mut again = signal(SignalKind::hangup())?;
    let (open, mut left) = watch::channel(0_usize);
    let open = Arc::new(open);
    let (closing, mut end) = (Arc::new(AtomicBool::new(false)), None::<Instant>);
    loop {
        let ended = async {
            match end {
                Some(at) => {
                    let _ = tokio::time::timeout_at(at, left.wait_for(|open| *open == 0)).await;
                }
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            accepted = listener.accept() => {
                let (stream, _) = accepted?;
                let _ = stream.set_nodelay(true);
                let (peers, closing, open) = (peers.clone(), closing.clone(), open.clone());
                let service = service_fn(move |request| {
                    let (peers, closing) = (peers.clone(), closing.clone());
                    async move {
                        let mut answer = answer(request, peers).await?;
                        if closing.load(Ordering::Relaxed) {
                            answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                        }
                        Ok::<_, Infallible>(answer)
                    }
                });
                let connection = graceful.watch(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
                tokio::spawn(async move {
                    open.send_modify(|open| *open += 1);
                    let _ = connection.await;
                    open.send_modify(|open| *open -= 1);
                });
            }
            _ = again.recv() => peers.reload(),
            _ = terminate.recv() => {
                say(&format!("{} was told to end", peers.name()));
                if variable("TIER_IGNORE_TERM").is_none() {
                    closing.store(true, Ordering::Relaxed);
                    end = end.or(Some(Instant::now() + FAREWELL));
                }
            }
            () = ended => break,
        }
    }
    drop(listener);
    let _ = tokio::time::timeout(LAST, graceful.shutdown()).await;
    Ok(())
}

async fn answer(request: Request<Incoming>, peers: Arc<Peers>) -> Result<Answer, Infallible> {
    let query = request.uri().query().unwrap_or_default();
    Ok(match request.uri().path() {
        "/" => match peers.ask().await {
            Ok(line) => text(StatusCode::OK, format!("{line}\n")),
            Err(why) => text(StatusCode::BAD_GATEWAY, format!("{}: {why}\n", peers.name())),
        },
        "/view" => object(&peers.view()),
        "/reload" => {
            peers.reload();
            text(StatusCode::OK, "read again\n")
        }
        path @ ("/started" | "/stopping") => {
            peers.hook(path.trim_start_matches('/'));
            text(StatusCode::OK, "noted\n")
        }
        "/env" => object(&view::environment()),
        "/secrets" => object(&view::secrets()),
        "/slow" => {
            let millis = query.strip_prefix("ms=").and_then(|millis| millis.parse().ok()).unwrap_or(1000);
            tokio::time::sleep(Duration::from_millis(millis)).await;
            text(StatusCode::OK, format!("{}\n", peers.name()))
        }
        "/healthz" => text(StatusCode::OK, "ok\n"),
        _ => text(StatusCode::NOT_FOUND, "no such page\n"),
    })
}

fn object(value: &Value) -> Answer {
    text(StatusCode::OK, format!("{}\n", json!(value)))
}

fn text(status: StatusCode, text: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(text.into()));
    *answer.status_mut() = status;
    answer
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Writes a line. Whoever read them may be gone.
fn say(line: &str) {
    let _ = writeln!(std::io::stdout().lock(), "{line}");
}
