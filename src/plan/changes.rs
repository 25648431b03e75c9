//! Changes to what a target has: routes, rules, settings of links. From words and facts to steps, and to
//! the attachment that takes them back when it goes.

use std::net::IpAddr;

use super::{
    Inside, Link, LinkAddress, Route, Rule, Setting, Step,
    facts::{InsideAddress, InsideLink},
    rule::free_priority,
    setting::Change,
};
use crate::{
    error::{Error, Result},
    types::{IfName, LinkWords, Mac, Mtu, RouteWords, RuleWords, nearest, table_name},
};

/// All that a change depends on.
#[derive(Debug, Clone)]
pub struct Present {
    /// The target as messages name it.
    pub target: String,
    pub inside: Inside,
    /// What plumb attached, oldest first.
    pub attached: Vec<Attached>,
    /// What it had attached before a restart.
    pub gone: Vec<Gone>,
    pub with: With,
}

/// An interface that a restart has taken along.
#[derive(Debug, Clone)]
pub struct Gone {
    /// As it was made.
    pub name: String,
    /// As it was called last.
    pub renamed: String,
    /// The command that attaches it again, in outline.
    pub again: String,
}

/// That the target has no such interface, and which it has.
pub fn no_link(target: &str, name: &str, inside: &Inside) -> Error {
    let names: Vec<&str> = inside.links.iter().map(|link| link.name.as_str()).collect();
    let there = format!("it has {}", names.join(", "));
    Error::not_found(format!("{target} has no interface {name}")).hint(match nearest(name, names.iter().copied()) {
        Some(near) => format!("did you mean {near}? {there}"),
        None => there,
    })
}

/// What is to be said of it, if anything has gone so.
pub fn after_a_restart(target: &str, gone: &[Gone]) -> Option<Error> {
    let names: Vec<&str> = gone.iter().map(|gone| gone.renamed.as_str()).collect();
    let (has, it) = if names.len() == 1 { ("has", "it") } else { ("have", "them") };
    let again: Vec<&str> = gone.iter().map(|gone| gone.again.as_str()).collect();
    (!gone.is_empty()).then(|| {
        Error::not_found(format!("{target} was restarted, and {} {has} gone with that", names.join(", ")))
            .hint(format!("attach {it} again, as before: {}", again.join("; ")))
    })
}

/// An interface that plumb attached, as far as a change depends on it.
#[derive(Debug, Clone)]
pub struct Attached {
    /// As it was made.
    pub link: Link,
    /// Its index and name now.
    pub index: u32,
    pub name: String,
    /// What was done for it, the changes since then included.
    pub steps: Vec<Step>,
    /// Its address comes from a server, which knows it by its MAC address.
    pub leased: bool,
    /// What is bound to its name, such as its limits, and what to do about it.
    pub bound: Option<(&'static str, String)>,
    /// The MTU of the interface it hangs on, where that limits its own and was asked for.
    pub most: Option<Mtu>,
}

/// With which attachment a change goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum With {
    /// The one that it has to do with.
    Natural,
    Named(IfName),
    /// None: it is on no record.
    Unrecorded,
}

/// A change that is planned.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Planned {
    /// None, where all is as it shall be.
    pub steps: Vec<Step>,
    /// What is remembered of them.
    pub kept: Vec<Step>,
    /// The attachment that takes it back, by its place in the list.
    pub owner: Option<usize>,
    /// What is true then.
    pub said: Vec<String>,
    pub warnings: Vec<String>,
}

/// What a change has to do with.
enum Concerns<'a> {
    Attached(usize),
    /// An interface, by its name.
    Interface(&'a str),
    /// None in particular.
    Nothing,
}

impl Present {
    /// Nothing that goes with an attachment can be changed before there is one again.
    pub fn refuse_after_a_restart(&self) -> Result<()> {
        let can_be = !self.attached.is_empty() || self.with == With::Unrecorded;
        if can_be { Ok(()) } else { after_a_restart(&self.target, &self.gone).map_or(Ok(()), Err) }
    }

    /// The same of one interface.
    fn has_gone(&self, name: &IfName) -> Option<Error> {
        let is_it = |gone: &&Gone| gone.name == name.as_str() || gone.renamed == name.as_str();
        let gone: Vec<Gone> = self.gone.iter().filter(is_it).cloned().collect();
        after_a_restart(&self.target, &gone)
    }

