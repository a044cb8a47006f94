//! What the operator wants of this Instance: one key of the bucket `desired`.
//!
//! No consumer is kept for it. What changes is republished on core NATS; and after each connection, and now and then, the key
//! is read. Whatever comes by both ways, the higher sequence wins.

use std::time::Duration;

use async_nats::jetstream::stream::DirectGetErrorKind;
use async_nats::{HeaderMap, header};
use futures::StreamExt as _;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use crate::broker::member::MemberWork;
use crate::broker::{Broker, subject};

/// How often the key is read although nothing seems to have happened: half of it is jitter.
const REREAD: Duration = Duration::from_secs(300);
/// The pause before it is read again when that failed.
const AGAIN: Duration = Duration::from_secs(1);

/// Tells what is wanted, each time that it changes, for as long as somebody hears it.
pub async fn follow(broker: Broker, key: String, works: mpsc::UnboundedSender<MemberWork>) {
    let mut connections = broker.connections();
    let mut last = 0;
    loop {
        broker.wait_connected().await;
        connections.borrow_and_update();
        let Ok(mut changes) = broker.client.subscribe(subject::stored(subject::DESIRED, &key)).await else {
            return;
        };
        let mut due = Instant::now();
        loop {
            let heard = tokio::select! {
                // The subscription itself outlives a connection.
                change = changes.next() => match change {
                    Some(change) => {
                        let sequence = number(change.headers.as_ref());
                        Some((sequence, change.payload))
                    }
                    None => break,
                },
                () = sleep_until(due) => match read(&broker, &key).await {
                    Ok(found) => {
                        due = Instant::now() + REREAD.mul_f64(0.5 + 0.5 * fastrand::f64());
                        found
                    }
                    Err(why) => {
                        tracing::warn!(why, "Cannot read what is wanted of this instance");
                        due = Instant::now() + AGAIN;
                        None
                    }
                },
                again = connections.changed() => {
                    if again.is_err() { return; }
                    // What was said meanwhile was not heard.
                    due = Instant::now();
                    None
                }
            };
            let Some((sequence, payload)) =
                heard.filter(|(sequence, payload)| *sequence > last && !payload.is_empty())
            else {
                continue;
            };
            match serde_json::from_slice(&payload) {
                Ok(work) => {
                    last = sequence;
                    if works.send(work).is_err() {
                        return;
                    }
                }
                Err(error) => {
                    tracing::error!(%error, "Cannot understand what is wanted: what was wanted before goes on");
                }
            }
        }
    }
}

/// The key as it is; none where there is none.
async fn read(broker: &Broker, key: &str) -> Result<Option<(u64, bytes::Bytes)>, String> {
    if !broker.connected() {
        return Ok(None);
    }
    let stream = broker.jetstream.get_stream_no_info(format!("KV_{}", subject::DESIRED)).await;
    let stream = stream.map_err(|error| error.to_string())?;
    match stream.direct_get_last_for_subject(subject::written(subject::DESIRED, key)).await {
        Ok(found) => Ok(Some((found.sequence, found.payload))),
        Err(error) if error.kind() == DirectGetErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.to_string()),
    }
}

fn number(headers: Option<&HeaderMap>) -> u64 {
    headers
        .and_then(|headers| headers.get::<&str>(header::NATS_SEQUENCE.as_ref()))
        .and_then(|value| value.as_str().parse().ok())
        .unwrap_or_default()
}
