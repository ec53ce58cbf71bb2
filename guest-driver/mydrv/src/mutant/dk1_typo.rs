// SPDX-License-Identifier: GPL-2.0-only
//! `dk1-typo`: teardown removes myknob1 of dk1, which there isn't. The 2007 example's own slip.
//!
//! Removing a file that isn't there fails without a word, so dk0's myknob1 stays until the
//! deletion of dk0 takes it along. See `knobs_left` for what that means today.
//!
//! What should be seen, with `drained`, while an op is held inside each knob: rmmod waits for the
//! one in myknob0, and /dev/dk0 is there. When that one has gone on, /dev/dk0 is gone, although
//! myknob1 still runs.

use crate::dk0::Dk0;
use crate::rules::Rules;
use crate::sys::sysfs;
use kernel::bindings;
use kernel::prelude::*;

pub(crate) fn plant(rules: &mut Rules) {
    rules.remove_knob = remove_knob;
}

fn remove_knob(dk0: &Dk0, knob: usize) {
    if knob == 0 {
        return sysfs::remove_knob(dk0, knob);
    }
    // SAFETY: dk0 is published, so it has a parent. The name lives for ever.
    let dk1 = unsafe {
        bindings::device_find_child(
            (*dk0.as_raw()).parent,
            c"dk1".as_char_ptr().cast(),
            Some(bindings::device_match_name),
        )
    };
    if !dk1.is_null() {
        // SAFETY: the look-up took a reference, of which both are given up here.
        unsafe {
            bindings::sysfs_remove_file_ns(
                &raw mut (*dk1).kobj,
                sysfs::attribute(knob),
                core::ptr::null(),
            );
            bindings::put_device(dk1);
        }
    }
}
