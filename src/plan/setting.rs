//! Settings of a link that can be changed while it is there.

use serde::{Deserialize, Serialize};

use super::{facts::InsideLink, render::quote};
use crate::types::{IfName, Mac};

/// A setting that becomes another. The MTU has a step of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setting {
    pub index: u32,
    /// What the link is called before.
    pub name: IfName,
    pub change: Change,
}

/// What becomes of it. Of two states the one before is the other one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Change {
    Mac { from: Mac, to: Mac },
    Up(bool),
    Promisc(bool),
    Name(IfName),
}

impl Change {
    /// As one types it behind `ip link set`, which calls the MAC address `address`, or behind `plumb link set`.
    pub fn in_words(&self, mac: &str) -> String {
        match self {
            Change::Mac { to, .. } => format!("{mac} {to}"),
            Change::Up(true) => "up".into(),
            Change::Up(false) => "down".into(),
            Change::Promisc(true) => "promisc on".into(),
            Change::Promisc(false) => "promisc off".into(),
            Change::Name(to) => format!("name {}", quote(to.as_str())),
        }
    }
}

impl Setting {
    /// The setting that takes this one back. Its inverse is this one again.
    pub fn inverse(&self) -> Setting {
        let Setting { index, name, change } = self.clone();
        let (name, change) = match change {
            Change::Mac { from, to } => (name, Change::Mac { from: to, to: from }),
            Change::Up(up) => (name, Change::Up(!up)),
            Change::Promisc(on) => (name, Change::Promisc(!on)),
            Change::Name(to) => (to, Change::Name(name)),
        };
        Setting { index, name, change }
    }

    /// The command that does it.
    pub fn command(&self) -> String {
        format!("ip link set dev {} {}", quote(self.name.as_str()), self.change.in_words("address"))
    }

    /// Whether the link is as this makes it.
    pub fn holds(&self, link: &InsideLink) -> bool {
        match &self.change {
            Change::Mac { to, .. } => link.mac == Some(to.bytes()),
            Change::Up(up) => link.up == *up,
            Change::Promisc(on) => link.promisc == *on,
            Change::Name(to) => link.name == to.as_str(),
        }
    }

    /// Makes it so, in what was seen of the link.
    pub fn apply(&self, link: &mut InsideLink) {
        match &self.change {
            Change::Mac { to, .. } => link.mac = Some(to.bytes()),
            Change::Up(up) => link.up = *up,
            Change::Promisc(on) => link.promisc = *on,
            Change::Name(to) => link.name = to.to_string(),
        }
    }

    /// Whether both change the same of the same link.
    pub fn is_of_the_kind_of(&self, other: &Setting) -> bool {
        self.index == other.index && std::mem::discriminant(&self.change) == std::mem::discriminant(&other.change)
    }

    /// This and then `next`, of the same kind, as one; none if they come to nothing.
    pub fn then(&self, next: &Setting) -> Option<Setting> {
        let change = match (&self.change, &next.change) {
            (Change::Mac { from, .. }, Change::Mac { to, .. }) if from != to => Change::Mac { from: *from, to: *to },
            (Change::Name(_), Change::Name(to)) if *to != self.name => Change::Name(to.clone()),
            (Change::Up(first), Change::Up(then)) if first == then => Change::Up(*then),
            (Change::Promisc(first), Change::Promisc(then)) if first == then => Change::Promisc(*then),
            _ => return None,
        };
        Some(Setting { change, ..self.clone() })
    }
}
