//! Routes, rules and links are changed, remembered with the attachment, and taken back with it.

use crate::lab::{ALSO_FREE, FREE, FREE6, Lab, PLUMB, ROUTER, ROUTER6, Ran, kernel_state, sh};

/// A lab whose box has eth1 on the LAN, with a default route of its own.
pub fn attached() -> Lab {
    let lab = Lab::new();
    lab.flat(&format!("--ip {FREE} --gateway {ROUTER}")).ok();
    lab
}

pub fn change(lab: &Lab, verb: &str, words: &str) -> Ran {
    lab.plumb(&format!("{verb} {} {words}", lab.netns("box")))
}

/// Each kind of change: what is done first, and what takes it back.
pub const CHANGES: [(&str, &str, &str); 15] = [
    ("route", "add 10.0.0.0/8 via 192.168.9.254", "del 10.0.0.0/8"),
    ("route", "add 10.0.0.0/8 dev eth1 metric 7 table 100 mtu lock 1400 src 192.168.9.100", "del 10.0.0.0/8 table 100"),
    ("route", "add blackhole 10.9.0.0/16", "del 10.9.0.0/16"),
    ("route", "add unreachable fd77::/48", "del fd77::/48"),
    ("route", "add 10.5.0.0/16 via 10.4.4.4 dev eth1 onlink", "del 10.5.0.0/16"),
    ("route", "add local 10.9.0.1 dev eth1", "del local 10.9.0.1"),
    ("route", "add 10.3.0.0/16 via 172.17.0.1 --with eth1", "del 10.3.0.0/16"),
    ("route", "replace default via 192.168.9.254", "replace default via 192.168.9.1"),
    (
        "route",
        "replace default via fd17::7 metric 512 --with eth1",
        "replace default via fd17::1 metric 512 proto boot --with eth1",
    ),
    ("route", "append default via 192.168.9.250", "del default via 192.168.9.250"),
    ("rule", "add from 192.168.9.0/24 table 100", "del from 192.168.9.0/24"),
    ("rule", "-6 add not iif eth0 fwmark 0x10/0xff prohibit priority 99", "-6 del priority 99"),
    ("link", "set eth1 mtu 1400", "set eth1 mtu 1500"),
    ("link", "set mac 02:00:00:00:09:77 promisc on name lan0", "set mac 02:00:00:00:09:78 promisc off name eth1"),
    ("link", "set eth0 mtu 1400 --with eth1", "set eth0 mtu 1500 --with eth1"),
];

#[test]
fn detach_gives_back_exactly_what_was_there() {
    let lab = Lab::new();
    let before = lab.state();
    lab.flat(&format!("--ip {FREE} --ip {FREE6} --gateway {ROUTER}")).ok();
    for (verb, words, _) in CHANGES {
        change(&lab, verb, words).ok();
    }
    let shown = lab.plumb(&format!("show {} --json", lab.netns("box"))).ok().json();
    assert_eq!(shown["attachments"][0]["as_recorded"], true, "{shown:#}");
    let dry = lab.plumb(&format!("detach {} --dry-run", lab.netns("box"))).ok();
    let record = std::fs::read_to_string(lab.store().join("flat").read_dir().unwrap().next().unwrap().unwrap().path());
    lab.plumb(&format!("detach {}", lab.netns("box"))).ok();
    lab.state().is(&before);
    // What goes with the link is not said.
    assert!(dry.out.contains("ip route del blackhole 10.9.0.0/16") && !dry.out.contains("mtu 1500 "), "{}", dry.out);
    assert!(record.unwrap().contains("\"changes\""));
}

#[test]
fn detach_in_words_is_honest_after_changes() {
    let lab = Lab::new();
    let before = kernel_state(&lab);
    lab.flat(&format!("--ip {FREE} --gateway {ROUTER}")).ok();
    for (verb, words, _) in CHANGES {
        change(&lab, verb, words).ok();
    }
    let dry = lab.plumb("detach --all --dry-run").ok();
    let mut shell = lab.on_host("sh");
    Ran::of(shell.args(["-ec", &dry.out])).ok();
    kernel_state(&lab).is(&before);
}

