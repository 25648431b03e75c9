//! Limits on an interface: what was wished for, the numbers that follow from it, and the steps that
//! make it so, from nothing, from another limit, or back to nothing.

mod sizing;

use serde::{Deserialize, Serialize};

pub use sizing::Tick;

use super::{
    Step,
    facts::InsideLink,
    qdisc::{Device, Discipline, INGRESS, Ifb, NETEM, Qdisc, Redirect, Slot, TBF, TBF_BELOW_NETEM},
};
use crate::{
    error::{Error, Result},
    types::{IfName, Percent, Rate, Size, Span},
};

/// What shall hold for an interface, as seen from the container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// For what the container sends.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub egress: Option<Shape>,
    /// For what it receives.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub ingress: Option<Shape>,
}

/// What shall hold in one direction: at least one of the two.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shape {
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub limit: Option<RateLimit>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub impairment: Option<Impairment>,
}

/// A rate, and what follows from it unless it is given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RateLimit {
    pub rate: Rate,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub burst: Option<Size>,
    /// The longest that a packet waits.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub latency: Option<Span>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub peak: Option<Rate>,
}

/// What a bad network does to packets.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Impairment {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delay: Option<Span>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jitter: Option<Span>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub loss: Option<Percent>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duplicate: Option<Percent>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub corrupt: Option<Percent>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reorder: Option<Percent>,
}

impl Limits {
    pub fn is_nothing(&self) -> bool {
        self.egress.is_none() && self.ingress.is_none()
    }
}

/// What there is of queues on an interface of the target and around it.
#[derive(Debug, Clone)]
pub struct Queues {
    /// The target, as messages name it.
    pub target: String,
    pub link: InsideLink,
    pub port: Port,
    /// The host's end of a veth, if its other end is on the host.
    pub host_end: Option<Port>,
    /// What plumb's filter sends through, if it is there.
    pub ifb: Option<Port>,
    pub ingress: Ingress,
    /// An index that no interface of the namespace has.
    pub free_index: u32,
}

/// An interface with a queue for what leaves by it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    pub device: Device,
    pub mtu: u32,
    /// Those that somebody has put there: the kernel's own have no handle.
    pub qdiscs: Vec<Qdisc>,
}

/// Where packets come in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ingress {
    /// The qdisc that filters hang on.
    pub qdisc: Option<Qdisc>,
    /// plumb's filter is there.
    pub redirected: bool,
    /// Somebody else's filters are.
    pub others: bool,
}

/// Qdiscs of others that `--force` took away, to be given back.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Displaced {
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub egress: Option<Qdisc>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub ingress: Option<Qdisc>,
}

/// How the wish comes about.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Shaping {
    pub steps: Vec<Step>,
    pub displaced: Displaced,
    /// How the numbers that nobody gave were found.
    pub explained: Vec<String>,
    pub warnings: Vec<String>,
}

/// The steps from what there is to `wanted`. What others have put there is replaced only with `force`.
pub fn plan(wanted: &Limits, queues: &Queues, displaced: &Displaced, tick: Tick, force: bool) -> Result<Shaping> {
    let mut work =
        Work { queues, tick, force, shaping: Shaping { displaced: displaced.clone(), ..Shaping::default() } };
    let mut place = work.shaping.displaced.egress.take();
    work.settle(&queues.port, wanted.egress.as_ref(), &mut place)?;
    work.shaping.displaced.egress = place;
    let mut place = work.shaping.displaced.ingress.take();
    match &queues.host_end {
        // What the host's end sends is what the container receives.
        Some(port) => work.settle(port, wanted.ingress.as_ref(), &mut place)?,
        None => work.settle_ifb(wanted.ingress.as_ref())?,
    }
    work.shaping.displaced.ingress = place;
    Ok(work.shaping)
}

struct Work<'a> {
    queues: &'a Queues,
    tick: Tick,
    force: bool,
    shaping: Shaping,
}

