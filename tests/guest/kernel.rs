//! The guest itself: what the other tests take for granted.

use crate::{boot::in_guest, lab::sh};

#[test]
fn makes_every_link_that_the_tests_need() {
    in_guest(|| {
        sh("ip link add sample0 type dummy && ip link set sample0 up
            ip link add link sample0 name sample0.10 type vlan id 10
            ip link add link sample0 name sample1 type ipvlan mode l3s && ip link del sample1
            ip link add link sample0 name sample1 type macvlan mode bridge
            ip link add sample2 type vxlan id 7 dstport 4789 dev sample0
            tc qdisc add dev sample0 root netem delay 1ms
            ip link del sample2 && ip link del sample0");
    });
}