    /// The attachment that a change goes with.
    fn owner(&self, concerns: Concerns<'_>, what: &str) -> Result<Option<usize>> {
        let named = |name: &str| {
            let now = self.attached.iter().position(|attached| attached.name == name);
            now.or_else(|| self.attached.iter().position(|attached| attached.link.name.as_str() == name))
        };
        match (&self.with, concerns) {
            (With::Unrecorded, _) => Ok(None),
            (With::Named(name), _) => named(name.as_str()).map(Some).ok_or_else(|| {
                let not_ours = || Error::not_found(format!("{}: {name} is none of plumb's interfaces", self.target));
                self.has_gone(name).unwrap_or_else(|| {
                    not_ours().hint(match self.names() {
                        Some(names) => format!("plumb attached {names}"),
                        None => "nothing is attached; --unrecorded changes it without a record".into(),
                    })
                })
            }),
            (With::Natural, Concerns::Attached(at)) => Ok(Some(at)),
            (With::Natural, Concerns::Interface(name)) => match named(name) {
                Some(at) => Ok(Some(at)),
                None => Err(self.not_ours(&format!("{name} is not plumb's"), what)),
            },
            (With::Natural, Concerns::Nothing) => match self.attached.len().checked_sub(1) {
                Some(newest) => Ok(Some(newest)),
                None => Err(self.not_ours("nothing of plumb's is attached", what)),
            },
        }
    }

    fn not_ours(&self, why: &str, what: &str) -> Error {
        let error = Error::not_found(format!("{}: {why}, so nothing would take {what} back", self.target));
        error.hint(match self.attached.last() {
            Some(newest) => format!(
                "--with {} lets the detach of that one take it back; --unrecorded changes it without a record",
                newest.name
            ),
            None => "--unrecorded changes it without a record".into(),
        })
    }

    /// "eth1, eth2"
    fn names(&self) -> Option<String> {
        let names: Vec<&str> = self.attached.iter().map(|attached| attached.name.as_str()).collect();
        (!names.is_empty()).then(|| names.join(", "))
    }

    /// The interface that is called so, or was when plumb made it.
    fn link_called(&self, name: &IfName) -> Option<&InsideLink> {
        let renamed = || {
            let attached = self.attached.iter().find(|attached| attached.link.name == *name)?;
            self.inside.links.iter().find(|link| link.index == attached.index)
        };
        self.inside.link_named(name.as_str()).or_else(renamed)
    }

    fn link_named(&self, name: &IfName) -> Result<&InsideLink> {
        self.link_called(name).ok_or_else(|| {
            if let Some(gone) = self.has_gone(name) {
                return gone;
            }
            no_link(&self.target, name.as_str(), &self.inside)
        })
    }

    fn at(&self, index: u32) -> Option<usize> {
        self.attached.iter().position(|attached| attached.index == index)
    }

    /// What a route has to do with: the interface that it leaves by.
    fn of_route(&self, route: &Route) -> Concerns<'_> {
        match route.leaves_by().and_then(|index| self.inside.name_of(index)).filter(|name| *name != "lo") {
            Some(name) => Concerns::Interface(name),
            None => Concerns::Nothing,
        }
    }

    /// The interface of a rule, or else that by which all routes of its table leave.
    fn of_rule(&self, rule: &Rule) -> Concerns<'_> {
        let indexes = |name: &str| self.inside.link_named(name).map(|link| link.index);
        let named = rule.interfaces().into_iter().filter_map(indexes).find_map(|index| self.at(index));
        let by_table = || {
            let in_it = self
                .inside
                .routes
                .iter()
                .filter(|route| route.is_ipv6() == rule.is_ipv6() && Some(route.table()) == rule.table());
            let mut ways: Vec<Option<usize>> = in_it.map(|route| self.at(route.leaves_by()?)).collect();
            ways.dedup();
            if let [Some(only)] = ways[..] { Some(only) } else { None }
        };
        named.or_else(by_table).map_or(Concerns::Nothing, Concerns::Attached)
    }

    /// The words of a rule, with its interfaces by the names that they have now.
    fn named_now(&self, words: &RuleWords) -> RuleWords {
        let now = |name: &Option<IfName>| {
            let link = self.link_called(name.as_ref()?).and_then(|link| link.name.parse().ok());
            link.or_else(|| name.clone())
        };
        RuleWords { iif: now(&words.iif), oif: now(&words.oif), ..words.clone() }
    }

    /// The attachment on whose record something is.
    fn on_record(&self, is_it: impl Fn(&Step) -> bool) -> Option<usize> {
        self.attached.iter().position(|attached| attached.steps.iter().any(&is_it))
    }
}

/// What a step does that `route`, `rule` or `link` may have asked for.
pub enum Touches<'a> {
    /// A route goes, or comes, or both: one for another.
    Route {
        gone: Option<&'a Route>,
        new: Option<&'a Route>,
    },
    Rule {
        gone: Option<&'a Rule>,
        new: Option<&'a Rule>,
    },
    /// A setting of the link with this index.
    Link(u32),
    /// What comes and goes with an attachment, or with limits.
    Other,
}