impl Work<'_> {
    /// Puts what `wanted` says at the root of `port`, in the place of what is there.
    fn settle(&mut self, port: &Port, wanted: Option<&Shape>, displaced: &mut Option<Qdisc>) -> Result<()> {
        let stack = wanted.map(|shape| self.stack(shape, port)).transpose()?.unwrap_or_default();
        let (root, below) = (port.root(), port.below());
        let mut wanted = stack.into_iter();
        let (new_root, new_below) = (wanted.next(), wanted.next());
        let stays = matches!((root, &new_root), (Some(old), Some(new)) if old.handle == new.handle);
        // What stands below goes with what it stands on, and would not be given back with it.
        if let Some(below) = below.filter(|_| !stays || new_below.is_none()) {
            self.shaping.steps.push(Step::DeleteQdisc(below.clone()));
        }
        match (root, new_root) {
            (None, None) => {}
            (None, Some(new)) => self.shaping.steps.push(Step::AddQdisc(new)),
            (Some(theirs), Some(new)) if !theirs.is_ours() => {
                self.respect(theirs)?;
                *displaced = Some(theirs.clone());
                self.shaping.steps.push(Step::ReplaceQdisc { old: theirs.clone(), new });
            }
            (Some(theirs), None) if !theirs.is_ours() => {}
            (Some(old), Some(new)) => self.shaping.steps.push(Step::ReplaceQdisc { old: old.clone(), new }),
            (Some(old), None) => self.shaping.steps.push(match displaced.take() {
                Some(theirs) => Step::ReplaceQdisc { old: old.clone(), new: theirs },
                None => Step::DeleteQdisc(old.clone()),
            }),
        }
        match (below.filter(|_| stays), new_below) {
            (Some(old), Some(new)) => self.shaping.steps.push(Step::ReplaceQdisc { old: old.clone(), new }),
            (None, Some(new)) => self.shaping.steps.push(Step::AddQdisc(new)),
            (_, None) => {}
        }
        Ok(())
    }

    /// What comes in has no queue of its own: it is sent through an interface that has one. The limit is
    /// there before the first packet is, and until the last.
    fn settle_ifb(&mut self, wanted: Option<&Shape>) -> Result<()> {
        let Queues { link, port: Port { device: on, .. }, ifb: found, .. } = self.queues;
        let Ingress { qdisc, redirected, others } = &self.queues.ingress;
        let port = found.clone().map_or_else(|| self.new_ifb(), Ok)?;
        let ifb = Ifb { index: port.device.index, name: port.device.name.clone() };
        let redirect = Redirect { from: on.clone(), to: ifb.clone() };
        // Somebody may have deleted what plumb's filter leads to.
        if *redirected && (wanted.is_none() || found.is_none()) {
            self.shaping.steps.push(Step::DeleteRedirect(redirect.clone()));
        }
        let Some(shape) = wanted else {
            let was_ours = *redirected || found.is_some();
            let empty = qdisc.iter().filter(|qdisc| was_ours && !others && qdisc.discipline.kind() == "ingress");
            self.shaping.steps.extend(empty.cloned().map(Step::DeleteQdisc));
            if found.is_some() {
                self.settle(&port, None, &mut None)?;
                self.shaping.steps.push(Step::DeleteIfb(ifb));
            }
            return Ok(());
        };
        let is_foreign = |qdisc: &&Qdisc| !redirected && (*others || qdisc.discipline.kind() != "ingress");
        qdisc.as_ref().filter(is_foreign).map_or(Ok(()), |qdisc| self.respect(qdisc))?;
        if found.is_none() {
            self.shaping.steps.push(Step::AddIfb(ifb));
        }
        self.settle(&Port { mtu: link.mtu, ..port }, Some(shape), &mut None)?;
        if qdisc.is_none() {
            let (slot, handle, discipline) = (Slot::Ingress, INGRESS, Discipline::Ingress);
            self.shaping.steps.push(Step::AddQdisc(Qdisc { on: on.clone(), slot, handle, discipline }));
        }
        if !redirected || found.is_none() {
            self.shaping.steps.push(Step::AddRedirect(redirect));
        }
        Ok(())
    }

    fn new_ifb(&self) -> Result<Port> {
        let name = ifb_name(self.queues.link.index).parse().map_err(Error::failed)?;
        let device = Device { side: self.queues.port.device.side, index: self.queues.free_index, name };
        Ok(Port { device, mtu: self.queues.link.mtu, qdiscs: Vec::new() })
    }

    /// An error for what somebody else has put there, unless it was said that it may go.
    fn respect(&mut self, theirs: &Qdisc) -> Result<()> {
        let Queues { target, .. } = self.queues;
        let (name, kind, handle) = (&theirs.on.name, theirs.discipline.kind(), theirs.handle);
        let on_host = if theirs.on.side == super::qdisc::Side::Host { " on the host" } else { "" };
        let what = match theirs.slot {
            Slot::Ingress => format!("{name} has filters for what comes in ({kind} {handle:x}:)"),
            Slot::Root | Slot::Below(_) => format!("{name}{on_host} has a root qdisc already, {kind} {handle:x}:"),
        };
        if !self.force {
            return Err(Error::conflict(format!("{target}: {what}, which plumb did not make")).hint(
                match theirs.slot {
                    Slot::Ingress => "--force puts plumb's filter behind them".to_owned(),
                    _ => "--force replaces it, until plumb qos clear gives it back".to_owned(),
                },
            ));
        }
        if theirs.may_have_classes() {
            self.shaping.warnings.push(format!(
                "{name}: the classes and filters of {kind} {handle:x}: are lost; plumb qos clear gives back {kind} without them"
            ));
        }
        Ok(())
    }

    /// The qdiscs of a shape, the root first. A bad network comes before the limit: its packets are on
    /// their way and do not wait, so they are not in the limit's queue.
    fn stack(&mut self, shape: &Shape, port: &Port) -> Result<Vec<Qdisc>> {
        let mut stack = Vec::new();
        let qdisc = |slot, handle, discipline| Qdisc { on: port.device.clone(), slot, handle, discipline };
        if let Some(impairment) = &shape.impairment {
            stack.push(qdisc(Slot::Root, NETEM, Discipline::Netem(sizing::netem(impairment)?)));
        }
        if let Some(limit) = &shape.limit {
            let (tbf, explained) = sizing::tbf(limit, port.mtu, self.tick)?;
            let name = &port.device.name;
            self.shaping.explained.extend(explained.into_iter().map(|text| format!("{name}: {text}")));
            let (slot, handle) =
                if stack.is_empty() { (Slot::Root, TBF) } else { (Slot::Below(NETEM), TBF_BELOW_NETEM) };
            stack.push(qdisc(slot, handle, Discipline::Tbf(tbf)));
        }
        Ok(stack)
    }
}

