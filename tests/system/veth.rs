//! A veth as the port of a bridge, and the bridge that is made for it.

use crate::{
    dhcp::{DNSMASQ, Lan},
    lab::{ALSO_FREE, FREE, Lab, ROUTER, ROUTER6, Ran, State, at_each, sh, wait_for},
};

fn veth(lab: &Lab, target: &str, arguments: &str) -> Ran {
    let target = lab.netns(target);
    lab.plumb(&format!("flat {target} --driver veth --keep-default --no-check {arguments}"))
}

/// The NIC as a port of a bridge, which is how a LAN is reached by one.
fn bridged(lab: &Lab) {
    let host = lab.full("host");
    sh(&format!("ip -n {host} link add br0 up type bridge; ip -n {host} link set nic0 master br0"));
}

/// The bridge's own times and the interfaces' numbers move on.
fn state(lab: &Lab) -> State {
    let mut was_timer = false;
    let still = |word: &&str| {
        let is_time = std::mem::replace(&mut was_timer, word.ends_with("_timer"));
        !is_time
    };
    let all = lab.state().0;
    let mut still = still;
    State(
        all.lines()
            .map(|line| {
                line.split(' ').filter(|word| !word.is_empty()).filter(&mut still).collect::<Vec<_>>().join(" ") + "\n"
            })
            .collect(),
    )
}

#[test]
fn a_container_is_on_the_lan_by_a_bridge_and_its_host_reaches_it() {
    let mut lab = Lab::new();
    bridged(&lab);
    lab.target("peer");
    sh(&format!("ip -n {} addr add 192.168.9.2/24 dev br0", lab.full("host")));
    let before = state(&lab);
    let said = veth(&lab, "box", &format!("-i br0 --ip {FREE}")).ok().out;
    assert_eq!(said, format!("{}: eth1 {FREE} on br0 (veth bridge)\n", lab.netns("box")));
    veth(&lab, "peer", &format!("-i br0 --ip {ALSO_FREE} --host-name peers")).ok();
    for (from, to) in [("box", ROUTER), ("lan", "192.168.9.100"), ("host", "192.168.9.100"), ("box", "192.168.9.2")] {
        assert!(lab.pings(from, to), "{from} to {to}");
    }
    let other = ALSO_FREE.split('/').next().unwrap();
    assert!(lab.pings("box", other));
    let ports = lab.ip("host", "-br link show master br0");
    assert!(ports.contains("peers@") && ports.contains("veth-"), "{ports}");
    // The host's side counts as well.
    let peer = lab.netns("peer");
    let stands = || {
        let shown = lab.plumb(&format!("show {peer} --json")).ok().json()["attachments"][0]["as_recorded"].clone();
        let listed = lab.plumb("ls --json").ok().json()["attachments"].clone();
        let row = listed.as_array().unwrap().iter().find(|row| row["target"] == peer.as_str()).unwrap().clone();
        (shown.as_bool().unwrap(), row["state"].as_str().unwrap().to_owned())
    };
    assert_eq!(stands(), (true, "up".into()));
    lab.ip("host", "link set peers nomaster");
    assert_eq!(stands(), (false, "unplugged".into()));
    let table = lab.plumb(&format!("show {peer}")).ok().out;
    assert!(table.lines().any(|line| line.split_whitespace().eq(["bridge", "br0", "-", "≠"])), "{table}");
    lab.ip("host", "link set peers master br0");
    assert_eq!(stands(), (true, "up".into()));
    // A new port must not change the bridge's own address.
    let made = ports.lines().filter(|line| !line.starts_with("nic0"));
    assert!(made.filter(|line| line.contains(" fe:") || line.contains(" fa:")).count() == 2, "{ports}");
    let shown = lab.plumb(&format!("show {} --json", lab.netns("box"))).ok().json();
    assert_eq!(shown["attachments"][0]["as_recorded"], true, "{shown:#}");
    lab.plumb("detach --all").ok();
    state(&lab).is(&before);
}

