//! Plans and refusals, without a kernel.

use super::super::facts::{InsideAddress, InsideLink, Ipv4Forwarding, Ipv6Defaults};
use super::super::samples;
use super::super::{Home, IpvlanMode, Moving, qdisc};
use super::*;
use crate::error::Kind;

fn facts() -> Facts {
    let parent = Parent {
        name: "eth0".parse().unwrap(),
        index: 2,
        mac: Some("52:54:00:00:00:01".parse().unwrap()),
        mtu: 1500,
        up: true,
        carrier: true,
        loopback: false,
        switch: None,
        ethernet: true,
        infiniband: false,
        wireless: false,
        port_of: None,
        segments: Some(samples::segments(65_536)),
        segments_most: 524_280,
    };
    let link = |index: u32, name: &str| InsideLink {
        index,
        name: name.into(),
        mac: None,
        mtu: 1500,
        up: true,
        ..InsideLink::default()
    };
    let inside = Inside {
        links: vec![link(1, "lo"), link(5, "eth0")],
        addresses: vec![InsideAddress {
            index: 5,
            ip: [172, 17, 0, 2].into(),
            prefix: 16,
            tentative: false,
            duplicate: false,
        }],
        routes: vec![
            samples::default_via("172.17.0.1", 5, "eth0"),
            Route::new(Some("172.17.0.0/16".parse().unwrap()), None, false, None, (5, "eth0"), false),
        ],
        rules: vec![],
        ipv6: Some(Ipv6Defaults { disabled: true, accept_ra: "1".into() }),
    };
    Facts {
        parent,
        sibling: None,
        inside,
        on_record: vec![],
        is_host: false,
        forwarding: None,
        bridged_drops: vec![],
        moving: None,
    }
}

fn wish() -> Wish {
    Wish {
        addresses: vec!["192.168.0.100/24".parse().unwrap()],
        gateways: vec!["192.168.0.1".parse().unwrap()],
        ..samples::wish()
    }
}

fn planned(wish: &Wish, facts: &Facts) -> Wiring {
    plan(wish, facts, &samples::tag()).unwrap()
}

/// Refuses the wish with the facts as `change` leaves them.
fn refused(change: impl FnOnce(&mut Wish, &mut Facts)) -> Error {
    let (mut wish, mut facts) = (wish(), facts());
    change(&mut wish, &mut facts);
    plan(&wish, &facts, &samples::tag()).unwrap_err()
}

fn commands(wiring: &Wiring) -> Vec<String> {
    wiring.steps().map(|step| step.command("N").replace("nsenter --net=N ", "")).collect()
}

#[test]
fn the_plain_case_is_four_requests() {
    let wiring = planned(&wish(), &facts());
    assert_eq!(wiring.link.name.as_str(), "eth1");
    assert_eq!(wiring.link.index, 1_000_001);
    let texts = commands(&wiring);
    assert_eq!(texts.len(), 4, "{texts:#?}");
    assert!(texts[0].starts_with("ip link add link eth0 name eth1 index 1000001 address "), "{}", texts[0]);
    assert_eq!(texts[2], "ip addr add 192.168.0.100/24 brd + dev eth1");
    assert_eq!(texts[3], "ip route replace default via 192.168.0.1 dev eth1 proto 4");
    assert_eq!(wiring.replaced_defaults().map(Route::way).collect::<Vec<_>>(), ["eth0 (172.17.0.1)"]);
    assert_eq!(wiring.warnings, [""; 0]);
}

#[test]
fn a_dummy_hangs_on_nothing() {
    let wish = Wish { driver: Driver::Dummy, gateways: vec![], ..wish() };
    let wiring = planned(&wish, &Facts { parent: Parent::nowhere(), ..facts() });
    let mac = wiring.link.mac.unwrap();
    assert_eq!(
        commands(&wiring)[0],
        format!("ip link add name eth1 index 1000001 address {mac} mtu 1500 group 1886156141 netns N up type dummy")
    );
    assert_eq!(wiring.warnings, [""; 0]);
    let to_nowhere = planned(
        &Wish { gateways: vec!["192.168.0.1".parse().unwrap()], ..wish },
        &Facts { parent: Parent::nowhere(), ..facts() },
    );
    assert_eq!(to_nowhere.warnings, ["a dummy leads nowhere, and so does the default route by it now"]);
}

