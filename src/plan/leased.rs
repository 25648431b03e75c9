//! What a lease brings to a link that is there: planned when the lease is granted, and again when a
//! server says something else.

use std::path::PathBuf;

use super::{
    Inside, Link, Route, Step, Wish,
    undo::{self, give_back},
    wiring::{addresses, better_defaults, check_free, route_by, routes},
};
use crate::{error::Result, types::Mtu};

/// The plan for a lease, by stages as in a [`super::Wiring`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leased {
    pub addresses: Vec<Step>,
    /// The ways out, and the resolver.
    pub routes: Vec<Step>,
    /// Default routes that win over the new one, as its metric asked for.
    pub better_defaults: Vec<Route>,
    pub warnings: Vec<String>,
}

impl Leased {
    /// With the resolver that the lease names, in the place of what the file said before plumb came.
    pub fn with_resolver(mut self, root: PathBuf, before: String, text: String) -> Leased {
        self.routes.push(Step::SetResolver { root, from: before, to: text });
        self
    }

    /// All of them, in the order in which they are done.
    pub fn steps(&self) -> impl Iterator<Item = &Step> {
        self.addresses.iter().chain(&self.routes)
    }
}

/// The steps that give `link` what `wish` has by now. Of its routes the first `own` are wanted by
/// somebody here. The others are the server's idea: one that is in another's way is left out. `mtu` is
/// the server's as well, and counts where it is below the link's and nobody chose one.
pub fn plan(wish: &Wish, own: usize, mtu: Option<Mtu>, link: &Link, inside: &Inside) -> Result<Leased> {
    let (mut warnings, mut fitting) = (Vec::new(), Vec::new());
    for (at, spec) in wish.routes.iter().enumerate() {
        let route = route_by(spec, wish, link);
        match check_free(wish, &route, spec.destination, inside) {
            Err(error) if at >= own => warnings.push(format!("{}: the server's one is left out", error.message)),
            _ => fitting.push(*spec),
        }
    }
    let wish = &Wish { routes: fitting, ..wish.clone() };
    wish.check()?;
    let routes = routes(wish, link, inside)?;
    let to = mtu.filter(|mtu| *mtu < link.mtu && wish.mtu.is_none());
    let mtu = to.map(|to| Step::SetMtu { index: link.index, name: link.name.clone(), from: link.mtu, to });
    Ok(Leased {
        addresses: mtu.into_iter().chain(addresses(wish, link, inside, &mut warnings)?).collect(),
        better_defaults: better_defaults(&routes, inside),
        routes,
        warnings,
    })
}

/// The steps that lead from where `before` was done to where `after` would have been done instead:
/// what is new comes first and what is old goes last, so that there is always an address and a way out.
/// With nothing after, all is taken away but the link.
pub fn transition(before: &[Step], after: &[Step], now: &Inside) -> Vec<Step> {
    let mut steps: Vec<Step> = after.iter().filter_map(|step| bring(step, before, now)).collect();
    let mut gone: Vec<Step> =
        before.iter().rev().filter(|old| !is_kept(old, after)).filter_map(|old| take(old, after, now)).collect();
    // The routes of an address must not outlive it.
    gone.sort_by_key(|step| matches!(step, Step::DeleteAddress(_)));
    steps.extend(gone);
    steps
}

/// What there would be without the lease that brought `before`, and without the `changes` made since: what the
/// next one replaces there is what detach gives back.
pub fn without(before: &[Step], changes: &[Step], now: &Inside) -> Inside {
    let now = undo::after(&undo::back(changes, now), now.clone());
    undo::after(&transition(before, &[], &now), now)
}

/// Whether a step leaves alone what `changes` have put in its place: that is somebody's own choice.
pub fn spares(step: &Step, changes: &[Step]) -> bool {
    let Step::ReplaceRoute { old: there, .. } = step else { return true };
    !changes.iter().any(|change| match change {
        Step::AddRoute(theirs) | Step::ReplaceRoute { new: theirs, .. } => there.is(theirs),
        _ => false,
    })
}

/// Whether a step is a lease's, and not the link's own or a limit's: all that [`transition`] has to do with.
pub fn is_a_leases(step: &Step) -> bool {
    match step {
        Step::AddAddress(_) | Step::AddRoute(_) | Step::ReplaceRoute { .. } => true,
        Step::DeleteAddress(_) | Step::DeleteRoute(_) | Step::SetMtu { .. } | Step::SetResolver { .. } => true,
        Step::AddLink(_) | Step::DeleteLink(_) | Step::AddTag(_) | Step::DeleteTag(_) => false,
        Step::SetSysctl { .. } | Step::AddMasquerade(_) | Step::DeleteMasquerade(_) => false,
        Step::SetSegments { .. } | Step::AddPort(_) | Step::DeletePort(_) => false,
        Step::AddIfb(_) | Step::DeleteIfb(_) | Step::AddRedirect(_) | Step::DeleteRedirect(_) => false,
        Step::AddQdisc(_) | Step::DeleteQdisc(_) | Step::ReplaceQdisc { .. } => false,
        Step::AddRule(_) | Step::DeleteRule(_) | Step::SetLink(_) => false,
        Step::AppendRoute(_) | Step::DeleteAppended(_) => false,
    }
}

