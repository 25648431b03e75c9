//! Many at once: nothing is given twice, nothing is left.

use std::{
    process::Stdio,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use netplumb::store::{Directory, attachment};

use crate::{
    etcd_cluster::Cluster,
    lab::{FREE, Lab, Ran, output, sh},
    open_vswitch,
    soak::{Ground, contend, eight},
};

/// Starts all commands before waiting for any.
fn at_once(lab: &Lab, commands: impl Iterator<Item = String>) -> Vec<Ran> {
    let start =
        |arguments: String| lab.command(&arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let running: Vec<_> = commands.map(start).collect();
    running.into_iter().map(|child| Ran::from(child.wait_with_output().unwrap())).collect()
}

#[test]
fn of_twenty_with_one_address_exactly_one_wins() {
    let lab = Lab::new();
    let before = lab.state();
    let arguments = format!("flat {} -i nic0 --ip {FREE} --probe 0", lab.netns("box"));
    let all = at_once(&lab, (0..20).map(|_| arguments.clone()));
    let (won, lost): (Vec<&Ran>, Vec<&Ran>) = all.iter().partition(|ran| ran.code == 0);
    assert_eq!(won.len(), 1, "{all:#?}");
    assert!(lost.iter().all(|ran| ran.code == 4 && ran.err.contains("already has 192.168.9.100 on eth1")), "{lost:#?}");
    assert_eq!(lab.json("box", "link show").as_array().unwrap().len(), 4, "lo, eth0, up0 and one more");
    lab.plumb("detach --all").ok();
    lab.state().is(&before);
}

#[test]
fn of_twenty_containers_that_want_one_address_exactly_one_gets_it() {
    of_twenty_exactly_one_gets_it(&mut Lab::new());
}

/// Whatever the lab's store is.
pub fn of_twenty_exactly_one_gets_it(lab: &mut Lab) {
    (0..20).for_each(|n| lab.namespace(&format!("c{n}")));
    let all =
        at_once(lab, (0..20).map(|n| format!("flat {} -i nic0 --ip {FREE} --probe 0", lab.netns(&format!("c{n}")))));
    assert_eq!(all.iter().filter(|ran| ran.code == 0).count(), 1, "{all:#?}");
    assert!(
        all.iter().all(|ran| ran.code == 0 || ran.code == 4 && ran.err.contains("192.168.9.100 is given to ")),
        "{all:#?}"
    );
    let have = (0..20).filter(|n| lab.ip(&format!("c{n}"), "addr").contains("192.168.9.100")).count();
    assert_eq!(have, 1);
}

#[test]
fn twenty_with_different_names_all_win() {
    let lab = Lab::new();
    let before = lab.state();
    let target = lab.netns("box");
    let all = at_once(
        &lab,
        (1..=20).map(|n| format!("flat {target} -i nic0 --ip 192.168.9.{}/24 --name lan{n} --probe 0", 100 + n)),
    );
    assert!(all.iter().all(|ran| ran.code == 0), "{all:#?}");
    assert!(
        (1..=20).all(|n| lab.ip("box", &format!("addr show lan{n}")).contains(&format!("192.168.9.{}/24", 100 + n)))
    );
    lab.plumb("detach --all").ok();
    lab.state().is(&before);
}

#[test]
fn twenty_without_a_name_find_one_each() {
    let lab = Lab::new();
    let target = lab.netns("box");
    let all = at_once(&lab, (1..=20).map(|n| format!("flat {target} -i nic0 --ip 192.168.9.{}/24 --probe 0", 100 + n)));
    assert!(all.iter().all(|ran| ran.code == 0), "{all:#?}");
    assert!((1..=20).all(|n| lab.ip("box", &format!("link show eth{n}")).contains("UP")));
}

#[test]
fn attach_detach_and_gc_at_once_end_in_order() {
    let lab = Lab::new();
    let (before, target) = (lab.state(), lab.netns("box"));
    let commands = (0..40).map(|n| match n % 4 {
        0 | 1 => format!("flat {target} -i nic0 --ip 192.168.9.{}/24 --probe 0 --no-check", 100 + n),
        2 => format!("detach {target}"),
        _ => "gc".into(),
    });
    let all = at_once(&lab, commands);
    assert!(all.iter().all(|ran| ran.code == 0), "{all:#?}");
    lab.plumb("detach --all").ok();
    assert_eq!(lab.plumb("gc").ok().out, "nothing was left behind\n");
    lab.state().is(&before);
}

/// How eight contend for a network's addresses.
const PORTS: Ground = Ground { parent: "ovs0", options: "--driver veth", rounds: 5, killed_within: 60 };

#[test]
fn of_eight_none_gets_anothers_address_and_none_is_lost() {
    let mut lab = Lab::new();
    open_vswitch::furnish(&mut lab);
    eight(&mut lab);
    let kills = contend(&lab, &lab.store().display().to_string(), &PORTS);
    assert!(kills >= 3, "only {kills} kills");
}

#[test]
fn of_eight_with_etcd_none_gets_anothers_address_and_none_is_lost() {
    let mut lab = Lab::new();
    open_vswitch::furnish(&mut lab);
    eight(&mut lab);
    let cluster = Cluster::single(&lab);
    let kills = contend(&lab, &cluster.address(), &PORTS);
    assert!(kills >= 3, "only {kills} kills");
}

/// Others amend a record under no lock of the target's, as who is to leave a parent's segments to it does.
#[test]
fn what_others_amend_meanwhile_is_forgotten_all_the_same() {
    let lab = Lab::new();
    lab.flat(&format!("--ip {FREE} --probe 0")).ok();
    let store = Directory::new(lab.store()).unwrap();
    let attached = attachment::all(&store, None).unwrap().remove(0).unwrap();
    for _ in 0..20 {
        attached.save(&store).unwrap();
        let is_forgotten = AtomicBool::new(false);
        let forgotten = std::thread::scope(|threads| {
            threads.spawn(|| {
                for changes in [attached.steps.clone(), Vec::new()].iter().cycle() {
                    if is_forgotten.load(Ordering::Relaxed) {
                        break;
                    }
                    attachment::amend(&store, &attached, |now| now.changes.clone_from(changes)).unwrap();
                }
            });
            std::thread::sleep(Duration::from_millis(2));
            let forgotten = attached.forget(&store);
            is_forgotten.store(true, Ordering::Relaxed);
            forgotten
        });
        forgotten.unwrap();
        assert!(attachment::all(&store, None).unwrap().is_empty());
    }
}

/// Five hundred namespaces, one after the other by a shell's loop, then all taken back at once.
#[test]
fn five_hundred_are_attached_evenly_and_detached_in_one_go() {
    const MANY: usize = 500;
    let lab = Lab::new();
    let many = lab.full("m");
    let range = format!("$(seq {MANY})");
    sh(&format!("for n in {range}; do ip netns add {many}$n; done"));
    let _cleaner = Cleaner(format!("for n in {range}; do ip netns del {many}$n; done"));
    let mut took = Vec::new();
    for n in 1..=MANY {
        let start = Instant::now();
        lab.plumb(&format!(
            "flat netns:{many}{n} -i nic0 --ip 10.9.{}.{}/16 --probe 0 --no-check",
            n / 250,
            n % 250 + 1
        ))
        .ok();
        took.push(start.elapsed());
    }
    let median = |times: &[Duration]| {
        let mut times = times.to_vec();
        times.sort();
        times[times.len() / 2]
    };
    let (first, last) = (median(&took[..50]), median(&took[MANY - 50..]));
    // At the limit that shells commonly set, and that hard, so that it cannot be raised.
    let start = Instant::now();
    let mut limited = lab.on_host("prlimit");
    let ran = Ran::of(limited.args(["--nofile=1024:1024", crate::lab::PLUMB, "detach", "--all"])).ok();
    let detached = start.elapsed();
    println!("attach: {first:?} at the beginning, {last:?} at {MANY}; detach --all: {detached:?}");
    assert_eq!(ran.out.lines().count(), MANY);
    assert_eq!(lab.plumb("ls").ok().out, "nothing is attached\n");
    let left = output(&format!("for n in {range}; do ip -n {many}$n -br link; done"));
    assert!(!left.contains("eth1"), "{left}");
    // Generous: the machine that tests run on is shared. What was measured is printed above.
    assert!(last < first * 2 && detached < Duration::from_secs(3), "{first:?} {last:?} {detached:?}");
}

struct Cleaner(String);

impl Drop for Cleaner {
    fn drop(&mut self) {
        sh(&self.0);
    }
}
