//! All schedules of a program within a bound, each to be run once: which is next, which could not
//! be, and which need not run since they begin as one that could not be.
//!
//! A schedule that can't be teaches more than itself. Where an actor waits in its turn for one who
//! stands, every schedule that begins alike and lets it go at least as far waits alike. Where an
//! actor ends before the point at which its turn was to end, every one that begins alike and would
//! stop it there, or later, is the same: it runs to its end in one go, which is a schedule of its own.

use serde::{Deserialize, Serialize};

use super::explore::{Classes, Explore};
use super::{Actor, Interleaving, Program};

/// More schedules than this are not made: hours would pass over them.
pub const MOST: usize = 20_000;

/// How often a schedule runs that comes to no result.
pub const TRIES: u32 = 3;

/// What came of a schedule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Came {
    /// It ran in its order.
    Ordered,
    /// It ran, and a failure showed, whatever became of its order: the finding's key.
    Found(String),
    /// It could not be.
    Infeasible(Impossible),
    /// It begins as the schedule of this number, which could not be for it.
    Alike(usize),
    /// Its order was not kept, and nobody waited: this many times the machine was too slow.
    Undecided(u32),
}

/// Why an order could not be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Impossible {
    /// The turn that did not end as ordered.
    pub turn: usize,
    /// Who was to go in it, at which point it was to stop, and what was instead, in words.
    pub why: String,
    /// It waited for one who stands; else it ended before its point came.
    pub waited: bool,
}

/// Too many schedules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("more than {MOST} schedules lie within the bound; lower it, or choose fewer points")]
pub struct TooMany;

/// The schedules of a program, and what came of them.
#[derive(Clone, Debug)]
pub struct Exhaust {
    all: Vec<Interleaving>,
    /// How many points each actor passes.
    lengths: Vec<usize>,
    came: Vec<Option<Came>>,
    /// Executions within the bound, those included that differ from another by nothing.
    executions: u64,
}

/// How far it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Schedules within the bound, no two of them alike.
    pub schedules: u64,
    /// Executions within the bound that are the same as one of these: their switches lie between
    /// points of which the order doesn't matter.
    pub same: u64,
    /// Schedules of which is known what comes of them.
    pub done: u64,
    /// Of these, ran in their order.
    pub ordered: u64,
    /// Of these, showed a failure.
    pub found: u64,
    /// Of these, can't be since somebody waits for one who stands.
    pub waits: u64,
    /// Of these, can't be since a point doesn't come in them.
    pub absent: u64,
    /// Of those that can't be, needed no run: they begin as another.
    pub alike: u64,
    /// Neither ran in their order nor could be shown to be impossible.
    pub undecided: u64,
}

impl Exhaust {
    /// All with at most `bound` switches from one who could go on. Of schedules that differ only in
    /// the order of points which don't depend on each other there is one, that with the fewest
    /// switches.
    ///
    /// # Errors
    /// There are too many.
    pub fn new(
        program: &Program,
        bound: usize,
        dependent: impl Fn((Actor, usize), (Actor, usize)) -> bool,
    ) -> Result<Self, TooMany> {
        // Counted before they are compared, which takes longer.
        let mut explore = Explore::new(bound);
        let mut executions = Vec::new();
        while let Some(went) = program.run(&mut explore) {
            if explore.is_new() {
                executions.push(went);
            }
            if executions.len() > MOST {
                return Err(TooMany);
            }
        }
        let mut classes = Classes::default();
        let mut all = executions;
        all.retain(|went| classes.add(went, &dependent));
        // Those with the fewest switches first; of these, those whose turns are shorter: the first
        // that waits for one who stands then speaks for the longer ones.
        all.sort_by_cached_key(|went| {
            let turns = Program::turns(went).into_iter();
            let turns: Vec<_> = turns.map(|turn| (turn.actor, turn.to)).collect();
            (turns.len(), turns)
        });
        Ok(Self {
            came: vec![None; all.len()],
            all,
            lengths: program.actors.iter().map(Vec::len).collect(),
            executions: classes.executions,
        })
    }

