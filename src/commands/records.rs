//! The records of a target, by whatever name it is called.

use super::{Context, namespace};
use crate::{
    container,
    error::{Error, Result},
    kernel::{Netns, dhcp::boot_time},
    plan::Advertised,
    store::{Attachment, Kept, attachment, lease},
    types::{HostAddress, IfName, TargetName, nearest},
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

/// What an interface of the target's is called by now, if plumb renamed it since it was attached under this name and
/// no other has the name.
pub fn name_now(target: &TargetName, name: &IfName, context: &Context) -> Result<IfName> {
    let kept: Vec<Attachment> = of_target(target, context)?.into_iter().flatten().collect();
    let renamed = kept.iter().find(|a| a.interface() == name.as_str());
    match renamed.filter(|_| !kept.iter().any(|a| a.name_now() == name.as_str())) {
        Some(renamed) => renamed.name_now().parse().map_err(Error::failed),
        None => Ok(name.clone()),
    }
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

/// The addresses that an attachment has beside those of its wish: a leased IPv6 one.
pub fn leased_addresses(attachment: &Attachment, context: &Context) -> Vec<HostAddress> {
    if attachment.wish.advertised != Advertised::Routes {
        return Vec::new();
    }
    let record = lease::read(&*context.store, attachment).ok().flatten();
    let ipv6 = record.filter(|record| record.is_of(attachment)).and_then(|record| record.ipv6);
    let good = ipv6.filter(|ipv6| ipv6.standing().is_good(boot_time(), &namespace::boot()));
    good.map(|ipv6| ipv6.lease.address).into_iter().collect()
}
