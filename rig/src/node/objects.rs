//! The objects that a cluster is expected to hold from the start, and the wait for its node.

use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::storage::v1::StorageClass;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use super::NAME;
use super::components::PROVISIONER;
use super::network::Slot;
use crate::control_plane::{GLANCE, namespace_ready};
use crate::error::{Error, Result};

/// The namespace of what belongs to the cluster itself.
const SYSTEM: &str = "kube-system";

/// Applies the service of the cluster's names and the default storage class.
pub(crate) async fn apply(client: &Client, slot: Slot) -> Result<()> {
    let ports = |target: bool| {
        let port = |name, protocol| {
            if target {
                json!({"name": name, "port": 53, "protocol": protocol, "targetPort": 53})
            } else {
                json!({"name": name, "port": 53, "protocol": protocol})
            }
        };
        json!([port("dns", "UDP"), port("dns-tcp", "TCP")])
    };
    let service = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "kube-dns", "namespace": SYSTEM, "labels": {"k8s-app": "kube-dns"}},
        "spec": {"clusterIP": slot.dns_service(), "ports": ports(true)},
    });
    let endpoints = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"name": "kube-dns", "namespace": SYSTEM, "labels": {"kubernetes.io/service-name": "kube-dns"}},
        "addressType": "IPv4",
        "endpoints": [{"addresses": [slot.node()], "conditions": {"ready": true}}],
        "ports": ports(false),
    });
    let storage = json!({
        "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass",
        "metadata": {"name": "folder", "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}},
        "provisioner": PROVISIONER, "reclaimPolicy": "Delete", "volumeBindingMode": "WaitForFirstConsumer",
    });
    patch::<Service>(&Api::namespaced(client.clone(), SYSTEM), "kube-dns", &service).await?;
    patch::<EndpointSlice>(&Api::namespaced(client.clone(), SYSTEM), "kube-dns", &endpoints).await?;
    patch::<StorageClass>(&Api::all(client.clone()), "folder", &storage).await
}

/// Waits until the node takes pods and the default namespace can hold them.
pub(crate) async fn ready(client: &Client) -> Result<()> {
    let nodes: Api<Node> = Api::all(client.clone());
    while !nodes.get_opt(NAME).await.is_ok_and(|node| node.is_some_and(|node| is_ready(&node))) {
        tokio::time::sleep(GLANCE).await;
    }
    namespace_ready(client, "default").await
}

fn is_ready(node: &Node) -> bool {
    let status = node.status.as_ref();
    let conditions = status.and_then(|status| status.conditions.as_ref());
    conditions.is_some_and(|all| all.iter().any(|c| c.type_ == "Ready" && c.status == "True"))
}

#[allow(clippy::disallowed_methods, reason = "the rig is no controller: it writes here once")]
async fn patch<K>(api: &Api<K>, name: &str, object: &serde_json::Value) -> Result<()>
where
    K: Resource + Clone + DeserializeOwned + Serialize + std::fmt::Debug,
{
    api.patch(name, &PatchParams::apply("rig").force(), &Patch::Apply(object))
        .await
        .map(drop)
        .map_err(|e| Error::kubernetes(format!("apply {name}"))(Box::new(e)))
}
