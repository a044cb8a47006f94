//! The operator: what is declared becomes objects, queues and phases.

use clap::Args;

pub mod caches;
pub mod flow;
pub mod runner;

/// The options of `millrace operator`.
#[derive(Clone, Debug, Args)]
pub struct OperatorArgs {}

/// Runs until it is told to stop.
///
/// # Errors
/// What makes it impossible to go on.
pub async fn run(_args: OperatorArgs) -> anyhow::Result<()> {
    std::future::ready(Ok(())).await
}
