// SPDX-License-Identifier: GPL-2.0-only
//! `ring-before-reset`: the ring's memory is freed before the device is reset.
//!
//! Until its reset the device may read and write there: it looks for requests, and answers
//! those that nobody waits for any more.
//!
//! What should be seen, with `drained`: the device finds its ring overwritten, when it looks and
//! at the reset at the latest. Where it holds a request that was given up, it answers into
//! memory that is somebody else's.

use crate::port::{self, Port};
use crate::rules::Rules;

pub(crate) fn plant(rules: &mut Rules) {
    rules.reset = reset;
}

fn reset(port: &Port) {
    // SAFETY: the device still uses the memory, which is the mistake. All that comes after is
    // the stop.
    unsafe { port.ring().lock().free() };
    port::reset(port);
}
