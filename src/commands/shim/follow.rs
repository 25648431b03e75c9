//! The routes of a shim that nobody gave: one to each container on its parent, at all times.

use std::collections::BTreeSet;

use ipnetwork::IpNetwork;

use super::{is_on, shims};
use crate::{
    apply::all_or_nothing,
    commands::{Context, attaching::HostLock},
    error::Result,
    kernel::{Kernel, Netns},
    plan::{Route, Step},
    store::{Attachment, Progress, attachment},
    types::{IfName, Place, TargetName},
};

/// Makes the routes of the parent's shim, if it has one whose routes nobody gave, those to the containers
/// that are attached there now. The host must not be locked.
pub fn one(parent: &IfName, context: &Context) -> Result<()> {
    // Most parents have none, and the kernel says so at once.
    if nix::net::if_::if_nametoindex(IfName::of_shim(parent).as_str()).is_err() {
        return Ok(());
    }
    let _lock = HostLock::new()?;
    let automatic = |shim: &Attachment| is_on(shim, parent) && is_automatic(shim) && shim.progress == Progress::Done;
    let Some(shim) = shims(context)?.into_iter().find(automatic) else { return Ok(()) };
    let wanted = wanted(parent, context)?;
    Netns::of_this_thread()?.look_inside(|kernel| {
        let steps = steps(&shim, wanted, kernel)?;
        let mut observe = |step: &Step, took| context.output.step(&step.command(Place::HOST), took);
        all_or_nothing(kernel, &mut observe, Place::HOST, |tx| tx.run_all(&steps))
    })
}

/// The same for all parents.
pub fn all(context: &Context) -> Result<()> {
    let parents: BTreeSet<IfName> =
        shims(context)?.iter().filter_map(|shim| Some(shim.link()?.parent.name.clone())).collect();
    parents.iter().try_for_each(|parent| one(parent, context))
}

fn is_automatic(shim: &Attachment) -> bool {
    shim.network.is_none() && shim.wish.routes.is_empty()
}

/// The addresses of all that is attached to the parent, each as a network of its own.
pub fn wanted(parent: &IfName, context: &Context) -> Result<BTreeSet<IpNetwork>> {
    let kept = attachment::all(&*context.store, None)?;
    let here = |attachment: &Attachment| {
        let is_there = attachment.progress == Progress::Done && attachment.target != TargetName::Host;
        is_there && is_on(attachment, parent)
    };
    let attached = kept.into_iter().flatten().filter(here);
    Ok(attached.flat_map(|a| a.wish.addresses).map(|address| IpNetwork::from(address.ip())).collect())
}

/// The commands for the routes of a shim that is yet to be made.
pub fn commands(parent: &IfName, context: &Context) -> Result<Vec<String>> {
    let name = IfName::of_shim(parent);
    let add = |to: IpNetwork| Step::AddRoute(route(to, 0, name.as_str())).command(Place::HOST);
    Ok(wanted(parent, context)?.into_iter().map(add).collect())
}

fn steps(shim: &Attachment, mut wanted: BTreeSet<IpNetwork>, kernel: &mut Kernel) -> Result<Vec<Step>> {
    let links = kernel.links()?;
    let Some(link) = links.iter().find(|link| link.tag.as_ref() == Some(&shim.tag)) else { return Ok(Vec::new()) };
    let mut steps = Vec::new();
    for there in kernel.routes(&links)? {
        let is_ours = there.leaves_by() == Some(link.index) && there.table() == MAIN_TABLE;
        let Some(to) = there.destination().filter(|to| is_ours && is_one_address(to)) else { continue };
        // Its own address has a route of the kernel's.
        let is_own = shim.wish.addresses.iter().any(|address| address.ip() == to.ip());
        if !wanted.remove(&to) && !is_own {
            steps.push(Step::DeleteRoute(there));
        }
    }
    steps.extend(wanted.into_iter().map(|to| Step::AddRoute(route(to, link.index, &link.name))));
    Ok(steps)
}

const MAIN_TABLE: u32 = 254;

fn is_one_address(network: &IpNetwork) -> bool {
    network.prefix() == if network.is_ipv6() { 128 } else { 32 }
}

fn route(to: IpNetwork, index: u32, name: &str) -> Route {
    Route::new(Some(to), None, false, None, (index, name), to.is_ipv6())
}
