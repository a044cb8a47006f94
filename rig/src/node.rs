//! A node: everything a Kubernetes is, in namespaces of its own, with real pods. Needs root.

mod cgroup;
mod components;
mod config;
mod network;
mod objects;
mod start;

use std::fs::{self, File};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use crate::control_plane;
use crate::error::{Doing as _, Error, Result};
use crate::image::Image;
use crate::program::Program;
use crate::supervisor::{self, Event};
use crate::tools;
use network::Slot;

/// The node's name.
pub(crate) const NAME: &str = "rig";

/// The domain of the services' names.
const DOMAIN: &str = "cluster.local";

/// Where everything inside the node finds the node's folder; `node.go` mounts it there.
const HOME: &str = "/run/rig";

/// How long a step of the start may take on a busy machine.
const STEP: Duration = Duration::from_secs(90);

/// How long the kernel may take to end a node's processes.
const END: Duration = Duration::from_secs(30);

/// A node and its folder, running or not.
#[derive(Clone, Debug)]
pub struct Node {
    folder: PathBuf,
}

/// What is remembered of a node while it runs, and of its addresses for as long as there is state.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Memory {
    slot: Slot,
    /// The node's first process, as the host counts.
    process: u32,
    /// The built program's folder.
    programs: PathBuf,
}

/// What [`Node::up`] did.
#[derive(Debug)]
pub enum Up {
    /// It was running already, and is whole.
    Already,
    /// It was started, with what it held before or empty.
    Started {
        /// How long it took.
        took: Duration,
        /// Whether it resumed a stopped state.
        resumed: bool,
    },
}

/// How a node is.
#[derive(Debug)]
pub struct Status {
    /// Whether its first process lives and its start was completed.
    pub running: bool,
    /// Each component that was started: its name, its process inside the node, and how it ended if it did.
    pub components: Vec<(String, u32, Option<String>)>,
}

impl Status {
    /// Whether the node runs and lacks no component.
    #[must_use]
    pub fn whole(&self) -> bool {
        self.running && self.components.iter().all(|(_, _, ended)| ended.is_none())
    }
}

