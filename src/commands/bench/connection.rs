//! What lies between two ends, made or found, ready to be measured.

use clap::ValueEnum;

use super::uplink;
use crate::{
    bench::{
        Way,
        layout::Layout,
        report::{Sample, Subject},
        rounds::Task,
    },
    cli::Bench,
    commands::Context,
    error::{Error, Result},
    kernel::throwaway::{Lacking, Standing},
    plan::Parent,
};

use super::measure::{Far, Turn};

/// Two ends and what connects them.
pub enum Connection {
    /// A way that stands all the time.
    Standing { layout: Layout, standing: Standing },
    /// One that hangs on an interface of the host's, where another kind would be in its way: made for each
    /// turn.
    InTurns { layout: Layout, uplink: Parent },
}

/// The connections that were asked for, and as what they are reported; those that this kernel lacks are
/// reported only.
pub fn make(options: &Bench, _context: &Context) -> Result<(Vec<Subject>, Vec<Connection>)> {
    let uplink = uplink(options)?;
    let asked_for = !options.what.ways.is_empty();
    let ways = if asked_for { &options.what.ways[..] } else { Way::value_variants() };
    let mtu = options.what.mtu.map(|mtu| mtu.bytes()).or(uplink.as_ref().map(|uplink| uplink.mtu)).unwrap_or(1500);
    let (mut subjects, mut connections) = (Vec::new(), Vec::new());
    for (at, way) in ways.iter().enumerate() {
        if ways[..at].contains(way) {
            continue;
        }
        let mut subject = Subject { way: way.typed(), title: way.title().into(), lacking: None };
        match Connection::of_way(*way, mtu, uplink.as_ref())? {
            Ok(connection) => connections.push(connection),
            Err(Lacking(reason)) if asked_for => {
                return Err(Error::failed(format!("{}: {reason}", way.title()))
                    .hint("leave it out of --ways; plumb bench alone measures what there is"));
            }
            Err(Lacking(reason)) => subject.lacking = Some(reason),
        }
        subjects.push(subject);
    }
    Ok((subjects, connections))
}

impl Connection {
    fn of_way(way: Way, mtu: u32, uplink: Option<&Parent>) -> Result<std::result::Result<Connection, Lacking>> {
        let layout = way.layout(mtu);
        let standing = match Standing::make(&layout, uplink)? {
            Ok(standing) => standing,
            Err(lacking) => return Ok(Err(lacking)),
        };
        Ok(Ok(match uplink.filter(|_| layout.has_uplink) {
            Some(uplink) => {
                standing.take_down()?;
                Connection::InTurns { layout, uplink: uplink.clone() }
            }
            None => Connection::Standing { layout, standing },
        }))
    }

    pub fn mtu(&self) -> u32 {
        match self {
            Connection::Standing { layout, .. } | Connection::InTurns { layout, .. } => layout.mtu,
        }
    }

    /// One turn.
    pub fn measure(&mut self, task: Task, duration: std::time::Duration) -> Result<Sample> {
        match self {
            Connection::Standing { layout, standing } => {
                standing_ends(standing, layout).and_then(|turn| turn.measure(task, duration))
            }
            Connection::InTurns { layout, uplink } => {
                let standing =
                    Standing::make(layout, Some(uplink))?.map_err(|Lacking(reason)| Error::failed(reason))?;
                let sample = standing_ends(&standing, layout).and_then(|turn| turn.measure(task, duration));
                standing.take_down()?;
                sample
            }
        }
    }
}

fn standing_ends<'a>(standing: &'a Standing, layout: &Layout) -> Result<Turn<'a>> {
    let none = || Error::failed("a way without ends: this is a bug");
    let (near, far) = (standing.client().ok_or_else(none)?, standing.server().ok_or_else(none)?);
    Ok(Turn { near, far: Far::Here(far), to: layout.to, mtu: layout.mtu })
}
