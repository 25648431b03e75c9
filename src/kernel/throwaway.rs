//! Namespaces that nobody else knows of, with devices between them. Nothing is recorded and nothing taken
//! back: with its last open file the kernel takes a namespace away and all that is in it, however plumb ends.

use std::{collections::HashMap, net::IpAddr};

use nix::{errno::Errno, sched::CloneFlags};
use rtnetlink::{
    LinkBridge, LinkIpVlan, LinkMacVlan, LinkUnspec, LinkVeth, LinkVlan, LinkVxlan,
    packet_core::{NLM_F_CREATE, NLM_F_EXCL},
    packet_route::{
        RouteNetlinkMessage as Message,
        link::{InfoData, InfoVeth, LinkAttribute, LinkMessage, MacVlanMode},
    },
};

use super::{Kernel, Netns, Refusal, links::kernel_mode as ipvlan_mode, netns::on_a_thread, nftables, sysctl};
use crate::{
    apply::{Execute, StepError},
    bench::layout::{Layout, Make, Site},
    error::{Error, RUN_AS_ROOT, Result},
    plan::{Driver, LinkAddress, Parent, Route, Step},
    types::IfName,
};

/// A new namespace, and a socket in it.
pub(super) struct Throwaway {
    pub(super) namespace: Netns,
    pub(super) kernel: Kernel,
    /// The devices in it, by their names.
    devices: HashMap<&'static str, u32>,
}

/// A way as it stands: its namespaces, until this is dropped.
pub struct Standing {
    sites: HashMap<Site, Throwaway>,
    /// The host's interface that it hangs on.
    uplink: Option<Parent>,
    mtu: u32,
    wire_mtu: u32,
}

/// Why there is no such way here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lacking(pub String);

/// What keeps a way from being made.
enum Obstacle {
    Lacking(Lacking),
    Failed(Error),
}

impl From<Error> for Obstacle {
    fn from(error: Error) -> Obstacle {
        Obstacle::Failed(error)
    }
}

pub(super) const CREATE: u16 = NLM_F_CREATE | NLM_F_EXCL;
/// The container's interface, as Docker calls it.
const INSIDE: &str = "eth0";
/// The uplink where no interface of the host's is asked for, and its other end.
const UPLINK: &str = "uplink";
const LAN: &str = "lan";

impl Throwaway {
    pub(super) fn new() -> Result<Throwaway> {
        on_a_thread(|| {
            nix::sched::unshare(CloneFlags::CLONE_NEWNET).map_err(|errno| match errno {
                Errno::EPERM => {
                    Error::not_permitted("cannot make a namespace: CAP_SYS_ADMIN is missing").hint(RUN_AS_ROOT)
                }
                _ => Error::failed(format!("cannot make a namespace: {}", errno.desc().to_lowercase())),
            })?;
            // Otherwise IPv6 would look for neighbours in the midst of a measurement.
            for key in ["all", "default"] {
                let _ = sysctl::write(&format!("net/ipv6/conf/{key}/disable_ipv6"), "1");
            }
            let namespace = Netns::of_this_thread()?;
            let mut kernel = Kernel::inside_only(namespace.raw())?;
            let loopback = LinkUnspec::new_with_index(LOOPBACK).up().build();
            kernel
                .inside(async |inside| inside.change(Message::SetLink(loopback), 0).await)?
                .map_err(|refusal| Error::failed(format!("cannot set lo up: {refusal}")))?;
            Ok(Throwaway { namespace, kernel, devices: HashMap::new() })
        })
    }

    pub(super) fn create(&mut self, message: LinkMessage) -> Result<std::result::Result<(), Refusal>> {
        self.kernel.inside(async |inside| inside.change(Message::NewLink(message), CREATE).await)
    }

    pub(super) fn change(&mut self, message: LinkMessage) -> Result<std::result::Result<(), Refusal>> {
        self.kernel.inside(async |inside| inside.change(Message::SetLink(message), 0).await)
    }
}

