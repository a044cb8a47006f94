//! A request becomes a message, or a refusal. Pure.

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, COOKIE, HeaderMap};
use http::request::Parts;
use mime::Mime;
use serde_json::{Map, Value};

use crate::broker::message::{MAX_MESSAGE, Message};
use crate::gateway::answer::{REQUEST_ID, Refusal};
use crate::gateway::id::{Content, MessageKey};
use crate::gateway::route::Route;
use crate::gateway::target::{Target, decode};

/// How deep JSON may be.
const DEEPEST: usize = 100;

/// How a body is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// There is none.
    Nothing,
    /// JSON.
    Json,
    /// The fields of a form.
    Form,
    /// Text.
    Text,
}

/// Checks what can be known of a request before its body is read, and then once more with the length that it had.
///
/// # Errors
/// The Flow does not take the method, or not that much.
pub fn admit(route: &Route, parts: &Parts, length: u64) -> Result<(), Refusal> {
    if !route.takes(&parts.method) {
        return Err(Refusal::method(route.allow()));
    }
    if usize::try_from(length).map_or(true, |length| length > route.max_body) {
        return Err(Refusal::too_large("a body for this address", route.max_body));
    }
    Ok(())
}

/// How the body of a request is to be read.
///
/// # Errors
/// It is of a kind that is not taken.
pub fn kind(headers: &HeaderMap, has_body: bool) -> Result<Kind, Refusal> {
    let what = "send JSON (application/json or any +json), a form (application/x-www-form-urlencoded) or text (text/*)";
    if headers
        .get(CONTENT_ENCODING)
        .is_some_and(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"identity"))
    {
        return Err(Refusal::media_type("`Content-Encoding` is not supported: send the body as it is"));
    }
    let mut given = headers.get_all(CONTENT_TYPE).iter();
    let Some(first) = given.next() else {
        let missing = format!("`Content-Type` is missing: {what}");
        return if has_body { Err(Refusal::media_type(missing)) } else { Ok(Kind::Nothing) };
    };
    let media: Option<Mime> = first.to_str().ok().and_then(|text| text.parse().ok());
    let Some(media) = media.filter(|_| given.next().is_none()) else {
        return Err(Refusal::media_type(format!("`Content-Type` cannot be understood: {what}")));
    };
    let charset = media.get_param(mime::CHARSET).map(|charset| charset.as_str());
    if !charset.is_none_or(|name| name.eq_ignore_ascii_case("utf-8") || name.eq_ignore_ascii_case("utf8")) {
        return Err(Refusal::media_type("the charset in `Content-Type` is not supported: send UTF-8"));
    }
    let is_json = media.suffix() == Some(mime::JSON) || media.subtype() == mime::JSON;
    match (media.type_(), media.subtype()) {
        (mime::APPLICATION, mime::WWW_FORM_URLENCODED) => Ok(Kind::Form),
        // Also application/vnd.shop+json, model/gltf+json and text/json.
        _ if is_json => Ok(Kind::Json),
        (mime::TEXT, _) => Ok(Kind::Text),
        _ => Err(Refusal::media_type(format!("`{}` is not supported: {what}", media.essence_str()))),
    }
}

/// What a body says. An empty one is `{}`, as for the systems that Millrace replaces; an empty text is text.
///
/// # Errors
/// It is broken.
pub fn body(kind: Kind, bytes: &[u8]) -> Result<Value, Refusal> {
    let utf8 = || {
        std::str::from_utf8(bytes).map_err(|error| {
            Refusal::malformed("InvalidUtf8", format!("the body is no UTF-8: {error}; send UTF-8"))
        })
    };
    match kind {
        Kind::Text => utf8().map(Value::from),
        _ if bytes.is_empty() => Ok(Value::Object(Map::new())),
        Kind::Json => json(utf8()?),
        Kind::Form => fields(utf8()?).map(Value::Object),
        Kind::Nothing => Err(Refusal::media_type("`Content-Type` is missing")),
    }
}

/// The parser's own limit of depth keeps a body of a million brackets from the end of the stack. Ours is lower: whoever
/// reads the message later has a body inside something else, and the same parser.
fn json(text: &str) -> Result<Value, Refusal> {
    let broken = |what: &dyn std::fmt::Display| {
        let message = format!("the body is no JSON: {what}; send JSON, or another `Content-Type`");
        Refusal::malformed("InvalidJson", message)
    };
    let value = serde_json::from_str(text).map_err(|error| broken(&error))?;
    if is_deeper(&value, DEEPEST) {
        Err(broken(&format!("more than {DEEPEST} levels deep")))
    } else {
        Ok(value)
    }
}

