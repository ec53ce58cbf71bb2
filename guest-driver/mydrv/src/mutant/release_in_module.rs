// SPDX-License-Identifier: GPL-2.0-only
//! `release-in-module`: exit doesn't wait for a `->release` that comes later, from somebody else,
//! and that is in the module's text.
//!
//! The 2007 thread's danger itself: deleting dk0 and giving the driver's reference back only
//! release dk0 if nobody else holds one. Who does gives it back some day, and calls a function
//! that is gone.
//!
//! What should be seen, with `exit-waits` and a reference held elsewhere across rmmod: rmmod
//! doesn't wait for it; giving it back faults in the text of an unloaded module, below
//! `device_release`.

use crate::rules::Rules;
use crate::sys::tail;

pub(crate) fn plant(rules: &mut Rules) {
    rules.exit = tail::all_left;
}
