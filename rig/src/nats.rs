//! A real nats-server with the settings that Millrace needs.

use std::fs;
use std::path::Path;
use std::time::Duration;

use serde::Deserialize;

use crate::control_plane::GLANCE;
use crate::error::{Doing as _, Result};
use crate::program::Program;
use crate::scratch::Scratch;
use crate::supervisor::{Component, Supervisor};

/// How long the server may take on a busy machine.
const START: Duration = Duration::from_secs(20);

/// A running nats-server with JetStream. It ends, and its streams are removed, when this is dropped or when this
/// process ends, however it ends.
#[derive(Debug)]
pub struct Nats {
    // Dropped first, see `Plane`. None while it is being restarted.
    supervisor: Option<Supervisor>,
    scratch: Scratch,
    disk: Scratch,
    configured: String,
    ports: Ports,
}

/// What the server writes of the ports that it took.
#[derive(Debug, Deserialize)]
struct Ports {
    nats: [String; 1],
    monitoring: [String; 1],
}

impl Nats {
    /// Starts a server on a free port of 127.0.0.1.
    ///
    /// # Errors
    /// The program cannot be built, or the server dies: the error shows the end of its log.
    pub async fn start() -> Result<Self> {
        Self::start_with("").await
    }

    /// Starts a server with more configuration, such as accounts.
    ///
    /// # Errors
    /// As for [`Nats::start`].
    pub async fn start_with(configured: &str) -> Result<Self> {
        let disk = Scratch::new("nats-disk")?;
        let (supervisor, scratch, ports) = launch(disk.path(), configured).await?;
        let configured = configured.to_owned();
        Ok(Self { supervisor: Some(supervisor), scratch, disk, configured, ports })
    }

    /// Kills the server, and starts it again on what is on its disk. Its ports are others, unless they were configured.
    ///
    /// # Errors
    /// As for [`Nats::start`].
    pub async fn restart(&mut self) -> Result<()> {
        self.supervisor = None;
        let (supervisor, scratch, ports) = launch(self.disk.path(), &self.configured).await?;
        (self.supervisor, self.scratch, self.ports) = (Some(supervisor), scratch, ports);
        Ok(())
    }

    /// The address for clients, for example `nats://127.0.0.1:41234`.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.ports.nats[0]
    }

    /// The address of the server's monitoring, for example `http://127.0.0.1:41235`.
    #[must_use]
    pub fn monitoring_url(&self) -> &str {
        &self.ports.monitoring[0]
    }

    /// The folder of its logs; it goes with the server.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.scratch.path()
    }
}

/// Starts the server on a disk, and waits until it answers.
async fn launch(disk: &Path, configured: &str) -> Result<(Supervisor, Scratch, Ports)> {
    let program = Program::get().await?;
    let scratch = Scratch::new("nats")?;
    let home = scratch.path();
    fs::write(home.join("nats.conf"), format!("{}{configured}", configuration(home, disk)))
        .doing("write the configuration of NATS")?;
    let mut supervisor = Supervisor::local(&program.named("supervise"), home, home)?;
    let argv = [program.named("nats-server"), "--config".into(), home.join("nats.conf")];
    supervisor.start(&Component {
        name: "nats-server".into(),
        argv: argv.iter().map(|word| word.display().to_string()).collect(),
        env: Vec::new(),
        dir: home.to_owned(),
        log: home.join("nats-server.log"),
    })?;
    let ports = supervisor.until("the NATS server's start", START, ports_file(home)).await?;
    supervisor.tell_deaths();
    Ok((supervisor, scratch, ports))
}

/// The server syncs before it acknowledges, takes messages of 8 MiB, and refuses requests that it does not understand.
fn configuration(home: &Path, disk: &Path) -> String {
    let (home, disk) = (home.display(), disk.display());
    format!(
        "\
listen: \"127.0.0.1:-1\"
http: \"127.0.0.1:-1\"
ports_file_dir: \"{home}\"
max_payload: 8MB
jetstream {{
  store_dir: \"{disk}/jetstream\"
  sync_interval: always
  strict: true
}}
"
    )
}

/// Waits for the file in which the server says which port it took.
async fn ports_file(home: &Path) -> Result<Ports> {
    loop {
        let files = fs::read_dir(home).into_iter().flatten().flatten().map(|entry| entry.path());
        for file in files.filter(|file| file.extension().is_some_and(|end| end == "ports")) {
            let text = fs::read_to_string(&file).unwrap_or_default();
            // Half a file is no JSON: look again.
            if let Ok(ports) = serde_json::from_str(&text) {
                return Ok(ports);
            }
        }
        tokio::time::sleep(GLANCE).await;
    }
}
