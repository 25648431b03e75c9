use std::convert::Infallible;

use proptest::prelude::*;

use super::*;

fn pool(subnet: &str) -> Pool {
    let subnet: Subnet = subnet.parse().unwrap();
    Pool { subnet, gateway: subnet.hosts().first(), ranges: vec![], reserved: vec![] }
}

/// A pool in use, and the plainest model of it: everything in sets and lists.
struct Model {
    pool: Pool,
    history: History,
    held: HashSet<IpAddr>,
    ever: HashSet<IpAddr>,
    /// Given back, the last one last.
    released: Vec<IpAddr>,
    asked: usize,
}

impl Model {
    fn new(pool: Pool) -> Model {
        Model {
            pool,
            history: History::default(),
            held: HashSet::new(),
            ever: HashSet::new(),
            released: vec![],
            asked: 0,
        }
    }

    fn choose(&mut self) -> Option<IpAddr> {
        let (held, asked) = (&self.held, &mut self.asked);
        let answer = |ask: Ask| {
            Ok::<_, Infallible>(match ask {
                Ask::Among(ips) => {
                    *asked += ips.len();
                    ips.iter().copied().filter(|ip| held.contains(ip)).collect()
                }
                Ask::All => {
                    *asked += held.len();
                    held.clone()
                }
            })
        };
        self.pool.choose(&self.history, answer).unwrap()
    }

    fn give(&mut self) -> Option<IpAddr> {
        let ip = self.choose()?;
        assert!(self.held.insert(ip), "{ip} twice");
        assert_eq!(self.pool.fit(ip), Ok(()));
        self.history.give(&self.pool, ip);
        self.ever.insert(ip);
        self.released.retain(|released| *released != ip);
        Some(ip)
    }

    fn release(&mut self, ip: IpAddr) {
        assert!(self.held.remove(&ip));
        self.history.release(ip);
        self.released.push(ip);
    }
}

#[test]
fn a_small_network_gives_each_address_but_the_spared_ones_and_then_says_so() {
    let mut model = Model::new(Pool { reserved: vec!["10.1.0.3".parse().unwrap()], ..pool("10.1.0.0/29") });
    let given: Vec<String> = std::iter::from_fn(|| model.give()).map(|ip| ip.to_string()).collect();
    assert_eq!(given, ["10.1.0.2", "10.1.0.4", "10.1.0.5", "10.1.0.6"]);
    assert_eq!(model.pool.capacity(), 4);
}

#[test]
fn what_was_given_back_last_comes_last() {
    let mut model = Model::new(pool("10.1.0.0/29"));
    let given: Vec<IpAddr> = std::iter::from_fn(|| model.give()).collect();
    for at in [3, 0, 2] {
        model.release(given[at]);
    }
    let again: Vec<IpAddr> = std::iter::from_fn(|| model.give()).collect();
    assert_eq!(again, [given[3], given[0], given[2]]);
}

#[test]
fn a_new_address_is_preferred_to_a_used_one() {
    let mut model = Model::new(pool("10.1.0.0/24"));
    let first = model.give().unwrap();
    model.release(first);
    assert_ne!(model.give().unwrap(), first);
}

#[test]
fn ranges_are_gone_through_one_after_the_other() {
    let ranges = ["10.1.0.250-10.1.0.251", "10.1.0.10-10.1.0.11"].map(|text| text.parse().unwrap());
    let mut model = Model::new(Pool { ranges: ranges.into(), ..pool("10.1.0.0/24") });
    let given: Vec<String> = std::iter::from_fn(|| model.give()).map(|ip| ip.to_string()).collect();
    assert_eq!(given, ["10.1.0.250", "10.1.0.251", "10.1.0.10", "10.1.0.11"]);
}

#[test]
fn a_large_network_is_not_looked_at_as_a_whole() {
    let mut model = Model::new(pool("fd00::/64"));
    for _ in 0..100 {
        model.give().unwrap();
    }
    assert!(model.asked <= 100 * 8, "{} addresses asked about", model.asked);
    // The round stands in front of 60,000 taken addresses in a row.
    let mut model = Model::new(pool("10.1.0.0/16"));
    let hosts = model.pool.subnet.hosts();
    model.held = (0..60_000).filter_map(|at| hosts.at(at)).collect();
    model.give().unwrap();
    assert!(model.asked <= 200, "{} addresses asked about", model.asked);
}

#[test]
fn what_cannot_be_given_says_why() {
    let pool = Pool { reserved: vec!["10.1.0.9".parse().unwrap()], ..pool("10.1.0.0/24") };
    let fit = |ip: &str| pool.fit(ip.parse().unwrap());
    assert_eq!(fit("10.1.0.7"), Ok(()));
    assert_eq!(fit("10.1.0.9"), Err(Unfit::Reserved));
    assert_eq!(fit("10.1.0.1"), Err(Unfit::Gateway));
    assert_eq!(fit("10.2.0.1"), Err(Unfit::Outside));
    assert!(matches!(fit("10.1.0.255"), Err(Unfit::NoHost(reason)) if reason.contains("broadcast")));
    assert!(matches!(fit("10.1.0.0"), Err(Unfit::NoHost(_))));
}

proptest! {
    /// Against the model: never twice, never a spared one, exhausted only if all are taken, a new
    /// one before a used one in the first round, and none of the last given back while there is another.
    #[test]
    fn a_pool_keeps_its_promises(
        prefix in 24u8..=30,
        reserved in proptest::collection::vec(0u8..=255, 0..4),
        doing in proptest::collection::vec((any::<bool>(), any::<prop::sample::Index>()), 1..400),
    ) {
        let mut pool = pool(&format!("10.1.0.0/{prefix}"));
        pool.reserved = reserved.into_iter().map(|last| IpAddr::from([10, 1, 0, last])).collect();
        let all: Vec<IpAddr> = (0..256).filter_map(|at| pool.subnet.hosts().at(at)).filter(|ip| pool.fit(*ip).is_ok()).collect();
        let mut model = Model::new(pool);
        for (give, which) in doing {
            if give {
                let free: Vec<IpAddr> = all.iter().copied().filter(|ip| !model.held.contains(ip)).collect();
                let recent: Vec<IpAddr> = model.released.iter().rev().take(History::RECENT).copied().collect();
                let (fresh, is_new) = (free.iter().any(|ip| !recent.contains(ip)), |ip: &IpAddr| !model.ever.contains(ip));
                let had_new = free.iter().any(is_new);
                let ever = model.ever.clone();
                let first_round = model.ever.len() + model.released.len() < all.len();
                match model.give() {
                    None => prop_assert!(free.is_empty()),
                    Some(ip) => {
                        prop_assert!(free.contains(&ip));
                        prop_assert!(!fresh || !recent.contains(&ip), "{} was just given back", ip);
                        prop_assert!(!(first_round && had_new && ever.contains(&ip)), "{} is used, and there are new ones", ip);
                    }
                }
            } else if !model.held.is_empty() {
                let mut held: Vec<IpAddr> = model.held.iter().copied().collect();
                held.sort();
                let ip = held[which.index(held.len())];
                model.release(ip);
            }
        }
    }

    /// Whatever a record says of the past, the choice is a right one.
    #[test]
    fn a_wrong_history_does_no_harm(next in any::<u128>(), released in proptest::collection::vec(any::<[u8; 4]>(), 0..9)) {
        let mut model = Model::new(pool("10.1.0.0/28"));
        model.history = History { next, released: released.into_iter().map(IpAddr::from).collect() };
        prop_assert_eq!(std::iter::from_fn(|| model.give()).count(), 13);
    }
}
