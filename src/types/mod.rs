//! Values that are valid once they exist: they parse what a person types and print it back.

mod address;
mod ifname;
mod mac;
mod mtu;
mod route_spec;
mod span;
mod tag;
mod target;

pub use address::{Gateway, HostAddress, IpChoice};
pub use ifname::IfName;
pub use mac::{Mac, MacChoice};
pub use mtu::Mtu;
pub use route_spec::RouteSpec;
pub use span::Span;
pub use tag::{StoreMark, Tag};
pub use target::TargetName;

/// A hexadecimal text of bytes, lower case, without separators.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The bytes of a hexadecimal text, or `None` if it is not one.
pub fn unhex(text: &str) -> Option<Vec<u8>> {
    if !text.is_ascii() || text.len() % 2 != 0 {
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
