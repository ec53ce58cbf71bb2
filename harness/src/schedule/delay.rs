//! Blind delays: now and then an actor is put to sleep where it stands, and the others overtake it
//! (noise injection: O. Edelstein et al., "Multithreaded Java program test generation", IBM Systems
//! Journal 41(1), 2002). What needs no knowledge of the points can be done to any driver.
//!
//! Here among the points of a program; the same among the instructions of a driver in a guest is
//! `knobrig_vcpu_proto::Law`.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::{Actor, Scheduler};

/// Delays at random points, without an end.
#[derive(Clone, Debug)]
pub struct Delay {
    rng: ChaCha8Rng,
    /// One point in so many is delayed.
    one_in: u32,
    /// The longest delay, in points that others pass.
    longest: u32,
    /// Points left that each actor sleeps through.
    asleep: Vec<u32>,
}

impl Delay {
    /// One point in `one_in` is delayed by up to `longest` points of others.
    pub fn new(seed: u64, one_in: u32, longest: u32) -> Self {
        Self {
            rng: ChaCha8Rng::seed_from_u64(seed),
            one_in: one_in.max(1),
            longest: longest.max(1),
            asleep: Vec::new(),
        }
    }
}

impl Scheduler for Delay {
    fn begin(&mut self) -> bool {
        self.asleep.clear();
        true
    }

    fn next(&mut self, runnable: &[Actor], current: Option<Actor>) -> Actor {
        let most = runnable.iter().max().map_or(0, |actor| actor + 1);
        if self.asleep.len() < most {
            self.asleep.resize(most, 0);
        }
        if let Some(current) = current
            && current < most
            && self.rng.random_ratio(1, self.one_in)
        {
            self.asleep[current] = self.rng.random_range(1..=self.longest);
        }
        let awake: Vec<_> = runnable
            .iter()
            .copied()
            .filter(|actor| self.asleep[*actor] == 0)
            .collect();
        for left in &mut self.asleep {
            *left = left.saturating_sub(1);
        }
        // All asleep: time passes until the first wakes.
        match awake.is_empty() {
            true => runnable[self.rng.random_range(0..runnable.len())],
            false => awake[self.rng.random_range(0..awake.len())],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schedule::toy::{PointerRace, hits};

    /// A window of one point between long ways: both threads must be at it at once.
    #[test]
    fn delays_do_not_lose_what_chance_finds() {
        let race = PointerRace::new(6, 2);
        let delayed = hits(&mut Delay::new(1, 4, 6), &race, 4_000);
        assert!(delayed > 100, "{delayed} of 4000");
    }
}
