//! What a gateway knows of one Flow: where its requests go, and which it takes.

use http::Method;

use crate::api::flow::Flow;
use crate::api::flow::route::RouteState;
use crate::api::flow::trigger::{self, Webhook};
use crate::api::name::{FlowName, NamespaceName, NodeId};
use crate::broker::subject;

/// The largest body where the Flow does not say.
pub const MAX_BODY: usize = 1 << 20;

/// The route of one Flow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// The Flow's namespace.
    pub namespace: NamespaceName,
    /// Its name.
    pub flow: FlowName,
    /// Its uid: one that was made anew under the same name is another Flow.
    pub uid: String,
    /// The node that gets the messages.
    pub entry: NodeId,
    /// Whether GET triggers it.
    pub get: bool,
    /// Whether POST triggers it.
    pub post: bool,
    /// The largest body in bytes.
    pub max_body: usize,
}

impl Route {
    /// The route of a Flow as it is stored; none where none is wanted.
    ///
    /// The trigger is the spec's, at once: that is what the operator waits for. The entry is that of the last accepted
    /// spec: what is not accepted has no queues, and what runs goes on.
    #[must_use]
    pub fn of(flow: &Flow) -> Option<Self> {
        let webhook = flow.spec.trigger.webhook.as_ref()?;
        if !RouteState::of(flow).wanted {
            return None;
        }
        let namespace = flow.metadata.namespace.as_ref()?.parse().ok()?;
        let name = flow.metadata.name.as_ref()?.parse().ok()?;
        let entry = flow.status.as_ref()?.entry.as_ref()?.parse().ok()?;
        Some(Self::taking(webhook, namespace, name, flow.metadata.uid.clone()?, entry))
    }

    fn taking(
        webhook: &Webhook,
        namespace: NamespaceName,
        flow: FlowName,
        uid: String,
        entry: NodeId,
    ) -> Self {
        let takes = |method| webhook.methods.contains(&method);
        let max = webhook.max_body_bytes.and_then(|max| usize::try_from(max).ok());
        let (get, post) = (takes(trigger::Method::Get), takes(trigger::Method::Post));
        Self { namespace, flow, uid, entry, get, post, max_body: max.unwrap_or(MAX_BODY).min(MAX_BODY) }
    }

    /// Whether a method triggers the Flow.
    #[must_use]
    pub fn takes(&self, method: &Method) -> bool {
        method == Method::GET && self.get || method == Method::POST && self.post
    }

    /// The methods that are answered, as the header `Allow` lists them.
    #[must_use]
    pub const fn allow(&self) -> &'static str {
        match (self.get, self.post) {
            (true, true) => "GET, HEAD, POST",
            (true, false) => "GET, HEAD",
            (false, true) => "HEAD, POST",
            (false, false) => "HEAD",
        }
    }

    /// The subject that its messages are published to.
    #[must_use]
    pub fn subject(&self) -> String {
        subject::node(&self.namespace, &self.flow, &self.entry)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// A Flow whose conditions hold for this generation.
    pub fn flow(name: &str, conditions: &[(&str, bool, i64)], spec: &Value) -> Flow {
        let conditions: Vec<_> = conditions
            .iter()
            .map(|(of, holds, generation)| {
                json!({
                    "type": of, "status": if *holds { "True" } else { "False" }, "reason": "X", "message": "",
                    "lastTransitionTime": "2026-01-01T00:00:00Z", "observedGeneration": generation,
                })
            })
            .collect();
        let mut flow: Flow = serde_json::from_value(json!({
            "apiVersion": "millrace.dev/v1alpha1", "kind": "Flow",
            "metadata": {
                "name": name, "namespace": "shop", "uid": format!("uid-of-{name}"), "resourceVersion": "7", "generation": 2,
            },
            "spec": {
                "trigger": {"webhook": {"methods": ["GET", "POST"]}},
                "graph": {
                    "nodes": [{"id": "a", "image": "x"}, {"id": "b", "image": "x"}],
                    "edges": [{"source": "a", "target": "b"}],
                },
            },
            "status": {"conditions": conditions, "entry": "a"},
        }))
        .unwrap();
        let mut whole = serde_json::to_value(&flow.spec).unwrap();
        whole.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        flow.spec = serde_json::from_value(whole).unwrap();
        flow
    }

    const READY: [(&str, bool, i64); 2] = [("Accepted", true, 2), ("NodesReady", true, 2)];

    fn route() -> Route {
        Route::of(&flow("orders", &READY, &json!({}))).unwrap()
    }

    fn turned() -> Value {
        json!({"graph": {
            "nodes": [{"id": "a", "image": "x"}, {"id": "b", "image": "x"}],
            "edges": [{"source": "b", "target": "a"}],
        }})
    }

    #[test]
    fn a_flow_whose_nodes_are_ready_has_a_route_to_its_entry() {
        let expected = Route {
            namespace: "shop".parse().unwrap(),
            flow: "orders".parse().unwrap(),
            uid: "uid-of-orders".into(),
            entry: "a".parse().unwrap(),
            get: true,
            post: true,
            max_body: 1 << 20,
        };
        assert_eq!(route(), expected);
        assert_eq!(expected.subject(), "millrace.flow.shop.orders.a");
        let small = flow(
            "orders",
            &READY,
            &json!({"trigger": {"webhook": {"methods": ["POST"], "maxBodyBytes": 9}}}),
        );
        assert_eq!(Route::of(&small), Some(Route { get: false, max_body: 9, ..expected }));
    }

    #[test]
    fn what_is_suspended_not_ready_or_has_no_webhook_has_no_route() {
        let without = |flow: &Flow| assert_eq!(Route::of(flow), None);
        without(&flow("orders", &[("Accepted", true, 2)], &json!({})));
        without(&flow("orders", &READY, &json!({"suspend": true})));
        without(&flow("orders", &READY, &json!({"trigger": {"cron": {"schedule": "* * * * *"}}})));
        let mut deleted = flow("orders", &READY, &json!({}));
        deleted.metadata.deletion_timestamp =
            Some(serde_json::from_value(json!("2026-01-01T00:00:00Z")).unwrap());
        without(&deleted);
    }

    #[test]
    fn messages_go_to_the_entry_of_the_last_accepted_spec_whatever_the_present_one_says() {
        let conditions = [("Accepted", false, 2), ("TriggerArmed", true, 1)];
        let mut changed = flow("orders", &conditions, &turned());
        assert_eq!(Route::of(&changed).unwrap().entry.to_string(), "a");
        changed.status.as_mut().unwrap().entry = Some("b".into());
        assert_eq!(Route::of(&changed).unwrap().entry.to_string(), "b");
        changed.status.as_mut().unwrap().entry = None;
        assert_eq!(Route::of(&changed), None);
    }

    #[test]
    fn a_trigger_counts_at_once_even_if_the_graph_is_broken() {
        let broken = json!({
            "trigger": {"webhook": {"methods": ["GET"]}},
            "graph": {"nodes": [{"id": "a", "image": "x"}], "edges": [{"source": "a", "target": "a"}]},
        });
        let broken = flow("orders", &[("Accepted", false, 2), ("TriggerArmed", true, 1)], &broken);
        assert_eq!(Route::of(&broken), Some(Route { post: false, ..route() }));
    }

    #[test]
    fn allow_lists_what_is_answered() {
        let route = Route { post: false, ..route() };
        assert_eq!(
            (route.allow(), route.takes(&Method::GET), route.takes(&Method::POST)),
            ("GET, HEAD", true, false)
        );
        assert!(!route.takes(&Method::HEAD));
    }
}
