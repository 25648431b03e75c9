//! Network namespaces: pinned by an open file, told apart, locked, entered on threads of their own.

use std::{
    fs::File,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, RawFd},
        unix::fs::MetadataExt,
    },
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use nix::{
    libc,
    sched::CloneFlags,
    sys::socket::{AddressFamily, SockFlag, SockType, socket},
};

use super::Kernel;
use crate::{
    error::{Error, RUN_AS_ROOT, Result, plain},
    interrupt,
};

nix::ioctl_none_bad!(ns_get_nstype, libc::NS_GET_NSTYPE);

/// The number by which the kernel tells the calling thread's namespace from all that there were
/// since the last boot: an inode's is used again, this is not (`SO_NETNS_COOKIE`, Linux 5.14).
pub fn cookie() -> Option<u64> {
    let socket = socket(AddressFamily::Unix, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None).ok()?;
    let mut cookie: u64 = 0;
    let mut size = std::mem::size_of::<u64>() as libc::socklen_t;
    // SAFETY: pointer and size are those of a live u64, and the kernel writes no more than that.
    let outcome = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut size,
        )
    };
    (outcome == 0).then_some(cookie)
}

/// A network namespace that lives at least as long as this value.
#[derive(Debug)]
pub struct Netns {
    file: File,
    path: PathBuf,
    id: NetnsId,
}

/// What tells a namespace from all others that exist now: the inode of its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NetnsId(pub u64);

impl Netns {
    /// Opens the namespace behind `path`, such as `/proc/42/ns/net` or `/run/netns/blue`.
    pub fn open(path: &Path) -> Result<Netns> {
        let doing = || format!("cannot open the namespace {}", path.display());
        let file = File::open(path).map_err(|error| Error::io(doing(), &error))?;
        // SAFETY: the request reads no memory of ours; on a file of another kind it fails.
        let kind = unsafe { ns_get_nstype(file.as_raw_fd()) };
        if kind != Ok(libc::CLONE_NEWNET) {
            return Err(Error::failed(format!("{} is not a network namespace", path.display())).hint(
                "a namespace made by ip netns add NAME lies at /run/netns/NAME, a process's at /proc/PID/ns/net",
            ));
        }
        let metadata = file.metadata().map_err(|error| Error::io(doing(), &error))?;
        Ok(Netns { file, path: path.to_owned(), id: NetnsId(metadata.ino()) })
    }

    /// The namespace of the calling thread. On the main thread it is the one that plumb was started
    /// in: "the host".
    pub fn of_this_thread() -> Result<Netns> {
        Netns::open(Path::new("/proc/thread-self/ns/net"))
    }

