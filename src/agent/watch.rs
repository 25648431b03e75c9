//! What the agent waits for, all at once.

use std::{
    fmt,
    os::fd::{AsFd, OwnedFd},
    rc::Rc,
    time::Duration,
};

use nix::sys::{
    epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout},
    timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags},
};

use super::presence::Post;
use crate::error::{Error, Result};

/// Something has happened.
pub enum Event {
    /// Somebody has said something.
    Word,
    /// What a duty waits for, by its own number.
    Of { duty: usize, number: u64 },
}

/// A handle to what is waited for, for one duty.
#[derive(Clone)]
pub struct Watch {
    all: Rc<All>,
    duty: usize,
}

struct All {
    epoll: Epoll,
    timer: TimerFd,
    /// Says what it does.
    speaks: bool,
}

const WORD: u64 = u64::MAX;
const CLOCK: u64 = u64::MAX - 1;
/// A duty's own numbers are below.
const NUMBERS: u64 = 1 << 48;
const AT_ONCE: usize = 64;

impl Watch {
    pub fn new(speaks: bool) -> Result<Watch> {
        let failed = |errno: nix::errno::Errno| Error::io("cannot begin to wait", &errno.into());
        // It goes on during suspend, as leases do.
        let timer = TimerFd::new(ClockId::CLOCK_BOOTTIME, TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK);
        let timer = timer.map_err(failed)?;
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(failed)?;
        epoll.add(&timer, EpollEvent::new(EpollFlags::EPOLLIN, CLOCK)).map_err(failed)?;
        Ok(Watch { all: Rc::new(All { epoll, timer, speaks }), duty: 0 })
    }

    /// The same for another duty.
    pub fn of(&self, duty: usize) -> Watch {
        Watch { all: self.all.clone(), duty }
    }

    /// Waits for what is said at the post from now on.
    pub fn hear(&mut self, post: &Post) -> Result<()> {
        let Some(socket) = post.socket() else { return Ok(()) };
        let added = self.all.epoll.add(socket, EpollEvent::new(EpollFlags::EPOLLIN, WORD));
        added.map_err(|errno| Error::io("cannot wait for words", &errno.into()))
    }

    /// Waits for a descriptor to have something to read, under the duty's own number.
    pub fn add(&self, descriptor: impl AsFd, number: u64) -> Result<()> {
        let event = EpollEvent::new(EpollFlags::EPOLLIN, self.duty as u64 * NUMBERS + number);
        let added = self.all.epoll.add(descriptor, event);
        added.map_err(|errno| Error::io("cannot wait for a descriptor", &errno.into()))
    }

    /// To be called before it is closed: a packet socket may live on for a moment.
    pub fn remove(&self, descriptor: impl AsFd) {
        let _ = self.all.epoll.delete(descriptor);
    }

    /// Waits until something happens, or until the clock shows `until`.
    pub fn wait(&mut self, until: Option<Duration>) -> Result<Vec<Event>> {
        let failed = |errno: nix::errno::Errno| Error::io("cannot wait", &errno.into());
        match until {
            // Setting it to 0 would stop it.
            Some(until) => {
                let until = Expiration::OneShot(until.max(Duration::from_nanos(1)).into());
                self.all.timer.set(until, TimerSetTimeFlags::TFD_TIMER_ABSTIME).map_err(failed)?;
            }
            None => self.all.timer.unset().map_err(failed)?,
        }
        let mut events = [EpollEvent::empty(); AT_ONCE];
        let count = match self.all.epoll.wait(&mut events, EpollTimeout::NONE) {
            Ok(count) => count,
            Err(nix::errno::Errno::EINTR) => 0,
            Err(errno) => return Err(failed(errno)),
        };
        let event = |event: &EpollEvent| match event.data() {
            WORD => Some(Event::Word),
            // Setting it anew takes its ringing back.
            CLOCK => None,
            other => Some(Event::Of { duty: (other / NUMBERS) as usize, number: other % NUMBERS }),
        };
        Ok(events[..count].iter().filter_map(event).collect())
    }

    /// For whoever reads along.
    pub fn say(&self, what: impl fmt::Display) {
        if self.all.speaks {
            eprintln!("{what}");
        }
    }
}

/// Hears when files in a folder go.
pub struct Folders(nix::sys::inotify::Inotify);

impl Folders {
    pub fn new() -> Result<Folders> {
        use nix::sys::inotify::{InitFlags, Inotify};
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK);
        inotify.map(Folders).map_err(|errno| Error::io("cannot watch folders", &errno.into()))
    }

    /// One that is watched already is watched once.
    pub fn add(&self, folder: &std::path::Path) {
        use nix::sys::inotify::AddWatchFlags;
        // Where it cannot be watched, what has gone is noticed when something is due.
        let _ = self.0.add_watch(folder, AddWatchFlags::IN_DELETE | AddWatchFlags::IN_MOVED_FROM);
    }

    /// Forgets what was heard.
    pub fn drain(&self) {
        while self.0.read_events().is_ok_and(|events| !events.is_empty()) {}
    }
}

impl AsFd for Folders {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// A process, whose end can be waited for.
pub struct Process(OwnedFd);

impl Process {
    /// `None` where it cannot be watched: it has ended, or the kernel is older than 5.3.
    pub fn new(pid: u32) -> Option<Process> {
        use std::os::fd::FromRawFd;
        // SAFETY: a plain system call; the descriptor is ours and is owned from here on. It is closed
        // at exec by itself.
        let descriptor = unsafe {
            let number = nix::libc::syscall(nix::libc::SYS_pidfd_open, pid, 0);
            (number >= 0).then(|| OwnedFd::from_raw_fd(number as i32))
        };
        descriptor.map(Process)
    }
}

impl AsFd for Process {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.0.as_fd()
    }
}
