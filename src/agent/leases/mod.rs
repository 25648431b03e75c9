//! The first duty: each lease is renewed for as long as its container lives, and given back when that
//! ends. No thread and no open socket for one that needs nothing at the moment.

mod ipv6;
mod settle;
mod tended;

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    path::Path,
    sync::{
        Arc,
        mpsc::{Receiver, Sender, channel},
    },
    time::Duration,
};

use nix::{net::if_::if_nametoindex, sys::eventfd::EventFd};

use super::{
    Duty,
    watch::{Folders, Process, Watch},
};
use crate::{
    dhcp::{Action, Lease, Loss, Start, v6},
    error::{Error, Result},
    kernel::{
        Netns,
        dhcp::{boot_time, release},
        dhcp6,
    },
    namespace, shim,
    store::{Change, Holding, Key, LeaseRecord, Moment, Record, Store, attachment, lease},
    types::Place,
};
use ipv6::{Exchanged, Ipv6};
use settle::{Settled, settle};
use tended::{Silence, Tended};

/// Leases that are due when the agent begins are taken one after the other: a server that was
/// overwhelmed would answer none.
const SPREAD: Duration = Duration::from_millis(5);
/// When what failed inside a container is tried again.
const RETRY: Duration = Duration::from_secs(30);

/// What is waited for: threads at work, folders, and of each lease its socket and its process.
const JOBS: u64 = 0;
const FOLDERS: u64 = 1;
const FIRST: u64 = 1;

fn socket_of(id: u64) -> u64 {
    id * 2
}

fn process_of(id: u64) -> u64 {
    id * 2 + 1
}

pub struct Leases {
    store: Arc<dyn Store>,
    host: Arc<Netns>,
    boot: String,
    tended: HashMap<u64, Tended>,
    by_key: HashMap<Key, u64>,
    /// When each is due: with thousands of them nobody goes through all to find the next.
    due: BTreeSet<(Duration, u64)>,
    next: u64,
    folders: Folders,
    done: Receiver<(u64, Outcome)>,
    report: Sender<(u64, Outcome)>,
    rings: Arc<EventFd>,
}

/// What a thread at work on a container found.
enum Outcome {
    Checked {
        in_use: bool,
    },
    /// What the host's shim could not be made to follow is told apart: the container has its lease.
    Settled {
        outcome: Result<Settled>,
        lease: Option<Arc<Lease>>,
        said: Vec<String>,
    },
    ExchangedIpv6(Box<Exchanged>),
}

impl Leases {
    pub fn new(store: Arc<dyn Store>, watch: &Watch) -> Result<Leases> {
        let failed = |errno: nix::errno::Errno| Error::io("cannot make an eventfd", &errno.into());
        let rings = Arc::new(EventFd::from_flags(nix::sys::eventfd::EfdFlags::EFD_CLOEXEC).map_err(failed)?);
        let folders = Folders::new()?;
        watch.add(&*rings, JOBS)?;
        watch.add(&folders, FOLDERS)?;
        let (report, done) = channel();
        let (host, boot) = (Arc::new(Netns::of_this_thread()?), namespace::boot());
        let (tended, by_key, due) = (HashMap::new(), HashMap::new(), BTreeSet::new());
        Ok(Leases { store, host, boot, tended, by_key, due, next: FIRST, folders, done, report, rings })
    }

