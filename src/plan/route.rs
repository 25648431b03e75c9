//! Routes, kept as the kernel describes them, so that one that is given back is the very one that
//! was there: protocol, metric, mtu, onlink and whatever else it carried.

use std::{fmt, net::IpAddr};

use ipnetwork::IpNetwork;
use rtnetlink::packet_core::{Emitable, Parseable};
use rtnetlink::packet_route::{
    AddressFamily,
    route::{
        RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteMetric, RouteNextHop, RouteProtocol,
        RouteScope, RouteType, RouteVia,
    },
};
use serde::{Deserialize, Serialize};

use super::render::quote;
use crate::types::{RouteKind, RouteWords, hex, unhex};

/// A route of one namespace: the kernel's own message, and the names of the interfaces in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Stored", into = "Stored")]
pub struct Route {
    message: RouteMessage,
    /// Interface index and name, for people: the message has indexes only.
    devices: Vec<(u32, String)>,
}

impl Route {
    /// A route as the kernel dumped it. What the kernel tells but does not take (flags about the
    /// state of the next hop, ages of cache entries) is left out.
    pub fn from_kernel(mut message: RouteMessage, name_of: impl Fn(u32) -> Option<String>) -> Route {
        message.header.flags &= RouteFlags::Onlink | RouteFlags::Pervasive;
        let by_id = message.attributes.iter().any(|a| matches!(a, RouteAttribute::NhId(_)));
        message.attributes.retain(|attribute| match attribute {
            RouteAttribute::CacheInfo(_) | RouteAttribute::Expires(_) => false,
            // A route by next hop id is dumped with the id's meaning beside it, but taken only without.
            RouteAttribute::Gateway(_)
            | RouteAttribute::Via(_)
            | RouteAttribute::Oif(_)
            | RouteAttribute::MultiPath(_) => !by_id,
            _ => true,
        });
        if let Some(RouteAttribute::MultiPath(hops)) =
            message.attributes.iter_mut().find(|a| matches!(a, RouteAttribute::MultiPath(_)))
        {
            for hop in hops {
                hop.flags &= rtnetlink::packet_route::route::RouteNextHopFlags::Onlink;
            }
        }
        let devices = indexes(&message).into_iter().filter_map(|index| Some((index, name_of(index)?))).collect();
        Route { message, devices }
    }

    /// A new route by `device` (its index and name). `via` is the router, `onlink` says that it is
    /// on the link although no address there says so.
    pub fn new(
        destination: Option<IpNetwork>,
        via: Option<IpAddr>,
        onlink: bool,
        metric: Option<u32>,
        device: (u32, &str),
        ipv6: bool,
    ) -> Route {
        let mut message = RouteMessage::default();
        message.header = RouteHeader {
            address_family: if ipv6 { AddressFamily::Inet6 } else { AddressFamily::Inet },
            destination_prefix_length: destination.map_or(0, |network| network.prefix()),
            table: RouteHeader::RT_TABLE_MAIN,
            protocol: RouteProtocol::Static,
            scope: if via.is_some() || ipv6 { RouteScope::Universe } else { RouteScope::Link },
            kind: RouteType::Unicast,
            flags: if onlink { RouteFlags::Onlink } else { RouteFlags::empty() },
            ..RouteHeader::default()
        };
        message.attributes.extend(destination.map(|network| RouteAttribute::Destination(network.ip().into())));
        message.attributes.extend(via.map(|ip| RouteAttribute::Gateway(ip.into())));
        message.attributes.push(RouteAttribute::Oif(device.0));
        message.attributes.extend(metric.map(RouteAttribute::Priority));
        Route { message, devices: vec![(device.0, device.1.to_owned())] }
    }

