//! What shall be changed, as data: a pure function turns a wish and the facts into steps, and each
//! step knows its inverse and the command that a person would type for it.
//!
//! Nothing here reads a file, a socket, a clock or the environment, so every refusal and every
//! plan can be tested without a kernel.

pub mod again;
pub mod bridge;
pub mod bridged;
pub mod changes;
pub mod facts;
pub mod forwarding;
pub mod leased;
pub mod link;
pub mod phys;
pub mod qdisc;
pub mod render;
pub mod route;
pub mod rule;
pub mod setting;
pub mod shaping;
pub mod tuning;
pub mod undo;
pub mod vlan;
pub mod wiring;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use bridge::{Port, Switch};
pub use facts::{Facts, Inside, Parent, Sibling};
pub use forwarding::Masquerade;
pub use leased::Leased;
pub use link::{Driver, IpvlanMode, Link, MacvlanMode};
pub use phys::{Home, Moving};
pub use qdisc::{Ifb, Qdisc, Redirect};
pub use route::Route;
pub use rule::Rule;
pub use setting::Setting;
pub use tuning::{Segments, Tuning};
pub use wiring::{Advertised, Wiring, Wish};

use crate::types::{HostAddress, IfName, Mtu, Tag};

/// One change to the kernel, and what it replaces.
///
/// Every change is in the target's namespace, but for those of a qdisc at the host's end of a veth, and of the
/// segments of the parent, and a port of Open vSwitch's.
/// Matches over steps name each of them: a new step
/// does not compile without its inverse, its text and its execution.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    AddLink(Link),
    DeleteLink(Link),
    AddTag(TaggedLink),
    DeleteTag(TaggedLink),
    SetSysctl {
        key: String,
        from: String,
        to: String,
    },
    SetMtu {
        index: u32,
        name: IfName,
        from: Mtu,
        to: Mtu,
    },
    /// How large segments may be that pass unsegmented: of the link, or on the host of its parent.
    SetSegments {
        on: qdisc::Device,
        from: Segments,
        to: Segments,
    },
    AddAddress(LinkAddress),
    DeleteAddress(LinkAddress),
    AddRoute(Route),
    DeleteRoute(Route),
    /// Puts `new` where `old` is, in one request: there is no moment without a route.
    ReplaceRoute {
        old: Route,
        new: Route,
    },
    /// What the container's `/etc/resolv.conf` says. `root` is the directory that its files are under.
    SetResolver {
        root: PathBuf,
        from: String,
        to: String,
    },
    AddMasquerade(Masquerade),
    DeleteMasquerade(Masquerade),
    AddIfb(Ifb),
    DeleteIfb(Ifb),
    AddQdisc(Qdisc),
    DeleteQdisc(Qdisc),
    /// Puts `new` where `old` is: of the same kind in place, with its queue and its tokens.
    ReplaceQdisc {
        old: Qdisc,
        new: Qdisc,
    },
    AddRedirect(Redirect),
    DeleteRedirect(Redirect),
    /// On the host: the port of a bridge of Open vSwitch's.
    AddPort(Port),
    DeletePort(Port),
    AddRule(Rule),
    DeleteRule(Rule),
    SetLink(Setting),
    /// Adds a route behind those of the same place, which stay.
    AppendRoute(Route),
    DeleteAppended(Route),
}

/// A link and the alternative name by which plumb knows it again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaggedLink {
    pub index: u32,
    pub name: IfName,
    pub tag: Tag,
}

/// An address on a link.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkAddress {
    pub index: u32,
    pub name: IfName,
    pub address: HostAddress,
    /// IPv6: the address is usable at once, without the kernel's duplicate address detection.
    pub skip_dad: bool,
}

