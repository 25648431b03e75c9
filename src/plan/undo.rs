//! Taking an attachment back: the inverse of its steps, newest first, held against what is there.

use super::{
    Inside, Link, LinkAddress, Route, Step,
    facts::{InsideAddress, InsideLink},
    forwarding,
};
use crate::types::Tag;

/// The steps that take back what `done` did, given what the namespace looks like `now`.
///
/// What has gone by itself is left out, and what a deleted link takes with it is not said twice. A
/// default route that somebody else has changed since is theirs: it is not touched.
pub fn undo(done: &[Step], tag: &Tag, now: &Inside) -> Vec<Step> {
    let ours = done.iter().find_map(|step| match step {
        Step::AddLink(link) => find(link, tag, &now.links),
        _ => None,
    });
    let parent =
        done.iter().find_map(|step| if let Step::AddLink(link) = step { Some(&link.parent.name) } else { None });
    let of_parent = parent.map(forwarding::arp_ignore);
    let undo_one = |step| undo_one(step, ours.as_ref(), of_parent.as_deref(), now);
    let mut steps: Vec<Step> = done.iter().rev().filter_map(undo_one).collect();
    // Routes first, so that the container is never without one; the link takes the rest along. What a
    // gateway's link needed goes after it: as long as it forwards, it masquerades.
    let is_needed_by_it = |step: &Step| matches!(step, Step::DeleteMasquerade(_) | Step::SetSysctl { .. });
    steps.sort_by_key(|step| (is_needed_by_it(step), matches!(step, Step::DeleteLink(_))));
    steps
}

/// The same of an attachment to which `changes` were made since: they are taken back first, but for what the
/// link takes along.
pub fn all(done: &[Step], changes: &[Step], tag: &Tag, now: &Inside) -> Vec<Step> {
    let goes = done.iter().find_map(|step| match step {
        // What goes home takes nothing along.
        Step::AddLink(link) if link.home().is_none() => find(link, tag, &now.links),
        _ => None,
    });
    let goes_along = |step: &Step| goes.as_ref().is_some_and(|link| is_about(step, link.index));
    let is_setting = |step: &Step| matches!(step, Step::SetLink(_) | Step::SetMtu { .. });
    let changes: Vec<Step> = changes.iter().filter(|step| !(is_setting(step) && goes_along(step))).cloned().collect();
    let back = back(&changes, now);
    // What had been replaced by the link's own routes is replaced as if those were back.
    let between = after(&back, now.clone());
    back.into_iter().filter(|step| !goes_along(step)).chain(undo(done, tag, &between)).collect()
}

/// The steps that take changes back, newest first, held against what is there `now`. The link stays. What
/// somebody else has changed since is theirs.
pub fn back(changes: &[Step], now: &Inside) -> Vec<Step> {
    let mut now = now.clone();
    let mut steps = Vec::new();
    for change in changes.iter().rev() {
        if let Some(step) = back_one(change, &now) {
            now = after(std::slice::from_ref(&step), now);
            steps.push(step);
        }
    }
    steps
}

fn back_one(change: &Step, now: &Inside) -> Option<Step> {
    let link = |index: u32| now.links.iter().find(|link| link.index == index);
    let has = |wanted: &LinkAddress| {
        let is_it = |there: &InsideAddress| there.index == wanted.index && there.ip == wanted.address.ip();
        now.addresses.iter().any(is_it)
    };
    match change {
        Step::AddRoute(route) | Step::AppendRoute(route) => {
            now.routes.iter().find(|there| there.is(route)).map(|there| Step::DeleteRoute(there.clone()))
        }
        Step::DeleteRoute(route) => give_back(route, None, now),
        Step::DeleteAppended(route) => (!now.routes.iter().any(|there| there.is(route))).then(|| change.inverse()),
        Step::ReplaceRoute { old, new } => give_back(old, Some(new), now),
        Step::AddRule(rule) => {
            now.rules.iter().find(|there| there.is(rule)).map(|there| Step::DeleteRule(there.clone()))
        }
        Step::DeleteRule(rule) => (!now.rules.iter().any(|there| there.is(rule))).then(|| change.inverse()),
        Step::AddAddress(address) => has(address).then(|| change.inverse()),
        Step::DeleteAddress(address) => (link(address.index).is_some() && !has(address)).then(|| change.inverse()),
        Step::SetMtu { index, to, .. } => (link(*index)?.mtu == to.bytes()).then(|| change.inverse()),
        Step::SetLink(setting) => setting.holds(link(setting.index)?).then(|| change.inverse()),
        // No change to what is there: it is how an attachment, or a limit, comes and goes.
        Step::AddLink(_) | Step::DeleteLink(_) | Step::AddTag(_) | Step::DeleteTag(_) => None,
        Step::SetSysctl { .. } | Step::SetSegments { .. } | Step::SetResolver { .. } => None,
        Step::AddMasquerade(_) | Step::DeleteMasquerade(_) | Step::AddPort(_) | Step::DeletePort(_) => None,
        Step::AddIfb(_) | Step::DeleteIfb(_) | Step::AddRedirect(_) | Step::DeleteRedirect(_) => None,
        Step::AddQdisc(_) | Step::DeleteQdisc(_) | Step::ReplaceQdisc { .. } => None,
    }
}

