//! The device of a VLAN on one host: its name, and whether what bears that name is it.

use crate::{
    error::{Error, Result},
    plan::{facts::InsideLink, link::GROUP, render::quote},
    types::{IfName, Mtu, Tag, VlanId, VlanProtocol},
};

/// The device that carries one VLAN of `parent`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VlanDevice {
    pub name: IfName,
    pub parent: IfName,
    pub id: VlanId,
    pub protocol: VlanProtocol,
    /// None: the parent's.
    pub mtu: Option<Mtu>,
}

impl VlanDevice {
    pub fn new(parent: IfName, id: VlanId, protocol: VlanProtocol, mtu: Option<Mtu>) -> VlanDevice {
        VlanDevice { name: IfName::of_vlan(&parent, id), parent, id, protocol, mtu }
    }

    /// This very device among the host's `links`, whoever made it and however it is called. An
    /// interface that bears its name and is something else is a conflict.
    pub fn among<'a>(&self, links: &'a [InsideLink], parent_index: u32) -> Result<Option<&'a InsideLink>> {
        if let Some(link) = links.iter().find(|link| link.name == self.name.as_str()) {
            return self.is(link, parent_index, links).map(|()| Some(link));
        }
        Ok(links
            .iter()
            .find(|link| link.parent_index == Some(parent_index) && link.vlan == Some((self.protocol, self.id))))
    }

    fn is(&self, link: &InsideLink, parent_index: u32, links: &[InsideLink]) -> Result<()> {
        let name = &link.name;
        let other = |what: String| {
            Err(Error::conflict(format!("{name} is there already, but it is {what}"))
                .hint(format!("rename or delete it (ip link set {name} name OTHER), or choose another VLAN")))
        };
        let Some((protocol, id)) = link.vlan else {
            return other(format!("no VLAN device but {}", link.kind.as_deref().unwrap_or("a physical interface")));
        };
        if link.parent_index != Some(parent_index) {
            let parent = links.iter().find(|other| Some(other.index) == link.parent_index);
            return other(format!(
                "VLAN {id} of {}",
                parent.map_or("another interface", |parent| parent.name.as_str())
            ));
        }
        if id != self.id {
            return other(format!("VLAN {id} of {}, not {}", self.parent, self.id));
        }
        if protocol != self.protocol {
            return other(format!("a VLAN by {protocol}, not by {}", self.protocol));
        }
        Ok(())
    }

    /// The commands that make it.
    pub fn commands(&self, tag: &Tag) -> Vec<String> {
        let (name, parent) = (quote(self.name.as_str()), quote(self.parent.as_str()));
        let mtu = self.mtu.map(|mtu| format!(" mtu {mtu}")).unwrap_or_default();
        // ip(8) writes the letters of the protocol large.
        let (id, protocol) = (self.id, self.protocol.to_string().replace('q', "Q"));
        vec![
            format!(
                "ip link add link {parent} name {name}{mtu} group {GROUP} up type vlan protocol {protocol} id {id}"
            ),
            format!("ip link property add dev {name} altname {tag}"),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device() -> VlanDevice {
        VlanDevice::new("eth0".parse().unwrap(), VlanId::try_from(10).unwrap(), VlanProtocol::Dot1q, None)
    }

    fn link(name: &str, vlan: Option<(VlanProtocol, u16)>, parent_index: u32) -> InsideLink {
        InsideLink {
            index: 9,
            name: name.into(),
            kind: Some(if vlan.is_some() { "vlan" } else { "bridge" }.into()),
            parent_index: Some(parent_index),
            vlan: vlan.map(|(protocol, id)| (protocol, id.try_into().unwrap())),
            ..InsideLink::default()
        }
    }

    #[test]
    fn only_the_very_vlan_of_the_very_parent_is_used() {
        let found = |link: InsideLink| device().among(&[link], 2).map(|found| found.is_some()).map_err(|e| e.message);
        let (q, ad) = (VlanProtocol::Dot1q, VlanProtocol::Dot1ad);
        assert_eq!(found(link("eth0.10", Some((q, 10)), 2)), Ok(true));
        assert_eq!(found(link("lab", Some((q, 10)), 2)), Ok(true), "whatever it is called");
        assert_eq!(found(link("lab", Some((q, 20)), 2)), Ok(false));
        assert_eq!(found(link("lab", Some((q, 10)), 3)), Ok(false));
        let refused = |link: InsideLink| found(link).unwrap_err().replace("eth0.10 is there already, but it is ", "");
        assert_eq!(refused(link("eth0.10", Some((q, 20)), 2)), "VLAN 20 of eth0, not 10");
        assert_eq!(refused(link("eth0.10", Some((ad, 10)), 2)), "a VLAN by 802.1ad, not by 802.1q");
        assert_eq!(refused(link("eth0.10", Some((q, 10)), 3)), "VLAN 10 of another interface");
        assert_eq!(refused(link("eth0.10", None, 2)), "no VLAN device but bridge");
    }
}
