// SPDX-License-Identifier: GPL-2.0-only
//! Request slots over one virtqueue: who owns a slot, and what becomes of late answers.
//!
//! | slot | who owns its memory | next |
//! |---|---|---|
//! | free | the ring | [`Ring::submit`] |
//! | queued | the device | the device's answer, or [`Ring::abandon`] |
//! | answered | the holder of the [`Ticket`] | [`Ring::collect`] or [`Ring::abandon`] |
//! | orphaned | the device; nobody waits | the device's answer |

use crate::memory::Memory;
use crate::request::{Data, Failure, Request, decode_status};
use core::fmt;
use core::mem::ManuallyDrop;
use core::ptr::NonNull;
use core::sync::atomic::{Ordering, fence};
use virtio_drivers::queue::VirtQueue;
use virtio_drivers::transport::{DeviceStatus, DeviceType, Transport};
use virtio_drivers::{Error, Hal, PAGE_SIZE};

/// Descriptors of the virtqueue.
pub const QUEUE_SIZE: usize = 32;
/// Requests that can be with the device at a time. With the control page their data pages
/// make eight, an allocator's order.
pub const SLOTS: usize = 7;
/// Bytes of data that one request carries at most.
pub const MAX_DATA: usize = PAGE_SIZE;

/// Descriptors of one request: header, data, status.
const CHAIN_LEN: usize = 3;
const _: () = assert!(SLOTS * CHAIN_LEN <= QUEUE_SIZE);

/// The queue of a virtio-blk device that has only one.
const QUEUE: u16 = 0;
/// `VIRTIO_F_VERSION_1`, the only feature that we take (virtio 1.2, section 6).
const VERSION_1: u64 = 1 << 32;
/// Reads of the status or generation register until we give up. A device answers the first.
const POLLS: usize = 1000;

/// A slot's state, as in the module's table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Slot {
    Free,
    Queued { token: u16, shape: Data },
    Answered { len: usize },
    Orphaned { token: u16, shape: Data },
}

/// The right to one request's answer. Give it back by [`Ring::collect`] or [`Ring::abandon`];
/// a ticket that is merely dropped takes its slot out of use until the ring ends.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "collect or abandon it, or its slot is lost"]
pub struct Ticket {
    slot: usize,
}

/// Why the ring could not be brought up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InitError {
    /// The device is none of virtio's disks.
    NotADisk(DeviceType),
    /// The device goes on after a reset.
    ResetRefused,
    /// The device isn't there: its registers read as ones.
    Gone,
    /// The device doesn't offer `VIRTIO_F_VERSION_1`: a legacy device.
    Legacy,
    /// The device took back `FEATURES_OK`.
    FeaturesRefused,
    /// The device's queue can't be set up.
    Queue(Error),
    /// The device's configuration can't be read.
    Config(Error),
    /// No memory for the ring or its slots.
    NoMemory,
}

impl fmt::Display for InitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotADisk(kind) => write!(f, "not a virtio disk but {kind:?}"),
            Self::ResetRefused => f.write_str("the device doesn't reset"),
            Self::Gone => f.write_str("the device is gone: its registers read as ones"),
            Self::Legacy => f.write_str("a legacy device: it doesn't offer VIRTIO_F_VERSION_1"),
            Self::FeaturesRefused => f.write_str("the device refused VIRTIO_F_VERSION_1 alone"),
            Self::Queue(error) => write!(f, "can't set up queue {QUEUE}: {error}"),
            Self::Config(error) => write!(f, "can't read the disk's capacity: {error}"),
            Self::NoMemory => f.write_str("no memory for the ring"),
        }
    }
}

impl core::error::Error for InitError {}

/// Why a request could not be submitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SubmitError {
    /// Every slot is with the device. Try again after an answer.
    Full,
    /// More than [`MAX_DATA`] bytes of data, or none.
    BadLength(usize),
    /// The device broke the ring's protocol, or the ring was stopped.
    Dead,
}

impl fmt::Display for SubmitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full => write!(f, "all {SLOTS} requests are with the device"),
            Self::BadLength(len) => write!(f, "{len} bytes of data; 1 to {MAX_DATA} can be sent"),
            Self::Dead => f.write_str("the ring is dead"),
        }
    }
}

