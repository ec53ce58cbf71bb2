// SPDX-License-Identifier: GPL-2.0-only
//! The last instructions of the module's text that a thread runs without a count of it.
//!
//! A function can tell that it is done, and then it still has to return: whoever hears that and
//! frees the module's text pulls it from under the rest of the function. Only the scheduler
//! knows when a thread has left: exit waits until every thread was seen outside of the kernel,
//! or has slept of its own will, which none of ours does in such a tail.

use core::sync::atomic::{AtomicBool, Ordering};
use kernel::bindings;

/// Whether such a thread may be there. With CONFIG_DEBUG_KOBJECT_RELEASE a worker calls each
/// `->release`.
static EXPECTED: AtomicBool = AtomicBool::new(cfg!(CONFIG_DEBUG_KOBJECT_RELEASE));

/// Says that there may be one. Told before the thread tells that it is done.
pub(crate) fn expect() {
    EXPECTED.store(true, Ordering::Relaxed);
}

/// Waits until every tail that was told of has left.
pub(crate) fn all_left() {
    if EXPECTED.load(Ordering::Relaxed) {
        // SAFETY: no preconditions in a context that may sleep, as exit is. Without preemption
        // the one is the other.
        #[cfg(CONFIG_TASKS_RCU)]
        unsafe {
            bindings::synchronize_rcu_tasks()
        };
        // SAFETY: as above.
        #[cfg(not(CONFIG_TASKS_RCU))]
        unsafe {
            bindings::synchronize_rcu()
        };
    }
}
