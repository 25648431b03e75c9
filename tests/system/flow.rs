//! A sender and a receiver of our own: how many bytes arrive over time.

use std::{
    fs::File,
    io::{Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use netplumb::bench::statistics::median;
use nix::sched::{CloneFlags, setns};

/// TCP from one namespace to an address in another, as fast as it goes.
pub struct Flow {
    pub from: PathBuf,
    pub to: PathBuf,
    pub address: IpAddr,
    /// The receiver's interface that the limit has been passed at. Counting there takes some of the
    /// processor's time, so where nothing is asked of the counts there is none.
    pub interface: Option<&'static str>,
}

pub struct Arrived {
    /// When how many bytes of this flow had been read. Behind a segment that was lost nothing is read for a
    /// while, and then all at once.
    read: Vec<(Duration, f64)>,
    /// How many bytes had come in on the interface since it was made, of this flow and others, headers included.
    counted: Vec<Count>,
}

/// A count, and the moments before and after it was taken: on a busy machine they can be far apart.
struct Count {
    before: Duration,
    after: Duration,
    bytes: f64,
}

/// A full segment on Ethernet: its headers (14 + 20 + 32 with timestamps), and its payload.
const HEADERS: u64 = 66;
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
                self.interface.map_or(Vec::new(), |interface| count(interface, duration))
            });
            threads.spawn(move || {
                enter(&self.from);
                let mut stream = TcpStream::connect(to).unwrap();
                // Until the receiver has had enough, or nothing passes any more.
                stream.set_write_timeout(Some(Duration::from_secs(10))).unwrap();
                while stream.write_all(&[7; 64 * 1024]).is_ok() {}
            });
            Arrived { read: receiver.join().unwrap(), counted: counter.join().unwrap() }
        })
    }
}

fn enter(namespace: &Path) {
    setns(File::open(namespace).unwrap(), CloneFlags::CLONE_NEWNET).unwrap();
}

fn receive(mut stream: TcpStream, duration: Duration) -> Vec<(Duration, f64)> {
    // A connection that stands still is a failure, not a test that never ends.
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let mut buffer = vec![0; 256 * 1024];
    let (mut total, start, mut samples) = (0, Instant::now(), Vec::new());
    while start.elapsed() < duration {
        total += stream.read(&mut buffer).unwrap();
        samples.push((start.elapsed(), total as f64));
    }
    samples
}

/// What `/proc/net/dev` counts, of the thread's own namespace.
fn count(interface: &str, duration: Duration) -> Vec<Count> {
    let arrived = || {
        let text = std::fs::read_to_string("/proc/thread-self/net/dev").unwrap();
        let line = text.lines().find_map(|line| line.trim().strip_prefix(&format!("{interface}:"))).unwrap();
        let mut numbers = line.split_whitespace().map(|number| number.parse::<u64>().unwrap());
        on_the_wire(numbers.next().unwrap(), numbers.next().unwrap())
    };
    let (start, mut samples) = (Instant::now(), Vec::new());
    while start.elapsed() < duration {
        let (before, bytes) = (start.elapsed(), arrived());
        samples.push(Count { before, bytes, after: start.elapsed() });
        std::thread::sleep(Duration::from_millis(2));
    }
    samples
}

/// Several segments at once are counted as one packet with one's headers; a qdisc counts them as they
/// will be on the wire.
fn on_the_wire(bytes: u64, packets: u64) -> f64 {
    bytes.saturating_sub(packets * HEADERS) as f64 * (PAYLOAD + HEADERS) as f64 / PAYLOAD as f64
}

impl Arrived {
    /// Bits a second on the wire in the typical span of so long, from that moment on. A machine that stands
    /// still now and then has spans in which less arrives, or what waited before arrives as well.
    pub fn bits_per_second(&self, span: Duration, since: Duration) -> f64 {
        let mut counts = self.counted.iter().filter(|count| count.before > since);
        let (mut first, mut rates) = (counts.next().unwrap(), Vec::new());
        for count in counts {
            if count.before - first.before >= span {
                rates.push((count.bytes - first.bytes) * 8.0 / (count.before - first.before).as_secs_f64());
                first = count;
            }
        }
        median(&rates).unwrap()
    }

    /// The bytes of this flow that were read between two moments.
    pub fn between(&self, from: Duration, to: Duration) -> f64 {
        let until =
            |moment| self.read.iter().take_while(|(at, _)| *at <= moment).last().map_or(0.0, |(_, total)| *total);
        until(to) - until(from)
    }

    /// The most bytes by which what had come in at some moment, since any earlier one, was above the rate for
    /// certain, whenever within its two moments each count was taken.
    pub fn most_above(&self, bits_per_second: f64) -> f64 {
        let due = |moment: Duration| moment.as_secs_f64() * bits_per_second / 8.0;
        let (mut lowest, mut most) = (f64::MAX, f64::MIN);
        for count in &self.counted {
            most = most.max(count.bytes - due(count.after) - lowest);
            lowest = lowest.min(count.bytes - due(count.before));
        }
        most
    }
}
