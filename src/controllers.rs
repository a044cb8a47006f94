//! The operator: what is declared becomes objects, queues and phases.
//!
//! ```text
//!   foundation   the Secret with keys and credentials that an install begins with
//!   attend       how the broker is: checked, and furnished with what all share
//!   caches       what is watched                       wake   whom a change gives reason to look
//!   flow         the controller of Flows               runner the controller of the namespaces' runners
//!   members      what is watched for the sake of members, and whom a change of it gives reason to look
//!   cartridge    cluster    instance                   the controllers of those
//!   platform     these three and the load balancer, as they are set up and driven
//! ```
//! Every replica keeps the Secret; the one that leads does the rest. One that has lost its lease ends, and begins anew.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use futures::StreamExt as _;
use ipnet::IpNet;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::{Client, Config};
use prometheus_client::metrics::gauge::Gauge;
use tokio::task::JoinSet;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tokio_util::sync::CancellationToken;

use crate::admin::{self, Gate, Health};
use crate::api::flow::Flow;
use crate::api::instance::Instance;
use crate::broker::buckets::Bucket;
use crate::broker::event_log::{EventLog, Told};
use crate::broker::gateways::Heard;
use crate::broker::settings::Allowance;
use crate::broker::streams::{LimitArgs, Streams};
use crate::broker::ticks::Ticks;
use crate::broker::{self, Broker, BrokerArgs, Credentials, subject};
use crate::clock;
use crate::metrics::Metrics;
use crate::runtime::{Accidents, Announcer, DriveMetrics, Election, Leadership, Writer, drive, watch};
use crate::scheduler::{Scheduler, SchedulerMetrics, Taken};
use crate::shutdown;

use attend::{Attendance, Check};
use caches::Caches;
use dead_letters::DeadLetters;
use flow::build::BuildConfig;
use flow::route::RouteMemory;
use flow::secrets::SecretHashes;
use foundation::{Auth, Keys};
use members::{MemberCaches, SecretUsers};
use platform::Platform;
use runner::RunnerContext;
use wake::{Calls, Wake};

pub mod attend;
pub mod caches;
pub mod cartridge;
pub mod cluster;
pub mod dead_letters;
pub mod flow;
pub mod foundation;
pub mod instance;
pub mod members;
pub mod platform;
pub mod pod;
pub mod runner;
pub mod schemas;
pub mod subscription;
pub mod template;
pub mod wake;

/// How often gateways and broker are asked about by those who wait: what should have told may not have.
const GLANCE: Duration = Duration::from_secs(5);
/// How many Flows, and runners, are looked at at a time.
const AT_A_TIME: u16 = 16;

/// The options of `millrace operator`.
#[derive(Clone, Debug, Args)]
pub struct OperatorArgs {
    /// Namespace of the install
    #[arg(long, env = "POD_NAMESPACE", value_name = "NAME", default_value = "millrace-system")]
    pub namespace: String,
    /// Name of this process, as it stands in the lease
    #[arg(long, env = "POD_NAME", value_name = "NAME", default_value = "operator")]
    pub name: String,
    /// Address for /livez, /readyz and /metrics
    #[arg(long, env = "MILLRACE_ADMIN_LISTEN", value_name = "ADDRESS", default_value = "0.0.0.0:8081")]
    pub listen: SocketAddr,
    /// Image of Millrace itself, for the sidecars and runners
    #[arg(long, env = "MILLRACE_IMAGE", value_name = "IMAGE")]
    pub image: String,
    /// Service of the gateways, in the namespace of the install
    #[arg(long, env = "MILLRACE_GATEWAY_SERVICE", value_name = "NAME", default_value = "millrace-gateway")]
    pub gateway_service: String,
    /// Lease by which one of several operators leads
    #[arg(long, env = "MILLRACE_LEASE", value_name = "NAME", default_value = "millrace-operator")]
    pub lease: String,
    /// Secret with the broker's keys and credentials; it is made where there is none
    #[arg(long, env = "MILLRACE_BROKER_SECRET", value_name = "NAME", default_value = "millrace-broker")]
    pub broker_secret: String,
    /// How the broker knows who is who
    #[arg(long, env = "MILLRACE_NATS_AUTH", value_name = "HOW", default_value = "jwt")]
    pub nats_auth: Auth,
    /// Address of the NATS server for the pods of flows; absent, that of this process
    #[arg(long, env = "MILLRACE_NATS_FLOW_URL", value_name = "URL")]
    pub nats_flow_url: Option<String>,
    /// Address of the NATS server's monitoring, where its settings are read back
    #[arg(long, env = "MILLRACE_NATS_MONITORING_URL", value_name = "URL")]
    pub nats_monitoring_url: Option<String>,
    /// Settings of the NATS server that this install lives with, separated by commas
    #[arg(long, env = "MILLRACE_NATS_ALLOW", value_name = "SETTING", value_delimiter = ',')]
    pub nats_allow: Vec<Allowance>,
    /// Networks that http nodes may reach although they are the runner's own or its machine's, separated by commas
    #[arg(long, env = "MILLRACE_HTTP_ALLOW", value_name = "CIDR", value_delimiter = ',')]
    pub http_allow: Vec<IpNet>,
    #[command(flatten)]
    broker: BrokerArgs,
    #[command(flatten)]
    limits: LimitArgs,
    /// For tests: end after this write to the Kubernetes API
    #[arg(long, hide = true, value_name = "COUNT")]
    test_exit_after_write: Option<u64>,
    /// For tests: stand still before this write to the Kubernetes API
    #[arg(long, hide = true, value_name = "COUNT")]
    test_stop_before_write: Option<u64>,
}

