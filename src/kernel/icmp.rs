//! ICMP: pings from inside, and IPv6 neighbour advertisements.

use std::{
    io,
    net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6},
    os::fd::{AsFd, AsRawFd, OwnedFd},
    time::{Duration, Instant},
};

use nix::{
    poll::{PollFd, PollFlags, poll},
    sys::socket::{
        AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrStorage, bind, recvfrom, sendto, setsockopt,
        socket, sockopt,
    },
};
use rtnetlink::packet_route::{
    RouteNetlinkMessage as Message,
    neighbour::{NeighbourAttribute, NeighbourMessage, NeighbourState},
};

use super::{Kernel, slice_until};
use crate::{
    error::{Error, Result},
    interrupt,
};

/// How far a ping got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// It was answered, after so long.
    Answered(Duration),
    /// The host is there, for it answered ARP or neighbour discovery, but it does not answer pings.
    OnLinkOnly,
    Silent,
}

/// A host that is there but drops pings is waited for no longer than this.
const PATIENCE_WITH_A_NEIGHBOUR: Duration = Duration::from_millis(300);
const EVERY: Duration = Duration::from_millis(200);

impl Kernel {
    /// Pings `ip` from inside until it answers or `limit` is over. With a `device` (name and index)
    /// the pings leave by that interface, whatever the routes say.
    pub fn ping(&mut self, ip: IpAddr, device: Option<(&str, u32)>, limit: Duration) -> Result<Reach> {
        let failed = |error: io::Error| Error::io(format!("cannot ping {ip}"), &error);
        let socket = echo_socket(ip, device.map(|(name, _)| name)).map_err(failed)?;
        let start = Instant::now();
        let mut next = start;
        for sequence in 0.. {
            // While there is no way to the host yet the kernel refuses to send; asking again is all one can do.
            let _ = sendto(socket.as_raw_fd(), &echo_request(ip, sequence), &to(ip, device), MsgFlags::MSG_DONTWAIT);
            next = (next + EVERY).min(start + limit);
            if let Some(after) = await_reply(&socket, ip, start, next).map_err(failed)? {
                return Ok(Reach::Answered(after));
            }
            interrupt::check()?;
            let there = start.elapsed() >= PATIENCE_WITH_A_NEIGHBOUR && self.is_neighbour(ip)?;
            if there || start.elapsed() >= limit {
                return Ok(if there || self.is_neighbour(ip)? { Reach::OnLinkOnly } else { Reach::Silent });
            }
        }
        Ok(Reach::Silent)
    }

    /// Whether the host has answered ARP or neighbour discovery lately.
    fn is_neighbour(&mut self, ip: IpAddr) -> Result<bool> {
        let neighbours =
            self.inside(async |inside| inside.dump(Message::GetNeighbour(NeighbourMessage::default())).await)?;
        let alive = |message: &Message| {
            let Message::NewNeighbour(neighbour) = message else { return false };
            let state = neighbour.header.state;
            matches!(
                state,
                NeighbourState::Reachable | NeighbourState::Stale | NeighbourState::Delay | NeighbourState::Probe
            ) && neighbour
                .attributes
                .iter()
                .any(|a| matches!(a, NeighbourAttribute::Destination(to) if *to == ip.into()))
        };
        Ok(neighbours.map_err(super::cannot_read("neighbours inside"))?.iter().any(alive))
    }

    /// Tells the LAN that `ips` are at `mac`: an unsolicited neighbour advertisement to all nodes,
    /// with the override flag (RFC 4861 section 7.2.6).
    pub fn advertise(&mut self, interface: u32, mac: [u8; 6], ips: &[Ipv6Addr]) -> io::Result<()> {
        const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
        for ip in ips {
            let socket = raw_socket(AddressFamily::Inet6, SockProtocol::IcmpV6)?;
            // RFC 4861: receivers drop what may have crossed a router.
            setsockopt(&socket, sockopt::Ipv6MulticastHops, &255)?;
            bind(socket.as_raw_fd(), &SockaddrStorage::from(SocketAddrV6::new(*ip, 0, 0, 0)))?;
            let all = SockaddrStorage::from(SocketAddrV6::new(ALL_NODES, 0, 0, interface));
            sendto(socket.as_raw_fd(), &advertisement(*ip, mac), &all, MsgFlags::MSG_DONTWAIT)?;
        }
        Ok(())
    }
}

fn raw_socket(family: AddressFamily, protocol: SockProtocol) -> io::Result<OwnedFd> {
    Ok(socket(family, SockType::Raw, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK, protocol)?)
}

