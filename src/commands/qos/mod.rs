//! `plumb qos`: limits what a container sends and receives, on whatever interface.

mod clear;
mod report;
mod show;

use super::{Context, changing::Recorded, namespace, require_capabilities};
use crate::{
    apply::{Transaction, all_or_nothing, undo},
    cli::{DirectionName, Qos, QosVerb},
    container::{self, Target},
    error::{Error, Kind, Result},
    kernel::{Kernel, Netns},
    plan::{
        Ifb, Inside, Link, Step,
        facts::InsideLink,
        link::GROUP,
        shaping::{self, Displaced, Impairment, Limits, Queues, RateLimit, Shape, Shaping, Tick, ifb_name},
    },
    store::{Attachment, Change, Progress, Record, Shaped, shaped},
    types::{IfName, TargetName},
};
use report::Report;

pub fn run(options: Qos, context: &Context) -> Result<()> {
    match options.verb {
        Some(QosVerb::Show(options)) => show::run(options, context),
        Some(QosVerb::Clear(options)) => clear::run(options, context),
        None => set(options, context),
    }
}

fn set(options: Qos, context: &Context) -> Result<()> {
    let shape = shape(&options)?;
    let Some(target) = &options.target else { return Err(Error::usage("which container? TARGET is missing")) };
    if *target == TargetName::Host {
        return Err(Error::usage("host: is this host itself; plumb limits containers")
            .hint("name a container, pid:N or netns:NAME"));
    }
    require_capabilities()?;
    let target = {
        let _waiting = options.wait.map(|_| context.output.waiting(format!("waiting for {target}")));
        container::find_or_wait(target, &context.engines, options.wait)?
    };
    let host = Netns::of_this_thread()?;
    let namespace = namespace::open(&target, &host)?;
    namespace.lock()?;
    let report = namespace.enter(|kernel| {
        let mut work = Work { context, target: &target, host: &host, namespace: &namespace, kernel };
        let planned = work.plan(&options, &shape)?;
        if !options.dry_run {
            work.make(&planned)?;
        }
        Ok(Report::new(&target, &planned, &options, &namespace))
    })?;
    report.say(context);
    Ok(())
}

/// What the options mean for one direction.
fn shape(options: &Qos) -> Result<Shape> {
    let (limit, bad) = (&options.limit, &options.impairment);
    let limit =
        limit.rate.map(|rate| RateLimit { rate, burst: limit.burst, latency: limit.latency, peak: limit.peak_rate });
    let wanted = Impairment {
        delay: bad.delay.filter(|span| !span.is_zero()),
        jitter: bad.jitter.filter(|span| !span.is_zero()),
        loss: bad.loss,
        duplicate: bad.duplicate,
        corrupt: bad.corrupt,
        reorder: bad.reorder,
    };
    let impairment = (wanted != Impairment::default()).then_some(wanted);
    if limit.is_none() && impairment.is_none() {
        return Err(Error::usage("which limit? neither a rate nor a bad network is given")
            .hint("--rate 10mbit, or --delay 50ms; plumb qos show lists what is set, plumb qos clear takes it away"));
    }
    Ok(Shape { limit, impairment })
}

fn add(limits: &mut Limits, direction: DirectionName, shape: &Shape) {
    if direction != DirectionName::Ingress {
        limits.egress = Some(shape.clone());
    }
    if direction != DirectionName::Egress {
        limits.ingress = Some(shape.clone());
    }
}

/// Limits being set, on a thread inside the target's namespace, which is locked.
struct Work<'a> {
    context: &'a Context,
    target: &'a Target,
    host: &'a Netns,
    namespace: &'a Netns,
    kernel: &'a mut Kernel,
}

/// What shall hold for one interface, and how it comes about.
struct Planned {
    shaped: Shaped,
    shaping: Shaping,
    /// The record of what held before.
    before: Option<Shaped>,
}

