// SPDX-License-Identifier: GPL-2.0-only
//! `poll-left`: pollers of /dev/dk0 wait on a queue that goes with the binding, not with dk0.
//!
//! An open file outlives an unbind, and so do the entries that poll and epoll put into a queue:
//! waking all who wait, as teardown does, doesn't take them out of it. They are taken out by
//! their owners, later: a poller who wakes, or the close of a file that epoll watches.
//!
//! What should be seen, with `drained`, after an unbind with /dev/dk0 polled: KASAN reports a
//! slab-use-after-free in `remove_wait_queue`.

use crate::dk0::Data;
use crate::probe::Parts;
use crate::rules::Rules;
use crate::sys::wait::WaitQueue;
use core::ptr::null_mut;
use core::sync::atomic::{AtomicPtr, Ordering};
use kernel::prelude::*;
use kernel::{device, pci};

pub(crate) fn plant(rules: &mut Rules) {
    rules.bring_up = bring_up;
    rules.poll_queue = queue;
    rules.teardown = teardown;
}

/// The binding's, of which there is one.
static QUEUE: AtomicPtr<WaitQueue> = AtomicPtr::new(null_mut());

fn bring_up(pdev: &pci::Device<device::Core<'_>>) -> Result<Parts> {
    let queue = KBox::pin_init(WaitQueue::new(), GFP_KERNEL)?;
    // SAFETY: it isn't moved until it is pinned again.
    let queue = KBox::into_raw(unsafe { Pin::into_inner_unchecked(queue) });
    QUEUE.store(queue, Ordering::Release);
    Parts::bring_up(pdev).inspect_err(|_| free())
}

fn queue(_: &Data) -> &WaitQueue {
    // SAFETY: there from before dk0 is until it was torn down. That pollers use it for longer is
    // the mistake.
    unsafe { &*QUEUE.load(Ordering::Acquire) }
}

fn teardown(parts: Parts) {
    parts.tear_down();
    free();
}

fn free() {
    // SAFETY: from `bring_up`, and freed once.
    let queue = unsafe { KBox::from_raw(QUEUE.load(Ordering::Acquire)) };
    queue.wake_all();
}