/// What there is to do for a new step, given what is there.
fn bring(step: &Step, before: &[Step], now: &Inside) -> Option<Step> {
    match step {
        Step::AddAddress(new) => {
            let is_it = |there: &&super::facts::InsideAddress| {
                there.index == new.index && there.ip == new.address.ip() && there.prefix == new.address.prefix()
            };
            now.addresses.iter().find(is_it).is_none().then(|| step.clone())
        }
        Step::AddRoute(new) | Step::ReplaceRoute { new, .. } => {
            match now.routes.iter().find(|r| r.competes_with(new)) {
                Some(there) if there.is(new) || is_anothers(there, before) => None,
                Some(there) => Some(Step::ReplaceRoute { old: there.clone(), new: new.clone() }),
                None => Some(Step::AddRoute(new.clone())),
            }
        }
        Step::DeleteRoute(old) => now.routes.iter().any(|there| there.is(old)).then(|| step.clone()),
        Step::SetMtu { index, name, to, .. } => set_mtu(*index, name, *to, now),
        Step::SetResolver { root, from, to } => {
            let now = resolver_of(before).unwrap_or(from);
            let step = || Step::SetResolver { root: root.clone(), from: now.to_owned(), to: to.clone() };
            (now != to).then(step)
        }
        _ => None,
    }
}

/// Whether somebody has put `there` where a route of ours was: it is theirs now.
fn is_anothers(there: &Route, before: &[Step]) -> bool {
    let mut ours = before.iter().filter_map(|step| match step {
        Step::AddRoute(old) | Step::ReplaceRoute { new: old, .. } if old.competes_with(there) => Some(old),
        _ => None,
    });
    ours.next().is_some_and(|old| !there.is(old))
}

/// Whether an old step's effect is a new one's as well.
fn is_kept(old: &Step, after: &[Step]) -> bool {
    match old {
        Step::AddAddress(old) => {
            after.iter().any(|step| matches!(step, Step::AddAddress(new) if new.address == old.address))
        }
        Step::AddRoute(old) | Step::ReplaceRoute { new: old, .. } => after
            .iter()
            .any(|step| matches!(step, Step::AddRoute(new) | Step::ReplaceRoute { new, .. } if new.competes_with(old))),
        Step::DeleteRoute(old) => {
            after.iter().any(|step| matches!(step, Step::DeleteRoute(new) if new.competes_with(old)))
        }
        Step::SetMtu { .. } => after.iter().any(|step| matches!(step, Step::SetMtu { .. })),
        Step::SetResolver { .. } => resolver_of(after).is_some(),
        _ => true,
    }
}

/// What takes an old step back, given what is there.
fn take(old: &Step, after: &[Step], now: &Inside) -> Option<Step> {
    let is_there = |route: &Route| now.routes.iter().any(|there| there.is(route));
    match old {
        Step::AddAddress(address) => {
            let is_it = |there: &super::facts::InsideAddress| {
                there.index == address.index
                    && there.ip == address.address.ip()
                    && there.prefix == address.address.prefix()
            };
            now.addresses.iter().any(is_it).then(|| old.inverse())
        }
        Step::AddRoute(route) => is_there(route).then(|| old.inverse()),
        Step::ReplaceRoute { old: before, new } => {
            give_back(before, Some(new), now).or_else(|| is_there(new).then(|| Step::DeleteRoute(new.clone())))
        }
        // A new route may stand in its place by now.
        Step::DeleteRoute(route) => {
            let is_taken = after.iter().any(
                |step| matches!(step, Step::AddRoute(new) | Step::ReplaceRoute { new, .. } if new.competes_with(route)),
            );
            if is_taken { None } else { give_back(route, None, now) }
        }
        Step::SetMtu { index, name, from, .. } => set_mtu(*index, name, *from, now),
        Step::SetResolver { .. } => Some(old.inverse()),
        _ => None,
    }
}

fn resolver_of(steps: &[Step]) -> Option<&str> {
    steps.iter().find_map(|step| if let Step::SetResolver { to, .. } = step { Some(to.as_str()) } else { None })
}

fn set_mtu(index: u32, name: &crate::types::IfName, to: Mtu, now: &Inside) -> Option<Step> {
    let there = now.links.iter().find(|link| link.index == index)?;
    let from = Mtu::try_from(there.mtu).ok().filter(|from| *from != to)?;
    Some(Step::SetMtu { index, name: name.clone(), from, to })
}

#[cfg(test)]
mod tests;