/// The kernel gives each namespace's own loopback the first index.
pub(super) const LOOPBACK: u32 = 1;

impl Standing {
    /// Makes all that `layout` consists of, on the host's `uplink` if there is one. What the kernel lacks is
    /// no failure.
    pub fn make(layout: &Layout, uplink: Option<&Parent>) -> Result<std::result::Result<Standing, Lacking>> {
        let uplink = uplink.filter(|_| layout.has_uplink).cloned();
        let mut standing = Standing { sites: HashMap::new(), uplink, mtu: layout.mtu, wire_mtu: layout.wire_mtu };
        standing.site(Site::Client)?;
        for make in &layout.make {
            match standing.add(make) {
                Ok(()) => {}
                Err(Obstacle::Failed(error)) => return Err(error),
                Err(Obstacle::Lacking(lacking)) => {
                    standing.take_down()?;
                    return Ok(Err(lacking));
                }
            }
        }
        Ok(Ok(standing))
    }

    /// Where the senders are.
    pub fn client(&self) -> Option<&Netns> {
        self.sites.get(&Site::Client).map(|site| &site.namespace)
    }

    /// Where the receivers are: with the senders, where there is one namespace only.
    pub fn server(&self) -> Option<&Netns> {
        self.sites.get(&Site::Server).or(self.sites.get(&Site::Client)).map(|site| &site.namespace)
    }

    /// Lets segments of up to `size` bytes pass all that was made, on the host's own uplink as it is.
    pub fn tune(&mut self, size: u32) -> Result<std::result::Result<(), Lacking>> {
        for site in self.sites.values_mut() {
            match site.kernel.raise_segments(size)? {
                Ok(()) => {}
                Err(refusal) if is_unknown(&refusal) => {
                    return Ok(Err(Lacking(
                        "this kernel is older than 6.3, which brought segments above 64 KiB".into(),
                    )));
                }
                Err(refusal) => return Err(Error::failed(format!("cannot raise the segments' size: {refusal}"))),
            }
        }
        Ok(Ok(()))
    }

    /// Deletes what hangs on the host's own interface at once: with its namespace it would go a little later,
    /// and until then be in the way of the next.
    pub fn take_down(mut self) -> Result<()> {
        if self.uplink.is_none() {
            return Ok(());
        }
        for site in self.sites.values_mut() {
            let indexes: Vec<(&str, u32)> = site.devices.drain().collect();
            for (name, index) in indexes {
                match site.kernel.delete_index(index, name) {
                    Ok(()) | Err(StepError::Gone(_)) => {}
                    Err(StepError::Refused(error)) => return Err(error),
                }
            }
        }
        Ok(())
    }

    fn site(&mut self, site: Site) -> Result<&mut Throwaway> {
        Ok(match self.sites.entry(site) {
            std::collections::hash_map::Entry::Occupied(there) => there.into_mut(),
            std::collections::hash_map::Entry::Vacant(vacant) => vacant.insert(Throwaway::new()?),
        })
    }

    /// The namespace's open file.
    fn file(&mut self, site: Site) -> Result<i32> {
        Ok(self.site(site)?.namespace.raw())
    }

