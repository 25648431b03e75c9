//! Every step refused in turn, and one past the end: the state is as before.

use std::path::PathBuf;

use netplumb::{
    apply::{Execute, StepError, all_or_nothing},
    error::{Error, Result},
    kernel::{Kernel, Netns},
    plan::{
        Advertised, Driver, Facts, MacvlanMode, Moving, Step, Tuning, Wish,
        changes::{self, Attached, How, Planned, Present, With},
        undo, wiring,
        wiring::MacRule,
    },
    types::{IfName, LinkWords, RouteWords, RuleWords, StoreMark, Tag},
};

use crate::lab::{Lab, ROUTER, ROUTER6, sh};

/// The real kernel, but for one call.
pub struct Refusing<'a> {
    pub kernel: &'a mut Kernel,
    pub calls: usize,
    pub refused: usize,
}

impl Execute for Refusing<'_> {
    fn execute(&mut self, step: &Step) -> std::result::Result<(), StepError> {
        self.calls += 1;
        if self.calls == self.refused {
            return Err(StepError::Refused(Error::failed("refused by the test")));
        }
        self.kernel.execute(step)
    }
}

/// A wish that needs every kind of step.
fn wish() -> Wish {
    Wish {
        target: "box".into(),
        driver: Driver::Macvlan(MacvlanMode::Bridge),
        name: None,
        mac: MacRule::Derived { host: Some("a host".into()) },
        mtu: None,
        addresses: ["192.168.9.100/24", "fd09::100/64"].map(|text| text.parse().unwrap()).to_vec(),
        gateways: [ROUTER, ROUTER6].map(|text| text.parse().unwrap()).to_vec(),
        routes: vec!["10.0.0.0/8".parse().unwrap()],
        metric: None,
        keep_default: false,
        off_link_gateway: false,
        allow_wifi: false,
        force: false,
        skip_dad: true,
        advertised: Advertised::Nothing,
        tuning: Tuning::default(),
        allow_forward: false,
        forwarding: None,
    }
}

/// Attaches with call number `refused` refused; says how many calls there were.
fn attach(lab: &Lab, refused: usize) -> (Result<()>, usize) {
    attach_as(lab, &wish(), 7, refused)
}

