//! Medians, and how sure one can be of them.
//!
//! Never assumes a distribution: an interval is a percentile bootstrap (Efron and Tibshirani, An
//! Introduction to the Bootstrap, chapter 13), with a fixed seed, so that the same samples always
//! give the same interval.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde::Serialize;

const RESAMPLES: usize = 10_000;

/// A median and its 95 % interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Estimate {
    pub(super) median: f64,
    pub(super) low: f64,
    pub(super) high: f64,
}

/// Returns the middle value; of an even number of values, the mean of the two in the middle.
///
/// # Panics
/// If there are no values.
pub(super) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    f64::midpoint(sorted[(sorted.len() - 1) / 2], sorted[sorted.len() / 2])
}

/// Returns the greatest of some values that are not negative.
pub(super) fn most(values: &[f64]) -> f64 {
    values.iter().copied().fold(0.0, f64::max)
}

/// Divides each round's value by the same round's value of the baseline.
pub(super) fn ratios(values: &[f64], baseline: &[f64]) -> Vec<f64> {
    values.iter().zip(baseline).map(|(a, b)| a / b).collect()
}

/// Estimates the median of the values.
pub(super) fn estimate(values: &[f64]) -> Estimate {
    bootstrap(values.len(), |rounds| median(&pick(values, rounds)))
}

/// Estimates how the values' median stands to the control's median. Rounds are drawn as wholes,
/// because what disturbed a round disturbed both of its sides.
pub(super) fn estimate_over(values: &[f64], control: &[f64]) -> Estimate {
    bootstrap(values.len(), |rounds| {
        median(&pick(values, rounds)) / median(&pick(control, rounds))
    })
}

fn pick(values: &[f64], rounds: &[usize]) -> Vec<f64> {
    rounds.iter().map(|&round| values[round]).collect()
}

fn bootstrap(rounds: usize, statistic: impl Fn(&[usize]) -> f64) -> Estimate {
    let all: Vec<usize> = (0..rounds).collect();
    let mut random = StdRng::seed_from_u64(0);
    let mut draw =
        || -> Vec<usize> { all.iter().map(|_| random.random_range(0..rounds)).collect() };
    let mut resampled: Vec<f64> = (0..RESAMPLES).map(|_| statistic(&draw())).collect();
    resampled.sort_unstable_by(f64::total_cmp);
    Estimate {
        median: statistic(&all),
        low: resampled[RESAMPLES * 25 / 1000],
        high: resampled[RESAMPLES * 975 / 1000 - 1],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_or_the_mean_of_two() {
        assert_eq!(median(&[3.0]), 3.0);
        assert_eq!(median(&[9.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 9.0]), 3.0);
    }

    #[test]
    fn an_interval_encloses_the_median_and_is_the_same_each_time() {
        let values: Vec<f64> = (0..21).map(f64::from).collect();
        let found = estimate(&values);
        assert_eq!(found.median, 10.0);
        assert!(found.low < 10.0 && 10.0 < found.high, "{found:?}");
        assert!(found.low > 2.0 && found.high < 18.0, "{found:?}");
        assert_eq!(found, estimate(&values));
    }

    #[test]
    fn a_disturbance_of_both_sides_cancels_out() {
        let control = [1.0, 5.0, 0.5, 2.0, 1.5];
        let values = control.map(|value| value * 0.9);
        let found = estimate_over(&values, &control);
        for figure in [found.median, found.low, found.high] {
            assert!((figure - 0.9).abs() < 1e-9, "{found:?}");
        }
    }
}
