//! MAC addresses, literal and derived.

use std::{fmt, str::FromStr};

use sha2::{Digest, Sha256};

/// A 48-bit MAC address that an interface can have: unicast and not zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac([u8; 6]);

impl Mac {
    /// A locally administered unicast address made from what `parts` say, always the same for the
    /// same parts. 46 bits come from SHA-256: two of a thousand containers meet with a probability
    /// of 7·10⁻⁹.
    pub fn derived(parts: &[&str]) -> Mac {
        let digest = sha256(parts);
        let mut bytes = [0; 6];
        bytes.copy_from_slice(&digest[..6]);
        // IEEE 802: bit 1 of the first byte says locally administered, bit 0 says group address.
        bytes[0] = (bytes[0] | 0b10) & !0b1;
        Mac(bytes)
    }

    /// The locally administered unicast address `02:…` with these bytes.
    pub fn local_from([a, b, c, d, e]: [u8; 5]) -> Mac {
        Mac([0b10, a, b, c, d, e])
    }

    pub fn bytes(self) -> [u8; 6] {
        self.0
    }
}

pub(super) fn sha256(parts: &[&str]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in parts {
        // The length goes in too, so that ("a", "bc") and ("ab", "c") differ.
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part.as_bytes());
    }
    hash.finalize().into()
}

impl TryFrom<[u8; 6]> for Mac {
    type Error = String;

    fn try_from(bytes: [u8; 6]) -> Result<Self, String> {
        let mac = Mac(bytes);
        if bytes == [0; 6] {
            Err("MAC 00:00:00:00:00:00 is no address: the kernel refuses it".into())
        } else if bytes[0] & 1 == 1 {
            Err(format!("MAC {mac} is a group address (multicast): an interface needs one whose first byte is even"))
        } else {
            Ok(mac)
        }
    }
}

impl FromStr for Mac {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no MAC address; one looks like 02:42:ac:11:00:02");
        let mut bytes = [0; 6];
        let mut parts = text.split([':', '-']);
        for byte in &mut bytes {
            let part = parts.next().ok_or_else(wrong)?;
            if !matches!(part.len(), 1 | 2) || !part.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Err(wrong());
            }
            *byte = u8::from_str_radix(part, 16).map_err(|_| wrong())?;
        }
        if parts.next().is_some() {
            return Err(wrong());
        }
        Mac::try_from(bytes)
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

super::as_text!(Mac);

/// What `--mac` asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MacChoice {
    Literal(Mac),
    /// `auto:STRING`: the same string gives the same address on every host.
    FromString(String),
}

impl MacChoice {
    pub fn mac(&self) -> Mac {
        match self {
            MacChoice::Literal(mac) => *mac,
            MacChoice::FromString(text) => Mac::derived(&["plumb mac auto", text]),
        }
    }
}

impl FromStr for MacChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.strip_prefix("auto:") {
            Some("") => Err("auto: needs a string to derive the MAC address from, such as auto:web".into()),
            Some(seed) => Ok(MacChoice::FromString(seed.to_owned())),
            None => Ok(MacChoice::Literal(text.parse()?)),
        }
    }
}

impl fmt::Display for MacChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MacChoice::Literal(mac) => mac.fmt(f),
            MacChoice::FromString(text) => write!(f, "auto:{text}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn refuses_what_the_kernel_refuses() {
        assert!("00:00:00:00:00:00".parse::<Mac>().unwrap_err().contains("no address"));
        assert!("01:00:5e:00:00:01".parse::<Mac>().unwrap_err().contains("multicast"));
        for bad in [
            "",
            "02:42",
            "02:42:ac:11:00:02:03",
            "02:42:ac:11:00:0g",
            "0242ac110002",
            "02:42:ac:11:00:+2",
            "é2:42:ac:11:00:02",
        ] {
            assert!(bad.parse::<Mac>().unwrap_err().contains("no MAC address"), "{bad:?}");
        }
    }

    #[test]
    fn a_derived_address_stays_what_it_is() {
        // Pinned: a release that changed these would change every container's address on the LAN.
        assert_eq!(MacChoice::from_str("auto:web").unwrap().mac().to_string(), "f2:d4:3a:2d:95:ff");
        assert_ne!(Mac::derived(&["a", "bc"]), Mac::derived(&["ab", "c"]));
    }

    proptest! {
        #[test]
        fn prints_what_it_parsed(bytes: [u8; 6]) {
            if let Ok(mac) = Mac::try_from(bytes) {
                prop_assert_eq!(mac.to_string().parse::<Mac>().unwrap(), mac);
            }
        }

        #[test]
        fn never_panics(text in "\\PC{0,24}") {
            let _ = text.parse::<MacChoice>();
        }

        #[test]
        fn derived_addresses_are_local_unicast(seed in ".*") {
            let mac = Mac::derived(&[&seed]);
            prop_assert_eq!(mac.bytes()[0] & 0b11, 0b10);
            prop_assert!(Mac::try_from(mac.bytes()).is_ok());
        }
    }
}
