//! Clients that others wrote, driven by plumb, against real servers: udhcpc, dhclient and dhcpcd of this
//! host, and busybox in a container.

use std::{
    fs,
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

use crate::{
    agent::{SHORT, agent, only},
    dhcp::{DNSMASQ, Lan, Server},
    docker::{self, Container, docker},
    lab::{Ran, sh, wait_for},
};

const ALL: [&str; 3] = ["udhcpc", "dhclient", "dhcpcd"];

fn dhcp(lan: &Lan, arguments: &str) -> Ran {
    lan.lab.plumb(&format!("dhcp {} -i nic0 --probe 0 --no-check {arguments}", lan.lab.netns("box")))
}

/// The clients that are at work in the lab's target, by their process ids.
fn clients(lan: &Lan) -> Vec<u32> {
    let there = std::os::unix::fs::MetadataExt::ino(&fs::metadata(lan.lab.path("box")).unwrap());
    let is_one = |pid: &u32| {
        let net = fs::metadata(format!("/proc/{pid}/ns/net")).map(|net| std::os::unix::fs::MetadataExt::ino(&net));
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        net.is_ok_and(|net| net == there) && ALL.contains(&name.trim())
    };
    let processes = fs::read_dir("/proc").unwrap().flatten();
    processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter(is_one).collect()
}

fn lease(lan: &Lan) -> Value {
    lan.lab.plumb("leases --json").ok().json()["leases"][0].clone()
}

fn address(lan: &Lan) -> Option<Ipv4Addr> {
    let text = lan.lab.ip("box", "-4 -o addr show dev eth1");
    text.lines().next()?.split_whitespace().nth(3)?.split('/').next()?.parse().ok()
}

fn server_knows(lan: &Lan) -> String {
    fs::read_to_string(lan.lab.folder().join("dhcp/leases")).unwrap_or_default()
}

/// Whether another client than `before` is bound.
fn is_bound_by_another(lan: &Lan, before: &[u32]) -> bool {
    let now = clients(lan);
    !now.is_empty() && now.iter().all(|pid| !before.contains(pid)) && lease(lan)["state"] == "bound"
}

#[test]
fn each_speaks_and_plumb_configures() {
    let resolver = fs::read("/etc/resolv.conf").ok();
    for client in ALL {
        let lan = Lan::bare(DNSMASQ);
        let before = lan.lab.state();
        let extra = if client == "dhcpcd" { "" } else { "--option 77=lab" };
        let ran = dhcp(&lan, &format!("--client {client} --hostname web --vendor-class plumb {extra}")).ok();
        let address = address(&lan).unwrap();
        let target = lan.lab.netns("box");
        assert_eq!(
            ran.out,
            format!(
                "{target}: eth1 {address}/24 via 192.168.9.1 on nic0 (macvlan bridge)\n  \
                 leased from 192.168.9.1 for 20 min by {client}, and renewed in time\n  \
                 the default route was by eth0 (172.17.0.1); detach gives it back\n"
            )
        );
        let routes = lan.lab.ip("box", "route");
        assert!(routes.contains("default via 192.168.9.1 dev eth1") && routes.contains("10.0.0.0/8 via 192.168.9.2"));
        assert!(lan.lab.ip("box", "link show eth1").contains("mtu 1400"));
        assert!(lan.lab.pings("box", "192.168.9.1"));
        let known = server_knows(&lan);
        assert!(known.contains(" web ff:00:00:00:00:00:04:"), "its name, and the client id of plumb's own: {known}");

        // It goes on under the agent, asks for the same, and is alone.
        wait_for("the client to run", || !clients(&lan).is_empty());
        wait_for("it to ask", || lan.lab.log("lan").matches("DHCPACK").count() >= 2);
        assert_eq!(lease(&lan)["address"], format!("{address}/24"));
        assert_eq!(lease(&lan)["problem"], Value::Null);
        assert_eq!(lan.lab.plumb(&format!("show {target} --json")).ok().json()["attachments"][0]["as_recorded"], true);

        let begun = Instant::now();
        lan.lab.plumb("detach --all").ok();
        wait_for("the client to end", || clients(&lan).is_empty());
        assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
        wait_for("the agent to end", || agent(&lan).is_none());
        lan.lab.state().is(&before);
        assert_eq!(server_knows(&lan), "", "the lease was given back");
    }
    assert_eq!(fs::read("/etc/resolv.conf").ok(), resolver);
    let left = fs::read_to_string("/proc/mounts").unwrap();
    assert!(!left.contains(" /var/lib/dhcpcd ") && !left.contains("/run/plumb/dhcp-event"), "{left}");
}

#[test]
fn each_renews_whatever_becomes_of_it_and_of_the_agent() {
    std::thread::scope(|threads| {
        for client in ALL {
            threads.spawn(move || lives(client));
        }
    });
}

/// BusyBox's client takes a lease for one of 30 s at least, and renews it after 15 s.
const LONGER: Server = Server {
    prepare: |folder| {
        let command = (SHORT.prepare)(folder);
        let conf = folder.join("conf");
        let text = fs::read_to_string(&conf).unwrap();
        fs::write(conf, text.replace("\"valid-lifetime\": 4", "\"valid-lifetime\": 18")).unwrap();
        command
    },
    ..SHORT
};

/// A lease of a few seconds, by a client.
fn lives(client: &str) {
    let is_slow = client == "udhcpc";
    let mut lan = Lan::bare(if is_slow { LONGER } else { SHORT });
    dhcp(&lan, &format!("--client {client}")).ok();
    let first = address(&lan).unwrap();
    wait_for("the client to run", || !clients(&lan).is_empty());

    // Longer than its time.
    let end = Instant::now() + Duration::from_secs(if is_slow { 19 } else { 8 });
    while Instant::now() < end {
        assert_eq!(address(&lan), Some(first), "{client}: {}", lease(&lan));
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(lease(&lan)["problem"], Value::Null);

    // The client is killed: there is another.
    let pids = clients(&lan);
    pids.iter().for_each(|pid| kill_now(*pid));
    wait_for("another client", || is_bound_by_another(&lan, &pids));
    // The agent is killed: so is the client; with another agent there is another client.
    let pids = clients(&lan);
    kill(Pid::from_raw(agent(&lan).unwrap() as i32), Signal::SIGKILL).unwrap();
    wait_for("the client to end with the agent", || clients(&lan).is_empty());
    Ran::of(&mut lan.lab.command("agent")).ok();
    wait_for("another client", || is_bound_by_another(&lan, &pids));
    assert_eq!(address(&lan), Some(first), "{client}");

    // Another server is there, and refuses what the first one granted.
    if !is_slow {
        lan.server_ends();
        only("192.168.9.71")(&lan);
        lan.server_starts();
        wait_for("another address", || address(&lan) == Some(Ipv4Addr::new(192, 168, 9, 71)));
        wait_for("the record", || lease(&lan)["address"] == "192.168.9.71/24");
    }

    // The server is gone, and what it granted as well in the end.
    lan.server_ends();
    if is_slow {
        clients(&lan).iter().for_each(|pid| kill_now(*pid));
    } else {
        wait_for("the lease to run out", || address(&lan).is_none());
        wait_for("the record", || lease(&lan)["state"] == "lost");
        wait_for("the old route", || lan.lab.ip("box", "route show default").contains("via 172.17.0.1 dev eth0"));
    }
    // Another is there, and has something else to offer.
    only("192.168.9.70")(&lan);
    lan.server_starts();
    wait_for("an address", || address(&lan) == Some(Ipv4Addr::new(192, 168, 9, 70)));
    wait_for("the record", || lease(&lan)["state"] == "bound");
    assert!(lan.lab.pings("box", "192.168.9.1"));

    // Somebody deletes the link: at the latest when the lease would have to be renewed, it is noticed.
    if !is_slow {
        sh(&format!("ip -n {} link del eth1", lan.lab.full("box")));
        wait_for("the end of the lease", || lease(&lan)["state"] == "released");
        wait_for("the client to end", || clients(&lan).is_empty());
    }
    lan.lab.plumb("detach --all").ok();
    lan.lab.plumb("gc").ok();
    wait_for("the agent to end", || agent(&lan).is_none());
}

/// Two containers with interfaces of the same name, by the same client; one ends, and one has nobody to
/// renew its lease.
#[test]
fn clients_do_not_meet_and_keep_nobodys_network() {
    for client in ALL {
        let mut lan = Lan::bare(DNSMASQ);
        lan.lab.target("other");
        let pid = lan.lab.process("other");
        let target = format!("pid:{pid}");
        let ask = |target: &str, extra: &str| {
            lan.lab.plumb(&format!("dhcp {target} -i nic0 --probe 0 --no-check --client {client} {extra}")).ok()
        };
        ask(&lan.lab.netns("box"), "--no-renew");
        assert_eq!((agent(&lan), clients(&lan)), (None, Vec::new()));
        lan.lab.plumb("detach --all").ok();
        ask(&lan.lab.netns("box"), "");
        ask(&target, "");
        wait_for("both to ask again", || lan.lab.log("lan").matches("DHCPACK").count() >= 5);
        let all = lan.lab.plumb("leases --json").ok().json()["leases"].clone();
        for lease in all.as_array().unwrap() {
            assert_eq!(
                (lease["state"].as_str(), &lease["problem"]),
                (Some("bound"), &Value::Null),
                "{client}: {lease}"
            );
        }
        sh(&format!("ip netns del {}", lan.lab.full("other")));
        lan.lab.kill(pid);
        let state = |lan: &Lan, target: &str| {
            let all = lan.lab.plumb("leases --json").ok().json()["leases"].clone();
            let found = all.as_array().unwrap().iter().find(|lease| lease["target"] == target).cloned();
            found.map(|lease| lease["state"].clone())
        };
        wait_for("the end of a lease", || state(&lan, &target) == Some("released".into()));
        assert_eq!(state(&lan, &lan.lab.netns("box")), Some("bound".into()));
        assert!(!clients(&lan).is_empty());
        lan.lab.plumb("detach --all").ok();
        wait_for("the agent to end", || agent(&lan).is_none());
    }
}

#[test]
fn an_address_in_use_is_declined_in_each_ones_name() {
    for client in ALL {
        let lan = Lan::with_a_squatter();
        let target = lan.lab.netns("box");
        let ran = lan.lab.plumb(&format!(
            "dhcp {target} -i nic0 --probe 60ms --no-check --no-renew --timeout 14s --client {client}"
        ));
        assert!(ran.ok().out.contains("192.168.9.51/24"), "{client}: {}", lan.lab.log("lan"));
        assert_eq!((agent(&lan), clients(&lan)), (None, Vec::new()));
    }
}

#[test]
fn what_cannot_be_done_changes_nothing() {
    let mut lan = Lan::bare(DNSMASQ);
    let before = lan.lab.state();
    let target = lan.lab.netns("box");
    dhcp(&lan, "--client dhcpcd --option 77=lab")
        .refused(2, "dhcpcd cannot be told to send DHCP option 77; --client-arg gives it options of its own");
    dhcp(&lan, "--client dhclient --broadcast")
        .refused(2, "dhclient cannot ask for answers by broadcast; an ipvlan, and --broadcast, need another client");
    dhcp(&lan, "--client busybox").refused(
        2,
        &format!("--client busybox runs in a container that shares its target's network, and {target} is no container of an engine"),
    ).hints("--client udhcpc is the same client, of this host");
    for (client, package) in [("udhcpc", "udhcpc"), ("dhclient", "isc-dhcp-client"), ("dhcpcd", "dhcpcd-base")] {
        // Where administrators' programs are, there is nothing.
        let plumb = format!("PATH=/nowhere {} dhcp {target} -i nic0 --client {client}", env!("CARGO_BIN_EXE_plumb"));
        let mut without = lan.lab.on_host("unshare");
        without.args(["-m", "sh", "-c", &format!("mount -t tmpfs none /usr/sbin && {plumb}")]);
        Ran::of(&mut without)
            .refused(1, &format!("{client} is not installed on this host"))
            .hints(&format!("apt install {package}, or leave --client out: plumb has a client of its own"));
    }
    dhcp(&lan, "--client dhcpcd --client-image mine")
        .refused(2, "--client-image is for --client busybox, and dhcpcd is this host's");
    let ran = dhcp(&lan, "--client udhcpc --client-arg=--nonsense");
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.err.starts_with("plumb: udhcpc ended with code 1: "), "{ran:?}");
    lan.lab.state().is(&before);
    lan.server_ends();
    for client in ALL {
        // A run that is killed takes its client along.
        let mut running = lan.lab.command(&format!("dhcp {target} -i nic0 --client {client}")).spawn().unwrap();
        wait_for("the client to run", || !clients(&lan).is_empty());
        running.kill().unwrap();
        running.wait().unwrap();
        wait_for("the client to end", || clients(&lan).is_empty());
        lan.lab.plumb("gc").ok();
        lan.lab.state().is(&before);

        let begun = Instant::now();
        dhcp(&lan, &format!("--timeout 300ms --client {client}"))
            .refused(7, "no DHCP server answered on nic0 within 0.3 s; nothing was changed");
        assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
        assert_eq!(clients(&lan), [0; 0]);
    }
    lan.lab.state().is(&before);
}

#[test]
fn busybox_works_in_a_container_beside_the_target() {
    let (lan, web) = (Lan::bare(DNSMASQ), Container::sleeping(""));
    let plumb = |arguments: &str| docker::plumb(&lan.lab, arguments);
    let ask = |extra: &str| {
        plumb(&format!(
            "dhcp {} -i nic0 --probe 0 --no-check --client busybox --client-image {} {extra}",
            web.0,
            docker::image()
        ))
    };
    // The helpers of this test's container.
    let id = docker(&format!("inspect -f {{{{.Id}}}} {}", web.0));
    let helpers = || {
        let all = docker("ps -aq --no-trunc --filter label=netplumb.kept-by");
        let of = |helper: &&str| {
            // It may go while it is looked at.
            let mut inspect = std::process::Command::new("docker");
            inspect.args(["-H", &docker::engine(), "inspect", "-f", "{{.HostConfig.NetworkMode}}", helper]);
            String::from_utf8_lossy(&inspect.output().unwrap().stdout).trim() == format!("container:{id}")
        };
        all.lines().filter(of).map(str::to_owned).collect::<Vec<_>>()
    };
    let ran = ask("--hostname web").ok();
    assert!(ran.out.contains("leased from 192.168.9.1 for 20 min by busybox, and renewed in time"), "{ran:?}");
    let known = server_knows(&lan);
    assert!(known.contains(" web ff:00:00:00:00:00:04:"), "{known}");
    wait_for("a helper that stays", || helpers().len() == 1 && lan.lab.log("lan").matches("DHCPACK").count() >= 2);
    assert_eq!(lease(&lan)["problem"], Value::Null);

    // Whoever is killed, there is one again.
    let first = helpers();
    docker(&format!("kill {}", first[0]));
    wait_for("another helper", || matches!(helpers().as_slice(), [one] if *one != first[0]));
    let second = helpers();
    kill_now(agent(&lan).unwrap());
    wait_for("the helper to go with the agent", || helpers().is_empty());
    plumb("agent").ok();
    wait_for("another helper", || matches!(helpers().as_slice(), [one] if *one != second[0]));

    // One whose keeper was killed as well is found.
    let third = helpers();
    let labels = docker(&format!("inspect -f {{{{.Config.Labels}}}} {}", third[0]));
    let (_, keeper) = labels.split_once("netplumb.kept-by:").unwrap();
    kill_now(keeper.split(' ').next().unwrap().parse().unwrap());
    kill_now(agent(&lan).unwrap());
    wait_for("the agent to end", || agent(&lan).is_none());
    assert_eq!(helpers(), third);
    assert!(plumb("gc").ok().out.contains("removed, nobody keeps it"));
    assert_eq!(helpers(), [""; 0]);

    plumb("agent").ok();
    wait_for("another helper", || helpers().len() == 1);
    plumb("detach --all").ok();
    wait_for("the helper to go", || helpers().is_empty());
    wait_for("the agent to end", || agent(&lan).is_none());
    assert_eq!(server_knows(&lan), "", "the lease was given back");

    // It does not keep the network of a container that ends.
    ask("").ok();
    wait_for("a helper", || helpers().len() == 1);
    docker(&format!("kill {}", web.0));
    wait_for("the end of the lease", || lease(&lan)["state"] == "released");
    wait_for("the helper to go", || helpers().is_empty());
    plumb("detach --all").ok();
    docker(&format!("start {}", web.0));
    plumb(&format!("dhcp {} -i nic0 --client busybox --client-image plumb-none", web.0))
        .refused(3, "Docker has no image plumb-none")
        .hints("docker pull plumb-none, or name another with --client-image");
}

/// It may have ended already.
fn kill_now(pid: u32) {
    let _ = kill(Pid::from_raw(pid as i32), Signal::SIGKILL);
}
