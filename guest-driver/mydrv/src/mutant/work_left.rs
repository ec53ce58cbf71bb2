// SPDX-License-Identifier: GPL-2.0-only
//! `work-left`: teardown shuts the lookout's timer down, and leaves the work that it queued.
//!
//! A timer that doesn't run any more says nothing about work that it has queued before. The
//! worker comes to it, or is in it, when what it works on is gone.
//!
//! What should be seen, with `drained`, when the timer has ticked shortly before teardown ends:
//! KASAN reports a slab-use-after-free in the lookout's tick or in the workqueue's code, or a
//! fault in the text of an unloaded module.

use crate::rules::Rules;

pub(crate) fn plant(rules: &mut Rules) {
    rules.stop_lookout = |lookout| lookout.shut_down_timer();
}
