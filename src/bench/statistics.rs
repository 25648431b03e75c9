//! What a few samples say: their median, how sure it is, and which of two is larger.

use serde::Serialize;

/// The median of samples, and the interval that it lies in with a confidence of 95 %.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Summary {
    pub median: f64,
    pub low: f64,
    pub high: f64,
}

/// How often the samples are drawn anew. At 2000 the interval's ends move by less than the noise of what is
/// measured.
const RESAMPLES: usize = 2000;

impl Summary {
    /// `None` where there is no sample. The interval is that of a bootstrap: the 2.5th to the 97.5th
    /// percentile of the medians of as many samples drawn with replacement (Efron, 1979). The same samples
    /// always give the same.
    pub fn of(samples: &[f64]) -> Option<Summary> {
        let median = median(samples)?;
        let mut chance = Chance::new(samples.len() as u64);
        let mut medians: Vec<f64> = (0..RESAMPLES)
            .filter_map(|_| {
                let drawn: Vec<f64> = samples.iter().map(|_| samples[chance.below(samples.len())]).collect();
                self::median(&drawn)
            })
            .collect();
        medians.sort_by(f64::total_cmp);
        let at = |share: f64| medians[((medians.len() - 1) as f64 * share).round() as usize];
        Some(Summary { median, low: at(0.025), high: at(0.975) })
    }

    /// Whether the two could be the same: their intervals overlap.
    pub fn may_equal(&self, other: &Summary) -> bool {
        self.low <= other.high && other.low <= self.high
    }
}

/// The middle one of the samples, or what lies between the middle two.
pub fn median(samples: &[f64]) -> Option<f64> {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        length if length.is_multiple_of(2) => Some((sorted[middle - 1] + sorted[middle]) / 2.0),
        _ => Some(sorted[middle]),
    }
}

/// Those that cannot be ranked among one another: neighbours by their medians whose intervals overlap,
/// in groups of at least two, by their places in `summaries`.
pub fn not_told_apart(summaries: &[Summary]) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..summaries.len()).collect();
    order.sort_by(|a, b| summaries[*b].median.total_cmp(&summaries[*a].median));
    let mut groups: Vec<Vec<usize>> = Vec::new();
    for place in order {
        match groups.last_mut() {
            Some(group) if group.iter().any(|other| summaries[*other].may_equal(&summaries[place])) => {
                group.push(place)
            }
            _ => groups.push(vec![place]),
        }
    }
    groups.retain(|group| group.len() > 1);
    groups
}

/// Numbers by chance, the same for the same seed: xorshift64* (Vigna, 2016).
struct Chance(u64);

impl Chance {
    fn new(seed: u64) -> Chance {
        Chance(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let drawn = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33;
        (drawn % bound.max(1) as u64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_median_is_the_middle_one() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
    }

    #[test]
    fn one_outlier_moves_the_mean_and_not_the_median() {
        let summary = Summary::of(&[10.0, 10.1, 9.9, 10.0, 2.0]).unwrap();
        assert_eq!(summary.median, 10.0);
        assert!(summary.low <= 9.9 && summary.high <= 10.1, "{summary:?}");
    }

    /// Of normal samples with deviation 1 the median's own deviation is 1.2533/√n: the interval is 3.92 of
    /// these wide, 0.49 for 100.
    #[test]
    fn the_interval_is_as_wide_as_theory_says() {
        let mut chance = Chance::new(7);
        // Twelve uniform numbers make a normal one.
        let mut normal = || (0..12).map(|_| chance.below(1 << 20) as f64 / f64::from(1 << 20)).sum::<f64>() - 6.0;
        let widths: Vec<f64> = (0..40)
            .map(|_| {
                let samples: Vec<f64> = (0..100).map(|_| normal()).collect();
                let summary = Summary::of(&samples).unwrap();
                summary.high - summary.low
            })
            .collect();
        let width = median(&widths).unwrap();
        assert!((0.40..0.60).contains(&width), "{width}");
    }

    #[test]
    fn whose_intervals_overlap_is_not_ranked() {
        let around = |median: f64| Summary { median, low: median - 1.0, high: median + 1.0 };
        assert_eq!(not_told_apart(&[around(10.0), around(20.0), around(11.5), around(13.0)]), [[3, 2, 0]]);
        assert!(not_told_apart(&[around(10.0), around(20.0)]).is_empty());
        assert!(not_told_apart(&[]).is_empty());
    }

    proptest! {
        #[test]
        fn the_median_lies_in_its_interval_and_that_among_the_samples(
            samples in proptest::collection::vec(0.0f64..1e12, 1..20),
        ) {
            let summary = Summary::of(&samples).unwrap();
            let least = samples.iter().copied().fold(f64::INFINITY, f64::min);
            let most = samples.iter().copied().fold(0.0, f64::max);
            prop_assert!(least <= summary.low && summary.low <= summary.median);
            prop_assert!(summary.median <= summary.high && summary.high <= most);
        }
    }
}
