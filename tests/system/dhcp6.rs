//! IPv6 beside a lease: addresses by routers' advertisements and by DHCPv6 servers.

use std::{fs, net::Ipv6Addr, path::Path, time::Duration};

use crate::{
    agent::agent,
    dhcp::{DNSMASQ, Lan, Server},
    lab::{Lab, ROUTER6, Ran, sh, wait_for},
};

/// Routers that advertise, and a server of IPv4. A server of IPv6 may be beside.
const ADVERTISING: Server = Server {
    prepare: |folder| format!("{} --enable-ra --dhcp-range=fd09::,ra-only", (DNSMASQ.prepare)(folder)),
    ..DNSMASQ
};

const FIRST: Ipv6Addr = Ipv6Addr::new(0xfd09, 0, 0, 0, 0, 0, 0, 0x50);

fn kea(folder: &Path, pool: &str, valid_s: u32) -> String {
    let path = folder.display();
    let (renew, rebind) = (valid_s / 2, valid_s * 3 / 4);
    fs::write(
        folder.join("conf6"),
        format!(
            r#"{{ "Dhcp6": {{
                "interfaces-config": {{ "interfaces": ["lan0"] }},
                "lease-database": {{ "type": "memfile", "name": "{path}/leases6.csv", "lfc-interval": 0 }},
                "server-id": {{ "type": "EN", "enterprise-id": 9, "identifier": "6c6162", "persist": false }},
                "valid-lifetime": {valid_s}, "preferred-lifetime": {valid_s},
                "renew-timer": {renew}, "rebind-timer": {rebind},
                "option-data": [ {{ "name": "dns-servers", "data": "{ROUTER6}" }} ],
                "subnet6": [{{ "subnet": "fd09::/64", "interface": "lan0", "pools": [{{ "pool": "{pool}" }}] }}]
            }} }}"#
        ),
    )
    .unwrap();
    format!("kea-dhcp6 -c {path}/conf6")
}

fn dhcpd(folder: &Path) -> String {
    let path = folder.display();
    fs::write(folder.join("leases6"), "").unwrap();
    let text = "authoritative; default-lease-time 1200; preferred-lifetime 1200; option dhcp6.name-servers fd09::1;
        subnet6 fd09::/64 { range6 fd09::50 fd09::60; }";
    fs::write(folder.join("conf6"), text).unwrap();
    format!("dhcpd -6 -f -d --no-pid -cf {path}/conf6 -lf {path}/leases6 lan0")
}

/// With a host and a router that heed no other router, and the router's own address in use.
fn lan(server: Server) -> Lan {
    let lab = Lab::new();
    for (name, interface) in [("host", "nic0"), ("lan", "lan0")] {
        sh(&format!("ip netns exec {} sysctl -q net.ipv6.conf.{interface}.accept_ra=0", lab.full(name)));
        wait_for("its link-local address", || {
            let text = lab.ip(name, &format!("-6 addr show dev {interface} scope link"));
            text.contains("fe80") && !text.contains("tentative")
        });
    }
    Lan::of(lab, server)
}

/// A server of IPv6 beside what `lan` has.
fn beside(lan: &mut Lan, command: &str) -> u32 {
    let pid = lan.lab.server("lan", command);
    // Port 547 in hexadecimal.
    let table = format!("/proc/{pid}/net/udp6");
    wait_for("the server to listen", || fs::read_to_string(&table).is_ok_and(|table| table.contains(":0223 ")));
    pid
}

fn dhcp(lan: &Lan, arguments: &str) -> Ran {
    lan.lab.plumb(&format!("dhcp {} -i nic0 --probe 0 --no-check {arguments}", lan.lab.netns("box")))
}

/// The IPv6 addresses of the interface, with their lengths.
fn addresses(lan: &Lan) -> Vec<String> {
    let text = lan.lab.ip("box", "-6 -o addr show dev eth1 scope global");
    text.lines().map(|line| line.split_whitespace().nth(3).unwrap().to_owned()).collect()
}

fn ipv6_lease(lan: &Lan) -> serde_json::Value {
    let leases = lan.lab.plumb("leases --json").ok().json();
    let is_ipv6 = |lease: &&serde_json::Value| lease["address"].as_str().unwrap().contains(':');
    leases["leases"].as_array().unwrap().iter().find(is_ipv6).cloned().unwrap_or_default()
}

fn is_as_recorded(lan: &Lan) -> bool {
    lan.lab.plumb(&format!("show {} --json", lan.lab.netns("box"))).ok().json()["attachments"][0]["as_recorded"] == true
}

