//! `exists` and `missing`: a field, or a scalar in a list.

use serde_json::Value;

use crate::filter::error::{ParseError, Place};
use crate::filter::path::Path;
use crate::filter::scalar::Scalar;
use crate::filter::tree::Term;

/// Reads `"field"`, `'field["v"]'`, or either under `field`.
///
/// # Errors
/// It is none of them.
pub fn read(value: &Value, place: &Place) -> Result<Term, ParseError> {
    if let Value::String(text) = value {
        return field(text, place);
    }
    match value.as_object().filter(|object| object.len() == 1).and_then(|object| object.get("field")) {
        Some(Value::String(text)) => field(text, &place.key("field")),
        Some(_) => Err(place.key("field").error("must be a field's path, such as \"body.total\"")),
        None => {
            Err(place.error("must be a field's path, such as \"body.total\" or \"body.tags[\\\"new\\\"]\""))
        }
    }
}

fn field(text: &str, place: &Place) -> Result<Term, ParseError> {
    let path = |text: &str| Path::parse(&unescaped(text)).map_err(|wrong| place.error(wrong));
    let Some((before, after)) = split(text) else { return Ok(Term::Exists(path(text)?)) };
    let Some(json) = after.strip_suffix(']') else {
        return Err(place.error("has a [ but no ] at its end: write \\[ for a bracket that is part of a key"));
    };
    let value = serde_json::from_str::<Value>(json).ok();
    match value.as_ref().and_then(Scalar::of) {
        Some(scalar) => Ok(Term::Contains(path(before)?, scalar.owned())),
        None => Err(place.error(
            "must hold JSON in its brackets: a string in double quotes, a number, true, false or null",
        )),
    }
}

/// The text before and after the first bracket that no backslash stands before.
fn split(text: &str) -> Option<(&str, &str)> {
    let mut before = None;
    for (at, character) in text.char_indices() {
        if character == '[' && before != Some('\\') {
            return Some((text.get(..at)?, text.get(at + 1..)?));
        }
        before = Some(character);
    }
    None
}

fn unescaped(text: &str) -> String {
    text.replace(r"\[", "[").replace(r"\]", "]")
}
