//! The states of a client (RFC 2131 figure 5): told what happens and when, it answers with what to do.
//!
//! ```text
//!   INIT-REBOOT ──> REBOOTING ─────────ACK──────────┐      INIT <──NAK, expiry, address in use──┐
//!                       │NAK                        │       │ DISCOVER                          │
//!                       └──> INIT                   │       v                                   │
//!                                                   │   SELECTING                               │
//!                                                   │       │ OFFER: REQUEST                    │
//!                                                   │       v                 in use: DECLINE   │
//!                                                   │   REQUESTING ──ACK──> CHECKING ──────────>┤
//!                                                   │                          │ free           │
//!                                                   v                          v                │
//!     RENEWING <──T1── BOUND <──────────────────────┴──────────────────────────┘                │
//!        │ └──ACK──────> ^                                                                      │
//!        │ T2            │ACK                                                                   │
//!        └──> REBINDING ─┴──────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! CHECKING is the RFC's "client SHOULD perform a check on the suggested address" (section 2.2) with
//! a name: somebody else asks the LAN, which takes time.
//!
//! Time is a length since some fixed moment, and must go on while the machine sleeps
//! (`CLOCK_BOOTTIME`): a lease runs out during suspend as well.

use std::{fmt, mem, net::Ipv4Addr, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};

use super::{Client, Lease, Reply, Term, Unfit, packet::Say};

/// A client's state, for one interface. Small, and it does not grow.
#[derive(Debug, Clone)]
pub struct Machine {
    client: Client,
    /// Whether addresses are checked before they are used.
    checks: bool,
    /// Whether it asks servers itself. Otherwise another client does, and tells what it was granted.
    asks: bool,
    chance: Chance,
    state: State,
    /// The exchange that replies must belong to.
    xid: u32,
    /// When asking began, and what the last DISCOVER said about it: its REQUEST must say the same.
    began: Duration,
    secs: u16,
    /// How often the message has been sent again.
    again: u32,
    /// How many refusals came since the last lease.
    refusals: u32,
    wake: Option<Duration>,
    complaint: Option<String>,
}

/// The states in which something is awaited or held. INIT-REBOOT is left as soon as it is entered.
#[derive(Debug, Clone)]
enum State {
    /// Not started yet, or the address was released.
    Stopped,
    /// Waits before it begins (again).
    Init {
        prefer: Option<Ipv4Addr>,
    },
    Selecting {
        prefer: Option<Ipv4Addr>,
    },
    Requesting {
        offer: Arc<Lease>,
        asked: Duration,
    },
    Checking {
        new: Held,
        before: Option<Arc<Lease>>,
    },
    Rebooting {
        held: Held,
        asked: Duration,
    },
    Bound {
        held: Held,
    },
    Renewing {
        held: Held,
        asked: Duration,
    },
    Rebinding {
        held: Held,
        asked: Duration,
    },
}

/// The name of a state, for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    Stopped,
    Init,
    Selecting,
    Requesting,
    Checking,
    Rebooting,
    Bound,
    Renewing,
    Rebinding,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Phase::Stopped => "stopped",
            Phase::Init => "init",
            Phase::Selecting => "selecting",
            Phase::Requesting => "requesting",
            Phase::Checking => "checking",
            Phase::Rebooting => "rebooting",
            Phase::Bound => "bound",
            Phase::Renewing => "renewing",
            Phase::Rebinding => "rebinding",
        })
    }
}

/// How to begin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Start {
    /// INIT. The server may be asked for an address that would be welcome.
    Init { prefer: Option<Ipv4Addr> },
    /// INIT-REBOOT, with a lease from before that was asked for `age` ago.
    Reboot { lease: Arc<Lease>, age: Duration },
    /// BOUND, with a lease that is in use and was asked for `age` ago: another process kept it until now.
    Resume { lease: Arc<Lease>, age: Duration },
}

