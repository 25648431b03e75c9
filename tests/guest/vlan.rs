//! Networks on a kernel that has VLANs: create-vlan, attach, detach, delete-vlan, the gateway.

use std::{process::Stdio, time::Duration};

use crate::{
    boot::in_guest,
    capture::Capture,
    etcd_cluster::Cluster,
    etcd_fault::{Cuts, Fault},
    lab::{Lab, Ran, State, output as sh_output, sh, wait_for},
    soak::{Ground, contend, eight},
};

/// A lab with the network `blue`, VLAN 10 of nic0, in which an address was given and given back, so
/// that all of its records are there.
fn blue() -> (Lab, State) {
    let lab = Lab::new();
    lab.plumb("create-vlan blue --subnet 10.1.0.0/24 -i nic0 --id 10").ok();
    attach(&lab, "box", "blue").ok();
    lab.plumb("detach --all").ok();
    let state = lab.state();
    (lab, state)
}

fn attach(lab: &Lab, target: &str, network: &str) -> Ran {
    lab.plumb(&format!("attach {} {network} --probe 0 --no-check", lab.netns(target)))
}

#[test]
fn two_vlans_of_two_containers_each_are_apart() {
    in_guest(|| {
        let (mut lab, _) = blue();
        ["peer", "third", "fourth"].into_iter().for_each(|name| lab.target(name));
        lab.plumb("create-vlan red --subnet 10.2.0.0/24 -i nic0 --id 20").ok();
        for (target, network, address) in [
            ("box", "blue", "10.1.0.3"),
            ("peer", "blue", "10.1.0.4"),
            ("third", "red", "10.2.0.2"),
            ("fourth", "red", "10.2.0.3"),
        ] {
            let said = attach(&lab, target, network).ok().out;
            let id = if network == "blue" { 10 } else { 20 };
            let gateway = address.rsplit_once('.').unwrap().0.to_owned() + ".1";
            let first = said.lines().next().unwrap();
            let expected = format!(
                "{}: eth1 {address}/24 via {gateway} in {network} on nic0.{id} (macvlan bridge)",
                lab.netns(target)
            );
            assert_eq!(first, expected);
        }
        assert!(lab.pings("box", "10.1.0.4") && lab.pings("fourth", "10.2.0.2"));
        // Everything that leaves box's MAC address, at the containers of the other network and on the wire.
        let mac = lab.json("box", "link show eth1")[0]["address"].as_str().unwrap().to_owned();
        let from_box = format!("ether src {mac}");
        let there = ["third", "fourth"].map(|name| Capture::start(&lab, name, "eth1", &from_box));
        let beside = Capture::start(&lab, "peer", "eth1", &from_box);
        let wire = Capture::start(&lab, "lan", "lan0", "");
        // Into the other network by unicast (over a neighbour entry that lies), and broadcasts.
        let theirs = lab.json("third", "link show eth1")[0]["address"].as_str().unwrap().to_owned();
        lab.ip("box", &format!("neigh replace 10.1.0.99 lladdr {theirs} dev eth1"));
        assert!(!lab.pings("box", "10.1.0.99") && !lab.pings("box", "10.1.0.98"), "nobody has these");
        assert!(!lab.pings("box", "10.2.0.2"));
        for capture in there {
            assert_eq!(capture.frames(), Vec::<String>::new(), "another VLAN's frames");
        }
        let heard = beside.frames();
        assert!(
            heard.iter().any(|frame| frame.contains("ff:ff:ff:ff:ff:ff")),
            "the same VLAN hears broadcasts: {heard:#?}"
        );
        let sent: Vec<String> = wire.frames().into_iter().filter(|frame| frame.contains(&mac)).collect();
        assert!(!sent.is_empty() && sent.iter().all(|frame| frame.contains("vlan 10,")), "{sent:#?}");
    });
}

