//! A host as the gateway of a network: what it forwards, what it masquerades, and that nothing stays.

use std::{
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    time::Duration,
};

use netplumb::{
    apply::{self, Execute, StepError, all_or_nothing},
    error::{Kind, Result},
    kernel::Kernel,
    plan::{Driver, Facts, MacvlanMode, Masquerade, Step, Wiring, Wish, undo, wiring, wiring::Forwarding},
    types::TargetName,
};

use crate::{
    lab::{Lab, ROUTER, ROUTER6, Ran, State, output, sh},
    refused_steps::{derived_mac, each_refused, facts, refusing, tag},
};

/// The host's own addresses on the LAN.
const OUTSIDE: &str = "192.168.9.2";
const OUTSIDE6: &str = "fd09::2";
/// One that is behind the gateway.
const BEHIND: &str = "10.1.0.2";
const BEHIND6: &str = "fd10::2";

/// A host between its LAN and `client`, of which the gateway is still missing. It forwards nothing yet,
/// and has settings that are lost where forwarding is turned on and off without care.
fn lab() -> Lab {
    let mut lab = Lab::new();
    lab.namespace("client");
    let (host, lan, client) = (lab.full("host"), lab.full("lan"), lab.full("client"));
    sh(&format!(
        "ip -n {host} link add wire0 type veth peer name wire1 netns {client}
         ip -n {host} link set wire0 up && ip -n {client} link set wire1 up
         ip -n {client} addr add {BEHIND}/24 dev wire1
         ip -n {client} addr add {BEHIND6}/64 dev wire1 nodad
         ip -n {client} route add default via 10.1.0.1
         ip -n {client} -6 route add default via fd10::1
         ip -n {host} addr add {OUTSIDE}/24 dev nic0
         ip -n {host} addr add {OUTSIDE6}/64 dev nic0 nodad
         ip -n {lan} route add 10.1.0.0/24 via {OUTSIDE}
         ip -n {lan} -6 route add fd10::/64 via {OUTSIDE6}
         nsenter --net=/run/netns/{host} sysctl -q -w net.ipv4.ip_forward=0 net.ipv4.conf.all.accept_redirects=0 \
           net.ipv4.conf.nic0.forwarding=1 net.ipv6.conf.all.forwarding=1"
    ));
    lab
}

fn wish(masquerade: &[&str]) -> Wish {
    Wish {
        name: Some("gw-blue".parse().unwrap()),
        addresses: ["10.1.0.1/24", "fd10::1/64"].map(|text| text.parse().unwrap()).to_vec(),
        keep_default: true,
        skip_dad: true,
        forwarding: Some(Forwarding { masquerade: masquerade.iter().map(|text| text.parse().unwrap()).collect() }),
        ..Wish::of(&TargetName::Host, Driver::Macvlan(MacvlanMode::Bridge), derived_mac())
    }
}

const BOTH: [&str; 2] = ["10.1.0.0/24", "fd10::/64"];

fn planned(kernel: &mut Kernel, masquerade: &[&str]) -> Result<Wiring> {
    let forwarding = Some(kernel.ipv4_forwarding(&"wire0".parse().unwrap())?);
    let facts = Facts { is_host: true, forwarding, ..facts(kernel, "wire0")? };
    wiring::plan(&wish(masquerade), &facts, &tag())
}

fn become_gateway(lab: &Lab, masquerade: &[&str]) -> Wiring {
    lab.enter("host", |kernel| {
        let wiring = planned(kernel, masquerade)?;
        all_or_nothing(kernel, &mut |_, _| {}, "N", |tx| tx.run_all(wiring.steps()))?;
        Ok(wiring)
    })
}

fn detach(lab: &Lab, wiring: &Wiring) {
    let steps: Vec<Step> = wiring.steps().cloned().collect();
    lab.enter("host", |kernel| {
        let undone = undo::undo(&steps, &tag(), &kernel.look_at_links_and_routes()?);
        apply::undo(kernel, &undone, &mut |_, _| {}, "N")
    });
}

fn execute(lab: &Lab, step: &Step) -> std::result::Result<(), StepError> {
    lab.enter("host", |kernel| Ok(kernel.execute(step)))
}

/// A command's output on the lab's host.
fn said(lab: &Lab, command: &str) -> String {
    output(&format!("nsenter --net=/run/netns/{} {command}", lab.full("host")))
}

