//! From a wish and the facts to the steps that wire a target: the plan that all verbs share.

use std::{collections::BTreeMap, net::IpAddr};

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

use super::{
    Driver, Facts, Inside, Leased, Link, LinkAddress, MacvlanMode, Parent, Port, Route, Sibling, Step, Switch,
    TaggedLink, Tuning,
    bridged::{Dropping, Iptables},
    forwarding,
    link::{ABOVE_THE_HOSTS, ParentLink},
    phys, tuning,
};
use crate::{
    error::{Error, Result},
    types::{Gateway, HostAddress, IfName, Mac, Mtu, RouteSpec, Subnet, Tag, TargetName},
};

/// What somebody wants of an interface in a target. It is stored with the attachment, so that a
/// restarted container gets the same again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wish {
    /// The target as messages name it.
    pub target: String,
    pub driver: Driver,
    /// The name inside; none: the first free ethN, from eth1.
    pub name: Option<IfName>,
    pub mac: MacRule,
    /// None: the parent's.
    pub mtu: Option<Mtu>,
    /// None at all: layer 2 only.
    pub addresses: Vec<HostAddress>,
    /// At most one for each IP version.
    pub gateways: Vec<Gateway>,
    pub routes: Vec<RouteSpec>,
    /// None: the new default route shall win.
    pub metric: Option<u32>,
    /// The default route stays what it is.
    pub keep_default: bool,
    /// Gateways may lie outside of the addresses' subnets.
    pub off_link_gateway: bool,
    pub allow_wifi: bool,
    /// The parent itself moves, whomever that cuts off.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub force: bool,
    /// IPv6 addresses are used without the kernel's duplicate address detection.
    pub skip_dad: bool,
    /// What the interface takes from IPv6 routers.
    #[serde(default, skip_serializing_if = "Advertised::is_nothing")]
    pub advertised: Advertised,
    #[serde(default, skip_serializing_if = "Tuning::is_none")]
    pub tuning: Tuning,
    /// What the bridge passes on is accepted where iptables would drop it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub allow_forward: bool,
    /// The target is to forward for a network: it is its gateway.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forwarding: Option<Forwarding>,
}

/// What an interface takes from the advertisements of IPv6 routers (RFC 4861). The kernel does that, for as
/// long as the interface lives.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Advertised {
    #[default]
    Nothing,
    /// Default routes and prefixes on the link: addresses come from a server.
    Routes,
    /// Addresses too, made of a prefix and the MAC address (RFC 4862).
    Addresses,
}

impl Advertised {
    pub fn is_nothing(&self) -> bool {
        *self == Advertised::Nothing
    }
}

/// What makes a gateway of a host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forwarding {
    /// What comes from these and leaves by another interface gets the host's address.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub masquerade: Vec<Subnet>,
}

/// Where a link's MAC address comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MacRule {
    Given(Mac),
    /// From this host's identity (its machine id), the target and the interface's name: the same
    /// after a restart, another on another host.
    Derived {
        host: Option<String>,
    },
}

/// A plan: the link, and its steps by stages. Between the stages of an attachment the LAN is asked
/// whether the addresses are free, so they are not one list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wiring {
    pub link: Link,
    /// Makes the link and its settings.
    pub connect: Vec<Step>,
    pub addresses: Vec<Step>,
    /// The ways out, and for a gateway the way through.
    pub routes: Vec<Step>,
    /// Default routes that win over the new one, as its metric asked for.
    pub better_defaults: Vec<Route>,
    /// What works but may surprise.
    pub warnings: Vec<String>,
    /// That iptables drops what the bridge passes on, which is among the warnings too: the likely cause of all
    /// silence.
    pub dropped: Option<String>,
}

impl Wiring {
    /// The same link, which is to live by leases. Where its address is to become another one of the
    /// same subnet, the old one's end must not be the new one's: without this setting the kernel
    /// deletes with the first address of a subnet all the others (`__inet_del_ifa`).
    pub fn by_lease(mut self) -> Wiring {
        let key = format!("net/ipv4/conf/{}/promote_secondaries", self.link.name);
        self.connect.push(Step::SetSysctl { key, from: "0".into(), to: "1".into() });
        self
    }

