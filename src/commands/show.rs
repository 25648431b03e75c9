//! `plumb show`: what is on record beside what the kernel has now.

use std::path::Path;

use colored::Colorize;
use comfy_table::{Table, presets};
use serde::Serialize;

use super::{
    Context,
    leases::Leased,
    ls::{State, host_links},
    namespace, records,
};
use crate::{
    cli::Show,
    container,
    error::{Error, Result},
    kernel::{Kernel, Netns, iptables, ovs},
    output::flush_left,
    plan::{
        Advertised, Inside, Step,
        changes::{expected_routes, expected_rules},
        facts::InsideLink,
        setting::Change,
    },
    store::{Attachment, Record},
    types::{HostAddress, Place, VlanId, table_name},
};

pub fn run(options: Show, context: &Context) -> Result<()> {
    let kept = records::of_target(&options.target, context)?;
    if kept.is_empty() {
        // Nothing on record is an answer for a target that exists; one that does not is a slip.
        container::find(&options.target, &context.engines, None)?;
    }
    let (mut shown, mut damaged) = (Vec::new(), Vec::new());
    for kept in kept {
        match kept {
            Ok(attachment) => shown.push(Shown::new(&attachment, context)?),
            Err(error) => damaged.push(error),
        }
    }
    if shown.is_empty() && damaged.is_empty() {
        context.output.line(records::nothing_attached(&options.target, context));
    }
    shown.iter().for_each(|shown| context.output.line(shown));
    context.output.conclude(serde_json::json!({ "target": options.target, "attachments": shown }), damaged)
}

#[derive(Serialize)]
struct Shown {
    interface: String,
    state: State,
    #[serde(skip_serializing_if = "Option::is_none")]
    lease: Option<Leased>,
    /// Whether the kernel has all that is on record.
    as_recorded: bool,
    properties: Vec<Property>,
    #[serde(skip)]
    title: String,
}

/// One property, both ways; `None` is: not there.
#[derive(Serialize)]
struct Property {
    name: &'static str,
    recorded: Option<String>,
    now: Option<String>,
    differs: bool,
}

impl Property {
    fn new(name: &'static str, recorded: Option<String>, now: Option<String>) -> Property {
        let differs = recorded != now;
        Property { name, recorded, now, differs }
    }
}

impl Shown {
    fn new(attachment: &Attachment, context: &Context) -> Result<Shown> {
        let state = State::of(attachment).on(attachment, &host_links([attachment])?);
        let leased = records::leased_addresses(attachment, context);
        let properties = match (state, namespace::reopen(attachment)) {
            (State::Stopped, _) | (_, None) => properties(attachment, &leased, None),
            (_, Some(there)) => properties(
                attachment,
                &leased,
                Some(&there.look_inside(|kernel| match attachment.changes.is_empty() {
                    true => kernel.look(),
                    false => kernel.look_at_all(),
                })?),
            ),
        };
        let mut properties = properties;
        properties.extend(host_side(attachment, state)?);
        let link = attachment
            .link()
            .ok_or_else(|| Error::failed(format!("the record of {} names no link", attachment.key())))?;
        let lease = Leased::of(attachment, &*context.store);
        let by_lease = lease.as_ref().map_or(String::new(), |lease| format!(", {lease}"));
        let on = link.on().map_or_else(String::new, |on| format!(" on {on}"));
        let title = format!(
            "{}: {}{on} ({}), {}{by_lease}",
            attachment.target.in_words(),
            attachment.name_now(),
            link.driver,
            state.name()
        );
        let as_recorded = !properties.iter().any(|property| property.differs);
        Ok(Shown { interface: attachment.name_now().to_owned(), state, lease, as_recorded, properties, title })
    }
}

