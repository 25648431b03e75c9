//! From what there is to what is wanted, without a kernel.

use super::super::qdisc::{AsRead, Side};
use super::*;
use crate::error::Kind;

fn device(side: Side, index: u32, name: &str) -> Device {
    Device { side, index, name: name.parse().unwrap() }
}

fn port(side: Side, index: u32, name: &str) -> Port {
    Port { device: device(side, index, name), mtu: 1500, qdiscs: Vec::new() }
}

fn queues() -> Queues {
    Queues {
        target: "web".into(),
        link: InsideLink { index: 7, name: "eth1".into(), mtu: 1500, up: true, ..InsideLink::default() },
        port: port(Side::Inside, 7, "eth1"),
        host_end: None,
        ifb: None,
        ingress: Ingress::default(),
        free_index: 1_000_009,
    }
}

fn rate(rate: &str) -> Shape {
    let limit = RateLimit { rate: rate.parse().unwrap(), burst: None, latency: None, peak: None };
    Shape { limit: Some(limit), impairment: None }
}

fn slow(rate: Option<Shape>) -> Shape {
    let impairment = Impairment { delay: Some(Span::millis(50)), ..Impairment::default() };
    Shape { limit: rate.and_then(|shape| shape.limit), impairment: Some(impairment) }
}

fn egress(shape: Shape) -> Limits {
    Limits { egress: Some(shape), ingress: None }
}

fn ingress(shape: Shape) -> Limits {
    Limits { egress: None, ingress: Some(shape) }
}

fn planned(wanted: &Limits, queues: &Queues) -> Vec<Step> {
    plan(wanted, queues, &Displaced::default(), tick(), false).unwrap().steps
}

fn tick() -> Tick {
    Tick::parse("0 0 0 3b9aca00").unwrap()
}

/// What `queues` look like after `steps`.
fn after(steps: &[Step], mut queues: Queues) -> Queues {
    for step in steps {
        let removed = match step {
            Step::DeleteQdisc(gone) => Some(gone),
            Step::ReplaceQdisc { old, .. } => Some(old),
            _ => None,
        };
        let added = match step {
            Step::AddQdisc(new) | Step::ReplaceQdisc { new, .. } => Some(new),
            _ => None,
        };
        match step {
            Step::AddIfb(ifb) => queues.ifb = Some(port(Side::Inside, ifb.index, ifb.name.as_str())),
            Step::DeleteIfb(_) => queues.ifb = None,
            Step::AddRedirect(_) => queues.ingress.redirected = true,
            Step::DeleteRedirect(_) => queues.ingress.redirected = false,
            _ => {}
        }
        if removed.or(added).is_some_and(|qdisc| qdisc.slot == Slot::Ingress) {
            queues.ingress.qdisc = added.cloned();
            continue;
        }
        let Queues { port, host_end, ifb, .. } = &mut queues;
        for port in [Some(port), host_end.as_mut(), ifb.as_mut()].into_iter().flatten() {
            port.qdiscs.retain(|there| Some(there) != removed);
            port.qdiscs.extend(added.filter(|new| new.on == port.device).cloned());
        }
    }
    queues
}

fn commands(steps: &[Step]) -> Vec<String> {
    steps.iter().map(|step| step.command("N").replace("nsenter --net=N ", "")).collect()
}

#[test]
fn a_rate_is_a_bucket_at_the_root() {
    assert_eq!(
        commands(&planned(&egress(rate("10mbit")), &queues())),
        ["tc qdisc add dev eth1 root handle 706c: tbf rate 10mbit burst 12500b limit 75000b"]
    );
}

#[test]
fn a_delay_stands_before_the_rate() {
    assert_eq!(
        commands(&planned(&egress(slow(Some(rate("10mbit")))), &queues())),
        [
            "tc qdisc add dev eth1 root handle 706d: netem limit 5000 delay 50000us",
            "tc qdisc add dev eth1 parent 706d:1 handle 706e: tbf rate 10mbit burst 12500b limit 75000b"
        ]
    );
}

