//! Names: the types that keep one kind's names from another's, and the names of what a parent makes.
//!
//! A child's name is computed, never invented: who asks twice gets the same name, so that a second create is an
//! `AlreadyExists` and not a second child. It reads `<parent>-<what it is>-<part>-<hash>`; the hash tells apart what the
//! readable part cannot (a Flow and a Cluster of one name, `a-b` with node `c` and `a` with node `b-c`, whatever was
//! cut off).

use std::{fmt, str::FromStr};

use data_encoding::BASE32_NOPAD;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use thiserror::Error;

/// The longest DNS label (RFC 1123), and the longest value of a Kubernetes label.
pub const LABEL_MAX: usize = 63;

/// Why a text is not a name, and what to do about it.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum InvalidName {
    /// There is no text at all.
    #[error("{what} must have a name: give one of 1 to {max} characters")]
    Empty {
        /// Whose name it is, with its article: `a Flow`.
        what: &'static str,
        /// The most characters that such a name may have.
        max: usize,
    },
    /// The text is longer than such a name may be.
    #[error("the name '{start}…' of {what} has {length} characters: shorten it to at most {max}")]
    TooLong {
        /// Whose name it is, with its article.
        what: &'static str,
        /// How the text begins.
        start: String,
        /// How many characters the text has.
        length: usize,
        /// The most characters that such a name may have.
        max: usize,
    },
    /// The text is no DNS label.
    #[error(
        "the name '{name}' of {what} must be lower-case letters, digits and '-' only, with a letter or digit at \
         each end"
    )]
    NotALabel {
        /// Whose name it is, with its article.
        what: &'static str,
        /// The text.
        name: String,
    },
}

/// Checks that a text is a DNS label (RFC 1123) of at most `max` bytes.
fn check(what: &'static str, max: usize, text: &str) -> Result<(), InvalidName> {
    let length = text.chars().count();
    if text.is_empty() {
        Err(InvalidName::Empty { what, max })
    } else if length > max {
        Err(InvalidName::TooLong { what, start: text.chars().take(24).collect(), length, max })
    } else if !is_label(text) {
        Err(InvalidName::NotALabel { what, name: text.to_owned() })
    } else {
        Ok(())
    }
}

/// Whether a text is made of what a DNS label is made of, whatever its length.
fn is_label(text: &str) -> bool {
    let inside = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    !text.is_empty() && text.bytes().all(inside) && !text.starts_with('-') && !text.ends_with('-')
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $what:literal, $max:literal) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The most characters that such a name may have.
            pub const MAX: usize = $max;

            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = InvalidName;

            fn from_str(text: &str) -> Result<Self, InvalidName> {
                check($what, Self::MAX, text).map(|()| Self(text.to_owned()))
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidName;

            fn try_from(text: String) -> Result<Self, InvalidName> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        // Every name is also the value of a label.
        const _: () = assert!($name::MAX <= LABEL_MAX);
    };
}

name! {
    /// The name of a namespace.
    NamespaceName, "a namespace", 63
}
name! {
    /// The name of a Flow.
    FlowName, "a Flow", 52
}
name! {
    /// The id of a node in the graph of a Flow.
    NodeId, "a node", 40
}
name! {
    /// The name of a Cartridge.
    CartridgeName, "a Cartridge", 52
}
name! {
    /// The name of a Cluster: shorter than an Instance's, since its members' names are made from it.
    ClusterName, "a Cluster", 40
}
name! {
    /// The name of an Instance.
    InstanceName, "an Instance", 52
}

// `<cluster>-<ordinal>` is always the name of an Instance: ten digits are the longest ordinal.
const _: () = assert!(ClusterName::MAX + 1 + 10 <= InstanceName::MAX);

impl ClusterName {
    /// The name of the member with this ordinal, for example `tomcat-0`.
    ///
    /// Readable, since people type it. It needs no hash: what follows the last `-` is the ordinal and what stands
    /// before it is the Cluster, so no two members share a name. An Instance that a person has given such a name is in
    /// the way of that ordinal only: it lacks the Cluster's owner reference, so it counts as no member, and its name is
    /// passed over. Names with a hash are never given to Instances.
    #[must_use]
    pub fn member(&self, ordinal: u32) -> InstanceName {
        InstanceName(format!("{self}-{ordinal}"))
    }
}

/// Whom a child belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parent<'a> {
    /// A Flow.
    Flow(&'a FlowName),
    /// A Cluster.
    Cluster(&'a ClusterName),
    /// An Instance.
    Instance(&'a InstanceName),
}

impl Parent<'_> {
    /// The kind, as it enters the hash, and the name.
    const fn parts(&self) -> (&'static str, &str) {
        match self {
            Self::Flow(name) => ("Flow", name.0.as_str()),
            Self::Cluster(name) => ("Cluster", name.0.as_str()),
            Self::Instance(name) => ("Instance", name.0.as_str()),
        }
    }
}

/// What a child is to its parent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The Deployment of a Flow's node; its part is the node's id.
    Node,
    /// The Secret with the credentials for the broker.
    Broker,
    /// The Service of a Cluster.
    Service,
    /// An `EndpointSlice` of a Cluster's Service; its part is a number.
    Slice,
    /// The Secret with the subscription key of a Cluster.
    Key,
    /// A stored revision of a Cartridge (a `ControllerRevision`); its part is the revision's own hash.
    Revision,
    /// The pod of an Instance; its part tells a pod from the one that it replaces.
    Pod,
}

