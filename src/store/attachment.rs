//! The record of one attachment: what was wanted, what was done, and where.

use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::{Change, Committed, Condition, Dhcp, Key, LeaseRecord, Network, Record, Store, lease, network, record};
use crate::{
    error::{Error, Result},
    plan::{Link, Step, Wish, setting, tuning},
    types::{Mtu, NetworkName, Place, Tag, TargetName},
};

/// One interface that plumb put into one target, with all that goes with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    /// The version of this form. A record of a later one is not guessed at.
    pub format: u32,
    /// Not written down: it is where the record lies.
    #[serde(skip)]
    pub progress: Progress,
    /// The host, as its store tells hosts apart. Not written down either.
    #[serde(skip)]
    pub host: Option<String>,
    /// The host's name, for people.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub host_name: Option<String>,
    pub target: TargetName,
    /// The network that was joined; none for an address of its own choice.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub network: Option<NetworkName>,
    /// How it asks for its address; none for one that it was given.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub dhcp: Option<Dhcp>,
    /// The container's id.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub container: Option<String>,
    pub tag: Tag,
    /// When it was begun, in nanoseconds since 1970.
    pub begun: u64,
    pub place: Place,
    pub namespace: NamespaceMark,
    pub wish: Wish,
    /// What was done, or while unfinished what was going to be done, in order.
    pub steps: Vec<Step>,
    /// What somebody has had changed since by `plumb route`, `rule` and `link`, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<Step>,
    /// The change that is being made: written before its first step. If the process that wrote it has ended,
    /// some of the steps may have been done.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changing: Vec<Step>,
}

/// The number of the record's format; one with a higher number is refused.
pub const FORMAT: u32 = 1;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Progress {
    /// Written before the first step. If the process that wrote it has ended, some of the steps may
    /// have been done. It is durable before the command succeeds: one of an earlier boot tells of a
    /// loss of power, which took the steps along, and counts as done.
    #[default]
    Unfinished,
    Done,
}

/// What tells a namespace from every other there was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamespaceMark {
    pub inode: u64,
    /// Unique until the next boot; kernels before 5.14 have none.
    pub cookie: Option<u64>,
    /// The kernel's id of this boot.
    pub boot: String,
}

/// A record of something in a target's namespace.
pub trait Placed {
    fn target(&self) -> &TargetName;
    /// The container's id.
    fn container(&self) -> Option<&str>;
    fn place(&self) -> &Place;
    fn namespace(&self) -> &NamespaceMark;
}

impl Placed for Attachment {
    fn target(&self) -> &TargetName {
        &self.target
    }

    fn container(&self) -> Option<&str> {
        self.container.as_deref()
    }

    fn place(&self) -> &Place {
        &self.place
    }

    fn namespace(&self) -> &NamespaceMark {
        &self.namespace
    }
}

/// A record as it was found: a damaged one is never taken for none.
pub type Kept = Result<Attachment>;

/// Records lie under the kind of attachment that they describe, and until it is made under the first.
pub const UNFINISHED: &str = "unfinished";
pub const FLAT: &str = "flat";
pub const DHCP: &str = "dhcp";
pub const VLAN: &str = "vland";
pub const KINDS: [&str; 4] = [UNFINISHED, FLAT, DHCP, VLAN];
/// Addresses on a host's own LANs, by parent; and those of networks, by network.
pub const CLAIM: &str = "claim";
pub const POOL: &str = "pool";

impl Record for Attachment {
    const FORMAT: u32 = FORMAT;
    const REMEDY: &'static str = "mend it by hand, or remove the file and run plumb gc: that deletes its interface, but a default route that it had replaced must then be set by hand";

    fn key(&self) -> Key {
        match self.progress {
            Progress::Unfinished => self.key_of(UNFINISHED),
            Progress::Done => self.final_key(),
        }
    }

    fn found_at(&mut self, key: &Key) {
        self.progress = if key.kind() == UNFINISHED { Progress::Unfinished } else { Progress::Done };
        self.host = record::host_in(key);
    }
}