/// The state, with what a gateway changes besides: the rules in the kernel's own terms, and forwarding.
fn state(lab: &Lab) -> State {
    let settings = "sh -c 'grep . /proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv4/conf/*/forwarding \
                    /proc/sys/net/ipv4/conf/*/accept_redirects /proc/sys/net/ipv4/conf/*/arp_ignore'";
    State(lab.state().0 + &said(lab, settings) + &rules(lab))
}

fn rules(lab: &Lab) -> String {
    said(lab, "nft --debug=netlink list ruleset")
}

/// Whose connection a server on the LAN sees when `client` connects to it.
fn seen(lab: &Lab, server: &str) -> IpAddr {
    let server: IpAddr = server.parse().unwrap();
    let listener = lab.inside("lan", || TcpListener::bind(SocketAddr::from((server, 0)))).unwrap();
    let address = listener.local_addr().unwrap();
    let connected = lab.inside("client", || TcpStream::connect_timeout(&address, Duration::from_secs(5)));
    connected.unwrap_or_else(|error| panic!("{address}: {error}"));
    listener.accept().unwrap().1.ip()
}

#[test]
fn what_leaves_has_the_hosts_address_and_detaching_leaves_nothing_but_the_forwarding() {
    let lab = lab();
    let before = state(&lab);
    let wiring = become_gateway(&lab, &BOTH);
    assert_eq!(wiring.warnings, [""; 0]);
    assert_eq!(
        said(&lab, "nft list ruleset"),
        "table ip plumb-gw-blue {\n\
         \tchain postrouting {\n\
         \t\ttype nat hook postrouting priority srcnat; policy accept;\n\
         \t\tip saddr 10.1.0.0/24 oifname != \"gw-blue\" masquerade\n\
         \t}\n\
         }\n\
         table ip6 plumb-gw-blue {\n\
         \tchain postrouting {\n\
         \t\ttype nat hook postrouting priority srcnat; policy accept;\n\
         \t\tip6 saddr fd10::/64 oifname != \"gw-blue\" masquerade\n\
         \t}\n\
         }\n"
    );
    assert_eq!(seen(&lab, ROUTER), OUTSIDE.parse::<IpAddr>().unwrap());
    assert_eq!(seen(&lab, ROUTER6), OUTSIDE6.parse::<IpAddr>().unwrap());

    detach(&lab, &wiring);
    assert_eq!(said(&lab, "cat /proc/sys/net/ipv4/ip_forward"), "1\n");
    sh(&format!(
        "nsenter --net=/run/netns/{} sysctl -q -w net.ipv4.ip_forward=0 net.ipv4.conf.all.accept_redirects=0 \
         net.ipv4.conf.nic0.forwarding=1",
        lab.full("host")
    ));
    state(&lab).is(&before);
}

#[test]
fn without_nat_what_leaves_keeps_its_address() {
    let lab = lab();
    let wiring = become_gateway(&lab, &[]);
    assert_eq!(rules(&lab), "");
    assert_eq!(seen(&lab, ROUTER), BEHIND.parse::<IpAddr>().unwrap());
    assert_eq!(seen(&lab, ROUTER6), BEHIND6.parse::<IpAddr>().unwrap());
    detach(&lab, &wiring);
}

#[test]
fn the_gateway_alone_answers_for_its_address() {
    let lab = lab();
    let wiring = become_gateway(&lab, &[]);
    let client = lab.full("client");
    let answers = output(&format!("nsenter --net=/run/netns/{client} busybox arping -b -c 2 -I wire1 10.1.0.1"));
    let mac = wiring.link.mac.unwrap().to_string();
    let from: Vec<&str> = answers.lines().filter(|line| line.contains("reply from")).collect();
    assert_eq!(from.len(), 2, "{answers}");
    assert!(from.iter().all(|line| line.contains(&mac)), "{mac} {answers}");
    detach(&lab, &wiring);
}

#[test]
fn whichever_step_is_refused_the_host_is_as_before() {
    let lab = lab();
    let attempt = |refused: usize| {
        lab.enter("host", |kernel| {
            let wiring = planned(kernel, &BOTH)?;
            Ok((refusing(kernel, wiring.steps(), refused), wiring.steps().count()))
        })
    };
    each_refused(|| state(&lab), attempt);
}

