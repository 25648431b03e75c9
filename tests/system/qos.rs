//! Limits on what containers send and receive: set, shown, replaced, taken away, and held to.

use netplumb::{
    error::Error,
    kernel::Netns,
    plan::shaping::{self, Displaced, Limits, RateLimit, Shape},
};

use crate::{
    lab::{FREE, Lab, ROUTER, Ran, at_each, sh},
    refused_steps::{each_refused, refusing},
};

/// A target with a macvlan, eth1, and with `dock0`, whose other end is on the host as Docker would make it.
pub fn shaped_lab() -> Lab {
    let lab = Lab::new();
    dock(&lab, "box");
    lab.flat(&format!("--ip {FREE} --keep-default")).ok();
    lab
}

/// A veth between the host, which has 10.8.0.1, and the target, which has 10.8.0.2.
fn dock(lab: &Lab, target: &str) {
    let (host, inside) = (lab.full("host"), lab.full(target));
    sh(&format!(
        "ip -n {host} link add veth8 type veth peer name dock0 netns {inside}
         ip -n {host} addr add 10.8.0.1/24 dev veth8
         ip -n {host} link set veth8 up
         ip -n {inside} addr add 10.8.0.2/24 dev dock0
         ip -n {inside} link set dock0 up"
    ));
    let settled = || !(lab.ip(target, "-6 addr show") + &lab.ip("host", "-6 addr show")).contains("tentative");
    crate::lab::wait_for("IPv6 to settle", settled);
}

fn qos(lab: &Lab, arguments: &str) -> Ran {
    lab.plumb(&format!("qos {} {arguments}", lab.netns("box")))
}

fn clear(lab: &Lab, arguments: &str) -> Ran {
    lab.plumb(&format!("qos clear {} {arguments}", lab.netns("box")))
}

/// What `tc` says of the queues in a namespace.
fn tc(lab: &Lab, name: &str) -> String {
    crate::lab::output(&format!("tc -n {} qdisc show", lab.full(name)))
}

#[test]
fn a_limit_is_set_shown_and_cleared() {
    let lab = shaped_lab();
    let (target, before) = (lab.netns("box"), lab.state());
    let said = qos(&lab, "eth1 --rate 10mbit --direction both").ok().out;
    assert_eq!(said, format!("{target}: eth1 sends at most 10mbit\n{target}: eth1 receives at most 10mbit\n"));
    assert!(tc(&lab, "box").contains("qdisc tbf 706c: dev eth1 root refcnt 2 rate 10Mbit burst 12500b lat 50ms"));
    assert!(lab.pings("box", ROUTER));
    let shown = lab.plumb("qos show --json").ok().json();
    for (at, direction) in ["egress", "ingress"].into_iter().enumerate() {
        let limit = &shown["limits"][at];
        assert_eq!((&limit["direction"], &limit["interface"]), (&direction.into(), &"eth1".into()));
        assert_eq!((&limit["limit"]["rate"], &limit["state"]), (&"10mbit".into(), &"holds".into()));
        assert_eq!(limit["in_force"]["burst_bytes"], 12_500);
        assert!(limit["counters"]["sent_packets"].as_u64().unwrap() >= 1, "{limit:#}");
    }
    let table = lab.plumb(&format!("qos show {target}")).ok().out;
    assert_eq!(table.lines().count(), 3, "{table}");
    assert!(table.lines().all(|line| !line.ends_with(' ')), "{table}");
    assert_eq!(clear(&lab, "").ok().out, format!("{target}: eth1 is not limited any more\n"));
    assert_eq!(clear(&lab, "").ok().out, format!("{target}: no limits are set\n"));
    assert_eq!(lab.plumb("qos show").ok().out, "no limits are set\n");
    lab.state().is(&before);
}

#[test]
fn without_a_name_every_interface_is_limited_and_one_can_be_cleared() {
    let lab = shaped_lab();
    let target = lab.netns("box");
    let said = qos(&lab, "--rate 5mbit").ok().out;
    for name in ["eth0", "up0", "dock0", "eth1"] {
        assert!(said.contains(&format!("{target}: {name} sends at most 5mbit\n")), "{said}");
    }
    assert_eq!(clear(&lab, "dock0").ok().out, format!("{target}: dock0 is not limited any more\n"));
    assert_eq!(clear(&lab, "dock0").ok().out, format!("{target}: dock0 has no limits\n"));
    assert_eq!(tc(&lab, "box").matches("tbf").count(), 3);
}

