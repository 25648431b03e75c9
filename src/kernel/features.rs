//! What this kernel has of what plumb uses, found out by making it in a throw-away namespace.

use std::{collections::HashSet, path::Path};

use nix::{
    errno::Errno,
    sys::socket::{AddressFamily, SockFlag, SockType, socket},
};
use rtnetlink::{
    LinkBridge, LinkDummy, LinkIpVlan, LinkMacVlan, LinkMessageBuilder, LinkUnspec, LinkVeth, LinkVlan, LinkVxlan,
    packet_route::{
        RouteNetlinkMessage as Message,
        link::{InfoKind, IpVlanMode, LinkMessage, MacVlanMode},
        tc::{TcAttribute, TcHandle, TcMessage},
    },
};

use super::{
    Refusal, nftables,
    throwaway::{CREATE, LOOPBACK, Throwaway},
};
use crate::{
    apply::Execute,
    error::{Error, RUN_AS_ROOT, Result},
    plan::{
        Ifb, Masquerade, Qdisc, Redirect, Step,
        qdisc::{Device, Discipline, INGRESS, Side, Slot},
    },
    types::IfName,
};

/// A part of the kernel that may be missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Feature {
    Veth,
    Macvlan,
    /// That a MAC address is refused which another macvlan of the parent has.
    MacClash,
    Ipvlan,
    Vlan,
    Vxlan,
    Bridge,
    BridgeVlans,
    Dummy,
    Tbf,
    Htb,
    Netem,
    Ifb,
    Redirect,
    Nftables,
    PacketSockets,
    Ipv6,
    BigTcp,
    Cookies,
}

/// Whether a part is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    There,
    /// Its module lies on the disk and is loaded when it is needed. It is not tried then: some modules make
    /// interfaces of their own when they are loaded, and who only looks shall leave nothing behind.
    Loadable,
    Lacking,
}

impl Presence {
    fn when(it_is: bool) -> Presence {
        if it_is { Presence::There } else { Presence::Lacking }
    }
}

impl Feature {
    /// The ones that others are made on come first.
    pub const ALL: [Feature; 19] = [
        Feature::Veth,
        Feature::Macvlan,
        Feature::MacClash,
        Feature::Ipvlan,
        Feature::Vlan,
        Feature::Vxlan,
        Feature::Bridge,
        Feature::BridgeVlans,
        Feature::Dummy,
        Feature::Tbf,
        Feature::Htb,
        Feature::Netem,
        Feature::Ifb,
        Feature::Redirect,
        Feature::Nftables,
        Feature::PacketSockets,
        Feature::Ipv6,
        Feature::BigTcp,
        Feature::Cookies,
    ];

    /// The modules that it consists of, as modprobe calls them; none where it is part of the kernel itself.
    pub fn modules(self) -> &'static [&'static str] {
        match self {
            Feature::Veth => &["veth"],
            Feature::Macvlan | Feature::MacClash => &["macvlan"],
            Feature::Ipvlan => &["ipvlan"],
            Feature::Vlan => &["8021q"],
            Feature::Vxlan => &["vxlan"],
            Feature::Bridge | Feature::BridgeVlans => &["bridge"],
            Feature::Dummy => &["dummy"],
            Feature::Tbf => &["sch_tbf"],
            Feature::Htb => &["sch_htb"],
            Feature::Netem => &["sch_netem"],
            Feature::Ifb => &["ifb"],
            Feature::Redirect => &["sch_ingress", "cls_u32", "act_mirred"],
            Feature::Nftables => &["nf_tables", "nft_chain_nat", "nft_masq"],
            Feature::PacketSockets => &["af_packet"],
            Feature::Ipv6 => &["ipv6"],
            Feature::BigTcp | Feature::Cookies => &[],
        }
    }
}

