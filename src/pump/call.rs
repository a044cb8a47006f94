//! Calls a component: a `CloudEvent` in binary mode, posted to a port of this pod.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::future::BoxFuture;
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Body as _, Incoming};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout, timeout_at};

use crate::broker::message::MAX_MESSAGE;

use super::input::Input;
use super::step::Failure;
use super::{Attempt, Handle, Place};

/// How long a connection within the pod may take.
const CONNECT: Duration = Duration::from_secs(1);
/// How long a connection that is not used is kept: less than after what servers close it themselves, so that no message
/// is sent into one that is about to be closed.
const IDLE: Duration = Duration::from_secs(1);
/// The pauses between looks whether the component listens.
const LOOK: [Duration; 2] = [Duration::from_millis(20), Duration::from_secs(1)];
/// Answers larger than this are read a few at a time, so that many of them do not fill the memory.
pub(crate) const LARGE: usize = 1 << 20;
/// How many large answers there may be at a time.
const LARGE_AT_A_TIME: usize = 2;
/// How much of an error's text is kept.
const EXCERPT: usize = 300;

/// A component in the same pod.
#[derive(Debug)]
pub struct Component {
    client: Client<HttpConnector, Full<Bytes>>,
    address: SocketAddr,
    uri: String,
    source: String,
    limit: Duration,
    large: Arc<Semaphore>,
}

/// What a status means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is an answer.
    Answer,
    /// It may be another the next time.
    Again,
    /// It would be the same each time.
    Final,
}

impl Component {
    /// The component that handles the messages of a node.
    #[must_use]
    pub fn new(place: &Place, port: u16, path: &str, limit: Duration) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(CONNECT));
        connector.set_nodelay(true);
        let client = Client::builder(TokioExecutor::new())
            .pool_idle_timeout(IDLE)
            .pool_timer(TokioTimer::new())
            .build(connector);
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        Self {
            client,
            address,
            uri: format!("http://{address}{path}"),
            source: format!("/flows/{}/{}/{}", place.namespace, place.flow, place.node),
            limit,
            large: Arc::new(Semaphore::new(LARGE_AT_A_TIME)),
        }
    }

    /// Whether it accepts connections.
    pub async fn accepts(&self) -> bool {
        accepts(self.address).await
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    fn request(&self, input: &Input) -> http::Result<Request<Full<Bytes>>> {
        Request::post(&self.uri)
            .header(header::CONTENT_TYPE, "application/json")
            .header("ce-specversion", "1.0")
            .header("ce-id", &input.id)
            .header("ce-type", "dev.millrace.message")
            .header("ce-source", &self.source)
            .body(Full::new(input.payload.clone()))
    }

    async fn call(&self, input: &Input) -> Attempt {
        let request = match self.request(input) {
            Ok(request) => request,
            Err(error) => return Attempt::Failed(Failure::last(format!("it cannot be sent: {error}"))),
        };
        let deadline = Instant::now() + self.limit;
        match timeout_at(deadline, self.client.request(request)).await {
            Err(_) => Attempt::Failed(self.late()),
            Ok(Err(error)) if error.is_connect() => Attempt::Refused,
            Ok(Err(error)) => Attempt::Failed(Failure::passing(format!(
                "the component ended the connection without an answer ({})",
                cause(&error)
            ))),
            Ok(Ok(answer)) => match self.read(answer, deadline).await {
                Ok((answer, large)) => Attempt::Answer(answer, large),
                Err(failure) => Attempt::Failed(failure),
            },
        }
    }

    async fn read(
        &self,
        answer: Response<Incoming>,
        deadline: Instant,
    ) -> Result<(Bytes, Option<OwnedSemaphorePermit>), Failure> {
        let status = answer.status();
        let failure = match verdict(status) {
            Verdict::Answer => return self.body(answer.into_body(), deadline).await,
            Verdict::Again => Failure::passing,
            Verdict::Final => Failure::last,
        };
        let text = excerpt(answer.into_body(), deadline).await;
        let colon = if text.is_empty() { "" } else { ": " };
        let status = status.as_u16();
        Err(failure(format!("the component answered {status}{colon}{text}")))
    }

    async fn body(
        &self,
        mut body: Incoming,
        mut deadline: Instant,
    ) -> Result<(Bytes, Option<OwnedSemaphorePermit>), Failure> {
        let too_large =
            || Failure::last(format!("the component's answer is larger than {MAX_MESSAGE} bytes"));
        if body.size_hint().lower() > MAX_MESSAGE as u64 {
            return Err(too_large());
        }
        let (mut whole, mut permit) = (BytesMut::new(), None);
        loop {
            let frame = match timeout_at(deadline, body.frame()).await {
                Err(_) => return Err(self.late()),
                Ok(None) => return Ok((whole.freeze(), permit)),
                Ok(Some(Err(error))) => {
                    let why = cause(&error);
                    return Err(Failure::passing(format!("the component's answer broke off ({why})")));
                }
                Ok(Some(Ok(frame))) => frame,
            };
            let Ok(data) = frame.into_data() else { continue };
            if whole.len() + data.len() > MAX_MESSAGE {
                return Err(too_large());
            }
            whole.extend_from_slice(&data);
            if whole.len() > LARGE && permit.is_none() {
                let waited = Instant::now();
                permit = Arc::clone(&self.large).acquire_owned().await.ok();
                // That was our own doing, not the component's.
                deadline += waited.elapsed();
            }
        }
    }

    fn late(&self) -> Failure {
        Failure::passing(format!("the component gave no answer within {} ms", self.limit.as_millis()))
    }
}

