//! `plumb detach`: takes back what plumb attached, wherever the container is by now.

use std::collections::BTreeMap;

use super::{Context, namespace, records, require_capabilities, take_back};
use crate::{
    cli::Detach,
    error::{Error, Result},
    store::{Attachment, Kept, attachment},
    types::TargetName,
};

pub fn run(options: Detach, context: &Context) -> Result<()> {
    let (chosen, damaged) = choose(&options, context)?;
    if options.dry_run {
        return dry_run(&chosen, damaged, context);
    }
    if !chosen.is_empty() {
        require_capabilities()?;
    }
    let outcome = take_all_back(&chosen, context);
    // One for all: what is said to be detached shall not come back after a loss of power.
    if let Some(attachment) = outcome.detached.last() {
        context.store.flush(&attachment.key())?;
    }
    let failures: Vec<Error> = outcome.failures.into_iter().chain(damaged).collect();
    say(&options, &outcome.detached, failures.is_empty(), context);
    let detached: Vec<_> = outcome
        .detached
        .iter()
        .map(|a| serde_json::json!({ "target": a.target, "interface": a.interface() }))
        .collect();
    context.output.conclude(serde_json::json!({ "detached": detached }), failures)
}

/// The attachments that are meant, newest first, and what is wrong with damaged records among them.
fn choose(options: &Detach, context: &Context) -> Result<(Vec<Attachment>, Vec<Error>)> {
    let kept: Vec<Kept> = match &options.target {
        None => attachment::all(&*context.store, None)?,
        Some(target) => records::of_target(target, context)?,
    };
    let (mut chosen, mut damaged) = (Vec::new(), Vec::new());
    for kept in kept {
        match kept {
            Ok(attachment) if options.interface.as_ref().is_none_or(|name| name.as_str() == attachment.interface()) => {
                chosen.push(attachment)
            }
            Ok(_) => {}
            Err(error) => damaged.push(error),
        }
    }
    chosen.sort_by_key(|attachment| std::cmp::Reverse(attachment.begun));
    Ok((chosen, damaged))
}

fn dry_run(chosen: &[Attachment], damaged: Vec<Error>, context: &Context) -> Result<()> {
    let mut commands = Vec::new();
    for attachment in chosen {
        let Some(namespace) = namespace::reopen(attachment) else { continue };
        let steps = namespace.look_inside(|kernel| take_back::plan(attachment, &namespace, kernel))?;
        commands.extend(steps.iter().map(|step| step.command(&namespace.path().display().to_string())));
    }
    commands.iter().for_each(|command| context.output.line(command));
    context.output.conclude(serde_json::json!({ "dry_run": true, "commands": commands }), damaged)
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
            let work =
                |group: &Vec<&Attachment>| group.iter().map(|a| take_back::anywhere(context, a)).collect::<Vec<_>>();
            let threads: Vec<_> = batch.iter().map(|group| (group, scope.spawn(move || work(group)))).collect();
            let joined = |(group, thread): (&Vec<_>, std::thread::ScopedJoinHandle<Vec<_>>)| {
                let results = thread.join().unwrap_or_else(|_| {
                    vec![Err(Error::failed("a thread of plumb's ended unexpectedly: this is a bug"))]
                });
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
const SIDE_BY_SIDE: usize = 512;

fn say(options: &Detach, detached: &[Attachment], all_well: bool, context: &Context) {
    for attachment in detached {
        let addresses: Vec<String> = attachment.wish.addresses.iter().map(|address| format!(" {address}")).collect();
        context.output.line(format_args!(
            "{}: {}{} detached",
            attachment.target,
            attachment.interface(),
            addresses.concat()
        ));
    }
    if !detached.is_empty() || !all_well {
        return;
    }
    match (&options.target, &options.interface) {
        (None, _) => context.output.line("nothing is attached"),
        (Some(target), Some(interface)) => context.output.line(format_args!("{target}: {interface} is not attached")),
        (Some(target), None) => context.output.line(records::nothing_attached(target, context)),
    }
}
