//! The Cluster's plan against the state machine of Apache Stratos, and against a small world in random order.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use super::*;
use crate::api::cartridge::CartridgeSpec;
use crate::api::cluster::Cluster;
use crate::api::cluster::phase::ClusterPhase;
use crate::api::condition::find;
use crate::controllers::cluster::build;

/// A Cluster in a small world: a fake API server, and fake members.
struct World {
    cluster: Cluster,
    cartridge: Result<CartridgeSpec, String>,
    members: BTreeMap<u32, Instance>,
    revisions: Vec<k8s_openapi::api::apps::v1::ControllerRevision>,
    key: u32,
    foreign: BTreeSet<u32>,
    unfit: Option<String>,
    events: Vec<Event>,
    gone: bool,
    second: i64,
}

impl World {
    fn new(spec: &Value) -> Self {
        let mut all = json!({"cartridge": {"name": "web"}});
        all.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        let cluster = json!({
            "apiVersion": "millrace.dev/v1alpha1", "kind": "Cluster",
            "metadata": {"namespace": "shop", "name": "web", "uid": "c1", "generation": 1}, "spec": all,
        });
        let cartridge = json!({"image": "web:1", "ports": [{"name": "http", "port": 80}]});
        Self {
            cluster: serde_json::from_value(cluster).unwrap(),
            cartridge: Ok(serde_json::from_value(cartridge).unwrap()),
            members: BTreeMap::new(),
            revisions: vec![],
            key: 0,
            foreign: BTreeSet::new(),
            unfit: None,
            events: vec![],
            gone: false,
            second: 1000,
        }
    }

    fn identity(&self) -> Identity {
        Identity::of(&self.cluster).unwrap()
    }

    fn snapshot(&self) -> Snapshot {
        Snapshot {
            cluster: Arc::new(self.cluster.clone()),
            now: Timestamp::from_second(self.second).unwrap(),
            namespace_ending: false,
            cartridge: self.cartridge.clone().map(Arc::new),
            unfit: self.unfit.clone(),
            members: self.members.values().cloned().map(Arc::new).collect(),
            foreign: self.foreign.clone(),
            revisions: self.revisions.iter().cloned().map(Arc::new).collect(),
            key: self.key > 0,
            trouble: None,
            refused: None,
            announced: true,
        }
    }

    /// Looks once, and takes so many of the steps: an operator may end in between.
    fn look_for(&mut self, most: usize) -> Vec<Step> {
        let identity = self.identity();
        let plan = plan(&identity, &self.snapshot());
        let whole = plan.steps.len() <= most;
        for step in plan.steps.iter().take(most).cloned() {
            self.take(&identity, step);
        }
        if whole {
            self.events.extend(plan.event.map(|(event, _)| event));
            self.cluster.status = Some(plan.status);
        }
        plan.steps
    }

    fn look(&mut self) -> Vec<Step> {
        self.look_for(usize::MAX)
    }

    fn take(&mut self, identity: &Identity, step: Step) {
        match step {
            Step::AddFinalizer => self.cluster.finalizers_mut().push(FINALIZER.into()),
            Step::RemoveFinalizer => self.gone = true,
            Step::PutKey => self.key += 1,
            Step::PutRevision(revision, number) => {
                self.revisions.push(build::revision(identity, &revision, number));
            }
            Step::CreateMember(it) => {
                assert!(!self.foreign.contains(&it.ordinal), "the name is another's");
                let made = build::member(identity, it.ordinal, it.partition, &it.revision);
                assert!(self.members.insert(it.ordinal, made).is_none(), "two members of one name");
            }
            Step::MoveMember(it) => {
                let member = self.members.get_mut(&it.ordinal).unwrap();
                assert!(member.metadata.deletion_timestamp.is_none(), "it is going");
                member.spec.revision = Some(it.revision);
            }
            Step::DeleteMember(ordinal) => {
                let now = json!(Timestamp::from_second(self.second).unwrap());
                let member = self.members.get_mut(&ordinal).unwrap();
                member.metadata.deletion_timestamp = serde_json::from_value(now).unwrap();
            }
            Step::DeleteRevision(name) => self.revisions.retain(|stored| stored.name_any() != name),
        }
    }

