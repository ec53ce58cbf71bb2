//! The agent in the guest: PID 1 of the initramfs, a static program without a shell.
//!
//! It does what the host tells it over a virtio-serial port ([`knobrig_proto`] has the words)
//! and decides nothing. Inside:
//!
//! - [`mounts`], [`port`], [`power`], [`console`]: what PID 1 needs around it;
//! - [`inbox`], [`outbox`], [`serve`]: lines in, lines out, who does what;
//! - [`pool`], [`run`], [`conductor`], [`monitor`]: an episode's threads and who watches them;
//! - [`step`], [`slots`], [`scene`], [`stage`], [`tally`]: what one thread does, and what is
//!   noted of it;
//! - [`gates`]: function gates, through knobgate.ko;
//! - [`task`], [`base`], [`clock`], [`find`]: what the kernel tells; [`module`]: where it put a module;
//! - [`first`]: modules without which the port is not there.
//!
//! A `Do` runs on a thread of its own, beside episodes and other `Do`s, so that one that hangs in
//! the kernel takes nothing with it.
#![deny(unsafe_code)]

#[allow(unsafe_code, reason = "arch_prctl has no safe wrapper; see base::own")]
pub mod base;
pub mod clock;
pub mod conductor;
pub mod console;
pub mod faults;
pub mod find;
pub mod first;
pub mod gates;
pub mod inbox;
pub mod module;
pub mod monitor;
pub mod mounts;
pub mod outbox;
pub mod paths;
pub mod pool;
pub mod port;
pub mod power;
#[allow(
    unsafe_code,
    reason = "sched_setscheduler has no safe wrapper; see priority::claim"
)]
pub mod priority;
pub mod run;
pub mod scene;
pub mod serve;
#[allow(
    unsafe_code,
    reason = "closing a descriptor that others use; see slots::close"
)]
pub mod slots;
pub mod stage;
pub mod step;
pub mod tally;
pub mod task;

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks; a panic of another thread (which stops the machine) is no reason for one here.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
