//! `plumb restore`: puts back what a reboot or a restart took: this host's own interfaces, and limits.

use super::{
    Context, attach, attaching,
    attaching::{Intent, Joining, Uplink},
    ls::State,
    qos, require_capabilities, shim,
};
use crate::{
    cli::Restore,
    error::{Error, Result},
    kernel::{Kernel, Netns},
    plan::{Wish, vlan::VlanDevice},
    store::{Attachment, Network, Progress, Record, attachment, shaped},
    types::{IfName, Span, TargetName},
};

pub fn run(options: &Restore, context: &Context) -> Result<()> {
    require_capabilities()?;
    let (mut restored, mut limited, mut failures) = (Vec::new(), Vec::new(), Vec::new());
    for kept in attachment::all(&*context.store, Some(&TargetName::Host))? {
        match kept {
            Err(error) => failures.push(error),
            Ok(record) if record.progress == Progress::Unfinished => {}
            Ok(record) if matches!(State::of(&record), State::Up | State::Down) => {}
            Ok(record) => match put_back(&record, options, context) {
                Ok(()) => restored.push(record.interface().to_owned()),
                Err(error) => failures.push(error),
            },
        }
    }
    if !options.dry_run {
        shim::follow_all(context)?.iter().for_each(|warning| context.output.warn(warning));
    }
    for kept in shaped::all(&*context.store, None)? {
        match kept.and_then(|record| Ok(qos::restore(&record, options.dry_run, context)?.then_some(record))) {
            Ok(record) => limited.extend(record),
            Err(error) => failures.push(error),
        }
    }
    let (is, are) = if options.dry_run { ("would be put back", "would be put back") } else { ("is back", "are back") };
    restored.iter().for_each(|interface| context.output.line(format_args!("{interface} {is}")));
    for record in &limited {
        context.output.line(format_args!("{}: limits of {} {are}", record.target, record.interface));
    }
    if restored.is_empty() && limited.is_empty() && failures.is_empty() {
        context.output.line("there is nothing to put back");
    }
    let limits: Vec<_> =
        limited.iter().map(|r| serde_json::json!({ "target": r.target, "interface": r.interface })).collect();
    let document = serde_json::json!({ "dry_run": options.dry_run, "restored": restored, "limits": limits });
    context.output.conclude(document, failures)
}

/// One of the host's own: a shim or a gateway.
fn put_back(record: &Attachment, options: &Restore, context: &Context) -> Result<()> {
    let Some(link) = record.link() else {
        return Err(Error::failed(format!("the record of {} names no link", record.key())));
    };
    // The host's way out may be another by now.
    shim::guard::check(record.wish.routes.iter().map(|route| route.destination), &Netns::of_this_thread()?)?;
    let uplink = match &record.network {
        None => Uplink::Interface(link.parent.name.clone()),
        Some(name) => {
            let stored = attach::find(name, context)?;
            let had = record.wish.addresses.iter().map(|address| address.ip());
            let fits = |ip: &std::net::IpAddr| stored.network.pools.iter().any(|pool| pool.fit(*ip).is_ok());
            let wanted = had.filter(fits).collect();
            Uplink::Network(Box::new(match record.is_gateway() {
                true => Joining::as_gateway(stored),
                false => Joining::new(stored.clone(), carrier(&stored.network, &link.parent.name)?, wanted),
            }))
        }
    };
    // Nobody but this host had its addresses before, and the LAN may not be there yet.
    let intent = Intent { uplink, lease: None, probe: Span::millis(0), check: Vec::new(), dry_run: options.dry_run };
    // What a network gave, it gives again.
    let addresses = if record.network.is_some() { Vec::new() } else { record.wish.addresses.clone() };
    let wish = Wish { addresses, name: Some(link.name.clone()), ..record.wish.clone() };
    attaching::attach(&TargetName::Host, None, wish, &intent, context).map(drop)
}

/// The interface of this host on which the network's device has this name: the network's own, unless
/// another was chosen.
fn carrier(network: &Network, device: &IfName) -> Result<IfName> {
    let is_on =
        |name: &IfName| VlanDevice::new(name.clone(), network.id, network.protocol, network.mtu).name == *device;
    let names = Kernel::with_host()?.host_names()?;
    let found = names.into_iter().filter_map(|name| name.parse().ok()).find(is_on);
    Ok(found.unwrap_or_else(|| network.parent.clone()))
}
