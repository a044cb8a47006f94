//! What happens to one message, from its delivery to its acknowledgement.
//!
//! The order is what matters: everything that came out is stored, then the message is acknowledged. Whatever dies in
//! between, it comes again, and what it gives then has the same ids.

use std::sync::Arc;
use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::jetstream::AckKind;
use bytes::Bytes;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use crate::api::name::NodeId;
use crate::broker::message::{DeadLetter, MAX_MESSAGE};
use crate::broker::work::NodeWork;
use crate::broker::{Broker, PublishError, subject};
use crate::clock;

use super::edges::{self, Edges, Going};
use super::flight::{Flight, Seat};
use super::input::Input;
use super::metrics::{Hold, Outcome, PumpMetrics};
use super::step::{self, Failure, Step};
use super::test::ExitBeforeAck;
use super::{Attempt, Handle, Phase, Place, answer, id};

/// How often an acknowledgement is repeated, if nobody confirms it.
const ACKS: u32 = 12;

/// What all messages of one node have in common.
pub(super) struct Node {
    pub(super) broker: Broker,
    pub(super) place: Place,
    pub(super) work: NodeWork,
    pub(super) handler: Arc<dyn Handle>,
    pub(super) edges: Arc<Edges>,
    pub(super) metrics: PumpMetrics,
    pub(super) flight: Arc<Flight>,
    /// Whether the handler refuses messages: while it does, nothing is asked for.
    pub(super) refused: watch::Sender<bool>,
    pub(super) phase: watch::Receiver<Phase>,
    pub(super) exit: ExitBeforeAck,
}

/// How the handling of a message ends.
enum End {
    /// All that came out of it is stored.
    Done,
    /// It failed.
    Failed(Failure),
    /// It was not handled, and the pump ends.
    Return,
    /// It is not its time yet.
    NotYet(Duration),
}

impl Node {
    /// Does everything for one message.
    pub(super) async fn deliver(self: Arc<Self>, seat: Seat, payload: Bytes) {
        let _flying = self.metrics.fly();
        let given_up = step::given_up(seat.attempts, self.work.retry).filter(|_| !self.handler.waits());
        let failure = match given_up {
            Some(reason) => Failure::last(reason),
            None => match Input::read(payload.clone(), seat.queued) {
                Err(reason) => Failure::last(reason),
                Ok(input) => match self.handle(&input).await {
                    End::Done => {
                        self.exit.published();
                        return self.acknowledge(&seat, Outcome::Done).await;
                    }
                    End::Return => return self.give_back(&seat, None, Outcome::Returned).await,
                    End::NotYet(pause) => return self.give_back(&seat, Some(pause), Outcome::NotYet).await,
                    End::Failed(failure) => failure,
                },
            },
        };
        match step::after(failure, seat.attempts, self.work.retry) {
            Step::Again(pause) => self.give_back(&seat, Some(step::jitter(pause)), Outcome::Retried).await,
            Step::Dead(reason) => self.bury(&seat, payload, &reason).await,
        }
    }

    async fn handle(&self, input: &Input) -> End {
        loop {
            let began = Instant::now();
            let attempt = self.handler.handle(input).await;
            match attempt {
                Attempt::Refused if self.wait_accepted().await => {}
                Attempt::Refused => return End::Return,
                Attempt::NotYet(pause) => return End::NotYet(pause),
                Attempt::Failed(failure) => {
                    self.metrics.attempts.observe(began.elapsed().as_secs_f64());
                    return End::Failed(failure);
                }
                Attempt::Answer(answer, _large) => {
                    self.metrics.attempts.observe(began.elapsed().as_secs_f64());
                    return match self.publish_all(input, &answer).await {
                        Ok(()) => End::Done,
                        Err(failure) => End::Failed(failure),
                    };
                }
            }
        }
    }

    /// Waits until the handler takes messages again. False: the pump ends before.
    async fn wait_accepted(&self) -> bool {
        let _held = self.metrics.hold(Hold::Refused);
        self.refused.send_replace(true);
        let (mut refused, mut phase) = (self.refused.subscribe(), self.phase.clone());
        // Not at once: what accepts connections and yet takes none would be asked without a pause.
        sleep(step::hold(0)).await;
        tokio::select! {
            _ = refused.wait_for(|refused| !refused) => true,
            _ = phase.wait_for(|phase| *phase != Phase::Running) => false,
        }
    }