    /// A member does the next thing: it goes, arrives at its revision, or becomes Active.
    fn step_member(&mut self, ordinal: u32) {
        let Some(member) = self.members.get_mut(&ordinal) else { return };
        if member.metadata.deletion_timestamp.is_some() {
            self.members.remove(&ordinal);
            return;
        }
        let status = member.status.get_or_insert_default();
        let arrived = status.revision == member.spec.revision;
        let active = is_true(&status.conditions, ConditionType::Serving);
        if !arrived && active {
            set_active(member, false);
        } else if !arrived {
            status.revision.clone_from(&member.spec.revision);
        } else if !active {
            set_active(member, true);
        }
    }

    fn settle(&mut self) {
        for _ in 0..200 {
            self.look();
            let ordinals: Vec<_> = self.members.keys().copied().collect();
            for ordinal in ordinals {
                self.step_member(ordinal);
            }
            self.second += 1;
        }
        if !self.gone {
            assert_eq!(self.look(), [], "it never comes to rest");
        }
    }

    fn available(&self) -> usize {
        let available = |member: &&Instance| {
            let status = member.status.clone().unwrap_or_default();
            member.metadata.deletion_timestamp.is_none()
                && is_true(&status.conditions, ConditionType::Serving)
        };
        self.members.values().filter(available).count()
    }

    fn phase(&self) -> ClusterPhase {
        self.cluster.status.as_ref().unwrap().phase.unwrap()
    }

    fn ready(&self) -> (String, String, String) {
        let ready = find(&self.cluster.status.as_ref().unwrap().conditions, ConditionType::Ready).unwrap();
        (ready.status.clone(), ready.reason.clone(), ready.message.clone())
    }

    fn ordinals(&self) -> Vec<u32> {
        self.members.keys().copied().collect()
    }

    fn image(&mut self, image: &str) {
        self.cartridge.as_mut().unwrap().image = Some(image.into());
    }
}

fn set_active(member: &mut Instance, active: bool) {
    let status = if active { "True" } else { "False" };
    let condition = |of: &str| json!({"type": of, "status": status, "reason": "X", "message": "because", "lastTransitionTime": "2026-01-01T00:00:00Z"});
    let conditions = json!([condition("Ready"), condition("Serving")]);
    member.status.get_or_insert_default().conditions = serde_json::from_value(conditions).unwrap();
}

fn three() -> World {
    let mut world = World::new(&json!({"replicas": 3}));
    world.settle();
    world
}

// The state machine of Stratos: Created → Active → Inactive → Active → Terminating.

#[test]
fn a_cluster_is_created_starts_and_is_active_when_its_members_are() {
    let mut world = World::new(&json!({"replicas": 3}));
    world.look();
    assert_eq!((world.phase(), world.ordinals(), world.key), (ClusterPhase::Created, vec![0, 1, 2], 1));
    world.look();
    assert_eq!(world.phase(), ClusterPhase::Starting);
    world.settle();
    assert_eq!(world.phase(), ClusterPhase::Active);
    assert_eq!(world.ready(), ("True".into(), "Active".into(), "3 members are active".into()));
    assert_eq!(world.events, [Event::ClusterCreated, Event::ClusterStarting, Event::ClusterActivated]);
    let status = world.cluster.status.clone().unwrap();
    assert_eq!(
        (status.replicas, status.active_replicas, status.updated_replicas),
        (Some(3), Some(3), Some(3))
    );
    assert_eq!(status.selector.as_deref(), Some("millrace.dev/cluster=web"));
    assert!(status.address.unwrap().ends_with(".shop.svc"));
    assert!(status.first_active_time.is_some());
}

#[test]
fn one_without_active_members_is_inactive_and_active_again() {
    let mut world = three();
    world.members.values_mut().for_each(|member| set_active(member, false));
    world.look();
    assert_eq!(world.phase(), ClusterPhase::Inactive);
    assert_eq!(world.ready().2, "0 of 3 members are active; web-0: because; web-1: because");
    world.settle();
    assert_eq!(world.phase(), ClusterPhase::Active);
}

