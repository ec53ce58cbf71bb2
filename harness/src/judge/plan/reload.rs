//! Reload: the driver goes as soon as it has come, again and again, while others open its knobs.
//! Nothing is placed, and little waits: in its first tenths of a second a run meets what plain
//! loops meet.

use knobrig_proto::{Repeat, Step};
use rand::Rng;
use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;

use super::build::{Builder, LOOPS};
use super::{EEXIST, Expect, Rule};

/// Loads in an episode. A small driver takes some 200 ms for one, among threads that look for its knobs.
const ROUNDS: usize = 2;
/// Threads that open. More of them would keep a driver that they pin from going.
const OPENERS: u32 = 2;

impl Builder<'_> {
    pub(super) fn reload(&mut self, rng: &mut ChaCha8Rng) {
        let name = self.target.target.teardown.name.clone();
        let teardown = self.actor(&name, true, None);
        for _ in 0..ROUNDS {
            let up = self.target.target.up.clone();
            for step in self.load_steps().into_iter().chain(up) {
                // What was refused before is still there.
                self.act_checked(teardown, step, Rule::ComesUp, Expect::OkOr(vec![EEXIST]));
            }
            self.give_up_again(Some(teardown));
            let unload = self.unload();
            let results = Expect::OneOf(self.refusable());
            self.act_checked(teardown, unload, Rule::UnloadsAtZero, results);
        }
        let knobs: Vec<_> = self.target.knobs().cloned().collect();
        for index in 0..OPENERS {
            let Some(knob) = knobs.choose(rng) else {
                break;
            };
            let slot = LOOPS + index;
            let ops = Self::ops(knob, slot);
            // No pause where the knob is missing: the moment at which it comes is what it is for.
            let actor = self.actor(&format!("{}-{index}", knob.name), false, None);
            self.act(actor, Self::open(knob, slot, false));
            if let Some(op) = ops.choose(rng).filter(|_| rng.random_ratio(3, 4)) {
                self.act(actor, op.clone());
            }
            self.act(actor, Step::Close { slot });
            self.plan.episode.actors[actor].repeat = Repeat::UntilOthersEnd;
        }
        self.unload_what_is_left();
        self.unload_helpers();
    }
}
