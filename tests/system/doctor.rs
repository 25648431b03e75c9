//! `plumb doctor`: what it says is so, and looking changes nothing.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    os::unix::net::{UnixListener, UnixStream},
    process::Command,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::{
    agent::agent,
    dhcp::{DNSMASQ, Lan},
    lab::{FREE, Lab, PLUMB, Ran, sh, wait_for},
};

fn findings(document: &Value) -> Vec<Value> {
    document["findings"].as_array().unwrap_or_else(|| panic!("{document:#}")).clone()
}

/// What is said of one thing.
fn of(document: &Value, what: &str) -> Value {
    let found = findings(document).into_iter().find(|finding| finding["what"] == what);
    found.unwrap_or_else(|| panic!("nothing is said of {what}: {document:#}"))
}

fn doctor(lab: &Lab, arguments: &str) -> Value {
    lab.plumb(&format!("doctor {arguments} --json")).json()
}

/// All that is said of this, as `state: found (remedy)`.
fn said(document: &Value, what: &str) -> Vec<String> {
    let text = |finding: &Value, key: &str| finding[key].as_str().unwrap_or_default().to_owned();
    let findings = findings(document).into_iter().filter(|finding| finding["what"] == what);
    findings.map(|f| format!("{}: {} ({})", text(&f, "state"), text(&f, "found"), text(&f, "remedy"))).collect()
}

#[track_caller]
fn says(document: &Value, what: &str, expected: &str) {
    let said = said(document, what);
    assert!(said.iter().any(|said| said == expected), "{said:#?} of {what}, expected: {expected}");
}

/// Whether the commands work in a namespace of their own.
fn works(commands: &str) -> bool {
    let script =
        format!("ip link add name one type veth peer name other && ip link add name br0 type bridge && {commands}");
    Command::new("unshare").args(["--net", "sh", "-c", &script]).output().unwrap().status.success()
}

#[test]
fn of_the_kernel_it_says_what_ip_and_tc_find_out_too_and_looking_changes_nothing() {
    let lab = Lab::new();
    let before = lab.state();
    let document = doctor(&lab, "");
    lab.state().is(&before);
    for (what, commands) in [
        ("macvlan", "ip link add link one name probed type macvlan"),
        ("ipvlan", "ip link add link one name probed type ipvlan"),
        ("8021q", "ip link add link one name probed type vlan id 7"),
        ("vxlan", "ip link add name probed type vxlan id 7 dstport 4789"),
        ("veth", "true"),
        ("bridge", "true"),
        ("bridge VLANs", "ip link set dev br0 type bridge vlan_filtering 1"),
        ("dummy", "ip link add name probed type dummy"),
        ("ifb", "ip link add name probed type ifb"),
        ("tbf", "tc qdisc add dev one root tbf rate 1mbit burst 32kb latency 50ms"),
        ("htb", "tc qdisc add dev one root htb"),
        ("netem", "tc qdisc add dev one root netem delay 1ms"),
        (
            "u32, mirred",
            "tc qdisc add dev one ingress && tc filter add dev one parent ffff: u32 match u32 0 0 action mirred egress redirect dev other",
        ),
        ("nftables", "nft 'table ip it { chain it { type nat hook postrouting priority srcnat; masquerade; }; }'"),
    ] {
        let finding = of(&document, what);
        assert_eq!(finding["state"], if works(commands) { "ok" } else { "missing" }, "{finding:#}");
        assert_eq!(finding["area"], "kernel");
        assert!(finding["state"] == "ok" || finding["remedy"].is_string(), "{finding:#}");
    }
    says(&document, "MAC clashes", "ok: a MAC address that another container has is refused ()");
    for capability in ["CAP_NET_ADMIN", "CAP_SYS_ADMIN", "CAP_NET_RAW", "CAP_SYS_PTRACE"] {
        assert_eq!(of(&document, capability)["state"], "ok");
    }
}