/// Looks for each part, in the order of `Feature::ALL`. Needs CAP_SYS_ADMIN and CAP_NET_ADMIN.
pub fn probe() -> Result<Vec<(Feature, Presence)>> {
    let modules = Modules::read();
    let mut trial = Trial { there: Throwaway::new()?, ends: [LOOPBACK; 2] };
    let mut found: Vec<(Feature, Presence)> = Vec::new();
    for feature in Feature::ALL {
        let presence = if feature.modules().iter().any(|module| modules.are_loaded_on_demand(module)) {
            Presence::Loadable
        } else {
            trial.of(feature)?
        };
        found.push((feature, presence));
    }
    Ok(found)
}

/// The modules that are on the disk and not in the kernel.
struct Modules(HashSet<String>);

impl Modules {
    /// Without the folder, as in most containers, none are known of: a part that is not there is tried then,
    /// and the kernel may load it.
    fn read() -> Modules {
        let release = nix::sys::utsname::uname().map(|names| names.release().to_string_lossy().into_owned());
        let list = format!("/lib/modules/{}/modules.dep", release.unwrap_or_default());
        // kernel/drivers/net/macvlan.ko.xz: …
        let name = |line: &str| {
            let path = line.split(':').next()?;
            Some(path.rsplit('/').next()?.split(".ko").next()?.replace('-', "_"))
        };
        Modules(std::fs::read_to_string(list).unwrap_or_default().lines().filter_map(name).collect())
    }

    fn are_loaded_on_demand(&self, name: &str) -> bool {
        self.0.contains(name) && !Path::new("/sys/module").join(name).exists()
    }
}

/// Whether nobody has needed the module so far: nothing can be set up in that part of the kernel.
pub fn is_idle(module: &str) -> bool {
    Modules::read().are_loaded_on_demand(module)
}

/// Where things are tried.
struct Trial {
    there: Throwaway,
    /// What the others are made on: the ends of a veth, which are down, so that the kernel has no queues to
    /// wait for; or the loopback, which is no parent for anything, but of an unknown kind the kernel says so first.
    ends: [u32; 2],
}

/// What rtnetlink has no name for.
#[derive(Default)]
struct Other;

type Outcome = Result<Presence>;

impl Trial {
    fn of(&mut self, feature: Feature) -> Outcome {
        let [near, far] = self.ends;
        match feature {
            Feature::Veth => {
                let made = self.link(LinkVeth::new("near", "far").build())?;
                self.ends = [self.index("near")?, self.index("far")?];
                Ok(made)
            }
            Feature::Macvlan => self.link(LinkMacVlan::new("macvlan", near, MacVlanMode::Bridge).build()),
            Feature::MacClash => self.clash(),
            // A parent carries one of the two.
            Feature::Ipvlan => self.link(LinkIpVlan::new("ipvlan", far, IpVlanMode::L2).build()),
            Feature::Vlan => self.link(LinkVlan::new("vlan", near, 1).build()),
            Feature::Vxlan => self.link(LinkVxlan::new("vxlan", 1).port(4789).build()),
            Feature::Bridge => self.link(LinkBridge::new("bridge").build()),
            Feature::BridgeVlans => self.filtering(),
            Feature::Dummy => self.link(LinkDummy::new("dummy").build()),
            Feature::Ifb => {
                let builder: LinkMessageBuilder<Other> = LinkMessageBuilder::new_with_info_kind(InfoKind::Ifb);
                self.link(builder.name("ifb".to_owned()).build())
            }
            Feature::Tbf => self.qdisc("tbf"),
            Feature::Htb => self.qdisc("htb"),
            Feature::Netem => self.qdisc("netem"),
            Feature::Redirect => self.redirect(),
            Feature::Nftables => self.masquerade(),
            Feature::PacketSockets => Ok(Presence::when(has_packet_sockets())),
            Feature::Ipv6 => Ok(Presence::when(Path::new("/proc/sys/net/ipv6").exists())),
            Feature::BigTcp => Ok(Presence::when(self.there.kernel.segments(LOOPBACK)?.is_some())),
            Feature::Cookies => Ok(Presence::when(super::cookie().is_some())),
        }
    }

