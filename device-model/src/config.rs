//! What the device offers: feature bits and the configuration space (virtio 1.2, 5.2.4).

use dk_abi::SECTOR_SIZE;
use virtio_bindings::bindings::virtio_blk::{
    VIRTIO_BLK_F_BLK_SIZE, VIRTIO_BLK_F_DISCARD, VIRTIO_BLK_F_FLUSH, VIRTIO_BLK_F_SEG_MAX,
    VIRTIO_BLK_F_SIZE_MAX, VIRTIO_BLK_F_WRITE_ZEROES,
};
use virtio_bindings::bindings::virtio_config::VIRTIO_F_VERSION_1;

use crate::chain::{MAX_SEGMENTS, SEG_MAX, SIZE_MAX};
use crate::execute::MAX_SEGMENT_SECTORS;

/// Bytes of the configuration space that can be asked for, as vhost-user bounds it.
pub const LEN: usize = 256;

/// The feature bits of virtio and virtio-blk. No event index and no indirect tables: neither
/// pays at one small request at a time, and what isn't offered can't be got wrong.
pub const FEATURES: u64 = 1 << VIRTIO_F_VERSION_1
    | 1 << VIRTIO_BLK_F_SIZE_MAX
    | 1 << VIRTIO_BLK_F_SEG_MAX
    | 1 << VIRTIO_BLK_F_BLK_SIZE
    | 1 << VIRTIO_BLK_F_FLUSH
    | 1 << VIRTIO_BLK_F_DISCARD
    | 1 << VIRTIO_BLK_F_WRITE_ZEROES;

/// The configuration space of a disk of so many bytes; what is not offered is zero.
pub fn space(disk_len: u64) -> [u8; LEN] {
    let sector = SECTOR_SIZE as u32;
    let mut space = [0; LEN];
    let mut put = |at: usize, bytes: &[u8]| space[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &(disk_len / u64::from(sector)).to_le_bytes()); // capacity
    put(8, &SIZE_MAX.to_le_bytes()); // size_max
    put(12, &(SEG_MAX as u32).to_le_bytes()); // seg_max
    put(20, &sector.to_le_bytes()); // blk_size
    put(34, &1u16.to_le_bytes()); // num_queues
    put(36, &MAX_SEGMENT_SECTORS.to_le_bytes()); // max_discard_sectors
    put(40, &(MAX_SEGMENTS as u32).to_le_bytes()); // max_discard_seg
    put(44, &1u32.to_le_bytes()); // discard_sector_alignment
    put(48, &MAX_SEGMENT_SECTORS.to_le_bytes()); // max_write_zeroes_sectors
    put(52, &(MAX_SEGMENTS as u32).to_le_bytes()); // max_write_zeroes_seg
    put(56, &[1]); // write_zeroes_may_unmap
    space
}