#[test]
fn what_comes_to_nothing_is_not_remembered() {
    let lab = attached();
    let record =
        || std::fs::read_to_string(lab.store().join("flat").read_dir().unwrap().next().unwrap().unwrap().path());
    let (before, text) = (lab.state(), record().unwrap());
    for (verb, words, back) in CHANGES.iter().filter(|(_, words, _)| !words.contains("mac")) {
        let ran = change(&lab, verb, words).ok();
        assert!(ran.out.starts_with(&lab.netns("box")), "{ran:#?}");
        assert_ne!(record().unwrap(), text, "{words}");
        change(&lab, verb, back).ok();
        assert_eq!(record().unwrap(), text, "{words}");
        lab.state().is(&before);
    }
}

#[test]
fn a_replaced_default_route_is_given_back_in_whatever_order_the_attachments_go() {
    for order in [["eth1", "eth2"], ["eth2", "eth1"]] {
        let lab = Lab::new();
        let before = lab.state();
        lab.flat(&format!("--ip {FREE} --keep-default")).ok();
        lab.flat(&format!("--ip {ALSO_FREE} --keep-default")).ok();
        let ran = change(&lab, "route", "replace default via 192.168.9.1 dev eth1").ok();
        assert!(ran.out.ends_with("\n  the detach of eth1 gives the old one back\n"), "{ran:#?}");
        change(&lab, "route", "replace default via 192.168.9.2 dev eth2").ok();
        change(&lab, "route", "replace default via 192.168.9.3 dev eth1").ok();
        for interface in order {
            lab.plumb(&format!("detach {} {interface}", lab.netns("box"))).ok();
        }
        lab.state().is(&before);
    }
}

#[test]
fn a_deleted_route_comes_back_as_it_was() {
    let lab = attached();
    let by_docker = "add 10.3.0.0/16 via 172.17.0.1 proto 77 mtu lock 1300 metric 9 --unrecorded";
    let ran = change(&lab, "route", by_docker).ok();
    assert!(ran.out.ends_with("\n  it is on no record: nothing takes it back\n"), "{ran:#?}");
    let before = lab.ip("box", "route show 10.3.0.0/16");
    change(&lab, "route", "del 10.3.0.0/16 --with eth1").ok();
    change(&lab, "rule", "del priority 32767 --with eth1").ok();
    change(&lab, "rule", "add from all lookup main priority 5").ok();
    change(&lab, "rule", "del priority 0 --with eth1").ok();
    assert_eq!(lab.ip("box", "route show 10.3.0.0/16"), "");
    change(&lab, "link", "set eth0 mtu 1400 --with eth1").ok();
    let links = change(&lab, "link", "show --json").ok().json();
    let eth0 = links["links"].as_array().unwrap().iter().find(|link| link["name"] == "eth0").unwrap();
    assert_eq!(eth0["goes_with"], "eth1", "{links:#}");
    // What was deleted, or changed of another interface, is shown with what takes it back.
    let shown = || lab.plumb(&format!("show {}", lab.netns("box"))).ok().out;
    let now = shown();
    for text in
        ["1400 of eth0", "10.3.0.0/16 via 172.17.0.1 dev eth0", "from all lookup default priority 32767: deleted"]
    {
        assert!(now.contains(text) && !now.contains('≠'), "{text}: {now}");
    }
    lab.ip("box", "link set eth0 mtu 1300");
    lab.ip("box", "rule add from all lookup default priority 32767 protocol kernel");
    assert_eq!(shown().matches('≠').count(), 2, "{}", shown());
    lab.ip("box", "rule del priority 32767");
    lab.ip("box", "link set eth0 mtu 1400");
    lab.plumb("detach --all").ok();
    assert!(lab.ip("box", "rule").starts_with("0:\tfrom all lookup local"));
    assert_eq!(lab.ip("box", "route show 10.3.0.0/16"), before);
    assert!(lab.ip("box", "rule").contains("32767:"));
}

