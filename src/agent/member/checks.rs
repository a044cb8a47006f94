//! Whether an application is well: its ports accept connections, and the checks of its cartridge pass.

use std::time::Duration;

use http_body_util::Empty;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use crate::api::container::{HttpGet, Probe};
use crate::broker::member::Setup;

use super::launcher::Launcher;

/// How long a port may take to accept a connection.
const CONNECT: Duration = Duration::from_secs(1);
/// How often ports are checked at first, and for how long.
const SOON: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(30));
/// How often they are checked then.
const PERIOD: Duration = Duration::from_secs(1);

/// What the checks find.
#[derive(Debug)]
pub enum Finding {
    /// All is well, or what is not.
    Checked(Result<(), String>),
    /// A check has failed for good.
    Unwell(String),
}

/// Which checks pass; all must.
#[derive(Clone, Debug, Default)]
struct Sum {
    ports: Option<Result<(), String>>,
    startup: Option<Result<(), String>>,
    readiness: Option<Result<(), String>>,
}

#[derive(Clone, Copy, Debug)]
enum Part {
    Ports,
    Startup,
    Readiness,
}

impl Sum {
    /// The first that does not.
    fn total(&self) -> Result<(), String> {
        let all = [&self.startup, &self.ports, &self.readiness];
        let pending = || Err("its checks have not passed yet".to_owned());
        all.into_iter().try_for_each(|part| part.clone().unwrap_or_else(pending))
    }
}

/// Checks for as long as it is not dropped.
pub async fn run(setup: Setup, ip: String, launcher: Launcher, findings: mpsc::UnboundedSender<Finding>) {
    let (sender, mut results) = mpsc::unbounded_channel::<(Part, Result<(), String>)>();
    let mut tasks = JoinSet::new();
    tasks.spawn(check_ports(setup.ports.clone(), ip.clone(), sender.clone()));
    tasks.spawn(probes(setup, ip, launcher, sender, findings.clone()));
    let (mut sum, mut last) = (Sum::default(), None);
    while let Some((which, result)) = results.recv().await {
        match which {
            Part::Ports => sum.ports = Some(result),
            Part::Startup => sum.startup = Some(result),
            Part::Readiness => sum.readiness = Some(result),
        }
        let total = sum.total();
        if last.as_ref() != Some(&total) {
            last = Some(total.clone());
            if findings.send(Finding::Checked(total)).is_err() {
                return;
            }
        }
    }
}

type Parts = mpsc::UnboundedSender<(Part, Result<(), String>)>;

async fn check_ports(ports: std::collections::BTreeMap<String, u16>, ip: String, found: Parts) {
    let began = Instant::now();
    let mut passed = false;
    loop {
        let mut result = Ok(());
        for (name, port) in &ports {
            if !accepts(&ip, *port).await {
                result = Err(format!(
                    "port '{name}' ({port}) does not accept connections at the pod's address: the application must listen on it, \
                     and on all addresses"
                ));
                break;
            }
        }
        passed |= result.is_ok();
        if found.send((Part::Ports, result)).is_err() || ports.is_empty() {
            return;
        }
        sleep(if !passed && began.elapsed() < SOON.1 { SOON.0 } else { PERIOD }).await;
    }
}

/// Whether a port accepts connections.
pub async fn accepts(ip: &str, port: u16) -> bool {
    matches!(timeout(CONNECT, TcpStream::connect((ip, port))).await, Ok(Ok(_)))
}

/// The startup check first, and once it has passed the two others.
async fn probes(
    setup: Setup,
    ip: String,
    launcher: Launcher,
    parts: Parts,
    findings: mpsc::UnboundedSender<Finding>,
) {
    // Without a launcher they are the kubelet's.
    let probes = if setup.wrapped { setup.probes } else { crate::api::cartridge::Probes::default() };
    if let Some(startup) = &probes.startup {
        let watch = Watch::new(startup, "startup");
        if let Err(why) = watch.until_passed(&ip, &launcher, &parts).await {
            let _ = findings.send(Finding::Unwell(why));
            return;
        }
    }
    let _ = parts.send((Part::Startup, Ok(())));
    let readiness = async {
        match &probes.readiness {
            Some(probe) => Watch::new(probe, "readiness").follow(&ip, &launcher, &parts).await,
            None => drop(parts.send((Part::Readiness, Ok(())))),
        }
    };
    let liveness = async {
        if let Some(probe) = &probes.liveness {
            let why = Watch::new(probe, "liveness").until_failed(&ip, &launcher).await;
            let _ = findings.send(Finding::Unwell(why));
        }
    };
    tokio::join!(readiness, liveness);
}

/// One check, with its counts.
struct Watch<'a> {
    probe: &'a Probe,
    name: &'static str,
}

