// SPDX-License-Identifier: GPL-2.0-only
//! `count-skipped`: opening a knob counts dk0, but not the module.
//!
//! The module's count is what refuses the unload. Without it rmmod proceeds with knobs open, as
//! `drained` means to and `pinned` does not.
//!
//! What should be seen, with `pinned`: /sys/module/mydrv/refcnt is 0 with a knob open, and rmmod
//! succeeds, or goes ahead and waits in exit. A close that meets it gives a reference back from
//! text that nothing keeps.

use crate::dk0::Dk0;
use crate::lifetime::pinned::Opener;
use crate::rules::Rules;
use crate::sys::kernfs;
use kernel::prelude::*;

pub(crate) fn plant(rules: &mut Rules) {
    rules.add_knobs = kernfs::add_knobs::<Opener<()>>;
}

impl kernfs::Opener for Opener<()> {
    fn open(dk0: &Dk0, knob: usize, alone: bool) -> Result<Self> {
        Self::sit(dk0, knob, alone, ())
    }
}
