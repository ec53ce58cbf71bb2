// SPDX-License-Identifier: GPL-2.0-only
//! Active references, kernfs's way, for what kernfs doesn't guard: /dev/dk0.
//!
//! An operation holds one for as long as it uses the driver. Deactivation lets no new ones be
//! taken and waits for those that are held. Unlike a revocable object of the kernel crate, the
//! holder may sleep, and neither side waits for a grace period.

use crate::sys::wait::WaitQueue;
use core::sync::atomic::{AtomicU32, Ordering};
use kernel::prelude::*;

/// Set once nothing more may begin. The other bits count the references held.
const DEACTIVATED: u32 = 1 << 31;

/// The count of active references to something.
#[pin_data]
pub(crate) struct Active {
    state: AtomicU32,
    #[pin]
    idle: WaitQueue,
}

impl Active {
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            state: AtomicU32::new(0),
            idle <- WaitQueue::new(),
        })
    }

    /// Takes a reference, or fails with `ENODEV` once deactivated.
    pub(crate) fn enter(&self) -> Result<ActiveRef<'_>> {
        self.state
            .fetch_update(Ordering::Acquire, Ordering::Relaxed, |state| {
                (state & DEACTIVATED == 0).then_some(state + 1)
            })
            .map(|_| ActiveRef(self))
            .map_err(|_| ENODEV)
    }

    /// Whether no new reference can be had.
    pub(crate) fn deactivated(&self) -> bool {
        self.state.load(Ordering::Relaxed) & DEACTIVATED != 0
    }

    /// Lets no reference be taken any more, calls `wake` so that holders who sleep look at
    /// [`Active::deactivated`], and waits until the last is given back. That is soon: a holder
    /// sleeps nowhere but where `wake` wakes it.
    pub(crate) fn deactivate(&self, wake: impl FnOnce()) {
        self.state.fetch_or(DEACTIVATED, Ordering::Relaxed);
        wake();
        self.idle
            .wait(|| self.state.load(Ordering::Acquire) == DEACTIVATED);
    }
}

/// An active reference.
pub(crate) struct ActiveRef<'a>(&'a Active);

impl Drop for ActiveRef<'_> {
    fn drop(&mut self) {
        if self.0.state.fetch_sub(1, Ordering::Release) == DEACTIVATED | 1 {
            self.0.idle.wake_all();
        }
    }
}
