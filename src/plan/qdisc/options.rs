//! The options of tbf and netem as the kernel reads and writes them (`include/uapi/linux/pkt_sched.h`).
//! Numbers are in the machine's own order.

use super::{AsRead, Netem, Peak, Tbf};
use crate::types::{Percent, Rate};

/// One tick of the packet scheduler: 64 ns (`PSCHED_SHIFT` in `include/net/pkt_sched.h`).
const TICK_SHIFT: u32 = 6;

const TCA_TBF_PARMS: u16 = 1;
const TCA_TBF_RATE64: u16 = 4;
const TCA_TBF_PRATE64: u16 = 5;
const TCA_TBF_BURST: u16 = 6;
const TCA_TBF_PBURST: u16 = 7;

const TCA_NETEM_CORR: u16 = 1;
const TCA_NETEM_REORDER: u16 = 3;
const TCA_NETEM_CORRUPT: u16 = 4;
const TCA_NETEM_LATENCY64: u16 = 10;
const TCA_NETEM_JITTER64: u16 = 11;

/// `struct tc_ratespec`: eight bytes of other things before the rate. The second of them says that the
/// link layer is Ethernet's; without it the kernel wants a table of times, as it did before Linux 3.8.
const RATESPEC: usize = 12;
const TC_LINKLAYER_ETHERNET: u8 = 1;
/// `struct tc_tbf_qopt`: two of them, then limit, buffer and mtu.
const TBF_QOPT: usize = 2 * RATESPEC + 12;
/// `struct tc_netem_qopt`: latency, limit, loss, gap, duplicate, jitter.
const NETEM_QOPT: usize = 24;

pub fn of_tbf(tbf: &Tbf) -> Vec<u8> {
    let peak = tbf.peak.as_ref();
    let ticks = |rate: Rate, burst: u32| low(rate.nanoseconds_for(burst.into()) >> TICK_SHIFT);
    let mut parameters = ratespec(Some(tbf.rate));
    parameters.extend(ratespec(peak.map(|peak| peak.rate)));
    parameters.extend(tbf.limit.to_ne_bytes());
    parameters.extend(ticks(tbf.rate, tbf.burst).to_ne_bytes());
    parameters.extend(peak.map_or(0, |peak| ticks(peak.rate, peak.burst)).to_ne_bytes());
    let mut options = attribute(TCA_TBF_PARMS, &parameters);
    let mut rate64 = |kind, rate: Rate| {
        if rate.bytes_per_second() > u64::from(u32::MAX) {
            options.extend(attribute(kind, &rate.bytes_per_second().to_ne_bytes()));
        }
    };
    rate64(TCA_TBF_RATE64, tbf.rate);
    if let Some(peak) = peak {
        rate64(TCA_TBF_PRATE64, peak.rate);
    }
    // In bytes they are exact; in ticks a large rate would lose some.
    options.extend(attribute(TCA_TBF_BURST, &tbf.burst.to_ne_bytes()));
    if let Some(peak) = peak {
        options.extend(attribute(TCA_TBF_PBURST, &peak.burst.to_ne_bytes()));
    }
    options
}

/// All attributes, those of nothing too: the kernel keeps what a change does not mention.
pub fn of_netem(netem: &Netem) -> Vec<u8> {
    let share = |percent: Option<Percent>| percent.map_or(0, Percent::of_u32);
    let gap = u32::from(netem.reorder.is_some());
    let parameters = [
        low(u128::from(netem.delay >> TICK_SHIFT)),
        netem.limit,
        share(netem.loss),
        gap,
        share(netem.duplicate),
        low(u128::from(netem.jitter >> TICK_SHIFT)),
    ];
    let mut options: Vec<u8> = parameters.into_iter().flat_map(u32::to_ne_bytes).collect();
    options.extend(attribute(TCA_NETEM_CORR, &[0; 12]));
    options.extend(attribute(TCA_NETEM_REORDER, &pair(share(netem.reorder))));
    options.extend(attribute(TCA_NETEM_CORRUPT, &pair(share(netem.corrupt))));
    options.extend(attribute(TCA_NETEM_LATENCY64, &netem.delay.to_ne_bytes()));
    options.extend(attribute(TCA_NETEM_JITTER64, &netem.jitter.to_ne_bytes()));
    options
}

