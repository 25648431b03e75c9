//! The host's interface itself moves into the container, and comes home as it was.

use crate::{
    dhcp::{DNSMASQ, Lan},
    lab::{FREE, Lab, ROUTER, ROUTER6, Ran, State, at_each, sh},
};

fn phys(lab: &Lab, target: &str, arguments: &str) -> Ran {
    let target = lab.netns(target);
    lab.plumb(&format!("flat {target} -i nic0 --driver phys --probe 0 --no-check {arguments}"))
}

/// A NIC that is the host's in every way that the kernel forgets when it leaves.
fn lived_in(lab: &Lab) {
    let host = lab.full("host");
    sh(&format!(
        "ip -n {host} -batch - <<END
link set nic0 mtu 1450 group 7
link property add dev nic0 altname uplink
addr add 192.168.9.2/24 brd + dev nic0
addr add 192.168.9.3/24 dev nic0 label nic0:x
addr add 192.168.9.4/32 dev nic0 scope link metric 9 noprefixroute
addr add fd09::2/64 dev nic0 nodad
route add 10.0.0.0/8 via {ROUTER} metric 7 mtu lock 1300
route add 10.9.0.0/16 dev nic0 src 192.168.9.3
route add 10.10.0.0/16 dev lo src 192.168.9.3
route add 192.0.2.1 via {ROUTER} table 77
route add unreachable 10.11.0.0/16
rule add to 192.0.2.0/24 lookup 77
END
nsenter --net=/run/netns/{host} tc qdisc replace dev nic0 root handle 7: tbf rate 500mbit burst 200k latency 50ms
ip -n {host} -6 route add fd99::/48 via {ROUTER6}; ip -n {host} addr del $(ip -n {host} -6 -br addr show dev nic0 | grep -o 'fe80[^ ]*') dev nic0
nsenter --net=/run/netns/{host} sh -c 'echo 2 >/proc/sys/net/ipv4/conf/nic0/rp_filter; echo 0 >/proc/sys/net/ipv6/conf/nic0/accept_ra; echo 1 >/proc/sys/net/ipv6/conf/nic0/addr_gen_mode'"
    ));
}

/// With the settings of IPv4, which the lab leaves out, and without what the kernel tells of a carrier a second
/// late.
fn state(lab: &Lab) -> State {
    let settings =
        lab.on_host("sh").args(["-c", "grep -s . /proc/sys/net/ipv[46]/conf/nic0/*; true"]).output().unwrap();
    State(lab.state().0 + &String::from_utf8(settings.stdout).unwrap()).steady()
}

#[test]
fn it_moves_in_and_comes_home_as_it_was() {
    let lab = Lab::new();
    lived_in(&lab);
    let before = state(&lab);
    let mac = lab.json("host", "link show dev nic0")[0]["address"].clone();
    let dry = phys(&lab, "box", "--ip none --dry-run").ok();
    assert!(dry.err.contains("and 5 routes by nic0; detach gives them back"), "{dry:#?}");
    let said = phys(&lab, "box", &format!("--ip {FREE} --gateway {ROUTER}")).ok();
    assert_eq!(
        said.out,
        format!(
            "{}: eth1 {FREE} via {ROUTER} on nic0 (phys)\n  the default route was by eth0 (172.17.0.1); detach gives it back\n",
            lab.netns("box")
        )
    );
    let had = "the host had 192.168.9.4/32, 192.168.9.2/24, 192.168.9.3/24, fd09::2/64 and 5 routes by nic0; detach gives them back\n";
    assert_eq!(said.err, format!("warning: {had}"));
    assert!(!lab.ip("host", "link").contains("nic0"), "it is not on the host");
    assert_eq!(lab.json("box", "link show dev eth1")[0]["address"], mac);
    assert!(lab.pings("box", ROUTER) && lab.pings("lan", "192.168.9.100"));
    let shown = lab.plumb(&format!("show {} --json", lab.netns("box"))).ok().json();
    assert_eq!(shown["attachments"][0]["as_recorded"], true, "{shown:#}");
    assert!(lab.plumb("ls").ok().out.contains("nic0    phys    up"));
    lab.plumb("gc").ok();
    lab.plumb(&format!("detach {}", lab.netns("box"))).ok();
    state(&lab).is(&before);
}

