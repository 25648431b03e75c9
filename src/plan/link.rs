//! A link that plumb makes: its kind and all that it is created with.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Home, Switch, Tuning};
use crate::types::{IfName, Mac, Mtu, Pkey, VlanId};

/// The group number of every link that plumb makes: the letters "plum". One request can so find or
/// delete all of a namespace, and a link is recognised even if its tag is not set yet.
pub const GROUP: u32 = 0x706c_756d;

/// The group number of every interface of the host's that plumb moved into a namespace: "plph". It must not be
/// deleted there, as what plumb makes is, but go home.
pub const MOVED: u32 = 0x706c_7068;

/// Indexes above this are chosen by plumb. Hosts count up from 1 and reuse nothing, so a busy one comes
/// to some hundred thousand.
pub const ABOVE_THE_HOSTS: u32 = 1_000_000;

/// A link as it is created, in one request, directly in the target's namespace; or one of the host's as it is
/// there after it has moved in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// The interface index inside. Chosen beforehand, so that what follows needs no look-up.
    pub index: u32,
    pub name: IfName,
    /// `None` only where it cannot be chosen ([`Driver::has_no_mac_of_its_own`]), or what moves has none.
    pub mac: Option<Mac>,
    pub mtu: Mtu,
    pub parent: ParentLink,
    pub driver: Driver,
    #[serde(default, skip_serializing_if = "Tuning::is_none")]
    pub tuning: Tuning,
}

impl Link {
    /// What this was on the host, if it has moved in from there.
    pub fn home(&self) -> Option<&Home> {
        if let Driver::Phys { home } = &self.driver { home.as_deref() } else { None }
    }

    /// The group number that it has inside.
    pub fn group(&self) -> u32 {
        if self.driver.moves() { MOVED } else { GROUP }
    }

    /// The layer 2 that it is on, as claims name it: its parent's, or of a bridge's port "br0.10". `None` where it
    /// leads nowhere.
    pub fn lan(&self) -> Option<String> {
        self.parent_and_vlan(".")
    }

    /// The same as messages name it: "eth0", or of a bridge's port "br0 VLAN 10".
    pub fn on(&self) -> Option<String> {
        self.parent_and_vlan(" VLAN ")
    }

    fn parent_and_vlan(&self, between: &str) -> Option<String> {
        let vlan = self.driver.vlan().map_or_else(String::new, |id| format!("{between}{id}"));
        self.parent.interface().map(|name| format!("{name}{vlan}"))
    }

    /// The end outside of a pair, and its MAC address: that of the end inside with another first byte. A
    /// bridge takes the lowest address of its ports for its own where nobody has given it one; this is
    /// none's (libvirt does the same with its taps).
    pub fn host_end(&self) -> Option<(&IfName, Mac)> {
        let Driver::Veth { host_end: Some(name), .. } = &self.driver else { return None };
        let [inside, a, b, c, d, e] = self.mac?.bytes();
        // The two ends must not have one address: the bridge would keep what is for the other.
        let first = if inside == 0xfe { 0xfa } else { 0xfe };
        Some((name, Mac::try_from([first, a, b, c, d, e]).ok()?))
    }
}

/// The host's interface that a link hangs on, or nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ParentLink {
    pub name: IfName,
    pub index: u32,
}

impl ParentLink {
    /// What a link has that hangs on nothing.
    pub fn nowhere() -> ParentLink {
        ParentLink { name: IfName::nowhere(), index: 0 }
    }

    /// The interface's name; none where the link hangs on nothing.
    pub fn interface(&self) -> Option<&IfName> {
        // Interfaces count from 1.
        let is_nowhere = self.index == 0 && self.name == IfName::nowhere();
        (!is_nowhere).then_some(&self.name)
    }
}

/// The kind of a link.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Driver {
    Macvlan(MacvlanMode),
    Ipvlan(IpvlanMode),
    /// A pair of which one end is in the target, and the other is a port of the parent, a bridge.
    Veth {
        /// The name of that end; of a wish's own: none, until the name inside is known.
        host_end: Option<IfName>,
        /// The VLAN that the port is in, untagged.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        vlan: Option<VlanId>,
        /// What the parent is; none of a wish's own, and of records from when all were plain bridges.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        switch: Option<Switch>,
    },
    /// The host's interface itself, which goes home when it is detached.
    Phys {
        /// What it is there; of a wish's own: none, until that was looked at.
        home: Option<Box<Home>>,
    },
    /// Leads nowhere: for an address alone.
    Dummy,
    /// A child of an InfiniBand interface.
    Ipoib {
        /// The partition; none: the parent's.
        pkey: Option<Pkey>,
    },
}

