//! The `rig` command: a real Kubernetes on this machine, without Docker.

use std::ffi::OsStr;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result, bail};
use clap::{Parser, Subcommand};
use rig::{Image, Node, Plane, Program, Up};

/// A real one-node Kubernetes on this machine, without Docker, for development, tests and the demo of Millrace.
#[derive(Parser)]
#[command(version, arg_required_else_help = true)]
struct Cli {
    /// The folder of the node: its kubeconfig, logs, images and state. Without it: `.rig` in the nearest folder above
    /// that has one, or in the root of the checkout
    #[arg(long, global = true, env = "RIG_DIR")]
    dir: Option<PathBuf>,
    #[command(subcommand)]
    command: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Start the node, or do nothing where it runs
    Up {
        /// The folder of a program that is built already (internal: root finds the user's build by it)
        #[arg(long, hide = true)]
        program: Option<PathBuf>,
    },
    /// End the node; its state stays and is resumed by the next `up`
    Down {
        /// Remove the state too: etcd, volumes, images, logs
        #[arg(long)]
        forget: bool,
    },
    /// Say how the node is; fails where it is not running or lacks a component
    Status,
    /// Run a control plane without a node, on a free port of 127.0.0.1, until Ctrl-C; needs no root
    Plane,
    /// Build what the node is made of, and say where it is
    Build,
    /// Write a container image from files of this machine, and import it into the node
    Image(ImageArgs),
    /// Show the log of a component, or which logs there are
    Logs {
        /// The component, for example `kubelet`
        component: Option<String>,
        /// Go on as it grows
        #[arg(short, long)]
        follow: bool,
    },
}

