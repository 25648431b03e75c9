//! A store in a directory: a readable file for each record, a symbolic link for each claim.

use std::{
    ffi::OsStr,
    fs::{self, File},
    io::{self, ErrorKind, Write},
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
};

use super::{Change, Committed, Condition, Key, Store, unescape};
use crate::{
    error::{Error, Result, plain},
    types::StoreMark,
};

/// `ROOT/flat/web@eth1.json` is a record: the first part of its key is the folder, the others are
/// the name. `ROOT/claim/eth0@192.168.0.100` is a claim: a symbolic link to the record of its owner.
/// Making one is atomic, whole and exclusive in a single system call, and one whose owner has gone
/// dangles for all to see.
pub struct Directory {
    root: PathBuf,
}

/// The outcome of a claim.
enum Claimed {
    Won,
    /// It was the claimant's already.
    Had,
    HeldBy(Key),
}

const RECORD: &str = ".json";
const BETWEEN_PARTS: &str = "@";
/// Files being written begin so; no part of a key does.
const UNFINISHED: &str = ".new-";

impl Directory {
    pub fn new(root: impl AsRef<Path>) -> Result<Directory> {
        let root = std::path::absolute(root.as_ref()).map_err(|error| {
            Error::usage(format!("{:?} is no directory for a store: {error}", root.as_ref()))
                .hint("give one with --store, such as /var/lib/plumb")
        })?;
        Ok(Directory { root })
    }

    fn folder(&self, key: &Key) -> PathBuf {
        self.root.join(key.parts().first().map(|part| escape(part)).unwrap_or_default())
    }

    fn record(&self, key: &Key) -> PathBuf {
        self.folder(key).join(name(key) + RECORD)
    }

    fn claim_link(&self, key: &Key) -> PathBuf {
        self.folder(key).join(name(key))
    }

    /// The entries of the folder that `prefix` lies in, each with its key, in order.
    fn entries(&self, prefix: &Key, suffix: &str) -> Result<Vec<(Key, PathBuf)>> {
        let folder = self.folder(prefix);
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(failed("cannot read the store's folder", &folder)(error)),
        };
        // Compared as they stand: a folder of a thousand must not cost a thousand keys.
        let begin = match prefix.parts().len() {
            0 | 1 => String::new(),
            _ => name(prefix) + BETWEEN_PARTS,
        };
        let mut found = Vec::new();
        for entry in entries {
            let entry = entry.map_err(failed("cannot read the store's folder", &folder))?;
            let file = entry.file_name();
            let name = file.to_string_lossy();
            let is_wanted = name.starts_with(&begin) && !name.starts_with(UNFINISHED);
            if let Some(name) = name.strip_suffix(suffix).filter(|_| is_wanted) {
                found.push((key(prefix.parts().first().map_or("", String::as_str), name), entry.path()));
            }
        }
        found.sort();
        Ok(found)
    }

    fn put(&self, key: &Key, value: &[u8]) -> Result<()> {
        let path = self.record(key);
        let unfinished = self.folder(key).join(format!("{UNFINISHED}{}-{}", std::process::id(), name(key)));
        let write = || {
            File::create(&unfinished)?.write_all(value)?;
            fs::rename(&unfinished, &path)
        };
        self.with_folder(key, write).map_err(failed("cannot write the record", &path))
    }

    fn rename(&self, from: &Key, to: &Key) -> Result<()> {
        let (from, path) = (self.record(from), self.record(to));
        self.with_folder(to, || fs::rename(&from, &path)).map_err(failed("cannot write the record", &path))
    }

    fn claim(&self, claim: &Key, owner: &Key) -> Result<Claimed> {
        let path = self.claim_link(claim);
        match self.with_folder(claim, || symlink(pointer(owner), &path)) {
            Ok(()) => Ok(Claimed::Won),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                let held = fs::read_link(&path).map_err(failed("cannot read the claim", &path))?;
                Ok(if held == pointer(owner) { Claimed::Had } else { Claimed::HeldBy(pointed_at(&held)) })
            }
            Err(error) => Err(failed("cannot write the claim", &path)(error)),
        }
    }

    fn release(&self, claim: &Key, owner: &Key) -> Result<()> {
        let path = self.claim_link(claim);
        let is_owners = fs::read_link(&path).is_ok_and(|held| held == pointer(owner));
        if is_owners { remove_file(&path) } else { Ok(()) }
    }

    /// Keeps other commits out until the lock is dropped, or its process ends.
    fn lock(&self) -> Result<Flock<File>> {
        let mut root = File::open(&self.root);
        if root.as_ref().is_err_and(|error| error.kind() == ErrorKind::NotFound) {
            root = fs::create_dir_all(&self.root).and_then(|()| File::open(&self.root));
        }
        let mut root = root.map_err(failed("cannot open the store", &self.root))?;
        loop {
            match Flock::lock(root, FlockArg::LockExclusive) {
                Ok(locked) => return Ok(locked),
                Err((again, Errno::EINTR)) => root = again,
                Err((_, errno)) => return Err(failed("cannot lock the store", &self.root)(errno.into())),
            }
        }
    }

    fn holds(&self, condition: &Condition) -> Result<bool> {
        let value = |key: &Key| self.get(key);
        Ok(match condition {
            Condition::Present(key) => value(key)?.is_some(),
            Condition::Absent(key) => value(key)?.is_none(),
            Condition::Says(key, text) => value(key)?.as_ref() == Some(text),
            Condition::Unclaimed(prefix) => self.entries(prefix, "")?.is_empty(),
        })
    }

    /// Takes back what a commit did before it met a claim of another's.
    fn take_back(&self, done: &[&Change]) -> Result<()> {
        done.iter().rev().try_for_each(|change| match change {
            Change::Claim { claim, owner } => self.release(claim, owner),
            Change::Put(key, _) => remove_file(&self.record(key)),
            Change::Move { .. } | Change::Remove(_) | Change::Release { .. } => Ok(()),
        })
    }

    /// Does `work`; if a folder is missing it is made first.
    fn with_folder<T>(&self, key: &Key, work: impl Fn() -> io::Result<T>) -> io::Result<T> {
        match work() {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                fs::create_dir_all(self.folder(key))?;
                work()
            }
            other => other,
        }
    }
}

