// SPDX-License-Identifier: GPL-2.0-only
//! `self-remove`: `self_destruct` removes itself without stepping out of itself first.
//!
//! Removing an attribute waits until nobody is inside of it, and the writer who does it is. He
//! waits for himself, for ever, and an unbind or a rmmod after him waits, too.
//!
//! What should be seen, with `self-destruct`: the write to `self_destruct` never returns. lockdep
//! reports a possible recursive locking of the active reference.

use crate::rules::Rules;

pub(crate) fn plant(rules: &mut Rules) {
    rules.inside_self_destruct = |_dk0, work| work();
}
