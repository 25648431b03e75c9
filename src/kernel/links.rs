//! Links: found, created directly in a namespace, tagged, deleted.

use std::{
    os::fd::RawFd,
    time::{Duration, Instant},
};

use nix::errno::Errno;
use rtnetlink::{
    LinkDummy, LinkIpVlan, LinkMacVlan, LinkMessageBuilder, LinkUnspec, LinkVeth,
    packet_core::{NLM_F_APPEND, NLM_F_CREATE, NLM_F_EXCL},
    packet_route::{
        RouteNetlinkMessage as Message,
        link::{
            InfoData, InfoIpVlan, InfoIpVtap, InfoIpoib, InfoKind, InfoMacVlan, InfoVeth, InfoVlan, IpVlanMode,
            LinkAttribute, LinkExtentMask, LinkFlags, LinkInfo, LinkLayerType, LinkMessage, MacVlanMacAddressMode,
            MacVlanMode, Prop, VlanProtocol as KernelProtocol,
        },
        nsid::{NsidAttribute, NsidMessage},
    },
};

use super::{
    Kernel, Netlink, Netns, Refusal, cannot_read,
    ports::switch_of,
    refused,
    segments::{segments_most, segments_of},
};
use crate::{
    apply::StepError,
    error::{Error, Result},
    interrupt,
    plan::{
        Driver, IpvlanMode, Link, MacvlanMode, Parent, Setting, TaggedLink, facts::InsideLink, link::GROUP,
        setting::Change,
    },
    types::{IfName, Mac, Mtu, VlanId, VlanProtocol},
};

/// How long a MAC address may still be in use: a container that was just restarted leaves its
/// link to the kernel's clean-up, which took 11 to 60 ms when measured, and more than 1.5 s where many ended at once.
const ADDRESS_IN_USE: Duration = Duration::from_secs(4);

impl Kernel {
    /// The host's interface `name`, or `None`. Equivalent to `ip link show NAME`.
    pub fn parent(&mut self, name: &IfName) -> Result<Option<Parent>> {
        let mut request = question();
        request.attributes.push(LinkAttribute::IfName(name.to_string()));
        let answer = self.on_host(async |host| {
            let found = match host.get(Message::GetLink(request)).await? {
                Some(Message::NewLink(message)) => message,
                _ => return Ok(None),
            };
            // A port is named with its master, so that the message can say where to go instead.
            let master =
                attribute(&found, |a| if let LinkAttribute::Controller(index) = a { Some(*index) } else { None });
            let port_of = match master {
                Some(index) => Some(name_of(host, index).await.unwrap_or_else(|| format!("interface {index}"))),
                None => None,
            };
            Ok(Some((found, port_of)))
        })?;
        match answer {
            Ok(found) => Ok(found.map(|(message, port_of)| parent(name, &message, port_of))),
            Err(Refusal { errno: Errno::ENODEV, .. }) => Ok(None),
            Err(refusal) => Err(cannot_read("interface")(refusal)),
        }
    }

    /// The names of the host's interfaces. Equivalent to `ip link show`.
    pub fn host_names(&mut self) -> Result<Vec<String>> {
        let messages = self.on_host(async |host| host.dump(Message::GetLink(question())).await)?;
        Ok(messages.map_err(cannot_read("interfaces"))?.iter().filter_map(link_of).map(|link| link.name).collect())
    }

    /// The links inside.
    pub fn links(&mut self) -> Result<Vec<InsideLink>> {
        let messages = self.inside(async |inside| inside.dump(Message::GetLink(question())).await)?;
        Ok(messages.map_err(cannot_read("interfaces inside"))?.iter().filter_map(link_of).collect())
    }

    /// The number by which the namespace inside knows `other`, or `None` if it does not, or is it.
    pub fn number_of(&mut self, other: &Netns) -> Result<Option<i32>> {
        let mut question = NsidMessage::default();
        question.attributes.push(NsidAttribute::Fd(other.raw() as u32));
        let answer = self.inside(async |inside| inside.get(Message::GetNsId(question)).await)?;
        let Some(Message::NewNsId(answer)) = answer.map_err(cannot_read("namespace's number"))? else {
            return Ok(None);
        };
        // The kernel says -1 for a namespace that it has no number for.
        Ok(answer
            .attributes
            .iter()
            .find_map(|a| if let NsidAttribute::Id(number) = a { Some(*number) } else { None })
            .filter(|number| *number >= 0))
    }

