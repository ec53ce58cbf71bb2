//! A plan with parts left out: what a minimizer tries.
//!
//! Leaving something out never leaves a dangling end: with an open goes what uses its descriptor,
//! with a step its checks, nobody waits for a signal that nothing raises, a gate goes with whom it holds, and
//! one that nothing releases any more lets go as soon as it holds, so that the order which it enforced is free. Nor
//! does it make a correct driver look broken: a check goes with what it stands on.

use std::collections::BTreeSet;

use knobrig_proto::{Repeat, Rest, Slot, Step};
use serde::{Deserialize, Serialize};

use super::{Expect, Place, Plan, Reaction, Shape, Then, When, leaks};

/// Something that an episode may do without.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Part {
    /// A thread, with all that it does.
    Actor(usize),
    /// One step of a thread.
    Step(usize, usize),
    /// One step after the threads have ended.
    After(usize),
    /// An order between two things: the reaction of this number.
    Edge(usize),
    /// An order between two instructions: the edge of this number.
    Order(usize),
}

impl Plan {
    /// All that may be left out but the orders, the coarse before the fine. A close goes with its open.
    /// Where `hangs`, somebody waits for what never comes: what it waits for is not left out.
    pub fn parts(&self, hangs: bool) -> Vec<Part> {
        let mut parts = Vec::new();
        for (actor, it) in self.episode.actors.iter().enumerate() {
            let mut steps = it.steps.iter().enumerate();
            if !hangs || !steps.any(|(step, _)| self.is_awaited(Part::Step(actor, step))) {
                parts.push(Part::Actor(actor));
            }
        }
        let may_go = |part: &Part| match self.step_of(part) {
            None | Some(Step::WaitSignal { .. } | Step::Close { .. }) => false,
            Some(step) if self.shape == Shape::Leaks && leaks::looks(step) => false,
            // Of a loop that matters only some ops may.
            Some(_) => !hangs || !self.is_awaited(part.clone()),
        };
        parts.extend(self.steps().map(|(part, _)| part).filter(may_go));
        parts.extend((0..self.reactions.len()).map(Part::Edge));
        let orders = self.edges();
        parts.retain(|part| !orders.contains(part) && !self.comes_again(part));
        parts
    }

    /// Whether a round of loads before it has this step, too: it is the same part.
    fn comes_again(&self, part: &Part) -> bool {
        let Part::After(step) = part else {
            return false;
        };
        let after = &self.episode.after;
        self.shape == Shape::Leaks && after[..*step].contains(&after[*step])
    }

    /// The steps of other rounds of loads that are the same as one of these parts.
    fn in_other_rounds(&self, parts: &BTreeSet<Part>) -> Vec<Part> {
        if self.shape != Shape::Leaks {
            return Vec::new();
        }
        let after = &self.episode.after;
        let gone = |step: &Step| (parts.iter()).any(|part| self.step_of(part) == Some(step));
        let same = (0..after.len()).filter(|it| gone(&after[*it]));
        same.map(Part::After).collect()
    }

    /// Whether this opens a descriptor, or looks whether something is there.
    pub fn opens_or_looks(&self, part: &Part) -> bool {
        let does = |step: &Step| opened(step).is_some() || matches!(step, Step::Exists { .. });
        self.step_of(part).is_some_and(does)
    }

    /// Each step of the threads', and then those after they have ended.
    pub(super) fn steps(&self) -> impl Iterator<Item = (Part, &Step)> {
        let actors = self.episode.actors.iter().enumerate();
        let own = actors.flat_map(|(actor, it)| {
            let steps = it.steps.iter().enumerate();
            steps.map(move |(step, it)| (Part::Step(actor, step), it))
        });
        let after = self.episode.after.iter().enumerate();
        own.chain(after.map(|(step, it)| (Part::After(step), it)))
    }

    pub(super) fn step_of(&self, part: &Part) -> Option<&Step> {
        match part {
            Part::Step(actor, step) => self.episode.actors.get(*actor)?.steps.get(*step),
            Part::After(step) => self.episode.after.get(*step),
            Part::Actor(_) | Part::Edge(_) | Part::Order(_) => None,
        }
    }

