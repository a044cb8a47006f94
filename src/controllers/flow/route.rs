//! Since which version a Flow has the route state that it has: what gateways must have applied before its trigger counts
//! as armed, or as given up.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use crate::api::flow::Flow;
use crate::api::flow::route::RouteState;

/// The route states of all Flows, by uid. It is not stored: after a restart the present version counts, which is later,
/// so that gateways have to confirm anew what they may have confirmed before.
#[derive(Debug, Default)]
pub struct RouteMemory(Mutex<HashMap<String, Known>>);

/// What is remembered of one Flow.
#[derive(Debug)]
struct Known {
    state: RouteState,
    since: u64,
    /// The entry node of the spec that was accepted last: gateways put messages into its queue.
    entry: Option<String>,
    entry_since: u64,
}

/// The first versions that were seen as the Flow is now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Since {
    /// With its route state.
    pub route: u64,
    /// With its entry node.
    pub entry: u64,
}

impl RouteMemory {
    /// The resourceVersions of the first versions that were seen with what this one has.
    pub fn since(&self, flow: &Flow) -> Since {
        let (state, version) = (RouteState::of(flow), version(flow));
        let entry = flow.status.as_ref().and_then(|status| status.entry.clone());
        let uid = flow.metadata.uid.clone().unwrap_or_default();
        let mut memory = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let new =
            || Known { state: state.clone(), since: version, entry: entry.clone(), entry_since: version };
        let known = memory.entry(uid).or_insert_with(new);
        if known.state != state {
            (known.state, known.since) = (state, version);
        }
        if known.entry != entry {
            (known.entry, known.entry_since) = (entry, version);
        }
        Since { route: known.since, entry: known.entry_since }
    }

    /// Forgets a Flow that is gone.
    pub fn forget(&self, uid: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(uid);
    }
}

/// The version of an object as a number: since Kubernetes 1.35 versions of one kind may be compared (KEP-5504), and they
/// were comparable in fact before.
fn version(flow: &Flow) -> u64 {
    flow.metadata.resource_version.as_deref().and_then(|version| version.parse().ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn flow(version: u64, suspend: bool, ready: bool) -> Flow {
        let conditions: &[_] = if ready { &["Accepted", "NodesReady"] } else { &[] };
        let conditions: Vec<_> = conditions
            .iter()
            .map(|of| {
                json!({
                    "type": of, "status": "True", "reason": "X", "message": "",
                    "lastTransitionTime": "2026-01-01T00:00:00Z",
                })
            })
            .collect();
        serde_json::from_value(json!({
            "apiVersion": "millrace.dev/v1alpha1", "kind": "Flow",
            "metadata": {"name": "a", "uid": "u", "resourceVersion": version.to_string()},
            "spec": {"suspend": suspend, "trigger": {"webhook": {"methods": ["GET"]}}, "graph": {"nodes": []}},
            "status": {"conditions": conditions},
        }))
        .unwrap()
    }

    #[test]
    fn a_version_counts_from_the_first_with_the_present_route_state_and_no_later_write_raises_it() {
        let memory = RouteMemory::default();
        assert_eq!(memory.since(&flow(5, false, false)).route, 5);
        assert_eq!(memory.since(&flow(6, false, false)).route, 5);
        assert_eq!(memory.since(&flow(7, false, true)).route, 7);
        assert_eq!(memory.since(&flow(9, false, true)).route, 7);
        assert_eq!(memory.since(&flow(12, true, true)).route, 12);
        memory.forget("u");
        assert_eq!(memory.since(&flow(20, true, true)).route, 20);
    }
}
