//! The side that listens: it takes what comes, or answers it.

use std::{
    io::{self, Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::fd::{AsRawFd, OwnedFd},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Instant,
};

use nix::sys::socket::{MsgFlags, SockaddrStorage, recvfrom, sendto};

use super::{BLOCK, Count, LONGEST_DATAGRAM, Mark, Spec, join, spawn, wake};
use crate::bench::Test;

/// Each has a few of the 28,232 local ports that Linux gives out by itself, as the port of a connection
/// that was closed is not free for a minute: so many per stream of TCP_CRR.
const LISTENERS_OF_CRR: usize = 4;

/// Receivers at work. They end with `finish`, or when the last sender has gone.
pub struct Answering {
    ports: Vec<u16>,
    counts: Vec<Arc<Count>>,
    /// The sockets once more: who waits on one is woken by its shutdown.
    sockets: Arc<Mutex<Vec<OwnedFd>>>,
    over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
    since: Instant,
}

impl Answering {
    /// Listens on `at`, on free ports. `processors`: where its threads shall run; none: anywhere.
    pub fn start(spec: Spec, at: IpAddr, processors: &[usize]) -> io::Result<Answering> {
        let mut answering = Answering {
            ports: Vec::new(),
            counts: Vec::new(),
            sockets: Arc::default(),
            over: Arc::default(),
            threads: Vec::new(),
            since: Instant::now(),
        };
        let each = if spec.task.test == Test::TcpCrr { LISTENERS_OF_CRR } else { 1 };
        for stream in 0..usize::from(spec.task.streams) {
            for _ in 0..each {
                answering.listen(spec.task.test, at, processors.get(stream).copied())?;
            }
        }
        Ok(answering)
    }

    fn listen(&mut self, test: Test, at: IpAddr, processor: Option<usize>) -> io::Result<()> {
        let (count, over) = (Arc::new(Count::default()), self.over.clone());
        self.counts.push(count.clone());
        let any = SocketAddr::new(at, 0);
        let thread = match test {
            Test::TcpStream | Test::TcpRr | Test::TcpCrr => {
                let listener = TcpListener::bind(any)?;
                self.ports.push(listener.local_addr()?.port());
                self.keep(listener.try_clone()?.into());
                let sockets = self.sockets.clone();
                let serve = move |stream: TcpStream| {
                    if test == Test::TcpCrr {
                        return echo(stream, &count, &over);
                    }
                    // There is one connection, and time to remember it.
                    let kept = stream.try_clone().map(OwnedFd::from);
                    sockets.lock().unwrap_or_else(PoisonError::into_inner).extend(kept);
                    let serve = if test == Test::TcpStream { drain } else { echo };
                    serve(stream, &count, &over);
                };
                let over = self.over.clone();
                spawn(processor, move || accept(&listener, &over, serve))?
            }
            Test::UdpStream | Test::UdpRr => {
                let socket = UdpSocket::bind(any)?;
                self.ports.push(socket.local_addr()?.port());
                self.keep(socket.try_clone()?.into());
                let work = if test == Test::UdpStream { drain_datagrams } else { echo_datagrams };
                spawn(processor, move || work(&socket, &count, &over))?
            }
        };
        self.threads.push(thread);
        Ok(())
    }

    fn keep(&self, socket: OwnedFd) {
        self.sockets.lock().unwrap_or_else(PoisonError::into_inner).push(socket);
    }

    /// The ports to send to: those of the first stream, those of the second …
    pub fn ports(&self) -> &[u16] {
        &self.ports
    }

    pub fn mark(&self) -> Mark {
        Mark::of(self.counts.iter(), self.since.elapsed())
    }

    /// Ends all threads and waits for them.
    pub fn finish(mut self) {
        self.stop();
        self.threads.drain(..).for_each(|thread| {
            join(thread);
        });
    }

    fn stop(&self) {
        self.over.store(true, Ordering::Relaxed);
        wake(&self.sockets);
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.stop();
    }
}

fn accept(listener: &TcpListener, over: &AtomicBool, serve: impl Fn(TcpStream)) {
    while !over.load(Ordering::Relaxed) {
        match listener.accept() {
            Ok((stream, _)) => serve(stream),
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => return,
            Err(_) => {}
        }
    }
}

/// Reads until the other side has closed.
fn drain(mut stream: TcpStream, count: &Count, over: &AtomicBool) {
    let mut block = vec![0; BLOCK];
    loop {
        match stream.read(&mut block) {
            Ok(0) => return,
            Ok(bytes) => count.add(bytes),
            Err(error) if super::is_passing(&error) && !over.load(Ordering::Relaxed) => {}
            Err(_) => return,
        }
    }
}

/// A byte back for each byte, until the other side has closed.
fn echo(mut stream: TcpStream, count: &Count, over: &AtomicBool) {
    let mut byte = [0];
    loop {
        match stream.read(&mut byte) {
            Ok(0) => return,
            Ok(_) => count.add(1),
            Err(error) if super::is_passing(&error) && !over.load(Ordering::Relaxed) => continue,
            Err(_) => return,
        }
        if stream.write(&byte).is_err() {
            return;
        }
    }
}

fn drain_datagrams(socket: &UdpSocket, count: &Count, over: &AtomicBool) {
    let mut block = vec![0; LONGEST_DATAGRAM];
    while !over.load(Ordering::Relaxed) {
        if let Ok(bytes) = socket.recv(&mut block) {
            count.add(bytes);
        }
    }
}

fn echo_datagrams(socket: &UdpSocket, count: &Count, over: &AtomicBool) {
    let mut byte = [0];
    while !over.load(Ordering::Relaxed) {
        // Who is woken by a shutdown has heard from nobody; the standard library's own takes that for a bug.
        if let Ok((_, Some(from))) = recvfrom::<SockaddrStorage>(socket.as_raw_fd(), &mut byte) {
            count.add(1);
            let _ = sendto(socket.as_raw_fd(), &byte, &from, MsgFlags::empty());
        }
    }
}
