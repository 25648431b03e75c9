//! DHCPv6's socket, and IPv6 addresses that come from the LAN: what `dhcp::v6::Machine` decides is done here.
//! A client speaks from its link-local address, so unlike that for IPv4 it needs no packets of its own making.

use std::{
    io,
    net::{Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket},
    os::fd::{AsFd, AsRawFd},
    sync::Arc,
    time::{Duration, Instant},
};

use nix::{
    net::if_::if_indextoname,
    poll::{PollFd, PollFlags, poll},
    sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, SockaddrIn6, bind, setsockopt, socket, sockopt},
};

use super::{Kernel, Lifetimes, dhcp::boot_time, slice_until};
use crate::{
    apply::StepError,
    dhcp::v6::{Action, Client, Lease, Machine, Start},
    error::{Error, Kind, Result},
    interrupt,
    plan::{
        LinkAddress,
        facts::{InsideAddress, InsideLink},
    },
    types::{HostAddress, IfName, Tag},
};

const SERVER_PORT: u16 = 547;
const CLIENT_PORT: u16 = 546;
/// All_DHCP_Relay_Agents_and_Servers (RFC 8415 section 7.1).
const SERVERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2);
const BUFFER: usize = 4096;
/// The kernel takes one to two seconds to ask whether an address is free.
const DAD_LIMIT: Duration = Duration::from_secs(5);

/// Where an address is sought.
#[derive(Debug, Clone)]
pub struct Quest<'a> {
    /// The interface inside.
    pub index: u32,
    pub name: &'a IfName,
    /// Its tag: another link may have its number by now.
    pub tag: &'a Tag,
    /// The interface that people know it by: the host's.
    pub on: &'a str,
    /// Addresses are used without the kernel's asking whether they are free.
    pub skip_dad: bool,
    pub timeout: Duration,
}

/// What has come of an exchange.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The link has this lease's address.
    Bound(Arc<Lease>),
    /// The link has no address any more.
    Lost,
}

impl Kernel {
    /// Drives the machine until the link has a leased address.
    pub fn acquire_ipv6(&mut self, machine: &mut Machine, start: Start, quest: &Quest<'_>) -> Result<Arc<Lease>> {
        let end = Instant::now() + quest.timeout;
        self.await_link_local(quest, end)?;
        let mut actions = machine.start(boot_time(), start);
        loop {
            match self.exchange_ipv6(machine, actions, quest, end)? {
                Some(Outcome::Bound(lease)) => return Ok(lease),
                _ if Instant::now() >= end => return Err(nothing_got(machine, quest)),
                // Another address is asked for.
                _ => actions = machine.tick(boot_time()),
            }
        }
    }

    /// Does what the machine says and waits for what servers answer, until something has come of it or the
    /// time is over. The link is given the address of a lease, and loses what is no longer leased.
    pub fn exchange_ipv6(
        &mut self,
        machine: &mut Machine,
        mut actions: Vec<Action>,
        quest: &Quest<'_>,
        end: Instant,
    ) -> Result<Option<Outcome>> {
        let cannot_ask =
            |error: io::Error| Error::io(format!("cannot ask for an IPv6 address on {}", quest.on), &error);
        let socket = LinkLocalSocket::open(quest.index).map_err(cannot_ask)?;
        let mut outcome = None;
        loop {
            for action in std::mem::take(&mut actions) {
                match action {
                    Action::Send(message) => socket.send(&message).map_err(cannot_ask)?,
                    Action::Lost { lease, .. } => {
                        self.drop_leased(&lease, quest)?;
                        outcome = Some(Outcome::Lost);
                    }
                    Action::Bound { lease, before } => match self.use_leased(&lease, before.as_deref(), quest)? {
                        true => outcome = Some(Outcome::Bound(lease)),
                        // Told once the others are done.
                        false => actions.extend(machine.in_use(boot_time())),
                    },
                }
            }
            if !actions.is_empty() {
                continue;
            }
            if outcome.is_some() || Instant::now() >= end {
                return Ok(outcome);
            }
            let pause = machine.wake().map_or(quest.timeout, |wake| wake.saturating_sub(boot_time()));
            socket.wait(end.min(Instant::now() + pause)).map_err(cannot_ask)?;
            interrupt::check()?;
            let mut buffer = [0; BUFFER];
            actions = match socket.receive(&mut buffer).map_err(cannot_ask)? {
                Some((from, message)) => machine.receive(boot_time(), from, message),
                None => machine.tick(boot_time()),
            };
        }
    }

    /// The link's address is the lease's, for as long as that lasts. Says whether nobody else has it.
    fn use_leased(&mut self, lease: &Lease, before: Option<&Lease>, quest: &Quest<'_>) -> Result<bool> {
        let is_ours = |link: &InsideLink| link.index == quest.index && link.tag.as_ref() == Some(quest.tag);
        if !self.links()?.iter().any(is_ours) {
            return Err(Error::not_found(format!("{} has gone", quest.name)));
        }
        let there = self.addresses()?.into_iter().any(|a| a.index == quest.index && a.ip == lease.address.ip());
        if !there {
            self.add_address(&on_link(lease.address, quest))?;
            if !quest.skip_dad {
                match self.await_ipv6(quest.index, DAD_LIMIT) {
                    Err(error) if error.kind == Kind::Conflict => {
                        self.drop_leased(lease, quest)?;
                        return Ok(false);
                    }
                    other => other?,
                }
            }
        }
        if let Some(valid) = lease.term.expire() {
            let limited = Lifetimes::open().and_then(|socket| socket.limit(&on_link(lease.address, quest), valid));
            limited.map_err(|error| Error::io(format!("cannot limit {} to its lease", lease.address), &error))?;
        }
        match before.filter(|before| before.address != lease.address) {
            Some(before) => self.drop_leased(before, quest).map(|()| true),
            None => Ok(true),
        }
    }

