// SPDX-License-Identifier: GPL-2.0-only
//! `count-leak`: an open that fails with `EBUSY` keeps its count of the module.
//!
//! The count is taken first, the seat at the knob second, and the path on which there is no
//! seat forgets to give the count back.
//!
//! What should be seen, with `pinned`, after an open with `O_EXCL` of a knob that somebody has
//! open: /sys/module/mydrv/refcnt stays above the number of open files, and rmmod fails with
//! `EWOULDBLOCK` for ever.

use crate::dk0::Dk0;
use crate::lifetime::pinned::Opener;
use crate::rules::Rules;
use crate::sys::kernfs;
use crate::sys::module::Count;
use core::mem::ManuallyDrop;
use kernel::prelude::*;

pub(crate) fn plant(rules: &mut Rules) {
    rules.add_knobs = kernfs::add_knobs::<Leaky>;
}

/// As [`Opener<Count>`], with the same order.
#[expect(dead_code, reason = "held until they are dropped")]
struct Leaky {
    opener: Opener<()>,
    mydrv: Count,
}

impl kernfs::Opener for Leaky {
    fn open(dk0: &Dk0, knob: usize, alone: bool) -> Result<Self> {
        // As C has it: nothing gives it back by itself.
        let mydrv = ManuallyDrop::new(Count::try_take()?);
        let opener = Opener::sit(dk0, knob, alone, ())?;
        Ok(Self {
            opener,
            mydrv: ManuallyDrop::into_inner(mydrv),
        })
    }
}
