//! iperf3 and netperf in the place of plumb's own senders and receivers, for a cross-check.

use std::{
    io::{BufRead, BufReader, Read},
    net::{IpAddr, TcpStream},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::{
    bench::{Test, Tool, report::Sample, rounds::Task},
    error::{Error, Result},
    interrupt,
    kernel::Netns,
};

/// The programs' own ports.
const IPERF3_PORT: u16 = 5201;
const NETPERF_PORT: u16 = 12865;
/// A server that does not listen by then does not listen at all.
const PATIENCE: Duration = Duration::from_secs(5);

/// A program that ends with this value.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The tests that the tool has.
pub fn tests(tool: Tool) -> &'static [Test] {
    match tool {
        Tool::Plumb | Tool::Netperf => &[Test::TcpStream, Test::UdpStream, Test::TcpRr, Test::TcpCrr, Test::UdpRr],
        Tool::Iperf3 => &[Test::TcpStream, Test::UdpStream],
    }
}

/// An error unless its programs are installed.
pub fn require(tool: Tool) -> Result<()> {
    let programs: &[&str] = match tool {
        Tool::Plumb => &[],
        Tool::Iperf3 => &["iperf3"],
        Tool::Netperf => &["netperf", "netserver"],
    };
    let path = std::env::var_os("PATH").unwrap_or_default();
    let is_there = |program: &&&str| std::env::split_paths(&path).any(|folder| folder.join(program).is_file());
    match programs.iter().find(|program| !is_there(program)) {
        Some(missing) => Err(Error::not_found(format!("{missing} is not installed"))
            .hint(format!("install the package {}, or leave --tool out: plumb has senders of its own", tool.name()))),
        None => Ok(()),
    }
}

/// One turn between two namespaces. The tools count whole seconds only.
pub fn measure(
    tool: Tool,
    near: &Netns,
    far: &Netns,
    to: IpAddr,
    datagram: u16,
    task: Task,
    duration: Duration,
) -> Result<Sample> {
    let seconds = duration.as_secs_f64().ceil().max(1.0) as u64;
    match tool {
        Tool::Plumb | Tool::Iperf3 => iperf3(near, far, to, datagram, task, seconds),
        Tool::Netperf => netperf(near, far, to, datagram, task, seconds),
    }
}

fn iperf3(near: &Netns, far: &Netns, to: IpAddr, datagram: u16, task: Task, seconds: u64) -> Result<Sample> {
    let port = IPERF3_PORT.to_string();
    let mut server = start(far, "iperf3", &["-s", "-1", "--forceflush", "-p", &port])?;
    await_listening(&mut server)?;
    let (to, length) = (to.to_string(), datagram.to_string());
    let (seconds_text, streams) = (seconds.to_string(), task.streams.to_string());
    let mut words = vec!["-J", "-i", "0", "-c", &to, "-p", &port, "-t", &seconds_text, "-P", &streams];
    if task.test == Test::UdpStream {
        words.extend(["-u", "-b", "0", "-l", &length]);
    }
    iperf3_says(&run(near, "iperf3", &words)?, seconds)
}

/// Reads a document of iperf3's.
fn iperf3_says(text: &str, seconds: u64) -> Result<Sample> {
    let strange = || Error::failed("iperf3 printed something that plumb does not understand");
    let document: Value = serde_json::from_str(text).map_err(|_| strange())?;
    if let Some(error) = document["error"].as_str() {
        return Err(Error::failed(format!("iperf3: {error}")));
    }
    let end = &document["end"];
    let sent = end["sum_sent"]["bits_per_second"].as_f64();
    let received = end["sum_received"]["bits_per_second"].as_f64();
    let lost = end["sum"]["lost_percent"].as_f64();
    // Of UDP older versions tell what was sent and which part of it was lost.
    let by_loss = end["sum"]["bits_per_second"].as_f64().map(|sent| sent * (1.0 - lost.unwrap_or(0.0) / 100.0));
    let rate = received.filter(|received| *received > 0.0).or(by_loss).ok_or_else(strange)? / 1e9;
    let percent = |side: &str| end["cpu_utilization_percent"][side].as_f64().unwrap_or(0.0);
    Ok(Sample {
        rate,
        sent: lost.and(sent.or(end["sum"]["bits_per_second"].as_f64())).map(|sent| sent / 1e9),
        took: Duration::from_secs(seconds),
        retransmitted: end["sum_sent"]["retransmits"].as_u64().unwrap_or(0),
        dropped: end["sum"]["lost_packets"].as_u64().unwrap_or(0),
        processor: Duration::from_secs_f64(seconds as f64 * (percent("host_total") + percent("remote_total")) / 100.0),
        ..Sample::default()
    })
}

fn netperf(near: &Netns, far: &Netns, to: IpAddr, datagram: u16, task: Task, seconds: u64) -> Result<Sample> {
    let port = NETPERF_PORT.to_string();
    let _server = start(far, "netserver", &["-D", "-p", &port])?;
    near.look_inside(|_| await_port(to, NETPERF_PORT))?;
    let (to, seconds_text, length) = (to.to_string(), seconds.to_string(), datagram.to_string());
    let mut words = vec!["-H", &to, "-p", &port, "-t", task.test.name(), "-l", &seconds_text, "-P", "0", "--"];
    words.extend(["-k", "THROUGHPUT,THROUGHPUT_UNITS,REMOTE_RECV_THROUGHPUT,LOCAL_TRANSPORT_RETRANS"]);
    if task.test == Test::UdpStream {
        words.extend(["-m", &length, "-R", "1"]);
    }
    // One process for each stream, all at once.
    let outputs = std::thread::scope(|threads| {
        let streams: Vec<_> = (0..task.streams).map(|_| threads.spawn(|| run(near, "netperf", &words))).collect();
        let joined = streams.into_iter().map(|stream| {
            stream
                .join()
                .unwrap_or_else(|_| Err(Error::failed("a thread of plumb's ended unexpectedly: this is a bug")))
        });
        joined.collect::<Result<Vec<String>>>()
    })?;
    let mut sum = Sample { took: Duration::from_secs(seconds), ..Sample::default() };
    for output in outputs {
        let one = netperf_says(&output, task.test)?;
        sum.rate += one.rate;
        sum.sent = one.sent.map(|sent| sent + sum.sent.unwrap_or(0.0));
        sum.retransmitted += one.retransmitted;
    }
    Ok(sum)
}

