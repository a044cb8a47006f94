//! What a sender is answered: small JSON objects, and errors that say what to do.

use bytes::Bytes;
use http::header::{ALLOW, CONNECTION, CONTENT_TYPE, HeaderName, RETRY_AFTER};
use http::{HeaderValue, Response, StatusCode};
use http_body_util::Full;
use serde_json::json;

/// The header that names a request.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// An answer.
pub type Answer = Response<Full<Bytes>>;

/// Why a request is not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The status.
    pub status: StatusCode,
    /// The status in a word, finer where there are several reasons.
    pub code: &'static str,
    /// What is wrong and what to do.
    pub message: String,
    /// A header that belongs to the status.
    pub header: Option<(HeaderName, HeaderValue)>,
}

impl Refusal {
    fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), header: None }
    }

    fn with(self, name: HeaderName, value: impl Into<HeaderValue>) -> Self {
        Self { header: Some((name, value.into())), ..self }
    }

    /// There is no such route, or it is stopped: nobody is told which.
    #[must_use]
    pub fn not_found() -> Self {
        let message =
            "nothing takes requests at this address: check the address, and that the flow is active";
        Self::new(StatusCode::NOT_FOUND, "NotFound", message)
    }

    /// The Flow does not take this method.
    #[must_use]
    pub fn method(allow: &'static str) -> Self {
        let message = format!("this address takes {allow}: use one of them");
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", message)
            .with(ALLOW, HeaderValue::from_static(allow))
    }

    /// The body, or the message that comes of it, is too large.
    #[must_use]
    pub fn too_large(what: &str, limit: usize) -> Self {
        let message =
            format!("{what} may have {limit} bytes: send less, or send where the data can be fetched");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "TooLarge", message).closing()
    }

    /// The body is of a kind that is not taken.
    #[must_use]
    pub fn media_type(message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "UnsupportedMediaType", message)
    }

    /// The request cannot be understood.
    #[must_use]
    pub fn malformed(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, message)
    }

    /// The body did not come in time.
    #[must_use]
    pub fn too_slow() -> Self {
        let message = "the body did not come in time: send it again, faster";
        Self::new(StatusCode::REQUEST_TIMEOUT, "Timeout", message).closing()
    }

    /// It may be taken later.
    #[must_use]
    pub fn later(code: &'static str, message: impl Into<String>, seconds: u16) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, code, message).with(RETRY_AFTER, seconds)
    }

    /// What is left of the request is not read.
    fn closing(self) -> Self {
        self.with(CONNECTION, HeaderValue::from_static("close"))
    }

    /// The answer that says so.
    #[must_use]
    pub fn answer(self) -> Answer {
        let body = json!({"error": {"code": self.code, "message": self.message}});
        let mut answer = answer(self.status, body.to_string());
        answer.headers_mut().extend(self.header);
        answer
    }
}

/// The answer once the message is stored.
#[must_use]
pub fn stored(request_id: &str) -> Answer {
    answer(StatusCode::OK, json!({"data": {"requestId": request_id}}).to_string())
}

/// The answer to HEAD: the route is there.
#[must_use]
pub fn there() -> Answer {
    Answer::default()
}

fn answer(status: StatusCode, body: String) -> Answer {
    let mut answer = Response::new(Full::from(body));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;

    async fn text(answer: Answer) -> (u16, Vec<String>, String) {
        let (parts, body) = answer.into_parts();
        let headers =
            parts.headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()));
        let body = body.collect().await.unwrap().to_bytes();
        (parts.status.as_u16(), headers.collect(), String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn a_refusal_is_json_with_the_header_that_belongs_to_its_status() {
        let (status, headers, body) = text(Refusal::method("GET, HEAD").answer()).await;
        assert_eq!(
            (status, headers),
            (405, vec!["content-type: application/json".into(), "allow: GET, HEAD".into()])
        );
        assert_eq!(
            body,
            r#"{"error":{"code":"MethodNotAllowed","message":"this address takes GET, HEAD: use one of them"}}"#
        );
        let (status, headers, _) = text(Refusal::later("QueueFull", "full", 5).answer()).await;
        assert_eq!((status, &*headers[1]), (503, "retry-after: 5"));
        let (status, headers, _) = text(Refusal::too_large("a body", 9).answer()).await;
        assert_eq!((status, &*headers[1]), (413, "connection: close"));
    }

    #[tokio::test]
    async fn what_is_stored_is_answered_with_the_request_id() {
        let (status, _, body) = text(stored("r-1")).await;
        assert_eq!((status, &*body), (200, r#"{"data":{"requestId":"r-1"}}"#));
    }
}
