//! The record of one attachment: what was wanted, what was done, and where.

use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::{Claimed, Key, Safety, Store};
use crate::{
    error::{Error, Result},
    plan::{Link, Step, Wish},
    types::{IfName, Place, Tag, TargetName},
};

/// One interface that plumb put into one target, with all that goes with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    /// The version of this form. A record of a later one is not guessed at.
    pub format: u32,
    pub progress: Progress,
    pub target: TargetName,
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
}

pub const FORMAT: u32 = 1;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Progress {
    /// Written before the first step. If the process that wrote it has ended, some of the steps
    /// may have been done.
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

/// A record as it was found: a damaged one is never taken for none.
pub type Kept = Result<Attachment>;

/// Records lie under the kind of attachment that they describe.
const KIND: &str = "flat";

impl Attachment {
    pub fn key(&self) -> Key {
        Key::new([KIND, &self.target.to_string(), self.link().map_or("", |link| link.name.as_str())])
    }

    /// The link that it is about. Every attachment has one; a record without is damaged.
    pub fn link(&self) -> Option<&Link> {
        self.steps.iter().find_map(|step| match step {
            Step::AddLink(link) => Some(link),
            _ => None,
        })
    }

    pub fn interface(&self) -> &str {
        self.link().map_or("", |link| link.name.as_str())
    }

    pub fn is_unfinished(&self) -> bool {
        self.progress == Progress::Unfinished
    }

    pub fn save(&self, store: &dyn Store) -> Result<()> {
        let safety = if self.is_unfinished() { Safety::Volatile } else { Safety::Durable };
        let mut text = serde_json::to_vec_pretty(self).map_err(|error| Error::failed(format!("cannot write the record: {error}")))?;
        text.push(b'\n');
        store.put(&self.key(), &text, safety)
    }

    /// Claims the addresses: on one parent each is given once. Those of another attachment's are a conflict.
    pub fn claim(&self, store: &dyn Store) -> Result<()> {
        let owner = self.key();
        for claim in self.claims() {
            if let Claimed::HeldBy(holder) = store.claim(&claim, &owner)? {
                return Err(held(&claim, &holder));
            }
        }
        Ok(())
    }

    /// Forgets the attachment: its claims first, so that none is without its record.
    pub fn forget(&self, store: &dyn Store) -> Result<()> {
        let owner = self.key();
        self.claims().iter().try_for_each(|claim| store.release(claim, &owner))?;
        store.remove(&owner)
    }

    /// An address is claimed on the parent's layer 2: the same one on another LAN is another address.
    fn claims(&self) -> Vec<Key> {
        let parent = self.link().map_or("", |link| link.parent.name.as_str());
        self.wish.addresses.iter().map(|address| Key::new([CLAIM, parent, &address.ip().to_string()])).collect()
    }
}

pub const CLAIM: &str = "claim";

fn held(claim: &Key, holder: &Key) -> Error {
    let (parent, address) = match claim.parts() {
        [_, parent, address] => (parent.as_str(), address.as_str()),
        _ => ("", ""),
    };
    match holder.parts() {
        [_, target, interface] => Error::conflict(format!("{address} is given to {target} ({interface}) on {parent} already"))
            .hint(format!("choose another, or free it: plumb detach {target} {interface}")),
        _ => Error::conflict(format!("{address} on {parent} is claimed by {holder}")),
    }
}

/// All attachments, or those of one target, by key. Damaged records are in their places, as errors.
pub fn all(store: &dyn Store, target: Option<&TargetName>) -> Result<Vec<Kept>> {
    let prefix = match target {
        Some(target) => Key::new([KIND, &target.to_string()]),
        None => Key::new([KIND]),
    };
    Ok(store.list(&prefix)?.iter().filter_map(|key| read(store, key).transpose()).collect())
}

/// One attachment, or `None` if there is no record of it.
pub fn read(store: &dyn Store, key: &Key) -> Result<Option<Attachment>> {
    let Some(text) = store.get(key)? else { return Ok(None) };
    let damaged = |reason: String| {
        Error::failed(format!("the record {} is damaged: {reason}", store.place(key)))
            .hint("it was left as it is; mend it by hand, or remove the file and run plumb gc, which takes its link back")
    };
    // Read in two steps, so that a later format is recognised even if all else in it is different.
    let value: serde_json::Value = serde_json::from_slice(&text).map_err(|error| damaged(error.to_string()))?;
    match value.get("format").and_then(serde_json::Value::as_u64) {
        Some(format) if format > u64::from(FORMAT) => {
            return Err(Error::failed(format!("the record {} is of format {format}, and this plumb knows {FORMAT}", store.place(key))).hint("a newer plumb wrote it: use that one"));
        }
        Some(_) => {}
        None => return Err(damaged("it has no format number".into())),
    }
    let attachment: Attachment = serde_json::from_value(value).map_err(|error| damaged(error.to_string()))?;
    if attachment.key() != *key {
        return Err(damaged(format!("it describes {}", attachment.key())));
    }
    Ok(Some(attachment))
}

/// The attachments that were made of one target, however it was named: by name, or by the
/// beginning of its container's id.
pub fn of_target(store: &dyn Store, target: &TargetName) -> Result<Vec<Kept>> {
    let by_name = all(store, Some(target))?;
    let (TargetName::Docker(prefix) | TargetName::Podman(prefix)) = target else { return Ok(by_name) };
    if !by_name.is_empty() || prefix.len() < 4 {
        return Ok(by_name);
    }
    let begins = |attachment: &Attachment| attachment.container.as_ref().is_some_and(|id| id.starts_with(prefix.as_str()));
    Ok(all(store, None)?.into_iter().filter(|kept| kept.as_ref().is_ok_and(begins)).collect())
}

/// Now, as records have it.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}

/// The key under which the attachment of `interface` in `target` is kept.
pub fn key(target: &TargetName, interface: &IfName) -> Key {
    Key::new([KIND, &target.to_string(), interface.as_str()])
}
