//! Interfaces that move: VLAN devices, bonds, and a radio, which the kernel brings back by itself.

use std::process::Command;

use crate::{
    boot::in_guest,
    lab::{FREE, Lab, PLUMB, Ran, output, sh, wait_for, words},
};

#[test]
fn a_dummy_has_an_address_and_leads_nowhere() {
    in_guest(|| {
        let lab = Lab::new();
        let (target, before) = (lab.netns("box"), lab.state());
        let arguments = format!("flat {target} --driver dummy --ip {FREE} --ip 10.7.7.7/32 --mtu 9000");
        let dry = lab.plumb(&format!("{arguments} --dry-run")).ok().out;
        let said = lab.plumb(&arguments).ok();
        assert_eq!(said.out, format!("{target}: eth1 {FREE}, 10.7.7.7/32 (dummy)\n"));
        assert!(lab.pings("box", "192.168.9.100"));
        let look = || (lab.json("box", "-d link show dev eth1"), lab.json("box", "-4 addr show dev eth1"));
        let by_plumb = look();
        let shown = lab.plumb(&format!("show {target} --json")).ok().json();
        assert_eq!(shown["attachments"][0]["as_recorded"], true, "{shown:#}");
        assert!(lab.plumb("ls").ok().out.lines().any(|line| line.ends_with("-        -       dummy   up")));
        // Another one may have the same: they are in nobody's way.
        lab.plumb(&format!("flat {target} --driver dummy --ip 10.7.7.8/32")).ok();
        lab.plumb("detach --all").ok();
        lab.state().is(&before);
        Ran::of(lab.on_host("sh").args(["-ec", &dry])).ok();
        let without_tag = |mut seen: (serde_json::Value, serde_json::Value)| {
            for link in [&mut seen.0[0], &mut seen.1[0]] {
                link.as_object_mut().unwrap().remove("altnames");
            }
            seen
        };
        assert_eq!(without_tag(look()), without_tag(by_plumb), "{dry}");
    });
}

#[test]
fn a_vlan_device_moves_and_what_it_hangs_on_stays() {
    in_guest(|| {
        let mut lab = Lab::new();
        let (host, lan, target) = (lab.full("host"), lab.full("lan"), lab.netns("box"));
        sh(&format!(
            "ip -n {host} link add link nic0 name nic0.10 type vlan id 10; ip -n {host} link set nic0.10 up
             ip -n {host} addr add 10.1.0.2/24 dev nic0.10
             ip -n {lan} link add link lan0 name lan0.10 type vlan id 10; ip -n {lan} link set lan0.10 up
             ip -n {lan} addr add 10.1.0.1/24 dev lan0.10
             ip -n {host} link add bond0 type bond"
        ));
        let before = lab.state().steady();
        let phys = |target: &str, arguments: &str| {
            lab.plumb(&format!("flat {target} --driver phys --probe 0 --no-check {arguments}"))
        };
        phys(&target, "-i nic0 --ip none").refused(4, "nic0 cannot leave the host: nic0.10 would be cut off");
        let kept = "cannot leave the host: the kernel keeps interfaces of its kind where they are; nothing was changed";
        phys(&target, "-i bond0 --ip none").refused(1, &format!("bond0 {kept}"));
        lab.state().steady().is(&before);
        phys(&target, "-i nic0.10 --ip 10.1.0.100/24").ok();
        assert!(lab.pings("box", "10.1.0.1"));
        lab.plumb("detach --all").ok();
        lab.state().steady().is(&before);
        assert!(lab.pings("host", "10.1.0.1"));

        // One that plumb makes for it goes again with it.
        let made = |arguments: &str| phys(&target, &format!("-i nic0 --vlan 20 --ip 10.2.0.100/24 {arguments}"));
        sh(&format!("ip -n {host} link del nic0.10"));
        let bare = lab.state().steady();
        assert!(made("--dry-run").ok().out.contains("ip link set dev nic0.20 netns "));
        lab.state().steady().is(&bare);
        made("").ok();
        assert!(lab.ip("box", "-d link show dev eth1").contains("vlan protocol 802.1Q id 20"));
        lab.plumb("detach --all").ok();
        lab.state().steady().is(&bare);
        sh(&format!("ip -n {host} link add link nic0 name nic0.10 type vlan id 10"));

        lab.namespace("brief");
        let brief = lab.netns("brief");
        lab.plumb(&format!("flat {brief} --driver phys -i nic0.10 --ip none")).ok();
        sh(&format!("ip netns del {}", lab.full("brief")));
        let said = lab.plumb(&format!("detach {brief}")).ok().err;
        assert!(said.contains("nic0.10 has gone with") && said.contains("deletes a vlan with its"), "{said}");
        lab.namespace("brief");
    });
}