fn echo_socket(ip: IpAddr, device: Option<&str>) -> io::Result<OwnedFd> {
    let socket = match ip {
        IpAddr::V4(_) => raw_socket(AddressFamily::Inet, SockProtocol::Icmp)?,
        IpAddr::V6(_) => raw_socket(AddressFamily::Inet6, SockProtocol::IcmpV6)?,
    };
    if let Some(device) = device {
        setsockopt(&socket, sockopt::BindToDevice, &device.into())?;
    }
    Ok(socket)
}

fn to(ip: IpAddr, device: Option<(&str, u32)>) -> SockaddrStorage {
    let scope = device.map_or(0, |(_, index)| index);
    match ip {
        IpAddr::V6(v6) if v6.is_unicast_link_local() => SockaddrStorage::from(SocketAddrV6::new(v6, 0, 0, scope)),
        _ => SockaddrStorage::from(SocketAddr::new(ip, 0)),
    }
}

fn await_reply(socket: &OwnedFd, ip: IpAddr, start: Instant, end: Instant) -> io::Result<Option<Duration>> {
    loop {
        match poll(&mut [PollFd::new(socket.as_fd(), PollFlags::POLLIN)], slice_until(end)) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        let mut buffer = [0; 512];
        while let Ok((bytes, _)) = recvfrom::<SockaddrStorage>(socket.as_raw_fd(), &mut buffer) {
            if is_reply(&buffer[..bytes], ip) {
                return Ok(Some(start.elapsed()));
            }
        }
        if Instant::now() >= end || interrupt::check().is_err() {
            return Ok(None);
        }
    }
}

/// Replies carry the request's identifier back.
fn identifier() -> [u8; 2] {
    (std::process::id() as u16).to_be_bytes()
}

/// An echo request (RFC 792, RFC 4443) with sixteen bytes of payload.
fn echo_request(ip: IpAddr, sequence: u16) -> Vec<u8> {
    let kind = if ip.is_ipv4() { 8 } else { 128 };
    let mut packet = vec![kind, 0, 0, 0];
    packet.extend(identifier());
    packet.extend(sequence.to_be_bytes());
    packet.extend(b"plumb looks out!");
    if ip.is_ipv4() {
        // For IPv6 the kernel does it, as the pseudo-header needs the source address.
        let sum = checksum(&packet);
        packet[2..4].copy_from_slice(&sum.to_be_bytes());
    }
    packet
}

/// Whether a received packet answers one of our requests. IPv4 raw sockets deliver the IP header too.
fn is_reply(packet: &[u8], from: IpAddr) -> bool {
    let (icmp, kind) = match from {
        IpAddr::V4(ip) => {
            let header = usize::from(packet.first().copied().unwrap_or(0) & 0x0f) * 4;
            if header < 20 || packet.get(12..16) != Some(&ip.octets()) {
                return false;
            }
            (packet.get(header..).unwrap_or_default(), 0)
        }
        IpAddr::V6(_) => (packet, 129),
    };
    icmp.first() == Some(&kind) && icmp.get(4..6) == Some(&identifier())
}

/// The Internet checksum (RFC 1071).
fn checksum(bytes: &[u8]) -> u16 {
    let mut sum: u32 =
        bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

fn advertisement(ip: Ipv6Addr, mac: [u8; 6]) -> Vec<u8> {
    const OVERRIDE: u8 = 0x20;
    let mut packet = vec![136, 0, 0, 0, OVERRIDE, 0, 0, 0];
    packet.extend(ip.octets());
    // Option 2, target link-layer address, one unit of eight bytes.
    packet.extend([2, 1]);
    packet.extend(mac);
    packet
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_checksum_of_a_packet_with_its_checksum_is_zero() {
        let request = echo_request([192, 168, 0, 1].into(), 7);
        assert_eq!(checksum(&request), 0);
        assert_eq!(request.len(), 24);
    }

    #[test]
    fn only_the_answer_to_our_request_counts() {
        let ip = IpAddr::from([192, 168, 0, 1]);
        let mut reply = vec![0; 20];
        reply[0] = 0x45;
        reply[12..16].copy_from_slice(&[192, 168, 0, 1]);
        let request = echo_request(ip, 0);
        reply.extend(&request);
        assert!(!is_reply(&reply, ip), "a request");
        reply[20] = 0;
        assert!(is_reply(&reply, ip));
        reply[15] = 2;
        assert!(!is_reply(&reply, ip), "another host's");
    }

    proptest! {
        #[test]
        fn any_packet_is_survived(packet in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = is_reply(&packet, [192, 168, 0, 1].into());
            let _ = is_reply(&packet, IpAddr::V6(Ipv6Addr::LOCALHOST));
        }
    }
}
