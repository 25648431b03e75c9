//! `plumb flat` does what it says.

use std::{process::Stdio, time::Duration};

use crate::lab::{FREE, FREE6, Lab, ROUTER, ROUTER6, Ran, output, sh, wait_for};

#[test]
fn a_container_is_on_the_lan_both_ways() {
    let lab = Lab::new();
    let ran = lab.plumb(&format!("flat {} -i nic0 --ip {FREE} --gateway {ROUTER}", lab.netns("box"))).ok();
    let lines: Vec<&str> = ran.out.lines().collect();
    assert_eq!(lines[0], format!("{}: eth1 {FREE} via {ROUTER} on nic0 (macvlan bridge)", lab.netns("box")));
    assert_eq!(lines[1], "  the default route was by eth0 (172.17.0.1); detach gives it back");
    assert!(lines[2].starts_with("  gateway 192.168.9.1 answers in "), "{ran:#?}");
    assert_eq!(ran.err, "");
    assert!(lab.pings("box", ROUTER) && lab.pings("lan", "192.168.9.100"));
    let link = &lab.json("box", "-d link show eth1")[0];
    assert_eq!((link["mtu"].as_u64(), link["operstate"].as_str()), (Some(1500), Some("UP")));
    assert_eq!(link["linkinfo"]["info_data"]["mode"], "bridge");
    assert!(link["altnames"][0].as_str().unwrap().starts_with("plumb:"), "{link}");
}

#[test]
fn every_way_to_name_a_target_leads_to_it() {
    let mut lab = Lab::new();
    let pid = lab.process("box");
    for target in [
        format!("pid:{pid}"),
        lab.netns("box"),
        format!("netns:/run/netns/{}", lab.full("box")),
        format!("netns:/proc/{pid}/ns/net"),
    ] {
        lab.plumb(&format!("flat {target} -i nic0 --ip {FREE} --probe 0")).ok();
        assert!(lab.pings("lan", "192.168.9.100"), "{target}");
        lab.plumb(&format!("detach {target}")).ok();
    }
}

#[test]
fn both_ip_versions_with_gateways_and_routes() {
    let lab = Lab::new();
    let ran = lab.plumb(&format!(
        "flat {} -i nic0 --ip {FREE} --ip {FREE6} --ip 192.168.9.101/24 --gateway {ROUTER} --gateway {ROUTER6} \
         --route '10.0.0.0/8,via 192.168.9.7,metric 50' --route 10.9.0.0/16 --route 'fd99::/48,via {ROUTER6}' --check-host {ROUTER6}",
        lab.netns("box")
    ));
    assert_eq!(ran.ok().err, "");
    let routes = lab.ip("box", "route") + &lab.ip("box", "-6 route");
    for route in [
        "default via 192.168.9.1 dev eth1 proto static",
        "10.0.0.0/8 via 192.168.9.7 dev eth1 proto static metric 50",
        "10.9.0.0/16 dev eth1 proto static scope link",
        "default via fd09::1 dev eth1 proto static metric 1024",
        "fd99::/48 via fd09::1 dev eth1 proto static metric 1024",
    ] {
        assert!(routes.contains(route), "{route} is missing in\n{routes}");
    }
    // The old IPv6 default had a better metric and would have won.
    assert!(!routes.contains("fd17::1"), "{routes}");
    assert!(lab.pings("box", ROUTER6) && lab.pings("lan", "fd09::100") && lab.pings("lan", "192.168.9.101"));
    assert!(!lab.ip("box", "addr show dev eth1 scope global").contains("tentative"));
}

#[test]
fn ipv6_works_where_it_was_off_and_advertisements_stay_out() {
    let lab = Lab::new();
    sh(&format!(
        "nsenter --net=/run/netns/{} sh -c 'echo 1 > /proc/sys/net/ipv6/conf/default/disable_ipv6'",
        lab.full("box")
    ));
    lab.flat(&format!("--ip {FREE6}")).ok();
    assert!(lab.pings("lan", "fd09::100"));
    let setting = |key: &str| {
        output(&format!("nsenter --net=/run/netns/{} cat /proc/sys/net/ipv6/conf/eth1/{key}", lab.full("box")))
    };
    assert_eq!((setting("disable_ipv6").trim(), setting("accept_ra").trim()), ("0", "0"));
}

