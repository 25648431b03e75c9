//! The switch in the host that a veth is a port of: a bridge of the kernel's or of Open vSwitch, and how one is
//! made where it is missing.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    plan::{link::GROUP, render::quote},
    types::{IfName, Mac, Tag, VlanId},
};

/// What kind of switch it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Switch {
    /// A bridge of the kernel's that looks at no VLANs.
    Bridge,
    /// One that keeps VLANs apart. A new port is in `default_vlan`, untagged, if there is one.
    VlanBridge {
        default_vlan: Option<VlanId>,
    },
    OpenVswitch,
}

/// A bridge to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bridge {
    pub name: IfName,
    /// Always the same for the same host and name.
    pub mac: Mac,
    /// It is to keep VLANs apart.
    pub filters: bool,
}

impl Bridge {
    pub fn new(name: IfName, filters: bool, host: &str) -> Bridge {
        Bridge { mac: Mac::derived(&["plumb bridge", host, name.as_str()]), name, filters }
    }

    /// What it is when it is made: the kernel's `default_pvid` is 1.
    pub fn switch(&self) -> Switch {
        match self.filters {
            true => Switch::VlanBridge { default_vlan: VlanId::try_from(1).ok() },
            false => Switch::Bridge,
        }
    }

    /// The commands that make it.
    pub fn commands(&self, tag: &Tag) -> Vec<String> {
        let (name, mac) = (quote(self.name.as_str()), self.mac);
        let filters = if self.filters { " vlan_filtering 1" } else { "" };
        vec![
            format!("ip link add name {name} address {mac} group {GROUP} up type bridge{filters}"),
            format!("ip link property add dev {name} altname {tag}"),
        ]
    }
}

/// A port of a bridge of Open vSwitch's, which remembers ports by name, whether their interfaces are there or not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Port {
    pub bridge: IfName,
    /// The interface that is the port: the end of a veth that stays on the host.
    pub name: IfName,
    /// The VLAN that it is in, untagged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vlan: Option<VlanId>,
    /// What is written beside it, for people and for plumb to know it again.
    pub external_ids: BTreeMap<String, String>,
}

impl Port {
    /// The key of plumb's tag among the external ids, of a port's interface and of a bridge.
    pub const TAG: &str = "plumb";

    /// The words of `ovs-vsctl` that make it: all of it or nothing.
    pub fn addition(&self) -> Vec<String> {
        let mut words = vec!["add-port".into(), self.bridge.to_string(), self.name.to_string()];
        words.extend(self.vlan.map(|id| format!("tag={id}")));
        words.extend(["--".into(), "set".into(), "Interface".into(), self.name.to_string()]);
        // In quotes, as a value such as netns:web would not be a word for ovs-vsctl.
        let id = |(key, value): (&String, &String)| format!("external-ids:{key}={value:?}");
        words.extend(self.external_ids.iter().map(id));
        words
    }

    /// The words of `ovs-vsctl` that delete it. That it has gone is no failure.
    pub fn deletion(&self) -> Vec<String> {
        // The daemon that looks after it may have ended; it hears of this when it is back.
        ["--no-wait", "--if-exists", "del-port", self.bridge.as_str(), self.name.as_str()].map(str::to_owned).to_vec()
    }
}

/// The words of `ovs-vsctl` that make a bridge of this name, and one that plumb knows again.
pub fn open_vswitch_addition(name: &IfName, tag: &Tag) -> Vec<String> {
    let id = format!("external-ids:{}={:?}", Port::TAG, tag.to_string());
    ["add-br", name.as_str(), "--", "set", "Bridge", name.as_str(), &id].map(str::to_owned).to_vec()
}

/// The words of `ovs-vsctl` that delete the bridge of this name with its ports. That it has gone is no failure.
pub fn open_vswitch_deletion(name: &str) -> Vec<String> {
    ["--if-exists", "del-br", name].map(str::to_owned).to_vec()
}

/// `ovs-vsctl` with these words, as a person would type it.
pub fn ovs_vsctl(words: &[String]) -> String {
    let words: Vec<String> = words.iter().map(|word| quote(word)).collect();
    format!("ovs-vsctl {}", words.join(" "))
}
