//! Who is listed in the load balancer of a Cluster, and where: pure, total.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointPort, EndpointSlice};
use kube::ResourceExt as _;

use crate::api::cartridge::{Port, Protocol};
use crate::api::cluster::LoadBalancer;
use crate::api::condition::{ConditionType, is_true};
use crate::api::instance::{Desired, Instance};

use super::build::{self, Identity, Listing};

/// The most endpoints of one slice: a change of one member is sent to every node with all others of its slice.
pub const MOST: usize = 100;

/// What was seen.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// The members of the Cluster.
    pub members: Vec<Member>,
    /// The ports of the present revision; none where that is not known.
    pub ports: Option<Vec<Port>>,
    /// The Service.
    pub service: Option<Arc<Service>>,
    /// The slices of the Cluster.
    pub slices: Vec<Arc<EndpointSlice>>,
    /// Whether the Cluster is being deleted.
    pub deleting: bool,
    /// How the members are to be reached.
    pub balancer: LoadBalancer,
}

/// A member.
#[derive(Clone, Debug)]
pub struct Member {
    /// The Instance.
    pub instance: Arc<Instance>,
    /// Its pod.
    pub pod: Option<Arc<Pod>>,
    /// The ports of the revision that the pod runs; none where that is not known.
    pub ports: Option<Vec<Port>>,
}

/// What there should be.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// The Service; none where nothing is to be done about it.
    pub service: Option<Service>,
    /// The slices.
    pub slices: Vec<EndpointSlice>,
    /// Slices that are to go.
    pub gone: Vec<Arc<EndpointSlice>>,
}

/// A group of members that one slice can hold: of one address family, with the same ports.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Group {
    family: &'static str,
    key: String,
}

/// Decides.
#[must_use]
pub fn plan(identity: &Identity, seen: &Snapshot) -> Plan {
    let ports = seen.ports.as_deref().unwrap_or_default();
    let service =
        (!ports.is_empty() && !seen.deleting).then(|| build::service(identity, &seen.balancer, ports));
    let (mut groups, mut lists) = (BTreeMap::<Group, Vec<Endpoint>>::new(), BTreeMap::new());
    for member in &seen.members {
        let Some((group, ports, endpoint)) = listed(member, seen) else { continue };
        lists.insert(group.clone(), ports);
        groups.entry(group).or_default().push(endpoint);
    }
    // What was there stays, empty, so that it is known that nobody answers.
    let kept = Group { family: "IPv4", key: build::port_key(ports) };
    let name = identity.slice(&part(&kept, 0));
    if !ports.is_empty() && seen.slices.iter().any(|slice| slice.name_any() == name) {
        lists.entry(kept.clone()).or_insert_with(|| ports.to_vec());
        groups.entry(kept).or_default();
    }
    let mut slices = vec![];
    for (group, endpoints) in groups {
        let ports = lists.get(&group).map(Vec::as_slice).unwrap_or_default();
        slices.extend(placed(identity, seen, &group, ports, endpoints));
    }
    if seen.deleting {
        // The garbage collector takes them: what is made now it would have to take again.
        slices.retain(|slice| seen.slices.iter().any(|live| live.name_any() == slice.name_any()));
    }
    let wanted: BTreeSet<_> = slices.iter().map(EndpointSlice::name_any).collect();
    let ours =
        |slice: &&Arc<EndpointSlice>| slice.owner_references().iter().any(|owner| owner.uid == identity.uid);
    let gone = seen.slices.iter().filter(ours).filter(|slice| !wanted.contains(&slice.name_any()));
    let gone = gone.cloned().collect();
    Plan { service, slices, gone }
}

