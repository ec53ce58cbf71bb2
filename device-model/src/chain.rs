//! Descriptor chains in, typed requests out.
//!
//! A chain is bytes that a hostile guest chose. Parsing walks it once, reads the header, checks
//! that every buffer lies in guest memory and has the shape that its kind asks for (virtio 1.2,
//! 5.2.6), and touches no data. The walk is this file's own, since virtio-queue's follows
//! indirect tables whether they were negotiated or not; here they never are. As virtio 1.x asks, nothing depends on how the bytes are cut
//! into descriptors: the readable bytes are a header and the data to the device, the writable
//! bytes are the data from the device and one status byte.

use dk_abi::{
    HEADER_LEN, Header, KNOB_VALUE_LEN, SECTOR_SIZE, SEGMENT_LEN, STATUS_IOERR, STATUS_OK,
};
use dk_control::Kind;
use virtio_bindings::bindings::virtio_ring::VRING_DESC_F_NEXT;
use virtio_queue::desc::split::Descriptor;
use vm_memory::{Address, Bytes, GuestAddress, GuestMemory, Permissions};

/// Data segments that a request may have: `seg_max` of the configuration space.
pub const SEG_MAX: usize = 126;
/// Bytes that a data segment may have: `size_max` of the configuration space.
pub const SIZE_MAX: u32 = 64 * 1024;
/// Descriptors that a chain may have: header, data, status.
pub const MAX_DESCRIPTORS: usize = SEG_MAX + 2;
/// Bytes of data that a request may carry.
pub const MAX_DATA: u64 = SEG_MAX as u64 * SIZE_MAX as u64;
/// Segments that a discard or write-zeroes may name.
pub const MAX_SEGMENTS: usize = 16;

/// A run of guest memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Its guest physical address.
    pub addr: GuestAddress,
    /// Its bytes.
    pub len: u32,
}

/// A well-formed request. Its pieces lay in guest memory when it was parsed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The chain's head, by which it is returned.
    pub head: u16,
    /// What is asked for.
    pub kind: Kind,
    /// The header's sector, or the knob's index.
    pub sector: u64,
    /// Where the data is: read by the device or written by it, as the kind asks.
    pub data: Vec<Piece>,
    /// Whether the device writes the data.
    pub data_from_device: bool,
    /// Where the status byte goes.
    pub status: GuestAddress,
    /// The descriptors that said so, as they were read.
    pub links: Vec<Link>,
}

/// A descriptor as it was read out of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its place in the table.
    pub index: u16,
    /// The buffer's guest physical address.
    pub addr: u64,
    /// The buffer's bytes.
    pub len: u32,
    /// `VRING_DESC_F_*`.
    pub flags: u16,
    /// The next descriptor, if the flags say that there is one.
    pub next: u16,
}

impl Link {
    /// Reads one. `None` if it, or the table, is out of range.
    pub fn read<M: GuestMemory + ?Sized>(memory: &M, table: Table, index: u16) -> Option<Self> {
        table
            .descriptor(memory, index)
            .map(|descriptor| Self::new(index, &descriptor))
    }

    fn new(index: u16, descriptor: &Descriptor) -> Self {
        Self {
            index,
            addr: descriptor.addr().0,
            len: descriptor.len(),
            flags: descriptor.flags(),
            next: descriptor.next(),
        }
    }

    /// Whether both say the same to a device. The last one's `next` says nothing, and the
    /// driver may keep what it likes there.
    pub fn is_same(&self, other: &Self) -> bool {
        let ends = u32::from(self.flags) & VRING_DESC_F_NEXT == 0;
        let next = if ends { self.next } else { other.next };
        *self == Self { next, ..*other }
    }
}

impl std::fmt::Display for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            addr,
            len,
            flags,
            next,
            ..
        } = self;
        write!(f, "addr {addr:#x} len {len} flags {flags:#x} next {next}")
    }
}

impl Request {
    /// Bytes of its data.
    pub fn data_len(&self) -> u64 {
        total(&self.data)
    }
}

/// Where a ring's descriptors are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Table {
    /// The first descriptor's guest physical address.
    pub addr: GuestAddress,
    /// Descriptors in it.
    pub size: u16,
}

