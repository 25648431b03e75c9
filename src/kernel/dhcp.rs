//! DHCP's sockets and clock: what `dhcp::Machine` decides is done here.
//!
//! While an interface has no address its messages go by a packet socket, with the headers of IP and
//! UDP made by hand: the kernel sends nothing from 0.0.0.0 by one interface of several, and takes no
//! unicast to an address that it has not got yet. Once it has one, a plain UDP socket does.

use std::{
    collections::VecDeque,
    io::{self, IoSlice},
    net::{Ipv4Addr, SocketAddrV4, UdpSocket},
    os::fd::{AsFd, AsRawFd, BorrowedFd},
    sync::Arc,
    time::{Duration, Instant},
};

use nix::{
    libc,
    poll::{PollFd, PollFlags, poll},
    sys::socket::{
        AddressFamily, ControlMessage, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, bind, sendmsg,
        setsockopt, socket, sockopt,
    },
    time::{ClockId, clock_gettime},
};

use super::{
    Kernel, Netns,
    packet::{Checksum, PacketSocket, Protocol},
    slice_until,
};
use crate::{
    dhcp::{Action, Client, Lease, Machine, Packet, Phase, Start},
    error::{Error, Result},
    interrupt,
    types::IfName,
};

const SERVER_PORT: u16 = 67;
const CLIENT_PORT: u16 = 68;
const IP_HEADER: usize = 20;
const UDP_HEADER: usize = 8;
const UDP: u8 = 17;
/// More than any message that we say we take, and than most that do not heed it.
pub const BUFFER: usize = 4096;

/// The clock of a `Machine`: it goes on during suspend, as leases do, and nobody sets it.
pub fn boot_time() -> Duration {
    // Linux has had this clock since 2.6.39.
    clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(Duration::ZERO, Duration::from)
}

/// Where and for how long a lease is sought.
#[derive(Debug, Clone)]
pub struct Quest<'a> {
    /// The interface inside.
    pub index: u32,
    /// The interface that people know it by: the host's.
    pub on: &'a str,
    /// For how long to ask the LAN whether an address is free.
    pub probe: Duration,
    pub timeout: Duration,
    /// The LAN is asked by this interface of that namespace instead.
    pub check_from: Option<(&'a Netns, u32)>,
}

impl Kernel {
    /// Drives the machine until it is bound. An address that was granted and cannot be waited for any
    /// longer, as its check was interrupted, is given back.
    pub fn acquire(&mut self, machine: &mut Machine, start: Start, quest: &Quest<'_>) -> Result<Arc<Lease>> {
        let socket = RawSocket::open(quest.index).map_err(|error| cannot_ask(quest, &error))?;
        let outcome = self.seek(machine, start, quest, &socket);
        if outcome.is_err() && machine.phase() == Phase::Checking {
            for action in machine.release() {
                if let Action::Send(packet) = action {
                    // The failure is what the user must hear of; the lease ends by itself.
                    let _ = socket.send(&packet);
                }
            }
        }
        outcome
    }

    fn seek(
        &mut self,
        machine: &mut Machine,
        start: Start,
        quest: &Quest<'_>,
        socket: &RawSocket,
    ) -> Result<Arc<Lease>> {
        let end = Instant::now() + quest.timeout;
        let mut actions = VecDeque::from(machine.start(boot_time(), start));
        loop {
            while let Some(action) = actions.pop_front() {
                match action {
                    Action::Send(packet) => socket.send(&packet).map_err(|error| cannot_ask(quest, &error))?,
                    Action::Check(ip) => actions.extend(self.check_address(machine, ip, quest)?),
                    Action::Bound { lease, .. } => return Ok(lease),
                    // One from before, which nobody uses yet.
                    Action::Lost { .. } => {}
                }
            }
            if Instant::now() >= end {
                return Err(nothing_got(machine, quest));
            }
            let pause = machine.wake().map_or(quest.timeout, |wake| wake.saturating_sub(boot_time()));
            await_packet(socket, end.min(Instant::now() + pause)).map_err(|error| cannot_ask(quest, &error))?;
            interrupt::check()?;
            let mut buffer = [0; BUFFER];
            let received = socket.receive(&mut buffer).map_err(|error| cannot_ask(quest, &error))?;
            actions.extend(match received {
                Some(message) => machine.receive(boot_time(), message),
                None => machine.tick(boot_time()),
            });
        }
    }

    pub(super) fn check_address(
        &mut self,
        machine: &mut Machine,
        ip: Ipv4Addr,
        quest: &Quest<'_>,
    ) -> Result<Vec<Action>> {
        let mac = machine.client().mac.bytes();
        let answer = match quest.check_from {
            Some((there, index)) => there.look_inside(|kernel| kernel.probe(index, mac, &[ip], quest.probe))?,
            None => self.probe(quest.index, mac, &[ip], quest.probe)?,
        };
        Ok(match answer {
            Some(_) => machine.in_use(boot_time()),
            None => machine.free(boot_time()),
        })
    }
}