#[test]
fn an_infiniband_interface_has_children_of_its_own_kind() {
    let infiniband = || Parent {
        name: "ib0".parse().unwrap(),
        mac: None,
        mtu: 2044,
        ethernet: false,
        infiniband: true,
        ..facts().parent
    };
    let on_it = |driver: Driver| Wish { driver, ..wish() }.on(&infiniband());
    let facts = || Facts { parent: infiniband(), ..facts() };
    let first = |wish: &Wish| commands(&planned(wish, &facts()))[0].clone();
    let chosen = on_it(Driver::Macvlan(MacvlanMode::Bridge));
    assert_eq!(
        first(&chosen),
        "ip link add link ib0 name eth1 index 1000001 mtu 2044 group 1886156141 netns N up type ipoib"
    );
    assert_eq!(planned(&chosen, &facts()).link.mac, None);
    let asked_for = on_it(Driver::Ipoib { pkey: Some("0x8001".parse().unwrap()) });
    assert!(first(&asked_for).ends_with("type ipoib pkey 0x8001"));

    let refused = |wish: Wish, facts: Facts| plan(&wish, &facts, &samples::tag()).unwrap_err();
    let mac = MacRule::Given("02:00:00:00:00:01".parse().unwrap());
    let error = refused(Wish { mac, ..chosen }, facts());
    assert_eq!(error.kind, Kind::Usage);
    assert_eq!(
        error.message,
        "an InfiniBand interface has an address of another kind, so 02:00:00:00:00:01 cannot be given"
    );
    let error = refused(on_it(Driver::Macvlan(MacvlanMode::Private)), facts());
    assert_eq!(error.message, "ib0 is an InfiniBand interface, so it cannot carry a macvlan");
    let error = refused(asked_for, super::super::wiring::tests::facts());
    assert_eq!(error.message, "eth0 is no InfiniBand interface, so it has no partitions");
}

fn home() -> Home {
    Home {
        name: "eth0".parse().unwrap(),
        index: 2,
        mac: Some("52:54:00:00:00:01".parse().unwrap()),
        mtu: 1500,
        up: true,
        group: 0,
        kind: None,
        phy: None,
        tag: samples::tag(),
        device_tag: None,
        settings: vec![("net/ipv4/conf/eth0/rp_filter".into(), "2".into())],
        addresses: vec![],
        routes: vec![Route::new(Some("10.0.0.0/8".parse().unwrap()), None, false, None, (2, "eth0"), false)],
        qdisc: None,
        seen: 0,
    }
}

#[test]
fn what_moves_keeps_what_it_is_and_comes_home_to_what_it_had() {
    let wish = Wish { driver: Driver::Phys { home: None }, mtu: Some(9000.try_into().unwrap()), ..wish() };
    let facts = || Facts { moving: Some(Moving { home: home(), children: vec![], carries: None }), ..facts() };
    let wiring = planned(&wish, &facts());
    assert_eq!((wiring.link.index, wiring.link.mac), (2, facts().parent.mac), "its number is free inside");
    let tag = samples::tag();
    assert_eq!(
        commands(&wiring)[0],
        format!(
            "ip link property add dev eth0 altname {tag} && ip link set dev eth0 netns N name eth1 mtu 9000 group 1886154856 up"
        )
    );
    assert_eq!(
        wiring.connect[0].inverse().command("N"),
        format!(
            "nsenter --net=N ip link set dev eth1 netns $$ name eth0 mtu 1500 group 0 && \
             echo 2 > /proc/sys/net/ipv4/conf/eth0/rp_filter && ip link set dev eth0 up && \
             ip route add 10.0.0.0/8 dev eth0 proto 4 scope link && ip link property del dev eth0 altname {tag}"
        )
    );
    let taken = Facts {
        inside: Inside {
            links: vec![InsideLink { index: 2, name: "eth0".into(), ..InsideLink::default() }],
            ..Inside::default()
        },
        ..facts()
    };
    assert_eq!(planned(&wish, &taken).link.index, 3);
    let text = serde_json::to_string(&wiring.link).unwrap();
    assert_eq!(serde_json::from_str::<Link>(&text).unwrap(), wiring.link);
}

#[test]
fn what_hangs_on_it_or_goes_by_it_keeps_it_at_home() {
    let refused = |change: fn(&mut Moving, &mut Parent)| {
        let (mut moving, mut facts) = (Moving { home: home(), children: vec![], carries: None }, facts());
        change(&mut moving, &mut facts.parent);
        facts.moving = Some(moving);
        let wish = Wish { driver: Driver::Phys { home: None }, ..wish() };
        let forced = plan(&Wish { force: true, ..wish.clone() }, &facts, &samples::tag());
        (plan(&wish, &facts, &samples::tag()).unwrap_err().message, forced.is_ok())
    };
    let default =
        |moving: &mut Moving, _: &mut Parent| moving.home.routes = vec![samples::default_via("10.0.0.1", 2, "eth0")];
    assert_eq!(
        refused(default),
        ("eth0 carries this host's default route to 10.0.0.1: it would be cut off".into(), true)
    );
    let ssh = |moving: &mut Moving, _: &mut Parent| moving.carries = Some("the ssh session from 10.0.0.5".into());
    assert_eq!(refused(ssh), ("eth0 carries the ssh session from 10.0.0.5: moving it would cut that off".into(), true));
    let children = |moving: &mut Moving, _: &mut Parent| moving.children = vec!["eth0.10".into(), "eth1 of web".into()];
    assert_eq!(refused(children), ("eth0 cannot leave the host: eth0.10, eth1 of web would be cut off".into(), false));
    let port = |_: &mut Moving, parent: &mut Parent| parent.port_of = Some("bond0".into());
    assert_eq!(refused(port), ("eth0 is a port of bond0, so it cannot leave the host".into(), false));
}

