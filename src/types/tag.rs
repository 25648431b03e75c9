//! The mark that plumb leaves on every link it makes.

use std::{fmt, str::FromStr};

use sha2::{Digest, Sha256};

use super::{hex, unhex};

/// Which store keeps the records of a link: eight hexadecimal digits made from the store's place.
/// Two stores on one host (a test's and the real one) so never take each other's links for lost.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StoreMark(String);

impl StoreMark {
    /// Of a store's place, such as `/var/lib/plumb`.
    pub fn of(place: &str) -> StoreMark {
        StoreMark(hex(&Sha256::digest(place)[..4]))
    }
}

impl fmt::Display for StoreMark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A link's alternative name, `plumb:STORE:ATTACHMENT`: it names the record that the link belongs to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tag {
    pub store: StoreMark,
    /// Sixteen hexadecimal digits, random, one per attachment.
    pub attachment: String,
}

impl Tag {
    pub fn new(store: StoreMark, random: [u8; 8]) -> Tag {
        Tag { store, attachment: hex(&random) }
    }
}

impl FromStr for Tag {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.strip_prefix("plumb:").and_then(|rest| rest.split_once(':'));
        match parts {
            Some((store, attachment)) if is_hex(store, 4) && is_hex(attachment, 8) => {
                Ok(Tag { store: StoreMark(store.to_owned()), attachment: attachment.to_owned() })
            }
            _ => Err(format!("{text:?} is not a tag of plumb's")),
        }
    }
}

fn is_hex(text: &str, bytes: usize) -> bool {
    unhex(text).is_some_and(|found| found.len() == bytes && hex(&found) == text)
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "plumb:{}:{}", self.store, self.attachment)
    }
}

super::as_text!(Tag);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn prints_what_it_parsed(place in ".*", random: [u8; 8]) {
            let tag = Tag::new(StoreMark::of(&place), random);
            prop_assert_eq!(tag.to_string().parse::<Tag>().unwrap(), tag);
        }

        #[test]
        fn nothing_else_is_a_tag(text in "(plumb:)?\\PC{0,30}") {
            prop_assert!(text.parse::<Tag>().is_err());
        }
    }
}