#[test]
fn a_bridge_that_is_missing_is_made_and_goes_with_its_last_user() {
    let mut lab = Lab::new();
    lab.target("peer");
    let before = state(&lab);
    let said = veth(&lab, "box", &format!("-i br7 --ip {FREE}")).ok();
    assert!(
        said.err.contains("br7 was not there and is made; no port of it leads to the LAN yet: ip link set "),
        "{said:#?}"
    );
    let bridge = lab.json("host", "-d link show dev br7")[0].clone();
    assert_eq!(bridge["linkinfo"]["info_kind"], "bridge");
    assert_eq!(veth(&lab, "peer", &format!("-i br7 --ip {ALSO_FREE}")).ok().err, "");
    assert_eq!(lab.json("host", "link show dev br7")[0]["address"], bridge["address"], "whatever its ports");
    assert!(lab.pings("box", ALSO_FREE.split('/').next().unwrap()));
    lab.plumb(&format!("detach {}", lab.netns("box"))).ok();
    assert!(lab.ip("host", "-br link").contains("br7"));
    lab.plumb(&format!("detach {}", lab.netns("peer"))).ok();
    state(&lab).is(&before);
    // With an address of the host's own it is in use.
    veth(&lab, "box", &format!("-i br7 --ip {FREE}")).ok();
    lab.ip("host", "addr add 192.168.9.2/24 dev br7");
    lab.plumb("detach --all").ok();
    assert!(lab.ip("host", "-br link").contains("br7"));
    lab.ip("host", "addr del 192.168.9.2/24 dev br7");
    assert!(lab.plumb("gc").ok().out.contains("br7 deleted, nobody uses the bridge"));
    state(&lab).is(&before);
}

#[test]
fn what_cannot_be_is_refused_and_nothing_stays() {
    let lab = Lab::new();
    let before = state(&lab);
    let refused = |arguments: &str, code, message: &str, hint: &str| {
        veth(&lab, "box", arguments).refused(code, message).hints(hint);
        state(&lab).is(&before);
    };
    refused(
        &format!("-i nic0 --ip {FREE}"),
        1,
        "nic0 is no bridge, and a veth is a port of one",
        "name a bridge with -i, one that is made where it is missing; or leave --driver veth out",
    );
    refused(
        &format!("-i br7 --ip {FREE} --mode bridge"),
        2,
        "a veth has no mode: its bridge decides who reaches whom",
        "leave --mode out",
    );
    for dry in ["", " --dry-run"] {
        refused(
            &format!("-i br7 --ip {FREE} --host-name nic0{dry}"),
            4,
            "the host has an interface nic0 already",
            "choose another with --host-name",
        );
    }
    refused(
        &format!("-i br7 --ip {FREE} --name eth0"),
        4,
        &format!("{} already has an interface eth0", lab.netns("box")),
        "choose another with --name (it has lo, up0, eth0), or leave --name out",
    );
    refused(
        &format!("-i br7 --ip {FREE} --mtu 9000"),
        1,
        "MTU 9000 is above that of br7, which is 1500",
        "give --mtu 1500 or less, or leave it out; or raise the parent's: ip link set br7 mtu 9000",
    );
    lab.ip("host", "link add br0 type bridge");
    veth(&lab, "box", &format!("-i br0 --vlan 10 --ip {FREE}"))
        .refused(1, "br0 looks at no VLANs, so VLAN 10 would not be kept apart on it")
        .hints("ip link set br0 type bridge vlan_filtering 1 makes it; its ports are then in VLAN 1");
    lab.ip("host", "link del br0");
    state(&lab).is(&before);
    let flat = lab.plumb(&format!("flat {} -i nic0 --ip {FREE} --host-name x", lab.netns("box")));
    flat.refused(2, "--host-name x names the end of a veth that stays on the host");
}

