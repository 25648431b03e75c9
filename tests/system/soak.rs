//! Many at once on one pool, some of them killed: no address is given twice, and none is lost.
//!
//! `PLUMB_SOAK` is how often each of the eight attaches and detaches; `scripts/soak` sets it high, for the guest.

use std::{
    collections::HashMap,
    env,
    process::Stdio,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use crate::lab::{Lab, Ran};

const WORKERS: usize = 8;

/// Where they contend.
pub struct Ground {
    /// The host's interface that the network is on, and what `attach` says beside the network.
    pub parent: &'static str,
    pub options: &'static str,
    /// How often each attaches and detaches, unless `PLUMB_SOAK` says.
    pub rounds: usize,
    /// The milliseconds within which a command is killed: about what the slowest takes here.
    pub killed_within: u64,
}

impl Ground {
    fn rounds(&self) -> usize {
        env::var("PLUMB_SOAK").ok().and_then(|text| text.parse().ok()).unwrap_or(self.rounds)
    }
}

/// What the eight have between them.
struct Contest<'a> {
    lab: &'a Lab,
    store: &'a str,
    ground: &'a Ground,
    /// Who has which address at this moment.
    given: Mutex<HashMap<String, usize>>,
    kills: AtomicUsize,
    /// How often the store did not answer in time, as eight at once may well ask too much of an
    /// emulated processor. Such a command has failed as any other, and leaves no more behind.
    unanswered: AtomicUsize,
}

impl Contest<'_> {
    /// One of the eight: attaches, looks, detaches, again and again. An attempt that was killed may
    /// have the address already, and then nobody else may.
    fn work(&self, worker: usize, seed: u64) {
        let (name, mut random) = (format!("w{worker}"), Random(seed + worker as u64));
        let target = self.lab.netns(&name);
        for _ in 0..self.ground.rounds() {
            self.run(&format!("attach {target} blue --probe 0 --no-check {}", self.ground.options), &mut random);
            if let Some(address) = self.address(&name) {
                let other = self.given.lock().unwrap().insert(address.clone(), worker);
                assert_eq!(other, None, "{address} is given to two");
                std::thread::sleep(Duration::from_millis(random.below(50)));
                self.given.lock().unwrap().remove(&address);
            }
            while !self.run(&format!("detach {target}"), &mut random) {}
            assert_eq!(self.address(&name), None);
        }
    }

    fn address(&self, name: &str) -> Option<String> {
        let links = self.lab.ip(name, "-br -4 addr show scope global");
        links.split_whitespace().nth(2).map(str::to_owned)
    }

    /// Runs plumb, and kills it in one of six cases. Says whether it finished.
    fn run(&self, arguments: &str, random: &mut Random) -> bool {
        let mut plumb = self.lab.command(arguments);
        plumb.env("PLUMB_STORE", self.store).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = plumb.spawn().unwrap();
        if random.below(6) == 0 {
            std::thread::sleep(Duration::from_millis(random.below(self.ground.killed_within)));
            if child.try_wait().unwrap().is_none() {
                child.kill().unwrap();
                child.wait().unwrap();
                self.kills.fetch_add(1, Ordering::Relaxed);
                return false;
            }
        }
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        if output.status.code() == Some(7) && said.contains("no etcd answered") {
            self.unanswered.fetch_add(1, Ordering::Relaxed);
            return false;
        }
        assert!(output.status.success(), "{arguments}: {said}");
        true
    }
}

/// A linear congruential generator (Knuth's MMIX): enough to choose when to kill.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

/// In one network, whose records are in `store`. Says how many were killed.
pub fn contend(lab: &Lab, store: &str, ground: &Ground) -> usize {
    let plumb = |arguments: &str| Ran::of(lab.command(arguments).env("PLUMB_STORE", store)).ok();
    // Fewer addresses than would do if one were lost each time.
    plumb(&format!("create-vlan blue --subnet 10.1.0.0/27 -i {} --id 10", ground.parent));
    let seed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    println!("seed {seed}");
    let (given, kills, unanswered) = Default::default();
    let contest = Contest { lab, store, ground, given, kills, unanswered };
    std::thread::scope(|scope| {
        (0..WORKERS).for_each(|worker| {
            drop(scope.spawn({
                let contest = &contest;
                move || contest.work(worker, seed)
            }))
        });
    });
    let (kills, unanswered) = (contest.kills.into_inner(), contest.unanswered.into_inner());
    println!("{} rounds of {WORKERS}, {kills} killed, {unanswered} not answered by the store", ground.rounds());
    plumb("detach --all");
    plumb("gc");
    assert_eq!(plumb("gc").out, "nothing was left behind\n");
    let networks = plumb("networks --json").json();
    assert_eq!(networks["networks"][0]["usage"][0]["used"], 0, "{networks}");
    let links = lab.ip("host", "link");
    assert!(!links.contains("nic0.10") && !links.contains("veth-"), "{links}");
    plumb("delete-vlan blue");
    kills
}

pub fn eight(lab: &mut Lab) {
    (0..WORKERS).for_each(|worker| lab.namespace(&format!("w{worker}")));
}
