//! The one program that is every component, built once from `rig/kubernetes/` and kept in the user's cache.

use std::fs::{self, File};
use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Command;

use crate::control_plane::GLANCE;
use crate::error::{Doing as _, Error, Result};

/// The Kubernetes that is built. `go.mod` pins the modules; this is what the components say of themselves.
pub const KUBERNETES_VERSION: &str = "1.35.4";

/// The names that the program is called by.
const NAMES: [&str; 14] = [
    "coredns",
    "etcd",
    "helm",
    "kstatus",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-proxy",
    "kube-scheduler",
    "kubectl",
    "kubelet",
    "nats-server",
    "node",
    "storage-provisioner",
    "supervise",
];

/// Builds that nobody used for so long are removed.
const KEEP: Duration = Duration::from_secs(14 * 24 * 3600);

/// The built program.
#[derive(Clone, Debug)]
pub struct Program {
    folder: PathBuf,
}

impl Program {
    /// The program of these sources, built now if nobody did before.
    ///
    /// # Errors
    /// Go is missing or too old, or the build fails; the message says what to do.
    pub async fn get() -> Result<Self> {
        let (sources, cache) = (sources(), cache_folder()?);
        let program = Self { folder: cache.join(key(&sources)?) };
        if program.folder.is_dir() {
            program.used();
            return Ok(program);
        }
        fs::create_dir_all(&cache).doing(format!("make the folder {}", cache.display()))?;
        let _turn = take_turn(&cache).await?;
        if !program.folder.is_dir() {
            sweep(&cache);
            build(&sources, &cache, &program.folder).await?;
        }
        Ok(program)
    }

    /// A program that was built before, by its folder.
    #[must_use]
    pub fn at(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// The folder with one entry for each name the program is called by: put it on the `PATH`.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The path by which to call one component; `pause` and `probe`, which pods run, are there too.
    #[must_use]
    pub fn named(&self, component: &str) -> PathBuf {
        self.folder.join(component)
    }

    /// The time of the last use decides what is swept away.
    #[allow(clippy::disallowed_methods, reason = "the time of a file is the file system's business")]
    fn used(&self) {
        let _ = File::open(&self.folder).and_then(|folder| folder.set_modified(std::time::SystemTime::now()));
    }
}

/// One process at a time builds.
async fn take_turn(cache: &Path) -> Result<File> {
    let lock = File::create(cache.join(".lock")).doing(format!("make a file in {}", cache.display()))?;
    if lock.try_lock().is_err() {
        eprintln!("rig: waiting for another process that builds Kubernetes");
        while lock.try_lock().is_err() {
            tokio::time::sleep(GLANCE).await;
        }
    }
    Ok(lock)
}

/// Where the Go module is. The rig is never shipped, so it is where it was compiled from.
fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("kubernetes")
}

fn cache_folder() -> Result<PathBuf> {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    set("XDG_CACHE_HOME")
        .or_else(|| set("HOME").map(|home| home.join(".cache")))
        .map(|cache| cache.join("millrace/rig"))
        .ok_or_else(|| Error::Needs("set HOME or XDG_CACHE_HOME: the built Kubernetes is kept there".into()))
}

/// A name for a build that changes with all that goes into it.
fn key(sources: &Path) -> Result<String> {
    let mut files = Vec::new();
    for folder in [sources.to_owned(), sources.join("pause"), sources.join("probe")] {
        let entries = fs::read_dir(&folder).doing(format!("read the folder {}", folder.display()))?;
        files.extend(entries.flatten().map(|entry| entry.path()).filter(|path| path.is_file()));
    }
    files.sort();
    let mut hash = Sha256::new();
    for file in files {
        let content = fs::read(&file).doing(format!("read {}", file.display()))?;
        hash.update(file.file_name().unwrap_or_default().as_encoded_bytes());
        hash.update((content.len() as u64).to_le_bytes());
        hash.update(content);
    }
    hash.update(link_flags());
    hash.update(NAMES.join(" "));
    Ok(format!("{KUBERNETES_VERSION}-{}", &data_encoding::HEXLOWER.encode(&hash.finalize())[..16]))
}

/// Without these the components misreport their version, and refuse each other because of it.
fn link_flags() -> String {
    let (major, minor) = KUBERNETES_VERSION.split_once('.').unwrap_or((KUBERNETES_VERSION, "0"));
    let minor = minor.split('.').next().unwrap_or(minor);
    ["k8s.io/component-base/version", "k8s.io/client-go/pkg/version"].map(|package| {
        format!("-X {package}.gitVersion=v{KUBERNETES_VERSION} -X {package}.gitMajor={major} -X {package}.gitMinor={minor}")
    }).join(" ") + " -s -w"
}

