//! What all records have in common: a format, and a place that follows from what they say.

use serde::{Serialize, de::DeserializeOwned};

use super::{Key, Store};
use crate::error::{Error, Result};

pub trait Record: Serialize + DeserializeOwned {
    /// The latest version of its form that is known here.
    const FORMAT: u32;
    /// What to do about a damaged one.
    const REMEDY: &'static str;

    /// Where it lies.
    fn key(&self) -> Key;

    /// Takes over what is not written down, as the key tells it.
    fn found_at(&mut self, key: &Key);
}

/// The record at `key`, or `None` if there is none.
pub fn read<R: Record>(store: &dyn Store, key: &Key) -> Result<Option<R>> {
    store.get(key)?.map(|text| parse(store, key, &text)).transpose()
}

/// All records under the prefixes. Damaged ones are in their places, as errors.
pub fn under<R: Record>(store: &dyn Store, prefixes: &[Key]) -> Result<Vec<Result<R>>> {
    let records = store.records(prefixes)?;
    Ok(records.into_iter().map(|(key, text)| parse(store, &key, &text?)).collect())
}

/// The record that `text` at `key` is. One that belongs elsewhere is damaged.
pub fn parse<R: Record>(store: &dyn Store, key: &Key, text: &[u8]) -> Result<R> {
    let mut record: R = super::value(store, key, text, R::FORMAT, R::REMEDY)?;
    record.found_at(key);
    let described = record.key();
    if described != *key {
        let place = store.place(key);
        return Err(Error::failed(format!("the record {place} is damaged: it describes {described}"))
            .hint(format!("it was left as it is; {}", R::REMEDY)));
    }
    Ok(record)
}

/// The host in the key of a record of one target and interface, where its store tells hosts apart.
pub fn host_in(key: &Key) -> Option<String> {
    match key.parts() {
        [_, host, _, _] => Some(host.clone()),
        _ => None,
    }
}
