//! `plumb detach` gives back what was there, however things stand.

use crate::lab::{ALSO_FREE, FREE, FREE6, Lab, ROUTER, ROUTER6, Ran, kernel_state, sh};

#[test]
fn everything_is_as_before_verbatim() {
    let lab = Lab::new();
    let before = lab.state();
    lab.flat(&format!("--ip {FREE} --ip {FREE6} --gateway {ROUTER} --gateway {ROUTER6} --route 10.0.0.0/8")).ok();
    assert!(lab.state() != before);
    let ran = lab.plumb(&format!("detach {}", lab.netns("box"))).ok();
    assert_eq!(ran.out, format!("{}: eth1 {FREE} {FREE6} detached\n", lab.netns("box")));
    lab.state().is(&before);
}

#[test]
fn what_is_gone_already_is_no_error() {
    let mut lab = Lab::new();
    let target = lab.netns("box");
    let nothing = format!("{target}: nothing is attached\n");
    assert_eq!(lab.plumb(&format!("detach {target}")).ok().out, nothing);
    lab.flat(&format!("--ip {FREE} --gateway {ROUTER}")).ok();
    assert_eq!(lab.plumb(&format!("detach {target} eth7")).ok().out, format!("{target}: eth7 is not attached\n"));
    // The link by hand: the default route still comes back.
    sh(&format!("ip -n {} link del eth1", lab.full("box")));
    lab.plumb(&format!("detach {target}")).ok();
    assert!(lab.ip("box", "route").starts_with("default via 172.17.0.1 dev eth0"), "{}", lab.ip("box", "route"));
    // The whole target.
    let pid = lab.process("box");
    lab.plumb(&format!("flat pid:{pid} -i nic0 --ip {FREE} --probe 0 --no-check")).ok();
    lab.kill(pid);
    lab.plumb(&format!("detach pid:{pid}")).ok();
    assert_eq!(lab.plumb(&format!("detach pid:{pid}")).ok().out, format!("pid:{pid}: nothing is attached\n"));
    assert_eq!(lab.plumb("detach --all").ok().out, "nothing is attached\n");
}

#[test]
fn a_default_route_that_somebody_changed_is_theirs() {
    let lab = Lab::new();
    lab.flat(&format!("--ip {FREE} --gateway {ROUTER}")).ok();
    sh(&format!("ip -n {} route replace default via 172.17.0.9 dev eth0", lab.full("box")));
    lab.plumb("detach --all").ok();
    assert_eq!(lab.ip("box", "route show default").trim(), "default via 172.17.0.9 dev eth0");
}

#[test]
fn a_link_that_took_over_the_name_is_not_touched() {
    let lab = Lab::new();
    let full = lab.full("box");
    lab.flat(&format!("--ip {FREE}")).ok();
    sh(&format!("ip -n {full} link del eth1; ip -n {full} link add eth1 type veth peer name other"));
    lab.plumb("detach --all").ok();
    assert!(lab.ip("box", "link").contains("eth1@other"));
}

#[test]
fn a_renamed_link_is_found_by_its_tag() {
    let lab = Lab::new();
    let (before, full) = (lab.state(), lab.full("box"));
    lab.flat(&format!("--ip {FREE} --gateway {ROUTER}")).ok();
    sh(&format!("ip -n {full} link set eth1 down; ip -n {full} link set eth1 name lan; ip -n {full} link set lan up"));
    lab.plumb("detach --all").ok();
    lab.state().is(&before);
}

#[test]
fn in_whatever_order_the_first_default_route_comes_back() {
    let lab = Lab::new();
    let (before, target) = (lab.state(), lab.netns("box"));
    for order in
        [["eth1", "eth2", "eth3"], ["eth3", "eth2", "eth1"], ["eth2", "eth1", "eth3"], ["eth2", "eth3", "eth1"]]
    {
        for n in 1..=3 {
            lab.flat(&format!(
                "--ip 192.168.9.{}/24 --gateway 192.168.9.{n} --ip fd09::{n}0/64 --gateway fd09::{n}",
                100 + n
            ))
            .ok();
        }
        for name in order {
            assert_eq!(lab.plumb(&format!("detach {target} {name}")).ok().out.split(' ').nth(1), Some(name));
        }
        lab.state().is(&before);
    }
}