/// A probability without correlation.
fn pair(probability: u32) -> [u8; 8] {
    let mut bytes = [0; 8];
    bytes[..4].copy_from_slice(&probability.to_ne_bytes());
    bytes
}

fn ratespec(rate: Option<Rate>) -> Vec<u8> {
    let mut bytes = vec![0; RATESPEC];
    if let Some(rate) = rate {
        bytes[1] = TC_LINKLAYER_ETHERNET;
        bytes[8..].copy_from_slice(&low(rate.bytes_per_second().into()).to_ne_bytes());
    }
    bytes
}

/// What of a number goes into 32 bits; beyond them there is another attribute.
fn low(number: u128) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
    let mut bytes = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

impl AsRead {
    /// What a token bucket was set to. Its size the kernel tells in ticks.
    pub fn tbf(&self) -> Option<Tbf> {
        let attributes = self.of_kind("tbf").and_then(attributes)?;
        let parameters = value(&attributes, TCA_TBF_PARMS).filter(|value| value.len() >= TBF_QOPT)?;
        let rate = |at: usize, kind| {
            let wide = value(&attributes, kind).and_then(|value| Some(u64::from_ne_bytes(value.try_into().ok()?)));
            Rate::of_bytes(wide.unwrap_or(u64::from(number(parameters, at)?)))
        };
        let bytes = |rate: Rate, at| {
            let ticks = u128::from(number(parameters, at)?);
            Some(low((u128::from(rate.bytes_per_second()) * (ticks << TICK_SHIFT)).div_ceil(1_000_000_000)))
        };
        let steady = rate(8, TCA_TBF_RATE64)?;
        let peak = rate(RATESPEC + 8, TCA_TBF_PRATE64)
            .and_then(|rate| Some(Peak { rate, burst: bytes(rate, 2 * RATESPEC + 8)? }));
        Some(Tbf {
            rate: steady,
            burst: bytes(steady, 2 * RATESPEC + 4)?,
            limit: number(parameters, 2 * RATESPEC)?,
            peak,
        })
    }

    pub fn netem(&self) -> Option<Netem> {
        let options = self.of_kind("netem").filter(|options| options.len() >= NETEM_QOPT)?;
        let attributes = attributes(&options[NETEM_QOPT..])?;
        let time = |at, kind| {
            let wide = value(&attributes, kind).and_then(|value| Some(u64::from_ne_bytes(value.try_into().ok()?)));
            Some(wide.unwrap_or(u64::from(number(options, at)?) << TICK_SHIFT))
        };
        let share = |at| number(options, at).and_then(Percent::from_u32);
        let paired = |kind| value(&attributes, kind).and_then(|value| number(value, 0)).and_then(Percent::from_u32);
        Some(Netem {
            limit: number(options, 4)?,
            delay: time(0, TCA_NETEM_LATENCY64)?,
            jitter: time(20, TCA_NETEM_JITTER64)?,
            loss: share(8),
            duplicate: share(16),
            corrupt: paired(TCA_NETEM_CORRUPT),
            reorder: paired(TCA_NETEM_REORDER),
        })
    }

    fn of_kind(&self, kind: &str) -> Option<&[u8]> {
        self.options.as_deref().filter(|_| self.kind == kind)
    }
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn value<'a>(attributes: &[(u16, &'a [u8])], kind: u16) -> Option<&'a [u8]> {
    attributes.iter().find(|(found, _)| *found == kind).map(|(_, value)| *value)
}