    /// Creates the link in place, with its final name, address and MTU, and up: one request on the
    /// host's socket. Creating it on the host and moving it would take sixty times as long.
    pub(super) fn add_link(&mut self, link: &Link) -> std::result::Result<(), StepError> {
        let end = Instant::now() + ADDRESS_IN_USE;
        let mut pause = Duration::from_millis(10);
        loop {
            let refusal = match self.create(link).map_err(StepError::Refused)? {
                Ok(()) => return Ok(()),
                Err(refusal) => refusal,
            };
            if refusal.errno != Errno::EADDRINUSE || Instant::now() + pause > end {
                return Err(why_not_created(link, &refusal));
            }
            interrupt::sleep(pause).map_err(StepError::Refused)?;
            pause = (pause * 2).min(Duration::from_millis(100));
        }
    }

    fn create(&mut self, link: &Link) -> Result<std::result::Result<(), Refusal>> {
        if let Some((outside, mac)) = link.host_end() {
            return self.create_pair(link, outside, mac);
        }
        let message = creation(link, link.name.as_str(), self.namespace, true);
        let outcome = self.on_host(async |host| host.change(Message::NewLink(message), CREATE_NEW).await)?;
        match outcome {
            // Kernels before 6.15 look the name up on the host: an eth1 there is in the way of an eth1 inside.
            Err(Refusal { errno: Errno::EEXIST, .. }) => self.create_and_rename(link),
            other => Ok(other),
        }
    }

    /// One end is born inside, the other on the host, and that becomes a port of the parent, or both go.
    fn create_pair(&mut self, link: &Link, outside: &IfName, mac: Mac) -> Result<std::result::Result<(), Refusal>> {
        let peer = LinkMessageBuilder::<LinkUnspec>::new()
            .name(outside.to_string())
            .address(mac.bytes().to_vec())
            .mtu(link.mtu.bytes())
            .link_group(GROUP)
            .build();
        let pair =
            LinkVeth::new(link.name.as_str(), outside.as_str()).set_info_data(InfoData::Veth(InfoVeth::Peer(peer)));
        let message = placed(pair, link, self.namespace, true);
        if let Err(refusal) = self.on_host(async |host| host.change(Message::NewLink(message), CREATE_NEW).await)? {
            return Ok(Err(refusal));
        }
        let outcome = self.join_bridge(link, outside)?;
        if outcome.is_err() {
            let _ = self.delete_link(link);
        }
        Ok(outcome)
    }

    fn create_and_rename(&mut self, link: &Link) -> Result<std::result::Result<(), Refusal>> {
        // In use neither here nor there: nobody else names links so, and the index is ours.
        let temporary = format!("plumb{}", link.index);
        let message = creation(link, &temporary, self.namespace, false);
        if let Err(refusal) = self.on_host(async |host| host.change(Message::NewLink(message), CREATE_NEW).await)? {
            return Ok(Err(refusal));
        }
        // Renamed while down, as older kernels demand, and then up.
        let rename = LinkUnspec::new_with_index(link.index).name(link.name.as_str()).build();
        let up = LinkUnspec::new_with_index(link.index).up().build();
        let outcome = self.inside(async |inside| {
            inside.change(Message::SetLink(rename), 0).await?;
            inside.change(Message::SetLink(up), 0).await
        })?;
        if outcome.is_err() {
            let _ = self.delete_link(link);
        }
        Ok(outcome)
    }

    /// Equivalent to `ip link del dev NAME`, by index.
    pub(super) fn delete_link(&mut self, link: &Link) -> std::result::Result<(), StepError> {
        self.delete_index(link.index, link.name.as_str())
    }

    /// Deletes a link that was found inside. One that has gone meanwhile is no error.
    pub fn delete(&mut self, link: &InsideLink) -> Result<()> {
        match self.delete_index(link.index, &link.name) {
            Ok(()) | Err(StepError::Gone(_)) => Ok(()),
            Err(StepError::Refused(error)) => Err(error),
        }
    }