    /// Takes a lease on that is not tended yet, or is another's by now.
    fn take_on(&mut self, record: LeaseRecord, overdue: &mut u32, watch: &Watch) -> Result<()> {
        let key = record.key();
        if let Some(id) = self.by_key.get(&key) {
            if self.tended.get(id).is_some_and(|there| there.record.attachment == record.attachment) {
                return Ok(());
            }
            self.drop(*id, watch);
        }
        let owner = Key::of_host(attachment::DHCP, self.store.host(), &[&record.target.to_string(), &record.interface]);
        let Some(attachment) = attachment::read(&*self.store, &owner)? else {
            // One that is being made is told of when it is.
            if !attachment::is_on_record(&*self.store, &owner)? {
                self.forget(key)?;
            }
            return Ok(());
        };
        let is_ours = record.is_of(&attachment) && attachment.namespace.boot == self.boot;
        if !is_ours || record.state == Holding::Released {
            return Ok(());
        }
        let seed = boot_time().as_nanos() as u64 ^ self.next << 48;
        let Some(mut tended) = Tended::new(&attachment, record, self.host.clone(), seed) else { return Ok(()) };
        tended.ipv6 = attachment.dhcp.as_ref().zip(tended.record.ipv6.as_ref()).and_then(|(dhcp, record)| {
            // Another number than that of its neighbour.
            Ipv6::new(&attachment, dhcp, record, &self.boot, seed.rotate_left(17))
        });
        let now = boot_time();
        let (age, lease) = (tended.record.asked.age(now, &self.boot), Arc::new(tended.record.lease.clone()));
        let is_due = tended.record.standing().word(now, &self.boot) != "bound";
        let start = match tended.record.state {
            Holding::Held => Start::Resume { lease, age },
            Holding::Lost | Holding::Released => Start::Init { prefer: Some(lease.ip()) },
        };
        *overdue += u32::from(is_due);
        tended.begin = Some((now + if is_due { SPREAD * *overdue } else { Duration::ZERO }, start));
        let id = self.next;
        self.next += 1;
        self.tended.insert(id, tended);
        self.by_key.insert(key, id);
        self.look_out(id, watch);
        self.schedule(id);
        Ok(())
    }

    /// Something may have changed about when it is due.
    fn schedule(&mut self, id: u64) {
        let Some(tended) = self.tended.get_mut(&id) else { return };
        let wake = tended.wake();
        if tended.scheduled != wake {
            tended.scheduled.map(|before| self.due.remove(&(before, id)));
            self.due.extend(wake.map(|wake| (wake, id)));
            tended.scheduled = wake;
        }
    }

    fn forget(&self, key: Key) -> Result<()> {
        self.store.commit(&[Change::Remove(key)]).map(drop)
    }

    /// Waits for the container's end.
    fn look_out(&mut self, id: u64, watch: &Watch) {
        let Some(tended) = self.tended.get_mut(&id) else { return };
        match &tended.place {
            Place::Process { pid, .. } => {
                if let Some(process) = Process::new(*pid) {
                    let _ = watch.add(&process, process_of(id));
                    tended.process = Some(process);
                }
            }
            Place::Path(path) => self.folders.add(path.parent().unwrap_or(Path::new("/"))),
        }
        self.look_whether_there(id, watch);
    }

    /// The process has ended, or the file has gone; the namespace may live on with a sidecar.
    fn look_whether_there(&mut self, id: u64, watch: &Watch) {
        let Some(tended) = self.tended.get_mut(&id) else { return };
        if crate::container::is_there(&tended.place) {
            return;
        }
        if let Some(process) = tended.process.take() {
            watch.remove(&process);
        }
        // Its own client must not be who keeps the namespace there.
        tended.end_client(watch);
        if namespace::find(&tended.place, &tended.mark).is_none() {
            self.end(id, "the container has gone", watch);
        }
        self.schedule(id);
    }

    /// The address is no longer used: the host speaks for who cannot.
    fn end(&mut self, id: u64, why: &str, watch: &Watch) {
        let Some(tended) = self.tended.get_mut(&id) else { return };
        watch.say(format_args!("{}: {why}; its lease is given back", tended.name()));
        if let (Some((lease, _)), Ok(parent)) = (&tended.shall, if_nametoindex(tended.parent.as_str())) {
            let _ = release(parent, tended.machine.client(), lease);
        }
        tended.record.state = Holding::Released;
        tended.record.problem = Some(why.to_owned());
        if let Some(record) = &mut tended.record.ipv6 {
            if let Ok(parent) = if_nametoindex(tended.parent.as_str())
                && record.standing().is_good(boot_time(), &self.boot)
            {
                let _ = dhcp6::release(parent, v6::Client::beside(tended.machine.client()), &record.lease);
            }
            (record.state, record.problem) = (Holding::Released, Some(why.to_owned()));
        }
        self.save(id, watch);
        self.drop(id, watch);
    }

