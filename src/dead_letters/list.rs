//! `list`: what there is, in bounded memory however much it is.

use clap::{Args, ValueEnum, value_parser};

use super::out::{put, say};
use super::reach::ReachArgs;
use super::select::SelectArgs;
use super::table::Table;
use crate::broker::dead_letters::Letter;
use crate::broker::dead_letters::Listing;
use crate::clock;

/// The options of `list`.
#[derive(Clone, Debug, Args)]
pub struct ListArgs {
    #[command(flatten)]
    select: SelectArgs,
    /// How many to list at most
    #[arg(long, value_name = "COUNT", default_value_t = 500, value_parser = value_parser!(u64).range(1..))]
    limit: u64,
    /// How they look
    #[arg(short, long, value_name = "FORM", default_value = "table")]
    output: Form,
    #[command(flatten)]
    reach: ReachArgs,
}

/// How a list looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Form {
    /// What fits on a line
    Table,
    /// Also size and message, and the whole reason
    Wide,
    /// One object a line
    Json,
}

/// Lists.
///
/// # Errors
/// The broker cannot be reached or does not answer.
pub async fn run(args: ListArgs) -> anyhow::Result<()> {
    let letters = args.reach.open().await?;
    let mut listing = letters.list(&args.select.selection()).await?;
    let listed = print(&mut listing, &args).await;
    let count = listing.count;
    listing.close().await;
    if listed? && count > args.limit {
        say(&format!("The {} oldest of {count}; --limit {count} lists all.", args.limit));
    } else if count == 0 {
        say("No dead letters.");
    }
    Ok(())
}

/// Prints them as they come. False: nobody reads any more.
async fn print(listing: &mut Listing, args: &ListArgs) -> anyhow::Result<bool> {
    /// As many as are laid out, and kept in memory, at a time.
    const ROWS: u64 = 500;
    let (mut left, mut table) = (args.limit, Table::new(args.output == Form::Wide));
    while left > 0 {
        let most = usize::try_from(left.min(ROWS)).unwrap_or(usize::MAX);
        let Some(batch) = listing.next(most).await? else { break };
        left = left.saturating_sub(batch.len() as u64);
        let text = match args.output {
            Form::Json => lines(&batch)?,
            Form::Table | Form::Wide => table.rows(&batch, clock::now()),
        };
        if !put(&text)? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn lines(batch: &[Letter]) -> serde_json::Result<String> {
    batch.iter().map(|letter| Ok(serde_json::to_string(letter)? + "\n")).collect()
}
