//! Which address a network gives next. Pure: what is taken is asked for through a closure, and only
//! as much of it as is needed.

use std::{
    collections::{BTreeSet, HashSet},
    net::IpAddr,
};

use serde::{Deserialize, Serialize};

use crate::types::{IpRange, Subnet};

/// A subnet and which of its addresses may be given away.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pool {
    pub subnet: Subnet,
    pub gateway: IpAddr,
    /// Where addresses are chosen from; none: from all of the subnet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ranges: Vec<IpRange>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reserved: Vec<IpAddr>,
}

/// What is remembered of a pool so that addresses come back late: where the round stands, and what
/// was given back last. It is a hint. If it is lost or out of date the choice is another, never wrong.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// How far the round has come, as an offset in the pool.
    pub next: u128,
    /// Given back, the longest ago first; at most [`History::RECENT`].
    #[serde(default)]
    pub released: Vec<IpAddr>,
}

/// A question about which addresses are taken.
#[derive(Debug)]
pub enum Ask<'a> {
    /// Which of these are.
    Among(&'a [IpAddr]),
    /// All that are.
    All,
}

/// Why an address that somebody asked for by name cannot be given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unfit {
    Outside,
    Gateway,
    Reserved,
    /// The network's own address, its broadcast address and the like.
    NoHost(String),
}

impl History {
    /// So many of the addresses given back last are passed over while there are others.
    pub const RECENT: usize = 64;

    /// `ip` was given away: the round goes on behind it.
    pub fn give(&mut self, pool: &Pool, ip: IpAddr) {
        self.released.retain(|released| *released != ip);
        if let Some(offset) = pool.offset(ip) {
            self.next = (offset + 1) % pool.size();
        }
    }

    /// `ip` was given back.
    pub fn release(&mut self, ip: IpAddr) {
        self.released.retain(|released| *released != ip);
        self.released.push(ip);
        let old = self.released.len().saturating_sub(Self::RECENT);
        self.released.drain(..old);
    }
}

impl Pool {
    /// Whether `ip` may be given to who asks for it. It need not lie in the ranges.
    pub fn fit(&self, ip: IpAddr) -> Result<(), Unfit> {
        if !self.subnet.contains(ip) {
            return Err(Unfit::Outside);
        }
        self.subnet.host(ip).map_err(Unfit::NoHost)?;
        if ip == self.gateway {
            return Err(Unfit::Gateway);
        }
        if self.reserved.contains(&ip) { Err(Unfit::Reserved) } else { Ok(()) }
    }

    /// Whether `ip` is one of those that `choose` may choose.
    pub fn could_choose(&self, ip: IpAddr) -> bool {
        self.offset(ip).is_some() && self.fit(ip).is_ok()
    }

    /// How many addresses there are to choose from.
    pub fn capacity(&self) -> u128 {
        let spared: HashSet<IpAddr> = self.reserved.iter().copied().chain([self.gateway]).collect();
        let spared = spared.into_iter().filter(|ip| self.offset(*ip).is_some()).count();
        self.size().saturating_sub(spared as u128)
    }

    /// The address that is next in the round, whether or not it is taken: mostly it is free, and to
    /// claim it costs no more than to ask.
    pub fn guess(&self, history: &History) -> Option<IpAddr> {
        let start = history.next % self.size();
        self.following(start, 0..8).into_iter().filter_map(|at| self.at(at)).find(|ip| self.is_fresh(*ip, history))
    }

    fn is_fresh(&self, ip: IpAddr, history: &History) -> bool {
        self.fit(ip).is_ok() && !history.released.contains(&ip)
    }

