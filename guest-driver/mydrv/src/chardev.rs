// SPDX-License-Identifier: GPL-2.0-only
//! /dev/dk0: the disk's bytes.
//!
//! Reads begin and end anywhere; writes are of whole sectors, at a sector. One call moves at
//! most one request's worth, so what is read or written can be less than what was asked for.
//! User memory is copied to and from outside of the time in which the controller is in use: a
//! page fault must not hold up teardown.

use crate::dk0::Dk0;
use crate::rules;
use crate::sys::chardev::{self, PollTable};
use dk_abi::SECTOR_SIZE;
use dk_ring::MAX_DATA;
use kernel::prelude::*;
use kernel::uaccess::{UserSliceReader, UserSliceWriter};

/// `read(2)` at `pos`: the number of bytes, 0 at the disk's end.
pub(crate) fn read(dk0: &Dk0, mut to: UserSliceWriter, pos: u64) -> Result<usize> {
    let data = dk0.data();
    let within = (pos % SECTOR_SIZE as u64) as usize;
    let left = data.size().saturating_sub(pos);
    let len = to
        .len()
        .min(usize::try_from(left).unwrap_or(usize::MAX))
        .min(MAX_DATA - within);
    if len == 0 {
        return if data.is_gone() { Err(ENODEV) } else { Ok(0) };
    }
    let whole = (within + len).next_multiple_of(SECTOR_SIZE);
    let mut sectors = KVec::from_elem(0u8, whole, GFP_KERNEL)?;
    let controller = data.controller()?;
    let sector = pos / SECTOR_SIZE as u64;
    (rules::get().read)(&controller, sector, &mut sectors, &|| data.is_gone())?;
    drop(controller);
    to.write_slice(&sectors[within..within + len])?;
    Ok(len)
}

/// `write(2)` at `pos`: the number of bytes. `ENOSPC` at the disk's end.
pub(crate) fn write(dk0: &Dk0, mut from: UserSliceReader, pos: u64) -> Result<usize> {
    let data = dk0.data();
    if pos % SECTOR_SIZE as u64 != 0 || from.len() % SECTOR_SIZE != 0 {
        return Err(EINVAL);
    }
    if data.is_gone() {
        return Err(ENODEV);
    }
    let left = data.size().saturating_sub(pos);
    let len = from
        .len()
        .min(usize::try_from(left).unwrap_or(usize::MAX))
        .min(MAX_DATA);
    if len == 0 {
        return if from.is_empty() { Ok(0) } else { Err(ENOSPC) };
    }
    let mut sectors = KVec::from_elem(0u8, len, GFP_KERNEL)?;
    from.read_slice(&mut sectors)?;
    data.controller()?
        .write(pos / SECTOR_SIZE as u64, &sectors, || data.is_gone())?;
    Ok(len)
}

/// `poll(2)`: always ready, until dk0 is gone.
pub(crate) fn poll(dk0: &Dk0, table: PollTable<'_>) -> u32 {
    table.wait_on((rules::get().poll_queue)(dk0.data()));
    match dk0.data().is_gone() {
        true => chardev::GONE,
        false => chardev::READY,
    }
}
