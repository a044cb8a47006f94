//! `show`: everything about one letter. What is in it may be anything, and is never written to a terminal as it is.

use std::fmt::Write as _;

use bytes::Bytes;
use clap::{Args, ValueEnum, value_parser};
use data_encoding::BASE64;
use k8s_openapi::jiff::Timestamp;
use serde::Serialize;
use serde_json::value::RawValue;

use super::out::put;
use super::reach::ReachArgs;
use super::select::named;
use super::table::age;
use super::text::{pretty, quiet};
use crate::broker::dead_letters::{Letter, Selection};
use crate::clock;

/// The options of `show`.
#[derive(Clone, Debug, Args)]
pub struct ShowArgs {
    /// Its id, as `list` gives it
    #[arg(value_name = "ID", value_parser = value_parser!(u64).range(1..))]
    id: u64,
    /// How it looks
    #[arg(short, long, value_name = "FORM", default_value = "text")]
    output: Form,
    #[command(flatten)]
    reach: ReachArgs,
}

/// How a letter looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Form {
    /// For people
    Text,
    /// One object
    Json,
}

/// A letter with what it holds.
#[derive(Debug, Serialize)]
struct Whole<'a> {
    #[serde(flatten)]
    letter: &'a Letter,
    #[serde(flatten)]
    content: &'a Content<'a>,
}

/// What it holds, by what it is.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
enum Content<'a> {
    /// JSON, with the numbers that it was sent with.
    Message(&'a RawValue),
    /// Text that is no JSON.
    Text(&'a str),
    /// In Base64: neither.
    Binary(String),
}

impl<'a> Content<'a> {
    fn of(payload: &'a [u8]) -> Self {
        match (serde_json::from_slice(payload), std::str::from_utf8(payload)) {
            (Ok(json), _) => Self::Message(json),
            (_, Ok(text)) => Self::Text(text),
            (..) => Self::Binary(BASE64.encode(payload)),
        }
    }
}

/// Shows.
///
/// # Errors
/// There is no such letter, or the broker cannot be reached or does not answer.
pub async fn run(args: ShowArgs) -> anyhow::Result<()> {
    let letters = args.reach.open().await?;
    let (letter, payload): (_, Bytes) = named(args.id, letters.get(args.id).await?, &Selection::default())?;
    let content = Content::of(&payload);
    let text = match args.output {
        Form::Json => json(&letter, &content)?,
        Form::Text => text(&letter, &content, clock::now()),
    };
    put(&text).map(drop)
}

fn json(letter: &Letter, content: &Content) -> serde_json::Result<String> {
    serde_json::to_string(&Whole { letter, content }).map(|json| quiet(&json) + "\n")
}

fn text(letter: &Letter, content: &Content, now: Timestamp) -> String {
    let (head, body) = match content {
        Content::Message(json) => (":".into(), pretty(json.get())),
        Content::Text(text) => (", which is no JSON:".into(), quiet(text)),
        Content::Binary(base64) => (format!(", which is no text: {base64}"), String::new()),
    };
    let id = if letter.message_id.is_empty() { "<none>" } else { &letter.message_id };
    let mut text = String::new();
    for (name, value) in [
        ("ID", letter.id.to_string()),
        ("Namespace", letter.namespace.to_string()),
        ("Flow", letter.flow.to_string()),
        ("Node", letter.node.to_string()),
        ("Reason", letter.reason.clone()),
        ("Attempts", letter.attempts.to_string()),
        ("Time", format!("{} ({} ago)", letter.time, age(letter.time, now))),
        ("Message ID", id.to_owned()),
        ("Size", format!("{} bytes", letter.size)),
    ] {
        // Writing to memory does not fail.
        let _ = writeln!(text, "{:<12} {value}", format!("{name}:"));
    }
    let _ = writeln!(text, "Message{head}");
    for line in body.lines() {
        let _ = writeln!(text, "  {line}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter() -> Letter {
        Letter {
            id: 7,
            namespace: "shop".parse().unwrap(),
            flow: "orders".parse().unwrap(),
            node: "map".parse().unwrap(),
            attempts: 3,
            time: Timestamp::UNIX_EPOCH,
            message_id: String::new(),
            size: 2,
            reason: "no".into(),
        }
    }

    #[test]
    fn what_would_command_a_terminal_is_shown_as_text() {
        let text = |payload: &[u8]| text(&letter(), &Content::of(payload), Timestamp::UNIX_EPOCH);
        let shown = text(b"\x1b[2Jhello\nyou");
        assert!(shown.ends_with("Message, which is no JSON:\n  \\u001b[2Jhello\n  you\n"), "{shown}");
        let shown = text(b"\xff\x00");
        assert!(shown.ends_with("Message, which is no text: /wA=\n"), "{shown}");
        let shown = text("{\"a\": \"\u{9b}2J\"}".as_bytes());
        assert!(shown.ends_with("Message:\n  {\n    \"a\": \"\\u009b2J\"\n  }\n"), "{shown}");
    }

    #[test]
    fn as_json_the_message_is_in_the_object_by_what_it_is() {
        let last = |payload: &[u8]| {
            let json = json(&letter(), &Content::of(payload)).unwrap();
            json.split_once(r#""reason":"no","#).unwrap().1.to_owned()
        };
        assert_eq!(last(br#"{"n": 1.10}"#), "\"message\":{\"n\": 1.10}}\n");
        assert_eq!(last(b"a\"b"), "\"text\":\"a\\\"b\"}\n");
        assert_eq!(last(b"\xff"), "\"binary\":\"/w==\"}\n");
    }
}