impl Step {
    /// Names each step: one that is new has to say what it is about.
    pub fn touches(&self) -> Touches<'_> {
        match self {
            Step::AddRoute(new) | Step::AppendRoute(new) => Touches::Route { gone: None, new: Some(new) },
            Step::DeleteRoute(gone) | Step::DeleteAppended(gone) => Touches::Route { gone: Some(gone), new: None },
            Step::ReplaceRoute { old, new } => Touches::Route { gone: Some(old), new: Some(new) },
            Step::AddRule(new) => Touches::Rule { gone: None, new: Some(new) },
            Step::DeleteRule(gone) => Touches::Rule { gone: Some(gone), new: None },
            Step::SetMtu { index, .. } | Step::SetLink(Setting { index, .. }) => Touches::Link(*index),
            Step::AddLink(_) | Step::DeleteLink(_) | Step::AddTag(_) | Step::DeleteTag(_) => Touches::Other,
            Step::AddAddress(_) | Step::DeleteAddress(_) => Touches::Other,
            Step::SetSysctl { .. } | Step::SetSegments { .. } | Step::SetResolver { .. } => Touches::Other,
            Step::AddMasquerade(_) | Step::DeleteMasquerade(_) => Touches::Other,
            Step::AddPort(_) | Step::DeletePort(_) => Touches::Other,
            Step::AddIfb(_) | Step::DeleteIfb(_) | Step::AddRedirect(_) | Step::DeleteRedirect(_) => Touches::Other,
            Step::AddQdisc(_) | Step::DeleteQdisc(_) | Step::ReplaceQdisc { .. } => Touches::Other,
        }
    }

    fn brings_route(&self, route: &Route) -> bool {
        matches!(self.touches(), Touches::Route { new: Some(new), .. } if new.is(route))
    }

    fn brings_rule(&self, rule: &Rule) -> bool {
        matches!(self.touches(), Touches::Rule { new: Some(new), .. } if new.is(rule))
    }
}

/// What becomes of a route that is in a new one's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// There must be none.
    Add,
    Replace,
    /// The new one comes behind it.
    Append,
}

/// `plumb route TARGET add`, `replace` and `append`.
pub fn set_route(words: &RouteWords, how: How, present: &Present) -> Result<Planned> {
    let device = way(words, present)?;
    if let Some(src) = words.src.filter(|src| present.inside.holder_of(*src).is_none()) {
        return Err(Error::failed(format!("src {src} is no address of {}", present.target)).hint(sources(src, present)));
    }
    let route = Route::of_words(words, device);
    let in_place = || present.inside.routes.iter().filter(|there| there.competes_with(&route));
    let there = match how {
        How::Append => in_place().find(|there| there.is(&route)).or_else(|| in_place().next_back()),
        How::Add | How::Replace => in_place().next(),
    };
    let owner = present.owner(present.of_route(&route), "the route")?;
    let (step, done) = match there {
        None => (Step::AddRoute(route.clone()), "added".to_owned()),
        Some(there) if how == How::Append && !there.is(&route) => {
            (append(&route, there)?, format!("added behind that by {}", there.way()))
        }
        Some(there) if how != How::Replace => {
            let target = &present.target;
            return Err(Error::conflict(format!("{target} has a route {} by {} already", words.name(), there.way()))
                .hint(format!(
                    "plumb route {target} replace … puts another in its place; with another metric both can be"
                )));
        }
        Some(there) if there.says_what(&route) => {
            return Ok(Planned {
                owner,
                said: vec![format!("route {} is there already", route.brief())],
                ..Planned::default()
            });
        }
        Some(there) => {
            let step = Step::ReplaceRoute { old: there.clone(), new: route.clone() };
            (step, format!("set (before: by {})", there.way()))
        }
    };
    Ok(Planned::one(step, owner, format!("route {} {done}", route.brief())))
}

/// The addresses that there are instead of `src`.
fn sources(src: IpAddr, present: &Present) -> String {
    let is_one = |there: &&InsideAddress| {
        there.ip.is_ipv6() == src.is_ipv6() && !there.ip.is_loopback() && !is_link_local(there.ip)
    };
    let there: Vec<String> = present.inside.addresses.iter().filter(is_one).map(|there| there.ip.to_string()).collect();
    match there.is_empty() {
        true => format!("it has none of IPv{}", if src.is_ipv6() { 6 } else { 4 }),
        false => format!("it has {}", there.join(", ")),
    }
}

/// Behind `there`, in the same place.
fn append(route: &Route, there: &Route) -> Result<Step> {
    if route.is_ipv6() {
        // The kernel would make one route with several next hops of both.
        return Err(Error::conflict(format!("of IPv6 a place has one route, and this one's is by {}", there.way()))
            .hint("give another metric, or replace it"));
    }
    Ok(Step::AppendRoute(route.clone()))
}

