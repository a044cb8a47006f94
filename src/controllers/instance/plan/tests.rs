//! The Instance's plan against the state machines that it replaces, and against a small world in random order.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::*;
use crate::api::cartridge::CartridgeSpec;
use crate::api::condition::{Condition, find, is_true};
use crate::api::instance::Instance;
use crate::api::instance::phase::InstancePhase;
use crate::api::revision::Revision;
use crate::broker::member::{MemberReport, Stage as Said};
use crate::controllers::instance::imports::Resolution;
use crate::controllers::instance::snapshot::Rejected;

fn config() -> BuildConfig {
    BuildConfig {
        image: "millrace:1".into(),
        nats_url: "nats://nats:4222".into(),
        js_prefix: "$JS.API".into(),
        key: b"key".to_vec(),
        http_allow: vec![],
    }
}

/// An Instance in a small world: a fake API server, a fake agent, a fake load balancer.
#[allow(clippy::struct_excessive_bools, reason = "each varies by itself")]
#[derive(Clone)]
struct World {
    instance: Instance,
    cartridge: CartridgeSpec,
    pod: Option<Pod>,
    told: Option<MemberWork>,
    said: Option<(Said, u32)>,
    in_balancer: bool,
    import: Option<bool>,
    dependants: Vec<String>,
    broker: bool,
    rejected: Option<Rejected>,
    node_lost: Option<Timestamp>,
    source: bool,
    pods_made: u32,
    second: i64,
    gone: bool,
    steps: Vec<String>,
    events: Vec<Event>,
}

impl World {
    fn new(wrapped: bool, imports: bool) -> Self {
        let mut cartridge = json!({
            "image": "app:1", "ports": [{"name": "http", "port": 8080}],
            "exports": [{"name": "ip", "address": "PodIP"}],
        });
        if wrapped {
            cartridge["command"] = json!(["/app"]);
        }
        if imports {
            cartridge["imports"] = json!([{"name": "db", "cartridge": "db", "variables": ["ip"]}]);
        }
        let instance = json!({
            "apiVersion": "millrace.dev/v1alpha1", "kind": "Instance",
            "metadata": {
                "namespace": "shop", "name": "app-0", "uid": "u1", "generation": 1, "finalizers": [FINALIZER],
                "ownerReferences": [{
                    "apiVersion": "millrace.dev/v1alpha1", "kind": "Cluster", "name": "app", "uid": "c1", "controller": true,
                }],
            },
            "spec": {"cartridge": {"name": "app"}, "cluster": "app", "revision": "r1"},
        });
        Self {
            instance: serde_json::from_value(instance).unwrap(),
            cartridge: serde_json::from_value(cartridge).unwrap(),
            pod: None,
            told: None,
            said: None,
            in_balancer: false,
            import: imports.then_some(false),
            dependants: vec![],
            broker: true,
            rejected: None,
            node_lost: None,
            source: true,
            pods_made: 0,
            second: 1000,
            gone: false,
            steps: vec![],
            events: vec![],
        }
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_second(self.second).unwrap()
    }

    fn snapshot(&self) -> Snapshot {
        let revision =
            Revision { cartridge: self.cartridge.clone(), drain_seconds: Some(3), ..Revision::default() };
        let uid = self.pod.as_ref().and_then(|pod| pod.metadata.uid.clone());
        let report = self.said.filter(|_| self.broker).zip(uid).map(|((stage, starts), pod)| MemberReport {
            pod,
            stage,
            applied: None,
            starts,
            problem: None,
        });
        let imports = self.import.map(|there| Resolution {
            name: "db".into(),
            target: "db".into(),
            optional: false,
            members: if there { vec![member()] } else { vec![] },
            missing: if there { String::new() } else { "no db".into() },
        });
        let address = self.pod.as_ref().and_then(|pod| pod.status.as_ref()?.pod_ip.clone());
        let keys = std::collections::BTreeMap::new();
        let exports =
            crate::controllers::instance::exports::exports(&self.cartridge, address.as_deref(), &keys);
        let source = if self.source {
            Source::Application { name: "r1".into(), revision: Arc::new(revision), new: false }
        } else {
            Source::Missing("there is no Cartridge 'app': create it".into())
        };
        Snapshot {
            instance: Arc::new(self.instance.clone()),
            now: self.now(),
            namespace_ending: false,
            restricted: false,
            source,
            refused_spec: None,
            values: Map::new(),
            partition: None,
            node_loss: Duration::from_secs(300),
            pod: self.pod.clone().map(Arc::new),
            node_lost: self.node_lost,
            told: self.told.clone(),
            report,
            broker_trouble: (!self.broker).then(|| "away".to_owned()),
            in_balancer: self.in_balancer,
            imports: imports.into_iter().collect(),
            secrets: Secrets::new(),
            exports: exports.0,
            unexported: vec![],
            dependants: self.dependants.clone(),
            refused: self.rejected.clone(),
            announced: true,
        }
    }

