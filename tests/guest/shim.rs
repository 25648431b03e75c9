//! Shims where the parent is a VLAN's device, or has ipvlans.

use crate::{
    boot::in_guest,
    lab::{FREE, Lab, sh},
};

#[test]
fn on_a_vlan_the_host_reaches_the_networks_containers_by_an_address_of_its_pool() {
    in_guest(|| {
        let lab = Lab::new();
        let before = lab.state();
        lab.plumb("create-vlan blue --subnet 10.1.0.0/24 -i nic0 --id 10").ok();
        let target = lab.netns("box");
        lab.plumb(&format!("attach {target} blue --probe 0 --no-check --keep-default")).ok();
        assert!(!lab.pings("host", "10.1.0.2"), "without a shim");
        let said = lab.plumb("shim --network blue --probe 0").ok().out;
        assert_eq!(said, "nic0.10: shim-nic0.10 10.1.0.3/24 (macvlan bridge)\n");
        assert!(lab.pings("host", "10.1.0.2") && lab.pings("box", "10.1.0.3"));
        lab.plumb("shim rm nic0.10").ok();
        assert!(!lab.pings("host", "10.1.0.2"), "the shim has gone");
        lab.plumb("detach --all").ok();
        lab.plumb("delete-vlan blue").ok();
        lab.state().is(&before);
    });
}

#[test]
fn beside_ipvlans_the_shim_is_one_of_their_mode() {
    in_guest(|| {
        for mode in ["l2", "l3"] {
            let lab = Lab::new();
            sh(&format!("ip -n {} addr add 192.168.9.2/24 dev nic0", lab.full("host")));
            let before = lab.state();
            lab.flat(&format!("--ip {FREE} --keep-default --driver ipvlan --mode {mode}")).ok();
            assert!(!lab.pings("host", "192.168.9.100"), "without a shim");
            let said = lab.plumb("shim nic0 --ip 192.168.9.254/32 --probe 0").ok().out;
            let first = format!("nic0: shim-nic0 192.168.9.254/32 (ipvlan {mode})");
            assert_eq!(said.lines().next(), Some(first.as_str()));
            assert!(lab.pings("host", "192.168.9.100") && lab.pings("box", "192.168.9.254"), "in mode {mode}");
            lab.plumb("shim rm nic0").ok();
            lab.plumb("detach --all").ok();
            lab.state().is(&before);
        }
    });
}

#[test]
fn what_the_host_has_of_networks_is_put_back() {
    in_guest(|| {
        let mut lab = Lab::new();
        let (host, lan) = (lab.full("host"), lab.full("lan"));
        sh(&format!(
            "ip -n {host} link add nic1 type veth peer name lan1 netns {lan}
             ip -n {host} link set nic1 up; ip -n {lan} link set lan1 up"
        ));
        lab.plumb("create-vlan blue --subnet 10.1.0.0/24 -i nic0 --id 10 --gateway-here").ok();
        lab.plumb("create-vlan red --subnet 10.2.0.0/24 -i nic0 --id 20").ok();
        lab.target("peer");
        let (target, peer) = (lab.netns("box"), lab.netns("peer"));
        lab.plumb(&format!("attach {target} blue --probe 0 --no-check --keep-default")).ok();
        lab.plumb(&format!("attach {peer} red -i nic1 --probe 0 --no-check --keep-default")).ok();
        lab.plumb("shim --network blue")
            .refused(4, "this host is the gateway of blue, and reaches its containers by gw-blue: it needs no shim");
        // By another interface than the network's own, and with an address that is not the next one.
        lab.plumb("shim nic1 --network red --ip 10.2.0.77/24 --probe 0").ok();
        let reached = |lab: &Lab| lab.pings("host", "10.1.0.2") && lab.pings("host", "10.2.0.2");
        assert!(reached(&lab));
        assert_eq!(lab.plumb("restore").ok().out, "there is nothing to put back\n");
        // Deleted by somebody, and after a reboot.
        for reboots in [false, true] {
            sh(&format!("ip -n {host} link del gw-blue; ip -n {host} link del shim-nic1.20"));
            if reboots {
                lab.host_reboots();
            }
            assert!(!reached(&lab));
            let said = lab.plumb("restore").ok().out;
            let lines: std::collections::BTreeSet<&str> = said.lines().collect();
            assert_eq!(lines, ["gw-blue is back", "shim-nic1.20 is back"].into(), "reboots: {reboots}");
            assert!(reached(&lab), "reboots: {reboots}");
            let shim = lab.plumb("shim ls --json").ok().json()["shims"][0].clone();
            assert_eq!((&shim["parent"], &shim["addresses"][0]), (&"nic1.20".into(), &"10.2.0.77/24".into()));
        }
        lab.plumb("shim rm nic1.20").ok();
        lab.plumb("delete-vlan blue --force").ok();
        lab.plumb("delete-vlan red --force").ok();
        assert!(!lab.ip("host", "link").contains("@nic"), "nothing hangs on either");
    });
}

#[test]
fn a_shim_on_a_vlans_device_leads_to_the_networks_containers() {
    in_guest(|| {
        let mut lab = Lab::new();
        lab.target("peer");
        lab.plumb("create-vlan blue --subnet 10.1.0.0/24 -i nic0 --id 10").ok();
        let join = |name: &str| {
            let target = lab.netns(name);
            lab.plumb(&format!("attach {target} blue --probe 0 --no-check --keep-default")).ok();
        };
        let routes = || lab.ip("host", "route show dev shim-nic0.10 proto static").matches("10.1.0.").count();
        join("box");
        let said = lab.plumb("shim nic0.10 --ip 10.9.9.9/32 --probe 0").ok().out;
        assert_eq!(said, "nic0.10: shim-nic0.10 10.9.9.9/32 (macvlan bridge)\n  this host reaches 10.1.0.2/32\n");
        join("peer");
        assert_eq!(routes(), 2);
        lab.plumb("delete-vlan blue --force").ok();
        assert_eq!(routes(), 0);
        // The last that hangs on the device takes it along.
        lab.plumb("shim rm nic0.10").ok();
        assert!(!lab.ip("host", "link").contains("nic0.10"));
        // Nobody is cut off by a network that his address is in.
        lab.plumb("create-vlan wide --subnet 192.168.9.0/24 -i nic0 --id 11").ok();
        sh(&format!(
            "ip -n {0} addr add 192.168.9.2/24 dev nic0; ip -n {0} route add default via 192.168.9.1",
            lab.full("host")
        ));
        let before = lab.state();
        lab.plumb("shim --network wide")
            .refused(
                4,
                "route 192.168.9.0/24 covers 192.168.9.1, this host's own router: the shim would cut the host off",
            )
            .hints("plumb shim nic0.11 --ip ADDR/32 leads to each container alone");
        lab.state().is(&before);
    });
}
