//! What `etcd://user@one:2379,two/prefix` says.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    str::FromStr,
};

use crate::error::{Error, Result};

/// Under it lie all keys, unless the address says otherwise.
const PREFIX: &str = "/plumb";
/// What etcd listens on for clients (IANA: etcd-client).
const PORT: u16 = 2379;

/// A cluster, and where in it plumb's keys lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    pub encrypted: bool,
    pub user: Option<String>,
    /// At least one.
    pub endpoints: Vec<Endpoint>,
    /// Begins with a slash and ends without.
    pub prefix: String,
}

/// A member of the cluster as it was written: certificates are made out to names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// A name or a number, without the brackets of IPv6.
    pub host: String,
    pub port: u16,
}

impl Address {
    /// All endpoints, for messages.
    pub fn endpoints_text(&self) -> String {
        self.endpoints.iter().map(Endpoint::to_string).collect::<Vec<_>>().join(", ")
    }
}

impl FromStr for Address {
    type Err = Error;

    fn from_str(text: &str) -> Result<Address> {
        let wrong = |reason: &str| {
            Error::usage(format!("{text}: {reason}"))
                .hint("write etcd://HOST[:PORT][,HOST…][/PREFIX], or etcds:// for TLS")
        };
        let (scheme, rest) = text.split_once("://").ok_or_else(|| wrong("no address of an etcd"))?;
        let (authority, prefix) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let (user, hosts) = match authority.rsplit_once('@') {
            None => (None, authority),
            Some((user, _)) if user.contains(':') => {
                // Not repeated in the message either.
                return Err(Error::usage("a password in the store's address is for all to read, in ps and in the shell's history")
                    .hint("write etcd://USER@HOST, and the password in PLUMB_STORE_PASSWORD or in a file, --store-password-file"));
            }
            Some(("", _)) => return Err(wrong("there is no user before the @")),
            Some((user, hosts)) => (Some(user.to_owned()), hosts),
        };
        let endpoints = hosts.split(',').map(|host| host.parse().map_err(|reason: String| wrong(&reason)));
        let prefix = match prefix.trim_end_matches('/') {
            "" => PREFIX,
            prefix if prefix.contains("//") || prefix.contains(char::is_control) => {
                return Err(wrong("the prefix has an empty part or a control character"));
            }
            prefix => prefix,
        };
        Ok(Address {
            encrypted: scheme == "etcds",
            user,
            endpoints: endpoints.collect::<Result<_>>()?,
            prefix: prefix.to_owned(),
        })
    }
}

impl FromStr for Endpoint {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Endpoint, String> {
        let port_of = |text: &str| match text.strip_prefix(':') {
            None if text.is_empty() => Ok(PORT),
            Some(port) => port.parse().ok().filter(|port| *port > 0).ok_or_else(|| format!("{port:?} is no port")),
            None => Err(format!("{text:?} is no port")),
        };
        let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((host, port)) if host.parse::<std::net::Ipv6Addr>().is_ok() => (host, port),
            Some((host, _)) => return Err(format!("{host:?} is no IPv6 address")),
            None if text.matches(':').count() > 1 => return Err(format!("write the IPv6 address {text} in brackets")),
            None => text.split_at(text.find(':').unwrap_or(text.len())),
        };
        if host.is_empty() {
            return Err("there is a host missing".into());
        }
        Ok(Endpoint { host: host.to_owned(), port: port_of(port)? })
    }
}

impl std::fmt::Display for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl Endpoint {
    /// Numbers as they are, names by /etc/hosts. DNS is not asked: a static program leaves that to
    /// glibc, which for many systems' settings loads a library of the very glibc that it was built
    /// with, or ends in the attempt.
    pub fn resolve(&self) -> std::result::Result<SocketAddr, String> {
        self.resolve_by(|| fs::read_to_string("/etc/hosts").unwrap_or_default())
    }