    fn plan(&self) -> Plan {
        let identity = Identity::of(&self.instance).unwrap();
        plan(&config(), &identity, &self.snapshot())
    }

    /// Looks once, and does what the plan says.
    fn look(&mut self) {
        if self.gone {
            return;
        }
        let plan = self.plan();
        for step in plan.steps {
            self.steps.push(step.note().to_owned());
            self.take(step);
        }
        self.events.extend(plan.events.into_iter().map(|(event, _)| event));
        self.instance.status = Some(plan.status);
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::AddFinalizer => self.instance.finalizers_mut().push(FINALIZER.into()),
            Step::RemoveFinalizer => self.gone = true,
            Step::CreatePod(pod) => {
                assert!(self.pod.is_none(), "two pods of one name");
                self.pods_made += 1;
                let mut pod = *pod;
                pod.metadata.uid = Some(format!("p{}", self.pods_made));
                let made = json!(Timestamp::from_second(self.second).unwrap());
                pod.metadata.creation_timestamp = serde_json::from_value(made).unwrap();
                self.pod = Some(pod);
                self.said = None;
            }
            Step::DeletePod { force: true } => self.end_pod(),
            Step::DeletePod { force: false } => self.delete_pod(),
            Step::PutWork(work, _) => {
                let right = self.pod.as_ref().and_then(|pod| pod.metadata.uid.clone());
                assert_eq!(Some(&work.pod), right.as_ref());
                assert!(
                    !work.run || self.import != Some(false) || self.runs(),
                    "it starts before its imports"
                );
                self.told = Some(work);
            }
            Step::DeleteWork => self.told = None,
            Step::PutSecret | Step::PutRevision => {}
        }
    }

    /// Whether its process runs: by its agent's word, or, where no launcher holds it, since the kubelet let it in.
    fn runs(&self) -> bool {
        let said = matches!(self.said, Some((Said::Running | Said::Serving | Said::Stopping, _)));
        let status = self.pod.as_ref().and_then(|pod| pod.status.as_ref());
        let containers = status.and_then(|status| status.container_statuses.as_ref());
        said || self.cartridge.command.is_empty() && containers.is_some_and(|all| !all.is_empty())
    }

    fn delete_pod(&mut self) {
        let now = json!(self.now());
        if let Some(pod) = &mut self.pod {
            pod.metadata.deletion_timestamp = serde_json::from_value(now).unwrap();
        }
    }

    fn end_pod(&mut self) {
        (self.pod, self.said, self.in_balancer) = (None, None, false);
    }

    /// The kubelet has made the pod's containers.
    fn kubelet(&mut self) {
        let number = self.pods_made;
        let plain = self.cartridge.command.is_empty();
        let uid = self.pod.as_ref().and_then(|pod| pod.metadata.uid.clone()).unwrap_or_default();
        let gated = plain && !self.told.as_ref().is_some_and(|told| told.run && told.pod == uid);
        if let Some(pod) = &mut self.pod {
            if pod.metadata.deletion_timestamp.is_some() {
                return self.end_pod();
            }
            if pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Failed") {
                return; // an evicted pod never runs again
            }
            let running = json!({"running": {}});
            let application = json!({
                "name": "application", "image": "", "imageID": "", "restartCount": 0, "ready": true, "started": true,
                "state": running,
            });
            let ip = format!("10.1.0.{number}");
            let status = json!({
                "phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}],
                "containerStatuses": if gated { json!([]) } else { json!([application]) },
                "initContainerStatuses": [{
                    "name": "millrace-agent", "image": "", "imageID": "", "restartCount": 0, "ready": true, "state": running,
                }],
            });
            pod.status = serde_json::from_value(status).unwrap();
            pod.spec.as_mut().unwrap().node_name = Some("n1".into());
        }
    }

    /// The agent does the next thing that it was told.
    fn agent(&mut self) {
        let Some(uid) = self.pod.as_ref().and_then(|pod| pod.metadata.uid.clone()) else { return };
        let run = self.told.as_ref().is_some_and(|told| told.run && told.pod == uid);
        let (stage, starts) = self.said.unwrap_or_default();
        let next = match (run, stage) {
            (true, Said::Down) => (Said::Running, starts + 1),
            (true, Said::Running) => (Said::Serving, starts),
            (false, Said::Running | Said::Serving) => (Said::Stopping, starts),
            (_, Said::Stopping) => (Said::Down, starts),
            (_, same) => (same, starts),
        };
        self.said = Some(next);
    }

    /// Membership, as it reads the status.
    fn balancer(&mut self) {
        let status = self.instance.status.clone().unwrap_or_default();
        let wanted = self.instance.spec.desired.unwrap_or_default() == Desired::Started
            && self.instance.metadata.deletion_timestamp.is_none();
        let pod = self.pod.as_ref().is_some_and(|pod| pod.metadata.deletion_timestamp.is_none());
        self.in_balancer = pod && wanted && is_true(&status.conditions, ConditionType::Serving);
    }

    fn desire(&mut self, desired: Value) {
        self.instance.spec.desired = serde_json::from_value(desired).unwrap();
        self.instance.metadata.generation = self.instance.metadata.generation.map(|it| it + 1);
    }

    fn delete(&mut self) {
        self.instance.metadata.deletion_timestamp = serde_json::from_value(json!(self.now())).unwrap();
    }

    /// All of them do what they do until nothing changes.
    fn settle(&mut self) {
        for _ in 0..60 {
            self.look();
            self.kubelet();
            self.agent();
            self.balancer();
            self.second += 1;
        }
        if !self.gone {
            let plan = self.plan();
            let (steps, same) = (plan.steps, Some(plan.status) == self.instance.status);
            assert!(
                steps.iter().all(|step| *step == Step::PutSecret) && same,
                "it never comes to rest: {steps:?}"
            );
        }
    }

    fn phase(&self) -> InstancePhase {
        self.instance.status.as_ref().and_then(|status| status.phase).unwrap()
    }

    fn condition(&self, of: ConditionType) -> Condition {
        find(&self.instance.status.as_ref().unwrap().conditions, of).unwrap().clone()
    }

    fn ready(&self) -> Condition {
        self.condition(ConditionType::Ready)
    }

    fn exports(&self) -> usize {
        self.instance.status.as_ref().unwrap().exports.len()
    }

    fn active(wrapped: bool) -> Self {
        let mut world = Self::new(wrapped, true);
        world.import = Some(true);
        world.settle();
        assert_eq!(world.phase(), InstancePhase::Active);
        world.steps.clear();
        world.events.clear();
        world
    }
}

