//! What plumb remembers: attachments, and who has which address.

pub mod attachment;
mod directory;

use std::fmt;

pub use attachment::{Attachment, Kept, NamespaceMark, Progress};
pub use directory::Directory;

/// Where records are kept unless somebody says otherwise.
pub const DEFAULT: &str = "/var/lib/plumb";

use crate::{
    error::{Error, Kind, Result},
    types::StoreMark,
};

/// A place to remember things by key. A local directory is one; a cluster will be another.
pub trait Store: Sync {
    /// The mark on the links whose records are here.
    fn mark(&self) -> StoreMark;

    /// The value, or `None` if there is none.
    fn get(&self, key: &Key) -> Result<Option<Vec<u8>>>;

    /// Sets the value, whole or not at all. It outlives the process; a loss of power only after `flush`.
    fn put(&self, key: &Key, value: &[u8]) -> Result<()>;

    /// Makes what was last done to `key` outlive a loss of power, its removal too.
    fn flush(&self, key: &Key) -> Result<()>;

    /// Gives the value of `from` to `to`, in one stroke: there is no moment with both or neither.
    fn rename(&self, from: &Key, to: &Key) -> Result<()>;

    /// Removes the value. That there is none is no error.
    fn remove(&self, key: &Key) -> Result<()>;

    /// The keys under `prefix`, sorted.
    fn list(&self, prefix: &Key) -> Result<Vec<Key>>;

    /// Claims what `key` names for the record `owner`: one of any number of claimants wins.
    fn claim(&self, key: &Key, owner: &Key) -> Result<Claimed>;

    /// Who has claimed what `key` names.
    fn holder(&self, key: &Key) -> Result<Option<Key>>;

    /// Gives a claim of `owner`'s back. Another's is left alone.
    fn release(&self, key: &Key, owner: &Key) -> Result<()>;

    /// The claims under `prefix`, each with its owner.
    fn claims(&self, prefix: &Key) -> Result<Vec<(Key, Key)>>;

    /// Removes what a killed run left of its own writing. Says how much that was.
    fn sweep(&self) -> Result<usize>;

    /// Where a person finds what `key` names.
    fn place(&self, key: &Key) -> String;
}

/// The outcome of a claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claimed {
    /// It is the claimant's, now or already.
    Won,
    HeldBy(Key),
}

/// A path of parts, each of which may be any text but the empty one. The first says what kind of
/// thing it names.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Vec<String>);

impl Key {
    pub fn new<const N: usize>(parts: [&str; N]) -> Key {
        Key(parts.map(str::to_owned).to_vec())
    }

    pub fn parts(&self) -> &[String] {
        &self.0
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("/"))
    }
}

/// Opens the store that `address` names: a directory.
pub fn open(address: &str) -> Result<Box<dyn Store>> {
    match address.split_once("://") {
        Some((scheme, _)) => Err(Error::new(Kind::Usage, format!("{address}: plumb knows no {scheme} store"))
            .hint("give a directory, such as /var/lib/plumb")),
        None => Ok(Box::new(Directory::new(address)?)),
    }
}
