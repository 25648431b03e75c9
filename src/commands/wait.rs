//! `plumb wait`: until an interface can be used. The kernel says when to look, so nothing runs meanwhile.

use std::{
    fmt, fs,
    net::IpAddr,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::fs::MetadataExt,
    },
    path::PathBuf,
    time::Instant,
};

use ipnetwork::IpNetwork;
use nix::poll::{PollFd, PollFlags};

use super::{Context, engines, records};
use crate::{
    agent::watch::{Folders, Process},
    cli::{Global, Wait},
    config::{self, Config},
    container::{self, Target},
    error::{Error, Result},
    interrupt,
    kernel::{Changes, Netns, NetnsId},
    namespace,
    output::Output,
    plan::facts::{InsideAddress, InsideLink},
    types::{IfName, Place, Span, TargetName},
};

pub fn run(options: Wait, global: Global, output: Output) -> Result<()> {
    let end = options.timeout.map(|timeout| Instant::now() + timeout.duration());
    let target = {
        let _waiting = options.target.as_ref().map(|name| output.waiting(format!("waiting for {name}")));
        options.target.map(|name| find(&name, options.timeout, &global)).transpose()?
    };
    let (mut changes, departure) = match &target {
        None => (Changes::here()?, None),
        Some((target, there)) => (Changes::inside(there)?, Some(Departure::of(&target.place, there.id())?)),
    };
    let target = target.map(|(target, _)| target.name);
    let name = options.interface.unwrap_or(IfName::eth(1));
    let is_there = changes.look()?.0.iter().any(|link| link.name == name.as_str());
    let renamed = target.as_ref().filter(|_| !is_there).and_then(|target| renamed(target, &name, global, output));
    let wanted = Wanted { interface: renamed.unwrap_or(name), target };
    let standing = output.standing();
    // Since when nothing but an address has been lacking.
    let mut carried: Option<Instant> = None;
    loop {
        let (links, addresses) = changes.look()?;
        let lacking = match usable(&wanted.interface, &links, &addresses) {
            Ok(addresses) => {
                drop(standing);
                return wanted.say(&addresses, output);
            }
            Err(lacking) => lacking,
        };
        if departure.as_ref().is_some_and(Departure::is_over) {
            return Err(wanted.gone());
        }
        carried = carried.or_else(|| Some(Instant::now())).filter(|_| lacking >= Lacking::Address);
        let content = options.address_within.and_then(|patience| Some(carried? + patience.duration()));
        if content.is_some_and(|content| Instant::now() >= content) {
            drop(standing);
            return wanted.say(&[], output);
        }
        if end.is_some_and(|end| Instant::now() >= end) {
            return Err(wanted.in_vain(&lacking, &links, options.timeout));
        }
        let so_far = format!("waiting: {}", wanted.lacks(&lacking));
        output.explain(&so_far);
        standing.says(so_far);
        let files = departure.iter().map(Departure::as_fd).chain([changes.as_fd()]);
        let mut files: Vec<PollFd<'_>> = files.map(|file| PollFd::new(file, PollFlags::POLLIN)).collect();
        interrupt::poll(&mut files, end.into_iter().chain(content).min())?;
    }
}

/// The target, when it runs: who says how long to wait means its start as well.
fn find(name: &TargetName, timeout: Option<Span>, global: &Global) -> Result<(Target, Netns)> {
    let config = Config::read(config::path(global.config.clone()).as_deref())?;
    let target = container::find(name, &engines(global, &config), timeout.filter(|timeout| !timeout.is_zero()))?;
    let there = namespace::open(&target, &Netns::of_this_thread()?)?;
    Ok((target, there))
}

/// What plumb calls it by now. Who waits needs no store; where there is one it may tell.
fn renamed(target: &TargetName, name: &IfName, global: Global, output: Output) -> Option<IfName> {
    records::name_now(target, name, &Context::new(global, output).ok()?).ok()
}

/// What is waited for, and where; without a target in the namespace that plumb was started in.
struct Wanted {
    interface: IfName,
    target: Option<TargetName>,
}

