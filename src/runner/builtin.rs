//! The built-in nodes: which there are, what their fields must be, and what they do.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use serde_json::{Map, Value};

use crate::jq::{self, pool::Lane};
use crate::pump::input::Input;
use crate::pump::{Attempt, Handle, Place};

mod filter;
pub mod http;
mod split;
mod wait;

use filter::Filter;
use http::{Http, Web};
use split::Split;
use wait::Wait;

/// All that there are.
const KNOWN: &str = "filter, http, log, split, transform, wait";
/// How much of a body is logged, in bytes.
const LOGGED: usize = 16 << 10;

/// What built-ins work with.
#[derive(Clone, Debug)]
pub struct Tools {
    /// The turn of their flow, for expressions.
    pub lane: Arc<Lane>,
    /// The way to other servers.
    pub web: Web,
}

/// A field of a built-in that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldError {
    /// The field, from the node on, such as `fields.jq`.
    pub field: String,
    /// What is wrong and what to do.
    pub message: String,
}

impl FieldError {
    fn wrong(field: &str, message: impl Into<String>) -> Self {
        Self { field: field.into(), message: message.into() }
    }
}

/// Checks a built-in before it is run.
///
/// # Errors
/// There is no such built-in, or one of its fields is wrong.
pub fn check(name: &str, fields: &Map<String, Value>) -> Result<(), FieldError> {
    match name {
        "http" => http::check(fields),
        "log" => only(fields, &[]),
        "filter" => Filter::of(fields).map(drop),
        "split" => Split::of(fields).map(drop),
        "wait" => Wait::of(fields).map(drop),
        "transform" => {
            only(fields, &["jq"])?;
            jq::check(expression(fields)?).map_err(|wrong| FieldError::wrong("fields.jq", wrong))
        }
        _ => Err(FieldError::wrong("builtin", format!("'{name}' is none: use {KNOWN} or an image"))),
    }
}

/// Makes a built-in that handles messages.
///
/// # Errors
/// As for [`check`].
pub fn load(
    place: &Place,
    name: &str,
    fields: &Map<String, Value>,
    timeout: Duration,
    tools: Tools,
) -> Result<Arc<dyn Handle>, FieldError> {
    check(name, fields)?;
    match name {
        "http" => Ok(Arc::new(Http::new(fields, timeout, tools)?)),
        "transform" => Ok(Arc::new(Transform { jq: expression(fields)?.into(), timeout, lane: tools.lane })),
        "filter" => Ok(Arc::new(Filter::of(fields)?)),
        "split" => Ok(Arc::new(Split::of(fields)?)),
        "wait" => Ok(Arc::new(Wait::of(fields)?)),
        _ => Ok(Arc::new(Log { place: place.clone() })),
    }
}

fn expression(fields: &Map<String, Value>) -> Result<&str, FieldError> {
    let wrong = || FieldError::wrong("fields.jq", "must be a jq expression, such as \"{body: .body}\"");
    fields.get("jq").and_then(Value::as_str).ok_or_else(wrong)
}

fn only(fields: &Map<String, Value>, known: &[&str]) -> Result<(), FieldError> {
    match fields.keys().find(|key| !known.contains(&key.as_str())) {
        Some(key) => {
            Err(FieldError::wrong(&format!("fields.{key}"), "is no field of this built-in: remove it"))
        }
        None => Ok(()),
    }
}

/// `log`: writes the message to the log, and gives it on.
struct Log {
    place: Place,
}

impl Handle for Log {
    fn handle<'a>(&'a self, input: &'a Input) -> BoxFuture<'a, Attempt> {
        let Place { flow, node, .. } = &self.place;
        let body = input.body();
        let end =
            (0..=LOGGED.min(body.len())).rev().find(|end| body.is_char_boundary(*end)).unwrap_or_default();
        let more = if end < body.len() { "…" } else { "" };
        tracing::info!(%flow, %node, id = input.id, body = %format_args!("{}{more}", &body[..end]), "Message");
        Box::pin(std::future::ready(Attempt::Answer(input.payload.clone(), None)))
    }
}

/// `transform`: runs a jq expression over the message.
struct Transform {
    jq: String,
    timeout: Duration,
    lane: Arc<Lane>,
}

impl Handle for Transform {
    fn handle<'a>(&'a self, input: &'a Input) -> BoxFuture<'a, Attempt> {
        Box::pin(async {
            match self.lane.evaluate(&self.jq, &input.payload, self.timeout).await {
                Ok(answer) => Attempt::Answer(answer, None),
                Err(stopped) => Attempt::Failed(stopped.into()),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn refused(name: &str, fields: &Value) -> (String, String) {
        let error = check(name, fields.as_object().unwrap()).unwrap_err();
        (error.field, error.message)
    }

    #[test]
    fn a_transform_needs_an_expression_that_can_be_run() {
        assert_eq!(check("transform", json!({"jq": "{body: .body}"}).as_object().unwrap()), Ok(()));
        let hint = "must be a jq expression, such as \"{body: .body}\"".to_owned();
        assert_eq!(refused("transform", &json!({})), ("fields.jq".into(), hint.clone()));
        assert_eq!(refused("transform", &json!({"jq": 5})), ("fields.jq".into(), hint));
        assert_eq!(
            refused("transform", &json!({"jq": "{body: totals}"})).1,
            "is no jq expression: there is no function 'totals' without arguments in line 1, column 8, at 'totals'"
        );
    }

    #[test]
    fn what_a_built_in_does_not_know_is_refused() {
        let remove = "is no field of this built-in: remove it".to_owned();
        assert_eq!(refused("log", &json!({"level": "warn"})), ("fields.level".into(), remove));
        let known = "'magic' is none: use filter, http, log, split, transform, wait or an image".to_owned();
        assert_eq!(refused("magic", &json!({})), ("builtin".into(), known));
    }
}