fn properties(attachment: &Attachment, leased: &[HostAddress], now: Option<&Inside>) -> Vec<Property> {
    let Some(recorded) = attachment.link() else { return Vec::new() };
    let found: Option<&InsideLink> = now.and_then(|inside| inside.link_tagged(&attachment.tag));
    let index = found.map_or(0, |link| link.index);
    let of_found = |pick: &dyn Fn(&InsideLink) -> Option<String>| found.and_then(pick);
    let state = |up: bool| if up { "up".to_owned() } else { "down".to_owned() };
    let is_up = attachment.setting(|change| if let Change::Up(up) = change { Some(*up) } else { None }).unwrap_or(true);
    let changed = attachment.setting(|change| if let Change::Mac { to, .. } = change { Some(*to) } else { None });
    let mac = changed.or(recorded.mac);
    let mut properties = vec![
        Property::new("interface", Some(attachment.name_now().to_owned()), of_found(&|link| Some(link.name.clone()))),
        Property::new("state", Some(state(is_up)), of_found(&|link| Some(state(link.up)))),
        Property::new("mac", mac.map(|mac| mac.to_string()).or_else(|| of_found(&mac_text)), of_found(&mac_text)),
        Property::new("mtu", attachment.mtu().map(|mtu| mtu.to_string()), of_found(&|link| Some(link.mtu.to_string()))),
    ];
    // What moves has none.
    properties.extend((!recorded.driver.moves()).then(|| {
        Property::new(
            "mode",
            Some(recorded.driver.to_string()),
            of_found(&|link| {
                let kind = link.kind.as_deref()?;
                // A veth has none: it is a bridge's port, whatever the kernel says.
                let mode = link.mode.as_deref().or((kind == "veth").then_some("bridge"));
                Some(mode.map_or(kind.to_owned(), |mode| format!("{kind} {mode}")))
            }),
        )
    }));
    properties.push(Property::new(
        "tag",
        Some(attachment.tag.to_string()),
        of_found(&|link| link.tag.as_ref().map(|tag| tag.to_string())),
    ));
    let there = |inside: &Inside| -> Vec<String> {
        let ours = inside.addresses.iter().filter(|a| a.index == index && !is_link_local(a.ip));
        ours.map(|a| format!("{}/{}", a.ip, a.prefix)).collect()
    };
    let addresses = now.filter(|_| found.is_some()).map(there).unwrap_or_default();
    let mut expected: Vec<String> =
        attachment.wish.addresses.iter().chain(leased).map(|address| address.to_string()).collect();
    if attachment.wish.advertised == Advertised::Addresses {
        // Whatever the routers advertise is as it should be.
        expected.extend(addresses.iter().filter(|address| address.contains(':')).cloned());
    }
    if !is_up {
        // A link that is down has none of IPv6's; they are back when it is up.
        expected.retain(|address| !address.contains(':'));
    }
    let promisc = attachment.setting(|change| if let Change::Promisc(on) = change { Some(*on) } else { None });
    let on_or_off = |on: bool| if on { "on".to_owned() } else { "off".to_owned() };
    properties.extend(
        promisc
            .map(|on| Property::new("promisc", Some(on_or_off(on)), of_found(&|link| Some(on_or_off(link.promisc))))),
    );
    properties.extend(compare("address", expected, addresses));
    properties.extend(routes(attachment, now));
    properties.extend(elsewhere(attachment, now));
    properties
}

/// Where the other end of a veth is, and what is dropped of what its bridge passes on.
fn host_side(attachment: &Attachment, state: State) -> Result<Vec<Property>> {
    let Some((link, (outside, _))) = attachment.link().and_then(|link| Some((link, link.host_end()?))) else {
        return Ok(Vec::new());
    };
    let look = |kernel: &mut Kernel| {
        let links = kernel.links()?;
        let end = links.iter().find(|link| link.name == outside.as_str());
        let (bridge, vlan) = match end {
            Some(_) if link.driver.is_open_vswitchs() => ovs::port(outside)?.unzip(),
            Some(end) => {
                let bridge = links.iter().find(|link| Some(link.index) == end.port_of).map(|link| link.name.clone());
                (bridge, link.driver.vlan().map(|_| kernel.port_vlan(end.index)).transpose()?)
            }
            None => (None, None),
        };
        let end = end.map(|end| if end.up { end.name.clone() } else { format!("{} (down)", end.name) });
        let drops = attachment.wish.allow_forward && !iptables::bridged_drops(&link.parent.name).is_empty();
        Ok((end, bridge, vlan.flatten(), if drops { "dropped" } else { "accepted" }))
    };
    let now = match state {
        State::Stopped | State::Unknown => None,
        _ => Some(Netns::open(Path::new(Place::HOST))?.look_inside(look)?),
    };
    let (end, bridge, vlan, forward) = now.map_or((None, None, None, None), |(a, b, c, d)| (a, b, c, Some(d)));
    let id = |id: VlanId| id.to_string();
    let mut rows = vec![
        Property::new("host end", Some(outside.to_string()), end),
        Property::new("bridge", Some(link.parent.name.to_string()), bridge),
    ];
    rows.extend(link.driver.vlan().map(|own| Property::new("vlan", Some(id(own)), vlan.map(id))));
    let asked = attachment.wish.allow_forward.then(|| "accepted".to_owned());
    rows.extend(asked.map(|asked| Property::new("forward", Some(asked), forward.map(str::to_owned))));
    Ok(rows)
}

fn mac_text(link: &InsideLink) -> Option<String> {
    link.mac.and_then(|bytes| crate::types::Mac::try_from(bytes).ok()).map(|mac| mac.to_string())
}

