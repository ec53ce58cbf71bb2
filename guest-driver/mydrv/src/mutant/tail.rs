// SPDX-License-Identifier: GPL-2.0-only
//! `tail`: `->release` tells that it is done, and exit returns while that function's last
//! instructions still run.
//!
//! Waiting for a completion that `->release` signals looks like waiting for `->release`, and
//! isn't: the signal comes from inside of it. Between the signal and the return there are a few
//! instructions in the module's text, and a preemption or an interrupt can make them last.
//!
//! What should be seen, with `exit-waits` and a reference held elsewhere that is given back
//! during rmmod: a fault in the text of an unloaded module, if that thread is kept from running
//! right after the signal. A gate at the return of `wake_up_var()` does it, and so do priorities:
//! it shares a CPU with a rmmod of a higher real-time one, which preempts it at the signal, and
//! with a busy thread of one between the two, which runs whenever rmmod sleeps.

use crate::rules::Rules;
use crate::sys::node;

pub(crate) fn plant(rules: &mut Rules) {
    rules.exit = node::wait_for_releases;
}
