//! An attachment being made: the story that all verbs share which give a target an interface.

mod bridge;
mod conflict;
mod joining;
mod lan;
mod leasing;
mod options;
mod phys;
mod report;
mod vlan;

use std::{fs, net::IpAddr, time::Duration};

pub use joining::Joining;
pub use leasing::Asking;
pub use options::{
    checks, checks_gateway, derived_mac, host_interface, network_wish, refuse_own_addresses, uplink, wish,
};
pub use report::Report;

use super::{Context, changing, namespace, qos, refuse_host, require_capabilities, shim, siblings, take_back};
use crate::{
    apply::{self, Transaction, all_or_nothing},
    config,
    container::{self, Target},
    error::{Error, Kind, Result},
    kernel::{Kernel, Netns},
    namespace::HostLock,
    plan::{Facts, Inside, Parent, Step, Wiring, Wish, bridged::Acceptance, vlan::VlanDevice, wiring},
    store::{Attachment, Change, Committed, NamespaceMark, Progress, Record, attachment, shaped},
    types::{IfName, NetworkName, Span, Tag, TargetName, VlanId, VlanProtocol, nearest},
};

/// What the options mean, apart from the wish itself.
pub struct Intent {
    pub uplink: Uplink,
    /// The address is leased from a server; otherwise the wish has it.
    pub lease: Option<Asking>,
    pub probe: Span,
    /// Whom to ping afterwards.
    pub check: Vec<IpAddr>,
    pub dry_run: bool,
}

/// A device of the host's that a link is to hang on, perhaps made for that.
pub struct Device {
    pub parent: Parent,
    pub made: bool,
    /// How it would be made, in a dry run.
    pub commands: Vec<String>,
}

/// What the new interface hangs on.
pub enum Uplink {
    /// An interface of the host.
    Interface(IfName),
    /// Nothing.
    Nowhere,
    /// A VLAN of an interface of the host, whose device is made where it is missing.
    Vlan(IfName, VlanId),
    /// A network, whose device is made where it is missing.
    Network(Box<Joining>),
}

/// Finds the target, attaches it, and says what is true then.
pub fn run(target: &TargetName, wait: Option<Span>, wish: Wish, intent: &Intent, context: &Context) -> Result<()> {
    refuse_host(target, "attaches")?;
    attach(target, wait, wish, intent, context)?.say(context);
    Ok(())
}

/// Attaches whatever the target, the host included.
pub fn attach(
    target: &TargetName,
    wait: Option<Span>,
    wish: Wish,
    intent: &Intent,
    context: &Context,
) -> Result<Report> {
    require_capabilities()?;
    let target = {
        let _waiting = wait.map(|_| context.output.waiting(format!("waiting for {target}")));
        container::find_or_wait(target, &context.engines, wait)?
    };
    let wish = Wish { target: target.name.to_string(), ..wish };
    let host = Netns::of_this_thread()?;
    let namespace = namespace::open(&target, &host)?;
    namespace.lock()?;
    let mut gone = Vec::new();
    let outcome = namespace.enter(|kernel| {
        let (earlier, namespace, gone) = (Vec::new(), &namespace, &mut gone);
        Work { context, intent, target: &target, host: &host, namespace, earlier, gone, kernel }.attach(wish)
    });
    // What they left is in the way of the host's new way to the target. If it cannot be given back, gc finds it.
    let left = match intent.dry_run || target.name == TargetName::Host {
        true => Ok(()),
        false => take_back::on_the_host(context, &gone),
    };
    let (mut report, left) = match (outcome, left) {
        (Err(error), Err(left)) => return Err(error.join(left)),
        (outcome, left) => (outcome?, left),
    };
    report.warnings.extend(left.err().map(|error| error.with_its_hint()));
    if !intent.dry_run && target.name != TargetName::Host {
        // The container is attached, whether the host has a way to it or not.
        report.warnings.extend(shim::follow(&report.parent, context));
    }
    Ok(report)
}