    /// The route that somebody has described. `device` is the index and name of the interface that it leaves by.
    pub fn of_words(words: &RouteWords, device: Option<(u32, &str)>) -> Route {
        let ipv6 = words.destination.is_ipv6();
        let (kind, scope) = match words.kind {
            RouteKind::Unicast if words.via.is_none() && !ipv6 => (RouteType::Unicast, RouteScope::Link),
            RouteKind::Unicast => (RouteType::Unicast, RouteScope::Universe),
            RouteKind::Local => (RouteType::Local, if ipv6 { RouteScope::Universe } else { RouteScope::Host }),
            RouteKind::Blackhole => (RouteType::BlackHole, RouteScope::Universe),
            RouteKind::Unreachable => (RouteType::Unreachable, RouteScope::Universe),
            RouteKind::Prohibit => (RouteType::Prohibit, RouteScope::Universe),
            RouteKind::Throw => (RouteType::Throw, RouteScope::Universe),
        };
        let table = words.table();
        let mut message = RouteMessage::default();
        message.header = RouteHeader {
            address_family: if ipv6 { AddressFamily::Inet6 } else { AddressFamily::Inet },
            destination_prefix_length: words.destination.prefix(),
            table: u8::try_from(table).unwrap_or(RouteHeader::RT_TABLE_UNSPEC),
            protocol: words.protocol.map_or(RouteProtocol::Static, RouteProtocol::from),
            scope: words.scope.map_or(scope, RouteScope::from),
            kind,
            flags: if words.onlink { RouteFlags::Onlink } else { RouteFlags::empty() },
            ..RouteHeader::default()
        };
        let attributes = &mut message.attributes;
        let destination = Some(words.destination).filter(|network| network.prefix() > 0);
        attributes.extend(destination.map(|network| RouteAttribute::Destination(network.ip().into())));
        attributes.extend(words.via.map(|ip| RouteAttribute::Gateway(ip.into())));
        attributes.extend(device.map(|(index, _)| RouteAttribute::Oif(index)));
        // What the kernel makes of none; said, so that the route is told from others.
        let metric = words.metric.or(ipv6.then_some(1024));
        attributes.extend(metric.map(RouteAttribute::Priority));
        attributes.extend(words.src.map(|ip| RouteAttribute::PrefSource(ip.into())));
        let of_path = path_metrics(words);
        if !of_path.is_empty() {
            attributes.push(RouteAttribute::Metrics(of_path));
        }
        if table > u32::from(u8::MAX) {
            attributes.push(RouteAttribute::Table(table));
        }
        Route { message, devices: device.into_iter().map(|(index, name)| (index, name.to_owned())).collect() }
    }

    /// Whether this is a route that `words` describe: all that they say is so. `device` is the index of the
    /// interface that they name.
    pub fn answers(&self, words: &RouteWords, device: Option<u32>) -> bool {
        let wanted = Route::of_words(words, None);
        let header = &self.message.header;
        let has = |attribute: &RouteAttribute| match attribute {
            RouteAttribute::Priority(_) if words.metric.is_none() => true,
            // Below.
            RouteAttribute::Destination(_) | RouteAttribute::Table(_) => true,
            other => self.message.attributes.contains(other),
        };
        self.is_ipv6() == wanted.is_ipv6()
            && self.table() == wanted.table()
            && self.destination() == wanted.destination()
            && header.tos == 0
            && device.is_none_or(|index| self.leaves_by() == Some(index))
            && (words.kind == RouteKind::Unicast || header.kind == wanted.message.header.kind)
            && words.scope.is_none_or(|scope| u8::from(header.scope) == scope)
            && words.protocol.is_none_or(|protocol| u8::from(header.protocol) == protocol)
            && wanted.message.attributes.iter().all(has)
    }

    /// The same, of an interface that is called `name` by now.
    pub fn called(mut self, index: u32, name: &str) -> Route {
        let its = self.devices.iter_mut().filter(|(of, _)| *of == index);
        its.for_each(|(_, known)| *known = name.to_owned());
        self
    }

    /// As `Display`, for people, who type it behind `plumb route`: without what is so unless it is said. The
    /// default route of IPv6 is `::/0`, as nothing else may tell that it is.
    pub fn brief(&self) -> String {
        let text = self.to_string().replace(" pref medium", "");
        let text = match self.is_ipv6() {
            true => {
                let text = text.replacen("default", "::/0", usize::from(self.destination_is_all()));
                // The kernel's own choices: the loopback is the way of what leads nowhere.
                let text = format!("{text} ").replace(" metric 1024 ", " ");
                let text = if self.leads_nowhere() { text.replace(" dev lo ", " ") } else { text };
                text.trim_end().to_owned()
            }
            false => text,
        };
        let known =
            [(" proto 2", " proto kernel"), (" proto 3", " proto boot"), (" proto 4", ""), (" proto 9", " proto ra")];
        let by = format!(" proto {}", u8::from(self.message.header.protocol));
        match known.iter().find(|(number, _)| *number == by) {
            Some((number, name)) => text.replacen(number, name, 1),
            None => text,
        }
    }

