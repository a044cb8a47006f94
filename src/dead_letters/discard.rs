//! `drop`: letters are removed for good.

use clap::Args;

use super::out::Tally;
use super::reach::ReachArgs;
use super::select::{WhichArgs, named};
use crate::broker::dead_letters::Listing;

/// The options of `drop`.
#[derive(Clone, Debug, Args)]
pub struct DropArgs {
    #[command(flatten)]
    which: WhichArgs,
    #[command(flatten)]
    reach: ReachArgs,
}

/// Drops.
///
/// # Errors
/// The broker cannot be reached or does not answer, or not all letters were there.
pub async fn run(args: DropArgs) -> anyhow::Result<()> {
    let (letters, mut tally) = (args.reach.open().await?, Tally::default());
    let selection = args.which.selection();
    if args.which.all {
        let ids = ids(letters.list(&selection).await?).await?;
        letters.remove_all(&selection).await?;
        ids.into_iter().try_for_each(|id| dropped(id, &mut tally))?;
    }
    for id in args.which.ids {
        match named(id, letters.get(id).await?, &selection) {
            Ok(_) => {
                // One that somebody else has removed meanwhile is gone as well.
                letters.remove(id).await?;
                dropped(id, &mut tally)?;
            }
            Err(error) => tally.failed(&error),
        }
    }
    tally.end("dropped", false)
}

/// All that is remembered of many letters.
async fn ids(mut listing: Listing) -> anyhow::Result<Vec<u64>> {
    const AT_A_TIME: usize = 500;
    let mut ids = vec![];
    while let Some(batch) = listing.next(AT_A_TIME).await? {
        ids.extend(batch.iter().map(|letter| letter.id));
    }
    listing.close().await;
    Ok(ids)
}

fn dropped(id: u64, tally: &mut Tally) -> anyhow::Result<()> {
    tally.done(&format!("dead letter {id} dropped"))
}
