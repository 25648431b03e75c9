//! Amounts of data as `tc` writes them: `32kb`, `1mb`, `3000b`.

use std::{fmt, str::FromStr};

use super::rate::split;

/// An amount of bytes, never zero, of which the kernel takes less than 4 GiB.
///
/// The units are tc's: `b` is bytes, `k` and `kb` are 1024 of them, and so on; `kbit` is 1024 bits (tc(8),
/// "UNITS"). A bare number is refused, as of a rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(u32);

impl Size {
    pub fn bytes(self) -> u32 {
        self.0
    }

    /// Of whole bytes; `None` for zero.
    pub fn of_bytes(bytes: u32) -> Option<Size> {
        (bytes > 0).then_some(Size(bytes))
    }
}

/// Each unit and how many bits it stands for.
const UNITS: [(&str, u128); 10] = [
    ("b", 8),
    ("kb", 8 * 1024),
    ("mb", 8 * 1024_u128.pow(2)),
    ("gb", 8 * 1024_u128.pow(3)),
    ("k", 8 * 1024),
    ("m", 8 * 1024_u128.pow(2)),
    ("g", 8 * 1024_u128.pow(3)),
    ("kbit", 1024),
    ("mbit", 1024_u128.pow(2)),
    ("gbit", 1024_u128.pow(3)),
];

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let no_size = || format!("{text:?} is no size; write one like 32kb, or in bytes 3000b");
        let (number, unit) = split(text).ok_or_else(no_size)?;
        if unit.is_empty() && number.times(1) != Some(0) {
            return Err(format!("{text:?} has no unit; write {text}b for bytes, {text}kb for 1024 of them"));
        }
        let is_it = |(name, _): &&(&str, u128)| *name == unit || unit.is_empty();
        let each = UNITS.iter().find(is_it).map(|(_, bits)| *bits).ok_or_else(no_size)?;
        let bits = number.times(each).ok_or_else(no_size)?;
        match u32::try_from(bits / 8) {
            Ok(0) => Err(format!("{text} is too small: one byte at least")),
            Ok(bytes) => Ok(Size(bytes)),
            Err(_) => Err(format!("{text} is too large: the kernel takes less than 4 GiB")),
        }
    }
}

/// In the largest unit that leaves no fraction.
impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bits = u128::from(self.0) * 8;
        let (unit, each) = UNITS[..4].iter().rev().find(|(_, each)| bits.is_multiple_of(*each)).unwrap_or(&UNITS[0]);
        f.pad(&format!("{}{unit}", bits / each))
    }
}

super::as_text!(Size);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn units_are_those_of_tc() {
        assert_eq!("32kb".parse::<Size>().unwrap().bytes(), 32_768);
        assert_eq!("32k".parse::<Size>().unwrap().bytes(), 32_768);
        assert_eq!("32kbit".parse::<Size>().unwrap().bytes(), 4096);
        assert_eq!("1.5mb".parse::<Size>().unwrap().bytes(), 1_572_864);
        assert_eq!("3000b".parse::<Size>().unwrap().to_string(), "3000b");
    }

    #[test]
    fn what_is_no_size_is_refused() {
        assert_eq!(
            "4096".parse::<Size>().unwrap_err(),
            "\"4096\" has no unit; write 4096b for bytes, 4096kb for 1024 of them"
        );
        assert_eq!("0b".parse::<Size>().unwrap_err(), "0b is too small: one byte at least");
        assert_eq!("4gb".parse::<Size>().unwrap_err(), "4gb is too large: the kernel takes less than 4 GiB");
        for bad in ["", "-1kb", "kb", "1kbps", "1 kb"] {
            assert!(bad.parse::<Size>().is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn prints_what_it_parsed(bytes in 1u32..) {
            let size = Size::of_bytes(bytes).unwrap();
            prop_assert_eq!(size.to_string().parse::<Size>().unwrap(), size);
        }

        #[test]
        fn never_panics(text in "\\PC{0,12}") {
            let _ = text.parse::<Size>();
        }
    }
}
