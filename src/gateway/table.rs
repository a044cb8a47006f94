//! The routes of all Flows at one moment: immutable, and cheap to change.
//!
//! A table of 10,000 routes is changed with every Flow that starts or stops, so a change copies one small shard of it and
//! shares the rest with the table before.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;

use crate::gateway::route::Route;

/// 40 routes a shard at 10,000; copying the list of shards costs microseconds.
const SHARDS: usize = 256;

/// What finds a route: namespace and name, or the uid and nothing.
type Key<'a> = [&'a str; 2];
/// Sorted by key.
type Shard = Arc<[Arc<Route>]>;

/// The routes of all Flows at one moment.
#[derive(Clone, Debug)]
pub struct Table {
    names: Index,
    uids: Index,
    routes: usize,
}

impl Default for Table {
    fn default() -> Self {
        Self::of(vec![])
    }
}

impl Table {
    /// A table of these routes. Of two for one Flow the later one counts.
    #[must_use]
    pub fn of(routes: Vec<Arc<Route>>) -> Self {
        let names = Index::of(by_name, routes);
        // From the other index, which has one of each name only.
        let routes: Vec<_> = names.shards.iter().flat_map(|shard| shard.iter().cloned()).collect();
        Self { routes: routes.len(), uids: Index::of(by_uid, routes), names }
    }

    /// The route of the Flow with this name.
    #[must_use]
    pub fn named(&self, namespace: &str, flow: &str) -> Option<&Arc<Route>> {
        self.names.find([namespace, flow])
    }

    /// The route of the Flow with this uid.
    #[must_use]
    pub fn with_uid(&self, uid: &str) -> Option<&Arc<Route>> {
        self.uids.find([uid, ""])
    }

    /// The same table without the route of a name, or with another one in its place.
    #[must_use]
    pub fn changed(&self, namespace: &str, flow: &str, route: Option<Arc<Route>>) -> Self {
        let mut table = self.clone();
        if let Some(before) = self.named(namespace, flow) {
            table.names.remove([namespace, flow]);
            table.uids.remove(by_uid(before));
            table.routes -= 1;
        }
        if let Some(route) = route {
            table.names.insert(&route);
            table.uids.insert(&route);
            table.routes += 1;
        }
        table
    }

    /// All routes.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Route>> {
        self.names.shards.iter().flat_map(|shard| shard.iter())
    }

    /// How many routes there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.routes
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.routes == 0
    }
}

fn by_name(route: &Route) -> Key<'_> {
    [route.namespace.as_str(), route.flow.as_str()]
}

fn by_uid(route: &Route) -> Key<'_> {
    [&route.uid, ""]
}

#[derive(Clone, Debug)]
struct Index {
    key: fn(&Route) -> Key<'_>,
    shards: Vec<Shard>,
}

fn shard_of(key: Key<'_>) -> usize {
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    // The remainder is less than the number of shards.
    usize::try_from(hasher.finish() % SHARDS as u64).unwrap_or_default()
}

impl Index {
    fn of(key: fn(&Route) -> Key<'_>, routes: Vec<Arc<Route>>) -> Self {
        let mut shards = vec![vec![]; SHARDS];
        for route in routes {
            let shard = &mut shards[shard_of(key(&route))];
            match shard.binary_search_by(|other: &Arc<Route>| key(other).cmp(&key(&route))) {
                Ok(at) => shard[at] = route,
                Err(at) => shard.insert(at, route),
            }
        }
        Self { key, shards: shards.into_iter().map(Shard::from).collect() }
    }

    fn place(&self, shard: &Shard, key: Key<'_>) -> Result<usize, usize> {
        shard.binary_search_by(|route| (self.key)(route).cmp(&key))
    }

    fn find(&self, key: Key<'_>) -> Option<&Arc<Route>> {
        let shard = &self.shards[shard_of(key)];
        self.place(shard, key).ok().map(|at| &shard[at])
    }

    fn remove(&mut self, key: Key<'_>) {
        let number = shard_of(key);
        let shard = &self.shards[number];
        if let Ok(at) = self.place(shard, key) {
            let rest = shard[..at].iter().chain(&shard[at + 1..]).cloned().collect();
            self.shards[number] = rest;
        }
    }

    fn insert(&mut self, route: &Arc<Route>) {
        let key = (self.key)(route);
        let number = shard_of(key);
        let shard = &self.shards[number];
        let (at, after) = match self.place(shard, key) {
            Ok(at) => (at, at + 1),
            Err(at) => (at, at),
        };
        let with = shard[..at].iter().chain([route]).chain(&shard[after..]).cloned().collect();
        self.shards[number] = with;
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    /// The route of a Flow in the namespace `shop`.
    pub fn route(name: &str, uid: &str) -> Arc<Route> {
        Arc::new(Route {
            namespace: "shop".parse().unwrap(),
            flow: name.parse().unwrap(),
            uid: uid.into(),
            entry: "a".parse().unwrap(),
            get: true,
            post: true,
            max_body: 1,
        })
    }

    #[test]
    fn a_flow_that_is_made_anew_is_no_longer_found_under_its_old_uid() {
        let table = Table::default().changed("shop", "a", Some(route("a", "1")));
        let table = table.changed("shop", "a", Some(route("a", "2")));
        assert_eq!((table.len(), table.with_uid("1")), (1, None));
        assert_eq!(table.with_uid("2"), table.named("shop", "a"));
        assert!(table.named("shop", "a").is_some());
        assert_eq!((table.named("shop", "b"), table.named("other", "a")), (None, None));
    }

    #[test]
    fn a_change_among_many_copies_one_shard_of_each_index() {
        let many: Vec<_> = (0..10_000).map(|n| route(&format!("f{n}"), &format!("u{n}"))).collect();
        let table = Table::of(many);
        let changed = table.changed("shop", "f77", None);
        let copied = |before: &Index, after: &Index| {
            before.shards.iter().zip(&after.shards).filter(|(some, other)| !Arc::ptr_eq(some, other)).count()
        };
        assert_eq!((copied(&table.names, &changed.names), copied(&table.uids, &changed.uids)), (1, 1));
        assert_eq!((table.len(), changed.len()), (10_000, 9_999));
        assert!(table.names.shards.iter().all(|shard| shard.len() < 100), "the shards are uneven");
    }

    proptest! {
        #[test]
        fn any_row_of_changes_ends_where_a_map_ends(
            changes in prop::collection::vec((0_u8..6, prop::option::of(0_u8..4)), 0..40),
        ) {
            let (mut table, mut map) = (Table::default(), BTreeMap::new());
            for (name, uid) in changes {
                let name = format!("f{name}");
                let route = uid.map(|uid| route(&name, &format!("{name}-{uid}")));
                table = table.changed("shop", &name, route.clone());
                match route {
                    Some(route) => drop(map.insert(name, route)),
                    None => drop(map.remove(&name)),
                }
                prop_assert_eq!(table.len(), map.len());
            }
            let mut left: Vec<_> = table.iter().cloned().collect();
            left.sort_by(|some, other| some.flow.cmp(&other.flow));
            prop_assert_eq!(&left, &map.values().cloned().collect::<Vec<_>>());
            prop_assert!(left.iter().all(|route| table.with_uid(&route.uid) == Some(route)));
            prop_assert_eq!(table.uids.shards.iter().map(|shard| shard.len()).sum::<usize>(), map.len());
            let built = Table::of(left);
            prop_assert!(map.values().all(|route| built.named("shop", route.flow.as_str()) == Some(route)));
            prop_assert_eq!(built.len(), map.len());
        }
    }
}
