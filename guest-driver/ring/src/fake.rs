// SPDX-License-Identifier: GPL-2.0-only
//! A knob device in memory, down to its PCI registers, and a Hal of ordinary memory.
//!
//! [`FakeDevice`] does as virtio 1.2 says until it is told otherwise: [`FakeDevice::serve`]
//! answers what was asked, in order. A test that wants another order, a late answer or a broken
//! device takes requests by [`FakeDevice::take`] and answers them by [`FakeDevice::answer`], or
//! writes to the used ring by [`FakeDevice::push_used`].
//!
//! It is a witness, too: it panics where the driver points it at memory that isn't shared.

use crate::pci::{Layout, ModernTransport, Registers};
use crate::{InitError, Ring};
use core::cell::Cell;
use core::ptr::NonNull;
use dk_abi::{HEADER_LEN, Header, KNOB_VALUE_LEN, KNOBS, SECTOR_SIZE};
use std::alloc;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::vec::Vec;
use std::{thread_local, vec};
use virtio_drivers::transport::DeviceType;
use virtio_drivers::{BufferDirection, Hal, PAGE_SIZE, PhysAddr};

/// Sectors of the fake's disk.
pub const SECTORS: u64 = 64;
/// Entries of the largest queue that the fake takes.
pub const MAX_QUEUE_SIZE: u16 = 128;

/// `VIRTIO_F_VERSION_1`.
const VERSION_1: u64 = 1 << 32;
/// `VIRTQ_DESC_F_NEXT` and `VIRTQ_DESC_F_WRITE`.
const NEXT: u16 = 1;
const WRITE: u16 = 2;
/// Bits of the device status: `FEATURES_OK`, `DRIVER_OK`.
const FEATURES_OK: u8 = 8;
const DRIVER_OK: u8 = 4;

/// Memory of the test's own process, where physical addresses are addresses.
#[derive(Debug)]
pub enum FakeHal {}

/// Allocations that are shared with devices: address to length and serial number.
static SHARED: Mutex<BTreeMap<u64, (usize, u64)>> = Mutex::new(BTreeMap::new());

