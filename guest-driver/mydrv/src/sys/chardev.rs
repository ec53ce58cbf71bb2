// SPDX-License-Identifier: GPL-2.0-only
//! The file operations of /dev/dk0, as C calls them.
//!
//! # Why the module's text outlives every call into it
//!
//! Both the cdev and its operations name the module as their owner, and each is needed.
//! chrdev_open() takes a count for the cdev before it looks at the operations, which are in the
//! module: an open that meets an unload fails there. At the other end __fput() calls
//! `->release`, gives back the cdev's reference, which may be dk0's last and then runs dk0's
//! `->release` in the module, gives back the cdev's count, and only then reads the operations
//! once more to give back theirs: the last thing that it does with us is a call of the kernel's
//! own module_put().
//!
//! That makes two counts for an opener, where the 2007 thread has one. So `open` gives one back
//! and `release` takes it again, which can't fail as the other is held throughout.

use crate::chardev;
use crate::dk0::Dk0;
use crate::sys::module::{self, Count};
use crate::sys::wait::WaitQueue;
use core::marker::PhantomData;
use core::mem;
use core::ptr::NonNull;
use kernel::bindings;
use kernel::error::from_result;
use kernel::prelude::*;
use kernel::sync::aref::ARef;
use kernel::uaccess::{UserPtr, UserSlice};

/// `poll(2)`'s answer for a file that can be read and written: EPOLLIN, EPOLLOUT, EPOLLRDNORM,
/// EPOLLWRNORM of include/uapi/linux/eventpoll.h.
pub(crate) const READY: u32 = 0x001 | 0x004 | 0x040 | 0x100;
/// And for one whose device is gone: EPOLLERR, EPOLLHUP.
pub(crate) const GONE: u32 = 0x008 | 0x010;

/// A `struct file_operations` that never changes.
#[repr(transparent)]
pub(crate) struct Operations(bindings::file_operations);

// SAFETY: nobody writes to it.
unsafe impl Sync for Operations {}

impl Operations {
    /// dk0's, of a module that opens count.
    pub(crate) const fn owned_by(owner: *mut bindings::module) -> Self {
        Self(bindings::file_operations {
            owner,
            open: Some(open),
            release: Some(release),
            read: Some(read),
            write: Some(write),
            llseek: Some(llseek),
            poll: Some(poll),
            ..pin_init::zeroed()
        })
    }

    pub(crate) fn as_raw(&'static self) -> *const bindings::file_operations {
        &self.0
    }
}

/// dk0's.
pub(crate) static OPERATIONS: Operations = Operations::owned_by(module::this_module());

/// # Safety
/// Called by chrdev_open() with the inode of a dk0, whose cdev it holds.
unsafe extern "C" fn open(inode: *mut bindings::inode, file: *mut bindings::file) -> c_int {
    // SAFETY: the cdev is that of a dk0, and chrdev_open() has a reference to it.
    let dk0 = unsafe { Dk0::from_cdev((*inode).__bindgen_anon_5.i_cdev) };
    let dk0: ARef<Dk0> = dk0.into();
    // SAFETY: the private data of a file is ours.
    unsafe { (*file).private_data = ARef::into_raw(dk0).as_ptr().cast() };
    // SAFETY: chrdev_open() took one for the cdev and one for the operations.
    drop(unsafe { Count::adopt() });
    0
}

/// # Safety
/// Called by __fput(), once for each successful open.
unsafe extern "C" fn release(_: *mut bindings::inode, file: *mut bindings::file) -> c_int {
    // SAFETY: the count of the operations is held until __fput() is done.
    mem::forget(unsafe { Count::take_another() });
    // SAFETY: set by `open`, and taken back once.
    drop(unsafe { ARef::<Dk0>::from_raw(NonNull::new_unchecked((*file).private_data.cast())) });
    0
}

/// The dk0 that a file belongs to.
///
/// # Safety
/// `file` is an open file of ours, and stays open for `'a`.
unsafe fn dk0<'a>(file: *mut bindings::file) -> &'a Dk0 {
    // SAFETY: set by `open`, which took the reference that keeps it.
    unsafe { &*(*file).private_data.cast() }
}

/// # Safety
/// Called by vfs_read() with an open file of ours, and the position to read at.
unsafe extern "C" fn read(
    file: *mut bindings::file,
    to: *mut c_char,
    len: usize,
    pos: *mut bindings::loff_t,
) -> isize {
    let to = UserSlice::new(UserPtr::from_ptr(to.cast()), len).writer();
    // SAFETY: an open file of ours; the position is this call's.
    let (dk0, pos) = unsafe { (dk0(file), &mut *pos) };
    moved(pos, |at| chardev::read(dk0, to, at))
}

/// # Safety
/// Called by vfs_write() with an open file of ours, and the position to write at.
unsafe extern "C" fn write(
    file: *mut bindings::file,
    from: *const c_char,
    len: usize,
    pos: *mut bindings::loff_t,
) -> isize {
    let from = UserSlice::new(UserPtr::from_ptr(from.cast_mut().cast()), len).reader();
    // SAFETY: an open file of ours; the position is this call's.
    let (dk0, pos) = unsafe { (dk0(file), &mut *pos) };
    moved(pos, |at| chardev::write(dk0, from, at))
}

/// Moves the position by what `transfer` at it has moved.
fn moved(pos: &mut bindings::loff_t, transfer: impl FnOnce(u64) -> Result<usize>) -> isize {
    from_result(|| {
        let len = transfer(u64::try_from(*pos).map_err(|_| EINVAL)?)?;
        *pos += len as bindings::loff_t;
        Ok(len as isize)
    })
}

/// # Safety
/// Called by vfs_llseek() with an open file of ours.
unsafe extern "C" fn llseek(
    file: *mut bindings::file,
    offset: bindings::loff_t,
    whence: c_int,
) -> bindings::loff_t {
    // SAFETY: an open file of ours.
    let data = unsafe { dk0(file) }.data();
    from_result(|| {
        if data.is_gone() {
            return Err(ENODEV);
        }
        let size = bindings::loff_t::try_from(data.size()).unwrap_or(bindings::loff_t::MAX);
        // SAFETY: a valid file. The result is a position or an errno, as our own is to be.
        Ok(unsafe { bindings::fixed_size_llseek(file, offset, whence, size) })
    })
}

/// # Safety
/// Called by vfs_poll() with an open file of ours.
unsafe extern "C" fn poll(
    file: *mut bindings::file,
    table: *mut bindings::poll_table_struct,
) -> bindings::__poll_t {
    let table = PollTable {
        file,
        table,
        call: PhantomData,
    };
    // SAFETY: an open file of ours.
    chardev::poll(unsafe { dk0(file) }, table)
}

/// Where `poll(2)` registers what it waits on.
pub(crate) struct PollTable<'a> {
    file: *mut bindings::file,
    table: *mut bindings::poll_table_struct,
    call: PhantomData<&'a ()>,
}

impl PollTable<'_> {
    /// Lets the poller wait on a queue of the file's dk0.
    pub(crate) fn wait_on(&self, queue: &WaitQueue) {
        // SAFETY: valid for the call that we are in. The queue lives as long as dk0, to which
        // the file has a reference until `release`; a poller has left by then.
        unsafe { bindings::poll_wait(self.file, queue.as_raw(), self.table) };
    }
}
