//! The virtqueue: heads out of the available ring, heads back into the used ring.
//!
//! It knows addresses and indices, and neither what a chain means nor who tells it to start.
//! The driver may write anything into its rings at any time; what it gets for that is a
//! [`RingFault`], which ends the ring until it is set up anew.

use std::sync::atomic::{Ordering, fence};

use virtio_bindings::bindings::virtio_ring::VRING_AVAIL_F_NO_INTERRUPT;
use virtio_queue::{Error as QueueError, Queue, QueueOwnedT, QueueT};
use vm_memory::{Bytes, GuestAddress, GuestMemory};

use crate::chain::Table;
use crate::ledger::{BadLedger, Ledger};

/// Descriptors that the ring may have.
pub const MAX_SIZE: u16 = 1024;

/// Why a ring can't be used.
#[derive(Debug, thiserror::Error)]
pub enum RingFault {
    /// Its size isn't a power of two up to [`MAX_SIZE`].
    #[error("a ring of {0} descriptors; it must be a power of two up to {MAX_SIZE}")]
    Size(u32),
    /// Its parts are not aligned.
    #[error("the ring's parts are not aligned as virtio asks: {0}")]
    Alignment(QueueError),
    /// A part isn't in guest memory.
    #[error("a part of the ring isn't in guest memory")]
    OutOfMemory,
    /// The available index is further ahead than the ring is long.
    #[error(
        "the available index is more than the ring's size ahead: expected {next} to {} of a ring \
         of {size}, found {found}",
        next.wrapping_add(*size)
    )]
    AvailableIndex {
        /// The next that the device would take.
        next: u16,
        /// Descriptors of the ring.
        size: u16,
        /// The index in memory.
        found: u16,
    },
    /// Guest memory could not be accessed.
    #[error("failed to access the ring: {0}")]
    Access(QueueError),
    /// The ledger failed.
    #[error(transparent)]
    Ledger(#[from] BadLedger),
}

/// A head from the available ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Popped {
    /// A chain to be looked at.
    Chain(u16),
    /// One that was popped before and not given back: the driver reuses what it doesn't own.
    InUse(u16),
}

/// A split virtqueue.
#[derive(Debug)]
pub struct Ring {
    queue: Queue,
    /// For each head whether it was popped and not yet given back. Bounds what can be held.
    in_flight: Vec<bool>,
    ledger: Option<Ledger>,
}

impl Default for Ring {
    fn default() -> Self {
        Self {
            // A power of two, so never an error; an empty queue would refuse all work.
            queue: Queue::new(MAX_SIZE).unwrap_or_default(),
            in_flight: Vec::new(),
            ledger: None,
        }
    }
}

impl Ring {
    /// Sets the number of descriptors.
    ///
    /// # Errors
    /// [`RingFault::Size`].
    pub fn set_size(&mut self, size: u32) -> Result<(), RingFault> {
        let narrow = u16::try_from(size).map_err(|_| RingFault::Size(size))?;
        self.queue
            .try_set_size(narrow)
            .map_err(|_| RingFault::Size(size))
    }

    /// Sets where the descriptors, the available ring and the used ring are.
    ///
    /// # Errors
    /// [`RingFault::Alignment`].
    pub fn set_addresses(
        &mut self,
        descriptors: GuestAddress,
        available: GuestAddress,
        used: GuestAddress,
    ) -> Result<(), RingFault> {
        self.queue
            .try_set_desc_table_address(descriptors)
            .map_err(RingFault::Alignment)?;
        self.queue
            .try_set_avail_ring_address(available)
            .map_err(RingFault::Alignment)?;
        self.queue
            .try_set_used_ring_address(used)
            .map_err(RingFault::Alignment)
    }

    /// Sets the available index from which to go on.
    pub fn set_base(&mut self, base: u16) {
        self.queue.set_next_avail(base);
    }

    /// The available index from which another could go on.
    pub fn base(&self) -> u16 {
        self.queue.next_avail()
    }

    /// The used index that the device has written, or would go on from.
    pub fn next_used(&self) -> u16 {
        self.queue.next_used()
    }

    /// The used index in memory, and where it is. `None` if it can't be read.
    pub fn used_index<M: GuestMemory>(&self, memory: &M) -> Option<(GuestAddress, u16)> {
        let index = self.queue.used_idx(memory, Ordering::Acquire).ok()?;
        Some((after(self.queue.used_ring(), 2)?, index.0))
    }