#[test]
fn a_root_qdisc_with_classes_is_told_of() {
    let lab = Lab::new();
    sh(&format!("nsenter --net=/run/netns/{} tc qdisc replace dev nic0 root htb", lab.full("host")));
    assert_eq!(
        phys(&lab, "box", "--ip none").ok().err,
        "warning: nic0 loses its htb and the classes below it: detach does not give those back\n"
    );
    lab.plumb("detach --all").ok();
    assert!(lab.ip("host", "link show dev nic0").contains("noqueue"));
}

#[test]
fn mac_mtu_and_name_are_its_own_for_as_long_as_it_is_inside() {
    let lab = Lab::new();
    lived_in(&lab);
    let before = state(&lab);
    phys(&lab, "box", "--ip none --mac 02:00:00:00:09:09 --mtu 1400 --name lan0").ok();
    let there = lab.json("box", "link show dev lan0")[0].clone();
    assert_eq!((&there["address"], &there["mtu"]), (&"02:00:00:00:09:09".into(), &1400.into()));
    // Whatever becomes of it there.
    sh(&format!(
        "ip -n {0} link set lan0 down; ip -n {0} link set lan0 name other mtu 1300 address 02:00:00:00:09:0a",
        lab.full("box")
    ));
    lab.plumb("detach --all").ok();
    state(&lab).is(&before);
}

#[test]
fn its_own_address_goes_along_and_what_is_sent_from_it_comes_back() {
    let lab = Lab::new();
    let host = lab.full("host");
    sh(&format!("ip -n {host} addr add 192.168.9.2/24 dev nic0; ip -n {host} addr add fd09::2/64 dev nic0"));
    lab.state();
    sh(&format!(
        "ip -n {host} -6 route add fd98::/48 via {ROUTER6} src fd09::2; ip -n {host} addr add 10.7.7.7/32 dev lo"
    ));
    let before = state(&lab);
    phys(&lab, "box", "--ip 10.7.7.7/24").refused(4, "10.7.7.7 is this host's own address");
    phys(&lab, "box", "--ip 192.168.9.2/24").ok();
    assert!(lab.pings("lan", "192.168.9.2"));
    lab.plumb("detach --all").ok();
    state(&lab).is(&before);
}

#[test]
fn one_that_is_down_is_up_inside_and_down_again_at_home() {
    let lan = Lan::bare(DNSMASQ);
    let lab = &lan.lab;
    sh(&format!("ip -n {} link set nic0 down", lab.full("host")));
    let target = lab.netns("box");
    lab.plumb(&format!("dhcp {target} -i nic0 --driver phys --no-renew --no-check")).ok();
    assert!(lab.pings("box", ROUTER));
    lab.plumb("detach --all").ok();
    let home = lab.json("host", "-d addr show dev nic0")[0].clone();
    assert!(!home["flags"].to_string().contains("UP") && home["addr_info"] == serde_json::json!([]), "{home:#}");
}

#[test]
fn its_limits_and_its_number_are_its_own() {
    let mut lab = Lab::new();
    lab.target("peer");
    // A number that is free inside stays.
    let host = lab.full("host");
    sh(&format!(
        "ip -n {host} link add nic1 index 77 type veth peer name lan1 netns {}; ip -n {host} link set nic1 up",
        lab.full("lan")
    ));
    let before = state(&lab);
    let target = lab.netns("box");
    lab.plumb(&format!("flat {target} -i nic1 --driver phys --ip none --probe 0")).ok();
    assert_eq!(lab.json("box", "link show dev eth1")[0]["ifindex"], 77);
    lab.plumb(&format!("qos {target} eth1 --rate 10mbit")).ok();
    lab.plumb("detach --all").ok();
    state(&lab).is(&before);
}

