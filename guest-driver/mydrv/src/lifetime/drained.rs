// SPDX-License-Identifier: GPL-2.0-only
//! `drained`: an open knob pins nothing; removing it drains the callbacks that run in it.
//! Today's sysfs, as Tejun Heo made it after the 2007 thread ("immediate disconnect").
//!
//! A descriptor of a knob refers to a kernfs node, not to the driver. A read or write takes an
//! active reference of the node for as long as the callback runs, and fails with `-ENODEV` once
//! the node is deactivated. Removal deactivates, waits for the active references that are left,
//! and returns: from then on no callback runs, and none can begin. So rmmod works with knobs
//! open, and waits at most for the callbacks inside, each of which has a deadline.
//!
//! dk0 and the controller need no count either: the callbacks use them only under an active
//! reference, and [`crate::probe::Parts`] gives them up after the knobs. /dev/dk0 is not sysfs: an opener of
//! it pins the module as of any character device with an owner.

use crate::rules::{Rules, COMMON};
use crate::sys::sysfs;

pub(crate) const RULES: Rules = Rules {
    add_knobs: sysfs::add_knobs,
    ..COMMON
};