fn is_link_local(ip: std::net::IpAddr) -> bool {
    matches!(ip, std::net::IpAddr::V6(v6) if v6.is_unicast_link_local())
}

/// Each on record beside itself if it is there, then those that are there only.
fn compare(name: &'static str, recorded: Vec<String>, mut there: Vec<String>) -> Vec<Property> {
    let mut properties = Vec::new();
    for text in recorded {
        let found = there.iter().position(|other| *other == text).map(|at| there.remove(at));
        properties.push(Property::new(name, Some(text), found));
    }
    properties.extend(there.into_iter().map(|text| Property::new(name, None, Some(text))));
    properties
}

fn routes(attachment: &Attachment, now: Option<&Inside>) -> Vec<Property> {
    let mut properties = Vec::new();
    // A link that is down has none, and they are back when it is up.
    let is_up = attachment.setting(|change| if let Change::Up(up) = change { Some(*up) } else { None }).unwrap_or(true);
    let index = attachment.link().map_or(0, |link| link.index);
    for route in expected_routes(attachment.all_steps()) {
        if !is_up && route.leaves_by() == Some(index) {
            continue;
        }
        let route = route.called(index, attachment.name_now());
        let there = now.and_then(|inside| {
            let its_own = inside.routes.iter().find(|other| other.is(&route));
            its_own.or_else(|| inside.routes.iter().find(|other| other.competes_with(&route)))
        });
        let short = |route: &crate::plan::Route| {
            let to = route
                .destination()
                .filter(|network| network.prefix() > 0 || network.is_ipv6())
                .map_or("default".to_owned(), |network| network.to_string());
            let by = if route.leads_nowhere() { "leads nowhere".into() } else { format!("by {}", route.way()) };
            let table =
                if route.table() == 254 { String::new() } else { format!(" in table {}", table_name(route.table())) };
            format!("{to} {by}{table}")
        };
        properties.push(Property::new("route", Some(short(&route)), there.map(short)));
    }
    for rule in expected_rules(attachment.all_steps()) {
        let there = now.and_then(|inside| inside.rules.iter().find(|other| other.is(&rule)));
        properties.push(Property::new("rule", Some(rule.brief()), there.map(|there| there.brief())));
    }
    properties
}

/// What was changed of other interfaces, and which routes and rules were deleted, until the detach.
fn elsewhere(attachment: &Attachment, now: Option<&Inside>) -> Vec<Property> {
    let own = attachment.link().map_or(0, |link| link.index);
    let link = |index: u32| now?.links.iter().find(|link| link.index == index);
    let gone = |name, text: String, is_there: Option<bool>| {
        let deleted = format!("{text}: deleted");
        let now = is_there.map(|is_there| if is_there { text } else { deleted.clone() });
        Property::new(name, Some(deleted), now)
    };
    let property = |step: &Step| match step {
        Step::SetMtu { index, name, to, .. } if *index != own => {
            let now = link(*index).map(|link| format!("{} of {name}", link.mtu));
            Some(Property::new("mtu", Some(format!("{to} of {name}")), now))
        }
        Step::SetLink(setting) if setting.index != own => {
            let wanted = setting.command().trim_start_matches("ip link set dev ").to_owned();
            let now = link(setting.index).map(|link| match setting.holds(link) {
                true => wanted.clone(),
                false => format!("{} otherwise", link.name),
            });
            Some(Property::new("link", Some(wanted), now))
        }
        Step::DeleteRoute(route) => {
            Some(gone("route", route.brief(), now.map(|now| now.routes.iter().any(|there| there.is(route)))))
        }
        Step::DeleteRule(rule) => {
            Some(gone("rule", rule.brief(), now.map(|now| now.rules.iter().any(|there| there.is(rule)))))
        }
        _ => None,
    };
    attachment.changes.iter().filter_map(property).collect()
}

impl std::fmt::Display for Shown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        let has_ended = self.state == State::Stopped;
        table.set_header(if has_ended { vec!["", "ON RECORD"] } else { vec!["", "ON RECORD", "NOW", ""] });
        for property in &self.properties {
            let text = |value: &Option<String>| value.clone().unwrap_or_else(|| "-".into());
            let mark = if property.differs { "≠".red().bold().to_string() } else { String::new() };
            let row = [property.name.to_owned(), text(&property.recorded), text(&property.now), mark];
            table.add_row(row.into_iter().take(if has_ended { 2 } else { 4 }));
        }
        write!(f, "{}\n{}", self.title, flush_left(table))?;
        if has_ended {
            f.write_str("\n  the target has ended, and the interface with it; attach it again when it runs")?;
        }
        Ok(())
    }
}
