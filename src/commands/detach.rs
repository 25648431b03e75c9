//! `plumb detach`: takes back what plumb attached, wherever the container is by now.

use std::collections::BTreeMap;

use nix::sys::resource::{Resource, getrlimit};

use super::{
    Context, records, require_capabilities,
    take_back::{self, Preview},
};
use crate::{
    cli::Detach,
    error::{Error, Result},
    store::{Attachment, Kept, Record, attachment},
};

pub fn run(options: Detach, context: &Context) -> Result<()> {
    let (chosen, damaged) = choose(&options, context)?;
    for gateway in chosen.iter().filter(|attachment| attachment.is_gateway()) {
        if let Some(name) = &gateway.network {
            return Err(Error::conflict(format!("{} is the gateway of {name}", gateway.interface()))
                .hint(format!("plumb delete-vlan {name} takes it away")));
        }
    }
    if options.dry_run {
        return dry_run(&chosen, damaged, context);
    }
    if !chosen.is_empty() {
        require_capabilities()?;
    }
    let outcome = take_all_back(&chosen, context);
    let left = take_back::on_the_host(context, &outcome.detached).err();
    // One for all: what is said to be detached shall not come back after a loss of power.
    if let Some(attachment) = outcome.detached.last() {
        context.store.flush(&attachment.key())?;
    }
    let failures: Vec<Error> = outcome.failures.into_iter().chain(left).chain(damaged).collect();
    say(&options, &outcome.detached, failures.is_empty(), context);
    let detached: Vec<_> =
        outcome.detached.iter().map(|a| serde_json::json!({ "target": a.target, "interface": a.name_now() })).collect();
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
            // A network's gateway goes with the network.
            Ok(attachment) if attachment.is_gateway() && options.target.is_none() => {}
            Ok(attachment) if options.interface.as_ref().is_none_or(|name| attachment.is_called(name.as_str())) => {
                chosen.push(attachment)
            }
            Ok(_) => {}
            Err(error) => damaged.push(error),
        }
    }
    chosen.sort_by_key(|attachment| std::cmp::Reverse(attachment.begun));
    Ok((chosen, damaged))
}

/// The commands that do the same.
fn dry_run(chosen: &[Attachment], damaged: Vec<Error>, context: &Context) -> Result<()> {
    let Preview { commands, refused, .. } = take_back::preview(context, by_namespace(chosen))?;
    commands.iter().for_each(|command| context.output.line(command));
    let failures: Vec<Error> = refused.into_iter().chain(damaged).collect();
    context.output.conclude(serde_json::json!({ "dry_run": true, "commands": commands }), failures)
}

/// The attachments of each namespace, by whatever name it was attached, in the order they come in.
fn by_namespace(chosen: &[Attachment]) -> Vec<Vec<&Attachment>> {
    let mut groups: BTreeMap<(u64, Option<u64>, &str), Vec<&Attachment>> = BTreeMap::new();
    for attachment in chosen {
        let mark = &attachment.namespace;
        groups.entry((mark.inode, mark.cookie, &mark.boot)).or_default().push(attachment);
    }
    groups.into_values().collect()
}

#[derive(Default)]
struct Outcome {
    detached: Vec<Attachment>,
    failures: Vec<Error>,
}

/// Namespaces side by side, as the kernel waits some 17 ms for each link that goes but waits for all
/// at once; the attachments of one namespace one after the other, newest first, as they may have
/// replaced one another's routes.
fn take_all_back(chosen: &[Attachment], context: &Context) -> Outcome {
    let groups = by_namespace(chosen);
    let _waiting = (groups.len() > 100).then(|| context.output.waiting(format!("detaching {}", chosen.len())));
    let mut outcome = Outcome::default();
    for batch in groups.chunks(side_by_side()) {
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

/// How many threads work at once: enough that the kernel's waits overlap, and no more than there
/// are file descriptors for, of which each needs up to ten.
fn side_by_side() -> usize {
    const MOST: usize = 512;
    const EACH: u64 = 10;
    let descriptors = getrlimit(Resource::RLIMIT_NOFILE).map_or(256, |(soft, _)| soft);
    usize::try_from(descriptors.saturating_sub(32) / EACH).unwrap_or(MOST).clamp(1, MOST)
}

fn say(options: &Detach, detached: &[Attachment], all_well: bool, context: &Context) {
    for attachment in detached {
        let addresses: Vec<String> = attachment.wish.addresses.iter().map(|address| format!(" {address}")).collect();
        context.output.line(format_args!(
            "{}: {}{} detached",
            attachment.target.in_words(),
            attachment.name_now(),
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