    /// A schedule by its number.
    pub fn schedule(&self, number: usize) -> Option<&Interleaving> {
        self.all.get(number)
    }

    /// The next to run.
    pub fn next(&self) -> Option<usize> {
        let open = |came: &Option<Came>| matches!(came, None | Some(Came::Undecided(..TRIES)));
        self.came.iter().position(open)
    }

    /// How often a schedule was tried without a result.
    pub fn tried(&self, number: usize) -> u32 {
        match self.came.get(number) {
            Some(Some(Came::Undecided(tried))) => *tried,
            _ => 0,
        }
    }

    /// Takes in what came of a schedule.
    pub fn came(&mut self, number: usize, came: Came) {
        if number >= self.all.len() {
            return;
        }
        if let Came::Infeasible(impossible) = &came {
            for other in number + 1..self.all.len() {
                if self.came[other].is_none() && self.begins_alike(other, number, impossible) {
                    self.came[other] = Some(Came::Alike(number));
                }
            }
        }
        self.came[number] = Some(came);
    }

    /// Whether a schedule can't be for the same reason as another.
    fn begins_alike(&self, other: usize, number: usize, impossible: &Impossible) -> bool {
        let went = &self.all[number];
        let turns = Program::turns(went);
        let Some(turn) = turns.get(impossible.turn) else {
            return false;
        };
        let before = &turns[..impossible.turn];
        let start: usize = before.iter().map(|turn| turn.to - turn.from).sum();
        let end = start + turn.to - turn.from;
        let it = &self.all[other];
        if it.len() < end || it[..end] != went[..end] {
            return false;
        }
        // Where a point doesn't come, the actor goes to its end in one go; that can be.
        let further = it[end..].iter().take_while(|next| **next == turn.actor);
        let to_its_end = turn.to + further.count() == self.lengths[turn.actor];
        impossible.waited || !to_its_end
    }

    /// What came of each, by number.
    pub fn results(&self) -> &[Option<Came>] {
        &self.came
    }

    /// Takes results in that were found before, in an exploration of the same program.
    pub fn resume(&mut self, results: &[Option<Came>]) {
        for (here, before) in self.came.iter_mut().zip(results) {
            here.clone_from(before);
        }
    }