/// What to do. Of several, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    Send(Packet),
    /// Ask the LAN whether somebody has this address, and say so by [`Machine::free`] or
    /// [`Machine::in_use`].
    Check(Ipv4Addr),
    /// The address can be used, and `before` not any more where it is another one. With the same
    /// address before, it was renewed; without any, it is new.
    Bound {
        lease: Arc<Lease>,
        before: Option<Arc<Lease>>,
    },
    /// The address must not be used any more. The machine asks for another.
    Lost {
        lease: Arc<Lease>,
        why: Loss,
    },
}

/// A message to send from port 68 to port 67.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    /// The address that is leased, or `None` while there is none.
    pub from: Option<Ipv4Addr>,
    /// A server, or 255.255.255.255.
    pub to: Ipv4Addr,
    pub message: Vec<u8>,
}

/// Why a lease was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Loss {
    /// No server renewed it in time.
    Expired,
    /// A server said that it is wrong.
    Refused,
    /// Somebody else uses the address, or the one that was to replace it.
    InUse,
}

/// A lease and when it ends.
#[derive(Debug, Clone)]
struct Held {
    lease: Arc<Lease>,
    /// `None` for a lease that never ends.
    times: Option<Times>,
}

#[derive(Debug, Clone, Copy)]
struct Times {
    renew: Duration,
    rebind: Duration,
    expire: Duration,
}

/// What the clock says about a lease.
enum Due {
    Nothing { until: Option<Duration> },
    Renewal { until: Duration, floor: Duration, for_s: u16 },
    Rebinding { until: Duration, floor: Duration, for_s: u16 },
    End,
}

impl Held {
    /// A lease that was asked for `age` before `now`.
    fn new(lease: Arc<Lease>, now: Duration, age: Duration, fuzz: f64) -> Held {
        let at = |time: Duration| now + time.saturating_sub(age);
        let times = match lease.term {
            Term::Infinite => None,
            // Clients that were started together shall not renew together for ever (section 4.4.5).
            Term::Finite { renew, rebind, expire } => {
                Some(Times { renew: at(renew.mul_f64(1.0 - fuzz * FUZZ)), rebind: at(rebind), expire: at(expire) })
            }
        };
        Held { lease, times }
    }

    fn ip(&self) -> Ipv4Addr {
        self.lease.ip()
    }

    fn due(&self, now: Duration) -> Due {
        let Some(Times { renew, rebind, expire }) = self.times else { return Due::Nothing { until: None } };
        // RFC 2131 section 4.4.5: again after half of the time that is left, but not within 60 s. Of a
        // lease of a few minutes nothing would be left then, so a quarter of the state's time will do.
        let floor = |from: Duration, to: Duration| LEAST_RETRY.min(to.saturating_sub(from) / 4);
        let for_s = seconds(now.saturating_sub(renew));
        if now >= expire {
            Due::End
        } else if now >= rebind {
            Due::Rebinding { until: expire, floor: floor(rebind, expire), for_s }
        } else if now >= renew {
            Due::Renewal { until: rebind, floor: floor(renew, rebind), for_s }
        } else {
            Due::Nothing { until: Some(renew) }
        }
    }

    fn has_ended(&self, now: Duration) -> bool {
        self.times.is_some_and(|times| now >= times.expire)
    }
}

const BROADCAST: Ipv4Addr = Ipv4Addr::BROADCAST;
/// Up to so much of T1 is renewed early.
const FUZZ: f64 = 0.05;
const LEAST_RETRY: Duration = Duration::from_secs(60);
/// RFC 2131 section 3.1 point 5: at least so long after a DECLINE.
const AFTER_DECLINE: Duration = Duration::from_secs(10);
/// Section 3.1 point 5: four waits, 60 s in all, before beginning anew.
const REQUESTS_AGAIN: u32 = 3;
/// Section 3.2 point 4 lets a client go on with its lease if nobody answers, and leaves open when.
const REBOOTS_AGAIN: u32 = 1;

impl Machine {
    /// A machine that does nothing yet. With `checks` it has addresses checked before they are used.
    /// The seed must differ between clients: exchanges are told apart by it.
    pub fn new(client: Client, checks: bool, seed: u64) -> Machine {
        Machine {
            client,
            checks,
            asks: true,
            chance: Chance(seed),
            state: State::Stopped,
            xid: 0,
            began: Duration::ZERO,
            secs: 0,
            again: 0,
            refusals: 0,
            wake: None,
            complaint: None,
        }
    }