    /// The same link, whose end on the host becomes a port of the parent, a bridge of Open vSwitch's.
    pub fn as_port(mut self, external_ids: BTreeMap<String, String>) -> Wiring {
        if let Some((name, _)) = self.link.host_end() {
            let (bridge, name, vlan) = (self.link.parent.name.clone(), name.clone(), self.link.driver.vlan());
            self.connect.push(Step::AddPort(Port { bridge, name, vlan, external_ids }));
        }
        self
    }

    /// With the addresses and routes of a lease.
    pub fn with(self, leased: Leased) -> Wiring {
        let Leased { addresses, routes, better_defaults, warnings } = leased;
        let warnings = self.warnings.into_iter().chain(warnings).collect();
        Wiring { addresses, routes, better_defaults, warnings, ..self }
    }

    pub fn steps(&self) -> impl Iterator<Item = &Step> {
        self.connect.iter().chain(&self.addresses).chain(&self.routes)
    }

    /// The default routes that are replaced or removed.
    pub fn replaced_defaults(&self) -> impl Iterator<Item = &Route> {
        self.routes.iter().filter_map(|step| match step {
            Step::ReplaceRoute { old, .. } | Step::DeleteRoute(old) => Some(old),
            _ => None,
        })
    }
}

impl Wish {
    /// A link and nothing on it.
    pub fn of(target: &TargetName, driver: Driver, mac: MacRule) -> Wish {
        Wish {
            target: target.to_string(),
            driver,
            name: None,
            mac,
            mtu: None,
            addresses: Vec::new(),
            gateways: Vec::new(),
            routes: Vec::new(),
            metric: None,
            keep_default: false,
            off_link_gateway: false,
            allow_wifi: false,
            force: false,
            skip_dad: false,
            advertised: Advertised::Nothing,
            tuning: Tuning::default(),
            allow_forward: false,
            forwarding: None,
        }
    }

    /// The same on `parent`: an InfiniBand interface has children of its own kind only.
    pub fn on(self, parent: &Parent) -> Wish {
        match self.driver {
            Driver::Macvlan(MacvlanMode::Bridge) if parent.infiniband => {
                Wish { driver: Driver::Ipoib { pkey: None }, ..self }
            }
            _ => self,
        }
    }

    /// What can be judged without looking at anything: the addresses, gateways and routes among
    /// themselves. Errors are usage errors.
    pub fn check(&self) -> Result<()> {
        if let (Driver::Ipoib { .. }, MacRule::Given(mac)) = (&self.driver, &self.mac) {
            let message = format!("an InfiniBand interface has an address of another kind, so {mac} cannot be given");
            return Err(Error::usage(message).hint("leave --mac out"));
        }
        if self.driver.has_no_mac_of_its_own() && matches!(self.mac, MacRule::Given(_)) {
            let whose = match &self.driver {
                Driver::Macvlan(mode) => format!("a {} link takes its parent's MAC address", mode.name()),
                _ => {
                    format!("{} link has its parent's MAC address", self.driver.with_article())
                }
            };
            return Err(Error::usage(format!("{whose}, so --mac cannot be given")).hint("leave --mac out"));
        }
        if matches!(&self.driver, Driver::Macvlan(MacvlanMode::Source(macs)) if macs.is_empty()) {
            return Err(Error::usage("mode source accepts frames from listed addresses only, and none is listed")
                .hint("add --source-mac 02:42:ac:11:00:02, once for each"));
        }
        for (at, address) in self.addresses.iter().enumerate() {
            if self.addresses[..at].iter().any(|other| other.ip() == address.ip()) {
                return Err(
                    Error::usage(format!("address {} is given twice", address.ip())).hint("give each --ip once")
                );
            }
        }
        self.check_default_route()?;
        for (at, gateway) in self.gateways.iter().enumerate() {
            if let Some(other) = self.gateways[..at].iter().find(|other| other.ip().is_ipv4() == gateway.ip().is_ipv4())
            {
                return Err(Error::usage(format!(
                    "gateways {other} and {gateway} are of one IP version; a default route has one gateway"
                )));
            }
            self.check_gateway(*gateway, "gateway")?;
        }
        for route in &self.routes {
            if let Some(via) = route.via {
                self.check_gateway(via, &format!("gateway of route {}", route.destination))?;
            } else if !self.addresses.iter().any(|a| a.is_ipv6() == route.destination.is_ipv6()) {
                return Err(Error::usage(format!(
                    "route {} needs an address of its IP version on the interface",
                    route.destination
                )));
            }
        }
        forwarding::check(self)?;
        tuning::check(self)?;
        let ipv6 = self.addresses.iter().any(|address| address.is_ipv6());
        match self.mtu {
            Some(mtu) if ipv6 && mtu.bytes() < Mtu::LEAST_IPV6 => Err(Error::usage(format!(
                "MTU {mtu} is too small for IPv6, which needs {} bytes (RFC 8200)",
                Mtu::LEAST_IPV6
            ))),
            _ => Ok(()),
        }
    }

