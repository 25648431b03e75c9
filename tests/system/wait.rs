//! `plumb wait`: the kernel's word that an interface can be used.

use std::{
    fs,
    io::Write,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{
    docker::{Container, docker, engine, plumb},
    lab::{ALSO_FREE, FREE, Lab, PLUMB, Ran, sh, wait_for, words},
    speed::within_tries,
};

/// A target with `eth1`, whose other end `cable` is in another namespace: pulled out, and without an address.
fn lab() -> Lab {
    let mut lab = Lab::new();
    lab.namespace("switch");
    let (target, switch) = (lab.full("box"), lab.full("switch"));
    sh(&format!(
        "ip -n {target} link add eth1 type veth peer name cable netns {switch}
         ip -n {target} link set eth1 addrgenmode none
         ip -n {target} link set eth1 up"
    ));
    lab
}

/// `plumb wait ARGUMENTS` inside the target, as a container's own: with no capability, store or engine.
fn inside(lab: &Lab, arguments: &str) -> Command {
    let mut command = lab.program("box", "setpriv");
    command.args(["--bounding-set", "-all", "--inh-caps", "-all", PLUMB, "wait"]).args(words(arguments));
    command.env_clear().env("PLUMB_STORE", "/nowhere/store").env("DOCKER_HOST", "unix:///nowhere/docker.sock");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Started, and asleep by now.
fn asleep(mut command: Command) -> Child {
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    wait_for("plumb to wait", || is_asleep(&child));
    child
}

/// Whether it is in ppoll(2) with nothing but events to wake it: the first thing that the kernel tells of a
/// blocked process is the number of its system call.
fn is_asleep(child: &Child) -> bool {
    let call = fs::read_to_string(format!("/proc/{}/syscall", child.id())).unwrap_or_default();
    let is_plumb = fs::read_to_string(format!("/proc/{}/comm", child.id())).is_ok_and(|name| name.trim() == "plumb");
    is_plumb && call.split(' ').next() == Some(&nix::libc::SYS_ppoll.to_string())
}

fn ended(child: Child) -> Ran {
    Ran::from(child.wait_with_output().unwrap())
}

#[test]
fn inside_a_container_it_takes_no_permission_and_ends_with_the_last_thing_that_was_missing() {
    let lab = lab();
    lab.ip("box", "link set eth1 down");
    let now = |message: &str, hint: &str| {
        Ran::from(inside(&lab, "--timeout 0").output().unwrap()).refused(7, message).hints(hint);
    };
    now("eth1 is down", "ip link set eth1 up");
    let waiting = asleep(inside(&lab, ""));
    lab.ip("box", "link set eth1 up");
    now("eth1 has no carrier", "is the cable plugged in, and what it hangs on up?");
    lab.ip("switch", "link set cable up");
    now("eth1 has no address", "on the host plumb flat, dhcp or attach gives it one");
    lab.ip("box", "addr add fd09::7/64 dev eth1");
    now("eth1: the kernel still asks the LAN whether fd09::7 is free", "that takes it a second or two");
    assert!(is_asleep(&waiting));
    lab.ip("box", "addr add 192.168.9.7/24 dev eth1");
    assert_eq!(ended(waiting).ok().out, "eth1 is ready with 192.168.9.7/24\n");
    // And at once, where there is nothing to wait for.
    let ran = Ran::from(inside(&lab, "-i eth1 --json").output().unwrap()).ok().json();
    assert_eq!((&ran["target"], &ran["interface"]), (&serde_json::Value::Null, &"eth1".into()));
    assert_eq!(ran["addresses"][0], "192.168.9.7/24");
    assert_eq!(Ran::from(inside(&lab, "-q").output().unwrap()).ok().out, "");
}

#[test]
fn an_ipv6_address_counts_when_the_lan_was_asked_for_it_and_not_if_it_is_taken() {
    let lab = lab();
    sh(&format!("ip -n {} link set cable up", lab.full("switch")));
    lab.ip("switch", "addr add fd09::7/64 dev cable nodad");
    lab.ip("box", "addr add fd09::7/64 dev eth1");
    wait_for("the conflict", || lab.ip("box", "addr show dev eth1").contains("dadfailed"));
    let in_vain = Ran::from(inside(&lab, "--timeout 10ms").output().unwrap());
    in_vain.refused(7, "eth1: another host has fd09::7, after waiting 10ms").hints("give it another address");
    let waiting = asleep(inside(&lab, ""));
    lab.ip("box", "addr add fd09::8/64 dev eth1");
    assert_eq!(ended(waiting).ok().out, "eth1 is ready with fd09::8/64\n");
    assert!(!lab.ip("box", "addr show dev eth1").contains("fd09::8/64 scope global tentative"));
}

#[test]
fn of_a_target_it_is_waited_for_from_outside_until_plumb_has_attached_it() {
    let lab = Lab::new();
    let target = lab.netns("box");
    let waiting = asleep(lab.command(&format!("wait {target} -v")));
    lab.flat("--ip 192.168.9.100/24").ok();
    let ran = ended(waiting).ok();
    assert_eq!(ran.out, format!("{target}: eth1 is ready with 192.168.9.100/24\n"));
    assert!(ran.err.starts_with(&format!("waiting: eth1 of {target} is not there\n")), "{ran:#?}");
    let document = lab.plumb(&format!("wait {target} --json")).ok().json();
    assert_eq!(document["target"], target);
    // The command that helps is for the target's interface, not for the host's.
    for (interface, unrecorded) in [("eth1", ""), ("eth0", " --unrecorded")] {
        lab.ip("box", &format!("link set {interface} down"));
        let ran = lab.plumb(&format!("wait {target} -i {interface} --timeout 0"));
        let hint = format!("plumb link {target} set {interface} up{unrecorded}");
        ran.refused(7, &format!("{interface} of {target} is down")).hints(&hint);
        lab.plumb(hint.strip_prefix("plumb ").unwrap()).ok();
        assert!(lab.ip("box", &format!("link show {interface}")).contains(",UP"));
    }
}

#[test]
fn with_a_timeout_the_start_of_a_container_is_waited_for() {
    let lab = Lab::new();
    let late = Container::sleeping("--net none");
    docker(&format!("stop -t 0 {}", late.0));
    let wait = |timeout: &str| format!("wait {} -i lo {timeout} --docker {}", late.0, engine());
    let start = format!("docker start {}\n", late.0);
    let ran = lab.plumb(&wait(""));
    assert!(ran.code == 3 && ran.err.ends_with(&start), "{ran:#?}");
    let mut waiting = lab.command(&wait("--timeout 20s"));
    let waiting = waiting.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    docker(&format!("start {}", late.0));
    assert_eq!(ended(waiting).ok().out, format!("{}: lo is ready with 127.0.0.1/8\n", late.0));
}

#[test]
fn a_target_that_ends_ends_the_waiting() {
    let mut lab = Lab::new();
    lab.namespace("brief");
    let pid = lab.process("brief");
    let by_name = asleep(lab.command(&format!("wait {}", lab.netns("brief"))));
    let by_process = asleep(lab.command(&format!("wait pid:{pid}")));
    // Another one of its name is not the one that is waited for.
    sh(&format!("ip netns del {0}; ip netns add {0}", lab.full("brief")));
    ended(by_name).refused(3, &format!("eth1 of {} never was ready: the target has ended", lab.netns("brief")));
    assert!(is_asleep(&by_process), "the process keeps it");
    lab.kill(pid);
    ended(by_process).refused(3, &format!("eth1 of pid:{pid} never was ready: the target has ended"));
}

#[test]
fn a_signal_ends_it_and_so_does_the_time() {
    let lab = lab();
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let waiting = asleep(inside(&lab, "-i eth7"));
        kill(Pid::from_raw(waiting.id().cast_signed()), signal).unwrap();
        ended(waiting).refused(130, "interrupted");
    }
    let begun = Instant::now();
    Ran::from(inside(&lab, "-i eth7 --timeout 150ms").output().unwrap())
        .refused(7, "eth7 is not there, after waiting 150ms")
        .hints("there is lo, up0, eth0, eth1; -i names what to wait for");
    let took = begun.elapsed();
    assert!(took >= Duration::from_millis(150) && took < Duration::from_secs(5), "{took:?}");
}

#[test]
fn what_cannot_be_waited_for_is_refused() {
    let lab = Lab::new();
    lab.plumb("wait netns:nowhere").refused(3, "there is no namespace /run/netns/nowhere");
    lab.plumb("wait pid:4194305").refused(3, "there is no process 4194305");
    lab.plumb(&format!("wait {}", lab.netns("host")))
        .refused(1, &format!("{} is in the host's own network namespace", lab.netns("host")));
    let usage = |arguments: &str, message: &str| {
        let ran = lab.plumb(arguments);
        assert!(ran.code == 2 && ran.err.starts_with(&format!("error: {message}")), "{ran:#?}");
    };
    usage("wait --timeout 5", "invalid value '5' for '--timeout <DURATION>': \"5\" has no unit");
    usage("wait -i a234567890123456", "invalid value 'a234567890123456' for '--interface <IFNAME>'");
    usage("wait we/b", "invalid value 'we/b' for '[TARGET]'");
}

/// Events of which the kernel keeps no record for a listener that does not listen are no loss.
#[test]
fn a_flood_of_events_drowns_nothing() {
    let lab = lab();
    sh(&format!("ip -n {} link set cable up", lab.full("switch")));
    let waiting = asleep(inside(&lab, ""));
    let pid = Pid::from_raw(waiting.id().cast_signed());
    kill(pid, Signal::SIGSTOP).unwrap();
    let flood: String = (0..4000).map(|at| format!("addr add 10.{}.{}.1/32 dev up0\n", at / 250, at % 250)).collect();
    batch(&lab, "box").stdin.take().unwrap().write_all(flood.as_bytes()).unwrap();
    wait_for("the flood", || lab.ip("box", "-4 -o addr show dev up0").lines().count() == 4000);
    lab.ip("box", "addr add 192.168.9.7/24 dev eth1");
    kill(pid, Signal::SIGCONT).unwrap();
    assert_eq!(ended(waiting).ok().out, "eth1 is ready with 192.168.9.7/24\n");
}

/// `ip` in the namespace, ready to do what it reads.
pub fn batch(lab: &Lab, name: &str) -> Child {
    let mut ip = Command::new("ip");
    ip.args(["-n", &lab.full(name), "-batch", "-"]).stdin(Stdio::piped()).spawn().unwrap()
}

#[test]
fn while_it_waits_it_takes_no_processor_time_at_all() {
    let lab = lab();
    let waiting = asleep(inside(&lab, "--timeout 60s"));
    let pid = waiting.id();
    // utime and stime, in ticks; and how often it slept and was woken again.
    let used = || {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let switches = status.lines().filter(|line| line.contains("ctxt_switches"));
        let number = |text: &str| text.trim().parse::<u64>().unwrap();
        let switches: u64 = switches.map(|line| number(line.split_once(':').unwrap().1)).sum();
        (number(fields[11]) + number(fields[12]), switches)
    };
    let (ticks_before, switches_before) = used();
    std::thread::sleep(Duration::from_secs(2));
    let (ticks, switches) = used();
    println!("in 2 s of waiting: {} ticks, woken {} times", ticks - ticks_before, switches - switches_before);
    assert_eq!(ticks, ticks_before);
    // The kernel may have had something to tell; a poll every 50 ms would be 40 times.
    assert!(switches - switches_before <= 4);
    let mut waiting = waiting;
    waiting.kill().unwrap();
    waiting.wait().unwrap();
}

#[test]
fn it_reacts_within_5_ms_of_carrier() {
    let lab = lab();
    lab.ip("box", "addr add 192.168.9.7/24 dev eth1");
    let react = || {
        lab.ip("switch", "link set cable down");
        wait_for("the carrier to go", || !lab.ip("box", "link show dev eth1").contains("LOWER_UP"));
        let mut cable = batch(&lab, "switch");
        let mut waiting = asleep(inside(&lab, ""));
        let mut plug = cable.stdin.take().unwrap();
        // ip's own time, from reading a line to the change, is counted in.
        let begun = Instant::now();
        plug.write_all(b"link set cable up\n").unwrap();
        assert!(waiting.wait().unwrap().success());
        let took = begun.elapsed();
        drop(plug);
        assert!(cable.wait().unwrap().success());
        took
    };
    within_tries("from the change to the end of the process", || {
        let mut took: Vec<Duration> = (0..25).map(|_| react()).collect();
        took.sort();
        let (median, worst) = (took[took.len() / 2], took[took.len() - 1]);
        // The bar is the median's; on a busy machine one of them may have to wait for its turn.
        let holds = median <= Duration::from_millis(5) && worst <= Duration::from_millis(50);
        (holds, format!("median {median:?}, worst {worst:?} of {}", took.len()))
    });
}

#[test]
fn a_container_without_any_rights_waits_for_what_it_is_given() {
    let lab = Lab::new();
    let script = lab.folder().join("start");
    fs::write(&script, "/plumb wait && exec sleep 1d").unwrap();
    let rights = "--net none --user 1000 --cap-drop ALL --read-only";
    let inside =
        Container::run(&format!("{rights} -v {PLUMB}:/plumb:ro -v {}:/start:ro", script.display()), "/bin/sh /start");
    plumb(&lab, &format!("flat {} -i nic0 --ip {FREE} --probe 0 --no-check", inside.0)).ok();
    let said = || docker(&format!("logs {}", inside.0));
    wait_for("the container to go on", || said() == format!("eth1 is ready with {FREE}"));
    // On the host it is waited for by its name, and no longer than it lives.
    let other = Container::sleeping("--net none");
    let outside =
        |interface: &str| asleep(lab.command(&format!("wait {} -i {interface} --docker {}", other.0, engine())));
    let (ready, in_vain) = (outside("eth1"), outside("eth2"));
    plumb(&lab, &format!("flat {} -i nic0 --ip {ALSO_FREE} --probe 0 --no-check", other.0)).ok();
    assert_eq!(ended(ready).ok().out, format!("{}: eth1 is ready with {ALSO_FREE}\n", other.0));
    docker(&format!("rm -f {}", other.0));
    ended(in_vain).refused(3, &format!("eth2 of {} never was ready: the target has ended", other.0));
}

/// `ip netns add` makes the file first, and then mounts the namespace on it.
#[test]
fn a_namespace_that_is_being_made_is_waited_for() {
    let lab = Lab::new();
    let (late, target) = (format!("/run/netns/{}", lab.full("late")), lab.netns("late"));
    fs::write(&late, "").unwrap();
    lab.plumb(&format!("flat {target} -i nic0 --ip {FREE}"))
        .refused(3, &format!("no namespace is mounted on {late} yet: it is an empty file"))
        .hints("ip netns del deletes it, if nobody is at work on it; ip netns add then makes the namespace");
    let start = |arguments: &str| {
        let mut plumb = lab.command(arguments);
        plumb.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let flat = start(&format!("flat {target} -i nic0 --ip {FREE} --wait 20s --probe 0 --no-check"));
    let wait = start(&format!("wait {target} --timeout 20s"));
    std::thread::sleep(Duration::from_millis(300));
    sh(&format!("unshare --net={late} true"));
    ended(flat).ok();
    assert_eq!(ended(wait).ok().out, format!("{target}: eth1 is ready with {FREE}\n"));
    lab.plumb("detach --all").ok();
    sh(&format!("ip netns del {}", lab.full("late")));
}

#[test]
fn what_plumb_has_renamed_is_known_by_either_name() {
    let lab = Lab::new();
    let target = lab.netns("box");
    lab.flat(&format!("--ip {FREE}")).ok();
    lab.plumb(&format!("link {target} set eth1 name lan0")).ok();
    lab.plumb(&format!("qos {target} eth1 --rate 10mbit")).ok();
    for name in ["", "-i eth1", "-i lan0"] {
        let said = lab.plumb(&format!("wait {target} {name} --timeout 5s")).ok().out;
        assert_eq!(said, format!("{target}: lan0 is ready with {FREE}\n"));
    }
    assert_eq!(lab.plumb(&format!("wait {target} -i eth7 --timeout 0")).code, 7);
    let said = lab.plumb(&format!("qos clear {target} eth1")).ok().out;
    assert_eq!(said, format!("{target}: lan0 is not limited any more\n"));
    let said = lab.plumb(&format!("qos clear {target} eth1")).ok().out;
    assert_eq!(said, format!("{target}: eth1 has no limits\n"));
}
