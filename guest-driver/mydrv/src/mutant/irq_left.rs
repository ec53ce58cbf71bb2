// SPDX-License-Identifier: GPL-2.0-only
//! `irq-left`: teardown doesn't take the interrupt handler off its line.
//!
//! The line is shared with other devices, so it doesn't stay quiet: the next interrupt on it
//! calls a function of an unloaded module, with a port that was freed.
//!
//! What should be seen, with `drained`: mydrv stays in /proc/interrupts after rmmod, and the next
//! interrupt, of whichever device, faults. After an unbind KASAN reports a use-after-free in
//! the handler.

use crate::probe::Parts;
use crate::rules::Rules;
use core::mem;

pub(crate) fn plant(rules: &mut Rules) {
    rules.teardown = teardown;
}

fn teardown(parts: Parts) {
    mem::forget(parts.started.interrupt.line);
    // What is left of `parts` goes here, in its order.
}
