//! How sure a count of hits makes one of the rate behind it.

use serde::{Deserialize, Serialize};

/// The normal distribution's quantile for an interval of 95 %.
const Z: f64 = 1.959_963_984_540_054;

/// A rate seen in so many attempts, with its interval of 95 %.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rate {
    /// Attempts that hit.
    pub hits: u64,
    /// All attempts.
    pub attempts: u64,
    /// Lower end of the interval.
    pub low: f64,
    /// Upper end of the interval.
    pub high: f64,
}

impl Rate {
    /// Wilson's score interval (E. B. Wilson, "Probable inference, the law of succession, and
    /// statistical inference", 1927): unlike the normal approximation it says something true of
    /// 0 in n and of n in n. Without an attempt all is possible.
    pub fn wilson(hits: u64, attempts: u64) -> Self {
        let (mut low, mut high) = (0.0, 1.0);
        if attempts > 0 {
            let n = attempts as f64;
            let p = hits as f64 / n;
            let centre = p + Z * Z / (2.0 * n);
            let spread = Z * (p * (1.0 - p) / n + Z * Z / (4.0 * n * n)).sqrt();
            let scale = 1.0 + Z * Z / n;
            low = ((centre - spread) / scale).max(0.0);
            high = ((centre + spread) / scale).min(1.0);
        }
        Self {
            hits,
            attempts,
            low,
            high,
        }
    }
}

impl std::fmt::Display for Rate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            hits,
            attempts,
            low,
            high,
        } = self;
        write!(f, "{hits} of {attempts} (95 %: {low:.2} to {high:.2})")
    }
}

/// The median of some measurements, with an interval that holds the true one.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Median {
    /// The median.
    pub median: u64,
    /// Lower end of the interval.
    pub low: u64,
    /// Upper end of the interval.
    pub high: u64,
    /// How probable it is that the true median lies in it: at least 0.95 where there are six
    /// measurements or more.
    pub confidence: f64,
}

impl Median {
    /// By order statistics, which ask nothing of the distribution (H. A. David, H. N. Nagaraja,
    /// "Order Statistics", 3rd ed., 7.1): the k-th least and the k-th greatest of n hold the median
    /// between them unless fewer than k lie on one of its sides, and that is binomial.
    pub fn of(mut measured: Vec<u64>) -> Self {
        measured.sort_unstable();
        let n = measured.len();
        let at = |index: usize| measured.get(index).copied().unwrap_or(0);
        // The chance that exactly k of n lie below.
        let mut exactly = 0.5f64.powi(n as i32);
        let mut fewer = 0.0;
        let mut best = (1, (1.0 - 2.0 * exactly).max(0.0));
        for k in 1..=n / 2 {
            fewer += exactly;
            exactly *= (n + 1 - k) as f64 / k as f64;
            let confidence = 1.0 - 2.0 * fewer;
            if confidence >= 0.95 {
                best = (k, confidence);
            }
        }
        let (k, confidence) = best;
        Self {
            median: match n % 2 {
                0 if n > 0 => u64::midpoint(at(n / 2 - 1), at(n / 2)),
                _ => at(n / 2),
            },
            low: at(k - 1),
            high: at(n.saturating_sub(k)),
            confidence,
        }
    }

    /// Of milliseconds: `1.2 s (0.8 to 3.1)`.
    pub fn in_seconds(&self) -> String {
        let seconds = |ms: u64| ms as f64 / 1000.0;
        format!(
            "{:.1} s ({:.1} to {:.1})",
            seconds(self.median),
            seconds(self.low),
            seconds(self.high)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Values of the closed form, as statistics packages give them.
    #[test]
    fn known_intervals() {
        let shown = |hits, attempts| Rate::wilson(hits, attempts).to_string();
        assert_eq!(shown(30, 30), "30 of 30 (95 %: 0.89 to 1.00)");
        assert_eq!(shown(10, 10), "10 of 10 (95 %: 0.72 to 1.00)");
        assert_eq!(shown(0, 60), "0 of 60 (95 %: 0.00 to 0.06)");
        assert_eq!(shown(5, 10), "5 of 10 (95 %: 0.24 to 0.76)");
        assert_eq!(shown(0, 0), "0 of 0 (95 %: 0.00 to 1.00)");
    }

    /// As tables of the sign test's intervals have them: 2nd of 10 with 0.979, 6th of 20 with
    /// 0.959, all of 5 with 0.938.
    #[test]
    fn a_median_has_the_interval_of_the_tables() {
        let of = |n: u64| Median::of((1..=n).rev().collect());
        let shown = |n| {
            let it = of(n);
            (it.median, it.low, it.high, (it.confidence * 1000.0).round())
        };
        assert_eq!(shown(10), (5, 2, 9, 979.0));
        assert_eq!(shown(20), (10, 6, 15, 959.0));
        assert_eq!(shown(5), (3, 1, 5, 938.0));
        assert_eq!(shown(1), (1, 1, 1, 0.0));
        assert_eq!(Median::of(vec![]).median, 0);
        assert_eq!(of(5).in_seconds(), "0.0 s (0.0 to 0.0)");
    }

    proptest! {
        #[test]
        fn the_rate_lies_in_its_interval(attempts in 1u64..10_000, part in 0.0f64..=1.0) {
            let hits = (attempts as f64 * part) as u64;
            let rate = Rate::wilson(hits, attempts);
            let seen = hits as f64 / attempts as f64;
            prop_assert!(0.0 <= rate.low && rate.low <= seen + 1e-9);
            prop_assert!(seen <= rate.high + 1e-9 && rate.high <= 1.0);
        }
    }
}
