//! `plumb flat`: a static address on the host's own layer 2.

use super::{
    Context,
    attaching::{self, Intent, Uplink},
};
use crate::{
    cli::Flat,
    error::{Error, Result},
    kernel,
    plan::Wish,
    types::IpChoice,
};

pub fn run(options: Flat, context: &Context) -> Result<()> {
    let (wish, intent) = meaning(&options, context)?;
    wish.check()?;
    refuse_own_addresses(&wish)?;
    attaching::run(&options.target, options.wait, wish, &intent, context)
}

/// From what was typed to what is meant: flag first, then the configuration, then what is built in.
fn meaning(options: &Flat, context: &Context) -> Result<(Wish, Intent)> {
    let parent = attaching::host_interface(options.host_interface.as_ref(), context)?;
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
    let intent = Intent { uplink: Uplink::Interface(parent), lease: None, probe, check, dry_run: options.dry_run };
    let wish = Wish {
        target: options.target.to_string(),
        driver: attaching::driver(&options.link)?,
        name: options.link.name.clone(),
        mac: attaching::mac_rule(&options.link),
        mtu: options.link.mtu,
        addresses,
        gateways: options.gateway.clone(),
        routes: options.routing.route.clone(),
        metric: options.routing.metric,
        keep_default: options.routing.keep_default,
        off_link_gateway: options.routing.off_link_gateway,
        allow_wifi: options.link.allow_wifi,
        skip_dad: probe.is_zero(),
        tuning: attaching::tuning(&options.link),
        forwarding: None,
    };
    Ok((wish, intent))
}

/// A container's probe does not reach its own host, so the host's addresses are asked for here.
fn refuse_own_addresses(wish: &Wish) -> Result<()> {
    match wish.addresses.iter().find(|address| kernel::is_hosts_own(address.ip())) {
        Some(address) => {
            Err(Error::conflict(format!("{} is this host's own address", address.ip())).hint("choose another"))
        }
        None => Ok(()),
    }
}
