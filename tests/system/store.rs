//! What every store promises, put to each of them.

use std::{
    collections::{BTreeSet, HashSet},
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use netplumb::store::{
    Access, Change, Committed, Condition, Directory, Etcd, Key, Network, Store,
    network::{self, Stored},
};

use crate::{etcd_cluster::Cluster, lab::Lab};

type Check = fn(&dyn Store);

/// The promises, each with a store in which nothing is yet.
const PROMISES: [(&str, Check); 9] = [
    ("records are put, got, listed, moved and removed", records),
    ("prefixes are whole parts", prefixes),
    ("any text can be part of a key", any_text),
    ("one claimant wins and knows it again", claims),
    ("a commit that meets another's claim changes nothing", nothing_changed),
    ("of many claimants at once one wins", many_claimants),
    ("a release leaves another's claim alone", releases),
    ("a commit may be large", large),
    ("a commit happens only under its conditions", conditions),
];

#[test]
fn a_directory_keeps_each_promise() {
    for (promise, check) in PROMISES {
        println!("{promise}");
        let folder = tempfile::tempdir().unwrap();
        check(&Directory::new(folder.path().join("store")).unwrap());
    }
}

#[test]
fn etcd_keeps_each_promise() {
    let lab = Lab::new();
    let cluster = Cluster::single(&lab);
    lab.inside("host", || {
        for (at, (promise, check)) in PROMISES.into_iter().enumerate() {
            println!("{promise}");
            check(&etcd(&cluster, &format!("/promise{at}")));
        }
    });
}

pub fn etcd(cluster: &Cluster, prefix: &str) -> Etcd {
    let access = Access { host: "0123456789ab".into(), ..Access::default() };
    Etcd::new(&(cluster.address() + prefix), access).unwrap()
}

#[track_caller]
fn done(store: &dyn Store, changes: &[Change]) {
    assert_eq!(store.commit(changes).unwrap(), Committed::Done);
}

fn put(key: &Key, value: &str) -> Change {
    Change::Put(key.clone(), value.into())
}

fn claim(claim: &Key, owner: &Key) -> Change {
    Change::Claim { claim: claim.clone(), owner: owner.clone() }
}

fn release(claim: &Key, owner: &Key) -> Change {
    Change::Release { claim: claim.clone(), owner: owner.clone() }
}

fn keys(store: &dyn Store, prefixes: &[Key]) -> Vec<Key> {
    store.records(prefixes).unwrap().into_iter().map(|(key, value)| value.map(|_| key).unwrap()).collect()
}

fn pool(ip: &str) -> Key {
    Key::new(["pool", "red", ip])
}

fn records(store: &dyn Store) {
    let (web, db) = (Key::new(["flat", "web", "eth1"]), Key::new(["flat", "db", "eth1"]));
    let begun = Key::new(["unfinished", "web", "eth1"]);
    assert_eq!(store.get(&web).unwrap(), None);
    assert_eq!(store.records(&[Key::new(["flat"])]).unwrap(), []);
    done(store, &[put(&web, "1"), put(&begun, "2")]);
    store.flush(&begun).unwrap();
    done(store, &[Change::Move { from: begun.clone(), to: web.clone(), value: "2".into() }, put(&db, "")]);
    assert_eq!(store.get(&web).unwrap().unwrap(), b"2");
    assert_eq!(store.get(&db).unwrap().unwrap(), b"");
    assert_eq!(store.get(&begun).unwrap(), None);
    assert_eq!(keys(store, &[Key::new(["unfinished"]), Key::new(["flat"])]), [db.clone(), web.clone()]);
    done(store, &[Change::Remove(web.clone()), Change::Remove(web.clone()), Change::Remove(db)]);
    store.flush(&web).unwrap();
    assert_eq!(keys(store, &[Key::new(["flat"])]), []);
    done(store, &[]);
}

fn prefixes(store: &dyn Store) {
    let key = |target: &str, interface: &str| Key::new(["flat", target, interface]);
    let all = [key("web", "eth1"), key("web", "eth2"), key("web2", "eth1"), key("we", "b")];
    done(store, &all.each_ref().map(|key| put(key, "x")));
    assert_eq!(keys(store, &[Key::new(["flat", "web"])]), all[..2]);
    assert_eq!(keys(store, &[Key::new(["flat", "web2"]), Key::new(["flat", "web"])]).len(), 3);
    assert_eq!(keys(store, &[Key::new(["fla"])]), []);
}

fn any_text(store: &dyn Store) {
    let texts =
        ["netns:/run/netns/x", "a@b", "100%", "%2F", "..", ".new-1-a", "ü€", " ", "a\nb", "\u{7f}", "{\"a\":0}"];
    let all: BTreeSet<Key> = texts.iter().map(|text| Key::new(["flat", text, "eth0.10"])).collect();
    done(store, &all.iter().map(|key| put(key, key.last())).collect::<Vec<_>>());
    done(store, &all.iter().map(|key| claim(&pool(&key.parts()[1]), key)).collect::<Vec<_>>());
    assert_eq!(keys(store, &[Key::new(["flat"])]).into_iter().collect::<BTreeSet<_>>(), all);
    let claims = store.claims(&Key::new(["pool", "red"])).unwrap();
    assert_eq!(claims.len(), texts.len());
    assert!(claims.iter().all(|(claim, owner)| all.contains(owner) && owner.parts()[1] == claim.last()), "{claims:?}");
}

fn claims(store: &dyn Store) {
    let (web, db) = (Key::new(["flat", "web", "eth1"]), Key::new(["flat", "db", "eth1"]));
    let address = pool("10.0.0.1");
    done(store, &[claim(&address, &web)]);
    done(store, &[claim(&address, &web), claim(&address, &web), claim(&pool("10.0.0.2"), &web)]);
    let held = Committed::Held { claim: address.clone(), holder: web.clone() };
    assert_eq!(store.commit(&[claim(&address, &db)]).unwrap(), held);
    assert_eq!(store.holders(&[address.clone(), pool("10.0.0.9")]).unwrap(), [Some(web.clone()), None]);
    assert_eq!(store.holders(&[]).unwrap(), []);
    assert_eq!(keys(store, &[Key::new(["flat"])]), [], "claims are no records");
    let both = [(address.clone(), web.clone()), (pool("10.0.0.2"), web)];
    assert_eq!(store.claims(&Key::new(["pool"])).unwrap(), both);
}

fn nothing_changed(store: &dyn Store) {
    let (web, db) = (Key::new(["flat", "web", "eth1"]), Key::new(["flat", "db", "eth1"]));
    done(store, &[claim(&pool("1"), &web), claim(&pool("3"), &db)]);
    let changes = [put(&web, "{}"), claim(&pool("1"), &web), claim(&pool("2"), &web), claim(&pool("3"), &web)];
    assert_eq!(store.commit(&changes).unwrap(), Committed::Held { claim: pool("3"), holder: db.clone() });
    assert_eq!(store.claims(&Key::new(["pool"])).unwrap(), [(pool("1"), web.clone()), (pool("3"), db)]);
    assert_eq!(store.get(&web).unwrap(), None);
}

fn many_claimants(store: &dyn Store) {
    let won: usize = std::thread::scope(|scope| {
        let wins = |n: usize| {
            let owner = Key::new(["flat", &n.to_string(), "eth1"]);
            store.commit(&[put(&owner, "{}"), claim(&pool("1"), &owner)]).unwrap() == Committed::Done
        };
        let threads: Vec<_> = (0..20).map(|n| scope.spawn(move || wins(n))).collect();
        threads.into_iter().map(|thread| usize::from(thread.join().unwrap())).sum()
    });
    assert_eq!(won, 1);
    assert_eq!(keys(store, &[Key::new(["flat"])]).len(), 1, "who lost has left no record");
}

fn releases(store: &dyn Store) {
    let (web, db) = (Key::new(["flat", "web", "eth1"]), Key::new(["flat", "db", "eth1"]));
    done(store, &[claim(&pool("1"), &web), claim(&pool("2"), &db)]);
    done(store, &[release(&pool("1"), &db), release(&pool("2"), &db), release(&pool("3"), &db)]);
    assert_eq!(store.claims(&Key::new(["pool"])).unwrap(), [(pool("1"), web.clone())]);
    done(store, &[release(&pool("1"), &web), claim(&pool("2"), &web)]);
    done(store, &[release(&pool("2"), &web), claim(&pool("2"), &db)]);
    assert_eq!(store.claims(&Key::new(["pool"])).unwrap(), [(pool("2"), db)]);
}

fn conditions(store: &dyn Store) {
    let (web, db) = (Key::new(["flat", "web", "eth1"]), Key::new(["flat", "db", "eth1"]));
    let red = || Condition::Unclaimed(Key::new(["pool", "red"]));
    let says = |text: &str| Condition::Says(web.clone(), text.into());
    let commit = |conditions: &[Condition], change: &Change| {
        let before = (store.get(&web).unwrap(), store.claims(&Key::new(["pool"])).unwrap());
        let done = store.commit_if(conditions, std::slice::from_ref(change)).unwrap();
        if done == Committed::Unmet {
            assert_eq!((store.get(&web).unwrap(), store.claims(&Key::new(["pool"])).unwrap()), before);
        }
        done == Committed::Done
    };
    assert!(!commit(&[Condition::Present(web.clone())], &put(&web, "1")));
    assert!(commit(&[Condition::Absent(web.clone())], &put(&web, "1")));
    assert!(!commit(&[Condition::Absent(web.clone())], &put(&web, "2")));
    assert!(!commit(&[says("2")], &put(&web, "3")) && !commit(&[says("")], &put(&web, "3")));
    assert!(commit(&[says("1"), red()], &claim(&pool("1"), &web)));
    assert!(!commit(&[says("1"), red()], &claim(&pool("2"), &web)));
    // Another network's claims are no matter, nor are those of one whose name begins so.
    assert!(commit(&[Condition::Unclaimed(Key::new(["pool", "re"]))], &claim(&pool("2"), &web)));
    assert!(commit(&[Condition::Present(web.clone()), says("1")], &Change::Remove(web.clone())));
    assert!(!commit(&[says("1")], &put(&web, "1")));
    // Both: a condition that holds, and a claim that is another's.
    let held = store.commit_if(&[Condition::Absent(web.clone())], &[claim(&pool("1"), &db)]).unwrap();
    assert_eq!(held, Committed::Held { claim: pool("1"), holder: web });
}

/// More than one transaction of etcd's may hold; and one that meets another's claim at its very end.
fn large(store: &dyn Store) {
    let (web, db) = (Key::new(["flat", "web", "eth1"]), Key::new(["flat", "db", "eth1"]));
    done(store, &[claim(&pool("last"), &db)]);
    let claims = |owner: &Key| (0..300).map(|n| claim(&pool(&n.to_string()), owner)).collect::<Vec<_>>();
    let mut changes = vec![put(&web, "{}")];
    changes.extend(claims(&web));
    changes.push(claim(&pool("last"), &web));
    assert_eq!(store.commit(&changes).unwrap(), Committed::Held { claim: pool("last"), holder: db.clone() });
    assert_eq!(store.claims(&Key::new(["pool"])).unwrap(), [(pool("last"), db.clone())]);
    assert_eq!(store.get(&web).unwrap(), None);
    done(store, &claims(&web));
    let all: Vec<Key> = (0..300).map(|n| pool(&n.to_string())).collect();
    assert!(store.holders(&all).unwrap().iter().all(|holder| *holder == Some(web.clone())));
    done(store, &all.iter().map(|address| release(address, &web)).collect::<Vec<_>>());
    assert_eq!(store.claims(&Key::new(["pool"])).unwrap().len(), 1);
}

/// As many as a network of a /16 may have: one more is given at once, without a look at all of them.
#[test]
fn behind_sixty_thousand_claims_the_next_is_found_at_once() {
    let lab = Lab::new();
    let cluster = Cluster::single(&lab);
    lab.inside("host", || {
        let folder = tempfile::tempdir().unwrap();
        sixty_thousand("a directory", &Directory::new(folder.path().join("store")).unwrap());
        sixty_thousand("etcd", &etcd(&cluster, ""));
    });
}

fn sixty_thousand(name: &str, store: &dyn Store) {
    const MANY: u32 = 60_000;
    let network: Network = serde_json::from_value(serde_json::json!({
        "format": 1, "name": "red", "id": 10, "parent": "eth0",
        "pools": [{ "subnet": "10.0.0.0/16", "gateway": "10.0.0.1" }],
    }))
    .unwrap();
    done(store, &[Change::Put(Network::key(&network.name), serde_json::to_vec(&network).unwrap())]);
    let owner = |n: u32| Key::new(["vland", "0123456789ab", &format!("c{n}"), "eth1"]);
    let address = |n: u32| pool(&Ipv4Addr::from_bits(0x0a00_0002 + n).to_string());
    let start = Instant::now();
    done(store, &(0..MANY).map(|n| claim(&address(n), &owner(n))).collect::<Vec<_>>());
    let made = start.elapsed();
    let start = Instant::now();
    assert_eq!(network.given(store).unwrap().len(), MANY as usize);
    println!("{name}: {MANY} claims made in {made:?}, listed in {:?}", start.elapsed());

    let mut took: Vec<Duration> = (MANY..MANY + 30).map(|n| allocation(store, &network, &owner(n))).collect();
    took.sort();
    println!("{name}: one more in {:?}, at worst {:?}", took[15], took[29]);
    assert!(took[15] <= Duration::from_millis(20), "{took:?}");
}

/// All that giving an address to `owner` takes. The first round starts where everything is taken.
fn allocation(store: &dyn Store, network: &Network, owner: &Key) -> Duration {
    let start = Instant::now();
    let Stored { network, mut histories, .. } = network::read(store, &network.name).unwrap().unwrap();
    let ip = network.choose(&network.pools[0], &histories.pools[0], &HashSet::new(), store).unwrap();
    histories.give(&network, [ip].into_iter());
    done(store, &[claim(&network.claim(ip), owner), histories.put(&network.name).unwrap()]);
    start.elapsed()
}