#[test]
fn a_container_joins_leaves_and_leaves_nothing() {
    in_guest(|| {
        let (mut lab, before) = blue();
        lab.target("peer");
        let said = lab.plumb("networks").ok().out;
        assert_eq!(
            said,
            "NETWORK  VLAN  PARENT  SUBNET       USED  FREE  GATEWAY   BY\n\
             blue     10    nic0    10.1.0.0/24  0     253   10.1.0.1  -\n"
        );
        let before = if lab.plumb("ls").ok().out.contains("nothing") { lab.state() } else { before };
        attach(&lab, "box", "blue").ok();
        attach(&lab, "peer", "blue --ip 10.1.0.50").ok();
        let said = lab.plumb("ls").ok().out;
        assert!(said.contains("NETWORK") && said.contains(" blue ") && said.contains("10.1.0.50/24"), "{said}");
        assert!(lab.plumb("networks").ok().out.contains("10.1.0.0/24  2     251"));
        attach(&lab, "box", "blue").refused(4, &format!("{} is in blue already, by eth1", lab.netns("box")));
        lab.plumb(&format!("detach {}", lab.netns("box"))).ok();
        assert!(lab.ip("host", "link").contains("nic0.10@nic0"), "peer still uses the device");
        lab.plumb(&format!("detach {}", lab.netns("peer"))).ok();
        lab.state().is(&before);
    });
}

#[test]
fn after_a_restart_a_container_gets_the_same_again() {
    in_guest(|| {
        let (mut lab, _) = blue();
        lab.plumb("create-vlan red --subnet 10.2.0.0/24 --subnet fd02::/64 -i nic0 --id 20").ok();
        attach(&lab, "box", "blue").ok();
        attach(&lab, "box", "red").ok();
        let red = lab.json("box", "addr show eth2")[0].clone();
        let full = lab.full("box");
        sh(&format!("ip netns del {full}"));
        lab.target("peer");
        attach(&lab, "peer", "red").ok();
        sh(&format!("ip netns add {full} && ip -n {full} link set lo up"));
        // In the other order: the interface's name is red's all the same, and so are its addresses.
        let said = attach(&lab, "box", "red").ok().out;
        let now = lab.json("box", "addr show eth2")[0].clone();
        assert_eq!(now["address"], red["address"], "{said}");
        for version in ["inet", "inet6"] {
            let of = |link: &serde_json::Value| -> Vec<String> {
                let all = link["addr_info"].as_array().unwrap().iter();
                let wanted = all.filter(|a| a["family"] == version && a["scope"] == "global");
                wanted.map(|a| a["local"].as_str().unwrap().to_owned()).collect()
            };
            assert_eq!(of(&now), of(&red), "{said}");
            assert_eq!(of(&now).len(), 1);
        }
        attach(&lab, "box", "blue").ok();
        assert!(lab.ip("box", "addr show eth1").contains("10.1.0.3/24"));
    });
}

#[test]
fn a_device_is_used_only_if_it_is_the_vlan_and_deleted_only_if_it_is_plumbs() {
    in_guest(|| {
        let (lab, _) = blue();
        let host = lab.full("host");
        let there = |what: &str, then: &str| {
            sh(&format!("ip -n {host} link add {what} && ip -n {host} link set nic0.10 up"));
            attach(&lab, "box", "blue").refused(4, &format!("nic0.10 is there already, but it is {then}"));
            sh(&format!("ip -n {host} link del nic0.10"));
        };
        there("link nic0 name nic0.10 type vlan id 20", "VLAN 20 of nic0, not 10");
        there("link nic0 name nic0.10 type vlan protocol 802.1ad id 10", "a VLAN by 802.1ad, not by 802.1q");
        there("name nic0.10 type dummy", "no VLAN device but dummy");
        // One that somebody else made, under a name of their own, is used and stays.
        sh(&format!("ip -n {host} link add link nic0 name lab type vlan id 10 && ip -n {host} link set lab up"));
        let before = lab.state();
        assert!(attach(&lab, "box", "blue").ok().out.contains(" on lab "));
        lab.plumb("detach --all").ok();
        lab.state().is(&before);
        // One of plumb's with an interface of somebody else's on it stays as well, until that has gone.
        sh(&format!("ip -n {host} link del lab"));
        attach(&lab, "box", "blue").ok();
        sh(&format!("ip -n {host} link add link nic0.10 name other type macvlan mode bridge"));
        lab.plumb("detach --all").ok();
        assert!(lab.ip("host", "link").contains("nic0.10@"));
        sh(&format!("ip -n {host} link del other"));
        assert_eq!(lab.plumb("gc").ok().out, "nic0.10 deleted, nobody uses the VLAN\n");
        assert!(!lab.ip("host", "link").contains("nic0.10@"));
    });
}

