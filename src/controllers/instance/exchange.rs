//! Who offers what, and who wants it: kept beside the cache of Instances, so that nobody looks through all of them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use kube::ResourceExt as _;
use kube::runtime::reflector::ObjectRef;
use kube::runtime::watcher::Event;

use crate::api::condition::{ConditionType, is_true};
use crate::api::instance::{Instance, member_of};

use super::imports::{Offer, Unit};

/// The offers and wants of all Instances.
#[derive(Debug, Default)]
pub struct Exchange(Mutex<State>);

type Place = (String, String);
type OfUnit = (String, Unit);

#[derive(Debug, Default)]
struct State {
    offers: HashMap<Place, (Unit, Offer)>,
    units: HashMap<OfUnit, BTreeSet<String>>,
    /// By importer: the units that it imports from, and whether it must.
    wants: HashMap<Place, BTreeMap<Unit, bool>>,
    importers: HashMap<OfUnit, BTreeSet<String>>,
    coming: Option<BTreeSet<Place>>,
}

impl Exchange {
    /// Takes note of what the watch says, and names those that have reason to look: importers where an offer has changed, and
    /// those whom an importer no longer uses.
    pub fn note(&self, event: &Event<Instance>) -> Vec<ObjectRef<Instance>> {
        let mut state = self.lock();
        match event {
            Event::Init => {
                state.coming = Some(BTreeSet::new());
                vec![]
            }
            Event::InitApply(instance) | Event::Apply(instance) => {
                let place = place(instance);
                if let Some(coming) = &mut state.coming {
                    coming.insert(place.clone());
                }
                state.put(&place, Some(&(unit(instance), offer(instance))))
            }
            Event::Delete(instance) => state.gone(&place(instance)),
            Event::InitDone => {
                let Some(coming) = state.coming.take() else { return vec![] };
                let gone: Vec<_> = state.offers.keys().filter(|it| !coming.contains(*it)).cloned().collect();
                gone.iter().flat_map(|place| state.gone(place)).collect()
            }
        }
    }

    /// Takes note of the units that an Instance imports from, and whether it must.
    pub fn wants(&self, namespace: &str, instance: &str, wants: BTreeMap<Unit, bool>) {
        self.lock().want(&(namespace.to_owned(), instance.to_owned()), wants);
    }

    /// What a unit offers, those with the lowest ordinal first.
    #[must_use]
    pub fn offers(&self, namespace: &str, unit: &Unit) -> Vec<Offer> {
        let state = self.lock();
        let mut offers: Vec<_> = state.of_unit(namespace, unit).map(|(_, offer)| offer.clone()).collect();
        // `tomcat-2` before `tomcat-10`.
        offers.sort_by(|a, b| (a.instance.len(), &a.instance).cmp(&(b.instance.len(), &b.instance)));
        offers
    }

    /// Those that import from a unit.
    #[must_use]
    pub fn importers(&self, namespace: &str, unit: &Unit) -> Vec<ObjectRef<Instance>> {
        self.lock().importers_of(namespace, unit)
    }

    /// Those that run and would have to stop if this Instance gave nothing any more.
    #[must_use]
    pub fn dependants(&self, namespace: &str, instance: &str) -> Vec<String> {
        let state = self.lock();
        let Some((unit, _)) = state.offers.get(&(namespace.to_owned(), instance.to_owned())) else {
            return vec![];
        };
        let mut others = state.of_unit(namespace, unit).filter(|(name, _)| *name != instance);
        if others.any(|(_, offer)| !offer.exports.is_empty()) {
            return vec![];
        }
        let importers = state.importers.get(&(namespace.to_owned(), unit.clone()));
        let depends = |name: &&String| {
            let place = (namespace.to_owned(), (*name).clone());
            let must = state.wants.get(&place).and_then(|wants| wants.get(unit)).copied().unwrap_or_default();
            must && **name != instance && state.offers.get(&place).is_some_and(|(_, offer)| offer.running)
        };
        importers.into_iter().flatten().filter(depends).cloned().collect()
    }

