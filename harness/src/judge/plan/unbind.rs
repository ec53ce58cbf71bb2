//! Unbind: the device's binding ends under an open descriptor. No count refuses that.

use dk_control::Point;
use knobrig_proto::{End, FunctionGate, Step, Who};
use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;

use super::build::{Builder, GATE_DEADLINE_MS, SLOT, gateable};
use super::{ENODEV, Expect, Rule, Then, Turn, When};
use crate::target::{AskingOp, Chosen, Knob};

/// The gate.
const INSIDE: &str = "inside";
/// Who ends the binding, and who polls.
pub(super) const UNBIND: &str = "unbind";
const POLLER: &str = "poller";
/// Through it whoever was woken leaves what he has polled, a queue of the driver's.
const LEAVES: &str = "poll_freewait";
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

/// Who can be held, and who polls: a target has one poller among many ops, and what only that one shows
/// is not to wait for its turn.
pub(super) fn kinds(target: &Chosen) -> Vec<Vec<Victim<'_>>> {
    let (held, pollers) =
        (victims(target).into_iter()).partition(|victim| matches!(victim, Victim::Held(..)));
    let mut kinds = vec![held, pollers];
    kinds.retain(|kind: &Vec<_>| !kind.is_empty());
    kinds
}

impl Builder<'_> {
    /// `gates`, the guest can hold threads in functions.
    pub(super) fn unbind(&mut self, turn: Turn, gates: bool, rng: &mut ChaCha8Rng) {
        self.bring_up();
        let Some(unbind) = self.target.target.unbind.clone() else {
            return;
        };
        let kind = turn.shuffled(kinds(self.target)).unwrap_or_default();
        let Some(victim) = kind.choose(rng).copied() else {
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
                let poller = self.open_by(POLLER, knob, true);
                if gates {
                    self.plan.episode.gates.push(FunctionGate {
                        tag: INSIDE.into(),
                        function: LEAVES.into(),
                        end: End::Entry,
                        who: Who::Actor(POLLER.into()),
                        own: false,
                        occurrence: 1,
                        deadline_ms: GATE_DEADLINE_MS,
                        sleeps: false,
                        waiter: Some(UNBIND.into()),
                    });
                }
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
        let unbinder = self.actor(UNBIND, true, Some(rng));
        self.await_signal(unbinder, READY);
        let ends = self.act_checked(unbinder, unbind, Rule::Unbinds, Expect::OkOr(vec![]));
        match victim {
            Victim::Held(..) => self.react(self.settled(ends), [Then::Release(INSIDE.into())]),
            Victim::Poller(_) if gates => {
                self.act(unbinder, Step::ReleaseGate { tag: INSIDE.into() });
            }
            Victim::Poller(_) => {}
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::plan::{Plan, Points, Shape, plan};

    #[test]
    fn who_polls_is_held_on_his_way_out_where_the_guest_can_hold_him() {
        let target = Chosen::find("mydrv", Some("drained"), None).expect("built in");
        let polls = |points: &Points| {
            let unbinds = |number| plan(&target, points, 1, number, &[Shape::Unbind]);
            let is_it = |plan: &Plan| plan.episode.actors.iter().any(|it| it.name == POLLER);
            (1..50).map(unbinds).find(is_it).expect("somebody polls")
        };
        let held = polls(&Points::among([])).episode.gates;
        assert_eq!(held.len(), 1);
        assert_eq!(held[0].function, LEAVES);
        assert!(polls(&Points::default()).episode.gates.is_empty());
    }
}