#[test]
fn the_mac_address_depends_on_host_target_and_interface_alone() {
    let mac = |change: fn(&mut Wish)| {
        let mut wish = wish();
        change(&mut wish);
        planned(&wish, &facts()).link.mac.unwrap()
    };
    let here = mac(|_| {});
    assert_eq!(here, mac(|wish| wish.mtu = Some(1400.try_into().unwrap())));
    assert_ne!(here, mac(|wish| wish.target = "db".into()));
    assert_ne!(here, mac(|wish| wish.name = Some(IfName::eth(9))));
    assert_ne!(here, mac(|wish| wish.mac = MacRule::Derived { host: Some("another".into()) }));
}

#[test]
fn the_index_is_never_the_parents() {
    let mut facts = facts();
    facts.parent.index = 1_000_001;
    assert_eq!(planned(&wish(), &facts).link.index, 1_000_002);
}

#[test]
fn ipv6_is_turned_on_where_it_is_wanted_and_advertisements_stay_out() {
    let mut wish = wish();
    wish.addresses.push("fd00::7/64".parse().unwrap());
    wish.gateways.push("fe80::1".parse().unwrap());
    let texts = commands(&planned(&wish, &facts()));
    assert!(texts.contains(&"sh -c 'echo 0 > /proc/sys/net/ipv6/conf/eth1/accept_ra'".to_owned()), "{texts:#?}");
    assert!(texts.contains(&"sh -c 'echo 0 > /proc/sys/net/ipv6/conf/eth1/disable_ipv6'".to_owned()));
    assert!(texts.contains(&"ip -6 route add default via fe80::1 dev eth1 proto 4".to_owned()));
    let mut without = facts();
    without.inside.ipv6 = None;
    let error = plan(&wish, &without, &samples::tag()).unwrap_err();
    assert!(error.message.contains("web has no IPv6"), "{error}");
}

#[test]
fn without_addresses_it_is_a_link_only() {
    let mut wish = wish();
    wish.addresses.clear();
    wish.gateways.clear();
    assert_eq!(commands(&planned(&wish, &facts())).len(), 2);
}

#[test]
fn the_default_route_stays_on_request() {
    let mut wish = wish();
    wish.keep_default = true;
    assert_eq!(planned(&wish, &facts()).routes, []);
}

#[test]
fn with_a_metric_the_old_default_route_stays_beside_the_new() {
    let mut wish = wish();
    wish.metric = Some(50);
    let texts = commands(&planned(&wish, &facts()));
    assert_eq!(texts[3], "ip route add default via 192.168.0.1 dev eth1 metric 50 proto 4");
    assert_eq!(texts.len(), 4);
}

#[test]
fn default_routes_that_would_win_go_and_worse_ones_stay() {
    let (mut wish, mut facts) = (wish(), facts());
    wish.addresses = vec!["fd00::7/64".parse().unwrap()];
    wish.gateways = vec!["fd00::1".parse().unwrap()];
    let v6 = |metric: u32| Route::new(None, Some("fd11::1".parse().unwrap()), false, Some(metric), (5, "eth0"), true);
    facts.inside.routes.extend([v6(512), v6(2000)]);
    let wiring = planned(&wish, &facts);
    assert_eq!(
        wiring.routes.iter().map(|step| step.command("N").replace("nsenter --net=N ", "")).collect::<Vec<_>>(),
        [
            "ip -6 route add default via fd00::1 dev eth1 proto 4",
            "ip -6 route del default via fd11::1 dev eth0 metric 512 proto 4"
        ]
    );
}

#[test]
fn an_off_link_gateway_is_reached_onlink() {
    let mut wish = wish();
    wish.addresses = vec!["192.168.0.100/32".parse().unwrap()];
    let error = plan(&wish, &facts(), &samples::tag()).unwrap_err();
    assert_eq!(error.kind, Kind::Usage);
    assert_eq!(error.message, "gateway 192.168.0.1 is outside of 192.168.0.100/32");
    assert!(error.hint.unwrap().contains("--off-link-gateway"));
    wish.off_link_gateway = true;
    assert!(commands(&planned(&wish, &facts()))[3].ends_with("via 192.168.0.1 dev eth1 proto 4 onlink"));
}