#[test]
fn of_a_veth_the_hosts_end_holds_what_comes_in() {
    let lab = shaped_lab();
    let before = lab.state();
    qos(&lab, "dock0 --rate 10mbit --direction ingress").ok();
    assert!(tc(&lab, "host").contains("qdisc tbf 706c: dev veth8 root"), "{}", tc(&lab, "host"));
    assert!(!tc(&lab, "box").contains("tbf"));
    clear(&lab, "").ok();
    lab.state().is(&before);
}

#[test]
fn what_somebody_else_calls_as_plumb_would_is_left_alone() {
    let lab = shaped_lab();
    sh(&format!("ip -n {} link add qos1000001 type ifb", lab.full("box")));
    let before = lab.state();
    qos(&lab, "eth1 --rate 1mbit --direction ingress")
        .refused(4, "there is an interface qos1000001 already, which plumb did not make; nothing was changed")
        .hints("give it another name: ip link set qos1000001 name …");
    clear(&lab, "").ok();
    lab.state().is(&before);
}

#[test]
fn each_of_several_failures_is_told_with_its_hint() {
    let lab = shaped_lab();
    let target = lab.netns("box");
    qos(&lab, "eth0 --rate 1mbit").ok();
    qos(&lab, "eth1 --rate 1mbit").ok();
    let folder = lab.store().join("qos");
    for file in std::fs::read_dir(folder).unwrap() {
        std::fs::write(file.unwrap().path(), "{").unwrap();
    }
    let ran = lab.plumb(&format!("qos show {target}"));
    assert_eq!((ran.code, ran.err.matches("plumb: the record").count()), (1, 2), "{ran:#?}");
    assert_eq!(ran.err.matches("  hint: ").count(), 2, "{ran:#?}");
    let error = lab.plumb(&format!("qos show {target} --json")).json()["error"].clone();
    assert!(error["hint"].is_string() && error["also"][0]["hint"].is_string(), "{error:#}");
}

#[test]
fn another_limit_replaces_the_first_and_leaves_the_other_direction() {
    let lab = shaped_lab();
    let target = lab.netns("box");
    qos(&lab, "eth1 --rate 10mbit --direction both").ok();
    let said = qos(&lab, "eth1 --rate 20mbit --burst 32kb --latency 20ms --peak-rate 1gbit").ok().out;
    assert_eq!(
        said,
        format!(
            "{target}: eth1 sends at most 20mbit (bursts at 1gbit) (before: at most 10mbit)\n{target}: eth1 receives at most 10mbit\n"
        )
    );
    let tc = tc(&lab, "box");
    assert!(tc.contains("rate 20Mbit burst 32Kb peakrate 1Gbit minburst 15"), "{tc}");
    assert!(tc.contains("qdisc tbf 706c: dev qos1000001 root refcnt 2 rate 10Mbit"), "{tc}");
}

#[test]
fn a_rate_of_more_than_32_bits_arrives_whole() {
    let lab = shaped_lab();
    qos(&lab, "eth1 --rate 100gbit").ok();
    assert!(tc(&lab, "box").contains("rate 100Gbit"), "{}", tc(&lab, "box"));
    assert_eq!(lab.plumb("qos show --json").ok().json()["limits"][0]["in_force"]["rate"], "100gbit");
}

#[test]
fn verbose_explains_what_nobody_gave() {
    let lab = shaped_lab();
    let told = qos(&lab, "eth1 --rate 500kbit -v").ok().err;
    assert!(
        told.contains("eth1: burst 3028b: what 500kbit lets through in 10 ms, at least 2 frames of 1514 bytes"),
        "{told}"
    );
    assert!(told.contains("eth1: latency 242 ms: at least 50ms, and 10 frames of 1514 bytes at 500kbit"), "{told}");
}

