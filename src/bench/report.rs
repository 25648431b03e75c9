//! What was measured, gathered from the turns: the one source of tables, documents and pictures.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::{
    Test,
    rounds::Task,
    statistics::{Summary, median, not_told_apart},
};
use crate::error::Error;

/// What one turn gave.
#[derive(Debug, Clone, Default)]
pub struct Sample {
    /// Gbit/s that arrived, or transactions a second.
    pub rate: f64,
    /// Gbit/s that were sent, where some may get lost on the way.
    pub sent: Option<f64>,
    pub took: Duration,
    pub packets: u64,
    pub bytes: u64,
    pub retransmitted: u64,
    /// Datagrams for which the receiver had no room, and requests whose answer did not come.
    pub dropped: u64,
    pub processor: Duration,
    pub latency: Option<Histogram<u64>>,
}

/// A way with all that was measured of it.
#[derive(Debug, Clone, Serialize)]
pub struct Subject {
    /// What `--ways` takes, or how the targets are called.
    pub way: String,
    pub title: String,
    /// Why it is not measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lacking: Option<String>,
}

/// What one task gave with one way.
#[derive(Debug, Clone, Serialize)]
pub struct Figure {
    pub way: String,
    #[serde(skip)]
    pub title: String,
    pub test: Test,
    pub streams: u16,
    pub unit: &'static str,
    #[serde(flatten)]
    pub rate: Summary,
    /// By how much it is faster than the baseline: the median over the rounds, in each of which the two were
    /// measured one after the other.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub relative: Option<Summary>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sent: Option<f64>,
    /// Packets a second that the sender's interface counted, and the mean of their bytes, headers included. What the kernel
    /// passes on unsegmented is one packet.
    pub packets_per_second: f64,
    pub bytes_per_packet: f64,
    pub retransmitted: u64,
    pub dropped: u64,
    /// The processor's time of both ends: seconds for each Gbit, or microseconds for each transaction.
    pub processor: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency_us: Option<Latency>,
    /// In the order of the rounds.
    pub samples: Vec<f64>,
}

/// How long transactions took, in microseconds.
#[derive(Debug, Clone, Serialize)]
pub struct Latency {
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
    #[serde(rename = "p99.9")]
    pub p999: f64,
    pub max: f64,
    /// Which share of the transactions took longer than how many microseconds, from half of them to one in
    /// ten thousand.
    #[serde(skip)]
    pub tail: Vec<(f64, f64)>,
}

/// The machine, and how it was asked.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Circumstances {
    pub kernel: String,
    pub processor: String,
    pub processors: usize,
    pub version: &'static str,
    pub when: String,
    pub tool: &'static str,
    pub rounds: u32,
    pub seconds_each: f64,
    pub mtu: u32,
    /// The command that does the same.
    pub command: String,
}

#[derive(Debug, Clone, Serialize)]
pub struct Report {
    #[serde(flatten)]
    pub circumstances: Circumstances,
    pub ways: Vec<Subject>,
    /// By task, and within one in the order of the ways.
    pub figures: Vec<Figure>,
    /// What could not be ranked.
    pub warnings: Vec<String>,
    pub interrupted: bool,
    /// What ended it before its time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<Error>,
}

/// The samples of each way for each task, as they come.
pub struct Gathered {
    tasks: Vec<Task>,
    /// By task, then by way.
    samples: Vec<Vec<Vec<Sample>>>,
}

impl Gathered {
    pub fn new(tasks: &[Task], ways: usize) -> Gathered {
        Gathered { tasks: tasks.to_vec(), samples: vec![vec![Vec::new(); ways]; tasks.len()] }
    }

    pub fn add(&mut self, task: Task, way: usize, sample: Sample) {
        if let Some(at) = self.tasks.iter().position(|other| *other == task) {
            self.samples[at][way].push(sample);
        }
    }

    /// The figures of `ways`, which are those that are measured. `baseline` is the place of the one that the
    /// others are held against.
    pub fn figures(&self, ways: &[&Subject], baseline: Option<usize>) -> Vec<Figure> {
        let of_task = |(task, samples): (&Task, &Vec<Vec<Sample>>)| {
            let base = baseline.and_then(|baseline| samples.get(baseline)).map(|base| rates(base));
            let each = |(way, samples): (&&Subject, &Vec<Sample>)| figure(*task, way, samples, base.as_deref());
            ways.iter().zip(samples).filter_map(each).collect::<Vec<_>>()
        };
        self.tasks.iter().zip(&self.samples).flat_map(of_task).collect()
    }
}

fn rates(samples: &[Sample]) -> Vec<f64> {
    samples.iter().map(|sample| sample.rate).collect()
}