impl Step {
    /// The step that takes this one back. Its inverse is this step again.
    pub fn inverse(&self) -> Step {
        match self.clone() {
            Step::AddLink(link) => Step::DeleteLink(link),
            Step::DeleteLink(link) => Step::AddLink(link),
            Step::AddTag(tagged) => Step::DeleteTag(tagged),
            Step::DeleteTag(tagged) => Step::AddTag(tagged),
            Step::SetSysctl { key, from, to } => Step::SetSysctl { key, from: to, to: from },
            Step::SetMtu { index, name, from, to } => Step::SetMtu { index, name, from: to, to: from },
            Step::SetSegments { on, from, to } => Step::SetSegments { on, from: to, to: from },
            Step::AddAddress(address) => Step::DeleteAddress(address),
            Step::DeleteAddress(address) => Step::AddAddress(address),
            Step::AddRoute(route) => Step::DeleteRoute(route),
            Step::DeleteRoute(route) => Step::AddRoute(route),
            Step::ReplaceRoute { old, new } => Step::ReplaceRoute { old: new, new: old },
            Step::SetResolver { root, from, to } => Step::SetResolver { root, from: to, to: from },
            Step::AddMasquerade(masquerade) => Step::DeleteMasquerade(masquerade),
            Step::DeleteMasquerade(masquerade) => Step::AddMasquerade(masquerade),
            Step::AddIfb(ifb) => Step::DeleteIfb(ifb),
            Step::DeleteIfb(ifb) => Step::AddIfb(ifb),
            Step::AddQdisc(qdisc) => Step::DeleteQdisc(qdisc),
            Step::DeleteQdisc(qdisc) => Step::AddQdisc(qdisc),
            Step::ReplaceQdisc { old, new } => Step::ReplaceQdisc { old: new, new: old },
            Step::AddRedirect(redirect) => Step::DeleteRedirect(redirect),
            Step::DeleteRedirect(redirect) => Step::AddRedirect(redirect),
            Step::AddPort(port) => Step::DeletePort(port),
            Step::DeletePort(port) => Step::AddPort(port),
            Step::AddRule(rule) => Step::DeleteRule(rule),
            Step::DeleteRule(rule) => Step::AddRule(rule),
            Step::SetLink(setting) => Step::SetLink(setting.inverse()),
            Step::AppendRoute(route) => Step::DeleteAppended(route),
            Step::DeleteAppended(route) => Step::AppendRoute(route),
        }
    }
}

#[cfg(test)]
pub(crate) mod samples {
    //! One of each step, for the tests of everything that matches over them.

    use super::qdisc::{Device, Discipline, Side, Slot, Tbf};
    use super::*;
    use crate::types::{StoreMark, VlanId};

    pub fn link() -> Link {
        Link {
            index: 7,
            name: IfName::eth(1),
            mac: Some("02:00:00:00:00:07".parse().unwrap()),
            mtu: 1500.try_into().unwrap(),
            parent: link::ParentLink { name: "eth0".parse().unwrap(), index: 2 },
            driver: Driver::Macvlan(MacvlanMode::Bridge),
            tuning: Tuning::default(),
        }
    }

    /// A macvlan for `web` with nothing on it yet.
    pub fn wish() -> Wish {
        let mac = wiring::MacRule::Derived { host: Some("0123456789abcdef0123456789abcdef".into()) };
        Wish::of(&"web".parse().unwrap(), Driver::Macvlan(MacvlanMode::Bridge), mac)
    }

    pub fn segments(size: u32) -> Segments {
        Segments { gso: size, gro: size, gso_ipv4: size, gro_ipv4: size }
    }

    pub fn tag() -> Tag {
        Tag::new(StoreMark::of("/var/lib/plumb"), [7; 8])
    }

    pub fn default_via(gateway: &str, index: u32, device: &str) -> Route {
        let gateway: std::net::IpAddr = gateway.parse().unwrap();
        Route::new(None, Some(gateway), false, None, (index, device), gateway.is_ipv6())
    }

    pub fn masquerade(subnet: &str) -> Masquerade {
        Masquerade { interface: "gw-blue".parse().unwrap(), subnet: subnet.parse().unwrap() }
    }

    pub fn port() -> Port {
        let ids = [("pipework.vlan", "10"), (Port::TAG, "plumb:1:2")].map(|(key, id)| (key.into(), id.into()));
        Port {
            bridge: "ovs0".parse().unwrap(),
            name: "web-eth1".parse().unwrap(),
            vlan: VlanId::try_from(10).ok(),
            external_ids: ids.into(),
        }
    }

    fn device(side: Side, index: u32, name: &str) -> Device {
        Device { side, index, name: name.parse().unwrap() }
    }

    pub fn bucket(side: Side, index: u32, name: &str, rate: &str, burst: u32) -> Qdisc {
        let tbf = Tbf { rate: rate.parse().unwrap(), burst, limit: 75_000, peak: None };
        let discipline = Discipline::Tbf(tbf);
        Qdisc { on: device(side, index, name), slot: Slot::Root, handle: qdisc::TBF, discipline }
    }

