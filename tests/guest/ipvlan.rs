//! ipvlan in its three modes, with real traffic.

use serde_json::Value;

use crate::{
    boot::in_guest,
    capture::Capture,
    lab::{FREE, Lab, ROUTER, Ran, honest, sh},
};

const HOSTS: &str = "192.168.9.2";

/// `plumb flat TARGET -i nic0 --driver ipvlan ARGUMENTS`, which pings nobody.
fn ipvlan(lab: &Lab, target: &str, arguments: &str) -> Ran {
    lab.plumb(&format!("flat {} -i nic0 --no-check --driver ipvlan {arguments}", lab.netns(target)))
}

fn with_peer() -> Lab {
    let mut lab = Lab::new();
    lab.target("peer");
    lab
}

/// A host with an address on the LAN, where the router knows that it leads to 10.0.0.0/8.
fn with_routes() -> Lab {
    let lab = with_peer();
    sh(&format!(
        "ip -n {host} addr add {HOSTS}/24 dev nic0
         ip -n {lan} route add 10.0.0.0/8 via {HOSTS}",
        host = lab.full("host"),
        lan = lab.full("lan")
    ));
    lab
}

fn mac(lab: &Lab, namespace: &str, interface: &str) -> String {
    lab.json(namespace, &format!("link show dev {interface}"))[0]["address"].as_str().unwrap().to_owned()
}

/// The mode as the kernel has it.
fn mode(lab: &Lab, namespace: &str) -> String {
    let link = &lab.json(namespace, "-d link show dev eth1")[0]["linkinfo"];
    format!("{} {}", link["info_kind"].as_str().unwrap(), link["info_data"]["mode"].as_str().unwrap())
}

fn detach_all_leaves(lab: &Lab, before: &crate::lab::State) {
    lab.plumb("detach --all").ok();
    lab.state().is(before);
}

#[test]
fn in_l2_each_container_is_on_the_lan_with_the_parents_mac() {
    in_guest(|| {
        let lab = with_peer();
        let before = lab.state();
        let arp = Capture::start(&lab, "lan", "lan0", "arp");
        let said = ipvlan(&lab, "box", &format!("--ip {FREE} --ip fd09::100/64 --gateway {ROUTER}")).ok();
        assert_eq!(
            said.out.lines().next().unwrap(),
            format!("{}: eth1 {FREE}, fd09::100/64 via {ROUTER} on nic0 (ipvlan l2)", lab.netns("box"))
        );
        ipvlan(&lab, "peer", "--ip 192.168.9.101/24").ok();
        for (from, to) in [("box", ROUTER), ("box", "192.168.9.101"), ("peer", "192.168.9.100"), ("box", "fd09::1")] {
            assert!(lab.pings(from, to), "{from} to {to}");
        }
        let nic = mac(&lab, "host", "nic0");
        assert_eq!([mac(&lab, "box", "eth1"), mac(&lab, "peer", "eth1")], [nic.clone(), nic.clone()]);
        let announced = "Request who-has 192.168.9.100 tell 192.168.9.100,";
        let seen = arp.frames();
        assert!(seen.iter().any(|frame| frame.contains(&nic) && frame.contains(announced)), "{seen:#?}");
        let shown = lab.plumb(&format!("show {} --json", lab.netns("box"))).ok().json();
        assert_eq!(shown["attachments"][0]["as_recorded"], Value::Bool(true), "{shown:#}");
        assert_eq!(mode(&lab, "box"), "ipvlan l2");
        detach_all_leaves(&lab, &before);
    });
}

/// The answer to a probe is for no ipvlan, as it names no address; the parent must hear it.
#[test]
fn in_l2_an_address_that_somebody_on_the_lan_has_is_refused() {
    in_guest(|| {
        let lab = Lab::new();
        let before = lab.state();
        ipvlan(&lab, "box", &format!("--ip {ROUTER}/24 --probe 2s"))
            .refused(4, &format!("{ROUTER} is in use on the LAN by {}; nothing was changed", mac(&lab, "lan", "lan0")));
        lab.state().is(&before);
    });
}

