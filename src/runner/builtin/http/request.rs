//! The request that a node sends for a message. Pure.

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderValue, USER_AGENT};
use http::{Method, Request};
use http_body_util::Full;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use url::Url;

use crate::pump::step::Failure;

use super::fields::{self, Fields};
use super::header;

const AGENT: HeaderValue = HeaderValue::from_static(concat!("millrace/", env!("CARGO_PKG_VERSION")));
/// What a segment of a path shows as something else: all but letters, digits, and what has no meaning in any path. `%` is
/// among it, so that what is encoded already stays data.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b'!')
    .remove(b'$')
    .remove(b'&')
    .remove(b'\'')
    .remove(b'(')
    .remove(b')')
    .remove(b'*')
    .remove(b'+')
    .remove(b',')
    .remove(b'=')
    .remove(b':')
    .remove(b'@');

/// A request, as often as it is sent.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Call {
    pub(super) method: Method,
    pub(super) url: Url,
    pub(super) headers: HeaderMap,
    pub(super) body: Option<Bytes>,
}

/// What the expressions of a node gave: the results of each.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Given<'a> {
    path: Option<Vec<Value>>,
    query: Option<Vec<Value>>,
    headers: Option<Vec<Value>>,
    #[serde(borrow)]
    body: Option<Vec<&'a RawValue>>,
}

impl Call {
    /// The request for a message with this id. `given` is what the node's expression gave, if it has one.
    ///
    /// # Errors
    /// What an expression gave cannot be sent.
    pub(super) fn new(fields: &Fields, given: Option<&[u8]>, id: &str) -> Result<Self, Failure> {
        Self::made(fields, given, id).map_err(Failure::last)
    }

    fn made(fields: &Fields, given: Option<&[u8]>, id: &str) -> Result<Self, String> {
        let given: Given<'_> = given
            .map_or_else(|| Ok(Given::default()), serde_json::from_slice)
            .map_err(|error| format!("what the expressions gave cannot be read: {error}"))?;
        let mut url = fields.url.clone();
        if let Some(path) = one("path", given.path)? {
            extend(&mut url, &path).map_err(|wrong| format!("what `path` gave {wrong}"))?;
        }
        let mut query = fields.query.clone();
        query.extend(named("query", given.query, Ok)?.unwrap_or_default());
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        let mut headers = fields.headers.clone();
        headers.extend(named("headers", given.headers, |pairs| header::all(&pairs))?.unwrap_or_default());
        let body = one("body", given.body)?.map(|body| Bytes::copy_from_slice(body.get().as_bytes()));
        let mut call = Self { method: fields.method.clone(), url, headers, body };
        call.complete(id);
        Ok(call)
    }

    /// Adds the headers that the user did not give.
    fn complete(&mut self, id: &str) {
        let headers = &mut self.headers;
        headers.entry(USER_AGENT).or_insert(AGENT);
        if self.body.is_some() {
            headers.entry(CONTENT_TYPE).or_insert(HeaderValue::from_static("application/json"));
        }
        // An id is visible ASCII, always.
        if let (false, Ok(id)) = (self.method.is_safe(), HeaderValue::from_str(id)) {
            headers.entry(header::IDEMPOTENCY_KEY).or_insert(id);
        }
    }

    /// The request to be sent.
    ///
    /// # Errors
    /// The address is longer than one may be.
    pub(super) fn request(&self) -> http::Result<Request<Full<Bytes>>> {
        let body = self.body.clone().map(Full::new).unwrap_or_default();
        let mut request = Request::builder().method(&self.method).uri(self.url.as_str()).body(body)?;
        *request.headers_mut() = self.headers.clone();
        Ok(request)
    }

    /// Whom it is sent to, for people.
    pub(super) fn host(&self) -> &str {
        self.url.host_str().unwrap_or_default()
    }
}

/// The one result of an expression, where the node has it.
fn one<T>(field: &str, results: Option<Vec<T>>) -> Result<Option<T>, String> {
    let Some(mut results) = results else { return Ok(None) };
    match results.len() {
        1 => Ok(results.pop()),
        count => Err(format!("`{field}` gave {count} results: it must give one")),
    }
}

