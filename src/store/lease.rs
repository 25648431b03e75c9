//! The record of a lease. It lies apart from its attachment's, as each renewal writes it anew, and
//! outlives the container: who comes back is given the same address.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::{Attachment, Change, Key, Record, Store, record};
use crate::{
    dhcp::{Client, External, Lease, Machine, Term, v6},
    error::Result,
    plan::Wish,
    types::{RouteSpec, Span, TargetName},
};

/// How an attachment asks for its address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dhcp {
    pub client: Client,
    /// Who asks; none: plumb itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external: Option<External>,
    /// How long the LAN is asked whether an offered address is free; 0: not at all.
    pub probe: Span,
    /// Routes of the attachment's own, beside those of the lease.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<RouteSpec>,
    /// The container's `/etc/resolv.conf` is to name the lease's resolvers.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dns: bool,
    /// Whether the agent keeps the lease.
    pub renew: bool,
}

impl Dhcp {
    /// The states of whoever asks. The seed must differ between clients.
    pub fn machine(&self, seed: u64) -> Machine {
        let (client, checks) = (self.client.clone(), !self.probe.is_zero());
        match self.external {
            Some(_) => Machine::listening(client, checks, seed),
            None => Machine::new(client, checks, seed),
        }
    }

    /// `wish` with what the lease says: its address, its first router and its routes. The routes that
    /// the server had the idea of, and that may have to give way, are the last ones.
    pub fn wish(&self, wish: &Wish, lease: &Lease) -> Wish {
        Wish {
            addresses: vec![lease.address],
            gateways: lease.routers.first().copied().into_iter().collect(),
            routes: self.routes.iter().chain(self.offered(lease)).cloned().collect(),
            ..self.bare(wish)
        }
    }

    /// `wish` without any lease.
    pub fn bare(&self, wish: &Wish) -> Wish {
        // Where the router is not in the subnet, the server knows why.
        Wish { addresses: Vec::new(), gateways: Vec::new(), routes: Vec::new(), off_link_gateway: true, ..wish.clone() }
    }

    /// What the container's `/etc/resolv.conf` is to say by this lease; none: what it says already.
    pub fn resolver(&self, lease: &Lease) -> Option<String> {
        if !self.dns || lease.dns.is_empty() {
            return None;
        }
        let mut text = format!("# from the DHCP server {}, by plumb\n", lease.server);
        if !lease.search.is_empty() {
            text += &format!("search {}\n", lease.search.join(" "));
        }
        lease.dns.iter().for_each(|ip| text += &format!("nameserver {ip}\n"));
        Some(text)
    }

    fn offered<'a>(&'a self, lease: &'a Lease) -> impl Iterator<Item = &'a RouteSpec> {
        let is_own = |route: &&RouteSpec| self.routes.iter().any(|own| own.destination == route.destination);
        let leads_somewhere = |route: &&RouteSpec| {
            route.via.is_none_or(|via| {
                via.ip() != lease.address.ip()
                    && (!lease.address.reaches(via.ip()) || via.unfit_for(lease.address).is_none())
            })
        };
        lease.routes.iter().filter(move |route| !is_own(route) && leads_somewhere(route))
    }
}

/// What is known of the lease of one attachment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseRecord {
    /// The version of this form.
    pub format: u32,
    /// The host, as its store tells hosts apart. Not written down: it is where the record lies.
    #[serde(skip)]
    pub host: Option<String>,
    pub target: TargetName,
    pub interface: String,
    /// The random part of the attachment's tag: a later attachment of the same name has another.
    pub attachment: String,
    pub state: Holding,
    /// The lease that is held, or was.
    pub lease: Lease,
    pub asked: Moment,
    /// What went wrong last, since there was a lease.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// The same of an IPv6 address, where one was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv6: Option<Ipv6Lease>,
}

/// What is known of an attachment's leased IPv6 address. It is on the interface beside those of the
/// attachment's wish, and in none of its steps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ipv6Lease {
    pub state: Holding,
    pub lease: v6::Lease,
    pub asked: Moment,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// How a lease stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Holding {
    /// The address is the container's.
    Held,
    /// It has run out or was refused, and another is asked for.
    Lost,
    /// It was given back.
    Released,
}

/// A moment, by the clock that nobody sets, and for after a reboot by the other one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moment {
    /// The kernel's id of the boot that `since_boot` counts from.
    pub boot: String,
    pub since_boot: Duration,
    /// Since 1970.
    pub wall: Duration,
}

impl Moment {
    /// The moment at which the boot's clock showed, or will show, `since_boot`; it shows `now` now.
    pub fn at(since_boot: Duration, now: Duration, boot: String) -> Moment {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Moment { boot, since_boot, wall: (wall + since_boot).saturating_sub(now) }
    }

