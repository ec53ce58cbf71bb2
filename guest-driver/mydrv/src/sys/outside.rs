// SPDX-License-Identifier: GPL-2.0-only
//! dk_release: the module whose function releases a dk0 after mydrv has gone.

use crate::sys::node::Release;
use core::mem::transmute;
use kernel::bindings;
use kernel::prelude::*;

/// dk_release's function, for one dk0. `ENOENT` where the module isn't loaded.
///
/// Looked up by name, so that mydrv loads without it; and the look-up counts dk_release, which
/// gives that count back once it has released the dk0.
pub(crate) fn release() -> Result<Release> {
    // SAFETY: a name.
    let symbol = unsafe { bindings::__symbol_get(c"dk_release".as_char_ptr()) };
    if symbol.is_null() {
        pr_err!("this lifetime needs the module dk_release, which isn't loaded\n");
        return Err(ENOENT);
    }
    // SAFETY: dk_release exports a function of this type by this name.
    Ok(unsafe { transmute::<*mut c_void, Release>(symbol) })
}
