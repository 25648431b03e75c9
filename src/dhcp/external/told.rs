//! What a client tells the program that it runs at an event, in variables of the environment that each
//! client names in its own way. Values are made the bytes that a packet would have, and then read as
//! one is: what is refused there is refused here.

use std::{collections::BTreeMap, net::Ipv4Addr};

use super::{Lease, OptionCode, Program};
use crate::{
    dhcp::{Loss, options::Options},
    types::unhex,
};

/// What has happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// The lease was granted, or confirmed.
    Granted(Box<Lease>),
    /// There is no lease any more. A client says so as well when it begins.
    Lost(Loss),
    /// Nothing that matters: that no server answers, who waits for a lease knows.
    Nothing,
}

const BETWEEN: char = '\0';

/// The event as one message: what the client was given to say which it is, and its variables.
pub fn tell(argument: &str, variables: impl Iterator<Item = (String, String)>) -> Vec<u8> {
    let mut text = argument.to_owned();
    for (name, value) in variables {
        text.push(BETWEEN);
        text += &format!("{name}={value}");
    }
    text.into_bytes()
}

impl Told {
    /// Reads such a message, or says what is wrong with it.
    pub fn read(program: Program, message: &[u8]) -> Result<Told, String> {
        let text = std::str::from_utf8(message).map_err(|_| format!("{program} tells what is no text"))?;
        let mut parts = text.split(BETWEEN);
        let argument = parts.next().unwrap_or_default();
        let variables: BTreeMap<&str, &str> = parts.filter_map(|part| part.split_once('=')).collect();
        let event = match program {
            Program::Udhcpc | Program::Busybox => argument,
            Program::Dhclient | Program::Dhcpcd => variables.get("reason").copied().unwrap_or_default(),
        };
        Ok(match event {
            "bound" | "renew" | "BOUND" | "RENEW" | "REBIND" | "REBOOT" => {
                let lease = lease(program, &variables);
                Told::Granted(lease.map_err(|reason| format!("what {program} says cannot be used: {reason}"))?.into())
            }
            "deconfig" | "EXPIRE" => Told::Lost(Loss::Expired),
            "nak" | "NAK" => Told::Lost(Loss::Refused),
            _ => Told::Nothing,
        })
    }
}

/// The variables of BusyBox's udhcpc that are options.
const UDHCPC: [(&str, OptionCode); 13] = [
    ("subnet", OptionCode::SUBNET_MASK),
    ("router", OptionCode::ROUTERS),
    ("dns", OptionCode::DNS_SERVERS),
    ("hostname", OptionCode::HOSTNAME),
    ("domain", OptionCode::DOMAIN),
    ("mtu", OptionCode::MTU),
    ("ntpsrv", OptionCode::NTP_SERVERS),
    ("lease", OptionCode::LEASE_TIME),
    ("serverid", OptionCode::SERVER_ID),
    ("tftp", OptionCode::TFTP_SERVER),
    ("bootfile", OptionCode::BOOTFILE),
    ("search", OptionCode::SEARCH_LIST),
    ("staticroutes", OptionCode::CLASSLESS_ROUTES),
];

/// Those of dhclient and dhcpcd, behind `new_`.
const NEW: [(&str, OptionCode); 17] = [
    ("subnet_mask", OptionCode::SUBNET_MASK),
    ("routers", OptionCode::ROUTERS),
    ("domain_name_servers", OptionCode::DNS_SERVERS),
    ("host_name", OptionCode::HOSTNAME),
    ("domain_name", OptionCode::DOMAIN),
    ("interface_mtu", OptionCode::MTU),
    ("ntp_servers", OptionCode::NTP_SERVERS),
    ("broadcast_address", OptionCode::BROADCAST),
    ("dhcp_lease_time", OptionCode::LEASE_TIME),
    ("dhcp_server_identifier", OptionCode::SERVER_ID),
    ("dhcp_renewal_time", OptionCode::T1),
    ("dhcp_rebinding_time", OptionCode::T2),
    ("tftp_server_name", OptionCode::TFTP_SERVER),
    ("bootfile_name", OptionCode::BOOTFILE),
    ("domain_search", OptionCode::SEARCH_LIST),
    ("classless_static_routes", OptionCode::CLASSLESS_ROUTES),
    ("rfc3442_classless_static_routes", OptionCode::CLASSLESS_ROUTES),
];

