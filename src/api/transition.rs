//! Transitions: the moves of an object's phase, counted, so that each can be announced exactly once.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How many moves an object remembers.
pub const REMEMBERED: usize = 8;

/// The moves of an object's phase.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Transitions {
    /// How many moves there have been since the object was created. It only grows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counter: Option<i64>,
    /// The last eight moves, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub recent: Vec<Transition>,
}

/// One move of an object's phase.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Transition {
    /// The value of the counter at this move.
    pub counter: i64,
    /// What happened, as the event's reason, for example `FlowStarted`.
    pub event: String,
    /// When it was seen, to the second.
    pub time: Time,
}
