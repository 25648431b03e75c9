//! Ports of the kernel's bridges: which VLAN they are in.

use nix::errno::Errno;
use rtnetlink::{
    LinkUnspec,
    packet_route::{
        AddressFamily, RouteNetlinkMessage as Message,
        link::{
            AfSpecBridge, BridgeVlanInfo, BridgeVlanInfoFlags, InfoBridge, InfoData, LinkAttribute, LinkExtentMask,
            LinkInfo, LinkMessage,
        },
    },
};

use super::{Kernel, Refusal, cannot_read};
use crate::{
    error::Result,
    plan::{Driver, Link, Switch},
    types::{IfName, VlanId},
};

impl Kernel {
    /// Makes `outside`, the end on the host of a link's pair, a port of the link's parent, and up when it is in its
    /// VLAN alone. Open vSwitch takes it by a step of its own.
    pub(super) fn join_bridge(&mut self, link: &Link, outside: &IfName) -> Result<std::result::Result<(), Refusal>> {
        let end = || LinkUnspec::new_with_name(outside.as_str());
        let (vlan, default_vlan) = match &link.driver {
            Driver::Veth { switch: Some(Switch::OpenVswitch), .. } => {
                let up = end().up().build();
                return self.on_host(async |host| host.change(Message::SetLink(up), 0).await);
            }
            Driver::Veth { vlan: Some(id), switch: Some(Switch::VlanBridge { default_vlan }), .. } => {
                (*id, *default_vlan)
            }
            _ => {
                let port = end().controller(link.parent.index).up().build();
                return self.on_host(async |host| host.change(Message::SetLink(port), 0).await);
            }
        };
        let Some(index) = self.host_link(outside)?.map(|end| end.index) else {
            let text = Some(format!("{outside} was deleted as soon as it was made"));
            return Ok(Err(Refusal { errno: Errno::ENODEV, text }));
        };
        let port = end().controller(link.parent.index).build();
        let own = BridgeVlanInfoFlags::Pvid | BridgeVlanInfoFlags::Untagged;
        let enter = Message::SetLink(membership(index, vlan, own));
        let leave = default_vlan.map(|old| Message::DelLink(membership(index, old, BridgeVlanInfoFlags::empty())));
        let up = Message::SetLink(end().up().build());
        self.on_host(async |host| {
            host.change(Message::SetLink(port), 0).await?;
            if let Some(leave) = leave {
                host.change(leave, 0).await?;
            }
            host.change(enter, 0).await?;
            host.change(up, 0).await
        })
    }
}

impl Kernel {
    /// The VLAN in which a port inside is, untagged. Equivalent to the PVID of `bridge vlan show`.
    pub fn port_vlan(&mut self, index: u32) -> Result<Option<VlanId>> {
        let mut question = LinkMessage::default();
        question.header.interface_family = AddressFamily::Bridge;
        question.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::Brvlan]));
        let ports = self.inside(async |inside| inside.dump(Message::GetLink(question)).await)?;
        let ports = ports.map_err(cannot_read("ports of bridges"))?;
        let is_it = |port: &&Message| matches!(port, Message::NewLink(port) if port.header.index == index);
        Ok(ports.iter().filter(is_it).find_map(own_vlan))
    }
}

fn own_vlan(port: &Message) -> Option<VlanId> {
    let Message::NewLink(port) = port else { return None };
    let lists = port
        .attributes
        .iter()
        .filter_map(|a| if let LinkAttribute::AfSpecBridge(list) = a { Some(list) } else { None });
    lists.flatten().find_map(|spec| match spec {
        AfSpecBridge::VlanInfo(info) if info.flags.contains(BridgeVlanInfoFlags::Pvid) => {
            VlanId::try_from(info.vid).ok()
        }
        _ => None,
    })
}

/// One VLAN of a port. Equivalent to what follows `bridge vlan add`, or `del`.
fn membership(index: u32, vlan: VlanId, flags: BridgeVlanInfoFlags) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.interface_family = AddressFamily::Bridge;
    message.header.index = index;
    let info = BridgeVlanInfo { flags, vid: vlan.number() };
    message.attributes.push(LinkAttribute::AfSpecBridge(vec![AfSpecBridge::VlanInfo(info)]));
    message
}

/// What kind of switch of the kernel's a link is, if it is one.
pub(super) fn switch_of(message: &LinkMessage) -> Option<Switch> {
    let info = message
        .attributes
        .iter()
        .find_map(|a| if let LinkAttribute::LinkInfo(info) = a { Some(info) } else { None })?;
    let is_bridge = |i: &LinkInfo| matches!(i, LinkInfo::Kind(kind) if kind.to_string() == "bridge");
    if !info.iter().any(is_bridge) {
        return None;
    }
    let data = info.iter().find_map(|i| if let LinkInfo::Data(InfoData::Bridge(data)) = i { Some(data) } else { None });
    let data = data.map(Vec::as_slice).unwrap_or_default();
    if !data.iter().any(|d| matches!(d, InfoBridge::VlanFiltering(true))) {
        return Some(Switch::Bridge);
    }
    let pvid = |d: &InfoBridge| if let InfoBridge::VlanDefaultPvid(id) = d { VlanId::try_from(*id).ok() } else { None };
    Some(Switch::VlanBridge { default_vlan: data.iter().find_map(pvid) })
}
