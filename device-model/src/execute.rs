//! Carries requests out: a parsed request, the disk and the knobs in, guest memory written, a
//! status out.

use std::io;

use dk_abi::{
    ID_LEN, KNOB_VALUE_LEN, SECTOR_SIZE, SEGMENT_LEN, STATUS_IOERR, STATUS_OK, STATUS_UNSUPP,
};
use dk_control::Kind;
use vm_memory::{Address, Bytes, GuestAddress, GuestMemory};

use crate::chain::{MAX_SEGMENTS, Piece, Request};
use crate::disk::Disk;
use crate::error::Error;
use crate::knobs::Knobs;

/// Sectors that one segment of a discard or write-zeroes may cover.
pub const MAX_SEGMENT_SECTORS: u32 = 16 * 1024;

/// Data go through a buffer of this size, so that a request costs no memory of its own.
const BOUNCE: usize = 64 * 1024;

/// What requests work on.
#[derive(Debug)]
pub struct Store {
    disk: Disk,
    knobs: Knobs,
    id: [u8; ID_LEN],
    bounce: Box<[u8; BOUNCE]>,
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The status byte.
    pub status: u8,
    /// Bytes of the data buffers that the device wrote, from their beginning.
    pub written: u32,
}

/// Why a request failed.
enum Failure {
    Io,
    Unsupported,
}

impl From<io::Error> for Failure {
    fn from(_: io::Error) -> Self {
        Self::Io
    }
}

impl From<vm_memory::GuestMemoryError> for Failure {
    fn from(_: vm_memory::GuestMemoryError) -> Self {
        Self::Io
    }
}

impl Store {
    /// A disk and fresh knobs. `id` is what get-id answers.
    ///
    /// # Errors
    /// The id is too long.
    pub fn new(disk: Disk, id: &str) -> Result<Self, Error> {
        let mut bytes = [0; ID_LEN];
        let slot = bytes
            .get_mut(..id.len())
            .ok_or_else(|| Error::IdTooLong(id.to_owned()))?;
        slot.copy_from_slice(id.as_bytes());
        Ok(Self {
            disk,
            knobs: Knobs::default(),
            id: bytes,
            bounce: Box::new([0; BOUNCE]),
        })
    }

    /// The disk.
    pub fn disk(&self) -> &Disk {
        &self.disk
    }

    /// Carries a request out, and writes its data, but not its status byte.
    pub fn execute<M: GuestMemory + ?Sized>(&mut self, memory: &M, request: &Request) -> Outcome {
        match self.try_execute(memory, request) {
            Ok(written) => Outcome {
                status: STATUS_OK,
                written,
            },
            Err(Failure::Io) => Outcome {
                status: STATUS_IOERR,
                written: 0,
            },
            Err(Failure::Unsupported) => Outcome {
                status: STATUS_UNSUPP,
                written: 0,
            },
        }
    }

    fn try_execute<M: GuestMemory + ?Sized>(
        &mut self,
        memory: &M,
        request: &Request,
    ) -> Result<u32, Failure> {
        match request.kind {
            Kind::Read => self.read(memory, request),
            Kind::Write => self.write(memory, request),
            Kind::Flush => {
                self.disk.flush()?;
                Ok(0)
            }
            Kind::GetId => write_data(memory, &request.data, &self.id),
            Kind::Discard | Kind::WriteZeroes => self.clear(memory, request),
            Kind::KnobGet => {
                let value = self.knobs.get(request.sector).ok_or(Failure::Unsupported)?;
                write_data(memory, &request.data, &value.to_le_bytes())
            }
            Kind::KnobSet => {
                let mut value = [0; KNOB_VALUE_LEN];
                read_data(memory, &request.data, &mut value)?;
                let known = self.knobs.set(request.sector, u64::from_le_bytes(value));
                if known {
                    Ok(0)
                } else {
                    Err(Failure::Unsupported)
                }
            }
            Kind::Unknown => Err(Failure::Unsupported),
        }
    }

    fn read<M: GuestMemory + ?Sized>(
        &mut self,
        memory: &M,
        request: &Request,
    ) -> Result<u32, Failure> {
        let mut offset = self
            .disk
            .offset(request.sector, request.data_len())
            .ok_or(Failure::Io)?;
        let mut written = 0;
        for (addr, len) in pieces(&request.data) {
            let bytes = &mut self.bounce[..len];
            self.disk.read(bytes, offset)?;
            memory.write_slice(bytes, addr)?;
            offset += len as u64;
            written += len as u32;
        }
        Ok(written)
    }

