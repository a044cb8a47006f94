//! The sidecar of an image node: moves the messages of one node.

use clap::Args;

/// The options of `millrace agent`.
#[derive(Clone, Debug, Args)]
pub struct AgentArgs {}

/// Runs until it is told to stop.
///
/// # Errors
/// What makes it impossible to go on.
pub async fn run(_args: AgentArgs) -> anyhow::Result<()> {
    std::future::ready(Ok(())).await
}