#[test]
fn a_deletion_removes_the_members_and_goes_last() {
    let mut world = three();
    world.events.clear();
    world.cluster.metadata.deletion_timestamp =
        serde_json::from_value(json!("1970-01-01T00:17:00Z")).unwrap();
    world.look();
    assert_eq!((world.phase(), world.gone), (ClusterPhase::Terminating, false));
    world.settle();
    assert_eq!(
        (world.gone, world.members.len(), &world.events[..]),
        (true, 0, &[Event::ClusterTerminating][..])
    );
}

#[test]
fn orphans_are_not_removed() {
    let mut world = three();
    world.cluster.metadata.deletion_timestamp =
        serde_json::from_value(json!("1970-01-01T00:17:00Z")).unwrap();
    world.cluster.finalizers_mut().push("orphan".into());
    assert_eq!(world.look(), []);
    // The garbage collector makes them nobody's, and takes its finalizer away.
    world.members.clear();
    assert_eq!(world.look(), []);
    world.cluster.finalizers_mut().retain(|finalizer| finalizer != "orphan");
    assert_eq!(world.look(), [Step::RemoveFinalizer]);
}

#[test]
fn scaling_keeps_to_the_limits_and_to_the_lowest_ordinals() {
    let mut world = World::new(&json!({"replicas": 9, "instances": {"min": 1, "max": 4}}));
    world.settle();
    assert_eq!(world.ordinals(), [0, 1, 2, 3]);
    world.cluster.spec.replicas = 0;
    world.settle();
    assert_eq!(world.ordinals(), [0]);
    world.cluster.spec.replicas = 3;
    world.settle();
    assert_eq!(world.ordinals(), [0, 1, 2]);
    world.cluster.spec.instances = None;
    world.cluster.spec.replicas = 0;
    world.settle();
    assert_eq!((world.phase(), world.ready().1.as_str()), (ClusterPhase::Inactive, "ScaledToZero"));
}

#[test]
fn of_many_members_some_are_made_moved_or_removed_at_a_look_and_the_rest_soon() {
    let mut world = World::new(&json!({"replicas": 120, "update": {"maxUnavailable": "100%"}}));
    let changed = |world: &mut World| {
        let soon = plan(&world.identity(), &world.snapshot()).look_again.is_some();
        let steps = world.look();
        let of_members = |step: &&Step| {
            matches!(step, Step::CreateMember(_) | Step::MoveMember(_) | Step::DeleteMember(_))
        };
        (steps.iter().filter(of_members).count(), soon)
    };
    let rounds = |world: &mut World| [(); 4].map(|()| changed(world));
    let expected = [(50, true), (50, true), (20, false), (0, false)];
    assert_eq!(rounds(&mut world), expected);
    world.settle();
    world.image("web:2");
    assert_eq!(rounds(&mut world), expected);
    world.settle();
    world.cluster.spec.replicas = 0;
    assert_eq!(rounds(&mut world), expected);
    world.settle();
    world.cluster.spec.replicas = 120;
    world.settle();
    world.cluster.metadata.deletion_timestamp =
        serde_json::from_value(json!("1970-01-01T00:17:00Z")).unwrap();
    assert_eq!(rounds(&mut world), expected);
}

#[test]
fn a_member_whose_predecessor_still_goes_waits_for_its_end() {
    let mut world = three();
    world.cluster.spec.replicas = 1;
    world.look();
    world.cluster.spec.replicas = 4;
    assert_eq!(world.look().len(), 1, "web-3 only");
    world.settle();
    assert_eq!(world.ordinals(), [0, 1, 2, 3]);
}

#[test]
fn a_name_that_is_anothers_is_passed_over_and_named() {
    let mut world = World::new(&json!({"replicas": 2}));
    world.foreign = [1].into();
    world.settle();
    assert_eq!(world.ordinals(), [0, 2]);
    assert!(
        world.ready().2.contains("'web-1' belongs to an Instance that is no member"),
        "{}",
        world.ready().2
    );
}

