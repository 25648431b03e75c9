//! pipework's lines with a real container, as scripts have them.

use std::path::PathBuf;

use crate::{
    dhcp::DNSMASQ,
    docker::{Container, docker, engine},
    lab::{Lab, Ran, sh, wait_for},
    parity::{Place, all_hold, cases},
};

/// A container, a DHCP server on the LAN, and a bridge of Open vSwitch's.
fn place(web: &Container) -> Place {
    let pid: u32 = docker(&format!("inspect -f {{{{.State.Pid}}}} {}", web.0)).parse().unwrap();
    let mut place = Place::on(Lab::new(), web.0.clone(), PathBuf::from(format!("/proc/{pid}/ns/net")));
    (place.pid, place.engine) = (Some(pid), Some(engine()));
    let folder = place.lab.folder().join("dhcp");
    std::fs::create_dir(&folder).unwrap();
    place.lab.server("lan", &(DNSMASQ.prepare)(&folder));
    wait_for("the DHCP server", || place.lab.log("lan").contains(DNSMASQ.listens));
    place.lab.open_vswitch("--disable-system");
    let bridge = "ovs-vsctl --timeout=20 add-br ovs0 -- set bridge ovs0 datapath_type=netdev \
                  other-config:hwaddr=02:00:00:00:00:13";
    Ran::of(place.lab.on_host("sh").args(["-ec", bridge])).ok();
    place
}

#[test]
fn each_line_does_what_pipeworks_did() {
    let web = Container::sleeping("");
    all_hold(&place(&web), false);
}

#[test]
fn forty_lines_and_more_are_held_to_what_they_did() {
    assert!(cases().iter().map(|case| case.old.len()).sum::<usize>() >= 40);
}

/// What an interface inside has without an address, which waits for one in vain.
#[test]
fn waiting_ends_with_an_address_or_three_seconds_after_carrier() {
    let lab = Lab::new();
    let pipework = lab.folder().join("pipework");
    std::os::unix::fs::symlink(crate::lab::PLUMB, &pipework).unwrap();
    let wait = |interface: &str| {
        Ran::of(lab.program("box", pipework.to_str().unwrap()).args(["--wait", "-i", interface])).ok().out
    };
    assert_eq!(wait("eth0"), "eth0 is ready with 172.17.0.2/16, fd17::2/64\n");
    lab.flat("--name lan --ip none").ok();
    let began = std::time::Instant::now();
    assert_eq!(wait("lan"), "lan is ready without an address\n");
    assert!(began.elapsed().as_secs() < 10, "{:?}", began.elapsed());
}

/// A container whose start is slower than the script that made it.
#[test]
fn a_container_that_starts_is_waited_for() {
    let lab = Lab::new();
    let web = Container::sleeping("--restart no");
    docker(&format!("stop -t 0 {}", web.0));
    let mut script = lab.command(&format!("pipework --docker {} nic0 {} 192.168.9.100/24", engine(), web.0));
    let script = script.stdout(std::process::Stdio::piped()).spawn().unwrap();
    docker(&format!("start {}", web.0));
    Ran::from(script.wait_with_output().unwrap()).ok();
    sh(&format!("docker -H {} exec {} /bin/ip addr show eth1", engine(), web.0));
}