/// What is still missing, in the order in which it comes to be there.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Lacking {
    Interface,
    Up,
    Carrier,
    Address,
    /// There is none but this one, which is good on its own link only.
    Reach(IpAddr),
    /// Somebody else has this one.
    Claim(IpAddr),
    /// The kernel still asks the LAN whether this one is free.
    Answer(IpAddr),
}

/// The addresses by which the interface can be used, or what it lacks for that.
fn usable(
    name: &IfName,
    links: &[InsideLink],
    addresses: &[InsideAddress],
) -> std::result::Result<Vec<IpNetwork>, Lacking> {
    let link = links.iter().find(|link| link.name == name.as_str()).ok_or(Lacking::Interface)?;
    if !link.up {
        return Err(Lacking::Up);
    }
    if !link.carrier {
        return Err(Lacking::Carrier);
    }
    let (mut usable, mut lacking) = (Vec::new(), Lacking::Address);
    for address in addresses.iter().filter(|address| address.index == link.index) {
        match flaw(address) {
            // Of the address that is closest to being usable.
            Some(flaw) => lacking = lacking.max(flaw),
            None => usable.extend(IpNetwork::new(address.ip, address.prefix)),
        }
    }
    if usable.is_empty() { Err(lacking) } else { Ok(usable) }
}

/// Why an address does not count.
fn flaw(address: &InsideAddress) -> Option<Lacking> {
    let is_local = match address.ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    match address {
        _ if is_local => Some(Lacking::Reach(address.ip)),
        InsideAddress { duplicate: true, .. } => Some(Lacking::Claim(address.ip)),
        InsideAddress { tentative: true, .. } => Some(Lacking::Answer(address.ip)),
        _ => None,
    }
}

impl Wanted {
    fn say(&self, addresses: &[IpNetwork], output: Output) -> Result<()> {
        let whose = self.target.as_ref().map_or(String::new(), |target| format!("{target}: "));
        let texts: Vec<String> = addresses.iter().map(ToString::to_string).collect();
        let with =
            if texts.is_empty() { "without an address".to_owned() } else { format!("with {}", texts.join(", ")) };
        output.line(format_args!("{whose}{} is ready {with}", self.interface));
        output.document(&serde_json::json!({ "target": self.target, "interface": self.interface, "addresses": texts }));
        Ok(())
    }

    fn lacks(&self, lacking: &Lacking) -> String {
        match lacking {
            Lacking::Interface => format!("{self} is not there"),
            Lacking::Up => format!("{self} is down"),
            Lacking::Carrier => format!("{self} has no carrier"),
            Lacking::Address => format!("{self} has no address"),
            Lacking::Reach(ip) => format!("{self} has no address but {ip}, which is link-local"),
            Lacking::Answer(ip) => format!("{self}: the kernel still asks the LAN whether {ip} is free"),
            Lacking::Claim(ip) => format!("{self}: another host has {ip}"),
        }
    }

    fn in_vain(&self, lacking: &Lacking, links: &[InsideLink], timeout: Option<Span>) -> Error {
        let waited = timeout.filter(|timeout| !timeout.is_zero());
        let waited = waited.map_or(String::new(), |timeout| format!(", after waiting {timeout}"));
        let name = &self.interface;
        let hint = match lacking {
            Lacking::Interface => {
                let names: Vec<&str> = links.iter().map(|link| link.name.as_str()).collect();
                format!("there is {}; -i names what to wait for", names.join(", "))
            }
            Lacking::Up => match &self.target {
                None => format!("ip link set {name} up"),
                Some(target) => {
                    let is_plumbs = links.iter().any(|link| link.name == name.as_str() && link.tag.is_some());
                    format!("plumb link {target} set {name} up{}", if is_plumbs { "" } else { " --unrecorded" })
                }
            },
            Lacking::Carrier => "is the cable plugged in, and what it hangs on up?".into(),
            Lacking::Address | Lacking::Reach(_) => "on the host plumb flat, dhcp or attach gives it one".into(),
            Lacking::Answer(_) => "that takes it a second or two: a longer --timeout".into(),
            Lacking::Claim(_) => "give it another address".into(),
        };
        Error::timed_out(format!("{}{waited}", self.lacks(lacking))).hint(hint)
    }

