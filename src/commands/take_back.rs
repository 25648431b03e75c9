//! Takes an attachment back and forgets it: what detach, gc and a new attempt after a killed run share.

use super::{Context, namespace};
use crate::{
    apply,
    error::Result,
    kernel::{Kernel, Netns},
    plan::{Inside, Step, undo},
    store::{Attachment, attachment},
};

/// Takes `attachment` back and forgets it. The caller holds the namespace's lock. What could not be
/// taken back stays on record, so that it can be tried again.
pub fn here(context: &Context, attachment: &Attachment, namespace: &Netns, kernel: &mut Kernel) -> Result<()> {
    let Some(attachment) = &attachment::again(&*context.store, attachment)? else { return Ok(()) };
    undo_here(context, attachment, namespace, kernel)?;
    attachment.forget(&*context.store)
}

fn undo_here(context: &Context, attachment: &Attachment, namespace: &Netns, kernel: &mut Kernel) -> Result<()> {
    if !namespace::is_same(attachment, namespace, kernel) {
        return Ok(());
    }
    let now = kernel.look_at_links_and_routes()?;
    let steps = undo::undo(&attachment.steps, &attachment.tag, &now);
    let path = namespace.path().display().to_string();
    apply::undo(kernel, &steps, &mut |step, took| context.output.step(&step.command(&path), took), &path)?;
    hand_down(context, attachment, &now)
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

/// Takes back what `attachment` did in a namespace that is not the caller's, and leaves its record.
pub fn links(context: &Context, attachment: &Attachment, namespace: &Netns) -> Result<()> {
    namespace.lock()?;
    namespace.look_inside(|kernel| undo_here(context, attachment, namespace, kernel))
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
    if !gone.steps.iter().any(was_replaced) {
        return Ok(());
    }
    for mut heir in attachment::all(&*context.store, None)?.into_iter().flatten() {
        if heir.tag != gone.tag && heir.namespace == gone.namespace && undo::hand_down(&gone.steps, &mut heir.steps) {
            heir.save(&*context.store)?;
        }
    }
    Ok(())
}
