//! Rules about which table decides, kept as the kernel describes them.

use std::fmt;

use ipnetwork::IpNetwork;
use rtnetlink::packet_core::{Emitable, Parseable};
use rtnetlink::packet_route::{
    AddressFamily,
    route::RouteProtocol,
    rule::{RuleAction as Action, RuleAttribute, RuleFlags, RuleHeader, RuleMessage},
};
use serde::{Deserialize, Serialize};

use super::render::quote;
use crate::types::{RuleAction, RuleWords, hex, table_name, unhex};

/// A rule of one namespace: the kernel's own message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Stored", into = "Stored")]
pub struct Rule(RuleMessage);

impl Rule {
    /// A rule as the kernel dumped it. What the kernel tells but does not take is left out.
    pub fn from_kernel(mut message: RuleMessage) -> Rule {
        message.header.flags &= RuleFlags::Invert;
        // The kernel's way to say that no answer is suppressed.
        message.attributes.retain(|attribute| {
            !matches!(
                attribute,
                RuleAttribute::SuppressPrefixLen(u32::MAX)
                    | RuleAttribute::SuppressIfGroup(u32::MAX)
                    | RuleAttribute::L3MDev(false)
            )
        });
        // The kernel tells none of 0, and takes none as its own choice.
        if !message.attributes.iter().any(|attribute| matches!(attribute, RuleAttribute::Priority(_))) {
            message.attributes.push(RuleAttribute::Priority(0));
        }
        Rule(message)
    }

    /// A new rule. `priority` is for one that says none.
    pub fn new(words: &RuleWords, priority: u32) -> Rule {
        let (action, table) = match words.action {
            None => (Action::ToTable, 254),
            Some(RuleAction::Lookup(table)) => (Action::ToTable, table),
            Some(RuleAction::Blackhole) => (Action::Blackhole, 0),
            Some(RuleAction::Unreachable) => (Action::Unreachable, 0),
            Some(RuleAction::Prohibit) => (Action::Prohibit, 0),
        };
        let length = |network: Option<IpNetwork>| network.map_or(0, |network| network.prefix());
        let mut message = RuleMessage::default();
        message.header = RuleHeader {
            family: if words.ipv6 { AddressFamily::Inet6 } else { AddressFamily::Inet },
            dst_len: length(words.to),
            src_len: length(words.from),
            table: u8::try_from(table).unwrap_or(0),
            action,
            flags: if words.inverted { RuleFlags::Invert } else { RuleFlags::empty() },
            ..RuleHeader::default()
        };
        let attributes = &mut message.attributes;
        attributes.extend(words.to.map(|network| RuleAttribute::Destination(network.ip())));
        attributes.extend(words.from.map(|network| RuleAttribute::Source(network.ip())));
        attributes.extend(words.iif.as_ref().map(|name| RuleAttribute::Iifname(name.to_string())));
        attributes.extend(words.oif.as_ref().map(|name| RuleAttribute::Oifname(name.to_string())));
        attributes.push(RuleAttribute::Priority(words.priority.unwrap_or(priority)));
        if let Some((mark, mask)) = words.fwmark {
            attributes.extend([RuleAttribute::FwMark(mark), RuleAttribute::FwMask(mask)]);
        }
        attributes.extend(words.suppress_prefixlength.map(RuleAttribute::SuppressPrefixLen));
        if table != 0 {
            attributes.push(RuleAttribute::Table(table));
        }
        attributes.push(RuleAttribute::Protocol(RouteProtocol::Static));
        Rule(message)
    }

    /// The message to send to the kernel.
    pub fn message(&self) -> &RuleMessage {
        &self.0
    }

    /// Of IPv6, or else of IPv4: no rule is of both.
    pub fn is_ipv6(&self) -> bool {
        self.0.header.family == AddressFamily::Inet6
    }

    fn attribute<T>(&self, pick: impl FnMut(&RuleAttribute) -> Option<T>) -> Option<T> {
        self.0.attributes.iter().find_map(pick)
    }

    /// Smaller ones are asked first.
    pub fn priority(&self) -> u32 {
        self.attribute(|a| if let RuleAttribute::Priority(priority) = a { Some(*priority) } else { None }).unwrap_or(0)
    }

    /// The table that decides, if one does.
    pub fn table(&self) -> Option<u32> {
        let by_attribute = self.attribute(|a| if let RuleAttribute::Table(table) = a { Some(*table) } else { None });
        let is_table = self.0.header.action == Action::ToTable;
        is_table.then(|| by_attribute.unwrap_or(u32::from(self.0.header.table)))
    }

