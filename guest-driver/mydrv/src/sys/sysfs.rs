// SPDX-License-Identifier: GPL-2.0-only
//! Knobs, and `self_destruct`, as plain device attributes.
//!
//! sysfs calls `show` and `store` under an active reference of the attribute's node, so neither
//! they nor what they use can go meanwhile: see [`crate::dk0::Data`].

use crate::dk0::Dk0;
use crate::knobs::{self, Knobs};
use crate::lifetime::self_destruct;
use core::slice;
use kernel::bindings;
use kernel::error::{from_result, to_result};
use kernel::prelude::*;
use kernel::sync::aref::ARef;

/// Adds both knobs to dk0 as attributes.
pub(crate) fn add_knobs(dk0: &ARef<Dk0>) -> Result<Knobs> {
    Knobs::add(dk0, |dk0, knob| {
        // SAFETY: dk0 is added, and the attribute lives for ever.
        to_result(unsafe {
            bindings::sysfs_create_file_ns(dk0.kobj(), attribute(knob), core::ptr::null())
        })
    })
}

/// Removes a knob's file, whichever kind it is of, and waits for the callbacks that run in it.
pub(crate) fn remove_knob(dk0: &Dk0, knob: usize) {
    // SAFETY: dk0's kobject has its directory as long as dk0 is published. sysfs looks for the
    // attribute's name there, and removes the file of that name.
    unsafe { bindings::sysfs_remove_file_ns(dk0.kobj(), attribute(knob), core::ptr::null()) };
}

/// A `struct device_attribute` that never changes.
#[repr(transparent)]
struct Attribute(bindings::device_attribute);

// SAFETY: nobody writes to it.
unsafe impl Sync for Attribute {}

type Show = unsafe extern "C" fn(
    *mut bindings::device,
    *mut bindings::device_attribute,
    *mut c_char,
) -> isize;
type Store = unsafe extern "C" fn(
    *mut bindings::device,
    *mut bindings::device_attribute,
    *const c_char,
    usize,
) -> isize;

impl Attribute {
    #[allow(clippy::needless_update, reason = "lockdep adds fields to `attribute`")]
    const fn new(name: &'static CStr, mode: u16, show: Option<Show>, store: Option<Store>) -> Self {
        Self(bindings::device_attribute {
            attr: bindings::attribute {
                name: kernel::str::as_char_ptr_in_const_context(name),
                mode,
                ..pin_init::zeroed()
            },
            __bindgen_anon_1: bindings::device_attribute__bindgen_ty_1 { show },
            __bindgen_anon_2: bindings::device_attribute__bindgen_ty_2 { store },
        })
    }
}

static ATTRIBUTES: [Attribute; dk_abi::KNOBS] = [attribute_of::<0>(), attribute_of::<1>()];

const fn attribute_of<const KNOB: usize>() -> Attribute {
    let (show, store) = (show::<KNOB>, store::<KNOB>);
    Attribute::new(knobs::NAMES[KNOB], 0o644, Some(show), Some(store))
}

/// A knob's attribute.
pub(crate) fn attribute(knob: usize) -> *const bindings::attribute {
    &ATTRIBUTES[knob].0.attr
}

/// dk0's attribute `self_destruct`. Dropped, it is removed.
pub(crate) struct SelfDestruct(pub(crate) ARef<Dk0>);

static SELF_DESTRUCT: Attribute =
    Attribute::new(c"self_destruct", 0o200, None, Some(store_self_destruct));

impl SelfDestruct {
    /// Puts it under dk0. Writing to it calls [`self_destruct::write`].
    pub(crate) fn add(dk0: &Dk0) -> Result {
        // SAFETY: dk0 is added, and the attribute lives for ever.
        to_result(unsafe {
            bindings::sysfs_create_file_ns(dk0.kobj(), &SELF_DESTRUCT.0.attr, core::ptr::null())
        })
    }
}

impl Drop for SelfDestruct {
    fn drop(&mut self) {
        // SAFETY: dk0 is still published. Where the attribute was never added nothing is done.
        unsafe {
            bindings::sysfs_remove_file_ns(self.0.kobj(), &SELF_DESTRUCT.0.attr, core::ptr::null())
        };
    }
}

/// Does `work`, which removes the attribute, while its writer is inside of it.
///
/// Removing an attribute waits until nobody is inside, so the writer would wait for himself. He
/// steps out for as long: sysfs no longer counts him, and he has the references that keep dk0's
/// kobject and the attribute's node. The module's text must be kept otherwise: see
/// [`self_destruct`].
pub(crate) fn inside_self_destruct(dk0: &Dk0, work: &mut dyn FnMut()) {
    // SAFETY: dk0 is alive, and we are inside of its attribute.
    let node =
        unsafe { bindings::sysfs_break_active_protection(dk0.kobj(), &SELF_DESTRUCT.0.attr) };
    work();
    if !node.is_null() {
        // SAFETY: broken above, and mended once. Gives back the reference to dk0's kobject,
        // which may be the last one.
        unsafe { bindings::sysfs_unbreak_active_protection(node) };
    }
}

/// # Safety
/// Called by sysfs, under an active reference of dk0's `self_destruct`.
unsafe extern "C" fn store_self_destruct(
    device: *mut bindings::device,
    _: *mut bindings::device_attribute,
    _text: *const c_char,
    len: usize,
) -> isize {
    from_result(|| {
        // SAFETY: only dk0 has this attribute, and it is there as long as that.
        self_destruct::write(unsafe { Dk0::from_device(device) })?;
        Ok(len as isize)
    })
}

/// # Safety
/// Called by sysfs, under an active reference of dk0's knob `KNOB`, with a page to write to.
unsafe extern "C" fn show<const KNOB: usize>(
    device: *mut bindings::device,
    _: *mut bindings::device_attribute,
    page: *mut c_char,
) -> isize {
    from_result(|| {
        // SAFETY: only dk0 has this attribute. The active reference is held until we return.
        let text = unsafe { knobs::show(Dk0::from_device(device), KNOB)? };
        let text = text.as_bytes();
        // SAFETY: the text is shorter than a page.
        unsafe {
            page.cast::<u8>()
                .copy_from_nonoverlapping(text.as_ptr(), text.len())
        };
        Ok(text.len() as isize)
    })
}

/// # Safety
/// Called by sysfs, under an active reference of dk0's knob `KNOB`, with `len` bytes of text.
unsafe extern "C" fn store<const KNOB: usize>(
    device: *mut bindings::device,
    _: *mut bindings::device_attribute,
    text: *const c_char,
    len: usize,
) -> isize {
    from_result(|| {
        // SAFETY: as many bytes as sysfs says, in a buffer of this call's own.
        let text = unsafe { slice::from_raw_parts(text.cast::<u8>(), len) };
        // SAFETY: only dk0 has this attribute. The active reference is held until we return.
        unsafe { knobs::store(Dk0::from_device(device), KNOB, text)? };
        Ok(len as isize)
    })
}
