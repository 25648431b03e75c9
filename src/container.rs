//! From `web`, `podman:web`, `pid:42` or `netns:blue` to a running target and the file of its namespace.

use std::{
    fs,
    io::ErrorKind,
    os::unix::fs::MetadataExt,
    path::Path,
    time::{Duration, Instant},
};

use crate::{
    docker::{Container, Engine, EngineKind, NetworkMode, Running, State},
    error::{Error, Kind, Result},
    interrupt,
    types::{Place, Span, TargetName},
};

/// Where the engines are reached.
#[derive(Debug, Clone)]
pub struct Engines {
    pub docker: String,
    pub podman: String,
}

/// A target that runs.
pub struct Target {
    /// The name by which it is remembered: a container's own name, whatever part of its id was typed.
    pub name: TargetName,
    /// The container's id.
    pub id: Option<String>,
    pub place: Place,
    /// Ports that the engine publishes on the host, such as `8080->80/tcp`.
    pub published: Vec<String>,
    /// Who runs it, and the run that was found.
    engine: Option<(Engine, Running)>,
}

/// Whether the place is still what it was.
pub fn is_there(place: &Place) -> bool {
    match place {
        Place::Process { pid, started } => started_at(*pid) == Some(*started),
        Place::Path(path) => fs::metadata(path).is_ok_and(|file| !is_bare(&file)),
    }
}

/// Whether nothing is mounted on the file yet, or any more: `ip netns add` makes it first.
fn is_bare(file: &fs::Metadata) -> bool {
    // All namespaces are files of one device.
    let is_a_namespace = fs::metadata(Place::HOST).is_ok_and(|own| own.dev() == file.dev());
    file.is_file() && file.len() == 0 && !is_a_namespace
}

/// A process that runs.
pub fn process(pid: u32) -> Option<Place> {
    started_at(pid).map(|started| Place::Process { pid, started })
}

/// The host name in the place, unless that is this host's own or there is none.
pub fn host_name(place: &Place) -> Option<String> {
    let Place::Process { pid, .. } = place else { return None };
    let there = fs::File::open(format!("/proc/{pid}/ns/uts")).ok()?;
    let is_this_hosts = there.metadata().ok()?.ino() == fs::metadata("/proc/self/ns/uts").ok()?.ino();
    if is_this_hosts {
        return None;
    }
    // On a thread that ends with it: who entered a namespace does not come back.
    let look = || {
        nix::sched::setns(there, nix::sched::CloneFlags::CLONE_NEWUTS).ok()?;
        nix::sys::utsname::uname().ok()?.nodename().to_str().map(str::to_owned)
    };
    std::thread::scope(|scope| scope.spawn(look).join().ok().flatten()).filter(|name| !name.is_empty())
}

