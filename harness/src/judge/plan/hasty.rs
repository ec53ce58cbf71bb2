//! Hasty: the driver goes as soon as it has come, while others open its knobs. Nothing is placed, and nothing
//! waits: in its first tenths of a second a run meets what plain loops meet.

use knobrig_proto::{Repeat, Step};
use rand::seq::{IndexedRandom, SliceRandom};
use rand_chacha::ChaCha8Rng;

use super::build::{Builder, LOOPS};
use super::{Expect, Rule};

/// Threads that open. With who loads and unloads that is one more than most guests have CPUs: each stops now
/// and then, at any instruction.
const OPENERS: usize = 2;

impl Builder<'_> {
    pub(super) fn hasty(&mut self, rng: &mut ChaCha8Rng) {
        let name = self.target.target.teardown.name.clone();
        let teardown = self.actor(&name, true, None);
        let up = self.target.target.up.clone();
        for step in self.load_steps().into_iter().chain(up) {
            self.act_checked(teardown, step, Rule::ComesUp, Expect::OkOr(vec![]));
        }
        self.give_up_again(Some(teardown));
        let unload = self.unload();
        let results = Expect::OneOf(self.refusable());
        self.act_checked(teardown, unload, Rule::UnloadsAtZero, results);
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