#[test]
fn a_failed_attempt_takes_its_vlan_device_back() {
    in_guest(|| {
        let (lab, before) = blue();
        // The router has the address that is asked for.
        let lan = lab.full("lan");
        sh(&format!(
            "ip -n {lan} link add link lan0 name lan0.10 type vlan id 10 && ip -n {lan} link set lan0.10 up
             ip -n {lan} addr add 10.1.0.77/24 dev lan0.10"
        ));
        let with_router = lab.state();
        let ran = lab.plumb(&format!("attach {} blue --ip 10.1.0.77", lab.netns("box")));
        assert!(ran.code == 4 && ran.err.contains("10.1.0.77 is in use on the LAN by "), "{ran:#?}");
        lab.state().is(&with_router);
        sh(&format!("ip -n {lan} link del lan0.10"));
        let host = lab.full("host");
        sh(&format!("ip -n {host} link set nic0 down"));
        attach(&lab, "box", "blue").refused(1, "nic0 is down, and a VLAN on it cannot be used");
        sh(&format!("ip -n {host} link set nic0 up"));
        wait_for("IPv6 on nic0", || lab.ip("host", "-6 addr show dev nic0").contains("fe80"));
        lab.state().is(&before);
    });
}

#[test]
fn a_host_becomes_the_gateway_and_gives_all_back() {
    in_guest(|| {
        let lab = Lab::new();
        let host = lab.full("host");
        sh(&format!(
            "ip -n {host} addr add 192.168.9.2/24 dev nic0 && ip netns exec {host} sysctl -qw net.ipv4.ip_forward=1"
        ));
        let before = lab.state();
        let said = lab.plumb("create-vlan blue --subnet 10.1.0.0/24 -i nic0 --id 10 --gateway-here").ok().out;
        assert_eq!(said, "blue: VLAN 10 on nic0, 10.1.0.0/24 via 10.1.0.1\n  this host is the gateway, by gw-blue\n");
        let said = lab.plumb(&format!("attach {} blue", lab.netns("box"))).ok().out;
        assert!(said.contains("gateway 10.1.0.1 answers in"), "{said}");
        // Through the gateway to the router, which knows the way back.
        let lan = lab.full("lan");
        sh(&format!("ip -n {lan} route add 10.1.0.0/24 via 192.168.9.2"));
        assert!(lab.pings("box", "192.168.9.1"));
        lab.plumb("delete-vlan blue").refused(4, &format!("blue is in use by {} (eth1)", lab.netns("box")));
        assert!(lab.plumb("ls").ok().out.contains("host:"));
        lab.plumb("delete-vlan blue --force").ok();
        sh(&format!("ip -n {lan} route del 10.1.0.0/24 via 192.168.9.2"));
        lab.state().is(&before);
        assert_eq!(lab.plumb("networks").ok().out, "there are no networks\n");
    });
}

