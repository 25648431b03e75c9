//! `plumb store copy`: all that one store holds, put into another.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

use super::{AccessOptions, open_store};
use crate::{
    cli::{StoreCopy, StoreVerb},
    config::{self, Config},
    error::{Error, Kind, Result},
    output::Output,
    store::{
        Change, Committed, Key, Store, attachment,
        kinds::{self, Holds},
        network, shaped,
    },
};

pub fn run(verb: StoreVerb, access: AccessOptions, config: &Config, output: Output) -> Result<()> {
    match verb {
        StoreVerb::Copy(options) => copy(&options, access, config, output),
    }
}

fn copy(options: &StoreCopy, access: AccessOptions, config: &Config, output: Output) -> Result<()> {
    let from = open_store(&options.from, access.clone(), config)?;
    let to = open_store(&options.to, access, config)?;
    if from.mark() == to.mark() && from.host() == to.host() {
        return Err(Error::usage(format!("{} and {} are one store", options.from, options.to)));
    }
    refuse_unfinished(&*from, &options.from)?;
    let (translated, left_out) = translate(contents(&*from)?, &*from, &*to)?;
    let Comparison { missing, already_there, conflicts } = compare(translated, contents(&*to)?);
    let conflicts: Vec<String> = overlaps(&*from, &*to)?.into_iter().chain(conflicts).collect();
    if !conflicts.is_empty() {
        return Err(conflict(&options.to, &conflicts));
    }
    let report = Report::new(options, &missing, already_there, left_out);
    if !options.dry_run {
        write(&missing, &*to, &options.to)?;
    }
    output.document(&report);
    report.lines().iter().for_each(|line| output.line(line));
    Ok(())
}

/// A record or a claim.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Thing {
    Record(Vec<u8>),
    Hint(Vec<u8>),
    Claim { owner: Key },
}

/// All that a store holds, of all hosts, in the order in which it is to be written.
fn contents(store: &dyn Store) -> Result<Vec<(Key, Thing)>> {
    let mut all = Vec::new();
    for kind in &kinds::KINDS {
        let prefix = Key::new([kind.name]);
        if kind.holds == Holds::Claims {
            all.extend(store.claims(&prefix)?.into_iter().map(|(claim, owner)| (claim, Thing::Claim { owner })));
            continue;
        }
        for (key, value) in store.records(&[prefix])? {
            let thing = if kind.holds == Holds::Hints { Thing::Hint(value?) } else { Thing::Record(value?) };
            all.push((key, thing));
        }
    }
    Ok(all)
}

/// A run that is at work confirms its record where it began it, and nowhere else.
fn refuse_unfinished(from: &dyn Store, place: &str) -> Result<()> {
    let unfinished = from.records(&[Key::new([attachment::UNFINISHED]), Key::new([shaped::UNFINISHED])])?;
    let Some((key, _)) = unfinished.first() else { return Ok(()) };
    let (target, interface) = attachment::owner_of(key).unwrap_or(("a target", "an interface"));
    Err(Error::conflict(format!("{target}: {interface} in {place} is being made, or its run was killed"))
        .hint(format!("wait for it, or on its host: plumb gc --store {place}")))
}

/// What the things of `from` are in `to`, and how many are of other hosts and have no place there.
fn translate(things: Vec<(Key, Thing)>, from: &dyn Store, to: &dyn Store) -> Result<(Vec<(Key, Thing)>, usize)> {
    let (mut translated, all) = (Vec::new(), things.len());
    for (key, thing) in things {
        let Some(new) = translate_key(&key, from.host(), to.host()) else { continue };
        let value = |value| translate_value(&key, value, from, to);
        let thing = match thing {
            Thing::Record(text) => Thing::Record(value(text)?),
            Thing::Hint(text) => Thing::Hint(text),
            Thing::Claim { owner } => match translate_key(&owner, from.host(), to.host()) {
                Some(owner) => Thing::Claim { owner },
                None => continue,
            },
        };
        translated.push((new, thing));
    }
    let left_out = all - translated.len();
    Ok((translated, left_out))
}

