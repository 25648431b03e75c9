//! A host and its own containers reach one another by a shim, and never at the cost of the host's own way out.

use std::collections::BTreeSet;

use crate::lab::{ALSO_FREE, FREE, Lab, ROUTER, Ran, State, at_each, sh, wait_for};

const OWN: &str = "192.168.9.2";
const SHIM: &str = "192.168.9.254/32";

/// A host with an address of its own and a way out, and a container beside it.
fn lab() -> Lab {
    let lab = Lab::new();
    let host = lab.full("host");
    sh(&format!("ip -n {host} addr add {OWN}/24 dev nic0; ip -n {host} route add default via {ROUTER}"));
    lab.flat(&format!("--ip {FREE} --keep-default")).ok();
    lab
}

fn shim(lab: &Lab, arguments: &str) -> Ran {
    lab.plumb(&format!("shim nic0 {arguments}"))
}

/// What the shim leads to.
fn routes(lab: &Lab) -> BTreeSet<String> {
    let routes = lab.ip("host", "route show dev shim-nic0 proto static");
    routes.lines().map(|line| line.split_whitespace().next().unwrap().to_owned()).collect()
}

fn set(addresses: &[&str]) -> BTreeSet<String> {
    addresses.iter().map(|address| (*address).to_owned()).collect()
}

#[test]
fn host_and_container_reach_one_another_with_a_shim_only() {
    let lab = lab();
    let ways = [("host", "192.168.9.100"), ("box", OWN)];
    for (from, to) in ways {
        assert!(!lab.pings(from, to), "{from} to {to} without a shim");
    }
    let before = lab.state();
    let said = shim(&lab, &format!("--ip {SHIM}")).ok().out;
    assert_eq!(said, format!("nic0: shim-nic0 {SHIM} (macvlan bridge)\n  this host reaches 192.168.9.100/32\n"));
    for (from, to) in ways.into_iter().chain([("box", "192.168.9.254"), ("host", ROUTER), ("lan", OWN)]) {
        // What was asked for in vain before may be forgotten first.
        wait_for(&format!("{from} to reach {to}"), || lab.pings(from, to));
    }
    // All that the host had it still has, and the LAN still finds it by its own MAC address.
    let is_new = |line: &&str| line.contains("shim-nic0") || line.contains("192.168.9.254");
    let host = lab.ip("host", "route show table all");
    assert!(
        host.contains(&format!("default via {ROUTER} dev nic0")) && host.lines().any(|line| is_new(&line)),
        "{host}"
    );
    let neighbour = lab.ip("lan", &format!("neigh show {OWN}"));
    let nic = lab.json("host", "link show dev nic0")[0]["address"].as_str().unwrap().to_owned();
    assert!(neighbour.contains(&nic), "{neighbour}, and nic0 has {nic}");
    let shown = lab.plumb("shim ls --json").ok().json();
    assert_eq!(shown["shims"][0]["routes"], serde_json::json!(["192.168.9.100/32"]));
    assert_eq!((&shown["shims"][0]["state"], &shown["shims"][0]["automatic"]), (&"up".into(), &true.into()));
    assert_eq!(lab.plumb("shim rm nic0").ok().out, "nic0: shim-nic0 removed\n");
    assert_eq!(lab.plumb("shim rm nic0").ok().out, "nic0: there is no shim\n");
    assert_eq!(lab.plumb("shim ls").ok().out, "there is no shim\n");
    lab.state().is(&before);
}

/// A container's neighbour solicitation for an address of the parent reaches the shim only, and the kernel
/// answers for an IPv6 address on the interface that has it (`ndisc_recv_ns`); proxying would need forwarding
/// on, which takes away the default routes that routers have announced (`addrconf_fixup_forwarding`).
#[test]
fn by_ipv6_the_shims_own_address_is_the_hosts() {
    let lab = lab();
    sh(&format!("ip -n {} addr add fd09::2/64 dev nic0 nodad", lab.full("host")));
    lab.plumb("detach --all").ok();
    lab.flat("--ip fd09::100/64 --keep-default").ok();
    let before = lab.state();
    for (from, to) in [("host", "fd09::100"), ("box", "fd09::2")] {
        assert!(!lab.pings(from, to), "{from} to {to} without a shim");
    }
    shim(&lab, "--ip fd09::254 --probe 0").ok();
    for (from, to) in [("host", "fd09::100"), ("box", "fd09::254"), ("host", "fd09::1"), ("lan", "fd09::2")] {
        wait_for(&format!("{from} to reach {to}"), || lab.pings(from, to));
    }
    assert!(lab.plumb("show host:").ok().out.starts_with("this host: shim-nic0 on nic0 (macvlan bridge), up\n"));
    assert_eq!(lab.plumb("detach host:").ok().out, "this host: shim-nic0 fd09::254/128 detached\n");
    lab.state().is(&before);
}

