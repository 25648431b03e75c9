//! `plumb link`: a link's settings, changed as `ip link set` changes them, and taken back.

use serde_json::{Map, json};

use super::{
    Context,
    changing::{self, Needs, Row},
};
use crate::{
    cli::{Link, LinkVerb},
    error::{Error, Result},
    plan::{
        Step,
        changes::{Touches, no_link, set_link},
        facts::InsideLink,
    },
    store::Attachment,
    types::{LinkWords, Mac},
};

pub fn run(options: Link, context: &Context) -> Result<()> {
    if options.verb == LinkVerb::Show {
        return show(&options, context);
    }
    let words = LinkWords::parse(&options.words)?;
    let needs = Needs { parents_mtu: words.mtu.is_some(), bound: words.name.is_some() };
    changing::run(&options.target, &options.how, needs, context, |present| set_link(&words, present))
}

/// All, or one, by either of the names that plumb knows it by.
fn show(options: &Link, context: &Context) -> Result<()> {
    let wanted = match options.words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => None,
        [name] | ["dev", name] => Some(name),
        _ => return Err(Error::usage("show lists all links, or the one whose name is behind it")),
    };
    changing::show(&options.target, ("LINK", "links"), context, |inside, attached, _| {
        let Some(name) = wanted else { return Ok(inside.links.iter().map(|link| row(link, attached)).collect()) };
        let renamed = || inside.link_tagged(&attached.iter().find(|attachment| attachment.is_called(name))?.tag);
        let found = inside.link_named(name).or_else(renamed);
        let found = found.ok_or_else(|| no_link(&options.target.to_string(), name, inside))?;
        Ok(vec![row(found, attached)])
    })
}

fn row(link: &InsideLink, attached: &[Attachment]) -> Row {
    let mac = link.mac.and_then(|bytes| Mac::try_from(bytes).ok());
    let state = if link.up { "up" } else { "down" };
    let details = json!({ "name": link.name, "up": link.up, "mtu": link.mtu, "mac": mac, "promisc": link.promisc });
    let details = if let serde_json::Value::Object(details) = details { details } else { Map::new() };
    let mac = mac.map_or(String::new(), |mac| format!(" mac {mac}"));
    let promisc = if link.promisc { " promisc on" } else { "" };
    let its_own = attached.iter().find(|attachment| link.tag.as_ref() == Some(&attachment.tag));
    let is_changed = |step: &Step| matches!(step.touches(), Touches::Link(index) if index == link.index);
    let owner = its_own.or_else(|| attached.iter().find(|attachment| attachment.changes.iter().any(is_changed)));
    Row {
        details,
        text: format!("{} {state} mtu {}{mac}{promisc}", link.name, link.mtu),
        goes_with: owner.map(|attachment| attachment.name_now().to_owned()),
    }
}