    /// A machine that asks no server for anything: another client does so on the same interface.
    pub fn listening(client: Client, checks: bool, seed: u64) -> Machine {
        Machine { asks: false, ..Machine::new(client, checks, seed) }
    }

    /// The other client was granted this lease just now, or had it confirmed.
    pub fn granted(&mut self, now: Duration, lease: Arc<Lease>) -> Vec<Action> {
        let before = match mem::replace(&mut self.state, State::Stopped) {
            State::Bound { held } => Some(held.lease),
            State::Checking { before, .. } => before,
            _ => None,
        };
        self.accept(now, now, lease, before)
    }

    /// The other client has no lease any more.
    pub fn revoked(&mut self, now: Duration, why: Loss) -> Vec<Action> {
        match mem::replace(&mut self.state, State::Stopped) {
            State::Bound { held } => {
                self.complain(match why {
                    Loss::Refused => format!("{} refused the address", held.lease.server),
                    Loss::Expired | Loss::InUse => format!("no server renewed {}", held.ip()),
                });
                let lost = Action::Lost { lease: held.lease, why };
                [lost].into_iter().chain(self.discover(now, None)).collect()
            }
            state => {
                self.state = state;
                Vec::new()
            }
        }
    }

    /// Begins. RFC 2131 section 4.4.1 would wait one to ten seconds first, so that hosts do not all
    /// ask at once after a power failure; no client does, and one that is typed must not.
    pub fn start(&mut self, now: Duration, start: Start) -> Vec<Action> {
        self.complaint = None;
        self.refusals = 0;
        match start {
            Start::Init { prefer } => self.discover(now, prefer),
            Start::Reboot { lease, age } => {
                let held = Held::new(lease, now, age, 0.0);
                if held.has_ended(now) {
                    return self.discover(now, Some(held.ip()));
                }
                (self.again, self.began, self.secs) = (0, now, 0);
                self.reboot(now, held, now)
            }
            Start::Resume { lease, age } => {
                let held = Held::new(lease, now, age, self.chance.fraction());
                self.keep(now, held)
            }
        }
    }

    /// What to do once the clock says `now`. Nothing before [`Machine::wake`].
    pub fn tick(&mut self, now: Duration) -> Vec<Action> {
        if self.wake.is_none_or(|wake| now < wake) {
            return Vec::new();
        }
        match mem::replace(&mut self.state, State::Stopped) {
            State::Stopped => Vec::new(),
            State::Init { prefer } => self.discover(now, prefer),
            State::Selecting { prefer } => {
                self.again += 1;
                self.ask(now, prefer)
            }
            State::Requesting { offer, .. } if self.again >= REQUESTS_AGAIN => {
                self.complain(format!("{} offered {} and did not confirm it", offer.server, offer.address.ip()));
                self.discover(now, None)
            }
            State::Requesting { offer, asked } => {
                self.again += 1;
                self.request(now, offer, asked)
            }
            // Nobody said whether it is free, for as long as the lease lasts.
            State::Checking { before, .. } => {
                let lost = before.map(|lease| Action::Lost { lease, why: Loss::Expired });
                lost.into_iter().chain(self.discover(now, None)).collect()
            }
            State::Rebooting { held, .. } if held.has_ended(now) => self.keep(now, held),
            State::Rebooting { held, .. } if self.again >= REBOOTS_AGAIN => {
                let lease = held.lease.clone();
                self.bind(now, held, Some(lease))
            }
            State::Rebooting { held, asked } => {
                self.again += 1;
                self.reboot(now, held, asked)
            }
            State::Bound { held } | State::Renewing { held, .. } | State::Rebinding { held, .. } => {
                self.keep(now, held)
            }
        }
    }

    /// A packet arrived at port 68; `message` is what UDP carried. What is not a reply to the question
    /// that is open changes nothing.
    pub fn receive(&mut self, now: Duration, message: &[u8]) -> Vec<Action> {
        // First what the clock says: a reply that comes after the end of the lease is too late.
        let mut actions = self.tick(now);
        match Reply::read(message, self.xid, self.client.mac) {
            Ok(reply) => actions.extend(self.reply(now, reply)),
            Err(Unfit::Unusable(reason)) => self.complain(reason),
            Err(Unfit::Foreign) => {}
        }
        actions
    }