    /// Who routes: the container, to a router that it knows, or the host.
    fn check_default_route(&self) -> Result<()> {
        let by_the_host = self.driver.is_routed_by_the_host();
        let mode = self.driver.mode().unwrap_or_default();
        if by_the_host && let Some(gateway) = self.gateways.first() {
            let any = if gateway.ip().is_ipv4() { "0.0.0.0/0" } else { "::/0" };
            return Err(Error::usage(format!(
                "in mode {mode} the host's own routes decide, so gateway {gateway} would have no effect"
            ))
            .hint(format!("--route {any} instead of --gateway makes the interface the way out")));
        }
        for route in &self.routes {
            if by_the_host && let Some(via) = route.via {
                return Err(Error::usage(format!(
                    "in mode {mode} the host's own routes decide, so gateway {via} of route {} would have no effect",
                    route.destination
                ))
                .hint(format!("--route {}", route.destination)));
            }
            if route.is_default() && !by_the_host {
                return Err(Error::usage(format!("route {} needs a router", route.destination))
                    .hint("the default route is set with --gateway"));
            }
            if route.is_default() && self.keep_default {
                return Err(Error::usage(format!(
                    "--keep-default and --route {} contradict one another",
                    route.destination
                ))
                .hint("leave one of them out"));
            }
        }
        Ok(())
    }

    fn check_gateway(&self, gateway: Gateway, what: &str) -> Result<()> {
        let ip = gateway.ip();
        let family: Vec<HostAddress> =
            self.addresses.iter().copied().filter(|a| a.ip().is_ipv4() == ip.is_ipv4()).collect();
        let version = if ip.is_ipv4() { "IPv4" } else { "IPv6" };
        if family.is_empty() && !gateway.is_link_local() {
            return Err(
                Error::usage(format!("{what} {ip} needs an {version} address on the interface")).hint("add --ip")
            );
        }
        if family.iter().any(|address| address.ip() == ip) {
            return Err(
                Error::usage(format!("{what} {ip} is the container's own address")).hint("give the router's address")
            );
        }
        let Some(home) = family.iter().find(|address| address.reaches(ip)) else {
            if gateway.is_link_local() || self.off_link_gateway {
                return Ok(());
            }
            let subnets: Vec<String> = family.iter().map(|address| address.subnet().to_string()).collect();
            return Err(Error::usage(format!("{what} {ip} is outside of {}", subnets.join(" and "))).hint(
                "check the address and its prefix length; if the gateway really is off-link, add --off-link-gateway",
            ));
        };
        match gateway.unfit_for(*home) {
            Some(reason) => Err(Error::usage(format!("{what} {reason}")).hint("give the router's address")),
            None => Ok(()),
        }
    }

    /// Whether packets to `ip` leave by a route of ours that needs `onlink`.
    fn is_off_link(&self, ip: IpAddr) -> bool {
        !self.addresses.iter().any(|address| address.reaches(ip))
            && !matches!(ip, IpAddr::V6(v6) if v6.is_unicast_link_local())
    }
}

