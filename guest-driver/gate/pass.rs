// SPDX-License-Identifier: GPL-2.0-only
//! What becomes of a call that comes in through the trampoline.

use crate::func;
use crate::gate;
use crate::hold;
use crate::sys::{peek, Context, Current};
use crate::target;
use crate::trail;
use core::sync::atomic::{AtomicI32, Ordering};

/// More than zero while calls are to be looked at. The trampoline reads it.
pub(crate) static LIVE: AtomicI32 = AtomicI32::new(0);

/// Frames that are searched for a module under test: its own calls, and what the kernel's
/// functions call for it.
const FRAMES: usize = 6;

/// A call, and who makes it.
pub(crate) struct Call {
    pub(crate) current: Current,
    pub(crate) context: Context,
    /// A module under test is among the callers.
    pub(crate) own: bool,
    /// It comes on the thread's stack, with room above for a copy of stack arguments.
    pub(crate) deep: bool,
}

impl Call {
    fn new(parent: usize, frame: usize) -> Self {
        let current = Current::get();
        let stack = current.stack();
        Self {
            current,
            context: Context::get(),
            own: is_own(parent, frame, stack),
            deep: stack.0 <= frame && frame + (crate::tramp::STACK_WORDS + 4) * 8 < stack.1,
        }
    }
}

/// Whether a return address on the stack leads to a module under test. `frame` is the caller's
/// %rbp: with frame pointers, where the next frame is.
fn is_own(parent: usize, frame: usize, stack: (usize, usize)) -> bool {
    if target::owns(parent) {
        return true;
    }
    if cfg!(not(CONFIG_FRAME_POINTER)) {
        return false;
    }
    let mut frame = frame;
    for _ in 0..FRAMES {
        if frame % 8 != 0 || frame < stack.0 || frame + 16 > stack.1 {
            return false;
        }
        if target::owns(peek(frame + 8)) {
            return true;
        }
        let next = peek(frame);
        if next <= frame {
            return false;
        }
        frame = next;
    }
    false
}

/// A function is called: `after` is the address in it to go on at, `parent` its return address,
/// `frame` its caller's %rbp. Gives the gates, a bit each, that want the thread at the return.
pub(crate) extern "C" fn knobgate_entered(after: usize, parent: usize, frame: usize) -> u64 {
    /// A call instruction's length.
    const CALL: usize = 5;
    let Some(func) = func::find(after.wrapping_sub(CALL)) else {
        return 0;
    };
    let armed = func.armed.load(Ordering::Acquire);
    let noted = trail::is_on();
    if armed == 0 && !noted {
        return 0;
    }
    let call = Call::new(parent, frame);
    if noted {
        trail::note(func.number(), &call);
    }
    let mut at_return = 0;
    for number in gate::bits(armed) {
        let gate = &gate::GATES[number];
        if !gate.is_passed_by(&call) {
            continue;
        }
        match gate.at_return() {
            true if gate.claim(&call) => at_return |= 1 << number,
            true => {}
            false => hold::hold(number, &call),
        }
    }
    at_return
}

/// The function has returned to the trampoline, and gates want the thread.
pub(crate) extern "C" fn knobgate_returned(gates: u64) {
    // Not that of the entry: the function may have changed what it runs in.
    let call = Call {
        current: Current::get(),
        context: Context::get(),
        own: false,
        deep: true,
    };
    for number in gate::bits(gates) {
        if gate::GATES[number].is_claimed_by(&call) {
            hold::hold(number, &call);
        }
        // SAFETY: taken by `claim`; exit waits for who is in the trampoline.
        unsafe { crate::sys::give_count() };
    }
}
