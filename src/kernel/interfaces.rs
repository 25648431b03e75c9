//! The host's interfaces, with what decides how good a parent each is.

use std::path::Path;

use rtnetlink::packet_route::{
    RouteNetlinkMessage as Message,
    link::{LinkAttribute, LinkMessage},
};

use super::{
    Kernel, cannot_read,
    links::{attribute, link_of, parent, question},
};
use crate::{error::Result, plan::Parent};

/// An interface of the host.
#[derive(Debug, Clone)]
pub struct Interface {
    pub parent: Parent,
    /// `veth`, `bridge` … or `None` for what stands for hardware.
    pub kind: Option<String>,
    /// The driver of its hardware, such as `virtio_net`.
    pub driver: Option<String>,
    /// How many want it to take all frames, whomever they are for.
    pub promiscuity: u32,
}

impl Kernel {
    /// All of them. Equivalent to `ip -d link show`.
    pub fn interfaces(&mut self) -> Result<Vec<Interface>> {
        let messages = self.on_host(async |host| host.dump(Message::GetLink(question())).await)?;
        let messages = messages.map_err(cannot_read("interfaces"))?;
        let names: Vec<(u32, String)> =
            messages.iter().filter_map(link_of).map(|link| (link.index, link.name)).collect();
        Ok(messages.iter().filter_map(|message| interface(message, &names)).collect())
    }
}

fn interface(message: &Message, names: &[(u32, String)]) -> Option<Interface> {
    let Message::NewLink(link) = message else { return None };
    let found = link_of(message)?;
    let name_of = |index: u32| names.iter().find(|(number, _)| *number == index).map(|(_, name)| name.clone());
    let port_of = found.port_of.map(|index| name_of(index).unwrap_or_else(|| format!("interface {index}")));
    let promiscuity = attribute(link, |a| if let LinkAttribute::Promiscuity(count) = a { Some(*count) } else { None });
    Some(Interface {
        parent: parent(&found.name.parse().ok()?, link, port_of),
        kind: found.kind,
        driver: driver(link),
        promiscuity: promiscuity.unwrap_or(0),
    })
}

/// By its place on its bus, which is the same in each namespace, as `/sys/class/net` is not. Kernels before
/// 5.14 do not tell it.
fn driver(link: &LinkMessage) -> Option<String> {
    let device =
        attribute(link, |a| if let LinkAttribute::ParentDevName(name) = a { Some(name.clone()) } else { None })?;
    let bus =
        attribute(link, |a| if let LinkAttribute::ParentDevBusName(name) = a { Some(name.clone()) } else { None })?;
    let driver = Path::new("/sys/bus").join(bus).join("devices").join(device).join("driver");
    Some(std::fs::read_link(driver).ok()?.file_name()?.to_str()?.to_owned())
}
