//! Replay: an order is enforced again. Who comes to the later end of an edge too early waits until
//! the earlier end is passed.

use std::collections::BTreeSet;

use super::{Actor, Occurrence, Program, Schedule, Scheduler};

/// A wait that can't end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waits {
    /// Who stands here …
    pub at: Occurrence,
    /// … until this is passed.
    pub awaits: Occurrence,
}

/// Enforces a schedule upon a program, once.
#[derive(Clone, Debug)]
pub struct Replay<'a> {
    program: &'a Program,
    schedule: &'a Schedule,
    passed: Vec<usize>,
    gone: BTreeSet<&'a Occurrence>,
    infeasible: Vec<Waits>,
    begun: bool,
}

impl<'a> Replay<'a> {
    /// This order upon these actors.
    pub fn new(program: &'a Program, schedule: &'a Schedule) -> Self {
        Self {
            program,
            schedule,
            passed: vec![0; program.actors.len()],
            gone: BTreeSet::new(),
            infeasible: Vec::new(),
            begun: false,
        }
    }

    /// Who waited for whom when nobody could go: empty if the order was feasible.
    pub fn infeasible(&self) -> &[Waits] {
        &self.infeasible
    }

    /// What an actor must wait for before its next point.
    fn awaits(&self, actor: Actor) -> Option<Waits> {
        let at = self.program.actors.get(actor)?.get(self.passed[actor])?;
        let mut edges = self.schedule.edges.iter();
        let edge = edges.find(|edge| edge.after == *at && !self.gone.contains(&edge.before))?;
        Some(Waits {
            at: at.clone(),
            awaits: edge.before.clone(),
        })
    }
}

impl Scheduler for Replay<'_> {
    fn begin(&mut self) -> bool {
        !std::mem::replace(&mut self.begun, true)
    }

    /// Whoever may go; who went last goes on if he may. If nobody may, the order is infeasible:
    /// that is noted, and all waits end, as gates' do by their deadlines.
    fn next(&mut self, runnable: &[Actor], current: Option<Actor>) -> Actor {
        let released = !self.infeasible.is_empty();
        let may = |actor: &Actor| released || self.awaits(*actor).is_none();
        let goes_on = current.filter(|it| runnable.contains(it) && may(it));
        let actor = match goes_on.or_else(|| runnable.iter().copied().find(may)) {
            Some(actor) => actor,
            None => {
                let waits = runnable.iter().filter_map(|actor| self.awaits(*actor));
                self.infeasible = waits.collect();
                runnable[0]
            }
        };
        if let Some(at) = self.program.actors[actor].get(self.passed[actor]) {
            self.gone.insert(at);
            self.passed[actor] += 1;
        }
        actor
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schedule::random::Random;
    use crate::schedule::toy::program;
    use proptest::prelude::*;

    proptest! {
        /// What was recorded is what comes again.
        #[test]
        fn a_recorded_order_comes_again(
            points in proptest::collection::vec(1usize..5, 1..4), seed: u64
        ) {
            let program = program(&points);
            let went = program.run(&mut Random::new(seed)).expect("one");
            let schedule = program.schedule(&went);
            let mut replay = Replay::new(&program, &schedule);
            let again = program.run(&mut replay).expect("one");
            prop_assert!(replay.infeasible().is_empty());
            // Each edge of the record holds in it.
            let place = |wanted: &Occurrence| {
                let mut passed = vec![0; points.len()];
                again.iter().position(|actor| {
                    let here = &program.actors[*actor][passed[*actor]];
                    passed[*actor] += 1;
                    here == wanted
                })
            };
            for edge in &schedule.edges {
                prop_assert!(place(&edge.before) < place(&edge.after));
            }
            prop_assert!(program.run(&mut replay).is_none());
        }
    }

    #[test]
    fn an_impossible_order_is_told_with_who_waits_for_whom() {
        let program = program(&[2, 2]);
        let text = "schedule 1\nA.op#2@begin -> B.op#1@begin\nB.op#2@begin -> A.op#1@begin\n";
        let schedule: Schedule = text.parse().expect("a schedule");
        let mut replay = Replay::new(&program, &schedule);
        let went = program.run(&mut replay).expect("it ends all the same");
        assert_eq!(went.len(), 4);
        let waits: Vec<_> = (replay.infeasible().iter())
            .map(|waits| format!("{} for {}", waits.at, waits.awaits))
            .collect();
        assert_eq!(
            waits,
            [
                "A.op#1@begin for B.op#2@begin",
                "B.op#1@begin for A.op#2@begin"
            ]
        );
    }
}
