//! What lies between two ends, made or found, ready to be measured.

use std::{io::ErrorKind, time::Duration};

use clap::ValueEnum;

use super::uplink;
use crate::{
    bench::{
        Tool, Way,
        layout::Layout,
        report::{Sample, Subject},
        rounds::Task,
    },
    cli::Bench,
    commands::Context,
    error::{Error, Result},
    kernel::{
        Reach,
        throwaway::{Lacking, Standing},
    },
    plan::Parent,
};

use super::{
    between::{End, Path},
    measure::{Far, Turn},
    remote::Session,
};

/// Two ends and what connects them.
pub enum Connection {
    /// A way that stands all the time.
    Standing { layout: Layout, standing: Standing },
    /// One that hangs on an interface of the host's, where another kind would be in its way: made for each
    /// turn.
    InTurns { layout: Layout, uplink: Parent, tuned: Option<u32> },
    /// Two targets of this host.
    Between { client: Box<End>, server: Box<End>, path: Path },
    /// A target of this host, and one of another.
    Remote { client: Box<End>, path: Path, session: Session },
}

/// The connections that were asked for, and as what they are reported.
pub fn make(options: &Bench, context: &Context) -> Result<(Vec<Subject>, Vec<Connection>)> {
    match (&options.targets[..], options.to) {
        ([], _) => ways(options),
        ([client, server], None) => {
            let (client, server) = (Box::new(End::open(client, context)?), Box::new(End::open(server, context)?));
            let path = client.path_to(&server)?;
            let subject = found(&client, server.target.name.to_string(), &path);
            Ok((vec![subject], vec![Connection::Between { client, server, path }]))
        }
        ([client], Some(to)) => {
            let client = Box::new(End::open(client, context)?);
            let path = match client.path(to, options.port) {
                Ok(path) => path,
                Err(error) if error.kind() == ErrorKind::TimedOut => return Err(client.which_hop_fails(to, &to)),
                Err(error) => return Err(Error::of_connection(&error, to, options.port)),
            };
            let session = Session::open(&client.namespace, to, options.port)?;
            let subject = found(&client, to.to_string(), &path);
            Ok((vec![subject], vec![Connection::Remote { client, path, session }]))
        }
        ([client], None) => Err(Error::usage(format!("{client} alone: to where?"))
            .hint(format!("plumb bench {client} OTHER, or plumb bench {client} --to ADDR"))),
        _ => Err(Error::usage("--to is for one target, which sends").hint("leave the second target out")),
    }
}

/// "web to db (eth1 to 192.168.0.57)"
fn found(client: &End, server: String, path: &Path) -> Subject {
    let way = format!("{} to {server}", client.target.name);
    let title = format!("{way} ({} to {})", path.device, path.to);
    Subject { title: if server == path.to.to_string() { way.clone() } else { title }, way, lacking: None }
}

/// The ways that were asked for; those that this kernel lacks are reported only.
fn ways(options: &Bench) -> Result<(Vec<Subject>, Vec<Connection>)> {
    let uplink = uplink(options)?;
    let asked_for = !options.what.ways.is_empty();
    let ways = if asked_for { &options.what.ways[..] } else { Way::value_variants() };
    let mtu = options.what.mtu.map(|mtu| mtu.bytes()).or(uplink.as_ref().map(|uplink| uplink.mtu)).unwrap_or(1500);
    let (mut subjects, mut connections) = (Vec::new(), Vec::new());
    for (at, way) in ways.iter().enumerate() {
        if ways[..at].contains(way) {
            continue;
        }
        for tuned in [None].into_iter().chain(options.what.tune.map(Some)) {
            let (name, behind) = if tuned.is_some() { ("+big-tcp", ", BIG TCP") } else { ("", "") };
            let mut subject =
                Subject { way: way.typed() + name, title: format!("{}{behind}", way.title()), lacking: None };
            match Connection::of_way(*way, mtu, uplink.as_ref(), tuned)? {
                Ok(connection) => connections.push(connection),
                Err(Lacking(reason)) if asked_for => {
                    return Err(Error::failed(format!("{}: {reason}", way.title()))
                        .hint("leave it out of --ways; plumb bench alone measures what there is"));
                }
                Err(Lacking(reason)) => subject.lacking = Some(reason),
            }
            subjects.push(subject);
        }
    }
    Ok((subjects, connections))
}

