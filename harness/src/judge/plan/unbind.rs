//! Unbind: the device's binding ends under an open descriptor. No count refuses that.

use dk_control::Point;
use knobrig_proto::Step;
use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;

use super::build::{Builder, GATE_DEADLINE_MS, SLOT, gateable};
use super::{ENODEV, Expect, Rule, Then, When};
use crate::target::{AskingOp, Chosen, Knob};

const INSIDE: &str = "inside";
/// Raised when somebody is inside.
const READY: &str = "ready";
/// A poller that nobody wakes goes on after so long, and that is a finding.
const POLL_MS: u32 = 5_000;

/// What somebody does in the driver while it is unbound.
#[derive(Clone, Copy)]
pub(super) enum Victim<'a> {
    /// An op whose answer the device holds.
    Held(&'a Knob, AskingOp),
    /// A poll for the end of the device.
    Poller(&'a Knob),
}

/// All that a target knows.
pub(super) fn victims(target: &Chosen) -> Vec<Victim<'_>> {
    let held = gateable(target).map(|(knob, op)| Victim::Held(knob, op));
    let pollers = target.knobs().filter(|knob| knob.poll).map(Victim::Poller);
    held.chain(pollers).collect()
}

/// First whether somebody is held or polls, then who: a target has one poller among many ops, and
/// what only that one shows is not to wait for its turn.
fn choose<'a>(victims: Vec<Victim<'a>>, rng: &mut ChaCha8Rng) -> Option<Victim<'a>> {
    let (held, pollers): (Vec<_>, Vec<_>) =
        (victims.into_iter()).partition(|victim| matches!(victim, Victim::Held(..)));
    let mut kinds = vec![held, pollers];
    kinds.retain(|kind| !kind.is_empty());
    kinds.choose(rng)?.choose(rng).copied()
}

impl Builder<'_> {
    pub(super) fn unbind(&mut self, rng: &mut ChaCha8Rng) {
        self.bring_up();
        let Some(unbind) = self.target.target.unbind.clone() else {
            return;
        };
        let Some(victim) = choose(victims(self.target), rng) else {
            return;
        };
        let (Victim::Held(knob, _) | Victim::Poller(knob)) = victim;
        match victim {
            Victim::Held(_, op) => {
                self.gate(INSIDE, &knob.asks[&op], Point::Seen, GATE_DEADLINE_MS);
                let raise = Then::Raise(READY.into());
                self.react(When::Held(INSIDE.into()), [raise]);
                let holder = self.open_by("holder", knob, false);
                if let Some(step) = Self::op(knob, op, SLOT) {
                    let expect = Expect::OkOr(vec![ENODEV]);
                    self.act_checked(holder, step, Rule::OpReturns, expect);
                }
            }
            Victim::Poller(_) => {
                let poller = self.open_by("poller", knob, true);
                let step = Step::Poll {
                    slot: SLOT,
                    timeout_ms: POLL_MS,
                    hangup: true,
                };
                let expect = Expect::OneOf(vec![1]);
                let polls = self.act_checked(poller, step, Rule::OpReturns, expect);
                self.react(self.settled(polls), [Then::Raise(READY.into())]);
            }
        }
        let unbinder = self.actor("unbind", true, Some(rng));
        self.await_signal(unbinder, READY);
        let ends = self.act_checked(unbinder, unbind, Rule::Unbinds, Expect::OkOr(vec![]));
        if matches!(victim, Victim::Held(..)) {
            self.react(self.settled(ends), [Then::Release(INSIDE.into())]);
        }

        self.check_paths_gone();
        self.ops_find_it_gone(knob, SLOT);
        self.close(SLOT);
        self.check_count(0);
        self.unload_at_zero();
        self.unload_helpers();
    }

    fn open_by(&mut self, name: &str, knob: &Knob, watched: bool) -> usize {
        let actor = self.actor(name, watched, None);
        let open = Self::open(knob, SLOT, false);
        self.act_checked(actor, open, Rule::OpSucceeds, Expect::OkOr(vec![]));
        actor
    }
}
