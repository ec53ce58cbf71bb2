// SPDX-License-Identifier: GPL-2.0-only
//! `late-answer`: a read's buffer is on the reader's stack, and is given up with the read.
//!
//! The device knows the address. When the deadline passes the reader returns, and the stack
//! frame is the next call's; the device answers after all, and writes a sector into it. KASAN
//! doesn't see what a device writes.
//!
//! What should be seen, with `drained`, when a read of /dev/dk0 is held beyond `timeout` and
//! answered while its thread is deep in another call: return addresses on its stack are
//! overwritten, and it faults where it returns.

use crate::controller::Controller;
use crate::rules::Rules;
use core::ptr::NonNull;
use dk_abi::SECTOR_SIZE;
use dk_ring::Request;
use kernel::prelude::*;

pub(crate) fn plant(rules: &mut Rules) {
    rules.read = read;
}

/// Aligned, so that it is in one page: the stack's pages needn't be next to each other.
#[repr(align(512))]
struct Sector {
    bytes: [u8; SECTOR_SIZE],
}

fn read(
    controller: &Controller,
    first: u64,
    out: &mut [u8],
    cancelled: &dyn Fn() -> bool,
) -> Result {
    for (sector, out) in (first..).zip(out.chunks_exact_mut(SECTOR_SIZE)) {
        let mut buffer = Sector {
            bytes: [0; SECTOR_SIZE],
        };
        let lent = NonNull::from(&mut buffer.bytes).cast();
        let len = SECTOR_SIZE;
        controller.ask(
            "a sector to be read",
            // SAFETY: the buffer goes with this frame, answered or not, which is the mistake.
            |ring| unsafe { ring.submit_lent(Request::Read { sector, len }, lent) },
            out,
            cancelled,
        )?;
    }
    Ok(())
}