impl Role {
    /// The word in the child's hash. Never change one: children would be made anew.
    const fn word(self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::Broker => "broker",
            Self::Service => "service",
            Self::Slice => "slice",
            Self::Key => "key",
            Self::Revision => "revision",
            Self::Pod => "pod",
        }
    }

    /// The word in the child's name: none where the child is what its parent is about.
    const fn shown(self) -> &'static str {
        match self {
            Self::Node | Self::Service | Self::Pod => "",
            Self::Broker | Self::Slice | Self::Key | Self::Revision => self.word(),
        }
    }

    /// The most bytes of the child's name.
    ///
    /// A Deployment's `ReplicaSet` appends `-` and up to ten characters, its pods `-` and five more. Where that exceeds
    /// 63, Kubernetes cuts the pod's name, and the hash would be what is cut.
    const fn limit(self) -> usize {
        match self {
            Self::Node => LABEL_MAX - 11 - 6,
            Self::Broker | Self::Service | Self::Slice | Self::Key | Self::Revision | Self::Pod => LABEL_MAX,
        }
    }
}

/// How many characters of the hash a name carries: 12 of base 32 are 60 bits.
///
/// Among a million children of one namespace, the chance that any two share a hash is about 1 in 2 million, and two that
/// share it clash only if their readable parts are the same too. A child carries its owner's uid, so that even then the
/// second create is refused as somebody else's and nothing is overwritten.
const HASH: usize = 12;

/// The name of what a parent makes: a DNS label that begins with a letter, which a Service's name must (RFC 1035).
///
/// `part` tells apart several children of one role and may be any text; it is empty where there is only one.
#[must_use]
pub fn child(namespace: &NamespaceName, parent: Parent<'_>, role: Role, part: &str) -> String {
    let (kind, name) = parent.parts();
    let hash = hash(&[kind, namespace.as_str(), name, role.word(), part]);
    let readable = readable(&[name, role.shown(), part], role.limit() - HASH - 1);
    format!("{readable}-{hash}")
}

/// A short hash of several texts. Each goes in behind its length, so that no two lists of texts read the same.
fn hash(parts: &[&str]) -> String {
    let mut sha = Sha256::new();
    for part in parts {
        sha.update((part.len() as u64).to_be_bytes());
        sha.update(part);
    }
    let mut text = BASE32_NOPAD.encode(&sha.finalize()).to_ascii_lowercase();
    text.truncate(HASH);
    text
}

