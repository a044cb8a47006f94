//! The loop of a pump.

use std::sync::Arc;
use std::time::Duration;

use async_nats::Message;
use async_nats::jetstream::consumer::PullConsumer;
use async_nats::jetstream::{self, AckKind};
use futures::future::BoxFuture;
use k8s_openapi::jiff::Timestamp;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::broker::message::MAX_PAYLOAD;
use crate::broker::subject;

use super::Phase;
use super::deliver::Node;
use super::metrics::Outcome;
use super::pull::{Pulled, Puller};

/// How often the server hears that work goes on: well within the time that it waits for an acknowledgement.
const BEAT: Duration = Duration::from_secs(5);
/// The pause before a consumer that does not answer is asked again.
const ASK_AGAIN: Duration = Duration::from_millis(500);
/// How many bytes of messages may be in flight.
const BYTES: usize = 3 * MAX_PAYLOAD;
/// The room that the largest message needs, with subject and headers.
const LARGEST: usize = MAX_PAYLOAD + (64 << 10);
/// How long the server may take to hear that messages are given back.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Moves messages until the phase says that it is enough.
pub(super) async fn run(node: Arc<Node>, answered: watch::Sender<bool>) {
    let mut phase = node.phase.clone();
    let consumer = tokio::select! {
        consumer = find(&node) => consumer,
        _ = phase.wait_for(|phase| *phase != Phase::Running) => return,
    };
    answered.send_replace(true);
    let mut connections = node.broker.connections();
    connections.mark_unchanged();
    let mut turning = Turning {
        probe: Some(node.handler.accepting()),
        refused: node.refused.subscribe(),
        connections,
        beat: Instant::now() + BEAT,
        node,
        consumer,
        phase,
        puller: None,
        tasks: JoinSet::new(),
    };
    while turning.turn().await {}
    turning.end().await;
}

/// Asks for the consumer until it answers: the operator may be about to make it.
async fn find(node: &Node) -> PullConsumer {
    let (stream, durable) =
        (subject::stream(&node.place.namespace), subject::durable(&node.place.flow, &node.place.node));
    let mut told = false;
    loop {
        node.broker.wait_connected().await;
        match consumer(&node.broker.jetstream, &stream, &durable).await {
            Ok(consumer) => return consumer,
            Err(error) => {
                if !std::mem::replace(&mut told, true) {
                    tracing::info!(durable, error, "Waiting for the consumer of this node");
                }
                sleep(ASK_AGAIN.mul_f64(0.75 + 0.5 * fastrand::f64())).await;
            }
        }
    }
}

async fn consumer(context: &jetstream::Context, stream: &str, durable: &str) -> Result<PullConsumer, String> {
    // Without asking for the stream: that is no pod's business.
    let stream = context.get_stream_no_info(stream).await.map_err(|error| error.to_string())?;
    stream.get_consumer(durable).await.map_err(|error| error.to_string())
}

/// A pump whose consumer has answered.
struct Turning {
    node: Arc<Node>,
    consumer: PullConsumer,
    phase: watch::Receiver<Phase>,
    refused: watch::Receiver<bool>,
    connections: watch::Receiver<u64>,
    puller: Option<Puller>,
    tasks: JoinSet<()>,
    /// Runs while the handler refuses messages.
    probe: Option<BoxFuture<'static, ()>>,
    beat: Instant,
}

impl Turning {
    /// Does the next thing. False: there is nothing more to do.
    async fn turn(&mut self) -> bool {
        self.pull().await;
        let phase = *self.phase.borrow_and_update();
        if phase == Phase::Leaving
            || (phase == Phase::Draining && self.puller.is_none() && self.tasks.is_empty())
        {
            return false;
        }
        let wake = self.puller.as_ref().and_then(|puller| puller.wake(Instant::now()));
        let wake = wake.map_or(self.beat, |wake| wake.min(self.beat));
        tokio::select! {
            pulled = next(&mut self.puller) => match pulled {
                Pulled::Message(message) => self.take(message),
                Pulled::Over => {}
                Pulled::Closed => self.puller = None,
            },
            Some(_) = self.tasks.join_next() => {}
            () = probed(&mut self.probe) => {
                self.probe = None;
                self.node.refused.send_replace(false);
            }
            _ = self.refused.changed() => {}
            _ = self.phase.changed() => {}
            _ = self.connections.changed() => self.reconnected().await,
            () = sleep_until(wake) => self.beat().await,
        }
        true
    }

    /// Asks for messages where there is room, and for none where none may be taken.
    async fn pull(&mut self) {
        let now = Instant::now();
        if *self.refused.borrow_and_update() && self.probe.is_none() {
            self.probe = Some(self.node.handler.accepting());
        }
        if *self.phase.borrow() != Phase::Running {
            self.stop_pulling(now).await;
            return;
        }
        // What was asked for before still comes: the server drops what it hands out to somebody who has just left.
        if self.probe.is_some() || !self.node.broker.connected() {
            return;
        }
        if self.puller.is_none() {
            self.puller = Puller::open(&self.node.broker.client, self.consumer.clone()).await.ok();
        }
        let (count, bytes) = self.node.flight.size();
        let room = (self.node.work.in_flight.max(1) as usize).saturating_sub(count);
        let bytes = BYTES.saturating_sub(bytes);
        if let Some(puller) = &mut self.puller
            && room > 0
            && bytes >= LARGEST
            && puller.free(now)
        {
            puller.ask(room, bytes, now).await;
        }
    }

    async fn stop_pulling(&mut self, now: Instant) {
        if let Some(puller) = &mut self.puller {
            puller.close(now).await;
            if puller.expired(now) {
                self.puller = None;
            }
        }
    }

    /// Takes a message that the server has handed out.
    fn take(&mut self, message: Message) {
        let message = jetstream::Message { message, context: self.node.broker.jetstream.clone() };
        let Ok(info) = message.info() else {
            tracing::warn!("The message broker sent something that is no message of a queue");
            return;
        };
        let queued = Timestamp::from_nanosecond(info.published.unix_timestamp_nanos()).unwrap_or_default();
        let place = (info.stream_sequence, queued);
        let delivered = u64::try_from(info.delivered).unwrap_or(1);
        let message = message.message;
        let (Some(reply), bytes) = (message.reply, message.length) else { return };
        if let Some(seat) = self.node.flight.take(place, delivered, reply, bytes) {
            self.tasks.spawn(Arc::clone(&self.node).deliver(seat, message.payload));
        }
    }

    async fn reconnected(&mut self) {
        if let Some(puller) = &mut self.puller {
            puller.forget();
        }
        self.beat().await;
    }

    async fn beat(&mut self) {
        let now = Instant::now();
        if self.node.broker.connected() {
            self.node.flight.tell(&self.node.broker.client, AckKind::Progress).await;
        }
        self.beat = now + BEAT;
    }

    /// Gives back what is still here.
    async fn end(mut self) {
        let (left, _) = self.node.flight.size();
        if left > 0 && self.node.broker.connected() {
            self.node.flight.tell(&self.node.broker.client, AckKind::Nak(None)).await;
            let _ = timeout(LAST_WORDS, self.node.broker.client.flush()).await;
            for _ in 0..left {
                self.node.metrics.count(Outcome::Returned);
            }
        }
        self.tasks.shutdown().await;
    }
}

async fn next(puller: &mut Option<Puller>) -> Pulled {
    match puller {
        Some(puller) => puller.next().await,
        None => std::future::pending().await,
    }
}

async fn probed(probe: &mut Option<BoxFuture<'static, ()>>) {
    match probe {
        Some(probe) => probe.await,
        None => std::future::pending().await,
    }
}
