//! `plumb bench` on a real kernel: what it measures, what it refuses, and that it leaves nothing behind.
//! How fast the ways are is the machine's affair; that they are measured is looked at here.

use std::{
    collections::HashSet,
    fs,
    io::{BufRead, BufReader, Read},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

use crate::lab::{Lab, PLUMB, ROUTER, Ran, output, sh, wait_for};

const SHORT: &str = "--rounds 1 --duration 100ms";

/// How many namespaces there are on the machine that processes are in.
fn namespaces() -> usize {
    netplumb::kernel::all_namespaces().len()
}

/// In how many a process has threads.
fn namespaces_of(pid: u32) -> usize {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let all: HashSet<_> = threads.filter_map(|thread| fs::read_link(thread.ok()?.path().join("ns/net")).ok()).collect();
    all.len()
}

fn figures(document: &Value) -> &Vec<Value> {
    document["figures"].as_array().unwrap()
}

/// A lab where `box` has an address on the LAN, which the router reaches.
fn attached() -> Lab {
    let lab = Lab::new();
    lab.flat("--ip 192.168.9.100/24 --keep-default").ok();
    lab
}

#[test]
fn each_way_that_this_kernel_has_is_measured_by_each_test() {
    let lab = Lab::new();
    let document = lab.plumb(&format!("bench {SHORT} --streams 1 --json")).ok().json();
    let ways = document["ways"].as_array().unwrap();
    let (lacking, measured): (Vec<&Value>, Vec<&Value>) = ways.iter().partition(|way| way["lacking"].is_string());
    assert_eq!(ways.len(), 9, "what is not measured is listed all the same: {ways:?}");
    for way in &lacking {
        assert!(way["lacking"].as_str().unwrap().contains("module "), "{way}");
    }
    assert!(measured.len() >= 5, "{lacking:?}");
    assert_eq!(figures(&document).len(), 5 * measured.len());
    for figure in figures(&document) {
        let number = |name: &str| figure[name].as_f64().unwrap();
        assert!(number("median") > 0.0 && number("low") <= number("median"), "{figure}");
        assert!(number("packets_per_second") > 0.0 && number("processor") > 0.0, "{figure}");
        let asks = figure["test"].as_str().unwrap().ends_with("RR");
        assert_eq!(figure["latency_us"].is_object(), asks, "{figure}");
        if asks {
            let latency = |name: &str| figure["latency_us"][name].as_f64().unwrap();
            let rising = ["p50", "p90", "p99", "p99.9", "max"].map(latency);
            assert!(rising.windows(2).all(|pair| pair[0] <= pair[1]) && rising[0] > 0.5, "{figure}");
        }
    }
}

/// What a packet carries is what tells the ways apart, so it must be what the kernel counts: a datagram
/// of 1472 bytes has headers of 42 on Ethernet, and less room beside those of VXLAN.
#[test]
fn the_kernels_counters_tell_the_size_of_packets() {
    let lab = Lab::new();
    let typed = format!("bench {SHORT} --ways bridge,vxlan --tests udp_stream --json");
    let document = lab.plumb(&typed).ok().json();
    let sizes: Vec<i64> = figures(&document).iter().map(|f| f["bytes_per_packet"].as_f64().unwrap() as i64).collect();
    assert_eq!(sizes, [1514, 1464]);
    let document = lab.plumb(&format!("bench {SHORT} --ways bridge --tests UDP_STREAM --mtu 9000 --json")).ok().json();
    assert_eq!(figures(&document)[0]["bytes_per_packet"].as_f64().unwrap() as i64, 9014);
}

#[test]
fn larger_segments_pass_where_they_are_tuned() {
    let lab = Lab::new();
    let typed = format!("bench {SHORT} --ways macvlan --tests TCP_STREAM --streams 1 --tune --json");
    let document = lab.plumb(&typed).ok().json();
    let size = |way: &str| {
        let figure = figures(&document).iter().find(|figure| figure["way"] == way).unwrap();
        figure["bytes_per_packet"].as_f64().unwrap()
    };
    assert!(size("macvlan") <= 65_600.0 && size("macvlan+big-tcp") > 100_000.0, "{document:#}");
}

#[test]
fn a_parent_of_the_hosts_is_used_and_left_as_it_was() {
    let lab = Lab::new();
    let before = lab.state();
    let document =
        lab.plumb(&format!("bench {SHORT} --ways macvlan,bridge --tests TCP_RR --parent nic0 --json")).ok().json();
    assert_eq!(figures(&document).len(), 2);
    lab.state().is(&before);
    lab.plumb("bench --parent nic1").refused(3, "the host has no interface nic1");
    lab.plumb("bench --parent lo").refused(1, "lo is not an Ethernet interface, so it cannot carry a macvlan");
    lab.plumb("bench --parent nic0 --mtu 9000").refused(1, "MTU 9000 is above that of nic0, 1500");
}

#[test]
fn ctrl_c_prints_what_there_is_and_leaves_nothing() {
    let lab = Lab::new();
    let folder = tempfile::tempdir().unwrap();
    let page = folder.path().join("bench.html");
    let (before, state) = (namespaces(), lab.state());
    let mut command =
        lab.command("bench --ways bridge,macvlan --tests TCP_RR --duration 300ms --rounds 1000 -v --json");
    command.arg("--report").arg(&page).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().unwrap();
    // Two turns and a little.
    std::thread::sleep(Duration::from_millis(1500));
    assert!(namespaces_of(child.id()) > 1, "its own are there");
    let start = Instant::now();
    kill(Pid::from_raw(child.id() as i32), Signal::SIGINT).unwrap();
    let ran = Ran::from(child.wait_with_output().unwrap());
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    assert_eq!(ran.code, 130, "{ran:#?}");
    let document = ran.json();
    assert_eq!(document["interrupted"], true);
    assert!(!figures(&document).is_empty());
    assert!(fs::read_to_string(page).unwrap().contains("was interrupted"));
    wait_for("the namespaces to go", || namespaces() <= before);
    lab.state().is(&state);
}

/// A killed one cannot take anything back, and need not: its namespaces go with it.
#[test]
fn a_killed_one_leaves_nothing_either() {
    let lab = Lab::new();
    let state = lab.state();
    let mut command = lab.command("bench --ways macvlan --tests TCP_RR --duration 300ms --rounds 1000 --parent nic0");
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(700));
    child.kill().unwrap();
    child.wait().unwrap();
    wait_for("the kernel to take it all away", || lab.state() == state);
}