    /// Whether somebody may wait for what a step does: for the state that it changes, or for the end
    /// of a descriptor that another thread has opened.
    fn is_awaited(&self, part: Part) -> bool {
        match self.step_of(&part) {
            Some(Step::Close { slot }) => !self.opens_itself(&part, *slot),
            Some(_) => self.changes_state(&part),
            None => false,
        }
    }

    /// Whether the thread of this step opens the descriptor.
    fn opens_itself(&self, part: &Part, slot: Slot) -> bool {
        let opens =
            |(it, step): (Part, &Step)| thread(&it) == thread(part) && opened(step) == Some(slot);
        self.steps().any(opens)
    }

    /// The step that a reaction is to.
    pub(super) fn settles(&self, reaction: &Reaction) -> Option<Part> {
        match &reaction.when {
            When::Settled(name, step) | When::Asleep(name, step) => {
                Some(Part::Step(self.actor_named(name)?, *step))
            }
            When::Held(_) | When::Armed => None,
        }
    }

    /// The orders that gates enforce: what reacts to what, and threads that wait for a gate or let
    /// one go.
    pub fn edges(&self) -> Vec<Part> {
        let reactions = self.reactions.iter().enumerate();
        // That vCPUs are delayed or ordered from then on is no order of what they do.
        let arms = |it: &Reaction| it.when == When::Armed || it.then == [Then::Arm];
        let reactions = reactions.filter(move |(_, it)| !arms(it));
        let reactions = reactions.map(|(number, _)| Part::Edge(number));
        let actors = self.episode.actors.iter().enumerate();
        let steps = actors.flat_map(|(actor, it)| {
            let steps = it.steps.iter().enumerate();
            steps
                .filter(|(_, step)| orders(step))
                .map(move |(step, _)| Part::Step(actor, step))
        });
        reactions.chain(steps).chain(self.ordered_edges()).collect()
    }

    fn ordered_edges(&self) -> impl Iterator<Item = Part> {
        let edges = self.order.as_ref().map_or(0, |order| order.edges.len());
        (0..edges).map(Part::Order)
    }