    /// Publishes what came out, along each edge; it is stored when this returns.
    async fn publish_all(&self, input: &Input, answer: &[u8]) -> Result<(), Failure> {
        let outputs = answer::read(answer).map_err(Failure::last)?;
        for Going { index, target, mapped } in self.edges.sort(input, &outputs).await? {
            let Some(parts) = outputs.get(index) else { continue };
            let metadata = edges::inherited(input, parts);
            let all = match &mapped {
                Some(mapped) => answer::read(mapped).map_err(Failure::last)?,
                None => vec![*parts],
            };
            for (part, parts) in all.into_iter().enumerate() {
                let id = id::output(&input.id, &self.place.node, (index, part), target);
                self.publish(target, &id, answer::write(&id, parts, metadata))
                    .await
                    .map_err(Failure::last)?;
            }
        }
        Ok(())
    }

    async fn publish(&self, target: &NodeId, id: &str, message: Vec<u8>) -> Result<(), String> {
        if message.len() > MAX_MESSAGE {
            return Err(format!(
                "what the node gives is a message of {} bytes, and the limit is {MAX_MESSAGE}",
                message.len()
            ));
        }
        let mut headers = HeaderMap::new();
        headers.insert(async_nats::header::NATS_MESSAGE_ID, id);
        let subject = subject::node(&self.place.namespace, &self.place.flow, target);
        self.store(subject, headers, message.into()).await?;
        self.metrics.published();
        Ok(())
    }

    /// Publishes until it is stored: a queue that is full and a broker that is away are waited for. An error is one that
    /// no patience helps against.
    async fn store(&self, subject: String, headers: HeaderMap, payload: Bytes) -> Result<(), String> {
        let (mut held, mut times) = (None, 0);
        loop {
            match self.broker.publish(subject.clone(), headers.clone(), payload.clone()).await {
                Ok(_) => return Ok(()),
                Err(error @ PublishError::TooLarge) => return Err(error.to_string()),
                Err(error) => {
                    if held.is_none() {
                        tracing::warn!(%error, subject, "Holding a message: what came out of it cannot be stored yet");
                        held = Some(self.metrics.hold(Hold::Publish));
                    }
                    sleep(step::hold(times).mul_f64(0.75 + 0.5 * fastrand::f64())).await;
                    self.broker.wait_connected().await;
                    times += 1;
                }
            }
        }
    }

    /// Makes a dead letter of a message.
    async fn bury(&self, seat: &Seat, payload: Bytes, reason: &str) {
        let Place { namespace, flow, node } = &self.place;
        let message = Input::read(payload.clone(), seat.queued).map(|input| input.id).unwrap_or_default();
        let letter = DeadLetter {
            reason,
            namespace,
            flow,
            node,
            attempts: seat.attempts,
            id: &message,
            sequence: seat.sequence(),
            queued: seat.queued.as_nanosecond(),
            time: clock::now(),
        };
        if let Err(error) = self.store(letter.subject(), letter.headers(), payload).await {
            // It stays where it is: that is better than to lose it.
            tracing::error!(%flow, %node, message, error, "Could not make a dead letter of a message");
            return self
                .give_back(seat, Some(step::pause(u64::MAX, self.work.retry)), Outcome::Retried)
                .await;
        }
        tracing::warn!(%flow, %node, message, reason, "A message became a dead letter");
        self.acknowledge(seat, Outcome::DeadLetter).await;
    }

    /// The server may forget the message. It must confirm it: an acknowledgement that is lost means that all is done
    /// again.
    async fn acknowledge(&self, seat: &Seat, outcome: Outcome) {
        for times in 0..ACKS {
            self.broker.wait_connected().await;
            match self.broker.client.request(seat.reply(), AckKind::Ack.into()).await {
                Ok(_) => break,
                Err(error) if times + 1 == ACKS => {
                    tracing::warn!(%error, "No acknowledgement was confirmed: the message may come again");
                }
                // Also where nobody responds: a server that has just started has not read its consumers yet.
                Err(_) => sleep(step::hold(times)).await,
            }
        }
        seat.forget();
        self.metrics.count(outcome);
    }

    /// Others may have the message, after a pause.
    async fn give_back(&self, seat: &Seat, pause: Option<Duration>, outcome: Outcome) {
        // If the server does not hear it, the message comes back when its time to be acknowledged is over.
        let _ = self.broker.client.publish(seat.reply(), AckKind::Nak(pause).into()).await;
        self.metrics.count(outcome);
    }
}
