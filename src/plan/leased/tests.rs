//! Leases that come, change and go, without a kernel.

use super::super::{
    Route,
    facts::{InsideAddress, InsideLink},
    samples::{self, default_via, link},
};
use super::*;
use crate::types::HostAddress;

const DOCKERS: &str = "172.17.0.1";

fn wish(address: &str, gateway: &str) -> Wish {
    Wish {
        addresses: vec![address.parse().unwrap()],
        gateways: vec![gateway.parse().unwrap()],
        off_link_gateway: true,
        ..samples::wish()
    }
}

/// Docker's interface and ours, which has no address yet.
fn bare() -> Inside {
    let eth = |index, name: &str| InsideLink { index, name: name.into(), mtu: 1500, up: true, ..InsideLink::default() };
    Inside {
        links: vec![eth(2, "eth0"), eth(7, "eth1")],
        routes: vec![default_via(DOCKERS, 2, "eth0")],
        ..Inside::default()
    }
}

/// The inside once `steps` are done.
fn done(steps: &[Step], mut now: Inside) -> Inside {
    for step in steps {
        match step {
            Step::AddAddress(added) => now.addresses.push(InsideAddress {
                index: added.index,
                ip: added.address.ip(),
                prefix: added.address.prefix(),
                tentative: false,
                duplicate: false,
            }),
            Step::AddRoute(route) => now.routes.push(route.clone()),
            Step::SetMtu { to, .. } => now.links[1].mtu = to.bytes(),
            other => now = super::super::undo::after(std::slice::from_ref(other), now),
        }
    }
    now
}

fn planned(wish: &Wish, mtu: Option<u32>) -> Vec<Step> {
    let mtu = mtu.map(|bytes| bytes.try_into().unwrap());
    plan(wish, 0, mtu, &link(), &bare()).unwrap().steps().cloned().collect()
}

fn addresses(inside: &Inside) -> Vec<HostAddress> {
    let of = |a: &InsideAddress| HostAddress::new(a.ip, a.prefix).unwrap();
    inside.addresses.iter().map(of).collect()
}

#[test]
fn a_renewal_that_changes_nothing_does_nothing() {
    let steps = planned(&wish("192.168.0.57/24", "192.168.0.1"), Some(1400));
    assert!(matches!(steps[..], [Step::SetMtu { .. }, Step::AddAddress(_), Step::ReplaceRoute { .. }]));
    assert_eq!(transition(&steps, &steps, &done(&steps, bare())), []);
}

#[test]
fn another_address_is_there_before_the_old_one_goes() {
    let before = planned(&wish("192.168.0.57/24", "192.168.0.1"), Some(1400));
    let after = planned(&wish("192.168.0.58/24", "192.168.0.2"), None);
    let now = done(&before, bare());
    let steps = transition(&before, &after, &now);
    let (old, new) = (default_via("192.168.0.1", 7, "eth1"), default_via("192.168.0.2", 7, "eth1"));
    assert!(
        matches!(&steps[..], [Step::AddAddress(_), Step::ReplaceRoute { old: o, new: n }, Step::SetMtu { .. }, Step::DeleteAddress(_)] if o.is(&old) && n.is(&new)),
        "{steps:?}"
    );
    let then = done(&steps, now);
    assert_eq!(addresses(&then), ["192.168.0.58/24".parse().unwrap()]);
    assert_eq!(then.links[1].mtu, 1500);
    // What the record says leads back to Docker's route.
    assert!(after.iter().any(|step| matches!(step, Step::ReplaceRoute { old, .. } if old.leaves_by() == Some(2))));
}

#[test]
fn a_lost_lease_gives_the_old_default_route_back() {
    let before = planned(&wish("192.168.0.57/24", "192.168.0.1"), Some(1400));
    let now = done(&before, bare());
    let steps = transition(&before, &[], &now);
    assert!(
        matches!(&steps[..], [Step::ReplaceRoute { .. }, Step::SetMtu { .. }, Step::DeleteAddress(_)]),
        "{steps:?}"
    );
    let then = done(&steps, now);
    assert_eq!(then.routes, bare().routes);
    assert_eq!(addresses(&then), []);
    assert_eq!(transition(&before, &[], &then), [], "and a second time there is nothing to do");
}