#[test]
fn a_routers_advertisements_make_an_address_and_a_way_out() {
    let lan = lan(ADVERTISING);
    let before = lan.lab.state();
    let said = dhcp(&lan, "--no-renew --ipv6 slaac").ok().out;
    let [address] = &addresses(&lan)[..] else { panic!("{said}") };
    assert!(address.starts_with("fd09::") && address.ends_with("/64"), "{address}");
    let lines: Vec<&str> = said.lines().collect();
    assert!(lines[0].contains(&format!(" {address} via 192.168.9.1 on nic0")), "{said}");
    assert_eq!(lines[2], format!("  {address} by a router's advertisements"));
    assert!(lan.lab.ip("box", "-6 route get 2001:db8::1").contains("dev eth1"), "and not by eth0 as before");
    assert!(lan.lab.pings("box", ROUTER6));
    assert!(is_as_recorded(&lan));
    lan.lab.plumb("detach --all").ok();
    lan.lab.state().is(&before);
    // The way out can stay what it is, or have a metric.
    dhcp(&lan, "--no-renew --ipv6 slaac --keep-default").ok();
    assert!(!lan.lab.ip("box", "-6 route show default").contains("eth1"));
    lan.lab.plumb("detach --all").ok();
    dhcp(&lan, "--no-renew --ipv6 slaac --metric 77").ok();
    wait_for("the route", || lan.lab.ip("box", "-6 route show default").contains("metric 77"));
    lan.lab.plumb("detach --all").ok();
    lan.lab.state().is(&before);
}

#[test]
fn without_ipv6_nothing_of_it_is_taken() {
    let lan = lan(ADVERTISING);
    dhcp(&lan, "--no-renew").ok();
    std::thread::sleep(Duration::from_millis(2500));
    assert_eq!(addresses(&lan), Vec::<String>::new());
}

/// Each server: a lease that is on the interface, on record, given back, and had again.
fn a_lease_lives(mut lan: Lan, command: Option<&str>, kept: &str) {
    let server = command.map(|command| beside(&mut lan, command));
    let before = lan.lab.state();
    let said = dhcp(&lan, "--no-renew --ipv6 dhcp").ok().out;
    let [address] = &addresses(&lan)[..] else { panic!("{said}") };
    let ip: Ipv6Addr = address.strip_suffix("/128").unwrap().parse().unwrap();
    assert!((FIRST..=Ipv6Addr::new(0xfd09, 0, 0, 0, 0, 0, 0, 0x60)).contains(&ip), "{ip}");
    assert!(said.contains(&format!("\n  {address} leased from fe80::")), "{said}");
    assert!(lan.lab.pings("box", ROUTER6), "by the prefix and the route of a router");
    let lease = ipv6_lease(&lan);
    assert_eq!((&lease["address"], &lease["state"]), (&address.as_str().into(), &"bound".into()));
    assert!(is_as_recorded(&lan));
    let ls = lan.lab.plumb("ls --json").ok().json();
    assert_eq!(ls["attachments"][0]["addresses"][1], address.as_str());
    let on_server = || fs::read_to_string(lan.lab.folder().join("dhcp").join(kept)).unwrap_or_default();
    wait_for("the server to write it down", || on_server().contains(&ip.to_string()));

    // Another run of the container has the same.
    sh(&format!("ip -n {} link del eth1", lan.lab.full("box")));
    let said = dhcp(&lan, "--no-renew --ipv6 dhcp --json").ok().json();
    assert_eq!(said["lease"]["ipv6"]["address"], address.as_str());
    assert_eq!(addresses(&lan), std::slice::from_ref(address));
    lan.lab.plumb("detach --all").ok();
    lan.lab.state().is(&before);
    let given_back = || {
        let text = on_server();
        let last = text.lines().rfind(|line| line.contains(&ip.to_string())).unwrap_or_default().to_owned();
        // Kea writes a lease of no time, dhcpd its new state, dnsmasq nothing more.
        last.is_empty() || last.split(',').nth(2) == Some("0") || text.contains("binding state released")
    };
    wait_for("the server to have it back", given_back);
    if let Some(server) = server {
        lan.lab.end(server);
    }
}

#[test]
fn an_address_lives_with_dnsmasq() {
    let both = Server {
        prepare: |folder| format!("{} --enable-ra --dhcp-range=fd09::50,fd09::60,64,20m", (DNSMASQ.prepare)(folder)),
        ..DNSMASQ
    };
    a_lease_lives(lan(both), None, "leases");
}

#[test]
fn an_address_lives_with_kea() {
    let lan = lan(ADVERTISING);
    let command = kea(&lan.lab.folder().join("dhcp"), "fd09::50 - fd09::60", 1200);
    a_lease_lives(lan, Some(&command), "leases6.csv");
}