impl Store for Directory {
    fn mark(&self) -> StoreMark {
        StoreMark::of(&self.root.to_string_lossy())
    }

    fn host(&self) -> Option<&str> {
        None
    }

    fn values(&self, keys: &[Key]) -> Result<Vec<Option<Vec<u8>>>> {
        let value = |key| {
            let path = self.record(key);
            match fs::read(&path) {
                Ok(value) => Ok(Some(value)),
                Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
                Err(error) => Err(failed("cannot read the record", &path)(error)),
            }
        };
        keys.iter().map(value).collect()
    }

    fn records(&self, prefixes: &[Key]) -> Result<Vec<(Key, Result<Vec<u8>>)>> {
        let mut records = Vec::new();
        for prefix in prefixes {
            for (key, path) in self.entries(prefix, RECORD)? {
                match fs::read(&path) {
                    Ok(value) => records.push((key, Ok(value))),
                    // Removed since the folder was read.
                    Err(error) if error.kind() == ErrorKind::NotFound => {}
                    Err(error) => records.push((key, Err(failed("cannot read the record", &path)(error)))),
                }
            }
        }
        Ok(records)
    }

    fn commit_if(&self, conditions: &[Condition], changes: &[Change]) -> Result<Committed> {
        let _locked = self.lock()?;
        for condition in conditions {
            if !self.holds(condition)? {
                return Ok(Committed::Unmet);
            }
        }
        let mut done = Vec::new();
        for change in changes {
            match change {
                Change::Put(key, value) => self.put(key, value)?,
                Change::Move { from, to, .. } => self.rename(from, to)?,
                Change::Remove(key) => remove_file(&self.record(key))?,
                Change::Release { claim, owner } => self.release(claim, owner)?,
                Change::Claim { claim, owner } => match self.claim(claim, owner)? {
                    Claimed::Won => {}
                    Claimed::Had => continue,
                    Claimed::HeldBy(holder) => {
                        self.take_back(&done)?;
                        return Ok(Committed::Held { claim: claim.clone(), holder });
                    }
                },
            }
            done.push(change);
        }
        Ok(Committed::Done)
    }

    fn flush(&self, key: &Key) -> Result<()> {
        let path = self.record(key);
        let sync = match File::open(&path) {
            // The journalling file systems write a file's name with its own log entry, so that one
            // request is enough for both.
            Ok(file) => file.sync_all(),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                File::open(self.folder(key)).and_then(|folder| folder.sync_all())
            }
            Err(error) => Err(error),
        };
        sync.map_err(failed("cannot make durable", &path))
    }

    fn holders(&self, claims: &[Key]) -> Result<Vec<Option<Key>>> {
        Ok(claims
            .iter()
            .map(|claim| fs::read_link(self.claim_link(claim)).ok().map(|held| pointed_at(&held)))
            .collect())
    }

    fn claims(&self, prefix: &Key) -> Result<Vec<(Key, Key)>> {
        let owned = |(key, path): (Key, PathBuf)| Some((key, pointed_at(&fs::read_link(path).ok()?)));
        Ok(self.entries(prefix, "")?.into_iter().filter_map(owned).collect())
    }

    fn sweep(&self) -> Result<usize> {
        let folders = fs::read_dir(&self.root).into_iter().flatten().filter_map(|entry| entry.ok());
        let files =
            folders.flat_map(|folder| fs::read_dir(folder.path()).into_iter().flatten().filter_map(|entry| entry.ok()));
        let abandoned: Vec<PathBuf> =
            files.filter(|file| is_abandoned(&file.file_name())).map(|file| file.path()).collect();
        abandoned.iter().try_for_each(|path| remove_file(path))?;
        Ok(abandoned.len())
    }

    fn place(&self, key: &Key) -> String {
        self.record(key).display().to_string()
    }
}