    fn drop(&mut self, id: u64, watch: &Watch) {
        let Some(mut tended) = self.tended.remove(&id) else { return };
        tended.scheduled.map(|before| self.due.remove(&(before, id)));
        tended.close(watch);
        tended.end_client(watch);
        if let Some(process) = &tended.process {
            watch.remove(process);
        }
        self.by_key.remove(&tended.record.key());
    }

    /// Writes the record anew, unless somebody has detached the container meanwhile.
    fn save(&mut self, id: u64, watch: &Watch) {
        let Some(tended) = self.tended.get(&id) else { return };
        let saved = match lease::at(&*self.store, &tended.record.key()) {
            Ok(Some(there)) if there.attachment == tended.record.attachment => tended.record.save(&*self.store),
            Ok(_) => return self.drop(id, watch),
            Err(error) => Err(error),
        };
        if let Err(error) = saved {
            watch.say(format_args!("{}: {error}", tended.name()));
        }
    }

    fn perform(&mut self, id: u64, actions: Vec<Action>, watch: &Watch) {
        for action in actions {
            let Some(tended) = self.tended.get_mut(&id) else { return };
            match action {
                Action::Send(packet) => match tended.send(&packet, socket_of(id), watch) {
                    Ok(()) => {}
                    Err(silence) => self.silent(id, silence, watch),
                },
                Action::Check(ip) => self.check(id, ip),
                Action::Bound { lease, .. } => self.bound(id, lease, watch),
                Action::Lost { lease, why } => self.lost(id, &lease, why, watch),
            }
        }
        if let Some(tended) = self.tended.get_mut(&id) {
            tended.rest(watch);
            if let Some(what) = tended.machine.complaint().map(str::to_owned) {
                self.complain(id, Some(what), watch);
            }
        }
        self.give_what_is_owed(id);
    }

    /// Nobody can be asked.
    fn silent(&mut self, id: u64, silence: Silence, watch: &Watch) {
        let Some(tended) = self.tended.get(&id) else { return };
        match silence {
            Silence::ContainerGone => self.end(id, "the container has gone", watch),
            Silence::LinkGone => {
                let why = format!("{} has gone", tended.record.interface);
                self.end(id, &why, watch);
            }
            Silence::Failed(why) => self.complain(id, Some(why), watch),
        }
    }

    fn complain(&mut self, id: u64, what: Option<String>, watch: &Watch) {
        let Some(tended) = self.tended.get_mut(&id).filter(|tended| tended.record.problem != what) else { return };
        if let Some(what) = &what {
            watch.say(format_args!("{}: {what}", tended.name()));
        }
        tended.record.problem = what;
        self.save(id, watch);
    }

    fn bound(&mut self, id: u64, lease: Arc<Lease>, watch: &Watch) {
        let now = boot_time();
        let Some(tended) = self.tended.get_mut(&id) else { return };
        let began = tended.machine.expires().zip(lease.term.expire());
        let asked = began.map_or(now, |(end, whole)| end.saturating_sub(whole));
        watch.say(format_args!("{}: {} from {}", tended.name(), lease.address, lease.server));
        tended.shall = Some((lease, Moment::at(asked, now, self.boot.clone())));
        tended.retry = None;
        if tended.owed().is_none() && !tended.busy {
            tended.prolong();
            self.remember(id, watch);
        }
    }

    /// The lease counts as held once the container has what it says.
    fn remember(&mut self, id: u64, watch: &Watch) {
        let Some(tended) = self.tended.get_mut(&id) else { return };
        let Some((lease, asked)) = tended.shall.clone() else { return };
        let record = &mut tended.record;
        (record.state, record.lease, record.asked, record.problem) = (Holding::Held, (*lease).clone(), asked, None);
        self.save(id, watch);
    }

    fn lost(&mut self, id: u64, lease: &Lease, why: Loss, watch: &Watch) {
        let Some(tended) = self.tended.get_mut(&id) else { return };
        let how = match why {
            Loss::Expired => "has run out",
            Loss::Refused => "was refused",
            Loss::InUse => "is in use by another machine",
        };
        watch.say(format_args!("{}: {} {how}", tended.name(), lease.address));
        tended.shall = None;
        tended.record.state = Holding::Lost;
        tended.record.problem = tended.machine.complaint().map(str::to_owned);
        self.save(id, watch);
    }

