//! Who gives an Instance what it imports, and what to say where nobody does: pure.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::api::cartridge::exchange::{Exported, Import};
use crate::api::container::KeyRef;
use crate::api::instance::Imported;
use crate::broker::member::ImportedMember;

/// Who can satisfy an import: the members of a Cluster, or an Instance of no Cluster.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Unit {
    /// The members of the Cluster of this name.
    Cluster(String),
    /// The Instance of this name, which is a member of none.
    Instance(String),
}

impl Unit {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Cluster(name) | Self::Instance(name) => name,
        }
    }

    /// Its key in an index of Instances.
    #[must_use]
    pub fn key(&self) -> String {
        match self {
            Self::Cluster(name) => format!("cluster/{name}"),
            Self::Instance(name) => format!("instance/{name}"),
        }
    }
}

/// What an Instance offers to those that import from it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Offer {
    /// Name of the Instance.
    pub instance: String,
    /// Name of its cartridge.
    pub cartridge: String,
    /// What it exports now; empty where it does not (yet, or any more).
    pub exports: Vec<Exported>,
    /// Whether its application runs, so that others may still use what it exported.
    pub running: bool,
}

/// What stands behind the name that an import asks for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Target {
    /// The name.
    pub name: String,
    /// Whether there is a Cluster of that name, or an Instance of no Cluster.
    pub exists: bool,
    /// What they offer, those with the lowest ordinal first; the importer itself is not among them.
    pub offers: Vec<Offer>,
    /// Clusters of the import's cartridge in this namespace, where the name is nobody's: they could be named.
    pub others: Vec<String>,
    /// The cycle of required imports that the import is a part of, as names from the importer to itself.
    pub cycle: Option<Vec<String>>,
}

/// What became of one import.
#[derive(Clone, Debug, PartialEq)]
pub struct Resolution {
    /// Name of the import.
    pub name: String,
    /// Name of the Cluster that satisfies it, or should.
    pub target: String,
    /// Whether the application may run without.
    pub optional: bool,
    /// The members that export all that is needed.
    pub members: Vec<Member>,
    /// Why there are none, and what to do; empty where there are.
    pub missing: String,
}

/// A member that exports what is needed.
#[derive(Clone, Debug, PartialEq)]
pub struct Member {
    /// Name of the Instance.
    pub name: String,
    /// What is not secret.
    pub variables: BTreeMap<String, Value>,
    /// Where the rest is.
    pub secrets: BTreeMap<String, KeyRef>,
}

impl Resolution {
    /// Whether it keeps the application from running.
    #[must_use]
    pub fn blocks(&self) -> bool {
        !self.optional && self.members.is_empty()
    }

    /// As the status of the importer lists it.
    #[must_use]
    pub fn listed(&self) -> Imported {
        Imported {
            name: self.name.clone(),
            cluster: (!self.members.is_empty()).then(|| self.target.clone()),
            members: Some(i32::try_from(self.members.len()).unwrap_or(i32::MAX)),
        }
    }

    /// As the agent of the importer gets it.
    #[must_use]
    pub fn delivered(&self) -> Vec<ImportedMember> {
        let member = |member: &Member| ImportedMember {
            name: member.name.clone(),
            variables: member.variables.clone(),
        };
        self.members.iter().map(member).collect()
    }
}

/// Resolves one import.
#[must_use]
pub fn resolve(import: &Import, target: &Target) -> Resolution {
    let members: Vec<_> = target.offers.iter().filter_map(|offer| member(import, offer)).collect();
    let missing = if members.is_empty() { missing(import, target) } else { String::new() };
    Resolution {
        name: import.name.clone(),
        target: target.name.clone(),
        optional: import.optional.unwrap_or_default(),
        members,
        missing,
    }
}

/// What an offer gives to an import; none where something of it is not there.
fn member(import: &Import, offer: &Offer) -> Option<Member> {
    if offer.cartridge != import.cartridge || offer.exports.is_empty() && !import.variables.is_empty() {
        return None;
    }
    // Without variables it asks for the members that are there, which those are that serve or have served.
    if import.variables.is_empty() && !offer.running {
        return None;
    }
    let (mut variables, mut secrets) = (BTreeMap::new(), BTreeMap::new());
    for name in &import.variables {
        let export = offer.exports.iter().find(|export| export.name == *name)?;
        match (&export.value, &export.secret_key_ref) {
            (Some(value), _) => drop(variables.insert(name.clone(), typed(value))),
            (None, Some(key)) => drop(secrets.insert(name.clone(), key.clone())),
            (None, None) => return None,
        }
    }
    Some(Member { name: offer.instance.clone(), variables, secrets })
}

/// A whole number is a number in the files, so that a port reads as one; all else is text.
fn typed(value: &str) -> Value {
    let number = value.parse::<u32>().ok().filter(|number| number.to_string() == value);
    number.map_or_else(|| Value::from(value), Value::from)
}