#[test]
fn what_would_cut_somebody_off_is_refused_and_nothing_changes() {
    let mut lab = Lab::new();
    lab.target("peer");
    let host = lab.full("host");
    sh(&format!("ip -n {host} addr add 192.168.9.2/24 dev nic0; ip -n {host} route add default via {ROUTER}"));
    let before = state(&lab);
    let refused = |arguments: &str, code, message: &str, hint: &str| {
        phys(&lab, "box", arguments).refused(code, message).hints(hint);
        state(&lab).is(&before);
    };
    refused(
        &format!("--ip {FREE}"),
        4,
        &format!("nic0 carries this host's default route to {ROUTER}: it would be cut off"),
        "use macvlan, which leaves it where it is; --force moves it all the same",
    );
    refused("--ip none -i lo", 1, "lo is the loopback interface: nothing behind it to connect to", "choose the");
    refused(
        &format!("--ip {FREE} --mode bridge"),
        2,
        "phys has no mode: the interface itself moves",
        "leave --mode out",
    );
    refused(
        &format!("--ip {FREE} --queues 4"),
        2,
        "--queues is for links that plumb makes, and --driver phys makes none",
        "leave it out, or set it on the host beforehand: it moves along",
    );
    lab.flat("--ip none --force").refused(2, "--force has a meaning with --driver phys only");

    phys(&lab, "box", &format!("--ip {FREE} --force")).ok();
    lab.plumb("detach --all").ok();
    state(&lab).is(&before);

    sh(&format!("ip -n {host} route del default"));
    let before = state(&lab);
    let mut by_ssh = lab.command(&format!("flat {} -i nic0 --driver phys --ip none", lab.netns("box")));
    Ran::of(by_ssh.env("SSH_CONNECTION", "192.168.9.1 40000 192.168.9.2 22"))
        .refused(4, "nic0 carries the ssh session from 192.168.9.1: moving it would cut that off")
        .hints("use macvlan, which leaves it where it is; --force moves it all the same");
    state(&lab).is(&before);
    lab.plumb(&format!("flat {} -i nic0 --ip {FREE} --probe 0 --no-check", lab.netns("peer"))).ok();
    let before = state(&lab);
    phys(&lab, "box", "--ip none")
        .refused(4, &format!("nic0 cannot leave the host: eth1 of {} would be cut off", lab.netns("peer")))
        .hints("detach or delete what hangs on nic0 first, or use another interface");
    state(&lab).is(&before);
}

#[test]
fn what_cannot_leave_or_is_not_there_is_named_with_the_reason() {
    let mut lab = Lab::new();
    lab.target("peer");
    let (host, target, peer) = (lab.full("host"), lab.netns("box"), lab.netns("peer"));
    sh(&format!("ip -n {host} link add br0 up type bridge; ip -n {host} link set nic0 master br0"));
    phys(&lab, "box", "--ip none")
        .refused(4, "nic0 is a port of br0, so it cannot leave the host")
        .hints("ip link set nic0 nomaster takes it out; or use br0");
    phys(&lab, "box", "--ip none -i br0")
        .refused(1, "br0 is a bridge, and the kernel keeps those where they are")
        .hints(&format!("plumb flat {target} -i br0 --driver veth makes the container a port of it"));
    assert!(lab.ip("host", "-br link show master br0").contains("nic0"));
    sh(&format!("ip -n {host} link set nic0 nomaster; ip -n {host} link del br0"));

    lab.plumb("create-vlan blue --subnet 10.1.0.0/24 -i nic0 --id 10").ok();
    phys(&lab, "box", "--ip none --name lan7").ok();
    for driver in ["phys", "macvlan"] {
        lab.plumb(&format!("flat {peer} -i nic0 --ip none --driver {driver}"))
            .refused(4, &format!("nic0 is in {target}, as lan7"))
            .hints(&format!("plumb detach {target} lan7 brings it back"));
    }
    lab.plumb(&format!("link {target} set lan7 name lan8")).ok();
    lab.plumb(&format!("flat {peer} -i nic0 --ip none"))
        .refused(4, &format!("nic0 is in {target}, as lan8"))
        .hints(&format!("plumb detach {target} lan8 brings it back"));
    lab.plumb(&format!("attach {peer} blue --driver phys"))
        .refused(2, "a network's VLAN device is for all its containers, so it cannot move into one");
}

