//! What a Cluster makes in its namespace: members, the revisions that they run, and the key of its subscription.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::apps::v1::ControllerRevision;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::{Resource as _, ResourceExt as _};

use crate::api::child;
use crate::api::cluster::{CartridgeRef, Cluster};
use crate::api::instance::{FINALIZER, Instance, InstanceSpec};
use crate::api::label::{self, Labels};
use crate::api::name::{self, CartridgeName, ClusterName, NamespaceName, Parent, Role};
use crate::api::revision::Revision;

/// The key of the subscription key in its Secret.
pub const KEY: &str = "key";

/// Whose objects are built.
#[derive(Clone, Debug, PartialEq)]
pub struct Identity {
    /// The namespace of the Cluster and of all that it makes.
    pub namespace: NamespaceName,
    /// The Cluster's name.
    pub name: ClusterName,
    /// The Cluster's uid.
    pub uid: String,
    /// The Cluster's labels.
    pub labels: Labels,
    /// Makes the children go with the Cluster.
    pub owner: OwnerReference,
    /// What it subscribes to.
    pub cartridge: CartridgeRef,
    /// The cartridge's name.
    pub cartridge_name: CartridgeName,
}

impl Identity {
    /// Who a Cluster is. None where the API server would never have stored it.
    #[must_use]
    pub fn of(cluster: &Cluster) -> Option<Self> {
        Some(Self {
            namespace: cluster.metadata.namespace.as_deref()?.parse().ok()?,
            name: cluster.metadata.name.as_deref()?.parse().ok()?,
            uid: cluster.metadata.uid.clone()?,
            labels: cluster.labels().clone(),
            owner: OwnerReference { block_owner_deletion: Some(true), ..cluster.controller_owner_ref(&())? },
            cartridge: cluster.spec.cartridge.clone(),
            cartridge_name: cluster.spec.cartridge.name.parse().ok()?,
        })
    }

    /// The name of the Secret with the subscription key.
    #[must_use]
    pub fn key(&self) -> String {
        name::child(&self.namespace, Parent::Cluster(&self.name), Role::Key, "")
    }

    /// The name of a revision.
    #[must_use]
    pub fn revision(&self, revision: &Revision) -> String {
        revision.name(&self.namespace, Parent::Cluster(&self.name))
    }

    fn metadata(&self, name: String, own: Labels) -> ObjectMeta {
        child::metadata(&self.namespace, name, label::inherit(&self.labels, own), &self.owner)
    }
}

/// A member. What else is in its spec is a person's to say.
#[must_use]
pub fn member(identity: &Identity, ordinal: u32, partition: Option<String>, revision: &str) -> Instance {
    let name = identity.name.member(ordinal).to_string();
    let labels = label::of_member(&identity.name, &identity.cartridge_name);
    let spec = InstanceSpec {
        cartridge: identity.cartridge.clone(),
        cluster: Some(identity.name.to_string()),
        partition,
        revision: Some(revision.to_owned()),
        ..InstanceSpec::default()
    };
    let mut metadata = identity.metadata(name, labels);
    metadata.finalizers = Some(vec![FINALIZER.into()]);
    Instance { metadata, spec, status: None }
}

/// A revision; `number` grows with each.
#[must_use]
pub fn revision(identity: &Identity, revision: &Revision, number: i64) -> ControllerRevision {
    let labels = label::of_cluster(&identity.name, &identity.cartridge_name);
    ControllerRevision {
        metadata: identity.metadata(identity.revision(revision), labels),
        data: Some(revision.data()),
        revision: number,
    }
}

/// The Secret with the subscription key.
#[must_use]
pub fn key(identity: &Identity, key: &str) -> Secret {
    let labels = label::of_cluster(&identity.name, &identity.cartridge_name);
    let data: BTreeMap<_, _> = [(KEY.to_owned(), ByteString(key.as_bytes().to_vec()))].into();
    Secret {
        metadata: identity.metadata(identity.key(), labels),
        data: Some(data),
        type_: Some("Opaque".into()),
        ..Secret::default()
    }
}
