//! The messages of RFC 8415: what a client says (section 18.2), and what it takes from a server.

use std::net::Ipv6Addr;

use dhcproto::v6::{
    Decodable, Decoder, DhcpOption, DhcpOptions, Encodable, IAAddr, IANA, Message, MessageType, ORO, OptionCode, Status,
};

use super::{Duid, Lease};
use crate::dhcp::{ClientId, options::printable};

/// Who asks: the same in each of a client's messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Client {
    pub duid: Duid,
    /// Tells the addresses of one client apart; ours have one each.
    pub iaid: u32,
}

impl Client {
    /// As whom a client of DHCP for IPv4 asks for an IPv6 address.
    pub fn beside(client: &crate::dhcp::Client) -> Client {
        match &client.id {
            Some(id) => Client::of(id),
            None => Client::of(&ClientId::derived(&["plumb dhcp", &client.mac.to_string()])),
        }
    }

    /// The one that DHCP for IPv4 knows by `id`: the two protocols share identifiers (RFC 4361). One that is
    /// not of that form gets a DUID of its own, always the same.
    pub fn of(id: &ClientId) -> Client {
        if let [255, a, b, c, d, duid @ ..] = id.bytes()
            && let Some(duid) = Duid::new(duid.to_vec())
        {
            return Client { duid, iaid: u32::from_be_bytes([*a, *b, *c, *d]) };
        }
        Client { duid: Duid::derived(&id.to_string()), iaid: 0 }
    }

    /// A message of this client about this address, to this server or to any.
    pub(super) fn say(
        &self,
        kind: MessageType,
        xid: [u8; 3],
        hundredths: u16,
        server: Option<&Duid>,
        address: Option<Ipv6Addr>,
    ) -> Vec<u8> {
        let mut binding = IANA { id: self.iaid, t1: 0, t2: 0, opts: DhcpOptions::new() };
        // What was had or offered; for how long it is good the server decides.
        if let Some(addr) = address {
            let opts = DhcpOptions::new();
            binding.opts.insert(DhcpOption::IAAddr(IAAddr { addr, preferred_life: 0, valid_life: 0, opts }));
        }
        let mut message = Message::new_with_id(kind, xid);
        let options = message.opts_mut();
        options.insert(DhcpOption::ClientId(self.duid.bytes().to_vec()));
        if let Some(server) = server {
            options.insert(DhcpOption::ServerId(server.bytes().to_vec()));
        }
        options.insert(DhcpOption::IANA(binding));
        options.insert(DhcpOption::ElapsedTime(hundredths));
        if !matches!(kind, MessageType::Release | MessageType::Decline) {
            // A client that solicits has to ask for the last one (section 21.7).
            let wanted = vec![OptionCode::DomainNameServers, OptionCode::DomainSearchList, OptionCode::SolMaxRt];
            options.insert(DhcpOption::ORO(ORO { opts: wanted }));
        }
        // What is made of these options can be written.
        message.to_vec().unwrap_or_default()
    }

    /// What a message says to this client in the exchange with this number; `None` if it is none of ours.
    pub(super) fn hear(&self, xid: [u8; 3], from: Ipv6Addr, bytes: &[u8]) -> Option<Heard> {
        let message = Message::decode(&mut Decoder::new(bytes)).ok()?;
        let kind = match message.msg_type() {
            MessageType::Advertise => Kind::Advertise,
            MessageType::Reply => Kind::Reply,
            _ => return None,
        };
        let options = message.opts();
        let is_to_us =
            matches!(options.get(OptionCode::ClientId), Some(DhcpOption::ClientId(duid)) if duid == self.duid.bytes());
        let Some(DhcpOption::ServerId(server)) = options.get(OptionCode::ServerId) else { return None };
        let server = Duid::new(server.clone())?;
        if message.xid() != xid || !is_to_us {
            return None;
        }
        let answer = self.answer(from, server.clone(), options);
        Some(Heard { kind, server, answer })
    }

    fn answer(&self, from: Ipv6Addr, server: Duid, options: &DhcpOptions) -> Answer {
        if let Some(refusal) = refusal(options) {
            return refusal;
        }
        let ours = |option: &DhcpOption| match option {
            DhcpOption::IANA(binding) if binding.id == self.iaid => Some(binding.clone()),
            _ => None,
        };
        let Some(binding) = options.iter().find_map(ours) else { return Answer::Nothing };
        let of_address = |option: &DhcpOption| match option {
            DhcpOption::IAAddr(granted) => refusal(&granted.opts),
            _ => None,
        };
        if let Some(refusal) = refusal(&binding.opts).or_else(|| binding.opts.iter().find_map(of_address)) {
            return refusal;
        }
        match Lease::of(from, server, &binding, options) {
            Ok(lease) => Answer::Lease(Box::new(lease)),
            Err(reason) => Answer::Unfit(reason),
        }
    }
}

/// What a server says to one client.
#[derive(Debug)]
pub(super) struct Heard {
    pub kind: Kind,
    pub server: Duid,
    pub answer: Answer,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Advertise,
    Reply,
}