thread_local! {
    static ALLOWED: Cell<usize> = const { Cell::new(usize::MAX) };
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn pages(pages: usize) -> alloc::Layout {
    alloc::Layout::from_size_align(pages * PAGE_SIZE, PAGE_SIZE).expect("a few pages")
}

impl FakeHal {
    /// Lets `allocations` more succeed on this thread; those after it fail.
    pub fn fail_after(allocations: usize) {
        ALLOWED.set(allocations);
    }

    /// A number of the allocation that `paddr` lies in, used for no other; `None` once freed.
    pub fn allocation(paddr: u64) -> Option<u64> {
        let shared = lock(&SHARED);
        let (start, (len, serial)) = shared.range(..=paddr).next_back()?;
        (paddr - start < *len as u64).then_some(*serial)
    }

    /// Calls `f` with a pointer to memory that is shared now, and stays so meanwhile.
    fn with<R>(paddr: u64, len: usize, f: impl FnOnce(*mut u8) -> R) -> R {
        let shared = lock(&SHARED);
        let inside = shared
            .range(..=paddr)
            .next_back()
            .is_some_and(|(start, (size, _))| paddr - start + len as u64 <= *size as u64);
        assert!(
            inside,
            "the driver points the device at {len} bytes at {paddr:#x}, not shared"
        );
        f(core::ptr::with_exposed_provenance_mut(paddr as usize))
    }

    fn read(paddr: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        // SAFETY: shared memory of that length, which isn't freed during the call.
        Self::with(paddr, len, |from| unsafe {
            from.copy_to_nonoverlapping(bytes.as_mut_ptr(), len);
        });
        bytes
    }

    fn write(paddr: u64, bytes: &[u8]) {
        // SAFETY: as above; the driver doesn't look at what it gave to the device.
        Self::with(paddr, bytes.len(), |to| unsafe {
            to.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
        });
    }

    fn read_u16(paddr: u64) -> u16 {
        let bytes = Self::read(paddr, 2);
        u16::from_le_bytes([bytes[0], bytes[1]])
    }
}

// SAFETY: allocations are zeroed pages of their own, and stay until they are given back.
unsafe impl Hal for FakeHal {
    fn dma_alloc(count: usize, _direction: BufferDirection) -> (PhysAddr, NonNull<u8>) {
        static SERIAL: Mutex<u64> = Mutex::new(0);
        let Some(left) = ALLOWED.get().checked_sub(1) else {
            return (0, NonNull::dangling());
        };
        ALLOWED.set(left);
        // SAFETY: more than no bytes.
        let at = NonNull::new(unsafe { alloc::alloc_zeroed(pages(count)) }).expect("memory");
        let paddr = at.as_ptr().expose_provenance() as u64;
        let serial = {
            let mut serial = lock(&SERIAL);
            *serial += 1;
            *serial
        };
        lock(&SHARED).insert(paddr, (count * PAGE_SIZE, serial));
        (paddr, at)
    }

    unsafe fn dma_dealloc(paddr: PhysAddr, vaddr: NonNull<u8>, count: usize) -> i32 {
        let freed = lock(&SHARED).remove(&paddr);
        assert_eq!(
            freed.map(|(len, _)| len),
            Some(count * PAGE_SIZE),
            "freed as allocated"
        );
        // SAFETY: allocated with that layout, and freed once, as was just checked.
        unsafe { alloc::dealloc(vaddr.as_ptr(), pages(count)) };
        0
    }

    unsafe fn mmio_phys_to_virt(_paddr: PhysAddr, _size: usize) -> NonNull<u8> {
        unreachable!("the fake's registers aren't memory")
    }

    unsafe fn share(buffer: NonNull<[u8]>, _direction: BufferDirection) -> PhysAddr {
        buffer.cast::<u8>().as_ptr().expose_provenance() as u64
    }

    unsafe fn unshare(_paddr: PhysAddr, _buffer: NonNull<[u8]>, _direction: BufferDirection) {}
}

/// Where the fake keeps its registers in its BAR.
mod bar {
    pub(super) const NUMBER: u8 = 4;
    pub(super) const COMMON: usize = 0x000;
    pub(super) const ISR: usize = 0x100;
    pub(super) const DEVICE: usize = 0x200;
    pub(super) const NOTIFY: usize = 0x1000;
    pub(super) const MULTIPLIER: u8 = 4;
}

/// A request that the device has taken from the ring.
#[derive(Debug)]
pub struct Taken {
    /// What is asked.
    pub header: Header,
    /// The data that the driver sent.
    pub data: Vec<u8>,
    /// Bytes of data that the driver has room for.
    pub room: usize,
    head: u16,
    /// Address and length of the device-writable buffers, the status byte's the last.
    writable: Vec<(u64, usize)>,
    start: u64,
}

/// The device. Clones are the same device.
#[derive(Clone, Debug)]
pub struct FakeDevice(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    features: u64,
    refuses_features: bool,
    refuses_reset: bool,
    unsteady: bool,
    plugged: bool,
    max_queue_size: u16,
    disk: Vec<u8>,
    knobs: [u64; KNOBS],

    status: u8,
    feature_select: u32,
    queue_select: u16,
    queue: Queue,
    interrupt: u8,
    generation: u8,
    kicks: usize,
    /// Counts the resets, so that a request of before one isn't answered after it.
    start: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Queue {
    enabled: bool,
    size: u16,
    descriptors: u64,
    driver: u64,
    device: u64,
    seen: u16,
    used: u16,
}

impl Default for FakeDevice {
    fn default() -> Self {
        Self::new()
    }
}

impl FakeDevice {
    /// A device that does all right: a disk of [`SECTORS`] zeroed sectors, and knobs at 0.
    pub fn new() -> Self {
        Self(Arc::new(Mutex::new(State {
            features: VERSION_1,
            refuses_features: false,
            refuses_reset: false,
            unsteady: false,
            plugged: true,
            max_queue_size: MAX_QUEUE_SIZE,
            disk: vec![0; SECTORS as usize * SECTOR_SIZE],
            knobs: [0; KNOBS],
            status: 0,
            feature_select: 0,
            queue_select: 0,
            queue: Queue::default(),
            interrupt: 0,
            generation: 0,
            kicks: 0,
            start: 0,
        })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.0)
    }

    /// The aligned dword of config space at `offset`, laid out as QEMU does.
    pub fn config_dword(&self, offset: u8) -> u32 {
        let mut space = [0; 256];
        space[..4].copy_from_slice(&[0xf4, 0x1a, 0x42, 0x10]);
        space[6] = 1 << 4;
        space[0x34] = 0x98;
        // MSI-X first, which isn't ours to use; then virtio's.
        space[0x98..0x9c].copy_from_slice(&[0x11, 0x84, 0x01, 0x80]);
        let mut capability = |at: usize, next: u8, len: u8, kind: u8, offset: usize| {
            space[at..at + 5].copy_from_slice(&[0x09, next, len, kind, bar::NUMBER]);
            space[at + 8..at + 12].copy_from_slice(&(offset as u32).to_le_bytes());
        };
        capability(0x84, 0x70, 20, 5, 0);
        capability(0x70, 0x60, 20, 2, bar::NOTIFY);
        capability(0x60, 0x50, 16, 4, bar::DEVICE);
        capability(0x50, 0x40, 16, 3, bar::ISR);
        capability(0x40, 0x00, 16, 1, bar::COMMON);
        space[0x80] = bar::MULTIPLIER;
        let at = usize::from(offset & !3);
        u32::from_le_bytes([space[at], space[at + 1], space[at + 2], space[at + 3]])
    }

    /// The transport by which the driver reaches the device.
    pub fn transport(&self) -> ModernTransport<FakeRegisters> {
        let layout = Layout::find(|offset| self.config_dword(offset)).expect("a virtio device");
        ModernTransport::new(FakeRegisters(self.clone()), layout, DeviceType::Block)
    }

    /// A ring on this device.
    ///
    /// # Errors
    /// As [`Ring::new`].
    pub fn ring(&self) -> Result<Ring<FakeHal, ModernTransport<FakeRegisters>>, InitError> {
        Ring::new(self.transport())
    }

    /// Offers these features instead of `VIRTIO_F_VERSION_1`.
    pub fn offer(&self, features: u64) {
        self.state().features = features;
    }

    /// Takes back `FEATURES_OK` from now on.
    pub fn refuse_features(&self) {
        self.state().refuses_features = true;
    }

    /// Doesn't reset from now on, when it is told to.
    pub fn refuse_reset(&self) {
        self.state().refuses_reset = true;
    }

    /// Changes its configuration all the time from now on.
    pub fn unsteady(&self) {
        self.state().unsteady = true;
    }

    /// Has queues of so many entries at most.
    pub fn limit_queue(&self, entries: u16) {
        self.state().max_queue_size = entries;
    }

    /// Takes the device out: all its registers read as ones.
    pub fn unplug(&self) {
        self.state().plugged = false;
    }

    /// Whether the driver has started it, and not reset it since.
    pub fn running(&self) -> bool {
        self.state().status & DRIVER_OK != 0
    }

    /// Times that the driver has rung the bell.
    pub fn kicks(&self) -> usize {
        self.state().kicks
    }

    /// The status register.
    pub fn status(&self) -> u8 {
        self.state().status
    }

    /// A knob's value.
    pub fn knob(&self, knob: usize) -> u64 {
        self.state().knobs[knob]
    }

    /// The address of the descriptor table that the driver set up last.
    pub fn descriptors(&self) -> u64 {
        self.state().queue.descriptors
    }

    /// Takes the next request from the available ring.
    pub fn take(&self) -> Option<Taken> {
        self.state().take()
    }

    /// Answers a request: as much of `data` as the driver has room for, a status, a used ring
    /// entry, an interrupt. Says whether that could be done: not after a reset.
    pub fn answer(&self, taken: Taken, status: u8, data: &[u8]) -> bool {
        self.state().answer(taken, status, data)
    }

    /// Answers all requests that are available, as the knob device does. Returns how many.
    pub fn serve(&self) -> usize {
        let mut served = 0;
        while let Some(taken) = self.take() {
            let (status, data) = self.state().execute(&taken);
            self.answer(taken, status, &data);
            served += 1;
        }
        served
    }

    /// Puts an entry into the used ring, whatever it says.
    pub fn push_used(&self, id: u32) {
        self.state().push_used(id, 0);
    }

    /// Moves the used ring's index, whatever that makes of it.
    pub fn skip_used(&self, entries: u16) {
        let mut state = self.state();
        state.queue.used = state.queue.used.wrapping_add(entries);
        FakeHal::write(state.queue.device + 2, &state.queue.used.to_le_bytes());
    }

    /// Sets `VIRTQ_USED_F_NO_NOTIFY`, or clears it.
    pub fn suppress_kicks(&self, suppress: bool) {
        FakeHal::write(
            self.state().queue.device,
            &u16::from(suppress).to_le_bytes(),
        );
    }
}

impl State {
    fn reset(&mut self) {
        self.status = 0;
        self.queue = Queue::default();
        self.interrupt = 0;
        self.start += 1;
    }

    fn take(&mut self) -> Option<Taken> {
        let queue = &mut self.queue;
        if self.status & DRIVER_OK == 0 || queue.seen == FakeHal::read_u16(queue.driver + 2) {
            return None;
        }
        let slot = u64::from(queue.seen % queue.size);
        queue.seen = queue.seen.wrapping_add(1);
        let head = FakeHal::read_u16(queue.driver + 4 + 2 * slot);
        let (mut readable, mut writable) = (Vec::new(), Vec::new());
        let mut next = Some(head);
        while let Some(index) = next {
            let bytes = FakeHal::read(queue.descriptors + 16 * u64::from(index), 16);
            let half = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
            let addr = u64::from_le_bytes(bytes[..8].try_into().expect("eight bytes"));
            let len = u32::from_le_bytes(bytes[8..12].try_into().expect("four bytes")) as usize;
            let flags = half(12);
            match flags & WRITE {
                0 => {
                    assert!(writable.is_empty(), "readable buffers come first");
                    readable.extend(FakeHal::read(addr, len));
                }
                _ => writable.push((addr, len)),
            }
            next = (flags & NEXT != 0).then(|| half(14));
        }
        let data = readable.split_off(HEADER_LEN);
        let header = Header::from_bytes(readable.try_into().expect("a header's length"));
        assert_eq!(
            writable.last().map(|(_, len)| *len),
            Some(1),
            "a status byte is the last"
        );
        Some(Taken {
            header,
            data,
            room: writable.iter().map(|(_, len)| len).sum::<usize>() - 1,
            head,
            writable,
            start: self.start,
        })
    }

    fn execute(&mut self, taken: &Taken) -> (u8, Vec<u8>) {
        let sector = taken.header.sector as usize;
        let within = |len: usize| {
            let start = sector.checked_mul(SECTOR_SIZE)?;
            (start.checked_add(len)? <= self.disk.len()).then_some(start)
        };
        let failed = (dk_abi::STATUS_IOERR, Vec::new());
        match taken.header.kind {
            dk_abi::READ => within(taken.room).map_or(failed, |start| {
                let data = self.disk[start..start + taken.room].to_vec();
                (dk_abi::STATUS_OK, data)
            }),
            dk_abi::WRITE => within(taken.data.len()).map_or(failed, |start| {
                self.disk[start..start + taken.data.len()].copy_from_slice(&taken.data);
                (dk_abi::STATUS_OK, Vec::new())
            }),
            dk_abi::KNOB_GET if sector < KNOBS => {
                (dk_abi::STATUS_OK, self.knobs[sector].to_le_bytes().to_vec())
            }
            dk_abi::KNOB_SET if sector < KNOBS => {
                let value: [u8; KNOB_VALUE_LEN] =
                    taken.data[..].try_into().expect("a knob's value");
                self.knobs[sector] = u64::from_le_bytes(value);
                (dk_abi::STATUS_OK, Vec::new())
            }
            _ => (dk_abi::STATUS_UNSUPP, Vec::new()),
        }
    }

    fn answer(&mut self, taken: Taken, status: u8, data: &[u8]) -> bool {
        if taken.start != self.start {
            return false;
        }
        let mut left = &data[..data.len().min(taken.room)];
        for (addr, len) in &taken.writable {
            let (now, later) = left.split_at(left.len().min(*len));
            FakeHal::write(*addr, now);
            left = later;
        }
        let (at, _) = taken.writable[taken.writable.len() - 1];
        FakeHal::write(at, &[status]);
        self.push_used(u32::from(taken.head), data.len() + 1);
        true
    }

    fn push_used(&mut self, id: u32, len: usize) {
        let queue = &mut self.queue;
        let entry = queue.device + 4 + 8 * u64::from(queue.used % queue.size);
        FakeHal::write(entry, &id.to_le_bytes());
        FakeHal::write(entry + 4, &(len as u32).to_le_bytes());
        queue.used = queue.used.wrapping_add(1);
        FakeHal::write(queue.device + 2, &queue.used.to_le_bytes());
        self.interrupt = 1;
    }

    fn read(&mut self, offset: usize, width: usize) -> u32 {
        let ones = u32::MAX >> (32 - 8 * width);
        if !self.plugged {
            return ones;
        }
        let capacity = self.disk.len() as u64 / SECTOR_SIZE as u64;
        match (offset, width) {
            (0x04, 4) => (self.features >> (32 * self.feature_select.min(1))) as u32,
            (0x14, 1) => self.status.into(),
            (0x15, 1) => {
                self.generation = self.generation.wrapping_add(u8::from(self.unsteady));
                self.generation.into()
            }
            (0x18, 2) if self.queue_select == 0 => match self.queue.size {
                0 => self.max_queue_size.into(),
                size => size.into(),
            },
            (0x1c, 2) if self.queue_select == 0 => self.queue.enabled.into(),
            (0x1e, 2) => self.queue_select.into(),
            (bar::ISR, 1) => core::mem::take(&mut self.interrupt).into(),
            (bar::DEVICE, 4) => capacity as u32,
            (at, 4) if at == bar::DEVICE + 4 => (capacity >> 32) as u32,
            _ => 0,
        }
    }

    fn write(&mut self, offset: usize, width: usize, value: u32) {
        if !self.plugged {
            return;
        }
        let part = |register: &mut u64, high: bool| {
            let shift = 32 * u32::from(high);
            *register = *register & !(0xffff_ffff << shift) | u64::from(value) << shift;
        };
        match (offset, width) {
            (0x00, 4) => self.feature_select = value,
            (0x14, 1) if value == 0 && self.refuses_reset => {}
            (0x14, 1) if value == 0 => self.reset(),
            (0x14, 1) => {
                self.status = value as u8;
                if self.refuses_features {
                    self.status &= !FEATURES_OK;
                }
            }
            (0x16, 2) => self.queue_select = value as u16,
            (0x18, 2) => self.queue.size = value as u16,
            (0x1c, 2) => self.queue.enabled = value == 1,
            (0x20 | 0x24, 4) => part(&mut self.queue.descriptors, offset == 0x24),
            (0x28 | 0x2c, 4) => part(&mut self.queue.driver, offset == 0x2c),
            (0x30 | 0x34, 4) => part(&mut self.queue.device, offset == 0x34),
            (bar::NOTIFY, 2) if self.queue.enabled => self.kicks += 1,
            _ => {}
        }
    }
}

/// The registers in the device's BAR.
#[derive(Clone, Debug)]
pub struct FakeRegisters(FakeDevice);

impl Registers for FakeRegisters {
    fn read8(&self, offset: usize) -> u8 {
        self.0.state().read(offset, 1) as u8
    }
    fn read16(&self, offset: usize) -> u16 {
        self.0.state().read(offset, 2) as u16
    }
    fn read32(&self, offset: usize) -> u32 {
        self.0.state().read(offset, 4)
    }
    fn write8(&self, offset: usize, value: u8) {
        self.0.state().write(offset, 1, value.into());
    }
    fn write16(&self, offset: usize, value: u16) {
        self.0.state().write(offset, 2, value.into());
    }
    fn write32(&self, offset: usize, value: u32) {
        self.0.state().write(offset, 4, value);
    }
}