/// As Docker sets it, with the chain that it keeps for rules of others.
fn as_docker(lab: &Lab, iptables: &str) {
    iptables_says(lab, "sysctl -q net.bridge.bridge-nf-call-iptables=1");
    for rule in ["-P FORWARD DROP", "-N DOCKER-USER", "-A DOCKER-USER -j RETURN", "-I FORWARD -j DOCKER-USER"] {
        iptables_says(lab, &format!("{iptables} {rule}"));
    }
}

fn iptables_says(lab: &Lab, script: &str) -> String {
    Ran::of(lab.on_host("sh").args(["-ec", script])).ok().out
}

#[test]
fn what_iptables_would_drop_is_told_of() {
    let lab = Lab::new();
    bridged(&lab);
    as_docker(&lab, "iptables");
    let said = veth(&lab, "box", &format!("-i br0 --ip {FREE}")).ok();
    let rule = "iptables -I DOCKER-USER -i br0 -o br0 -j ACCEPT";
    assert!(said.err.contains(&format!("--allow-forward lets it pass, or by hand: {rule}")), "{said:#?}");
    assert!(!lab.pings("box", ROUTER));
    lab.plumb("detach --all").ok();
    // It is the cause of all silence.
    let target = lab.netns("box");
    let silent = lab.plumb(&format!("flat {target} -i br0 --driver veth --ip {FREE} --gateway {ROUTER}")).ok();
    let cause = format!("gateway {ROUTER} is there, but no ping comes through: iptables drops what br0 passes on\n");
    assert!(silent.err.ends_with(&cause), "{silent:#?}");
    lab.plumb("detach --all").ok();
    lab.plumb(&format!("dhcp {target} -i br0 --driver veth --no-renew --timeout 1s"))
        .refused(7, "no DHCP server answered on br0 within 1 s; nothing was changed")
        .hints("iptables drops what br0 passes on (policy DROP of FORWARD, and bridge-nf-call-iptables; Docker sets ");
    veth(&lab, "box", &format!("-i br0 --ip {FREE}")).ok();
    iptables_says(&lab, rule);
    assert!(lab.pings("box", ROUTER));
    lab.plumb("detach --all").ok();
    // Whoever has accepted it.
    assert_eq!(veth(&lab, "box", &format!("-i br0 --ip {FREE} --allow-forward")).ok().err, "");
    lab.plumb("detach --all").ok();
    assert!(iptables_says(&lab, "iptables -S DOCKER-USER").contains("-i br0 -o br0 -j ACCEPT"), "it is theirs");
    iptables_says(&lab, rule.replace("-I", "-D").as_str());
    veth(&lab, "box", &format!("-i br0 --ip {FREE} --allow-forward")).ok();
    let is_shown = |words: &[&str]| {
        let table = lab.plumb(&format!("show {target}")).ok().out;
        assert!(table.lines().any(|line| line.split_whitespace().eq(words.iter().copied())), "{table}");
    };
    is_shown(&["forward", "accepted", "accepted"]);
    iptables_says(&lab, "iptables -D DOCKER-USER 1");
    is_shown(&["forward", "accepted", "dropped", "≠"]);
}

