//! Whom a change gives reason to look.

use std::collections::HashMap;
use std::sync::Mutex;

use k8s_openapi::api::apps::v1::ControllerRevision;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::watcher::Event;
use kube::{Resource, ResourceExt as _};

use crate::api::cartridge::Cartridge;
use crate::api::cluster::Cluster;
use crate::api::condition::{ConditionType, find, is_true};
use crate::api::instance::{Desired, Instance, member_of};
use crate::api::label;
use crate::controllers::instance::exchange::Exchange;
use crate::controllers::instance::imports::Unit;
use crate::controllers::wake::{Parted, Wake};
use crate::runtime::Index;
use crate::runtime::watch::Cached;

use super::{Place, lock};

fn reference<K: Resource<DynamicType = ()>>(name: &str, of: &impl kube::ResourceExt) -> ObjectRef<K> {
    ObjectRef::new(name).within(&of.namespace().unwrap_or_default())
}

pub(super) fn instance_changed(event: &Event<Instance>, wake: &Wake) {
    let (Event::Apply(instance) | Event::InitApply(instance) | Event::Delete(instance)) = event else {
        return;
    };
    wake.instance(ObjectRef::from_obj(instance));
    if let Some((cluster, _)) = member_of(instance) {
        wake.cluster(reference(&cluster, instance));
        wake.balancer(reference(&cluster, instance));
    }
    if matches!(event, Event::Delete(_)) {
        wake.parted(Parted::Instance(Box::new(instance.clone())));
    }
}

pub(super) fn cluster_changed(
    event: &Event<Cluster>,
    known: &Generations,
    members: &Index<Instance>,
    exchange: &Exchange,
    wake: &Wake,
) {
    let (Event::Apply(cluster) | Event::InitApply(cluster) | Event::Delete(cluster)) = event else { return };
    let gone = matches!(event, Event::Delete(_));
    wake.cluster(ObjectRef::from_obj(cluster));
    wake.balancer(ObjectRef::from_obj(cluster));
    let (namespace, name) = (cluster.namespace().unwrap_or_default(), cluster.name_any());
    // A status that moves is no reason for a thousand members to look.
    if known.has_moved(cluster, String::new(), gone) {
        for member in members.names(&namespace, &name) {
            wake.instance(reference(&member, cluster));
        }
        for unit in [Unit::Cluster(name.clone()), Unit::Instance(name.clone())] {
            for importer in exchange.importers(&namespace, &unit) {
                wake.instance(importer);
            }
        }
    }
    if gone {
        wake.parted(Parted::Cluster(Box::new(cluster.clone())));
    }
}

pub(super) fn cartridge_changed(
    event: &Event<Cartridge>,
    known: &Generations,
    (clusters, instances): (&Store<Cluster>, &Store<Instance>),
    wake: &Wake,
) {
    let (Event::Apply(cartridge) | Event::InitApply(cartridge) | Event::Delete(cartridge)) = event else {
        return;
    };
    let gone = matches!(event, Event::Delete(_));
    wake.cartridge(ObjectRef::from_obj(cartridge));
    if known.has_moved(cartridge, acceptance(cartridge), gone) {
        let (namespace, name) = (cartridge.namespace(), cartridge.name_any());
        let is = |of: &crate::api::cluster::CartridgeRef, user: Option<String>| {
            of.name == name && of.namespace.clone().or(user) == namespace
        };
        for cluster in clusters.state().iter().filter(|it| is(&it.spec.cartridge, it.namespace())) {
            wake.cluster(ObjectRef::from_obj(&**cluster));
        }
        for instance in instances.state().iter().filter(|it| is(&it.spec.cartridge, it.namespace())) {
            wake.instance(ObjectRef::from_obj(&**instance));
        }
    }
    if gone {
        wake.parted(Parted::Cartridge(Box::new(cartridge.clone())));
    }
}

/// What was said of a Cartridge, and of which generation: a new spec may be used only when it was looked at itself.
fn acceptance(cartridge: &Cartridge) -> String {
    let conditions = cartridge.status.as_ref().map(|status| &status.conditions[..]).unwrap_or_default();
    let accepted = find(conditions, ConditionType::Accepted);
    format!("{:?}", accepted.map(|accepted| (&accepted.status, accepted.observed_generation)))
}

