//! The host's own interfaces beside its containers', and their routes: one to each container that is
//! attached to the same parent, at all times.

use std::{collections::BTreeSet, fmt, time::Duration};

use ipnetwork::IpNetwork;

use crate::{
    apply::all_or_nothing,
    error::Result,
    kernel::Netns,
    namespace::HostLock,
    plan::{Route, Step},
    store::{Attachment, Progress, Store, attachment},
    types::{IfName, Place, TargetName},
};

/// A route of the host's where one by a shim would be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InTheWay {
    pub to: IpNetwork,
    shim: IfName,
    way: String,
}

impl fmt::Display for InTheWay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let InTheWay { to, shim, way } = self;
        write!(f, "{shim} does not lead to {to}: this host has a route there already, by {way}")
    }
}

/// The host's own attachments, but for its gateways.
pub fn all(store: &dyn Store) -> Result<Vec<Attachment>> {
    let kept: Vec<Attachment> = attachment::all(store, Some(&TargetName::Host))?.into_iter().collect::<Result<_>>()?;
    Ok(kept.into_iter().filter(|attachment| attachment.wish.forwarding.is_none()).collect())
}

pub fn is_on(attachment: &Attachment, parent: &IfName) -> bool {
    attachment.link().is_some_and(|link| link.parent.name == *parent)
}

/// Whether nobody gave its routes: they follow what is attached.
pub fn is_automatic(shim: &Attachment) -> bool {
    shim.network.is_none() && shim.wish.routes.is_empty()
}

/// Makes the routes of the parent's shim, if it has one whose routes nobody gave, those to the containers
/// that are attached there now, and tells what was in the way. The host must not be locked, and the
/// caller's thread is in its namespace.
pub fn follow(
    parent: &IfName,
    store: &dyn Store,
    observe: &mut (dyn FnMut(&Step, Duration) + Send),
) -> Result<Vec<InTheWay>> {
    // Most parents have none, and the kernel says so at once.
    if nix::net::if_::if_nametoindex(IfName::of_shim(parent).as_str()).is_err() {
        return Ok(Vec::new());
    }
    let _lock = HostLock::new()?;
    let (steps, in_the_way) = following(parent, store, &[])?;
    Netns::of_this_thread()?
        .look_inside(|kernel| all_or_nothing(kernel, observe, Place::HOST, |tx| tx.run_all(&steps)))?;
    Ok(in_the_way)
}

/// The steps that make them so, as if those who are `going` had gone.
pub fn following(parent: &IfName, store: &dyn Store, going: &[Attachment]) -> Result<(Vec<Step>, Vec<InTheWay>)> {
    let stays = |a: &Attachment| !going.iter().any(|gone| gone.tag == a.tag);
    let automatic =
        |shim: &Attachment| is_on(shim, parent) && is_automatic(shim) && shim.progress == Progress::Done && stays(shim);
    let Some(shim) = all(store)?.into_iter().find(automatic) else { return Ok((Vec::new(), Vec::new())) };
    let wanted = addresses(parent, store, stays)?;
    Netns::of_this_thread()?.look_inside(|kernel| {
        let links = kernel.links()?;
        let Some(link) = links.iter().find(|link| link.tag.as_ref() == Some(&shim.tag)) else {
            return Ok((Vec::new(), Vec::new()));
        };
        let own = shim.wish.addresses.iter().map(|address| address.ip().into()).collect();
        Ok(plan(wanted, &own, (link.index, &link.name), &kernel.routes(&links)?))
    })
}

/// The addresses of all that is attached to the parent, each as a network of its own.
pub fn wanted(parent: &IfName, store: &dyn Store) -> Result<BTreeSet<IpNetwork>> {
    addresses(parent, store, |_| true)
}

fn addresses(parent: &IfName, store: &dyn Store, counts: impl Fn(&Attachment) -> bool) -> Result<BTreeSet<IpNetwork>> {
    let here = |attachment: &Attachment| {
        let is_there = attachment.progress == Progress::Done && attachment.target != TargetName::Host;
        is_there && is_on(attachment, parent) && counts(attachment)
    };
    let attached = attachment::all(store, None)?.into_iter().flatten().filter(here);
    Ok(attached.flat_map(|a| a.wish.addresses).map(|address| IpNetwork::from(address.ip())).collect())
}

/// The routes of a shim that is yet to be made, as steps, and what is in their way.
pub fn planned(parent: &IfName, store: &dyn Store) -> Result<(Vec<Step>, Vec<InTheWay>)> {
    let (wanted, name) = (wanted(parent, store)?, IfName::of_shim(parent));
    let routes = Netns::of_this_thread()?.look_inside(|kernel| {
        let links = kernel.links()?;
        kernel.routes(&links)
    })?;
    Ok(plan(wanted, &BTreeSet::new(), (0, name.as_str()), &routes))
}

/// From the routes that there are to those that are `wanted`, by the shim with this index and name. To
/// its `own` addresses the kernel has routes of its own.
fn plan(
    mut wanted: BTreeSet<IpNetwork>,
    own: &BTreeSet<IpNetwork>,
    shim: (u32, &str),
    there: &[Route],
) -> (Vec<Step>, Vec<InTheWay>) {
    let (mut steps, mut in_the_way) = (Vec::new(), Vec::new());
    for route in there.iter().filter(|route| route.leaves_by() == Some(shim.0) && route.table() == MAIN_TABLE) {
        let Some(to) = route.destination().filter(is_one_address) else { continue };
        if !wanted.remove(&to) && !own.contains(&to) {
            steps.push(Step::DeleteRoute(route.clone()));
        }
    }
    for to in wanted {
        let new = Route::new(Some(to), None, false, None, shim, to.is_ipv6());
        match (there.iter().find(|other| other.competes_with(&new)), shim.1.parse()) {
            (Some(other), Ok(shim)) => in_the_way.push(InTheWay { to, shim, way: other.way() }),
            _ => steps.push(Step::AddRoute(new)),
        }
    }
    (steps, in_the_way)
}

const MAIN_TABLE: u32 = 254;

fn is_one_address(network: &IpNetwork) -> bool {
    network.prefix() == if network.is_ipv6() { 128 } else { 32 }
}
