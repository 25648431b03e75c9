//! Packet sockets, which speak below IP.

use std::{
    io::{self, IoSlice, IoSliceMut},
    mem,
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
};

use nix::{
    libc,
    sys::socket::{
        AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recv, recvmsg, sendmsg,
        socketpair,
    },
};

/// What the frames of a socket carry.
#[derive(Debug, Clone, Copy)]
pub enum Protocol {
    Arp = libc::ETH_P_ARP as isize,
    Ip = libc::ETH_P_IP as isize,
}

const BROADCAST: [u8; 6] = [0xff; 6];

/// A socket for the frames of one interface and one protocol.
pub struct PacketSocket {
    /// `None` only while it is dropped.
    fd: Option<OwnedFd>,
    interface: u32,
    protocol: Protocol,
}

impl PacketSocket {
    /// Opens a socket in the calling thread's namespace that can send, and hears nothing yet.
    pub fn open(interface: u32, protocol: Protocol) -> io::Result<PacketSocket> {
        // Protocol 0: a socket that is opened with a protocol hears all interfaces at once, and the
        // later bind to one then waits an RCU grace period, some 13 ms.
        // SAFETY: a plain system call; the descriptor is ours and is owned from here on.
        let fd = unsafe {
            let fd = libc::socket(libc::AF_PACKET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK, 0);
            if fd < 0 {
                return Err(io::Error::last_os_error());
            }
            OwnedFd::from_raw_fd(fd)
        };
        Ok(PacketSocket { fd: Some(fd), interface, protocol })
    }

    /// Hears the interface's frames from now on.
    pub fn listen(&self) -> io::Result<()> {
        let address = self.address();
        // SAFETY: the address is a live sockaddr_ll, and its true size is given.
        let outcome = unsafe { libc::bind(self.raw(), (&raw const address).cast(), SIZE) };
        if outcome < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Hears only those of its frames that the program lets pass, and tells of each how far its
    /// checksums can be believed. To be called before [`PacketSocket::listen`].
    pub fn hear_only(&self, program: &[libc::sock_filter]) -> io::Result<()> {
        let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_ptr().cast_mut() };
        self.set(libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &filter)?;
        self.set(libc::SOL_PACKET, libc::PACKET_AUXDATA, &1i32)
    }

    fn set<T>(&self, level: i32, name: i32, value: &T) -> io::Result<()> {
        let size = mem::size_of::<T>() as libc::socklen_t;
        // SAFETY: pointer and size are those of a live value; a filter's program is copied by the call.
        let outcome = unsafe { libc::setsockopt(self.raw(), level, name, (&raw const *value).cast(), size) };
        if outcome < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Sends `payload` to all hosts of the link.
    pub fn broadcast(&self, payload: &[u8]) -> io::Result<()> {
        let address = self.address();
        // SAFETY: pointer and length are those of a live slice and a live sockaddr_ll.
        let sent = unsafe {
            libc::sendto(self.raw(), payload.as_ptr().cast(), payload.len(), 0, (&raw const address).cast(), SIZE)
        };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// The next frame that is there, without waiting.
    pub fn receive(&self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        match recv(self.raw(), buffer, MsgFlags::empty()) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(nix::errno::Errno::EAGAIN | nix::errno::Errno::EINTR) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Like `receive`, and says whether the frame's checksum is there. One that comes from this very
    /// machine may not have one yet: the kernel leaves it to the hardware that it never gets to.
    pub fn receive_with_status(&self, buffer: &mut [u8]) -> io::Result<Option<(usize, Checksum)>> {
        let mut slices = [IoSliceMut::new(buffer)];
        let mut space = nix::cmsg_space!(libc::tpacket_auxdata);
        let received = match recvmsg::<()>(self.raw(), &mut slices, Some(&mut space), MsgFlags::empty()) {
            Ok(received) => received,
            Err(nix::errno::Errno::EAGAIN | nix::errno::Errno::EINTR) => return Ok(None),
            Err(errno) => return Err(errno.into()),
        };
        let mut checksum = Checksum::Complete;
        for message in received.cmsgs()? {
            if let ControlMessageOwned::Unknown(unknown) = message
                && unknown.cmsg_header.cmsg_type == libc::PACKET_AUXDATA
                && let Some(status) = unknown.data_bytes.first_chunk()
                && u32::from_ne_bytes(*status) & libc::TP_STATUS_CSUMNOTREADY != 0
            {
                checksum = Checksum::NotYet;
            }
        }
        Ok(Some((received.bytes, checksum)))
    }

    pub fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the descriptor is open for as long as this value lives.
        unsafe { BorrowedFd::borrow_raw(self.raw()) }
    }

    fn raw(&self) -> i32 {
        self.fd.as_ref().map_or(-1, |fd| fd.as_raw_fd())
    }

    fn address(&self) -> libc::sockaddr_ll {
        // SAFETY: all zeros is a valid sockaddr_ll.
        let mut address: libc::sockaddr_ll = unsafe { mem::zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = (self.protocol as u16).to_be();
        address.sll_ifindex = self.interface as i32;
        address.sll_halen = 6;
        address.sll_addr[..6].copy_from_slice(&BROADCAST);
        address
    }
}

/// Whether a frame's checksum was computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Checksum {
    Complete,
    NotYet,
}

const SIZE: libc::socklen_t = mem::size_of::<libc::sockaddr_ll>() as libc::socklen_t;

impl Drop for PacketSocket {
    /// Closing a packet socket waits an RCU grace period in the kernel (`packet_release`), some
    /// 14 ms, four times as long as all of an attachment. A descriptor that is on its way through
    /// a Unix socket which nobody can reach any more is closed by the kernel's own collector
    /// instead (`net/unix/garbage.c`), later and in its own time: 0.04 ms. Where that fails it is
    /// closed here, and takes its time.
    fn drop(&mut self) {
        let Some(fd) = self.fd.take() else { return };
        let pair = socketpair(AddressFamily::Unix, SockType::Datagram, None, SockFlag::SOCK_CLOEXEC);
        if let Ok((here, there)) = pair {
            // The receiving end travels to itself: that makes the cycle.
            let descriptors = [fd.as_raw_fd(), there.as_raw_fd()];
            let _ = sendmsg::<()>(
                here.as_raw_fd(),
                &[IoSlice::new(&[0])],
                &[ControlMessage::ScmRights(&descriptors)],
                MsgFlags::MSG_DONTWAIT,
                None,
            );
            // Ours first: closing the pair sets the collector off, and the last to close is who waits.
            drop(fd);
        }
    }
}
