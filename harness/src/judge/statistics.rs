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
