//! The exchanges of a client (RFC 8415 section 18.2): told what happens and when, it answers with what to
//! do. Time is a length since some fixed moment, and must go on while the machine sleeps.

use std::{mem, net::Ipv6Addr, sync::Arc, time::Duration};

use dhcproto::v6::MessageType;

use super::{
    Client, Lease,
    message::{Answer, Heard, Kind},
};
use crate::dhcp::{Loss, Term, machine::Chance};

/// A client's state, for one address of one interface.
#[derive(Debug, Clone)]
pub struct Machine {
    client: Client,
    chance: Chance,
    state: State,
    xid: [u8; 3],
    /// When the exchange began, how often its message was sent, and how long the next answer is waited for.
    began: Duration,
    sent: u32,
    patience: Duration,
    wake: Option<Duration>,
    complaint: Option<String>,
}

#[derive(Debug, Clone)]
enum State {
    Stopped,
    Soliciting { prefer: Option<Ipv6Addr> },
    Requesting { offer: Arc<Lease>, before: Option<Held> },
    Bound { held: Held },
    Renewing { held: Held },
    Rebinding { held: Held },
}

/// A lease and when it was asked for.
#[derive(Debug, Clone)]
struct Held {
    lease: Arc<Lease>,
    asked: Duration,
}

/// What the clock says about a lease.
#[derive(PartialEq, Eq)]
enum Due {
    Nothing,
    Renewal,
    Rebinding,
    End,
}

impl Held {
    /// T1, T2 and the end; `None` for a lease that never ends.
    fn times(&self) -> Option<[Duration; 3]> {
        match self.lease.term {
            Term::Infinite => None,
            Term::Finite { renew, rebind, expire } => Some([renew, rebind, expire].map(|time| self.asked + time)),
        }
    }

    fn due(&self, now: Duration) -> Due {
        match self.times() {
            Some([.., end]) if now >= end => Due::End,
            Some([_, rebind, _]) if now >= rebind => Due::Rebinding,
            Some([renew, ..]) if now >= renew => Due::Renewal,
            _ => Due::Nothing,
        }
    }
}

/// How to begin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Start {
    /// The servers may be asked for an address that would be welcome.
    Init { prefer: Option<Ipv6Addr> },
    /// With a lease that is in use and was asked for `age` ago: another process kept it until now.
    Resume { lease: Arc<Lease>, age: Duration },
}

/// What to do. Of several, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// To all servers of the link, at port 547 of ff02::1:2.
    Send(Vec<u8>),
    /// The address can be used, and the one of `before` not any more where it is another.
    Bound { lease: Arc<Lease>, before: Option<Arc<Lease>> },
    /// The address must not be used any more. The machine asks for another.
    Lost { lease: Arc<Lease>, why: Loss },
}

/// How often and how long a message is repeated (section 7.6). A most of zero is none.
struct Rhythm {
    first: Duration,
    most: Duration,
}

const fn seconds(first: u64, most: u64) -> Rhythm {
    Rhythm { first: Duration::from_secs(first), most: Duration::from_secs(most) }
}

const SOLICIT: Rhythm = seconds(1, 3600);
const REQUEST: Rhythm = seconds(1, 30);
const REQUESTS: u32 = 10;
/// For Renew and Rebind: 10 s, or of short leases a quarter of what is left.
const RENEW: Rhythm = seconds(10, 600);
/// Section 15: each wait is up to a tenth shorter or longer.
const JITTER: f64 = 0.1;

impl Machine {
    /// A machine that does nothing yet. The seed must differ between clients: exchanges are told apart by it.
    pub fn new(client: Client, seed: u64) -> Machine {
        Machine {
            client,
            chance: Chance::new(seed),
            state: State::Stopped,
            xid: [0; 3],
            began: Duration::ZERO,
            sent: 0,
            patience: Duration::ZERO,
            wake: None,
            complaint: None,
        }
    }

    pub fn start(&mut self, now: Duration, start: Start) -> Vec<Action> {
        self.complaint = None;
        match start {
            Start::Init { prefer } => self.solicit(now, prefer),
            Start::Resume { lease, age } => self.keep(now, Held { lease, asked: now.saturating_sub(age) }),
        }
    }