#[test]
fn one_namespace_is_one_target_by_whatever_name() {
    let mut lab = Lab::new();
    let pid = lab.process("box");
    lab.plumb(&format!("flat pid:{pid} -i nic0 --ip {FREE} --probe 0")).ok();
    lab.plumb(&format!("flat {} -i nic0 --ip {FREE} --probe 0", lab.netns("box")))
        .refused(4, &format!("{} already has 192.168.9.100 on eth1", lab.netns("box")));
    let ran = lab.plumb(&format!("detach {}", lab.netns("box"))).ok();
    assert_eq!(ran.out, format!("pid:{pid}: eth1 {FREE} detached\n"));
}

#[test]
fn a_dry_run_prints_what_detach_does() {
    let lab = Lab::new();
    let before = lab.state();
    lab.flat(&format!("--ip {FREE} --gateway {ROUTER}")).ok();
    let attached = lab.state();
    let ran = lab.plumb("detach --all --dry-run").ok();
    lab.state().is(&attached);
    lab.on_host("true").status().unwrap();
    let mut shell = lab.on_host("sh");
    Ran::of(shell.args(["-ec", &ran.out])).ok();
    std::fs::remove_dir_all(lab.store()).unwrap();
    lab.state().is(&before);
}

#[test]
fn a_dry_run_of_several_prints_what_they_do_together() {
    let lab = Lab::new();
    let before = lab.ip("box", "route");
    for n in 1..=3 {
        lab.flat(&format!("--ip 192.168.9.{}/24 --gateway 192.168.9.{n}", 100 + n)).ok();
    }
    let ran = lab.plumb("detach --all --dry-run").ok();
    let mut shell = lab.on_host("sh");
    Ran::of(shell.args(["-ec", &ran.out])).ok();
    assert_eq!(lab.ip("box", "route"), before, "{}", ran.out);
}

#[test]
fn a_namespace_attached_under_two_names_gets_its_route_back() {
    let mut lab = Lab::new();
    let (before, pid) = (lab.state(), lab.process("box"));
    for order in [["netns", "pid"], ["pid", "netns"]] {
        lab.flat(&format!("--ip {FREE} --gateway {ROUTER}")).ok();
        lab.plumb(&format!("flat pid:{pid} -i nic0 --ip 192.168.9.101/24 --gateway 192.168.9.2 --probe 0 --no-check"))
            .ok();
        for name in order {
            let target = if name == "pid" { format!("pid:{pid}") } else { lab.netns("box") };
            assert!(lab.plumb(&format!("detach {target}")).ok().out.starts_with(&format!("{target}: eth")));
        }
        lab.state().is(&before);
    }
    lab.flat(&format!("--ip {FREE} --gateway {ROUTER}")).ok();
    lab.plumb(&format!("flat pid:{pid} -i nic0 --ip 192.168.9.101/24 --gateway 192.168.9.2 --probe 0 --no-check")).ok();
    lab.plumb("detach --all").ok();
    lab.state().is(&before);
}

