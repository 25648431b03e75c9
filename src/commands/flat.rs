//! `plumb flat`: a static address on the host's own layer 2.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use serde::Serialize;

use super::{Context, namespace, require_capabilities, siblings, take_back};
use crate::{
    apply::{Transaction, all_or_nothing},
    cli::{DriverName, Flat, Mode},
    container::{self, Target},
    error::{Error, Kind, Result},
    kernel::{self, Kernel, Netns, Reach, survey},
    plan::{Driver, Facts, IpvlanMode, MacvlanMode, Parent, Wiring, Wish, facts::InsideLink, wiring, wiring::MacRule},
    store::{Attachment, Committed, Progress, attachment},
    types::{IfName, IpChoice, Span, Tag, digest, nearest},
};

/// What the options mean, apart from the wish itself.
struct Intent {
    parent: IfName,
    probe: Span,
    /// Whom to ping afterwards.
    check: Vec<IpAddr>,
    dry_run: bool,
}

pub fn run(options: Flat, context: &Context) -> Result<()> {
    let (wish, intent) = meaning(&options, context)?;
    wish.check()?;
    require_capabilities()?;
    refuse_own_addresses(&wish)?;
    let target = {
        let _waiting = options.wait.map(|_| context.output.waiting(format!("waiting for {}", options.target)));
        container::find(&options.target, &context.engines, options.wait)?
    };
    let wish = Wish { target: target.name.to_string(), ..wish };
    let host = Netns::of_this_thread()?;
    let namespace = namespace::open(&target, &host)?;
    namespace.lock()?;
    let report = namespace.enter(|kernel| {
        Work { context, intent: &intent, target: &target, host: &host, namespace: &namespace, kernel }.attach(&wish)
    })?;
    report.say(context);
    Ok(())
}

/// From what was typed to what is meant: flag first, then the configuration, then what is built in.
fn meaning(options: &Flat, context: &Context) -> Result<(Wish, Intent)> {
    let parent = options.host_interface.clone().or_else(|| context.config.host_interface.clone());
    let parent = parent.ok_or_else(|| {
        Error::usage("which interface of the host leads to the LAN? -i is missing")
            .hint("-i eth0, or host-interface = \"eth0\" in the configuration; ip -br link lists them")
    })?;
    let mut addresses = Vec::new();
    for choice in &options.ip {
        match choice {
            IpChoice::Address(address) => addresses.push(*address),
            IpChoice::None if options.ip.len() > 1 => {
                return Err(Error::usage("--ip none cannot stand beside other addresses"));
            }
            IpChoice::None => {}
        }
    }
    let probe = options.checks.probe.or(context.config.probe).unwrap_or(Span::millis(200));
    let check_gateways = options.checks.check || !options.checks.no_check && context.config.check.unwrap_or(true);
    let gateways = options.gateway.iter().map(|gateway| gateway.ip()).filter(|_| check_gateways);
    let intent = Intent {
        parent,
        probe,
        check: gateways.chain(options.checks.check_host.iter().copied()).collect(),
        dry_run: options.dry_run,
    };
    let wish = Wish {
        target: options.target.to_string(),
        driver: driver(options)?,
        name: options.link.name.clone(),
        mac: options
            .link
            .mac
            .as_ref()
            .map_or_else(|| MacRule::Derived { host: machine_id() }, |choice| MacRule::Given(choice.mac())),
        mtu: options.link.mtu,
        addresses,
        gateways: options.gateway.clone(),
        routes: options.routing.route.clone(),
        metric: options.routing.metric,
        keep_default: options.routing.keep_default,
        off_link_gateway: options.routing.off_link_gateway,
        allow_wifi: options.link.allow_wifi,
        skip_dad: probe.is_zero(),
    };
    Ok((wish, intent))
}