fn member() -> crate::controllers::instance::imports::Member {
    let variables = [("ip".to_owned(), json!("10.1.0.9"))].into();
    let secrets = std::collections::BTreeMap::new();
    crate::controllers::instance::imports::Member { name: "db-0".into(), variables, secrets }
}

#[test]
fn it_waits_for_its_imports_with_its_pod_made_and_starts_when_they_are_there() {
    let mut world = World::new(true, true);
    world.settle();
    assert_eq!((world.phase(), world.pods_made, world.exports()), (InstancePhase::Unresolved, 1, 0));
    assert_eq!(world.ready().message, "no db");
    assert!(!world.told.clone().unwrap().run);
    world.import = Some(true);
    world.settle();
    assert_eq!((world.phase(), world.pods_made, world.exports()), (InstancePhase::Active, 1, 1));
    assert!(world.in_balancer);
    assert_eq!(
        world.events,
        [
            Event::MemberCreated,
            Event::InstanceUnresolved,
            Event::MemberStarting,
            Event::MemberStarted,
            Event::MemberActivated
        ]
    );
}

#[test]
fn without_a_command_the_pod_waits_at_its_gate_just_so() {
    let mut world = World::new(false, true);
    world.settle();
    assert_eq!((world.phase(), world.pods_made), (InstancePhase::Unresolved, 1));
    world.import = Some(true);
    world.settle();
    assert_eq!((world.phase(), world.pods_made), (InstancePhase::Active, 1));
}

// Roboconf's table of transitions: what a call or a message does in each state.

