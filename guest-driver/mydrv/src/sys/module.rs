// SPDX-License-Identifier: GPL-2.0-only
//! This module's count.

use kernel::bindings;
use kernel::prelude::*;

/// One count of this module. As long as it exists rmmod fails with `EWOULDBLOCK`, and the
/// module's text stays.
pub(crate) struct Count(());

impl Count {
    /// Takes one, or fails with `ENODEV` once the module is going.
    pub(crate) fn try_take() -> Result<Self> {
        // SAFETY: our own module, which is there as long as its code runs.
        match unsafe { bindings::try_module_get(this_module()) } {
            true => Ok(Self(())),
            false => Err(ENODEV),
        }
    }

    /// Takes one where another is held already, so that it can't fail.
    ///
    /// # Safety
    /// Somebody holds a count until after this returns.
    pub(crate) unsafe fn take_another() -> Self {
        // SAFETY: our own module; it isn't going, since a count is held.
        unsafe { bindings::__module_get(this_module()) };
        Self(())
    }

    /// A count that C took, or that was forgotten before.
    ///
    /// # Safety
    /// There is such a count, and nobody else gives it back.
    pub(crate) unsafe fn adopt() -> Self {
        Self(())
    }
}

impl Drop for Count {
    fn drop(&mut self) {
        // SAFETY: one count is ours to give back.
        unsafe { bindings::module_put(this_module()) };
    }
}

/// This module, as C wants it for an owner.
pub(crate) const fn this_module() -> *mut bindings::module {
    // Only its address; the module loader made it.
    &raw mut bindings::__this_module
}