    pub fn id(&self) -> NetnsId {
        self.id
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn raw(&self) -> RawFd {
        self.file.as_raw_fd()
    }

    /// Waits until no other plumb works on this namespace, but not for ever and not past a signal.
    /// The lock is on the namespace itself, by whatever name it was opened; it leaves no file and
    /// ends with the process.
    pub fn lock(&self) -> Result<()> {
        const PATIENCE: Duration = Duration::from_secs(30);
        let end = Instant::now() + PATIENCE;
        let mut pause = Duration::from_millis(1);
        while !self.try_lock()? {
            if Instant::now() > end {
                let path = self.path.display();
                return Err(Error::timed_out(format!("{path} has been locked for {} s", PATIENCE.as_secs()))
                    .hint("another plumb is at work on it, or a process inside holds the lock; lslocks shows which"));
            }
            interrupt::sleep(pause)?;
            pause = (pause * 2).min(interrupt::SLICE);
        }
        Ok(())
    }

    /// Like `lock`, but says `false` at once where another plumb is at work.
    pub fn try_lock(&self) -> Result<bool> {
        match self.file.try_lock() {
            Ok(()) => Ok(true),
            Err(std::fs::TryLockError::WouldBlock) => Ok(false),
            Err(std::fs::TryLockError::Error(error)) => {
                Err(Error::io(format!("cannot lock {}", self.path.display()), &error))
            }
        }
    }

    /// Runs `work` on a thread that has entered the namespace and ends afterwards. The calling
    /// thread never changes its own: there is no way back to forget.
    pub fn enter<T: Send>(&self, work: impl FnOnce(&mut Kernel) -> Result<T> + Send) -> Result<T> {
        let body = || {
            let mut kernel = Kernel::with_host()?;
            setns(self.file.as_fd(), &self.path)?;
            kernel.open_inside(self.raw())?;
            work(&mut kernel)
        };
        on_a_thread(body)
    }

    /// The same where this namespace is the host itself, whichever the caller is in.
    pub fn enter_as_host<T: Send>(&self, work: impl FnOnce(&mut Kernel) -> Result<T> + Send) -> Result<T> {
        let body = || {
            setns(self.file.as_fd(), &self.path)?;
            let mut kernel = Kernel::with_host()?;
            kernel.open_inside(self.raw())?;
            work(&mut kernel)
        };
        on_a_thread(body)
    }

    /// Runs `work` inside on the calling thread, which is at `home` before and afterwards: for opening
    /// sockets that stay, by who does it so often that a thread each time is too much. It must not fail
    /// half-way: a process that could not go home would do all else in the wrong place, so it ends.
    pub fn visit<T>(&self, home: &Netns, work: impl FnOnce() -> T) -> Result<T> {
        setns(self.file.as_fd(), &self.path)?;
        let result = work();
        if setns(home.file.as_fd(), &home.path).is_err() {
            std::process::abort();
        }
        Ok(result)
    }

    /// Lets the calling thread work inside, which must be one that ends afterwards.
    pub(super) fn enter_for_good(&self) -> Result<()> {
        setns(self.file.as_fd(), &self.path)
    }

    /// Like `enter`, but without a socket on the host: for looking.
    pub fn look_inside<T: Send>(&self, work: impl FnOnce(&mut Kernel) -> Result<T> + Send) -> Result<T> {
        let body = || {
            setns(self.file.as_fd(), &self.path)?;
            work(&mut Kernel::inside_only(self.raw())?)
        };
        on_a_thread(body)
    }
}

fn setns(file: BorrowedFd<'_>, path: &Path) -> Result<()> {
    nix::sched::setns(file, CloneFlags::CLONE_NEWNET).map_err(|errno| {
        let reason = plain(&errno.into());
        match errno {
            nix::errno::Errno::EPERM => {
                Error::not_permitted(format!("cannot enter {}: CAP_SYS_ADMIN is missing", path.display()))
                    .hint(RUN_AS_ROOT)
            }
            _ => Error::failed(format!("cannot enter {}: {reason}", path.display())),
        }
    })
}

pub(super) fn on_a_thread<T: Send>(body: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new()
            // Five hundred of them shall not ask for a gigabyte of address space.
            .stack_size(512 * 1024)
            .spawn_scoped(scope, body)
            .map_err(|error| Error::io("cannot start a thread", &error))?;
        thread.join().unwrap_or_else(|_| Err(Error::failed("a thread of plumb's ended unexpectedly: this is a bug")))
    })
}

/// Every network namespace of this machine that can be found: those of processes and those that
/// `ip netns` keeps, each once.
pub fn all() -> Vec<Netns> {
    let mut found: Vec<Netns> = Vec::new();
    let mut seen = std::collections::HashSet::new();
    let entries = |dir: &str| std::fs::read_dir(dir).into_iter().flatten().filter_map(|entry| entry.ok());
    let processes = entries("/proc")
        .filter(|entry| entry.file_name().as_encoded_bytes().iter().all(u8::is_ascii_digit))
        .map(|entry| entry.path().join("ns/net"));
    let named = entries("/run/netns").map(|entry| entry.path());
    for path in named.chain(processes) {
        // The link's text, net:[4026531840], tells without opening whether it is a new one.
        if std::fs::metadata(&path).is_ok_and(|metadata| seen.insert(metadata.ino())) {
            found.extend(Netns::open(&path));
        }
    }
    found
}