/// The attributes in `bytes`, or `None` if they are cut off.
fn attributes(mut bytes: &[u8]) -> Option<Vec<(u16, &[u8])>> {
    let mut found = Vec::new();
    while bytes.len() >= 4 {
        let length = usize::from(u16::from_ne_bytes([bytes[0], bytes[1]]));
        let kind = u16::from_ne_bytes([bytes[2], bytes[3]]);
        found.push((kind, bytes.get(4..length)?));
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(kind: &str, options: Vec<u8>) -> AsRead {
        AsRead { kind: kind.into(), options: Some(options) }
    }

    fn tbf(rate: &str, burst: u32, limit: u32) -> Tbf {
        Tbf { rate: rate.parse().unwrap(), burst, limit, peak: None }
    }

    #[test]
    fn a_rate_beyond_32_bits_has_an_attribute_of_its_own() {
        let narrow = of_tbf(&tbf("1gbit", 100_000, 200_000));
        assert_eq!(narrow.len(), 4 + 36 + 8);
        let wide = of_tbf(&tbf("40gbit", 100_000, 200_000));
        assert_eq!(wide.len(), 4 + 36 + 4 + 8 + 8);
        assert_eq!(wide[12..16], u32::MAX.to_ne_bytes());
        assert_eq!(wide[44..52], 5_000_000_000u64.to_ne_bytes());
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn the_bytes_are_those_that_tc_sends() {
        // tc qdisc add dev eth0 root tbf rate 10mbit burst 32768b limit 95268b, but for the table of times
        // and its cell_log, which kernels since 3.8 do not look at where the link layer is given.
        let expected = "28000100".to_owned()
            + "0001000000000000d0121300"
            + "000000000000000000000000"
            + "24740100"
            + "00400600"
            + "00000000"
            + "0800060000800000";
        let sent = of_tbf(&tbf("10mbit", 32_768, 95_268));
        assert_eq!(crate::types::hex(&sent), expected);
    }

    prop_compose! {
        fn any_percent()(share in prop::option::of(1u32..=1_000_000)) -> Option<Percent> {
            share.map(|share| format!("{}.{:04}%", share / 10_000, share % 10_000).parse().unwrap())
        }
    }

    proptest! {
        #[test]
        fn a_token_bucket_is_read_back(rate in 1000u64..50_000_000_000, burst in 2000u32..10_000_000, more in 0u32..1_000_000, twice: bool) {
            let rate = Rate::of_bytes(rate).unwrap();
            let peak = twice.then(|| Peak { rate: Rate::of_bytes(2 * rate.bytes_per_second()).unwrap(), burst });
            let sent = Tbf { rate, burst, limit: burst + more, peak };
            let found = read("tbf", of_tbf(&sent)).tbf().unwrap();
            prop_assert_eq!((found.rate, found.limit), (sent.rate, sent.limit));
            prop_assert_eq!(found.peak.as_ref().map(|peak| peak.rate), sent.peak.map(|peak| peak.rate));
            // A tick of 64 ns is as many bytes as the rate lets through in it.
            let off = u128::from(found.burst.abs_diff(burst));
            prop_assert!(off <= rate.bytes_in(64) + 1, "{} for {burst}", found.burst);
        }

        #[test]
        fn a_bad_network_is_read_back(
            delay in 0u64..10_000_000_000, jitter in 0u64..1_000_000_000, limit in 1u32..1_000_000,
            loss in any_percent(), duplicate in any_percent(), corrupt in any_percent(), reorder in any_percent(),
        ) {
            let sent = Netem { limit, delay, jitter, loss, duplicate, corrupt, reorder };
            prop_assert_eq!(read("netem", of_netem(&sent)).netem(), Some(sent));
        }

        #[test]
        fn never_panics(bytes: Vec<u8>) {
            let _ = (read("tbf", bytes.clone()).tbf(), read("netem", bytes).netem());
        }
    }
}
