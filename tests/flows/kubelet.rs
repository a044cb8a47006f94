//! A fake kubelet: it moves the phases of pods that our own controllers made, and runs nothing.
#![allow(dead_code, reason = "each binary of tests uses its part")]

use futures::TryStreamExt as _;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, Patch, PatchParams};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Client, ResourceExt as _};
use serde_json::{Value, json};

/// Pods whose image begins so never start, as an image that does not exist.
pub const NO_IMAGE: &str = "missing.invalid/";

/// Makes every pod ready, until the task is ended.
pub async fn run(client: Client) {
    let pods: Api<Pod> = Api::all(client.clone());
    let changes = watcher(pods, watcher::Config::default()).default_backoff().applied_objects();
    let each = changes.try_for_each_concurrent(16, |pod| {
        let client = client.clone();
        async move {
            if let Some(status) = next(&pod) {
                let api: Api<Pod> = Api::namespaced(client, &pod.namespace().unwrap_or_default());
                // A pod that went meanwhile needs nothing more.
                let _ =
                    api.patch_status(&pod.name_any(), &PatchParams::default(), &Patch::Merge(status)).await;
            }
            Ok(())
        }
    });
    each.await.expect("the watch of pods goes on");
}

/// The next status of a pod; none where it has it.
fn next(pod: &Pod) -> Option<Value> {
    let spec = pod.spec.as_ref()?;
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default();
    let statuses = pod.status.as_ref().and_then(|status| status.container_statuses.as_ref());
    if pod.metadata.deletion_timestamp.is_some() || phase == "Running" || statuses.is_some() {
        return None;
    }
    let image = spec.containers.first()?.image.clone().unwrap_or_default();
    let bad = image.starts_with(NO_IMAGE);
    let state = if bad {
        json!({"waiting": {"reason": "ErrImagePull", "message": "not found"}})
    } else {
        json!({"running": {"startedAt": "2026-01-01T00:00:00Z"}})
    };
    let container = |name: &str, image: &str| {
        json!({
            "name": name, "image": image, "imageID": "", "ready": !bad, "started": !bad, "restartCount": 0,
            "state": state,
        })
    };
    let all: Vec<_> =
        spec.containers.iter().map(|c| container(&c.name, c.image.as_deref().unwrap_or_default())).collect();
    let status = if bad { "False" } else { "True" };
    let conditions: Vec<_> = ["Ready", "ContainersReady", "Initialized", "PodScheduled"]
        .map(|of| json!({"type": of, "status": if of == "PodScheduled" { "True" } else { status }}))
        .into();
    let phase = if bad { "Pending" } else { "Running" };
    let ip = address(&pod.uid().unwrap_or_default());
    Some(json!({"status": {
        "phase": phase, "conditions": conditions, "containerStatuses": all, "podIP": ip, "podIPs": [{"ip": ip}],
    }}))
}

/// An address that no other pod has: made from its uid.
fn address(uid: &str) -> String {
    let sum = uid.bytes().fold(0_u32, |sum, byte| sum.wrapping_mul(16_777_619) ^ u32::from(byte));
    let [_, a, b, c] = sum.to_be_bytes();
    format!("10.{a}.{b}.{c}")
}