#[derive(Debug)]
pub(super) enum Answer {
    Lease(Box<Lease>),
    /// The server knows of no lease of ours (status 3).
    Unknown,
    /// It grants none, and says why.
    Refused(String),
    /// A lease that cannot be used, and why.
    Unfit(String),
    /// Nothing about our address.
    Nothing,
}

/// What a status other than success says (section 21.13).
fn refusal(options: &DhcpOptions) -> Option<Answer> {
    let Some(DhcpOption::StatusCode(code)) = options.get(OptionCode::StatusCode) else { return None };
    let what = match code.status {
        Status::Success => return None,
        Status::NoBinding => return Some(Answer::Unknown),
        Status::NoAddrsAvail => "it has no address left".to_owned(),
        Status::NotOnLink => "the address does not belong to this link".to_owned(),
        other => format!("status {}", u16::from(other)),
    };
    // Servers explain themselves, in words that a terminal has to bear.
    Some(Answer::Refused(match printable(code.msg.as_bytes()) {
        Some(words) => format!("{what} ({words})"),
        None => what,
    }))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub const ADDRESS: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0x100);
    const SERVER: [u8; 6] = [0, 3, 0, 1, 2, 3];

    pub fn server() -> Duid {
        Duid::new(SERVER.to_vec()).unwrap()
    }

    /// What a server says, byte by byte, and how it may go wrong.
    #[derive(Debug, Clone)]
    pub struct Said {
        pub kind: u8,
        pub xid: Option<[u8; 3]>,
        pub client: Option<Vec<u8>>,
        pub server: Option<Vec<u8>>,
        pub iaid: u32,
        pub t1: u32,
        pub t2: u32,
        pub address: Option<Ipv6Addr>,
        pub preferred: u32,
        pub valid: u32,
        pub status: Option<u16>,
        pub status_of_binding: Option<u16>,
        pub words: &'static str,
    }

    impl Said {
        pub fn advertise() -> Said {
            Said { kind: 2, ..Said::reply() }
        }

        pub fn reply() -> Said {
            Said {
                kind: 7,
                xid: None,
                client: None,
                server: Some(SERVER.to_vec()),
                iaid: 0,
                t1: 400,
                t2: 640,
                address: Some(ADDRESS),
                preferred: 800,
                valid: 1000,
                status: None,
                status_of_binding: None,
                words: "",
            }
        }

        pub fn bytes(&self, client: &Client, xid: [u8; 3]) -> Vec<u8> {
            let option =
                |code: u16, value: &[u8]| [&code.to_be_bytes(), &(value.len() as u16).to_be_bytes(), value].concat();
            let status = |code: u16| option(13, &[&code.to_be_bytes(), self.words.as_bytes()].concat());
            let times = |times: &[u32]| times.iter().flat_map(|time| time.to_be_bytes()).collect::<Vec<u8>>();
            let mut binding = times(&[self.iaid, self.t1, self.t2]);
            if let Some(address) = self.address {
                let granted = [address.octets().as_slice(), &times(&[self.preferred, self.valid])].concat();
                binding.extend(option(5, &granted));
            }
            binding.extend(self.status_of_binding.map(status).unwrap_or_default());
            let mut message = [&[self.kind], self.xid.unwrap_or(xid).as_slice()].concat();
            message.extend(option(1, self.client.as_deref().unwrap_or(client.duid.bytes())));
            message.extend(self.server.as_deref().map(|server| option(2, server)).unwrap_or_default());
            message.extend(self.status.map(status).unwrap_or_default());
            message.extend(option(3, &binding));
            message
        }
    }

    #[test]
    fn both_protocols_know_a_client_by_the_same() {
        let id = ClientId::derived(&["host", "web", "eth1"]);
        let client = Client::of(&id);
        assert_eq!((client.duid.bytes(), client.iaid), (&id.bytes()[5..], 0));
        let named: ClientId = "web".parse().unwrap();
        assert_eq!(Client::of(&named), Client::of(&named));
        assert_eq!((Client::of(&named).duid.bytes().len(), &Client::of(&named).duid.bytes()[..2]), (18, &[0, 4][..]));
    }

    #[test]
    fn a_request_names_whom_it_asks_and_for_what() {
        let client = Client::of(&ClientId::derived(&["test"]));
        let said = client.say(MessageType::Request, [1, 2, 3], 150, Some(&server()), Some(ADDRESS));
        assert_eq!(said[..4], [3, 1, 2, 3]);
        let has = |part: &[u8]| said.windows(part.len()).any(|window| window == part);
        assert!(has(&[0, 8, 0, 2, 0, 150]), "elapsed time");
        assert!(has(&[&[0, 2, 0, 6], SERVER.as_slice()].concat()), "the server");
        assert!(has(&[&[0, 5, 0, 24], ADDRESS.octets().as_slice()].concat()), "the address");
        assert!(has(&[0, 82]), "SOL_MAX_RT is asked for");
    }
}