#[test]
fn gateways_that_cannot_be_are_usage_errors() {
    let gateway = |text: &str| {
        let error = refused(|wish, _| wish.gateways = vec![text.parse().unwrap()]);
        assert_eq!(error.kind, Kind::Usage);
        error.message
    };
    assert_eq!(gateway("192.168.0.100"), "gateway 192.168.0.100 is the container's own address");
    assert_eq!(gateway("192.168.1.1"), "gateway 192.168.1.1 is outside of 192.168.0.0/24");
    assert_eq!(gateway("192.168.0.255"), "gateway 192.168.0.255 is the broadcast address of 192.168.0.0/24");
    assert_eq!(gateway("192.168.0.0"), "gateway 192.168.0.0 is the address of the network 192.168.0.0/24 itself");
    assert_eq!(gateway("fd00::1"), "gateway fd00::1 needs an IPv6 address on the interface");
    let twice = refused(|wish, _| wish.gateways.push("192.168.0.2".parse().unwrap()));
    assert!(twice.message.contains("192.168.0.1 and 192.168.0.2"), "{twice}");
}

#[test]
fn parents_that_cannot_carry_it_are_refused() {
    let loopback = refused(|_, facts| facts.parent.loopback = true);
    assert!(loopback.message.starts_with("eth0 is the loopback interface"), "{loopback}");
    let port = refused(|_, facts| facts.parent.port_of = Some("br0".into()));
    assert_eq!(
        (port.kind, port.message.as_str()),
        (Kind::Conflict, "eth0 is a port of br0, so no macvlan can be put on it")
    );
    assert_eq!(port.hint.unwrap(), "use -i br0");
    let wifi = refused(|_, facts| facts.parent.wireless = true);
    let hint = wifi.hint.unwrap();
    assert!(
        wifi.message.contains("wifi") && hint.contains("--allow-wifi") && hint.contains("--driver ipvlan"),
        "{hint}"
    );
    let tun = refused(|_, facts| facts.parent.ethernet = false);
    assert_eq!(tun.message, "eth0 is not an Ethernet interface, so it cannot carry a macvlan");
}

#[test]
fn wifi_is_taken_when_it_is_said_to_work() {
    let (mut wish, mut facts) = (wish(), facts());
    wish.allow_wifi = true;
    facts.parent.wireless = true;
    planned(&wish, &facts);
    // An ipvlan has the address that has logged in.
    wish.allow_wifi = false;
    wish.driver = Driver::Ipvlan(IpvlanMode::L2);
    planned(&wish, &facts);
}

#[test]
fn a_parent_that_is_down_works_with_a_warning() {
    let mut facts = facts();
    facts.parent.up = false;
    assert!(planned(&wish(), &facts).warnings[0].starts_with("eth0 is down"));
    facts.parent.up = true;
    facts.parent.carrier = false;
    assert!(planned(&wish(), &facts).warnings[0].starts_with("eth0 has no carrier"));
}

#[test]
fn the_mtu_is_at_most_the_parents() {
    let error = refused(|wish, _| wish.mtu = Some(9000.try_into().unwrap()));
    assert_eq!(error.message, "MTU 9000 is above that of eth0, which is 1500");
    let error = refused(|wish, _| {
        wish.mtu = Some(1000.try_into().unwrap());
        wish.addresses = vec!["fd00::7/64".parse().unwrap()];
        wish.gateways.clear();
    });
    assert_eq!(error.message, "MTU 1000 is too small for IPv6, which needs 1280 bytes (RFC 8200)");
}

#[test]
fn names_and_addresses_that_are_taken_are_conflicts() {
    let name = refused(|wish, _| wish.name = Some(IfName::eth(0)));
    assert_eq!((name.kind, name.message.as_str()), (Kind::Conflict, "web already has an interface eth0"));
    assert!(name.hint.unwrap().contains("it has lo, eth0"));
    let renamed = refused(|wish, facts| {
        wish.name = Some(IfName::eth(1));
        facts.on_record = vec!["eth1".into()];
    });
    assert_eq!(renamed.message, "web has an attachment on record as eth1, though renamed");
    let mut facts = facts();
    facts.on_record = vec!["eth1".into()];
    assert_eq!(planned(&wish(), &facts).link.name.as_str(), "eth2");
    let address = refused(|wish, _| {
        wish.addresses = vec!["172.17.0.2/16".parse().unwrap()];
        wish.gateways.clear();
    });
    assert_eq!((address.kind, address.message.as_str()), (Kind::Conflict, "web already has 172.17.0.2 on eth0"));
    let nameless = refused(|wish, _| wish.mac = MacRule::Derived { host: None });
    assert!(nameless.message.contains("no machine id"), "{nameless}");
    let mac = refused(|wish, facts| wish.mac = MacRule::Given(facts.parent.mac.unwrap()));
    assert_eq!((mac.kind, mac.message.as_str()), (Kind::Conflict, "MAC 52:54:00:00:00:01 is that of eth0 itself"));
    let twice = refused(|wish, _| wish.addresses.push("192.168.0.100/25".parse().unwrap()));
    assert_eq!((twice.kind, twice.message.as_str()), (Kind::Usage, "address 192.168.0.100 is given twice"));
}

