//! Follows the Flows of the whole cluster into the routes.
//!
//! While the API server is away the last routes stay; a new list replaces them when it is complete. No Flow is kept,
//! only its route.

use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt as _};
use kube::api::Api;
use kube::core::{DeserializeGuard, ObjectMeta};
use kube::runtime::watcher::{self, Event, watcher};
use kube::runtime::{WatchStreamExt as _, utils::Backoff};
use kube::{Client, Resource as _};

use crate::admin::Gate;
use crate::api::flow::Flow;
use crate::gateway::meter::Meter;
use crate::gateway::route::Route;
use crate::gateway::routes::Routes;
use crate::runtime::watch::WATCH_SECONDS;

/// How many Flows are asked for at a time: what is received at once stays in the memory of the process.
const PAGE: u32 = 100;
/// How long a page of a list may take.
const LIST: Duration = Duration::from_secs(30);

/// A Flow, or what can be known of one that cannot be understood.
type Seen = DeserializeGuard<Flow>;

/// Follows the Flows for as long as it runs; opens the gate after the first complete list.
pub async fn follow(client: Client, routes: Arc<Routes>, meter: Meter, gate: Gate) {
    let mut follower = Follower { routes, meter, gate, coming: None };
    loop {
        let config = watcher::Config::default().timeout(WATCH_SECONDS).page_size(PAGE);
        let events = watcher(Api::<Seen>::all(client.clone()), config).backoff(Pause::default());
        follower.until_stuck(events).await;
        tracing::warn!("The list of Flows did not come to an end and is asked for again");
    }
}

/// Turns what a watch says into changes of the routes.
struct Follower {
    routes: Arc<Routes>,
    meter: Meter,
    gate: Gate,
    /// A list that is not complete yet, and its highest version.
    coming: Option<(Vec<Arc<Route>>, u64)>,
}

impl Follower {
    /// Follows a watch until it hangs in the middle of a list: the watch itself has a time limit, a list has none.
    async fn until_stuck(&mut self, events: impl Stream<Item = watcher::Result<Event<Seen>>>) {
        let mut events = std::pin::pin!(events);
        let mut listing = true;
        loop {
            let next = if listing {
                let Ok(next) = tokio::time::timeout(LIST, events.next()).await else { return };
                next
            } else {
                events.next().await
            };
            match next {
                Some(Ok(event)) => {
                    listing = match event {
                        Event::Init | Event::InitApply(_) => true,
                        Event::InitDone => false,
                        Event::Apply(_) | Event::Delete(_) => listing,
                    };
                    self.take(event);
                    self.measure();
                }
                Some(Err(error)) => {
                    tracing::warn!(%error, "The watch of Flows was interrupted: the last routes stay");
                }
                None => return,
            }
        }
    }

    fn take(&mut self, event: Event<Seen>) {
        match event {
            Event::Init => self.coming = Some((vec![], 0)),
            Event::InitApply(seen) => {
                let (route, version) = (self.route(&seen), version(seen.meta()));
                if let Some((routes, highest)) = &mut self.coming {
                    routes.extend(route);
                    *highest = version.max(*highest);
                }
            }
            Event::InitDone => {
                if let Some((routes, version)) = self.coming.take() {
                    tracing::info!(routes = routes.len(), version, "Took up the routes of all Flows");
                    self.routes.replace(routes, version);
                    self.gate.open();
                }
            }
            Event::Apply(seen) => {
                let route = self.route(&seen);
                self.change(seen.meta(), route);
            }
            Event::Delete(seen) => {
                // Its successor of the same name stays.
                let other =
                    self.known(seen.meta()).filter(|known| Some(&known.uid) != seen.meta().uid.as_ref());
                self.change(seen.meta(), other);
            }
        }
    }

    fn measure(&self) {
        self.meter.routes.set(i64::try_from(self.routes.table().len()).unwrap_or(i64::MAX));
        self.meter.version.set(self.routes.version().unwrap_or_default());
    }

    fn change(&self, meta: &ObjectMeta, route: Option<Arc<Route>>) {
        let namespace = meta.namespace.as_deref().unwrap_or_default();
        let name = meta.name.as_deref().unwrap_or_default();
        let served = self.known(meta).is_some();
        if served != route.is_some() {
            let version = version(meta);
            let what = if served { "Gave up a route" } else { "Took up a route" };
            tracing::info!(namespace, flow = name, version, "{what}");
        }
        self.routes.change(namespace, name, version(meta), route);
    }

    /// The route of a Flow: the very same as before where it says the same.
    fn route(&self, seen: &Seen) -> Option<Arc<Route>> {
        let known = self.known(seen.meta());
        let route = match &seen.0 {
            Ok(flow) => Route::of(flow)?,
            Err(invalid) => {
                let (name, namespace) = (&invalid.metadata.name, &invalid.metadata.namespace);
                let error = &invalid.error;
                tracing::error!(?namespace, flow = ?name, %error, "A Flow cannot be understood: it keeps the route it had");
                let same = |known: &Arc<Route>| Some(&known.uid) == invalid.metadata.uid.as_ref();
                return known.filter(|known| same(known) && invalid.metadata.deletion_timestamp.is_none());
            }
        };
        known.filter(|known| **known == route).or_else(|| Some(Arc::new(route)))
    }

    fn known(&self, meta: &ObjectMeta) -> Option<Arc<Route>> {
        self.routes.table().named(meta.namespace.as_deref()?, meta.name.as_deref()?).cloned()
    }
}

/// The version of an object as a number: versions of one kind may be compared (KEP-5504).
fn version(meta: &ObjectMeta) -> u64 {
    meta.resource_version.as_deref().and_then(|version| version.parse().ok()).unwrap_or_default()
}