fn is_deeper(value: &Value, levels: usize) -> bool {
    let inside = |value: &Value| is_deeper(value, levels - 1);
    match value {
        Value::Array(values) => levels == 0 || values.iter().any(inside),
        Value::Object(fields) => levels == 0 || fields.values().any(inside),
        _ => false,
    }
}

/// The fields of a form or query. A key that comes more than once has an array of its values.
///
/// # Errors
/// The percent-encoding hides something that is no UTF-8.
pub fn fields(text: &str) -> Result<Map<String, Value>, Refusal> {
    if decode(text).is_none() {
        let message = "the percent-encoding of the query or form gives no UTF-8: encode UTF-8";
        return Err(Refusal::malformed("InvalidUtf8", message));
    }
    let mut fields = Map::new();
    for (key, value) in form_urlencoded::parse(text.as_bytes()) {
        let value = Value::from(value);
        match fields.get_mut(&*key) {
            None => drop(fields.insert(key.into_owned(), value)),
            Some(Value::Array(values)) => values.push(value),
            Some(first) => *first = Value::Array(vec![first.take(), value]),
        }
    }
    Ok(fields)
}

/// The headers of a request, all of them: a component may have to check a signature or a token, for the gateway does
/// not. Values of one name are joined as HTTP joins them.
fn headers(headers: &HeaderMap, request_id: &str) -> Map<String, Value> {
    let text = |name| {
        let values = headers.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes()));
        values.collect::<Vec<_>>().join(if name == COOKIE { "; " } else { ", " })
    };
    let mut all: Map<_, _> =
        headers.keys().map(|name| (name.as_str().to_owned(), Value::from(text(name)))).collect();
    all.insert(REQUEST_ID.as_str().to_owned(), request_id.into());
    all
}

/// A request whose body was read and understood.
#[derive(Clone, Debug)]
pub struct Understood<'a> {
    parts: &'a Parts,
    raw: &'a [u8],
    suffix: &'a str,
    request_id: &'a str,
    message: Message,
}

/// A message as the broker gets it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Where it goes.
    pub subject: String,
    /// Its id.
    pub id: String,
    /// The message as JSON.
    pub payload: Bytes,
}

impl<'a> Understood<'a> {
    /// Reads a request: with POST `body` is its body, with GET its query.
    ///
    /// # Errors
    /// Something in it is broken.
    pub fn of(
        parts: &'a Parts,
        target: &Target<'a>,
        request_id: &'a str,
        kind: Kind,
        raw: &'a [u8],
    ) -> Result<Self, Refusal> {
        let query = fields(parts.uri.query().unwrap_or_default())?;
        let broken = || {
            Refusal::malformed("InvalidUtf8", "the percent-encoding of the path gives no UTF-8: encode UTF-8")
        };
        let suffix = decode(target.suffix).ok_or_else(broken)?;
        let is_get = parts.method == http::Method::GET;
        let message = Message {
            body: if is_get { Value::Object(query.clone()) } else { body(kind, raw)? },
            headers: headers(&parts.headers, request_id),
            method: Some(parts.method.to_string()),
            url: Some(parts.uri.path_and_query().map(ToString::to_string).unwrap_or_default()),
            query: Some(query),
            path_suffix: Some(suffix),
            ..Message::default()
        };
        Ok(Self { parts, raw, suffix: target.suffix, request_id, message })
    }

    /// The message for the Flow of a route.
    ///
    /// # Errors
    /// It is larger than a message may be.
    pub fn message(mut self, route: &Route, key: &MessageKey) -> Result<Stored, Refusal> {
        let query = self.parts.uri.query().unwrap_or_default();
        let content =
            Content { method: self.parts.method.as_str(), suffix: self.suffix, query, body: self.raw };
        let id = key.id(&route.uid, self.request_id, &content);
        self.message.id.clone_from(&id);
        // Maps of strings and values always have a JSON form.
        let payload = serde_json::to_vec(&self.message).unwrap_or_default();
        if payload.len() > MAX_MESSAGE {
            return Err(Refusal::too_large("the message that the request makes", MAX_MESSAGE));
        }
        Ok(Stored { subject: route.subject(), id, payload: payload.into() })
    }
}

#[cfg(test)]
mod tests;