#[test]
fn what_the_kernel_refuses_half_way_is_taken_back() {
    let lab = Lab::new();
    let (host, target) = (lab.full("host"), lab.netns("box"));
    sh(&format!(
        "ip -n {host} link add link nic0 name sub0 type macvlan mode bridge; ip -n {host} link set sub0 up
         ip -n {host} link property add dev sub0 altname eth0x
         ip -n {host} addr add 192.168.9.2/24 dev sub0"
    ));
    let before = state(&lab);
    let refused = |arguments: &str, message: &str, hint: &str| {
        let ran = lab.plumb(&format!("flat {target} -i sub0 --driver phys --ip none {arguments}"));
        assert!(ran.err.starts_with(&format!("plumb: {message}")), "{ran:#?}");
        assert!(ran.hints(hint).err.contains("; nothing was changed"));
        state(&lab).is(&before);
    };
    // It is inside by then, and no larger than its parent.
    refused("--mtu 9000", "sub0 does not take an MTU of 9000: invalid argument", "leave --mtu out");
    sh(&format!("ip -n {} link property add dev up0 altname eth0x", lab.full("box")));
    let before = state(&lab);
    let ran = lab.plumb(&format!("flat {target} -i sub0 --driver phys --ip none"));
    assert_eq!(ran.code, 4, "{ran:#?}");
    assert!(ran.err.starts_with("plumb: an alternative name of sub0 is taken inside: file exists"), "{ran:#?}");
    state(&lab).is(&before);
}

#[test]
fn a_name_that_the_host_gave_to_another_meanwhile_is_told() {
    let lab = Lab::new();
    lived_in(&lab);
    let before = state(&lab);
    let (host, target) = (lab.full("host"), lab.netns("box"));
    phys(&lab, "box", &format!("--ip {FREE} --gateway {ROUTER}")).ok();
    sh(&format!("ip -n {host} link add nic0 type bridge"));
    let attached = state(&lab);
    for how in ["", " --dry-run"] {
        lab.plumb(&format!("detach {target}{how}"))
            .refused(4, "the host has another nic0 by now, so eth1 cannot come home; nothing was changed")
            .hints(&format!("ip link set nic0 name OTHER, then plumb detach {target} again"));
        state(&lab).is(&attached);
    }
    sh(&format!("ip -n {host} link set nic0 name other; ip -n {host} link property add dev other altname nic0"));
    lab.plumb(&format!("detach {target}"))
        .refused(4, "the host has another nic0 by now, so eth1 cannot come home; nothing was changed")
        .hints(&format!("ip link property del dev other altname nic0, then plumb detach {target} again"));
    // Nor where it came back by itself, under its name inside.
    sh(&format!("ip -n {0} link set eth1 netns {host}", lab.full("box")));
    let look = || lab.ip("host", "-br link") + &lab.ip("box", "route");
    let back = look();
    lab.plumb(&format!("detach {target}"))
        .refused(4, "the host has another nic0 by now, so eth1 cannot come home; nothing was changed");
    assert_eq!(look(), back);
    sh(&format!("ip -n {host} link del other"));
    lab.plumb("detach --all").ok();
    assert!(lab.ip("box", "route").contains("default via 172.17.0.1 dev eth0"));
    // By hand it was given another number.
    let numbers = |state: State| state.0.replace("4: nic0", "2: nic0").replace("lan0@if4", "lan0@if2");
    assert_eq!(numbers(state(&lab)), numbers(before));
}

#[test]
fn an_address_that_ran_out_takes_the_routes_along_that_need_it() {
    let lab = Lab::new();
    sh(&format!(
        "ip -n {} -batch - <<END
addr add 192.168.9.2/24 valid_lft 3 preferred_lft 3 dev nic0
addr add 10.5.0.2/24 dev nic0
route add 10.7.0.0/16 via 10.5.0.1
route add 10.8.0.0/16 via {ROUTER}
route add 10.9.0.0/16 dev nic0 src 192.168.9.2
END",
        lab.full("host")
    ));
    phys(&lab, "box", "--ip none").ok();
    std::thread::sleep(std::time::Duration::from_millis(3200));
    assert_eq!(lab.plumb("detach --all").ok().err, "");
    assert!(!lab.ip("host", "addr show dev nic0").contains("192.168.9.2"));
    assert!(!lab.ip("host", "link show dev nic0").contains("altname"), "nothing is left to be done");
    let routes = lab.ip("host", "route show dev nic0");
    assert!(routes.contains("10.7.0.0/16") && !routes.contains("10.8.") && !routes.contains("10.9."), "{routes}");
}

