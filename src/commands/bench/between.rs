//! Two targets that run: by which address one reaches the other, or which hop fails.

use std::{
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    time::Duration,
};

use crate::{
    commands::Context,
    container::{self, Target},
    error::{Error, Kind, Result},
    kernel::{Kernel, Netns, Reach},
    namespace,
    plan::{Inside, Route},
    types::TargetName,
};

/// A target with its namespace.
pub struct End {
    pub target: Target,
    pub namespace: Netns,
}

/// How one end reaches another address.
pub struct Path {
    pub to: IpAddr,
    /// The interface that packets leave by.
    pub device: String,
    pub mtu: u32,
}

/// A hop is given up after so long.
const PATIENCE: Duration = Duration::from_secs(1);

impl End {
    pub fn open(name: &TargetName, context: &Context) -> Result<End> {
        let target = container::find(name, &context.engines, None)?;
        let namespace = namespace::open(&target, &Netns::of_this_thread()?)?;
        Ok(End { target, namespace })
    }

    fn name(&self) -> &TargetName {
        &self.target.name
    }

    /// The way to `server`, by the first of its addresses that answers, those on a link of ours first.
    pub fn path_to(&self, server: &End) -> Result<Path> {
        let (client, name) = (self.name(), server.name());
        if self.namespace.id() == server.namespace.id() {
            return Err(Error::failed(format!(
                "{client} and {name} are in one network namespace: nothing lies between them"
            ))
            .hint("plumb bench --ways loopback measures that"));
        }
        let there = server.namespace.look_inside(Kernel::look)?;
        let here = self.namespace.look_inside(Kernel::look)?;
        let candidates = candidates(&there, &here);
        let Some(first) = candidates.first() else {
            return Err(Error::failed(format!("{name} has no address that another could send to"))
                .hint(format!("plumb flat {name} -i eth0 --ip ADDR/LEN gives it one")));
        };
        for to in &candidates {
            // Who listens there is plumb, on whatever port is free.
            let listener = server.namespace.look_inside(|_| {
                TcpListener::bind((*to, 0)).map_err(|error| Error::io(format!("cannot listen at {to}"), &error))
            })?;
            let port = listener.local_addr().map(|address| address.port());
            let Ok(port) = port else { continue };
            if let Ok(path) = self.path(*to, port) {
                let mtu = there.addresses.iter().find(|address| address.ip == *to);
                let mtu = mtu.and_then(|address| there.links.iter().find(|link| link.index == address.index));
                return Ok(Path { mtu: mtu.map_or(path.mtu, |link| link.mtu.min(path.mtu)), ..path });
            }
        }
        Err(self.which_hop_fails(*first, name))
    }

    /// The way to a port where somebody listens.
    pub fn path(&self, to: IpAddr, port: u16) -> std::result::Result<Path, std::io::Error> {
        let connected = self.namespace.look_inside(|kernel| {
            let stream = TcpStream::connect_timeout(&SocketAddr::new(to, port), PATIENCE);
            let from = stream.and_then(|stream| Ok(stream.local_addr()?.ip()));
            Ok((from, kernel.look()?))
        });
        let (from, here) = connected.map_err(std::io::Error::other)?;
        let from = from?;
        let device = here.addresses.iter().find(|address| address.ip == from).map(|address| address.index);
        let link = here.links.iter().find(|link| Some(link.index) == device);
        let (device, mtu) = link.map_or(("?".to_owned(), 1500), |link| (link.name.clone(), link.mtu));
        Ok(Path { to, device, mtu })
    }

    /// Follows the way to `to`, which is an address of `name`, as far as it goes.
    pub fn which_hop_fails(&self, to: IpAddr, name: &(impl std::fmt::Display + Sync)) -> Error {
        let client = self.name();
        let followed = self.namespace.look_inside(|kernel| {
            let here = kernel.look()?;
            let Some(route) = best_route(&here, to) else {
                return Ok(Error::failed(format!("{client} has no route to {to}, an address of {name}"))
                    .hint(format!("ip route inside shows what it has; attach both to one LAN or network, such as by plumb flat {client}")));
            };
            let device = route.device().unwrap_or("?").to_owned();
            if let Some(router) = route.gateway()
                && kernel.ping(router, None, PATIENCE)? == Reach::Silent
            {
                return Ok(Error::failed(format!(
                    "{client} does not reach {name}: the first hop fails, as router {router} on {device} does not answer"
                ))
                .hint(format!("plumb show {client} tells whether it is attached as on record")));
            }
            Ok(match (kernel.ping(to, None, PATIENCE)?, route.gateway()) {
                (Reach::Answered(_) | Reach::OnLinkOnly, _) => Error::failed(format!(
                    "{client} reaches {name}, {to}, but it takes no TCP connection: a firewall in it or on the way"
                ))
                .hint(format!("nft list ruleset inside {name} and on the host shows what there is")),
                (Reach::Silent, Some(router)) => Error::failed(format!(
                    "{client} does not reach {name}: router {router} answers, and beyond it {to} does not"
                ))
                .hint(format!("look at the router's way to {to}, and at the way back from {name}")),
                (Reach::Silent, None) => Error::failed(format!(
                    "{client} does not reach {name}: nobody answers for {to} on {device}, so the two are not on one layer 2"
                ))
                .hint("look at their parents, VLANs and modes: plumb ls shows them; in mode private none reaches another"),
            })
        });
        followed.unwrap_or_else(|error| error)
    }
}