impl core::error::Error for SubmitError {}

/// The request ring. See the crate's page for a request's way through it.
pub struct Ring<H: Hal, T: Transport> {
    transport: T,
    // Both go by `free`: in drop, unless the device refused to let go of them.
    queue: ManuallyDrop<VirtQueue<H, QUEUE_SIZE>>,
    memory: ManuallyDrop<Memory<H>>,
    freed: bool,
    slots: [Slot; SLOTS],
    capacity: u64,
    state: State,
}

/// What the device may do with the ring's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// All that a running device may.
    Running,
    /// The same, but we no longer believe it: it broke the protocol.
    Broken,
    /// Nothing: it was reset, or is gone.
    Stopped,
    /// Unknown: it was told to reset and didn't. Its memory is never given back.
    Unstoppable,
}

impl<H: Hal, T: Transport> Ring<H, T> {
    /// Resets the device, negotiates, and starts it with an empty ring (virtio 1.2, 3.1.1).
    ///
    /// # Errors
    /// [`InitError`]; the device is then reset, and marked failed where it listens.
    pub fn new(mut transport: T) -> Result<Self, InitError> {
        if transport.device_type() != DeviceType::Block {
            return Err(InitError::NotADisk(transport.device_type()));
        }
        reset(&mut transport)?;
        match Self::start(&mut transport) {
            Ok((queue, memory, capacity)) => Ok(Self {
                transport,
                queue: ManuallyDrop::new(queue),
                memory: ManuallyDrop::new(memory),
                freed: false,
                slots: [Slot::Free; SLOTS],
                capacity,
                state: State::Running,
            }),
            Err(error) => {
                transport.set_status(DeviceStatus::FAILED);
                Err(error)
            }
        }
    }

    fn start(transport: &mut T) -> Result<(VirtQueue<H, QUEUE_SIZE>, Memory<H>, u64), InitError> {
        let mut status = DeviceStatus::ACKNOWLEDGE | DeviceStatus::DRIVER;
        transport.set_status(status);
        if transport.read_device_features() & VERSION_1 == 0 {
            return Err(InitError::Legacy);
        }
        transport.write_driver_features(VERSION_1);
        status |= DeviceStatus::FEATURES_OK;
        transport.set_status(status);
        if !transport.get_status().contains(DeviceStatus::FEATURES_OK) {
            return Err(InitError::FeaturesRefused);
        }
        let capacity = read_capacity(transport).map_err(InitError::Config)?;
        let memory = Memory::new().ok_or(InitError::NoMemory)?;
        // No indirect descriptors and no EVENT_IDX: neither was negotiated.
        let queue =
            VirtQueue::new(transport, QUEUE, false, false).map_err(|error| match error {
                Error::DmaError => InitError::NoMemory,
                other => InitError::Queue(other),
            })?;
        transport.set_status(status | DeviceStatus::DRIVER_OK);
        Ok((queue, memory, capacity))
    }

    /// The disk's size in sectors of [`dk_abi::SECTOR_SIZE`], as it was at the start.
    pub fn capacity(&self) -> u64 {
        self.capacity
    }

    /// Requests that could be submitted now.
    pub fn free_slots(&self) -> usize {
        self.slots.iter().filter(|s| **s == Slot::Free).count()
    }

    /// Whether somebody waits for an answer that [`Ring::reap`] hasn't found yet.
    pub fn awaited(&self) -> bool {
        self.slots.iter().any(|s| matches!(s, Slot::Queued { .. }))
    }

    /// Sends a request to the device.
    ///
    /// # Errors
    /// [`SubmitError`]; the device then knows nothing of it.
    pub fn submit(&mut self, request: Request<'_>) -> Result<Ticket, SubmitError> {
        // SAFETY: nothing is lent.
        unsafe { self.send(request, None) }
    }

