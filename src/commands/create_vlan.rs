//! `plumb create-vlan`: a network, and on request this host as its gateway.

use std::{collections::HashSet, net::IpAddr};

use super::{
    Context,
    attaching::{self, Intent, Joining, Uplink},
    require_capabilities,
};
use crate::{
    cli::{CreateVlan, ProtocolName},
    config,
    error::{Error, Kind, Result},
    ipam::{Pool, Unfit},
    kernel::Kernel,
    plan::{Driver, MacvlanMode, Parent, Wish, wiring::Forwarding},
    store::{
        Network,
        network::{self, Created, GatewayHost, Stored},
    },
    types::{IfName, IpRange, NetworkName, Span, Subnet, TargetName, VlanId, VlanProtocol},
};

pub fn run(options: CreateVlan, context: &Context) -> Result<()> {
    let name = options.name.clone().or_else(|| options.name_option.clone());
    let name = name.ok_or_else(|| Error::usage("the network has no name"))?;
    let interface = attaching::host_interface(options.host_interface.as_ref(), context)?;
    let pools = pools(&options)?;
    if options.router.gateway_here {
        require_capabilities()?;
    }
    let mut kernel = Kernel::with_host()?;
    let parent = attaching::parent(&mut kernel, &interface)?;
    check_parent(&parent, &options)?;
    let wanted = Wanted { name, parent: interface, pools, options: &options };
    let there = network::read(&*context.store, &wanted.name)?;
    let is_new = there.is_none();
    let stored = match there {
        Some(there) => wanted.again(there, context)?,
        None => wanted.anew(&parent, &mut kernel, context)?,
    };
    let became = if options.router.gateway_here { become_gateway(&stored, &options, context) } else { Ok(Vec::new()) };
    if is_new && !options.dry_run && became.as_ref().is_err_and(|error| error.kind != Kind::LeftBehind) {
        stored.remove(&*context.store)?;
    }
    let commands = became?;
    say(&stored.network, &options, commands, context);
    Ok(())
}

/// What was asked for.
struct Wanted<'a> {
    name: NetworkName,
    parent: IfName,
    pools: Vec<Pool>,
    options: &'a CreateVlan,
}

impl Wanted<'_> {
    fn protocol(&self) -> VlanProtocol {
        match self.options.protocol {
            ProtocolName::Dot1q => VlanProtocol::Dot1q,
            ProtocolName::Dot1ad => VlanProtocol::Dot1ad,
        }
    }

    fn gateway_host(&self, context: &Context) -> Option<GatewayHost> {
        self.options.router.gateway_here.then(|| GatewayHost {
            id: context.store.host().map(str::to_owned),
            name: config::host_name().unwrap_or_else(|| "this host".into()),
            interface: IfName::of_gateway(&self.name),
            nat: self.options.router.nat,
        })
    }

    /// A network that was not there.
    fn anew(self, parent: &Parent, kernel: &mut Kernel, context: &Context) -> Result<Stored> {
        let others = others(&self.name, &self.pools, context)?;
        let network = Network {
            format: network::FORMAT,
            id: id(self.options, parent, &others, kernel)?,
            gateway_host: self.gateway_host(context),
            protocol: self.protocol(),
            mtu: self.options.mtu,
            name: self.name,
            parent: self.parent,
            pools: self.pools,
        };
        let stored = Stored::new(network)?;
        if !self.options.dry_run {
            create(&stored, context)?;
        }
        Ok(stored)
    }

    /// One that is there already: the same command makes this host its gateway again, after a restart
    /// of the host or where a run was killed.
    fn again(&self, there: Stored, context: &Context) -> Result<Stored> {
        let Network { name, id, parent, protocol, mtu, pools, gateway_host, .. } = &there.network;
        let is_same = *parent == self.parent
            && *pools == self.pools
            && *mtu == self.options.mtu
            && *protocol == self.protocol()
            && self.options.id.is_none_or(|wanted| wanted == *id);
        if !is_same || !self.options.router.gateway_here {
            return Err(already(name));
        }
        if let Some(host) = gateway_host.as_ref().filter(|host| host.id.as_deref() != context.store.host()) {
            return Err(Error::conflict(format!("{} is the gateway of {name}", host.name))
                .hint(format!("plumb delete-vlan {name} on that host takes it away")));
        }
        let network = Network { gateway_host: self.gateway_host(context), ..there.network.clone() };
        if network == there.network || self.options.dry_run {
            Ok(there)
        } else {
            there.replace(network, &*context.store)
        }
    }
}

fn already(name: &NetworkName) -> Error {
    Error::conflict(format!("there is a network {name} already"))
        .hint(format!("plumb networks shows it; plumb delete-vlan {name} deletes it"))
}