#[test]
fn what_iptables_drops_passes_for_as_long_as_somebody_needs_it() {
    let mut lab = Lab::new();
    lab.target("peer");
    bridged(&lab);
    iptables_says(&lab, "sysctl -q net.bridge.bridge-nf-call-ip6tables=1; ip6tables -P FORWARD DROP");
    as_docker(&lab, "iptables");
    let rules = || iptables_says(&lab, "iptables -S; ip6tables -S");
    let (before, world) = (rules(), state(&lab));
    let box_is = format!("-i br0 --ip {FREE} --ip fd09::100/64 --probe 0 --allow-forward");
    let dry = veth(&lab, "box", &format!("{box_is} --dry-run")).ok().out;
    assert_eq!(rules(), before);
    let said = veth(&lab, "box", &box_is).ok();
    assert_eq!(said.err, "");
    assert!(said.out.contains("\n  a rule in DOCKER-USER of iptables accepts what br0 passes on\n"), "{said:#?}");
    let with_rules = rules();
    // As iptables itself would have it, and before all others.
    let words: Vec<&str> = with_rules.split_whitespace().filter(|word| !word.starts_with("\"plumb:")).collect();
    let listed = words.join(" ");
    let rule = "-i br0 -o br0 -m comment --comment -j ACCEPT";
    assert!(listed.contains(&format!("-A DOCKER-USER {rule} -A DOCKER-USER -j RETURN")), "{with_rules}");
    assert!(listed.ends_with(&format!("-A FORWARD {rule}")), "{with_rules}");
    assert!(lab.pings("box", ROUTER) && lab.pings("box", ROUTER6));
    veth(&lab, "peer", &format!("-i br0 --ip {ALSO_FREE} --allow-forward")).ok();
    assert_eq!(rules(), with_rules, "two share one");
    lab.plumb(&format!("detach {}", lab.netns("box"))).ok();
    assert_eq!(rules(), with_rules, "peer needs it");
    lab.plumb(&format!("detach {}", lab.netns("peer"))).ok();
    assert_eq!(rules(), before);
    state(&lab).is(&world);
    // A failure takes the rule back: the router has the address.
    let taken = veth(&lab, "box", &format!("-i br0 --ip {ROUTER}/24 --allow-forward"));
    assert!(taken.code == 4 && taken.err.contains("is in use on the LAN by"), "{taken:#?}");
    assert_eq!(rules(), before);
    // And so does gc after a kill.
    let arguments = format!("flat {} --driver veth --keep-default --no-check {box_is}", lab.netns("box"));
    let mut with_rule = 0;
    at_each(&["sendto", "rename"], |call, number| {
        let was_killed = lab.killed(&arguments, call, number);
        with_rule += usize::from(rules() != before);
        if !was_killed {
            lab.plumb("detach --all").ok();
        }
        lab.plumb("gc").ok();
        assert_eq!(rules(), before, "{call} {number}");
        was_killed
    });
    assert!(with_rule >= 5, "{with_rule}");
    // What is printed does the same.
    Ran::of(lab.on_host("sh").args(["-ec", &dry])).ok();
    assert_eq!(rules(), with_rules);
    assert!(lab.plumb("gc").ok().out.contains("the rule for br0 deleted, nobody needs it"));
}

#[test]
fn the_rule_of_a_killed_run_goes_with_the_next_attempt_wherever_that_hangs() {
    let lab = Lab::new();
    bridged(&lab);
    as_docker(&lab, "iptables");
    let rules = || iptables_says(&lab, "iptables -S");
    let before = rules();
    let target = lab.netns("box");
    let arguments = format!("flat {target} -i br0 --driver veth --ip {FREE} --probe 0 --no-check --allow-forward");
    let mut with_rule = 0;
    for number in 1.. {
        if !lab.killed(&arguments, "sendto", number) {
            break;
        }
        with_rule += usize::from(rules() != before);
        veth(&lab, "box", &format!("-i br7 --ip {FREE} --probe 0")).ok();
        assert_eq!(rules(), before, "{number}");
        lab.plumb("detach --all").ok();
    }
    assert!(with_rule >= 3, "{with_rule}");
}