    pub(super) fn delete_index(&mut self, index: u32, name: &str) -> std::result::Result<(), StepError> {
        let message = LinkUnspec::new_with_index(index).build();
        let outcome = self
            .inside(async |inside| inside.change(Message::DelLink(message), 0).await)
            .map_err(StepError::Refused)?;
        outcome.map_err(|refusal| refused(format_args!("cannot delete {name}"), &refusal, &[Errno::ENODEV]))
    }

    /// Equivalent to `ip link property add dev NAME altname TAG`. The kernel takes no alternative
    /// name in the request that creates a link.
    pub(super) fn add_tag(&mut self, tagged: &TaggedLink) -> std::result::Result<(), StepError> {
        let message = Message::NewLinkProp(property(tagged));
        let outcome = self.inside(async |inside| inside.change(message, TAGGING).await).map_err(StepError::Refused)?;
        outcome.map_err(|refusal| refused(format_args!("cannot tag {}", tagged.name), &refusal, &[]))
    }

    /// Equivalent to `ip link set dev NAME mtu BYTES`, by index.
    pub(super) fn set_mtu(&mut self, index: u32, name: &IfName, to: Mtu) -> std::result::Result<(), StepError> {
        let message = LinkUnspec::new_with_index(index).mtu(to.bytes()).build();
        let outcome = self
            .inside(async |inside| inside.change(Message::SetLink(message), 0).await)
            .map_err(StepError::Refused)?;
        outcome.map_err(|refusal| refused(format_args!("cannot set the MTU of {name}"), &refusal, &[Errno::ENODEV]))
    }

    /// Equivalent to `ip link set dev NAME …`, by index.
    pub(super) fn set_link(&mut self, setting: &Setting) -> std::result::Result<(), StepError> {
        let link = LinkUnspec::new_with_index(setting.index);
        let message = match &setting.change {
            Change::Mac { to, .. } => link.address(to.bytes().to_vec()),
            Change::Up(true) => link.up(),
            Change::Up(false) => link.down(),
            Change::Promisc(on) => link.promiscuous(*on),
            Change::Name(to) => link.name(to.as_str()),
        };
        let message = message.build();
        let outcome = self
            .inside(async |inside| inside.change(Message::SetLink(message), 0).await)
            .map_err(StepError::Refused)?;
        outcome.map_err(|refusal| {
            let name = &setting.name;
            StepError::Refused(match (refusal.errno, &setting.change) {
                (Errno::EADDRINUSE, Change::Mac { to, .. }) => {
                    Error::conflict(format!("MAC {to} is in use on the parent of {name} already"))
                        .hint("choose another")
                }
                (Errno::EBUSY, Change::Name(_)) => {
                    Error::conflict(format!("this kernel renames only what is down, and {name} is up"))
                        .hint("set it down, rename it, and set it up again")
                }
                _ => return refused(format_args!("cannot change {name}"), &refusal, &[Errno::ENODEV]),
            })
        })
    }

    pub(super) fn delete_tag(&mut self, tagged: &TaggedLink) -> std::result::Result<(), StepError> {
        let message = Message::DelLinkProp(property(tagged));
        let outcome = self.inside(async |inside| inside.change(message, 0).await).map_err(StepError::Refused)?;
        outcome.map_err(|refusal| {
            refused(format_args!("cannot untag {}", tagged.name), &refusal, &[Errno::ENODEV, Errno::ENOENT])
        })
    }
}

/// Never without EXCL: a request to create that meets an existing name of the host's, without it,
/// moves the host's interface into the container.
const CREATE_NEW: u16 = NLM_F_CREATE | NLM_F_EXCL;

/// Adding to a list of names, and never one that is there.
pub(super) const TAGGING: u16 = NLM_F_EXCL | NLM_F_CREATE | NLM_F_APPEND;

