// SPDX-License-Identifier: GPL-2.0-only
//! `outside-release`: dk0's `->release` is the function of another module, which stays. The 2007
//! thread's second way, as s390's s390_rdev.c had it.
//!
//! mydrv may go while a reference to dk0 is held elsewhere: what the end of that reference
//! calls isn't in mydrv's text. exit waits for no release.
//!
//! The other module is dk_release. It counts itself for each dk0 that it has still to release,
//! so it can't go before, and its own exit waits for the last instructions of its `->release`.
//! It knows nothing of mydrv but this: a dk0 is one allocation, which begins with its `struct
//! device`. So nothing in dk0 may need code of mydrv to be dropped.
//!
//! The knobs are those of `drained`: once they are removed nothing else leads from dk0 into
//! mydrv's text. Its cdev is deleted, and whoever still has /dev/dk0 open pins mydrv.

use crate::dk0::Dk0;
use crate::lifetime::drained;
use crate::rules::Rules;
use crate::sys::{outside, tail};
use core::mem;

pub(crate) const RULES: Rules = Rules {
    release: outside::release,
    exit: tail::all_left,
    ..drained::RULES
};

const _: () = assert!(!mem::needs_drop::<Dk0>());
