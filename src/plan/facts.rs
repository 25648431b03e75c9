//! What the kernel says now, read once before planning.

use std::net::IpAddr;

use super::{
    Moving, Route, Rule, Segments, Switch,
    bridged::Dropping,
    link::{GROUP, MOVED, ParentLink},
    tuning,
};
use crate::types::{IfName, Mac, Tag, VlanId, VlanProtocol};

/// All that a plan for one target depends on.
#[derive(Debug, Clone)]
pub struct Facts {
    pub parent: Parent,
    /// A link that hangs on the parent already. All of one parent are of one kind, and for ipvlan
    /// in one mode, so any of them tells. Looked for only where the new link's driver depends on it.
    pub sibling: Option<Sibling>,
    pub inside: Inside,
    /// Interfaces of this namespace that are on record, whatever they are called by now.
    pub on_record: Vec<String>,
    /// The target is the host itself.
    pub is_host: bool,
    /// Read only where the target is to forward.
    pub forwarding: Option<Ipv4Forwarding>,
    /// Who drops what the parent passes on. Read only where that is a bridge of the kernel's.
    pub bridged_drops: Vec<Dropping>,
    /// Read only where the parent itself is to move.
    pub moving: Option<Moving>,
}

/// The host's interface that a link shall hang on.
#[derive(Debug, Clone)]
pub struct Parent {
    pub name: IfName,
    pub index: u32,
    pub mac: Option<Mac>,
    pub mtu: u32,
    pub up: bool,
    /// A cable is plugged in, or what stands for one.
    pub carrier: bool,
    pub loopback: bool,
    /// If it is one.
    pub switch: Option<Switch>,
    pub ethernet: bool,
    pub infiniband: bool,
    pub wireless: bool,
    /// The bridge, bond or team that this interface is a port of.
    pub port_of: Option<String>,
    /// Its largest segments; none where the kernel has none above 64 KiB for IPv4 (before 6.3).
    pub segments: Option<Segments>,
    /// The most that they may be raised to.
    pub segments_most: u32,
}

impl Parent {
    /// A bridge as it is made: the kernel chooses its index, and an Ethernet's usual MTU.
    pub fn new_bridge(name: IfName, mac: Option<Mac>, switch: Switch) -> Parent {
        Parent {
            name,
            index: 0,
            mac,
            mtu: 1500,
            up: true,
            carrier: true,
            loopback: false,
            switch: Some(switch),
            ethernet: true,
            infiniband: false,
            wireless: false,
            port_of: None,
            segments: Some(Segments::ORDINARY),
            segments_most: tuning::MOST,
        }
    }

    /// What a link has that hangs on nothing: nobody is there to be asked.
    pub fn nowhere() -> Parent {
        let ParentLink { name, index } = ParentLink::nowhere();
        Parent {
            name,
            index,
            mac: None,
            mtu: 1500,
            up: true,
            carrier: false,
            loopback: false,
            switch: None,
            ethernet: false,
            infiniband: false,
            wireless: false,
            port_of: None,
            segments: None,
            segments_most: tuning::ORDINARY,
        }
    }
}

/// Another link on the parent, in whatever namespace.
#[derive(Debug, Clone)]
pub struct Sibling {
    pub link: InsideLink,
    /// Whose it is, as messages name it.
    pub owner: String,
}

