//! What a bridge passes on, iptables may drop: where, and the rule that accepts it.

use crate::{
    plan::render::quote,
    types::{IfName, StoreMark},
};

/// The policy of FORWARD is to drop, and the kernel shows it what bridges pass on (`bridge-nf-call-iptables`).
/// Docker sets both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dropping {
    pub ipv6: bool,
    pub by: Iptables,
}

/// Where iptables has its rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Iptables {
    /// In nftables, as on all distributions of today; with the chain in which others put their rules.
    Nftables { chain: &'static str },
    /// Where netlink does not lead to.
    Legacy,
}

impl Dropping {
    /// The command that accepts what the bridge passes on.
    pub fn remedy(&self, bridge: &IfName) -> String {
        let (program, bridge) = (if self.ipv6 { "ip6tables" } else { "iptables" }, quote(bridge.as_str()));
        let (program, chain) = match self.by {
            Iptables::Nftables { chain } => (program.to_owned(), chain),
            Iptables::Legacy => (format!("{program}-legacy"), "FORWARD"),
        };
        format!("{program} -I {chain} -i {bridge} -o {bridge} -j ACCEPT")
    }
}

/// A rule of plumb's that accepts what one bridge passes on. All that need it share it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acceptance {
    pub bridge: IfName,
    pub ipv6: bool,
    pub chain: &'static str,
    /// Whose it is.
    pub store: StoreMark,
}

impl Acceptance {
    /// By which plumb knows it again: `plumb:STORE:BRIDGE`.
    pub fn comment(&self) -> String {
        format!("{}{}", Acceptance::comments(&self.store), self.bridge)
    }

    /// How all of a store's begin.
    pub fn comments(store: &StoreMark) -> String {
        format!("plumb:{store}:")
    }

    /// The command that adds it. By nft, as iptables has another place for comments.
    pub fn command(&self) -> String {
        let (family, chain, bridge, comment) = (family(self.ipv6), self.chain, &self.bridge, self.comment());
        let rule = format!("iifname \"{bridge}\" oifname \"{bridge}\" counter accept comment \"{comment}\"");
        format!("nft {}", quote(&format!("insert rule {family} filter {chain} {rule}")))
    }
}

/// Such a rule as it is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted {
    pub bridge: IfName,
    pub ipv6: bool,
    pub chain: &'static str,
    /// By which the kernel tells it from all others of its table.
    pub handle: u64,
}

impl Accepted {
    /// The command that deletes it.
    pub fn deletion(&self) -> String {
        format!("nft delete rule {} filter {} handle {}", family(self.ipv6), self.chain, self.handle)
    }
}

/// As nft names it.
fn family(ipv6: bool) -> &'static str {
    if ipv6 { "ip6" } else { "ip" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_rules_has_its_own_remedy() {
        let remedy = |ipv6, by| Dropping { ipv6, by }.remedy(&"br0".parse().unwrap());
        let docker = Iptables::Nftables { chain: "DOCKER-USER" };
        assert_eq!(remedy(false, docker), "iptables -I DOCKER-USER -i br0 -o br0 -j ACCEPT");
        assert_eq!(remedy(true, docker), "ip6tables -I DOCKER-USER -i br0 -o br0 -j ACCEPT");
        assert_eq!(remedy(false, Iptables::Legacy), "iptables-legacy -I FORWARD -i br0 -o br0 -j ACCEPT");
        assert_eq!(remedy(true, Iptables::Legacy), "ip6tables-legacy -I FORWARD -i br0 -o br0 -j ACCEPT");
    }
}
