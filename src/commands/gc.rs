//! `plumb gc`: takes back what a killed run left, and forgets what no longer exists.

use std::{
    collections::{BTreeSet, HashSet},
    path::Path,
};

use serde::Serialize;

use super::{Context, keeper, namespace, qos, require_capabilities, shim, take_back};
use crate::{
    cli::Gc,
    container::{self, Engines},
    docker::{Engine, EngineKind},
    error::{Error, Kind, Result},
    kernel::{Netns, iptables, ovs, survey},
    namespace::HostLock,
    plan::{facts::InsideLink, link::GROUP},
    store::{Attachment, Change, Condition, Key, Placed, Record, attachment, lease, network, shaped},
    types::{IfName, Place, Tag, TargetName},
};

pub fn run(options: Gc, context: &Context) -> Result<()> {
    require_capabilities()?;
    let mut sweep = Sweep::new(context, options.dry_run);
    sweep.everything()?;
    if !options.dry_run {
        shim::follow_all(context)?.iter().for_each(|warning| context.output.warn(warning));
    }
    let Sweep { done, failures, .. } = sweep;
    let mood = if options.dry_run { "would be done: " } else { "" };
    done.iter().for_each(|item| context.output.line(format_args!("{mood}{}", item.text)));
    if done.is_empty() && failures.is_empty() {
        context.output.line("nothing was left behind");
    }
    context.output.conclude(serde_json::json!({ "dry_run": options.dry_run, "done": done }), failures)
}

/// What would be done, and what prevents the rest.
pub fn pending(context: &Context) -> Result<(Vec<String>, Vec<Error>)> {
    let mut sweep = Sweep::new(context, true);
    sweep.everything()?;
    Ok((sweep.done.into_iter().map(|item| item.text).collect(), sweep.failures))
}

#[derive(Serialize)]
struct Item {
    kind: &'static str,
    text: String,
}

struct Sweep<'a> {
    context: &'a Context,
    dry_run: bool,
    engines: Vec<Answering>,
    done: Vec<Item>,
    failures: Vec<Error>,
}

/// An engine that answers, with the names and ids of all its containers.
struct Answering {
    engine: Engine,
    containers: Vec<(String, String)>,
}

impl Answering {
    /// Both are asked at once: one that is stuck takes its time.
    fn all(engines: &Engines) -> Vec<Answering> {
        let ask = |kind: EngineKind, address: &str| {
            let engine = Engine::connect(kind, address).ok()?;
            let containers = engine.list(true).ok()?;
            Some(Answering { engine, containers })
        };
        std::thread::scope(|scope| {
            let docker = scope.spawn(move || ask(EngineKind::Docker, &engines.docker));
            let podman = ask(EngineKind::Podman, &engines.podman);
            docker.join().ok().flatten().into_iter().chain(podman).collect()
        })
    }

    /// Whether there is no container of this name or id.
    fn lacks(&self, name: &str) -> bool {
        let is_listed = self.containers.iter().any(|(listed, id)| listed == name || id == name);
        // Asked once more: one may have been made since.
        !is_listed && self.engine.inspect(name).is_err_and(|error| error.kind == Kind::NotFound)
    }
}

