// SPDX-License-Identifier: GPL-2.0-only
//! `publish-early`: dk0 and its knobs are there before the controller that they lead to is ready.
//!
//! From the moment at which a file can be opened it is opened: udev is waiting for it. What it
//! leads to must be complete by then.
//!
//! What should be seen, with `drained`, when a knob is read while probe waits for the device's
//! id: a NULL pointer dereference in the controller's code, below a read of a knob.

use crate::controller::Controller;
use crate::dk0;
use crate::probe::{Face, Parts, Started};
use crate::rules::{self, Rules};
use core::mem::MaybeUninit;
use core::ptr::NonNull;
use kernel::alloc::flags::__GFP_ZERO;
use kernel::prelude::*;
use kernel::{device, pci};

pub(crate) fn plant(rules: &mut Rules) {
    rules.bring_up = bring_up;
}

fn bring_up(pdev: &pci::Device<device::Core<'_>>) -> Result<Parts> {
    let rules = rules::get();
    let started = Started::bring_up(pdev)?;
    let mut room: KBox<MaybeUninit<Controller>> = KBox::new_uninit(GFP_KERNEL | __GFP_ZERO)?;
    let dk0 = dk0::Published::new(pdev, &started, NonNull::from(&mut *room).cast())?;
    let knobs = (rules.add_knobs)(dk0.node())?;
    let controller = KBox::pin(started.controller(), GFP_KERNEL)?;
    (rules.identify)(&controller)?;
    drop(controller);
    Ok(Parts {
        face: Some(Face { knobs, dk0 }),
        controller: KBox::into_pin(room.write(started.controller())),
        started,
    })
}
