//! Joining a network: its device on this host, and an address out of its pools.

use std::{collections::HashSet, net::IpAddr};

use super::{Device, Work, bridge, parent, vlan};
use crate::{
    error::{Error, Result},
    kernel::Kernel,
    plan::{Driver, Inside, Wish, vlan::VlanDevice},
    store::{
        Attachment, Change, Condition, Key, Network, Store,
        network::{self, Histories, Stored},
    },
    types::{Gateway, HostAddress, IfName, RouteSpec, VlanProtocol},
};

/// A network that a target shall join, and how.
pub struct Joining {
    pub network: Network,
    /// What is remembered of its pools.
    pub histories: Histories,
    /// That it is still as it was found.
    pub as_found: Condition,
    /// The interface of this host that carries the network's VLAN.
    pub host_interface: IfName,
    /// Addresses that were asked for.
    pub wanted: Vec<IpAddr>,
    /// This host becomes the network's gateway: the addresses are the gateways' own.
    pub as_gateway: bool,
}

impl Joining {
    /// A container joins.
    pub fn new(stored: Stored, host_interface: IfName, wanted: Vec<IpAddr>) -> Joining {
        let as_found = stored.as_found();
        let Stored { network, histories, .. } = stored;
        Joining { network, histories, as_found, host_interface, wanted, as_gateway: false }
    }

    /// This host becomes the gateway.
    pub fn as_gateway(stored: Stored) -> Joining {
        let host_interface = stored.network.parent.clone();
        Joining { as_gateway: true, ..Joining::new(stored, host_interface, Vec::new()) }
    }

    /// What the same target had in the same network before it was restarted it gets again: the
    /// interface's name, and by that the MAC address, and in `choice` the addresses.
    pub fn as_before(
        &self,
        wish: Wish,
        here: &[Attachment],
        elsewhere: &[Attachment],
        inside: &Inside,
    ) -> Result<Wish> {
        let is_ours = |a: &&Attachment| a.network.as_ref() == Some(&self.network.name);
        if let Some(there) = here.iter().find(is_ours) {
            let (name, interface) = (&self.network.name, there.interface());
            if self.as_gateway {
                return Err(Error::conflict(format!("this host is the gateway of {name} already"))
                    .hint(format!("plumb networks shows it; plumb delete-vlan {name} takes it away")));
            }
            return Err(Error::conflict(format!("{} is in {name} already, by {interface}", wish.target))
                .hint(format!("plumb show {}; or plumb detach {} {interface}", wish.target, wish.target)));
        }
        let Some(before) = elsewhere.iter().find(is_ours) else { return Ok(wish) };
        let is_free = inside.link_named(before.interface()).is_none()
            && !here.iter().any(|other| other.interface() == before.interface());
        let name = wish.name.clone().or_else(|| before.interface().parse().ok().filter(|_| is_free));
        let fits = |address: &&HostAddress| {
            let others = self.wanted.iter().any(|wanted| wanted.is_ipv6() == address.is_ipv6());
            !others && self.network.pools.iter().any(|pool| pool.fit(address.ip()).is_ok())
        };
        // Only under its old name does the target own the claims on them.
        let keeps = name.as_ref().is_some_and(|name| name.as_str() == before.interface());
        let addresses = before.wish.addresses.iter().filter(fits).copied().filter(|_| keeps).collect();
        Ok(Wish { name, addresses, ..wish })
    }

    /// What the network's device on this host is called, or would be if it were made.
    pub fn device_name(&self, kernel: &mut Kernel) -> Result<IfName> {
        let network = &self.network;
        let device = VlanDevice::new(self.host_interface.clone(), network.id, network.protocol, network.mtu);
        let below = parent(kernel, &self.host_interface)?;
        match device.among(&kernel.host_links()?, below.index)? {
            Some(there) => there.name.parse().map_err(Error::failed),
            None => Ok(device.name),
        }
    }

    /// The wish, in the network's VLAN as far as it is the port's own.
    pub(super) fn in_its_vlan(&self, wish: Wish) -> Wish {
        if !wish.driver.needs_a_bridge() {
            return wish;
        }
        Wish { driver: wish.driver.in_vlan(Some(self.network.id)), mtu: wish.mtu.or(self.network.mtu), ..wish }
    }

    /// What a link in the network hangs on: a bridge that is there, or else its VLAN's device on this host, made if
    /// it is missing. The host is locked.
    pub(super) fn device(&self, work: &mut Work, driver: &Driver) -> Result<Device> {
        let network = &self.network;
        self.refuse_anothers_vlan(work)?;
        if driver.needs_a_bridge() {
            return self.bridge(work, driver);
        }
        let device = VlanDevice::new(self.host_interface.clone(), network.id, network.protocol, network.mtu);
        vlan::device(work, &device)
    }

