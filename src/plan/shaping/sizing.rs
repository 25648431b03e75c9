//! The numbers of a token bucket and of a bad network, from what was asked for and from the kernel.
//!
//! The formulas: a bucket is at least the largest frame, or the kernel drops it, and at least what the
//! rate lets through in one tick of the kernel's timer, or the rate is not reached (tc-tbf(8), "burst");
//! the queue holds `rate × latency` beside the bucket, `limit = rate·latency + burst`, with a peak rate no
//! more than `peak·latency + mtu` (`tbf_parse_opt` in iproute2's `tc/q_tbf.c`).

use super::{Impairment, RateLimit};
use crate::{
    error::{Error, Result},
    plan::qdisc::{Netem, Peak, Tbf},
    types::{Rate, Size, Span},
};

/// The resolution of the timer by which the kernel's queues wake up, in nanoseconds: 1 where it has
/// timers of high resolution, otherwise a second by HZ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tick(u64);

impl Tick {
    /// From `/proc/net/psched`, whose fourth number, in hexadecimal, is how many of them there are in
    /// a second (`psched_show` in `net/sched/sch_api.c`).
    pub fn parse(psched: &str) -> Option<Tick> {
        let per_second = u64::from_str_radix(psched.split_whitespace().nth(3)?, 16).ok()?;
        Some(Tick(1_000_000_000u64.checked_div(per_second)?))
    }
}

/// The header of an Ethernet frame, which the kernel counts as well (`psched_mtu`).
const ETHERNET_HEADER: u32 = 14;
/// However fine its timers are, a busy kernel may come back to a queue only at its next tick, and the
/// slowest that is built has a hundred a second.
const LATE_NS: u128 = 10_000_000;
/// A bucket of one frame would be full before the next one is paid for.
const FRAMES_IN_BUCKET: u32 = 2;
/// A queue that TCP can work with: short, but long enough for its smallest bursts.
const LATENCY: Span = Span::millis(50);
const FRAMES_IN_QUEUE: u64 = 10;
/// What netem keeps on their way: 1000 as tc's own default, and so many for each millisecond that 1 Gbit/s
/// of whole frames fits.
const PACKETS: u64 = 1000;
const PACKETS_PER_MS: u64 = 100;

/// The bucket for a limit on an interface with this MTU, and how it was found.
pub fn tbf(limit: &RateLimit, mtu: u32, tick: Tick) -> Result<(Tbf, Vec<String>)> {
    let (rate, frame) = (limit.rate, mtu + ETHERNET_HEADER);
    let mut explained = Vec::new();
    let burst = match limit.burst {
        Some(burst) => checked(burst.bytes(), rate, mtu, tick)?,
        None => {
            let burst = narrow(rate.bytes_in(LATE_NS.max(tick.0.into())), limit)?.max(FRAMES_IN_BUCKET * frame);
            explained.push(format!(
                "burst {burst}b: what {rate} lets through in {} ms, at least {FRAMES_IN_BUCKET} frames of {frame} bytes",
                LATE_NS.max(tick.0.into()) / 1_000_000
            ));
            burst
        }
    };
    let latency = match limit.latency {
        Some(latency) if latency.is_zero() => {
            return Err(Error::usage("--latency 0 would leave no packet time to wait, and the limit would drop them")
                .hint("leave it out for what fits the rate, or give 50ms"));
        }
        Some(latency) => latency.duration().as_nanos(),
        None => {
            let latency = LATENCY.duration().as_nanos().max(rate.nanoseconds_for(FRAMES_IN_QUEUE * u64::from(frame)));
            explained.push(format!(
                "latency {} ms: at least {LATENCY}, and {FRAMES_IN_QUEUE} frames of {frame} bytes at {rate}",
                latency / 1_000_000
            ));
            latency
        }
    };
    let mut queue = rate.bytes_in(latency) + u128::from(burst);
    let peak = limit.peak.map(|peak| of_peak(peak, rate, frame, tick)).transpose()?;
    if let Some(peak) = &peak {
        queue = queue.min(peak.rate.bytes_in(latency) + u128::from(peak.burst));
    }
    let limit = u32::try_from(queue).map_err(|_| {
        Error::usage(format!("{} ms at {rate} is more than the kernel's queues hold, 4 GiB", latency / 1_000_000))
            .hint("give a shorter --latency")
    })?;
    Ok((Tbf { rate, burst, limit, peak }, explained))
}

