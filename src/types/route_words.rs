//! A route in iproute2's words: `default via 192.168.0.1 dev eth1 metric 50`.

use std::net::IpAddr;

use ipnetwork::IpNetwork;

use super::{
    IfName, RouteSpec,
    address::network_of,
    words::{self, Words, not_a_number},
};
use crate::error::{Error, Result};

/// What somebody says of a route. What is not said is the kernel's choice, or of a route that is looked
/// for, anything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteWords {
    pub kind: RouteKind,
    /// `0.0.0.0/0` or `::/0` for `default`.
    pub destination: IpNetwork,
    pub via: Option<IpAddr>,
    pub dev: Option<IfName>,
    /// The router is on the link although no address there says so.
    pub onlink: bool,
    pub metric: Option<u32>,
    pub table: Option<u32>,
    pub src: Option<IpAddr>,
    /// The kernel's number, `RT_SCOPE_…`.
    pub scope: Option<u8>,
    /// The kernel's number, `RTPROT_…`.
    pub protocol: Option<u8>,
    /// In bytes, and whether what the path teaches must not lower it.
    pub mtu: Option<(u32, bool)>,
    pub advmss: Option<u32>,
    pub initcwnd: Option<u32>,
    pub initrwnd: Option<u32>,
}

/// What becomes of the packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RouteKind {
    Unicast,
    /// They are for the target itself.
    Local,
    /// They are dropped without a word, or with one: EINVAL, EHOSTUNREACH, EACCES.
    Blackhole,
    Unreachable,
    Prohibit,
    /// The next rule decides.
    Throw,
}

impl RouteKind {
    const ALL: [(&'static str, RouteKind); 6] = [
        ("unicast", RouteKind::Unicast),
        ("local", RouteKind::Local),
        ("blackhole", RouteKind::Blackhole),
        ("unreachable", RouteKind::Unreachable),
        ("prohibit", RouteKind::Prohibit),
        ("throw", RouteKind::Throw),
    ];

    /// Whether the packets leave by an interface.
    pub fn has_a_way(self) -> bool {
        matches!(self, RouteKind::Unicast | RouteKind::Local)
    }
}

/// The words that are known, for messages and for the shell.
pub const ROUTE_WORDS: [&str; 24] = [
    "default",
    "via",
    "dev",
    "metric",
    "table",
    "src",
    "onlink",
    "scope",
    "proto",
    "mtu",
    "advmss",
    "initcwnd",
    "initrwnd",
    "unicast",
    "local",
    "blackhole",
    "unreachable",
    "prohibit",
    "throw",
    "to",
    "priority",
    "preference",
    "protocol",
    "lock",
];

impl RouteWords {
    /// Reads the words; `ipv6` where the IP version is said apart from them.
    ///
    /// # Errors
    /// A word that is unknown, doubled or without its value, no destination, and what cannot be together.
    pub fn parse(typed: &[String], ipv6: Option<bool>) -> Result<RouteWords> {
        let mut words = Words::new(typed, "a route", &ROUTE_WORDS);
        let mut kind = None;
        let mut destination: Option<Option<IpNetwork>> = None;
        let mut route = RouteWords::to(RouteSpec::default_route(false).destination);
        while let Some(word) = words.next() {
            match word {
                "to" => words.value_by("to", &mut destination, network)?,
                "via" => words.value("via", &mut route.via)?,
                "dev" => words.value("dev", &mut route.dev)?,
                "metric" | "priority" | "preference" => words.number(word, &mut route.metric)?,
                "table" => words.value_by("table", &mut route.table, words::table)?,
                "src" => words.value("src", &mut route.src)?,
                "onlink" => route.onlink = true,
                "scope" => words.value_by("scope", &mut route.scope, scope)?,
                "proto" | "protocol" => words.value_by(word, &mut route.protocol, protocol)?,
                "mtu" => {
                    let locked = words.take("lock");
                    let mut bytes = None;
                    words.number("mtu", &mut bytes)?;
                    route.mtu = bytes.map(|bytes| (bytes, locked));
                }
                "advmss" => words.number("advmss", &mut route.advmss)?,
                "initcwnd" => words.number("initcwnd", &mut route.initcwnd)?,
                "initrwnd" => words.number("initrwnd", &mut route.initrwnd)?,
                "nexthop" => {
                    return Err(Error::usage("a route of plumb's has one way, and nexthop is for several")
                        .hint("via ADDR, dev IFNAME or both, without nexthop; append puts another route behind it"));
                }
                _ => match RouteKind::ALL.iter().find(|(name, _)| *name == word) {
                    Some((_, found)) if kind.is_none() && destination.is_none() => kind = Some(*found),
                    // An address, and not a word that somebody has misspelt.
                    None if destination.is_none() && (word == "default" || word.contains(['.', ':', '/'])) => {
                        destination = Some(network(word).map_err(Error::usage)?);
                    }
                    _ => return Err(words.unknown(word)),
                },
            }
        }
        let destination = destination.ok_or_else(|| {
            Error::usage("which route? its destination is missing").hint("a network such as 10.0.0.0/8, or default")
        })?;
        route.kind = kind.unwrap_or(RouteKind::Unicast);
        route.destination = match destination {
            Some(network) => network,
            None => {
                let said = [route.via, route.src].into_iter().flatten().next().map(|ip| ip.is_ipv6());
                RouteSpec::default_route(ipv6.or(said).unwrap_or(false)).destination
            }
        };
        route.check(ipv6)?;
        Ok(route)
    }