/// Runs until it is told to stop, or has lost its lease.
///
/// # Errors
/// What makes it impossible to go on.
pub async fn run(args: OperatorArgs) -> anyhow::Result<()> {
    let stop = shutdown::token()?;
    let (health, metrics) = (Health::default(), Metrics::default());
    let (api, keys) = (health.gate("kubernetes"), health.gate("keys"));
    let admin = CancellationToken::new();
    let serving =
        tokio::spawn(admin::serve(args.listen, admin::router(health, metrics.clone()), admin.clone()));
    let done = tokio::select! {
        // A port that is taken is no reason to run unseen.
        ended = serving => ended.context("the server for probes has panicked")?,
        done = operate(&args, &metrics, (api, keys), &stop) => done,
    };
    admin.cancel();
    done
}

async fn operate(
    args: &OperatorArgs,
    metrics: &Metrics,
    (api, ready): (Gate, Gate),
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    let config = Config::infer().await.context("cannot find the Kubernetes API: set KUBECONFIG")?;
    let (client, renewals) = (client(&config)?, client(&config)?);
    api.open();
    let Some(keys) = found(args, &client, stop).await else { return Ok(()) };
    ready.open();
    let election = Election::new(renewals, &args.namespace, &args.lease, &args.name);
    let release = CancellationToken::new();
    let leading = tokio::select! {
        leading = election.lead(release.clone()) => leading,
        () = stop.cancelled() => None,
    };
    let Some((leadership, renewing)) = leading else { return Ok(()) };
    let leader: Gauge = Gauge::default();
    metrics.register(|registry| registry.register("leader", "Whether this process leads", leader.clone()));
    leader.set(1);
    let lost = leadership.lost.clone();
    // What has begun comes to its end before the lease is given back.
    let led = lead(args, client, keys, leadership, metrics, stop).await;
    if lost.is_cancelled() {
        anyhow::bail!("the lease was lost: another process leads now");
    }
    release.cancel();
    renewing.await.context("the renewal of the lease has panicked")?;
    led
}

/// The keys of the install; none where it was told to stop before.
async fn found(args: &OperatorArgs, client: &Client, stop: &CancellationToken) -> Option<Keys> {
    const AGAIN: Duration = Duration::from_secs(2);
    loop {
        match foundation::keys(client, &args.namespace, &args.broker_secret, args.nats_auth).await {
            Ok(keys) => return Some(keys),
            Err(error) => tracing::error!(error = format!("{error:#}"), "Cannot begin yet"),
        }
        tokio::select! {
            () = tokio::time::sleep(AGAIN) => {}
            () = stop.cancelled() => return None,
        }
    }
}

/// A client whose limits are ours: each call has its own, and what the server refuses is tried again by whoever asked.
fn client(config: &Config) -> anyhow::Result<Client> {
    let mut config = config.clone();
    config.default_retry = false;
    // A watch says something once in a minute at least; a server that went without a word says nothing any more.
    config.read_timeout = Some(watch::SILENCE);
    config.headers.push((
        http::header::USER_AGENT,
        http::HeaderValue::from_static(concat!("millrace-operator/", env!("CARGO_PKG_VERSION"))),
    ));
    Client::try_from(config).context("cannot make a client of the Kubernetes API")
}