#[test]
fn it_ends_well_if_nothing_is_missing_that_the_verb_needs() {
    let lab = Lab::new();
    for (verb, what) in
        [("flat", "macvlan"), ("attach", "8021q"), ("create-vlan", "8021q"), ("qos", "tbf"), ("bench", "veth")]
    {
        let ran = lab.plumb(&format!("doctor {verb} --json"));
        let document = ran.json();
        assert_eq!((&document["verb"], &of(&document, what)["needed"]), (&verb.into(), &true.into()));
        let missing = findings(&document).iter().any(|f| f["state"] == "missing" && f["needed"] == true);
        assert_eq!((ran.code, document["error"].is_object()), (i32::from(missing), missing), "{document:#}");
        // And no word more than that.
        let quiet = lab.plumb(&format!("doctor {verb} -q"));
        assert_eq!((quiet.code, quiet.out.as_str()), (ran.code, ""));
        assert_eq!(quiet.err.is_empty(), !missing, "{quiet:#?}");
        if missing {
            assert!(quiet.err.starts_with(&format!("plumb: {verb} needs {what}: not in this kernel; ")), "{quiet:#?}");
            assert!(quiet.err.contains("\n  hint: modprobe "), "{quiet:#?}");
        }
    }
    let ran = lab.plumb("doctor").ok();
    assert!(ran.out.contains("\n  ok       macvlan ") && ran.out.ends_with("\nflat has all that it needs\n"));
    assert!(!ran.out.lines().any(|line| line.ends_with(' ')), "{}", ran.out);
    let lacks_vlans = of(&doctor(&lab, ""), "8021q")["state"] == "missing";
    assert_eq!(ran.out.contains("\nattach lacks 8021q\n"), lacks_vlans, "{}", ran.out);
    // Of one verb only what has to do with it is listed; it is all in the document.
    let bench = lab.plumb("doctor bench").ok().out;
    assert!(bench.contains("\n  ok       veth ") && bench.ends_with("\n\nbench has all that it needs\n"), "{bench}");
    for foreign in ["8021q", "Docker", "nic0", "ip_forward", "the store"] {
        assert!(ran.out.contains(&format!(" {foreign} ")) && !bench.contains(&format!(" {foreign} ")), "{bench}");
    }
    let all = findings(&doctor(&lab, "bench")).len();
    let listed = bench.lines().filter(|line| line.starts_with("  ") && !line.contains('→')).count();
    let rest = format!("\nbench does without the other {}: plumb doctor lists them\n", all - listed);
    assert!(bench.contains(&rest), "{all} {bench}");
    let ran = lab.plumb("doctor flta");
    assert!(ran.code == 2 && ran.err.starts_with("error: invalid value 'flta' for '[VERB]'"), "{ran:#?}");
    assert!(ran.err.contains("a similar value exists: 'flat'"), "{ran:#?}");
}

#[test]
fn of_each_interface_it_says_how_good_a_parent_it_is() {
    let lab = Lab::new();
    let host = lab.full("host");
    says(&doctor(&lab, ""), "nic0", "ok: up, MTU 1500 ()");
    lab.flat(&format!("--ip {FREE}")).ok();
    let document = doctor(&lab, "");
    says(&document, "nic0", "ok: up, MTU 1500, carries 1 macvlan bridge ()");
    says(&document, "nic0", "note: carries macvlan, and no ipvlan beside it (--driver macvlan there)");
    lab.plumb("detach --all").ok();
    lab.ip("host", "link set nic0 promisc on mtu 1400");
    lab.ip("lan", "link set lan0 down");
    let document = doctor(&lab, "");
    says(&document, "nic0", "warning: no carrier, MTU 1400 (plug the cable in, or look at the switch's port)");
    assert!(said(&document, "nic0")[1].starts_with("note: promiscuous: "), "{document:#}");
    sh(&format!("ip -n {host} link set nic0 promisc off down"));
    says(&doctor(&lab, ""), "nic0", "warning: down, MTU 1400 (ip link set nic0 up)");
    sh(&format!("ip -n {host} link add br0 up type bridge; ip -n {host} link set nic0 up master br0"));
    let ran = lab.plumb("doctor --json");
    assert_eq!(ran.code, 1, "no parent is left");
    says(&ran.json(), "nic0", "note: a port of br0, and so no parent (-i br0)");
    assert!(said(&ran.json(), "a parent")[0].starts_with("missing: none of lo, nic0, br0 can carry containers ("));
}

