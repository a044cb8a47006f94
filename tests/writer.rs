//! The one writer against a real API server: what is written, what is not, and what nobody may write any more.
#![allow(clippy::disallowed_methods, reason = "the tests write to the apiserver as users do")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use k8s_openapi::api::core::v1::{PodTemplate, Secret};
use kube::ResourceExt as _;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use kube::core::ObjectMeta;
use millrace::api::flow::Flow;
use millrace::runtime::{Accidents, Fence, WriteError, Writer};
use serde_json::{Value, json};

async fn writer() -> (Writer, Api<PodTemplate>, String) {
    let (client, namespace) = (common::client().await, common::namespace().await);
    let writer = Writer::new(client.clone(), "millrace-flow", Fence::open(), Accidents::default());
    (writer, Api::namespaced(client, &namespace), namespace)
}

/// An object of ours with these variables in its container, of a kind that no controller writes to: a Deployment's writes
/// its status whenever it likes.
fn template(namespace: &str, env: &Value) -> PodTemplate {
    serde_json::from_value(json!({
        "metadata": {"name": "erp", "namespace": namespace, "labels": {"app.kubernetes.io/managed-by": "millrace"}},
        "template": {
            "metadata": {"labels": {"app": "erp"}},
            "spec": {"containers": [{"name": "component", "image": "erp:1", "env": env}]},
        },
    }))
    .unwrap()
}

fn env(made: &PodTemplate) -> Vec<String> {
    let spec = made.template.clone().unwrap().spec.unwrap();
    spec.containers[0].env.iter().flatten().map(|env| env.name.clone()).collect()
}

/// A Secret of ours.
fn secret(namespace: &str, data: &Value) -> Secret {
    let metadata = json!({"name": "erp", "namespace": namespace, "labels": {"app.kubernetes.io/managed-by": "millrace"}});
    serde_json::from_value(json!({"metadata": metadata, "data": data, "type": "Opaque"})).unwrap()
}

#[tokio::test]
async fn what_is_so_already_is_not_written_and_what_a_person_has_changed_is_put_right() {
    let (writer, _, namespace) = writer().await;
    let api: Api<Secret> = Api::namespaced(common::client().await, &namespace);
    let wanted = secret(&namespace, &json!({"key": "b25l"}));
    writer.put(&wanted, None).await.unwrap();
    let made = api.get("erp").await.unwrap();
    writer.put(&wanted, Some(&made)).await.unwrap();
    // A cache that has nothing yet is no reason to write either.
    writer.put(&wanted, None).await.unwrap();
    writer.put_by_hash(&wanted, Some(&made.metadata)).await.unwrap();
    assert_eq!(api.get("erp").await.unwrap(), made);
    assert!(matches!(writer.put_new(&wanted).await, Err(WriteError::Conflict)));

    let by_hand = json!({"data": {"key": "dHdv"}});
    let changed = api.patch("erp", &PatchParams::default(), &Patch::Merge(by_hand)).await.unwrap();
    writer.put(&wanted, Some(&changed)).await.unwrap();
    assert_eq!(api.get("erp").await.unwrap().data, made.data);
}

