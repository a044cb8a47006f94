//! All that was seen of an Instance, of what it has made, and of those that it depends on, at one moment.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;
use serde_json::{Map, Value};

use crate::api::cartridge::CartridgeSpec;
use crate::api::cartridge::exchange::Exported;
use crate::api::cluster::placement::Partition;
use crate::api::condition::Refusal;
use crate::api::instance::Instance;
use crate::api::revision::Revision;
use crate::broker::member::{MemberReport, MemberWork, Secrets};

use super::imports::Resolution;

/// What was seen.
#[allow(clippy::struct_excessive_bools, reason = "each was seen by itself")]
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The Instance.
    pub instance: Arc<Instance>,
    /// When this was seen.
    pub now: Timestamp,
    /// Whether the namespace is being deleted: nothing can be made in it any more.
    pub namespace_ending: bool,
    /// Whether the namespace asks its pods to keep to the Pod Security Standard `restricted`.
    pub restricted: bool,
    /// What it runs, or holds.
    pub source: Source,
    /// Why the spec is not accepted, if it is not.
    pub refused_spec: Option<Invalid>,
    /// The values: those of the Cluster, overlaid by its own.
    pub values: Map<String, Value>,
    /// Where the Cluster wants it to run.
    pub partition: Option<Partition>,
    /// How long a node may be silent before the pod is replaced.
    pub node_loss: Duration,
    /// Its pod.
    pub pod: Option<Arc<Pod>>,
    /// Since when the pod's node does not answer, where it does not.
    pub node_lost: Option<Timestamp>,
    /// What its agent was told last, or that of the pod before.
    pub told: Option<MemberWork>,
    /// What its agent says of this pod.
    pub report: Option<MemberReport>,
    /// Why the broker cannot be used, where it cannot.
    pub broker_trouble: Option<String>,
    /// Whether the load balancer sends to its pod.
    pub in_balancer: bool,
    /// What became of its imports.
    pub imports: Vec<Resolution>,
    /// The secret values among them.
    pub secrets: Secrets,
    /// What it exports when it does.
    pub exports: Vec<Exported>,
    /// What it should export and cannot, and why.
    pub unexported: Vec<String>,
    /// Those that run and would have to stop if this one gave nothing any more.
    pub dependants: Vec<String>,
    /// What the API server did not take, and why.
    pub refused: Option<Rejected>,
    /// Whether the event log has the last transition.
    pub announced: bool,
}

/// Why a spec cannot be acted on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invalid {
    /// Of which kind the reason is.
    pub refusal: Refusal,
    /// The reason, and what to do.
    pub message: String,
}

/// An object that the API server did not take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejected {
    /// Whether its name belongs to somebody else's.
    pub foreign: bool,
    /// Which object, and why.
    pub message: String,
}

/// What an Instance runs, or holds.
#[derive(Clone, Debug)]
pub enum Source {
    /// Values only.
    Record(Arc<CartridgeSpec>),
    /// An application, as it was stored.
    Application {
        /// The name of the ControllerRevision.
        name: String,
        /// What is in it.
        revision: Arc<Revision>,
        /// Whether it is still to be stored.
        new: bool,
    },
    /// It cannot be known, for a reason that may pass: what runs goes on.
    Missing(String),
}

impl Source {
    /// The application, where it is one.
    #[must_use]
    pub fn application(&self) -> Option<&Revision> {
        match self {
            Self::Application { revision, .. } => Some(revision),
            Self::Record(_) | Self::Missing(_) => None,
        }
    }

    /// The cartridge, where it is known.
    #[must_use]
    pub fn cartridge(&self) -> Option<&CartridgeSpec> {
        match self {
            Self::Record(cartridge) => Some(cartridge),
            Self::Application { revision, .. } => Some(&revision.cartridge),
            Self::Missing(_) => None,
        }
    }
}

impl Snapshot {
    /// Whether the broker can be used.
    #[must_use]
    pub const fn broker_up(&self) -> bool {
        self.broker_trouble.is_none()
    }

    /// What the agent of the present pod was told.
    #[must_use]
    pub fn told_now(&self) -> Option<&MemberWork> {
        let uid = self.pod.as_ref()?.metadata.uid.as_deref()?;
        self.told.as_ref().filter(|told| told.pod == uid)
    }

    /// What the application gets, by import.
    #[must_use]
    pub fn delivered(&self) -> BTreeMap<String, Vec<crate::broker::member::ImportedMember>> {
        self.imports.iter().map(|import| (import.name.clone(), import.delivered())).collect()
    }
}
