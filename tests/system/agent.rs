//! The agent: leases that live as long as their containers, whatever happens to it.

use std::{
    fs,
    net::Ipv4Addr,
    path::PathBuf,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

use crate::{
    dhcp::{KEA, Lan, Server},
    lab::{Ran, sh, wait_for},
};

/// Kea with leases of four seconds, renewed after two.
pub const SHORT: Server = Server {
    prepare: |folder| {
        let command = (KEA.prepare)(folder);
        let conf = folder.join("conf");
        let text = fs::read_to_string(&conf).unwrap();
        fs::write(conf, text.replace("\"valid-lifetime\": 1200", "\"valid-lifetime\": 4")).unwrap();
        command
    },
    ..KEA
};

fn dhcp(lan: &Lan, target: &str, arguments: &str) -> Ran {
    lan.lab.plumb(&format!("dhcp {target} -i nic0 --probe 0 --no-check {arguments}"))
}

fn leases(lan: &Lan) -> Value {
    lan.lab.plumb("leases --json").ok().json()["leases"].clone()
}

/// The address that the target's interface has.
fn address(lan: &Lan, name: &str) -> Option<Ipv4Addr> {
    let text = lan.lab.ip(name, "-4 -o addr show dev eth1");
    let mut found = text.lines().map(|line| line.split_whitespace().nth(3).unwrap());
    let one = found.next()?.split('/').next().unwrap().parse().unwrap();
    assert_eq!(found.next(), None, "{text}");
    Some(one)
}

/// The agent's process, which need not be there.
pub fn agent(lan: &Lan) -> Option<u32> {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let store = lan.lab.store_address.clone().unwrap_or_else(|| lan.lab.store().display().to_string());
    let is_it = |path: &PathBuf| {
        let arguments = fs::read(path.join("cmdline")).unwrap_or_default();
        let environment = fs::read(path.join("environ")).unwrap_or_default();
        let words: Vec<&[u8]> = arguments.split(|byte| *byte == 0).collect();
        let has = |text: String| environment.split(|byte| *byte == 0).any(|word| word == text.as_bytes());
        words.get(1) == Some(&&b"agent"[..]) && has(format!("PLUMB_STORE={store}"))
    };
    let found = processes.map(|entry| entry.path()).find(is_it)?;
    found.file_name().unwrap().to_string_lossy().parse().ok()
}

fn kill_agent(lan: &Lan) {
    let pid = agent(lan).expect("an agent");
    kill(Pid::from_raw(pid as i32), Signal::SIGKILL).unwrap();
    wait_for("the agent to end", || agent(lan) != Some(pid));
}

/// Kea's own count of how often it confirmed a lease.
fn confirmed(lan: &Lan) -> usize {
    let leases = fs::read_to_string(lan.lab.folder().join("dhcp/leases.csv")).unwrap_or_default();
    leases.lines().count()
}

fn agent_ends(lan: &Lan) {
    wait_for("the agent to end", || agent(lan).is_none());
}

#[test]
fn a_lease_outlives_its_time_its_agent_and_goes_with_the_container() {
    let mut lan = Lan::bare(SHORT);
    lan.lab.target("other");
    let pid = lan.lab.process("other");
    let (first, second) = (lan.lab.netns("box"), format!("pid:{pid}"));
    dhcp(&lan, &first, "").ok();
    dhcp(&lan, &second, "").ok();
    let addresses = (address(&lan, "box"), address(&lan, "other"));
    assert!(addresses.0.is_some() && addresses.1.is_some() && addresses.0 != addresses.1);
    let before = confirmed(&lan);

    // Twice the lease's time, in which the agent is killed twice.
    for _ in 0..2 {
        std::thread::sleep(Duration::from_millis(2500));
        kill_agent(&lan);
        Ran::of(&mut lan.lab.command("agent")).ok();
    }
    std::thread::sleep(Duration::from_millis(3000));
    assert!(confirmed(&lan) >= before + 4, "{before} {}", confirmed(&lan));
    assert_eq!((address(&lan, "box"), address(&lan, "other")), addresses);
    for lease in leases(&lan).as_array().unwrap() {
        assert_eq!((lease["problem"].clone(), lease["server"].as_str()), (Value::Null, Some("192.168.9.1")), "{lease}");
        assert!(lease["state"] == "bound" || lease["state"] == "renewing", "{lease}");
    }

    // A process that ends, and a namespace.
    lan.lab.kill(pid);
    let state = |lan: &Lan, target: &str| {
        let all = leases(lan);
        all.as_array().unwrap().iter().find(|lease| lease["target"] == target).map(|lease| lease["state"].clone())
    };
    // The namespace has a name as well, so it is still there.
    sh(&format!("ip netns del {}", lan.lab.full("other")));
    wait_for("the end of a lease", || state(&lan, &second) == Some("released".into()));
    sh(&format!("ip netns del {}", lan.lab.full("box")));
    wait_for("the end of the other", || state(&lan, &first) == Some("released".into()));
    agent_ends(&lan);
    let kept = fs::read_to_string(lan.lab.folder().join("dhcp/leases.csv")).unwrap();
    let last = kept.lines().last().unwrap().to_owned();
    assert_eq!(last.split(',').nth(3), Some("0"), "Kea writes a lease that was given back with no time: {last}");
}

/// The same with this for all of its pool.
pub fn only(address: &str) -> impl Fn(&Lan) + '_ {
    move |lan| {
        let conf = lan.lab.folder().join("dhcp/conf");
        let text = fs::read_to_string(&conf).unwrap();
        let (before, rest) = text.split_once("\"pool\": \"").unwrap();
        let (_, after) = rest.split_once('"').unwrap();
        fs::write(&conf, format!("{before}\"pool\": \"{address} - {address}\"{after}")).unwrap();
        let _ = fs::remove_file(lan.lab.folder().join("dhcp/leases.csv"));
    }
}

