//! Caches: one watch a kind, stripped of what nobody reads, and deaf to objects that cannot be understood.

use std::fmt::Debug;
use std::hash::Hash;
use std::time::Duration;

use futures::StreamExt as _;
use kube::api::Api;
use kube::core::{DeserializeGuard, PartialObjectMeta};
use kube::runtime::reflector::{self, ObjectRef, Store};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Resource, ResourceExt as _};
use serde::de::DeserializeOwned;
use tokio::task::JoinHandle;

/// How long a watch lasts before the server ends it and it is begun anew, in seconds.
pub const WATCH_SECONDS: u32 = 60;
/// How long a connection on which something is awaited may be silent.
pub const SILENCE: Duration = Duration::from_secs(WATCH_SECONDS as u64 + 15);

/// A kind that can be cached.
pub trait Cached:
    Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static
{
}

impl<K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static> Cached for K {}

/// Watches a kind into a store, for as long as the task runs. `changed` is told of each change after the store has it;
/// after a new list, of each object in it.
///
/// An object that cannot be understood is left out and logged: it stops nothing else.
pub fn cache<K: Cached>(
    api: Api<DeserializeGuard<K>>,
    config: watcher::Config,
    mut changed: impl FnMut(&watcher::Event<K>) + Send + 'static,
) -> (Store<K>, JoinHandle<()>)
where
    K::DynamicType: Eq + Hash + Clone,
{
    let (store, mut writer) = reflector::store::<K>();
    let task = tokio::spawn(async move {
        let mut events = watcher(api, config.timeout(WATCH_SECONDS)).default_backoff().boxed();
        while let Some(event) = events.next().await {
            match event {
                Ok(event) => {
                    let Some(event) = understood(event) else { continue };
                    writer.apply_watcher_event(&event);
                    changed(&event);
                }
                Err(error) => tracing::warn!(kind = %K::kind(&()), %error, "A watch was interrupted"),
            }
        }
    });
    (store, task)
}

/// The same for the metadata of a kind, which is all that is asked of the server.
pub fn cache_metadata<K: Cached>(
    api: Api<PartialObjectMeta<K>>,
    config: watcher::Config,
    mut changed: impl FnMut(&watcher::Event<PartialObjectMeta<K>>) + Send + 'static,
) -> (Store<PartialObjectMeta<K>>, JoinHandle<()>) {
    let (store, mut writer) = reflector::store::<PartialObjectMeta<K>>();
    let task = tokio::spawn(async move {
        let events = watcher(api, config.timeout(WATCH_SECONDS)).default_backoff();
        let mut events = events.modify(strip).boxed();
        while let Some(event) = events.next().await {
            match event {
                Ok(event) => {
                    writer.apply_watcher_event(&event);
                    changed(&event);
                }
                Err(error) => tracing::warn!(kind = %K::kind(&()), %error, "A watch was interrupted"),
            }
        }
    });
    (store, task)
}

/// An event with the object itself; none where it cannot be understood.
fn understood<K: Cached>(event: watcher::Event<DeserializeGuard<K>>) -> Option<watcher::Event<K>> {
    use watcher::Event::{Apply, Delete, Init, InitApply, InitDone};
    let object = |guarded: DeserializeGuard<K>| match guarded.0 {
        Ok(mut object) => {
            strip(&mut object);
            Some(object)
        }
        Err(invalid) => {
            let name = invalid.metadata.name.unwrap_or_default();
            let namespace = invalid.metadata.namespace.unwrap_or_default();
            let error = invalid.error;
            tracing::error!(kind = %K::kind(&()), namespace, name, %error, "An object cannot be understood and is left out");
            None
        }
    };
    Some(match event {
        Init => Init,
        InitDone => InitDone,
        InitApply(guarded) => InitApply(object(guarded)?),
        Apply(guarded) => Apply(object(guarded)?),
        Delete(guarded) => Delete(object(guarded)?),
    })
}

/// Takes away what nobody reads and what may be larger than the rest.
fn strip<K: Resource>(object: &mut K) {
    object.managed_fields_mut().clear();
    object.meta_mut().managed_fields = None;
    object.annotations_mut().remove("kubectl.kubernetes.io/last-applied-configuration");
    if object.annotations().is_empty() {
        object.meta_mut().annotations = None;
    }
}

/// The object that an event is about, where it is about one.
pub fn subject<K: Cached>(event: &watcher::Event<K>) -> Option<ObjectRef<K>> {
    match event {
        watcher::Event::Apply(object)
        | watcher::Event::InitApply(object)
        | watcher::Event::Delete(object) => Some(ObjectRef::from_obj(object)),
        watcher::Event::Init | watcher::Event::InitDone => None,
    }
}
