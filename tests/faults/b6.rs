//! B6: a poison message. It is given up at the limit of its node, blocks nobody, and is seen in the status.

use kube::api::PostParams;
use millrace::api::condition::{self, ConditionType};
use millrace::api::flow::phase::FlowPhase::Active;
use serde_json::{Value, json};

use crate::common;
use crate::install::{Install, eventually, said, scheduled};
use crate::mill::{Component, Mill, Queues, Role, header, work};

#[tokio::test]
async fn b6_a_poison_message_is_given_up_at_the_limit_and_those_behind_it_do_not_wait() {
    let (mill, component) = (Mill::start().await, Component::start().await);
    mill.consumer("f", "a", Queues::default()).await;
    let mut work = work("a", component.port, "/poison", &["b"]);
    // It is still being tried when all others are done.
    (work.retry.limit, work.retry.backoff_millis) = (3, 400);
    let _agent = Role::agent(&mill, "f", &work, &[]);
    mill.put("f", "a", "bad", json!({"id": "poison"})).await;
    for number in 0..50 {
        mill.put("f", "a", &format!("m{number}"), json!({ "id": number })).await;
    }
    crate::mill::until("the others", async || (mill.queued("f", "b").await.len() == 50).then_some(())).await;
    assert_eq!(mill.dead("f", "a").await.len(), 0, "it was not given up yet");
    let reason = mill.one_dead("f", "a").await;
    assert_eq!(reason, "it was tried 4 times, at last: the component answered 500: this message is poison");
    let (headers, payload) = mill.dead("f", "a").await.remove(0);
    assert_eq!(header(&headers, "Millrace-Attempts"), "4");
    assert_eq!(serde_json::from_str::<Value>(&payload).unwrap()["body"], json!({"id": "poison"}));
    mill.idle("f", "a").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn b6_dead_letters_are_told_on_their_flow_and_no_more_when_they_are_gone() {
    let install = Install::start(&[]).await;
    common::make_namespace(&install.client, "shop").await;
    let mut operator = install.operator("operator-0", &[]);
    operator.ready().await;
    let flow = scheduled("yearly", "0 0 1 1 *");
    install.flows("shop").create(&PostParams::default(), &flow).await.unwrap();
    install.phase("shop", "yearly", Active).await;
    let client = async_nats::connect(&install.nats_url).await.unwrap();
    let jetstream = async_nats::jetstream::new(client);
    let told = async |says: Option<&str>| {
        let holds = eventually(async || {
            let flow = install.flows("shop").get("yearly").await.unwrap();
            let conditions = &flow.status.as_ref().unwrap().conditions;
            let found = condition::find(conditions, ConditionType::DeadLetters);
            found.map(|found| found.message.as_str()) == says
        });
        assert!(holds.await, "it never said {says:?}");
    };
    let letters = async |count: usize| {
        for _ in 0..count {
            let subject = "millrace.dead.shop.yearly.a";
            jetstream.publish(subject, "{}".into()).await.unwrap().await.unwrap();
        }
    };
    let hint = "see `millrace dead-letters list -n shop --flow yearly`";
    letters(2).await;
    told(Some(&format!("2 messages could not be handled: {hint}"))).await;
    letters(10).await;
    told(Some(&format!("10 messages or more could not be handled: {hint}"))).await;
    let flow = install.phase("shop", "yearly", Active).await;
    assert_eq!(said(&flow, ConditionType::Ready).0, "True", "it goes on");
    let stream = jetstream.get_stream("MILLRACE_DEAD").await.unwrap();
    stream.purge().await.unwrap();
    told(None).await;
}
