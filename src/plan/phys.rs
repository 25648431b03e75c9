//! An interface of the host's that moves into a target as it is, and all that it has at home: the kernel takes
//! that from whatever leaves a namespace, so it is kept, and given back when the interface returns.

use std::{fmt, net::IpAddr};

use rtnetlink::packet_core::{Emitable, Parseable};
use rtnetlink::packet_route::{
    AddressFamily,
    address::{AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, AddressProtocol, AddressScope},
};
use serde::{Deserialize, Serialize};

use super::{
    Driver, Link, Parent, Qdisc, Route, Wish,
    link::GROUP,
    render::{inside, ip_route, quote},
};
use crate::{
    error::{Error, Result},
    types::{IfName, Mac, Tag, hex, unhex},
};

/// What an interface is on its host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Home {
    pub name: IfName,
    pub index: u32,
    pub mac: Option<Mac>,
    pub mtu: u32,
    pub up: bool,
    pub group: u32,
    /// The kernel's kind; none for hardware. What has one is deleted with the namespace that it is in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// The number of the radio, for wifi, which moves as a whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phy: Option<u32>,
    /// The attachment's. It is on the interface from before it leaves until it has all back, so that a run that
    /// was killed anywhere between can be finished.
    pub tag: Tag,
    /// That of a device that plumb itself has made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_tag: Option<Tag>,
    /// Settings under `/proc/sys`, by key, that are not what a new interface begins with.
    pub settings: Vec<(String, String)>,
    /// In the order in which they were given: the first of a subnet is its primary one.
    pub addresses: Vec<OwnAddress>,
    /// In an order in which each is valid: what leads to a router comes before what leads by it.
    pub routes: Vec<Route>,
    /// At its root, if somebody has put one there. What is below one with classes is not kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub qdisc: Option<Qdisc>,
    /// When it was all this, in seconds since 1970: leased addresses run down meanwhile.
    pub seen: u64,
}

/// What a plan has to know of an interface that shall move.
#[derive(Debug, Clone)]
pub struct Moving {
    pub home: Home,
    /// What hangs on it, in whatever namespace, as messages name it.
    pub children: Vec<String>,
    /// Whose connection comes by it: "the ssh session from 10.0.0.5".
    pub carries: Option<String>,
}

/// An address of the host's, kept as the kernel described it: broadcast, label, scope, metric and all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Stored", into = "Stored")]
pub struct OwnAddress(AddressMessage);

impl OwnAddress {
    /// An address as it was dumped; none for one that the kernel makes anew by itself: a link-local one, and
    /// what an IPv6 router or server gave, who does it again.
    pub fn from_kernel(mut message: AddressMessage, interface: &IfName) -> Option<OwnAddress> {
        use AddressProtocol::{LinkLocal, RouterAnnouncement};
        let by_kernel = |a: &AddressAttribute| {
            matches!(a, AddressAttribute::Protocol(LinkLocal) | AddressAttribute::Protocol(RouterAnnouncement))
        };
        let address = OwnAddress(message.clone());
        let is_ipv6 = message.header.family == AddressFamily::Inet6;
        if message.attributes.iter().any(by_kernel) || (is_ipv6 && address.seconds_left().is_some()) {
            return None;
        }
        // What the kernel tells but does not take.
        let settable = AddressFlags::Nodad
            | AddressFlags::Homeaddress
            | AddressFlags::Managetempaddr
            | AddressFlags::Noprefixroute
            | AddressFlags::Mcautojoin;
        message.header.flags &= AddressHeaderFlags::Nodad | AddressHeaderFlags::Homeaddress;
        for attribute in &mut message.attributes {
            if let AddressAttribute::Flags(flags) = attribute {
                *flags &= settable;
            }
        }
        let is_for_ever = address.seconds_left().is_none();
        message.attributes.retain(|attribute| match attribute {
            AddressAttribute::CacheInfo(_) => !is_for_ever,
            // That is the label of an address that has none.
            AddressAttribute::Label(label) => label != interface.as_str(),
            _ => true,
        });
        Some(OwnAddress(message))
    }

