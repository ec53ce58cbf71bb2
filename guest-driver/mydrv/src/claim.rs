// SPDX-License-Identifier: GPL-2.0-only
//! The name "dk0", of which there is one.

use core::sync::atomic::{AtomicBool, Ordering};
use kernel::prelude::*;

static TAKEN: AtomicBool = AtomicBool::new(false);

/// The right to be dk0.
pub(crate) struct Claim(());

impl Claim {
    /// Takes it, or fails with `EBUSY`.
    pub(crate) fn take() -> Result<Self> {
        match TAKEN.swap(true, Ordering::Acquire) {
            false => Ok(Self(())),
            true => Err(EBUSY),
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        TAKEN.store(false, Ordering::Release);
    }
}
