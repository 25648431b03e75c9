//! One turn: senders and receivers at work, and what they and the kernel have counted meanwhile.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use super::{remote::Session, tool};
use crate::{
    bench::{
        Test, Tool,
        generator::{Answering, Asking, Mark, Spec, UDP_HEADERS, processors},
        report::Sample,
        rounds::Task,
    },
    error::{Error, Result},
    interrupt,
    kernel::{
        Netns,
        counters::{Counters, processor_time},
    },
};

/// Two ends, as they are for one turn.
pub struct Turn<'a> {
    pub near: &'a Netns,
    pub far: Far<'a>,
    pub to: IpAddr,
    pub mtu: u32,
}

/// Where the receivers are.
pub enum Far<'a> {
    Here(&'a Netns),
    /// On another host.
    Elsewhere(&'a mut Session),
}

/// Receivers at work.
enum Receiving<'a> {
    Here(Answering),
    Elsewhere(&'a mut Session),
}

/// Long enough for TCP to have found its window, and for the neighbours to have found one another.
fn warm_up(duration: Duration) -> Duration {
    (duration / 5).clamp(Duration::from_millis(50), Duration::from_millis(500))
}

impl Turn<'_> {
    pub fn measure(self, task: Task, duration: Duration, tool: Tool) -> Result<Sample> {
        let headers = UDP_HEADERS[usize::from(self.to.is_ipv6())];
        let datagram = u16::try_from(self.mtu.saturating_sub(headers).clamp(1, 65_507)).unwrap_or(u16::MAX);
        match (tool, &self.far) {
            (Tool::Iperf3 | Tool::Netperf, Far::Here(far)) => {
                let counters = Counters::of(self.near)?;
                let before = counters.read()?;
                let sample = tool::measure(tool, self.near, far, self.to, datagram, task, duration)?;
                let counted = counters.read()?.since(&before);
                Ok(Sample { packets: counted.packets_sent, bytes: counted.bytes_sent, ..sample })
            }
            (Tool::Plumb, _) | (_, Far::Elsewhere(_)) => self.by_ourselves(Spec { task, datagram }, duration),
        }
    }

    fn by_ourselves(self, spec: Spec, duration: Duration) -> Result<Sample> {
        let task = spec.task;
        let (senders, receivers) = match self.far {
            Far::Here(_) => pins(task.streams),
            Far::Elsewhere(_) => (Vec::new(), Vec::new()),
        };
        let counters = Counters::of(self.near)?;
        let mut receiving = self.far.start(spec, self.to, &receivers)?;
        let ports = receiving.ports().to_vec();
        let to = self.to;
        let mut asking = self.near.look_inside(|_| {
            Asking::start(spec, to, &ports, &senders).map_err(|error| Error::io(format!("cannot reach {to}"), &error))
        })?;
        interrupt::sleep(warm_up(duration))?;
        let (counted, far, near) = (counters.read()?, receiving.mark()?, asking.begin());
        interrupt::sleep(duration)?;
        let near = asking.end().since(&near);
        let (far, counted) = (receiving.mark()?.since(&far), counters.read()?.since(&counted));
        let asked = asking.finish().map_err(|error| Error::io(format!("no longer reaches {to}"), &error))?;
        receiving.finish()?;
        let per_second = |count: u64, mark: &Mark| count as f64 / mark.at.as_secs_f64().max(1e-9);
        let gigabits = |mark: &Mark| per_second(mark.bytes, mark) * 8.0 / 1e9;
        Ok(Sample {
            rate: if task.test.asks() { per_second(near.messages, &near) } else { gigabits(&far.mark) },
            sent: (task.test == Test::UdpStream).then(|| gigabits(&near)),
            took: near.at,
            packets: counted.packets_sent,
            bytes: counted.bytes_sent,
            retransmitted: counted.retransmitted,
            dropped: asked.lost
                + if task.test == Test::UdpStream { near.messages.saturating_sub(far.mark.messages) } else { 0 },
            processor: far.processor,
            latency: asked.latency,
        })
    }
}

/// What the receivers have done, and how much of the processor's time this took, theirs and the senders'
/// where both are here.
pub struct Progress {
    pub mark: Mark,
    pub processor: Duration,
}

impl Progress {
    fn since(&self, earlier: &Progress) -> Progress {
        let processor = self.processor.saturating_sub(earlier.processor);
        Progress { mark: self.mark.since(&earlier.mark), processor }
    }
}

impl<'a> Far<'a> {
    fn start(self, spec: Spec, to: IpAddr, processors: &[usize]) -> Result<Receiving<'a>> {
        match self {
            Far::Here(namespace) => {
                namespace.look_inside(|_| listen(spec, to.is_ipv6(), processors)).map(Receiving::Here)
            }
            Far::Elsewhere(session) => {
                session.start(spec, to.is_ipv6())?;
                Ok(Receiving::Elsewhere(session))
            }
        }
    }
}

/// Receivers at all addresses of the calling thread's namespace.
pub fn listen(spec: Spec, ipv6: bool, processors: &[usize]) -> Result<Answering> {
    let any: IpAddr = if ipv6 { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
    Answering::start(spec, any, processors).map_err(|error| Error::io("cannot listen", &error))
}

impl Receiving<'_> {
    fn ports(&self) -> &[u16] {
        match self {
            Receiving::Here(answering) => answering.ports(),
            Receiving::Elsewhere(session) => session.ports(),
        }
    }

    fn mark(&mut self) -> Result<Progress> {
        match self {
            Receiving::Here(answering) => Ok(Progress { mark: answering.mark(), processor: processor_time() }),
            Receiving::Elsewhere(session) => session.mark(),
        }
    }

    fn finish(self) -> Result<()> {
        match self {
            Receiving::Here(answering) => answering.finish(),
            Receiving::Elsewhere(session) => session.finish()?,
        }
        Ok(())
    }
}

/// The processors of the senders and of the receivers: one for each thread where there are enough of them,
/// and one is left for all else. Otherwise the kernel places them.
fn pins(streams: u16) -> (Vec<usize>, Vec<usize>) {
    let all = processors();
    let each = usize::from(streams);
    if all.len() <= 2 * each {
        return (Vec::new(), Vec::new());
    }
    (all[..each].to_vec(), all[each..2 * each].to_vec())
}
