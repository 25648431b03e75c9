//! `plumb shim`: an interface of the host's own beside its containers', so that they reach one another.

pub mod guard;
mod manage;

use std::collections::BTreeSet;

use serde::Serialize;

use super::{
    Context, attach, attaching,
    attaching::{Intent, Joining, Uplink},
    require_capabilities,
};
use crate::{
    cli::{Shim, ShimVerb},
    error::{Error, Result},
    kernel::{Kernel, Netns, survey},
    plan::{Driver, IpvlanMode, MacvlanMode, Parent, Step, Wish},
    shim,
    store::{Attachment, attachment},
    types::{HostAddress, IfName, Place, Span, TargetName, WantedIp},
};

pub fn run(options: Shim, context: &Context) -> Result<()> {
    match options.verb {
        Some(ShimVerb::Ls(_)) => manage::list(context),
        Some(ShimVerb::Rm(options)) => manage::remove(&options, context),
        None => make(&options, context),
    }
}

/// What is now true, or with `--dry-run` would be.
#[derive(Serialize)]
struct Made {
    parent: String,
    interface: String,
    addresses: Vec<String>,
    driver: &'static str,
    mode: &'static str,
    routes: Vec<String>,
    /// Whether the routes are those to the containers on the parent, whichever there are.
    automatic: bool,
    /// No container is attached to the parent.
    #[serde(skip)]
    is_alone: bool,
    dry_run: bool,
    commands: Vec<String>,
    warnings: Vec<String>,
}

fn make(options: &Shim, context: &Context) -> Result<()> {
    let uplink = uplink(options, context)?;
    require_capabilities()?;
    let host = Netns::of_this_thread()?;
    let mut kernel = Kernel::with_host()?;
    let (name, driver) = match &uplink {
        // The network's device may have yet to be made; then nothing hangs on it.
        Uplink::Network(joining) => {
            let device = joining.device_name(&mut kernel)?;
            let there = kernel.parent(&device)?;
            let driver = there.map_or(Ok(Driver::Macvlan(MacvlanMode::Bridge)), |parent| matching(&parent, &host))?;
            (device, driver)
        }
        Uplink::Nowhere => return Err(Error::usage("a shim hangs on an interface").hint("plumb shim HOSTIF")),
        // A shim's parent is named as it is.
        Uplink::Interface(name) | Uplink::Vlan(name, _) => {
            (name.clone(), matching(&attaching::parent(&mut kernel, name)?, &host)?)
        }
    };
    refuse_second(&name, context)?;
    guard::check(options.route.iter().map(|route| route.destination), &host)?;
    if let Uplink::Network(joining) = &uplink {
        refuse_gateway(joining, context)?;
        let subnets = joining.network.pools.iter().map(|pool| pool.subnet.network());
        let smaller = format!("plumb shim {name} --ip ADDR/32 leads to each container alone");
        guard::check(subnets, &host).map_err(|error| error.hint(smaller))?;
    }
    let wish = wish(options, &name, driver)?;
    attaching::refuse_own_addresses(&wish)?;
    let intent = Intent {
        uplink,
        lease: None,
        probe: wish_probe(options, context),
        check: Vec::new(),
        dry_run: options.dry_run,
    };
    let report = attaching::attach(&TargetName::Host, None, wish.clone(), &intent, context)?;
    let automatic = options.network.is_none() && options.route.is_empty();
    let mut made = Made {
        interface: IfName::of_shim(&name).to_string(),
        addresses: report.addresses.clone(),
        driver: wish.driver.kind(),
        mode: wish.driver.mode().unwrap_or_default(),
        routes: options.route.iter().map(|route| route.destination.to_string()).collect(),
        automatic,
        is_alone: false,
        dry_run: options.dry_run,
        commands: report.commands,
        warnings: report.warnings,
        parent: name.to_string(),
    };
    if automatic {
        made.lead_to_containers(&name, context)?;
    }
    say(&made, context);
    Ok(())
}

impl Made {
    /// The shim is there, or will be, whether each container can be led to or not.
    fn lead_to_containers(&mut self, parent: &IfName, context: &Context) -> Result<()> {
        let (steps, in_the_way) = shim::planned(parent, &*context.store)?;
        self.is_alone = steps.is_empty() && in_the_way.is_empty();
        let led_to = |step: &Step| if let Step::AddRoute(route) = step { route.destination() } else { None };
        self.routes = steps.iter().filter_map(led_to).map(|to| to.to_string()).collect();
        if self.dry_run {
            self.commands.extend(steps.iter().map(|step| step.command(Place::HOST)));
            self.warnings.extend(in_the_way.iter().map(|route| route.to_string()));
        } else {
            self.warnings.extend(follow([parent], context));
        }
        Ok(())
    }
}

/// Makes the routes of the shims on these parents those to what is attached there now, and says what could
/// not be. The host must not be locked.
pub fn follow<'a>(parents: impl IntoIterator<Item = &'a IfName>, context: &Context) -> Vec<String> {
    let mut observe = |step: &Step, took| context.output.step(&step.command(Place::HOST), took);
    let mut said = Vec::new();
    for parent in parents {
        match shim::follow(parent, &*context.store, &mut observe) {
            Ok(in_the_way) => said.extend(in_the_way.iter().map(|route| route.to_string())),
            Err(error) => said.push(format!("{}: {}", IfName::of_shim(parent), error.message)),
        }
    }
    said
}

/// The same for all parents.
pub fn follow_all(context: &Context) -> Result<Vec<String>> {
    let shims = shim::all(&*context.store)?;
    let parents: BTreeSet<&IfName> = shims.iter().filter_map(|shim| Some(&shim.link()?.parent.name)).collect();
    Ok(follow(parents, context))
}

