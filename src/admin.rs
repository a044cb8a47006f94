//! What every role answers to those who run it: `/livez`, `/readyz` and `/metrics`.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;

/// How long an answer may wait until a role is ready for the first time: less than the kubelet waits for it (2 s). Told no,
/// the kubelet asks again a second later, and a start would take that much longer.
const FIRST: Duration = Duration::from_millis(1500);

/// What a role waits for before it is ready: each gate is closed with a word of why until it is opened.
#[derive(Clone, Debug, Default)]
pub struct Health(Arc<Gates>);

#[derive(Debug, Default)]
struct Gates {
    closed: Mutex<BTreeMap<&'static str, Option<String>>>,
    opened: Notify,
    was_ready: AtomicBool,
}

/// One thing that a role waits for.
#[derive(Clone, Debug)]
pub struct Gate {
    name: &'static str,
    health: Health,
}

impl Health {
    /// A gate, closed.
    #[must_use]
    pub fn gate(&self, name: &'static str) -> Gate {
        let gate = Gate { name, health: self.clone() };
        gate.close("not yet");
        gate
    }

    /// The gates that are closed, with the reasons: empty when the role is ready.
    #[must_use]
    pub fn closed(&self) -> Vec<String> {
        let gates = self.0.closed.lock().unwrap_or_else(PoisonError::into_inner);
        gates.iter().filter_map(|(name, why)| why.as_ref().map(|why| format!("{name}: {why}"))).collect()
    }

    /// Waits until the role is ready for the first time, but not for long. One that was ready once does not wait: that it
    /// is no more must be known at once.
    async fn first(&self) {
        if self.0.was_ready.load(Ordering::Relaxed) {
            return;
        }
        let ready = async {
            loop {
                let opened = self.0.opened.notified();
                if self.closed().is_empty() {
                    break self.0.was_ready.store(true, Ordering::Relaxed);
                }
                opened.await;
            }
        };
        let _ = timeout(FIRST, ready).await;
    }

    fn set(&self, name: &'static str, why: Option<String>) {
        self.0.closed.lock().unwrap_or_else(PoisonError::into_inner).insert(name, why);
        self.0.opened.notify_waiters();
    }
}

impl Gate {
    /// It is there.
    pub fn open(&self) {
        self.health.set(self.name, None);
    }

    /// It is not, or no longer there.
    pub fn close(&self, why: impl Into<String>) {
        self.health.set(self.name, Some(why.into()));
    }
}

/// The routes `/livez`, `/readyz` and `/metrics`; a role may add its own.
pub fn router(health: Health, metrics: Metrics) -> Router {
    Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(move || ready(health.clone())))
        .route("/metrics", get(move || std::future::ready(text(&metrics))))
}

/// Answers on an address until the token is cancelled.
///
/// # Errors
/// The address cannot be listened on.
pub async fn serve(listen: SocketAddr, router: Router, stop: CancellationToken) -> anyhow::Result<()> {
    let listener = TcpListener::bind(listen).await.with_context(|| format!("cannot listen on {listen}"))?;
    tracing::info!(%listen, "Answering /livez, /readyz and /metrics");
    axum::serve(listener, router)
        .with_graceful_shutdown(stop.cancelled_owned())
        .await
        .context("the server for /livez, /readyz and /metrics ended")
}

async fn ready(health: Health) -> (StatusCode, String) {
    health.first().await;
    match health.closed() {
        closed if closed.is_empty() => (StatusCode::OK, "ok\n".into()),
        closed => (StatusCode::SERVICE_UNAVAILABLE, format!("{}\n", closed.join("\n"))),
    }
}

fn text(metrics: &Metrics) -> impl IntoResponse + use<> {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], metrics.text())
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    #[test]
    fn a_role_is_ready_when_every_gate_is_open() {
        let health = Health::default();
        let (routes, broker) = (health.gate("routes"), health.gate("broker"));
        assert_eq!(health.closed(), ["broker: not yet", "routes: not yet"]);
        routes.open();
        broker.open();
        assert_eq!(health.closed(), Vec::<String>::new());
        broker.close("connection lost");
        assert_eq!(health.closed(), ["broker: connection lost"]);
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_answer_waits_for_readiness_and_no_later_one_does() {
        let (health, began) = (Health::default(), Instant::now());
        let gate = health.gate("broker");
        let asked = tokio::spawn(ready(health.clone()));
        tokio::time::sleep(Duration::from_millis(700)).await;
        gate.open();
        assert_eq!(asked.await.unwrap(), (StatusCode::OK, "ok\n".to_owned()));
        assert_eq!(began.elapsed().as_millis(), 700);
        gate.close("gone");
        let no = (StatusCode::SERVICE_UNAVAILABLE, "broker: gone\n".to_owned());
        assert_eq!(ready(health).await, no);
        assert_eq!(began.elapsed().as_millis(), 700);
    }

    #[tokio::test(start_paused = true)]
    async fn a_role_that_does_not_become_ready_says_why_before_the_kubelet_gives_up() {
        let (health, began) = (Health::default(), Instant::now());
        let _gate = health.gate("broker");
        assert_eq!(ready(health).await.1, "broker: not yet\n");
        assert!(began.elapsed() < Duration::from_secs(2));
    }
}