    /// The plan without these parts.
    pub fn without(&self, parts: &BTreeSet<Part>) -> Self {
        let gone = self.with_what_follows(parts);
        let kept_edges = || {
            let edges = self.reactions.iter().enumerate();
            edges.filter(|(number, _)| !gone.contains(&Part::Edge(*number)))
        };
        let raised: BTreeSet<_> = kept_edges()
            .flat_map(|(_, reaction)| &reaction.then)
            .filter_map(|then| match then {
                Then::Raise(name) => Some(name.as_str()),
                _ => None,
            })
            .collect();
        let released: BTreeSet<_> = kept_edges()
            .flat_map(|(_, reaction)| &reaction.then)
            .filter_map(|then| match then {
                Then::Release(tag) | Then::Free(tag) => Some(tag.clone()),
                _ => None,
            })
            .collect();
        let was_released = |tag: &str| {
            let then = self.reactions.iter().flat_map(|it| &it.then);
            then.into_iter()
                .any(|then| *then == Then::Release(tag.into()) || *then == Then::Free(tag.into()))
        };
        let step_kept = |actor: usize, index: usize, step: &Step| {
            !gone.contains(&Part::Step(actor, index))
                && !matches!(step, Step::WaitSignal { name, .. } if !raised.contains(name.as_str()))
        };
        let actor_kept = |actor: usize| self.acts(actor, &gone);
        let moved = |place: Place| -> Option<Place> {
            match place {
                Place::Before(step) => Some(Place::Before(step)),
                Place::Actor(actor, step) => {
                    let steps = &self.episode.actors.get(actor)?.steps;
                    if !actor_kept(actor) || !step_kept(actor, step, steps.get(step)?) {
                        return None;
                    }
                    let actors = (0..actor).filter(|it| actor_kept(*it)).count();
                    let before = steps[..step].iter().enumerate();
                    let steps = before
                        .filter(|(index, step)| step_kept(actor, *index, step))
                        .count();
                    Some(Place::Actor(actors, steps))
                }
                Place::After(step) => {
                    let before = (0..step).filter(|it| !gone.contains(&Part::After(*it)));
                    (!gone.contains(&Part::After(step))).then(|| Place::After(before.count()))
                }
            }
        };

        let mut plan = self.clone();
        plan.episode.actors = (self.episode.actors.iter().enumerate())
            .filter(|(actor, _)| actor_kept(*actor))
            .map(|(actor, it)| {
                let mut kept = it.clone();
                let steps = it.steps.iter().enumerate();
                kept.steps = steps
                    .filter(|(index, step)| step_kept(actor, *index, step))
                    .map(|(_, step)| step.clone())
                    .collect();
                kept
            })
            .collect();
        // Whoever of those that are left is the first begins at once.
        let lags = plan.episode.actors.iter().map(|it| it.lag_ms);
        let least = lags.min().unwrap_or(0);
        for actor in &mut plan.episode.actors {
            actor.lag_ms -= least;
        }
        plan.episode.after = (self.episode.after.iter().enumerate())
            .filter(|(step, _)| !gone.contains(&Part::After(*step)))
            .map(|(_, step)| step.clone())
            .collect();
        plan.reactions = kept_edges()
            .map(|(_, reaction)| {
                let mut reaction = reaction.clone();
                if let When::Settled(name, step) | When::Asleep(name, step) = &mut reaction.when
                    && let Some(actor) = self.actor_named(name)
                    && let Some(Place::Actor(_, there)) = moved(Place::Actor(actor, *step))
                {
                    *step = there;
                }
                reaction
            })
            .collect();
        plan.episode.rests = (self.episode.rests.iter())
            .filter_map(|rest| {
                let actor = self.actor_named(&rest.actor)?;
                let Place::Actor(_, step) = moved(Place::Actor(actor, rest.step))? else {
                    return None;
                };
                Some(Rest {
                    step,
                    ..rest.clone()
                })
            })
            .collect();
        // Who is let go in another order may not be held yet.
        if gone.iter().any(|part| matches!(part, Part::Edge(_))) {
            for then in plan.reactions.iter_mut().flat_map(|it| &mut it.then) {
                if let Then::Release(tag) = then {
                    *then = Then::Free(std::mem::take(tag));
                }
            }
        }
        plan.gates.retain(|gate| self.may_reach(&gate.tag, &gone));
        for reaction in &mut plan.reactions {
            (reaction.then).retain(|then| !self.frees_nobody(then, &gone));
        }
        for gate in &plan.gates {
            if was_released(&gate.tag) && !released.contains(&gate.tag) {
                plan.reactions.push(Reaction {
                    when: When::Held(gate.tag.clone()),
                    then: vec![Then::Release(gate.tag.clone())],
                });
            }
        }
        if let Some(order) = &mut plan.order {
            let mut number = 0;
            order.edges.retain(|_| {
                number += 1;
                !gone.contains(&Part::Order(number - 1))
            });
        }
        plan.checks = (self.checks.iter())
            .filter_map(|check| {
                let mut check = self.still_expected(check, &gone)?;
                check.place = moved(check.place)?;
                match &mut check.expect {
                    Expect::Changed { from, .. } => *from = moved(*from)?,
                    Expect::OkWhile(place)
                    | Expect::OkWhileServed(place)
                    | Expect::OkAfter(place) => *place = moved(*place)?,
                    Expect::OkOr(_) | Expect::OneOf(_) | Expect::Text(_) | Expect::Lacks(_) => {}
                }
                Some(check)
            })
            .collect();
        // A loop ends when the others do; alone it is one round.
        if (plan.episode.actors.iter()).all(|actor| actor.repeat == Repeat::UntilOthersEnd) {
            for actor in &mut plan.episode.actors {
                actor.repeat = Repeat::Once;
            }
        }
        plan
    }