fn driver(options: &Flat) -> Result<Driver> {
    let sources = &options.link.source_mac;
    if !sources.is_empty() && options.link.mode != Some(Mode::Source) {
        return Err(Error::usage("--source-mac has a meaning in mode source only").hint("add --mode source"));
    }
    let macvlan = |mode| Ok(Driver::Macvlan(mode));
    let ipvlan = |mode| Ok(Driver::Ipvlan(mode));
    match (options.link.driver, options.link.mode) {
        (DriverName::Macvlan, None | Some(Mode::Bridge)) => macvlan(MacvlanMode::Bridge),
        (DriverName::Macvlan, Some(Mode::Private)) => macvlan(MacvlanMode::Private),
        (DriverName::Macvlan, Some(Mode::Vepa)) => macvlan(MacvlanMode::Vepa),
        (DriverName::Macvlan, Some(Mode::Passthru)) => macvlan(MacvlanMode::Passthru),
        (DriverName::Macvlan, Some(Mode::Source)) => macvlan(MacvlanMode::Source(sources.clone())),
        (DriverName::Macvlan, Some(Mode::L2 | Mode::L3 | Mode::L3s)) => Err(Error::usage(
            "modes l2, l3 and l3s are ipvlan's; macvlan has bridge, private, vepa, passthru and source",
        )
        .hint("add --driver ipvlan")),
        (DriverName::Ipvlan, None | Some(Mode::L2)) => ipvlan(IpvlanMode::L2),
        (DriverName::Ipvlan, Some(Mode::L3)) => ipvlan(IpvlanMode::L3),
        (DriverName::Ipvlan, Some(Mode::L3s)) => ipvlan(IpvlanMode::L3s),
        (DriverName::Ipvlan, Some(Mode::Bridge | Mode::Private | Mode::Vepa | Mode::Passthru | Mode::Source)) => Err(
            Error::usage("modes bridge, private, vepa, passthru and source are macvlan's; ipvlan has l2, l3 and l3s")
                .hint("leave --mode out for l2, or give --driver macvlan"),
        ),
    }
}

/// What tells this host from all others, so that two containers of one name on two hosts do not
/// get one MAC address (machine-id(5)).
fn machine_id() -> Option<String> {
    let read =
        |path| fs::read_to_string(path).ok().map(|text: String| text.trim().to_owned()).filter(|id| !id.is_empty());
    let id = read("/etc/machine-id").or_else(|| read("/var/lib/dbus/machine-id"))?;
    // Records are for all to read, and the id itself is not to be shown around.
    Some(digest(&["plumb host", &id]))
}

/// A container's probe does not reach its own host, so the host's addresses are asked for here.
fn refuse_own_addresses(wish: &Wish) -> Result<()> {
    match wish.addresses.iter().find(|address| kernel::is_hosts_own(address.ip())) {
        Some(address) => {
            Err(Error::conflict(format!("{} is this host's own address", address.ip())).hint("choose another"))
        }
        None => Ok(()),
    }
}

/// An attachment being made, on a thread inside the target's namespace, which is locked.
struct Work<'a> {
    context: &'a Context,
    intent: &'a Intent,
    target: &'a Target,
    host: &'a Netns,
    namespace: &'a Netns,
    kernel: &'a mut Kernel,
}