fn figure(task: Task, way: &Subject, samples: &[Sample], base: Option<&[f64]>) -> Option<Figure> {
    let rate = Summary::of(&rates(samples))?;
    let relative = base.and_then(|base| {
        let pairs = samples.iter().zip(base).filter(|(_, base)| **base > 0.0);
        Summary::of(&pairs.map(|(sample, base)| sample.rate / base).collect::<Vec<_>>())
    });
    let of = |pick: fn(&Sample) -> f64| median(&samples.iter().map(pick).collect::<Vec<_>>()).unwrap_or(0.0);
    let sum = |pick: fn(&Sample) -> u64| samples.iter().map(pick).sum();
    let sent: Vec<f64> = samples.iter().filter_map(|sample| sample.sent).collect();
    Some(Figure {
        way: way.way.clone(),
        title: way.title.clone(),
        test: task.test,
        streams: task.streams,
        unit: task.test.unit(),
        rate,
        relative,
        sent: median(&sent),
        packets_per_second: of(|sample| sample.packets as f64 / sample.took.as_secs_f64().max(1e-9)),
        bytes_per_packet: of(|sample| sample.bytes as f64 / (sample.packets as f64).max(1.0)),
        retransmitted: sum(|sample| sample.retransmitted),
        dropped: sum(|sample| sample.dropped),
        processor: of(Sample::processor_each) * if task.test.asks() { 1e6 } else { 1.0 },
        latency_us: latency(samples),
        samples: rates(samples),
    })
}

impl Sample {
    /// Seconds of the processor's time for each Gbit, or each transaction.
    fn processor_each(&self) -> f64 {
        let done = self.rate * self.took.as_secs_f64();
        if done > 0.0 { self.processor.as_secs_f64() / done } else { 0.0 }
    }
}

/// Of all rounds together: the tail of one alone is a handful of transactions.
fn latency(samples: &[Sample]) -> Option<Latency> {
    let mut all: Option<Histogram<u64>> = None;
    for one in samples.iter().filter_map(|sample| sample.latency.as_ref()) {
        match &mut all {
            Some(sum) => sum.add(one).ok()?,
            None => all = Some(one.clone()),
        }
    }
    let all = all.filter(|all| !all.is_empty())?;
    let at = |share: f64| all.value_at_quantile(share) as f64 / 1e3;
    // Evenly spread as the picture shows them, by powers of ten.
    let shares = (0..=36).map(|step| 0.5 * 10f64.powf(-f64::from(step) / 10.0)).filter(|share| *share >= 1e-4);
    Some(Latency {
        p50: at(0.5),
        p90: at(0.9),
        p99: at(0.99),
        p999: at(0.999),
        max: all.max() as f64 / 1e3,
        tail: shares.map(|share| (share, at(1.0 - share))).collect(),
    })
}

/// "TCP_RR: macvlan bridge and ipvlan l2 cannot be told apart here", for each task and each such group.
pub fn not_ranked(figures: &[Figure]) -> Vec<String> {
    let mut warnings = Vec::new();
    for of_task in by_task(figures) {
        let summaries: Vec<Summary> = of_task.iter().map(|figure| figure.rate).collect();
        for group in not_told_apart(&summaries) {
            let titles: Vec<&str> = group.iter().map(|place| of_task[*place].title.as_str()).collect();
            let (last, others) = titles.split_last().unwrap_or((&"", &[]));
            warnings.push(format!(
                "{}: {} and {last} cannot be told apart here: their 95 % intervals overlap",
                of_task[0].task(),
                others.join(", ")
            ));
        }
    }
    warnings
}

/// "UDP_STREAM: nothing arrived by VXLAN": a firewall may let one protocol through and not the other.
pub fn nothing_arrived(figures: &[Figure]) -> Vec<String> {
    let silent = figures.iter().filter(|figure| figure.rate.median <= 0.0);
    silent.map(|figure| format!("{}: nothing arrived by {}", figure.task(), figure.title)).collect()
}

/// The figures of each task.
pub fn by_task(figures: &[Figure]) -> impl Iterator<Item = &[Figure]> {
    figures.chunk_by(|one, other| one.test == other.test && one.streams == other.streams)
}

impl Figure {
    pub fn task(&self) -> Task {
        Task { test: self.test, streams: self.streams }
    }
}

