use super::*;
use crate::{
    dhcp::server::{
        ACK, ADDRESS, DECLINE, DISCOVER, Damage, Heard, NAK, OFFER, OTHER_SERVER, RELEASE, REQUEST, SERVER, Said,
        damage, mac,
    },
    types::HostAddress,
};
use proptest::prelude::*;

const ELSE: Ipv4Addr = Ipv4Addr::new(192, 168, 0, 101);
const NOWHERE: Ipv4Addr = Ipv4Addr::UNSPECIFIED;

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

/// A machine with a clock in the test's hand, which is never at zero, as a real one.
struct Bench {
    machine: Machine,
    now: Duration,
    said: Vec<Action>,
}

impl Bench {
    fn new(checks: bool) -> Bench {
        Bench { machine: Machine::new(Client::new(mac()), checks, 7), now: seconds(1_000_000), said: Vec::new() }
    }

    fn started() -> Bench {
        let mut bench = Bench::new(false);
        bench.start(Start::Init { prefer: None });
        bench
    }

    fn start(&mut self, start: Start) {
        self.said = self.machine.start(self.now, start);
    }

    /// BOUND to `ADDRESS` for 1000 s: T1 after 500 s at the latest, T2 after 875 s.
    fn bound() -> Bench {
        let mut bench = Bench::started();
        bench.hear(OFFER, |said| said);
        bench.hear(ACK, |said| said);
        assert_eq!(bench.phase(), Phase::Bound);
        bench
    }

    fn renewing() -> Bench {
        let mut bench = Bench::bound();
        bench.wake();
        assert_eq!(bench.phase(), Phase::Renewing);
        bench
    }

    fn rebinding() -> Bench {
        let mut bench = Bench::bound();
        bench.pass(seconds(875));
        assert_eq!(bench.phase(), Phase::Rebinding);
        bench
    }

    fn rebooting(age_s: u64) -> Bench {
        let lease = Bench::bound().machine.held().unwrap().lease.clone();
        let mut bench = Bench::new(true);
        bench.start(Start::Reboot { lease, age: seconds(age_s) });
        bench
    }

    /// The server answers the exchange that is open.
    fn hear(&mut self, kind: u8, change: impl FnOnce(Said) -> Said) {
        let reply = change(Said::new(kind, self.machine.xid)).bytes();
        self.said = self.machine.receive(self.now, &reply);
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.said = self.machine.tick(self.now);
    }

    /// Time passes until the machine wants to be woken; says how much.
    fn wake(&mut self) -> f64 {
        let pause = self.machine.wake().unwrap() - self.now;
        self.pass(pause);
        pause.as_secs_f64()
    }

    fn phase(&self) -> Phase {
        self.machine.phase()
    }

    fn sent(&self) -> Vec<(Heard, Option<Ipv4Addr>, Ipv4Addr)> {
        let packets = self.said.iter().filter_map(|action| match action {
            Action::Send(packet) => Some(packet),
            Action::Check(_) | Action::Bound { .. } | Action::Lost { .. } => None,
        });
        packets.map(|packet| (Heard::of(&packet.message), packet.from, packet.to)).collect()
    }

    /// The one message that was sent, by broadcast from no address.
    #[track_caller]
    fn broadcast(&self) -> Heard {
        match self.sent()[..] {
            [(heard, None, BROADCAST)] => heard,
            ref other => panic!("{other:?}"),
        }
    }

    fn bound_to(&self) -> Option<(Ipv4Addr, Option<Ipv4Addr>)> {
        self.said.iter().find_map(|action| match action {
            Action::Bound { lease, before } => Some((lease.ip(), before.as_ref().map(|lease| lease.ip()))),
            Action::Send(_) | Action::Check(_) | Action::Lost { .. } => None,
        })
    }

    fn lost(&self) -> Option<Loss> {
        self.said.iter().find_map(|action| match action {
            Action::Lost { why, .. } => Some(*why),
            Action::Send(_) | Action::Check(_) | Action::Bound { .. } => None,
        })
    }

