//! Notices that a teardown has gone to sleep in the kernel.
//!
//! The kernel tells nobody when a thread falls asleep, so it is looked at: by the conductor,
//! which has nothing else to do, and only while some teardown's step is neither told as settled
//! nor over. A look is one `pread` of `/proc/TID/wchan`.

use std::sync::Arc;
use std::time::Duration;

use crate::clock::now_ns;
use crate::run::{Run, Standing};
use crate::task::Task;

/// The pause between looks. Two looks make a settled teardown, so that it is told one to two
/// milliseconds after it fell asleep.
pub const LOOK_EVERY: Duration = Duration::from_millis(1);

/// What was seen of each actor last.
#[derive(Debug)]
pub struct Monitor {
    tasks: Vec<Arc<Task>>,
    /// The step, and where it slept.
    last: Vec<Option<(usize, String)>>,
}

impl Monitor {
    /// For the actors' threads, in their order.
    pub fn new(tasks: Vec<Arc<Task>>) -> Self {
        let last = tasks.iter().map(|_| None).collect();
        Self { tasks, last }
    }

    /// Looks once; false if there is nothing to look for until [`Run::await_ends`] returns.
    ///
    /// Asleep at one place in two looks running is settled. One look would take the short sleeps
    /// on the way (a contended mutex) for the place where the teardown comes to rest.
    pub fn look(&mut self, run: &Run) -> bool {
        let mut watching = false;
        for (actor, (task, last)) in self.tasks.iter().zip(&mut self.last).enumerate() {
            let step = match run.standing(actor) {
                Standing::Settled => continue,
                Standing::Between => {
                    watching = true;
                    continue;
                }
                Standing::Inside(step) => step,
            };
            let seen = task.asleep().map(|place| (step, place));
            // The step may have ended, and the thread sleep elsewhere, since `standing` looked.
            let still = run.standing(actor) == Standing::Inside(step);
            match seen {
                Some((_, place))
                    if still
                        && last
                            .as_ref()
                            .is_some_and(|(s, p)| *s == step && *p == place) =>
                {
                    // Told by the teardown itself, it has ended, and the next step is to be
                    // looked for.
                    watching |= !run.settle(actor, step, place, now_ns());
                }
                seen => {
                    watching = true;
                    *last = seen.filter(|_| still);
                }
            }
        }
        watching
    }
}
