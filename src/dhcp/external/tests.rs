use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::dhcp::Loss;

fn client() -> Client {
    let mut client = Client::new("02:00:00:00:00:07".parse().unwrap());
    client.id = Some("ff:00:01".parse().unwrap());
    client.options = vec![OptionSpec::hostname("web").unwrap(), OptionSpec::vendor_class("a \"b\"").unwrap()];
    client
}

fn external(program: Program) -> External {
    External { program, arguments: vec!["-S".into()], helper: None }
}

fn message(argument: &str, variables: &[(&str, &str)]) -> Vec<u8> {
    tell(argument, variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())))
}

/// What each client of Debian 12 said of the same lease of dnsmasq.
const UDHCPC: &[(&str, &str)] = &[
    ("interface", "eth1"),
    ("ip", "192.168.9.55"),
    ("mask", "24"),
    ("subnet", "255.255.255.0"),
    ("router", "192.168.9.1"),
    ("staticroutes", "10.0.0.0/8 192.168.9.2 0.0.0.0/0 192.168.9.1"),
    ("dns", "192.168.9.1"),
    ("domain", "lab"),
    ("search", "a.lab b.lab"),
    ("hostname", "web"),
    ("mtu", "1400"),
    ("ntpsrv", "192.168.9.1"),
    ("lease", "1200"),
    ("serverid", "192.168.9.1"),
    ("opt53", "05"),
    ("opt58", "00000258"),
    ("opt59", "0000041a"),
    ("opt43", "0102"),
    ("PATH", "/usr/sbin:/bin"),
];
const DHCLIENT: &[(&str, &str)] = &[
    ("reason", "BOUND"),
    ("interface", "eth1"),
    ("new_ip_address", "192.168.9.55"),
    ("new_subnet_mask", "255.255.255.0"),
    ("new_routers", "192.168.9.1"),
    ("new_rfc3442_classless_static_routes", "8 10 192 168 9 2 0 192 168 9 1"),
    ("new_domain_name_servers", "192.168.9.1"),
    ("new_domain_name", "lab"),
    ("new_domain_search", "a.lab. b.lab."),
    ("new_host_name", "web"),
    ("new_interface_mtu", "1400"),
    ("new_ntp_servers", "192.168.9.1"),
    ("new_dhcp_lease_time", "1200"),
    ("new_dhcp_server_identifier", "192.168.9.1"),
    ("new_dhcp_message_type", "5"),
    ("new_dhcp_renewal_time", "600"),
    ("new_dhcp_rebinding_time", "1050"),
    ("new_plumb_43", "1:2"),
];
const DHCPCD: &[(&str, &str)] = &[
    ("reason", "BOUND"),
    ("interface", "eth1"),
    ("new_ip_address", "192.168.9.55"),
    ("new_subnet_cidr", "24"),
    ("new_subnet_mask", "255.255.255.0"),
    ("new_network_number", "192.168.9.0"),
    ("new_routers", "192.168.9.1"),
    ("new_classless_static_routes", "10.0.0.0/8 192.168.9.2 0.0.0.0/0 192.168.9.1"),
    ("new_domain_name_servers", "192.168.9.1"),
    ("new_domain_name", "lab"),
    ("new_domain_search", "a.lab b.lab"),
    ("new_host_name", "web"),
    ("new_interface_mtu", "1400"),
    ("new_ntp_servers", "192.168.9.1"),
    ("new_dhcp_lease_time", "1200"),
    ("new_dhcp_server_identifier", "192.168.9.1"),
    ("new_dhcp_renewal_time", "600"),
    ("new_dhcp_rebinding_time", "1050"),
    ("new_plumb_43", "1:2"),
];

fn granted(program: Program, message: &[u8]) -> Lease {
    match Told::read(program, message) {
        Ok(Told::Granted(lease)) => *lease,
        other => panic!("{other:?}"),
    }
}