    /// Nothing came of it.
    #[track_caller]
    fn unmoved(&self, phase: Phase) {
        assert_eq!((self.said.as_slice(), self.phase()), ([].as_slice(), phase));
    }
}

// INIT, SELECTING, REQUESTING

#[test]
fn init_discovers_selects_requests_and_is_bound() {
    let mut bench = Bench::started();
    let discover = bench.broadcast();
    assert_eq!((discover.kind, discover.own, discover.requested, discover.server), (DISCOVER, NOWHERE, None, None));
    assert_eq!((bench.phase(), bench.machine.lease()), (Phase::Selecting, None));
    bench.hear(OFFER, |said| said);
    let request = bench.broadcast();
    assert_eq!((request.kind, request.xid, request.own), (REQUEST, discover.xid, NOWHERE));
    assert_eq!((request.requested, request.server), (Some(ADDRESS), Some(SERVER)));
    assert_eq!((bench.phase(), bench.machine.lease()), (Phase::Requesting, None));
    bench.hear(ACK, |said| said);
    assert_eq!((bench.phase(), bench.bound_to()), (Phase::Bound, Some((ADDRESS, None))));
    assert_eq!(bench.machine.lease().unwrap().ip(), ADDRESS);
    assert_eq!(bench.machine.expires(), Some(bench.now + seconds(1000)));
}

#[test]
fn a_welcome_address_is_asked_for() {
    let mut bench = Bench::new(false);
    bench.start(Start::Init { prefer: Some(ELSE) });
    assert_eq!(bench.broadcast().requested, Some(ELSE));
}

#[test]
fn discovers_are_repeated_with_back_off_and_jitter() {
    let mut bench = Bench::started();
    let first = bench.broadcast();
    let mut pauses = Vec::new();
    let mut waited = 0.0;
    for around in [4.0, 8.0, 16.0, 32.0, 64.0, 64.0, 64.0] {
        let pause = bench.wake();
        waited += pause;
        assert!((around - 1.0..=around + 1.0).contains(&pause), "{pause} s instead of {around} s");
        let again = bench.broadcast();
        assert_eq!((again.kind, again.xid, again.secs), (DISCOVER, first.xid, waited as u16));
        pauses.push(pause.fract());
    }
    pauses.dedup();
    assert!(pauses.len() > 5, "no chance in it: {pauses:?}");
    let other = Machine::new(Client::new(mac()), false, 8).start(bench.now, Start::Init { prefer: None });
    let [Action::Send(packet)] = other.as_slice() else { panic!("{other:?}") };
    assert_ne!(Heard::of(&packet.message).xid, first.xid, "another seed, another exchange");
}

#[test]
fn a_request_says_for_how_long_its_discover_said_it_had_asked() {
    let mut bench = Bench::started();
    bench.wake();
    let discover = bench.broadcast();
    bench.now += seconds(2);
    bench.hear(OFFER, |said| said);
    assert_eq!(bench.broadcast().secs, discover.secs);
}

#[test]
fn a_request_is_repeated_for_a_minute_and_then_all_begins_anew() {
    let mut bench = Bench::started();
    let old = bench.broadcast().xid;
    bench.hear(OFFER, |said| said);
    let mut waited = 0.0;
    for _ in 0..3 {
        waited += bench.wake();
        assert_eq!((bench.broadcast().kind, bench.broadcast().server), (REQUEST, Some(SERVER)));
    }
    waited += bench.wake();
    assert!((56.0..=64.0).contains(&waited), "{waited}");
    assert_eq!((bench.broadcast().kind, bench.phase()), (DISCOVER, Phase::Selecting));
    assert_ne!(bench.broadcast().xid, old);
    assert_eq!(bench.machine.complaint(), Some("192.168.0.1 offered 192.168.0.100 and did not confirm it"));
}

#[test]
fn the_lease_counts_from_the_first_request() {
    let mut bench = Bench::started();
    bench.hear(OFFER, |said| said);
    let asked = bench.now;
    bench.wake();
    bench.hear(ACK, |said| said);
    assert_eq!(bench.machine.expires(), Some(asked + seconds(1000)));
}

