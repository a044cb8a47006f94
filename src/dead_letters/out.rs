//! Standard output, whose reader may leave, and how many letters went well.

use std::io::{self, ErrorKind, Write as _};

use anyhow::{Context as _, bail};

/// Writes to standard output.
///
/// # Errors
/// It cannot be written. `false`: who reads has seen enough, as in `… | head`.
pub fn put(text: &str) -> anyhow::Result<bool> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        done => done.map(|()| true).context("cannot write to standard output"),
    }
}

/// Says something that is no result.
pub fn say(text: &str) {
    // Where nobody can be told, nothing is left to do.
    let _ = writeln!(io::stderr(), "{text}");
}

/// What became of many letters.
#[derive(Debug, Default)]
pub struct Tally {
    done: u64,
    failed: u64,
}

impl Tally {
    /// One went well.
    ///
    /// # Errors
    /// It cannot be said. Nobody has to listen.
    pub fn done(&mut self, line: &str) -> anyhow::Result<()> {
        self.done += 1;
        put(&format!("{line}\n")).map(drop)
    }

    /// One did not, and why.
    pub fn failed(&mut self, error: &anyhow::Error) {
        self.failed += 1;
        say(&format!("millrace: {error:#}"));
    }

    /// All were looked at, or it makes no sense to go on. `what` was to be done to them.
    ///
    /// # Errors
    /// Not all went well.
    pub fn end(self, what: &str, stopped: bool) -> anyhow::Result<()> {
        let Self { done, failed } = self;
        if stopped {
            bail!("stopped: {done} {what}, the others stay");
        }
        if failed > 0 {
            bail!("{done} {what}, {failed} not");
        }
        if done == 0 {
            say("No dead letters.");
        }
        Ok(())
    }
}
