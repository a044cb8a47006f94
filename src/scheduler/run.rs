//! The loop of the scheduler: it sleeps until something is due, and stores it.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use kube::runtime::reflector::{ObjectRef, Store};
use serde_json::{Map, Value};
use tokio::sync::Semaphore;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::JoinSet;

use crate::api::flow::Flow;
use crate::api::name::NamespaceName;
use crate::broker::message::{Message, keyed_id};
use crate::broker::ticks::{BATCH, Last, Tick, TickError, Ticks};
use crate::clock::Clock;

use super::metrics::SchedulerMetrics;
use super::test::ExitAtTick;
use super::timetable::{Command, Fire, TakenUp, Timetable};

/// How many batches are stored, and how many ledgers read, at a time.
const AT_A_TIME: usize = 8;
const READS_AT_A_TIME: usize = 64;
/// The pause after a ledger could not be read.
const AGAIN: Duration = Duration::from_secs(1);
/// How many changes are taken in before it is looked again whether something is due.
const CHANGES: usize = 256;

/// The flows that the scheduler has taken up, by uid: what their controller needs to know.
#[derive(Clone, Debug, Default)]
pub struct Taken(Arc<Mutex<HashMap<Arc<str>, TakenUp>>>);

impl Taken {
    /// Whether a flow was taken up, and how.
    #[must_use]
    pub fn of(&self, uid: &str) -> Option<TakenUp> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(uid).cloned()
    }

    fn set(&self, uid: Arc<str>, taken: Option<TakenUp>) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match taken {
            Some(taken) => drop(all.insert(uid, taken)),
            None => drop(all.remove(&uid)),
        }
    }
}

/// What the scheduler works with.
pub struct Scheduler<C> {
    /// The Flows as they are cached.
    pub flows: Store<Flow>,
    /// Where ticks are stored.
    pub ticks: Ticks,
    /// What the ids of messages are made with.
    pub key: Vec<u8>,
    /// The clock.
    pub clock: C,
    /// Where it says which flows it has taken up.
    pub taken: Taken,
    /// What it counts.
    pub metrics: SchedulerMetrics,
}

/// What became of something that was done in the background.
enum Done {
    Stored(Vec<(Tick, Result<u64, TickError>)>),
    Read(Arc<str>, Option<Last>),
    Tidied,
}

/// The scheduler at work.
struct Running<C, F> {
    own: Scheduler<C>,
    table: Timetable,
    tasks: JoinSet<Done>,
    stores: Arc<Semaphore>,
    reads: Arc<Semaphore>,
    said: F,
    exit: ExitAtTick,
}

impl<C: Clock> Scheduler<C> {
    /// Runs for as long as the task does. `changes` names the Flows that have changed; none where all may have. `said` hears
    /// of each Flow that was taken up or given up.
    pub async fn run(
        self,
        mut changes: UnboundedReceiver<Option<ObjectRef<Flow>>>,
        said: impl Fn(ObjectRef<Flow>),
    ) {
        let mut running = Running {
            own: self,
            table: Timetable::default(),
            tasks: JoinSet::new(),
            stores: Arc::new(Semaphore::new(AT_A_TIME)),
            reads: Arc::new(Semaphore::new(READS_AT_A_TIME)),
            said,
            exit: ExitAtTick::from_env(),
        };
        running.look_at_all();
        let mut news = Vec::with_capacity(CHANGES);
        loop {
            running.fire();
            let next = running.table.next();
            tokio::select! {
                count = changes.recv_many(&mut news, CHANGES) => {
                    if count == 0 {
                        return;
                    }
                    news.drain(..).for_each(|name| running.changed(name));
                }
                Some(done) = running.tasks.join_next() => running.done(done),
                () = reached(&running.own.clock, next) => {}
            }
        }
    }
}

async fn reached<C: Clock>(clock: &C, time: Option<Timestamp>) {
    match time {
        Some(time) => clock.reached(time).await,
        None => std::future::pending().await,
    }
}

impl<C: Clock, F: Fn(ObjectRef<Flow>)> Running<C, F> {
    fn changed(&mut self, name: Option<ObjectRef<Flow>>) {
        match name {
            Some(name) => self.look_at(&name),
            None => self.look_at_all(),
        }
    }

    fn look_at_all(&mut self) {
        let there = self.own.flows.state();
        let names = there.iter().map(|flow| ObjectRef::from_obj(&**flow)).chain(self.table.names());
        names.collect::<Vec<_>>().iter().for_each(|name| self.look_at(name));
    }

    fn look_at(&mut self, name: &ObjectRef<Flow>) {
        let flow = self.own.flows.get(name);
        let commands = self.table.update(name, flow.as_deref(), self.own.clock.now());
        self.obey(commands);
    }