fn uplink(options: &Shim, context: &Context) -> Result<Uplink> {
    if let Some(name) = &options.network {
        let stored = attach::find(name, context)?;
        let wanted = attach::addresses_of(&stored.network, &options.ip)?;
        let host_interface = options.host_interface.clone().unwrap_or_else(|| stored.network.parent.clone());
        return Ok(Uplink::Network(Box::new(Joining::new(stored, host_interface, wanted))));
    }
    if options.ip.is_empty() {
        return Err(Error::usage("which address shall the host have beside its containers? --ip is missing")
            .hint("--ip 192.168.0.254: one that nobody else on the LAN has"));
    }
    match &options.host_interface {
        Some(name) => Ok(Uplink::Interface(name.clone())),
        None => Err(Error::usage("on which interface are the containers? HOSTIF is missing")
            .hint("plumb shim eth0 --ip 192.168.0.254; or --network NAME")),
    }
}

/// The addresses that were given, each alone: it is the routes that say what the shim leads to.
fn addresses(asked: &[WantedIp]) -> Result<Vec<HostAddress>> {
    let alone = |wanted: &WantedIp| {
        let ip = wanted.ip;
        let address = HostAddress::new(ip, if ip.is_ipv6() { 128 } else { 32 }).map_err(Error::usage)?;
        match wanted.prefix.filter(|prefix| *prefix < address.prefix()) {
            None => Ok(address),
            Some(prefix) => {
                let all = HostAddress::new(ip, prefix).map_err(Error::usage)?;
                Err(Error::usage(format!("--ip {all} would lead all of {} by the shim", all.subnet()))
                    .hint(format!("--ip {ip}; --route says what it leads to")))
            }
        }
    };
    asked.iter().map(alone).collect()
}

fn wish_probe(options: &Shim, context: &Context) -> Span {
    options.probe.or(context.config.probe).unwrap_or(Span::millis(200))
}

fn wish(options: &Shim, parent: &IfName, driver: Driver) -> Result<Wish> {
    Ok(Wish {
        name: Some(IfName::of_shim(parent)),
        addresses: if options.network.is_none() { addresses(&options.ip)? } else { Vec::new() },
        routes: options.route.clone(),
        keep_default: true,
        skip_dad: options.probe.is_some_and(Span::is_zero),
        ..Wish::of(&TargetName::Host, driver, attaching::derived_mac())
    })
}

/// The driver and mode of what hangs on the parent already: there can be no other, and only so they
/// reach one another.
fn matching(parent: &Parent, host: &Netns) -> Result<Driver> {
    let Some(link) = survey::sharers(host, parent.index).find_map(|found| found.links.into_iter().next()) else {
        return Ok(Driver::Macvlan(MacvlanMode::Bridge));
    };
    let (kind, mode) = (link.kind.as_deref().unwrap_or_default(), link.mode.as_deref().unwrap_or_default());
    match (kind, mode) {
        ("ipvlan" | "ipvtap", "l2") => Ok(Driver::Ipvlan(IpvlanMode::L2)),
        ("ipvlan" | "ipvtap", "l3") => Ok(Driver::Ipvlan(IpvlanMode::L3)),
        ("ipvlan" | "ipvtap", "l3s") => Ok(Driver::Ipvlan(IpvlanMode::L3s)),
        ("macvlan" | "macvtap", "private" | "passthru" | "source") => Err(Error::conflict(format!(
            "what is on {} is in mode {mode}, in which it reaches no other interface there",
            parent.name
        ))
        .hint("attach the containers in mode bridge")),
        _ => Ok(Driver::Macvlan(MacvlanMode::Bridge)),
    }
}

/// The gateway of a network is in it already.
fn refuse_gateway(joining: &Joining, context: &Context) -> Result<()> {
    let name = &joining.network.name;
    let kept = attachment::all(&*context.store, Some(&TargetName::Host))?;
    let is_it = |one: &Attachment| one.is_gateway() && one.network.as_ref() == Some(name);
    match kept.into_iter().flatten().find(is_it) {
        None => Ok(()),
        Some(gateway) => {
            let interface = gateway.interface();
            Err(Error::conflict(format!(
                "this host is the gateway of {name}, and reaches its containers by {interface}: it needs no shim"
            )))
        }
    }
}

/// A half-made one is not in the way: it is taken back first.
fn refuse_second(parent: &IfName, context: &Context) -> Result<()> {
    let is_there = |record: &Attachment| {
        let state = super::ls::State::of(record);
        shim::is_on(record, parent) && matches!(state, super::ls::State::Up | super::ls::State::Down)
    };
    match shim::all(&*context.store)?.into_iter().find(is_there) {
        None => Ok(()),
        Some(there) => Err(Error::conflict(format!("{parent} has a shim already, {}", there.interface()))
            .hint(format!("plumb shim ls shows it; plumb shim rm {parent} takes it away"))),
    }
}

fn say(made: &Made, context: &Context) {
    let output = context.output;
    output.document(made);
    if made.dry_run {
        made.commands.iter().for_each(|command| output.line(command));
    } else {
        let Made { parent, interface, addresses, driver, mode, routes, .. } = made;
        output.line(format_args!("{parent}: {interface} {} ({driver} {mode})", addresses.join(", ")));
        if made.is_alone {
            output.line("  no container is attached there; those that will be get a route each");
        } else if !routes.is_empty() {
            output.line(format_args!("  this host reaches {}", routes.join(", ")));
        }
    }
    made.warnings.iter().for_each(|warning| output.warn(warning));
}