/// The steps that give `wish`'s target its interface, or why that cannot be.
pub fn plan(wish: &Wish, facts: &Facts, tag: &Tag) -> Result<Wiring> {
    wish.check()?;
    let mut warnings = Vec::new();
    check_parent(wish, facts, &mut warnings)?;
    let dropped = check_drops(wish, facts)?;
    warnings.extend(dropped.clone());
    if let Some(sibling) = &facts.sibling {
        check_sibling(wish, &facts.parent, sibling)?;
    }
    let name = free_name(wish, facts)?;
    let link = Link {
        index: free_index(facts),
        mac: None,
        mtu: mtu(wish, &facts.parent)?,
        parent: ParentLink { name: facts.parent.name.clone(), index: facts.parent.index },
        driver: match &wish.driver {
            Driver::Veth { host_end, vlan, .. } => Driver::Veth {
                host_end: host_end.clone().or_else(|| Some(IfName::of_host_end(&wish.target, &name))),
                vlan: *vlan,
                switch: facts.parent.switch,
            },
            Driver::Phys { .. } => facts.moving.as_ref().map_or_else(|| wish.driver.clone(), phys::driver),
            other => other.clone(),
        },
        tuning: wish.tuning,
        name,
    };
    let link = Link { mac: mac(wish, &link.name, &facts.parent)?, ..link };
    let routes = routes(wish, &link, &facts.inside)?;
    let connect = connect(wish, &link, &facts.inside, tag)?;
    let larger = tuning::steps(wish, &link, &facts.parent, &mut warnings)?;
    Ok(Wiring {
        connect: connect
            .into_iter()
            .chain(larger)
            .chain(forwarding::keep_parent_quiet(wish, &link, facts))
            .chain(forwarding::answer_only_whom_it_reaches(wish, &link, facts))
            .collect(),
        addresses: addresses(wish, &link, &facts.inside, &mut warnings)?,
        better_defaults: better_defaults(&routes, &facts.inside),
        routes: routes.into_iter().chain(forwarding::steps(wish, &link, facts, &mut warnings)).collect(),
        link,
        warnings,
        dropped,
    })
}

/// Whether a veth can be a port of the parent, in the VLAN that is asked for.
fn check_bridge(wish: &Wish, parent: &Parent) -> Result<()> {
    if !wish.driver.needs_a_bridge() {
        return Ok(());
    }
    let name = &parent.name;
    if parent.switch.is_none() {
        return Err(Error::failed(format!("{name} is no bridge, and a veth is a port of one")).hint(
            match &parent.port_of {
                Some(master) => format!("use -i {master}"),
                None => {
                    "name a bridge with -i, one that is made where it is missing; or leave --driver veth out".into()
                }
            },
        ));
    }
    if let (Some(id), Some(Switch::Bridge)) = (wish.driver.vlan(), parent.switch) {
        return Err(Error::failed(format!("{name} looks at no VLANs, so VLAN {id} would not be kept apart on it"))
            .hint(format!("ip link set {name} type bridge vlan_filtering 1 makes it; its ports are then in VLAN 1")));
    }
    if let (None, Some(Switch::VlanBridge { default_vlan: None })) = (wish.driver.vlan(), parent.switch) {
        return Err(Error::failed(format!(
            "{name} keeps VLANs apart and has none for new ports (vlan_default_pvid 0)"
        ))
        .hint("add --vlan ID"));
    }
    Ok(())
}

fn check_parent(wish: &Wish, facts: &Facts, warnings: &mut Vec<String>) -> Result<()> {
    let parent = &facts.parent;
    let name = &parent.name;
    if wish.driver.leads_nowhere() {
        if !wish.gateways.is_empty() && !wish.keep_default {
            warnings.push("a dummy leads nowhere, and so does the default route by it now".into());
        }
        return Ok(());
    }
    if parent.loopback {
        return Err(Error::failed(format!("{name} is the loopback interface: nothing behind it to connect to"))
            .hint("choose the interface that leads to the LAN"));
    }
    if let Some(moving) = &facts.moving {
        return phys::check(wish, parent, moving, warnings);
    }
    check_bridge(wish, parent)?;
    if let Some(master) = &parent.port_of {
        return Err(Error::conflict(format!(
            "{name} is a port of {master}, so no {} can be put on it",
            wish.driver.kind()
        ))
        .hint(format!("use -i {master}")));
    }
    check_layer(wish, parent)?;
    if parent.wireless && matches!(wish.driver, Driver::Macvlan(_)) && !wish.allow_wifi {
        return Err(Error::failed(format!(
            "{name} is a wifi interface: access points drop frames from MAC addresses that did not log in"
        ))
        .hint(
            "add --driver ipvlan, which has no address of its own, or use a wired interface; if this access point \
             accepts several addresses (4-address mode), add --allow-wifi",
        ));
    }
    if !parent.up {
        warnings.push(format!("{name} is down, so nothing can be reached by it yet; ip link set {name} up"));
    } else if !parent.carrier {
        warnings.push(format!("{name} has no carrier, so nothing can be reached by it yet; is the cable plugged in?"));
    }
    Ok(())
}

