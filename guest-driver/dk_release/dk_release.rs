// SPDX-License-Identifier: GPL-2.0-only
//! dk_release: the `->release` of a dk0 whose driver may have gone.
//!
//! mydrv's lifetime `outside-release` makes [`dk_release`] the release of its dk0, by
//! `__symbol_get()`, which counts this module. So it stays as long as it has a dk0 to release,
//! and rmmod fails with `EWOULDBLOCK` until then.

use kernel::bindings;
use kernel::prelude::*;

mod export;

module! {
    type: DkRelease,
    name: "dk_release",
    authors: ["The knobrig authors"],
    description: "Releases a dk0 whose driver may have gone",
    license: "GPL v2",
}

/// The loaded module.
struct DkRelease;

impl kernel::Module for DkRelease {
    fn init(_module: &'static ThisModule) -> Result<Self> {
        Ok(Self)
    }
}

impl Drop for DkRelease {
    /// [`dk_release`] gives its count back and then still has to return. Waits until every
    /// thread was seen outside of the kernel, or has slept of its own will, which that one
    /// doesn't.
    fn drop(&mut self) {
        // SAFETY: no preconditions in a context that may sleep, as exit is. Without preemption
        // the one is the other.
        #[cfg(CONFIG_TASKS_RCU)]
        unsafe {
            bindings::synchronize_rcu_tasks()
        };
        // SAFETY: as above.
        #[cfg(not(CONFIG_TASKS_RCU))]
        unsafe {
            bindings::synchronize_rcu()
        };
    }
}

/// Releases a device that is the first thing in an allocation of kmalloc's, in which nothing
/// needs to be done but to free it. Gives back the count of this module that came with it.
///
/// # Safety
/// Called by the driver core, once, with such a device, for which the symbol was looked up.
#[no_mangle]
pub unsafe extern "C" fn dk_release(device: *mut bindings::device) {
    // SAFETY: the start of an allocation, and nobody refers to it any more.
    unsafe { bindings::kfree(device.cast()) };
    // SAFETY: the look-up took one count, and it isn't given back elsewhere.
    unsafe { bindings::module_put(&raw mut bindings::__this_module) };
}