#[test]
fn whoever_tells_it_it_is_the_same_lease() {
    let first = granted(Program::Udhcpc, &message("bound", UDHCPC));
    assert_eq!(first.address.to_string(), "192.168.9.55/24");
    assert_eq!(first.routers.iter().map(ToString::to_string).collect::<Vec<_>>(), ["192.168.9.1"]);
    assert_eq!(first.routes.iter().map(ToString::to_string).collect::<Vec<_>>(), ["10.0.0.0/8,via 192.168.9.2"]);
    assert_eq!((first.domain.as_deref(), first.search.join(" ")), (Some("lab"), "a.lab b.lab".into()));
    assert_eq!((first.hostname.as_deref(), first.mtu.map(|mtu| mtu.bytes())), (Some("web"), Some(1400)));
    let seconds = Duration::from_secs;
    let term = crate::dhcp::Term::Finite { renew: seconds(600), rebind: seconds(1050), expire: seconds(1200) };
    assert_eq!(first.term, term);
    assert_eq!(first.others.get(&OptionCode::VENDOR_SPECIFIC).map(String::as_str), Some("0102"));
    assert_eq!(granted(Program::Dhclient, &message("", DHCLIENT)), first);
    assert_eq!(granted(Program::Dhcpcd, &message("", DHCPCD)), first);
    assert_eq!(granted(Program::Busybox, &message("renew", UDHCPC)), first);
}

#[test]
fn events_are_told_apart() {
    let of = |program, argument, reason| Told::read(program, &message(argument, &[("reason", reason)])).unwrap();
    for nothing in ["PREINIT", "CARRIER", "NOCARRIER", "STOPPED", "FAIL", ""] {
        assert_eq!(of(Program::Dhcpcd, "", nothing), Told::Nothing);
    }
    assert_eq!(of(Program::Dhclient, "", "EXPIRE"), Told::Lost(Loss::Expired));
    assert_eq!(of(Program::Dhcpcd, "", "NAK"), Told::Lost(Loss::Refused));
    assert_eq!(of(Program::Udhcpc, "deconfig", "BOUND"), Told::Lost(Loss::Expired));
    assert_eq!(of(Program::Udhcpc, "nak", ""), Told::Lost(Loss::Refused));
    assert_eq!(of(Program::Udhcpc, "leasefail", ""), Told::Nothing);
}

#[test]
fn what_a_packet_could_not_say_is_refused() {
    let refused = |name: &str, value: &str| {
        let mut variables: Vec<_> = UDHCPC.iter().filter(|(known, _)| *known != name).copied().collect();
        variables.extend((!value.is_empty()).then_some((name, value)));
        Told::read(Program::Udhcpc, &message("bound", &variables)).unwrap_err()
    };
    assert_eq!(refused("ip", ""), "what udhcpc says cannot be used: it tells no address");
    assert_eq!(refused("ip", "1.2.3"), "what udhcpc says cannot be used: \"1.2.3\" is no address");
    assert_eq!(refused("subnet", "255.0.255.0"), "what udhcpc says cannot be used: its mask (option 1) has holes");
    assert_eq!(refused("lease", "0"), "what udhcpc says cannot be used: its lease time is 0 s");
    assert_eq!(refused("serverid", ""), "what udhcpc says cannot be used: it does not name its server (option 54)");
    assert_eq!(refused("router", "x"), "what udhcpc says cannot be used: router is \"x\"");
    for odd in ["10.0.0.0/33 1.2.3.4", "10.0.0.0/8", "10.0.0.0/8 x", "256"] {
        assert!(refused("staticroutes", odd).ends_with(&format!("staticroutes is {odd:?}")), "{odd}");
    }
    // Of texts, what could harm is left out, as it is of a packet.
    let mut variables = UDHCPC.to_vec();
    variables.extend([("hostname", "a;rm -rf /"), ("search", "ok.lab -x.lab")]);
    let lease = granted(Program::Udhcpc, &message("bound", &variables));
    assert_eq!((lease.hostname, lease.search), (None, vec!["ok.lab".to_owned()]));
}

