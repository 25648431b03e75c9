//! The host's own links, and what plumb makes among them: VLAN devices and bridges.

use nix::errno::Errno;
use rtnetlink::{
    LinkBridge, LinkUnspec, LinkVlan,
    packet_core::{NLM_F_CREATE, NLM_F_EXCL},
    packet_route::{
        RouteNetlinkMessage as Message,
        link::{InfoBridge, LinkAttribute, VlanProtocol as KernelProtocol},
    },
};

use super::{
    Kernel, Refusal, cannot_read,
    links::{TAGGING, link_of, property, question},
};
use crate::{
    error::{Error, Result},
    plan::{TaggedLink, bridge::Bridge, facts::InsideLink, link::GROUP, vlan::VlanDevice},
    types::{IfName, Tag, VlanProtocol},
};

impl Kernel {
    /// All links of the host.
    pub fn host_links(&mut self) -> Result<Vec<InsideLink>> {
        let messages = self.on_host(async |host| host.dump(Message::GetLink(question())).await)?;
        Ok(messages.map_err(cannot_read("interfaces"))?.iter().filter_map(link_of).collect())
    }

    /// The host's link of this name, if there is one.
    pub fn host_link(&mut self, name: &IfName) -> Result<Option<InsideLink>> {
        let mut request = question();
        request.attributes.push(LinkAttribute::IfName(name.to_string()));
        match self.on_host(async |host| host.get(Message::GetLink(request)).await)? {
            Ok(found) => Ok(found.as_ref().and_then(link_of)),
            Err(Refusal { errno: Errno::ENODEV, .. }) => Ok(None),
            Err(refusal) => Err(cannot_read("interface")(refusal)),
        }
    }

    /// Makes a bridge, up and tagged, or nothing. Its MAC address is given, or it would change with its ports.
    pub fn add_bridge(&mut self, bridge: &Bridge, tag: &Tag) -> Result<()> {
        let mut builder = LinkBridge::new(bridge.name.as_str()).address(bridge.mac.bytes().to_vec());
        if bridge.filters {
            builder = builder.append_info_data(InfoBridge::VlanFiltering(true));
        }
        let mut message = builder.build();
        message.attributes.push(LinkAttribute::Group(GROUP));
        let create = NLM_F_CREATE | NLM_F_EXCL;
        let made = self.on_host(async |host| host.change(Message::NewLink(message), create).await)?;
        made.map_err(|refusal| match refusal.errno {
            Errno::EOPNOTSUPP if bridge.filters => {
                Error::failed("this kernel's bridges cannot keep VLANs apart (CONFIG_BRIDGE_VLAN_FILTERING)")
                    .hint("leave --vlan out; a kernel built without it needs another one")
            }
            Errno::EOPNOTSUPP => Error::failed("this kernel has no bridges: its module bridge is missing")
                .hint("modprobe bridge; a kernel built without it needs another one"),
            _ => Error::failed(format!("cannot make the bridge {}: {refusal}", bridge.name)),
        })?;
        self.tag_on_host(&bridge.name, tag)
    }

    /// Makes the device, up and tagged, or nothing. The kernel chooses its index: those of the
    /// host's own interfaces must stay low (see `free_index` in the plan).
    pub fn add_vlan(&mut self, device: &VlanDevice, parent_index: u32, tag: &Tag) -> Result<()> {
        let mut builder = LinkVlan::new(device.name.as_str(), parent_index, device.id.number())
            .protocol(match device.protocol {
                VlanProtocol::Dot1q => KernelProtocol::Ieee8021Q,
                VlanProtocol::Dot1ad => KernelProtocol::Ieee8021Ad,
            })
            .up();
        if let Some(mtu) = device.mtu {
            builder = builder.mtu(mtu.bytes());
        }
        let mut message = builder.build();
        message.attributes.push(LinkAttribute::Group(GROUP));
        let create = NLM_F_CREATE | NLM_F_EXCL;
        let made = self.on_host(async |host| host.change(Message::NewLink(message), create).await)?;
        made.map_err(|refusal| why_not_made(device, &refusal))?;
        self.tag_on_host(&device.name, tag)
    }

    /// Tags a link of the host's that was just made, or deletes it again.
    fn tag_on_host(&mut self, name: &IfName, tag: &Tag) -> Result<()> {
        let Some(link) = self.host_link(name)? else {
            return Err(Error::failed(format!("{name} was deleted as soon as it was made")));
        };
        let tagged = TaggedLink { index: link.index, name: name.clone(), tag: tag.clone() };
        let message = Message::NewLinkProp(property(&tagged));
        if let Err(refusal) = self.on_host(async |host| host.change(message, TAGGING).await)? {
            let _ = self.delete_on_host(&link);
            return Err(Error::failed(format!("cannot tag {name}: {refusal}")));
        }
        Ok(())
    }

    /// Equivalent to `ip link del dev NAME`, by index. That it has gone is no error.
    pub fn delete_on_host(&mut self, link: &InsideLink) -> Result<()> {
        let message = LinkUnspec::new_with_index(link.index).build();
        match self.on_host(async |host| host.change(Message::DelLink(message), 0).await)? {
            Ok(()) | Err(Refusal { errno: Errno::ENODEV, .. }) => Ok(()),
            Err(refusal) => Err(Error::failed(format!("cannot delete {}: {refusal}", link.name))),
        }
    }
}

fn why_not_made(device: &VlanDevice, refusal: &Refusal) -> Error {
    let (name, parent) = (&device.name, &device.parent);
    match refusal.errno {
        Errno::EOPNOTSUPP => Error::failed("this kernel cannot make VLAN devices: its module 8021q is missing")
            .hint("modprobe 8021q; a kernel built without it needs another one"),
        Errno::ENETDOWN => Error::failed(format!("{parent} is down, and a VLAN on it cannot be used"))
            .hint(format!("ip link set {parent} up")),
        Errno::EPERM => Error::not_permitted(format!("cannot make {name}: CAP_NET_ADMIN is missing")),
        Errno::EEXIST => Error::conflict(format!("VLAN {} of {parent} is there already: {refusal}", device.id)),
        Errno::ERANGE | Errno::EINVAL => {
            Error::failed(format!("the kernel refuses {name} (VLAN {} of {parent}): {refusal}", device.id))
        }
        _ => Error::failed(format!("cannot make {name}: {refusal}")),
    }
}