/// The key with its host put in or left out. `None` for another host's in a store that is ours alone.
fn translate_key(key: &Key, from: Option<&str>, to: Option<&str>) -> Option<Key> {
    if !kinds::of(key.kind()).is_some_and(|kind| kind.of_host) {
        return Some(key.clone());
    }
    let parts: Vec<&str> = key.parts().iter().map(String::as_str).collect();
    match (from, to, parts.as_slice()) {
        (None, Some(host), [kind, rest @ ..]) => Some(Key::of_host(kind, Some(host), rest)),
        (Some(host), None, [kind, of, rest @ ..]) => (host == *of).then(|| Key::of_host(kind, None, rest)),
        _ => Some(key.clone()),
    }
}

/// The value, with what records say of their host beside their key put in or left out.
fn translate_value(key: &Key, text: Vec<u8>, from: &dyn Store, to: &dyn Store) -> Result<Vec<u8>> {
    if from.host().is_some() == to.host().is_some() {
        return Ok(text);
    }
    let damaged = |error: serde_json::Error| {
        Error::failed(format!("the record {} is damaged: {error}; nothing was copied", from.place(key)))
            .hint("mend it by hand, or remove it")
    };
    let mut value: Value = serde_json::from_slice(&text).map_err(damaged)?;
    let is_network = key.kind() == network::NETWORK;
    let (fields, field, new) = if is_network {
        (value.get_mut("gateway_host").and_then(Value::as_object_mut), "id", to.host().map(str::to_owned))
    } else {
        (value.as_object_mut(), "host_name", to.host().and_then(|_| config::host_name()))
    };
    let Some(fields) = fields else { return Ok(text) };
    match new {
        Some(new) => drop(fields.entry(field).or_insert(new.into())),
        // Another host's gateway stays that.
        None if is_network && fields.get(field).and_then(Value::as_str) != from.host() => {}
        None => drop(fields.remove(field)),
    }
    let mut text = serde_json::to_vec_pretty(&value).map_err(damaged)?;
    text.push(b'\n');
    Ok(text)
}

struct Comparison {
    missing: Vec<(Key, Thing)>,
    already_there: usize,
    conflicts: Vec<String>,
}

fn compare(wanted: Vec<(Key, Thing)>, there: Vec<(Key, Thing)>) -> Comparison {
    let there: BTreeMap<Key, Thing> = there.into_iter().collect();
    let mut comparison = Comparison { missing: Vec::new(), already_there: 0, conflicts: Vec::new() };
    for (key, thing) in wanted {
        match (there.get(&key), &thing) {
            (None, _) => comparison.missing.push((key, thing)),
            (Some(Thing::Hint(_)), _) => comparison.already_there += 1,
            (Some(Thing::Record(there)), Thing::Record(text)) if is_same(there, text) => comparison.already_there += 1,
            (Some(same), thing) if same == thing => comparison.already_there += 1,
            (Some(Thing::Claim { owner: holder }), Thing::Claim { owner }) => {
                comparison.conflicts.push(format!("{key} is claimed by {holder} there, by {owner} here"));
            }
            (Some(_), _) => comparison.conflicts.push(format!("{key} says something else there")),
        }
    }
    comparison
}

/// Whether two records say the same, however they are written.
fn is_same(one: &[u8], other: &[u8]) -> bool {
    let parse = |text| serde_json::from_slice::<Value>(text).ok();
    one == other || parse(one).is_some_and(|one| parse(other) == Some(one))
}

