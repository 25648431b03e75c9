//! One lease: its client's state, and the socket of an exchange while there is one.

use std::{io, os::fd::AsFd, sync::Arc, time::Duration};

use nix::{libc, net::if_::if_indextoname};

use super::ipv6::Ipv6;
use crate::{
    agent::watch::{Process, Watch},
    dhcp::{Action, External, Lease, Machine, Packet, Phase, Start},
    error::Result,
    kernel::{
        Lifetimes, Netns,
        client::Running,
        cookie,
        dhcp::{BUFFER, LeasedSocket, RawSocket, boot_time},
    },
    namespace,
    plan::{Driver, LinkAddress},
    store::{Attachment, Holding, Key, LeaseRecord, Moment, NamespaceMark},
    types::{IfName, Place},
};

/// For how long an answer is waited for with an open socket. Whoever takes longer is asked again.
const PATIENCE: Duration = Duration::from_secs(10);
/// When to look again at a network whose container has gone, and that somebody keeps.
const AGAIN: Duration = Duration::from_secs(300);
/// RFC 2131 section 3.1 point 5: at least so long after a DECLINE.
const AFTER_DECLINE: Duration = Duration::from_secs(10);

pub struct Tended {
    home: Arc<Netns>,
    /// Of the attachment.
    pub owner: Key,
    pub place: Place,
    pub mark: NamespaceMark,
    /// The link inside.
    pub index: u32,
    pub parent: IfName,
    /// Only the parent hears who answers for an address that is not used yet.
    pub check_on_parent: bool,
    pub probe: Duration,
    pub record: LeaseRecord,
    pub machine: Machine,
    /// How and when it begins.
    pub begin: Option<(Duration, Start)>,
    exchange: Option<Exchange>,
    /// Who asks, if not the machine.
    client: Option<Client>,
    pub process: Option<Process>,
    /// What the container has. Of one that was left half-way nobody knows.
    pub has: Option<Option<Arc<Lease>>>,
    /// What it shall have, and since when that is so.
    pub shall: Option<(Arc<Lease>, Moment)>,
    /// The IPv6 address that is leased besides.
    pub ipv6: Option<Ipv6>,
    /// A thread is at work on the container.
    pub busy: bool,
    /// When the duty looks at it next.
    pub scheduled: Option<Duration>,
    /// When to try again what failed.
    pub retry: Option<Duration>,
    /// When to look whether anybody but its client is in the container's network still.
    pub look: Option<Duration>,
}

struct Exchange {
    socket: Socket,
    lifetimes: Lifetimes,
    until: Duration,
}

enum Socket {
    Raw(RawSocket),
    Leased(LeasedSocket),
}

/// A client that others wrote.
struct Client {
    external: External,
    running: Option<Running>,
    /// When to start it.
    wake: Option<Duration>,
    /// How often it has been started since it was granted a lease last.
    starts: u32,
}

impl Client {
    fn new(external: External) -> Client {
        Client { external, running: None, wake: Some(Duration::ZERO), starts: 0 }
    }

    /// How long to wait before it is started again: 1, 2, 4 and at last 64 seconds.
    fn pause(&mut self) -> Duration {
        self.starts += 1;
        Duration::from_secs(1 << (self.starts - 1).min(6))
    }

    fn end(&mut self, watch: &Watch) {
        if let Some(running) = self.running.take() {
            running.line().into_iter().for_each(|line| watch.remove(line));
        }
    }
}

/// Why nothing was sent.
pub enum Silence {
    ContainerGone,
    LinkGone,
    Failed(String),
}