#[test]
fn an_address_that_another_ipvlan_has_is_refused() {
    in_guest(|| {
        let lab = with_peer();
        ipvlan(&lab, "peer", "--ip none").ok();
        sh(&format!("ip -n {} addr add 192.168.9.100/24 dev eth1", lab.full("peer")));
        let before = lab.state();
        let ran = ipvlan(&lab, "box", &format!("--ip {FREE}"));
        assert_eq!(ran.code, 4, "{ran:#?}");
        assert!(ran.err.contains("192.168.9.100") && ran.err.contains("nothing was changed"), "{ran:#?}");
        lab.state().is(&before);
    });
}

fn across_subnets(which: &str) {
    let lab = with_routes();
    let before = lab.state();
    let own_arp = Capture::start(&lab, "lan", "lan0", "arp and not host 192.168.9.2");
    let said = ipvlan(&lab, "box", &format!("--mode {which} --ip 10.1.0.2/24 --ip fd10::2/64 --route 0.0.0.0/0")).ok();
    let [first, replaced, remark] = said.out.lines().collect::<Vec<_>>()[..] else { panic!("{said:#?}") };
    assert_eq!(first, format!("{}: eth1 10.1.0.2/24, fd10::2/64 on nic0 (ipvlan {which})", lab.netns("box")));
    assert_eq!(replaced, "  the default route was by eth0 (172.17.0.1); detach gives it back");
    assert_eq!(
        remark,
        format!("  mode {which} answers no ARP: other machines need a route to 10.1.0.0/24 and fd10::/64 by this host")
    );
    let peer = format!("--mode {which} --ip 10.2.0.2/24 --route 0.0.0.0/0 --check-host {ROUTER} --json");
    let checked = lab.plumb(&format!("flat {} -i nic0 --driver ipvlan {peer}", lab.netns("peer"))).ok().json();
    assert_eq!(checked["checks"][0]["reached"], Value::Bool(true), "{checked:#}");

    let inside = Capture::start(&lab, "box", "eth1", "arp");
    for (from, to) in [("box", "10.2.0.2"), ("peer", "10.1.0.2"), ("box", ROUTER), ("lan", "10.1.0.2")] {
        assert!(lab.pings(from, to), "{from} to {to}");
    }
    assert_eq!(inside.frames(), [""; 0], "ARP frames inside");
    // Who does not know better asks, and nobody inside answers.
    sh(&format!("ip -n {} route del 10.0.0.0/8", lab.full("lan")));
    sh(&format!("ip -n {} route add 10.1.0.0/24 dev lan0", lab.full("lan")));
    assert!(!lab.pings("lan", "10.1.0.2"), "an ARP request was answered");
    sh(&format!("ip -n {} route del 10.1.0.0/24", lab.full("lan")));
    sh(&format!("ip -n {} route add 10.0.0.0/8 via {HOSTS}", lab.full("lan")));
    let sent: Vec<String> = own_arp.frames().into_iter().filter(|frame| !frame.contains("tell 192.168.9.1,")).collect();
    assert_eq!(sent, [""; 0], "ARP frames that were not the host's or the router's own");

    assert_eq!([mode(&lab, "box"), mode(&lab, "peer")], [format!("ipvlan {which}"), format!("ipvlan {which}")]);
    let shown = lab.plumb(&format!("show {} --json", lab.netns("box"))).ok().json();
    assert_eq!(shown["attachments"][0]["as_recorded"], Value::Bool(true), "{shown:#}");
    detach_all_leaves(&lab, &before);
}

#[test]
fn in_l3_containers_reach_one_another_across_subnets_without_arp() {
    in_guest(|| across_subnets("l3"));
}

#[test]
fn in_l3s_they_do_as_well() {
    in_guest(|| across_subnets("l3s"));
}

