//! How large the segments are that pass an interface unsegmented.

use nix::errno::Errno;
use rtnetlink::{
    LinkUnspec,
    packet_route::{
        RouteNetlinkMessage as Message,
        link::{LinkAttribute, LinkMessage},
    },
};

use super::{
    Kernel, Refusal, cannot_read,
    links::{attribute, question},
    refused,
};
use crate::{
    apply::StepError,
    error::Result,
    plan::{
        Segments,
        qdisc::{Device, Side},
        tuning::{MOST, ORDINARY},
    },
};

impl Kernel {
    /// Equivalent to `ip link set dev NAME gso_max_size … gro_ipv4_max_size …`, by index.
    pub(super) fn set_segments(&mut self, on: &Device, to: Segments) -> std::result::Result<(), StepError> {
        let message = Message::SetLink(change(on.index, to));
        let outcome = match on.side {
            Side::Inside => self.inside(async |inside| inside.change(message, 0).await),
            Side::Host => self.on_host(async |host| host.change(message, 0).await),
        };
        let outcome: std::result::Result<(), Refusal> = outcome.map_err(StepError::Refused)?;
        outcome.map_err(|refusal| {
            refused(format_args!("cannot set how large segments of {} may be", on.name), &refusal, &[Errno::ENODEV])
        })
    }

    /// Those of the link inside with this index, if there is one.
    pub fn segments(&mut self, index: u32) -> Result<Option<Segments>> {
        let mut request = question();
        request.header.index = index;
        match self.inside(async |inside| inside.get(Message::GetLink(request)).await)? {
            Ok(Some(Message::NewLink(link))) => Ok(segments_of(&link)),
            Ok(_) | Err(Refusal { errno: Errno::ENODEV, .. }) => Ok(None),
            Err(refusal) => Err(cannot_read("interface")(refusal)),
        }
    }

    /// All that links inside take is raised to `size`, or to the most that each takes.
    pub(super) fn raise_segments(&mut self, size: u32) -> Result<std::result::Result<(), Refusal>> {
        let messages = self.inside(async |inside| inside.dump(Message::GetLink(question())).await)?;
        for message in messages.map_err(cannot_read("interfaces inside"))? {
            let Message::NewLink(link) = message else { continue };
            let Some(now) = segments_of(&link) else {
                return Ok(Err(Refusal { errno: Errno::EOPNOTSUPP, text: None }));
            };
            let raised = now.at_least(size.min(segments_most(&link)).min(MOST));
            let message = Message::SetLink(change(link.header.index, raised));
            if let Err(refusal) = self.inside(async |inside| inside.change(message, 0).await)? {
                return Ok(Err(refusal));
            }
        }
        Ok(Ok(()))
    }
}

fn change(index: u32, to: Segments) -> LinkMessage {
    let mut message = LinkUnspec::new_with_index(index).build();
    // Those of IPv4 last: the kernel lowers them with the others.
    message.attributes.extend([
        LinkAttribute::GsoMaxSize(to.gso),
        LinkAttribute::GroMaxSize(to.gro),
        LinkAttribute::GsoIpv4MaxSize(to.gso_ipv4),
        LinkAttribute::GroIpv4MaxSize(to.gro_ipv4),
    ]);
    message
}

/// `None` where the kernel is older than 6.3 and does not tell those of IPv4.
pub(super) fn segments_of(message: &LinkMessage) -> Option<Segments> {
    Some(Segments {
        gso: attribute(message, |a| if let LinkAttribute::GsoMaxSize(size) = a { Some(*size) } else { None })?,
        gro: attribute(message, |a| if let LinkAttribute::GroMaxSize(size) = a { Some(*size) } else { None })?,
        gso_ipv4: attribute(message, |a| if let LinkAttribute::GsoIpv4MaxSize(size) = a { Some(*size) } else { None })?,
        gro_ipv4: attribute(message, |a| if let LinkAttribute::GroIpv4MaxSize(size) = a { Some(*size) } else { None })?,
    })
}

pub(super) fn segments_most(message: &LinkMessage) -> u32 {
    attribute(message, |a| if let LinkAttribute::TsoMaxSize(size) = a { Some(*size) } else { None }).unwrap_or(ORDINARY)
}
