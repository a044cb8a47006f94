//! Where a redirect leads, and what is sent there. Pure.

use http::header::{CONTENT_ENCODING, CONTENT_LANGUAGE, CONTENT_LOCATION, CONTENT_TYPE, HeaderValue};
use http::{Method, StatusCode};
use url::Url;

use crate::pump::step::Failure;

use super::header::{self, IDEMPOTENCY_KEY};
use super::request::Call;

/// The most redirects that are followed.
pub(super) const MOST: usize = 5;

/// The request that an answer asks for instead; none where it asks for none.
///
/// # Errors
/// It asks for one that is not sent.
pub(super) fn next(
    call: &Call,
    status: StatusCode,
    location: Option<&HeaderValue>,
) -> Result<Option<Call>, Failure> {
    if !matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308) {
        return Ok(None);
    }
    let Some(location) = location else { return Ok(None) };
    let refused = |why: &str| {
        Failure::last(format!("{} answered {} and redirects {why}", call.host(), status.as_u16()))
    };
    let text = std::str::from_utf8(location.as_bytes()).ok();
    let Some(mut url) = text.and_then(|text| call.url.join(text).ok()) else {
        return Err(refused("to what is no address"));
    };
    match (call.url.scheme(), url.scheme()) {
        ("https", "http") => return Err(refused("from https to http: that is not followed")),
        (_, "http" | "https") => {}
        _ => return Err(refused("to what is neither http nor https")),
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(refused("to an address with a user in it: that is not followed"));
    }
    url.set_fragment(None);
    Ok(Some(turned(call, status, url)))
}

fn turned(call: &Call, status: StatusCode, url: Url) -> Call {
    let mut next = call.clone();
    if !is_same_server(&call.url, &url) {
        next.headers = header::public(&call.headers);
    }
    let becomes_get = match status.as_u16() {
        301 | 302 => call.method == Method::POST,
        303 => call.method != Method::HEAD,
        _ => false,
    };
    if becomes_get {
        next.method = Method::GET;
        next.body = None;
        for name in [CONTENT_TYPE, CONTENT_ENCODING, CONTENT_LANGUAGE, CONTENT_LOCATION, IDEMPOTENCY_KEY] {
            next.headers.remove(name);
        }
    }
    next.url = url;
    next
}

/// Whether secrets for the one may be sent to the other: it is the same, or the same by https.
fn is_same_server(from: &Url, to: &Url) -> bool {
    let ports = (from.port_or_known_default(), to.port_or_known_default());
    let upgraded = from.scheme() == "http" && to.scheme() == "https" && ports == (Some(80), Some(443));
    from.origin() == to.origin() || upgraded && from.host() == to.host()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::fields::Fields;
    use super::*;

    const SECRETS: [&str; 3] = ["authorization", "cookie", "x-api-key"];

    fn call(method: &str, url: &str) -> Call {
        let mut fields = json!({
            "url": url, "method": method,
            "headers": {"accept": "a/b", "authorization": "Bearer x", "cookie": "a=b", "x-api-key": "k"},
        });
        let body = !matches!(method, "GET" | "HEAD");
        if body {
            fields["body"] = json!(".");
        }
        let fields = Fields::read(fields.as_object().unwrap()).unwrap();
        Call::new(&fields, body.then_some(br#"{"body": [1]}"#), "m1").unwrap()
    }

    fn code(status: u16) -> StatusCode {
        StatusCode::from_u16(status).unwrap()
    }

    fn redirected(from: &Call, status: StatusCode, location: &'static str) -> Result<Option<Call>, Failure> {
        let location = HeaderValue::from_static(location);
        next(from, status, Some(&location))
    }

    #[test]
    fn methods_change_as_browsers_change_them() {
        for (status, method, expected) in [
            (301, "GET", "GET"),
            (301, "POST", "GET"),
            (301, "PUT", "PUT"),
            (301, "HEAD", "HEAD"),
            (302, "POST", "GET"),
            (302, "DELETE", "DELETE"),
            (303, "POST", "GET"),
            (303, "PUT", "GET"),
            (303, "DELETE", "GET"),
            (303, "GET", "GET"),
            (303, "HEAD", "HEAD"),
            (307, "POST", "POST"),
            (307, "PATCH", "PATCH"),
            (308, "POST", "POST"),
        ] {
            let from = call(method, "http://erp/a");
            let to = redirected(&from, code(status), "/b").unwrap().unwrap();
            let mut expected_call = Call { url: Url::parse("http://erp/b").unwrap(), ..from.clone() };
            if expected != method {
                expected_call.method = Method::GET;
                expected_call.body = None;
                expected_call.headers.remove(CONTENT_TYPE);
                expected_call.headers.remove(IDEMPOTENCY_KEY);
            }
            assert_eq!(to, expected_call, "{status} {method}");
        }
    }

    #[test]
    fn a_location_is_read_as_seen_from_where_it_was_given() {
        for (location, expected) in [
            ("https://other.example/x", "https://other.example/x"),
            ("//other.example/x", "https://other.example/x"),
            ("/x?y=1#z", "https://erp.example/x?y=1"),
            ("../x", "https://erp.example/x"),
            ("?page=2", "https://erp.example/a/b?page=2"),
        ] {
            let to = redirected(&call("GET", "https://erp.example/a/b"), StatusCode::FOUND, location)
                .unwrap()
                .unwrap();
            assert_eq!(to.url.as_str(), expected);
        }
    }

    #[test]
    fn what_is_no_redirect_is_not_followed() {
        for status in [200, 300, 304, 305, 306, 404] {
            assert_eq!(redirected(&call("GET", "http://erp/"), code(status), "/b"), Ok(None));
        }
        assert_eq!(next(&call("GET", "http://erp/"), StatusCode::FOUND, None), Ok(None));
    }

    #[test]
    fn a_redirect_that_is_dangerous_or_broken_is_refused() {
        for (location, why) in [
            ("http://erp.example/", "from https to http: that is not followed"),
            ("ftp://erp.example/", "to what is neither http nor https"),
            ("file:///etc/passwd", "to what is neither http nor https"),
            ("https://me:secret@erp.example/", "to an address with a user in it: that is not followed"),
            ("https://", "to what is no address"),
        ] {
            let failure =
                redirected(&call("GET", "https://erp.example/"), StatusCode::FOUND, location).unwrap_err();
            let expected = Failure::last(format!("erp.example answered 302 and redirects {why}"));
            assert_eq!(failure, expected, "{location}");
        }
    }

    #[test]
    fn secrets_go_to_no_other_server() {
        for (from, location, kept) in [
            ("https://erp.example/", "/b", true),
            ("https://erp.example/", "https://erp.example:443/b", true),
            ("http://erp.example/", "https://erp.example/b", true),
            ("https://erp.example/", "https://evil.example/b", false),
            ("https://erp.example/", "https://erp.example:8443/b", false),
            ("http://erp.example:8080/", "https://erp.example/b", false),
            ("http://erp.example/", "http://www.erp.example/b", false),
        ] {
            let to = redirected(&call("POST", from), code(307), location).unwrap().unwrap();
            for name in SECRETS {
                assert_eq!(to.headers.contains_key(name), kept, "{from} {location} {name}");
            }
            assert!(to.headers.contains_key("accept") && to.headers.contains_key("content-type"));
        }
    }
}
