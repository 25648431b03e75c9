//! From what is asked for, and what the host has under the name, to the command line of plumb's own that does
//! the same.

use std::fmt;

use super::reading::{Address, Attach, Client, Inside, Request, Tool};
use crate::{
    error::{Error, Result},
    plan::render::quote,
    types::{IfName, TargetName, VlanId},
};

/// The host's interface that was typed, by its name or its MAC address, and what it is.
#[derive(Debug, Clone)]
pub struct Found {
    pub name: IfName,
    /// None: there is no such interface.
    pub kind: Option<Kind>,
    /// The guest's first process, where the name of a veth's end is made of it.
    pub pid: Option<u32>,
}

/// What pipework tells apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Bridge,
    OpenVswitch,
    Infiniband,
    Wifi,
    Other,
}

/// The command line that does the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    /// Without plumb's name.
    pub words: Vec<String>,
    /// What of the old line has no effect.
    pub notes: Vec<String>,
}

/// As it would be typed.
impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("plumb")?;
        self.words.iter().try_for_each(|word| write!(f, " {}", quote(word)))
    }
}

impl Attach {
    /// What pipework takes the host's interface for. By its name alone, if there is none.
    fn kind(&self, host: &Found) -> Result<Way> {
        let name = host.name.as_str();
        match host.kind {
            _ if self.direct && host.kind.is_some() => Ok(Way::Moved),
            Some(Kind::Wifi) => Ok(Way::Moved),
            Some(Kind::Bridge) => Ok(Way::Bridge),
            Some(Kind::OpenVswitch) => Ok(Way::OpenVswitch),
            Some(Kind::Infiniband) => Ok(Way::Infiniband),
            Some(Kind::Other) => Ok(Way::Child),
            None if name.starts_with("br") => Ok(Way::Bridge),
            None if name.starts_with("ovs") => Ok(Way::OpenVswitch),
            None if name.starts_with("dummy") => Ok(Way::Dummy),
            None => Err(Error::failed(format!("I do not know how to setup interface {name}."))),
        }
    }

    /// Whether an interface of this name is made where there is none.
    pub fn is_made(&self, host: &Found) -> bool {
        self.kind(host).is_ok()
    }

    /// Whether the name of a veth's end is to be made of the guest's process.
    pub fn needs_pid(&self, host: &Found) -> bool {
        self.local.is_none() && matches!(self.kind(host), Ok(Way::Bridge | Way::OpenVswitch))
    }
}

/// How the guest gets its interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Bridge,
    OpenVswitch,
    Infiniband,
    Moved,
    Dummy,
    /// A macvlan.
    Child,
}

/// The command line of plumb's own; `host` is needed for an attachment only.
pub fn say(request: &Request, host: Option<&Found>) -> Result<Said> {
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    match (request, host) {
        (Request::Wait { interface }, _) => {
            let interface = interface.as_ref().map_or("eth1", IfName::as_str);
            Ok(Said { words: words(&["wait", "-i", interface, "--address-within", "3s"]), notes: Vec::new() })
        }
        (Request::Inside(Inside { tool, guest, ipv6, words: rest }), _) => {
            let verb = match tool {
                Tool::Route => "route",
                Tool::Rule => "rule",
                Tool::Tc => "tc",
            };
            let version: &[&str] = if *ipv6 { &["-6"] } else { &[] };
            Ok(Said {
                words: [words(&[verb]), words(version), words(&[guest]), rest.clone()].concat(),
                notes: Vec::new(),
            })
        }
        (Request::Attach(attach), Some(host)) => attached(attach, host),
        (Request::Attach(_), None) => Err(Error::failed("nobody looked at the host's interface: this is a bug")),
    }
}

fn attached(attach: &Attach, host: &Found) -> Result<Said> {
    let way = attach.kind(host)?;
    let mut line = Line(Vec::new());
    line.word(if matches!(attach.address, Address::Leased { .. }) { "dhcp" } else { "flat" });
    line.word(&attach.guest);
    if way != Way::Dummy {
        line.option("-i", host.name.as_str());
    }
    link(attach, host, way, &mut line)?;
    let mut notes = Vec::new();
    match &attach.address {
        Address::None => line.option("--ip", "none"),
        Address::Static { address, gateway } => {
            line.option("--ip", &address.to_string());
            if let Some(gateway) = gateway {
                line.option("--gateway", &gateway.to_string());
                if !address.reaches(gateway.ip()) && !gateway.is_link_local() {
                    line.word("--off-link-gateway");
                }
            }
        }
        Address::Leased { client, options } => leased(attach, *client, options, &mut line, &mut notes),
    }
    if let Some(mac) = &attach.mac {
        line.option("--mac", &mac.to_string());
    }
    if !matches!(attach.address, Address::Leased { .. }) {
        // pipework asks nobody whether the address is free, and looks at nothing afterwards.
        ["--probe", "0", "--no-check"].iter().for_each(|word| line.word(word));
    }
    if !attach.ignored.is_empty() {
        let have = if attach.ignored.len() == 1 { "has" } else { "have" };
        notes.push(format!("{} {have} no effect", attach.ignored.join(" ")));
    }
    Ok(Said { words: line.0, notes })
}