    fn destination_is_all(&self) -> bool {
        self.message.header.destination_prefix_length == 0
    }

    /// Whether what takes it is dropped, or another table's.
    pub fn leads_nowhere(&self) -> bool {
        use RouteType::{BlackHole, Prohibit, Throw, Unreachable};
        matches!(self.message.header.kind, BlackHole | Unreachable | Prohibit | Throw)
    }

    /// Whether both say the same, but for what the kernel adds by itself.
    pub fn says_what(&self, other: &Route) -> bool {
        let text = |route: &Route| route.to_string().replace(" pref medium", "");
        self.is(other) && text(self) == text(other)
    }

    /// Whether the kernel makes it anew by itself, from an address or from what a router advertises.
    pub fn is_automatic(&self) -> bool {
        matches!(self.message.header.protocol, RouteProtocol::Kernel | RouteProtocol::Ra)
    }

    /// The message to send to the kernel.
    pub fn message(&self) -> &RouteMessage {
        &self.message
    }

    /// Whether it says from which address one sends by it.
    pub fn has_source(&self) -> bool {
        self.message.attributes.iter().any(|a| matches!(a, RouteAttribute::PrefSource(_)))
    }

    /// The message for the same route by an interface whose index was `before` and is `now`.
    pub fn by(&self, before: u32, now: u32) -> RouteMessage {
        let mut message = self.message.clone();
        for attribute in &mut message.attributes {
            match attribute {
                RouteAttribute::Oif(index) if *index == before => *index = now,
                RouteAttribute::MultiPath(hops) => {
                    hops.iter_mut()
                        .filter(|hop| hop.interface_index == before)
                        .for_each(|hop| hop.interface_index = now);
                }
                _ => {}
            }
        }
        message
    }

    pub fn is_ipv6(&self) -> bool {
        self.message.header.address_family == AddressFamily::Inet6
    }

    /// Whether this is a default route of the main table, one that packets follow: both spellings,
    /// without a destination and with 0.0.0.0/0.
    pub fn is_default(&self) -> bool {
        self.message.header.destination_prefix_length == 0
            && self.message.header.source_prefix_length == 0
            && self.message.header.tos == 0
            && self.table() == u32::from(RouteHeader::RT_TABLE_MAIN)
    }

    pub fn table(&self) -> u32 {
        let by_attribute = self.message.attributes.iter().find_map(|a| match a {
            RouteAttribute::Table(table) => Some(*table),
            _ => None,
        });
        by_attribute.unwrap_or(u32::from(self.message.header.table))
    }

    /// The destination network; `0.0.0.0/0` or `::/0` for a default route.
    pub fn destination(&self) -> Option<IpNetwork> {
        let any = if self.is_ipv6() { IpAddr::from([0u16; 8]) } else { IpAddr::from([0u8; 4]) };
        let ip = self.message.attributes.iter().find_map(|a| match a {
            RouteAttribute::Destination(address) => ip_of(address),
            _ => None,
        });
        IpNetwork::new(ip.unwrap_or(any), self.message.header.destination_prefix_length).ok()
    }

    /// The metric, smaller wins. For IPv6 none means 1024 (`IP6_RT_PRIO_USER`).
    pub fn metric(&self) -> u32 {
        let given = self.message.attributes.iter().find_map(|a| match a {
            RouteAttribute::Priority(metric) => Some(*metric),
            _ => None,
        });
        match given {
            Some(0) | None if self.is_ipv6() => 1024,
            Some(metric) => metric,
            None => 0,
        }
    }

    /// The router, where there is a single one.
    pub fn gateway(&self) -> Option<IpAddr> {
        self.message.attributes.iter().find_map(|a| match a {
            RouteAttribute::Gateway(address) => ip_of(address),
            RouteAttribute::Via(RouteVia::Inet(ip)) => Some((*ip).into()),
            RouteAttribute::Via(RouteVia::Inet6(ip)) => Some((*ip).into()),
            _ => None,
        })
    }

