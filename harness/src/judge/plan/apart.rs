//! A plan whose threads begin one after another, those first that an order makes wait: without the
//! order they are over before what they had to wait for has begun. So what an order does is told
//! apart from what chance does, where threads that begin together meet too often without it.

use knobrig_proto::{Actor, FunctionGate, Repeat, Step, Who};

use super::reduce::Part;
use super::{Plan, Then, When};

/// A thread that does one op is over by then, also under emulation; if not, they meet by chance.
const LAG_MS: u32 = 50;

impl Plan {
    /// The plan with its threads apart; nothing where no order tells who comes first, or vCPUs are
    /// ordered, whose threads meet by that.
    pub fn apart(&self) -> Option<Self> {
        let once = |actor: &Actor| actor.repeat == Repeat::Once;
        let before = self.waits();
        if before.is_empty() || self.order.is_some() || self.delays.is_some() {
            return None;
        }
        let mut plan = self.clone();
        let mut left: Vec<_> = (0..plan.episode.actors.len())
            .filter(|actor| once(&plan.episode.actors[*actor]))
            .collect();
        let mut lag_ms = 0;
        while !left.is_empty() {
            let free = left.iter().position(|actor| {
                !(before.iter()).any(|(waits, for_it)| for_it == actor && left.contains(waits))
            });
            // In a circle anybody may be first.
            let actor = left.remove(free.unwrap_or(0));
            plan.episode.actors[actor].lag_ms = lag_ms;
            lag_ms += LAG_MS;
        }
        Some(plan)
    }

    /// The plan with threads that begin at the same time.
    pub fn together(&self) -> Self {
        let mut plan = self.clone();
        for actor in &mut plan.episode.actors {
            actor.lag_ms = 0;
        }
        plan
    }

    /// Who begins something only when another thread has come so far: pairs of the one that waits
    /// and the one that it waits for. What is held and goes on has begun before, and is not meant.
    fn waits(&self) -> Vec<(usize, usize)> {
        let mut waits = Vec::new();
        for reaction in &self.reactions {
            let from = match &reaction.when {
                When::Settled(name, _) | When::Asleep(name, _) => self.actor_named(name),
                When::Held(tag) => self.held_at(tag),
                When::Armed => None,
            };
            let raised = reaction.then.iter().filter_map(|then| match then {
                Then::Raise(signal) => self.waits_for(signal).next().map(|(actor, _)| actor),
                _ => None,
            });
            waits.extend(raised.filter_map(|to| Some((to, from?))));
        }
        for part in self.edges() {
            if let (Part::Step(actor, _), Some(Step::AwaitGate { tag, .. })) =
                (&part, self.step_of(&part))
            {
                waits.extend(self.held_at(tag).map(|from| (*actor, from)));
            }
        }
        waits.retain(|(to, from)| to != from);
        waits
    }

    /// Which threads wait for a signal, and in which of their steps.
    pub fn waits_for(&self, signal: &str) -> impl Iterator<Item = (usize, usize)> {
        let waits =
            move |step: &Step| matches!(step, Step::WaitSignal { name, .. } if name == signal);
        let actors = self.episode.actors.iter().enumerate();
        actors.filter_map(move |(actor, it)| Some((actor, it.steps.iter().position(waits)?)))
    }

    /// The gate of this tag, if it is one of a function's.
    pub fn function_gate(&self, tag: &str) -> Option<&FunctionGate> {
        self.episode.gates.iter().find(|gate| gate.tag == tag)
    }

    /// The thread that a gate holds, as far as that is known.
    pub(super) fn held_at(&self, tag: &str) -> Option<usize> {
        match self.function_gate(tag).map(|gate| &gate.who) {
            Some(Who::Actor(name)) => self.actor_named(name),
            Some(Who::Worker | Who::Anybody) => None,
            None => self.actor_named(&self.asker(tag)?.name),
        }
    }

    /// The thread whose request a gate of the device holds: the one that the gate is named after, or
    /// that waits for nobody and is no loop.
    pub fn asker(&self, tag: &str) -> Option<&Actor> {
        let actors = &self.episode.actors;
        if let Some(named) = actors.iter().find(|actor| actor.name == tag) {
            return Some(named);
        }
        let mut free = actors.iter().filter(|actor| {
            actor.repeat == Repeat::Once
                && !actor.teardown
                && !(actor.steps.iter()).any(|step| matches!(step, Step::WaitSignal { .. }))
        });
        let first = free.next();
        first.filter(|_| free.next().is_none())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::judge::plan::{Points, Shape, plan};
    use crate::target::Chosen;

    fn lags(plan: &Plan) -> BTreeMap<&str, u32> {
        let actors = plan.episode.actors.iter();
        actors.map(|it| (it.name.as_str(), it.lag_ms)).collect()
    }

    #[test]
    fn who_waits_begins_first() {
        let target = Chosen::find("mydrv", Some("drained"), None).expect("built in");
        let whole = plan(&target, &Points::default(), 3, 1, &[Shape::Gated]);
        let apart = whole.apart().expect("it is ordered");
        let lags = lags(&apart);
        assert!(lags["rmmod"] < lags["holder"], "{lags:?}");
        let mut each: Vec<_> = (apart.episode.actors.iter())
            .filter(|it| it.repeat == Repeat::Once)
            .map(|it| it.lag_ms)
            .collect();
        each.sort_unstable();
        let expected: Vec<_> = (0..).step_by(LAG_MS as usize).take(each.len()).collect();
        assert_eq!(each, expected);
    }

    #[test]
    fn threads_without_an_order_stay_together() {
        let target = Chosen::find("mydrv", Some("drained"), None).expect("built in");
        let whole = plan(&target, &Points::default(), 3, 1, &[Shape::Stress]);
        assert_eq!(whole.apart(), None);
    }
}