    /// The available index in memory, and where it is. `None` if it can't be read.
    pub fn available_index<M: GuestMemory>(&self, memory: &M) -> Option<(GuestAddress, u16)> {
        let index = self.queue.avail_idx(memory, Ordering::Acquire).ok()?;
        Some((after(self.queue.avail_ring(), 2)?, index.0))
    }

    /// Head and length in a slot of the used ring in memory, and where it is. `None` if it can't
    /// be read.
    pub fn used_element<M: GuestMemory>(
        &self,
        memory: &M,
        slot: usize,
    ) -> Option<(GuestAddress, [u32; 2])> {
        let at = after(self.queue.used_ring(), 4 + 8 * slot as u64)?;
        let element: [u32; 2] = memory.read_obj(at).ok()?;
        Some((at, element.map(u32::from_le)))
    }

    /// Sets the ledger of what is in flight.
    pub fn set_ledger(&mut self, ledger: Option<Ledger>) {
        self.ledger = ledger;
    }

    /// Descriptors of the ring.
    pub fn size(&self) -> u16 {
        self.queue.size()
    }

    /// Where its descriptors are.
    pub fn table(&self) -> Table {
        Table {
            addr: GuestAddress(self.queue.desc_table()),
            size: self.queue.size(),
        }
    }

    /// Whether it takes requests.
    pub fn is_running(&self) -> bool {
        self.queue.ready()
    }

    /// Starts it. Returns the heads that an earlier device popped and never gave back, oldest
    /// first; they are to be looked at as if they were popped now.
    ///
    /// # Errors
    /// The rings aren't in memory; it doesn't run then.
    pub fn start<M: GuestMemory>(&mut self, memory: &M) -> Result<Vec<u16>, RingFault> {
        self.in_flight.clear();
        self.in_flight.resize(usize::from(self.size()), false);
        self.queue.set_ready(true);
        let begun = self.check(memory).and_then(|()| self.begin(memory));
        self.queue.set_ready(begun.is_ok());
        begun
    }

    fn begin<M: GuestMemory>(&mut self, memory: &M) -> Result<Vec<u16>, RingFault> {
        let used = self
            .queue
            .used_idx(memory, Ordering::Acquire)
            .map_err(RingFault::Access)?;
        self.queue.set_next_used(used.0);
        let size = self.size();
        // A ledger of another ring says nothing of this one.
        let Some(ledger) = self.ledger.as_mut().filter(|ledger| ledger.size() == size) else {
            self.ledger = None;
            return Ok(Vec::new());
        };
        let heads = ledger.begin(used.0)?;
        for &head in &heads {
            if let Some(in_flight) = self.in_flight.get_mut(usize::from(head)) {
                *in_flight = true;
            }
        }
        self.queue
            .set_next_avail(used.0.wrapping_add(heads.len() as u16));
        Ok(heads)
    }

    /// Stops it. What was popped is forgotten, but stays in the ledger.
    pub fn stop(&mut self) {
        self.queue.set_ready(false);
        self.in_flight.clear();
    }

    /// Whether all of it is in guest memory.
    ///
    /// # Errors
    /// [`RingFault::OutOfMemory`].
    pub fn check<M: GuestMemory>(&self, memory: &M) -> Result<(), RingFault> {
        if self.queue.is_valid(memory) {
            Ok(())
        } else {
            Err(RingFault::OutOfMemory)
        }
    }

    /// Takes the next head out of the available ring.
    ///
    /// # Errors
    /// The ring can't go on.
    pub fn pop<M: GuestMemory>(&mut self, memory: &M) -> Result<Option<Popped>, RingFault> {
        let available = self
            .queue
            .avail_idx(memory, Ordering::Acquire)
            .map_err(RingFault::Access)?;
        if available.0 == self.queue.next_avail() {
            return Ok(None);
        }
        let fault = RingFault::AvailableIndex {
            next: self.queue.next_avail(),
            size: self.size(),
            found: available.0,
        };
        if available.0.wrapping_sub(self.queue.next_avail()) > self.size() {
            return Err(fault);
        }
        let mut heads = self.queue.iter(memory).map_err(|error| match error {
            // It was read once more, and the driver has changed it since.
            QueueError::InvalidAvailRingIndex => fault,
            other => RingFault::Access(other),
        })?;
        let Some(chain) = heads.next() else {
            // The index said that there is one, and it can't be read.
            return Err(RingFault::OutOfMemory);
        };
        let head = chain.head_index();
        match self.in_flight.get_mut(usize::from(head)) {
            Some(true) => return Ok(Some(Popped::InUse(head))),
            Some(in_flight) => *in_flight = true,
            // Outside of the table, as looking at the chain will tell.
            None => {}
        }
        if let Some(ledger) = &mut self.ledger {
            ledger.note_popped(head)?;
        }
        Ok(Some(Popped::Chain(head)))
    }

