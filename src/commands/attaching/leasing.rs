//! The lease of an attachment that is being made: asked for inside, by a link that has no address.

use std::{sync::Arc, time::Duration};

use super::{changed_meanwhile, random};
use crate::{
    apply::Transaction,
    commands::Context,
    config,
    container::{self, Target},
    dhcp::{Client, ClientId, External, Lease, OptionCode, OptionSpec, Program, Start, external::Helper, v6},
    docker::{Engine, EngineKind},
    error::{Error, Kind, Result},
    kernel::{
        Kernel, Lifetimes, Netns, client,
        dhcp::{Quest, boot_time},
        dhcp6, resolver,
    },
    namespace,
    plan::{Advertised, Driver, LinkAddress, Parent, Wiring, Wish, leased},
    store::{Attachment, Committed, Dhcp, Ipv6Lease, LeaseRecord, Moment, attachment, lease},
    types::{HostAddress, IfName, RouteSpec, Span, TargetName, digest},
};

/// What is asked of the LAN's server, and how.
#[derive(Debug, Clone)]
pub struct Asking {
    /// None: one that is the same for the same host, target and interface.
    pub client_id: Option<ClientId>,
    /// None: the container's own.
    pub hostname: Option<String>,
    pub broadcast: bool,
    pub request: Vec<OptionCode>,
    pub options: Vec<OptionSpec>,
    /// Routes beside those of the lease.
    pub routes: Vec<RouteSpec>,
    pub timeout: Span,
    /// Write the lease's resolvers into the container.
    pub dns: bool,
    pub renew: bool,
    /// Who asks, if not plumb itself, and the image if that is in a container.
    pub external: Option<(External, String)>,
    /// Ping the router afterwards.
    pub check_gateway: bool,
}

impl Asking {
    /// How the link of `wiring` asks, now that it has a name and a MAC address.
    pub fn dhcp(
        &self,
        target: &Target,
        wiring: &Wiring,
        parent: &Parent,
        probe: Span,
        context: &Context,
    ) -> Result<Dhcp> {
        let (link, name) = (&wiring.link, target.name.to_string());
        let mac = link.mac.or(parent.mac).ok_or_else(|| {
            Error::failed(format!("{} has no MAC address, and DHCP knows its clients by one", parent.name))
        })?;
        if self.dns && target.place.root().is_none_or(|root| resolver::is_hosts_own(&root)) {
            return Err(Error::usage(format!("--dns writes a container's file, and {name} has none of its own"))
                .hint("leave --dns out"));
        }
        let host = config::host_identity().unwrap_or_default();
        let derived = || ClientId::derived(&["plumb dhcp", &host, &name, link.name.as_str()]);
        let hostname = match &self.hostname {
            Some(hostname) => Some(OptionSpec::hostname(hostname).map_err(Error::usage)?),
            None => container::host_name(&target.place).and_then(|name| OptionSpec::hostname(&name).ok()),
        };
        let client = Client {
            id: Some(self.client_id.clone().unwrap_or_else(derived)),
            // By its IP address alone an ipvlan is told from its siblings, and it has none yet.
            broadcast: self.broadcast || matches!(link.driver, Driver::Ipvlan(_)),
            request: self.request.clone(),
            options: hostname.into_iter().chain(self.options.iter().cloned()).collect(),
            ..Client::new(mac)
        };
        let external = self.external(&client, target, link.name.as_str(), context)?;
        Ok(Dhcp { client, external, probe, routes: self.routes.clone(), dns: self.dns, renew: self.renew })
    }

    /// The client that asks instead of plumb's own, if it is there and can ask so.
    fn external(
        &self,
        client: &Client,
        target: &Target,
        interface: &str,
        context: &Context,
    ) -> Result<Option<External>> {
        let Some((external, image)) = &self.external else { return Ok(None) };
        let mut external = external.clone();
        external.call(client, interface, None).map_err(Error::usage)?;
        if external.program != Program::Busybox {
            client::find(external.program)?;
            return Ok(Some(external));
        }
        let engines = &context.engines;
        let engine = match target.name {
            TargetName::Docker(_) => Some((EngineKind::Docker, &engines.docker)),
            TargetName::Podman(_) => Some((EngineKind::Podman, &engines.podman)),
            _ => None,
        };
        let (Some((kind, engine)), Some(id)) = (engine, &target.id) else {
            return Err(Error::usage(format!(
                "--client busybox runs in a container that shares its target's network, and {} is no container of an engine",
                target.name
            ))
            .hint("--client udhcpc is the same client, of this host"));
        };
        Engine::connect(kind, engine)?.require_image(image)?;
        let mark = digest(&["plumb dhcp helper", &target.name.to_string(), interface]);
        let name = format!("plumb-dhcp-{}", mark.get(..12).unwrap_or(&mark));
        let (kind, engine) = (kind.name().to_owned(), engine.clone());
        external.helper = Some(Helper { kind, engine, target: id.clone(), image: image.clone(), name });
        Ok(Some(external))
    }
}

