//! Placed: somebody is held at a point in a function, and the other side begins, comes to rest,
//! or goes all the way; then he is let go. And the survey that finds the points.

use std::mem::discriminant;

use knobrig_proto::{FunctionGate, Step, Who};
use rand::Rng;
use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;

use super::build::{Builder, SLOT};
use super::elsewhere::GIVER;
use super::points::{Held, Points, Program};
use super::unbind::UNBIND;
use super::{ENODEV, ENOENT, Expect, Place, Rule, Shape, Then, Turn, When};
use crate::target::{Chosen, Knob};

/// The gate.
const POINT: &str = "point";
/// One in so many orders is chosen by probabilistic concurrency testing, where a program has points
/// for it; the others take the points in turns.
const PCT_ONE_IN: u32 = 4;
/// The point of an actor comes soon, or he ends; that of a worker when its time has come.
const POINT_MS: u64 = 1_000;
/// Who uses the driver.
const USER: &str = "user";
/// Raised when it is the other's turn.
const TURN: &str = "turn";
/// As long as a driver's housekeeping may let one wait after an op.
const BACKGROUND_MS: u64 = 250;

/// Programs of one kind, for each kind that a target has. What is held while the module goes comes first, and
/// most of what is held in an unbind is met by that.
pub(super) fn kinds(target: &Chosen) -> Vec<Vec<Program>> {
    let mut kinds: Vec<Vec<Program>> = Vec::new();
    for program in Program::all(target) {
        let like = |kind: &&mut Vec<Program>| discriminant(&kind[0]) == discriminant(&program);
        match kinds.iter_mut().find(like) {
            Some(kind) => kind.push(program),
            None => kinds.push(vec![program]),
        }
    }
    kinds.sort_by_key(|kind| matches!(kind[0], Program::Unbind(_)));
    kinds
}

