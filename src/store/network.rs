//! The record of a network: its VLAN, its subnets, and what is remembered of their pools.

use std::{collections::HashSet, net::IpAddr};

use serde::{Deserialize, Serialize};

use super::{Change, Committed, Condition, Key, Store, attachment::POOL};
use crate::{
    error::{Error, Result},
    ipam::{Ask, History, Pool, Unfit},
    types::{HostAddress, IfName, Mtu, NetworkName, VlanId, VlanProtocol},
};

/// A VLAN with a name and addresses, the same on every host that shares the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// The version of this form. A record of a later one is not guessed at.
    pub format: u32,
    pub name: NetworkName,
    pub id: VlanId,
    #[serde(default)]
    pub protocol: VlanProtocol,
    /// The host interface that carries the VLAN, unless a host says otherwise.
    pub parent: IfName,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<Mtu>,
    /// At most one for each IP version.
    pub pools: Vec<Pool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway_host: Option<GatewayHost>,
}

/// What became of a network that was to be created.
#[derive(Debug, PartialEq, Eq)]
pub enum Created {
    Done,
    /// There is one of this name.
    NameTaken,
    /// The id is that of another network, which is named, on the same parent.
    IdTaken(String),
}

/// The host that is a network's gateway.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GatewayHost {
    /// As the store tells hosts apart; none in one that is a single host's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// For people.
    pub name: String,
    pub interface: IfName,
    /// What leaves by another interface gets this host's address.
    pub nat: bool,
}

pub const FORMAT: u32 = 1;

/// Records of networks, claims on VLAN ids, and the pools' histories.
pub const NETWORK: &str = "vlan";
pub const VLAN_ID: &str = "vlan-id";
pub const HISTORY: &str = "history";

impl Network {
    pub fn key(name: &NetworkName) -> Key {
        Key::new([NETWORK, name.as_str()])
    }

    fn id_claim(&self) -> Key {
        Key::new([VLAN_ID, self.parent.as_str(), &self.id.to_string()])
    }

    /// Stores a new network, and claims its id on its parent. The claim is first: killed in between,
    /// a run leaves an id that nobody has rather than two networks with one.
    pub fn create(&self, store: &dyn Store) -> Result<Created> {
        let key = Network::key(&self.name);
        let claim = Change::Claim { claim: self.id_claim(), owner: key.clone() };
        let put = Change::Put(key.clone(), super::text(self)?);
        match store.commit_if(&[Condition::Absent(key)], &[claim, put])? {
            Committed::Done => Ok(Created::Done),
            Committed::Unmet => Ok(Created::NameTaken),
            Committed::Held { holder, .. } => Ok(Created::IdTaken(holder.last().to_owned())),
        }
    }

    /// An address that somebody asked for, with its prefix length.
    pub fn address(&self, ip: IpAddr) -> Result<HostAddress> {
        let name = &self.name;
        let unfit = |pool: &Pool| match pool.fit(ip) {
            Ok(()) => pool.subnet.host(ip).map_err(|reason| (Error::usage(reason), false)),
            Err(Unfit::Outside) => Err((Error::usage(format!("{ip} is outside of {}", pool.subnet)), true)),
            Err(Unfit::Gateway) => Err((Error::conflict(format!("{ip} is the gateway of {name}")), false)),
            Err(Unfit::Reserved) => Err((Error::conflict(format!("{ip} is reserved in {name}")), false)),
            Err(Unfit::NoHost(reason)) => Err((Error::usage(reason), false)),
        };
        let home = self.pools.iter().map(unfit).find(|found| !matches!(found, Err((_, true))));
        let subnets: Vec<String> = self.pools.iter().map(|pool| pool.subnet.to_string()).collect();
        home.unwrap_or_else(|| {
            Err((Error::usage(format!("{ip} is outside of {name}, which has {}", subnets.join(" and "))), true))
        })
        .map_err(|(error, _)| error.hint("leave --ip out, and the network chooses an address"))
    }

    /// The addresses that are given away, each with its owner's key.
    pub fn given(&self, store: &dyn Store) -> Result<Vec<(IpAddr, Key)>> {
        let claims = store.claims(&Key::new([POOL, self.name.as_str()]))?;
        Ok(claims.into_iter().filter_map(|(claim, owner)| Some((claim.last().parse().ok()?, owner))).collect())
    }

    /// The address that `pool` gives next, none of `lost` among them; an error if all are taken.
    pub fn choose(&self, pool: &Pool, history: &History, lost: &HashSet<IpAddr>, store: &dyn Store) -> Result<IpAddr> {
        let taken = |ask: Ask| -> Result<HashSet<IpAddr>> {
            let mut taken = lost.clone();
            match ask {
                Ask::Among(ips) => {
                    let claims: Vec<Key> = ips.iter().map(|ip| self.claim(*ip)).collect();
                    let held = store.holders(&claims)?;
                    taken.extend(ips.iter().zip(held).filter(|(_, holder)| holder.is_some()).map(|(ip, _)| *ip));
                }
                Ask::All => taken.extend(self.given(store)?.into_iter().map(|(ip, _)| ip)),
            }
            Ok(taken)
        };
        pool.choose(history, taken)?.ok_or_else(|| {
            let (name, capacity) = (&self.name, pool.capacity());
            let all = if capacity == 1 { "the only address".to_owned() } else { format!("all {capacity} addresses") };
            let are = if capacity == 1 { "is" } else { "are" };
            Error::conflict(format!("{name} is exhausted: {all} of {} {are} given", pool.subnet))
                .hint("plumb ls shows by whom; detach what is no longer needed, then plumb gc")
        })
    }

