//! Late: an op's time is over, the thread is in its next op, and the answer to the first comes.

use dk_control::Point;
use knobrig_proto::Step;
use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;

use super::build::{Builder, GATE_DEADLINE_MS, SLOT, gateable};
use super::{ETIMEDOUT, Expect, Rule, Then, When};
use crate::target::{AskingOp, Chosen, Knob};

const LATE: &str = "late";
const NEXT: &str = "next";
/// Only a reaction lets the late answer go: it must be late however slow the machine is.
const LATE_DEADLINE_MS: u64 = 5 * GATE_DEADLINE_MS;

type Ask<'a> = (&'a Knob, AskingOp);

/// Ops to be late and ops to be next, of different knobs.
pub(super) fn pairs(target: &Chosen) -> Vec<(Ask<'_>, Ask<'_>)> {
    let asks: Vec<_> = gateable(target).collect();
    (asks.iter())
        .flat_map(|late| asks.iter().map(move |next| (*late, *next)))
        .filter(|((late, _), (next, _))| late.name != next.name)
        .collect()
}

impl Builder<'_> {
    pub(super) fn late(&mut self, rng: &mut ChaCha8Rng) {
        self.be_impatient();
        self.bring_up();
        let pairs = pairs(self.target);
        // The more an answer writes, the more it harms what isn't the ring's any more.
        let harm = |((knob, op), _): &(Ask<'_>, Ask<'_>)| match op {
            AskingOp::Read => knob.read.unwrap_or(1),
            AskingOp::Write => 1,
        };
        let Ok(&((late, late_op), (next, next_op))) = pairs.choose_weighted(rng, harm) else {
            return;
        };
        let (Some(first), Some(second)) = (
            Self::op(late, late_op, SLOT),
            Self::op(next, next_op, SLOT + 1),
        ) else {
            return;
        };
        self.fill(late, late_op);
        // At "seen" nothing of the answer is in the guest's memory yet.
        self.gate(LATE, &late.asks[&late_op], Point::Seen, LATE_DEADLINE_MS);
        self.gate(NEXT, &next.asks[&next_op], Point::Seen, GATE_DEADLINE_MS);
        let releases = [LATE, NEXT].map(|tag| Then::Release(tag.into()));
        self.react(When::Held(NEXT.into()), releases);

        let actor = self.actor("waiter", false, Some(rng));
        for (knob, slot) in [(late, SLOT), (next, SLOT + 1)] {
            let open = Self::open(knob, slot, false);
            self.act_checked(actor, open, Rule::OpSucceeds, Expect::OkOr(vec![]));
        }
        let timed_out = Expect::OneOf(vec![ETIMEDOUT]);
        self.act_checked(actor, first, Rule::TimesOut, timed_out);
        // Its own time is short, too.
        let expect = Expect::OkOr(vec![ETIMEDOUT]);
        self.act_checked(actor, second, Rule::OpReturns, expect);

        self.close(SLOT);
        self.close(SLOT + 1);
        self.give_up();
        self.unload_at_zero();
        self.unload_helpers();
    }

    /// In `before`: writes what the late answer is to bring. The harm that it does is then the same
    /// whatever other episodes wrote, or none did.
    fn fill(&mut self, late: &Knob, op: AskingOp) {
        let write = Self::op(late, AskingOp::Write, SLOT);
        let (AskingOp::Read, Some(write)) = (op, write) else {
            return;
        };
        let open = Self::open(late, SLOT, false);
        self.before(open, Rule::OpSucceeds, Expect::OkOr(vec![]));
        self.before(write, Rule::OpReturns, Expect::OkOr(vec![ETIMEDOUT]));
        self.before(
            Step::Close { slot: SLOT },
            Rule::OpSucceeds,
            Expect::OneOf(vec![0]),
        );
    }
}
