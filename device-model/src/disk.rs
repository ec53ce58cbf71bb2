//! The disk: a file, be it one in memory.
//!
//! The disk in memory is a memfd: it takes no more memory than what was written to it, and a
//! discard gives memory back, as it gives blocks of a file back.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::Path;

use dk_abi::SECTOR_SIZE;
use rustix::fs::{FallocateFlags, MemfdFlags};
use rustix::io::Errno;

use crate::error::Error;

static ZEROES: [u8; 64 * 1024] = [0; 64 * 1024];

/// A disk of whole sectors. Offsets and lengths are bytes.
#[derive(Debug)]
pub struct Disk {
    file: File,
    len: u64,
}

impl Disk {
    /// A disk of `len` zero bytes in memory.
    ///
    /// # Errors
    /// `len` isn't a positive multiple of the sector size, or is more than a file can have.
    pub fn in_memory(len: u64) -> Result<Self, Error> {
        check_len(len)?;
        let file = rustix::fs::memfd_create("dk-disk", MemfdFlags::CLOEXEC);
        let file = File::from(file.map_err(Error::system("make a file in memory"))?);
        file.set_len(len).map_err(|_| Error::DiskSize(len))?;
        Ok(Self { file, len })
    }

    /// A file or block device as a disk of its size.
    ///
    /// # Errors
    /// It can't be opened for reading and writing, or its size can't be served.
    pub fn in_file(path: &Path) -> Result<Self, Error> {
        let open = OpenOptions::new().read(true).write(true).open(path);
        let mut file = open.map_err(Error::file("open the disk", path))?;
        // Metadata tells no size of a block device; its end does.
        let end = file.seek(SeekFrom::End(0));
        let len = end.map_err(Error::file("find the size of the disk", path))?;
        check_len(len)?;
        Ok(Self { file, len })
    }

    /// Bytes of the disk.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Never: a disk has at least one sector.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// Whether `len` bytes from a sector on lie on the disk; their offset if so.
    pub fn offset(&self, sector: u64, len: u64) -> Option<u64> {
        let offset = sector.checked_mul(SECTOR_SIZE as u64)?;
        (offset.checked_add(len)? <= self.len).then_some(offset)
    }

    /// Fills `bytes` from `offset` on.
    ///
    /// # Errors
    /// The range isn't on the disk, or the file can't be read.
    pub fn read(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        self.check_range(offset, bytes.len() as u64)?;
        self.file.read_exact_at(bytes, offset)
    }

    /// Writes `bytes` from `offset` on.
    ///
    /// # Errors
    /// The range isn't on the disk, or the file can't be written.
    pub fn write(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.check_range(offset, bytes.len() as u64)?;
        self.file.write_all_at(bytes, offset)
    }

    /// Makes earlier writes durable.
    ///
    /// # Errors
    /// The file can't be synced.
    pub fn flush(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    /// Gives a range back; it reads as zeroes, or as it was where the file system can't.
    ///
    /// # Errors
    /// The range isn't on the disk, or the file can't be written.
    pub fn discard(&mut self, offset: u64, len: u64) -> io::Result<()> {
        self.check_range(offset, len)?;
        // Where no hole can be made, the hint can't be taken.
        self.punch(offset, len).unwrap_or(Ok(()))
    }

    /// Zeroes a range, giving it back if it may.
    ///
    /// # Errors
    /// The range isn't on the disk, or the file can't be written.
    pub fn write_zeroes(&mut self, offset: u64, len: u64, may_unmap: bool) -> io::Result<()> {
        self.check_range(offset, len)?;
        if may_unmap && let Some(done) = self.punch(offset, len) {
            return done;
        }
        let end = offset + len;
        let mut at = offset;
        while at < end {
            let take = (end - at).min(ZEROES.len() as u64);
            self.file.write_all_at(&ZEROES[..take as usize], at)?;
            at += take;
        }
        Ok(())
    }

    /// Punches a hole. `None` where that can't be done.
    fn punch(&self, offset: u64, len: u64) -> Option<io::Result<()>> {
        if len == 0 {
            return Some(Ok(()));
        }
        let how = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        match rustix::fs::fallocate(&self.file, how, offset, len) {
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => None,
            done => Some(done.map_err(io::Error::from)),
        }
    }

    /// A write past the end would make a file longer.
    fn check_range(&self, offset: u64, len: u64) -> io::Result<()> {
        let end = offset.checked_add(len).filter(|&end| end <= self.len);
        end.map(drop)
            .ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }
}

fn check_len(len: u64) -> Result<(), Error> {
    let whole = len > 0 && len.is_multiple_of(SECTOR_SIZE as u64);
    if whole {
        Ok(())
    } else {
        Err(Error::DiskSize(len))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn both() -> Vec<(Disk, Option<tempfile::NamedTempFile>)> {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        file.as_file().set_len(1 << 20).expect("1 MiB");
        let in_file = Disk::in_file(file.path()).expect("a disk");
        vec![
            (Disk::in_memory(1 << 20).expect("a disk"), None),
            (in_file, Some(file)),
        ]
    }

    #[test]
    fn what_was_written_is_read_until_zeroed() {
        for (mut disk, _file) in both() {
            disk.write(&[7; 2048], 512).expect("on the disk");
            disk.flush().expect("synced");
            disk.write_zeroes(1024, 512, false).expect("on the disk");
            disk.discard(2048, 512).expect("on the disk");
            let mut bytes = [1; 3072];
            disk.read(&mut bytes, 0).expect("on the disk");
            assert_eq!(bytes[..512], [0; 512]);
            assert_eq!(bytes[512..1024], [7; 512]);
            assert_eq!(bytes[1024..1536], [0; 512]);
            assert_eq!(bytes[1536..2048], [7; 512]);
        }
    }

    #[test]
    fn nothing_is_read_or_found_past_the_end() {
        for (mut disk, _file) in both() {
            assert_eq!(disk.offset(2047, 512), Some(2047 * 512));
            assert_eq!(disk.offset(2047, 513), None);
            assert_eq!(disk.offset(u64::MAX, 512), None);
            assert_eq!(disk.offset(u64::MAX / 512, u64::MAX), None);
            assert!(disk.read(&mut [0; 512], (1 << 20) - 511).is_err());
            assert!(disk.write(&[0; 512], (1 << 20) - 511).is_err());
            assert!(disk.write_zeroes((1 << 20) - 511, 512, true).is_err());
        }
    }

    #[test]
    fn sizes_that_are_no_sectors_are_refused() {
        for len in [0, 1, 511, 513, u64::MAX] {
            assert!(matches!(Disk::in_memory(len), Err(Error::DiskSize(l)) if l == len));
        }
        let odd = tempfile::NamedTempFile::new().expect("a temporary file");
        odd.as_file().set_len(1000).expect("1000 bytes");
        assert!(matches!(
            Disk::in_file(odd.path()),
            Err(Error::DiskSize(1000))
        ));
    }
}
