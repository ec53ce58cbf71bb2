// SPDX-License-Identifier: GPL-2.0-only
//! `memory-left`: teardown ends the controller's state, and doesn't free its memory.
//!
//! Nothing ever uses it again, so nothing goes wrong but that each unload leaves some bytes
//! behind. No check of a use sees it; only who asks what nobody points at any more.
//!
//! What should be seen, with `drained`, under a kernel with CONFIG_DEBUG_KMEMLEAK: an
//! unreferenced object, allocated below probe by a module that is gone.

use crate::probe::Parts;
use crate::rules::Rules;
use kernel::prelude::*;

pub(crate) fn plant(rules: &mut Rules) {
    rules.teardown = teardown;
}

fn teardown(parts: Parts) {
    drop(parts.face);
    // SAFETY: a pinned value that is ended where it stands was not moved.
    let controller = KBox::into_raw(unsafe { Pin::into_inner_unchecked(parts.controller) });
    // SAFETY: it came from a KBox, and nobody else has it. That the box is not made again, which
    // would free it, is the mistake.
    unsafe { core::ptr::drop_in_place(controller) };
    drop(parts.started);
}