#[test]
fn a_link_that_was_down_has_its_routes_and_addresses_again() {
    let lab = Lab::new();
    let before = lab.state();
    lab.flat(&format!("--ip {FREE} --ip {FREE6} --gateway {ROUTER} --gateway {ROUTER6} --route 10.0.0.0/8")).ok();
    change(&lab, "route", "add default via 192.168.9.254 table 100").ok();
    let ran = change(&lab, "route", "append default via 192.168.9.7").ok();
    assert!(
        ran.out.ends_with(": route default via 192.168.9.7 dev eth1 added behind that by eth1 (192.168.9.1)\n"),
        "{ran:#?}"
    );
    change(&lab, "route", "append default via 192.168.9.7")
        .refused(4, &format!("{} has a route default by eth1 (192.168.9.7) already", lab.netns("box")));
    change(&lab, "route", "append default via fd09::7")
        .refused(4, "of IPv6 a place has one route, and this one's is by eth1 (fd09::1)");
    let up = lab.state();
    let down = change(&lab, "link", "set eth1 down").ok();
    assert_eq!(down.out, format!("{}: eth1 is down\n", lab.netns("box")));
    assert!(!lab.ip("box", "route").contains("eth1"));
    let shown = lab.plumb(&format!("show {} --json", lab.netns("box"))).ok().json();
    assert_eq!(shown["attachments"][0]["as_recorded"], true, "{shown:#}");
    change(&lab, "route", "add 10.1.0.0/16 dev eth1").refused(1, "eth1 is down, and has no routes until it is up");
    change(&lab, "link", "set eth1 down").ok();
    let ran = change(&lab, "link", "set up").ok();
    assert!(ran.out.contains("  route default via 192.168.9.1 dev eth1 is back\n"), "{ran:#?}");
    lab.state().is(&up);
    change(&lab, "link", "set eth1 down").ok();
    lab.plumb("detach --all").ok();
    lab.state().is(&before);
}

#[test]
fn a_renamed_link_is_known_by_either_name() {
    let lab = attached();
    let target = lab.netns("box");
    change(&lab, "link", "set eth1 name lan0").ok();
    change(&lab, "link", "set lan0 mtu 1400").ok();
    change(&lab, "route", "add 10.0.0.0/8 dev lan0").ok();
    let ran = change(&lab, "link", "set eth1 mtu 1300").ok();
    assert_eq!(ran.out, format!("{target}: lan0 has MTU 1300 (before: 1400)\n"));
    let ran = change(&lab, "route", "add 10.1.0.0/16 dev eth1").ok();
    assert_eq!(ran.out, format!("{target}: route 10.1.0.0/16 dev lan0 scope link added\n"));
    change(&lab, "rule", "add iif eth1 table 100 priority 9").ok();
    assert!(lab.ip("box", "rule").contains("iif lan0 lookup 100"));
    change(&lab, "rule", "del iif eth1").ok();
    lab.plumb(&format!("qos {target} eth1 --rate 10mbit")).ok();
    change(&lab, "link", "set lan0 name lan1")
        .refused(4, "its limits are bound to the name lan0")
        .hints(&format!("plumb qos clear {target} lan0, and set them anew afterwards"));
    assert_eq!(lab.plumb("ls --json").ok().json()["attachments"][0]["interface"], "lan0");
    // The name that it had is on record, and not given to another.
    let second = lab.flat(&format!("--ip {ALSO_FREE} --keep-default --json")).ok().json();
    assert_eq!(second["interface"], "eth2");
    lab.plumb(&format!("detach {target} eth2")).ok();
    let ran = lab.plumb(&format!("detach {target} lan0")).ok();
    assert_eq!(ran.out, format!("{target}: lan0 {FREE} detached\n"));
    assert!(lab.plumb("qos show").ok().out.contains("no limits"));
}

#[test]
fn limits_of_a_renamed_link_are_put_back_when_its_target_runs_again() {
    let mut lab = attached();
    let target = lab.netns("box");
    change(&lab, "link", "set eth1 name lan0").ok();
    lab.plumb(&format!("qos {target} lan0 --rate 10mbit")).ok();
    lab.restart("box");
    lab.flat(&format!("--ip {FREE} --gateway {ROUTER} --name eth1")).ok();
    let limits = lab.plumb("qos show --json").ok().json()["limits"].clone();
    assert_eq!(limits.as_array().unwrap().len(), 1, "{limits:#}");
    assert_eq!((&limits[0]["interface"], &limits[0]["state"]), (&"eth1".into(), &"holds".into()), "{limits:#}");
    lab.plumb(&format!("detach {target}")).ok();
    assert!(lab.plumb("qos show").ok().out.contains("no limits"));
}