    /// The address to give next, or `None` if all are taken.
    ///
    /// Addresses are gone through in rounds, so that in the first round each is a new one, and later
    /// ones the longest unused; what was given back last comes when nothing else is left. First the
    /// next few of the round are asked for, then some scattered over the pool, as behind a long
    /// stretch of taken ones a free one is found so at once; and only a pool that is all but full is
    /// looked at as a whole.
    pub fn choose<E>(
        &self,
        history: &History,
        mut taken: impl FnMut(Ask) -> Result<HashSet<IpAddr>, E>,
    ) -> Result<Option<IpAddr>, E> {
        let start = history.next % self.size();
        for offsets in [self.following(start, 0..8), self.following(start, 8..72), self.scattered(start)] {
            let candidates = offsets.into_iter().filter_map(|at| self.at(at));
            let candidates: Vec<IpAddr> = candidates.filter(|ip| self.is_fresh(*ip, history)).collect();
            if candidates.is_empty() {
                continue;
            }
            let held = taken(Ask::Among(&candidates))?;
            if let Some(free) = candidates.into_iter().find(|ip| !held.contains(ip)) {
                return Ok(Some(free));
            }
        }
        let held = taken(Ask::All)?;
        let fresh = self.first_gap(start, &held, &history.released);
        Ok(fresh.or_else(|| history.released.iter().copied().find(|ip| self.is_free(*ip, &held))))
    }

    fn is_free(&self, ip: IpAddr, held: &HashSet<IpAddr>) -> bool {
        self.could_choose(ip) && !held.contains(&ip)
    }

    /// The first address from `start` on, and around, that is neither taken nor spared. It takes as
    /// long as there are taken ones, however large the pool.
    fn first_gap(&self, start: u128, held: &HashSet<IpAddr>, recent: &[IpAddr]) -> Option<IpAddr> {
        let spared = self.reserved.iter().chain(recent).chain([&self.gateway]);
        let blocked: BTreeSet<u128> = held.iter().chain(spared).filter_map(|ip| self.offset(*ip)).collect();
        let gap = |from: u128, end: u128| {
            let mut at = from;
            for taken in blocked.range(from..end) {
                if *taken != at {
                    break;
                }
                at += 1;
            }
            (at < end).then_some(at)
        };
        gap(start, self.size()).or_else(|| gap(0, start)).and_then(|at| self.at(at))
    }

    fn following(&self, start: u128, steps: std::ops::Range<u128>) -> Vec<u128> {
        steps.filter(|step| *step < self.size()).map(|step| start.wrapping_add(step) % self.size()).collect()
    }

    /// Offsets all over the pool, others for each `start`.
    fn scattered(&self, start: u128) -> Vec<u128> {
        const MANY: u64 = 128;
        // Below that a look at all costs no more.
        if self.size() < 4 * u128::from(MANY) {
            return Vec::new();
        }
        let seed = start as u64;
        let random = |n: u64| {
            let (high, low) = (scramble(seed ^ (2 * n + 1)), scramble(seed.wrapping_add(2 * n)));
            (u128::from(high) << 64 | u128::from(low)) % self.size()
        };
        (0..MANY).map(random).collect()
    }

    fn ranges(&self) -> Vec<IpRange> {
        if self.ranges.is_empty() { vec![self.subnet.hosts()] } else { self.ranges.clone() }
    }

    fn size(&self) -> u128 {
        self.ranges().into_iter().map(IpRange::size).fold(0, u128::saturating_add)
    }

    fn at(&self, mut offset: u128) -> Option<IpAddr> {
        for range in self.ranges() {
            match range.at(offset) {
                Some(ip) => return Some(ip),
                None => offset -= range.size(),
            }
        }
        None
    }

    fn offset(&self, ip: IpAddr) -> Option<u128> {
        let mut before = 0;
        for range in self.ranges() {
            match range.offset(ip) {
                Some(offset) => return Some(before + offset),
                None => before += range.size(),
            }
        }
        None
    }
}

/// The output function of SplitMix64 (Steele, Lea, Flood 2014): neighbours come out far apart.
fn scramble(number: u64) -> u64 {
    let number = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

#[cfg(test)]
mod tests;
