//! Pull, call, publish, ack: what agent and runner share. A pump moves the messages of one node.
//!
//! ```text
//!   pull       asks the server for as many messages as there is room for
//!   flight     the messages that are here: the server hears that work goes on
//!   deliver    one message: handle it, publish what comes out, acknowledge it
//!   call       a component as a handler: HTTP
//!   input      a message as it comes out of its queue
//!   edges      which ways a message goes, and how it changes on each
//!   answer     pure: the messages that an answer holds, or why it is none
//!   step       pure: what to do after an attempt that failed
//!   id         pure: the ids of what is published
//! ```
//! No message is lost: it is acknowledged when what came out of it, or its dead letter, is stored.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::task::JoinHandle;

use crate::api::name::{FlowName, NamespaceName, NodeId};
use crate::broker::Broker;
use crate::broker::work::NodeWork;

pub mod answer;
pub mod call;
mod deliver;
pub mod edges;
mod flight;
pub mod id;
pub mod input;
pub mod metrics;
mod pull;
mod run;
pub mod step;
pub mod test;

use edges::Edges;
use flight::Flight;
use input::Input;
use metrics::PumpMetrics;
use step::Failure;
use test::ExitBeforeAck;

/// Which node it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The namespace of the Flow.
    pub namespace: NamespaceName,
    /// The Flow.
    pub flow: FlowName,
    /// The node.
    pub node: NodeId,
}

/// Who handles messages.
pub trait Handle: Send + Sync + 'static {
    /// Makes one attempt at a message. It comes to an end by itself, whatever the message is.
    fn handle<'a>(&'a self, input: &'a Input) -> BoxFuture<'a, Attempt>;

    /// Returns when messages are taken.
    fn accepting(&self) -> BoxFuture<'static, ()> {
        Box::pin(std::future::ready(()))
    }

    /// Whether messages are handed out again and again without an attempt, so that how often says nothing.
    fn waits(&self) -> bool {
        false
    }
}

/// What came of an attempt.
#[derive(Debug)]
pub enum Attempt {
    /// An answer, to be read by [`answer::read`]; a large one is counted as such while it is here.
    Answer(Bytes, Option<OwnedSemaphorePermit>),
    /// The handler takes no messages at the moment: that was no attempt.
    Refused,
    /// It is not its time yet: it stays in its queue for so long. That was no attempt.
    NotYet(Duration),
    /// It failed.
    Failed(Failure),
}

/// What a pump may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    /// Everything.
    Running,
    /// Finish what it has.
    Draining,
    /// Nothing: what it has is given back.
    Leaving,
}

/// A pump at work. It ends, without a word to the server, when this is dropped.
pub struct Pump {
    phase: watch::Sender<Phase>,
    answers: watch::Receiver<bool>,
    flight: Arc<Flight>,
    task: JoinHandle<()>,
    ended: watch::Receiver<()>,
}

impl fmt::Debug for Pump {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pump").field("phase", &*self.phase.borrow()).finish_non_exhaustive()
    }
}

impl Pump {
    /// Starts to move the messages of a node, as soon as its consumer answers and its handler takes messages.
    #[must_use]
    pub fn start(
        broker: Broker,
        place: Place,
        work: NodeWork,
        (handler, edges): (Arc<dyn Handle>, Arc<Edges>),
        metrics: PumpMetrics,
    ) -> Self {
        let (phase, phases) = watch::channel(Phase::Running);
        let (answered, answers) = watch::channel(false);
        let (end, ended) = watch::channel(());
        let flight = Arc::new(Flight::default());
        let node = deliver::Node {
            broker,
            place,
            work,
            handler,
            edges,
            metrics,
            flight: Arc::clone(&flight),
            // It has to show first that it takes messages.
            refused: watch::Sender::new(true),
            phase: phases,
            exit: ExitBeforeAck::from_env(),
        };
        let task = tokio::spawn(async move {
            run::run(Arc::new(node), answered).await;
            drop(end);
        });
        Self { phase, answers, flight, task, ended }
    }

    /// Whether its consumer has answered.
    #[must_use]
    pub fn answers(&self) -> watch::Receiver<bool> {
        self.answers.clone()
    }

    /// How many messages it holds.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.flight.size().0
    }

    /// Whether it has ended.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.ended.has_changed().is_err()
    }

    /// Pulls nothing more, and returns when nothing is in flight.
    pub async fn drain(&self) {
        self.advance(Phase::Draining);
        self.ended().await;
    }

    /// Gives back what is in flight, finished or not, and returns when the server has been told.
    pub async fn leave(&self) {
        self.advance(Phase::Leaving);
        self.ended().await;
    }

    fn advance(&self, phase: Phase) {
        self.phase.send_if_modified(|now| {
            let later = phase > *now;
            *now = (*now).max(phase);
            later
        });
    }

    /// Returns when it has ended.
    pub async fn ended(&self) {
        let mut ended = self.ended.clone();
        // It never changes; the other side is dropped.
        while ended.changed().await.is_ok() {}
    }
}

impl Drop for Pump {
    fn drop(&mut self) {
        self.task.abort();
    }
}
