//! Takes an attachment back and forgets it: what detach, gc and a new attempt after a killed run share.

use std::{collections::BTreeSet, net::IpAddr, path::Path};

use super::{Context, agent, namespace, qos, shim};
use crate::{
    apply,
    dhcp::v6,
    error::{Error, Result},
    kernel::{
        Kernel, Netns,
        dhcp::{self, boot_time},
        dhcp6, ovs, survey,
    },
    namespace::HostLock,
    plan::{
        Driver, Inside, Link, Step, Wish,
        facts::{InsideAddress, InsideLink},
        link::GROUP,
        qdisc::{Device, Side},
        tuning, undo,
    },
    store::{Attachment, attachment, lease, shaped},
    types::{IfName, Place},
};

/// Takes `attachment` back and forgets it. The caller holds the namespace's lock. What could not be
/// taken back stays on record, so that it can be tried again.
pub fn here(context: &Context, attachment: &Attachment, namespace: &Netns, kernel: &mut Kernel) -> Result<()> {
    let Some(attachment) = &attachment::again(&*context.store, attachment)? else { return Ok(()) };
    undo_here(context, attachment, namespace, kernel)?;
    forget(context, attachment)
}

/// With the attachment its limits are forgotten; of one that was never finished the earlier one's stay.
fn forget(context: &Context, attachment: &Attachment) -> Result<()> {
    parents_segments(context, attachment)?;
    port(context, attachment)?;
    if !attachment.is_unfinished() {
        // Since it was renamed they are kept under its new name.
        let names = BTreeSet::from([attachment.interface(), attachment.name_now()]);
        names.into_iter().try_for_each(|name| shaped::forget_of(&*context.store, &attachment.target, name))?;
    }
    attachment.forget(&*context.store)?;
    tell_the_agent(context, attachment);
    Ok(())
}

/// That there is nothing left to renew.
fn tell_the_agent(context: &Context, attachment: &Attachment) {
    if attachment.dhcp.is_some() {
        agent::mention(lease::key_of(attachment), context);
    }
}

fn undo_here(context: &Context, attachment: &Attachment, namespace: &Netns, kernel: &mut Kernel) -> Result<()> {
    if !namespace::is_same(attachment, namespace, kernel) {
        return after_its_end(context, attachment);
    }
    half_done(context, attachment, namespace, kernel)?;
    let now = look(std::slice::from_ref(attachment), kernel)?;
    let index =
        now.link_tagged(&attachment.tag).or_else(|| now.link_named(attachment.interface())).map(|link| link.index);
    index.iter().for_each(|index| give_lease_back(context, attachment, *index));
    let steps = undo::all(&attachment.steps, &attachment.changes, &attachment.tag, &now);
    let path = namespace.path().display().to_string();
    let steps: Vec<Step> = steps.into_iter().chain(qos::what_a_link_leaves(attachment.link(), &now)).collect();
    apply::undo(kernel, &steps, &mut |step, took| context.output.step(&step.command(&path), took), &path)?;
    if !steps.iter().any(|step| matches!(step, Step::DeleteLink(_))) {
        come_home(context, attachment)?;
    }
    hand_down(context, attachment, &now)
}

/// What an interface of the host's takes to be as it was, which is at home without what it had there: as
/// hardware is when its namespace ends, or where a run was killed that was bringing it. A child of an
/// InfiniBand interface comes to the host as well, but is nothing to it.
pub fn way_home(attachment: &Attachment) -> Result<Option<Step>> {
    let comes = |link: &&Link| link.home().is_some() || matches!(link.driver, Driver::Ipoib { .. });
    let Some(link) = attachment.link().filter(comes) else { return Ok(None) };
    if !namespace::is_of_this_boot(attachment) {
        return Ok(None);
    }
    let now = Netns::open(Path::new(Place::HOST))?.look_inside(|kernel| kernel.links())?;
    Ok(undo::find(link, &attachment.tag, &now).map(Step::DeleteLink))
}

/// Gives it back what it had.
pub fn come_home(context: &Context, attachment: &Attachment) -> Result<bool> {
    let Some(step) = way_home(attachment)? else { return Ok(false) };
    Netns::open(Path::new(Place::HOST))?.enter_as_host(|kernel| {
        let mut observe = |step: &Step, took| context.output.step(&step.command(Place::HOST), took);
        apply::undo(kernel, &[step], &mut observe, Place::HOST)
    })?;
    Ok(true)
}

/// The namespace has ended.
fn after_its_end(context: &Context, attachment: &Attachment) -> Result<()> {
    if !come_home(context, attachment)? {
        lost(attachment).iter().for_each(|warning| context.output.warn(warning));
    }
    Ok(())
}

