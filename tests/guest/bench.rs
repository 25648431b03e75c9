//! The ways to connect containers that need a kernel with VLANs and ipvlan, measured.

use crate::{boot::in_guest, lab::Lab};

#[test]
fn ways_by_vlan_and_by_ipvlan_are_measured_and_leave_a_real_parent_as_it_was() {
    in_guest(|| {
        let lab = Lab::new();
        let before = lab.state();
        let ways = ["macvlan", "macvlan-vlan", "ipvlan-l2", "ipvlan-l3", "ipvlan-l3s"];
        // On one interface macvlan and ipvlan exclude one another, and so do ipvlan's modes.
        for parent in ["", " --parent nic0"] {
            let typed = format!("bench --ways {} --tests TCP_RR --rounds 2 --duration 100ms --json", ways.join(","));
            let document = lab.plumb(&(typed + parent)).ok().json();
            let figures = document["figures"].as_array().unwrap();
            let measured: Vec<&str> = figures.iter().map(|figure| figure["way"].as_str().unwrap()).collect();
            assert_eq!(measured, ways);
            assert!(figures.iter().all(|figure| figure["median"].as_f64().unwrap() > 0.0), "{document:#}");
        }
        lab.state().is(&before);
    });
}

#[test]
fn a_kernel_before_6_3_has_no_larger_segments_and_says_so() {
    in_guest(|| {
        let lab = Lab::new();
        let before = lab.state();
        let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
        let refused = lab.flat("--ip none --big-tcp");
        if release.starts_with("6.1.") {
            refused
                .refused(1, "this kernel has no IPv4 segments above 64 KiB: they came with Linux 6.3")
                .hints("leave --big-tcp out, or use a newer kernel");
            lab.state().is(&before);
        } else {
            refused.ok();
        }
    });
}
