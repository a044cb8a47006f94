//! What the machine must have before a node can run on it.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::error::{Doing as _, Error, Result};

/// Programs a node needs, and the Debian package of each.
const PROGRAMS: [(&str, &str); 9] = [
    ("containerd", "containerd"),
    ("containerd-shim-runc-v2", "containerd"),
    ("ctr", "containerd"),
    ("runc", "runc"),
    ("iptables", "iptables"),
    ("iptables-restore", "iptables"),
    ("ip", "iproute2"),
    ("mount", "mount"),
    ("nsenter", "util-linux"),
];

/// The CNI plugins a node needs, their Debian package, and where distributions put them.
const PLUGINS: [&str; 4] = ["bridge", "host-local", "loopback", "portmap"];
const PLUGIN_PACKAGE: &str = "containernetworking-plugins";
const PLUGIN_FOLDERS: [&str; 3] = ["/usr/lib/cni", "/opt/cni/bin", "/usr/libexec/cni"];

/// Where root's programs are, also where a user's `PATH` lacks them.
pub(crate) const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The folder of the CNI plugins.
pub(crate) fn plugins() -> Option<PathBuf> {
    PLUGIN_FOLDERS
        .map(PathBuf::from)
        .into_iter()
        .find(|folder| PLUGINS.iter().all(|p| folder.join(p).exists()))
}

/// Installs what is missing, or says in one message what it is and how to get it.
///
/// `RIG_INSTALL=never` in the environment keeps it from installing anything.
pub(crate) fn ensure() -> Result<()> {
    let (programs, packages) = missing();
    if packages.is_empty() {
        return Ok(());
    }
    let wanted = packages.join(" ");
    let allowed = std::env::var("RIG_INSTALL").as_deref() != Ok("never") && nix::unistd::geteuid().is_root();
    if allowed && find("apt-get").is_some() {
        eprintln!("rig: installing {wanted} with apt-get ({} not found)", programs.join(", "));
        // The lists of a fresh machine may be absent or old, so the first refusal is no answer yet.
        if apt(&["install", "-y", "--no-install-recommends"], &packages).is_err() {
            apt(&["update"], &[])?;
            apt(&["install", "-y", "--no-install-recommends"], &packages)?;
        }
    }
    let (programs, packages) = missing();
    if packages.is_empty() {
        return Ok(());
    }
    Err(Error::Needs(format!(
        "a node needs {}, not found on this machine; on Debian or Ubuntu: sudo apt-get install -y --no-install-recommends {}. \
         A control plane for tests (`cargo test --test validation`) works without.",
        programs.join(", "),
        packages.join(" ")
    )))
}

fn missing() -> (Vec<&'static str>, Vec<&'static str>) {
    let lacking: Vec<_> = PROGRAMS.into_iter().filter(|(program, _)| find(program).is_none()).collect();
    let mut programs: Vec<_> = lacking.iter().map(|(program, _)| *program).collect();
    let mut packages: Vec<_> = lacking.iter().map(|(_, package)| *package).collect();
    if plugins().is_none() {
        programs.push("the CNI plugins");
        packages.push(PLUGIN_PACKAGE);
    }
    packages.dedup();
    (programs, packages)
}

fn find(program: &str) -> Option<PathBuf> {
    PATH.split(':').map(|folder| Path::new(folder).join(program)).find(|path| path.exists())
}

fn apt(action: &[&str], packages: &[&str]) -> Result<()> {
    let mut apt = Command::new("apt-get");
    // A package that starts its service would start a containerd that nobody asked for.
    apt.env("DEBIAN_FRONTEND", "noninteractive").env("RUNLEVEL", "1").arg("-q").args(action).args(packages);
    run(&mut apt)
}

/// Runs a program to its end; its output is shown only where it failed.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    output(command).map(drop)
}

/// Runs a program to its end and returns what it printed.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let done = command.output().doing(format!("run {}", command.get_program().display()))?;
    succeeded(command, done)
}

/// What a program printed, if it succeeded.
pub(crate) fn succeeded(command: &Command, done: Output) -> Result<String> {
    if done.status.success() {
        return Ok(String::from_utf8_lossy(&done.stdout).into_owned());
    }
    let words: Vec<_> = std::iter::once(command.get_program()).chain(command.get_args()).collect();
    let line = words.iter().map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ");
    let said = [done.stdout, done.stderr].concat();
    Err(Error::Command {
        command: line,
        output: format!("{}; {}", done.status, String::from_utf8_lossy(&said).trim()),
    })
}
