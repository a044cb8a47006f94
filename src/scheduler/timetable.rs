//! Which flows have a schedule, and when each is due next: pure, with the time passed in.
//!
//! A flow is *taken up* when its schedule and its ledger are known; from then on the controller may arm its trigger. It is
//! fired only once it is armed: what was due before was never missed.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;
use kube::runtime::reflector::ObjectRef;

use crate::api::condition::{self, ConditionType};
use crate::api::flow::Flow;
use crate::api::flow::route::{RouteState, TriggerHash};
use crate::api::name::{FlowName, NamespaceName, NodeId};
use crate::broker::ticks::{Last, Tick, TickError};

use super::due::{Due, due};
use super::schedule::{Schedule, Schedules};

/// How long what could not be stored waits until it is tried again.
const AGAIN: SignedDuration = SignedDuration::from_secs(1);
/// After so many ticks a flow's ledger is tidied.
const TIDY: u8 = 8;

/// A Flow, by its uid.
type Uid = Arc<str>;

/// The schedules of all flows.
#[derive(Debug, Default)]
pub struct Timetable {
    schedules: Schedules,
    rows: HashMap<Uid, Row>,
    by_name: HashMap<ObjectRef<Flow>, Uid>,
    /// When to look at a row. One that was put in anew has another turn, and what is left of before does not count.
    heap: BinaryHeap<Reverse<(Timestamp, Uid, u32)>>,
}

/// One flow.
#[derive(Debug)]
struct Row {
    namespace: NamespaceName,
    flow: FlowName,
    plan: Wanted,
    /// Up to here all is done, or was never to be done.
    last: Timestamp,
    /// The sequence of the last entry of its ledger.
    sequence: u64,
    stage: Stage,
    /// It has changed while it was fired, or is to go: look again when that is over.
    changed: bool,
    turn: u32,
    untidy: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Its ledger is being read.
    Reading,
    /// It waits for its next due time.
    Waiting,
    /// A tick is being stored.
    Firing,
}

/// What a Flow says of its schedule.
#[derive(Clone, Debug)]
struct Wanted {
    schedule: Arc<Schedule>,
    trigger: TriggerHash,
    deadline: Option<SignedDuration>,
    entry: Option<NodeId>,
    /// Since when its trigger is armed, where it is.
    armed: Option<Timestamp>,
}

/// A flow that was taken up, as its controller needs to know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TakenUp {
    /// The trigger whose schedule it is.
    pub trigger: TriggerHash,
    /// The node that gets the messages.
    pub entry: Option<NodeId>,
    /// The first due time after it was taken up.
    pub first: Option<Timestamp>,
}

/// What the outside is to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// Read the ledger of a flow.
    Read(Arc<str>, NamespaceName, FlowName),
    /// Say that a flow was taken up, or that it is no more.
    Say(Arc<str>, ObjectRef<Flow>, Option<TakenUp>),
    /// Forget the older entries of a flow's ledger.
    Tidy(NamespaceName, FlowName),
}

/// A tick that is due.
#[derive(Clone, Debug, PartialEq)]
pub struct Fire {
    /// The namespace of the Flow.
    pub namespace: NamespaceName,
    /// The tick, without its message yet.
    pub tick: Tick,
    /// The due time after it.
    pub next: Option<Timestamp>,
}

/// What a Flow says: nothing of a schedule, or that what it said before still counts.
enum Says {
    Nothing,
    AsBefore,
    Wants(Wanted),
}

impl Timetable {
    /// How many flows have a schedule.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether none has.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The names of all that have one.
    #[must_use]
    pub fn names(&self) -> Vec<ObjectRef<Flow>> {
        self.by_name.keys().cloned().collect()
    }

    /// When to look again, if nothing happens before.
    #[must_use]
    pub fn next(&self) -> Option<Timestamp> {
        self.heap.peek().map(|Reverse((time, ..))| *time)
    }

    /// A Flow has changed, or is gone.
    pub fn update(&mut self, name: &ObjectRef<Flow>, flow: Option<&Flow>, now: Timestamp) -> Vec<Command> {
        let uid = flow.and_then(ResourceExt::uid).map(Uid::from);
        let mut commands = vec![];
        if let Some(known) = self.by_name.get(name).cloned()
            && Some(&known) != uid.as_ref()
        {
            commands.extend(self.remove(name, &known));
        }
        let (Some(flow), Some(uid)) = (flow, uid) else { return commands };
        match self.says(flow) {
            Says::AsBefore => {}
            Says::Nothing => commands.extend(self.remove(name, &uid)),
            Says::Wants(wanted) => commands.extend(self.put(name, &uid, wanted, now)),
        }
        commands
    }