/// An attachment being made, on a thread inside the target's namespace, which is locked.
struct Work<'a> {
    context: &'a Context,
    intent: &'a Intent,
    target: &'a Target,
    host: &'a Netns,
    namespace: &'a Netns,
    /// Where the target was before, as far as that is still there: locked as well.
    earlier: Vec<(NamespaceMark, Netns)>,
    /// What was taken back, or replaced, and may have left something on the host.
    gone: &'a mut Vec<Attachment>,
    kernel: &'a mut Kernel,
}

/// An attachment that is on record, with its addresses claimed, and whose steps wait to be taken.
struct Begun {
    attachment: Attachment,
    wiring: Wiring,
    parent: Parent,
    /// The record of an earlier run of the target under the same name.
    earlier: Option<Attachment>,
    /// What is remembered when the attachment is made.
    beside: Option<Change>,
    /// Commands for what must be made first on the host, where this is a dry run.
    first: Vec<String>,
    /// Rules for what the bridge passes on, of the host's iptables.
    accept: Vec<Acceptance>,
    /// What the LAN gave.
    lease: Option<leasing::Kept>,
    /// Until the link is there: what hangs on one parent as an ipvlan has to agree.
    lock: Option<HostLock>,
}

impl Work<'_> {
    fn attach(mut self, wish: Wish) -> Result<Report> {
        let (mut here, mut elsewhere) = self.recorded()?;
        let leftovers = self.clear_leftovers(&mut here)?;
        self.clear_earlier(&mut elsewhere)?;
        let inside = self.kernel.look()?;
        let wish = match &self.intent.uplink {
            Uplink::Interface(_) | Uplink::Vlan(..) | Uplink::Nowhere => wish,
            Uplink::Network(joining) => joining.as_before(wish, &here, &elsewhere, &inside)?,
        };
        let wish = if self.intent.lease.is_some() { Wish { addresses: Vec::new(), ..wish } } else { wish };
        let mut begun = self.begin(wish, inside, &here, elsewhere)?;
        if !self.intent.dry_run {
            self.make(&mut begun)?;
        }
        let mut report = Report::new(self.target, &begun.attachment, &begun.wiring, &self.path());
        if let (Some(kept), Some(dhcp)) = (&begun.lease, &begun.attachment.dhcp) {
            report.add_lease(&kept.lease, dhcp);
            kept.ipv6.iter().for_each(|ipv6| report.add_ipv6(ipv6, dhcp));
        }
        report.add_acceptances(&begun.accept);
        let rules: Vec<String> = begun.accept.iter().map(Acceptance::command).collect();
        report.commands.splice(0..0, begun.first.drain(..).chain(rules));
        report.warn_about_published_ports(self.target, &begun.attachment.wish, &begun.wiring);
        report.warnings.extend(leftovers);
        report.warnings.extend(begun.earlier.as_ref().and_then(changing::lost));
        self.gone.extend(begun.earlier);
        if self.intent.dry_run {
            report.dry_run = true;
            report.commands.extend(
                begun.attachment.dhcp.as_ref().map(|_| leasing::in_words(&begun.wiring, &begun.attachment.wish)),
            );
            return Ok(report);
        }
        report.warnings.extend(phys::has_no_carrier(&begun.wiring, &begun.parent));
        self.check(&begun.wiring, &begun.parent, &mut report);
        Ok(report)
    }

    fn path(&self) -> String {
        self.namespace.path().display().to_string()
    }

    /// What is on record for this target: in this very namespace, and in earlier ones.
    fn recorded(&self) -> Result<(Vec<Attachment>, Vec<Attachment>)> {
        let kept = attachment::all(&*self.context.store, Some(&self.target.name))?;
        Ok(kept.into_iter().flatten().partition(|a| namespace::is_same(a, self.namespace, self.kernel)))
    }

    /// A run on this target that was killed has left its record and perhaps more, and an interface
    /// of ours that somebody deleted its record: both are taken back first. No other plumb is at
    /// work here: the namespace is locked.
    fn clear_leftovers(&mut self, here: &mut Vec<Attachment>) -> Result<Vec<String>> {
        if here.is_empty() {
            return Ok(Vec::new());
        }
        let links = self.kernel.links()?;
        let is_left =
            |a: &mut Attachment| a.is_unfinished() || !links.iter().any(|link| link.tag.as_ref() == Some(&a.tag));
        let mut said = Vec::new();
        for left in here.extract_if(.., is_left) {
            let when = if self.intent.dry_run { "would be" } else { "was" };
            said.push(format!("what was left of an earlier {} {when} taken back first", left.interface()));
            said.extend(changing::lost(&left));
            if !self.intent.dry_run {
                take_back::here(self.context, &left, self.namespace, self.kernel)?;
                self.gone.push(left);
            }
        }
        Ok(said)
    }

    /// The same of runs on an earlier namespace of the target. One that is still at work there will
    /// find that the target has gone, and takes all back by itself.
    fn clear_earlier(&mut self, elsewhere: &mut Vec<Attachment>) -> Result<()> {
        for left in elsewhere.extract_if(.., |a| a.is_unfinished()) {
            if self.intent.dry_run {
                continue;
            }
            if let Some(there) = namespace::reopen(&left)
                && !there.try_lock()?
            {
                return Err(Error::conflict(format!("another plumb is at work on {} as it was before", left.target))
                    .hint("run the command again in a moment"));
            }
            take_back::anywhere(self.context, &left)?;
            self.gone.push(left);
        }
        if self.intent.dry_run {
            return Ok(());
        }
        // Now, as everybody locks namespaces first and the host last.
        for left in elsewhere.iter() {
            if !self.is_anothers(left)
                && self.earlier.iter().all(|(mark, _)| *mark != left.namespace)
                && let Some(there) = namespace::reopen(left).filter(|there| there.id() != self.namespace.id())
            {
                there.lock()?;
                self.earlier.push((left.namespace.clone(), there));
            }
        }
        Ok(())
    }

    /// Whether it is of another container, that runs: plumb knows it by a name that ours has now.
    fn is_anothers(&self, earlier: &Attachment) -> bool {
        earlier.container != self.target.id && container::is_there(&earlier.place)
    }

    /// Plans, and puts the plan on record. Until its link is there a VLAN's device, which may be new, has
    /// no user that others could see, so the host is locked so long.
    fn begin(&mut self, wish: Wish, inside: Inside, here: &[Attachment], elsewhere: Vec<Attachment>) -> Result<Begun> {
        match &self.intent.uplink {
            Uplink::Interface(name) => {
                phys::bring_home(&wish, name, self.intent.dry_run, self.context)?;
                let locks = wish.driver.is_made_under_lock();
                // What others have raised the parent's segments to is what this one found.
                let locks = locks || wish.tuning.big_tcp.is_some();
                let lock = if locks { HostLock::unless_held(self.namespace, self.host)? } else { None };
                let warning = match wish.driver.vlan() {
                    Some(id) => vlan::heed_network(self, &wish, name, id)?,
                    None => None,
                };
                let device = match wish.driver.needs_a_bridge() {
                    true => bridge::device(self, name, &wish.driver)?,
                    false => Device { parent: phys::parent(self, name)?, made: false, commands: Vec::new() },
                };
                let leads_nowhere = bridge::warn_of_a_new_one(self, &device)?;
                let mut begun = self.begin_on(device, lock, |work, parent| {
                    work.record_plan(wish, inside, parent, here, elsewhere, None)
                })?;
                begun.wiring.warnings.extend(warning.into_iter().chain(leads_nowhere));
                Ok(begun)
            }
            Uplink::Vlan(name, id) => {
                let warning = vlan::heed_network(self, &wish, name, *id)?;
                let lock = HostLock::unless_held(self.namespace, self.host)?;
                let device = VlanDevice::new(name.clone(), *id, VlanProtocol::Dot1q, None);
                let device = vlan::device(self, &device)?;
                let mut begun = self.begin_on(device, lock, |work, parent| {
                    work.record_plan(wish, inside, parent, here, elsewhere, None)
                })?;
                begun.wiring.warnings.extend(warning);
                Ok(begun)
            }
            Uplink::Nowhere => self.record_plan(wish, inside, Parent::nowhere(), here, elsewhere, None),
            Uplink::Network(joining) => {
                let wish = joining.in_its_vlan(wish);
                let lock = HostLock::unless_held(self.namespace, self.host)?;
                let device = joining.device(self, &wish.driver)?;
                self.begin_on(device, lock, |work, parent| {
                    work.record_plan(wish, inside, parent, here, elsewhere, Some(joining))
                })
            }
        }
    }

    /// Goes on with a device of the host's own, which goes again if that fails and it was made for this.
    fn begin_on(
        &mut self,
        device: Device,
        lock: Option<HostLock>,
        record: impl FnOnce(&mut Self, Parent) -> Result<Begun>,
    ) -> Result<Begun> {
        let made = device.made.then(|| device.parent.name.clone());
        match (record(self, device.parent), made) {
            (Ok(begun), _) => Ok(Begun { first: device.commands, lock, ..begun }),
            (Err(error), Some(made)) => {
                take_back::device(self.context, &made)?;
                Err(error)
            }
            (Err(error), None) => Err(error),
        }
    }

    fn record_plan(
        &mut self,
        wish: Wish,
        inside: Inside,
        parent: Parent,
        here: &[Attachment],
        elsewhere: Vec<Attachment>,
        joining: Option<&Joining>,
    ) -> Result<Begun> {
        let store = &*self.context.store;
        let wish = wish.on(&parent);
        let on_record = here.iter().map(|attachment| attachment.interface().to_owned()).collect();
        let sibling = siblings::that_matters(&wish.driver, &parent, self.host, self.context)?;
        let forwarding = wish.forwarding.as_ref().map(|_| self.kernel.ipv4_forwarding(&parent.name)).transpose()?;
        let is_host = self.target.name == TargetName::Host;
        let bridged_drops = bridge::drops(&parent, &wish.driver, self.host)?;
        let tag = Tag::new(store.mark(), random()?);
        let moving = phys::moving(&wish, &parent, self.host, &tag, self.context)?;
        let facts = Facts { parent, sibling, inside, on_record, is_host, forwarding, bridged_drops, moving };
        let pool = joining.filter(|_| self.intent.lease.is_none());
        let mut choice = pool.map(|joining| joining.choice(&wish)).transpose()?;
        loop {
            let wish = match &mut choice {
                Some(choice) => choice.next(wish.clone(), store)?,
                None => wish.clone(),
            };
            let wiring = wiring::plan(&wish, &facts, &tag)?;
            let wiring = if self.intent.lease.is_some() { wiring.by_lease() } else { wiring };
            let wiring = match wiring.link.driver.is_open_vswitchs() {
                true => {
                    let ids = bridge::external_ids(self.target, &wiring, &tag);
                    wiring.as_port(ids)
                }
                false => wiring,
            };
            bridge::refuse_taken_name(self, &wiring, &elsewhere)?;
            let attachment = self.record(wish, &wiring, &facts.parent, tag.clone())?;
            let interface = attachment.interface();
            let earlier = elsewhere.iter().find(|a| !a.is_unfinished() && a.interface() == interface).cloned();
            let held = if self.intent.dry_run {
                attachment.claim_of_another(store)?
            } else {
                earlier.as_ref().map_or(Ok(()), |earlier| self.lay_to_rest(earlier))?;
                match attachment.begin(joining.map(|joining| joining.as_found.clone()), store)? {
                    Committed::Done => None,
                    Committed::Unmet => return Err(changed_meanwhile(attachment.network.as_ref())),
                    Committed::Held { claim, holder } => Some((claim, holder)),
                }
            };
            let Some((claim, holder)) = held else {
                let beside = choice.as_mut().map(|choice| choice.remembered(&attachment)).transpose()?;
                return Ok(Begun {
                    accept: bridge::acceptances(&attachment.wish, &facts, &tag.store),
                    attachment,
                    wiring,
                    parent: facts.parent,
                    earlier,
                    beside,
                    first: Vec::new(),
                    lease: None,
                    lock: None,
                });
            };
            // Somebody was faster; the pool has others.
            if !choice.as_mut().is_some_and(|choice| choice.was_free(&claim)) {
                return Err(attachment::held(store, &claim, &holder));
            }
        }
    }

    fn record(&self, wish: Wish, wiring: &Wiring, parent: &Parent, tag: Tag) -> Result<Attachment> {
        let store = &*self.context.store;
        let network = match &self.intent.uplink {
            Uplink::Interface(_) | Uplink::Vlan(..) | Uplink::Nowhere => None,
            Uplink::Network(joining) => Some(joining.network.name.clone()),
        };
        let asking = self.intent.lease.as_ref();
        if asking.is_some() && !parent.up && !wiring.link.driver.moves() {
            let name = &parent.name;
            return Err(Error::failed(format!("{name} is down, so no DHCP server can be asked"))
                .hint(format!("ip link set {name} up")));
        }
        let dhcp = asking
            .map(|asking| asking.dhcp(self.target, wiring, parent, self.intent.probe, self.context))
            .transpose()?;
        Ok(Attachment {
            format: attachment::FORMAT,
            progress: Progress::Unfinished,
            host: store.host().map(str::to_owned),
            host_name: store.host().and_then(|_| config::host_name()),
            target: self.target.name.clone(),
            network,
            dhcp,
            container: self.target.id.clone(),
            tag,
            begun: attachment::now(),
            place: self.target.place.clone(),
            namespace: namespace::mark(self.namespace, self.kernel),
            wish,
            steps: wiring.steps().cloned().collect(),
            changes: Vec::new(),
            changing: Vec::new(),
        })
    }

    /// The record stands; act, and confirm last: whenever this ends, something tells what was done.
    fn make(&mut self, begun: &mut Begun) -> Result<()> {
        let store = &*self.context.store;
        let (lock, beside) = (begun.lock.take(), begun.beside.take());
        let Begun { attachment, wiring, parent, earlier, lease, accept, .. } = begun;
        let limits = || match (&*earlier, attachment.link()) {
            (Some(earlier), Some(link)) => shaped::rename(store, &earlier.target, earlier.name_now(), &link.name),
            _ => Ok(()),
        };
        let made = limits().and_then(|()| bridge::accept(self, accept));
        let made = made.and_then(|()| self.wire(attachment, wiring, parent, beside, lock));
        match made.map(|granted| *lease = granted) {
            // Made is made: what could not be given back gc finds.
            Ok(()) => {
                if let Some(earlier) = earlier {
                    let _lock = take_back::parents_segments(self.context, earlier);
                    let _ = earlier.yield_to(attachment, store);
                }
                Ok(())
            }
            // What was left behind must stay on record, or gc could not find it.
            Err(error) if error.kind == Kind::LeftBehind => Err(error),
            Err(error) => {
                let inherited = take_back::inherited_segments(self.context, attachment);
                // The failure is what the user must hear of; what cannot be forgotten now gc finds.
                let _ = attachment.forget(store).and_then(|()| store.flush(&attachment.key()));
                match apply::both(inherited, self.clear_the_host(attachment, wiring, &parent.name)) {
                    Ok(()) => Err(error),
                    Err(left) => Err(apply::failed_and_left(error, left)),
                }
            }
        }
    }

    /// Takes away what it hung on, if that was made for it, and the rules for what that passes on.
    fn clear_the_host(&self, failed: &Attachment, wiring: &Wiring, parent: &IfName) -> Result<()> {
        if matches!(self.intent.uplink, Uplink::Interface(_)) && !wiring.link.driver.needs_a_bridge() {
            return Ok(());
        }
        let _lock = HostLock::unless_held(self.namespace, self.host)?;
        take_back::what_hung_on(self.context, parent, failed.wish.allow_forward)
    }

    /// The record of an earlier run of the container under our name. Its namespace has gone with all
    /// that was in it; or a sidecar has kept it, with an interface that still has our MAC and IP
    /// addresses, and that goes. Its record stays until ours replaces it. What another container that
    /// runs had under this name is not ours to take.
    fn lay_to_rest(&self, earlier: &Attachment) -> Result<()> {
        if self.is_anothers(earlier) {
            let (target, id) = (&earlier.target, earlier.container.as_deref().unwrap_or("another target"));
            let short = id.get(..12).unwrap_or(id);
            return Err(Error::conflict(format!(
                "{target}: {} is on record for {short}, which still runs",
                earlier.interface()
            ))
            .hint(format!("was it renamed? plumb detach {target} {} frees the name", earlier.interface())));
        }
        // By its name Open vSwitch would take our link for the earlier one.
        take_back::port(self.context, earlier)?;
        match self.earlier.iter().find(|(mark, _)| *mark == earlier.namespace) {
            Some((_, there)) => take_back::links(self.context, earlier, there),
            None => Ok(()),
        }
    }

    /// Carries the plan out. Beside it, on threads of their own as both wait for others, the engine
    /// is asked once more and the record is made durable; both must have succeeded before it counts.
    fn wire(
        &mut self,
        attachment: &mut Attachment,
        wiring: &mut Wiring,
        parent: &mut Parent,
        beside: Option<Change>,
        lock: Option<HostLock>,
    ) -> Result<Option<leasing::Kept>> {
        let (context, target, probe) = (self.context, self.target, self.intent.probe.duration());
        let (path, key, host) = (self.path(), attachment.key(), self.host);
        let patience = self.intent.lease.as_ref().map_or(Duration::ZERO, |asking| asking.timeout.duration());
        let mut observe = |step: &Step, took| context.output.step(&step.command(&path), took);
        std::thread::scope(|threads| {
            let asked_again = target.is_an_engines().then(|| threads.spawn(|| target.ask_again()));
            all_or_nothing(self.kernel, &mut observe, &path, |tx| {
                tx.run_all(&wiring.connect).map_err(|error| conflict::name_it(error, host, wiring, context))?;
                drop(lock);
                phys::settle(tx, wiring, parent, context)?;
                let mut granted = leasing::obtain(tx, attachment, wiring, parent, host, patience, context)
                    .map_err(|error| target.still_runs().err().unwrap_or(error))?;
                let made: Result<_> = (|| {
                    let durable = threads.spawn(|| context.store.flush(&key));
                    // A lease's address was asked for before it was taken.
                    let probe = if granted.is_some() { Duration::ZERO } else { probe };
                    address(tx, attachment, wiring, parent, host, probe, context)?;
                    granted.as_ref().map_or(Ok(()), leasing::Granted::limit)?;
                    let ipv6 = match &mut granted {
                        Some(granted) => {
                            granted.obtain_ipv6(tx.executor, attachment, wiring, parent, patience, context)?
                        }
                        None => None,
                    };
                    asked_again.map_or(Ok(()), joined)?;
                    joined(durable)?;
                    target.still_runs()?;
                    attachment.confirm(beside, &*context.store)?;
                    Ok(ipv6)
                })();
                let ipv6 = made.inspect_err(|_| granted.iter().for_each(leasing::Granted::give_back))?;
                Ok(granted.map(|granted| granted.keep(ipv6)))
            })
        })
    }

    /// Looks whether the way out works. That it does not is a warning: the cable may be plugged in later.
    /// The attachment is made: nothing here is a failure, and ctrl-C only ends the waiting.
    fn check(&mut self, wiring: &Wiring, parent: &Parent, report: &mut Report) {
        if !parent.up || !parent.carrier {
            return;
        }
        let routers: Vec<IpAddr> = match &self.intent.lease {
            Some(asking) if asking.check_gateway => report.gateways.clone(),
            _ => Vec::new(),
        };
        for ip in routers.iter().chain(&self.intent.check) {
            let is_gateway = report.gateways.contains(ip);
            let device = is_gateway.then_some((wiring.link.name.as_str(), wiring.link.index));
            match self.kernel.ping(*ip, device, PING_LIMIT) {
                Ok(reach) => report.add_check(*ip, is_gateway, reach, &parent.name),
                Err(error) if error.kind == Kind::Interrupted => {
                    return report.warnings.push(format!("not waited for {ip}"));
                }
                Err(error) => report.warnings.push(error.message),
            }
        }
    }
}

