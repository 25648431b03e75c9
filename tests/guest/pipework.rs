//! pipework's lines that need VLANs, dummies and netem.

use crate::{
    boot::in_guest,
    lab::{Lab, sh},
    parity::{Place, all_hold},
};

#[test]
fn each_line_does_what_pipeworks_did() {
    in_guest(|| {
        let lab = Lab::new();
        let (target, inside) = (lab.netns("box"), lab.path("box"));
        let place = Place::on(lab, target, inside);
        let host = place.lab.full("host");
        sh(&format!(
            "ip -n {host} -batch - <<END
link add brv address 02:00:00:00:00:14 type bridge vlan_filtering 1
link set brv up
link add nic0.20 type dummy
link add dummy9 address 02:00:00:00:00:15 type dummy
link set dummy9 up
END"
        ));
        all_hold(&place, true);
    });
}