/// When the process was started, or `None` if it has ended (a zombie has, too).
fn started_at(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the command's name in parentheses and may contain anything.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?;
    if matches!(state, "Z" | "X") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

/// As [`find`], for a command that has `--wait`: who has not given it is told of it.
pub fn find_or_wait(name: &TargetName, engines: &Engines, wait: Option<Span>) -> Result<Target> {
    if wait.is_none() { find_now(name, engines, true) } else { find(name, engines, wait) }
}

/// Finds the running target. With `wait`, one that does not run yet is waited for so long.
pub fn find(name: &TargetName, engines: &Engines, wait: Option<Span>) -> Result<Target> {
    let Some(wait) = wait else { return find_now(name, engines, false) };
    let end = Instant::now() + wait.duration();
    let mut pause = Duration::from_millis(10);
    loop {
        match find_now(name, engines, false) {
            Err(error) if error.kind == Kind::NotFound && Instant::now() < end => {}
            Err(error) if error.kind == Kind::NotFound => {
                return Err(Error {
                    kind: Kind::TimedOut,
                    message: format!("{}, after waiting {wait}", error.message),
                    hint: None,
                    ..error
                });
            }
            other => return other,
        }
        interrupt::sleep(pause.min(end.saturating_duration_since(Instant::now())))?;
        pause = (pause * 2).min(Duration::from_millis(100));
    }
}

fn find_now(name: &TargetName, engines: &Engines, has_wait: bool) -> Result<Target> {
    match name {
        TargetName::Docker(container) => in_engine(container, EngineKind::Docker, &engines.docker, has_wait),
        TargetName::Podman(container) => in_engine(container, EngineKind::Podman, &engines.podman, has_wait),
        TargetName::Pid(pid) => {
            let gone = || Error::not_found(format!("there is no process {pid}"));
            let place = Place::Process { pid: *pid, started: started_at(*pid).ok_or_else(gone)? };
            Ok(Target { name: name.clone(), id: None, place, published: Vec::new(), engine: None })
        }
        TargetName::NetnsName(_) | TargetName::NetnsPath(_) | TargetName::Host => {
            let path = name.netns_path().unwrap_or_default();
            match fs::metadata(&path) {
                Ok(file) if is_bare(&file) => Err(Error::not_found(format!(
                    "no namespace is mounted on {} yet: it is an empty file",
                    path.display()
                ))
                .hint("ip netns del deletes it, if nobody is at work on it; ip netns add then makes the namespace")),
                Ok(_) => Ok(Target {
                    name: name.clone(),
                    id: None,
                    place: Place::Path(path),
                    published: Vec::new(),
                    engine: None,
                }),
                Err(error) if error.kind() == ErrorKind::NotFound => Err(no_such_namespace(name, &path)),
                Err(error) => Err(Error::io(format!("cannot look at {}", path.display()), &error)),
            }
        }
    }
}

fn no_such_namespace(name: &TargetName, path: &Path) -> Error {
    let error = Error::not_found(format!("there is no namespace {}", path.display()));
    let TargetName::NetnsName(wanted) = name else { return error };
    let entries =
        fs::read_dir("/run/netns").into_iter().flatten().filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let names: Vec<String> = entries.collect();
    match crate::types::nearest(wanted, names.iter().map(String::as_str)) {
        Some(near) => error.hint(format!("did you mean netns:{near}?")),
        None => error.hint("ip netns list shows those that have names"),
    }
}

fn in_engine(name: &str, kind: EngineKind, address: &str, has_wait: bool) -> Result<Target> {
    let engine = Engine::connect(kind, address)?;
    let container = engine.inspect(name)?;
    let running = running(&container, &engine, has_wait)?;
    let started = started_at(running.pid).ok_or_else(|| {
        Error::failed(format!("{}'s process {} is not on this machine", container.name, running.pid))
            .hint("plumb must run where the engine runs, and see its processes (in a container: --pid=host)")
    })?;
    let canonical = match kind {
        EngineKind::Docker => TargetName::Docker(container.name.clone()),
        EngineKind::Podman => TargetName::Podman(container.name.clone()),
    };
    Ok(Target {
        name: canonical,
        id: Some(container.id),
        place: Place::Process { pid: running.pid, started },
        published: container.published,
        engine: Some((engine, running)),
    })
}

/// The container's run, if it has a namespace of its own to work on.
fn running(container: &Container, engine: &Engine, has_wait: bool) -> Result<Running> {
    if let NetworkMode::Of(other) = &container.network {
        // People know containers by name, the engine tells an id.
        let other =
            engine.inspect(other).map_or_else(|_| other.get(..12).unwrap_or(other).to_owned(), |other| other.name);
        return Err(Error::failed(format!(
            "{} shares the network of {other} (--net=container:{other}): it has no namespace of its own",
            container.name
        ))
        .hint(format!("what {other} gets, {} has too: use {other} as the target", container.name)));
    }
    running_on_its_own(container, engine.kind(), has_wait)
}

fn running_on_its_own(container: &Container, kind: EngineKind, has_wait: bool) -> Result<Running> {
    let (name, engine) = (&container.name, kind.command());
    if container.network == NetworkMode::Host {
        return Err(Error::failed(format!(
            "{name} uses the host's network (--net=host): it has no namespace of its own"
        ))
        .hint("run it with another --network, such as bridge or none"));
    }
    let not_running =
        |how: &str, what_next: String| Err(Error::not_found(format!("container {name} {how}")).hint(what_next));
    match &container.state {
        State::Running(running) | State::Paused(running) => Ok(running.clone()),
        State::Restarting if has_wait => not_running("is restarting", "--wait 10s waits until it runs".into()),
        State::Restarting => not_running("is restarting", format!("{engine} logs {name} may tell why")),
        State::Dead => not_running("is dead: the engine could not remove it", format!("{engine} rm -f {name}")),
        State::Stopped(status) => {
            let or_wait = if has_wait { "; or --wait 10s" } else { "" };
            not_running(&format!("is not running ({status})"), format!("{engine} start {name}{or_wait}"))
        }
    }
}

impl Target {
    /// Whether an engine knows more about it than `/proc` does.
    pub fn is_an_engines(&self) -> bool {
        self.engine.is_some()
    }

    /// Asks the engine once more, after the namespace was opened: an error unless the very same
    /// process still is the container's. It then was all the time, so the namespace is the right one.
    pub fn ask_again(&self) -> Result<()> {
        let Some((engine, run)) = &self.engine else { return Ok(()) };
        match engine.inspect(self.id.as_deref().unwrap_or_default()).map(|container| container.state) {
            Ok(State::Running(now) | State::Paused(now)) if now == *run => Ok(()),
            Ok(State::Running(_) | State::Paused(_) | State::Restarting) => Err(self.ended("was restarted")),
            Ok(State::Stopped(_) | State::Dead) => Err(self.ended("stopped")),
            Err(error) if error.kind == Kind::NotFound => Err(self.ended("was removed")),
            Err(error) => Err(error),
        }
    }

    /// An error if the process, or the namespace's file, has gone since it was found.
    pub fn still_runs(&self) -> Result<()> {
        if is_there(&self.place) { Ok(()) } else { Err(self.ended("ended")) }
    }

    fn ended(&self, how: &str) -> Error {
        Error::failed(format!("{} {how} while it was being attached", self.name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(state: State, network: NetworkMode) -> Container {
        Container { id: "0123456789abcdef".into(), name: "web".into(), state, network, published: vec![] }
    }

    #[test]
    fn each_state_has_its_own_answer() {
        let run = Running { pid: 42, started_at: "then".into() };
        let answer = |state, network| {
            running_on_its_own(&container(state, network), EngineKind::Docker, false)
                .map_err(|error| (error.kind, error.message))
        };
        assert_eq!(answer(State::Running(run.clone()), NetworkMode::Own), Ok(run.clone()));
        assert_eq!(answer(State::Paused(run.clone()), NetworkMode::Own), Ok(run.clone()));
        assert_eq!(
            answer(State::Restarting, NetworkMode::Own),
            Err((Kind::NotFound, "container web is restarting".into()))
        );
        assert_eq!(
            answer(State::Dead, NetworkMode::Own),
            Err((Kind::NotFound, "container web is dead: the engine could not remove it".into()))
        );
        assert_eq!(
            answer(State::Stopped("exited".into()), NetworkMode::Own),
            Err((Kind::NotFound, "container web is not running (exited)".into()))
        );
        assert!(answer(State::Running(run), NetworkMode::Host).unwrap_err().1.contains("--net=host"));
    }

    #[test]
    fn a_process_is_told_from_its_successor() {
        let me = std::process::id();
        let started = started_at(me).unwrap();
        assert!(is_there(&Place::Process { pid: me, started }));
        assert!(!is_there(&Place::Process { pid: me, started: started + 1 }));
    }
}