    /// Whether, without these parts, a step is left that returns only after one of them.
    pub fn waits_in_vain(&self, parts: &BTreeSet<Part>) -> bool {
        let gone = self.with_what_follows(parts);
        let is_gone = |at: Place| gone.iter().any(|part| place(part) == Some(at));
        self.checks.iter().any(|check| match check.expect {
            Expect::OkAfter(other) => is_gone(other) && !is_gone(check.place),
            _ => false,
        })
    }

    /// These parts, and those that are nothing without them.
    fn with_what_follows(&self, parts: &BTreeSet<Part>) -> BTreeSet<Part> {
        let mut gone = parts.clone();
        gone.extend(self.in_other_rounds(parts));
        let of_actors = self.steps().map(|(part, _)| part);
        gone.extend(of_actors.filter(|part| match part {
            Part::Step(actor, _) => parts.contains(&Part::Actor(*actor)),
            _ => false,
        }));
        gone.extend(self.without_descriptor(&gone));
        // An edge from what is gone goes, and with it the waits that it alone would end; and one that but
        // lets go what is not held any more.
        for (number, reaction) in self.reactions.iter().enumerate() {
            let comes = match &reaction.when {
                When::Held(tag) => self.may_reach(tag, &gone),
                _ => self.settles(reaction).is_none_or(|it| !gone.contains(&it)),
            };
            let idle = |then| self.frees_nobody(then, &gone);
            if !comes || reaction.then.iter().all(idle) {
                gone.insert(Part::Edge(number));
            }
        }
        // Nor is who isn't there ordered.
        for (number, edge) in self.order.iter().flat_map(|it| &it.edges).enumerate() {
            let is_there = |name: &str| {
                self.actor_named(name)
                    .is_some_and(|it| self.acts(it, &gone))
            };
            if !is_there(&edge.before.actor) || !is_there(&edge.after.actor) {
                gone.insert(Part::Order(number));
            }
        }
        gone
    }

    /// Whether a thread is one without these parts: it does more than wait.
    fn acts(&self, actor: usize, gone: &BTreeSet<Part>) -> bool {
        let acts = |step: &Step| !matches!(step, Step::WaitSignal { .. });
        self.keeps(actor, gone, acts)
    }

    /// Whether a thread has such a step that is not gone; with a thread its steps are.
    fn keeps(&self, actor: usize, gone: &BTreeSet<Part>, such: impl Fn(&Step) -> bool) -> bool {
        let mut steps = self.episode.actors[actor].steps.iter().enumerate();
        steps.any(|(step, it)| such(it) && !gone.contains(&Part::Step(actor, step)))
    }

    /// Whether a gate may hold somebody without these parts.
    fn may_reach(&self, tag: &str, gone: &BTreeSet<Part>) -> bool {
        let at_device = self.function_gate(tag).is_none();
        let asks = |step: &Step| match step {
            Step::Open { .. } | Step::Close { .. } => !at_device,
            Step::WaitSignal { .. } => false,
            _ => true,
        };
        (self.held_at(tag)).is_none_or(|actor| self.keeps(actor, gone, asks))
    }

    /// Whether it lets go what holds nobody without these parts.
    fn frees_nobody(&self, then: &Then, gone: &BTreeSet<Part>) -> bool {
        match then {
            Then::Release(tag) | Then::Free(tag) => !self.may_reach(tag, gone),
            _ => false,
        }
    }

    /// Steps whose descriptor nobody opens any more.
    fn without_descriptor(&self, gone: &BTreeSet<Part>) -> Vec<Part> {
        let opens = |slot: Slot| {
            let before = self.episode.before.iter().filter_map(opened);
            let others = self.steps().filter(|(part, _)| !gone.contains(part));
            let others = others.filter_map(|(_, step)| opened(step));
            before.chain(others).any(|it| it == slot)
        };
        let uses = |(part, step): (Part, &Step)| {
            let slot = used(step)?;
            // The last open of its own thread before it, if there is one.
            let own = self.steps().take_while(|(it, _)| *it != part);
            let own =
                own.filter(|(it, step)| thread(it) == thread(&part) && opened(step) == Some(slot));
            let there = match own.last() {
                Some((open, _)) => !gone.contains(&open),
                None => opens(slot),
            };
            (!there).then_some(part)
        };
        self.steps().filter_map(uses).collect()
    }