    fn drop_leased(&mut self, lease: &Lease, quest: &Quest<'_>) -> Result<()> {
        match self.delete_address(&on_link(lease.address, quest)) {
            Ok(()) | Err(StepError::Gone(_)) => Ok(()),
            Err(StepError::Refused(error)) => Err(error),
        }
    }

    /// Waits until the link has an address to ask from.
    fn await_link_local(&mut self, quest: &Quest<'_>, end: Instant) -> Result<()> {
        self.await_addresses(quest.index, end, |ip| ip.is_unicast_link_local())?.map_or_else(
            || {
                Err(Error::timed_out(format!("{} has no link-local address yet, and DHCPv6 asks from one", quest.name))
                    .hint("duplicate address detection takes one to two seconds; --timeout waits longer"))
            },
            |_| Ok(()),
        )
    }

    /// Waits until the link has addresses by a router's advertisements, and the kernel knows that nobody
    /// else has them.
    pub fn await_advertised(&mut self, quest: &Quest<'_>) -> Result<Vec<InsideAddress>> {
        let end = Instant::now() + quest.timeout;
        let found = self.await_addresses(quest.index, end, |ip| !ip.is_unicast_link_local())?;
        found.ok_or_else(|| {
            let (on, limit) = (quest.on, quest.timeout.as_secs_f64());
            Error::timed_out(format!("no router on {on} advertised an IPv6 prefix within {limit} s"))
                .hint("does the router advertise one for autoconfiguration? --ipv6 dhcp asks a server instead")
        })
    }

    fn await_addresses(
        &mut self,
        index: u32,
        end: Instant,
        wanted: impl Fn(Ipv6Addr) -> bool,
    ) -> Result<Option<Vec<InsideAddress>>> {
        let is_wanted = |ip: std::net::IpAddr| matches!(ip, std::net::IpAddr::V6(ip) if wanted(ip));
        loop {
            let mut found = self.addresses()?;
            found.retain(|address| address.index == index && is_wanted(address.ip));
            if let Some(taken) = found.iter().find(|address| address.duplicate) {
                return Err(Error::conflict(format!("{} is in use on the LAN: another host answers for it", taken.ip))
                    .hint("it comes from the MAC address: give another one by --mac"));
            }
            if !found.is_empty() && !found.iter().any(|address| address.tentative) {
                return Ok(Some(found));
            }
            if Instant::now() >= end {
                return Ok(None);
            }
            interrupt::sleep(Duration::from_millis(10))?;
        }
    }
}

fn on_link(address: HostAddress, quest: &Quest<'_>) -> LinkAddress {
    LinkAddress { index: quest.index, name: quest.name.clone(), address, skip_dad: quest.skip_dad }
}

fn nothing_got(machine: &Machine, quest: &Quest<'_>) -> Error {
    let (on, limit) = (quest.on, quest.timeout.as_secs_f64());
    match machine.complaint() {
        Some(complaint) => Error::timed_out(format!("no IPv6 lease on {on} within {limit} s: {complaint}")),
        None => Error::timed_out(format!("no DHCPv6 server answered on {on} within {limit} s")).hint(
            "does the LAN have one? many have routers only: --ipv6 slaac takes an address by their advertisements",
        ),
    }
}

/// Gives a lease back by an interface of the calling thread's namespace: nobody waits for the answer.
pub fn release(index: u32, client: Client, lease: &Lease) -> io::Result<()> {
    let mut machine = Machine::new(client, boot_time().as_nanos() as u64);
    machine.start(boot_time(), Start::Resume { lease: lease.clone().into(), age: Duration::ZERO });
    let socket = LinkLocalSocket::open(index)?;
    machine.release().iter().try_for_each(|action| match action {
        Action::Send(message) => socket.send(message),
        Action::Bound { .. } | Action::Lost { .. } => Ok(()),
    })
}

/// Port 546 of one interface. It stays in the namespace that it was opened in.
struct LinkLocalSocket {
    socket: UdpSocket,
    servers: SocketAddrV6,
}

impl LinkLocalSocket {
    /// On the link with this index, whatever it is called by now.
    fn open(index: u32) -> io::Result<LinkLocalSocket> {
        let name = if_indextoname(index)?;
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let fd = socket(AddressFamily::Inet6, SockType::Datagram, flags, SockProtocol::Udp)?;
        // Another client, or another of ours, may listen for another interface.
        setsockopt(&fd, sockopt::ReuseAddr, &true)?;
        setsockopt(&fd, sockopt::BindToDevice, &name.into_string().unwrap_or_default().into())?;
        let any = SocketAddrV6::new(Ipv6Addr::UNSPECIFIED, CLIENT_PORT, 0, 0);
        bind(fd.as_raw_fd(), &SockaddrIn6::from(any))?;
        Ok(LinkLocalSocket { socket: fd.into(), servers: SocketAddrV6::new(SERVERS, SERVER_PORT, 0, index) })
    }

    fn send(&self, message: &[u8]) -> io::Result<()> {
        self.socket.send_to(message, self.servers).map(drop)
    }

    fn wait(&self, end: Instant) -> io::Result<()> {
        match poll(&mut [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)], slice_until(end)) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// The next message that is there and who sent it, without waiting.
    fn receive<'a>(&self, buffer: &'a mut [u8]) -> io::Result<Option<(Ipv6Addr, &'a [u8])>> {
        match self.socket.recv_from(buffer) {
            Ok((bytes, SocketAddr::V6(from))) => Ok(Some((*from.ip(), &buffer[..bytes]))),
            Ok((_, SocketAddr::V4(_))) => Ok(None),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => Ok(None),
            Err(error) => Err(error),
        }
    }
}
