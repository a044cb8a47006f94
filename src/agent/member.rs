//! The agent of an Instance: lets its application start, tells it of its imports, looks whether it is well, and lets it end in
//! peace.
//!
//! ```text
//!   state     what is decided, pure           desired   what the operator wants
//!   launcher  who starts the application      report    what the operator is to know
//!   checks    whether it is well              files     what it reads
//!   hooks     what runs when its life takes a turn
//! ```
//! It holds no Kubernetes credentials, and needs neither the operator nor the broker for what runs.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use clap::Args;
use launch::wire::Order;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::admin::{self, Gate, Health};
use crate::api::name::{InstanceName, NamespaceName};
use crate::broker::member::{MemberReport, MemberWork, SOCKET, Secrets, Setup};
use crate::broker::seal::SealKey;
use crate::broker::{self, BrokerArgs, subject};
use crate::metrics::Metrics;

mod checks;
mod desired;
mod files;
mod hooks;
mod launcher;
mod report;
mod state;

use checks::Finding;
use hooks::Turn;
use launcher::{Heard, Launcher};
use state::{Deed, Input, State};

/// The pause before files that could not be written are written again.
const AGAIN: Duration = Duration::from_secs(5);

/// The options of `millrace member`.
#[derive(Clone, Debug, Args)]
pub struct MemberArgs {
    #[command(flatten)]
    broker: BrokerArgs,
    /// Namespace of the Instance
    #[arg(long, env = "MILLRACE_NAMESPACE", value_name = "NAME")]
    namespace: NamespaceName,
    /// Name of the Instance
    #[arg(long, env = "MILLRACE_INSTANCE", value_name = "NAME")]
    instance: InstanceName,
    /// What the application is like, as JSON
    #[arg(long, env = "MILLRACE_MEMBER", value_name = "JSON")]
    member: String,
    /// The uid of this pod
    #[arg(long, env = "POD_UID", value_name = "UID")]
    pod: String,
    /// The address of this pod
    #[arg(long, env = "POD_IP", value_name = "ADDRESS")]
    ip: String,
    /// File with the key of what is sealed for this Instance
    #[arg(long, env = "MILLRACE_SEAL_KEY", value_name = "FILE")]
    seal_key: PathBuf,
    /// Folder that the application sees too
    #[arg(long, env = "MILLRACE_RUN_DIR", value_name = "DIR", default_value = broker::member::RUN_DIR)]
    run_dir: PathBuf,
    /// Address for /livez, /readyz, /metrics, /gate and /application/…
    #[arg(long, env = "MILLRACE_LISTEN", value_name = "ADDRESS", default_value = "0.0.0.0:8687")]
    listen: SocketAddr,
}

/// What is asked over HTTP.
#[allow(clippy::struct_excessive_bools, reason = "each is an answer of its own")]
#[derive(Clone, Copy, Debug, Default)]
struct Face {
    gate: bool,
    serving: bool,
    /// It has served before.
    served: bool,
    farewell: bool,
}

