//! The only folder that speaks to the kernel's network: netlink, ARP, ICMP, DHCP's sockets and sysctls.

mod addresses;
mod arp;
mod changes;
pub mod client;
pub mod counters;
pub mod dhcp;
pub mod dhcp6;
pub mod features;
mod icmp;
mod interfaces;
pub mod iptables;
mod links;
mod moving;
mod netlink;
mod netns;
mod nftables;
pub mod ovs;
mod packet;
mod ports;
mod qdiscs;
pub mod resolver;
mod routes;
mod rules;
mod segments;
pub mod survey;
mod sysctl;
pub mod throwaway;
mod vlan;
pub mod wifi;

use std::{os::fd::RawFd, time::Instant};

use tokio::runtime::Runtime;

pub use addresses::Lifetimes;
pub use arp::Answer;
pub use changes::Changes;
pub use icmp::Reach;
pub use interfaces::Interface;
pub use netns::{Netns, NetnsId, all as all_namespaces, cookie};
pub use qdiscs::Counters;

use crate::{
    apply::{Execute, StepError},
    error::{Error, Result},
    plan::{Inside, Step, facts::Ipv4Forwarding},
    types::IfName,
};
use netlink::{Netlink, Refusal};

/// Sockets to the kernel from a thread inside a namespace: one on the host (where the parents are)
/// and one in the namespace (where all else happens).
pub struct Kernel {
    runtime: Runtime,
    host: Option<Netlink>,
    host_namespace: Option<Netns>,
    inside: Option<Netlink>,
    /// The namespace's open file, for links that are created in it.
    namespace: RawFd,
}

impl Kernel {
    /// A kernel with a socket in the calling thread's namespace as the host's.
    pub fn with_host() -> Result<Kernel> {
        let runtime = runtime()?;
        let host = Some(Netlink::open(&runtime)?);
        let host_namespace = Some(Netns::of_this_thread()?);
        Ok(Kernel { runtime, host, host_namespace, inside: None, namespace: -1 })
    }

    fn inside_only(namespace: RawFd) -> Result<Kernel> {
        let runtime = runtime()?;
        let mut kernel = Kernel { runtime, host: None, host_namespace: None, inside: None, namespace: -1 };
        kernel.open_inside(namespace)?;
        Ok(kernel)
    }

    fn open_inside(&mut self, namespace: RawFd) -> Result<()> {
        self.inside = Some(Netlink::open(&self.runtime)?);
        self.namespace = namespace;
        Ok(())
    }

    /// Everything about the namespace's inside that a plan needs: three dumps.
    pub fn look(&mut self) -> Result<Inside> {
        let links = self.links()?;
        let addresses = self.addresses()?;
        let routes = self.routes(&links)?;
        Ok(Inside { links, addresses, routes, rules: Vec::new(), ipv6: sysctl::ipv6_defaults() })
    }

    /// The same with the rules: all that a change depends on.
    pub fn look_at_all(&mut self) -> Result<Inside> {
        Ok(Inside { rules: self.rules()?, ..self.look()? })
    }

    /// The part of it that undoing depends on: two dumps.
    pub fn look_at_links_and_routes(&mut self) -> Result<Inside> {
        let links = self.links()?;
        let routes = self.routes(&links)?;
        Ok(Inside { links, routes, ..Inside::default() })
    }

    /// How the namespace forwards IPv4, for a gateway on `parent`.
    pub fn ipv4_forwarding(&mut self, parent: &IfName) -> Result<Ipv4Forwarding> {
        let forwarding = sysctl::ipv4_forwarding(parent)?;
        Ok(Ipv4Forwarding { accept_in: iptables::accept_in(), ..forwarding })
    }

    /// The namespace's number, unique until the next boot; kernels before 5.14 have none.
    pub fn cookie(&self) -> Option<u64> {
        netns::cookie()
    }

    /// Whether the inside is `namespace`.
    pub fn is_inside(&self, namespace: &Netns) -> bool {
        Netns::of_this_thread().is_ok_and(|here| here.id() == namespace.id())
    }

    fn host_namespace(&self) -> Result<&Netns> {
        self.host_namespace.as_ref().ok_or_else(|| Error::failed("no way to the host: this is a bug"))
    }

    fn on_host<T>(&mut self, ask: impl AsyncFnOnce(&mut Netlink) -> T) -> Result<T> {
        let host = self.host.as_mut().ok_or_else(|| Error::failed("no socket on the host: this is a bug"))?;
        Ok(self.runtime.block_on(ask(host)))
    }

    fn inside<T>(&mut self, ask: impl AsyncFnOnce(&mut Netlink) -> T) -> Result<T> {
        let inside =
            self.inside.as_mut().ok_or_else(|| Error::failed("no socket inside the namespace: this is a bug"))?;
        Ok(self.runtime.block_on(ask(inside)))
    }
}