/// The same for any wish, which needs so many kinds of steps.
fn attach_as(lab: &Lab, wish: &Wish, kinds_of_steps: usize, refused: usize) -> (Result<()>, usize) {
    let open = |name: &str| Netns::open(&PathBuf::from(format!("/run/netns/{}", lab.full(name)))).unwrap();
    let (host, inside) = (open("host"), open("box"));
    // The test's thread goes to the lab's host; plumb itself never leaves its own so.
    let run = || {
        let file = std::fs::File::open(host.path()).unwrap();
        nix::sched::setns(file, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
        inside.enter(|kernel| {
            let parent = kernel.parent(&"nic0".parse().unwrap())?.unwrap();
            let tag = Tag::new(StoreMark::of("a store"), [1; 8]);
            let home = wish.driver.moves().then(|| host.look_inside(|on_host| on_host.home(&parent, &tag)));
            let facts = Facts {
                parent,
                inside: kernel.look()?,
                bridged_drops: vec![],
                moving: home.transpose()?.map(|home| Moving { home, children: vec![], carries: None }),
                sibling: None,
                on_record: vec![],
                is_host: false,
                forwarding: None,
            };
            let wiring = wiring::plan(wish, &facts, &tag)?;
            let kinds: std::collections::HashSet<_> = wiring.steps().map(std::mem::discriminant).collect();
            assert_eq!(kinds.len(), kinds_of_steps, "every kind of step that attaching has");
            let mut refusing = Refusing { kernel, calls: 0, refused };
            let outcome = all_or_nothing(&mut refusing, &mut |_, _| {}, "N", |tx| {
                tx.run_all(wiring.steps())?;
                Err::<(), _>(Error::failed("one past the end"))
            });
            Ok((outcome, wiring.steps().count()))
        })
    };
    std::thread::scope(|scope| scope.spawn(run).join().unwrap()).unwrap()
}

#[test]
fn the_whole_state_is_as_before() {
    let lab = Lab::new();
    sh(&format!(
        "nsenter --net=/run/netns/{} sh -c 'echo 1 > /proc/sys/net/ipv6/conf/default/disable_ipv6'",
        lab.full("box")
    ));
    let before = lab.state();
    let (_, steps) = attach(&lab, usize::MAX);
    lab.state().is(&before);
    assert!(steps >= 9, "{steps}");
    for refused in 1..=steps {
        let error = attach(&lab, refused).0.unwrap_err();
        assert_eq!(error.message, "refused by the test; nothing was changed");
        lab.state().is(&before);
    }
}

#[test]
fn an_interface_that_moved_is_at_home_again() {
    let lab = Lab::new();
    let host = lab.full("host");
    sh(&format!("ip -n {host} addr add 192.168.9.2/24 dev nic0; ip -n {host} route add 10.0.0.0/8 via {ROUTER}"));
    let before = lab.state().steady();
    let wish = Wish { driver: Driver::Phys { home: None }, mtu: Some(1400.try_into().unwrap()), ..wish() };
    let (_, steps) = attach_as(&lab, &wish, 6, usize::MAX);
    lab.state().steady().is(&before);
    for refused in 1..=steps {
        let error = attach_as(&lab, &wish, 6, refused).0.unwrap_err();
        assert_eq!(error.message, "refused by the test; nothing was changed");
        lab.state().steady().is(&before);
    }
}

#[test]
fn an_undo_that_is_refused_is_told_with_its_command() {
    let lab = Lab::new();
    let (_, steps) = attach(&lab, usize::MAX);
    // Undoing runs newest first: the last of its calls deletes the link.
    let error = attach(&lab, 2 * steps).0.unwrap_err();
    assert_eq!(error.message, "one past the end; could not be taken back: refused by the test");
    assert_eq!(error.leftovers, ["nsenter --net=N ip link del dev eth1"]);
}

/// The steps of all kinds of changes, as they are planned for the box with its eth1.
fn changes(kernel: &mut Kernel, wiring: &[Step]) -> Vec<Step> {
    let inside = kernel.look_at_all().unwrap();
    let link =
        wiring.iter().find_map(|step| if let Step::AddLink(link) = step { Some(link.clone()) } else { None }).unwrap();
    let attached = Attached {
        index: link.index,
        name: link.name.to_string(),
        link,
        steps: wiring.to_vec(),
        leased: false,
        bound: None,
        most: None,
    };
    let mut present = Present {
        target: "box".into(),
        inside,
        attached: vec![attached],
        gone: Vec::new(),
        with: With::Named(IfName::eth(1)),
    };
    let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let route = |text: &str| RouteWords::parse(&words(text), None).unwrap();
    let rule = |text: &str| RuleWords::parse(&words(text), None).unwrap();
    let link = |text: &str| LinkWords::parse(&words(text)).unwrap();
    type Plan<'a> = &'a dyn Fn(&Present) -> Result<Planned>;
    let plans: [Plan<'_>; 9] = [
        &|present| changes::set_route(&route("default via 192.168.9.253"), How::Append, present),
        &|present| changes::set_route(&route("10.5.0.0/16 via 192.168.9.254 mtu 1400"), How::Add, present),
        &|present| changes::set_route(&route("blackhole fd66::/48"), How::Add, present),
        &|present| changes::set_route(&route("default via 192.168.9.254"), How::Replace, present),
        &|present| changes::delete_route(&route("10.0.0.0/8"), present),
        &|present| changes::add_rule(&rule("from 192.168.9.0/24 table 100"), present),
        &|present| changes::delete_rule(&rule("priority 32767"), present),
        &|present| changes::set_link(&link("eth0 mtu 1400"), present),
        &|present| changes::set_link(&link("eth1 down mac 02:00:00:00:09:77 promisc on name lan0"), present),
    ];
    let mut steps = Vec::new();
    for plan in plans {
        let planned = plan(&present).unwrap().steps;
        // Each finds what those before it have done.
        present.inside = undo::after(&planned, present.inside);
        steps.extend(planned);
    }
    steps
}

#[test]
fn of_changes_too() {
    let lab = Lab::new();
    let open = |name: &str| Netns::open(&PathBuf::from(format!("/run/netns/{}", lab.full(name)))).unwrap();
    let (host, inside) = (open("host"), open("box"));
    let run = || {
        let file = std::fs::File::open(host.path()).unwrap();
        nix::sched::setns(file, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
        inside.enter(|kernel| {
            let facts = Facts {
                moving: None,
                parent: kernel.parent(&"nic0".parse().unwrap())?.unwrap(),
                inside: kernel.look()?,
                bridged_drops: vec![],
                sibling: None,
                on_record: vec![],
                is_host: false,
                forwarding: None,
            };
            let wiring = wiring::plan(&wish(), &facts, &Tag::new(StoreMark::of("a store"), [1; 8]))?;
            let wiring: Vec<Step> = wiring.steps().cloned().collect();
            all_or_nothing(kernel, &mut |_, _| {}, "N", |tx| tx.run_all(&wiring))?;
            let steps = changes(kernel, &wiring);
            let kinds: std::collections::HashSet<_> = steps.iter().map(std::mem::discriminant).collect();
            assert_eq!(kinds.len(), 10, "{steps:#?}");
            let before = lab.state();
            for refused in (1..=steps.len()).chain([usize::MAX]) {
                let mut refusing = Refusing { kernel, calls: 0, refused };
                let outcome = all_or_nothing(&mut refusing, &mut |_, _| {}, "N", |tx| {
                    tx.run_all(&steps)?;
                    Err::<(), _>(Error::failed("one past the end"))
                });
                let error = outcome.unwrap_err();
                assert!(error.message.ends_with("; nothing was changed"), "{refused}: {error:?}");
                lab.state().is(&before);
            }
            Ok(())
        })
    };
    std::thread::scope(|scope| scope.spawn(run).join().unwrap()).unwrap();
}