#[test]
fn selecting_discards_all_but_offers() {
    for kind in [ACK, NAK] {
        let mut bench = Bench::started();
        bench.hear(kind, |said| said);
        bench.unmoved(Phase::Selecting);
    }
}

#[test]
fn requesting_listens_to_its_own_server_only() {
    let mut bench = Bench::started();
    bench.hear(OFFER, |said| said);
    bench.hear(OFFER, |said| said.by(OTHER_SERVER).of(ELSE));
    bench.unmoved(Phase::Requesting);
    bench.hear(ACK, |said| said.by(OTHER_SERVER));
    bench.unmoved(Phase::Requesting);
    bench.hear(NAK, |said| said.by(OTHER_SERVER));
    bench.unmoved(Phase::Requesting);
    bench.hear(ACK, |said| said.of(ELSE));
    bench.unmoved(Phase::Requesting);
    bench.hear(ACK, |said| said);
    assert_eq!(bench.phase(), Phase::Bound);
}

#[test]
fn a_refused_request_begins_anew_at_once_and_then_with_patience() {
    let mut bench = Bench::started();
    bench.hear(OFFER, |said| said);
    bench.hear(NAK, |said| said.with(56, "gone"));
    assert_eq!((bench.broadcast().kind, bench.lost()), (DISCOVER, None));
    assert_eq!(bench.machine.complaint(), Some("192.168.0.1 refused the address: gone"));
    for around in [4.0, 8.0, 16.0] {
        bench.hear(OFFER, |said| said);
        bench.hear(NAK, |said| said);
        bench.unmoved(Phase::Init);
        let pause = bench.wake();
        assert!((around - 1.0..=around + 1.0).contains(&pause), "{pause} s instead of {around} s");
        assert_eq!(bench.broadcast().kind, DISCOVER);
    }
}

// The check of an address (RFC 5227)

fn checking() -> Bench {
    let mut bench = Bench::new(true);
    bench.start(Start::Init { prefer: None });
    bench.hear(OFFER, |said| said);
    bench.hear(ACK, |said| said);
    assert_eq!(bench.said, [Action::Check(ADDRESS)]);
    assert_eq!((bench.phase(), bench.machine.lease()), (Phase::Checking, None));
    bench
}

#[test]
fn a_free_address_is_bound() {
    let mut bench = checking();
    bench.now += seconds(1);
    bench.said = bench.machine.free(bench.now);
    assert_eq!((bench.bound_to(), bench.phase()), (Some((ADDRESS, None)), Phase::Bound));
    assert_eq!(bench.machine.expires(), Some(bench.now + seconds(999)));
}

#[test]
fn an_address_in_use_is_declined_and_ten_seconds_later_all_begins_anew() {
    let mut bench = checking();
    bench.said = bench.machine.in_use(bench.now);
    let decline = bench.broadcast();
    assert_eq!((decline.kind, decline.own), (DECLINE, NOWHERE));
    assert_eq!((decline.requested, decline.server), (Some(ADDRESS), Some(SERVER)));
    assert_eq!((bench.phase(), bench.lost()), (Phase::Init, None));
    assert_eq!(bench.machine.complaint(), Some("192.168.0.1 offered 192.168.0.100, which is in use"));
    bench.pass(seconds(9));
    bench.unmoved(Phase::Init);
    bench.pass(seconds(1));
    assert_eq!((bench.broadcast().kind, bench.broadcast().requested), (DISCOVER, None));
}

#[test]
fn a_check_that_nobody_ends_ends_with_the_lease() {
    let mut bench = checking();
    assert_eq!(bench.wake(), 1000.0);
    assert_eq!((bench.broadcast().kind, bench.phase()), (DISCOVER, Phase::Selecting));
}

