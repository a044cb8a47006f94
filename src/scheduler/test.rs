//! A switch for tests: the process dies at one of the places between "it is due" and "it is recorded".

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The exit code of a process that died so.
pub const EXIT_CODE: i32 = 88;
const VARIABLE: &str = "MILLRACE_TEST_EXIT_AT_TICK";

/// Counts ticks down, where a test asks for it: `sending:3` dies when the third is about to be sent.
#[derive(Clone, Debug, Default)]
pub struct ExitAtTick(Option<Arc<(String, AtomicU64)>>);

impl ExitAtTick {
    /// As the environment says.
    #[must_use]
    pub fn from_env() -> Self {
        let wish = std::env::var(VARIABLE).ok().and_then(|text| {
            let (place, count) = text.split_once(':')?;
            Some(Arc::new((place.to_owned(), AtomicU64::new(count.parse().ok()?))))
        });
        Self(wish)
    }

    /// A tick is due, and nothing was done about it yet.
    pub fn due(&self) {
        self.pass("due");
    }

    /// It is about to be sent.
    pub fn sending(&self) {
        self.pass("sending");
    }

    /// The broker has it, and nobody here has taken note of it.
    pub fn stored(&self) {
        self.pass("stored");
    }

    /// It is noted that it was done.
    pub fn recorded(&self) {
        self.pass("recorded");
    }

    fn pass(&self, place: &str) {
        let Some(wish) = &self.0 else { return };
        if wish.0 == place && wish.1.fetch_sub(1, Ordering::SeqCst) == 1 {
            std::process::exit(EXIT_CODE);
        }
    }
}