fn link(attach: &Attach, host: &Found, way: Way, line: &mut Line) -> Result<()> {
    let inside = attach.inside.as_ref().map_or(if way == Way::Infiniband { "ib0" } else { "eth1" }, IfName::as_str);
    match way {
        Way::Bridge | Way::OpenVswitch => {
            line.option("--driver", "veth");
            // Where pipework's name is too long for the kernel, plumb has one of its own.
            let of_pid = host.pid.and_then(|pid| format!("v{inside}pl{pid}").parse::<IfName>().ok());
            if let Some(local) = attach.local.as_ref().or(of_pid.as_ref()) {
                line.option("--host-name", local.as_str());
            }
        }
        Way::Infiniband if attach.mac.is_some() => {
            return Err(Error::failed(format!("{} is an InfiniBand, whose addresses cannot be chosen", host.name))
                .hint("leave the MAC address out"));
        }
        Way::Moved => line.option("--driver", "phys"),
        Way::Dummy => line.option("--driver", "dummy"),
        Way::Infiniband | Way::Child => {}
    }
    match (&attach.vlan, way) {
        (None, _) => {}
        // pipework writes the 0x itself.
        (Some(key), Way::Infiniband) => line.option("--pkey", &format!("0x{}", key.trim_start_matches("0x"))),
        (Some(id), Way::Dummy) => {
            return Err(Error::failed(format!("{} leads nowhere, so it has no VLAN {id}", host.name))
                .hint(format!("leave @{id} out")));
        }
        (Some(id), _) => line.option("--vlan", &id.parse::<VlanId>().map_err(Error::failed)?.to_string()),
    }
    line.option("--name", inside);
    Ok(())
}

/// plumb's own client, which renews; or, where options are given for it, the one that they are for.
fn leased(attach: &Attach, client: Client, options: &[String], line: &mut Line, notes: &mut Vec<String>) {
    // A process has no name to give.
    if let Ok(TargetName::Docker(name) | TargetName::Podman(name)) = attach.guest.parse() {
        line.option("--hostname", &name);
    }
    let (program, of_plumb): (&str, &[&str]) = match client {
        Client::Dhcp => ("busybox", &["-f", "-b", "-n", "-q", "-R"]),
        Client::Udhcpc => ("udhcpc", &["-f", "-b", "-n", "-q", "-R"]),
        Client::Dhclient => ("dhclient", &["-d", "-1", "-nw", "-w"]),
        Client::Dhcpcd => {
            if !options.is_empty() {
                notes.push(format!("dhcpcd's options {} never had an effect, and have none here", options.join(" ")));
            }
            return;
        }
    };
    // Whether it waits, stays and gives back is plumb's to say.
    let arguments: Vec<&String> = options.iter().filter(|option| !of_plumb.contains(&option.as_str())).collect();
    if arguments.is_empty() {
        return;
    }
    line.option("--client", program);
    arguments.into_iter().for_each(|argument| line.word(&format!("--client-arg={argument}")));
}

/// A command line as it grows.
struct Line(Vec<String>);

impl Line {
    fn word(&mut self, word: &str) {
        self.0.push(word.to_owned());
    }

    fn option(&mut self, name: &str, value: &str) {
        self.word(name);
        self.word(value);
    }
}

#[cfg(test)]
mod tests {
    use super::super::read;
    use super::*;

    /// What the line becomes where the host has this; the guest's process is 42.
    fn line(old: &str, kind: Option<Kind>) -> Result<String> {
        let words: Vec<String> = old.split(' ').map(str::to_owned).collect();
        let request = read(&words)?.expect("a command");
        let name = words.iter().find(|word| *word != "--direct-phys").and_then(|word| word.parse().ok());
        let host = name.map(|name| Found { name, kind, pid: Some(42) });
        say(&request, host.as_ref()).map(|said| said.to_string().replacen("plumb ", "", 1))
    }

    fn becomes(old: &str, kind: Option<Kind>, new: &str) {
        assert_eq!(line(old, kind).unwrap(), new, "{old}");
    }

    const END: &str = "--probe 0 --no-check";