    fn write<M: GuestMemory + ?Sized>(
        &mut self,
        memory: &M,
        request: &Request,
    ) -> Result<u32, Failure> {
        let mut offset = self
            .disk
            .offset(request.sector, request.data_len())
            .ok_or(Failure::Io)?;
        for (addr, len) in pieces(&request.data) {
            let bytes = &mut self.bounce[..len];
            memory.read_slice(bytes, addr)?;
            self.disk.write(bytes, offset)?;
            offset += len as u64;
        }
        Ok(0)
    }

    /// Discard and write-zeroes. All segments are checked before the first is done.
    fn clear<M: GuestMemory + ?Sized>(
        &mut self,
        memory: &M,
        request: &Request,
    ) -> Result<u32, Failure> {
        let mut bytes = [0; SEGMENT_LEN * MAX_SEGMENTS];
        let bytes = bytes
            .get_mut(..request.data_len() as usize)
            .ok_or(Failure::Io)?;
        read_data(memory, &request.data, bytes)?;
        let discard = request.kind == Kind::Discard;
        let mut ranges = [(0, 0, false); MAX_SEGMENTS];
        let segments = bytes.as_chunks::<SEGMENT_LEN>().0;
        for (range, segment) in ranges.iter_mut().zip(segments) {
            *range = self.segment(segment, discard)?;
        }
        for &(offset, len, may_unmap) in &ranges[..segments.len()] {
            if discard {
                self.disk.discard(offset, len)?;
            } else {
                self.disk.write_zeroes(offset, len, may_unmap)?;
            }
        }
        Ok(0)
    }

    /// A `virtio_blk_discard_write_zeroes`: offset and length in bytes, and its unmap flag.
    fn segment(
        &self,
        segment: &[u8; SEGMENT_LEN],
        discard: bool,
    ) -> Result<(u64, u64, bool), Failure> {
        /// `VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP`; the other flags are reserved.
        const UNMAP: u32 = 1;
        let [
            s0,
            s1,
            s2,
            s3,
            s4,
            s5,
            s6,
            s7,
            n0,
            n1,
            n2,
            n3,
            f0,
            f1,
            f2,
            f3,
        ] = *segment;
        let sector = u64::from_le_bytes([s0, s1, s2, s3, s4, s5, s6, s7]);
        let sectors = u32::from_le_bytes([n0, n1, n2, n3]);
        let flags = u32::from_le_bytes([f0, f1, f2, f3]);
        // Virtio 1.2, 5.2.6.2: a discard that sets the flag is one that the device doesn't know.
        if flags & !UNMAP != 0 || (discard && flags != 0) {
            return Err(Failure::Unsupported);
        }
        if sectors > MAX_SEGMENT_SECTORS {
            return Err(Failure::Io);
        }
        let len = u64::from(sectors) * SECTOR_SIZE as u64;
        let offset = self.disk.offset(sector, len).ok_or(Failure::Io)?;
        Ok((offset, len, flags & UNMAP != 0))
    }
}

/// The pieces, none longer than the bounce buffer.
fn pieces(data: &[Piece]) -> impl Iterator<Item = (GuestAddress, usize)> {
    data.iter().flat_map(|piece| {
        let len = piece.len as usize;
        (0..len).step_by(BOUNCE).map(move |at| {
            // The piece lay in guest memory: its addresses don't wrap.
            (piece.addr.unchecked_add(at as u64), BOUNCE.min(len - at))
        })
    })
}

/// Writes `bytes` over the pieces, as far as they reach; tells how many.
fn write_data<M: GuestMemory + ?Sized>(
    memory: &M,
    data: &[Piece],
    bytes: &[u8],
) -> Result<u32, Failure> {
    let mut written = 0;
    for (addr, len) in pieces(data) {
        let rest = &bytes[written..];
        let part = &rest[..len.min(rest.len())];
        memory.write_slice(part, addr)?;
        written += part.len();
    }
    Ok(written as u32)
}

/// Fills `bytes` from the pieces, which are as long.
fn read_data<M: GuestMemory + ?Sized>(
    memory: &M,
    data: &[Piece],
    bytes: &mut [u8],
) -> Result<(), Failure> {
    let mut filled = 0;
    for (addr, len) in pieces(data) {
        let part = bytes.get_mut(filled..filled + len).ok_or(Failure::Io)?;
        memory.read_slice(part, addr)?;
        filled += len;
    }
    Ok(())
}