    fn gone(&self) -> Error {
        Error::not_found(format!("{self} never was ready: the target has ended"))
    }
}

/// `eth1`, or `eth1 of web`.
impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.target {
            None => write!(f, "{}", self.interface),
            Some(target) => write!(f, "{} of {target}", self.interface),
        }
    }
}

/// Hears when a target ends, whose namespace our own open file would keep for ever.
enum Departure {
    Process(Process, Place),
    /// In the folder of its namespace's file, which may be another's by now.
    File(Folders, PathBuf, NetnsId),
}

impl Departure {
    fn of(place: &Place, namespace: NetnsId) -> Result<Departure> {
        match place {
            Place::Process { pid, .. } => Process::new(*pid)
                .map(|process| Departure::Process(process, place.clone()))
                .ok_or_else(|| Error::failed("the target has ended, or cannot be watched: that needs Linux 5.3")),
            Place::Path(path) => {
                let folders = Folders::new()?;
                path.parent().into_iter().for_each(|folder| folders.add(folder));
                Ok(Departure::File(folders, path.clone(), namespace))
            }
        }
    }

    fn is_over(&self) -> bool {
        match self {
            Departure::Process(_, place) => !container::is_there(place),
            Departure::File(folders, path, namespace) => {
                folders.drain();
                !fs::metadata(path).is_ok_and(|file| file.ino() == namespace.0)
            }
        }
    }
}

impl AsFd for Departure {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Departure::Process(process, _) => process.as_fd(),
            Departure::File(folders, ..) => folders.as_fd(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link() -> InsideLink {
        InsideLink { index: 7, name: "eth1".into(), up: true, carrier: true, ..InsideLink::default() }
    }

    fn address(text: &str) -> InsideAddress {
        let network: IpNetwork = text.parse().unwrap();
        InsideAddress { index: 7, ip: network.ip(), prefix: network.prefix(), tentative: false, duplicate: false }
    }

    fn lacks(link: InsideLink, addresses: &[InsideAddress]) -> Lacking {
        usable(&IfName::eth(1), &[link], addresses).unwrap_err()
    }

    #[test]
    fn what_is_missing_is_told_in_the_order_in_which_it_comes() {
        let good = [address("192.168.0.100/24")];
        let other = InsideLink { name: "eth2".into(), ..link() };
        assert_eq!(lacks(other, &good), Lacking::Interface);
        assert_eq!(lacks(InsideLink { up: false, carrier: false, ..link() }, &good), Lacking::Up);
        assert_eq!(lacks(InsideLink { carrier: false, ..link() }, &good), Lacking::Carrier);
        assert_eq!(lacks(link(), &[]), Lacking::Address);
        assert_eq!(lacks(InsideLink { index: 8, ..link() }, &good), Lacking::Address, "it is another's");
        assert_eq!(usable(&IfName::eth(1), &[link()], &good), Ok(vec!["192.168.0.100/24".parse().unwrap()]));
    }

    #[test]
    fn an_address_counts_once_it_can_be_used_beyond_its_link() {
        let local = address("fe80::1/64");
        assert_eq!(lacks(link(), std::slice::from_ref(&local)), Lacking::Reach(local.ip));
        assert!(matches!(lacks(link(), &[address("169.254.3.4/16")]), Lacking::Reach(_)));
        let tentative = InsideAddress { tentative: true, ..address("fd00::1/64") };
        for addresses in [[local.clone(), tentative.clone()], [tentative.clone(), local.clone()]] {
            assert_eq!(lacks(link(), &addresses), Lacking::Answer(tentative.ip));
        }
        let taken = InsideAddress { duplicate: true, ..tentative };
        assert_eq!(lacks(link(), std::slice::from_ref(&taken)), Lacking::Claim(taken.ip));
        let good = address("fd00::2/64");
        assert_eq!(usable(&IfName::eth(1), &[link()], &[local, taken, good]).unwrap().len(), 1);
    }
}