#[test]
fn what_attach_would_do_is_what_its_commands_do() {
    in_guest(|| {
        let (mut lab, _) = blue();
        lab.target("peer");
        let ran = lab.plumb(&format!("attach {} blue --ip 10.1.0.9 --probe 0 --no-check --dry-run", lab.netns("box")));
        let commands = ran.ok().out;
        assert!(commands.contains("type vlan protocol 802.1Q id 10"), "{commands}");
        let file = lab.folder().join("commands");
        std::fs::write(&file, &commands).unwrap();
        let seen = |lab: &Lab| {
            // The tag is random, the index of a device the kernel's choice, and what it says of its state
            // and of IPv6 takes a moment to settle.
            let text = format!("{}{}{}", lab.ip("host", "-d link"), lab.ip("box", "-d addr"), lab.ip("box", "route"));
            let lines = text.lines().filter(|line| !line.contains("altname") && !line.contains("inet6 fe80"));
            let settled = |line: &str| {
                line.replace("state UNKNOWN", "state UP").replace("@if4:", "@if:").replace("@if5:", "@if:")
            };
            State(lines.map(|line| settled(line.split_once(": ").map_or(line, |(_, rest)| rest)) + "\n").collect())
        };
        assert!(
            lab.on_host("sh").args(["-e", file.to_str().unwrap()]).output().unwrap().status.success(),
            "{commands}"
        );
        let by_commands = seen(&lab);
        sh(&format!("ip -n {} link del eth1; ip -n {} link del nic0.10", lab.full("box"), lab.full("host")));
        sh(&format!(
            "ip -n {} route replace default via 172.17.0.1 dev eth0 mtu lock 1400 advmss 1300",
            lab.full("box")
        ));
        attach(&lab, "box", "blue --ip 10.1.0.9").ok();
        seen(&lab).is(&by_commands);
    });
}

#[test]
fn a_network_can_be_joined_by_ipvlan() {
    in_guest(|| {
        let (mut lab, before) = blue();
        drop(before);
        lab.target("peer");
        let before = lab.state();
        let join = |target: &str, mode: &str| {
            let target = lab.netns(target);
            lab.plumb(&format!("attach {target} blue --driver ipvlan --mode {mode} --probe 0 --no-check"))
        };
        for mode in ["l2", "l3", "l3s"] {
            let said = join("box", mode).ok().out;
            assert!(said.contains(&format!(" in blue on nic0.10 (ipvlan {mode})")), "{said}");
            let address =
                lab.json("box", "-4 addr show dev eth1")[0]["addr_info"][0]["local"].as_str().unwrap().to_owned();
            let default = lab.ip("box", "route show default");
            if mode == "l2" {
                assert!(default.starts_with("default via 10.1.0.1 dev eth1"), "{default}");
            } else {
                assert!(default.starts_with("default dev eth1"), "{default}");
            }
            join("peer", mode).ok();
            assert!(lab.pings("peer", &address), "{mode}");
            let other = if mode == "l2" { "l3" } else { "l2" };
            lab.plumb(&format!("detach {}", lab.netns("peer"))).ok();
            let refused = join("peer", other);
            assert!(refused.code == 4 && refused.err.contains(&lab.netns("box")), "{refused:#?}");
            lab.plumb("detach --all").ok();
        }
        lab.state().is(&before);
    });
}

#[test]
fn attaching_to_a_network_killed_anywhere_is_taken_back() {
    in_guest(|| {
        let (lab, _) = blue();
        let arguments = format!("attach {} blue --probe 0 --no-check", lab.netns("box"));
        let kills = lab.killed_anywhere(&["sendto/2", "rename/2", "symlink"], &arguments, || lab.state());
        assert!(kills >= 8, "only {kills} kills");
    });
}

/// How eight contend for a network's addresses in the time that there is, or `scripts/soak` gives them.
const DEVICES: Ground = Ground { parent: "nic0", options: "", rounds: 1, killed_within: 250 };

#[test]
fn of_eight_that_share_a_device_none_gets_anothers_address_and_none_is_lost() {
    in_guest(|| {
        let mut lab = Lab::new();
        eight(&mut lab);
        contend(&lab, &lab.store().display().to_string(), &DEVICES);
    });
}