    /// The name of the interface that the route leaves by, where there is a single one.
    pub fn device(&self) -> Option<&str> {
        self.leaves_by().and_then(|index| self.name(index))
    }

    /// The index of the interface that the route leaves by, where there is a single one.
    pub fn leaves_by(&self) -> Option<u32> {
        self.message.attributes.iter().find_map(|a| match a {
            RouteAttribute::Oif(index) => Some(*index),
            _ => None,
        })
    }

    /// Whether both stand at the same place of the same table, where the kernel lets one replace the other.
    pub fn competes_with(&self, other: &Route) -> bool {
        self.is_ipv6() == other.is_ipv6()
            && self.table() == other.table()
            && self.destination() == other.destination()
            && self.message.header.tos == other.message.header.tos
            && self.metric() == other.metric()
    }

    /// Whether both are one route, however much of it either tells: same place, same way out.
    pub fn is(&self, other: &Route) -> bool {
        self.competes_with(other) && self.leaves_by() == other.leaves_by() && self.gateway() == other.gateway()
    }

    /// "eth0 (172.17.0.1)", "eth0" or "no interface (blackhole)": the way out, for messages.
    pub fn way(&self) -> String {
        if self.leads_nowhere() {
            return format!("no interface ({})", format!("{:?}", self.message.header.kind).to_lowercase());
        }
        let device = self.device().unwrap_or("several interfaces");
        match self.gateway() {
            Some(gateway) => format!("{device} ({gateway})"),
            None => device.to_owned(),
        }
    }

    /// All routers, where several share the load.
    pub fn gateways(&self) -> Vec<IpAddr> {
        let of_hop = |attribute: &RouteAttribute| match attribute {
            RouteAttribute::Gateway(address) => ip_of(address),
            _ => None,
        };
        let hops = self.message.attributes.iter().filter_map(|attribute| match attribute {
            RouteAttribute::MultiPath(hops) => Some(hops),
            _ => None,
        });
        let shared = hops.flatten().flat_map(|hop| hop.attributes.iter().filter_map(of_hop));
        self.gateway().into_iter().chain(shared).collect()
    }

    fn name(&self, index: u32) -> Option<&str> {
        self.devices.iter().find(|(i, _)| *i == index).map(|(_, name)| name.as_str())
    }

    fn dev(&self, index: u32) -> String {
        self.name(index).map_or_else(|| format!("if{index}"), quote)
    }
}

/// What is said of the path, with the bit of the lock for metric number 2 (RTAX_MTU).
fn path_metrics(words: &RouteWords) -> Vec<RouteMetric> {
    let mut metrics = Vec::new();
    if let Some((bytes, locked)) = words.mtu {
        if locked {
            metrics.push(RouteMetric::Lock(1 << 2));
        }
        metrics.push(RouteMetric::Mtu(bytes));
    }
    metrics.extend(words.advmss.map(RouteMetric::Advmss));
    metrics.extend(words.initcwnd.map(RouteMetric::InitCwnd));
    metrics.extend(words.initrwnd.map(RouteMetric::InitRwnd));
    metrics
}

/// Every interface index that a message mentions.
fn indexes(message: &RouteMessage) -> Vec<u32> {
    let mut found = Vec::new();
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Oif(index) => found.push(*index),
            RouteAttribute::MultiPath(hops) => found.extend(hops.iter().map(|hop| hop.interface_index)),
            _ => {}
        }
    }
    found
}

fn ip_of(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(ip) => Some((*ip).into()),
        RouteAddress::Inet6(ip) => Some((*ip).into()),
        _ => None,
    }
}

