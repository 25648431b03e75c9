//! What a shim's routes must not cover, or the host would be cut off.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnetwork::IpNetwork;

use crate::{
    error::{Error, Result},
    kernel::Netns,
    plan::Route,
    types::unhex,
};

/// An error if a route to one of these would lead the host's own router, or whoever works on the host by
/// SSH, into the shim.
pub fn check(routes: impl Iterator<Item = IpNetwork>, host: &Netns) -> Result<()> {
    let mut routes = routes.peekable();
    if routes.peek().is_none() {
        return Ok(());
    }
    let gateways = host.look_inside(|kernel| {
        let links = kernel.links()?;
        let routes = kernel.routes(&links)?;
        Ok(routes.iter().filter(|route| route.is_default()).flat_map(Route::gateways).collect::<Vec<_>>())
    })?;
    let named = |what: &'static str| move |ip: IpAddr| (ip, what);
    let needed = gateways.into_iter().map(named("this host's own router"));
    let needed: Vec<_> = needed.chain(by_ssh().into_iter().map(named("who works on this host by SSH"))).collect();
    for route in routes {
        if route.prefix() == 0 {
            return Err(Error::usage(format!("route {route} would lead everything by the shim"))
                .hint("give the containers' addresses or their range"));
        }
        if let Some((ip, what)) = needed.iter().find(|(ip, _)| route.contains(*ip)) {
            return Err(Error::conflict(format!("route {route} covers {ip}, {what}: the shim would cut the host off"))
                .hint("give smaller ranges without it, or leave --route out for a route to each container"));
        }
    }
    Ok(())
}

/// The other ends of this session and of all others to the SSH server's port.
fn by_ssh() -> Vec<IpAddr> {
    const SSH: u16 = 22;
    let session = std::env::var("SSH_CONNECTION").ok();
    let own = session.as_deref().and_then(|text| text.split_whitespace().next()).and_then(|ip| ip.parse().ok());
    // sudo hides the variable; the connection is there all the same.
    let tables = ["/proc/self/net/tcp", "/proc/self/net/tcp6"].map(|path| fs::read_to_string(path).unwrap_or_default());
    let connected = tables.iter().flat_map(|table| table.lines()).filter_map(|line| established(line, SSH));
    own.into_iter().chain(connected).collect()
}

/// The other end of an established connection to this port, in a line of `/proc/net/tcp`.
fn established(line: &str, port: u16) -> Option<IpAddr> {
    let mut fields = line.split_whitespace().skip(1);
    let (local, remote, state) = (fields.next()?, fields.next()?, fields.next()?);
    let is_to_it = local.rsplit_once(':').is_some_and(|(_, hex)| u16::from_str_radix(hex, 16) == Ok(port));
    if state != "01" || !is_to_it {
        return None;
    }
    // Words of four bytes in the machine's own order.
    let bytes = unhex(&remote.split_once(':')?.0.to_ascii_lowercase())?;
    let words = bytes.chunks(4).map(|word| u32::from_be_bytes(word.try_into().unwrap_or_default()).to_ne_bytes());
    let bytes: Vec<u8> = words.flat_map(|word| word.into_iter()).collect();
    match <[u8; 4]>::try_from(&bytes[..]) {
        Ok(v4) => Some(Ipv4Addr::from(v4).into()),
        Err(_) => Some(Ipv6Addr::from(<[u8; 16]>::try_from(&bytes[..]).ok()?).to_canonical()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_endian = "little")]
    fn connections_to_the_port_are_found() {
        let line = "   1: 0200A8C0:0016 3200A8C0:D431 01 00000000:00000000 02:000A 00000000 0 0 1 2";
        assert_eq!(established(line, 22), Some("192.168.0.50".parse().unwrap()));
        assert_eq!(established(line, 23), None);
        assert_eq!(established(&line.replace(" 01 ", " 0A "), 22), None, "who listens is not connected");
        let mapped = "   0: 0000000000000000FFFF00000200A8C0:0016 0000000000000000FFFF00003200A8C0:D431 01 0:0";
        assert_eq!(established(mapped, 22), Some("192.168.0.50".parse().unwrap()));
        assert_eq!(established("  sl  local_address rem_address   st", 22), None);
    }
}