#[test]
fn what_the_server_changes_its_mind_about_changes_in_the_container() {
    let mut lan = Lan::bare(SHORT);
    let before = lan.lab.state();
    let target = lan.lab.netns("box");
    dhcp(&lan, &target, "").ok();
    let first = address(&lan, "box").unwrap();
    let route = |lan: &Lan| lan.lab.ip("box", "route show default");
    assert!(route(&lan).contains("via 192.168.9.1 dev eth1"), "{}", route(&lan));

    // Another process of the server with another mind: it refuses, and offers something else.
    lan.server_ends();
    only("192.168.9.70")(&lan);
    lan.server_starts();
    wait_for("the new address", || address_now(&lan) == Some(Ipv4Addr::new(192, 168, 9, 70)));
    assert_ne!(first, Ipv4Addr::new(192, 168, 9, 70));
    wait_for("the routes", || route(&lan).contains("via 192.168.9.1 dev eth1"));
    assert!(lan.lab.pings("box", "192.168.9.1"));
    wait_for("the record", || leases(&lan)[0]["address"] == "192.168.9.70/24");
    assert!(lan.lab.plumb(&format!("show {target} --json")).ok().json()["attachments"][0]["as_recorded"] == true);

    // Nobody renews it: the address goes, and what was there before is back.
    lan.server_ends();
    wait_for("the lease to run out", || address_now(&lan).is_none());
    wait_for("the old route", || route(&lan).contains("via 172.17.0.1 dev eth0"));
    wait_for("the record", || leases(&lan)[0]["state"] == "lost");
    assert!(leases(&lan)[0]["problem"].as_str().is_some_and(|problem| problem.starts_with("no server renewed")));

    // The agent has been asking all the time.
    lan.server_starts();
    wait_for("an address", || address_now(&lan).is_some());
    wait_for("the route", || route(&lan).contains("via 192.168.9.1 dev eth1"));
    wait_for("the record", || leases(&lan)[0]["state"] == "bound");

    let begun = Instant::now();
    lan.lab.plumb("detach --all").ok();
    // It waits for no answer to its release: that would take seconds.
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    lan.lab.state().is(&before);
    agent_ends(&lan);
    assert_eq!(lan.lab.plumb("leases").ok().out, "nothing is leased\n");
}

#[test]
fn a_shim_leads_to_the_address_that_the_lease_has_now() {
    let mut lan = Lan::bare(SHORT);
    let target = lan.lab.netns("box");
    lan.lab.plumb("shim nic0 --ip 192.168.9.254/32 --probe 0").ok();
    let routes = |lan: &Lan| {
        let text = lan.lab.ip("host", "route show dev shim-nic0 proto static");
        text.lines().map(|line| line.trim().replace(" scope link", "")).collect::<Vec<_>>()
    };
    dhcp(&lan, &target, "").ok();
    assert_eq!(routes(&lan), [address(&lan, "box").unwrap().to_string()]);
    lan.server_ends();
    only("192.168.9.70")(&lan);
    lan.server_starts();
    wait_for("the new address", || address_now(&lan) == Some(Ipv4Addr::new(192, 168, 9, 70)));
    wait_for("the route to it", || routes(&lan) == ["192.168.9.70"]);
    lan.server_ends();
    wait_for("the lease to run out", || address_now(&lan).is_none());
    wait_for("the route to go", || routes(&lan).is_empty());
    lan.lab.plumb("detach --all").ok();
    agent_ends(&lan);
}

