// SPDX-License-Identifier: GPL-2.0-only
//! A timer that queues a work item, which may sleep and may let the timer run again.
//!
//! The kernel crate's work items own what they work on until they have run, so such a thing
//! can't be cancelled; ours belongs to whoever stops it.

use core::ptr::NonNull;
use kernel::bindings;
use kernel::prelude::*;
use kernel::time::{msecs_to_jiffies, Jiffies};
use kernel::types::Opaque;

/// What is done at each tick.
pub(crate) trait Tick: Send + Sync + 'static {
    /// Called by a worker, so it may sleep. Says whether there is to be another tick.
    fn tick(&self) -> bool;
}

/// A timer and its work. Before the object goes, both must have been ended.
#[pin_data]
#[repr(C)]
pub(crate) struct Ticker<T> {
    // First, so that a pointer to the timer is one to the object.
    #[pin]
    timer: Opaque<bindings::timer_list>,
    #[pin]
    work: Opaque<bindings::work_struct>,
    period: Jiffies,
    ticks: T,
}

// SAFETY: timers and work items may be used by any thread; they have locks of their own.
unsafe impl<T: Send> Send for Ticker<T> {}
// SAFETY: as above.
unsafe impl<T: Sync> Sync for Ticker<T> {}

impl<T: Tick> Ticker<T> {
    /// One that stands still.
    pub(crate) fn new(ticks: T, period_ms: u32) -> impl PinInit<Self> {
        pin_init!(Self {
            // SAFETY: `timer` is to be initialized, and pinned from then on; the name and the
            // key live for ever.
            timer <- Opaque::ffi_init(|timer| unsafe {
                bindings::timer_init_key(
                    timer,
                    Some(expired::<T>),
                    0,
                    c"mydrv".as_char_ptr(),
                    kernel::static_lock_class!().as_ptr(),
                );
            }),
            // SAFETY: as above.
            work <- Opaque::ffi_init(|work| unsafe {
                bindings::init_work_with_key(
                    work,
                    Some(work_runs::<T>),
                    false,
                    c"mydrv".as_char_ptr(),
                    kernel::static_lock_class!().as_ptr(),
                );
            }),
            period: msecs_to_jiffies(period_ms),
            ticks,
        })
    }

    /// Lets the timer run, for a period, unless it runs already.
    pub(crate) fn arm(&self) {
        // SAFETY: the kernel's clock, which changes under us.
        let now = unsafe { (&raw const bindings::jiffies).read_volatile() };
        // SAFETY: an initialized timer. One that runs would only be made to expire earlier, and
        // one that was shut down stays so.
        unsafe { bindings::timer_reduce(self.timer.get(), now.wrapping_add(self.period)) };
    }

    /// Ends the timer for good, and waits until its callback doesn't run.
    pub(crate) fn shut_down_timer(&self) {
        // SAFETY: an initialized timer, and we may sleep.
        unsafe { bindings::timer_shutdown_sync(self.timer.get()) };
    }

    /// Takes the work from its queue, or waits until it doesn't run.
    pub(crate) fn cancel_work(&self) {
        // SAFETY: an initialized work item, and we may sleep.
        unsafe { bindings::cancel_work_sync(self.work.get()) };
    }
}

/// # Safety
/// Called by the timer of a `Ticker<T>`, which is there until the timer was ended.
unsafe extern "C" fn expired<T: Tick>(timer: *mut bindings::timer_list) {
    // SAFETY: the timer is the first field.
    let ticker = unsafe { &*timer.cast::<Ticker<T>>() };
    // SAFETY: an initialized work item, and one of the kernel's own queues. Queued work stays.
    unsafe {
        bindings::queue_work_on(
            bindings::wq_misc_consts_WORK_CPU_UNBOUND as c_int,
            bindings::system_dfl_wq,
            ticker.work.get(),
        )
    };
}

/// # Safety
/// Called by a worker with the work of a `Ticker<T>`, which is there until it was ended.
unsafe extern "C" fn work_runs<T: Tick>(work: *mut bindings::work_struct) {
    let work = Opaque::cast_from(work.cast_const());
    // SAFETY: `work` is the field of a live object.
    let ticker: NonNull<Ticker<T>> =
        unsafe { NonNull::new_unchecked(kernel::container_of!(work, Ticker<T>, work).cast_mut()) };
    // SAFETY: as above.
    let ticker = unsafe { ticker.as_ref() };
    if ticker.ticks.tick() {
        ticker.arm();
    }
}
