//! A message as it comes out of its queue.

use bytes::Bytes;
use k8s_openapi::jiff::Timestamp;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::answer::{self, Parts};

/// The longest id, in bytes: it becomes a header.
const ID_MAX: usize = 256;

/// A message that can be handled.
#[derive(Clone, Debug)]
pub struct Input {
    /// Its id.
    pub id: String,
    /// The whole of it, as JSON.
    pub payload: Bytes,
    /// Where it comes from: what a node gives has the same, unless it says otherwise.
    pub metadata: Option<Box<RawValue>>,
    /// When it came into its queue.
    pub queued: Timestamp,
}

#[derive(Deserialize)]
struct Head {
    id: String,
    #[serde(default)]
    metadata: Option<Box<RawValue>>,
}

impl Input {
    /// Reads what was in a queue, since `queued`.
    ///
    /// # Errors
    /// It is no message, and why.
    pub fn read(payload: Bytes, queued: Timestamp) -> Result<Self, String> {
        // A list of parts would be read as one, too.
        if !payload.trim_ascii_start().starts_with(b"{") {
            return Err("it is no message: it must be a JSON object".into());
        }
        let head: Head =
            serde_json::from_slice(&payload).map_err(|error| format!("it is no message: {error}"))?;
        let good =
            (1..=ID_MAX).contains(&head.id.len()) && head.id.bytes().all(|byte| byte.is_ascii_graphic());
        if !good {
            return Err(format!("it is no message: `id` must be 1 to {ID_MAX} visible ASCII characters"));
        }
        let metadata = head.metadata.filter(|raw| raw.get().starts_with('{'));
        Ok(Self { id: head.id, metadata, payload, queued })
    }

    /// What it is about, as JSON; `null` where it does not say.
    #[must_use]
    pub fn body(&self) -> &str {
        match answer::read(&self.payload).as_deref() {
            Ok([Parts { body: Some(body), .. }]) => body.get(),
            _ => "null",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_read_and_its_text_is_kept() {
        let text = r#"{"id": "a1", "body": {"total":  5}, "metadata": {"k": 1}}"#;
        let input = Input::read(Bytes::from_static(text.as_bytes()), Timestamp::UNIX_EPOCH).unwrap();
        assert_eq!((input.id.as_str(), input.body()), ("a1", r#"{"total":  5}"#));
        assert_eq!(input.metadata.unwrap().get(), r#"{"k": 1}"#);
        assert_eq!(input.payload, text);
    }

    #[test]
    fn what_is_no_message_says_why() {
        for (text, why) in [
            ("", "a JSON object"),
            ("hello", "a JSON object"),
            (r#"["a1"]"#, "a JSON object"),
            (r#"{"id": "#, "EOF"),
            (r#"{"body": 1}"#, "missing field `id`"),
            (r#"{"id": ""}"#, "visible ASCII"),
            (r#"{"id": "a\nb"}"#, "visible ASCII"),
        ] {
            let error = Input::read(Bytes::from_static(text.as_bytes()), Timestamp::UNIX_EPOCH).unwrap_err();
            assert!(error.starts_with("it is no message: ") && error.contains(why), "{text}: {error}");
        }
    }
}