#[test]
fn bad_wishes_are_refused_and_change_nothing() {
    let lab = shaped_lab();
    let (target, before) = (lab.netns("box"), lab.state());
    let refused = |arguments: &str, code, message: &str, hint: &str| {
        qos(&lab, arguments).refused(code, message).hints(hint);
    };
    refused(
        "eth1 --rate 10mbit --burst 1kb",
        2,
        "--burst 1kb is too small: the largest frame, of MTU 1500, has 1514 bytes",
        "give 1514b at least, or leave it out",
    );
    refused(
        "eth1 --rate 10mbit --latency 0",
        2,
        "--latency 0 would leave no packet time to wait, and the limit would drop them",
        "leave it out for what fits the rate, or give 50ms",
    );
    for (option, said) in [
        ("--rate -1mbit", "\"-1mbit\" is no rate; write one like 500kbit or 10mbit, or in bytes 64kbps"),
        ("--rate 0", "rate 0 would let nothing through; to cut a container off, detach it"),
        ("--rate 1mbit --burst 0", "0 is too small: one byte at least"),
        ("--rate 1mbit --latency -5ms", "\"-5ms\" is no duration; write one like 200ms, 1.5s or 2m"),
        ("--loss -1%", "\"-1%\" is no percentage; write one like 1% or 0.1%"),
    ] {
        let ran = qos(&lab, &format!("eth1 {option}"));
        assert!(ran.code == 2 && ran.err.contains(said), "{ran:#?}");
    }
    refused("eth7 --rate 10mbit", 3, &format!("{target} has no interface eth7"), "it has up0, eth0, dock0, eth1");
    refused(
        "eth1",
        2,
        "which limit? neither a rate nor a bad network is given",
        "--rate 10mbit, or --delay 50ms; plumb qos show lists what is set, plumb qos clear takes it away",
    );
    lab.plumb("qos netns:nowhere-at-all --rate 1mbit").refused(3, "there is no namespace /run/netns/nowhere-at-all");
    lab.plumb("qos host: --rate 1mbit").refused(2, "host: is this host itself; plumb limits containers");
    lab.state().is(&before);
}

/// Where the machine's kernel has netem, the guest's tests say the rest.
#[test]
fn a_kernel_without_netem_is_told_which_module_is_missing() {
    let lab = shaped_lab();
    let before = lab.state();
    let ran = qos(&lab, "eth1 --rate 1mbit --delay 50ms");
    if ran.code != 0 {
        let said = "plumb: this kernel has no sch_netem: no such file or directory: Specified qdisc kind is unknown; nothing was changed";
        assert_eq!(ran.err.lines().next(), Some(said));
        ran.hints("modprobe sch_netem loads it, if the kernel has it as a module");
    } else {
        clear(&lab, "").ok();
    }
    lab.state().is(&before);
}

#[test]
fn a_root_qdisc_of_others_is_respected_and_given_back() {
    let lab = shaped_lab();
    let (target, inside) = (lab.netns("box"), lab.full("box"));
    sh(&format!("tc -n {inside} qdisc add dev eth1 root handle 7: tbf rate 3mbit burst 10kb limit 20kb"));
    let before = lab.state();
    qos(&lab, "eth1 --rate 1mbit")
        .refused(4, &format!("{target}: eth1 has a root qdisc already, tbf 7:, which plumb did not make"))
        .hints("--force replaces it, until plumb qos clear gives it back");
    lab.state().is(&before);
    qos(&lab, "eth1 --rate 1mbit --force").ok();
    qos(&lab, "eth1 --rate 2mbit").ok();
    assert!(tc(&lab, "box").contains("qdisc tbf 706c: dev eth1 root refcnt 2 rate 2Mbit"));
    clear(&lab, "").ok();
    lab.state().is(&before);
}