/// The parts of a key after the first, as a file's name.
fn name(key: &Key) -> String {
    let parts: Vec<String> = key.parts().iter().skip(1).map(|part| escape(part)).collect();
    parts.join(BETWEEN_PARTS)
}

fn key(folder: &str, name: &str) -> Key {
    Key([folder].into_iter().chain(name.split(BETWEEN_PARTS)).map(unescape).collect())
}

/// Where a claim's link points: the owner's record, seen from the folder of claims.
fn pointer(owner: &Key) -> PathBuf {
    let folder = owner.parts().first().map(|part| escape(part)).unwrap_or_default();
    Path::new("..").join(folder).join(name(owner) + RECORD)
}

/// The owner that a claim's link points to.
fn pointed_at(pointer: &Path) -> Key {
    let part = |path: Option<&OsStr>| path.unwrap_or_default().to_string_lossy().into_owned();
    let (folder, file) = (part(pointer.parent().and_then(Path::file_name)), part(pointer.file_name()));
    key(&folder, file.strip_suffix(RECORD).unwrap_or(&file))
}

/// Whether this is a file that a process began to write and ended before finishing.
fn is_abandoned(name: &OsStr) -> bool {
    let Some(rest) = name.to_str().and_then(|name| name.strip_prefix(UNFINISHED)) else { return false };
    let pid = rest.split('-').next().unwrap_or_default();
    !Path::new("/proc").join(pid).exists()
}

fn remove_file(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(failed("cannot remove", path)(error)),
        _ => Ok(()),
    }
}

fn failed<'a>(doing: &'a str, path: &'a Path) -> impl Fn(io::Error) -> Error + 'a {
    move |error| {
        let message = format!("{doing} {}", path.display());
        match error.kind() {
            ErrorKind::PermissionDenied => Error::not_permitted(format!("{message}: {}", plain(&error)))
                .hint("run plumb as root, or choose another store with --store DIR"),
            ErrorKind::ReadOnlyFilesystem => Error::not_permitted(format!("{message}: {}", plain(&error)))
                .hint("its file system is read-only: choose another store with --store DIR"),
            ErrorKind::NotADirectory => {
                Error::io(message, &error).hint("a store is a directory, and this is a file: --store DIR")
            }
            _ => Error::io(message, &error),
        }
    }
}

