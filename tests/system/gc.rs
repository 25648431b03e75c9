//! `plumb gc`: links without a record, claims without an owner, records without a target.

use std::{process::Stdio, time::Duration};

use crate::lab::{FREE, Lab, ROUTER, Ran, sh};

#[test]
fn a_link_whose_record_is_lost_is_deleted_and_others_are_not() {
    let mut lab = Lab::new();
    lab.target("peer");
    let other = lab.folder().join("other");
    lab.flat(&format!("--ip {FREE} --gateway {ROUTER}")).ok();
    lab.plumb(&format!("flat {} -i nic0 --ip 192.168.9.101/24 --probe 0", lab.netns("box"))).ok();
    lab.plumb(&format!(
        "flat {} -i nic0 --ip 192.168.9.102/24 --probe 0 --store {}",
        lab.netns("peer"),
        other.display()
    ))
    .ok();
    std::fs::remove_file(lab.store().join("flat").join(format!("{}@eth1.json", lab.netns("box")))).unwrap();
    let dry = lab.plumb("gc --dry-run").ok();
    assert!(lab.ip("box", "link").contains("eth1@") && dry.out.contains("eth1 in /run/netns/"), "{dry:#?}");
    let ran = lab.plumb("gc").ok();
    assert!(
        ran.out
            .contains(&format!("claim/nic0/192.168.9.100 released, flat/{}/eth1 does not have it", lab.netns("box"))),
        "{ran:#?}"
    );
    assert!(!lab.ip("box", "link").contains("eth1@"));
    assert!(lab.ip("box", "link").contains("eth2@"), "it has its record");
    assert!(lab.ip("peer", "link").contains("eth1@"), "it belongs to another store");
    assert_eq!(lab.plumb("gc").ok().out, "nothing was left behind\n");
}

#[test]
fn records_of_targets_that_exist_no_more_are_forgotten_and_others_kept() {
    let mut lab = Lab::new();
    lab.namespace("brief");
    let pid = lab.process("box");
    lab.plumb(&format!("flat pid:{pid} -i nic0 --ip {FREE} --probe 0")).ok();
    lab.plumb(&format!("flat {} -i nic0 --ip 192.168.9.101/24 --probe 0", lab.netns("brief"))).ok();
    lab.plumb(&format!("flat {} -i nic0 --ip 192.168.9.102/24 --probe 0", lab.netns("box"))).ok();
    lab.kill(pid);
    sh(&format!("ip netns del {}", lab.full("brief")));
    let ran = lab.plumb("gc").ok();
    assert_eq!(ran.out.matches("forgotten, the target exists no more").count(), 2, "{ran:#?}");
    assert_eq!(lab.plumb("--json ls").ok().json()["attachments"].as_array().unwrap().len(), 1);
    assert!(!lab.ip("box", "addr").contains("192.168.9.100"), "the process has ended, its namespace has not");
    lab.namespace("brief");
}

#[test]
fn a_record_that_a_loss_of_power_caught_counts_as_made() {
    let lab = Lab::new();
    lab.flat(&format!("--ip {FREE}")).ok();
    let name = format!("{}@eth1.json", lab.netns("box"));
    let (begun, made) = (lab.store().join("unfinished").join(&name), lab.store().join("flat").join(&name));
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    let text = std::fs::read_to_string(&made).unwrap().replace(boot.trim(), "00000000-0000-0000-0000-000000000000");
    std::fs::remove_file(&made).unwrap();
    std::fs::write(&begun, text).unwrap();
    sh(&format!("ip -n {} link del eth1", lab.full("box")));
    let ran = lab.plumb("gc").ok();
    assert!(ran.out.contains("kept, the power was lost when it was just made"), "{ran:#?}");
    assert!(made.exists() && !begun.exists());
    assert_eq!(lab.plumb("--json ls").ok().json()["attachments"][0]["state"], "stopped");
}

#[test]
fn a_bridge_is_kept_for_who_has_it_on_record() {
    let lab = Lab::new();
    let before = lab.state();
    let target = lab.netns("box");
    let attach = format!("flat {target} -i br5 --driver veth --host-name out --ip {FREE} --probe 0 --no-check");
    lab.plumb(&attach).ok();
    lab.ip("host", "link set out nomaster");
    assert_eq!(lab.plumb("gc").ok().out, "nothing was left behind\n");
    assert!(lab.ip("host", "-br link").contains("br5"));
    // The last user takes it along, wherever its port is by then.
    assert_eq!(lab.plumb(&format!("detach {target}")).ok().err, "");
    lab.state().is(&before);
    // And a port of somebody else's keeps it, which is said.
    lab.plumb(&attach).ok();
    lab.ip("host", "link set nic0 master br5");
    assert_eq!(lab.plumb(&format!("detach {target}")).ok().err, "warning: br5 stays: nic0 is a port of it\n");
    assert_eq!(lab.plumb("gc").ok().out, "nothing was left behind\n");
    lab.ip("host", "link set nic0 nomaster");
    let dry = "would be done: br5 deleted, nobody uses the bridge\n";
    // Who only looks waits for nobody, and who deletes for whoever is at work on the host.
    let work = std::fs::File::open(lab.path("host")).unwrap();
    work.lock().unwrap();
    assert_eq!(lab.plumb("gc --dry-run").ok().out, dry);
    let gc = lab.command("gc").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(300));
    drop(work);
    assert_eq!(Ran::from(gc.wait_with_output().unwrap()).ok().out, "br5 deleted, nobody uses the bridge\n");
}
