//! The planner against a small world of fakes, in seeded random order, interrupted at every step.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use fastrand::Rng;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentStatus};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::runtime::reflector::ObjectRef;
use serde_json::json;

use super::*;
use crate::api::flow::Flow;
use crate::api::flow::phase::FlowPhase;
use crate::api::flow::route::RouteState;
use crate::api::flow::trigger::{Cron, Trigger};
use crate::broker::ticks::Last;
use crate::broker::work::Loaded;
use crate::controllers::flow::snapshot::{Gateways, Runner};
use crate::controllers::flow::validate::validate;
use crate::scheduler::TakenUp;
use crate::scheduler::timetable::{Command, Timetable};

/// Who may do something next.
#[derive(Clone, Copy, Debug)]
enum Actor {
    Controller,
    Kubernetes,
    Gateway,
    Scheduler,
    Runner,
    Pump,
    Sender,
}

const ACTORS: [Actor; 7] = [
    Actor::Controller,
    Actor::Kubernetes,
    Actor::Gateway,
    Actor::Scheduler,
    Actor::Runner,
    Actor::Pump,
    Actor::Sender,
];

/// A cluster of fakes around one Flow.
struct World {
    now: Timestamp,
    version: u64,
    flow: Option<Flow>,
    secret: bool,
    deployments: BTreeMap<NodeId, Deployment>,
    queues: BTreeMap<NodeId, u64>,
    listed: Option<BTreeSet<NodeId>>,
    work: Option<FlowWork>,
    loaded: Option<Loaded>,
    /// By gateway: the version that it has applied, and whether it serves the route.
    gateways: BTreeMap<String, (u64, bool)>,
    timetable: Timetable,
    taken: Option<TakenUp>,
    ledger: Last,
    ticks: BTreeSet<Timestamp>,
    route: Option<(RouteState, u64)>,
    accepted: u64,
    handled: u64,
    dead: u64,
    phases: Vec<FlowPhase>,
}

impl World {
    fn new() -> Self {
        let flow: Flow = serde_json::from_value(json!({
            "apiVersion": "millrace.dev/v1alpha1", "kind": "Flow",
            "metadata": {"name": "orders", "namespace": "shop", "uid": "u1", "generation": 1, "resourceVersion": "1"},
            "spec": {
                "trigger": {"webhook": {"methods": ["POST"]}},
                "graph": {
                    "nodes": [
                        {"id": "fetch", "image": "erp:1", "credentials": {"secretRef": {"name": "erp"}}},
                        {"id": "map", "builtin": "log"},
                        {"id": "store", "image": "shop:1"},
                    ],
                    "edges": [{"source": "fetch", "target": "map"}, {"source": "map", "target": "store"}],
                },
            },
        }))
        .unwrap();
        Self {
            now: "2026-01-01T00:00:00Z".parse().unwrap(),
            version: 1,
            flow: Some(flow),
            secret: true,
            deployments: BTreeMap::new(),
            queues: BTreeMap::new(),
            listed: None,
            work: None,
            loaded: None,
            gateways: ["g1", "g2"].map(|name| (name.to_owned(), (0, false))).into(),
            timetable: Timetable::default(),
            taken: None,
            ledger: Last::default(),
            ticks: BTreeSet::new(),
            route: None,
            accepted: 0,
            handled: 0,
            dead: 0,
            phases: vec![],
        }
    }

    /// One with a schedule instead of a webhook.
    fn with_schedule() -> Self {
        let mut world = Self::new();
        let cron = Cron { schedule: "*/7 * * * * *".into(), ..Cron::default() };
        let trigger = &mut world.flow.as_mut().unwrap().spec.trigger;
        *trigger = Trigger { cron: Some(cron), webhook: None };
        world
    }

