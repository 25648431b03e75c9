//! What a server granted: an address for a time, and the network's settings that came with it.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use ipnetwork::{IpNetwork, Ipv4Network};
use serde::{Deserialize, Serialize};

use super::options::{OptionCode, Options, domain};
use crate::types::{Gateway, HostAddress, Mtu, RouteSpec, hex};

/// A lease whose every field can be used as it is. What a server said that cannot be is not here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    pub address: HostAddress,
    /// Option 54: the server that granted it.
    pub server: Ipv4Addr,
    pub term: Term,
    /// The default routers, the best first: of option 121 where there is one, of option 3 otherwise.
    /// One that is not in the address's subnet is on the link all the same, see [`Lease::is_off_link`].
    pub routers: Vec<Gateway>,
    /// The routes of option 121 other than default ones (RFC 3442).
    pub routes: Vec<RouteSpec>,
    pub dns: Vec<Ipv4Addr>,
    /// The domain that the client is in.
    pub domain: Option<String>,
    /// In which domains to look up short names: option 119, or those of option 15.
    pub search: Vec<String>,
    pub hostname: Option<String>,
    pub mtu: Option<Mtu>,
    pub ntp: Vec<Ipv4Addr>,
    pub tftp_server: Option<String>,
    pub bootfile: Option<String>,
    /// All other options by code, their bytes in hexadecimal, for `--request`.
    pub others: BTreeMap<OptionCode, String>,
}

/// For how long a lease is good, counted from when it was asked for (RFC 2131 section 4.4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Term {
    /// 0xffffffff seconds mean for ever (RFC 2131 section 3.3): nothing needs to be renewed.
    Infinite,
    /// 0 < `renew` (T1) < `rebind` (T2) < `expire`.
    Finite { renew: Duration, rebind: Duration, expire: Duration },
}

impl Term {
    /// From what options 51, 58 and 59 say. T1 and T2 in an order that makes no sense are as good as
    /// absent: they are then 1/2 and 7/8 of the lease (RFC 2131 section 4.4.5). A lease of no time is none.
    pub(super) fn new(lease_s: u32, t1_s: Option<u32>, t2_s: Option<u32>) -> Option<Term> {
        let seconds = |count: u32| Duration::from_secs(count.into());
        let expire = match lease_s {
            0 => return None,
            u32::MAX => return Some(Term::Infinite),
            count => seconds(count),
        };
        let within = |limit: Duration| move |time: &Duration| !time.is_zero() && *time < limit;
        let rebind = t2_s.map(seconds).filter(within(expire)).unwrap_or(expire * 7 / 8);
        // With the usual T2 this is half of the lease, and always before T2.
        let renew = t1_s.map(seconds).filter(within(rebind)).unwrap_or((expire / 2).min(rebind * 4 / 7));
        Some(Term::Finite { renew, rebind, expire })
    }

    /// How long the lease is good for, `None` for ever.
    pub fn expire(&self) -> Option<Duration> {
        match self {
            Term::Infinite => None,
            Term::Finite { expire, .. } => Some(*expire),
        }
    }
}

impl Lease {
    /// The lease that a message with this address and these options grants, or what is wrong with it.
    pub(super) fn of(address: Ipv4Addr, options: &Options) -> Result<Lease, String> {
        let server = options.address(OptionCode::SERVER_ID).ok_or("it does not name its server (option 54)")?;
        Gateway::try_from(IpAddr::from(server)).map_err(|reason| format!("it names no server: {reason}"))?;
        let time = options.number32(OptionCode::LEASE_TIME).ok_or("it has no lease time (option 51)")?;
        let term = Term::new(time, options.number32(OptionCode::T1), options.number32(OptionCode::T2))
            .ok_or("its lease time is 0 s")?;
        let address = host_address(address, options)?;
        let (routers, routes) = match classless_routes(options) {
            Some(both) => both,
            None => (options.addresses(OptionCode::ROUTERS), Vec::new()),
        };
        let usable = |ip: Ipv4Addr| Gateway::try_from(IpAddr::from(ip)).ok().filter(|via| is_router_for(*via, address));
        let domains = domains(options);
        let search = options.domains(OptionCode::SEARCH_LIST);
        Ok(Lease {
            address,
            server,
            term,
            routers: routers.into_iter().filter_map(usable).collect(),
            routes,
            dns: options.addresses(OptionCode::DNS_SERVERS),
            domain: domains.first().cloned(),
            search: if search.is_empty() { domains } else { search },
            hostname: options.text(OptionCode::HOSTNAME).as_deref().and_then(domain),
            mtu: options.number16(OptionCode::MTU).and_then(|bytes| Mtu::try_from(u32::from(bytes)).ok()),
            ntp: options.addresses(OptionCode::NTP_SERVERS),
            tftp_server: options.text(OptionCode::TFTP_SERVER),
            bootfile: options.text(OptionCode::BOOTFILE),
            others: others(options),
        })
    }

