//! What plumb remembers: attachments, limits, and who has which address.

pub mod attachment;
mod directory;
mod etcd;
pub mod kinds;
pub mod lease;
pub mod network;
pub mod record;
pub mod shaped;

use std::fmt;

pub use attachment::{Attachment, Kept, NamespaceMark, Placed, Progress};
pub use directory::Directory;
pub use etcd::{Access, Etcd};
pub use lease::{Dhcp, Holding, Ipv6Lease, LeaseRecord, Moment, Standing};
pub use network::Network;
pub use record::Record;
pub use shaped::Shaped;

/// Where records are kept unless somebody says otherwise.
pub const DEFAULT: &str = "/var/lib/plumb";

use crate::{
    error::{Error, Kind, Result},
    types::StoreMark,
};

/// A place to remember things by key: records, which have a value, and claims, which have an owner.
pub trait Store: Send + Sync {
    /// The mark on the links whose records are here.
    fn mark(&self) -> StoreMark;

    /// The part of a key that tells this host's attachments from other hosts'. A store that is this
    /// host's alone needs none.
    fn host(&self) -> Option<&str>;

    /// The value of each key, or `None` if it has none.
    fn values(&self, keys: &[Key]) -> Result<Vec<Option<Vec<u8>>>>;

    fn get(&self, key: &Key) -> Result<Option<Vec<u8>>> {
        Ok(self.values(std::slice::from_ref(key))?.pop().flatten())
    }

    /// The records under each prefix, one prefix after the other, each sorted by key. One that cannot
    /// be read does not keep the others from being read.
    fn records(&self, prefixes: &[Key]) -> Result<Vec<(Key, Result<Vec<u8>>)>>;

    /// Carries all changes out, in this order, with no other commit in between; or none, where a
    /// condition does not hold or a claim is held by another. Records put beside claims are new ones.
    /// What is done outlives the process, which may be killed in the middle of it where the store is a
    /// directory; a loss of power only after `flush`.
    fn commit_if(&self, conditions: &[Condition], changes: &[Change]) -> Result<Committed>;

    fn commit(&self, changes: &[Change]) -> Result<Committed> {
        self.commit_if(&[], changes)
    }

    /// Makes what was last done to `key` outlive a loss of power, its removal too.
    fn flush(&self, key: &Key) -> Result<()>;

    /// Who has claimed what each key names.
    fn holders(&self, claims: &[Key]) -> Result<Vec<Option<Key>>>;

    /// The claims under `prefix`, each with its owner.
    fn claims(&self, prefix: &Key) -> Result<Vec<(Key, Key)>>;

    /// Removes what a killed run left of its own writing. Says how much that was.
    fn sweep(&self) -> Result<usize>;

    /// Where a person finds what `key` names.
    fn place(&self, key: &Key) -> String;
}

/// One thing to do to a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Sets the value, whole or not at all.
    Put(Key, Vec<u8>),
    /// Gives `from`'s value, which `value` repeats, to `to` in one stroke: there is no moment with
    /// both or neither.
    Move { from: Key, to: Key, value: Vec<u8> },
    /// Removes the value. That there is none is no error.
    Remove(Key),
    /// Claims what `claim` names for the record `owner`: one of any number of claimants wins.
    Claim { claim: Key, owner: Key },
    /// Gives a claim of `owner`'s back. Another's is left alone.
    Release { claim: Key, owner: Key },
}

/// What must be true for a commit, at the moment at which it is carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// There is such a record.
    Present(Key),
    /// There is no such record.
    Absent(Key),
    /// The record is there and says this, byte for byte.
    Says(Key, Vec<u8>),
    /// There is no claim under this prefix.
    Unclaimed(Key),
}

impl Condition {
    /// That the record is as it was found: with this text, or not there.
    pub fn as_found(key: Key, found: Option<Vec<u8>>) -> Condition {
        match found {
            Some(text) => Condition::Says(key, text),
            None => Condition::Absent(key),
        }
    }
}

/// The outcome of a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub enum Committed {
    Done,
    /// Nothing was changed: a condition does not hold.
    Unmet,
    /// Nothing was changed: a claim is another's.
    Held {
        claim: Key,
        holder: Key,
    },
}

/// A path of parts, each of which may be any text but the empty one. The first says what kind of
/// thing it names.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Vec<String>);

impl Key {
    pub fn new<const N: usize>(parts: [&str; N]) -> Key {
        Key(parts.map(str::to_owned).to_vec())
    }

