//! K1: nobody was there across 1, 99, 101 and 5000 due times. At most one of them is made up, and only within the deadline.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::api::PostParams;
use millrace::api::flow::Flow;
use millrace::api::flow::phase::FlowPhase::Active;
use nix::sys::signal::Signal;
use serde_json::json;

use crate::common;
use crate::install::{Install, scheduled};
use crate::queue::Queue;

const MINUTE: SignedDuration = SignedDuration::from_secs(60);

/// Makes it so that a Flow was armed then and has done nothing since.
async fn armed_at(install: &Install, name: &str, time: Timestamp) {
    let api = install.flows("shop");
    let mut flow = api.get(name).await.unwrap();
    for condition in &mut flow.status.as_mut().unwrap().conditions {
        if condition.type_ == "TriggerArmed" {
            condition.last_transition_time = Time(Timestamp::from_second(time.as_second()).unwrap());
        }
    }
    api.replace_status(name, &PostParams::default(), &flow).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn k1_of_any_number_of_missed_ticks_one_is_made_up_within_the_deadline() {
    let install = Install::start(&[]).await;
    common::make_namespace(&install.client, "shop").await;
    let mut operator = install.operator("operator-0", &[]);
    operator.ready().await;
    let each_minute = [1, 99, 101, 5000].map(|missed| (format!("missed-{missed}"), missed));
    let mut flows: Vec<Flow> = each_minute.iter().map(|(name, _)| scheduled(name, "* * * * *")).collect();
    flows.extend([scheduled("late", "0 0 1 1 *"), scheduled("too-late", "0 0 1 1 *")]);
    let deadline = json!({"cron": {"schedule": "0 0 1 1 *", "startingDeadlineSeconds": 300}});
    flows[5].spec.trigger = serde_json::from_value(deadline).unwrap();
    for flow in &flows {
        install.flows("shop").create(&PostParams::default(), flow).await.unwrap();
    }
    for flow in &flows {
        install.phase("shop", flow.metadata.name.as_deref().unwrap(), Active).await;
    }
    operator.signal(Signal::SIGTERM);
    operator.ended().await;

    let gone = millrace::clock::now();
    for (name, missed) in &each_minute {
        armed_at(&install, name, gone - MINUTE * (*missed) - SignedDuration::from_secs(31)).await;
        Queue::of(&install, "shop", name, "a").await.forget_all().await;
    }
    for name in ["late", "too-late"] {
        armed_at(&install, name, gone - SignedDuration::from_hours(24 * 400)).await;
    }
    let mut operator = install.operator("operator-1", &[]);
    let before = millrace::clock::now();
    operator.ready().await;
    for (name, _) in &each_minute {
        let queue = Queue::of(&install, "shop", name, "a").await;
        queue.more_than(0).await;
        let ticks = queue.ticks().await;
        assert!(ticks[0] > before - MINUTE, "{name}: {ticks:?}");
        assert!(ticks.windows(2).all(|pair| pair[1] == pair[0] + MINUTE), "{name}: {ticks:?}");
    }
    let late = Queue::of(&install, "shop", "late", "a").await;
    late.more_than(0).await;
    assert_eq!(late.ticks().await.len(), 1);
    let too_late = Queue::of(&install, "shop", "too-late", "a").await;
    assert_eq!(too_late.ticks().await, Vec::<Timestamp>::new());
}