/// The pauses between attempts to watch again: shorter than usual, for a stopped Flow waits until we know.
#[derive(Clone, Debug, Default)]
struct Pause(u32);

impl Iterator for Pause {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let pause = Duration::from_millis(200).saturating_mul(1 << self.0.min(5));
        self.0 += 1;
        Some(pause.min(Duration::from_secs(5)).mul_f64(0.5 + 0.5 * fastrand::f64()))
    }
}

impl Backoff for Pause {
    fn reset(&mut self) {
        self.0 = 0;
    }
}

#[cfg(test)]
mod tests {
    use kube::core::error_boundary::InvalidObject;
    use serde_json::json;

    use super::*;
    use crate::admin::Health;
    use crate::gateway::route::tests::flow;
    use crate::metrics::Metrics;

    fn follower() -> (Follower, Health) {
        let health = Health::default();
        let gate = health.gate("routes");
        let meter = Meter::new(&Metrics::default());
        (Follower { routes: Arc::default(), meter, gate, coming: None }, health)
    }

    fn seen(name: &str, version: u64, wanted: bool) -> Seen {
        let mut flow = flow(name, &[("Accepted", true, 2), ("NodesReady", wanted, 2)], &json!({}));
        flow.metadata.resource_version = Some(version.to_string());
        DeserializeGuard(Ok(flow))
    }

    fn names(follower: &Follower) -> Vec<String> {
        let mut names: Vec<_> = follower.routes.table().iter().map(|route| route.flow.to_string()).collect();
        names.sort();
        names
    }

    fn listed(follower: &mut Follower, flows: Vec<Seen>) {
        follower.take(Event::Init);
        for seen in flows {
            follower.take(Event::InitApply(seen));
        }
        follower.take(Event::InitDone);
    }

    #[test]
    fn a_list_counts_when_it_is_complete_and_drops_no_route_before() {
        let (mut follower, health) = follower();
        follower.take(Event::Init);
        follower.take(Event::InitApply(seen("a", 3, true)));
        assert_eq!((names(&follower).len(), follower.routes.settled(), health.closed().len()), (0, None, 1));
        follower.take(Event::InitApply(seen("b", 9, false)));
        follower.take(Event::InitDone);
        assert_eq!((names(&follower), follower.routes.settled()), (vec!["a".to_owned()], Some(9)));
        assert_eq!(health.closed(), Vec::<String>::new());
        follower.take(Event::Init);
        follower.take(Event::InitApply(seen("c", 12, true)));
        assert_eq!((names(&follower), follower.routes.settled()), (vec!["a".to_owned()], Some(9)));
        follower.take(Event::InitDone);
        assert_eq!((names(&follower), follower.routes.settled()), (vec!["c".to_owned()], Some(12)));
    }

    #[test]
    fn the_version_follows_every_change_whether_it_concerns_a_route_or_not() {
        let (mut follower, _) = follower();
        listed(&mut follower, vec![seen("a", 3, true)]);
        let kept = follower.known(seen("a", 0, true).meta()).unwrap();
        follower.take(Event::Apply(seen("a", 4, true)));
        assert!(Arc::ptr_eq(&kept, &follower.known(seen("a", 0, true).meta()).unwrap()));
        drop(kept);
        follower.take(Event::Apply(seen("b", 5, false)));
        assert_eq!(follower.routes.settled(), Some(5));
        follower.take(Event::Delete(seen("a", 8, true)));
        assert_eq!((names(&follower).len(), follower.routes.settled()), (0, Some(8)));
    }

    #[test]
    fn a_late_word_of_a_deletion_leaves_the_successor() {
        let (mut follower, _) = follower();
        let DeserializeGuard(Ok(mut second)) = seen("a", 6, true) else { panic!() };
        second.metadata.uid = Some("second".into());
        listed(&mut follower, vec![DeserializeGuard(Ok(second))]);
        follower.take(Event::Delete(seen("a", 7, true)));
        assert_eq!((names(&follower), follower.routes.settled()), (vec!["a".to_owned()], Some(7)));
    }

    #[test]
    fn what_cannot_be_understood_keeps_the_route_it_had_until_it_is_deleted() {
        let (mut follower, _) = follower();
        listed(&mut follower, vec![seen("a", 3, true)]);
        let broken = |deleted: bool| {
            let DeserializeGuard(Ok(flow)) = seen("a", 4, true) else { panic!() };
            let mut metadata = flow.metadata;
            let time = serde_json::from_value(json!("2026-01-01T00:00:00Z")).unwrap();
            metadata.deletion_timestamp = deleted.then_some(time);
            DeserializeGuard(Err(InvalidObject { error: "no such method".into(), metadata }))
        };
        follower.take(Event::Apply(broken(false)));
        assert_eq!((names(&follower), follower.routes.settled()), (vec!["a".to_owned()], Some(4)));
        listed(&mut follower, vec![broken(false), seen("b", 5, true)]);
        assert_eq!(names(&follower), ["a", "b"]);
        follower.take(Event::Apply(broken(true)));
        assert_eq!(names(&follower), ["b"]);
    }

    #[test]
    fn the_pauses_grow_to_some_seconds() {
        let pauses: Vec<_> = Pause::default().take(12).collect();
        assert!(pauses[0] <= Duration::from_millis(200), "{pauses:?}");
        assert!(pauses.iter().all(|pause| *pause <= Duration::from_secs(5)), "{pauses:?}");
        assert!(pauses[11] >= Duration::from_millis(2500), "{pauses:?}");
    }
}