    /// The interfaces that it names.
    pub fn interfaces(&self) -> Vec<&str> {
        let named = self.0.attributes.iter().filter_map(|a| match a {
            RuleAttribute::Iifname(name) | RuleAttribute::Oifname(name) => Some(name.as_str()),
            _ => None,
        });
        named.collect()
    }

    /// Whether both say the same, in whatever order.
    pub fn is(&self, other: &Rule) -> bool {
        self.is_ipv6() == other.is_ipv6() && self.to_string() == other.to_string()
    }

    /// Whether both have the same effect, whoever made them.
    pub fn says_what(&self, other: &Rule) -> bool {
        self.brief() == other.brief()
    }

    /// As `Display`, for people, who type it behind `plumb rule`: without who made it, and with `-6` where it is
    /// of IPv6.
    pub fn brief(&self) -> String {
        let version = if self.is_ipv6() { "-6 " } else { "" };
        format!("{version}{}", self.to_string().split(" protocol ").next().unwrap_or_default())
    }

    /// Whether this is a rule that `words` describe: all that they say is so.
    pub fn answers(&self, words: &RuleWords) -> bool {
        let wanted = Rule::new(words, self.priority());
        let has = |attribute: &RuleAttribute| match attribute {
            RuleAttribute::Protocol(_) => true,
            RuleAttribute::Table(_) if words.action.is_none() => true,
            other => self.0.attributes.contains(other),
        };
        let (ours, theirs) = (&self.0.header, &wanted.0.header);
        ours.family == theirs.family
            && (words.from.is_none() || ours.src_len == theirs.src_len)
            && (words.to.is_none() || ours.dst_len == theirs.dst_len)
            && (words.action.is_none() || ours.action == theirs.action)
            && (!words.inverted || ours.flags.contains(RuleFlags::Invert))
            && wanted.0.attributes.iter().all(has)
    }
}

/// The arguments of `ip rule add`. `ip` must be called with `-6` for IPv6.
impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let RuleMessage { header, attributes, .. } = &self.0;
        if header.flags.contains(RuleFlags::Invert) {
            f.write_str("not ")?;
        }
        match self.attribute(|a| if let RuleAttribute::Source(ip) = a { Some(*ip) } else { None }) {
            Some(ip) => write!(f, "from {ip}/{}", header.src_len)?,
            None => f.write_str("from all")?,
        }
        if let Some(ip) = self.attribute(|a| if let RuleAttribute::Destination(ip) = a { Some(*ip) } else { None }) {
            write!(f, " to {ip}/{}", header.dst_len)?;
        }
        if header.tos != 0 {
            write!(f, " tos {}", header.tos)?;
        }
        let mask = self.attribute(|a| if let RuleAttribute::FwMask(mask) = a { Some(*mask) } else { None });
        for attribute in attributes {
            match attribute {
                RuleAttribute::Iifname(name) => write!(f, " iif {}", quote(name))?,
                RuleAttribute::Oifname(name) => write!(f, " oif {}", quote(name))?,
                RuleAttribute::FwMark(mark) if mask.is_none_or(|mask| mask == u32::MAX) => {
                    write!(f, " fwmark {mark:#x}")?;
                }
                RuleAttribute::FwMark(mark) => write!(f, " fwmark {mark:#x}/{:#x}", mask.unwrap_or(u32::MAX))?,
                RuleAttribute::UidRange(range) => write!(f, " uidrange {}-{}", range.start, range.end)?,
                RuleAttribute::IpProtocol(protocol) => write!(f, " ipproto {}", u8::from(*protocol))?,
                RuleAttribute::SourcePortRange(ports) => write!(f, " sport {}-{}", ports.start, ports.end)?,
                RuleAttribute::DestinationPortRange(ports) => write!(f, " dport {}-{}", ports.start, ports.end)?,
                RuleAttribute::TunId(id) => write!(f, " tun_id {id}")?,
                RuleAttribute::L3MDev(true) => f.write_str(" l3mdev")?,
                _ => {}
            }
        }
        match (header.action, self.table()) {
            (_, Some(table)) => write!(f, " lookup {}", table_name(table))?,
            (Action::Blackhole, _) => f.write_str(" blackhole")?,
            (Action::Unreachable, _) => f.write_str(" unreachable")?,
            (Action::Prohibit, _) => f.write_str(" prohibit")?,
            (Action::Nop, _) => f.write_str(" nop")?,
            _ => {}
        }
        for attribute in attributes {
            match attribute {
                RuleAttribute::SuppressPrefixLen(length) => write!(f, " suppress_prefixlength {length}")?,
                RuleAttribute::SuppressIfGroup(group) => write!(f, " suppress_ifgroup {group}")?,
                RuleAttribute::Goto(priority) => write!(f, " goto {priority}")?,
                _ => {}
            }
        }
        write!(f, " priority {}", self.priority())?;
        match self.attribute(|a| if let RuleAttribute::Protocol(by) = a { Some(u8::from(*by)) } else { None }) {
            Some(by) if by != 0 => write!(f, " protocol {by}"),
            _ => Ok(()),
        }
    }
}

