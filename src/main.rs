//! The `millrace` program.

use clap::Parser;

fn main() -> anyhow::Result<()> {
    millrace::cli::run(millrace::cli::Cli::parse())
}