impl Node {
    /// The node whose state is in this folder.
    #[must_use]
    pub fn at(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into() }
    }

    /// The node's folder: `bin`, `kubeconfig`, `log`, `images`, and its state in `node`.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The kubeconfig of an administrator, there while the node runs.
    #[must_use]
    pub fn kubeconfig(&self) -> PathBuf {
        self.folder.join("kubeconfig")
    }

    /// The folder of the logs.
    #[must_use]
    pub fn logs(&self) -> PathBuf {
        self.folder.join("log")
    }

    /// The node's address on the host: the API server, node ports, and the resolver of `*.svc.cluster.local`.
    #[must_use]
    pub fn address(&self) -> Option<Ipv4Addr> {
        self.memory().map(|memory| memory.slot.node())
    }

    /// A client with an administrator's rights.
    ///
    /// # Errors
    /// The node is not up.
    pub async fn client(&self) -> Result<kube::Client> {
        control_plane::client(&self.kubeconfig()).await
    }

    /// Starts the node, or does nothing where it runs and is whole. A wounded or half-started one is started again,
    /// with its state.
    ///
    /// # Errors
    /// Something is missing on this machine, or a component dies: the error says which and shows the end of its log.
    pub async fn up(&self, program: &Program) -> Result<Up> {
        let began = Instant::now();
        let _turn = self.take_turn()?;
        let status = self.status();
        let same_program = self.memory().is_some_and(|memory| memory.programs == program.folder());
        if status.whole() && same_program {
            return Ok(Up::Already);
        }
        if let Some((name, _, Some(why))) = status.components.iter().find(|(_, _, ended)| ended.is_some()) {
            eprintln!("rig: {name} had died ({why}); starting the node again with its state");
        } else if status.running {
            eprintln!("rig: Kubernetes was built anew; starting the node again with its state");
        }
        self.stop()?;
        tools::ensure()?;
        let resumed = self.state().join("etcd").is_dir();
        let started = self.start(program).await;
        if started.is_err() {
            // The supervisor has lost its leash and is going; nothing half-started stays.
            self.stop()?;
        }
        started.map(|()| Up::Started { took: began.elapsed(), resumed })
    }

    /// Ends the node: no process, mount, link, packet filter rule or control group is left. Its state stays, to be
    /// resumed, unless `forget` asks for its removal.
    ///
    /// # Errors
    /// A part of it cannot be removed; the error says which.
    pub fn down(&self, forget: bool) -> Result<bool> {
        let _turn = self.take_turn()?;
        let was_up = self.status().running;
        self.stop()?;
        if forget && self.folder.is_dir() {
            for part in ["node", "log", "images", "bin"] {
                let path = self.folder.join(part);
                let gone = if path.is_symlink() { fs::remove_file(&path) } else { fs::remove_dir_all(&path) };
                gone.or_else(absent_is_fine).doing(format!("remove {}", path.display()))?;
            }
        }
        Ok(was_up)
    }

    /// How the node is.
    #[must_use]
    pub fn status(&self) -> Status {
        let (settled, events) = supervisor::read_record(&self.record());
        let alive = self.alive();
        let mut components: Vec<_> = events
            .into_iter()
            .map(|(name, event)| {
                let ended = match event {
                    Event { died: Some(_), why, .. } => Some(why),
                    _ if !alive => Some("the node ended".to_owned()),
                    _ => None,
                };
                (name, event.pid, ended)
            })
            .collect();
        components.sort();
        Status { running: alive && settled, components }
    }

    /// Makes an image known to the node, now where it runs, otherwise at its next start.
    ///
    /// # Errors
    /// The node does not take the image.
    pub fn add_image(&self, image: &Image) -> Result<bool> {
        let folder = self.folder.join("images");
        fs::create_dir_all(&folder).doing(format!("make the folder {}", folder.display()))?;
        let file = folder.join(image.file_name());
        image.write(&file)?;
        let running = self.status().running;
        if running {
            self.import(&file)?;
        }
        Ok(running)
    }

    /// Ends the node's processes and removes what the kernel does not remove with them.
    fn stop(&self) -> Result<()> {
        let Some(memory) = self.memory() else { return Ok(()) };
        let process = Pid::from_raw(i32::try_from(memory.process).unwrap_or_default());
        // A number that is not the node's any more may be anybody's.
        if self.alive() && !ended(memory.process) {
            kill(process, Signal::SIGKILL).or_else(gone_is_fine).doing("end the node's first process")?;
        }
        let patience = Instant::now() + END;
        while self.alive() || !ended(memory.process) {
            if Instant::now() > patience {
                return Err(Error::Needs(format!(
                    "the node's first process, {process}, does not end: see `ps -p {process} -l`"
                )));
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        cgroup::remove(&memory.slot.cgroup())?;
        network::disconnect(memory.slot, &self.mark())?;
        for file in [self.record(), self.kubeconfig()] {
            fs::remove_file(&file).or_else(absent_is_fine).doing(format!("remove {}", file.display()))?;
        }
        Ok(())
    }

    /// Whether the node's first process lives: it holds the lock of its record as long as it does.
    fn alive(&self) -> bool {
        File::open(self.record()).is_ok_and(|record| record.try_lock().is_err())
    }

    /// One command at a time changes a node.
    fn take_turn(&self) -> Result<File> {
        if !nix::unistd::geteuid().is_root() {
            return Err(Error::Needs("a node needs root: run `rig` with sudo".into()));
        }
        fs::create_dir_all(&self.folder).doing(format!("make the folder {}", self.folder.display()))?;
        let lock = File::create(self.folder.join("lock")).doing("make the node's lock")?;
        if lock.try_lock().is_err() {
            eprintln!("rig: waiting for another `rig` that changes this node");
            lock.lock().doing("wait for another `rig`")?;
        }
        Ok(lock)
    }

    fn state(&self) -> PathBuf {
        self.folder.join("node")
    }

    fn record(&self) -> PathBuf {
        self.state().join("record")
    }

    /// By this mark a node knows its link from others'. The kernel takes 255 bytes of it.
    fn mark(&self) -> String {
        let folder = self.folder.display().to_string();
        let end: String = folder.chars().rev().take(60).collect();
        format!("rig {}", end.chars().rev().collect::<String>())
    }

    fn memory(&self) -> Option<Memory> {
        serde_json::from_str(&fs::read_to_string(self.state().join("memory.json")).ok()?).ok()
    }

    fn remember(&self, memory: &Memory) -> Result<()> {
        let text = serde_json::to_string(memory).unwrap_or_default();
        fs::write(self.state().join("memory.json"), text).doing("remember the node's addresses")
    }
}

/// Whether a node's first process has ended, and with it all others of its pid namespace.
fn ended(process: u32) -> bool {
    let folder = PathBuf::from(format!("/proc/{process}"));
    let stat = fs::read_to_string(folder.join("stat")).unwrap_or_default();
    let Some((_, state)) = stat.rsplit_once(") ") else { return true };
    // The namespace's other processes end before the last thread does, which need not be the first.
    let threads = fs::read_dir(folder.join("task")).map_or(0, Iterator::count);
    let namespace = |folder: &Path| fs::read_link(folder.join("ns/pid")).ok();
    // The kernel may have given the number to another process since; that one shares our namespace.
    state.starts_with(['Z', 'X']) && threads <= 1 || namespace(&folder) == namespace(Path::new("/proc/self"))
}

fn absent_is_fine(error: std::io::Error) -> std::io::Result<()> {
    if error.kind() == std::io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}

fn gone_is_fine(error: nix::Error) -> nix::Result<()> {
    if error == nix::Error::ESRCH { Ok(()) } else { Err(error) }
}
