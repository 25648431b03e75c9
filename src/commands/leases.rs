//! `plumb leases`: what servers have granted, and how it stands.

use std::{fmt, net::Ipv4Addr};

use comfy_table::{Table, presets};
use serde::Serialize;

use super::Context;
use crate::{
    error::Result,
    kernel::dhcp::boot_time,
    namespace,
    output::{flush_left, length},
    store::{Attachment, Holding, LeaseRecord, Store, lease},
    types::{HostAddress, TargetName},
};

pub fn run(context: &Context) -> Result<()> {
    let rows = lease::all(&*context.store)?.into_iter().map(|kept| kept.map(Row::new)).collect();
    context.output.list("leases", rows, "nothing is leased", table);
    Ok(())
}

#[derive(Serialize)]
struct Row {
    target: TargetName,
    interface: String,
    #[serde(flatten)]
    lease: Leased,
}

impl Row {
    fn new(record: LeaseRecord) -> Row {
        let lease = Leased::new(&record);
        Row { target: record.target, interface: record.interface, lease }
    }
}

/// How a lease stands at this moment.
#[derive(Debug, Serialize)]
pub struct Leased {
    /// The address that is leased, or that was.
    address: HostAddress,
    server: Ipv4Addr,
    /// None: for ever, or over.
    seconds_left: Option<u64>,
    pub state: &'static str,
    problem: Option<String>,
}

impl Leased {
    /// The lease of an attachment that has one.
    pub fn of(attachment: &Attachment, store: &dyn Store) -> Option<Leased> {
        attachment.dhcp.as_ref()?;
        lease::read(store, attachment).ok().flatten().filter(|record| record.is_of(attachment)).map(|r| Leased::new(&r))
    }

    fn new(record: &LeaseRecord) -> Leased {
        let (now, boot) = (boot_time(), namespace::boot());
        let left = record.left(now, &boot).filter(|_| record.state == Holding::Held);
        Leased {
            address: record.lease.address,
            server: record.lease.server,
            seconds_left: left.map(|left| left.as_secs()),
            state: record.standing(now, &boot),
            problem: record.problem.clone(),
        }
    }

    fn left(&self) -> String {
        match (self.seconds_left, self.state) {
            (Some(seconds), _) => length(std::time::Duration::from_secs(seconds)),
            (None, "bound") => "for ever".into(),
            (None, _) => "-".into(),
        }
    }
}

/// `leased from 192.168.0.1, 11 h 58 min left`
impl fmt::Display for Leased {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.seconds_left, self.state) {
            (Some(_), "bound") => write!(f, "leased from {}, {} left", self.server, self.left()),
            (None, "bound") => write!(f, "leased from {} for ever", self.server),
            (Some(_), state) => write!(f, "{state} the lease of {}, {} left", self.server, self.left()),
            (None, state) => write!(f, "the lease of {} {state}", self.server),
        }
    }
}

fn table(rows: &[Row]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["TARGET", "INTERFACE", "ADDRESS", "SERVER", "LEFT", "STATE", "PROBLEM"]);
    for Row { target, interface, lease } in rows {
        table.add_row([
            target.to_string(),
            interface.clone(),
            lease.address.to_string(),
            lease.server.to_string(),
            lease.left(),
            lease.state.to_owned(),
            lease.problem.clone().unwrap_or_else(|| "-".into()),
        ]);
    }
    flush_left(table)
}
