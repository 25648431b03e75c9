//! `plumb shim`: an interface of the host's own beside its containers', so that they reach one another.

mod follow;
mod guard;
mod manage;

pub use follow::{all as follow_all, one as follow};
pub use manage::restore;

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
    plan::{Driver, IpvlanMode, MacvlanMode, Parent, Tuning, Wish},
    store::{Attachment, attachment},
    types::{HostAddress, IfName, Span, TargetName},
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
        Uplink::Interface(name) => (name.clone(), matching(&attaching::parent(&mut kernel, name)?, &host)?),
    };
    refuse_second(&name, context)?;
    guard::check(&options.route, &host)?;
    let wish = wish(options, &name, driver);
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
        mode: wish.driver.mode(),
        routes: options.route.iter().map(|route| route.destination.to_string()).collect(),
        automatic,
        dry_run: options.dry_run,
        commands: report.commands,
        warnings: report.warnings,
        parent: name.to_string(),
    };
    if automatic {
        made.routes = follow::wanted(&name, context)?.iter().map(|route| route.to_string()).collect();
        if options.dry_run {
            made.commands.extend(follow::commands(&name, context)?);
        } else {
            follow(&name, context)?;
        }
    }
    say(&made, context);
    Ok(())
}

fn uplink(options: &Shim, context: &Context) -> Result<Uplink> {
    if let Some(name) = &options.network {
        let stored = attach::find(name, context)?;
        let wanted = options.ip.iter().map(|address| address.ip()).collect();
        let host_interface = options.host_interface.clone().unwrap_or_else(|| stored.network.parent.clone());
        return Ok(Uplink::Network(Box::new(Joining::new(stored, host_interface, wanted))));
    }
    if options.ip.is_empty() {
        return Err(Error::usage("which address shall the host have beside its containers? --ip is missing")
            .hint("--ip 192.168.0.254/32: one that nobody else on the LAN has"));
    }
    let is_whole = |address: &&HostAddress| address.prefix() < if address.is_ipv6() { 128 } else { 32 };
    if let Some(address) = options.ip.iter().find(is_whole) {
        let (ip, whole) = (address.ip(), if address.is_ipv6() { 128 } else { 32 });
        return Err(Error::usage(format!("--ip {address} would lead all of {} by the shim", address.subnet()))
            .hint(format!("--ip {ip}/{whole}; --route says what it leads to")));
    }
    match &options.host_interface {
        Some(name) => Ok(Uplink::Interface(name.clone())),
        None => Err(Error::usage("on which interface are the containers? HOSTIF is missing")
            .hint("plumb shim eth0 --ip 192.168.0.254/32; or --network NAME")),
    }
}

fn wish_probe(options: &Shim, context: &Context) -> Span {
    options.probe.or(context.config.probe).unwrap_or(Span::millis(200))
}

fn wish(options: &Shim, parent: &IfName, driver: Driver) -> Wish {
    Wish {
        target: TargetName::Host.to_string(),
        driver,
        name: Some(IfName::of_shim(parent)),
        mac: attaching::derived_mac(),
        mtu: None,
        addresses: if options.network.is_none() { options.ip.clone() } else { Vec::new() },
        gateways: Vec::new(),
        routes: options.route.clone(),
        metric: None,
        keep_default: true,
        off_link_gateway: false,
        allow_wifi: false,
        skip_dad: options.probe.is_some_and(Span::is_zero),
        tuning: Tuning::default(),
        forwarding: None,
    }
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

/// The host's own attachments, but for its gateways.
fn shims(context: &Context) -> Result<Vec<Attachment>> {
    let kept = attachment::all(&*context.store, Some(&TargetName::Host))?;
    let is_shim = |attachment: &Attachment| attachment.wish.forwarding.is_none();
    Ok(kept.into_iter().collect::<Result<Vec<_>>>()?.into_iter().filter(is_shim).collect())
}

fn is_on(shim: &Attachment, parent: &IfName) -> bool {
    shim.link().is_some_and(|link| link.parent.name == *parent)
}

/// A half-made one is not in the way: it is taken back first.
fn refuse_second(parent: &IfName, context: &Context) -> Result<()> {
    let is_there = |shim: &Attachment| {
        let state = super::ls::State::of(shim);
        is_on(shim, parent) && matches!(state, super::ls::State::Up | super::ls::State::Down)
    };
    match shims(context)?.into_iter().find(is_there) {
        None => Ok(()),
        Some(shim) => Err(Error::conflict(format!("{parent} has a shim already, {}", shim.interface()))
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
        match (made.automatic, routes.is_empty()) {
            (true, true) => output.line("  no container is attached there; those that will be get a route each"),
            (_, false) => output.line(format_args!("  this host reaches {}", routes.join(", "))),
            (false, true) => {}
        }
    }
    made.warnings.iter().for_each(|warning| output.warn(warning));
}