impl Attachment {
    /// Where it will lie when the attachment is made. Claims belong to this key all the time.
    pub fn final_key(&self) -> Key {
        self.key_of(match (&self.dhcp, &self.network) {
            (Some(_), _) => DHCP,
            (None, Some(_)) => VLAN,
            (None, None) => FLAT,
        })
    }

    fn key_of(&self, kind: &str) -> Key {
        Key::of_host(kind, self.host.as_deref(), &[&self.target.to_string(), self.interface()])
    }

    /// The link that it is about. Every attachment has one; a record without is damaged.
    pub fn link(&self) -> Option<&Link> {
        self.steps.iter().find_map(|step| match step {
            Step::AddLink(link) => Some(link),
            _ => None,
        })
    }

    /// What was done for it, the changes since included.
    pub fn all_steps(&self) -> impl DoubleEndedIterator<Item = &Step> {
        self.steps.iter().chain(&self.changes)
    }

    /// What its MTU was set to last.
    pub fn mtu(&self) -> Option<Mtu> {
        let link = self.link()?;
        let set = |step: &Step| match step {
            Step::SetMtu { index, to, .. } if *index == link.index => Some(*to),
            _ => None,
        };
        Some(self.all_steps().rev().find_map(set).unwrap_or(link.mtu))
    }

    /// What a setting of its was changed to, as `pick` reads it.
    pub fn setting<'a, T>(&'a self, pick: impl Fn(&'a setting::Change) -> Option<T>) -> Option<T> {
        let index = self.link()?.index;
        self.changes.iter().rev().find_map(|step| match step {
            Step::SetLink(setting) if setting.index == index => pick(&setting.change),
            _ => None,
        })
    }

    /// What the link is called since plumb renamed it, or as it was made. Records are kept under the name
    /// that it was made with.
    pub fn name_now(&self) -> &str {
        let renamed =
            self.setting(|change| if let setting::Change::Name(to) = change { Some(to.as_str()) } else { None });
        renamed.unwrap_or(self.interface())
    }

    /// Whether it is called so, or was when it was made.
    pub fn is_called(&self, name: &str) -> bool {
        self.name_now() == name || self.interface() == name
    }

    /// The name that it was attached under; empty in a record that names no link.
    pub fn interface(&self) -> &str {
        self.link().map_or("", |link| link.name.as_str())
    }

    /// Whether it is a network's gateway, which this host is.
    pub fn is_gateway(&self) -> bool {
        self.target == TargetName::Host && self.wish.forwarding.is_some()
    }

    /// Whether its steps may be half done: a run is at work on it, or was killed.
    pub fn is_unfinished(&self) -> bool {
        self.progress == Progress::Unfinished
    }

    /// Begins the attachment: its record, and a claim on each of its addresses, on one parent or in
    /// one network given once. Where one is another's nothing is changed; nor where somebody else is
    /// at work under the same name, or where the `network` is not as it was found.
    pub fn begin(&self, network: Option<Condition>, store: &dyn Store) -> Result<Committed> {
        let claim = |claim| Change::Claim { claim, owner: self.final_key() };
        let record = Change::Put(self.key(), super::text(self)?);
        let conditions: Vec<_> = [Condition::Absent(self.key())].into_iter().chain(network).collect();
        let changes: Vec<_> = [record].into_iter().chain(self.claims().into_iter().map(claim)).collect();
        store.commit_if(&conditions, &changes)
    }

    /// Writes the record in the place of the one that is there.
    pub fn save(&self, store: &dyn Store) -> Result<()> {
        done(store.commit(&[Change::Put(self.key(), super::text(self)?)])?)
    }

    /// Remembers what a lease brought, with the lease itself, and claims it. The record is first: what
    /// it names is given back with it.
    pub fn lease(&self, lease: &LeaseRecord, store: &dyn Store) -> Result<Committed> {
        let changes = [lease.put()?, Change::Put(self.key(), super::text(self)?)];
        done(store.commit_if(&[Condition::Present(self.key())], &changes)?)?;
        self.claim(store)
    }

