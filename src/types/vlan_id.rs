//! The number of a VLAN, and the protocol that carries it.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// 1 to 4094: 0 means "no VLAN" and 4095 is reserved (IEEE 802.1Q).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u16", into = "u16")]
pub struct VlanId(u16);

impl VlanId {
    /// 4095 is reserved, IEEE 802.1Q section 9.6.
    pub const MAX: u16 = 4094;

    pub fn number(self) -> u16 {
        self.0
    }
}

impl TryFrom<u16> for VlanId {
    type Error = String;

    fn try_from(number: u16) -> Result<Self, String> {
        match number {
            0 => Err("VLAN 0 means no VLAN at all; ids are 1 to 4094".into()),
            4095 => Err("VLAN 4095 is reserved (IEEE 802.1Q); ids are 1 to 4094".into()),
            1..=Self::MAX => Ok(VlanId(number)),
            _ => Err(format!("there is no VLAN {number}; ids are 1 to 4094")),
        }
    }
}

impl From<VlanId> for u16 {
    fn from(id: VlanId) -> u16 {
        id.0
    }
}

impl FromStr for VlanId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number: u16 = text.parse().map_err(|_| format!("{text:?} is no VLAN id; ids are 1 to 4094"))?;
        number.try_into()
    }
}

impl fmt::Display for VlanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// How a frame tells its VLAN.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum VlanProtocol {
    #[default]
    #[serde(rename = "802.1q")]
    Dot1q,
    /// Service tags: customers' own VLANs pass inside.
    #[serde(rename = "802.1ad")]
    Dot1ad,
}

impl fmt::Display for VlanProtocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            VlanProtocol::Dot1q => "802.1q",
            VlanProtocol::Dot1ad => "802.1ad",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_number_is_an_id_or_says_why_not(number in any::<u16>(), text in "\\PC{0,6}") {
            match VlanId::try_from(number) {
                Ok(id) => {
                    prop_assert!((1..=4094).contains(&number));
                    prop_assert_eq!(id.to_string().parse::<VlanId>().unwrap(), id);
                }
                Err(reason) => prop_assert!(reason.contains("1 to 4094"), "{}", reason),
            }
            if let Ok(id) = text.parse::<VlanId>() {
                prop_assert!((1..=4094).contains(&id.number()));
            }
        }
    }
}
