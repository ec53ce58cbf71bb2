//! Uniform: at each point each actor that can go is as likely to go next.

use rand::SeedableRng;
use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;

use super::{Actor, Scheduler};

/// A uniform choice at each point, without an end.
#[derive(Clone, Debug)]
pub struct Random {
    rng: ChaCha8Rng,
}

impl Random {
    /// The same seed gives the same executions.
    pub fn new(seed: u64) -> Self {
        Self {
            rng: ChaCha8Rng::seed_from_u64(seed),
        }
    }
}

impl Scheduler for Random {
    fn begin(&mut self) -> bool {
        true
    }

    fn next(&mut self, runnable: &[Actor], _current: Option<Actor>) -> Actor {
        *runnable.choose(&mut self.rng).unwrap_or(&runnable[0])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schedule::toy::{PointerRace, hits, program};

    #[test]
    fn a_seed_gives_the_same_executions() {
        let program = program(&[4, 3, 2]);
        let runs = |seed| {
            let mut random = Random::new(seed);
            let mut run = || program.run(&mut random);
            (run(), run(), run())
        };
        assert_eq!(runs(5), runs(5));
        assert_ne!(runs(5), runs(6));
    }

    /// load, use against free with two steps around: of the ways to go, the share that hits is
    /// what drawing uniformly at each point makes it.
    #[test]
    fn the_pointer_race_is_hit_as_often_as_it_is_likely() {
        let hits = hits(&mut Random::new(1), &PointerRace::new(0, 0), 20_000);
        // Load (1/2), free (1/2), use: a quarter.
        assert!((4_700..5_300).contains(&hits), "{hits}");
    }
}
