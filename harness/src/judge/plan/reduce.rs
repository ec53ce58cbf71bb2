//! A plan with parts left out: what a minimizer tries.
//!
//! Leaving something out never leaves a dangling end: checks of a step that is gone go with it,
//! nobody waits for a signal that nothing raises, and a gate that nothing releases any more lets
//! go as soon as it holds, so that the order which it enforced is free.

use std::collections::BTreeSet;

use knobrig_proto::{Repeat, Rest, Step};
use serde::{Deserialize, Serialize};

use super::{Expect, Place, Plan, Reaction, Then, When};

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
    /// All that may be left out, the coarse before the fine.
    pub fn parts(&self) -> Vec<Part> {
        let actors = self.episode.actors.iter().enumerate();
        let mut parts: Vec<_> = actors
            .clone()
            .map(|(actor, _)| Part::Actor(actor))
            .collect();
        for (actor, it) in actors {
            let steps = it.steps.iter().enumerate();
            let own = steps.filter(|(_, step)| !matches!(step, Step::WaitSignal { .. }));
            // Of a loop that matters only some ops may.
            parts.extend(own.map(|(step, _)| Part::Step(actor, step)));
        }
        parts.extend((0..self.episode.after.len()).map(Part::After));
        parts.extend((0..self.reactions.len()).map(Part::Edge));
        parts.extend(self.ordered_edges());
        parts
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
            let ordering =
                |step: &Step| matches!(step, Step::AwaitGate { .. } | Step::ReleaseGate { .. });
            steps
                .filter(move |(_, step)| ordering(step))
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
        let mut gone = parts.clone();
        // An edge from what is gone goes, and with it the waits that it alone would end.
        for (number, reaction) in self.reactions.iter().enumerate() {
            if let When::Settled(name, step) | When::Asleep(name, step) = &reaction.when
                && let Some(actor) = self.actor_named(name)
                && (gone.contains(&Part::Actor(actor)) || gone.contains(&Part::Step(actor, *step)))
            {
                gone.insert(Part::Edge(number));
            }
        }
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
        // A thread without a step is none.
        let actor_kept = |actor: usize| {
            let steps = self.episode.actors[actor].steps.iter().enumerate();
            !gone.contains(&Part::Actor(actor))
                && steps
                    .into_iter()
                    .any(|(index, step)| step_kept(actor, index, step))
        };
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
                let mut check = check.clone();
                check.place = moved(check.place)?;
                match &mut check.expect {
                    Expect::Changed { from, .. } => *from = moved(*from)?,
                    Expect::OkWhile(place) | Expect::OkAfter(place) => *place = moved(*place)?,
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

    fn actor_named(&self, name: &str) -> Option<usize> {
        let actors = &self.episode.actors;
        actors.iter().position(|actor| actor.name == name)
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

    proptest! {
        /// Whatever is left out, what stays hangs together, and each check is on the step that it
        /// was on.
        #[test]
        fn no_dangling_ends(seed: u64, number in 1u64..1000, picks: Vec<bool>) {
            for lifetime in ["pinned", "drained", "exit-waits"] {
                let whole = plan(&chosen(lifetime), &Points::default(), seed, number, &[]);
                let parts = whole.parts().into_iter().zip(picks.iter().copied().chain([false; 99]));
                let gone: BTreeSet<_> = parts.filter(|(_, pick)| *pick).map(|(part, _)| part).collect();
                let less = whole.without(&gone);
                prop_assert!(less.episode.actors.iter().all(|actor| !actor.steps.is_empty()));
                let then: Vec<_> = less.reactions.iter().flat_map(|it| &it.then).collect();
                for step in less.episode.actors.iter().flat_map(|actor| &actor.steps) {
                    if let Step::WaitSignal { name, .. } = step {
                        prop_assert!(then.contains(&&Then::Raise(name.clone())));
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
