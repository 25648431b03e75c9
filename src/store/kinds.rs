//! Everything that a store may hold, by the first part of its keys.

use super::{attachment, lease, network, shaped};

pub struct KeyKind {
    pub name: &'static str,
    pub holds: Holds,
    /// Whether a store that hosts share has the host as the second part of these keys.
    pub of_host: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holds {
    Records,
    /// Records that may be lost, or stand in another's place, without harm.
    Hints,
    Claims,
}

/// Claims stand behind the records that may own them.
pub const KINDS: [KeyKind; 12] = [
    KeyKind { name: attachment::UNFINISHED, holds: Holds::Records, of_host: true },
    KeyKind { name: attachment::FLAT, holds: Holds::Records, of_host: true },
    KeyKind { name: attachment::DHCP, holds: Holds::Records, of_host: true },
    KeyKind { name: attachment::VLAN, holds: Holds::Records, of_host: true },
    KeyKind { name: shaped::UNFINISHED, holds: Holds::Records, of_host: true },
    KeyKind { name: shaped::QOS, holds: Holds::Records, of_host: true },
    KeyKind { name: lease::LEASE, holds: Holds::Hints, of_host: true },
    KeyKind { name: network::NETWORK, holds: Holds::Records, of_host: false },
    KeyKind { name: network::HISTORY, holds: Holds::Hints, of_host: false },
    KeyKind { name: network::VLAN_ID, holds: Holds::Claims, of_host: false },
    KeyKind { name: attachment::CLAIM, holds: Holds::Claims, of_host: true },
    KeyKind { name: attachment::POOL, holds: Holds::Claims, of_host: false },
];

pub fn of(name: &str) -> Option<&'static KeyKind> {
    KINDS.iter().find(|kind| kind.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_listed_of_attachments_and_limits_is_a_hosts_own() {
        for name in attachment::KINDS.into_iter().chain([shaped::UNFINISHED, shaped::QOS]) {
            assert!(of(name).is_some_and(|kind| kind.of_host && kind.holds == Holds::Records), "{name}");
        }
    }
}
