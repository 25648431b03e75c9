//! A change to what a target has: the story that `plumb route`, `rule` and `link` share.

mod report;

use std::net::IpAddr;

use report::Report;
pub use report::{Row, show};

use super::{Context, namespace, refuse_host, require_capabilities, siblings, take_back};
use crate::{
    apply::all_or_nothing,
    cli::{ChangeOptions, Version},
    container::{self, Target},
    error::{Error, Kind, Result},
    kernel::{Kernel, Netns, survey},
    plan::{
        Setting, Step, again,
        changes::{Attached, Gone, Planned, Present, Touches, With, remember},
        facts::InsideLink,
        render::quote,
        setting::Change,
    },
    store::{Attachment, Record, attachment, shaped},
    types::{Mac, Mtu, TargetName},
};

/// What a plan depends on beside what every plan does.
#[derive(Debug, Clone, Copy, Default)]
pub struct Needs {
    /// The MTU of the interface that a link hangs on.
    pub parents_mtu: bool,
    /// What is bound to a link's name.
    pub bound: bool,
}

/// Finds the target, plans the change, carries it out, and says what is true then.
pub fn run(
    target: &TargetName,
    options: &ChangeOptions,
    needs: Needs,
    context: &Context,
    plan: impl FnOnce(&Present) -> Result<Planned> + Send,
) -> Result<()> {
    refuse_host(target, "changes")?;
    require_capabilities()?;
    let target = container::find(target, &context.engines, None)?;
    let host = Netns::of_this_thread()?;
    let namespace = namespace::open(&target, &host)?;
    namespace.lock()?;
    let report = namespace.enter(|kernel| {
        let mut work = Work { context, target: &target, namespace: &namespace, kernel };
        let (Recorded { here: records, gone }, left) = work.records(options.dry_run)?;
        let present = work.look(&records, &gone, options, needs)?;
        present.refuse_after_a_restart()?;
        let mut planned = plan(&present)?;
        planned.warnings.extend(left);
        if !options.dry_run {
            let made = work.make(&planned, planned.owner.map(|at| &records[at]));
            made.map_err(|error| work.name_holder(error, &planned, &records, &host))?;
            work.announce(&planned, &present);
        }
        Ok(Report::new(&present, &planned, self::remark(&planned, &records), &namespace, options))
    })?;
    report.say(context);
    Ok(())
}

/// What becomes of the change in the end, where that is not plain from what is changed.
fn remark(planned: &Planned, records: &[Attachment]) -> Option<String> {
    let step = planned.steps.first()?;
    let Some(record) = planned.owner.and_then(|at| records.get(at)) else {
        return Some("it is on no record: nothing takes it back".into());
    };
    let mut changes = record.changes.clone();
    planned.kept.iter().for_each(|step| remember(&mut changes, step));
    if changes.len() < record.changes.len() {
        // It was a change itself that is no more.
        return None;
    }
    let (name, index) = (record.name_now(), record.link().map(|link| link.index));
    match step.touches() {
        // What its own link has goes with it, or comes back with it.
        Touches::Route { gone: None, new: Some(route) } | Touches::Route { gone: Some(route), .. }
            if route.leaves_by() == index =>
        {
            None
        }
        Touches::Route { gone: Some(_), new: Some(_) } => Some(format!("the detach of {name} gives the old one back")),
        Touches::Route { gone: Some(_), new: None } | Touches::Rule { gone: Some(_), .. } => {
            Some(format!("the detach of {name} gives it back"))
        }
        Touches::Route { gone: None, .. } | Touches::Rule { gone: None, .. } => Some(format!("it goes with {name}")),
        Touches::Link(of) => (Some(of) != index).then(|| format!("the detach of {name} takes it back")),
        Touches::Other => None,
    }
}

/// The IP version that was said apart from the words.
pub fn ipv6(version: &Version) -> Option<bool> {
    match (version.ipv4, version.ipv6) {
        (true, _) => Some(false),
        (_, true) => Some(true),
        _ => None,
    }
}

/// The finished attachments of a target, oldest first.
pub struct Recorded {
    /// Those in its namespace, by whatever name of it.
    pub here: Vec<Attachment>,
    /// Those of its name that were in an earlier one, which a restart has ended.
    pub gone: Vec<Attachment>,
}

