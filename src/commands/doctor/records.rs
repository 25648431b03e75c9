//! What plumb remembers, who tends it, and what was left behind.

use std::path::Path;

use caps::Capability;
use nix::unistd::{AccessFlags, access};

use super::{
    needs::Need,
    not_looked_at,
    permissions::lacking,
    report::{Finding, State},
};
use crate::{
    agent::presence::Place,
    commands::{Context, gc},
    config,
    error::{Error, RUN_AS_ROOT, Result, plain},
    store::{Store, attachment, lease, network, shaped},
};

/// The store, its damaged records, the agent and this host's identity. `place` is the store's; `context` has it,
/// or tells why there is none.
pub fn look(place: &str, context: std::result::Result<&Context, &Error>) -> Vec<Finding> {
    let store = match context {
        Ok(context) => &*context.store,
        Err(error) => return vec![missing(error), identity(place)],
    };
    match Records::read(store) {
        Ok(records) => {
            let tended = agent(&records, store);
            [vec![records.finding(place)], records.damages(), vec![tended, identity(place)]].concat()
        }
        Err(error) => vec![missing(&error), identity(place)],
    }
}

fn missing(why: &Error) -> Finding {
    Finding::because(State::Missing, "the store", why).of(Need::Store)
}

/// How many records there are of each kind.
struct Records {
    attachments: usize,
    networks: usize,
    limits: usize,
    leases: usize,
    damaged: Vec<Error>,
}

impl Records {
    fn read(store: &dyn Store) -> Result<Records> {
        let mut damaged = Vec::new();
        Ok(Records {
            attachments: count(attachment::all(store, None)?, &mut damaged),
            networks: count(network::all(store)?, &mut damaged),
            limits: count(shaped::all(store, None)?, &mut damaged),
            leases: count(lease::all(store)?, &mut damaged),
            damaged,
        })
    }

    fn finding(&self, place: &str) -> Finding {
        let all = [(self.attachments, "attachment"), (self.networks, "network"), (self.limits, "limit")];
        let some: Vec<String> =
            all.iter().filter(|(many, _)| *many > 0).map(|(many, what)| counted(*many, what)).collect();
        let finding = match unwritable(place) {
            Some(why) => missing(&why),
            None if some.is_empty() => Finding::ok("the store", format!("{place}: nothing is on record")),
            None => Finding::ok("the store", format!("{place}: {}", some.join(", "))),
        };
        finding.of(Need::Store)
    }

    fn damages(&self) -> Vec<Finding> {
        self.damaged.iter().map(|error| Finding::because(State::Warning, "a record", error)).collect()
    }
}

fn count<T>(kept: Vec<Result<T>>, damaged: &mut Vec<Error>) -> usize {
    let all = kept.len();
    let errors: Vec<Error> = kept.into_iter().filter_map(Result::err).collect();
    let good = all - errors.len();
    damaged.extend(errors);
    good
}

/// Why no record can be written into a directory. It is made with the first, so what it will lie in counts.
/// Of a cluster only a record would tell.
fn unwritable(place: &str) -> Option<Error> {
    if place.contains("://") {
        return None;
    }
    let path = std::path::absolute(place).ok()?;
    let there = path.ancestors().find(|folder| folder.exists()).unwrap_or(Path::new("/"));
    let errno = access(there, AccessFlags::W_OK | AccessFlags::X_OK).err()?;
    let (reason, there) = (plain(&errno.into()), there.display());
    let message = if path.exists() {
        format!("{place} cannot be written to: {reason}")
    } else {
        format!("{place} cannot be made in {there}: {reason}")
    };
    Some(Error::not_permitted(message).hint("run plumb as root, or name another place with --store"))
}

/// Somebody must renew what is leased.
fn agent(records: &Records, store: &dyn Store) -> Finding {
    const NAME: &str = "the agent";
    if records.leases == 0 {
        return Finding::ok(NAME, "nothing is leased, so nobody has to renew anything");
    }
    match Place::of(store).holder() {
        Some(pid) => Finding::ok(NAME, format!("renews {} as process {pid}", counted(records.leases, "lease"))),
        None if lacking(Capability::CAP_NET_ADMIN).is_some() => {
            not_looked_at(NAME, Error::not_permitted("it answers root only").hint(RUN_AS_ROOT))
        }
        None => Finding::warning(NAME, format!("does not run, and {} will run out", counted(records.leases, "lease")))
            .remedy("plumb agent; or its unit file, which is in scripts/systemd"),
    }
}

fn counted(many: usize, what: &str) -> String {
    if many == 1 { format!("1 {what}") } else { format!("{many} {what}s") }
}

/// By which this host's MAC addresses and client ids stay what they are.
fn identity(place: &str) -> Finding {
    const NAME: &str = "machine id";
    let finding = match config::host_identity() {
        Some(_) => return Finding::ok(NAME, "there: MAC addresses and DHCP client ids stay the same"),
        None if place.contains("://") => Finding::missing(NAME, "there is none, and hosts that share a store need one"),
        None => Finding::warning(NAME, "there is none: hosts without one give the same MAC addresses"),
    };
    finding.of(Need::Store).remedy("systemd-machine-id-setup, or dbus-uuidgen --ensure=/etc/machine-id")
}

/// What `plumb gc` would do.
pub fn leftovers(context: Option<&Context>) -> Vec<Finding> {
    const NAME: &str = "leftovers";
    let Some(context) = context else { return Vec::new() };
    if let Some(error) = lacking(Capability::CAP_SYS_ADMIN) {
        return vec![not_looked_at(NAME, error)];
    }
    match gc::pending(context) {
        Err(error) => vec![not_looked_at(NAME, error)],
        Ok((pending, _)) if pending.is_empty() => vec![Finding::ok(NAME, "none")],
        Ok((pending, _)) => {
            let finding = |text: String| Finding::warning(NAME, format!("would be done: {text}")).remedy("plumb gc");
            pending.into_iter().map(finding).collect()
        }
    }
}
