//! Every step refused in turn, and one past the end: the state is as before.

use std::path::PathBuf;

use netplumb::{
    apply::{Execute, StepError, all_or_nothing},
    error::{Error, Result},
    kernel::{Kernel, Netns},
    plan::{Advertised, Driver, Facts, MacvlanMode, Step, Tuning, Wish, wiring, wiring::MacRule},
    types::{StoreMark, Tag},
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
        skip_dad: true,
        advertised: Advertised::Nothing,
        tuning: Tuning::default(),
        allow_forward: false,
        forwarding: None,
    }
}

/// Attaches with call number `refused` refused; says how many calls there were.
fn attach(lab: &Lab, refused: usize) -> (Result<()>, usize) {
    let open = |name: &str| Netns::open(&PathBuf::from(format!("/run/netns/{}", lab.full(name)))).unwrap();
    let (host, inside) = (open("host"), open("box"));
    // The test's thread goes to the lab's host; plumb itself never leaves its own so.
    let run = || {
        let file = std::fs::File::open(host.path()).unwrap();
        nix::sched::setns(file, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
        inside.enter(|kernel| {
            let facts = Facts {
                parent: kernel.parent(&"nic0".parse().unwrap())?.unwrap(),
                inside: kernel.look()?,
                bridged_drops: vec![],
                sibling: None,
                on_record: vec![],
                is_host: false,
                forwarding: None,
            };
            let wiring = wiring::plan(&wish(), &facts, &Tag::new(StoreMark::of("a store"), [1; 8]))?;
            let kinds: std::collections::HashSet<_> = wiring.steps().map(std::mem::discriminant).collect();
            assert_eq!(kinds.len(), 7, "every kind of step that attaching has");
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
fn an_undo_that_is_refused_is_told_with_its_command() {
    let lab = Lab::new();
    let (_, steps) = attach(&lab, usize::MAX);
    // Undoing runs newest first: the last of its calls deletes the link.
    let error = attach(&lab, 2 * steps).0.unwrap_err();
    assert_eq!(error.message, "one past the end; could not be taken back: refused by the test");
    assert_eq!(error.leftovers, ["nsenter --net=N ip link del dev eth1"]);
}