/// Networks of different names that overlap, which no network may.
fn overlaps(from: &dyn Store, to: &dyn Store) -> Result<Vec<String>> {
    let there = network::all(to)?.into_iter().collect::<Result<Vec<_>>>()?;
    let mut found = Vec::new();
    for ours in network::all(from)? {
        let ours = ours?;
        for theirs in there.iter().filter(|theirs| theirs.name != ours.name) {
            let pairs =
                theirs.pools.iter().flat_map(|theirs| ours.pools.iter().map(move |ours| (theirs.subnet, ours.subnet)));
            let overlapping = pairs.filter(|(theirs, ours)| theirs.overlaps(*ours));
            found.extend(overlapping.map(|(subnet, own)| {
                format!("network {} overlaps: {own} with {subnet}, which is network {} there", ours.name, theirs.name)
            }));
        }
    }
    Ok(found)
}

fn conflict(to: &str, conflicts: &[String]) -> Error {
    const SHOWN: usize = 5;
    let mut shown: Vec<String> = conflicts.iter().take(SHOWN).cloned().collect();
    if conflicts.len() > SHOWN {
        shown.push(format!("and {} more", conflicts.len() - SHOWN));
    }
    Error::conflict(format!("{to} holds other things already; nothing was copied\n  {}", shown.join("\n  ")))
        .hint("detach or delete them in one of the two stores, or copy to an empty one, such as under another prefix")
}

/// How many changes go together.
const BATCH: usize = 100;

/// Records before the claims that they own, so that there is no claim without its record.
fn write(missing: &[(Key, Thing)], to: &dyn Store, place: &str) -> Result<()> {
    let change = |(key, thing): &(Key, Thing)| match thing {
        Thing::Record(text) | Thing::Hint(text) => Change::Put(key.clone(), text.clone()),
        Thing::Claim { owner } => Change::Claim { claim: key.clone(), owner: owner.clone() },
    };
    for (at, batch) in missing.chunks(BATCH).enumerate() {
        let changes: Vec<Change> = batch.iter().map(change).collect();
        let outcome = match to.commit(&changes) {
            Ok(Committed::Done) => changes.iter().try_for_each(|change| match change {
                Change::Put(key, _) => to.flush(key),
                _ => Ok(()),
            }),
            Ok(Committed::Unmet) => Err(Error::failed("the other store has changed meanwhile")),
            Ok(Committed::Held { claim, holder }) => {
                Err(Error::conflict(format!("{claim} has been claimed by {holder} meanwhile")))
            }
            Err(error) => Err(error),
        };
        outcome.map_err(|error| broken_off(error, at * BATCH, missing.len(), place))?;
    }
    Ok(())
}

fn broken_off(error: Error, copied: usize, all: usize, to: &str) -> Error {
    let hint = "the same command again copies what is missing";
    if copied == 0 {
        return Error { hint: Some(hint.into()), ..error };
    }
    let message = format!("{}; {copied} of {all} things were copied to {to} before that", error.message);
    Error { kind: Kind::LeftBehind, message, hint: Some(hint.into()), ..error }
}

#[derive(Debug, Serialize)]
struct Report {
    from: String,
    to: String,
    dry_run: bool,
    /// How many things of each kind.
    copied: BTreeMap<String, usize>,
    already_there: usize,
    /// Things of other hosts, for which a store that is one host's alone has no place.
    left_out: usize,
}

impl Report {
    fn new(options: &StoreCopy, missing: &[(Key, Thing)], already_there: usize, left_out: usize) -> Report {
        let mut copied = BTreeMap::new();
        for (key, _) in missing {
            *copied.entry(key.kind().to_owned()).or_default() += 1;
        }
        let (from, to, dry_run) = (options.from.clone(), options.to.clone(), options.dry_run);
        Report { from, to, dry_run, copied, already_there, left_out }
    }

