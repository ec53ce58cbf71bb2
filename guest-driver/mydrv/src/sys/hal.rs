// SPDX-License-Identifier: GPL-2.0-only
//! virtio-drivers' Hal: memory that the device can reach.
//!
//! A virtio device without `VIRTIO_F_ACCESS_PLATFORM` takes physical addresses, whatever IOMMU
//! there is, as drivers/virtio's own rings do. All of it is pages of the linear map, never a
//! stack.

use core::ptr::NonNull;
use kernel::bindings;
use virtio_drivers::{BufferDirection, Hal, PhysAddr, PAGE_SIZE};

/// The kernel's memory.
pub(crate) enum KernelHal {}

fn paddr(vaddr: NonNull<u8>) -> PhysAddr {
    // SAFETY: walks the page tables; any mapped kernel address will do.
    unsafe { bindings::slow_virt_to_phys(vaddr.as_ptr().cast()) }
}

// SAFETY: see each method.
unsafe impl Hal for KernelHal {
    // Whole zeroed pages of its own, physically contiguous; paddr 0 says that there are none.
    fn dma_alloc(pages: usize, _direction: BufferDirection) -> (PhysAddr, NonNull<u8>) {
        let flags = bindings::GFP_KERNEL | bindings::__GFP_ZERO;
        // SAFETY: no preconditions beyond a context that may sleep, which probe is.
        let vaddr = unsafe { bindings::alloc_pages_exact_noprof(pages * PAGE_SIZE, flags) };
        match NonNull::new(vaddr.cast()) {
            Some(vaddr) => (paddr(vaddr), vaddr),
            None => (0, NonNull::dangling()),
        }
    }

    unsafe fn dma_dealloc(_paddr: PhysAddr, vaddr: NonNull<u8>, pages: usize) -> i32 {
        // SAFETY: from `dma_alloc` with as many pages, and freed once (caller).
        unsafe { bindings::free_pages_exact(vaddr.as_ptr().cast(), pages * PAGE_SIZE) };
        0
    }

    unsafe fn mmio_phys_to_virt(_paddr: PhysAddr, _size: usize) -> NonNull<u8> {
        // Only virtio-drivers' own PCI transport asks, and we don't use it.
        unreachable!("mydrv maps its registers itself")
    }

    unsafe fn share(buffer: NonNull<[u8]>, _direction: BufferDirection) -> PhysAddr {
        // x86's caches are coherent: an address is all there is to share.
        paddr(buffer.cast())
    }

    unsafe fn unshare(_paddr: PhysAddr, _buffer: NonNull<[u8]>, _direction: BufferDirection) {}
}
