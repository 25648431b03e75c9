//! A veth as the port of a bridge of Open vSwitch's: the real one, which passes packets on by itself.

use crate::lab::{ALSO_FREE, FREE, Lab, PLUMB, Ran, State, sh, words};

/// Open vSwitch on the lab's host, with a bridge `ovs0`.
pub fn furnish(lab: &mut Lab) {
    lab.open_vswitch("--disable-system");
    // Packets pass by a program and not by the kernel, which may lack the module.
    vsctl(lab, "ovs-vsctl --timeout=20 add-br ovs0 -- set bridge ovs0 datapath_type=netdev");
}

fn lab() -> Lab {
    let mut lab = Lab::new();
    ["peer", "third"].into_iter().for_each(|name| lab.target(name));
    furnish(&mut lab);
    lab
}

fn vsctl(lab: &Lab, script: &str) -> String {
    Ran::of(lab.on_host("sh").args(["-ec", script])).ok().out
}

/// What Open vSwitch remembers, and the rest of the world. That an interface has gone it notices in its own time.
fn state(lab: &Lab) -> State {
    let remembered =
        vsctl(lab, "ovs-vsctl show | grep -v error: ; ovs-vsctl --columns=name,external_ids list Interface");
    State(lab.state().0 + &remembered)
}

fn flat(lab: &Lab, target: &str, arguments: &str) -> Ran {
    let target = lab.netns(target);
    lab.plumb(&format!("flat {target} -i ovs0 --driver veth --keep-default --no-check --probe 0 {arguments}"))
}

#[test]
fn its_ports_are_in_their_vlans_and_go_with_their_containers() {
    let lab = lab();
    let before = state(&lab);
    let said = flat(&lab, "box", &format!("--ip {FREE} --vlan 10 --host-name boxes")).ok().out;
    assert_eq!(said, format!("{}: eth1 {FREE} on ovs0 VLAN 10 (veth bridge)\n", lab.netns("box")));
    flat(&lab, "peer", &format!("--ip {ALSO_FREE} --vlan 10")).ok();
    let shown = lab.plumb(&format!("show {}", lab.netns("box"))).ok().out;
    let has = |words: &[&str]| shown.lines().any(|line| line.split_whitespace().eq(words.iter().copied()));
    assert!(has(&["bridge", "ovs0", "ovs0"]) && has(&["vlan", "10", "10"]) && !shown.contains('≠'), "{shown}");
    // The same address in another VLAN is another one.
    flat(&lab, "third", &format!("--ip {FREE} --vlan 20")).ok();
    let other = ALSO_FREE.split('/').next().unwrap();
    assert!(lab.pings("box", other));
    assert!(!lab.pings("third", other));
    let ids = vsctl(&lab, "ovs-vsctl get Interface boxes external_ids");
    for id in ["pipework.bridge=ovs0", "pipework.vlan=\"10\"", "pipework.interface=boxes", "plumb=\"plumb:"] {
        assert!(ids.contains(id), "{id}: {ids}");
    }
    assert!(ids.contains(&format!("pipework.containername=\"{}\"", lab.netns("box"))), "{ids}");
    // A container that has gone leaves a port without an interface; it goes when its name is used again,
    let full = lab.full("box");
    sh(&format!("ip netns del {full} && ip netns add {full}"));
    flat(&lab, "box", &format!("--ip {FREE} --vlan 30 --host-name boxes")).ok();
    assert_eq!(vsctl(&lab, "ovs-vsctl get Port boxes tag").trim(), "30");
    // or by detach.
    sh(&format!("ip netns del {full}"));
    lab.plumb(&format!("detach {}", lab.netns("box"))).ok();
    assert!(!vsctl(&lab, "ovs-vsctl list-ports ovs0").contains("boxes"));
    lab.plumb("detach --all").ok();
    let now = vsctl(&lab, "ovs-vsctl show");
    assert!(before.0.contains(&now), "{now}");
}