/// Does what the one that leads does, until it is told to stop or leads no more.
async fn lead(
    args: &OperatorArgs,
    client: Client,
    keys: Keys,
    leadership: Leadership,
    metrics: &Metrics,
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    let broker = to_broker(args, &keys).await?;
    let mut tasks = JoinSet::new();
    let (wake, calls, schedules) = Wake::new();
    let secret_users = SecretUsers::default();
    let caches =
        Caches::start(&client, &args.namespace, &args.gateway_service, &wake, &secret_users, &mut tasks);
    let members = MemberCaches::start(&client, &wake, &caches.pods_on_node, &mut tasks);
    let accidents =
        Accidents { exit_after: args.test_exit_after_write, stop_before: args.test_stop_before_write };
    let writer = Writer::new(client.clone(), flow::MANAGER, leadership.fence.clone(), accidents);
    let letters = DeadLetters::new(metrics);
    let context = Arc::new(context(args, &client, &broker, (keys, letters), caches, writer.clone()));
    let platform = Platform::new(&context, members, secret_users, client.clone(), &writer);
    attend(&context, &platform, &broker, &wake, &mut tasks);
    let over = CancellationToken::new();
    let (until, lost, asked) = (over.clone(), leadership.lost.clone(), stop.clone());
    tasks.spawn(async move {
        tokio::select! {
            () = lost.cancelled() => {}
            () = asked.cancelled() => {}
        }
        until.cancel();
    });
    tokio::select! {
        ready = async { context.caches.wait().await.and(platform.caches().wait().await) } => ready?,
        () = over.cancelled() => return Ok(()),
    }
    let (flows, instances) = (context.caches.flows.len(), platform.caches().instances.len());
    tracing::info!(flows, instances, "Sees the cluster");
    schedule(&context, &broker, schedules, &wake, metrics, &mut tasks)?;
    let runners = RunnerContext { flows: context.clone(), client, writer: writer.named(runner::MANAGER) };
    let driven = control(calls, context, runners, platform, DriveMetrics::new(metrics), &over);
    // One that leads no more leaves at once: its writes are fenced off.
    tokio::select! {
        () = driven => {}
        () = leadership.lost.cancelled() => {}
    }
    Ok(())
}

async fn to_broker(args: &OperatorArgs, keys: &Keys) -> anyhow::Result<Broker> {
    let given = args.broker.nats_credentials.clone().map(Credentials::File);
    let credentials = given.unwrap_or_else(|| Credentials::Text(keys.operator.clone().into()));
    Ok(broker::connect_with(&args.broker, credentials, &args.name, None).await?)
}

fn context(
    args: &OperatorArgs,
    client: &Client,
    broker: &Broker,
    (keys, dead_letters): (Keys, DeadLetters),
    caches: Caches,
    writer: Writer,
) -> flow::Context {
    let check = Check { monitoring: args.nats_monitoring_url.clone(), allowed: args.nats_allow.clone() };
    let streams = Streams::new(broker.clone(), args.limits, writer.fence().clone());
    flow::Context {
        config: BuildConfig {
            image: args.image.clone(),
            nats_url: args.nats_flow_url.clone().unwrap_or_else(|| args.broker.nats_url.clone()),
            js_prefix: args.broker.nats_js_prefix.clone(),
            key: keys.key,
            http_allow: args.http_allow.clone(),
        },
        secrets: SecretHashes::new(client.clone(), caches.secrets.clone()),
        caches,
        routes: RouteMemory::default(),
        broker: Arc::new(Attendance::new(broker.clone(), streams, keys.issuer, check)),
        desired: Bucket::new(broker.clone(), subject::DESIRED),
        observed: Bucket::new(broker.clone(), subject::OBSERVED),
        heard: Heard::default(),
        scheduled: Taken::default(),
        dead_letters,
        log: EventLog::new(broker.clone(), clock::now()),
        writer,
        announcer: Announcer::start(client.clone(), args.name.clone()),
        refused: flow::Refusals::default(),
    }
}

