//! What members give each other: exports and imports.

use kube::KubeSchema;
use kube::core::Rule;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::api::container::KeyRef;
use crate::api::name::{CartridgeName, ClusterName};
use crate::api::schema;

/// One variable that each member of a Cartridge exports.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "[has(self.value), has(self.address), has(self.port), has(self.secretKeyRef)].filter(given, given).size() == 1",
    "an export must have exactly one of `value`, `address`, `port` and `secretKeyRef`",
))]
pub struct Export {
    /// Name of the variable, for example `ip`. `name` and `size` are taken: importers always get them.
    #[schemars(length(max = 63))]
    #[x_kube(validation = schema::variable("name", "ip"))]
    #[x_kube(validation = (
        "!(self.lowerAscii() in ['name', 'size'])",
        "`name` of an export must not be `name` or `size`: importers always get the member's name and how many \
         members there are",
    ))]
    pub name: String,
    /// A fixed value, the same for all members. Absent: one of the others is given. Example: `orders`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub value: Option<String>,
    /// An address of the member. Absent: one of the others is given. Example: `PodIP`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<Address>,
    /// The number of the port of `ports` with this name. Absent: one of the others is given. Example: `http`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 15))]
    pub port: Option<String>,
    /// A key of a Secret in the member's namespace; importers get its value as a file, never as an
    /// environment variable. Absent: one of the others is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_key_ref: Option<KeyRef>,
}

/// An address of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = schema::undescribed)]
pub enum Address {
    /// The first IP address of its pod.
    #[serde(rename = "PodIP")]
    PodIp,
}

/// What each member of a Cartridge needs from the members of another.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Import {
    /// Name of the import: the key in the imports file, and in upper case the begin of the environment
    /// variables, `MYSQL_IP` for `mysql`. Without a choice of the Cluster it is also the name of the Cluster
    /// that satisfies it. Example: `mysql`.
    #[schemars(length(max = ClusterName::MAX))]
    #[x_kube(validation = schema::variable("name", "mysql"))]
    #[x_kube(validation = (
        "!self.matches('(?i)^(value|millrace)([_.-]|$)')",
        "`name` of an import must not begin with `value` or `millrace`: the environment variables that begin so are \
         taken",
    ))]
    pub name: String,
    /// Name of the Cartridge whose members are imported. Example: `mysql`.
    #[schemars(length(max = CartridgeName::MAX))]
    #[x_kube(validation = schema::dns_label("cartridge", "mysql"))]
    pub cartridge: String,
    /// The exported variables that are needed; a member counts once it exports them all. Absent: none, only
    /// the names of the members. Example: `[ip, port]`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(max = 63)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    #[x_kube(validation = schema::variables("variables", "ip"))]
    #[x_kube(validation = (
        "self.all(v, !(v.lowerAscii() in ['name', 'size']))",
        "`variables` must not hold `name` or `size`: every import has them",
    ))]
    #[x_kube(validation = schema::rule(
        format!("self.all(v, !self.exists(w, v != w && {} == {}))", upper("v"), upper("w")),
        "`variables` must differ in more than upper and lower case, `_`, `-` and `.`: as environment variables they \
         are the same",
    ))]
    pub variables: Vec<String>,
    /// Whether a member may start without it. An import from the own cartridge must be optional, or the first
    /// member would wait for itself. Absent: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub optional: Option<bool>,
}

/// A name as part of an environment variable, in CEL.
fn upper(name: &str) -> String {
    format!("{name}.upperAscii().replace('-', '_').replace('.', '_')")
}

/// No two imports of a Cartridge make the same environment variable.
///
/// An import `db` makes `DB_SIZE`, `DB_IP`, `DB_0_IP`, so another may neither be called the same in upper
/// case, nor `db-0`; and where it is called `db-replica`, no variable of `db` may begin with `replica`.
#[must_use]
pub fn no_collision() -> Rule {
    let collide = format!(
        "a.name != b.name && ({a} == {b} || ({b}.startsWith({a} + '_') && \
         ({b}.substring(a.name.size() + 1).matches('^[0-9]+(_|$)') || \
         (has(a.variables) && a.variables.exists(v, ({a} + '_' + {v} + '_').startsWith({b} + '_'))))))",
        a = upper("a.name"),
        b = upper("b.name"),
        v = upper("v"),
    );
    schema::rule(
        format!("self.all(a, self.all(b, !({collide})))"),
        "`imports` must have names whose environment variables differ: two of them, in upper case with `_` for `-` and \
         `.`, make the same one",
    )
}

/// No variable of `env` is one that an import makes.
///
/// What comes from a Secret is let through: an import's own secrets are files and make no variable, so that `MYSQL_PASSWORD`
/// from a Secret goes well with the import of a `password`.
#[must_use]
pub fn no_collision_with_env() -> Rule {
    // A list of one and `all` stand for the `let` that CEL lacks: without them the rule costs more than it may.
    let made = format!(
        "i, [{i} + '_'].all(begin, [has(i.variables) ? i.variables.map(v, begin + {v}) : []].all(made",
        i = upper("i.name"),
        v = upper("v"),
    );
    let taken = "e.name in made || e.name == begin + 'SIZE' || e.name == begin + 'NAME' || \
                 (e.name.startsWith(begin) && e.name.substring(begin.size()).matches('^[0-9]+(_|$)'))";
    schema::rule(
        format!(
            "!has(self.env) || !has(self.imports) || self.imports.all({made}, self.env.all(e, \
             (has(e.valueFrom) && has(e.valueFrom.secretKeyRef)) || !({taken})))))"
        ),
        "`env` must not hold a variable that one of `imports` makes: leave it out, or rename the import",
    )
    .field_path(".env")
}

/// One exported variable of a member, as its status publishes it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Exported {
    /// Name of the variable.
    #[schemars(length(max = 63))]
    pub name: String,
    /// Its value, the number of a port too. Absent: it is secret. Example: `10.244.0.7`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub value: Option<String>,
    /// Where its secret value is. Absent: it is not secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_key_ref: Option<KeyRef>,
}
