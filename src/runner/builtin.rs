//! The built-in nodes: which there are, and what their fields must be.

use serde_json::{Map, Value};

/// Built-ins of the schema's documentation that this version cannot run.
const NOT_YET: [&str; 4] = ["http", "filter", "split", "wait"];

/// A field of a built-in that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldError {
    /// The field, from the node on, such as `fields.jq`.
    pub field: String,
    /// What is wrong and what to do.
    pub message: String,
    /// Whether it is right and only this version cannot do it.
    pub not_yet: bool,
}

impl FieldError {
    fn wrong(field: &str, message: impl Into<String>) -> Self {
        Self { field: field.into(), message: message.into(), not_yet: false }
    }
}

/// Checks a built-in before it is run.
///
/// # Errors
/// There is no such built-in, or one of its fields is wrong.
pub fn check(name: &str, fields: &Map<String, Value>) -> Result<(), FieldError> {
    match name {
        "log" => only(fields, &[]),
        "transform" => {
            only(fields, &["jq"])?;
            match fields.get("jq") {
                Some(Value::String(_)) => Ok(()),
                _ => {
                    Err(FieldError::wrong("fields.jq", "must be a jq expression, such as \"{body: .body}\""))
                }
            }
        }
        _ if NOT_YET.contains(&name) => Err(FieldError {
            field: "builtin".into(),
            message: format!("'{name}' is not supported by this version: use log, transform or an image"),
            not_yet: true,
        }),
        _ => Err(FieldError::wrong("builtin", format!("'{name}' is none: use log, transform or an image"))),
    }
}

fn only(fields: &Map<String, Value>, known: &[&str]) -> Result<(), FieldError> {
    match fields.keys().find(|key| !known.contains(&key.as_str())) {
        Some(key) => {
            Err(FieldError::wrong(&format!("fields.{key}"), "is no field of this built-in: remove it"))
        }
        None => Ok(()),
    }
}
