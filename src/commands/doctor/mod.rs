//! `plumb doctor`: what this machine has of what plumb needs, and what to do where something is missing.
//! It only looks: no module is loaded, no file is written, and the namespace that it tries things in goes
//! with the process.

mod engines;
mod forwarding;
mod kernel;
mod needs;
mod parents;
mod permissions;
mod records;
mod report;

use std::time::Instant;

use super::Context;
use crate::{
    cli::{Doctor, Global},
    config::{self, Config},
    docker::EngineKind,
    error::{Error, Kind, Result},
    interrupt,
    output::Output,
};
use report::{Area, Finding, Report, State};

/// Looks at everything at once and says it all. An error if something is missing that the verb needs.
pub fn run(options: Doctor, global: Global, output: Output) -> Result<()> {
    let begun = Instant::now();
    let config = Config::read(config::path(global.config.clone()).as_deref())?;
    let engines = super::engines(&global, &config);
    let place = super::store_place(&global, &config);
    let context = match Context::new(global, output) {
        Err(error) if error.kind == Kind::Usage => return Err(error),
        context => context,
    };
    // Side by side: whoever is stuck holds up nobody but himself.
    let areas = std::thread::scope(|scope| {
        let asked = [
            (Area::Kernel, scope.spawn(kernel::look)),
            (Area::Engines, scope.spawn(|| engines::look(EngineKind::Docker, &engines.docker))),
            (Area::Engines, scope.spawn(|| engines::look(EngineKind::Podman, &engines.podman))),
            (Area::Parents, scope.spawn(parents::look)),
            (Area::Store, scope.spawn(|| records::look(&place, context.as_ref()))),
            (Area::Store, scope.spawn(|| records::leftovers(context.as_ref().ok()))),
        ];
        let here = [(Area::Permissions, permissions::look()), (Area::Forwarding, forwarding::look())];
        let ended = |_| vec![Finding::warning("plumb", "a thread ended unexpectedly: this is a bug")];
        let asked = asked.map(|(area, thread)| (area, thread.join().unwrap_or_else(ended)));
        asked.into_iter().chain(here).collect()
    });
    interrupt::check()?;
    Report::new(options.verb, areas, begun.elapsed()).say(output)
}

/// What could not be looked at.
fn not_looked_at(what: &str, error: Error) -> Finding {
    let message = format!("not looked at: {}", error.message);
    Finding::because(State::Note, what, &Error { message, ..error })
}
