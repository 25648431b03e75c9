//! The number of an InfiniBand partition.

use std::{fmt, str::FromStr};

use super::as_text;

/// A P_Key as its members are given it: 0x0001 to 0xffff, where the uppermost bit says that the member is a
/// full one. Without it nothing is left of 0x8000, which is no partition (`ipoib_new_child_link` in the
/// kernel's `drivers/infiniband/ulp/ipoib/ipoib_netlink.c`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pkey(u16);

impl Pkey {
    pub fn number(self) -> u16 {
        self.0
    }
}

impl FromStr for Pkey {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let digits = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X"));
        let digits = digits.filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
        let number = digits.and_then(|digits| u16::from_str_radix(digits, 16).ok());
        match number {
            Some(number) if number & 0x7fff != 0 => Ok(Pkey(number)),
            _ => Err(format!("{text:?} is no P_Key; those are 0x0001 to 0xffff, but not 0x8000")),
        }
    }
}

impl fmt::Display for Pkey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#06x}", self.0)
    }
}

as_text!(Pkey);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_hexadecimal_and_names_a_partition() {
        assert_eq!("0x8001".parse::<Pkey>().unwrap().to_string(), "0x8001");
        assert_eq!("0x1".parse::<Pkey>().unwrap().to_string(), "0x0001");
        for wrong in ["", "8001", "0x", "0x0", "0x8000", "0x10000", "0x+1", "eth0"] {
            assert!(wrong.parse::<Pkey>().is_err(), "{wrong}");
        }
    }
}
