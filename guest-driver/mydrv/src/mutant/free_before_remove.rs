// SPDX-License-Identifier: GPL-2.0-only
//! `free-before-remove`: teardown frees the controller's state before it removes the knobs.
//!
//! The knobs' callbacks use the controller, and only removing the knobs ends them: a read that
//! waits for the device while the controller is freed comes back to freed memory, and so does
//! one that begins before the knob is gone. Right is the order of [`Parts`]: first take away
//! what leads to an object, then the object.
//!
//! What should be seen, with `drained`: KASAN reports a slab-use-after-free in the controller's
//! code, below a read of a knob; memory freed below `remove`.
//!
//! With `pinned` rmmod hides it: an open knob refuses the unload, so nobody can be inside a
//! knob when exit's teardown runs, and no new opener gets in. The wrong order does no harm
//! there, which is what that rule is for; only an `unbind`, which no count refuses, shows it.

use crate::probe::Parts;
use crate::rules::Rules;

pub(crate) fn plant(rules: &mut Rules) {
    rules.teardown = teardown;
}

fn teardown(parts: Parts) {
    drop(parts.controller);
    // What is left of `parts` goes here, in its order.
}