#[test]
fn killed_or_refused_it_leaves_no_port() {
    let lab = lab();
    let arguments = format!(
        "flat {} -i ovs0 --ip {FREE} --vlan 10 --driver veth --keep-default --probe 0 --no-check",
        lab.netns("box")
    );
    let kills = lab.killed_anywhere(&["sendto", "rename"], &arguments, || state(&lab));
    assert!(kills >= 10, "only {kills} kills");
    // Somebody else's port is in the way of the last step but the addresses.
    vsctl(&lab, "ovs-vsctl add-port ovs0 boxes -- set Interface boxes type=internal");
    flat(&lab, "box", &format!("--ip {FREE} --host-name boxes"))
        .refused(4, "the host has an interface boxes already")
        .hints("choose another with --host-name");
    vsctl(&lab, "ovs-vsctl del-port boxes; ovs-vsctl --no-wait add-port ovs0 boxes");
    let with_port = state(&lab);
    flat(&lab, "box", &format!("--ip {FREE} --host-name boxes"))
        .refused(4, "Open vSwitch has a port boxes already; nothing was changed")
        .hints("ovs-vsctl del-port boxes deletes it; or choose another with --host-name");
    state(&lab).is(&with_port);
    // A port whose record was lost is gc's.
    vsctl(&lab, "ovs-vsctl del-port boxes");
    flat(&lab, "box", &format!("--ip {FREE} --host-name boxes")).ok();
    std::fs::remove_dir_all(lab.store().join("flat")).unwrap();
    lab.ip("box", "link del eth1");
    assert!(lab.plumb("gc").ok().out.contains("port boxes of Open vSwitch deleted, it has no record\n"));
    assert!(!vsctl(&lab, "ovs-vsctl list-ports ovs0").contains("boxes"));
}

#[test]
fn what_is_printed_does_the_same() {
    let lab = lab();
    let dry = flat(&lab, "box", &format!("--ip {FREE} --vlan 10 --host-name boxes --dry-run")).ok().out;
    let look = || {
        vsctl(&lab, "ovs-vsctl show | sort; ovs-vsctl get Interface boxes external_ids | sed 's/plumb:[0-9a-f:]*//'")
            + &lab.ip("box", "-br addr show dev eth1")
    };
    flat(&lab, "box", &format!("--ip {FREE} --vlan 10 --host-name boxes")).ok();
    let by_plumb = look();
    lab.plumb("detach --all").ok();
    Ran::of(lab.on_host("sh").args(["-ec", &dry])).ok();
    let numbers = |text: String| -> String {
        let parts = text.split("eth1@if");
        parts.map(|part| part.trim_start_matches(|c: char| c.is_ascii_digit())).collect()
    };
    assert_eq!(numbers(look()), numbers(by_plumb), "{dry}");
    // And what takes it back, while there is something to take back.
    vsctl(&lab, "ovs-vsctl del-port boxes");
    lab.ip("box", "link del eth1");
    flat(&lab, "box", &format!("--ip {FREE} --vlan 10 --host-name boxes")).ok();
    let target = lab.netns("box");
    let back = lab.plumb(&format!("detach {target} --dry-run")).ok().out;
    assert!(back.ends_with("ovs-vsctl --no-wait --if-exists del-port ovs0 boxes\n"), "{back}");
    Ran::of(lab.on_host("sh").args(["-ec", &back])).ok();
    assert_eq!(vsctl(&lab, "ovs-vsctl list-ports ovs0"), "");
    assert!(!lab.plumb(&format!("detach {target} --dry-run")).ok().out.contains("del-port"), "it has gone");
    lab.plumb("detach --all").ok();
}

