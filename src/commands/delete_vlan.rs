//! `plumb delete-vlan`: a network goes, with all that belongs to it.

use super::{Context, attach, require_capabilities, take_back};
use crate::{
    cli::DeleteVlan,
    error::{Error, Result},
    store::{Attachment, Change, Network, attachment},
    types::TargetName,
};

pub fn run(options: DeleteVlan, context: &Context) -> Result<()> {
    let stored = attach::find(&options.name, context)?;
    if options.dry_run {
        return dry_run(&stored.network, &options, context);
    }
    let mut detached = Vec::new();
    // Who joins meanwhile is detached, or named, as those are who were in it before.
    for _ in 0..ATTEMPTS {
        detached.extend(empty(&stored.network, &options, context)?);
        if stored.remove(&*context.store)? {
            context.store.flush(&Network::key(&stored.network.name))?;
            let name = &stored.network.name;
            context.output.line(format_args!("{name}: deleted"));
            context.output.document(&serde_json::json!({ "deleted": name, "detached": named(&detached) }));
            return Ok(());
        }
    }
    Err(Error::conflict(format!("{} is changed, or joined, all the time", stored.network.name))
        .hint("run the command again; plumb networks shows how it is now"))
}

const ATTEMPTS: usize = 5;

/// Takes out who is in the network, if that is what is wanted, and all that belongs to it on this host.
fn empty(network: &Network, options: &DeleteVlan, context: &Context) -> Result<Vec<Attachment>> {
    let all = members_to_detach(network, options, context)?;
    if !all.is_empty() {
        require_capabilities()?;
    }
    for member in &all {
        take_back::anywhere(context, member)?;
        context.output.line(format_args!("{} detached", who(member)));
    }
    take_back::on_the_host(context, &all)?;
    release_the_lost(network, context)?;
    Ok(all)
}

/// Containers first, then the gateway that they may need until then.
fn members_to_detach(network: &Network, options: &DeleteVlan, context: &Context) -> Result<Vec<Attachment>> {
    let Members { here, elsewhere } = members(network, context)?;
    refuse_elsewhere(network, &elsewhere)?;
    let (gateway, containers): (Vec<_>, Vec<_>) = here.into_iter().partition(Attachment::is_gateway);
    if !options.force {
        refuse_attached(network, &containers)?;
    }
    Ok(containers.into_iter().chain(gateway).collect())
}

fn dry_run(network: &Network, options: &DeleteVlan, context: &Context) -> Result<()> {
    let all = members_to_detach(network, options, context)?;
    all.iter().for_each(|member| context.output.line(format_args!("{} would be detached", who(member))));
    context.output.line(format_args!("{}: would be deleted", network.name));
    let detached = named(&all);
    context.output.document(&serde_json::json!({ "dry_run": true, "network": network, "detached": detached }));
    Ok(())
}

fn named(members: &[Attachment]) -> Vec<serde_json::Value> {
    members.iter().map(|a| serde_json::json!({ "target": a.target, "interface": a.interface() })).collect()
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
    let who_and_where =
        |member: &Attachment| format!("{} on {}", who(member), member.host_name.as_deref().unwrap_or("another host"));
    let list: Vec<String> = members.iter().map(who_and_where).collect();
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
        TargetName::Host if member.is_gateway() => format!("its gateway ({})", member.interface()),
        TargetName::Host => format!("this host's shim ({})", member.interface()),
        target => format!("{target} ({})", member.interface()),
    }
}

/// Claims that a killed run left without a record would keep the network.
fn release_the_lost(network: &Network, context: &Context) -> Result<()> {
    let store = &*context.store;
    for (ip, owner) in network.given(store)? {
        let claim = network.claim(ip);
        if let Some(conditions) = attachment::lost_claim(store, &claim, &owner)? {
            // Where it is lost no more it is somebody's, and the network is in use.
            let _ = store.commit_if(&conditions, &[Change::Release { claim, owner }])?;
        }
    }
    Ok(())
}
