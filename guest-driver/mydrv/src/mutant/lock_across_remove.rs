// SPDX-License-Identifier: GPL-2.0-only
//! `lock-across-remove`: teardown removes the knobs while it holds a lock that their callbacks
//! take.
//!
//! Removing a knob waits for callbacks inside, and those wait for the lock: a deadlock, for
//! which only one reader at the wrong time is needed. lockdep knows the pattern: kernfs's
//! active references are locks to it.
//!
//! What should be seen, with `drained`: rmmod hangs, with a reader that hangs in the lock. With
//! CONFIG_PROVE_LOCKING the report of a possible circular locking dependency, without any
//! reader at the wrong time.

use crate::controller::Controller;
use crate::knobs::{self, Text};
use crate::probe::Parts;
use crate::rules::Rules;
use kernel::prelude::*;

kernel::sync::global_lock! {
    // SAFETY: `plant` initializes it, before any code that takes it can be reached.
    unsafe(uninit) static LOCK: Mutex<()> = ();
}

pub(crate) fn plant(rules: &mut Rules) {
    // SAFETY: called once, when the module asks for its rules.
    unsafe { LOCK.init() };
    rules.show = show;
    rules.teardown = teardown;
}

fn show(controller: &Controller, knob: usize) -> Result<Text> {
    let _locked = LOCK.lock();
    knobs::value(controller, knob)
}

fn teardown(parts: Parts) {
    let _locked = LOCK.lock();
    parts.tear_down();
}
