//! The messages of RFC 2131: what a client sends (table 5), and what it takes from a server (table 3).

use std::{fmt, net::Ipv4Addr, str::FromStr};

use dhcproto::v4::{self, DhcpOption, Encodable, Flags, MessageType, UnknownOption};
use serde::{Deserialize, Serialize};

use super::{
    Lease,
    options::{HEADER, OptionCode, OptionSpec, Options, domain},
};
use crate::types::{Mac, as_text, digest, unhex};

/// Who asks, and for what: the same in each of a client's messages.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Client {
    /// Of the interface that shall have the address: the server is told it in renewals too, whoever
    /// sends them.
    pub mac: Mac,
    /// Without one the server knows the client by its MAC address. An ipvlan needs one: it has its
    /// parent's address, as have all its siblings.
    pub id: Option<ClientId>,
    /// Asks the server to broadcast its answers. An ipvlan needs that: it is told apart by its IP
    /// address, which it has not got yet.
    pub broadcast: bool,
    /// What to ask for besides what plumb understands.
    pub request: Vec<OptionCode>,
    /// What to tell the server: host name, vendor class and the like.
    pub options: Vec<OptionSpec>,
}

impl Client {
    /// A client that says no more about itself than its MAC address.
    pub fn new(mac: Mac) -> Client {
        Client { mac, id: None, broadcast: false, request: Vec::new(), options: Vec::new() }
    }
}

/// What a server knows a client by: a type and an identifier (RFC 2132 section 9.14).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientId(Vec<u8>);

impl ClientId {
    /// An identifier that is always the same for the same parts, in the form of RFC 4361: type 255, an
    /// interface's number (one client, one interface: 0), and a DUID made of a UUID (RFC 6355).
    pub fn derived(parts: &[&str]) -> ClientId {
        const FORM: [u8; 7] = [255, 0, 0, 0, 0, 0, 4];
        let mut uuid = unhex(&digest(parts)).unwrap_or_default();
        // RFC 9562 section 5.8: version 8, made by somebody's own rule; variant 10.
        for (at, keep, set) in [(6, 0x0f, 0x80), (8, 0x3f, 0x80)] {
            if let Some(byte) = uuid.get_mut(at) {
                *byte = *byte & keep | set;
            }
        }
        ClientId([FORM.as_slice(), &uuid].concat())
    }

    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl FromStr for ClientId {
    type Err = String;

    /// `01:02:42:ac:11:00:02` is meant byte by byte. Anything else is a name, and gets type 0 (not a
    /// hardware address).
    fn from_str(text: &str) -> Result<Self, String> {
        let pairs: Option<Vec<u8>> = text
            .split(':')
            .map(|pair| unhex(pair).and_then(|byte| <[u8; 1]>::try_from(byte).ok()).map(|[byte]| byte))
            .collect();
        let bytes = match pairs {
            Some(bytes) if bytes.len() > 1 => bytes,
            _ => [b"\0", text.as_bytes()].concat(),
        };
        match bytes.len() {
            0..2 => Err("a client identifier cannot be empty".into()),
            2..=255 => Ok(ClientId(bytes)),
            long => Err(format!("a client identifier of {long} bytes is too long; 255 fit")),
        }
    }
}

impl fmt::Display for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, byte) in self.0.iter().enumerate() {
            write!(f, "{}{byte:02x}", if at == 0 { "" } else { ":" })?;
        }
        Ok(())
    }
}

as_text!(ClientId);

impl OptionSpec {
    fn to_send(&self) -> DhcpOption {
        DhcpOption::Unknown(UnknownOption::new(self.code.number().into(), self.value.clone()))
    }

    /// Option 12: the name that the server may enter into the DNS.
    pub fn hostname(name: &str) -> Result<OptionSpec, String> {
        match domain(name) {
            Some(name) => Ok(OptionSpec { code: OptionCode::HOSTNAME, value: name.into() }),
            None => Err(format!("{name:?} is no host name: letters, digits and hyphens, 63 at most between dots")),
        }
    }

    /// Option 60.
    pub fn vendor_class(class: &str) -> Result<OptionSpec, String> {
        match class.len() {
            1..=255 => Ok(OptionSpec { code: OptionCode::VENDOR_CLASS, value: class.into() }),
            0 => Err("a vendor class cannot be empty".into()),
            long => Err(format!("a vendor class of {long} bytes is too long; 255 fit")),
        }
    }
}

/// What a client says to servers. The four kinds of DHCPREQUEST differ in which of the server, the
/// requested address and the own address they carry (RFC 2131 section 4.3.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Say {
    Discover {
        prefer: Option<Ipv4Addr>,
    },
    /// A request in state SELECTING: this offer is taken, all others are not.
    Select {
        address: Ipv4Addr,
        server: Ipv4Addr,
    },
    /// A request in state INIT-REBOOT: is this address still right?
    Reboot {
        address: Ipv4Addr,
    },
    /// A request in states RENEWING and REBINDING, which differ in who it is sent to.
    Renew {
        address: Ipv4Addr,
    },
    Decline {
        address: Ipv4Addr,
        server: Ipv4Addr,
    },
    Release {
        address: Ipv4Addr,
        server: Ipv4Addr,
    },
}

/// What a client of ours understands, and so asks for. Routes before routers, as RFC 3442 demands.
const REQUEST: [OptionCode; 15] = [
    OptionCode::SUBNET_MASK,
    OptionCode::CLASSLESS_ROUTES,
    OptionCode::ROUTERS,
    OptionCode::DNS_SERVERS,
    OptionCode::HOSTNAME,
    OptionCode::DOMAIN,
    OptionCode::MTU,
    OptionCode::NTP_SERVERS,
    OptionCode::LEASE_TIME,
    OptionCode::SERVER_ID,
    OptionCode::T1,
    OptionCode::T2,
    OptionCode::TFTP_SERVER,
    OptionCode::BOOTFILE,
    OptionCode::SEARCH_LIST,
];

