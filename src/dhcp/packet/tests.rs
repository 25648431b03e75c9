use std::time::Duration;

use super::*;
use crate::{
    dhcp::{
        Term,
        server::{
            ACK, ADDRESS, DECLINE, DISCOVER, Damage, NAK, OFFER, RELEASE, REQUEST, SERVER, Said, damage, mac, option,
        },
    },
    types::HostAddress,
};
use proptest::prelude::*;

const XID: u32 = 0x1234_5678;

fn read(said: &Said) -> Result<Reply, Unfit> {
    Reply::read(&said.bytes(), XID, mac())
}

fn offer() -> Said {
    Said::new(OFFER, XID)
}

#[track_caller]
fn lease(said: Said) -> Lease {
    match read(&said) {
        Ok(Reply::Offer(lease)) => lease,
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn unusable(said: Said) -> String {
    match read(&said) {
        Err(Unfit::Unusable(reason)) => reason,
        other => panic!("{other:?}"),
    }
}

fn client() -> Client {
    Client {
        id: Some("01:02:00:00:00:00:07".parse().unwrap()),
        request: vec![OptionCode::VENDOR_SPECIFIC, OptionCode::ROUTERS],
        options: vec![OptionSpec::hostname("web").unwrap(), OptionSpec::vendor_class("plumb").unwrap()],
        ..Client::new(mac())
    }
}

#[test]
fn each_message_carries_what_table_5_says() {
    let address = ADDRESS;
    let server = SERVER;
    let none = Ipv4Addr::UNSPECIFIED;
    for (say, kind, own, requested, named) in [
        (Say::Discover { prefer: None }, DISCOVER, none, None, None),
        (Say::Discover { prefer: Some(address) }, DISCOVER, none, Some(address), None),
        (Say::Select { address, server }, REQUEST, none, Some(address), Some(server)),
        (Say::Reboot { address }, REQUEST, none, Some(address), None),
        (Say::Renew { address }, REQUEST, address, None, None),
        (Say::Decline { address, server }, DECLINE, none, Some(address), Some(server)),
        (Say::Release { address, server }, RELEASE, address, None, Some(server)),
    ] {
        let message = client().message(say, XID, 7);
        let heard = crate::dhcp::server::Heard::of(&message);
        let asks = matches!(kind, DISCOVER | REQUEST);
        assert_eq!((heard.kind, heard.xid, heard.own), (kind, XID, own), "{say:?}");
        assert_eq!((heard.requested, heard.server), (requested, named), "{say:?}");
        assert_eq!(heard.secs, if asks { 7 } else { 0 }, "{say:?}");
        assert_eq!(option(&message, 61).unwrap(), [1, 2, 0, 0, 0, 0, 7], "{say:?}");
        for code in [12, 55, 57, 60] {
            assert_eq!(option(&message, code).is_some(), asks, "{code} in {say:?}");
        }
    }
}

#[test]
fn options_are_sent_as_they_were_asked_for() {
    let message = client().message(Say::Discover { prefer: None }, XID, 0);
    assert_eq!(option(&message, 12).unwrap(), b"web");
    assert_eq!(option(&message, 60).unwrap(), b"plumb");
    assert_eq!(option(&message, 57).unwrap(), 1472u16.to_be_bytes());
    let list = option(&message, 55).unwrap();
    assert_eq!(
        list,
        [1, 121, 3, 6, 12, 15, 26, 42, 51, 54, 58, 59, 66, 67, 119, 43],
        "routes before routers, each once"
    );
    assert_eq!(message[10..12], [0, 0]);
    let broadcast = Client { broadcast: true, ..client() };
    assert_eq!(broadcast.message(Say::Renew { address: ADDRESS }, XID, 0)[10..12], [0x80, 0]);
    assert_eq!(broadcast.message(Say::Release { address: ADDRESS, server: SERVER }, XID, 0)[10..12], [0, 0]);
}

#[test]
fn an_offer_is_read_in_full() {
    let said = offer()
        .with(3, [192, 168, 0, 254, 192, 168, 0, 1])
        .with(6, [1, 1, 1, 1, 0, 0, 0, 0])
        .with(12, "web")
        .with(15, "lan")
        .with(26, 1400u16.to_be_bytes())
        .with(42, [192, 168, 0, 3])
        .with(58, 100u32.to_be_bytes())
        .with(59, 200u32.to_be_bytes())
        .with(66, "tftp.lan")
        .with(67, "pxe.0")
        .with(43, [1, 2]);
    let lease = lease(said);
    assert_eq!(lease.address.to_string(), "192.168.0.100/24");
    assert_eq!(lease.server, SERVER);
    let seconds = Duration::from_secs;
    assert_eq!(lease.term, Term::Finite { renew: seconds(100), rebind: seconds(200), expire: seconds(1000) });
    assert_eq!(lease.routers.iter().map(ToString::to_string).collect::<Vec<_>>(), ["192.168.0.254", "192.168.0.1"]);
    assert_eq!(lease.dns, [Ipv4Addr::new(1, 1, 1, 1)]);
    assert_eq!((lease.hostname.as_deref(), lease.domain.as_deref()), (Some("web"), Some("lan")));
    assert_eq!(lease.search, ["lan"]);
    assert_eq!(lease.mtu.unwrap().bytes(), 1400);
    assert_eq!(lease.ntp, [Ipv4Addr::new(192, 168, 0, 3)]);
    assert_eq!((lease.tftp_server.as_deref(), lease.bootfile.as_deref()), (Some("tftp.lan"), Some("pxe.0")));
    assert_eq!(lease.others.into_iter().collect::<Vec<_>>(), [(OptionCode::VENDOR_SPECIFIC, "0102".into())]);
}

#[test]
fn a_lease_is_kept_and_read_back() {
    let routes = [&[8u8, 10, 192, 168, 0, 5][..], &[0, 192, 168, 0, 9], &[24, 172, 16, 1, 0, 0, 0, 0]].concat();
    for said in [offer(), offer().lasting(u32::MAX).with(121, routes).with(43, [1]).with(15, "a.lan b.lan")] {
        let lease = lease(said);
        let kept = serde_json::to_string(&lease).unwrap();
        assert_eq!(serde_json::from_str::<Lease>(&kept).unwrap(), lease, "{kept}");
    }
}

#[test]
fn what_is_not_for_us_is_foreign() {
    let changed = |at: usize, to: u8| {
        let mut said = offer();
        said.header[at] = to;
        read(&said)
    };
    for (what, at, to) in [
        ("a request", 0, 1),
        ("another kind of hardware", 1, 6),
        ("an address of another length", 2, 16),
        ("an address of no length", 2, 0),
        ("another exchange", 7, 0x79),
        ("another client's", 33, 8),
        ("no magic cookie", 239, 0),
    ] {
        assert_eq!(changed(at, to), Err(Unfit::Foreign), "{what}");
    }
    assert_eq!(Reply::read(&offer().bytes()[..239], XID, mac()), Err(Unfit::Foreign), "cut in the header");
    assert_eq!(Reply::read(&[], XID, mac()), Err(Unfit::Foreign));
    assert_eq!(read(&offer().with(53, [DISCOVER])), Err(Unfit::Foreign), "what only clients say");
}

#[test]
fn an_offer_that_lacks_what_it_must_have_is_refused() {
    assert_eq!(
        unusable(offer().without(54)),
        "an offer of 192.168.0.100 cannot be used: it does not name its server (option 54)"
    );
    assert!(unusable(offer().by(Ipv4Addr::UNSPECIFIED)).contains("names no server"));
    assert!(unusable(offer().without(51)).contains("no lease time"));
    assert!(unusable(offer().without(53)).contains("which kind of message"));
    assert!(unusable(offer().with(53, [2, 2])).contains("which kind of message"));
    assert!(unusable(Said::new(NAK, XID).without(54)).contains("does not name its server"));
    assert!(unusable(offer().of(Ipv4Addr::UNSPECIFIED)).contains("not an address"));
    assert!(unusable(offer().of(Ipv4Addr::BROADCAST)).contains("cannot be used"));
    assert!(unusable(offer().of(Ipv4Addr::new(127, 0, 0, 1))).contains("loopback"));
    assert!(unusable(offer().of(Ipv4Addr::new(192, 168, 0, 255))).contains("broadcast address"));
    let cut = offer().bytes();
    let cut = Reply::read(&cut[..cut.len() - 3], XID, mac());
    assert_eq!(cut, Err(Unfit::Unusable("a reply cannot be used: an option reaches past the end".into())));
}

#[test]
fn a_lease_of_no_time_is_none_and_one_of_all_time_never_ends() {
    assert_eq!(unusable(offer().lasting(0)), "an offer of 192.168.0.100 cannot be used: its lease time is 0 s");
    assert_eq!(lease(offer().lasting(u32::MAX).with(58, 5u32.to_be_bytes())).term, Term::Infinite);
    let Term::Finite { expire, .. } = lease(offer().lasting(u32::MAX - 1)).term else { panic!() };
    assert_eq!(expire, Duration::from_secs(u64::from(u32::MAX) - 1));
}

#[test]
fn t1_and_t2_are_those_given_if_they_make_sense() {
    let times = |t1: Option<u32>, t2: Option<u32>| {
        let mut said = offer().lasting(800);
        for (code, time) in [(58, t1), (59, t2)] {
            said = time.map_or(said.clone(), |time| said.with(code, time.to_be_bytes()));
        }
        let Term::Finite { renew, rebind, expire } = lease(said).term else { panic!() };
        assert_eq!(expire.as_secs(), 800);
        (renew.as_secs(), rebind.as_secs())
    };
    assert_eq!(times(None, None), (400, 700));
    assert_eq!(times(Some(10), Some(20)), (10, 20));
    assert_eq!(times(Some(10), None), (10, 700));
    assert_eq!(times(Some(0), Some(0)), (400, 700));
    assert_eq!(times(Some(600), Some(500)), (285, 500), "T1 after T2");
    assert_eq!(times(Some(10), Some(800)), (10, 700), "T2 after the end");
    assert_eq!(times(Some(750), Some(900)), (400, 700), "both");
    assert_eq!(times(None, Some(70)), (40, 70), "T2 before half of the lease");
}

#[test]
fn a_mask_makes_sense_or_the_offer_is_refused() {
    let prefix = |said: Said| lease(said).address.prefix();
    assert_eq!(prefix(offer().with(1, [255, 255, 0, 0])), 16);
    assert_eq!(prefix(offer().with(1, [255; 4])), 32);
    assert!(unusable(offer().with(1, [255, 0, 255, 0])).contains("has holes"));
    assert!(unusable(offer().with(1, [0; 4])).contains("whole Internet"));
    assert!(unusable(offer().with(1, [255; 3])).contains("not four bytes"));
    // None: the class decides.
    let unmasked = |ip: [u8; 4]| prefix(offer().without(1).of(ip.into()));
    assert_eq!((unmasked([10, 0, 0, 7]), unmasked([172, 16, 0, 7]), unmasked([192, 168, 0, 7])), (8, 16, 24));
}

#[test]
fn a_router_outside_the_mask_is_on_the_link() {
    let lease = lease(offer().with(1, [255; 4]).with(3, [192, 168, 0, 1]));
    assert!(lease.is_off_link(lease.routers[0]));
    let usual = self::lease(offer().with(3, [192, 168, 0, 1]));
    assert!(!usual.is_off_link(usual.routers[0]));
}

#[test]
fn what_cannot_be_a_router_is_none() {
    let routers = |value: &[u8]| lease(offer().with(3, value)).routers;
    for none in [[0, 0, 0, 0], [192, 168, 0, 0], [192, 168, 0, 255], [192, 168, 0, 100], [224, 0, 0, 1], [127, 0, 0, 1]]
    {
        assert!(routers(&none).is_empty(), "{none:?}");
    }
    assert!(routers(&[192, 168, 0]).is_empty(), "cut");
    assert_eq!(routers(&[0, 0, 0, 0, 192, 168, 0, 1]).len(), 1);
    assert!(lease(offer()).routers.is_empty());
}

#[test]
fn classless_routes_override_the_routers() {
    let with = |value: &[u8]| lease(offer().with(3, [192, 168, 0, 1]).with(121, value));
    let text = |lease: &Lease| {
        let routers: Vec<String> = lease.routers.iter().map(ToString::to_string).collect();
        let routes: Vec<String> = lease.routes.iter().map(ToString::to_string).collect();
        (routers.join(" "), routes.join(" "))
    };
    let routes = with(&[0, 192, 168, 0, 9, 24, 10, 17, 1, 192, 168, 0, 5, 8, 172, 0, 0, 0, 0]);
    assert_eq!(text(&routes), ("192.168.0.9".into(), "10.17.1.0/24,via 192.168.0.5 172.0.0.0/8".into()));
    // RFC 3442: without a default route there is none, whatever option 3 says.
    assert_eq!(text(&with(&[8, 10, 192, 168, 0, 5])), (String::new(), "10.0.0.0/8,via 192.168.0.5".into()));
    assert_eq!(text(&with(&[20, 10, 1, 0xff, 192, 168, 0, 5])).1, "10.1.240.0/20,via 192.168.0.5", "host bits");
    // Malformed or empty, it is as if it were not there.
    for malformed in [&[33, 10, 0, 0, 0, 0, 192, 168, 0, 5][..], &[24, 10, 1], &[8, 10, 192, 168, 0], &[]] {
        assert_eq!(text(&with(malformed)), ("192.168.0.1".into(), String::new()), "{malformed:?}");
    }
    assert_eq!(text(&with(&[0, 0, 0, 0, 0])), (String::new(), String::new()), "the Internet is not on the link");
}

#[test]
fn long_and_repeated_options_are_one() {
    // 70 routers take 280 bytes, in two parts.
    let many: Vec<u8> = (1..=70).flat_map(|last| [192, 168, 0, last]).collect();
    assert_eq!(lease(offer().with(3, many)).routers.len(), 70);
    // What must be one value, and is two, is none.
    let mut twice = offer();
    twice.options.push((54, SERVER.octets().to_vec()));
    assert!(unusable(twice).contains("option 54"));
}

#[test]
fn texts_are_words_that_can_be_written_down() {
    let domains = |value: &str| lease(offer().with(15, value)).search;
    assert_eq!(domains("a.lan b.lan"), ["a.lan", "b.lan"]);
    assert_eq!(domains("lan\0"), ["lan"]);
    assert!(domains("lan\nnameserver 6.6.6.6").is_empty());
    assert_eq!(lease(offer().with(12, "$(reboot)")).hostname, None);
    assert_eq!(lease(offer().with(26, 20u16.to_be_bytes())).mtu, None);
    assert_eq!(lease(offer().with(15, "lan").with(119, b"\x01x\x03lan\x00")).search, ["x.lan"]);
}

#[test]
fn a_refusal_says_why() {
    let said = Said::new(NAK, XID).with(56, "wrong network");
    assert_eq!(read(&said), Ok(Reply::Nak { server: SERVER, why: Some("wrong network".into()) }));
}

#[test]
fn client_identifiers_are_stable_and_told_apart() {
    let id = ClientId::derived(&["host", "web", "eth1"]);
    assert_eq!(id, ClientId::derived(&["host", "web", "eth1"]));
    assert_ne!(id, ClientId::derived(&["host", "web", "eth2"]));
    assert_eq!(id.bytes().len(), 23);
    assert_eq!(id.bytes()[..7], [255, 0, 0, 0, 0, 0, 4]);
    assert_eq!("web".parse::<ClientId>().unwrap().bytes(), b"\0web");
    assert_eq!("01:aa".parse::<ClientId>().unwrap().bytes(), [1, 0xaa]);
    assert_eq!("ab".parse::<ClientId>().unwrap().bytes(), b"\0ab");
    assert!("".parse::<ClientId>().is_err() && "x".repeat(255).parse::<ClientId>().is_err());
    for id in [id, "web".parse().unwrap()] {
        assert_eq!(id.to_string().parse::<ClientId>().unwrap(), id);
    }
    assert!(OptionSpec::hostname("my web").is_err() && OptionSpec::vendor_class("").is_err());
}

proptest! {
    #[test]
    fn whatever_is_read_can_be_used(kind in 1u8..9, damages in proptest::collection::vec(damage(), 0..5)) {
        check(&Said::new(kind, XID).damaged(&damages));
    }

    #[test]
    fn any_bytes_are_survived(tail in proptest::collection::vec(any::<u8>(), 0..400)) {
        check(&tail);
        check(&Said::new(ACK, XID).damaged(&[Damage::Tail(tail)]));
    }
}

/// What is taken can be used as it is: that is what a lease promises.
fn check(message: &[u8]) {
    let Ok(Reply::Offer(lease) | Reply::Ack(lease)) = Reply::read(message, XID, mac()) else { return };
    assert!(lease.address.to_string().parse::<HostAddress>().is_ok(), "{lease:?}");
    assert_eq!(lease.ip().octets(), message[16..20], "{lease:?}");
    if let Term::Finite { renew, rebind, expire } = lease.term {
        assert!(Duration::ZERO < renew && renew < rebind && rebind < expire, "{lease:?}");
    }
    for name in lease.search.iter().chain(&lease.domain).chain(&lease.hostname) {
        assert_eq!(domain(name).as_ref(), Some(name));
    }
    let kept = serde_json::to_string(&lease).unwrap();
    assert_eq!(serde_json::from_str::<Lease>(&kept).unwrap(), lease);
    assert!(kept.len() < 16 * message.len() + 1000, "{} bytes of {}", kept.len(), message.len());
}
