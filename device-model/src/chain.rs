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
