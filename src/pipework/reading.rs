//! From the words to what they ask for. The order is pipework's, which knows no other.

use std::collections::VecDeque;

use md5::{Digest, Md5};

use crate::{
    error::{Error, Result},
    types::{Gateway, HostAddress, IfName, Mac, RouteWords, RuleWords},
};

/// What a pipework command line asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// `--wait [-i eth1]`, from inside a container.
    Wait {
        interface: Option<IfName>,
    },
    /// `route web …`, `rule web …`, `tc web …`.
    Inside(Inside),
    Attach(Box<Attach>),
}

/// The arguments of a program of iproute2's in a guest's namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inside {
    pub tool: Tool,
    pub guest: String,
    /// `-6`, as `-a 6` has it.
    pub ipv6: bool,
    pub words: Vec<String>,
}

impl Inside {
    /// Whether it is a change that plumb has words for. What only looks is left to the program, whose output
    /// scripts read.
    pub fn is_a_change_of_plumbs(&self) -> bool {
        let Some((verb, words)) = self.words.split_first() else { return false };
        let ipv6 = self.ipv6.then_some(true);
        match (self.tool, verb.as_str()) {
            (Tool::Route, "add" | "del" | "delete" | "replace") => RouteWords::parse(words, ipv6).is_ok(),
            (Tool::Rule, "add" | "del" | "delete") => RuleWords::parse(words, ipv6).is_ok(),
            (Tool::Route | Tool::Rule | Tool::Tc, _) => false,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tool {
    Route,
    Rule,
    Tc,
}

/// An interface for a guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attach {
    pub host: HostInterface,
    /// The host's interface itself goes into the guest.
    pub direct: bool,
    pub inside: Option<IfName>,
    /// The name of a veth's end on the host.
    pub local: Option<IfName>,
    pub guest: String,
    pub address: Address,
    pub mac: Option<Mac>,
    /// A VLAN's id, or in an InfiniBand a partition's key.
    pub vlan: Option<String>,
    /// Words at the end that pipework does not look at.
    pub ignored: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostInterface {
    Named(String),
    WithMac(Mac),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// `0/0`.
    None,
    Static {
        address: HostAddress,
        gateway: Option<Gateway>,
    },
    Leased {
        client: Client,
        options: Vec<String>,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Client {
    /// udhcpc in a busybox container beside the guest.
    Dhcp,
    Udhcpc,
    Dhclient,
    Dhcpcd,
}

/// Reads a command line without the program's name. `None` where pipework would print its syntax.
pub fn read(words: &[String]) -> Result<Option<Request>> {
    let mut words = Words(words.iter().map(String::as_str).collect());
    let direct = words.take("--direct-phys");
    let Some(host) = words.next() else { return Ok(None) };
    let inside = words.option("-i")?.map(name).transpose()?;
    let local = words.option("-l")?.map(name).transpose()?;
    let family = words.option("-a")?.map(family).transpose()?;
    if host == "--wait" {
        return Ok(Some(Request::Wait { interface: inside }));
    }
    let (Some(guest), Some(address)) = (words.next(), words.next()) else { return Ok(None) };
    if let Some(stray) = [host, guest].into_iter().find(|word| word.starts_with('-')) {
        return Err(Error::failed(format!("{stray} is not understood there"))
            .hint("pipework's options have one order: [--direct-phys] HOSTIF [-i IF] [-l HOSTEND] [-a 4|6] GUEST …"));
    }
    let guest = guest.to_owned();
    let tool = match host {
        "route" => Some(Tool::Route),
        "rule" => Some(Tool::Rule),
        "tc" => Some(Tool::Tc),
        _ => None,
    };
    if let Some(tool) = tool {
        let words = std::iter::once(address).chain(words.0).map(str::to_owned).collect();
        let ipv6 = family == Some(Family::Ipv6);
        return Ok(Some(Request::Inside(Inside { tool, guest, ipv6, words })));
    }
    let host = match host.strip_prefix("mac:") {
        Some(text) => HostInterface::WithMac(text.parse().map_err(Error::failed)?),
        None => HostInterface::Named(host.to_owned()),
    };
    let address = addressed(address, family)?;
    let (mac, vlan) = words.next().map_or(Ok((None, None)), mac_and_vlan)?;
    let ignored = words.0.into_iter().filter(|word| !word.is_empty()).map(str::to_owned).collect();
    Ok(Some(Request::Attach(Box::new(Attach { host, direct, inside, local, guest, address, mac, vlan, ignored }))))
}

struct Words<'a>(VecDeque<&'a str>);

impl<'a> Words<'a> {
    /// The next word; to pipework one that is empty is none.
    fn next(&mut self) -> Option<&'a str> {
        self.0.pop_front().filter(|word| !word.is_empty())
    }

    fn take(&mut self, word: &str) -> bool {
        self.0.front() == Some(&word) && self.0.pop_front().is_some()
    }

    /// The value of an option that stands here.
    fn option(&mut self, option: &str) -> Result<Option<&'a str>> {
        if !self.take(option) {
            return Ok(None);
        }
        self.next().map(Some).ok_or_else(|| Error::failed(format!("{option} needs a value")))
    }
}

fn name(text: &str) -> Result<IfName> {
    text.parse().map_err(Error::failed)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Family {
    Ipv4,
    Ipv6,
}

fn family(text: &str) -> Result<Family> {
    match text {
        "4" => Ok(Family::Ipv4),
        "6" => Ok(Family::Ipv6),
        _ => Err(Error::failed(format!("-a {text} is no address family")).hint("-a 4, or -a 6")),
    }
}

fn addressed(text: &str, family: Option<Family>) -> Result<Address> {
    let (name, options) = text.split_once(':').unwrap_or((text, ""));
    let client = match name {
        "dhcp" => Some(Client::Dhcp),
        "udhcpc" | "udhcpc-f" => Some(Client::Udhcpc),
        "dhclient" | "dhclient-f" => Some(Client::Dhclient),
        "dhcpcd" => Some(Client::Dhcpcd),
        _ => None,
    };
    if let Some(client) = client {
        return Ok(Address::Leased { client, options: options.split_whitespace().map(str::to_owned).collect() });
    }
    let (address, gateway) = match text.split_once('@') {
        // What stands behind a second @ pipework drops.
        Some((address, rest)) => (address, rest.split('@').next().filter(|gateway| !gateway.is_empty())),
        None => (text, None),
    };
    if !address.contains('/') {
        let length = if address.contains(':') { 64 } else { 24 };
        return Err(
            Error::failed(format!("{address} has no netmask")).hint(format!("Maybe you meant {address}/{length} ?"))
        );
    }
    if matches!(address, "0/0" | "0.0.0.0/0") {
        return match gateway {
            None => Ok(Address::None),
            Some(gateway) => Err(Error::failed(format!("gateway {gateway} cannot be used without an address"))
                .hint(format!("give the interface one: ADDR/LEN@{gateway}"))),
        };
    }
    let address: HostAddress = address.parse().map_err(Error::failed)?;
    let gateway: Option<Gateway> = gateway.map(str::parse).transpose().map_err(Error::failed)?;
    let is_other = |family| address.is_ipv6() != (family == Family::Ipv6);
    if family.is_some_and(is_other) {
        let right = if address.is_ipv6() { 6 } else { 4 };
        return Err(Error::failed(format!("{address} is not of the family that -a names"))
            .hint(format!("-a {right}, or leave it out: the address tells")));
    }
    Ok(Address::Static { address, gateway })
}

/// `02:42:ac:11:00:02@10`, of which either part may be missing.
fn mac_and_vlan(text: &str) -> Result<(Option<Mac>, Option<String>)> {
    let (mac, vlan) =
        text.split_once('@').map_or((text, ""), |(mac, rest)| (mac, rest.split('@').next().unwrap_or("")));
    let mac = match mac.strip_prefix("U:") {
        Some(seed) => Some(unique(seed)),
        None if mac.is_empty() => None,
        None => Some(mac.parse().map_err(Error::failed)?),
    };
    Ok((mac, Some(vlan.to_owned()).filter(|vlan| !vlan.is_empty())))
}

/// The MAC address of `U:SEED`: 02 and the first five bytes of the MD5 digest of the line that `echo SEED`
/// prints.
fn unique(seed: &str) -> Mac {
    // The shell splits the words and echo joins them again.
    let line = seed.split_whitespace().collect::<Vec<_>>().join(" ") + "\n";
    let digest = Md5::digest(line);
    Mac::local_from([digest[0], digest[1], digest[2], digest[3], digest[4]])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(line: &str) -> Option<Request> {
        read(&line.split(' ').map(str::to_owned).collect::<Vec<_>>()).unwrap()
    }

    fn attach(line: &str) -> Attach {
        match request(line) {
            Some(Request::Attach(attach)) => *attach,
            other => panic!("{line}: {other:?}"),
        }
    }

    fn refused(line: &str) -> (String, Option<String>) {
        let error = read(&line.split(' ').map(str::to_owned).collect::<Vec<_>>()).unwrap_err();
        assert_eq!(error.kind.exit_code(), 1, "as pipework's");
        (error.message, error.hint)
    }

    #[test]
    fn each_word_has_its_place() {
        let all = attach("--direct-phys eth0 -i net0 -l out0 -a 4 web 10.0.0.5/24@10.0.0.1 02:42:ac:11:00:02@10 more");
        assert!(all.direct);
        assert_eq!(all.host, HostInterface::Named("eth0".into()));
        assert_eq!(all.inside.unwrap().as_str(), "net0");
        assert_eq!(all.local.unwrap().as_str(), "out0");
        assert_eq!(all.guest, "web");
        assert_eq!(
            all.address,
            Address::Static { address: "10.0.0.5/24".parse().unwrap(), gateway: Some("10.0.0.1".parse().unwrap()) }
        );
        assert_eq!(all.mac.unwrap().to_string(), "02:42:ac:11:00:02");
        assert_eq!(all.vlan.as_deref(), Some("10"));
        assert_eq!(all.ignored, ["more"]);
        let few = attach("br1 web 0/0");
        assert_eq!((few.address, few.mac, few.vlan, few.inside), (Address::None, None, None, None));
        assert_eq!(
            attach("mac:AA:bb:cc:00:11:22 web 0/0").host,
            HostInterface::WithMac("aa:bb:cc:00:11:22".parse().unwrap())
        );
        let vlan = attach("eth0 web 10.0.0.5/24 @10");
        assert_eq!((vlan.mac, vlan.vlan.as_deref()), (None, Some("10")));
    }

    #[test]
    fn a_mac_address_of_a_string_is_pipeworks() {
        let mac = |seed: &str| attach(&format!("br1 web 10.0.0.5/24 U:{seed}")).mac.unwrap().to_string();
        // The example of pipework's own README.
        assert_eq!(mac("myhost.foo.com"), "02:72:6c:cd:9b:8d");
        let with_vlan = attach("br1 web 10.0.0.5/24 U:web@10");
        assert_eq!(with_vlan.mac.unwrap().to_string(), mac("web"));
        assert_eq!(with_vlan.vlan.as_deref(), Some("10"));
    }

    #[test]
    fn clients_are_told_by_name_and_given_their_options() {
        let leased = |text: &str| attach(&format!("eth0 web {text}")).address;
        let by = |client, options: &[&str]| Address::Leased {
            client,
            options: options.iter().map(|option| (*option).to_owned()).collect(),
        };
        assert_eq!(leased("dhcp"), by(Client::Dhcp, &[]));
        assert_eq!(leased("udhcpc-f:-S"), by(Client::Udhcpc, &["-S"]));
        assert_eq!(leased("dhclient-f"), by(Client::Dhclient, &[]));
        assert_eq!(leased("dhcpcd:-x"), by(Client::Dhcpcd, &["-x"]));
        let words = ["eth0", "web", "dhcp:-x hostname:www -S"].map(str::to_owned);
        let Some(Request::Attach(attach)) = read(&words).unwrap() else { panic!() };
        assert_eq!(attach.address, by(Client::Dhcp, &["-x", "hostname:www", "-S"]));
    }

    #[test]
    fn what_is_inside_goes_on_as_it_stands() {
        let inside = |tool, words: &[&str]| {
            Some(Request::Inside(Inside {
                tool,
                guest: "web".into(),
                ipv6: false,
                words: words.iter().map(|word| (*word).to_owned()).collect(),
            }))
        };
        assert_eq!(
            request("route web add 10.0.0.0/8 via 10.1.0.1"),
            inside(Tool::Route, &["add", "10.0.0.0/8", "via", "10.1.0.1"])
        );
        assert_eq!(request("rule web show"), inside(Tool::Rule, &["show"]));
        assert_eq!(request("tc web qdisc show -d"), inside(Tool::Tc, &["qdisc", "show", "-d"]));
        assert_eq!(request("--wait"), Some(Request::Wait { interface: None }));
        assert_eq!(request("--wait -i net0"), Some(Request::Wait { interface: Some("net0".parse().unwrap()) }));
    }

    #[test]
    fn changes_that_plumb_has_words_for_are_its_own() {
        let of_plumbs = |line: &str| match request(line) {
            Some(Request::Inside(inside)) => inside.is_a_change_of_plumbs(),
            other => panic!("{line}: {other:?}"),
        };
        for line in [
            "route web add 10.0.0.0/8 via 10.1.0.1",
            "route -a 6 web del default",
            "rule web add from 10.0.0.0/8 table 7",
        ] {
            assert!(of_plumbs(line), "{line}");
        }
        for line in [
            "route web show",
            "route web flush table 7",
            "route web add 10.0.0.0/8 nexthop via 10.1.0.1 nexthop via 10.1.0.2",
            "rule web list",
            "tc web qdisc add dev eth1 root sfq",
        ] {
            assert!(!of_plumbs(line), "{line}");
        }
    }

    #[test]
    fn too_few_words_are_answered_by_the_syntax() {
        for line in ["", "--help", "eth0", "eth0 web", "eth0 web  ", "--direct-phys", "route web", "eth0 -i eth1 web"] {
            assert_eq!(request(line), None, "{line}");
        }
    }

    #[test]
    fn what_is_wrong_is_said_with_the_way_out() {
        let order = "pipework's options have one order: [--direct-phys] HOSTIF [-i IF] [-l HOSTEND] [-a 4|6] GUEST …";
        for (line, message, hint) in [
            ("br1 web 10.0.0.5", "10.0.0.5 has no netmask", "Maybe you meant 10.0.0.5/24 ?"),
            ("br1 web 10.0.0.5@10.0.0.1", "10.0.0.5 has no netmask", "Maybe you meant 10.0.0.5/24 ?"),
            ("br1 -a 6 web fd00::5", "fd00::5 has no netmask", "Maybe you meant fd00::5/64 ?"),
            ("br1 -l out0 -i eth2 web 10.0.0.5/24", "-i is not understood there", order),
            ("-i eth2 br1 web 10.0.0.5/24", "-i is not understood there", order),
            ("eth0 --direct-phys web 10.0.0.5/24", "--direct-phys is not understood there", order),
            ("br1 -a 5 web 10.0.0.5/24", "-a 5 is no address family", "-a 4, or -a 6"),
            (
                "br1 -a 6 web 10.0.0.5/24",
                "10.0.0.5/24 is not of the family that -a names",
                "-a 4, or leave it out: the address tells",
            ),
            (
                "br1 web 0/0@10.0.0.1",
                "gateway 10.0.0.1 cannot be used without an address",
                "give the interface one: ADDR/LEN@10.0.0.1",
            ),
        ] {
            assert_eq!(refused(line), (message.to_owned(), Some(hint.to_owned())), "{line}");
        }
        assert_eq!(refused("br1 web 10.0.0.0/24").0, "10.0.0.0 is the address of the network 10.0.0.0/24 itself");
        assert!(refused("br1 -i a234567890123456 web 0/0").0.contains("has 16 bytes"));
        assert!(refused("br1 web 10.0.0.5/24 web2").0.contains("no MAC address"));
    }
}
