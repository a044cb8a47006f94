//! All that runs side by side in a gateway, from its start to its end.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use tokio::net::TcpListener;
use tokio::task::{JoinError, JoinHandle, JoinSet};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::admin::{self, Gate, Health};
use crate::broker::connect::Broker;
use crate::gateway::intake::Intake;
use crate::gateway::meter::Meter;
use crate::gateway::{GatewayArgs, Parts, announce, server, watch};
use crate::metrics::Metrics;

/// How long the last announcement may take.
const LAST_WORD: Duration = Duration::from_secs(1);

/// All that runs side by side.
pub struct Crew {
    /// What must never end before it is told to.
    pub all: JoinSet<anyhow::Result<()>>,
    /// Takes requests; ends when those that have begun are answered.
    taking: JoinHandle<()>,
    broker: Broker,
    serving: Gate,
    /// Connections should end soon.
    draining: CancellationToken,
    /// No connection is taken any more.
    closed: CancellationToken,
    /// Nothing is left to do.
    ended: CancellationToken,
}

impl Crew {
    /// Starts everything.
    pub fn start(args: &GatewayArgs, parts: Parts, listener: TcpListener) -> Self {
        let Parts { routes, broker, client, key } = parts;
        let (health, metrics) = (Health::default(), Metrics::default());
        let (draining, closed, ended) =
            (CancellationToken::new(), CancellationToken::new(), CancellationToken::new());
        let (serving, listed, reached) =
            (health.gate("serving"), health.gate("routes"), health.gate("broker"));
        let meter = Meter::new(&metrics);
        let mut all = JoinSet::new();
        all.spawn(admin::serve(args.admin_listen, admin::router(health, metrics), ended.clone()));
        all.spawn(
            announce::announce(broker.clone(), routes.clone(), args.name.clone(), ended.clone()).map(Ok),
        );
        all.spawn(watch::follow(client, routes.clone(), meter.clone(), listed).map(Ok));
        tokio::spawn(open_once_connected(broker.clone(), reached));
        let intake = Intake::new(routes, broker.clone(), key, meter, draining.clone());
        let taking = tokio::spawn(server::serve(listener, Arc::new(intake), closed.clone()));
        serving.open();
        tracing::info!(listen = %args.listen, "Taking webhooks");
        Self { all, taking, broker, serving, draining, closed, ended }
    }

    /// Ends in order. Endpoints follow the readiness, and who sends follows the endpoints: both take their time.
    pub async fn end(&mut self, delay: Duration) {
        tracing::info!(?delay, "Told to stop: going on for those who have not heard of it");
        self.serving.close("the gateway is ending");
        self.draining.cancel();
        sleep(delay).await;
        self.closed.cancel();
        if let Err(error) = (&mut self.taking).await {
            tracing::error!(%error, "The server for webhooks broke off");
        }
        // The operator counts on what is announced until the gateway takes nothing any more.
        self.ended.cancel();
        let _ = timeout(LAST_WORD, self.broker.client.flush()).await;
    }
}

/// Opens the gate at the first connection. It stays open when that is lost.
async fn open_once_connected(broker: Broker, gate: Gate) {
    broker.wait_connected().await;
    gate.open();
}

/// What to say of something that ended by itself.
pub fn fault(ended: Option<Result<anyhow::Result<()>, JoinError>>) -> anyhow::Result<()> {
    ended.transpose()?.transpose()?;
    anyhow::bail!("a part of the gateway ended that never should")
}