async fn build(sources: &Path, cache: &Path, to: &Path) -> Result<()> {
    let started = Instant::now();
    eprintln!(
        "rig: building Kubernetes {KUBERNETES_VERSION}, once; it takes up to 10 minutes on two cores, less where Go has built parts of it before"
    );
    let packages = count_packages(sources).await?;
    // Made beside its final place and renamed, so that an interrupted build leaves nothing that looks finished.
    let folder = tempfile::Builder::new()
        .prefix(".building-")
        .tempdir_in(cache)
        .doing(format!("make a folder in {}", cache.display()))?;
    compile(sources, ".", &folder.path().join("kubernetes"), packages).await?;
    for small in ["pause", "probe"] {
        compile(sources, &format!("./{small}"), &folder.path().join(small), 0).await?;
    }
    for name in NAMES {
        std::os::unix::fs::symlink("kubernetes", folder.path().join(name)).doing("make a link")?;
    }
    // Everybody may run it: with sudo it is another user who does.
    fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .doing("set permissions")?;
    fs::rename(folder.keep(), to).doing(format!("rename the build to {}", to.display()))?;
    eprintln!("rig: built in {:.0?}, kept in {}", started.elapsed(), to.display());
    Ok(())
}

/// The go command. It ends when nobody waits for it any more.
fn go(sources: &Path) -> Command {
    let mut go = Command::new("go");
    go.current_dir(sources).env("CGO_ENABLED", "0").env("GOFLAGS", "-mod=readonly -buildvcs=false");
    go.stderr(Stdio::piped()).kill_on_drop(true);
    go
}

async fn count_packages(sources: &Path) -> Result<u64> {
    let no_go = |why: &str| {
        Error::Needs(format!(
            "Go 1.26 or newer is needed to build Kubernetes ({why}): install it from https://go.dev/dl/ and put `go` on the PATH. \
             Without it `cargo test --lib` and `cargo test -p millrace --test generated` still work."
        ))
    };
    let output = go(sources).args(["list", "-deps", "-f", "{{.ImportPath}}", "."]).output().await.map_err(
        |error| {
            no_go(if error.kind() == std::io::ErrorKind::NotFound {
                "it was not found"
            } else {
                "it did not run"
            })
        },
    )?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        return Err(no_go(text.lines().last().unwrap_or("`go list` failed")));
    }
    Ok(String::from_utf8_lossy(&output.stdout).lines().count() as u64)
}

async fn compile(sources: &Path, package: &str, to: &Path, packages: u64) -> Result<()> {
    let mut go = go(sources)
        .args(["build", "-v", "-trimpath", "-ldflags", &link_flags(), "-o"])
        .args([to.as_os_str(), package.as_ref()])
        .spawn()
        .doing("run `go build`")?;
    let mut said = Vec::new();
    if let Some(output) = go.stderr.take() {
        let mut progress = Progress::new(packages);
        let mut lines = BufReader::new(output).lines();
        while let Some(line) = lines.next_line().await.doing("read what `go build` says")? {
            progress.package(&line);
            said.push(line);
        }
    }
    let status = go.wait().await.doing("wait for `go build`")?;
    if status.success() {
        return Ok(());
    }
    let last = said[said.len().saturating_sub(20)..].join("\n");
    Err(Error::Command { command: format!("go build {package}"), output: format!("{status}\n{last}") })
}

/// What the build shows: a bar in a terminal, a line now and then in a log.
struct Progress {
    bar: Option<ProgressBar>,
    done: u64,
    total: u64,
    last: Instant,
}

impl Progress {
    fn new(total: u64) -> Self {
        let bar = (total > 0 && std::io::stderr().is_terminal()).then(|| {
            let bar = ProgressBar::new(total);
            if let Ok(style) = ProgressStyle::with_template("rig: {bar:30} {pos}/{len} {elapsed} {wide_msg}")
            {
                bar.set_style(style);
            }
            bar.enable_steady_tick(Duration::from_millis(500));
            bar
        });
        Self { bar, done: 0, total, last: Instant::now() }
    }

    fn package(&mut self, name: &str) {
        self.done += 1;
        if let Some(bar) = &self.bar {
            bar.set_position(self.done);
            bar.set_message(name.to_owned());
        } else if self.total > 0 && self.last.elapsed() > Duration::from_secs(30) {
            self.last = Instant::now();
            eprintln!("rig: compiled {} of at most {} packages", self.done, self.total);
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// Removes what interrupted builds left, and builds that nobody has used for long. Called with the lock held.
fn sweep(cache: &Path) {
    for entry in fs::read_dir(cache).into_iter().flatten().flatten() {
        let unfinished = entry.file_name().as_encoded_bytes().starts_with(b".building-");
        let age = entry.metadata().and_then(|m| m.modified()).ok().and_then(|time| time.elapsed().ok());
        if entry.path().is_dir() && (unfinished || age.is_some_and(|age| age > KEEP)) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}
