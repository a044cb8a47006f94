//! `http`: calls a server for each message, and gives its answer.
//!
//! ```text
//!   fields     pure: what the user wrote
//!   request    pure: the request for a message        redirect   pure: where an answer sends it instead
//!   header     pure: which headers go where           message    pure: the message that an answer becomes
//!   address    pure: which addresses may be reached   connect    connections, to these only
//!   read       a body, within limits
//! ```

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use http::Response;
use http::header::LOCATION;
use hyper::body::{Body as _, Incoming};
use hyper_util::client::legacy;
use ipnet::IpNet;
use serde_json::{Map, Value};
use tokio::time::{Instant, timeout_at};

use crate::clock;
use crate::pump::call::{Verdict, cause, excerpt, verdict};
use crate::pump::input::Input;
use crate::pump::step::Failure;
use crate::pump::{Attempt, Handle};

use super::{FieldError, Tools};

mod address;
mod connect;
mod fields;
mod header;
mod message;
mod read;
mod redirect;
mod request;

pub use connect::RootsError;

use address::{Refused, Rules};
use fields::Fields;
use read::Places;
use request::Call;

/// What all http nodes of a runner share: connections, the rules of where they may lead, and places for large answers.
#[derive(Clone, Debug)]
pub struct Web {
    sender: connect::Sender,
    places: Places,
}

impl Web {
    /// Connects to public and private addresses, and to those that are allowed beside them. TLS trusts the common roots,
    /// and those in a file.
    ///
    /// # Errors
    /// The file holds no certificates.
    pub fn new(allowed: Vec<IpNet>, roots: Option<&Path>) -> Result<Self, RootsError> {
        Ok(Self { sender: connect::sender(Rules::new(allowed), roots)?, places: Places::default() })
    }
}

/// Checks the fields of a node.
///
/// # Errors
/// One of them is wrong.
pub(super) fn check(fields: &Map<String, Value>) -> Result<(), FieldError> {
    Fields::read(fields).map(drop)
}

/// One node.
pub(super) struct Http {
    fields: Fields,
    timeout: Duration,
    tools: Tools,
    places: Places,
}

impl Http {
    /// A node with these fields.
    ///
    /// # Errors
    /// One of them is wrong.
    pub(super) fn new(
        fields: &Map<String, Value>,
        timeout: Duration,
        tools: Tools,
    ) -> Result<Self, FieldError> {
        let places = tools.web.places.of_node();
        Ok(Self { fields: Fields::read(fields)?, timeout, tools, places })
    }

    async fn attempt(&self, input: &Input) -> Result<Attempt, Failure> {
        let given = self.evaluate(input).await?;
        let call = Call::new(&self.fields, given.as_deref(), &input.id)?;
        let deadline = Instant::now() + self.timeout;
        let (host, answer) = self.follow(call, deadline).await?;
        let (head, body) = answer.into_parts();
        let about = |failure: Failure| Failure {
            reason: format!("the answer of {host} cannot be used: {}", failure.reason),
            ..failure
        };
        if !body.is_end_stream() && !message::is_plain(&head.headers) {
            return Err(about(Failure::last("it has a content encoding, though none was asked for")));
        }
        let read = read::body(body, self.fields.longest, deadline, &self.places).await;
        let (body, large) = read.map_err(about)?;
        let message = message::of(head.status, &head.headers, &body, input.metadata.as_deref());
        Ok(Attempt::Answer(message.map_err(|why| about(Failure::last(why)))?, large))
    }

    /// What the expressions of the node give for a message.
    async fn evaluate(&self, input: &Input) -> Result<Option<Bytes>, Failure> {
        let Some(expression) = &self.fields.expression else { return Ok(None) };
        self.tools
            .lane
            .evaluate(expression, &input.payload, self.timeout)
            .await
            .map(Some)
            .map_err(Failure::from)
    }

    /// Sends a request, and those that the answers ask for instead, until there is an answer.
    async fn follow(
        &self,
        mut call: Call,
        deadline: Instant,
    ) -> Result<(String, Response<Incoming>), Failure> {
        for _ in 0..=redirect::MOST {
            let answer = self.send(&call, deadline).await?;
            let status = answer.status();
            if self.fields.accepts(status.as_u16()) {
                return Ok((call.host().to_owned(), answer));
            }
            call = match redirect::next(&call, status, answer.headers().get(LOCATION))? {
                Some(next) => next,
                None => return Err(unwanted(call.host(), answer, deadline).await),
            };
        }
        Err(Failure::last(format!("it was redirected more than {} times", redirect::MOST)))
    }

    async fn send(&self, call: &Call, deadline: Instant) -> Result<Response<Incoming>, Failure> {
        let request = call.request().map_err(|error| Failure::last(format!("it cannot be sent: {error}")))?;
        match timeout_at(deadline, self.tools.web.sender.request(request)).await {
            Err(_) => {
                let (host, limit) = (call.host(), self.timeout.as_millis());
                Err(Failure::passing(format!("{host} gave no answer within {limit} ms")))
            }
            Ok(answer) => answer.map_err(|error| unsent(call.host(), &error)),
        }
    }
}

impl Handle for Http {
    fn handle<'a>(&'a self, input: &'a Input) -> BoxFuture<'a, Attempt> {
        Box::pin(async { self.attempt(input).await.unwrap_or_else(Attempt::Failed) })
    }
}

/// Why there is no answer.
fn unsent(host: &str, error: &legacy::Error) -> Failure {
    let causes =
        std::iter::successors(Some(error as &(dyn std::error::Error + 'static)), |error| error.source());
    if let Some(refused) = causes.into_iter().find_map(|error| error.downcast_ref::<Refused>()) {
        return Failure::last(format!("{host} may not be called: {refused}"));
    }
    let why = cause(error);
    Failure::passing(if error.is_connect() {
        format!("cannot connect to {host}: {why}")
    } else {
        format!("{host} ended the connection without an answer ({why})")
    })
}

/// What an answer means whose status is not one that is wanted.
async fn unwanted(host: &str, answer: Response<Incoming>, deadline: Instant) -> Failure {
    let (head, body) = answer.into_parts();
    let text = if message::is_plain(&head.headers) { excerpt(body, deadline).await } else { String::new() };
    let colon = if text.is_empty() { "" } else { ": " };
    let reason = format!("{host} answered {}{colon}{text}", head.status.as_u16());
    match verdict(head.status) {
        Verdict::Again => Failure {
            pause: message::retry_after(&head.headers, clock::now().into()),
            ..Failure::passing(reason)
        },
        Verdict::Answer | Verdict::Final => Failure::last(reason),
    }
}