#[test]
fn what_comes_in_is_limited_before_it_is_sent_that_way() {
    assert_eq!(
        commands(&planned(&ingress(rate("10mbit")), &queues())),
        [
            "ip link add name qos7 index 1000009 address 02:70:6c:0f:42:49 group 1886156141 up type ifb",
            "tc qdisc add dev qos7 root handle 706c: tbf rate 10mbit burst 12500b limit 75000b",
            "tc qdisc add dev eth1 ingress",
            "tc filter add dev eth1 ingress pref 28780 protocol all u32 match u32 0 0 action mirred egress redirect dev qos7"
        ]
    );
}

#[test]
fn a_filter_that_leads_nowhere_is_replaced_or_goes() {
    let there = after(&planned(&ingress(rate("10mbit")), &queues()), queues());
    let gone = Queues { ifb: None, ..there };
    let again = commands(&planned(&ingress(rate("10mbit")), &gone));
    assert!(again[0].starts_with("tc filter del") && again[3].starts_with("tc filter add"), "{again:?}");
    let cleared = commands(&planned(&Limits::default(), &gone));
    assert_eq!(cleared[1..], ["tc qdisc del dev eth1 ingress"]);
}

#[test]
fn of_a_veth_the_hosts_end_limits_what_comes_in() {
    let queues = Queues { host_end: Some(port(Side::Host, 9, "veth9")), ..queues() };
    let steps = planned(&ingress(rate("10mbit")), &queues);
    assert_eq!(
        steps.iter().map(|step| step.command("N")).collect::<Vec<_>>(),
        ["tc qdisc add dev veth9 root handle 706c: tbf rate 10mbit burst 12500b limit 75000b"]
    );
}

#[test]
fn another_rate_replaces_in_place() {
    let queues = after(&planned(&egress(rate("10mbit")), &queues()), queues());
    assert_eq!(
        commands(&planned(&egress(rate("20mbit")), &queues)),
        ["tc qdisc replace dev eth1 root handle 706c: tbf rate 20mbit burst 25000b limit 150000b"]
    );
}

fn all_wishes() -> Vec<Limits> {
    let shapes = [None, Some(rate("10mbit")), Some(slow(None)), Some(slow(Some(rate("1mbit"))))];
    let pairs = shapes.iter().flat_map(|egress| shapes.iter().map(move |ingress| (egress.clone(), ingress.clone())));
    pairs.map(|(egress, ingress)| Limits { egress, ingress }).collect()
}

#[test]
fn from_any_wish_there_is_a_way_to_any_other_and_back() {
    for end in [None, Some(port(Side::Host, 9, "veth9"))] {
        let empty = Queues { host_end: end, ..queues() };
        for first in all_wishes() {
            let there = after(&planned(&first, &empty), empty.clone());
            for second in all_wishes() {
                let steps = planned(&second, &there);
                let now = after(&steps, there.clone());
                let direct = after(&planned(&second, &empty), empty.clone());
                let state = |queues: &Queues| {
                    let mut text = format!("{:?} {:?} {:?}", queues.port, queues.host_end, queues.ifb);
                    text += &format!("{:?}", queues.ingress);
                    text
                };
                assert_eq!(state(&now), state(&direct), "from {first:?} to {second:?}");
                // And each step has its inverse.
                let inverses: Vec<Step> = steps.iter().rev().map(Step::inverse).collect();
                let back = after(&inverses, now);
                let sorted = |queues: &Queues| {
                    let mut all: Vec<String> = [Some(&queues.port), queues.host_end.as_ref(), queues.ifb.as_ref()]
                        .into_iter()
                        .flatten()
                        .flat_map(|port| port.qdiscs.iter().map(|qdisc| format!("{qdisc:?}")))
                        .collect();
                    all.sort();
                    (all, queues.ingress.clone())
                };
                assert_eq!(sorted(&back), sorted(&there), "back from {second:?} to {first:?}");
            }
        }
    }
}