/// Whether a step does nothing but to what is on the link.
fn is_about(step: &Step, index: u32) -> bool {
    match step {
        Step::AddRoute(route) | Step::DeleteRoute(route) | Step::ReplaceRoute { new: route, .. } => {
            route.leaves_by() == Some(index)
        }
        Step::AppendRoute(route) | Step::DeleteAppended(route) => route.leaves_by() == Some(index),
        Step::AddAddress(address) | Step::DeleteAddress(address) => address.index == index,
        Step::SetMtu { index: of, .. } => *of == index,
        Step::SetLink(setting) => setting.index == index,
        // A step to the link itself is told of, as is what stands apart from it.
        Step::AddLink(_) | Step::DeleteLink(_) | Step::AddTag(_) | Step::DeleteTag(_) => false,
        Step::SetSysctl { .. } | Step::SetSegments { .. } | Step::SetResolver { .. } => false,
        Step::AddMasquerade(_) | Step::DeleteMasquerade(_) | Step::AddPort(_) | Step::DeletePort(_) => false,
        Step::AddRule(_) | Step::DeleteRule(_) => false,
        Step::AddIfb(_) | Step::DeleteIfb(_) | Step::AddRedirect(_) | Step::DeleteRedirect(_) => false,
        Step::AddQdisc(_) | Step::DeleteQdisc(_) | Step::ReplaceQdisc { .. } => false,
    }
}

/// The link as it is now: somebody may have renamed it.
pub fn find(link: &Link, tag: &Tag, now: &[InsideLink]) -> Option<Link> {
    let found = now.iter().find(|there| there.is(link, tag))?;
    let name = found.name.parse().unwrap_or_else(|_| link.name.clone());
    Some(Link { index: found.index, name, ..link.clone() })
}

/// `of_parent` is the one setting that is not the link's own and yet is given back.
fn undo_one(step: &Step, ours: Option<&Link>, of_parent: Option<&str>, now: &Inside) -> Option<Step> {
    match step {
        Step::AddLink(_) => ours.cloned().map(Step::DeleteLink),
        Step::SetSysctl { key, .. } if Some(key.as_str()) == of_parent => Some(step.inverse()),
        // These live on the link and go with it, but for the forwarding of IPv4. That stays on: others
        // may rely on it by now. Docker turns it on only where it is off, and cannot tell that it was us.
        Step::AddTag(_) | Step::SetSysctl { .. } | Step::SetMtu { .. } | Step::AddAddress(_) => None,
        // The link's own go with it. Those of the parent others may still need: that is seen to with the record.
        Step::SetSegments { .. } => None,
        // The port is the host's, and there even where the whole namespace has gone: it goes with the record too.
        Step::AddPort(_) | Step::DeletePort(_) => None,
        // A limit has a record of its own, and goes by that.
        Step::AddIfb(_) | Step::DeleteIfb(_) | Step::AddRedirect(_) | Step::DeleteRedirect(_) => None,
        Step::AddQdisc(_) | Step::DeleteQdisc(_) | Step::ReplaceQdisc { .. } => None,
        // What was changed later has a list of its own.
        Step::AddRule(_) | Step::DeleteRule(_) | Step::SetLink(_) => None,
        Step::AppendRoute(_) | Step::DeleteAppended(_) => None,
        Step::AddRoute(route) => (!leaves_by(route, ours)).then(|| Step::DeleteRoute(route.clone())),
        Step::ReplaceRoute { old, new } => give_back(old, Some(new), now),
        Step::DeleteRoute(route) => give_back(route, None, now),
        // A table of its own, which no link takes along. That it has gone is no failure.
        Step::AddMasquerade(_) => Some(step.inverse()),
        // What somebody has written since stays: the step looks.
        Step::SetResolver { .. } => Some(step.inverse()),
        Step::DeleteLink(_) | Step::DeleteTag(_) | Step::DeleteAddress(_) | Step::DeleteMasquerade(_) => {
            Some(step.inverse())
        }
    }
}