    /// As [`Ring::submit`], with a data buffer of the caller's in place of the slot's: what the
    /// device reads or writes isn't copied to or from a slot before it is collected.
    ///
    /// # Errors
    /// [`SubmitError`]; the buffer is then the caller's again.
    ///
    /// # Safety
    /// `buffer` is of as many initialized bytes as the request has data, and the ring's alone
    /// until the request was collected, or until the device was reset. Giving the request up
    /// gives the buffer back no earlier: the device may still write to it.
    pub unsafe fn submit_lent(
        &mut self,
        request: Request<'_>,
        buffer: NonNull<u8>,
    ) -> Result<Ticket, SubmitError> {
        // SAFETY: by the caller's promise.
        unsafe { self.send(request, Some(buffer)) }
    }

    /// # Safety
    /// As [`Ring::submit_lent`] says of what is lent.
    unsafe fn send(
        &mut self,
        request: Request<'_>,
        lent: Option<NonNull<u8>>,
    ) -> Result<Ticket, SubmitError> {
        if self.state != State::Running {
            return Err(SubmitError::Dead);
        }
        let shape = request.data();
        if shape.len() == 0 || shape.len() > MAX_DATA {
            return Err(SubmitError::BadLength(shape.len()));
        }
        let slot = self
            .slots
            .iter()
            .position(|s| *s == Slot::Free)
            .ok_or(SubmitError::Full)?;
        // SAFETY: a free slot has no chain in the virtqueue. What is lent is so until the request
        // is collected, when the slot is free again, or for as long as the device uses it.
        unsafe {
            self.memory
                .prepare(slot, request.header(), shape.len(), lent, |data| {
                    request.fill(data);
                });
        }
        let queue = &mut self.queue;
        // SAFETY: `add` only takes the buffers' addresses. They stay valid and untouched until
        // `reap` pops this token: the slot is queued or orphaned until then, and the memory is
        // freed only after the device was stopped.
        let token = unsafe {
            self.memory
                .with_chain(slot, shape, |inputs, outputs| queue.add(inputs, outputs))
        };
        // Chains of all slots fit the queue, so this fails only on a queue that is out of step.
        let token = token.map_err(|_| {
            self.state = State::Broken;
            SubmitError::Dead
        })?;
        self.slots[slot] = Slot::Queued { token, shape };
        // Asked after each add, so that no kick can be lost. The device suppresses kicks by a
        // flag, clears it, and looks into the ring again; for one of us to see what the other
        // wrote, our index must be out before we read the flag (virtio 1.2, 2.7.13.4.1).
        fence(Ordering::SeqCst);
        if self.queue.should_notify() {
            self.transport.notify(QUEUE);
        }
        Ok(Ticket { slot })
    }

    /// Takes all answers from the used ring, in the device's order. An orphan's slot is free
    /// again. Returns how many answers there were.
    pub fn reap(&mut self) -> usize {
        let mut answers = 0;
        while self.state == State::Running {
            let Some(token) = self.queue.peek_used() else {
                break;
            };
            let owner = self.slots.iter().position(|s| {
                matches!(s, Slot::Queued { token: t, .. } | Slot::Orphaned { token: t, .. }
                    if *t == token)
            });
            let (slot, shape, orphan) = match owner.map(|slot| (slot, self.slots[slot])) {
                Some((slot, Slot::Queued { shape, .. })) => (slot, shape, false),
                Some((slot, Slot::Orphaned { shape, .. })) => (slot, shape, true),
                _ => {
                    // An answer to nothing we asked.
                    self.state = State::Broken;
                    break;
                }
            };
            let queue = &mut self.queue;
            // SAFETY: `with_chain` gives the very buffers that `add` got for this token; the
            // device is done with them, since it put the token into the used ring.
            let popped = unsafe {
                self.memory.with_chain(slot, shape, |inputs, outputs| {
                    queue.pop_used(token, inputs, outputs)
                })
            };
            if popped.is_err() {
                self.state = State::Broken;
                break;
            }
            self.slots[slot] = match orphan {
                true => Slot::Free,
                false => Slot::Answered { len: shape.len() },
            };
            answers += 1;
        }
        answers
    }

    /// Whether [`Ring::reap`] has found this request's answer.
    pub fn answered(&self, ticket: &Ticket) -> bool {
        matches!(self.slots[ticket.slot], Slot::Answered { .. })
    }

    /// Whether no answer will come any more: the device broke the protocol or was stopped.
    pub fn dead(&self) -> bool {
        self.state != State::Running
    }