fn creation(link: &Link, name: &str, namespace: RawFd, up: bool) -> LinkMessage {
    let mode = match &link.driver {
        Driver::Macvlan(mode) => mode,
        Driver::Ipvlan(mode) => {
            // Without flags: they are the parent's, for all its links, and stay what they are.
            return placed(LinkIpVlan::new(name, link.parent.index, kernel_mode(*mode)), link, namespace, up);
        }
        Driver::Veth { host_end, .. } => {
            let outside = host_end.as_ref().map_or("", IfName::as_str);
            return placed(LinkVeth::new(name, outside), link, namespace, up);
        }
        // It is not made: see `move_in`.
        Driver::Phys { .. } => return placed(LinkUnspec::new_with_name(name), link, namespace, up),
        Driver::Dummy => return placed(LinkDummy::new(name), link, namespace, up),
        Driver::Ipoib { pkey } => {
            let child = LinkMessageBuilder::<LinkUnspec>::new_with_info_kind(InfoKind::Ipoib);
            let data = pkey.iter().map(|pkey| InfoIpoib::Pkey(pkey.number())).collect();
            let child = child.name(name).link(link.parent.index).set_info_data(InfoData::Ipoib(data));
            return placed(child, link, namespace, up);
        }
    };
    let kernel_mode = match mode {
        MacvlanMode::Bridge => MacVlanMode::Bridge,
        MacvlanMode::Private => MacVlanMode::Private,
        MacvlanMode::Vepa => MacVlanMode::Vepa,
        MacvlanMode::Passthru => MacVlanMode::Passthrough,
        MacvlanMode::Source(_) => MacVlanMode::Source,
    };
    let mut builder = LinkMacVlan::new(name, link.parent.index, kernel_mode);
    if let Some(length) = link.tuning.bc_queue_len {
        builder = builder.append_info_data(InfoMacVlan::BcQueueLen(length));
    }
    if let MacvlanMode::Source(macs) = mode {
        let macs = macs.iter().map(|mac| InfoMacVlan::MacAddr(mac.bytes())).collect();
        builder = builder
            .append_info_data(InfoMacVlan::MacAddrMode(MacVlanMacAddressMode::Set))
            .append_info_data(InfoMacVlan::MacAddrData(macs));
    }
    placed(builder, link, namespace, up)
}

pub(super) fn kernel_mode(mode: IpvlanMode) -> IpVlanMode {
    match mode {
        IpvlanMode::L2 => IpVlanMode::L2,
        IpvlanMode::L3 => IpVlanMode::L3,
        IpvlanMode::L3s => IpVlanMode::L3S,
    }
}

/// What a link of any kind is created with.
fn placed<T>(builder: LinkMessageBuilder<T>, link: &Link, namespace: RawFd, up: bool) -> LinkMessage {
    let mut builder = builder.index(link.index).mtu(link.mtu.bytes()).link_group(GROUP).setns_by_fd(namespace);
    if let Some(mac) = link.mac {
        builder = builder.address(mac.bytes().to_vec());
    }
    if let Some(length) = link.tuning.txqueuelen {
        builder = builder.txqueuelen(length);
    }
    if let Some(count) = link.tuning.queues {
        let queues = [LinkAttribute::NumTxQueues(count), LinkAttribute::NumRxQueues(count)];
        builder = queues.into_iter().fold(builder, LinkMessageBuilder::append_extra_attribute);
    }
    if up { builder.up().build() } else { builder.build() }
}

/// What the kernel's bare numbers mean for somebody who wanted a link.
fn why_not_created(link: &Link, refusal: &Refusal) -> StepError {
    let parent = &link.parent.name;
    StepError::Refused(match refusal.errno {
        Errno::EADDRINUSE => {
            let mac = link.mac.map_or("its parent's".to_owned(), |mac| mac.to_string());
            Error::conflict(format!("MAC {mac} is in use on {parent} already"))
                .hint("give another with --mac, or detach the container that has it")
        }
        Errno::EINVAL | Errno::EBUSY if matches!(link.driver, Driver::Macvlan(MacvlanMode::Passthru)) => {
            Error::conflict(format!("{parent} has a link already, and passthru tolerates no other"))
                .hint("use --mode bridge, or another parent")
        }
        // Most of what the kernel checks was checked by the plan; a passthru link is looked for later.
        Errno::EINVAL => Error::conflict(format!(
            "{parent} does not accept {} in mode {}: {refusal}",
            link.driver.with_article(),
            link.driver.mode().unwrap_or_default()
        )),
        Errno::EBUSY => Error::conflict(format!(
            "{parent} is in use by another kind of link, and {} cannot be beside it",
            link.driver.with_article()
        ))
        .hint("use another parent, or detach that one"),
        Errno::EOPNOTSUPP => Error::failed(format!("this kernel has no {}", link.driver.kind()))
            .hint(format!("modprobe {} loads it, if the kernel has it as a module", link.driver.kind())),
        Errno::EEXIST if let Some((outside, _)) = link.host_end() => {
            Error::conflict(format!("the host has an interface {outside} already"))
                .hint("choose another with --host-name")
        }
        Errno::ENODEV => return StepError::Refused(Error::not_found(format!("{parent} has gone"))),
        _ => match refused(format_args!("cannot create {} on {parent}", link.name), refusal, &[]) {
            StepError::Gone(message) => Error::failed(message),
            StepError::Refused(error) => error,
        },
    })
}