    /// Claims the addresses of `self`, which has others than before.
    pub fn claim(&self, store: &dyn Store) -> Result<Committed> {
        let claim = |claim| Change::Claim { claim, owner: self.final_key() };
        let network = self.network.as_ref().map(|name| Condition::Present(Network::key(name)));
        store.commit_if(network.as_slice(), &self.claims().into_iter().map(claim).collect::<Vec<_>>())
    }

    /// The attachment is made; `beside` is remembered with it, and first: what confirms comes last.
    /// The earlier record of its name, if there is one, is replaced.
    pub fn confirm(&mut self, beside: Option<Change>, store: &dyn Store) -> Result<()> {
        self.inherit(store)?;
        let ours = Condition::Says(self.key(), super::text(self)?);
        self.finish(ours, beside, store)
    }

    /// Takes over what another has left it meanwhile ([`amend`]): who raised the parent's segments before it has gone,
    /// and it is this one now that gives back what they were.
    pub fn inherit(&mut self, store: &dyn Store) -> Result<()> {
        if tuning::raised(&self.steps).is_none() {
            return Ok(());
        }
        let now = read(store, &self.key())?.filter(|now| now.tag == self.tag);
        if let Some((_, before, _)) = now.as_ref().and_then(|now| tuning::raised(&now.steps)) {
            tuning::hand_down(&mut self.steps, before);
        }
        Ok(())
    }

    /// Confirms what another run began, in whatever layout that, or a hand since, has written it.
    pub fn keep(&mut self, store: &dyn Store) -> Result<()> {
        self.finish(Condition::Present(self.key()), None, store)
    }

    fn finish(&mut self, condition: Condition, beside: Option<Change>, store: &dyn Store) -> Result<()> {
        let made = Change::Move { from: self.key(), to: self.final_key(), value: super::text(self)? };
        done(store.commit_if(&[condition], &beside.into_iter().chain([made]).collect::<Vec<_>>())?)?;
        self.progress = Progress::Done;
        Ok(())
    }

    /// The claim that another holds, if `begin` would fail now, and who that is.
    pub fn claim_of_another(&self, store: &dyn Store) -> Result<Option<(Key, Key)>> {
        let (owner, claims) = (self.final_key(), self.claims());
        let holders = store.holders(&claims)?;
        let is_anothers = |(_, holder): &(Key, Option<Key>)| holder.as_ref().is_some_and(|holder| *holder != owner);
        let found = claims.into_iter().zip(holders).find(is_anothers);
        Ok(found.and_then(|(claim, holder)| Some((claim, holder?))))
    }

    /// Makes way for `heir`, a later record of the same target and interface: gives back what that
    /// has not claimed as well.
    pub fn yield_to(&self, heir: &Attachment, store: &dyn Store) -> Result<()> {
        match self.final_key() == heir.final_key() {
            true => done(store.commit(&self.releases(Some(heir)))?),
            false => self.forget(store),
        }
    }

    fn releases(&self, heir: Option<&Attachment>) -> Vec<Change> {
        let owner = self.final_key();
        // Only a record under the very same key can have the same claims.
        let kept = heir.filter(|heir| heir.final_key() == owner).map(Attachment::claims).unwrap_or_default();
        let gone = self.claims().into_iter().filter(|claim| !kept.contains(claim));
        gone.map(|claim| Change::Release { claim, owner: owner.clone() }).collect()
    }

    /// Forgets the attachment: its claims and its lease first, so that none is without its record. One that was
    /// never finished leaves the earlier one of its name what that had; and of another that is on record
    /// under its name by now nothing is touched.
    pub fn forget(&self, store: &dyn Store) -> Result<()> {
        while let Some(text) = store.get(&self.key())? {
            if record::parse::<Attachment>(store, &self.key(), &text)?.tag != self.tag {
                return Ok(());
            }
            match store.commit_if(&[Condition::Says(self.key(), text)], &self.removal(store))? {
                // Amended meanwhile: it goes all the same.
                Committed::Unmet => {}
                committed => return done(committed),
            }
        }
        Ok(())
    }