impl Driver {
    /// The kernel's name of the kind.
    pub fn kind(&self) -> &'static str {
        match self {
            Driver::Macvlan(_) => "macvlan",
            Driver::Ipvlan(_) => "ipvlan",
            Driver::Veth { .. } => "veth",
            Driver::Phys { .. } => "phys",
            Driver::Dummy => "dummy",
            Driver::Ipoib { .. } => "ipoib",
        }
    }

    /// "a macvlan", "an ipvlan"
    pub fn with_article(&self) -> String {
        let article = if self.kind().starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" };
        format!("{article} {}", self.kind())
    }

    /// Who reaches whom on one parent, where there are several on one.
    pub fn mode(&self) -> Option<&'static str> {
        match self {
            Driver::Macvlan(mode) => Some(mode.name()),
            Driver::Ipvlan(mode) => Some(mode.name()),
            // All ports of a bridge reach one another.
            Driver::Veth { .. } => Some(MacvlanMode::Bridge.name()),
            Driver::Phys { .. } | Driver::Dummy | Driver::Ipoib { .. } => None,
        }
    }

    /// Whether no MAC address can be chosen: the LAN sees the link under its parent's, or it has one of
    /// InfiniBand's.
    pub fn has_no_mac_of_its_own(&self) -> bool {
        match self {
            Driver::Macvlan(MacvlanMode::Passthru) | Driver::Ipvlan(_) | Driver::Ipoib { .. } => true,
            Driver::Macvlan(_) | Driver::Veth { .. } | Driver::Phys { .. } | Driver::Dummy => false,
        }
    }

    /// Whether it is the host's interface itself that moves.
    pub fn moves(&self) -> bool {
        matches!(self, Driver::Phys { .. })
    }

    /// Whether it hangs on nothing, and so needs no interface of the host's.
    pub fn leads_nowhere(&self) -> bool {
        matches!(self, Driver::Dummy)
    }

    /// In this VLAN of its parent. What hangs on a VLAN's own device is not told of it.
    pub fn in_vlan(self, id: Option<VlanId>) -> Driver {
        match self {
            Driver::Veth { host_end, switch, .. } => Driver::Veth { host_end, vlan: id, switch },
            other => other,
        }
    }

    /// The VLAN that it is in as a bridge's port.
    pub fn vlan(&self) -> Option<VlanId> {
        match self {
            Driver::Veth { vlan, .. } => *vlan,
            Driver::Macvlan(_) | Driver::Ipvlan(_) | Driver::Phys { .. } | Driver::Dummy | Driver::Ipoib { .. } => None,
        }
    }

    /// Whether its parent is a bridge of Open vSwitch's.
    pub fn is_open_vswitchs(&self) -> bool {
        matches!(self, Driver::Veth { switch: Some(Switch::OpenVswitch), .. })
    }

    /// Whether its parent has to be a bridge.
    pub fn needs_a_bridge(&self) -> bool {
        matches!(self, Driver::Veth { .. })
    }

    /// Whether those on one parent have to agree, or a parent may have yet to be made, so that the host is
    /// locked until the link is there.
    pub fn is_made_under_lock(&self) -> bool {
        match self {
            // The kernel itself refuses a macvlan that does not agree.
            Driver::Macvlan(_) | Driver::Dummy | Driver::Ipoib { .. } => false,
            Driver::Ipvlan(_) | Driver::Veth { .. } => true,
            // Nobody shall put a link on what is leaving.
            Driver::Phys { .. } => true,
        }
    }

    /// Whether what leaves the link follows the host's own routes by the parent. Such a link neither
    /// asks nor answers by ARP or neighbour discovery, and a router that is named inside is not asked for:
    /// the kernel takes such a route and looks only at the host's (`ipvlan_process_v4_outbound`).
    pub fn is_routed_by_the_host(&self) -> bool {
        match self {
            Driver::Macvlan(_) | Driver::Ipvlan(IpvlanMode::L2) | Driver::Veth { .. } | Driver::Phys { .. } => false,
            Driver::Dummy | Driver::Ipoib { .. } => false,
            Driver::Ipvlan(IpvlanMode::L3 | IpvlanMode::L3s) => true,
        }
    }
}

/// "macvlan bridge", "phys"
impl fmt::Display for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind())?;
        self.mode().map_or(Ok(()), |mode| write!(f, " {mode}"))
    }
}

/// How far up the links on one parent are told apart. They share the parent's MAC address, so it is
/// always by the IP address, and all links on one parent are in one mode: the kernel changes the mode
/// of those that are there to that of a new one, without a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum IpvlanMode {
    /// On layer 2: broadcasts come in, and each namespace asks for its neighbours by itself.
    L2,
    /// On layer 3: the host routes for the link. No broadcasts, no ARP.
    L3,
    /// As L3, through the host's netfilter hooks as well.
    L3s,
}

impl IpvlanMode {
    pub fn name(self) -> &'static str {
        match self {
            IpvlanMode::L2 => "l2",
            IpvlanMode::L3 => "l3",
            IpvlanMode::L3s => "l3s",
        }
    }
}

/// Who may talk to whom on one parent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MacvlanMode {
    /// Children reach one another inside the host.
    Bridge,
    /// Children never reach one another.
    Private,
    /// Every frame goes to the wire, even between children: the switch must reflect it.
    Vepa,
    /// One child only, which takes the parent's MAC address.
    Passthru,
    /// Frames come in only from these addresses.
    Source(Vec<Mac>),
}

impl MacvlanMode {
    pub fn name(&self) -> &'static str {
        match self {
            MacvlanMode::Bridge => "bridge",
            MacvlanMode::Private => "private",
            MacvlanMode::Vepa => "vepa",
            MacvlanMode::Passthru => "passthru",
            MacvlanMode::Source(_) => "source",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_two_ends_of_a_pair_never_have_one_address() {
        for inside in ["02:00:00:00:00:01", "fe:00:00:00:00:01", "fa:00:00:00:00:01"] {
            let link = Link {
                index: 7,
                name: IfName::eth(1),
                mac: Some(inside.parse().unwrap()),
                mtu: Mtu::try_from(1500).unwrap(),
                parent: ParentLink { name: "br0".parse().unwrap(), index: 2 },
                driver: Driver::Veth { host_end: Some("web-eth1".parse().unwrap()), vlan: None, switch: None },
                tuning: Tuning::default(),
            };
            let (_, outside) = link.host_end().unwrap();
            assert!(Some(outside) != link.mac && outside.bytes()[0] >= 0xfa, "{outside}");
        }
    }
}