#[test]
fn on_the_host_and_where_packets_come_in_others_are_respected_as_well() {
    let lab = shaped_lab();
    let (target, inside) = (lab.netns("box"), lab.full("box"));
    sh(&format!(
        "tc -n {} qdisc add dev veth8 root handle 9: pfifo limit 9
         tc -n {inside} qdisc add dev eth1 ingress
         tc -n {inside} filter add dev eth1 ingress pref 9 protocol arp u32 match u32 1 1 flowid 1:1",
        lab.full("host")
    ));
    let before = lab.state();
    qos(&lab, "dock0 --rate 1mbit --direction ingress").refused(
        4,
        &format!("{target}: veth8 on the host has a root qdisc already, pfifo 9:, which plumb did not make"),
    );
    qos(&lab, "eth1 --rate 1mbit --direction ingress")
        .refused(4, &format!("{target}: eth1 has filters for what comes in (ingress ffff:), which plumb did not make"))
        .hints("--force puts plumb's filter behind them");
    lab.state().is(&before);
    qos(&lab, "eth1 --rate 1mbit --direction ingress --force").ok();
    let filters = || crate::lab::output(&format!("tc -n {inside} filter show dev eth1 ingress"));
    assert!(filters().contains("pref 9 ") && filters().contains("pref 28780 "), "{}", filters());
    clear(&lab, "").ok();
    assert!(filters().contains("pref 9 ") && !filters().contains("pref 28780 "), "{}", filters());
    lab.state().is(&before);
}

#[test]
fn with_the_attachment_its_limits_go() {
    let lab = Lab::new();
    let before = lab.state();
    lab.flat(&format!("--ip {FREE} --keep-default")).ok();
    qos(&lab, "eth1 --rate 10mbit --direction both").ok();
    lab.plumb(&format!("detach {}", lab.netns("box"))).ok();
    lab.state().is(&before);
}

#[test]
fn what_somebody_took_away_is_missing_and_set_again_or_cleared() {
    let lab = shaped_lab();
    let inside = lab.full("box");
    let before = lab.state();
    qos(&lab, "eth1 --rate 10mbit --direction both").ok();
    sh(&format!("tc -n {inside} qdisc del dev eth1 root; tc -n {inside} qdisc del dev eth1 ingress"));
    let shown = lab.plumb("qos show --json").ok().json();
    assert_eq!([&shown["limits"][0]["state"], &shown["limits"][1]["state"]], ["missing", "missing"]);
    qos(&lab, "eth1 --rate 10mbit").ok();
    assert_eq!(lab.plumb("qos show --json").ok().json()["limits"][1]["state"], "holds");
    sh(&format!("tc -n {inside} qdisc del dev eth1 root; ip -n {inside} link del qos1000001"));
    clear(&lab, "").ok();
    lab.state().is(&before);
}

#[test]
fn an_interface_with_another_name_keeps_its_limits() {
    let lab = shaped_lab();
    let inside = lab.full("box");
    qos(&lab, "eth1 --rate 10mbit --direction both").ok();
    sh(&format!(
        "ip -n {inside} link set eth1 down; ip -n {inside} link set eth1 name lan7; ip -n {inside} link set lan7 up"
    ));
    assert_eq!(lab.plumb("qos show --json").ok().json()["limits"][1]["state"], "holds");
    clear(&lab, "").ok();
    assert!(!tc(&lab, "box").contains("tbf"), "{}", tc(&lab, "box"));
    assert!(!lab.ip("box", "link").contains("qos"));
}

/// The commands that a dry run prints do exactly what plumb does.
#[test]
fn a_dry_run_is_honest() {
    for (first, then) in [
        ("", "--rate 10mbit --direction both"),
        ("", "eth1 --rate 100gbit --burst 10mb --latency 1ms"),
        ("eth1 --rate 1mbit --direction both", "eth1 --rate 3mbit --peak-rate 30mbit --direction both"),
    ] {
        let lab = shaped_lab();
        let prepare = || {
            if !first.is_empty() {
                qos(&lab, first).ok();
            }
        };
        prepare();
        let before = lab.state();
        let dry = qos(&lab, &format!("{then} --dry-run")).ok();
        lab.state().is(&before);
        qos(&lab, then).ok();
        let kernel = |lab: &Lab| {
            let store = lab.store().display().to_string();
            lab.state()
                .0
                .lines()
                .filter(|line| !line.contains(&store))
                .map(|line| line.to_owned() + "\n")
                .collect::<String>()
        };
        let by_plumb = kernel(&lab);
        let clearing = clear(&lab, "--dry-run").ok().out;
        clear(&lab, "").ok();
        let cleared = kernel(&lab);
        prepare();
        let mut shell = lab.on_host("sh");
        Ran::of(shell.args(["-ec", &dry.out])).ok();
        let same = |now: String, before: &str| crate::lab::State(now).is(&crate::lab::State(before.to_owned()));
        println!("{}", dry.out);
        same(kernel(&lab), &by_plumb);
        // And back again.
        let mut shell = lab.on_host("sh");
        Ran::of(shell.args(["-ec", &clearing])).ok();
        println!("{clearing}");
        same(kernel(&lab), &cleared);
    }
}

