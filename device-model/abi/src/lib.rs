//! What the knob device and its driver say to each other on the ring.
//!
//! The device is a virtio-blk disk (virtio 1.2, section 5.2) that answers two more request
//! types on the same queue: get and set of a *knob*, a 64-bit register of the device. A knob
//! request has the layout of any virtio-blk request: a 16-byte header ([`Header`]), one data
//! buffer, one status byte. Both sides compile this crate; there is no second definition.
//!
//! | request | header `sector` | data buffer | direction of the data |
//! |---|---|---|---|
//! | [`KNOB_GET`] | knob index | [`KNOB_VALUE_LEN`] bytes, little endian | device writes |
//! | [`KNOB_SET`] | knob index | [`KNOB_VALUE_LEN`] bytes, little endian | driver writes |
//!
//! A get or set may be sent again (QEMU replays requests after the backend's death), so both
//! are idempotent.
#![no_std]
#![forbid(unsafe_code)]

/// Bytes of a virtio-blk sector, whatever the logical block size.
pub const SECTOR_SIZE: usize = 512;
/// Number of knobs of the device.
pub const KNOBS: usize = 2;
/// Bytes of a knob's value on the ring.
pub const KNOB_VALUE_LEN: usize = 8;
/// Bytes of a request header on the ring.
pub const HEADER_LEN: usize = 16;
/// Bytes that a get-id request returns at most (virtio 1.2, 5.2.6).
pub const ID_LEN: usize = 20;
/// Bytes of one discard or write-zeroes segment (virtio 1.2, 5.2.6).
pub const SEGMENT_LEN: usize = 16;

/// Read sectors (`VIRTIO_BLK_T_IN`).
pub const READ: u32 = 0;
/// Write sectors (`VIRTIO_BLK_T_OUT`).
pub const WRITE: u32 = 1;
/// Make earlier writes durable (`VIRTIO_BLK_T_FLUSH`).
pub const FLUSH: u32 = 4;
/// Return the disk's id string (`VIRTIO_BLK_T_GET_ID`).
pub const GET_ID: u32 = 8;
/// Drop sectors (`VIRTIO_BLK_T_DISCARD`).
pub const DISCARD: u32 = 11;
/// Zero sectors (`VIRTIO_BLK_T_WRITE_ZEROES`).
pub const WRITE_ZEROES: u32 = 13;
/// Read a knob. Vendor type: "dk" in the upper half, which the standard leaves free.
pub const KNOB_GET: u32 = 0x646b_0001;
/// Set a knob.
pub const KNOB_SET: u32 = 0x646b_0002;

/// The request was done.
pub const STATUS_OK: u8 = 0;
/// The request was understood and failed.
pub const STATUS_IOERR: u8 = 1;
/// The device doesn't know the request, or the knob.
pub const STATUS_UNSUPP: u8 = 2;

/// The header that starts every request: the first buffer, device-readable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// One of this crate's request types.
    pub kind: u32,
    /// First sector of the request in units of [`SECTOR_SIZE`], or the knob's index.
    pub sector: u64,
}

impl Header {
    /// The header as it stands on the ring: type, a reserved word, sector; little endian.
    pub const fn to_bytes(self) -> [u8; HEADER_LEN] {
        let k = self.kind.to_le_bytes();
        let s = self.sector.to_le_bytes();
        [
            k[0], k[1], k[2], k[3], 0, 0, 0, 0, s[0], s[1], s[2], s[3], s[4], s[5], s[6], s[7],
        ]
    }

    /// Reads a header from the ring. The reserved word is ignored, as virtio asks.
    pub const fn from_bytes(b: [u8; HEADER_LEN]) -> Self {
        Self {
            kind: u32::from_le_bytes([b[0], b[1], b[2], b[3]]),
            sector: u64::from_le_bytes([b[8], b[9], b[10], b[11], b[12], b[13], b[14], b[15]]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_is_laid_out_as_virtio_blk_says() {
        let header = Header {
            kind: KNOB_SET,
            sector: 0x0102_0304_0506_0708,
        };
        let bytes = header.to_bytes();
        assert_eq!(bytes[..4], [0x02, 0x00, 0x6b, 0x64]);
        assert_eq!(bytes[4..8], [0; 4]);
        assert_eq!(bytes[8..], [8, 7, 6, 5, 4, 3, 2, 1]);
        assert_eq!(Header::from_bytes(bytes), header);
    }
}
