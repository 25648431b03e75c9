//! What the kernel counts in a namespace, and the processor's time of this process.

use std::{fs::File, io, os::unix::fs::FileExt, time::Duration};

use nix::sys::resource::{UsageWho, getrusage};

use super::Netns;
use crate::error::{Error, Result};

/// The counters of one namespace, read again and again: an open file under `/proc/net` stays with the
/// namespace that it was opened in.
pub struct Counters {
    devices: File,
    protocols: File,
}

/// What they say at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reading {
    /// By device: packets and bytes that left, and that came.
    devices: Vec<(String, [u64; 4])>,
    retransmitted: u64,
    dropped: u64,
}

/// What was counted between two readings, on the device that carried most.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counted {
    pub device: String,
    pub packets_sent: u64,
    pub bytes_sent: u64,
    pub packets_received: u64,
    pub bytes_received: u64,
    /// TCP segments that were sent again.
    pub retransmitted: u64,
    /// Datagrams that came when the receiver's buffer was full.
    pub dropped: u64,
}

impl Counters {
    /// Of a namespace, opened once. Errors where it cannot be entered or has no `/proc/net`.
    pub fn of(namespace: &Netns) -> Result<Counters> {
        namespace.look_inside(|_| {
            let open = |name: &str| {
                let path = format!("/proc/thread-self/net/{name}");
                File::open(&path).map_err(|error| Error::io(format!("cannot read {path}"), &error))
            };
            Ok(Counters { devices: open("dev")?, protocols: open("snmp")? })
        })
    }

    /// What they are at this moment, counted since each interface was made.
    pub fn read(&self) -> Result<Reading> {
        let failed = |error| Error::io("cannot read the kernel's counters", &error);
        let devices = whole(&self.devices).map_err(failed)?;
        let protocols = whole(&self.protocols).map_err(failed)?;
        Ok(Reading {
            devices: devices.lines().filter_map(device).collect(),
            retransmitted: counter(&protocols, "Tcp:", "RetransSegs"),
            dropped: counter(&protocols, "Udp:", "RcvbufErrors"),
        })
    }
}

impl Reading {
    /// The busiest interface between two readings, and what TCP and UDP counted meanwhile.
    pub fn since(&self, earlier: &Reading) -> Counted {
        let before =
            |name: &str| earlier.devices.iter().find(|(other, _)| other == name).map_or([0; 4], |(_, counts)| *counts);
        let of = |(name, now): &(String, [u64; 4])| {
            let before = before(name);
            let more: Vec<u64> = now.iter().zip(before).map(|(now, before)| now.saturating_sub(before)).collect();
            Counted {
                device: name.clone(),
                packets_sent: more[0],
                bytes_sent: more[1],
                packets_received: more[2],
                bytes_received: more[3],
                retransmitted: self.retransmitted.saturating_sub(earlier.retransmitted),
                dropped: self.dropped.saturating_sub(earlier.dropped),
            }
        };
        self.devices
            .iter()
            .map(of)
            .max_by_key(|counted| counted.bytes_sent + counted.bytes_received)
            .unwrap_or_default()
    }
}

/// Read with one system call, so that it is of one moment.
fn whole(file: &File) -> io::Result<String> {
    let mut bytes = vec![0; 64 * 1024];
    let length = file.read_at(&mut bytes, 0)?;
    bytes.truncate(length);
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// A line of `/proc/net/dev`: the name, eight numbers of what came, eight of what left.
fn device(line: &str) -> Option<(String, [u64; 4])> {
    let (name, numbers) = line.split_once(':')?;
    let numbers: Vec<u64> = numbers.split_whitespace().map_while(|number| number.parse().ok()).collect();
    let [received, packets_received, _, _, _, _, _, _, sent, packets_sent, ..] = numbers[..] else { return None };
    Some((name.trim().to_owned(), [packets_sent, sent, packets_received, received]))
}

/// A counter of `/proc/net/snmp`, where one line has the names and the next the numbers.
fn counter(text: &str, protocol: &str, name: &str) -> u64 {
    let mut lines = text.lines().filter(|line| line.starts_with(protocol)).map(str::split_whitespace);
    let (Some(names), Some(mut numbers)) = (lines.next(), lines.next()) else { return 0 };
    let place = names.into_iter().position(|other| other == name);
    place.and_then(|place| numbers.nth(place)).and_then(|number| number.parse().ok()).unwrap_or(0)
}

/// The processor's time that this process has had so far, in itself and in the kernel. What the kernel
/// does for it on the way, such as passing a packet on, is in it.
pub fn processor_time() -> Duration {
    let Ok(usage) = getrusage(UsageWho::RUSAGE_SELF) else { return Duration::ZERO };
    let of = |time: nix::sys::time::TimeVal| {
        Duration::from_micros(time.tv_sec().unsigned_abs() * 1_000_000 + time.tv_usec().unsigned_abs())
    };
    of(usage.user_time()) + of(usage.system_time())
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEVICES: &str = "Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo:     500       5    0    0    0     0          0         0      500       5    0    0    0     0       0          0
  eth0: 1000000     700    0    0    0     0          0         0    20000     300    0    0    0     0       0          0
";

    #[test]
    fn the_device_that_carried_most_tells() {
        let reading = |text: &str| Reading { devices: text.lines().filter_map(device).collect(), ..Reading::default() };
        let later = DEVICES.replace("1000000     700", "3000000     900");
        let counted = reading(&later).since(&reading(DEVICES));
        assert_eq!(
            (counted.device.as_str(), counted.bytes_received, counted.packets_received),
            ("eth0", 2_000_000, 200)
        );
        assert_eq!((counted.bytes_sent, counted.packets_sent), (0, 0));
    }

    #[test]
    fn a_protocols_counter_is_found_by_its_name() {
        let text = "Tcp: RtoMin InSegs RetransSegs\nTcp: 200 7 42\nUdp: InDatagrams RcvbufErrors\nUdp: 5 6\n";
        assert_eq!(counter(text, "Tcp:", "RetransSegs"), 42);
        assert_eq!(counter(text, "Udp:", "RcvbufErrors"), 6);
        assert_eq!(counter(text, "Udp:", "Nothing"), 0);
    }

    #[test]
    fn the_kernel_counts_what_is_sent_here() {
        let here = Counters::of(&Netns::of_this_thread().unwrap());
        // Without root nobody enters a namespace, not even his own.
        let Ok(here) = here else { return };
        let before = here.read().unwrap();
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        for _ in 0..100 {
            socket.send_to(&[0; 1000], socket.local_addr().unwrap()).unwrap();
        }
        assert!(here.read().unwrap().devices.iter().any(|(name, _)| name == "lo"));
        assert!(here.read().unwrap().since(&before).bytes_sent >= 100_000);
    }
}