#[test]
fn a_cartridge_that_is_missing_changes_nothing_that_runs() {
    let mut world = World::new(&json!({"replicas": 2}));
    world.cartridge = Err("there is no Cartridge 'web': create it".into());
    world.look();
    assert_eq!((world.phase(), world.members.len()), (ClusterPhase::Created, 0));
    let (status, reason, message) = world.ready();
    assert_eq!((status.as_str(), reason.as_str()), ("False", "DependencyNotReady"));
    assert_eq!(message, "0 of 2 members are active; there is no Cartridge 'web': create it");
    let mut world = three();
    world.cartridge = Err("there is no Cartridge 'web': create it".into());
    world.cluster.spec.replicas = 4;
    world.settle();
    assert_eq!(
        (world.phase(), world.ordinals()),
        (ClusterPhase::Active, vec![0, 1, 2, 3]),
        "by the last revision"
    );
}

#[test]
fn values_that_do_not_fit_are_a_persons_to_correct() {
    let mut world = three();
    world.unfit = Some("spec.values.x: wrong".into());
    world.image("web:2");
    world.look();
    assert_eq!((world.phase(), world.ready().1.as_str()), (ClusterPhase::Failed, "InvalidSpec"));
    world.unfit = None;
    world.settle();
    assert_eq!(world.phase(), ClusterPhase::Active);
}

#[test]
fn partitions_without_room_are_said() {
    let placement = json!({"partitions": [{"name": "a", "max": 1}, {"name": "b", "max": 1}]});
    let mut world = World::new(&json!({"replicas": 3, "placement": placement}));
    world.settle();
    let partitions: Vec<_> = world.members.values().filter_map(|it| it.spec.partition.clone()).collect();
    assert_eq!(partitions, ["a", "b"]);
    assert_eq!(world.ready().1, "NoRoom");
    assert!(world.ready().2.contains("no partition has room for 1 more"), "{}", world.ready().2);
}

#[test]
fn an_update_moves_as_many_as_may_be_missing_and_unused_revisions_go() {
    let mut world = World::new(&json!({"replicas": 4, "update": {"maxUnavailable": 2}}));
    world.settle();
    for number in 2..7 {
        world.image(&format!("web:{number}"));
        for _ in 0..200 {
            world.look();
            assert!(world.available() >= 2, "{}", world.available());
            let ordinals: Vec<_> = world.members.keys().copied().collect();
            for ordinal in ordinals {
                world.step_member(ordinal);
            }
        }
        assert_eq!(world.look(), []);
        assert_eq!(world.ready().2, "4 members are active");
    }
    assert_eq!(world.revisions.len(), 1 + KEPT);
    assert_eq!(world.ordinals(), [0, 1, 2, 3]);
}

/// In random order, with an operator that ends in the middle: it converges, and what is promised holds all the while.
#[test]
fn whatever_the_order_of_events_it_ends_as_is_wanted() {
    for seed in 0..300 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut world = World::new(&json!({"replicas": 3, "update": {"maxUnavailable": 1}}));
        for _ in 0..random.usize(10..120) {
            match random.u8(0..20) {
                0 => world.cluster.spec.replicas = random.i32(0..6),
                1 => world.image(&format!("web:{}", random.u8(0..3))),
                2 => {
                    if let Some(ordinal) = random.choice(world.ordinals()) {
                        set_active(world.members.get_mut(&ordinal).unwrap(), false);
                    }
                }
                // Removed by hand.
                3 => {
                    if let Some(ordinal) = random.choice(world.ordinals()) {
                        world.members.remove(&ordinal);
                    }
                }
                4 => drop(world.look_for(random.usize(0..4))),
                5..=12 => drop(world.look()),
                _ => {
                    if let Some(ordinal) = random.choice(world.ordinals()) {
                        world.step_member(ordinal);
                    }
                }
            }
            world.second += 1;
        }
        world.settle();
        let wanted: Vec<_> = (0..u32::try_from(world.cluster.spec.replicas).unwrap()).collect();
        assert_eq!(world.ordinals().len(), wanted.len(), "seed {seed}");
        assert_eq!(world.ready().0, "True", "seed {seed}: {:?}", world.ready());
        assert_eq!(world.key, 1, "seed {seed}: the key is made once");
    }
}
