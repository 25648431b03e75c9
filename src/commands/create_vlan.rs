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
        network::{self, Histories},
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
    let others = others(&name, &pools, context)?;
    let mut network = Network {
        format: network::FORMAT,
        id: id(&options, &parent, &others, &mut kernel)?,
        name,
        protocol: match options.protocol {
            ProtocolName::Dot1q => VlanProtocol::Dot1q,
            ProtocolName::Dot1ad => VlanProtocol::Dot1ad,
        },
        parent: interface,
        mtu: options.mtu,
        pools,
        gateway_host: None,
    };
    if !options.dry_run {
        create(&network, context)?;
    }
    let commands =
        if options.router.gateway_here { become_gateway(&mut network, &options, context)? } else { Vec::new() };
    say(&network, &options, commands, context);
    Ok(())
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
    let ends =
        options.pool.range.iter().flat_map(|range| [range.first(), range.last()]).map(|ip| ("end of a range", ip));
    if let Some((what, ip)) = strays.chain(ends).find(|(_, ip)| !home(*ip)) {
        let all: Vec<String> = subnets.iter().map(Subnet::to_string).collect();
        return Err(Error::usage(format!("{what} {ip} is outside of {}", all.join(" and "))));
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

/// The other networks, none of which may have this one's name or overlap with it. One that cannot be
/// read might.
fn others(name: &NetworkName, pools: &[Pool], context: &Context) -> Result<Vec<Network>> {
    let others = network::all(&*context.store)?.into_iter().collect::<Result<Vec<Network>>>()?;
    if others.iter().any(|other| other.name == *name) {
        return Err(Error::conflict(format!("there is a network {name} already"))
            .hint(format!("plumb networks shows it; plumb delete-vlan {name} deletes it")));
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
        return Ok(id);
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

fn create(network: &Network, context: &Context) -> Result<()> {
    let store = &*context.store;
    if let Some(holder) = network.create(store)? {
        let (id, parent) = (network.id, &network.parent);
        return Err(Error::conflict(format!("VLAN {id} on {parent} is network {holder}"))
            .hint("choose another --id, or leave it out for a free one"));
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
            network.remove(store)?;
            Err(Error::conflict(format!("network {} overlaps, and was created at the same moment", other.name))
                .hint("choose another subnet"))
        }
    }
}

/// Attaches this host to its network with the gateways' addresses. If that fails the network goes.
fn become_gateway(network: &mut Network, options: &CreateVlan, context: &Context) -> Result<Vec<String>> {
    let interface = IfName::of_gateway(&network.name);
    network.gateway_host = Some(network::GatewayHost {
        id: context.store.host().map(str::to_owned),
        name: config::host_name().unwrap_or_else(|| "this host".into()),
        interface: interface.clone(),
        nat: options.router.nat,
    });
    let probe = context.config.probe.unwrap_or(Span::millis(200));
    let wish = Wish {
        target: TargetName::Host.to_string(),
        driver: Driver::Macvlan(MacvlanMode::Bridge),
        name: Some(interface),
        mac: attaching::derived_mac(),
        mtu: None,
        addresses: Vec::new(),
        gateways: Vec::new(),
        routes: Vec::new(),
        metric: None,
        keep_default: true,
        off_link_gateway: false,
        allow_wifi: true,
        skip_dad: probe.is_zero(),
        forwarding: Some(Forwarding {
            masquerade: network.pools.iter().map(|pool| pool.subnet).filter(|_| options.router.nat).collect(),
        }),
    };
    let joining = Joining {
        network: network.clone(),
        histories: Histories::default(),
        host_interface: network.parent.clone(),
        wanted: Vec::new(),
        as_gateway: true,
    };
    let uplink = Uplink::Network(Box::new(joining));
    let intent = Intent { uplink, lease: None, probe, check: Vec::new(), dry_run: options.dry_run };
    let attached = attaching::attach(&TargetName::Host, None, wish, &intent, context);
    let saved = attached.and_then(|report| {
        if !options.dry_run {
            network.save(&*context.store)?;
        }
        report.warnings.iter().for_each(|warning| context.output.warn(warning));
        Ok(report.commands)
    });
    if saved.as_ref().is_err_and(|error| error.kind != Kind::LeftBehind) && !options.dry_run {
        network.remove(&*context.store)?;
    }
    saved
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
    output.line(format_args!("{name}: {would}VLAN {id} on {parent}, {}", pools.join(", ")));
    match &network.gateway_host {
        Some(host) if host.nat => {
            output.line(format_args!("  this host is the gateway, by {}, with NAT", host.interface))
        }
        Some(host) => output.line(format_args!("  this host is the gateway, by {}", host.interface)),
        None => {}
    }
    if network.gateway_host.is_some() && network.pools.iter().any(|pool| pool.subnet.is_ipv6()) {
        output.warn(
            "IPv6 is not forwarded unless the host is told to, as it then ignores its own router's advertisements: \
             sysctl net.ipv6.conf.all.forwarding=1, and accept_ra=2 on the interface that leads out",
        );
    }
}