impl Work<'_> {
    fn plan(&mut self, options: &Qos, shape: &Shape) -> Result<Vec<Planned>> {
        let links = self.kernel.links()?;
        let name = self.target.name.to_string();
        let interface = options.interface.as_ref().map(|name| self.name_now(name, &links)).transpose()?;
        let chosen = shaping::chosen(&name, interface.as_ref(), &links)?;
        let tick = self.kernel.tick()?;
        let mut planned: Vec<Planned> = Vec::new();
        for link in chosen {
            let mut queues = self.kernel.queues(&name, link, &links, self.host)?;
            // Each that may be born for one of them has an index of its own.
            queues.free_index += u32::try_from(planned.len()).unwrap_or(0);
            planned.push(self.plan_one(&queues, tick, options.force, |limits| add(limits, options.direction, shape))?);
        }
        Ok(planned)
    }

    /// What the interface is called by now, if it was renamed since it was attached.
    fn name_now(&self, name: &IfName, links: &[InsideLink]) -> Result<IfName> {
        if links.iter().any(|link| link.name == name.as_str()) {
            return Ok(name.clone());
        }
        let recorded = Recorded::of(self.target, self.namespace, self.kernel, self.context)?;
        let renamed = recorded.here.iter().find(|record| record.interface() == name.as_str());
        renamed.map_or_else(|| Ok(name.clone()), |record| record.name_now().parse().map_err(Error::failed))
    }

    /// Plans what is on record for the interface, with this `change`.
    fn plan_one(
        &mut self,
        queues: &Queues,
        tick: Tick,
        force: bool,
        change: impl FnOnce(&mut Limits),
    ) -> Result<Planned> {
        let link = &queues.link;
        let store = &*self.context.store;
        let (before, left) = shaped::of(store, &self.target.name, &link.name)?;
        let is_here = |record: &&Shaped| namespace::is_same(*record, self.namespace, self.kernel);
        let displaced = [&before, &left].into_iter().flatten().find(is_here).map(|record| record.displaced.clone());
        let mut limits = before.as_ref().map_or_else(Limits::default, |record| record.limits.clone());
        change(&mut limits);
        let shaping = shaping::plan(&limits, queues, &displaced.unwrap_or_default(), tick, force)?;
        let shaped = Shaped {
            format: shaped::FORMAT,
            progress: Progress::Unfinished,
            host: store.host().map(str::to_owned),
            target: self.target.name.clone(),
            container: self.target.id.clone(),
            interface: queues.port.device.name.clone(),
            index: link.index,
            place: self.target.place.clone(),
            namespace: namespace::mark(self.namespace, self.kernel),
            limits,
            displaced: shaping.displaced.clone(),
        };
        Ok(Planned { shaped, shaping, before })
    }

    /// Record first, act second, confirm last, for all interfaces as one.
    fn make(&mut self, planned: &[Planned]) -> Result<()> {
        let (context, target) = (self.context, self.target);
        let store = &*context.store;
        let path = self.namespace.path().display().to_string();
        planned.iter().flat_map(|one| &one.shaping.explained).for_each(|text| context.output.explain(text));
        let changes = |change: fn(&Shaped) -> Result<Change>| -> Result<()> {
            let changes: Vec<Change> = planned.iter().map(|one| change(&one.shaped)).collect::<Result<_>>()?;
            store.commit(&changes).map(drop)
        };
        changes(Shaped::beginning)?;
        let mut observe = |step: &Step, took| context.output.step(&step.command(&path), took);
        let made = all_or_nothing(self.kernel, &mut observe, &path, |tx| {
            tx.run_all(planned.iter().flat_map(|one| &one.shaping.steps))?;
            target.still_runs()?;
            changes(Shaped::confirmation)
        });
        match made {
            Ok(()) => {
                let done = |one: &Planned| Shaped { progress: Progress::Done, ..one.shaped.clone() }.key();
                planned.first().map_or(Ok(()), |one| store.flush(&done(one)))
            }
            // What was left behind must stay on record, or gc could not find it.
            Err(error) if error.kind == Kind::LeftBehind => Err(error),
            Err(error) => {
                let _ = changes(|shaped| Ok(shaped.withdrawal()));
                Err(error)
            }
        }
    }
}

