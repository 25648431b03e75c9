//! A look into every namespace of the machine: for what is left behind, and for who is in the way.

use super::{Kernel, Netns, all_namespaces};
use crate::{error::Result, plan::facts::InsideLink};

/// A namespace and the links in it that were looked for.
pub struct Found {
    pub namespace: Netns,
    pub links: Vec<InsideLink>,
}

/// The links of all namespaces that `wanted` picks.
pub fn links(wanted: impl Fn(&InsideLink) -> bool + Sync) -> Vec<Found> {
    survey(|kernel| Ok(kernel.links()?.into_iter().filter(|link| wanted(link)).collect())).collect()
}

/// The links, wherever they are, that hang on the interface with this index in `host`. Who needs one
/// only looks no further than to that.
pub fn children(host: &Netns, parent_index: u32) -> impl Iterator<Item = Found> {
    on_the_host(host, move |link| link.parent_index == Some(parent_index))
}

/// The links, wherever they are, that share the address of an interface in `host` on the wire.
pub fn all_sharers(host: &Netns) -> Vec<InsideLink> {
    on_the_host(host, InsideLink::shares_a_parent).flat_map(|found| found.links).collect()
}

/// The links that hang on interfaces in `host`.
fn on_the_host(host: &Netns, wanted: impl Fn(&InsideLink) -> bool + Sync) -> impl Iterator<Item = Found> {
    survey(move |kernel| {
        // Each namespace has its own numbers for the others, and none for itself. One that has no number
        // yet gets it when the links are asked for.
        let links = kernel.links()?;
        let (number, is_host) = (kernel.number_of(host)?, kernel.is_inside(host));
        let hangs_on =
            |link: &InsideLink| wanted(link) && link.parent_namespace == number && number.is_some() != is_host;
        Ok(links.into_iter().filter(hangs_on).collect())
    })
}

/// Of those, the ones that share the parent's address on the wire and so have to agree: no VLAN devices,
/// and no veth, which names its other end as macvlan names its parent.
pub fn sharers(host: &Netns, parent_index: u32) -> impl Iterator<Item = Found> {
    children(host, parent_index).filter_map(|mut found| {
        found.links.retain(InsideLink::shares_a_parent);
        (!found.links.is_empty()).then_some(found)
    })
}

/// Namespaces that end while they are looked at are left out.
fn survey(look: impl Fn(&mut Kernel) -> Result<Vec<InsideLink>> + Sync) -> impl Iterator<Item = Found> {
    let found = move |namespace: Netns| {
        let links = namespace.look_inside(&look).ok()?;
        (!links.is_empty()).then_some(Found { namespace, links })
    };
    all_namespaces().into_iter().filter_map(found)
}
