// SPDX-License-Identifier: GPL-2.0-only
//! `reset-skipped`: the device is never reset.
//!
//! It goes on with a ring that is freed with the port. Disabling the PCI function stops a device
//! from being a bus master, and no more: it is still set up with that ring, and the next driver
//! finds it running.
//!
//! What should be seen, with `drained`: after teardown the device still runs; its ring is
//! overwritten.

use crate::port::Port;
use crate::rules::Rules;

pub(crate) fn plant(rules: &mut Rules) {
    rules.reset = reset;
}

fn reset(port: &Port) {
    // SAFETY: it wasn't stopped, which is the mistake.
    unsafe { port.ring().lock().assume_stopped() };
}