/// The least bucket that the kernel can work with.
fn least(rate: Rate, frame: u32, tick: Tick) -> u32 {
    frame.max(u32::try_from(rate.bytes_in(tick.0.into())).unwrap_or(u32::MAX))
}

fn checked(burst: u32, rate: Rate, mtu: u32, tick: Tick) -> Result<u32> {
    let frame = mtu + ETHERNET_HEADER;
    let least = least(rate, frame, tick);
    if burst >= least {
        return Ok(burst);
    }
    let given = Size::of_bytes(burst).map_or("0".to_owned(), |size| size.to_string());
    let why = if least > frame {
        format!("{rate} lets {least} bytes through in a tick of the kernel's timer, {} ms", tick.0 / 1_000_000)
    } else {
        format!("the largest frame, of MTU {mtu}, has {frame} bytes")
    };
    Err(Error::usage(format!("--burst {given} is too small: {why}"))
        .hint(format!("give {least}b at least, or leave it out")))
}

fn narrow(bytes: u128, limit: &RateLimit) -> Result<u32> {
    u32::try_from(bytes).map_err(|_| {
        Error::usage(format!("{} needs a burst of more than 4 GiB, which the kernel does not take", limit.rate))
    })
}

fn of_peak(peak: Rate, rate: Rate, frame: u32, tick: Tick) -> Result<Peak> {
    if peak <= rate {
        return Err(Error::usage(format!("--peak-rate {peak} is not above --rate {rate}"))
            .hint("the peak is how fast a full bucket may be emptied; leave it out for the interface's own speed"));
    }
    Ok(Peak { rate: peak, burst: least(peak, frame, tick) })
}

