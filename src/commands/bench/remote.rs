//! Receivers on another host: the server that has them, and the session by which they are told what to do.
//! A line of JSON for each request, and one for each answer.

use std::{
    io::{self, BufRead, BufReader, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream},
    time::Duration,
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{
    between::End,
    measure::{Progress, listen},
};
use crate::{
    bench::{
        Test,
        generator::{Answering, Mark, Spec},
        rounds::Task,
    },
    commands::Context,
    error::{Error, Result, plain},
    interrupt,
    kernel::{Netns, counters::processor_time},
    types::TargetName,
};

/// The version of this language. Who speaks another one says so at once.
const VERSION: u32 = 1;
const TICK: Duration = Duration::from_millis(200);
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(5);
const MOST_STREAMS: u16 = 64;

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Request {
    Hello { version: u32 },
    Start { test: Test, streams: u16, datagram: u16, ipv6: bool },
    Mark,
    Finish,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Answer {
    Hello { version: u32 },
    Ports(Vec<u16>),
    Mark { mark: Mark, processor: Duration },
    Done,
    Refused(String),
}

/// `plumb bench --server`: listens in the target until a signal comes.
pub fn serve(name: &TargetName, port: u16, context: &Context) -> Result<()> {
    let end = End::open(name, context)?;
    let name = end.target.name.to_string();
    end.namespace.look_inside(|_| {
        let listener = bind(port, &name)?;
        listener.set_nonblocking(true).map_err(|error| Error::io("cannot listen", &error))?;
        context.output.line(format_args!(
            "{name}: plumb bench TARGET --to ADDR on another host measures to here (port {port}); ctrl-C ends it"
        ));
        while interrupt::check().is_ok() {
            match listener.accept() {
                Ok((client, from)) => {
                    let outcome = Service { receivers: None }.serve(client);
                    let said = outcome.map_or_else(|error| format!(": {}", plain(&error)), |()| String::new());
                    context.output.line(format_args!("{}: measured{said}", from.ip().to_canonical()));
                }
                Err(_) => {
                    let _ = interrupt::sleep(TICK);
                }
            }
        }
        Ok(())
    })
}

/// By both versions of IP, where there are both.
fn bind(port: u16, name: &str) -> Result<TcpListener> {
    let by = |any: IpAddr| TcpListener::bind((any, port));
    let in_use = |error: &io::Error| error.kind() == io::ErrorKind::AddrInUse;
    let bound = by(Ipv6Addr::UNSPECIFIED.into())
        .or_else(|error| if in_use(&error) { Err(error) } else { by(Ipv4Addr::UNSPECIFIED.into()) });
    bound.map_err(|error| {
        if in_use(&error) {
            return Error::conflict(format!("port {port} is in use in {name}")).hint(format!(
                "--port {} here and there takes another",
                if port == u16::MAX { port - 1 } else { port + 1 }
            ));
        }
        Error::io(format!("cannot listen on port {port} in {name}"), &error)
    })
}

/// One client's measurement. With it the receivers end.
struct Service {
    receivers: Option<Answering>,
}

impl Service {
    fn serve(mut self, client: TcpStream) -> io::Result<()> {
        client.set_nonblocking(false)?;
        client.set_nodelay(true)?;
        client.set_read_timeout(Some(TICK))?;
        let mut lines = Lines { reader: BufReader::new(client), line: String::new() };
        while let Some(request) = lines.next(None)? {
            let answer = self.answer(request);
            lines.send(&answer)?;
        }
        Ok(())
    }

    fn answer(&mut self, request: Request) -> Answer {
        match (request, &self.receivers) {
            (Request::Hello { version: VERSION }, _) => Answer::Hello { version: VERSION },
            (Request::Hello { version }, _) => {
                Answer::Refused(format!("this plumb speaks version {VERSION} of the language, not {version}"))
            }
            (Request::Start { streams: 0, .. }, _) => Answer::Refused("no streams".into()),
            (Request::Start { test, streams, datagram, ipv6 }, _) => {
                let task = Task { test, streams: streams.min(MOST_STREAMS) };
                match listen(Spec { task, datagram }, ipv6, &[]) {
                    Ok(receivers) => Answer::Ports(self.receivers.insert(receivers).ports().to_vec()),
                    Err(error) => Answer::Refused(error.message),
                }
            }
            (Request::Mark, Some(receivers)) => Answer::Mark { mark: receivers.mark(), processor: processor_time() },
            (Request::Mark, None) => Answer::Refused("nothing is measured".into()),
            (Request::Finish, _) => {
                self.receivers.take().into_iter().for_each(Answering::finish);
                Answer::Done
            }
        }
    }
}

/// Lines of JSON, there and back.
struct Lines {
    reader: BufReader<TcpStream>,
    /// What has come of the next one.
    line: String,
}

impl Lines {
    fn send(&mut self, message: &impl Serialize) -> io::Result<()> {
        let text = serde_json::to_string(message).map_err(io::Error::other)? + "\n";
        self.reader.get_mut().write_all(text.as_bytes())
    }

    /// The next one, or `None` at the end. It is waited for so long, and no longer than a signal lets.
    fn next<T: DeserializeOwned>(&mut self, patience: Option<Duration>) -> io::Result<Option<T>> {
        const LONGEST: usize = 64 * 1024;
        let start = std::time::Instant::now();
        loop {
            match self.reader.read_line(&mut self.line) {
                Ok(0) => return Ok(None),
                Ok(_) => {
                    let message = serde_json::from_str(&self.line).map_err(io::Error::other);
                    self.line.clear();
                    return message.map(Some);
                }
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
                Err(error) => return Err(error),
            }
            if interrupt::check().is_err() {
                return Err(io::ErrorKind::Interrupted.into());
            }
            if patience.is_some_and(|patience| start.elapsed() > patience) || self.line.len() > LONGEST {
                return Err(io::ErrorKind::TimedOut.into());
            }
        }
    }
}

/// The client's side of it.
pub struct Session {
    lines: Lines,
    server: IpAddr,
    ports: Vec<u16>,
}

impl Session {
    /// Connects from inside `namespace`.
    pub fn open(namespace: &Netns, server: IpAddr, port: u16) -> Result<Session> {
        let stream = namespace.look_inside(|_| {
            TcpStream::connect_timeout(&SocketAddr::new(server, port), PATIENCE)
                .map_err(|error| Error::of_connection(&error, server, port))
        })?;
        let prepared = stream.set_nodelay(true).and_then(|()| stream.set_read_timeout(Some(TICK)));
        prepared.map_err(|error| Error::io(format!("cannot speak to {server}"), &error))?;
        let lines = Lines { reader: BufReader::new(stream), line: String::new() };
        let mut session = Session { lines, server, ports: Vec::new() };
        match session.ask(&Request::Hello { version: VERSION })? {
            Answer::Hello { version: VERSION } => Ok(session),
            other => Err(session.strange(&other)),
        }
    }

    pub fn start(&mut self, spec: Spec, ipv6: bool) -> Result<()> {
        let Spec { task: Task { test, streams }, datagram } = spec;
        match self.ask(&Request::Start { test, streams, datagram, ipv6 })? {
            Answer::Ports(ports) => self.ports = ports,
            other => return Err(self.strange(&other)),
        }
        Ok(())
    }

    pub fn ports(&self) -> &[u16] {
        &self.ports
    }

    /// With the processor's time of both hosts.
    pub fn mark(&mut self) -> Result<Progress> {
        match self.ask(&Request::Mark)? {
            Answer::Mark { mark, processor } => Ok(Progress { mark, processor: processor + processor_time() }),
            other => Err(self.strange(&other)),
        }
    }

    pub fn finish(&mut self) -> Result<()> {
        match self.ask(&Request::Finish)? {
            Answer::Done => Ok(()),
            other => Err(self.strange(&other)),
        }
    }

    fn ask(&mut self, request: &Request) -> Result<Answer> {
        let server = self.server;
        let answer = self.lines.send(request).and_then(|()| self.lines.next(Some(PATIENCE)));
        match answer {
            Ok(Some(answer)) => Ok(answer),
            Ok(None) => Err(Error::failed(format!("{server} has ended the measurement"))),
            Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                Err(Error::timed_out(format!("{server} does not answer"))
                    .hint("it may be busy with another measurement, or no plumb bench --server"))
            }
            Err(error) => Err(Error::io(format!("cannot speak to {server}"), &error)),
        }
    }

    fn strange(&self, answer: &Answer) -> Error {
        match answer {
            Answer::Refused(reason) => Error::failed(format!("{} refuses: {reason}", self.server)),
            other => Error::failed(format!("{} answers something else: {other:?}", self.server)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stranger_is_answered_and_starts_nothing() {
        let mut service = Service { receivers: None };
        assert!(matches!(service.answer(Request::Hello { version: 99 }), Answer::Refused(_)));
        assert!(matches!(service.answer(Request::Mark), Answer::Refused(_)));
        assert!(matches!(service.answer(Request::Finish), Answer::Done));
    }

    #[test]
    fn however_many_streams_are_asked_for_there_is_a_limit() {
        let mut service = Service { receivers: None };
        let start = Request::Start { test: Test::TcpRr, streams: 60_000, datagram: 1472, ipv6: false };
        let Answer::Ports(ports) = service.answer(start) else { panic!("it starts") };
        assert_eq!(ports.len(), usize::from(MOST_STREAMS));
        assert!(matches!(service.answer(Request::Finish), Answer::Done));
    }
}
