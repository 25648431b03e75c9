//! A VLAN of the host's: its device, made where it is missing, and whose the VLAN is.

use std::time::Duration;

use super::{Device, Work, parent, random};
use crate::{
    error::{Error, Result},
    plan::{Parent, Wish, vlan::VlanDevice},
    store::network,
    types::{IfName, Tag, VlanId},
};

/// The VLAN's device, made if it is missing. The host is locked.
pub(super) fn device(work: &mut Work, device: &VlanDevice) -> Result<Device> {
    let below = parent(work.kernel, &device.parent)?;
    if let Some(there) = work.kernel.host_link(&device.name)?
        && device.among(std::slice::from_ref(&there), below.index).is_ok()
    {
        return Ok(Device { parent: parent(work.kernel, &device.name)?, made: false, commands: Vec::new() });
    }
    let links = work.kernel.host_links()?;
    if let Some(there) = device.among(&links, below.index)? {
        let name: IfName = there.name.parse().map_err(Error::failed)?;
        return Ok(Device { parent: parent(work.kernel, &name)?, made: false, commands: Vec::new() });
    }
    if let Some(mtu) = device.mtu.filter(|mtu| mtu.bytes() > below.mtu) {
        return Err(Error::failed(format!(
            "MTU {mtu} of VLAN {} is above that of {}, {}",
            device.id, below.name, below.mtu
        ))
        .hint(format!("raise the interface's: ip link set {} mtu {mtu}", below.name)));
    }
    let tag = Tag::new(work.context.store.mark(), random()?);
    if work.intent.dry_run {
        let parent = Parent { name: device.name.clone(), index: 0, port_of: None, ..below };
        return Ok(Device { parent, made: false, commands: device.commands(&tag) });
    }
    work.kernel.add_vlan(device, below.index, &tag)?;
    device.commands(&tag).iter().for_each(|command| work.context.output.step(command, Duration::ZERO));
    Ok(Device { parent: parent(work.kernel, &device.name)?, made: true, commands: Vec::new() })
}

/// The VLAN may be a network's, whose pool gives each address once. One that is of its subnet is refused, as
/// the pool would not know; beside others it is a warning.
pub(super) fn heed_network(work: &Work, wish: &Wish, parent: &IfName, id: VlanId) -> Result<Option<String>> {
    let store = &*work.context.store;
    let Some(name) = network::of_id(store, parent, id)? else { return Ok(None) };
    let Some(stored) = name.parse().ok().map(|name| network::read(store, &name)).transpose()?.flatten() else {
        return Ok(None);
    };
    let target = &work.target.name;
    let of_pool = |ip| stored.network.pools.iter().any(|pool| pool.subnet.contains(ip));
    let by = if wish.driver.needs_a_bridge() { " --driver veth" } else { "" };
    if let Some(ip) = wish.addresses.iter().map(|address| address.ip()).find(|ip| of_pool(*ip)) {
        return Err(Error::conflict(format!("VLAN {id} of {parent} is network {name}, and {ip} is its to give"))
            .hint(format!("plumb attach {target} {name} --ip {ip}{by}")));
    }
    let join = match work.intent.lease {
        Some(_) => format!("plumb dhcp {target} --network {name}{by}"),
        None => format!("plumb attach {target} {name}{by}"),
    };
    Ok(Some(format!("VLAN {id} of {parent} is network {name}, and this is no member of it; {join} joins")))
}
