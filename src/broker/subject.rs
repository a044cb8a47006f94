//! The names of everything at the broker. Each is computed in one place, here.
//!
//! Namespaces, Flows and nodes are DNS labels, so that no name holds a `.`, and `_` cannot occur in one: `<flow>_<node>`
//! is the durable of one node only.

use crate::api::name::{FlowName, InstanceName, NamespaceName, NodeId};

/// The stream that keeps what no node could handle.
pub const DEAD_LETTERS: &str = "MILLRACE_DEAD";
/// The subjects of [`DEAD_LETTERS`].
pub const ALL_DEAD_LETTERS: &str = "millrace.dead.>";
/// The stream of the event log: every transition of every object.
pub const EVENTS: &str = "MILLRACE_EVENTS";
/// The subjects of [`EVENTS`].
pub const ALL_EVENTS: &str = "millrace.event.>";
/// The key-value bucket that the operator writes: what runners (and agents) are to do.
pub const DESIRED: &str = "desired";
/// The key-value bucket in which they answer.
pub const OBSERVED: &str = "observed";
/// The subjects on core NATS where gateways announce the routes that they serve.
pub const ALL_GATEWAYS: &str = "millrace.gateway.*";

/// The work-queue stream with the messages of a namespace's Flows.
#[must_use]
pub fn stream(namespace: &NamespaceName) -> String {
    format!("MR_{namespace}")
}

/// The ledgers of all schedules of a namespace, in its stream. Pods may not write there.
#[must_use]
pub fn all_ledgers(namespace: &NamespaceName) -> String {
    format!("millrace.tick.{namespace}.*")
}

/// The ledger of a Flow's schedule: up to which due time all is done.
#[must_use]
pub fn ledger(namespace: &NamespaceName, flow: &FlowName) -> String {
    format!("millrace.tick.{namespace}.{flow}")
}

/// The subjects of all messages that wait for nodes of a namespace's Flows.
#[must_use]
pub fn all_nodes(namespace: &NamespaceName) -> String {
    format!("millrace.flow.{namespace}.>")
}

/// What the subjects of a Flow's nodes begin with, up to the node.
#[must_use]
pub fn node_prefix(namespace: &NamespaceName, flow: &FlowName) -> String {
    format!("millrace.flow.{namespace}.{flow}.")
}

/// The subject of the messages that wait for a node.
#[must_use]
pub fn node(namespace: &NamespaceName, flow: &FlowName, node: &NodeId) -> String {
    format!("millrace.flow.{namespace}.{flow}.{node}")
}

/// The durable consumer of a node, in the stream of its namespace.
#[must_use]
pub fn durable(flow: &FlowName, node: &NodeId) -> String {
    format!("{flow}_{node}")
}

/// The subject of what a node could not handle.
#[must_use]
pub fn dead_letter(namespace: &NamespaceName, flow: &FlowName, node: &NodeId) -> String {
    format!("millrace.dead.{namespace}.{flow}.{node}")
}

/// The subject of the dead letters of some nodes: of all where one is not named.
#[must_use]
pub fn dead_letters(
    namespace: Option<&NamespaceName>,
    flow: Option<&FlowName>,
    node: Option<&NodeId>,
) -> String {
    let namespace = namespace.map_or("*", NamespaceName::as_str);
    let (flow, node) = (flow.map_or("*", FlowName::as_str), node.map_or("*", NodeId::as_str));
    format!("millrace.dead.{namespace}.{flow}.{node}")
}

/// The node that could not handle what was published on this subject of [`DEAD_LETTERS`]; none where it is no node's.
#[must_use]
pub fn node_of_dead_letter(subject: &str) -> Option<(NamespaceName, FlowName, NodeId)> {
    let mut parts = subject.strip_prefix("millrace.dead.")?.split('.');
    let node = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    parts.next().is_none().then_some(node)
}

/// The subject of an object's transitions; `plural` is that of its kind, such as `flows`.
#[must_use]
pub fn event(namespace: &NamespaceName, plural: &str, name: &str) -> String {
    format!("millrace.event.{namespace}.{plural}.{name}")
}

/// The key of a Flow in [`DESIRED`] and [`OBSERVED`].
#[must_use]
pub fn flow_key(namespace: &NamespaceName, flow: &FlowName) -> String {
    format!("flow.{namespace}.{flow}")
}

/// The key of an Instance in [`DESIRED`] and [`OBSERVED`].
#[must_use]
pub fn instance_key(namespace: &NamespaceName, instance: &InstanceName) -> String {
    format!("instance.{namespace}.{instance}")
}

/// What the inboxes of the agent of an Instance begin with: only it may hear there. No Flow has such a name.
#[must_use]
pub fn instance_inbox(namespace: &NamespaceName, instance: &InstanceName) -> String {
    format!("_IB.{namespace}._instance.{instance}")
}

/// The subject on which a value of a bucket is written.
#[must_use]
pub fn written(bucket: &str, key: &str) -> String {
    format!("$KV.{bucket}.{key}")
}

/// The subject on core NATS on which a value of a bucket is told once it is stored: what is refused is not told there.
#[must_use]
pub fn stored(bucket: &str, key: &str) -> String {
    format!("millrace.{bucket}.{key}")
}

/// The keys of all Flows of a namespace.
#[must_use]
pub fn all_flow_keys(namespace: &NamespaceName) -> String {
    format!("flow.{namespace}.*")
}

/// The subject on core NATS where one gateway announces the routes that it serves. `name` is that of its pod, whose dots
/// are no part of the subject.
#[must_use]
pub fn gateway(name: &str) -> String {
    let plain: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    format!("millrace.gateway.{plain}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_subject_of_a_dead_letter_names_its_node() {
        let (shop, orders, map) =
            ("shop".parse().unwrap(), "orders".parse().unwrap(), "map".parse().unwrap());
        let subject = dead_letter(&shop, &orders, &map);
        assert_eq!(node_of_dead_letter(&subject), Some((shop, orders, map)));
        for other in
            ["millrace.dead.shop.orders", "millrace.dead.shop.orders.map.x", "millrace.dead.a.B.c", "x"]
        {
            assert_eq!(node_of_dead_letter(other), None, "{other}");
        }
    }
}
