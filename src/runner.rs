//! Runs the built-in nodes of one namespace's Flows.
//!
//! ```text
//!   desired     what the operator wants to be run
//!   flows       what is run: pumps are started and stopped, and what is loaded is said
//!   builtin     the built-ins themselves
//! ```

use std::collections::{HashMap, HashSet};
use std::future::pending;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use futures::StreamExt as _;
use ipnet::IpNet;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::admin::{self, Health};
use crate::api::name::{FlowName, NamespaceName};
use crate::broker::{self, Broker, BrokerArgs};
use crate::metrics::Metrics;

pub mod builtin;
pub mod desired;
pub mod flows;

use builtin::http::Web;
use desired::{ListError, News};
use flows::Flows;

/// How often all keys are read although nothing seems to have happened: half of it is jitter.
const RELIST: Duration = Duration::from_secs(300);
/// The pause before they are read again when that failed.
const AGAIN: Duration = Duration::from_secs(1);
/// How long what is in flight may take after SIGTERM: less than the pod's grace period.
const LAST: Duration = Duration::from_secs(50);

/// The options of `millrace runner`.
#[derive(Clone, Debug, Args)]
pub struct RunnerArgs {
    #[command(flatten)]
    broker: BrokerArgs,
    /// Namespace whose Flows it serves
    #[arg(long, env = "MILLRACE_NAMESPACE", value_name = "NAME")]
    namespace: NamespaceName,
    /// Name of this pod
    #[arg(long, env = "POD_NAME", value_name = "NAME")]
    name: String,
    /// Address for /livez, /readyz and /metrics
    #[arg(long, env = "MILLRACE_LISTEN", value_name = "ADDRESS", default_value = "0.0.0.0:8687")]
    listen: SocketAddr,
    /// Networks that http nodes may reach although they are the pod's or its machine's own, separated by commas
    #[arg(long, env = "MILLRACE_HTTP_ALLOW", value_name = "CIDR", value_delimiter = ',')]
    http_allow: Vec<IpNet>,
    /// File with certificates that http nodes trust beside the common ones
    #[arg(long, env = "SSL_CERT_FILE", value_name = "FILE")]
    http_roots: Option<PathBuf>,
}

/// Runs until it is told to stop.
///
/// # Errors
/// What makes it impossible to go on.
pub async fn run(args: RunnerArgs) -> anyhow::Result<()> {
    let (health, metrics) = (Health::default(), Metrics::default());
    let (connected, listed) = (health.gate("broker"), health.gate("work"));
    connected.close("not connected yet");
    listed.close("the flows of this namespace were not read yet");
    let web = Web::new(args.http_allow, args.http_roots.as_deref()).context("cannot make http nodes")?;
    let mut terminate = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
    let inbox = format!("_IB.{}.millrace-runner", args.namespace);
    let broker =
        broker::connect(&args.broker, &format!("millrace-runner {}", args.name), Some(&inbox)).await?;
    let stop = CancellationToken::new();
    let mut server =
        tokio::spawn(admin::serve(args.listen, admin::router(health, metrics.clone()), stop.clone()));

    let mut flows = Flows::new(broker.clone(), args.namespace.clone(), args.name, web, &metrics);
    let mut changes = desired::subscribe(&broker, &args.namespace).await?;
    let mut connections = broker.connections();
    connections.mark_unchanged();
    let (mut listing, mut due, mut repeat) = (None, Instant::now(), false);
    loop {
        if listing.is_none() && due <= Instant::now() {
            listing = Some((tokio::spawn(list(broker.clone(), args.namespace.clone())), flows.known()));
        }
        tokio::select! {
            ended = &mut server => return ended.context("the server ended")?,
            _ = terminate.recv() => break,
            Some(message) = changes.next() => {
                if let Some(news) = desired::read(&message) {
                    flows.hear(news);
                }
            }
            all = listed_all(&mut listing) => {
                let known = listing.take().map(|(_, known)| known).unwrap_or_default();
                connected.open();
                match all {
                    Ok(all) => {
                        heard_all(&mut flows, all, known, std::mem::take(&mut repeat));
                        listed.open();
                        due = Instant::now() + RELIST.mul_f64(0.5 + 0.5 * fastrand::f64());
                    }
                    Err(error) => {
                        tracing::warn!(%error, "Cannot read what is to be run");
                        due = Instant::now() + AGAIN;
                    }
                }
            }
            _ = connections.changed() => {
                repeat = true;
                // One that is under way may have been asked before.
                listing.take().inspect(|(listing, _)| listing.abort());
                due = Instant::now();
            }
            () = sleep_until(due), if listing.is_none() => {}
        }
    }
    tracing::info!("Finishing what is in flight");
    flows.finish(LAST).await;
    stop.cancel();
    Ok(())
}

/// All keys are being read, and what was known when that began.
type Listing = (JoinHandle<Result<Vec<News>, ListError>>, HashMap<FlowName, u64>);

async fn list(broker: Broker, namespace: NamespaceName) -> Result<Vec<News>, ListError> {
    broker.wait_connected().await;
    desired::list(&broker, &namespace).await
}

async fn listed_all(listing: &mut Option<Listing>) -> Result<Vec<News>, ListError> {
    match listing {
        Some((listing, _)) => listing.await.unwrap_or(Err(ListError::Unavailable)),
        None => pending().await,
    }
}

fn heard_all(flows: &mut Flows, all: Vec<News>, known: HashMap<FlowName, u64>, repeat: bool) {
    let keys: HashSet<_> = all.iter().map(|news| news.flow.clone()).collect();
    if repeat {
        flows.repeat();
    }
    for news in all {
        flows.hear_read(news, &known);
    }
    flows.only(&keys, known);
}