    /// Changes the Flow as the API server does: a new version, and a new generation where its spec changes.
    fn edit(&mut self, change: impl FnOnce(&mut Flow)) {
        let Some(flow) = &mut self.flow else { return };
        let before = flow.clone();
        change(flow);
        if *flow == before {
            return;
        }
        self.version += 1;
        flow.metadata.resource_version = Some(self.version.to_string());
        let respec = flow.spec != before.spec
            || flow.metadata.deletion_timestamp != before.metadata.deletion_timestamp;
        if respec {
            *flow.metadata.generation.get_or_insert(0) += 1;
        }
        if flow.metadata.deletion_timestamp.is_some()
            && flow.metadata.finalizers.iter().flatten().count() == 0
        {
            self.flow = None;
        }
    }

    fn snapshot(&mut self) -> Option<Snapshot> {
        let flow = Arc::new(self.flow.clone()?);
        let version = flow.metadata.resource_version.as_ref()?.parse().ok()?;
        let state = RouteState::of(&flow);
        let since = match &self.route {
            Some((known, since)) if *known == state => *since,
            _ => version,
        };
        self.route = Some((state, since));
        let pods =
            self.deployments.keys().map(|node| (node.clone(), vec![Arc::new(Pod::default())])).collect();
        Some(Snapshot {
            flow,
            now: self.now,
            namespace_ending: false,
            deployments: self.deployments.iter().map(|(id, it)| (id.clone(), Arc::new(it.clone()))).collect(),
            pods,
            credentials: [("erp".to_owned(), self.secret.then(|| "h1".to_owned()))].into(),
            queues: self.listed.clone(),
            broker_trouble: None,
            refused: BTreeMap::new(),
            backlog: Some(self.backlog()),
            work: self.work.clone(),
            loaded: self.loaded.clone(),
            runner: Runner::Ready,
            gateways: Gateways {
                endpoints: self.gateways.keys().map(|name| (name.clone(), true)).collect(),
                applied: self.gateways.iter().map(|(name, (version, _))| (name.clone(), *version)).collect(),
            },
            dead_letters: Some(self.dead),
            scheduled: self.taken.clone(),
            route_since: since,
            entry_since: version,
            announced: true,
        })
    }

    /// What waits, by node: nothing where there is no queue.
    fn backlog(&self) -> BTreeMap<NodeId, u64> {
        let all = ["fetch", "map", "store", "extra"].map(|id| id.parse::<NodeId>().unwrap());
        all.into_iter().map(|id| (id.clone(), self.queues.get(&id).copied().unwrap_or_default())).collect()
    }

