//! `millrace dead-letters`: what no node could handle is listed, shown, queued again or dropped.
//!
//! ```text
//!   select   which letters         reach   the broker, and whose rights
//!   list     show     replay     discard   the four commands
//!   table    text     out                  how it looks, and where it goes
//! ```

use clap::{Args, Subcommand};

pub mod discard;
pub mod list;
pub mod out;
pub mod reach;
pub mod replay;
pub mod select;
pub mod show;
pub mod table;
pub mod text;

/// The options of `millrace dead-letters`.
#[derive(Debug, Args)]
pub struct DeadLetterArgs {
    #[command(subcommand)]
    command: DeadLetterCommand,
}

#[derive(Debug, Subcommand)]
enum DeadLetterCommand {
    /// List them, the oldest first
    List(list::ListArgs),
    /// Show everything about one, and its message
    Show(show::ShowArgs),
    /// Put them back into the queues of their nodes; those that are queued are no dead letters any more
    Replay(replay::ReplayArgs),
    /// Remove them for good
    Drop(discard::DropArgs),
}

/// Does what was asked.
///
/// # Errors
/// It could not be done, or not for all letters that were asked for.
pub async fn run(args: DeadLetterArgs) -> anyhow::Result<()> {
    match args.command {
        DeadLetterCommand::List(args) => list::run(args).await,
        DeadLetterCommand::Show(args) => show::run(args).await,
        DeadLetterCommand::Replay(args) => replay::run(args).await,
        DeadLetterCommand::Drop(args) => discard::run(args).await,
    }
}