impl Table {
    fn descriptor<M: GuestMemory + ?Sized>(&self, memory: &M, index: u16) -> Option<Descriptor> {
        if index >= self.size {
            return None;
        }
        let offset = u64::from(index) * size_of::<Descriptor>() as u64;
        memory.read_obj(self.addr.checked_add(offset)?).ok()
    }
}

/// What is wrong with a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// A descriptor that can't be read: its index or the table is out of range.
    #[error("a descriptor is outside of the table or of memory")]
    NoDescriptor,
    /// More descriptors than the table has: some come twice.
    #[error("it loops")]
    Endless,
    /// An indirect table, which was not offered.
    #[error("it uses an indirect table, which was not negotiated")]
    Indirect,
    /// More than [`MAX_DESCRIPTORS`].
    #[error("it has more than {MAX_DESCRIPTORS} descriptors")]
    TooLong,
    /// A readable descriptor after a writable one.
    #[error("a readable descriptor follows a writable one")]
    Order,
    /// Fewer readable bytes than a header.
    #[error("its header is short")]
    ShortHeader,
    /// No writable byte.
    #[error("it has no status byte")]
    NoStatus,
    /// A buffer that isn't in guest memory.
    #[error("a buffer is out of range")]
    OutOfRange,
    /// Data of a direction or length that the kind doesn't have.
    #[error("its data don't fit its kind")]
    Shape,
    /// More data than [`MAX_DATA`].
    #[error("it has more than {MAX_DATA} bytes of data")]
    TooMuch,
}

/// A chain that is no request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed {
    /// The chain's head.
    pub head: u16,
    /// What is wrong.
    pub fault: Fault,
    /// Where an error status can be written, if that can be known.
    pub status: Option<GuestAddress>,
    /// Whether nothing writable stands before the status byte.
    pub status_first: bool,
}

/// Kind of a header's type word.
pub const fn kind_of(word: u32) -> Kind {
    match word {
        dk_abi::READ => Kind::Read,
        dk_abi::WRITE => Kind::Write,
        dk_abi::FLUSH => Kind::Flush,
        dk_abi::GET_ID => Kind::GetId,
        dk_abi::DISCARD => Kind::Discard,
        dk_abi::WRITE_ZEROES => Kind::WriteZeroes,
        dk_abi::KNOB_GET => Kind::KnobGet,
        dk_abi::KNOB_SET => Kind::KnobSet,
        _ => Kind::Unknown,
    }
}

/// Reads the chain that starts at `head` as a request.
///
/// # Errors
/// [`Malformed`] says what is wrong with it and where to say so.
pub fn parse<M: GuestMemory + ?Sized>(
    memory: &M,
    table: Table,
    head: u16,
) -> Result<Request, Malformed> {
    let lost = |fault| Malformed {
        head,
        fault,
        status: None,
        status_first: false,
    };
    let (mut readable, mut writable) = (Vec::new(), Vec::new());
    let mut links = Vec::new();
    let mut fault = None;
    let mut next = Some(head);
    let mut count = 0;
    while let Some(index) = next {
        if count == usize::from(table.size) {
            return Err(lost(Fault::Endless));
        }
        if count == MAX_DESCRIPTORS {
            return Err(lost(Fault::TooLong));
        }
        count += 1;
        let Some(descriptor) = table.descriptor(memory, index) else {
            return Err(lost(Fault::NoDescriptor));
        };
        if descriptor.refers_to_indirect_table() {
            return Err(lost(Fault::Indirect));
        }
        links.push(Link::new(index, &descriptor));
        next = descriptor.has_next().then(|| descriptor.next());
        if descriptor.len() == 0 {
            continue;
        }
        let piece = Piece {
            addr: descriptor.addr(),
            len: descriptor.len(),
        };
        if descriptor.is_write_only() {
            writable.push(piece);
        } else {
            if !writable.is_empty() {
                fault = Some(Fault::Order);
            }
            readable.push(piece);
        }
    }

    let Some(status) = take_last_byte(&mut writable) else {
        return Err(lost(fault.unwrap_or(Fault::NoStatus)));
    };
    if !memory.check_range(status, 1, Permissions::Write) {
        return Err(lost(Fault::OutOfRange));
    }
    let status_first = writable.is_empty();
    let bad = |fault| Malformed {
        head,
        fault,
        status: Some(status),
        status_first,
    };
    if let Some(fault) = fault {
        return Err(bad(fault));
    }
    let Some(header) = take_header(memory, &mut readable) else {
        let short = total(&readable) < HEADER_LEN as u64;
        return Err(bad(if short {
            Fault::ShortHeader
        } else {
            Fault::OutOfRange
        }));
    };
    let kind = kind_of(header.kind);
    let (to_device, from_device) = (total(&readable), total(&writable));
    if to_device + from_device > MAX_DATA {
        return Err(bad(Fault::TooMuch));
    }
    if !shape_fits(kind, to_device, from_device) {
        return Err(bad(Fault::Shape));
    }
    let in_range = |pieces: &[Piece], access| {
        pieces
            .iter()
            .all(|piece| memory.check_range(piece.addr, piece.len as usize, access))
    };
    if !in_range(&readable, Permissions::Read) || !in_range(&writable, Permissions::Write) {
        return Err(bad(Fault::OutOfRange));
    }
    let data_from_device = from_device > 0;
    let data = if data_from_device { writable } else { readable };
    Ok(Request {
        head,
        kind,
        sector: header.sector,
        data,
        data_from_device,
        status,
        links,
    })
}