#[test]
fn the_default_route_can_stay_or_stand_beside() {
    let lab = Lab::new();
    lab.flat(&format!("--ip {FREE} --gateway {ROUTER} --keep-default")).ok();
    assert!(lab.ip("box", "route").starts_with("default via 172.17.0.1 dev eth0"));
    lab.plumb(&format!("detach {}", lab.netns("box"))).ok();
    lab.flat(&format!("--ip {FREE} --gateway {ROUTER} --metric 300")).ok();
    let routes = lab.ip("box", "route show default");
    assert!(
        routes.contains("via 172.17.0.1") && routes.contains("via 192.168.9.1 dev eth1 proto static metric 300"),
        "{routes}"
    );
}

#[test]
fn an_off_link_gateway_is_reached() {
    let lab = Lab::new();
    lab.flat(&format!("--ip 192.168.9.100/32 --gateway {ROUTER} --off-link-gateway")).ok();
    assert!(lab.ip("box", "route show default").contains("via 192.168.9.1 dev eth1 proto static onlink"));
    sh(&format!("ip -n {} route replace 192.168.9.100/32 dev lan0", lab.full("lan")));
    assert!(lab.pings("box", ROUTER));
}

#[test]
fn names_addresses_and_sizes_are_as_asked_for() {
    let lab = Lab::new();
    lab.flat(&format!("--ip {FREE} --name lan.10-uplink0 --mac 02:00:00:00:09:99 --mtu 1400")).ok();
    let link = &lab.json("box", "link show lan.10-uplink0")[0];
    assert_eq!((link["address"].as_str(), link["mtu"].as_u64()), (Some("02:00:00:00:09:99"), Some(1400)));
    lab.flat("--ip 192.168.9.101/24").ok();
    lab.flat("--ip none --mac auto:web").ok();
    assert_eq!(lab.json("box", "link show eth2")[0]["address"], "f2:d4:3a:2d:95:ff");
    let ran = lab.plumb(&format!("flat {} -i nic0 --ip none", lab.netns("box"))).ok();
    assert_eq!(ran.out, format!("{}: eth3 without an address on nic0 (macvlan bridge)\n", lab.netns("box")));
}

#[test]
fn the_mac_address_survives_a_new_namespace() {
    let lab = Lab::new();
    let mac = || lab.json("box", "link show eth1")[0]["address"].as_str().unwrap().to_owned();
    lab.flat(&format!("--ip {FREE}")).ok();
    let first = mac();
    lab.plumb(&format!("detach {}", lab.netns("box"))).ok();
    lab.flat(&format!("--ip {FREE}")).ok();
    assert_eq!(mac(), first);
}

#[test]
fn each_mode_is_what_it_says() {
    let mut lab = Lab::new();
    lab.target("peer");
    let attach = |target: &str, ip: &str, mode: &str| {
        lab.plumb(&format!("flat {} -i nic0 --ip {ip}/24 --mode {mode} --probe 0", lab.netns(target))).ok()
    };
    let detach = || lab.plumb("detach --all").ok();
    let mode = || lab.json("box", "-d link show eth1")[0]["linkinfo"]["info_data"]["mode"].as_str().unwrap().to_owned();
    for (name, siblings_talk) in [("bridge", true), ("private", false), ("vepa", false)] {
        attach("box", "192.168.9.100", name);
        attach("peer", "192.168.9.101", name);
        assert_eq!(mode(), name);
        assert_eq!(lab.pings("box", "192.168.9.101"), siblings_talk, "{name}");
        assert!(lab.pings("box", ROUTER), "{name}");
        detach();
    }
    attach("box", "192.168.9.100", "passthru");
    assert_eq!(lab.json("box", "link show eth1")[0]["address"], lab.json("host", "link show nic0")[0]["address"]);
    assert!(lab.pings("box", ROUTER));
    let refused = lab.plumb(&format!("flat {} -i nic0 --ip 192.168.9.101/24 --probe 0", lab.netns("peer")));
    refused.refused(
        4,
        &format!(
            "nic0 has a passthru link, eth1 of {}, which tolerates no other; nothing was changed",
            lab.netns("box")
        ),
    );
    detach();
    let router = lab.json("lan", "link show lan0")[0]["address"].as_str().unwrap().to_owned();
    attach("box", "192.168.9.100", &format!("source --source-mac {router} --source-mac 02:00:00:00:00:09"));
    assert_eq!(mode(), "source");
    assert!(lab.pings("box", ROUTER));
}

