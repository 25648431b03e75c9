//! Rates of data as `tc` writes them: `500kbit`, `1.5mbit`, `10gbit`, and in bytes `64kbps`.

use std::{fmt, str::FromStr};

/// A rate in whole bytes per second, which is how the kernel counts; never zero.
///
/// The units are tc's: `bit` is bits per second and `bps` *bytes* per second, `k`, `m`, `g`, `t` are
/// powers of 1000 and `ki`, `mi`, `gi`, `ti` powers of 1024 (tc(8), "UNITS"). A bare number is refused: tc
/// takes it for bits, and many a reader for bytes or kilobits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rate(u64);

impl Rate {
    pub fn bytes_per_second(self) -> u64 {
        self.0
    }

    /// Of whole bytes per second; `None` for zero.
    pub fn of_bytes(bytes_per_second: u64) -> Option<Rate> {
        (bytes_per_second > 0).then_some(Rate(bytes_per_second))
    }

    /// How long `bytes` take at this rate, in nanoseconds.
    pub fn nanoseconds_for(self, bytes: u64) -> u128 {
        u128::from(bytes) * 1_000_000_000 / u128::from(self.0)
    }

    /// How many bytes fit into so many nanoseconds.
    pub fn bytes_in(self, nanoseconds: u128) -> u128 {
        u128::from(self.0) * nanoseconds / 1_000_000_000
    }
}

/// Each unit and how many bits it stands for.
const UNITS: [(&str, u128); 18] = [
    ("bit", 1),
    ("kbit", 1000),
    ("mbit", 1000_u128.pow(2)),
    ("gbit", 1000_u128.pow(3)),
    ("tbit", 1000_u128.pow(4)),
    ("kibit", 1024),
    ("mibit", 1024_u128.pow(2)),
    ("gibit", 1024_u128.pow(3)),
    ("tibit", 1024_u128.pow(4)),
    ("bps", 8),
    ("kbps", 8 * 1000),
    ("mbps", 8 * 1000_u128.pow(2)),
    ("gbps", 8 * 1000_u128.pow(3)),
    ("tbps", 8 * 1000_u128.pow(4)),
    ("kibps", 8 * 1024),
    ("mibps", 8 * 1024_u128.pow(2)),
    ("gibps", 8 * 1024_u128.pow(3)),
    ("tibps", 8 * 1024_u128.pow(4)),
];

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let no_rate = || format!("{text:?} is no rate; write one like 500kbit or 10mbit, or in bytes 64kbps");
        let (number, unit) = split(text).ok_or_else(no_rate)?;
        if unit.is_empty() && number.times(1) != Some(0) {
            return Err(format!(
                "{text:?} has no unit; write {text}kbit for kilobits, {text}kbps for kilobytes a second, {text}mbit for megabits"
            ));
        }
        // Nothing is nothing in any unit.
        let is_it = |(name, _): &&(&str, u128)| *name == unit || unit.is_empty();
        let each = UNITS.iter().find(is_it).map(|(_, bits)| *bits).ok_or_else(no_rate)?;
        let bits = number.times(each).ok_or_else(no_rate)?;
        match u64::try_from(bits / 8) {
            Ok(0) if bits == 0 => {
                Err(format!("rate {text} would let nothing through; to cut a container off, detach it"))
            }
            Ok(0) => Err(format!("rate {text} is too small: the kernel counts whole bytes, 8bit at least")),
            Ok(bytes) => Ok(Rate(bytes)),
            Err(_) => Err(format!("rate {text} is too large: the kernel takes less than 2^64 bytes a second")),
        }
    }
}

/// In the largest unit of bits that leaves no fraction.
impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bits = u128::from(self.0) * 8;
        let (unit, each) = UNITS[..5].iter().rev().find(|(_, each)| bits.is_multiple_of(*each)).unwrap_or(&UNITS[0]);
        f.pad(&format!("{}{unit}", bits / each))
    }
}

super::as_text!(Rate);

/// A decimal number without sign, exactly.
pub(super) struct Decimal {
    digits: u128,
    /// How many of the digits stand behind the point.
    behind: u32,
}

impl Decimal {
    /// `self × each`, rounded down; `None` if that is beyond all bounds.
    pub(super) fn times(&self, each: u128) -> Option<u128> {
        Some(self.digits.checked_mul(each)? / 10u128.checked_pow(self.behind)?)
    }
}

/// A number and the unit behind it, in lower case as tc does not tell them apart.
pub(super) fn split(text: &str) -> Option<(Decimal, String)> {
    let unit_at = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(unit_at);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits: u128 = format!("{whole}{fraction}").parse().ok()?;
    let behind = u32::try_from(fraction.len()).ok()?;
    (!whole.is_empty()).then(|| (Decimal { digits, behind }, unit.to_ascii_lowercase()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bytes(text: &str) -> u64 {
        text.parse::<Rate>().unwrap().bytes_per_second()
    }

    #[test]
    fn bits_are_not_bytes() {
        assert_eq!(bytes("500kbit"), 62_500);
        assert_eq!(bytes("500kbps"), 500_000);
        assert_eq!(bytes("1.5mbit"), 187_500);
        assert_eq!(bytes("1gibit"), 134_217_728);
        assert_eq!(bytes("1MBit"), 125_000);
        assert_eq!(bytes("100gbit"), 12_500_000_000, "more than 32 bits");
        assert_eq!(bytes("8bit"), 1);
    }

    #[test]
    fn what_is_no_rate_is_refused() {
        for nothing in ["0", "0kbit", "0.0"] {
            let said = format!("rate {nothing} would let nothing through; to cut a container off, detach it");
            assert_eq!(nothing.parse::<Rate>().unwrap_err(), said);
        }
        assert_eq!(
            "500".parse::<Rate>().unwrap_err(),
            "\"500\" has no unit; write 500kbit for kilobits, 500kbps for kilobytes a second, 500mbit for megabits"
        );
        assert_eq!(
            "0kbit".parse::<Rate>().unwrap_err(),
            "rate 0kbit would let nothing through; to cut a container off, detach it"
        );
        assert_eq!(
            "7bit".parse::<Rate>().unwrap_err(),
            "rate 7bit is too small: the kernel counts whole bytes, 8bit at least"
        );
        for bad in ["", "-1mbit", "kbit", ".5mbit", "1.2.3mbit", "1 mbit", "1mb", "50%", "1e3kbit", "99999999999tbit"] {
            assert!(bad.parse::<Rate>().is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn prints_what_it_parsed(bytes in 1u64..) {
            let rate = Rate::of_bytes(bytes).unwrap();
            prop_assert_eq!(rate.to_string().parse::<Rate>().unwrap(), rate);
        }

        #[test]
        fn a_thousand_of_each_unit_is_one_of_the_next(number in 1u64..1_000_000) {
            for (small, large) in [("kbit", "mbit"), ("mbit", "gbit"), ("kbps", "mbps"), ("mbps", "gbps")] {
                prop_assert_eq!(bytes(&format!("{number}000{small}")), bytes(&format!("{number}{large}")));
            }
            prop_assert_eq!(bytes(&format!("{number}kbps")), 8 * bytes(&format!("{number}kbit")));
        }

        #[test]
        fn never_panics(text in "\\PC{0,12}") {
            let _ = text.parse::<Rate>();
        }

        #[test]
        fn never_panics_at_numbers(text in "[0-9.]{1,60}[kmgt]?i?(bit|bps)?") {
            let _ = text.parse::<Rate>();
        }
    }
}
