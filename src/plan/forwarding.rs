//! What makes a gateway of a host: it masquerades, and forwards.

use serde::{Deserialize, Serialize};

use super::{Facts, Link, Step, Wish};
use crate::{
    error::{Error, Result},
    types::{IfName, Subnet},
};

/// Masquerading for one subnet behind a gateway: what comes from there and leaves by another
/// interface gets the address of that one. What stays behind the gateway keeps its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Masquerade {
    /// The gateway's interface, which leads to the subnet.
    pub interface: IfName,
    pub subnet: Subnet,
}

impl Masquerade {
    /// The one chain of the table.
    pub const CHAIN: &str = "postrouting";

    /// The nftables family of the table.
    pub fn family(&self) -> &'static str {
        if self.subnet.is_ipv6() { "ip6" } else { "ip" }
    }

    /// A table of its own, so that it goes as a whole and nobody else's rules are touched, with a
    /// name that says whose it is.
    pub fn table(&self) -> String {
        format!("plumb-{}", self.interface)
    }
}

/// A family has one table, and that has one rule.
pub(super) fn check(wish: &Wish) -> Result<()> {
    let subnets = wish.forwarding.as_ref().map_or(&[][..], |forwarding| &forwarding.masquerade);
    for (at, subnet) in subnets.iter().enumerate() {
        if let Some(other) = subnets[..at].iter().find(|other| other.is_ipv6() == subnet.is_ipv6()) {
            return Err(Error::usage(format!(
                "subnets {other} and {subnet} are of one IP version; a gateway masquerades for one of each"
            )));
        }
    }
    Ok(())
}

/// The step that keeps the gateway's parent, which is in the same namespace, from answering for the
/// gateway's address as well. By default Linux answers ARP requests for any of its addresses on any
/// interface that hears them; packets then arrive by the parent, where strict `rp_filter` drops them
/// and no rule for the gateway's interface sees them. IPv6 has the matter right.
pub(super) fn keep_parent_quiet(wish: &Wish, link: &Link, facts: &Facts) -> Option<Step> {
    let now = &facts.forwarding.as_ref().filter(|_| forwards_ipv4(wish))?.arp_ignore;
    // Other values are stricter still.
    (now == "0").then(|| Step::SetSysctl { key: arp_ignore(&link.parent.name), from: now.clone(), to: "1".into() })
}

/// The setting by which an interface answers for its own addresses only (1) or for all (0).
pub(super) fn arp_ignore(interface: &IfName) -> String {
    format!("net/ipv4/conf/{interface}/arp_ignore")
}

/// The step that lets a host's interface beside its containers' answer only whom the host reaches by it. By
/// default it would answer the whole LAN for the parent's address as well.
pub(super) fn answer_only_whom_it_reaches(wish: &Wish, link: &Link, facts: &Facts) -> Option<Step> {
    let is_shim = facts.is_host && wish.forwarding.is_none() && !link.driver.is_routed_by_the_host();
    let key = format!("net/ipv4/conf/{}/arp_filter", link.name);
    is_shim.then(|| Step::SetSysctl { key, from: "0".into(), to: "1".into() })
}

fn forwards_ipv4(wish: &Wish) -> bool {
    wish.forwarding.is_some() && wish.addresses.iter().any(|address| !address.is_ipv6())
}

/// The steps that let the target forward for those behind `link`, which has its addresses by then.
pub(super) fn steps(wish: &Wish, link: &Link, facts: &Facts, warnings: &mut Vec<String>) -> Vec<Step> {
    let Some(forwarding) = &wish.forwarding else { return Vec::new() };
    // Before anything is forwarded: no packet leaves with an address that is unknown outside.
    let masquerade = |subnet: &Subnet| Masquerade { interface: link.name.clone(), subnet: *subnet };
    let mut steps: Vec<Step> = forwarding.masquerade.iter().map(masquerade).map(Step::AddMasquerade).collect();
    let Some(now) = facts.forwarding.as_ref().filter(|_| forwards_ipv4(wish)) else { return steps };
    if !now.on {
        // What these do comes when they are taken back: see `Ipv4Forwarding::overridden`.
        let keep = |(key, value): &(String, String)| Step::SetSysctl {
            key: key.clone(),
            from: value.clone(),
            to: value.clone(),
        };
        steps.extend(now.overridden.iter().map(keep));
        steps.push(Step::SetSysctl { key: "net/ipv4/ip_forward".into(), from: "0".into(), to: "1".into() });
    }
    if let Some(chain) = now.accept_in {
        let name = &link.name;
        warnings.push(format!(
            "iptables drops what is forwarded here unless a rule accepts it (policy DROP of FORWARD; Docker sets it). \
             For {name}: iptables -I {chain} -i {name} -j ACCEPT; iptables -I {chain} -o {name} -j ACCEPT"
        ));
    }
    steps
}
