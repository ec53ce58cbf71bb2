//! Naive: a plain loop of load and unload against plain loops of open, read, close.

use knobrig_proto::{Repeat, Step};

use super::build::{Builder, SLOT};
use super::loops::Use;
use crate::target::teardown::Act;
use crate::target::{AskingOp, Data, Knob, Payload, Way};

/// Loads and unloads in one episode: the loop's own start and end don't weigh.
const ROUNDS: usize = 20;

/// Plain loops run so long in an episode.
const LOOPS_MS: u64 = 60_000;
/// As many threads as people usually start, where the target doesn't say.
const THREADS: usize = 4;

impl Builder<'_> {
    /// Plain loops: threads that each open a knob, do one thing and close, or go through a teardown
    /// beside the unload.
    fn naive_loops(&mut self, plain: &[String]) {
        self.bring_up();
        let timer = self.actor("timer", false, None);
        self.act(timer, Step::Sleep { ms: LOOPS_MS });
        self.plan.episode.deadline_ms = 2 * LOOPS_MS;
        let ways = &self.target.target.teardown.others;
        let knobs: Vec<_> = self.target.knobs().cloned().collect();
        let first_way = ways.iter().take(1).map(|way| &way.name);
        let in_order = first_way.chain(knobs.iter().map(|knob| &knob.name).cycle());
        let names: Vec<_> = match plain {
            [] => in_order.take(THREADS).collect(),
            names => names.iter().collect(),
        };
        for (index, name) in names.into_iter().enumerate() {
            let knob = knobs.iter().find(|knob| knob.name == *name);
            let way = ways.iter().find(|way| way.name == *name);
            match (knob, way) {
                (Some(knob), _) => self.plain_loop(index, knob),
                (None, Some(way)) => self.plain_teardown(way),
                (None, None) => {}
            }
        }
        self.unload_at_zero();
        self.unload_helpers();
    }

    fn plain_teardown(&mut self, way: &Way) {
        let actor = self.actor(&way.name, false, None);
        let acts = way.downs().unwrap_or_default().into_iter().chain(way.ups());
        for act in acts {
            if let Act::Step(step) = act {
                self.act(actor, step);
            }
        }
        self.plan.episode.actors[actor].repeat = Repeat::UntilOthersEnd;
    }

    /// A thread that opens, does one thing and closes, again and again.
    fn plain_loop(&mut self, index: usize, knob: &Knob) {
        let slot = SLOT + index as u32;
        let use_of = match knob {
            Knob { write: Some(_), .. } => Use::Write,
            Knob { read: Some(_), .. } => Use::Read,
            _ => Use::Nothing,
        };
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

    pub(super) fn naive(&mut self) {
        if let Some(loops) = &self.target.target.loops {
            return self.naive_loops(&loops.plain);
        }
        self.be_patient();
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