#[test]
fn the_lan_is_told_of_a_new_mac_address() {
    let lab = attached();
    // Who has asked once keeps the answer for a while.
    assert!(lab.pings("lan", "192.168.9.100"));
    change(&lab, "link", "set eth1 mac 02:00:00:00:09:77").ok();
    assert!(lab.ip("lan", "neigh show 192.168.9.100").contains("02:00:00:00:09:77"));
    assert!(lab.pings("lan", "192.168.9.100"));
}

#[test]
fn what_is_said_is_what_is_there() {
    let lab = attached();
    let target = lab.netns("box");
    change(&lab, "route", "add 10.0.0.0/8 via 192.168.9.254").ok();
    let ran = change(&lab, "rule", "add from 192.168.9.0/24 lookup 100 priority 100").ok();
    assert_eq!(
        ran.out,
        format!("{target}: rule from 192.168.9.0/24 lookup 100 priority 100 added\n  it goes with eth1\n")
    );
    let shown = change(&lab, "route", "").ok().out;
    let line = |beginning: &str| shown.lines().find(|line| line.starts_with(beginning)).unwrap().to_owned();
    assert!(line("10.0.0.0/8 via 192.168.9.254 dev eth1 ").ends_with(" eth1"), "{shown}");
    assert!(line("172.17.0.0/16 dev eth0").ends_with(" -"), "{shown}");
    let routes = change(&lab, "route", "show --json").ok().json();
    let is_ours = |route: &&serde_json::Value| route["destination"] == "10.0.0.0/8";
    let ours = routes["routes"].as_array().unwrap().iter().find(is_ours).unwrap();
    assert_eq!(
        (&ours["dev"], &ours["via"][0], &ours["goes_with"]),
        (&"eth1".into(), &"192.168.9.254".into(), &"eth1".into())
    );
    let rules = change(&lab, "rule", "show --json").ok().json();
    assert_eq!(rules["rules"][1]["goes_with"], "eth1", "{rules:#}");
    let links = change(&lab, "link", "show --json").ok().json();
    let eth1 = links["links"].as_array().unwrap().iter().find(|link| link["name"] == "eth1").unwrap();
    assert_eq!((&eth1["mtu"], &eth1["goes_with"]), (&1500.into(), &"eth1".into()));
    let only = change(&lab, "link", "show eth1 --json").ok().json();
    assert_eq!(only["links"], serde_json::json!([eth1]));
    let again = change(&lab, "route", "replace 10.0.0.0/8 via 192.168.9.254 --json").ok().json();
    assert_eq!((&again["changed"], &again["commands"]), (&false.into(), &serde_json::json!([])));
    assert_eq!(change(&lab, "route", "replace 10.0.0.0/8 via 192.168.9.254 -q").ok().out, "");
}

