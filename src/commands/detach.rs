//! `plumb detach`: takes back what plumb attached, wherever the container is by now.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{Context, namespace, require_capabilities, take_back};
use crate::{
    cli::Detach,
    container,
    error::{Error, Kind, Result},
    kernel::Netns,
    store::{Attachment, Kept, attachment},
    types::TargetName,
};

pub fn run(options: Detach, context: &Context) -> Result<()> {
    let (chosen, damaged) = choose(&options, context)?;
    if options.dry_run {
        return dry_run(&chosen, context);
    }
    if !chosen.is_empty() {
        require_capabilities()?;
    }
    let outcome = take_all_back(&chosen, context);
    // One for all: what is said to be detached shall not come back after a loss of power.
    if let Some(attachment) = outcome.detached.last() {
        context.store.flush(&attachment.key())?;
    }
    say(&options, &outcome.detached, context);
    match outcome.failures.into_iter().chain(damaged).reduce(join) {
        None => Ok(()),
        Some(error) => Err(error),
    }
}

/// The attachments that are meant, newest first, and what is wrong with damaged records among them.
fn choose(options: &Detach, context: &Context) -> Result<(Vec<Attachment>, Vec<Error>)> {
    let kept: Vec<Kept> = match &options.target {
        None => attachment::all(&*context.store, None)?,
        Some(target) => of_target(target, context)?,
    };
    let (mut chosen, mut damaged) = (Vec::new(), Vec::new());
    for kept in kept {
        match kept {
            Ok(attachment) if options.interface.as_ref().is_none_or(|name| name.as_str() == attachment.interface()) => chosen.push(attachment),
            Ok(_) => {}
            Err(error) => damaged.push(error),
        }
    }
    chosen.sort_by_key(|attachment| std::cmp::Reverse(attachment.begun));
    Ok((chosen, damaged))
}

/// What was attached to the target under this name, or to its namespace under another: who
/// attached to pid:42 may detach from the container that the process belongs to.
fn of_target(target: &TargetName, context: &Context) -> Result<Vec<Kept>> {
    let by_name = attachment::of_target(&*context.store, target)?;
    if !by_name.is_empty() {
        return Ok(by_name);
    }
    let everything = attachment::all(&*context.store, None)?;
    if everything.is_empty() {
        return Ok(everything);
    }
    // That it cannot be found is no error: a container that is gone has nothing attached.
    let Ok(found) = container::find(target, &context.engines, None) else { return Ok(Vec::new()) };
    let inode = namespace::open(&found, &Netns::of_this_thread()?)?.id().0;
    let is_here = |a: &Attachment| a.namespace.inode == inode && namespace::reopen(a).is_some();
    Ok(everything.into_iter().filter(|kept| kept.as_ref().is_ok_and(is_here)).collect())
}

fn dry_run(chosen: &[Attachment], context: &Context) -> Result<()> {
    let mut commands = Vec::new();
    for attachment in chosen {
        let Some(namespace) = namespace::reopen(attachment) else { continue };
        let steps = namespace.look_inside(|kernel| take_back::plan(attachment, &namespace, kernel))?;
        commands.extend(steps.iter().map(|step| step.command(&namespace.path().display().to_string())));
    }
    context.output.document(&serde_json::json!({ "dry_run": true, "commands": commands }));
    commands.iter().for_each(|command| context.output.line(command));
    Ok(())
}

#[derive(Default)]
struct Outcome {
    detached: Vec<Attachment>,
    failures: Vec<Error>,
}

/// Targets side by side, as the kernel waits some 17 ms for each link that goes but waits for all
/// at once; the attachments of one target one after the other, newest first, as they may have
/// replaced one another's routes.
fn take_all_back(chosen: &[Attachment], context: &Context) -> Outcome {
    let mut targets: BTreeMap<&TargetName, Vec<&Attachment>> = BTreeMap::new();
    for attachment in chosen {
        targets.entry(&attachment.target).or_default().push(attachment);
    }
    let _waiting = (targets.len() > 100).then(|| context.output.waiting(format!("detaching {}", chosen.len())));
    let groups: Vec<Vec<&Attachment>> = targets.into_values().collect();
    let mut outcome = Outcome::default();
    for batch in groups.chunks(SIDE_BY_SIDE) {
        let finished: Vec<(&Attachment, Result<()>)> = std::thread::scope(|scope| {
            let work = |group: &Vec<&Attachment>| group.iter().map(|a| take_back::anywhere(context, a)).collect::<Vec<_>>();
            let threads: Vec<_> = batch.iter().map(|group| (group, scope.spawn(move || work(group)))).collect();
            let joined = |(group, thread): (&Vec<_>, std::thread::ScopedJoinHandle<Vec<_>>)| {
                let results = thread.join().unwrap_or_else(|_| vec![Err(Error::failed("a thread of plumb's ended unexpectedly: this is a bug"))]);
                group.clone().into_iter().zip(results).collect::<Vec<_>>()
            };
            threads.into_iter().flat_map(joined).collect()
        });
        for (attachment, result) in finished {
            match result {
                Ok(()) => outcome.detached.push(attachment.clone()),
                Err(error) => outcome.failures.push(error),
            }
        }
    }
    outcome
}

/// Enough that the kernel's waits overlap, few enough for a small machine.
const SIDE_BY_SIDE: usize = 256;

fn say(options: &Detach, detached: &[Attachment], context: &Context) {
    #[derive(Serialize)]
    struct Detached<'a> {
        target: &'a TargetName,
        interface: &'a str,
    }
    let document: Vec<Detached> = detached.iter().map(|a| Detached { target: &a.target, interface: a.interface() }).collect();
    context.output.document(&serde_json::json!({ "detached": document }));
    match &options.target {
        _ if !detached.is_empty() => {
            for attachment in detached {
                let addresses: Vec<String> = attachment.wish.addresses.iter().map(|address| format!(" {address}")).collect();
                context.output.line(format_args!("{}: {}{} detached", attachment.target, attachment.interface(), addresses.concat()));
            }
        }
        Some(target) => match &options.interface {
            Some(interface) => context.output.line(format_args!("{target}: {interface} is not attached")),
            None => context.output.line(format_args!("{target}: nothing is attached")),
        },
        None => context.output.line("nothing is attached"),
    }
}

/// Several failures as one: all that was left behind is told.
pub fn join(one: Error, other: Error) -> Error {
    let kind = if other.kind == Kind::LeftBehind { Kind::LeftBehind } else { one.kind };
    let leftovers = one.leftovers.into_iter().chain(other.leftovers).collect();
    Error { kind, message: format!("{}\n{}", one.message, other.message), hint: one.hint.or(other.hint), leftovers }
}