    /// How long ago it was.
    pub fn age(&self, now: Duration, boot: &str) -> Duration {
        if self.boot == boot {
            return now.saturating_sub(self.since_boot);
        }
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().saturating_sub(self.wall)
    }
}

pub const FORMAT: u32 = 1;
pub const LEASE: &str = "lease";

impl Record for LeaseRecord {
    const FORMAT: u32 = FORMAT;
    const REMEDY: &'static str = "remove the file; the agent then asks for a lease anew";

    fn key(&self) -> Key {
        Key::of_host(LEASE, self.host.as_deref(), &[&self.target.to_string(), &self.interface])
    }

    fn found_at(&mut self, key: &Key) {
        self.host = record::host_in(key);
    }
}

impl LeaseRecord {
    pub fn new(attachment: &Attachment, lease: Lease, asked: Moment) -> LeaseRecord {
        LeaseRecord {
            format: FORMAT,
            host: attachment.host.clone(),
            target: attachment.target.clone(),
            interface: attachment.interface().to_owned(),
            attachment: attachment.tag.attachment.clone(),
            state: Holding::Held,
            lease,
            asked,
            problem: None,
            ipv6: None,
        }
    }

    pub fn is_of(&self, attachment: &Attachment) -> bool {
        self.attachment == attachment.tag.attachment
    }

    pub fn put(&self) -> Result<Change> {
        Ok(Change::Put(self.key(), super::text(self)?))
    }

    pub fn save(&self, store: &dyn Store) -> Result<()> {
        super::attachment::done(store.commit(&[self.put()?])?)
    }

    /// How the lease stands, and for how long yet.
    pub fn standing(&self) -> Standing<'_> {
        Standing { state: self.state, term: &self.lease.term, asked: &self.asked }
    }
}

impl Ipv6Lease {
    pub fn new(lease: v6::Lease, asked: Moment) -> Ipv6Lease {
        Ipv6Lease { state: Holding::Held, lease, asked, problem: None }
    }

    pub fn standing(&self) -> Standing<'_> {
        Standing { state: self.state, term: &self.lease.term, asked: &self.asked }
    }
}

/// What time makes of a lease.
#[derive(Debug, Clone, Copy)]
pub struct Standing<'a> {
    state: Holding,
    term: &'a Term,
    asked: &'a Moment,
}

impl Standing<'_> {
    /// How long the lease is still good; `None` for ever.
    pub fn left(&self, now: Duration, boot: &str) -> Option<Duration> {
        self.term.expire().map(|whole| whole.saturating_sub(self.asked.age(now, boot)))
    }

    /// Whether the address may be used at this moment.
    pub fn is_good(&self, now: Duration, boot: &str) -> bool {
        self.state == Holding::Held && self.left(now, boot).is_none_or(|left| !left.is_zero())
    }

    /// One word: of a lease that is held, what the client's state must be by now.
    pub fn word(&self, now: Duration, boot: &str) -> &'static str {
        let age = self.asked.age(now, boot);
        match (self.state, self.term) {
            (Holding::Lost, _) => "lost",
            (Holding::Released, _) => "released",
            (Holding::Held, Term::Infinite) => "bound",
            (Holding::Held, Term::Finite { renew, .. }) if age < *renew => "bound",
            (Holding::Held, Term::Finite { rebind, .. }) if age < *rebind => "renewing",
            (Holding::Held, Term::Finite { expire, .. }) if age < *expire => "rebinding",
            (Holding::Held, Term::Finite { .. }) => "expired",
        }
    }
}

/// The key of an attachment's lease.
pub fn key_of(attachment: &Attachment) -> Key {
    Key::of_host(LEASE, attachment.host.as_deref(), &[&attachment.target.to_string(), attachment.interface()])
}

/// The lease of an attachment, or of an earlier one of its name.
pub fn read(store: &dyn Store, attachment: &Attachment) -> Result<Option<LeaseRecord>> {
    at(store, &key_of(attachment))
}

/// The lease at `key`, or `None` if there is none.
pub fn at(store: &dyn Store, key: &Key) -> Result<Option<LeaseRecord>> {
    record::read(store, key)
}

/// All leases of this host. Damaged records are in their places, as errors.
pub fn all(store: &dyn Store) -> Result<Vec<Result<LeaseRecord>>> {
    record::under(store, &[Key::of_host(LEASE, store.host(), &[])])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn age_is_told_by_the_boots_clock_and_after_a_reboot_by_the_other() {
        let s = Duration::from_secs;
        let moment = Moment::at(s(100), s(160), "this".into());
        assert_eq!(moment.age(s(160), "this"), s(60));
        let after = moment.age(s(5), "next");
        assert!(after >= s(60) && after < s(70), "{after:?}");
        let set_back = Moment { wall: moment.wall + s(3600), ..moment };
        assert_eq!(set_back.age(s(5), "next"), s(0), "the clock was set back meanwhile");
        assert_eq!(set_back.age(s(160), "this"), s(60));
    }
}
