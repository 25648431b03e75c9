//! `plumb delete-vlan`: a network goes, with all that belongs to it.

use super::{Context, attach, require_capabilities, take_back};
use crate::{
    cli::DeleteVlan,
    error::{Error, Result},
    store::{Attachment, Network, attachment},
    types::TargetName,
};

pub fn run(options: DeleteVlan, context: &Context) -> Result<()> {
    let (network, _) = attach::find(&options.name, context)?;
    let Members { here, elsewhere } = members(&network, context)?;
    refuse_elsewhere(&network, &elsewhere)?;
    let (gateway, containers): (Vec<_>, Vec<_>) = here.into_iter().partition(|a| a.target == TargetName::Host);
    if !options.force {
        refuse_attached(&network, &containers)?;
    }
    let name = &network.name;
    if options.dry_run {
        for member in containers.iter().chain(&gateway) {
            context.output.line(format_args!("{}: {} would be detached", member.target, member.interface()));
        }
        context.output.line(format_args!("{name}: would be deleted"));
        context.output.document(&serde_json::json!({ "dry_run": true, "network": network }));
        return Ok(());
    }
    let all: Vec<Attachment> = containers.into_iter().chain(gateway).collect();
    if !all.is_empty() {
        require_capabilities()?;
    }
    for member in &all {
        take_back::anywhere(context, member)?;
        context.output.line(format_args!("{}: {} detached", member.target, member.interface()));
    }
    take_back::vlan_devices_of(context, &all)?;
    release_the_lost(&network, context)?;
    network.remove(&*context.store)?;
    context.store.flush(&Network::key(name))?;
    context.output.line(format_args!("{name}: deleted"));
    let detached: Vec<_> =
        all.iter().map(|a| serde_json::json!({ "target": a.target, "interface": a.interface() })).collect();
    context.output.document(&serde_json::json!({ "deleted": name, "detached": detached }));
    Ok(())
}

/// Who is in a network: on this host, and on others that share the store.
struct Members {
    here: Vec<Attachment>,
    elsewhere: Vec<Attachment>,
}

fn members(network: &Network, context: &Context) -> Result<Members> {
    let store = &*context.store;
    let mut here: Vec<Attachment> = attachment::all(store, None)?.into_iter().collect::<Result<_>>()?;
    here.retain(|member| member.network.as_ref() == Some(&network.name));
    let mut elsewhere = Vec::new();
    for (_, owner) in network.given(store)? {
        if let Some(member) = attachment::owner(store, &owner)?.filter(|member| member.host.as_deref() != store.host())
        {
            elsewhere.push(member);
        }
    }
    Ok(Members { here, elsewhere })
}

/// What another host has in its containers only that host can take out.
fn refuse_elsewhere(network: &Network, members: &[Attachment]) -> Result<()> {
    if members.is_empty() {
        return Ok(());
    }
    let where_ =
        |member: &Attachment| format!("{} on {}", who(member), member.host_name.as_deref().unwrap_or("another host"));
    let list: Vec<String> = members.iter().map(where_).collect();
    Err(Error::conflict(format!("{} is in use on other hosts: {}", network.name, list.join(", ")))
        .hint("detach them there, with plumb detach or plumb delete-vlan --force, then delete it"))
}

fn refuse_attached(network: &Network, containers: &[Attachment]) -> Result<()> {
    if containers.is_empty() {
        return Ok(());
    }
    let list: Vec<String> = containers.iter().map(who).collect();
    Err(Error::conflict(format!("{} is in use by {}", network.name, list.join(", ")))
        .hint(format!("detach them, or plumb delete-vlan {} --force", network.name)))
}

fn who(member: &Attachment) -> String {
    match &member.target {
        TargetName::Host => format!("its gateway ({})", member.interface()),
        target => format!("{target} ({})", member.interface()),
    }
}

/// Claims that a killed run left without a record would outlive the network.
fn release_the_lost(network: &Network, context: &Context) -> Result<()> {
    let store = &*context.store;
    let given = network.given(store)?.into_iter();
    let releases: Vec<_> =
        given.map(|(ip, owner)| crate::store::Change::Release { claim: network.claim(ip), owner }).collect();
    store.commit(&releases).map(drop)
}