    /// One look of the controller. `interrupted`: it ends after that many steps, before the status.
    fn reconcile(&mut self, interrupted: Option<usize>) {
        let Some(seen) = self.snapshot() else { return };
        let identity = Identity::of(&seen.flow).unwrap();
        let plan = plan(&config(), &identity, &validate(&seen.flow.spec), &seen);
        for (at, step) in plan.steps.into_iter().enumerate() {
            if interrupted == Some(at) {
                return;
            }
            self.step(step);
        }
        if plan.status.phase.is_some() && self.phases.last() != plan.status.phase.as_ref() {
            self.phases.extend(plan.status.phase);
        }
        self.edit(|flow| flow.status = Some(plan.status));
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::AddFinalizer => self.edit(|flow| flow.metadata.finalizers = Some(vec![FINALIZER.into()])),
            Step::RemoveFinalizer => self.edit(|flow| flow.metadata.finalizers = None),
            Step::EnsureQueues(nodes) => nodes.into_iter().for_each(|node| {
                self.queues.entry(node).or_default();
            }),
            Step::PutBrokerSecret(nodes) => self.listed = Some(nodes),
            Step::DeleteBrokerSecret => self.listed = None,
            Step::PutDeployment(id, wanted) => {
                let live = self.deployments.entry(id).or_default();
                if live.spec != wanted.spec {
                    let generation = live.metadata.generation.unwrap_or(0) + 1;
                    let status = live.status.take();
                    *live = *wanted;
                    live.metadata.generation = Some(generation);
                    live.status = status;
                }
            }
            Step::DeleteDeployment(id) => drop(self.deployments.remove(&id)),
            Step::PutWork(work) => self.work = Some(work),
            Step::DeleteWork => self.work = None,
            Step::Abandon(nodes) => {
                for node in nodes {
                    self.dead += self.queues.get_mut(&node).map(std::mem::take).unwrap_or_default();
                }
            }
            Step::RemoveLedger => self.ledger = Last::default(),
            Step::RemoveQueues(nodes) => nodes.iter().for_each(|node| {
                let left = self.queues.remove(node).unwrap_or_default();
                assert_eq!(left, 0, "the queue of {node} was removed with messages in it");
            }),
        }
    }

    fn kubernetes(&mut self) {
        for live in self.deployments.values_mut() {
            let all = live.spec.as_ref().and_then(|spec| spec.replicas);
            live.status = Some(DeploymentStatus {
                observed_generation: live.metadata.generation,
                replicas: all,
                updated_replicas: all,
                ready_replicas: all,
                ..DeploymentStatus::default()
            });
        }
    }

    fn gateway(&mut self, which: usize) {
        let served = self.flow.as_ref().is_some_and(|flow| RouteState::of(flow).wanted);
        let version = self.version;
        let all = self.gateways.len();
        if let Some(gateway) = self.gateways.values_mut().nth(which % all) {
            *gateway = (version, served);
        }
    }

    fn runner(&mut self) {
        self.loaded = self.work.as_ref().map(|work| Loaded {
            uid: work.uid.clone(),
            revision: work.revision.clone(),
            pod: "runner".into(),
            problems: vec![],
        });
    }

    /// A node handles one message, where somebody is there to do so, and gives it on.
    fn pump(&mut self, rng: &mut Rng) {
        let Some(node) = rng.choice(["fetch", "map", "store", "extra"]) else { return };
        let node: NodeId = node.parse().unwrap();
        let worked =
            self.loaded.is_some() && self.work.iter().flat_map(|work| &work.nodes).any(|it| it.id == node);
        let somebody = self.deployments.get(&node).is_some_and(|live| live.status.is_some()) || worked;
        let waiting = self.queues.get_mut(&node).filter(|waiting| somebody && **waiting > 0);
        let Some(waiting) = waiting else { return };
        *waiting -= 1;
        let next: Option<NodeId> = match node.as_str() {
            "fetch" => Some("map".parse().unwrap()),
            "map" => Some("store".parse().unwrap()),
            _ => None,
        };
        match next {
            Some(next) => *self.queues.get_mut(&next).expect("the next node has a queue") += 1,
            None => self.handled += 1,
        }
    }

    fn sender(&mut self) {
        let webhook = self.flow.as_ref().is_some_and(|flow| flow.spec.trigger.webhook.is_some());
        if webhook && self.gateways.values().any(|(_, served)| *served) {
            let entry = self.queues.get_mut(&"fetch".parse::<NodeId>().unwrap());
            *entry.expect("a route that is served has a queue") += 1;
            self.accepted += 1;
        }
    }

    /// The scheduler takes note of the Flow, and stores what is due. `died`: another one begins with what the broker knows.
    fn scheduler(&mut self, died: bool) {
        if died {
            (self.timetable, self.taken) = (Timetable::default(), None);
        }
        let name = ObjectRef::new("orders").within("shop");
        let mut commands = self.timetable.update(&name, self.flow.as_ref(), self.now);
        while let Some(command) = commands.pop() {
            match command {
                Command::Read(uid, ..) => {
                    commands.extend(self.timetable.read(&uid, Some(self.ledger.clone()), self.now));
                }
                Command::Say(_, _, taken) => self.taken = taken,
                Command::Tidy(..) => {}
            }
        }
        for fire in self.timetable.due(self.now) {
            assert_eq!(fire.tick.after, self.ledger.sequence, "nobody else writes to the ledger");
            *self.queues.get_mut(&fire.tick.entry).expect("a schedule that is followed has a queue") += 1;
            self.accepted += 1;
            assert!(self.ticks.insert(fire.tick.due), "{} came twice", fire.tick.due);
            let sequence = self.ledger.sequence + 1;
            self.ledger = Last { of: Some((fire.tick.uid.clone(), fire.tick.due)), sequence };
            let (_, changed) = self.timetable.stored(&fire.tick, Ok(sequence), self.now);
            assert_eq!(changed, None);
        }
    }

    fn act(&mut self, actor: Actor, rng: &mut Rng) {
        self.now += SignedDuration::from_secs(rng.i64(0..2));
        match actor {
            Actor::Controller => self.reconcile(rng.bool().then(|| rng.usize(0..6))),
            Actor::Kubernetes => self.kubernetes(),
            Actor::Gateway => self.gateway(rng.usize(..)),
            Actor::Scheduler => self.scheduler(rng.u8(0..20) == 0),
            Actor::Runner => self.runner(),
            Actor::Pump => self.pump(rng),
            Actor::Sender => self.sender(),
        }
        let queued: u64 = self.queues.values().sum();
        assert_eq!(self.accepted, self.handled + self.dead + queued, "a message was lost or doubled");
    }

    /// Everybody but the senders acts, in turn and without interruption, until nothing changes.
    fn settle(&mut self, rng: &mut Rng) {
        for round in 0.. {
            assert!(round < 500, "it never comes to rest: {:?}", self.phases);
            let before = self.state();
            for _ in 0..20 {
                self.pump(rng);
            }
            self.now += SignedDuration::from_secs(1);
            self.reconcile(None);
            self.kubernetes();
            self.gateway(0);
            self.gateway(1);
            self.scheduler(false);
            self.runner();
            if before == self.state() && self.queues.values().all(|waiting| *waiting == 0) {
                return;
            }
        }
    }

    /// All that changes while anybody has something to do.
    fn state(&self) -> impl PartialEq + use<> {
        let made = (self.deployments.clone(), self.queues.clone(), self.listed.clone());
        (self.version, made, self.gateways.clone(), self.work.clone(), self.loaded.clone())
    }

    fn phase(&self) -> Option<FlowPhase> {
        self.flow.as_ref().and_then(|flow| flow.status.as_ref()).and_then(|status| status.phase)
    }

    fn assert_nothing_left(&self) {
        assert_eq!(self.deployments, BTreeMap::new());
        assert_eq!(self.queues, BTreeMap::new());
        assert_eq!((&self.listed, &self.work, &self.taken), (&None, &None, &None));
        assert_eq!(self.ledger, Last::default());
    }
}

