//! The sidecar of an image node: moves the messages of one node. That of an Instance is in `member`.
//!
//! It holds no Kubernetes credentials, and knows of its node what its environment says.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use arc_swap::ArcSwap;
use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::get;
use clap::Args;
use sha2::{Digest, Sha256};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::admin::{self, Gate, Health};
use crate::api::name::{FlowName, NamespaceName};
use crate::broker::work::{Handler, NodeWork};
use crate::broker::{self, BrokerArgs};
use crate::jq::pool::Pool;
use crate::metrics::Metrics;
use crate::pump::call::Component;
use crate::pump::edges::{self, Edges};
use crate::pump::metrics::PumpMetrics;
use crate::pump::{Handle, Place, Pump};

pub mod member;

/// How long what is in flight may take after SIGTERM. The component has ended by then, so that it is only about what came
/// out of it.
const LAST: Duration = Duration::from_secs(20);
/// The header with the key of `/drain`.
const DRAIN_KEY: &str = "millrace-drain-key";

/// The options of `millrace agent`.
#[derive(Clone, Debug, Args)]
pub struct AgentArgs {
    #[command(flatten)]
    broker: BrokerArgs,
    /// Namespace of the Flow
    #[arg(long, env = "MILLRACE_NAMESPACE", value_name = "NAME")]
    namespace: NamespaceName,
    /// Name of the Flow
    #[arg(long, env = "MILLRACE_FLOW", value_name = "NAME")]
    flow: FlowName,
    /// What the node does, as JSON
    #[arg(long, env = "MILLRACE_WORK", value_name = "JSON")]
    work: String,
    /// What a request to /drain must give in the header `millrace-drain-key`; it is a secret of the pod
    #[arg(long, env = "MILLRACE_DRAIN_KEY", value_name = "TEXT", hide_env_values = true)]
    drain_key: String,
    /// Address for /livez, /readyz, /metrics and /drain
    #[arg(long, env = "MILLRACE_LISTEN", value_name = "ADDRESS", default_value = "0.0.0.0:8687")]
    listen: SocketAddr,
}

/// Runs until it is told to stop.
///
/// # Errors
/// What makes it impossible to go on.
pub async fn run(args: AgentArgs) -> anyhow::Result<()> {
    let work: NodeWork =
        serde_json::from_str(&args.work).context("MILLRACE_WORK is no description of a node")?;
    let Handler::Component { port, path } = &work.handler else {
        bail!("MILLRACE_WORK is about a built-in node: those are run by `millrace runner`");
    };
    let place = Place { namespace: args.namespace, flow: args.flow, node: work.id.clone() };
    let component = Arc::new(Component::new(&place, *port, path, work.timeout()));
    let lane = edges::needs_lane(&work).then(|| Pool::new(None).lane());
    let edges =
        Edges::load(&work, lane).map_err(anyhow::Error::msg).context("MILLRACE_WORK cannot be followed")?;
    let edges = Arc::new(edges);
    let (health, metrics) = (Health::default(), Metrics::default());
    let gates = Gates::new(&health);
    let mut terminate = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;

    let name = format!("millrace-agent {}/{}/{}", place.namespace, place.flow, place.node);
    let inbox = format!("_IB.{}.{}", place.namespace, place.flow);
    let broker = broker::connect(&args.broker, &name, Some(&inbox)).await?;
    let pump_metrics = PumpMetrics::new(&metrics);
    let (for_pump, by) = (broker.clone(), Arc::clone(&component));
    let pump = Running::new(move || {
        let by: (Arc<dyn Handle>, _) = (by.clone(), Arc::clone(&edges));
        Pump::start(for_pump.clone(), place.clone(), work.clone(), by, pump_metrics.clone())
    });

    tokio::spawn(first_look(Arc::clone(&component), gates.component.clone()));
    let drain = Drain { key: digest(args.drain_key.as_bytes()), pump: Arc::clone(&pump) };
    tokio::spawn(Arc::clone(&pump).keep(Arc::clone(&component), gates.queue));
    let router = router(health, metrics, drain, component, gates.component);
    let stop = CancellationToken::new();
    let server = tokio::spawn(admin::serve(args.listen, router, stop.clone()));
    // Once it was there, a broker that goes away makes no pod unready: messages wait, and nothing would be better.
    tokio::spawn(async move {
        broker.wait_connected().await;
        gates.broker.open();
    });
    tokio::select! {
        ended = server => return ended.context("the server ended")?,
        _ = terminate.recv() => {}
    }
    tracing::info!("Finishing what is in flight");
    let pump = pump.now();
    if timeout(LAST, pump.drain()).await.is_err() {
        tracing::warn!(messages = pump.in_flight(), "Giving back what could not be finished");
        pump.leave().await;
    }
    stop.cancel();
    Ok(())
}

