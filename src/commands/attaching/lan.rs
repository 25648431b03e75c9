//! What the LAN is asked and told about addresses.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use crate::{
    apply::Transaction,
    error::{Error, Result},
    kernel::{Kernel, Netns},
    plan::{Driver, Parent, Wiring},
    store::Attachment,
};

/// An error if somebody on the LAN has one of the addresses (RFC 5227).
pub fn probe_ipv4(
    tx: &mut Transaction<'_, Kernel>,
    attachment: &Attachment,
    wiring: &Wiring,
    parent: &Parent,
    host: &Netns,
    duration: Duration,
) -> Result<()> {
    let (ips, _) = by_version(attachment);
    let Some(mac) = wiring.link.mac.or(parent.mac).filter(|_| !ips.is_empty()) else { return Ok(()) };
    let answer = match &wiring.link.driver {
        Driver::Macvlan(_) | Driver::Veth { .. } | Driver::Phys { .. } | Driver::Dummy | Driver::Ipoib { .. } => {
            tx.executor.probe(wiring.link.index, mac.bytes(), &ips, duration)?
        }
        // A probe is from nobody's address, and so is the answer for nobody's. By its address alone one
        // of the parent's ipvlans is told from another, so the parent itself gets it, on the host.
        Driver::Ipvlan(_) => {
            host.look_inside(|on_host| on_host.probe(wiring.link.parent.index, mac.bytes(), &ips, duration))?
        }
    };
    match answer {
        None => Ok(()),
        Some(answer) => Err(Error::conflict(format!("{} is in use on the LAN by {}", answer.ip, answer.mac_text()))
            .hint("choose another address; --probe 0 takes it all the same")),
    }
}

/// Best effort: who is not told now learns it by asking.
pub fn announce(tx: &mut Transaction<'_, Kernel>, attachment: &Attachment, wiring: &Wiring, parent: &Parent) {
    let (v4, v6) = by_version(attachment);
    let Some(mac) = wiring.link.mac.or(parent.mac) else { return };
    if !v4.is_empty() {
        let _ = tx.executor.announce(wiring.link.index, mac.bytes(), &v4);
    }
    if !v6.is_empty() {
        let _ = tx.executor.advertise(wiring.link.index, mac.bytes(), &v6);
    }
}

fn by_version(attachment: &Attachment) -> (Vec<Ipv4Addr>, Vec<Ipv6Addr>) {
    let (mut v4, mut v6) = (Vec::new(), Vec::new());
    for address in &attachment.wish.addresses {
        match address.ip() {
            IpAddr::V4(ip) => v4.push(ip),
            IpAddr::V6(ip) => v6.push(ip),
        }
    }
    (v4, v6)
}