/// What iptables drops of what the parent passes on: told, or with `--allow-forward` to be accepted.
fn check_drops(wish: &Wish, facts: &Facts) -> Result<Option<String>> {
    let name = &facts.parent.name;
    let uses_ipv6 = wish.addresses.iter().any(|address| address.is_ipv6()) || !wish.advertised.is_nothing();
    let drops: Vec<&Dropping> = facts.bridged_drops.iter().filter(|drop| uses_ipv6 || !drop.ipv6).collect();
    let remedies = |drops: &[&Dropping]| drops.iter().map(|drop| drop.remedy(name)).collect::<Vec<_>>().join(" && ");
    let legacy: Vec<&Dropping> = drops.iter().copied().filter(|drop| drop.by == Iptables::Legacy).collect();
    if wish.allow_forward {
        return match legacy.is_empty() {
            true => Ok(None),
            false => Err(Error::failed(format!(
                "what {name} passes on is dropped by iptables-legacy, whose rules plumb cannot change"
            ))
            .hint(format!("{}; and leave --allow-forward out", remedies(&legacy)))),
        };
    }
    // Whether one of the older tables' rules accepts it is not looked for.
    let by_itself = match legacy.is_empty() {
        true => "--allow-forward lets it pass, or by hand: ",
        false => "unless you have had a rule accept it: ",
    };
    Ok((!drops.is_empty()).then(|| {
        format!(
            "iptables drops what {name} passes on (policy DROP of FORWARD, and bridge-nf-call-iptables; Docker sets \
             both); {by_itself}{}",
            remedies(&drops)
        )
    }))
}

/// That the parent speaks what the link does: Ethernet, or InfiniBand.
fn check_layer(wish: &Wish, parent: &Parent) -> Result<()> {
    let name = &parent.name;
    match wish.driver {
        Driver::Ipoib { .. } if parent.infiniband => Ok(()),
        Driver::Ipoib { .. } => {
            Err(Error::failed(format!("{name} is no InfiniBand interface, so it has no partitions"))
                .hint("leave --pkey out"))
        }
        _ if parent.infiniband => Err(Error::failed(format!(
            "{name} is an InfiniBand interface, so it cannot carry {}",
            wish.driver.with_article()
        ))
        .hint("leave --driver and --mode out: it gets a child of its own kind")),
        _ if !parent.ethernet => Err(Error::failed(format!(
            "{name} is not an Ethernet interface, so it cannot carry {}",
            wish.driver.with_article()
        ))),
        _ => Ok(()),
    }
}

/// The kernel refuses a second kind of link on a parent without saying which is there. A second mode
/// of ipvlan it takes, and changes that of all links that are there to it: that must not happen.
fn check_sibling(wish: &Wish, parent: &Parent, sibling: &Sibling) -> Result<()> {
    let Driver::Ipvlan(mode) = wish.driver else { return Ok(()) };
    let (parent, owner) = (&parent.name, &sibling.owner);
    let link = &sibling.link;
    if !matches!(link.kind.as_deref(), Some("ipvlan" | "ipvtap")) {
        let kind = link.kind.as_deref().unwrap_or("link of another kind");
        return Err(Error::conflict(format!(
            "{parent} has a {kind}, {} of {owner}, and an ipvlan cannot be beside it",
            link.name
        ))
        .hint("use --driver macvlan, or another parent; or detach that one"));
    }
    match link.mode.as_deref() {
        Some(other) if other != mode.name() => Err(Error::conflict(format!(
            "{parent} has an ipvlan in mode {other}, {} of {owner}, and all on one parent are in one mode",
            link.name
        ))
        .hint(format!("use --mode {other}, or another parent; or detach those that are there"))),
        _ => Ok(()),
    }
}