#[test]
fn a_route_that_exists_is_a_conflict() {
    let error = refused(|wish, _| wish.routes = vec!["172.17.0.0/16".parse().unwrap()]);
    assert_eq!(
        (error.kind, error.message.as_str()),
        (Kind::Conflict, "web already has a route to 172.17.0.0/16, by eth0")
    );
    assert_eq!(error.hint.unwrap(), "give this one a metric of its own: --route 172.17.0.0/16,metric 100");
}

#[test]
fn a_subnet_that_the_container_has_already_is_warned_about() {
    let (mut wish, facts) = (wish(), facts());
    wish.addresses = vec!["172.17.9.9/16".parse().unwrap()];
    wish.gateways.clear();
    assert_eq!(planned(&wish, &facts).warnings, ["web already reaches 172.17.0.0/16 by eth0: the two will compete"]);
}

#[test]
fn modes_carry_what_they_need() {
    let source = refused(|wish, _| wish.driver = Driver::Macvlan(MacvlanMode::Source(vec![])));
    assert!(source.hint.unwrap().contains("--source-mac"));
    let passthru = refused(|wish, _| {
        wish.driver = Driver::Macvlan(MacvlanMode::Passthru);
        wish.mac = MacRule::Given("02:00:00:00:00:01".parse().unwrap());
    });
    assert_eq!(passthru.kind, Kind::Usage);
    let mut wish = wish();
    wish.driver = Driver::Macvlan(MacvlanMode::Passthru);
    assert_eq!(planned(&wish, &facts()).link.mac, None);
}

fn ipvlan(mode: IpvlanMode) -> Wish {
    Wish { driver: Driver::Ipvlan(mode), gateways: vec![], ..wish() }
}

#[test]
fn an_ipvlan_has_its_parents_mac_and_needs_no_machine_id() {
    let l2 = Wish { mac: MacRule::Derived { host: None }, gateways: wish().gateways, ..ipvlan(IpvlanMode::L2) };
    let wiring = planned(&l2, &facts());
    assert_eq!(wiring.link.mac, None);
    let texts = commands(&wiring);
    assert!(texts[0].starts_with("ip link add link eth0 name eth1 index 1000001 mtu 1500 "), "{}", texts[0]);
    assert!(texts[0].ends_with(" type ipvlan mode l2"), "{}", texts[0]);
    assert_eq!(texts[3], "ip route replace default via 192.168.0.1 dev eth1 proto 4");
    let mac = refused(|wish, _| {
        *wish = Wish { mac: MacRule::Given("02:00:00:00:00:01".parse().unwrap()), ..ipvlan(IpvlanMode::L3s) }
    });
    assert_eq!(
        (mac.kind, mac.message.as_str()),
        (Kind::Usage, "an ipvlan link has its parent's MAC address, so --mac cannot be given")
    );
}

#[test]
fn where_the_host_routes_there_is_no_gateway_and_the_way_out_is_the_interface() {
    let l3 = |change: fn(&mut Wish)| {
        refused(|wish, _| {
            *wish = ipvlan(IpvlanMode::L3);
            change(wish);
        })
    };
    let gateway = l3(|wish| wish.gateways = vec!["192.168.0.1".parse().unwrap()]);
    assert_eq!(
        (gateway.kind, gateway.message.as_str()),
        (Kind::Usage, "in mode l3 the host's own routes decide, so gateway 192.168.0.1 would have no effect")
    );
    assert_eq!(gateway.hint.unwrap(), "--route 0.0.0.0/0 instead of --gateway makes the interface the way out");
    let via = l3(|wish| wish.routes = vec!["10.0.0.0/8,via 192.168.0.1".parse().unwrap()]);
    assert_eq!(
        via.message,
        "in mode l3 the host's own routes decide, so gateway 192.168.0.1 of route 10.0.0.0/8 would have no effect"
    );
    let both = l3(|wish| {
        wish.keep_default = true;
        wish.routes = vec!["0.0.0.0/0".parse().unwrap()];
    });
    assert_eq!((both.kind, both.hint.unwrap().as_str()), (Kind::Usage, "leave one of them out"));
    let on_layer_2 = refused(|wish, _| wish.routes = vec!["0.0.0.0/0".parse().unwrap()]);
    assert_eq!((on_layer_2.kind, on_layer_2.message.as_str()), (Kind::Usage, "route 0.0.0.0/0 needs a router"));

    assert_eq!(commands(&planned(&ipvlan(IpvlanMode::L3), &facts())).len(), 3, "the default route stays");
    let mut out = Wish { routes: vec!["0.0.0.0/0".parse().unwrap()], ..ipvlan(IpvlanMode::L3s) };
    let wiring = planned(&out, &facts());
    assert_eq!(commands(&wiring)[3], "ip route replace default dev eth1 proto 4 scope link");
    assert_eq!(wiring.replaced_defaults().count(), 1);
    out.metric = Some(9);
    let wiring = planned(&out, &facts());
    assert_eq!(commands(&wiring)[3], "ip route add default dev eth1 metric 9 proto 4 scope link");
    assert_eq!(wiring.better_defaults, [samples::default_via("172.17.0.1", 5, "eth0")]);
}

