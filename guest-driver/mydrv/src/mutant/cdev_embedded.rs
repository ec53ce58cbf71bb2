// SPDX-License-Identifier: GPL-2.0-only
//! `cdev-embedded`: dk0's `struct cdev` is inside of dk0, and doesn't keep dk0.
//!
//! A cdev has a count of its own, and an inode or an open file refers to it after it was deleted.
//! `cdev_device_add()` makes the device the cdev's parent, so the one keeps the other. With
//! `cdev_add()` and `device_add()` in its place the memory goes when dk0's own count is zero.
//!
//! What should be seen, with `drained`: /dev/dk0 is opened, the driver is unbound, the file is
//! closed. Its last reference to dk0 frees the cdev, which `__fput()` then gives back: KASAN
//! reports a slab-use-after-free in `cdev_put`.
//!
//! 233ed09d7fda ("chardev: add helper function to register char devs with a struct device")
//! made the right way a function, for the drivers that had got it wrong.

use crate::rules::Rules;
use kernel::bindings;
use kernel::prelude::*;

pub(crate) fn plant(rules: &mut Rules) {
    rules.add_node = add;
}

/// # Safety
/// As `cdev_device_add()`.
unsafe extern "C" fn add(cdev: *mut bindings::cdev, device: *mut bindings::device) -> c_int {
    // SAFETY: both are initialized, and not added yet (caller).
    unsafe {
        match bindings::cdev_add(cdev, (*device).devt, 1) {
            0 => {}
            error => return error,
        }
        let error = bindings::device_add(device);
        if error != 0 {
            bindings::cdev_del(cdev);
        }
        error
    }
}
