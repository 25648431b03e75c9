//! A store in a directory: a readable file for each record, a symbolic link for each claim.

use std::{
    ffi::OsStr,
    fs::{self, File},
    io::{self, ErrorKind, Write},
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use super::{Claimed, Key, Safety, Store};
use crate::{
    error::{Error, Result, plain},
    types::StoreMark,
};

/// `ROOT/flat/web/eth1.json` is a record. `ROOT/claim/eth0/192.168.0.100` is a claim: a symbolic
/// link to the record of its owner. Making one is atomic, whole and exclusive in a single system
/// call, and one whose owner has gone dangles for all to see.
pub struct Directory {
    root: PathBuf,
}

const RECORD: &str = "json";
/// Files being written begin so; no part of a key does.
const UNFINISHED: &str = ".new-";

impl Directory {
    pub fn new(root: impl AsRef<Path>) -> Result<Directory> {
        let root = std::path::absolute(root.as_ref()).map_err(|error| Error::usage(format!("{:?} is no directory for a store: {error}", root.as_ref())))?;
        Ok(Directory { root })
    }

    fn folder(&self, key: &Key) -> PathBuf {
        self.root.join(key.parts().iter().map(|part| escape(part)).collect::<PathBuf>())
    }

    fn file(&self, key: &Key) -> PathBuf {
        // Not with_extension: a name such as eth0.10 has a dot of its own.
        let mut path = self.folder(key).into_os_string();
        path.push(".");
        path.push(RECORD);
        path.into()
    }

    /// Where a claim's link points: the owner's record, seen from the claim's folder.
    fn pointer(&self, claim: &Key, owner: &Key) -> PathBuf {
        let up: PathBuf = claim.parts()[1..].iter().map(|_| "..").collect();
        let record = self.file(owner);
        up.join(record.strip_prefix(&self.root).unwrap_or(&record))
    }

    /// The owner that a claim's link points to.
    fn owner(&self, pointer: &Path) -> Key {
        let parts = pointer.components().filter(|part| part.as_os_str() != "..").map(|part| unescape(part.as_os_str()));
        let mut parts: Vec<String> = parts.collect();
        if let Some(last) = parts.last_mut()
            && let Some(name) = last.strip_suffix(&format!(".{RECORD}"))
        {
            *last = name.to_owned();
        }
        Key(parts)
    }

    /// Removes the folders that have become empty, up to the root.
    fn prune(&self, path: &Path) {
        for folder in path.ancestors().skip(1).take_while(|folder| *folder != self.root) {
            if fs::remove_dir(folder).is_err() {
                return;
            }
        }
    }

    /// Runs `make` in the folder of `path`, which is made if it is missing. Another process may
    /// prune the empty folder in between, hence the repetition.
    fn in_folder<T>(&self, path: &Path, make: impl Fn() -> io::Result<T>) -> io::Result<T> {
        let folder = path.parent().unwrap_or(&self.root);
        for _ in 0..100 {
            match make() {
                Err(error) if error.kind() == ErrorKind::NotFound => fs::create_dir_all(folder)?,
                other => return other,
            }
        }
        make()
    }

    /// All files below `folder`, each with its key, in order.
    fn walk(&self, folder: &Path, key: &Key, found: &mut Vec<(Key, PathBuf)>) -> Result<()> {
        let entries = match fs::read_dir(folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(failed("cannot read the store's folder", folder)(error)),
        };
        let mut entries: Vec<fs::DirEntry> = entries.collect::<io::Result<_>>().map_err(failed("cannot read the store's folder", folder))?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let name = entry.file_name();
            let inner = key.with(unescape(&name));
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => self.walk(&entry.path(), &inner, found)?,
                Ok(_) if !name.as_encoded_bytes().starts_with(UNFINISHED.as_bytes()) => found.push((inner, entry.path())),
                _ => {}
            }
        }
        Ok(())
    }
}

impl Store for Directory {
    fn mark(&self) -> StoreMark {
        StoreMark::of(&self.root.to_string_lossy())
    }

    fn get(&self, key: &Key) -> Result<Option<Vec<u8>>> {
        let path = self.file(key);
        match fs::read(&path) {
            Ok(value) => Ok(Some(value)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed("cannot read the record", &path)(error)),
        }
    }

