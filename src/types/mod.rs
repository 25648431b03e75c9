//! Values that are valid once they exist: they parse what a person types and print it back.

mod address;
mod ifname;
mod link_words;
mod mac;
mod mtu;
mod network_name;
mod percent;
mod pkey;
mod place;
mod rate;
mod route_spec;
mod route_words;
mod rule_words;
mod size;
mod span;
mod subnet;
mod tag;
mod target;
mod vlan_id;
mod words;

pub use address::{Gateway, HostAddress, IpChoice, WantedIp};
pub use ifname::IfName;
pub use link_words::{LINK_WORDS, LinkWords};
pub use mac::{Mac, MacChoice};
pub use mtu::Mtu;
pub use network_name::NetworkName;
pub use percent::Percent;
pub use pkey::Pkey;
pub use place::Place;
pub use rate::Rate;
pub use route_spec::RouteSpec;
pub use route_words::{ROUTE_WORDS, RouteKind, RouteWords};
pub use rule_words::{RULE_WORDS, RuleAction, RuleWords};
pub use size::Size;
pub use span::Span;
pub use subnet::{IpRange, Subnet};
pub use tag::{StoreMark, Tag};
pub use target::TargetName;
pub use vlan_id::{VlanId, VlanProtocol};
pub use words::{table as table_of, table_name};

/// SHA-256 of several texts as 32 hexadecimal digits (128 bits), the same for the same texts.
pub fn digest(parts: &[&str]) -> String {
    hex(&mac::sha256(parts)[..16])
}

/// A hexadecimal text of bytes, lower case, without separators.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The bytes of a hexadecimal text, or `None` if it is not one.
pub fn unhex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(text.get(at..at + 2)?, 16).ok()).collect()
}

/// Serialises a type as the text that `Display` prints and `FromStr` reads.
macro_rules! as_text {
    ($type:ty) => {
        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}
pub(crate) use as_text;

/// The candidate that `typed` most likely meant: one at most a third of its letters away.
pub fn nearest<'a>(typed: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let distance = |candidate: &&str| strsim::damerau_levenshtein(typed, candidate);
    candidates.min_by_key(distance).filter(|near| distance(near) <= typed.len().div_ceil(3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_is_recognised_and_a_stranger_is_not() {
        let names = ["eth0", "wlan0", "br-lan"];
        assert_eq!(nearest("ehto", names.into_iter()), Some("eth0"));
        assert_eq!(nearest("brlan", names.into_iter()), Some("br-lan"));
        assert_eq!(nearest("ppp7", names.into_iter()), None);
    }

    #[test]
    fn hexadecimal_is_read_back() {
        assert_eq!(hex(&[0, 0xab]), "00ab");
        assert_eq!(unhex("00ab"), Some(vec![0, 0xab]));
        assert_eq!(unhex("0"), None);
        assert_eq!(unhex("zz"), None);
        assert_eq!(unhex("+f"), None);
    }
}
