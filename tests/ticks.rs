//! Schedules on a real control plane with real operators and a real broker: each tick is stored once, whoever leads and
//! whatever dies. The nodes' pods are fakes that take nothing, so that all ticks are there to be counted.
#![allow(clippy::disallowed_methods, reason = "the tests write to the apiserver as users do")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

mod common;
#[path = "flows/install.rs"]
mod install;
#[path = "flows/kubelet.rs"]
mod kubelet;
#[path = "ticks/queue.rs"]
mod queue;

use install::{Install, eventually, said, scheduled};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::api::{Api, PostParams};
use millrace::api::condition::ConditionType::{Ready, Stalled, TriggerArmed};
use millrace::api::flow::Flow;
use millrace::api::flow::phase::FlowPhase::{Active, Failed, Inactive};
use millrace::scheduler::test::EXIT_CODE;
use queue::Queue;
use serde_json::{Value, json};

/// Each second.
const EACH_SECOND: &str = "* * * * * *";

async fn create(install: &Install, flow: &Flow) -> Flow {
    let api: Api<Flow> = install.flows("shop");
    api.create(&PostParams::default(), flow).await.unwrap();
    install.phase("shop", flow.metadata.name.as_deref().unwrap(), Active).await
}

/// An install with the namespace `shop` and no operator yet. Nobody asks for its gateways: schedules need none.
async fn install() -> Install {
    let install = Install::start(&[]).await;
    common::make_namespace(&install.client, "shop").await;
    install
}

