//! Takes requests: reads what a sender sends, puts it into a queue, and answers when it is stored there.

use std::sync::Arc;
use std::time::Duration;

use async_nats::{HeaderMap, header};
use bytes::{Bytes, BytesMut};
use http::header::{CONNECTION, EXPECT};
use http::request::Parts;
use http::{HeaderValue, Method, Request};
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Incoming};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::broker::connect::{Broker, PublishError};
use crate::gateway::answer::{self, Answer, REQUEST_ID, Refusal};
use crate::gateway::id::{self, MessageKey};
use crate::gateway::meter::{Meter, Record};
use crate::gateway::request::{self, Kind, Stored, Understood};
use crate::gateway::route::Route;
use crate::gateway::routes::Routes;
use crate::gateway::target::Target;

/// How long a whole body may take.
const BODY: Duration = Duration::from_secs(15);
/// How long a sender may pause within one.
const PAUSE: Duration = Duration::from_secs(5);
/// How long a message may take to be stored.
const STORE: Duration = Duration::from_secs(8);
/// How much of a body is read that nobody wants, and how long: a sender that cannot write does not read our answer.
const UNWANTED: (usize, Duration) = (8 << 20, Duration::from_secs(2));
/// What all bodies together may take in memory, in KiB.
const MEMORY: usize = 64 << 10;
/// When to try again, in seconds.
const RETRY: u16 = 5;

/// What it takes to answer a request.
#[derive(Debug)]
pub struct Intake {
    /// The routes.
    pub routes: Arc<Routes>,
    /// Where messages are put.
    pub broker: Broker,
    /// What their ids are made with.
    pub key: MessageKey,
    /// What is told of requests.
    pub meter: Meter,
    /// Messages on their way, which go on when their sender leaves.
    pub publishing: TaskTracker,
    /// Whether connections should end soon.
    pub ending: CancellationToken,
    memory: Arc<Semaphore>,
}

impl Intake {
    /// Nothing has been taken yet.
    #[must_use]
    pub fn new(
        routes: Arc<Routes>,
        broker: Broker,
        key: MessageKey,
        meter: Meter,
        ending: CancellationToken,
    ) -> Self {
        let memory = Arc::new(Semaphore::new(MEMORY));
        Self { routes, broker, key, meter, publishing: TaskTracker::new(), ending, memory }
    }

