//! `plumb link`: a link's settings, changed as `ip link set` changes them, and taken back.

use serde_json::{Map, json};

use super::{
    Context,
    changing::{self, Needs, Row},
};
use crate::{
    cli::{Link, LinkVerb},
    error::{Error, Result},
    plan::{Step, changes::set_link, facts::InsideLink},
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

fn show(options: &Link, context: &Context) -> Result<()> {
    if let Some(word) = options.words.first() {
        return Err(Error::usage(format!("show lists all links, so {word:?} has no meaning")));
    }
    changing::show(&options.target, ("LINK", "links"), context, |inside, attached, _| {
        Ok(inside.links.iter().map(|link| row(link, attached)).collect())
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
    let is_changed = |step: &Step| match step {
        Step::SetMtu { index, .. } => *index == link.index,
        Step::SetLink(setting) => setting.index == link.index,
        _ => false,
    };
    let owner = its_own.or_else(|| attached.iter().find(|attachment| attachment.changes.iter().any(is_changed)));
    Row {
        details,
        text: format!("{} {state} mtu {}{mac}{promisc}", link.name, link.mtu),
        goes_with: owner.map(|attachment| attachment.name_now().to_owned()),
    }
}