#[test]
fn two_hundred_times_the_routes_are_those_to_what_is_attached() {
    let mut lab = lab();
    lab.plumb("detach --all").ok();
    for name in ["a", "b", "c", "d"] {
        lab.namespace(name);
    }
    shim(&lab, &format!("--ip {SHIM}")).ok();
    let mut attached: BTreeSet<String> = BTreeSet::new();
    for number in 0..200usize {
        // In no order: each of four targets comes and goes.
        let name = ["a", "b", "c", "d"][(number * 7 + number / 3) % 4];
        let address = format!("192.168.9.{}", 10 + name.as_bytes()[0] - b'a');
        let target = lab.netns(name);
        if attached.remove(&address) {
            lab.plumb(&format!("detach {target}")).ok();
        } else {
            lab.plumb(&format!("flat {target} -i nic0 --ip {address}/24 --probe 0 --no-check")).ok();
            attached.insert(address);
        }
        assert_eq!(routes(&lab), attached, "after {number}");
    }
}

#[test]
fn at_the_same_moment_too() {
    let mut lab = lab();
    let names: Vec<String> = (0..6).map(|number| format!("t{number}")).collect();
    names.iter().for_each(|name| lab.namespace(name));
    shim(&lab, &format!("--ip {SHIM}")).ok();
    let all = |verb: &str| {
        let commands = names.iter().enumerate().map(|(at, name)| match verb {
            "flat" => format!("flat {} -i nic0 --ip 192.168.9.{}/24 --probe 0 --no-check", lab.netns(name), 20 + at),
            _ => format!("detach {}", lab.netns(name)),
        });
        let children: Vec<_> = commands.map(|line| lab.command(&line).spawn().unwrap()).collect();
        children.into_iter().for_each(|mut child| assert!(child.wait().unwrap().success()));
    };
    all("flat");
    assert_eq!(routes(&lab).len(), 7, "{:?}", routes(&lab));
    all("detach");
    assert_eq!(routes(&lab), set(&["192.168.9.100"]));
}

#[test]
fn a_route_that_is_there_already_stays_and_is_named() {
    let mut lab = lab();
    lab.target("peer");
    let host = lab.full("host");
    sh(&format!("ip -n {host} route add 192.168.9.100/32 dev nic0"));
    let before = lab.state();
    let said = "shim-nic0 does not lead to 192.168.9.100/32: this host has a route there already, by nic0";
    let ran = shim(&lab, &format!("--ip {SHIM}")).ok();
    assert_eq!(ran.out, format!("nic0: shim-nic0 {SHIM} (macvlan bridge)\n"));
    assert_eq!(ran.err, format!("warning: {said}\n"));
    lab.plumb("shim rm nic0").ok();
    lab.state().is(&before);
    shim(&lab, &format!("--ip {SHIM}")).ok();
    // It keeps no other from being led to.
    let peer = lab.netns("peer");
    let ran = lab.plumb(&format!("flat {peer} -i nic0 --ip {ALSO_FREE} --probe 0 --no-check")).ok();
    assert!(ran.err.contains(said), "{ran:#?}");
    assert_eq!(routes(&lab), set(&["192.168.9.101"]));
    sh(&format!("ip -n {host} route del 192.168.9.100/32 dev nic0"));
    lab.plumb("gc").ok();
    assert_eq!(routes(&lab), set(&["192.168.9.100", "192.168.9.101"]));
    let twice = shim(&lab, "--ip 192.168.9.253/32 --route 192.168.9.64/26 --route 192.168.9.64/26");
    assert_eq!(twice.code, 4, "{twice:#?}");
}

#[test]
fn what_moves_to_another_interface_of_the_host_is_led_to_there() {
    let mut lab = lab();
    let host = lab.full("host");
    lab.namespace("lan2");
    sh(&format!(
        "ip -n {host} link add nic1 type veth peer name lan1 netns {0}
         ip -n {host} link set nic1 up; ip -n {0} link set lan1 up",
        lab.full("lan2")
    ));
    shim(&lab, &format!("--ip {SHIM}")).ok();
    lab.plumb("shim nic1 --ip 192.168.9.253/32").ok();
    let (target, full) = (lab.netns("box"), lab.full("box"));
    // As after a restart: the namespace is another.
    sh(&format!("ip netns del {full}; ip netns add {full}; ip -n {full} link set lo up"));
    lab.plumb(&format!("flat {target} -i nic1 --ip {FREE} --probe 0 --no-check")).ok();
    assert_eq!(routes(&lab), set(&[]), "it is there no more");
    assert!(lab.ip("host", "route show dev shim-nic1 proto static").starts_with("192.168.9.100 "));
}

