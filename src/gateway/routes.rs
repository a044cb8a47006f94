//! The routes as they are now, and how far they have come: which version may be announced.
//!
//! Whoever hears version v from a gateway relies on it that nothing that the Flows of version v forbid is published any
//! more. So a request that publishes holds its route, and a version is kept back while a route that it took away or
//! replaced is still held. A request that only reads its body holds nothing: it looks its route up again before it
//! publishes, so that slow senders delay no Flow.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use arc_swap::ArcSwap;
use tokio::sync::Notify;

use crate::gateway::route::Route;
use crate::gateway::table::Table;

/// The routes of a gateway: requests read them, the watch changes them.
#[derive(Debug, Default)]
pub struct Routes {
    table: ArcSwap<Table>,
    progress: Mutex<Progress>,
    changed: Notify,
}

/// How far the table has come.
#[derive(Debug, Default)]
struct Progress {
    /// The version that the table is at; none before the first full list.
    version: Option<u64>,
    /// Routes that are in the table no more, and may still be held, with the last version that they were good for.
    retired: Vec<(u64, Weak<Route>)>,
}

/// What finds a route in the path of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Key {
    /// The Flow's namespace and name.
    Name(String, String),
    /// Its uid.
    Uid(String),
}

impl Routes {
    /// The route that a request means. Whoever publishes holds it until the message is stored.
    #[must_use]
    pub fn find(&self, key: &Key) -> Option<Arc<Route>> {
        let table = self.table.load();
        match key {
            Key::Name(namespace, flow) => table.named(namespace, flow),
            Key::Uid(uid) => table.with_uid(uid),
        }
        .cloned()
    }

    /// The table as it is now.
    #[must_use]
    pub fn table(&self) -> Arc<Table> {
        self.table.load_full()
    }

    /// Replaces the whole table after a complete list: what is not in it is gone. `version` is that of the list.
    pub fn replace(&self, routes: Vec<Arc<Route>>, version: u64) {
        let mut progress = self.progress();
        let (before, after) = (self.table(), Arc::new(Table::of(routes)));
        self.table.store(after.clone());
        for route in before.iter() {
            let same = after.named(route.namespace.as_str(), route.flow.as_str());
            if !same.is_some_and(|same| Arc::ptr_eq(same, route)) {
                progress.retire(route);
            }
        }
        progress.version = Some(version);
        self.changed.notify_one();
    }

    /// Puts the route of one Flow in place of the one that it had; `version` is that of the Flow.
    pub fn change(&self, namespace: &str, flow: &str, version: u64, route: Option<Arc<Route>>) {
        let mut progress = self.progress();
        let table = self.table();
        let before = table.named(namespace, flow);
        let same = match (before, &route) {
            (Some(before), Some(route)) => Arc::ptr_eq(before, route),
            (None, None) => true,
            _ => false,
        };
        if !same {
            self.table.store(Arc::new(table.changed(namespace, flow, route)));
            if let Some(before) = before {
                progress.retire(before);
            }
        }
        // Nothing counts before the first full list.
        progress.version = progress.version.map(|before| before.max(version));
        self.changed.notify_one();
    }

    /// The version that the table is at.
    #[must_use]
    pub fn version(&self) -> Option<u64> {
        self.progress().version
    }

    /// The version that may be announced: no request publishes by an older one. None before the first full list.
    #[must_use]
    pub fn settled(&self) -> Option<u64> {
        let mut progress = self.progress();
        progress.retired.retain(|(_, route)| route.strong_count() > 0);
        let held = progress.retired.iter().map(|(good, _)| *good).min();
        progress.version.map(|version| held.map_or(version, |held| held.min(version)))
    }

    /// Waits for a change.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Progress {
    fn retire(&mut self, route: &Arc<Route>) {
        // Thousands may change while nobody waits for an announcement.
        self.retired.retain(|(_, route)| route.strong_count() > 0);
        self.retired.push((self.version.unwrap_or_default(), Arc::downgrade(route)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::table::tests::route;

    fn named(flow: &str) -> Key {
        Key::Name("shop".into(), flow.into())
    }

    #[test]
    fn nothing_may_be_announced_before_the_first_full_list() {
        let routes = Routes::default();
        assert_eq!(routes.settled(), None);
        routes.replace(vec![], 0);
        assert_eq!(routes.settled(), Some(0));
    }

    #[test]
    fn a_version_is_kept_back_while_a_request_publishes_by_an_older_one() {
        let routes = Routes::default();
        routes.replace(vec![route("a", "1"), route("b", "2")], 5);
        let (held, unconcerned) =
            (routes.find(&named("a")).unwrap(), routes.find(&Key::Uid("2".into())).unwrap());
        routes.change("shop", "a", 7, None);
        routes.change("shop", "c", 9, Some(route("c", "3")));
        assert_eq!((routes.find(&named("a")), routes.version(), routes.settled()), (None, Some(9), Some(5)));
        drop(held);
        assert_eq!(routes.settled(), Some(9));
        drop(unconcerned);
        assert_eq!(routes.settled(), Some(9));
    }

    #[test]
    fn an_update_that_changes_no_route_keeps_nothing_back() {
        let routes = Routes::default();
        routes.replace(vec![route("a", "1")], 5);
        let held = routes.find(&named("a")).unwrap();
        routes.change("shop", "a", 6, Some(held.clone()));
        assert_eq!(routes.settled(), Some(6));
        // An older version, as a watch that begins anew may bring, takes nothing back.
        routes.change("shop", "z", 4, None);
        assert_eq!(routes.settled(), Some(6));
        drop(held);
    }

    #[test]
    fn a_list_takes_away_what_it_does_not_hold() {
        let routes = Routes::default();
        routes.replace(vec![route("a", "1"), route("b", "2")], 5);
        let (gone, stays) = (routes.find(&named("a")).unwrap(), routes.find(&named("b")).unwrap());
        routes.replace(vec![stays.clone()], 8);
        assert_eq!((routes.find(&named("a")), routes.table().len(), routes.settled()), (None, 1, Some(5)));
        drop((gone, stays));
        assert_eq!(routes.settled(), Some(8));
    }
}