/// The kernel refuses it call by call, and of each thread: making the link, and deleting the rule.
#[test]
fn a_rule_that_a_failed_attempt_leaves_is_said() {
    let lab = Lab::new();
    bridged(&lab);
    as_docker(&lab, "iptables");
    let rules = || iptables_says(&lab, "iptables -S");
    let before = rules();
    let arguments = format!("flat {} -i br0 --driver veth --probe 0 --no-check", lab.netns("box"));
    let arguments = format!("{arguments} --ip {FREE} --keep-default --allow-forward");
    let mut left = 0;
    for number in 1..=8 {
        let ran = lab.with_a_refused_call(&arguments, "sendto", number);
        println!("{number}: {ran:?}");
        let commands = ran.err.lines().filter_map(|line| line.strip_prefix("  left behind; to take it back by hand: "));
        let deletions: Vec<&str> = commands.filter(|command| command.starts_with("nft delete rule ip ")).collect();
        left += deletions.len();
        match ran.code {
            0 => drop(lab.plumb("detach --all").ok()),
            // It is not known what is left.
            6 if deletions.is_empty() => assert!(ran.err.contains("plumb gc"), "{ran:#?}"),
            _ => drop(iptables_says(&lab, &deletions.join("\n"))),
        }
        if ran.code != 6 || !deletions.is_empty() {
            assert_eq!(rules(), before, "{number}: {ran:#?}");
        }
        lab.plumb("detach --all").ok();
        lab.plumb("gc").ok();
        assert_eq!(rules(), before, "{number}: {ran:#?}");
    }
    assert!(left >= 1, "{left}");
    // Of detach as well.
    let mut left = 0;
    for number in 1..=8 {
        lab.plumb(&arguments).ok();
        let ran = lab.with_a_refused_call("detach --all", "sendto", number);
        println!("{number}: {ran:?}");
        let is_said = ran.err.contains("cannot delete the rule for br0 from DOCKER-USER: ");
        assert_eq!(is_said, ran.err.contains("by hand: nft delete rule ip filter DOCKER-USER handle "), "{ran:#?}");
        assert!(!is_said || ran.out.contains("eth1 192.168.9.100/24 detached\n"), "it is: {ran:#?}");
        left += usize::from(is_said);
        lab.plumb("detach --all").ok();
        lab.plumb("gc").ok();
        assert_eq!(rules(), before, "{number}: {ran:#?}");
    }
    assert!(left >= 1, "{left}");
}

#[test]
fn a_dry_run_of_detach_says_what_goes_with_the_last_one() {
    let mut lab = Lab::new();
    lab.target("peer");
    iptables_says(&lab, "sysctl -q net.bridge.bridge-nf-call-ip6tables=1; ip6tables -P FORWARD DROP");
    as_docker(&lab, "iptables");
    let look = || iptables_says(&lab, "iptables -S; ip6tables -S") + &lab.ip("host", "-br link");
    let before = look();
    veth(&lab, "box", &format!("-i br7 --ip {FREE} --ip fd09::100/64 --probe 0 --allow-forward")).ok();
    veth(&lab, "peer", &format!("-i br7 --ip {ALSO_FREE} --probe 0 --allow-forward")).ok();
    let dry = |which: &str| lab.plumb(&format!("detach {which} --dry-run")).ok().out;
    for target in ["box", "peer"] {
        let one = dry(&lab.netns(target));
        assert!(!one.contains("nft") && !one.contains("br7"), "the other needs them: {one}");
    }
    let all = dry("--all");
    assert_eq!(all.matches("nft delete rule ip filter DOCKER-USER handle ").count(), 1, "{all}");
    assert_eq!(all.matches("nft delete rule ip6 filter FORWARD handle ").count(), 1, "{all}");
    assert!(all.ends_with("ip link del dev br7\n"), "{all}");
    Ran::of(lab.on_host("sh").args(["-ec", &all])).ok();
    assert_eq!(look(), before, "{all}");
    lab.plumb("detach --all").ok();
}