    /// On a thread of its own: it takes its time.
    fn work(&self, id: u64, job: impl FnOnce() -> Outcome + Send + 'static) {
        let (report, rings) = (self.report.clone(), self.rings.clone());
        let work = move || {
            // An agent that has ended needs no report.
            let _ = report.send((id, job()));
            let _ = rings.write(1);
        };
        let thread = std::thread::Builder::new().stack_size(512 * 1024).spawn(work);
        if let Err(error) = thread {
            let outcome = Err(Error::io("cannot start a thread", &error));
            let _ = self.report.send((id, Outcome::Settled { outcome, lease: None, said: Vec::new() }));
            let _ = self.rings.write(1);
        }
    }

    fn remember_ipv6(&mut self, id: u64, exchanged: Exchanged, watch: &Watch) {
        let Some(tended) = self.tended.get_mut(&id) else { return };
        let (name, boot) = (tended.name(), &self.boot);
        let (Some(ipv6), Some(before)) = (&mut tended.ipv6, &tended.record.ipv6) else { return };
        let Some(after) = ipv6.finished(exchanged, before, boot) else { return };
        match (&after.problem, after.state) {
            (Some(problem), _) => watch.say(format_args!("{name}: {problem}")),
            (None, Holding::Held) => {
                watch.say(format_args!("{name}: {} from {}", after.lease.address, after.lease.from))
            }
            (None, _) => watch.say(format_args!("{name}: {} is no longer leased", after.lease.address)),
        }
        tended.record.ipv6 = Some(after);
        self.save(id, watch);
    }

    fn check(&self, id: u64, ip: std::net::Ipv4Addr) {
        let Some(tended) = self.tended.get(&id) else { return };
        let (mac, probe, index) = (tended.machine.client().mac.bytes(), tended.probe, tended.index);
        let (place, mark) = (tended.place.clone(), tended.mark.clone());
        let on_parent = tended.check_on_parent.then(|| (self.host.clone(), tended.parent.clone()));
        self.work(id, move || {
            let answer = match on_parent {
                Some((host, parent)) => {
                    let index = if_nametoindex(parent.as_str()).unwrap_or_default();
                    host.look_inside(|kernel| kernel.probe(index, mac, &[ip], probe))
                }
                None => namespace::find(&place, &mark)
                    .map_or(Ok(None), |there| there.look_inside(|kernel| kernel.probe(index, mac, &[ip], probe))),
            };
            Outcome::Checked { in_use: answer.is_ok_and(|answer| answer.is_some()) }
        });
    }

    fn give_what_is_owed(&mut self, id: u64) {
        let Some(tended) = self.tended.get_mut(&id) else { return };
        let Some(lease) = tended.owed() else { return };
        tended.busy = true;
        let (store, owner, tag) = (self.store.clone(), tended.owner.clone(), tended.record.attachment.clone());
        let (until, parent) = (tended.machine.expires(), tended.parent.clone());
        self.work(id, move || {
            let outcome = settle(&*store, &owner, &tag, lease.as_deref().map(|lease| (lease, until)));
            let followed = shim::follow(&parent, &*store, &mut |_, _| {});
            let said = match followed {
                Ok(in_the_way) => in_the_way.iter().map(|route| route.to_string()).collect(),
                Err(error) => vec![error.message],
            };
            Outcome::Settled { outcome, lease, said }
        });
    }