pub(super) fn revision_changed(event: &Event<ControllerRevision>, members: &Index<Instance>, wake: &Wake) {
    let (Event::Apply(stored) | Event::InitApply(stored) | Event::Delete(stored)) = event else { return };
    if let Some(cluster) = stored.labels().get(label::CLUSTER) {
        wake.cluster(reference(cluster, stored));
        wake.balancer(reference(cluster, stored));
        for member in members.names(&stored.namespace().unwrap_or_default(), cluster) {
            wake.instance(reference(&member, stored));
        }
    }
    if let Some(instance) = stored.labels().get(label::INSTANCE) {
        wake.instance(reference(instance, stored));
    }
}

pub(super) fn of_balancer<K: Cached>(event: &Event<K>, wake: &Wake) {
    let (Event::Apply(object) | Event::InitApply(object) | Event::Delete(object)) = event else { return };
    if let Some(cluster) = object.labels().get(label::CLUSTER) {
        wake.balancer(reference(cluster, object));
        wake.cluster(reference(cluster, object));
    }
}

/// Members that wait until the load balancer has let them go.
pub(super) fn slice_changed(
    event: &Event<EndpointSlice>,
    members: &Index<Instance>,
    known: &Store<Instance>,
    wake: &Wake,
) {
    let (Event::Apply(slice) | Event::InitApply(slice) | Event::Delete(slice)) = event else { return };
    let Some(cluster) = slice.labels().get(label::CLUSTER) else { return };
    let namespace = slice.namespace().unwrap_or_default();
    for member in members.of(known, &namespace, cluster) {
        let conditions = member.status.as_ref().map(|status| &status.conditions[..]).unwrap_or_default();
        let stays = member.metadata.deletion_timestamp.is_none()
            && member.spec.desired.unwrap_or_default() == Desired::Started
            && is_true(conditions, ConditionType::Serving);
        if !stays {
            wake.instance(ObjectRef::from_obj(&*member));
        }
    }
}

/// The last generation of each object, and something else of it that others depend on.
#[derive(Debug, Default)]
pub(super) struct Generations(Mutex<HashMap<Place, Generation>>);

/// A uid, a generation, and something else that others depend on.
type Generation = (Option<String>, Option<i64>, String);

impl Generations {
    fn has_moved<K: Resource>(&self, object: &K, and: String, gone: bool) -> bool {
        let key = (object.namespace().unwrap_or_default(), object.name_any());
        let mut all = lock(&self.0);
        if gone {
            all.remove(&key);
            return true;
        }
        let now = (object.uid(), object.meta().generation, and);
        all.insert(key, now.clone()) != Some(now)
    }
}

#[cfg(test)]
mod tests {
    use kube::runtime::reflector::store;
    use serde_json::{Value, json};

    use super::*;

    fn object<K: serde::de::DeserializeOwned>(kind: &str, more: &Value) -> K {
        let mut object = json!({
            "apiVersion": "millrace.dev/v1alpha1", "kind": kind,
            "metadata": {"namespace": "shop", "name": "db", "uid": "1", "generation": more["generation"]},
        });
        object.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        serde_json::from_value(object).unwrap()
    }

    /// A Cartridge of a generation, that was looked at in another.
    fn cartridge(generation: i64, looked_at: i64) -> Event<Cartridge> {
        let mut cartridge: Cartridge = object("Cartridge", &json!({"spec": {"image": "db:1"}}));
        cartridge.metadata.generation = Some(generation);
        cartridge.status = serde_json::from_value(json!({"conditions": [{
            "type": "Accepted", "status": "True", "reason": "Accepted", "message": "",
            "observedGeneration": looked_at, "lastTransitionTime": "2026-01-01T00:00:00Z",
        }]}))
        .unwrap();
        Event::Apply(cartridge)
    }

    #[test]
    fn a_cluster_looks_again_when_the_new_spec_of_its_cartridge_was_accepted() {
        let (wake, mut calls, _) = Wake::new();
        let ((clusters, mut writer), (instances, _)) = (store::<Cluster>(), store::<Instance>());
        writer.apply_watcher_event(&Event::Apply(object(
            "Cluster",
            &json!({"spec": {"cartridge": {"name": "db"}, "replicas": 1}}),
        )));
        let known = Generations::default();
        for (generation, looked_at, woken) in
            [(1, 1, true), (1, 1, false), (2, 1, true), (2, 2, true), (2, 2, false)]
        {
            cartridge_changed(&cartridge(generation, looked_at), &known, (&clusters, &instances), &wake);
            let heard = calls.members.clusters.try_recv().is_ok();
            assert_eq!(heard, woken, "generation {generation}, looked at in {looked_at}");
        }
    }
}
