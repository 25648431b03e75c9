//! Lengths of time as people type them: `200ms`, `1.5s`, `2m`, `0`.

use std::{fmt, str::FromStr, time::Duration};

/// A length of time. A bare number other than 0 is refused, as seconds and milliseconds are both
/// plausible.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(Duration);

impl Span {
    pub const fn millis(count: u64) -> Span {
        Span(Duration::from_millis(count))
    }

    pub fn duration(self) -> Duration {
        self.0
    }

    pub fn is_zero(self) -> bool {
        self.0.is_zero()
    }
}

const MOST: Duration = Duration::from_secs(24 * 3600);

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "0" {
            return Ok(Span(Duration::ZERO));
        }
        let unit_at = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (number, unit) = text.split_at(unit_at);
        let seconds_each = match unit {
            "us" | "µs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" | "min" => 60.0,
            "h" => 3600.0,
            "" if !number.is_empty() => return Err(format!("{text:?} has no unit; write {text}ms or {text}s")),
            _ => return Err(format!("{text:?} is no duration; write one like 200ms, 1.5s or 2m")),
        };
        let number: f64 =
            number.parse().map_err(|_| format!("{text:?} is no duration; write one like 200ms, 1.5s or 2m"))?;
        match Duration::try_from_secs_f64(number * seconds_each) {
            Ok(duration) if duration <= MOST => Ok(Span(duration)),
            _ => Err(format!("{text:?} is too long: at most a day")),
        }
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_zero() { f.write_str("0") } else { write!(f, "{:?}", self.0) }
    }
}

super::as_text!(Span);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn units_are_needed() {
        assert_eq!("200ms".parse::<Span>().unwrap(), Span::millis(200));
        assert_eq!("1.5s".parse::<Span>().unwrap(), Span::millis(1500));
        assert_eq!("2m".parse::<Span>().unwrap(), Span::millis(120_000));
        assert!("0".parse::<Span>().unwrap().is_zero());
        assert_eq!("200".parse::<Span>().unwrap_err(), "\"200\" has no unit; write 200ms or 200s");
        for bad in ["", "ms", "-1s", "1.2.3s", "1 s", "nans", "9999999h", "1e9s"] {
            assert!(bad.parse::<Span>().is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn prints_what_it_parsed(micros in 1u64..10_000_000_000) {
            let span = Span(Duration::from_micros(micros));
            prop_assert_eq!(span.to_string().parse::<Span>().unwrap(), span);
        }

        #[test]
        fn never_panics(text in "\\PC{0,12}") {
            let _ = text.parse::<Span>();
        }
    }
}
