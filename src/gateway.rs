//! Takes webhooks: a request becomes a durable message, then it is answered.

use clap::Args;

pub mod answer;
pub mod id;
pub mod request;
pub mod route;
pub mod routes;
pub mod table;
pub mod target;

/// The options of `millrace gateway`.
#[derive(Clone, Debug, Args)]
pub struct GatewayArgs {}

/// Runs until it is told to stop.
///
/// # Errors
/// What makes it impossible to go on.
pub async fn run(_args: GatewayArgs) -> anyhow::Result<()> {
    std::future::ready(Ok(())).await
}