/// The one result of an expression that gives an object of texts; what is null in it is left out.
fn named<T>(
    field: &str,
    results: Option<Vec<Value>>,
    read: impl FnOnce(Vec<(String, String)>) -> Result<T, String>,
) -> Result<Option<T>, String> {
    let Some(mut value) = one(field, results)? else { return Ok(None) };
    if let Value::Object(all) = &mut value {
        all.retain(|_, value| !value.is_null());
    }
    let read = fields::pairs(&value).and_then(read);
    read.map(Some).map_err(|wrong| format!("what `{field}` gave is wrong: {wrong}"))
}

/// Adds to the path of an address: a text, whose segments stand between `/`, or a list of segments. They are data: what
/// they hold cannot lead out of the path.
fn extend(url: &mut Url, given: &Value) -> Result<(), String> {
    let base = url.path().trim_end_matches('/');
    let added = match given {
        Value::String(text) => of_text(text)?,
        Value::Array(all) => of_list(all)?,
        _ => return Err("must be a text or a list of texts".into()),
    };
    if added.is_empty() {
        return Ok(());
    }
    let path = format!("{base}/{}", added.join("/"));
    url.set_path(&path);
    // What has no meaning in a path is what it was.
    if url.path() == path { Ok(()) } else { Err("cannot stand in a path".into()) }
}

/// The segments of a text, encoded. Only the last may be empty: a path may end with `/`, but one in the middle is an id
/// that is missing.
fn of_text(text: &str) -> Result<Vec<String>, String> {
    let text = text.strip_prefix('/').unwrap_or(text);
    if text.is_empty() {
        return Ok(vec![]);
    }
    let (front, last) = text.rsplit_once('/').map_or((None, text), |(front, last)| (Some(front), last));
    let mut segments: Vec<_> =
        front.into_iter().flat_map(|front| front.split('/')).map(segment).collect::<Result<_, _>>()?;
    segments.push(if last.is_empty() { String::new() } else { segment(last)? });
    Ok(segments)
}

fn of_list(all: &[Value]) -> Result<Vec<String>, String> {
    let text = |value: &Value| {
        let text = value.as_str().ok_or("must be a list of texts: use `tostring` for what is none")?;
        segment(text)
    };
    all.iter().map(text).collect()
}