    /// Answers a request; `close` is whether its connection should end.
    pub async fn answer(&self, request: Request<Incoming>, close: bool) -> Answer {
        let (parts, mut body) = request.into_parts();
        let request_id = id::request_id(&parts.headers);
        let mut record = self.meter.begin(&parts, &request_id);
        let mut answer =
            self.take(&parts, &mut body, &request_id, &mut record).await.unwrap_or_else(Refusal::answer);
        record.status = Some(answer.status());
        drop(record);
        // Whoever waits to be told to go on has sent nothing yet.
        if !body.is_end_stream() && !parts.headers.contains_key(EXPECT) {
            tokio::spawn(timeout(UNWANTED.1, discard(body)));
        }
        if let Ok(value) = HeaderValue::from_str(&request_id) {
            answer.headers_mut().insert(REQUEST_ID, value);
        }
        if close || self.ending.is_cancelled() {
            answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        answer
    }

    async fn take(
        &self,
        parts: &Parts,
        body: &mut Incoming,
        request_id: &str,
        record: &mut Record<'_>,
    ) -> Result<Answer, Refusal> {
        let target = Target::of(parts.uri.path()).ok_or_else(Refusal::not_found)?;
        // Not held while the body is read: a slow sender must delay nobody who stops or changes a Flow.
        let (kind, limit) = {
            let route = self.routes.find(&target.key).ok_or_else(Refusal::not_found)?;
            record.flow = Some((route.namespace.clone(), route.flow.clone()));
            if parts.method == Method::HEAD {
                return Ok(answer::there());
            }
            (expect(&route, parts, body)?, route.max_body)
        };
        let mut held = Held { memory: self.memory.clone(), permit: None };
        let raw =
            if parts.method == Method::GET { Bytes::new() } else { read(body, limit, &mut held).await? };
        record.bytes = raw.len();
        let understood = Understood::of(parts, &target, request_id, kind, &raw)?;
        // From here on it is held: no later version is announced before this is stored or refused.
        let route = self.routes.find(&target.key).ok_or_else(Refusal::not_found)?;
        request::admit(&route, parts, raw.len() as u64)?;
        let message = understood.message(&route, &self.key)?;
        self.publish(route, message, held).await?;
        Ok(answer::stored(request_id))
    }

    /// Puts a message into its queue. It is not given up when the sender leaves: nobody could tell whether it is stored.
    async fn publish(&self, route: Arc<Route>, message: Stored, held: Held) -> Result<(), Refusal> {
        let broker = self.broker.clone();
        let stored = self.publishing.spawn(async move {
            let mut headers = HeaderMap::new();
            headers.insert(header::NATS_MESSAGE_ID, message.id);
            let stored = timeout(STORE, broker.publish(message.subject, headers, message.payload)).await;
            // After a time-out it may still be on its way; but then announcements go the same way, behind it.
            drop((route, held));
            stored.unwrap_or(Err(PublishError::Unavailable))
        });
        match stored.await.unwrap_or(Err(PublishError::Unavailable)) {
            Ok(_) => Ok(()),
            Err(error) => Err(unstored(&error)),
        }
    }
}

/// How the body of a request will be read, if it is one that the route takes.
fn expect(route: &Route, parts: &Parts, body: &Incoming) -> Result<Kind, Refusal> {
    if parts.method == Method::GET {
        // A body of a GET means nothing (RFC 9110, 9.3.1).
        return request::admit(route, parts, 0).map(|()| Kind::Nothing);
    }
    request::admit(route, parts, body.size_hint().lower())?;
    request::kind(&parts.headers, !body.is_end_stream())
}

/// What a sender is told of a message that is not known to be stored.
fn unstored(error: &PublishError) -> Refusal {
    match error {
        PublishError::Full => {
            Refusal::later("QueueFull", "the queue of this flow is full: send it again later", RETRY)
        }
        PublishError::NoStream => {
            Refusal::later("NoQueue", "this flow has no queue at the moment: send it again later", RETRY)
        }
        PublishError::TooLarge => {
            Refusal::too_large("the message that the request makes", crate::broker::message::MAX_MESSAGE)
        }
        PublishError::Unavailable => Refusal::later(
            "BrokerUnavailable",
            "the message broker does not answer: send it again later, with the same x-request-id",
            RETRY,
        ),
        PublishError::WrongLastSequence | PublishError::Refused(_) => {
            tracing::error!(%error, "The message broker refused a message");
            Refusal::later(
                "BrokerRefuses",
                "the message broker refuses the message: send it again later",
                RETRY,
            )
        }
    }
}

/// Reads a body of at most that many bytes.
async fn read(body: &mut Incoming, limit: usize, held: &mut Held) -> Result<Bytes, Refusal> {
    let end = Instant::now() + BODY;
    let mut bytes = BytesMut::new();
    loop {
        let frame = match timeout_at(end.min(Instant::now() + PAUSE), body.frame()).await {
            Ok(Some(Ok(frame))) => frame,
            Ok(Some(Err(_))) => {
                return Err(Refusal::malformed(
                    "BrokenBody",
                    "the body is broken off or its chunks are wrong: send it again",
                ));
            }
            Ok(None) => return Ok(bytes.freeze()),
            Err(_) => return Err(Refusal::too_slow()),
        };
        let Ok(data) = frame.into_data() else { continue };
        let length = bytes.len() + data.len();
        if length > limit {
            return Err(Refusal::too_large("a body for this address", limit));
        }
        if !held.at_least(length) {
            return Err(Refusal::later("Busy", "too many requests at a time: send it again later", 1));
        }
        bytes.extend_from_slice(&data);
    }
}

/// Reads a body to its end for nobody, within bounds.
async fn discard(mut body: Incoming) {
    let mut left = UNWANTED.0;
    while let Some(Ok(frame)) = body.frame().await {
        let length = frame.data_ref().map_or(0, Bytes::len);
        match left.checked_sub(length) {
            Some(rest) => left = rest,
            None => return,
        }
    }
}

/// Memory that a request uses, out of what all may use together.
#[derive(Debug)]
struct Held {
    memory: Arc<Semaphore>,
    permit: Option<OwnedSemaphorePermit>,
}

impl Held {
    /// Takes what is missing to so many bytes. False where others have it; then nobody waits: two that wait for each other
    /// would wait for ever.
    fn at_least(&mut self, bytes: usize) -> bool {
        let held = self.permit.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let missing = u32::try_from(bytes.div_ceil(1024).saturating_sub(held)).unwrap_or(u32::MAX);
        if missing == 0 {
            return true;
        }
        let Ok(more) = self.memory.clone().try_acquire_many_owned(missing) else { return false };
        match &mut self.permit {
            Some(permit) => permit.merge(more),
            None => self.permit = Some(more),
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_share_a_bounded_memory_and_give_it_back() {
        let memory = Arc::new(Semaphore::new(4));
        let held = || Held { memory: memory.clone(), permit: None };
        let (mut some, mut other) = (held(), held());
        assert!(some.at_least(1) && some.at_least(1024) && some.at_least(1025));
        assert_eq!(memory.available_permits(), 2);
        assert!(other.at_least(2048) && !other.at_least(2049) && !some.at_least(4096));
        drop(some);
        assert!(other.at_least(4096));
        drop(other);
        assert_eq!(memory.available_permits(), 4);
    }

    #[test]
    fn what_is_not_stored_is_never_answered_as_if_it_were() {
        let all = [
            PublishError::Full,
            PublishError::NoStream,
            PublishError::Unavailable,
            PublishError::WrongLastSequence,
            PublishError::Refused("x".into()),
        ];
        for error in all {
            let refusal = unstored(&error);
            assert_eq!(refusal.status.as_u16(), 503, "{error}");
            assert_eq!(
                refusal.header,
                Some((http::header::RETRY_AFTER, HeaderValue::from(RETRY))),
                "{error}"
            );
        }
        assert_eq!(unstored(&PublishError::TooLarge).status.as_u16(), 413);
    }
}
