//! A client in a container of its own, which shares its target's network.

use std::{
    env, fs,
    os::{fd::AsFd, unix::net::UnixDatagram},
    path::PathBuf,
    process,
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};

use crate::{
    agent::Process,
    container,
    dhcp::external::{Call, EVENT, FOLDER, Helper, SOCKET},
    docker::{Engine, EngineKind, Sidecar, State},
    error::{Error, Result},
    kernel::client::Line,
    types::Place,
};

/// A raw socket before there is an address, port 68 afterwards.
const CAPABILITIES: [&str; 3] = ["NET_ADMIN", "NET_RAW", "NET_BIND_SERVICE"];
/// More than any event is long.
const LONGEST: usize = 65_535;

/// Keeps the container until the line closes or the client ends, and removes it.
pub fn keep(call: &Call, helper: &Helper, line: &Line) -> Result<()> {
    let kind = EngineKind::named(&helper.kind).unwrap_or(EngineKind::Docker);
    let engine = Engine::connect_to_make(kind, &helper.engine)?;
    // The engine sees the host's files, so it cannot be where nobody else sees it.
    let folder = PathBuf::from(FOLDER).join(&helper.name);
    let kept = attend(call, helper, line, &engine, &folder);
    let _ = fs::remove_dir_all(&folder);
    engine.remove(&helper.name).and(kept)
}

fn attend(call: &Call, helper: &Helper, line: &Line, engine: &Engine, folder: &PathBuf) -> Result<()> {
    let room = |error: std::io::Error| Error::io("cannot make room for busybox", &error);
    let _ = fs::remove_dir_all(folder);
    fs::create_dir_all(folder).map_err(room)?;
    let events = UnixDatagram::bind(folder.join("event")).map_err(room)?;
    let plumb = env::current_exe().map_err(room)?;
    let command = [vec!["udhcpc".to_owned()], call.arguments.clone()].concat();
    engine.run_beside(Sidecar {
        name: &helper.name,
        image: &helper.image,
        target: &helper.target,
        command,
        environment: vec![format!("{EVENT}={SOCKET}")],
        binds: vec![format!("{}:{FOLDER}:ro", folder.display()), format!("{}:{}:ro", plumb.display(), call.script)],
        capabilities: &CAPABILITIES,
        kept_by: this_process(),
    })?;
    let process = match engine.inspect(&helper.name)?.state {
        State::Running(running) => Process::new(running.pid),
        _ => None,
    };
    let Some(process) = process else { return Err(ended(engine, helper)) };
    loop {
        let all = [line.as_fd(), events.as_fd(), process.as_fd()];
        let mut polled = all.map(|one| PollFd::new(one, PollFlags::POLLIN));
        match poll(&mut polled, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(Error::io("cannot wait for busybox", &errno.into())),
        }
        let [closed, event, has_ended] = polled.map(|one| one.revents().is_some_and(|what| !what.is_empty()));
        if closed {
            return Ok(());
        }
        if event {
            let mut buffer = vec![0; LONGEST];
            let length = events.recv(&mut buffer).unwrap_or_default();
            line.pass_on(&buffer[..length]);
        } else if has_ended {
            return Err(ended(engine, helper));
        }
    }
}

fn ended(engine: &Engine, helper: &Helper) -> Error {
    let last = engine.last_words(&helper.name).map_or(String::new(), |words| format!(": {words}"));
    Error::failed(format!("busybox ended{last}"))
}

/// This process, told from all others that had or will have its number.
fn this_process() -> String {
    match container::process(process::id()) {
        Some(Place::Process { pid, started }) => format!("{pid} {started}"),
        _ => String::new(),
    }
}

/// Removes what a killed keeper left.
pub fn remove_left(engine: &Engine, name: &str) -> Result<()> {
    let _ = fs::remove_dir_all(PathBuf::from(FOLDER).join(name));
    engine.remove(name)
}

/// Whether the process that was to remove a container is at it still.
pub fn is_kept(by: &str) -> bool {
    let place = by
        .split_once(' ')
        .and_then(|(pid, started)| Some(Place::Process { pid: pid.parse().ok()?, started: started.parse().ok()? }));
    place.is_some_and(|place| container::is_there(&place))
}
