// SPDX-License-Identifier: GPL-2.0-only
//! `name-freed`: dk0's name is freed while dk0 is still there.
//!
//! A device's name belongs to its kobject, which frees it when the last reference is gone. A
//! driver that frees it with what else it has allocated takes it from those who still use it:
//! the deletion itself, which tells devtmpfs and user space which device goes, and then the
//! kobject, which frees it again.
//!
//! What should be seen, with `drained`: KASAN reports a slab-use-after-free below `device_del`,
//! at every teardown.

use crate::probe::Parts;
use crate::rules::Rules;
use kernel::bindings;

pub(crate) fn plant(rules: &mut Rules) {
    rules.teardown = teardown;
}

fn teardown(parts: Parts) {
    if let Some(face) = &parts.face {
        // SAFETY: dk0 is there, and so is its name. That it is used again is the mistake.
        unsafe { bindings::kfree_const((*face.dk0.node().kobj()).name.cast()) };
    }
    parts.tear_down();
}