/// The kernel keeps a route whose router no address reaches any more, but takes none.
fn with_a_route_that_is_not_taken_again(lab: &Lab, interface: &str) {
    sh(&format!(
        "ip -n {0} addr add 10.5.0.2/24 dev {1}; ip -n {0} addr add 192.168.9.2/24 dev {1}
         ip -n {0} route add 10.7.0.0/16 via 10.5.0.1; ip -n {0} addr del 10.5.0.2/24 dev {1}",
        lab.full("host"),
        interface
    ));
}

#[test]
fn a_route_that_the_host_does_not_take_again_is_told_once() {
    let lab = Lab::new();
    with_a_route_that_is_not_taken_again(&lab, "nic0");
    phys(&lab, "box", "--ip none").ok();
    let left = lab.plumb("detach --all");
    assert_eq!(left.code, 6, "{left:#?}");
    assert!(left.err.contains("cannot add the route 10.7.0.0/16 via 10.5.0.1"), "{left:#?}");
    assert!(left.err.contains("by hand: ip route add 10.7.0.0/16 via 10.5.0.1"), "{left:#?}");
    let home = lab.ip("host", "addr show dev nic0");
    assert!(home.contains("192.168.9.2/24") && !home.contains("altname"), "{home}");
    lab.plumb("detach --all").ok();
    assert_eq!(lab.plumb("detach --all").ok().out, "nothing is attached\n");
}

#[test]
fn one_that_came_home_without_all_it_had_has_not_gone_with_its_container() {
    let mut lab = Lab::new();
    lab.target("brief");
    with_a_route_that_is_not_taken_again(&lab, "nic0");
    phys(&lab, "brief", "--ip none").ok();
    assert_eq!(lab.plumb("detach --all").code, 6);
    sh(&format!("ip netns del {}", lab.full("brief")));
    assert_eq!(lab.plumb("detach --all").ok().err, "");
    lab.namespace("brief");
}

#[test]
fn what_cannot_be_taken_back_half_way_is_told() {
    let lab = Lab::new();
    let (host, target) = (lab.full("host"), lab.netns("box"));
    sh(&format!("ip -n {host} link add link nic0 name sub0 type macvlan mode bridge; ip -n {host} link set sub0 up"));
    with_a_route_that_is_not_taken_again(&lab, "sub0");
    let left = lab.plumb(&format!("flat {target} -i sub0 --driver phys --ip none --mtu 9000"));
    assert_eq!(left.code, 6, "{left:#?}");
    let message = "plumb: sub0 does not take an MTU of 9000: invalid argument; could not be taken back: cannot add the route 10.7.0.0/16";
    assert!(left.err.starts_with(message) && !left.err.contains("nothing was changed"), "{left:#?}");
    assert!(left.err.contains("by hand: ip route add 10.7.0.0/16 via 10.5.0.1"), "{left:#?}");
    assert!(lab.ip("host", "addr show dev sub0").contains("192.168.9.2/24"), "all else is as it was");
    lab.plumb("gc").ok();
    assert_eq!(lab.plumb("gc").ok().out, "nothing was left behind\n");
}

#[test]
fn what_is_no_hardware_ends_with_its_namespace_and_that_is_said() {
    let mut lab = Lab::new();
    lab.target("brief");
    phys(&lab, "brief", "--ip none").ok();
    let target = lab.netns("brief");
    sh(&format!("ip netns del {}", lab.full("brief")));
    let said = lab.plumb(&format!("detach {target}")).ok();
    assert!(
        said.err.contains(&format!(
            "nic0 has gone with {target}: the kernel deletes a veth with its namespace; make it again"
        )),
        "{said:#?}"
    );
    assert_eq!(lab.plumb("gc").ok().out, "nothing was left behind\n");
    lab.namespace("brief");
}