impl Builder<'_> {
    pub(super) fn placed(&mut self, points: &Points, turn: Turn, rng: &mut ChaCha8Rng) {
        let fresh = points.fresh().cloned();
        let chosen = || turn.in_order(kinds(self.target))?.choose(rng).cloned();
        let program = fresh.clone().or_else(chosen);
        let Some(program) = program.filter(|_| !points.candidates().is_empty()) else {
            return self.stress(rng, false);
        };
        match points.of(&program) {
            None => self.survey(&program, points.candidates()),
            Some(spots) => {
                if fresh.is_none()
                    && rng.random_ratio(1, PCT_ONE_IN)
                    && let Some(plan) = self.pct(&program, spots, points.hold_ms(), rng)
                {
                    self.plan = plan;
                    return;
                }
                match points.next(&program, turn.seed) {
                    Some(held) => self.place(&program, &held, points.hold_ms(), rng),
                    None => self.stress(rng, false),
                }
            }
        }
        self.plan.program = Some(program);
        let under_test = self.target.modules().map(|module| module.name.clone());
        self.plan.episode.under_test = under_test.collect();
    }

    /// Runs a program's actors one after the other, and has it noted who passes where.
    fn survey(&mut self, program: &Program, candidates: &[String]) {
        self.plan.shape = Shape::Survey;
        self.plan.episode.survey = candidates.to_vec();
        let (Program::Ops(knob) | Program::Unbind(knob)) = program else {
            return self.elsewhere();
        };
        self.bring_up();
        let user = self.actor(USER, true, None);
        let fine = self.target.knobs().find(|it| it.name == *knob);
        let fine = fine.map_or_else(Vec::new, Knob::fine_results);
        for step in self.visit(knob) {
            self.act_checked(user, step, Rule::OpSucceeds, Expect::OkOr(fine.clone()));
        }
        self.act(user, Step::Sleep { ms: BACKGROUND_MS });
        let done = self.act(user, Step::Spin { us: 0 });
        self.react(self.settled(done), [Then::Raise(TURN.into())]);
        let end = self.end_actor(program, None);
        self.await_signal(end, TURN);
        self.end(program, end);
        self.leave(program);
    }

    /// Holds somebody at a point of a program.
    fn place(&mut self, program: &Program, held: &Held<'_>, hold_ms: u64, rng: &mut ChaCha8Rng) {
        let spot = held.spot;
        self.plan.episode.gates.push(FunctionGate {
            tag: POINT.into(),
            function: spot.function.clone(),
            end: held.end,
            who: spot.who.clone(),
            own: spot.own,
            occurrence: spot.occurrence,
            deadline_ms: hold_ms,
            sleeps: false,
            waiter: None,
        });
        // Every other time the other side only begins before the held one goes on. A teardown that
        // waits for a reference has begun as it is.
        let begins = held.round % 2 == 1;
        let is_held = |name: &str| spot.who == Who::Actor(name.into());
        match program {
            Program::Ops(knob) | Program::Unbind(knob) => {
                self.bring_up();
                if is_held(USER) || spot.who == Who::Worker {
                    self.end_while_held(program, knob, begins, rng);
                } else {
                    self.visit_while_held(program, knob, begins, rng);
                }
                self.leave(program);
            }
            Program::Elsewhere => self.give_or_wait_held(is_held(GIVER)),
        }
    }

    /// The user, or a worker of the driver's, is held, and the end begins.
    fn end_while_held(
        &mut self,
        program: &Program,
        knob: &str,
        begins: bool,
        rng: &mut ChaCha8Rng,
    ) {
        let user = self.actor(USER, false, Some(rng));
        for step in self.visit(knob) {
            self.act(user, step);
        }
        let end = self.end_actor(program, Some(rng));
        self.await_point(end);
        if begins {
            self.release_point(end);
        }
        let steps = self.end(program, end);
        for place in &steps {
            self.react(self.asleep(*place), [Then::Release(POINT.into())]);
        }
        self.release_point(end);
    }

    /// The end is held, and the user comes.
    fn visit_while_held(
        &mut self,
        program: &Program,
        knob: &str,
        begins: bool,
        rng: &mut ChaCha8Rng,
    ) {
        let end = self.end_actor(program, Some(rng));
        self.end(program, end);
        let user = self.actor(USER, true, Some(rng));
        self.await_point(user);
        if begins {
            self.release_point(user);
        }
        for step in self.visit(knob) {
            let place = self.act(user, step);
            // He waits for the one that is held, who goes on then.
            self.react(self.asleep(place), [Then::Release(POINT.into())]);
        }
        self.release_point(user);
    }

    /// The teardown waits for a reference that another gives back; one of them is held, until the
    /// other is through: nobody may be in the module any more then. Where the other waits for the
    /// held one to be out of it, he sleeps on, and the held one goes on.
    fn give_or_wait_held(&mut self, giver_is_held: bool) {
        let Some((teardown, giver)) = self.elsewhere_actors(TURN) else {
            return;
        };
        let other = match giver_is_held {
            true => teardown,
            false => {
                // Before it waits, or when it has been let go.
                let held = When::Held(POINT.into());
                self.react(held, [Then::Raise(TURN.into())]);
                giver
            }
        };
        self.release_point(other);
        let name = self.plan.episode.actors[other].name.clone();
        for gate in &mut self.plan.episode.gates {
            gate.waiter = Some(name.clone());
        }
    }

    /// The names of a program's actors, he who ends last.
    pub(super) fn names(&self, program: &Program) -> [String; 2] {
        let end = match program {
            Program::Unbind(_) => UNBIND.to_owned(),
            Program::Ops(_) | Program::Elsewhere => self.target.target.teardown.name.clone(),
        };
        [USER.to_owned(), end]
    }

    /// Opens, uses and closes a knob.
    fn visit(&self, knob: &str) -> Vec<Step> {
        let knob = self.target.knobs().find(|it| it.name == knob);
        let steps = |knob: &Knob| {
            let open = [Self::open(knob, SLOT, false)].into_iter();
            let close = Step::Close { slot: SLOT };
            open.chain(Self::ops(knob, SLOT)).chain([close]).collect()
        };
        knob.map(steps).unwrap_or_default()
    }

    fn end_actor(&mut self, program: &Program, rng: Option<&mut ChaCha8Rng>) -> usize {
        let [_, name] = self.names(program);
        self.actor(&name, true, rng)
    }

    /// What ends the binding or the module, with whoever else is there.
    pub(super) fn end(&mut self, program: &Program, actor: usize) -> Vec<Place> {
        let unbind = self.target.target.unbind.clone();
        if let (Program::Unbind(_), Some(unbind)) = (program, unbind) {
            return vec![self.act_checked(actor, unbind, Rule::Unbinds, Expect::OkOr(vec![]))];
        }
        let mut places = Vec::new();
        let given_up = Expect::OkOr(vec![ENOENT, ENODEV]);
        if let Some(step) = self.target.lifetime.give_up.clone() {
            places.push(self.act_checked(actor, step, Rule::GivenUp, given_up));
        }
        let unload = self.unload();
        let result = Expect::OneOf(self.refusable());
        places.push(self.act_checked(actor, unload, Rule::UnloadsAtZero, result));
        places
    }

    /// In `after`: what is left of it goes.
    pub(super) fn leave(&mut self, program: &Program) {
        match program {
            Program::Unbind(_) => {
                self.check_paths_gone();
                self.check_count(0);
                self.unload_at_zero();
            }
            Program::Ops(_) | Program::Elsewhere => {
                self.unload_what_is_left();
            }
        }
        self.unload_helpers();
    }

    fn await_point(&mut self, actor: usize) {
        let step = Step::AwaitGate {
            tag: POINT.into(),
            deadline_ms: POINT_MS,
        };
        self.act(actor, step);
    }

    fn release_point(&mut self, actor: usize) {
        self.act(actor, Step::ReleaseGate { tag: POINT.into() });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::plan::plan;
    use knobrig_proto::Pass;

    #[test]
    fn a_survey_takes_for_right_what_its_knob_says() {
        let target = Chosen::find("pci_override", None, None).expect("built in");
        let points = Points::among(["bind_store".to_owned()]);
        let plans = (1..40).map(|number| plan(&target, &points, 1, number, &[Shape::Placed]));
        let surveys = plans.filter(|plan| plan.shape == Shape::Survey);
        let expects: Vec<_> = (surveys.flat_map(|plan| plan.checks))
            .filter(|check| check.rule == Rule::OpSucceeds)
            .map(|check| check.expect)
            .collect();
        assert!(expects.contains(&Expect::OkOr(vec![ENODEV])), "{expects:?}");
    }

    #[test]
    fn what_was_surveyed_is_tried_before_another_survey() {
        let target = Chosen::find("mydrv", Some("drained"), None).expect("built in");
        let pass = Pass {
            function: "kfree".into(),
            who: Who::Actor(USER.into()),
            own: true,
            occurrence: 1,
            holdable: true,
            ns: 1,
        };
        let mut points = Points::among(["kfree".to_owned()]);
        for program in Program::all(&target) {
            points.begin(&program);
            assert_eq!(points.fresh(), None, "nothing was found yet");
            points.surveyed(&program, std::slice::from_ref(&pass));
            let next = plan(&target, &points, 1, 1, &[Shape::Placed]);
            assert_eq!(
                (next.shape, next.program),
                (Shape::Placed, Some(program.clone()))
            );
            points.took(&program);
            assert_eq!(points.fresh(), None);
        }
    }
}
