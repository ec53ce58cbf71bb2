// SPDX-License-Identifier: GPL-2.0-only
//! `knobs-left`: teardown removes neither knob, and leaves both to the deletion of dk0.
//!
//! "The exit function removes both knobs, and then deletes the device." In 2007 a knob that was
//! left stood in sysfs with its callbacks in freed text. Today deleting dk0 removes its whole
//! directory and waits for callbacks inside, so nothing is left behind; but dk0's deletion has
//! begun by then. Its file in /dev is gone, it has left its bus and its parent's list, and the
//! knobs' callbacks run on in a device that is being deleted.
//!
//! What should be seen, with `drained`, while an op is held inside each knob and rmmod waits:
//! /dev/dk0 is gone, although both knobs still run. Right is that knobs go first, and /dev/dk0 is
//! there as long as somebody is inside one.

use crate::rules::Rules;

pub(crate) fn plant(rules: &mut Rules) {
    rules.remove_knob = |_, _| {};
}