fn mtu(wish: &Wish, parent: &Parent) -> Result<Mtu> {
    let most = Mtu::try_from(parent.mtu).map_err(|reason| Error::failed(format!("{}: {reason}", parent.name)))?;
    match wish.mtu {
        // The kernel knows how much the hardware takes.
        Some(mtu) if wish.driver.moves() || wish.driver.leads_nowhere() => Ok(mtu),
        Some(mtu) if mtu > most => {
            Err(Error::failed(format!("MTU {mtu} is above that of {}, which is {most}", parent.name)).hint(format!(
                "give --mtu {most} or less, or leave it out; or raise the parent's: ip link set {} mtu {mtu}",
                parent.name
            )))
        }
        Some(mtu) => Ok(mtu),
        None => Ok(most),
    }
}

fn free_name(wish: &Wish, facts: &Facts) -> Result<IfName> {
    let inside = &facts.inside;
    let is_on_record = |name: &IfName| facts.on_record.iter().any(|other| other == name.as_str());
    match &wish.name {
        None => {
            // Fewer links than numbers, so one is free.
            let free =
                (1..).map(IfName::eth).find(|name| inside.link_named(name.as_str()).is_none() && !is_on_record(name));
            free.ok_or_else(|| Error::conflict("no interface name is free"))
        }
        Some(name) if inside.link_named(name.as_str()).is_some() => {
            let taken: Vec<&str> = inside.links.iter().map(|link| link.name.as_str()).collect();
            Err(Error::conflict(format!("{} already has an interface {name}", wish.target))
                .hint(format!("choose another with --name (it has {}), or leave --name out", taken.join(", "))))
        }
        Some(name) if is_on_record(name) => {
            Err(Error::conflict(format!("{} has an attachment on record as {name}, though renamed", wish.target))
                .hint(format!("choose another with --name, or plumb detach {} {name}", wish.target)))
        }
        Some(name) => Ok(name.clone()),
    }
}

/// An index that is free inside, and that no interface of the host has: kernels before 6.15 look it
/// up on the host as well, and refuse one that exists there.
///
/// It is not the parent's either: where the two are equal the kernel leaves out `IFLA_LINK`, and
/// tools then take the link for a physical one (openshift/origin#22784).
fn free_index(facts: &Facts) -> u32 {
    if facts.moving.is_some() {
        return free_for_one_that_moves(facts);
    }
    let least = if facts.is_host { 0 } else { ABOVE_THE_HOSTS };
    let highest = facts.inside.links.iter().map(|link| link.index).max().unwrap_or(0).max(least);
    let next = highest + 1;
    if next == facts.parent.index { next + 1 } else { next }
}

/// What moves keeps its index where that is free, and gets the next one where it is not: as the kernel does it
/// by itself, which before 5.13 nobody could change.
fn free_for_one_that_moves(facts: &Facts) -> u32 {
    let indexes = || facts.inside.links.iter().map(|link| link.index);
    let index = facts.parent.index;
    if indexes().any(|taken| taken == index) { indexes().max().unwrap_or(0) + 1 } else { index }
}

fn mac(wish: &Wish, name: &IfName, parent: &Parent) -> Result<Option<Mac>> {
    if wish.driver.has_no_mac_of_its_own() {
        return Ok(None);
    }
    if wish.driver.moves() {
        return Ok(if let MacRule::Given(mac) = wish.mac { Some(mac) } else { parent.mac });
    }
    let mac = match &wish.mac {
        MacRule::Given(mac) => *mac,
        MacRule::Derived { host: Some(host) } => Mac::derived(&["plumb mac", host, &wish.target, name.as_str()]),
        MacRule::Derived { host: None } => {
            return Err(Error::failed("this host has no machine id to derive a MAC address from")
                .hint("systemd-machine-id-setup makes one; or give --mac"));
        }
    };
    if parent.mac == Some(mac) {
        return Err(Error::conflict(format!("MAC {mac} is that of {} itself", parent.name))
            .hint("leave --mac out, or give another"));
    }
    Ok(Some(mac))
}

