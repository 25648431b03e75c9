//! What a server granted: an address for a time, and the network's settings that came with it.

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr},
    str::FromStr,
};

use dhcproto::v6::{DhcpOption, DhcpOptions, IAAddr, IANA, OptionCode};
use serde::{Deserialize, Serialize};

use crate::{
    dhcp::{Term, options::domain},
    types::{HostAddress, as_text, digest, unhex},
};

/// By what clients and servers know one another (RFC 8415 section 11): up to 130 bytes, whose form is
/// nobody's business.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Duid(Vec<u8>);

impl Duid {
    const MOST: usize = 130;

    pub fn new(bytes: Vec<u8>) -> Option<Duid> {
        (1..=Duid::MOST).contains(&bytes.len()).then_some(Duid(bytes))
    }

    /// One that is always the same for the same text: of type 4, made of a UUID (RFC 6355).
    pub fn derived(text: &str) -> Duid {
        let uuid = unhex(&digest(&["plumb DUID", text])).unwrap_or_default();
        Duid([0, 4].into_iter().chain(uuid.into_iter().take(16)).collect())
    }

    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl FromStr for Duid {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        unhex(&text.replace(':', "")).and_then(Duid::new).ok_or_else(|| format!("{text:?} is no DUID"))
    }
}

impl fmt::Display for Duid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, byte) in self.0.iter().enumerate() {
            write!(f, "{}{byte:02x}", if at == 0 { "" } else { ":" })?;
        }
        Ok(())
    }
}

as_text!(Duid);

/// A lease whose every field can be used as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// Of prefix length 128: what else is on the link is told by its routers.
    pub address: HostAddress,
    pub server: Duid,
    /// Where the server's answer came from.
    pub from: Ipv6Addr,
    pub term: Term,
    pub dns: Vec<Ipv6Addr>,
    /// In which domains to look up short names.
    pub search: Vec<String>,
}

impl Lease {
    /// The lease of a message that names its server, or what is wrong with it. Of several addresses the
    /// first: one was asked for.
    pub(super) fn of(from: Ipv6Addr, server: Duid, binding: &IANA, options: &DhcpOptions) -> Result<Lease, String> {
        let is_one = |option: &&DhcpOption| matches!(option, DhcpOption::IAAddr(_));
        let Some(DhcpOption::IAAddr(granted)) = binding.opts.iter().find(is_one) else {
            return Err("it has no address".into());
        };
        let address = HostAddress::new(IpAddr::V6(granted.addr), 128)
            .map_err(|reason| format!("its address cannot be used: {reason}"))?;
        let dns = match options.get(OptionCode::DomainNameServers) {
            Some(DhcpOption::DomainNameServers(servers)) => servers.clone(),
            _ => Vec::new(),
        };
        let search = match options.get(OptionCode::DomainSearchList) {
            Some(DhcpOption::DomainSearchList(names)) => {
                names.iter().filter_map(|name| domain(&name.to_string())).collect()
            }
            _ => Vec::new(),
        };
        Ok(Lease { address, server, from, term: term(binding, granted)?, dns, search })
    }

    pub fn ip(&self) -> Ipv6Addr {
        match self.address.ip() {
            IpAddr::V6(ip) => ip,
            // No server's: they are sixteen bytes in a message.
            IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        }
    }
}

/// T1 and T2 of 0 leave the choice to the client, who takes half and four fifths of the preferred lifetime
/// (RFC 8415 section 21.4). A preferred lifetime above the valid one spoils the address, and T1 above T2
/// the whole (sections 21.4 and 21.6).
fn term(binding: &IANA, granted: &IAAddr) -> Result<Term, String> {
    let (preferred, valid) = (granted.preferred_life, granted.valid_life);
    if valid == 0 {
        return Err("its address is valid for 0 s".into());
    }
    if preferred > valid {
        return Err(format!("its address is preferred for {preferred} s and valid for {valid} s only"));
    }
    if binding.t1 > binding.t2 && binding.t2 > 0 {
        return Err(format!("it is to be renewed after {} s, and rebound after {} s already", binding.t1, binding.t2));
    }
    // An address that is preferred no more is renewed all the same.
    let base = if preferred == 0 { valid } else { preferred };
    let of_base = |share: f64| (f64::from(base) * share) as u32;
    let chosen = |time: u32, share: f64| if time == 0 { of_base(share) } else { time };
    let (t1, t2) = (chosen(binding.t1, 0.5), chosen(binding.t2, 0.8));
    Term::new(valid, Some(t1), Some(t2)).ok_or_else(|| "its address is valid for 0 s".into())
}
