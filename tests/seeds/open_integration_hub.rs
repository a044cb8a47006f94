//! The steps that the document of Open Integration Hub asks for, one after the other, on a real node: a flow is started and
//! stopped, and webhooks, scheduler and orchestrator each do their part when it is their turn.
//!
//! It needs root, and what `make program` builds.
#![cfg(feature = "node")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a helper that fails fails its test")]

#[path = "../common/mod.rs"]
mod common;
#[path = "../node/house.rs"]
mod house;
#[path = "../node/processes.rs"]
mod processes;

use async_nats::jetstream;
use house::{House, SHOP, SYSTEM, eventually};
use jiff::civil::Weekday;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, ToSpan as _};
use millrace::clock::now;
use serde_json::{Value, json};

/// Steps of the document that come with later work: neither asserted nor faked here.
const LATER: [(u8, &str); 3] = [
    (1, "POST /flows/{id}/start and /stop: today `spec.suspend` starts and stops a flow"),
    (17, "login, tokens and permission checks"),
    (18, "audit messages under audit.*"),
];

/// The house, and its broker as an operator sees it.
struct World {
    house: House,
    jetstream: jetstream::Context,
}

impl World {
    async fn build() -> Self {
        let house = House::build().await;
        let jetstream = house.broker().await;
        Self { house, jetstream }
    }

    async fn messages(&self, stream: &str, subject: &str) -> Vec<Value> {
        house::messages(&self.jetstream, stream, subject).await
    }

    /// What waits for the node `first` of a flow.
    async fn queued(&self, flow: &str) -> Vec<Value> {
        self.messages(&format!("MR_{SHOP}"), &format!("millrace.flow.{SHOP}.{flow}.first")).await
    }

    /// What was announced of a flow.
    async fn events(&self, flow: &str) -> Vec<Value> {
        self.messages("MILLRACE_EVENTS", &format!("millrace.event.{SHOP}.flows.{flow}")).await
    }

    async fn event_types(&self, flow: &str) -> Vec<String> {
        self.events(flow).await.iter().map(|event| event["type"].as_str().unwrap().to_owned()).collect()
    }

    fn flow(&self, name: &str) -> Value {
        serde_json::from_str(&self.house.kubectl(&["-n", SHOP, "get", "flow", name, "-o", "json"])).unwrap()
    }

    fn condition(&self, flow: &str, of: &str) -> Value {
        let flow = self.flow(flow);
        let conditions = flow["status"]["conditions"].as_array().unwrap().clone();
        conditions.into_iter().find(|condition| condition["type"] == of).unwrap_or_default()
    }

    async fn status(&self, path: &str) -> u16 {
        common::get(&format!("http://{}{path}", self.house.gateway())).await.unwrap().0
    }

    /// How many flows the scheduler follows.
    async fn schedules(&self) -> Option<u64> {
        let metrics = common::get(&format!("http://{}:8081/metrics", self.leader()?)).await.ok()?.1;
        let line = metrics.lines().find(|line| line.starts_with("millrace_scheduler_schedules "))?;
        line.rsplit(' ').next()?.parse().ok()
    }

    /// The address of the operator that leads.
    fn leader(&self) -> Option<String> {
        let holder = self.house.kubectl(&[
            "-n",
            SYSTEM,
            "get",
            "lease",
            "millrace-operator",
            "-o=jsonpath={.spec.holderIdentity}",
        ]);
        let address =
            self.house.kubectl(&["-n", SYSTEM, "get", "pod", &holder, "-o=jsonpath={.status.podIP}"]);
        Some(address).filter(|address| !address.is_empty())
    }
}

/// A flow whose first node is a component that needs the Secret `erp`, and whose second one logs.
fn flow(name: &str, trigger: &Value, function: &str) -> Value {
    json!({
        "apiVersion": "millrace.dev/v1alpha1", "kind": "Flow", "metadata": {"name": name},
        "spec": {
            "trigger": trigger,
            "graph": {
                "nodes": [
                    {
                        "id": "first", "image": "rig.local/component:test", "function": function, "timeout": "10m",
                        "credentials": {"secretRef": {"name": "erp"}},
                    },
                    {"id": "last", "builtin": "log"},
                ],
                "edges": [{"source": "first", "target": "last"}],
            },
            "drainSeconds": 5,
        },
    })
}

