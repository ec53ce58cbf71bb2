// SPDX-License-Identifier: GPL-2.0-only
//! `owner-unset`: the file operations of /dev/dk0 don't name their module.
//!
//! The kernel counts what the operations name as their owner for as long as the file is open.
//! With none, an opener counts nothing, and rmmod succeeds with /dev/dk0 open.
//!
//! What should be seen, with `drained` and /dev/dk0 open: /sys/module/mydrv/refcnt is 0, and rmmod
//! isn't refused. It then waits in exit for the file's reference to dk0, and the close runs in
//! text that nothing keeps.

use crate::rules::Rules;
use crate::sys::chardev::Operations;
use core::ptr::null_mut;

pub(crate) fn plant(rules: &mut Rules) {
    static UNOWNED: Operations = Operations::owned_by(null_mut());
    rules.operations = &UNOWNED;
}
