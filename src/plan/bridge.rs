//! A bridge that plumb makes where one was named that is not there.

use crate::{
    plan::{link::GROUP, render::quote},
    types::{IfName, Mac, Tag},
};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bridge {
    pub name: IfName,
    /// Always the same for the same host and name.
    pub mac: Mac,
}

impl Bridge {
    pub fn new(name: IfName, host: &str) -> Bridge {
        Bridge { mac: Mac::derived(&["plumb bridge", host, name.as_str()]), name }
    }

    /// The commands that make it.
    pub fn commands(&self, tag: &Tag) -> Vec<String> {
        let (name, mac) = (quote(self.name.as_str()), self.mac);
        vec![
            format!("ip link add name {name} address {mac} group {GROUP} up type bridge"),
            format!("ip link property add dev {name} altname {tag}"),
        ]
    }
}