#[tokio::test]
async fn what_is_wanted_no_more_goes_and_what_others_have_added_stays() {
    let (writer, api, namespace) = writer().await;
    let two = template(&namespace, &json!([{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]));
    writer.put(&two, None).await.unwrap();
    let note = json!({"metadata": {"annotations": {"example.com/note": "x"}}});
    let made = api.patch("erp", &PatchParams::default(), &Patch::Merge(note)).await.unwrap();
    assert_eq!(env(&made), ["A", "B"]);
    writer.put(&template(&namespace, &json!([{"name": "B", "value": "2"}])), Some(&made)).await.unwrap();
    let rolled = api.get("erp").await.unwrap();
    assert_eq!(env(&rolled), ["B"]);
    assert_eq!(rolled.annotations()["example.com/note"], "x");
    writer.put(&template(&namespace, &json!([])), Some(&rolled)).await.unwrap();
    assert_eq!(env(&api.get("erp").await.unwrap()), Vec::<String>::new());
}

#[tokio::test]
async fn what_was_seen_and_is_no_more_is_neither_written_nor_removed() {
    let (writer, api, namespace) = writer().await;
    let wanted = template(&namespace, &json!([]));
    writer.put(&wanted, None).await.unwrap();
    let first = api.get("erp").await.unwrap();
    let note = json!({"metadata": {"annotations": {"example.com/note": "x"}}});
    api.patch("erp", &PatchParams::default(), &Patch::Merge(note)).await.unwrap();
    let other = template(&namespace, &json!([{"name": "A", "value": "1"}]));
    assert!(matches!(writer.put(&other, Some(&first)).await, Err(WriteError::Conflict)));
    api.delete("erp", &DeleteParams::default()).await.unwrap();
    assert!(matches!(writer.put(&other, Some(&first)).await, Err(WriteError::Conflict | WriteError::Gone)));
    assert!(api.get_opt("erp").await.unwrap().is_none(), "it was made again");
    writer.put(&wanted, None).await.unwrap();
    assert!(matches!(writer.delete::<PodTemplate>(&first.metadata).await, Err(WriteError::Conflict)));
    let second = api.get("erp").await.unwrap();
    writer.delete::<PodTemplate>(&second.metadata).await.unwrap();
    assert!(api.get_opt("erp").await.unwrap().is_none());
    writer.delete::<PodTemplate>(&second.metadata).await.unwrap();
}

#[tokio::test]
async fn what_belongs_to_somebody_else_is_left_alone() {
    let (writer, _, namespace) = writer().await;
    let api: Api<Secret> = Api::namespaced(common::client().await, &namespace);
    let mut foreign = secret(&namespace, &json!({"key": "b25l"}));
    foreign.labels_mut().clear();
    let made = api.create(&PostParams::default(), &foreign).await.unwrap();
    let wanted = secret(&namespace, &json!({"key": "dHdv"}));
    assert!(matches!(writer.put(&wanted, None).await, Err(WriteError::Foreign)));
    assert!(matches!(writer.put(&wanted, Some(&made)).await, Err(WriteError::Foreign)));
    writer.delete_unwatched::<Secret>(&wanted.metadata).await.unwrap();
    assert_eq!(api.get("erp").await.unwrap(), made);
}

#[tokio::test]
async fn a_flow_that_changed_or_went_meanwhile_is_not_confirmed() {
    let (writer, _, namespace) = writer().await;
    let api: Api<Flow> = Api::namespaced(common::client().await, &namespace);
    let flow: Flow = serde_json::from_value(json!({
        "apiVersion": "millrace.dev/v1alpha1", "kind": "Flow",
        "metadata": ObjectMeta { name: Some("orders".into()), finalizers: Some(vec!["example.com/x".into()]), ..Default::default() },
        "spec": {"trigger": {"webhook": {"methods": ["POST"]}}, "graph": {"nodes": [{"id": "a", "builtin": "log"}]}},
    }))
    .unwrap();
    let seen = api.create(&PostParams::default(), &flow).await.unwrap();
    writer.confirm(&seen).await.unwrap();
    let change = |change: Value| {
        let api = api.clone();
        async move { api.patch("orders", &PatchParams::default(), &Patch::Merge(change)).await.unwrap() }
    };
    change(json!({"metadata": {"labels": {"team": "sales"}}})).await;
    writer.confirm(&seen).await.unwrap();
    let suspended = change(json!({"spec": {"suspend": true}})).await;
    assert!(matches!(writer.confirm(&seen).await, Err(WriteError::Conflict)));
    writer.confirm(&suspended).await.unwrap();
    api.delete("orders", &DeleteParams::default()).await.unwrap();
    assert!(matches!(writer.confirm(&suspended).await, Err(WriteError::Conflict)));
    change(json!({"metadata": {"finalizers": null}})).await;
    assert!(matches!(writer.confirm(&suspended).await, Err(WriteError::Gone)));
}
