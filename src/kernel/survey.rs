//! A look into every namespace of the machine: for what is left behind, and for who is in the way.

use super::{Kernel, Netns, all_namespaces};
use crate::{error::Result, plan::facts::InsideLink};

/// A namespace and the links in it that were looked for.
pub struct Found {
    pub namespace: Netns,
    pub links: Vec<InsideLink>,
}

/// The links of all namespaces that `wanted` picks. Namespaces that end while they are looked at
/// are left out.
pub fn links(wanted: impl Fn(&InsideLink) -> bool + Sync) -> Vec<Found> {
    let look = |namespace: Netns| {
        let links: Result<Vec<InsideLink>> = namespace.look_inside(Kernel::links);
        let links: Vec<InsideLink> = links.ok()?.into_iter().filter(|link| wanted(link)).collect();
        (!links.is_empty()).then_some(Found { namespace, links })
    };
    all_namespaces().into_iter().filter_map(look).collect()
}