    fn reply(&mut self, now: Duration, reply: Reply) -> Vec<Action> {
        // A lease that is over when it arrives is none.
        let in_time = |lease: &Lease, asked: Duration| lease.term.expire().is_none_or(|time| now < asked + time);
        match (mem::replace(&mut self.state, State::Stopped), reply) {
            (State::Selecting { .. }, Reply::Offer(offer)) => {
                self.again = 0;
                self.request(now, offer.into(), now)
            }
            (State::Requesting { offer, asked }, Reply::Ack(lease))
                if lease.server == offer.server && lease.ip() == offer.ip() && in_time(&lease, asked) =>
            {
                self.accept(now, asked, lease.into(), None)
            }
            (State::Requesting { offer, .. }, Reply::Nak { server, why }) if server == offer.server => {
                self.refused(now, server, why)
            }
            (
                State::Rebooting { held, asked } | State::Renewing { held, asked } | State::Rebinding { held, asked },
                Reply::Ack(lease),
            ) if in_time(&lease, asked) => self.accept(now, asked, lease.into(), Some(held.lease)),
            (
                State::Rebooting { held, .. } | State::Renewing { held, .. } | State::Rebinding { held, .. },
                Reply::Nak { server, why },
            ) => {
                let mut actions = vec![Action::Lost { lease: held.lease, why: Loss::Refused }];
                actions.extend(self.refused(now, server, why));
                actions
            }
            // The figure discards all else: a second offer, what servers say that were not chosen.
            (state, Reply::Offer(_) | Reply::Ack(_) | Reply::Nak { .. }) => {
                self.state = state;
                Vec::new()
            }
        }
    }

    /// The LAN was asked, and nobody else has the address.
    pub fn free(&mut self, now: Duration) -> Vec<Action> {
        match mem::replace(&mut self.state, State::Stopped) {
            State::Checking { new, before } => self.bind(now, new, before),
            state => {
                self.state = state;
                Vec::new()
            }
        }
    }

    /// Somebody else uses the address that was to be used, or is.
    pub fn in_use(&mut self, now: Duration) -> Vec<Action> {
        let (held, lost) = match mem::replace(&mut self.state, State::Stopped) {
            State::Checking { new, before } => (new, before),
            State::Bound { held } | State::Renewing { held, .. } | State::Rebinding { held, .. } => {
                let lost = held.lease.clone();
                (held, Some(lost))
            }
            state => {
                self.state = state;
                return Vec::new();
            }
        };
        self.complain(format!("{} offered {}, which is in use", held.lease.server, held.ip()));
        let decline = Say::Decline { address: held.ip(), server: held.lease.server };
        let mut actions = vec![self.send(decline, None, BROADCAST)];
        actions.extend(lost.map(|lease| Action::Lost { lease, why: Loss::InUse }));
        self.pause(now, AFTER_DECLINE);
        actions
    }

    /// Gives the address back and stops.
    pub fn release(&mut self) -> Vec<Action> {
        self.wake = None;
        let (held, from) = match mem::replace(&mut self.state, State::Stopped) {
            State::Bound { held }
            | State::Rebooting { held, .. }
            | State::Renewing { held, .. }
            | State::Rebinding { held, .. } => {
                let from = held.ip();
                (held, Some(from))
            }
            // It is not on the interface yet, so nothing can be sent from it.
            State::Checking { new, .. } => (new, None),
            State::Stopped | State::Init { .. } | State::Selecting { .. } | State::Requesting { .. } => {
                return Vec::new();
            }
        };
        let server = held.lease.server;
        self.xid = self.chance.number();
        let to = if from.is_some() { server } else { BROADCAST };
        vec![self.send(Say::Release { address: held.ip(), server }, from, to)]
    }

    /// INIT to SELECTING.
    fn discover(&mut self, now: Duration, prefer: Option<Ipv4Addr>) -> Vec<Action> {
        if !self.asks {
            self.state = State::Init { prefer };
            self.wake = None;
            return Vec::new();
        }
        (self.again, self.began) = (0, now);
        self.xid = self.chance.number();
        self.ask(now, prefer)
    }

