//! An etcd of the test's own, one member or three, in the namespace of a lab's host, where nobody
//! else has its ports.

use std::{
    io::{Read, Write},
    net::TcpStream,
    process::{Child, Stdio},
    time::Duration,
};

use serde_json::{Value, json};

use crate::lab::{Lab, wait_for};

pub struct Cluster {
    members: Vec<Option<Child>>,
    folder: tempfile::TempDir,
    options: String,
    scheme: &'static str,
}

impl Cluster {
    /// A single member, which answers.
    pub fn single(lab: &Lab) -> Cluster {
        Cluster::start(lab, 1, "http", "")
    }

    pub fn of_three(lab: &Lab) -> Cluster {
        Cluster::start(lab, 3, "http", "")
    }

    /// A single member that wants TLS, with further options for that.
    pub fn encrypted(lab: &Lab, options: &str) -> Cluster {
        Cluster::start(lab, 1, "https", options)
    }

    fn start(lab: &Lab, size: usize, scheme: &'static str, options: &str) -> Cluster {
        let folder = tempfile::tempdir().unwrap();
        let mut cluster =
            Cluster { members: (0..size).map(|_| None).collect(), folder, options: options.to_owned(), scheme };
        (0..size).for_each(|member| cluster.run(lab, member));
        (0..size).for_each(|member| cluster.await_health(lab, member));
        cluster
    }

    fn run(&mut self, lab: &Lab, member: usize) {
        let all: Vec<String> =
            (0..self.members.len()).map(|n| format!("m{n}=http://127.0.0.1:{}", port(n) + 1)).collect();
        let (client, peer) = (format!("{}://127.0.0.1:{}", self.scheme, port(member)), port(member) + 1);
        let mut etcd = lab.on_host("etcd");
        etcd.args(["--logger", "zap", "--log-level", "error", "--log-outputs", "stderr"])
            .arg(format!("--name=m{member}"))
            .arg(format!("--data-dir={}", self.folder.path().join(format!("m{member}")).display()))
            .arg(format!("--listen-client-urls={client}"))
            .arg(format!("--advertise-client-urls={client}"))
            .arg(format!("--listen-peer-urls=http://127.0.0.1:{peer}"))
            .arg(format!("--initial-advertise-peer-urls=http://127.0.0.1:{peer}"))
            .arg(format!("--initial-cluster={}", all.join(",")))
            .arg(format!("--listen-metrics-urls=http://127.0.0.1:{}", port(member) + 2))
            .args(self.options.split_whitespace());
        self.members[member] = Some(etcd.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    }

    fn await_health(&self, lab: &Lab, member: usize) {
        let is_well = || get(port(member) + 2, "/health").is_some_and(|health| health["health"] == "true");
        lab.inside("host", || wait_for("etcd", is_well));
    }

    /// The address of the members in this order.
    pub fn address_by(&self, order: &[usize]) -> String {
        let members: Vec<String> = order.iter().map(|member| format!("127.0.0.1:{}", port(*member))).collect();
        format!("{}://{}", if self.scheme == "https" { "etcds" } else { "etcd" }, members.join(","))
    }

    pub fn address(&self) -> String {
        self.address_by(&(0..self.members.len()).collect::<Vec<_>>())
    }

    /// Ends a member as a loss of power does.
    pub fn kill(&mut self, member: usize) {
        let mut child = self.members[member].take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Starts it again, and waits until it is one of the cluster.
    pub fn restart(&mut self, lab: &Lab, member: usize) {
        self.run(lab, member);
        self.await_health(lab, member);
    }

    /// Stops a member where it stands: connections to it are made and nothing comes back.
    pub fn freeze(&self, member: usize) {
        self.signal(member, nix::sys::signal::Signal::SIGSTOP);
    }

    pub fn thaw(&self, member: usize) {
        self.signal(member, nix::sys::signal::Signal::SIGCONT);
    }

    fn signal(&self, member: usize, signal: nix::sys::signal::Signal) {
        let pid = self.members[member].as_ref().unwrap().id();
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(i32::try_from(pid).unwrap()), signal).unwrap();
    }

    /// The member that leads, once there is one that those which run agree on.
    pub fn leader(&self, lab: &Lab) -> usize {
        let running: Vec<usize> = (0..self.members.len()).filter(|member| self.members[*member].is_some()).collect();
        let mut leader = None;
        lab.inside("host", || {
            wait_for("a leader", || {
                let said: Vec<Option<Value>> =
                    running.iter().map(|member| post(port(*member), "/v3/maintenance/status", &json!({}))).collect();
                leader = said
                    .iter()
                    .position(|said| said.as_ref().is_some_and(|said| said["leader"] == said["header"]["member_id"]))
                    .map(|at| running[at]);
                let agreed = said.windows(2).all(|two| match two {
                    [Some(one), Some(other)] => one["leader"] == other["leader"],
                    _ => false,
                });
                leader.is_some() && agreed
            });
        });
        leader.unwrap()
    }

    /// `POST PATH` to the first member, which must agree.
    pub fn ask(&self, lab: &Lab, path: &str, body: &Value) -> Value {
        lab.inside("host", || post(port(0), path, body).unwrap_or_else(|| panic!("{path} {body}")))
    }

    pub fn put(&self, lab: &Lab, key: &str, value: &str) {
        self.ask(lab, "/v3/kv/put", &json!({ "key": base64(key), "value": base64(value) }));
    }

    /// All keys and values, but the store's id, which is a random one.
    pub fn everything(&self, lab: &Lab) -> Vec<(String, String)> {
        let found = self.ask(lab, "/v3/kv/range", &json!({ "key": "AA==", "range_end": "AA==" }));
        let text = |value: &Value| unbase64(value.as_str().unwrap_or_default());
        let pairs = found["kvs"].as_array().into_iter().flatten();
        pairs.map(|pair| (text(&pair["key"]), text(&pair["value"]))).filter(|(key, _)| !key.ends_with("/id")).collect()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for child in self.members.iter_mut().flatten() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn port(member: usize) -> u16 {
    2379 + 10 * u16::try_from(member).unwrap()
}

fn get(port: u16, path: &str) -> Option<Value> {
    exchange(port, &format!("GET {path} HTTP/1.0\r\n\r\n"))
}

fn post(port: u16, path: &str, body: &Value) -> Option<Value> {
    let body = body.to_string();
    exchange(port, &format!("POST {path} HTTP/1.0\r\nContent-Length: {}\r\n\r\n{body}", body.len()))
}

/// One request and its answer, if that is a good one. HTTP 1.0 ends it with the connection.
fn exchange(port: u16, request: &str) -> Option<Value> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    head.split_whitespace().nth(1).filter(|status| *status == "200").and_then(|_| serde_json::from_str(body).ok())
}

pub fn base64(text: &str) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(text)
}

fn unbase64(text: &str) -> String {
    use base64::Engine;
    String::from_utf8(base64::engine::general_purpose::STANDARD.decode(text).unwrap()).unwrap()
}