/// One segment, encoded. Servers that decode it before they split the path must not find `..` in it either.
fn segment(text: &str) -> Result<String, String> {
    if text.is_empty() {
        return Err("has a segment that is empty: is a value missing?".into());
    }
    if text.split(['/', '\\']).any(|part| matches!(part, "." | "..")) {
        return Err("has a segment that is `.` or `..`: that is not allowed".into());
    }
    Ok(utf8_percent_encode(text, SEGMENT).to_string())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn fields(more: &Value) -> Fields {
        let mut fields = json!({"url": "https://api.example/v1/orders?key=k"});
        fields.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        Fields::read(fields.as_object().unwrap()).unwrap()
    }

    fn call(more: &Value, given: &Value) -> Result<Call, String> {
        let given = given.to_string();
        Call::made(&fields(more), Some(given.as_bytes()), "m1")
    }

    fn addressed(path: &Value) -> Result<String, String> {
        call(&json!({}), &json!({"path": [path]})).map(|call| call.url.to_string())
    }

    fn shown(call: &Call) -> Vec<String> {
        let all = call.headers.iter();
        let mut all: Vec<_> =
            all.map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
        all.sort();
        all
    }

    #[test]
    fn a_request_without_expressions_is_what_the_fields_say() {
        let fields =
            fields(&json!({"query": {"page": "1", "tag": ["a b", "c&d"]}, "headers": {"Accept": "a/b"}}));
        let call = Call::new(&fields, None, "m1").unwrap();
        assert_eq!(call.url.as_str(), "https://api.example/v1/orders?key=k&page=1&tag=a+b&tag=c%26d");
        assert_eq!((call.method.as_str(), &call.body), ("GET", &None));
        let agent = format!("user-agent: millrace/{}", env!("CARGO_PKG_VERSION"));
        assert_eq!(shown(&call), ["accept: a/b".to_owned(), agent]);
    }

    #[test]
    fn a_body_is_sent_as_it_was_written_and_the_message_has_a_key() {
        let given = br#"{"body": [{"n":12345678901234567890.10}]}"#;
        let call = Call::new(&fields(&json!({"body": "."})), Some(given), "m1").unwrap();
        assert_eq!(call.method, Method::POST);
        assert_eq!(call.body.as_deref(), Some(&br#"{"n":12345678901234567890.10}"#[..]));
        assert_eq!(shown(&call)[..2], ["content-type: application/json", "idempotency-key: m1"]);
    }

    #[test]
    fn the_user_has_the_last_word_on_headers() {
        let own =
            json!({"user-agent": "me", "content-type": "application/vnd.api+json", "Idempotency-Key": "k"});
        let call = call(&json!({"body": "."}), &json!({"headers": [own], "body": [null]})).unwrap();
        assert_eq!(
            shown(&call),
            ["content-type: application/vnd.api+json", "idempotency-key: k", "user-agent: me"]
        );
        assert_eq!(call.body.as_deref(), Some(&b"null"[..]));
    }

    #[test]
    fn what_is_null_in_a_query_or_in_headers_is_left_out() {
        let given =
            json!({"query": [{"page": null, "size": "5"}], "headers": [{"x-a": null, "x-b": ["1", "2"]}]});
        let call = call(&json!({}), &given).unwrap();
        assert_eq!(call.url.query(), Some("key=k&size=5"));
        assert_eq!(shown(&call)[1..], ["x-b: 1", "x-b: 2"]);
    }

    #[test]
    fn a_path_is_added_to_that_of_the_address() {
        let at = |path: &str| Ok(format!("https://api.example/v1/orders{path}?key=k"));
        for (given, expected) in [
            (json!("/17"), "/17"),
            (json!("17/items"), "/17/items"),
            (json!("/17/"), "/17/"),
            (json!(""), ""),
            (json!("/"), ""),
            (json!([]), ""),
            (json!(["17", "items"]), "/17/items"),
            (json!(["a/b", "c d"]), "/a%2Fb/c%20d"),
            (json!("/a?b=c#d"), "/a%3Fb=c%23d"),
            (json!("/100%25"), "/100%2525"),
            (json!("/%2e%2e/x"), "/%252e%252e/x"),
            (json!("/ü\n\t\\"), "/%C3%BC%0A%09%5C"),
            (json!(["@evil.example"]), "/@evil.example"),
            (json!("https:evil"), "/https:evil"),
            (json!(["...", "..a"]), "/.../..a"),
        ] {
            assert_eq!(addressed(&given), at(expected), "{given}");
        }
    }

    #[test]
    fn a_path_cannot_lead_elsewhere() {
        let dots = "what `path` gave has a segment that is `.` or `..`: that is not allowed";
        for given in [
            json!("/../admin"),
            json!("/a/.."),
            json!("/./a"),
            json!("/a\\..\\b"),
            json!([".."]),
            json!(["a/../../b"]),
        ] {
            assert_eq!(addressed(&given), Err(dots.into()), "{given}");
        }
        let empty = "what `path` gave has a segment that is empty: is a value missing?";
        for given in [json!("//evil.example"), json!("/a//b"), json!([""]), json!(["a", ""])] {
            assert_eq!(addressed(&given), Err(empty.into()), "{given}");
        }
        assert_eq!(
            addressed(&json!([17])),
            Err("what `path` gave must be a list of texts: use `tostring` for what is none".into())
        );
        assert_eq!(addressed(&json!(17)), Err("what `path` gave must be a text or a list of texts".into()));
    }

    #[test]
    fn an_expression_must_give_one_result_of_its_kind() {
        for (given, expected) in [
            (json!({"path": []}), "`path` gave 0 results: it must give one"),
            (json!({"body": [1, 2]}), "`body` gave 2 results: it must give one"),
            (
                json!({"query": [["a"]]}),
                "what `query` gave is wrong: must be an object of texts, or of lists of texts",
            ),
            (
                json!({"headers": [{"Content-Length": "5"}]}),
                "what `headers` gave is wrong: 'content-length' is set by the runner: remove it",
            ),
        ] {
            assert_eq!(call(&json!({}), &given), Err(expected.into()));
        }
    }

    proptest! {
        #[test]
        fn whatever_a_message_says_the_request_stays_below_its_address(
            text in "[./%\\\\:@?#a2eE\t\nü-]{0,12}", list in proptest::bool::ANY,
        ) {
            let given = if list { json!([text]) } else { json!(text) };
            if let Ok(address) = addressed(&given) {
                let url = Url::parse(&address).unwrap();
                prop_assert_eq!(url.host_str(), Some("api.example"));
                prop_assert_eq!(url.query(), Some("key=k"));
                prop_assert!(url.path().starts_with("/v1/orders"), "{}", address);
            }
        }
    }
}
