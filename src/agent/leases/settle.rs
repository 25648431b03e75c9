//! A container is given what its lease says now, where that is something else than it has.

use std::{net::IpAddr, time::Duration};

use crate::{
    apply,
    dhcp::Lease,
    error::{Error, Result},
    kernel::{Kernel, Lifetimes, Netns, dhcp::boot_time, resolver},
    namespace,
    plan::{Link, LinkAddress, Step, leased, undo},
    store::{Attachment, Committed, Dhcp, Key, Store, attachment},
};

/// When a lease ends, by the clock that goes on during suspend; `None` for never.
pub type Until = Option<Duration>;

/// How it ended.
pub enum Settled {
    Done,
    /// The container, its link or its record is no longer there.
    Gone,
    /// Another container of this host has the address, the one named.
    Taken(String),
}

/// Makes the addresses and routes of the attachment at `key` those of `lease`; without one it keeps its
/// link only, and has back what was there before.
pub fn settle(store: &dyn Store, key: &Key, tag: &str, lease: Option<(&Lease, Until)>) -> Result<Settled> {
    let Some(attachment) = attachment::read(store, key)?.filter(|found| found.tag.attachment == tag) else {
        return Ok(Settled::Gone);
    };
    let Some(namespace) = namespace::reopen(&attachment) else { return Ok(Settled::Gone) };
    // Whoever works on it now may be about to detach it.
    namespace.lock()?;
    namespace.look_inside(|kernel| match attachment::again(store, &attachment)? {
        Some(now) if namespace::is_same(&now, &namespace, kernel) => here(store, now, lease, &namespace, kernel),
        _ => Ok(Settled::Gone),
    })
}

fn here(
    store: &dyn Store,
    attachment: Attachment,
    lease: Option<(&Lease, Until)>,
    namespace: &Netns,
    kernel: &mut Kernel,
) -> Result<Settled> {
    let now = kernel.look()?;
    let (Some(link), Some(found), Some(dhcp)) =
        (attachment.link(), now.link_tagged(&attachment.tag), attachment.dhcp.as_ref())
    else {
        return Ok(Settled::Gone);
    };
    let link = Link { index: found.index, name: found.name.parse().unwrap_or(link.name.clone()), ..link.clone() };
    let (before, kept): (Vec<Step>, Vec<Step>) = attachment.steps.iter().cloned().partition(leased::is_a_leases);
    let (wish, after) = match lease {
        None => (dhcp.bare(&attachment.wish), Vec::new()),
        Some((lease, _)) => {
            let wish = dhcp.wish(&attachment.wish, lease);
            let without = leased::without(&before, &attachment.changes, &now);
            let plan = leased::plan(&wish, dhcp.routes.len(), lease.mtu, &link, &without)?;
            let plan = match dhcp.resolver(lease) {
                Some(text) => {
                    let root = attachment.place.root().ok_or_else(no_files)?;
                    // What it says now may be what we wrote.
                    let ours = before.iter().find_map(|step| match step {
                        Step::SetResolver { from, .. } => Some(Ok(from.clone())),
                        _ => None,
                    });
                    let from = ours.unwrap_or_else(|| resolver::read(&root))?;
                    plan.with_resolver(root, from, text)
                }
                None => plan,
            };
            (wish, plan.steps().cloned().collect())
        }
    };
    let mut steps = leased::transition(&before, &after, &now);
    steps.retain(|step| leased::spares(step, &attachment.changes));
    // A change that replaced the old lease's route gives back what that had replaced.
    let mut changes = attachment.changes.clone();
    undo::hand_down(&before, &mut changes);
    let heir = Attachment { wish, steps: kept.into_iter().chain(after).collect(), changes, ..attachment.clone() };
    if let Committed::Held { holder, .. } = heir.claim(store)? {
        return Ok(Settled::Taken(holder.to_string()));
    }
    heir.save(store)?;
    let path = namespace.path().display().to_string();
    if let Err(error) = apply::all_or_nothing(kernel, &mut |_, _| {}, &path, |tx| {
        steps.iter().try_for_each(|step| tx.run_if_there(step))
    }) {
        attachment.save(store)?;
        heir.yield_to(&attachment, store)?;
        return Err(error);
    }
    attachment.yield_to(&heir, store)?;
    if let Some((lease, Some(until))) = lease {
        let (index, name) = (link.index, link.name.clone());
        let address = LinkAddress { index, name, address: lease.address, skip_dad: false };
        // Best effort: the next renewal says it again.
        let _ = Lifetimes::open().and_then(|socket| socket.limit(&address, until.saturating_sub(boot_time())));
    }
    announce(&heir, dhcp, link.index, kernel);
    Ok(Settled::Done)
}

fn no_files() -> Error {
    Error::failed("the target has no files of its own")
}

/// Best effort: who is not told now learns it by asking.
fn announce(attachment: &Attachment, dhcp: &Dhcp, index: u32, kernel: &mut Kernel) {
    for address in &attachment.wish.addresses {
        if let IpAddr::V4(ip) = address.ip() {
            let _ = kernel.announce(index, dhcp.client.mac.bytes(), &[ip]);
        }
    }
}