/// A part of a key as the name of a file.
fn escape(part: &str) -> String {
    // Neither hidden, nor "." or "..".
    super::escape(part, |at, c| matches!(c, '/' | '%' | '@' | '\0'..='\x1f' | '\x7f') || at == 0 && c == '.')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn store() -> (tempfile::TempDir, Directory) {
        let folder = tempfile::tempdir().unwrap();
        let store = Directory::new(folder.path().join("store")).unwrap();
        (folder, store)
    }

    #[track_caller]
    fn done(store: &Directory, changes: &[Change]) {
        assert_eq!(store.commit(changes).unwrap(), Committed::Done);
    }

    fn keys(store: &Directory, prefix: &[&str]) -> Vec<Key> {
        let records = store.records(&[Key::of_host(prefix[0], None, &prefix[1..])]).unwrap();
        records.into_iter().map(|(key, _)| key).collect()
    }

    fn claim(claim: &Key, owner: &Key) -> Change {
        Change::Claim { claim: claim.clone(), owner: owner.clone() }
    }

    fn files(store: &Directory) -> Vec<PathBuf> {
        let folders = fs::read_dir(&store.root).unwrap();
        folders
            .flat_map(|folder| fs::read_dir(folder.unwrap().path()).unwrap())
            .map(|file| file.unwrap().path())
            .collect()
    }

    #[test]
    fn what_is_put_is_got_listed_renamed_and_removed_without_a_trace() {
        let (_folder, store) = store();
        let (web, db) = (Key::new(["flat", "web", "eth0.10"]), Key::new(["flat", "netns:/run/x@y", "eth1"]));
        assert_eq!(store.get(&web).unwrap(), None);
        let begun = Key::new(["unfinished", "web", "eth0.10"]);
        done(&store, &[Change::Put(web.clone(), b"1".into()), Change::Put(begun.clone(), b"2".into())]);
        store.flush(&begun).unwrap();
        done(
            &store,
            &[
                Change::Move { from: begun.clone(), to: web.clone(), value: b"2".into() },
                Change::Put(db.clone(), b"3".into()),
            ],
        );
        assert_eq!(store.get(&web).unwrap().unwrap(), b"2");
        assert_eq!(store.get(&begun).unwrap(), None);
        assert_eq!(keys(&store, &["flat"]), [db.clone(), web.clone()]);
        assert_eq!(keys(&store, &["flat", "web"]), std::slice::from_ref(&web));
        for key in [&web, &db, &web] {
            done(&store, &[Change::Remove(key.clone())]);
            store.flush(key).unwrap();
        }
        assert!(files(&store).is_empty());
    }

    #[test]
    fn one_claimant_wins_and_knows_it_again() {
        let (_folder, store) = store();
        let address = Key::new(["claim", "eth0", "192.168.0.100"]);
        let (web, db) = (Key::new(["flat", "web", "eth1"]), Key::new(["flat", "db", "eth1"]));
        done(&store, &[claim(&address, &web)]);
        done(&store, &[claim(&address, &web)]);
        let held = Committed::Held { claim: address.clone(), holder: web.clone() };
        assert_eq!(store.commit(&[claim(&address, &db)]).unwrap(), held);
        assert_eq!(store.holders(&[address.clone(), db.clone()]).unwrap(), [Some(web.clone()), None]);
        done(&store, &[Change::Put(web.clone(), b"{}".into())]);
        assert_eq!(fs::read(store.claim_link(&address)).unwrap(), b"{}", "the claim leads to its owner's record");
        done(&store, &[Change::Release { claim: address.clone(), owner: db.clone() }]);
        assert_eq!(store.claims(&Key::new(["claim"])).unwrap(), [(address.clone(), web.clone())]);
        done(&store, &[Change::Release { claim: address.clone(), owner: web }, claim(&address, &db)]);
    }

    #[test]
    fn a_commit_that_meets_anothers_claim_changes_nothing() {
        let (_folder, store) = store();
        let address = |last: u8| Key::new(["claim", "eth0", &format!("192.168.0.{last}")]);
        let (web, db) = (Key::new(["flat", "web", "eth1"]), Key::new(["flat", "db", "eth1"]));
        done(&store, &[claim(&address(1), &web), claim(&address(3), &db)]);
        let changes = [
            Change::Put(web.clone(), b"{}".into()),
            claim(&address(1), &web),
            claim(&address(2), &web),
            claim(&address(3), &web),
        ];
        assert_eq!(store.commit(&changes).unwrap(), Committed::Held { claim: address(3), holder: db.clone() });
        assert_eq!(store.claims(&Key::new(["claim"])).unwrap(), [(address(1), web.clone()), (address(3), db)]);
        assert_eq!(store.get(&web).unwrap(), None);
    }

    #[test]
    fn of_many_claimants_at_once_one_wins() {
        let (_folder, store) = store();
        let address = Key::new(["claim", "eth0", "192.168.0.100"]);
        let won: usize = std::thread::scope(|scope| {
            let wins = |n: usize| {
                let owner = Key::new(["flat", &n.to_string(), "eth1"]);
                store.commit(&[claim(&address, &owner)]).unwrap() == Committed::Done
            };
            let threads: Vec<_> = (0..20).map(|n| scope.spawn(move || wins(n))).collect();
            threads.into_iter().map(|thread| usize::from(thread.join().unwrap())).sum()
        });
        assert_eq!(won, 1);
    }

    #[test]
    fn what_a_dead_process_was_writing_is_swept_and_what_a_live_one_writes_is_not() {
        let (_folder, store) = store();
        let folder = store.root.join("flat");
        fs::create_dir_all(&folder).unwrap();
        let live = folder.join(format!(".new-{}-web@eth2", std::process::id()));
        fs::write(folder.join(".new-4294967-web@eth1"), "").unwrap();
        fs::write(&live, "").unwrap();
        assert_eq!(keys(&store, &["flat"]), []);
        assert_eq!(store.sweep().unwrap(), 1);
        assert_eq!(files(&store), [live]);
    }

    proptest! {
        #[test]
        fn any_part_can_be_part_of_a_name(part in "\\PC{1,30}|[./%@a]{1,8}", other in "[./%@a]{1,8}") {
            let whole = Key::new(["flat", &part, &other]);
            let file = name(&whole);
            prop_assert!(!file.contains('/') && !file.starts_with('.'));
            prop_assert_eq!(key("flat", &file), whole.clone());
            prop_assert_eq!(pointed_at(&pointer(&whole)), whole);
        }
    }
}
