//! The side that sends, or asks and waits for the answer.

use std::{
    io::{self, Read, Write},
    net::{IpAddr, SocketAddr, TcpStream, UdpSocket},
    os::fd::OwnedFd,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU8, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;
use nix::{
    libc::linger,
    sys::socket::{setsockopt, sockopt},
};

use super::{BLOCK, Count, Mark, PATIENCE, Spec, be_impatient, is_passing, join, spawn, wake};
use crate::bench::Test;

/// Senders at work. They begin at once; what counts is what they do between `begin` and `end`.
pub struct Asking {
    counts: Vec<Arc<Count>>,
    phase: Arc<Phase>,
    threads: Vec<JoinHandle<io::Result<Asked>>>,
    /// Connections on which somebody may wait for ever.
    sockets: Mutex<Vec<OwnedFd>>,
    since: Instant,
}

/// What the threads tell when they have ended.
#[derive(Debug, Default)]
pub struct Asked {
    /// How long each transaction took, in nanoseconds; none for a test without.
    pub latency: Option<Histogram<u64>>,
    /// Requests whose answer did not come: by UDP either gets lost.
    pub lost: u64,
}

/// Warming up, measuring, over.
#[derive(Default)]
struct Phase(AtomicU8);

const WARMING_UP: u8 = 0;
const MEASURING: u8 = 1;
const OVER: u8 = 2;

impl Phase {
    fn is_over(&self) -> bool {
        self.0.load(Ordering::Relaxed) == OVER
    }

    fn is_measuring(&self) -> bool {
        self.0.load(Ordering::Relaxed) == MEASURING
    }
}

/// One stream's part of it.
struct Stream {
    to: Vec<SocketAddr>,
    datagram: usize,
    count: Arc<Count>,
    phase: Arc<Phase>,
}

impl Asking {
    /// Connects to `ports` of `to` and begins to send.
    pub fn start(spec: Spec, to: IpAddr, ports: &[u16], processors: &[usize]) -> io::Result<Asking> {
        let phase = Arc::new(Phase(AtomicU8::new(WARMING_UP)));
        let mut asking = Asking {
            counts: Vec::new(),
            phase: phase.clone(),
            threads: Vec::new(),
            sockets: Mutex::default(),
            since: Instant::now(),
        };
        let each = ports.len() / usize::from(spec.task.streams).max(1);
        for (number, ports) in ports.chunks(each.max(1)).enumerate() {
            let count = Arc::new(Count::default());
            asking.counts.push(count.clone());
            let to = ports.iter().map(|port| SocketAddr::new(to, *port)).collect();
            let stream = Stream { to, datagram: spec.datagram.into(), count, phase: phase.clone() };
            let thread = stream.start(spec.task.test, processors.get(number).copied(), &asking.sockets)?;
            asking.threads.push(thread);
        }
        Ok(asking)
    }

    /// From now on it counts.
    pub fn begin(&mut self) -> Mark {
        self.phase.0.store(MEASURING, Ordering::Relaxed);
        self.mark()
    }

    /// It no longer counts, and the threads come to an end.
    pub fn end(&mut self) -> Mark {
        self.phase.0.store(OVER, Ordering::Relaxed);
        self.mark()
    }

    fn mark(&self) -> Mark {
        Mark::of(self.counts.iter(), self.since.elapsed())
    }

    /// Ends all threads and waits for them.
    pub fn finish(mut self) -> io::Result<Asked> {
        self.end();
        self.wake_the_stuck();
        let mut all = Asked::default();
        for thread in self.threads.drain(..) {
            let one = join(thread).unwrap_or_else(|| Err(io::ErrorKind::TimedOut.into()))?;
            all.lost += one.lost;
            match (&mut all.latency, one.latency) {
                (Some(sum), Some(latency)) => drop(sum.add(latency)),
                (none, latency) => *none = latency,
            }
        }
        Ok(all)
    }
}

impl Asking {
    /// An answer that is under way comes within a moment, or it does not come.
    fn wake_the_stuck(&self) {
        let end = Instant::now() + PATIENCE;
        while !self.threads.iter().all(JoinHandle::is_finished) {
            if Instant::now() > end {
                return wake(&self.sockets);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        self.end();
    }
}

/// From a nanosecond to ten seconds, to three digits (some 180 KiB).
fn latencies() -> io::Result<Histogram<u64>> {
    const LONGEST: u64 = 10_000_000_000;
    Histogram::new_with_bounds(1, LONGEST, 3).map_err(io::Error::other)
}

impl Stream {
    fn start(
        self,
        test: Test,
        processor: Option<usize>,
        sockets: &Mutex<Vec<OwnedFd>>,
    ) -> io::Result<JoinHandle<io::Result<Asked>>> {
        let to = self.to[0];
        match test {
            Test::TcpStream => {
                let stream = TcpStream::connect_timeout(&to, CONNECTING)?;
                be_impatient(&stream)?;
                // What is under way at the end is of no use: the receiver need not wait for it.
                setsockopt(&stream, sockopt::Linger, &linger { l_onoff: 1, l_linger: 0 })?;
                spawn(processor, move || self.push(stream))
            }
            Test::TcpRr => {
                let stream = TcpStream::connect_timeout(&to, CONNECTING)?;
                sockets.lock().unwrap_or_else(PoisonError::into_inner).push(stream.try_clone()?.into());
                spawn(processor, move || self.ask(stream))
            }
            Test::TcpCrr => spawn(processor, move || self.connect_and_ask()),
            Test::UdpStream | Test::UdpRr => {
                let any: IpAddr = if to.is_ipv4() { [0u8; 4].into() } else { [0u16; 8].into() };
                let socket = UdpSocket::bind((any, 0))?;
                be_impatient(&socket)?;
                socket.connect(to)?;
                let work = if test == Test::UdpRr { Stream::ask_by_datagram } else { Stream::push_datagrams };
                spawn(processor, move || work(self, &socket))
            }
        }
    }

    fn push(self, mut stream: TcpStream) -> io::Result<Asked> {
        let block = vec![0; BLOCK];
        while !self.phase.is_over() {
            match stream.write(&block) {
                Ok(bytes) => self.count.add(bytes),
                Err(error) if is_passing(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Asked::default())
    }

    fn push_datagrams(self, socket: &UdpSocket) -> io::Result<Asked> {
        let block = vec![0; self.datagram];
        while !self.phase.is_over() {
            match socket.send(&block) {
                Ok(bytes) => self.count.add(bytes),
                Err(error) if is_passing(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Asked::default())
    }

    fn ask(self, mut stream: TcpStream) -> io::Result<Asked> {
        let (mut latency, mut before) = (latencies()?, Instant::now());
        let mut byte = [0];
        while !self.phase.is_over() {
            match stream.write_all(&byte) {
                Err(_) if self.phase.is_over() => break,
                sent => sent?,
            }
            self.await_byte(&mut stream, &mut byte)?;
            before = self.done(before, &mut latency);
        }
        Ok(Asked { latency: Some(latency), lost: 0 })
    }

    /// A connection for each byte and its answer. The side that asked closes first, as netperf's does.
    fn connect_and_ask(self) -> io::Result<Asked> {
        let (mut latency, mut before) = (latencies()?, Instant::now());
        let (mut at, mut byte) = (0, [0]);
        while !self.phase.is_over() {
            let mut stream = match TcpStream::connect(self.to[at % self.to.len()]) {
                Ok(stream) => stream,
                // All ports towards this listener are in use or were a moment ago.
                Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable && at < 4 * self.to.len() => {
                    at += 1;
                    continue;
                }
                Err(error) if is_passing(&error) => continue,
                Err(error) => return Err(error),
            };
            stream.write_all(&byte)?;
            self.await_byte(&mut stream, &mut byte)?;
            stream.shutdown(std::net::Shutdown::Write)?;
            self.await_byte(&mut stream, &mut byte)?;
            drop(stream);
            before = self.done(before, &mut latency);
        }
        Ok(Asked { latency: Some(latency), lost: 0 })
    }

    fn ask_by_datagram(self, socket: &UdpSocket) -> io::Result<Asked> {
        let (mut latency, mut before, mut lost) = (latencies()?, Instant::now(), 0);
        let (mut number, mut answer) = (0u8, [0]);
        while !self.phase.is_over() {
            number = number.wrapping_add(1);
            let sent = socket.send(&[number]);
            let answered = loop {
                match socket.recv(&mut answer) {
                    // An answer that was given up comes late.
                    Ok(_) if answer[0] != number => {}
                    Ok(_) => break true,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) if is_passing(&error) => break false,
                    Err(error) => return Err(error),
                }
            };
            if answered && sent.is_ok() {
                before = self.done(before, &mut latency);
            } else {
                lost += 1;
                before = Instant::now();
            }
        }
        Ok(Asked { latency: Some(latency), lost })
    }

    /// Waits for one byte, or that the other side has closed.
    fn await_byte(&self, stream: &mut TcpStream, byte: &mut [u8; 1]) -> io::Result<()> {
        loop {
            match stream.read(byte) {
                Err(error) if is_passing(&error) && !self.phase.is_over() => {}
                Err(error) if is_passing(&error) => return Ok(()),
                Err(_) if self.phase.is_over() => return Ok(()),
                other => return other.map(drop),
            }
        }
    }

    /// A transaction has ended, and the next one begins.
    fn done(&self, before: Instant, latency: &mut Histogram<u64>) -> Instant {
        let now = Instant::now();
        self.count.add(1);
        if self.phase.is_measuring() {
            let took = now.duration_since(before);
            latency.saturating_record(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
        }
        now
    }
}

/// How long a connection may take to come about.
const CONNECTING: Duration = Duration::from_secs(2);
