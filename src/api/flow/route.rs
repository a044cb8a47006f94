//! Whether a gateway serves a Flow's webhook. Gateway and operator must agree on it, so that it stands here once.
//!
//! The *route state* of a Flow is whether its route is wanted, and which trigger it has. The operator arms the trigger
//! when every gateway has seen a version of the Flow with the present route state.

use std::fmt;

use data_encoding::HEXLOWER;
use sha2::{Digest, Sha256};

use super::Flow;
use super::trigger::Trigger;
use crate::api::condition::{ConditionType, is_true};

/// A hash of `spec.trigger`, as `status.armedTrigger` holds it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TriggerHash(String);

impl TriggerHash {
    /// The hash of a trigger. It depends on what the trigger says, not on how it is written.
    #[must_use]
    pub fn of(trigger: &Trigger) -> Self {
        // A struct of plain fields always has a JSON form.
        let text = serde_json::to_vec(trigger).unwrap_or_default();
        let mut hex = HEXLOWER.encode(&Sha256::digest(text));
        hex.truncate(32);
        Self(hex)
    }

    /// The hash as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TriggerHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What gateways need to know of a Flow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteState {
    /// Whether requests are to be taken.
    pub wanted: bool,
    /// Which trigger it is.
    pub trigger: TriggerHash,
}

impl RouteState {
    /// The route state of a Flow as it is stored.
    ///
    /// A route is wanted while the Flow is neither suspended nor being deleted, and either its trigger is armed (it stays
    /// so when pods crash and when a later spec is refused) or the spec is accepted and all nodes are ready.
    #[must_use]
    pub fn of(flow: &Flow) -> Self {
        let conditions = flow.status.as_ref().map_or(&[][..], |status| &status.conditions);
        let holds = |of| is_true(conditions, of);
        let wished = flow.metadata.deletion_timestamp.is_none() && !flow.spec.suspend.unwrap_or_default();
        let able = holds(ConditionType::TriggerArmed)
            || holds(ConditionType::Accepted) && holds(ConditionType::NodesReady);
        Self { wanted: wished && able, trigger: TriggerHash::of(&flow.spec.trigger) }
    }
}
