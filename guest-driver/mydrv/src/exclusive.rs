// SPDX-License-Identifier: GPL-2.0-only
//! `O_EXCL` for a knob: many may have it open, or one alone.

use core::sync::atomic::{AtomicU32, Ordering};
use kernel::prelude::*;

/// Who has a knob open: so many, or [`ALONE`].
pub(crate) struct Seats(AtomicU32);

const ALONE: u32 = u32::MAX;

impl Seats {
    pub(crate) const fn new() -> Self {
        Self(AtomicU32::new(0))
    }

    /// Takes a seat, or fails with `EBUSY` where the opener or another wants to be alone.
    pub(crate) fn take(&self, alone: bool) -> Result {
        self.0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |taken| {
                match (taken, alone) {
                    (0, true) => Some(ALONE),
                    (ALONE, _) | (_, true) => None,
                    // As many as there are files, which is less than ALONE.
                    (others, false) => Some(others + 1),
                }
            })
            .map(|_| ())
            .map_err(|_| EBUSY)
    }

    /// Gives a seat back that was taken.
    pub(crate) fn leave(&self) {
        // Of one who is alone nobody else changes it: the others fail to take a seat.
        match self.0.load(Ordering::Relaxed) {
            ALONE => self.0.store(0, Ordering::Relaxed),
            _ => {
                self.0.fetch_sub(1, Ordering::Relaxed);
            }
        }
    }
}