/// The arguments of `ip route add`. `ip` must be called with `-6` for IPv6.
impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let header = &self.message.header;
        if header.kind != RouteType::Unicast {
            write!(f, "{} ", format!("{:?}", header.kind).to_lowercase())?;
        }
        match self.destination() {
            Some(network) if network.prefix() > 0 => write!(f, "{network}")?,
            _ => f.write_str("default")?,
        }
        if header.tos != 0 {
            write!(f, " tos {}", header.tos)?;
        }
        // The way first, as ip route prints it, whatever the kernel's order.
        let is_way = |a: &&RouteAttribute| {
            matches!(a, RouteAttribute::Gateway(_) | RouteAttribute::Via(_) | RouteAttribute::Oif(_))
        };
        let attributes = &self.message.attributes;
        for attribute in attributes.iter().filter(is_way).chain(attributes.iter().filter(|a| !is_way(a))) {
            self.show_attribute(f, attribute)?;
        }
        if self.table() != u32::from(RouteHeader::RT_TABLE_MAIN) {
            write!(f, " table {}", self.table())?;
        }
        write!(f, " proto {}", u8::from(header.protocol))?;
        if header.scope != RouteScope::Universe {
            write!(f, " scope {}", format!("{:?}", header.scope).to_lowercase())?;
        }
        if header.flags.contains(RouteFlags::Onlink) {
            f.write_str(" onlink")?;
        }
        Ok(())
    }
}

impl Route {
    fn show_attribute(&self, f: &mut fmt::Formatter<'_>, attribute: &RouteAttribute) -> fmt::Result {
        match attribute {
            RouteAttribute::Gateway(address) => match ip_of(address) {
                Some(ip) => write!(f, " via {ip}"),
                None => Ok(()),
            },
            RouteAttribute::Via(RouteVia::Inet6(ip)) => write!(f, " via inet6 {ip}"),
            RouteAttribute::Via(RouteVia::Inet(ip)) => write!(f, " via inet {ip}"),
            RouteAttribute::Oif(index) => write!(f, " dev {}", self.dev(*index)),
            RouteAttribute::Priority(metric) => write!(f, " metric {metric}"),
            RouteAttribute::PrefSource(address) => match ip_of(address) {
                Some(ip) => write!(f, " src {ip}"),
                None => Ok(()),
            },
            RouteAttribute::NhId(id) => write!(f, " nhid {id}"),
            RouteAttribute::Preference(preference) => {
                let pref = u8::from(*preference);
                write!(
                    f,
                    " pref {}",
                    match pref {
                        1 => "high",
                        3 => "low",
                        _ => "medium",
                    }
                )
            }
            RouteAttribute::Metrics(metrics) => show_metrics(f, metrics),
            RouteAttribute::MultiPath(hops) => hops.iter().try_for_each(|hop| self.show_hop(f, hop)),
            _ => Ok(()),
        }
    }

    fn show_hop(&self, f: &mut fmt::Formatter<'_>, hop: &RouteNextHop) -> fmt::Result {
        f.write_str(" nexthop")?;
        for attribute in &hop.attributes {
            self.show_attribute(f, attribute)?;
        }
        write!(f, " dev {} weight {}", self.dev(hop.interface_index), u32::from(hop.hops) + 1)?;
        if hop.flags.contains(rtnetlink::packet_route::route::RouteNextHopFlags::Onlink) {
            f.write_str(" onlink")?;
        }
        Ok(())
    }
}

fn show_metrics(f: &mut fmt::Formatter<'_>, metrics: &[RouteMetric]) -> fmt::Result {
    let locked =
        metrics.iter().find_map(|m| if let RouteMetric::Lock(bits) = m { Some(*bits) } else { None }).unwrap_or(0);
    // Bit N of the lock says that metric N (RTAX_…) must not be changed by what the path teaches.
    let lock = |number: u32| if locked & (1 << number) != 0 { " lock" } else { "" };
    for metric in metrics {
        match metric {
            RouteMetric::Mtu(value) => write!(f, " mtu{} {value}", lock(2))?,
            RouteMetric::Window(value) => write!(f, " window{} {value}", lock(3))?,
            // The kernel counts the round trip in eighths of a millisecond, its variance in quarters.
            RouteMetric::Rtt(value) => write!(f, " rtt{} {}ms", lock(4), value / 8)?,
            RouteMetric::RttVar(value) => write!(f, " rttvar{} {}ms", lock(5), value / 4)?,
            RouteMetric::SsThresh(value) => write!(f, " ssthresh{} {value}", lock(6))?,
            RouteMetric::Cwnd(value) => write!(f, " cwnd{} {value}", lock(7))?,
            RouteMetric::Advmss(value) => write!(f, " advmss{} {value}", lock(8))?,
            RouteMetric::Reordering(value) => write!(f, " reordering{} {value}", lock(9))?,
            RouteMetric::Hoplimit(value) => write!(f, " hoplimit{} {value}", lock(10))?,
            RouteMetric::InitCwnd(value) => write!(f, " initcwnd{} {value}", lock(11))?,
            RouteMetric::RtoMin(value) => write!(f, " rto_min{} {value}ms", lock(13))?,
            RouteMetric::InitRwnd(value) => write!(f, " initrwnd{} {value}", lock(14))?,
            RouteMetric::QuickAck(value) => write!(f, " quickack{} {value}", lock(15))?,
            RouteMetric::CcAlgo(name) => write!(f, " congctl{} {name}", lock(16))?,
            _ => {}
        }
    }
    Ok(())
}

