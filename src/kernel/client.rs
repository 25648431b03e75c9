//! A DHCP client that others wrote, at work in the calling thread's network namespace.
//!
//! Between it and who wants the lease stands another plumb, its keeper (`commands/keeper`). The two are
//! connected by a line: what the client says comes by it, and when either end of it closes, whatever
//! became of the process there, the client ends. So nobody has to look for clients that were left.

use std::{
    collections::VecDeque,
    env, io,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, poll},
    sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, send, socketpair},
};

use super::{
    Kernel,
    dhcp::{Quest, RawSocket, boot_time, cannot_ask, nothing_got},
    slice_until,
};
use crate::{
    dhcp::{
        Action, Lease, Machine, Phase, Program, Start,
        external::{Call, Told},
    },
    error::{Error, Result, plain},
    interrupt,
};

/// What makes a plumb a keeper: its call, in the environment.
pub const CALL: &str = "PLUMB_DHCP_CLIENT";

/// More than any event is long: a client's variables are those of one packet, and few others.
const LONGEST: usize = 65_536;

/// What comes by the line.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Said {
    /// An event of the client's.
    Event(Vec<u8>),
    /// It has ended, and why.
    Ended(String),
}

const EVENT: u8 = b'e';
const ENDED: u8 = b'!';

/// The end of the line that who wants the lease has. The client ends with it.
pub struct Running {
    program: Program,
    /// Whether it has been granted a lease. Before, it says that it has none, which is no news.
    has_had_one: bool,
    /// `None` only while it ends, as the line.
    keeper: Option<Child>,
    line: Option<OwnedFd>,
}

/// The keeper's end of the line.
pub struct Line(OwnedFd);

impl Running {
    /// Starts the client in the calling thread's network namespace.
    pub fn start(call: &Call) -> io::Result<Running> {
        let (ours, its) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
        // The file that this process runs, even if another version lies at its place by now.
        let mut command = Command::new("/proc/self/exe");
        command.arg0(format!("plumb: keeps {}", call.program)).env(CALL, serde_json::to_string(call)?);
        command.stdin(Stdio::from(its)).stdout(Stdio::null()).stderr(Stdio::null());
        // What is typed at a terminal is not meant for it.
        let keeper = command.process_group(0).spawn()?;
        Ok(Running { program: call.program, has_had_one: false, keeper: Some(keeper), line: Some(ours) })
    }

    /// What has been said so far, and what follows from it. An error says why the client has ended.
    pub fn hear(&mut self, machine: &mut Machine, now: Duration) -> (Vec<Action>, std::result::Result<(), String>) {
        let mut actions = Vec::new();
        while let Some(said) = self.receive() {
            match said {
                Said::Event(event) => match Told::read(self.program, &event) {
                    Ok(Told::Granted(lease)) => {
                        self.has_had_one = true;
                        actions.extend(machine.granted(now, Arc::new(*lease)));
                    }
                    Ok(Told::Lost(why)) if self.has_had_one => actions.extend(machine.revoked(now, why)),
                    Ok(Told::Lost(_) | Told::Nothing) => {}
                    Err(reason) => machine.complain(reason),
                },
                Said::Ended(why) => return (actions, Err(why)),
            }
        }
        (actions, Ok(()))
    }

    /// What has been said, without waiting; `None` if nothing.
    fn receive(&self) -> Option<Said> {
        let line = self.line.as_ref()?;
        let mut buffer = vec![0; LONGEST];
        match recv(line.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT) {
            Err(Errno::EAGAIN | Errno::EINTR) => None,
            Ok(length) => Some(match buffer[..length].split_first() {
                Some((&EVENT, event)) => Said::Event(event.to_vec()),
                Some((_, why)) => Said::Ended(String::from_utf8_lossy(why).into_owned()),
                None => Said::Ended("it was killed".into()),
            }),
            Err(errno) => Said::Ended(plain(&errno.into())).into(),
        }
    }

    pub fn line(&self) -> Option<BorrowedFd<'_>> {
        self.line.as_ref().map(AsFd::as_fd)
    }
}

/// How long it may take until all of a client has ended. It takes milliseconds, or as long as an engine.
const PATIENCE: Duration = Duration::from_secs(3);

