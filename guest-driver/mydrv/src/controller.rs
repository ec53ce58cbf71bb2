// SPDX-License-Identifier: GPL-2.0-only
//! The controller's state, and what can be asked of the device through it.

use crate::port::{NoAnswer, Port};
use crate::sys::eopnotsupp;
use core::sync::atomic::{AtomicI64, Ordering};
use dk_ring::{Failure, Request};
use kernel::prelude::*;
use kernel::sync::Arc;
use kernel::time::{msecs_to_jiffies, Instant, Jiffies, Monotonic};

/// The controller. Everything that user space asks of the device goes through it.
pub(crate) struct Controller {
    timeout: Jiffies,
    timeout_ms: u32,
    capacity: u64,
    /// When there was none to come: the time at which the device was started.
    started: Instant<Monotonic>,
    /// When the device gave its last answer, in milliseconds since `started`: what it was last
    /// seen doing, for the message about an answer that doesn't come.
    last_answer_ms: AtomicI64,
    port: Arc<Port>,
}

impl Controller {
    pub(crate) fn new(port: Arc<Port>, timeout_ms: u32) -> Result<Pin<KBox<Self>>> {
        KBox::pin(
            Self {
                timeout: msecs_to_jiffies(timeout_ms),
                timeout_ms,
                capacity: port.capacity(),
                started: Instant::now(),
                last_answer_ms: AtomicI64::new(0),
                port,
            },
            GFP_KERNEL,
        )
        .map_err(Into::into)
    }

    /// The way to the device.
    pub(crate) fn port(&self) -> &Arc<Port> {
        &self.port
    }

    /// The disk's size in bytes.
    pub(crate) fn size(&self) -> u64 {
        self.capacity.saturating_mul(dk_abi::SECTOR_SIZE as u64)
    }

    /// Reads a knob.
    pub(crate) fn knob_get(&self, knob: u64) -> Result<u64> {
        let mut value = [0; dk_abi::KNOB_VALUE_LEN];
        let request = Request::KnobGet { knob };
        self.ask("a knob's value", request, &mut value, || false)?;
        Ok(u64::from_le_bytes(value))
    }

    /// Sets a knob.
    pub(crate) fn knob_set(&self, knob: u64, value: u64) -> Result {
        let request = Request::KnobSet { knob, value };
        self.ask("a knob's setting", request, &mut [], || false)?;
        Ok(())
    }

    /// Reads sectors. `out` is a multiple of a sector long. Ends early when `cancelled` says
    /// so after [`Port::wake`].
    pub(crate) fn read(&self, sector: u64, out: &mut [u8], cancelled: impl Fn() -> bool) -> Result {
        let len = out.len();
        let request = Request::Read { sector, len };
        self.ask("sectors to be read", request, out, cancelled)?;
        Ok(())
    }

    /// Writes sectors. `data` is a multiple of a sector long.
    pub(crate) fn write(&self, sector: u64, data: &[u8], cancelled: impl Fn() -> bool) -> Result {
        let request = Request::Write { sector, data };
        self.ask("sectors to be written", request, &mut [], cancelled)?;
        Ok(())
    }

    /// Asks the device and waits, then notes what came of it.
    fn ask(
        &self,
        awaited: &str,
        request: Request<'_>,
        out: &mut [u8],
        cancelled: impl Fn() -> bool,
    ) -> Result<usize> {
        let answer = self.port.ask(request, out, self.timeout, cancelled);
        let now_ms = self.started.elapsed().as_millis();
        match answer {
            Ok(_) | Err(NoAnswer::Failed(_)) => {
                self.last_answer_ms.store(now_ms, Ordering::Relaxed);
            }
            Err(NoAnswer::TimedOut) => pr_warn!(
                "waited {} ms for {}; the device's last answer was {} ms ago\n",
                self.timeout_ms,
                awaited,
                now_ms - self.last_answer_ms.load(Ordering::Relaxed)
            ),
            Err(_) => {}
        }
        answer.map_err(|error| match error {
            NoAnswer::TimedOut => ETIMEDOUT,
            NoAnswer::Cancelled => ENODEV,
            NoAnswer::Killed => EINTR,
            NoAnswer::BadLength => EINVAL,
            NoAnswer::Failed(Failure::Unsupported) => eopnotsupp(),
            NoAnswer::Dead | NoAnswer::Failed(_) => EIO,
        })
    }
}