/// A lease that is granted, until its attachment is made.
pub struct Granted {
    lease: Arc<Lease>,
    client: Client,
    /// When it was asked for.
    asked: Duration,
    index: u32,
    name: IfName,
    ipv6: Option<(v6::Client, v6::Lease)>,
}

/// What the LAN has given to an attachment that is made.
pub struct Kept {
    pub lease: Lease,
    pub ipv6: Option<Ipv6>,
}

/// Where IPv6 addresses came from.
pub enum Ipv6 {
    Leased(v6::Lease),
    Advertised(Vec<HostAddress>),
}

impl Granted {
    /// The address is there: nobody shall use it for longer than it is leased, whatever becomes of who
    /// renews it.
    pub fn limit(&self) -> Result<()> {
        let Some(whole) = self.lease.term.expire() else { return Ok(()) };
        let (index, name) = (self.index, self.name.clone());
        let address = LinkAddress { index, name, address: self.lease.address, skip_dad: false };
        let left = (self.asked + whole).saturating_sub(boot_time());
        let limited = Lifetimes::open().and_then(|socket| socket.limit(&address, left));
        limited.map_err(|error| Error::io(format!("cannot limit {} to its lease", address.address), &error))
    }

    /// It is going to be used.
    pub fn keep(self, ipv6: Option<Ipv6>) -> Kept {
        Kept { lease: Arc::unwrap_or_clone(self.lease), ipv6 }
    }

    /// Waits for the IPv6 addresses that the wish has the LAN give, if any, and puts a leased one on record.
    pub fn obtain_ipv6(
        &mut self,
        kernel: &mut Kernel,
        attachment: &Attachment,
        wiring: &Wiring,
        parent: &Parent,
        timeout: Duration,
        context: &Context,
    ) -> Result<Option<Ipv6>> {
        let Some(dhcp) = &attachment.dhcp else { return Ok(None) };
        let (on, skip_dad) = (parent.name.as_str(), attachment.wish.skip_dad);
        let quest = dhcp6::Quest { index: self.index, name: &self.name, tag: &attachment.tag, on, skip_dad, timeout };
        match attachment.wish.advertised {
            Advertised::Nothing => Ok(None),
            Advertised::Addresses => {
                let _waiting = context.output.waiting(format!("waiting for an IPv6 router on {on}"));
                let found = kernel.await_advertised(&quest).map_err(|error| explain(error, wiring, parent))?;
                let addresses = found.iter().filter_map(|there| HostAddress::new(there.ip, there.prefix).ok());
                Ok(Some(Ipv6::Advertised(addresses.collect())))
            }
            Advertised::Routes => {
                let _waiting = context.output.waiting(format!("waiting for a DHCPv6 server on {on}"));
                let store = &*context.store;
                let record = lease::read(store, attachment)?;
                let prefer = record.as_ref().and_then(|record| record.ipv6.as_ref()).map(|ipv6| ipv6.lease.ip());
                let mut machine = v6::Machine::new(v6::Client::beside(&dhcp.client), u64::from_ne_bytes(random()?));
                let lease = kernel.acquire_ipv6(&mut machine, v6::Start::Init { prefer }, &quest);
                let lease = Arc::unwrap_or_clone(lease.map_err(|error| explain(error, wiring, parent))?);
                self.ipv6 = Some((v6::Client::beside(&dhcp.client), lease.clone()));
                if let Some(mut record) = record {
                    let asked = machine.asked().unwrap_or_else(boot_time);
                    let asked = Moment::at(asked, boot_time(), namespace::boot());
                    record.ipv6 = Some(Ipv6Lease::new(lease.clone(), asked));
                    record.save(store)?;
                }
                Ok(Some(Ipv6::Leased(lease)))
            }
        }
    }

    /// Nobody is going to use it. Best effort: it ends by itself.
    pub fn give_back(&self) {
        let _ = crate::kernel::dhcp::release(self.index, &self.client, &self.lease);
        if let Some((client, lease)) = &self.ipv6 {
            let _ = dhcp6::release(self.index, client.clone(), lease);
        }
    }
}

/// What no command says beforehand, as a line that a shell takes.
pub fn in_words(wiring: &Wiring, wish: &Wish) -> String {
    let besides = match wish.advertised {
        Advertised::Routes => ", and for an IPv6 one by DHCPv6",
        Advertised::Nothing | Advertised::Addresses => "",
    };
    let name = &wiring.link.name;
    format!("# {name} then asks for a lease by DHCP{besides}; its address and routes are what the server says")
}

