// SPDX-License-Identifier: GPL-2.0-only
//! The way to the device and back: the ring, its lock, its interrupt, and waiting.
//!
//! The interrupt handler only acknowledges and wakes. Whoever waits looks into the ring
//! himself, takes all answers out of it, and waits on if his own wasn't there. So the ring
//! needs a lock that interrupts don't take.

use crate::rules;
use crate::sys::hal::KernelHal;
use crate::sys::irq::Handler;
use crate::sys::pci::{Function, Mmio};
use crate::sys::wait::{WaitQueue, Waited};
use dk_ring::pci::{Layout, ModernTransport};
use dk_ring::{Failure, Ring, SubmitError, Ticket};
use kernel::prelude::*;
use kernel::sync::{new_spinlock, Arc, SpinLock};
use kernel::time::Jiffies;
use kernel::{device, pci};
use virtio_drivers::transport::DeviceType;

/// The ring of our device.
pub(crate) type PortRing = Ring<KernelHal, ModernTransport<Mmio>>;

/// The way to the device.
#[pin_data]
pub(crate) struct Port {
    #[pin]
    answers: WaitQueue,
    #[pin]
    ring: SpinLock<PortRing>,
    capacity: u64,
    layout: Layout,
    mmio: Mmio,
}

/// Why a request has no answer.
pub(crate) enum NoAnswer {
    /// The deadline passed. The request is the ring's until the device answers or is reset.
    TimedOut,
    /// The waiter was told to stop waiting.
    Cancelled,
    /// The waiter's process is being killed.
    Killed,
    /// The device broke the ring's protocol, or is stopped.
    Dead,
    /// The request can't be sent as it is.
    BadLength,
    /// The device answered, but not with success.
    Failed(Failure),
}

impl Port {
    /// Starts the device.
    pub(crate) fn open(
        pdev: &pci::Device<device::Core<'_>>,
        function: Arc<Function>,
    ) -> Result<Arc<Self>> {
        let layout = Layout::find(|offset| function.config_dword(offset)).map_err(|error| {
            dev_err!(pdev, "can't drive this device: {}\n", Text(&error));
            ENODEV
        })?;
        let mmio = Function::map(function, layout.bar)?;
        let transport = ModernTransport::new(mmio.clone(), layout, DeviceType::Block);
        let ring = Ring::new(transport).map_err(|error| {
            dev_err!(pdev, "can't start the device: {}\n", Text(&error));
            EIO
        })?;
        Arc::pin_init(
            pin_init!(Self {
                answers <- WaitQueue::new(),
                capacity: ring.capacity(),
                ring <- new_spinlock!(ring),
                layout,
                mmio,
            }),
            GFP_KERNEL,
        )
    }

    /// The disk's size in bytes.
    pub(crate) fn size(&self) -> u64 {
        self.capacity.saturating_mul(dk_abi::SECTOR_SIZE as u64)
    }

    /// The ring.
    pub(crate) fn ring(&self) -> &SpinLock<PortRing> {
        &self.ring
    }

    /// Sends a request by `submit` and waits for its answer, for at most `timeout`, or until
    /// `cancelled` says so after a [`Port::wake`]. Copies what the device returned to `out`.
    pub(crate) fn ask(
        &self,
        mut submit: impl FnMut(&mut PortRing) -> Result<Ticket, SubmitError>,
        out: &mut [u8],
        timeout: Jiffies,
        cancelled: impl Fn() -> bool,
    ) -> Result<usize, NoAnswer> {
        let mut ticket: Option<Ticket> = None;
        let mut refused = None;
        let waited = self.answers.wait_killable(timeout, || {
            let mut ring = self.ring.lock();
            if ring.reap() > 0 {
                // Somebody else's answer may be among them.
                self.answers.wake_all();
            }
            match &ticket {
                Some(ticket) => ring.answered(ticket) || ring.dead() || cancelled(),
                // Sent from here, so that a full ring is waited for in the same way.
                None => match submit(&mut ring) {
                    Ok(sent) => {
                        ticket = Some(sent);
                        cancelled()
                    }
                    Err(SubmitError::Full) => cancelled(),
                    Err(error) => {
                        refused = Some(error);
                        true
                    }
                },
            }
        });
        let Some(ticket) = ticket else {
            return Err(match (refused, waited) {
                (Some(SubmitError::BadLength(_)), _) => NoAnswer::BadLength,
                (Some(_), _) => NoAnswer::Dead,
                (None, Waited::Done) => NoAnswer::Cancelled,
                (None, Waited::TimedOut) => NoAnswer::TimedOut,
                (None, Waited::Killed) => NoAnswer::Killed,
            });
        };
        let mut ring = self.ring.lock();
        if ring.answered(&ticket) {
            let answer = ring.collect(ticket, out).map_err(NoAnswer::Failed);
            if ring.free_slots() == 1 {
                // The ring was full: somebody may wait for the slot.
                self.answers.wake_all();
            }
            return answer;
        }
        ring.abandon(ticket);
        Err(match waited {
            Waited::TimedOut => NoAnswer::TimedOut,
            Waited::Killed => NoAnswer::Killed,
            Waited::Done if ring.dead() => NoAnswer::Dead,
            Waited::Done => NoAnswer::Cancelled,
        })
    }

    /// Looks into the ring for those who wait. Says whether any still do.
    pub(crate) fn look(&self) -> bool {
        let mut ring = self.ring.lock();
        if ring.reap() > 0 {
            self.answers.wake_all();
        }
        ring.awaited()
    }

    /// Lets all waiters look again.
    pub(crate) fn wake(&self) {
        self.answers.wake_all();
    }
}

impl Handler for Port {
    fn interrupt(&self) -> bool {
        let pending = !self.layout.take_interrupt(&self.mmio).is_empty();
        if pending {
            self.answers.wake_all();
        }
        pending
    }
}

/// Resets a device: it leaves the ring alone, and interrupts no more.
pub(crate) fn reset(port: &Port) {
    if let Err(error) = port.ring.lock().stop() {
        pr_err!("{}; the ring's memory is kept\n", Text(&error));
    }
}

/// The device runs. Dropped, it is reset.
pub(crate) struct Running(Arc<Port>);

impl Running {
    pub(crate) fn new(port: Arc<Port>) -> Self {
        Self(port)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        (rules::get().reset)(&self.0);
    }
}

/// A value of core's `Display` as the kernel's.
struct Text<'a, T>(&'a T);

impl<T: core::fmt::Display> kernel::fmt::Display for Text<'_, T> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        core::fmt::Display::fmt(self.0, f)
    }
}
