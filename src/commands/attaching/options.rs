//! What the options mean that the verbs share: flag first, then the configuration, then what is built in.

use std::net::IpAddr;

use super::Uplink;
use crate::{
    cli::{CheckOptions, DriverName, LinkOptions, Mode},
    commands::Context,
    config,
    error::{Error, Result},
    kernel,
    plan::{Driver, IpvlanMode, MacvlanMode, Tuning, Wish, wiring::MacRule},
    types::{IfName, Span, TargetName, VlanId},
};

/// The host's interface that was named, here or in the configuration.
pub fn host_interface(typed: Option<&IfName>, context: &Context) -> Result<IfName> {
    typed.or(context.config.host_interface.as_ref()).cloned().ok_or_else(|| {
        Error::usage("which interface of the host leads to the LAN? -i is missing")
            .hint("-i eth0, or host-interface = \"eth0\" in the configuration; ip -br link lists them")
    })
}

/// That interface itself, or one of its VLANs: that of a bridge's port is the port's own.
pub fn uplink(typed: Option<&IfName>, vlan: Option<VlanId>, driver: &Driver, context: &Context) -> Result<Uplink> {
    let name = host_interface(typed, context)?;
    Ok(match vlan {
        Some(id) if !driver.needs_a_bridge() => Uplink::Vlan(name, id),
        _ => Uplink::Interface(name),
    })
}

/// How long the LAN is asked about an address, and whom to ping afterwards.
pub fn checks(
    options: &CheckOptions,
    gateways: impl Iterator<Item = IpAddr>,
    context: &Context,
) -> (Span, Vec<IpAddr>) {
    let probe = options.probe.or(context.config.probe).unwrap_or(Span::millis(200));
    let check_gateways = checks_gateway(options, context);
    let check = gateways.filter(|_| check_gateways).chain(options.check_host.iter().copied()).collect();
    (probe, check)
}

/// Whether the router is pinged afterwards.
pub fn checks_gateway(options: &CheckOptions, context: &Context) -> bool {
    options.check || !options.no_check && context.config.check.unwrap_or(true)
}

/// What is wished for the link; there are no addresses and no routes yet.
pub fn wish(target: &TargetName, options: &LinkOptions) -> Result<Wish> {
    Ok(Wish {
        name: options.name.clone(),
        mtu: options.mtu,
        allow_wifi: options.allow_wifi,
        tuning: tuning(options),
        allow_forward: options.allow_forward,
        ..Wish::of(target, driver(options)?, mac_rule(options))
    })
}

fn mac_rule(options: &LinkOptions) -> MacRule {
    options.mac.as_ref().map_or_else(derived_mac, |choice| MacRule::Given(choice.mac()))
}

pub fn derived_mac() -> MacRule {
    MacRule::Derived { host: config::host_identity() }
}

fn tuning(options: &LinkOptions) -> Tuning {
    let LinkOptions { big_tcp, txqueuelen, queues, bc_queue_len, .. } = *options;
    Tuning { big_tcp, txqueuelen, queues, bc_queue_len }
}

fn driver(options: &LinkOptions) -> Result<Driver> {
    let sources = &options.source_mac;
    if !sources.is_empty() && options.mode != Some(Mode::Source) {
        return Err(Error::usage("--source-mac has a meaning in mode source only").hint("add --mode source"));
    }
    if let Some(name) = &options.host_name
        && options.driver != DriverName::Veth
    {
        return Err(Error::usage(format!("--host-name {name} names the end of a veth that stays on the host"))
            .hint("add --driver veth, or leave it out"));
    }
    if options.allow_forward && options.driver != DriverName::Veth {
        return Err(Error::usage("--allow-forward is about what a bridge passes on, and only a veth is on one")
            .hint("add --driver veth, or leave it out"));
    }
    let macvlan = |mode| Ok(Driver::Macvlan(mode));
    let ipvlan = |mode| Ok(Driver::Ipvlan(mode));
    match (options.driver, options.mode) {
        (DriverName::Veth, None) => Ok(Driver::Veth { host_end: options.host_name.clone(), vlan: None, switch: None }),
        (DriverName::Veth, Some(_)) => {
            Err(Error::usage("a veth has no mode: its bridge decides who reaches whom").hint("leave --mode out"))
        }
        (DriverName::Macvlan, None | Some(Mode::Bridge)) => macvlan(MacvlanMode::Bridge),
        (DriverName::Macvlan, Some(Mode::Private)) => macvlan(MacvlanMode::Private),
        (DriverName::Macvlan, Some(Mode::Vepa)) => macvlan(MacvlanMode::Vepa),
        (DriverName::Macvlan, Some(Mode::Passthru)) => macvlan(MacvlanMode::Passthru),
        (DriverName::Macvlan, Some(Mode::Source)) => macvlan(MacvlanMode::Source(sources.clone())),
        (DriverName::Macvlan, Some(Mode::L2 | Mode::L3 | Mode::L3s)) => Err(Error::usage(
            "modes l2, l3 and l3s are ipvlan's; macvlan has bridge, private, vepa, passthru and source",
        )
        .hint("add --driver ipvlan")),
        (DriverName::Ipvlan, None | Some(Mode::L2)) => ipvlan(IpvlanMode::L2),
        (DriverName::Ipvlan, Some(Mode::L3)) => ipvlan(IpvlanMode::L3),
        (DriverName::Ipvlan, Some(Mode::L3s)) => ipvlan(IpvlanMode::L3s),
        (DriverName::Ipvlan, Some(Mode::Bridge | Mode::Private | Mode::Vepa | Mode::Passthru | Mode::Source)) => Err(
            Error::usage("modes bridge, private, vepa, passthru and source are macvlan's; ipvlan has l2, l3 and l3s")
                .hint("leave --mode out for l2, or give --driver macvlan"),
        ),
    }
}

/// A probe from beside the host's interface does not reach it, so the host's addresses are asked for here.
pub fn refuse_own_addresses(wish: &Wish) -> Result<()> {
    match wish.addresses.iter().find(|address| kernel::is_hosts_own(address.ip())) {
        Some(address) => {
            Err(Error::conflict(format!("{} is this host's own address", address.ip())).hint("choose another"))
        }
        None => Ok(()),
    }
}
