//! What the operator wants to be run: one key a Flow in the bucket `desired`.
//!
//! Nobody keeps a consumer for it. What changes is republished on core NATS; and after each connection, and now and then,
//! all keys are read. Whatever comes by both ways, the higher sequence wins.

use std::time::Duration;

use async_nats::client::Request;
use async_nats::{HeaderMap, Message, Subscriber};
use futures::StreamExt as _;
use serde_json::json;
use thiserror::Error;
use tokio::time::timeout;

use crate::api::name::{FlowName, NamespaceName};
use crate::broker::work::FlowWork;
use crate::broker::{Broker, subject};

/// How long the broker may take for the next key.
const LIMIT: Duration = Duration::from_secs(5);
/// How many keys are asked for at a time.
const BATCH: usize = 256;

/// What was read of one Flow.
#[derive(Clone, Debug, PartialEq)]
pub struct News {
    /// The Flow.
    pub flow: FlowName,
    /// The place of this in the bucket: the higher one is the newer one.
    pub sequence: u64,
    /// What to run of it; none if it has no built-in nodes any more.
    pub work: Option<FlowWork>,
}

/// Why the keys cannot be read.
#[derive(Debug, Error)]
pub enum ListError {
    /// The broker does not answer.
    #[error("the message broker does not answer")]
    Unavailable,
    /// The broker does not want to.
    #[error("the message broker refuses: {0}")]
    Refused(String),
}

/// Hears what changes from now on.
///
/// # Errors
/// The client is closed.
pub async fn subscribe(broker: &Broker, namespace: &NamespaceName) -> Result<Subscriber, ListError> {
    let changes = format!("millrace.{}.{}", subject::DESIRED, subject::all_flow_keys(namespace));
    broker.client.subscribe(changes).await.map_err(|_| ListError::Unavailable)
}

/// Reads all keys of a namespace.
///
/// # Errors
/// They could not all be read.
pub async fn list(broker: &Broker, namespace: &NamespaceName) -> Result<Vec<News>, ListError> {
    let (mut all, mut next) = (Vec::new(), 1);
    loop {
        let (page, more) = page(broker, namespace, next).await?;
        let last = page.iter().filter_map(|message| number(message.headers.as_ref(), "Nats-Sequence")).max();
        all.extend(page.into_iter().filter_map(|message| read(&message)));
        match last {
            Some(last) if more => next = last + 1,
            _ => return Ok(all),
        }
    }
}

/// Reads some keys, and whether there are more.
async fn page(
    broker: &Broker,
    namespace: &NamespaceName,
    from: u64,
) -> Result<(Vec<Message>, bool), ListError> {
    let inbox = broker.client.new_inbox();
    let mut answers = broker.client.subscribe(inbox.clone()).await.map_err(|_| ListError::Unavailable)?;
    let keys = format!("$KV.{}.{}", subject::DESIRED, subject::all_flow_keys(namespace));
    let question = json!({"seq": from, "batch": BATCH, "next_by_subj": keys}).to_string();
    let request = Request::new().payload(question.into()).inbox(inbox);
    let stream = format!("DIRECT.GET.KV_{}", subject::DESIRED);
    broker.jetstream.send_request(stream, request).await.map_err(|_| ListError::Unavailable)?;
    let mut page = Vec::new();
    loop {
        let answer = timeout(LIMIT, answers.next()).await.ok().flatten().ok_or(ListError::Unavailable)?;
        match answer.status.map(|status| status.as_u16()) {
            None => page.push(answer),
            Some(204) => {
                let more = number(answer.headers.as_ref(), "Nats-Num-Pending").unwrap_or_default() > 0;
                return Ok((page, more));
            }
            // There is no such key.
            Some(404) => return Ok((page, false)),
            Some(503) => return Err(ListError::Unavailable),
            Some(status) => {
                let description = answer.description.unwrap_or_default();
                return Err(ListError::Refused(format!("{status} {description}")));
            }
        }
    }
}

/// What a message of the bucket says; `None` where it cannot be understood: what is known stays so.
#[must_use]
pub fn read(message: &Message) -> Option<News> {
    let headers = message.headers.as_ref();
    let key = headers
        .and_then(|headers| headers.get("Nats-Subject"))
        .map_or(message.subject.as_str(), |key| key.as_str());
    let flow = key.rsplit('.').next()?.parse().ok()?;
    let sequence = number(headers, "Nats-Sequence")?;
    let deleted = headers.and_then(|headers| headers.get("KV-Operation")).is_some();
    if deleted || message.payload.is_empty() {
        return Some(News { flow, sequence, work: None });
    }
    match serde_json::from_slice(&message.payload) {
        Ok(work) => Some(News { flow, sequence, work: Some(work) }),
        Err(error) => {
            tracing::error!(%flow, %error, "Cannot understand what to run of a flow: what it had goes on");
            None
        }
    }
}

fn number(headers: Option<&HeaderMap>, name: &str) -> Option<u64> {
    headers?.get(name)?.as_str().parse().ok()
}
