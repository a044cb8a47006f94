//! Remembers the versions of our own writes, so that nobody decides by a cache that does not have them yet.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

/// How long a cache may be behind: after that something else is wrong, such as that the object was removed by hand.
const PATIENCE: Duration = Duration::from_secs(10);

type Key = (String, String, String);

/// The last write of each object, by kind, namespace and name.
#[derive(Debug, Default)]
pub struct Consistency(Mutex<HashMap<Key, Write>>);

#[derive(Clone, Copy, Debug)]
struct Write {
    version: u64,
    when: Instant,
    /// The object was told to go: that a cache has none of it is what comes next.
    going: bool,
}

impl Consistency {
    /// Takes note of what the server answered to a write.
    pub fn wrote(&self, kind: &str, meta: &ObjectMeta, now: Instant) {
        let (Some(key), Some(version)) = (key(kind, meta), version(meta)) else { return };
        let mut writes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let going = meta.deletion_timestamp.is_some();
        writes.insert(key, Write { version, when: now, going });
        // What is older than anybody's patience says nothing any more.
        if writes.len() > 10_000 {
            writes.retain(|_, write| now.duration_since(write.when) < PATIENCE);
        }
    }

    /// Takes note that an object was removed: that a cache has none says nothing then.
    pub fn removed(&self, kind: &str, meta: &ObjectMeta) {
        let Some(key) = key(kind, meta) else { return };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&key);
    }

    /// Whether a cache does not have our last write of an object yet. `cached` is what it has of it.
    pub fn is_behind(
        &self,
        kind: &str,
        namespace: &str,
        name: &str,
        cached: Option<&ObjectMeta>,
        now: Instant,
    ) -> bool {
        let key = (kind.to_owned(), namespace.to_owned(), name.to_owned());
        let mut writes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(write) = writes.get(&key) else { return false };
        let there = match cached {
            Some(cached) => version(cached).is_some_and(|version| version >= write.version),
            None => write.going,
        };
        if there || now.duration_since(write.when) >= PATIENCE {
            writes.remove(&key);
            return false;
        }
        true
    }
}

fn key(kind: &str, meta: &ObjectMeta) -> Option<Key> {
    Some((kind.to_owned(), meta.namespace.clone()?, meta.name.clone()?))
}

/// Versions of one kind can be compared (KEP-5504).
fn version(meta: &ObjectMeta) -> Option<u64> {
    meta.resource_version.as_deref()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meta(version: &str) -> ObjectMeta {
        ObjectMeta {
            namespace: Some("shop".into()),
            name: Some("orders".into()),
            resource_version: Some(version.into()),
            ..ObjectMeta::default()
        }
    }

    #[test]
    fn a_cache_is_behind_until_it_has_our_last_write() {
        let (writes, now) = (Consistency::default(), Instant::now());
        let behind =
            |cached: Option<&ObjectMeta>, now| writes.is_behind("Flow", "shop", "orders", cached, now);
        assert!(!behind(None, now));
        writes.wrote("Flow", &meta("7"), now);
        assert!(behind(None, now));
        assert!(behind(Some(&meta("6")), now));
        assert!(!writes.is_behind("Secret", "shop", "orders", None, now));
        assert!(!behind(Some(&meta("7")), now));
        writes.wrote("Flow", &meta("9"), now);
        assert!(behind(Some(&meta("8")), now + PATIENCE / 2));
        assert!(!behind(Some(&meta("8")), now + PATIENCE));
        writes.wrote("Flow", &meta("11"), now);
        writes.removed("Flow", &meta("11"));
        assert!(!behind(None, now));
    }
}