impl Connection {
    fn of_way(
        way: Way,
        mtu: u32,
        uplink: Option<&Parent>,
        tuned: Option<u32>,
    ) -> Result<std::result::Result<Connection, Lacking>> {
        let layout = way.layout(mtu);
        let standing = match stand(&layout, uplink, tuned)? {
            Ok(standing) => standing,
            Err(lacking) => return Ok(Err(lacking)),
        };
        Ok(Ok(match uplink.filter(|_| layout.has_uplink) {
            Some(uplink) => {
                standing.take_down()?;
                Connection::InTurns { layout, uplink: uplink.clone(), tuned }
            }
            None => Connection::Standing { layout, standing },
        }))
    }

    pub fn mtu(&self) -> u32 {
        match self {
            Connection::Standing { layout, .. } | Connection::InTurns { layout, .. } => layout.mtu,
            Connection::Between { path, .. } | Connection::Remote { path, .. } => path.mtu,
        }
    }

    /// One turn.
    pub fn measure(&mut self, task: Task, duration: Duration, tool: Tool) -> Result<Sample> {
        match self {
            Connection::Standing { layout, standing } => {
                standing_ends(standing, layout).and_then(|turn| turn.measure(task, duration, tool))
            }
            Connection::InTurns { layout, uplink, tuned } => {
                let standing = stand(layout, Some(uplink), *tuned)?.map_err(|Lacking(reason)| Error::failed(reason))?;
                let sample = standing_ends(&standing, layout).and_then(|turn| turn.measure(task, duration, tool));
                standing.take_down()?;
                sample
            }
            Connection::Between { client, server, path } => {
                let far = Far::Here(&server.namespace);
                Turn { near: &client.namespace, far, to: path.to, mtu: path.mtu }.measure(task, duration, tool)
            }
            Connection::Remote { client, path, session } => {
                let far = Far::Elsewhere(session);
                Turn { near: &client.namespace, far, to: path.to, mtu: path.mtu }.measure(task, duration, tool)
            }
        }
    }
}

fn stand(
    layout: &Layout,
    uplink: Option<&Parent>,
    tuned: Option<u32>,
) -> Result<std::result::Result<Standing, Lacking>> {
    let mut standing = match Standing::make(layout, uplink)? {
        Ok(standing) => standing,
        lacking => return Ok(lacking),
    };
    if let Some(Err(lacking)) = tuned.map(|size| standing.tune(size)).transpose()? {
        return Ok(Err(lacking));
    }
    // The kernel sets devices up by and by, and drops until then: the first packets are not to count.
    let to = layout.to;
    let client = standing.client().ok_or_else(no_end)?;
    match client.look_inside(|kernel| kernel.ping(to, None, SETTLING))? {
        Reach::Silent => Err(Error::timed_out(format!("{to} does not answer, which was made a moment ago"))
            .hint("run it again; --ways leaves a way out")),
        Reach::Answered(_) | Reach::OnLinkOnly => Ok(Ok(standing)),
    }
}

/// How long it may take until the first packet passes.
const SETTLING: Duration = Duration::from_secs(5);

fn no_end() -> Error {
    Error::failed("a way without ends: this is a bug")
}

fn standing_ends<'a>(standing: &'a Standing, layout: &Layout) -> Result<Turn<'a>> {
    let (near, far) = (standing.client().ok_or_else(no_end)?, standing.server().ok_or_else(no_end)?);
    Ok(Turn { near, far: Far::Here(far), to: layout.to, mtu: layout.mtu })
}