    fn add(&mut self, make: &Make) -> Outcome {
        match make {
            Make::Veth(ends @ [(Site::Host, _), (Site::Host | Site::OtherHost, _)]) => {
                self.add_veth(*ends, self.wire_mtu)
            }
            Make::Veth(ends) => self.add_veth(*ends, self.mtu),
            Make::Bridge { at, name, ports } => self.add_bridge(*at, name, ports),
            Make::Uplink if self.uplink.is_some() => Ok(()),
            Make::Uplink => self.add_veth([(Site::Host, UPLINK), (Site::Host, LAN)], self.wire_mtu),
            Make::Vlan { name, id } => self.add_vlan(name, *id),
            Make::Child { at, on, driver } => self.add_container_link(*at, *on, driver),
            Make::Vxlan { at, name, over, local, remote } => {
                let (over, mtu) = (self.index(*at, over)?, self.mtu);
                // IANA's port (RFC 7348), where Linux by itself takes an older one.
                let link = LinkVxlan::new(name, 1).dev(over).local(*local).remote(*remote).port(4789).mtu(mtu).up();
                let made = self.site(*at)?.create(link.build())?;
                made.map_err(|refusal| obstacle("vxlan", name, &refusal))?;
                self.note(*at, name)
            }
            Make::Address { at, on, address } => {
                let index = self.index(*at, on)?;
                let name: IfName = on.parse().map_err(Error::failed)?;
                let address = LinkAddress { index, name, address: *address, skip_dad: true };
                self.step(*at, &Step::AddAddress(address))
            }
            Make::Gateway { at, via } => self.add_gateway(*at, *via),
            Make::Forward(at) => {
                let write = |_: &mut Kernel| sysctl::write("net/ipv4/ip_forward", "1").map_err(Error::from);
                Ok(self.site(*at)?.namespace.look_inside(write)?)
            }
            Make::Masquerade(at, masquerade) => {
                let add = |_: &mut Kernel| Ok(nftables::add(masquerade));
                match self.site(*at)?.namespace.look_inside(add)? {
                    Ok(()) => Ok(()),
                    // That was made a moment ago, so what fails is the kernel's part.
                    Err(StepError::Refused(_) | StepError::Gone(_)) => Err(lacks("nft_masq")),
                }
            }
            Make::Publish { at, address, to } => {
                let publish = |_: &mut Kernel| Ok(nftables::publish(*address, *to));
                match self.site(*at)?.namespace.look_inside(publish)? {
                    Ok(()) => Ok(()),
                    Err(refusal) if is_unknown(&refusal) => Err(lacks("nft_nat")),
                    Err(refusal) => Err(Error::failed(format!("cannot publish {to}: {refusal}")).into()),
                }
            }
        }
    }

