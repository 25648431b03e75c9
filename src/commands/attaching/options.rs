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
    types::{HostAddress, IfName, Span, TargetName, VlanId},
};

/// The host's interface that was named, here or in the configuration.
pub fn host_interface(typed: Option<&IfName>, context: &Context) -> Result<IfName> {
    typed.or(context.config.host_interface.as_ref()).cloned().ok_or_else(|| {
        Error::usage("which interface of the host leads to the LAN? -i is missing")
            .hint("-i eth0, or host-interface = \"eth0\" in the configuration; ip -br link lists them")
    })
}

/// What the link is to hang on: an interface of the host, or one of its VLANs; that of a bridge's port is the
/// port's own.
pub fn uplink(typed: Option<&IfName>, vlan: Option<VlanId>, driver: &Driver, context: &Context) -> Result<Uplink> {
    if driver.leads_nowhere() {
        return match (typed, vlan) {
            (None, None) => Ok(Uplink::Nowhere),
            (Some(name), _) => Err(Error::usage(format!("a dummy leads nowhere, so not to {name} either"))
                .hint("leave -i out, or --driver dummy")),
            (None, Some(id)) => Err(Error::usage(format!("a dummy leads nowhere, so it has no VLAN {id}"))
                .hint("leave --vlan out, or --driver dummy")),
        };
    }
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
        force: options.force,
        tuning: tuning(options),
        allow_forward: options.allow_forward,
        ..Wish::of(target, driver(options)?, mac_rule(options))
    })
}

/// The same for a link in a network.
pub fn network_wish(target: &TargetName, options: &LinkOptions) -> Result<Wish> {
    let wish = wish(target, options)?;
    if wish.driver.leads_nowhere() {
        return Err(
            Error::usage("a dummy leads nowhere, so not into a network either").hint("leave --driver dummy out")
        );
    }
    if wish.driver.moves() {
        return Err(Error::usage("a network's VLAN device is for all its containers, so it cannot move into one")
            .hint("leave --driver phys out; or give a container an interface of its own by plumb flat"));
    }
    Ok(wish)
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
    if options.force && options.driver != DriverName::Phys {
        return Err(Error::usage("--force has a meaning with --driver phys only").hint("leave it out"));
    }
    if let Some(pkey) = options.pkey {
        return match (options.driver, options.mode) {
            (DriverName::Macvlan, None) => Ok(Driver::Ipoib { pkey: Some(pkey) }),
            _ => Err(Error::usage(format!("P_Key {pkey} is for a child of an InfiniBand interface"))
                .hint("leave --driver and --mode out, or --pkey")),
        };
    }
    let macvlan = |mode| Ok(Driver::Macvlan(mode));
    let ipvlan = |mode| Ok(Driver::Ipvlan(mode));
    match (options.driver, options.mode) {
        (DriverName::Veth, None) => Ok(Driver::Veth { host_end: options.host_name.clone(), vlan: None, switch: None }),
        (DriverName::Veth, Some(_)) => {
            Err(Error::usage("a veth has no mode: its bridge decides who reaches whom").hint("leave --mode out"))
        }
        (DriverName::Dummy, None) => Ok(Driver::Dummy),
        (DriverName::Dummy, Some(_)) => {
            Err(Error::usage("a dummy has no mode: it leads nowhere").hint("leave --mode out"))
        }
        (DriverName::Phys, None) => Ok(Driver::Phys { home: None }),
        (DriverName::Phys, Some(_)) => {
            Err(Error::usage("phys has no mode: the interface itself moves").hint("leave --mode out"))
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

/// A dummy's address is nobody's business: machines that share the load of one have it there. What moves takes
/// its own along, which is seen to when it is known.
///
/// A probe from beside the host's interface does not reach it, so the host's addresses are asked for here.
pub fn refuse_own_addresses(wish: &Wish) -> Result<()> {
    if wish.driver.leads_nowhere() || wish.driver.moves() {
        return Ok(());
    }
    let own = |address: &&HostAddress| kernel::is_hosts_own(address.ip());
    wish.addresses.iter().find(own).map_or(Ok(()), |address| Err(is_own(*address)))
}

pub(super) fn is_own(address: HostAddress) -> Error {
    Error::conflict(format!("{} is this host's own address", address.ip())).hint("choose another")
}