fn config() -> BuildConfig {
    BuildConfig {
        image: "millrace:1".into(),
        nats_url: "nats://nats:4222".into(),
        js_prefix: "$JS.API".into(),
        key: b"key".to_vec(),
        http_allow: vec![],
    }
}

fn suspend(flow: &mut Flow, wish: bool) {
    flow.spec.suspend = Some(wish);
}

/// What a person might do.
fn meddle(world: &mut World, rng: &mut Rng) {
    match rng.u8(0..7) {
        0 => world.edit(|flow| suspend(flow, true)),
        1 => world.edit(|flow| suspend(flow, false)),
        2 => world.edit(|flow| flow.spec.graph.nodes[0].image = Some("erp:2".into())),
        3 => world.edit(|flow| match &mut flow.spec.trigger {
            Trigger { webhook: Some(webhook), .. } => webhook.max_body_bytes = Some(1000),
            Trigger { cron: Some(cron), .. } => cron.schedule = "*/5 * * * * *".into(),
            Trigger { .. } => {}
        }),
        4 => world.secret = !world.secret,
        5 => world.edit(|flow| {
            // A node more, or one less.
            let nodes = &mut flow.spec.graph.nodes;
            if let Some(at) = nodes.iter().position(|node| node.id == "extra") {
                nodes.remove(at);
                flow.spec.graph.edges.retain(|edge| edge.target != "extra");
            } else {
                let mut extra = nodes[2].clone();
                extra.id = "extra".into();
                nodes.push(extra);
                let edge = crate::api::flow::Edge {
                    source: "store".into(),
                    target: "extra".into(),
                    ..Default::default()
                };
                flow.spec.graph.edges.push(edge);
            }
        }),
        _ => drop(world.deployments.pop_first()),
    }
}