#[test]
fn of_eight_with_etcd_none_gets_anothers_address_and_none_is_lost() {
    in_guest(|| {
        let mut lab = Lab::new();
        eight(&mut lab);
        let cluster = Cluster::single(&lab);
        contend(&lab, &cluster.address(), &DEVICES);
    });
}

/// By the driver that makes a device; tests/system/etcd.rs has all calls, for others.
#[test]
fn attaching_to_a_network_while_etcd_goes_changes_nothing() {
    in_guest(|| {
        let blue = "create-vlan blue --subnet 10.1.0.0/24 -i nic0 --id 10";
        // Each call takes its time; `scripts/soak` has it.
        let (faults, every) = match std::env::var_os("PLUMB_SOAK") {
            Some(_) => (vec![Fault::Unheard, Fault::Unanswered, Fault::Hung], 1),
            None => (vec![Fault::Unheard], 3),
        };
        for fault in faults {
            let attach = "attach TARGET blue --probe 0 --no-check";
            Cuts { once: blue, every, ..Cuts::of(attach) }.all(fault);
        }
    });
}

/// A network that was deleted while somebody waited for a container is joined no more.
#[test]
fn who_waited_does_not_join_a_network_that_was_deleted_meanwhile() {
    in_guest(|| {
        let lab = Lab::new();
        lab.plumb("create-vlan blue --subnet 10.1.0.0/24 -i nic0 --id 10").ok();
        let before = lab.state();
        let late = lab.full("late");
        let mut waiting = lab.command(&format!("attach netns:{late} blue --probe 0 --no-check --wait 60s"));
        let waiting = waiting.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        std::thread::sleep(Duration::from_secs(3));
        lab.plumb("delete-vlan blue").ok();
        lab.plumb("create-vlan green --subnet 10.1.0.0/24 -i nic0 --id 10").ok();
        sh(&format!("ip netns add {late}"));
        let ran = Ran::from(waiting.wait_with_output().unwrap());
        sh(&format!("ip netns del {late}"));
        ran.refused(4, "blue was changed or deleted, or another plumb is at work on the target");
        lab.plumb("delete-vlan green").ok();
        lab.plumb("create-vlan blue --subnet 10.1.0.0/24 -i nic0 --id 10").ok();
        lab.state().is(&before);
    });
}

/// The gateway of a network goes by accident, and comes back by the same command.
#[test]
fn a_lost_gateway_is_regained_and_not_detached_with_the_rest() {
    in_guest(|| {
        let lab = Lab::new();
        let blue = "create-vlan blue --subnet 10.1.0.0/24 -i nic0 --id 10 --gateway-here";
        lab.plumb(blue).ok();
        lab.plumb(blue).refused(4, "this host is the gateway of blue already");
        attach(&lab, "box", "blue").ok();
        lab.plumb("detach --all").ok();
        lab.plumb("detach host:").refused(4, "gw-blue is the gateway of blue");
        assert!(lab.ip("host", "addr show dev gw-blue").contains("10.1.0.1/24"));
        assert_eq!(lab.plumb("networks").ok().err, "");
        lab.ip("host", "link del gw-blue");
        let warned = lab.plumb("networks").ok().err;
        assert!(
            warned.contains("gw-blue, this host's gateway of blue, has gone; plumb restore brings it back"),
            "{warned}"
        );
        attach(&lab, "box", "blue").ok();
        lab.plumb(blue).ok();
        assert!(lab.pings("box", "10.1.0.1"));
        lab.plumb(&blue.replace("--id 10", "--id 11")).refused(4, "there is a network blue already");
        lab.plumb("delete-vlan blue --force").ok();
        assert!(!lab.ip("host", "-br link").contains("blue") && !lab.ip("host", "-br link").contains("nic0.10"));
    });
}

