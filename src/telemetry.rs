//! Logs: structured, to standard error, for people or for machines.

use clap::{Args, ValueEnum};
use tracing_subscriber::EnvFilter;

/// How a role logs.
#[derive(Clone, Debug, Args)]
pub struct LogArgs {
    /// Write logs for people or for machines
    #[arg(long, env = "MILLRACE_LOG_FORMAT", value_name = "FORMAT", default_value = "json", global = true)]
    pub log_format: Format,
    /// Which logs to write, for example `info` or `millrace=debug,kube=info`
    #[arg(
        long,
        env = "MILLRACE_LOG",
        value_name = "FILTER",
        default_value = "info,async_nats=warn",
        global = true
    )]
    pub log: String,
}

/// The form of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// One JSON object a line.
    Json,
    /// One line of text.
    Human,
}

/// Starts to write logs. Call it once, before anything is logged.
///
/// # Errors
/// The filter cannot be understood.
pub fn start(args: &LogArgs) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(&args.log)
        .map_err(|error| anyhow::anyhow!("--log '{}' is no filter of logs: {error}; try 'info'", args.log))?;
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match args.log_format {
        Format::Json => logs.json().flatten_event(true).init(),
        Format::Human => logs.init(),
    }
    Ok(())
}
