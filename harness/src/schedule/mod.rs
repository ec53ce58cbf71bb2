//! Schedules: which order of points an episode takes, and how such orders are chosen, replayed,
//! minimized and counted. Pure; nothing here touches a guest.
//!
//! A [`Program`] says which points each actor passes. A [`Scheduler`] decides, point by point, who
//! goes next; what it decided is an [`Interleaving`], and the [`Schedule`] of that is the order
//! which gates have to enforce to get it again: one edge for each switch from one actor to
//! another. Each strategy is a file that names its paper.

use knobrig_proto::End;
use serde::{Deserialize, Serialize};

pub mod delay;
pub mod exhaust;
pub mod explore;
pub mod minimize;
pub mod pct;
pub mod random;
pub mod replay;
mod text;
#[cfg(test)]
mod toy;

pub use text::BadSchedule;

/// Version of a schedule's text.
pub const VERSION: u32 = 1;

/// An actor by its number in the program.
pub type Actor = usize;

/// One end of an op, or a point within it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum At {
    /// The system call begins.
    Begin,
    /// It has returned.
    End,
    /// The device has a request of it: `seen`, `before-completion`.
    Device(String),
    /// A call of a kernel function, at one of its ends.
    Call {
        /// The function.
        function: String,
        /// Which end.
        end: End,
        /// Of the calls with the driver among the callers only.
        own: bool,
    },
    /// An instruction, as `mydrv+0x1a4`.
    Instruction {
        /// The module, or `vmlinux`.
        module: String,
        /// Offset in its text.
        offset: u64,
    },
}

/// The n-th time that an actor passes a point.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Occurrence {
    /// The actor's name.
    pub actor: String,
    /// Its op (`read`, `rmmod`); absent where the point may be passed by any.
    pub op: Option<String>,
    /// Which time, from 1.
    pub nth: u32,
    /// Where.
    pub at: At,
}

/// `before` is passed before `after` is.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Edge {
    /// The earlier.
    pub before: Occurrence,
    /// The later: who comes here too early is held.
    pub after: Occurrence,
}

/// A partial order over point occurrences.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Schedule {
    /// Its edges.
    pub edges: Vec<Edge>,
}

/// The points that each actor passes, in its order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Program {
    /// By actor.
    pub actors: Vec<Vec<Occurrence>>,
}

/// Who went, point by point. To pass a point is to go on from it and come to stand at the next.
pub type Interleaving = Vec<Actor>;

/// A stretch of an execution in which one actor goes and the others stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn {
    /// Who goes.
    pub actor: Actor,
    /// The point that it goes on from, by its place in the actor's way.
    pub from: usize,
    /// The point that it comes to stand at; the way's length where it comes to its end.
    pub to: usize,
}

/// Decides who goes next.
pub trait Scheduler {
    /// Begins another execution; false when there is none left.
    fn begin(&mut self) -> bool;

    /// Who passes the next point. `runnable` is not empty and sorted; `current` went last, and may
    /// not be able to go on. Gives one of `runnable`.
    fn next(&mut self, runnable: &[Actor], current: Option<Actor>) -> Actor;
}

impl Program {
    /// One execution in which nothing blocks.
    pub fn run(&self, scheduler: &mut dyn Scheduler) -> Option<Interleaving> {
        if !scheduler.begin() {
            return None;
        }
        let mut passed = vec![0; self.actors.len()];
        let mut went = Interleaving::new();
        loop {
            let runnable: Vec<_> = (0..self.actors.len())
                .filter(|actor| passed[*actor] < self.actors[*actor].len())
                .collect();
            if runnable.is_empty() {
                return Some(went);
            }
            let actor = scheduler.next(&runnable, went.last().copied());
            passed[actor] += 1;
            went.push(actor);
        }
    }

    /// The turns of an interleaving.
    pub fn turns(interleaving: &[Actor]) -> Vec<Turn> {
        let mut passed: Vec<usize> = Vec::new();
        let mut turns: Vec<Turn> = Vec::new();
        for actor in interleaving {
            if passed.len() <= *actor {
                passed.resize(actor + 1, 0);
            }
            let from = passed[*actor];
            passed[*actor] += 1;
            match turns.last_mut() {
                Some(turn) if turn.actor == *actor => turn.to = from + 1,
                _ => turns.push(Turn {
                    actor: *actor,
                    from,
                    to: from + 1,
                }),
            }
        }
        turns
    }

    /// The order that gates enforce to get this interleaving: at each switch, where the one that
    /// stops stood before where the other goes on.
    pub fn schedule(&self, interleaving: &[Actor]) -> Schedule {
        let mut passed = vec![0; self.actors.len()];
        let mut edges = Vec::new();
        let mut last: Option<(Actor, &Occurrence)> = None;
        for actor in interleaving {
            let here = &self.actors[*actor][passed[*actor]];
            passed[*actor] += 1;
            if let Some((other, before)) = last
                && other != *actor
            {
                edges.push(Edge {
                    before: before.clone(),
                    after: here.clone(),
                });
            }
            last = Some((*actor, here));
        }
        Schedule { edges }
    }
}

#[cfg(test)]
mod tests {
    use super::toy::program;
    use super::{Program, Turn};

    #[test]
    fn a_turn_is_what_one_passes_without_another_between() {
        let turn = |actor, from, to| Turn { actor, from, to };
        let turns = Program::turns(&[0, 0, 1, 1, 0]);
        assert_eq!(turns, [turn(0, 0, 2), turn(1, 0, 2), turn(0, 2, 3)]);
        assert!(Program::turns(&[]).is_empty());
    }

    #[test]
    fn a_switch_is_an_edge() {
        let program = program(&[2, 2]);
        let schedule = program.schedule(&[0, 1, 1, 0]);
        let text = schedule.to_string();
        assert_eq!(
            text,
            "schedule 1\nA.op#1@begin -> B.op#1@begin\nB.op#2@begin -> A.op#2@begin\n"
        );
        assert!(program.schedule(&[0, 0, 1, 1]).edges.len() == 1);
    }
}
