//! `split`: makes a message of each element of a list.

use std::borrow::Cow;
use std::collections::BTreeMap;

use futures::future::BoxFuture;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::broker::message::MAX_OUTPUTS;
use crate::pump::input::Input;
use crate::pump::step::Failure;
use crate::pump::{Attempt, Handle};

use super::{FieldError, only};

/// Where the list is unless the node says otherwise.
const BODY: &str = "body";

/// The built-in: where in a message the list is.
#[derive(Debug)]
pub struct Split(String);

impl Split {
    /// Reads its fields: `field`, where the list is, such as `body.orders`; absent, it is `body`.
    ///
    /// # Errors
    /// It is no path.
    pub fn of(fields: &Map<String, Value>) -> Result<Self, FieldError> {
        only(fields, &["field"])?;
        let wrong = || FieldError::wrong("fields.field", "must be the path of a list, such as `body.orders`");
        let Some(field) = fields.get("field") else { return Ok(Self(BODY.into())) };
        let path = field.as_str().filter(|path| path.split('.').all(|part| !part.is_empty()));
        path.map(|path| Self(path.into())).ok_or_else(wrong)
    }

    /// The elements as messages, in the form of an answer. They stay the text that they are.
    fn messages(&self, payload: &[u8]) -> Result<Vec<u8>, String> {
        let list = find(payload, &self.0)?;
        let list = list.ok_or_else(|| format!("`{}` is not there: `split` needs a list", self.0))?;
        let elements: Vec<&RawValue> = serde_json::from_str(list.get())
            .map_err(|_| format!("`{}` is {}: `split` needs a list", self.0, kind(list)))?;
        if elements.len() > MAX_OUTPUTS {
            return Err(format!(
                "`{}` has {} elements, and at most {MAX_OUTPUTS} can be split",
                self.0,
                elements.len()
            ));
        }
        let messages: Vec<_> = elements.iter().map(|element| format!("{{\"body\":{element}}}")).collect();
        Ok(format!("{{\"messages\":[{}]}}", messages.join(",")).into_bytes())
    }
}

impl Handle for Split {
    fn handle<'a>(&'a self, input: &'a Input) -> BoxFuture<'a, Attempt> {
        let attempt = match self.messages(&input.payload) {
            Ok(messages) => Attempt::Answer(messages.into(), None),
            Err(reason) => Attempt::Failed(Failure::last(reason)),
        };
        Box::pin(std::future::ready(attempt))
    }
}

/// What lies at a path of a JSON object, as text.
fn find<'a>(payload: &'a [u8], path: &str) -> Result<Option<&'a RawValue>, String> {
    let mut inside: &RawValue =
        serde_json::from_slice(payload).map_err(|error| format!("the message cannot be read: {error}"))?;
    for part in path.split('.') {
        let fields: Result<BTreeMap<Cow<'a, str>, &'a RawValue>, _> = serde_json::from_str(inside.get());
        match fields.ok().and_then(|fields| fields.get(part).copied()) {
            Some(value) => inside = value,
            None => return Ok(None),
        }
    }
    Ok(Some(inside))
}

fn kind(value: &RawValue) -> &'static str {
    match value.get().as_bytes().first() {
        Some(b'{') => "an object",
        Some(b'"') => "a text",
        Some(b't' | b'f') => "true or false",
        Some(b'n') => "null",
        _ => "a number",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn split(fields: Value, message: &str) -> Result<String, String> {
        let Value::Object(fields) = fields else { panic!("an object") };
        let split = Split::of(&fields).map_err(|wrong| format!("{}: {}", wrong.field, wrong.message))?;
        split.messages(message.as_bytes()).map(|answer| String::from_utf8(answer).unwrap())
    }

    #[test]
    fn each_element_is_a_message_and_stays_the_text_that_it_is() {
        assert_eq!(
            split(json!({}), r#"{"body": [1.50, {"a": "]"}, "x"]}"#),
            Ok(r#"{"messages":[{"body":1.50},{"body":{"a": "]"}},{"body":"x"}]}"#.into())
        );
        assert_eq!(
            split(json!({"field": "body.all.orders"}), r#"{"body": {"all": {"orders": [7]}}}"#),
            Ok(r#"{"messages":[{"body":7}]}"#.into())
        );
        assert_eq!(split(json!({}), r#"{"body": []}"#), Ok(r#"{"messages":[]}"#.into()));
    }

    #[test]
    fn what_is_no_list_is_named() {
        for (message, says) in [
            (r#"{"body": {}}"#, "`body` is an object: `split` needs a list"),
            (r#"{"body": "x"}"#, "`body` is a text: `split` needs a list"),
            (r#"{"body": null}"#, "`body` is null: `split` needs a list"),
            (r#"{"body": -1}"#, "`body` is a number: `split` needs a list"),
            ("{}", "`body` is not there: `split` needs a list"),
        ] {
            assert_eq!(split(json!({}), message), Err(says.into()));
        }
        let missing = split(json!({"field": "body.orders"}), r#"{"body": [1]}"#);
        assert_eq!(missing, Err("`body.orders` is not there: `split` needs a list".into()));
        let many = format!(r#"{{"body": [{}1]}}"#, "1,".repeat(MAX_OUTPUTS));
        assert_eq!(
            split(json!({}), &many),
            Err("`body` has 10001 elements, and at most 10000 can be split".into())
        );
    }

    #[test]
    fn a_path_that_is_none_is_refused() {
        for field in [json!(7), json!(""), json!("body..orders")] {
            assert_eq!(
                split(json!({ "field": field }), "{}"),
                Err("fields.field: must be the path of a list, such as `body.orders`".into())
            );
        }
    }
}