    fn says(&self, flow: &Flow) -> Says {
        let route = RouteState::of(flow);
        let (Some(cron), true) = (&flow.spec.trigger.cron, route.wanted) else { return Says::Nothing };
        let status = flow.status.as_ref();
        let conditions = status.map_or(&[][..], |status| &status.conditions);
        let with = status.and_then(|status| status.armed_trigger.as_deref());
        let armed = condition::find(conditions, ConditionType::TriggerArmed)
            .filter(|_| {
                condition::is_true(conditions, ConditionType::TriggerArmed)
                    && with == Some(route.trigger.as_str())
            })
            .map(|armed| armed.last_transition_time.0);
        let current = status.and_then(|status| status.observed_generation) == flow.metadata.generation;
        let accepted = current && condition::is_true(conditions, ConditionType::Accepted);
        // A spec that is not accepted (yet) changes nothing: what was armed goes on.
        if armed.is_none() && !accepted {
            return Says::AsBefore;
        }
        let Ok(schedule) = self.schedules.of(cron) else { return Says::AsBefore };
        let deadline =
            cron.starting_deadline_seconds.map(|seconds| SignedDuration::from_secs(seconds.into()));
        let entry = status.and_then(|status| status.entry.as_ref()).and_then(|entry| entry.parse().ok());
        Says::Wants(Wanted { schedule, trigger: route.trigger, deadline, entry, armed })
    }

    fn put(&mut self, name: &ObjectRef<Flow>, uid: &Uid, wanted: Wanted, now: Timestamp) -> Vec<Command> {
        let Some(row) = self.rows.get_mut(uid) else { return self.insert(name, uid, wanted) };
        if row.stage == Stage::Firing {
            row.changed = true;
            return vec![];
        }
        let same = row.plan.trigger == wanted.trigger && row.plan.entry == wanted.entry;
        row.plan = wanted;
        if row.stage == Stage::Reading {
            return vec![];
        }
        self.schedule(uid, now);
        if same { vec![] } else { self.say(uid, now) }
    }

    fn insert(&mut self, name: &ObjectRef<Flow>, uid: &Uid, wanted: Wanted) -> Vec<Command> {
        let namespace =
            name.namespace.as_deref().and_then(|namespace| namespace.parse::<NamespaceName>().ok());
        let (Some(namespace), Ok(flow)) = (namespace, name.name.parse::<FlowName>()) else { return vec![] };
        let read = Command::Read(uid.clone(), namespace.clone(), flow.clone());
        let row = Row {
            namespace,
            flow,
            plan: wanted,
            last: Timestamp::UNIX_EPOCH,
            sequence: 0,
            stage: Stage::Reading,
            changed: false,
            turn: 0,
            // Not all at the same time.
            untidy: fastrand::u8(..TIDY),
        };
        self.rows.insert(uid.clone(), row);
        self.by_name.insert(name.clone(), uid.clone());
        vec![read]
    }

    fn remove(&mut self, name: &ObjectRef<Flow>, uid: &Uid) -> Vec<Command> {
        match self.rows.get_mut(uid) {
            None => return vec![],
            Some(row) if row.stage == Stage::Firing => {
                row.changed = true;
                return vec![];
            }
            Some(_) => {}
        }
        self.rows.remove(uid);
        self.by_name.remove(name);
        vec![Command::Say(uid.clone(), name.clone(), None)]
    }

    /// The ledger of a flow was read; none where it could not be.
    pub fn read(&mut self, uid: &Arc<str>, last: Option<Last>, now: Timestamp) -> Vec<Command> {
        let Some(row) = self.rows.get_mut(uid) else { return vec![] };
        let Some(last) = last else {
            return vec![Command::Read(uid.clone(), row.namespace.clone(), row.flow.clone())];
        };
        row.sequence = last.sequence;
        if let Some((of, due)) = last.of
            && *of == **uid
        {
            // What this process has done itself it knows, even where the broker has lost it.
            row.last = row.last.max(due);
        }
        row.stage = Stage::Waiting;
        self.schedule(uid, now);
        self.say(uid, now)
    }