#[test]
fn two_targets_are_measured_by_what_connects_them() {
    let lab = attached();
    let (target, router) = (lab.netns("box"), lab.netns("lan"));
    let document =
        lab.plumb(&format!("bench {target} {router} {SHORT} --tests TCP_STREAM,TCP_RR --streams 1 --json")).ok().json();
    assert_eq!(figures(&document).len(), 2);
    assert_eq!(document["ways"][0]["title"], format!("{target} to {router} (eth1 to {ROUTER})"));
    lab.plumb(&format!("bench {target} {target}"))
        .refused(1, &format!("{target} and {target} are in one network namespace: nothing lies between them"));
    lab.plumb(&format!("bench {target}")).refused(2, &format!("{target} alone: to where?"));
}

#[test]
fn of_two_that_do_not_reach_one_another_the_hop_that_fails_is_told() {
    let mut lab = attached();
    lab.target("peer");
    let (target, peer, lan) = (lab.netns("box"), lab.netns("peer"), lab.netns("lan"));
    // Nobody answers: peer's address is on another layer 2 that looks the same.
    sh(&format!(
        "ip -n {} addr flush dev eth0 scope global && ip -n {} addr add 192.168.9.77/24 dev eth0",
        lab.full("peer"),
        lab.full("peer")
    ));
    let silent = format!(
        "{target} does not reach {peer}: nobody answers for 192.168.9.77 on eth1, so the two are not on one layer 2"
    );
    lab.plumb(&format!("bench {target} {peer}")).refused(1, &silent);
    // No way at all.
    sh(&format!(
        "ip -n {} addr flush dev eth0 scope global && ip -n {} addr add 10.77.0.1/24 dev eth0",
        lab.full("peer"),
        lab.full("peer")
    ));
    lab.plumb(&format!("bench {lan} {peer}"))
        .refused(1, &format!("{lan} has no route to 10.77.0.1, an address of {peer}"));
    // The router is where the way ends.
    let router =
        format!("{target} does not reach {peer}: the first hop fails, as router 172.17.0.1 on eth0 does not answer");
    lab.plumb(&format!("bench {target} {peer}")).refused(1, &router);
    // A firewall.
    sh(&format!(
        "nsenter --net=/run/netns/{} nft 'table ip t {{ chain c {{ type filter hook input priority 0; tcp flags syn drop; }}; }}'",
        lab.full("lan")
    ));
    let firewall =
        format!("{target} reaches {lan}, {ROUTER}, but it takes no TCP connection: a firewall in it or on the way");
    lab.plumb(&format!("bench {target} {lan}")).refused(1, &firewall);
}