/// `plumb route TARGET del`: the first that is so, as the kernel itself takes it.
pub fn delete_route(words: &RouteWords, present: &Present) -> Result<Planned> {
    let index = words.dev.as_ref().map(|name| present.link_named(name)).transpose()?.map(|link| link.index);
    let mut found: Vec<&Route> = present.inside.routes.iter().filter(|route| route.answers(words, index)).collect();
    found.sort_by_key(|route| route.metric());
    let Some(route) = found.first().copied() else {
        let name = words.name();
        return Err(Error::not_found(format!("{} has no such route to {name}", present.target)).hint(format!(
            "plumb route {} show table {} lists those there",
            present.target,
            table_name(words.table())
        )));
    };
    let concerns =
        present.on_record(|step| step.brings_route(route)).map_or_else(|| present.of_route(route), Concerns::Attached);
    let owner = present.owner(concerns, "its deletion")?;
    let mut planned = Planned::one(Step::DeleteRoute(route.clone()), owner, format!("route {} deleted", route.brief()));
    if let Some(other) = found.get(1) {
        planned.warnings.push(format!("there is another route to {}: {}", words.name(), other.brief()));
    }
    Ok(planned)
}

/// The interface that a route leaves by: what is said, or where its router is reached.
fn way<'a>(words: &RouteWords, present: &'a Present) -> Result<Option<(u32, &'a str)>> {
    if !words.kind.has_a_way() {
        // An IPv6 route that leads nowhere is the loopback's.
        let lo = present.inside.link_named("lo").filter(|_| words.destination.is_ipv6());
        return Ok(lo.map(|lo| (lo.index, lo.name.as_str())));
    }
    let link = match (&words.dev, words.via) {
        (Some(name), _) => present.link_named(name)?,
        (None, Some(via)) => leads_to(via, present).ok_or_else(|| unreached(via, None, present))?,
        (None, None) => {
            return Err(Error::usage(format!("route {} has no way: neither a router nor an interface", words.name()))
                .hint("via 192.168.0.1, dev eth1, or both"));
        }
    };
    if let Some(via) = words.via.filter(|_| words.dev.is_some() && !words.onlink)
        && !is_link_local(via)
        && !on_link(via, present).any(|route| route.leaves_by() == Some(link.index))
    {
        return Err(unreached(via, Some(&link.name), present));
    }
    if !link.up {
        return Err(Error::failed(format!("{} is down, and has no routes until it is up", link.name))
            .hint(format!("plumb link {} set {} up", present.target, link.name)));
    }
    Ok(Some((link.index, &link.name)))
}

/// The routes that lead to `ip` without a router, the best first.
fn on_link(ip: IpAddr, present: &Present) -> impl Iterator<Item = &Route> {
    let leads = |route: &&Route| {
        route.table() == 254
            && route.gateways().is_empty()
            && route.leaves_by().is_some()
            && route.destination().is_some_and(|network| network.contains(ip))
    };
    let mut found: Vec<&Route> = present.inside.routes.iter().filter(leads).collect();
    found.sort_by_key(|route| {
        (std::cmp::Reverse(route.destination().map_or(0, |network| network.prefix())), route.metric())
    });
    found.into_iter()
}

fn leads_to(via: IpAddr, present: &Present) -> Option<&InsideLink> {
    if is_link_local(via) {
        return None;
    }
    let index = on_link(via, present).next()?.leaves_by()?;
    present.inside.links.iter().find(|link| link.index == index)
}

fn unreached(via: IpAddr, device: Option<&str>, present: &Present) -> Error {
    let target = &present.target;
    match device {
        _ if is_link_local(via) => {
            Error::failed(format!("{via} may be on any link of {target}")).hint("say which: dev eth1")
        }
        Some(device) => Error::failed(format!("{via} is not in a subnet of {device}"))
            .hint("check the address; if the router really is there, add onlink"),
        None => Error::failed(format!("{via} is in no subnet of {target}"))
            .hint("check the address; if the router really is on a link, add dev IFNAME onlink"),
    }
}

fn is_link_local(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local())
}

/// `plumb rule TARGET add`.
pub fn add_rule(words: &RuleWords, present: &Present) -> Result<Planned> {
    if words.is_empty() {
        return Err(Error::usage("which rule? nothing is said of it").hint("from 192.168.0.0/24 table 100"));
    }
    let words = &present.named_now(words);
    let rule = Rule::new(words, free_priority(&present.inside.rules, words.ipv6));
    let says_the_same = |there: &&Rule| there.says_what(&Rule::new(words, there.priority()));
    if let Some(there) = present.inside.rules.iter().find(says_the_same) {
        return Err(Error::conflict(format!("{} has the rule {} already", present.target, there.brief())));
    }
    let owner = present.owner(present.of_rule(&rule), "the rule")?;
    let said = format!("rule {} added", rule.brief());
    Ok(Planned::one(Step::AddRule(rule), owner, said))
}