#[test]
fn of_forwarding_it_says_what_will_be_dropped() {
    let lab = Lab::new();
    let host = |script: &str| assert!(lab.on_host("sh").args(["-ec", script]).status().unwrap().success());
    host("sysctl -qw net.ipv4.ip_forward=0 net.ipv4.conf.all.rp_filter=1 net.bridge.bridge-nf-call-iptables=0");
    let document = doctor(&lab, "");
    says(&document, "ip_forward", "note: off; create-vlan --gateway-here turns it on ()");
    says(&document, "FORWARD policy", "ok: iptables drops nothing that is not ruled out ()");
    assert!(said(&document, "rp_filter")[0].starts_with("note: strict: "), "{document:#}");
    host(
        "sysctl -qw net.ipv4.ip_forward=1 net.ipv4.conf.all.rp_filter=2 net.ipv4.conf.default.rp_filter=2; iptables -P FORWARD DROP",
    );
    let document = doctor(&lab, "");
    assert_eq!(of(&document, "ip_forward")["state"], "ok");
    assert_eq!(of(&document, "rp_filter")["state"], "ok");
    assert!(said(&document, "FORWARD policy")[0].starts_with("note: DROP: what gateways "), "{document:#}");
    host("sysctl -qw net.bridge.bridge-nf-call-iptables=1");
    let remedy = said(&doctor(&lab, ""), "FORWARD policy").remove(0);
    assert!(remedy.starts_with("warning: DROP, and bridge-nf-call-iptables is on: "), "{remedy}");
}

#[test]
fn of_the_store_it_says_what_is_damaged_left_behind_or_cannot_be_written() {
    let lab = Lab::new();
    let place = lab.store().display().to_string();
    says(&doctor(&lab, ""), "the store", &format!("ok: {place}: nothing is on record ()"));
    assert!(!lab.store().exists());
    // Killed before its record is whole.
    let arguments = format!("flat {} -i nic0 --ip {FREE} --probe 0 --no-check", lab.netns("box"));
    assert!(lab.killed(&arguments, "fsync", 1));
    let left = format!("warning: would be done: {}: eth1 taken back, its run was killed (plumb gc)", lab.netns("box"));
    says(&doctor(&lab, ""), "leftovers", &left);
    lab.plumb("gc").ok();
    lab.flat(&format!("--ip {FREE}")).ok();
    let document = doctor(&lab, "");
    says(&document, "leftovers", "ok: none ()");
    says(&document, "the store", &format!("ok: {place}: 1 attachment ()"));
    fs::write(lab.store().join("flat/web@eth1.json"), "{}").unwrap();
    let damaged = format!("{place}/flat/web@eth1.json is damaged: it has no format number");
    assert!(said(&doctor(&lab, ""), "a record")[0].starts_with(&format!("warning: the record {damaged} (")));
    let ran = lab.plumb("doctor --store /dev/null -q");
    let said = lab.plumb("doctor --store /dev/null");
    assert!(said.out.ends_with("\nflat lacks the store\n"), "{said:#?}");
    assert!(said.err.starts_with("plumb: flat needs the store: "), "{said:#?}");
    ran.refused(1, "flat needs the store: cannot read the store's folder /dev/null/unfinished: not a directory")
        .hints("a store is a directory, and this is a file: --store DIR");
}

#[test]
fn without_permissions_it_says_what_it_could_not_look_at() {
    let lab = Lab::new();
    fs::create_dir(lab.store()).unwrap();
    fs::set_permissions(lab.store(), fs::Permissions::from_mode(0o555)).unwrap();
    let socket = lab.folder().join("locked");
    let _engine = UnixListener::bind(&socket).unwrap();
    fs::set_permissions(&socket, fs::Permissions::from_mode(0o000)).unwrap();
    let mut command = lab.on_host("setpriv");
    command.args(["--bounding-set", "-all", "--inh-caps", "-all", PLUMB, "doctor", "--docker"]).arg(&socket);
    let read = Ran::of(&mut command);
    // What helps with all is said once.
    let (why, remedy) = ("this process lacks it; it is needed to", "run plumb as root, such as with sudo");
    let permissions = format!(
        "permissions
  missing  CAP_NET_ADMIN       {why} make interfaces
  missing  CAP_SYS_ADMIN       {why} enter namespaces
  missing  CAP_NET_RAW         {why} speak ARP
                               → {remedy}
  warning  CAP_SYS_PTRACE      "
    );
    assert!(read.out.contains(&permissions), "{read:#?}");
    let lacking = "\nflat lacks CAP_NET_ADMIN, CAP_SYS_ADMIN, CAP_NET_RAW, the store\n";
    assert!(read.out.ends_with(lacking) && read.err.starts_with("plumb: flat needs CAP_NET_ADMIN: "), "{read:#?}");
    command.arg("--json");
    let ran = Ran::of(&mut command);
    assert_eq!(ran.code, 1);
    let document = ran.json();
    for (what, why) in [
        ("features", "cannot make a namespace: CAP_SYS_ADMIN is missing"),
        ("FORWARD policy", "CAP_NET_ADMIN is missing"),
        ("what hangs on them", "CAP_SYS_ADMIN is missing"),
        ("leftovers", "CAP_SYS_ADMIN is missing"),
    ] {
        let said = said(&document, what);
        assert!(said[0].starts_with(&format!("note: not looked at: {why} (run plumb as root")), "{said:?}");
    }
    assert_eq!(of(&document, "CAP_NET_RAW")["state"], "missing");
    let locked = format!(
        "warning: not permitted to use Docker's socket {} (run plumb as root, such as with sudo)",
        socket.display()
    );
    says(&document, "Docker", &locked);
    says(&document, "nic0", "ok: up, MTU 1500 ()");
    assert!(said(&document, "the store")[0].contains("cannot be written to: permission denied"), "{document:#}");
}

