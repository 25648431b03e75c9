//! `plumb leases`: what servers have granted, and how it stands.

use std::{fmt, net::IpAddr};

use comfy_table::{Table, presets};
use serde::Serialize;

use super::Context;
use crate::{
    error::Result,
    kernel::dhcp::boot_time,
    namespace,
    output::{flush_left, length},
    store::{Attachment, Ipv6Lease, LeaseRecord, Standing, Store, lease},
    types::{HostAddress, TargetName},
};

pub fn run(context: &Context) -> Result<()> {
    let mut rows = Vec::new();
    for kept in lease::all(&*context.store)? {
        match kept {
            Ok(record) => rows.extend(Row::of(&record).into_iter().map(Ok)),
            Err(error) => rows.push(Err(error)),
        }
    }
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
    fn of(record: &LeaseRecord) -> Vec<Row> {
        let row = |lease| Row { target: record.target.clone(), interface: record.interface.clone(), lease };
        [Leased::new(record)].into_iter().chain(record.ipv6.as_ref().map(Leased::ipv6)).map(row).collect()
    }
}

/// How a lease stands at this moment.
#[derive(Debug, Serialize)]
pub struct Leased {
    /// The address that is leased, or that was.
    address: HostAddress,
    server: IpAddr,
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
        let lease = &record.lease;
        Leased::standing(lease.address, lease.server.into(), &record.problem, record.standing())
    }

    pub fn ipv6(record: &Ipv6Lease) -> Leased {
        let lease = &record.lease;
        Leased::standing(lease.address, lease.from.into(), &record.problem, record.standing())
    }

    fn standing(address: HostAddress, server: IpAddr, problem: &Option<String>, standing: Standing<'_>) -> Leased {
        let (now, boot) = (boot_time(), namespace::boot());
        let (left, state) = (standing.left(now, &boot), standing.word(now, &boot));
        let is_over = ["lost", "released"].contains(&state);
        let seconds_left = left.filter(|_| !is_over).map(|left| left.as_secs());
        Leased { address, server, seconds_left, state, problem: problem.clone() }
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