/// How a record keeps a route: the message in hexadecimal is what counts, the text is for people.
#[derive(Serialize, Deserialize)]
struct Stored {
    text: String,
    message: String,
    devices: Vec<(u32, String)>,
}

impl From<Route> for Stored {
    fn from(route: Route) -> Stored {
        let mut bytes = vec![0; route.message.buffer_len()];
        route.message.emit(&mut bytes);
        Stored { text: route.to_string(), message: hex(&bytes), devices: route.devices }
    }
}

impl TryFrom<Stored> for Route {
    type Error = String;

    fn try_from(stored: Stored) -> Result<Route, String> {
        let bytes =
            unhex(&stored.message).ok_or_else(|| format!("route message {:?} is not hexadecimal", stored.message))?;
        if bytes.len() < 12 {
            return Err(format!("route message of {} bytes is cut off", bytes.len()));
        }
        let message = RouteMessage::parse(&bytes).map_err(|error| format!("route message: {error}"))?;
        Ok(Route { message, devices: stored.devices })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn docker() -> Route {
        let mut route = Route::new(None, Some([172, 17, 0, 1].into()), false, None, (2, "eth0"), false);
        route.message.attributes.push(RouteAttribute::Metrics(vec![RouteMetric::Lock(1 << 2), RouteMetric::Mtu(1400)]));
        route
    }

    #[test]
    fn a_record_gives_back_the_very_route() {
        let text = serde_json::to_string(&docker()).unwrap();
        assert_eq!(serde_json::from_str::<Route>(&text).unwrap(), docker());
        assert!(text.contains("default via 172.17.0.1 dev eth0"), "{text}");
    }

    #[test]
    fn a_cut_message_is_an_error() {
        let text = serde_json::to_string(&docker()).unwrap().replace("\"message\":\"02", "\"message\":\"0");
        assert!(serde_json::from_str::<Route>(&text).is_err());
        let short = r#"{"text":"","message":"0200","devices":[]}"#;
        assert!(serde_json::from_str::<Route>(short).unwrap_err().to_string().contains("cut off"));
    }

    #[test]
    fn reads_as_ip_route_would_type_it() {
        assert_eq!(docker().to_string(), "default via 172.17.0.1 dev eth0 mtu lock 1400 proto 4");
        let link = Route::new(Some("10.0.0.0/8".parse().unwrap()), None, false, Some(7), (3, "a;b"), false);
        assert_eq!(link.to_string(), "10.0.0.0/8 dev 'a;b' metric 7 proto 4 scope link");
    }

    #[test]
    fn both_spellings_of_default_are_recognised() {
        let mut spelled = docker();
        spelled.message.attributes.push(RouteAttribute::Destination(RouteAddress::Inet([0, 0, 0, 0].into())));
        assert!(docker().is_default() && spelled.is_default());
        assert!(spelled.competes_with(&docker()) && spelled.is(&docker()));
    }

    #[test]
    fn ipv6_without_a_metric_has_1024() {
        let plain = Route::new(None, Some("fd00::1".parse().unwrap()), false, None, (2, "eth0"), true);
        let said = Route::new(None, Some("fd00::1".parse().unwrap()), false, Some(1024), (3, "eth1"), true);
        assert!(plain.competes_with(&said) && !plain.is(&said));
    }
}
