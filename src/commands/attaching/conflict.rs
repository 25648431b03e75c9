//! Who is in the way of a link that the kernel refused.

use crate::{
    commands::{Context, siblings},
    error::{Error, Kind},
    kernel::{Netns, survey},
    plan::{Wiring, facts::InsideLink},
};

/// Adds to a conflict on the parent whose link it is with. The kernel does not tell; the parent's
/// other links are looked for in all namespaces, which takes its time, but only now.
pub fn name_it(error: Error, host: &Netns, wiring: &Wiring, context: &Context) -> Error {
    if error.kind != Kind::Conflict {
        return error;
    }
    let (ours, wants_all) = (wiring.link.mac.map(|mac| mac.bytes()), wiring.link.driver.mode() == Some("passthru"));
    let is_in_the_way = |link: &&InsideLink| {
        wants_all
            || link.kind.as_deref().is_some_and(|kind| kind.starts_with("ipv"))
            || link.mode.as_deref() == Some("passthru")
            || (ours.is_some() && link.mac == ours)
    };
    for found in survey::sharers(host, wiring.link.parent.index) {
        let Some(link) = found.links.iter().find(is_in_the_way) else { continue };
        let owner = siblings::owner(link, &found.namespace, context);
        if link.mode.as_deref() == Some("passthru") && !wants_all {
            let parent = &wiring.link.parent.name;
            let message = format!("{parent} has a passthru link, {} of {owner}, which tolerates no other", link.name);
            return Error { message, hint: Some("detach that one, or use another parent".into()), ..error };
        }
        // Behind the clause that says what is in the way, before the one that says why that matters.
        let (what, why) = error.message.split_once(',').map_or((error.message.as_str(), ""), |(what, why)| (what, why));
        let why = if why.is_empty() { String::new() } else { format!(",{why}") };
        return Error { message: format!("{what}, {} of {owner}{why}", link.name), ..error };
    }
    error
}