#[test]
fn an_address_lives_with_isc_dhcpd() {
    let lan = lan(ADVERTISING);
    let command = dhcpd(&lan.lab.folder().join("dhcp"));
    a_lease_lives(lan, Some(&command), "leases6");
}

#[test]
fn the_agent_keeps_the_address_for_as_long_as_the_container_lives() {
    let mut lan = lan(ADVERTISING);
    let folder = lan.lab.folder().join("dhcp");
    let server = beside(&mut lan, &kea(&folder, "fd09::50 - fd09::60", 6));
    dhcp(&lan, "--ipv6 dhcp").ok();
    let first = addresses(&lan);
    assert_eq!(first.len(), 1);
    // Twice its time, and the agent is killed meanwhile.
    std::thread::sleep(Duration::from_secs(4));
    let pid = agent(&lan).expect("an agent");
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid as i32), nix::sys::signal::Signal::SIGKILL).unwrap();
    wait_for("the agent to end", || agent(&lan) != Some(pid));
    Ran::of(&mut lan.lab.command("agent")).ok();
    for _ in 0..8 {
        std::thread::sleep(Duration::from_secs(1));
        assert_eq!(addresses(&lan), first);
    }
    assert_eq!(ipv6_lease(&lan)["state"], "bound");

    // A server with another mind.
    lan.lab.end(server);
    fs::write(folder.join("leases6.csv"), "").unwrap();
    let server = beside(&mut lan, &kea(&folder, "fd09::70 - fd09::70", 6));
    wait_for("the new address", || addresses(&lan) == ["fd09::70/128"]);
    wait_for("the record", || ipv6_lease(&lan)["address"] == "fd09::70/128");
    assert!(is_as_recorded(&lan));

    // Nobody renews it, until somebody does again.
    lan.lab.end(server);
    wait_for("the end of the lease", || addresses(&lan).is_empty());
    wait_for("the record", || ipv6_lease(&lan)["state"] == "lost");
    beside(&mut lan, &kea(&folder, "fd09::70 - fd09::70", 6));
    wait_for("an address", || addresses(&lan) == ["fd09::70/128"]);

    // Gone with the container.
    sh(&format!("ip netns del {}", lan.lab.full("box")));
    wait_for("the end", || ipv6_lease(&lan)["state"] == "released");
    wait_for("the agent to end", || agent(&lan).is_none());
}

#[test]
fn what_nobody_answers_changes_nothing() {
    let lan = lan(DNSMASQ);
    let before = lan.lab.state();
    let leases = || fs::read_to_string(lan.lab.folder().join("dhcp/leases")).unwrap_or_default();
    dhcp(&lan, "--no-renew --ipv6 dhcp --timeout 2500ms")
        .refused(7, "no DHCPv6 server answered on nic0 within 2.5 s; nothing was changed")
        .hints("does the LAN have one? many have routers only: --ipv6 slaac takes an address by their advertisements");
    lan.lab.state().is(&before);
    dhcp(&lan, "--no-renew --ipv6 slaac --timeout 2500ms")
        .refused(7, "no router on nic0 advertised an IPv6 prefix within 2.5 s; nothing was changed")
        .hints("does the router advertise one for autoconfiguration? --ipv6 dhcp asks a server instead");
    lan.lab.state().is(&before);
    wait_for("the IPv4 lease to be given back", || !leases().contains("192.168.9."));
}

#[test]
fn an_exhausted_pool_is_told_of_and_an_address_in_use_declined() {
    let mut lan = lan(ADVERTISING);
    let folder = lan.lab.folder().join("dhcp");
    beside(&mut lan, &kea(&folder, "fd09::50 - fd09::51", 1200));
    // Somebody has the first that it will offer, whichever that is.
    sh(&format!("ip -n {} addr add fd09::50/64 dev lan0 nodad", lan.lab.full("lan")));
    let attach = |probe: &str| {
        let target = lan.lab.netns("box");
        lan.lab.plumb(&format!("dhcp {target} -i nic0 --probe {probe} --no-check --no-renew --ipv6 dhcp --timeout 8s"))
    };
    attach("50ms").ok();
    assert_eq!(addresses(&lan), ["fd09::51/128"]);
    lan.lab.plumb("detach --all").ok();
    sh(&format!("ip -n {} addr add fd09::51/64 dev lan0 nodad", lan.lab.full("lan")));
    let before = lan.lab.state();
    let refused = attach("50ms");
    assert!(refused.code == 7 && refused.err.contains("no IPv6 lease on nic0 within 8 s: fe80::"), "{refused:#?}");
    lan.lab.state().is(&before);
}
