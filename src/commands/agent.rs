//! `plumb agent`: the one process in the background, and how it comes to be there.

use std::{
    env,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use super::{Context, require_capabilities};
use crate::{
    agent::{
        self,
        presence::{Place, Word},
    },
    cli::Agent,
    error::{Error, Result},
    interrupt,
    store::Key,
};

pub fn run(options: Agent, context: Context) -> Result<()> {
    require_capabilities()?;
    let place = Place::of(&*context.store);
    if options.foreground {
        return stay(&place, context);
    }
    if options.detached {
        return serve(&place, context);
    }
    let pid = match place.holder() {
        Some(pid) => Some(pid),
        None => await_it(&place, start(&context)?)?,
    };
    context.output.document(&serde_json::json!({ "pid": pid }));
    context.output.line(match pid {
        Some(pid) => format!("the agent runs, as process {pid}"),
        None => "there is nothing for an agent to do".into(),
    });
    Ok(())
}

/// Until a signal, whether or not there is anything to do. What there was before makes way.
fn stay(place: &Place, context: Context) -> Result<()> {
    let Some(post) = place.take(true)? else {
        let who = place.holder().map_or(String::new(), |pid| format!(", process {pid}"));
        return Err(Error::conflict(format!("an agent runs already{who}")).hint("one is enough for a host and a store"));
    };
    agent::run(context.store.into(), post, true)
}

/// Until there is nothing left to do. That another was faster is fine.
fn serve(place: &Place, context: Context) -> Result<()> {
    // Neither the terminal nor the folder that it was started from may miss it.
    let _ = nix::unistd::setsid();
    env::set_current_dir("/").map_err(|error| Error::io("cannot change to /", &error))?;
    match place.take(false)? {
        Some(post) => agent::run(context.store.into(), post, false),
        None => Ok(()),
    }
}

/// Tells the agent what there is to do, and starts one if there is none.
pub fn tell(key: Key, context: &Context) -> Result<()> {
    let place = Place::of(&*context.store);
    if place.tell(&Word::Changed(Some(key))) { Ok(()) } else { start(context).map(drop) }
}

/// Tells the agent, if there is one, that there is something less to do. It would find out by itself.
pub fn mention(key: Key, context: &Context) {
    Place::of(&*context.store).mention(&Word::Changed(Some(key)));
}

/// Starts one in the background; it looks by itself for what there is to do.
fn start(context: &Context) -> Result<Child> {
    let failed = |error: std::io::Error| Error::io("cannot start the agent", &error).hint("plumb agent starts it");
    let program = env::current_exe().map_err(failed)?;
    let mut command = Command::new(program);
    command.arg("agent").arg("--detached").args(&context.settings);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().map_err(failed)
}

/// The agent's process once it answers, which with thousands of leases it does not do at once. One that
/// finds nothing to do ends.
fn await_it(place: &Place, mut started: Child) -> Result<Option<u32>> {
    const PATIENCE: Duration = Duration::from_secs(10);
    let end = Instant::now() + PATIENCE;
    loop {
        let has_ended = started.try_wait().is_ok_and(|status| status.is_some());
        if let Some(pid) = place.holder() {
            return Ok(Some(pid));
        }
        if has_ended {
            return Ok(None);
        }
        if Instant::now() > end {
            return Err(Error::timed_out(format!("the agent, process {}, does not answer", started.id())));
        }
        interrupt::sleep(Duration::from_millis(10))?;
    }
}
