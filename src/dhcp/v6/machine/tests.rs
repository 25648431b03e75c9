use super::*;
use crate::dhcp::{
    ClientId,
    v6::message::tests::{ADDRESS, Said, server},
};
use proptest::prelude::*;

const FROM: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);

fn s(count: u64) -> Duration {
    Duration::from_secs(count)
}

/// A machine with a clock in the test's hand.
struct Bench {
    machine: Machine,
    now: Duration,
    said: Vec<Action>,
}

impl Bench {
    fn started() -> Bench {
        let client = Client::of(&ClientId::derived(&["test"]));
        let mut bench = Bench { machine: Machine::new(client, 7), now: s(1_000_000), said: Vec::new() };
        bench.said = bench.machine.start(bench.now, Start::Init { prefer: None });
        bench
    }

    /// With an address for 1000 s, to be renewed after 400 and rebound after 640.
    fn bound() -> Bench {
        let mut bench = Bench::started();
        bench.hear(Said::advertise());
        bench.hear(Said::reply());
        assert!(matches!(bench.said[..], [Action::Bound { before: None, .. }]), "{:?}", bench.said);
        bench
    }

    /// The answer to what was asked last.
    fn hear(&mut self, said: Said) {
        let bytes = said.bytes(&self.machine.client, self.machine.xid);
        self.said = self.machine.receive(self.now, FROM, &bytes);
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.said = self.machine.tick(self.now);
    }

    /// To when it is woken next; says how long that was.
    fn wake(&mut self) -> Duration {
        let wait = self.machine.wake().unwrap() - self.now;
        self.pass(wait);
        wait
    }

    /// The kind of the message that was sent last, by its number.
    fn sent(&self) -> Option<u8> {
        self.said.iter().rev().find_map(|action| if let Action::Send(bytes) = action { Some(bytes[0]) } else { None })
    }
}

const SOLICITED: Option<u8> = Some(1);
const REQUESTED: Option<u8> = Some(3);
const RENEWED: Option<u8> = Some(5);
const REBOUND: Option<u8> = Some(6);
const RELEASED: Option<u8> = Some(8);
const DECLINED: Option<u8> = Some(9);

#[test]
fn four_messages_make_a_lease() {
    let mut bench = Bench::started();
    assert_eq!(bench.sent(), SOLICITED);
    bench.hear(Said::advertise());
    assert_eq!(bench.sent(), REQUESTED);
    bench.hear(Said::reply());
    let [Action::Bound { lease, before: None }] = &bench.said[..] else { panic!("{:?}", bench.said) };
    assert_eq!((lease.ip(), lease.address.prefix(), lease.from), (ADDRESS, 128, FROM));
    assert_eq!(lease.term, Term::Finite { renew: s(400), rebind: s(640), expire: s(1000) });
    assert_eq!(bench.machine.wake(), Some(bench.now + s(400)));
}

#[test]
fn who_is_not_answered_asks_again_ever_more_seldom() {
    let mut bench = Bench::started();
    let waits: Vec<f64> = (0..14).map(|_| bench.wake().as_secs_f64()).collect();
    assert!((1.0..=1.1).contains(&waits[0]), "never shorter than a second: {waits:?}");
    for pair in waits.windows(2).take(10) {
        assert!((1.7..=2.45).contains(&(pair[1] / pair[0])), "{waits:?}");
    }
    assert!(waits[13] <= 3960.0, "an hour and a tenth at most: {waits:?}");
    assert_eq!(bench.sent(), SOLICITED);
}

#[test]
fn a_server_that_falls_silent_is_left_after_ten_requests() {
    let mut bench = Bench::started();
    bench.hear(Said::advertise());
    for _ in 0..9 {
        bench.wake();
        assert_eq!(bench.sent(), REQUESTED);
    }
    bench.wake();
    assert_eq!(bench.sent(), SOLICITED);
    assert_eq!(bench.machine.complaint(), Some("fe80::1 offered fd00::100 and did not confirm it"));
}

#[test]
fn a_lease_is_renewed_then_rebound_then_lost() {
    let mut bench = Bench::bound();
    bench.pass(s(399));
    assert_eq!(bench.said, []);
    bench.pass(s(1));
    assert_eq!(bench.sent(), RENEWED);
    while bench.sent() == RENEWED {
        bench.wake();
    }
    assert_eq!((bench.sent(), bench.now), (REBOUND, s(1_000_640)));
    while bench.sent() == REBOUND {
        bench.wake();
    }
    assert_eq!(bench.now, s(1_001_000));
    assert!(
        matches!(&bench.said[..], [Action::Lost { why: Loss::Expired, .. }, Action::Send(message)] if message[0] == 1)
    );
}

#[test]
fn each_renewal_counts_anew() {
    for after in [400, 640] {
        let mut bench = Bench::bound();
        bench.pass(s(after));
        bench.hear(Said::reply());
        assert!(
            matches!(&bench.said[..], [Action::Bound { before: Some(before), lease }] if before.ip() == lease.ip())
        );
        assert_eq!(bench.machine.wake(), Some(bench.now + s(400)));
    }
}

#[test]
fn another_address_takes_the_place_of_the_old_one() {
    let mut bench = Bench::bound();
    bench.pass(s(400));
    bench.hear(Said { address: Some(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 7)), ..Said::reply() });
    assert!(matches!(&bench.said[..], [Action::Bound { before: Some(before), lease }] if before.ip() != lease.ip()));
}

#[test]
fn a_server_that_has_forgotten_is_asked_anew() {
    let mut bench = Bench::bound();
    bench.pass(s(400));
    bench.hear(Said { address: None, status_of_binding: Some(3), ..Said::reply() });
    assert_eq!(bench.sent(), REQUESTED);
    bench.hear(Said::reply());
    assert!(matches!(&bench.said[..], [Action::Bound { before: Some(_), .. }]), "{:?}", bench.said);
}

