//! A store in an etcd cluster, which many hosts share: a key for each record and each claim.
//!
//! etcd is spoken to by gRPC, with the few messages that are needed written down here: the crate
//! `etcd-client` compiles protocol buffers at each build and needs `protoc` for that, which those who
//! have nothing but a Rust toolchain lack; and etcd's JSON gateway takes twice as long for each call.

mod address;
mod cluster;
mod messages;
mod tls;

use std::{
    collections::HashSet,
    hash::{BuildHasher, Hasher, RandomState},
    path::PathBuf,
    sync::{Mutex, MutexGuard, PoisonError},
};

use self::{
    address::Address,
    cluster::{Cluster, Repeat},
    messages::{Compare, Found, Op, Pair, Range, Txn, TxnAnswer},
    tls::Tls,
};
use super::{Change, Committed, Key, Store, escape, unescape};
use crate::{
    error::{Error, Result},
    types::StoreMark,
};

/// `/plumb/flat/HOST/web/eth1` is a record, `/plumb/claim/HOST/eth0/192.168.0.100` a claim, with the
/// key of its owner's record as its value. A commit is one transaction.
pub struct Etcd {
    cluster: Cluster,
    prefix: String,
    host: String,
    known: Mutex<Option<Known>>,
}

/// What a store in a cluster takes beside its address.
#[derive(Debug, Clone, Default)]
pub struct Access {
    /// What tells this host from all others.
    pub host: String,
    pub password: Option<String>,
    /// Files in PEM: the authority that signed the cluster's certificates, our own one, and its key.
    pub ca: Option<PathBuf>,
    pub cert: Option<PathBuf>,
    pub key: Option<PathBuf>,
}

/// What the first answer tells of the store.
#[derive(Debug, Clone)]
struct Known {
    /// Whether it has its format and its id yet. Who only looks writes neither.
    begun: bool,
    /// Random, one for each store ever begun: the cluster's own number is the same for all that
    /// were started with the same settings.
    id: String,
}

/// The form of keys and of claims; records have formats of their own.
const FORMAT: u32 = 1;
/// etcd refuses transactions of over 128 operations (`--max-txn-ops`), what is nested counted in.
/// The format, the id, and one level below leave so many.
const MOST: usize = 120;
/// Of claims there may be as many as a network has addresses: about a megabyte at a time.
const PAGE: i64 = 5_000;
/// How often a commit looks again whose claims are. They change hands between two looks only where
/// somebody else is at work on the same ones at the same moment.
const LOOKS: usize = 20;

/// The one call by which keys are read and written.
const TXN: &str = "/etcdserverpb.KV/Txn";

/// What a claim has been seen to be.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Seen {
    Free,
    /// The claimant's already.
    Own,
}

impl Etcd {
    pub fn new(address: &str, access: Access) -> Result<Etcd> {
        let address: Address = address.parse()?;
        if let (Some(user), None) = (&address.user, &access.password) {
            return Err(Error::usage(format!("the password of {user} for etcd is missing"))
                .hint("give it in PLUMB_STORE_PASSWORD or in a file, --store-password-file"));
        }
        let tls = if address.encrypted {
            Some(Tls::new(&access)?)
        } else if access.ca.is_some() || access.cert.is_some() || access.key.is_some() {
            return Err(Error::usage("a store's certificates have a meaning with TLS only").hint("write etcds://"));
        } else {
            None
        };
        let prefix = address.prefix.clone();
        let cluster = Cluster::new(address, access.password, tls)?;
        Ok(Etcd { cluster, prefix, host: access.host, known: Mutex::new(None) })
    }

    fn path(&self, key: &Key) -> String {
        let parts: Vec<String> = key.parts().iter().map(|part| escape(part, |_, c| matches!(c, '/' | '%'))).collect();
        format!("{}/{}", self.prefix, parts.join("/"))
    }

    /// The key that a path of etcd's names.
    fn key(&self, path: &[u8]) -> Key {
        let path = String::from_utf8_lossy(path);
        let rest = path.strip_prefix(&self.prefix).and_then(|rest| rest.strip_prefix('/')).unwrap_or(&path);
        Key(rest.split('/').map(unescape).collect())
    }

    fn format_path(&self) -> String {
        format!("{}/format", self.prefix)
    }

    fn id_path(&self) -> String {
        format!("{}/id", self.prefix)
    }

