//! Takes webhooks: a request becomes a durable message, then it is answered.
//!
//! ```text
//!   watch        Flows of the whole cluster ─► routes            announce   how far they have come, for the operator
//!   route        what is known of one Flow        table, routes  of all of them: immutable, swapped, versioned
//!   server       connections: bounded, drained    connection     their limits of time
//!   intake       a request from its first byte to its answer     meter      what is told of it
//!   target, request, id, answer     the pure parts: path, message, ids, answers
//!   crew         all that runs side by side, from start to end
//! ```

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use kube::{Client, Config};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::broker::connect::{self, Broker, BrokerArgs};

use self::crew::Crew;
use self::id::MessageKey;
use self::routes::Routes;

pub mod announce;
pub mod answer;
pub mod connection;
mod crew;
pub mod id;
pub mod intake;
pub mod meter;
pub mod request;
pub mod route;
pub mod routes;
pub mod server;
pub mod table;
pub mod target;
pub mod watch;

/// The prefix of the subjects that the broker answers a gateway on.
const INBOX: &str = "_IB.gateway";

/// The options of `millrace gateway`.
#[derive(Clone, Debug, Args)]
pub struct GatewayArgs {
    /// Address to take webhooks on
    #[arg(long, env = "MILLRACE_GATEWAY_LISTEN", value_name = "ADDRESS", default_value = "0.0.0.0:8080")]
    pub listen: SocketAddr,
    /// Address to answer /livez, /readyz and /metrics on
    #[arg(long, env = "MILLRACE_ADMIN_LISTEN", value_name = "ADDRESS", default_value = "0.0.0.0:8081")]
    pub admin_listen: SocketAddr,
    /// Name of this pod, as its endpoint names it
    #[arg(long, env = "POD_NAME", value_name = "NAME")]
    pub name: String,
    /// File with the key that the ids of messages are made with; all gateways share it
    #[arg(long, env = "MILLRACE_MESSAGE_KEY_FILE", value_name = "FILE")]
    pub message_key_file: PathBuf,
    /// Seconds to go on taking requests after being told to stop, until nobody sends any more
    #[arg(long, env = "MILLRACE_DRAIN_DELAY", value_name = "SECONDS", default_value_t = 5)]
    pub drain_delay: u64,
    /// How the broker is reached.
    #[command(flatten)]
    pub broker: BrokerArgs,
}

/// Runs until it is told to stop.
///
/// It is ready when it has the routes of all Flows and has reached the broker, and stays so while the broker is away:
/// then it answers 503, which a sender understands better than a connection that nobody takes.
///
/// # Errors
/// What makes it impossible to go on.
pub async fn run(args: GatewayArgs) -> anyhow::Result<()> {
    let mut signals = Signals::new()?;
    let parts = Parts::new(&args).await?;
    let listener = server::bind(args.listen).await?;
    let mut crew = Crew::start(&args, parts, listener);
    tokio::select! {
        () = signals.told() => {}
        ended = crew.all.join_next() => return crew::fault(ended),
    }
    let delay = Duration::from_secs(args.drain_delay);
    tokio::select! {
        () = crew.end(delay) => {}
        () = signals.told() => tracing::warn!("Told to stop a second time: ending at once"),
    }
    tracing::info!("Ended");
    Ok(())
}

/// What a gateway is made of.
struct Parts {
    pub routes: Arc<Routes>,
    pub broker: Broker,
    pub client: Client,
    pub key: MessageKey,
}

impl Parts {
    async fn new(args: &GatewayArgs) -> anyhow::Result<Self> {
        let file = args.message_key_file.display();
        let bytes = std::fs::read(&args.message_key_file)
            .with_context(|| format!("cannot read the message key in {file}"))?;
        let key = MessageKey::new(bytes.trim_ascii()).with_context(|| format!("{file} holds no key"))?;
        let mut config = Config::infer().await.context("cannot find out how to reach the Kubernetes API")?;
        config.read_timeout = Some(crate::runtime::watch::SILENCE);
        let client =
            Client::try_from(config).context("cannot use the configuration of the Kubernetes API")?;
        let name = format!("millrace-gateway {}", args.name);
        let broker = connect::connect(&args.broker, &name, Some(INBOX)).await?;
        Ok(Self { routes: Arc::default(), broker, client, key })
    }
}

/// The signals to stop.
struct Signals(Signal, Signal);

impl Signals {
    fn new() -> anyhow::Result<Self> {
        let hear = |kind| signal(kind).context("cannot hear signals");
        Ok(Self(hear(SignalKind::terminate())?, hear(SignalKind::interrupt())?))
    }

    /// Waits for one.
    async fn told(&mut self) {
        tokio::select! {
            _ = self.0.recv() => {}
            _ = self.1.recv() => {}
        }
    }
}
