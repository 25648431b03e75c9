//! What attachments leave on the host itself: segments of a parent's, a port of Open vSwitch's, a rule of iptables, a
//! shim's routes, a device that nobody uses any more.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use super::device;
use crate::{
    apply,
    commands::{Context, shim as shims},
    error::Result,
    kernel::{Netns, iptables, ovs},
    namespace::{self, HostLock},
    plan::{
        Link, Segments, Step,
        bridged::Accepted,
        qdisc::{Device, Side},
        tuning,
    },
    shim,
    store::{Attachment, attachment},
    types::{IfName, Place},
};

/// Gives the parent the segments back that `gone` found there, if it was the last to raise them; otherwise
/// who raised them next gives them back one day. What somebody else has set since is theirs.
///
/// The lock, where there is one, is to be kept until `gone` is forgotten: another who goes meanwhile would leave it
/// what to give back, and nobody would do so.
pub fn parents_segments(context: &Context, gone: &Attachment) -> Result<Option<HostLock>> {
    if tuning::raised(&gone.steps).is_none() || !namespace::is_of_this_boot(gone) {
        return Ok(None);
    }
    let lock = HostLock::new()?;
    // Who raised them before it may have gone meanwhile, and have left it what to give back.
    let gone = &attachment::again(&*context.store, gone)?.unwrap_or_else(|| gone.clone());
    if let Some((on, before, raised)) = tuning::raised(&gone.steps) {
        give_back(context, gone, on, before, raised)?;
    }
    Ok(Some(lock))
}

/// An attempt that `failed` has put the parent's segments back to what it found. Who had raised them to that may have
/// gone meanwhile, and have left it what was before.
pub fn inherited_segments(context: &Context, failed: &Attachment) -> Result<()> {
    let Some((parent, found, _)) = tuning::raised(&failed.steps) else { return Ok(()) };
    let _lock = HostLock::new()?;
    let mut now = failed.clone();
    now.inherit(&*context.store)?;
    match tuning::raised(&now.steps) {
        Some((_, before, _)) if before != found => give_back(context, failed, parent, before, found),
        _ => Ok(()),
    }
}

fn give_back(context: &Context, gone: &Attachment, parent: &Device, before: Segments, raised: Segments) -> Result<()> {
    let kept: Vec<Attachment> = attachment::all(&*context.store, None)?.into_iter().flatten().collect();
    for heir in heirs(gone, kept.iter()) {
        // Its namespace is not locked: somebody may be changing it.
        if attachment::amend(&*context.store, heir, |heir| tuning::hand_down(&mut heir.steps, before))? {
            return Ok(());
        }
    }
    if segments_now(parent)? != Some(raised) {
        return Ok(());
    }
    do_on_the_host(context, given_back(parent, before, raised))
}

/// Those who raised the same parent's segments after it, oldest first.
fn heirs<'a>(gone: &Attachment, others: impl Iterator<Item = &'a Attachment>) -> Vec<&'a Attachment> {
    let parent = |a: &Attachment| tuning::raised(&a.steps).map(|(on, ..)| on.clone());
    let is_next = |other: &&Attachment| {
        let same = parent(other).is_some_and(|on| Some(on) == parent(gone));
        same && other.tag != gone.tag && other.begun > gone.begun && namespace::is_of_this_boot(*other)
    };
    let mut heirs: Vec<&Attachment> = others.filter(is_next).collect();
    heirs.sort_by_key(|other| other.begun);
    heirs
}

fn segments_now(parent: &Device) -> Result<Option<Segments>> {
    Netns::open(Path::new(Place::HOST))?.look_inside(|kernel| kernel.segments(parent.index))
}

fn given_back(parent: &Device, before: Segments, raised: Segments) -> Option<Step> {
    let on = Device { side: Side::Inside, ..parent.clone() };
    (before != raised).then_some(Step::SetSegments { on, from: raised, to: before })
}

fn do_on_the_host(context: &Context, step: Option<Step>) -> Result<()> {
    let Some(step) = step else { return Ok(()) };
    let mut observe = |step: &Step, took| context.output.step(&step.command(Place::HOST), took);
    Netns::open(Path::new(Place::HOST))?.look_inside(|kernel| apply::undo(kernel, &[step], &mut observe, Place::HOST))
}

/// Deletes the port of Open vSwitch's that `gone` had. Open vSwitch keeps it when its interface has gone, and
/// after a reboot.
pub fn port(context: &Context, gone: &Attachment) -> Result<()> {
    do_on_the_host(context, port_of(gone).map(Step::inverse))
}

fn port_of(gone: &Attachment) -> Option<&Step> {
    gone.steps.iter().find(|step| matches!(step, Step::AddPort(_)))
}

/// The rules that let pass what `bridge` passes on, if nobody on record needs them but those who are `going`.
pub fn rules_nobody_needs(context: &Context, bridge: &IfName, going: &[Attachment]) -> Result<Vec<Accepted>> {
    if is_accepted_for_somebody(context, bridge, going)? {
        return Ok(Vec::new());
    }
    Netns::open(Path::new(Place::HOST))?.look_inside(|_| accepted(context, bridge))
}

fn is_accepted_for_somebody(context: &Context, bridge: &IfName, going: &[Attachment]) -> Result<bool> {
    let needs = |a: &Attachment| {
        let goes = going.iter().any(|gone| gone.tag == a.tag);
        !goes && a.wish.allow_forward && a.link().is_some_and(|link| link.parent.name == *bridge)
    };
    Ok(attachment::all(&*context.store, None)?.iter().any(|kept| kept.as_ref().map_or(true, needs)))
}