    fn known(&self) -> MutexGuard<'_, Option<Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Learns from the answers to the ranges of format and id. A store of a later format is refused.
    fn learn(&self, format: &Found, id: &Found) -> Result<()> {
        let text = |found: &Found| found.kvs.first().map(|pair| String::from_utf8_lossy(&pair.value).into_owned());
        let known = match text(format) {
            None => {
                // The standard library's hasher is seeded with random numbers of the system's.
                let id = format!("{:016x}", RandomState::new().build_hasher().finish());
                Known { begun: false, id }
            }
            Some(format) => match format.trim().parse::<u32>() {
                Ok(FORMAT) => Known { begun: true, id: text(id).unwrap_or_default() },
                Ok(later) if later > FORMAT => {
                    return Err(Error::failed(format!(
                        "the store in etcd under {} is of format {later}, and this plumb knows {FORMAT}",
                        self.prefix
                    ))
                    .hint("a newer plumb wrote it: use that one, or another prefix"));
                }
                _ => {
                    return Err(Error::failed(format!(
                        "etcd's key {} is {format:?}, which is no format",
                        self.format_path()
                    ))
                    .hint("is the prefix another program's? etcd://HOST/PREFIX names another"));
                }
            },
        };
        *self.known() = Some(known);
        Ok(())
    }

    /// All ranges, in as few transactions as there may be; the first of the process asks for the
    /// store's format as well.
    fn read(&self, ranges: &[Range]) -> Result<Vec<Vec<Pair>>> {
        Ok(self.find(ranges)?.into_iter().map(|found| found.kvs).collect())
    }

    fn find(&self, ranges: &[Range]) -> Result<Vec<Found>> {
        let mut all = Vec::new();
        let nothing: &[Range] = &[];
        let parts = if ranges.is_empty() { vec![nothing] } else { ranges.chunks(MOST).collect() };
        for part in parts {
            let is_known = self.known().is_some();
            let first =
                if is_known { Vec::new() } else { vec![Range::one(self.format_path()), Range::one(self.id_path())] };
            let success = first.into_iter().chain(part.iter().cloned()).map(Op::from).collect();
            let txn = Txn { success, ..Txn::default() };
            let answer: TxnAnswer = self.cluster.call(TXN, &txn, Repeat::Harmless)?;
            let mut found = answer.found();
            if !is_known {
                self.learn(&found.next().unwrap_or_default(), &found.next().unwrap_or_default())?;
            }
            all.extend(found);
        }
        if all.len() == ranges.len() { Ok(all) } else { Err(Error::failed("etcd's answer is incomplete")) }
    }