    fn ask(&mut self, now: Duration, prefer: Option<Ipv4Addr>) -> Vec<Action> {
        self.secs = seconds(now.saturating_sub(self.began));
        self.state = State::Selecting { prefer };
        self.wake_after_back_off(now);
        vec![self.send(Say::Discover { prefer }, None, BROADCAST)]
    }

    /// SELECTING to REQUESTING. The first offer is taken.
    fn request(&mut self, now: Duration, offer: Arc<Lease>, asked: Duration) -> Vec<Action> {
        let select = Say::Select { address: offer.ip(), server: offer.server };
        self.state = State::Requesting { offer, asked };
        self.wake_after_back_off(now);
        vec![self.send(select, None, BROADCAST)]
    }

    /// INIT-REBOOT to REBOOTING.
    fn reboot(&mut self, now: Duration, held: Held, asked: Duration) -> Vec<Action> {
        if self.again == 0 {
            self.xid = self.chance.number();
        }
        let address = held.ip();
        let end = held.times.map(|times| times.expire);
        self.state = State::Rebooting { held, asked };
        self.wake_after_back_off(now);
        self.wake = self.wake.map(|wake| end.map_or(wake, |end| wake.min(end)));
        vec![self.send(Say::Reboot { address }, None, BROADCAST)]
    }

    /// An acknowledgement. An address that was used before needs no check.
    fn accept(&mut self, now: Duration, asked: Duration, lease: Arc<Lease>, before: Option<Arc<Lease>>) -> Vec<Action> {
        let new = Held::new(lease, asked, Duration::ZERO, self.chance.fraction());
        let is_known = before.as_ref().is_some_and(|before| before.ip() == new.ip());
        if !self.checks || is_known {
            return self.bind(now, new, before);
        }
        let check = Action::Check(new.ip());
        self.wake = new.times.map(|times| times.expire);
        self.state = State::Checking { new, before };
        vec![check]
    }

    /// To BOUND.
    fn bind(&mut self, now: Duration, held: Held, before: Option<Arc<Lease>>) -> Vec<Action> {
        self.refusals = 0;
        self.complaint = None;
        let mut actions = vec![Action::Bound { lease: held.lease.clone(), before }];
        actions.extend(self.keep(now, held));
        actions
    }

    /// BOUND, RENEWING and REBINDING: which of them it is, only the clock decides, however long it
    /// was not looked at.
    fn keep(&mut self, now: Duration, held: Held) -> Vec<Action> {
        let address = held.ip();
        let (to, until, floor, for_s) = match held.due(now) {
            Due::Renewal { .. } | Due::Rebinding { .. } if !self.asks => {
                self.wake = held.times.map(|times| times.expire);
                self.state = State::Bound { held };
                return Vec::new();
            }
            Due::Nothing { until } => {
                self.wake = until;
                self.state = State::Bound { held };
                return Vec::new();
            }
            Due::Renewal { until, floor, for_s } => (held.lease.server, until, floor, for_s),
            Due::Rebinding { until, floor, for_s } => (BROADCAST, until, floor, for_s),
            Due::End => {
                self.complain(format!("no server renewed {address}"));
                let mut actions = vec![Action::Lost { lease: held.lease, why: Loss::Expired }];
                actions.extend(self.discover(now, Some(address)));
                return actions;
            }
        };
        // An exchange of its own each time, so that an answer belongs to the question that it counts from.
        self.xid = self.chance.number();
        self.secs = for_s;
        self.wake = Some(until.min(now + floor.max((until - now) / 2)));
        self.state = match to {
            BROADCAST => State::Rebinding { held, asked: now },
            _ => State::Renewing { held, asked: now },
        };
        vec![self.send(Say::Renew { address }, Some(address), to)]
    }

