//! The wire between the host and a node, and the addresses on it.
//!
//! Each node takes a slot. The slot gives the names of its link and control groups and all of its addresses, so that
//! nodes run side by side; whoever makes the link has the slot.

use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Command;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::tools::{output, run};

/// How many nodes can run side by side on a machine.
const SLOTS: u8 = 16;

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

/// Makes the link to the network namespace of the process, in the first slot that is free, or in the one that the
/// state belongs to. `mark` tells whose link it is.
pub(crate) fn connect(process: u32, kept: Option<Slot>, mark: &str) -> Result<Slot> {
    for slot in kept.map_or_else(|| (0..SLOTS).map(Slot).collect(), |slot| vec![slot]) {
        if owner(slot).as_deref() == Some(mark) {
            disconnect(slot, mark)?;
        }
        let ranges = [slot.wire(), slot.pods(), slot.services()];
        let routes = routes()?;
        let taken = ranges.iter().any(|range| routes.iter().any(|route| overlap(range, &route.dst)));
        if !taken && owner(slot).is_none() {
            match make_link(slot, process, mark) {
                Ok(()) => return wire(slot, process).map(|()| slot),
                // Another node was faster.
                Err(_) if owner(slot).is_some_and(|owner| owner != mark) => {}
                Err(error) => return Err(error),
            }
        }
    }
    Err(match kept {
        Some(slot) => Error::Needs(format!(
            "the addresses of this node ({}, {}, {}) or its link `{}` are in use by something else; free them, or start \
             over with `rig down --forget` and `rig up`",
            slot.wire(),
            slot.pods(),
            slot.services(),
            slot.link()
        )),
        None => Error::Needs(format!(
            "all {SLOTS} places for a node are taken on this machine; see `ip link` and `ip route` (names millrace0 to millrace{}, 10.87.0.0/16)",
            SLOTS - 1
        )),
    })
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

/// Whether two ranges share an address. A default route is no claim to any.
fn overlap(one: &str, other: &str) -> bool {
    match (range(one), range(other)) {
        (Some((a, a_len)), Some((b, b_len))) if b_len > 0 => {
            let shared = u32::MAX.checked_shl(32 - a_len.min(b_len)).unwrap_or(0);
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
    fn ranges_overlap_when_one_holds_the_other_and_a_default_route_holds_none() {
        assert!(overlap("10.88.0.0/22", "10.88.3.7"));
        assert!(overlap("10.88.0.0/22", "10.0.0.0/8"));
        assert!(!overlap("10.88.0.0/22", "10.88.4.0/22"));
        assert!(!overlap("10.88.0.0/22", "default"));
        assert!(!overlap("10.88.0.0/22", "0.0.0.0/0"));
    }

    #[test]
    fn no_two_slots_share_a_name_or_an_address() {
        let all: Vec<Slot> = (0..SLOTS).map(Slot).collect();
        for (i, a) in all.iter().enumerate() {
            for b in &all[..i] {
                assert_ne!(a.link(), b.link());
                assert_ne!(a.cgroup(), b.cgroup());
                for (x, y) in [(a.wire(), b.wire()), (a.pods(), b.pods()), (a.services(), b.services())] {
                    assert!(!overlap(&x, &y), "{x} and {y}");
                }
            }
        }
    }
}
