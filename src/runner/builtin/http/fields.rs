//! What the fields of an http node say, and what is wrong with them. Pure.

use http::{HeaderMap, Method};
use serde_json::{Map, Value};
use url::Url;

use crate::broker::message::MAX_MESSAGE;
use crate::jq;
use crate::runner::builtin::{FieldError, only};

use super::header;

/// The longest answer, in bytes, where a node does not say.
const LONGEST: usize = 1 << 20;
const METHODS: [Method; 6] =
    [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE];
const KNOWN: [&str; 8] = ["url", "method", "path", "query", "headers", "body", "accept", "maxResponseBytes"];
/// Those that are, or may be, expressions.
const EXPRESSIONS: [&str; 4] = ["path", "query", "headers", "body"];

/// What an http node is to do.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Fields {
    pub(super) url: Url,
    pub(super) method: Method,
    /// What is the same for each message.
    pub(super) query: Vec<(String, String)>,
    pub(super) headers: HeaderMap,
    /// All that follows from the message, as one expression: each field's results as a list.
    pub(super) expression: Option<String>,
    /// Statuses beside 2xx that are an answer.
    accept: Vec<u16>,
    /// The most bytes of an answer.
    pub(super) longest: usize,
}

impl Fields {
    /// Reads the fields.
    ///
    /// # Errors
    /// One of them is wrong.
    pub(super) fn read(fields: &Map<String, Value>) -> Result<Self, FieldError> {
        only(fields, &KNOWN)?;
        let wrong = |field: &'static str| move |message: String| FieldError::wrong(field, message);
        let fixed = |field| fields.get(field).filter(|value| !value.is_string());
        Ok(Self {
            url: url(fields.get("url")).map_err(wrong("fields.url"))?,
            method: method(fields).map_err(wrong("fields.method"))?,
            query: fixed("query").map_or(Ok(vec![]), pairs).map_err(wrong("fields.query"))?,
            headers: fixed("headers")
                .map_or(Ok(vec![]), pairs)
                .and_then(|pairs| header::all(&pairs))
                .map_err(wrong("fields.headers"))?,
            expression: expression(fields)?,
            accept: accept(fields.get("accept")).map_err(wrong("fields.accept"))?,
            longest: longest(fields.get("maxResponseBytes")).map_err(wrong("fields.maxResponseBytes"))?,
        })
    }

    /// Whether a status is one that the node takes for an answer.
    pub(super) fn accepts(&self, status: u16) -> bool {
        (200..300).contains(&status) || self.accept.contains(&status)
    }
}

fn url(given: Option<&Value>) -> Result<Url, String> {
    let hint = "must be an http or https address, such as https://api.example/orders";
    let text = given.and_then(Value::as_str).ok_or(hint)?;
    let mut url = Url::parse(text).map_err(|error| format!("{hint}: {error}"))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(hint.into());
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("must hold no user or password: send them in `headers`, as `authorization`".into());
    }
    url.set_fragment(None);
    Ok(url)
}

fn method(fields: &Map<String, Value>) -> Result<Method, String> {
    let has_body = fields.contains_key("body");
    let Some(given) = fields.get("method") else {
        return Ok(if has_body { Method::POST } else { Method::GET });
    };
    let found = METHODS.into_iter().find(|method| given.as_str() == Some(method.as_str()));
    match found.ok_or("must be one of GET, HEAD, POST, PUT, PATCH, DELETE")? {
        method @ (Method::GET | Method::HEAD) if has_body => {
            Err(format!("{method} sends no body: use another method, or remove `body`"))
        }
        method => Ok(method),
    }
}

/// An object of texts, or of lists of texts, one after the other.
///
/// # Errors
/// It is none.
pub(super) fn pairs(given: &Value) -> Result<Vec<(String, String)>, String> {
    let all = given.as_object().ok_or("must be an object of texts, or of lists of texts")?;
    let mut pairs = vec![];
    for (name, value) in all {
        let values = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
        for value in values {
            let text = value.as_str().ok_or_else(|| {
                format!("'{name}' must be a text or a list of texts: write numbers in quotes, or use `tostring` in jq")
            })?;
            pairs.push((name.clone(), text.to_owned()));
        }
    }
    Ok(pairs)
}