#[test]
fn whoever_does_not_answer_holds_it_up_for_two_seconds_at_most() {
    let mut lab = Lab::new();
    let (silent, full) = (lab.folder().join("silent"), lab.folder().join("full"));
    // One takes what comes and says nothing; the other has as many waiting as it lets wait.
    let listener = UnixListener::bind(&silent).unwrap();
    let queue = UnixListener::bind(&full).unwrap();
    // SAFETY: a plain system call on a socket that is open.
    assert_eq!(unsafe { nix::libc::listen(std::os::fd::AsRawFd::as_raw_fd(&queue), 0) }, 0);
    let waiting = UnixStream::connect(&full).unwrap();
    // No router answers for it, and nobody refuses: the first packet is lost.
    lab.ip("host", "addr add 192.168.9.2/24 dev nic0");
    lab.ip("lan", "link set lan0 arp off");
    lab.ip("host", "neigh add 192.168.9.250 lladdr 02:00:00:00:00:99 dev nic0");
    lab.store_address = Some("etcd://192.168.9.250".into());
    let begun = Instant::now();
    let arguments = format!("doctor --docker {} --podman {} --json", silent.display(), full.display());
    let ran = lab.plumb(&arguments);
    let took = begun.elapsed();
    let document = ran.json();
    let said = |what: &str| said(&document, what).join("\n");
    assert!(
        said("Docker").starts_with(&format!("warning: Docker did not answer on {} within 2 s (", silent.display()))
    );
    assert!(
        said("Podman").starts_with(&format!("warning: Podman does not answer on {}, ", full.display())),
        "{document:#}"
    );
    assert!(said("the store").starts_with("missing: "), "{document:#}");
    assert_eq!((ran.code, of(&document, "macvlan")["state"].as_str()), (1, Some("ok")));
    println!("with three that are silent: {took:?}");
    assert!(took < Duration::from_secs(5), "{took:?}");
    drop((listener, queue, waiting));
    // Those that are not there do not hold it up at all.
    lab.store_address = None;
    let document = doctor(&lab, "--docker /nowhere/docker.sock --podman tcp://10.0.0.1:2375");
    let remedy = of(&document, "Docker");
    assert_eq!(
        (&remedy["state"], &remedy["found"]),
        (&"note".into(), &"Docker's socket /nowhere/docker.sock does not exist".into())
    );
    assert_eq!(of(&document, "Podman")["state"], "warning");
}

#[test]
fn leases_that_nobody_renews_are_told_of() {
    let lan = Lan::bare(DNSMASQ);
    lan.lab.plumb(&format!("dhcp {} -i nic0 --probe 0 --no-check --keep-default", lan.lab.netns("box"))).ok();
    wait_for("the agent", || said(&doctor(&lan.lab, ""), "the agent")[0].starts_with("ok: renews 1 lease as process "));
    let pid = nix::unistd::Pid::from_raw(agent(&lan).unwrap().cast_signed());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
    wait_for("the agent to end", || agent(&lan).is_none());
    let told =
        "warning: does not run, and 1 lease will run out (plumb agent; or its unit file, which is in scripts/systemd)";
    says(&doctor(&lan.lab, ""), "the agent", told);
    lan.lab.plumb("detach --all").ok();
    says(&doctor(&lan.lab, ""), "the agent", "ok: nothing is leased, so nobody has to renew anything ()");
}
