//! The largest packet that an interface sends.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// An MTU in bytes, 68 or more: RFC 791 demands that every link carries 68 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct Mtu(u32);

impl Mtu {
    /// The least that IPv4 lets a link have, RFC 791 section 3.2.
    pub const LEAST: u32 = 68;
    /// The kernel's upper bound, `ETH_MAX_MTU`.
    pub const MOST: u32 = 65535;
    /// IPv6 needs 1280 bytes, RFC 8200 section 5.
    pub const LEAST_IPV6: u32 = 1280;

    pub fn bytes(self) -> u32 {
        self.0
    }
}

impl TryFrom<u32> for Mtu {
    type Error = String;

    fn try_from(bytes: u32) -> Result<Self, String> {
        match bytes {
            0..Self::LEAST => {
                Err(format!("MTU {bytes} is too small: every IP link carries at least {} bytes (RFC 791)", Self::LEAST))
            }
            Self::LEAST..=Self::MOST => Ok(Mtu(bytes)),
            _ => Err(format!("MTU {bytes} is too large: the kernel takes at most {}", Self::MOST)),
        }
    }
}

impl From<Mtu> for u32 {
    fn from(mtu: Mtu) -> u32 {
        mtu.0
    }
}

impl FromStr for Mtu {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let bytes: u32 = text.parse().map_err(|_| match is_number {
            true => format!("MTU {text} is too large: the kernel takes at most {}", Self::MOST),
            false => format!("{text:?} is no MTU; give a number of bytes such as 1500"),
        })?;
        Mtu::try_from(bytes)
    }
}

impl fmt::Display for Mtu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sixty_eight_bytes_are_the_least() {
        assert!("68".parse::<Mtu>().is_ok());
        assert_eq!(
            "67".parse::<Mtu>().unwrap_err(),
            "MTU 67 is too small: every IP link carries at least 68 bytes (RFC 791)"
        );
        assert!("65536".parse::<Mtu>().is_err());
        assert!("1500b".parse::<Mtu>().is_err());
    }

    proptest! {
        #[test]
        fn prints_what_it_parsed(bytes in Mtu::LEAST..=Mtu::MOST) {
            let mtu = Mtu::try_from(bytes).unwrap();
            prop_assert_eq!(mtu.to_string().parse::<Mtu>().unwrap(), mtu);
        }

        #[test]
        fn never_panics(text in "\\PC{0,12}") {
            let _ = text.parse::<Mtu>();
        }
    }
}