    /// A server said no: back to INIT. The first time at once, as the figure has it; one that says it
    /// again and again is not asked more often than a server that does not answer.
    fn refused(&mut self, now: Duration, server: Ipv4Addr, why: Option<String>) -> Vec<Action> {
        let why = why.map_or(String::new(), |why| format!(": {why}"));
        self.complain(format!("{server} refused the address{why}"));
        self.refusals += 1;
        if self.refusals == 1 {
            return self.discover(now, None);
        }
        let pause = self.back_off(self.refusals - 2);
        self.pause(now, pause);
        Vec::new()
    }

    fn pause(&mut self, now: Duration, pause: Duration) {
        self.state = State::Init { prefer: None };
        self.wake = Some(now + pause);
    }

    fn send(&self, say: Say, from: Option<Ipv4Addr>, to: Ipv4Addr) -> Action {
        Action::Send(Packet { from, to, message: self.client.message(say, self.xid, self.secs) })
    }

    fn wake_after_back_off(&mut self, now: Duration) {
        self.wake = Some(now + self.back_off(self.again));
    }

    /// RFC 2131 section 4.1: 4, 8, 16, 32 and then 64 s, each a second more or less by chance.
    fn back_off(&mut self, again: u32) -> Duration {
        Duration::from_secs(4 << again.min(4)) - Duration::from_secs(1)
            + self.chance.fraction_of(Duration::from_secs(2))
    }

    /// Notes what went wrong, until there is a lease.
    pub fn complain(&mut self, what: String) {
        self.complaint = Some(what);
    }

    /// When to call [`Machine::tick`] next; `None` if only a packet can change something.
    pub fn wake(&self) -> Option<Duration> {
        self.wake
    }

    /// What went wrong last, since there was a lease.
    pub fn complaint(&self) -> Option<&str> {
        self.complaint.as_deref()
    }

    /// The lease whose address may be used. One that is checked, or that only was offered, is not here.
    pub fn lease(&self) -> Option<&Lease> {
        self.held().map(|held| &*held.lease)
    }

    /// When that lease ends; `None` for never.
    pub fn expires(&self) -> Option<Duration> {
        self.held()?.times.map(|times| times.expire)
    }

    fn held(&self) -> Option<&Held> {
        match &self.state {
            State::Rebooting { held, .. }
            | State::Bound { held }
            | State::Renewing { held, .. }
            | State::Rebinding { held, .. } => Some(held),
            State::Stopped
            | State::Init { .. }
            | State::Selecting { .. }
            | State::Requesting { .. }
            | State::Checking { .. } => None,
        }
    }

    pub fn phase(&self) -> Phase {
        match self.state {
            State::Stopped => Phase::Stopped,
            State::Init { .. } => Phase::Init,
            State::Selecting { .. } => Phase::Selecting,
            State::Requesting { .. } => Phase::Requesting,
            State::Checking { .. } => Phase::Checking,
            State::Rebooting { .. } => Phase::Rebooting,
            State::Bound { .. } => Phase::Bound,
            State::Renewing { .. } => Phase::Renewing,
            State::Rebinding { .. } => Phase::Rebinding,
        }
    }

    pub fn client(&self) -> &Client {
        &self.client
    }
}

/// Seconds as the header's field has them.
fn seconds(time: Duration) -> u16 {
    u16::try_from(time.as_secs()).unwrap_or(u16::MAX)
}

/// Numbers that look like chance and are the same for the same seed: SplitMix64 (Steele, Lea and
/// Flood, 2014). They keep exchanges and clients apart; no secret hangs on them.
#[derive(Debug, Clone)]
pub(super) struct Chance(u64);

impl Chance {
    pub fn new(seed: u64) -> Chance {
        Chance(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn number(&mut self) -> u32 {
        (self.next() >> 32) as u32
    }

    /// A number of an exchange of DHCPv6: three bytes.
    pub fn xid(&mut self) -> [u8; 3] {
        let [_, xid @ ..] = self.number().to_be_bytes();
        xid
    }

    /// At least 0 and less than 1.
    pub fn fraction(&mut self) -> f64 {
        f64::from(self.number()) / (f64::from(u32::MAX) + 1.0)
    }

    fn fraction_of(&mut self, whole: Duration) -> Duration {
        whole.mul_f64(self.fraction())
    }
}

#[cfg(test)]
mod tests;