fn leaves_by(route: &Route, ours: Option<&Link>) -> bool {
    match ours {
        Some(link) => route.leaves_by() == Some(link.index),
        // The link has gone and has taken its routes along.
        None => true,
    }
}

/// Puts `old` back where it was, if its place is free or taken by `new`, the route of ours that
/// replaced it.
pub(super) fn give_back(old: &Route, new: Option<&Route>, now: &Inside) -> Option<Step> {
    let way_out_exists = old.leaves_by().is_none_or(|index| now.links.iter().any(|link| link.index == index));
    if !way_out_exists || now.routes.iter().any(|route| route.is(old)) {
        return None;
    }
    match now.routes.iter().find(|route| route.competes_with(old)) {
        None => Some(Step::AddRoute(old.clone())),
        Some(there) if new.is_some_and(|new| there.is(new)) => {
            Some(Step::ReplaceRoute { old: there.clone(), new: old.clone() })
        }
        Some(_) => None,
    }
}

/// What the namespace looks like after `steps` that take something back.
pub fn after(steps: &[Step], mut now: Inside) -> Inside {
    for step in steps {
        match step {
            Step::DeleteLink(link) => {
                now.links.retain(|there| there.index != link.index);
                now.routes.retain(|route| route.leaves_by() != Some(link.index));
            }
            Step::AddRoute(route) | Step::AppendRoute(route) => now.routes.push(route.clone()),
            Step::DeleteRoute(route) | Step::DeleteAppended(route) => now.routes.retain(|there| !there.is(route)),
            Step::ReplaceRoute { old, new } => match now.routes.iter_mut().find(|there| there.is(old)) {
                Some(there) => *there = new.clone(),
                None => now.routes.push(new.clone()),
            },
            Step::DeleteAddress(gone) => {
                now.addresses.retain(|there| there.index != gone.index || there.ip != gone.address.ip());
            }
            Step::AddRule(rule) => now.rules.push(rule.clone()),
            Step::DeleteRule(rule) => now.rules.retain(|there| !there.is(rule)),
            Step::SetMtu { index, to, .. } => {
                now.links.iter_mut().filter(|link| link.index == *index).for_each(|link| link.mtu = to.bytes());
            }
            Step::SetLink(setting) => {
                now.links.iter_mut().filter(|link| link.index == setting.index).for_each(|link| setting.apply(link));
            }
            Step::AddLink(_) | Step::AddTag(_) | Step::DeleteTag(_) | Step::SetSysctl { .. } => {}
            Step::AddAddress(_) | Step::SetSegments { .. } => {}
            Step::AddMasquerade(_) | Step::DeleteMasquerade(_) | Step::SetResolver { .. } => {}
            Step::DeleteIfb(ifb) => now.links.retain(|there| there.index != ifb.index),
            Step::AddIfb(_) | Step::AddRedirect(_) | Step::DeleteRedirect(_) => {}
            Step::AddQdisc(_) | Step::DeleteQdisc(_) | Step::ReplaceQdisc { .. } => {}
            Step::AddPort(_) | Step::DeletePort(_) => {}
        }
    }
    now
}