fn lease(program: Program, variables: &BTreeMap<&str, &str>) -> Result<Lease, String> {
    let is_udhcpc = matches!(program, Program::Udhcpc | Program::Busybox);
    let (table, prefix, address) = match is_udhcpc {
        true => (UDHCPC.as_slice(), "", "ip"),
        false => (NEW.as_slice(), "new_", "new_ip_address"),
    };
    let address = variables.get(address).ok_or("it tells no address")?;
    let address: Ipv4Addr = address.parse().map_err(|_| format!("{address:?} is no address"))?;
    let mut options = Vec::new();
    for (name, value) in variables {
        let Some(name) = name.strip_prefix(prefix) else { continue };
        if let Some((_, code)) = table.iter().find(|(known, _)| *known == name) {
            let bytes = bytes_of(*code, value).ok_or_else(|| format!("{name} is {value:?}"))?;
            options.push((*code, bytes));
        } else if let Some((code, bytes)) = unnamed(name, value) {
            options.push((code, bytes));
        }
    }
    Lease::of(address, &options.into_iter().collect::<Options>())
}

/// An option without a name of its own: `opt43=0102` of udhcpc, `plumb_43=1:2` of dhclient, which
/// shows as text what can be shown so.
fn unnamed(name: &str, value: &str) -> Option<(OptionCode, Vec<u8>)> {
    if let Some(number) = name.strip_prefix("opt") {
        return Some((OptionCode::new(number.parse().ok()?)?, unhex(value)?));
    }
    let code = OptionCode::new(name.strip_prefix("plumb_")?.parse().ok()?)?;
    let bytes: Option<Vec<u8>> = value.split(':').map(|digits| u8::from_str_radix(digits, 16).ok()).collect();
    Some((code, bytes.unwrap_or_else(|| value.as_bytes().to_vec())))
}

/// The bytes that the option would have in a packet.
fn bytes_of(code: OptionCode, value: &str) -> Option<Vec<u8>> {
    let words = value.split_whitespace();
    Some(match code {
        OptionCode::SUBNET_MASK
        | OptionCode::ROUTERS
        | OptionCode::DNS_SERVERS
        | OptionCode::NTP_SERVERS
        | OptionCode::BROADCAST
        | OptionCode::SERVER_ID => words.map(quad).collect::<Option<Vec<_>>>()?.concat(),
        OptionCode::MTU => value.parse::<u16>().ok()?.to_be_bytes().into(),
        OptionCode::LEASE_TIME | OptionCode::T1 | OptionCode::T2 => value.parse::<u32>().ok()?.to_be_bytes().into(),
        OptionCode::SEARCH_LIST => words.map(labels).collect::<Option<Vec<_>>>()?.concat(),
        OptionCode::CLASSLESS_ROUTES if value.contains('/') => {
            let words: Vec<&str> = words.collect();
            let (pairs, rest) = words.as_chunks::<2>();
            let routes = pairs.iter().map(route).collect::<Option<Vec<_>>>()?;
            rest.is_empty().then(|| routes.concat())?
        }
        OptionCode::CLASSLESS_ROUTES => words.map(|word| word.parse::<u8>().ok()).collect::<Option<_>>()?,
        _ => value.as_bytes().to_vec(),
    })
}

fn quad(text: &str) -> Option<[u8; 4]> {
    text.parse::<Ipv4Addr>().ok().map(|ip| ip.octets())
}

/// A domain as RFC 1035 section 3.1 writes it.
fn labels(domain: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    for label in domain.trim_end_matches('.').split('.') {
        bytes.push(u8::try_from(label.len()).ok().filter(|length| (1..64).contains(length))?);
        bytes.extend_from_slice(label.as_bytes());
    }
    bytes.push(0);
    Some(bytes)
}

/// `10.0.0.0/8` and its router as RFC 3442 writes them.
fn route([destination, router]: &[&str; 2]) -> Option<Vec<u8>> {
    let (network, prefix) = destination.split_once('/')?;
    let prefix = prefix.parse::<u8>().ok().filter(|prefix| *prefix <= 32)?;
    let significant = usize::from(prefix).div_ceil(8);
    Some([[prefix].as_slice(), quad(network)?.get(..significant)?, &quad(router)?].concat())
}