/// The priority that the kernel gives to a rule that says none: before the first behind that of the local
/// table (`fib_default_rule_pref` in the kernel's `net/core/fib_rules.c`).
pub fn free_priority(rules: &[Rule], ipv6: bool) -> u32 {
    let mut priorities: Vec<u32> = rules.iter().filter(|rule| rule.is_ipv6() == ipv6).map(Rule::priority).collect();
    priorities.sort_unstable();
    priorities.get(1).map_or(0, |second| second.saturating_sub(1))
}

/// How a record keeps a rule: the message in hexadecimal is what counts, the text is for people.
#[derive(Serialize, Deserialize)]
struct Stored {
    text: String,
    message: String,
}

impl From<Rule> for Stored {
    fn from(rule: Rule) -> Stored {
        let mut bytes = vec![0; rule.0.buffer_len()];
        rule.0.emit(&mut bytes);
        Stored { text: rule.to_string(), message: hex(&bytes) }
    }
}

impl TryFrom<Stored> for Rule {
    type Error = String;

    fn try_from(stored: Stored) -> Result<Rule, String> {
        let bytes =
            unhex(&stored.message).ok_or_else(|| format!("rule message {:?} is not hexadecimal", stored.message))?;
        if bytes.len() < 12 {
            return Err(format!("rule message of {} bytes is cut off", bytes.len()));
        }
        RuleMessage::parse(&bytes[..]).map(Rule).map_err(|error| format!("rule message: {error}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> RuleWords {
        let words: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
        RuleWords::parse(&words, None).unwrap()
    }

    fn rule(text: &str) -> Rule {
        Rule::new(&words(text), 32765)
    }

    #[test]
    fn reads_as_ip_rule_would_type_it() {
        for (typed, text) in [
            ("from 192.168.0.0/24 table 100 priority 7", "from 192.168.0.0/24 lookup 100 priority 7 protocol 4"),
            ("", "from all lookup main priority 32765 protocol 4"),
            (
                "not to fd00::/8 iif eth1 fwmark 0x10/0xff prohibit",
                "not from all to fd00::/8 iif eth1 fwmark 0x10/0xff prohibit priority 32765 protocol 4",
            ),
            (
                "table 70000 suppress_prefixlength 0 oif a;b",
                "from all oif 'a;b' lookup 70000 suppress_prefixlength 0 priority 32765 protocol 4",
            ),
        ] {
            assert_eq!(rule(typed).to_string(), text);
        }
    }

    #[test]
    fn a_record_gives_back_the_very_rule() {
        let rule = rule("from 192.168.0.0/24 fwmark 1 table 70000");
        let text = serde_json::to_string(&rule).unwrap();
        assert_eq!(serde_json::from_str::<Rule>(&text).unwrap(), rule);
        assert!(serde_json::from_str::<Rule>(r#"{"text":"","message":"0200"}"#).is_err());
    }

    #[test]
    fn part_of_what_a_rule_says_is_enough_to_find_it() {
        let there = rule("from 192.168.0.0/24 table 100 priority 7");
        for found in ["priority 7", "from 192.168.0.0/24", "table 100", "from 192.168.0.0/24 lookup 100"] {
            assert!(there.answers(&words(found)), "{found}");
        }
        for other in
            ["priority 8", "from 192.168.0.0/25", "to 192.168.0.0/24", "prohibit", "table 101", "not priority 7"]
        {
            assert!(!there.answers(&words(other)), "{other}");
        }
    }

    #[test]
    fn without_a_priority_it_comes_before_the_kernels_own() {
        let rules = [rule("priority 0 table local"), rule("priority 32766"), rule("priority 32767 table default")];
        assert_eq!(free_priority(&rules, false), 32765);
        assert_eq!(free_priority(&rules, true), 0);
    }
}
