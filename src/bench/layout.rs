//! What each way consists of: namespaces, devices, addresses. Data, which the kernel's part makes.

use std::net::{IpAddr, Ipv4Addr};

use super::Way;
use crate::{
    plan::{Driver, IpvlanMode, MacvlanMode, Masquerade},
    types::{HostAddress, IfName},
};

/// A throw-away namespace of a way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Site {
    /// Where the senders are.
    Client,
    /// Where the receivers are.
    Server,
    Host,
    /// The other host of an overlay.
    OtherHost,
}

/// One thing to be made, in the words of ip(8).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Make {
    Veth([(Site, &'static str); 2]),
    Bridge {
        at: Site,
        name: &'static str,
        ports: Vec<&'static str>,
    },
    /// What the children hang on: the host's interface that was asked for, or a veth on the host.
    Uplink,
    /// A VLAN's device on the uplink, on the host.
    Vlan {
        name: &'static str,
        id: u16,
    },
    /// A link of one of plumb's kinds at `at`, called eth0, on the uplink or on the device of that name.
    Child {
        at: Site,
        on: Option<&'static str>,
        driver: Driver,
    },
    /// A tunnel to `remote`, from `local` by the device `over`.
    Vxlan {
        at: Site,
        name: &'static str,
        over: &'static str,
        local: Ipv4Addr,
        remote: Ipv4Addr,
    },
    Address {
        at: Site,
        on: &'static str,
        address: HostAddress,
    },
    /// The default route.
    Gateway {
        at: Site,
        via: IpAddr,
    },
    /// The namespace forwards.
    Forward(Site),
    Masquerade(Site, Masquerade),
    /// What comes for `address` goes to `to`, as `docker run -p` does it.
    Publish {
        at: Site,
        address: Ipv4Addr,
        to: Ipv4Addr,
    },
}

/// How a way is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    pub make: Vec<Make>,
    /// Where the client sends to.
    pub to: IpAddr,
    /// The MTU of the ends.
    pub mtu: u32,
    /// The MTU between hosts, which is larger where a tunnel's headers come in addition.
    pub wire_mtu: u32,
    /// Whether it hangs on an uplink, which may be a real interface.
    pub has_uplink: bool,
}

// 198.18.0.0/15 is set aside for benchmarks (RFC 2544).
const CLIENT: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 2);
const SERVER: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 3);
const ROUTER: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);
const FAR_ROUTER: Ipv4Addr = Ipv4Addr::new(198, 18, 1, 1);
const FAR_SERVER: Ipv4Addr = Ipv4Addr::new(198, 18, 1, 2);
const HOSTS: [Ipv4Addr; 2] = [Ipv4Addr::new(198, 19, 0, 1), Ipv4Addr::new(198, 19, 0, 2)];
/// The VLAN that is used on a real uplink: the last one, which few use.
const VLAN: u16 = 4094;
/// The headers of VXLAN: Ethernet, IPv4, UDP, and its own (RFC 7348).
const VXLAN_HEADERS: u32 = 14 + 20 + 8 + 8;

impl Way {
    /// What the way consists of, where packets of `mtu` bytes pass between hosts.
    pub fn layout(self, mtu: u32) -> Layout {
        let make = match self {
            Way::Loopback => {
                let to = Ipv4Addr::LOCALHOST.into();
                return Layout { make: Vec::new(), to, mtu, wire_mtu: mtu, has_uplink: false };
            }
            Way::Bridge => bridge(),
            Way::Nat => nat(),
            Way::Macvlan => children(Driver::Macvlan(MacvlanMode::Bridge), None),
            Way::MacvlanVlan => children(Driver::Macvlan(MacvlanMode::Bridge), Some("vlan")),
            Way::IpvlanL2 => children(Driver::Ipvlan(IpvlanMode::L2), None),
            Way::IpvlanL3 => children(Driver::Ipvlan(IpvlanMode::L3), None),
            Way::IpvlanL3s => children(Driver::Ipvlan(IpvlanMode::L3s), None),
            Way::Vxlan => vxlan(),
        };
        let to = if self == Way::Nat { ROUTER } else { SERVER };
        let has_uplink = make.contains(&Make::Uplink);
        let wire_mtu = mtu;
        let mtu = if self == Way::Vxlan { mtu.saturating_sub(VXLAN_HEADERS) } else { mtu };
        Layout { make, to: to.into(), mtu, wire_mtu, has_uplink }
    }
}