/// Why a gateway is refused there: the kernel takes one and asks for the destination all the same.
#[test]
fn in_l3_a_gateway_inside_would_have_no_effect() {
    in_guest(|| {
        let lab = with_routes();
        ipvlan(&lab, "box", "--mode l3 --ip 192.168.9.100/24").ok();
        let arp = Capture::start(&lab, "lan", "lan0", "arp and dst host 203.0.113.1");
        sh(&format!("ip -n {} route add 203.0.113.0/24 via {ROUTER} dev eth1", lab.full("box")));
        assert!(!lab.pings("box", "203.0.113.1"));
        assert!(!arp.frames().is_empty(), "the host asked the router, so gateways inside have a meaning after all");
    });
}

#[test]
fn who_is_not_reached_in_l3_is_told_of_the_hosts_routes() {
    in_guest(|| {
        let lab = with_routes();
        let ran = lab
            .plumb(&format!(
                "flat {} -i nic0 --driver ipvlan --mode l3 --ip 10.1.0.2/24 --route 0.0.0.0/0 --check-host 203.0.113.1",
                lab.netns("box")
            ))
            .ok();
        assert!(
            ran.err.contains(
                "203.0.113.1 does not answer within 1 s. Look at: the host's own route to it, which must be by nic0; \
                 a route back to 10.1.0.2/24 by this host; a firewall"
            ),
            "{ran:#?}"
        );
    });
}

#[test]
fn modes_are_not_mixed_and_those_that_are_there_keep_theirs() {
    in_guest(|| {
        let lab = with_peer();
        ipvlan(&lab, "peer", "--mode l3 --ip 10.2.0.2/24").ok();
        let before = lab.state();
        for other in ["l2", "l3s"] {
            ipvlan(&lab, "box", &format!("--mode {other} --ip {FREE}"))
                .refused(
                    4,
                    &format!(
                        "nic0 has an ipvlan in mode l3, eth1 of {}, and all on one parent are in one mode",
                        lab.netns("peer")
                    ),
                )
                .hints("use --mode l3, or another parent; or detach those that are there");
        }
        lab.state().is(&before);
        assert_eq!(mode(&lab, "peer"), "ipvlan l3");
        // Why it is looked for: the kernel does it, and changes the one that is there.
        sh(&format!(
            "ip -n {} link add link nic0 name other netns {} type ipvlan mode l2",
            lab.full("host"),
            lab.full("box")
        ));
        assert_eq!(mode(&lab, "peer"), "ipvlan l2");
        let shown = lab.plumb(&format!("show {}", lab.netns("peer"))).ok();
        assert!(shown.out.contains("ipvlan l3") && shown.out.contains("ipvlan l2"), "{shown:#?}");
    });
}

#[test]
fn an_ipvlan_that_is_not_plumbs_counts_too() {
    in_guest(|| {
        let lab = with_peer();
        let (host, peer) = (lab.full("host"), lab.full("peer"));
        sh(&format!("ip -n {host} link add link nic0 name theirs netns {peer} type ipvlan mode l3s"));
        let there = format!("theirs of /run/netns/{peer} (not plumb's)");
        ipvlan(&lab, "box", &format!("--ip {FREE}"))
            .refused(4, &format!("nic0 has an ipvlan in mode l3s, {there}, and all on one parent are in one mode"));
        // On the host itself it counts as well, and one on another parent does not.
        sh(&format!(
            "ip -n {peer} link del theirs
             ip -n {host} link add nic1 type dummy
             ip -n {host} link add link nic1 name theirs1 type ipvlan mode l3
             ip -n {host} link add link nic0 name theirs0 type ipvlan mode l3s"
        ));
        let there = format!("theirs0 of /run/netns/{host} (not plumb's)");
        ipvlan(&lab, "box", &format!("--ip {FREE}"))
            .refused(4, &format!("nic0 has an ipvlan in mode l3s, {there}, and all on one parent are in one mode"));
        sh(&format!("ip -n {host} link del theirs0"));
        ipvlan(&lab, "box", &format!("--ip {FREE}")).ok();
    });
}

