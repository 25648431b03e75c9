//! Subnets, and ranges of addresses in them.

use std::{fmt, net::IpAddr, str::FromStr};

use ipnetwork::IpNetwork;

use super::{HostAddress, address};

/// A subnet that a network can have: no host bits set, with room for a gateway and a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Subnet(IpNetwork);

impl Subnet {
    pub fn network(self) -> IpNetwork {
        self.0
    }

    pub fn is_ipv6(self) -> bool {
        self.0.is_ipv6()
    }

    pub fn contains(self, ip: IpAddr) -> bool {
        self.0.contains(ip)
    }

    pub fn overlaps(self, other: Subnet) -> bool {
        self.contains(other.0.network()) || other.contains(self.0.network())
    }

    /// The first and the last address that a host can have: neither the network's own (in IPv6 the
    /// routers' anycast address, RFC 4291) nor the broadcast address of IPv4.
    pub fn hosts(self) -> IpRange {
        let (first, last) = (number(self.0.network()), number(self.0.broadcast()));
        let last = if self.is_ipv6() { last } else { last - 1 };
        IpRange { first: address_of(first + 1, self.is_ipv6()), last: address_of(last, self.is_ipv6()) }
    }

    /// `ip` as the address of a host in this subnet.
    pub fn host(self, ip: IpAddr) -> Result<HostAddress, String> {
        if !self.contains(ip) {
            return Err(format!("{ip} is outside of {self}"));
        }
        HostAddress::new(ip, self.0.prefix())
    }
}

impl FromStr for Subnet {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let example = "write one like 10.1.0.0/24";
        if !text.contains('/') {
            return Err(format!("subnet {text:?} has no prefix length; {example}"));
        }
        let network: IpNetwork = text.parse().map_err(|_| format!("{text:?} is no subnet; {example}"))?;
        let whole = address::network_of(network);
        if whole.ip() != network.ip() {
            return Err(format!("{text} has host bits set; the subnet is {whole}"));
        }
        if network.prefix() == 0 {
            return Err(format!("{text} is everything; {example}"));
        }
        let most = if network.is_ipv4() { 30 } else { 126 };
        if network.prefix() > most {
            return Err(format!("{text} is too small for a gateway and a container; a /{most} is the smallest"));
        }
        if network.ip().is_multicast() || network.ip().is_loopback() {
            return Err(format!("{text} has no addresses for hosts"));
        }
        if let IpAddr::V6(ip) = network.ip()
            && ip.is_unicast_link_local()
        {
            return Err(format!("{text} is link-local, which every link has for itself; take one of fd00::/8"));
        }
        Ok(Subnet(network))
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

super::as_text!(Subnet);

/// Addresses from the first to the last, both included, of one IP version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IpRange {
    first: IpAddr,
    last: IpAddr,
}

impl IpRange {
    pub fn first(self) -> IpAddr {
        self.first
    }

    pub fn last(self) -> IpAddr {
        self.last
    }

    pub fn is_ipv6(self) -> bool {
        self.first.is_ipv6()
    }

    /// How many addresses; at least one. An IPv6 /0 has one less than is true.
    pub fn size(self) -> u128 {
        (number(self.last) - number(self.first)).saturating_add(1)
    }

    pub fn contains(self, ip: IpAddr) -> bool {
        ip.is_ipv6() == self.is_ipv6() && (self.first..=self.last).contains(&ip)
    }

    /// The address at `offset` from the first.
    pub fn at(self, offset: u128) -> Option<IpAddr> {
        (offset < self.size()).then(|| address_of(number(self.first) + offset, self.is_ipv6()))
    }

    /// How far `ip` is from the first.
    pub fn offset(self, ip: IpAddr) -> Option<u128> {
        self.contains(ip).then(|| number(ip) - number(self.first))
    }
}

impl FromStr for IpRange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let example = "write one like 10.1.0.100-10.1.0.199";
        let (first, last) = text.split_once('-').ok_or_else(|| format!("{text:?} is no range; {example}"))?;
        let ip = |text: &str| text.parse::<IpAddr>().map_err(|_| format!("{text:?} is no address; {example}"));
        let (first, last) = (ip(first.trim())?, ip(last.trim())?);
        if first.is_ipv6() != last.is_ipv6() {
            return Err(format!("{first} and {last} are of two IP versions"));
        }
        if first > last {
            return Err(format!("range {text} ends before it begins; did you mean {last}-{first}?"));
        }
        Ok(IpRange { first, last })
    }
}