impl Error {
    /// What a failed connection to a listener of plumb's means.
    pub fn of_connection(error: &std::io::Error, to: IpAddr, port: u16) -> Error {
        match error.kind() {
            std::io::ErrorKind::ConnectionRefused => {
                Error::new(Kind::NotFound, format!("nobody listens at {to}, port {port}"))
                    .hint("plumb bench --server TARGET on that host does")
            }
            _ => Error::io(format!("cannot connect to {to}, port {port}"), error),
        }
    }
}

/// The addresses of `there` that `here` may reach, those of a subnet of its own first, IPv4 first.
fn candidates(there: &Inside, here: &Inside) -> Vec<IpAddr> {
    let is_reachable = |ip: &IpAddr| match ip {
        IpAddr::V4(ip) => !ip.is_loopback() && !ip.is_link_local(),
        IpAddr::V6(ip) => !ip.is_loopback() && !ip.is_unicast_link_local(),
    };
    let mut found: Vec<IpAddr> = there.addresses.iter().map(|address| address.ip).filter(is_reachable).collect();
    let is_on_link = |ip: IpAddr| best_route(here, ip).is_some_and(|route| route.gateway().is_none());
    found.sort_by_key(|ip| (!is_on_link(*ip), ip.is_ipv6()));
    found
}

/// The route of the main table that packets to `ip` follow.
fn best_route(inside: &Inside, ip: IpAddr) -> Option<&Route> {
    const MAIN: u32 = 254;
    let leads = |route: &&Route| {
        route.table() == MAIN
            && route.is_ipv6() == ip.is_ipv6()
            && route.destination().is_some_and(|to| to.contains(ip))
    };
    let prefix = |route: &Route| route.destination().map_or(0, |to| to.prefix());
    inside.routes.iter().filter(leads).max_by_key(|route| (prefix(route), std::cmp::Reverse(route.metric())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::facts::InsideAddress;

    fn route(to: &str, via: Option<&str>) -> Route {
        let to = (!to.is_empty()).then(|| to.parse().unwrap());
        Route::new(to, via.map(|via| via.parse().unwrap()), false, None, (2, "eth0"), false)
    }

    #[test]
    fn the_longest_prefix_wins_and_no_route_is_told() {
        let inside =
            Inside { routes: vec![route("", Some("10.0.0.1")), route("10.1.0.0/16", None)], ..Inside::default() };
        let gateway = |ip: &str| best_route(&inside, ip.parse().unwrap()).map(|route| route.gateway());
        assert_eq!(gateway("10.1.2.3"), Some(None));
        assert_eq!(gateway("10.2.0.1"), Some(Some("10.0.0.1".parse().unwrap())));
        assert_eq!(gateway("fd00::1"), None);
    }

    #[test]
    fn an_address_on_a_link_of_ours_is_tried_first() {
        let here =
            Inside { routes: vec![route("", Some("172.17.0.1")), route("192.168.0.0/24", None)], ..Inside::default() };
        let address = |ip: &str| InsideAddress {
            index: 2,
            ip: ip.parse().unwrap(),
            prefix: 24,
            tentative: false,
            duplicate: false,
        };
        let ips = ["127.0.0.1", "fe80::1", "fd00::5", "172.18.0.2", "192.168.0.7"];
        let there = Inside { addresses: ips.map(address).to_vec(), ..Inside::default() };
        let expected: Vec<IpAddr> = ["192.168.0.7", "172.18.0.2", "fd00::5"].map(|ip| ip.parse().unwrap()).to_vec();
        assert_eq!(candidates(&there, &here), expected);
    }
}