#[test]
fn an_address_that_turns_out_to_be_anothers_is_given_up() {
    for mut bench in [Bench::bound(), Bench::renewing(), Bench::rebinding()] {
        bench.said = bench.machine.in_use(bench.now);
        assert_eq!((bench.broadcast().kind, bench.lost()), (DECLINE, Some(Loss::InUse)));
        assert_eq!((bench.phase(), bench.machine.lease()), (Phase::Init, None));
        assert_eq!(bench.wake(), 10.0);
    }
}

#[test]
fn the_end_of_a_check_means_nothing_elsewhere() {
    let mut bench = Bench::started();
    bench.said = bench.machine.free(bench.now);
    bench.unmoved(Phase::Selecting);
    bench.said = bench.machine.in_use(bench.now);
    bench.unmoved(Phase::Selecting);
}

// BOUND, RENEWING, REBINDING

#[test]
fn bound_discards_all_replies() {
    for kind in [OFFER, ACK, NAK] {
        let mut bench = Bench::bound();
        bench.hear(kind, |said| said.of(ELSE));
        bench.unmoved(Phase::Bound);
    }
}

#[test]
fn t1_renews_by_unicast_to_the_server() {
    let mut bench = Bench::bound();
    let pause = bench.wake();
    assert!((475.0..=500.0).contains(&pause), "{pause}");
    let [(request, from, to)] = bench.sent()[..] else { panic!("{:?}", bench.said) };
    assert_eq!((request.kind, request.own, request.requested, request.server), (REQUEST, ADDRESS, None, None));
    assert_eq!((from, to, request.secs), (Some(ADDRESS), SERVER, 0));
    bench.now += seconds(1);
    bench.hear(ACK, |said| said);
    assert_eq!((bench.bound_to(), bench.phase()), (Some((ADDRESS, Some(ADDRESS))), Phase::Bound));
    assert_eq!(bench.machine.expires(), Some(bench.now + seconds(999)), "from when it was asked for");
}

#[test]
fn renewals_are_repeated_after_half_of_the_time_left_but_a_minute_at_least() {
    let mut bench = Bench::bound();
    let start = bench.now;
    let mut tries = Vec::new();
    while bench.phase() != Phase::Rebinding {
        bench.wake();
        tries.push((bench.now - start).as_secs_f64());
    }
    // From T1 at about 490 s to T2 at 875 s: half of what is left, until that is less than a minute.
    let [t1, rest @ .., t2] = tries.as_slice() else { panic!("{tries:?}") };
    assert_eq!(*t2, 875.0);
    let mut at = *t1;
    for next in rest {
        assert!((next - at - ((875.0 - at) / 2.0).max(60.0)).abs() < 1e-6, "{tries:?}");
        at = *next;
    }
    assert!(875.0 - at <= 60.0 && rest.len() == 3, "{tries:?}");
}

#[test]
fn a_short_lease_is_asked_for_more_than_once() {
    let mut bench = Bench::started();
    bench.hear(OFFER, |said| said.lasting(60));
    bench.hear(ACK, |said| said.lasting(60));
    let mut asked = 0;
    while bench.phase() != Phase::Selecting {
        bench.wake();
        asked += bench.sent().iter().filter(|(heard, ..)| heard.kind == REQUEST).count();
    }
    assert!((5..10).contains(&asked), "{asked}");
}

#[test]
fn t2_rebinds_by_broadcast_and_any_server_may_answer() {
    let mut bench = Bench::rebinding();
    let [(request, from, to)] = bench.sent()[..] else { panic!("{:?}", bench.said) };
    assert_eq!((request.kind, request.own, request.requested, request.server), (REQUEST, ADDRESS, None, None));
    assert_eq!((from, to), (Some(ADDRESS), BROADCAST));
    assert!((375..=400).contains(&request.secs), "since T1: {}", request.secs);
    bench.hear(ACK, |said| said.by(OTHER_SERVER));
    assert_eq!((bench.bound_to(), bench.phase()), (Some((ADDRESS, Some(ADDRESS))), Phase::Bound));
    assert_eq!(bench.machine.lease().unwrap().server, OTHER_SERVER);
}

