//! Tells the operator how far the routes have come.
//!
//! On core NATS, where a lost word does no harm: it is said again. At once after a change, because Flows wait for it to
//! become Active or to stop.

use std::sync::Arc;
use std::time::Duration;

use async_nats::Client;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::broker::connect::Broker;
use crate::broker::subject;
use crate::broker::work::RoutesApplied;
use crate::gateway::routes::Routes;

/// How often the same is said again.
const AGAIN: Duration = Duration::from_secs(3);
/// The least time between two announcements: changes that come in a crowd are told together.
const PACE: Duration = Duration::from_millis(20);
/// How soon to look again whether the requests have ended that keep a version back.
const GLANCE: Duration = Duration::from_millis(10);

/// Announces until it is told to stop.
pub async fn announce(broker: Broker, routes: Arc<Routes>, name: String, stop: CancellationToken) {
    let mut connections = broker.connections();
    let mut told: Option<(u64, Instant)> = None;
    while !stop.is_cancelled() {
        let settled = routes.settled();
        let due = told.is_none_or(|(version, at)| Some(version) != settled || at.elapsed() >= AGAIN);
        // What waited in a buffer for a connection would be an old word when it is heard.
        if let Some(version) = settled.filter(|_| due && broker.connected()) {
            tell(&broker.client, &name, version).await;
            told = Some((version, Instant::now()));
            sleep(PACE).await;
        }
        // While the broker is away what is due stays due: the connection wakes us.
        let next = told.map(|(_, at)| at + AGAIN).filter(|next| *next > Instant::now());
        let next = next.unwrap_or_else(|| Instant::now() + AGAIN);
        tokio::select! {
            () = routes.changed() => {}
            () = sleep(GLANCE), if settled != routes.version() => {}
            () = sleep_until(next) => {}
            // A server that has just come up has heard nothing yet.
            Ok(()) = connections.changed() => told = None,
            () = stop.cancelled() => {}
        }
    }
}

async fn tell(client: &Client, name: &str, version: u64) {
    let applied = RoutesApplied { gateway: name.to_owned(), resource_version: version };
    // Two plain fields always have a JSON form.
    let payload = serde_json::to_vec(&applied).unwrap_or_default();
    if let Err(error) = client.publish(subject::gateway(name), payload.into()).await {
        tracing::warn!(%error, "Could not announce the routes");
    }
}
