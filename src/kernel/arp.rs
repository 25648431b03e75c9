//! ARP: asks the LAN whether an address is free (RFC 5227), and tells it who has one now.

use std::{
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use nix::poll::{PollFd, PollFlags, poll};

use super::{
    Kernel,
    packet::{PacketSocket, Protocol},
    slice_until,
};
use crate::{
    error::{Error, Result},
    interrupt,
    types::{Mac, hex},
};

const REQUEST: u16 = 1;
const FRAME: usize = 28;
/// RFC 5227 sends three probes, 1 to 2 s apart; here they share the time that is given.
const PROBES: u32 = 3;

/// A host of the LAN that has an address which was meant to be new.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub ip: Ipv4Addr,
    pub mac: [u8; 6],
}

impl Answer {
    pub fn mac_text(&self) -> String {
        Mac::try_from(self.mac).map_or_else(|_| hex(&self.mac), |mac| mac.to_string())
    }
}

impl Kernel {
    /// Asks for `duration` whether any other host has one of `ips`, without using them: the first
    /// that has is returned. Half of an address conflict is that two take it at once, so another
    /// host's probe for the same address counts as well (RFC 5227 section 2.1.1).
    pub fn probe(
        &mut self,
        interface: u32,
        mac: [u8; 6],
        ips: &[Ipv4Addr],
        duration: Duration,
    ) -> Result<Option<Answer>> {
        let failed = |error: std::io::Error| Error::io("cannot probe the LAN by ARP", &error);
        let socket = PacketSocket::open(interface, Protocol::Arp).map_err(failed)?;
        socket.listen().map_err(failed)?;
        let start = Instant::now();
        for round in 0..PROBES {
            for ip in ips {
                socket.broadcast(&frame(REQUEST, mac, Ipv4Addr::UNSPECIFIED, *ip)).map_err(failed)?;
            }
            let end = start + duration * (round + 1) / PROBES;
            if let Some(answer) = listen(&socket, mac, ips, end)? {
                return Ok(Some(answer));
            }
        }
        Ok(None)
    }

    /// Tells the LAN that `ips` are at `mac`, by a request for the own address, the form that RFC 5227
    /// section 3 prefers. One frame each: a macvlan copies it to every sibling on the parent before
    /// the call returns, which with 500 of them takes two milliseconds.
    pub fn announce(&mut self, interface: u32, mac: [u8; 6], ips: &[Ipv4Addr]) -> std::io::Result<()> {
        let socket = PacketSocket::open(interface, Protocol::Arp)?;
        for ip in ips {
            socket.broadcast(&frame(REQUEST, mac, *ip, *ip))?;
        }
        Ok(())
    }
}

fn listen(socket: &PacketSocket, mac: [u8; 6], ips: &[Ipv4Addr], end: Instant) -> Result<Option<Answer>> {
    let failed = |error: std::io::Error| Error::io("cannot listen for ARP answers", &error);
    while Instant::now() < end {
        interrupt::check()?;
        match poll(&mut [PollFd::new(socket.as_fd(), PollFlags::POLLIN)], slice_until(end)) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(errno) => return Err(failed(errno.into())),
        }
        let mut buffer = [0; 64];
        while let Some(bytes) = socket.receive(&mut buffer).map_err(failed)? {
            if let Some(answer) = claims_one_of(&buffer[..bytes], mac, ips) {
                return Ok(Some(answer));
            }
        }
    }
    Ok(None)
}

/// An ARP frame's payload for Ethernet and IPv4 (RFC 826).
fn frame(operation: u16, sender_mac: [u8; 6], sender: Ipv4Addr, target: Ipv4Addr) -> [u8; FRAME] {
    let mut frame = [0; FRAME];
    frame[..6].copy_from_slice(&[0, 1, 8, 0, 6, 4]);
    frame[6..8].copy_from_slice(&operation.to_be_bytes());
    frame[8..14].copy_from_slice(&sender_mac);
    frame[14..18].copy_from_slice(&sender.octets());
    // The target's MAC address stays zero in probes and announcements (RFC 5227 section 2.1.1).
    frame[24..28].copy_from_slice(&target.octets());
    frame
}

/// Whether a received frame says that another host has, or is about to take, one of `ips`.
fn claims_one_of(frame: &[u8], own: [u8; 6], ips: &[Ipv4Addr]) -> Option<Answer> {
    let frame: &[u8; FRAME] = frame.get(..FRAME)?.try_into().ok()?;
    if frame[..6] != [0, 1, 8, 0, 6, 4] {
        return None;
    }
    let mac: [u8; 6] = frame[8..14].try_into().ok()?;
    let sender = Ipv4Addr::from(<[u8; 4]>::try_from(&frame[14..18]).ok()?);
    let target = Ipv4Addr::from(<[u8; 4]>::try_from(&frame[24..28]).ok()?);
    if mac == own {
        return None;
    }
    let probes = sender.is_unspecified() && frame[6..8] == REQUEST.to_be_bytes();
    let claimed = if probes { target } else { sender };
    ips.contains(&claimed).then_some(Answer { ip: claimed, mac })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const REPLY: u16 = 2;
    const OWN: [u8; 6] = [2, 0, 0, 0, 0, 1];
    const OTHER: [u8; 6] = [2, 0, 0, 0, 0, 2];
    const WANTED: Ipv4Addr = Ipv4Addr::new(192, 168, 0, 100);
    const ELSE: Ipv4Addr = Ipv4Addr::new(192, 168, 0, 7);

    #[test]
    fn a_reply_an_announcement_and_anothers_probe_are_conflicts() {
        let claim = Some(Answer { ip: WANTED, mac: OTHER });
        assert_eq!(claims_one_of(&frame(REPLY, OTHER, WANTED, ELSE), OWN, &[WANTED]), claim);
        assert_eq!(claims_one_of(&frame(REQUEST, OTHER, WANTED, WANTED), OWN, &[WANTED]), claim);
        assert_eq!(claims_one_of(&frame(REQUEST, OTHER, Ipv4Addr::UNSPECIFIED, WANTED), OWN, &[WANTED]), claim);
    }

    #[test]
    fn our_own_frames_and_other_peoples_business_are_not() {
        assert_eq!(claims_one_of(&frame(REQUEST, OWN, Ipv4Addr::UNSPECIFIED, WANTED), OWN, &[WANTED]), None);
        assert_eq!(claims_one_of(&frame(REQUEST, OTHER, ELSE, WANTED), OWN, &[WANTED]), None, "somebody asks for it");
        assert_eq!(claims_one_of(&frame(REPLY, OTHER, ELSE, WANTED), OWN, &[WANTED]), None);
    }

    proptest! {
        #[test]
        fn any_frame_is_survived(frame in proptest::collection::vec(any::<u8>(), 0..64)) {
            if let Some(answer) = claims_one_of(&frame, OWN, &[WANTED]) {
                prop_assert_eq!(answer.ip, WANTED);
            }
        }
    }
}
