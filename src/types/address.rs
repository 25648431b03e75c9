//! Addresses that an interface can have, and gateways.

use std::{fmt, net::IpAddr, str::FromStr};

use ipnetwork::IpNetwork;

/// An address with its prefix length, fit for one host: neither the network's own address nor its
/// broadcast address, neither multicast nor loopback nor unspecified. /31 (RFC 3021), /32, /127
/// (RFC 6164) and /128 are accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostAddress(IpNetwork);

impl HostAddress {
    /// Why the two make no address of a host, if they don't.
    pub fn new(ip: IpAddr, prefix: u8) -> Result<HostAddress, String> {
        let network =
            IpNetwork::new(ip, prefix).map_err(|_| format!("{ip} cannot have a prefix length of {prefix}"))?;
        if prefix == 0 {
            return Err(format!("{network} would make the whole Internet local"));
        }
        match unfit(ip, network) {
            Some(reason) => Err(reason),
            None => Ok(HostAddress(network)),
        }
    }

    pub fn ip(self) -> IpAddr {
        self.0.ip()
    }

    pub fn prefix(self) -> u8 {
        self.0.prefix()
    }

    pub fn is_ipv6(self) -> bool {
        self.0.is_ipv6()
    }

    /// The subnet that the address lies in, host bits cleared.
    pub fn subnet(self) -> IpNetwork {
        network_of(self.0)
    }

    /// Whether `ip` can be reached on the link itself: it lies in the subnet.
    pub fn reaches(self, ip: IpAddr) -> bool {
        self.0.contains(ip)
    }
}

/// The same network with its host bits cleared.
pub(crate) fn network_of(network: IpNetwork) -> IpNetwork {
    // The prefix is that of a valid network, so making it again cannot fail.
    IpNetwork::new(network.network(), network.prefix()).unwrap_or(network)
}

/// Why `ip` cannot be the address of a host in `subnet`, or `None` if it can.
fn unfit(ip: IpAddr, subnet: IpNetwork) -> Option<String> {
    let bits = if ip.is_ipv4() { 32 } else { 128 };
    let network = network_of(subnet);
    if ip.is_unspecified() || matches!(ip, IpAddr::V4(v4) if v4.octets()[0] == 0) {
        return Some(format!("{ip} is not an address that a host can have"));
    }
    if ip.is_multicast() {
        return Some(format!("{ip} is a multicast address"));
    }
    if ip.is_loopback() {
        return Some(format!("{ip} is a loopback address"));
    }
    if matches!(ip, IpAddr::V4(v4) if v4.octets()[0] >= 240) {
        return Some(format!("{ip} is in the reserved range 240.0.0.0/4"));
    }
    if matches!(ip, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some()) {
        return Some(format!("{ip} is an IPv4 address written as IPv6"));
    }
    if subnet.prefix() + 1 >= bits {
        return None;
    }
    if ip == network.network() {
        return Some(format!("{ip} is the address of the network {network} itself"));
    }
    if ip.is_ipv4() && ip == network.broadcast() {
        return Some(format!("{ip} is the broadcast address of {network}"));
    }
    None
}

impl FromStr for HostAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Some((ip, _)) = text.split_once('/') else {
            return Err(match text.parse::<IpAddr>() {
                Ok(IpAddr::V4(_)) => format!("address {text} has no prefix length; maybe {text}/24?"),
                Ok(IpAddr::V6(_)) => format!("address {text} has no prefix length; maybe {text}/64?"),
                Err(_) => format!("{text:?} is no address; write one like 192.168.0.100/24"),
            });
        };
        let ip: IpAddr = ip.parse().map_err(|_| format!("{text:?} is no address; write one like 192.168.0.100/24"))?;
        let network: IpNetwork = text.parse().map_err(|_| {
            let most = if ip.is_ipv4() { 32 } else { 128 };
            format!("{text:?} has no valid prefix length; give one from 1 to {most}")
        })?;
        if network.prefix() == 0 {
            return Err(format!("{text:?} would make the whole Internet local; for no address at all say none"));
        }
        HostAddress::new(ip, network.prefix())
    }
}

impl fmt::Display for HostAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

super::as_text!(HostAddress);

/// What one `--ip` asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IpChoice {
    /// `none` (or pipework's `0/0`): layer 2 only.
    None,
    Address(HostAddress),
}

impl FromStr for IpChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "none" | "0/0" => Ok(IpChoice::None),
            _ => Ok(IpChoice::Address(text.parse()?)),
        }
    }
}

/// An address of a network, with or without its prefix length, which the network knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WantedIp {
    pub ip: IpAddr,
    pub prefix: Option<u8>,
}

impl FromStr for WantedIp {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse::<IpAddr>() {
            Ok(ip) => Ok(WantedIp { ip, prefix: None }),
            Err(_) if text.contains('/') => {
                let address: HostAddress = text.parse()?;
                Ok(WantedIp { ip: address.ip(), prefix: Some(address.prefix()) })
            }
            Err(_) => Err(format!("{text:?} is no address; write one like 10.1.0.50")),
        }
    }
}