    /// The host's own end of it, where it has a peer; `None` for a message that names neither.
    pub fn ip(&self) -> Option<IpAddr> {
        let find = |pick: fn(&AddressAttribute) -> Option<IpAddr>| self.0.attributes.iter().find_map(pick);
        let local = find(|a| if let AddressAttribute::Local(ip) = a { Some(*ip) } else { None });
        local.or_else(|| self.peer())
    }

    /// `192.168.0.2/24`
    fn brief(&self) -> Option<String> {
        Some(format!("{}/{}", self.ip()?, self.0.header.prefix_len))
    }

    fn peer(&self) -> Option<IpAddr> {
        self.0.attributes.iter().find_map(|a| if let AddressAttribute::Address(ip) = a { Some(*ip) } else { None })
    }

    /// How long it was valid when it was seen; none: for ever.
    fn seconds_left(&self) -> Option<u32> {
        self.0.attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::CacheInfo(limits) if limits.ifa_valid != u32::MAX => Some(limits.ifa_valid),
            _ => None,
        })
    }

    /// The message that gives it to the interface with that index, so many seconds later; none if it has run
    /// out.
    pub fn message(&self, index: u32, later: u64) -> Option<AddressMessage> {
        let mut message = self.0.clone();
        message.header.index = index;
        let later = u32::try_from(later).unwrap_or(u32::MAX);
        for attribute in &mut message.attributes {
            if let AddressAttribute::CacheInfo(limits) = attribute {
                limits.ifa_valid = limits.ifa_valid.checked_sub(later).filter(|left| *left > 0)?;
                limits.ifa_preferred = limits.ifa_preferred.saturating_sub(later);
            }
        }
        Some(message)
    }
}

/// The arguments of `ip addr add`, but for the device.
impl fmt::Display for OwnAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(ip) = self.ip() else { return Ok(()) };
        match self.peer().filter(|peer| *peer != ip) {
            Some(peer) => write!(f, "{ip} peer {peer}/{}", self.0.header.prefix_len)?,
            None => write!(f, "{ip}/{}", self.0.header.prefix_len)?,
        }
        for attribute in &self.0.attributes {
            match attribute {
                AddressAttribute::Broadcast(broadcast) => write!(f, " brd {broadcast}")?,
                AddressAttribute::Label(label) => write!(f, " label {}", quote(label))?,
                AddressAttribute::RoutePriority(metric) => write!(f, " metric {metric}")?,
                AddressAttribute::CacheInfo(limits) => {
                    write!(f, " valid_lft {} preferred_lft {}", limits.ifa_valid, limits.ifa_preferred)?;
                }
                AddressAttribute::Flags(flags) => {
                    let words = [
                        (AddressFlags::Nodad, " nodad"),
                        (AddressFlags::Homeaddress, " home"),
                        (AddressFlags::Managetempaddr, " mngtmpaddr"),
                        (AddressFlags::Noprefixroute, " noprefixroute"),
                        (AddressFlags::Mcautojoin, " autojoin"),
                    ];
                    let set = words.into_iter().filter(|(flag, _)| flags.contains(*flag));
                    set.into_iter().try_for_each(|(_, word)| f.write_str(word))?;
                }
                _ => {}
            }
        }
        // The kernel chooses that of IPv6 by the address.
        match self.0.header.scope {
            AddressScope::Universe => Ok(()),
            _ if self.0.header.family == AddressFamily::Inet6 => Ok(()),
            scope => write!(f, " scope {}", u8::from(scope)),
        }
    }
}

/// How a record keeps an address: the message in hexadecimal is what counts, the text is for people.
#[derive(Serialize, Deserialize)]
struct Stored {
    text: String,
    message: String,
}

impl From<OwnAddress> for Stored {
    fn from(address: OwnAddress) -> Stored {
        let mut bytes = vec![0; address.0.buffer_len()];
        address.0.emit(&mut bytes);
        Stored { text: address.to_string(), message: hex(&bytes) }
    }
}

impl TryFrom<Stored> for OwnAddress {
    type Error = String;

