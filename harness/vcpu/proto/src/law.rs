//! The law of blind delays: when a vCPU is delayed, and for how long. Noise injection (O. Edelstein
//! et al., "Multithreaded Java program test generation", IBM Systems Journal 41(1), 2002), with an
//! instruction as its point.

use serde::{Deserialize, Serialize};

use crate::MOST_US;

/// One instruction in so many is delayed, each by a length drawn anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Law {
    /// Decides all.
    pub seed: u64,
    /// One instruction in so many, in the mean; at least 1.
    pub one_in: u32,
    /// The longest delay in microseconds; 1 to [`MOST_US`], all lengths up to it are as likely.
    pub longest_us: u32,
}

impl Law {
    /// What is wrong with it, if anything.
    ///
    /// # Errors
    /// What to send instead.
    pub fn check(&self) -> Result<(), String> {
        match (self.one_in, self.longest_us) {
            (0, _) => Err("one instruction in 0; send 1 or more".into()),
            (_, 1..=MOST_US) => Ok(()),
            (_, us) => Err(format!("delays of up to {us} us; send 1 to {MOST_US}")),
        }
    }
}

/// What a law makes of chance, for one vCPU. SplitMix64 (G. Steele, D. Lea, C. Flood, "Fast
/// splittable pseudorandom number generators", OOPSLA 2014): its state is one word, which a vCPU
/// keeps without a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dice {
    state: u64,
}

impl Dice {
    /// Those of a vCPU under a law.
    pub fn new(seed: u64, vcpu: u64) -> Self {
        let mut dice = Self { state: seed };
        // Apart from one another, whatever the seed.
        dice.state = dice.next() ^ vcpu.wrapping_mul(0xd1b5_4a32_d192_ed03);
        dice
    }

    /// From [`state`](Self::state).
    pub fn resume(state: u64) -> Self {
        Self { state }
    }

    /// All of it.
    pub fn state(self) -> u64 {
        self.state
    }

    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.state;
        word = (word ^ word >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ word >> 31
    }

    /// A number from 1 to `most`, all as likely.
    fn up_to(&mut self, most: u64) -> u64 {
        let product = u128::from(self.next()) * u128::from(most);
        (product >> 64) as u64 + 1
    }

    /// Instructions up to and with the next that is delayed: `one_in` in the mean, at least one.
    pub fn gap(&mut self, one_in: u32) -> u64 {
        self.up_to(2 * u64::from(one_in.max(1)) - 1)
    }

    /// How long that delay is, in microseconds.
    pub fn length(&mut self, longest_us: u32) -> u64 {
        self.up_to(u64::from(longest_us.clamp(1, MOST_US)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_seed_decides_all(seed: u64, vcpu in 0u64..64) {
            let drawn = |vcpu| {
                let mut dice = Dice::new(seed, vcpu);
                [dice.gap(20), dice.length(1000), dice.gap(20), dice.length(1000)]
            };
            prop_assert_eq!(drawn(vcpu), drawn(vcpu));
            let mut dice = Dice::new(seed, vcpu);
            dice.gap(20);
            let mut resumed = Dice::resume(dice.state());
            prop_assert_eq!(dice.gap(9), resumed.gap(9));
        }

        #[test]
        fn what_is_drawn_is_within_the_law(seed: u64, one_in in 0u32.., longest_us in 0u32..) {
            let mut dice = Dice::new(seed, 1);
            for _ in 0..20 {
                let gap = dice.gap(one_in);
                prop_assert!(gap >= 1 && gap < 2 * u64::from(one_in.max(1)));
                let length = dice.length(longest_us);
                prop_assert!(length >= 1 && length <= u64::from(MOST_US));
            }
        }
    }

    #[test]
    fn one_in_so_many_is_the_mean() {
        let mut dice = Dice::new(1, 0);
        let sum: u64 = (0..10_000).map(|_| dice.gap(20)).sum();
        assert!((190_000..210_000).contains(&sum), "{sum}");
        let sum: u64 = (0..10_000).map(|_| dice.length(1000)).sum();
        assert!((4_850_000..5_150_000).contains(&sum), "{sum}");
    }

    #[test]
    fn vcpus_draw_apart() {
        let drawn: Vec<_> = (0..8)
            .map(|vcpu| Dice::new(5, vcpu).gap(1_000_000))
            .collect();
        let mut apart = drawn.clone();
        apart.sort_unstable();
        apart.dedup();
        assert_eq!(apart.len(), drawn.len());
    }

    #[test]
    fn a_law_without_bound_is_refused() {
        let law = |one_in, longest_us| Law {
            seed: 1,
            one_in,
            longest_us,
        };
        assert!(law(20, 1000).check().is_ok() && law(1, MOST_US).check().is_ok());
        for wrong in [law(0, 1), law(1, 0), law(1, MOST_US + 1)] {
            assert!(wrong.check().is_err(), "{wrong:?}");
        }
    }
}