#[test]
fn a_lost_import_withdraws_then_leaves_then_waits_for_dependants_then_stops_and_comes_back_by_itself() {
    let mut world = World::active(true);
    world.import = Some(false);
    world.dependants = vec!["web-0".into()];
    world.look();
    assert_eq!(
        (world.exports(), world.told.clone().unwrap().run),
        (0, true),
        "it gives nothing any more, and runs"
    );
    assert_eq!(world.condition(ConditionType::Serving).reason, "ImportsMissing");
    world.look();
    assert!(world.told.clone().unwrap().run, "the load balancer still sends");
    world.balancer();
    world.look();
    assert!(world.told.clone().unwrap().run, "web-0 still runs");
    assert!(world.ready().message.contains("'web-0'"), "{}", world.ready().message);
    world.dependants.clear();
    world.look();
    assert!(!world.told.clone().unwrap().run);
    world.settle();
    assert_eq!((world.phase(), world.pods_made), (InstancePhase::Unresolved, 1));
    world.import = Some(true);
    world.settle();
    assert_eq!((world.phase(), world.pods_made), (InstancePhase::Active, 1), "without a new pod");
    assert_eq!(
        world.events,
        [
            Event::MemberLeft,
            Event::InstanceUnresolved,
            Event::MemberStarting,
            Event::MemberStarted,
            Event::MemberActivated
        ]
    );
}

#[test]
fn dependants_that_never_stop_are_not_waited_for_for_ever() {
    let mut world = World::active(true);
    world.import = Some(false);
    world.dependants = vec!["web-0".into()];
    for _ in 0..5 {
        world.look();
        world.balancer();
    }
    assert!(world.told.clone().unwrap().run);
    assert!(world.plan().look_again.is_some());
    world.second += 121;
    world.look();
    assert!(!world.told.clone().unwrap().run);
}

#[test]
fn without_a_launcher_a_lost_import_replaces_the_pod_by_one_that_waits() {
    let mut world = World::active(false);
    world.import = Some(false);
    world.settle();
    assert_eq!((world.phase(), world.pods_made), (InstancePhase::Unresolved, 2));
}

#[test]
fn stop_and_start_keep_the_pod_under_a_launcher_and_make_another_without() {
    for (wrapped, pods) in [(true, 1), (false, 2)] {
        let mut world = World::active(wrapped);
        world.desire(json!("Stopped"));
        world.settle();
        assert_eq!((world.phase(), world.exports(), world.in_balancer), (InstancePhase::Stopped, 0, false));
        assert_eq!((world.pod.is_some(), world.ready().status.as_str()), (wrapped, "True"));
        world.desire(json!("Started"));
        world.settle();
        assert_eq!((world.phase(), world.pods_made), (InstancePhase::Active, pods));
    }
}

#[test]
fn undeploying_takes_the_pod_and_deploying_brings_another() {
    let mut world = World::active(true);
    world.desire(json!("NotDeployed"));
    world.settle();
    assert_eq!((world.phase(), world.pod.is_none()), (InstancePhase::NotDeployed, true));
    world.desire(Value::Null);
    world.settle();
    assert_eq!((world.phase(), world.pods_made), (InstancePhase::Active, 2));
}

#[test]
fn maintenance_leaves_the_balancer_and_keeps_application_and_exports() {
    let mut world = World::active(true);
    world.desire(json!("Maintenance"));
    world.settle();
    assert_eq!((world.phase(), world.in_balancer, world.exports()), (InstancePhase::Maintenance, false, 1));
    assert_eq!((world.said, world.pods_made), (Some((Said::Serving, 1)), 1));
    world.desire(json!("Started"));
    world.settle();
    assert_eq!((world.phase(), world.in_balancer), (InstancePhase::Active, true));
}

#[test]
fn stopping_works_from_every_state_on_the_way_up() {
    for looks in 0..8 {
        for desired in ["Stopped", "NotDeployed"] {
            let mut world = World::new(true, true);
            world.import = Some(looks % 2 == 0);
            for _ in 0..looks {
                world.look();
                world.kubelet();
                world.agent();
            }
            world.desire(json!(desired));
            world.settle();
            assert_eq!(world.phase().to_string(), desired, "after {looks} looks");
        }
    }
}

#[test]
fn a_deletion_leaves_the_balancer_ends_the_pod_says_its_last_word_and_goes() {
    let mut world = World::active(true);
    world.delete();
    world.look();
    assert_eq!((world.exports(), &world.steps[..]), (0, &[][..]));
    world.look();
    assert!(
        world.pod.as_ref().unwrap().metadata.deletion_timestamp.is_none(),
        "the load balancer still sends"
    );
    world.balancer();
    world.look();
    assert!(world.pod.as_ref().unwrap().metadata.deletion_timestamp.is_some());
    world.settle();
    assert!(world.gone);
    assert_eq!(world.steps.last().unwrap(), "lets the instance go");
    assert_eq!(world.events, [Event::MemberLeft, Event::MemberStopping, Event::MemberTerminated]);
}