/// What is said of an interface of the host's that is nowhere any more: the kernel deletes with a namespace what
/// is no hardware.
fn lost(attachment: &Attachment) -> Option<String> {
    let home = attachment.link()?.home()?;
    // Plumb's own devices are made again when they are needed.
    if home.device_tag.is_some() || !namespace::is_of_this_boot(attachment) {
        return None;
    }
    let (name, kind, target) = (&home.name, home.kind.as_ref()?, &attachment.target);
    Some(format!("{name} has gone with {target}: the kernel deletes a {kind} with its namespace; make it again"))
}

/// What taking them back depends on: more, where more was changed.
pub fn look(attachments: &[Attachment], kernel: &mut Kernel) -> Result<Inside> {
    match attachments.iter().all(|attachment| attachment.changes.is_empty()) {
        true => kernel.look_at_links_and_routes(),
        false => kernel.look_at_all(),
    }
}

/// Takes back what a killed run has done of a change. The caller holds the namespace's lock, and sees to the
/// record.
fn half_done(context: &Context, attachment: &Attachment, namespace: &Netns, kernel: &mut Kernel) -> Result<()> {
    if attachment.changing.is_empty() {
        return Ok(());
    }
    let steps = undo::back(&attachment.changing, &kernel.look_at_all()?);
    let path = namespace.path().display().to_string();
    apply::undo(kernel, &steps, &mut |step, took| context.output.step(&step.command(&path), took), &path)
}

/// Makes all as it was before a run that was killed at a change to `attachment`. The namespace is locked;
/// none where it has gone.
pub fn change(context: &Context, attachment: &Attachment, namespace: Option<&Netns>) -> Result<()> {
    let Some(now) = attachment::again(&*context.store, attachment)? else { return Ok(()) };
    if let Some(namespace) = namespace {
        namespace.look_inside(|kernel| match namespace::is_same(&now, namespace, kernel) {
            true => half_done(context, &now, namespace, kernel),
            false => Ok(()),
        })?;
    }
    attachment::amend(&*context.store, &now, |now| now.changing.clear()).map(drop)
}

/// Tells the server that the lease is no longer needed, before what has it goes. It ends by itself if
/// that gets lost, so nothing waits for it and nothing fails.
fn give_lease_back(context: &Context, attachment: &Attachment, index: u32) {
    let Some(asked) = &attachment.dhcp else { return };
    let Ok(Some(record)) = lease::read(&*context.store, attachment) else { return };
    if !record.is_of(attachment) {
        return;
    }
    let (now, boot) = (boot_time(), namespace::boot());
    if record.standing().is_good(now, &boot) {
        let _ = dhcp::release(index, &asked.client, &record.lease);
    }
    if let Some(ipv6) = record.ipv6.filter(|ipv6| ipv6.standing().is_good(now, &boot)) {
        let _ = dhcp6::release(index, v6::Client::beside(&asked.client), &ipv6.lease);
    }
}

/// Wherever it is: opens, locks and enters its namespace. One that is gone has taken all along.
pub fn anywhere(context: &Context, attachment: &Attachment) -> Result<()> {
    let Some(namespace) = namespace::reopen(attachment) else {
        // The host speaks for who has gone.
        let parent = attachment.link().and_then(|link| nix::net::if_::if_nametoindex(link.parent.name.as_str()).ok());
        parent.iter().for_each(|index| give_lease_back(context, attachment, *index));
        let Some(now) = attachment::again(&*context.store, attachment)? else { return Ok(()) };
        after_its_end(context, &now)?;
        return forget(context, &now);
    };
    namespace.lock()?;
    there(context, attachment, &namespace)
}

/// In its namespace, which is locked.
pub fn there(context: &Context, attachment: &Attachment, namespace: &Netns) -> Result<()> {
    in_reach_of_home(attachment, namespace, |kernel| here(context, attachment, namespace, kernel))
}

/// What is the host's is brought there, which takes a way to the host.
fn in_reach_of_home<T: Send>(
    attachment: &Attachment,
    namespace: &Netns,
    work: impl FnOnce(&mut Kernel) -> Result<T> + Send,
) -> Result<T> {
    match attachment.link().is_some_and(|link| link.driver.moves()) {
        true => namespace.enter(work),
        false => namespace.look_inside(work),
    }
}

/// Takes back what `attachment` did in a namespace that is not the caller's but locked, and leaves its record.
pub fn links(context: &Context, attachment: &Attachment, namespace: &Netns) -> Result<()> {
    in_reach_of_home(attachment, namespace, |kernel| undo_here(context, attachment, namespace, kernel))
}