/// Gives a lease back by an interface of the calling thread's namespace, whether or not that has the
/// address: nobody answers to it. To all hosts of the link, so that nothing has to be asked first.
pub fn release(interface: u32, client: &Client, lease: &Lease) -> io::Result<()> {
    // A message that nobody answers needs no number that nobody can guess.
    let mut machine = Machine::new(client.clone(), false, boot_time().as_nanos() as u64);
    machine.start(boot_time(), Start::Resume { lease: lease.clone().into(), age: Duration::ZERO });
    let socket = RawSocket::open(interface)?;
    machine.release().iter().try_for_each(|action| match action {
        Action::Send(packet) => socket.send(packet),
        Action::Check(_) | Action::Bound { .. } | Action::Lost { .. } => Ok(()),
    })
}

/// Until there is something to read, or `end`, or a signal might have arrived.
fn await_packet(socket: &RawSocket, end: Instant) -> io::Result<()> {
    match poll(&mut [PollFd::new(socket.as_fd(), PollFlags::POLLIN)], slice_until(end)) {
        Ok(_) | Err(nix::errno::Errno::EINTR) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

pub(super) fn cannot_ask(quest: &Quest<'_>, error: &io::Error) -> Error {
    match error.raw_os_error() {
        Some(libc::ENETDOWN) => Error::failed(format!("cannot ask for an address on {}: it is down", quest.on)),
        Some(libc::ENODEV | libc::ENXIO) => {
            Error::failed(format!("cannot ask for an address on {}: the link has gone", quest.on))
        }
        _ => Error::io(format!("cannot ask for an address on {}", quest.on), error),
    }
}

pub(super) fn nothing_got(machine: &Machine, quest: &Quest<'_>) -> Error {
    let (on, limit) = (quest.on, quest.timeout.as_secs_f64());
    match (machine.complaint(), machine.phase()) {
        (Some(complaint), _) => Error::timed_out(format!("no lease on {on} within {limit} s: {complaint}")),
        (None, Phase::Requesting) => {
            Error::timed_out(format!("no lease on {on} within {limit} s: the server that offered one fell silent"))
        }
        (None, _) => Error::timed_out(format!("no DHCP server answered on {on} within {limit} s"))
            .hint(format!("does {on} lead to the network with the server? --timeout waits longer")),
    }
}

/// DHCP below IP, for an interface without an address. It stays in the namespace that it was opened
/// in, whichever thread uses it.
pub struct RawSocket(PacketSocket);

impl RawSocket {
    /// Opens a socket in the calling thread's namespace that hears what arrives at port 68.
    pub fn open(interface: u32) -> io::Result<RawSocket> {
        let socket = PacketSocket::open(interface, Protocol::Ip)?;
        socket.hear_only(&PORT_68)?;
        socket.listen()?;
        Ok(RawSocket(socket))
    }

    /// Sends to all hosts of the link, whoever it is addressed to.
    pub fn send(&self, packet: &Packet) -> io::Result<()> {
        self.0.broadcast(&datagram(packet))
    }

    /// The next message that is there, without waiting. What is damaged is left out.
    pub fn receive<'a>(&self, buffer: &'a mut [u8]) -> io::Result<Option<&'a [u8]>> {
        while let Some((bytes, checksum)) = self.0.receive_with_status(buffer)? {
            if let Some(message) = message_of(&buffer[..bytes], checksum) {
                return Ok(Some(&buffer[message]));
            }
        }
        Ok(None)
    }
}

impl AsFd for RawSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// DHCP from an address that is leased, for renewing and giving back. It stays in the namespace that
/// it was opened in, whichever thread uses it.
pub struct LeasedSocket(UdpSocket);