    pub fn ingress(index: u32, name: &str) -> Qdisc {
        let on = device(Side::Inside, index, name);
        Qdisc { on, slot: Slot::Ingress, handle: qdisc::INGRESS, discipline: Discipline::Ingress }
    }

    pub fn rule(words: &str) -> Rule {
        let words: Vec<String> = words.split_whitespace().map(str::to_owned).collect();
        Rule::new(&crate::types::RuleWords::parse(&words, None).unwrap(), 32765)
    }

    pub fn setting(change: setting::Change) -> Step {
        Step::SetLink(Setting { index: 7, name: IfName::eth(1), change })
    }

    pub fn steps() -> Vec<Step> {
        [attaching(), changes()].concat()
    }

    pub fn attaching() -> Vec<Step> {
        let ifb = Ifb { index: 8, name: "qos7".parse().unwrap() };
        let (index, name) = (7, IfName::eth(1));
        vec![
            Step::AddLink(link()),
            Step::AddTag(TaggedLink { index, name: name.clone(), tag: tag() }),
            Step::SetSysctl { key: "net/ipv6/conf/eth1/accept_ra".into(), from: "1".into(), to: "0".into() },
            Step::SetMtu { index, name: name.clone(), from: 1500.try_into().unwrap(), to: 1400.try_into().unwrap() },
            Step::SetSegments { on: device(Side::Host, 2, "eth0"), from: segments(65_536), to: segments(131_072) },
            Step::AddAddress(LinkAddress {
                index,
                name,
                address: "192.168.0.100/24".parse().unwrap(),
                skip_dad: false,
            }),
            Step::AddRoute(Route::new(Some("10.0.0.0/8".parse().unwrap()), None, false, None, (7, "eth1"), false)),
            Step::ReplaceRoute {
                old: default_via("172.17.0.1", 2, "eth0"),
                new: default_via("192.168.0.1", 7, "eth1"),
            },
            Step::DeleteRoute(default_via("172.17.0.1", 2, "eth0")),
            Step::SetResolver {
                root: "/proc/42/root".into(),
                from: "nameserver 10.0.0.1\n".into(),
                to: "nameserver 10.0.0.2\n".into(),
            },
            Step::AddMasquerade(masquerade("10.1.0.0/24")),
            Step::AddMasquerade(masquerade("fd10::/64")),
            Step::AddQdisc(bucket(Side::Host, 9, "veth9", "10mbit", 12_500)),
            Step::ReplaceQdisc {
                old: bucket(Side::Inside, 7, "eth1", "10mbit", 12_500),
                new: bucket(Side::Inside, 7, "eth1", "20mbit", 25_000),
            },
            Step::AddIfb(ifb.clone()),
            Step::AddQdisc(ingress(7, "eth1")),
            Step::AddRedirect(Redirect { from: device(Side::Inside, 7, "eth1"), to: ifb }),
            Step::AddPort(port()),
        ]
    }

    /// Those by which what is there is changed.
    pub fn changes() -> Vec<Step> {
        vec![
            Step::AddRule(rule("from 192.168.0.0/24 table 100")),
            Step::AddRule(rule("from fd00::/8 prohibit")),
            setting(setting::Change::Mac {
                from: "02:00:00:00:00:07".parse().unwrap(),
                to: "02:00:00:00:00:08".parse().unwrap(),
            }),
            setting(setting::Change::Promisc(true)),
            setting(setting::Change::Up(false)),
            setting(setting::Change::Name("lan0".parse().unwrap())),
            Step::AppendRoute(default_via("192.168.0.9", 7, "eth1")),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_inverse_of_the_inverse_is_the_step() {
        for step in samples::steps() {
            assert_ne!(step.inverse(), step);
            assert_eq!(step.inverse().inverse(), step);
        }
    }

    #[test]
    fn a_record_gives_back_the_very_steps() {
        let steps: Vec<Step> = samples::steps().into_iter().flat_map(|step| [step.inverse(), step]).collect();
        let text = serde_json::to_string_pretty(&steps).unwrap();
        assert_eq!(serde_json::from_str::<Vec<Step>>(&text).unwrap(), steps);
    }
}