    /// `KIND/HOST/REST`, or `KIND/REST` in a store that is one host's alone.
    pub fn of_host(kind: &str, host: Option<&str>, rest: &[&str]) -> Key {
        Key([kind].into_iter().chain(host).chain(rest.iter().copied()).map(str::to_owned).collect())
    }

    pub fn parts(&self) -> &[String] {
        &self.0
    }

    /// The first part: what kind of thing it names.
    pub fn kind(&self) -> &str {
        self.0.first().map_or("", String::as_str)
    }

    /// The last part, such as an address or the name of an interface.
    pub fn last(&self) -> &str {
        self.0.last().map_or("", String::as_str)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("/"))
    }
}

/// A record as it is written: indented for people, with a line's end.
fn text(record: &impl serde::Serialize) -> Result<Vec<u8>> {
    let mut text = serde_json::to_vec_pretty(record)
        .map_err(|error| Error::failed(format!("cannot write the record: {error}")))?;
    text.push(b'\n');
    Ok(text)
}

/// What `text` at `key` says, if it is of a format that is known here; `remedy` for one that is damaged.
fn value<T: serde::de::DeserializeOwned>(
    store: &dyn Store,
    key: &Key,
    text: &[u8],
    known: u32,
    remedy: &str,
) -> Result<T> {
    let damaged = |error: String| {
        Error::failed(format!("the record {} is damaged: {error}", store.place(key)))
            .hint(format!("it was left as it is; {remedy}"))
    };
    #[derive(serde::Deserialize)]
    struct Format {
        format: Option<u32>,
    }
    // Read in two steps, so that a later format is recognised even if all else in it is different.
    let format: Format = serde_json::from_slice(text).map_err(|error| damaged(error.to_string()))?;
    match format.format {
        Some(format) if format > known => {
            let place = store.place(key);
            Err(Error::failed(format!("the record {place} is of format {format}, and this plumb knows {known}"))
                .hint("a newer plumb wrote it: use that one"))
        }
        Some(_) => serde_json::from_slice(text).map_err(|error| damaged(error.to_string())),
        None => Err(damaged("it has no format number".into())),
    }
}

impl Change {
    /// The keys that it changes.
    fn keys(&self) -> Vec<&Key> {
        match self {
            Change::Put(key, _) | Change::Remove(key) => vec![key],
            Change::Move { from, to, .. } => vec![from, to],
            Change::Claim { claim, .. } | Change::Release { claim, .. } => vec![claim],
        }
    }

    /// The claim and its claimant, if this is a claim.
    fn claimed(&self) -> Option<(&Key, &Key)> {
        match self {
            Change::Claim { claim, owner } => Some((claim, owner)),
            Change::Put(..) | Change::Move { .. } | Change::Remove(_) | Change::Release { .. } => None,
        }
    }
}

/// Opens the store that `address` names: a directory, or a cluster, which alone asks for `access`.
pub fn open(address: &str, access: impl FnOnce() -> Result<Access>) -> Result<Box<dyn Store>> {
    match address.split_once("://") {
        Some(("etcd" | "etcds", _)) => Ok(Box::new(Etcd::new(address, access()?)?)),
        Some((scheme, _)) => Err(Error::new(Kind::Usage, format!("{address}: plumb knows no {scheme} store"))
            .hint("give a directory, such as /var/lib/plumb, or etcd://HOST")),
        None if address.starts_with("etcd:") || address.starts_with("etcds:") => {
            Err(Error::usage(format!("{address} names no etcd cluster")).hint("write etcd://HOST or etcds://HOST"))
        }
        None => Ok(Box::new(Directory::new(address)?)),
    }
}

/// A part of a key with the characters that a store has another use for, by their place and
/// themselves, written `%XX`. They are ASCII.
fn escape(part: &str, has_other_use: impl Fn(usize, char) -> bool) -> String {
    let mut text = String::with_capacity(part.len());
    for (at, c) in part.char_indices() {
        if has_other_use(at, c) {
            text.push_str(&format!("%{:02X}", u32::from(c)));
        } else {
            text.push(c);
        }
    }
    text
}

fn unescape(text: &str) -> String {
    let mut parts = text.split('%');
    let mut part = parts.next().unwrap_or_default().to_owned();
    for escaped in parts {
        match escaped.get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                part.push(char::from(byte));
                part.push_str(&escaped[2..]);
            }
            None => {
                part.push('%');
                part.push_str(escaped);
            }
        }
    }
    part
}