#[test]
fn a_server_on_another_host_is_measured_to() {
    let lab = attached();
    let (target, router) = (lab.netns("box"), lab.netns("lan"));
    let mut server = lab.command(&format!("bench --server {router}")).stdout(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(server.stdout.take().unwrap());
    let mut line = String::new();
    said.read_line(&mut line).unwrap();
    assert!(line.contains("(port 12866)"), "{line}");

    let document = lab.plumb(&format!("bench {target} --to {ROUTER} {SHORT} --streams 1 --json")).ok().json();
    assert_eq!(figures(&document).len(), 5);
    assert_eq!(document["ways"][0]["way"], format!("{target} to {ROUTER}"));
    lab.plumb(&format!("bench --server {router}")).refused(4, &format!("port 12866 is in use in {router}"));

    kill(Pid::from_raw(server.id() as i32), Signal::SIGINT).unwrap();
    assert!(server.wait().unwrap().success());
    said.read_to_string(&mut line).unwrap();
    assert!(line.contains(": measured"), "{line}");
    lab.plumb(&format!("bench {target} --to {ROUTER}"))
        .refused(3, &format!("nobody listens at {ROUTER}, port 12866"))
        .hints("plumb bench --server TARGET on that host does");
}

#[test]
fn iperf3_may_measure_instead() {
    let lab = Lab::new();
    let document = lab.plumb(&format!("bench {SHORT} --ways bridge --tool iperf3 --streams 2 --json")).ok().json();
    assert_eq!((figures(&document).len(), &document["tool"]), (2, &Value::from("iperf3")));
    assert!(figures(&document).iter().all(|figure| figure["median"].as_f64().unwrap() > 0.0));
    let without = Ran::of(lab.on_host("env").args(["PATH=/nowhere", PLUMB, "bench", "--tool", "netperf"]));
    without.refused(3, "netperf is not installed");
    lab.plumb("bench --tool iperf3 --tests TCP_CRR").refused(2, "iperf3 has no TCP_CRR");
}

#[test]
fn a_picture_and_a_page_are_written_and_tables_printed() {
    let lab = Lab::new();
    let folder = tempfile::tempdir().unwrap();
    let (plot, page) = (folder.path().join("bench.svg"), folder.path().join("bench.html"));
    let typed = format!("bench {SHORT} --ways bridge,macvlan --tests TCP_STREAM,TCP_RR --streams 1,2");
    let mut command = lab.command(&typed);
    let ran = Ran::of(command.arg("--plot").arg(&plot).arg("--report").arg(&page)).ok();
    assert!(ran.out.contains("\nTCP_RR, 1 stream\nWAY"), "{ran:#?}");
    assert!(ran.out.contains("TCP_STREAM, Gbit/s by number of streams"), "{ran:#?}");
    let (plot, page) = (fs::read_to_string(plot).unwrap(), fs::read_to_string(page).unwrap());
    assert!(plot.starts_with("<svg") && plot.matches("macvlan bridge").count() >= 4);
    assert!(page.starts_with("<!DOCTYPE html>") && page.contains(&typed.replace("bench", "plumb bench")), "{page}");
    let csv = lab.plumb(&format!("bench {SHORT} --ways bridge --tests UDP_RR --csv")).ok().out;
    assert_eq!(csv.lines().count(), 2);
    assert!(csv.lines().nth(1).unwrap().starts_with("bridge,UDP_RR,1,transactions/s,"), "{csv}");
    let markdown = lab.plumb(&format!("bench {SHORT} --ways bridge --tests UDP_RR --markdown")).ok().out;
    assert!(markdown.contains("\n| WAY | PER SECOND |"), "{markdown}");
}

#[test]
fn what_cannot_be_is_told_before_anything_is_measured() {
    let lab = Lab::new();
    let start = Instant::now();
    lab.plumb("bench --duration 20ms")
        .refused(2, "20ms is too short to measure anything")
        .hints("--duration 100ms is the least");
    for option in ["--plot", "--report"] {
        lab.plumb(&format!("bench {option} /nowhere/bench.html"))
            .refused(1, "cannot write /nowhere/bench.html: no such file or directory");
    }
    let unknown = lab.plumb("bench --ways bridge,macvaln");
    assert_eq!(unknown.code, 2);
    assert!(
        unknown.err.contains("'macvaln'") && unknown.err.contains("similar value exists: 'macvlan'"),
        "{unknown:#?}"
    );
    let unknown = lab.plumb("bench --tests TCP_MAERTS");
    assert!(unknown.err.contains("possible values: TCP_STREAM, UDP_STREAM, TCP_RR, TCP_CRR, UDP_RR"), "{unknown:#?}");
    lab.plumb("bench netns:nowhere netns:nobody").refused(3, "there is no namespace /run/netns/nowhere");
    let without: Ran = Command::new("setpriv")
        .args(["--bounding-set", "-all", "--inh-caps", "-all", PLUMB, "bench"])
        .env("PLUMB_CONFIG", "/dev/null")
        .output()
        .unwrap()
        .into();
    assert_eq!(without.code, 5, "{without:#?}");
    assert!(start.elapsed() < Duration::from_secs(5));
}

/// On a kernel without ipvlan: the guest's has it.
#[test]
fn a_way_that_the_kernel_lacks_is_refused_with_its_module() {
    let lab = Lab::new();
    let has_ipvlan = output("ip link add name plumbtest type ipvlan 2>&1; true");
    if !has_ipvlan.contains("Unknown device type") {
        println!("this kernel has ipvlan: nothing is lacking here");
        return;
    }
    lab.plumb("bench --ways bridge,ipvlan-l2").refused(1, "ipvlan l2: this kernel lacks it: module ipvlan");
}

// Larger segments for containers.

/// The sizes of an interface, as the kernel tells them.
fn segments(lab: &Lab, namespace: &str, interface: &str) -> Vec<u64> {
    let link = &lab.json(namespace, &format!("-d link show dev {interface}"))[0];
    ["gso_max_size", "gro_max_size"].map(|name| link[name].as_u64().unwrap()).to_vec()
}

#[test]
fn the_parents_segments_are_given_back_with_its_last_user() {
    let mut lab = Lab::new();
    lab.target("peer");
    let before = lab.state();
    let ordinary = segments(&lab, "host", "nic0");
    let flat = |target: &str, ip: &str, size: &str| {
        let target = lab.netns(target);
        lab.plumb(&format!("flat {target} -i nic0 --ip {ip} --keep-default --probe 0 --no-check --big-tcp={size}"))
            .ok();
    };
    flat("box", "192.168.9.100/24", "131072");
    assert_eq!(segments(&lab, "host", "nic0"), [131_072; 2]);
    assert_eq!(segments(&lab, "box", "eth1"), [131_072; 2]);
    flat("peer", "192.168.9.101/24", "262144");
    assert_eq!(segments(&lab, "host", "nic0"), [262_144; 2]);
    // Who came first goes first: the other still needs them, and then nobody.
    lab.plumb(&format!("detach {}", lab.netns("box"))).ok();
    assert_eq!(segments(&lab, "host", "nic0"), [262_144; 2]);
    lab.plumb(&format!("detach {}", lab.netns("peer"))).ok();
    assert_eq!(segments(&lab, "host", "nic0"), ordinary);
    lab.state().is(&before);
    // Who came last goes first: back to what the first one wanted.
    flat("box", "192.168.9.100/24", "131072");
    flat("peer", "192.168.9.101/24", "262144");
    lab.plumb(&format!("detach {}", lab.netns("peer"))).ok();
    assert_eq!(segments(&lab, "host", "nic0"), [131_072; 2]);
    lab.plumb("detach --all").ok();
    assert_eq!(segments(&lab, "host", "nic0"), ordinary);
    lab.state().is(&before);
}

#[test]
fn who_is_being_attached_inherits_the_parents_segments() {
    let mut lab = Lab::new();
    lab.target("peer");
    let before = lab.state();
    let ordinary = segments(&lab, "host", "nic0");
    for succeeds in [true, false] {
        lab.flat("--ip none --big-tcp=131072").ok();
        let target = lab.netns("peer");
        let asks = "--ip 192.168.9.101/24 --keep-default --probe 3s --no-check --big-tcp=262144";
        let mut peer = lab.command(&format!("flat {target} -i nic0 {asks}"));
        let peer = peer.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn().unwrap();
        wait_for("it to ask the LAN", || segments(&lab, "host", "nic0") == [262_144; 2]);
        lab.plumb(&format!("detach {}", lab.netns("box"))).ok();
        assert_eq!(segments(&lab, "host", "nic0"), [262_144; 2]);
        if !succeeds {
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(peer.id() as i32), nix::sys::signal::Signal::SIGINT)
                .unwrap();
        }
        let ran = Ran::from(peer.wait_with_output().unwrap());
        assert_eq!(ran.code, if succeeds { 0 } else { 130 }, "{ran:#?}");
        lab.plumb("detach --all").ok();
        assert_eq!(segments(&lab, "host", "nic0"), ordinary);
        lab.state().is(&before);
    }
}

