//! The bridge that a veth is to be a port of, made where it is missing.

use std::{collections::BTreeMap, time::Duration};

use super::{Device, Work, parent, random};
use crate::{
    config,
    container::Target,
    error::{Error, Result},
    kernel::{Netns, iptables, ovs},
    plan::{
        Driver, Facts, Link, Parent, Port, Switch, Wiring, Wish,
        bridge::{Bridge, open_vswitch_addition, ovs_vsctl},
        bridged::{Acceptance, Dropping, Iptables},
        facts::InsideLink,
        link::GROUP,
    },
    store::{Attachment, attachment},
    types::{IfName, Place, StoreMark, Tag, VlanProtocol, nearest},
};

/// The bridge of this name. The host is locked.
pub(super) fn device(work: &mut Work, name: &IfName, driver: &Driver) -> Result<Device> {
    if let Some(there) = work.kernel.parent(name)? {
        let parent = known(work, there)?;
        refuse_taken_frames(work, &parent, driver)?;
        return Ok(Device { parent, made: false, commands: Vec::new() });
    }
    if is_named_open_vswitch(name) {
        return make_open_vswitch(work, name);
    }
    let bridge = Bridge::new(name.clone(), driver.vlan().is_some(), &config::host_identity().unwrap_or_default());
    let tag = Tag::new(work.context.store.mark(), random()?);
    let commands = bridge.commands(&tag);
    if work.intent.dry_run {
        let parent = Parent::new_bridge(name.clone(), Some(bridge.mac), bridge.switch());
        return Ok(Device { parent, made: false, commands });
    }
    work.kernel.add_bridge(&bridge, &tag)?;
    commands.iter().for_each(|command| work.context.output.step(command, Duration::ZERO));
    Ok(Device { parent: parent(work.kernel, name)?, made: true, commands: Vec::new() })
}

/// That nobody is reached by a bridge that was just made, or is to be, until it has a port that leads there. It may
/// be a slip, too.
pub(super) fn warn_of_a_new_one(work: &mut Work, device: &Device) -> Result<Option<String>> {
    if !device.made && device.commands.is_empty() {
        return Ok(None);
    }
    let name = &device.parent.name;
    let links = work.kernel.host_links()?;
    let others = || links.iter().filter(|link| link.group != GROUP && link.name != "lo" && link.name != name.as_str());
    let slip = nearest(name.as_str(), others().map(|link| link.name.as_str()));
    let slip = slip.map_or(String::new(), |near| format!(" (did you mean {near}?)"));
    let port = others().find(|link| link.kind.is_none() && link.port_of.is_none());
    let port = port.map_or("eth0", |link| link.name.as_str());
    let joins = match device.parent.switch {
        Some(Switch::OpenVswitch) => format!("ovs-vsctl add-port {name} {port}"),
        _ => format!("ip link set {port} master {name}"),
    };
    Ok(Some(format!("{name} was not there and is made{slip}; no port of it leads to the LAN yet: {joins}")))
}

/// The end of a pair that stays on the host needs a name that nobody there has. What an earlier run of the target
/// has left goes first.
pub(super) fn refuse_taken_name(work: &mut Work, wiring: &Wiring, elsewhere: &[Attachment]) -> Result<()> {
    let Some((outside, _)) = wiring.link.host_end() else { return Ok(()) };
    let Some(there) = work.kernel.host_link(outside)? else { return Ok(()) };
    let has_it = |a: &Attachment| a.link().and_then(Link::host_end).is_some_and(|(name, _)| name == outside);
    let is_anothers = |a: Attachment| has_it(&a) && !a.is_unfinished() && !elsewhere.iter().any(|e| e.tag == a.tag);
    let kept = attachment::all(&*work.context.store, None)?;
    if there.group == GROUP && !kept.into_iter().flatten().any(is_anothers) {
        return Ok(());
    }
    Err(Error::conflict(format!("the host has an interface {outside} already")).hint("choose another with --host-name"))
}

/// A VLAN's own device on one of the bridge's ports takes the VLAN's frames before the bridge sees them.
fn refuse_taken_frames(work: &mut Work, bridge: &Parent, driver: &Driver) -> Result<()> {
    let Some(id) = driver.vlan() else { return Ok(()) };
    let links = work.kernel.host_links()?;
    let is_port = |index| links.iter().any(|link| link.index == index && link.port_of == Some(bridge.index));
    let takes =
        |link: &&InsideLink| link.vlan == Some((VlanProtocol::Dot1q, id)) && link.parent_index.is_some_and(is_port);
    match links.iter().find(takes) {
        None => Ok(()),
        Some(device) => {
            let (name, bridge) = (&device.name, &bridge.name);
            Err(Error::conflict(format!("{name} takes the frames of VLAN {id} before {bridge} sees them"))
                .hint(format!("detach what is on {name} and delete it; or use -i {name} without --driver veth")))
        }
    }
}