    fn removal(&self, store: &dyn Store) -> Vec<Change> {
        let earlier = if self.is_unfinished() { read(store, &self.final_key()).ok().flatten() } else { None };
        let mut changes = self.releases(earlier.as_ref());
        changes.extend(self.dhcp.as_ref().map(|_| Change::Remove(lease::key_of(self))));
        changes.push(Change::Remove(self.key()));
        // An address that was in use comes back last. That is a hint, and no reason to keep the rest.
        if let Some(network) = self.network.as_ref().filter(|_| !self.is_unfinished() && self.dhcp.is_none()) {
            let ips: Vec<_> = self.wish.addresses.iter().map(|address| address.ip()).collect();
            changes.extend(network::given_back(store, network, &ips).ok().flatten());
        }
        changes
    }

    /// An address is claimed on the parent's layer 2, as the same one on another LAN is another
    /// address; that of a network for all hosts that share it.
    pub fn claims(&self) -> Vec<Key> {
        // Nobody else is where a dummy is.
        let Some(lan) = self.link().map_or_else(|| Some(String::new()), Link::lan) else { return Vec::new() };
        let claim = |ip: String| match &self.network {
            Some(network) => Key::new([POOL, &network.to_string(), &ip]),
            None => Key::of_host(CLAIM, self.host.as_deref(), &[&lan, &ip]),
        };
        self.wish.addresses.iter().map(|address| claim(address.ip().to_string())).collect()
    }
}

/// For commits that claim nothing.
pub(super) fn done(committed: Committed) -> Result<()> {
    match committed {
        Committed::Done => Ok(()),
        Committed::Unmet => Err(Error::conflict("another plumb has changed the same record at the same moment")
            .hint("run the command again")),
        Committed::Held { claim, holder } => Err(Error::conflict(format!("{claim} is claimed by {holder}"))),
    }
}

/// The error for a claim that another attachment holds.
pub fn held(store: &dyn Store, claim: &Key, holder: &Key) -> Error {
    let (address, where_) = (claim.last(), claim.parts().iter().rev().nth(1).map_or("", String::as_str));
    let on = if claim.kind() == POOL { "in" } else { "on" };
    let Some((target, interface)) = owner_of(holder) else {
        return Error::conflict(format!("{address} {on} {where_} is claimed by {holder}"));
    };
    let elsewhere = read(store, holder).ok().flatten().filter(|owner| owner.host.as_deref() != store.host());
    let host = elsewhere.and_then(|owner| owner.host_name).map_or(String::new(), |name| format!(" on host {name}"));
    Error::conflict(format!("{address} is given to {target} ({interface}){host} {on} {where_} already"))
        .hint(format!("choose another, or free it: plumb detach {target} {interface}"))
}

/// The target and the interface that a record's key names.
pub fn owner_of(key: &Key) -> Option<(&str, &str)> {
    match key.parts() {
        [_, target, interface] | [_, _, target, interface] => Some((target, interface)),
        _ => None,
    }
}

/// All attachments of this host, or those of one target, unfinished ones first. Damaged records are
/// in their places, as errors.
pub fn all(store: &dyn Store, target: Option<&TargetName>) -> Result<Vec<Kept>> {
    under(store, &KINDS, target)
}

/// The attachments that are being made, or were when their process was killed.
pub fn unfinished(store: &dyn Store, target: Option<&TargetName>) -> Result<Vec<Kept>> {
    under(store, &[UNFINISHED], target)
}

