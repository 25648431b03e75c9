//! Takes an attachment back and forgets it: what detach, gc and a new attempt after a killed run share.

use super::{Context, namespace};
use crate::{
    apply,
    error::Result,
    kernel::{Kernel, Netns},
    plan::{Step, undo},
    store::{Attachment, attachment},
};

/// The steps that take `attachment` back in `kernel`'s namespace, as it is now.
pub fn plan(attachment: &Attachment, namespace: &Netns, kernel: &mut Kernel) -> Result<Vec<Step>> {
    if !namespace::is_same(attachment, namespace, kernel) {
        return Ok(Vec::new());
    }
    let now = kernel.look_at_links_and_routes()?;
    Ok(undo::undo(&attachment.steps, &attachment.tag, &now))
}

/// Takes `attachment` back and forgets it. The caller holds the namespace's lock. What could not be
/// taken back stays on record, so that it can be tried again.
pub fn here(context: &Context, attachment: &Attachment, namespace: &Netns, kernel: &mut Kernel) -> Result<()> {
    let Some(attachment) = &attachment::again(&*context.store, attachment)? else { return Ok(()) };
    let steps = plan(attachment, namespace, kernel)?;
    let path = namespace.path().display().to_string();
    apply::undo(kernel, &steps, &mut |step, took| context.output.step(&step.command(&path), took), &path)?;
    hand_down(context, attachment)?;
    attachment.forget(&*context.store)
}

/// Wherever it is: opens, locks and enters its namespace. One that is gone has taken all along.
pub fn anywhere(context: &Context, attachment: &Attachment) -> Result<()> {
    let Some(namespace) = namespace::reopen(attachment) else {
        let now = attachment::again(&*context.store, attachment)?;
        return now.map_or(Ok(()), |now| now.forget(&*context.store));
    };
    namespace.lock()?;
    namespace.look_inside(|kernel| here(context, attachment, &namespace, kernel))
}

/// The target's other attachments may remember routes of this one; they inherit what it replaced.
fn hand_down(context: &Context, gone: &Attachment) -> Result<()> {
    let sets_routes = |step: &Step| matches!(step, Step::AddRoute(_) | Step::ReplaceRoute { .. });
    if !gone.steps.iter().any(sets_routes) {
        return Ok(());
    }
    for mut heir in attachment::all(&*context.store, Some(&gone.target))?.into_iter().flatten() {
        if heir.tag != gone.tag && heir.namespace == gone.namespace && undo::hand_down(&gone.steps, &mut heir.steps) {
            heir.save(&*context.store)?;
        }
    }
    Ok(())
}
