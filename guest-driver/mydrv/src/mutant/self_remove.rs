// SPDX-License-Identifier: GPL-2.0-only
//! `self-remove`: `self_destruct` removes itself without stepping out of itself first.
//!
//! Removing an attribute waits until nobody is inside of it, and the writer who does it is. He
//! waits for himself, for ever, and an unbind or a rmmod after him waits, too.
//!
//! What should be seen, with `self-destruct`: the write to `self_destruct` never returns. lockdep
//! reports a possible recursive locking of the active reference.
//!
//! 0ee223b2e1f6 ("scsi: core: Avoid that SCSI device removal through sysfs triggers a deadlock")
//! taught SCSI's `delete` attribute the step out, which 2afc9166f79b ("scsi: sysfs: Introduce
//! sysfs_{un,}break_active_protection()") had made.

use crate::rules::Rules;

pub(crate) fn plant(rules: &mut Rules) {
    rules.inside_self_destruct = |_dk0, work| work();
}
