//! Naive: a plain loop of load and unload against plain loops of open, read, close.

use knobrig_proto::{Repeat, Step};
use rand_chacha::ChaCha8Rng;

use super::build::{Builder, SLOT};
use super::loops::{Use, deal, on_knobs};
use crate::target::teardown::Act;
use crate::target::{AskingOp, Data, Knob, Payload};

/// Loads and unloads in one episode: the loop's own start and end don't weigh.
const ROUNDS: usize = 20;

/// Plain loops run so long in an episode.
const LOOPS_MS: u64 = 60_000;
/// As many threads as people usually start.
const THREADS: usize = 4;

impl Builder<'_> {
    /// Four plain loops: a teardown, if the target has one beside the unload, and ops that each
    /// open, do one thing and close, on knobs by weight.
    fn naive_loops(&mut self, rng: &mut ChaCha8Rng) {
        self.bring_up();
        let timer = self.actor("timer", false, None);
        self.act(timer, Step::Sleep { ms: LOOPS_MS });
        self.plan.episode.deadline_ms = 2 * LOOPS_MS;
        let way = self.target.target.teardown.others.first().cloned();
        if let Some(way) = &way {
            let actor = self.actor(&way.name, false, None);
            let acts = way.downs().unwrap_or_default().into_iter().chain(way.ups());
            for act in acts {
                if let Act::Step(step) = act {
                    self.act(actor, step);
                }
            }
            self.plan.episode.actors[actor].repeat = Repeat::UntilOthersEnd;
        }
        let threads = THREADS - usize::from(way.is_some());
        let knobs: Vec<_> = self.target.knobs().cloned().collect();
        // On what, the target knows, and so do people.
        let dealt = deal(&on_knobs(&knobs), threads, rng);
        for (index, (use_of, knob)) in dealt.into_iter().enumerate() {
            self.plain_loop(index, use_of, knob);
        }
        self.unload_at_zero();
        self.unload_helpers();
    }

    /// A thread that opens, does one thing and closes, again and again.
    fn plain_loop(&mut self, index: usize, use_of: Use, knob: &Knob) {
        let slot = SLOT + index as u32;
        let ops: Vec<_> = match use_of {
            Use::Read => vec![Self::op(knob, AskingOp::Read, slot)],
            // In turns what may be written; each thread begins with another.
            Use::Write => {
                let data = knob.write.as_ref().map_or(&[][..], Data::all);
                let write = |data: &Payload| {
                    let data = data.text(index as u64);
                    Some(Step::Write { slot, data })
                };
                let in_turns = data.iter().cycle().skip(index).take(data.len());
                in_turns.map(write).collect()
            }
            Use::Nothing => vec![None],
        };
        let actor = self.actor(&format!("{}-{index}", knob.name), false, None);
        for op in ops {
            self.act(actor, use_of.open(knob, slot));
            if let Some(step) = op {
                self.act(actor, step);
            }
            self.act(actor, Step::Close { slot });
        }
        self.plan.episode.actors[actor].repeat = Repeat::UntilOthersEnd;
    }

    pub(super) fn naive(&mut self, rng: &mut ChaCha8Rng) {
        if self.target.target.loops.is_some() {
            return self.naive_loops(rng);
        }
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
