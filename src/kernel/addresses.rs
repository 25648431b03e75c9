//! Addresses inside: read, added, deleted, and IPv6's duplicate address detection awaited.

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use nix::errno::Errno;
use rtnetlink::{
    packet_core::{NLM_F_CREATE, NLM_F_EXCL},
    packet_route::{
        AddressFamily, RouteNetlinkMessage as Message,
        address::{AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage},
    },
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