#[test]
fn routes_that_were_given_stay_what_they_are() {
    let lab = lab();
    // Alone is what it is: the length need not be said.
    let said = shim(&lab, "--ip 192.168.9.254 --route 192.168.9.96/27").ok().out;
    assert_eq!(said, format!("nic0: shim-nic0 {SHIM} (macvlan bridge)\n  this host reaches 192.168.9.96/27\n"));
    assert!(lab.pings("host", "192.168.9.100") && lab.pings("box", OWN));
    lab.plumb("detach --all --dry-run").ok();
    lab.plumb(&format!("detach {}", lab.netns("box"))).ok();
    assert_eq!(routes(&lab), set(&["192.168.9.96/27"]));
}

#[test]
fn the_host_is_never_cut_off() {
    let mut lab = lab();
    let before = lab.state();
    let refused = |arguments: &str, code, message: &str, hint: &str| {
        shim(&lab, arguments).refused(code, message).hints(hint);
        lab.state().is(&before);
    };
    let smaller = "give smaller ranges without it, or leave --route out for a route to each container";
    refused(
        &format!("--ip {SHIM} --route 192.168.9.0/25"),
        4,
        "route 192.168.9.0/25 covers 192.168.9.1, this host's own router: the shim would cut the host off",
        smaller,
    );
    let session = lab
        .command(&format!("shim nic0 --ip {SHIM} --route 192.168.9.64/26"))
        .env("SSH_CONNECTION", "192.168.9.77 4 192.168.9.2 22")
        .output();
    let over_ssh =
        "route 192.168.9.64/26 covers 192.168.9.77, who works on this host by SSH: the shim would cut the host off";
    Ran::from(session.unwrap()).refused(4, over_ssh).hints(smaller);
    refused(
        "--ip 192.168.9.254/24",
        2,
        "--ip 192.168.9.254/24 would lead all of 192.168.9.0/24 by the shim",
        "--ip 192.168.9.254; --route says what it leads to",
    );
    refused(
        "",
        2,
        "which address shall the host have beside its containers? --ip is missing",
        "--ip 192.168.0.254: one that nobody else on the LAN has",
    );
    // sudo hides the variable, but not the connection.
    lab.namespace("visitor");
    let (lan, visitor) = (lab.full("lan"), lab.full("visitor"));
    sh(&format!(
        "ip -n {lan} link add v0 type veth peer name eth0 netns {visitor}
         ip -n {lan} addr add 10.5.0.1/24 dev v0; ip -n {lan} link set v0 up
         ip -n {visitor} addr add 10.5.0.2/24 dev eth0; ip -n {visitor} link set eth0 up
         ip -n {visitor} route add default via 10.5.0.1
         nsenter --net=/run/netns/{lan} sh -c 'echo 1 > /proc/sys/net/ipv4/ip_forward'"
    ));
    let server = lab.inside("host", || std::net::TcpListener::bind((OWN, 22)).unwrap());
    let session = std::thread::spawn(move || {
        let namespace = std::fs::File::open(format!("/run/netns/{visitor}")).unwrap();
        nix::sched::setns(namespace, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
        std::net::TcpStream::connect((OWN, 22)).unwrap()
    });
    let session = (session.join().unwrap(), server);
    shim(&lab, &format!("--ip {SHIM} --route 10.5.0.0/16")).refused(
        4,
        "route 10.5.0.0/16 covers 10.5.0.2, who works on this host by SSH: the shim would cut the host off",
    );
    drop(session);
}

#[test]
fn of_two_routers_that_share_the_load_each_is_one() {
    let lab = lab();
    let host = lab.full("host");
    sh(&format!("ip -n {host} route replace default nexthop via {ROUTER} dev nic0 nexthop via 192.168.9.70 dev nic0"));
    let shared = lab.state();
    shim(&lab, &format!("--ip {SHIM} --route 192.168.9.64/26")).refused(
        4,
        "route 192.168.9.64/26 covers 192.168.9.70, this host's own router: the shim would cut the host off",
    );
    lab.state().is(&shared);
}

#[test]
fn what_cannot_be_is_refused() {
    let lab = lab();
    let before = lab.state();
    shim(&lab, &format!("--ip {ROUTER}/32")).refused(4, &taken(&lab));
    shim(&lab, &format!("--ip {OWN}")).refused(4, &format!("{OWN} is this host's own address")).hints("choose another");
    lab.plumb("shim nic7 --ip 192.168.9.254/32").refused(3, "the host has no interface nic7");
    sh(&format!("ip -n {} route add 192.168.9.64/26 dev nic0", lab.full("host")));
    let overlapping = shim(&lab, &format!("--ip {SHIM} --route 192.168.9.64/26"));
    assert!(overlapping.code == 4 && overlapping.err.contains("192.168.9.64/26"), "{overlapping:#?}");
    sh(&format!("ip -n {} route del 192.168.9.64/26 dev nic0", lab.full("host")));
    lab.state().is(&before);
    shim(&lab, &format!("--ip {SHIM}")).ok();
    shim(&lab, "--ip 192.168.9.253/32")
        .refused(4, "nic0 has a shim already, shim-nic0")
        .hints("plumb shim ls shows it; plumb shim rm nic0 takes it away");
    let mut other = Lab::new();
    other.target("peer");
    other.flat(&format!("--ip {FREE} --mode private")).ok();
    shim(&other, &format!("--ip {SHIM}"))
        .refused(4, "what is on nic0 is in mode private, in which it reaches no other interface there");
}

/// How an address of the LAN's is refused: with whose it is.
fn taken(lab: &Lab) -> String {
    let mac = lab.json("lan", "link show dev lan0")[0]["address"].as_str().unwrap().to_owned();
    format!("{ROUTER} is in use on the LAN by {mac}; nothing was changed")
}

#[test]
fn after_a_reboot_it_is_put_back() {
    let lab = lab();
    shim(&lab, &format!("--ip {SHIM}")).ok();
    assert_eq!(lab.plumb("restore").ok().out, "there is nothing to put back\n");
    // A reboot takes the link, and every record is of an earlier one.
    sh(&format!("ip -n {} link del shim-nic0", lab.full("host")));
    lab.host_reboots();
    assert_eq!(lab.plumb("shim ls --json").ok().json()["shims"][0]["state"], "stopped");
    assert_eq!(lab.plumb("restore --dry-run").ok().out, "shim-nic0 would be put back\n");
    assert_eq!(lab.plumb("restore").ok().out, "shim-nic0 is back\n");
    assert!(lab.pings("host", "192.168.9.100") && lab.pings("box", OWN));
    // Its routes may be those to the host's own router by now.
    lab.plumb("shim rm nic0").ok();
    shim(&lab, &format!("--ip {SHIM} --route 192.168.9.64/26")).ok();
    let host = lab.full("host");
    sh(&format!("ip -n {host} link del shim-nic0; ip -n {host} route replace default via 192.168.9.70"));
    lab.host_reboots();
    let covered = "route 192.168.9.64/26 covers 192.168.9.70, this host's own router: the shim would cut the host off";
    lab.plumb("restore").refused(4, covered);
    lab.plumb("shim rm nic0").ok();
    assert!(!lab.ip("host", "link").contains("shim"));
}

#[test]
fn a_dry_run_is_honest() {
    let lab = lab();
    lab.plumb(&format!("flat {} -i nic0 --ip {ALSO_FREE} --keep-default --probe 0 --no-check", lab.netns("box"))).ok();
    let kernel = || {
        let store = lab.store().display().to_string();
        let state = lab.state().0;
        // Tags are random, and so is the link-local address of nobody.
        let lines = state.lines().filter(|line| !line.contains(&store) && !line.contains("altname plumb:"));
        State(lines.map(|line| line.to_owned() + "\n").collect())
    };
    let before = lab.state();
    let dry = shim(&lab, &format!("--ip {SHIM} --dry-run")).ok().out;
    lab.state().is(&before);
    shim(&lab, &format!("--ip {SHIM}")).ok();
    let by_plumb = kernel();
    lab.plumb("shim rm nic0").ok();
    lab.state().is(&before);
    let mut shell = lab.on_host("sh");
    Ran::of(shell.args(["-ec", &dry])).ok();
    println!("{dry}");
    kernel().is(&by_plumb);
}

#[test]
fn killed_anywhere_it_is_taken_back() {
    let lab = lab();
    let before = lab.state();
    let arguments = format!("shim nic0 --ip {SHIM} --probe 0");
    let kills = at_each(&["sendto", "rename", "symlink", "write", "fsync"], |call, number| {
        let was_killed = lab.killed(&arguments, call, number);
        lab.plumb("gc").ok();
        // Whatever is on record then leads to what is attached.
        if lab.plumb("shim ls").ok().out != "there is no shim\n" {
            assert_eq!(routes(&lab), set(&["192.168.9.100"]), "{call} {number}");
            lab.plumb("shim rm nic0").ok();
        }
        lab.state().is(&before);
        was_killed
    });
    assert!(kills >= 15, "only {kills} kills");
}