#[test]
fn a_parent_has_one_kind_of_link_and_ipvlan_one_mode() {
    let beside = |kind: &str, mode: &str| {
        let link = InsideLink { kind: Some(kind.into()), mode: Some(mode.into()), ..facts().inside.links[1].clone() };
        let facts = Facts { sibling: Some(Sibling { link, owner: "db".into() }), ..facts() };
        plan(&ipvlan(IpvlanMode::L3), &facts, &samples::tag())
    };
    let mode = beside("ipvlan", "l2").unwrap_err();
    assert_eq!(
        (mode.kind, mode.message.as_str()),
        (Kind::Conflict, "eth0 has an ipvlan in mode l2, eth0 of db, and all on one parent are in one mode")
    );
    assert_eq!(mode.hint.unwrap(), "use --mode l2, or another parent; or detach those that are there");
    assert!(beside("ipvtap", "l3s").is_err());
    let kind = beside("macvlan", "bridge").unwrap_err();
    assert_eq!(
        (kind.kind, kind.message.as_str()),
        (Kind::Conflict, "eth0 has a macvlan, eth0 of db, and an ipvlan cannot be beside it")
    );
    assert_eq!(kind.hint.unwrap(), "use --driver macvlan, or another parent; or detach that one");
    assert!(beside("ipvlan", "l3").is_ok());
}

