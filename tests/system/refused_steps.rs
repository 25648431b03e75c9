//! Every step refused in turn, and one past the end: the state is as before.

use std::collections::HashSet;

use netplumb::{
    apply::{Execute, StepError, all_or_nothing},
    error::{Error, Result},
    kernel::{Kernel, Netns},
    plan::{
        Driver, Facts, MacvlanMode, Moving, Step, Wish,
        changes::{self, Attached, How, Planned, Present, With},
        undo, wiring,
        wiring::MacRule,
    },
    types::{IfName, LinkWords, RouteWords, RuleWords, StoreMark, Tag},
};

use crate::lab::{Lab, ROUTER, ROUTER6, State, sh};

/// The real kernel, but for one call.
struct Refusing<'a> {
    kernel: &'a mut Kernel,
    calls: usize,
    refused: usize,
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

/// Runs the steps with call number `refused` refused, or to their end, where it fails as well.
pub fn refusing<'a>(kernel: &mut Kernel, steps: impl IntoIterator<Item = &'a Step>, refused: usize) -> Error {
    let mut refusing = Refusing { kernel, calls: 0, refused };
    let outcome = all_or_nothing(&mut refusing, &mut |_, _| {}, "N", |tx| {
        tx.run_all(steps)?;
        Err::<(), _>(Error::failed("one past the end"))
    });
    outcome.unwrap_err()
}

/// Holds that whichever step is refused, and one past the end, the state is as before. `attempt` is told the number of
/// the one to refuse, and returns what `refusing` does and how many steps there are, as does this.
pub fn each_refused(state: impl Fn() -> State, mut attempt: impl FnMut(usize) -> (Error, usize)) -> usize {
    let before = state();
    let (error, steps) = attempt(usize::MAX);
    assert_eq!(error.message, "one past the end; nothing was changed");
    state().is(&before);
    for refused in 1..=steps {
        let (error, _) = attempt(refused);
        assert_eq!(error.message, "refused by the test; nothing was changed", "step {refused}");
        state().is(&before);
    }
    steps
}

pub fn tag() -> Tag {
    Tag::new(StoreMark::of("a store"), [1; 8])
}

/// By which the lab's host is known, so that MAC addresses stay the same.
pub fn derived_mac() -> MacRule {
    MacRule::Derived { host: Some("a host".into()) }
}

/// What is to be known of a container whose interface shall hang on the parent.
pub fn facts(kernel: &mut Kernel, parent: &str) -> Result<Facts> {
    Ok(Facts {
        parent: kernel.parent(&parent.parse().unwrap())?.unwrap(),
        sibling: None,
        inside: kernel.look()?,
        on_record: vec![],
        is_host: false,
        forwarding: None,
        bridged_drops: vec![],
        moving: None,
    })
}

/// A wish that needs every kind of step.
fn wish() -> Wish {
    Wish {
        addresses: ["192.168.9.100/24", "fd09::100/64"].map(|text| text.parse().unwrap()).to_vec(),
        gateways: [ROUTER, ROUTER6].map(|text| text.parse().unwrap()).to_vec(),
        routes: vec!["10.0.0.0/8".parse().unwrap()],
        skip_dad: true,
        ..Wish::of(&"netns:box".parse().unwrap(), Driver::Macvlan(MacvlanMode::Bridge), derived_mac())
    }
}

/// Attaches with call number `refused` refused; says how many calls there were.
fn attach(lab: &Lab, refused: usize) -> (Error, usize) {
    attach_as(lab, &wish(), 7, refused)
}

/// The same for any wish, which needs so many kinds of steps.
fn attach_as(lab: &Lab, wish: &Wish, kinds_of_steps: usize, refused: usize) -> (Error, usize) {
    let host = Netns::open(&lab.path("host")).unwrap();
    lab.enter("box", |kernel| {
        let mut facts = facts(kernel, "nic0")?;
        if wish.driver.moves() {
            let home = host.look_inside(|on_host| on_host.home(&facts.parent, &tag()))?;
            facts.moving = Some(Moving { home, children: vec![], carries: None });
        }
        let wiring = wiring::plan(wish, &facts, &tag())?;
        assert_eq!(kinds(wiring.steps()), kinds_of_steps, "every kind of step that attaching has");
        Ok((refusing(kernel, wiring.steps(), refused), wiring.steps().count()))
    })
}

/// Of how many kinds the steps are.
fn kinds<'a>(steps: impl IntoIterator<Item = &'a Step>) -> usize {
    steps.into_iter().map(std::mem::discriminant).collect::<HashSet<_>>().len()
}

#[test]
fn the_whole_state_is_as_before() {
    let lab = Lab::new();
    sh(&format!(
        "nsenter --net=/run/netns/{} sh -c 'echo 1 > /proc/sys/net/ipv6/conf/default/disable_ipv6'",
        lab.full("box")
    ));
    let steps = each_refused(|| lab.state(), |refused| attach(&lab, refused));
    assert!(steps >= 9, "{steps}");
}

#[test]
fn an_interface_that_moved_is_at_home_again() {
    let lab = Lab::new();
    let host = lab.full("host");
    sh(&format!("ip -n {host} addr add 192.168.9.2/24 dev nic0; ip -n {host} route add 10.0.0.0/8 via {ROUTER}"));
    let wish = Wish { driver: Driver::Phys { home: None }, mtu: Some(1400.try_into().unwrap()), ..wish() };
    each_refused(|| lab.state().steady(), |refused| attach_as(&lab, &wish, 6, refused));
}

#[test]
fn an_undo_that_is_refused_is_told_with_its_command() {
    let lab = Lab::new();
    let (_, steps) = attach(&lab, usize::MAX);
    // Undoing runs newest first: the last of its calls deletes the link.
    let (error, _) = attach(&lab, 2 * steps);
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
    lab.enter("box", |kernel| {
        let wiring = wiring::plan(&wish(), &facts(kernel, "nic0")?, &tag())?;
        let wiring: Vec<Step> = wiring.steps().cloned().collect();
        all_or_nothing(kernel, &mut |_, _| {}, "N", |tx| tx.run_all(&wiring))?;
        let steps = changes(kernel, &wiring);
        assert_eq!(kinds(&steps), 10, "{steps:#?}");
        each_refused(|| lab.state(), |refused| (refusing(kernel, &steps, refused), steps.len()));
        Ok(())
    });
}
