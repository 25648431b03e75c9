//! A client of the host's, in a room of its own.

use std::{
    env, fs,
    io::{self, PipeReader, Read, pipe},
    os::{
        fd::{AsFd, BorrowedFd},
        unix::{net::UnixDatagram, process::CommandExt},
    },
    path::Path,
    process::{self, Command, Stdio},
};

use nix::{
    errno::Errno,
    mount::{MsFlags, mount},
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sched::{CloneFlags, unshare},
    sys::{
        signal::{SigSet, Signal},
        signalfd::{SfdFlags, SignalFd},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::Pid,
};

use crate::{
    dhcp::external::{Call, EVENT, FOLDER, SOCKET},
    error::{Error, Result},
    kernel::client::{Line, find},
};

/// The first process of a namespace has this number there, and nobody else has it.
const FIRST: u32 = 1;
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// More than any event is long.
const LONGEST: usize = 65_535;

/// Keeps the client until the line closes or the client ends.
pub fn keep(call: &Call, line: &Line) -> Result<()> {
    if process::id() == FIRST { inside(call, line) } else { outside() }
}

/// A process cannot enter a namespace of processes itself; what it starts does. It then waits, so that
/// who waits for this process waits for all.
fn outside() -> Result<()> {
    let failed = |error: io::Error| Error::io("cannot make a DHCP client's namespaces", &error);
    unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWPID).map_err(|errno| failed(errno.into()))?;
    let mut command = Command::new("/proc/self/exe");
    // As people see it among the processes.
    command.arg0(env::args().next().unwrap_or_default());
    command.stdin(Stdio::inherit()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().map(drop).map_err(failed)
}

fn inside(call: &Call, line: &Line) -> Result<()> {
    let program = find(call.program)?;
    let room = |error: io::Error| Error::io(format!("cannot make room for {}", call.program), &error);
    furnish(call).map_err(room)?;
    let events = UnixDatagram::bind(SOCKET).map_err(room)?;
    let ends = SigSet::from(Signal::SIGCHLD);
    // Who is started begins with no signal blocked.
    ends.thread_block().map_err(|errno| room(errno.into()))?;
    let ends = SignalFd::with_flags(&ends, SfdFlags::SFD_CLOEXEC).map_err(|errno| room(errno.into()))?;
    let (output, speaks) = pipe().map_err(room)?;
    let mut command = Command::new(program);
    command.args(&call.arguments).env_clear().env("PATH", PATH).env(EVENT, SOCKET).current_dir("/");
    command.stdin(Stdio::null()).stdout(speaks.try_clone().map_err(room)?).stderr(speaks);
    let client = command.spawn().map_err(|error| Error::io(format!("cannot start {}", call.program), &error))?;
    drop(command);
    let client = Pid::from_raw(client.id() as i32);
    Room { call, line, events, output: Some(output), ends, client, last_words: LastWords::default() }.attend()
}

/// Makes the folders, the files and the program that it runs at events, all gone with this process.
fn furnish(call: &Call) -> io::Result<()> {
    let none = None::<&str>;
    // What is unmounted on the host is unmounted here, too: this must keep no disk from being taken out.
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_SLAVE, none)?;
    // The links that it shows are those of the namespace of the process that mounts it.
    mount(Some("sysfs"), "/sys", Some("sysfs"), MsFlags::empty(), none)?;
    for folder in call.folders.iter().map(String::as_str).chain([FOLDER]) {
        fs::create_dir_all(folder)?;
        mount(Some("tmpfs"), folder, Some("tmpfs"), MsFlags::MS_NOSUID | MsFlags::MS_NODEV, Some("mode=755"))?;
    }
    call.files.iter().try_for_each(|(path, text)| fs::write(path, text))?;
    // By its own path: the file that this process runs is mounted in the host's namespace. If another
    // version lies there by now, or none, it has to be copied.
    fs::write(&call.script, "")?;
    let bound = mount(Some(&env::current_exe()?), Path::new(&call.script), none, MsFlags::MS_BIND, none);
    if bound.is_err() {
        fs::copy("/proc/self/exe", &call.script)?;
    }
    Ok(())
}

struct Room<'a> {
    call: &'a Call,
    line: &'a Line,
    events: UnixDatagram,
    /// `None` once nobody can say anything any more.
    output: Option<PipeReader>,
    ends: SignalFd,
    client: Pid,
    last_words: LastWords,
}

impl Room<'_> {
    fn attend(mut self) -> Result<()> {
        loop {
            let all: [BorrowedFd<'_>; 3] = [self.line.as_fd(), self.events.as_fd(), self.ends.as_fd()];
            let all = all.into_iter().chain(self.output.as_ref().map(AsFd::as_fd));
            let mut polled: Vec<PollFd<'_>> = all.map(|one| PollFd::new(one, PollFlags::POLLIN)).collect();
            match poll(&mut polled, PollTimeout::NONE) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(errno) => return Err(Error::io("cannot wait for a DHCP client", &errno.into())),
            }
            let happened = |at: usize| polled.get(at).and_then(PollFd::revents).is_some_and(|what| !what.is_empty());
            let (closed, event, ended, spoke) = (happened(0), happened(1), happened(2), happened(3));
            if closed {
                return Ok(());
            }
            if event {
                let mut buffer = vec![0; LONGEST];
                let length = self.events.recv(&mut buffer).unwrap_or_default();
                self.line.pass_on(&buffer[..length]);
            }
            if spoke {
                self.output = self.output.take().filter(|output| self.last_words.hear(output));
            } else if ended {
                // Only when it has said all that it had to say.
                let _ = self.ends.read_signal();
                if let Some(how) = self.has_ended() {
                    self.line.ended(&self.last_words.of(&format!("{} {how}", self.call.program)));
                    return Ok(());
                }
            }
        }
    }

    /// How the client has ended. Others that have are of no interest, and must not stay for ever.
    fn has_ended(&self) -> Option<String> {
        loop {
            match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, code)) if pid == self.client => {
                    return Some(format!("ended with code {code}"));
                }
                Ok(WaitStatus::Signaled(pid, signal, _)) if pid == self.client => {
                    return Some(format!("was ended by {signal}"));
                }
                Ok(WaitStatus::StillAlive) | Err(_) => return None,
                Ok(_) => {}
            }
        }
    }
}

/// The last line of what a client printed: where it ended, that says why.
#[derive(Default)]
struct LastWords {
    line: String,
    begun: String,
}

const LONGEST_LINE: usize = 300;

impl LastWords {
    /// Hears what has been said. Says whether more can come.
    fn hear(&mut self, mut output: &PipeReader) -> bool {
        let mut buffer = [0; 4096];
        let length = output.read(&mut buffer).unwrap_or_default();
        for byte in &buffer[..length] {
            match byte {
                b'\n' if self.begun.trim().is_empty() => self.begun.clear(),
                b'\n' => self.line = std::mem::take(&mut self.begun),
                b' '..=b'~' if self.begun.len() < LONGEST_LINE => self.begun.push(char::from(*byte)),
                _ => {}
            }
        }
        length > 0
    }

    fn of(&self, how: &str) -> String {
        let line = if self.begun.trim().is_empty() { &self.line } else { &self.begun };
        if line.is_empty() { how.to_owned() } else { format!("{how}: {}", line.trim()) }
    }
}
