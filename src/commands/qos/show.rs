//! `plumb qos show`: the limits, with what the kernel has counted since they were set.

use comfy_table::{Table, presets};
use serde::Serialize;

use super::report::{InForce, words};
use crate::{
    cli::QosShow,
    commands::{Context, namespace},
    container,
    error::Result,
    kernel::{Counters, Kernel, Netns},
    output::flush_left,
    plan::shaping::{Port, Shape},
    store::{Placed, Shaped, shaped},
    types::TargetName,
};

pub fn run(options: QosShow, context: &Context) -> Result<()> {
    let kept = match &options.target {
        Some(target) => of_target(target, context)?,
        None => shaped::all(&*context.store, None)?,
    };
    if let Some(target) = options.target.as_ref().filter(|_| kept.is_empty()) {
        // Nothing on record is an answer for a target that exists; one that does not is a slip.
        container::find(target, &context.engines, None)?;
    }
    let (mut rows, mut damaged) = (Vec::new(), Vec::new());
    for kept in kept {
        match kept {
            Ok(shaped) => rows.extend(of_interface(&shaped)?),
            Err(error) => damaged.push(error),
        }
    }
    match (&options.target, rows.is_empty() && damaged.is_empty()) {
        (_, false) if rows.is_empty() => {}
        (_, false) => context.output.line(table(&rows)),
        (Some(target), true) => context.output.line(format_args!("{target}: no limits are set")),
        (None, true) => context.output.line("no limits are set"),
    }
    context.output.conclude(serde_json::json!({ "limits": rows }), damaged)
}

/// The limits of a target by its name, by the beginning of its container's id, or by its namespace
/// under another name.
pub fn of_target(target: &TargetName, context: &Context) -> Result<Vec<Result<Shaped>>> {
    let store = &*context.store;
    let by_name = shaped::all(store, Some(target))?;
    if !by_name.is_empty() {
        return Ok(by_name);
    }
    let everything = shaped::all(store, None)?;
    if everything.is_empty() {
        return Ok(everything);
    }
    // That it cannot be found is no error: a container that is gone has no limits.
    let Ok(found) = container::find(target, &context.engines, None) else { return Ok(Vec::new()) };
    let inode = namespace::open(&found, &Netns::of_this_thread()?)?.id().0;
    let is_its = |record: &Shaped| {
        let is_here = record.namespace().inode == inode && namespace::reopen(record).is_some();
        is_here || record.container.is_some() && record.container == found.id
    };
    Ok(everything.into_iter().filter(|kept| kept.as_ref().is_ok_and(is_its)).collect())
}

#[derive(Serialize)]
struct Row {
    target: String,
    interface: String,
    direction: &'static str,
    /// What was asked for.
    #[serde(flatten)]
    shape: Shape,
    /// What the kernel has.
    in_force: InForce,
    #[serde(skip_serializing_if = "Option::is_none")]
    counters: Option<Counters>,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum State {
    /// The limit holds.
    Holds,
    /// Somebody has taken it away, or the interface.
    Missing,
    /// The target has ended, and its namespace with it.
    Stopped,
}

impl State {
    fn name(self) -> &'static str {
        match self {
            State::Holds => "holds",
            State::Missing => "missing",
            State::Stopped => "stopped",
        }
    }
}

fn of_interface(shaped: &Shaped) -> Result<Vec<Row>> {
    let Some(there) = namespace::reopen(shaped) else {
        return Ok(rows(shaped, State::Stopped, None, None));
    };
    let host = Netns::of_this_thread()?;
    there.enter(|kernel| {
        if !namespace::is_same(shaped, &there, kernel) {
            return Ok(rows(shaped, State::Stopped, None, None));
        }
        let links = kernel.links()?;
        let Some(link) = links.iter().find(|link| link.index == shaped.index) else {
            return Ok(rows(shaped, State::Missing, None, None));
        };
        let queues = kernel.queues(&shaped.target.to_string(), link, &links, &host)?;
        let redirected = queues.ifb.filter(|_| queues.ingress.redirected);
        let incoming = queues.host_end.or(redirected);
        let (egress, ingress) = (found(&queues.port, kernel)?, incoming.map(|port| found(&port, kernel)).transpose()?);
        Ok(rows(shaped, State::Missing, egress, ingress.flatten()))
    })
}

/// What plumb's own qdiscs on a port are set to, and what they have counted.
fn found(port: &Port, kernel: &mut Kernel) -> Result<Option<(InForce, Counters)>> {
    let Some(root) = port.root().filter(|root| root.is_ours()) else { return Ok(None) };
    let in_force = InForce::of(port.qdiscs.iter().map(|qdisc| &qdisc.discipline));
    let mut counters = kernel.counters(root)?.unwrap_or_default();
    // It is the bucket that makes packets wait, wherever it stands.
    for below in port.qdiscs.iter().filter(|qdisc| *qdisc != root) {
        counters.overlimits += kernel.counters(below)?.unwrap_or_default().overlimits;
    }
    Ok(Some((in_force, counters)))
}

fn rows(
    shaped: &Shaped,
    without: State,
    egress: Option<(InForce, Counters)>,
    ingress: Option<(InForce, Counters)>,
) -> Vec<Row> {
    let directions = [("egress", &shaped.limits.egress, egress), ("ingress", &shaped.limits.ingress, ingress)];
    let row = |(direction, shape, found): (&'static str, &Option<Shape>, Option<(InForce, Counters)>)| {
        let state = if found.is_some() { State::Holds } else { without };
        let (in_force, counters) = found.map_or((InForce::default(), None), |(set, counted)| (set, Some(counted)));
        let (target, interface) = (shaped.target.to_string(), shaped.interface.to_string());
        Some(Row { target, interface, direction, shape: shape.clone()?, in_force, counters, state })
    };
    directions.into_iter().filter_map(row).collect()
}

fn table(rows: &[Row]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header([
        "TARGET",
        "INTERFACE",
        "DIRECTION",
        "LIMIT",
        "BURST",
        "LATENCY",
        "SENT",
        "DROPPED",
        "OVERLIMITS",
        "BACKLOG",
        "STATE",
    ]);
    for row in rows {
        let text = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
        let count = |pick: &dyn Fn(&Counters) -> String| text(row.counters.as_ref().map(pick));
        table.add_row([
            row.target.clone(),
            row.interface.clone(),
            row.direction.to_owned(),
            words(&row.shape),
            text(row.in_force.burst_bytes.map(|bytes| format!("{bytes} B"))),
            text(row.in_force.latency_ms.map(|ms| format!("{ms:.0} ms"))),
            count(&|c| format!("{} B, {} packets", c.sent_bytes, c.sent_packets)),
            count(&|c| c.dropped.to_string()),
            count(&|c| c.overlimits.to_string()),
            count(&|c| format!("{} B", c.backlog_bytes)),
            row.state.name().to_owned(),
        ]);
    }
    flush_left(table)
}