    fn resolve_by(&self, hosts: impl FnOnce() -> String) -> std::result::Result<SocketAddr, String> {
        let ip = match self.host.parse::<IpAddr>() {
            Ok(ip) => Some(ip),
            Err(_) => find_in(&hosts(), &self.host),
        };
        match ip {
            Some(ip) => Ok(SocketAddr::new(ip, self.port)),
            None => Err(format!("{} is not in /etc/hosts, and DNS is not asked: give its IP address", self.host)),
        }
    }
}

/// The first address of a name in the text of /etc/hosts.
fn find_in(hosts: &str, name: &str) -> Option<IpAddr> {
    let of_line = |line: &str| {
        let mut words = line.split('#').next()?.split_whitespace();
        let ip = words.next()?.parse().ok()?;
        words.any(|word| word.eq_ignore_ascii_case(name)).then_some(ip)
    };
    let built_in = || name.eq_ignore_ascii_case("localhost").then_some(IpAddr::V4(Ipv4Addr::LOCALHOST));
    hosts.lines().find_map(of_line).or_else(built_in)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(text: &str) -> Endpoint {
        text.parse().unwrap()
    }

    #[test]
    fn an_address_says_who_where_and_under_what() {
        let address: Address = "etcds://root@10.0.0.1,[fd00::2]:4001,three:2380/a/b/".parse().unwrap();
        assert!(address.encrypted);
        assert_eq!(address.user.as_deref(), Some("root"));
        assert_eq!(address.endpoints_text(), "10.0.0.1:2379, [fd00::2]:4001, three:2380");
        assert_eq!(address.prefix, "/a/b");
        for short in ["etcd://10.0.0.1", "etcd://10.0.0.1/"] {
            let address: Address = short.parse().unwrap();
            assert_eq!((address.encrypted, address.user, address.prefix.as_str()), (false, None, "/plumb"));
        }
    }

    #[test]
    fn what_is_no_address_is_refused_with_its_reason() {
        for (text, reason) in [
            ("etcd://", "etcd://: there is a host missing"),
            ("etcd://10.0.0.1,", "etcd://10.0.0.1,: there is a host missing"),
            ("etcd://one:port", "etcd://one:port: \"port\" is no port"),
            ("etcd://one:0", "etcd://one:0: \"0\" is no port"),
            ("etcd://fd00::1", "etcd://fd00::1: write the IPv6 address fd00::1 in brackets"),
            ("etcd://[one]", "etcd://[one]: \"one\" is no IPv6 address"),
            ("etcd://[::1]2379", "etcd://[::1]2379: \"2379\" is no port"),
            ("etcd://@one", "etcd://@one: there is no user before the @"),
            ("etcd://one//x", "etcd://one//x: the prefix has an empty part or a control character"),
            (
                "etcd://me:secret@one",
                "a password in the store's address is for all to read, in ps and in the shell's history",
            ),
        ] {
            let error = text.parse::<Address>().unwrap_err();
            assert_eq!(error.message, reason);
            assert_eq!(error.kind.exit_code(), 2);
        }
    }

    #[test]
    fn names_are_those_of_the_hosts_file() {
        let hosts = "# 10.0.0.9 one\n10.0.0.1\tone.example ONE # two\nfe80::1%eth0 one\nfd00::3 three\n";
        let resolve = |text: &str| endpoint(text).resolve_by(|| hosts.into());
        assert_eq!(resolve("one"), Ok("10.0.0.1:2379".parse().unwrap()));
        assert_eq!(resolve("three:1"), Ok("[fd00::3]:1".parse().unwrap()));
        assert_eq!(resolve("localhost"), Ok("127.0.0.1:2379".parse().unwrap()));
        assert_eq!(resolve("[::1]"), Ok("[::1]:2379".parse().unwrap()));
        assert_eq!(resolve("two"), Err("two is not in /etc/hosts, and DNS is not asked: give its IP address".into()));
    }
}