/// `plumb rule TARGET del`: the first that is so, as the kernel itself takes it.
pub fn delete_rule(words: &RuleWords, present: &Present) -> Result<Planned> {
    if words.is_empty() {
        let target = &present.target;
        return Err(Error::usage("which rule? nothing is said of it")
            .hint(format!("such as plumb rule {target} del priority 100; plumb rule {target} lists them")));
    }
    let words = &present.named_now(words);
    let found: Vec<&Rule> = present.inside.rules.iter().filter(|rule| rule.answers(words)).collect();
    let Some(rule) = found.first().copied() else {
        return Err(Error::not_found(format!("{} has no such rule", present.target))
            .hint(format!("plumb rule {} show lists them", present.target)));
    };
    let concerns =
        present.on_record(|step| step.brings_rule(rule)).map_or_else(|| present.of_rule(rule), Concerns::Attached);
    let owner = present.owner(concerns, "its deletion")?;
    let mut planned = Planned::one(Step::DeleteRule(rule.clone()), owner, format!("rule {} deleted", rule.brief()));
    if let Some(other) = found.get(1) {
        planned.warnings.push(format!("another rule is as described: {}", other.brief()));
    }
    Ok(planned)
}

/// `plumb link TARGET set`.
pub fn set_link(words: &LinkWords, present: &Present) -> Result<Planned> {
    let name = match (&words.interface, &present.attached[..]) {
        (Some(name), _) => name.clone(),
        (None, [only]) => only.name.parse().map_err(Error::failed)?,
        (None, _) => {
            return Err(Error::usage("which interface? its name is missing").hint(
                present.names().map_or("nothing is attached".into(), |names| format!("plumb attached {names}")),
            ));
        }
    };
    let link = present.link_named(&name)?;
    let name: IfName = link.name.parse().map_err(Error::failed)?;
    let attached = present.at(link.index).map(|at| &present.attached[at]);
    let owner = present.owner(Concerns::Interface(&link.name), "the change")?;
    if let Some(at) = owner.filter(|at| words.up == Some(false) && Some(*at) != present.at(link.index)) {
        let with = &present.attached[at].name;
        return Err(Error::failed(format!(
            "{name} loses its routes when it goes down, and the detach of {with} would not bring them back"
        ))
        .hint("--unrecorded takes it down without a record"));
    }
    let mut work = OfLink { link, name, attached, present, planned: Planned { owner, ..Planned::default() } };
    // Down first and up last: what needs a link that is down finds it so. A new name is for all that follows.
    if words.up == Some(false) {
        work.down();
    }
    work.mac(words.mac)?;
    work.mtu(words.mtu)?;
    work.promisc(words.promisc);
    if words.up == Some(true) {
        work.up();
    }
    work.rename(words.name.as_ref())?;
    Ok(work.planned)
}

struct OfLink<'a> {
    link: &'a InsideLink,
    name: IfName,
    attached: Option<&'a Attached>,
    present: &'a Present,
    planned: Planned,
}