#[test]
fn a_lease_that_nobody_renews_is_lost_and_asked_for_again() {
    let mut bench = Bench::rebinding();
    while bench.phase() == Phase::Rebinding {
        assert_eq!(bench.lost(), None);
        bench.wake();
    }
    assert_eq!((bench.lost(), bench.machine.lease()), (Some(Loss::Expired), None));
    assert_eq!((bench.broadcast().kind, bench.broadcast().requested), (DISCOVER, Some(ADDRESS)));
    assert_eq!(bench.machine.complaint(), Some("no server renewed 192.168.0.100"));
}

#[test]
fn a_refused_renewal_is_a_lost_lease() {
    for mut bench in [Bench::renewing(), Bench::rebinding(), Bench::rebooting(1)] {
        bench.hear(NAK, |said| said.by(OTHER_SERVER));
        assert_eq!((bench.lost(), bench.machine.lease()), (Some(Loss::Refused), None));
        assert!(matches!(bench.said[0], Action::Lost { .. }), "first the address goes");
        assert_eq!((bench.broadcast().kind, bench.broadcast().requested), (DISCOVER, None));
    }
}

#[test]
fn renewing_discards_offers_and_late_answers() {
    let mut bench = Bench::renewing();
    bench.hear(OFFER, |said| said);
    bench.unmoved(Phase::Renewing);
    // A second request is an exchange of its own.
    let late = Said::new(ACK, bench.machine.xid).bytes();
    bench.wake();
    bench.said = bench.machine.receive(bench.now, &late);
    bench.unmoved(Phase::Renewing);
}

#[test]
fn another_address_on_renewal_replaces_the_old_one() {
    let mut bench = Bench::renewing();
    bench.hear(ACK, |said| said.of(ELSE));
    assert_eq!((bench.bound_to(), bench.phase()), (Some((ELSE, Some(ADDRESS))), Phase::Bound));
}

#[test]
fn another_address_on_renewal_is_checked_too() {
    let renewing = || {
        let mut bench = checking();
        bench.said = bench.machine.free(bench.now);
        bench.wake();
        bench.hear(ACK, |said| said.of(ELSE));
        assert_eq!(bench.said, [Action::Check(ELSE)]);
        bench
    };
    let mut bench = renewing();
    bench.said = bench.machine.free(bench.now);
    assert_eq!(bench.bound_to(), Some((ELSE, Some(ADDRESS))));
    let mut bench = renewing();
    bench.said = bench.machine.in_use(bench.now);
    assert_eq!((bench.lost(), bench.broadcast().requested), (Some(Loss::InUse), Some(ELSE)));
    let mut bench = renewing();
    bench.wake();
    assert_eq!((bench.lost(), bench.broadcast().kind), (Some(Loss::Expired), DISCOVER));
    // The same address needs no check.
    let mut bench = checking();
    bench.said = bench.machine.free(bench.now);
    bench.wake();
    bench.hear(ACK, |said| said);
    assert_eq!(bench.bound_to(), Some((ADDRESS, Some(ADDRESS))));
}

#[test]
fn the_clock_decides_however_long_it_was_not_looked_at() {
    for (asleep_s, phase, lost) in [
        (100, Phase::Bound, None),
        (600, Phase::Renewing, None),
        (900, Phase::Rebinding, None),
        (1000, Phase::Selecting, Some(Loss::Expired)),
        (1_000_000_000, Phase::Selecting, Some(Loss::Expired)),
    ] {
        let mut bench = Bench::bound();
        bench.pass(seconds(asleep_s));
        assert_eq!((bench.phase(), bench.lost()), (phase, lost), "{asleep_s}");
    }
    // An answer that waited in the socket meanwhile is too late.
    let mut bench = Bench::renewing();
    bench.now += seconds(1000);
    bench.hear(ACK, |said| said);
    assert_eq!((bench.phase(), bench.bound_to(), bench.lost()), (Phase::Selecting, None, Some(Loss::Expired)));
    // And a clock that goes back breaks nothing.
    let mut bench = Bench::bound();
    bench.now -= seconds(900);
    bench.said = bench.machine.tick(bench.now);
    bench.unmoved(Phase::Bound);
}