#[test]
fn a_second_link_is_refused_beside_a_passthru_one_and_the_other_way_round() {
    let mut lab = Lab::new();
    lab.target("peer");
    lab.flat(&format!("--ip {FREE}")).ok();
    let ran = lab.plumb(&format!("flat {} -i nic0 --ip none --mode passthru", lab.netns("peer")));
    ran.refused(
        4,
        &format!(
            "nic0 has a link already, eth1 of {}, and passthru tolerates no other; nothing was changed",
            lab.netns("box")
        ),
    );
}

#[test]
fn the_lan_learns_at_once_where_an_address_is_now() {
    let lab = Lab::new();
    for ip in ["192.168.9.100", "fd09::100"] {
        sh(&format!("ip -n {} neigh replace {ip} lladdr 02:de:ad:00:00:00 dev lan0 nud stale", lab.full("lan")));
    }
    lab.flat(&format!("--ip {FREE} --ip {FREE6}")).ok();
    let mac = lab.json("box", "link show eth1")[0]["address"].as_str().unwrap().to_owned();
    for ip in ["192.168.9.100", "fd09::100"] {
        wait_for("the announcement", || lab.ip("lan", &format!("neigh show {ip}")).contains(&mac));
    }
}

#[test]
fn an_address_in_use_on_the_lan_is_not_taken() {
    let lab = Lab::new();
    let router = lab.json("lan", "link show lan0")[0]["address"].as_str().unwrap().to_owned();
    let before = lab.state();
    let ran = lab.plumb(&format!("flat {} -i nic0 --ip {ROUTER}/24", lab.netns("box")));
    ran.refused(4, &format!("{ROUTER} is in use on the LAN by {router}; nothing was changed"))
        .hints("choose another address; --probe 0 takes it all the same");
    let ran = lab.plumb(&format!("flat {} -i nic0 --ip {ROUTER6}/64", lab.netns("box")));
    ran.refused(4, "fd09::1 is in use on the LAN: another host answers for it; nothing was changed");
    lab.state().is(&before);
}

#[test]
fn a_gateway_that_does_not_answer_is_a_warning_that_helps() {
    let lab = Lab::new();
    let ran =
        lab.plumb(&format!("flat {} -i nic0 --ip {FREE} --gateway 192.168.9.254 --probe 0", lab.netns("box"))).ok();
    assert!(
        ran.err.starts_with("warning: gateway 192.168.9.254 does not answer within 1 s. Look at: the cable"),
        "{ran:#?}"
    );
    for word in ["VLAN", "promiscuous", "wifi"] {
        assert!(ran.err.contains(word), "{ran:#?}");
    }
}

#[test]
fn a_gateway_that_drops_pings_is_known_by_its_arp() {
    let lab = Lab::new();
    sh(&format!(
        "nsenter --net=/run/netns/{} sh -c 'echo 1 > /proc/sys/net/ipv4/icmp_echo_ignore_all'",
        lab.full("lan")
    ));
    let ran = lab.plumb(&format!("flat {} -i nic0 --ip {FREE} --gateway {ROUTER} --probe 0", lab.netns("box"))).ok();
    assert!(ran.out.contains("gateway 192.168.9.1 is there but answers no pings"), "{ran:#?}");
    assert_eq!(ran.err, "");
}

#[test]
fn a_parent_that_is_down_works_with_a_warning() {
    let lab = Lab::new();
    sh(&format!("ip -n {} link set nic0 down", lab.full("host")));
    let ran = lab.plumb(&format!("flat {} -i nic0 --ip {FREE} --ip {FREE6} --gateway {ROUTER}", lab.netns("box"))).ok();
    assert_eq!(ran.err, "warning: nic0 is down, so nothing can be reached by it yet; ip link set nic0 up\n");
    sh(&format!("ip -n {} link set nic0 up", lab.full("host")));
    wait_for("the LAN", || lab.pings("box", ROUTER));
}

#[test]
fn a_target_is_waited_for() {
    let lab = Lab::new();
    let late = lab.full("late");
    let waiting = lab
        .command(&format!("flat netns:{late} -i nic0 --ip none --wait 10s"))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    std::thread::sleep(Duration::from_millis(200));
    sh(&format!("ip netns add {late}"));
    let ran = Ran::from(waiting.wait_with_output().unwrap());
    sh(&format!("ip netns del {late}"));
    ran.ok();
    lab.plumb(&format!("flat netns:{late} -i nic0 --ip none --wait 100ms"))
        .refused(7, &format!("there is no namespace /run/netns/{late}, after waiting 100ms"));
}