#[test]
fn what_cannot_be_is_refused_and_nothing_is_changed() {
    let lab = attached();
    let (before, target) = (lab.state(), lab.netns("box"));
    for (verb, words, code, message) in [
        (
            "route",
            "add 10.0.0.0/8 via 172.17.0.9",
            3,
            "TARGET: eth0 is not plumb's, so nothing would take the route back",
        ),
        ("route", "add 10.0.0.0/8 via 10.99.0.1", 1, "10.99.0.1 is in no subnet of TARGET"),
        ("route", "add 10.0.0.0/8 via 10.99.0.1 dev eth1", 1, "10.99.0.1 is not in a subnet of eth1"),
        ("route", "add 10.0.0.0/8 via fe80::1", 2, "route 10.0.0.0/8 and via fe80::1 are of different IP versions"),
        ("route", "add fd77::/48 via fe80::1", 1, "fe80::1 may be on any link of TARGET"),
        ("route", "add 10.0.0.0/8", 2, "route 10.0.0.0/8 has no way: neither a router nor an interface"),
        ("route", "add 10.0.0.0/8 dev eth7", 3, "TARGET has no interface eth7"),
        ("route", "add 10.0.0.0/8 dev eth1 src 10.1.1.1", 1, "src 10.1.1.1 is no address of TARGET"),
        ("route", "add default via 192.168.9.7", 4, "TARGET has a route default by eth1 (192.168.9.1) already"),
        ("route", "del 10.0.0.0/8", 3, "TARGET has no such route to 10.0.0.0/8"),
        ("route", "add 10.0.0.0/8 dev eth1 --with eth5", 3, "TARGET: eth5 is none of plumb's interfaces"),
        ("route", "show 10.0.0.0/8", 2, "show lists the routes of a table, and what is behind it names none"),
        ("rule", "add", 2, "which rule? nothing is said of it"),
        ("rule", "del priority 7", 3, "TARGET has no such rule"),
        (
            "rule",
            "add from all table main priority 32766",
            4,
            "TARGET has the rule from all lookup main priority 32766 already",
        ),
        ("link", "set eth1 mtu 9000", 1, "MTU 9000 is above that of nic0, which is 1500"),
        ("link", "set eth1 name eth0", 4, "TARGET already has eth0"),
        ("link", "set eth0 mtu 1400", 3, "TARGET: eth0 is not plumb's, so nothing would take the change back"),
        (
            "link",
            "set eth0 down --with eth1",
            1,
            "eth0 loses its routes when it goes down, and the detach of eth1 would not bring them back",
        ),
        ("link", "set eth9 up", 3, "TARGET has no interface eth9"),
        ("link", "show eth9", 3, "TARGET has no interface eth9"),
        (
            "link",
            "set eth1 name a234567890123456",
            2,
            "interface name \"a234567890123456\" has 16 bytes, the kernel takes at most 15",
        ),
    ] {
        change(&lab, verb, words).refused(code, &message.replace("TARGET", &target));
    }
    lab.state().is(&before);
    // The kernel's own refusal, after another step had been done.
    let nic = lab.ip("host", "-br link show nic0").split_whitespace().nth(2).unwrap().to_owned();
    change(&lab, "link", &format!("set eth1 mtu 1400 mac {nic}"))
        .refused(4, &format!("MAC {nic} is in use on nic0 already, by nic0 itself; nothing was changed"));
    lab.state().is(&before);
    change(&lab, "rule", "add iif eth1 table 100 priority 100").ok();
    change(&lab, "link", "set eth1 name lan0")
        .refused(4, "a rule is bound to the name eth1: from all iif eth1 lookup 100 priority 100")
        .hints(&format!("plumb rule {target} del priority 100, and add it anew afterwards"));
    lab.plumb("route host: show").refused(2, "host: is this host itself; plumb changes containers");
    sh(&format!("ip -n {} link del eth1", lab.full("box")));
    change(&lab, "link", "set mtu 1400").refused(3, &format!("{target} has no interface eth1"));
}

#[test]
fn a_refusal_says_what_there_is() {
    let mut lab = attached();
    for (verb, words, hint) in [
        ("route", "add 10.0.0.0/8 dev eth1 src 10.1.1.1", "it has 172.17.0.2, 192.168.9.100"),
        ("route", "add fd77::/48 dev eth1 src fd78::1", "it has fd17::2"),
        ("route", "add 10.0.0.0/8 dev eth1 --with eth5", "plumb attached eth1"),
        ("link", "show eth2", "did you mean eth0? it has lo, "),
        ("rule", "del", "such as plumb rule TARGET del priority 100; plumb rule TARGET lists them"),
    ] {
        let ran = change(&lab, verb, words).hints(&hint.replace("TARGET", &lab.netns("box")));
        assert_ne!(ran.code, 0);
    }
    // Whose MAC address it is, wherever that is.
    lab.target("other");
    let other = lab.netns("other");
    lab.plumb(&format!("flat {other} -i nic0 --ip none --mac 02:00:00:00:09:55")).ok();
    change(&lab, "link", "set eth1 mac 02:00:00:00:09:55").refused(
        4,
        &format!("MAC 02:00:00:00:09:55 is in use on nic0 already, by eth1 of {other}; nothing was changed"),
    );
}

