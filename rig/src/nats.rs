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
    // Dropped first, see `Plane`.
    _supervisor: Supervisor,
    scratch: Scratch,
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
        let program = Program::get().await?;
        let scratch = Scratch::new("nats")?;
        let home = scratch.path();
        let all = format!("{}{configured}", configuration(home));
        fs::write(home.join("nats.conf"), all).doing("write the configuration of NATS")?;
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
        Ok(Self { _supervisor: supervisor, scratch, ports })
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

    /// The folder of streams and logs; it goes with the server.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.scratch.path()
    }
}

/// The server syncs before it acknowledges, takes messages of 8 MiB, and refuses requests that it does not understand.
fn configuration(home: &Path) -> String {
    let home = home.display();
    format!(
        "\
listen: \"127.0.0.1:-1\"
http: \"127.0.0.1:-1\"
ports_file_dir: \"{home}\"
max_payload: 8MB
jetstream {{
  store_dir: \"{home}/jetstream\"
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
