//! How many of a hundred packets something happens to: `1%`, `0.05%`.

use std::{fmt, str::FromStr};

use super::rate::split;

/// A share in millionths: more than nothing, and at most all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Percent(u32);

const ALL: u32 = 1_000_000;

impl Percent {
    /// As netem wants it: of `u32::MAX`, which stands for all (tc's `parse_percent`).
    pub fn of_u32(self) -> u32 {
        let rounded = (u64::from(self.0) * u64::from(u32::MAX) + u64::from(ALL / 2)) / u64::from(ALL);
        u32::try_from(rounded).unwrap_or(u32::MAX)
    }

    /// What `of_u32` gave; `None` for nothing.
    pub fn from_u32(share: u32) -> Option<Percent> {
        let millionths = (u64::from(share) * u64::from(ALL) + u64::from(u32::MAX / 2)) / u64::from(u32::MAX);
        u32::try_from(millionths).ok().filter(|millionths| *millionths > 0).map(Percent)
    }
}

impl FromStr for Percent {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let no_percent = || format!("{text:?} is no percentage; write one like 1% or 0.1%");
        let (number, unit) = split(text).ok_or_else(no_percent)?;
        match (unit.as_str(), number.times(u128::from(ALL / 100)).and_then(|share| u32::try_from(share).ok())) {
            ("", _) => Err(format!("{text:?} has no unit; write {text}%")),
            ("%", Some(0)) => Err(format!("{text} is nothing: leave the option out, or give 0.0001% or more")),
            ("%", Some(share @ 1..=ALL)) => Ok(Percent(share)),
            ("%", _) => Err(format!("{text} is more than all, 100%")),
            _ => Err(no_percent()),
        }
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = format!("{}.{:04}", self.0 / (ALL / 100), self.0 % (ALL / 100));
        f.pad(&format!("{}%", digits.trim_end_matches('0').trim_end_matches('.')))
    }
}

super::as_text!(Percent);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_percentage_has_its_sign() {
        assert_eq!("1%".parse::<Percent>().unwrap().to_string(), "1%");
        assert_eq!("0.05%".parse::<Percent>().unwrap().to_string(), "0.05%");
        assert_eq!("100%".parse::<Percent>().unwrap().of_u32(), u32::MAX);
        assert_eq!("1".parse::<Percent>().unwrap_err(), "\"1\" has no unit; write 1%");
        assert_eq!(
            "0%".parse::<Percent>().unwrap_err(),
            "0% is nothing: leave the option out, or give 0.0001% or more"
        );
        assert_eq!("101%".parse::<Percent>().unwrap_err(), "101% is more than all, 100%");
        for bad in ["", "%", "-1%", "1kb", "a%"] {
            assert!(bad.parse::<Percent>().is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn prints_what_it_parsed_and_comes_back_from_the_kernel(share in 1..=ALL) {
            let percent = Percent(share);
            prop_assert_eq!(percent.to_string().parse::<Percent>().unwrap(), percent);
            prop_assert_eq!(Percent::from_u32(percent.of_u32()), Some(percent));
        }

        #[test]
        fn never_panics(text in "\\PC{0,12}") {
            let _ = text.parse::<Percent>();
        }
    }
}
