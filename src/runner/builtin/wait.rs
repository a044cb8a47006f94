//! `wait`: gives each message on when it has been there for some time.
//!
//! It waits in its queue, on the broker's disk, and not here: a restart of anything loses nothing of it.

use std::time::Duration;

use futures::future::BoxFuture;
use k8s_openapi::jiff::Timestamp;
use serde_json::{Map, Value};

use crate::api::duration;
use crate::clock;
use crate::pump::input::Input;
use crate::pump::{Attempt, Handle};

use super::{FieldError, only};

/// The built-in: for how long.
#[derive(Debug)]
pub struct Wait(Duration);

impl Wait {
    /// Reads its fields: `duration`, such as `5m`.
    ///
    /// # Errors
    /// It is none.
    pub fn of(fields: &Map<String, Value>) -> Result<Self, FieldError> {
        const FIELD: &str = "fields.duration";
        only(fields, &["duration"])?;
        let missing = || FieldError::wrong(FIELD, "must be a duration, such as `5m`");
        let text = fields.get("duration").and_then(Value::as_str).ok_or_else(missing)?;
        let parsed = duration::Duration(text.to_owned()).parse();
        parsed.map(Self).map_err(|error| FieldError::wrong(FIELD, format!("is wrong: {error}")))
    }

    /// How long a message still waits that came into the queue at a time; none where its time has come.
    fn left(&self, queued: Timestamp, now: Timestamp) -> Option<Duration> {
        // A clock that was set back is no reason to wait for longer than the node says.
        let waited = Duration::try_from(now.duration_since(queued)).unwrap_or_default();
        self.0.checked_sub(waited).filter(|left| !left.is_zero())
    }
}

impl Handle for Wait {
    fn handle<'a>(&'a self, input: &'a Input) -> BoxFuture<'a, Attempt> {
        let attempt = match self.left(input.queued, clock::now()) {
            Some(left) => Attempt::NotYet(left),
            None => Attempt::Answer(input.payload.clone(), None),
        };
        Box::pin(std::future::ready(attempt))
    }

    fn waits(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn wait(duration: Value) -> Result<Wait, String> {
        let fields = Map::from_iter([("duration".to_owned(), duration)]);
        Wait::of(&fields).map_err(|wrong| format!("{} {}", wrong.field, wrong.message))
    }

    #[test]
    fn a_message_waits_from_the_moment_on_when_it_came() {
        let wait = wait(json!("1m30s")).unwrap();
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let came = at("2026-01-01T00:00:00Z");
        let left = |now| wait.left(came, at(now));
        assert_eq!(left("2026-01-01T00:00:00Z"), Some(Duration::from_secs(90)));
        assert_eq!(left("2026-01-01T00:01:29.5Z"), Some(Duration::from_millis(500)));
        assert_eq!(left("2026-01-01T00:01:30Z"), None);
        assert_eq!(left("2026-01-02T00:00:00Z"), None);
        assert_eq!(left("2025-12-31T23:00:00Z"), Some(Duration::from_secs(90)), "the clock was set back");
    }

    #[test]
    fn what_is_no_duration_is_refused() {
        assert_eq!(wait(json!(5)).unwrap_err(), "fields.duration must be a duration, such as `5m`");
        assert!(
            wait(json!("5 minutes")).unwrap_err().starts_with("fields.duration is wrong: a duration must be")
        );
        assert!(wait(json!("25h")).unwrap_err().contains("at most 24h"));
    }
}
