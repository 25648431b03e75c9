//! `plumb attach`: a container joins a network.

use super::{
    Context,
    attaching::{self, Intent, Joining, Uplink},
};
use crate::{
    cli::Attach,
    error::{Error, Result},
    plan::Wish,
    store::network::{self, Stored},
    types::{NetworkName, nearest},
};

pub fn run(options: Attach, context: &Context) -> Result<()> {
    let network = find(&options.network, context)?;
    let (wish, intent) = meaning(&options, network, context)?;
    attaching::run(&options.target, options.wait, wish, &intent, context)
}

/// The network of this name; if there is none, perhaps the one that was meant.
pub fn find(name: &NetworkName, context: &Context) -> Result<Stored> {
    let store = &*context.store;
    if let Some(found) = network::read(store, name)? {
        return Ok(found);
    }
    let names: Vec<String> =
        network::all(store)?.into_iter().flatten().map(|network| network.name.to_string()).collect();
    let hint = match nearest(name.as_str(), names.iter().map(String::as_str)) {
        Some(near) => format!("did you mean {near}?"),
        None if names.is_empty() => format!("plumb create-vlan {name} --subnet 10.1.0.0/24 -i eth0 makes it"),
        None => format!("there are {}; plumb networks tells more", names.join(", ")),
    };
    Err(Error::not_found(format!("there is no network {name}")).hint(hint))
}

fn meaning(options: &Attach, stored: Stored, context: &Context) -> Result<(Wish, Intent)> {
    let network = &stored.network;
    for wanted in &options.ip {
        let address = network.address(wanted.ip)?;
        if wanted.prefix.is_some_and(|prefix| prefix != address.prefix()) {
            let (name, right) = (&network.name, address.prefix());
            return Err(
                Error::usage(format!("the prefix length of {name} is {right}")).hint(format!("--ip {}", wanted.ip))
            );
        }
    }
    let wanted: Vec<_> = options.ip.iter().map(|wanted| wanted.ip).collect();
    for pool in &network.pools {
        let of_this = wanted.iter().filter(|ip| pool.subnet.contains(**ip)).count();
        if of_this > 1 {
            return Err(Error::usage(format!("a container has one address of {}", pool.subnet)).hint("give --ip once"));
        }
    }
    let driver = attaching::driver(&options.link)?;
    let uses_gateway = !options.routing.keep_default && !driver.is_routed_by_the_host();
    let gateways = network.pools.iter().map(|pool| pool.gateway).filter(|_| uses_gateway);
    let (probe, check) = attaching::checks(&options.checks, gateways, context);
    let wish = Wish {
        target: options.target.to_string(),
        driver,
        name: options.link.name.clone(),
        mac: attaching::mac_rule(&options.link),
        mtu: options.link.mtu,
        addresses: Vec::new(),
        gateways: Vec::new(),
        routes: options.routing.route.clone(),
        metric: options.routing.metric,
        keep_default: options.routing.keep_default,
        off_link_gateway: options.routing.off_link_gateway,
        allow_wifi: options.link.allow_wifi,
        skip_dad: probe.is_zero(),
        tuning: attaching::tuning(&options.link),
        forwarding: None,
    };
    let host_interface = options.host_interface.clone().unwrap_or_else(|| network.parent.clone());
    let joining = Joining::new(stored, host_interface, wanted);
    Ok((
        wish,
        Intent { uplink: Uplink::Network(Box::new(joining)), lease: None, probe, check, dry_run: options.dry_run },
    ))
}