fn under(store: &dyn Store, kinds: &[&str], target: Option<&TargetName>) -> Result<Vec<Kept>> {
    let target = target.map(TargetName::to_string);
    let rest: Vec<&str> = target.iter().map(String::as_str).collect();
    let prefixes: Vec<Key> = kinds.iter().map(|kind| Key::of_host(kind, store.host(), &rest)).collect();
    record::under(store, &prefixes)
}

/// The attachment as its record is now, or `None` if it has gone or another has taken its name. Who
/// has waited for a lock must look again: what was read before may be history.
pub fn again(store: &dyn Store, before: &Attachment) -> Result<Option<Attachment>> {
    for progress in [Progress::Unfinished, Progress::Done] {
        let now = read(store, &Attachment { progress, ..before.clone() }.key())?;
        if let Some(now) = now.filter(|now| now.tag == before.tag) {
            return Ok(Some(now));
        }
    }
    Ok(None)
}

/// Makes `change` to the record of an attachment in a namespace that the caller has not locked. Says whether it is
/// still there.
pub fn amend(store: &dyn Store, attachment: &Attachment, change: impl Fn(&mut Attachment)) -> Result<bool> {
    let change = |now: &mut Attachment| {
        let is_it = now.tag == attachment.tag;
        if is_it {
            change(now);
        }
        is_it
    };
    for progress in [Progress::Unfinished, Progress::Done] {
        if record::amend(store, &Attachment { progress, ..attachment.clone() }.key(), change)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Where the record of the attachment whose final key is `key` may lie: while it is made, and then.
fn records_of(key: &Key) -> [Key; 2] {
    let parts: Vec<&str> = key.parts().iter().skip(1).map(String::as_str).collect();
    [Key::of_host(UNFINISHED, None, &parts), key.clone()]
}

/// Whether there is a record, finished or not, of the attachment whose final key is `key`.
pub fn is_on_record(store: &dyn Store, key: &Key) -> Result<bool> {
    Ok(store.values(&records_of(key))?.iter().any(Option::is_some))
}

/// The conditions under which `claim` is lost: that its owner's records, finished and not, stay as they
/// are, of which none speaks of it. `None` if one does, or cannot be read.
pub fn lost_claim(store: &dyn Store, claim: &Key, owner: &Key) -> Result<Option<Vec<Condition>>> {
    let keys = records_of(owner);
    let found = store.values(&keys)?;
    let speaks_of_it = |(key, text): (&Key, &Option<Vec<u8>>)| {
        text.as_ref().is_some_and(|text| {
            record::parse(store, key, text).map_or(true, |owner: Attachment| owner.claims().contains(claim))
        })
    };
    if keys.iter().zip(&found).any(speaks_of_it) {
        return Ok(None);
    }
    Ok(Some(keys.into_iter().zip(found).map(|(key, text)| Condition::as_found(key, text)).collect()))
}

/// The attachment, finished or not, whose final key is `key`; of this host or of another.
pub fn owner(store: &dyn Store, key: &Key) -> Result<Option<Attachment>> {
    let [unfinished, _] = records_of(key);
    match read(store, key)? {
        None => read(store, &unfinished),
        found => Ok(found),
    }
}

/// One attachment, or `None` if there is no record of it.
pub fn read(store: &dyn Store, key: &Key) -> Result<Option<Attachment>> {
    record::read(store, key)
}

/// The attachments that were made of one target, however it was named: by name, or by the
/// beginning of its container's id.
pub fn of_target(store: &dyn Store, target: &TargetName) -> Result<Vec<Kept>> {
    let by_name = all(store, Some(target))?;
    let (TargetName::Docker(prefix) | TargetName::Podman(prefix)) = target else { return Ok(by_name) };
    if !by_name.is_empty() || prefix.len() < 4 {
        return Ok(by_name);
    }
    let begins =
        |attachment: &Attachment| attachment.container.as_ref().is_some_and(|id| id.starts_with(prefix.as_str()));
    Ok(all(store, None)?.into_iter().filter(|kept| kept.as_ref().is_ok_and(begins)).collect())
}

/// Now, as records have it.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}
