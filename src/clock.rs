//! The one place that reads the clock. Whatever decides something gets the time as an argument.

use k8s_openapi::jiff::Timestamp;

/// The time now.
#[must_use]
#[allow(clippy::disallowed_methods, reason = "this is the edge")]
pub fn now() -> Timestamp {
    Timestamp::now()
}