/// This store's for the bridge, on the host, where the calling thread is.
fn accepted(context: &Context, bridge: &IfName) -> Result<Vec<Accepted>> {
    let own = iptables::accepted(&context.store.mark())?;
    Ok(own.into_iter().filter(|rule| rule.bridge == *bridge).collect())
}

/// Deletes them. They are the bridge's, as it is itself that of all its ports: a plan has no step for them, which
/// would be taken back under another who found them there. The caller has locked the host.
pub fn rules(context: &Context, bridge: &IfName) -> Result<()> {
    if is_accepted_for_somebody(context, bridge, &[])? {
        return Ok(());
    }
    let delete =
        |rule: Accepted| iptables::delete(&rule).map_err(|error| apply::left_behind(error, vec![rule.deletion()]));
    Netns::open(Path::new(Place::HOST))?.look_inside(|_| {
        // Which there are is not known.
        let own = accepted(context, bridge).map_err(|error| apply::left_behind(error, Vec::new()))?;
        own.into_iter().map(delete).fold(Ok(()), apply::both)
    })
}

/// What `attachments`, which have gone, leave on the host: a shim's routes to them, and devices and rules that
/// nobody needs any more. One that stays keeps no other from going.
pub fn on_the_host(context: &Context, attachments: &[Attachment]) -> Result<()> {
    shims::follow(parents(attachments), context).iter().for_each(|warning| context.output.warn(warning));
    let devices = devices(attachments);
    if devices.is_empty() {
        return Ok(());
    }
    let _lock = HostLock::new()?;
    devices.into_iter().map(|(name, accepts)| what_hung_on(context, name, accepts)).fold(Ok(()), apply::both)
}

/// The device of that name, and its rules if it `accepts` what it passes on, where nobody needs them any more. The
/// caller has locked the host.
pub fn what_hung_on(context: &Context, name: &IfName, accepts: bool) -> Result<()> {
    let ruled = if accepts { rules(context, name) } else { Ok(()) };
    apply::both(ruled, device::device(context, name))
}

fn parents(attachments: &[Attachment]) -> BTreeSet<&IfName> {
    attachments.iter().filter_map(|attachment| attachment.link()).map(|link| &link.parent.name).collect()
}

/// What they hung on and may be plumb's, each with whether one of them had it accept what it passes on. What was
/// none of plumb's needs no lock.
fn devices(attachments: &[Attachment]) -> BTreeMap<&IfName, bool> {
    let may_be_plumbs = |link: &Link| {
        link.driver.needs_a_bridge()
            || link.home().is_some_and(|home| home.device_tag.is_some())
            || Path::new("/proc/net/vlan").join(link.parent.name.as_str()).exists()
    };
    let mut devices = BTreeMap::new();
    for attachment in attachments {
        if let Some(link) = attachment.link().filter(|link| may_be_plumbs(link)) {
            *devices.entry(&link.parent.name).or_default() |= attachment.wish.allow_forward;
        }
    }
    devices
}

/// The commands that take away what those who are `going` leave on the host, in the order in which they go.
pub fn preview(context: &Context, going: &[Attachment]) -> Result<Vec<String>> {
    let mut commands = segments_preview(context, going)?;
    for step in going.iter().filter_map(port_of) {
        let is_there = |port| ovs::has(port).unwrap_or(true);
        commands
            .extend(matches!(step, Step::AddPort(port) if is_there(port)).then(|| step.inverse().command(Place::HOST)));
    }
    for parent in parents(going) {
        let (steps, _) = shim::following(parent, &*context.store, going)?;
        commands.extend(steps.iter().map(|step| step.command(Place::HOST)));
    }
    for (name, accepts) in devices(going) {
        let rules = if accepts { rules_nobody_needs(context, name, going)? } else { Vec::new() };
        commands.extend(rules.iter().map(Accepted::deletion));
        commands.extend(device::unused_device(context, name, going)?.iter().map(device::device_deletion));
    }
    Ok(commands)
}

fn segments_preview(context: &Context, going: &[Attachment]) -> Result<Vec<String>> {
    let mut commands = Vec::new();
    if going.iter().all(|gone| tuning::raised(&gone.steps).is_none()) {
        return Ok(commands);
    }
    let mut left: Vec<Attachment> = attachment::all(&*context.store, None)?.into_iter().flatten().collect();
    let mut now: BTreeMap<u32, Option<Segments>> = BTreeMap::new();
    for gone in going {
        let Some(at) = left.iter().position(|a| a.tag == gone.tag) else { continue };
        let gone = left.remove(at);
        let Some((parent, before, raised)) = tuning::raised(&gone.steps) else { continue };
        let heir = heirs(&gone, left.iter()).first().map(|heir| heir.tag.clone());
        if let Some(heir) = left.iter_mut().find(|a| Some(&a.tag) == heir.as_ref()) {
            tuning::hand_down(&mut heir.steps, before);
            continue;
        }
        let there = match now.get(&parent.index) {
            Some(there) => *there,
            None => segments_now(parent)?,
        };
        if there == Some(raised) && namespace::is_of_this_boot(&gone) {
            now.insert(parent.index, Some(before));
            commands.extend(given_back(parent, before, raised).map(|step| step.command(Place::HOST)));
        }
    }
    Ok(commands)
}
