//! The wire between the host and a node, and the addresses on it.
//!
//! Each node takes a slot. The slot gives the names of its link and control groups and all of its addresses, so that
//! nodes run side by side; whoever makes the link has the slot.

use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Command;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::error::{Error, Result};
use crate::tools::{output, run};

/// How many nodes can run side by side on a machine.
const SLOTS: u8 = 16;

/// What a node's mark begins with; its folder follows.
pub(crate) const MARK: &str = "rig ";

/// One of the places for a node on this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Slot(u8);

impl Slot {
    /// The host's end of the link.
    pub fn link(self) -> String {
        format!("millrace{}", self.0)
    }

    /// The group of all the node's control groups, in every hierarchy.
    pub fn cgroup(self) -> String {
        format!("millrace-rig-{}", self.0)
    }

    /// The host's address on the link.
    pub fn host(self) -> Ipv4Addr {
        Ipv4Addr::new(10, 87, self.0, 254)
    }

    /// The node's address on the link: API server, node ports, and the resolver of cluster names.
    pub fn node(self) -> Ipv4Addr {
        Ipv4Addr::new(10, 87, self.0, 1)
    }

    /// The addresses of the pods.
    pub fn pods(self) -> String {
        format!("10.88.{}.0/22", self.0 * 4)
    }

    /// The cluster addresses of the services.
    pub fn services(self) -> String {
        format!("10.96.{}.0/22", self.0 * 4)
    }

    /// The cluster address of the API server.
    pub fn first_service(self) -> Ipv4Addr {
        Ipv4Addr::new(10, 96, self.0 * 4, 1)
    }

    /// The cluster address of the resolver.
    pub fn dns_service(self) -> Ipv4Addr {
        Ipv4Addr::new(10, 96, self.0 * 4, 10)
    }

    fn wire(self) -> String {
        format!("10.87.{}.0/24", self.0)
    }
}

/// What a host's routing table says, as `ip -json route` prints it.
#[derive(Deserialize)]
struct Route {
    dst: String,
}

/// Makes the link to the network namespace of the process: in the slot that the state belongs to, otherwise in the first
/// that is free, beginning with one that depends on the mark. `mark` tells whose link it is.
///
/// The beginning differs from folder to folder, so that a node which is down seldom finds its slot taken by another.
pub(crate) fn connect(process: u32, kept: Option<Slot>, mark: &str) -> Result<Slot> {
    let first = Sha256::digest(mark)[0] % SLOTS;
    let slots = (0..SLOTS).map(|next| Slot((first + next) % SLOTS));
    let mut obstacles = Vec::new();
    for slot in kept.map_or_else(|| slots.collect(), |slot| vec![slot]) {
        if owner(slot).as_deref() == Some(mark) {
            disconnect(slot, mark)?;
        }
        if let Some(obstacle) = obstacle(slot)? {
            obstacles.push(obstacle);
            continue;
        }
        match make_link(slot, process, mark) {
            Ok(()) => return wire(slot, process).map(|()| slot),
            // Another node was faster.
            Err(_) if owner(slot).is_some_and(|owner| owner != mark) => obstacles.extend(obstacle(slot)?),
            Err(error) => return Err(error),
        }
    }
    obstacles.dedup();
    let way_out =
        if kept.is_some() { "; or start this one over with `rig down --forget` and `rig up`" } else { "" };
    Err(Error::Needs(format!("the node has no place on this machine: {}{way_out}", obstacles.join("; "))))
}

/// What stands in the way of a node in a slot.
fn obstacle(slot: Slot) -> Result<Option<String>> {
    if let Some(owner) = owner(slot) {
        let link = slot.link();
        return Ok(Some(match owner.strip_prefix(MARK) {
            Some(folder) => format!("the node in {folder} has it; end that with `rig --dir {folder} down`"),
            None => format!("something else has a link named {link}; remove it with `ip link delete {link}`"),
        }));
    }
    let routes = routes()?;
    let ranges = [slot.wire(), slot.pods(), slot.services()];
    let claim =
        ranges.iter().find_map(|range| Some((range, routes.iter().find(|route| claims(&route.dst, range))?)));
    Ok(claim
        .map(|(range, route)| format!("a route to {} uses its addresses {range}; see `ip route`", route.dst)))
}

