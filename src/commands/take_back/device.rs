//! Devices of the host's that plumb makes where they are missing and that go with their last user: those of VLANs, and
//! bridges. None has a record of its own.

use std::{net::IpAddr, path::Path};

use crate::{
    apply,
    commands::Context,
    error::{Error, Result},
    kernel::{Netns, ovs, survey},
    namespace,
    plan::{
        Link,
        bridge::{self, ovs_vsctl},
        facts::{InsideAddress, InsideLink},
        link::GROUP,
        render::quote,
    },
    store::{Attachment, attachment},
    types::{IfName, Place},
};

/// Deletes a VLAN's device or a bridge if plumb made it and nobody uses it. The caller has locked the host. Says
/// so if it stays for somebody whom plumb does not know.
pub fn device(context: &Context, name: &IfName) -> Result<()> {
    match standing(context, name, &[])? {
        Standing::Unused(device) => delete_device(&device)?,
        Standing::OthersUse(how) => context.output.warn(&format!("{name} stays: {how}")),
        Standing::InUse => {}
    }
    Ok(())
}

/// A VLAN's device or a bridge, if plumb made it and nobody uses it but those who are `going`. The caller has locked
/// the host, or only looks.
pub fn unused_device(context: &Context, name: &IfName, going: &[Attachment]) -> Result<Option<InsideLink>> {
    Ok(if let Standing::Unused(device) = standing(context, name, going)? { Some(device) } else { None })
}

/// An error says how to delete it by hand.
pub fn delete_device(device: &InsideLink) -> Result<()> {
    let deleted = match is_open_vswitchs(device) {
        true => device.name.parse().map_err(Error::failed).and_then(|name| ovs::delete_bridge(&name)),
        false => Netns::open(Path::new(Place::HOST))?.look_inside(|kernel| kernel.delete(device)),
    };
    deleted.map_err(|error| apply::left_behind(error, vec![device_deletion(device)]))
}

/// The command that deletes it.
pub fn device_deletion(device: &InsideLink) -> String {
    match is_open_vswitchs(device) {
        true => ovs_vsctl(&bridge::open_vswitch_deletion(&device.name)),
        false => format!("ip link del dev {}", quote(&device.name)),
    }
}

/// What a device of the host's that plumb made is good for.
enum Standing {
    Unused(InsideLink),
    /// By what is none of plumb's, and by nothing else.
    OthersUse(String),
    /// Or it is not plumb's.
    InUse,
}

/// Nobody uses it if no interface hangs on it in any namespace, it has no port and no address and is no port, and
/// no attachment is being made on it, or is a port of it by its record, wherever that port is now. Those who are
/// `going` do not count.
fn standing(context: &Context, name: &IfName, going: &[Attachment]) -> Result<Standing> {
    // Who joins a network keeps the host locked until its link is there; only `flat` on such a device
    // does not. A store that has gone must not keep the host from being as it was.
    let kept = attachment::all(&*context.store, None).unwrap_or_default();
    let is_its_port = |a: &Attachment, link: &Link| link.driver.needs_a_bridge() && namespace::is_there(a);
    let wants_it = |a: &Attachment| {
        a.link().is_some_and(|link| link.parent.name == *name && (a.is_unfinished() || is_its_port(a, link)))
    };
    let stays = |a: &Attachment| !going.iter().any(|gone| gone.tag == a.tag);
    if kept.into_iter().flatten().any(|a| stays(&a) && wants_it(&a)) {
        return Ok(Standing::InUse);
    }
    // What is away itself has nothing on it.
    if let Some(home) = going.iter().filter_map(|a| a.link()?.home()).find(|home| home.name == *name) {
        let device = InsideLink { name: name.to_string(), kind: home.kind.clone(), ..InsideLink::default() };
        return Ok(if home.device_tag.is_some() { Standing::Unused(device) } else { Standing::InUse });
    }
    let goes = |link: &InsideLink| {
        let is_its = |a: &Attachment| {
            link.tag.as_ref() == Some(&a.tag)
                || a.link().and_then(Link::host_end).is_some_and(|(end, _)| link.name == end.as_str())
        };
        link.group == GROUP && going.iter().any(is_its)
    };
    let host = Netns::open(Path::new(Place::HOST))?;
    let standing = host.look_inside(|kernel| {
        let (links, addresses) = (kernel.links()?, kernel.addresses()?);
        let links: Vec<InsideLink> = links.into_iter().filter(|link| !goes(link)).collect();
        Ok(on_the_host(name, &links, &addresses, going))
    })?;
    let is_child = |link: &InsideLink| !going.iter().any(|gone| link.tag.as_ref() == Some(&gone.tag));
    Ok(match standing {
        Standing::Unused(device)
            if survey::children(&host, device.index).any(|found| found.links.iter().any(is_child)) =>
        {
            Standing::InUse
        }
        standing => standing,
    })
}

/// As far as the host itself tells.
fn on_the_host(name: &IfName, links: &[InsideLink], addresses: &[InsideAddress], going: &[Attachment]) -> Standing {
    let ours = |link: &&InsideLink| {
        link.name == name.as_str() && (link.is_plumbs_device() || is_unused_open_vswitch(link, name, going))
    };
    let Some(device) = links.iter().find(ours) else { return Standing::InUse };
    let hangs_on = |link: &InsideLink| link.parent_index == Some(device.index) && link.parent_namespace.is_none();
    let (ports, others): (Vec<_>, Vec<_>) =
        links.iter().filter(|link| link.port_of == Some(device.index)).partition(|port| port.group == GROUP);
    if !ports.is_empty() || links.iter().any(hangs_on) {
        return Standing::InUse;
    }
    let is_own = |address: &&InsideAddress| {
        address.index == device.index && !matches!(address.ip, IpAddr::V6(ip) if ip.is_unicast_link_local())
    };
    let uses = (others.iter().map(|port| format!("{} is a port of it", port.name)))
        .chain(addresses.iter().filter(is_own).map(|own| format!("it has the address {}", own.ip)))
        .chain(device.port_of.map(|_| "it is a port itself".into()))
        .collect::<Vec<String>>();
    match uses.is_empty() {
        true => Standing::Unused(device.clone()),
        false => Standing::OthersUse(uses.join(", ")),
    }
}

/// Of what plumb makes, what is neither of the kernel's two kinds.
fn is_open_vswitchs(device: &InsideLink) -> bool {
    !device.is_bridge() && device.kind.as_deref() != Some("vlan")
}

/// Whether it is a bridge of Open vSwitch's that plumb has made and that has no port.
fn is_unused_open_vswitch(link: &InsideLink, name: &IfName, going: &[Attachment]) -> bool {
    let goes = |port: &IfName| {
        going.iter().filter_map(|gone| gone.link().and_then(Link::host_end)).any(|(end, _)| end == port)
    };
    let is_it = |(bridge, ports): &(IfName, Vec<IfName>)| bridge == name && ports.iter().all(goes);
    link.kind.is_some() && is_open_vswitchs(link) && ovs::own_bridges().is_ok_and(|own| own.iter().any(is_it))
}