fn connect(wish: &Wish, link: &Link, inside: &Inside, tag: &Tag) -> Result<Vec<Step>> {
    let mut steps = vec![Step::AddLink(link.clone())];
    // What moves has its tag before it does.
    if !link.driver.moves() {
        steps.push(Step::AddTag(TaggedLink { index: link.index, name: link.name.clone(), tag: tag.clone() }));
    }
    let wants_ipv6 = wish.addresses.iter().any(|address| address.is_ipv6()) || !wish.advertised.is_nothing();
    let setting = |key: &str, from: &str, to: &str| Step::SetSysctl {
        key: format!("net/ipv6/conf/{}/{key}", link.name),
        from: from.to_owned(),
        to: to.to_owned(),
    };
    let Some(defaults) = &inside.ipv6 else {
        if wants_ipv6 {
            return Err(Error::failed(format!("{} has no IPv6: its kernel was started without it", wish.target))
                .hint("leave the IPv6 addresses out"));
        }
        return Ok(steps);
    };
    match wish.advertised {
        // A router's advertisement must not add addresses and default routes that nobody asked for.
        Advertised::Nothing if defaults.accept_ra != "0" && (wants_ipv6 || !defaults.disabled) => {
            steps.push(setting("accept_ra", &defaults.accept_ra, "0"));
        }
        Advertised::Nothing => {}
        Advertised::Routes | Advertised::Addresses => {
            steps.extend(heed_routers(wish, inside, &setting, &defaults.accept_ra));
        }
    }
    // Docker turns IPv6 off inside; here it is wanted, so on this interface it is on.
    if wants_ipv6 && defaults.disabled {
        steps.push(setting("disable_ipv6", "1", "0"));
    }
    Ok(steps)
}

/// That of default routes by advertisements (`IP6_RT_PRIO_USER`).
const ROUTERS_METRIC: &str = "1024";

/// The metric with which a router that advertises wins over the default routes that are there. These stay:
/// nobody knows when, or whether, a router will speak.
fn better_than_the_others(wish: &Wish, inside: &Inside) -> Option<u32> {
    let others = inside.routes.iter().filter(|route| route.is_default() && route.is_ipv6());
    let best = others.map(Route::metric).min().filter(|_| !wish.keep_default)?;
    Some(best.saturating_sub(1).max(1))
}

/// The settings by which the kernel takes what routers advertise, as the wish has it.
fn heed_routers(wish: &Wish, inside: &Inside, setting: &dyn Fn(&str, &str, &str) -> Step, accepts: &str) -> Vec<Step> {
    let mut steps = Vec::new();
    let autoconf = if wish.advertised == Advertised::Addresses { "1" } else { "0" };
    steps.push(setting("autoconf", "1", autoconf));
    if wish.keep_default {
        steps.push(setting("accept_ra_defrtr", "1", "0"));
    }
    if let Some(metric) = wish.metric.or_else(|| better_than_the_others(wish, inside)) {
        steps.push(setting("ra_defrtr_metric", ROUTERS_METRIC, &metric.to_string()));
    }
    if wish.skip_dad {
        steps.push(setting("accept_dad", "1", "0"));
    }
    // 1 would not do for a container that forwards (the kernel's Documentation/networking/ip-sysctl.rst).
    steps.push(setting("accept_ra", accepts, "2"));
    steps
}