    /// What to do once the clock says `now`. Nothing before [`Machine::wake`].
    pub fn tick(&mut self, now: Duration) -> Vec<Action> {
        if self.wake.is_none_or(|wake| now < wake) {
            return Vec::new();
        }
        match mem::replace(&mut self.state, State::Stopped) {
            State::Stopped => Vec::new(),
            State::Soliciting { prefer } => self.again(now, State::Soliciting { prefer }),
            State::Requesting { offer, before } if self.sent >= REQUESTS => {
                self.complaint = Some(format!("{} offered {} and did not confirm it", offer.from, offer.ip()));
                match before {
                    Some(held) => self.keep(now, held),
                    None => self.solicit(now, None),
                }
            }
            State::Requesting { before: Some(held), .. } if held.due(now) == Due::End => self.keep(now, held),
            State::Requesting { offer, before } => self.again(now, State::Requesting { offer, before }),
            State::Bound { held } | State::Renewing { held } | State::Rebinding { held }
                if held.due(now) == Due::End =>
            {
                self.keep(now, held)
            }
            State::Renewing { held } if held.due(now) == Due::Renewal => self.again(now, State::Renewing { held }),
            State::Rebinding { held } => self.again(now, State::Rebinding { held }),
            State::Bound { held } | State::Renewing { held } => self.keep(now, held),
        }
    }

    /// A message arrived from `from` at port 546. What is not an answer to the question that is open changes
    /// nothing.
    pub fn receive(&mut self, now: Duration, from: Ipv6Addr, bytes: &[u8]) -> Vec<Action> {
        let Some(heard) = self.client.hear(self.xid, from, bytes) else { return Vec::new() };
        match (mem::replace(&mut self.state, State::Stopped), heard.kind) {
            // Others may offer more; nobody wants to wait for them (section 18.2.1 lets a client choose
            // otherwise only to compare preferences).
            (State::Soliciting { prefer }, Kind::Advertise) => match heard.answer {
                Answer::Lease(lease) => self.begin(now, State::Requesting { offer: (*lease).into(), before: None }),
                answer => self.refused(from, answer, State::Soliciting { prefer }),
            },
            (State::Requesting { offer, before }, Kind::Reply) if heard.server == offer.server => match heard.answer {
                Answer::Lease(lease) => self.bind(now, *lease, before),
                answer => {
                    self.refused(from, answer, State::Stopped);
                    match before {
                        Some(held) => self.lose(now, &held, Loss::Refused),
                        // Asked again at its own rhythm, not at once: it would say the same.
                        None => {
                            self.state = State::Soliciting { prefer: None };
                            self.wake = Some(now + self.patience);
                            Vec::new()
                        }
                    }
                }
            },
            (State::Renewing { held }, Kind::Reply) => self.renewed(now, from, heard, held, false),
            (State::Rebinding { held }, Kind::Reply) => self.renewed(now, from, heard, held, true),
            (state, _) => {
                self.state = state;
                Vec::new()
            }
        }
    }

    fn renewed(&mut self, now: Duration, from: Ipv6Addr, heard: Heard, held: Held, by_any: bool) -> Vec<Action> {
        let back = |held| if by_any { State::Rebinding { held } } else { State::Renewing { held } };
        match heard.answer {
            Answer::Lease(lease) => self.bind(now, *lease, Some(held)),
            // It has lost its memory: asked for it anew, it will know (section 18.2.10.1).
            Answer::Unknown => {
                let offer = Arc::new(Lease { server: heard.server, from, ..(*held.lease).clone() });
                self.begin(now, State::Requesting { offer, before: Some(held) })
            }
            answer @ Answer::Refused(_) => {
                self.refused(from, answer, State::Stopped);
                self.lose(now, &held, Loss::Refused)
            }
            answer => self.refused(from, answer, back(held)),
        }
    }

    fn refused(&mut self, from: Ipv6Addr, answer: Answer, state: State) -> Vec<Action> {
        self.state = state;
        let what = match answer {
            Answer::Refused(why) => format!("{from} grants nothing: {why}"),
            Answer::Unfit(why) => format!("what {from} said was no lease: {why}"),
            Answer::Unknown => format!("{from} knows of no lease"),
            Answer::Lease(_) | Answer::Nothing => return Vec::new(),
        };
        self.complaint = Some(what);
        Vec::new()
    }

    /// The address is in use by another machine. The server is told, and asked for another.
    pub fn in_use(&mut self, now: Duration) -> Vec<Action> {
        let State::Bound { held } = mem::replace(&mut self.state, State::Stopped) else { return Vec::new() };
        self.complaint = Some(format!("{} offered {}, which is in use", held.lease.from, held.lease.ip()));
        let told = self.last_word(MessageType::Decline, &held);
        [Action::Send(told)].into_iter().chain(self.solicit(now, None)).collect()
    }

    /// Nobody uses the address any more.
    pub fn release(&mut self) -> Vec<Action> {
        self.wake = None;
        match mem::replace(&mut self.state, State::Stopped) {
            State::Bound { held } | State::Renewing { held } | State::Rebinding { held } => {
                vec![Action::Send(self.last_word(MessageType::Release, &held))]
            }
            _ => Vec::new(),
        }
    }

    fn last_word(&mut self, kind: MessageType, held: &Held) -> Vec<u8> {
        self.xid = self.chance.xid();
        self.client.say(kind, self.xid, 0, Some(&held.lease.server), Some(held.lease.ip()))
    }

