//! What runs in a member when its life takes a turn.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::api::container::{Exec, HttpGet};

/// What runs in a member when its life takes a turn.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Lifecycle {
    /// Runs once the application's process runs; the member becomes active after it. Absent: nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<Hook>,
    /// Runs when imports or values have changed, after their files are written. Absent: nothing, the
    /// application reads the files by itself. Example: `{exec: {command: [apachectl, graceful]}}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub update: Option<Hook>,
    /// Runs before the application's process is told to end. Absent: nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop: Option<Hook>,
}

/// One thing that runs: a command or a request.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "has(self.exec) != has(self.httpGet)",
    "a hook must have exactly one of `exec` and `httpGet`",
))]
pub struct Hook {
    /// A command in the container; it succeeds with exit code 0. The cartridge must have a `command`. Absent:
    /// `httpGet` is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exec: Option<Exec>,
    /// A request to the container; it succeeds with a status from 200 to 399. Absent: `exec` is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http_get: Option<HttpGet>,
}
