//! An interface of the host's that moved into a target, on its way home.

use std::path::Path;

use crate::{
    apply,
    commands::Context,
    error::{Error, Result},
    kernel::{Kernel, Netns},
    namespace,
    plan::{Driver, Home, Link, Step, facts::InsideLink, undo},
    store::Attachment,
    types::Place,
};

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
        refuse_taken_name(attachment, kernel)?;
        let mut observe = |step: &Step, took| context.output.step(&step.command(Place::HOST), took);
        apply::undo(kernel, &[step], &mut observe, Place::HOST)
    })?;
    Ok(true)
}

/// Before anything is changed: the host may have given the name to another meanwhile under which an interface is to
/// come home.
pub(super) fn refuse_taken_name(attachment: &Attachment, kernel: &mut Kernel) -> Result<()> {
    let Some((link, home)) = attachment.link().and_then(|link| Some((link, link.home()?))) else { return Ok(()) };
    let mut links = kernel.links()?;
    // Home it may have come by itself, under its name inside.
    links.extend(kernel.host_links()?);
    let Some(there) = undo::find(link, &attachment.tag, &links) else { return Ok(()) };
    let Some(other) = kernel.another_at_home(home)? else { return Ok(()) };
    let (name, target) = (&home.name, &attachment.target);
    let frees = match other.name == name.as_str() {
        true => format!("ip link set {name} name OTHER"),
        false => format!("ip link property del dev {} altname {name}", other.name),
    };
    let message =
        format!("the host has another {name} by now, so {} cannot come home; nothing was changed", there.name);
    Err(Error::conflict(message).hint(format!("{frees}, then plumb detach {target} again")))
}

/// The namespace has ended.
pub(super) fn after_its_end(context: &Context, attachment: &Attachment) -> Result<()> {
    if !come_home(context, attachment)? {
        lost(attachment)?.iter().for_each(|warning| context.output.warn(warning));
    }
    Ok(())
}

/// What is said of an interface of the host's that is nowhere any more: the kernel deletes with a namespace what
/// is no hardware.
fn lost(attachment: &Attachment) -> Result<Option<String>> {
    let home = attachment.link().and_then(Link::home);
    // Plumb's own devices are made again when they are needed.
    let is_anothers = |home: &&Home| home.device_tag.is_none() && namespace::is_of_this_boot(attachment);
    let Some((home, kind)) = home.filter(is_anothers).and_then(|home| Some((home, home.kind.as_ref()?))) else {
        return Ok(None);
    };
    let (name, target) = (&home.name, &attachment.target);
    // It may have come home before, without all that it had.
    let is_it = |link: &InsideLink| link.name == name.as_str() && link.mac == home.mac.map(|mac| mac.bytes());
    if Netns::open(Path::new(Place::HOST))?.look_inside(|kernel| kernel.links())?.iter().any(is_it) {
        return Ok(None);
    }
    Ok(Some(format!("{name} has gone with {target}: the kernel deletes a {kind} with its namespace; make it again")))
}
