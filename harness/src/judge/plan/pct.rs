//! A placed episode whose order is chosen by probabilistic concurrency testing: the points of a
//! program, as its survey found them, are passed in an order of random priorities with a change.

use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::build::Builder;
use super::points::{Program as Actors, Spot};
use super::race::{self, Race};
use super::{Plan, Shape};
use crate::schedule::Program;
use crate::schedule::pct::Pct;

/// Orders that must hold for a bug to show, those deeper than which are not looked for: one between
/// two threads, and one back.
const DEPTH: usize = 2;

impl Builder<'_> {
    /// The program in such an order; nothing if it has no points.
    pub(super) fn pct(
        &self,
        program: &Actors,
        spots: &[Spot],
        hold_ms: u64,
        rng: &mut ChaCha8Rng,
    ) -> Option<Plan> {
        let race = Race::of(self.target, program)?;
        let names = self.names(program);
        let way = Program {
            actors: race::entries(&race, &names, spots),
        };
        let points: usize = way.actors.iter().map(Vec::len).sum();
        if way.actors.iter().any(|points| points.len() < 2) {
            return None;
        }
        let mut pct = Pct::new(rng.random(), way.actors.len(), points, DEPTH);
        let went = way.run(&mut pct)?;
        let turns = Program::turns(&went);
        let number = self.plan.episode.id;
        let ordered = race::ordered(self.target, &race, &way, &turns, number, hold_ms);
        Some(Plan {
            shape: Shape::Placed,
            program: Some(program.clone()),
            pct: Some(pct.promise()),
            ..ordered.plan
        })
    }
}