impl Recorded {
    /// Looks from inside the namespace.
    ///
    /// # Errors
    /// A record of the target's own that is damaged: it may be the one that is looked for.
    pub fn of(target: &Target, namespace: &Netns, kernel: &Kernel, context: &Context) -> Result<Recorded> {
        let store = &*context.store;
        let is_here = |attachment: &Attachment| namespace::is_same(attachment, namespace, kernel);
        // A damaged one of the target's own may be what a change belongs to.
        let kept = attachment::of_target(store, &target.name)?.into_iter().collect::<Result<Vec<_>>>()?;
        let kept = kept.into_iter().filter(|attachment| !attachment.is_unfinished());
        let (mut here, mut gone): (Vec<_>, Vec<_>) = kept.partition(is_here);
        if here.is_empty() {
            let all = attachment::all(store, None)?.into_iter().flatten();
            here = all.filter(|attachment| !attachment.is_unfinished() && is_here(attachment)).collect();
        }
        // What another container that runs had under this name is its own.
        gone.retain(|attachment| attachment.container == target.id || !container::is_there(&attachment.place));
        [&mut here, &mut gone].into_iter().for_each(|some| some.sort_by_key(|attachment| attachment.begun));
        Ok(Recorded { here, gone })
    }
}

/// What was there before a restart, and how it is attached again.
fn gone_in_words(gone: &Attachment) -> Gone {
    let target = quote(&gone.target.to_string());
    let parent = gone.link().and_then(|link| link.parent.interface());
    let on = parent.map_or_else(String::new, |name| format!(" -i {}", quote(name.as_str())));
    let again = match (&gone.network, &gone.dhcp) {
        (Some(network), _) => format!("plumb attach {target} {network} …"),
        (None, Some(_)) => format!("plumb dhcp {target}{on} …"),
        (None, None) => {
            let ips: String = gone.wish.addresses.iter().map(|address| format!(" --ip {address}")).collect();
            format!("plumb flat {target}{on}{} …", if ips.is_empty() { " --ip none" } else { &ips })
        }
    };
    Gone { name: gone.interface().to_owned(), renamed: gone.name_now().to_owned(), again }
}

/// What is said where an attachment's changes went with the earlier interface of its name.
pub fn lost(earlier: &Attachment) -> Option<String> {
    let commands = again::commands(&earlier.changes, earlier.link()?, &earlier.target.to_string());
    let name = earlier.interface();
    (!commands.is_empty()).then(|| {
        format!(
            "what route, rule and link had changed went with the earlier {name}; to change it again:\n  {}",
            commands.join("\n  ")
        )
    })
}

/// The MAC address that a change gives, and what to.
fn new_mac(planned: &Planned) -> Option<(&Setting, Mac)> {
    planned.steps.iter().find_map(|step| {
        let Step::SetLink(setting) = step else { return None };
        if let Change::Mac { to, .. } = setting.change { Some((setting, to)) } else { None }
    })
}

/// A change being made, on a thread inside the target's namespace, which is locked.
struct Work<'a> {
    context: &'a Context,
    target: &'a Target,
    namespace: &'a Netns,
    kernel: &'a mut Kernel,
}