pub(super) fn property(tagged: &TaggedLink) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = tagged.index;
    message.attributes.push(LinkAttribute::PropList(vec![Prop::AltIfName(tagged.tag.to_string())]));
    message
}

/// Statistics make a link's answer four times as long, and nobody reads them here.
pub(super) fn question() -> LinkMessage {
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
    message
}

async fn name_of(host: &mut Netlink, index: u32) -> Option<String> {
    let mut request = question();
    request.header.index = index;
    host.get(Message::GetLink(request)).await.ok().flatten().and_then(|message| link_of(&message)).map(|link| link.name)
}

pub(super) fn attribute<T>(message: &LinkMessage, pick: impl FnMut(&LinkAttribute) -> Option<T>) -> Option<T> {
    message.attributes.iter().find_map(pick)
}

pub(super) fn parent(name: &IfName, message: &LinkMessage, port_of: Option<String>) -> Parent {
    let flags = message.header.flags;
    let switch = switch_of(message);
    Parent {
        name: name.clone(),
        index: message.header.index,
        mac: mac_of(message).and_then(|bytes| Mac::try_from(bytes).ok()),
        mtu: mtu_of(message),
        up: flags.contains(LinkFlags::Up),
        // A bridge has it from its ports, and the new link may be the first.
        carrier: switch.is_some() || flags.contains(LinkFlags::LowerUp),
        switch,
        loopback: flags.contains(LinkFlags::Loopback),
        ethernet: message.header.link_layer_type == LinkLayerType::Ether,
        infiniband: message.header.link_layer_type == LinkLayerType::Infiniband,
        wireless: is_wireless(name),
        port_of,
        segments: segments_of(message),
        segments_most: segments_most(message),
    }
}

/// The kernel's wireless stack gives its interfaces this folder.
fn is_wireless(name: &IfName) -> bool {
    std::path::Path::new("/sys/class/net").join(name.as_str()).join("phy80211").exists()
}

fn mac_of(message: &LinkMessage) -> Option<[u8; 6]> {
    attribute(message, |a| if let LinkAttribute::Address(bytes) = a { bytes.as_slice().try_into().ok() } else { None })
}

fn mtu_of(message: &LinkMessage) -> u32 {
    attribute(message, |a| if let LinkAttribute::Mtu(mtu) = a { Some(*mtu) } else { None }).unwrap_or(0)
}

pub(super) fn link_of(message: &Message) -> Option<InsideLink> {
    let Message::NewLink(message) = message else { return None };
    let info: &[LinkInfo] = message
        .attributes
        .iter()
        .find_map(|a| if let LinkAttribute::LinkInfo(info) = a { Some(info.as_slice()) } else { None })
        .unwrap_or_default();
    Some(InsideLink {
        index: message.header.index,
        name: attribute(message, |a| if let LinkAttribute::IfName(name) = a { Some(name.clone()) } else { None })?,
        mac: mac_of(message),
        mtu: mtu_of(message),
        up: message.header.flags.contains(LinkFlags::Up),
        carrier: message.header.flags.contains(LinkFlags::LowerUp),
        promisc: message.header.flags.contains(LinkFlags::Promisc),
        group: attribute(message, |a| if let LinkAttribute::Group(group) = a { Some(*group) } else { None })
            .unwrap_or(0),
        kind: info.iter().find_map(|i| if let LinkInfo::Kind(kind) = i { Some(kind.to_string()) } else { None }),
        mode: info.iter().find_map(mode_of),
        vlan: info.iter().find_map(vlan_of),
        port_of: attribute(message, |a| if let LinkAttribute::Controller(index) = a { Some(*index) } else { None }),
        parent_index: attribute(message, |a| if let LinkAttribute::Link(index) = a { Some(*index) } else { None }),
        parent_namespace: attribute(message, |a| {
            if let LinkAttribute::LinkNetNsId(number) = a { Some(*number) } else { None }
        }),
        tag: attribute(message, tag_of),
    })
}