    /// How far it is.
    pub fn counts(&self) -> Counts {
        let mut counts = Counts {
            schedules: self.all.len() as u64,
            same: self.executions - self.all.len() as u64,
            ..Counts::default()
        };
        for came in self.came.iter().flatten() {
            counts.done += 1;
            let reason = match came {
                Came::Alike(number) => {
                    counts.alike += 1;
                    self.came.get(*number).and_then(Option::as_ref)
                }
                came => Some(came),
            };
            match reason {
                Some(Came::Ordered) => counts.ordered += 1,
                Some(Came::Found(_)) => counts.found += 1,
                Some(Came::Infeasible(it)) if it.waited => counts.waits += 1,
                Some(Came::Infeasible(_)) => counts.absent += 1,
                Some(Came::Undecided(tried)) => {
                    counts.undecided += 1;
                    counts.done -= u64::from(*tried < TRIES);
                }
                Some(Came::Alike(_)) | None => {}
            }
        }
        counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schedule::toy::program;

    fn all_depend(_: (Actor, usize), _: (Actor, usize)) -> bool {
        true
    }

    fn impossible(turn: usize, waited: bool) -> Came {
        Came::Infeasible(Impossible {
            turn,
            why: "so".into(),
            waited,
        })
    }

    /// Of n and m points there are 2 without a switch, n - 1 + m - 1 with one, and with two
    /// one for each pair of places at which the two are cut, whoever begins.
    #[test]
    fn two_actors_have_as_many_schedules_as_can_be_counted_by_hand() {
        for (n, m) in [(1, 1), (2, 3), (5, 4), (9, 12)] {
            let count = |bound| {
                let exhaust = Exhaust::new(&program(&[n, m]), bound, all_depend);
                exhaust.expect("few").counts().schedules as usize
            };
            assert_eq!(count(0), 2);
            assert_eq!(count(1), 2 + (n - 1) + (m - 1));
            assert_eq!(count(2), 2 + (n - 1) + (m - 1) + 2 * (n - 1) * (m - 1));
        }
        let many = Exhaust::new(&program(&[40, 40, 40]), 3, all_depend);
        assert_eq!(many.err(), Some(TooMany));
    }

    /// B can't go beyond its second point while A stands before its own second: whatever is
    /// explored is what can be, and what can't needs few runs.
    #[test]
    fn what_waits_is_learnt_from_the_first_that_waits() {
        let (n, m) = (4, 6);
        let mut exhaust = Exhaust::new(&program(&[n, m]), 2, all_depend).expect("few");
        let stands = |passed: usize| passed == 1;
        let mut runs = 0;
        let mut waited = 0;
        while let Some(number) = exhaust.next() {
            runs += 1;
            let went = exhaust.schedule(number).expect("it is one").clone();
            let mut passed = [0, 0];
            let blocked = Program::turns(&went).iter().position(|turn| {
                passed[turn.actor] = turn.to;
                turn.actor == 1 && turn.to > 2 && turn.from <= 2 && stands(passed[0])
            });
            waited += u32::from(blocked.is_some());
            let came = blocked.map_or(Came::Ordered, |turn| impossible(turn, true));
            exhaust.came(number, came);
        }
        let counts = exhaust.counts();
        assert_eq!(counts.done, counts.schedules);
        assert_eq!(counts.ordered + counts.waits, counts.schedules);
        assert_eq!(runs, counts.schedules - counts.alike);
        // B goes beyond its second point from its begin, at once or in two, from its first and from
        // its second point; the two turns that are longer than the shortest are known then.
        assert_eq!(
            (waited, counts.waits, counts.alike),
            (4, 6, 2),
            "{counts:?}"
        );
    }

    #[test]
    fn an_actor_that_ends_early_is_not_stopped_again_and_still_runs_through() {
        // A's last two points don't come after B is through.
        let mut exhaust = Exhaust::new(&program(&[4, 2]), 2, all_depend).expect("few");
        while let Some(number) = exhaust.next() {
            let went = exhaust.schedule(number).expect("it is one").clone();
            let turns = Program::turns(&went);
            let mut b = 0;
            let absent = turns.iter().position(|turn| {
                if turn.actor == 1 {
                    b = turn.to;
                }
                turn.actor == 0 && b > 0 && turn.to >= 2 && turn.to < 4
            });
            exhaust.came(
                number,
                absent.map_or(Came::Ordered, |it| impossible(it, false)),
            );
        }
        let counts = exhaust.counts();
        let through: Interleaving = vec![1, 1, 0, 0, 0, 0];
        let number = exhaust.all.iter().position(|went| *went == through);
        let came = &exhaust.results()[number.expect("it is one")];
        assert_eq!(*came, Some(Came::Ordered));
        assert!(counts.absent > 0 && counts.waits == 0);
        assert_eq!(counts.ordered + counts.absent, counts.schedules);
    }

    #[test]
    fn one_without_a_result_runs_again_and_is_told_in_the_end() {
        let mut exhaust = Exhaust::new(&program(&[1, 1]), 0, all_depend).expect("few");
        for tried in 1..TRIES {
            exhaust.came(0, Came::Undecided(tried));
            assert_eq!((exhaust.next(), exhaust.tried(0)), (Some(0), tried));
            assert_eq!(exhaust.counts().done, 0);
        }
        exhaust.came(0, Came::Undecided(TRIES));
        assert_eq!(exhaust.next(), Some(1));
        exhaust.came(1, Came::Ordered);
        let counts = exhaust.counts();
        assert_eq!((counts.done, counts.undecided, counts.ordered), (2, 1, 1));
        let mut again = Exhaust::new(&program(&[1, 1]), 0, all_depend).expect("few");
        again.resume(exhaust.results());
        assert_eq!((again.next(), again.counts()), (None, counts));
    }
}
