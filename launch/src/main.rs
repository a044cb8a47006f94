//! The launcher: the first process of an application's container. It waits until the agent lets the application start, passes
//! signals on, takes care of orphans, and gives the application the time that it needs to end.

use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;
use std::{env, fs, io};

mod commands;
mod life;

fn main() -> ExitCode {
    let arguments: Vec<OsString> = env::args_os().skip(1).collect();
    let text: Vec<_> = arguments.iter().map(|argument| argument.to_string_lossy().into_owned()).collect();
    let words: Vec<&str> = text.iter().map(String::as_str).collect();
    match words[..] {
        ["install", to] => match install(Path::new(to)) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => failed(&format!("cannot copy itself to {to}: {error}")),
        },
        ["run", "--socket", socket, "--hold", hold, "--", _, ..] => match hold.parse() {
            Ok(hold) => {
                let command = &arguments[6..];
                ExitCode::from(life::run(PathBuf::from(socket), Duration::from_secs(hold), command))
            }
            Err(_) => failed("--hold takes seconds"),
        },
        _ => failed(
            "use it as: launch install FILE | launch run --socket FILE --hold SECONDS -- COMMAND [ARGUMENT…]",
        ),
    }
}

fn failed(why: &str) -> ExitCode {
    eprintln!("launch: {why}");
    ExitCode::from(125)
}

/// Copies itself: whole or not at all.
fn install(to: &Path) -> io::Result<()> {
    let part = to.with_extension("part");
    fs::copy("/proc/self/exe", &part)?;
    fs::set_permissions(&part, fs::Permissions::from_mode(0o755))?;
    fs::rename(part, to)
}