/// As `address`, while it changes.
fn address_now(lan: &Lan) -> Option<Ipv4Addr> {
    let text = lan.lab.ip("box", "-4 -o addr show dev eth1");
    let mut found = text.lines().map(|line| line.split_whitespace().nth(3).unwrap());
    let one = found.next()?.split('/').next().unwrap().parse().unwrap();
    found.next().is_none().then_some(one)
}

#[test]
fn there_is_one_agent_and_one_that_stays_takes_over() {
    let lan = Lan::bare(SHORT);
    assert_eq!(Ran::of(&mut lan.lab.command("agent")).ok().out, "there is nothing for an agent to do\n");
    let target = lan.lab.netns("box");
    dhcp(&lan, &target, "").ok();
    let pid = agent(&lan).unwrap();
    assert_eq!(Ran::of(&mut lan.lab.command("agent")).ok().out, format!("the agent runs, as process {pid}\n"));

    let mut staying = lan.lab.command("agent --foreground").stderr(std::process::Stdio::null()).spawn().unwrap();
    // Who holds the post signs the lock.
    let signed = |path: PathBuf| fs::read_to_string(path).is_ok_and(|text| text.trim() == staying.id().to_string());
    let holds = || fs::read_dir("/run/plumb").unwrap().flatten().any(|entry| signed(entry.path()));
    wait_for("the first to make way", holds);
    assert_eq!(
        lan.lab
            .plumb("agent --foreground")
            .refused(4, &format!("an agent runs already, process {}", staying.id()))
            .code,
        4
    );
    std::thread::sleep(Duration::from_millis(4500));
    assert_eq!(leases(&lan)[0]["problem"], Value::Null);
    lan.lab.plumb("detach --all").ok();
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(staying.try_wait().unwrap(), None, "it stays without anything to do");
    kill(Pid::from_raw(staying.id() as i32), Signal::SIGTERM).unwrap();
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&staying.wait().unwrap()), Some(15));
}

#[test]
fn an_interface_that_somebody_deletes_ends_its_lease() {
    let lan = Lan::bare(SHORT);
    dhcp(&lan, &lan.lab.netns("box"), "").ok();
    sh(&format!("ip -n {} link del eth1", lan.lab.full("box")));
    wait_for("the end of the lease", || leases(&lan)[0]["state"] == "released");
    assert_eq!(leases(&lan)[0]["problem"], "eth1 has gone");
    agent_ends(&lan);
}

#[test]
fn a_container_that_ends_while_a_server_is_waited_for_is_named() {
    let mut lan = Lan::bare(SHORT);
    lan.server_ends();
    lan.lab.target("brief");
    let pid = lan.lab.process("brief");
    let running = lan
        .lab
        .command(&format!("dhcp pid:{pid} -i nic0 --timeout 2s"))
        .stderr(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    std::thread::sleep(Duration::from_millis(300));
    lan.lab.kill(pid);
    let ran = Ran::from(running.wait_with_output().unwrap());
    ran.refused(1, &format!("pid:{pid} ended while it was being attached; nothing was changed"));
    let store = lan.lab.store();
    assert_eq!(crate::lab::files(&store), [""; 0], "{}", store.display());
}

#[test]
fn an_address_that_nobody_renews_goes_when_its_time_is_over() {
    let lan = Lan::bare(SHORT);
    let before = lan.lab.state();
    dhcp(&lan, &lan.lab.netns("box"), "--no-renew").ok();
    assert_eq!(agent(&lan), None);
    assert!(address_now(&lan).is_some());
    wait_for("the end", || address_now(&lan).is_none());
    assert_eq!(leases(&lan)[0]["state"], "expired");
    lan.lab.plumb("detach --all").ok();
    lan.lab.state().is(&before);

    // The same where the agent was killed for good; the next one asks again.
    dhcp(&lan, &lan.lab.netns("box"), "").ok();
    kill_agent(&lan);
    wait_for("the end", || address_now(&lan).is_none());
    Ran::of(&mut lan.lab.command("agent")).ok();
    wait_for("another lease", || address_now(&lan).is_some());
    wait_for("the record", || leases(&lan)[0]["state"] == "bound");
    assert!(lan.lab.ip("box", "route show default").contains("dev eth1"));
    lan.lab.plumb("detach --all").ok();
    lan.lab.state().is(&before);
}
