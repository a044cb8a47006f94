//! A switch for tests: the process dies at the one place where a message can be handled twice.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The exit code of a process that died so.
pub const EXIT_CODE: i32 = 87;
const VARIABLE: &str = "MILLRACE_TEST_EXIT_BEFORE_ACK";

/// Counts messages down, where a test asks for it.
#[derive(Clone, Debug, Default)]
pub struct ExitBeforeAck(Option<Arc<AtomicU64>>);

impl ExitBeforeAck {
    /// As the environment says: after how many messages the process dies.
    #[must_use]
    pub fn from_env() -> Self {
        let count = std::env::var(VARIABLE).ok().and_then(|text| text.parse().ok());
        Self(count.map(|count| Arc::new(AtomicU64::new(count))))
    }

    /// What came out of a message is stored, and the message is not yet acknowledged.
    pub fn published(&self) {
        if self.0.as_ref().is_some_and(|left| left.fetch_sub(1, Ordering::SeqCst) == 1) {
            std::process::exit(EXIT_CODE);
        }
    }
}
