//! What can go wrong in the rig.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// What can go wrong; every message says what to look at or what to do.
#[derive(thiserror::Error)]
pub enum Error {
    /// An operation of the operating system failed.
    #[error("failed to {doing}")]
    Io {
        /// What was tried, as it continues "failed to".
        doing: String,
        /// Why it failed.
        source: std::io::Error,
    },
    /// A program that was run to its end did not succeed.
    #[error("`{command}` failed: {output}")]
    Command {
        /// The command line.
        command: String,
        /// What it printed last, or how it ended.
        output: String,
    },
    /// A component ended although it is meant to keep running.
    #[error("{component} died ({why}); the last lines of {}:\n{tail}", log.display())]
    Died {
        /// The component's name.
        component: String,
        /// How it ended.
        why: String,
        /// Its log.
        log: PathBuf,
        /// The end of its log.
        tail: String,
    },
    /// Something did not happen in time, although every component is running.
    #[error("{what} did not happen within {limit:?}; every component is running: see {}", logs.display())]
    TimedOut {
        /// What was waited for.
        what: String,
        /// How long it was waited for.
        limit: Duration,
        /// The folder of the logs.
        logs: PathBuf,
    },
    /// The machine or the caller lacks something; the message says how to get it.
    #[error("{0}")]
    Needs(String),
    /// The Kubernetes API refused or did not answer.
    #[error("failed to {doing}")]
    Kubernetes {
        /// What was tried, as it continues "failed to".
        doing: String,
        /// Why it failed.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// The result of everything here.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What a test's `unwrap` shows: the message as a person should read it, and its causes.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")?;
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

impl Error {
    /// Turns a client's error into ours.
    pub(crate) fn kubernetes(
        doing: impl Into<String>,
    ) -> impl FnOnce(Box<dyn std::error::Error + Send + Sync>) -> Self {
        let doing = doing.into();
        |source| Self::Kubernetes { doing, source }
    }
}

/// Says what was tried when an operation of the operating system fails.
pub(crate) trait Doing<T> {
    fn doing(self, what: impl Into<String>) -> Result<T>;
}

impl<T, E: Into<std::io::Error>> Doing<T> for std::result::Result<T, E> {
    fn doing(self, what: impl Into<String>) -> Result<T> {
        self.map_err(|source| Error::Io { doing: what.into(), source: source.into() })
    }
}
