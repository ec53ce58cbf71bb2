// SPDX-License-Identifier: GPL-2.0-only
//! `unwind-twice`: where the device doesn't say who it is, probe frees the controller twice.
//!
//! Once where the error is found, once more where all errors meet.
//!
//! What should be seen, with `drained`, when the device doesn't answer the request for its id
//! within `timeout`: KASAN reports a double-free or a use-after-free below probe.

use crate::controller::Controller;
use crate::probe;
use crate::rules::Rules;
use kernel::prelude::*;

pub(crate) fn plant(rules: &mut Rules) {
    rules.identify = identify;
}

fn identify(controller: &Pin<KBox<Controller>>) -> Result {
    probe::identify(controller).inspect_err(|_| {
        // SAFETY: the caller frees it, too, which is the mistake.
        drop(unsafe { core::ptr::read(controller) });
    })
}
