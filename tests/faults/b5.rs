//! B5: who handles a message dies before it is acknowledged, or its acknowledgement is lost. The effect is what is stored
//! downstream.

use std::time::Duration;

use millrace::pump::test::EXIT_CODE;
use serde_json::json;
use tokio::time::timeout;

use crate::mill::{Component, LIMIT, Mill, Queues, Role, work};

#[tokio::test]
async fn b5_whoever_dies_between_effect_and_acknowledgement_the_effect_is_stored_once() {
    let mill = Mill::start().await;
    mill.consumer("f", "a", Queues { ack_wait: Duration::from_secs(1), ..Queues::default() }).await;
    let component = Component::start().await;
    let work = work("a", component.port, "/echo", &["b"]);
    mill.put("f", "a", "m1", json!({"id": 1})).await;
    // Three die one after the other, each with the effect stored and the message not acknowledged.
    for life in 1..=3 {
        let mut agent = Role::agent(&mill, "f", &work, &[("MILLRACE_TEST_EXIT_BEFORE_ACK", "1")]);
        let died = timeout(LIMIT, agent.child.wait()).await.unwrap().unwrap();
        assert_eq!(died.code(), Some(EXIT_CODE));
        assert_eq!(mill.queued("f", "b").await.len(), 1, "life {life}");
    }
    let agent = Role::agent(&mill, "f", &work, &[]);
    mill.idle("f", "a").await;
    assert_eq!(mill.queued("f", "b").await.len(), 1);
    assert_eq!(component.seen().await, [("m1".to_owned(), 4)], "it was seen again, under the same id");
    assert_eq!(agent.metric(r#"millrace_pump_deliveries_total{outcome="Done"}"#).await.to_string(), "1");
}

#[tokio::test]
async fn b5_who_dies_before_the_effect_leaves_the_message_to_the_next() {
    let mill = Mill::start().await;
    mill.consumer("f", "a", Queues { ack_wait: Duration::from_secs(1), ..Queues::default() }).await;
    let component = Component::start().await;
    let hang = work("a", component.port, "/hang", &["b"]);
    mill.put("f", "a", "m1", json!({"id": 1})).await;
    let first = Role::agent(&mill, "f", &hang, &[]);
    crate::mill::until("the message to be in flight", async || {
        (first.metric("millrace_pump_in_flight").await > 0.0).then_some(())
    })
    .await;
    drop(first);
    assert_eq!(mill.queued("f", "b").await.len(), 0);
    let _second = Role::agent(&mill, "f", &work("a", component.port, "/echo", &["b"]), &[]);
    mill.idle("f", "a").await;
    assert_eq!(mill.queued("f", "b").await.len(), 1);
}
