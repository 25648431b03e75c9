//! `plumb bench`: which way of connecting containers is fastest here.

mod between;
mod connection;
mod files;
mod machine;
mod measure;
mod remote;
mod say;
mod tool;

use std::time::Duration;

use super::{Context, attaching, require_capabilities};
use crate::{
    bench::{
        Tool, Way,
        report::{Circumstances, Gathered, Report, Subject, not_ranked, nothing_arrived},
        rounds::{self, SHORTEST, Task},
    },
    cli::Bench,
    error::{Error, Kind, Result},
    kernel::Kernel,
    plan::Parent,
};
use connection::Connection;

pub fn run(options: Bench, context: &Context) -> Result<()> {
    if let Some(target) = &options.server {
        require_capabilities()?;
        return remote::serve(target, options.port, context);
    }
    let plan = Plan::new(&options)?;
    require_capabilities()?;
    tool::require(plan.tool)?;
    let files = say::Files::new(&options.into)?;
    let (subjects, mut connections) = connection::make(&options, context)?;
    let (report, outcome) = plan.measure(subjects, &mut connections, context);
    say::report(&report, &options.into, files, context)?;
    outcome.map_err(|error| if context.output.json { Error { said: true, ..error } } else { error })
}

/// What is measured, and how long.
struct Plan {
    tasks: Vec<Task>,
    rounds: u32,
    /// As it was asked for.
    duration: Option<Duration>,
    tool: Tool,
}

impl Plan {
    fn new(options: &Bench) -> Result<Plan> {
        let duration = options.how.duration.map(|span| span.duration());
        if let Some(short) = duration.filter(|duration| *duration < SHORTEST) {
            return Err(Error::usage(format!("{short:?} is too short to measure anything"))
                .hint(format!("--duration {SHORTEST:?} is the least")));
        }
        let tool = options.how.tool;
        let there = tool::tests(tool);
        if let Some(test) = options.what.tests.iter().find(|test| !there.contains(test)) {
            let names: Vec<&str> = there.iter().map(|test| test.name()).collect();
            return Err(Error::usage(format!("{} has no {test}", tool.name()))
                .hint(format!("it has {}; netperf and plumb itself have all", names.join(" and "))));
        }
        let tests = if options.what.tests.is_empty() { there } else { &options.what.tests };
        let streams = Some(&options.what.streams[..]).filter(|streams| !streams.is_empty());
        Ok(Plan { tasks: rounds::tasks(tests, streams), rounds: options.how.rounds, duration, tool })
    }

    /// All turns, or as many as there were until something ended them. What there is by then is reported.
    fn measure(&self, ways: Vec<Subject>, connections: &mut [Connection], context: &Context) -> (Report, Result<()>) {
        let turns = rounds::turns(self.rounds, &self.tasks, connections.len());
        let duration = self.duration.unwrap_or_else(|| rounds::duration(turns.len()));
        let measured: Vec<&Subject> = ways.iter().filter(|way| way.lacking.is_none()).collect();
        let mut gathered = Gathered::new(&self.tasks, measured.len());
        let progress = context.output.progress(turns.len() as u64);
        let mut outcome = Ok(());
        for turn in &turns {
            let way = measured[turn.way];
            progress.next(format!("round {} of {}: {}, {}", turn.round + 1, self.rounds, turn.task, way.title));
            match connections[turn.way].measure(turn.task, duration, self.tool) {
                Ok(sample) => gathered.add(turn.task, turn.way, sample),
                Err(error) => {
                    let message = format!("{}, {}: {}", way.title, turn.task, error.message);
                    let interrupted = error.kind == Kind::Interrupted;
                    outcome = Err(if interrupted { error } else { Error { message, ..error } });
                    break;
                }
            }
        }
        drop(progress);
        let baseline = baseline(&measured);
        let figures = gathered.figures(&measured, baseline);
        let report = Report {
            circumstances: Circumstances {
                tool: self.tool.name(),
                rounds: self.rounds,
                seconds_each: duration.as_secs_f64(),
                mtu: connections.first().map_or(0, |connection| connection.mtu()),
                ..machine::circumstances()
            },
            warnings: nothing_arrived(&figures).into_iter().chain(not_ranked(&figures)).collect(),
            figures,
            interrupted: outcome.as_ref().is_err_and(|error| error.kind == Kind::Interrupted),
            error: outcome.as_ref().err().cloned(),
            ways,
        };
        (report, outcome)
    }
}

/// What the others are held against: Docker's way, or the first one.
fn baseline(measured: &[&Subject]) -> Option<usize> {
    let bridge = measured.iter().position(|way| way.way == Way::Bridge.typed());
    bridge.or(Some(0)).filter(|_| measured.len() > 1)
}

/// The host's interface that was asked for.
fn uplink(options: &Bench) -> Result<Option<Parent>> {
    let Some(name) = &options.what.parent else { return Ok(None) };
    let parent = attaching::parent(&mut Kernel::with_host()?, name)?;
    if parent.loopback || !parent.ethernet {
        return Err(Error::failed(format!("{name} is not an Ethernet interface, so it cannot carry a macvlan"))
            .hint("choose the interface that leads to the LAN"));
    }
    if let Some(mtu) = options.what.mtu.filter(|mtu| mtu.bytes() > parent.mtu) {
        return Err(Error::failed(format!("MTU {mtu} is above that of {name}, {}", parent.mtu))
            .hint(format!("ip link set {name} mtu {mtu} raises it")));
    }
    if !parent.up {
        return Err(Error::failed(format!("{name} is down")).hint(format!("ip link set {name} up")));
    }
    Ok(Some(parent))
}