fn runtime() -> Result<Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()
        .map_err(|error| Error::io("cannot start the event loop", &error))
}

/// An error for a question that the kernel refused to answer.
fn cannot_read(what: &str) -> impl Fn(Refusal) -> Error + '_ {
    move |refusal| Error::failed(format!("cannot read the {what}: {refusal}"))
}

impl Execute for Kernel {
    fn execute(&mut self, step: &Step) -> std::result::Result<(), StepError> {
        match step {
            Step::AddLink(link) => match link.home() {
                Some(home) => self.move_in(link, home),
                None => self.add_link(link),
            },
            Step::DeleteLink(link) => match link.home() {
                Some(home) => self.move_out(link, home),
                None => self.delete_link(link),
            },
            Step::AddTag(tagged) => self.add_tag(tagged),
            Step::DeleteTag(tagged) => self.delete_tag(tagged),
            Step::SetSysctl { key, to, .. } => sysctl::write(key, to),
            Step::SetMtu { index, name, to, .. } => self.set_mtu(*index, name, *to),
            Step::SetSegments { on, to, .. } => self.set_segments(on, *to),
            Step::AddAddress(address) => self.add_address(address),
            Step::DeleteAddress(address) => self.delete_address(address),
            Step::AddRoute(route) => self.add_route(route),
            Step::DeleteRoute(route) => self.delete_route(route),
            Step::ReplaceRoute { new, .. } => self.replace_route(new),
            Step::SetResolver { root, from, to } => resolver::write(root, from, to),
            Step::AddMasquerade(masquerade) => nftables::add(masquerade),
            Step::DeleteMasquerade(masquerade) => nftables::delete(masquerade),
            Step::AddIfb(ifb) => self.add_ifb(ifb),
            Step::DeleteIfb(ifb) => self.delete_ifb(ifb),
            Step::AddQdisc(qdisc) => self.add_qdisc(qdisc),
            Step::DeleteQdisc(qdisc) => self.delete_qdisc(qdisc),
            Step::ReplaceQdisc { old, new } => self.replace_qdisc(old, new),
            Step::AddRedirect(redirect) => self.add_redirect(redirect),
            Step::DeleteRedirect(redirect) => self.delete_redirect(redirect),
            Step::AddPort(port) => ovs::add(port),
            Step::DeletePort(port) => ovs::delete(port),
            Step::AddRule(rule) => self.add_rule(rule),
            Step::DeleteRule(rule) => self.delete_rule(rule),
            Step::SetLink(setting) => self.set_link(setting),
            Step::AppendRoute(route) => self.append_route(route),
            Step::DeleteAppended(route) => self.delete_route(route),
        }
    }
}

/// The refusal of a step, as an error that names what was being done. `gone` are the answers that
/// mean that the object does not exist.
fn refused(doing: impl std::fmt::Display, refusal: &Refusal, gone: &[nix::errno::Errno]) -> StepError {
    let message = format!("{doing}: {refusal}");
    if gone.contains(&refusal.errno) {
        return StepError::Gone(message);
    }
    StepError::Refused(match refusal.errno {
        nix::errno::Errno::EPERM => {
            Error::not_permitted(message).hint("CAP_NET_ADMIN is needed, in the container's user namespace too")
        }
        nix::errno::Errno::EEXIST | nix::errno::Errno::EBUSY | nix::errno::Errno::EADDRINUSE => {
            Error::conflict(message)
        }
        _ => Error::failed(message),
    })
}

/// Time left until `end`, as `poll` wants it, and no longer than signals may wait.
fn slice_until(end: Instant) -> nix::poll::PollTimeout {
    let left = end.saturating_duration_since(Instant::now()).min(crate::interrupt::SLICE);
    // Rounded up: a wait of 0 for the last fraction of a millisecond would spin.
    let millis = left.as_micros().div_ceil(1000) as u16;
    nix::poll::PollTimeout::from(millis)
}

/// Whether `ip` is an address of the calling thread's own host. The kernel, asked for the way to
/// an address of its own, answers with that address as the source.
pub fn is_hosts_own(ip: std::net::IpAddr) -> bool {
    source_to(ip) == Some(ip)
}

/// From which of its addresses the calling thread's host would send to `ip`. Nothing is sent.
pub fn source_to(ip: std::net::IpAddr) -> Option<std::net::IpAddr> {
    let any: std::net::IpAddr = if ip.is_ipv4() { [0u8; 4].into() } else { [0u16; 8].into() };
    let asked = std::net::UdpSocket::bind((any, 0)).and_then(|socket| {
        socket.connect((ip, 9))?;
        socket.local_addr()
    });
    asked.ok().map(|from| from.ip())
}