/// What hangs on a VLAN's device keeps it, of whatever kind and wherever; and by another interface no
/// network gets into another's VLAN.
#[test]
fn a_device_in_use_stays_and_a_vlan_is_one_networks() {
    in_guest(|| {
        let (mut lab, _) = blue();
        lab.target("peer");
        attach(&lab, "box", "blue").ok();
        lab.ip("host", "link add link nic0.10 name q type vlan id 5");
        lab.ip("host", &format!("link set q netns {}", lab.full("peer")));
        lab.plumb("detach --all").ok();
        assert!(lab.ip("host", "-br link").contains("nic0.10") && lab.ip("peer", "-br link").contains("q@"));
        lab.ip("peer", "link del q");
        assert!(lab.plumb("gc --dry-run").ok().out.contains("nic0.10 deleted, nobody uses the VLAN"));
        lab.plumb("gc").ok();
        assert!(!lab.ip("host", "-br link").contains("nic0.10"));
        lab.ip("host", "link add nic1 type dummy");
        lab.plumb("create-vlan red --subnet 10.2.0.0/24 -i nic1 --id 10").ok();
        lab.plumb(&format!("attach {} red -i nic0 --probe 0", lab.netns("box")))
            .refused(4, "VLAN 10 of nic0 is network blue: red cannot use it");
        lab.plumb("gc").ok();
        assert!(!lab.ip("host", "-br link").contains("nic0.10"));
    });
}

/// An address of one's own choice in a VLAN that no network has: its device comes and goes as a network's does.
#[test]
fn an_address_in_a_vlan_makes_its_device_and_the_last_one_takes_it_away() {
    in_guest(|| {
        let mut lab = Lab::new();
        lab.target("peer");
        let lan = lab.full("lan");
        sh(&format!(
            "ip -n {lan} link add link lan0 name lan0.10 type vlan id 10 && ip -n {lan} link set lan0.10 up
             ip -n {lan} addr add 10.1.0.1/24 dev lan0.10"
        ));
        let before = lab.state();
        let flat = |target: &str, more: &str| {
            lab.plumb(&format!("flat {} -i nic0 --vlan 10 --keep-default --no-check {more}", lab.netns(target)))
        };
        for driver in ["macvlan bridge", "ipvlan l2"] {
            let kind = driver.split(' ').next().unwrap();
            let said = flat("box", &format!("--ip 10.1.0.5/24 --driver {kind} --probe 0")).ok().out;
            assert_eq!(said, format!("{}: eth1 10.1.0.5/24 on nic0.10 ({driver})\n", lab.netns("box")));
            flat("peer", &format!("--ip 10.1.0.6/24 --driver {kind} --probe 0")).ok();
            assert!(lab.pings("box", "10.1.0.1") && lab.pings("peer", "10.1.0.5"));
            lab.plumb(&format!("detach {}", lab.netns("box"))).ok();
            assert!(lab.ip("host", "-br link").contains("nic0.10@nic0"));
            lab.plumb(&format!("detach {}", lab.netns("peer"))).ok();
            lab.state().is(&before);
        }
        // A failure takes the device back as well: the router has the address.
        let taken = flat("box", "--ip 10.1.0.1/24");
        assert!(taken.code == 4 && taken.err.contains("10.1.0.1 is in use on the LAN by "), "{taken:#?}");
        lab.state().is(&before);
        // And so does gc after a kill, wherever the run was killed.
        let arguments = format!("flat {} -i nic0 --vlan 10 --ip 10.1.0.5/24 --probe 0 --no-check", lab.netns("box"));
        for number in [4, 6, 8, 10] {
            assert!(lab.killed(&arguments, "sendto", number));
            lab.plumb("gc").ok();
            lab.state().is(&before);
        }
        // What is printed does the same.
        let dry = flat("box", "--ip 10.1.0.5/24 --probe 0 --dry-run").ok().out;
        lab.state().is(&before);
        Ran::of(lab.on_host("sh").args(["-ec", &dry])).ok();
        assert!(lab.pings("box", "10.1.0.1"), "{dry}");
    });
}