    /// One transaction, at most `MOST` changes. Says which claims were won.
    fn commit_some<'a>(&self, changes: &[&'a Change]) -> Result<Outcome<'a>> {
        let claims: Vec<(&Key, &Key)> = changes.iter().filter_map(|change| change.claimed()).collect();
        let mut seen = vec![Seen::Free; claims.len()];
        for _ in 0..LOOKS {
            let begun = self.begun()?;
            let txn = self.transaction(changes, &claims, &seen, begun.as_ref());
            let answer: TxnAnswer = self.cluster.call(TXN, &txn, Repeat::OnlyIfItEnded)?;
            if answer.succeeded {
                if let Some(known) = &mut *self.known() {
                    known.begun = true;
                }
                let won =
                    claims.iter().zip(&seen).filter(|(_, seen)| **seen == Seen::Free).map(|((claim, _), _)| *claim);
                let won: HashSet<&Key> = won.collect();
                let done = changes
                    .iter()
                    .copied()
                    .filter(|change| change.claimed().is_none_or(|(claim, _)| won.contains(claim)));
                return Ok(Outcome::Done(done.collect()));
            }
            let mut found = answer.found();
            self.learn(&found.next().unwrap_or_default(), &found.next().unwrap_or_default())?;
            for ((found, (claim, owner)), seen) in found.zip(&claims).zip(&mut seen) {
                *seen = match found.kvs.first().map(|pair| self.key(&pair.value)) {
                    None => Seen::Free,
                    Some(holder) if holder == **owner => Seen::Own,
                    Some(holder) => return Ok(Outcome::Held { claim: (*claim).clone(), holder }),
                };
            }
        }
        let (claim, _) = claims.first().copied().unzip();
        Err(Error::failed(match claim {
            Some(claim) => format!("{claim} changes hands too fast in etcd"),
            None => "the store in etcd was removed and begun anew again and again".to_owned(),
        }))
    }

    /// The id to begin the store with, or `None` if it has one.
    fn begun(&self) -> Result<Option<String>> {
        if self.known().is_none() {
            self.read(&[])?;
        }
        Ok(self.known().as_ref().filter(|known| !known.begun).map(|known| known.id.clone()))
    }

    /// The transaction that carries `changes` out if the store's format and each claim are still as
    /// they were seen; if not it tells how they are.
    fn transaction(&self, changes: &[&Change], claims: &[(&Key, &Key)], seen: &[Seen], begin: Option<&String>) -> Txn {
        let (format, id) = (self.format_path(), self.id_path());
        let mut txn = Txn::default();
        match begin {
            None => txn.compare.push(Compare::is(format.as_str(), FORMAT.to_string())),
            Some(new) => {
                txn.compare.push(Compare::is_absent(format.as_str()));
                txn.success.push(Op::put(format.as_str(), FORMAT.to_string()));
                txn.success.push(Op::put(id.as_str(), new.as_str()));
            }
        }
        txn.failure.extend([Range::one(format), Range::one(id)].map(Op::from));
        for ((claim, owner), seen) in claims.iter().zip(seen) {
            let (key, value) = (self.path(claim), self.path(owner));
            txn.failure.push(Range::one(key.as_str()).into());
            match seen {
                Seen::Own => txn.compare.push(Compare::is(key, value)),
                Seen::Free => {
                    txn.compare.push(Compare::is_absent(key.as_str()));
                    txn.success.push(Op::put(key, value));
                }
            }
        }
        txn.success.extend(changes.iter().flat_map(|change| self.operations(change)));
        txn
    }

    fn operations(&self, change: &Change) -> Vec<Op> {
        let put = |key: &Key, value: &[u8]| Op::put(self.path(key), value);
        let delete = |key: &Key| Op::delete(self.path(key));
        match change {
            Change::Put(key, value) => vec![put(key, value)],
            Change::Move { from, to, value } => vec![put(to, value), delete(from)],
            Change::Remove(key) => vec![delete(key)],
            Change::Claim { .. } => Vec::new(),
            Change::Release { claim, owner } => {
                let compare = vec![Compare::is(self.path(claim), self.path(owner))];
                vec![Txn { compare, success: vec![delete(claim)], failure: Vec::new() }.into()]
            }
        }
    }

    /// Takes back what earlier transactions of a commit did before one met a claim of another's.
    fn take_back(&self, done: &[&Change]) -> Result<()> {
        let back = |change: &&Change| match change {
            Change::Claim { claim, owner } => Some(Change::Release { claim: claim.clone(), owner: owner.clone() }),
            Change::Put(key, _) => Some(Change::Remove(key.clone())),
            Change::Move { .. } | Change::Remove(_) | Change::Release { .. } => None,
        };
        let back: Vec<Change> = done.iter().rev().filter_map(back).collect();
        for part in in_parts(&back) {
            self.commit_some(&part)?;
        }
        Ok(())
    }
}

/// What became of one transaction.
enum Outcome<'a> {
    /// The changes that changed something: not the claims that were the claimant's before.
    Done(Vec<&'a Change>),
    Held {
        claim: Key,
        holder: Key,
    },
}

/// The changes in transactions that are not too large, in order. etcd refuses to touch one key twice
/// in a transaction; a claim that is made twice is made once.
fn in_parts(changes: &[Change]) -> Vec<Vec<&Change>> {
    let (mut parts, mut touched, mut size) = (vec![Vec::new()], HashSet::new(), 0);
    for change in changes {
        let keys = change.keys();
        let is_repeated = keys.iter().any(|key| touched.contains(key));
        if is_repeated && change.claimed().is_some() && parts.last().is_some_and(|part: &Vec<_>| part.contains(&change))
        {
            continue;
        }
        if is_repeated || size + keys.len() > MOST {
            parts.push(Vec::new());
            touched.clear();
            size = 0;
        }
        size += keys.len();
        touched.extend(keys);
        if let Some(part) = parts.last_mut() {
            part.push(change);
        }
    }
    parts
}

impl Store for Etcd {
    /// Until the store has its id in etcd, the one that it will get unless somebody else is faster;
    /// then the link that is made now bears another mark than later ones, which costs nothing but
    /// that `gc` does not know the link for lost if its record is.
    fn mark(&self) -> StoreMark {
        // An error here is that of the next call as well, and told there.
        let _ = self.begun();
        StoreMark::of(&self.known().as_ref().map(|known| known.id.clone()).unwrap_or_default())
    }

    fn host(&self) -> Option<&str> {
        Some(&self.host)
    }

    fn values(&self, keys: &[Key]) -> Result<Vec<Option<Vec<u8>>>> {
        let ranges: Vec<Range> = keys.iter().map(|key| Range::one(self.path(key))).collect();
        let found = self.read(&ranges)?.into_iter();
        Ok(found.map(|pairs| pairs.into_iter().next().map(|pair| pair.value)).collect())
    }