    fn link(&mut self, message: LinkMessage) -> Outcome {
        is_known(self.there.create(message)?, Errno::EOPNOTSUPP)
    }

    /// Turned on afterwards: to take back a bridge that cannot be born with it the kernel would need its time.
    fn filtering(&mut self) -> Outcome {
        let message = Message::NewLink(LinkBridge::new("bridge").vlan_filtering(true).build());
        let set = self.there.kernel.inside(async |inside| inside.change(message, 0).await)?;
        is_known(set, Errno::EOPNOTSUPP)
    }

    /// Two with one address, of which one is up. The other is set up afterwards, for the same reason.
    fn clash(&mut self) -> Outcome {
        let mac = vec![0x02, 0x70, 0x6c, 0, 0, 1];
        let link = |name| LinkMacVlan::new(name, self.ends[0], MacVlanMode::Bridge).address(mac.clone());
        let (first, second) = (link("first").up().build(), link("second").build());
        let made = self.there.create(first)?.is_ok() && self.there.create(second)?.is_ok();
        let up = LinkUnspec::new_with_index(self.index("second")?).up().build();
        let refused = self.there.change(up)?.is_err_and(|refusal| refusal.errno == Errno::EADDRINUSE);
        Ok(Presence::when(made && refused))
    }

    /// The kind alone: known ones miss their options, unknown ones are told first.
    fn qdisc(&mut self, kind: &str) -> Outcome {
        let mut message = TcMessage::with_index(self.ends[0].cast_signed());
        message.header.parent = TcHandle::ROOT;
        message.attributes.push(TcAttribute::Kind(kind.to_owned()));
        let message = Message::NewQueueDiscipline(message);
        let made = self.there.kernel.inside(async |inside| inside.change(message, CREATE).await)?;
        is_known(made, Errno::ENOENT)
    }

    /// What comes in on one end, to the other.
    fn redirect(&mut self) -> Outcome {
        let name = |text: &str| text.parse::<IfName>().map_err(Error::failed);
        let on = Device { side: Side::Inside, index: self.ends[0], name: name("near")? };
        let qdisc = Qdisc { on: on.clone(), slot: Slot::Ingress, handle: INGRESS, discipline: Discipline::Ingress };
        let redirect = Redirect { from: on, to: Ifb { index: self.ends[1], name: name("far")? } };
        let steps = [Step::AddQdisc(qdisc), Step::AddRedirect(redirect)];
        let made = steps.iter().try_for_each(|step| self.there.kernel.execute(step));
        Ok(Presence::when(made.is_ok()))
    }

    fn masquerade(&mut self) -> Outcome {
        let (interface, subnet) = ("near".parse().map_err(Error::failed)?, "198.18.0.0/24".parse());
        let masquerade = Masquerade { interface, subnet: subnet.map_err(Error::failed)? };
        let made = self.there.namespace.look_inside(|_| Ok(nftables::add(&masquerade).is_ok()))?;
        Ok(Presence::when(made))
    }

    fn index(&mut self, name: &str) -> Result<u32> {
        let links = self.there.kernel.links()?;
        Ok(links.iter().find(|link| link.name == name).map_or(LOOPBACK, |link| link.index))
    }
}

/// Whether the kernel knows the kind, by what it answered to the request to make one. Any other refusal is
/// one of this attempt.
fn is_known(answer: std::result::Result<(), Refusal>, unknown: Errno) -> Outcome {
    match answer {
        Err(refusal) if refusal.errno == unknown => Ok(Presence::Lacking),
        Err(refusal) if refusal.errno == Errno::EPERM => {
            Err(Error::not_permitted("cannot make interfaces: CAP_NET_ADMIN is missing").hint(RUN_AS_ROOT))
        }
        _ => Ok(Presence::There),
    }
}

/// Not being permitted says that there are some.
fn has_packet_sockets() -> bool {
    let made = socket(AddressFamily::Packet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None);
    !matches!(made, Err(Errno::EAFNOSUPPORT))
}