pub(super) fn addresses(wish: &Wish, link: &Link, inside: &Inside, warnings: &mut Vec<String>) -> Result<Vec<Step>> {
    for address in &wish.addresses {
        if let Some(holder) = inside.holder_of(address.ip()) {
            return Err(Error::conflict(format!("{} already has {} on {holder}", wish.target, address.ip()))
                .hint(format!("plumb show {}", wish.target)));
        }
        let subnet = address.subnet();
        if let Some(other) = inside
            .routes
            .iter()
            .find(|route| route.destination() == Some(subnet) && route.gateway().is_none() && route.table() == 254)
        {
            let device = other.device().unwrap_or("another interface");
            warnings.push(format!("{} already reaches {subnet} by {device}: the two will compete", wish.target));
        }
    }
    let step = |address: &HostAddress| {
        Step::AddAddress(LinkAddress {
            index: link.index,
            name: link.name.clone(),
            address: *address,
            skip_dad: wish.skip_dad,
        })
    };
    Ok(wish.addresses.iter().map(step).collect())
}

pub(super) fn routes(wish: &Wish, link: &Link, inside: &Inside) -> Result<Vec<Step>> {
    let device = (link.index, link.name.as_str());
    let mut steps = Vec::new();
    if !wish.keep_default {
        for gateway in &wish.gateways {
            let ip = gateway.ip();
            let new = Route::new(None, Some(ip), wish.is_off_link(ip), wish.metric, device, ip.is_ipv6());
            steps.extend(default_route(new, wish.metric.is_some(), inside));
        }
    }
    for spec in &wish.routes {
        let route = route_by(spec, wish, link);
        if spec.is_default() {
            steps.extend(default_route(route, spec.metric.or(wish.metric).is_some(), inside));
            continue;
        }
        check_free(wish, &route, spec.destination, inside)?;
        steps.push(Step::AddRoute(route));
    }
    Ok(steps)
}

/// The route that `spec` means, by `link`.
pub(super) fn route_by(spec: &RouteSpec, wish: &Wish, link: &Link) -> Route {
    let via = spec.via.map(Gateway::ip);
    let onlink = via.is_some_and(|ip| wish.is_off_link(ip));
    let (metric, ipv6) = (spec.metric.or(wish.metric), spec.destination.is_ipv6());
    Route::new(Some(spec.destination), via, onlink, metric, (link.index, link.name.as_str()), ipv6)
}

/// Makes `new` the default route. One of equal metric is replaced in one request; unless a metric
/// was asked for, those that would win over it go as well. Worse ones stay.
fn default_route(new: Route, metric_was_asked_for: bool, inside: &Inside) -> Vec<Step> {
    let old: Vec<&Route> =
        inside.routes.iter().filter(|route| route.is_default() && route.is_ipv6() == new.is_ipv6()).collect();
    let mut steps = Vec::new();
    match old.iter().find(|route| route.competes_with(&new)) {
        Some(equal) => steps.push(Step::ReplaceRoute { old: (*equal).clone(), new: new.clone() }),
        None => steps.push(Step::AddRoute(new.clone())),
    }
    if !metric_was_asked_for {
        steps.extend(
            old.iter().filter(|route| route.metric() < new.metric()).map(|route| Step::DeleteRoute((*route).clone())),
        );
    }
    steps
}

/// The default routes that stay and win over one of `steps`.
pub(super) fn better_defaults(steps: &[Step], inside: &Inside) -> Vec<Route> {
    let new: Vec<&Route> = steps
        .iter()
        .filter_map(|step| match step {
            Step::AddRoute(new) | Step::ReplaceRoute { new, .. } => Some(new).filter(|route| route.is_default()),
            _ => None,
        })
        .collect();
    let wins = |route: &&Route| {
        route.is_default()
            && new.iter().any(|new| new.is_ipv6() == route.is_ipv6() && route.metric() < new.metric())
            && !steps.contains(&Step::DeleteRoute((*route).clone()))
    };
    inside.routes.iter().filter(wins).cloned().collect()
}

pub(super) fn check_free(wish: &Wish, route: &Route, destination: IpNetwork, inside: &Inside) -> Result<()> {
    match inside.routes.iter().find(|there| there.competes_with(route)) {
        None => Ok(()),
        Some(there) => {
            Err(Error::conflict(format!("{} already has a route to {destination}, by {}", wish.target, there.way()))
                .hint(format!(
                    "give this one a metric of its own: --route {destination},metric {}",
                    there.metric() + 100
                )))
        }
    }
}

#[cfg(test)]
mod tests;