#[test]
fn a_router_that_is_no_longer_told_of_goes() {
    let before = planned(&wish("192.168.0.57/24", "192.168.0.1"), None);
    let after = planned(&Wish { gateways: vec![], ..wish("192.168.0.57/24", "192.168.0.1") }, None);
    let steps = transition(&before, &after, &done(&before, bare()));
    assert!(matches!(&steps[..], [Step::ReplaceRoute { new, .. }] if new.leaves_by() == Some(2)), "{steps:?}");
}

/// What detach gives back once a lease's default route was replaced by hand, and `after` came instead of it.
fn given_back_past_a_change(after: impl FnOnce(&Inside) -> Vec<Step>) -> Vec<Step> {
    let before = planned(&wish("192.168.0.57/24", "192.168.0.1"), None);
    let (leased, theirs) = (default_via("192.168.0.1", 7, "eth1"), default_via("192.168.0.254", 7, "eth1"));
    let mut changes = vec![Step::ReplaceRoute { old: leased, new: theirs.clone() }];
    let now = done(&changes, done(&before, bare()));
    let after = after(&without(&before, &changes, &now));
    let mut steps = transition(&before, &after, &now);
    steps.retain(|step| spares(step, &changes));
    undo::hand_down(&before, &mut changes);
    let then = done(&steps, now);
    assert!(then.routes.iter().any(|route| route.is(&theirs)), "it was chosen: {steps:?}");
    let all: Vec<Step> = [Step::AddLink(link())].into_iter().chain(after).collect();
    let mut ours = then.links[1].clone();
    ours.tag = Some(samples::tag());
    undo::all(&all, &changes, &samples::tag(), &Inside { links: vec![then.links[0].clone(), ours], ..then })
}

#[test]
fn the_old_default_route_comes_back_past_a_change() {
    let is_dockers = |step: &Step| matches!(step, Step::ReplaceRoute { new, .. } if new.leaves_by() == Some(2));
    let plan_on = |router: &str, inside: &Inside| -> Vec<Step> {
        let leased = plan(&wish("192.168.0.57/24", router), 0, None, &link(), inside).unwrap();
        leased.steps().cloned().collect()
    };
    for steps in [
        given_back_past_a_change(|_| Vec::new()),
        given_back_past_a_change(|without| plan_on("192.168.0.1", without)),
        given_back_past_a_change(|without| plan_on("192.168.0.2", without)),
    ] {
        assert_eq!(steps.iter().filter(|step| is_dockers(step)).count(), 1, "{steps:?}");
    }
}

#[test]
fn a_default_route_of_somebodys_own_stays_when_a_router_is_told_of() {
    let theirs = default_via("192.168.0.254", 7, "eth1");
    let changes = [Step::ReplaceRoute { old: default_via(DOCKERS, 2, "eth0"), new: theirs }];
    let now = done(&changes, bare());
    let inside = without(&[], &changes, &now);
    assert_eq!(inside.routes, bare().routes);
    let after = planned(&wish("192.168.0.57/24", "192.168.0.1"), None);
    let mut steps = transition(&[], &after, &now);
    steps.retain(|step| spares(step, &changes));
    assert!(matches!(steps[..], [Step::AddAddress(_)]), "{steps:?}");
}

#[test]
fn a_route_of_the_servers_gives_way_and_one_of_our_own_does_not() {
    let mut inside = bare();
    inside.routes.push(Route::new(Some("10.0.0.0/8".parse().unwrap()), None, false, None, (2, "eth0"), false));
    let wish =
        Wish { routes: vec!["10.0.0.0/8,via 192.168.0.2".parse().unwrap()], ..wish("192.168.0.57/24", "192.168.0.1") };
    let leased = plan(&wish, 0, None, &link(), &inside).unwrap();
    assert_eq!(leased.warnings, ["web already has a route to 10.0.0.0/8, by eth0: the server's one is left out"]);
    assert_eq!(leased.routes.len(), 1);
    assert!(plan(&wish, 1, None, &link(), &inside).is_err());
}

#[test]
fn an_mtu_that_was_chosen_stays() {
    let chosen = Wish { mtu: Some(1500.try_into().unwrap()), ..wish("192.168.0.57/24", "192.168.0.1") };
    assert!(!planned(&chosen, Some(1400)).iter().any(|step| matches!(step, Step::SetMtu { .. })));
    assert!(samples::link().mtu.bytes() == 1500);
}
