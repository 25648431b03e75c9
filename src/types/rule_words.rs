//! A rule in iproute2's words: `from 192.168.0.0/24 table 100 priority 100`.

use ipnetwork::IpNetwork;

use super::{
    IfName,
    address::network_of,
    words::{self, Words},
};
use crate::error::{Error, Result};

/// What somebody says of a rule. What is not said is any packet, or of a rule that is looked for,
/// anything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleWords {
    pub ipv6: bool,
    /// The rule is for what it does not describe.
    pub inverted: bool,
    pub from: Option<IpNetwork>,
    pub to: Option<IpNetwork>,
    pub iif: Option<IfName>,
    pub oif: Option<IfName>,
    /// The mark, and the bits of it that count.
    pub fwmark: Option<(u32, u32)>,
    pub priority: Option<u32>,
    /// The answers of its table with no longer prefix than this do not count.
    pub suppress_prefixlength: Option<u32>,
    pub action: Option<RuleAction>,
}

/// What becomes of the packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RuleAction {
    /// This table decides.
    Lookup(u32),
    Blackhole,
    Unreachable,
    Prohibit,
}

/// The words that are known, for messages and for the shell.
pub const RULE_WORDS: [&str; 19] = [
    "from",
    "to",
    "iif",
    "oif",
    "fwmark",
    "table",
    "lookup",
    "priority",
    "prohibit",
    "blackhole",
    "unreachable",
    "not",
    "suppress_prefixlength",
    "prio",
    "pref",
    "preference",
    "order",
    "dev",
    "all",
];

impl RuleWords {
    /// Reads the words; `ipv6` where the IP version is said apart from them.
    ///
    /// # Errors
    /// A word that is unknown, doubled or without its value, and what cannot be together.
    pub fn parse(typed: &[String], ipv6: Option<bool>) -> Result<RuleWords> {
        let mut words = Words::new(typed, "a rule", &RULE_WORDS);
        let (mut from, mut to) = (None, None);
        let mut rule = RuleWords::any();
        let once = |action: &mut Option<RuleAction>, new| match action.replace(new) {
            None => Ok(()),
            Some(_) => Err(Error::usage("a rule does one thing with its packets, and two are given")),
        };
        while let Some(word) = words.next() {
            match word {
                "from" => words.value_by("from", &mut from, network)?,
                "to" => words.value_by("to", &mut to, network)?,
                "iif" | "dev" => words.value(word, &mut rule.iif)?,
                "oif" => words.value("oif", &mut rule.oif)?,
                "fwmark" => words.value_by("fwmark", &mut rule.fwmark, mark)?,
                "table" | "lookup" => {
                    let mut table = None;
                    words.value_by(word, &mut table, words::table)?;
                    table.map_or(Ok(()), |table| once(&mut rule.action, RuleAction::Lookup(table)))?;
                }
                "priority" | "prio" | "pref" | "preference" | "order" => words.number(word, &mut rule.priority)?,
                "suppress_prefixlength" => words.number(word, &mut rule.suppress_prefixlength)?,
                "prohibit" => once(&mut rule.action, RuleAction::Prohibit)?,
                "blackhole" => once(&mut rule.action, RuleAction::Blackhole)?,
                "unreachable" => once(&mut rule.action, RuleAction::Unreachable)?,
                "not" => rule.inverted = true,
                _ => return Err(words.unknown(word)),
            }
        }
        (rule.from, rule.to) = (from.flatten(), to.flatten());
        let versions = [rule.from, rule.to].map(|network| network.map(|network| network.is_ipv6()));
        let said = [ipv6, versions[0], versions[1]];
        rule.ipv6 = said.into_iter().flatten().next().unwrap_or(false);
        if said.into_iter().flatten().any(|version| version != rule.ipv6) {
            return Err(Error::usage("the rule's addresses are of different IP versions"));
        }
        Ok(rule)
    }

    /// Whether nothing at all is said.
    pub fn is_empty(&self) -> bool {
        let nothing = RuleWords { ipv6: self.ipv6, ..RuleWords::any() };
        *self == nothing
    }

    fn any() -> RuleWords {
        RuleWords {
            ipv6: false,
            inverted: false,
            from: None,
            to: None,
            iif: None,
            oif: None,
            fwmark: None,
            priority: None,
            suppress_prefixlength: None,
            action: None,
        }
    }
}

/// `None` for `all`.
fn network(text: &str) -> std::result::Result<Option<IpNetwork>, String> {
    if ["all", "any", "default"].contains(&text) {
        return Ok(None);
    }
    let network: IpNetwork = text.parse().map_err(|_| "write a network such as 192.168.0.0/24, or all".to_owned())?;
    match network_of(network) {
        clean if clean.ip() == network.ip() => Ok((network.prefix() > 0).then_some(network)),
        clean => Err(format!("it has host bits set; maybe {clean}?")),
    }
}

/// `0x10/0xff`, `16`
fn mark(text: &str) -> std::result::Result<(u32, u32), String> {
    let number = |text: &str| match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    };
    let (mark, mask) = text.split_once('/').unwrap_or((text, "0xffffffff"));
    let (mark, mask) = number(mark).zip(number(mask)).ok_or("write a mark such as 0x10, or with a mask 0x10/0xff")?;
    let both = u32::try_from(mark).ok().zip(u32::try_from(mask).ok());
    both.ok_or_else(|| "a mark has at most 32 bits".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(text: &str) -> Result<RuleWords> {
        let words: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
        RuleWords::parse(&words, None)
    }

    fn refused(text: &str) -> String {
        parse(text).unwrap_err().message
    }

    #[test]
    fn what_fingers_know_is_understood() {
        let rule = parse("from 192.168.0.0/24 table 100 priority 100").unwrap();
        assert_eq!((rule.action, rule.priority), (Some(RuleAction::Lookup(100)), Some(100)));
        assert_eq!(parse("fwmark 0x10/0xff lookup main").unwrap().fwmark, Some((16, 255)));
        assert_eq!(parse("prio 7").unwrap().priority, Some(7));
        assert_eq!(parse("fwmark 7 lookup main").unwrap().fwmark, Some((7, u32::MAX)));
        assert!(parse("to fd00::/8 prohibit").unwrap().ipv6);
        assert!(parse("not from all iif eth1 unreachable").unwrap().inverted);
        assert!(parse("").unwrap().is_empty() && parse("from all").unwrap().is_empty());
    }

    #[test]
    fn mistakes_are_named() {
        assert_eq!(refused("from 192.168.0.1/24"), "from 192.168.0.1/24: it has host bits set; maybe 192.168.0.0/24?");
        assert_eq!(refused("from 10.0.0.0/8 to fd00::/8"), "the rule's addresses are of different IP versions");
        assert_eq!(refused("table 1 prohibit"), "a rule does one thing with its packets, and two are given");
        assert_eq!(refused("prio 4294967296"), "prio 4294967296: it is at most 4294967295");
        assert_eq!(refused("fwmark 0x100000000"), "fwmark 0x100000000: a mark has at most 32 bits");
        assert_eq!(refused("fwmark x"), "fwmark x: write a mark such as 0x10, or with a mask 0x10/0xff");
        assert_eq!(parse("form 10.0.0.0/8").unwrap_err().hint.unwrap().split('?').next(), Some("did you mean from"));
    }

    proptest! {
        #[test]
        fn never_panics(words in proptest::collection::vec("(from|to|table|fwmark|not|[0-9./:a-z]{0,8})", 0..8)) {
            let _ = RuleWords::parse(&words, None);
        }
    }
}