/// How a member is listed; none where it is not.
fn listed(member: &Member, seen: &Snapshot) -> Option<(Group, Vec<Port>, Endpoint)> {
    let pod = member.pod.as_ref()?;
    let ip = pod.status.as_ref()?.pod_ip.as_deref().filter(|ip| !ip.is_empty())?;
    let ended = matches!(pod.status.as_ref()?.phase.as_deref(), Some("Failed" | "Succeeded"));
    let status = member.instance.status.as_ref()?;
    // What is said of the pod before, which had the same name and another address, is not said of this one.
    if ended || !status.addresses.iter().any(|address| address == ip) {
        return None;
    }
    let uid = pod.metadata.uid.as_deref().unwrap_or_default();
    // A revision that cannot be read now takes nobody out.
    let ports = member.ports.clone().or_else(|| listed_ports(seen, uid)).filter(|ports| !ports.is_empty())?;
    let terminating = pod.metadata.deletion_timestamp.is_some();
    let ready = is_true(&status.conditions, ConditionType::Serving)
        && member.instance.spec.desired.unwrap_or_default() == Desired::Started
        && member.instance.metadata.deletion_timestamp.is_none()
        && !terminating;
    // One that was never listed need not leave.
    let serving = ready || is_true(&status.conditions, ConditionType::Started) && is_listed(seen, uid);
    if !serving {
        return None;
    }
    let family = if ip.contains(':') { "IPv6" } else { "IPv4" };
    let group = Group { family, key: build::port_key(&ports) };
    Some((group, ports, build::endpoint(pod, ip, Listing { ready, serving, terminating })))
}

fn is_listed(seen: &Snapshot, uid: &str) -> bool {
    seen.slices.iter().flat_map(|slice| &slice.endpoints).any(|endpoint| target(endpoint) == Some(uid))
}

/// The ports with which a pod is listed now.
fn listed_ports(seen: &Snapshot, uid: &str) -> Option<Vec<Port>> {
    let lists =
        |slice: &&Arc<EndpointSlice>| slice.endpoints.iter().any(|endpoint| target(endpoint) == Some(uid));
    let slice = seen.slices.iter().find(lists)?;
    let port = |port: &EndpointPort| {
        Some(Port {
            name: port.name.clone()?,
            port: u16::try_from(port.port?).ok()?,
            protocol: match port.protocol.as_deref() {
                Some("UDP") => Some(Protocol::Udp),
                Some("SCTP") => Some(Protocol::Sctp),
                _ => None,
            },
        })
    };
    slice.ports.iter().flatten().map(port).collect()
}

fn target(endpoint: &Endpoint) -> Option<&str> {
    endpoint.target_ref.as_ref()?.uid.as_deref()
}

fn part(group: &Group, number: usize) -> String {
    format!("{}-{}-{number}", group.family.to_ascii_lowercase(), group.key)
}

/// The slices of a group: whoever is in one stays there, and who is new goes to the first that has room.
fn placed(
    identity: &Identity,
    seen: &Snapshot,
    group: &Group,
    ports: &[Port],
    endpoints: Vec<Endpoint>,
) -> Vec<EndpointSlice> {
    let known: BTreeMap<String, &Arc<EndpointSlice>> =
        seen.slices.iter().map(|slice| (slice.name_any(), slice)).collect();
    let numbers = seen.slices.len() + endpoints.len() / MOST + 1;
    let names: Vec<_> = (0..numbers).map(|number| identity.slice(&part(group, number))).collect();
    let mut filled: Vec<Vec<Endpoint>> = vec![vec![]; numbers];
    let at = |uid: &str| {
        names.iter().position(|name| {
            known
                .get(name)
                .is_some_and(|slice| slice.endpoints.iter().any(|endpoint| target(endpoint) == Some(uid)))
        })
    };
    let mut new = vec![];
    for endpoint in endpoints {
        match target(&endpoint).and_then(at).filter(|at| filled[*at].len() < MOST) {
            Some(at) => filled[at].push(endpoint),
            None => new.push(endpoint),
        }
    }
    for endpoint in new {
        if let Some(room) = filled.iter_mut().find(|slice| slice.len() < MOST) {
            room.push(endpoint);
        }
    }
    let first_stays = known.contains_key(&names[0]);
    let mut slices = vec![];
    for (number, mut endpoints) in filled.into_iter().enumerate() {
        if endpoints.is_empty() && !(number == 0 && first_stays) {
            continue;
        }
        endpoints.sort_by_key(|endpoint| endpoint.target_ref.as_ref().and_then(|target| target.name.clone()));
        slices.push(build::slice(identity, names[number].clone(), group.family, ports, endpoints));
    }
    slices
}

#[cfg(test)]
mod tests;
