//! The records of a target, by whatever name it is called.

use super::{Context, namespace};
use crate::{
    container,
    error::Result,
    kernel::Netns,
    store::{Attachment, Kept, attachment},
    types::{TargetName, nearest},
};

/// What was attached to the target under this name, or to its namespace under another: who
/// attached to pid:42 may detach from the container that the process belongs to.
pub fn of_target(target: &TargetName, context: &Context) -> Result<Vec<Kept>> {
    let by_name = attachment::of_target(&*context.store, target)?;
    if !by_name.is_empty() {
        return Ok(by_name);
    }
    let everything = attachment::all(&*context.store, None)?;
    if everything.is_empty() {
        return Ok(everything);
    }
    // That it cannot be found is no error: a container that is gone has nothing attached.
    let Ok(found) = container::find(target, &context.engines, None) else { return Ok(Vec::new()) };
    let inode = namespace::open(&found, &Netns::of_this_thread()?)?.id().0;
    let is_here = |a: &Attachment| a.namespace.inode == inode && namespace::reopen(a).is_some();
    Ok(everything.into_iter().filter(|kept| kept.as_ref().is_ok_and(is_here)).collect())
}

/// The line for a target that has no records; with the name that was meant, if it looks like a slip.
pub fn nothing_attached(target: &TargetName, context: &Context) -> String {
    let kept = attachment::all(&*context.store, None).unwrap_or_default();
    let names: Vec<String> = kept.into_iter().flatten().map(|attachment| attachment.target.to_string()).collect();
    match nearest(&target.to_string(), names.iter().map(String::as_str)) {
        Some(near) => format!("{target}: nothing is attached; did you mean {near}?"),
        None => format!("{target}: nothing is attached"),
    }
}
