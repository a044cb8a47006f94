//! Headers of requests and answers: what a node may send, what may follow a redirect, and what a message says of them.
//! Pure.

use http::header::{
    ACCEPT, ACCEPT_ENCODING, ACCEPT_LANGUAGE, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, EXPECT, HOST,
    HeaderMap, HeaderName, HeaderValue, PROXY_AUTHORIZATION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
    USER_AGENT,
};
use serde_json::{Map, Value};

/// A request that is sent again has the same.
pub(super) const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// What belongs to the connection, or decides where a request goes and how an answer is read.
const OURS: [HeaderName; 12] = [
    HOST,
    CONTENT_LENGTH,
    TRANSFER_ENCODING,
    CONNECTION,
    KEEP_ALIVE,
    PROXY_CONNECTION,
    PROXY_AUTHORIZATION,
    TE,
    TRAILER,
    UPGRADE,
    EXPECT,
    ACCEPT_ENCODING,
];
/// What another server may see: no other may be a secret. A key may be in any header, not only in `authorization`.
const PUBLIC: [HeaderName; 5] = [ACCEPT, ACCEPT_LANGUAGE, CONTENT_TYPE, USER_AGENT, IDEMPOTENCY_KEY];

/// The headers that somebody wrote.
///
/// # Errors
/// One of them cannot be sent.
pub(super) fn all(pairs: &[(String, String)]) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    for (name, value) in pairs {
        let name = HeaderName::from_bytes(name.as_bytes())
            .map_err(|_| format!("'{name}' is no name of a header"))?;
        if OURS.contains(&name) {
            return Err(format!("'{name}' is set by the runner: remove it"));
        }
        let value = HeaderValue::from_str(value).map_err(|_| {
            format!("the value of '{name}' is none of a header: it must be one line of visible characters")
        })?;
        headers.append(name, value);
    }
    Ok(headers)
}

/// What of them goes to another server.
pub(super) fn public(headers: &HeaderMap) -> HeaderMap {
    let kept = headers.iter().filter(|(name, _)| PUBLIC.contains(name));
    kept.map(|(name, value)| (name.clone(), value.clone())).collect()
}

/// Those of an answer as a message has them: as those of a webhook's request, in lower case and joined as HTTP joins
/// them.
pub(super) fn of_message(headers: &HeaderMap) -> Map<String, Value> {
    let text = |name| {
        let values = headers.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes()));
        values.collect::<Vec<_>>().join(", ")
    };
    headers.keys().map(|name| (name.as_str().to_owned(), text(name).into())).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pairs<const N: usize>(pairs: [(&str, &str); N]) -> Vec<(String, String)> {
        pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).into()
    }

    #[test]
    fn what_the_runner_sets_itself_cannot_be_set() {
        for name in OURS {
            let said = all(&pairs([(&name.as_str().to_uppercase(), "x")])).unwrap_err();
            assert_eq!(said, format!("'{name}' is set by the runner: remove it"));
        }
    }

    #[test]
    fn another_server_sees_nothing_that_may_be_a_secret() {
        let headers = all(&pairs([
            ("Accept", "a/b"),
            ("Accept", "c/d"),
            ("Authorization", "Bearer x"),
            ("Cookie", "a=b"),
            ("X-Api-Key", "secret"),
        ]))
        .unwrap();
        assert_eq!(public(&headers), all(&pairs([("accept", "a/b"), ("accept", "c/d")])).unwrap());
    }

    #[test]
    fn a_message_has_each_header_once_in_lower_case() {
        let headers = all(&pairs([("Link", "a"), ("X-Total", "5"), ("link", "b")])).unwrap();
        assert_eq!(Value::Object(of_message(&headers)), json!({"link": "a, b", "x-total": "5"}));
    }
}