/// `ip route add`, and where plumb's own target is, in iproute2's order.
#[test]
fn fingers_that_know_iproute2_are_understood() {
    let lab = attached();
    let target = lab.netns("box");
    let ran = lab.plumb(&format!("route add {target} 10.0.0.0/8 via 192.168.9.254")).ok();
    assert_eq!(ran.out, format!("{target}: route 10.0.0.0/8 via 192.168.9.254 dev eth1 added\n"));
    lab.plumb(&format!("link set {target} mtu 1400")).ok();
    lab.plumb(&format!("link {target} down")).ok();
    assert_eq!(
        lab.plumb(&format!("link {target} up")).ok().out.lines().next(),
        Some(&*format!("{target}: eth1 is up"))
    );
    lab.plumb(&format!("rule add {target} from 10.0.0.0/8 table 7 prio 7")).ok();
    for list in ["ls", "list", "show"] {
        assert!(change(&lab, "route", list).ok().out.contains("10.0.0.0/8 via 192.168.9.254 dev eth1"));
        assert_eq!(lab.plumb(&format!("rule {list} {target}")).ok().out, change(&lab, "rule", "").ok().out);
    }
}

/// As `ip -6` has it: in what is said, in lists and in comparisons.
#[test]
fn what_is_of_ipv6_is_known_as_such() {
    let lab = Lab::new();
    lab.flat(&format!("--ip {FREE6}")).ok();
    let target = lab.netns("box");
    let ran = change(&lab, "route", "add -6 default dev eth1 metric 10240").ok();
    assert_eq!(ran.out, format!("{target}: route ::/0 dev eth1 metric 10240 added\n"));
    change(&lab, "route", "add ::/0 dev eth1 metric 10240")
        .refused(4, &format!("{target} has a route ::/0 by eth1 already"));
    let ran = change(&lab, "route", "add unreachable ::/0 metric 7 table 100").ok();
    assert_eq!(ran.out, format!("{target}: route unreachable ::/0 metric 7 table 100 added\n  it goes with eth1\n"));
    assert!(change(&lab, "route", "").ok().out.contains("::/0 via fd17::1 dev eth0 metric 512"));
    change(&lab, "route", "add unreachable ::/0 metric 7 table 100")
        .refused(4, &format!("{target} has a route ::/0 by no interface (unreachable) already"));
    let ran = change(&lab, "rule", "-6 add iif eth1 lookup 100 priority 7").ok();
    assert_eq!(
        ran.out,
        format!("{target}: rule -6 from all iif eth1 lookup 100 priority 7 added\n  it goes with eth1\n")
    );
    let shown = lab.plumb(&format!("show {target}")).ok().out;
    println!("{shown}");
    for text in ["-6 from all iif eth1 lookup 100 priority 7", "::/0 by eth1", "::/0 leads nowhere in table 100"] {
        assert!(shown.contains(text), "{text}: {shown}");
    }
    for (verb, words, command) in [
        ("route", "del ::/0 metric 10240", "ip -6 route del default dev eth1 metric 10240"),
        ("rule", "-6 del priority 7", "ip -6 rule del from all iif eth1 lookup 100 priority 7"),
    ] {
        let dry = change(&lab, verb, &format!("{words} --dry-run")).ok();
        assert!(dry.out.contains(command), "{dry:#?}");
        change(&lab, verb, words).ok();
    }
}

#[test]
fn links_of_a_kind_keep_what_they_share() {
    let lab = Lab::new();
    lab.flat("--ip none --mode passthru").ok();
    change(&lab, "link", "set eth1 mac 02:00:00:00:09:77")
        .refused(1, "eth1 has its parent's MAC address (macvlan passthru)")
        .hints("ip link set nic0 address 02:00:00:00:09:77 changes the parent's");
    let two = attached();
    two.flat(&format!("--ip {ALSO_FREE} --keep-default")).ok();
    change(&two, "link", "set mtu 1400")
        .refused(2, "which interface? its name is missing")
        .hints("plumb attached eth1, eth2");
    change(&two, "rule", "add from 192.168.9.101 table 100").ok();
    change(&two, "route", "add default via 192.168.9.1 dev eth1 table 200").ok();
    change(&two, "rule", "add from 192.168.9.100 table 200").ok();
    let rules = change(&two, "rule", "show --json").ok().json();
    let goes_with = |text: &str| {
        let is_it = |rule: &&serde_json::Value| rule["text"].as_str().unwrap().starts_with(text);
        rules["rules"].as_array().unwrap().iter().find(is_it).unwrap()["goes_with"].clone()
    };
    assert_eq!(goes_with("from 192.168.9.101/32"), "eth2", "the newest");
    assert_eq!(goes_with("from 192.168.9.100/32"), "eth1", "by the routes of its table");
}