#[test]
fn a_refused_renewal_loses_the_address_at_once() {
    for said in [
        Said { status_of_binding: Some(4), ..Said::reply() },
        Said { address: None, status_of_binding: Some(2), ..Said::reply() },
        Said { status: Some(1), ..Said::reply() },
    ] {
        let mut bench = Bench::bound();
        bench.pass(s(400));
        bench.hear(said);
        assert!(
            matches!(&bench.said[..], [Action::Lost { why: Loss::Refused, .. }, Action::Send(_)]),
            "{:?}",
            bench.said
        );
    }
}

#[test]
fn an_empty_pool_is_told_of() {
    let mut bench = Bench::started();
    bench.hear(Said { address: None, status_of_binding: Some(2), words: "none left", ..Said::advertise() });
    assert_eq!(bench.said, []);
    assert_eq!(bench.machine.complaint(), Some("fe80::1 grants nothing: it has no address left (none left)"));
    bench.wake();
    assert_eq!(bench.sent(), SOLICITED);
}

#[test]
fn what_is_no_answer_changes_nothing() {
    let others = [
        Said { xid: Some([9; 3]), ..Said::advertise() },
        Said { client: Some(vec![0, 1, 2]), ..Said::advertise() },
        Said { server: None, ..Said::advertise() },
        Said { iaid: 9, ..Said::advertise() },
        Said { kind: 7, ..Said::advertise() },
        Said { kind: 1, ..Said::advertise() },
        Said { address: None, ..Said::advertise() },
        Said { valid: 0, ..Said::advertise() },
        Said { preferred: 2000, ..Said::advertise() },
        Said { t1: 700, t2: 640, ..Said::advertise() },
        Said { address: Some(Ipv6Addr::LOCALHOST), ..Said::advertise() },
        Said { address: Some(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1)), ..Said::advertise() },
    ];
    for said in others {
        let mut bench = Bench::started();
        let text = format!("{said:?}");
        bench.hear(said);
        assert_eq!(bench.said, [], "{text}");
        bench.hear(Said::advertise());
        assert_eq!(bench.sent(), REQUESTED, "after {text}");
    }
    let mut bench = Bench::started();
    bench.hear(Said::advertise());
    bench.hear(Said { server: Some(vec![0, 1, 9]), ..Said::reply() });
    assert_eq!(bench.said, [], "the answer of a server that was not asked");
}

#[test]
fn times_that_a_server_leaves_open_are_half_and_four_fifths() {
    let mut bench = Bench::started();
    bench.hear(Said { t1: 0, t2: 0, preferred: 800, ..Said::advertise() });
    bench.hear(Said { t1: 0, t2: 0, preferred: 800, ..Said::reply() });
    let [Action::Bound { lease, .. }] = &bench.said[..] else { panic!("{:?}", bench.said) };
    assert_eq!(lease.term, Term::Finite { renew: s(400), rebind: s(640), expire: s(1000) });
    let mut bench = Bench::started();
    let for_ever = || Said { t1: u32::MAX, t2: u32::MAX, preferred: u32::MAX, valid: u32::MAX, ..Said::reply() };
    bench.hear(Said { kind: 2, ..for_ever() });
    bench.hear(for_ever());
    assert_eq!(bench.machine.wake(), None, "{:?}", bench.said);
}

#[test]
fn an_address_in_use_is_declined_and_another_asked_for() {
    let mut bench = Bench::bound();
    bench.said = bench.machine.in_use(bench.now);
    assert!(
        matches!(&bench.said[..], [Action::Send(first), Action::Send(then)] if Some(first[0]) == DECLINED && Some(then[0]) == SOLICITED)
    );
}

#[test]
fn what_is_given_back_is_over() {
    let mut bench = Bench::bound();
    bench.said = bench.machine.release();
    assert_eq!((bench.sent(), bench.machine.wake()), (RELEASED, None));
    assert_eq!(bench.machine.release(), []);
}

#[test]
fn another_process_goes_on_where_one_ended() {
    let bench = Bench::bound();
    let [Action::Bound { lease, .. }] = &bench.said[..] else { panic!() };
    let start = Start::Resume { lease: lease.clone(), age: s(500) };
    let mut heir = Machine::new(bench.machine.client.clone(), 8);
    assert!(matches!(&heir.start(bench.now + s(500), start.clone())[..], [Action::Send(message)] if message[0] == 5));
    let mut late = Machine::new(bench.machine.client.clone(), 8);
    let late = late.start(bench.now + s(2000), Start::Resume { lease: lease.clone(), age: s(2000) });
    assert!(matches!(&late[..], [Action::Lost { why: Loss::Expired, .. }, Action::Send(_)]));
}

proptest! {
    #[test]
    fn any_message_is_survived(bytes in proptest::collection::vec(any::<u8>(), 0..200), at in 0usize..120, with: u8) {
        let mut bench = Bench::bound();
        bench.pass(s(400));
        let _ = bench.machine.receive(bench.now, FROM, &bytes);
        let mut damaged = Said::reply().bytes(&bench.machine.client, bench.machine.xid);
        let length = damaged.len();
        damaged[at % length] ^= with;
        for action in bench.machine.receive(bench.now, FROM, &damaged) {
            if let Action::Bound { lease, .. } = action {
                prop_assert!(lease.server == server() || at > 0);
                prop_assert!(!lease.ip().is_multicast() && !lease.ip().is_unspecified());
            }
        }
        prop_assert!(bench.machine.wake().is_none_or(|wake| wake > bench.now), "it would spin");
    }
}
