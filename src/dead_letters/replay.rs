//! `replay`: letters go back into the queues of their nodes, one after the other.

use anyhow::Context as _;
use bytes::Bytes;
use clap::Args;

use super::out::Tally;
use super::reach::ReachArgs;
use super::select::{WhichArgs, named};
use crate::api::name::NodeId;
use crate::broker::dead_letters::replay::{Place, ReplayError};
use crate::broker::dead_letters::{DeadLetters, Letter};

/// The options of `replay`.
#[derive(Clone, Debug, Args)]
pub struct ReplayArgs {
    #[command(flatten)]
    which: WhichArgs,
    /// Another node of the same flow that gets them
    #[arg(long, value_name = "NODE")]
    to_node: Option<NodeId>,
    #[command(flatten)]
    reach: ReachArgs,
}

/// Replays.
///
/// # Errors
/// The broker cannot be reached, or not all letters were replayed.
pub async fn run(args: ReplayArgs) -> anyhow::Result<()> {
    let letters = args.reach.open().await?;
    let mut replay = Replay { letters, to: args.to_node, tally: Tally::default() };
    let stopped =
        if args.which.all { replay.all(&args.which).await? } else { replay.named(&args.which).await? };
    replay.tally.end("replayed", stopped)
}

/// A replay in progress.
struct Replay {
    letters: DeadLetters,
    to: Option<NodeId>,
    tally: Tally,
}

impl Replay {
    /// Those of a selection that are there by now: what fails again is a new letter, and waits for its own replay. True:
    /// it makes no sense to go on.
    async fn all(&mut self, which: &WhichArgs) -> anyhow::Result<bool> {
        let (selection, last, mut from) = (which.selection(), self.letters.last(), 1);
        while let Some((letter, message)) = self.letters.next(&selection, from).await? {
            if letter.id > last {
                break;
            }
            from = letter.id + 1;
            if self.one(&letter, message).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn named(&mut self, which: &WhichArgs) -> anyhow::Result<bool> {
        for id in &which.ids {
            match named(*id, self.letters.get(*id).await?, &which.selection()) {
                Err(error) => self.tally.failed(&error),
                Ok((letter, message)) => {
                    if self.one(&letter, message).await? {
                        return Ok(true);
                    }
                }
            }
        }
        Ok(false)
    }

    /// The letter is removed only when its message is known to be in a queue.
    async fn one(&mut self, letter: &Letter, message: Bytes) -> anyhow::Result<bool> {
        let (id, place) = (letter.id, Place::of(letter));
        let place = self.to.iter().cloned().fold(place, Place::at);
        let queued = match self.letters.queue(letter, message, &place).await {
            Ok(queued) => queued,
            Err(error) => {
                let stops = error.stops();
                self.tally.failed(&stays(id, error));
                return Ok(stops);
            }
        };
        // One that somebody else has removed meanwhile is queued all the same, and once.
        self.letters.remove(id).await.with_context(|| {
            format!(
                "dead letter {id} was replayed to {place} and could not be removed: replay it again within two minutes, \
                 and it is only removed, or drop it"
            )
        })?;
        let what = if queued.duplicate { "was replayed already" } else { &format!("replayed to {place}") };
        self.tally.done(&format!("dead letter {id} {what}"))?;
        Ok(false)
    }
}

fn stays(id: u64, error: ReplayError) -> anyhow::Error {
    anyhow::Error::new(error).context(format!("dead letter {id} stays"))
}