impl LeasedSocket {
    /// Opens a socket for one interface of the calling thread's namespace. It hears all that comes
    /// to port 68 there: acknowledgements are sent to the address, refusals to all (RFC 2131 section 4.1).
    pub fn open(interface: &IfName) -> io::Result<LeasedSocket> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let fd = socket(AddressFamily::Inet, SockType::Datagram, flags, SockProtocol::Udp)?;
        // Another client, or another of ours, may listen for another interface.
        setsockopt(&fd, sockopt::ReuseAddr, &true)?;
        setsockopt(&fd, sockopt::Broadcast, &true)?;
        setsockopt(&fd, sockopt::BindToDevice, &interface.as_str().into())?;
        bind(fd.as_raw_fd(), &SockaddrIn::from(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, CLIENT_PORT)))?;
        Ok(LeasedSocket(fd.into()))
    }

    /// Sends from the packet's own address: the interface may have others.
    pub fn send(&self, packet: &Packet) -> io::Result<()> {
        let from = libc::in_pktinfo {
            ipi_ifindex: 0,
            ipi_spec_dst: libc::in_addr { s_addr: packet.from.unwrap_or(Ipv4Addr::UNSPECIFIED).to_bits().to_be() },
            ipi_addr: libc::in_addr { s_addr: 0 },
        };
        sendmsg(
            self.0.as_raw_fd(),
            &[IoSlice::new(&packet.message)],
            &[ControlMessage::Ipv4PacketInfo(&from)],
            MsgFlags::empty(),
            Some(&SockaddrIn::from(SocketAddrV4::new(packet.to, SERVER_PORT))),
        )?;
        Ok(())
    }

    /// The next message that is there, without waiting.
    pub fn receive<'a>(&self, buffer: &'a mut [u8]) -> io::Result<Option<&'a [u8]>> {
        match self.0.recv(buffer) {
            Ok(bytes) => Ok(Some(&buffer[..bytes])),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl AsFd for LeasedSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// UDP to port 68 that is no later fragment, as a classic BPF program on the IP header
/// (`linux/filter.h`). A busy link's other packets then wake nobody.
const PORT_68: [libc::sock_filter; 9] = {
    const fn op(code: u32, k: u32, jt: u8, jf: u8) -> libc::sock_filter {
        libc::sock_filter { code: code as u16, jt, jf, k }
    }
    use libc::{BPF_ABS, BPF_B, BPF_H, BPF_IND, BPF_JEQ, BPF_JMP, BPF_JSET, BPF_K, BPF_LD, BPF_LDX, BPF_MSH, BPF_RET};
    [
        op(BPF_LD | BPF_B | BPF_ABS, 9, 0, 0),
        op(BPF_JMP | BPF_JEQ | BPF_K, UDP as u32, 0, 5),
        op(BPF_LD | BPF_H | BPF_ABS, 6, 0, 0),
        op(BPF_JMP | BPF_JSET | BPF_K, 0x1fff, 3, 0),
        op(BPF_LDX | BPF_B | BPF_MSH, 0, 0, 0),
        op(BPF_LD | BPF_H | BPF_IND, 2, 0, 0),
        op(BPF_JMP | BPF_JEQ | BPF_K, CLIENT_PORT as u32, 1, 0),
        op(BPF_RET | BPF_K, 0, 0, 0),
        op(BPF_RET | BPF_K, u32::MAX, 0, 0),
    ]
};

/// An IP packet with the message (RFC 791, RFC 768).
fn datagram(packet: &Packet) -> Vec<u8> {
    let (from, to) = (packet.from.unwrap_or(Ipv4Addr::UNSPECIFIED).octets(), packet.to.octets());
    let udp_length = (UDP_HEADER + packet.message.len()) as u16;
    let mut bytes = vec![0; IP_HEADER + UDP_HEADER];
    bytes[0] = 0x45;
    bytes[2..4].copy_from_slice(&(IP_HEADER as u16 + udp_length).to_be_bytes());
    bytes[8] = 64;
    bytes[9] = UDP;
    bytes[12..16].copy_from_slice(&from);
    bytes[16..20].copy_from_slice(&to);
    let header_sum = !sum(&[&bytes[..IP_HEADER]]);
    bytes[10..12].copy_from_slice(&header_sum.to_be_bytes());
    bytes[20..22].copy_from_slice(&CLIENT_PORT.to_be_bytes());
    bytes[22..24].copy_from_slice(&SERVER_PORT.to_be_bytes());
    bytes[24..26].copy_from_slice(&udp_length.to_be_bytes());
    bytes.extend_from_slice(&packet.message);
    // 0 would mean that there is none.
    let udp_sum = match !udp_sum(&bytes[12..20], &bytes[IP_HEADER..]) {
        0 => u16::MAX,
        sum => sum,
    };
    bytes[26..28].copy_from_slice(&udp_sum.to_be_bytes());
    bytes
}

/// Where in a frame's payload the message is, if it is one that came whole to port 68.
fn message_of(frame: &[u8], checksum: Checksum) -> Option<std::ops::Range<usize>> {
    let header = usize::from(frame.first()? & 0xf) * 4;
    let number = |at: usize| Some(u16::from_be_bytes([*frame.get(at)?, *frame.get(at + 1)?]));
    let is_whole_udp = frame[0] >> 4 == 4 && header >= IP_HEADER && number(6)? & 0x3fff == 0 && *frame.get(9)? == UDP;
    if !is_whole_udp || sum(&[frame.get(..header)?]) != u16::MAX {
        return None;
    }
    // Short frames are padded, so the lengths that the headers tell count.
    let datagram = frame.get(header..number(2)?.into())?;
    let udp = datagram.get(..number(header + 4)?.into()).filter(|udp| udp.len() >= UDP_HEADER)?;
    let has_sum = number(header + 6)? != 0 && checksum == Checksum::Complete;
    if number(header + 2)? != CLIENT_PORT || has_sum && udp_sum(&frame[12..20], udp) != u16::MAX {
        return None;
    }
    Some(header + UDP_HEADER..header + udp.len())
}

/// The sum over the pseudo header and the datagram (RFC 768).
fn udp_sum(addresses: &[u8], udp: &[u8]) -> u16 {
    let length = (udp.len() as u16).to_be_bytes();
    sum(&[addresses, &[0, UDP], &length, udp])
}

/// The Internet checksum's sum (RFC 1071) of parts of even length, but for the last.
fn sum(parts: &[&[u8]]) -> u16 {
    let words = parts.iter().flat_map(|part| part.chunks(2));
    let total: u32 = words.map(|word| u32::from(word[0]) << 8 | word.get(1).map_or(0, |low| u32::from(*low))).sum();
    let folded = (total >> 16) + (total & 0xffff);
    ((folded >> 16) + (folded & 0xffff)) as u16
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What a server sends: the same, the other way round.
    fn reply(message: &[u8]) -> Vec<u8> {
        let packet =
            Packet { from: Some(Ipv4Addr::new(192, 168, 0, 1)), to: Ipv4Addr::BROADCAST, message: message.into() };
        let mut bytes = datagram(&packet);
        // Swapping words does not change a sum.
        bytes.swap(20, 22);
        bytes.swap(21, 23);
        bytes
    }

    fn read(frame: &[u8]) -> Option<&[u8]> {
        message_of(frame, Checksum::Complete).map(|range| &frame[range])
    }

    #[test]
    fn known_sums() {
        // The header of RFC 1071's errata and of many a textbook.
        let header = [0x45, 0, 0, 0x73, 0, 0, 0x40, 0, 0x40, 0x11, 0, 0, 0xc0, 0xa8, 0, 1, 0xc0, 0xa8, 0, 0xc7];
        assert_eq!(!sum(&[&header]), 0xb861);
    }

    #[test]
    fn a_message_is_found_in_what_a_server_sends() {
        assert_eq!(read(&reply(b"hello")), Some(&b"hello"[..]));
        let mut padded = reply(b"hello");
        padded.extend([0; 20]);
        assert_eq!(read(&padded), Some(&b"hello"[..]), "the padding of a short frame");
        let mut with_options = reply(b"hello");
        with_options.splice(20..20, [1, 1, 1, 1]);
        (with_options[0], with_options[3]) = (0x46, with_options[3] + 4);
        with_options[10..12].fill(0);
        let header_sum = !sum(&[&with_options[..24]]);
        with_options[10..12].copy_from_slice(&header_sum.to_be_bytes());
        assert_eq!(read(&with_options), Some(&b"hello"[..]), "options in the IP header");
    }

    #[test]
    fn damage_is_noticed_and_a_missing_sum_forgiven() {
        let good = reply(b"hello");
        for at in 0..good.len() {
            let mut damaged = good.clone();
            damaged[at] ^= 0x10;
            assert_eq!(read(&damaged), None, "byte {at}");
        }
        let mut without = good.clone();
        without[26..28].fill(0);
        assert_eq!(read(&without), Some(&b"hello"[..]), "RFC 768: 0 means that there is none");
        let mut not_yet = good.clone();
        not_yet[26] ^= 1;
        assert!(message_of(&not_yet, Checksum::NotYet).is_some(), "the hardware would have computed it");
        assert_eq!(
            read(&datagram(&Packet { from: None, to: Ipv4Addr::BROADCAST, message: vec![] })),
            None,
            "to port 67"
        );
        let mut fragment = good;
        fragment[6] = 0x20;
        assert_eq!(read(&fragment), None);
    }

    proptest! {
        #[test]
        fn any_frame_is_survived(frame in proptest::collection::vec(any::<u8>(), 0..80), head in 0x44u8..0x48) {
            let mut frame = frame;
            let _ = message_of(&frame, Checksum::NotYet);
            if let Some(first) = frame.first_mut() {
                *first = head;
            }
            let _ = message_of(&frame, Checksum::NotYet);
        }

        #[test]
        fn any_message_arrives(message in proptest::collection::vec(any::<u8>(), 0..1473)) {
            let frame = reply(&message);
            prop_assert_eq!(read(&frame), Some(&message[..]));
        }
    }
}
