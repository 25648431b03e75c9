//! A sender and a receiver of our own: how many bytes arrive over time.

use std::{
    fs::File,
    io::{Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use nix::sched::{CloneFlags, setns};

/// TCP from one namespace to an address in another, as fast as it goes.
pub struct Flow {
    pub from: PathBuf,
    pub to: PathBuf,
    pub address: IpAddr,
    /// The receiver's interface that the limit has been passed at.
    pub interface: &'static str,
}

pub struct Arrived {
    /// When how many bytes of TCP's payload had been read. What is lost once is read late, and all that
    /// came behind it at once with it.
    read: Vec<(Duration, u64)>,
    /// When how many bytes had come in on the interface.
    counted: Vec<(Duration, u64)>,
}

/// A full segment on Ethernet with its headers (14 + 20 + 32 with timestamps), and its payload.
const FRAME: u64 = 1514;
const PAYLOAD: u64 = 1448;

impl Flow {
    /// Sends for so long.
    pub fn run(&self, duration: Duration) -> Arrived {
        let address = self.address;
        std::thread::scope(|threads| {
            let (tell, told) = std::sync::mpsc::channel::<SocketAddr>();
            let receiver = threads.spawn(move || {
                enter(&self.to);
                let listener = TcpListener::bind((address, 0)).unwrap();
                tell.send(listener.local_addr().unwrap()).unwrap();
                receive(listener.accept().unwrap().0, duration)
            });
            let to = told.recv().unwrap();
            let counter = threads.spawn(move || {
                enter(&self.to);
                count(self.interface, duration)
            });
            threads.spawn(move || {
                enter(&self.from);
                let mut stream = TcpStream::connect(to).unwrap();
                // Until the receiver has had enough.
                while stream.write_all(&[7; 64 * 1024]).is_ok() {}
            });
            Arrived { read: receiver.join().unwrap(), counted: counter.join().unwrap() }
        })
    }
}

fn enter(namespace: &Path) {
    setns(File::open(namespace).unwrap(), CloneFlags::CLONE_NEWNET).unwrap();
}

fn receive(mut stream: TcpStream, duration: Duration) -> Vec<(Duration, u64)> {
    // A connection that stands still is a failure, not a test that never ends.
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let mut buffer = vec![0; 256 * 1024];
    let (mut total, start, mut samples) = (0, Instant::now(), Vec::new());
    while start.elapsed() < duration {
        total += stream.read(&mut buffer).unwrap() as u64;
        samples.push((start.elapsed(), total));
    }
    samples
}

/// What `/proc/net/dev` counts, of the thread's own namespace.
fn count(interface: &str, duration: Duration) -> Vec<(Duration, u64)> {
    let bytes = || -> u64 {
        let text = std::fs::read_to_string("/proc/thread-self/net/dev").unwrap();
        let line = text.lines().find_map(|line| line.trim().strip_prefix(&format!("{interface}:"))).unwrap();
        line.split_whitespace().next().unwrap().parse().unwrap()
    };
    let (start, mut samples) = (Instant::now(), Vec::new());
    while start.elapsed() < duration {
        samples.push((start.elapsed(), bytes()));
        std::thread::sleep(Duration::from_millis(2));
    }
    samples
}

impl Arrived {
    /// Bits a second on the wire, headers included, once the first bucket is empty.
    pub fn bits_per_second(&self) -> f64 {
        let settled = self.read.iter().position(|(at, _)| *at > Duration::from_secs(1)).unwrap_or(0);
        let ((from, before), (to, after)) = (self.read[settled], self.read[self.read.len() - 1]);
        wire(after - before) * 8.0 / (to - from).as_secs_f64()
    }

    /// The bytes of payload that were read between two moments.
    pub fn between(&self, from: Duration, to: Duration) -> f64 {
        let until = |moment| self.read.iter().take_while(|(at, _)| *at <= moment).last().map_or(0, |(_, total)| *total);
        (until(to) - until(from)) as f64
    }

    /// The most bytes by which what had come in at some moment, since any earlier one, was above the rate.
    pub fn most_above(&self, bits_per_second: f64) -> f64 {
        let (mut lowest, mut most) = (f64::MAX, f64::MIN);
        for (at, total) in &self.counted {
            let above = *total as f64 - at.as_secs_f64() * bits_per_second / 8.0;
            lowest = lowest.min(above);
            most = most.max(above - lowest);
        }
        most
    }
}

fn wire(payload: u64) -> f64 {
    (payload * FRAME) as f64 / PAYLOAD as f64
}