/// Which data a kind carries, in bytes to and from the device.
fn shape_fits(kind: Kind, to_device: u64, from_device: u64) -> bool {
    let sectors = |len: u64| len > 0 && len.is_multiple_of(SECTOR_SIZE as u64);
    let segments = |len: u64| {
        let segment = SEGMENT_LEN as u64;
        (segment..=segment * MAX_SEGMENTS as u64).contains(&len) && len.is_multiple_of(segment)
    };
    match kind {
        Kind::Read => to_device == 0 && sectors(from_device),
        Kind::Write => sectors(to_device) && from_device == 0,
        Kind::Flush => to_device == 0 && from_device == 0,
        Kind::GetId => to_device == 0 && from_device > 0,
        Kind::Discard | Kind::WriteZeroes => segments(to_device) && from_device == 0,
        Kind::KnobGet => to_device == 0 && from_device == KNOB_VALUE_LEN as u64,
        Kind::KnobSet => to_device == KNOB_VALUE_LEN as u64 && from_device == 0,
        // Whatever it carries, it is answered as unsupported.
        Kind::Unknown => true,
    }
}

fn total(pieces: &[Piece]) -> u64 {
    pieces.iter().map(|piece| u64::from(piece.len)).sum()
}

/// Cuts the last byte off: the status. No piece is empty.
fn take_last_byte(writable: &mut Vec<Piece>) -> Option<GuestAddress> {
    let last = writable.last_mut()?;
    last.len -= 1;
    let status = last.addr.checked_add(u64::from(last.len));
    if last.len == 0 {
        writable.pop();
    }
    status
}

/// Cuts the header off. `None`, with the pieces as they were, if it is short or out of range.
fn take_header<M: GuestMemory + ?Sized>(memory: &M, readable: &mut Vec<Piece>) -> Option<Header> {
    let mut bytes = [0; HEADER_LEN];
    let (mut filled, mut pieces) = (0, 0);
    let mut rest = None;
    while filled < HEADER_LEN {
        let piece = readable.get(pieces)?;
        pieces += 1;
        let take = (piece.len as usize).min(HEADER_LEN - filled);
        memory
            .read_slice(&mut bytes[filled..filled + take], piece.addr)
            .ok()?;
        filled += take;
        let len = piece.len - take as u32;
        if len > 0 {
            rest = Some(Piece {
                addr: piece.addr.checked_add(take as u64)?,
                len,
            });
        }
    }
    readable.splice(..pieces, rest);
    Some(Header::from_bytes(bytes))
}

