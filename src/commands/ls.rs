//! `plumb ls`: what is attached.

use std::path::Path;

use comfy_table::{Table, presets};
use serde::Serialize;

use super::{Context, leases::Leased, namespace, records};
use crate::{
    error::{Kind, Result},
    kernel::Netns,
    output::flush_left,
    plan::{Link, facts::InsideLink},
    store::{Attachment, attachment},
    types::{NetworkName, Place, VlanId},
};

pub fn run(context: &Context) -> Result<()> {
    let kept = attachment::all(&*context.store, None)?;
    let host = host_links(kept.iter().flatten())?;
    let rows = kept.into_iter().map(|kept| kept.map(|attachment| Row::new(&attachment, &host, context))).collect();
    context.output.list("attachments", rows, "nothing is attached", table);
    Ok(())
}

#[derive(Serialize)]
struct Row {
    target: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    container: Option<String>,
    interface: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    network: Option<NetworkName>,
    addresses: Vec<String>,
    gateways: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    parent: Option<String>,
    /// That of a bridge's port.
    #[serde(skip_serializing_if = "Option::is_none")]
    vlan: Option<VlanId>,
    #[serde(skip)]
    on: Option<String>,
    driver: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    mode: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lease: Option<Leased>,
    state: State,
}

/// How an attachment stands at this moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    Up,
    Down,
    /// It is up, but its other end is not, or is no port of its bridge.
    Unplugged,
    /// The interface has gone although its namespace is there.
    Missing,
    /// The target has ended, and its namespace with it.
    Stopped,
    /// A run that is at work, or was killed.
    Unfinished,
    /// Not permitted to look.
    Unknown,
}

impl State {
    pub fn of(attachment: &Attachment) -> State {
        let Some(there) = namespace::reopen(attachment) else { return State::Stopped };
        if attachment.is_unfinished() {
            return State::Unfinished;
        }
        let look = there.look_inside(|kernel| {
            if !namespace::is_same(attachment, &there, kernel) {
                return Ok(State::Stopped);
            }
            let links = kernel.links()?;
            Ok(match links.iter().find(|link| link.tag.as_ref() == Some(&attachment.tag)) {
                Some(link) if link.up => State::Up,
                Some(_) => State::Down,
                None => State::Missing,
            })
        });
        match look {
            Ok(state) => state,
            Err(error) if error.kind == Kind::NotPermitted => State::Unknown,
            Err(_) => State::Stopped,
        }
    }

    /// The same by what the `host` has of it: a veth alone has an end there.
    pub fn on(self, attachment: &Attachment, host: &[InsideLink]) -> State {
        let Some((link, (outside, _))) = attachment.link().and_then(|link| Some((link, link.host_end()?))) else {
            return self;
        };
        let is_bridge =
            |there: &InsideLink| there.index == link.parent.index || there.name == link.parent.name.as_str();
        // Only its own database tells what is a port of Open vSwitch's.
        let is_port = |end: &InsideLink| {
            link.driver.is_open_vswitchs()
                || host.iter().any(|there| end.port_of == Some(there.index) && is_bridge(there))
        };
        let is_plugged = |end: &InsideLink| end.name == outside.as_str() && end.up && is_port(end);
        match self {
            State::Up if !host.iter().any(is_plugged) => State::Unplugged,
            other => other,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            State::Up => "up",
            State::Down => "down",
            State::Unplugged => "unplugged",
            State::Missing => "missing",
            State::Stopped => "stopped",
            State::Unfinished => "unfinished",
            State::Unknown => "unknown",
        }
    }
}

/// The host's links, if one of the attachments has an end there. None where nobody may look: of no attachment it
/// is known then how it stands.
pub fn host_links<'a>(attachments: impl IntoIterator<Item = &'a Attachment>) -> Result<Vec<InsideLink>> {
    if !attachments.into_iter().any(|a| a.link().is_some_and(|link| link.host_end().is_some())) {
        return Ok(Vec::new());
    }
    match Netns::open(Path::new(Place::HOST)).and_then(|host| host.look_inside(|kernel| kernel.links())) {
        Err(error) if error.kind == Kind::NotPermitted => Ok(Vec::new()),
        links => links,
    }
}

impl Row {
    fn new(attachment: &Attachment, host: &[InsideLink], context: &Context) -> Row {
        let link = attachment.link();
        let wish = &attachment.wish;
        Row {
            target: attachment.target.to_string(),
            container: attachment.container.clone(),
            interface: attachment.name_now().to_owned(),
            network: attachment.network.clone(),
            addresses: wish
                .addresses
                .iter()
                .chain(&records::leased_addresses(attachment, context))
                .map(|a| a.to_string())
                .collect(),
            gateways: wish.gateways.iter().filter(|_| !wish.keep_default).map(|gateway| gateway.to_string()).collect(),
            parent: link.and_then(|link| link.parent.interface()).map(|name| name.to_string()),
            vlan: wish.driver.vlan(),
            on: link.and_then(Link::on),
            driver: wish.driver.kind(),
            mode: wish.driver.mode(),
            lease: Leased::of(attachment, &*context.store),
            state: State::of(attachment).on(attachment, host),
        }
    }
}

fn table(rows: &[Row]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    // Who has no networks is not shown an empty column.
    let networks = rows.iter().any(|row| row.network.is_some());
    let header = ["TARGET", "INTERFACE", "NETWORK", "ADDRESS", "GATEWAY", "PARENT", "DRIVER", "STATE"];
    table.set_header(header.into_iter().filter(|name| networks || *name != "NETWORK"));
    for row in rows {
        let text = |list: &[String]| if list.is_empty() { "-".to_owned() } else { list.join("\n") };
        let network = row.network.as_ref().map_or("-".to_owned(), |name| name.to_string());
        let cells = [
            Some(row.target.clone()),
            Some(row.interface.clone()),
            Some(network).filter(|_| networks),
            Some(match &row.lease {
                None => text(&row.addresses),
                Some(lease) => format!("{} ({})", text(&row.addresses), lease.state),
            }),
            Some(text(&row.gateways)),
            Some(row.on.clone().unwrap_or_else(|| "-".into())),
            Some(row.mode.map_or(row.driver.to_owned(), |mode| format!("{} {mode}", row.driver))),
            Some(row.state.name().to_owned()),
        ];
        table.add_row(cells.into_iter().flatten());
    }
    flush_left(table)
}