impl<'a> Sweep<'a> {
    fn new(context: &'a Context, dry_run: bool) -> Sweep<'a> {
        Sweep { context, dry_run, engines: Answering::all(&context.engines), done: Vec::new(), failures: Vec::new() }
    }

    fn everything(&mut self) -> Result<()> {
        self.records()?;
        self.limits()?;
        self.links()?;
        self.devices()?;
        self.open_vswitch()?;
        self.rules()?;
        self.claims()?;
        self.leases()?;
        self.helpers();
        self.files()
    }

    /// Does `work` unless this is a dry run, and notes what was done or why not.
    fn note(&mut self, kind: &'static str, text: String, work: impl FnOnce() -> Result<()>) {
        match if self.dry_run { Ok(()) } else { work() } {
            Ok(()) => self.done.push(Item { kind, text }),
            Err(error) => self.failures.push(error),
        }
    }

    /// Records that a killed run left unfinished, and those of targets that exist no more.
    fn records(&mut self) -> Result<()> {
        for kept in attachment::all(&*self.context.store, None)? {
            match kept {
                Err(error) => self.failures.push(error),
                Ok(attachment) if attachment.is_unfinished() => self.unfinished(&attachment)?,
                Ok(attachment) if self.is_gone_for_good(&attachment) => {
                    let (target, interface) = (attachment.target.in_words(), attachment.name_now());
                    let text = format!("{target}: {interface} forgotten, the target exists no more");
                    let context = self.context;
                    // Its namespace may have outlived it, with the interface in it.
                    self.note("record", text, || take_back::anywhere(context, &attachment));
                }
                Ok(attachment) if !attachment.changing.is_empty() => self.half_changed(&attachment)?,
                Ok(attachment) => self.back_by_itself(&attachment)?,
            }
        }
        Ok(())
    }

    /// An interface of the host's whose target has ended: hardware comes back, but without what it had.
    fn back_by_itself(&mut self, attachment: &Attachment) -> Result<()> {
        let Some(home) = attachment.link().and_then(|link| link.home()) else { return Ok(()) };
        if take_back::way_home(attachment)?.is_none() {
            return Ok(());
        }
        let text = format!("{} put back as it was, {} has ended", home.name, attachment.target);
        let context = self.context;
        self.note("link", text, || take_back::come_home(context, attachment).map(drop));
        Ok(())
    }

    fn unfinished(&mut self, attachment: &Attachment) -> Result<()> {
        let (target, interface) = (attachment.target.in_words(), attachment.name_now());
        let text = format!("{target}: {interface} taken back, its run was killed");
        if !namespace::is_of_this_boot(attachment) {
            let text = format!("{target}: {interface} kept, the power was lost when it was just made");
            self.note("record", text, || attachment.clone().keep(&*self.context.store));
            return Ok(());
        }
        let Some(there) = namespace::reopen(attachment) else {
            let context = self.context;
            self.note("record", text, || take_back::anywhere(context, attachment));
            return Ok(());
        };
        // Whoever holds the lock is at work and needs no help.
        if !there.try_lock()? {
            return Ok(());
        }
        // It may have been finished between our reading it and its letting go of the lock.
        if !attachment::again(&*self.context.store, attachment)?.is_some_and(|now| now.is_unfinished()) {
            return Ok(());
        }
        let context = self.context;
        self.note("record", text, || take_back::there(context, attachment, &there));
        Ok(())
    }

    /// An attachment that a killed run has left half-changed.
    fn half_changed(&mut self, attachment: &Attachment) -> Result<()> {
        let there = namespace::reopen(attachment);
        // Whoever holds the lock is at work and needs no help.
        if !there.as_ref().map_or(Ok(true), Netns::try_lock)? {
            return Ok(());
        }
        if attachment::again(&*self.context.store, attachment)?.is_some_and(|now| !now.changing.is_empty()) {
            let (target, interface) = (attachment.target.in_words(), attachment.name_now());
            let text = format!("{target}: a change of {interface} taken back, its run was killed");
            let context = self.context;
            self.note("change", text, || take_back::change(context, attachment, there.as_ref()));
        }
        Ok(())
    }

    /// Limits that a killed run left half-set, and those of targets that exist no more.
    fn limits(&mut self) -> Result<()> {
        let context = self.context;
        for kept in shaped::unfinished(&*context.store)? {
            match kept {
                Err(error) => self.failures.push(error),
                Ok(shaped) => {
                    // Whoever holds the lock is at work and needs no help.
                    let there = namespace::reopen(&shaped);
                    if there.as_ref().map_or(Ok(true), Netns::try_lock)?
                        && shaped.is_still_unfinished(&*context.store)?
                    {
                        let text = format!(
                            "{}: limits of {} as before, their run was killed",
                            shaped.target, shaped.interface
                        );
                        self.note("record", text, || qos::as_before(context, &shaped, there.as_ref()));
                    }
                }
            }
        }
        for kept in shaped::all(&*context.store, None)? {
            match kept {
                Err(error) => self.failures.push(error),
                Ok(shaped) if self.is_gone_for_good(&shaped) => {
                    let text = format!(
                        "{}: limits of {} forgotten, the target exists no more",
                        shaped.target, shaped.interface
                    );
                    self.note("record", text, || shaped.forget(&*context.store));
                }
                Ok(_) => {}
            }
        }
        Ok(())
    }

    /// Links with this store's tag and no record.
    fn links(&mut self) -> Result<()> {
        let mark = self.context.store.mark();
        // With a damaged record nobody can tell which links are its own: none is taken for lost.
        let Some(known) = known_tags(self.context)? else { return Ok(()) };
        let is_unknown = |tag: &Tag| tag.store == mark && !known.contains(tag);
        let is_lost = |link: &InsideLink| !link.is_plumbs_device() && link.tag.as_ref().is_some_and(is_unknown);
        for found in survey::links(is_lost) {
            for link in &found.links {
                self.lost(&found.namespace, link)?;
            }
        }
        Ok(())
    }

    fn lost(&mut self, there: &Netns, link: &InsideLink) -> Result<()> {
        if !there.try_lock()? {
            return Ok(());
        }
        // A run that has ended meanwhile may have left the record of what looked lost before.
        let is_known =
            |tag: &Tag| known_tags(self.context).is_ok_and(|known| known.is_none_or(|known| known.contains(tag)));
        if link.tag.as_ref().is_none_or(is_known) {
            return Ok(());
        }
        if link.group != GROUP {
            let text = format!("{} of {} sent to the host, it has no record", link.name, there.path().display());
            self.note("link", text, || there.enter(|kernel| kernel.let_go(link)));
            return Ok(());
        }
        let text = format!("{} in {} deleted, it has no record", link.name, there.path().display());
        self.note("link", text, || there.look_inside(|kernel| kernel.delete(link)));
        Ok(())
    }

    /// The host's, where something may be deleted: who only looks waits for nobody.
    fn lock(&self) -> Result<Option<HostLock>> {
        if self.dry_run { Ok(None) } else { HostLock::new().map(Some) }
    }

    /// The host's VLAN devices and bridges that plumb made: they have no record of their own, and stay as long as they
    /// are used. With a damaged record nobody can tell which are.
    fn devices(&mut self) -> Result<()> {
        let host = Netns::open(Path::new(Place::HOST))?;
        let links = host.look_inside(|kernel| kernel.links())?;
        let own: Vec<InsideLink> = links.into_iter().filter(InsideLink::is_plumbs_device).collect();
        if own.is_empty() || known_tags(self.context)?.is_none() {
            return Ok(());
        }
        let _lock = self.lock()?;
        for link in own {
            let name = link.name.parse().map_err(Error::failed)?;
            self.unused(&name, if link.is_bridge() { "bridge" } else { "VLAN" })?;
        }
        Ok(())
    }

    /// A device of the host's that plumb made, if it is of no use any more. The caller has locked the host, or only
    /// looks.
    fn unused(&mut self, name: &IfName, what: &str) -> Result<()> {
        if let Some(unused) = take_back::unused_device(self.context, name, &[])? {
            let text = format!("{name} deleted, nobody uses the {what}");
            self.note("link", text, || take_back::delete_device(&unused));
        }
        Ok(())
    }

    /// Ports of Open vSwitch's with this store's tag and no record, and its bridges that plumb made and nobody
    /// uses. Where it does not run nothing can be told.
    fn open_vswitch(&mut self) -> Result<()> {
        let (ports, mark) = (ovs::ports().unwrap_or_default(), self.context.store.mark());
        let known = if ports.is_empty() { None } else { known_tags(self.context)? };
        for (port, tag) in ports {
            if tag.store == mark && known.as_ref().is_some_and(|known| !known.contains(&tag)) {
                let text = format!("port {port} of Open vSwitch deleted, it has no record");
                self.note("link", text, || ovs::delete_port(&port));
            }
        }
        let bridges = ovs::own_bridges().unwrap_or_default();
        let _lock = if bridges.is_empty() { None } else { self.lock()? };
        for (name, _) in bridges {
            self.unused(&name, "bridge")?;
        }
        Ok(())
    }

    /// Rules of this store's for what bridges pass on, that nobody needs any more.
    fn rules(&mut self) -> Result<()> {
        let (context, store) = (self.context, self.context.store.mark());
        let own = iptables::accepted(&store)?;
        let bridges: BTreeSet<IfName> = own.into_iter().map(|rule| rule.bridge).collect();
        let _lock = if bridges.is_empty() { None } else { self.lock()? };
        for bridge in bridges {
            if !take_back::rules_nobody_needs(context, &bridge, &[])?.is_empty() {
                let text = format!("the rule for {bridge} deleted, nobody needs it");
                self.note("rule", text, || take_back::rules(context, &bridge));
            }
        }
        Ok(())
    }

    /// Claims that no record speaks of.
    fn claims(&mut self) -> Result<()> {
        let store = &*self.context.store;
        let own = store.claims(&Key::of_host(attachment::CLAIM, store.host(), &[]))?;
        for (claim, owner) in own.into_iter().chain(store.claims(&Key::new([attachment::POOL]))?) {
            if let Some(conditions) = attachment::lost_claim(store, &claim, &owner)? {
                self.release(conditions, claim, owner);
            }
        }
        for (claim, owner) in store.claims(&Key::new([network::VLAN_ID]))? {
            if let Some(conditions) = network::lost_id(store, &claim, &owner)? {
                self.release(conditions, claim, owner);
            }
        }
        Ok(())
    }

    /// Releases a claim that is lost, if it still is.
    fn release(&mut self, conditions: Vec<Condition>, claim: Key, owner: Key) {
        let text = format!("{claim} released, {owner} does not have it");
        let store = &*self.context.store;
        self.note("claim", text, || store.commit_if(&conditions, &[Change::Release { claim, owner }]).map(drop));
    }

    /// Leases whose attachment has gone: nobody renews them.
    fn leases(&mut self) -> Result<()> {
        let store = &*self.context.store;
        for lease in lease::all(store)?.into_iter().flatten() {
            let owner = Key::of_host(attachment::DHCP, store.host(), &[&lease.target.to_string(), &lease.interface]);
            if !attachment::is_on_record(store, &owner)? {
                let text = format!("{}: the lease of {} forgotten, it has no record", lease.target, lease.interface);
                self.note("lease", text, || store.commit(&[Change::Remove(lease.key())]).map(drop));
            }
        }
        Ok(())
    }

    /// Containers in which a DHCP client worked, and whose keeper was killed. Where no engine answers
    /// there are none.
    fn helpers(&mut self) {
        for Answering { engine, .. } in std::mem::take(&mut self.engines) {
            for (name, by) in engine.sidecars().unwrap_or_default() {
                if !keeper::is_kept(&by) {
                    self.note("helper", format!("{name} removed, nobody keeps it"), || {
                        keeper::remove_left(&engine, &name)
                    });
                }
            }
        }
    }

    /// Whether the target can never run again under its record. A stopped container can; that an engine
    /// does not answer says nothing.
    fn is_gone_for_good(&self, record: &impl Placed) -> bool {
        if namespace::is_of_this_boot(record) && container::is_there(record.place()) {
            return false;
        }
        let (name, kind) = match record.target() {
            TargetName::Docker(name) => (name, EngineKind::Docker),
            TargetName::Podman(name) => (name, EngineKind::Podman),
            TargetName::Pid(_) => return true,
            // A file of that name may be there again after a reboot, for the same purpose.
            TargetName::NetnsName(_) | TargetName::NetnsPath(_) | TargetName::Host => {
                return !container::is_there(record.place());
            }
        };
        let answering = self.engines.iter().find(|answering| answering.engine.kind() == kind);
        // Neither the container nor one that was made anew under its name, which is to get the same again.
        answering.is_some_and(|engine| engine.lacks(record.container().unwrap_or_default()) && engine.lacks(name))
    }

    fn files(&mut self) -> Result<()> {
        let swept = if self.dry_run { 0 } else { self.context.store.sweep()? };
        if swept > 0 {
            self.done.push(Item { kind: "file", text: format!("{swept} half-written files removed") });
        }
        Ok(())
    }
}

/// The tags of all records, or `None` if one of them cannot be read.
fn known_tags(context: &Context) -> Result<Option<HashSet<Tag>>> {
    let kept = attachment::all(&*context.store, None)?;
    Ok(kept.into_iter().map(|kept| kept.ok().map(|attachment| attachment.tag)).collect())
}