#[test]
fn ctrl_c_during_the_check_ends_the_waiting_and_not_the_attachment() {
    let lab = Lab::new();
    let arguments = format!("flat {} -i nic0 --ip {FREE} --gateway 192.168.9.254 --probe 0", lab.netns("box"));
    let child = lab.command(&arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    wait_for("the address", || lab.ip("box", "route").contains("192.168.9.254"));
    std::thread::sleep(Duration::from_millis(200));
    sh(&format!("kill -INT {}", child.id()));
    let ran = Ran::from(child.wait_with_output().unwrap()).ok();
    assert_eq!(ran.err, "warning: not waited for 192.168.9.254\n");
    assert!(lab.plumb("ls").ok().out.contains(" up"));
}

#[test]
fn an_interface_that_was_renamed_inside_does_not_free_its_name() {
    let lab = Lab::new();
    let full = lab.full("box");
    lab.flat(&format!("--ip {FREE}")).ok();
    sh(&format!(
        "ip -n {full} link set eth1 down; ip -n {full} link set eth1 name lan7; ip -n {full} link set lan7 up"
    ));
    assert!(lab.flat("--ip 192.168.9.101/24").ok().out.contains(": eth2 "));
    lab.flat("--ip 192.168.9.102/24 --name eth1")
        .refused(4, &format!("{} has an attachment on record as eth1, though renamed", lab.netns("box")));
    lab.plumb("detach --all").ok();
    assert!(!lab.ip("box", "link").contains("lan7"));
}

#[test]
fn json_tells_all_of_it() {
    let lab = Lab::new();
    let ran = lab.plumb(&format!("--json flat {} -i nic0 --ip {FREE} --gateway {ROUTER}", lab.netns("box"))).ok();
    let json = ran.json();
    assert_eq!(json["interface"], "eth1");
    assert_eq!(json["addresses"][0], FREE);
    assert_eq!(json["parent"], "nic0");
    assert_eq!(json["checks"][0]["reached"], true);
    assert_eq!(json["replaced_routes"][0], "default via 172.17.0.1 dev eth0 mtu lock 1400 advmss 1300 proto 3");
    let ran = lab.plumb(&format!("--json flat {} -i nic7 --ip {FREE}", lab.netns("box")));
    assert_eq!(ran.code, 3);
    assert_eq!(ran.json()["error"]["kind"], "not-found");
    assert_eq!(ran.json()["error"]["message"], "the host has no interface nic7");
    assert_eq!(ran.err, "");
}

#[test]
fn verbose_logs_each_step_with_its_duration() {
    let lab = Lab::new();
    let ran = lab.flat(&format!("--ip {FREE} -v")).ok();
    let steps: Vec<&str> = ran.err.lines().collect();
    assert_eq!(steps.len(), 4, "{ran:#?}");
    assert!(steps[0].contains(" ms ip link add link nic0 name eth1 "), "{ran:#?}");
    assert_eq!(lab.flat("--ip none -q").ok().out, "");
}

#[test]
fn the_command_forks_nothing_and_asks_little() {
    let lab = Lab::new();
    let trace = lab.folder().join("trace");
    let mut command = lab.on_host("strace");
    command.args(["-f", "-o", trace.to_str().unwrap(), "-e", "trace=process,sendto,sendmsg", crate::lab::PLUMB]);
    command.args(crate::lab::words(&format!(
        "flat {} -i nic0 --ip {FREE} --gateway {ROUTER} --probe 0 --no-check",
        lab.netns("box")
    )));
    Ran::of(&mut command).ok();
    let trace = std::fs::read_to_string(trace).unwrap();
    let count = |pattern: &str| trace.lines().filter(|line| line.contains(pattern)).count();
    assert_eq!(count("nlmsg_len"), 8, "netlink requests\n{trace}");
    let forks = trace.lines().filter(|line| {
        ["fork(", "clone(", "clone3("].iter().any(|call| line.contains(call)) && !line.contains("CLONE_THREAD")
    });
    assert_eq!(forks.count(), 0, "{trace}");
    assert_eq!(count("execve("), 1);
}