/// The pump that runs. One that was drained is replaced when its component begins anew: the kubelet calls `/drain` before it
/// ends a container whichever way, also one that failed its liveness probe and is started again in the same pod.
struct Running {
    start: Box<dyn Fn() -> Pump + Send + Sync>,
    pump: ArcSwap<Pump>,
}

impl Running {
    fn new(start: impl Fn() -> Pump + Send + Sync + 'static) -> Arc<Self> {
        let pump = ArcSwap::from_pointee(start());
        Arc::new(Self { start: Box::new(start), pump })
    }

    fn now(&self) -> Arc<Pump> {
        self.pump.load_full()
    }

    /// Keeps a pump running for each life of the component; `gate` is open while one has its queue.
    async fn keep(self: Arc<Self>, component: Arc<Component>, gate: Gate) {
        const LOOK: Duration = Duration::from_millis(20);
        loop {
            let pump = self.now();
            let mut answers = pump.answers();
            tokio::select! {
                answered = answers.wait_for(|answers| *answers) => if answered.is_ok() { gate.open() },
                () = pump.ended() => {}
            }
            pump.ended().await;
            gate.close("the node was drained, and its component is about to end");
            while component.accepts().await {
                sleep(LOOK).await;
            }
            gate.close("the component has ended");
            while !component.accepts().await {
                sleep(LOOK).await;
            }
            tracing::info!("The component has begun anew: taking messages again");
            self.pump.store(Arc::new((self.start)()));
        }
    }
}

/// What it waits for before it is ready.
struct Gates {
    broker: Gate,
    queue: Gate,
    component: Gate,
}

impl Gates {
    fn new(health: &Health) -> Self {
        let gates = Self {
            broker: health.gate("broker"),
            queue: health.gate("queue"),
            component: health.gate("component"),
        };
        gates.broker.close("not connected yet");
        gates.queue.close("the node's consumer does not answer yet");
        gates
    }
}

/// What `/drain` needs.
#[derive(Clone)]
struct Drain {
    key: [u8; 32],
    pump: Arc<Running>,
}

fn router(health: Health, metrics: Metrics, drain: Drain, component: Arc<Component>, gate: Gate) -> Router {
    let look = middleware::from_fn(move |request: Request, next: Next| {
        let (component, gate) = (Arc::clone(&component), gate.clone());
        async move {
            if request.uri().path() == "/readyz" {
                look(&component, &gate).await;
            }
            let response: Response = next.run(request).await;
            response
        }
    });
    let drain = Router::new().route("/drain", get(drain_now)).with_state(drain);
    admin::router(health, metrics).merge(drain).layer(look)
}

/// Opens the gate as soon as the component listens for the first time: whoever has asked is waiting for it.
async fn first_look(component: Arc<Component>, gate: Gate) {
    const SOON: Duration = Duration::from_secs(30);
    let began = Instant::now();
    while !component.accepts().await {
        sleep(Duration::from_millis(if began.elapsed() < SOON { 20 } else { 500 })).await;
    }
    gate.open();
}

/// Whether the component listens is looked at when somebody asks.
async fn look(component: &Component, gate: &Gate) {
    if component.accepts().await {
        gate.open();
    } else {
        gate.close(format!("nothing accepts connections on {}", component.address()));
    }
}

/// Returns when nothing is in flight any more. Who gives up waiting does not stop it.
async fn drain_now(State(drain): State<Drain>, headers: HeaderMap) -> StatusCode {
    let given = headers.get(DRAIN_KEY).map(|key| digest(key.as_bytes()));
    // Of digests, it is of no use to know how much of them was right.
    if given != Some(drain.key) {
        return StatusCode::FORBIDDEN;
    }
    drain.pump.now().drain().await;
    StatusCode::OK
}

fn digest(key: &[u8]) -> [u8; 32] {
    Sha256::digest(key).into()
}
