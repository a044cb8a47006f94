//! B4: a message is published twice under one id, and two tenants use the same id.

use serde_json::json;

use crate::mill::{Component, Mill, Queues, Role, work};

#[tokio::test]
async fn b4_a_message_that_is_published_twice_within_the_window_has_one_effect_and_tenants_are_independent() {
    let component = Component::start().await;
    let tenants = [Mill::start().await, Mill::start().await];
    let mut agents = vec![];
    for tenant in &tenants {
        tenant.consumer("f", "a", Queues::default()).await;
        for _ in 0..2 {
            tenant.put("f", "a", "the-same-id", json!({"id": 1})).await;
        }
        agents.push(Role::agent(tenant, "f", &work("a", component.port, "/echo", &["b"]), &[]));
    }
    for tenant in &tenants {
        tenant.idle("f", "a").await;
        assert_eq!(tenant.queued("f", "b").await.len(), 1);
    }
}
