// SPDX-License-Identifier: GPL-2.0-only
//! rust_knob: a template for a driver in Rust that uses crates from the registry. Its target is
//! rust_knob.toml beside the manifest.
//!
//! A `mkdir` below /sys/kernel/config/rust_knob makes a knob:
//!
//! | file in it | |
//! |---|---|
//! | `modes` | the modes that are on, by name; write a number: the modes that it has set are on, others are `EINVAL` |
//! | `known` | the modes that there are |
//!
//! Configfs, because its files may outlive the module: they are drained as they are removed, and
//! whoever has one open comes no further than configfs afterwards. Two things of the kernel crate
//! of Linux 7.2 a driver does better without: its debugfs files and misc devices have file
//! operations that lie in the module and name no owner, so that an open file neither keeps the
//! module nor can be closed once that is gone; and the attributes of a configfs subsystem itself
//! (not of a directory in it) get data at a wrong place, for the root of a subsystem is taken for
//! a directory in it.
//!
//! A kernel module; on the host this crate is empty.
#![cfg(MODULE)]

use core::str;
use kernel::configfs::{configfs_attrs, AttributeOperations, Group, GroupOperations, Subsystem};
use kernel::page::PAGE_SIZE;
use kernel::prelude::*;
use kernel::sync::{new_mutex, Mutex};

module! {
    type: RustKnob,
    name: "rust_knob",
    authors: ["The knobrig authors"],
    description: "A template: two configfs attributes and a registry crate",
    license: "GPL v2",
}

bitflags::bitflags! {
    #[derive(Clone, Copy)]
    struct Modes: u32 {
        const FAST = 1;
        const LOUD = 2;
        const WARM = 4;
    }
}

/// The loaded module.
#[pin_data]
struct RustKnob {
    #[pin]
    knobs: Subsystem<Knobs>,
}

/// The directory of the knobs, which has nothing of its own.
#[pin_data]
struct Knobs {}

/// A knob: what its files lead to.
#[pin_data]
struct Knob {
    #[pin]
    modes: Mutex<Modes>,
}

impl kernel::InPlaceModule for RustKnob {
    fn init(_module: &'static ThisModule) -> impl PinInit<Self, Error> {
        let directory = configfs_attrs! {
            container: Subsystem<Knobs>,
            data: Knobs,
            child: Knob,
            attributes: [],
        };
        try_pin_init!(Self {
            knobs <- Subsystem::new(c"rust_knob", directory, try_pin_init!(Knobs {})),
        })
    }
}

#[vtable]
impl GroupOperations for Knobs {
    type Child = Knob;

    fn make_group(&self, name: &CStr) -> Result<impl PinInit<Group<Knob>, Error>> {
        let files = configfs_attrs! {
            container: Group<Knob>,
            data: Knob,
            attributes: [
                modes: 0,
                known: 1,
            ],
        };
        let knob = try_pin_init!(Knob {
            modes <- new_mutex!(Modes::FAST),
        });
        Ok(Group::new(name.try_into()?, files, knob))
    }
}

/// `modes`.
#[vtable]
impl AttributeOperations<0> for Knob {
    type Data = Knob;

    fn show(knob: &Knob, page: &mut [u8; PAGE_SIZE]) -> Result<usize> {
        let modes = *knob.modes.lock();
        names(modes, page)
    }

    fn store(knob: &Knob, text: &[u8]) -> Result {
        let text = str::from_utf8(text).map_err(|_| EINVAL)?;
        let bits = text.trim().parse().map_err(|_| EINVAL)?;
        *knob.modes.lock() = Modes::from_bits(bits).ok_or(EINVAL)?;
        Ok(())
    }
}

/// `known`.
#[vtable]
impl AttributeOperations<1> for Knob {
    type Data = Knob;

    fn show(_knob: &Knob, page: &mut [u8; PAGE_SIZE]) -> Result<usize> {
        names(Modes::all(), page)
    }
}

/// Writes the names of modes, a line each; gives how many bytes that are.
fn names(modes: Modes, page: &mut [u8; PAGE_SIZE]) -> Result<usize> {
    let mut len = 0;
    for (name, _) in modes.iter_names() {
        let end = len + name.len();
        let room = page.get_mut(len..=end).ok_or(EINVAL)?;
        room[..name.len()].copy_from_slice(name.as_bytes());
        room[name.len()] = b'\n';
        len = end + 1;
    }
    Ok(len)
}