/// It has ended when this returns, so that two clients never ask by the same interface. An engine that
/// hangs holds nobody up: it removes the container whenever it can.
impl Drop for Running {
    fn drop(&mut self) {
        self.line = None;
        let Some(mut keeper) = self.keeper.take() else { return };
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            if !matches!(keeper.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::spawn(move || keeper.wait());
    }
}

impl Line {
    /// The line of a process that was started as a keeper.
    pub fn of_this_process() -> io::Result<Line> {
        io::stdin().as_fd().try_clone_to_owned().map(Line)
    }

    pub fn pass_on(&self, event: &[u8]) {
        self.say(EVENT, event);
    }

    pub fn ended(&self, why: &str) {
        self.say(ENDED, why.as_bytes());
    }

    /// Nobody at the other end is no failure: the line is closed, and that ends it all.
    fn say(&self, what: u8, text: &[u8]) {
        let message = [&[what], text].concat();
        let message = &message[..message.len().min(LONGEST)];
        let _ = send(self.0.as_raw_fd(), message, MsgFlags::MSG_NOSIGNAL);
    }
}

impl AsFd for Line {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Where the program is on this host. Users' PATHs often leave out where administrators' programs are.
pub fn find(program: Program) -> Result<PathBuf> {
    let typed = env::var_os("PATH").unwrap_or_default();
    let usual = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from);
    let name = Path::new(program.name());
    let found = env::split_paths(&typed).chain(usual).map(|folder| folder.join(name)).find(|path| path.is_file());
    found.ok_or_else(|| {
        let error = Error::failed(format!("{program} is not installed on this host"));
        match program.package() {
            Some(package) => {
                error.hint(format!("apt install {package}, or leave --client out: plumb has a client of its own"))
            }
            None => error,
        }
    })
}

impl Kernel {
    /// As `acquire`, by another client: until it was granted a lease that can be used. It has ended then,
    /// and nothing was given back. The machine must be one that listens.
    pub fn acquire_by(&mut self, call: &Call, machine: &mut Machine, quest: &Quest<'_>) -> Result<Arc<Lease>> {
        let outcome = self.seek_by(call, machine, quest);
        if outcome.is_err() && machine.phase() == Phase::Checking {
            // The failure is what the user must hear of; the lease ends by itself.
            let _ = perform(&machine.release(), quest);
        }
        outcome
    }

    fn seek_by(&mut self, call: &Call, machine: &mut Machine, quest: &Quest<'_>) -> Result<Arc<Lease>> {
        let end = Instant::now() + quest.timeout;
        let cannot = |error: io::Error| Error::io(format!("cannot start {}", call.program), &error);
        machine.start(boot_time(), Start::Init { prefer: None });
        let mut running = Running::start(call).map_err(cannot)?;
        loop {
            let (heard, lives) = running.hear(machine, boot_time());
            let mut actions = VecDeque::from(heard);
            while let Some(action) = actions.pop_front() {
                match action {
                    Action::Send(_) => perform(&[action], quest).map_err(|error| cannot_ask(quest, &error))?,
                    Action::Check(ip) => {
                        actions.extend(self.check_address(machine, ip, quest)?);
                        if machine.phase() == Phase::Init {
                            // It knows nothing of what was declined in its name.
                            drop(running);
                            running = Running::start(call).map_err(cannot)?;
                        }
                    }
                    Action::Bound { lease, .. } => return Ok(lease),
                    // There was none before.
                    Action::Lost { .. } => {}
                }
            }
            lives.map_err(Error::failed)?;
            if Instant::now() >= end {
                return Err(nothing_got(machine, quest));
            }
            await_word(&running, end);
            interrupt::check()?;
        }
    }
}

/// Sends what is to be sent, by a socket for this once.
fn perform(actions: &[Action], quest: &Quest<'_>) -> io::Result<()> {
    let socket = RawSocket::open(quest.index)?;
    actions.iter().try_for_each(|action| match action {
        Action::Send(packet) => socket.send(packet),
        Action::Check(_) | Action::Bound { .. } | Action::Lost { .. } => Ok(()),
    })
}

/// Until something is said, or `end`, or a signal might have arrived.
fn await_word(running: &Running, end: Instant) {
    if let Some(line) = running.line() {
        // Interrupted or not, it is looked at next.
        let _ = poll(&mut [PollFd::new(line, PollFlags::POLLIN)], slice_until(end));
    }
}
