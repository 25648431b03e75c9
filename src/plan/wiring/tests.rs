//! Plans and refusals, without a kernel.

use super::super::facts::{InsideAddress, InsideLink, Ipv6Defaults};
use super::super::samples;
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
        ethernet: true,
        wireless: false,
        port_of: None,
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
        ipv6: Some(Ipv6Defaults { disabled: true, accept_ra: "1".into() }),
    };
    Facts { parent, inside, on_record: vec![], is_host: false }
}

fn wish() -> Wish {
    Wish {
        target: "web".into(),
        driver: Driver::Macvlan(MacvlanMode::Bridge),
        name: None,
        mac: MacRule::Derived { host: Some("0123456789abcdef0123456789abcdef".into()) },
        mtu: None,
        addresses: vec!["192.168.0.100/24".parse().unwrap()],
        gateways: vec!["192.168.0.1".parse().unwrap()],
        routes: vec![],
        metric: None,
        keep_default: false,
        off_link_gateway: false,
        allow_wifi: false,
        skip_dad: false,
        forwarding: None,
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
    assert!(wifi.message.contains("wifi") && wifi.hint.unwrap().contains("--allow-wifi"));
    let tun = refused(|_, facts| facts.parent.ethernet = false);
    assert!(tun.message.contains("not an Ethernet interface"));
}

#[test]
fn wifi_is_taken_when_it_is_said_to_work() {
    let (mut wish, mut facts) = (wish(), facts());
    wish.allow_wifi = true;
    facts.parent.wireless = true;
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