#[test]
fn a_lease_that_is_over_when_it_arrives_is_none() {
    let mut bench = Bench::started();
    bench.hear(OFFER, |said| said.lasting(2));
    bench.now += seconds(2);
    bench.hear(ACK, |said| said.lasting(2));
    bench.unmoved(Phase::Requesting);
}

#[test]
fn a_lease_for_ever_is_left_alone() {
    let mut bench = Bench::started();
    bench.hear(OFFER, |said| said.lasting(u32::MAX));
    bench.hear(ACK, |said| said.lasting(u32::MAX));
    assert_eq!((bench.machine.wake(), bench.machine.expires()), (None, None));
    bench.pass(seconds(10_000_000_000));
    bench.unmoved(Phase::Bound);
}

// INIT-REBOOT, REBOOTING

#[test]
fn a_lease_from_before_is_asked_for_again() {
    let mut bench = Bench::rebooting(100);
    let request = bench.broadcast();
    assert_eq!((request.kind, request.own, request.requested, request.server), (REQUEST, NOWHERE, Some(ADDRESS), None));
    assert_eq!((bench.phase(), bench.machine.lease().unwrap().ip()), (Phase::Rebooting, ADDRESS));
    assert_eq!(bench.machine.expires(), Some(bench.now + seconds(900)));
    bench.hear(ACK, |said| said);
    assert_eq!((bench.bound_to(), bench.phase()), (Some((ADDRESS, Some(ADDRESS))), Phase::Bound));
    assert_eq!(bench.machine.expires(), Some(bench.now + seconds(1000)));
}

#[test]
fn without_an_answer_it_is_used_while_it_lasts() {
    for (age_s, phase) in [(100, Phase::Bound), (600, Phase::Renewing), (900, Phase::Rebinding)] {
        let mut bench = Bench::rebooting(age_s);
        let first = bench.broadcast();
        bench.wake();
        assert_eq!(bench.broadcast(), first, "the same question, so that a late answer counts");
        bench.wake();
        assert_eq!((bench.bound_to(), bench.phase()), (Some((ADDRESS, Some(ADDRESS))), phase), "{age_s}");
        assert!(bench.machine.expires().unwrap() < bench.now + seconds(1000 - age_s));
    }
    let mut bench = Bench::rebooting(998);
    assert_eq!(bench.wake(), 2.0);
    assert_eq!((bench.lost(), bench.broadcast().kind), (Some(Loss::Expired), DISCOVER));
}

#[test]
fn one_that_is_over_is_only_a_wish() {
    let mut bench = Bench::rebooting(1000);
    assert_eq!((bench.phase(), bench.machine.lease()), (Phase::Selecting, None));
    assert_eq!((bench.broadcast().kind, bench.broadcast().requested), (DISCOVER, Some(ADDRESS)));
    bench.hear(ACK, |said| said);
    bench.unmoved(Phase::Selecting);
}

// The end

/// Another client asks, and this machine is told.
fn listening(checks: bool) -> Bench {
    let mut bench = Bench::new(checks);
    bench.machine = Machine::listening(Client::new(mac()), checks, 7);
    bench.start(Start::Init { prefer: None });
    assert_eq!((bench.said.len(), bench.machine.wake()), (0, None), "it asks nobody");
    bench
}

fn lease_of(last: u8) -> Arc<Lease> {
    let lease = Bench::bound().machine.held().unwrap().lease.clone();
    let address = HostAddress::new(Ipv4Addr::new(192, 168, 0, last).into(), 24).unwrap();
    Arc::new(Lease { address, ..(*lease).clone() })
}

