//! The phase of a Cartridge.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::api::condition::{Reason, Refusal, Summary};
use crate::api::transition::Event;

/// Whether a Cartridge can be used: Active or Failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = crate::api::schema::undescribed)]
pub enum CartridgePhase {
    /// Clusters and Instances can be made from it.
    Active,
    /// Its spec is not accepted; the condition Stalled says why. What runs on an earlier revision goes on.
    Failed,
}

impl fmt::Display for CartridgePhase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// What is announced when it is reached.
impl From<CartridgePhase> for Event {
    fn from(phase: CartridgePhase) -> Self {
        match phase {
            CartridgePhase::Active => Self::CartridgeDeployed,
            CartridgePhase::Failed => Self::CartridgeFailed,
        }
    }
}

/// The phase, and what it means to those who wait for the Cartridge. It depends only on why the spec is not accepted, if
/// it is not.
#[must_use]
pub fn assess(refused: Option<Refusal>) -> (CartridgePhase, Summary) {
    match refused {
        Some(refusal) => (CartridgePhase::Failed, Summary::Stalled(refusal.into())),
        None => (CartridgePhase::Active, Summary::Settled(Reason::Active)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_active_when_accepted_and_failed_when_not() {
        use CartridgePhase::{Active, Failed};
        assert_eq!(assess(None), (Active, Summary::Settled(Reason::Active)));
        for (refusal, reason) in
            [(Refusal::InvalidSpec, Reason::InvalidSpec), (Refusal::NotYetSupported, Reason::NotYetSupported)]
        {
            assert_eq!(assess(Some(refusal)), (Failed, Summary::Stalled(reason)));
        }
    }

    #[test]
    fn a_phase_is_stored_as_it_is_shown() {
        for phase in [CartridgePhase::Active, CartridgePhase::Failed] {
            assert_eq!(serde_json::to_value(phase).unwrap(), phase.to_string());
        }
    }
}
