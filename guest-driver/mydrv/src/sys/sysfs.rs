// SPDX-License-Identifier: GPL-2.0-only
//! Knobs as plain device attributes.
//!
//! sysfs calls `show` and `store` under an active reference of the attribute's node, so neither
//! they nor what they use can go meanwhile: see [`crate::dk0::Data`].

use crate::dk0::Dk0;
use crate::knobs::{self, Knobs};
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

static ATTRIBUTES: [Attribute; dk_abi::KNOBS] = [attribute_of::<0>(), attribute_of::<1>()];

fn attribute(knob: usize) -> *const bindings::attribute {
    &ATTRIBUTES[knob].0.attr
}

#[allow(clippy::needless_update, reason = "lockdep adds fields to `attribute`")]
const fn attribute_of<const KNOB: usize>() -> Attribute {
    Attribute(bindings::device_attribute {
        attr: bindings::attribute {
            name: kernel::str::as_char_ptr_in_const_context(knobs::NAMES[KNOB]),
            mode: 0o644,
            ..pin_init::zeroed()
        },
        __bindgen_anon_1: bindings::device_attribute__bindgen_ty_1 {
            show: Some(show::<KNOB>),
        },
        __bindgen_anon_2: bindings::device_attribute__bindgen_ty_2 {
            store: Some(store::<KNOB>),
        },
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
        let controller = unsafe { Dk0::from_device(device).data().controller_of_knob() };
        let text = knobs::show(controller, KNOB)?;
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
        // SAFETY: only dk0 has this attribute. The active reference is held until we return.
        let controller = unsafe { Dk0::from_device(device).data().controller_of_knob() };
        // SAFETY: as many bytes as sysfs says, in a buffer of this call's own.
        let text = unsafe { slice::from_raw_parts(text.cast::<u8>(), len) };
        knobs::store(controller, KNOB, text)?;
        Ok(len as isize)
    })
}