fn pools(options: &CreateVlan) -> Result<Vec<Pool>> {
    let subnets = &options.subnet;
    if let Some((one, other)) = subnets
        .iter()
        .enumerate()
        .find_map(|(at, one)| Some((one, subnets[..at].iter().find(|other| other.is_ipv6() == one.is_ipv6())?)))
    {
        return Err(Error::usage(format!(
            "subnets {other} and {one} are of one IP version; a network has one of each"
        )));
    }
    let home = |ip: IpAddr| subnets.iter().any(|subnet| subnet.contains(ip));
    let strays = options.router.gateway.iter().map(|gateway| ("gateway", gateway.ip()));
    let strays = strays.chain(options.pool.reserve.iter().map(|ip| ("reserved address", *ip)));
    let strays = strays.filter(|(_, ip)| !home(*ip)).map(|(what, ip)| format!("{what} {ip}"));
    let ranges = options.pool.range.iter().filter(|range| !home(range.first()) || !home(range.last()));
    if let Some(stray) = strays.chain(ranges.map(|range| format!("range {range}"))).next() {
        let all: Vec<String> = subnets.iter().map(Subnet::to_string).collect();
        return Err(Error::usage(format!("{stray} is outside of {}", all.join(" and "))));
    }
    subnets.iter().map(|subnet| pool(*subnet, options)).collect()
}

fn pool(subnet: Subnet, options: &CreateVlan) -> Result<Pool> {
    let mut gateways = options.router.gateway.iter().map(|gateway| gateway.ip()).filter(|ip| subnet.contains(*ip));
    let gateway = gateways.next().unwrap_or(subnet.hosts().first());
    if let Some(second) = gateways.next() {
        return Err(Error::usage(format!("gateways {gateway} and {second} are both in {subnet}, which has one")));
    }
    subnet.host(gateway).map_err(|reason| Error::usage(format!("gateway {reason}")))?;
    let ranges: Vec<IpRange> =
        options.pool.range.iter().copied().filter(|range| subnet.contains(range.first())).collect();
    for (at, range) in ranges.iter().enumerate() {
        let overlaps = |other: &&IpRange| other.contains(range.first()) || range.contains(other.first());
        if let Some(other) = ranges[..at].iter().find(overlaps) {
            return Err(Error::usage(format!("ranges {other} and {range} overlap")));
        }
    }
    let reserved = options.pool.reserve.iter().copied().filter(|ip| subnet.contains(*ip)).collect();
    let pool = Pool { subnet, gateway, ranges, reserved };
    for end in pool.ranges.iter().flat_map(|range| [range.first(), range.last()]) {
        if let Err(Unfit::NoHost(reason)) = pool.fit(end) {
            return Err(Error::usage(format!("end of a range: {reason}")));
        }
    }
    if pool.capacity() == 0 {
        return Err(Error::usage(format!("no address of {subnet} is left for containers"))
            .hint("take a larger subnet or range, or reserve less"));
    }
    Ok(pool)
}

fn check_parent(parent: &Parent, options: &CreateVlan) -> Result<()> {
    let name = &parent.name;
    if parent.loopback {
        return Err(Error::failed(format!("{name} is the loopback interface: no VLAN leads out of it"))
            .hint("choose the interface that leads to the LAN"));
    }
    if let Some(master) = &parent.port_of {
        return Err(Error::conflict(format!("{name} is a port of {master}, which would take the VLAN's frames"))
            .hint(format!("-i {master}")));
    }
    match options.mtu {
        Some(mtu) if mtu.bytes() > parent.mtu => {
            Err(Error::failed(format!("MTU {mtu} is above that of {name}, which is {}", parent.mtu))
                .hint(format!("give --mtu {} or less; or raise it: ip link set {name} mtu {mtu}", parent.mtu)))
        }
        _ => Ok(()),
    }
}

/// The other networks, none of which may overlap with this one. One that cannot be read might. Who looked
/// for this one before may have been overtaken by who creates it too.
fn others(name: &NetworkName, pools: &[Pool], context: &Context) -> Result<Vec<Network>> {
    let others = network::all(&*context.store)?.into_iter().collect::<Result<Vec<Network>>>()?;
    if others.iter().any(|other| other.name == *name) {
        return Err(already(name));
    }
    for pool in pools {
        let overlapping = |other: &&Network| other.pools.iter().any(|theirs| theirs.subnet.overlaps(pool.subnet));
        if let Some(other) = others.iter().find(overlapping) {
            let theirs: Vec<String> = other.pools.iter().map(|pool| pool.subnet.to_string()).collect();
            let (subnet, other) = (pool.subnet, &other.name);
            return Err(Error::conflict(format!(
                "{subnet} overlaps with {}, which is network {other}",
                theirs.join(", ")
            ))
            .hint("choose another subnet; plumb networks lists all"));
        }
    }
    Ok(others)
}