    #[test]
    fn the_hosts_interface_decides_how_the_guest_gets_one() {
        for (host, kind, driver) in [
            ("eth0", Some(Kind::Other), "-i eth0 --name eth1"),
            ("br0", Some(Kind::Other), "-i br0 --name eth1"),
            ("lan", Some(Kind::Bridge), "-i lan --driver veth --host-name veth1pl42 --name eth1"),
            ("br0", None, "-i br0 --driver veth --host-name veth1pl42 --name eth1"),
            ("ovs0", None, "-i ovs0 --driver veth --host-name veth1pl42 --name eth1"),
            ("lan", Some(Kind::OpenVswitch), "-i lan --driver veth --host-name veth1pl42 --name eth1"),
            ("ib0", Some(Kind::Infiniband), "-i ib0 --name ib0"),
            ("wlan0", Some(Kind::Wifi), "-i wlan0 --driver phys --name eth1"),
            ("--direct-phys eth0", Some(Kind::Other), "-i eth0 --driver phys --name eth1"),
            ("dummy0", None, "--driver dummy --name eth1"),
            ("dummy0", Some(Kind::Other), "-i dummy0 --name eth1"),
        ] {
            becomes(&format!("{host} web 10.0.0.5/24"), kind, &format!("flat web {driver} --ip 10.0.0.5/24 {END}"));
        }
        let unknown = line("eth9 web 10.0.0.5/24", None).unwrap_err().message;
        assert_eq!(unknown, "I do not know how to setup interface eth9.");
    }

    #[test]
    fn names_addresses_and_vlans_come_along() {
        let other = Some(Kind::Other);
        for (old, kind, new) in [
            ("eth0 -i net0 -l out0 web 0/0", other, format!("flat web -i eth0 --name net0 --ip none {END}")),
            (
                "br0 -i net0 -l out0 web 0/0",
                None,
                format!("flat web -i br0 --driver veth --host-name out0 --name net0 --ip none {END}"),
            ),
            // With the process's number that would be too long.
            (
                "br0 -i internal000 web 0/0",
                None,
                format!("flat web -i br0 --driver veth --name internal000 --ip none {END}"),
            ),
            (
                "eth0 web 10.0.0.5/24@10.0.0.1",
                other,
                format!("flat web -i eth0 --name eth1 --ip 10.0.0.5/24 --gateway 10.0.0.1 {END}"),
            ),
            (
                "eth0 web 10.0.0.5/24@10.9.0.1",
                other,
                format!("flat web -i eth0 --name eth1 --ip 10.0.0.5/24 --gateway 10.9.0.1 --off-link-gateway {END}"),
            ),
            (
                "eth0 -a 6 web fd00::5/64@fe80::1",
                other,
                format!("flat web -i eth0 --name eth1 --ip fd00::5/64 --gateway fe80::1 {END}"),
            ),
            (
                "eth0 web 10.0.0.5/255.255.0.0 02:42:ac:11:00:02@10",
                other,
                format!("flat web -i eth0 --vlan 10 --name eth1 --ip 10.0.0.5/16 --mac 02:42:ac:11:00:02 {END}"),
            ),
            (
                "ib0 web 10.0.0.5/24 @8001",
                Some(Kind::Infiniband),
                format!("flat web -i ib0 --pkey 0x8001 --name ib0 --ip 10.0.0.5/24 {END}"),
            ),
        ] {
            becomes(old, kind, &new);
        }
        let refused = |old, kind| line(old, kind).unwrap_err().message;
        assert!(refused("ib0 web 10.0.0.5/24 02:42:ac:11:00:02", Some(Kind::Infiniband)).contains("cannot be chosen"));
        assert!(refused("dummy0 web 10.0.0.5/24 @10", None).contains("no VLAN 10"));
    }

    #[test]
    fn leases_are_asked_for_by_plumb_unless_another_client_has_options() {
        for (old, new) in [
            ("dhcp", ""),
            ("udhcpc-f", ""),
            ("dhclient-f:-d", ""),
            ("dhcpcd:-x", ""),
            ("dhcp:-S", " --client busybox --client-arg=-S"),
            ("udhcpc:-q", ""),
            ("dhclient:-4", " --client dhclient --client-arg=-4"),
        ] {
            becomes(
                &format!("eth0 web {old}"),
                Some(Kind::Other),
                &format!("dhcp web -i eth0 --name eth1 --hostname web{new}"),
            );
        }
    }

    #[test]
    fn the_rest_goes_on_as_it_stands() {
        becomes("route web add 10.0.0.0/8 via 10.1.0.1", None, "route web add 10.0.0.0/8 via 10.1.0.1");
        becomes("rule web show", None, "rule web show");
        becomes("--wait", None, "wait -i eth1 --address-within 3s");
        let words = ["eth0", "web", "0/0", "02:42:ac:11:00:02", "and", "more"].map(str::to_owned);
        let host = Found { name: "eth0".parse().unwrap(), kind: Some(Kind::Other), pid: None };
        let said = say(&read(&words).unwrap().unwrap(), Some(&host)).unwrap();
        assert_eq!(said.notes, ["and more have no effect"]);
    }
}