/// Takes `gone`'s routes out of what a later attachment remembers.
///
/// If eth2 replaced eth1's default route, which had replaced Docker's, and eth1 is detached first,
/// then eth2 must give back Docker's: eth1's leads nowhere any more. Says whether `heir` changed.
pub fn hand_down<'a>(gone: impl IntoIterator<Item = &'a Step>, heir: &mut [Step]) -> bool {
    let gone: Vec<&Step> = gone.into_iter().collect();
    let mut changed = false;
    for step in heir {
        // Newest first: what had been replaced may have replaced something itself.
        for gone in gone.iter().rev() {
            let Some(remembered) = remembered(step) else { break };
            let inherited = match gone {
                Step::ReplaceRoute { old, new } if new.is(remembered) => Some(old.clone()),
                Step::AddRoute(new) | Step::AppendRoute(new) if new.is(remembered) => None,
                _ => continue,
            };
            *step = match (&*step, inherited) {
                (Step::ReplaceRoute { new, .. }, Some(old)) => Step::ReplaceRoute { old, new: new.clone() },
                (Step::ReplaceRoute { new, .. }, None) => Step::AddRoute(new.clone()),
                (_, Some(old)) => Step::DeleteRoute(old),
                (other, None) => other.clone(),
            };
            changed = true;
        }
    }
    changed
}

