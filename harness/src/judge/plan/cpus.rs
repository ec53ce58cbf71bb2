//! Who of an episode's loops gets a CPU, and when: where threads sit, and who goes before whom.
//!
//! A race needs a thread that stops for a while at a certain instruction. On CPUs of their own,
//! threads hardly ever stop. So that they do, by means that any kernel has:
//!
//! - *together*: all loops sit on one CPU, so that whoever is woken there (by the end of a lock)
//!   may take it at that very instruction from whoever wakes him;
//! - *priorities*: each thread's priority is drawn, so that there is always somebody who waits
//!   long where others don't: random priorities, as in probabilistic concurrency testing. Who goes
//!   before all others (real time) naps between its rounds: it comes at any instruction of theirs, and
//!   whoever lets it go on stops right there;
//! - *interrupted*: on each CPU a thread that outranks all others sleeps and wakes at short random
//!   intervals, so that whoever runs there is stopped at random instructions.

use knobrig_proto::{Priority, Repeat, Step};
use rand::Rng;
use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;

use super::build::Builder;
use crate::target::Loops;

/// Nice values that are drawn: each next one is some three times as strong.
const NICE: [i8; 5] = [-10, -5, 0, 5, 10];
/// Naps and spins of an interrupter before it begins anew.
const TURNS: usize = 16;
/// The longest nap. The shortest takes some 50 us, however little is asked for.
const NAP_US: u32 = 200;
/// The longest nap of a loop that goes before all others, between its rounds.
const DOZE_US: u32 = 2_000;
/// A usual spin: what others do meanwhile needs a few microseconds.
const SPIN_US: u32 = 40;
/// One spin in so many is longer, by as much.
const LONG: u32 = 16;
/// Interrupters where a target doesn't say how many CPUs it wants.
const USUAL_CPUS: u32 = 2;

/// How the loops of one episode share the CPUs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sharing {
    /// All loops on one CPU.
    pub(super) together: bool,
    priorities: bool,
    interrupted: bool,
}

impl Sharing {
    /// Draws one.
    pub(super) fn draw(loops: &Loops, rng: &mut ChaCha8Rng) -> Self {
        let mut one_of = |percent: u32| rng.random_range(0..100) < percent;
        Self {
            together: one_of(loops.together),
            priorities: one_of(loops.priorities),
            interrupted: one_of(loops.interrupted),
        }
    }

    /// Which of so many threads goes before all others: one, where priorities are drawn.
    pub(super) fn ahead(self, threads: usize, rng: &mut ChaCha8Rng) -> Option<usize> {
        self.priorities.then(|| rng.random_range(0..threads.max(1)))
    }

    /// The priority of a thread in it that doesn't.
    pub(super) fn priority(self, rng: &mut ChaCha8Rng) -> Priority {
        match NICE.choose(rng) {
            Some(nice) if self.priorities => Priority::Nice(*nice),
            _ => Priority::Usual,
        }
    }
}

/// A short sleep, after which whoever goes before all others comes at any instruction of theirs.
fn nap(rng: &mut ChaCha8Rng) -> Step {
    Step::Nap {
        us: rng.random_range(1..NAP_US),
    }
}

/// A longer one, in which the others get where it then meets them.
pub(super) fn doze(rng: &mut ChaCha8Rng) -> Step {
    Step::Nap {
        us: rng.random_range(1..DOZE_US),
    }
}

impl Builder<'_> {
    /// The threads that stop others.
    pub(super) fn interrupters(&mut self, sharing: Sharing, rng: &mut ChaCha8Rng) {
        if !sharing.interrupted {
            return;
        }
        for cpu in 0..self.target.target.cpus.unwrap_or(USUAL_CPUS) {
            let actor = self.actor(&format!("interrupter-{cpu}"), false, None);
            for _ in 0..TURNS {
                self.act(actor, nap(rng));
                let longer = if rng.random_range(0..LONG) == 0 {
                    LONG
                } else {
                    1
                };
                let us = rng.random_range(1..SPIN_US * longer);
                self.act(actor, Step::Spin { us });
            }
            let actor = &mut self.plan.episode.actors[actor];
            actor.cpu = cpu;
            actor.priority = Priority::First;
            actor.repeat = Repeat::UntilOthersEnd;
        }
    }
}

#[cfg(test)]
mod tests {
    use knobrig_proto::Actor;

    use super::*;
    use crate::judge::plan::{Points, Shape, plan};
    use crate::target::Chosen;

    fn actors(change: impl Fn(&mut Loops), number: u64) -> Vec<Actor> {
        let mut target = Chosen::find("null_blk", None, None).expect("built in");
        let loops = target.target.loops.as_mut().expect("has loops");
        (loops.together, loops.priorities, loops.interrupted) = (0, 0, 0);
        change(loops);
        let points = Points::default();
        plan(&target, &points, 1, number, &[Shape::Loops])
            .episode
            .actors
    }

    #[test]
    fn interrupters_go_before_all_others_on_every_cpu() {
        let actors = actors(|loops| loops.interrupted = 100, 1);
        let first: Vec<_> = (actors.iter())
            .filter(|actor| actor.priority == Priority::First)
            .collect();
        let cpus: Vec<_> = first.iter().map(|actor| actor.cpu).collect();
        assert_eq!(cpus, [0, 1]);
        for actor in first {
            assert!(matches!(actor.steps[0], Step::Nap { .. }), "{actor:?}");
            assert_eq!(actor.repeat, Repeat::UntilOthersEnd);
        }
    }

    #[test]
    fn loops_sit_together_and_their_priorities_differ() {
        let apart = actors(|_| {}, 1);
        assert!(apart.iter().any(|actor| actor.cpu % 2 == 1));
        assert!(apart.iter().all(|actor| actor.priority.is_usual()));
        let change = |loops: &mut Loops| (loops.together, loops.priorities) = (100, 100);
        let together = (1..20).flat_map(|number| actors(change, number));
        let loops: Vec<_> = together
            .filter(|actor| actor.repeat == Repeat::UntilOthersEnd)
            .collect();
        assert!(loops.iter().all(|actor| actor.cpu == 0));
        let nice: std::collections::BTreeSet<_> = (loops.iter())
            .filter_map(|actor| match actor.priority {
                Priority::Nice(nice) => Some(nice),
                Priority::First => None,
                Priority::Usual => panic!("{actor:?}"),
            })
            .collect();
        assert_eq!(nice.len(), NICE.len());
    }

    #[test]
    fn at_most_one_loop_goes_before_all_others_and_it_naps() {
        let change = |loops: &mut Loops| loops.priorities = 100;
        let ahead: Vec<_> = (1..=20)
            .map(|number| {
                let first = |actor: &Actor| actor.priority == Priority::First;
                let actors = actors(change, number);
                actors.into_iter().filter(first).collect::<Vec<_>>()
            })
            .collect();
        assert!(ahead.iter().all(|first| first.len() <= 1), "{ahead:?}");
        let first: Vec<_> = ahead.into_iter().flatten().collect();
        assert!(first.len() > 10, "{first:?}");
        for actor in first {
            assert!(matches!(actor.steps[0], Step::Nap { .. }), "{actor:?}");
        }
    }
}
