//! The record of one attachment: what was wanted, what was done, and where.

use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::{Claimed, Key, Store};
use crate::{
    error::{Error, Result},
    plan::{Link, Step, Wish},
    types::{Place, Tag, TargetName},
};

/// One interface that plumb put into one target, with all that goes with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    /// The version of this form. A record of a later one is not guessed at.
    pub format: u32,
    /// Not written down: it is where the record lies.
    #[serde(skip)]
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

/// A record as it was found: a damaged one is never taken for none.
pub type Kept = Result<Attachment>;

/// Records lie under the kind of attachment that they describe, and until it is made here:
const UNFINISHED: &str = "unfinished";
const FLAT: &str = "flat";
pub const CLAIM: &str = "claim";

impl Attachment {
    /// Where the record lies now.
    pub fn key(&self) -> Key {
        match self.progress {
            Progress::Unfinished => Key::new([UNFINISHED, &self.target.to_string(), self.interface()]),
            Progress::Done => self.final_key(),
        }
    }

    /// Where it will lie when the attachment is made. Claims belong to this key all the time.
    pub fn final_key(&self) -> Key {
        Key::new([FLAT, &self.target.to_string(), self.interface()])
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
        let mut text = serde_json::to_vec_pretty(self)
            .map_err(|error| Error::failed(format!("cannot write the record: {error}")))?;
        text.push(b'\n');
        store.put(&self.key(), &text)
    }

    /// The attachment is made. The earlier record of its name, if there is one, is replaced.
    pub fn confirm(&mut self, store: &dyn Store) -> Result<()> {
        store.rename(&self.key(), &self.final_key())?;
        self.progress = Progress::Done;
        Ok(())
    }

    /// Claims the addresses: on one parent each is given once. Those of another attachment are a conflict.
    pub fn claim(&self, store: &dyn Store) -> Result<()> {
        let owner = self.final_key();
        for claim in self.claims() {
            if let Claimed::HeldBy(holder) = store.claim(&claim, &owner)? {
                return Err(held(&claim, &holder));
            }
        }
        Ok(())
    }

    /// An error if `claim` would fail now. Claims nothing.
    pub fn could_claim(&self, store: &dyn Store) -> Result<()> {
        let owner = self.final_key();
        for claim in self.claims() {
            if let Some(holder) = store.holder(&claim)?.filter(|holder| *holder != owner) {
                return Err(held(&claim, &holder));
            }
        }
        Ok(())
    }

    /// Gives back the claims that `heir`, another record of the same name, does not have.
    pub fn release_to(&self, heir: Option<&Attachment>, store: &dyn Store) -> Result<()> {
        let (owner, kept) = (self.final_key(), heir.map(Attachment::claims).unwrap_or_default());
        self.claims().iter().filter(|claim| !kept.contains(claim)).try_for_each(|claim| store.release(claim, &owner))
    }

    /// Forgets the attachment: its claims first, so that none is without its record. One that was
    /// never finished leaves the earlier one of its name what that had.
    pub fn forget(&self, store: &dyn Store) -> Result<()> {
        let earlier = if self.is_unfinished() { read(store, &self.final_key()).ok().flatten() } else { None };
        self.release_to(earlier.as_ref(), store)?;
        store.remove(&self.key())
    }

    /// An address is claimed on the parent's layer 2: the same one on another LAN is another address.
    fn claims(&self) -> Vec<Key> {
        let parent = self.link().map_or("", |link| link.parent.name.as_str());
        self.wish.addresses.iter().map(|address| Key::new([CLAIM, parent, &address.ip().to_string()])).collect()
    }
}

fn held(claim: &Key, holder: &Key) -> Error {
    let (parent, address) = match claim.parts() {
        [_, parent, address] => (parent.as_str(), address.as_str()),
        _ => ("", ""),
    };
    match holder.parts() {
        [_, target, interface] => {
            Error::conflict(format!("{address} is given to {target} ({interface}) on {parent} already"))
                .hint(format!("choose another, or free it: plumb detach {target} {interface}"))
        }
        _ => Error::conflict(format!("{address} on {parent} is claimed by {holder}")),
    }
}

/// All attachments, or those of one target, unfinished ones first. Damaged records are in their
/// places, as errors.
pub fn all(store: &dyn Store, target: Option<&TargetName>) -> Result<Vec<Kept>> {
    let mut kept = unfinished(store, target)?;
    kept.extend(under(store, FLAT, target)?);
    Ok(kept)
}

/// The attachments that are being made, or were when their process was killed.
pub fn unfinished(store: &dyn Store, target: Option<&TargetName>) -> Result<Vec<Kept>> {
    under(store, UNFINISHED, target)
}

fn under(store: &dyn Store, kind: &str, target: Option<&TargetName>) -> Result<Vec<Kept>> {
    let prefix = match target {
        Some(target) => Key::new([kind, &target.to_string()]),
        None => Key::new([kind]),
    };
    Ok(store.list(&prefix)?.iter().filter_map(|key| read(store, key).transpose()).collect())
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

/// Whether there is a record, finished or not, of the attachment whose final key is `key`.
pub fn is_on_record(store: &dyn Store, key: &Key) -> Result<bool> {
    let begun = match key.parts() {
        [_, target, interface] => store.get(&Key::new([UNFINISHED, target, interface]))?,
        _ => None,
    };
    Ok(begun.is_some() || store.get(key)?.is_some())
}

/// One attachment, or `None` if there is no record of it.
pub fn read(store: &dyn Store, key: &Key) -> Result<Option<Attachment>> {
    let Some(text) = store.get(key)? else { return Ok(None) };
    let damaged = |reason: String| {
        Error::failed(format!("the record {} is damaged: {reason}", store.place(key)))
            .hint("it was left as it is; mend it by hand, or remove the file and run plumb gc: that deletes its interface, but a default route that it had replaced must then be set by hand")
    };
    // Read in two steps, so that a later format is recognised even if all else in it is different.
    let value: serde_json::Value = serde_json::from_slice(&text).map_err(|error| damaged(error.to_string()))?;
    match value.get("format").and_then(serde_json::Value::as_u64) {
        Some(format) if format > u64::from(FORMAT) => {
            return Err(Error::failed(format!(
                "the record {} is of format {format}, and this plumb knows {FORMAT}",
                store.place(key)
            ))
            .hint("a newer plumb wrote it: use that one"));
        }
        Some(_) => {}
        None => return Err(damaged("it has no format number".into())),
    }
    let mut attachment: Attachment = serde_json::from_value(value).map_err(|error| damaged(error.to_string()))?;
    attachment.progress =
        if key.parts().first().is_some_and(|kind| kind == UNFINISHED) { Progress::Unfinished } else { Progress::Done };
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
    let begins =
        |attachment: &Attachment| attachment.container.as_ref().is_some_and(|id| id.starts_with(prefix.as_str()));
    Ok(all(store, None)?.into_iter().filter(|kept| kept.as_ref().is_ok_and(begins)).collect())
}

/// Now, as records have it.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}