/// The id that was asked for, or one that no network on this parent and no device of the host has.
fn id(options: &CreateVlan, parent: &Parent, others: &[Network], kernel: &mut Kernel) -> Result<VlanId> {
    if let Some(id) = options.id {
        let has_it = |other: &&Network| other.parent == parent.name && other.id == id;
        return others.iter().find(has_it).map_or(Ok(id), |other| Err(id_taken(id, &parent.name, other.name.as_str())));
    }
    let devices = kernel.host_links()?.into_iter().filter(|link| link.parent_index == Some(parent.index));
    let theirs = others.iter().filter(|other| other.parent == parent.name).map(|other| other.id);
    let taken: HashSet<VlanId> = devices.filter_map(|link| link.vlan).map(|(_, id)| id).chain(theirs).collect();
    let free: Vec<VlanId> =
        (1..=VlanId::MAX).filter_map(|id| id.try_into().ok()).filter(|id| !taken.contains(id)).collect();
    let chance = usize::from(u16::from_le_bytes(attaching::random()?));
    free.get(chance % free.len().max(1))
        .copied()
        .ok_or_else(|| Error::conflict(format!("all {} VLAN ids of {} are taken", VlanId::MAX, parent.name)))
}

fn id_taken(id: VlanId, parent: &IfName, other: &str) -> Error {
    Error::conflict(format!("VLAN {id} on {parent} is network {other}"))
        .hint("choose another --id, or leave it out for a free one")
}

fn create(stored: &Stored, context: &Context) -> Result<()> {
    let (store, network) = (&*context.store, &stored.network);
    match network.create(store)? {
        Created::Done => {}
        Created::NameTaken => return Err(already(&network.name)),
        Created::IdTaken(other) => return Err(id_taken(network.id, &network.parent, &other)),
    }
    store.flush(&Network::key(&network.name))?;
    // Two that are created at the same moment see one another now at the latest.
    let rivals = network::all(store)?.into_iter().flatten().filter(|other| other.name != network.name);
    let overlaps = |other: &Network| {
        other.pools.iter().any(|theirs| network.pools.iter().any(|ours| ours.subnet.overlaps(theirs.subnet)))
    };
    match rivals.into_iter().find(overlaps) {
        None => Ok(()),
        Some(other) => {
            stored.remove(store)?;
            Err(Error::conflict(format!("network {} overlaps, and was created at the same moment", other.name))
                .hint("choose another subnet"))
        }
    }
}

/// Attaches this host to its network with the gateways' addresses.
fn become_gateway(stored: &Stored, options: &CreateVlan, context: &Context) -> Result<Vec<String>> {
    let network = &stored.network;
    let interface = IfName::of_gateway(&network.name);
    let probe = context.config.probe.unwrap_or(Span::millis(200));
    let wish = Wish {
        name: Some(interface),
        keep_default: true,
        allow_wifi: true,
        skip_dad: probe.is_zero(),
        forwarding: Some(Forwarding {
            masquerade: network.pools.iter().map(|pool| pool.subnet).filter(|_| options.router.nat).collect(),
        }),
        ..Wish::of(&TargetName::Host, Driver::Macvlan(MacvlanMode::Bridge), attaching::derived_mac())
    };
    let joining = Joining::as_gateway(stored.clone());
    let uplink = Uplink::Network(Box::new(joining));
    let intent = Intent { uplink, lease: None, probe, check: Vec::new(), dry_run: options.dry_run };
    let attached = attaching::attach(&TargetName::Host, None, wish, &intent, context);
    let report = attached?;
    report.warnings.iter().for_each(|warning| context.output.warn(warning));
    Ok(report.commands)
}

fn say(network: &Network, options: &CreateVlan, commands: Vec<String>, context: &Context) {
    let output = context.output;
    output.document(&serde_json::json!({ "network": network, "dry_run": options.dry_run, "commands": commands }));
    if options.dry_run {
        commands.iter().for_each(|command| output.line(command));
    }
    let pools: Vec<String> = network.pools.iter().map(|pool| format!("{} via {}", pool.subnet, pool.gateway)).collect();
    let would = if options.dry_run { "would be " } else { "" };
    let (name, id, parent) = (&network.name, network.id, &network.parent);
    // The next run draws another one.
    let vlan = match options.id {
        None if options.dry_run => format!("a free VLAN, such as {id},"),
        _ => format!("VLAN {id}"),
    };
    output.line(format_args!("{name}: {would}{vlan} on {parent}, {}", pools.join(", ")));
    if let Some(host) = &network.gateway_host {
        let (is, nat) = (if options.dry_run { "would be" } else { "is" }, if host.nat { ", with NAT" } else { "" });
        output.line(format_args!("  this host {is} the gateway, by {}{nat}", host.interface));
    }
    if network.gateway_host.is_some() && network.pools.iter().any(|pool| pool.subnet.is_ipv6()) {
        output.warn(
            "IPv6 is not forwarded unless the host is told to, as it then ignores its own router's advertisements: \
             sysctl net.ipv6.conf.all.forwarding=1, and accept_ra=2 on the interface that leads out",
        );
    }
}