/// Removes the link, where it is the one with this mark.
pub(crate) fn disconnect(slot: Slot, mark: &str) -> Result<()> {
    let is_ours = || owner(slot).as_deref() == Some(mark);
    if !is_ours() {
        return Ok(());
    }
    // The kernel removes it too, some time after the last process of the node has gone: either of us may be first.
    run(ip().args(["link", "delete", &slot.link()]))
        .or_else(|error| if is_ours() { Err(error) } else { Ok(()) })
}

fn make_link(slot: Slot, process: u32, mark: &str) -> Result<()> {
    let (link, process) = (slot.link(), process.to_string());
    run(ip().args(["link", "add", &link, "type", "veth", "peer", "name", "eth0", "netns", &process]))?;
    run(ip().args(["link", "set", &link, "alias", mark]))
}

fn wire(slot: Slot, process: u32) -> Result<()> {
    let (link, host, node) = (slot.link(), slot.host().to_string(), slot.node().to_string());
    run(ip().args(["address", "add", &format!("{host}/24"), "dev", &link]))?;
    run(ip().args(["link", "set", &link, "up"]))?;
    for inside in [
        &["link", "set", "lo", "up"][..],
        &["address", "add", &format!("{node}/24"), "dev", "eth0"],
        &["link", "set", "eth0", "up"],
        &["route", "add", "default", "via", &host],
    ] {
        let process = process.to_string();
        run(Command::new("nsenter").args(["--target", &process, "--net", "ip"]).args(inside))?;
    }
    run(ip().args(["route", "add", &slot.pods(), "via", &node]))?;
    run(ip().args(["route", "add", &slot.services(), "via", &node]))
}

/// Whose link it is that has a slot's name.
fn owner(slot: Slot) -> Option<String> {
    let path = Path::new("/sys/class/net").join(slot.link()).join("ifalias");
    std::fs::read_to_string(path).ok().map(|alias| alias.trim().to_owned())
}

fn routes() -> Result<Vec<Route>> {
    let json = output(ip().args(["-4", "-json", "route", "show", "table", "all"]))?;
    // No route at all is printed as nothing at all.
    Ok(serde_json::from_str(&json).unwrap_or_default())
}

fn ip() -> Command {
    Command::new("ip")
}

/// Whether a route claims addresses of a range. A wider one does not: the narrower goes before it.
fn claims(route: &str, of: &str) -> bool {
    match (range(route), range(of)) {
        (Some((a, a_length)), Some((b, b_length))) if a_length >= b_length => {
            let shared = u32::MAX.checked_shl(32 - b_length).unwrap_or(0);
            a & shared == b & shared
        }
        _ => false,
    }
}

fn range(text: &str) -> Option<(u32, u32)> {
    let (address, length) = text.split_once('/').unwrap_or((text, "32"));
    Some((address.parse::<Ipv4Addr>().ok()?.to_bits(), length.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_claims_a_range_that_holds_it_and_a_wider_one_does_not() {
        assert!(claims("10.88.3.7", "10.88.0.0/22"));
        assert!(claims("10.88.0.0/22", "10.88.0.0/22"));
        assert!(claims("10.88.2.0/24", "10.88.0.0/22"));
        assert!(!claims("10.0.0.0/8", "10.88.0.0/22"));
        assert!(!claims("10.88.4.0/22", "10.88.0.0/22"));
        assert!(!claims("default", "10.88.0.0/22"));
        assert!(!claims("0.0.0.0/0", "10.88.0.0/22"));
    }

    #[test]
    fn no_two_slots_share_a_name_or_an_address() {
        let all: Vec<Slot> = (0..SLOTS).map(Slot).collect();
        for (i, a) in all.iter().enumerate() {
            for b in &all[..i] {
                assert_ne!(a.link(), b.link());
                assert_ne!(a.cgroup(), b.cgroup());
                for (x, y) in [(a.wire(), b.wire()), (a.pods(), b.pods()), (a.services(), b.services())] {
                    assert!(!claims(&x, &y), "{x} and {y}");
                }
            }
        }
    }
}
