//! An etcd that goes in the middle of a command, at each of its calls in turn.

use std::{
    io::{ErrorKind, Read, Write},
    net::{TcpListener, TcpStream},
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

/// What a command may take when the cluster is gone, and it has to notice.
const LIMIT: Duration = Duration::from_secs(3);

/// Runs plumb and sees to it that it does not wait for longer than that.
#[track_caller]
pub fn within_limit(lab: &Lab, arguments: &str) -> Ran {
    let start = Instant::now();
    let ran = lab.plumb(arguments);
    let took = start.elapsed();
    assert!(took <= LIMIT, "{arguments} took {took:?}: {ran:#?}");
    ran
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
        let listener = lab.inside(|| TcpListener::bind(PROXY).unwrap());
        listener.set_nonblocking(true).unwrap();
        let proxy = Proxy {
            plan: Arc::new(Mutex::new(Plan { fault: None, left: 0, cut: false })),
            ended: Arc::new(AtomicBool::new(false)),
        };
        let (plan, ended) = (proxy.plan.clone(), proxy.ended.clone());
        // On a thread that stays in the lab's host, as connections to etcd are made from it.
        let namespace = std::fs::File::open(format!("/run/netns/{}", lab.full("host"))).unwrap();
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

/// Passes requests and answers on until the line is cut. After that etcd is gone: who comes anew is
/// sent away at once.
fn serve(mut client: TcpStream, plan: &Mutex<Plan>) -> std::io::Result<()> {
    if plan.lock().unwrap().cut {
        return Ok(());
    }
    let mut etcd = TcpStream::connect("127.0.0.1:2379")?;
    while let Some(request) = message(&mut client)? {
        let fault = {
            let mut plan = plan.lock().unwrap();
            match plan.fault {
                Some(_) if plan.cut => return Ok(()),
                Some(fault) if plan.left == 0 => {
                    plan.cut = true;
                    Some(fault)
                }
                Some(_) => {
                    plan.left -= 1;
                    None
                }
                None => None,
            }
        };
        if fault == Some(Fault::Unheard) {
            return Ok(());
        }
        etcd.write_all(&request)?;
        let Some(answer) = message(&mut etcd)? else { return Ok(()) };
        match fault {
            None => client.write_all(&answer)?,
            Some(Fault::Hung) => {
                // Until plumb gives up.
                let _ = client.read(&mut [0]);
                return Ok(());
            }
            Some(_) => return Ok(()),
        }
    }
    Ok(())
}

/// One message of HTTP, with a length or in chunks; none where the connection has ended.
fn message(stream: &mut TcpStream) -> std::io::Result<Option<Vec<u8>>> {
    let (mut text, mut part) = (Vec::new(), [0; 65536]);
    loop {
        if let Some(head) = text.windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 4) {
            let fields = String::from_utf8_lossy(&text[..head]).to_lowercase();
            let length: Option<usize> =
                fields.lines().find_map(|line| line.strip_prefix("content-length: ")?.trim().parse().ok());
            let is_whole = match length {
                Some(length) => text.len() >= head + length,
                None => text.ends_with(b"0\r\n\r\n"),
            };
            if is_whole {
                return Ok(Some(text));
            }
        }
        match stream.read(&mut part)? {
            0 => return Ok(None),
            more => text.extend(&part[..more]),
        }
    }
}

/// Runs `verb` with the line cut at each call in turn, after `once` at the very beginning and `prepare`
/// each time. Each time the command must end soon, with
/// the host as it was before; and a later run must succeed.
pub fn cut_at_each_call(fault: Fault, once: &str, verb: &str, prepare: &str) {
    let (mut lab, cluster) = with_etcd();
    let proxy = Proxy::start(&lab);
    lab.store_address = Some(format!("etcd://{PROXY}"));
    let target = lab.netns("box");
    let fill = |text: &str| text.replace("TARGET", &target);
    lab.plumb(&fill(once)).ok();
    lab.plumb("detach --all").ok();
    // What is remembered of a pool is a hint, and moves on.
    let kept = |(key, _): &(String, String)| !key.starts_with("/plumb/history/");
    let everything = || cluster.everything(&lab).into_iter().filter(kept).collect::<Vec<_>>();
    let (empty, nothing) = (lab.state(), everything());
    let mut calls = 0;
    loop {
        if !prepare.is_empty() {
            lab.plumb(&fill(prepare)).ok();
        }
        let before = lab.state();
        proxy.cut_after(calls, fault);
        let ran = within_limit(&lab, &fill(verb));
        if !proxy.mend() {
            ran.ok();
            break;
        }
        calls += 1;
        println!("{fault:?} at call {calls} of {verb}: {} {}", ran.code, ran.err.trim());
        let is_said = ran.err.contains("etcd at") || ran.err.contains("no etcd answered at");
        assert!(matches!(ran.code, 1 | 7) && is_said, "{ran:#?}");
        if prepare.is_empty() {
            lab.state().is(&before);
        }
        lab.plumb(&fill(verb)).ok();
        lab.plumb(&format!("detach {target}")).ok();
        lab.state().is(&empty);
        lab.plumb("gc").ok();
        assert_eq!(everything(), nothing, "{fault:?} at call {calls}");
        assert_eq!(lab.plumb("gc").ok().out, "nothing was left behind\n");
    }
    println!("{calls} calls");
    assert!(calls >= 3, "only {calls} calls");
}