fn webhook() -> Value {
    json!({"webhook": {"methods": ["GET", "POST"]}})
}

fn cron(schedule: &str) -> Value {
    json!({"cron": {"schedule": schedule}})
}

#[tokio::test(flavor = "multi_thread")]
async fn the_document_of_open_integration_hub_step_by_step() {
    let world = World::build().await;
    // Two flows of which nothing is taken from the queue, so that the messages can be looked at.
    for (name, trigger) in [("hook", webhook()), ("clock", cron("* * * * * *"))] {
        world.house.apply(&flow(name, &trigger, "hang"));
        world.house.kubectl(&[
            "-n",
            SHOP,
            "wait",
            "flow",
            name,
            "--for=jsonpath={.status.phase}=Starting",
            "--timeout=60s",
        ]);
    }
    step_02_on_start_the_flow_is_starting_and_that_is_announced_with_the_whole_flow(&world).await;
    step_03_webhooks_scheduler_and_orchestrator_all_hear_of_it(&world);
    step_10_webhooks_does_not_serve_a_flow_that_is_starting_and_ignores_one_with_a_cron(&world).await;
    step_12_the_scheduler_does_not_schedule_a_flow_that_is_starting_and_ignores_one_without_a_cron(&world)
        .await;

    world.house.kubectl(&["-n", SHOP, "create", "secret", "generic", "erp", "--from-literal=password=x"]);
    for name in ["hook", "clock"] {
        world.house.wait(name, "Active");
    }
    step_04_started_is_said_only_when_all_containers_are_there(&world);
    step_05_the_status_goes_from_starting_over_started_to_active(&world).await;
    step_06_webhooks_takes_requests_once_the_flow_has_started(&world).await;
    step_07_the_scheduler_follows_the_cron_once_the_flow_has_started(&world).await;
    step_14_a_due_flow_gets_a_message_with_the_five_parts(&world).await;
    step_15_a_post_gives_a_message_with_headers_query_and_body(&world).await;
    step_16_a_get_by_the_flows_id_gives_its_query_as_the_body(&world).await;

    for name in ["hook", "clock"] {
        world.house.patch(name, &json!({"spec": {"suspend": true}}));
    }
    step_08_a_stop_runs_the_chain_backwards_to_inactive(&world).await;
    step_09_every_event_has_a_name_a_time_a_service_and_a_payload(&world).await;
    step_11_webhooks_stops_to_take_requests(&world).await;
    step_13_the_scheduler_stops_to_schedule(&world).await;
    step_20_the_two_crons_of_the_document_are_due_when_it_shows(&world);
    step_19_what_the_document_leaves_open_ends_in_no_dead_end(&world).await;
    for (step, what) in LATER {
        println!("step {step} is later work: {what}");
    }
}

async fn step_02_on_start_the_flow_is_starting_and_that_is_announced_with_the_whole_flow(world: &World) {
    for (name, trigger) in [("hook", "webhook"), ("clock", "cron")] {
        assert_eq!(world.flow(name)["status"]["phase"], "Starting");
        assert!(eventually(async || !world.events(name).await.is_empty()).await);
        let event = world.events(name).await.remove(0);
        assert_eq!(event["type"], "dev.millrace.flow.starting");
        let spec = &event["data"]["resource"]["spec"];
        assert!(
            spec["trigger"][trigger].is_object() && spec["graph"]["nodes"].as_array().unwrap().len() == 2,
            "{event}"
        );
    }
}

fn step_03_webhooks_scheduler_and_orchestrator_all_hear_of_it(world: &World) {
    // The orchestrator has begun, and says what it waits for; the other two have nothing to do yet.
    for name in ["hook", "clock"] {
        let ready = world.condition(name, "Ready");
        assert_eq!((&ready["status"], &ready["reason"]), (&json!("False"), &json!("DependencyNotReady")));
        let armed = world.condition(name, "TriggerArmed");
        assert_eq!((&armed["status"], &armed["reason"]), (&json!("False"), &json!("TriggerNotArmed")));
    }
    let runner = || world.house.kubectl(&["-n", SHOP, "get", "deployment", "millrace-runner", "-o", "name"]);
    assert!(!runner().is_empty());
}

async fn step_10_webhooks_does_not_serve_a_flow_that_is_starting_and_ignores_one_with_a_cron(world: &World) {
    for name in ["hook", "clock"] {
        assert_eq!(world.status(&format!("/hook/{SHOP}/{name}")).await, 404);
    }
}

