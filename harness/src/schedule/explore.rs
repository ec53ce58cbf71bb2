//! Every execution with at most b preemptions (iterative context bounding: M. Musuvathi,
//! S. Qadeer, "Iterative context bounding for systematic testing of multithreaded programs",
//! PLDI 2007), those without a preemption first. A switch from an actor that can't go on is none.
//!
//! Executions that differ only in the order of points which don't depend on each other are one
//! ([`Classes`]): the first of each is worth a run, the others are counted.

use std::collections::BTreeSet;

use super::{Actor, Interleaving, Scheduler};

/// A choice that was made in the execution under way.
#[derive(Clone, Debug)]
struct Choice {
    /// Who could be chosen within the bound, in the order of trial.
    options: Vec<Actor>,
    /// Which of them is tried now.
    tried: usize,
}

/// All executions within a bound, each exactly once.
#[derive(Clone, Debug)]
pub struct Explore {
    /// The most preemptions that an execution may have.
    bound: usize,
    /// Executions with exactly so many are on now.
    exactly: usize,
    path: Vec<Choice>,
    /// Choices made of the path in this execution.
    depth: usize,
    /// Preemptions so far in this execution.
    spent: usize,
    begun: bool,
}

impl Explore {
    /// All with at most `bound` preemptions.
    pub fn new(bound: usize) -> Self {
        Self {
            bound,
            exactly: 0,
            path: Vec::new(),
            depth: 0,
            spent: 0,
            begun: false,
        }
    }

    /// Whether the execution that has just ended has the number of preemptions that is on now:
    /// one with fewer was given before.
    pub fn is_new(&self) -> bool {
        self.spent == self.exactly
    }

    /// Goes to the next path; false if there is none of this number of preemptions.
    fn advance(&mut self) -> bool {
        while let Some(last) = self.path.last_mut() {
            last.tried += 1;
            if last.tried < last.options.len() {
                return true;
            }
            self.path.pop();
        }
        false
    }
}

impl Scheduler for Explore {
    fn begin(&mut self) -> bool {
        if self.begun && !self.advance() {
            self.exactly += 1;
        }
        self.begun = true;
        self.depth = 0;
        self.spent = 0;
        self.exactly <= self.bound
    }

    fn next(&mut self, runnable: &[Actor], current: Option<Actor>) -> Actor {
        let goes_on = current.filter(|current| runnable.contains(current));
        if self.depth == self.path.len() {
            // Who went on first: a preemption costs.
            let mut options: Vec<_> = goes_on.into_iter().collect();
            if goes_on.is_none() || self.spent < self.exactly {
                options.extend(runnable.iter().filter(|actor| Some(**actor) != goes_on));
            }
            self.path.push(Choice { options, tried: 0 });
        }
        let choice = &self.path[self.depth];
        let actor = choice.options[choice.tried];
        self.depth += 1;
        if goes_on.is_some_and(|current| current != actor) {
            self.spent += 1;
        }
        actor
    }
}

/// Executions up to the order of points that don't depend on each other.
#[derive(Clone, Debug, Default)]
pub struct Classes {
    seen: BTreeSet<Interleaving>,
    /// Executions given in.
    pub executions: u64,
}

impl Classes {
    /// Takes an execution in; says whether it is the first of its class. `dependent` says of two
    /// points, each as actor and place in its way, whether their order matters.
    pub fn add(
        &mut self,
        went: &[Actor],
        dependent: impl Fn((Actor, usize), (Actor, usize)) -> bool,
    ) -> bool {
        self.executions += 1;
        self.seen.insert(normal_form(went, dependent))
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.seen.len()
    }
}