/// The address of a router: unicast. Whether it fits the interface's addresses is the plan's matter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Gateway(IpAddr);

impl Gateway {
    pub fn ip(self) -> IpAddr {
        self.0
    }

    /// Why this cannot be a router in the subnet of `address`, or `None` if it can.
    pub fn unfit_for(self, address: HostAddress) -> Option<String> {
        unfit(self.0, address.subnet())
    }

    /// IPv6 routers are commonly named by their link-local address, which every link has.
    pub fn is_link_local(self) -> bool {
        matches!(self.0, IpAddr::V6(v6) if v6.is_unicast_link_local())
    }
}

impl FromStr for Gateway {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let ip: IpAddr = text.parse().map_err(|_| match text.split_once('/') {
            Some((ip, _)) if ip.parse::<IpAddr>().is_ok() => {
                format!("a gateway is one address, without a prefix length: {ip}")
            }
            _ => format!("{text:?} is no address; write one like 192.168.0.1"),
        })?;
        ip.try_into()
    }
}

impl TryFrom<IpAddr> for Gateway {
    type Error = String;

    fn try_from(ip: IpAddr) -> Result<Self, String> {
        let bits = if ip.is_ipv4() { 32 } else { 128 };
        let alone = IpNetwork::new(ip, bits).map_err(|error| error.to_string())?;
        match unfit(ip, alone) {
            Some(reason) => Err(reason),
            None => Ok(Gateway(ip)),
        }
    }
}

impl fmt::Display for Gateway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

super::as_text!(Gateway);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn refused(text: &str) -> String {
        text.parse::<HostAddress>().unwrap_err()
    }

    #[test]
    fn an_address_needs_its_mask() {
        assert_eq!(refused("192.168.0.100"), "address 192.168.0.100 has no prefix length; maybe 192.168.0.100/24?");
        assert_eq!(refused("fd00::7"), "address fd00::7 has no prefix length; maybe fd00::7/64?");
        assert_eq!(refused("web"), "\"web\" is no address; write one like 192.168.0.100/24");
        assert!(refused("192.168.0.100/33").contains("from 1 to 32"));
        assert!(refused("fd00::7/129").contains("from 1 to 128"));
    }

    #[test]
    fn reserved_addresses_are_refused() {
        assert_eq!(refused("192.168.0.0/24"), "192.168.0.0 is the address of the network 192.168.0.0/24 itself");
        assert_eq!(refused("192.168.0.255/24"), "192.168.0.255 is the broadcast address of 192.168.0.0/24");
        assert!(refused("fd00::/64").contains("network fd00::/64 itself"));
        assert!(refused("224.0.0.1/24").contains("multicast"));
        assert!(refused("ff02::1/64").contains("multicast"));
        assert!(refused("127.0.0.2/8").contains("loopback"));
        assert!(refused("::1/128").contains("loopback"));
        assert!(refused("0.0.0.0/0").contains("say none"));
        assert!(refused("0.1.2.3/8").contains("not an address"));
        assert!(refused("250.1.2.3/8").contains("reserved"));
        assert!(refused("::ffff:10.0.0.1/120").contains("IPv4"));
    }

    #[test]
    fn point_to_point_prefixes_are_accepted() {
        for good in
            ["10.0.0.0/31", "10.0.0.1/31", "10.0.0.0/32", "fd00::/127", "fd00::/128", "fd00::ffff:ffff:ffff:ffff/64"]
        {
            assert!(good.parse::<HostAddress>().is_ok(), "{good}");
        }
    }

    #[test]
    fn none_means_layer_two_only() {
        assert_eq!("none".parse::<IpChoice>().unwrap(), IpChoice::None);
        assert_eq!("0/0".parse::<IpChoice>().unwrap(), IpChoice::None);
    }

    #[test]
    fn a_gateway_has_no_mask() {
        assert_eq!(
            "192.168.0.1/24".parse::<Gateway>().unwrap_err(),
            "a gateway is one address, without a prefix length: 192.168.0.1"
        );
        assert!("224.0.0.1".parse::<Gateway>().is_err());
        assert!("fe80::1".parse::<Gateway>().unwrap().is_link_local());
    }

    proptest! {
        #[test]
        fn prints_what_it_parsed(bits: u32, prefix in 1u8..=32) {
            let text = format!("{}/{prefix}", std::net::Ipv4Addr::from(bits));
            if let Ok(address) = text.parse::<HostAddress>() {
                prop_assert_eq!(address.to_string(), text);
                prop_assert!(address.reaches(address.ip()));
            }
        }

        #[test]
        fn prints_what_it_parsed_v6(bits: u128, prefix in 1u8..=128) {
            let text = format!("{}/{prefix}", std::net::Ipv6Addr::from(bits));
            if let Ok(address) = text.parse::<HostAddress>() {
                prop_assert_eq!(address.to_string(), text);
            }
        }

        #[test]
        fn never_panics(text in "\\PC{0,40}") {
            let _ = text.parse::<IpChoice>();
            let _ = text.parse::<Gateway>();
        }
    }
}