#[test]
fn an_address_in_a_vlan_heeds_what_is_there() {
    in_guest(|| {
        let (lab, before) = blue();
        let target = lab.netns("box");
        let flat = |more: &str| {
            lab.plumb(&format!("flat {target} -i nic0 --vlan 10 --probe 0 --keep-default --no-check {more}"))
        };
        flat("--ip 10.1.0.5/24")
            .refused(4, "VLAN 10 of nic0 is network blue, and 10.1.0.5 is its to give")
            .hints(&format!("plumb attach {target} blue --ip 10.1.0.5"));
        lab.state().is(&before);
        let warned = flat("--ip 10.7.0.5/24").ok().err;
        assert!(
            warned.contains(&format!(
                "VLAN 10 of nic0 is network blue, and this is no member of it; plumb attach {target} blue joins"
            )),
            "{warned}"
        );
        lab.plumb("detach --all").ok();
        lab.state().is(&before);
        lab.ip("host", "link add link nic0 name nic0.10 type vlan id 20");
        flat("--ip 10.7.0.5/24")
            .refused(4, "nic0.10 is there already, but it is VLAN 20 of nic0, not 10")
            .hints("rename or delete it (ip link set nic0.10 name OTHER), or choose another VLAN");
        lab.ip("host", "link del nic0.10");
        lab.state().is(&before);
    });
}

/// A bridge that keeps VLANs apart: each port is in its own alone, and the cable carries all of them tagged.
#[test]
fn ports_of_a_bridge_are_in_their_vlans() {
    in_guest(|| {
        let mut lab = Lab::new();
        ["peer", "third"].into_iter().for_each(|name| lab.target(name));
        let (host, lan) = (lab.full("host"), lab.full("lan"));
        sh(&format!(
            "ip -n {lan} link add link lan0 name lan0.10 type vlan id 10 && ip -n {lan} link set lan0.10 up
             ip -n {lan} addr add 10.1.0.1/24 dev lan0.10
             ip -n {host} link add br0 up type bridge vlan_filtering 1 && ip -n {host} link set nic0 master br0
             bridge -n {host} vlan add dev nic0 vid 10"
        ));
        let vlans = || sh_output(&format!("bridge -n {host} vlan show"));
        let before = vlans();
        let flat = |target: &str, more: &str| {
            let target = lab.netns(target);
            lab.plumb(&format!("flat {target} --driver veth --keep-default --no-check --probe 0 {more}"))
        };
        let said = flat("box", "-i br0 --vlan 10 --ip 10.1.0.5/24 --host-name boxes").ok().out;
        assert_eq!(said, format!("{}: eth1 10.1.0.5/24 on br0 VLAN 10 (veth bridge)\n", lab.netns("box")));
        flat("peer", "-i br0 --vlan 10 --ip 10.1.0.6/24 --host-name peers").ok();
        // The same address in another VLAN is another one.
        flat("third", "-i br0 --vlan 20 --ip 10.1.0.5/24 --host-name thirds").ok();
        assert!(lab.pings("box", "10.1.0.1") && lab.pings("box", "10.1.0.6"));
        assert!(!lab.pings("third", "10.1.0.6"));
        let now = vlans();
        assert!(now.contains("boxes             10 PVID Egress Untagged"), "{now}");
        assert!(now.contains("thirds            20 PVID Egress Untagged"), "{now}");
        assert!(lab.plumb("ls").ok().out.contains(" br0 VLAN 20 "));
        let shown = |words: &[&str]| {
            let table = lab.plumb(&format!("show {}", lab.netns("box"))).ok().out;
            assert!(table.lines().any(|line| line.split_whitespace().eq(words.iter().copied())), "{table}");
        };
        shown(&["vlan", "10", "10"]);
        sh(&format!("bridge -n {host} vlan add dev boxes vid 30 pvid untagged"));
        shown(&["vlan", "10", "30", "≠"]);
        lab.plumb("detach --all").ok();
        assert_eq!(vlans(), before);
        let dry = flat("box", "-i br0 --vlan 10 --ip 10.1.0.5/24 --host-name other --dry-run").ok().out;
        Ran::of(lab.on_host("sh").args(["-ec", &dry])).ok();
        assert!(vlans().contains("other             10 PVID Egress Untagged"), "{dry}");
        lab.ip("host", "link del other");
        // A network is joined the same way, and with its VLAN's own device on a port nothing would come through.
        lab.plumb("create-vlan blue --subnet 10.1.0.0/24 -i br0 --id 10").ok();
        let joins = format!("attach {} blue --driver veth --probe 0", lab.netns("box"));
        let said = lab.plumb(&joins).ok().out;
        assert!(said.contains(" 10.1.0.2/24 via 10.1.0.1 in blue on br0 VLAN 10 (veth bridge)"), "{said}");
        assert!(said.contains("gateway 10.1.0.1 answers in"), "{said}");
        lab.plumb("detach --all").ok();
        lab.ip("host", "link add link nic0 name nic0.10 type vlan id 10");
        lab.plumb(&joins)
            .refused(4, "nic0.10 takes the frames of VLAN 10 before br0 sees them")
            .hints("detach what is on nic0.10 and delete it; or use -i nic0.10 without --driver veth");
        lab.ip("host", "link del nic0.10");
        lab.plumb("delete-vlan blue").ok();
        // One that is made for a VLAN keeps them apart, and one that does not is refused.
        flat("box", "-i br7 --vlan 10 --ip 10.7.0.5/24").ok();
        assert!(lab.ip("host", "-d link show br7").contains("vlan_filtering 1"));
        lab.plumb("detach --all").ok();
        assert!(!lab.ip("host", "-br link").contains("br7"));
        sh(&format!("ip -n {host} link set br0 type bridge vlan_filtering 0"));
        flat("box", "-i br0 --vlan 10 --ip 10.1.0.5/24")
            .refused(1, "br0 looks at no VLANs, so VLAN 10 would not be kept apart on it")
            .hints("ip link set br0 type bridge vlan_filtering 1 makes it; its ports are then in VLAN 1");
    });
}

