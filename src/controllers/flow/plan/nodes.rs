//! How each node of a Flow is.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::Deployment;

use crate::api::name::NodeId;
use crate::broker::work::FlowWork;
use crate::controllers::flow::build::{CREDENTIALS, REVISION, replicas};
use crate::controllers::flow::diagnosis::{self, Trouble};
use crate::controllers::flow::snapshot::{Runner, Snapshot};
use crate::controllers::flow::validate::{ImageNode, ValidFlow, ValidNode};

/// How a node is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// As many pods as wanted are ready, all of them as the spec says; or the runner has loaded it.
    Ready,
    /// On its way; with what keeps it, where that is known.
    Starting(String),
    /// It lacks something that the Flow does not make.
    Waiting(String),
}

/// The Secret that a node's credentials come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credentials {
    /// It needs none.
    None,
    /// There it is: a hash of its content.
    There(String),
    /// It is not there (any more): the hash of what the pods have, where there are any.
    Missing(Option<String>),
}

impl Credentials {
    /// What the pods' template says.
    pub fn hash(&self) -> Option<&str> {
        match self {
            Self::None => None,
            Self::There(hash) => Some(hash),
            Self::Missing(kept) => kept.as_deref(),
        }
    }
}

/// How the credentials of a node are.
pub fn credentials(image: &ImageNode, live: Option<&Deployment>, seen: &Snapshot) -> Credentials {
    let Some(credentials) = &image.node.credentials else { return Credentials::None };
    let found = seen.credentials.get(&credentials.secret_ref.name).cloned().flatten();
    found.map_or_else(|| Credentials::Missing(live.and_then(kept)), Credentials::There)
}

/// The hash in the template of a Deployment.
fn kept(live: &Deployment) -> Option<String> {
    let template = live.spec.as_ref()?.template.metadata.as_ref()?;
    template.annotations.as_ref()?.get(CREDENTIALS).cloned()
}

/// How all nodes are, given the Deployments and the work that there should be.
pub fn assess(
    valid: &ValidFlow,
    deployments: &BTreeMap<NodeId, Deployment>,
    work: Option<&FlowWork>,
    seen: &Snapshot,
) -> BTreeMap<NodeId, State> {
    let state = |(id, node): (&NodeId, &ValidNode)| {
        let state = match &node.image {
            Some(image) => of_image(id, node, image, deployments.get(id), seen),
            None => of_builtin(work, seen),
        };
        (id.clone(), state)
    };
    valid.nodes.iter().map(state).collect()
}

fn of_image(
    id: &NodeId,
    node: &ValidNode,
    image: &ImageNode,
    wanted: Option<&Deployment>,
    seen: &Snapshot,
) -> State {
    let live = seen.deployments.get(id).map(|live| &**live);
    if let Credentials::Missing(_) = credentials(image, live, seen) {
        let name = image.node.credentials.as_ref().map_or("", |from| &from.secret_ref.name);
        return State::Waiting(format!("the Secret '{name}' with its credentials is missing: create it"));
    }
    if let Some(why) = seen.refused.get(id) {
        return State::Starting(format!("its Deployment is refused: {why}"));
    }
    match (wanted, live) {
        (Some(wanted), Some(live)) if revision(live) == revision(wanted) => {
            of_deployment(id, node, live, seen)
        }
        _ => State::Starting("its pods are on their way".into()),
    }
}

fn revision(deployment: &Deployment) -> Option<&String> {
    deployment.metadata.annotations.as_ref()?.get(REVISION)
}

fn of_deployment(id: &NodeId, node: &ValidNode, live: &Deployment, seen: &Snapshot) -> State {
    if rolled_out(live, replicas(node)) {
        return State::Ready;
    }
    let pods = seen.pods.get(id).into_iter().flatten();
    // The pods that end are those of before.
    let current = pods.filter(|pod| pod.metadata.deletion_timestamp.is_none());
    let trouble =
        current.filter_map(|pod| diagnosis::of_pod(pod, seen.now)).min_by_key(|trouble| match trouble {
            Trouble::Missing(message) => (0, message.clone()),
            Trouble::Stuck(message) => (1, message.clone()),
        });
    match (trouble, diagnosis::of_deployment(live)) {
        (Some(Trouble::Missing(message)), _) => State::Waiting(message),
        (Some(Trouble::Stuck(message)), _) | (None, Some(message)) => State::Starting(message),
        (None, None) => State::Starting("its pods are on their way".into()),
    }
}