/// Listens to all that the broker has to say, and tells those who wait for it.
fn attend(
    context: &Arc<flow::Context>,
    platform: &Platform,
    broker: &Broker,
    wake: &Wake,
    tasks: &mut JoinSet<()>,
) {
    let (flows, members) = (context.caches.flows.clone(), platform.caches().clone());
    let (w, f) = (wake.clone(), flows.clone());
    let buckets = [context.desired.clone(), context.observed.clone()];
    let (i, untold) = (members.instances.clone(), platform.untold());
    tasks.spawn(context.broker.clone().attend(move |another| {
        if another {
            buckets.iter().for_each(Bucket::forget_all);
        }
        w.flows_where(&f, |flow| another || flow::is_moving(flow));
        let moving = |it: &&Arc<Instance>| another || instance::is_moving(it);
        i.state().iter().filter(moving).for_each(|it| w.instance(ObjectRef::from_obj(&**it)));
        untold.take().into_iter().for_each(|it| w.instance(it));
    }));
    let (w, f) = (wake.clone(), flows.clone());
    let waiting = move || w.flows_where(&f, flow::waits_for_gateways);
    tasks.spawn(context.heard.clone().listen(broker.clone(), waiting));
    let (w, f) = (wake.clone(), flows.clone());
    let i = members.instances.clone();
    tasks.spawn(context.observed.clone().listen(move |key| {
        let mut parts = key.split('.');
        match (parts.next(), parts.next(), parts.next()) {
            (Some("flow"), Some(namespace), Some(name)) => {
                let flow = ObjectRef::new(name).within(namespace);
                if f.get(&flow).is_some() {
                    w.flow(flow);
                }
            }
            (Some("instance"), Some(namespace), Some(name)) => {
                let instance = ObjectRef::new(name).within(namespace);
                if i.get(&instance).is_some() {
                    w.instance(instance);
                }
            }
            _ => {}
        }
    }));
    let (w, f, m) = (wake.clone(), flows.clone(), members.clone());
    tasks.spawn(context.log.clone().run(move |told| last_words(told, &w, &f, &m)));
    let (w, f) = (wake.clone(), flows.clone());
    tasks.spawn(context.dead_letters.clone().watch(broker.clone(), move |flow| {
        // They stay when their Flow goes.
        if f.get(&flow).is_some() {
            w.flow(flow);
        }
    }));
    let (w, f) = (wake.clone(), flows);
    tasks.spawn(async move {
        loop {
            tokio::time::sleep(GLANCE).await;
            w.flows_where(&f, flow::waits_for_gateways);
        }
    });
}

/// One that goes waits until its last words are in the event log.
fn last_words(told: &Told, wake: &Wake, flows: &Store<Flow>, members: &MemberCaches) {
    let mut parts = told.subject.split('.').skip(2);
    let (Some(namespace), Some(plural), Some(name)) = (parts.next(), parts.next(), parts.next()) else {
        return;
    };
    match plural {
        "flows" => {
            let flow = ObjectRef::new(name).within(namespace);
            if flows.get(&flow).is_some_and(|it| it.metadata.deletion_timestamp.is_some()) {
                wake.flow(flow);
            }
        }
        "clusters" => {
            let cluster = ObjectRef::new(name).within(namespace);
            if members.clusters.get(&cluster).is_some_and(|it| it.metadata.deletion_timestamp.is_some()) {
                wake.cluster(cluster);
            }
        }
        "instances" => {
            let instance = ObjectRef::new(name).within(namespace);
            if members.instances.get(&instance).is_some_and(|it| it.metadata.deletion_timestamp.is_some()) {
                wake.instance(instance);
            }
        }
        _ => {}
    }
}

/// Starts the scheduler. Whoever led before has its ledgers, and cannot write to them any more.
fn schedule(
    context: &Arc<flow::Context>,
    broker: &Broker,
    changes: wake::Changes,
    wake: &Wake,
    metrics: &Metrics,
    tasks: &mut JoinSet<()>,
) -> anyhow::Result<()> {
    let scheduler = Scheduler {
        flows: context.caches.flows.clone(),
        ticks: Ticks::new(broker.clone(), context.writer.fence().clone()),
        key: context.config.key.clone(),
        clock: clock::Wall::new().context("the system gives no timer")?,
        taken: context.scheduled.clone(),
        metrics: SchedulerMetrics::new(metrics),
    };
    let wake = wake.clone();
    tasks.spawn(scheduler.run(changes, move |flow| wake.flow(flow)));
    Ok(())
}

/// Drives the controllers until `over`.
async fn control(
    calls: Calls,
    context: Arc<flow::Context>,
    runners: RunnerContext,
    platform: Platform,
    metrics: DriveMetrics,
    over: &CancellationToken,
) {
    let for_platform = metrics.clone();
    let running = platform.run(calls.members, &for_platform, over);
    let (flows, namespaces) = (context.caches.flows.clone(), context.caches.namespaces.clone());
    let runners = Arc::new(runners);
    let (known, mut gone) = (context.clone(), UnboundedReceiverStream::new(calls.gone));
    let forgetting = async {
        while let Some(flow) = gone.next().await {
            flow::forget(&flow, &context);
        }
    };
    let driving = async {
        tokio::join!(
            drive(
                "flow",
                AT_A_TIME,
                flows,
                UnboundedReceiverStream::new(calls.flows),
                move |flow| flow::reconcile(flow, known.clone()),
                metrics.clone(),
                over.clone(),
            ),
            drive(
                "runner",
                AT_A_TIME,
                namespaces,
                UnboundedReceiverStream::new(calls.namespaces),
                move |namespace| runner::reconcile(namespace, runners.clone()),
                metrics,
                over.clone(),
            ),
        );
    };
    tokio::select! {
        ((), ()) = async { tokio::join!(driving, running) } => {}
        () = forgetting => {}
    }
}
