//! Hooks: commands through the launcher, requests by the agent itself.

use std::time::Duration;

use crate::api::cartridge::lifecycle::{Hook, Lifecycle};

use super::checks::get;
use super::launcher::Launcher;

/// How long a hook may take.
pub const LIMIT: Duration = Duration::from_secs(60);

/// Which hook runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Turn {
    /// The one after the start.
    Start,
    /// The one after imports or values have changed, to this revision.
    Update(String),
    /// The one before the end.
    Stop,
}

impl Turn {
    fn hook<'a>(&self, lifecycle: &'a Lifecycle) -> Option<&'a Hook> {
        match self {
            Self::Start => lifecycle.start.as_ref(),
            Self::Update(_) => lifecycle.update.as_ref(),
            Self::Stop => lifecycle.stop.as_ref(),
        }
    }
}

/// Runs a hook to its end.
///
/// # Errors
/// Why it failed, in words.
pub async fn run(turn: &Turn, lifecycle: &Lifecycle, launcher: &Launcher, ip: &str) -> Result<(), String> {
    let Some(hook) = turn.hook(lifecycle) else { return Ok(()) };
    if let Some(exec) = &hook.exec {
        return launcher.exec(&exec.command, LIMIT).await;
    }
    match &hook.http_get {
        Some(request) => get(ip, request, LIMIT).await,
        None => Ok(()),
    }
}