impl OfLink<'_> {
    /// A step that is remembered, and what to say of it.
    fn step(&mut self, step: Step, said: String) {
        self.planned.kept.push(step.clone());
        self.planned.steps.push(step);
        self.planned.said.push(format!("{} {said}", self.name));
    }

    fn set(&mut self, change: Change, said: String) {
        let setting = Setting { index: self.link.index, name: self.name.clone(), change };
        if setting.holds(self.link) {
            return self.planned.said.push(format!("{} {said} already", self.name));
        }
        self.step(Step::SetLink(setting), said);
    }

    fn mac(&mut self, mac: Option<Mac>) -> Result<()> {
        let Some(to) = mac else { return Ok(()) };
        if let Some(attached) = self.attached {
            let driver = &attached.link.driver;
            if driver.has_no_mac_of_its_own() {
                return Err(Error::failed(format!("{} has its parent's MAC address ({driver})", self.name))
                    .hint(format!("ip link set {} address {to} changes the parent's", attached.link.parent.name)));
            }
            if attached.leased {
                return Err(Error::failed(format!(
                    "the address of {} is leased to its MAC address, and to another it is not",
                    self.name
                ))
                .hint(format!("detach it, and attach it with plumb dhcp {} --mac {to}", self.present.target)));
            }
        }
        let Some(from) = self.link.mac.and_then(|bytes| Mac::try_from(bytes).ok()) else {
            return Err(Error::failed(format!("{} has no MAC address to change", self.name)));
        };
        self.set(Change::Mac { from, to }, format!("has MAC {to} (before: {from})"));
        Ok(())
    }

    fn mtu(&mut self, mtu: Option<Mtu>) -> Result<()> {
        let Some(to) = mtu else { return Ok(()) };
        if let Some((attached, most)) = self.attached.and_then(|a| Some((a, a.most?))).filter(|(_, most)| to > *most) {
            let parent = &attached.link.parent.name;
            return Err(Error::failed(format!("MTU {to} is above that of {parent}, which is {most}"))
                .hint(format!("give {most} or less, or raise the parent's: ip link set {parent} mtu {to}")));
        }
        let ipv6 = |address: &InsideAddress| {
            address.index == self.link.index && address.ip.is_ipv6() && !is_link_local(address.ip)
        };
        if to.bytes() < Mtu::LEAST_IPV6 && self.present.inside.addresses.iter().any(ipv6) {
            return Err(Error::failed(format!(
                "MTU {to} is too small for IPv6, which needs {} bytes (RFC 8200), and {} has IPv6 addresses",
                Mtu::LEAST_IPV6,
                self.name
            ))
            .hint(format!("give {} or more", Mtu::LEAST_IPV6)));
        }
        let from = Mtu::try_from(self.link.mtu).map_err(Error::failed)?;
        if from == to {
            self.planned.said.push(format!("{} has MTU {to} already", self.name));
            return Ok(());
        }
        let step = Step::SetMtu { index: self.link.index, name: self.name.clone(), from, to };
        self.step(step, format!("has MTU {to} (before: {from})"));
        Ok(())
    }

    fn promisc(&mut self, on: Option<bool>) {
        let Some(on) = on else { return };
        let which = if on { "takes all packets (promisc on)" } else { "takes its own packets (promisc off)" };
        self.set(Change::Promisc(on), which.to_owned());
    }

    /// A link that goes down loses its routes and its IPv6 addresses. Each goes by a step of its own, so that
    /// it is back if what follows fails; remembered is only that the link is down.
    fn down(&mut self) {
        let index = self.link.index;
        if self.link.up {
            let routes: Vec<Route> = self.lost_routes().cloned().collect();
            let addresses: Vec<LinkAddress> = self.addresses().filter(|address| self.has(address)).collect();
            // The last first, so that those of one place are back in their order.
            self.planned.steps.extend(routes.iter().enumerate().rev().map(|(at, route)| {
                let is_first = !routes[..at].iter().any(|earlier| earlier.competes_with(route));
                if is_first { Step::DeleteRoute(route.clone()) } else { Step::DeleteAppended(route.clone()) }
            }));
            self.planned.steps.extend(addresses.iter().cloned().map(Step::DeleteAddress));
            let known = self.attached.map(|attached| expected_routes(&attached.steps)).unwrap_or_default();
            for route in routes.iter().filter(|route| !known.iter().any(|known| known.is(route))) {
                self.planned.warnings.push(format!(
                    "route {} is on no record of {}: up does not put it back",
                    route.brief(),
                    self.name
                ));
            }
            let is_lost = |there: &&InsideAddress| {
                let by_us = addresses.iter().any(|address| address.address.ip() == there.ip);
                there.index == index && there.ip.is_ipv6() && !is_link_local(there.ip) && !by_us
            };
            for there in self.present.inside.addresses.iter().filter(is_lost) {
                self.planned
                    .warnings
                    .push(format!("{} is on no record of {}: up does not put it back", there.ip, self.name));
            }
        }
        self.set(Change::Up(false), "is down".into());
    }

    fn up(&mut self) {
        let was_down = !self.link.up;
        self.set(Change::Up(true), "is up".into());
        let Some(attached) = self.attached.filter(|_| was_down) else { return };
        let missing = self.addresses().filter(|address| !self.has(address));
        let mut back: Vec<(Step, String)> = missing
            .map(|address| {
                let said = address.address.to_string();
                (Step::AddAddress(address), said)
            })
            .collect();
        for route in expected_routes(&attached.steps) {
            if route.leaves_by() != Some(attached.index) {
                continue;
            }
            let route = route.called(attached.index, self.name.as_str());
            match self.present.inside.routes.iter().find(|there| there.competes_with(&route)) {
                None => {
                    let is_first = |(step, _): &(Step, String)| matches!(step, Step::AddRoute(first) if first.competes_with(&route));
                    let (said, is_second) = (format!("route {}", route.brief()), back.iter().any(is_first));
                    back.push((if is_second { Step::AppendRoute(route) } else { Step::AddRoute(route) }, said));
                }
                Some(there) if there.is(&route) => {}
                Some(there) => {
                    let text =
                        format!("route {} is not put back: another is in its place, by {}", route.brief(), there.way());
                    self.planned.warnings.push(text);
                }
            }
        }
        let (steps, said): (Vec<_>, Vec<_>) = back.into_iter().unzip();
        self.planned.said.extend(said.iter().map(|said| format!("  {said} is back")));
        self.planned.steps.extend(steps);
    }

    fn rename(&mut self, to: Option<&IfName>) -> Result<()> {
        let Some(to) = to else { return Ok(()) };
        let (name, target) = (&self.name, &self.present.target);
        if let Some(other) = self.present.inside.link_named(to.as_str()).filter(|other| other.index != self.link.index)
        {
            return Err(Error::conflict(format!("{target} already has {}", other.name)).hint("choose another name"));
        }
        let on_record = |other: &&Attached| other.index != self.link.index && other.link.name == *to;
        if let Some(other) = self.present.attached.iter().find(on_record) {
            return Err(Error::conflict(format!("{to} is on record for {}, which was called so", other.name))
                .hint("choose another name"));
        }
        if let Some(rule) = self.present.inside.rules.iter().find(|rule| rule.interfaces().contains(&name.as_str())) {
            return Err(Error::conflict(format!("a rule is bound to the name {name}: {}", rule.brief()))
                .hint(format!("plumb rule {target} del priority {}, and add it anew afterwards", rule.priority())));
        }
        if let Some((what, hint)) = self.attached.and_then(|attached| attached.bound.as_ref()) {
            return Err(Error::conflict(format!("{what} bound to the name {name}")).hint(hint));
        }
        self.set(Change::Name(to.clone()), format!("is called {to}"));
        Ok(())
    }

    /// The routes that the kernel forgets of a link that goes down, and does not make anew by itself.
    fn lost_routes(&self) -> impl Iterator<Item = &Route> {
        let index = self.link.index;
        self.present.inside.routes.iter().filter(move |route| route.leaves_by() == Some(index) && !route.is_automatic())
    }

    /// Its IPv6 addresses that are on record.
    fn addresses(&self) -> impl Iterator<Item = LinkAddress> {
        let steps = self.attached.iter().flat_map(|attached| &attached.steps);
        steps.filter_map(|step| match step {
            Step::AddAddress(address) if address.index == self.link.index && address.address.is_ipv6() => {
                Some(LinkAddress { name: self.name.clone(), ..address.clone() })
            }
            _ => None,
        })
    }

    fn has(&self, address: &LinkAddress) -> bool {
        let is_it = |there: &InsideAddress| there.index == address.index && there.ip == address.address.ip();
        self.present.inside.addresses.iter().any(is_it)
    }
}