/// One expression for all fields, so that a message is read once. Each is in a list of its own: how many results it gives
/// is seen afterwards, and does not multiply with the others.
fn expression(fields: &Map<String, Value>) -> Result<Option<String>, FieldError> {
    let mut parts = vec![];
    for name in EXPRESSIONS {
        let field = format!("fields.{name}");
        match fields.get(name) {
            None => {}
            Some(Value::String(text)) => {
                jq::check(text).map_err(|wrong| FieldError::wrong(&field, wrong))?;
                // What follows a comment stands on a line of its own.
                parts.push(format!("{name}: [({text}\n)]"));
            }
            Some(_) if matches!(name, "query" | "headers") => {}
            Some(_) => return Err(FieldError::wrong(&field, "must be a jq expression, such as \".body\"")),
        }
    }
    if parts.is_empty() {
        return Ok(None);
    }
    let whole = format!("{{{}}}", parts.join(", "));
    match jq::check(&whole) {
        Ok(()) => Ok(Some(whole)),
        Err(wrong) => Err(FieldError::wrong("fields", format!("the expressions together: {wrong}"))),
    }
}

fn accept(given: Option<&Value>) -> Result<Vec<u16>, String> {
    let hint = "must be a list of statuses from 200 to 599, such as [404]";
    let status = |value: &Value| {
        let status = value.as_u64().and_then(|status| u16::try_from(status).ok());
        status.filter(|status| (200..600).contains(status))
    };
    match given {
        None => Ok(vec![]),
        Some(Value::Array(all)) => {
            all.iter().map(status).collect::<Option<_>>().ok_or_else(|| hint.to_owned())
        }
        Some(_) => Err(hint.into()),
    }
}

