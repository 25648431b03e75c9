//! `--dry-run` is honest: the commands it prints do exactly what plumb does.

use crate::lab::{FREE, FREE6, ROUTER, ROUTER6, honest};

#[test]
fn for_a_plain_address() {
    honest(&format!("--ip {FREE} --gateway {ROUTER}"));
}

#[test]
fn for_everything_together() {
    honest(&format!(
        "--ip {FREE} --ip {FREE6} --ip 192.168.9.3/32 --gateway {ROUTER} --gateway {ROUTER6} --mode private --mtu 1400 --name lan0 \
         --mac 02:00:00:00:09:09 --route '10.0.0.0/8,via {ROUTER},metric 7' --route fd99::/48"
    ));
}

#[test]
fn for_an_interface_that_moves() {
    honest(&format!("--driver phys --ip {FREE} --gateway {ROUTER} --mtu 1400 --mac 02:00:00:00:09:09 --name lan0"));
}

#[test]
fn for_metrics_modes_and_off_link_gateways() {
    honest(&format!("--ip {FREE} --gateway {ROUTER} --metric 200 --mode vepa"));
    honest("--ip 10.7.7.7/32 --gateway 192.168.9.1 --off-link-gateway --mode source --source-mac 02:00:00:00:09:01");
    honest("--ip none --mode passthru");
}
