//! What the operator tells the agent of an Instance's pod, and what that answers.
//!
//! The agent reads its [`Setup`] from its pod's environment, the [`MemberWork`] from the bucket `desired`, and answers with a
//! [`MemberReport`] in `observed`, each under the Instance's key. Both name the pod by its uid: an agent acts on its own only,
//! and the operator believes no other. Unknown fields are ignored and new ones have defaults, so that operator and pods may
//! differ by a version.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::api::cartridge::Probes;
use crate::api::cartridge::lifecycle::Lifecycle;

/// Where agent and application meet in a pod: the socket, and the files of imports and values.
pub const RUN_DIR: &str = "/run/millrace";
/// Where the launcher lies in a pod, in a volume of its own.
pub const LAUNCHER: &str = "/run/millrace-launch/launch";
/// The agent's socket for the launcher, in [`RUN_DIR`].
pub const SOCKET: &str = "agent.sock";
/// The imports as JSON, in [`RUN_DIR`]: `{"tomcat": [{"name": "tomcat-0", "ip": "10.1.0.7", "port": 8009}]}`.
pub const IMPORTS_FILE: &str = "imports.json";
/// The imports as variables, in [`RUN_DIR`]: lines such as `TOMCAT_0_IP='10.1.0.7'`, for a shell to source.
pub const IMPORTS_ENV_FILE: &str = "imports.env";
/// The values as JSON, in [`RUN_DIR`].
pub const VALUES_FILE: &str = "values.json";
/// The folder of secret imports, in [`RUN_DIR`]: `secrets/<import>/<member>/<variable>`.
pub const SECRETS_DIR: &str = "secrets";

/// What the agent of an Instance knows from the beginning. It is the same for the life of the pod.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Setup {
    /// Whether the application is started by the launcher. If not, its container begins by itself once the agent's startup
    /// probe passes.
    pub wrapped: bool,
    /// The TCP ports that must accept connections at the pod's address, by name.
    #[serde(default)]
    pub ports: BTreeMap<String, u16>,
    /// The user's checks; those of `exec` run through the launcher.
    #[serde(default)]
    pub probes: Probes,
    /// The user's hooks; those of `exec` run through the launcher.
    #[serde(default)]
    pub lifecycle: Lifecycle,
    /// Seconds between the moment when a member that served is told to stop and the end of its application.
    #[serde(default)]
    pub drain_seconds: u32,
}

/// What the agent of an Instance is to do now.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MemberWork {
    /// The uid of the pod that is meant.
    pub pod: String,
    /// Names `imports`, `secrets` and `values` together; the agent repeats it once the application has them.
    pub revision: String,
    /// Whether the application is to run: false closes the gate, and stops what runs.
    pub run: bool,
    /// What the application gets, by import: the members, those with the lowest ordinal first. An import without members is
    /// there too, with an empty list.
    #[serde(default)]
    pub imports: BTreeMap<String, Vec<ImportedMember>>,
    /// The values of the Instance.
    #[serde(default)]
    pub values: Map<String, Value>,
    /// The secret values of the imports, sealed for this Instance: see [`super::seal`]. Inside they are the JSON of a
    /// [`Secrets`]. Absent: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secrets: Option<String>,
}

/// The secret values of imports: by import, member and variable.
pub type Secrets = BTreeMap<String, BTreeMap<String, BTreeMap<String, String>>>;

/// A member of another Cluster, as an importer gets it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ImportedMember {
    /// Name of the Instance.
    pub name: String,
    /// Its exported variables by name: text, or a number where the value is a whole number. Secret ones are not here.
    pub variables: BTreeMap<String, Value>,
}

/// How far the application in a pod is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Stage {
    /// Its process does not run: the gate is closed, it was stopped, or it has ended and begins anew.
    #[default]
    Down,
    /// Its process runs. Under no launcher the agent cannot know that, and says it once a port answers.
    Running,
    /// It runs, the `start` hook is done, all ports answer, and the checks pass.
    Serving,
    /// It is being stopped: it is drained, its `stop` hook runs, or its process is ending. It takes no new requests.
    Stopping,
}

/// What the agent of an Instance says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MemberReport {
    /// The uid of its pod.
    pub pod: String,
    /// How far the application is.
    pub stage: Stage,
    /// The revision of the work that the application has: its files are written, and the `update` hook has run or there is
    /// none. Absent: none yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub applied: Option<String>,
    /// How often the application was started in this pod.
    #[serde(default)]
    pub starts: u32,
    /// What keeps it from the next stage, in words for a person that stay the same while the reason does: `port 'http' (8080)
    /// does not accept connections at the pod's address`. Absent: nothing that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}