impl Tended {
    /// `None` for one that nobody is to renew.
    pub fn new(attachment: &Attachment, record: LeaseRecord, home: Arc<Netns>, seed: u64) -> Option<Tended> {
        let (link, dhcp) = (attachment.link()?, attachment.dhcp.as_ref().filter(|dhcp| dhcp.renew)?);
        let lease = Arc::new(record.lease.clone());
        let held = record.state == Holding::Held;
        let is_whole = match held {
            true => attachment.wish.addresses.as_slice() == [lease.address],
            false => attachment.wish.addresses.is_empty(),
        };
        Some(Tended {
            home,
            owner: attachment.final_key(),
            place: attachment.place.clone(),
            mark: attachment.namespace.clone(),
            index: link.index,
            parent: link.parent.name.clone(),
            check_on_parent: matches!(link.driver, Driver::Ipvlan(_)),
            probe: dhcp.probe.duration(),
            machine: dhcp.machine(seed),
            begin: None,
            exchange: None,
            client: dhcp.external.clone().map(Client::new),
            process: None,
            has: is_whole.then(|| held.then(|| lease.clone())),
            shall: held.then(|| (lease, record.asked.clone())),
            ipv6: None,
            busy: false,
            scheduled: None,
            retry: None,
            look: None,
            record,
        })
    }

    /// `TARGET: INTERFACE`, as messages begin.
    pub fn name(&self) -> String {
        format!("{}: {}", self.record.target, self.record.interface)
    }

    /// When there is something to do next, since boot; none: only once something is heard.
    pub fn wake(&self) -> Option<Duration> {
        let begins = self.begin.as_ref().map(|(at, _)| *at);
        let next = begins.or_else(|| self.machine.wake());
        let client = self.client.as_ref().and_then(|client| client.wake);
        let ipv6 = self.ipv6.as_ref().and_then(Ipv6::wake);
        let until = self.exchange.as_ref().map(|exchange| exchange.until);
        [next, until, self.retry, self.look, client, ipv6].into_iter().flatten().min()
    }

    /// What is due.
    pub fn tick(&mut self, now: Duration, watch: &Watch) -> Vec<Action> {
        if self.exchange.as_ref().is_some_and(|exchange| exchange.until <= now) {
            self.close(watch);
        }
        if self.retry.is_some_and(|at| at <= now) {
            self.retry = None;
        }
        match self.begin.take() {
            Some((at, start)) if at <= now => self.machine.start(now, start),
            Some(later) => {
                self.begin = Some(later);
                Vec::new()
            }
            None => self.machine.tick(now),
        }
    }

    /// What has arrived.
    pub fn receive(&mut self, watch: &Watch) -> Vec<Action> {
        let mut actions = self.hear_client(watch);
        let Some(exchange) = &self.exchange else { return actions };
        let mut buffer = [0; BUFFER];
        loop {
            let received = match &exchange.socket {
                Socket::Raw(socket) => socket.receive(&mut buffer),
                Socket::Leased(socket) => socket.receive(&mut buffer),
            };
            match received {
                Ok(Some(message)) => actions.extend(self.machine.receive(boot_time(), message)),
                // Of an error the next message will tell.
                Ok(None) | Err(_) => return actions,
            }
        }
    }

    pub fn send(&mut self, packet: &Packet, number: u64, watch: &Watch) -> std::result::Result<(), Silence> {
        let by_address = packet.from.is_some();
        match self.try_send(packet, by_address, number, watch) {
            // Somebody took the address from the link. The server will answer all the same.
            Err(Silence::Failed(_)) if by_address => self.try_send(packet, false, number, watch),
            other => other,
        }
    }

