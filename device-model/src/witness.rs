//! The witness: what a correct driver leaves alone while the ring runs, and whether it did.
//!
//! Until a reset has returned, the used ring is the device's alone, the available index only
//! goes ahead, and the descriptors of a request in flight stay as they were offered (virtio 1.2,
//! 2.7). A driver that frees or reuses its ring's memory too early breaks one of these. Each
//! function here compares memory with what the device knows and returns what differs in words;
//! what can't be read gives no verdict.

use dk_control::Suspicion;
use vm_memory::GuestMemory;

use crate::chain::{Link, Request, Table};
use crate::ring::Ring;

/// What the device remembers of one run of the ring, in order to witness.
#[derive(Debug, Default)]
pub struct Witness {
    told: Vec<Suspicion>,
    /// What the device wrote into each slot of the used ring: a head and a length.
    used: Vec<Option<[u32; 2]>>,
}

impl Witness {
    /// A new run of a ring of `size` descriptors. Whatever is in memory now is the truth.
    pub fn begin(&mut self, size: u16) {
        self.told.clear();
        self.used.clear();
        self.used.resize(usize::from(size), None);
    }

    /// Whether this suspicion is to be told: it wasn't yet in this run.
    pub fn is_new(&mut self, what: Suspicion) -> bool {
        let new = !self.told.contains(&what);
        if new {
            self.told.push(what);
        }
        new
    }

    /// Remembers what the device has just put into the used ring.
    pub fn note_used(&mut self, index: u16, head: u16, len: u32) {
        let slot = self.slot(index);
        if let Some(element) = slot.and_then(|slot| self.used.get_mut(slot)) {
            *element = Some([u32::from(head), len]);
        }
    }

    /// Compares the used index and the newest element with what the device wrote. Cheap enough
    /// for each request.
    pub fn check_used_end<M: GuestMemory>(&self, memory: &M, ring: &Ring) -> Option<String> {
        let newest = ring.next_used().wrapping_sub(1);
        used_index(memory, ring).or_else(|| self.check_element(memory, ring, self.slot(newest)?))
    }

    /// Compares the used index and every element that the device wrote.
    pub fn check_used<M: GuestMemory>(&self, memory: &M, ring: &Ring) -> Option<String> {
        let element = |slot| self.check_element(memory, ring, slot);
        used_index(memory, ring).or_else(|| (0..self.used.len()).find_map(element))
    }

    fn check_element<M: GuestMemory>(
        &self,
        memory: &M,
        ring: &Ring,
        slot: usize,
    ) -> Option<String> {
        let wrote = self.used.get(slot).copied().flatten()?;
        let (at, found) = ring.used_element(memory, slot)?;
        (found != wrote).then(|| {
            format!(
                "element {slot} of the used ring, at {:#x}: the device wrote head {} and length {}, \
                 found head {} and length {}",
                at.0, wrote[0], wrote[1], found[0], found[1],
            )
        })
    }

    fn slot(&self, index: u16) -> Option<usize> {
        usize::from(index).checked_rem(self.used.len())
    }
}

fn used_index<M: GuestMemory>(memory: &M, ring: &Ring) -> Option<String> {
    let (at, found) = ring.used_index(memory)?;
    let wrote = ring.next_used();
    (found != wrote).then(|| {
        format!(
            "the used index, at {:#x}: the device wrote {wrote}, found {found}",
            at.0
        )
    })
}

/// Whether the available index is one that the driver can have come to.
pub fn check_available<M: GuestMemory>(memory: &M, ring: &Ring) -> Option<String> {
    let (at, found) = ring.available_index(memory)?;
    let (next, size) = (ring.base(), ring.size());
    (found.wrapping_sub(next) > size).then(|| {
        format!(
            "the available index, at {:#x}: expected {next} to {} of a ring of {size}, found {found}",
            at.0,
            next.wrapping_add(size),
        )
    })
}

/// Whether the descriptors of a request in flight are as they were when it was seen.
pub fn check_request<M: GuestMemory>(
    memory: &M,
    table: Table,
    number: u64,
    request: &Request,
) -> Option<String> {
    request.links.iter().find_map(|seen| {
        let found = Link::read(memory, table, seen.index)?;
        (!found.is_same(seen)).then(|| {
            format!(
                "request {number}, head {}, descriptor {} of the table at {:#x}: seen {seen}, \
                 found {found}",
                request.head, seen.index, table.addr.0,
            )
        })
    })
}

