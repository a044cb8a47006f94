//! Runs the built-in nodes of one namespace's Flows.

use clap::Args;

pub mod builtin;
pub mod jq;

/// The options of `millrace runner`.
#[derive(Clone, Debug, Args)]
pub struct RunnerArgs {}

/// Runs until it is told to stop.
///
/// # Errors
/// What makes it impossible to go on.
pub async fn run(_args: RunnerArgs) -> anyhow::Result<()> {
    std::future::ready(Ok(())).await
}
