// SPDX-License-Identifier: GPL-2.0-only
//! `irq-after-free`: the port is freed before the interrupt handler that uses it.
//!
//! The line is shared. That our device is quiet says nothing: the handler is called for every
//! other device on the line, until `free_irq()` has returned.
//!
//! What should be seen, with `drained`: KASAN reports a slab-use-after-free in the handler. With
//! CONFIG_DEBUG_SHIRQ at every teardown, as `free_irq()` calls the handler once more; without,
//! when another device interrupts at that time.

use crate::probe::Parts;
use crate::rules::Rules;

pub(crate) fn plant(rules: &mut Rules) {
    rules.teardown = teardown;
}

fn teardown(parts: Parts) {
    let _line;
    let parts = parts;
    _line = parts.started.interrupt.line;
    // What is left of `parts` goes here, in its order, and then the line.
}