#[test]
fn another_template_replaces_the_pod_after_it_has_left() {
    let mut world = World::active(true);
    world.cartridge.image = Some("app:2".into());
    world.look();
    assert!(world.pod.as_ref().unwrap().metadata.deletion_timestamp.is_none());
    assert_eq!(world.ready().reason, "Updating");
    world.settle();
    assert_eq!((world.phase(), world.pods_made), (InstancePhase::Active, 2));
}

#[test]
fn what_only_others_see_needs_no_other_pod() {
    let mut world = World::active(true);
    world.cartridge.exports.clear();
    world.cartridge.values = Some(Map::new());
    world.cartridge.allowed_namespaces = vec!["*".into()];
    world.settle();
    assert_eq!((world.pods_made, world.exports()), (1, 0));
}

#[test]
fn a_pod_that_was_evicted_is_replaced_and_one_that_cannot_live_is_not_made_again_at_once() {
    let mut world = World::active(true);
    let failed = |world: &mut World| {
        let status = world.pod.as_mut().unwrap().status.get_or_insert_default();
        status.phase = Some("Failed".into());
        status.reason = Some("Evicted".into());
    };
    failed(&mut world);
    world.look();
    assert!(world.pod.as_ref().unwrap().metadata.deletion_timestamp.is_some());
    world.end_pod();
    world.look();
    failed(&mut world);
    world.look();
    assert!(world.pod.as_ref().unwrap().metadata.deletion_timestamp.is_none(), "it was made just now");
    assert!(world.plan().look_again.unwrap() <= Duration::from_secs(10));
    assert!(world.ready().message.contains("Evicted"), "{}", world.ready().message);
    world.second += 11;
    world.settle();
    assert_eq!(world.phase(), InstancePhase::Active);
}

#[test]
fn a_lost_node_takes_it_out_of_the_balancer_at_once_and_its_pod_after_a_while() {
    let mut world = World::active(true);
    world.node_lost = Some(world.now());
    world.look();
    assert_eq!(world.ready().reason, "NodeLost");
    assert_eq!(
        (world.exports(), world.phase()),
        (1, InstancePhase::Started),
        "those who import may still reach it"
    );
    let left = world.plan().look_again.unwrap();
    assert!(left > Duration::from_secs(299) && left < Duration::from_secs(302), "{left:?}");
    world.second += 300;
    world.look();
    assert_eq!(world.steps.last().unwrap(), "gives up the pod on a lost node");
    world.node_lost = None;
    world.settle();
    assert_eq!((world.phase(), world.pods_made), (InstancePhase::Active, 2));
}

#[test]
fn a_pod_with_a_volume_is_never_given_up() {
    let mut world = World::active(true);
    let volume = json!([{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}]);
    world.pod.as_mut().unwrap().spec.as_mut().unwrap().volumes = serde_json::from_value(volume).unwrap();
    world.node_lost = Some(world.now());
    world.second += 3000;
    world.look();
    assert_eq!(world.steps, ["gives its agent credentials"]);
    assert!(world.ready().message.contains("delete the pod by hand"), "{}", world.ready().message);
}

#[test]
fn a_crash_withdraws_its_exports_and_a_failing_check_alone_does_not() {
    let mut world = World::active(true);
    world.said = Some((Said::Running, 1));
    world.look();
    assert_eq!((world.phase(), world.exports()), (InstancePhase::Started, 1));
    assert!(!is_true(&world.instance.status.as_ref().unwrap().conditions, ConditionType::Serving));
    world.said = Some((Said::Down, 1));
    world.look();
    assert_eq!((world.phase(), world.exports()), (InstancePhase::Starting, 0));
}

#[test]
fn while_the_broker_is_away_what_runs_goes_on() {
    let mut world = World::active(true);
    world.broker = false;
    world.settle();
    assert_eq!((world.phase(), world.in_balancer, world.exports()), (InstancePhase::Active, true, 1));
    world.import = Some(false);
    world.look();
    world.balancer();
    world.look();
    assert!(world.told.clone().unwrap().run, "it cannot be told");
    world.broker = true;
    world.look();
    assert!(!world.told.clone().unwrap().run);
}

