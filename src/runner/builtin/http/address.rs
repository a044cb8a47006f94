//! Which addresses may be reached: not those that belong to the runner's own pod or to its machine. Pure.
//!
//! Whoever may write Flows would otherwise reach what trusts whoever is near: the metadata of a cloud gives the rights of
//! the whole machine. Private addresses are not refused: services of the cluster are what most flows call.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// Addresses outside the link-local ones at which clouds answer to their own machines: Alibaba, Azure, Oracle.
const METADATA_V4: [Ipv4Addr; 3] =
    [Ipv4Addr::new(100, 100, 100, 200), Ipv4Addr::new(168, 63, 129, 16), Ipv4Addr::new(192, 0, 0, 192)];
/// The same for IPv6: Amazon, Google.
const METADATA_V6: [Ipv6Addr; 2] =
    [Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254), Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)];

/// The rules of one runner.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    allowed: Vec<IpNet>,
}

/// An address that may not be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    address: IpAddr,
    what: &'static str,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { address, what } = self;
        write!(
            f,
            "{address} is {what}, which http nodes may not reach unless the runner's --http-allow (in the chart: `runner.httpAllow`) holds it"
        )
    }
}

impl std::error::Error for Refused {}

impl Rules {
    /// The rules, but for what is allowed nevertheless.
    #[must_use]
    pub fn new(allowed: Vec<IpNet>) -> Self {
        Self { allowed }
    }

    /// Whether an address may be reached.
    ///
    /// # Errors
    /// It may not, and why.
    pub fn check(&self, address: IpAddr) -> Result<(), Refused> {
        let inner = inside(address).map(IpAddr::V4);
        let allowed = |address: &IpAddr| self.allowed.iter().any(|net| net.contains(address));
        match kind(address).or_else(|| inner.and_then(kind)) {
            Some(what) if !allowed(&address) && !inner.is_some_and(|inner| allowed(&inner)) => {
                Err(Refused { address, what })
            }
            _ => Ok(()),
        }
    }
}

/// What is wrong with an address, if anything is.
fn kind(address: IpAddr) -> Option<&'static str> {
    match address {
        IpAddr::V4(v4) if METADATA_V4.contains(&v4) => Some("an address of cloud metadata"),
        IpAddr::V6(v6) if METADATA_V6.contains(&v6) => Some("an address of cloud metadata"),
        _ if address.is_loopback() => Some("a loopback address"),
        // All of 0.0.0.0/8 means this machine.
        IpAddr::V4(v4) if v4.octets()[0] == 0 => Some("an unspecified address"),
        IpAddr::V4(v4) if v4.is_link_local() => Some("a link-local address"),
        IpAddr::V4(v4) if v4.is_broadcast() => Some("a broadcast address"),
        IpAddr::V6(v6) if v6.is_unspecified() => Some("an unspecified address"),
        IpAddr::V6(v6) if v6.is_unicast_link_local() => Some("a link-local address"),
        _ if address.is_multicast() => Some("a multicast address"),
        _ => None,
    }
}

