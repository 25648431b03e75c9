//! A small world for one test: a host with a NIC, a LAN behind it, targets, a store. All of it is in
//! namespaces of the test's own, so that tests run side by side and leave nothing behind.

use std::{
    fs,
    io::Write,
    os::unix::process::{CommandExt, ExitStatusExt},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::atomic::{AtomicU32, Ordering},
};

use netplumb::{
    error::Result,
    kernel::{Kernel, Netns},
};
use nix::{
    sched::{CloneFlags, setns},
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

pub const PLUMB: &str = env!("CARGO_BIN_EXE_plumb");
/// The router on the LAN, and an address there that is free.
pub const ROUTER: &str = "192.168.9.1";
pub const FREE: &str = "192.168.9.100/24";
pub const ROUTER6: &str = "fd09::1";
pub const FREE6: &str = "fd09::100/64";
/// Another address that nobody has.
pub const ALSO_FREE: &str = "192.168.9.101/24";

static COUNT: AtomicU32 = AtomicU32::new(0);

pub struct Lab {
    prefix: String,
    namespaces: Vec<String>,
    processes: Vec<Child>,
    folder: tempfile::TempDir,
    /// Where plumb keeps its records, if not in the lab's own folder.
    pub store_address: Option<String>,
}

impl Lab {
    /// A host whose `nic0` leads to a LAN with a router, and one target, `box`, with an uplink `eth0`
    /// and a default route by it, as Docker's bridge would give.
    pub fn new() -> Lab {
        let prefix = format!("pl{}x{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let mut lab = Lab {
            prefix,
            namespaces: Vec::new(),
            processes: Vec::new(),
            folder: tempfile::tempdir().unwrap(),
            store_address: None,
        };
        lab.namespace("host");
        lab.namespace("lan");
        let lan = lab.full("lan");
        let router = format!("addr add {ROUTER}/24 dev lan0\naddr add {ROUTER6}/64 dev lan0 nodad");
        lab.links(&["host", "lan"], &format!("link add nic0 type veth peer name lan0 netns {lan}\nlink set nic0 up"));
        lab.links(&["lan"], &format!("{router}\nlink set lan0 up"));
        lab.target("box");
        lab.settle("host", &["nic0"]);
        lab.settle("lan", &["lan0"]);
        lab
    }

    /// A namespace that is called `name` in this lab.
    pub fn namespace(&mut self, name: &str) {
        let full = self.full(name);
        sh(&format!("ip netns add {full}"));
        self.namespaces.push(full);
        self.ip(name, "link set lo up");
    }

    /// A namespace with an uplink and a default route, and a static one with marks of its own.
    pub fn target(&mut self, name: &str) {
        self.namespace(name);
        self.links(
            &[name],
            "link add eth0 type veth peer name up0
             link set up0 up
             link set eth0 up
             addr add 172.17.0.2/16 dev eth0
             addr add fd17::2/64 dev eth0 nodad
             route add default via 172.17.0.1 dev eth0 proto boot mtu lock 1400 advmss 1300
             route add default via fd17::1 dev eth0 metric 512",
        );
        self.settle(name, &["eth0", "up0"]);
    }

    /// Commands of `ip` in the first of the namespaces, a line each. The links they make in any of them need not
    /// find out for a second whether anybody else has their link-local addresses.
    fn links(&self, names: &[&str], commands: &str) {
        let detect = |detect: &str| {
            let set = || fs::write("/proc/sys/net/ipv6/conf/default/accept_dad", detect).unwrap();
            names.iter().for_each(|name| self.inside(name, set));
        };
        detect("0");
        self.inside(names[0], || batch(&["-batch", "-"], commands));
        detect("1");
    }

    /// The target's namespace ends, and it runs again in another.
    pub fn restart(&mut self, name: &str) {
        sh(&format!("ip netns del {}", self.full(name)));
        self.target(name);
    }

    /// Waits until the links have their link-local addresses, and the kernel has told that they are up: the state
    /// then stands still.
    fn settle(&self, name: &str, links: &[&str]) {
        wait_for("link-local addresses", || {
            let addresses = self.inside(name, ipv6_addresses);
            let has_one = |link: &&str| addresses.iter().any(|(ip, _, of)| ip.starts_with("fe80") && of == *link);
            links.iter().all(has_one)
                && addresses.iter().all(|address| !is_tentative(address))
                && self.ip(name, "link").matches(" state UP ").count() == links.len()
        });
    }

    /// The name under /run/netns of what the lab calls `name`.
    pub fn full(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// What to open of a namespace.
    pub fn path(&self, name: &str) -> PathBuf {
        Path::new("/run/netns").join(self.full(name))
    }

    /// The target as plumb names it.
    pub fn netns(&self, name: &str) -> String {
        format!("netns:{}", self.full(name))
    }

    /// A process in the namespace, for `pid:N`.
    pub fn process(&mut self, name: &str) -> u32 {
        let child = self.program(name, "sleep").arg("600").spawn().unwrap();
        let pid = child.id();
        self.processes.push(child);
        wait_for("the process to enter", || {
            fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == "sleep")
        });
        pid
    }

    /// A server in the namespace, until `kill` or the lab's end. What it says goes to `NAME.log`.
    pub fn server(&mut self, name: &str, command: &str) -> u32 {
        let log = fs::File::create(self.folder.path().join(format!("{name}.log"))).unwrap();
        let (program, arguments) = command.split_once(' ').unwrap_or((command, ""));
        let mut server = self.program(name, program);
        server.args(words(arguments)).stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        // Where they may keep nothing but what is the lab's.
        server.env("KEA_PIDFILE_DIR", self.folder()).env("KEA_LOCKFILE_DIR", "none");
        let child = server.spawn().unwrap();
        let pid = child.id();
        self.processes.push(child);
        pid
    }

    /// Open vSwitch on the lab's host, without a bridge yet.
    pub fn open_vswitch(&mut self, options: &str) {
        let folder = self.folder().display().to_string();
        let (database, socket) = (format!("{folder}/conf.db"), format!("{folder}/db.sock"));
        sh(&format!("ovsdb-tool create {database} /usr/share/openvswitch/vswitch.ovsschema"));
        let quiet = "-vconsole:off -vfile:off -vsyslog:off";
        let run = format!("env OVS_RUNDIR={folder}");
        self.server("host", &format!("{run} ovsdb-server {database} --remote=punix:{socket} {quiet}"));
        wait_for("the database", || Path::new(&socket).exists());
        sh(&format!("{run} ovs-vsctl --no-wait init"));
        self.server("host", &format!("{run} ovs-vswitchd unix:{socket} {options} {quiet}"));
    }

    pub fn kill(&mut self, pid: u32) {
        self.signal(pid, Signal::SIGKILL);
    }

    /// Ends a server in order, so that it keeps what it knows.
    pub fn end(&mut self, pid: u32) {
        self.signal(pid, Signal::SIGTERM);
    }

    fn signal(&mut self, pid: u32, signal: Signal) {
        let child = self.processes.iter_mut().find(|child| child.id() == pid).unwrap();
        kill(Pid::from_raw(pid as i32), signal).unwrap();
        child.wait().unwrap();
    }

    /// What a server of the namespace has said.
    pub fn log(&self, name: &str) -> String {
        fs::read_to_string(self.folder.path().join(format!("{name}.log"))).unwrap()
    }

    pub fn store(&self) -> PathBuf {
        self.folder.path().join("store")
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// `plumb ARGUMENTS` on the lab's host, not yet started. Words in quotes stay together.
    pub fn command(&self, arguments: &str) -> Command {
        let mut command = self.on_host(PLUMB);
        command.args(words(arguments));
        command
    }

    /// A program on the lab's host.
    pub fn on_host(&self, program: &str) -> Command {
        let mut command = self.program("host", program);
        command
            .env("PLUMB_STORE", self.store_address.as_ref().map_or_else(|| self.store().into_os_string(), Into::into))
            .env("PLUMB_CONFIG", "/dev/null")
            // The machine's own Open vSwitch is no part of this world.
            .env("OVS_RUNDIR", self.folder())
            // Nor is its engine: another world's gc would tidy up after this one's tests.
            .env("DOCKER_HOST", format!("unix://{}/no-engine", self.folder().display()))
            .stdin(Stdio::null());
        command
    }

    /// A program in the namespace.
    pub fn program(&self, name: &str, program: &str) -> Command {
        let namespace = fs::File::open(self.path(name)).unwrap();
        let mut command = Command::new(program);
        let enter = move || setns(&namespace, CloneFlags::CLONE_NEWNET).map_err(Into::into);
        // SAFETY: between fork and exec there is one system call, and nothing is allocated.
        unsafe { command.pre_exec(enter) };
        command
    }

    /// Does `work` on a thread in the namespace.
    pub fn inside<T: Send>(&self, name: &str, work: impl FnOnce() -> T + Send) -> T {
        inside(&self.path(name), work)
    }

    /// Does `work` in the namespace as plumb would on the lab's host.
    pub fn enter<T: Send>(&self, name: &str, work: impl FnOnce(&mut Kernel) -> Result<T> + Send) -> T {
        self.inside("host", || Netns::open(&self.path(name)).unwrap().enter(work)).unwrap()
    }

    pub fn plumb(&self, arguments: &str) -> Ran {
        Ran::of(&mut self.command(arguments))
    }

    /// `plumb flat box -i nic0 ARGUMENTS` without the waits of probe and check.
    pub fn flat(&self, arguments: &str) -> Ran {
        self.plumb(&format!("flat {} -i nic0 --probe 0 --no-check {arguments}", self.netns("box")))
    }

    /// What `ip ARGUMENTS` prints in the namespace.
    pub fn ip(&self, name: &str, arguments: &str) -> String {
        let mut ip = Command::new("ip");
        Ran::of(ip.args(["-n", &self.full(name)]).args(words(arguments))).ok().out
    }

    pub fn json(&self, name: &str, arguments: &str) -> Value {
        serde_json::from_str(&self.ip(name, &format!("-j {arguments}"))).unwrap()
    }

    /// Runs `plumb ARGUMENTS` and kills it just before its `number`th call of `call`. Says whether that
    /// call was reached.
    pub fn killed(&self, arguments: &str, call: &str, number: usize) -> bool {
        let mut strace = self.on_host("strace");
        let inject = format!("inject={call}:signal=KILL:when={number}");
        strace.args(["-f", "-o", "/dev/null", "-e", &format!("trace={call}"), "-e", &inject, PLUMB]);
        let output = strace.args(words(arguments)).output().unwrap();
        // strace dies as its tracee did.
        let killed = output.status.signal() == Some(9) || output.status.code() == Some(137);
        assert!(killed || output.status.success(), "{call} {number}: {output:?}");
        killed
    }

    /// Holds that `plumb ARGUMENTS`, killed before each of the `calls` as `at_each` goes through them, leaves what
    /// `plumb gc` takes back, so that the state is as before; a run that comes to its end is detached. Returns the
    /// number of kills.
    pub fn killed_anywhere(&self, calls: &[&str], arguments: &str, state: impl Fn() -> State) -> usize {
        let before = state();
        at_each(calls, |call, number| {
            let was_killed = self.killed(arguments, call, number);
            if !was_killed {
                self.plumb("detach --all").ok();
            }
            println!("gc said {:?}", self.plumb("gc").ok());
            state().is(&before);
            was_killed
        })
    }

    /// Runs `plumb ARGUMENTS`, and has the kernel refuse its `number`th call of `call`, if it comes to that.
    pub fn with_a_refused_call(&self, arguments: &str, call: &str, number: usize) -> Ran {
        let mut strace = self.on_host("strace");
        let inject = format!("inject={call}:error=EPERM:when={number}");
        strace.args(["-f", "-o", "/dev/null", "-e", &format!("trace={call}"), "-e", &inject, PLUMB]);
        Ran::of(strace.args(words(arguments)))
    }

    /// As a reboot leaves it: the host's own records are of an earlier boot.
    pub fn host_reboots(&self) {
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
        let store = self.store();
        let folders = ["flat", "vland"].into_iter().filter_map(|kind| fs::read_dir(store.join(kind)).ok());
        for file in folders.flatten().map(|entry| entry.unwrap().path()) {
            if file.file_name().unwrap().to_string_lossy().starts_with("host:@") {
                let text = fs::read_to_string(&file).unwrap();
                fs::write(&file, text.replace(boot.trim(), "an earlier one")).unwrap();
            }
        }
    }

    /// Whether a ping from one of the lab's namespaces is answered.
    pub fn pings(&self, from: &str, to: &str) -> bool {
        let version = if to.contains(':') { "ping6" } else { "ping" };
        let mut ping = self.program(from, "busybox");
        ping.args([version, "-c1", "-W2", to]);
        ping.output().unwrap().status.success()
    }

    /// Everything there is to see of the host, the LAN and the targets, and of the store, once IPv6
    /// has settled.
    pub fn state(&self) -> State {
        let is_settled =
            |full: &String| self.inside(&full[self.prefix.len()..], || !ipv6_addresses().iter().any(is_tentative));
        let mut state = String::new();
        wait_for("IPv6 to settle", || {
            // Asked for without a process, as most of the time is spent with it.
            self.namespaces.iter().all(is_settled) && {
                state = self.state_now();
                !state.contains(" tentative")
            }
        });
        State(state)
    }

    /// Holds that the state is, at once or in a moment, what it was.
    #[track_caller]
    pub fn comes_to(&self, before: &State) {
        wait_for_or_show(|| self.state(), before);
    }

    fn state_now(&self) -> String {
        let looked = |full: &String| format!("{full}\n{}", self.inside(&full[self.prefix.len()..], look));
        let state: String = self.namespaces.iter().map(looked).collect();
        // The time that an address has left is less each time.
        let runs_down = |line: &&str| line.trim_start().starts_with("valid_lft") && !line.contains("forever");
        let state: String = state.lines().filter(|line| !runs_down(line)).map(|line| line.to_owned() + "\n").collect();
        let mut files = files(&self.store());
        files.sort();
        state + &files.join("\n")
    }
}

/// What there is to see in the namespace. With few processes: it is asked for again and again, and in a guest each
/// takes its time.
fn look() -> String {
    let looked = batch(&["-d", "-batch", "-"], "addr\nroute show table all\nrule\n");
    let qdiscs = Ran::of(Command::new("tc").args(["qdisc", "show"])).ok().out;
    let mut settings = Vec::new();
    for interface in fs::read_dir("/proc/sys/net/ipv6/conf").into_iter().flatten() {
        let interface = interface.unwrap().path();
        for setting in ["accept_ra", "disable_ipv6"].map(|setting| interface.join(setting)) {
            let is = fs::read_to_string(&setting).unwrap_or_default();
            settings.push(format!("{}:{is}", setting.display()));
        }
    }
    settings.sort();
    looked + &qdiscs + &settings.concat()
}

/// Does `work` on a thread in the namespace whose file this is.
pub fn inside<T: Send>(namespace: &Path, work: impl FnOnce() -> T + Send) -> T {
    let namespace = fs::File::open(namespace).unwrap();
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            setns(namespace, CloneFlags::CLONE_NEWNET).unwrap();
            work()
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// What `ip` prints for the commands, a line each.
#[track_caller]
pub fn batch(options: &[&str], commands: &str) -> String {
    let mut ip = Command::new("ip").args(options).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    ip.stdin.take().unwrap().write_all(commands.as_bytes()).unwrap();
    Ran::from(ip.wait_with_output().unwrap()).ok().out
}

/// The namespace's IPv6 addresses, each with its flags and its link.
fn ipv6_addresses() -> Vec<(String, u32, String)> {
    let text = fs::read_to_string("/proc/thread-self/net/if_inet6").unwrap_or_default();
    let of = |line: &str| match line.split_whitespace().collect::<Vec<_>>()[..] {
        [address, _, _, _, flags, link] => {
            (address.to_owned(), u32::from_str_radix(flags, 16).unwrap(), link.to_owned())
        }
        _ => panic!("{line}"),
    };
    text.lines().map(of).collect()
}

/// Whether it is not known yet if anybody else has it: the flag `IFA_F_TENTATIVE`.
fn is_tentative((_, flags, _): &(String, u32, String)) -> bool {
    flags & 0x40 != 0
}

impl Drop for Lab {
    fn drop(&mut self) {
        for child in &mut self.processes {
            let _ = child.kill();
            let _ = child.wait();
        }
        for full in &self.namespaces {
            let _ = Command::new("ip").args(["netns", "del", full]).output();
        }
    }
}

/// Goes through the system calls before which plumb is to be killed: `attempt` is told the name of one and its number,
/// and says whether a run came so far; if not, the next name is due. Of `openat/5` every fifth is tried. Returns the
/// number of kills.
pub fn at_each(calls: &[&str], mut attempt: impl FnMut(&str, usize) -> bool) -> usize {
    let of = |call: &&str| {
        let (call, every) = call.split_once('/').map_or((*call, 1), |(call, every)| (call, every.parse().unwrap()));
        let numbers = (1..).step_by(every).take_while(|number| {
            println!("killed before {call} number {number}");
            attempt(call, *number)
        });
        numbers.count()
    };
    calls.iter().map(of).sum()
}

/// The kernel tells of a carrier a moment after it is there.
#[track_caller]
fn wait_for_or_show(look: impl Fn() -> State, expected: &State) {
    let end = std::time::Instant::now() + std::time::Duration::from_secs(5);
    while look() != *expected && std::time::Instant::now() < end {}
    look().is(expected);
}

/// The state, without what a record has and a shell's work has not.
pub fn kernel_state(lab: &Lab) -> State {
    let state = lab.state().0;
    let store = lab.store().display().to_string();
    // Tags are random; all else must be the same to the letter.
    let lines = state.lines().filter(|line| !line.contains(&store) && !line.contains("altname plumb:"));
    State(lines.map(|line| line.to_owned() + "\n").collect())
}

/// Holds that `plumb flat box -i nic0 ARGUMENTS --dry-run` prints commands which do exactly what plumb
/// does, and changes nothing.
#[track_caller]
pub fn honest(arguments: &str) {
    let lab = Lab::new();
    let before = lab.state();
    let dry = lab.flat(&format!("{arguments} --dry-run")).ok();
    lab.state().is(&before);
    let json = lab.flat(&format!("{arguments} --dry-run --json")).ok().json();
    let commands: Vec<&str> = json["commands"].as_array().unwrap().iter().map(|c| c.as_str().unwrap()).collect();
    assert_eq!(commands.len(), dry.out.lines().count());

    lab.flat(arguments).ok();
    let by_plumb = kernel_state(&lab);
    lab.plumb("detach --all").ok();
    lab.comes_to(&before);

    let mut shell = lab.on_host("sh");
    Ran::of(shell.args(["-ec", &dry.out])).ok();
    println!("{}", dry.out);
    wait_for_or_show(|| kernel_state(&lab), &by_plumb);
    assert!(lab.ip("box", "link").contains("altname plumb:"));
}

/// What was there to see at one moment. Of two that differ, the lines that do are shown.
#[derive(Clone, PartialEq, Eq)]
pub struct State(pub String);

impl State {
    /// Without what the kernel's linkwatch tells of a carrier a second late, and the link-local addresses that
    /// wait for it, each with its line of lifetimes.
    pub fn steady(self) -> State {
        let late = ["fe80::", "ff00::/8 dev", "valid_lft"];
        let is_steady = |line: &&str| !late.iter().any(|late| line.contains(late));
        let text: String = self.0.lines().filter(is_steady).map(|line| line.to_owned() + "\n").collect();
        let words = [("NO-CARRIER,", ""), (" linkdown", ""), (" state DOWN", " state UP")];
        State(words.iter().fold(text, |text, (word, other)| text.replace(word, other)))
    }

    #[track_caller]
    pub fn is(&self, other: &State) {
        let missing = |these: &State, those: &State| -> String {
            these
                .0
                .lines()
                .filter(|line| !those.0.lines().any(|other| other == *line))
                .map(|line| format!("  {line}\n"))
                .collect()
        };
        assert!(self == other, "only now:\n{}only before:\n{}", missing(self, other), missing(other, self));
    }
}

/// A finished run of plumb.
#[derive(Debug)]
pub struct Ran {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Ran {
    pub fn of(command: &mut Command) -> Ran {
        Ran::from(command.output().unwrap())
    }

    #[track_caller]
    pub fn ok(self) -> Ran {
        assert_eq!(self.code, 0, "{self:#?}");
        self
    }

    /// It ended with this code, and its message is exactly this.
    #[track_caller]
    pub fn refused(self, code: i32, message: &str) -> Ran {
        assert_eq!(self.code, code, "{self:#?}");
        assert_eq!(self.err.lines().next().unwrap_or_default(), format!("plumb: {message}"), "{self:#?}");
        assert_eq!(self.out, "");
        self
    }

    #[track_caller]
    pub fn hints(self, hint: &str) -> Ran {
        assert!(self.err.contains(&format!("hint: {hint}")), "{self:#?}");
        self
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:#?}"))
    }
}

impl From<Output> for Ran {
    fn from(output: Output) -> Ran {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Ran { code: output.status.code().unwrap_or(-1), out: text(output.stdout), err: text(output.stderr) }
    }
}

/// The files of a store, claims with where they point to.
pub fn files(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        match fs::read_link(&path) {
            Ok(to) => found.push(format!("{} -> {}", path.display(), to.display())),
            Err(_) if path.is_dir() => found.extend(files(&path)),
            Err(_) => found.push(path.display().to_string()),
        }
    }
    found
}

pub fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    for (at, part) in text.split('\'').enumerate() {
        if at % 2 == 1 {
            words.push(part.to_owned());
        } else {
            words.extend(part.split_whitespace().map(str::to_owned));
        }
    }
    words
}

#[track_caller]
pub fn sh(script: &str) {
    let output = Command::new("sh").args(["-ec", script]).output().unwrap();
    assert!(output.status.success(), "{script}\n{}", String::from_utf8_lossy(&output.stderr));
}

#[track_caller]
pub fn output(command: &str) -> String {
    let output = Command::new("sh").args(["-c", command]).output().unwrap();
    assert!(output.status.success(), "{command}\n{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Waits for what must happen within seconds.
#[track_caller]
pub fn wait_for(what: &str, mut happened: impl FnMut() -> bool) {
    let end = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while !happened() {
        assert!(std::time::Instant::now() < end, "waited 20 s for {what}");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}