/// Why nobody satisfies an import, and what to do.
fn missing(import: &Import, target: &Target) -> String {
    let wants = if import.variables.is_empty() {
        "serves".to_owned()
    } else {
        format!("exports {}", list(&import.variables))
    };
    let (name, cartridge) = (&import.name, &import.cartridge);
    let asks =
        format!("import '{name}' needs a member of '{}' (cartridge '{cartridge}') that {wants}", target.name);
    if let Some(cycle) = &target.cycle {
        return format!(
            "{asks}, but they wait for each other: {}; make one of these imports `optional`",
            cycle.join(" → ")
        );
    }
    let of_cartridge: Vec<_> = target.offers.iter().filter(|offer| offer.cartridge == *cartridge).collect();
    if !target.exists {
        let others = if target.others.is_empty() {
            "create it".to_owned()
        } else {
            format!("create it, or name one of these in `imports` of the Cluster: {}", list(&target.others))
        };
        format!("{asks}: there is no Cluster and no Instance of that name; {others}")
    } else if let Some(other) = target.offers.iter().find(|offer| offer.cartridge != *cartridge) {
        let is = &other.cartridge;
        format!(
            "{asks}: its members are of the cartridge '{is}'; name another one in `imports` of the Cluster"
        )
    } else if of_cartridge.is_empty() {
        format!("{asks}: it has no members")
    } else if of_cartridge.iter().all(|offer| offer.exports.is_empty()) {
        format!("{asks}: none of its members serves yet")
    } else {
        let exported: BTreeSet<&str> =
            of_cartridge.iter().flat_map(|offer| &offer.exports).map(|export| export.name.as_str()).collect();
        let lacks: Vec<_> =
            import.variables.iter().filter(|name| !exported.contains(name.as_str())).cloned().collect();
        if lacks.is_empty() {
            return format!("{asks}: none of its members exports all of them");
        }
        format!("{asks}: its members do not export {}", list(&lacks))
    }
}

fn list(names: &[String]) -> String {
    const TOLD: usize = 5;
    let told: Vec<_> = names.iter().take(TOLD).map(|name| format!("'{name}'")).collect();
    match names.len().saturating_sub(TOLD) {
        0 => told.join(", "),
        more => format!("{} and {more} more", told.join(", ")),
    }
}

/// What keeps the application from running, in words; none where nothing does.
#[must_use]
pub fn blocked(resolutions: &[Resolution]) -> Option<String> {
    let words: Vec<_> =
        resolutions.iter().filter(|one| one.blocks()).map(|one| one.missing.as_str()).collect();
    (!words.is_empty()).then(|| words.join("; "))
}

/// The way from one unit back to itself by required imports, if there is one: `needs` says what each requires and does not
/// have. The shortest, so that the same one is told each time.
#[must_use]
pub fn cycle(from: &Unit, first: &Unit, needs: impl Fn(&Unit) -> Vec<Unit>) -> Option<Vec<String>> {
    let mut ways: BTreeMap<Unit, Unit> = BTreeMap::new();
    let mut now = vec![first.clone()];
    while !now.is_empty() {
        let mut next = vec![];
        for unit in now {
            if unit == *from {
                return Some(path(from, &ways, &unit));
            }
            for needed in needs(&unit) {
                if needed == *from || !ways.contains_key(&needed) && needed != *first {
                    ways.insert(needed.clone(), unit.clone());
                    next.push(needed);
                }
            }
        }
        next.sort();
        next.dedup();
        now = next;
    }
    None
}

