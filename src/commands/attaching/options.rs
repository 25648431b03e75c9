//! What the options mean that the verbs share: flag first, then the configuration, then what is built in.

use std::net::IpAddr;

use crate::{
    cli::{CheckOptions, DriverName, LinkOptions, Mode},
    commands::Context,
    config,
    error::{Error, Result},
    plan::{Driver, IpvlanMode, MacvlanMode, Tuning, wiring::MacRule},
    types::{IfName, Span},
};

/// The host's interface that was named, here or in the configuration.
pub fn host_interface(typed: Option<&IfName>, context: &Context) -> Result<IfName> {
    typed.or(context.config.host_interface.as_ref()).cloned().ok_or_else(|| {
        Error::usage("which interface of the host leads to the LAN? -i is missing")
            .hint("-i eth0, or host-interface = \"eth0\" in the configuration; ip -br link lists them")
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

pub fn mac_rule(options: &LinkOptions) -> MacRule {
    options.mac.as_ref().map_or_else(derived_mac, |choice| MacRule::Given(choice.mac()))
}

pub fn derived_mac() -> MacRule {
    MacRule::Derived { host: config::host_identity() }
}

pub fn tuning(options: &LinkOptions) -> Tuning {
    let LinkOptions { big_tcp, txqueuelen, queues, bc_queue_len, .. } = *options;
    Tuning { big_tcp, txqueuelen, queues, bc_queue_len }
}

pub fn driver(options: &LinkOptions) -> Result<Driver> {
    let sources = &options.source_mac;
    if !sources.is_empty() && options.mode != Some(Mode::Source) {
        return Err(Error::usage("--source-mac has a meaning in mode source only").hint("add --mode source"));
    }
    let macvlan = |mode| Ok(Driver::Macvlan(mode));
    let ipvlan = |mode| Ok(Driver::Ipvlan(mode));
    match (options.driver, options.mode) {
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
