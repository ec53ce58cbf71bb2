// SPDX-License-Identifier: GPL-2.0-only
//! `extra-put`: closing a knob gives two references to dk0 back, where opening took one.
//!
//! Each close takes one from somebody else: first from the driver core, then from the driver.
//! dk0 is released while they still use it.
//!
//! What should be seen, with `pinned`: after a close dk0 counts one less than before the open. In
//! exit at the latest KASAN reports a use-after-free below `device_del`, or `refcount_t` an
//! underflow.

use crate::dk0::Dk0;
use crate::lifetime::pinned::Opener;
use crate::rules::Rules;
use crate::sys::kernfs;
use crate::sys::module::Count;
use core::ptr::NonNull;
use kernel::prelude::*;
use kernel::sync::aref::AlwaysRefCounted;

pub(crate) fn plant(rules: &mut Rules) {
    rules.add_knobs = kernfs::add_knobs::<Overput>;
}

struct Overput(Opener<Count>);

impl kernfs::Opener for Overput {
    fn open(dk0: &Dk0, knob: usize, alone: bool) -> Result<Self> {
        kernfs::Opener::open(dk0, knob, alone).map(Self)
    }
}

impl Drop for Overput {
    fn drop(&mut self) {
        // SAFETY: there is none to give back, which is the mistake.
        unsafe { Dk0::dec_ref(NonNull::from(&**self.0.dk0())) };
        // The opener's own goes with the field.
    }
}
