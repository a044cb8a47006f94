//! `filter`: gives on the messages that a condition holds for; the others end here.

use bytes::Bytes;
use futures::future::BoxFuture;
use serde_json::{Map, Value};

use crate::filter::Filter as Condition;
use crate::pump::input::Input;
use crate::pump::step::Failure;
use crate::pump::{Attempt, Handle};

use super::{FieldError, only};

/// The built-in.
#[derive(Debug)]
pub struct Filter(Condition);

impl Filter {
    /// Reads its fields: `condition`, a filter.
    ///
    /// # Errors
    /// It is none.
    pub fn of(fields: &Map<String, Value>) -> Result<Self, FieldError> {
        const FIELD: &str = "fields.condition";
        only(fields, &["condition"])?;
        let missing = || FieldError::wrong(FIELD, "must be a filter, such as {\"exists\": \"body.id\"}");
        let condition = fields.get("condition").and_then(Value::as_object).ok_or_else(missing)?;
        Condition::parse(condition).map(Self).map_err(|error| FieldError::wrong(FIELD, error.to_string()))
    }
}

impl Handle for Filter {
    fn handle<'a>(&'a self, input: &'a Input) -> BoxFuture<'a, Attempt> {
        let attempt = match serde_json::from_slice(&input.payload) {
            Ok(message) if self.0.matches(&message) => Attempt::Answer(input.payload.clone(), None),
            Ok(_) => Attempt::Answer(Bytes::new(), None),
            Err(error) => Attempt::Failed(Failure::last(format!("the message cannot be read: {error}"))),
        };
        Box::pin(std::future::ready(attempt))
    }
}