pub fn netem(impairment: &Impairment) -> Result<Netem> {
    let nanoseconds =
        |span: Option<Span>| u64::try_from(span.map_or(0, |span| span.duration().as_nanos())).unwrap_or(u64::MAX);
    let (delay, jitter) = (nanoseconds(impairment.delay), nanoseconds(impairment.jitter));
    if jitter > 0 && delay == 0 {
        return Err(Error::usage("--jitter varies a delay, and none is given").hint("add --delay"));
    }
    if impairment.reorder.is_some() && delay == 0 {
        return Err(
            Error::usage("--reorder lets packets overtake delayed ones, and no delay is given").hint("add --delay")
        );
    }
    let on_their_way = PACKETS.max((delay + jitter) / 1_000_000 * PACKETS_PER_MS);
    Ok(Netem {
        limit: u32::try_from(on_their_way).unwrap_or(u32::MAX),
        delay,
        jitter,
        loss: impairment.loss,
        duplicate: impairment.duplicate,
        corrupt: impairment.corrupt,
        reorder: impairment.reorder,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FINE: Tick = Tick(1);
    const HZ_250: Tick = Tick(4_000_000);

    fn limit(rate: &str) -> RateLimit {
        RateLimit { rate: rate.parse().unwrap(), burst: None, latency: None, peak: None }
    }

    #[test]
    fn the_kernel_tells_its_tick() {
        assert_eq!(Tick::parse("000003e8 00000040 000f4240 3b9aca00\n"), Some(FINE));
        assert_eq!(Tick::parse("000003e8 00000040 000f4240 000000fa\n"), Some(HZ_250));
        assert_eq!(Tick::parse("000003e8 00000040 000f4240 00000000\n"), None);
        assert_eq!(Tick::parse(""), None);
    }

    #[test]
    fn a_slow_rate_has_room_for_frames_and_a_fast_one_for_time() {
        let (slow, explained) = tbf(&limit("500kbit"), 1500, FINE).unwrap();
        assert_eq!((slow.burst, slow.limit), (3028, 15_140 + 3028));
        assert_eq!(
            explained,
            [
                "burst 3028b: what 500kbit lets through in 10 ms, at least 2 frames of 1514 bytes",
                "latency 242 ms: at least 50ms, and 10 frames of 1514 bytes at 500kbit"
            ]
        );
        let (fast, _) = tbf(&limit("1gbit"), 1500, FINE).unwrap();
        assert_eq!((fast.burst, fast.limit), (1_250_000, 6_250_000 + 1_250_000));
    }

    #[test]
    fn what_was_given_is_taken_as_it_is() {
        let given = RateLimit {
            burst: Some("32kb".parse().unwrap()),
            latency: Some(Span::millis(20)),
            peak: Some("20mbit".parse().unwrap()),
            ..limit("10mbit")
        };
        let (tbf, explained) = tbf(&given, 1500, FINE).unwrap();
        assert_eq!((tbf.burst, tbf.limit), (32_768, 50_000 + 1514), "the peak's queue is the shorter one");
        assert_eq!(tbf.peak, Some(Peak { rate: "20mbit".parse().unwrap(), burst: 1514 }));
        assert!(explained.is_empty());
    }

    #[track_caller]
    fn refused(limit: &RateLimit, tick: Tick, message: &str, hint: &str) {
        let error = tbf(limit, 1500, tick).unwrap_err();
        assert_eq!((error.message.as_str(), error.hint.as_deref()), (message, Some(hint)));
    }

    #[test]
    fn too_small_a_bucket_is_refused_with_the_least() {
        let small = |rate, burst: &str| RateLimit { burst: Some(burst.parse().unwrap()), ..limit(rate) };
        refused(
            &small("10mbit", "1kb"),
            FINE,
            "--burst 1kb is too small: the largest frame, of MTU 1500, has 1514 bytes",
            "give 1514b at least, or leave it out",
        );
        refused(
            &small("100mbit", "32kb"),
            HZ_250,
            "--burst 32kb is too small: 100mbit lets 50000 bytes through in a tick of the kernel's timer, 4 ms",
            "give 50000b at least, or leave it out",
        );
    }

    #[test]
    fn a_queue_without_time_and_a_peak_below_the_rate_are_refused() {
        let none = RateLimit { latency: Some(Span::millis(0)), ..limit("1mbit") };
        refused(
            &none,
            FINE,
            "--latency 0 would leave no packet time to wait, and the limit would drop them",
            "leave it out for what fits the rate, or give 50ms",
        );
        let low = RateLimit { peak: Some("1mbit".parse().unwrap()), ..limit("1mbit") };
        refused(
            &low,
            FINE,
            "--peak-rate 1mbit is not above --rate 1mbit",
            "the peak is how fast a full bucket may be emptied; leave it out for the interface's own speed",
        );
        let long = RateLimit { latency: Some("1h".parse().unwrap()), ..limit("10gbit") };
        refused(
            &long,
            FINE,
            "3600000 ms at 10gbit is more than the kernel's queues hold, 4 GiB",
            "give a shorter --latency",
        );
    }

    #[test]
    fn a_bad_network_keeps_what_is_on_its_way() {
        let slow =
            Impairment { delay: Some(Span::millis(50)), jitter: Some(Span::millis(10)), ..Impairment::default() };
        assert_eq!(netem(&slow).unwrap().limit, 6000);
        assert_eq!(netem(&Impairment { loss: "1%".parse().ok(), ..Impairment::default() }).unwrap().limit, 1000);
        for (wrong, said) in [
            (Impairment { jitter: slow.jitter, ..Impairment::default() }, "--jitter varies a delay, and none is given"),
            (
                Impairment { reorder: "25%".parse().ok(), ..Impairment::default() },
                "--reorder lets packets overtake delayed ones, and no delay is given",
            ),
        ] {
            assert_eq!(netem(&wrong).unwrap_err().message, said);
        }
    }

    proptest! {
        #[test]
        fn whatever_the_rate_a_bucket_holds_a_frame_and_a_tick(bits in 8u64..400_000_000_000, mtu in 68u32..65535, fine: bool) {
            let (rate, tick) = (Rate::of_bytes(bits / 8).unwrap(), if fine { FINE } else { HZ_250 });
            let limit = RateLimit { rate, ..limit("1mbit") };
            // Beyond the kernel's numbers it is refused.
            if let Ok((tbf, _)) = tbf(&limit, mtu, tick) {
                prop_assert!(tbf.burst >= least(rate, mtu + ETHERNET_HEADER, tick));
                prop_assert!(u64::from(tbf.limit) >= u64::from(tbf.burst) + u64::from(mtu));
                // Over five seconds the full bucket is less than a hundredth, or a few frames.
                prop_assert!(u128::from(tbf.burst) <= (rate.bytes_in(5_000_000_000) / 100).max(u128::from(2 * (mtu + 14))));
            }
        }
    }
}
