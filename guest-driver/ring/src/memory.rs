// SPDX-License-Identifier: GPL-2.0-only
//! The slots' memory: what the ring shares with the device beside the virtqueue itself.
//!
//! One allocation: a control page with each slot's header and status byte, then a data page
//! for each slot. It is never on a stack, and never moves. A request may bring a data buffer of
//! its submitter's in place of the slot's.

use crate::request::Data;
use crate::ring::{MAX_DATA, SLOTS};
use core::marker::PhantomData;
use core::ptr::NonNull;
use core::slice;
use dk_abi::{HEADER_LEN, Header};
use virtio_drivers::{BufferDirection, Hal, PAGE_SIZE, PhysAddr};

/// Bytes of the control page that belong to one slot: a header, a status byte, and room so
/// that no two slots share a cache line.
const CONTROL_LEN: usize = 64;
const PAGES: usize = 1 + SLOTS * MAX_DATA / PAGE_SIZE;
const _: () = assert!(CONTROL_LEN > HEADER_LEN && SLOTS * CONTROL_LEN <= PAGE_SIZE);

/// Status byte of a request that the device hasn't answered: no status of virtio-blk.
pub(crate) const NO_STATUS: u8 = 0xff;

/// The memory of all slots. Freed on drop: its owner sees to it that the device is done.
pub(crate) struct Memory<H: Hal> {
    paddr: PhysAddr,
    base: NonNull<u8>,
    /// The submitter's data buffer, where the slot's request has one.
    lent: [Option<NonNull<u8>>; SLOTS],
    hal: PhantomData<H>,
}

// SAFETY: the memory belongs to this value alone, or was lent to it, and isn't bound to a thread.
unsafe impl<H: Hal> Send for Memory<H> {}

impl<H: Hal> Memory<H> {
    /// Allocates it, or `None` where the Hal has no memory.
    pub(crate) fn new() -> Option<Self> {
        let (paddr, base) = H::dma_alloc(PAGES, BufferDirection::Both);
        // Not `then_some`, which would make and drop one where there is no memory.
        (paddr != 0).then(|| Self {
            paddr,
            base,
            lent: [None; SLOTS],
            hal: PhantomData,
        })
    }

    fn at(&self, offset: usize) -> NonNull<u8> {
        debug_assert!(offset < PAGES * PAGE_SIZE);
        // SAFETY: callers stay within the allocation: slots are below SLOTS, and the layout
        // above has a control area and MAX_DATA bytes of data for each.
        unsafe { self.base.add(offset) }
    }

    fn header(&self, slot: usize) -> NonNull<u8> {
        self.at(slot * CONTROL_LEN)
    }

    fn status(&self, slot: usize) -> NonNull<u8> {
        self.at(slot * CONTROL_LEN + HEADER_LEN)
    }

    fn data(&self, slot: usize) -> NonNull<u8> {
        self.lent[slot].unwrap_or_else(|| self.at(PAGE_SIZE + slot * MAX_DATA))
    }

    /// Prepares a slot for a request with `len` bytes of data, which `fill` writes: in the slot's
    /// own buffer, or one that is `lent`.
    ///
    /// # Safety
    /// The device doesn't own the slot: no chain of it is in the virtqueue. What is lent is `len`
    /// bytes, and the slot's alone until its next request.
    pub(crate) unsafe fn prepare(
        &mut self,
        slot: usize,
        header: Header,
        len: usize,
        lent: Option<NonNull<u8>>,
        fill: impl FnOnce(&mut [u8]),
    ) {
        assert!(slot < SLOTS && len <= MAX_DATA);
        self.lent[slot] = lent;
        // SAFETY: the areas are within the allocation or lent, and only we use them: the device
        // doesn't own the slot (caller), and `self` is borrowed mutably.
        unsafe {
            self.header(slot)
                .cast::<[u8; HEADER_LEN]>()
                .write_unaligned(header.to_bytes());
            self.status(slot).write(NO_STATUS);
            fill(slice::from_raw_parts_mut(self.data(slot).as_ptr(), len));
        }
    }

    /// The status byte and the first `len` bytes of data that the device left.
    ///
    /// # Safety
    /// The device doesn't own the slot: its chain has been popped.
    pub(crate) unsafe fn answer(&self, slot: usize, len: usize) -> (u8, &[u8]) {
        assert!(slot < SLOTS && len <= MAX_DATA);
        // SAFETY: within the allocation or lent, initialized (by the allocation or its lender),
        // and no longer written by the device (caller) nor by us while `self` is borrowed.
        unsafe {
            (
                self.status(slot).read(),
                slice::from_raw_parts(self.data(slot).as_ptr(), len),
            )
        }
    }

    /// Calls `f` with the buffers of the slot's chain as `VirtQueue::add` and `pop_used` want
    /// them: device-readable ones, then device-writable ones. The same shape gives the same
    /// buffers.
    ///
    /// # Safety
    /// `f` doesn't read or write through the slices while the device owns the slot, and
    /// doesn't keep them.
    pub(crate) unsafe fn with_chain<R>(
        &mut self,
        slot: usize,
        shape: Data,
        f: impl for<'b> FnOnce(&'b [&'b [u8]], &'b mut [&'b mut [u8]]) -> R,
    ) -> R {
        assert!(slot < SLOTS && shape.len() <= MAX_DATA);
        // SAFETY: three disjoint areas, of which the second may be lent and the others are within
        // the allocation; `self` is borrowed mutably, and the caller promises not to touch them while the device does.
        let (header, data, status) = unsafe {
            (
                slice::from_raw_parts(self.header(slot).as_ptr(), HEADER_LEN),
                slice::from_raw_parts_mut(self.data(slot).as_ptr(), shape.len()),
                slice::from_raw_parts_mut(self.status(slot).as_ptr(), 1),
            )
        };
        match shape {
            Data::ToDevice(_) => f(&[header, data], &mut [status]),
            Data::FromDevice(_) => f(&[header], &mut [data, status]),
        }
    }
}

impl<H: Hal> Drop for Memory<H> {
    fn drop(&mut self) {
        // SAFETY: from `dma_alloc` of the same Hal with the same number of pages, freed once.
        unsafe { H::dma_dealloc(self.paddr, self.base, PAGES) };
    }
}
