//! An etcd that goes in the middle of a command, at each of its calls in turn.

use std::{
    io::{ErrorKind, Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use crate::{
    etcd_cluster::Cluster,
    lab::{Lab, Ran},
};

/// A lab whose plumb keeps its records in an etcd of one member.
pub fn with_etcd() -> (Lab, Cluster) {
    let mut lab = Lab::new();
    let cluster = Cluster::single(&lab);
    lab.store_address = Some(cluster.address());
    (lab, cluster)
}

/// What a command may take when the cluster is gone, and it has to notice. In a guest, whose processor is
/// emulated and shared, all but the waiting takes ten times as long or more.
fn limit() -> Duration {
    Duration::from_secs(if std::env::var_os("PLUMB_GUEST_FOLDER").is_some() { 15 } else { 3 })
}

/// Runs plumb and sees to it that it does not wait for longer than that, or than twice that while the machine
/// has other work.
#[track_caller]
pub fn within_limit(lab: &Lab, arguments: &str) -> Ran {
    timed(lab, arguments).0
}

#[track_caller]
fn timed(lab: &Lab, arguments: &str) -> (Ran, Duration) {
    let start = Instant::now();
    let ran = lab.plumb(arguments);
    let took = start.elapsed();
    assert!(took <= limit() * 2, "{arguments} took {took:?}: {ran:#?}");
    (ran, took)
}

/// How a call goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// etcd goes before the request reaches it.
    Unheard,
    /// etcd does what it was asked to, and goes before anybody hears of it.
    Unanswered,
    /// As that, but nobody ends the connection, so that nothing tells that etcd has gone.
    Hung,
}

/// Stands between plumb and etcd, on a port of its own, and cuts the line at one request.
struct Proxy {
    plan: Arc<Mutex<Plan>>,
    ended: Arc<AtomicBool>,
}

struct Plan {
    fault: Option<Fault>,
    /// How many requests still pass.
    left: usize,
    cut: bool,
}

const PROXY: &str = "127.0.0.1:4001";

impl Proxy {
    fn start(lab: &Lab) -> Proxy {
        let listener = lab.inside("host", || TcpListener::bind(PROXY).unwrap());
        listener.set_nonblocking(true).unwrap();
        let proxy = Proxy {
            plan: Arc::new(Mutex::new(Plan { fault: None, left: 0, cut: false })),
            ended: Arc::new(AtomicBool::new(false)),
        };
        let (plan, ended) = (proxy.plan.clone(), proxy.ended.clone());
        // On a thread that stays in the lab's host, as connections to etcd are made from it.
        let namespace = std::fs::File::open(lab.path("host")).unwrap();
        std::thread::spawn(move || {
            nix::sched::setns(namespace, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
            while !ended.load(Ordering::Relaxed) {
                match listener.accept() {
                    Ok((client, _)) => {
                        client.set_nonblocking(false).unwrap();
                        let plan = plan.clone();
                        std::thread::spawn(move || drop(serve(client, &plan)));
                    }
                    Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
                }
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        proxy
    }

    /// From now on the line is cut at the request after `left` others.
    fn cut_after(&self, left: usize, fault: Fault) {
        *self.plan.lock().unwrap() = Plan { fault: Some(fault), left, cut: false };
    }

    /// The line holds again. Says whether it was cut.
    fn mend(&self) -> bool {
        std::mem::replace(&mut *self.plan.lock().unwrap(), Plan { fault: None, left: 0, cut: false }).cut
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
    }
}

/// Passes calls and answers on until the line is cut. After that etcd is gone: who comes anew is sent
/// away at once.
fn serve(client: TcpStream, plan: &Mutex<Plan>) -> std::io::Result<()> {
    if plan.lock().unwrap().cut {
        return Ok(());
    }
    let etcd = TcpStream::connect("127.0.0.1:2379")?;
    let line = Line { client, etcd, fault: Mutex::new(None) };
    std::thread::scope(|threads| {
        threads.spawn(|| line.pass_answers());
        let passed = line.pass_calls(plan);
        line.end();
        passed
    })
}

/// A connection of plumb's and the one to etcd that stands for it.
struct Line {
    client: TcpStream,
    etcd: TcpStream,
    /// The call that is on its way goes wrong.
    fault: Mutex<Option<Fault>>,
}

impl Line {
    fn end(&self) {
        [&self.client, &self.etcd].into_iter().for_each(|stream| drop(stream.shutdown(Shutdown::Both)));
    }

    fn pass_calls(&self, plan: &Mutex<Plan>) -> std::io::Result<()> {
        // What every client of HTTP/2 begins with.
        let mut preface = [0; 24];
        (&self.client).read_exact(&mut preface)?;
        (&self.etcd).write_all(&preface)?;
        while let Some(frame) = Frame::read(&self.client)? {
            if frame.kind() == Frame::HEADERS {
                let fault = plan.lock().unwrap().next();
                if fault == Some(Fault::Unheard) {
                    return Ok(());
                }
                *self.fault.lock().unwrap() = fault;
            }
            (&self.etcd).write_all(&frame.0)?;
        }
        Ok(())
    }

    fn pass_answers(&self) -> std::io::Result<()> {
        while let Some(frame) = Frame::read(&self.etcd)? {
            match *self.fault.lock().unwrap() {
                None => (&self.client).write_all(&frame.0)?,
                Some(Fault::Unanswered) if frame.ends_a_stream() => self.end(),
                // Until plumb gives up.
                Some(_) => {}
            }
        }
        self.end();
        Ok(())
    }
}

impl Plan {
    /// What goes wrong with the call that comes now.
    fn next(&mut self) -> Option<Fault> {
        match self.fault {
            Some(_) if self.cut => Some(Fault::Unheard),
            Some(fault) if self.left == 0 => {
                self.cut = true;
                Some(fault)
            }
            Some(_) => {
                self.left -= 1;
                None
            }
            None => None,
        }
    }
}

/// A frame of HTTP/2 (RFC 9113, 4.1): its length in three bytes, its kind, flags, its stream, itself.
struct Frame(Vec<u8>);

impl Frame {
    const DATA: u8 = 0;
    /// With which each call begins, and each answer begins and ends.
    const HEADERS: u8 = 1;

    /// None where the connection has ended.
    fn read(mut stream: &TcpStream) -> std::io::Result<Option<Frame>> {
        let mut head = [0; 9];
        match stream.read_exact(&mut head) {
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(None),
            outcome => outcome?,
        }
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let mut frame = head.to_vec();
        frame.resize(9 + length, 0);
        stream.read_exact(&mut frame[9..])?;
        Ok(Some(Frame(frame)))
    }

    fn kind(&self) -> u8 {
        self.0[3]
    }

    fn ends_a_stream(&self) -> bool {
        [Frame::DATA, Frame::HEADERS].contains(&self.kind()) && self.0[4] & 1 != 0
    }
}

/// Runs plumb until etcd has answered in time, which an emulated one at times does not.
#[track_caller]
fn done(lab: &Lab, arguments: &str) -> Ran {
    let mut ran = lab.plumb(arguments);
    for _ in 0..5 {
        if ran.code != 7 {
            break;
        }
        ran = lab.plumb(arguments);
    }
    ran.ok()
}

/// A command that is cut off from etcd, and what goes before. `TARGET` is the lab's `box`.
pub struct Cuts<'a> {
    pub verb: &'a str,
    pub furnish: fn(&mut Lab),
    /// At the very beginning.
    pub once: &'a str,
    /// Each time.
    pub prepare: &'a str,
    /// One is every call, two every second.
    pub every: usize,
}

impl<'a> Cuts<'a> {
    /// At every call of `verb`, which needs nothing before but to have found its store in order once.
    pub fn of(verb: &'a str) -> Cuts<'a> {
        Cuts { verb, furnish: |_| {}, once: verb, prepare: "", every: 1 }
    }

    /// Each time the command must end soon, of three tries at the latest, with the host as it was before; and a
    /// later run must succeed.
    pub fn all(&self, fault: Fault) {
        let (mut lab, cluster) = with_etcd();
        (self.furnish)(&mut lab);
        let proxy = Proxy::start(&lab);
        lab.store_address = Some(format!("etcd://{PROXY}"));
        let run = |arguments: &str| done(&lab, &self.fill(&lab, arguments));
        run(self.once);
        run("detach --all");
        // What is remembered of a pool is a hint, and moves on.
        let kept = |(key, _): &(String, String)| !key.starts_with("/plumb/history/");
        let everything = || cluster.everything(&lab).into_iter().filter(kept).collect::<Vec<_>>();
        let (empty, nothing) = (lab.state(), everything());
        let (mut call, mut slow) = (0, Vec::new());
        while let Some(took) = self.cut(&lab, &proxy, call, fault) {
            run(self.verb);
            run("detach TARGET");
            lab.state().is(&empty);
            run("gc");
            assert_eq!(everything(), nothing, "{fault:?} at call {call}");
            assert_eq!(run("gc").out, "nothing was left behind\n");
            if took <= limit() {
                slow.clear();
                call += self.every;
                continue;
            }
            slow.push(took);
            assert!(slow.len() < 3, "{fault:?} at call {call} of {} took {slow:?}", self.verb);
        }
        println!("{call} calls");
        assert!(call >= 3, "only {call} calls");
    }

    fn fill(&self, lab: &Lab, arguments: &str) -> String {
        arguments.replace("TARGET", &lab.netns("box"))
    }

    /// Cut after so many calls: how long the command took. None: it has fewer.
    fn cut(&self, lab: &Lab, proxy: &Proxy, call: usize, fault: Fault) -> Option<Duration> {
        loop {
            if !self.prepare.is_empty() {
                done(lab, &self.fill(lab, self.prepare));
            }
            let before = lab.state();
            proxy.cut_after(call, fault);
            let (ran, took) = timed(lab, &self.fill(lab, self.verb));
            if proxy.mend() {
                println!("{fault:?} after {call} calls of {}: {} {}", self.verb, ran.code, ran.err.trim());
                let is_said = ran.err.contains("etcd at") || ran.err.contains("no etcd answered at");
                assert!(matches!(ran.code, 1 | 7) && is_said, "{ran:#?}");
                if self.prepare.is_empty() {
                    lab.state().is(&before);
                }
                return Some(took);
            }
            // An emulated one does not always answer in time.
            if ran.code != 7 {
                ran.ok();
                return None;
            }
        }
    }
}
