//! Whether an object already is what it should be.

use data_encoding::HEXLOWER;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::APPLIED;

/// Whether a live object holds all that is wanted, and nothing that was wanted before and is no more.
///
/// The first is seen from the fields: what a person has changed by hand differs. The second needs the hash of what was
/// last applied: a field that is wanted no more is no difference by itself, since the server sets fields too.
#[must_use]
pub fn holds(live: &Value, wanted: &Value) -> bool {
    let applied =
        |object: &Value| object.pointer("/metadata/annotations").and_then(|all| all.get(APPLIED)).cloned();
    applied(live) == applied(wanted) && includes(live, wanted)
}

/// A short hash of an object.
#[must_use]
pub fn hash(object: &Value) -> String {
    let mut hex = HEXLOWER.encode(&Sha256::digest(object.to_string()));
    hex.truncate(16);
    hex
}

fn includes(live: &Value, wanted: &Value) -> bool {
    match (live, wanted) {
        (Value::Object(live), Value::Object(wanted)) => {
            wanted.iter().all(|(key, wanted)| match live.get(key) {
                Some(live) => includes(live, wanted),
                None => says_nothing(wanted),
            })
        }
        (Value::Array(live), Value::Array(wanted)) => {
            live.len() == wanted.len() && live.iter().zip(wanted).all(|(live, wanted)| includes(live, wanted))
        }
        _ => live == wanted || quantity(live).is_some_and(|live| Some(live) == quantity(wanted)),
    }
}

/// Whether the server leaves such a value out.
fn says_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.values().all(says_nothing),
        Value::String(text) => text.is_empty(),
        Value::Bool(_) | Value::Number(_) => false,
    }
}

/// A resource quantity in thousandths, since the server writes `0.5` as `500m`.
fn quantity(value: &Value) -> Option<i128> {
    const UNITS: [(&str, i128); 13] = [
        ("m", 1),
        ("Ki", 1000 << 10),
        ("Mi", 1000 << 20),
        ("Gi", 1000 << 30),
        ("Ti", 1000 << 40),
        ("Pi", 1000 << 50),
        ("k", 1_000_000),
        ("M", 1_000_000_000),
        ("G", 1_000_000_000_000),
        ("T", 1_000_000_000_000_000),
        ("P", 1_000_000_000_000_000_000),
        ("E", 1_000_000_000_000_000_000_000),
        ("", 1000),
    ];
    let text = value.as_str()?;
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let (_, scale) = UNITS.into_iter().find(|(name, _)| *name == unit)?;
    let (whole, part) = number.split_once('.').unwrap_or((number, ""));
    let all: i128 = format!("{whole}{part}").parse().ok()?;
    let below = 10_i128.checked_pow(u32::try_from(part.len()).ok()?)?;
    all.checked_mul(scale).map(|scaled| scaled / below)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(applied: &str, spec: &Value) -> Value {
        json!({"metadata": {"annotations": {APPLIED: applied}}, "spec": spec})
    }

    #[test]
    fn what_the_server_adds_is_no_difference_and_what_a_person_changes_is() {
        let wanted = object("h", &json!({"a": 1, "list": [{"name": "x"}], "none": {}}));
        assert!(holds(
            &object("h", &json!({"a": 1, "list": [{"name": "x", "added": true}], "b": 2})),
            &wanted
        ));
        assert!(!holds(&object("h", &json!({"a": 2, "list": [{"name": "x"}]})), &wanted));
        assert!(!holds(&object("h", &json!({"a": 1, "list": [{"name": "x"}, {"name": "y"}]})), &wanted));
        assert!(!holds(&object("older", &json!({"a": 1, "list": [{"name": "x"}]})), &wanted));
    }

    #[test]
    fn quantities_are_compared_by_what_they_mean() {
        for (live, wanted) in [("500m", "0.5"), ("1Gi", "1024Mi"), ("1", "1000m"), ("2M", "2000k")] {
            assert!(includes(&json!(live), &json!(wanted)), "{live} {wanted}");
        }
        assert!(!includes(&json!("500m"), &json!("0.6")));
        assert!(!includes(&json!("abc"), &json!("abd")));
    }
}