    fn put(&self, key: &Key, value: &[u8], safety: Safety) -> Result<()> {
        let path = self.file(key);
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let unfinished = path.with_file_name(format!("{UNFINISHED}{}-{name}", std::process::id()));
        let write = || -> io::Result<()> {
            let mut file = File::create(&unfinished)?;
            file.write_all(value)?;
            fs::rename(&unfinished, &path)?;
            match safety {
                Safety::Volatile => Ok(()),
                // After the rename, so that one request makes both durable: the journalling file
                // systems write a file's rename with its own log entry.
                Safety::Durable => file.sync_all(),
            }
        };
        self.in_folder(&path, write).map_err(failed("cannot write the record", &path))
    }

    fn remove(&self, key: &Key) -> Result<()> {
        let path = self.file(key);
        remove_file(&path)?;
        self.prune(&path);
        Ok(())
    }

    fn list(&self, prefix: &Key) -> Result<Vec<Key>> {
        let mut found = Vec::new();
        self.walk(&self.folder(prefix), prefix, &mut found)?;
        let suffix = format!(".{RECORD}");
        let key = |(mut key, _): (Key, PathBuf)| {
            let last = key.0.pop()?;
            Some(key.with(last.strip_suffix(&suffix)?.to_owned()))
        };
        Ok(found.into_iter().filter_map(key).collect())
    }

    fn claim(&self, key: &Key, owner: &Key) -> Result<Claimed> {
        let path = self.folder(key);
        let pointer = self.pointer(key, owner);
        match self.in_folder(&path, || symlink(&pointer, &path)) {
            Ok(()) => Ok(Claimed::Won),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                let held = fs::read_link(&path).map_err(failed("cannot read the claim", &path))?;
                if held == pointer { Ok(Claimed::Won) } else { Ok(Claimed::HeldBy(self.owner(&held))) }
            }
            Err(error) => Err(failed("cannot write the claim", &path)(error)),
        }
    }

    fn release(&self, key: &Key, owner: &Key) -> Result<()> {
        let path = self.folder(key);
        if fs::read_link(&path).is_ok_and(|held| held == self.pointer(key, owner)) {
            remove_file(&path)?;
            self.prune(&path);
        }
        Ok(())
    }

    fn claims(&self, prefix: &Key) -> Result<Vec<(Key, Key)>> {
        let mut found = Vec::new();
        self.walk(&self.folder(prefix), prefix, &mut found)?;
        Ok(found.into_iter().filter_map(|(key, path)| Some((key, self.owner(&fs::read_link(path).ok()?)))).collect())
    }

    fn sweep(&self) -> Result<usize> {
        let mut swept = 0;
        let mut folders = vec![self.root.clone()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder).into_iter().flatten().filter_map(|entry| entry.ok()) {
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    folders.push(entry.path());
                } else if is_abandoned(&entry.file_name()) {
                    remove_file(&entry.path())?;
                    self.prune(&entry.path());
                    swept += 1;
                }
            }
            // A run that was killed between making its folder and writing into it leaves it empty.
            if folder != self.root && fs::remove_dir(&folder).is_ok() {
                self.prune(&folder);
            }
        }
        Ok(swept)
    }

    fn place(&self, key: &Key) -> String {
        self.file(key).display().to_string()
    }
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
    move |error| match error.kind() {
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
            Error::not_permitted(format!("{doing} {}: {}", path.display(), plain(&error))).hint("run plumb as root, or choose another store with --store DIR")
        }
        _ => Error::io(format!("{doing} {}", path.display()), &error),
    }
}

/// A part of a key as the name of a file: what a name cannot hold is written `%XX`.
fn escape(part: &str) -> String {
    let mut name = String::with_capacity(part.len());
    for (at, c) in part.char_indices() {
        match c {
            '/' | '%' | '\0'..='\x1f' | '\x7f' => name.push_str(&format!("%{:02X}", u32::from(c))),
            // Neither hidden, nor "." or "..".
            '.' if at == 0 => name.push_str("%2E"),
            _ => name.push(c),
        }
    }
    name
}