/// The IPv4 address that an IPv6 address leads to: mapped, compatible, translated, NAT64, 6to4, Teredo.
fn inside(address: IpAddr) -> Option<Ipv4Addr> {
    let IpAddr::V6(v6) = address else { return None };
    let (high, low) = match v6.segments() {
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low]
        | [0, 0, 0, 0, 0xffff, 0, high, low]
        | [0x64, 0xff9b, 0, 0, 0, 0, high, low]
        | [0x64, 0xff9b, 1, _, _, _, high, low]
        | [0x2002, high, low, ..] => (high, low),
        [0x2001, 0, _, _, _, _, high, low] => (!high, !low),
        _ => return None,
    };
    Some(Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use url::{Host, Url};

    use super::*;

    /// The address of a host as it is written in a URL.
    fn address(host: &str) -> IpAddr {
        match Url::parse(&format!("http://{host}/")).unwrap().host().unwrap() {
            Host::Ipv4(v4) => IpAddr::V4(v4),
            Host::Ipv6(v6) => IpAddr::V6(v6),
            Host::Domain(name) => panic!("{name} is no address"),
        }
    }

    fn verdict(rules: &Rules, host: &str) -> Option<&'static str> {
        rules.check(address(host)).err().map(|refused| refused.what)
    }

    #[test]
    fn an_address_of_the_pod_or_its_machine_is_refused_however_it_is_written() {
        let (loopback, local) = (Some("a loopback address"), Some("a link-local address"));
        let (nowhere, all) = (Some("an unspecified address"), Some("a multicast address"));
        let metadata = Some("an address of cloud metadata");
        for (host, expected) in [
            ("127.0.0.1", loopback),
            ("127.255.255.254", loopback),
            ("127.1", loopback),
            ("2130706433", loopback),
            ("0x7f000001", loopback),
            ("0x7f.1", loopback),
            ("0177.0.0.1", loopback),
            ("1２7.0.0.1", loopback),
            ("[::1]", loopback),
            ("[0:0:0:0:0:0:0:1]", loopback),
            ("[::ffff:127.0.0.1]", loopback),
            ("[::ffff:7f00:1]", loopback),
            ("[::127.0.0.1]", loopback),
            ("[::ffff:0:127.0.0.1]", loopback),
            ("[64:ff9b::127.0.0.1]", loopback),
            ("[64:ff9b:1::7f00:1]", loopback),
            ("[2002:7f00:1::]", loopback),
            ("[2001:0:4136:e378:8000:63bf:80ff:fffe]", loopback),
            ("169.254.169.254", local),
            ("2852039166", local),
            ("0xA9FEA9FE", local),
            ("0251.0376.0251.0376", local),
            ("169.254.0.1", local),
            ("[::ffff:169.254.169.254]", local),
            ("[64:ff9b::a9fe:a9fe]", local),
            ("[2002:a9fe:a9fe::1]", local),
            ("[fe80::1]", local),
            ("[febf::1]", local),
            ("0.0.0.0", nowhere),
            ("0", nowhere),
            ("0.1.2.3", nowhere),
            ("[::]", nowhere),
            ("[::ffff:0.0.0.0]", nowhere),
            ("224.0.0.1", all),
            ("239.255.255.255", all),
            ("[ff02::1]", all),
            ("[64:ff9b::224.0.0.1]", all),
            ("255.255.255.255", Some("a broadcast address")),
            ("100.100.100.200", metadata),
            ("168.63.129.16", metadata),
            ("192.0.0.192", metadata),
            ("[fd00:ec2::254]", metadata),
            ("[fd20:ce::254]", metadata),
            ("[::ffff:100.100.100.200]", metadata),
        ] {
            assert_eq!(verdict(&Rules::default(), host), expected, "{host}");
        }
    }

    #[test]
    fn any_other_address_may_be_reached_private_ones_too() {
        for host in [
            "10.96.0.1",
            "172.16.0.1",
            "192.168.1.1",
            "100.64.0.1",
            "100.100.100.201",
            "1.1.1.1",
            "128.0.0.1",
            "169.253.1.1",
            "[fd00::1]",
            "[fc00::1]",
            "[fd00:ec2::253]",
            "[2606:4700::1111]",
            "[::ffff:10.0.0.1]",
            "[64:ff9b::8.8.8.8]",
            "[2002:808:808::1]",
            "[fec0::1]",
        ] {
            assert_eq!(verdict(&Rules::default(), host), None, "{host}");
        }
    }

    #[test]
    fn what_is_allowed_nevertheless_is_that_and_no_more() {
        let rules = Rules::new(vec!["127.0.0.0/8".parse().unwrap(), "fe80::/64".parse().unwrap()]);
        for host in ["127.0.0.1", "127.9.9.9", "[::ffff:127.0.0.1]", "[fe80::1]"] {
            assert_eq!(verdict(&rules, host), None, "{host}");
        }
        for host in ["[::1]", "169.254.169.254", "0.0.0.0", "[fe80:0:0:1::1]"] {
            assert!(verdict(&rules, host).is_some(), "{host}");
        }
    }

    #[test]
    fn a_refusal_names_the_address_and_the_flag() {
        let refused = Rules::default().check("169.254.169.254".parse().unwrap()).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "169.254.169.254 is a link-local address, which http nodes may not reach unless the runner's --http-allow \
             (in the chart: `runner.httpAllow`) holds it"
        );
    }

    proptest! {
        #[test]
        fn no_form_of_ipv6_hides_an_ipv4_address(bits in any::<u32>()) {
            let v4 = Ipv4Addr::from_bits(bits);
            let [high, low] = [(bits >> 16) as u16, (bits & 0xffff) as u16];
            let rules = Rules::default();
            let plain = rules.check(v4.into()).is_err();
            for v6 in [
                v4.to_ipv6_mapped(),
                Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, high, low),
                Ipv6Addr::new(0x2002, high, low, 0, 0, 0, 0, 7),
            ] {
                prop_assert_eq!(rules.check(v6.into()).is_err(), plain);
            }
        }
    }
}
