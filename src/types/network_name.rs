//! The name of a network.

use std::{fmt, str::FromStr};

/// A name that every store can hold and every shell leaves alone: 1 to 63 letters, digits, `.`, `_`
/// and `-`, beginning with a letter or a digit.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NetworkName(String);

impl NetworkName {
    pub const MAX_BYTES: usize = 63;

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for NetworkName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("a network's name cannot be empty".into());
        }
        if text.len() > Self::MAX_BYTES {
            return Err(format!("network name {text:?} has {} bytes, the most are {}", text.len(), Self::MAX_BYTES));
        }
        let is_fit = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if let Some(c) = text.chars().find(|c| !is_fit(*c)) {
            return Err(format!(
                "network name {text:?} has a {c:?} in it; letters, digits, '.', '_' and '-' are taken"
            ));
        }
        if !text.starts_with(|c: char| c.is_ascii_alphanumeric()) {
            return Err(format!("network name {text:?} must begin with a letter or a digit"));
        }
        Ok(NetworkName(text.to_owned()))
    }
}

impl fmt::Display for NetworkName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

super::as_text!(NetworkName);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_text_is_a_name_or_refused_and_a_name_is_printed_as_it_was_typed(text in "\\PC{0,70}|[a-z0-9._-]{1,64}") {
            match text.parse::<NetworkName>() {
                Ok(name) => {
                    prop_assert_eq!(name.to_string(), text);
                    prop_assert!(!name.as_str().contains(['/', '@', '%', ' ']));
                }
                Err(reason) => prop_assert!(reason.contains("network")),
            }
        }
    }
}