    fn try_from(stored: Stored) -> std::result::Result<OwnAddress, String> {
        const HEADER: usize = 8;
        let bytes = unhex(&stored.message).filter(|bytes| bytes.len() >= HEADER);
        let bytes = bytes.ok_or_else(|| format!("address message {:?} is cut off", stored.message))?;
        AddressMessage::parse(&bytes).map(OwnAddress).map_err(|error| format!("address message: {error}"))
    }
}

/// What keeps the interface where it is.
pub(super) fn check(wish: &Wish, parent: &Parent, moving: &Moving, warnings: &mut Vec<String>) -> Result<()> {
    let name = &parent.name;
    if parent.switch.is_some() {
        return Err(Error::failed(format!("{name} is a bridge, and the kernel keeps those where they are"))
            .hint(format!("plumb flat {} -i {name} --driver veth makes the container a port of it", wish.target)));
    }
    if let Some(master) = &parent.port_of {
        return Err(Error::conflict(format!("{name} is a port of {master}, so it cannot leave the host"))
            .hint(format!("ip link set {name} nomaster takes it out; or use {master}")));
    }
    if let Some((first, others)) = moving.children.split_first() {
        let all = if others.is_empty() { first.clone() } else { moving.children.join(", ") };
        return Err(Error::conflict(format!("{name} cannot leave the host: {all} would be cut off"))
            .hint(format!("detach or delete what hangs on {name} first, or use another interface")));
    }
    if moving.home.phy.is_some() {
        warnings
            .push(format!("{name} leaves its access point: what logs in, such as wpa_supplicant, has to run inside"));
    }
    warnings.extend(moving.home.goes_along());
    if let Some(qdisc) = moving.home.qdisc.as_ref().filter(|qdisc| qdisc.may_have_classes()) {
        let kind = qdisc.discipline.kind();
        warnings.push(format!("{name} loses its {kind} and the classes below it: detach does not give those back"));
    }
    if wish.force {
        return Ok(());
    }
    let hint = "use macvlan, which leaves it where it is; --force moves it all the same";
    if let Some(way_out) = moving.home.routes.iter().find(|route| route.is_default()) {
        let router = way_out.gateway().map_or(String::new(), |ip| format!(" to {ip}"));
        return Err(Error::conflict(format!("{name} carries this host's default route{router}: it would be cut off"))
            .hint(hint));
    }
    match &moving.carries {
        Some(whose) => Err(Error::conflict(format!("{name} carries {whose}: moving it would cut that off")).hint(hint)),
        None => Ok(()),
    }
}

/// What is made with a link, and cannot be wished for one that is there.
pub(super) fn check_tuning(wish: &Wish) -> Result<()> {
    let tuning = wish.tuning;
    let given = [
        (tuning.big_tcp, "--big-tcp"),
        (tuning.txqueuelen, "--txqueuelen"),
        (tuning.queues, "--queues"),
        (tuning.bc_queue_len, "--bc-queue-len"),
    ];
    match given.into_iter().find(|(value, _)| value.is_some()) {
        Some((_, option)) => {
            Err(Error::usage(format!("{option} is for links that plumb makes, and --driver phys makes none"))
                .hint("leave it out, or set it on the host beforehand: it moves along"))
        }
        None => Ok(()),
    }
}

/// The command that moves the interface in, in one request.
pub(super) fn move_in(link: &Link, home: &Home, namespace: &str) -> String {
    let (from, to) = (quote(home.name.as_str()), quote(link.name.as_str()));
    let untagged = home.device_tag.as_ref().map(|tag| format!("ip link property del dev {from} altname {tag} && "));
    let tagged = format!("ip link property add dev {from} altname {} && ", home.tag);
    let mac = link.mac.filter(|mac| Some(*mac) != home.mac).map(|mac| format!(" address {mac}")).unwrap_or_default();
    let mtu = if link.mtu.bytes() == home.mtu { String::new() } else { format!(" mtu {}", link.mtu) };
    let (first, group) = (untagged.unwrap_or_default() + &tagged, link.group());
    if let Some(phy) = home.phy {
        let moved = format!("iw phy phy{phy} set netns name {}", quote(namespace));
        let named = format!("ip link set dev {from} name {to}{mac}{mtu} group {group}");
        return format!("{first}{moved} && {}", inside(namespace, format!("{named} up")));
    }
    format!("{first}ip link set dev {from} netns {} name {to}{mac}{mtu} group {group} up", quote(namespace))
}