/// Runs until it is told to stop.
///
/// # Errors
/// What makes it impossible to go on.
pub async fn run(args: MemberArgs) -> anyhow::Result<()> {
    let setup: Setup =
        serde_json::from_str(&args.member).context("MILLRACE_MEMBER is no description of an application")?;
    let mut terminate = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
    let (health, metrics) = (Health::default(), Metrics::default());
    let work = health.gate("work");
    work.close("the operator was not heard of yet");
    let key = subject::instance_key(&args.namespace, &args.instance);
    let inbox = subject::instance_inbox(&args.namespace, &args.instance);
    let name = format!("millrace-member {}/{}", args.namespace, args.instance);
    let broker = broker::connect(&args.broker, &name, Some(&inbox)).await?;
    let (works_in, works) = mpsc::unbounded_channel();
    let (reports, reports_out) = watch::channel(None);
    let (face, seen) = watch::channel(Face::default());
    let (endings_in, endings) = mpsc::unbounded_channel();
    tokio::spawn(desired::follow(broker.clone(), key.clone(), works_in));
    let publishing = tokio::spawn(report::publish(broker, key, reports_out));
    let (launcher, (heard_in, heard)) = (Launcher::default(), mpsc::unbounded_channel());
    if setup.wrapped {
        let socket = args.run_dir.join(SOCKET);
        launcher
            .listen(&socket, heard_in)
            .with_context(|| format!("cannot listen at {}", socket.display()))?;
    }
    let router = admin::router(health, metrics).merge(router(seen, endings_in));
    let stop = CancellationToken::new();
    let server = tokio::spawn(admin::serve(args.listen, router, stop.clone()));
    let agent = Agent {
        state: State::new(setup.clone(), args.pod),
        setup,
        launcher,
        folder: args.run_dir,
        ip: args.ip,
        seal_key: args.seal_key,
        reports,
        face,
        ready: work,
        checking: None,
        hooks: mpsc::unbounded_channel(),
        findings: mpsc::unbounded_channel(),
    };
    let sources = Sources { works, heard, endings };
    tokio::select! {
        ended = server => return ended.context("the server ended")?,
        () = agent.live(sources) => {}
        _ = terminate.recv() => {}
    }
    // The application's container has ended before: the last report has been given to the one who publishes.
    let _ = tokio::time::timeout(Duration::from_millis(500), publishing).await;
    stop.cancel();
    Ok(())
}

/// `/gate`, `/application/ready` and `/application/stop`.
fn router(face: watch::Receiver<Face>, endings: mpsc::UnboundedSender<()>) -> Router {
    let (gate, ready) = (face.clone(), face.clone());
    let stop = move || {
        let (mut face, endings) = (face.clone(), endings.clone());
        async move {
            let _ = endings.send(());
            let _ = face.wait_for(|face| face.farewell).await;
            StatusCode::OK
        }
    };
    Router::new()
        .route("/gate", get(move || std::future::ready(status(gate.borrow().gate))))
        .route("/application/ready", get(move || is_ready(ready.clone())))
        .route("/application/stop", get(stop))
}

/// Whether the application serves. The first answer waits for it, but not for longer than the kubelet does: told no, that asks
/// again a while later.
async fn is_ready(mut face: watch::Receiver<Face>) -> StatusCode {
    const FIRST: Duration = Duration::from_millis(1500);
    if !face.borrow().served {
        let _ = tokio::time::timeout(FIRST, face.wait_for(|face| face.serving)).await;
    }
    let serving = face.borrow().serving;
    status(serving)
}