impl Handle for Component {
    fn handle<'a>(&'a self, input: &'a Input) -> BoxFuture<'a, Attempt> {
        Box::pin(self.call(input))
    }

    fn accepting(&self) -> BoxFuture<'static, ()> {
        let address = self.address;
        Box::pin(async move {
            let mut pause = LOOK[0];
            while !accepts(address).await {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LOOK[1]);
            }
        })
    }
}

async fn accepts(address: SocketAddr) -> bool {
    matches!(timeout(CONNECT, TcpStream::connect(address)).await, Ok(Ok(_)))
}

/// What a status means.
pub(crate) fn verdict(status: StatusCode) -> Verdict {
    match status.as_u16() {
        200..=299 => Verdict::Answer,
        408 | 425 | 429 | 500..=599 => Verdict::Again,
        _ => Verdict::Final,
    }
}

/// The beginning of what whoever answers says of an error.
pub(crate) async fn excerpt(mut body: Incoming, deadline: Instant) -> String {
    let mut text = Vec::new();
    while let Ok(Some(Ok(frame))) = timeout_at(deadline, body.frame()).await {
        text.extend_from_slice(frame.data_ref().map(AsRef::as_ref).unwrap_or_default());
        if text.len() >= EXCERPT {
            break;
        }
    }
    String::from_utf8_lossy(&text).trim().chars().take(EXCERPT).collect()
}

/// The innermost reason of an error: that of the operating system, where there is one.
pub(crate) fn cause(error: &(dyn std::error::Error + 'static)) -> String {
    let mut last = error;
    while let Some(source) = last.source() {
        last = source;
    }
    match last.downcast_ref::<io::Error>() {
        // One that somebody else has put into it says more than its kind.
        Some(error) => error.get_ref().map_or_else(|| error.kind().to_string(), ToString::to_string),
        None => last.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_mean_what_the_documentation_says() {
        let verdicts: Vec<_> = [200, 204, 408, 425, 429, 500, 503, 599]
            .map(|status| verdict(StatusCode::from_u16(status).unwrap()))
            .into();
        let (answer, again) = (Verdict::Answer, Verdict::Again);
        assert_eq!(verdicts, [answer, answer, again, again, again, again, again, again]);
        for status in [301, 302, 307, 400, 401, 404, 409, 422, 600] {
            assert_eq!(verdict(StatusCode::from_u16(status).unwrap()), Verdict::Final, "{status}");
        }
    }
}
