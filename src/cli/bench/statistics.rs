//! A median and how sure it is.

use super::random::Random;

/// Resamples of the bootstrap.
const RESAMPLES: usize = 10_000;

/// The median of some figures, with its 95 % interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Summary {
    pub(super) median: f64,
    pub(super) low: f64,
    pub(super) high: f64,
}

impl Summary {
    /// Of `figures`, by the percentile bootstrap. The same figures always give the same interval.
    pub(super) fn of(figures: &[f64]) -> Summary {
        let mut random = Random::new(0);
        let mut medians: Vec<f64> = (0..RESAMPLES)
            .map(|_| {
                median((0..figures.len()).filter_map(|_| figures.get(random.below(figures.len())).copied()).collect())
            })
            .collect();
        medians.sort_by(f64::total_cmp);
        let at = |share: usize| medians.get(RESAMPLES * share / 1000).copied().unwrap_or(f64::NAN);
        Summary { median: median(figures.to_vec()), low: at(25), high: at(975) }
    }
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    let middle = figures.len() / 2;
    match (figures.get(middle), figures.len() % 2) {
        (None, _) => f64::NAN,
        (Some(upper), 1) => *upper,
        (Some(upper), _) => figures.get(middle - 1).map_or(*upper, |lower| (lower + upper) / 2.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_holds_the_median_and_narrows_with_agreement() {
        let wide = Summary::of(&[0.5, 0.7, 0.9, 1.1, 1.3]);
        assert_eq!(wide.median, 0.9);
        assert!(wide.low < 0.9 && wide.high > 0.9);
        let narrow = Summary::of(&[0.9; 20]);
        assert_eq!((narrow.low, narrow.high), (0.9, 0.9));
        assert_eq!(median(vec![3.0, 1.0, 2.0, 4.0]), 2.5);
    }
}