/// Reads netperf's lines of `KEY=VALUE`.
fn netperf_says(text: &str, test: Test) -> Result<Sample> {
    let value = |key: &str| {
        text.lines()
            .filter_map(|line| line.split_once('='))
            .find(|(name, _)| *name == key)
            .map(|(_, value)| value.trim())
    };
    let number = |key: &str| value(key).and_then(|value| value.parse::<f64>().ok());
    let strange =
        || Error::failed(format!("netperf printed something that plumb does not understand: {}", text.trim()));
    let rate = number("THROUGHPUT").ok_or_else(strange)?;
    // 10^6bits/s where it is not told.
    let gigabits = |megabits: f64| megabits / 1e3;
    let received = number("REMOTE_RECV_THROUGHPUT").filter(|_| test == Test::UdpStream);
    Ok(Sample {
        rate: if test.asks() { rate } else { gigabits(received.unwrap_or(rate)) },
        sent: received.map(|_| gigabits(rate)),
        retransmitted: number("LOCAL_TRANSPORT_RETRANS").map_or(0, |count| count.max(0.0) as u64),
        ..Sample::default()
    })
}

/// Starts a program in the namespace: it is in that of the thread which starts it.
fn start(namespace: &Netns, program: &str, words: &[&str]) -> Result<Running> {
    namespace.look_inside(|_| {
        let mut command = Command::new(program);
        command.args(words).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().map(Running).map_err(|error| Error::io(format!("cannot start {program}"), &error))
    })
}

/// What the program prints, once it has ended.
fn run(namespace: &Netns, program: &str, words: &[&str]) -> Result<String> {
    let mut running = start(namespace, program, words)?;
    let (stdout, stderr) = (running.0.stdout.take(), running.0.stderr.take());
    let reader = |stream: Option<Box<dyn Read + Send>>| {
        std::thread::spawn(move || {
            let mut text = String::new();
            stream.map(|mut stream| stream.read_to_string(&mut text));
            text
        })
    };
    let out = reader(stdout.map(|stream| Box::new(stream) as Box<dyn Read + Send>));
    let err = reader(stderr.map(|stream| Box::new(stream) as Box<dyn Read + Send>));
    let status = loop {
        match running.0.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) => interrupt::sleep(Duration::from_millis(5))?,
            Err(error) => return Err(Error::io(format!("cannot wait for {program}"), &error)),
        }
    };
    let (out, err) = (out.join().unwrap_or_default(), err.join().unwrap_or_default());
    // iperf3 tells of its failures in the document.
    if status.success() || !out.trim().is_empty() {
        return Ok(out);
    }
    Err(Error::failed(format!("{program} failed: {}", err.trim())))
}

/// Until iperf3's server says that it listens.
fn await_listening(server: &mut Running) -> Result<()> {
    let failed = || Error::failed("iperf3 does not listen: is its port, 5201, in use?");
    let stdout = server.0.stdout.as_mut().ok_or_else(failed)?;
    let mut said = String::new();
    let mut lines = BufReader::new(stdout);
    while lines.read_line(&mut said).is_ok_and(|length| length > 0) {
        if said.contains("listening") {
            return Ok(());
        }
    }
    Err(failed())
}

fn await_port(to: IpAddr, port: u16) -> Result<()> {
    let end = Instant::now() + PATIENCE;
    while TcpStream::connect_timeout(&(to, port).into(), PATIENCE).is_err() {
        if Instant::now() > end {
            return Err(Error::timed_out(format!("netserver does not listen: is its port, {port}, in use?")));
        }
        interrupt::sleep(Duration::from_millis(20))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As netperf 2.7 prints them.
    #[test]
    fn netperfs_lines_are_understood() {
        let stream = "THROUGHPUT=14739.80\nTHROUGHPUT_UNITS=10^6bits/s\nREMOTE_RECV_THROUGHPUT=14735.10\nLOCAL_TRANSPORT_RETRANS=3\n";
        let sample = netperf_says(stream, Test::TcpStream).unwrap();
        assert_eq!((sample.rate, sample.sent, sample.retransmitted), (14739.80 / 1e3, None, 3));
        let sample = netperf_says(stream, Test::UdpStream).unwrap();
        assert_eq!((sample.rate, sample.sent), (14735.10 / 1e3, Some(14739.80 / 1e3)));
        let sample =
            netperf_says("THROUGHPUT=16331.71\nTHROUGHPUT_UNITS=Trans/s\nLOCAL_TRANSPORT_RETRANS=-1\n", Test::TcpRr)
                .unwrap();
        assert_eq!((sample.rate, sample.retransmitted), (16331.71, 0));
        assert!(netperf_says("establish control: are you sure there is a netserver", Test::TcpRr).is_err());
    }

    #[test]
    fn iperf3s_refusal_is_told() {
        let error = iperf3_says(r#"{"error": "unable to connect to server: Connection refused"}"#, 1).unwrap_err();
        assert_eq!(error.message, "iperf3: unable to connect to server: Connection refused");
    }
}