fn with_htb() -> Queues {
    let discipline = Discipline::AsRead(AsRead { kind: "htb".into(), options: Some(vec![1, 2, 3, 4]) });
    let htb = Qdisc { on: device(Side::Inside, 7, "eth1"), slot: Slot::Root, handle: 1, discipline };
    Queues { port: Port { qdiscs: vec![htb], ..queues().port }, ..queues() }
}

#[test]
fn what_others_put_there_is_respected() {
    let wanted = egress(rate("1mbit"));
    let error = plan(&wanted, &with_htb(), &Displaced::default(), tick(), false).unwrap_err();
    assert_eq!(error.kind, Kind::Conflict);
    assert_eq!(error.message, "web: eth1 has a root qdisc already, htb 1:, which plumb did not make");
    assert_eq!(planned(&Limits::default(), &with_htb()), []);
}

#[test]
fn what_was_forced_away_is_given_back() {
    let wanted = egress(rate("1mbit"));
    let shaping = plan(&wanted, &with_htb(), &Displaced::default(), tick(), true).unwrap();
    assert_eq!(shaping.displaced.egress.as_ref(), with_htb().port.root());
    assert!(shaping.warnings[0].contains("classes"), "{:?}", shaping.warnings);
    let there = after(&shaping.steps, with_htb());
    let text = serde_json::to_string(&shaping.displaced).unwrap();
    let displaced = serde_json::from_str(&text).unwrap();
    // Another limit does not forget it.
    let again = plan(&egress(rate("2mbit")), &there, &displaced, tick(), false).unwrap();
    assert_eq!(again.displaced, displaced);
    let clear = plan(&Limits::default(), &after(&again.steps, there), &again.displaced, tick(), false).unwrap();
    assert_eq!(commands(&clear.steps), ["tc qdisc replace dev eth1 root handle 1: htb"]);
    assert_eq!(clear.displaced, Displaced::default());
}

#[test]
fn filters_of_others_are_respected_and_stay() {
    let qdisc = super::super::samples::ingress(7, "eth1");
    let theirs = Ingress { qdisc: Some(qdisc), redirected: false, others: true };
    let queues = Queues { ingress: theirs, ..queues() };
    let wanted = ingress(rate("1mbit"));
    let error = plan(&wanted, &queues, &Displaced::default(), tick(), false).unwrap_err();
    assert_eq!(error.message, "web: eth1 has filters for what comes in (ingress ffff:), which plumb did not make");
    let forced = plan(&wanted, &queues, &Displaced::default(), tick(), true).unwrap().steps;
    let there = after(&forced, queues);
    let cleared = planned(&Limits::default(), &there);
    assert!(!cleared.iter().any(|step| matches!(step, Step::DeleteQdisc(gone) if gone.slot == Slot::Ingress)));
}

#[test]
fn without_a_name_all_that_carry_traffic_are_meant() {
    let link = |name: &str, up| InsideLink { name: name.into(), up, ..InsideLink::default() };
    let ifb = InsideLink { kind: Some("ifb".into()), ..link("qos7", true) };
    let links = [link("lo", true), link("eth0", true), link("tunl0", false), ifb, link("eth1", true)];
    let names = |named: Option<&str>| {
        let named = named.map(|name| name.parse().unwrap());
        chosen("web", named.as_ref(), &links)
            .map(|found| found.iter().map(|link| link.name.clone()).collect::<Vec<_>>())
    };
    assert_eq!(names(None).unwrap(), ["eth0", "eth1"]);
    assert_eq!(names(Some("tunl0")).unwrap(), ["tunl0"]);
    let error = names(Some("eth7")).unwrap_err();
    assert_eq!((error.kind, error.message.as_str()), (Kind::NotFound, "web has no interface eth7"));
    assert_eq!(error.hint.as_deref(), Some("it has eth0, tunl0, eth1"));
    assert_eq!(chosen("web", None, &links[..1]).unwrap_err().message, "web has no interface that is up, but lo");
}