/// The status byte that a malformed chain is answered with.
pub const MALFORMED_STATUS: u8 = STATUS_IOERR;
const _: () = assert!(MALFORMED_STATUS != STATUS_OK);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use virtio_bindings::bindings::virtio_ring::{
        VRING_DESC_F_INDIRECT, VRING_DESC_F_NEXT, VRING_DESC_F_WRITE,
    };
    use vm_memory::GuestMemoryMmap;

    use super::*;

    const NEXT: u16 = VRING_DESC_F_NEXT as u16;
    const WRITE: u16 = VRING_DESC_F_WRITE as u16;
    const INDIRECT: u16 = VRING_DESC_F_INDIRECT as u16;

    const MEMORY: u64 = 1 << 20;
    const TABLE: Table = Table {
        addr: GuestAddress(0x1000),
        size: 16,
    };
    const HEADER: u64 = 0x2000;

    fn memory(kind: u32, descriptors: &[(u64, u32, u16, u16)]) -> GuestMemoryMmap {
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), MEMORY as usize)]);
        let memory = memory.expect("memory");
        let header = Header { kind, sector: 7 }.to_bytes();
        memory
            .write_slice(&header, GuestAddress(HEADER))
            .expect("in memory");
        for (index, &(addr, len, flags, next)) in (0..).zip(descriptors) {
            let at = TABLE.addr.unchecked_add(16 * index);
            memory
                .write_obj(Descriptor::new(addr, len, flags, next), at)
                .expect("in memory");
        }
        memory
    }

    #[test]
    fn a_request_is_read_whichever_way_it_is_cut() {
        let memory = memory(
            dk_abi::READ,
            &[
                (HEADER, 9, NEXT, 3),
                (0x3000, 1000, NEXT | WRITE, 2),
                (0x4000, 25, WRITE, 0),
                (HEADER + 9, 7, NEXT, 1),
            ],
        );
        let request = parse(&memory, TABLE, 0).expect("a request");
        assert_eq!(
            (request.head, request.kind, request.sector),
            (0, Kind::Read, 7)
        );
        let data = [(0x3000, 1000), (0x4000, 24)];
        let data = data.map(|(addr, len)| Piece {
            addr: GuestAddress(addr),
            len,
        });
        assert_eq!(request.data, data);
        assert_eq!(request.status, GuestAddress(0x4018));
        assert!(request.data_from_device);
    }

    #[test]
    fn each_fault_is_told_for_what_it_is() {
        let header = HEADER_LEN as u32;
        let status = (0x3000, 1, WRITE, 0);
        type Chain<'a> = &'a [(u64, u32, u16, u16)];
        let cases: [(Fault, Chain); 10] = [
            (Fault::NoDescriptor, &[(HEADER, header, NEXT, 16)]),
            (
                Fault::Endless,
                &[(HEADER, header, NEXT, 1), (HEADER, 1, NEXT, 0)],
            ),
            (Fault::Indirect, &[(0x1000, 16, INDIRECT, 0)]),
            (
                Fault::Order,
                &[
                    (0x3000, 1, NEXT | WRITE, 1),
                    (HEADER, header, NEXT, 2),
                    status,
                ],
            ),
            (Fault::ShortHeader, &[(HEADER, header - 1, NEXT, 1), status]),
            (Fault::NoStatus, &[(HEADER, header, 0, 0)]),
            (
                Fault::OutOfRange,
                &[(HEADER, header, NEXT, 1), (MEMORY, 1, WRITE, 0)],
            ),
            (Fault::OutOfRange, &[(MEMORY - 1, header, NEXT, 1), status]),
            (
                Fault::Shape,
                &[(HEADER, header, NEXT, 1), (0x3000, 12, WRITE, 0)],
            ),
            (
                Fault::TooMuch,
                &[
                    (HEADER, header, NEXT, 1),
                    (0, u32::MAX, NEXT | WRITE, 2),
                    status,
                ],
            ),
        ];
        for (fault, chain) in cases {
            let memory = memory(dk_abi::READ, chain);
            let bad = parse(&memory, TABLE, 0).expect_err("no request");
            assert_eq!(bad.fault, fault, "{chain:?}");
        }
        let long = Table { size: 256, ..TABLE };
        let memory = memory(dk_abi::READ, &[]);
        for index in 0..200 {
            let at = long.addr.unchecked_add(16 * u64::from(index));
            let descriptor = Descriptor::new(HEADER, header, NEXT, index + 1);
            memory.write_obj(descriptor, at).expect("in memory");
        }
        assert_eq!(
            parse(&memory, long, 0).expect_err("no request").fault,
            Fault::TooLong
        );
    }

    /// A descriptor that is often nearly right.
    fn descriptors() -> impl Strategy<Value = (u64, u32, u16, u16)> {
        let addr = prop_oneof![
            4 => Just(HEADER),
            4 => 0..MEMORY,
            1 => MEMORY - 32..MEMORY + 32,
            1 => any::<u64>(),
        ];
        let len = prop_oneof![
            4 => prop::sample::select(vec![0, 1, 8, 16, 17, 20, 512, 513, 1024]),
            1 => any::<u32>(),
        ];
        let flags = prop_oneof![
            8 => prop::sample::select(vec![0, NEXT, WRITE, NEXT | WRITE]),
            1 => any::<u16>(),
        ];
        let next = prop_oneof![8 => 0..TABLE.size, 1 => any::<u16>()];
        (addr, len, flags, next)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn whatever_the_chain_a_request_lies_in_memory_and_has_its_shape(
            chain in prop::collection::vec(descriptors(), 16),
            kind in prop::sample::select(vec![0, 1, 4, 8, 11, 13, dk_abi::KNOB_GET, dk_abi::KNOB_SET, 99]),
            head in 0..18u16,
        ) {
            let memory = memory(kind, &chain);
            match parse(&memory, TABLE, head) {
                Ok(request) => {
                    prop_assert_eq!(request.head, head);
                    prop_assert!(memory.check_range(request.status, 1, Permissions::Write));
                    prop_assert!(request.data.iter().all(|piece| piece.len > 0 && memory
                        .check_range(piece.addr, piece.len as usize, Permissions::Read)));
                    let (to, from) = if request.data_from_device {
                        (0, request.data_len())
                    } else {
                        (request.data_len(), 0)
                    };
                    prop_assert!(request.kind == Kind::Unknown || shape_fits(request.kind, to, from));
                    prop_assert!(request.data_len() <= MAX_DATA);
                }
                Err(bad) => {
                    prop_assert_eq!(bad.head, head);
                    if let Some(status) = bad.status {
                        prop_assert!(memory.check_range(status, 1, Permissions::Write));
                    }
                }
            }
        }

        #[test]
        fn a_good_request_is_read_however_it_is_cut(
            kind in prop::sample::select(vec![dk_abi::READ, dk_abi::WRITE]),
            cuts in prop::collection::btree_set(1..(16 + 1024 + 1u32), 0..12),
            sectors in 1..3u32,
        ) {
            let from_device = kind == dk_abi::READ;
            let total = 16 + 512 * sectors + 1;
            // Where the direction changes there must be a cut.
            let turn = if from_device { 16 } else { total - 1 };
            let mut cuts: Vec<u32> = cuts.into_iter().filter(|&cut| cut < total).collect();
            cuts.extend([turn, total]);
            cuts.sort_unstable();
            cuts.dedup();
            let mut chain = Vec::new();
            let mut start = 0;
            for (index, &cut) in (1..).zip(&cuts) {
                let flags = if start >= turn { WRITE } else { 0 };
                let more = if cut < total { NEXT } else { 0 };
                chain.push((HEADER + u64::from(start), cut - start, flags | more, index));
                start = cut;
            }
            let memory = memory(kind, &chain);
            let request = parse(&memory, TABLE, 0).expect("a request");
            prop_assert_eq!(request.kind, kind_of(kind));
            prop_assert_eq!(request.sector, 7);
            prop_assert_eq!(request.data_len(), u64::from(512 * sectors));
            prop_assert_eq!(request.data_from_device, from_device);
            prop_assert_eq!(request.status, GuestAddress(HEADER + u64::from(total) - 1));
            let mut at = HEADER + 16;
            for piece in &request.data {
                prop_assert_eq!(piece.addr, GuestAddress(at));
                at += u64::from(piece.len);
            }
        }
    }
}
