//! The host's interfaces that containers may hang on.

use std::collections::BTreeMap;

use caps::Capability;

use super::{needs::Need, not_looked_at, permissions::lacking, report::Finding};
use crate::{
    error::Result,
    kernel::{Interface, Kernel, Netns, survey},
    plan::facts::InsideLink,
};

/// One finding or more for each; a missing one where none can carry containers.
pub fn look() -> Vec<Finding> {
    match interfaces() {
        Ok(interfaces) => {
            let (parents, children) = (parents(&interfaces), children());
            let of = |interface: &&Interface| {
                let hanging = children.iter().filter(|link| link.parent_index == Some(interface.parent.index));
                of_one(interface, &hanging.collect::<Vec<_>>())
            };
            let mut findings: Vec<Finding> = parents.iter().flat_map(of).collect();
            let unseen = lacking(Capability::CAP_SYS_ADMIN);
            findings.extend(unseen.map(|error| not_looked_at("what hangs on them", error)));
            if !parents.iter().any(|interface| can_carry(interface)) {
                let names: Vec<&str> = interfaces.iter().map(|interface| interface.parent.name.as_str()).collect();
                let found = format!("none of {} can carry containers", names.join(", "));
                let remedy = "an Ethernet interface or a bridge, up: ip -br link lists what there is";
                findings.push(Finding::missing("a parent", found).remedy(remedy).of(Need::Parent));
            }
            findings
        }
        Err(error) => vec![not_looked_at("interfaces", error)],
    }
}

fn interfaces() -> Result<Vec<Interface>> {
    Kernel::with_host()?.interfaces()
}

/// What shares a parent's address on the wire, in all namespaces; nothing where that is not permitted.
fn children() -> Vec<InsideLink> {
    if lacking(Capability::CAP_SYS_ADMIN).is_some() {
        return Vec::new();
    }
    Netns::of_this_thread().map(|host| survey::all_sharers(&host)).unwrap_or_default()
}

/// Those that stand for hardware, and bridges that these are ports of. Where there is no such thing, as inside
/// a container, what leads out of it.
fn parents(interfaces: &[Interface]) -> Vec<&Interface> {
    let is =
        |interface: &Interface, kinds: &[&str]| interface.kind.as_deref().is_some_and(|kind| kinds.contains(&kind));
    let usual = |interface: &&Interface| !interface.parent.loopback && interface.parent.ethernet;
    let is_hardware = |interface: &&Interface| interface.kind.is_none() || is(interface, &["bond", "team"]);
    let hardware: Vec<&Interface> = interfaces.iter().filter(usual).filter(is_hardware).collect();
    if hardware.is_empty() {
        let leads_out = |interface: &&Interface| is(interface, &["veth", "macvlan", "ipvlan", "vlan"]);
        return interfaces.iter().filter(usual).filter(leads_out).collect();
    }
    let has_port = |bridge: &Interface| {
        hardware.iter().any(|port| port.parent.port_of.as_deref() == Some(bridge.parent.name.as_str()))
    };
    let bridges = interfaces.iter().filter(|interface| interface.parent.switch.is_some() && has_port(interface));
    hardware.iter().copied().chain(bridges).collect()
}

fn can_carry(interface: &Interface) -> bool {
    interface.parent.port_of.is_none()
}

fn of_one(interface: &Interface, children: &[&InsideLink]) -> Vec<Finding> {
    let parent = &interface.parent;
    let name = parent.name.as_str();
    let link = if !parent.up {
        "down"
    } else if parent.carrier {
        "up"
    } else {
        "no carrier"
    };
    let facts = [link.to_owned(), format!("MTU {}", parent.mtu)].into_iter().chain(interface.driver.clone());
    let facts: Vec<String> = facts.chain(carried(children)).collect();
    let facts = facts.join(", ");
    let own = if !parent.up {
        Finding::warning(name, facts).remedy(format!("ip link set {name} up"))
    } else if !parent.carrier {
        Finding::warning(name, facts).remedy("plug the cable in, or look at the switch's port")
    } else {
        Finding::ok(name, facts)
    };
    [own.of(Need::Parent)].into_iter().chain(peculiarities(interface, children)).collect()
}

/// `3 macvlan bridge`, of each kind and mode.
fn carried(children: &[&InsideLink]) -> Vec<String> {
    let mut kinds: BTreeMap<String, usize> = BTreeMap::new();
    for child in children {
        let kind = child.kind.iter().chain(&child.mode).cloned().collect::<Vec<_>>().join(" ");
        *kinds.entry(kind).or_default() += 1;
    }
    kinds.into_iter().map(|(kind, count)| format!("carries {count} {kind}")).collect()
}

