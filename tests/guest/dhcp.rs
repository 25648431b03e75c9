//! Leases where the kernel makes them harder: by ipvlan, whose links share a MAC address, and in a VLAN.

use std::{fs, time::Duration};

use serde_json::Value;

use crate::{
    boot::in_guest,
    lab::{Lab, Ran, sh, wait_for},
};

/// ISC dhcpd with leases of so many seconds on an interface of the LAN.
fn serve(lab: &mut Lab, interface: &str, network: &str, seconds: u32) {
    let path = lab.folder().display().to_string();
    fs::write(format!("{path}/dhcpd.leases"), "").unwrap();
    fs::write(
        format!("{path}/dhcpd.conf"),
        format!(
            "authoritative; ping-check false; default-lease-time {seconds}; max-lease-time {seconds};
             subnet {network}.0 netmask 255.255.255.0 {{ range {network}.50 {network}.60; option routers {network}.1; }}"
        ),
    )
    .unwrap();
    lab.server("lan", &format!("dhcpd -4 -f -d --no-pid -cf {path}/dhcpd.conf -lf {path}/dhcpd.leases {interface}"));
    wait_for("the server", || lab.log("lan").contains("Server starting service"));
}

fn dhcp(lab: &Lab, target: &str, arguments: &str) -> Ran {
    lab.plumb(&format!("dhcp {} --no-check --timeout 30s {arguments}", lab.netns(target)))
}

fn address(lab: &Lab, target: &str) -> String {
    let link = lab.json(target, "-4 addr show dev eth1");
    link[0]["addr_info"][0]["local"].as_str().unwrap().to_owned()
}

#[test]
fn ipvlans_of_one_parent_have_leases_of_their_own_and_keep_them() {
    in_guest(|| {
        let mut lab = Lab::new();
        lab.target("peer");
        serve(&mut lab, "lan0", "192.168.9", 16);
        let before = lab.state();
        for target in ["box", "peer"] {
            dhcp(&lab, target, "-i nic0 --driver ipvlan").ok();
        }
        let addresses = [address(&lab, "box"), address(&lab, "peer")];
        assert_ne!(addresses[0], addresses[1]);
        assert!(lab.pings("box", "192.168.9.1") && lab.pings("peer", &addresses[0]));
        // Longer than the leases last.
        std::thread::sleep(Duration::from_secs(20));
        assert_eq!([address(&lab, "box"), address(&lab, "peer")], addresses);
        for lease in lab.plumb("leases --json").ok().json()["leases"].as_array().unwrap() {
            assert_eq!(lease["problem"], Value::Null, "{lease}");
        }
        lab.plumb("detach --all").ok();
        lab.state().is(&before);
        dhcp(&lab, "box", "-i nic0 --driver ipvlan --mode l3")
            .refused(2, "mode l3 takes no broadcasts, and DHCP lives by them")
            .hints("use --mode l2");
    });
}

#[test]
fn in_a_network_the_server_of_its_vlan_answers() {
    in_guest(|| {
        let mut lab = Lab::new();
        let lan = lab.full("lan");
        sh(&format!(
            "ip -n {lan} link add link lan0 name lan0.10 type vlan id 10
             ip -n {lan} addr add 10.1.0.1/24 dev lan0.10
             ip -n {lan} link set lan0.10 up"
        ));
        serve(&mut lab, "lan0.10", "10.1.0", 600);
        lab.plumb("create-vlan blue --subnet 10.1.0.0/24 -i nic0 --id 10").ok();
        let before = lab.state();
        let said = dhcp(&lab, "box", "--network blue").ok();
        assert!(said.out.contains(" in blue on nic0.10 (macvlan bridge)\n"), "{said:?}");
        assert!(address(&lab, "box").starts_with("10.1.0.5") && lab.pings("box", "10.1.0.1"));
        // The pool knows that the address is taken.
        lab.plumb("delete-vlan blue").refused(4, &format!("blue is in use by {} (eth1)", lab.netns("box")));
        lab.plumb("detach --all").ok();
        lab.state().is(&before);
        // In a VLAN of no network as well.
        lab.plumb("delete-vlan blue").ok();
        let before = lab.state();
        let said = dhcp(&lab, "box", "-i nic0 --vlan 10").ok();
        assert!(said.out.contains(" on nic0.10 (macvlan bridge)\n") && said.err.is_empty(), "{said:?}");
        assert!(address(&lab, "box").starts_with("10.1.0.5") && lab.pings("box", "10.1.0.1"));
        lab.plumb("detach --all").ok();
        lab.state().is(&before);
    });
}
