// SPDX-License-Identifier: GPL-2.0-only
//! A shared interrupt line.
//!
//! The kernel crate's registration is bound to devres, so it would end at a point of the
//! unbind that isn't ours to choose. Ours ends where [`crate::probe::Parts`] drops it.

use kernel::bindings;
use kernel::error::to_result;
use kernel::prelude::*;
use kernel::sync::Arc;

/// What handles an interrupt.
pub(crate) trait Handler: Send + Sync {
    /// Called in interrupt context, also for interrupts of other devices on the line. Says
    /// whether it was ours.
    fn interrupt(&self) -> bool;
}

/// A handler on a line. Dropped, the handler runs no more.
pub(crate) struct Interrupt<T: Handler> {
    // In this order: the handler goes when it is off the line.
    pub(crate) line: Line,
    _handler: Arc<T>,
}

impl<T: Handler> Interrupt<T> {
    /// Puts `handler` on the line.
    pub(crate) fn request(irq: u32, name: &'static CStr, handler: Arc<T>) -> Result<Self> {
        let cookie = Arc::as_ptr(&handler).cast_mut().cast();
        // SAFETY: the cookie stays valid until free_irq(): we hold the Arc. `trampoline` takes
        // it as what it is. The name lives for ever.
        to_result(unsafe {
            bindings::request_irq(
                irq,
                Some(trampoline::<T>),
                bindings::IRQF_SHARED as usize,
                name.as_char_ptr(),
                cookie,
            )
        })?;
        let line = Line { irq, cookie };
        Ok(Self {
            line,
            _handler: handler,
        })
    }
}

/// A place on a line. Dropped, it is given up, which waits for a handler that runs.
pub(crate) struct Line {
    irq: u32,
    cookie: *mut c_void,
}

// SAFETY: the cookie is only passed back to where it came from, by any thread.
unsafe impl Send for Line {}

impl Drop for Line {
    fn drop(&mut self) {
        // SAFETY: requested with this number and cookie, and freed once.
        unsafe { bindings::free_irq(self.irq, self.cookie) };
    }
}

/// # Safety
/// `cookie` points to a `T` that outlives the registration.
unsafe extern "C" fn trampoline<T: Handler>(_irq: c_int, cookie: *mut c_void) -> c_uint {
    // SAFETY: by this function's contract, which `Interrupt` keeps.
    match unsafe { &*cookie.cast::<T>() }.interrupt() {
        true => bindings::irqreturn_IRQ_HANDLED,
        false => bindings::irqreturn_IRQ_NONE,
    }
}
