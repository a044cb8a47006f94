//! The message that an answer becomes. Pure.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::StatusCode;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, RETRY_AFTER};
use mime::Mime;
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Map, Value, json};

use crate::jq::json::depth;

use super::header;

/// How deep JSON may be: as deep as that of a webhook's request.
const DEEPEST: usize = 100;
/// What a message has beside the body, in bytes, as a rule.
const BESIDE: usize = 2 << 10;
const HINT: &str = "an answer must be JSON (application/json or any +json) or text (text/*)";

#[derive(Serialize)]
struct Answer<'a> {
    body: Body<'a>,
    headers: Map<String, Value>,
    metadata: BTreeMap<String, Box<RawValue>>,
}

/// What an answer is about. JSON stays the text that it is.
#[derive(Serialize)]
#[serde(untagged)]
enum Body<'a> {
    Nothing,
    Json(&'a RawValue),
    Text(&'a str),
}

/// The message of an answer.
///
/// # Errors
/// It is none that a message can hold.
pub(super) fn of(
    status: StatusCode,
    headers: &HeaderMap,
    body: &[u8],
    input: Option<&RawValue>,
) -> Result<Bytes, String> {
    let mut metadata: BTreeMap<String, Box<RawValue>> = input
        .map_or_else(|| Ok(BTreeMap::new()), |input| serde_json::from_str(input.get()))
        .map_err(|error| format!("the message's metadata cannot be read: {error}"))?;
    // A number can always be written.
    if let Ok(http) = to_raw_value(&json!({"status": status.as_u16()})) {
        metadata.insert("http".into(), http);
    }
    let answer = Answer { body: read(headers, body)?, headers: header::of_message(headers), metadata };
    // A large one would have twice its length if it grew by itself.
    let mut message = Vec::with_capacity(body.len() + BESIDE);
    serde_json::to_writer(&mut message, &answer).map_err(|error| format!("it cannot be written: {error}"))?;
    Ok(message.into())
}

fn read<'a>(headers: &HeaderMap, body: &'a [u8]) -> Result<Body<'a>, String> {
    if body.is_empty() {
        return Ok(Body::Nothing);
    }
    let Some(given) = headers.get(CONTENT_TYPE) else { return text(body) };
    let media: Option<Mime> = given.to_str().ok().and_then(|text| text.parse().ok());
    let media = media.ok_or_else(|| format!("its content type cannot be understood: {HINT}"))?;
    let charset = media.get_param(mime::CHARSET).map(|charset| charset.as_str());
    // ASCII is the same in all of those that are in use.
    if !charset.is_none_or(is_utf8) && !body.is_ascii() {
        return Err(format!("its charset is {}: it must be UTF-8", charset.unwrap_or_default()));
    }
    match (media.type_(), media.subtype()) {
        _ if media.suffix() == Some(mime::JSON) || media.subtype() == mime::JSON => json(body),
        (mime::TEXT, _) => text(body),
        _ => Err(format!("its content type is {}: {HINT}", media.essence_str())),
    }
}

fn is_utf8(charset: &str) -> bool {
    charset.eq_ignore_ascii_case("utf-8") || charset.eq_ignore_ascii_case("utf8")
}

fn text(body: &[u8]) -> Result<Body<'_>, String> {
    std::str::from_utf8(body).map(Body::Text).map_err(|error| format!("it is no UTF-8: {error}"))
}

fn json(body: &[u8]) -> Result<Body<'_>, String> {
    if depth(body) > DEEPEST {
        return Err(format!("it is more than {DEEPEST} levels deep"));
    }
    serde_json::from_slice(body).map(Body::Json).map_err(|error| format!("it is no JSON: {error}"))
}

/// Whether a body is the one that was meant, and no packed form of it.
pub(super) fn is_plain(headers: &HeaderMap) -> bool {
    headers.get_all(CONTENT_ENCODING).iter().all(|coding| coding.as_bytes().eq_ignore_ascii_case(b"identity"))
}