/// The commands that `--dry-run` prints do what plumb does.
#[test]
fn a_dry_run_of_a_change_is_honest() {
    let lab = attached();
    let before = kernel_state(&lab);
    let mut commands = String::new();
    for (verb, words, _) in CHANGES {
        commands += &change(&lab, verb, &format!("{words} --dry-run")).ok().out;
        change(&lab, verb, words).ok();
    }
    let by_plumb = kernel_state(&lab);
    lab.plumb("detach --all").ok();
    lab.flat(&format!("--ip {FREE} --gateway {ROUTER}")).ok();
    kernel_state(&lab).is(&before);
    change(&lab, "link", "set eth1 down --dry-run").ok();
    kernel_state(&lab).is(&before);
    Ran::of(lab.on_host("sh").args(["-ec", &commands])).ok();
    kernel_state(&lab).is(&by_plumb);
}

#[test]
fn down_and_up_in_words_are_honest() {
    let lab = Lab::new();
    lab.flat(&format!("--ip {FREE} --ip {FREE6} --gateway {ROUTER} --gateway {ROUTER6}")).ok();
    change(&lab, "link", "set eth1 name lan0").ok();
    let up = kernel_state(&lab);
    let to_down = change(&lab, "link", "set lan0 down --dry-run").ok().out;
    change(&lab, "link", "set lan0 down").ok();
    let down = kernel_state(&lab);
    let to_up = change(&lab, "link", "set lan0 up --dry-run").ok().out;
    for (commands, state) in [(to_up, &up), (to_down, &down)] {
        Ran::of(lab.on_host("sh").args(["-ec", &commands])).ok();
        kernel_state(&lab).is(state);
    }
}