    /// What is due now. Each is being stored from now on, and [`Timetable::stored`] must hear what became of it.
    pub fn due(&mut self, now: Timestamp) -> Vec<Fire> {
        let mut all = vec![];
        while let Some(Reverse((time, uid, turn))) = self.heap.pop_if_due(now) {
            let Some(row) = self.rows.get_mut(&uid) else { continue };
            if row.turn != turn || row.stage != Stage::Waiting {
                continue;
            }
            let (Some(entry), Some(_)) = (row.plan.entry.clone(), row.plan.armed) else { continue };
            let after = match due(&row.plan.schedule, row.last, now, row.plan.deadline) {
                Due::Now(tick) => tick,
                Due::At(next) => {
                    self.push(&uid, next.max(time));
                    continue;
                }
                Due::Never => continue,
            };
            row.stage = Stage::Firing;
            let tick = Tick {
                flow: row.flow.clone(),
                uid: uid.to_string(),
                entry,
                due: after,
                after: row.sequence,
                payload: bytes::Bytes::new(),
            };
            let next = row.plan.schedule.next_after(after);
            all.push(Fire { namespace: row.namespace.clone(), tick, next });
        }
        all
    }

    /// What became of a tick. The name of the Flow is given back where it has changed meanwhile: [`Timetable::update`] must
    /// be told of it again.
    pub fn stored(
        &mut self,
        tick: &Tick,
        stored: Result<u64, TickError>,
        now: Timestamp,
    ) -> (Vec<Command>, Option<ObjectRef<Flow>>) {
        let uid = Uid::from(tick.uid.as_str());
        let Some(row) = self.rows.get_mut(&uid) else { return (vec![], None) };
        let mut commands = vec![];
        match stored {
            Ok(sequence) => {
                (row.last, row.sequence, row.stage) = (tick.due, sequence, Stage::Waiting);
                row.untidy += 1;
                if row.untidy >= TIDY {
                    row.untidy = 0;
                    commands.push(Command::Tidy(row.namespace.clone(), row.flow.clone()));
                }
                self.schedule(&uid, now);
            }
            Err(TickError::Full) => {
                row.stage = Stage::Waiting;
                // Its ledger may be what is full.
                commands.push(Command::Tidy(row.namespace.clone(), row.flow.clone()));
                self.push(&uid, now + AGAIN);
            }
            Err(TickError::Conflict | TickError::Unknown) => {
                row.stage = Stage::Reading;
                commands.push(Command::Read(uid.clone(), row.namespace.clone(), row.flow.clone()));
            }
        }
        let Some(row) = self.rows.get_mut(&uid).filter(|row| row.changed) else { return (commands, None) };
        row.changed = false;
        let name = ObjectRef::new(row.flow.as_str()).within(row.namespace.as_str());
        if self.by_name.get(&name) != Some(&uid) {
            // Another has its name by now.
            self.rows.remove(&uid);
            commands.push(Command::Say(uid, name, None));
            return (commands, None);
        }
        (commands, Some(name))
    }

    /// Puts a flow where its next due time is.
    fn schedule(&mut self, uid: &Uid, now: Timestamp) {
        let Some(row) = self.rows.get_mut(uid) else { return };
        let Some(armed) = row.plan.armed else { return };
        row.last = row.last.max(armed);
        match due(&row.plan.schedule, row.last, now, row.plan.deadline) {
            Due::Now(_) => self.push(uid, now),
            Due::At(next) => self.push(uid, next),
            Due::Never => {}
        }
    }

    fn push(&mut self, uid: &Uid, time: Timestamp) {
        let Some(row) = self.rows.get_mut(uid) else { return };
        row.turn = row.turn.wrapping_add(1);
        self.heap.push(Reverse((time, uid.clone(), row.turn)));
    }

    fn say(&self, uid: &Uid, now: Timestamp) -> Vec<Command> {
        let Some(row) = self.rows.get(uid) else { return vec![] };
        let taken = TakenUp {
            trigger: row.plan.trigger.clone(),
            entry: row.plan.entry.clone(),
            first: row.plan.schedule.next_after(row.last.max(now)),
        };
        let name = ObjectRef::new(row.flow.as_str()).within(row.namespace.as_str());
        vec![Command::Say(uid.clone(), name, Some(taken))]
    }
}

/// The heap gives only what is due.
trait PopIfDue {
    fn pop_if_due(&mut self, now: Timestamp) -> Option<Reverse<(Timestamp, Uid, u32)>>;
}

impl PopIfDue for BinaryHeap<Reverse<(Timestamp, Uid, u32)>> {
    fn pop_if_due(&mut self, now: Timestamp) -> Option<Reverse<(Timestamp, Uid, u32)>> {
        self.peek().is_some_and(|Reverse((time, ..))| *time <= now).then(|| self.pop()).flatten()
    }
}
