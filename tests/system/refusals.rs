//! Bad input: each has its text and its code, and nothing is changed.

use crate::lab::{FREE, Lab, ROUTER, Ran, sh};

/// Runs `plumb flat box …` and holds text, code and the whole state against what is expected.
#[track_caller]
fn refused(lab: &Lab, arguments: &str, code: i32, message: &str) -> Ran {
    let before = lab.state();
    let ran = lab.flat(arguments).refused(code, message);
    lab.state().is(&before);
    ran
}

#[test]
fn targets_that_are_not_there() {
    let lab = Lab::new();
    let near = format!("{}x", lab.full("box"));
    let ran = lab.plumb(&format!("flat netns:{near} -i nic0 --ip {FREE}"));
    ran.refused(3, &format!("there is no namespace /run/netns/{near}"))
        .hints(&format!("did you mean {}?", lab.netns("box")));
    lab.plumb(&format!("flat pid:4194305 -i nic0 --ip {FREE}")).refused(3, "there is no process 4194305");
    lab.plumb(&format!("flat netns:/etc/hostname -i nic0 --ip {FREE}"))
        .refused(1, "/etc/hostname is not a network namespace");
    lab.plumb(&format!("flat netns:/proc/self/ns/uts -i nic0 --ip {FREE}"))
        .refused(1, "/proc/self/ns/uts is not a network namespace");
    lab.plumb(&format!("flat {} -i nic0 --ip {FREE}", lab.netns("host")))
        .refused(1, &format!("{} is in the host's own network namespace", lab.netns("host")));
}

#[test]
fn parents_that_cannot_be() {
    let mut lab = Lab::new();
    let host = lab.full("host");
    lab.plumb(&format!("flat {} -i nci0 --ip {FREE}", lab.netns("box")))
        .refused(3, "the host has no interface nci0")
        .hints("did you mean nic0? the host has nic0");
    lab.plumb(&format!("flat {} -i lo --ip {FREE}", lab.netns("box")))
        .refused(1, "lo is the loopback interface: nothing behind it to connect to");
    sh(&format!(
        "ip -n {host} link add br0 type bridge; ip -n {host} link add port0 type veth peer name port1; ip -n {host} link set port0 master br0"
    ));
    lab.plumb(&format!("flat {} -i port0 --ip {FREE}", lab.netns("box")))
        .refused(4, "port0 is a port of br0, so no macvlan can be put on it")
        .hints("use -i br0");
    lab.namespace("tun");
    sh(&format!("ip -n {host} tuntap add tun0 mode tun"));
    lab.plumb(&format!("flat {} -i tun0 --ip {FREE}", lab.netns("box")))
        .refused(1, "tun0 is not an Ethernet interface, so it cannot carry a macvlan");
}

#[test]
fn what_the_container_has_already() {
    let lab = Lab::new();
    let target = lab.netns("box");
    refused(&lab, &format!("--ip {FREE} --name eth0"), 4, &format!("{target} already has an interface eth0"))
        .hints("choose another with --name (it has lo, up0, eth0), or leave --name out");
    refused(&lab, "--ip 172.17.0.2/16", 4, &format!("{target} already has 172.17.0.2 on eth0"));
    refused(
        &lab,
        &format!("--ip {FREE} --route 172.17.0.0/16"),
        4,
        &format!("{target} already has a route to 172.17.0.0/16, by eth0"),
    )
    .hints("give this one a metric of its own: --route 172.17.0.0/16,metric 100");
    lab.flat(&format!("--ip {FREE}")).ok();
    refused(&lab, &format!("--ip {FREE}"), 4, &format!("{target} already has 192.168.9.100 on eth1"));
}

#[test]
fn sizes_and_mac_addresses_that_the_parent_cannot_bear() {
    let lab = Lab::new();
    refused(&lab, &format!("--ip {FREE} --mtu 1501"), 1, "MTU 1501 is above that of nic0, which is 1500");
    let own = lab.json("host", "link show nic0")[0]["address"].as_str().unwrap().to_owned();
    refused(&lab, &format!("--ip {FREE} --mac {own}"), 4, &format!("MAC {own} is that of nic0 itself"));
}

#[test]
fn a_mac_address_in_use_is_named_with_its_owner_after_a_while() {
    let mut lab = Lab::new();
    lab.target("peer");
    lab.flat("--ip none --mac 02:00:00:00:09:01").ok();
    let before = lab.state();
    let start = std::time::Instant::now();
    let ran = lab.plumb(&format!("flat {} -i nic0 --ip none --mac 02:00:00:00:09:01", lab.netns("peer")));
    ran.refused(
        4,
        &format!("MAC 02:00:00:00:09:01 is in use on nic0 already, eth1 of {}; nothing was changed", lab.netns("box")),
    );
    assert!(
        start.elapsed() >= std::time::Duration::from_secs(1),
        "a restarted container's address frees itself within a second"
    );
    lab.state().is(&before);
}

#[test]
fn a_mac_address_that_frees_itself_is_waited_for() {
    let mut lab = Lab::new();
    lab.target("peer");
    lab.flat("--ip none --mac 02:00:00:00:09:02").ok();
    let (full, target) = (lab.full("box"), lab.netns("peer"));
    let ran = std::thread::scope(|scope| {
        scope.spawn(move || {
            std::thread::sleep(std::time::Duration::from_millis(300));
            sh(&format!("ip -n {full} link del eth1"));
        });
        lab.plumb(&format!("flat {target} -i nic0 --ip none --mac 02:00:00:00:09:02"))
    });
    ran.ok();
}

