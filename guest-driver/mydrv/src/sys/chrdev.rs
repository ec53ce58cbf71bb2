// SPDX-License-Identifier: GPL-2.0-only
//! A device number.

use kernel::bindings;
use kernel::error::to_result;
use kernel::prelude::*;

/// One device number, of a major that the kernel chose. Dropped, it is given back.
pub(crate) struct Region(bindings::dev_t);

impl Region {
    /// Takes a number. `name` is for /proc/devices.
    pub(crate) fn alloc(name: &'static CStr) -> Result<Self> {
        let mut devt = 0;
        // SAFETY: `devt` may be written, and the name lives for ever.
        to_result(unsafe { bindings::alloc_chrdev_region(&mut devt, 0, 1, name.as_char_ptr()) })?;
        Ok(Self(devt))
    }

    /// The number.
    pub(crate) fn devt(&self) -> bindings::dev_t {
        self.0
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: our own number, given back once.
        unsafe { bindings::unregister_chrdev_region(self.0, 1) };
    }
}