/// As a run leaves them that was killed. Kernels before 6.2 take no name for what is up, not even its own, and none
/// moves a bond to where it is.
#[test]
fn what_is_at_home_already_is_asked_for_nothing_that_is_so() {
    in_guest(|| {
        let lab = Lab::new();
        let (host, target) = (lab.full("host"), lab.netns("box"));
        sh(&format!("ip -n {host} addr add 192.168.9.2/24 dev nic0; ip -n {host} route add 10.7.0.0/16 dev nic0"));
        // Whatever number it has: the kernel keeps none on this way.
        let seen = || {
            let link =
                ["-4 addr show dev nic0", "route show dev nic0", "link show dev nic0"].map(|what| lab.ip("host", what));
            link.map(|text| text.split_once(": ").map_or(text.clone(), |(_, rest)| rest.to_owned()))
        };
        let before = seen();
        // At the giving back: it is named, up, and has nothing yet. Or the kernel brought it.
        for name in ["nic0", "eth1"] {
            lab.plumb(&format!("flat {target} -i nic0 --driver phys --probe 0 --no-check --ip none")).ok();
            sh(&format!(
                "ip -n {0} link set eth1 down; ip -n {0} link set eth1 netns {host} name {name}
                 ip -n {host} link set {name} up",
                lab.full("box")
            ));
            let said = lab.plumb("gc").ok().out;
            assert!(said.contains("nic0 put back as it was"), "{said}");
            lab.plumb("detach --all").ok();
            assert_eq!(seen(), before);
        }
        sh(&format!("ip -n {host} link add bond0 type bond; ip -n {host} link set bond0 up"));
        let attach = format!("flat {target} -i bond0 --driver phys --probe 0 --no-check --ip none");
        // Before it asks the kernel to move it.
        let mut sent = 1..;
        while !lab.ip("host", "link show dev bond0").contains("altname") {
            assert!(lab.killed(&attach, "sendto", sent.next().unwrap()));
        }
        lab.plumb("gc").ok();
        assert!(!lab.ip("host", "link show dev bond0").contains("altname"));
        assert_eq!(lab.plumb("gc").ok().out, "nothing was left behind\n");
    });
}

/// A radio is hardware to the kernel, simulated as it is: it does not end with a namespace.
#[test]
fn wifi_moves_by_its_radio_and_comes_back_even_from_a_namespace_that_ended() {
    in_guest(|| {
        sh("modprobe mac80211_hwsim radios=1");
        // Radios are the first namespace's.
        let mut lab = Lab::new();
        lab.namespace("brief");
        let plumb = |arguments: &str| {
            let mut plumb = Command::new(PLUMB);
            plumb.args(words(arguments)).env("PLUMB_STORE", lab.store()).env("PLUMB_CONFIG", "/dev/null");
            Ran::of(&mut plumb)
        };
        let wlan = || output("ip link show wlan0 >/dev/null && ip -4 addr show dev wlan0 && ip route show dev wlan0");
        // Whatever number it has.
        let seen = |text: String| text.split_once(": ").unwrap().1.to_owned();
        wait_for("the radio", || std::path::Path::new("/sys/class/net/wlan0").exists());
        sh("ip link set wlan0 up; ip addr add 192.168.77.2/24 dev wlan0; ip route add 10.77.0.0/16 via 192.168.77.1");
        let before = seen(wlan());
        let there = |name: &str| output(&format!("ip -n {} -br addr show dev eth1", lab.full(name)));
        for name in ["box", "brief"] {
            let target = lab.netns(name);
            let said = plumb(&format!("flat {target} -i wlan0 --driver phys --ip {FREE} --probe 0 --no-check")).ok();
            assert_eq!(said.out, format!("{target}: eth1 {FREE} on wlan0 (phys)\n"));
            assert!(said.err.contains("wlan0 leaves its access point"), "{said:#?}");
            assert!(there(name).contains("192.168.9.100/24"));
            assert!(!output("ip -br link").contains("wlan0"));
            if name == "box" {
                plumb(&format!("detach {target}")).ok();
            } else {
                sh(&format!("ip netns del {}", lab.full(name)));
                wait_for("the radio", || output("ip -br link").contains("eth1"));
                let said = plumb("gc --dry-run").ok().out.replace("would be done: ", "");
                assert_eq!(said, plumb("gc").ok().out);
            }
            assert_eq!(seen(wlan()), before, "from {name}");
        }
        assert!(!output("ip link show wlan0").contains("altname"));
        lab.namespace("brief");
        sh("modprobe -r mac80211_hwsim");
    });
}