    fn add_veth(&mut self, ends: [(Site, &'static str); 2], mtu: u32) -> Outcome {
        let [(near, near_name), (far, far_name)] = ends;
        // The end that is made first cannot be up yet: it has no other (`veth_open`).
        let mut peer = LinkUnspec::new_with_name(far_name).mtu(mtu).build();
        peer.attributes.push(LinkAttribute::NetNsFd(self.file(far)?));
        let link = LinkVeth::new(near_name, far_name).set_info_data(InfoData::Veth(InfoVeth::Peer(peer)));
        let made = self.site(near)?.create(link.mtu(mtu).up().build())?;
        made.map_err(|refusal| obstacle("veth", near_name, &refusal))?;
        self.note(near, near_name)?;
        self.note(far, far_name)?;
        let up = LinkUnspec::new_with_index(self.index(far, far_name)?).up().build();
        let up = self.site(far)?.change(up)?;
        up.map_err(|refusal| Error::failed(format!("cannot set {far_name} up: {refusal}")).into())
    }

    fn add_bridge(&mut self, at: Site, name: &'static str, ports: &[&'static str]) -> Outcome {
        let made = self.site(at)?.create(LinkBridge::new(name).up().build())?;
        made.map_err(|refusal| obstacle("bridge", name, &refusal))?;
        self.note(at, name)?;
        let bridge = self.index(at, name)?;
        for port in ports {
            let index = self.index(at, port)?;
            let message = LinkUnspec::new_with_index(index).controller(bridge).build();
            let joined = self.site(at)?.change(message)?;
            joined.map_err(|refusal| Error::failed(format!("cannot make {port} a port of {name}: {refusal}")))?;
        }
        Ok(())
    }

    /// `eth0` of a container, made in place.
    fn add_container_link(&mut self, at: Site, on: Option<&'static str>, driver: &Driver) -> Outcome {
        let parent = match on {
            Some(name) => self.index(Site::Host, name)?,
            None => self.uplink_index()?,
        };
        let (mtu, namespace) = (self.mtu, self.file(at)?);
        let message = match driver {
            Driver::Macvlan(_) => {
                LinkMacVlan::new(INSIDE, parent, MacVlanMode::Bridge).mtu(mtu).setns_by_fd(namespace).up().build()
            }
            Driver::Ipvlan(mode) => {
                LinkIpVlan::new(INSIDE, parent, ipvlan_mode(*mode)).mtu(mtu).setns_by_fd(namespace).up().build()
            }
            Driver::Veth { .. } | Driver::Phys { .. } | Driver::Dummy | Driver::Ipoib { .. } => {
                return Err(Error::failed("only what hangs on one parent is made so: this is a bug").into());
            }
        };
        let made = if on.is_some() { self.site(Site::Host)?.create(message)? } else { self.create_on_uplink(message)? };
        made.map_err(|refusal| obstacle(driver.kind(), INSIDE, &refusal))?;
        self.note(at, INSIDE)
    }

    fn add_vlan(&mut self, name: &'static str, id: u16) -> Outcome {
        let (parent, mtu, namespace) = (self.uplink_index()?, self.mtu, self.file(Site::Host)?);
        let message = LinkVlan::new(name, parent, id).mtu(mtu).setns_by_fd(namespace).up().build();
        let made = self.create_on_uplink(message)?;
        made.map_err(|refusal| obstacle("8021q", name, &refusal))?;
        self.note(Site::Host, name)
    }

    /// By a socket where the uplink is: there its index means it.
    fn create_on_uplink(&mut self, message: LinkMessage) -> Result<std::result::Result<(), Refusal>> {
        if self.uplink.is_none() {
            return self.site(Site::Host)?.create(message);
        }
        Kernel::with_host()?.on_host(async |host| host.change(Message::NewLink(message), CREATE).await)
    }

    fn uplink_index(&mut self) -> Result<u32> {
        match &self.uplink {
            Some(uplink) => Ok(uplink.index),
            None => self.index(Site::Host, UPLINK),
        }
    }

    fn add_gateway(&mut self, at: Site, via: IpAddr) -> Outcome {
        let device = (self.index(at, INSIDE)?, INSIDE);
        let route = Route::new(None, Some(via), false, None, device, via.is_ipv6());
        self.step(at, &Step::AddRoute(route))
    }

    fn step(&mut self, at: Site, step: &Step) -> Outcome {
        self.site(at)?.kernel.execute(step).map_err(|error| Obstacle::Failed(error.into()))
    }

    /// Remembers the device that was made, by the number that the kernel has given it.
    fn note(&mut self, at: Site, name: &'static str) -> Outcome {
        let site = self.site(at)?;
        let links = site.kernel.links()?;
        let made = links.iter().find(|link| link.name == name);
        let index = made.map(|link| link.index).ok_or_else(|| Error::failed(format!("{name} has gone")))?;
        site.devices.insert(name, index);
        Ok(())
    }

    fn index(&mut self, at: Site, name: &str) -> Result<u32> {
        let index = self.site(at)?.devices.get(name).copied();
        index.ok_or_else(|| Error::failed(format!("{name} is used before it is made: this is a bug")))
    }
}

type Outcome = std::result::Result<(), Obstacle>;

/// What the refusal to make a device of that kind means.
fn obstacle(module: &str, name: &str, refusal: &Refusal) -> Obstacle {
    match refusal.errno {
        Errno::EOPNOTSUPP => lacks(module),
        Errno::EBUSY => {
            Obstacle::Lacking(Lacking(format!("the uplink is in use by another kind of link than {module}")))
        }
        _ => Obstacle::Failed(Error::failed(format!("cannot make {name}, by {module}: {refusal}"))),
    }
}

fn lacks(module: &str) -> Obstacle {
    Obstacle::Lacking(Lacking(format!("this kernel lacks it: module {module}")))
}

/// Whether the kernel does not know what it was asked for.
fn is_unknown(refusal: &Refusal) -> bool {
    matches!(refusal.errno, Errno::ENOENT | Errno::EOPNOTSUPP | Errno::EPROTONOSUPPORT)
}