impl Planned {
    fn one(step: Step, owner: Option<usize>, said: String) -> Planned {
        Planned { steps: vec![step.clone()], kept: vec![step], owner, said: vec![said], warnings: Vec::new() }
    }
}

/// The routes that are there when all of `steps` were done and nobody else did anything.
pub fn expected_routes<'a>(steps: impl IntoIterator<Item = &'a Step>) -> Vec<Route> {
    let mut routes: Vec<Route> = Vec::new();
    for step in steps {
        if let Touches::Route { gone, new } = step.touches() {
            routes.retain(|route| !gone.is_some_and(|gone| gone.is(route)));
            routes.extend(new.cloned());
        }
    }
    routes
}

/// The rules that are there then.
pub fn expected_rules<'a>(steps: impl IntoIterator<Item = &'a Step>) -> Vec<Rule> {
    let mut rules: Vec<Rule> = Vec::new();
    for step in steps {
        if let Touches::Rule { gone, new } = step.touches() {
            rules.retain(|rule| !gone.is_some_and(|gone| gone.is(rule)));
            rules.extend(new.cloned());
        }
    }
    rules
}

/// Adds a change to those that are remembered. What comes to nothing together is forgotten, so that who adds
/// and deletes a route every minute does not make a record grow.
pub fn remember(changes: &mut Vec<Step>, step: &Step) {
    let joins = changes.iter().enumerate().rev().find_map(|(at, earlier)| Some((at, join(earlier, step)?)));
    match joins {
        None => changes.push(step.clone()),
        Some((at, None)) => drop(changes.remove(at)),
        Some((at, Some(joined))) => changes[at] = joined,
    }
}