    fn finished(&mut self, id: u64, outcome: Outcome, watch: &Watch) {
        let Some(tended) = self.tended.get_mut(&id) else { return };
        let now = boot_time();
        match outcome {
            Outcome::ExchangedIpv6(exchanged) => self.remember_ipv6(id, *exchanged, watch),
            Outcome::Checked { in_use } => {
                let actions = if in_use { tended.in_use(now, watch) } else { tended.machine.free(now) };
                self.perform(id, actions, watch);
            }
            Outcome::Settled { outcome, lease, said } => {
                said.iter().for_each(|text| watch.say(format_args!("{}: {text}", tended.name())));
                tended.busy = false;
                match outcome {
                    Ok(Settled::Done) => {
                        tended.has = Some(lease);
                        if tended.owed().is_none() {
                            self.remember(id, watch);
                        }
                        self.give_what_is_owed(id);
                    }
                    Ok(Settled::Gone) => self.end(id, "the interface has gone", watch),
                    Ok(Settled::Taken(owner)) => {
                        let actions = tended.in_use(now, watch);
                        self.perform(id, actions, watch);
                        self.complain(id, Some(format!("the address is given to {owner} on this host")), watch);
                    }
                    Err(error) => {
                        tended.has = None;
                        tended.retry = Some(now + RETRY);
                        self.complain(id, Some(error.message), watch);
                    }
                }
            }
        }
    }
}

impl Duty for Leases {
    fn look_again(&mut self, at: Option<&Key>, watch: &Watch) -> Result<()> {
        let mut overdue = 0;
        if let Some(key) = at.filter(|key| key.kind() == lease::LEASE) {
            match (lease::at(&*self.store, key)?, self.by_key.get(key).copied()) {
                (Some(record), _) => self.take_on(record, &mut overdue, watch)?,
                (None, Some(id)) => self.drop(id, watch),
                (None, None) => {}
            }
            return Ok(());
        }
        let mut there = HashSet::new();
        for record in lease::all(&*self.store)? {
            match record {
                Ok(record) => {
                    there.insert(record.key());
                    self.take_on(record, &mut overdue, watch)?;
                }
                Err(error) => watch.say(format_args!("{error}")),
            }
        }
        let gone: Vec<u64> = self.by_key.iter().filter(|(key, _)| !there.contains(*key)).map(|(_, id)| *id).collect();
        gone.into_iter().for_each(|id| self.drop(id, watch));
        Ok(())
    }

    fn ready(&mut self, number: u64, watch: &Watch) {
        match number {
            JOBS => {
                let _ = self.rings.read();
                while let Ok((id, outcome)) = self.done.try_recv() {
                    self.finished(id, outcome, watch);
                    self.schedule(id);
                }
            }
            FOLDERS => {
                self.folders.drain();
                let is_a_path = |(_, tended): &(&u64, &Tended)| matches!(tended.place, Place::Path(_));
                let ids: Vec<u64> = self.tended.iter().filter(is_a_path).map(|(id, _)| *id).collect();
                ids.into_iter().for_each(|id| self.look_whether_there(id, watch));
            }
            number if number % 2 == 1 => self.look_whether_there(number / 2, watch),
            number => {
                let id = number / 2;
                let actions = self.tended.get_mut(&id).map(|tended| tended.receive(watch)).unwrap_or_default();
                self.perform(id, actions, watch);
                self.schedule(id);
            }
        }
    }

    fn tick(&mut self, now: Duration, watch: &Watch) {
        let due: Vec<u64> = self.due.range(..=(now, u64::MAX)).map(|(_, id)| *id).collect();
        for id in due {
            if let Some(tended) = self.tended.get_mut(&id).filter(|tended| tended.look.is_some_and(|at| at <= now)) {
                tended.look = None;
                self.look_whether_there(id, watch);
            }
            let started = self.tended.get_mut(&id).map(|tended| tended.start_client(now, socket_of(id), watch));
            if let Some(Err(silence)) = started {
                self.silent(id, silence, watch);
            }
            let actions = self.tended.get_mut(&id).map(|tended| tended.tick(now, watch)).unwrap_or_default();
            self.perform(id, actions, watch);
            let ipv6 = self.tended.get_mut(&id).and_then(|tended| tended.ipv6.as_mut()?.tick(now));
            if let Some(exchange) = ipv6 {
                self.work(id, move || Outcome::ExchangedIpv6(exchange().into()));
            }
            self.schedule(id);
        }
    }

    fn wake(&self) -> Option<Duration> {
        self.due.first().map(|(wake, _)| *wake)
    }

    fn is_idle(&self) -> bool {
        self.tended.is_empty()
    }
}
