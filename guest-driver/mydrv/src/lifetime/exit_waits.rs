// SPDX-License-Identifier: GPL-2.0-only
//! `exit-waits`: exit returns only when every `->release` has returned and left the module's
//! text. The 2007 thread's third way, made strict.
//!
//! "The exit function sees to it that every kobject is released before it returns." Removing
//! the knobs and deleting dk0 isn't that: anybody may hold a reference to dk0, as the kernel
//! itself does in passing, and `->release` comes when the last one is given back, from whoever
//! does that. So exit counts what isn't released yet, and waits for as long as it takes: rmmod
//! with a reference held elsewhere lasts as long as that is held.
//!
//! Two waits, and each is needed ([`crate::sys::node`]): for `->release` to tell that it is
//! done, and for the thread that ran it to leave its last instructions.
//!
//! The knobs are those of `drained`. `drained` and `pinned` have the same exit: no rule of
//! theirs asks for it, but a reference that others hold would otherwise outlive the text that
//! its end calls.

use crate::lifetime::drained;
use crate::rules::Rules;
use crate::sys::node;

pub(crate) const RULES: Rules = Rules {
    exit: node::all_released,
    ..drained::RULES
};
