// SPDX-License-Identifier: GPL-2.0-only
//! A lookout for interrupts that get lost: answers are found without them, only later.
//!
//! While requests wait, a timer ticks. It can't take the ring's lock, which interrupts don't,
//! so it queues a work item, and that looks into the ring and wakes the waiters.

use crate::port::Port;
use crate::rules;
use crate::sys::ticker::{Tick, Ticker};
use kernel::prelude::*;
use kernel::sync::Arc;
use kernel::time::delay::fsleep;
use kernel::time::Delta;

/// Looks into a port's ring at each tick.
pub(crate) struct Lookout(Arc<Port>);

/// From a request to the first look.
const PERIOD_MS: u32 = 100;

/// An interrupt may be on its way as the timer ticks; it gets so long to arrive.
const GRACE: Delta = Delta::from_millis(20);

impl Lookout {
    pub(crate) fn new(port: Arc<Port>) -> Result<Arc<Ticker<Self>>> {
        Arc::pin_init(Ticker::new(Self(port), PERIOD_MS), GFP_KERNEL)
    }
}

impl Tick for Lookout {
    fn tick(&self) -> bool {
        fsleep(GRACE);
        self.0.look()
    }
}

/// Ends a lookout: the timer first, which queues the work, then the work, which can't arm a
/// timer that was shut down. Afterwards neither runs.
pub(crate) fn stop(lookout: &Ticker<Lookout>) {
    lookout.shut_down_timer();
    lookout.cancel_work();
}

/// A lookout that may tick. Dropped, it is stopped.
pub(crate) struct Watched(Arc<Ticker<Lookout>>);

impl Watched {
    pub(crate) fn new(lookout: Arc<Ticker<Lookout>>) -> Self {
        Self(lookout)
    }

    pub(crate) fn lookout(&self) -> &Arc<Ticker<Lookout>> {
        &self.0
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        (rules::get().stop_lookout)(&self.0);
    }
}