fn longest(given: Option<&Value>) -> Result<usize, String> {
    let Some(given) = given else { return Ok(LONGEST) };
    let bytes = given.as_u64().and_then(|bytes| usize::try_from(bytes).ok());
    bytes
        .filter(|bytes| (1..=MAX_MESSAGE).contains(bytes))
        .ok_or_else(|| format!("must be a number of bytes from 1 to {MAX_MESSAGE}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(fields: &Value) -> Result<Fields, FieldError> {
        Fields::read(fields.as_object().unwrap())
    }

    /// The field and the message of what is wrong when this is added to what is right.
    fn refused(more: &Value) -> String {
        let mut fields = json!({"url": "https://api.example/orders"});
        fields.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let error = read(&fields).unwrap_err();
        format!("{}: {}", error.field, error.message)
    }

    #[test]
    fn an_address_is_enough() {
        let fields = read(&json!({"url": "https://api.example/orders?a=1#top"})).unwrap();
        let expected = Fields {
            url: Url::parse("https://api.example/orders?a=1").unwrap(),
            method: Method::GET,
            query: vec![],
            headers: HeaderMap::new(),
            expression: None,
            accept: vec![],
            longest: 1 << 20,
        };
        assert_eq!(fields, expected);
        assert_eq!(
            [199, 200, 299, 300, 404].map(|status| fields.accepts(status)),
            [false, true, true, false, false]
        );
    }

    #[test]
    fn what_follows_from_the_message_is_one_expression() {
        let fields = read(&json!({
            "url": "http://erp", "path": "\"/\" + .body.id # the order", "query": {"page": ["1", "2"], "a": "b"},
            "headers": "{accept: .body.type}", "body": "{number: .body.id}", "accept": [404, 409],
            "maxResponseBytes": MAX_MESSAGE,
        }))
        .unwrap();
        assert_eq!(
            fields.expression.as_deref(),
            Some(
                "{path: [(\"/\" + .body.id # the order\n)], headers: [({accept: .body.type}\n)], \
                 body: [({number: .body.id}\n)]}"
            )
        );
        assert_eq!(fields.method, Method::POST, "there is a body");
        let pairs = [("page", "1"), ("page", "2"), ("a", "b")].map(|(a, b)| (a.to_owned(), b.to_owned()));
        assert_eq!(fields.query.len(), 3);
        assert!(pairs.iter().all(|pair| fields.query.contains(pair)), "{:?}", fields.query);
        assert!(fields.accepts(404) && fields.accepts(409) && !fields.accepts(410));
    }

    #[test]
    fn an_address_must_be_one_of_http_without_a_password() {
        let hint = "fields.url: must be an http or https address, such as https://api.example/orders";
        let refused = |url: Value| refused(&json!({"url": url}));
        for url in [json!(null), json!(5), json!("ftp://api.example/"), json!("file:///etc/passwd")] {
            assert_eq!(refused(url.clone()), hint, "{url}");
        }
        for (url, why) in [
            ("/orders", "relative URL without a base"),
            ("http://", "empty host"),
            ("http://a b/", "invalid international domain name"),
            ("http://h:99999/", "invalid port number"),
            ("http://[::1", "invalid IPv6 address"),
            ("http://1.2.3.4.5/", "invalid IPv4 address"),
        ] {
            assert_eq!(refused(json!(url)), format!("{hint}: {why}"), "{url}");
        }
        let secret = "fields.url: must hold no user or password: send them in `headers`, as `authorization`";
        assert_eq!(refused(json!("https://me:secret@api.example/")), secret);
        assert_eq!(refused(json!("https://me@api.example/")), secret);
    }

    #[test]
    fn a_method_must_be_known_and_fit_the_body() {
        let methods = "fields.method: must be one of GET, HEAD, POST, PUT, PATCH, DELETE";
        for method in [json!("get"), json!("CONNECT"), json!("TRACE"), json!(["GET"])] {
            assert_eq!(refused(&json!({"method": method})), methods);
        }
        assert_eq!(
            refused(&json!({"method": "GET", "body": "."})),
            "fields.method: GET sends no body: use another method, or remove `body`"
        );
    }

    #[test]
    fn each_field_that_is_wrong_says_what_to_do() {
        for (more, expected) in [
            (json!({"uri": "x"}), "fields.uri: is no field of this built-in: remove it"),
            (
                json!({"query": {"page": 1}}),
                "fields.query: 'page' must be a text or a list of texts: write numbers in quotes, or use `tostring` in jq",
            ),
            (json!({"query": ["a"]}), "fields.query: must be an object of texts, or of lists of texts"),
            (json!({"headers": {"Host": "other"}}), "fields.headers: 'host' is set by the runner: remove it"),
            (json!({"headers": {"a b": "c"}}), "fields.headers: 'a b' is no name of a header"),
            (
                json!({"headers": {"a": "b\r\nc: d"}}),
                "fields.headers: the value of 'a' is none of a header: it must be one line of visible characters",
            ),
            (json!({"path": ["a"]}), "fields.path: must be a jq expression, such as \".body\""),
            (json!({"body": {}}), "fields.body: must be a jq expression, such as \".body\""),
            (
                json!({"accept": 404}),
                "fields.accept: must be a list of statuses from 200 to 599, such as [404]",
            ),
            (
                json!({"accept": [100]}),
                "fields.accept: must be a list of statuses from 200 to 599, such as [404]",
            ),
            (
                json!({"maxResponseBytes": 0}),
                "fields.maxResponseBytes: must be a number of bytes from 1 to 8323072",
            ),
            (
                json!({"maxResponseBytes": MAX_MESSAGE + 1}),
                "fields.maxResponseBytes: must be a number of bytes from 1 to 8323072",
            ),
        ] {
            assert_eq!(refused(&more), expected);
        }
    }

    #[test]
    fn expressions_are_checked_each_by_itself_and_together() {
        for field in EXPRESSIONS {
            let said = refused(&json!({field: "{a: .b"}));
            assert_eq!(
                said,
                format!("fields.{field}: is no jq expression: expected closing brace at its end")
            );
            // It would be right between our brackets.
            assert!(refused(&json!({field: "1), (2"})).starts_with(&format!("fields.{field}: ")));
        }
        let long = format!("[{}1]", "1,".repeat(900));
        let all = json!({"path": long, "query": long, "body": long});
        assert!(refused(&all).starts_with("fields: the expressions together: must have at most 2000"));
    }
}