#[test]
fn addresses_that_are_given_already() {
    let mut lab = Lab::new();
    lab.target("peer");
    sh(&format!("ip -n {} addr add 192.168.9.50/24 dev nic0", lab.full("host")));
    refused(&lab, "--ip 192.168.9.50/24", 4, "192.168.9.50 is this host's own address");
    lab.plumb(&format!("flat {} -i nic0 --ip {FREE}", lab.netns("peer"))).ok();
    lab.flat(&format!("--ip {FREE} --dry-run"))
        .refused(4, &format!("192.168.9.100 is given to {} (eth1) on nic0 already", lab.netns("peer")));
    refused(
        &lab,
        &format!("--ip {FREE}"),
        4,
        &format!("192.168.9.100 is given to {} (eth1) on nic0 already", lab.netns("peer")),
    )
    .hints(&format!("choose another, or free it: plumb detach {} eth1", lab.netns("peer")));
}

#[test]
fn a_kernel_without_ipv6_inside() {
    let lab = Lab::new();
    // A namespace whose settings for new interfaces cannot be seen has none as far as plumb can tell.
    let before = lab.state();
    let mut command = lab.on_host("unshare");
    command.args(["-m", "sh", "-c"]).arg(format!(
        "mount -t tmpfs none /proc/sys/net && exec {} flat {} -i nic0 --ip fd09::9/64 --probe 0",
        crate::lab::PLUMB,
        lab.netns("box")
    ));
    Ran::of(&mut command).refused(1, &format!("{} has no IPv6: its kernel was started without it", lab.netns("box")));
    lab.state().is(&before);
}

#[test]
fn a_store_that_cannot_be_written() {
    let lab = Lab::new();
    let before = lab.state();
    let ran = lab.plumb(&format!("flat {} -i nic0 --ip {FREE} --probe 0 --store /proc/plumb", lab.netns("box")));
    assert_eq!(ran.code, 1, "{ran:#?}");
    assert!(ran.err.starts_with("plumb: cannot open the store /proc/plumb: "), "{ran:#?}");
    lab.state().is(&before);
}

#[test]
fn a_record_that_is_damaged_is_never_taken_for_none() {
    let lab = Lab::new();
    lab.flat(&format!("--ip {FREE}")).ok();
    let name = format!("{}@eth1.json", lab.netns("box"));
    let path = lab.store().join("flat").join(name);
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, &text[..text.len() / 2]).unwrap();
    let damaged = format!("the record {} is damaged: ", path.display());
    let told = |ran: &Ran| assert!(ran.err.contains(&damaged), "{ran:#?}");
    lab.flat("--ip 192.168.9.101/24").ok();
    let ls = lab.plumb("ls").ok();
    told(&ls);
    assert!(ls.out.contains("192.168.9.101/24"), "{ls:#?}");
    let detach = lab.plumb(&format!("detach {}", lab.netns("box")));
    told(&detach);
    assert_eq!(detach.code, 1);
    let gc = lab.plumb("gc");
    told(&gc);
    assert_eq!(gc.code, 1);
    assert!(lab.ip("box", "link").contains("eth1@"), "gc must not take a link whose record is damaged");
    std::fs::remove_file(&path).unwrap();
    lab.plumb("gc").ok();
    assert!(!lab.ip("box", "link").contains("eth1@"));
}

#[test]
fn an_interrupted_run_takes_everything_back() {
    let lab = Lab::new();
    let before = lab.state();
    for signal in ["INT", "TERM"] {
        let child = lab
            .command(&format!("flat {} -i nic0 --ip {FREE} --gateway {ROUTER} --probe 5s", lab.netns("box")))
            .stderr(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        crate::lab::wait_for("the link", || lab.ip("box", "link").contains("eth1@"));
        sh(&format!("kill -{signal} {}", child.id()));
        Ran::from(child.wait_with_output().unwrap()).refused(130, "interrupted; nothing was changed");
        lab.state().is(&before);
    }
}

#[test]
fn a_target_that_dies_half_way_is_an_error() {
    let mut lab = Lab::new();
    let pid = lab.process("box");
    let child = lab
        .command(&format!("flat pid:{pid} -i nic0 --ip {FREE} --probe 1s"))
        .stderr(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    crate::lab::wait_for("the link", || lab.ip("box", "link").contains("eth1@"));
    let before = {
        lab.kill(pid);
        lab.ip("box", "link show eth0")
    };
    Ran::from(child.wait_with_output().unwrap())
        .refused(1, &format!("pid:{pid} ended while it was being attached; nothing was changed"));
    assert_eq!(lab.ip("box", "link show eth0"), before);
    assert!(!lab.ip("box", "link").contains("eth1@"));
}

/// Of ipvlan, which many kernels are built without. Where this one has it, it works.
#[test]
fn a_kernel_without_the_driver_is_told_from_one_that_refuses() {
    let lab = Lab::new();
    let has = std::process::Command::new("ip")
        .args(["-n", &lab.full("host"), "link", "add", "link", "nic0", "name", "sample", "type", "ipvlan"])
        .status()
        .unwrap()
        .success();
    if has {
        sh(&format!("ip -n {} link del sample", lab.full("host")));
        lab.flat(&format!("--ip {FREE} --driver ipvlan")).ok();
        return;
    }
    let reason = "this kernel has no ipvlan";
    refused(&lab, &format!("--ip {FREE} --driver ipvlan"), 1, &format!("{reason}; nothing was changed"))
        .hints("modprobe ipvlan loads it, if the kernel has it as a module");
}
