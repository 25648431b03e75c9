//! Addresses inside: read, added, deleted, and IPv6's duplicate address detection awaited.

use std::{
    io,
    net::IpAddr,
    time::{Duration, Instant},
};

use nix::errno::Errno;
use rtnetlink::{
    packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload},
    packet_route::{
        AddressFamily, RouteNetlinkMessage as Message,
        address::{AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, CacheInfo},
    },
    sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE},
};

use super::{Kernel, cannot_read, refused};
use crate::{
    apply::StepError,
    error::{Error, Result},
    interrupt,
    plan::{LinkAddress, facts::InsideAddress},
};

impl Kernel {
    /// The addresses inside. Equivalent to `ip addr show`.
    pub fn addresses(&mut self) -> Result<Vec<InsideAddress>> {
        let messages = self.inside(async |inside| inside.dump(Message::GetAddress(AddressMessage::default())).await)?;
        Ok(messages.map_err(cannot_read("addresses inside"))?.iter().filter_map(address_of).collect())
    }

    /// Equivalent to `ip addr add ADDRESS brd + dev NAME`.
    pub(super) fn add_address(&mut self, address: &LinkAddress) -> std::result::Result<(), StepError> {
        let message = Message::NewAddress(message(address));
        let outcome = self
            .inside(async |inside| inside.change(message, NLM_F_CREATE | NLM_F_EXCL).await)
            .map_err(StepError::Refused)?;
        outcome.map_err(|refusal| {
            refused(format_args!("cannot give {} the address {}", address.name, address.address), &refusal, &[])
        })
    }

    /// Equivalent to `ip addr del ADDRESS dev NAME`.
    pub(super) fn delete_address(&mut self, address: &LinkAddress) -> std::result::Result<(), StepError> {
        let message = Message::DelAddress(message(address));
        let outcome = self.inside(async |inside| inside.change(message, 0).await).map_err(StepError::Refused)?;
        let gone = [Errno::ENODEV, Errno::EADDRNOTAVAIL];
        outcome.map_err(|refusal| {
            refused(format_args!("cannot take {} from {}", address.address, address.name), &refusal, &gone)
        })
    }

    /// Waits until the kernel has asked the LAN whether somebody else has the link's IPv6 addresses.
    /// It takes one to two seconds. A conflict is an error.
    pub fn await_ipv6(&mut self, index: u32, limit: Duration) -> Result<()> {
        let end = Instant::now() + limit;
        loop {
            let ours: Vec<InsideAddress> = self
                .addresses()?
                .into_iter()
                .filter(|a| a.index == index && a.ip.is_ipv6() && !is_link_local(a.ip))
                .collect();
            if let Some(duplicate) = ours.iter().find(|a| a.duplicate) {
                return Err(Error::conflict(format!(
                    "{} is in use on the LAN: another host answers for it",
                    duplicate.ip
                ))
                .hint("choose another address"));
            }
            if !ours.iter().any(|a| a.tentative) {
                return Ok(());
            }
            if Instant::now() > end {
                return Err(Error::timed_out(format!(
                    "the kernel did not finish duplicate address detection within {limit:?}"
                ))
                .hint("is the parent's carrier up? --probe 0 does without"));
            }
            interrupt::sleep(Duration::from_millis(20))?;
        }
    }
}

/// For how long addresses may be used. It stays in the namespace that it was opened in, and costs less
/// than all of a `Kernel`: of a thousand leases it is told some thirty times a second.
pub struct Lifetimes(Socket);

impl Lifetimes {
    /// Opens a socket in the calling thread's namespace.
    pub fn open() -> io::Result<Lifetimes> {
        let socket = Socket::new(NETLINK_ROUTE)?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Lifetimes(socket))
    }

    /// Lets the kernel take the address away after that time, whatever becomes of us: from then on it may
    /// be given to somebody else. Equivalent to `ip addr change ADDRESS dev NAME valid_lft S preferred_lft S`.
    pub fn limit(&self, address: &LinkAddress, lifetime: Duration) -> io::Result<()> {
        // Rounded up; all bits set would mean for ever.
        let seconds = lifetime.as_millis().div_ceil(1000).clamp(1, u128::from(u32::MAX - 1)) as u32;
        let mut limits = CacheInfo::default();
        (limits.ifa_preferred, limits.ifa_valid) = (seconds, seconds);
        let mut message = message(address);
        message.attributes.push(AddressAttribute::CacheInfo(limits));
        let mut request = NetlinkMessage::from(Message::NewAddress(message));
        request.header.flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_REPLACE;
        request.finalize();
        let mut bytes = vec![0; request.buffer_len()];
        request.serialize(&mut bytes);
        self.0.send(&bytes, 0)?;
        // The kernel has answered before it returns.
        let (answer, _) = self.0.recv_from_full()?;
        match NetlinkMessage::<Message>::deserialize(&answer).map(|answer| answer.payload) {
            Ok(NetlinkPayload::Error(error)) if error.code.is_some() => {
                Err(io::Error::from_raw_os_error(error.raw_code().abs()))
            }
            _ => Ok(()),
        }
    }
}

fn is_link_local(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V6(v6) if v6.is_unicast_link_local())
}

fn message(address: &LinkAddress) -> AddressMessage {
    let mut message = AddressMessage::default();
    let ip = address.address.ip();
    message.header.family = if ip.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    message.header.prefix_len = address.address.prefix();
    message.header.index = address.index;
    message.attributes.push(AddressAttribute::Local(ip));
    message.attributes.push(AddressAttribute::Address(ip));
    match address.address.subnet().broadcast() {
        IpAddr::V4(broadcast) if address.address.prefix() < 31 => {
            message.attributes.push(AddressAttribute::Broadcast(broadcast))
        }
        IpAddr::V6(_) if address.skip_dad => message.header.flags |= AddressHeaderFlags::Nodad,
        _ => {}
    }
    message
}

fn address_of(message: &Message) -> Option<InsideAddress> {
    let Message::NewAddress(message) = message else { return None };
    let find = |pick: fn(&AddressAttribute) -> Option<IpAddr>| message.attributes.iter().find_map(pick);
    // On a point-to-point link ADDRESS is the peer and LOCAL is ours; IPv6 often tells ADDRESS only.
    let local = find(|a| if let AddressAttribute::Local(ip) = a { Some(*ip) } else { None });
    let ip = local.or_else(|| find(|a| if let AddressAttribute::Address(ip) = a { Some(*ip) } else { None }))?;
    let flags = message
        .attributes
        .iter()
        .find_map(|a| if let AddressAttribute::Flags(flags) = a { Some(*flags) } else { None });
    let flags = flags.unwrap_or(AddressFlags::from_bits_retain(message.header.flags.bits().into()));
    Some(InsideAddress {
        index: message.header.index,
        ip,
        prefix: message.header.prefix_len,
        tentative: flags.contains(AddressFlags::Tentative),
        duplicate: flags.contains(AddressFlags::Dadfailed),
    })
}
