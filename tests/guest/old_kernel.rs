//! What kernels before 6.15 do otherwise: the name of a link that is made for another namespace must
//! be free on the host too.

use crate::{
    boot::in_guest,
    lab::{FREE, Lab, sh},
};

#[test]
fn an_interface_of_the_host_may_have_the_name_that_is_given_inside() {
    in_guest(|| {
        for driver in ["macvlan", "ipvlan"] {
            let lab = Lab::new();
            sh(&format!("ip -n {} link add eth1 type dummy", lab.full("host")));
            let before = lab.state();
            let made = lab.flat(&format!("--ip {FREE} --driver {driver} --json")).ok().json();
            assert_eq!(made["interface"], "eth1");
            assert!(lab.ip("box", "-br link show dev eth1").contains(",UP,"), "renamed, and up again");
            assert!(lab.pings("box", crate::lab::ROUTER));
            lab.plumb(&format!("detach {}", lab.netns("box"))).ok();
            lab.state().is(&before);
        }
    });
}
