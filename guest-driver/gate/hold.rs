// SPDX-License-Identifier: GPL-2.0-only
//! Keeps a thread where it is.
//!
//! A thread that may be preempted stands as a preempted one does: runnable, and never running for
//! long where anybody else wants the CPU. Nothing can tell that from a real preemption that
//! happened to last, RCU included: a driver whose exit calls `synchronize_rcu_tasks()`, so that
//! nobody is left in its text, waits for a thread that is held in it. A sleep would tell RCU that
//! the thread has left, and so break correct drivers. Only where a gate asks for it, since its
//! function sleeps anyway, does the thread sleep.
//!
//! Where it may neither sleep nor be preempted (a spinlock, an interrupt) it spins, for
//! [`SPIN_NS`] at most: others spin for what it has.

use crate::gate::{How, Why, GATES};
use crate::pass::Call;
use crate::sys;

/// A tick or two: the watchdogs for interrupts and locks look at seconds.
const SPIN_NS: u64 = 3_000_000;
/// The least urgent.
const NICE: i32 = 19;

/// Holds the running thread at a gate until it is released, its deadline, or the thread's end.
pub(crate) fn hold(number: usize, call: &Call) {
    let gate = &GATES[number];
    let how = match call.context.is_preemptible() {
        true if gate.sleeps() => How::Slept,
        true => How::Preempted,
        false => How::Spun,
    };
    if !gate.reach(number, call, how) {
        return;
    }
    let nice = match how {
        How::Preempted => call.current.nice(),
        How::Slept | How::Spun => None,
    };
    if nice.is_some() {
        call.current.set_nice(NICE);
    }
    let mut end = gate.deadline();
    if how == How::Spun {
        end = end.min(sys::now() + SPIN_NS);
    }
    let why = loop {
        if gate.lets_go() {
            break Why::Released;
        }
        if sys::now() >= end {
            break Why::Deadline;
        }
        if how != How::Spun && call.current.is_signalled() {
            break Why::Killed;
        }
        match how {
            How::Preempted => sys::be_preempted(),
            How::Slept => sys::sleep_a_tick(),
            How::Spun => core::hint::spin_loop(),
        }
    };
    if let Some(nice) = nice {
        call.current.set_nice(nice);
    }
    gate.leave(number, why);
}