/// As hardware does when its namespace ends: home it goes by the kernel, under the name that it had inside.
#[test]
fn one_that_came_back_by_itself_gets_all_it_had_again() {
    for how in ["gc", "detach", "flat"] {
        let mut lab = Lab::new();
        lab.namespace("brief");
        lived_in(&lab);
        let (host, brief, target) = (lab.full("host"), lab.full("brief"), lab.netns("brief"));
        let before = state(&lab);
        phys(&lab, "brief", &format!("--ip {FREE}")).ok();
        sh(&format!("ip -n {brief} link set eth1 netns {host}; ip netns del {brief}; ip netns add {brief}"));
        sh(&format!("ip -n {brief} link set lo up"));
        let dry = lab.plumb(&format!("detach {target} --dry-run")).ok().out;
        assert!(dry.starts_with("ip link set dev eth1 netns $$ name nic0 group 7 && "), "{dry}");
        match how {
            "gc" => {
                let said = lab.plumb("gc").ok().out;
                assert_eq!(said, format!("nic0 put back as it was, {target} has ended\n"));
                lab.plumb("detach --all").ok();
            }
            "detach" => drop(lab.plumb(&format!("detach {target}")).ok()),
            _ => {
                phys(&lab, "brief", &format!("--ip {FREE}")).ok();
                assert!(lab.pings("brief", ROUTER));
                lab.plumb("detach --all").ok();
            }
        }
        // The namespace is another one by now.
        let host = |state: State| State(state.0.split("brief").next().unwrap().to_owned());
        host(state(&lab)).is(&host(before));
    }
}

#[test]
fn one_whose_record_is_lost_is_sent_to_the_host_and_not_deleted() {
    let lab = Lab::new();
    phys(&lab, "box", "--ip none").ok();
    std::fs::remove_file(lab.store().join("flat").join(format!("{}@eth1.json", lab.netns("box")))).unwrap();
    let said = lab.plumb("gc").ok().out;
    assert!(said.contains("eth1 of /run/netns/") && said.contains("sent to the host, it has no record"), "{said}");
    let there = lab.json("host", "link show dev eth1")[0].clone();
    assert_eq!((&there["group"], &there["altnames"]), (&"default".into(), &serde_json::Value::Null));
}

#[test]
fn a_dummy_takes_no_interface_and_a_kernel_without_it_says_so() {
    let lab = Lab::new();
    let (target, before) = (lab.netns("box"), lab.state());
    let dummy = |arguments: &str| lab.plumb(&format!("flat {target} --driver dummy {arguments}"));
    dummy(&format!("--ip {FREE} -i nic0"))
        .refused(2, "a dummy leads nowhere, so not to nic0 either")
        .hints("leave -i out, or --driver dummy");
    dummy(&format!("--ip {FREE} --mode bridge")).refused(2, "a dummy has no mode: it leads nowhere");
    dummy(&format!("--ip {FREE} --big-tcp"))
        .refused(2, "--big-tcp is for what passes between containers, and a dummy leads nowhere");
    lab.plumb(&format!("dhcp {target} --driver dummy"))
        .refused(2, "a dummy leads nowhere, so no DHCP server answers there");
    lab.flat(&format!("--ip {FREE} --pkey 0x8001"))
        .refused(1, "nic0 is no InfiniBand interface, so it has no partitions");
    lab.flat(&format!("--ip {FREE} --pkey 0x8001 --driver veth"))
        .refused(2, "P_Key 0x8001 is for a child of an InfiniBand interface");
    assert!(lab.flat(&format!("--ip {FREE} --pkey 0x8000")).err.contains("is no P_Key"));
    let ran = dummy(&format!("--ip {FREE}"));
    if ran.code != 0 {
        assert!(ran.err.starts_with("plumb: this kernel has no dummy; nothing was changed\n"), "{ran:#?}");
        assert!(ran.err.contains("hint: modprobe dummy loads it"), "{ran:#?}");
    }
    lab.plumb("detach --all").ok();
    lab.state().is(&before);
}

#[test]
fn killed_anywhere_it_is_at_home_again() {
    let lab = Lab::new();
    lived_in(&lab);
    let before = state(&lab);
    let target = lab.netns("box");
    let attach = format!("flat {target} -i nic0 --driver phys --ip {FREE} --gateway {ROUTER} --probe 0 --no-check");
    let calls = ["sendto", "rename", "write"];
    let kills = lab.killed_anywhere(&calls, &attach, || state(&lab));
    let on_the_way_home = at_each(&calls, |call, number| {
        phys(&lab, "box", &format!("--ip {FREE} --gateway {ROUTER}")).ok();
        let was_killed = lab.killed("detach --all", call, number);
        lab.plumb("detach --all").ok();
        lab.plumb("gc").ok();
        state(&lab).is(&before);
        was_killed
    });
    assert!(kills + on_the_way_home >= 30, "only {kills} and {on_the_way_home} kills");
}