#[test]
fn each_is_told_the_same_in_its_own_words() {
    let lease = granted(Program::Udhcpc, &message("bound", UDHCPC));
    let call = external(Program::Udhcpc).call(&client(), "eth1", Some(&lease)).unwrap();
    let line = call.arguments.join(" ");
    assert!(line.starts_with("-f -i eth1 -s /run/plumb/dhcp-event "), "{line}");
    assert!(line.contains(" -C -x 0x3d:ff0001 -x 0x0c:776562 -x 0x3c:6120226222 -V  -O 1 -O 121 "), "{line}");
    assert!(line.ends_with(" -r 192.168.9.55 -S"), "{line}");

    let call = external(Program::Dhcpcd).call(&client(), "eth1", Some(&lease)).unwrap();
    let line = call.arguments.join(" ");
    assert!(line.contains(" -I ff:00:01 -h web -i a \"b\" -o 1,121,3,"), "{line}");
    assert!(line.ends_with(" -r 192.168.9.55 -S eth1"), "{line}");

    let mut asks = client();
    asks.options.push("77=lab".parse().unwrap());
    asks.request = vec!["43".parse().unwrap()];
    let call = external(Program::Dhclient).call(&asks, "eth1", Some(&lease)).unwrap();
    assert!(call.arguments.join(" ").ends_with(" -e PLUMB_DHCP_EVENT=/run/plumb/event -S eth1"));
    let [(_, conf), (_, leases)] = call.files.as_slice() else { panic!("{call:?}") };
    for line in [
        "option plumb-43 code 43 = string;",
        "option plumb-77 code 77 = string;",
        "send dhcp-client-identifier ff:00:01;",
        "send host-name \"web\";",
        "send vendor-class-identifier \"a\\040\\042b\\042\";",
        "send plumb-77 6c:61:62;",
    ] {
        assert!(conf.lines().any(|there| there == line), "{line}\n{conf}");
    }
    assert!(conf.contains("domain-search, plumb-43;"), "{conf}");
    assert!(leases.contains("fixed-address 192.168.9.55;"), "{leases}");
}

#[test]
fn what_a_client_cannot_do_is_said_beforehand() {
    let refused = |program, client: &Client| external(program).call(client, "eth1", None).unwrap_err();
    let loud = Client { broadcast: true, ..client() };
    assert!(refused(Program::Dhclient, &loud).starts_with("dhclient cannot ask for answers by broadcast"));
    assert!(external(Program::Udhcpc).call(&loud, "eth1", None).unwrap().arguments.contains(&"-B".into()));
    assert!(external(Program::Dhcpcd).call(&loud, "eth1", None).unwrap().arguments.contains(&"-J".into()));
    let mut asks = client();
    asks.options.push("77=lab".parse().unwrap());
    assert!(refused(Program::Dhcpcd, &asks).starts_with("dhcpcd cannot be told to send DHCP option 77"));
    assert_eq!(
        "dhclent".parse::<Program>().unwrap_err(),
        "\"dhclent\" is no DHCP client that plumb can drive; did you mean dhclient?"
    );
}

proptest! {
    #[test]
    fn anything_is_survived(argument in "bound|renew|\\PC{0,9}", names in proptest::collection::vec("(new_)?[a-z_0-9]{1,12}", 0..9), values in proptest::collection::vec("\\PC{0,30}|[0-9./ :]{0,40}", 9)) {
        let variables: Vec<(&str, &str)> = names.iter().zip(&values).map(|(name, value)| (name.as_str(), value.as_str())).collect();
        for program in Program::ALL {
            let _ = Told::read(program, &message(&argument, &variables));
            let all: Vec<_> = UDHCPC.iter().chain(DHCPCD).copied().chain(variables.iter().copied()).collect();
            let _ = Told::read(program, &message(&argument, &all));
        }
    }

    #[test]
    fn known_variables_with_any_value_are_survived(at in 0usize..36, value in "\\PC{0,40}|[0-9./ :]{0,60}") {
        let mut all: Vec<_> = UDHCPC.iter().chain(DHCPCD).copied().collect();
        if let Some(one) = all.get_mut(at) {
            one.1 = &value;
        }
        for program in Program::ALL {
            let _ = Told::read(program, &message("bound", &all));
        }
    }

    #[test]
    fn any_bytes_are_survived(message in proptest::collection::vec(any::<u8>(), 0..200)) {
        for program in Program::ALL {
            let _ = Told::read(program, &message);
        }
    }
}