fn path(from: &Unit, ways: &BTreeMap<Unit, Unit>, end: &Unit) -> Vec<String> {
    let mut path = vec![end.name().to_owned()];
    let mut at = end;
    while let Some(before) = ways.get(at) {
        path.push(before.name().to_owned());
        at = before;
        if at == from {
            break;
        }
    }
    if path.len() == 1 || path.last().map(String::as_str) != Some(from.name()) {
        path.push(from.name().to_owned());
    }
    path.reverse();
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    fn import(variables: &[&str]) -> Import {
        Import {
            name: "db".into(),
            cartridge: "mysql".into(),
            variables: variables.iter().map(ToString::to_string).collect(),
            optional: None,
        }
    }

    fn export(name: &str, value: &str) -> Exported {
        Exported { name: name.into(), value: Some(value.into()), secret_key_ref: None }
    }

    fn offer(exports: Vec<Exported>) -> Offer {
        Offer { instance: "db-0".into(), cartridge: "mysql".into(), running: !exports.is_empty(), exports }
    }

    fn target(offers: Vec<Offer>) -> Target {
        Target { name: "db".into(), exists: true, offers, ..Target::default() }
    }

    #[test]
    fn a_member_counts_once_it_exports_every_variable_that_is_asked_for() {
        let half = offer(vec![export("ip", "10.1.0.7")]);
        let mut whole = offer(vec![export("ip", "10.1.0.8"), export("port", "3306"), export("more", "x")]);
        whole.instance = "db-1".into();
        let resolved = resolve(&import(&["ip", "port"]), &target(vec![half, whole]));
        let variables = [("ip".into(), "10.1.0.8".into()), ("port".into(), 3306.into())].into();
        assert_eq!(resolved.members, [Member { name: "db-1".into(), variables, secrets: BTreeMap::new() }]);
        assert!(!resolved.blocks());
        let listed = Imported { name: "db".into(), cluster: Some("db".into()), members: Some(1) };
        assert_eq!(resolved.listed(), listed);
    }

    #[test]
    fn a_secret_variable_is_known_by_its_place_only() {
        let key = KeyRef { name: "mysql".into(), key: "password".into() };
        let secret = Exported { name: "password".into(), value: None, secret_key_ref: Some(key.clone()) };
        let resolved = resolve(&import(&["password"]), &target(vec![offer(vec![secret])]));
        assert_eq!(resolved.members[0].secrets, [("password".into(), key)].into());
        assert_eq!(resolved.members[0].variables, BTreeMap::new());
    }

    #[test]
    fn numbers_are_numbers_only_where_nothing_is_lost() {
        for (text, value) in
            [("3306", Value::from(3306)), ("0", 0.into()), ("007", "007".into()), ("-1", "-1".into())]
        {
            assert_eq!(typed(text), value);
        }
        assert_eq!(typed("99999999999"), Value::from("99999999999"));
        assert_eq!(typed("1.5"), Value::from("1.5"));
    }

    #[test]
    fn an_import_without_variables_wants_members_whose_application_runs() {
        let mut nothing = offer(vec![]);
        assert!(resolve(&import(&[]), &target(vec![nothing.clone()])).blocks());
        nothing.running = true;
        assert!(!resolve(&import(&[]), &target(vec![nothing])).blocks());
    }

    #[test]
    fn what_is_missing_is_named_with_who_could_give_it() {
        let says = |target: &Target| resolve(&import(&["ip", "port"]), target).missing;
        let asks = "import 'db' needs a member of 'db' (cartridge 'mysql') that exports 'ip', 'port'";
        let nobody = Target { name: "db".into(), ..Target::default() };
        assert_eq!(
            says(&nobody),
            format!("{asks}: there is no Cluster and no Instance of that name; create it")
        );
        let others = Target { others: vec!["orders-db".into()], ..nobody };
        assert_eq!(
            says(&others),
            format!(
                "{asks}: there is no Cluster and no Instance of that name; create it, or name one of these in `imports` \
                 of the Cluster: 'orders-db'"
            )
        );
        assert_eq!(says(&target(vec![])), format!("{asks}: it has no members"));
        assert_eq!(says(&target(vec![offer(vec![])])), format!("{asks}: none of its members serves yet"));
        let half = offer(vec![export("ip", "10.1.0.7")]);
        assert_eq!(says(&target(vec![half.clone()])), format!("{asks}: its members do not export 'port'"));
        let other = Offer { cartridge: "redis".into(), ..half };
        assert_eq!(
            says(&target(vec![other])),
            format!(
                "{asks}: its members are of the cartridge 'redis'; name another one in `imports` of the Cluster"
            )
        );
        let cycle = Some(["db", "app", "db"].map(String::from).to_vec());
        assert_eq!(
            says(&Target { cycle, ..target(vec![offer(vec![])]) }),
            format!(
                "{asks}, but they wait for each other: db → app → db; make one of these imports `optional`"
            )
        );
    }

    #[test]
    fn only_what_is_required_blocks() {
        let optional = Import { optional: Some(true), ..import(&["ip"]) };
        let resolved = resolve(&optional, &target(vec![]));
        assert!(resolved.members.is_empty() && !resolved.blocks());
        assert_eq!(blocked(&[resolved]), None);
        let required = resolve(&import(&["ip"]), &target(vec![]));
        assert_eq!(blocked(std::slice::from_ref(&required)), Some(required.missing));
    }

    fn unit(name: &str) -> Unit {
        Unit::Cluster(name.into())
    }

    #[test]
    fn a_cycle_is_told_by_its_shortest_path_from_the_one_who_asks() {
        let needs = |edges: &'static [(&str, &str)]| {
            move |of: &Unit| {
                edges
                    .iter()
                    .filter(|(from, _)| *from == of.name())
                    .map(|(_, to)| unit(to))
                    .collect::<Vec<_>>()
            }
        };
        let find =
            |from, first, edges| cycle(&unit(from), &unit(first), needs(edges)).map(|path| path.join(" "));
        assert_eq!(find("a", "b", &[("b", "a")]), Some("a b a".into()));
        assert_eq!(find("a", "b", &[("b", "c"), ("c", "d"), ("d", "a")]), Some("a b c d a".into()));
        assert_eq!(find("a", "b", &[("b", "c"), ("c", "d"), ("d", "a"), ("b", "d")]), Some("a b d a".into()));
        assert_eq!(find("a", "b", &[("b", "c"), ("c", "b")]), None, "it is not a part of it");
        assert_eq!(find("a", "a", &[]), Some("a a".into()));
        assert_eq!(find("a", "b", &[]), None);
    }
}
