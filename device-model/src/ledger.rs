//! The ledger of requests in flight: memory that the VMM keeps for us, so that it outlives us.
//!
//! The vhost-user inflight region of a split ring ("Inflight I/O tracking" of QEMU's
//! vhost-user.rst). Without it the VMM can only rewind to the used index after our death, which
//! loses and repeats requests as soon as one that was held has been overtaken. With it, whoever
//! starts the ring next does again just what was never answered, in its old order.

use std::fs::File;
use std::sync::atomic::Ordering;

use rustix::fs::MemfdFlags;
use vm_memory::mmap::MmapRegionError;
use vm_memory::{
    Bytes, FileOffset, GuestAddress, GuestMemoryError, GuestMemoryMmap, GuestRegionMmap, MmapRegion,
};

use crate::error::Error;

/// Bytes before the first entry, and bytes of an entry.
const HEADER: u64 = 16;
const ENTRY: u64 = 16;

const VERSION_AT: GuestAddress = GuestAddress(8);
const SIZE_AT: GuestAddress = GuestAddress(10);
const LAST_HEAD_AT: GuestAddress = GuestAddress(12);
const USED_AT: GuestAddress = GuestAddress(14);

/// Version of the region's layout.
const VERSION: u16 = 1;

/// A ledger that can't be used.
#[derive(Debug, thiserror::Error)]
pub enum BadLedger {
    /// It doesn't hold an entry for each descriptor.
    #[error("the in-flight region has {len} bytes, and a ring of {size} needs {}", bytes(*size))]
    Short {
        /// Bytes that it has.
        len: u64,
        /// Descriptors of the ring.
        size: u16,
    },
    /// It can't be mapped.
    #[error("failed to map the in-flight region: {0}")]
    Map(#[from] MmapRegionError),
    /// Its end lies past the end of addresses.
    #[error("the in-flight region is out of range")]
    Range,
    /// It can't be accessed.
    #[error("failed to access the in-flight region: {0}")]
    Access(#[from] GuestMemoryError),
}

/// The ledger of one ring.
#[derive(Debug)]
pub struct Ledger {
    region: GuestMemoryMmap,
    size: u16,
    /// Numbers requests in the order in which they were popped.
    next: u64,
}

/// Bytes of the ledger of a ring of so many descriptors.
pub const fn bytes(size: u16) -> u64 {
    // To a cache line, as QEMU's own library does.
    (HEADER + ENTRY * size as u64).next_multiple_of(64)
}

/// A file for the ledger of a ring, all zero, for the VMM to keep.
///
/// # Errors
/// The system gives none.
pub fn create(size: u16) -> Result<File, Error> {
    let file = rustix::fs::memfd_create("dk-inflight", MemfdFlags::CLOEXEC);
    let file = File::from(file.map_err(Error::system("make a file in memory"))?);
    file.set_len(bytes(size))
        .map_err(Error::system("size a file in memory"))?;
    Ok(file)
}

impl Ledger {
    /// Maps a ledger that the VMM kept.
    ///
    /// # Errors
    /// [`BadLedger`].
    pub fn open(file: File, offset: u64, len: u64, size: u16) -> Result<Self, BadLedger> {
        let end = file.metadata().map_or(0, |metadata| metadata.len());
        // Beyond the file's end a mapping faults.
        let len = len.min(end.saturating_sub(offset));
        if len < bytes(size) {
            return Err(BadLedger::Short { len, size });
        }
        let mapping = MmapRegion::from_file(FileOffset::new(file, offset), bytes(size) as usize)?;
        let region = GuestRegionMmap::new(mapping, GuestAddress(0)).ok_or(BadLedger::Range)?;
        let region = GuestMemoryMmap::from_regions(vec![region]).map_err(|_| BadLedger::Range)?;
        Ok(Self {
            region,
            size,
            next: 0,
        })
    }

    /// Descriptors of the ring that it is for.
    pub fn size(&self) -> u16 {
        self.size
    }

    /// Begins with a ring whose used index is `used`. Returns the heads that were popped and
    /// never given back, oldest first.
    ///
    /// # Errors
    /// The region can't be accessed.
    pub fn begin(&mut self, used: u16) -> Result<Vec<u16>, BadLedger> {
        if self.region.load::<u16>(VERSION_AT, Ordering::Acquire)? != VERSION {
            self.region.store(self.size, SIZE_AT, Ordering::Release)?;
            self.region.store(used, USED_AT, Ordering::Release)?;
            self.region.store(VERSION, VERSION_AT, Ordering::Release)?;
        }
        if self.region.load::<u16>(USED_AT, Ordering::Acquire)? != used {
            // Its writer died between giving the last one back and noting that.
            let last = self.region.load::<u16>(LAST_HEAD_AT, Ordering::Acquire)?;
            self.note_returned(last, used)?;
        }
        let mut marked = Vec::new();
        for head in 0..self.size {
            if self.region.load::<u8>(entry(head), Ordering::Acquire)? == 1 {
                let number = self.region.load::<u64>(counter(head), Ordering::Acquire)?;
                marked.push((number, head));
            }
        }
        marked.sort_unstable();
        self.next = marked
            .last()
            .map_or(0, |&(number, _)| number.wrapping_add(1));
        Ok(marked.into_iter().map(|(_, head)| head).collect())
    }

    /// Notes that a head was popped.
    pub(crate) fn note_popped(&mut self, head: u16) -> Result<(), BadLedger> {
        if head < self.size {
            self.region
                .store(self.next, counter(head), Ordering::Release)?;
            self.region.store(1u8, entry(head), Ordering::Release)?;
            self.next = self.next.wrapping_add(1);
        }
        Ok(())
    }

    /// Notes that a head is about to be put into the used ring.
    pub(crate) fn note_returning(&mut self, head: u16) -> Result<(), BadLedger> {
        Ok(self.region.store(head, LAST_HEAD_AT, Ordering::Release)?)
    }

    /// Notes that a head stands in the used ring, whose index now is `used`.
    pub(crate) fn note_returned(&mut self, head: u16, used: u16) -> Result<(), BadLedger> {
        if head < self.size {
            self.region.store(0u8, entry(head), Ordering::Release)?;
        }
        Ok(self.region.store(used, USED_AT, Ordering::Release)?)
    }
}

const fn entry(head: u16) -> GuestAddress {
    GuestAddress(HEADER + ENTRY * head as u64)
}

const fn counter(head: u16) -> GuestAddress {
    GuestAddress(HEADER + ENTRY * head as u64 + 8)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(file: &File) -> Ledger {
        let file = file.try_clone().expect("a second descriptor");
        Ledger::open(file, 0, bytes(8), 8).expect("a ledger")
    }

    #[test]
    fn what_was_never_answered_comes_back_in_its_order() {
        let file = create(8).expect("a file in memory");
        let mut ledger = open(&file);
        assert_eq!(ledger.begin(5).expect("begins"), [0u16; 0]);
        for head in [6, 1, 3, 0] {
            ledger.note_popped(head).expect("noted");
        }
        ledger.note_returning(1).expect("noted");
        ledger.note_returned(1, 6).expect("noted");
        drop(ledger);
        let mut ledger = open(&file);
        assert_eq!(ledger.begin(6).expect("begins"), [6, 3, 0]);
        // New ones are younger than those that came back.
        ledger.note_popped(1).expect("noted");
        assert_eq!(open(&file).begin(6).expect("begins"), [6, 3, 0, 1]);
    }

    #[test]
    fn a_death_between_giving_back_and_noting_it_repeats_nothing() {
        let file = create(8).expect("a file in memory");
        let mut ledger = open(&file);
        ledger.begin(0).expect("begins");
        ledger.note_popped(2).expect("noted");
        ledger.note_popped(4).expect("noted");
        ledger.note_returning(2).expect("noted");
        // Here the used index becomes 1, and the writer dies.
        assert_eq!(open(&file).begin(1).expect("begins"), [4]);
        // Had it died just before, the request would be done again.
        let file = create(8).expect("a file in memory");
        let mut ledger = open(&file);
        ledger.begin(0).expect("begins");
        ledger.note_popped(2).expect("noted");
        ledger.note_returning(2).expect("noted");
        assert_eq!(open(&file).begin(0).expect("begins"), [2]);
    }

    #[test]
    fn a_short_region_is_refused() {
        let file = create(8).expect("a file in memory");
        let short = Ledger::open(file, 0, bytes(16), 16);
        assert!(
            matches!(short, Err(BadLedger::Short { size: 16, .. })),
            "{short:?}"
        );
    }
}
