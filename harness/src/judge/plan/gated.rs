//! Gated: the device holds an op inside the driver, and the teardown begins.

use dk_control::Point;
use knobrig_proto::Step;
use rand::Rng;
use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;

use super::build::{Builder, GATE_DEADLINE_MS, SLOT, gateable};
use super::{ENODEV, EWOULDBLOCK, Expect, Place, Rule, Then, Turn, When};
use crate::target::{AskingOp, Chosen, Knob, KnobsFirst, TeardownKind, Way};

/// The gate.
const INSIDE: &str = "inside";
/// Raised when it holds, and when the second one does where there is one.
const HELD: &str = "held";
/// Who stands inside another knob meanwhile, and the gate that holds him.
const SECOND: &str = "second";
/// His descriptor.
const SECOND_SLOT: u32 = SLOT + 1;
/// Raised when the first gate holds, where a second one is to.
const FIRST_HELD: &str = "first-held";
/// Raised when the teardown has come to rest.
const AT_REST: &str = "at-rest";
/// The teardown, let go from one knob, comes to the next within this.
const NEXT_KNOB_MS: u64 = 1_000;

/// Either side of the device's work on a request.
fn any_point(rng: &mut ChaCha8Rng) -> Point {
    match rng.random() {
        true => Point::Seen,
        false => Point::BeforeCompletion,
    }
}

/// A knob that somebody is held inside, and ops of others of which one is held, too.
pub(super) struct Kind<'a> {
    knob: &'a Knob,
    others: Vec<(&'a Knob, AskingOp)>,
}

/// Each knob alone, and with another of the rule that can be held: a driver that leaves both of them looks
/// to who is inside one just like a driver that leaves that one.
pub(super) fn kinds(target: &Chosen) -> Vec<Kind<'_>> {
    let mut kinds = Vec::new();
    for knob in target.knobs().filter(|knob| !knob.asks.is_empty()) {
        let rule = outlasts(target, knob);
        let others = gateable(target).filter(|(other, _)| {
            let of_it = rule.is_some_and(|rule| rule.knobs.contains(&other.name));
            of_it && other.name != knob.name && !target.pins(other)
        });
        let others: Vec<_> = others.collect();
        if !others.is_empty() {
            kinds.push(Kind { knob, others });
        }
        let others = Vec::new();
        kinds.push(Kind { knob, others });
    }
    kinds
}

/// What is there as long as somebody is inside this knob.
fn outlasts<'a>(target: &'a Chosen, knob: &Knob) -> Option<&'a KnobsFirst> {
    let rule = target.target.rules.knobs_first.as_ref();
    rule.filter(|rule| rule.knobs.contains(&knob.name) && !target.pins(knob))
}

impl<'a> Builder<'a> {
    pub(super) fn gated(&mut self, turn: Turn, rng: &mut ChaCha8Rng) {
        self.bring_up();
        let Some(Kind { knob, others }) = turn.shuffled(kinds(self.target)) else {
            return;
        };
        let ops: Vec<_> = knob.asks.keys().copied().collect();
        let Some(op) = ops.choose(rng).copied() else {
            return;
        };
        let Some(step) = Self::op(knob, op, SLOT) else {
            return;
        };
        self.gate(INSIDE, &knob.asks[&op], any_point(rng), GATE_DEADLINE_MS);
        let holder = self.actor("holder", false, Some(rng));
        let open = Self::open(knob, SLOT, false);
        self.act_checked(holder, open, Rule::OpSucceeds, Expect::OkOr(vec![]));
        let expect = Expect::OkOr(vec![ENODEV]);
        let inside = self.act_checked(holder, step, Rule::OpReturns, expect);

        if let Some(way) = self.other_way(knob, rng) {
            self.raise_when_held(INSIDE, HELD);
            return self.gated_way(&way, knob, rng);
        }
        let pinned = self.target.pins(knob);
        let outlasts = outlasts(self.target, knob);
        let second = (others.choose(rng).copied())
            .and_then(|(other, op)| Some((other, self.second_holder(other, op, rng)?)));
        if second.is_none() {
            self.raise_when_held(INSIDE, HELD);
        }
        let name = self.target.target.teardown.name.clone();
        let teardown = self.actor(&name, true, Some(rng));
        self.await_signal(teardown, HELD);
        let ending = self.ending();
        let places: Vec<_> = (ending.into_iter())
            .map(|step| self.act(teardown, step))
            .collect();
        if self.target.lifetime.give_up.is_some() {
            self.expect(places[0], Rule::GivenUp, Expect::OkOr(vec![]));
        }
        let (rule, result) = match pinned {
            true => (Rule::RefusedWhilePinned, EWOULDBLOCK),
            false => (Rule::UnloadsAtZero, 0),
        };
        self.expect(places[places.len() - 1], rule, Expect::OneOf(vec![result]));
        match (&second, outlasts) {
            (Some((other, inside_too)), Some(rule)) => {
                let next = (other.path.as_str(), *inside_too);
                self.look_while_held(places[0], inside, Some(next), &rule.paths);
            }
            (None, Some(rule)) if rule.knobs.len() == 1 => {
                self.look_while_held(places[0], inside, None, &rule.paths);
            }
            _ => self.react(self.settled(places[0]), [Then::Release(INSIDE.into())]),
        }

        // Others on the knobs that pin nothing: they collide with the same teardown without
        // making its result depend on chance. They may not ask what the gate holds.
        let others: Vec<_> = (self.target.knobs())
            .filter(|other| !self.target.pins(other) && other.name != knob.name)
            .filter(|other| (second.as_ref()).is_none_or(|(held, _)| held.name != other.name))
            .collect();
        let count = rng.random_range(0..=2);
        self.loopers(&others, count, rng);
        self.after_the_hold(knob, pinned, second.map(|(other, _)| other));
    }