    /// The units that a unit must have and that offer nothing yet.
    #[must_use]
    pub fn lacks(&self, namespace: &str, unit: &Unit) -> Vec<Unit> {
        let state = self.lock();
        let members = state.of_unit(namespace, unit).filter(|(_, offer)| offer.exports.is_empty());
        let required = members
            .filter_map(|(name, _)| state.wants.get(&(namespace.to_owned(), name.clone())))
            .flat_map(|wants| wants.iter().filter(|(_, must)| **must).map(|(unit, _)| unit.clone()))
            .collect::<BTreeSet<_>>();
        let silent = |unit: &Unit| state.of_unit(namespace, unit).all(|(_, offer)| offer.exports.is_empty());
        required.into_iter().filter(silent).collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn of_unit<'a>(&'a self, namespace: &str, unit: &Unit) -> impl Iterator<Item = (&'a String, &'a Offer)> {
        let names = self.units.get(&(namespace.to_owned(), unit.clone()));
        let namespace = namespace.to_owned();
        names.into_iter().flatten().filter_map(move |name| {
            let (_, offer) = self.offers.get(&(namespace.clone(), name.clone()))?;
            Some((name, offer))
        })
    }

    fn importers_of(&self, namespace: &str, unit: &Unit) -> Vec<ObjectRef<Instance>> {
        let names = self.importers.get(&(namespace.to_owned(), unit.clone()));
        names.into_iter().flatten().map(|name| ObjectRef::new(name).within(namespace)).collect()
    }

    fn gone(&mut self, place: &Place) -> Vec<ObjectRef<Instance>> {
        let woken = self.put(place, None);
        self.want(place, BTreeMap::new());
        woken
    }

    fn put(&mut self, place: &Place, now: Option<&(Unit, Offer)>) -> Vec<ObjectRef<Instance>> {
        let before = self.offers.remove(place);
        let (namespace, name) = place.clone();
        if let Some((unit, _)) = &before {
            let key = (namespace.clone(), unit.clone());
            if let Some(names) = self.units.get_mut(&key) {
                names.remove(&name);
                if names.is_empty() {
                    self.units.remove(&key);
                }
            }
        }
        if let Some((unit, offer)) = now {
            self.units.entry((namespace.clone(), unit.clone())).or_default().insert(name);
            self.offers.insert(place.clone(), (unit.clone(), offer.clone()));
        }
        let mut woken = vec![];
        let before = before.as_ref();
        if before != now {
            let units: BTreeSet<_> = before.into_iter().chain(now).map(|(unit, _)| unit).collect();
            woken.extend(units.into_iter().flat_map(|unit| self.importers_of(&namespace, unit)));
        }
        let runs = |it: Option<&(Unit, Offer)>| it.is_some_and(|(_, offer)| offer.running);
        if runs(before) && !runs(now) {
            // Whoever waits until nobody uses it any more.
            let wants = self.wants.get(place).into_iter().flatten();
            let used = wants.flat_map(|(unit, _)| self.of_unit(&namespace, unit));
            woken.extend(used.map(|(name, _)| ObjectRef::new(name).within(&namespace)));
        }
        woken
    }

    fn want(&mut self, place: &Place, wants: BTreeMap<Unit, bool>) {
        let (namespace, name) = place.clone();
        if self.wants.get(place).is_some_and(|before| *before == wants) {
            return;
        }
        for unit in self.wants.remove(place).into_iter().flatten().map(|(unit, _)| unit) {
            let key = (namespace.clone(), unit);
            if let Some(names) = self.importers.get_mut(&key) {
                names.remove(&name);
                if names.is_empty() {
                    self.importers.remove(&key);
                }
            }
        }
        for unit in wants.keys() {
            self.importers.entry((namespace.clone(), unit.clone())).or_default().insert(name.clone());
        }
        if !wants.is_empty() {
            self.wants.insert(place.clone(), wants);
        }
    }
}

fn place(instance: &Instance) -> Place {
    (instance.namespace().unwrap_or_default(), instance.name_any())
}

/// What an Instance is a part of for those that import.
fn unit(instance: &Instance) -> Unit {
    match member_of(instance) {
        Some((cluster, _)) => Unit::Cluster(cluster),
        None => Unit::Instance(instance.name_any()),
    }
}