    pub fn ip(&self) -> Ipv4Addr {
        match self.address.ip() {
            IpAddr::V4(ip) => ip,
            // No server's: they are four bytes in a packet.
            IpAddr::V6(_) => Ipv4Addr::UNSPECIFIED,
        }
    }

    /// Whether a router is not in the address's subnet. It is then reached on the link itself: a mask
    /// that excludes the router, down to /32, is how hosting providers keep their customers' hosts
    /// apart, and dhclient-script, dhcpcd and systemd-networkd all go there directly.
    pub fn is_off_link(&self, router: Gateway) -> bool {
        !self.address.reaches(router.ip())
    }
}

/// The address with the mask of option 1. Without one it is that of the address's class, as dhclient,
/// dhcpcd, udhcpc and systemd-networkd do it; a mask with holes, or one that makes the whole Internet
/// local, is refused.
fn host_address(ip: Ipv4Addr, options: &Options) -> Result<HostAddress, String> {
    let prefix = match options.bytes(OptionCode::SUBNET_MASK) {
        None => class_prefix(ip),
        Some(bytes) => {
            let mask: [u8; 4] = bytes.try_into().map_err(|_| "its mask (option 1) is not four bytes long")?;
            ipnetwork::ipv4_mask_to_prefix(mask.into()).map_err(|_| "its mask (option 1) has holes")?
        }
    };
    HostAddress::new(ip.into(), prefix).map_err(|reason| format!("its address cannot be used: {reason}"))
}

/// RFC 791 section 3.2: classes A, B and C.
fn class_prefix(ip: Ipv4Addr) -> u8 {
    match ip.octets()[0] {
        0..128 => 8,
        128..192 => 16,
        _ => 24,
    }
}

/// Neither the subnet's own address nor its broadcast address, nor the client itself.
fn is_router_for(router: Gateway, address: HostAddress) -> bool {
    router.ip() != address.ip() && (!address.reaches(router.ip()) || router.unfit_for(address).is_none())
}

/// Option 121 as default routers and other routes; `None` where it is absent, empty or malformed, and
/// option 3 then counts. Bits behind a destination's prefix are zeroed, and the router 0.0.0.0
/// says that the destination is on the link (RFC 3442). A *default* route on the link is left out:
/// the client would ask for every address of the Internet there.
fn classless_routes(options: &Options) -> Option<(Vec<Ipv4Addr>, Vec<RouteSpec>)> {
    let mut rest = options.bytes(OptionCode::CLASSLESS_ROUTES).filter(|bytes| !bytes.is_empty())?;
    let (mut routers, mut routes) = (Vec::new(), Vec::new());
    while let Some((&prefix, behind)) = rest.split_first() {
        let significant = usize::from(prefix).div_ceil(8);
        let mut destination = [0; 4];
        destination.get_mut(..significant)?.copy_from_slice(behind.get(..significant)?);
        let router: [u8; 4] = behind.get(significant..significant + 4)?.try_into().ok()?;
        rest = behind.get(significant + 4..)?;
        let router = Ipv4Addr::from(router);
        let network = Ipv4Network::new(destination.into(), prefix).ok()?;
        let network = IpNetwork::V4(Ipv4Network::new(network.network(), prefix).ok()?);
        match Gateway::try_from(IpAddr::from(router)) {
            Ok(_) if prefix == 0 => routers.push(router),
            Ok(via) => routes.push(RouteSpec { destination: network, via: Some(via), metric: None }),
            Err(_) if router.is_unspecified() && prefix > 0 => {
                routes.push(RouteSpec { destination: network, via: None, metric: None });
            }
            Err(_) => {}
        }
    }
    Some((routers, routes))
}

/// The domains of option 15. It is meant for one, but servers without option 119 put several there,
/// and clients have learnt to take them apart.
fn domains(options: &Options) -> Vec<String> {
    let text = options.text(OptionCode::DOMAIN).unwrap_or_default();
    text.split([' ', ',']).filter_map(domain).collect()
}

fn others(options: &Options) -> BTreeMap<OptionCode, String> {
    const UNDERSTOOD: [OptionCode; 19] = [
        OptionCode::SUBNET_MASK,
        OptionCode::ROUTERS,
        OptionCode::DNS_SERVERS,
        OptionCode::HOSTNAME,
        OptionCode::DOMAIN,
        OptionCode::MTU,
        OptionCode::NTP_SERVERS,
        OptionCode::LEASE_TIME,
        OptionCode::OVERLOAD,
        OptionCode::MESSAGE_TYPE,
        OptionCode::SERVER_ID,
        OptionCode::MESSAGE,
        OptionCode::T1,
        OptionCode::T2,
        OptionCode::CLIENT_ID,
        OptionCode::TFTP_SERVER,
        OptionCode::BOOTFILE,
        OptionCode::SEARCH_LIST,
        OptionCode::CLASSLESS_ROUTES,
    ];
    options.iter().filter(|(code, _)| !UNDERSTOOD.contains(code)).map(|(code, value)| (code, hex(value))).collect()
}