impl<'a> Watch<'a> {
    const fn new(probe: &'a Probe, name: &'static str) -> Self {
        Self { probe, name }
    }

    fn seconds(of: Option<i32>, otherwise: u64) -> Duration {
        Duration::from_secs(of.and_then(|of| u64::try_from(of).ok()).unwrap_or(otherwise))
    }

    fn times(of: Option<i32>, otherwise: u32) -> u32 {
        of.and_then(|of| u32::try_from(of).ok()).unwrap_or(otherwise)
    }

    async fn delay(&self) {
        sleep(Self::seconds(self.probe.initial_delay_seconds, 0)).await;
    }

    async fn period(&self) {
        sleep(Self::seconds(self.probe.period_seconds, 10)).await;
    }

    async fn once(&self, ip: &str, launcher: &Launcher) -> Result<(), String> {
        let limit = Self::seconds(self.probe.timeout_seconds, 1);
        let done = if let Some(request) = &self.probe.http_get {
            get(ip, request, limit).await
        } else if let Some(socket) = &self.probe.tcp_socket {
            let port = socket.port;
            let open = timeout(limit, TcpStream::connect((ip, port))).await;
            if matches!(open, Ok(Ok(_))) {
                Ok(())
            } else {
                Err(format!("port {port} does not accept connections"))
            }
        } else if let Some(exec) = &self.probe.exec {
            launcher.exec(&exec.command, limit).await
        } else {
            Ok(())
        };
        done.map_err(|why| format!("the check `{}` fails: {why}", self.name))
    }

    async fn until_passed(&self, ip: &str, launcher: &Launcher, parts: &Parts) -> Result<(), String> {
        let most = Self::times(self.probe.failure_threshold, 3);
        self.delay().await;
        let mut failures = 0;
        loop {
            let Err(why) = self.once(ip, launcher).await else { return Ok(()) };
            failures += 1;
            if failures >= most {
                return Err(format!("{why}, {failures} times in a row"));
            }
            let _ = parts.send((Part::Startup, Err(why)));
            self.period().await;
        }
    }

    /// Says whenever it passes or fails often enough.
    async fn follow(&self, ip: &str, launcher: &Launcher, parts: &Parts) {
        let (enough, most) =
            (Self::times(self.probe.success_threshold, 1), Self::times(self.probe.failure_threshold, 3));
        let (mut passed, mut failed, mut was) = (0, 0, false);
        self.delay().await;
        loop {
            let result = self.once(ip, launcher).await;
            (passed, failed) = if result.is_ok() { (passed + 1, 0) } else { (0, failed + 1) };
            // Until it has passed for the first time, each failure is said.
            let say = if was { failed >= most } else { passed >= enough || result.is_err() };
            if say {
                was = result.is_ok();
                if parts.send((Part::Readiness, result)).is_err() {
                    return;
                }
            }
            self.period().await;
        }
    }

    async fn until_failed(&self, ip: &str, launcher: &Launcher) -> String {
        let most = Self::times(self.probe.failure_threshold, 3);
        self.delay().await;
        let mut failures = 0;
        loop {
            match self.once(ip, launcher).await {
                Ok(()) => failures = 0,
                Err(why) => {
                    failures += 1;
                    if failures >= most {
                        return format!("{why}, {failures} times in a row");
                    }
                }
            }
            self.period().await;
        }
    }
}

/// A request to the application; it succeeds with a status from 200 to 399.
///
/// # Errors
/// Why it failed, in words.
pub async fn get(ip: &str, request: &HttpGet, limit: Duration) -> Result<(), String> {
    let (path, port) = (request.path.as_deref().unwrap_or("/"), request.port);
    let what = format!("GET {path} at port {port}");
    let asked = async {
        let stream = TcpStream::connect((ip, port))
            .await
            .map_err(|_| format!("port {port} does not accept connections"))?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| format!("{what}: {error}"))?;
        tokio::spawn(connection);
        let host = if ip.contains(':') { format!("[{ip}]:{port}") } else { format!("{ip}:{port}") };
        let request = http::Request::get(path)
            .header("host", host)
            .header("connection", "close")
            .header("user-agent", "millrace-agent")
            .body(Empty::<bytes::Bytes>::new())
            .map_err(|error| format!("{what}: {error}"))?;
        let answer = sender.send_request(request).await.map_err(|error| format!("{what}: {error}"))?;
        let status = answer.status();
        if status.is_success() || status.is_redirection() {
            Ok(())
        } else {
            Err(format!("{what} is answered with {}", status.as_u16()))
        }
    };
    timeout(limit, asked)
        .await
        .unwrap_or_else(|_| Err(format!("no answer to {what} within {} s", limit.as_secs())))
}
