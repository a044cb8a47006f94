//! A stored revision: what members run, kept as it was, so that deleting or editing a Cartridge disturbs nobody by surprise.

use data_encoding::HEXLOWER;
use k8s_openapi::api::apps::v1::ControllerRevision;
use k8s_openapi::apimachinery::pkg::runtime::RawExtension;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::cartridge::CartridgeSpec;
use super::cluster::placement::Partition;
use super::name::{self, NamespaceName, Parent, Role};

/// What members run: the content of a ControllerRevision.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Revision {
    /// The cartridge.
    pub cartridge: CartridgeSpec,
    /// The values of the Cluster. Absent: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub values: Option<Map<String, Value>>,
    /// Seconds between leaving the load balancer and the end of the application. Absent: as where nobody says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain_seconds: Option<i32>,
    /// The parts of the Kubernetes cluster that members may run in. Empty: anywhere.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub partitions: Vec<Partition>,
}

impl Revision {
    /// What a ControllerRevision holds; none where that is something else.
    #[must_use]
    pub fn read(stored: &ControllerRevision) -> Option<Self> {
        serde_json::from_value(stored.data.as_ref()?.0.clone()).ok()
    }

    /// As a ControllerRevision holds it.
    #[must_use]
    pub fn data(&self) -> RawExtension {
        RawExtension(serde_json::to_value(self).unwrap_or_default())
    }

    /// The name of its ControllerRevision: the same for the same content.
    #[must_use]
    pub fn name(&self, namespace: &NamespaceName, owner: Parent<'_>) -> String {
        let mut hash = HEXLOWER.encode(&Sha256::digest(self.data().0.to_string()));
        hash.truncate(10);
        name::child(namespace, owner, Role::Revision, &hash)
    }
}