fn remembered(step: &Step) -> Option<&Route> {
    match step {
        Step::ReplaceRoute { old, .. } | Step::DeleteRoute(old) => Some(old),
        Step::AddLink(_) | Step::DeleteLink(_) | Step::AddTag(_) | Step::DeleteTag(_) | Step::SetSysctl { .. } => None,
        Step::AddAddress(_) | Step::DeleteAddress(_) | Step::AddRoute(_) | Step::SetMtu { .. } => None,
        Step::SetSegments { .. } | Step::AddPort(_) | Step::DeletePort(_) => None,
        Step::AddMasquerade(_) | Step::DeleteMasquerade(_) | Step::SetResolver { .. } => None,
        Step::AddIfb(_) | Step::DeleteIfb(_) | Step::AddRedirect(_) | Step::DeleteRedirect(_) => None,
        Step::AddQdisc(_) | Step::DeleteQdisc(_) | Step::ReplaceQdisc { .. } => None,
        Step::AddRule(_) | Step::DeleteRule(_) | Step::SetLink(_) => None,
        Step::AppendRoute(_) | Step::DeleteAppended(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::link::GROUP;
    use super::super::samples::{self, default_via, link, tag};
    use super::*;

    fn eth(index: u32, tag: Option<Tag>) -> InsideLink {
        InsideLink {
            index,
            name: format!("eth{index}"),
            mac: Some([2, 0, 0, 0, 0, 7]),
            mtu: 1500,
            up: true,
            group: if tag.is_some() { GROUP } else { 0 },
            tag,
            ..InsideLink::default()
        }
    }

    fn done() -> Vec<Step> {
        vec![
            Step::AddLink(link()),
            Step::ReplaceRoute {
                old: default_via("172.17.0.1", 2, "eth0"),
                new: default_via("192.168.0.1", 7, "eth1"),
            },
        ]
    }

    fn inside(links: Vec<InsideLink>, routes: Vec<Route>) -> Inside {
        Inside { links, routes, ..Inside::default() }
    }

    #[test]
    fn the_default_route_returns_before_the_link_goes() {
        let now = inside(vec![eth(2, None), eth(7, Some(tag()))], vec![default_via("192.168.0.1", 7, "eth7")]);
        let steps = undo(&done(), &tag(), &now);
        assert!(
            matches!(&steps[..], [Step::ReplaceRoute { new, .. }, Step::DeleteLink(l)] if new.gateway() == Some([172, 17, 0, 1].into()) && l.name.as_str() == "eth7"),
            "{steps:?}"
        );
    }

    #[test]
    fn what_a_gateway_needed_goes_after_it_and_forwarding_stays_on() {
        let masquerade = samples::masquerade("10.1.0.0/24");
        let forward = Step::SetSysctl { key: "net/ipv4/ip_forward".into(), from: "0".into(), to: "1".into() };
        let quiet = Step::SetSysctl { key: "net/ipv4/conf/eth0/arp_ignore".into(), from: "0".into(), to: "1".into() };
        let done = vec![Step::AddLink(link()), quiet.clone(), Step::AddMasquerade(masquerade.clone()), forward];
        let rest = [Step::DeleteMasquerade(masquerade), quiet.inverse()];
        let steps = undo(&done, &tag(), &inside(vec![eth(7, Some(tag()))], vec![]));
        assert!(matches!(steps[0], Step::DeleteLink(_)), "{steps:?}");
        assert_eq!(steps[1..], rest);
        assert_eq!(undo(&done, &tag(), &inside(vec![], vec![])), rest, "whatever took the link");
    }

    #[test]
    fn a_link_that_is_not_ours_is_not_touched() {
        let now = inside(vec![eth(2, None), eth(7, None)], vec![default_via("172.17.0.1", 2, "eth0")]);
        assert_eq!(undo(&done(), &tag(), &now), []);
    }

    #[test]
    fn an_untagged_link_of_a_killed_run_is_ours_by_group_index_and_mac() {
        let mut half = eth(7, None);
        half.group = GROUP;
        let now = inside(vec![eth(2, None), half.clone()], vec![default_via("172.17.0.1", 2, "eth0")]);
        assert!(matches!(&undo(&done(), &tag(), &now)[..], [Step::DeleteLink(_)]));
        half.mac = Some([2; 6]);
        assert_eq!(undo(&done(), &tag(), &inside(vec![half], vec![])), []);
    }

    #[test]
    fn a_default_route_that_somebody_changed_is_theirs() {
        let now = inside(vec![eth(2, None), eth(7, Some(tag()))], vec![default_via("10.0.0.1", 2, "eth0")]);
        assert!(matches!(&undo(&done(), &tag(), &now)[..], [Step::DeleteLink(_)]));
    }

    #[test]
    fn a_missing_default_route_is_given_back_even_if_the_link_has_gone() {
        let now = inside(vec![eth(2, None)], vec![]);
        assert!(matches!(&undo(&done(), &tag(), &now)[..], [Step::AddRoute(_)]));
        assert_eq!(undo(&done(), &tag(), &inside(vec![], vec![])), [], "eth0 has gone as well");
    }

    #[test]
    fn who_replaced_us_gives_back_what_we_had_replaced() {
        let ours = default_via("192.168.0.1", 7, "eth1");
        let theirs = default_via("10.9.0.1", 8, "eth2");
        let mut heir = vec![Step::ReplaceRoute { old: ours.clone(), new: theirs.clone() }];
        assert!(hand_down(&done(), &mut heir));
        assert_eq!(heir, [Step::ReplaceRoute { old: default_via("172.17.0.1", 2, "eth0"), new: theirs.clone() }]);

        let mut heir = vec![Step::ReplaceRoute { old: ours.clone(), new: theirs.clone() }];
        assert!(hand_down(&[Step::AddRoute(ours)], &mut heir));
        assert_eq!(heir, [Step::AddRoute(theirs)]);
        assert!(!hand_down(&done(), &mut heir));
    }

    #[test]
    fn changes_go_first_and_what_goes_with_the_link_is_not_said() {
        let [docker, ours, newer] = [("172.17.0.1", 2, "eth0"), ("192.168.0.1", 7, "eth1"), ("192.168.0.9", 7, "eth1")]
            .map(|(via, index, name)| default_via(via, index, name));
        let rule = samples::rule("from 10.0.0.0/8 table 7");
        let changes = vec![
            Step::ReplaceRoute { old: ours, new: newer.clone() },
            Step::AddRule(rule.clone()),
            samples::setting(super::super::setting::Change::Promisc(true)),
        ];
        let mut ours_now = eth(7, Some(tag()));
        ours_now.promisc = true;
        let mut now = inside(vec![eth(2, None), ours_now], vec![newer]);
        now.rules.push(rule.clone());
        let steps = all(&done(), &changes, &tag(), &now);
        assert!(
            matches!(&steps[..], [Step::DeleteRule(gone), Step::ReplaceRoute { new, .. }, Step::DeleteLink(_)] if gone.is(&rule) && new.is(&docker)),
            "{steps:?}"
        );
        // The link stays where only the changes are taken back.
        assert_eq!(back(&changes, &now).len(), 3);
        now.rules.clear();
        assert_eq!(back(&changes, &now).len(), 2, "somebody has deleted the rule");
    }

    #[test]
    fn who_inherits_passes_over_all_that_goes() {
        let [first, second, theirs] = ["192.168.0.1", "192.168.0.2", "10.9.0.1"].map(|via| default_via(via, 7, "eth1"));
        let changes = [Step::ReplaceRoute { old: first, new: second.clone() }];
        let mut heir = vec![Step::ReplaceRoute { old: second, new: theirs.clone() }];
        assert!(hand_down(done().iter().chain(&changes), &mut heir));
        assert_eq!(heir, [Step::ReplaceRoute { old: default_via("172.17.0.1", 2, "eth0"), new: theirs }]);
    }
}