#[test]
fn who_listens_is_bound_by_what_it_is_told_and_lets_time_pass() {
    let (mut bench, lease) = (listening(false), lease_of(100));
    bench.said = bench.machine.granted(bench.now, lease.clone());
    assert_eq!(bench.said, [Action::Bound { lease: lease.clone(), before: None }]);
    // T1 and T2 are the other client's.
    bench.pass(seconds(500));
    assert_eq!((bench.said.len(), bench.phase()), (0, Phase::Bound));
    bench.pass(seconds(400));
    assert_eq!((bench.said.len(), bench.phase()), (0, Phase::Bound));
    bench.said = bench.machine.granted(bench.now, lease.clone());
    assert_eq!(bench.said, [Action::Bound { lease: lease.clone(), before: Some(lease.clone()) }], "renewed");
    bench.pass(seconds(999));
    assert_eq!(bench.said, []);
    bench.pass(seconds(1));
    assert_eq!(bench.said, [Action::Lost { lease: lease.clone(), why: Loss::Expired }]);
    assert_eq!((bench.phase(), bench.machine.wake()), (Phase::Init, None));
    let other = lease_of(101);
    bench.said = bench.machine.granted(bench.now, other.clone());
    assert_eq!(bench.said, [Action::Bound { lease: other.clone(), before: None }]);
    bench.said = bench.machine.revoked(bench.now, Loss::Refused);
    assert_eq!(bench.said, [Action::Lost { lease: other, why: Loss::Refused }]);
    assert_eq!(bench.machine.revoked(bench.now, Loss::Expired), [], "it is known already");
}

#[test]
fn who_listens_has_addresses_checked_and_declines_in_the_others_name() {
    let (mut bench, first, second) = (listening(true), lease_of(100), lease_of(101));
    assert_eq!(bench.machine.granted(bench.now, first.clone()), [Action::Check(first.ip())]);
    assert_eq!(bench.machine.free(bench.now), [Action::Bound { lease: first.clone(), before: None }]);
    assert_eq!(
        bench.machine.granted(bench.now, first.clone()),
        [Action::Bound { lease: first.clone(), before: Some(first.clone()) }],
        "one that is known is not checked"
    );
    assert_eq!(bench.machine.granted(bench.now, second.clone()), [Action::Check(second.ip())]);
    let said = bench.machine.in_use(bench.now);
    assert!(matches!(&said[0], Action::Send(packet) if packet.to == BROADCAST), "{said:?}");
    assert_eq!(said[1..], [Action::Lost { lease: first, why: Loss::InUse }]);
    bench.pass(seconds(1000));
    assert_eq!((bench.said.len(), bench.phase()), (0, Phase::Init));
}

#[test]
fn a_released_address_is_given_back_by_unicast() {
    for mut bench in [Bench::bound(), Bench::renewing(), Bench::rebinding(), Bench::rebooting(1)] {
        bench.said = bench.machine.release();
        let [(release, from, to)] = bench.sent()[..] else { panic!("{:?}", bench.said) };
        assert_eq!((release.kind, release.own, release.requested), (RELEASE, ADDRESS, None));
        assert_eq!((release.server, from, to), (Some(SERVER), Some(ADDRESS), SERVER));
        assert_eq!((bench.phase(), bench.machine.lease(), bench.machine.wake()), (Phase::Stopped, None, None));
        bench.hear(ACK, |said| said);
        bench.unmoved(Phase::Stopped);
    }
}

#[test]
fn one_that_was_not_used_yet_is_given_back_by_broadcast() {
    let mut bench = checking();
    bench.said = bench.machine.release();
    assert_eq!((bench.broadcast().kind, bench.broadcast().own), (RELEASE, ADDRESS));
}

#[test]
fn where_nothing_is_held_nothing_is_given_back() {
    let mut requesting = Bench::started();
    requesting.hear(OFFER, |said| said);
    for mut bench in [Bench::new(true), Bench::started(), requesting] {
        bench.said = bench.machine.release();
        bench.unmoved(Phase::Stopped);
    }
}

// Rogues

