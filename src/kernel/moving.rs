//! An interface of the host's that moves into a namespace as it is, and comes home.

use std::{
    net::IpAddr,
    os::fd::RawFd,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use nix::errno::Errno;
use rtnetlink::{
    LinkMessageBuilder, LinkUnspec,
    packet_core::{NLM_F_CREATE, NLM_F_EXCL},
    packet_route::{
        RouteNetlinkMessage as Message,
        address::AddressMessage,
        link::{LinkAttribute, LinkFlags, LinkMessage},
        route::{RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteProtocol, RouteType},
    },
};

use super::{
    Kernel, Netlink, Refusal, cannot_read,
    links::{TAGGING, link_of, property, question},
    refused, sysctl, wifi,
};
use crate::{
    apply::StepError,
    error::{Error, Kind, Result},
    interrupt,
    plan::{
        Home, Link, Parent, Qdisc, Route, TaggedLink,
        facts::InsideLink,
        phys::{self, OwnAddress},
        qdisc::Device,
    },
    types::{IfName, Mac, Tag},
};

type Outcome = std::result::Result<(), StepError>;

const CREATE_NEW: u16 = NLM_F_CREATE | NLM_F_EXCL;
/// After a move hardware looks for its partner anew, which takes Gigabit Ethernet up to three seconds.
const CARRIER: Duration = Duration::from_secs(5);
/// It takes the kernel one to two seconds to ask the LAN whether an IPv6 address is free.
const DAD: Duration = Duration::from_secs(5);

impl Kernel {
    /// What `parent` is and has. The inside is the host; `tag` is that of the attachment that it is read for.
    pub fn home(&mut self, parent: &Parent, tag: &Tag) -> Result<Home> {
        let (index, name) = (parent.index, &parent.name);
        let Some(link) = self.link_numbered(index)? else {
            return Err(Error::not_found(format!("{name} has gone")));
        };
        // It may have been asked for by an alternative name.
        let name: IfName = link.name.parse().map_err(Error::failed)?;
        let addresses = self.addresses_at_home(index, &name)?;
        let routes = self.routes_at_home(index, &addresses)?;
        let seen = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        Ok(Home {
            index,
            mac: parent.mac,
            mtu: link.mtu,
            up: link.up,
            group: link.group,
            kind: link.kind,
            phy: wifi::radio_of(&name),
            tag: tag.clone(),
            device_tag: link.tag,
            settings: sysctl::own(&name, link.mtu),
            addresses,
            routes,
            qdisc: self.root_qdisc(index, &name)?,
            seen,
            name,
        })
    }

    fn link_numbered(&mut self, index: u32) -> Result<Option<InsideLink>> {
        let mut request = question();
        request.header.index = index;
        match self.inside(async |inside| inside.get(Message::GetLink(request)).await)? {
            Ok(found) => Ok(found.as_ref().and_then(link_of)),
            Err(Refusal { errno: Errno::ENODEV, .. }) => Ok(None),
            Err(refusal) => Err(cannot_read("interface")(refusal)),
        }
    }

    fn addresses_at_home(&mut self, index: u32, name: &IfName) -> Result<Vec<OwnAddress>> {
        let dump = self.inside(async |inside| inside.dump(Message::GetAddress(AddressMessage::default())).await)?;
        let is_its = |message: Message| match message {
            Message::NewAddress(message) if message.header.index == index => OwnAddress::from_kernel(message, name),
            _ => None,
        };
        Ok(dump.map_err(cannot_read("addresses"))?.into_iter().filter_map(is_its).collect())
    }

    /// The routes by the interface, or from one of its addresses by another: those go with the address.
    fn routes_at_home(&mut self, index: u32, addresses: &[OwnAddress]) -> Result<Vec<Route>> {
        let dump = self.inside(async |inside| inside.dump(Message::GetRoute(RouteMessage::default())).await)?;
        let links = self.links()?;
        let name_of = |index: u32| links.iter().find(|link| link.index == index).map(|link| link.name.clone());
        let ips: Vec<_> = addresses.iter().filter_map(OwnAddress::ip).map(Into::into).collect();
        let goes_along = |attribute: &RouteAttribute| match attribute {
            RouteAttribute::Oif(by) => *by == index,
            RouteAttribute::MultiPath(hops) => hops.iter().any(|hop| hop.interface_index == index),
            RouteAttribute::PrefSource(ip) => ips.contains(ip),
            _ => false,
        };
        // Of the kernel's own making, or a router's, who says it again.
        let makes_itself = |route: &RouteMessage| {
            let by = route.header.protocol;
            matches!(by, RouteProtocol::Kernel | RouteProtocol::Ra | RouteProtocol::IcmpRedirect)
                || route.header.kind == RouteType::Multicast
                || route.header.flags.contains(RouteFlags::Cloned)
        };
        let mut routes = Vec::new();
        for message in dump.map_err(cannot_read("routes"))? {
            let Message::NewRoute(mut route) = message else { continue };
            if makes_itself(&route) || !route.attributes.iter().any(goes_along) {
                continue;
            }
            // The object that a number stands for goes with the interface; what it means is told beside it.
            route.attributes.retain(|attribute| !matches!(attribute, RouteAttribute::NhId(_)));
            routes.push(Route::from_kernel(route, name_of));
        }
        routes.sort_by_key(|route| !route.gateways().is_empty());
        Ok(routes)
    }

    /// Moves the interface in, under its new name and number, and up: one request, but for its tags. If that fails
    /// some of it may have been done, and `move_out` takes it back, however far it came.
    pub(super) fn move_in(&mut self, link: &Link, home: &Home) -> Outcome {
        if let Some(tag) = &home.device_tag {
            self.tag_at_home(home, tag, false)?;
        }
        self.tag_at_home(home, &home.tag, true)?;
        self.send_in(link, home)
    }

    fn send_in(&mut self, link: &Link, home: &Home) -> Outcome {
        let mut builder = LinkUnspec::new_with_index(home.index).name(link.name.as_str()).link_group(link.group()).up();
        if let Some(mac) = link.mac.filter(|mac| Some(*mac) != home.mac) {
            builder = builder.address(mac.bytes().to_vec());
        }
        if link.mtu.bytes() != home.mtu {
            builder = builder.mtu(link.mtu.bytes());
        }
        let outcome = match home.phy {
            Some(phy) => {
                let (host, inside) = (self.host_namespace().map_err(StepError::Refused)?, self.namespace);
                host.look_inside(|_| move_radio(phy, home, inside)).map_err(StepError::Refused)?;
                let index = self.index_tagged(&home.tag).map_err(StepError::Refused)?.unwrap_or(home.index);
                self.change_inside(Message::SetLink(builder.index(index).build()))?
            }
            None => {
                let number = LinkAttribute::NewIfIndex(link.index as i32);
                let moved = builder.setns_by_fd(self.namespace).append_extra_attribute(number).build();
                let change = async |host: &mut Netlink| host.change(Message::SetLink(moved), 0).await;
                self.on_host(change).map_err(StepError::Refused)?
            }
        };
        outcome.map_err(|refusal| StepError::Refused(why_not_moved(link, home, &refusal)))?;
        // Kernels before 5.13 choose a number by themselves, and all do for wifi.
        match self.link_numbered(link.index).map_err(StepError::Refused)? {
            Some(there) if there.name == link.name.as_str() => Ok(()),
            _ => Err(StepError::Refused(
                Error::failed(format!("the kernel gave {} another number than {}", home.name, link.index))
                    .hint("that of the host is taken inside, and wifi and kernels before 5.13 get any other"),
            )),
        }
    }

    fn index_tagged(&mut self, tag: &Tag) -> Result<Option<u32>> {
        Ok(self.links()?.into_iter().find(|link| link.tag.as_ref() == Some(tag)).map(|link| link.index))
    }

    /// Brings the interface home, from wherever it is inside, and gives it back what it had there. One that is at
    /// home already, because it never left or came back by itself, lacks some of that.
    pub(super) fn move_out(&mut self, link: &Link, home: &Home) -> Outcome {
        let there = self.links().map_err(StepError::Refused)?.into_iter().find(|there| there.is(link, &home.tag));
        let is_tagged = |link: &InsideLink| link.tag.as_ref() == Some(&home.tag);
        if there.is_none() && !self.host_links().map_err(StepError::Refused)?.iter().any(is_tagged) {
            return Err(StepError::Gone(format!("{} is not there any more", link.name)));
        }
        let is_at_home = self.is_inside(self.host_namespace().map_err(StepError::Refused)?);
        if let Some(now) = there {
            if self.another_at_home(home).map_err(StepError::Refused)?.is_some() {
                let message = format!("the host has another {} by now, so {} cannot come home", home.name, now.name);
                return Err(StepError::Refused(Error::conflict(message)));
            }
            if !is_at_home {
                self.send_home(&now, home)?;
            }
        }
        let host = self.host_namespace().map_err(StepError::Refused)?;
        host.look_inside(|host| host.furnish(home)).map_err(StepError::Refused)
    }

    /// The host's interface that has taken the name meanwhile under which this one is to come home. The kernel would
    /// move it first, and then find that it cannot rename it.
    pub fn another_at_home(&mut self, home: &Home) -> Result<Option<InsideLink>> {
        Ok(self.host_link(&home.name)?.filter(|other| other.tag.as_ref() != Some(&home.tag)))
    }

    fn send_home(&mut self, now: &InsideLink, home: &Home) -> Outcome {
        let name = &home.name;
        let host = self.host_namespace().map_err(StepError::Refused)?;
        if let Some(phy) = home.phy {
            // With its radio. It is down by that, and gets a number of the kernel's choice.
            return move_radio(phy, home, host.raw()).map_err(StepError::Refused);
        }
        let host = host.raw();
        let request = |keep_number: bool| {
            let named = LinkUnspec::new_with_index(now.index).name(name.as_str()).setns_by_fd(host);
            let mut builder = as_at_home(named, now, home);
            if keep_number {
                builder = builder.append_extra_attribute(LinkAttribute::NewIfIndex(home.index as i32));
            }
            Message::SetLink(builder.build())
        };
        let mut outcome = self.change_inside(request(true))?;
        if matches!(&outcome, Err(Refusal { errno: Errno::EBUSY, .. })) {
            // Its number is another's by now.
            outcome = self.change_inside(request(false))?;
        }
        let doing = format_args!("cannot bring {} home as {name}", now.name);
        outcome.map_err(|refusal| refused(doing, &refusal, &[Errno::ENODEV]))
    }

    /// Gives the interface, which is at home, its name and the like. The inside is the host. Nothing is asked of
    /// the kernel that is so already: before 6.2 it takes no name for what is up, not even its own.
    fn name_at_home(&mut self, now: &InsideLink, home: &Home) -> Outcome {
        let mut builder = as_at_home(LinkUnspec::new_with_index(now.index), now, home);
        let is_named = now.name == home.name.as_str();
        if is_named && (now.group, now.mtu) == (home.group, home.mtu) && !has_another_mac(now, home) {
            return Ok(());
        }
        let doing = format_args!("cannot make {} {} again", now.name, home.name);
        if !is_named {
            builder = builder.name(home.name.as_str());
            let down = LinkUnspec::new_with_index(now.index).down().build();
            self.change_inside(Message::SetLink(down))?.map_err(|refusal| refused(doing, &refusal, &[]))?;
        }
        self.change_inside(Message::SetLink(builder.build()))?.map_err(|refusal| refused(doing, &refusal, &[]))
    }

    fn change_inside(&mut self, message: Message) -> std::result::Result<std::result::Result<(), Refusal>, StepError> {
        self.inside(async |inside| inside.change(message, 0).await).map_err(StepError::Refused)
    }

    /// Gives the interface, which is at home, back what it had. The inside is the host. What is there already
    /// is fine, so that it can be done again. What the kernel does not take any more does not keep the rest from
    /// being tried, and is told once: the interface is at home, and nothing would be gained by another attempt.
    fn furnish(&mut self, home: &Home) -> Result<()> {
        let links = self.links()?;
        let tagged = links.iter().find(|link| link.tag.as_ref() == Some(&home.tag));
        let Some(link) = tagged.or_else(|| links.iter().find(|link| link.name == home.name.as_str())) else {
            return Err(Error::not_found(format!("{} has not come home", home.name)));
        };
        self.name_at_home(link, home)?;
        let (mut reasons, mut leftovers) = (Vec::new(), Vec::new());
        let mut note = |outcome: Outcome, command: String| {
            if let Err(StepError::Refused(error)) = outcome {
                reasons.push(error.message);
                leftovers.push(command);
            }
        };
        home.settings.iter().for_each(|(key, value)| note(sysctl::write(key, value), phys::write(key, value)));
        if home.up {
            let up = LinkUnspec::new_with_index(link.index).up().build();
            self.give(Message::SetLink(up), 0, || format!("cannot set {} up", home.name))?;
        }
        if let Some(kept) = home.qdisc_kept() {
            let on = Device { index: link.index, ..kept.on.clone() };
            let qdisc = Qdisc { on, ..kept.clone() };
            // One of its kind may have been made already, and not every kind can be changed.
            if self.root_qdisc(link.index, &home.name)?.as_ref() != Some(&qdisc) {
                note(self.replace_qdisc(&qdisc, &qdisc), qdisc.command("replace"));
            }
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(home.seen, |since| since.as_secs());
        let mut ran_out = Vec::new();
        for address in &home.addresses {
            let Some(message) = address.message(link.index, now.saturating_sub(home.seen)) else {
                ran_out.extend(address.ip());
                continue;
            };
            let doing = || format!("cannot give {} {address}", home.name);
            note(self.give(Message::NewAddress(message), CREATE_NEW, doing), home.give_address(address));
        }
        if home.routes.iter().any(|route| route.is_ipv6() && route.has_source()) {
            // The kernel takes no source that it is still asking the LAN about. What it hears is not ours to judge.
            let _ = self.await_ipv6(link.index, DAD);
        }
        for route in home.routes.iter().filter(|route| !is_from(route, &ran_out)) {
            let message = Message::NewRoute(route.by(home.index, link.index));
            match self.inside(async |inside| inside.change(message, CREATE_NEW).await)? {
                Ok(()) | Err(Refusal { errno: Errno::EEXIST, .. }) => {}
                // Its router was reached by an address that has run out: it went with that.
                Err(Refusal { errno: Errno::ENETUNREACH, .. }) if !ran_out.is_empty() => {}
                Err(refusal) => note(
                    Err(refused(format_args!("cannot add the route {route}"), &refusal, &[])),
                    phys::give_route(route),
                ),
            }
        }
        self.untag(home, link.index)?;
        if reasons.is_empty() {
            return Ok(());
        }
        Err(Error { leftovers, ..Error::new(Kind::LeftBehind, reasons.join("; ")) })
    }

    fn give(&mut self, message: Message, flags: u16, doing: impl Fn() -> String) -> Outcome {
        match self.inside(async |inside| inside.change(message, flags).await).map_err(StepError::Refused)? {
            Ok(()) | Err(Refusal { errno: Errno::EEXIST, .. }) => Ok(()),
            Err(refusal) => Err(refused(doing(), &refusal, &[])),
        }
    }

    /// All is back: nobody has to finish anything any more.
    fn untag(&mut self, home: &Home, index: u32) -> Result<()> {
        let tagged = |tag: &Tag| TaggedLink { index, name: home.name.clone(), tag: tag.clone() };
        let outcome = self.delete_tag(&tagged(&home.tag));
        let outcome = match outcome {
            Ok(()) | Err(StepError::Gone(_)) => {
                home.device_tag.as_ref().map_or(Ok(()), |tag| self.add_tag(&tagged(tag)))
            }
            refused => refused,
        };
        match outcome {
            Ok(()) | Err(StepError::Gone(_)) => Ok(()),
            Err(StepError::Refused(error)) => Err(error),
        }
    }

    fn tag_at_home(&mut self, home: &Home, tag: &Tag, add: bool) -> Outcome {
        let tagged = TaggedLink { index: home.index, name: home.name.clone(), tag: tag.clone() };
        let (message, flags) = match add {
            true => (Message::NewLinkProp(property(&tagged)), TAGGING),
            false => (Message::DelLinkProp(property(&tagged)), 0),
        };
        let outcome = self.on_host(async |host| host.change(message, flags).await).map_err(StepError::Refused)?;
        outcome.map_err(|refusal| match refusal.errno {
            Errno::ENODEV => StepError::Refused(Error::not_found(format!("{} has gone", home.name))),
            _ => refused(format_args!("cannot tag {}", home.name), &refusal, &[]),
        })
    }

    /// Sends an interface to the host that was moved here, when nobody knows any more what it was there.
    pub fn let_go(&mut self, link: &InsideLink) -> Result<()> {
        let host = self.host_namespace()?.raw();
        let request = || LinkUnspec::new_with_index(link.index).link_group(0).setns_by_fd(host);
        let plain = |outcome: std::result::Result<_, StepError>| outcome.map_err(Error::from);
        let mut outcome = plain(self.change_inside(Message::SetLink(request().build())))?;
        if matches!(&outcome, Err(Refusal { errno: Errno::EEXIST, .. })) {
            // As the kernel itself calls what comes back under a name that is taken.
            outcome = plain(self.change_inside(Message::SetLink(request().name("dev%d").build())))?;
        }
        outcome.map_err(|refusal| Error::failed(format!("cannot send {} to the host: {refusal}", link.name)))?;
        let Some(tag) = &link.tag else { return Ok(()) };
        self.host_namespace()?.look_inside(|host| {
            let Some(there) = host.links()?.into_iter().find(|there| there.tag.as_ref() == Some(tag)) else {
                return Ok(());
            };
            let name = there.name.parse().map_err(Error::failed)?;
            match host.delete_tag(&TaggedLink { index: there.index, name, tag: tag.clone() }) {
                Ok(()) | Err(StepError::Gone(_)) => Ok(()),
                Err(refused) => Err(refused.into()),
            }
        })
    }

    /// Waits until the interface with that index has a carrier, but not for long. Says whether it has.
    pub fn await_carrier(&mut self, index: u32) -> Result<bool> {
        let end = Instant::now() + CARRIER;
        loop {
            let mut request = question();
            request.header.index = index;
            let found = self.inside(async |inside| inside.get(Message::GetLink(request)).await)?;
            let is_there = |message: &LinkMessage| message.header.flags.contains(LinkFlags::LowerUp);
            match found.map_err(cannot_read("interface"))? {
                Some(Message::NewLink(message)) if is_there(&message) => return Ok(true),
                _ if Instant::now() > end => return Ok(false),
                _ => interrupt::sleep(Duration::from_millis(5))?,
            }
        }
    }
}

/// The radio is in the calling thread's namespace.
fn move_radio(phy: u32, home: &Home, to: RawFd) -> Result<()> {
    wifi::move_radio(phy, to).map_err(|error| {
        Error::io(format_args!("cannot move {} by its radio phy{phy}", home.name), &error)
            .hint("not every driver's radios can leave their namespace: iw phy shows set_wiphy_netns if it can")
    })
}

/// Its group, MAC address and MTU as on the host; the last two only where they differ, as not all take them.
fn as_at_home(
    mut builder: LinkMessageBuilder<LinkUnspec>,
    now: &InsideLink,
    home: &Home,
) -> LinkMessageBuilder<LinkUnspec> {
    builder = builder.link_group(home.group);
    if let Some(mac) = home.mac.filter(|_| has_another_mac(now, home)) {
        builder = builder.address(mac.bytes().to_vec());
    }
    if home.mtu != now.mtu {
        builder = builder.mtu(home.mtu);
    }
    builder
}

fn has_another_mac(now: &InsideLink, home: &Home) -> bool {
    home.mac.is_some_and(|mac| now.mac != Some(mac.bytes()))
}

/// Whether one sends by it from one of these addresses.
fn is_from(route: &Route, ips: &[IpAddr]) -> bool {
    let is_one = |ip: &RouteAddress| ips.iter().any(|one| *ip == (*one).into());
    route.message().attributes.iter().any(|a| matches!(a, RouteAttribute::PrefSource(ip) if is_one(ip)))
}

/// What the kernel's bare numbers mean for somebody who wanted an interface inside.
fn why_not_moved(link: &Link, home: &Home, refusal: &Refusal) -> Error {
    let name = &home.name;
    let mac = link.mac.filter(|mac: &Mac| Some(*mac) != home.mac);
    match refusal.errno {
        Errno::ENODEV => Error::not_found(format!("{name} has gone")),
        Errno::EINVAL if link.mtu.bytes() != home.mtu => {
            Error::failed(format!("{name} does not take an MTU of {}: {refusal}", link.mtu)).hint("leave --mtu out")
        }
        Errno::EINVAL => Error::failed(format!(
            "{name} cannot leave the host: the kernel keeps interfaces of its kind where they are"
        ))
        .hint("those are bonds, teams, bridges, VRFs and some tunnels; macvlan needs no such move"),
        Errno::EOPNOTSUPP | Errno::EADDRNOTAVAIL if let Some(mac) = mac => {
            Error::failed(format!("{name} does not take the MAC address {mac}: {refusal}")).hint("leave --mac out")
        }
        Errno::EEXIST => Error::conflict(format!("an alternative name of {name} is taken inside: {refusal}"))
            .hint(format!("ip link show {name} lists them")),
        _ => match refused(format_args!("cannot move {name}"), refusal, &[]) {
            StepError::Gone(message) => Error::failed(message),
            StepError::Refused(error) => error,
        },
    }
}