    fn lines(&self) -> Vec<String> {
        let of = |wanted: &[&str]| -> usize { wanted.iter().filter_map(|kind| self.copied.get(*kind)).sum() };
        let counted = |many: usize, one: &str, several: &str| match many {
            1 => format!("1 {one}"),
            many => format!("{many} {several}"),
        };
        let what = [
            counted(of(&[attachment::FLAT, attachment::DHCP, attachment::VLAN]), "attachment", "attachments"),
            counted(of(&[network::NETWORK]), "network", "networks"),
            counted(of(&[attachment::CLAIM, attachment::POOL]), "address", "addresses"),
        ];
        let done = if self.dry_run { "would be copied" } else { "copied" };
        let mut lines = vec![format!("{} {done} from {} to {}", what.join(", "), self.from, self.to)];
        if self.already_there > 0 {
            lines.push(format!("  {} there already", counted(self.already_there, "thing was", "things were")));
        }
        if self.left_out > 0 {
            lines.push(format!(
                "  {} left out: a directory is one host's alone",
                counted(self.left_out, "thing of another host", "things of other hosts")
            ));
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_a_host_gain_and_lose_it_and_others_stay() {
        let (own, shared) = (Key::new(["flat", "web", "eth1"]), Key::new(["flat", "me", "web", "eth1"]));
        assert_eq!(translate_key(&own, None, Some("me")), Some(shared.clone()));
        assert_eq!(translate_key(&shared, Some("me"), None), Some(own.clone()));
        assert_eq!(translate_key(&shared, Some("me"), Some("me")), Some(shared.clone()));
        assert_eq!(translate_key(&own, None, None), Some(own));
        assert_eq!(translate_key(&shared, Some("other"), None), None);
        let network = Key::new(["vlan", "red"]);
        assert_eq!(translate_key(&network, None, Some("me")), Some(network.clone()));
        let pool = Key::new(["pool", "red", "10.0.0.5"]);
        assert_eq!(translate_key(&pool, Some("me"), None), Some(pool));
    }

    #[test]
    fn records_say_which_host_they_are_of_only_where_hosts_share_a_store() {
        let own = crate::store::Directory::new("/nowhere").unwrap();
        let access = crate::store::Access { host: "me".into(), ..Default::default() };
        let shared = crate::store::Etcd::new("etcd://127.0.0.1:1", access).unwrap();
        let translated = |kind: &str, text: &str, from: &dyn Store, to: &dyn Store| -> Value {
            serde_json::from_slice(&translate_value(&Key::new([kind, "x"]), text.into(), from, to).unwrap()).unwrap()
        };
        let parse = |text: &str| serde_json::from_str::<Value>(text).unwrap();
        assert_eq!(translated("flat", "{}", &own, &shared)["host_name"], config::host_name().unwrap());
        assert_eq!(translated("vland", r#"{"host_name":"x"}"#, &shared, &own), parse("{}"));
        for (here, there) in
            [(r#"{"gateway_host":{"name":"x"}}"#, r#"{"gateway_host":{"name":"x","id":"me"}}"#), ("{}", "{}")]
        {
            assert_eq!(translated("vlan", here, &own, &shared), parse(there));
            assert_eq!(translated("vlan", there, &shared, &own), parse(here));
        }
        let others = r#"{"gateway_host":{"name":"x","id":"other"}}"#;
        assert_eq!(translated("vlan", others, &shared, &own), parse(others));
        assert!(translate_value(&Key::new(["flat", "x"]), "{".into(), &own, &shared).is_err());
    }

    #[test]
    fn what_is_there_already_is_no_conflict_and_what_differs_is() {
        let key = |name: &str| Key::new(["vlan", name]);
        let record = |text: &str| Thing::Record(text.into());
        let claim = |owner: &str| (Key::new(["pool", "red", "1"]), Thing::Claim { owner: key(owner) });
        let wanted = vec![(key("a"), record("{}")), (key("b"), record("{ }")), (key("c"), record("{}")), claim("a")];
        let there = vec![(key("b"), record("{}")), (key("c"), record("{\"x\": 1}")), claim("b")];
        let found = compare(wanted, there);
        assert_eq!(found.missing, [(key("a"), record("{}"))]);
        assert_eq!(found.already_there, 1);
        assert_eq!(
            found.conflicts,
            ["vlan/c says something else there", "pool/red/1 is claimed by vlan/b there, by vlan/a here"]
        );
    }
}