    pub(super) fn actor_named(&self, name: &str) -> Option<usize> {
        let actors = &self.episode.actors;
        actors.iter().position(|actor| actor.name == name)
    }
}

/// The descriptor that a step opens.
pub(super) fn opened(step: &Step) -> Option<Slot> {
    match step {
        Step::Open { slot, .. } => Some(*slot),
        _ => None,
    }
}

/// The descriptor that a step uses.
fn used(step: &Step) -> Option<Slot> {
    step.slot().filter(|_| opened(step).is_none())
}

/// Whether a step waits for a gate, or lets one go.
pub(super) fn orders(step: &Step) -> bool {
    matches!(step, Step::AwaitGate { .. } | Step::ReleaseGate { .. })
}

/// The thread of a step; nothing is the one that comes after all.
pub(super) fn thread(part: &Part) -> Option<usize> {
    match part {
        Part::Step(actor, _) => Some(*actor),
        _ => None,
    }
}

pub(super) fn place(part: &Part) -> Option<Place> {
    match part {
        Part::Step(actor, step) => Some(Place::Actor(*actor, *step)),
        Part::After(step) => Some(Place::After(*step)),
        Part::Actor(_) | Part::Edge(_) | Part::Order(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::plan::{Check, Points, Shape, plan};
    use crate::target::Chosen;
    use proptest::prelude::*;

    fn chosen(lifetime: &str) -> Chosen {
        Chosen::find("mydrv", Some(lifetime), None).expect("built in")
    }

    fn step_at(plan: &Plan, place: Place) -> Option<&Step> {
        match place {
            Place::Before(step) => plan.episode.before.get(step),
            Place::Actor(actor, step) => plan.episode.actors.get(actor)?.steps.get(step),
            Place::After(step) => plan.episode.after.get(step),
        }
    }

    #[test]
    fn nothing_left_out_is_the_plan() {
        let whole = plan(
            &chosen("drained"),
            &Points::default(),
            1,
            1,
            &[Shape::Gated],
        );
        assert_eq!(whole.without(&BTreeSet::new()), whole);
    }

    #[test]
    fn a_gate_that_nothing_releases_lets_go_at_once() {
        let whole = plan(
            &chosen("drained"),
            &Points::default(),
            1,
            1,
            &[Shape::Gated],
        );
        let settled = (whole.reactions.iter())
            .position(|it| matches!(it.when, When::Settled(..)))
            .expect("the teardown settles");
        let free = whole.without(&BTreeSet::from([Part::Edge(settled)]));
        let tag = whole.gates[0].tag.clone();
        let last = free.reactions.last().expect("one more");
        assert_eq!(last.when, When::Held(tag.clone()));
        assert_eq!(last.then, [Then::Release(tag)]);
    }

    #[test]
    fn what_looks_for_leaks_is_no_part_and_rounds_go_together() {
        let whole = plan(
            &chosen("drained"),
            &Points::default(),
            1,
            1,
            &[Shape::Leaks],
        );
        let parts = whole.parts(false);
        assert!(parts.len() < whole.episode.after.len() / 5, "{parts:?}");
        let less = whole.without(&parts.into_iter().collect());
        let kept: Vec<_> = less.episode.after.iter().collect();
        assert_eq!(kept.len(), 4, "{kept:?}");
        assert!(kept.iter().all(|step| leaks::looks(step)), "{kept:?}");
    }

    #[test]
    fn with_an_open_goes_all_that_uses_its_descriptor() {
        let target = chosen("pinned");
        let whole = plan(&target, &Points::default(), 1, 1, &[Shape::Gated]);
        let opens = |(part, step): (Part, &Step)| Some((part, opened(step)?));
        let (open, slot) = whole.steps().find_map(opens).expect("somebody opens");
        let less = whole.without(&BTreeSet::from([open.clone()]));
        assert!(
            less.steps().all(|(_, step)| used(step) != Some(slot)),
            "{less:?}"
        );
        // And never is it left open.
        let closes = |part: &Part| matches!(whole.step_of(part), Some(Step::Close { .. }));
        assert!(!whole.parts(false).iter().any(closes));
    }

    #[test]
    fn who_waits_for_what_is_left_out_waits_in_vain() {
        let target = chosen("exit-waits");
        let whole = plan(&target, &Points::default(), 1, 1, &[Shape::Elsewhere]);
        let waits = whole.checks.iter().find_map(|check| match check.expect {
            Expect::OkAfter(Place::Actor(actor, _)) => Some((check.place, Part::Actor(actor))),
            _ => None,
        });
        let (Place::Actor(unloader, _), giver) = waits.expect("the unload waits") else {
            panic!("a thread unloads");
        };
        assert!(!whole.waits_in_vain(&BTreeSet::new()));
        assert!(whole.waits_in_vain(&BTreeSet::from([giver.clone()])));
        let both = BTreeSet::from([giver, Part::Actor(unloader)]);
        assert!(!whole.waits_in_vain(&both));
    }

    #[test]
    fn of_what_hangs_nothing_is_left_out_that_it_may_wait_for() {
        let target = chosen("exit-waits");
        let whole = plan(&target, &Points::default(), 1, 1, &[Shape::Elsewhere]);
        let parts = whole.parts(true);
        let unloads = |(part, step): (Part, &Step)| match step {
            Step::Unload { .. } | Step::WriteFile { .. } => Some(part),
            _ => None,
        };
        let awaited: Vec<_> = whole.steps().filter_map(unloads).collect();
        assert!(!awaited.is_empty());
        for part in awaited {
            assert!(!parts.contains(&part), "{part:?}");
            assert!(whole.parts(false).contains(&part), "{part:?}");
        }
    }

    proptest! {
        /// Whatever is left out, what stays hangs together, and each check is on the step that it
        /// was on.
        #[test]
        fn no_dangling_ends(seed: u64, number in 1u64..1000, picks: Vec<bool>) {
            for lifetime in ["pinned", "drained", "exit-waits"] {
                let whole = plan(&chosen(lifetime), &Points::default(), seed, number, &[]);
                let parts = whole.parts(false).into_iter().zip(picks.iter().copied().chain([false; 99]));
                let gone: BTreeSet<_> = parts.filter(|(_, pick)| *pick).map(|(part, _)| part).collect();
                let less = whole.without(&gone);
                prop_assert!(less.episode.actors.iter().all(|actor| !actor.steps.is_empty()));
                let then: Vec<_> = less.reactions.iter().flat_map(|it| &it.then).collect();
                for step in less.episode.actors.iter().flat_map(|actor| &actor.steps) {
                    if let Step::WaitSignal { name, .. } = step {
                        prop_assert!(then.contains(&&Then::Raise(name.clone())));
                    }
                }
                for then in then {
                    if let Then::Release(tag) | Then::Free(tag) = then {
                        let gates = less.gates.iter().map(|gate| &gate.tag);
                        let functions = less.episode.gates.iter().map(|gate| &gate.tag);
                        prop_assert!(gates.chain(functions).any(|it| it == tag));
                    }
                }
                for reaction in &less.reactions {
                    if let When::Settled(name, step) = &reaction.when {
                        let actor = less.actor_named(name).expect("its actor is there");
                        prop_assert!(*step < less.episode.actors[actor].steps.len());
                    }
                }
                for check in &less.checks {
                    let step = step_at(&less, check.place);
                    prop_assert!(step.is_some());
                    let same = |it: &Check| {
                        it.rule == check.rule && step_at(&whole, it.place) == step
                    };
                    prop_assert!(whole.checks.iter().any(same));
                }
            }
        }
    }
}