impl Port {
    /// What stands at its root, whosever it is.
    pub fn root(&self) -> Option<&Qdisc> {
        self.qdiscs.iter().find(|qdisc| qdisc.slot == Slot::Root)
    }

    /// What plumb has put below its own root.
    fn below(&self) -> Option<&Qdisc> {
        self.qdiscs.iter().find(|qdisc| qdisc.slot == Slot::Below(NETEM) && qdisc.is_ours())
    }
}

/// The name of the interface that what comes in on another is sent through: by that one's index, as
/// that stays when somebody gives it another name.
pub fn ifb_name(index: u32) -> String {
    format!("qos{index}")
}

/// The interface of this name, or all that carry traffic if none is named.
pub fn chosen<'a>(target: &str, named: Option<&IfName>, links: &'a [InsideLink]) -> Result<Vec<&'a InsideLink>> {
    let carries = |link: &&InsideLink| link.name != "lo" && link.kind.as_deref() != Some("ifb");
    let there: Vec<&InsideLink> = links.iter().filter(carries).collect();
    match named {
        Some(name) => match there.iter().find(|link| link.name == name.as_str()) {
            Some(link) => Ok(vec![link]),
            None if there.is_empty() => Err(none(target)),
            None => {
                let names: Vec<&str> = there.iter().map(|link| link.name.as_str()).collect();
                let names = names.join(", ");
                Err(Error::not_found(format!("{target} has no interface {name}")).hint(format!("it has {names}")))
            }
        },
        None => {
            let up: Vec<&InsideLink> = there.into_iter().filter(|link| link.up).collect();
            if up.is_empty() { Err(none(target)) } else { Ok(up) }
        }
    }
}

fn none(target: &str) -> Error {
    Error::not_found(format!("{target} has no interface that is up, but lo"))
        .hint("plumb flat, dhcp or attach gives it one")
}

#[cfg(test)]
mod tests;