/// The commands that bring it home, and give it back what it had there.
pub(super) fn move_out(link: &Link, home: &Home, namespace: &str) -> String {
    let (from, to) = (quote(link.name.as_str()), quote(home.name.as_str()));
    let mac = home.mac.filter(|mac| Some(*mac) != link.mac).map(|mac| format!(" address {mac}")).unwrap_or_default();
    let mtu = if link.mtu.bytes() == home.mtu { String::new() } else { format!(" mtu {}", home.mtu) };
    let group = home.group;
    let mut commands = match home.phy {
        // $$ is the shell that reads this, on the host.
        Some(phy) => vec![
            inside(namespace, format!("ip link set dev {from} down")),
            inside(namespace, format!("iw phy phy{phy} set netns $$")),
            format!("ip link set dev {from} name {to}{mac}{mtu} group {group}"),
        ],
        None => vec![inside(namespace, format!("ip link set dev {from} netns $$ name {to}{mac}{mtu} group {group}"))],
    };
    commands.extend(home.settings.iter().map(|(key, value)| write(key, value)));
    commands.extend(home.up.then(|| format!("ip link set dev {to} up")));
    commands.extend(home.qdisc_kept().map(|qdisc| qdisc.command("replace")));
    commands.extend(home.addresses.iter().map(|address| home.give_address(address)));
    commands.extend(home.routes.iter().map(give_route));
    commands.push(format!("ip link property del dev {to} altname {}", home.tag));
    commands.extend(home.device_tag.as_ref().map(|tag| format!("ip link property add dev {to} altname {tag}")));
    commands.join(" && ")
}

/// The command that writes a setting.
pub fn write(key: &str, value: &str) -> String {
    format!("echo {} > {}", quote(value), quote(&format!("/proc/sys/{key}")))
}

/// The command that gives one of the interface's routes back.
pub fn give_route(route: &Route) -> String {
    ip_route("add", route)
}

impl Home {
    /// What was at its root and is given back.
    pub fn qdisc_kept(&self) -> Option<&Qdisc> {
        self.qdisc.as_ref().filter(|qdisc| !qdisc.may_have_classes())
    }

    /// The command that gives one of its addresses back.
    pub fn give_address(&self, address: &OwnAddress) -> String {
        format!("ip addr add {address} dev {}", quote(self.name.as_str()))
    }

    /// What goes along without being asked for: `the host had 192.168.0.2/24 and 1 route by eth0; …`
    fn goes_along(&self) -> Option<String> {
        let addresses: Vec<String> = self.addresses.iter().filter_map(OwnAddress::brief).collect();
        let routes = match self.routes.len() {
            0 => None,
            1 => Some("1 route".to_owned()),
            many => Some(format!("{many} routes")),
        };
        let them = if addresses.len() + self.routes.len() == 1 { "it" } else { "them" };
        let addresses = Some(addresses.join(", ")).filter(|text| !text.is_empty());
        let all: Vec<String> = addresses.into_iter().chain(routes).collect();
        (!all.is_empty())
            .then(|| format!("the host had {} by {}; detach gives {them} back", all.join(" and "), self.name))
    }

    /// That of a device that has yet to be made for this, as a dry run has it.
    pub fn yet_to_be_made(parent: &Parent, tag: &Tag) -> Home {
        Home {
            name: parent.name.clone(),
            index: parent.index,
            mac: parent.mac,
            mtu: parent.mtu,
            up: true,
            group: GROUP,
            kind: None,
            phy: None,
            tag: tag.clone(),
            device_tag: None,
            settings: Vec::new(),
            addresses: Vec::new(),
            routes: Vec::new(),
            qdisc: None,
            seen: 0,
        }
    }
}

/// The driver of a link that moves, with what it leaves.
pub(super) fn driver(moving: &Moving) -> Driver {
    Driver::Phys { home: Some(Box::new(moving.home.clone())) }
}