/// Asks for a lease, plans with what it says, and puts both on record.
pub fn obtain(
    tx: &mut Transaction<'_, Kernel>,
    attachment: &mut Attachment,
    wiring: &mut Wiring,
    parent: &Parent,
    host: &Netns,
    timeout: Duration,
    context: &Context,
) -> Result<Option<Granted>> {
    let Some(dhcp) = attachment.dhcp.clone() else { return Ok(None) };
    let store = &*context.store;
    let index = wiring.link.index;
    // The answer for an address that nobody has yet gets to an ipvlan's parent only.
    let check_from = matches!(wiring.link.driver, Driver::Ipvlan(_)).then_some((host, parent.index));
    let on = parent.name.as_str();
    let quest = Quest { index, on, probe: dhcp.probe.duration(), timeout, check_from };
    let remembered = lease::read(store, attachment).ok().flatten();
    let earlier_ipv6 = remembered.as_ref().and_then(|record| record.ipv6.clone());
    let (lease, asked) = {
        let _waiting = context.output.waiting(format!("waiting for a DHCP server on {on}"));
        seek(tx.executor, &dhcp, remembered, &quest, &wiring.link.name)
            .map_err(|error| explain(error, wiring, parent))?
    };
    let name = wiring.link.name.clone();
    let granted = Granted { lease: lease.clone(), client: dhcp.client.clone(), asked, index, name, ipv6: None };
    let settled = (|| {
        let inside = tx.executor.look()?;
        let wish = dhcp.wish(&attachment.wish, &lease);
        let leased = leased::plan(&wish, dhcp.routes.len(), lease.mtu, &wiring.link, &inside)?;
        let leased = match (dhcp.resolver(&lease), attachment.place.root()) {
            (Some(text), Some(root)) => {
                let before = resolver::read(&root)?;
                leased.with_resolver(root, before, text)
            }
            _ => leased,
        };
        *wiring = wiring.clone().with(leased);
        attachment.wish = wish;
        attachment.steps = wiring.steps().cloned().collect();
        attachment.inherit(store)?;
        let asked = Moment::at(asked, boot_time(), namespace::boot());
        let mut record = LeaseRecord::new(attachment, (*lease).clone(), asked);
        // So that it can be asked for again.
        record.ipv6 = earlier_ipv6.filter(|_| attachment.wish.advertised == Advertised::Routes);
        match attachment.lease(&record, store)? {
            Committed::Done => Ok(()),
            Committed::Held { claim, holder } => Err(attachment::held(store, &claim, &holder)),
            Committed::Unmet => Err(changed_meanwhile(attachment.network.as_ref())),
        }
    })();
    match settled {
        Ok(()) => Ok(Some(granted)),
        Err(error) => {
            granted.give_back();
            Err(error)
        }
    }
}

/// Who comes back asks for what it had, and only if nobody knows of that, for any address. Says when the
/// lease was asked for, too.
fn seek(
    kernel: &mut Kernel,
    dhcp: &Dhcp,
    remembered: Option<LeaseRecord>,
    quest: &Quest<'_>,
    name: &IfName,
) -> Result<(Arc<Lease>, Duration)> {
    const FOR_THE_OLD_ONE: Duration = Duration::from_secs(2);
    let mut machine = dhcp.machine(u64::from_ne_bytes(random()?));
    // How another client begins is its own affair.
    let before = remembered.as_ref().map(|record| &record.lease);
    let call = dhcp.external.as_ref().map(|external| external.call(&dhcp.client, name.as_str(), before));
    let call = call.transpose().map_err(Error::usage)?;
    let mut ask = |start, timeout| -> Result<(Arc<Lease>, Duration)> {
        let quest = Quest { timeout, ..quest.clone() };
        let lease = match &call {
            Some(call) => kernel.acquire_by(call, &mut machine, &quest)?,
            None => kernel.acquire(&mut machine, start, &quest)?,
        };
        let began = machine.expires().zip(lease.term.expire());
        let asked = began.map_or_else(boot_time, |(end, whole)| end.saturating_sub(whole));
        Ok((lease, asked))
    };
    let (now, boot) = (boot_time(), namespace::boot());
    let good = remembered.as_ref().filter(|record| call.is_none() && record.standing().is_good(now, &boot));
    let mut left = quest.timeout;
    if let Some(record) = good {
        let start = Start::Reboot { lease: record.lease.clone().into(), age: record.asked.age(now, &boot) };
        let patience = FOR_THE_OLD_ONE.min(left / 2);
        match ask(start, patience) {
            Err(error) if error.kind == Kind::TimedOut => left -= patience,
            other => return other,
        }
    }
    ask(Start::Init { prefer: remembered.map(|record| record.lease.ip()) }, left)
}

/// That nobody answers may have a cause that can be seen from here.
fn explain(error: Error, wiring: &Wiring, parent: &Parent) -> Error {
    match (error.kind, &wiring.dropped) {
        (Kind::TimedOut, Some(dropped)) => error.hint(dropped.clone()),
        (Kind::TimedOut, None) if !parent.carrier => {
            error.hint(format!("{} has no carrier; is the cable plugged in?", parent.name))
        }
        _ => error,
    }
}
