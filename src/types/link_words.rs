//! A link's settings in iproute2's words: `eth1 mtu 1400 up`.

use super::{IfName, Mac, MacChoice, Mtu, nearest, words::Words};
use crate::error::{Error, Result};

/// What somebody wants of a link. What is not said stays as it is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LinkWords {
    /// None: the only one that plumb attached.
    pub interface: Option<IfName>,
    pub mtu: Option<Mtu>,
    pub mac: Option<Mac>,
    pub up: Option<bool>,
    pub promisc: Option<bool>,
    pub name: Option<IfName>,
}

/// The words that are known, for messages and for the shell.
pub const LINK_WORDS: [&str; 8] = ["mtu", "mac", "address", "up", "down", "promisc", "name", "dev"];

impl LinkWords {
    /// Reads the words.
    ///
    /// # Errors
    /// A word that is unknown, doubled or without its value, and where nothing is to be set.
    pub fn parse(typed: &[String]) -> Result<LinkWords> {
        let mut words = Words::new(typed, "a link", &LINK_WORDS);
        let mut link = LinkWords::default();
        let first = words.take_other();
        if let Some(word) = first {
            link.interface = Some(word.parse().map_err(|reason: String| Error::usage(reason))?);
        }
        // A setting that somebody has misspelt is taken for the name of an interface.
        let meant = first.and_then(|first| nearest(first, LINK_WORDS.into_iter()));
        while let Some(word) = words.next() {
            match word {
                "dev" => words.value("dev", &mut link.interface)?,
                "mtu" => words.value("mtu", &mut link.mtu)?,
                "mac" | "address" => {
                    let mut choice: Option<MacChoice> = link.mac.map(MacChoice::Literal);
                    words.value(word, &mut choice)?;
                    link.mac = choice.map(|choice| choice.mac());
                }
                "up" | "down" if link.up.is_none() => link.up = Some(word == "up"),
                "up" | "down" => return Err(Error::usage("up and down are given, and one of them is enough")),
                "promisc" => words.value_by("promisc", &mut link.promisc, on_or_off)?,
                "name" => words.value("name", &mut link.name)?,
                _ => return Err(words.unknown(first.filter(|_| meant.is_some()).unwrap_or(word))),
            }
        }
        let nothing = LinkWords { interface: link.interface.clone(), ..LinkWords::default() };
        if link == nothing {
            let of = link.interface.map_or_else(String::new, |name| format!(" of {name}"));
            let meant = meant.map_or_else(String::new, |meant| format!("did you mean {meant}? "));
            return Err(Error::usage(format!("set what{of}? no setting is given"))
                .hint(format!("{meant}mtu BYTES, mac ADDR, up, down, promisc on|off, name IFNAME")));
        }
        Ok(link)
    }
}

fn on_or_off(text: &str) -> std::result::Result<bool, String> {
    match text {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err("write on or off".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(text: &str) -> Result<LinkWords> {
        let words: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
        LinkWords::parse(&words)
    }

    fn refused(text: &str) -> String {
        parse(text).unwrap_err().message
    }

    #[test]
    fn what_fingers_know_is_understood() {
        let link = parse("eth1 mtu 1400 address 02:00:00:00:00:07 promisc on up name lan0").unwrap();
        assert_eq!(link.interface.unwrap().as_str(), "eth1");
        assert_eq!((link.up, link.promisc), (Some(true), Some(true)));
        assert_eq!(parse("mtu 1400").unwrap().interface, None);
        assert_eq!(parse("dev mtu mtu 1400").unwrap().interface.unwrap().as_str(), "mtu");
    }

    #[test]
    fn mistakes_are_named() {
        assert_eq!(refused(""), "set what? no setting is given");
        assert_eq!(refused("dev eth1"), "set what of eth1? no setting is given");
        assert_eq!(refused("nonsense"), "set what of nonsense? no setting is given");
        assert!(parse("promsic").unwrap_err().hint.unwrap().starts_with("did you mean promisc? mtu BYTES, "));
        assert_eq!(refused("mtuu 1400"), "plumb knows no \"mtuu\" of a link");
        assert_eq!(refused("eth1 mtu 99999999999"), "MTU 99999999999 is too large: the kernel takes at most 65535");
        assert_eq!(refused("eth1 up down"), "up and down are given, and one of them is enough");
        assert_eq!(refused("eth1 mtu 10"), "MTU 10 is too small: every IP link carries at least 68 bytes (RFC 791)");
        assert_eq!(refused("eth1 promisc maybe"), "promisc maybe: write on or off");
        assert_eq!(refused("eth1 mtu 1400 mtu 1500"), "mtu is given twice");
        let error = parse("eth1 mtuu 1400").unwrap_err();
        assert_eq!(error.hint.unwrap(), "did you mean mtu? known are mtu, mac, address, up, down, promisc, name, dev");
    }

    proptest! {
        #[test]
        fn never_panics(words in proptest::collection::vec("(mtu|mac|up|down|dev|name|[0-9.:a-z]{0,8})", 0..8)) {
            let _ = LinkWords::parse(&words);
        }
    }
}