/// How long a server asks to be left alone: seconds, or until a date.
pub(super) fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let seconds = text.parse().ok().map(Duration::from_secs);
    seconds.or_else(|| httpdate::parse_http_date(text).ok()?.duration_since(now).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        super::super::header::all(
            &pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect::<Vec<_>>(),
        )
        .unwrap()
    }

    fn given(content_type: &str, body: &[u8]) -> Result<Value, String> {
        let headers = headers(&[("content-type", content_type)]);
        let message = of(StatusCode::OK, &headers, body, None)?;
        let message: Value = serde_json::from_slice(&message).map_err(|error| error.to_string())?;
        assert_eq!(message["metadata"], json!({"http": {"status": 200}}));
        Ok(message["body"].clone())
    }

    #[test]
    fn a_message_has_the_answers_body_headers_and_status() {
        let input = RawValue::from_string(r#"{"from": 12345678901234567890, "http": 1}"#.into()).unwrap();
        let headers = headers(&[("content-type", "application/json"), ("x-total", "5")]);
        let message = of(StatusCode::NOT_FOUND, &headers, br#" {"n":  1.10}"#, Some(&input)).unwrap();
        assert_eq!(
            std::str::from_utf8(&message).unwrap(),
            r#"{"body":{"n":  1.10},"headers":{"content-type":"application/json","x-total":"5"},"#.to_owned()
                + r#""metadata":{"from":12345678901234567890,"http":{"status":404}}}"#
        );
    }

    #[test]
    fn a_body_is_json_text_or_nothing() {
        for media in
            ["application/json", "application/problem+json; charset=UTF-8", "text/json", "APPLICATION/JSON"]
        {
            assert_eq!(given(media, b"[1]"), Ok(json!([1])), "{media}");
            assert_eq!(given(media, b""), Ok(Value::Null), "{media}");
        }
        for media in ["text/plain", "text/csv; charset=utf8", "text/html; charset=iso-8859-1"] {
            assert_eq!(given(media, b"[1]"), Ok(json!("[1]")), "{media}");
        }
        assert_eq!(given("image/png", b""), Ok(Value::Null));
        let message = of(StatusCode::OK, &HeaderMap::new(), "ü".as_bytes(), None).unwrap();
        assert_eq!(
            &message[..],
            r#"{"body":"ü","headers":{},"metadata":{"http":{"status":200}}}"#.as_bytes()
        );
    }

    #[test]
    fn a_body_that_no_message_can_hold_says_why() {
        let nested = |levels| [vec![b'['; levels], vec![b']'; levels]].concat();
        assert!(given("application/json", &nested(100)).is_ok());
        for (media, body, why) in [
            ("application/json", nested(101), "it is more than 100 levels deep".to_owned()),
            ("application/json", nested(1 << 20), "it is more than 100 levels deep".into()),
            (
                "application/json",
                b"{\"a\":".to_vec(),
                "it is no JSON: EOF while parsing a value at line 1 column 5".into(),
            ),
            (
                "application/json",
                b"1 2".to_vec(),
                "it is no JSON: trailing characters at line 1 column 3".into(),
            ),
            (
                "text/plain",
                b"\xff".to_vec(),
                "it is no UTF-8: invalid utf-8 sequence of 1 bytes from index 0".into(),
            ),
            (
                "text/plain; charset=latin1",
                b"\xff".to_vec(),
                "its charset is latin1: it must be UTF-8".into(),
            ),
            ("image/png", b"x".to_vec(), format!("its content type is image/png: {HINT}")),
            ("json", b"1".to_vec(), format!("its content type cannot be understood: {HINT}")),
        ] {
            assert_eq!(given(media, &body), Err(why), "{media}");
        }
        assert!(of(StatusCode::OK, &HeaderMap::new(), b"\xff", None).is_err());
        assert!(given("application/json", b"\"\xff\"").is_err());
    }

    #[test]
    fn a_body_that_is_packed_is_known() {
        assert!(is_plain(&HeaderMap::new()) && is_plain(&headers(&[("content-encoding", "Identity")])));
        assert!(!is_plain(&headers(&[("content-encoding", "gzip")])));
        assert!(!is_plain(&headers(&[("content-encoding", "identity"), ("content-encoding", "br")])));
    }

    #[test]
    fn a_server_asks_for_a_pause_in_seconds_or_by_date() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        let asked = |text| retry_after(&headers(&[("retry-after", text)]), now).map(|pause| pause.as_secs());
        assert_eq!(asked("7"), Some(7));
        assert_eq!(asked("Sun, 06 Nov 1994 08:50:37 GMT"), Some(60));
        assert_eq!(asked("Sun, 06 Nov 1994 08:48:37 GMT"), None);
        assert_eq!([asked("soon"), asked("-1"), asked("1.5")], [None; 3]);
        assert_eq!(retry_after(&HeaderMap::new(), now), None);
    }
}