#[test]
fn what_the_earlier_interface_of_a_name_hung_on_goes_when_the_new_one_hangs_elsewhere() {
    let mut lab = Lab::new();
    bridged(&lab);
    as_docker(&lab, "iptables");
    let rules = |lab: &Lab| iptables_says(lab, "iptables -S");
    let devices = |lab: &Lab| lab.ip("host", "-br link");
    let before = rules(&lab);
    veth(&lab, "box", &format!("-i br0 --ip {FREE} --probe 0 --allow-forward")).ok();
    assert_ne!(rules(&lab), before);
    lab.restart("box");
    // On another bridge, which plumb makes and which goes in its turn.
    veth(&lab, "box", &format!("-i br7 --ip {FREE} --probe 0")).ok();
    assert_eq!(rules(&lab), before);
    assert!(devices(&lab).contains("br7"));
    lab.restart("box");
    wait_for("its port to go", || lab.ip("host", "link show master br7").is_empty());
    veth(&lab, "box", &format!("-i br0 --ip {FREE} --probe 0")).ok();
    assert!(!devices(&lab).contains("br7"));
}

#[test]
fn what_the_older_iptables_drops_is_seen_and_left_to_a_person() {
    let lab = Lab::new();
    bridged(&lab);
    iptables_says(&lab, "iptables-legacy -P FORWARD ACCEPT; sysctl -q net.bridge.bridge-nf-call-iptables=1");
    assert_eq!(veth(&lab, "box", &format!("-i br0 --ip {FREE}")).ok().err, "");
    lab.plumb("detach --all").ok();
    as_docker(&lab, "iptables-legacy");
    let before = state(&lab);
    let rule = "iptables-legacy -I FORWARD -i br0 -o br0 -j ACCEPT";
    veth(&lab, "box", &format!("-i br0 --ip {FREE} --allow-forward"))
        .refused(1, "what br0 passes on is dropped by iptables-legacy, whose rules plumb cannot change")
        .hints(&format!("{rule}; and leave --allow-forward out"));
    state(&lab).is(&before);
    let said = veth(&lab, "box", &format!("-i br0 --ip {FREE}")).ok();
    assert!(
        said.err.contains(&format!("Docker sets both); unless you have had a rule accept it: {rule}")),
        "{said:#?}"
    );
    assert!(!lab.pings("box", ROUTER));
    iptables_says(&lab, rule);
    assert!(lab.pings("box", ROUTER));
}

#[test]
fn killed_anywhere_it_is_taken_back() {
    let lab = Lab::new();
    let target = lab.netns("box");
    let arguments = format!("flat {target} -i br7 --ip {FREE} --driver veth --keep-default --probe 0 --no-check");
    let kills = lab.killed_anywhere(&["sendto", "rename"], &arguments, || state(&lab));
    assert!(kills >= 8, "only {kills} kills");
}

#[test]
fn a_dry_run_says_what_is_done() {
    let lab = Lab::new();
    let target = lab.netns("box");
    let before = state(&lab);
    let dry = veth(&lab, "box", &format!("-i br7 --ip {FREE} --probe 0 --dry-run")).ok().out;
    state(&lab).is(&before);
    let links = |lab: &Lab| {
        let mut text = lab.ip("host", "-br link show master br7") + &lab.ip("box", "-br link");
        text += &lab.ip("box", "-4 -br addr");
        text
    };
    veth(&lab, "box", &format!("-i br7 --ip {FREE} --probe 0")).ok();
    let by_plumb = links(&lab);
    lab.plumb(&format!("detach {target}")).ok();
    Ran::of(lab.on_host("sh").args(["-ec", &dry])).ok();
    let numbers = |text: String| {
        text.split('@')
            .map(|part| part.trim_start_matches(|c: char| c.is_alphanumeric()).to_owned())
            .collect::<String>()
    };
    assert_eq!(numbers(links(&lab)), numbers(by_plumb), "{dry}");
}

#[test]
fn a_server_behind_the_bridge_addresses_it() {
    let lan = Lan::bare(DNSMASQ);
    bridged(&lan.lab);
    let before = state(&lan.lab);
    let target = lan.lab.netns("box");
    lan.lab.plumb(&format!("dhcp {target} -i br0 --driver veth --no-renew --no-check")).ok();
    assert!(lan.lab.pings("box", ROUTER));
    lan.lab.plumb("detach --all").ok();
    state(&lan.lab).is(&before);
}