fn peculiarities(interface: &Interface, children: &[&InsideLink]) -> Vec<Finding> {
    let parent = &interface.parent;
    let name = parent.name.as_str();
    let mut findings = Vec::new();
    if let Some(of) = &parent.port_of {
        findings.push(Finding::note(name, format!("a port of {of}, and so no parent")).remedy(format!("-i {of}")));
    }
    if parent.wireless {
        let found = "wifi: access points drop frames of MAC addresses that did not log in";
        findings.push(Finding::warning(name, found).remedy("--driver ipvlan, or a wired interface"));
    }
    findings.extend(interface.driver.as_deref().and_then(|driver| virtual_nic(name, driver)));
    if interface.promiscuity > 0 {
        let found = "promiscuous: it takes every frame, whomever it is for";
        findings.push(Finding::note(name, found).remedy(format!(
            "ip link set {name} promisc off, unless a bridge, a passthru macvlan or a capture needs it"
        )));
    }
    let has = |wanted: &str| children.iter().any(|child| child.kind.as_deref() == Some(wanted));
    if children.iter().any(|child| child.mode.as_deref() == Some("passthru")) {
        findings.push(Finding::note(name, "belongs to a passthru macvlan alone").remedy("another interface"));
    } else if has("ipvlan") {
        findings.push(Finding::note(name, "carries ipvlan, and no macvlan beside it").remedy("--driver ipvlan there"));
    } else if has("macvlan") {
        findings.push(Finding::note(name, "carries macvlan, and no ipvlan beside it").remedy("--driver macvlan there"));
    }
    findings
}

/// What is to be known of the card of a virtual machine, by its driver: whoever runs the machine decides
/// whether frames of other MAC addresses than its own pass.
fn virtual_nic(name: &str, driver: &str) -> Option<Finding> {
    let may = || Finding::note(name, "a virtual machine's: its host may drop frames of the containers' MAC addresses");
    let does = || Finding::warning(name, "a virtual machine's, whose host lets only its own MAC address through");
    Some(match driver {
        "virtio_net" => {
            may().remedy("if nothing answers: --driver ipvlan, or no MAC filter for the machine on its host")
        }
        "vif" | "xen-netfront" => may().remedy("if nothing answers: --driver ipvlan"),
        "vmxnet3" => does().remedy("promiscuous mode and forged transmits for its port group; or --driver ipvlan"),
        "hv_netvsc" => does().remedy("Set-VMNetworkAdapter -MacAddressSpoofing On; or --driver ipvlan"),
        "ena" | "gve" => does().remedy("--driver ipvlan, with addresses that the cloud has assigned to the card"),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        commands::doctor::report::State,
        plan::{Parent, Switch},
    };

    fn interface(name: &str, kind: Option<&str>) -> Interface {
        let parent = Parent {
            switch: (kind == Some("bridge")).then_some(Switch::Bridge),
            ..Parent::new_bridge(name.parse().unwrap(), "02:00:00:00:00:01".parse().ok(), Switch::Bridge)
        };
        Interface { parent, kind: kind.map(str::to_owned), driver: None, promiscuity: 0 }
    }

    fn names(interfaces: &[Interface]) -> Vec<&str> {
        parents(interfaces).iter().map(|interface| interface.parent.name.as_str()).collect()
    }

    #[test]
    fn hardware_and_the_bridges_over_it_are_parents_and_docker_s_own_are_not() {
        let mut port = interface("eth1", None);
        port.parent.port_of = Some("br0".into());
        let mut guest = interface("vethab", Some("veth"));
        guest.parent.port_of = Some("docker0".into());
        let all = [
            interface("eth0", None),
            port,
            interface("br0", Some("bridge")),
            interface("docker0", Some("bridge")),
            guest,
            interface("bond0", Some("bond")),
            interface("ifb0", Some("ifb")),
        ];
        assert_eq!(names(&all), ["eth0", "eth1", "bond0", "br0"]);
        assert_eq!(names(&[interface("eth0", Some("veth")), interface("ifb0", Some("ifb"))]), ["eth0"]);
    }

    #[test]
    fn each_peculiarity_is_told_with_what_to_do() {
        let of = |change: fn(&mut Interface)| {
            let mut changed = interface("eth0", None);
            change(&mut changed);
            of_one(&changed, &[])
        };
        assert_eq!(of(|_| ()), [Finding::ok("eth0", "up, MTU 1500").of(Need::Parent)]);
        type Change = fn(&mut Interface);
        let cases: [(Change, State, &str, &str); 6] = [
            (|i| i.parent.up = false, State::Warning, "down", "ip link set eth0 up"),
            (|i| i.parent.carrier = false, State::Warning, "no carrier", "cable"),
            (|i| i.parent.wireless = true, State::Warning, "wifi", "ipvlan"),
            (|i| i.driver = Some("ena".into()), State::Warning, "only its own MAC address", "--driver ipvlan"),
            (|i| i.promiscuity = 1, State::Note, "promiscuous", "promisc off"),
            (|i| i.parent.port_of = Some("br0".into()), State::Note, "a port of br0", "-i br0"),
        ];
        for (change, state, found, remedy) in cases {
            let finding = of(change).into_iter().find(|finding| finding.state != State::Ok).unwrap();
            assert_eq!(finding.state, state);
            assert!(finding.found.contains(found) && finding.remedy.clone().unwrap().contains(remedy), "{finding:?}");
        }
    }

    #[test]
    fn children_are_counted_by_kind_and_mode() {
        let child = |kind: &str, mode: &str| InsideLink {
            kind: Some(kind.into()),
            mode: Some(mode.into()),
            ..InsideLink::default()
        };
        let (first, second, ipvlan) = (child("macvlan", "bridge"), child("macvlan", "vepa"), child("ipvlan", "l2"));
        assert_eq!(
            carried(&[&first, &first, &second]),
            ["carries 2 macvlan bridge".to_owned(), "carries 1 macvlan vepa".into()]
        );
        let findings = of_one(&interface("eth0", None), &[&ipvlan]);
        assert!(findings[1].found.contains("no macvlan beside it"), "{findings:?}");
    }
}