    /// Takes a request's answer and frees its slot. What a read or get returned is copied to
    /// `out`, as far as it is long; the result is the number of bytes that were copied.
    ///
    /// # Errors
    /// [`Failure`] as the device says, or [`Failure::Unanswered`], which abandons the request.
    pub fn collect(&mut self, ticket: Ticket, out: &mut [u8]) -> Result<usize, Failure> {
        let Slot::Answered { len } = self.slots[ticket.slot] else {
            self.abandon(ticket);
            return Err(Failure::Unanswered);
        };
        // SAFETY: an answered slot's chain has been popped.
        let (status, data) = unsafe { self.memory.answer(ticket.slot, len) };
        let result = decode_status(status).map(|()| {
            let copied = len.min(out.len());
            out[..copied].copy_from_slice(&data[..copied]);
            copied
        });
        self.slots[ticket.slot] = Slot::Free;
        result
    }

    /// Gives up on a request. Its slot becomes free when the device answers it after all.
    pub fn abandon(&mut self, ticket: Ticket) {
        let slot = &mut self.slots[ticket.slot];
        *slot = match *slot {
            Slot::Queued { token, shape } => Slot::Orphaned { token, shape },
            Slot::Answered { .. } => Slot::Free,
            other => other,
        };
    }

    /// Resets the device: it forgets all requests and no longer uses the ring's memory. Does
    /// nothing the second time. Where the device doesn't obey, its memory is kept for ever.
    ///
    /// # Errors
    /// [`InitError::ResetRefused`].
    pub fn stop(&mut self) -> Result<(), InitError> {
        if matches!(self.state, State::Stopped | State::Unstoppable) {
            return Ok(());
        }
        let (state, result) = match reset(&mut self.transport) {
            Ok(()) | Err(InitError::Gone) => (State::Stopped, Ok(())),
            Err(error) => (State::Unstoppable, Err(error)),
        };
        self.state = state;
        result
    }

    /// Takes note that the device was stopped by other means than [`Ring::stop`], which then
    /// does nothing.
    ///
    /// # Safety
    /// The device doesn't use the ring's memory any more.
    pub unsafe fn assume_stopped(&mut self) {
        self.state = State::Stopped;
    }

    /// Frees the memory that is shared with the device, before the ring itself goes.
    ///
    /// # Safety
    /// The device doesn't use it any more, and of the ring's methods only [`Ring::stop`] is
    /// called after this.
    pub unsafe fn free(&mut self) {
        if !core::mem::replace(&mut self.freed, true) {
            // SAFETY: once; neither is used again (caller).
            unsafe {
                ManuallyDrop::drop(&mut self.queue);
                ManuallyDrop::drop(&mut self.memory);
            }
        }
    }
}

impl<H: Hal, T: Transport> Drop for Ring<H, T> {
    fn drop(&mut self) {
        // What the error would tell is in the state, and acted upon here.
        let _ = self.stop();
        if self.state == State::Stopped {
            // SAFETY: the device no longer writes to it, and the ring ends here.
            unsafe { self.free() };
        }
    }
}

/// A device that was unplugged reads as all ones.
fn is_gone<T: Transport>(transport: &T) -> bool {
    transport.get_status().bits() & 0xff == 0xff
}

/// Resets the device and waits, for a bounded number of reads, until it says so.
fn reset<T: Transport>(transport: &mut T) -> Result<(), InitError> {
    transport.set_status(DeviceStatus::empty());
    for _ in 0..POLLS {
        if transport.get_status().is_empty() {
            return Ok(());
        }
        if is_gone(transport) {
            return Err(InitError::Gone);
        }
        core::hint::spin_loop();
    }
    Err(InitError::ResetRefused)
}

/// Reads the capacity, the first field of a disk's configuration, as of one generation.
fn read_capacity<T: Transport>(transport: &T) -> Result<u64, Error> {
    for _ in 0..POLLS {
        let generation = transport.read_config_generation();
        let low: u32 = transport.read_config_space(0)?;
        let high: u32 = transport.read_config_space(4)?;
        if transport.read_config_generation() == generation {
            return Ok(u64::from(high) << 32 | u64::from(low));
        }
    }
    Err(Error::NotReady)
}