#[test]
fn a_flow_goes_up_and_down_through_its_phases_in_order() {
    use FlowPhase::{Active, Inactive, Started, Starting, Stopping};
    let (mut world, mut rng) = (World::new(), Rng::with_seed(1));
    world.settle(&mut rng);
    assert_eq!(world.phases, [Starting, Started, Active]);
    world.sender();
    world.edit(|flow| suspend(flow, true));
    world.settle(&mut rng);
    assert_eq!(world.phases[3..], [Stopping, Inactive]);
    assert_eq!((world.accepted, world.handled, world.dead), (1, 1, 0));
    world.assert_nothing_left();
    world.edit(|flow| suspend(flow, false));
    world.settle(&mut rng);
    assert_eq!(world.phases[5..], [Starting, Started, Active]);
    let recent = world.flow.unwrap().status.unwrap().transitions.unwrap();
    assert_eq!(recent.counter, Some(8));
}

#[test]
fn a_flow_at_rest_or_active_is_written_no_more() {
    for wish in [false, true] {
        let (mut world, mut rng) = (World::new(), Rng::with_seed(2));
        world.edit(|flow| suspend(flow, wish));
        world.settle(&mut rng);
        let version = world.version;
        for _ in 0..100 {
            world.now += SignedDuration::from_secs(60);
            world.reconcile(None);
        }
        assert_eq!(world.version, version);
    }
}

#[test]
fn whatever_happens_in_whatever_order_a_flow_ends_as_it_is_wished_and_no_message_is_lost() {
    for seed in 0..300 {
        let mut rng = Rng::with_seed(seed);
        let mut world = if seed % 2 == 0 { World::new() } else { World::with_schedule() };
        for _ in 0..rng.usize(20..200) {
            if rng.u8(0..12) == 0 {
                meddle(&mut world, &mut rng);
            }
            let actor = rng.choice(ACTORS).unwrap();
            world.act(actor, &mut rng);
        }
        world.secret = true;
        let wish = rng.u8(0..3);
        match wish {
            0 => world.edit(|flow| suspend(flow, false)),
            1 => world.edit(|flow| suspend(flow, true)),
            _ => {
                let now = world.now;
                world.edit(|flow| flow.metadata.deletion_timestamp = Some(Time(now)));
            }
        }
        world.settle(&mut rng);
        match wish {
            0 => assert_eq!(world.phase(), Some(FlowPhase::Active), "seed {seed}"),
            1 => assert_eq!(world.phase(), Some(FlowPhase::Inactive), "seed {seed}"),
            _ => assert!(world.flow.is_none(), "seed {seed}"),
        }
        if wish != 0 {
            world.assert_nothing_left();
        }
    }
}

#[test]
fn a_schedule_is_followed_from_the_moment_on_when_the_flow_is_active() {
    let (mut world, mut rng) = (World::with_schedule(), Rng::with_seed(1));
    world.settle(&mut rng);
    assert_eq!(world.phases, [FlowPhase::Starting, FlowPhase::Started, FlowPhase::Active]);
    let status = world.flow.as_ref().unwrap().status.clone().unwrap();
    let said = |of| condition::find(&status.conditions, of).unwrap().message.clone();
    assert_eq!(said(ConditionType::Ready), "runs by the schedule '*/7 * * * * *' (UTC)");
    let armed = condition::find(&status.conditions, ConditionType::TriggerArmed).unwrap().clone();
    let first = world.ticks.first().copied().unwrap_or(world.now);
    assert!(first > armed.last_transition_time.0, "it ran before it was armed");
    let version = world.version;
    for _ in 0..70 {
        world.act(Actor::Scheduler, &mut Rng::with_seed(2));
        world.now += SignedDuration::from_secs(1);
        world.pump(&mut rng);
        world.reconcile(None);
    }
    assert!(world.ticks.len() >= 10);
    assert_eq!(world.version, version, "due times are not written to the Flow");
    let now = condition::find(&world.flow.unwrap().status.unwrap().conditions, ConditionType::TriggerArmed)
        .cloned();
    assert_eq!(now, Some(armed));
}