/// Whether a Deployment is as it is wanted, and no pod of an earlier template counts as its own any more.
pub fn is_replaced(live: &Deployment, wanted: Option<&Deployment>) -> bool {
    let status = live.status.as_ref();
    let count = |of: Option<i32>| of.unwrap_or_default();
    let seen = status.and_then(|status| status.observed_generation) >= live.metadata.generation;
    let old = status.is_some_and(|status| count(status.replicas) != count(status.updated_replicas));
    seen && !old && wanted.is_none_or(|wanted| revision(wanted) == revision(live))
}

/// Whether all pods of a Deployment are of its present template, and ready.
fn rolled_out(live: &Deployment, replicas: i32) -> bool {
    let Some(status) = &live.status else { return false };
    let seen = status.observed_generation.unwrap_or_default() >= live.metadata.generation.unwrap_or_default();
    let updated = status.updated_replicas.unwrap_or_default();
    let ready = status.ready_replicas.unwrap_or_default();
    let all = status.replicas.unwrap_or_default();
    seen && updated >= replicas && ready >= replicas && all == updated
}

fn of_builtin(work: Option<&FlowWork>, seen: &Snapshot) -> State {
    if let Runner::Starting(trouble) = &seen.runner {
        let trouble = trouble.as_deref().unwrap_or("its pod is on its way");
        return State::Starting(format!("the runner of the built-in nodes is not ready: {trouble}"));
    }
    let wanted = work.map(|work| (&work.uid, &work.revision));
    match &seen.loaded {
        Some(loaded) if wanted == Some((&loaded.uid, &loaded.revision)) => match loaded.problems.first() {
            Some(problem) => State::Starting(format!("the runner cannot load it: {problem}")),
            None => State::Ready,
        },
        _ => State::Starting("the runner is loading it".into()),
    }
}

/// What to say of all of them in one line: how many are ready, and what keeps the others. Nodes that the same thing keeps are
/// named together.
pub fn message(nodes: &BTreeMap<NodeId, State>) -> String {
    const TOLD: usize = 3;
    let (ready, all) = super::count(nodes);
    let mut troubles: Vec<(&str, Vec<&NodeId>)> = vec![];
    for (id, state) in nodes {
        let (State::Starting(what) | State::Waiting(what)) = state else { continue };
        match troubles.iter_mut().find(|(told, _)| told == what) {
            Some((_, ids)) => ids.push(id),
            None => troubles.push((what, vec![id])),
        }
    }
    let summary = match all {
        1 => if ready == 1 { "the node is ready" } else { "the node is not ready" }.to_owned(),
        _ if ready == all => format!("all {all} nodes are ready"),
        _ => format!("{ready} of {all} nodes are ready"),
    };
    let told = troubles.iter().take(TOLD).map(|(what, ids)| format!("{}: {what}", named(ids)));
    let untold: usize = troubles.iter().skip(TOLD).map(|(_, ids)| ids.len()).sum();
    let more = (untold > 0).then(|| format!("{untold} more"));
    [summary].into_iter().chain(told).chain(more).collect::<Vec<_>>().join("; ")
}

/// `node 'a'`, `nodes 'a', 'b'`, `nodes 'a', 'b', 'c' and 4 more`.
fn named(ids: &[&NodeId]) -> String {
    const NAMED: usize = 3;
    let names: Vec<_> = ids.iter().take(NAMED).map(|id| format!("'{id}'")).collect();
    let (plural, names) = (if ids.len() == 1 { "" } else { "s" }, names.join(", "));
    match ids.len().saturating_sub(NAMED) {
        0 => format!("node{plural} {names}"),
        more => format!("node{plural} {names} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_that_the_same_thing_keeps_are_named_together_and_the_line_stays_short() {
        let starting = |what: &str| State::Starting(what.into());
        let of = |states: Vec<(&str, State)>| {
            message(&states.into_iter().map(|(id, state)| (id.parse().unwrap(), state)).collect())
        };
        assert_eq!(of(vec![("a", State::Ready)]), "the node is ready");
        assert_eq!(
            of(vec![
                ("a", State::Ready),
                ("b", starting("x")),
                ("c", State::Waiting("y".into())),
                ("d", starting("x"))
            ]),
            "1 of 4 nodes are ready; nodes 'b', 'd': x; node 'c': y"
        );
        let many = (0..9).map(|n| ["a", "b", "c", "d", "e", "f", "g", "h", "i"][n]);
        let same: Vec<_> = many.clone().map(|id| (id, starting("x"))).collect();
        assert_eq!(of(same), "0 of 9 nodes are ready; nodes 'a', 'b', 'c' and 6 more: x");
        let others: Vec<_> = many.map(|id| (id, starting(id))).collect();
        assert_eq!(of(others), "0 of 9 nodes are ready; node 'a': a; node 'b': b; node 'c': c; 6 more");
    }
}