impl fmt::Display for IpRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}

super::as_text!(IpRange);

fn number(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => u128::from(u32::from(ip)),
        IpAddr::V6(ip) => u128::from(ip),
    }
}

fn address_of(number: u128, ipv6: bool) -> IpAddr {
    match u32::try_from(number) {
        Ok(number) if !ipv6 => IpAddr::V4(number.into()),
        _ => IpAddr::V6(number.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn refused(text: &str) -> String {
        text.parse::<Subnet>().unwrap_err()
    }

    #[test]
    fn what_is_wrong_with_a_subnet_is_said_with_what_would_be_right() {
        assert_eq!(refused("10.1.0.5/24"), "10.1.0.5/24 has host bits set; the subnet is 10.1.0.0/24");
        assert_eq!(refused("10.1.0.0"), "subnet \"10.1.0.0\" has no prefix length; write one like 10.1.0.0/24");
        assert!(refused("10.1.0.0/31").ends_with("too small for a gateway and a container; a /30 is the smallest"));
        assert!(refused("10.1.0.0/32").contains("a /30 is the smallest"));
        assert!(refused("fd00::/127").contains("a /126 is the smallest"));
        assert!(refused("blue").contains("no prefix length"));
        assert!(refused("0.0.0.0/0").contains("everything"));
        assert!(refused("224.0.0.0/8").contains("no addresses for hosts"));
    }

    #[test]
    fn the_hosts_of_a_subnet() {
        let hosts = |text: &str| text.parse::<Subnet>().unwrap().hosts().to_string();
        assert_eq!(hosts("10.1.0.0/24"), "10.1.0.1-10.1.0.254");
        assert_eq!(hosts("10.1.0.0/30"), "10.1.0.1-10.1.0.2");
        assert_eq!(hosts("fd00::/126"), "fd00::1-fd00::3");
        assert_eq!("fd00::/64".parse::<Subnet>().unwrap().hosts().size(), u128::from(u64::MAX));
    }

    #[test]
    fn overlaps_are_seen_from_both_sides() {
        let subnet = |text: &str| text.parse::<Subnet>().unwrap();
        for (one, other, overlap) in [
            ("10.1.0.0/16", "10.1.5.0/24", true),
            ("10.1.0.0/24", "10.1.1.0/24", false),
            ("10.1.0.0/24", "fd00::/64", false),
            ("fd00::/64", "fd00::/64", true),
        ] {
            assert_eq!(subnet(one).overlaps(subnet(other)), overlap, "{one} {other}");
            assert_eq!(subnet(other).overlaps(subnet(one)), overlap, "{other} {one}");
        }
    }

    proptest! {
        #[test]
        fn a_range_counts_to_each_of_its_addresses(first in any::<u32>(), length in 0u32..1000, at in 0u32..1000) {
            let last = first.saturating_add(length);
            let range: IpRange = format!("{}-{}", IpAddr::V4(first.into()), IpAddr::V4(last.into())).parse().unwrap();
            prop_assert_eq!(range.to_string().parse::<IpRange>().unwrap(), range);
            match range.at(u128::from(at)) {
                Some(ip) => prop_assert_eq!(range.offset(ip), Some(u128::from(at))),
                None => prop_assert!(u128::from(at) >= range.size()),
            }
        }

        #[test]
        fn any_text_is_a_subnet_or_refused(text in "\\PC{0,20}|[0-9.:a-f]{1,12}/[0-9]{1,3}") {
            if let Ok(subnet) = text.parse::<Subnet>() {
                prop_assert_eq!(subnet.to_string().parse::<Subnet>().unwrap(), subnet);
                prop_assert!(subnet.hosts().size() >= 2);
                prop_assert!(subnet.host(subnet.hosts().first()).is_ok() || subnet.network().ip().is_unspecified()
                    || matches!(subnet.network().ip(), IpAddr::V4(v4) if v4.octets()[0] == 0 || v4.octets()[0] >= 240)
                    || subnet.host(subnet.hosts().first()).unwrap_err().contains("IPv4 address written as IPv6"));
            }
            let _ = text.parse::<IpRange>();
        }
    }
}