    fn try_send(
        &mut self,
        packet: &Packet,
        by_address: bool,
        number: u64,
        watch: &Watch,
    ) -> std::result::Result<(), Silence> {
        let fits = matches!(
            (&self.exchange, by_address),
            (Some(Exchange { socket: Socket::Raw(_), .. }), false)
                | (Some(Exchange { socket: Socket::Leased(_), .. }), true)
        );
        if !fits {
            self.close(watch);
            let (socket, lifetimes) = self.open(by_address)?;
            socket.watched(|descriptor| watch.add(descriptor, number)).map_err(|e| Silence::Failed(e.message))?;
            self.exchange = Some(Exchange { socket, lifetimes, until: Duration::ZERO });
        }
        let Some(exchange) = &mut self.exchange else { return Ok(()) };
        exchange.until = boot_time() + PATIENCE;
        let sent = match &exchange.socket {
            Socket::Raw(socket) => socket.send(packet),
            Socket::Leased(socket) => socket.send(packet),
        };
        sent.map_err(|error| {
            self.close(watch);
            silence(&self.record.interface, &error)
        })
    }

    /// Starts the client that asks, if there is one and it is time. If it cannot be, it is tried again.
    pub fn start_client(&mut self, now: Duration, number: u64, watch: &Watch) -> std::result::Result<(), Silence> {
        let Some(client) = self.client.as_mut().filter(|client| client.wake.is_some_and(|wake| wake <= now)) else {
            return Ok(());
        };
        client.end(watch);
        client.wake = Some(now + client.pause());
        let external = client.external.clone();
        let started = self.there(|| {
            let name = if_indextoname(self.index)?;
            let call = external.call(self.machine.client(), &name.to_string_lossy(), Some(&self.record.lease));
            Running::start(&call.map_err(io::Error::other)?)
        });
        let running = started.map_err(|error| match silence(&self.record.interface, &error) {
            Silence::Failed(_) => {
                Silence::Failed(format!("cannot start {}: {}", external.program, crate::error::plain(&error)))
            }
            gone => gone,
        })?;
        running.line().map_or(Ok(()), |line| watch.add(line, number)).map_err(|e| Silence::Failed(e.message))?;
        if let Some(client) = &mut self.client {
            (client.running, client.wake) = (Some(running), None);
        }
        Ok(())
    }

    /// What the client says, and whether it has ended.
    fn hear_client(&mut self, watch: &Watch) -> Vec<Action> {
        let mut actions = Vec::new();
        let Some(client) = &mut self.client else { return actions };
        let now = boot_time();
        let Some(running) = &mut client.running else { return actions };
        let (heard, lives) = running.hear(&mut self.machine, now);
        actions.extend(heard);
        if actions.iter().any(|action| matches!(action, Action::Bound { .. })) {
            client.starts = 0;
        }
        if let Err(why) = lives {
            client.end(watch);
            client.wake = Some(now + client.pause());
            self.machine.complain(why);
        }
        actions
    }

    /// Somebody else uses the address. A client that others wrote knows nothing of what is declined in
    /// its name: it begins anew, after a while.
    pub fn in_use(&mut self, now: Duration, watch: &Watch) -> Vec<Action> {
        if let Some(client) = &mut self.client {
            client.end(watch);
            client.wake = Some(now + AFTER_DECLINE);
        }
        self.machine.in_use(now)
    }

    /// Ends the client, for now.
    pub fn end_client(&mut self, watch: &Watch) {
        if let Some(client) = &mut self.client {
            client.end(watch);
            client.wake = Some(boot_time());
            // Nobody else will tell: where the process or the name is gone, the client may be the last one.
            self.look = Some(boot_time() + AGAIN);
        }
    }

    /// Opens sockets inside, which stay there.
    fn open(&self, by_address: bool) -> std::result::Result<(Socket, Lifetimes), Silence> {
        let there = namespace::find(&self.place, &self.mark).ok_or(Silence::ContainerGone)?;
        let (index, mark) = (self.index, self.mark.cookie);
        let opened = there.visit(&self.home, || match cookie() == mark {
            true => Ok((open_socket(index, by_address), Lifetimes::open())),
            false => Err(Silence::ContainerGone),
        });
        let (socket, lifetimes) = opened.map_err(|error| Silence::Failed(error.message))??;
        let failed = |error| silence(&self.record.interface, &error);
        Ok((socket.map_err(failed)?, lifetimes.map_err(failed)?))
    }