#[test]
fn what_was_due_while_a_flow_was_suspended_was_not_missed() {
    let (mut world, mut rng) = (World::with_schedule(), Rng::with_seed(1));
    world.settle(&mut rng);
    world.edit(|flow| suspend(flow, true));
    world.settle(&mut rng);
    world.assert_nothing_left();
    let before = world.ticks.len();
    world.now += SignedDuration::from_secs(70);
    let resumed = world.now;
    world.edit(|flow| suspend(flow, false));
    world.settle(&mut rng);
    for _ in 0..20 {
        world.now += SignedDuration::from_secs(1);
        world.scheduler(false);
    }
    assert!(world.ticks.len() > before);
    assert!(world.ticks.iter().skip(before).all(|tick| *tick > resumed));
}

#[test]
fn a_changed_schedule_counts_from_the_moment_on_when_it_is_armed_anew() {
    let (mut world, mut rng) = (World::with_schedule(), Rng::with_seed(1));
    world.settle(&mut rng);
    let armed = |world: &World| {
        let status = world.flow.as_ref().unwrap().status.as_ref().unwrap();
        condition::find(&status.conditions, ConditionType::TriggerArmed).unwrap().last_transition_time.clone()
    };
    let before = armed(&world);
    world.now += SignedDuration::from_secs(60);
    world.edit(|flow| flow.spec.trigger.cron.as_mut().unwrap().schedule = "0 0 0 1 1 *".into());
    world.settle(&mut rng);
    assert!(armed(&world) > before);
    assert_eq!(world.phase(), Some(FlowPhase::Active));
}

#[test]
fn a_spec_that_is_refused_changes_no_schedule_that_is_followed() {
    let (mut world, mut rng) = (World::with_schedule(), Rng::with_seed(1));
    world.settle(&mut rng);
    world.edit(|flow| flow.spec.trigger.cron.as_mut().unwrap().time_zone = Some("Europe/Atlantis".into()));
    world.reconcile(None);
    assert_eq!(world.phase(), Some(FlowPhase::Failed));
    let before = world.ticks.len();
    for _ in 0..20 {
        world.now += SignedDuration::from_secs(1);
        world.scheduler(false);
    }
    assert!(world.ticks.len() > before + 1);
}

#[test]
fn a_missing_secret_is_waited_for_without_a_deadline_and_heals() {
    let (mut world, mut rng) = (World::new(), Rng::with_seed(3));
    world.secret = false;
    for _ in 0..100 {
        world.now += SignedDuration::from_secs(60);
        world.reconcile(None);
        world.kubernetes();
    }
    assert_eq!(world.phases, [FlowPhase::Starting]);
    let status = world.flow.as_ref().unwrap().status.as_ref().unwrap();
    let ready = condition::find(&status.conditions, ConditionType::Ready).unwrap();
    assert_eq!(ready.reason, "DependencyNotReady");
    assert!(
        ready.message.contains("the Secret 'erp' with its credentials is missing: create it"),
        "{}",
        ready.message
    );
    world.secret = true;
    world.settle(&mut rng);
    assert_eq!(world.phase(), Some(FlowPhase::Active));
}

#[test]
fn pods_that_never_become_ready_fail_at_the_deadline_and_heal_by_themselves() {
    let (mut world, mut rng) = (World::new(), Rng::with_seed(4));
    for _ in 0..15 {
        world.reconcile(None);
        world.runner();
        world.now += SignedDuration::from_secs(60);
    }
    assert_eq!(world.phases, [FlowPhase::Starting, FlowPhase::Failed]);
    let version = world.version;
    world.now += SignedDuration::from_secs(6000);
    world.reconcile(None);
    assert_eq!(world.version, version);
    world.settle(&mut rng);
    assert_eq!(world.phase(), Some(FlowPhase::Active));
}

