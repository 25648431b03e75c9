//! `plumb qos clear`: takes limits away, and gives back what they had replaced.

use super::{report::commands, settle, show, steps_to};
use crate::{
    cli::QosClear,
    commands::{Context, namespace, records, require_capabilities},
    error::{Error, Result},
    kernel::Netns,
    plan::shaping::Limits,
    store::{Record, Shaped},
    types::IfName,
};

pub fn run(options: QosClear, context: &Context) -> Result<()> {
    let (mut chosen, mut failures) = (Vec::new(), Vec::new());
    let kept = show::of_target(&options.target, context)?;
    // What was never plumb's may have had the name, too, and have its limits under it.
    let is_known = |name: &IfName| kept.iter().flatten().any(|shaped| shaped.interface == *name);
    let interface = match &options.interface {
        Some(name) if !is_known(name) => Some(records::name_now(&options.target, name, context)?),
        name => name.clone(),
    };
    for kept in kept {
        match kept {
            Ok(shaped) if interface.as_ref().is_none_or(|name| *name == shaped.interface) => chosen.push(shaped),
            Ok(_) => {}
            Err(error) => failures.push(error),
        }
    }
    if options.dry_run {
        return dry_run(&chosen, failures, context);
    }
    if !chosen.is_empty() {
        require_capabilities()?;
    }
    let mut cleared = Vec::new();
    for shaped in &chosen {
        match clear(shaped, context) {
            Ok(()) => cleared.push(shaped),
            Err(error) => failures.push(error),
        }
    }
    say(&options, &cleared, failures.is_empty(), context);
    let cleared: Vec<_> =
        cleared.iter().map(|s| serde_json::json!({ "target": s.target, "interface": s.interface })).collect();
    context.output.conclude(serde_json::json!({ "cleared": cleared }), failures)
}

/// Its record goes last: what a killed run leaves is cleared by the next.
fn clear(shaped: &Shaped, context: &Context) -> Result<()> {
    if let Some(there) = namespace::reopen(shaped) {
        there.lock()?;
        settle(context, shaped, &Limits::default(), &shaped.displaced, &there)?;
    }
    shaped.forget(&*context.store)?;
    context.store.flush(&shaped.key())
}

fn dry_run(chosen: &[Shaped], failures: Vec<Error>, context: &Context) -> Result<()> {
    let host = Netns::of_this_thread()?;
    let mut all = Vec::new();
    for shaped in chosen {
        let Some(there) = namespace::reopen(shaped) else { continue };
        let nothing = Limits::default();
        let steps = there.enter(|kernel| steps_to(shaped, &nothing, &shaped.displaced, kernel, &host))?;
        all.extend(commands(&steps, &there.path().display().to_string()));
    }
    all.iter().for_each(|command| context.output.line(command));
    context.output.conclude(serde_json::json!({ "dry_run": true, "commands": all }), failures)
}

fn say(options: &QosClear, cleared: &[&Shaped], all_well: bool, context: &Context) {
    for shaped in cleared {
        context.output.line(format_args!("{}: {} is not limited any more", shaped.target, shaped.interface));
    }
    if cleared.is_empty() && all_well {
        let target = &options.target;
        match &options.interface {
            Some(interface) => context.output.line(format_args!("{target}: {interface} has no limits")),
            None => context.output.line(format_args!("{target}: no limits are set")),
        }
    }
}