/// Two changes as one: `None` if they have nothing to do with one another, `Some(None)` if they come to nothing.
fn join(earlier: &Step, step: &Step) -> Option<Option<Step>> {
    match step {
        Step::AddRoute(new) => {
            let Step::DeleteRoute(gone) = earlier else { return None };
            gone.competes_with(new).then(|| one_for_another(gone, new))
        }
        Step::DeleteRoute(gone) => {
            if let Step::ReplaceRoute { old, new } = earlier {
                return new.is(gone).then(|| Some(Step::DeleteRoute(old.clone())));
            }
            let (Step::AddRoute(added) | Step::AppendRoute(added)) = earlier else { return None };
            added.is(gone).then_some(None)
        }
        Step::ReplaceRoute { old: gone, new } => {
            if let Step::AddRoute(added) = earlier {
                return added.is(gone).then(|| Some(Step::AddRoute(new.clone())));
            }
            let Step::ReplaceRoute { old, new: between } = earlier else { return None };
            between.is(gone).then(|| one_for_another(old, new))
        }
        Step::AddRule(rule) => matches!(earlier, Step::DeleteRule(gone) if gone.is(rule)).then_some(None),
        Step::DeleteRule(rule) => matches!(earlier, Step::AddRule(added) if added.is(rule)).then_some(None),
        Step::SetMtu { index, to, .. } => {
            let Step::SetMtu { index: of, name, from, .. } = earlier else { return None };
            let (name, from, to) = (name.clone(), *from, *to);
            (of == index).then(|| (from != to).then_some(Step::SetMtu { index: *index, name, from, to }))
        }
        Step::SetLink(then) => {
            let Step::SetLink(first) = earlier else { return None };
            first.is_of_the_kind_of(then).then(|| first.then(then).map(Step::SetLink))
        }
        // One behind another stays so.
        Step::AppendRoute(_) | Step::DeleteAppended(_) => None,
        // Nothing that is remembered.
        Step::AddLink(_) | Step::DeleteLink(_) | Step::AddTag(_) | Step::DeleteTag(_) => None,
        Step::AddAddress(_) | Step::DeleteAddress(_) => None,
        Step::SetSysctl { .. } | Step::SetSegments { .. } | Step::SetResolver { .. } => None,
        Step::AddMasquerade(_) | Step::DeleteMasquerade(_) | Step::AddPort(_) | Step::DeletePort(_) => None,
        Step::AddIfb(_) | Step::DeleteIfb(_) | Step::AddRedirect(_) | Step::DeleteRedirect(_) => None,
        Step::AddQdisc(_) | Step::DeleteQdisc(_) | Step::ReplaceQdisc { .. } => None,
    }
}

/// None where it is the same again.
fn one_for_another(old: &Route, new: &Route) -> Option<Step> {
    (!old.says_what(new)).then(|| Step::ReplaceRoute { old: old.clone(), new: new.clone() })
}

#[cfg(test)]
mod tests {
    use super::super::samples::{default_via, rule, setting};
    use super::*;

    fn remembered(steps: &[Step]) -> Vec<Step> {
        let mut changes = Vec::new();
        steps.iter().for_each(|step| remember(&mut changes, step));
        changes
    }

    fn mtu(from: u32, to: u32) -> Step {
        let (from, to) = (from.try_into().unwrap(), to.try_into().unwrap());
        Step::SetMtu { index: 7, name: IfName::eth(1), from, to }
    }

    #[test]
    fn changes_that_come_to_nothing_are_forgotten() {
        let mac = |text: &str| text.parse::<Mac>().unwrap();
        let (a, b) = (mac("02:00:00:00:00:0a"), mac("02:00:00:00:00:0b"));
        let (old, new) = (default_via("172.17.0.1", 2, "eth0"), default_via("192.168.0.1", 7, "eth1"));
        for step in [
            Step::AddRoute(new.clone()),
            Step::DeleteRoute(old.clone()),
            Step::ReplaceRoute { old: old.clone(), new: new.clone() },
            Step::AddRule(rule("from 10.0.0.0/8 table 7")),
            mtu(1500, 1400),
            setting(Change::Mac { from: a, to: b }),
            setting(Change::Up(false)),
            setting(Change::Promisc(true)),
            setting(Change::Name("lan0".parse().unwrap())),
        ] {
            let other = Step::AddRule(rule("priority 1"));
            let steps = [step.clone(), other.clone(), step.inverse()];
            assert_eq!(remembered(&steps), [other], "{step:?}");
            assert_eq!(remembered(&[step.inverse(), step.clone()]), []);
        }
    }

    #[test]
    fn of_several_changes_of_one_thing_the_first_and_the_last_count() {
        let [a, b, c] = ["10.0.0.1", "10.0.0.2", "10.0.0.3"].map(|via| default_via(via, 7, "eth1"));
        let replace = |old: &Route, new: &Route| Step::ReplaceRoute { old: old.clone(), new: new.clone() };
        assert_eq!(remembered(&[replace(&a, &b), replace(&b, &c)]), [replace(&a, &c)]);
        assert_eq!(remembered(&[Step::AddRoute(a.clone()), replace(&a, &b)]), [Step::AddRoute(b.clone())]);
        assert_eq!(remembered(&[replace(&a, &b), Step::DeleteRoute(b.clone())]), [Step::DeleteRoute(a.clone())]);
        assert_eq!(remembered(&[Step::DeleteRoute(a.clone()), Step::AddRoute(b.clone())]), [replace(&a, &b)]);
        assert_eq!(remembered(&[mtu(1500, 1400), mtu(1400, 1300)]), [mtu(1500, 1300)]);
        let added = [Step::AddRoute(a.clone()), replace(&a, &b)];
        assert_eq!(expected_routes(&added), std::slice::from_ref(&b));
        assert_eq!(expected_routes(&[replace(&a, &b), Step::DeleteRoute(b)]), []);
    }
}