fn address(at: Site, on: &'static str, ip: Ipv4Addr) -> Option<Make> {
    Some(Make::Address { at, on, address: HostAddress::new(ip.into(), 24).ok()? })
}

/// `eth0` in each container, its other end on the host.
fn veths() -> Vec<Make> {
    vec![
        Make::Veth([(Site::Client, "eth0"), (Site::Host, "client")]),
        Make::Veth([(Site::Server, "eth0"), (Site::Host, "server")]),
    ]
}

fn bridge() -> Vec<Make> {
    let bridge = Make::Bridge { at: Site::Host, name: "bridge", ports: vec!["client", "server"] };
    let addresses = [address(Site::Client, "eth0", CLIENT), address(Site::Server, "eth0", SERVER)];
    veths().into_iter().chain([bridge]).chain(addresses.into_iter().flatten()).collect()
}

fn nat() -> Vec<Make> {
    let bridges = [
        Make::Bridge { at: Site::Host, name: "near", ports: vec!["client"] },
        Make::Bridge { at: Site::Host, name: "far", ports: vec!["server"] },
    ];
    let addresses = [
        address(Site::Client, "eth0", CLIENT),
        address(Site::Server, "eth0", FAR_SERVER),
        address(Site::Host, "near", ROUTER),
        address(Site::Host, "far", FAR_ROUTER),
    ];
    let mut routing = vec![
        Make::Gateway { at: Site::Client, via: ROUTER.into() },
        Make::Gateway { at: Site::Server, via: FAR_ROUTER.into() },
        Make::Forward(Site::Host),
        Make::Publish { at: Site::Host, address: ROUTER, to: FAR_SERVER },
    ];
    if let (Ok(interface), Ok(subnet)) = ("near".parse::<IfName>(), "198.18.0.0/24".parse()) {
        routing.push(Make::Masquerade(Site::Host, Masquerade { interface, subnet }));
    }
    veths().into_iter().chain(bridges).chain(addresses.into_iter().flatten()).chain(routing).collect()
}

fn children(driver: Driver, on: Option<&'static str>) -> Vec<Make> {
    let vlan = on.map(|name| Make::Vlan { name, id: VLAN });
    let child = |at| Make::Child { at, on, driver: driver.clone() };
    let addresses = [address(Site::Client, "eth0", CLIENT), address(Site::Server, "eth0", SERVER)];
    [Make::Uplink]
        .into_iter()
        .chain(vlan)
        .chain([child(Site::Client), child(Site::Server)])
        .chain(addresses.into_iter().flatten())
        .collect()
}

fn vxlan() -> Vec<Make> {
    let mut make = vec![Make::Veth([(Site::Host, "wire"), (Site::OtherHost, "wire")])];
    let ends = [(Site::Host, Site::Client, CLIENT), (Site::OtherHost, Site::Server, SERVER)];
    for (number, (host, container, ip)) in ends.into_iter().enumerate() {
        let (local, remote) = (HOSTS[number], HOSTS[1 - number]);
        make.extend(address(host, "wire", local));
        make.push(Make::Vxlan { at: host, name: "tunnel", over: "wire", local, remote });
        make.push(Make::Veth([(container, "eth0"), (host, "container")]));
        make.push(Make::Bridge { at: host, name: "bridge", ports: vec!["tunnel", "container"] });
        make.extend(address(container, "eth0", ip));
    }
    make
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum;

    use super::*;

    #[test]
    fn each_way_gives_both_ends_an_interface_and_an_address() {
        for way in Way::value_variants() {
            let layout = way.layout(1500);
            if *way == Way::Loopback {
                assert!(layout.make.is_empty() && layout.to.is_loopback());
                continue;
            }
            for end in [Site::Client, Site::Server] {
                let has_address =
                    layout.make.iter().any(|make| matches!(make, Make::Address { at, on: "eth0", .. } if *at == end));
                let has_interface = layout.make.iter().any(|make| match make {
                    Make::Veth(ends) => ends.contains(&(end, "eth0")),
                    Make::Child { at, .. } => *at == end,
                    _ => false,
                });
                assert!(has_address && has_interface, "{way:?} {end:?}");
            }
        }
    }

    #[test]
    fn a_tunnels_headers_take_their_part_of_each_packet() {
        assert_eq!(Way::Vxlan.layout(1500).mtu, 1450);
        assert_eq!(Way::Macvlan.layout(9000).mtu, 9000);
    }
}