const fn status(ok: bool) -> StatusCode {
    if ok { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}

/// All that an agent hears of from elsewhere.
struct Sources {
    works: mpsc::UnboundedReceiver<MemberWork>,
    heard: mpsc::UnboundedReceiver<Heard>,
    endings: mpsc::UnboundedReceiver<()>,
}

type Channel<T> = (mpsc::UnboundedSender<T>, mpsc::UnboundedReceiver<T>);

struct Agent {
    state: State,
    setup: Setup,
    launcher: Launcher,
    folder: PathBuf,
    ip: String,
    seal_key: PathBuf,
    reports: watch::Sender<Option<MemberReport>>,
    face: watch::Sender<Face>,
    ready: Gate,
    checking: Option<AbortOnDropHandle<()>>,
    hooks: Channel<(Turn, Result<(), String>)>,
    findings: Channel<Finding>,
}

impl Agent {
    async fn live(mut self, mut sources: Sources) {
        let mut rewrite: Option<Instant> = None;
        self.say();
        loop {
            let next = self.state.next();
            let input = tokio::select! {
                Some(work) = sources.works.recv() => Input::Work(work),
                Some(heard) = sources.heard.recv() => match heard {
                    Heard::News(news) => Input::News(news),
                    Heard::Lost => Input::LauncherLost,
                },
                Some(()) = sources.endings.recv() => Input::Ending,
                Some((turn, result)) = self.hooks.1.recv() => Input::Hook(turn, result),
                Some(finding) = self.findings.1.recv() => match finding {
                    Finding::Checked(result) => Input::Checked(result),
                    Finding::Unwell(why) => Input::Unwell(why),
                },
                () = until(next) => Input::Time,
                () = until(rewrite) => {
                    rewrite = None;
                    self.state.retry_files();
                    Input::Time
                }
            };
            let mut inputs = vec![input];
            while let Some(input) = inputs.pop() {
                for deed in self.state.hear(input, Instant::now()) {
                    if let Some(input) = self.act(deed) {
                        if matches!(input, Input::NotWritten(_)) {
                            rewrite = Some(Instant::now() + AGAIN);
                        }
                        inputs.push(input);
                    }
                }
            }
            self.say();
        }
    }

    /// Does what is to be done; what is done at once is what has happened next.
    fn act(&mut self, deed: Deed) -> Option<Input> {
        match deed {
            Deed::Write(work) => return Some(self.write(&work)),
            Deed::Start => {
                let variables = self.state.work().map(files::variables).unwrap_or_default();
                let pairs = variables.into_iter().map(|(name, value)| format!("{name}={value}")).collect();
                self.launcher.order(Order::Start(pairs));
            }
            Deed::Stop(grace) => {
                self.launcher.order(Order::Stop(u64::try_from(grace.as_millis()).unwrap_or(u64::MAX)));
            }
            Deed::Fail(why) => self.launcher.order(Order::Fail(why)),
            Deed::Hook(turn) => self.run_hook(turn),
            Deed::Check(true) => {
                let findings = self.findings.0.clone();
                let checks =
                    checks::run(self.setup.clone(), self.ip.clone(), self.launcher.clone(), findings);
                self.checking = Some(AbortOnDropHandle::new(tokio::spawn(checks)));
            }
            Deed::Check(false) => {
                self.checking = None;
                // What was found before is of the application that was.
                while self.findings.1.try_recv().is_ok() {}
            }
        }
        None
    }

    fn write(&self, work: &MemberWork) -> Input {
        let secrets = match self.opened(work) {
            Ok(secrets) => secrets,
            Err(error) => return Input::NotWritten(format!("{error:#}")),
        };
        match files::write(&self.folder, work, &secrets) {
            Ok(()) => Input::Written(work.revision.clone()),
            Err(error) => Input::NotWritten(error.to_string()),
        }
    }

    /// The secret values of a work.
    fn opened(&self, work: &MemberWork) -> anyhow::Result<Secrets> {
        let Some(sealed) = &work.secrets else { return Ok(Secrets::new()) };
        let key = std::fs::read_to_string(&self.seal_key).context("the seal key cannot be read")?;
        Ok(serde_json::from_slice(&SealKey::parse(&key)?.open(sealed)?)?)
    }

    fn run_hook(&self, turn: Turn) {
        let (setup, launcher, ip) = (self.setup.clone(), self.launcher.clone(), self.ip.clone());
        let done = self.hooks.0.clone();
        tokio::spawn(async move {
            let result = hooks::run(&turn, &setup.lifecycle, &launcher, &ip).await;
            if let Err(why) = &result {
                tracing::warn!(?turn, why, "A hook has failed");
            }
            let _ = done.send((turn, result));
        });
    }

    /// Tells the operator and the kubelet how it is, where that has changed.
    fn say(&self) {
        if self.state.has_work() {
            self.ready.open();
        }
        let report = self.state.report();
        self.reports.send_if_modified(|before| {
            let changed = before.as_ref() != Some(&report);
            if changed {
                tracing::info!(stage = ?report.stage, starts = report.starts, problem = report.problem, "The application");
                *before = Some(report.clone());
            }
            changed
        });
        let serving = self.state.is_serving();
        let face = Face {
            gate: self.state.gate_is_open(),
            serving,
            served: self.face.borrow().served || serving,
            farewell: self.state.has_said_farewell(),
        };
        self.face.send_replace(face);
    }
}

/// Waits for a time, or for ever.
async fn until(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}
