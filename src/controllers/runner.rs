//! The runner of a namespace: one Deployment for the built-in nodes of all its Flows.
//!
//! It belongs to no Flow in particular, so that it has no owner: it is made with the first built-in node of the
//! namespace, and goes when a live look finds none.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, DeploymentStrategy};
use k8s_openapi::api::core::v1::{PodTemplateSpec, Secret, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};

use crate::api::flow::Flow;
use crate::api::label;
use crate::api::name::NamespaceName;

use super::flow::build::{BuildConfig, CREDENTIALS_KEY};

mod pod;

/// The name of all that belongs to a namespace's runner.
pub const NAME: &str = "millrace-runner";

/// Whether a Flow needs the runner: it has a built-in node and is not (yet) at rest.
#[must_use]
pub fn needed_by(flow: &Flow) -> bool {
    let builtin = flow.spec.graph.nodes.iter().any(|node| node.builtin.is_some());
    let status = flow.status.as_ref();
    let at_rest = status.and_then(|status| status.phase)
        == Some(crate::api::flow::phase::FlowPhase::Inactive)
        && flow.spec.suspend.unwrap_or_default();
    builtin && !at_rest
}

/// The Deployment.
#[must_use]
pub fn deployment(config: &BuildConfig, namespace: &NamespaceName) -> Deployment {
    let labels = label::of_runner();
    Deployment {
        metadata: metadata(namespace),
        spec: Some(DeploymentSpec {
            replicas: Some(1),
            revision_history_limit: Some(2),
            selector: LabelSelector {
                match_labels: Some(label::select_runner()),
                ..LabelSelector::default()
            },
            // Two at a time would answer for each other.
            strategy: Some(DeploymentStrategy {
                type_: Some("Recreate".into()),
                ..DeploymentStrategy::default()
            }),
            template: PodTemplateSpec {
                metadata: Some(ObjectMeta { labels: Some(labels), ..ObjectMeta::default() }),
                spec: Some(pod::spec(config, namespace)),
            },
            ..DeploymentSpec::default()
        }),
        status: None,
    }
}

/// The account: it has no rights, and no token is mounted.
#[must_use]
pub fn account(namespace: &NamespaceName) -> ServiceAccount {
    ServiceAccount {
        metadata: metadata(namespace),
        automount_service_account_token: Some(false),
        ..ServiceAccount::default()
    }
}

/// The Secret with the runner's credentials for the broker.
#[must_use]
pub fn secret(namespace: &NamespaceName, credentials: String) -> Secret {
    Secret {
        metadata: metadata(namespace),
        data: Some([(CREDENTIALS_KEY.to_owned(), ByteString(credentials.into_bytes()))].into()),
        type_: Some("Opaque".into()),
        ..Secret::default()
    }
}

fn metadata(namespace: &NamespaceName) -> ObjectMeta {
    ObjectMeta {
        name: Some(NAME.into()),
        namespace: Some(namespace.to_string()),
        labels: Some(label::of_runner()),
        annotations: Some(BTreeMap::new()),
        ..ObjectMeta::default()
    }
}
