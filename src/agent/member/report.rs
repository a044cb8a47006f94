//! What the operator is to know of this Instance: one key of the bucket `observed`. The newest is what counts: what was true
//! before while the broker was away is never said.

use std::time::Duration;

use async_nats::HeaderMap;
use tokio::sync::watch;
use tokio::time::sleep;

use crate::broker::member::MemberReport;
use crate::broker::{Broker, subject};

/// The pause before it is tried again.
const AGAIN: Duration = Duration::from_millis(500);

/// Publishes each report that differs, for as long as there are some; and the last one again after each connection, since the
/// broker may have lost its disk.
pub async fn publish(broker: Broker, key: String, mut reports: watch::Receiver<Option<MemberReport>>) {
    let mut connections = broker.connections();
    loop {
        let report = reports.borrow_and_update().clone();
        if let Some(report) = report {
            broker.wait_connected().await;
            connections.borrow_and_update();
            // A newer one may have come meanwhile.
            let report = reports.borrow_and_update().clone().unwrap_or(report);
            let payload = serde_json::to_vec(&report).unwrap_or_default();
            let written = subject::written(subject::OBSERVED, &key);
            if let Err(error) = broker.publish(written, HeaderMap::new(), payload.into()).await {
                tracing::debug!(%error, "Could not tell how the application is");
                sleep(AGAIN).await;
                continue;
            }
        }
        tokio::select! {
            changed = reports.changed() => if changed.is_err() { return },
            again = connections.changed() => if again.is_err() { return },
        }
    }
}
