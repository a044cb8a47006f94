//! A node: everything a Kubernetes is, in namespaces of its own, with real pods. Needs root.

mod cgroup;
mod components;
mod config;
mod network;
mod objects;

use std::fs::{self, File};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use crate::control_plane::{self, ControlPlane, GLANCE};
use crate::error::{Doing as _, Error, Result};
use crate::image::Image;
use crate::program::Program;
use crate::supervisor::{self, Event, Supervisor};
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
        if status.whole() && self.memory().is_some_and(|memory| memory.programs == program.folder()) {
            return Ok(Up::Already);
        }
        if let Some((name, _, Some(why))) = status.components.iter().find(|(_, _, ended)| ended.is_some()) {
            eprintln!("rig: {name} had died ({why}); starting the node again with its state");
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

    async fn start(&self, program: &Program) -> Result<()> {
        self.make_folders(program)?;
        let mut command = Command::new(program.named("node"));
        let folder = fs::canonicalize(&self.folder).doing("find the node's folder")?;
        command.arg(&folder).arg(program.folder()).env("PATH", tools::PATH);
        let mut supervisor = Supervisor::spawn(command, &self.logs())?;
        let process = supervisor.launched().await?;
        let slot = network::connect(process, self.memory().map(|memory| memory.slot), &self.mark())?;
        self.remember(&Memory { slot, process, programs: program.folder().to_owned() })?;
        cgroup::remove(&slot.cgroup())?;
        cgroup::make(&slot.cgroup())?;
        config::write(&self.state(), slot)?;
        let plane = components::plane(slot);
        plane.credentials(&self.state(), Some(NAME))?;
        self.start_components(&plane, slot, &mut supervisor, program).await?;
        fs::copy(self.state().join("admin.kubeconfig"), self.kubeconfig()).doing("write the kubeconfig")?;
        supervisor.settle().await
    }

    async fn start_components(
        &self,
        plane: &ControlPlane,
        slot: Slot,
        supervisor: &mut Supervisor,
        program: &Program,
    ) -> Result<()> {
        supervisor.start(&plane.etcd())?;
        supervisor.start(&plane.apiserver(&components::APISERVER_OPTIONS))?;
        supervisor.start(&components::containerd(plane))?;
        let images = self.import_all(program);
        supervisor.until("the import of the images", STEP, images).await?;
        let client = control_plane::client(&self.state().join("admin.kubeconfig")).await?;
        supervisor.until("the API server's start", STEP, control_plane::api_ready(&client)).await?;
        supervisor.start(&plane.controllers(&[
            &format!("--cluster-cidr={}", slot.pods()),
            "--allocate-node-cidrs=true",
            "--node-cidr-mask-size=22",
        ]))?;
        for component in components::of_the_node(plane, slot) {
            supervisor.start(&component)?;
        }
        supervisor.until("the first objects", STEP, objects::apply(&client, slot)).await?;
        let ready = objects::ready(&client);
        supervisor.until("the node's readiness", STEP, ready).await?;
        let names = control_plane::answers(slot.node(), 8181, "/ready");
        supervisor.until("the readiness of the cluster's names", STEP, names).await?;
        let services = control_plane::answers(slot.node(), 10256, "/healthz");
        supervisor.until("the readiness of the services' addresses", STEP, services).await
    }

    fn make_folders(&self, program: &Program) -> Result<()> {
        let mut folders = vec![self.logs(), self.folder.join("images")];
        folders
            .extend(["programs", "cni", "storage", "var-lib", "var-log"].map(|name| self.state().join(name)));
        for folder in folders {
            fs::create_dir_all(&folder).doing(format!("make the folder {}", folder.display()))?;
        }
        // Each start has its own logs; the last one's are kept beside them.
        for entry in fs::read_dir(self.logs()).into_iter().flatten().flatten() {
            if entry.path().extension().is_some_and(|end| end == "log") {
                let _ = fs::rename(entry.path(), entry.path().with_extension("log.previous"));
            }
        }
        link(program.folder(), &self.folder.join("bin"))
    }

    /// Imports every image tar of the folder that the kept state does not hold yet, and the sandbox's own.
    async fn import_all(&self, program: &Program) -> Result<()> {
        let pause =
            Image::new("rig.local/pause:1").add(program.named("pause"), "/pause").entrypoint(["/pause"]);
        let file = self.folder.join("images").join(pause.file_name());
        if !file.exists() {
            pause.write(&file)?;
        }
        let entries = fs::read_dir(self.folder.join("images")).doing("read the folder of the images")?;
        let mut files: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
        files.retain(|file| file.extension().is_some_and(|end| end == "tar"));
        files.sort();
        while self
            .inside(&["ctr", "--address", "/run/containerd.sock", "version"])
            .output()
            .is_ok_and(|o| !o.status.success())
        {
            tokio::time::sleep(GLANCE).await;
        }
        files.iter().try_for_each(|file| self.import(file))
    }

    fn import(&self, file: &Path) -> Result<()> {
        let seen =
            file.strip_prefix(&self.folder).map_or(file.to_owned(), |below| Path::new(HOME).join(below));
        let ctr = ["ctr", "--address", "/run/containerd.sock", "--namespace", "k8s.io", "images", "import"];
        tools::run(self.inside(&ctr).arg(seen))
    }

    /// A command that runs inside the node.
    fn inside(&self, words: &[&str]) -> Command {
        let process = self.memory().map_or(0, |memory| memory.process).to_string();
        let mut command = Command::new("nsenter");
        command.args(["--target", &process, "--mount", "--net", "--uts", "--ipc", "--pid"]).args(words);
        command.env("PATH", tools::PATH);
        command
    }

    /// Ends the node's processes and removes what the kernel does not remove with them.
    fn stop(&self) -> Result<()> {
        let Some(memory) = self.memory() else { return Ok(()) };
        if self.alive() {
            let process = Pid::from_raw(i32::try_from(memory.process).unwrap_or_default());
            kill(process, Signal::SIGKILL).or_else(gone_is_fine).doing("end the node's first process")?;
        }
        while self.alive() || !ended(memory.process) {
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

    /// By this mark a node knows its link from others'.
    fn mark(&self) -> String {
        format!("rig {}", self.folder.display())
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

fn link(to: &Path, at: &Path) -> Result<()> {
    fs::remove_file(at).or_else(absent_is_fine).doing(format!("remove {}", at.display()))?;
    std::os::unix::fs::symlink(to, at).doing(format!("make the link {}", at.display()))
}

fn absent_is_fine(error: std::io::Error) -> std::io::Result<()> {
    if error.kind() == std::io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}

fn gone_is_fine(error: nix::Error) -> nix::Result<()> {
    if error == nix::Error::ESRCH { Ok(()) } else { Err(error) }
}
