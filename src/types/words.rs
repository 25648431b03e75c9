//! Words as iproute2 has them, `via 192.168.0.1 dev eth1`, read one after the other.

use std::{fmt::Display, str::FromStr};

use super::nearest;
use crate::error::{Error, Result};

/// The words of a route, a rule or a link, and those that are known there.
pub struct Words<'a> {
    words: std::iter::Peekable<std::slice::Iter<'a, String>>,
    /// "a route": what they describe.
    what: &'static str,
    known: &'static [&'static str],
}

impl<'a> Words<'a> {
    pub fn new(words: &'a [String], what: &'static str, known: &'static [&'static str]) -> Words<'a> {
        Words { words: words.iter().peekable(), what, known }
    }

    /// The next word, whatever it is.
    pub fn next(&mut self) -> Option<&'a str> {
        self.words.next().map(String::as_str)
    }

    /// The next word, if it is `this`.
    pub fn take(&mut self, this: &str) -> bool {
        self.words.next_if(|word| *word == this).is_some()
    }

    /// The next word, if it is none of those that are known.
    pub fn take_other(&mut self) -> Option<&'a str> {
        let known = self.known;
        self.words.next_if(|word| !known.contains(&word.as_str())).map(String::as_str)
    }

    /// The value behind `word`, which may be given once.
    pub fn value<T: FromStr<Err: Display>>(&mut self, word: &str, into: &mut Option<T>) -> Result<()> {
        self.value_by(word, into, |text| text.parse().map_err(|error: T::Err| error.to_string()))
    }

    /// The same for a number.
    pub fn number<T: FromStr>(&mut self, word: &str, into: &mut Option<T>) -> Result<()> {
        self.value_by(word, into, |text| text.parse().map_err(|_| format!("{text:?} is no number")))
    }

    pub fn value_by<T>(
        &mut self,
        word: &str,
        into: &mut Option<T>,
        read: impl FnOnce(&str) -> std::result::Result<T, String>,
    ) -> Result<()> {
        let text = self.next().ok_or_else(|| Error::usage(format!("{word} has no value behind it")))?;
        if into.is_some() {
            return Err(Error::usage(format!("{word} is given twice")));
        }
        *into = Some(read(text).map_err(|reason| Error::usage(format!("{word} {text}: {reason}")))?);
        Ok(())
    }

    /// That `word` means nothing here.
    pub fn unknown(&self, word: &str) -> Error {
        let known = self.known.join(", ");
        Error::usage(format!("plumb knows no {word:?} of {}", self.what)).hint(
            match nearest(word, self.known.iter().copied()) {
                Some(near) => format!("did you mean {near}? known are {known}"),
                None => format!("known are {known}"),
            },
        )
    }
}

/// A routing table: a number, or one of the names that every system has.
pub fn table(text: &str) -> std::result::Result<u32, String> {
    match text {
        "main" => Ok(254),
        "local" => Ok(255),
        "default" => Ok(253),
        _ => text.parse().ok().filter(|table| *table != 0).ok_or_else(|| {
            "a table is a number from 1, or main, local or default; other names are the host's, not the container's"
                .to_owned()
        }),
    }
}

/// A table as people know it.
pub fn table_name(table: u32) -> String {
    match table {
        253 => "default".into(),
        254 => "main".into(),
        255 => "local".into(),
        number => number.to_string(),
    }
}