    fn to(destination: IpNetwork) -> RouteWords {
        RouteWords {
            kind: RouteKind::Unicast,
            destination,
            via: None,
            dev: None,
            onlink: false,
            metric: None,
            table: None,
            src: None,
            scope: None,
            protocol: None,
            mtu: None,
            advmss: None,
            initcwnd: None,
            initrwnd: None,
        }
    }

    fn check(&self, ipv6: Option<bool>) -> Result<()> {
        let (name, is_ipv6) = (self.name(), self.destination.is_ipv6());
        if ipv6.is_some_and(|ipv6| ipv6 != is_ipv6) {
            let version = if is_ipv6 { "IPv6" } else { "IPv4" };
            return Err(Error::usage(format!("{name} is of {version}")).hint("leave -4 and -6 out"));
        }
        for (word, ip) in [("via", self.via), ("src", self.src)] {
            if let Some(ip) = ip.filter(|ip| ip.is_ipv6() != is_ipv6) {
                return Err(Error::usage(format!("route {name} and {word} {ip} are of different IP versions")));
            }
        }
        if !self.kind.has_a_way() && (self.via.is_some() || self.dev.is_some()) {
            return Err(Error::usage(format!(
                "a route of this kind to {name} leads nowhere, so it has no via and no dev"
            ))
            .hint("leave them out"));
        }
        if self.onlink && (self.via.is_none() || self.dev.is_none()) {
            return Err(Error::usage("onlink says that a router is on a link, so via and dev are needed")
                .hint("via 192.168.0.1 dev eth1 onlink"));
        }
        Ok(())
    }

    /// `default`, which is IPv4's, or the network.
    pub fn name(&self) -> String {
        match self.destination {
            IpNetwork::V4(all) if all.prefix() == 0 => "default".to_owned(),
            network => network.to_string(),
        }
    }