/// What is changed goes with a restart: who attaches again is told, with the commands that change it again.
#[test]
fn a_restart_takes_changes_along_and_says_so() {
    let mut lab = Lab::new();
    let attach = format!("--ip {FREE} --ip {FREE6} --gateway {ROUTER}");
    lab.flat(&attach).ok();
    for (verb, words, _) in CHANGES {
        change(&lab, verb, words).ok();
    }
    change(&lab, "route", "add ::/0 dev lan0 metric 7").ok();
    change(&lab, "route", "del default via fd17::7 metric 512 --with eth1").ok();
    // All but the MAC addresses that are by chance, and what is made of them.
    let state = |lab: &Lab| {
        let asked = ["route show table all", "-6 route show table all", "rule", "-6 rule", "link show lan0"];
        let told: String = asked.iter().map(|asked| lab.ip("box", asked)).collect();
        let lines = told.lines().filter(|line| !line.contains("fe80::") && !line.contains("altname"));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    let (before, target) = (state(&lab), lab.netns("box"));
    lab.restart("box");
    let hint = format!("attach it again, as before: plumb flat {target} -i nic0 --ip {FREE} --ip {FREE6} …");
    let gone = format!("{target} was restarted, and lan0 has gone with that");
    for (verb, words) in [
        ("route", "add 10.0.0.0/8 via 192.168.9.254"),
        ("route", "add 10.0.0.0/8 dev eth1"),
        ("route", "del 10.0.0.0/8"),
        ("route", "replace default via 172.17.0.1 --with eth1"),
        ("rule", "add from 10.0.0.0/8 table 100"),
        ("link", "set mtu 1400"),
        ("link", "set lan0 mtu 1400 --unrecorded"),
    ] {
        change(&lab, verb, words).refused(3, &gone).hints(&hint);
    }
    for verb in ["route", "rule", "link"] {
        assert_eq!(change(&lab, verb, "").ok().err, format!("warning: {gone}; {hint}\n"));
        assert_eq!(
            change(&lab, verb, "show --json").ok().json()["warnings"],
            serde_json::json!([format!("{gone}; {hint}")])
        );
    }
    change(&lab, "route", "add 10.0.0.0/8 via 172.17.0.1 --unrecorded").ok();
    change(&lab, "route", "del 10.0.0.0/8 --unrecorded").ok();
    // In a dry run as well.
    let dry = lab.flat(&format!("{attach} --dry-run")).ok();
    let ran = lab.flat(&attach).ok();
    assert_eq!(ran.err, dry.err);
    let mut lines = ran.err.lines();
    let said = "warning: what route, rule and link had changed went with the earlier eth1; to change it again:";
    assert_eq!(lines.next(), Some(said), "{ran:#?}");
    for line in lines {
        lab.plumb(line.trim().strip_prefix("plumb ").unwrap()).ok();
    }
    assert_eq!(state(&lab), before);
    let again = lab.plumb(&format!("show {target} --json")).ok().json();
    assert_eq!(again["attachments"][0]["as_recorded"], true, "{again:#}");
    assert_eq!(change(&lab, "route", "").ok().err, "");
    // Once another is attached, the missing one is still told of by its name.
    lab.restart("box");
    lab.flat(&format!("--ip {ALSO_FREE} --name eth2")).ok();
    change(&lab, "link", "set eth1 mtu 1400").refused(3, &gone);
    change(&lab, "link", "set mtu 1400").ok();
}

/// Records of the target's name that tell of an earlier run do not hide those of its namespace's other name.
#[test]
fn what_is_attached_by_another_name_is_found_beside_stale_records() {
    let mut lab = attached();
    lab.restart("box");
    let pid = lab.process("box");
    lab.plumb(&format!("flat pid:{pid} -i nic0 --probe 0 --no-check --ip {ALSO_FREE} --name eth2")).ok();
    change(&lab, "link", "set eth2 mtu 1400").ok();
}

/// Another process writes to the record between the reading of it and the change.
#[test]
fn what_another_remembers_meanwhile_is_not_lost() {
    let lab = attached();
    let record = lab.store().join("flat").read_dir().unwrap().next().unwrap().unwrap().path();
    let text = || std::fs::read_to_string(&record).unwrap();
    // It asks the kernel behind its reading, and waits half a second at each question.
    let mut slow = lab.on_host("strace");
    slow.args(["-f", "-o", "/dev/null", "-e", "trace=sendto", "-e", "inject=sendto:delay_enter=500000", PLUMB]);
    slow.args(["route", &lab.netns("box"), "add", "10.0.0.0/8", "via", "192.168.9.254"]);
    let mut running = slow.spawn().unwrap();
    std::thread::sleep(std::time::Duration::from_millis(1000));
    assert!(!text().contains("changing"), "it was faster than this test");
    std::fs::write(&record, text().replacen("{", "{\n  \"host_name\": \"another\",", 1)).unwrap();
    assert!(running.wait().unwrap().success());
    let text = text();
    assert!(text.contains("\"another\"") && text.contains("\"changes\"") && !text.contains("changing"), "{text}");
    change(&lab, "route", "del 10.0.0.0/8").ok();
}

/// As many as there are changes, at once.
#[test]
fn of_changes_at_once_each_is_made_and_remembered() {
    let lab = attached();
    let before = lab.state();
    let add = |table: u32| lab.command(&format!("rule {} add priority {table} table {table}", lab.netns("box")));
    let running: Vec<_> = (100..108).map(|table| add(table).spawn().unwrap()).collect();
    running.into_iter().for_each(|mut one| assert!(one.wait().unwrap().success()));
    let rules = change(&lab, "rule", "show --json").ok().json();
    let ours = rules["rules"].as_array().unwrap().iter().filter(|rule| rule["goes_with"] == "eth1").count();
    assert_eq!(ours, 8, "{rules:#}");
    (100..108).for_each(|table| drop(change(&lab, "rule", &format!("del priority {table}")).ok()));
    lab.state().is(&before);
}