/// The inside of the target's network namespace.
#[derive(Debug, Clone, Default)]
pub struct Inside {
    pub links: Vec<InsideLink>,
    pub addresses: Vec<InsideAddress>,
    pub routes: Vec<Route>,
    /// Read only where something depends on them, in the order in which they are asked.
    pub rules: Vec<Rule>,
    /// `None` where the kernel or the namespace has no IPv6 at all.
    pub ipv6: Option<Ipv6Defaults>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct InsideLink {
    pub index: u32,
    pub name: String,
    pub mac: Option<[u8; 6]>,
    pub mtu: u32,
    pub up: bool,
    /// A cable is plugged in, or what stands for one.
    pub carrier: bool,
    /// Somebody wants all that arrives, for whomever it is.
    pub promisc: bool,
    pub group: u32,
    /// `macvlan`, `veth` … or `None` for a physical interface.
    pub kind: Option<String>,
    /// The mode, for the kinds that plumb makes.
    pub mode: Option<String>,
    /// What a VLAN device carries.
    pub vlan: Option<(VlanProtocol, VlanId)>,
    /// The index of the bridge, bond or team that this is a port of.
    pub port_of: Option<u32>,
    /// The parent's index, where the kernel tells it.
    pub parent_index: Option<u32>,
    /// The number of the parent's namespace, where that is another one.
    pub parent_namespace: Option<i32>,
    pub tag: Option<Tag>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InsideAddress {
    pub index: u32,
    pub ip: IpAddr,
    pub prefix: u8,
    /// IPv6: duplicate address detection has not finished.
    pub tentative: bool,
    /// IPv6: somebody else has the address.
    pub duplicate: bool,
}

/// What a new interface in the namespace starts with (`net/ipv6/conf/default`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ipv6Defaults {
    pub disabled: bool,
    /// The value of `accept_ra`: 0 ignores router advertisements.
    pub accept_ra: String,
}

/// How IPv4 is forwarded in the namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ipv4Forwarding {
    pub on: bool,
    /// Settings, by key, that turning it on and off again would leave with another value: at either
    /// the kernel sets `forwarding` of each interface, and `accept_redirects` of all, to values of its
    /// own (`inet_forward_change` in the kernel's `net/ipv4/devinet.c`).
    pub overridden: Vec<(String, String)>,
    /// `arp_ignore` of the parent, or of new interfaces where it has yet to be made.
    pub arp_ignore: String,
    /// The chain of iptables in which to accept what its policy would drop, if it drops.
    pub accept_in: Option<&'static str>,
}

impl Inside {
    pub fn link_named(&self, name: &str) -> Option<&InsideLink> {
        self.links.iter().find(|link| link.name == name)
    }

    pub fn link_tagged(&self, tag: &Tag) -> Option<&InsideLink> {
        self.links.iter().find(|link| link.tag.as_ref() == Some(tag))
    }

    pub fn name_of(&self, index: u32) -> Option<&str> {
        self.links.iter().find(|link| link.index == index).map(|link| link.name.as_str())
    }

    /// The interface that has `ip`.
    pub fn holder_of(&self, ip: IpAddr) -> Option<&str> {
        self.addresses.iter().find(|address| address.ip == ip).and_then(|address| self.name_of(address.index))
    }
}

impl InsideLink {
    /// Whether this is a device of the host's own that plumb made for links to hang on, a VLAN's or a bridge:
    /// by its group, which it is born with. A tag alone says nothing: an attachment's is on somebody's own VLAN
    /// device too while that is on its way. It belongs to the host, whatever the store.
    pub fn is_plumbs_device(&self) -> bool {
        (self.vlan.is_some() || self.is_bridge()) && self.group == GROUP
    }

    /// Whether this is an interface of a host's that plumb has moved here.
    pub fn has_moved(&self) -> bool {
        self.group == MOVED
    }

    pub fn is_bridge(&self) -> bool {
        self.kind.as_deref() == Some("bridge")
    }

    /// Whether this is one of the links that share a parent's address on the wire and so have to agree.
    pub fn shares_a_parent(&self) -> bool {
        self.kind.as_deref().is_some_and(|kind| ["macvlan", "macvtap", "ipvlan", "ipvtap"].contains(&kind))
    }

    /// Whether this is `link` of the attachment that `tag` names. A run that was killed before it
    /// could set the tag left a link with our group, its index and its address.
    pub fn is(&self, link: &super::Link, tag: &Tag) -> bool {
        match &self.tag {
            Some(found) => found == tag,
            None => {
                self.group == link.group()
                    && self.index == link.index
                    && link.mac.is_none_or(|mac| self.mac == Some(mac.bytes()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vlan_device_is_plumbs_by_its_group_and_not_by_a_tag_of_an_attachments() {
        let vlan = Some((VlanProtocol::Dot1q, VlanId::try_from(10).unwrap()));
        let tag = Some("plumb:00000000:0000000000000000".parse().unwrap());
        let own = InsideLink { vlan, tag, ..InsideLink::default() };
        assert!(!own.is_plumbs_device());
        assert!(InsideLink { group: GROUP, tag: None, ..own }.is_plumbs_device());
    }
}