/// Gives the link its addresses and routes, if for so long nobody on the LAN has one of them, and
/// tells the LAN of them.
fn address(
    tx: &mut Transaction<'_, Kernel>,
    attachment: &Attachment,
    wiring: &Wiring,
    parent: &Parent,
    host: &Netns,
    probe: Duration,
    context: &Context,
) -> Result<()> {
    let speaks = !wiring.link.driver.is_routed_by_the_host();
    // Where nothing is plugged in nobody can answer.
    let ask = !probe.is_zero() && parent.up && parent.carrier && speaks;
    if ask {
        lan::probe_ipv4(tx, attachment, wiring, parent, host, probe)?;
    }
    tx.run_all(&wiring.addresses)?;
    if ask && attachment.wish.addresses.iter().any(|address| address.is_ipv6()) {
        let _waiting = context.output.waiting("waiting for IPv6 duplicate address detection".into());
        tx.executor.await_ipv6(wiring.link.index, DAD_LIMIT)?;
    }
    tx.run_all(&wiring.routes)?;
    qos::put_back(tx, context, attachment, host)?;
    if speaks {
        lan::announce(tx, attachment, wiring, parent);
    }
    Ok(())
}

/// The host's interface of this name; if there is none, perhaps the one that was meant.
pub fn parent(kernel: &mut Kernel, name: &IfName) -> Result<Parent> {
    if let Some(parent) = kernel.parent(name)? {
        return Ok(parent);
    }
    let names: Vec<String> = kernel.host_names()?.into_iter().filter(|name| name != "lo").collect();
    let there = format!("the host has {}", names.join(", "));
    Err(Error::not_found(format!("the host has no interface {name}")).hint(
        match nearest(name.as_str(), names.iter().map(String::as_str)) {
            Some(near) => format!("did you mean {near}? {there}"),
            None => there,
        },
    ))
}

/// What was looked at a moment ago is another thing now.
fn changed_meanwhile(network: Option<&NetworkName>) -> Error {
    match network {
        Some(name) => {
            Error::conflict(format!("{name} was changed or deleted, or another plumb is at work on the target"))
                .hint("plumb networks shows how it is now; run the command again")
        }
        None => Error::conflict("another plumb is at work on the same target").hint("run the command again"),
    }
}

fn joined(thread: std::thread::ScopedJoinHandle<'_, Result<()>>) -> Result<()> {
    thread.join().unwrap_or_else(|_| Err(Error::failed("a thread of plumb's ended unexpectedly: this is a bug")))
}

const PING_LIMIT: Duration = Duration::from_secs(1);
/// The kernel takes one to two seconds; more means that it cannot.
const DAD_LIMIT: Duration = Duration::from_secs(5);

pub(super) fn random<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    let read = fs::File::open("/dev/urandom").and_then(|mut file| std::io::Read::read_exact(&mut file, &mut bytes));
    read.map(|()| bytes).map_err(|error| Error::io("cannot read random numbers", &error))
}
