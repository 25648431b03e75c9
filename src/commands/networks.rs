//! `plumb networks`: the networks that there are.

use comfy_table::{Table, presets};
use serde::Serialize;

use super::{Context, ls::State};
use crate::{
    error::Result,
    ipam::Pool,
    output::flush_left,
    store::{Attachment, Network, attachment, network},
    types::TargetName,
};

pub fn run(context: &Context) -> Result<()> {
    let all = network::all(&*context.store)?;
    // That the store does not tell who has the addresses is no damaged record.
    let row = |kept: Result<Network>| kept.map_or_else(|damaged| Ok(Err(damaged)), |n| Row::new(n, context).map(Ok));
    let rows = all.into_iter().map(row).collect::<Result<_>>()?;
    context.output.list("networks", rows, "there are no networks", table);
    lost_gateways(context)?.iter().for_each(|warning| context.output.warn(warning));
    Ok(())
}

/// A gateway that this host is on record as, and is not: nobody in its network has a way out.
fn lost_gateways(context: &Context) -> Result<Vec<String>> {
    let own = attachment::all(&*context.store, Some(&TargetName::Host))?;
    let gateways = own.into_iter().flatten().filter(Attachment::is_gateway);
    let how = |gateway: Attachment| match (gateway.network.as_ref(), State::of(&gateway)) {
        (_, State::Up | State::Unplugged | State::Unknown | State::Unfinished) | (None, _) => None,
        (Some(name), State::Down) => {
            let interface = gateway.interface();
            Some(format!("{interface}, this host's gateway of {name}, is down; ip link set {interface} up"))
        }
        (Some(name), State::Missing | State::Stopped) => Some(format!(
            "{}, this host's gateway of {name}, has gone; plumb restore brings it back",
            gateway.interface()
        )),
    };
    Ok(gateways.filter_map(how).collect())
}

#[derive(Serialize)]
struct Row {
    #[serde(flatten)]
    network: Network,
    usage: Vec<Usage>,
}

/// How many addresses of a pool are given, and how many can still be.
#[derive(Serialize)]
struct Usage {
    used: u128,
    free: u128,
}

impl Row {
    fn new(network: Network, context: &Context) -> Result<Row> {
        let given = network.given(&*context.store)?;
        let usage = |pool: &Pool| {
            // A gateway's own claim is none of a container's.
            let used = given.iter().filter(|(ip, _)| pool.subnet.contains(*ip) && *ip != pool.gateway);
            let chosen = used.clone().filter(|(ip, _)| pool.could_choose(*ip)).count() as u128;
            Usage { used: used.count() as u128, free: pool.capacity().saturating_sub(chosen) }
        };
        let usage = network.pools.iter().map(usage).collect();
        Ok(Row { network, usage })
    }
}

fn table(rows: &[Row]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["NETWORK", "VLAN", "PARENT", "SUBNET", "USED", "FREE", "GATEWAY", "BY"]);
    for Row { network, usage } in rows {
        for (at, (pool, usage)) in network.pools.iter().zip(usage).enumerate() {
            // What the network is stands once, before the first of its subnets.
            let once = |text: String| if at == 0 { text } else { String::new() };
            let by = network.gateway_host.as_ref().map_or("-".to_owned(), |host| match host.nat {
                true => format!("{} (NAT)", host.name),
                false => host.name.clone(),
            });
            table.add_row([
                once(network.name.to_string()),
                once(network.id.to_string()),
                once(network.parent.to_string()),
                pool.subnet.to_string(),
                usage.used.to_string(),
                many(usage.free),
                pool.gateway.to_string(),
                once(by),
            ]);
        }
    }
    flush_left(table)
}

/// An IPv6 subnet has more than anybody wants to read.
fn many(count: u128) -> String {
    if count < 1_000_000 { count.to_string() } else { format!("2^{:.0}", (count as f64).log2()) }
}
