//! Killed at every point where something has changed: `plumb gc` finds it and the state is as before.

use crate::lab::{ALSO_FREE, FREE, FREE6, Lab, ROUTER, Ran, at_each};

#[test]
fn attaching_killed_anywhere_is_taken_back() {
    let lab = Lab::new();
    let arguments = format!(
        "flat {} -i nic0 --ip {FREE} --ip {FREE6} --gateway {ROUTER} --route 10.0.0.0/8 --probe 0 --no-check",
        lab.netns("box")
    );
    // Everything by which plumb changes the kernel or the store goes through one of these.
    let calls = ["sendto", "sendmsg", "rename", "symlink", "write", "fsync", "unlink", "openat"];
    let kills = lab.killed_anywhere(&calls, &arguments, || lab.state());
    assert!(kills >= 30, "only {kills} kills");
}

#[test]
fn a_change_killed_anywhere_is_taken_back() {
    let lab = Lab::new();
    lab.flat(&format!("--ip {FREE} --ip {FREE6} --gateway {ROUTER}")).ok();
    let (target, before) = (lab.netns("box"), lab.state());
    let mut taken_back = 0;
    for (change, finish) in [
        (
            format!("route {target} replace default via 192.168.9.254"),
            format!("route {target} replace default via {ROUTER}"),
        ),
        (
            format!("link {target} set eth1 mtu 1400 promisc on name lan0"),
            format!("link {target} set lan0 mtu 1500 promisc off name eth1"),
        ),
        (format!("link {target} set eth1 down"), format!("link {target} set eth1 up")),
    ] {
        // Once it is on record as done only the disk is waited for, and it stays done.
        lab.plumb(&change).ok();
        let done = lab.state();
        lab.plumb(&finish).ok();
        lab.state().is(&before);
        println!("{change}");
        at_each(&["sendto", "rename", "fsync"], |call, number| {
            let was_killed = lab.killed(&change, call, number);
            println!("gc said {:?}", lab.plumb("gc").ok());
            let is_done = lab.state() == done;
            assert!(is_done || was_killed);
            if is_done {
                lab.plumb(&finish).ok();
            }
            lab.state().is(&before);
            taken_back += usize::from(was_killed && !is_done);
            was_killed
        });
    }
    assert!(taken_back >= 25, "only {taken_back} were taken back");
}

#[test]
fn after_a_change_that_was_killed_neither_the_next_nor_detach_needs_gc() {
    let lab = Lab::new();
    let before = lab.state();
    let target = lab.netns("box");
    let down = format!("link {target} set eth1 mtu 1400 down");
    at_each(&["sendto"], |call, number| {
        lab.flat(&format!("--ip {FREE} --gateway {ROUTER}")).ok();
        let was_killed = lab.killed(&down, call, number);
        let next = lab.plumb(&format!("link {target} set eth1 promisc on")).ok();
        assert!(was_killed || !next.err.contains("earlier"), "{next:#?}");
        assert_eq!(lab.ip("box", "route").contains(&format!("default via {ROUTER} dev eth1")), was_killed);
        lab.plumb("detach --all").ok();
        lab.state().is(&before);
        was_killed
    });
}

#[test]
fn detaching_killed_anywhere_can_be_finished() {
    let lab = Lab::new();
    let (target, before) = (lab.netns("box"), lab.state());
    at_each(&["sendto", "unlink", "fsync", "rename", "write", "openat"], |call, number| {
        lab.flat(&format!("--ip {FREE} --gateway {ROUTER}")).ok();
        // The second replaces the first one's default route, and inherits what that had replaced.
        lab.flat(&format!("--ip {ALSO_FREE} --gateway {ROUTER}")).ok();
        let was_killed = lab.killed(&format!("detach {target} eth1"), call, number);
        lab.plumb(&format!("detach {target} eth1")).ok();
        assert!(lab.ip("box", "route").contains(&format!("default via {ROUTER} dev eth2")), "{call} {number}");
        lab.plumb(&format!("detach {target}")).ok();
        // A half-written file is the only thing that is not detach's to remove.
        lab.plumb("gc").ok();
        lab.state().is(&before);
        was_killed
    });
}

#[test]
fn the_next_attempt_needs_no_gc() {
    let lab = Lab::new();
    let arguments = format!("flat {} -i nic0 --ip {FREE} --gateway {ROUTER} --probe 0 --no-check", lab.netns("box"));
    for number in 5..=8 {
        assert!(lab.killed(&arguments, "sendto", number));
        Ran::of(&mut lab.command(&arguments)).ok();
        assert!(lab.pings("box", ROUTER));
        assert_eq!(lab.ip("box", "-br link").matches('@').count(), 3, "up0, eth0 and one eth1");
        lab.plumb("detach --all").ok();
    }
}