impl Work<'_> {
    fn attach(mut self, wish: &Wish) -> Result<Report> {
        let mut here = self.recorded_here()?;
        let leftovers = self.clear_leftovers(&mut here)?;
        let on_record = here.iter().map(|attachment| attachment.interface().to_owned()).collect();
        let parent = self.parent()?;
        let sibling = siblings::that_matters(&wish.driver, &parent, self.host, self.context)?;
        let facts = Facts { parent, sibling, inside: self.kernel.look()?, on_record };
        let tag = Tag::new(self.context.store.mark(), random()?);
        let wiring = wiring::plan(wish, &facts, &tag)?;
        let mut report = Report::new(self.target, wish, &wiring, &self.namespace.path().display().to_string());
        report.warn_about_published_ports(self.target, wish, &wiring);
        report.warnings.extend(leftovers);
        let mut attachment = self.record(wish, &wiring, tag);
        if self.intent.dry_run {
            if let Some((claim, holder)) = attachment.claim_of_another(&*self.context.store)? {
                return Err(attachment::held(&*self.context.store, &claim, &holder));
            }
            report.dry_run = true;
            return Ok(report);
        }
        self.make(&mut attachment, &wiring, &facts.parent)?;
        self.check(&wiring, &facts.parent, &mut report);
        Ok(report)
    }

    /// What is on record for this target in this very namespace.
    fn recorded_here(&self) -> Result<Vec<Attachment>> {
        let kept = attachment::all(&*self.context.store, Some(&self.target.name))?;
        Ok(kept.into_iter().flatten().filter(|a| namespace::is_same(a, self.namespace, self.kernel)).collect())
    }

    /// A run on this target that was killed has left its record and perhaps more, and an interface
    /// of ours that somebody deleted its record: both are taken back first. No other plumb is at
    /// work here: the namespace is locked.
    fn clear_leftovers(&mut self, here: &mut Vec<Attachment>) -> Result<Option<String>> {
        if here.is_empty() {
            return Ok(None);
        }
        let links = self.kernel.links()?;
        let is_left =
            |a: &mut Attachment| a.is_unfinished() || !links.iter().any(|link| link.tag.as_ref() == Some(&a.tag));
        let mut said = None;
        for left in here.extract_if(.., is_left) {
            let when = if self.intent.dry_run { "would be" } else { "was" };
            said = Some(format!("what was left of an earlier {} {when} taken back first", left.interface()));
            if !self.intent.dry_run {
                take_back::here(self.context, &left, self.namespace, self.kernel)?;
            }
        }
        Ok(said)
    }

    fn parent(&mut self) -> Result<Parent> {
        let name = &self.intent.parent;
        if let Some(parent) = self.kernel.parent(name)? {
            return Ok(parent);
        }
        let names: Vec<String> = self.kernel.host_names()?.into_iter().filter(|name| name != "lo").collect();
        let there = format!("the host has {}", names.join(", "));
        Err(Error::not_found(format!("the host has no interface {name}")).hint(
            match nearest(name.as_str(), names.iter().map(String::as_str)) {
                Some(near) => format!("did you mean {near}? {there}"),
                None => there,
            },
        ))
    }

    fn record(&self, wish: &Wish, wiring: &Wiring, tag: Tag) -> Attachment {
        Attachment {
            format: attachment::FORMAT,
            progress: Progress::Unfinished,
            host: self.context.store.host().map(str::to_owned),
            host_name: None,
            network: None,
            target: self.target.name.clone(),
            container: self.target.id.clone(),
            tag,
            begun: attachment::now(),
            place: self.target.place.clone(),
            namespace: namespace::mark(self.namespace, self.kernel),
            wish: wish.clone(),
            steps: wiring.steps().cloned().collect(),
        }
    }

    /// Record first, act second, confirm last: whenever this ends, something tells what was done.
    fn make(&mut self, attachment: &mut Attachment, wiring: &Wiring, parent: &Parent) -> Result<()> {
        let store = &*self.context.store;
        let earlier = attachment::read(store, &attachment.final_key())?;
        if let Some(earlier) = &earlier {
            self.lay_to_rest(earlier)?;
        }
        let begun = attachment.begin(store).and_then(|committed| match committed {
            Committed::Done => Ok(()),
            Committed::Held { claim, holder } => Err(attachment::held(store, &claim, &holder)),
        });
        match begun.and_then(|()| self.wire(attachment, wiring, parent)) {
            // Made is made: a claim that could not be given back gc finds.
            Ok(()) => {
                let _ = earlier.map(|earlier| earlier.release_to(Some(attachment), store));
                Ok(())
            }
            // What was left behind must stay on record, or gc could not find it.
            Err(error) if error.kind == Kind::LeftBehind => Err(error),
            Err(error) => {
                // The failure is what the user must hear of; what cannot be forgotten now gc finds.
                let _ = attachment.forget(store).and_then(|()| store.flush(&attachment.key()));
                Err(error)
            }
        }
    }

    /// The record of an earlier run of the container under our name. Its namespace has gone with all
    /// that was in it; or a sidecar has kept it, with an interface that still has our MAC and IP
    /// addresses, and that goes. Its record stays until ours replaces it. What another container that
    /// runs had under this name is not ours to take.
    fn lay_to_rest(&self, earlier: &Attachment) -> Result<()> {
        if earlier.container != self.target.id && container::is_there(&earlier.place) {
            let (target, id) = (&earlier.target, earlier.container.as_deref().unwrap_or("another target"));
            let short = id.get(..12).unwrap_or(id);
            return Err(Error::conflict(format!(
                "{target}: {} is on record for {short}, which still runs",
                earlier.interface()
            ))
            .hint(format!("was it renamed? plumb detach {target} {} frees the name", earlier.interface())));
        }
        match namespace::reopen(earlier) {
            Some(there) if there.id() != self.namespace.id() => take_back::links(self.context, earlier, &there),
            _ => Ok(()),
        }
    }

    /// Carries the plan out. Beside it, on threads of their own as both wait for others, the engine
    /// is asked once more and the record is made durable; both must have succeeded before it counts.
    fn wire(&mut self, attachment: &mut Attachment, wiring: &Wiring, parent: &Parent) -> Result<()> {
        let (context, target, probe) = (self.context, self.target, self.intent.probe.duration());
        let path = self.namespace.path().display().to_string();
        let (key, host) = (attachment.key(), self.host);
        let mut observe = |step: &crate::plan::Step, took| context.output.step(&step.command(&path), took);
        std::thread::scope(|beside| {
            let durable = beside.spawn(|| context.store.flush(&key));
            let asked_again = target.is_an_engines().then(|| beside.spawn(|| target.ask_again()));
            all_or_nothing(self.kernel, &mut observe, &path, |tx| {
                tx.run_all(&wiring.connect).map_err(|error| name_who_is_in_the_way(error, host, wiring, context))?;
                siblings::settled(&wiring.link.driver, host)?;
                let speaks = !wiring.link.driver.is_routed_by_the_host();
                // Where nothing is plugged in nobody can answer.
                let ask = !probe.is_zero() && parent.up && parent.carrier && speaks;
                if ask {
                    probe_ipv4(tx, attachment, wiring, parent, host, probe)?;
                }
                tx.run_all(&wiring.addresses)?;
                if ask && attachment.wish.addresses.iter().any(|address| address.is_ipv6()) {
                    let _waiting = context.output.waiting("waiting for IPv6 duplicate address detection".into());
                    tx.executor.await_ipv6(wiring.link.index, DAD_LIMIT)?;
                }
                tx.run_all(&wiring.routes)?;
                if speaks {
                    announce(tx, attachment, wiring, parent);
                }
                asked_again.map_or(Ok(()), joined)?;
                joined(durable)?;
                target.still_runs()?;
                attachment.confirm(&*context.store)
            })
        })
    }

    /// Looks whether the way out works. That it does not is a warning: the cable may be plugged in later.
    /// The attachment is made: nothing here is a failure, and ctrl-C only ends the waiting.
    fn check(&mut self, wiring: &Wiring, parent: &Parent, report: &mut Report) {
        if !parent.up || !parent.carrier {
            return;
        }
        for ip in &self.intent.check {
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

fn joined(thread: std::thread::ScopedJoinHandle<'_, Result<()>>) -> Result<()> {
    thread.join().unwrap_or_else(|_| Err(Error::failed("a thread of plumb's ended unexpectedly: this is a bug")))
}

const PING_LIMIT: Duration = Duration::from_secs(1);
/// The kernel takes one to two seconds; more means that it cannot.
const DAD_LIMIT: Duration = Duration::from_secs(5);

/// Adds to a conflict on the parent whose link it is with. The kernel does not tell; the parent's
/// other links are looked for in all namespaces, which takes its time, but only now.
fn name_who_is_in_the_way(error: Error, host: &Netns, wiring: &Wiring, context: &Context) -> Error {
    if error.kind != Kind::Conflict {
        return error;
    }
    let (ours, wants_all) = (wiring.link.mac.map(|mac| mac.bytes()), wiring.link.driver.mode() == "passthru");
    let is_in_the_way = |link: &&InsideLink| {
        wants_all
            || link.kind.as_deref().is_some_and(|kind| kind.starts_with("ipv"))
            || link.mode.as_deref() == Some("passthru")
            || (ours.is_some() && link.mac == ours)
    };
    for found in survey::children(host, wiring.link.parent.index) {
        let Some(link) = found.links.iter().find(is_in_the_way) else { continue };
        let owner = siblings::owner(link, &found.namespace, context);
        if link.mode.as_deref() == Some("passthru") && !wants_all {
            let parent = &wiring.link.parent.name;
            let message = format!("{parent} has a passthru link, {} of {owner}, which tolerates no other", link.name);
            return Error { message, hint: Some("detach that one, or use another parent".into()), ..error };
        }
        // Behind the clause that says what is in the way, before the one that says why that matters.
        let (what, why) = error.message.split_once(',').map_or((error.message.as_str(), ""), |(what, why)| (what, why));
        let why = if why.is_empty() { String::new() } else { format!(",{why}") };
        return Error { message: format!("{what}, {} of {owner}{why}", link.name), ..error };
    }
    error
}

fn probe_ipv4(
    tx: &mut Transaction<'_, Kernel>,
    attachment: &Attachment,
    wiring: &Wiring,
    parent: &Parent,
    host: &Netns,
    duration: Duration,
) -> Result<()> {
    let (ips, _) = by_version(attachment);
    let Some(mac) = wiring.link.mac.or(parent.mac).filter(|_| !ips.is_empty()) else { return Ok(()) };
    let answer = match &wiring.link.driver {
        Driver::Macvlan(_) => tx.executor.probe(wiring.link.index, mac.bytes(), &ips, duration)?,
        // Who answers a probe does not yet know for which address, so the answer to one from an ipvlan
        // is for none of the parent's links: the parent itself gets it, on the host.
        Driver::Ipvlan(_) => {
            host.look_inside(|on_host| on_host.probe(wiring.link.parent.index, mac.bytes(), &ips, duration))?
        }
    };
    match answer {
        None => Ok(()),
        Some(answer) => Err(Error::conflict(format!("{} is in use on the LAN by {}", answer.ip, answer.mac_text()))
            .hint("choose another address; --probe 0 takes it all the same")),
    }
}

/// Best effort: who is not told now learns it by asking.
fn announce(tx: &mut Transaction<'_, Kernel>, attachment: &Attachment, wiring: &Wiring, parent: &Parent) {
    let (v4, v6) = by_version(attachment);
    let Some(mac) = wiring.link.mac.or(parent.mac) else { return };
    if !v4.is_empty() {
        let _ = tx.executor.announce(wiring.link.index, mac.bytes(), &v4);
    }
    if !v6.is_empty() {
        let _ = tx.executor.advertise(wiring.link.index, mac.bytes(), &v6);
    }
}

fn by_version(attachment: &Attachment) -> (Vec<Ipv4Addr>, Vec<Ipv6Addr>) {
    let (mut v4, mut v6) = (Vec::new(), Vec::new());
    for address in &attachment.wish.addresses {
        match address.ip() {
            IpAddr::V4(ip) => v4.push(ip),
            IpAddr::V6(ip) => v6.push(ip),
        }
    }
    (v4, v6)
}

fn random() -> Result<[u8; 8]> {
    let mut bytes = [0; 8];
    let read = fs::File::open("/dev/urandom").and_then(|mut file| std::io::Read::read_exact(&mut file, &mut bytes));
    read.map(|()| bytes).map_err(|error| Error::io("cannot read random numbers", &error))
}

/// What is now true, or with `--dry-run` would be.
#[derive(Debug, Serialize)]
struct Report {
    target: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    container: Option<String>,
    interface: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    mac: Option<String>,
    mtu: u32,
    addresses: Vec<String>,
    gateways: Vec<IpAddr>,
    parent: String,
    driver: &'static str,
    mode: &'static str,
    /// Default routes that were replaced; detach gives them back.
    replaced_routes: Vec<String>,
    checks: Vec<Check>,
    warnings: Vec<String>,
    dry_run: bool,
    /// The commands that do the same.
    commands: Vec<String>,
    #[serde(skip)]
    routed_by_host: bool,
    #[serde(skip)]
    remarks: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Check {
    host: IpAddr,
    reached: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    round_trip_ms: Option<f64>,
}

impl Report {
    fn new(target: &Target, wish: &Wish, wiring: &Wiring, namespace: &str) -> Report {
        let gateways = wish.gateways.iter().filter(|_| !wish.keep_default).map(|gateway| gateway.ip()).collect();
        let replaced = wiring
            .replaced_defaults()
            .map(|route| format!("the default route was by {}; detach gives it back", route.way()));
        let better = wiring.better_defaults.iter().map(|route| {
            format!(
                "the default route by {} has the better metric, {}, and stays the way out",
                route.way(),
                route.metric()
            )
        });
        let subnets: Vec<String> = wish.addresses.iter().map(|address| address.subnet().to_string()).collect();
        let routed = (wiring.link.driver.is_routed_by_the_host() && !subnets.is_empty()).then(|| {
            let (mode, to) = (wiring.link.driver.mode(), subnets.join(" and "));
            format!("mode {mode} answers no ARP: other machines need a route to {to} by this host")
        });
        let remarks = replaced.chain(better).chain(routed).collect();
        Report {
            target: wish.target.clone(),
            container: target.id.clone(),
            interface: wiring.link.name.to_string(),
            mac: wiring.link.mac.map(|mac| mac.to_string()),
            mtu: wiring.link.mtu.bytes(),
            addresses: wish.addresses.iter().map(|address| address.to_string()).collect(),
            gateways,
            parent: wiring.link.parent.name.to_string(),
            driver: wiring.link.driver.kind(),
            mode: wiring.link.driver.mode(),
            replaced_routes: wiring.replaced_defaults().map(|route| route.to_string()).collect(),
            checks: Vec::new(),
            warnings: wiring.warnings.clone(),
            dry_run: false,
            commands: wiring.steps().map(|step| step.command(namespace)).collect(),
            routed_by_host: wiring.link.driver.is_routed_by_the_host(),
            remarks,
        }
    }

    /// Docker hands what arrives at a published port to its bridge's address inside, and the client
    /// waits for an answer from the host. One that leaves by the new interface is not that.
    fn warn_about_published_ports(&mut self, target: &Target, wish: &Wish, wiring: &Wiring) {
        let Some(address) =
            wish.addresses.iter().find(|address| !address.is_ipv6()).filter(|_| !target.published.is_empty())
        else {
            return;
        };
        let who = match wiring.replaced_defaults().next() {
            Some(_) => "other machines no longer reach them".to_owned(),
            None => format!("machines in {} no longer reach them", address.subnet()),
        };
        let ports = target.published.join(", ");
        self.warnings.push(format!(
            "{} publishes {ports} on this host: {who} there, as the answers leave by {}; they can use {} itself",
            self.target,
            self.interface,
            address.ip()
        ));
    }

    fn add_check(&mut self, host: IpAddr, is_gateway: bool, reach: Reach, parent: &IfName) {
        let what = if is_gateway { "gateway " } else { "" };
        let (reached, round_trip_ms) = match reach {
            Reach::Answered(after) => {
                let ms = after.as_secs_f64() * 1e3;
                self.remarks.push(format!("{what}{host} answers in {ms:.2} ms"));
                (true, Some(ms))
            }
            Reach::OnLinkOnly => {
                self.remarks.push(format!("{what}{host} is there but answers no pings"));
                (true, None)
            }
            Reach::Silent if self.routed_by_host => {
                self.warnings.push(format!(
                    "{host} does not answer within {} s. Look at: the host's own route to it, which must be by {parent}; a route back to {} by this host; a firewall",
                    PING_LIMIT.as_secs(),
                    self.addresses.join(", ")
                ));
                (false, None)
            }
            Reach::Silent if !is_gateway => {
                let router = self.gateways.first().map_or("the router".to_owned(), |ip| format!("the router, {ip},"));
                self.warnings.push(format!("{host} does not answer within {} s. Look at: whether {router} forwards there; a route back; a firewall", PING_LIMIT.as_secs()));
                (false, None)
            }
            Reach::Silent => {
                self.warnings.push(format!(
                    "{what}{host} does not answer within {} s. Look at: the cable and switch port of {parent}; the VLAN that the port is in; \
                     whether {parent} may use several MAC addresses (virtual machines: promiscuous mode, wifi: no)",
                    PING_LIMIT.as_secs()
                ));
                (false, None)
            }
        };
        self.checks.push(Check { host, reached, round_trip_ms });
    }

    fn say(&self, context: &Context) {
        let output = context.output;
        output.document(self);
        if self.dry_run {
            self.commands.iter().for_each(|command| output.line(command));
        } else {
            output.line(self);
            self.remarks.iter().for_each(|remark| output.line(format_args!("  {remark}")));
        }
        self.warnings.iter().for_each(|warning| output.warn(warning));
    }
}

/// `web: eth1 192.168.0.100/24 via 192.168.0.1 on eth0 (macvlan bridge)`
impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let addresses =
            if self.addresses.is_empty() { "without an address".to_owned() } else { self.addresses.join(", ") };
        write!(f, "{}: {} {addresses}", self.target, self.interface)?;
        if !self.gateways.is_empty() {
            let gateways: Vec<String> = self.gateways.iter().map(|ip| ip.to_string()).collect();
            write!(f, " via {}", gateways.join(", "))?;
        }
        write!(f, " on {} ({} {})", self.parent, self.driver, self.mode)
    }
}
