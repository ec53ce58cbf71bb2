// SPDX-License-Identifier: GPL-2.0-only
//! `timer-left`: teardown cancels the lookout's work, and leaves the timer.
//!
//! The timer runs out in what was freed, and queues work again.
//!
//! What should be seen, with `drained`, after a request within the lookout's last period: KASAN
//! reports a slab-use-after-free in the timer wheel, below `run_timer_softirq` or where another
//! timer is added; CONFIG_DEBUG_OBJECTS reports an active timer that is freed.
//!
//! 292a089d78d3 ("treewide: Convert del_timer*() to timer_shutdown*()") did away with those of the
//! kind that a script could find.

use crate::rules::Rules;

pub(crate) fn plant(rules: &mut Rules) {
    rules.stop_lookout = |lookout| lookout.cancel_work();
}
