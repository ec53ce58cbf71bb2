//! Stress and birth: loops of ops against the teardown, ordered by nothing but a seeded delay.

use knobrig_proto::Step;
use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::build::Builder;
use super::{ENODEV, ENOENT, Expect, Rule};

/// The longest seeded delay before a teardown.
const SPIN_US: u32 = 3_000;

impl Builder<'_> {
    pub(super) fn stress(&mut self, rng: &mut ChaCha8Rng, birth: bool) {
        if !birth {
            self.bring_up();
        }
        let name = self.target.target.teardown.name.clone();
        let teardown = self.actor(&name, true, Some(rng));
        if birth {
            for step in self.load_steps() {
                self.act_checked(teardown, step, Rule::ComesUp, Expect::OneOf(vec![0]));
            }
            for step in self.target.target.up.clone() {
                self.act_checked(teardown, step, Rule::ComesUp, Expect::OkOr(vec![]));
            }
        }
        let mut allowed = self.refusable();
        for _ in 0..rng.random_range(1..=4) {
            let us = rng.random_range(0..SPIN_US);
            self.act(teardown, Step::Spin { us });
            self.give_up_again(Some(teardown));
            let unload = self.unload();
            let expect = Expect::OneOf(allowed.clone());
            self.act_checked(teardown, unload, Rule::UnloadsAtZero, expect);
            // A later one finds the module gone where an earlier one succeeded.
            if allowed.last() != Some(&ENOENT) {
                allowed.push(ENOENT);
            }
        }
        let knobs: Vec<_> = self.target.knobs().collect();
        let count = rng.random_range(1..=4);
        self.loopers(&knobs, count, rng);
        // The loops have closed what they opened: count zero, or already gone.
        self.unload_what_is_left();
        self.unload_helpers();
    }

    /// Gives up what may be given up already.
    pub(super) fn give_up_again(&mut self, actor: Option<usize>) {
        let give_up = self.target.lifetime.give_up.clone().into_iter();
        for step in give_up.chain(self.target.target.down.clone()) {
            let expect = Expect::OkOr(vec![ENOENT, ENODEV]);
            match actor {
                Some(actor) => self.act_checked(actor, step, Rule::GivenUp, expect),
                None => self.after(step, Rule::GivenUp, expect),
            };
        }
    }
}