/// Gives the parent the segments back that `gone` found there, if it was the last to raise them; otherwise
/// who raised them next gives them back one day. What somebody else has set since is theirs.
pub fn parents_segments(context: &Context, gone: &Attachment) -> Result<()> {
    if tuning::raised(&gone.steps).is_none() || !namespace::is_of_this_boot(gone) {
        return Ok(());
    }
    let _lock = HostLock::new()?;
    // Who raised them before it may have gone meanwhile, and have left it what to give back.
    let gone = &attachment::again(&*context.store, gone)?.unwrap_or_else(|| gone.clone());
    let Some((parent, before, raised)) = tuning::raised(&gone.steps) else { return Ok(()) };
    let is_next = |other: &Attachment| {
        let same = tuning::raised(&other.steps).is_some_and(|(on, ..)| on == parent);
        same && other.tag != gone.tag && other.begun > gone.begun && namespace::is_of_this_boot(other)
    };
    let mut later: Vec<_> = attachment::all(&*context.store, None)?.into_iter().flatten().filter(is_next).collect();
    later.sort_by_key(|other| other.begun);
    for heir in &later {
        // Its namespace is not locked: somebody may be changing it.
        if attachment::amend(&*context.store, heir, |heir| tuning::hand_down(&mut heir.steps, before))? {
            return Ok(());
        }
    }
    Netns::open(Path::new(Place::HOST))?.look_inside(|kernel| {
        if before == raised || kernel.segments(parent.index)? != Some(raised) {
            return Ok(());
        }
        let on = Device { side: Side::Inside, ..parent.clone() };
        let step = Step::SetSegments { on, from: raised, to: before };
        let mut observe = |step: &Step, took| context.output.step(&step.command(Place::HOST), took);
        apply::undo(kernel, &[step], &mut observe, Place::HOST)
    })
}

/// Deletes the port of Open vSwitch's that `gone` had. Open vSwitch keeps it when its interface has gone, and
/// after a reboot.
pub fn port(context: &Context, gone: &Attachment) -> Result<()> {
    let is_port = |step: &&Step| matches!(step, Step::AddPort(_));
    let Some(step) = gone.steps.iter().find(is_port).map(Step::inverse) else { return Ok(()) };
    let mut observe = |step: &Step, took| context.output.step(&step.command(Place::HOST), took);
    Netns::open(Path::new(Place::HOST))?.look_inside(|kernel| apply::undo(kernel, &[step], &mut observe, Place::HOST))
}

/// Deletes the rules that let pass what `bridge` passes on, for one who asked for them and has gone, unless another
/// who did is on record. The caller has locked the host.
pub fn acceptance(context: &Context, gone: &Wish, bridge: &IfName) -> Result<()> {
    if gone.allow_forward { acceptances(context, bridge) } else { Ok(()) }
}

/// The same for whoever asked.
pub fn acceptances(context: &Context, bridge: &IfName) -> Result<()> {
    if is_accepted_for_somebody(context, bridge)? {
        return Ok(());
    }
    let store = context.store.mark();
    Netns::open(Path::new(Place::HOST))?.look_inside(|kernel| kernel.no_longer_accept(bridge, &store))
}

pub fn is_accepted_for_somebody(context: &Context, bridge: &IfName) -> Result<bool> {
    let needs = |a: &Attachment| a.wish.allow_forward && a.link().is_some_and(|link| link.parent.name == *bridge);
    Ok(attachment::all(&*context.store, None)?.iter().any(|kept| kept.as_ref().map_or(true, needs)))
}

/// Deletes a VLAN's device or a bridge if plumb made it and nobody uses it. The caller has locked the host. Says
/// so if it stays for somebody whom plumb does not know.
pub fn device(context: &Context, name: &IfName) -> Result<()> {
    match standing(context, name)? {
        Standing::Unused(device) => delete_device(&device)?,
        Standing::OthersUse(how) => context.output.warn(&format!("{name} stays: {how}")),
        Standing::InUse => {}
    }
    Ok(())
}

/// What a device of the host's that plumb made is good for.
enum Standing {
    Unused(InsideLink),
    /// By what is none of plumb's, and by nothing else.
    OthersUse(String),
    /// Or it is not plumb's.
    InUse,
}

/// A VLAN's device or a bridge, if plumb made it and nobody uses it. The caller has locked the host.
pub fn unused_device(context: &Context, name: &IfName) -> Result<Option<InsideLink>> {
    Ok(if let Standing::Unused(device) = standing(context, name)? { Some(device) } else { None })
}

