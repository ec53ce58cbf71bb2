// SPDX-License-Identifier: GPL-2.0-only
//! Wait queues: `wait_event()` with a closure for the condition.

use kernel::bindings;
use kernel::prelude::*;
use kernel::task::MAX_SCHEDULE_TIMEOUT;
use kernel::time::{msecs_to_jiffies, Jiffies};
use kernel::types::Opaque;

/// A wait queue.
#[pin_data]
#[repr(transparent)]
pub(crate) struct WaitQueue {
    #[pin]
    head: Opaque<bindings::wait_queue_head>,
}

// SAFETY: a wait queue head has a lock of its own and belongs to no thread.
unsafe impl Send for WaitQueue {}
// SAFETY: as above.
unsafe impl Sync for WaitQueue {}

/// How a wait ended.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Waited {
    /// The condition holds.
    Done,
    /// The time is over and the condition doesn't hold.
    TimedOut,
    /// The process is being killed.
    Killed,
}

impl WaitQueue {
    /// An empty queue.
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            // SAFETY: `head` is to be initialized, and pinned from then on; the name and the
            // key live for ever.
            head <- Opaque::ffi_init(|head| unsafe {
                bindings::__init_waitqueue_head(
                    head,
                    c"mydrv".as_char_ptr(),
                    kernel::static_lock_class!().as_ptr(),
                );
            }),
        })
    }

    /// The queue as C knows it.
    pub(crate) fn as_raw(&self) -> *mut bindings::wait_queue_head {
        self.head.get()
    }

    /// Lets all who wait look at their conditions again. From any context.
    pub(crate) fn wake_all(&self) {
        // SAFETY: an initialized queue.
        unsafe {
            bindings::__wake_up(
                self.as_raw(),
                bindings::TASK_NORMAL,
                0,
                core::ptr::null_mut(),
            )
        };
    }

    /// Waits until `done`, for at most `timeout`; a fatal signal ends it early. `done` is
    /// called at least once, in a state in which it must not sleep.
    pub(crate) fn wait_killable(&self, timeout: Jiffies, done: impl FnMut() -> bool) -> Waited {
        let timeout = timeout.try_into().unwrap_or(MAX_SCHEDULE_TIMEOUT);
        self.wait_in(bindings::TASK_KILLABLE, timeout, done)
    }

    /// Waits until `done`, which must be sure to come soon.
    pub(crate) fn wait(&self, done: impl FnMut() -> bool) {
        self.wait_in(bindings::TASK_UNINTERRUPTIBLE, MAX_SCHEDULE_TIMEOUT, done);
    }

    fn wait_in(&self, state: u32, timeout: c_long, mut done: impl FnMut() -> bool) -> Waited {
        let entry = Opaque::<bindings::wait_queue_entry>::uninit();
        let mut left = timeout;
        // SAFETY: `entry` isn't moved and leaves the queue before it goes out of scope; the
        // queue is initialized. This is ___wait_event() of include/linux/wait.h.
        unsafe {
            bindings::init_wait_entry(entry.get(), 0);
            let waited = loop {
                let signal =
                    bindings::prepare_to_wait_event(self.as_raw(), entry.get(), state as c_int);
                if done() {
                    break Waited::Done;
                }
                if signal != 0 {
                    break Waited::Killed;
                }
                if left == 0 {
                    break Waited::TimedOut;
                }
                left = bindings::schedule_timeout(left);
            };
            bindings::finish_wait(self.as_raw(), entry.get());
            waited
        }
    }
}

/// Waits until `done`, for at most `timeout_ms`. `done` looks at `var`, whose changes are told
/// by [`wake_var`]. For variables that live for ever, as a wait queue can't without a pin.
pub(crate) fn wait_var<T>(var: &'static T, timeout_ms: u32, done: impl FnMut() -> bool) -> Waited {
    // SAFETY: gives one of the kernel's own initialized queues, chosen by the address.
    let queue = unsafe { bindings::__var_waitqueue(core::ptr::from_ref(var).cast_mut().cast()) };
    // SAFETY: `WaitQueue` is a transparent wrapper. Others' entries in the queue are woken by
    // the key that they wait for; ours by any.
    let queue = unsafe { &*queue.cast::<WaitQueue>() };
    let timeout = msecs_to_jiffies(timeout_ms);
    let timeout = timeout.try_into().unwrap_or(MAX_SCHEDULE_TIMEOUT);
    queue.wait_in(bindings::TASK_UNINTERRUPTIBLE, timeout, done)
}

/// Lets those who wait in [`wait_var`] for `var` look again.
pub(crate) fn wake_var<T>(var: &'static T) {
    // SAFETY: only the address is used.
    unsafe { bindings::wake_up_var(core::ptr::from_ref(var).cast_mut().cast()) };
}
