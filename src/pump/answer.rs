//! What an answer means: the messages that a component or a built-in gives, or why it is none.
//!
//! Bodies are never read into values here: they stay the text that they are, so that a message weighs what it is long.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Error, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

use crate::broker::message::MAX_OUTPUTS;

/// The parts of a message, but for its id. Those that are absent or null are `None`.
#[derive(Clone, Copy, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Parts<'a> {
    /// Files and the like.
    pub attachments: Option<&'a RawValue>,
    /// What it is about.
    pub body: Option<&'a RawValue>,
    /// The request's headers.
    pub headers: Option<&'a RawValue>,
    /// Where it comes from.
    pub metadata: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    method: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    url: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    query: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    path_suffix: Option<&'a RawValue>,
}

/// A message that is about to be published.
#[derive(Serialize)]
struct Outgoing<'a> {
    id: &'a str,
    #[serde(flatten)]
    parts: Parts<'a>,
}

/// The messages of an answer, in their order; none where the flow ends here.
///
/// # Errors
/// What is wrong with it, and what to do.
pub fn read(answer: &[u8]) -> Result<Vec<Parts<'_>>, String> {
    if answer.trim_ascii().is_empty() {
        return Ok(Vec::new());
    }
    match serde_json::from_slice(answer) {
        Ok(Answer::One(parts)) => Ok(vec![parts]),
        Ok(Answer::Many(all)) => Ok(all),
        Err(error) => Err(format!("the answer is no message: {error}")),
    }
}

/// A message as it is stored, under its new id. What it does not say of its origin it has from the message that it was
/// made of.
#[must_use]
pub fn write(id: &str, parts: Parts<'_>, input_metadata: Option<&RawValue>) -> Vec<u8> {
    let nothing = serde_json::from_str::<&RawValue>("{}").ok();
    let parts = Parts {
        attachments: parts.attachments.or(nothing),
        headers: parts.headers.or(nothing),
        metadata: parts.metadata.or(input_metadata).or(nothing),
        ..parts
    };
    // Text and maps of text can always be written.
    serde_json::to_vec(&Outgoing { id, parts }).unwrap_or_default()
}

enum Answer<'a> {
    One(Parts<'a>),
    Many(Vec<Parts<'a>>),
}

impl<'de: 'a, 'a> Deserialize<'de> for Answer<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer
            .deserialize_map(Reader { whole: true })
            .map(|(parts, many)| many.map_or(Self::One(parts), Self::Many))
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Parts<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Reader { whole: false }).map(|(parts, _)| parts)
    }
}

/// Reads an object key by key, and ends at the first that does not belong there.
struct Reader {
    /// Whether it is a whole answer, which may be a list of messages.
    whole: bool,
}

impl<'de> Visitor<'de> for Reader {
    type Value = (Parts<'de>, Option<Vec<Parts<'de>>>);

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with `body`")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let (mut parts, mut many, mut keys) = (Parts::default(), None, 0);
        while let Some(key) = map.next_key::<Text<'de>>()? {
            keys += 1;
            match &*key.0 {
                // A message that is given back as it came has the id that it had: the new one follows from it.
                "id" => drop(map.next_value::<IgnoredAny>()?),
                "messages" if self.whole => many = Some(map.next_value::<Many<'de>>()?.0),
                key => part(&mut parts, key, &mut map)?,
            }
        }
        if many.is_some() && keys > 1 {
            return Err(Error::custom("`messages` stands alone: put what is beside it into the messages"));
        }
        Ok((parts, many))
    }
}

/// One part of a message, if it is one.
fn part<'de, A: MapAccess<'de>>(parts: &mut Parts<'de>, key: &str, map: &mut A) -> Result<(), A::Error> {
    let (part, begins) = match key {
        "attachments" => (&mut parts.attachments, Some('{')),
        "body" => (&mut parts.body, None),
        "headers" => (&mut parts.headers, Some('{')),
        "metadata" => (&mut parts.metadata, Some('{')),
        "method" => (&mut parts.method, Some('"')),
        "url" => (&mut parts.url, Some('"')),
        "query" => (&mut parts.query, Some('{')),
        "pathSuffix" => (&mut parts.path_suffix, Some('"')),
        unknown => {
            let short: String = unknown.chars().take(64).collect();
            return Err(Error::custom(format!("a message has no `{short}`: put it under `body`")));
        }
    };
    let value = map.next_value::<&'de RawValue>()?;
    match begins {
        _ if value.get() == "null" => *part = None,
        Some(first) if !value.get().starts_with(first) => {
            let what = if first == '{' { "an object" } else { "a text" };
            return Err(Error::custom(format!("`{key}` must be {what}")));
        }
        _ => *part = Some(value),
    }
    Ok(())
}

/// A key, borrowed where it has no escapes.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// The messages of `{"messages": […]}`, not too many.
struct Many<'a>(Vec<Parts<'a>>);