    fn solicit(&mut self, now: Duration, prefer: Option<Ipv6Addr>) -> Vec<Action> {
        self.begin(now, State::Soliciting { prefer })
    }

    /// Begins an exchange.
    fn begin(&mut self, now: Duration, state: State) -> Vec<Action> {
        (self.xid, self.began, self.sent, self.patience) = (self.chance.xid(), now, 0, Duration::ZERO);
        self.again(now, state)
    }

    /// Sends an exchange's message, again.
    fn again(&mut self, now: Duration, state: State) -> Vec<Action> {
        let rhythm = match &state {
            State::Requesting { .. } => REQUEST,
            State::Renewing { held } | State::Rebinding { held } => {
                let quarter = held.times().map_or(RENEW.first, |[.., end]| end.saturating_sub(now) / 4);
                Rhythm { first: RENEW.first.min(quarter).max(Duration::from_secs(1)), ..RENEW }
            }
            _ => SOLICIT,
        };
        let jitter = |chance: &mut Chance, wait: Duration| wait.mul_f64(1.0 + JITTER * (2.0 * chance.fraction() - 1.0));
        self.patience = match self.sent {
            // The first of a Solicit is never shorter (section 18.2.1).
            0 => rhythm.first + jitter(&mut self.chance, rhythm.first).saturating_sub(rhythm.first),
            _ => jitter(&mut self.chance, (self.patience * 2).min(rhythm.most)),
        };
        self.sent += 1;
        let hundredths = u16::try_from(now.saturating_sub(self.began).as_millis() / 10).unwrap_or(u16::MAX);
        let say = |kind, server, address| self.client.say(kind, self.xid, hundredths, server, address);
        let message = match &state {
            State::Stopped | State::Bound { .. } => return Vec::new(),
            State::Soliciting { prefer } => say(MessageType::Solicit, None, *prefer),
            State::Requesting { offer, .. } => say(MessageType::Request, Some(&offer.server), Some(offer.ip())),
            State::Renewing { held } => say(MessageType::Renew, Some(&held.lease.server), Some(held.lease.ip())),
            State::Rebinding { held } => say(MessageType::Rebind, None, Some(held.lease.ip())),
        };
        // Whatever is waited for, what the clock says about a lease comes first.
        let next = match &state {
            State::Renewing { held } => held.times().map(|[_, rebind, _]| rebind),
            State::Rebinding { held } | State::Requesting { before: Some(held), .. } => {
                held.times().map(|[.., end]| end)
            }
            _ => None,
        };
        let wake = now + self.patience;
        self.wake = Some(next.map_or(wake, |next| wake.min(next.max(now))));
        self.state = state;
        vec![Action::Send(message)]
    }

    fn bind(&mut self, now: Duration, lease: Lease, before: Option<Held>) -> Vec<Action> {
        self.complaint = None;
        // Counted from the answer, as the server counts (section 18.2.10.1: "upon reception").
        let held = Held { lease: lease.into(), asked: now };
        let bound = Action::Bound { lease: held.lease.clone(), before: before.map(|held| held.lease) };
        [bound].into_iter().chain(self.keep(now, held)).collect()
    }

    /// Goes on with a lease as the clock says.
    fn keep(&mut self, now: Duration, held: Held) -> Vec<Action> {
        match held.due(now) {
            Due::Nothing => {
                self.wake = held.times().map(|[renew, ..]| renew);
                self.state = State::Bound { held };
                Vec::new()
            }
            Due::Renewal => self.begin(now, State::Renewing { held }),
            Due::Rebinding => self.begin(now, State::Rebinding { held }),
            Due::End => self.lose(now, &held, Loss::Expired),
        }
    }

    fn lose(&mut self, now: Duration, held: &Held, why: Loss) -> Vec<Action> {
        let lost = Action::Lost { lease: held.lease.clone(), why };
        [lost].into_iter().chain(self.solicit(now, Some(held.lease.ip()))).collect()
    }

    /// When to call [`Machine::tick`] next; `None` if nothing is to be done for ever.
    pub fn wake(&self) -> Option<Duration> {
        self.wake
    }

    /// What went wrong last, since there was a lease.
    pub fn complaint(&self) -> Option<&str> {
        self.complaint.as_deref()
    }

    /// When the lease that is held was asked for.
    pub fn asked(&self) -> Option<Duration> {
        self.held().map(|held| held.asked)
    }

    fn held(&self) -> Option<&Held> {
        match &self.state {
            State::Bound { held } | State::Renewing { held } | State::Rebinding { held } => Some(held),
            State::Requesting { before, .. } => before.as_ref(),
            State::Stopped | State::Soliciting { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests;
