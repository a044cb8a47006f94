//! Asking the server for messages: one request at a time, for no more than there is room for.

use std::time::Duration;

use async_nats::jetstream::consumer::PullConsumer;
use async_nats::jetstream::consumer::pull::BatchConfig;
use async_nats::{Client, Message, StatusCode, Subject, SubscribeError, Subscriber};
use futures::StreamExt as _;
use tokio::time::Instant;

/// How long the server keeps a request.
const EXPIRES: Duration = Duration::from_secs(30);
/// How much later it is given up, if the server has said nothing.
const GRACE: Duration = Duration::from_secs(5);
/// The pause after the server refused one.
const REST: Duration = Duration::from_millis(500);

/// One subscription to a consumer's messages.
#[derive(Debug)]
pub struct Puller {
    consumer: PullConsumer,
    subscriber: Subscriber,
    inbox: String,
    /// The number of the last request: its answers name it.
    number: u64,
    request: Option<Request>,
    rest: Option<Instant>,
    closing: Option<Instant>,
}

#[derive(Debug)]
struct Request {
    /// How many messages it still asks for.
    left: usize,
    until: Instant,
}

/// What came.
#[derive(Debug)]
pub enum Pulled {
    /// A message.
    Message(Message),
    /// The request is over: look whether to make another.
    Over,
    /// It is closed, and nothing comes any more.
    Closed,
}

/// What the server says about a request instead of giving a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Word {
    /// Nothing that matters.
    Nothing,
    /// It is over; another may follow at once.
    Over,
    /// It is over, and the next would fare the same for a while.
    Refused,
}

impl Puller {
    /// Subscribes; nothing is asked for yet.
    ///
    /// # Errors
    /// The client is closed.
    pub async fn open(client: &Client, consumer: PullConsumer) -> Result<Self, SubscribeError> {
        let inbox = client.new_inbox();
        let subscriber = client.subscribe(format!("{inbox}.*")).await?;
        Ok(Self { consumer, subscriber, inbox, number: 0, request: None, rest: None, closing: None })
    }

    /// Whether a request may be made now.
    #[must_use]
    pub fn free(&self, now: Instant) -> bool {
        let asked = self.request.as_ref().is_some_and(|request| request.until > now);
        !asked && self.closing.is_none() && self.rest.is_none_or(|until| until <= now)
    }

    /// When something is to be done without the server having said anything. What is over already waits for something else,
    /// such as a connection.
    #[must_use]
    pub fn wake(&self, now: Instant) -> Option<Instant> {
        let all = [self.request.as_ref().map(|request| request.until), self.rest, self.closing];
        all.into_iter().flatten().filter(|at| *at > now).min()
    }

    /// Whether it has been closed for long enough.
    #[must_use]
    pub fn expired(&self, now: Instant) -> bool {
        self.closing.is_some_and(|until| until <= now)
    }

    /// Asks for messages.
    pub async fn ask(&mut self, count: usize, bytes: usize, now: Instant) {
        self.number += 1;
        self.rest = None;
        let batch =
            BatchConfig { batch: count, expires: Some(EXPIRES), max_bytes: bytes, ..BatchConfig::default() };
        let inbox = Subject::from(format!("{}.{}", self.inbox, self.number));
        match self.consumer.request_batch(batch, inbox).await {
            Ok(()) => self.request = Some(Request { left: count, until: now + EXPIRES + GRACE }),
            Err(error) => {
                tracing::warn!(%error, "Could not ask the message broker for messages");
                self.rest = Some(now + REST);
            }
        }
    }

    /// What comes next.
    pub async fn next(&mut self) -> Pulled {
        loop {
            let Some(message) = self.subscriber.next().await else { return Pulled::Closed };
            let Some(status) = message.status else {
                self.count();
                return Pulled::Message(message);
            };
            // What is said of an older request is of no interest any more.
            if message.subject.rsplit('.').next() == Some(self.number.to_string().as_str()) {
                let description = message.description.as_deref().unwrap_or_default();
                match word(status, description) {
                    Word::Nothing => continue,
                    Word::Over => {}
                    Word::Refused => {
                        tracing::warn!(%status, description, "The message broker gives no messages");
                        self.rest = Some(Instant::now() + REST);
                    }
                }
                self.request = None;
                return Pulled::Over;
            }
        }
    }

    fn count(&mut self) {
        if let Some(request) = &mut self.request {
            request.left = request.left.saturating_sub(1);
        }
        self.request.take_if(|request| request.left == 0);
    }

    /// The connection is another: the server has forgotten the request.
    pub fn forget(&mut self) {
        self.request = None;
        self.rest = None;
    }

    /// Asks for no more; what the server has sent until it hears of this still comes.
    pub async fn close(&mut self, now: Instant) {
        if self.closing.is_none() {
            self.closing = Some(now + GRACE);
            // Where there is no connection there is nothing to close.
            let _ = self.subscriber.drain().await;
        }
    }
}

/// What the server means.
fn word(status: StatusCode, description: &str) -> Word {
    let fits_not = description.contains("MaxBytes") || description.starts_with("Batch Completed");
    match status.as_u16() {
        100 => Word::Nothing,
        404 | 408 => Word::Over,
        409 if fits_not => Word::Over,
        _ => Word::Refused,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_request_is_told_from_its_refusal() {
        let word = |status, description| word(StatusCode::try_from(status).unwrap(), description);
        assert_eq!(word(100, "Idle Heartbeat"), Word::Nothing);
        assert_eq!(word(408, "Request Timeout"), Word::Over);
        assert_eq!(word(409, "Message Size Exceeds MaxBytes"), Word::Over);
        assert_eq!(word(409, "Consumer Deleted"), Word::Refused);
        assert_eq!(word(503, ""), Word::Refused);
    }
}
