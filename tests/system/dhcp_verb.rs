//! `plumb dhcp`, against servers in namespaces.

use std::{fs, time::Instant};

use crate::{
    dhcp::{DHCPD, DNSMASQ, KEA, Lan, Server, UDHCPD},
    lab::{Ran, State, at_each, sh, wait_for},
};

/// `plumb dhcp box -i nic0 ARGUMENTS` with nobody to renew the lease.
fn dhcp(lan: &Lan, arguments: &str) -> Ran {
    lan.lab.plumb(&format!("dhcp {} -i nic0 --probe 0 --no-check --no-renew {arguments}", lan.lab.netns("box")))
}

fn leases(lan: &Lan) -> String {
    fs::read_to_string(lan.lab.folder().join("dhcp/leases")).unwrap_or_default()
}

/// The state without what the server keeps.
fn state(lan: &Lan) -> State {
    lan.lab.state()
}

#[test]
fn the_lease_is_on_the_interface_and_goes_with_it() {
    let lan = Lan::bare(DNSMASQ);
    let before = state(&lan);
    let ran = dhcp(&lan, "--hostname web").ok();
    let address = lan.lab.json("box", "-4 addr show dev eth1")[0]["addr_info"][0]["local"].as_str().unwrap().to_owned();
    let target = lan.lab.netns("box");
    assert_eq!(
        ran.out,
        format!(
            "{target}: eth1 {address}/24 via 192.168.9.1 on nic0 (macvlan bridge)\n  \
             leased from 192.168.9.1 for 20 min; nobody renews it\n  \
             the default route was by eth0 (172.17.0.1); detach gives it back\n"
        )
    );
    let routes = lan.lab.ip("box", "route");
    assert!(
        routes.contains("default via 192.168.9.1 dev eth1") && routes.contains("10.0.0.0/8 via 192.168.9.2"),
        "{routes}"
    );
    assert!(lan.lab.ip("box", "link show eth1").contains("mtu 1400"));
    assert!(lan.lab.pings("box", "192.168.9.1"));
    assert!(leases(&lan).contains("web"), "the host name");
    let ls = lan.lab.plumb("ls --json").ok().json();
    assert_eq!(ls["attachments"][0]["addresses"][0], format!("{address}/24"));
    assert!(lan.lab.plumb(&format!("show {target} --json")).ok().json()["attachments"][0]["as_recorded"] == true);

    lan.lab.plumb(&format!("detach {target}")).ok();
    state(&lan).is(&before);
    assert_eq!(leases(&lan), "", "the lease was given back");
}

#[test]
fn what_was_changed_of_a_leased_interface_goes_with_it_and_its_mac_stays() {
    let lan = Lan::bare(DNSMASQ);
    let before = state(&lan);
    dhcp(&lan, "").ok();
    let target = lan.lab.netns("box");
    let change = |words: &str| lan.lab.plumb(&words.replace("TARGET", &target));
    change("link TARGET set mac 02:00:00:00:09:77")
        .refused(1, "the address of eth1 is leased to its MAC address, and to another it is not")
        .hints(&format!("detach it, and attach it with plumb dhcp {target} --mac 02:00:00:00:09:77"));
    change("route TARGET replace default via 192.168.9.7").ok();
    change("route TARGET del 10.0.0.0/8").ok();
    change("link TARGET set mtu 1300").ok();
    change("link TARGET set name lan0").ok();
    let shown = lan.lab.plumb(&format!("show {target} --json")).ok().json();
    assert_eq!(shown["attachments"][0]["as_recorded"], true, "{shown:#}");
    lan.lab.plumb(&format!("detach {target} lan0")).ok();
    state(&lan).is(&before);
    assert_eq!(leases(&lan), "", "the lease was given back");
}

#[test]
fn every_server_will_do() {
    for server in [DHCPD, KEA, UDHCPD] {
        let lan = Lan::bare(server);
        let before = state(&lan);
        dhcp(&lan, "--request 28 --option 77=lab --vendor-class plumb").ok();
        assert!(lan.lab.pings("box", "192.168.9.1"));
        lan.lab.plumb("detach --all").ok();
        state(&lan).is(&before);
    }
}

#[test]
fn who_comes_back_has_its_old_address() {
    let mut lan = Lan::bare(DNSMASQ);
    let address = |lan: &Lan| lan.lab.ip("box", "-4 -o addr show dev eth1");
    dhcp(&lan, "").ok();
    let first = address(&lan);
    assert!(first.contains("192.168.9."), "{first}");
    // The namespace ends with its interface, and nobody tells the server.
    sh(&format!("ip netns del {}", lan.lab.full("box")));
    lan.lab.target("box");
    dhcp(&lan, "").ok();
    let second = address(&lan);
    assert_eq!(second.split_whitespace().nth(3), first.split_whitespace().nth(3));
    // The server has lost its memory, and says nothing to an address that it does not know.
    lan.server_ends();
    fs::write(lan.lab.folder().join("dhcp/leases"), "").unwrap();
    lan.server_starts();
}