fn mode_of(info: &LinkInfo) -> Option<String> {
    let LinkInfo::Data(data) = info else { return None };
    let mode = match data {
        InfoData::MacVlan(data) => data.iter().find_map(|d| match d {
            InfoMacVlan::Mode(MacVlanMode::Private) => Some("private"),
            InfoMacVlan::Mode(MacVlanMode::Vepa) => Some("vepa"),
            InfoMacVlan::Mode(MacVlanMode::Bridge) => Some("bridge"),
            InfoMacVlan::Mode(MacVlanMode::Passthrough) => Some("passthru"),
            InfoMacVlan::Mode(MacVlanMode::Source) => Some("source"),
            _ => None,
        }),
        InfoData::IpVlan(data) => {
            data.iter().find_map(|d| if let InfoIpVlan::Mode(mode) = d { ipvlan_mode(*mode) } else { None })
        }
        InfoData::IpVtap(data) => {
            data.iter().find_map(|d| if let InfoIpVtap::Mode(mode) = d { ipvlan_mode(*mode) } else { None })
        }
        _ => None,
    };
    mode.map(str::to_owned)
}

fn ipvlan_mode(mode: IpVlanMode) -> Option<&'static str> {
    match mode {
        IpVlanMode::L2 => Some(IpvlanMode::L2.name()),
        IpVlanMode::L3 => Some(IpvlanMode::L3.name()),
        IpVlanMode::L3S => Some(IpvlanMode::L3s.name()),
        _ => None,
    }
}

fn vlan_of(info: &LinkInfo) -> Option<(VlanProtocol, VlanId)> {
    let LinkInfo::Data(InfoData::Vlan(data)) = info else { return None };
    let id = data.iter().find_map(|d| if let InfoVlan::Id(id) = d { VlanId::try_from(*id).ok() } else { None })?;
    let is_service = data.iter().any(|d| matches!(d, InfoVlan::Protocol(KernelProtocol::Ieee8021Ad)));
    Some((if is_service { VlanProtocol::Dot1ad } else { VlanProtocol::Dot1q }, id))
}

fn tag_of(attribute: &LinkAttribute) -> Option<crate::types::Tag> {
    let LinkAttribute::PropList(properties) = attribute else { return None };
    properties.iter().find_map(|p| if let Prop::AltIfName(name) = p { name.parse().ok() } else { None })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{error::Kind, plan::link::ParentLink};

    fn why(driver: Driver, errno: Errno, text: Option<&str>) -> Error {
        let parent = ParentLink { name: "nic0".parse().unwrap(), index: 2 };
        let mtu = 1500.try_into().unwrap();
        let tuning = crate::plan::Tuning::default();
        let link = Link { index: 7, name: IfName::eth(1), mac: None, mtu, parent, driver, tuning };
        let refusal = Refusal { errno, text: text.map(str::to_owned) };
        match why_not_created(&link, &refusal) {
            StepError::Refused(error) => error,
            StepError::Gone(message) => panic!("{message}"),
        }
    }

    #[test]
    fn a_kernel_without_the_module_is_named_with_the_line_that_loads_it() {
        let error = why(Driver::Ipvlan(IpvlanMode::L2), Errno::EOPNOTSUPP, Some("Unknown device type"));
        assert_eq!(error.kind, Kind::Failed);
        assert_eq!(error.message, "this kernel has no ipvlan");
        assert_eq!(error.hint.unwrap(), "modprobe ipvlan loads it, if the kernel has it as a module");
    }

    #[test]
    fn another_kind_of_link_on_the_parent_is_a_conflict() {
        let error = why(Driver::Macvlan(MacvlanMode::Bridge), Errno::EBUSY, None);
        assert_eq!(error.kind, Kind::Conflict);
        assert_eq!(error.message, "nic0 is in use by another kind of link, and a macvlan cannot be beside it");
    }
}
