//! Reload: the driver goes as soon as it has come, again and again, while others open its knobs.
//! Nothing is placed, and little waits: in its first tenths of a second a run meets what plain
//! loops meet.

use knobrig_proto::{Repeat, Step};
use rand::seq::{IndexedRandom, SliceRandom};
use rand_chacha::ChaCha8Rng;

use super::build::{Builder, LOOPS};
use super::{EEXIST, Expect, Rule};

/// Loads in an episode. A small driver takes some 200 ms for one, among threads that look for its knobs.
const ROUNDS: usize = 3;
/// Threads that open.
const OPENERS: usize = 2;

impl Builder<'_> {
    pub(super) fn reload(&mut self, rng: &mut ChaCha8Rng) {
        self.be_patient();
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
        // Who has a knob open that pins the module keeps the driver from going.
        let mut knobs: Vec<_> = self.target.knobs().collect();
        knobs.shuffle(rng);
        knobs.sort_by_key(|knob| self.target.pins(knob));
        for (slot, knob) in (LOOPS..).zip(knobs.into_iter().cycle().take(OPENERS)) {
            let name = format!("{}-{}", knob.name, slot - LOOPS);
            // No pause where the knob is missing: the moment at which it comes is what it is for.
            let actor = self.actor(&name, false, None);
            self.act(actor, Self::open(knob, slot, false));
            if let Some(op) = Self::ops(knob, slot).choose(rng) {
                self.act(actor, op.clone());
            }
            self.act(actor, Step::Close { slot });
            self.plan.episode.actors[actor].repeat = Repeat::UntilOthersEnd;
        }
        self.unload_what_is_left();
        self.unload_helpers();
    }
}
