//! Senders and receivers of our own. Threads that do nothing but what is measured: no timer, no log, no
//! select between their system calls.
//!
//! Both sides open their sockets in the namespace of the thread that starts them, and so do the threads.

mod answering;
mod asking;

use std::{
    io,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use nix::{
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    sys::{
        socket::{Shutdown, setsockopt, shutdown, sockopt},
        time::{TimeVal, TimeValLike},
    },
    unistd::Pid,
};
use serde::{Deserialize, Serialize};

pub use answering::Answering;
pub use asking::{Asked, Asking};

use super::rounds::Task;

/// What both sides have to agree on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spec {
    pub task: Task,
    /// Bytes of a datagram in UDP_STREAM: what fits into a packet.
    pub datagram: u16,
}

/// How much is written and read at once in TCP_STREAM, as by iperf3.
const BLOCK: usize = 128 * 1024;
/// The longest datagram of IPv4.
const LONGEST_DATAGRAM: usize = 65_507;
/// Nobody waits longer without a look whether it is over.
const PATIENCE: Duration = Duration::from_millis(200);
/// An IPv4 or IPv6 header with that of UDP.
pub const UDP_HEADERS: [u32; 2] = [28, 48];

/// What one thread has done, on a cache line that no other writes to.
#[derive(Default)]
#[repr(align(128))]
struct Count {
    messages: AtomicU64,
    bytes: AtomicU64,
}

impl Count {
    fn add(&self, bytes: usize) {
        self.messages.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

/// What all threads of one side have done by a moment of its own clock.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    pub at: Duration,
    /// Datagrams, or transactions.
    pub messages: u64,
    pub bytes: u64,
}

impl Mark {
    fn of<'a>(counts: impl Iterator<Item = &'a std::sync::Arc<Count>>, at: Duration) -> Mark {
        counts.fold(Mark { at, ..Mark::default() }, |sum, count| Mark {
            messages: sum.messages + count.messages.load(Ordering::Relaxed),
            bytes: sum.bytes + count.bytes.load(Ordering::Relaxed),
            ..sum
        })
    }

    /// What was done since `earlier`.
    pub fn since(&self, earlier: &Mark) -> Mark {
        Mark {
            at: self.at.saturating_sub(earlier.at),
            messages: self.messages.saturating_sub(earlier.messages),
            bytes: self.bytes.saturating_sub(earlier.bytes),
        }
    }
}

/// The processors that this process may use.
pub fn processors() -> Vec<usize> {
    let allowed = sched_getaffinity(Pid::from_raw(0)).ok();
    let is_allowed = |cpu: &usize| allowed.is_some_and(|allowed| allowed.is_set(*cpu).unwrap_or(false));
    (0..CpuSet::count()).filter(is_allowed).collect()
}

/// A thread of its own for `work`, on `processor` if there is one. It inherits the namespace of the caller.
fn spawn<T: Send + 'static>(
    processor: Option<usize>,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<JoinHandle<T>> {
    std::thread::Builder::new().name("plumb bench".into()).stack_size(512 * 1024).spawn(move || {
        // That it may not be chosen is no reason not to measure.
        if let Some(processor) = processor {
            let mut set = CpuSet::new();
            let _ = set.set(processor).and_then(|()| sched_setaffinity(Pid::from_raw(0), &set));
        }
        work()
    })
}

/// Waits on the socket end after a while. Each then arms a timer, which costs a part of what a transaction
/// takes: so only those do that nobody can wake.
fn be_impatient(socket: &impl AsFd) -> io::Result<()> {
    let time = TimeVal::milliseconds(PATIENCE.as_millis() as i64);
    setsockopt(socket, sockopt::ReceiveTimeout, &time)?;
    setsockopt(socket, sockopt::SendTimeout, &time)?;
    Ok(())
}

/// What the thread returns, once it has ended. One that waits for somebody who has gone without a word is not
/// waited for: it ends when the kernel gives up, or with the process.
fn join<T>(thread: JoinHandle<T>) -> Option<T> {
    let end = Instant::now() + 2 * PATIENCE;
    while !thread.is_finished() {
        if Instant::now() > end {
            return None;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    thread.join().ok()
}

/// Wakes whoever waits on one of them. Of a socket without a partner it fails, and wakes all the same.
fn wake(sockets: &Mutex<Vec<OwnedFd>>) {
    for socket in sockets.lock().unwrap_or_else(PoisonError::into_inner).iter() {
        let _ = shutdown(socket.as_raw_fd(), Shutdown::Both);
    }
}

/// Whether it is worth while to try once more: time was up, a signal came, a buffer was full.
fn is_passing(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionRefused, Interrupted, OutOfMemory, TimedOut, WouldBlock};
    let no_buffers = error.raw_os_error() == Some(nix::libc::ENOBUFS);
    no_buffers || matches!(error.kind(), Interrupted | WouldBlock | TimedOut | OutOfMemory | ConnectionRefused)
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::*;
    use crate::bench::Test;

    const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    fn measured(test: Test, streams: u16) -> (Mark, Mark, Asked) {
        let spec = Spec { task: Task { test, streams }, datagram: 1472 };
        let answering = Answering::start(spec, HERE, &[]).unwrap();
        let mut asking = Asking::start(spec, HERE, answering.ports(), &[]).unwrap();
        std::thread::sleep(Duration::from_millis(20));
        let (far, near) = (answering.mark(), asking.begin());
        // However busy the machine is.
        let end = std::time::Instant::now() + Duration::from_secs(10);
        while answering.mark().since(&far).messages < 200 && std::time::Instant::now() < end {
            std::thread::sleep(Duration::from_millis(20));
        }
        let (near, far) = (asking.end().since(&near), answering.mark().since(&far));
        let asked = asking.finish().unwrap();
        answering.finish();
        (near, far, asked)
    }

    #[test]
    fn what_is_sent_arrives() {
        for streams in [1, 3] {
            let (sent, received, asked) = measured(Test::TcpStream, streams);
            assert!(received.bytes > 1_000_000 && sent.bytes > 1_000_000, "{sent:?} {received:?}");
            assert!(asked.latency.is_none());
            let (sent, received, _) = measured(Test::UdpStream, streams);
            assert!(received.messages > 100 && received.bytes == 1472 * received.messages, "{sent:?} {received:?}");
        }
    }

    #[test]
    fn each_transaction_has_its_latency() {
        for test in [Test::TcpRr, Test::TcpCrr, Test::UdpRr] {
            let (done, _, asked) = measured(test, 2);
            let latency = asked.latency.unwrap();
            // Those under way at the first moment count, those at the last don't.
            assert!(done.messages > 20 && latency.len().abs_diff(done.messages) <= 4, "{test} {done:?}");
            assert!(latency.min() > 500 && latency.value_at_quantile(0.5) < 50_000_000, "{test}");
        }
    }
}
