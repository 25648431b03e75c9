//! The record of an interface's limits: what was wanted, and what it replaced.

use serde::{Deserialize, Serialize};

use super::{
    Change, Key, Record, Store,
    attachment::{NamespaceMark, Placed, Progress, done},
    record,
};
use crate::{
    error::Result,
    plan::shaping::{Displaced, Limits},
    types::{IfName, Place, TargetName},
};

/// Limits on one interface of one target, attached by plumb or not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shaped {
    /// The version of this form. A record of a later one is not guessed at.
    pub format: u32,
    /// Not written down: it is where the record lies.
    #[serde(skip)]
    pub progress: Progress,
    /// The host, as its store tells hosts apart. Not written down either.
    #[serde(skip)]
    pub host: Option<String>,
    pub target: TargetName,
    /// The container's id.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub container: Option<String>,
    pub interface: IfName,
    /// The interface's index inside, by which it is found when somebody has renamed it.
    pub index: u32,
    pub place: Place,
    pub namespace: NamespaceMark,
    pub limits: Limits,
    #[serde(default)]
    pub displaced: Displaced,
}

pub const FORMAT: u32 = 1;
pub const QOS: &str = "qos";
/// Written before the first step, beside the record of what held before.
pub const UNFINISHED: &str = "qos-unfinished";

impl Placed for Shaped {
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

impl Record for Shaped {
    const FORMAT: u32 = FORMAT;
    const REMEDY: &'static str =
        "mend it by hand, or remove the file: the interface's qdiscs then stay until plumb qos sets others";

    fn key(&self) -> Key {
        self.key_of(if self.progress == Progress::Unfinished { UNFINISHED } else { QOS })
    }

    fn found_at(&mut self, key: &Key) {
        self.progress = if key.kind() == UNFINISHED { Progress::Unfinished } else { Progress::Done };
        self.host = record::host_in(key);
    }
}

impl Shaped {
    fn key_of(&self, kind: &str) -> Key {
        key(kind, self.host.as_deref(), &self.target, self.interface.as_str())
    }

    /// The record of what is going to be done.
    pub fn beginning(&self) -> Result<Change> {
        Ok(Change::Put(self.key_of(UNFINISHED), super::text(self)?))
    }

    /// It is done: what held before is replaced.
    pub fn confirmation(&self) -> Result<Change> {
        Ok(Change::Move { from: self.key_of(UNFINISHED), to: self.key_of(QOS), value: super::text(self)? })
    }

    /// It was not done: what held before still does.
    pub fn withdrawal(&self) -> Change {
        Change::Remove(self.key_of(UNFINISHED))
    }

    /// Writes the record in the place of the one that is there.
    pub fn save(&self, store: &dyn Store) -> Result<()> {
        done(store.commit(&[Change::Put(self.key(), super::text(self)?)])?)
    }

    /// Forgets the limits, and what a killed run has left of their being changed.
    pub fn forget(&self, store: &dyn Store) -> Result<()> {
        done(store.commit(&[self.withdrawal(), Change::Remove(self.key_of(QOS))])?)
    }

    /// What held before this unfinished change, or nothing.
    pub fn before(&self, store: &dyn Store) -> Result<Option<Shaped>> {
        record::read(store, &self.key_of(QOS))
    }

    /// Whether the change is on record as begun at this moment, whatever this copy says.
    pub fn is_still_unfinished(&self, store: &dyn Store) -> Result<bool> {
        Ok(store.get(&self.key_of(UNFINISHED))?.is_some())
    }
}

fn key(kind: &str, host: Option<&str>, target: &TargetName, interface: &str) -> Key {
    Key::of_host(kind, host, &[&target.to_string(), interface])
}

/// What is on record for an interface: what holds, and what a killed run was about to set.
pub fn of(store: &dyn Store, target: &TargetName, interface: &str) -> Result<(Option<Shaped>, Option<Shaped>)> {
    let read = |kind| record::read(store, &key(kind, store.host(), target, interface));
    Ok((read(QOS)?, read(UNFINISHED)?))
}

/// Keeps the limits of an interface under another name.
pub fn rename(store: &dyn Store, target: &TargetName, from: &str, to: &IfName) -> Result<()> {
    if from == to.as_str() {
        return Ok(());
    }
    let (Some(found), _) = of(store, target, from)? else { return Ok(()) };
    let renamed = Shaped { interface: to.clone(), ..found.clone() };
    done(store.commit(&[Change::Put(renamed.key(), super::text(&renamed)?), Change::Remove(found.key())])?)
}

/// Forgets the limits of an interface that goes.
pub fn forget_of(store: &dyn Store, target: &TargetName, interface: &str) -> Result<()> {
    let keys = [UNFINISHED, QOS].map(|kind| key(kind, store.host(), target, interface));
    if keys.iter().all(|key| store.get(key).is_ok_and(|found| found.is_none())) {
        return Ok(());
    }
    done(store.commit(&keys.map(Change::Remove))?)
}

/// All limits of this host, or of one target. Damaged records are in their places, as errors.
pub fn all(store: &dyn Store, target: Option<&TargetName>) -> Result<Vec<Result<Shaped>>> {
    under(store, QOS, target)
}

/// Those that are being set, or were when their process was killed.
pub fn unfinished(store: &dyn Store) -> Result<Vec<Result<Shaped>>> {
    under(store, UNFINISHED, None)
}

fn under(store: &dyn Store, kind: &str, target: Option<&TargetName>) -> Result<Vec<Result<Shaped>>> {
    let target = target.map(TargetName::to_string);
    let rest: Vec<&str> = target.iter().map(String::as_str).collect();
    record::under(store, &[Key::of_host(kind, store.host(), &rest)])
}
