// SPDX-License-Identifier: GPL-2.0-only
//! A reference to a PCI device's child.

use core::ptr::{null_mut, NonNull};
use core::sync::atomic::{AtomicI32, Ordering};
use kernel::bindings;
use kernel::prelude::*;
use kernel::str::CString;

/// The reference. Dropped, it is given back, which may release the device.
pub(crate) struct Child(NonNull<bindings::device>);

// SAFETY: a device is referred to, and released, by any thread.
unsafe impl Send for Child {}

impl Child {
    /// Finds the child `name` of the PCI device `parent` ("0000:00:1f.0"), or `ENODEV`.
    pub(crate) fn find(parent: &str, name: &str) -> Result<Self> {
        let parent = CString::try_from_fmt(fmt!("{parent}"))?;
        let name = CString::try_from_fmt(fmt!("{name}"))?;
        // SAFETY: the bus is registered for ever, and the match takes a name.
        let parent = unsafe {
            bindings::bus_find_device(
                &raw const bindings::pci_bus_type,
                null_mut(),
                parent.as_char_ptr().cast(),
                Some(bindings::device_match_name),
            )
        };
        let parent = Self(NonNull::new(parent).ok_or(ENODEV)?);
        // SAFETY: the parent is referred to until the end of this function; as above.
        let child = unsafe {
            bindings::device_find_child(
                parent.0.as_ptr(),
                name.as_char_ptr().cast(),
                Some(bindings::device_match_name),
            )
        };
        NonNull::new(child).map(Self).ok_or(ENODEV)
    }

    /// The device's reference count, ours included.
    pub(crate) fn references(&self) -> i32 {
        // SAFETY: the device is referred to, so it is valid; the count is an atomic.
        unsafe { AtomicI32::from_ptr(&raw mut (*self.0.as_ptr()).kobj.kref.refcount.refs.counter) }
            .load(Ordering::Relaxed)
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // SAFETY: the look-up took a reference, and it is given back once.
        unsafe { bindings::put_device(self.0.as_ptr()) };
    }
}