    /// A bridge that leads to the network. One that was made for this would lead nowhere; and one over the VLAN's
    /// device would keep all other drivers from it.
    fn bridge(&self, work: &mut Work, driver: &Driver) -> Result<Device> {
        let (Network { name, id, protocol, parent: carrier, .. }, on) = (&self.network, &self.host_interface);
        if *protocol != VlanProtocol::Dot1q {
            return Err(Error::failed(format!(
                "{name} is a VLAN by {protocol}, and a bridge's ports are in those by 802.1q"
            ))
            .hint("leave --driver veth out"));
        }
        parent(work.kernel, on)?;
        let device = bridge::device(work, on, driver)?;
        if device.parent.switch.is_none() {
            let port = device.parent.port_of.unwrap_or_else(|| "BRIDGE".into());
            return Err(Error::failed(format!("{on} is no bridge, and a veth joins {name} as the port of one")).hint(
                format!("-i {port} names one that has {carrier} as a port in VLAN {id}; or leave --driver veth out"),
            ));
        }
        Ok(device)
    }

    /// By another interface of this host than the network's own the VLAN may be another network's.
    fn refuse_anothers_vlan(&self, work: &Work) -> Result<()> {
        let (Network { name, id, parent, .. }, on) = (&self.network, &self.host_interface);
        if on == parent {
            return Ok(());
        }
        match network::of_id(&*work.context.store, on, *id)?.filter(|other| *other != name.to_string()) {
            Some(other) => Err(Error::conflict(format!("VLAN {id} of {on} is network {other}: {name} cannot use it"))
                .hint("choose another interface with -i, or another id for one of the two networks")),
            None => Ok(()),
        }
    }

    /// The addresses to try. Those that `wish` has already are kept.
    pub fn choice(&self, wish: &Wish) -> Result<Choice<'_>> {
        let fixed = if self.as_gateway { self.gateways() } else { self.fixed(wish)? };
        Ok(Choice { joining: self, fixed, histories: self.histories.clone(), lost: HashSet::new() })
    }

    fn gateways(&self) -> Vec<HostAddress> {
        self.network.pools.iter().filter_map(|pool| pool.subnet.host(pool.gateway).ok()).collect()
    }

    fn fixed(&self, wish: &Wish) -> Result<Vec<HostAddress>> {
        let mut fixed = wish.addresses.clone();
        for ip in &self.wanted {
            fixed.push(self.network.address(*ip)?);
        }
        Ok(fixed)
    }
}

/// Addresses out of a network's pools, tried until the claims on them are won.
pub struct Choice<'a> {
    joining: &'a Joining,
    fixed: Vec<HostAddress>,
    histories: Histories,
    /// What others were faster to claim.
    lost: HashSet<IpAddr>,
}

impl Choice<'_> {
    /// `wish` with an address from each pool and the way to its gateway.
    pub fn next(&mut self, wish: Wish, store: &dyn Store) -> Result<Wish> {
        let network = &self.joining.network;
        let mut addresses = self.fixed.clone();
        for (pool, history) in network.pools.iter().zip(&self.histories.pools) {
            if !addresses.iter().any(|address| pool.subnet.contains(address.ip())) {
                let ip = match pool.guess(history).filter(|ip| !self.lost.contains(ip)) {
                    Some(ip) => ip,
                    None => network.choose(pool, history, &self.lost, store)?,
                };
                addresses.push(pool.subnet.host(ip).map_err(Error::failed)?);
            }
        }
        let has_gateway = |address: &HostAddress| {
            let pool = network.pools.iter().find(|pool| pool.subnet.contains(address.ip()))?;
            Gateway::try_from(pool.gateway).ok().filter(|_| !self.joining.as_gateway)
        };
        if !wish.driver.is_routed_by_the_host() {
            let gateways = addresses.iter().filter_map(has_gateway).collect();
            return Ok(Wish { addresses, gateways, ..wish });
        }
        // The host itself is the next hop, so the interface is the way out.
        let mut routes = wish.routes.clone();
        for address in addresses.iter().filter(|_| !wish.keep_default) {
            let everything = RouteSpec::default_route(address.is_ipv6());
            if !routes.iter().any(|route| route.is_default() && route.destination == everything.destination) {
                routes.push(everything);
            }
        }
        Ok(Wish { addresses, routes, ..wish })
    }

    /// Whether the claimed address was this choice's own idea, so that another may be tried.
    pub fn was_free(&mut self, claim: &Key) -> bool {
        let Ok(ip) = claim.last().parse::<IpAddr>() else { return false };
        !self.fixed.iter().any(|address| address.ip() == ip) && self.lost.insert(ip)
    }

    /// What to remember when `attachment` has its addresses.
    pub fn remembered(&mut self, attachment: &Attachment) -> Result<Change> {
        let fixed: Vec<IpAddr> = self.fixed.iter().map(|address| address.ip()).collect();
        let chosen = attachment.wish.addresses.iter().map(|address| address.ip()).filter(|ip| !fixed.contains(ip));
        self.histories.give(&self.joining.network, chosen);
        self.histories.put(&self.joining.network.name)
    }
}