    /// Puts a head into the used ring, with the bytes that were written to its chain. Returns
    /// whether the driver wants an interrupt for it.
    ///
    /// # Errors
    /// The ring can't go on.
    pub fn give_back<M: GuestMemory>(
        &mut self,
        memory: &M,
        head: u16,
        written: u32,
    ) -> Result<bool, RingFault> {
        if let Some(ledger) = &mut self.ledger {
            ledger.note_returning(head)?;
        }
        self.queue
            .add_used(memory, head, written)
            .map_err(RingFault::Access)?;
        if let Some(in_flight) = self.in_flight.get_mut(usize::from(head)) {
            *in_flight = false;
        }
        if let Some(ledger) = &mut self.ledger {
            ledger.note_returned(head, self.queue.next_used())?;
        }
        // The used index must be out before the driver's wish is read (virtio 1.2, 2.7.7.2).
        fence(Ordering::SeqCst);
        let flags = memory.load::<u16>(GuestAddress(self.queue.avail_ring()), Ordering::Relaxed);
        let flags = flags.map_err(|error| RingFault::Access(QueueError::GuestMemory(error)))?;
        Ok(u32::from(u16::from_le(flags)) & VRING_AVAIL_F_NO_INTERRUPT == 0)
    }
}

fn after(start: u64, offset: u64) -> Option<GuestAddress> {
    start.checked_add(offset).map(GuestAddress)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::fs::FileExt;

    use vm_memory::GuestMemoryMmap;

    use super::*;
    use crate::ledger;

    const AVAILABLE: u64 = 0x1000;
    const USED: u64 = 0x2000;

    /// A running ring of 8 with a ledger, whose file is returned too.
    fn ring() -> (Ring, GuestMemoryMmap, File) {
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 0x4000)]).expect("memory");
        let file = ledger::create(8).expect("a file in memory");
        let kept = file.try_clone().expect("a second descriptor");
        let mut ring = Ring::default();
        ring.set_size(8).expect("a power of two");
        ring.set_addresses(GuestAddress(0), GuestAddress(AVAILABLE), GuestAddress(USED))
            .expect("aligned");
        ring.set_ledger(Some(
            Ledger::open(file, 0, ledger::bytes(8), 8).expect("a ledger"),
        ));
        assert_eq!(ring.start(&memory).expect("started"), [0u16; 0]);
        (ring, memory, kept)
    }

    fn offer(memory: &GuestMemoryMmap, index: u16, head: u16) {
        let slot = AVAILABLE + 4 + 2 * u64::from(index % 8);
        memory
            .write_obj(head, GuestAddress(slot))
            .expect("in memory");
        memory
            .write_obj(index + 1, GuestAddress(AVAILABLE + 2))
            .expect("in memory");
    }

    #[test]
    fn heads_go_round_and_none_twice_at_a_time() {
        let (mut ring, memory, _) = ring();
        for index in 0..20 {
            let head = index % 8;
            offer(&memory, index, head);
            assert_eq!(
                ring.pop(&memory).expect("popped"),
                Some(Popped::Chain(head))
            );
            assert!(ring.give_back(&memory, head, 1).expect("given back"));
            assert_eq!(ring.pop(&memory).expect("popped"), None);
        }
        assert_eq!(
            memory
                .read_obj::<u16>(GuestAddress(USED + 2))
                .expect("in memory"),
            20
        );
        offer(&memory, 20, 3);
        assert_eq!(ring.pop(&memory).expect("popped"), Some(Popped::Chain(3)));
        offer(&memory, 21, 3);
        assert_eq!(ring.pop(&memory).expect("popped"), Some(Popped::InUse(3)));
    }

    #[test]
    fn a_head_is_in_the_ledger_as_the_last_before_it_is_in_the_used_ring() {
        let (mut ring, memory, file) = ring();
        offer(&memory, 0, 5);
        ring.pop(&memory).expect("popped");
        // A used ring that can't be written shows what came before the write.
        let gone: GuestMemoryMmap =
            GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 0x1000)]).expect("memory");
        assert!(ring.give_back(&gone, 5, 1).is_err());
        let mut last = [0; 2];
        file.read_exact_at(&mut last, 12).expect("read");
        assert_eq!(u16::from_ne_bytes(last), 5);
    }
}