/// Joins texts to the beginning of a DNS label of at most `max` bytes: a letter first, a letter or digit last.
fn readable(parts: &[&str], max: usize) -> String {
    let mut text = String::new();
    for part in parts.iter().filter(|part| !part.is_empty()) {
        if !text.is_empty() {
            text.push('-');
        }
        text.extend(
            part.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' }),
        );
    }
    if !text.starts_with(|c: char| c.is_ascii_lowercase()) {
        text.insert(0, 'x');
    }
    text.truncate(max);
    text.truncate(text.trim_end_matches('-').len());
    text
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn name<N: FromStr<Err = InvalidName>>(text: &str) -> N {
        text.parse().unwrap()
    }

    const ROLES: [Role; 7] =
        [Role::Node, Role::Broker, Role::Service, Role::Slice, Role::Key, Role::Revision, Role::Pod];

    /// A child's whole identity, owned.
    #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
    struct Identity(&'static str, String, String, &'static str, String);

    /// Names its child, where the parent's name fits its kind.
    fn named(
        kind: &'static str,
        namespace: &str,
        parent: &str,
        role: Role,
        part: &str,
    ) -> (Identity, String) {
        let space = name(namespace);
        let child = match kind {
            "Flow" => child(&space, Parent::Flow(&name(parent)), role, part),
            "Cluster" => child(&space, Parent::Cluster(&name(parent)), role, part),
            _ => child(&space, Parent::Instance(&name(parent)), role, part),
        };
        (Identity(kind, namespace.into(), parent.into(), role.word(), part.into()), child)
    }

    fn identity() -> impl Strategy<Value = (Identity, String)> {
        // Few letters and short texts, so that near misses are common.
        let label = || "[ab1](-?[ab1]){0,3}";
        let part = prop_oneof!["[ab1-]{0,3}", any::<String>()];
        let kind = prop::sample::select(vec!["Flow", "Cluster", "Instance"]);
        (kind, label(), label(), prop::sample::select(ROLES.to_vec()), part)
            .prop_map(|(kind, namespace, parent, role, part)| named(kind, &namespace, &parent, role, &part))
    }

    fn is_name(text: &str, max: usize) -> bool {
        text.len() <= max && is_label(text) && text.starts_with(|c: char| c.is_ascii_lowercase())
    }

    #[test]
    fn a_name_is_a_dns_label_of_its_kinds_length() {
        assert_eq!(name::<FlowName>("orders-2").as_str(), "orders-2");
        assert_eq!(name::<FlowName>("2").as_str(), "2");
        assert_eq!(name::<FlowName>(&"a".repeat(52)).as_str(), "a".repeat(52));
        assert_eq!(name::<ClusterName>(&"a".repeat(40)).as_str(), "a".repeat(40));
    }

    #[test]
    fn a_refused_name_says_what_to_do() {
        let refused = |text: &str| text.parse::<ClusterName>().unwrap_err().to_string();
        assert_eq!(refused(""), "a Cluster must have a name: give one of 1 to 40 characters");
        assert_eq!(
            refused(&"a".repeat(41)),
            "the name 'aaaaaaaaaaaaaaaaaaaaaaaa…' of a Cluster has 41 characters: shorten it to at most 40"
        );
        for text in ["Tomcat", "tom.cat", "-tomcat", "tomcat-", "tom cat", "tömcat", "tom_cat", "a\n"] {
            assert_eq!(
                refused(text),
                format!(
                    "the name '{text}' of a Cluster must be lower-case letters, digits and '-' only, with a letter \
                     or digit at each end"
                )
            );
        }
    }

    #[test]
    fn a_members_name_is_an_instances_name_and_tells_cluster_and_ordinal() {
        assert_eq!(name::<ClusterName>("tomcat").member(0), name("tomcat-0"));
        assert_eq!(name::<ClusterName>("tomcat-0").member(0), name("tomcat-0-0"));
        let longest = name::<ClusterName>(&"a".repeat(40)).member(u32::MAX);
        assert_eq!(longest.as_str().parse(), Ok(longest.clone()));
    }

    #[test]
    fn names_of_children_stay_what_they_are() {
        let shop = name("shop");
        let (orders, tomcat) = (name("orders"), name("tomcat"));
        assert_eq!(child(&shop, Parent::Flow(&orders), Role::Node, "fetch"), "orders-fetch-np27wog3mgbr");
        assert_eq!(child(&shop, Parent::Cluster(&tomcat), Role::Service, ""), "tomcat-i2buw7nhokxo");
        assert_eq!(child(&shop, Parent::Cluster(&tomcat), Role::Key, ""), "tomcat-key-vrfcabtrcvwk");
    }

    #[test]
    fn what_reads_alike_is_told_apart() {
        let all = [
            named("Flow", "shop", "a-b", Role::Node, "c"),
            named("Flow", "shop", "a", Role::Node, "b-c"),
            named("Flow", "shop", "a", Role::Broker, ""),
            named("Cluster", "shop", "a", Role::Broker, ""),
            named("Cluster", "a", "shop", Role::Broker, ""),
            named("Flow", "shop", "a", Role::Node, "B"),
            named("Flow", "shop", "a", Role::Node, "b"),
            named("Flow", "shop", "a", Role::Node, "b\0"),
            named("Flow", "shop", &"a".repeat(51), Role::Node, "b"),
            named("Flow", "shop", &"a".repeat(52), Role::Node, "b"),
        ];
        let names: BTreeMap<_, _> = all.iter().map(|(identity, name)| (name, identity)).collect();
        assert_eq!(names.len(), all.len());
    }

    proptest! {
        #[test]
        fn different_children_have_different_names(all in prop::collection::vec(identity(), 2..40)) {
            let mut seen = BTreeMap::new();
            for (identity, name) in all {
                prop_assert_eq!(seen.entry(name).or_insert_with(|| identity.clone()), &identity);
            }
        }

        #[test]
        fn a_childs_name_is_a_label_and_leaves_room_for_its_pods(
            parent in "[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?",
            part in any::<String>(),
        ) {
            for role in ROLES {
                let (_, name) = named("Cluster", "shop", &parent, role, &part);
                prop_assert!(is_name(&name, if role == Role::Node { 46 } else { 63 }), "{}", name);
            }
        }

        #[test]
        fn members_of_different_clusters_have_different_names(
            a in "[a1](-?[01]){0,3}", b in "[a1](-?[01]){0,3}", i in 0u32..20, j in 0u32..20,
        ) {
            let same = name::<ClusterName>(&a).member(i) == name::<ClusterName>(&b).member(j);
            prop_assert_eq!(same, a == b && i == j);
        }

        #[test]
        fn a_name_is_accepted_exactly_when_kubernetes_accepts_it(text in "[a-c0A.-]{0,6}") {
            let label = regex(&text);
            prop_assert_eq!(text.parse::<FlowName>().is_ok(), label);
        }
    }

    /// Kubernetes' own rule: `[a-z0-9]([-a-z0-9]*[a-z0-9])?`.
    fn regex(text: &str) -> bool {
        jsonschema::is_valid(&serde_json::json!({"pattern": "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"}), &text.into())
    }
}
