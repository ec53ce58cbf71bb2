//! Gated: the device holds an op inside the driver, and the teardown begins.

use dk_control::Point;
use knobrig_proto::Step;
use rand::Rng;
use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;

use super::build::{Builder, GATE_DEADLINE_MS, SLOT, gateable};
use super::{ENODEV, EWOULDBLOCK, Expect, Place, Rule, Then, When};
use crate::target::{Knob, TeardownKind, Way};

/// The gate.
const INSIDE: &str = "inside";
/// Raised when it holds.
const HELD: &str = "held";
/// Raised when the teardown has come to rest.
const AT_REST: &str = "at-rest";

impl Builder<'_> {
    pub(super) fn gated(&mut self, rng: &mut ChaCha8Rng) {
        self.bring_up();
        let choices: Vec<_> = gateable(self.target).collect();
        let Some((knob, op)) = choices.choose(rng).copied() else {
            return;
        };
        let Some(step) = Self::op(knob, op, SLOT) else {
            return;
        };
        let points = [Point::Seen, Point::BeforeCompletion];
        let point = *points.choose(rng).unwrap_or(&Point::BeforeCompletion);
        self.gate(INSIDE, &knob.asks[&op], point, GATE_DEADLINE_MS);
        let raise = Then::Raise(HELD.into());
        self.react(When::Held(INSIDE.into()), [raise]);

        let holder = self.actor("holder", false, Some(rng));
        let open = Self::open(knob, SLOT, false);
        self.act_checked(holder, open, Rule::OpSucceeds, Expect::OkOr(vec![]));
        let expect = Expect::OkOr(vec![ENODEV]);
        let inside = self.act_checked(holder, step, Rule::OpReturns, expect);

        if let Some(way) = self.other_way(knob, rng) {
            return self.gated_way(&way, knob, rng);
        }
        let name = self.target.target.teardown.name.clone();
        let teardown = self.actor(&name, true, Some(rng));
        self.await_signal(teardown, HELD);
        let ending = self.ending();
        let places: Vec<_> = (ending.into_iter())
            .map(|step| self.act(teardown, step))
            .collect();
        let pinned = self.target.pins(knob);
        if self.target.lifetime.give_up.is_some() {
            self.expect(places[0], Rule::GivenUp, Expect::OkOr(vec![]));
        }
        let (rule, result) = match pinned {
            true => (Rule::RefusedWhilePinned, EWOULDBLOCK),
            false => (Rule::UnloadsAtZero, 0),
        };
        self.expect(places[places.len() - 1], rule, Expect::OneOf(vec![result]));
        match self.goes_last(knob) {
            paths if paths.is_empty() || pinned => {
                self.react(self.settled(places[0]), [Then::Release(INSIDE.into())]);
            }
            paths => self.look_while_held(places[0], inside, paths),
        }

        // Others on the knobs that pin nothing: they collide with the same teardown without
        // making its result depend on chance. They may not ask what the gate holds.
        let others: Vec<_> = (self.target.knobs())
            .filter(|other| !self.target.pins(other) && other.name != knob.name)
            .collect();
        let count = rng.random_range(0..=2);
        self.loopers(&others, count, rng);
        self.after_the_hold(knob, pinned);
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

    /// Paths that are there as long as somebody is inside this knob.
    fn goes_last(&self, knob: &Knob) -> Vec<String> {
        match &self.target.target.rules.knobs_first {
            Some(rule) if rule.knobs.contains(&knob.name) => rule.paths.clone(),
            _ => Vec::new(),
        }
    }

    /// A witness looks while the teardown waits; the gate lets go after that.
    fn look_while_held(&mut self, teardown: Place, inside: Place, paths: Vec<String>) {
        self.react(self.settled(teardown), [Then::Raise(AT_REST.into())]);
        let witness = self.actor("witness", true, None);
        self.await_signal(witness, AT_REST);
        let mut last = teardown;
        for path in paths {
            let step = Step::Exists { path };
            last = self.act_checked(witness, step, Rule::KnobsFirst, Expect::OkWhile(inside));
        }
        self.react(self.settled(last), [Then::Release(INSIDE.into())]);
    }

    fn after_the_hold(&mut self, knob: &Knob, pinned: bool) {
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
        self.unload_helpers();
    }
}
