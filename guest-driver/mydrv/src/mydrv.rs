// SPDX-License-Identifier: GPL-2.0-only
//! mydrv: the driver of the knob device, whose module may go away in several ways.
//!
//! A kernel module; on the host this crate is empty. Its page for readers is `../README.md`.
//!
//! From the outside in: `probe` binds the PCI function and holds all parts in the order in
//! which they go; `dk0`, `knobs` and `chardev` are what user space sees; `controller`
//! asks the device, `port` carries it to the ring of `dk_ring` and back, and `lookout` finds
//! answers whose interrupt was lost. `rules` names what a lifetime decides, `lifetime` and
//! `mutant` are the lifetimes and the planted bugs, each in a file. Everything that C calls is
//! in `sys`.
#![cfg(MODULE)]

use kernel::prelude::*;
use kernel::{driver, pci};

mod active;
mod chardev;
mod claim;
mod controller;
mod dk0;
mod exclusive;
mod knobs;
mod lifetime;
mod lookout;
mod mutant;
mod port;
mod probe;
mod rules;
mod sys;

module! {
    type: Mydrv,
    name: "mydrv",
    authors: ["The knobrig authors"],
    description: "The knob device's driver",
    license: "GPL v2",
    params: {
        timeout: u32 {
            default: 5000,
            description: "how long an operation waits for the device, in ms (default 5000)",
        },
    },
}

/// The loaded module. Unloading drops it: first unbinds the device, then sees to it that
/// nothing of the module's is left to be called.
struct Mydrv {
    _driver: Pin<KBox<driver::Registration<pci::Adapter<probe::Driver>>>>,
    _exit: Exit,
}

/// Dropped last.
struct Exit;

impl Drop for Exit {
    fn drop(&mut self) {
        (rules::get().exit)();
    }
}

impl kernel::Module for Mydrv {
    fn init(module: &'static ThisModule) -> Result<Self> {
        let registration = driver::Registration::new(c"mydrv", module);
        Ok(Self {
            _driver: KBox::pin_init(registration, GFP_KERNEL)?,
            _exit: Exit,
        })
    }
}
