//! `plumb attach`: a container joins a network.

use std::net::IpAddr;

use super::{
    Context,
    attaching::{self, Intent, Joining, Uplink},
};
use crate::{
    cli::{Attach, RoutingOptions},
    error::{Error, Result},
    plan::Wish,
    store::{
        Network,
        network::{self, Stored},
    },
    types::{NetworkName, WantedIp, nearest},
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

/// The addresses of the network that were asked for, if they are its own and one of each of its subnets.
pub fn addresses_of(network: &Network, asked: &[WantedIp]) -> Result<Vec<IpAddr>> {
    for wanted in asked {
        let address = network.address(wanted.ip)?;
        if wanted.prefix.is_some_and(|prefix| prefix != address.prefix()) {
            let (name, right) = (&network.name, address.prefix());
            return Err(
                Error::usage(format!("the prefix length of {name} is {right}")).hint(format!("--ip {}", wanted.ip))
            );
        }
    }
    let wanted: Vec<_> = asked.iter().map(|wanted| wanted.ip).collect();
    for pool in &network.pools {
        let of_this = wanted.iter().filter(|ip| pool.subnet.contains(**ip)).count();
        if of_this > 1 {
            return Err(Error::usage(format!("a container has one address of {}", pool.subnet)).hint("give --ip once"));
        }
    }
    Ok(wanted)
}

fn meaning(options: &Attach, stored: Stored, context: &Context) -> Result<(Wish, Intent)> {
    let network = &stored.network;
    let wanted = addresses_of(network, &options.ip)?;
    let RoutingOptions { route, metric, keep_default, off_link_gateway } = &options.routing;
    let link = attaching::network_wish(&options.target, &options.link)?;
    let uses_gateway = !keep_default && !link.driver.is_routed_by_the_host();
    let gateways = network.pools.iter().map(|pool| pool.gateway).filter(|_| uses_gateway);
    let (probe, check) = attaching::checks(&options.checks, gateways, context);
    let wish = Wish {
        routes: route.clone(),
        metric: *metric,
        keep_default: *keep_default,
        off_link_gateway: *off_link_gateway,
        skip_dad: probe.is_zero(),
        ..link
    };
    let host_interface = options.host_interface.clone().unwrap_or_else(|| network.parent.clone());
    let joining = Joining::new(stored, host_interface, wanted);
    Ok((
        wish,
        Intent { uplink: Uplink::Network(Box::new(joining)), lease: None, probe, check, dry_run: options.dry_run },
    ))
}
