// SPDX-License-Identifier: GPL-2.0-only
//! The controller's state, and what can be asked of the device through it.

use crate::lookout::Lookout;
use crate::port::{NoAnswer, Port, PortRing};
use crate::sys::eopnotsupp;
use crate::sys::ticker::Ticker;
use core::sync::atomic::{AtomicI64, Ordering};
use dk_ring::{Failure, Request, SubmitError, Ticket};
use kernel::prelude::*;
use kernel::sync::Arc;
use kernel::time::{msecs_to_jiffies, Instant, Jiffies, Monotonic};

/// The controller. Everything that user space asks of the device goes through it.
pub(crate) struct Controller {
    timeout: Jiffies,
    timeout_ms: u32,
    /// When there was none to come: the time at which the device was started.
    started: Instant<Monotonic>,
    /// When the device gave its last answer, in milliseconds since `started`: what it was last
    /// seen doing, for the message about an answer that doesn't come.
    last_answer_ms: AtomicI64,
    port: Arc<Port>,
    lookout: Arc<Ticker<Lookout>>,
}

impl Controller {
    pub(crate) fn new(port: Arc<Port>, lookout: Arc<Ticker<Lookout>>, timeout_ms: u32) -> Self {
        Self {
            timeout: msecs_to_jiffies(timeout_ms),
            timeout_ms,
            started: Instant::now(),
            last_answer_ms: AtomicI64::new(0),
            port,
            lookout,
        }
    }

    /// Asks the device for its id, and only wants to know that it answers.
    pub(crate) fn identify(&self) -> Result {
        let mut id = [0; dk_abi::ID_LEN];
        self.ask_request("the device's id", Request::GetId, &mut id, || false)?;
        Ok(())
    }

    /// Reads a knob.
    pub(crate) fn knob_get(&self, knob: u64) -> Result<u64> {
        let mut value = [0; dk_abi::KNOB_VALUE_LEN];
        let request = Request::KnobGet { knob };
        self.ask_request("a knob's value", request, &mut value, || false)?;
        Ok(u64::from_le_bytes(value))
    }

    /// Sets a knob.
    pub(crate) fn knob_set(&self, knob: u64, value: u64) -> Result {
        let request = Request::KnobSet { knob, value };
        self.ask_request("a knob's setting", request, &mut [], || false)?;
        Ok(())
    }

    /// Reads sectors. `out` is a multiple of a sector long. Ends early when `cancelled` says
    /// so after [`Port::wake`].
    pub(crate) fn read(&self, sector: u64, out: &mut [u8], cancelled: &dyn Fn() -> bool) -> Result {
        let len = out.len();
        let request = Request::Read { sector, len };
        self.ask_request("sectors to be read", request, out, cancelled)?;
        Ok(())
    }

    /// Writes sectors. `data` is a multiple of a sector long.
    pub(crate) fn write(&self, sector: u64, data: &[u8], cancelled: impl Fn() -> bool) -> Result {
        let request = Request::Write { sector, data };
        self.ask_request("sectors to be written", request, &mut [], cancelled)?;
        Ok(())
    }

    fn ask_request(
        &self,
        awaited: &str,
        request: Request<'_>,
        out: &mut [u8],
        cancelled: impl Fn() -> bool,
    ) -> Result<usize> {
        self.ask(awaited, |ring| ring.submit(request), out, cancelled)
    }

    /// Asks the device by `submit` and waits, then notes what came of it.
    pub(crate) fn ask(
        &self,
        awaited: &str,
        submit: impl FnMut(&mut PortRing) -> Result<Ticket, SubmitError>,
        out: &mut [u8],
        cancelled: impl Fn() -> bool,
    ) -> Result<usize> {
        self.lookout.arm();
        let answer = self.port.ask(submit, out, self.timeout, cancelled);
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
