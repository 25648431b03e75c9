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