/// What fits into one Ethernet frame beside the headers of IP and UDP.
const MAX_SIZE: u16 = 1472;
/// Relays and servers that expect BOOTP drop what is shorter (RFC 1542 section 2.1).
const MIN_SIZE: usize = v4::MIN_PACKET_SIZE;

impl Client {
    /// The message's bytes, table 5 of RFC 2131. `secs` is for how long the client has been asking.
    pub(super) fn message(&self, say: Say, xid: u32, secs: u16) -> Vec<u8> {
        let mut message = v4::Message::new_with_id(
            xid,
            Ipv4Addr::UNSPECIFIED,
            Ipv4Addr::UNSPECIFIED,
            Ipv4Addr::UNSPECIFIED,
            Ipv4Addr::UNSPECIFIED,
            &self.mac.bytes(),
        );
        let (kind, own, requested, server) = match say {
            Say::Discover { prefer } => (MessageType::Discover, None, prefer, None),
            Say::Select { address, server } => (MessageType::Request, None, Some(address), Some(server)),
            Say::Reboot { address } => (MessageType::Request, None, Some(address), None),
            Say::Renew { address } => (MessageType::Request, Some(address), None, None),
            Say::Decline { address, server } => (MessageType::Decline, None, Some(address), Some(server)),
            Say::Release { address, server } => (MessageType::Release, Some(address), None, Some(server)),
        };
        let asks = matches!(kind, MessageType::Discover | MessageType::Request);
        message.set_ciaddr(own.unwrap_or(Ipv4Addr::UNSPECIFIED));
        if asks {
            message.set_secs(secs);
        }
        if asks && self.broadcast {
            message.set_flags(Flags::default().set_broadcast());
        }
        let mut options = vec![DhcpOption::MessageType(kind)];
        options.extend(requested.map(DhcpOption::RequestedIpAddress));
        options.extend(server.map(DhcpOption::ServerIdentifier));
        options.extend(self.id.as_ref().map(|id| DhcpOption::ClientIdentifier(id.bytes().to_vec())));
        if asks {
            options.push(DhcpOption::MaxMessageSize(MAX_SIZE));
            options.push(DhcpOption::ParameterRequestList(self.request_list()));
            options.extend(self.options.iter().map(OptionSpec::to_send));
        }
        message.set_opts(options.into_iter().collect());
        // Writing to memory does not fail.
        let mut bytes = message.to_vec().unwrap_or_default();
        bytes.resize(bytes.len().max(MIN_SIZE), 0);
        bytes
    }

    fn request_list(&self) -> Vec<v4::OptionCode> {
        self.wanted().into_iter().map(|code| code.number().into()).collect()
    }

    /// What it asks servers for.
    pub(super) fn wanted(&self) -> Vec<OptionCode> {
        let mut list: Vec<OptionCode> = Vec::new();
        for code in REQUEST.iter().chain(&self.request) {
            if !list.contains(code) {
                list.push(*code);
            }
        }
        list
    }
}

/// What a server says to a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    Offer(Lease),
    Ack(Lease),
    /// No: the address is wrong on this network, or the server has forgotten the lease.
    Nak {
        server: Ipv4Addr,
        why: Option<String>,
    },
}

/// Why a packet is not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unfit {
    /// It is no reply to us: another's, an earlier one, a request, no DHCP at all.
    Foreign,
    /// It is a reply to us, and what it says cannot be used.
    Unusable(String),
}

impl Reply {
    /// Reads a reply to the client with this MAC address in the exchange `xid`. What has a length of
    /// its own is looked at only once that length is known to be right.
    pub fn read(message: &[u8], xid: u32, mac: Mac) -> Result<Reply, Unfit> {
        const BOOTREPLY: u8 = 2;
        const ETHERNET: u8 = 1;
        let header: &[u8; HEADER] = message.first_chunk().ok_or(Unfit::Foreign)?;
        let is_ours = header[..3] == [BOOTREPLY, ETHERNET, 6]
            && header[4..8] == xid.to_be_bytes()
            && header[28..34] == mac.bytes()
            && header[236..] == v4::MAGIC;
        if !is_ours {
            return Err(Unfit::Foreign);
        }
        let [.., a, b, c, d] = header[..20] else { return Err(Unfit::Foreign) };
        let yours = Ipv4Addr::new(a, b, c, d);
        let unusable = |reason: &str| Unfit::Unusable(format!("a reply cannot be used: {reason}"));
        let options = Options::of(message).map_err(unusable)?;
        let lease = |what: &str| {
            Lease::of(yours, &options)
                .map_err(|reason| Unfit::Unusable(format!("{what} of {yours} cannot be used: {reason}")))
        };
        match options.bytes(OptionCode::MESSAGE_TYPE) {
            Some([kind]) => match MessageType::from(*kind) {
                MessageType::Offer => Ok(Reply::Offer(lease("an offer")?)),
                MessageType::Ack => Ok(Reply::Ack(lease("a confirmation")?)),
                MessageType::Nak => {
                    let server = options.address(OptionCode::SERVER_ID);
                    let server = server.ok_or_else(|| unusable("a refusal that does not name its server"))?;
                    Ok(Reply::Nak { server, why: options.text(OptionCode::MESSAGE) })
                }
                // Requests, and the replies of protocols that we do not speak (RFC 4388).
                _ => Err(Unfit::Foreign),
            },
            _ => Err(unusable("it does not say which kind of message it is (option 53)")),
        }
    }
}

#[cfg(test)]
mod tests;
