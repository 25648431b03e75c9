//! The host's interface that moves into the target itself: what it has, what hangs on it, and where it is if it
//! is not on the host.

use std::net::IpAddr;

use super::{Work, options};
use crate::{
    apply::Transaction,
    commands::{Context, siblings, take_back},
    config,
    error::{Error, Kind, Result},
    kernel::{self, Kernel, Netns, survey},
    namespace,
    plan::{Home, Moving, Parent, Wiring, Wish, facts::InsideLink},
    store::{Attachment, attachment},
    types::{IfName, Tag},
};

/// The host's interface of this name; if there is none, perhaps it is in some target.
pub(super) fn parent(work: &mut Work, name: &IfName) -> Result<Parent> {
    match super::parent(work.kernel, name) {
        Err(error) if error.kind == Kind::NotFound => Err(is_elsewhere(name, work.context).unwrap_or(error)),
        found => found,
    }
}

/// An interface that came back when its target ended is not as it was yet, and has another name.
pub(super) fn bring_home(wish: &Wish, name: &IfName, dry_run: bool, context: &Context) -> Result<()> {
    if !wish.driver.moves() {
        return Ok(());
    }
    // One that is being moved at this moment is not meant.
    let is_meant = |a: &Attachment| is_of(a, name) && !a.is_unfinished();
    for away in attachment::all(&*context.store, None)?.into_iter().flatten().filter(is_meant) {
        if take_back::way_home(&away)?.is_none() {
            continue;
        }
        if dry_run {
            return Err(Error::failed(format!("{name} is back since {} ended, and not as it was yet", away.target))
                .hint("plumb gc gives it its name, addresses and routes again"));
        }
        take_back::come_home(context, &away)?;
    }
    Ok(())
}

fn is_of(attachment: &Attachment, name: &IfName) -> bool {
    attachment.link().and_then(|link| link.home()).is_some_and(|home| home.name == *name)
}

/// In which target an interface is that is not on the host: by the records, or else by a look into all
/// namespaces for hardware of that name.
fn is_elsewhere(name: &IfName, context: &Context) -> Option<Error> {
    let kept = attachment::all(&*context.store, None).ok()?;
    let away = kept.into_iter().flatten().find(|a| is_of(a, name) && namespace::is_there(a));
    if let Some(away) = away {
        let (target, interface) = (&away.target, away.name_now());
        return Some(
            Error::conflict(format!("{name} is in {target}, as {interface}"))
                .hint(format!("plumb detach {target} {interface} brings it back")),
        );
    }
    let is_it = |link: &InsideLink| link.kind.is_none() && link.name == name.as_str();
    let found = survey::links(is_it).into_iter().next()?;
    let path = found.namespace.path().display();
    Some(
        Error::conflict(format!("{name} is in another namespace, {path}"))
            .hint(format!("nsenter --net={path} ip link set dev {name} netns $$ brings it back")),
    )
}

/// What there is to know of the parent if it is to move.
pub(super) fn moving(
    wish: &Wish,
    parent: &Parent,
    host: &Netns,
    tag: &Tag,
    context: &Context,
) -> Result<Option<Moving>> {
    if !wish.driver.moves() {
        return Ok(None);
    }
    // Interfaces count from 1.
    if parent.index == 0 {
        let home = Home::yet_to_be_made(parent, tag);
        return Ok(Some(Moving { home, children: Vec::new(), carries: None }));
    }
    let peer = config::ssh_client();
    let (home, source, own) = host.look_inside(|on_host| {
        let own: Vec<_> = wish.addresses.iter().filter(|address| kernel::is_hosts_own(address.ip())).collect();
        Ok((on_host.home(parent, tag)?, peer.and_then(kernel::source_to), own))
    })?;
    let goes_along = |ip: IpAddr| home.addresses.iter().any(|address| address.ip() == Some(ip));
    if let Some(stays) = own.into_iter().find(|address| !goes_along(address.ip())) {
        return Err(options::is_own(*stays));
    }
    let carries = peer.filter(|_| source.is_some_and(goes_along)).map(|peer| format!("the ssh session from {peer}"));
    let mut children = siblings::children(parent, host, context);
    // All of one radio move.
    children.extend(home.phy.map_or(Vec::new(), |radio| kernel::wifi::others(radio, &home.name)));
    Ok(Some(Moving { carries, home, children }))
}

/// After the move the interface is up, and looks for its partner anew.
pub(super) fn settle(
    tx: &mut Transaction<'_, Kernel>,
    wiring: &Wiring,
    parent: &mut Parent,
    context: &Context,
) -> Result<()> {
    if !wiring.link.driver.moves() {
        return Ok(());
    }
    let _waiting = context.output.waiting(format!("waiting for the carrier of {}", wiring.link.name));
    // One that was up and had none has none now.
    let may_have = parent.carrier || !parent.up;
    parent.carrier = may_have && tx.executor.await_carrier(wiring.link.index)?;
    parent.up = true;
    Ok(())
}

pub(super) fn has_no_carrier(wiring: &Wiring, parent: &Parent) -> Option<String> {
    let name = &wiring.link.name;
    (wiring.link.driver.moves() && !parent.carrier)
        .then(|| format!("{name} has no carrier, so nothing can be reached by it yet; is the cable plugged in?"))
}
