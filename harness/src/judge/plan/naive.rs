//! Naive: a plain loop of load and unload against plain loops of open, read, close.

use knobrig_proto::{Repeat, Step};

use super::build::{Builder, SLOT};
use crate::target::AskingOp;
use crate::target::teardown::Act;

/// Loads and unloads in one episode: the loop's own start and end don't weigh.
const ROUNDS: usize = 20;

/// Plain loops run so long in an episode.
const LOOPS_MS: u64 = 60_000;
/// As many threads as people usually start.
const THREADS: usize = 4;

impl Builder<'_> {
    /// Four plain loops: a teardown, if the target has one beside the unload, and ops that each
    /// open, do one thing and close, one knob after the other.
    pub(super) fn naive_loops(&mut self) {
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
        for (index, knob) in knobs.iter().cycle().take(threads).enumerate() {
            let slot = SLOT + index as u32;
            let actor = self.actor(&format!("{}-{index}", knob.name), false, None);
            let data = knob.write.as_ref().map_or(&[][..], |data| data.all());
            // Each in turn what may be written; a read where nothing may be.
            let mut ops: Vec<_> = (data.iter())
                .map(|data| Step::Write {
                    slot,
                    data: data.text(index as u64),
                })
                .collect();
            if ops.is_empty() {
                ops.extend(Self::op(knob, AskingOp::Read, slot));
            }
            for op in ops {
                let write = matches!(op, Step::Write { .. });
                let open = Step::Open {
                    path: knob.path.clone(),
                    read: !write,
                    write,
                    exclusive: false,
                    slot,
                };
                self.act(actor, open);
                self.act(actor, op);
                self.act(actor, Step::Close { slot });
            }
            self.plan.episode.actors[actor].repeat = Repeat::UntilOthersEnd;
        }
        self.unload_at_zero();
        self.unload_helpers();
    }

    pub(super) fn naive(&mut self) {
        if self.target.target.loops.is_some() {
            return self.naive_loops();
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
