//! Probabilistic concurrency testing (S. Burckhardt, P. Kothari, M. Musuvathi, S. Nagarakatte,
//! "A randomized scheduler with probabilistic guarantees of finding bugs", ASPLOS 2010): random
//! priorities, and d - 1 random points at which the priority of who goes there falls below all.
//! A bug of depth d, in a program of n actors that pass k points, is hit by each execution with a
//! probability of at least 1/(n·k^(d-1)).

use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::{Actor, Scheduler};

/// What an execution promises: a bug of depth d shows with a probability of at least 1/(n·k^(d-1)).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Promise {
    /// Actors.
    pub n: usize,
    /// Points that they pass in all.
    pub k: usize,
    /// The bug's depth: how many orders must hold for it.
    pub d: usize,
}

impl Promise {
    /// The probability: 1/(n·k^(d-1)).
    pub fn bound(&self) -> f64 {
        let depth = i32::try_from(self.d).unwrap_or(i32::MAX);
        1.0 / (self.n as f64 * (self.k as f64).powi(depth - 1))
    }
}

impl std::fmt::Display for Promise {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { n, k, d } = self;
        write!(
            f,
            "pct n={n} k={k} d={d}: each execution hits with at least {:.2e}",
            self.bound()
        )
    }
}

/// Random priorities with d - 1 changes, without an end.
#[derive(Clone, Debug)]
pub struct Pct {
    rng: ChaCha8Rng,
    promise: Promise,
    /// By actor; the highest goes.
    priority: Vec<usize>,
    /// Points at which priorities change, by the priority that they change to.
    changes: Vec<usize>,
    passed: usize,
}

impl Pct {
    /// For `actors` actors (n) that pass `points` points in all (k), and bugs of `depth` (d).
    pub fn new(seed: u64, actors: usize, points: usize, depth: usize) -> Self {
        Self {
            rng: ChaCha8Rng::seed_from_u64(seed),
            promise: Promise {
                n: actors.max(1),
                k: points.max(1),
                d: depth.max(1),
            },
            priority: Vec::new(),
            changes: Vec::new(),
            passed: 0,
        }
    }

    /// What each execution promises.
    pub fn promise(&self) -> Promise {
        self.promise
    }
}

impl Scheduler for Pct {
    fn begin(&mut self) -> bool {
        // d, d+1, … d+n-1; what falls at a change gets one of 1 … d-1.
        let Promise { n, k, d } = self.promise;
        self.priority = (d..d + n).collect();
        self.priority.shuffle(&mut self.rng);
        self.changes = (1..d).map(|_| self.rng.random_range(1..=k)).collect();
        self.passed = 0;
        true
    }

    fn next(&mut self, runnable: &[Actor], _current: Option<Actor>) -> Actor {
        // An actor that the caller had not counted goes last.
        let priority = |all: &[usize], actor: Actor| all.get(actor).copied().unwrap_or(0);
        let highest = |all: &[usize]| {
            let most = runnable.iter().max_by_key(|actor| priority(all, **actor));
            *most.unwrap_or(&runnable[0])
        };
        self.passed += 1;
        let mut actor = highest(&self.priority);
        for (index, at) in self.changes.iter().enumerate() {
            if *at == self.passed
                && let Some(falls) = self.priority.get_mut(actor)
            {
                *falls = self.promise.d - 1 - index;
                actor = highest(&self.priority);
            }
        }
        actor
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schedule::toy::{Handshake, PointerRace, Starvation, World, hits};

    /// So many standard deviations below what is expected is chance no more.
    fn within_its_bound(world: &dyn World, depth: usize) {
        let points = world.points();
        let mut pct = Pct::new(7, points.len(), points.iter().sum(), depth);
        let times = 20_000;
        let expected = pct.promise().bound() * f64::from(times);
        let hits = f64::from(hits(&mut pct, world, times));
        assert!(
            hits >= expected - 4.0 * expected.sqrt(),
            "{}: {hits} of {times}, at least {expected:.0} were due",
            pct.promise()
        );
    }

    #[test]
    fn worlds_are_hit_as_the_paper_promises() {
        // Each with the depth of its bug: how many orders must hold for it.
        within_its_bound(&PointerRace::new(0, 0), 2);
        within_its_bound(&PointerRace::new(10, 5), 2);
        within_its_bound(&Handshake::new(3), 3);
        within_its_bound(&Starvation::new(20), 1);
    }

    /// Where one actor must run through before another moves, priorities do what chance can't.
    #[test]
    fn starvation_is_found_where_chance_does_not() {
        let world = Starvation::new(20);
        let by_chance = hits(&mut crate::schedule::random::Random::new(1), &world, 2_000);
        let by_priority = hits(&mut Pct::new(1, 2, 21, 1), &world, 2_000);
        assert_eq!(by_chance, 0);
        assert!(by_priority > 800, "{by_priority}");
    }

    #[test]
    fn the_bound_is_printed() {
        let pct = Pct::new(1, 2, 10, 2);
        assert_eq!(
            pct.promise().to_string(),
            "pct n=2 k=10 d=2: each execution hits with at least 5.00e-2"
        );
    }
}
