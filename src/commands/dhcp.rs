//! `plumb dhcp`: an address from the LAN's own server.

use super::{
    Context, agent, attach,
    attaching::{self, Asking, Intent, Joining, Uplink},
};
use crate::{
    cli::{ClientOptions, Dhcp, Ipv6From},
    dhcp::{External, OptionSpec, Program},
    error::{Error, Result},
    plan::{Advertised, Driver, Wish},
    types::Span,
};

pub fn run(options: Dhcp, context: &Context) -> Result<()> {
    let (wish, intent) = meaning(&options, context)?;
    super::refuse_host(&options.target, "attaches")?;
    let mut report = attaching::attach(&options.target, options.wait, wish, &intent, context)?;
    if !options.client.no_renew && !options.dry_run {
        // The lease is there all the same, and good for a while.
        if let Err(error) = agent::tell(report.lease_key(context), context) {
            report.warnings.push(format!("nobody renews the lease: {error}"));
        }
    }
    report.say(context);
    Ok(())
}

/// From what was typed to what is meant: flag first, then the configuration, then what is built in.
fn meaning(options: &Dhcp, context: &Context) -> Result<(Wish, Intent)> {
    let link = match options.network {
        Some(_) => attaching::network_wish(&options.target, &options.link)?,
        None => attaching::wish(&options.target, &options.link)?,
    };
    let driver = &link.driver;
    if driver.is_routed_by_the_host() {
        let mode = driver.mode().unwrap_or_default();
        return Err(Error::usage(format!("mode {mode} takes no broadcasts, and DHCP lives by them"))
            .hint("use --mode l2, or plumb flat with an address of your choice"));
    }
    if driver.leads_nowhere() {
        return Err(Error::usage("a dummy leads nowhere, so no DHCP server answers there")
            .hint("plumb flat gives it an address of your choice"));
    }
    let uplink = uplink(options, driver, context)?;
    let (probe, check) = attaching::checks(&options.checks, std::iter::empty(), context);
    let wish = Wish {
        metric: options.routing.metric,
        keep_default: options.routing.keep_default,
        off_link_gateway: true,
        skip_dad: probe.is_zero(),
        advertised: match options.client.ipv6 {
            Ipv6From::None => Advertised::Nothing,
            Ipv6From::Slaac => Advertised::Addresses,
            Ipv6From::Dhcp => Advertised::Routes,
        },
        driver: link.driver.clone().in_vlan(options.vlan),
        ..link
    };
    let lease = Some(asking(options, context)?);
    Ok((wish, Intent { uplink, lease, probe, check, dry_run: options.dry_run }))
}

fn uplink(options: &Dhcp, driver: &Driver, context: &Context) -> Result<Uplink> {
    let typed = options.host_interface.as_ref();
    let Some(name) = &options.network else {
        return attaching::uplink(typed, options.vlan, driver, context);
    };
    let stored = attach::find(name, context)?;
    let host_interface = typed.unwrap_or(&stored.network.parent).clone();
    let joining = Joining::new(stored, host_interface, Vec::new());
    Ok(Uplink::Network(Box::new(joining)))
}

fn asking(options: &Dhcp, context: &Context) -> Result<Asking> {
    const PATIENCE: Span = Span::millis(10_000);
    let client = &options.client;
    if let Some(hostname) = &client.hostname {
        OptionSpec::hostname(hostname).map_err(Error::usage)?;
    }
    let vendor_class = client.vendor_class.as_deref().map(OptionSpec::vendor_class);
    let vendor_class = vendor_class.transpose().map_err(Error::usage)?;
    let timeout = options.timeout.or(context.config.dhcp_timeout).unwrap_or(PATIENCE);
    if timeout.is_zero() {
        return Err(Error::usage("--timeout 0 leaves a server no time to answer").hint("--timeout 10s"));
    }
    Ok(Asking {
        client_id: client.client_id.clone(),
        hostname: client.hostname.clone(),
        broadcast: client.broadcast,
        request: client.request.clone(),
        options: vendor_class.into_iter().chain(client.option.iter().cloned()).collect(),
        routes: options.routing.route.clone(),
        timeout,
        dns: client.dns,
        renew: !client.no_renew,
        external: external(client)?,
        check_gateway: attaching::checks_gateway(&options.checks, context),
    })
}

/// Who asks, if that is not plumb, and the image that it may come in.
fn external(typed: &ClientOptions) -> Result<Option<(External, String)>> {
    let Some(program) = typed.program else { return Ok(None) };
    let image = match &typed.client_image {
        Some(_) if program != Program::Busybox => {
            return Err(Error::usage(format!("--client-image is for --client busybox, and {program} is this host's")));
        }
        typed => typed.clone().unwrap_or_else(|| Program::Busybox.name().to_owned()),
    };
    Ok(Some((External { program, arguments: typed.client_arg.clone(), helper: None }, image)))
}
