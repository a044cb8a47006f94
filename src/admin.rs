//! What every role answers to those who run it: `/livez`, `/readyz` and `/metrics`.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;
use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;

/// What a role waits for before it is ready: each gate is closed with a word of why until it is opened.
#[derive(Clone, Debug, Default)]
pub struct Health(Arc<Mutex<BTreeMap<&'static str, Option<String>>>>);

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
        let gates = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        gates.iter().filter_map(|(name, why)| why.as_ref().map(|why| format!("{name}: {why}"))).collect()
    }

    fn set(&self, name: &'static str, why: Option<String>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(name, why);
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
        .route("/readyz", get(move || std::future::ready(ready(&health))))
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

fn ready(health: &Health) -> (StatusCode, String) {
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
}