#[test]
fn the_commands_make_the_same_gateway_and_take_it_back() {
    let lab = lab();
    let before = state(&lab);
    let wiring = become_gateway(&lab, &BOTH);
    let by_plumb = state(&lab);
    let path = format!("/run/netns/{}", lab.full("host"));
    let run = |steps: Vec<Step>| {
        for step in steps {
            // Links are created from the host, which is the namespace itself here.
            let namespace = if matches!(step, Step::AddLink(_)) { "/proc/self/ns/net" } else { path.as_str() };
            Ran::of(lab.on_host("sh").args(["-ec", &step.command(namespace)])).ok();
        }
    };
    run(wiring.steps().map(Step::inverse).collect::<Vec<_>>().into_iter().rev().collect());
    state(&lab).is(&before);
    run(wiring.steps().cloned().collect());
    state(&lab).is(&by_plumb);
}

#[test]
fn nft_makes_the_same_of_subnets_of_each_length() {
    let lab = lab();
    for subnet in ["10.0.0.0/8", "10.1.0.0/17", "10.1.2.0/23", "10.1.2.4/30", "fd00::/8", "fd10::/62", "fd10::/126"] {
        let masquerade = Masquerade { interface: "gw-tenant.1_b-2".parse().unwrap(), subnet: subnet.parse().unwrap() };
        let step = Step::AddMasquerade(masquerade);
        execute(&lab, &step).unwrap();
        let by_plumb = (rules(&lab), said(&lab, "nft list ruleset"));
        assert!(
            by_plumb.1.contains(&format!("saddr {subnet} oifname != \"gw-tenant.1_b-2\" masquerade")),
            "{by_plumb:?}"
        );
        execute(&lab, &step.inverse()).unwrap();
        assert_eq!(rules(&lab), "");

        for (step, state) in [(step.clone(), by_plumb), (step.inverse(), Default::default())] {
            Ran::of(lab.on_host("sh").args(["-ec", &step.command("/proc/self/ns/net")])).ok();
            assert_eq!((rules(&lab), said(&lab, "nft list ruleset")), state);
        }
    }
}

#[test]
fn a_table_that_is_there_is_left_alone_and_one_that_has_gone_counts_as_taken_back() {
    let lab = lab();
    let masquerade = Masquerade { interface: "gw-blue".parse().unwrap(), subnet: "10.1.0.0/24".parse().unwrap() };
    sh(&format!("nsenter --net=/run/netns/{} nft add table ip plumb-gw-blue", lab.full("host")));
    let before = state(&lab);
    let outcome = lab.enter("host", |kernel| {
        let wiring = planned(kernel, &BOTH)?;
        Ok(all_or_nothing(kernel, &mut |_, _| {}, "N", |tx| tx.run_all(wiring.steps())))
    });
    let error = outcome.unwrap_err();
    assert_eq!(error.kind, Kind::Conflict);
    assert_eq!(error.message, "there is a table ip plumb-gw-blue already; nothing was changed");
    assert!(error.hint.unwrap().starts_with("nft list table ip plumb-gw-blue shows it"));
    state(&lab).is(&before);

    execute(&lab, &Step::DeleteMasquerade(masquerade.clone())).unwrap();
    let gone = execute(&lab, &Step::DeleteMasquerade(masquerade)).unwrap_err();
    let StepError::Gone(message) = gone else { panic!("{gone:?}") };
    assert!(message.starts_with("cannot delete table ip plumb-gw-blue: "), "{message}");
}

#[test]
fn a_firewall_that_drops_is_warned_of_and_the_commands_given_let_through() {
    let lab = lab();
    let host = format!("nsenter --net=/run/netns/{}", lab.full("host"));
    let accept_in = || lab.enter("host", |kernel| Ok(kernel.ipv4_forwarding(&"wire0".parse().unwrap())?.accept_in));
    assert_eq!(accept_in(), None);
    sh(&format!("{host} iptables -P FORWARD ACCEPT"));
    assert_eq!(accept_in(), None);
    sh(&format!("{host} iptables -P FORWARD DROP"));
    assert_eq!(accept_in(), Some("FORWARD"));
    sh(&format!("{host} iptables -N DOCKER-USER && {host} iptables -A FORWARD -j DOCKER-USER"));
    assert_eq!(accept_in(), Some("DOCKER-USER"));

    let wiring = become_gateway(&lab, &BOTH);
    let [warning] = &wiring.warnings[..] else { panic!("{:?}", wiring.warnings) };
    assert!(!lab.pings("client", ROUTER), "what is forwarded is dropped");
    let (_, commands) = warning.split_once("For gw-blue: ").unwrap();
    Ran::of(lab.on_host("sh").args(["-ec", commands])).ok();
    assert_eq!(seen(&lab, ROUTER), OUTSIDE.parse::<IpAddr>().unwrap());
    detach(&lab, &wiring);
}
