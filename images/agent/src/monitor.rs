//! Notices that a teardown has gone to sleep in the kernel, and that one sleeps on while a gate holds
//! somebody.
//!
//! The kernel tells nobody when a thread falls asleep, so it is looked at: by the conductor,
//! which has nothing else to do, and only while some teardown's step is neither told as settled
//! nor over, or a gate is to be let go for who waits. A look is one `pread` of `/proc/TID/wchan`.

use std::sync::Arc;
use std::time::Duration;

use crate::clock::now_ns;
use crate::run::{Run, Standing};
use crate::task::{Task, UNNAMED};

/// The pause between looks. Two looks make a settled teardown, so that it is told one to two
/// milliseconds after it fell asleep.
pub const LOOK_EVERY: Duration = Duration::from_millis(1);
/// Looks at one place that make a settled teardown: one would take the short sleeps on the way (a
/// contended mutex) for the place where it comes to rest.
const LOOKS: u32 = 2;
/// So many do in a place where the kernel waits for itself: most often it is on its way, and on a slow
/// machine even such a sleep is not short.
const LOOKS_PASSING: u32 = 50;
/// So many do where it is known to come to rest elsewhere, or can't rest: on a slow machine the sleeps
/// on the way are not short. What it rests for waits no longer than two seconds.
const LOOKS_ELSEWHERE: u32 = 500;

/// Places where the kernel waits for itself, by how their names begin: for a grace period, a thread or
/// a CPU of its own, a lock that callbacks are not run under.
const PASSING: [&str; 6] = [
    UNNAMED,
    "synchronize_",
    "devtmpfs_",
    "stop_",
    "kernfs_activate",
    "kernfs_remove",
];
/// Places where nobody who sleeps can be what it waits for, by how their names begin: grace periods of RCU,
/// in whose readers nobody sleeps, and of tasks, in which who sleeps doesn't count. The latter takes
/// some 100 ms, since the kernel isn't in a hurry with it.
const GRACE: [&str; 3] = ["synchronize_rcu", "wait_rcu_", "__wait_rcu_"];

/// How many looks at a place make a thread that came to rest there.
fn looks(place: &str) -> u32 {
    let within = |places: &[&str]| places.iter().any(|it| place.starts_with(it));
    if within(&GRACE) {
        LOOKS_ELSEWHERE
    } else if within(&PASSING) {
        LOOKS_PASSING
    } else {
        LOOKS
    }
}

/// What was seen of each thread last.
#[derive(Debug)]
pub struct Monitor {
    watched: Vec<Watched>,
    /// Gates that are let go once somebody sleeps on, and weren't yet.
    waits: Vec<Wait>,
}

/// The thread of a part.
#[derive(Debug)]
struct Watched {
    part: usize,
    task: Arc<Task>,
    last: Option<Sleep>,
}

impl Watched {
    fn new((part, task): &(usize, Arc<Task>)) -> Self {
        Self {
            part: *part,
            task: Arc::clone(task),
            last: None,
        }
    }
}

/// A sleep.
#[derive(Debug)]
struct Sleep {
    step: usize,
    place: String,
    /// Looks in a row that saw it.
    looks: u32,
}

impl Sleep {
    /// One more look sees this; `before` is what the last one saw.
    fn seen(step: usize, place: String, before: Option<Self>) -> Self {
        let looks = match before {
            Some(sleep) if sleep.step == step && sleep.place == place => sleep.looks + 1,
            _ => 1,
        };
        Self { step, place, looks }
    }
}

/// A gate that is let go for who waits.
#[derive(Debug)]
struct Wait {
    tag: String,
    /// Seen since the gate holds somebody.
    waiter: Watched,
}

impl Monitor {
    /// For some parts of a run that go side by side, and their threads.
    pub fn new(run: &Run, parts: &[(usize, Arc<Task>)]) -> Self {
        let waits = run.episode.gates.iter().filter_map(|gate| {
            let name = gate.waiter.as_deref()?;
            let waiter = parts.iter().find(|(part, _)| run.name(*part) == name)?;
            Some(Wait {
                tag: gate.tag.clone(),
                waiter: Watched::new(waiter),
            })
        });
        Self {
            watched: parts.iter().map(Watched::new).collect(),
            waits: waits.collect(),
        }
    }

    /// Looks once; false if there is nothing to look for until [`Run::await_ends`] returns.
    pub fn look(&mut self, run: &Run) -> bool {
        self.let_go(run);
        let mut watching = !self.waits.is_empty();
        for Watched { part, task, last } in &mut self.watched {
            let part = *part;
            let step = match run.standing(part) {
                Standing::Settled => continue,
                Standing::Between => {
                    watching = true;
                    continue;
                }
                Standing::Inside(step) => step,
            };
            let place = task.asleep();
            // The step may have ended, and the thread sleep elsewhere, since `standing` looked.
            let still = run.standing(part) == Standing::Inside(step);
            let Some(place) = place.filter(|_| still) else {
                watching = true;
                *last = None;
                continue;
            };
            let sleep = Sleep::seen(step, place, last.take());
            let needed = match run.rest(part, step) {
                Some(rest) if rest != sleep.place => LOOKS_ELSEWHERE,
                Some(_) => LOOKS,
                None => looks(&sleep.place),
            };
            if sleep.looks < needed {
                watching = true;
                *last = Some(sleep);
            } else {
                // Told by the teardown itself, it has ended, and the next step is to be looked for.
                watching |= !run.settle(part, step, sleep.place, now_ns());
            }
        }
        watching
    }

    /// Lets gates go for whose hold somebody waits. Not sooner than he would have passed a place
    /// where the kernel waits for itself: one who was woken is on his way.
    fn let_go(&mut self, run: &Run) {
        self.waits.retain_mut(|Wait { tag, waiter }| {
            if run.has_ended(waiter.part) {
                return false;
            }
            if !run.scene.gate_holds_or_held(tag) {
                return true;
            }
            let (step, place) = (run.step(waiter.part), waiter.task.asleep());
            waiter.last = place.map(|place| Sleep::seen(step, place, waiter.last.take()));
            let needed = |sleep: &Sleep| looks(&sleep.place).max(LOOKS_PASSING);
            let sleeps_on = (waiter.last.as_ref()).is_some_and(|it| it.looks >= needed(it));
            !(sleeps_on && run.scene.release_gate(tag))
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Readers of SRCU sleep, and an op that is held may be one.
    #[test]
    fn nobody_rests_in_a_grace_period_whose_readers_do_not_sleep() {
        assert!(looks("synchronize_rcu_tasks") > looks("synchronize_srcu"));
        assert!(looks("synchronize_srcu") > looks("kernfs_drain"));
    }
}
