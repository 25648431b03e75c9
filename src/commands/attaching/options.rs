//! What the options mean that the verbs share: flag first, then the configuration, then what is built in.

use std::net::IpAddr;

use crate::{
    cli::{CheckOptions, DriverName, LinkOptions, Mode},
    commands::Context,
    config,
    error::{Error, Result},
    plan::{Driver, MacvlanMode, wiring::MacRule},
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
    let check_gateways = options.check || !options.no_check && context.config.check.unwrap_or(true);
    let check = gateways.filter(|_| check_gateways).chain(options.check_host.iter().copied()).collect();
    (probe, check)
}

pub fn mac_rule(options: &LinkOptions) -> MacRule {
    options.mac.as_ref().map_or_else(derived_mac, |choice| MacRule::Given(choice.mac()))
}

pub fn derived_mac() -> MacRule {
    MacRule::Derived { host: config::host_identity() }
}

pub fn driver(options: &LinkOptions) -> Result<Driver> {
    let DriverName::Macvlan = options.driver;
    let sources = &options.source_mac;
    if !sources.is_empty() && options.mode != Mode::Source {
        return Err(Error::usage("--source-mac has a meaning in mode source only").hint("add --mode source"));
    }
    Ok(Driver::Macvlan(match options.mode {
        Mode::Bridge => MacvlanMode::Bridge,
        Mode::Private => MacvlanMode::Private,
        Mode::Vepa => MacvlanMode::Vepa,
        Mode::Passthru => MacvlanMode::Passthru,
        Mode::Source => MacvlanMode::Source(sources.clone()),
    }))
}