/// Open vSwitch in the kernel: a bridge of it is made where it is missing, as one of the kernel's own is.
#[test]
fn a_bridge_of_open_vswitchs_is_made_and_goes_with_its_last_user() {
    in_guest(|| {
        let mut lab = Lab::new();
        lab.target("peer");
        lab.open_vswitch("");
        let flat = |target: &str, more: &str| {
            let target = lab.netns(target);
            lab.plumb(&format!("flat {target} -i ovs7 --driver veth --vlan 10 --keep-default --no-check {more}"))
        };
        flat("box", "--ip 10.1.0.5/24").ok();
        flat("peer", "--ip 10.1.0.6/24").ok();
        assert!(lab.pings("box", "10.1.0.6"));
        lab.plumb(&format!("detach {}", lab.netns("box"))).ok();
        assert!(lab.ip("host", "-br link").contains("ovs7"));
        lab.plumb("detach --all").ok();
        assert!(!lab.ip("host", "-br link").contains("ovs7"));
        // With an address of the host's own it is in use, until that has gone.
        flat("box", "--ip 10.1.0.5/24").ok();
        lab.ip("host", "addr add 10.1.0.2/24 dev ovs7");
        lab.plumb("detach --all").ok();
        assert!(lab.ip("host", "-br link").contains("ovs7"));
        lab.ip("host", "addr del 10.1.0.2/24 dev ovs7");
        assert_eq!(lab.plumb("gc").ok().out, "ovs7 deleted, nobody uses the bridge\n");
        assert!(!lab.ip("host", "-br link").contains("ovs7"));
    });
}
