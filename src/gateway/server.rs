//! Listens for senders, keeps them in bounds, and lets them go in peace.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::gateway::connection::{Busy, Limited};
use crate::gateway::intake::Intake;

/// How many connections there may be at a time.
const CONNECTIONS: usize = 2048;
/// When fewer than this are free, connections are not kept after their request.
const SCARCE: usize = CONNECTIONS / 8;
/// How long a connection may be idle: longer than the pools of the usual proxies keep one (60 s).
const IDLE: Duration = Duration::from_secs(75);
/// The most bytes that the headers of a request may have: more is answered with 431, as are more than hyper's 100 headers.
const HEADERS: usize = 64 << 10;
/// How long requests may take to end when nothing new is taken: longer than any of them may take.
const END: Duration = Duration::from_secs(23);

/// Binds the address.
///
/// # Errors
/// It cannot be listened on.
pub async fn bind(listen: SocketAddr) -> anyhow::Result<TcpListener> {
    raise_limit();
    TcpListener::bind(listen).await.with_context(|| format!("cannot listen on {listen}"))
}

/// A connection is an open file, and containers may have 1024 of them unless they ask.
fn raise_limit() {
    let wanted = (CONNECTIONS * 2) as u64;
    match getrlimit(Resource::RLIMIT_NOFILE) {
        Ok((soft, hard)) if soft < wanted.min(hard) => {
            if let Err(error) = setrlimit(Resource::RLIMIT_NOFILE, wanted.min(hard), hard) {
                tracing::warn!(%error, "Could not raise the limit of open files");
            }
        }
        _ => {}
    }
}

/// Serves until it is told to stop, then lets the requests end that have begun.
pub async fn serve(listener: TcpListener, intake: Arc<Intake>, stop: CancellationToken) {
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    let graceful = GracefulShutdown::new();
    while let Some((stream, permit)) = next(&listener, &room, &stop).await {
        tokio::spawn(connection(stream, permit, room.clone(), intake.clone(), graceful.watcher()));
    }
    drop(listener);
    let ended = async {
        graceful.shutdown().await;
        intake.publishing.close();
        intake.publishing.wait().await;
    };
    if timeout(END, ended).await.is_err() {
        tracing::warn!("Some requests did not end in time");
    }
}

/// The next connection; none when it is time to stop.
async fn next(
    listener: &TcpListener,
    room: &Arc<Semaphore>,
    stop: &CancellationToken,
) -> Option<(TcpStream, OwnedSemaphorePermit)> {
    let accept = async {
        loop {
            // Never closed. Those who find no room wait in the backlog.
            let permit = room.clone().acquire_owned().await.ok()?;
            match listener.accept().await {
                Ok((stream, _)) => return Some((stream, permit)),
                Err(error) => {
                    tracing::warn!(%error, "Could not take a connection");
                    sleep(Duration::from_millis(50)).await;
                }
            }
        }
    };
    tokio::select! {
        accepted = accept => accepted,
        () = stop.cancelled() => None,
    }
}

async fn connection(
    stream: TcpStream,
    permit: OwnedSemaphorePermit,
    room: Arc<Semaphore>,
    intake: Arc<Intake>,
    watcher: Watcher,
) {
    // Without it an answer may wait for the sender's acknowledgement of the last.
    let _ = stream.set_nodelay(true);
    let busy = Busy::default();
    let stream = TokioIo::new(Limited::new(stream, busy.clone()));
    let service = service_fn(move |request| {
        let (intake, busy, scarce) = (intake.clone(), busy.clone(), room.available_permits() < SCARCE);
        async move {
            busy.set(true);
            let answer = intake.answer(request, scarce).await;
            busy.set(false);
            Ok::<_, Infallible>(answer)
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(IDLE)
        .max_header_size(HEADERS)
        .max_buf_size(HEADERS)
        // A sender that has said all it has to say may still want the answer.
        .half_close(true)
        .serve_connection(stream, service);
    if let Err(error) = watcher.watch(connection).await {
        tracing::debug!(%error, "A connection broke off");
    }
    drop(permit);
}
