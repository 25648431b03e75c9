//! The name of a network interface.

use std::{fmt, str::FromStr};

use super::{NetworkName, VlanId};

/// A name that the kernel accepts for an interface: 1 to 15 bytes, not `.` or `..`, without `/`,
/// `:` or white space (`dev_valid_name` in the kernel's `net/core/dev.c`), and without `%`, which
/// the kernel would take for a pattern such as `eth%d`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IfName(String);

impl IfName {
    /// The kernel's `IFNAMSIZ` without the byte that ends it.
    pub const MAX_BYTES: usize = 15;

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What stands where an interface of the host's would, if there is none: tables show nothing so.
    pub fn nowhere() -> IfName {
        IfName("-".into())
    }

    /// `eth1` for 1.
    pub fn eth(number: u32) -> IfName {
        IfName(format!("eth{number}"))
    }

    /// The name of the device that carries VLAN `id` of `parent`: `eth0.10`. Where that is too long,
    /// the parent's name is cut short and told from its likes by a part of its digest:
    /// `enx0-84a1.10` for `enx001122334455`.
    pub fn of_vlan(parent: &IfName, id: VlanId) -> IfName {
        let whole = format!("{parent}.{id}");
        if whole.len() <= Self::MAX_BYTES {
            return IfName(whole);
        }
        let digest = super::digest(&["plumb vlan", parent.as_str()]);
        let end = format!("-{}.{id}", digest.get(..4).unwrap_or_default());
        let mut start = parent.to_string();
        while start.len() + end.len() > Self::MAX_BYTES {
            start.pop();
        }
        IfName(start + &end)
    }

    /// A name for the interface by which a host is the gateway of a network.
    pub fn of_gateway(network: &NetworkName) -> IfName {
        let whole = format!("gw-{network}");
        if whole.len() <= Self::MAX_BYTES {
            return IfName(whole);
        }
        let digest = super::digest(&["plumb gateway", network.as_str()]);
        IfName(format!("gw-{}-{}", &network.as_str()[..6], digest.get(..5).unwrap_or_default()))
    }

    /// A name for the end outside of a pair whose other end is `inside` the target: `web-eth1`, or where that
    /// is too long or no name, one made of its digest.
    pub fn of_host_end(target: &str, inside: &IfName) -> IfName {
        let whole = format!("{target}-{inside}");
        let is_plain = whole.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'));
        if whole.len() <= Self::MAX_BYTES && is_plain {
            return IfName(whole);
        }
        let digest = super::digest(&["plumb host end", target, inside.as_str()]);
        IfName(format!("veth-{}", digest.get(..10).unwrap_or_default()))
    }

    /// A name for the interface by which a host reaches the containers on its interface `parent`.
    pub fn of_shim(parent: &IfName) -> IfName {
        let whole = format!("shim-{parent}");
        if whole.len() <= Self::MAX_BYTES {
            return IfName(whole);
        }
        let digest = super::digest(&["plumb shim", parent.as_str()]);
        IfName(format!("shim-{}", digest.get(..10).unwrap_or_default()))
    }
}

impl FromStr for IfName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bytes = text.len();
        if bytes > Self::MAX_BYTES {
            return Err(format!(
                "interface name {text:?} has {bytes} bytes, the kernel takes at most {}",
                Self::MAX_BYTES
            ));
        }
        match text {
            "" => return Err("an interface name cannot be empty".into()),
            // Under /proc/sys/net these two name settings for all interfaces.
            "all" | "default" | "." | ".." => return Err(format!("{text:?} cannot be an interface name")),
            _ => {}
        }
        match text.chars().find(|c| matches!(c, '/' | ':' | '%') || c.is_whitespace() || c.is_control()) {
            Some(c) => Err(format!("interface name {text:?} has a {c:?} in it, which the kernel refuses")),
            None => Ok(IfName(text.to_owned())),
        }
    }
}

impl fmt::Display for IfName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

super::as_text!(IfName);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn fifteen_bytes_are_the_limit() {
        assert!("a23456789012345".parse::<IfName>().is_ok());
        let refused = "a234567890123456".parse::<IfName>().unwrap_err();
        assert_eq!(refused, "interface name \"a234567890123456\" has 16 bytes, the kernel takes at most 15");
    }

    #[test]
    fn a_host_end_says_whose_it_is_where_there_is_room() {
        let name = |target: &str| IfName::of_host_end(target, &IfName::eth(1)).to_string();
        assert_eq!(name("web"), "web-eth1");
        assert_eq!(name("a-long-name-eth"), name("a-long-name-eth"));
        for target in ["a-long-name-eth", "netns:web", "pid:42", "netns:/a/b"] {
            assert!(name(target).starts_with("veth-") && name(target).len() == 15, "{}", name(target));
        }
        assert_ne!(name("netns:web"), name("netns:wet"));
    }

    #[test]
    fn what_the_kernel_refuses_is_refused() {
        for bad in ["", ".", "..", "all", "default", "a/b", "a b", "a:1", "eth%d", "a\tb", "a\0b"] {
            assert!(bad.parse::<IfName>().is_err(), "{bad:?}");
        }
        for good in ["a", "up", "dev", "eth0.10", "br-12ab", "wlp0s20f3", "é"] {
            assert!(good.parse::<IfName>().is_ok(), "{good:?}");
        }
    }

    proptest! {
        #[test]
        fn prints_what_it_parsed(text in "\\PC{0,20}") {
            if let Ok(name) = text.parse::<IfName>() {
                prop_assert_eq!(name.to_string(), text.clone());
                prop_assert!(text.len() <= IfName::MAX_BYTES);
            }
        }
    }
}
