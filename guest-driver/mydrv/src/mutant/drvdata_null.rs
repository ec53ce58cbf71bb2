// SPDX-License-Identifier: GPL-2.0-only
//! `drvdata-null`: the knobs find the controller by dk0's drvdata, and teardown clears that before
//! it removes the knobs.
//!
//! Clearing a pointer doesn't stop those who are about to load it: only removing the knobs does.
//!
//! What should be seen, with `drained`: a NULL pointer dereference in the controller's code, below
//! a read or write of a knob that began after teardown. A read that is held inside myknob0 makes
//! that time long for myknob1, which is removed after it.

use crate::controller::Controller;
use crate::dk0::{self, Dk0};
use crate::knobs::Knobs;
use crate::probe::Parts;
use crate::rules::Rules;
use crate::sys::sysfs;
use core::ptr::{from_ref, null_mut};
use kernel::bindings;
use kernel::prelude::*;
use kernel::sync::aref::ARef;

pub(crate) fn plant(rules: &mut Rules) {
    rules.add_knobs = add_knobs;
    rules.controller_of_knob = controller;
    rules.teardown = teardown;
}

fn add_knobs(dk0: &ARef<Dk0>) -> Result<Knobs> {
    // SAFETY: the controller is there since before dk0. dk0's drvdata is nobody else's.
    unsafe {
        let controller = from_ref(dk0::controller_of_knob(dk0)).cast_mut();
        bindings::dev_set_drvdata(dk0.as_raw(), controller.cast());
    }
    sysfs::add_knobs(dk0)
}

/// # Safety
/// As [`dk0::controller_of_knob`].
unsafe fn controller(dk0: &Dk0) -> &Controller {
    // SAFETY: set before the knobs were added, and cleared before they are gone, which is the
    // mistake.
    unsafe { &*bindings::dev_get_drvdata(dk0.as_raw()).cast() }
}

fn teardown(parts: Parts) {
    if let Some(face) = &parts.face {
        // SAFETY: dk0 is there.
        unsafe { bindings::dev_set_drvdata(face.dk0.node().as_raw(), null_mut()) };
    }
    parts.tear_down();
}