    /// The address may be used for as long as the lease that was just renewed. Best effort: a renewal that
    /// did not say so leaves it to the next one.
    pub fn prolong(&self) {
        let Some((lease, _)) = &self.shall else { return };
        let (Some(until), Ok(name)) = (self.machine.expires(), self.record.interface.parse()) else { return };
        let address = LinkAddress { index: self.index, name, address: lease.address, skip_dad: false };
        let left = until.saturating_sub(boot_time());
        let _ = match &self.exchange {
            Some(exchange) => exchange.lifetimes.limit(&address, left),
            // Another client asked, by a socket of its own.
            None => self.there(Lifetimes::open).and_then(|socket| socket.limit(&address, left)),
        };
    }

    /// Does `work` inside, for what stays there.
    fn there<T>(&self, work: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        let gone = || io::Error::from_raw_os_error(libc::ESRCH);
        let there = namespace::find(&self.place, &self.mark).ok_or_else(gone)?;
        let inside = || if cookie() == self.mark.cookie { work() } else { Err(gone()) };
        there.visit(&self.home, inside).map_err(|error| io::Error::other(error.message))?
    }

    /// Ends an exchange that is under way: its socket is closed and no longer watched.
    pub fn close(&mut self, watch: &Watch) {
        if let Some(exchange) = self.exchange.take() {
            let _ = exchange.socket.watched(|descriptor| {
                watch.remove(descriptor);
                Ok(())
            });
        }
    }

    /// Closes what is no longer needed: in these states nobody is asked anything.
    pub fn rest(&mut self, watch: &Watch) {
        if matches!(self.machine.phase(), Phase::Bound | Phase::Stopped | Phase::Checking | Phase::Init) {
            self.close(watch);
        }
    }

    /// What the container has to be given or has to lose, if anything. `Some(None)` is: to lose.
    pub fn owed(&self) -> Option<Option<Arc<Lease>>> {
        let shall = self.shall.as_ref().map(|(lease, _)| lease.clone());
        let is_so = match (&self.has, &shall) {
            (Some(Some(has)), Some(shall)) => says_the_same(has, shall),
            (Some(None), None) => true,
            _ => false,
        };
        (!is_so && !self.busy && self.retry.is_none()).then_some(shall)
    }
}

/// A socket on the link with this index, whatever it is called by now.
fn open_socket(index: u32, by_address: bool) -> io::Result<Socket> {
    if !by_address {
        return RawSocket::open(index).map(Socket::Raw);
    }
    let gone = || io::Error::from_raw_os_error(libc::ENODEV);
    let name = if_indextoname(index).map_err(|_| gone())?;
    let name: IfName = name.to_string_lossy().parse().map_err(|_| gone())?;
    LeasedSocket::open(&name).map(Socket::Leased)
}

impl Socket {
    fn watched(&self, work: impl FnOnce(std::os::fd::BorrowedFd<'_>) -> Result<()>) -> Result<()> {
        match self {
            Socket::Raw(socket) => work(socket.as_fd()),
            Socket::Leased(socket) => work(socket.as_fd()),
        }
    }
}

fn silence(interface: &str, error: &io::Error) -> Silence {
    match error.raw_os_error() {
        Some(libc::ESRCH) => Silence::ContainerGone,
        Some(libc::ENODEV | libc::ENXIO) => Silence::LinkGone,
        Some(libc::ENETDOWN) => Silence::Failed(format!("{interface} is down")),
        _ => Silence::Failed(format!("cannot ask by {interface}: {}", crate::error::plain(error))),
    }
}

/// Whether two leases give a container the same.
fn says_the_same(one: &Lease, other: &Lease) -> bool {
    (one.dns == other.dns && one.search == other.search)
        && one.address == other.address
        && one.routers.first() == other.routers.first()
        && one.routes == other.routes
        && one.mtu == other.mtu
}