#[derive(clap::Args)]
struct ImageArgs {
    /// The whole name, for example `rig.local/app:1`
    name: String,
    /// A file or folder of this machine and its absolute path in the image
    #[arg(long, value_name = "FILE:PATH", value_parser = pair)]
    add: Vec<(String, String)>,
    /// A symbolic link: what it points at, and its absolute path in the image
    #[arg(long, value_name = "TARGET:PATH", value_parser = pair)]
    link: Vec<(String, String)>,
    /// What a container starts with; once for each word
    #[arg(long, value_name = "WORD", allow_hyphen_values = true)]
    entrypoint: Vec<String>,
    /// A variable of the environment
    #[arg(long, value_name = "KEY=VALUE", value_parser = variable)]
    env: Vec<String>,
    /// The user that a container runs as
    #[arg(long, value_name = "UID:GID", default_value = "65532:65532", value_parser = user)]
    user: String,
    /// Write the archive here, and do not import it
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

fn pair(text: &str) -> Result<(String, String), String> {
    text.split_once(':')
        .map(|(left, right)| (left.to_owned(), right.to_owned()))
        .ok_or_else(|| "it must have two parts with a colon between them".to_owned())
}

fn variable(text: &str) -> Result<String, String> {
    match text.split_once('=') {
        Some((key, _)) if !key.is_empty() => Ok(text.to_owned()),
        _ => Err("it must be a name, `=` and a value".to_owned()),
    }
}

fn user(text: &str) -> Result<String, String> {
    // Numbers only: Kubernetes cannot tell whether a name is root.
    let numbers = text.split(':').map(str::parse::<u32>).collect::<Result<Vec<_>, _>>();
    match numbers {
        Ok(numbers) if numbers.len() <= 2 => Ok(text.to_owned()),
        _ => Err("it must be one or two numbers, such as 65532:65532".to_owned()),
    }
}

/// Prints a line. Whoever reads may have seen enough, as in `rig up | head -1`: that is no failure.
macro_rules! say {
    ($($words:tt)*) => {{
        let _ = writeln!(std::io::stdout(), $($words)*);
    }};
}

#[tokio::main]
async fn main() -> ExitCode {
    // What a node's folder holds is for others to read, whatever the caller's umask; keys are written apart.
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
    match run(Cli::parse()).await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("rig: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(cli: Cli) -> Result<ExitCode> {
    let here = std::env::current_dir().context("failed to find the working directory")?;
    let node = Node::at(here.join(cli.dir.unwrap_or_else(|| nearest(&here))));
    match cli.command {
        Action::Up { program } => up(&node, program).await?,
        Action::Down { forget } => down(&node, forget)?,
        Action::Status => return Ok(status(&node)),
        Action::Plane => plane().await?,
        Action::Build => say!("{}", built().await?.folder().display()),
        Action::Image(args) => image(&node, args).await?,
        Action::Logs { component, follow } => logs(&node, component.as_deref(), follow)?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn up(node: &Node, program: Option<PathBuf>) -> Result<()> {
    let program = match program {
        Some(folder) => Program::at(folder),
        None => built().await?,
    };
    if !nix::unistd::geteuid().is_root() {
        return as_root(&["--program".as_ref(), program.folder().as_os_str()]);
    }
    let up = tokio::select! {
        up = node.up(&program) => up?,
        signal = interrupted() => {
            signal?;
            // The start was dropped, and with it the leash; this removes what the kernel does not.
            node.down(false)?;
            bail!("interrupted: nothing was left running");
        }
    };
    give_to_user(node);
    match up {
        Up::Already => say!("The node is up."),
        Up::Started { took, resumed: false } => say!("The node is up after {took:.1?}."),
        Up::Started { took, resumed: true } => {
            say!("The node is up again after {took:.1?}, with its state.");
        }
    }
    let address = node.address().map(|address| address.to_string()).unwrap_or_default();
    say!("  export PATH=\"{}:$PATH\"      # kubectl, helm", node.folder().join("bin").display());
    say!("  export KUBECONFIG=\"{}\"", node.kubeconfig().display());
    say!("Pods, services and node ports answer from this machine; {address} resolves *.svc.cluster.local.");
    Ok(())
}

/// The program, built now if nobody did before; an interrupted build is removed.
async fn built() -> Result<Program> {
    tokio::select! {
        program = Program::get() => Ok(program?),
        signal = interrupted() => {
            signal?;
            bail!("interrupted: the unfinished build was removed; what Go has compiled is not compiled again")
        }
    }
}

async fn plane() -> Result<()> {
    let held = async {
        let plane = Plane::start().await?;
        say!("export KUBECONFIG=\"{}\"", plane.kubeconfig().display());
        // It was told already, by name and with the end of its log.
        plane.death().await;
        bail!("the control plane has ended")
    };
    tokio::select! {
        signal = interrupted() => signal,
        end = held => end,
    }
}

fn down(node: &Node, forget: bool) -> Result<()> {
    if !node.folder().exists() {
        say!("There is no node in {}.", node.folder().display());
        return Ok(());
    }
    if !nix::unistd::geteuid().is_root() {
        return as_root(&[]);
    }
    let was_up = node.down(forget)?;
    let state = if forget {
        "Its state is removed"
    } else {
        "Its state stays for the next `up`; `rig down --forget` removes it"
    };
    say!("The node {}. {state}.", if was_up { "is down" } else { "was not running" });
    Ok(())
}

fn status(node: &Node) -> ExitCode {
    let status = node.status();
    say!("node in {}: {}", node.folder().display(), if status.running { "up" } else { "down" });
    for (name, process, ended) in status.components.iter().filter(|_| status.running) {
        match ended {
            None => say!("  {name:<24} running, process {process} of the node"),
            Some(why) => say!("  {name:<24} ended: {why}"),
        }
    }
    if status.whole() {
        return ExitCode::SUCCESS;
    }
    if status.running {
        say!("`rig up` starts it again with its state; `rig logs COMPONENT` shows why one ended.");
    } else {
        say!("`rig up` starts it.");
    }
    ExitCode::FAILURE
}

async fn image(node: &Node, args: ImageArgs) -> Result<()> {
    let mut image = Image::new(args.name).entrypoint(args.entrypoint).user(args.user);
    for (file, path) in args.add {
        image = image.add(file, path);
    }
    for (target, path) in args.link {
        image = image.link(target, path);
    }
    for variable in args.env {
        image = image.env(variable);
    }
    if let Some(file) = args.output {
        image.write(&file)?;
        say!("{} is in {}.", image.name(), file.display());
        return Ok(());
    }
    if !nix::unistd::geteuid().is_root() {
        return as_root(&[]);
    }
    let imported = node.add_image(&image).await?;
    let when = if imported { "is in the node" } else { "will be in the node at its next start" };
    say!("{} {when}; use it with imagePullPolicy IfNotPresent.", image.name());
    Ok(())
}

fn logs(node: &Node, component: Option<&str>, follow: bool) -> Result<()> {
    let Some(component) = component else {
        let mut names: Vec<_> = std::fs::read_dir(node.logs())
            .with_context(|| format!("there are no logs in {}", node.logs().display()))?
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.strip_suffix(".log").map(ToOwned::to_owned))
            .collect();
        names.sort();
        say!("{}", names.join("\n"));
        return Ok(());
    };
    let file = node.logs().join(format!("{component}.log"));
    if !file.exists() {
        bail!("there is no log of `{component}`; `rig logs` lists those there are");
    }
    let mut tail = Command::new("tail");
    tail.arg("--lines=+1");
    if follow {
        tail.arg("--follow");
    }
    tail.arg(file).status().context("failed to run `tail`")?;
    Ok(())
}

/// The folder of the node that somebody in a folder means who does not name one.
fn nearest(here: &Path) -> PathBuf {
    let is_root = |folder: &&Path| folder.join(".rig").is_dir() || folder.join(".git").exists();
    here.ancestors().find(is_root).unwrap_or(here).join(".rig")
}

/// Ctrl-C, or a polite request to end.
async fn interrupted() -> Result<()> {
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    tokio::select! {
        done = tokio::signal::ctrl_c() => done?,
        _ = terminate.recv() => {}
    }
    Ok(())
}

/// Does the same with sudo. The build stays the user's, and so do the kubeconfig and the folder.
fn as_root(more: &[&OsStr]) -> Result<()> {
    let this = std::env::current_exe().context("failed to find this program")?;
    let status = Command::new("sudo")
        .arg("--preserve-env=RIG_INSTALL,RIG_DIR")
        .arg(this)
        .args(std::env::args_os().skip(1))
        .args(more)
        .status()
        .context("a node needs root, and `sudo` was not found: run this as root (the control plane, and its tests, need no root)")?;
    if !status.success() {
        std::process::exit(status.code().unwrap_or(1));
    }
    Ok(())
}

/// Gives what a user reads to the user who called sudo.
fn give_to_user(node: &Node) {
    let id = |name| std::env::var(name).ok()?.parse::<u32>().ok();
    let (Some(user), Some(group)) = (id("SUDO_UID"), id("SUDO_GID")) else { return };
    for path in [node.folder().to_owned(), node.kubeconfig()] {
        // Where it cannot be given, kubectl will say whose it is.
        let _ = std::os::unix::fs::chown(path, Some(user), Some(group));
    }
}