    fn obey(&mut self, commands: Vec<Command>) {
        for command in commands {
            match command {
                Command::Read(uid, namespace, flow) => {
                    let (ticks, reads) = (self.own.ticks.clone(), Arc::clone(&self.reads));
                    self.tasks.spawn(async move {
                        let _turn = reads.acquire().await;
                        let last = ticks.last(&namespace, &flow).await;
                        if let Err(error) = &last {
                            tracing::debug!(%namespace, %flow, %error, "Could not read the ledger of a schedule yet");
                            tokio::time::sleep(AGAIN).await;
                        }
                        Done::Read(uid, last.ok())
                    });
                }
                Command::Say(uid, name, taken) => {
                    self.own.taken.set(uid, taken);
                    (self.said)(name);
                }
                Command::Tidy(namespace, flow) => {
                    let (ticks, reads) = (self.own.ticks.clone(), Arc::clone(&self.reads));
                    self.tasks.spawn(async move {
                        let _turn = reads.acquire().await;
                        if let Err(error) = ticks.tidy(&namespace, &flow).await {
                            tracing::debug!(%namespace, %flow, %error, "Could not tidy the ledger of a schedule");
                        }
                        Done::Tidied
                    });
                }
            }
        }
        self.own.metrics.schedules.set(i64::try_from(self.table.len()).unwrap_or(i64::MAX));
    }

    /// Stores what is due, the ticks of one namespace together.
    fn fire(&mut self) {
        let now = self.own.clock.now();
        let mut by_namespace: BTreeMap<NamespaceName, Vec<Tick>> = BTreeMap::new();
        for fire in self.table.due(now) {
            self.exit.due();
            let namespace = fire.namespace.clone();
            by_namespace.entry(namespace).or_default().push(self.with_message(fire));
        }
        for (namespace, mut ticks) in by_namespace {
            while !ticks.is_empty() {
                let rest = ticks.split_off(ticks.len().min(BATCH));
                self.store(namespace.clone(), std::mem::replace(&mut ticks, rest));
            }
        }
    }

    fn store(&mut self, namespace: NamespaceName, batch: Vec<Tick>) {
        let (ticks, stores) = (self.own.ticks.clone(), Arc::clone(&self.stores));
        let exit = self.exit.clone();
        self.tasks.spawn(async move {
            let _turn = stores.acquire().await;
            exit.sending();
            let done = ticks.store(namespace, batch).await;
            exit.stored();
            Done::Stored(done)
        });
    }

    /// The message of a tick: nothing but when it was due, and when the next one will be.
    fn with_message(&self, fire: Fire) -> Tick {
        let Fire { tick, next, .. } = fire;
        let id = keyed_id(&self.own.key, [b"tick", tick.uid.as_bytes(), tick.due.to_string().as_bytes()]);
        let text = |time: Timestamp| Value::from(time.to_string());
        let mut metadata = Map::new();
        metadata.insert("trigger".into(), "cron".into());
        metadata.insert("scheduledTime".into(), text(tick.due));
        metadata.extend(next.map(|next| ("nextScheduledTime".into(), text(next))));
        let message = Message { id, body: Value::Object(Map::new()), metadata, ..Message::default() };
        // A struct of texts can always be written.
        Tick { payload: serde_json::to_vec(&message).unwrap_or_default().into(), ..tick }
    }

    fn done(&mut self, done: Result<Done, tokio::task::JoinError>) {
        let now = self.own.clock.now();
        match done {
            Ok(Done::Stored(all)) => all.iter().for_each(|(tick, stored)| self.stored(tick, *stored, now)),
            Ok(Done::Read(uid, last)) => {
                let commands = self.table.read(&uid, last, now);
                self.obey(commands);
            }
            Ok(Done::Tidied) => {}
            Err(error) => tracing::error!(%error, "A task of the scheduler has panicked"),
        }
    }

    fn stored(&mut self, tick: &Tick, stored: Result<u64, TickError>, now: Timestamp) {
        self.own.metrics.count(stored, now.duration_since(tick.due).max(SignedDuration::ZERO));
        match stored {
            Ok(_) => tracing::debug!(flow = %tick.flow, due = %tick.due, "Stored a tick"),
            Err(error) => {
                tracing::warn!(flow = %tick.flow, due = %tick.due, %error, "Could not store a tick yet");
            }
        }
        let (commands, changed) = self.table.stored(tick, stored, now);
        self.exit.recorded();
        self.obey(commands);
        if let Some(name) = changed {
            self.look_at(&name);
        }
    }
}
