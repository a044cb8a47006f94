//! The start of a node, step by step.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::network::{self, Slot};
use super::{HOME, Memory, NAME, Node, STEP, absent_is_fine, cgroup, components, config, objects};
use crate::control_plane::{self, ControlPlane, GLANCE};
use crate::error::{Doing as _, Result};
use crate::image::Image;
use crate::program::Program;
use crate::supervisor::Supervisor;
use crate::tools;

impl Node {
    pub(super) async fn start(&self, program: &Program) -> Result<()> {
        self.make_folders(program)?;
        load_modules();
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
        folders.extend(
            ["programs", "cni", "imported", "storage", "var-lib", "var-log"]
                .map(|name| self.state().join(name)),
        );
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
        while self.ctr(&["version"]).await.is_err() {
            tokio::time::sleep(GLANCE).await;
        }
        for file in files.iter().filter(|file| self.is_news(file)) {
            self.import(file).await?;
        }
        Ok(())
    }

    /// Whether the kept state does not hold an image yet, or an older one.
    fn is_news(&self, file: &Path) -> bool {
        let changed = |path: &Path| path.metadata().and_then(|metadata| metadata.modified()).ok();
        changed(file) >= changed(&self.imported(file))
    }

    /// The file whose time says when an image was imported.
    fn imported(&self, file: &Path) -> PathBuf {
        self.state().join("imported").join(file.file_name().unwrap_or_default())
    }

    pub(super) async fn import(&self, file: &Path) -> Result<()> {
        let seen =
            file.strip_prefix(&self.folder).map_or(file.to_owned(), |below| Path::new(HOME).join(below));
        self.ctr(&["--namespace=k8s.io", "images", "import", &seen.display().to_string()]).await?;
        fs::write(self.imported(file), "").doing("note that an image was imported")
    }

    /// Runs the command of the container runtime inside the node.
    async fn ctr(&self, words: &[&str]) -> Result<()> {
        let process = self.memory().map_or(0, |memory| memory.process).to_string();
        let mut command = tokio::process::Command::new("nsenter");
        command
            .args(["--target", &process, "--mount", "--net", "--uts", "--ipc", "--pid"])
            .args(["ctr", "--address", "/run/containerd.sock"])
            .args(words)
            .env("PATH", tools::PATH)
            // Ctrl-C is for `rig` to hear and to act on; this ends with it.
            .process_group(0)
            .kill_on_drop(true);
        let done = command.output().await.doing("run nsenter")?;
        tools::succeeded(command.as_std(), done).map(drop)
    }
}

/// Has the kernel load what a node needs of it and cannot load from inside: layers of files, and packet filters that see
/// what a bridge passes on. A kernel without modules has them built in or has not got them; the components will say so.
fn load_modules() {
    let _ = tools::run(Command::new("modprobe").args(["-a", "overlay", "br_netfilter", "nf_conntrack"]));
}

fn link(to: &Path, at: &Path) -> Result<()> {
    fs::remove_file(at).or_else(absent_is_fine).doing(format!("remove {}", at.display()))?;
    std::os::unix::fs::symlink(to, at).doing(format!("make the link {}", at.display()))
}