fn offer(instance: &Instance) -> Offer {
    let status = instance.status.as_ref();
    let exports = status.map(|status| status.exports.clone()).unwrap_or_default();
    let started = status.is_some_and(|status| is_true(&status.conditions, ConditionType::Started));
    Offer {
        instance: instance.name_any(),
        cartridge: instance.spec.cartridge.name.clone(),
        running: started || !exports.is_empty(),
        exports,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn instance(name: &str, cluster: Option<&str>, exports: bool) -> Instance {
        let owner = cluster.map(|cluster| {
            json!([{"apiVersion": "millrace.dev/v1alpha1", "kind": "Cluster", "name": cluster, "uid": "u", "controller": true}])
        });
        let exports = if exports { json!([{"name": "ip", "value": "10.1.0.7"}]) } else { json!([]) };
        serde_json::from_value(json!({
            "apiVersion": "millrace.dev/v1alpha1", "kind": "Instance",
            "metadata": {"namespace": "shop", "name": name, "ownerReferences": owner},
            "spec": {"cartridge": {"name": "db"}, "cluster": cluster},
            "status": {"exports": exports},
        }))
        .unwrap()
    }

    fn names(woken: Vec<ObjectRef<Instance>>) -> Vec<String> {
        let all: BTreeSet<_> = woken.into_iter().map(|it| it.name).collect();
        all.into_iter().collect()
    }

    fn db() -> Unit {
        Unit::Cluster("db".into())
    }

    fn with_importer() -> Exchange {
        let exchange = Exchange::default();
        exchange.note(&Event::Apply(instance("db-0", Some("db"), false)));
        exchange.note(&Event::Apply(instance("app-0", Some("app"), false)));
        exchange.wants("shop", "app-0", [(db(), true)].into());
        exchange
    }

    #[test]
    fn importers_are_woken_by_a_changed_offer_and_by_nothing_else() {
        let exchange = with_importer();
        assert_eq!(names(exchange.note(&Event::Apply(instance("db-0", Some("db"), false)))), [""; 0]);
        assert_eq!(names(exchange.note(&Event::Apply(instance("db-0", Some("db"), true)))), ["app-0"]);
        assert_eq!(names(exchange.note(&Event::Apply(instance("db-0", Some("db"), true)))), [""; 0]);
        assert_eq!(names(exchange.note(&Event::Delete(instance("db-0", Some("db"), true)))), ["app-0"]);
        assert_eq!(exchange.offers("shop", &db()), []);
    }

    #[test]
    fn who_waits_to_be_used_no_more_is_woken_when_the_importer_stops() {
        let exchange = with_importer();
        exchange.note(&Event::Apply(instance("db-0", Some("db"), true)));
        assert_eq!(exchange.dependants("shop", "db-0"), [""; 0]);
        exchange.note(&Event::Apply(instance("app-0", Some("app"), true)));
        assert_eq!(exchange.dependants("shop", "db-0"), ["app-0"]);
        assert_eq!(names(exchange.note(&Event::Apply(instance("app-0", Some("app"), false)))), ["db-0"]);
        assert_eq!(exchange.dependants("shop", "db-0"), [""; 0]);
    }

    #[test]
    fn nobody_depends_on_one_of_two() {
        let exchange = with_importer();
        exchange.note(&Event::Apply(instance("app-0", Some("app"), true)));
        exchange.note(&Event::Apply(instance("db-0", Some("db"), true)));
        exchange.note(&Event::Apply(instance("db-1", Some("db"), true)));
        assert_eq!(exchange.dependants("shop", "db-0"), [""; 0]);
    }

    #[test]
    fn offers_come_in_the_order_of_ordinals_and_lacks_are_what_is_required() {
        let exchange = with_importer();
        for name in ["db-10", "db-2"] {
            exchange.note(&Event::Apply(instance(name, Some("db"), false)));
        }
        let offers: Vec<_> = exchange.offers("shop", &db()).into_iter().map(|offer| offer.instance).collect();
        assert_eq!(offers, ["db-0", "db-2", "db-10"]);
        assert_eq!(exchange.lacks("shop", &Unit::Cluster("app".into())), [db()]);
        exchange.note(&Event::Apply(instance("db-2", Some("db"), true)));
        assert_eq!(exchange.lacks("shop", &Unit::Cluster("app".into())), []);
    }

    #[test]
    fn an_instance_of_no_cluster_is_a_unit_of_its_own() {
        let exchange = Exchange::default();
        exchange.note(&Event::Apply(instance("db", None, true)));
        assert_eq!(exchange.offers("shop", &Unit::Instance("db".into())).len(), 1);
        assert_eq!(exchange.offers("shop", &db()), []);
    }
}