#[test]
fn a_record_keeps_the_driver() {
    let text = |driver: Driver| serde_json::to_string(&driver).unwrap();
    assert_eq!(text(Driver::Macvlan(MacvlanMode::Bridge)), r#"{"macvlan":"bridge"}"#);
    for (mode, name) in [(IpvlanMode::L2, "l2"), (IpvlanMode::L3, "l3"), (IpvlanMode::L3s, "l3s")] {
        assert_eq!(text(Driver::Ipvlan(mode)), format!(r#"{{"ipvlan":"{name}"}}"#));
        assert_eq!(serde_json::from_str::<Driver>(&text(Driver::Ipvlan(mode))).unwrap(), Driver::Ipvlan(mode));
        assert_eq!(mode.name(), name);
    }
}

/// A host that becomes the gateway of 10.1.0.0/24, and forwards as `change` leaves it.
fn gateway(masquerade: &[&str], change: impl FnOnce(&mut Ipv4Forwarding)) -> (Wish, Facts) {
    let mut now = Ipv4Forwarding { arp_ignore: "0".into(), ..Ipv4Forwarding::default() };
    change(&mut now);
    let wish = Wish {
        name: Some("gw-blue".parse().unwrap()),
        addresses: vec!["10.1.0.1/24".parse().unwrap()],
        gateways: vec![],
        keep_default: true,
        forwarding: Some(Forwarding { masquerade: masquerade.iter().map(|text| text.parse().unwrap()).collect() }),
        ..wish()
    };
    (wish, Facts { is_host: true, forwarding: Some(now), ..facts() })
}

fn last_steps(wish: &Wish, facts: &Facts) -> Vec<Step> {
    planned(wish, facts).routes
}

#[test]
fn a_gateway_masquerades_first_and_then_forwards() {
    let forward = Step::SetSysctl { key: "net/ipv4/ip_forward".into(), from: "0".into(), to: "1".into() };
    let (wish, facts) = gateway(&["10.1.0.0/24", "fd10::/64"], |_| {});
    assert_eq!(
        last_steps(&wish, &facts),
        [
            Step::AddMasquerade(samples::masquerade("10.1.0.0/24")),
            Step::AddMasquerade(samples::masquerade("fd10::/64")),
            forward.clone(),
        ]
    );
    assert_eq!(planned(&wish, &facts).warnings, [""; 0]);
    let (wish, facts) = gateway(&[], |_| {});
    assert_eq!(last_steps(&wish, &facts), [forward]);
}

#[test]
fn a_host_that_forwards_already_is_left_alone_and_so_is_one_that_needs_not() {
    let (wish, facts) = gateway(&[], |now| now.on = true);
    assert_eq!(last_steps(&wish, &facts), []);
    let (mut wish, facts) = gateway(&[], |_| {});
    wish.addresses = vec!["fd10::1/64".parse().unwrap()];
    assert_eq!(last_steps(&wish, &facts), [], "it has no IPv4 to forward");
}

#[test]
fn the_parent_of_a_gateway_is_kept_from_answering_for_it() {
    let quiet = |wish: &Wish, facts: &Facts| commands(&planned(wish, facts)).into_iter().find(|c| c.contains("arp"));
    let (wish, facts) = gateway(&[], |_| {});
    assert_eq!(quiet(&wish, &facts).unwrap(), "sh -c 'echo 1 > /proc/sys/net/ipv4/conf/eth0/arp_ignore'");
    let (wish, facts) = gateway(&[], |now| now.arp_ignore = "2".into());
    assert_eq!(quiet(&wish, &facts), None);
    let (mut wish, facts) = gateway(&[], |_| {});
    wish.addresses = vec!["fd10::1/64".parse().unwrap()];
    assert_eq!(quiet(&wish, &facts), None);
}

#[test]
fn what_the_kernel_overrides_when_forwarding_is_turned_off_again_is_put_back_after_it() {
    let redirects = ("net/ipv4/conf/all/accept_redirects".to_owned(), "0".to_owned());
    let (wish, facts) = gateway(&[], |now| now.overridden = vec![redirects]);
    let undone: Vec<String> =
        last_steps(&wish, &facts).iter().rev().map(|step| step.inverse().command("/proc/self/ns/net")).collect();
    assert_eq!(
        undone,
        [
            "sh -c 'echo 0 > /proc/sys/net/ipv4/ip_forward'",
            "sh -c 'echo 0 > /proc/sys/net/ipv4/conf/all/accept_redirects'"
        ]
    );
}

#[test]
fn a_firewall_that_drops_what_is_forwarded_is_told_with_the_way_through() {
    let (wish, facts) = gateway(&[], |now| now.accept_in = Some("DOCKER-USER"));
    let warnings = planned(&wish, &facts).warnings;
    assert_eq!(
        warnings,
        ["iptables drops what is forwarded here unless a rule accepts it (policy DROP of FORWARD; Docker sets it). \
          For gw-blue: iptables -I DOCKER-USER -i gw-blue -j ACCEPT; iptables -I DOCKER-USER -o gw-blue -j ACCEPT"]
    );
}

#[test]
fn a_gateway_masquerades_for_one_subnet_of_each_version() {
    let (wish, facts) = gateway(&["10.1.0.0/24", "fd10::/64", "10.2.0.0/24"], |_| {});
    let error = plan(&wish, &facts, &samples::tag()).unwrap_err();
    assert_eq!(error.kind, Kind::Usage);
    assert_eq!(
        error.message,
        "subnets 10.1.0.0/24 and 10.2.0.0/24 are of one IP version; a gateway masquerades for one of each"
    );
}

fn raises(steps: &[Step]) -> Vec<(qdisc::Side, u32, u32)> {
    let raise = |step: &Step| match step {
        Step::SetSegments { on, from, to } => Some((on.side, from.gso_ipv4, to.gso_ipv4)),
        _ => None,
    };
    steps.iter().filter_map(raise).collect()
}

#[test]
fn larger_segments_are_the_parents_first_and_no_larger_than_it_takes() {
    use qdisc::Side;
    let wish = Wish { tuning: Tuning { big_tcp: Some(262_144), ..Tuning::default() }, ..wish() };
    let mut facts = facts();
    let wiring = plan(&wish, &facts, &samples::tag()).unwrap();
    assert_eq!(raises(&wiring.connect), [(Side::Host, 65_536, 262_144), (Side::Inside, 65_536, 262_144)]);

    facts.parent.segments_most = 131_072;
    let wiring = plan(&wish, &facts, &samples::tag()).unwrap();
    assert_eq!(raises(&wiring.connect), [(Side::Host, 65_536, 131_072), (Side::Inside, 65_536, 131_072)]);
    assert_eq!(wiring.warnings, ["eth0 takes segments of up to 131072 bytes, not 262144"]);

    facts.parent.segments_most = 65_536;
    let wiring = plan(&wish, &facts, &samples::tag()).unwrap();
    assert_eq!(raises(&wiring.connect), []);
    assert_eq!(wiring.warnings, ["eth0 takes segments of up to 65536 bytes, so --big-tcp has no effect on it"]);

    facts.parent.segments = None;
    let error = plan(&wish, &facts, &samples::tag()).unwrap_err();
    assert_eq!(error.message, "this kernel has no IPv4 segments above 64 KiB: they came with Linux 6.3");
}

#[test]
fn what_others_have_raised_further_is_not_lowered() {
    let wish = Wish { tuning: Tuning { big_tcp: Some(131_072), ..Tuning::default() }, ..wish() };
    let mut facts = facts();
    facts.parent.segments = Some(samples::segments(262_144));
    let wiring = plan(&wish, &facts, &samples::tag()).unwrap();
    assert_eq!(raises(&wiring.connect)[0], (qdisc::Side::Host, 262_144, 262_144));
}

#[test]
fn a_queue_of_broadcasts_is_macvlans() {
    let tuning = Tuning { bc_queue_len: Some(5000), ..Tuning::default() };
    let wish = Wish { driver: Driver::Ipvlan(IpvlanMode::L2), tuning, ..wish() };
    assert!(wish.check().unwrap_err().message.starts_with("--bc-queue-len is macvlan's"));
}

fn veth(vlan: Option<u16>, switch: Option<Switch>) -> (Wish, Facts) {
    let driver = Driver::Veth { host_end: None, vlan: vlan.map(|id| id.try_into().unwrap()), switch: None };
    let (wish, mut facts) = (Wish { driver, ..wish() }, facts());
    facts.parent = Parent { name: "br0".parse().unwrap(), switch, ..facts.parent };
    (wish, facts)
}

#[test]
fn a_port_is_in_its_vlan_before_it_is_up_and_in_no_other() {
    let joins = |vlan, switch| {
        let (wish, facts) = veth(vlan, Some(switch));
        let first = commands(&planned(&wish, &facts)).swap_remove(0);
        first.split_once(" && ").unwrap().1.to_owned()
    };
    let filters = |default: Option<u16>| Switch::VlanBridge { default_vlan: default.map(|id| id.try_into().unwrap()) };
    let plain = "ip link set dev web-eth1 master br0 up";
    let own = "bridge vlan add dev web-eth1 vid 10 pvid untagged && ip link set dev web-eth1 up";
    assert_eq!(joins(None, Switch::Bridge), plain);
    assert_eq!(joins(None, filters(Some(1))), plain);
    assert_eq!(joins(Some(10), filters(None)), format!("ip link set dev web-eth1 master br0 && {own}"));
    assert_eq!(
        joins(Some(10), filters(Some(1))),
        format!("ip link set dev web-eth1 master br0 && bridge vlan del dev web-eth1 vid 1 && {own}")
    );
    assert_eq!(joins(Some(10), Switch::OpenVswitch), "ip link set dev web-eth1 up");
}

#[test]
fn a_bridge_that_cannot_keep_the_port_in_a_vlan_is_refused() {
    let refused = |vlan, switch| {
        let (wish, facts) = veth(vlan, switch);
        let error = plan(&wish, &facts, &samples::tag()).unwrap_err();
        (error.message, error.hint.unwrap())
    };
    let (message, hint) = refused(Some(10), Some(Switch::Bridge));
    assert_eq!(message, "br0 looks at no VLANs, so VLAN 10 would not be kept apart on it");
    assert!(hint.starts_with("ip link set br0 type bridge vlan_filtering 1 makes it"), "{hint}");
    let (message, hint) = refused(None, Some(Switch::VlanBridge { default_vlan: None }));
    assert_eq!(message, "br0 keeps VLANs apart and has none for new ports (vlan_default_pvid 0)");
    assert_eq!(hint, "add --vlan ID");
    assert_eq!(refused(Some(10), None).0, "br0 is no bridge, and a veth is a port of one");
}

#[test]
fn what_iptables_drops_is_told_of_where_it_matters() {
    let (wish, mut facts) = veth(None, Some(Switch::Bridge));
    let nftables = Iptables::Nftables { chain: "FORWARD" };
    let drops = |ipv6| Dropping { ipv6, by: nftables };
    facts.bridged_drops = vec![drops(true)];
    assert_eq!(planned(&wish, &facts).warnings, [""; 0], "nothing here is IPv6");
    facts.bridged_drops.push(drops(false));
    let warnings = planned(&wish, &facts).warnings;
    assert!(warnings[0].ends_with("by hand: iptables -I FORWARD -i br0 -o br0 -j ACCEPT"), "{warnings:?}");
    let wish = Wish { allow_forward: true, ..wish };
    assert_eq!(planned(&wish, &facts).warnings, [""; 0]);
    facts.bridged_drops[1].by = Iptables::Legacy;
    let error = plan(&wish, &facts, &samples::tag()).unwrap_err();
    assert_eq!(error.message, "what br0 passes on is dropped by iptables-legacy, whose rules plumb cannot change");
}