/// `2026-11-21 20:22 UTC`, of seconds since 1970. The days are counted from a first of March, so that the
/// day that some years have more comes last (Hinnant, "chrono-compatible low-level date algorithms").
pub fn moment(seconds: u64) -> String {
    let (days, second) = (seconds / 86_400 + 719_468, seconds % 86_400);
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    format!("{year}-{month:02}-{day:02} {:02}:{:02} UTC", second / 3600, second / 60 % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subject(way: &str) -> Subject {
        Subject { way: way.into(), title: way.into(), lacking: None }
    }

    fn gathered(ways: &[&[f64]]) -> Vec<Figure> {
        let task = Task { test: Test::TcpStream, streams: 1 };
        let mut gathered = Gathered::new(&[task], ways.len());
        for round in 0..ways[0].len() {
            for (way, rates) in ways.iter().enumerate() {
                let took = Duration::from_secs(2);
                gathered.add(
                    task,
                    way,
                    Sample { rate: rates[round], took, packets: 10, bytes: 15_000, ..Sample::default() },
                );
            }
        }
        let subjects: Vec<Subject> = (0..ways.len()).map(|way| subject(&format!("way {way}"))).collect();
        gathered.figures(&subjects.iter().collect::<Vec<_>>(), Some(0))
    }

    /// The machine slows to a half: both ways alike, so what they are to one another is as sure as before.
    #[test]
    fn what_slows_all_ways_alike_leaves_their_ratio() {
        let figures = gathered(&[&[10.0, 8.0, 5.0], &[15.0, 12.0, 7.5]]);
        let relative = figures[1].relative.unwrap();
        assert_eq!((relative.low, relative.median, relative.high), (1.5, 1.5, 1.5));
        assert_eq!(figures[1].bytes_per_packet, 1500.0);
        assert_eq!(figures[1].packets_per_second, 5.0);
    }

    #[test]
    fn what_cannot_be_ranked_is_named() {
        let figures = gathered(&[&[10.0, 11.0, 12.0], &[10.5, 11.5, 12.5], &[20.0, 20.0, 20.0], &[11.9, 9.0, 12.2]]);
        assert_eq!(
            not_ranked(&figures),
            ["TCP_STREAM: way 3, way 1 and way 0 cannot be told apart here: their 95 % intervals overlap"]
        );
    }

    #[test]
    fn a_moment_is_told_as_the_calendar_has_it() {
        for (seconds, text) in [
            (0, "1970-01-01 00:00 UTC"),
            (951_782_399, "2000-02-28 23:59 UTC"),
            (951_782_400, "2000-02-29 00:00 UTC"),
            (1_709_251_199, "2024-02-29 23:59 UTC"),
            (1_798_761_599, "2026-12-31 23:59 UTC"),
        ] {
            assert_eq!(moment(seconds), text);
        }
    }

    #[test]
    fn a_way_by_which_nothing_arrives_is_named() {
        let figures = gathered(&[&[10.0, 10.0, 10.0], &[0.0, 0.0, 0.1]]);
        assert_eq!(nothing_arrived(&figures), ["TCP_STREAM: nothing arrived by way 1"]);
    }

    #[test]
    fn a_task_that_was_not_reached_has_no_figure() {
        let tasks = [Task { test: Test::UdpRr, streams: 1 }];
        let subject = subject("way");
        assert!(Gathered::new(&tasks, 1).figures(&[&subject], None).is_empty());
    }

    #[test]
    fn latencies_of_all_rounds_are_one_distribution() {
        let round = |values: std::ops::Range<u64>| {
            let mut latency = Histogram::new_with_bounds(1, 10_000_000_000, 3).unwrap();
            values.for_each(|value| latency.record(value * 1000).unwrap());
            Sample { latency: Some(latency), ..Sample::default() }
        };
        let latency = latency(&[round(1..501), round(501..1001)]).unwrap();
        for (found, expected) in
            [(latency.p50, 500.0), (latency.p90, 900.0), (latency.p999, 999.0), (latency.max, 1000.0)]
        {
            assert!((found / expected - 1.0_f64).abs() < 0.002, "{found} {expected}");
        }
        assert_eq!(latency.tail[0].0, 0.5);
    }
}

#[cfg(test)]
pub(super) mod samples {
    //! A report as it might come out, for the tests of what is made of it.

    use super::*;

    pub fn report() -> Report {
        let titles = [("bridge", "bridge+veth"), ("macvlan", "macvlan bridge")];
        let subjects: Vec<Subject> = titles
            .iter()
            .map(|(way, title)| Subject { way: (*way).into(), title: (*title).into(), lacking: None })
            .collect();
        let task = |test, streams| Task { test, streams };
        let tasks = [task(Test::TcpStream, 1), task(Test::TcpStream, 2), task(Test::TcpRr, 1)];
        let mut gathered = Gathered::new(&tasks, 2);
        for task in tasks {
            for round in [-1.0, 0.0, 1.0] {
                for way in 0..2 {
                    let rate = f64::from(task.streams) * [10.0, 15.0][way] + round * [0.0, 1.0][way];
                    let mut latency = Histogram::new_with_bounds(1, 10_000_000_000, 3).unwrap();
                    (10..1000u64).for_each(|value| latency.record(value * 100).unwrap());
                    let latency = task.test.asks().then_some(latency);
                    let took = Duration::from_secs(1);
                    gathered.add(
                        task,
                        way,
                        Sample { rate, took, packets: 100, bytes: 150_000, latency, ..Sample::default() },
                    );
                }
            }
        }
        let figures = gathered.figures(&subjects.iter().collect::<Vec<_>>(), Some(0));
        let lacking = Subject {
            way: "ipvlan-l2".into(),
            title: "ipvlan l2".into(),
            lacking: Some("this kernel lacks it: module ipvlan".into()),
        };
        Report {
            circumstances: Circumstances { kernel: "6.18.0".into(), rounds: 3, ..Circumstances::default() },
            ways: subjects.into_iter().chain([lacking]).collect(),
            warnings: not_ranked(&figures),
            figures,
            interrupted: false,
            error: None,
        }
    }
}