#[test]
fn without_a_server_nothing_is_changed() {
    let mut lan = Lan::bare(DNSMASQ);
    lan.server_ends();
    let before = state(&lan);
    dhcp(&lan, "--timeout 300ms")
        .refused(7, "no DHCP server answered on nic0 within 0.3 s; nothing was changed")
        .hints("does nic0 lead to the network with the server? --timeout waits longer");
    state(&lan).is(&before);
    sh(&format!("ip -n {} link set nic0 down", lan.lab.full("host")));
    wait_for("the LAN's end to notice", || lan.lab.ip("lan", "route").contains("linkdown"));
    let before = state(&lan);
    dhcp(&lan, "").refused(1, "nic0 is down, so no DHCP server can be asked").hints("ip link set nic0 up");
    state(&lan).is(&before);
}

#[test]
fn an_exhausted_pool_is_no_server() {
    let lan = Lan::bare(Server {
        prepare: |folder| (DNSMASQ.prepare)(folder).replace("192.168.9.60", "192.168.9.50"),
        ..DNSMASQ
    });
    dhcp(&lan, "").ok();
    let before = state(&lan);
    let second = dhcp(&lan, "--timeout 500ms --keep-default");
    assert_eq!(second.code, 7, "{second:?}");
    state(&lan).is(&before);
}

#[test]
fn an_address_in_use_is_declined_and_another_one_taken() {
    let lan = Lan::with_a_squatter();
    // Whichever is offered first is taken, so that the second one is the answer.
    let begun = Instant::now();
    let ran = lan
        .lab
        .plumb(&format!("dhcp {} -i nic0 --probe 60ms --no-check --no-renew --timeout 14s", lan.lab.netns("box")))
        .ok();
    println!("{:?}", begun.elapsed());
    assert!(ran.out.contains("192.168.9.51/24"), "{ran:?}");
}

#[test]
fn what_would_be_done_can_be_read_and_run() {
    let lan = Lan::bare(DNSMASQ);
    let before = state(&lan);
    let dry = dhcp(&lan, "--dry-run").ok();
    state(&lan).is(&before);
    assert!(
        dry.out.ends_with("# eth1 then asks for a lease by DHCP; its address and routes are what the server says\n")
    );
    Ran::of(lan.lab.on_host("sh").args(["-ec", &dry.out])).ok();
    assert!(lan.lab.ip("box", "link show eth1").contains("altname plumb:"));
}

#[test]
fn killed_anywhere_it_is_taken_back() {
    let lan = Lan::bare(DNSMASQ);
    let arguments = format!("dhcp {} -i nic0 --probe 0 --no-check --no-renew", lan.lab.netns("box"));
    // Each run is a whole exchange with the server: not every call, and fewest of those that most of a run is made of.
    let calls = ["sendto/2", "sendmsg/2", "rename/2", "symlink/2", "fsync/2", "openat/5"];
    let kills = lan.lab.killed_anywhere(&calls, &arguments, || state(&lan));
    assert!(kills >= 15, "only {kills} kills");
}

#[test]
fn the_resolver_is_the_containers_own_and_is_given_back() {
    let mut lan = Lan::bare(DNSMASQ);
    let root = lan.lab.folder().join("root");
    fs::create_dir_all(root.join("etc")).unwrap();
    fs::create_dir_all(root.join("run")).unwrap();
    let file = root.join("run/resolv.conf");
    fs::write(&file, "nameserver 127.0.0.11\n").unwrap();
    std::os::unix::fs::symlink("/run/resolv.conf", root.join("etc/resolv.conf")).unwrap();
    sh(&format!("cp $(command -v busybox) {}/busybox", root.display()));
    let pid = lan.lab.server("box", &format!("chroot {} /busybox sleep 600", root.display()));
    wait_for("the process", || fs::read_link(format!("/proc/{pid}/root")).is_ok_and(|there| there == root));
    let ask = |lan: &Lan| lan.lab.plumb(&format!("dhcp pid:{pid} -i nic0 --probe 0 --no-check --no-renew --dns"));
    ask(&lan).ok();
    let text = fs::read_to_string(&file).unwrap();
    assert_eq!(text, "# from the DHCP server 192.168.9.1, by plumb\nsearch a.lab b.lab\nnameserver 192.168.9.1\n");
    lan.lab.plumb("detach --all").ok();
    assert_eq!(fs::read_to_string(&file).unwrap(), "nameserver 127.0.0.11\n");

    // What somebody has written meanwhile stays.
    ask(&lan).ok();
    fs::write(&file, "nameserver 9.9.9.9\n").unwrap();
    lan.lab.plumb("detach --all").ok();
    assert_eq!(fs::read_to_string(&file).unwrap(), "nameserver 9.9.9.9\n");

    // A namespace has no files, and a process may have none of its own.
    dhcp(&lan, "--dns")
        .refused(2, &format!("--dns writes a container's file, and {} has none of its own", lan.lab.netns("box")));
    let pid = lan.lab.process("box");
    let ran = lan.lab.plumb(&format!("dhcp pid:{pid} -i nic0 --dns"));
    ran.refused(2, &format!("--dns writes a container's file, and pid:{pid} has none of its own"));
}

#[test]
fn detaching_killed_anywhere_can_be_finished() {
    let lan = Lan::bare(DNSMASQ);
    let (target, before) = (lan.lab.netns("box"), state(&lan));
    at_each(&["unlink", "sendmsg", "fsync"], |call, number| {
        dhcp(&lan, "").ok();
        let was_killed = lan.lab.killed(&format!("detach {target}"), call, number);
        lan.lab.plumb(&format!("detach {target}")).ok();
        lan.lab.plumb("gc").ok();
        state(&lan).is(&before);
        was_killed
    });
}