#[test]
fn what_the_api_server_refuses_is_the_reason() {
    let mut world = World::new(true, false);
    world.rejected = Some(Rejected { foreign: true, message: "its pod cannot be made".into() });
    world.look();
    world.pod = None;
    world.look();
    assert_eq!((world.phase(), world.ready().reason.as_str()), (InstancePhase::Created, "NameConflict"));
    assert_eq!(world.ready().message, "its pod cannot be made");
}

#[test]
fn without_its_cartridge_it_waits_or_goes_on() {
    let mut world = World::new(true, false);
    world.source = false;
    world.look();
    assert_eq!(
        (world.phase(), world.ready().reason.as_str()),
        (InstancePhase::Created, "DependencyNotReady")
    );
    assert_eq!(world.ready().message, "there is no Cartridge 'app': create it");
    let mut world = World::active(true);
    world.source = false;
    world.settle();
    assert_eq!((world.phase(), world.in_balancer), (InstancePhase::Active, true));
    world.delete();
    world.settle();
    assert!(world.gone, "it can be deleted all the same");
}

/// What can happen to an Instance.
#[derive(Clone, Copy, Debug)]
enum Happening {
    Look,
    Kubelet,
    Agent,
    Balancer,
    Import(bool),
    Desire(u8),
    Crash,
    Evict,
    Broker(bool),
    Image(u8),
    Dependants(bool),
    Later(u8),
    Delete,
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        8 => Just(Happening::Look),
        4 => Just(Happening::Kubelet),
        4 => Just(Happening::Agent),
        4 => Just(Happening::Balancer),
        2 => any::<bool>().prop_map(Happening::Import),
        1 => (0..4_u8).prop_map(Happening::Desire),
        1 => Just(Happening::Crash),
        1 => Just(Happening::Evict),
        1 => any::<bool>().prop_map(Happening::Broker),
        1 => (0..3_u8).prop_map(Happening::Image),
        1 => any::<bool>().prop_map(Happening::Dependants),
        1 => (0..60_u8).prop_map(Happening::Later),
    ]
}

impl World {
    fn happen(&mut self, what: Happening) {
        match what {
            Happening::Look => self.look(),
            Happening::Kubelet => self.kubelet(),
            Happening::Agent => self.agent(),
            Happening::Balancer => self.balancer(),
            Happening::Import(there) => self.import = Some(there),
            Happening::Desire(at) => {
                let all = ["Started", "Stopped", "NotDeployed", "Maintenance"];
                self.desire(json!(all[usize::from(at)]));
            }
            Happening::Crash => self.said = self.said.map(|(_, starts)| (Said::Down, starts)),
            Happening::Evict => {
                if let Some(pod) = &mut self.pod {
                    pod.status.get_or_insert_default().phase = Some("Failed".into());
                    self.said = None;
                }
            }
            Happening::Broker(up) => self.broker = up,
            Happening::Image(at) => self.cartridge.image = Some(format!("app:{at}")),
            Happening::Dependants(some) => {
                self.dependants = if some { vec!["web-0".into()] } else { vec![] };
            }
            Happening::Later(seconds) => self.second += i64::from(seconds),
            Happening::Delete => self.delete(),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    /// `take` asserts that there are never two pods and no start before imports.
    #[test]
    fn whatever_happens_in_whatever_order_it_ends_as_is_wanted(
        wrapped in any::<bool>(),
        happenings in prop::collection::vec(happening(), 0..80),
        last in 0..4_u8,
        delete in any::<bool>(),
    ) {
        let mut world = World::new(wrapped, true);
        for happening in happenings {
            world.happen(happening);
            let status = world.instance.status.clone().unwrap_or_default();
            // What is read of it is never more than what is.
            let serving = is_true(&status.conditions, ConditionType::Serving);
            prop_assert!(!serving || status.pod.is_some());
        }
        for calm in [Happening::Broker(true), Happening::Import(true), Happening::Dependants(false), Happening::Desire(last)] {
            world.happen(calm);
        }
        world.second += 20;
        if delete {
            world.happen(Happening::Delete);
        }
        world.settle();
        prop_assert_eq!(world.gone, delete);
        if !delete {
            let wanted = ["Active", "Stopped", "NotDeployed", "Maintenance"][usize::from(last)];
            prop_assert_eq!(world.phase().to_string(), wanted);
            prop_assert_eq!(world.in_balancer, wanted == "Active");
        }
    }
}