    pub fn claim(&self, ip: IpAddr) -> Key {
        Key::new([POOL, self.name.as_str(), &ip.to_string()])
    }
}

/// The conditions under which the claim on an id is lost: that there is no record of its owner's, or
/// that this stays one with another id. `None` if the id is the owner's.
pub fn lost_id(store: &dyn Store, claim: &Key, owner: &Key) -> Result<Option<Vec<Condition>>> {
    let text = store.get(owner)?;
    let has_it = |text: &Vec<u8>| parse(store, owner, text).map_or(true, |network| network.id_claim() == *claim);
    let is_lost = !text.as_ref().is_some_and(has_it);
    Ok(is_lost.then(|| vec![Condition::as_found(owner.clone(), text)]))
}

/// The network that has this id on this parent, by its name.
pub fn of_id(store: &dyn Store, parent: &IfName, id: VlanId) -> Result<Option<String>> {
    let holders = store.holders(&[Key::new([VLAN_ID, parent.as_str(), &id.to_string()])])?;
    Ok(holders.into_iter().flatten().next().map(|owner| owner.last().to_owned()))
}

/// A network as it is in a store, and what is remembered of its pools.
#[derive(Debug, Clone)]
pub struct Stored {
    pub network: Network,
    pub histories: Histories,
    /// Whoever wrote it may have laid it out in another way than `text` does.
    text: Vec<u8>,
}

impl Stored {
    /// A network that was just created.
    pub fn new(network: Network) -> Result<Stored> {
        let text = super::text(&network)?;
        Ok(Stored { histories: Histories::of(&network, None), network, text })
    }

    fn key(&self) -> Key {
        Network::key(&self.network.name)
    }

    /// The condition that it is still the same.
    pub fn as_found(&self) -> Condition {
        Condition::Says(self.key(), self.text.clone())
    }

    /// Puts `network` in its place.
    pub fn replace(self, network: Network, store: &dyn Store) -> Result<Stored> {
        let new = Stored { text: super::text(&network)?, network, histories: self.histories.clone() };
        super::attachment::done(store.commit_if(&[self.as_found()], &[Change::Put(self.key(), new.text.clone())])?)?;
        Ok(new)
    }

    /// Removes the record and all that belongs to it, if nobody has an address of it. Says whether.
    pub fn remove(&self, store: &dyn Store) -> Result<bool> {
        let changes = [
            Change::Remove(history_key(&self.network.name)),
            Change::Remove(self.key()),
            Change::Release { claim: self.network.id_claim(), owner: self.key() },
        ];
        let unused = Condition::Unclaimed(Key::new([POOL, self.network.name.as_str()]));
        Ok(store.commit_if(&[self.as_found(), unused], &changes)? == Committed::Done)
    }
}

/// A network by its name, or `None`.
pub fn read(store: &dyn Store, name: &NetworkName) -> Result<Option<Stored>> {
    let key = Network::key(name);
    let mut found = store.values(&[key.clone(), history_key(name)])?.into_iter();
    let (text, history) = (found.next().flatten(), found.next().flatten());
    let Some(text) = text else { return Ok(None) };
    let network = parse(store, &key, &text)?;
    let histories = Histories::of(&network, history.as_deref());
    Ok(Some(Stored { network, histories, text }))
}

/// All networks; damaged records are in their places, as errors.
pub fn all(store: &dyn Store) -> Result<Vec<Result<Network>>> {
    let records = store.records(&[Key::new([NETWORK])])?;
    Ok(records.into_iter().map(|(key, text)| parse(store, &key, &text?)).collect())
}

fn parse(store: &dyn Store, key: &Key, text: &[u8]) -> Result<Network> {
    let network: Network = super::value(store, key, text, FORMAT, "mend it by hand, or remove it")?;
    if Network::key(&network.name) != *key {
        let place = store.place(key);
        return Err(Error::failed(format!("the record {place} is damaged: it describes {}", network.name)));
    }
    Ok(network)
}

/// What is remembered of a network's pools, in their order.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Histories {
    format: u32,
    pub pools: Vec<History>,
}

fn history_key(name: &NetworkName) -> Key {
    Key::new([HISTORY, name.as_str()])
}

impl Histories {
    /// Only a hint: one that cannot be read is begun anew.
    fn of(network: &Network, text: Option<&[u8]>) -> Histories {
        let mut found: Histories = text.and_then(|text| serde_json::from_slice(text).ok()).unwrap_or_default();
        found.format = FORMAT;
        found.pools.resize(network.pools.len(), History::default());
        found
    }

    /// The change that remembers `self`.
    pub fn put(&self, name: &NetworkName) -> Result<Change> {
        Ok(Change::Put(history_key(name), super::text(self)?))
    }

    /// The addresses were given away.
    pub fn give(&mut self, network: &Network, ips: impl Iterator<Item = IpAddr>) {
        for ip in ips {
            let home = network.pools.iter().position(|pool| pool.subnet.contains(ip));
            if let Some((pool, history)) = home.and_then(|at| Some((&network.pools[at], self.pools.get_mut(at)?))) {
                history.give(pool, ip);
            }
        }
    }
}

/// The change that remembers that `ips` were given back, if the network is still there.
pub fn given_back(store: &dyn Store, name: &NetworkName, ips: &[IpAddr]) -> Result<Option<Change>> {
    let Some(Stored { network, mut histories, .. }) = read(store, name)? else { return Ok(None) };
    for (pool, history) in network.pools.iter().zip(&mut histories.pools) {
        ips.iter().filter(|ip| pool.subnet.contains(**ip)).for_each(|ip| history.release(*ip));
    }
    histories.put(name).map(Some)
}
