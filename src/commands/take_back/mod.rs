//! Takes an attachment back and forgets it: what detach, gc and a new attempt after a killed run share.

mod device;
mod home;
mod host;
mod preview;

use std::collections::BTreeSet;

pub use device::{delete_device, device, unused_device};
pub use home::{come_home, way_home};
pub use host::{inherited_segments, on_the_host, parents_segments, port, rules, rules_nobody_needs, what_hung_on};
pub use preview::{Preview, preview};

use super::{Context, agent, namespace, qos};
use crate::{
    apply,
    dhcp::v6,
    error::Result,
    kernel::{
        Kernel, Netns,
        dhcp::{self, boot_time},
        dhcp6,
    },
    plan::{Inside, Step, undo},
    store::{Attachment, attachment, lease, shaped},
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
    let _lock = parents_segments(context, attachment)?;
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
        return home::after_its_end(context, attachment);
    }
    home::refuse_taken_name(attachment, kernel)?;
    half_done(context, attachment, namespace, kernel)?;
    let now = look(std::slice::from_ref(attachment), kernel)?;
    let index =
        now.link_tagged(&attachment.tag).or_else(|| now.link_named(attachment.interface())).map(|link| link.index);
    index.iter().for_each(|index| give_lease_back(context, attachment, *index));
    let steps = steps(attachment, &now);
    let path = namespace.path().display().to_string();
    apply::undo(kernel, &steps, &mut |step, took| context.output.step(&step.command(&path), took), &path)?;
    if !steps.iter().any(|step| matches!(step, Step::DeleteLink(_))) {
        come_home(context, attachment)?;
    }
    hand_down(context, attachment, &now)
}

/// What takes it back, in its namespace as that is `now`.
fn steps(attachment: &Attachment, now: &Inside) -> Vec<Step> {
    let steps = undo::all(&attachment.steps, &attachment.changes, &attachment.tag, now);
    steps.into_iter().chain(qos::what_a_link_leaves(attachment.link(), now)).collect()
}

/// What taking them back depends on: more, where more was changed.
fn look(attachments: &[Attachment], kernel: &mut Kernel) -> Result<Inside> {
    match attachments.iter().all(|attachment| attachment.changes.is_empty() && attachment.changing.is_empty()) {
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
        home::after_its_end(context, &now)?;
        return forget(context, &now);
    };
    namespace.lock()?;
    there(context, attachment, &namespace)
}

/// In its namespace, which is locked.
pub fn there(context: &Context, attachment: &Attachment, namespace: &Netns) -> Result<()> {
    in_reach_of_home(std::slice::from_ref(attachment), namespace, |kernel| here(context, attachment, namespace, kernel))
}

/// What is the host's is brought there, which takes a way to the host.
fn in_reach_of_home<T: Send>(
    attachments: &[Attachment],
    namespace: &Netns,
    work: impl FnOnce(&mut Kernel) -> Result<T> + Send,
) -> Result<T> {
    match attachments.iter().filter_map(Attachment::link).any(|link| link.driver.moves()) {
        true => namespace.enter(work),
        false => namespace.look_inside(work),
    }
}

/// Takes back what `attachment` did in a namespace that is not the caller's but locked, and leaves its record.
pub fn links(context: &Context, attachment: &Attachment, namespace: &Netns) -> Result<()> {
    in_reach_of_home(std::slice::from_ref(attachment), namespace, |kernel| {
        undo_here(context, attachment, namespace, kernel)
    })
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
