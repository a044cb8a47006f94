//! An object that another makes: what its metadata says of the two.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use super::label::Labels;
use super::name::NamespaceName;

/// The metadata of a child, which goes with its owner.
#[must_use]
pub fn metadata(
    namespace: &NamespaceName,
    name: String,
    labels: Labels,
    owner: &OwnerReference,
) -> ObjectMeta {
    ObjectMeta {
        name: Some(name),
        namespace: Some(namespace.to_string()),
        labels: Some(labels),
        owner_references: Some(vec![owner.clone()]),
        ..ObjectMeta::default()
    }
}