#[test]
fn the_parents_segments_are_given_back_however_the_user_went() {
    let mut lab = Lab::new();
    lab.target("peer");
    let ordinary = segments(&lab, "host", "nic0");
    let typed = |target: &str| {
        format!(
            "flat {} -i nic0 --ip 192.168.9.101/24 --keep-default --probe 0 --no-check --big-tcp",
            lab.netns(target)
        )
    };
    // A failure half-way.
    lab.plumb(&(typed("peer") + " --name eth0"))
        .refused(4, &format!("{} already has an interface eth0", lab.netns("peer")));
    assert_eq!(segments(&lab, "host", "nic0"), ordinary);
    // A kill after the parent was raised.
    assert!(lab.killed(&typed("peer"), "fsync", 1), "it syncs once");
    lab.plumb("gc").ok();
    assert_eq!(segments(&lab, "host", "nic0"), ordinary);
    // The namespace has gone, and the link with it.
    lab.plumb(&typed("peer")).ok();
    assert_eq!(segments(&lab, "host", "nic0"), [524_280; 2]);
    sh(&format!("ip netns del {}", lab.full("peer")));
    lab.plumb("gc").ok();
    assert_eq!(segments(&lab, "host", "nic0"), ordinary);
}

#[test]
fn queues_are_as_they_were_asked_for() {
    let lab = Lab::new();
    let dry = lab.flat("--ip none --txqueuelen 500 --queues 4 --bc-queue-len 5000 --dry-run").ok();
    assert!(
        dry.out.contains(" txqueuelen 500 numtxqueues 4 numrxqueues 4 ") && dry.out.contains(" bcqueuelen 5000"),
        "{dry:#?}"
    );
    lab.flat("--ip none --txqueuelen 500 --queues 4 --bc-queue-len 5000").ok();
    let link = &lab.json("box", "-d link show dev eth1")[0];
    assert_eq!((&link["txqlen"], &link["num_tx_queues"], &link["num_rx_queues"]), (&500.into(), &4.into(), &4.into()));
    assert_eq!(link["linkinfo"]["info_data"]["bcqueuelen"], 5000, "{link:#}");
    lab.flat("--ip none --driver ipvlan --bc-queue-len 5000 --name eth2")
        .refused(2, "--bc-queue-len is macvlan's: no other kind of link has such a queue");
    let said = lab.flat("--ip none --name eth2 --big-tcp=1000");
    assert!(said.code == 2 && said.err.contains("1000 is not in 65537..=524280"), "{said:#?}");
}