async fn step_12_the_scheduler_does_not_schedule_a_flow_that_is_starting_and_ignores_one_without_a_cron(
    world: &World,
) {
    assert!(eventually(async || world.schedules().await == Some(0)).await);
    // Due times pass meanwhile.
    let later = now() + SignedDuration::from_secs(3);
    assert!(eventually(async || now() > later).await);
    assert_eq!((world.queued("clock").await, world.queued("hook").await), (vec![], vec![]));
}

fn step_04_started_is_said_only_when_all_containers_are_there(world: &World) {
    for name in ["hook", "clock"] {
        let moves = world.flow(name)["status"]["transitions"]["recent"].as_array().unwrap().clone();
        let started = moves.iter().find(|it| it["event"] == "FlowStarted").unwrap()["time"]
            .as_str()
            .unwrap()
            .to_owned();
        let selector = format!("millrace.dev/flow={name}");
        let path = "-o=jsonpath={.items[0].status.conditions[?(@.type==\"Ready\")].lastTransitionTime}";
        let ready = world.house.kubectl(&["-n", SHOP, "get", "pods", "-l", &selector, path]);
        let [ready, started] = [ready, started].map(|time| time.parse::<Timestamp>().unwrap());
        assert!(ready <= started, "{name}: ready at {ready}, started at {started}");
    }
}

async fn step_05_the_status_goes_from_starting_over_started_to_active(world: &World) {
    let expected = ["starting", "started", "active"].map(|word| format!("dev.millrace.flow.{word}"));
    for name in ["hook", "clock"] {
        assert!(
            eventually(async || world.event_types(name).await == expected).await,
            "{:?}",
            world.event_types(name).await
        );
    }
}

async fn step_06_webhooks_takes_requests_once_the_flow_has_started(world: &World) {
    assert_eq!(world.status(&format!("/hook/{SHOP}/hook?step=6")).await, 200);
    assert_eq!(world.status(&format!("/hook/{SHOP}/clock")).await, 404, "it has a cron");
}

async fn step_07_the_scheduler_follows_the_cron_once_the_flow_has_started(world: &World) {
    assert!(eventually(async || world.queued("clock").await.len() >= 3).await);
    assert!(
        eventually(async || world.schedules().await == Some(1)).await,
        "and ignores the flow without a cron"
    );
    let armed = world.condition("clock", "TriggerArmed")["lastTransitionTime"]
        .as_str()
        .unwrap()
        .parse::<Timestamp>()
        .unwrap();
    let due: Vec<Timestamp> = world.queued("clock").await.iter().map(due).collect();
    assert!(due[0] > armed, "{due:?}");
    assert!(due.windows(2).all(|pair| pair[1] == pair[0] + SignedDuration::from_secs(1)), "{due:?}");
}

fn due(message: &Value) -> Timestamp {
    message["metadata"]["scheduledTime"].as_str().unwrap().parse().unwrap()
}

async fn step_14_a_due_flow_gets_a_message_with_the_five_parts(world: &World) {
    let message = world.queued("clock").await.remove(0);
    let keys: Vec<_> = message.as_object().unwrap().keys().cloned().collect();
    assert_eq!(keys, ["attachments", "body", "headers", "id", "metadata"]);
    assert_eq!(
        (&message["attachments"], &message["body"], &message["headers"]),
        (&json!({}), &json!({}), &json!({}))
    );
    assert_eq!(message["id"].as_str().unwrap().len(), 32);
}