#[test]
fn waiting_for_a_lock_ends_at_ctrl_c() {
    let lab = Lab::new();
    lab.flat(&format!("--ip {FREE}")).ok();
    let held = std::fs::File::open(lab.path("box")).unwrap();
    held.lock().unwrap();
    for arguments in ["detach --all".to_owned(), format!("flat {} -i nic0 --ip none", lab.netns("box"))] {
        let child = lab
            .command(&arguments)
            .stderr(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        std::thread::sleep(std::time::Duration::from_millis(300));
        sh(&format!("kill -INT {}", child.id()));
        let start = std::time::Instant::now();
        let ran = Ran::from(child.wait_with_output().unwrap());
        assert!(ran.code == 130 && start.elapsed() < std::time::Duration::from_secs(2), "{ran:#?}");
    }
    drop(held);
    assert!(lab.ip("box", "addr").contains(FREE));
}

#[test]
fn show_marks_what_differs_and_ls_says_how_it_stands() {
    let lab = Lab::new();
    let (target, full) = (lab.netns("box"), lab.full("box"));
    lab.flat(&format!("--ip {FREE} --gateway {ROUTER}")).ok();
    let shown = || lab.plumb(&format!("--json show {target}")).ok().json()["attachments"][0].clone();
    assert_eq!((shown()["as_recorded"].as_bool(), shown()["state"].as_str()), (Some(true), Some("up")));
    assert!(!lab.plumb(&format!("show {target}")).ok().out.contains('≠'));
    sh(&format!(
        "ip -n {full} link set eth1 mtu 1300; ip -n {full} addr add 192.168.9.7/24 dev eth1
         ip -n {full} route replace default via 172.17.0.1 dev eth0"
    ));
    let differs: Vec<String> = shown()["properties"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|p| p["differs"] == true)
        .map(|p| format!("{} {} {}", p["name"], p["recorded"], p["now"]))
        .collect();
    assert_eq!(
        differs,
        [
            r#""mtu" "1500" "1300""#,
            r#""address" null "192.168.9.7/24""#,
            r#""route" "default by eth1 (192.168.9.1)" "default by eth0 (172.17.0.1)""#
        ]
    );
    assert_eq!(lab.plumb(&format!("show {target}")).ok().out.matches('≠').count(), 3);
    let state = || lab.plumb("--json ls").ok().json()["attachments"][0]["state"].as_str().unwrap().to_owned();
    assert_eq!(state(), "up");
    sh(&format!("ip -n {full} link set eth1 down"));
    assert_eq!(state(), "down");
    sh(&format!("ip -n {full} link del eth1"));
    assert_eq!(state(), "missing");
    lab.plumb(&format!("show netns:{full}x")).refused(3, &format!("there is no namespace /run/netns/{full}x"));
}

/// Runs what was printed. An `ip` from before 6.3 knows no segments of IPv4's own: they follow the others.
fn by_hand(lab: &Lab, commands: &str) {
    println!("{commands}");
    let knows_them = Ran::of(lab.on_host("ip").args(["link", "help"])).err.contains("gso_ipv4_max_size");
    let words = |line: &str| line.split(" gso_ipv4_max_size").next().unwrap_or_default().to_owned();
    let older: Vec<String> = commands.lines().map(words).collect();
    let script = if knows_them { commands.to_owned() } else { older.join("\n") };
    Ran::of(lab.on_host("sh").args(["-ec", &script])).ok();
}

/// The printed commands take back what plumb does on the host too, and what was set since.
#[test]
fn a_dry_run_prints_all_that_is_done() {
    let lab = Lab::new();
    lab.plumb("shim nic0 --ip 192.168.9.9 --probe 0").ok();
    let before = kernel_state(&lab);
    let target = lab.netns("box");
    lab.flat(&format!("--ip {FREE} --gateway {ROUTER} --big-tcp")).ok();
    lab.plumb(&format!("qos {target} eth1 --rate 10mbit")).ok();
    let down = format!("link {target} set eth1 mtu 1400 down");
    assert!(lab.killed(&down, "rename", 2), "it is half-done");
    let commands = lab.plumb(&format!("detach {target} --dry-run")).ok().out;
    by_hand(&lab, &commands);
    kernel_state(&lab).is(&before);
    assert!(commands.contains("ip route del 192.168.9.100"), "{commands}");
    assert!(commands.contains("ip link set dev nic0 gso_max_size 65536"), "{commands}");
    lab.plumb("detach --all").ok();
}

#[test]
fn a_dry_run_gives_the_segments_back_as_those_who_raised_them_do() {
    let mut lab = Lab::new();
    lab.target("peer");
    let before = kernel_state(&lab);
    lab.flat(&format!("--ip {FREE} --big-tcp=100000")).ok();
    let peer = lab.netns("peer");
    lab.plumb(&format!("flat {peer} -i nic0 --ip {ALSO_FREE} --keep-default --probe 0 --no-check --big-tcp=200000"))
        .ok();
    let of_one = lab.plumb(&format!("detach {} --dry-run", lab.netns("box"))).ok().out;
    assert!(!of_one.contains("gso_max_size"), "peer has raised them further: {of_one}");
    let commands = lab.plumb("detach --all --dry-run").ok().out;
    by_hand(&lab, &commands);
    kernel_state(&lab).is(&before);
    lab.plumb("detach --all").ok();
}

/// Each leaves the next what it found, while the next one goes as well.
#[test]
fn all_who_raised_the_segments_go_at_once() {
    const TARGETS: [&str; 6] = ["box", "second", "third", "fourth", "fifth", "sixth"];
    let mut lab = Lab::new();
    TARGETS[1..].iter().for_each(|name| lab.target(name));
    let before = kernel_state(&lab);
    for round in 0..5 {
        for (at, name) in TARGETS.iter().enumerate() {
            let (target, size) = (lab.netns(name), 100_000 + 10_000 * at);
            let arguments = format!("flat {target} -i nic0 --ip none --name eth1 --big-tcp={size}");
            lab.plumb(&arguments).ok();
        }
        println!("round {round}: {:?}", lab.plumb("detach --all").ok());
        kernel_state(&lab).is(&before);
    }
}