fn limit(rate: &str) -> Option<Shape> {
    let limit = RateLimit { rate: rate.parse().unwrap(), burst: None, latency: None, peak: None };
    Some(Shape { limit: Some(limit), impairment: None })
}

/// Sets limits as `each_refused` asks for it.
fn set(lab: &Lab, name: &str, wanted: &Limits, refused: usize) -> (Error, usize) {
    let host = Netns::open(&lab.path("host")).unwrap();
    lab.enter("box", |kernel| {
        let links = kernel.links()?;
        let link = links.iter().find(|link| link.name == name).unwrap();
        let queues = kernel.queues("box", link, &links, &host)?;
        let steps = shaping::plan(wanted, &queues, &Displaced::default(), kernel.tick()?, false)?.steps;
        Ok((refusing(kernel, &steps, refused), steps.len()))
    })
}

#[test]
fn whichever_step_is_refused_the_state_is_as_before() {
    let lab = shaped_lab();
    let wishes = [
        Limits { egress: limit("10mbit"), ingress: limit("1mbit") },
        Limits { egress: limit("20mbit"), ingress: None },
        Limits::default(),
    ];
    // From nothing, and from limits that hold.
    for first in ["", "--rate 3mbit --direction both"] {
        if !first.is_empty() {
            qos(&lab, first).ok();
        }
        for (name, wanted) in ["eth1", "dock0"].into_iter().flat_map(|name| wishes.iter().map(move |w| (name, w))) {
            each_refused(|| lab.state(), |refused| set(&lab, name, wanted, refused));
        }
    }
}

#[test]
fn setting_killed_anywhere_is_taken_back_or_set() {
    let lab = shaped_lab();
    let before = lab.state();
    let arguments = format!("qos {} --rate 10mbit --direction both", lab.netns("box"));
    let mut taken_back = 0;
    let kills = at_each(&["sendto", "rename", "write", "fsync", "unlink"], |call, number| {
        let was_killed = lab.killed(&arguments, call, number);
        println!("gc said {}", lab.plumb("gc").ok().out);
        let shown = lab.plumb("qos show --json").ok().json();
        let limits = shown["limits"].as_array().unwrap();
        // Confirmed at the end, and for all interfaces or, where the kill came in between, for some.
        if limits.is_empty() {
            taken_back += 1;
        } else {
            assert!(limits.iter().all(|limit| limit["state"] == "holds"), "{shown:#}");
            clear(&lab, "").ok();
        }
        lab.state().is(&before);
        was_killed
    });
    assert!(kills >= 20 && taken_back >= 15, "{taken_back} of {kills} kills were taken back");
}

#[test]
fn another_limit_killed_anywhere_leaves_the_first_or_is_set() {
    let lab = shaped_lab();
    let set = || drop(qos(&lab, "eth1 --rate 3mbit --direction both").ok());
    set();
    let before = lab.state();
    let arguments = format!("qos {} eth1 --rate 10mbit --direction both", lab.netns("box"));
    at_each(&["sendto", "rename", "write", "fsync"], |call, number| {
        let was_killed = lab.killed(&arguments, call, number);
        lab.plumb("gc").ok();
        let shown = lab.plumb("qos show --json").ok().json();
        for limit in shown["limits"].as_array().unwrap() {
            // What is on record is what holds.
            assert_eq!(limit["limit"]["rate"], limit["in_force"]["rate"], "{call} {number}: {limit:#}");
        }
        set();
        lab.state().is(&before);
        was_killed
    });
}

#[test]
fn clearing_killed_anywhere_can_be_finished() {
    let lab = shaped_lab();
    let before = lab.state();
    let arguments = format!("qos clear {}", lab.netns("box"));
    at_each(&["sendto", "unlink", "fsync"], |call, number| {
        qos(&lab, "eth1 --rate 3mbit --direction both").ok();
        let was_killed = lab.killed(&arguments, call, number);
        clear(&lab, "").ok();
        lab.state().is(&before);
        was_killed
    });
}