async fn step_15_a_post_gives_a_message_with_headers_query_and_body(world: &World) {
    let url = format!("http://{}/hook/{SHOP}/hook?step=15", world.house.gateway());
    let headers = [("content-type", "application/json"), ("x-shop", "7")];
    let (status, _, _) = common::request("POST", &url, &headers, br#"{"order": 1}"#.to_vec()).await.unwrap();
    assert_eq!(status, 200);
    let message = world.queued("hook").await.pop().unwrap();
    assert_eq!((&message["body"], &message["query"]), (&json!({"order": 1}), &json!({"step": "15"})));
    assert_eq!(message["headers"]["x-shop"], "7");
}

async fn step_16_a_get_by_the_flows_id_gives_its_query_as_the_body(world: &World) {
    let id = world.flow("hook")["metadata"]["uid"].as_str().unwrap().to_owned();
    let url = format!("http://{}/hook/{id}?param1=value&param2=value", world.house.gateway());
    let (status, _, _) = common::request("GET", &url, &[("x-shop", "8")], vec![]).await.unwrap();
    assert_eq!(status, 200);
    let message = world.queued("hook").await.pop().unwrap();
    assert_eq!(message["body"], json!({"param1": "value", "param2": "value"}));
    assert_eq!(message["headers"]["x-shop"], "8");
}

async fn step_08_a_stop_runs_the_chain_backwards_to_inactive(world: &World) {
    let expected = ["starting", "started", "active", "stopping", "stopped"]
        .map(|word| format!("dev.millrace.flow.{word}"));
    for name in ["hook", "clock"] {
        world.house.wait(name, "Inactive");
        assert!(
            eventually(async || world.event_types(name).await == expected).await,
            "{:?}",
            world.event_types(name).await
        );
        let selector = format!("millrace.dev/flow={name}");
        assert_eq!(world.house.kubectl(&["-n", SHOP, "get", "pods", "-l", &selector, "-o", "name"]), "");
    }
}

async fn step_09_every_event_has_a_name_a_time_a_service_and_a_payload(world: &World) {
    for event in world.events("clock").await {
        // headers.name, headers.createdAt, headers.serviceName and payload of the document.
        assert!(event["type"].as_str().unwrap().starts_with("dev.millrace.flow."));
        assert!(event["time"].as_str().unwrap().parse::<Timestamp>().is_ok());
        assert_eq!(event["source"], format!("/apis/millrace.dev/v1alpha1/namespaces/{SHOP}/flows/clock"));
        assert_eq!(event["data"]["resource"]["metadata"]["name"], "clock");
    }
}

async fn step_11_webhooks_stops_to_take_requests(world: &World) {
    assert_eq!(world.status(&format!("/hook/{SHOP}/hook")).await, 404);
}

async fn step_13_the_scheduler_stops_to_schedule(world: &World) {
    assert!(eventually(async || world.schedules().await == Some(0)).await);
    assert_eq!(world.queued("clock").await, Vec::<Value>::new());
    let ledger = world.messages(&format!("MR_{SHOP}"), &format!("millrace.tick.{SHOP}.clock")).await;
    assert_eq!(ledger, Vec::<Value>::new());
}

fn step_20_the_two_crons_of_the_document_are_due_when_it_shows(world: &World) {
    let utc = || now().to_zoned(TimeZone::UTC);
    for (name, schedule) in [("each-three-minutes", "*/3 * * * *"), ("workdays", "15 14 * * 1-5")] {
        let before = utc();
        world.house.apply(&flow(name, &cron(schedule), "echo"));
        world.house.wait(name, "Active");
        let message = world.condition(name, "TriggerArmed")["message"].as_str().unwrap().to_owned();
        let first = message.strip_prefix("the schedule is followed: the first run is due at ").unwrap();
        let first = first.parse::<Timestamp>().unwrap().to_zoned(TimeZone::UTC);
        let at = (first.hour(), first.minute(), first.second());
        if name == "workdays" {
            assert_eq!(at, (14, 15, 0));
            assert!(!matches!(first.weekday(), Weekday::Saturday | Weekday::Sunday), "{first}");
            assert!(first < before.saturating_add(3.days()).saturating_add(1.hour()), "{first}");
        } else {
            assert_eq!((at.1 % 3, at.2), (0, 0));
            assert!(first <= utc().saturating_add(3.minutes()), "{first}");
        }
        assert!(first > before);
    }
}

/// A flow that cannot start fails in time and says why, and what is wrong can be put right.
async fn step_19_what_the_document_leaves_open_ends_in_no_dead_end(world: &World) {
    let mut broken = flow("broken", &webhook(), "echo");
    broken["spec"]["graph"]["nodes"][0]["image"] = json!("rig.local/none:1");
    broken["spec"]["progressDeadlineSeconds"] = json!(20);
    world.house.apply(&broken);
    world.house.wait("broken", "Failed");
    let said = || world.house.message("broken");
    assert!(eventually(async || said().contains("cannot be pulled")).await, "{}", said());
    broken["spec"]["graph"]["nodes"][0]["image"] = json!("rig.local/component:test");
    world.house.apply(&broken);
    world.house.wait("broken", "Active");
}