impl Work<'_> {
    /// The attachments, with what a killed run has left of a change taken back first, and what there is to
    /// say of that.
    fn records(&mut self, dry_run: bool) -> Result<(Recorded, Vec<String>)> {
        let mut recorded = Recorded::of(self.target, self.namespace, self.kernel, self.context)?;
        let mut said = Vec::new();
        for record in recorded.here.iter_mut().filter(|record| !record.changing.is_empty()) {
            let when = if dry_run { "would be" } else { "was" };
            said.push(format!("what was left of an earlier change of {} {when} taken back first", record.name_now()));
            if !dry_run {
                take_back::change(self.context, record, Some(self.namespace))?;
            }
            record.changing.clear();
        }
        Ok((recorded, said))
    }

    fn look(
        &mut self,
        records: &[Attachment],
        gone: &[Attachment],
        options: &ChangeOptions,
        needs: Needs,
    ) -> Result<Present> {
        let inside = self.kernel.look_at_all()?;
        let mut attached = Vec::new();
        for record in records {
            let Some(link) = record.link() else { continue };
            // What somebody has deleted keeps its place in the list.
            let found = inside.link_tagged(&record.tag);
            attached.push(Attached {
                link: link.clone(),
                index: found.map_or(0, |found| found.index),
                name: found.map_or(record.name_now(), |found| found.name.as_str()).to_owned(),
                steps: record.all_steps().cloned().collect(),
                leased: record.dhcp.is_some(),
                bound: if needs.bound { self.bound(record)? } else { None },
                most: if needs.parents_mtu { self.most(record)? } else { None },
            });
        }
        let with = match (&options.with, options.unrecorded) {
            (Some(name), _) => With::Named(name.clone()),
            (None, true) => With::Unrecorded,
            (None, false) => With::Natural,
        };
        let gone = gone.iter().map(gone_in_words).collect();
        Ok(Present { target: self.target.name.to_string(), inside, attached, gone, with })
    }

    /// What goes by the name of the link, and what to do about that.
    fn bound(&self, record: &Attachment) -> Result<Option<(&'static str, String)>> {
        let name = record.name_now();
        if record.dhcp.as_ref().is_some_and(|dhcp| dhcp.external.is_some()) {
            let hint = format!(
                "detach it, and attach it with --name, or without --client: plumb detach {} {name}",
                record.target
            );
            return Ok(Some(("its DHCP client is", hint)));
        }
        let (limits, left) = shaped::of(&*self.context.store, &self.target.name, name)?;
        let hint = format!("plumb qos clear {} {name}, and set them anew afterwards", self.target.name);
        Ok(limits.or(left).map(|_| ("its limits are", hint)))
    }

    /// The MTU of what it hangs on, if that is still there.
    fn most(&mut self, record: &Attachment) -> Result<Option<Mtu>> {
        let Some(link) = record.link().filter(|link| !link.driver.needs_a_bridge()) else { return Ok(None) };
        let parent = self.kernel.parent(&link.parent.name)?.filter(|parent| parent.index == link.parent.index);
        Ok(parent.and_then(|parent| Mtu::try_from(parent.mtu).ok()))
    }

    /// Record first, act second, confirm last.
    fn make(&mut self, planned: &Planned, record: Option<&Attachment>) -> Result<()> {
        if planned.steps.is_empty() {
            return Ok(());
        }
        let (store, target) = (&*self.context.store, self.target);
        let path = self.namespace.path().display().to_string();
        // Others who write to it, as the agent does, hold no lock of the namespace's.
        let amend = |change: &dyn Fn(&mut Attachment)| match record {
            Some(record) if !attachment::amend(store, record, change)? => {
                Err(Error::conflict(format!("{}: {} was detached at the same moment", target.name, record.name_now())))
            }
            _ => Ok(()),
        };
        amend(&|now| now.changing = planned.steps.clone())?;
        let mut observe = |step: &Step, took| self.context.output.step(&step.command(&path), took);
        let made = all_or_nothing(self.kernel, &mut observe, &path, |tx| {
            tx.run_all(&planned.steps)?;
            target.still_runs()?;
            amend(&|now| {
                now.changing.clear();
                planned.kept.iter().for_each(|step| remember(&mut now.changes, step));
            })
        });
        match (made, record) {
            (Ok(()), Some(record)) => store.flush(&record.key()),
            // What was left behind must stay on record, or gc could not find it.
            (Err(error), Some(_)) if error.kind != Kind::LeftBehind => {
                let _ = amend(&|now| now.changing.clear());
                Err(error)
            }
            (made, _) => made,
        }
    }

    /// Adds to a conflict of MAC addresses on a parent whose it is. The kernel does not tell, and it may be in any
    /// namespace; looking there takes its time, but only now.
    fn name_holder(&mut self, error: Error, planned: &Planned, records: &[Attachment], host: &Netns) -> Error {
        let Some((setting, mac)) = new_mac(planned).filter(|_| error.kind == Kind::Conflict) else { return error };
        let Some(link) = records.iter().filter_map(Attachment::link).find(|link| link.index == setting.index) else {
            return error;
        };
        let parent = &link.parent.name;
        let is_parents = |kernel: &mut Kernel| {
            let links = kernel.links()?;
            Ok(links.iter().any(|there| there.index == link.parent.index && there.mac == Some(mac.bytes())))
        };
        let has_it = |there: &&InsideLink| there.mac == Some(mac.bytes());
        let holder = match host.look_inside(is_parents) {
            Ok(true) => Some(format!("{parent} itself")),
            _ => survey::sharers(host, link.parent.index).find_map(|found| {
                let other = found.links.iter().find(has_it)?;
                let owner = siblings::owner(other, &found.namespace, self.context);
                Some(format!("{} of {owner}", other.name))
            }),
        };
        let by = holder.map_or_else(String::new, |holder| format!(", by {holder}"));
        let unnamed = format!("the parent of {} already", setting.name);
        Error { message: error.message.replacen(&unnamed, &format!("{parent} already{by}"), 1), ..error }
    }

    /// Tells the LAN who has the addresses now. Best effort: who is not told learns it by asking.
    fn announce(&mut self, planned: &Planned, present: &Present) {
        let new_mac = new_mac(planned).map(|(setting, mac)| (setting.index, mac.bytes()));
        let Some((index, mac)) = new_mac else { return };
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for address in present.inside.addresses.iter().filter(|address| address.index == index) {
            match address.ip {
                IpAddr::V4(ip) => v4.push(ip),
                IpAddr::V6(ip) => v6.push(ip),
            }
        }
        if !v4.is_empty() {
            let _ = self.kernel.announce(index, mac, &v4);
        }
        if !v6.is_empty() {
            let _ = self.kernel.advertise(index, mac, &v6);
        }
    }
}
