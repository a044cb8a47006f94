//! Flows of built-in nodes, as the operator gives them to a runner.

use async_nats::HeaderMap;
use millrace::broker::work::{FlowWork, Handler, Loaded, NodeWork};
use serde_json::Value;

use super::{Mill, header, until};

pub fn builtin(node: &str, name: &str, fields: &Value, targets: &[&str]) -> NodeWork {
    NodeWork {
        id: node.parse().unwrap(),
        handler: Handler::Builtin { name: name.into(), fields: fields.as_object().unwrap().clone() },
        targets: super::plain(targets),
        retry: super::RETRY,
        timeout_millis: 30_000,
        in_flight: 16,
    }
}

pub fn work(revision: &str, nodes: Vec<NodeWork>) -> FlowWork {
    FlowWork { uid: "uid-1".into(), revision: revision.into(), nodes }
}

/// Says what is to be run of a flow; `None` deletes it.
pub async fn desire(mill: &Mill, flow: &str, work: Option<&FlowWork>) {
    let mut headers = HeaderMap::new();
    if work.is_none() {
        headers.insert("KV-Operation", "DEL");
    }
    let payload = work.map(|work| serde_json::to_vec(work).unwrap()).unwrap_or_default();
    let key = format!("$KV.desired.flow.{}.{flow}", mill.namespace);
    mill.jetstream.publish_with_headers(key, headers, payload.into()).await.unwrap().await.unwrap();
}

/// What the runner says of a flow: nothing, that it was deleted, or what is loaded.
pub async fn observed(mill: &Mill, flow: &str) -> Option<Option<Loaded>> {
    let stream = mill.jetstream.get_stream("KV_observed").await.unwrap();
    let key = format!("$KV.observed.flow.{}.{flow}", mill.namespace);
    let message = stream.direct_get_last_for_subject(key).await.ok()?;
    if header(&message.headers, "KV-Operation") == "DEL" {
        return Some(None);
    }
    Some(Some(serde_json::from_slice(&message.payload).unwrap()))
}

pub async fn wait_loaded(mill: &Mill, flow: &str, revision: &str) -> Loaded {
    until("the answer of the runner", async || {
        observed(mill, flow).await.flatten().filter(|loaded| loaded.revision == revision)
    })
    .await
}