fn unescape(name: &OsStr) -> String {
    let name = name.to_string_lossy();
    let mut parts = name.split('%');
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        match part.get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                text.push(char::from(byte));
                text.push_str(&part[2..]);
            }
            None => {
                text.push('%');
                text.push_str(part);
            }
        }
    }
    text
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

    fn files(root: &Path) -> Vec<String> {
        let mut found = Vec::new();
        let mut folders = vec![root.to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
                found.push(entry.path().display().to_string());
                if entry.file_type().unwrap().is_dir() {
                    folders.push(entry.path());
                }
            }
        }
        found
    }

    #[test]
    fn what_is_put_is_got_listed_and_removed_without_a_trace() {
        let (_folder, store) = store();
        let (web, db) = (Key::new(["flat", "web", "eth0.10"]), Key::new(["flat", "netns:/run/x", "eth1"]));
        assert_eq!(store.get(&web).unwrap(), None);
        store.put(&web, b"1", Safety::Volatile).unwrap();
        store.put(&web, b"2", Safety::Durable).unwrap();
        store.put(&db, b"3", Safety::Durable).unwrap();
        assert_eq!(store.get(&web).unwrap().unwrap(), b"2");
        assert_eq!(store.list(&Key::new(["flat"])).unwrap(), [db.clone(), web.clone()]);
        assert_eq!(store.list(&Key::new(["flat", "web"])).unwrap(), [web.clone()]);
        for key in [&web, &db, &web] {
            store.remove(key).unwrap();
        }
        assert_eq!(files(&store.root), [""; 0]);
    }

    #[test]
    fn one_claimant_wins_and_knows_it_again() {
        let (_folder, store) = store();
        let address = Key::new(["claim", "eth0", "192.168.0.100"]);
        let (web, db) = (Key::new(["flat", "web", "eth1"]), Key::new(["flat", "db", "eth1"]));
        assert_eq!(store.claim(&address, &web).unwrap(), Claimed::Won);
        assert_eq!(store.claim(&address, &web).unwrap(), Claimed::Won);
        assert_eq!(store.claim(&address, &db).unwrap(), Claimed::HeldBy(web.clone()));
        store.put(&web, b"{}", Safety::Volatile).unwrap();
        assert_eq!(fs::read(store.folder(&address)).unwrap(), b"{}", "the claim leads to its owner's record");
        store.release(&address, &db).unwrap();
        assert_eq!(store.claims(&Key::new(["claim"])).unwrap(), [(address.clone(), web.clone())]);
        store.release(&address, &web).unwrap();
        assert_eq!(store.claim(&address, &db).unwrap(), Claimed::Won);
    }

    #[test]
    fn of_many_claimants_at_once_one_wins() {
        let (_folder, store) = store();
        let address = Key::new(["claim", "eth0", "192.168.0.100"]);
        let won: usize = std::thread::scope(|scope| {
            let claim = |n: usize| store.claim(&address, &Key::new(["flat", &n.to_string(), "eth1"])).unwrap() == Claimed::Won;
            let threads: Vec<_> = (0..20).map(|n| scope.spawn(move || claim(n))).collect();
            threads.into_iter().map(|thread| usize::from(thread.join().unwrap())).sum()
        });
        assert_eq!(won, 1);
    }

    #[test]
    fn what_a_dead_process_was_writing_is_swept_and_what_a_live_one_writes_is_not() {
        let (_folder, store) = store();
        let folder = store.root.join("flat/web");
        fs::create_dir_all(&folder).unwrap();
        fs::create_dir_all(store.root.join("claim/eth0")).unwrap();
        fs::write(folder.join(".new-4294967-eth1.json"), "").unwrap();
        fs::write(folder.join(format!(".new-{}-eth2.json", std::process::id())), "").unwrap();
        assert_eq!(store.list(&Key::new(["flat"])).unwrap(), []);
        assert_eq!(store.sweep().unwrap(), 1);
        assert_eq!(files(&store.root).len(), 3, "{:?}", files(&store.root));
    }

    proptest! {
        #[test]
        fn any_part_can_be_a_name(part in "\\PC{1,30}|[./%a]{1,8}") {
            let name = escape(&part);
            prop_assert!(!name.contains('/') && !name.starts_with('.'));
            prop_assert_eq!(unescape(OsStr::new(&name)), part);
        }
    }
}