/// Nobody uses it if no interface hangs on it in any namespace, it has no port and no address and is no port, and
/// no attachment is being made on it, or is a port of it by its record, wherever that port is now.
fn standing(context: &Context, name: &IfName) -> Result<Standing> {
    // Who joins a network keeps the host locked until its link is there; only `flat` on such a device
    // does not. A store that has gone must not keep the host from being as it was.
    let kept = attachment::all(&*context.store, None).unwrap_or_default();
    let is_its_port = |a: &Attachment, link: &Link| link.driver.needs_a_bridge() && namespace::is_there(a);
    let wants_it = |a: Attachment| {
        a.link().is_some_and(|link| link.parent.name == *name && (a.is_unfinished() || is_its_port(&a, link)))
    };
    if kept.into_iter().flatten().any(wants_it) {
        return Ok(Standing::InUse);
    }
    let host = Netns::open(Path::new(Place::HOST))?;
    let standing = host.look_inside(|kernel| {
        let links = kernel.links()?;
        let ours = |link: &&InsideLink| {
            link.name == name.as_str() && (link.is_plumbs_device() || is_unused_open_vswitch(link, name))
        };
        let Some(device) = links.iter().find(ours) else { return Ok(Standing::InUse) };
        let hangs_on = |link: &InsideLink| link.parent_index == Some(device.index) && link.parent_namespace.is_none();
        let (ports, others): (Vec<_>, Vec<_>) =
            links.iter().filter(|link| link.port_of == Some(device.index)).partition(|port| port.group == GROUP);
        if !ports.is_empty() || links.iter().any(hangs_on) {
            return Ok(Standing::InUse);
        }
        let is_own = |address: &&InsideAddress| {
            address.index == device.index && !matches!(address.ip, IpAddr::V6(ip) if ip.is_unicast_link_local())
        };
        let uses = (others.iter().map(|port| format!("{} is a port of it", port.name)))
            .chain(kernel.addresses()?.iter().filter(is_own).map(|own| format!("it has the address {}", own.ip)))
            .chain(device.port_of.map(|_| "it is a port itself".into()))
            .collect::<Vec<String>>();
        Ok(match uses.is_empty() {
            true => Standing::Unused(device.clone()),
            false => Standing::OthersUse(uses.join(", ")),
        })
    })?;
    Ok(match standing {
        Standing::Unused(device) if survey::children(&host, device.index).next().is_some() => Standing::InUse,
        standing => standing,
    })
}

/// Whether it is a bridge of Open vSwitch's that plumb has made and that has no port.
fn is_unused_open_vswitch(link: &InsideLink, name: &IfName) -> bool {
    let is_another_kind = link.kind.is_none() || link.is_bridge() || link.vlan.is_some();
    !is_another_kind && ovs::unused_bridges().is_ok_and(|unused| unused.contains(name))
}

pub fn delete_device(device: &InsideLink) -> Result<()> {
    if !device.is_bridge() && device.vlan.is_none() {
        return ovs::delete_bridge(&device.name.parse().map_err(Error::failed)?);
    }
    Netns::open(Path::new(Place::HOST))?.look_inside(|kernel| kernel.delete(device))
}

/// What `attachments`, which have gone, leave on the host: a shim's routes to them, and devices that nobody
/// uses any more.
pub fn on_the_host(context: &Context, attachments: &[Attachment]) -> Result<()> {
    let links = || attachments.iter().filter_map(|attachment| attachment.link());
    let parents: BTreeSet<&IfName> = links().map(|link| &link.parent.name).collect();
    shim::follow(parents, context).iter().for_each(|warning| context.output.warn(warning));
    // What was none of plumb's needs no lock.
    let may_be_plumbs = |link: &&Link| {
        link.driver.needs_a_bridge() || Path::new("/proc/net/vlan").join(link.parent.name.as_str()).exists()
    };
    let devices: BTreeSet<&IfName> = links().filter(may_be_plumbs).map(|link| &link.parent.name).collect();
    if devices.is_empty() {
        return Ok(());
    }
    let _lock = HostLock::new()?;
    for gone in attachments {
        gone.link().map_or(Ok(()), |link| acceptance(context, &gone.wish, &link.parent.name))?;
    }
    devices.into_iter().try_for_each(|name| device(context, name))
}

/// Other attachments in the namespace, by whatever name of it, may remember routes of this one; they
/// inherit what it replaced. Only where a route of ours was no longer in its place is there an heir.
fn hand_down(context: &Context, gone: &Attachment, before: &Inside) -> Result<()> {
    let was_replaced = |step: &Step| match step {
        Step::AddRoute(ours) | Step::ReplaceRoute { new: ours, .. } => {
            !before.routes.iter().any(|route| route.is(ours))
        }
        _ => false,
    };
    if !gone.all_steps().any(was_replaced) {
        return Ok(());
    }
    let inherit = |heir: &mut Attachment| {
        let of_changes = undo::hand_down(gone.all_steps(), &mut heir.changes);
        undo::hand_down(gone.all_steps(), &mut heir.steps) || of_changes
    };
    for heir in attachment::all(&*context.store, None)?.into_iter().flatten() {
        let may_be = heir.tag != gone.tag && heir.namespace == gone.namespace;
        if may_be && inherit(&mut heir.clone()) {
            attachment::amend(&*context.store, &heir, |heir| {
                inherit(heir);
            })?;
        }
    }
    Ok(())
}