#[test]
fn a_changed_node_rolls_alone_and_the_trigger_stays_armed() {
    let (mut world, mut rng) = (World::new(), Rng::with_seed(5));
    world.settle(&mut rng);
    let store = world.deployments[&"store".parse::<NodeId>().unwrap()].clone();
    world.edit(|flow| flow.spec.graph.nodes[0].image = Some("erp:2".into()));
    world.settle(&mut rng);
    assert_eq!(world.deployments[&"store".parse::<NodeId>().unwrap()], store);
    assert_eq!(world.phases, [FlowPhase::Starting, FlowPhase::Started, FlowPhase::Active]);
}

#[test]
fn a_frozen_gateway_keeps_a_flow_from_becoming_active_and_is_named() {
    let (mut world, mut rng) = (World::new(), Rng::with_seed(6));
    for _ in 0..20 {
        world.now += SignedDuration::from_secs(1);
        world.reconcile(None);
        world.kubernetes();
        world.runner();
        world.gateway(0);
    }
    assert_eq!(world.phase(), Some(FlowPhase::Started));
    let status = world.flow.as_ref().unwrap().status.as_ref().unwrap();
    let ready = condition::find(&status.conditions, ConditionType::Ready).unwrap();
    assert_eq!(
        (ready.reason.as_str(), ready.message.as_str()),
        ("TriggerNotArmed", "waiting for gateway 'g2' to take up the route")
    );
    world.settle(&mut rng);
    assert_eq!(world.phase(), Some(FlowPhase::Active));
}

#[test]
fn what_is_left_when_the_drain_is_over_becomes_dead_letters() {
    let (mut world, mut rng) = (World::new(), Rng::with_seed(7));
    world.settle(&mut rng);
    world.sender();
    world.sender();
    world.edit(|flow| suspend(flow, true));
    for _ in 0..20 {
        world.now += SignedDuration::from_secs(30);
        world.gateway(0);
        world.gateway(1);
        world.reconcile(None);
        world.runner();
    }
    assert_eq!((world.accepted, world.handled, world.dead), (2, 0, 2));
    assert_eq!(world.phase(), Some(FlowPhase::Inactive));
    world.assert_nothing_left();
}

#[test]
fn a_spec_that_is_refused_disturbs_nothing_that_runs() {
    let (mut world, mut rng) = (World::new(), Rng::with_seed(8));
    world.settle(&mut rng);
    let before = world.deployments.clone();
    world.edit(|flow| flow.spec.graph.edges[0].target = "fetch".into());
    world.reconcile(None);
    assert_eq!(world.phase(), Some(FlowPhase::Failed));
    assert_eq!(world.deployments, before);
    assert!(RouteState::of(world.flow.as_ref().unwrap()).wanted);
    world.edit(|flow| flow.spec.graph.edges[0].target = "map".into());
    world.settle(&mut rng);
    assert_eq!(world.phase(), Some(FlowPhase::Active));
}

#[test]
fn a_removed_node_keeps_its_queue_while_a_pod_that_knows_it_is_left() {
    let (mut world, mut rng) = (World::new(), Rng::with_seed(9));
    world.settle(&mut rng);
    // Messages go from the first node to the last at once, and there is no time to drain.
    world.edit(|flow| {
        flow.spec.drain_seconds = Some(0);
        flow.spec.graph.nodes.remove(1);
        flow.spec.graph.edges = vec![crate::api::flow::Edge {
            source: "fetch".into(),
            target: "store".into(),
            ..Default::default()
        }];
    });
    let map: NodeId = "map".parse().unwrap();
    for _ in 0..5 {
        world.now += SignedDuration::from_secs(60);
        world.runner();
        world.gateway(0);
        world.gateway(1);
        world.reconcile(None);
        assert!(world.queues.contains_key(&map), "pods of before may still give it messages");
    }
    *world.queues.get_mut(&map).unwrap() += 1;
    world.accepted += 1;
    world.settle(&mut rng);
    assert!(!world.queues.contains_key(&map));
    assert_eq!((world.handled + world.dead, world.phase()), (1, Some(FlowPhase::Active)));
}
