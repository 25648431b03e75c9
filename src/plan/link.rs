//! A link that plumb makes: its kind and all that it is created with.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::types::{IfName, Mac, Mtu};

/// The group number of every link that plumb makes: the letters "plum". One request can so find or
/// delete all of a namespace, and a link is recognised even if its tag is not set yet.
pub const GROUP: u32 = 0x706c_756d;

/// A link as it is created, in one request, directly in the target's namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// The interface index inside. Chosen beforehand, so that what follows needs no look-up.
    pub index: u32,
    pub name: IfName,
    /// `None` only where the kernel decides: a passthru child takes its parent's.
    pub mac: Option<Mac>,
    pub mtu: Mtu,
    pub parent: ParentLink,
    pub driver: Driver,
}

/// The host's interface that a link hangs on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ParentLink {
    pub name: IfName,
    pub index: u32,
}

/// The kind of a link. ipvlan, veth and phys get their place here, each with what only it has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Driver {
    Macvlan(MacvlanMode),
}

impl Driver {
    /// The kernel's name of the kind.
    pub fn kind(&self) -> &'static str {
        match self {
            Driver::Macvlan(_) => "macvlan",
        }
    }

    pub fn mode(&self) -> &'static str {
        match self {
            Driver::Macvlan(mode) => mode.name(),
        }
    }
}

/// "macvlan bridge"
impl fmt::Display for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind(), self.mode())
    }
}

/// Who may talk to whom on one parent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MacvlanMode {
    /// Children reach one another inside the host.
    Bridge,
    /// Children never reach one another.
    Private,
    /// Every frame goes to the wire, even between children: the switch must reflect it.
    Vepa,
    /// One child only, which takes the parent's MAC address.
    Passthru,
    /// Frames come in only from these addresses.
    Source(Vec<Mac>),
}

impl MacvlanMode {
    pub fn name(&self) -> &'static str {
        match self {
            MacvlanMode::Bridge => "bridge",
            MacvlanMode::Private => "private",
            MacvlanMode::Vepa => "vepa",
            MacvlanMode::Passthru => "passthru",
            MacvlanMode::Source(_) => "source",
        }
    }
}