#[test]
fn macvlan_and_ipvlan_do_not_share_a_parent() {
    in_guest(|| {
        let lab = with_peer();
        let flat = |target: &str, driver: &str| {
            lab.plumb(&format!("flat {} -i nic0 --ip none --driver {driver}", lab.netns(target)))
        };
        for (there, asked, message) in [
            ("macvlan", "ipvlan", "nic0 has a macvlan, eth1 of PEER, and an ipvlan cannot be beside it"),
            (
                "ipvlan",
                "macvlan",
                "nic0 is in use by another kind of link, eth1 of PEER, and a macvlan cannot be beside it; nothing was changed",
            ),
        ] {
            flat("peer", there).ok();
            let before = lab.state();
            flat("box", asked).refused(4, &message.replace("PEER", &lab.netns("peer")));
            lab.state().is(&before);
            lab.plumb("detach --all").ok();
        }
    });
}

/// Of many at once some want l2 and some l3: one mode wins, and nobody who was told yes has the other.
#[test]
fn modes_are_not_mixed_by_many_at_once_either() {
    in_guest(|| {
        let mut lab = Lab::new();
        let names: Vec<String> = (0..6).map(|n| format!("many{n}")).collect();
        names.iter().for_each(|name| lab.namespace(name));
        let lab = &lab;
        for _ in 0..3 {
            let won: Vec<(&str, &str)> = std::thread::scope(|scope| {
                let running: Vec<_> = names
                    .iter()
                    .enumerate()
                    .map(|(n, name)| {
                        let mode = ["l2", "l3"][n % 2];
                        (name, mode, scope.spawn(move || ipvlan(lab, name, &format!("--ip none --mode {mode}"))))
                    })
                    .collect();
                let ended = running.into_iter().filter_map(|(name, mode, run)| {
                    let ran = run.join().unwrap();
                    assert!(ran.code == 0 || ran.code == 4 && ran.err.contains("all on one parent"), "{ran:#?}");
                    (ran.code == 0).then_some((name.as_str(), mode))
                });
                ended.collect()
            });
            assert_eq!(won.len(), 3, "all of one mode, and none of the other: {won:?}");
            for (name, wanted) in won {
                assert_eq!(mode(lab, name), format!("ipvlan {wanted}"), "{name}");
            }
            lab.plumb("detach --all").ok();
        }
    });
}

#[test]
fn a_dry_run_is_honest() {
    in_guest(|| {
        honest(&format!("--ip {FREE} --gateway {ROUTER} --driver ipvlan"));
        honest("--ip 10.1.0.2/24 --driver ipvlan --mode l3s --route 0.0.0.0/0 --route 10.3.0.0/16 --mtu 1400");
    });
}

#[test]
fn a_vlan_is_a_parent_like_any_other() {
    in_guest(|| {
        let mut lab = with_peer();
        lab.target("other");
        let host = lab.full("host");
        sh(&format!(
            "for id in 10 20; do
               ip -n {host} link add link nic0 name nic0.$id type vlan id $id && ip -n {host} link set nic0.$id up
             done"
        ));
        let before = lab.state();
        for driver in ["macvlan", "ipvlan"] {
            for (target, vlan, ip) in [("box", 10, 100), ("peer", 10, 101), ("other", 20, 102)] {
                let target = lab.netns(target);
                let ip = format!("192.168.7.{ip}/24");
                lab.plumb(&format!("flat {target} -i nic0.{vlan} --ip {ip} --driver {driver} --no-check")).ok();
            }
            let tagged = Capture::start(&lab, "lan", "lan0", "vlan 10 and arp");
            let foreign = Capture::start(&lab, "other", "eth1", "arp");
            assert!(lab.pings("box", "192.168.7.101"));
            assert!(!lab.pings("box", "192.168.7.102"), "{driver}: a frame has changed its VLAN");
            assert!(!tagged.frames().is_empty(), "the broadcasts leave the host with the tag");
            assert_eq!(foreign.frames(), [""; 0], "{driver}: broadcasts in another VLAN");
            lab.plumb("detach --all").ok();
            lab.state().is(&before);
        }
    });
}
