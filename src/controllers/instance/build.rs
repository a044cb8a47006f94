//! What an Instance makes in its namespace: its pod, and the Secret with the credentials of the agent in it.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::{Resource as _, ResourceExt as _};

use crate::api::child;
use crate::api::instance::{Instance, member_of};
use crate::api::label::{self, Labels};
use crate::api::name::{self, CartridgeName, ClusterName, InstanceName, NamespaceName, Parent, Role};
use crate::controllers::pod::CREDENTIALS_KEY;

mod container;
mod pod;

pub use pod::{APPLICATION, Given, LAUNCH, OWN, TEMPLATE, is_wrapped, pod, template_hash};

/// The key of the seal key in the Instance's Secret.
pub const SEAL_KEY: &str = "seal.key";

/// Whose objects are built.
#[derive(Clone, Debug, PartialEq)]
pub struct Identity {
    /// The namespace of the Instance and of all that it makes.
    pub namespace: NamespaceName,
    /// The Instance's name.
    pub name: InstanceName,
    /// The Instance's uid.
    pub uid: String,
    /// When it was made, in seconds since 1970.
    pub made: i64,
    /// The Instance's labels.
    pub labels: Labels,
    /// Makes the children go with the Instance.
    pub owner: OwnerReference,
    /// The name of its cartridge.
    pub cartridge: CartridgeName,
    /// The Cluster that it is a member of, by name and uid.
    pub cluster: Option<(ClusterName, String)>,
    /// The partition of the Cluster that it runs in.
    pub partition: Option<String>,
}

impl Identity {
    /// Who an Instance is. None where the API server would never have stored it.
    #[must_use]
    pub fn of(instance: &Instance) -> Option<Self> {
        let cluster = member_of(instance).and_then(|(cluster, uid)| Some((cluster.parse().ok()?, uid)));
        Some(Self {
            namespace: instance.metadata.namespace.as_deref()?.parse().ok()?,
            name: instance.metadata.name.as_deref()?.parse().ok()?,
            uid: instance.metadata.uid.clone()?,
            made: instance.creation_timestamp().map_or(0, |time| time.0.as_second()),
            labels: instance.metadata.labels.clone().unwrap_or_default(),
            owner: instance.controller_owner_ref(&())?,
            cartridge: instance.spec.cartridge.name.parse().ok()?,
            cluster,
            partition: instance.spec.partition.clone(),
        })
    }

    /// The name of its pod.
    #[must_use]
    pub fn pod(&self) -> String {
        name::child(&self.namespace, Parent::Instance(&self.name), Role::Pod, "")
    }

    /// The name of the Secret of its agent.
    #[must_use]
    pub fn secret(&self) -> String {
        name::child(&self.namespace, Parent::Instance(&self.name), Role::Broker, "")
    }

    /// The labels of its children.
    fn own_labels(&self) -> Labels {
        let cluster = self.cluster.as_ref().map(|(cluster, _)| cluster);
        label::inherit(&self.labels, label::of_instance(&self.name, cluster, &self.cartridge))
    }

    /// The metadata of a child.
    #[must_use]
    pub fn metadata(&self, name: String) -> ObjectMeta {
        child::metadata(&self.namespace, name, self.own_labels(), &self.owner)
    }
}

/// The Secret of the agent: its credentials for the broker, and the key by which secret imports are sealed for it.
#[must_use]
pub fn secret(identity: &Identity, credentials: String, seal: &str) -> Secret {
    let data: BTreeMap<_, _> = [
        (CREDENTIALS_KEY.to_owned(), ByteString(credentials.into_bytes())),
        (SEAL_KEY.to_owned(), ByteString(seal.as_bytes().to_vec())),
    ]
    .into();
    Secret {
        metadata: identity.metadata(identity.secret()),
        data: Some(data),
        type_: Some("Opaque".into()),
        ..Secret::default()
    }
}