impl<'de: 'a, 'a> Deserialize<'de> for Many<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct List;
        impl<'de> Visitor<'de> for List {
            type Value = Vec<Parts<'de>>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of messages")
            }

            fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                let mut all = Vec::new();
                while let Some(parts) = seq.next_element()? {
                    if all.len() == MAX_OUTPUTS {
                        return Err(Error::custom(format!("an answer holds at most {MAX_OUTPUTS} messages")));
                    }
                    all.push(parts);
                }
                Ok(all)
            }
        }
        deserializer.deserialize_seq(List).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::broker::message::Message;

    /// What the next node gets for an answer, or the error.
    fn given(answer: &str) -> Result<Vec<Value>, String> {
        let metadata =
            RawValue::from_string(r#"{"from":"input"}"#.into()).map_err(|error| error.to_string())?;
        let all = read(answer.as_bytes())?;
        Ok(all
            .into_iter()
            .map(|parts| serde_json::from_slice(&write("7", parts, Some(&metadata))).unwrap_or_default())
            .collect())
    }

    #[test]
    fn a_message_keeps_its_metadata_unless_it_gives_another() {
        let message = |body: Value, metadata: Value| json!({"id": "7", "attachments": {}, "body": body, "headers": {}, "metadata": metadata});
        assert_eq!(
            given(r#"{"body": {"total": 1}}"#),
            Ok(vec![message(json!({"total": 1}), json!({"from": "input"}))])
        );
        assert_eq!(given(r#"{"metadata": {}}"#), Ok(vec![message(Value::Null, json!({}))]));
        assert_eq!(given("{}"), Ok(vec![message(Value::Null, json!({"from": "input"}))]));
    }

    #[test]
    fn a_message_that_is_given_back_as_it_came_is_one() {
        let request = json!({
            "id": "1", "attachments": {}, "body": 5, "headers": {"a": "b"}, "metadata": {}, "method": "POST",
            "url": "/x?y=z", "query": {"y": "z"}, "pathSuffix": "x",
        });
        let mut expected = request.clone();
        expected["id"] = "7".into();
        assert_eq!(given(&request.to_string()), Ok(vec![expected]));
    }

    #[test]
    fn an_answer_without_a_body_ends_the_message() {
        assert_eq!(given(""), Ok(vec![]));
        assert_eq!(given(" \n"), Ok(vec![]));
        assert_eq!(given(r#"{"messages": []}"#), Ok(vec![]));
    }

    #[test]
    fn several_messages_come_in_their_order() {
        let bodies: Vec<_> = given(r#"{"messages": [{"body": 1}, {"body": 2}]}"#)
            .unwrap()
            .into_iter()
            .map(|message| message["body"].clone())
            .collect();
        assert_eq!(bodies, [json!(1), json!(2)]);
    }

    #[test]
    fn an_answer_that_is_no_message_says_why() {
        let cases = [
            (r#"{"total": 5}"#, "a message has no `total`: put it under `body`"),
            (r#"{"messages": [{"total": 5}]}"#, "a message has no `total`: put it under `body`"),
            (r#"{"messages": [], "body": 1}"#, "`messages` stands alone"),
            (r#"{"messages": {}}"#, "expected a list of messages"),
            (r#"{"messages": [{"messages": []}]}"#, "a message has no `messages`"),
            (r#"{"headers": [1]}"#, "`headers` must be an object"),
            (r#"{"method": 5}"#, "`method` must be a text"),
            ("[1]", "expected an object with `body`"),
            ("null", "expected an object with `body`"),
            ("<html>", "expected value"),
            (r#"{"body": 1} {"body": 2}"#, "trailing characters"),
            (r#"{"body": "#, "EOF"),
        ];
        for (answer, why) in cases {
            let error = given(answer).unwrap_err();
            assert!(error.contains(why), "{answer}: {error}");
        }
        let many = format!(r#"{{"messages": [{}{{}}]}}"#, "{},".repeat(MAX_OUTPUTS));
        assert!(given(&many).unwrap_err().contains("at most 10000 messages"));
    }

    #[test]
    fn a_body_that_is_nested_without_end_is_passed_on_and_not_followed() {
        let deep = format!(r#"{{"body": {}{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
        assert_eq!(read(deep.as_bytes()).unwrap().len(), 1);
    }

    proptest! {
        #[test]
        fn nothing_that_a_component_answers_stops_a_pump(answer in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = read(&answer);
        }

        #[test]
        fn what_is_written_is_a_message(body in "[ -~]{0,20}", key in "[a-z]{1,8}", id in "[0-9a-f]{32}") {
            let answer = json!({"body": {key: body}}).to_string();
            let parts = read(answer.as_bytes()).unwrap()[0];
            let message: Message = serde_json::from_slice(&write(&id, parts, None)).unwrap();
            prop_assert_eq!(json!({"body": message.body}).to_string(), answer);
            prop_assert_eq!(message.id, id);
        }
    }
}