    /// The table it is in if none is said.
    pub fn table(&self) -> u32 {
        let built_in = if self.kind == RouteKind::Local { 255 } else { 254 };
        self.table.unwrap_or(built_in)
    }
}

/// `None` for the default route, whose IP version the other words tell.
fn network(text: &str) -> std::result::Result<Option<IpNetwork>, String> {
    if text == "default" {
        return Ok(None);
    }
    let network: IpNetwork =
        text.parse().map_err(|_| format!("{text:?} is no network; write 10.0.0.0/8 or default"))?;
    match network_of(network) {
        clean if clean.ip() == network.ip() => Ok(Some(network)),
        clean => Err(format!("route {text} has host bits set; maybe {clean}?")),
    }
}

fn scope(text: &str) -> std::result::Result<u8, String> {
    match text {
        "global" | "universe" => Ok(0),
        "site" => Ok(200),
        "link" => Ok(253),
        "host" => Ok(254),
        _ => text
            .parse()
            .map_err(|_| not_a_number(text, u8::MAX.into(), "a scope is global, site, link, host or a number")),
    }
}

fn protocol(text: &str) -> std::result::Result<u8, String> {
    match text {
        "kernel" => Ok(2),
        "boot" => Ok(3),
        "static" => Ok(4),
        "ra" => Ok(9),
        "dhcp" => Ok(16),
        _ => text.parse().map_err(|_| {
            not_a_number(text, u8::MAX.into(), "a protocol is static, boot, kernel, ra, dhcp or a number")
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(text: &str) -> Result<RouteWords> {
        let words: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
        RouteWords::parse(&words, None)
    }

    fn refused(text: &str) -> String {
        parse(text).unwrap_err().message
    }

    #[test]
    fn what_fingers_know_is_understood() {
        let route = parse("default via 192.168.0.1 dev eth1 metric 50").unwrap();
        assert_eq!((route.name().as_str(), route.metric), ("default", Some(50)));
        assert!(parse("default via fd00::1 dev eth1").unwrap().destination.is_ipv6());
        assert_eq!(parse("blackhole 10.9.0.0/16").unwrap().kind, RouteKind::Blackhole);
        assert_eq!(parse("10.1.2.3 dev eth1 scope link").unwrap().scope, Some(253));
        assert_eq!(parse("default dev eth1 table 100 mtu lock 1400").unwrap().mtu, Some((1400, true)));
        assert_eq!(parse("local 10.9.0.1 dev eth1").unwrap().table(), 255);
        assert_eq!(parse("to 10.0.0.0/8 via 192.168.0.1 proto static onlink dev eth1").unwrap().protocol, Some(4));
        assert!(RouteWords::parse(&["default".into()], Some(true)).unwrap().destination.is_ipv6());
    }

    #[test]
    fn mistakes_are_named() {
        assert_eq!(refused(""), "which route? its destination is missing");
        assert_eq!(refused("10.0.0.1/8 dev eth1"), "route 10.0.0.1/8 has host bits set; maybe 10.0.0.0/8?");
        assert_eq!(refused("default via"), "via has no value behind it");
        assert_eq!(refused("default via 1.2.3.4 via 1.2.3.5"), "via is given twice");
        assert_eq!(
            refused("default via fd00::1 src 10.0.0.1"),
            "route ::/0 and src 10.0.0.1 are of different IP versions"
        );
        assert_eq!(
            refused("default via 10.0.0.1 onlink"),
            "onlink says that a router is on a link, so via and dev are needed"
        );
        assert!(refused("blackhole 10.0.0.0/8 dev eth1").contains("leads nowhere"));
        assert_eq!(refused("10.0.0.0/8 metric 4294967296"), "metric 4294967296: it is at most 4294967295");
        assert_eq!(refused("10.0.0.0/8 metric -1"), "metric -1: write a number");
        assert_eq!(refused("10.0.0.0/8 table 4294967296"), "table 4294967296: it is at most 4294967295");
        assert!(refused("10.0.0.0/8 table 0").starts_with("table 0: a table is a number from 1"));
        assert_eq!(refused("10.0.0.0/8 proto 256"), "proto 256: it is at most 255");
        assert_eq!(refused("10.0.0.0/8 dev a/b"), "interface name \"a/b\" has a '/' in it, which the kernel refuses");
        assert_eq!(
            refused("default nexthop via 1.2.3.4"),
            "a route of plumb's has one way, and nexthop is for several"
        );
        assert!(refused("10.0.0.0/8 dev eth1 table blue").starts_with("table blue: a table is a number"));
        let error = parse("10.0.0.0/8 dev eth1 metrik 5").unwrap_err();
        assert_eq!(error.message, "plumb knows no \"metrik\" of a route");
        assert!(error.hint.unwrap().starts_with("did you mean metric? known are default, via, dev"), "its list");
    }

    proptest! {
        #[test]
        fn never_panics(words in proptest::collection::vec("(default|via|dev|mtu|table|onlink|to|[0-9./:a-z]{0,8})", 0..8)) {
            let _ = RouteWords::parse(&words, None);
        }
    }
}