/// Sets anew what is on record for an interface whose target runs again in another namespace, if it has
/// one of that name there. Says whether that was so.
pub fn restore(record: &Shaped, dry_run: bool, context: &Context) -> Result<bool> {
    // Another process may have the number by now.
    let runs_on = namespace::is_of_this_boot(record) && container::is_there(&record.place);
    if runs_on || matches!(record.target, TargetName::Pid(_)) {
        return Ok(false);
    }
    let target = match container::find(&record.target, &context.engines, None) {
        Err(error) if error.kind == Kind::NotFound => return Ok(false),
        found => found?,
    };
    let host = Netns::of_this_thread()?;
    let namespace = namespace::open(&target, &host)?;
    namespace.lock()?;
    namespace.enter(|kernel| {
        let links = kernel.links()?;
        let Some(link) = links.iter().find(|link| link.name == record.interface.as_str()) else { return Ok(false) };
        let queues = kernel.queues(&target.name.to_string(), link, &links, &host)?;
        let tick = kernel.tick()?;
        let mut work = Work { context, target: &target, host: &host, namespace: &namespace, kernel };
        let planned = work.plan_one(&queues, tick, false, |_| {})?;
        if !dry_run {
            work.make(&[planned])?;
        }
        Ok(true)
    })
}

/// Puts the limits back that are on record for an interface which has just been attached again, in a
/// namespace that is new.
pub fn put_back(
    tx: &mut Transaction<'_, Kernel>,
    context: &Context,
    attachment: &Attachment,
    host: &Netns,
) -> Result<()> {
    let store = &*context.store;
    let (Some(record), _) = shaped::of(store, &attachment.target, attachment.interface())? else { return Ok(()) };
    let Some(link) = attachment.link() else { return Ok(()) };
    let links = tx.executor.links()?;
    let Some(there) = links.iter().find(|there| there.index == link.index) else { return Ok(()) };
    let queues = tx.executor.queues(&attachment.target.to_string(), there, &links, host)?;
    let tick = tx.executor.tick()?;
    let shaping = shaping::plan(&record.limits, &queues, &Displaced::default(), tick, false)?;
    let record = Shaped {
        container: attachment.container.clone(),
        index: link.index,
        place: attachment.place.clone(),
        namespace: attachment.namespace.clone(),
        displaced: Displaced::default(),
        ..record
    };
    record.save(store)?;
    tx.run_all(&shaping.steps)
}

/// What a link that is being deleted would leave in its namespace of its limits: all else goes with it.
pub fn what_a_link_leaves(link: Option<&Link>, now: &Inside) -> Option<Step> {
    let name = ifb_name(link?.index);
    let is_its = |there: &&InsideLink| there.name == name && there.group == GROUP;
    let ifb = now.links.iter().find(is_its)?;
    Some(Step::DeleteIfb(Ifb { index: ifb.index, name: ifb.name.parse().ok()? }))
}

/// Makes an interface what it was before a run that was killed while it set `left`.
pub fn as_before(context: &Context, left: &Shaped, namespace: Option<&Netns>) -> Result<()> {
    let store = &*context.store;
    if let Some(namespace) = namespace {
        let before = left.before(store)?;
        let limits = before.as_ref().map_or_else(Limits::default, |before| before.limits.clone());
        let displaced = before.as_ref().map_or(&left.displaced, |before| &before.displaced);
        settle(context, left, &limits, displaced, namespace)?;
    }
    store.commit(&[left.withdrawal()]).map(drop)
}

/// Makes the interface that `record` is about have exactly these limits. The namespace is locked.
fn settle(context: &Context, record: &Shaped, limits: &Limits, displaced: &Displaced, there: &Netns) -> Result<()> {
    let host = Netns::of_this_thread()?;
    let path = there.path().display().to_string();
    there.enter(|kernel| {
        let steps = steps_to(record, limits, displaced, kernel, &host)?;
        undo(kernel, &steps, &mut |step, took| context.output.step(&step.command(&path), took), &path)
    })
}

/// The steps to these limits, and nothing else of plumb's, on the interface that `record` is about.
fn steps_to(
    record: &Shaped,
    limits: &Limits,
    displaced: &Displaced,
    kernel: &mut Kernel,
    host: &Netns,
) -> Result<Vec<Step>> {
    let links = kernel.links()?;
    let Some(link) = links.iter().find(|link| link.index == record.index) else {
        return Ok(Vec::new());
    };
    let queues = kernel.queues(&record.target.to_string(), link, &links, host)?;
    Ok(shaping::plan(limits, &queues, displaced, kernel.tick()?, false)?.steps)
}