/// Each second from the first tick to the last has one.
fn assert_each_second_once(ticks: &[Timestamp]) {
    for pair in ticks.windows(2) {
        assert_eq!(pair[1], pair[0] + SignedDuration::from_secs(1), "{ticks:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_tick_is_stored_once_wherever_the_leader_dies_and_whoever_stands_by() {
    let install = install().await;
    let mut leader = install.operator("operator-0", &[]);
    leader.ready().await;
    create(&install, &scheduled("each-second", EACH_SECOND)).await;
    let queue = Queue::of(&install, "shop", "each-second", "a").await;
    queue.forget_ids_after(std::time::Duration::from_secs(1)).await;
    queue.more_than(2).await;
    for (number, place) in ["due", "sending", "stored", "recorded"].iter().enumerate() {
        let dies = [("MILLRACE_TEST_EXIT_AT_TICK", &*format!("{place}:3"))];
        let mut next = install.operator_in(&format!("operator-{}", number + 1), &[], &dies);
        next.ready().await;
        // The one that leads dies as by `kill -9`, and the next one takes over.
        drop(leader);
        install.drop_lease().await;
        assert_eq!(next.ended().await, Some(EXIT_CODE), "{place}");
        install.drop_lease().await;
        leader = install.operator(&format!("operator-{}-after", number + 1), &[]);
        let before = queue.ticks().await.len();
        queue.more_than(before + 2).await;
        assert_each_second_once(&queue.ticks().await);
    }
    assert!(queue.without_ids().await, "ticks need no memory of ids");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_is_told_to_stop_hands_over_without_leaving_out_a_tick() {
    let install = install().await;
    let mut first = install.operator("operator-0", &[]);
    first.ready().await;
    create(&install, &scheduled("each-second", EACH_SECOND)).await;
    let mut second = install.operator("operator-1", &[]);
    second.ready().await;
    let queue = Queue::of(&install, "shop", "each-second", "a").await;
    queue.more_than(3).await;
    first.signal(nix::sys::signal::Signal::SIGTERM);
    first.ended().await;
    let before = queue.ticks().await.len();
    queue.more_than(before + 3).await;
    assert_each_second_once(&queue.ticks().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_killed_and_comes_back_has_each_tick_once() {
    let mut install = install().await;
    let mut operator = install.operator("operator-0", &[]);
    operator.ready().await;
    create(&install, &scheduled("each-second", EACH_SECOND)).await;
    let queue = Queue::of(&install, "shop", "each-second", "a").await;
    for _ in 0..3 {
        let before = queue.ticks().await.len();
        queue.more_than(before + 2).await;
        install.restart_broker().await;
    }
    let before = queue.ticks().await.len();
    queue.more_than(before + 2).await;
    assert_each_second_once(&queue.ticks().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schedule_writes_nothing_to_the_flow_but_when_it_is_armed() {
    let install = install().await;
    let mut operator = install.operator("operator-0", &[]);
    operator.ready().await;
    let flow = create(&install, &scheduled("each-second", EACH_SECOND)).await;
    let (_, _, armed) = said(&flow, TriggerArmed);
    assert!(armed.starts_with("the schedule is followed: the first run is due at 20"), "{armed}");
    assert_eq!(said(&flow, Ready).2, "runs by the schedule '* * * * * *' (UTC)");
    let queue = Queue::of(&install, "shop", "each-second", "a").await;
    queue.more_than(8).await;
    let now = install.flows("shop").get("each-second").await.unwrap();
    assert_eq!(now.metadata.resource_version, flow.metadata.resource_version);
    // The ledger is tidied: what it was is of no interest.
    assert!(eventually(async || queue.ledger().await < 16).await);

    let message = queue.first().await;
    assert_eq!(message["body"], json!({}));
    assert_eq!(message["metadata"]["trigger"], "cron");
    let [due, next] = ["scheduledTime", "nextScheduledTime"]
        .map(|name| message["metadata"][name].as_str().unwrap().parse::<Timestamp>().unwrap());
    assert_eq!(next, due + SignedDuration::from_secs(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flow_that_is_suspended_misses_nothing_and_one_that_changes_its_schedule_follows_the_new_one() {
    let install = install().await;
    let mut operator = install.operator("operator-0", &[]);
    operator.ready().await;
    create(&install, &scheduled("each-second", EACH_SECOND)).await;
    let queue = Queue::of(&install, "shop", "each-second", "a").await;
    queue.more_than(2).await;
    // At the second when a tick is due, or close to it.
    install.patch("shop", "each-second", json!({"spec": {"suspend": true, "drainSeconds": 0}})).await;
    install.phase("shop", "each-second", Inactive).await;
    assert_eq!(queue.left().await, 0, "what was queued became dead letters");
    let suspended = queue.dead().await;
    assert_each_second_once(&suspended);
    // Ten due times and more.
    let resumed = *suspended.last().unwrap() + SignedDuration::from_secs(12);
    assert!(eventually(async || millrace::clock::now() > resumed).await);
    install.patch("shop", "each-second", json!({"spec": {"suspend": false}})).await;
    let active = install.phase("shop", "each-second", Active).await;
    let queue = Queue::of(&install, "shop", "each-second", "a").await;
    queue.more_than(2).await;
    let ticks = queue.ticks().await;
    assert!(ticks[0] > resumed, "{ticks:?}");
    assert_each_second_once(&ticks);

    let condition = |flow: &Flow| {
        let conditions = &flow.status.as_ref().unwrap().conditions;
        conditions.iter().find(|condition| condition.type_ == "TriggerArmed").unwrap().clone()
    };
    install
        .patch("shop", "each-second", json!({"spec": {"trigger": {"cron": {"schedule": "0 0 1 1 *"}}}}))
        .await;
    let changed = eventually(async || {
        let flow = install.flows("shop").get("each-second").await.unwrap();
        let armed = condition(&flow);
        armed.status == "True" && armed.message.contains("-01-01T00:00:00Z")
    });
    assert!(changed.await);
    let flow = install.phase("shop", "each-second", Active).await;
    assert!(condition(&flow).last_transition_time >= condition(&active).last_transition_time);
    assert_each_second_once(&queue.ticks().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schedule_that_cannot_be_followed_stalls_the_flow_and_a_correction_heals_it() {
    let install = install().await;
    let mut operator = install.operator("operator-0", &[]);
    operator.ready().await;
    let cron = |schedule: &str, zone: Value| json!({"schedule": schedule, "timeZone": zone});
    for (name, cron, says) in [
        ("never", cron("0 0 30 2 *", Value::Null), "is never due: no day of any year fits it"),
        ("nowhere", cron("* * * * *", json!("Europe/Atlantis")), "`timeZone` 'Europe/Atlantis' is unknown"),
        ("backwards", cron("30-10 * * * *", Value::Null), "is no cron expression"),
    ] {
        let mut flow = scheduled(name, EACH_SECOND);
        flow.spec.trigger = serde_json::from_value(json!({ "cron": cron })).unwrap();
        install.flows("shop").create(&PostParams::default(), &flow).await.unwrap();
        let failed = install.phase("shop", name, Failed).await;
        let (_, reason, message) = said(&failed, Stalled);
        assert_eq!(reason, "InvalidSpec");
        assert!(message.contains(says), "{message}");
        let good =
            json!({"spec": {"trigger": {"cron": {"schedule": EACH_SECOND, "timeZone": "Europe/Berlin"}}}});
        install.patch("shop", name, good).await;
        install.phase("shop", name, Active).await;
        Queue::of(&install, "shop", name, "a").await.more_than(0).await;
    }
}