#[test]
fn a_useless_offer_is_complained_about_and_a_good_one_taken() {
    let mut bench = Bench::started();
    bench.hear(OFFER, |said| said.without(54));
    bench.unmoved(Phase::Selecting);
    assert!(bench.machine.complaint().unwrap().contains("does not name its server"));
    bench.hear(OFFER, |said| said.lasting(0));
    bench.unmoved(Phase::Selecting);
    let foreign = Said::new(OFFER, bench.machine.xid ^ 1).bytes();
    bench.said = bench.machine.receive(bench.now, &foreign);
    bench.unmoved(Phase::Selecting);
    bench.hear(OFFER, |said| said);
    assert_eq!(bench.phase(), Phase::Requesting);
    bench.hear(ACK, |said| said);
    assert_eq!(bench.machine.complaint(), None);
}

/// Something that happens to a machine.
#[derive(Debug, Clone)]
enum Event {
    Reply { kind: u8, right_exchange: bool, damages: Vec<Damage> },
    Noise(Vec<u8>),
    Pass(u64),
    Wake,
    Free,
    InUse,
    Release,
    Start,
}

fn event() -> impl Strategy<Value = Event> {
    let damages = proptest::collection::vec(damage(), 0..3);
    prop_oneof![
        8 => (1u8..9, proptest::bool::weighted(0.9), damages)
            .prop_map(|(kind, right_exchange, damages)| Event::Reply { kind, right_exchange, damages }),
        1 => proptest::collection::vec(any::<u8>(), 0..600).prop_map(Event::Noise),
        1 => (0u64..2000).prop_map(Event::Pass),
        3 => Just(Event::Wake),
        2 => Just(Event::Free),
        1 => Just(Event::InUse),
        1 => Just(Event::Release),
        1 => Just(Event::Start),
    ]
}

proptest! {
    #[test]
    fn whatever_happens_no_lease_is_wrong(checks: bool, events in proptest::collection::vec(event(), 1..60)) {
        let mut bench = Bench::new(checks);
        bench.start(Start::Init { prefer: None });
        for event in events {
            bench.happen(&event);
            bench.is_sound();
        }
    }
}

impl Bench {
    fn happen(&mut self, event: &Event) {
        match event {
            Event::Reply { kind, right_exchange, damages } => {
                let xid = if *right_exchange { self.machine.xid } else { self.machine.xid ^ 0x0100 };
                let reply = Said::new(*kind, xid).damaged(damages);
                let before = self.machine.lease().cloned();
                self.said = self.machine.receive(self.now, &reply);
                if !right_exchange && reply.get(4..8) == Some(&xid.to_be_bytes()) {
                    assert!(self.bound_to().is_none(), "another exchange's lease");
                }
                if let (Some(before), Some(after)) = (before, self.machine.lease()) {
                    assert!(before.ip() == after.ip() || self.bound_to().is_some() || self.lost().is_some());
                }
            }
            Event::Noise(bytes) => {
                self.said = self.machine.receive(self.now, bytes);
                assert!(self.bound_to().is_none(), "a lease out of noise");
            }
            Event::Pass(count) => self.pass(seconds(*count)),
            Event::Wake => {
                self.now = self.machine.wake().unwrap_or(self.now).max(self.now);
                self.pass(Duration::ZERO);
            }
            Event::Free => self.said = self.machine.free(self.now),
            Event::InUse => self.said = self.machine.in_use(self.now),
            Event::Release => self.said = self.machine.release(),
            Event::Start => self.start(Start::Init { prefer: None }),
        }
    }

    /// What holds at all times.
    fn is_sound(&self) {
        assert!(self.said.len() <= 4, "{:?}", self.said);
        assert!(self.machine.wake().is_none_or(|wake| wake > self.now), "{:?} would spin", self.phase());
        if let Some(lease) = self.machine.lease() {
            assert!(lease.address.to_string().parse::<HostAddress>().is_ok());
            assert!(self.machine.expires().is_none_or(|end| end > self.now), "held past its end");
        }
        for (heard, from, to) in self.sent() {
            assert_eq!(from.unwrap_or(NOWHERE), if from.is_some() { heard.own } else { NOWHERE });
            assert!(from.is_some() || to == BROADCAST);
        }
        assert!(self.machine.complaint().is_none_or(|text| text.len() < 2000));
    }
}
