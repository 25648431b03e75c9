//! `plumb flat`: a static address on the host's own layer 2.

use super::{
    Context,
    attaching::{self, Intent},
};
use crate::{
    cli::{Flat, RoutingOptions},
    error::{Error, Result},
    plan::Wish,
    types::IpChoice,
};

pub fn run(options: Flat, context: &Context) -> Result<()> {
    let (wish, intent) = meaning(&options, context)?;
    wish.check()?;
    attaching::refuse_own_addresses(&wish)?;
    attaching::run(&options.target, options.wait, wish, &intent, context)
}

/// From what was typed to what is meant: flag first, then the configuration, then what is built in.
fn meaning(options: &Flat, context: &Context) -> Result<(Wish, Intent)> {
    let link = attaching::wish(&options.target, &options.link)?;
    let uplink = attaching::uplink(options.host_interface.as_ref(), options.vlan, &link.driver, context)?;
    let mut addresses = Vec::new();
    for choice in &options.ip {
        match choice {
            IpChoice::Address(address) => addresses.push(*address),
            IpChoice::None if options.ip.len() > 1 => {
                return Err(Error::usage("--ip none cannot stand beside other addresses"));
            }
            IpChoice::None => {}
        }
    }
    let gateways = options.gateway.iter().map(|gateway| gateway.ip());
    let (probe, check) = attaching::checks(&options.checks, gateways, context);
    let intent = Intent { uplink, lease: None, probe, check, dry_run: options.dry_run };
    let RoutingOptions { route, metric, keep_default, off_link_gateway } = &options.routing;
    let wish = Wish {
        addresses,
        gateways: options.gateway.clone(),
        routes: route.clone(),
        metric: *metric,
        keep_default: *keep_default,
        off_link_gateway: *off_link_gateway,
        skip_dad: probe.is_zero(),
        driver: link.driver.clone().in_vlan(options.vlan),
        ..link
    };
    Ok((wish, intent))
}
