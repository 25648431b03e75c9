//! What all records have in common: a format, and a place that follows from what they say.

use serde::{Serialize, de::DeserializeOwned};

use super::{Change, Committed, Condition, Key, Store, attachment::done};
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

/// Makes `change` to the record at `key` as it is when it is written: for who holds no lock that keeps others from
/// it. Says whether it was made: there may be none, or not the one that `change` is for.
pub fn amend<R: Record>(store: &dyn Store, key: &Key, mut change: impl FnMut(&mut R) -> bool) -> Result<bool> {
    while let Some(text) = store.get(key)? {
        let mut record: R = parse(store, key, &text)?;
        if !change(&mut record) {
            return Ok(false);
        }
        let amended = Change::Put(key.clone(), super::text(&record)?);
        match store.commit_if(&[Condition::Says(key.clone(), text)], &[amended])? {
            Committed::Unmet => {}
            committed => return done(committed).map(|()| true),
        }
    }
    Ok(false)
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

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::{super::Directory, *};

    #[derive(Serialize, Deserialize)]
    struct Sum {
        format: u32,
        of: Vec<u32>,
    }

    impl Record for Sum {
        const FORMAT: u32 = 1;
        const REMEDY: &'static str = "add it up again";

        fn key(&self) -> Key {
            Key::new(["sum", "a"])
        }

        fn found_at(&mut self, _: &Key) {}
    }

    #[test]
    fn what_another_writes_meanwhile_is_not_lost() {
        let folder = tempfile::tempdir().unwrap();
        let store = Directory::new(folder.path().join("store")).unwrap();
        let put = |of: &[u32]| {
            let sum = Sum { format: 1, of: of.to_vec() };
            done(store.commit(&[Change::Put(sum.key(), super::super::text(&sum).unwrap())]).unwrap()).unwrap();
            sum.key()
        };
        let key = put(&[1]);
        let mut tries = 0;
        let amended = amend(&store, &key, |sum: &mut Sum| {
            tries += 1;
            if tries == 1 {
                put(&[1, 2]);
            }
            sum.of.push(3);
            true
        });
        assert!(amended.unwrap());
        assert_eq!((read::<Sum>(&store, &key).unwrap().unwrap().of, tries), (vec![1, 2, 3], 2));
        assert!(!amend(&store, &key, |_: &mut Sum| false).unwrap(), "it is another");
        assert!(!amend(&store, &Key::new(["sum", "b"]), |_: &mut Sum| true).unwrap(), "there is none");
    }
}