    fn records(&self, prefixes: &[Key]) -> Result<Vec<(Key, Result<Vec<u8>>)>> {
        let ranges: Vec<Range> = prefixes.iter().map(|prefix| Range::below(&self.path(prefix))).collect();
        let found = self.read(&ranges)?.into_iter().flatten();
        Ok(found.map(|pair| (self.key(&pair.key), Ok(pair.value))).collect())
    }

    /// One transaction; of more changes than one may have, several, in order.
    fn commit(&self, changes: &[Change]) -> Result<Committed> {
        let mut done = Vec::new();
        for part in in_parts(changes) {
            match self.commit_some(&part)? {
                Outcome::Done(changed) => done.extend(changed),
                Outcome::Held { claim, holder } => {
                    self.take_back(&done)?;
                    return Ok(Committed::Held { claim, holder });
                }
            }
        }
        Ok(Committed::Done)
    }

    /// What etcd has answered to more than half of its members have on disk.
    fn flush(&self, _key: &Key) -> Result<()> {
        Ok(())
    }

    fn holders(&self, claims: &[Key]) -> Result<Vec<Option<Key>>> {
        let ranges: Vec<Range> = claims.iter().map(|claim| Range::one(self.path(claim))).collect();
        let found = self.read(&ranges)?.into_iter();
        Ok(found.map(|pairs| pairs.first().map(|pair| self.key(&pair.value))).collect())
    }

    fn claims(&self, prefix: &Key) -> Result<Vec<(Key, Key)>> {
        let mut claims = Vec::new();
        let mut range = Range { limit: PAGE, ..Range::below(&self.path(prefix)) };
        loop {
            let Some(found) = self.find(std::slice::from_ref(&range))?.pop() else { return Ok(claims) };
            // The next page begins with the first key there can be behind the last of this one.
            if let Some(last) = found.kvs.last() {
                range.key = [last.key.as_slice(), b"\0"].concat();
            }
            claims.extend(found.kvs.iter().map(|pair| (self.key(&pair.key), self.key(&pair.value))));
            if !found.more {
                return Ok(claims);
            }
        }
    }

    fn sweep(&self) -> Result<usize> {
        Ok(0)
    }

    fn place(&self, key: &Key) -> String {
        format!("etcd key {}", self.path(key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Nobody listens there, and nobody is asked.
    fn store() -> Etcd {
        Etcd::new("etcd://127.0.0.1:1/a/b", Access { host: "0123456789ab".into(), ..Access::default() }).unwrap()
    }

    #[test]
    fn keys_are_readable() {
        let store = store();
        let key = Key::of_host("flat", store.host(), &["netns:/run/x", "eth0.10"]);
        assert_eq!(store.place(&key), "etcd key /a/b/flat/0123456789ab/netns:%2Frun%2Fx/eth0.10");
    }

    #[test]
    fn many_changes_are_several_transactions_and_a_claim_is_made_once() {
        let owner = Key::new(["flat", "web", "eth1"]);
        let claim = |n: usize| Change::Claim { claim: Key::new(["pool", "red", &n.to_string()]), owner: owner.clone() };
        let changes: Vec<Change> = (0..300).map(|n| claim(n / 2)).collect();
        let sizes: Vec<usize> = in_parts(&changes).iter().map(Vec::len).collect();
        assert_eq!(sizes, [120, 30]);
    }

    #[test]
    fn certificates_and_users_are_checked_before_anything_is_sent() {
        let refusal = |address: &str, access: Access| Etcd::new(address, access).err().unwrap().message;
        let ca = || Access { ca: Some("/nowhere/ca.pem".into()), ..Access::default() };
        assert_eq!(refusal("etcd://one", ca()), "a store's certificates have a meaning with TLS only");
        assert_eq!(
            refusal("etcds://one", Access::default()),
            "etcds:// needs the certificate of the authority that signed the cluster's"
        );
        assert_eq!(refusal("etcds://one", ca()), "cannot read /nowhere/ca.pem: no such file or directory");
        assert_eq!(refusal("etcd://root@one", Access::default()), "the password of root for etcd is missing");
    }

    proptest! {
        #[test]
        fn any_part_can_be_part_of_a_key(part in "\\PC{1,30}|[./%@a]{1,8}", other in "[./%@\\x00a]{1,8}") {
            let (store, whole) = (store(), Key::new(["flat", &part, &other]));
            prop_assert_eq!(store.key(store.path(&whole).as_bytes()), whole);
        }
    }
}
