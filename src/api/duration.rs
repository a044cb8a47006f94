//! Lengths of time as Kubernetes writes them: `30s`, `1m30s`, `500ms`.

use std::borrow::Cow;

use kube::core::validate;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::schema::rule;

/// The longest that a field of this type may ask for.
pub const LONGEST: std::time::Duration = std::time::Duration::from_secs(24 * 60 * 60);

/// A length of time, kept as the user wrote it: an API that rewrote `90s` to `1m30s` would drift from its
/// source.
///
/// The form is the Gateway API's (GEP-2257): up to four groups of up to five digits and one of `h`, `m`, `s`,
/// `ms`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Duration(pub String);

/// Why a text is no length of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Invalid {
    /// It has another form.
    #[error("a duration must be whole numbers with units h, m, s or ms, such as 30s, 1m30s or 500ms")]
    Form,
    /// It is zero or longer than a day.
    #[error("a duration must be more than zero and at most 24h")]
    Range,
}

impl Duration {
    /// The length that the text means.
    ///
    /// # Errors
    /// Where the text breaks the rules of the schema: an object that was stored under older rules.
    pub fn parse(&self) -> Result<std::time::Duration, Invalid> {
        let mut rest = self.0.as_str();
        let mut total = std::time::Duration::ZERO;
        let mut groups = 0;
        while !rest.is_empty() {
            let (length, after) = group(rest).ok_or(Invalid::Form)?;
            (total, rest, groups) = (total + length, after, groups + 1);
        }
        match groups {
            1..=4 if !total.is_zero() && total <= LONGEST => Ok(total),
            1..=4 => Err(Invalid::Range),
            _ => Err(Invalid::Form),
        }
    }
}

/// The first number with its unit, and what comes after.
fn group(text: &str) -> Option<(std::time::Duration, &str)> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, rest) = text.split_at(digits);
    let number: u64 = if digits <= 5 { number.parse().ok()? } else { return None };
    // `ms` before `m`, which it begins with.
    [("ms", 1), ("h", 3_600_000), ("m", 60_000), ("s", 1_000)].into_iter().find_map(|(unit, millis)| {
        Some((std::time::Duration::from_millis(number * millis), rest.strip_prefix(unit)?))
    })
}

const FORM: &str = "self.matches('^([0-9]{1,5}(h|m|s|ms)){1,4}$')";

impl JsonSchema for Duration {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let mut schema = json_schema!({ "type": "string", "maxLength": 32 });
        let rules = [
            rule(FORM, Invalid::Form.to_string()),
            rule(
                format!("!{FORM} || (duration(self) > duration('0s') && duration(self) <= duration('24h'))"),
                Invalid::Range.to_string(),
            ),
        ];
        for rule in rules {
            // Only a rule that is no JSON could fail here, and a test of the CRDs would see it missing.
            let _ = validate(&mut schema, rule);
        }
        schema
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_reads_as_kubernetes_writes_it() {
        for (text, millis) in [
            ("500ms", 500),
            ("30s", 30_000),
            ("1m30s", 90_000),
            ("24h", 86_400_000),
            ("1h0m0s1ms", 3_600_001),
        ] {
            assert_eq!(
                Duration(text.into()).parse(),
                Ok(std::time::Duration::from_millis(millis)),
                "{text} is legal"
            );
        }
    }

    #[test]
    fn what_is_no_duration_says_what_one_looks_like() {
        for text in ["", "30", "s", "1.5s", "-1s", "1d", "1 s", "123456s", "1s1s1s1s1s", "1µs"] {
            assert_eq!(Duration(text.into()).parse(), Err(Invalid::Form), "{text:?}");
        }
        for text in ["0s", "0h0m", "24h1ms", "99999h"] {
            assert_eq!(Duration(text.into()).parse(), Err(Invalid::Range), "{text:?}");
        }
    }

    #[test]
    fn a_duration_keeps_the_users_words() {
        let text = "\"90s\"";
        let read: Duration = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&read).unwrap(), text);
    }
}