#[test]
fn without_its_program_or_its_daemon_it_is_said() {
    let mut lab = Lab::new();
    lab.target("peer");
    let before = lab.state();
    let arguments = format!("flat {} -i ovs1 --driver veth --keep-default --no-check --ip {FREE}", lab.netns("box"));
    let mut without = lab.on_host("env");
    Ran::of(without.args(["PATH=/nowhere", PLUMB]).args(words(&arguments)))
        .refused(3, "Open vSwitch's program ovs-vsctl is not installed; nothing was changed")
        .hints("apt-get install openvswitch-switch, or dnf install openvswitch; or name a bridge of the kernel's");
    let ran = lab.plumb(&arguments);
    assert_eq!(ran.code, 1, "{ran:#?}");
    assert!(ran.err.contains("ovs-vsctl add-br ovs1 -- set Bridge ovs1 "), "{ran:#?}");
    assert!(ran.err.contains("; nothing was changed\n  hint: does Open vSwitch run? ovs-vsctl show"), "{ran:#?}");
    lab.state().is(&before);
}

#[test]
fn a_network_is_joined_by_ports_in_its_vlan() {
    let lab = lab();
    let attach = |target: &str, network: &str| {
        lab.plumb(&format!("attach {} {network} --driver veth --probe 0 --no-check", lab.netns(target)))
    };
    lab.plumb("create-vlan blue --subnet 10.1.0.0/24 -i ovs0 --id 10").ok();
    lab.plumb("create-vlan red --subnet 10.2.0.0/24 -i nic0 --id 20").ok();
    let said = attach("box", "blue").ok().out;
    let first = said.lines().next().unwrap();
    assert_eq!(
        first,
        format!("{}: eth1 10.1.0.2/24 via 10.1.0.1 in blue on ovs0 VLAN 10 (veth bridge)", lab.netns("box"))
    );
    attach("peer", "blue").ok();
    assert!(lab.pings("box", "10.1.0.3"));
    attach("third", "red")
        .refused(1, "nic0 is no bridge, and a veth joins red as the port of one")
        .hints("-i BRIDGE names one that has nic0 as a port in VLAN 20; or leave --driver veth out");
    attach("third", "red -i ovs5").refused(3, "the host has no interface ovs5");
    attach("third", "red -i ovs0").ok();
    assert_eq!(vsctl(&lab, "ovs-vsctl --bare --columns=tag list Port | sort").trim(), "10\n10\n20");
    assert_eq!(lab.plumb("delete-vlan blue").code, 4, "it is in use");
    lab.plumb("detach --all").ok();
    assert_eq!(vsctl(&lab, "ovs-vsctl list-ports ovs0"), "");
    // An address that a network may give is the network's to give.
    flat(&lab, "box", "--vlan 10 --ip 10.1.0.9/24")
        .refused(4, "VLAN 10 of ovs0 is network blue, and 10.1.0.9 is its to give")
        .hints(&format!("plumb attach {} blue --ip 10.1.0.9 --driver veth", lab.netns("box")));
}

/// What comes before the port in the plan is taken back with it, and the port with what comes after.
#[test]
fn a_refusal_before_or_after_the_port_leaves_none() {
    let lab = lab();
    flat(&lab, "peer", &format!("--ip {ALSO_FREE} --vlan 10")).ok();
    // Nobody but peer knows that it has this one too.
    lab.ip("peer", "addr add 192.168.9.50/24 dev eth1");
    let before = state(&lab);
    let target = lab.netns("box");
    let asks = format!("flat {target} -i ovs0 --driver veth --vlan 10 --keep-default --no-check --ip 192.168.9.50/24");
    let ran = lab.plumb(&asks);
    assert!(ran.code == 4 && ran.err.contains("192.168.9.50 is in use on the LAN by "), "{ran:#?}");
    assert!(ran.err.contains("; nothing was changed\n"), "{ran:#?}");
    state(&lab).is(&before);
    // A bridge that Open vSwitch cannot set up does not stay in its database either.
    let ran = lab.plumb(&asks.replace("ovs0", "ovs7"));
    assert_eq!(ran.code, 1, "{ran:#?}");
    assert!(ran.err.starts_with("plumb: Open vSwitch could not set ovs7 up; nothing was changed\n"), "{ran:#?}");
    state(&lab).is(&before);
}