/// As pipework has it: a missing bridge of such a name is to be Open vSwitch's.
fn is_named_open_vswitch(name: &IfName) -> bool {
    name.as_str().starts_with("ovs")
}

/// What is no bridge of the kernel's may be Open vSwitch's, which alone can tell.
fn known(work: &mut Work, there: Parent) -> Result<Parent> {
    if there.switch.is_some() {
        return Ok(there);
    }
    let looks_like_it = is_named_open_vswitch(&there.name)
        || work.kernel.host_link(&there.name)?.is_some_and(|link| link.kind.as_deref() == Some("openvswitch"));
    match ovs::is_bridge(&there.name) {
        Ok(Some(true)) => Ok(of_open_vswitch(there)),
        Ok(None) if looks_like_it => Err(ovs::missing()),
        Err(error) if looks_like_it => Err(error),
        _ => Ok(there),
    }
}

/// Its own interface may be down, and has no carrier: the ports reach one another all the same.
fn of_open_vswitch(there: Parent) -> Parent {
    Parent { switch: Some(Switch::OpenVswitch), up: true, carrier: true, ..there }
}

fn make_open_vswitch(work: &mut Work, name: &IfName) -> Result<Device> {
    let tag = Tag::new(work.context.store.mark(), random()?);
    let command = ovs_vsctl(&open_vswitch_addition(name, &tag));
    if work.intent.dry_run {
        ovs::is_bridge(name)?.ok_or_else(ovs::missing)?;
        let parent = Parent::new_bridge(name.clone(), None, Switch::OpenVswitch);
        return Ok(Device { parent, made: false, commands: vec![command] });
    }
    ovs::add_bridge(name, &tag).map_err(|error| not_made(name, error))?;
    work.context.output.step(&command, Duration::ZERO);
    // Its program succeeds as soon as it is on record.
    let Some(made) = work.kernel.parent(name)? else {
        ovs::delete_bridge(name)?;
        return Err(Error::failed(format!("Open vSwitch could not set {name} up; nothing was changed"))
            .hint("modprobe openvswitch, if the kernel has it as a module; its log ovs-vswitchd.log tells more"));
    };
    Ok(Device { parent: of_open_vswitch(made), made: true, commands: Vec::new() })
}

/// Its database may have it although the daemon that makes it did not answer.
fn not_made(name: &IfName, error: Error) -> Error {
    match ovs::is_bridge(name) {
        Ok(Some(true)) if ovs::delete_bridge(name).is_err() => error,
        _ => Error { message: format!("{}; nothing was changed", error.message), ..error },
    }
}

/// What is written beside a port: what pipework writes, which others read, and plumb's own tag.
pub(super) fn external_ids(target: &Target, wiring: &Wiring, tag: &Tag) -> BTreeMap<String, String> {
    let outside = wiring.link.host_end().map(|(name, _)| name.to_string());
    let pid = match &target.place {
        Place::Process { pid, .. } => Some(pid.to_string()),
        Place::Path(_) => None,
    };
    let ids = [
        ("pipework.interface", outside),
        ("pipework.bridge", Some(wiring.link.parent.name.to_string())),
        ("pipework.containerid", target.id.clone()),
        ("pipework.containername", Some(target.name.to_string())),
        ("pipework.nspid", pid),
        ("pipework.vlan", wiring.link.driver.vlan().map(|id| id.to_string())),
        (Port::TAG, Some(tag.to_string())),
    ];
    ids.into_iter().filter_map(|(key, id)| Some((key.to_owned(), id?))).collect()
}

/// Who drops what the bridge passes on. Of what Open vSwitch's do netfilter sees nothing.
pub(super) fn drops(parent: &Parent, driver: &Driver, host: &Netns) -> Result<Vec<Dropping>> {
    match parent.switch.filter(|_| driver.needs_a_bridge()) {
        None | Some(Switch::OpenVswitch) => Ok(Vec::new()),
        Some(Switch::Bridge | Switch::VlanBridge { .. }) => {
            host.look_inside(|_| Ok(iptables::bridged_drops(&parent.name)))
        }
    }
}

/// The rules that `--allow-forward` needs: those that others have asked for are there already.
pub(super) fn acceptances(wish: &Wish, facts: &Facts, store: &StoreMark) -> Vec<Acceptance> {
    let rule = |drop: &Dropping| match drop.by {
        Iptables::Nftables { chain } => {
            Some(Acceptance { bridge: facts.parent.name.clone(), ipv6: drop.ipv6, chain, store: store.clone() })
        }
        Iptables::Legacy => None,
    };
    facts.bridged_drops.iter().filter(|_| wish.allow_forward).filter_map(rule).collect()
}

/// Adds them. The host is locked, and the record says who needs them.
pub(super) fn accept(work: &Work, rules: &[Acceptance]) -> Result<()> {
    if rules.is_empty() {
        return Ok(());
    }
    work.host.look_inside(|_| rules.iter().try_for_each(iptables::accept))?;
    rules.iter().for_each(|rule| work.context.output.step(&rule.command(), Duration::ZERO));
    Ok(())
}
