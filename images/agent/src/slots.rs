//! The descriptors of an episode, one table for all its threads, closed as a program would.

use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use knobrig_proto::{Slot, Step};
use rustix::fs::{Mode, OFlags, open};
use rustix::io::{DupFlags, Errno, dup3, try_close};

use crate::lock;
use crate::paths::PathId;

/// An open file.
#[derive(Debug)]
pub struct Descriptor {
    fd: OwnedFd,
    /// The path that it was opened by.
    pub path: PathId,
    /// Cleared by the first `ESPIPE`: from then on it is read and written as a stream.
    seekable: AtomicBool,
}

impl Descriptor {
    /// A descriptor just opened.
    pub fn new(fd: OwnedFd, path: PathId) -> Self {
        Self {
            fd,
            path,
            seekable: AtomicBool::new(true),
        }
    }

    /// Its number, borrowed.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// A read or write at offset 0, or, where the file can't seek, a plain one.
    pub fn transfer(
        &self,
        mut call: impl FnMut(Option<u64>) -> Result<usize, Errno>,
    ) -> Result<i64, Errno> {
        if self.seekable.load(Ordering::Relaxed) {
            match call(Some(0)) {
                // The kernel says so before it asks the file: no call reached a driver.
                Err(Errno::SPIPE) => self.seekable.store(false, Ordering::Relaxed),
                other => return other.map(|len| len as i64),
            }
        }
        call(None).map(|len| len as i64)
    }
}

/// The table.
#[derive(Debug)]
pub struct Slots {
    /// Sorted.
    ids: Vec<Slot>,
    cells: Vec<Mutex<Option<Arc<Descriptor>>>>,
}

impl Slots {
    /// A table with the slots that the steps speak of.
    pub fn of<'a>(steps: impl Iterator<Item = &'a Step>) -> Self {
        let mut ids: Vec<Slot> = steps.filter_map(Step::slot).collect();
        ids.sort_unstable();
        ids.dedup();
        let cells = ids.iter().map(|_| Mutex::new(None)).collect();
        Self { ids, cells }
    }

    fn cell(&self, slot: Slot) -> Option<&Mutex<Option<Arc<Descriptor>>>> {
        self.ids
            .binary_search(&slot)
            .ok()
            .and_then(|at| self.cells.get(at))
    }

    /// What is open there.
    pub fn get(&self, slot: Slot) -> Option<Arc<Descriptor>> {
        self.cell(slot).and_then(|cell| lock(cell).clone())
    }

    /// Takes out what is open there.
    pub fn take(&self, slot: Slot) -> Option<Arc<Descriptor>> {
        self.cell(slot).and_then(|cell| lock(cell).take())
    }

    /// Puts in; what another thread put there meanwhile comes back.
    pub fn put(&self, slot: Slot, descriptor: Descriptor) -> Option<Arc<Descriptor>> {
        self.cell(slot)
            .and_then(|cell| lock(cell).replace(Arc::new(descriptor)))
    }

    /// Whether anything is open.
    pub fn any_open(&self) -> bool {
        self.cells.iter().any(|cell| lock(cell).is_some())
    }

    /// Closes all that is open.
    pub fn close_all(&self) {
        for cell in &self.cells {
            let descriptor = lock(cell).take();
            if let Some(descriptor) = descriptor {
                // Nobody is told how a forgotten descriptor's close went.
                let _ = close(descriptor);
            }
        }
    }
}

/// Closes now, whoever else is inside a call on it, as `close` does.
///
/// While another thread uses the descriptor its number must not be given to another file, which
/// that thread could then hit. So the file is closed by putting an `O_PATH` descriptor in its
/// place, on which a call gives `EBADF` as on a closed one, and the number is given back by the
/// last user. That way of closing has no errno (`dup2` drops it).
pub fn close(descriptor: Arc<Descriptor>) -> Result<(), Errno> {
    let shared = match Arc::try_unwrap(descriptor) {
        Ok(alone) => {
            let raw = alone.fd.into_raw_fd();
            // SAFETY: into_raw_fd gave up the only owner of this open descriptor, and nobody
            // else can borrow it: the Arc was unique. try_close is its last use.
            return unsafe { try_close(raw) };
        }
        Err(shared) => shared,
    };
    let closed = closed_file()?;
    // SAFETY: the descriptor is open and stays so: `shared` owns it past this use, and
    // ManuallyDrop keeps this second OwnedFd from ever closing it. dup3 replaces what the number
    // stands for in one step, so that every other borrower still holds an open descriptor.
    let mut number = ManuallyDrop::new(unsafe { OwnedFd::from_raw_fd(shared.fd.as_raw_fd()) });
    dup3(closed, &mut number, DupFlags::CLOEXEC)
}

/// The `O_PATH` descriptor that stands in for closed files.
fn closed_file() -> Result<BorrowedFd<'static>, Errno> {
    static CLOSED: OnceLock<OwnedFd> = OnceLock::new();
    if CLOSED.get().is_none() {
        let root = open("/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
        // Two threads may come here at once; the later descriptor is dropped.
        let _ = CLOSED.set(root);
    }
    CLOSED.get().map(AsFd::as_fd).ok_or(Errno::BADF)
}