#[cfg(test)]
mod tests {
    use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

    use super::*;

    const AVAILABLE: u64 = 0x1000;
    const USED: u64 = 0x2000;
    const SIZE: u16 = 8;

    /// A running ring whose indices stand at `base`, and its witness.
    fn ring(base: u16) -> (GuestMemoryMmap, Ring, Witness) {
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 0x4000)]).expect("memory");
        for at in [AVAILABLE + 2, USED + 2] {
            memory.write_obj(base, GuestAddress(at)).expect("in memory");
        }
        let mut ring = Ring::default();
        ring.set_size(SIZE.into()).expect("a power of two");
        ring.set_addresses(GuestAddress(0), GuestAddress(AVAILABLE), GuestAddress(USED))
            .expect("aligned");
        ring.set_base(base);
        ring.start(&memory).expect("started");
        let mut witness = Witness::default();
        witness.begin(SIZE);
        (memory, ring, witness)
    }

    /// Offers a head, and has the device take it and give it back.
    fn round(memory: &GuestMemoryMmap, ring: &mut Ring, witness: &mut Witness) {
        let index = ring.base();
        memory
            .write_obj(index.wrapping_add(1), GuestAddress(AVAILABLE + 2))
            .expect("in memory");
        ring.pop(memory).expect("popped").expect("one");
        let used = ring.next_used();
        ring.give_back(memory, 0, 1).expect("given back");
        witness.note_used(used, 0, 1);
    }

    #[test]
    fn indices_that_wrap_are_no_suspicion_and_one_beside_them_is() {
        let (memory, mut ring, mut witness) = ring(0xfffd);
        for _ in 0..20 {
            round(&memory, &mut ring, &mut witness);
            assert_eq!(witness.check_used_end(&memory, &ring), None);
            assert_eq!(witness.check_used(&memory, &ring), None);
            // As far ahead as a ring can be, and one more.
            for (ahead, fits) in [(0, true), (SIZE, true), (SIZE + 1, false), (0xffff, false)] {
                let index = ring.base().wrapping_add(ahead);
                memory
                    .write_obj(index, GuestAddress(AVAILABLE + 2))
                    .expect("in memory");
                assert_eq!(check_available(&memory, &ring).is_none(), fits, "{ahead}");
            }
        }
        for beside in [1, 0xffff] {
            let index = ring.next_used().wrapping_add(beside);
            memory
                .write_obj(index, GuestAddress(USED + 2))
                .expect("in memory");
            assert!(witness.check_used_end(&memory, &ring).is_some());
            assert!(witness.check_used(&memory, &ring).is_some());
        }
    }

    #[test]
    fn only_what_the_device_wrote_is_compared() {
        let (memory, mut ring, mut witness) = ring(0);
        for _ in 0..2 {
            round(&memory, &mut ring, &mut witness);
        }
        let write = |slot: u64, value: u64| {
            memory
                .write_obj(value, GuestAddress(USED + 4 + 8 * slot))
                .expect("in memory");
        };
        // Never written in this run.
        write(2, 7);
        assert_eq!(witness.check_used(&memory, &ring), None);
        // An older one is found when all are looked at.
        write(0, 0);
        assert_eq!(witness.check_used_end(&memory, &ring), None);
        let told = witness.check_used(&memory, &ring).expect("a suspicion");
        assert!(told.starts_with("element 0"), "{told}");
        write(1, 0);
        let told = witness.check_used_end(&memory, &ring);
        assert!(told.expect("a suspicion").starts_with("element 1"));
    }

    #[test]
    fn memory_that_is_gone_gives_no_verdict() {
        let (memory, mut ring, mut witness) = ring(3);
        round(&memory, &mut ring, &mut witness);
        let gone = GuestMemoryMmap::<()>::from_ranges(&[(GuestAddress(0), 0x800)]).expect("memory");
        assert_eq!(witness.check_used(&gone, &ring), None);
        assert_eq!(check_available(&gone, &ring), None);
    }

    #[test]
    fn each_suspicion_is_new_once_in_a_run() {
        let mut witness = Witness::default();
        for _ in 0..2 {
            witness.begin(SIZE);
            assert!(witness.is_new(Suspicion::RequestOverwritten));
            assert!(witness.is_new(Suspicion::KickedWhileStopped));
            assert!(!witness.is_new(Suspicion::RequestOverwritten));
        }
    }
}
