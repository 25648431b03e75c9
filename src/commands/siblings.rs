//! Who else hangs on a parent: looked for in all namespaces of the machine, as they may be in any.

use super::Context;
use crate::{
    error::Result,
    kernel::{Netns, survey},
    plan::{Driver, Parent, Sibling, facts::InsideLink},
    store::{Attachment, attachment},
};

/// One of the parent's links, where a new one has to agree with those that are there. The caller has
/// locked the host until the new one is there: otherwise two would each find that they may choose.
pub fn that_matters(driver: &Driver, parent: &Parent, host: &Netns, context: &Context) -> Result<Option<Sibling>> {
    match driver {
        // The kernel itself refuses a macvlan that does not agree.
        Driver::Macvlan(_) | Driver::Veth { .. } | Driver::Phys { .. } => Ok(None),
        Driver::Dummy | Driver::Ipoib { .. } => Ok(None),
        Driver::Ipvlan(_) => Ok(survey::sharers(host, parent.index).find_map(|found| {
            let link = found.links.into_iter().next()?;
            let owner = owner(&link, &found.namespace, context);
            Some(Sibling { link, owner })
        })),
    }
}

/// What hangs on the parent, wherever: "eth0.10", "eth1 of web". The other end of a pair, which names this one
/// as what hangs on it names its parent, does not.
pub fn children(parent: &Parent, host: &Netns, context: &Context) -> Vec<String> {
    const PAIRS: [&str; 3] = ["veth", "netkit", "vxcan"];
    let is_end = |link: &InsideLink| link.kind.as_deref().is_some_and(|kind| PAIRS.contains(&kind));
    let mut names = Vec::new();
    for found in survey::children(host, parent.index) {
        for link in found.links.iter().filter(|link| !is_end(link)) {
            names.push(match found.namespace.id() == host.id() {
                true => link.name.clone(),
                false => format!("{} of {}", link.name, owner(link, &found.namespace, context)),
            });
        }
    }
    names
}

/// Whose a link is: the target on record, or else where it was found.
pub fn owner(link: &InsideLink, namespace: &Netns, context: &Context) -> String {
    let kept = attachment::all(&*context.store, None).unwrap_or_default();
    let is_its = |record: &Attachment| link.tag.as_ref() == Some(&record.tag);
    match kept.into_iter().flatten().find(is_its) {
        Some(record) => record.target.to_string(),
        None => format!("{} (not plumb's)", namespace.path().display()),
    }
}
