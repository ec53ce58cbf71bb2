// SPDX-License-Identifier: GPL-2.0-only
//! The knobs' text, and the knobs' removal: what is the same for every kind of knob file.

use crate::controller::Controller;
use crate::dk0::Dk0;
use crate::rules;
use core::fmt::Write;
use core::str;
use kernel::prelude::*;
use kernel::sync::aref::ARef;

/// The knobs' names under dk0. A knob's place here is its index in the device.
pub(crate) const NAMES: [&CStr; dk_abi::KNOBS] = [c"myknob0", c"myknob1"];

/// A knob's value as it is read: a decimal number and a newline.
pub(crate) struct Text {
    bytes: [u8; Self::MAX],
    len: usize,
}

impl Text {
    /// A u64 has at most 20 digits.
    const MAX: usize = 21;

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl Write for Text {
    fn write_str(&mut self, s: &str) -> core::fmt::Result {
        let end = self.len + s.len();
        self.bytes
            .get_mut(self.len..end)
            .ok_or(core::fmt::Error)?
            .copy_from_slice(s.as_bytes());
        self.len = end;
        Ok(())
    }
}

/// Reads a knob.
///
/// # Safety
/// As [`crate::dk0::controller_of_knob`].
pub(crate) unsafe fn show(dk0: &Dk0, knob: usize) -> Result<Text> {
    let rules = rules::get();
    // SAFETY: by the caller's promise.
    (rules.show)(unsafe { (rules.controller_of_knob)(dk0) }, knob)
}

/// Asks the device for a knob's value.
pub(crate) fn value(controller: &Controller, knob: usize) -> Result<Text> {
    let value = controller.knob_get(knob as u64)?;
    let mut text = Text {
        bytes: [0; Text::MAX],
        len: 0,
    };
    writeln!(text, "{value}").map_err(|_| EOVERFLOW)?;
    Ok(text)
}

/// Writes a knob: a decimal number, a newline after it or not. Anything else is `EINVAL`.
///
/// # Safety
/// As [`crate::dk0::controller_of_knob`].
pub(crate) unsafe fn store(dk0: &Dk0, knob: usize, text: &[u8]) -> Result {
    let text = text.strip_suffix(b"\n").unwrap_or(text);
    let value = str::from_utf8(text).ok().and_then(|s| s.parse().ok());
    // SAFETY: by the caller's promise.
    let controller = unsafe { (rules::get().controller_of_knob)(dk0) };
    controller.knob_set(knob as u64, value.ok_or(EINVAL)?)
}

/// Both knob files. Dropped, they are removed: afterwards no callback of theirs runs.
pub(crate) struct Knobs {
    dk0: ARef<Dk0>,
}

impl Knobs {
    /// Adds the files by `add`, or none of them.
    pub(crate) fn add(dk0: &ARef<Dk0>, add: impl Fn(&Dk0, usize) -> Result) -> Result<Self> {
        for knob in 0..NAMES.len() {
            if let Err(error) = add(dk0, knob) {
                (0..knob).for_each(|added| (rules::get().remove_knob)(dk0, added));
                return Err(error);
            }
        }
        Ok(Self { dk0: dk0.clone() })
    }
}

impl Drop for Knobs {
    fn drop(&mut self) {
        (0..NAMES.len()).for_each(|knob| (rules::get().remove_knob)(&self.dk0, knob));
    }
}