    fn raise_when_held(&mut self, gate: &str, signal: &str) {
        let raise = Then::Raise(signal.into());
        self.react(When::Held(gate.into()), [raise]);
    }

    /// As often as by the unload, the driver ends in another way, if the target has one that goes
    /// on whoever is inside, and that takes the knob away.
    fn other_way(&self, knob: &Knob, rng: &mut ChaCha8Rng) -> Option<Way> {
        let takes_away = |way: &&Way| {
            let kinds = [
                TeardownKind::Unbind,
                TeardownKind::Remove,
                TeardownKind::DriverOverride,
            ];
            kinds.contains(&way.kind)
        };
        let ways: Vec<_> = (self.target.target.teardown.others.iter())
            .filter(takes_away)
            .collect();
        if self.target.pins(knob) || ways.is_empty() || rng.random() {
            return None;
        }
        let chosen = ways.choose_weighted(rng, |way| way.weight);
        chosen.ok().map(|way| (*way).clone())
    }

    /// The driver ends in this way while the gate holds, and comes back.
    fn gated_way(&mut self, way: &Way, knob: &Knob, rng: &mut ChaCha8Rng) {
        let teardown = self.actor(&way.name, true, Some(rng));
        self.await_signal(teardown, HELD);
        let mut first = None;
        for act in way.downs().unwrap_or_default() {
            let place = self.act_way(teardown, act, Rule::TearsDown, &way.fine());
            first.get_or_insert(place);
        }
        for act in way.ups() {
            let place = self.act_way(teardown, act, Rule::ComesBack, &way.fine());
            self.plan.ups.push(place);
        }
        if let Some(first) = first {
            self.react(self.settled(first), [Then::Release(INSIDE.into())]);
        }
        self.plan.episode.deadline_ms += 2 * way.deadline_ms;
        self.ops_find_it_gone(knob, SLOT);
        self.close(SLOT);
        self.unload_at_zero();
        self.unload_helpers();
    }

    /// Once the first gate holds, another thread is held inside another knob. Gives its op's place.
    fn second_holder(&mut self, knob: &Knob, op: AskingOp, rng: &mut ChaCha8Rng) -> Option<Place> {
        let step = Self::op(knob, op, SECOND_SLOT)?;
        self.gate(SECOND, &knob.asks[&op], any_point(rng), GATE_DEADLINE_MS);
        self.raise_when_held(INSIDE, FIRST_HELD);
        self.raise_when_held(SECOND, HELD);
        let second = self.actor(SECOND, false, Some(rng));
        self.await_signal(second, FIRST_HELD);
        let open = Self::open(knob, SECOND_SLOT, false);
        self.act_checked(second, open, Rule::OpSucceeds, Expect::OkOr(vec![]));
        let expect = Expect::OkOr(vec![ENODEV]);
        Some(self.act_checked(second, step, Rule::OpReturns, expect))
    }

    /// A witness looks while the teardown waits, and the gate lets go after that. Where there is a
    /// second one inside a knob, that is let go when the teardown has come to it and the witness
    /// has looked again.
    fn look_while_held(
        &mut self,
        teardown: Place,
        inside: Place,
        next: Option<(&str, Place)>,
        paths: &[String],
    ) {
        self.react(self.settled(teardown), [Then::Raise(AT_REST.into())]);
        let witness = self.actor("witness", true, None);
        self.await_signal(witness, AT_REST);
        self.look(witness, Rule::KnobsFirst, inside, paths, INSIDE);
        if let Some((path, inside_too)) = next {
            let wait = Step::WaitPath {
                path: path.into(),
                present: false,
                deadline_ms: NEXT_KNOB_MS,
            };
            self.act(witness, wait);
            self.look(witness, Rule::EachKnobFirst, inside_too, paths, SECOND);
        }
    }

    fn look(&mut self, witness: usize, rule: Rule, inside: Place, paths: &[String], gate: &str) {
        for (index, path) in paths.iter().enumerate() {
            let step = Step::Exists { path: path.clone() };
            let place = self.act_checked(witness, step, rule, Expect::OkWhile(inside));
            if index + 1 == paths.len() {
                self.react(self.settled(place), [Then::Release(gate.into())]);
            }
        }
    }

    fn after_the_hold(&mut self, knob: &Knob, pinned: bool, second: Option<&Knob>) {
        let given_up = self.target.lifetime.give_up.is_some();
        if pinned {
            self.check_count(1);
            match given_up {
                true => self.ops_find_it_gone(knob, SLOT),
                false => self.ops_succeed(knob, SLOT),
            }
            self.close(SLOT);
            self.check_count(0);
            self.unload_at_zero();
        } else {
            self.check_gone();
            self.ops_find_it_gone(knob, SLOT);
            self.close(SLOT);
        }
        if let Some(second) = second {
            self.ops_find_it_gone(second, SECOND_SLOT);
            self.close(SECOND_SLOT);
        }
        self.unload_helpers();
    }
}
