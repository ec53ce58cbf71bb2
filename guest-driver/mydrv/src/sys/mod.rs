// SPDX-License-Identifier: GPL-2.0-only
//! Where the driver meets C: every function that C calls, and all `unsafe` code but dk0's two
//! guards and what mutants do wrong. Each file wraps one thing that the kernel crate has no safe form of.

pub(crate) mod chardev;
pub(crate) mod chrdev;
pub(crate) mod hal;
pub(crate) mod irq;
pub(crate) mod kernfs;
pub(crate) mod module;
pub(crate) mod node;
pub(crate) mod outside;
pub(crate) mod param;
pub(crate) mod pci;
pub(crate) mod sysfs;
pub(crate) mod tail;
pub(crate) mod ticker;
pub(crate) mod wait;

use kernel::bindings;
use kernel::error::Error;
use kernel::prelude::*;

/// `EOPNOTSUPP`, which the kernel crate's list lacks.
pub(crate) fn eopnotsupp() -> Error {
    Error::from_errno(-(bindings::EOPNOTSUPP as c_int))
}

/// A pointer of C that may be an `ERR_PTR`, or null.
fn from_err_ptr<T>(ptr: *mut T) -> Result<*mut T> {
    const LAST: isize = -(bindings::MAX_ERRNO as isize);
    match ptr as isize {
        errno @ LAST..=-1 => Err(Error::from_errno(errno as c_int)),
        0 => Err(ENOMEM),
        _ => Ok(ptr),
    }
}