/// The least execution of the class: of the points that nothing unpassed must precede, that of the
/// lowest actor, again and again.
fn normal_form(
    went: &[Actor],
    dependent: impl Fn((Actor, usize), (Actor, usize)) -> bool,
) -> Interleaving {
    let mut passed = Vec::new();
    let mut left: Vec<(Actor, usize)> = Vec::new();
    for actor in went {
        if passed.len() <= *actor {
            passed.resize(actor + 1, 0);
        }
        left.push((*actor, passed[*actor]));
        passed[*actor] += 1;
    }
    let mut form = Interleaving::new();
    while !left.is_empty() {
        // Of each actor only its next point can be.
        let next = (0..passed.len()).filter_map(|actor| left.iter().position(|it| it.0 == actor));
        let free = next.filter(|at| {
            let point = left[*at];
            (left[..*at].iter()).all(|other| !dependent(*other, point))
        });
        // The first is free of all before it: there is one.
        let Some(least) = free.min_by_key(|at| left[*at].0) else {
            break;
        };
        form.push(left.remove(least).0);
    }
    form
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schedule::toy::{PointerRace, TwoLocks, World, program, run};
    use std::collections::BTreeMap;

    fn explore(world: &dyn World, bound: usize) -> Vec<Interleaving> {
        let mut explore = Explore::new(bound);
        let mut all = Vec::new();
        while let Some(went) = run(&mut explore, world) {
            if explore.is_new() {
                all.push(went);
            }
        }
        all
    }

    struct Chains(Vec<usize>);

    impl World for Chains {
        fn points(&self) -> Vec<usize> {
            self.0.clone()
        }

        fn fails(&self, _: &[Actor]) -> bool {
            false
        }
    }

    /// Every interleaving, by brute force, with its preemptions.
    fn brute(points: &[usize]) -> BTreeMap<Interleaving, usize> {
        fn go(left: &mut Vec<usize>, went: &mut Interleaving, all: &mut Vec<Interleaving>) {
            if left.iter().all(|count| *count == 0) {
                all.push(went.clone());
            }
            for actor in 0..left.len() {
                if left[actor] > 0 {
                    left[actor] -= 1;
                    went.push(actor);
                    go(left, went, all);
                    went.pop();
                    left[actor] += 1;
                }
            }
        }
        let mut all = Vec::new();
        go(&mut points.to_vec(), &mut Vec::new(), &mut all);
        let preemptions = |went: &Interleaving| {
            (1..went.len())
                .filter(|at| went[*at] != went[at - 1] && went[*at..].contains(&went[at - 1]))
                .count()
        };
        all.into_iter()
            .map(|went| (went.clone(), preemptions(&went)))
            .collect()
    }

    #[test]
    fn counts_are_exact() {
        for points in [&[2, 2][..], &[3, 4], &[2, 2, 2], &[1, 5], &[4]] {
            let all = brute(points);
            for bound in 0..4 {
                let explored = explore(&Chains(points.to_vec()), bound);
                let distinct: BTreeSet<_> = explored.iter().cloned().collect();
                let within = all.iter().filter(|(_, spent)| **spent <= bound).count();
                assert_eq!(
                    explored.len(),
                    distinct.len(),
                    "{points:?} {bound}: none twice"
                );
                assert_eq!(explored.len(), within, "{points:?} {bound}: all");
            }
        }
    }

    #[test]
    fn a_bug_is_found_at_its_bound_and_not_below() {
        let race = PointerRace::new(2, 2);
        let found = |bound| {
            explore(&race, bound)
                .iter()
                .filter(|it| race.fails(it))
                .count()
        };
        // Free between load and use: A is preempted once; B had not begun, or is cut too.
        assert_eq!(found(0), 0);
        assert!(found(1) >= 1);
        let deadlock = |bound| {
            explore(&TwoLocks, bound)
                .iter()
                .filter(|it| TwoLocks.fails(it))
                .count()
        };
        assert_eq!((deadlock(0), deadlock(1)), (0, 2));
    }

    #[test]
    fn what_does_not_depend_is_one_class() {
        let program = program(&[3, 3]);
        let mut explore = Explore::new(6);
        let (mut free, mut tied) = (Classes::default(), Classes::default());
        // Only the second point of each touches what the other's does.
        let second = |a: (Actor, usize), b: (Actor, usize)| a.1 == 1 && b.1 == 1;
        while let Some(went) = program.run(&mut explore) {
            if explore.is_new() {
                free.add(&went, |_, _| false);
                tied.add(&went, second);
            }
        }
        assert_eq!((free.executions, free.count(), tied.count()), (20, 1, 2));
    }
}
