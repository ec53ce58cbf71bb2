//! Naive: a plain loop of load and unload against plain loops of open, read, close.

use knobrig_proto::{Repeat, Step};

use super::build::{Builder, SLOT};
use crate::target::AskingOp;

/// Loads and unloads in one episode: the loop's own start and end don't weigh.
const ROUNDS: usize = 20;

impl Builder<'_> {
    pub(super) fn naive(&mut self) {
        let name = self.target.target.teardown.name.clone();
        let teardown = self.actor(&name, true, None);
        for _ in 0..ROUNDS {
            for step in self.load_steps().into_iter().chain(self.ending()) {
                self.act(teardown, step);
            }
        }
        let knobs: Vec<_> = self.target.knobs().take(2).collect();
        for (slot, knob) in (SLOT..).zip(knobs) {
            let actor = self.actor(&format!("{}-{slot}", knob.name), false, None);
            self.act(actor, Self::open(knob, slot, false));
            if let Some(step) = Self::op(knob, AskingOp::Read, slot) {
                self.act(actor, step);
            }
            self.act(actor, Step::Close { slot });
            self.plan.episode.actors[actor].repeat = Repeat::UntilOthersEnd;
        }
    }
}
