// SPDX-License-Identifier: GPL-2.0-only
//! rust_knob: a template for a driver in Rust that uses crates from the registry. Its target is
//! rust_knob.toml beside the manifest.
//!
//! | file in /sys/kernel/config/rust_knob | |
//! |---|---|
//! | `modes` | the modes that are on, by name; write a number: the modes that it has set are on, others are `EINVAL` |
//! | `known` | the modes that there are |
//!
//! Its files are configfs attributes, because these may outlive the module: configfs itself drains
//! who is inside as they are removed, and whoever has one open comes no further than configfs
//! afterwards. The kernel crate's debugfs files and misc devices (Linux 7.2) have file operations
//! that lie in the module and name no owner, so that an open file neither keeps the module nor can
//! be closed once that is gone.
//!
//! A kernel module; on the host this crate is empty.
#![cfg(MODULE)]

use core::str;
use kernel::configfs::{configfs_attrs, AttributeOperations, Subsystem};
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

/// The loaded module. Dropping it removes the files, and then what they lead to.
#[pin_data]
struct RustKnob {
    #[pin]
    dir: Subsystem<State>,
}

/// What the files lead to.
#[pin_data]
struct State {
    #[pin]
    modes: Mutex<Modes>,
}

impl kernel::InPlaceModule for RustKnob {
    fn init(_module: &'static ThisModule) -> impl PinInit<Self, Error> {
        let attributes = configfs_attrs! {
            container: Subsystem<State>,
            data: State,
            attributes: [
                modes: 0,
                known: 1,
            ],
        };
        let state = try_pin_init!(State {
            modes <- new_mutex!(Modes::FAST),
        });
        try_pin_init!(Self {
            dir <- Subsystem::new(c"rust_knob", attributes, state),
        })
    }
}

/// `modes`.
#[vtable]
impl AttributeOperations<0> for State {
    type Data = State;

    fn show(state: &State, page: &mut [u8; PAGE_SIZE]) -> Result<usize> {
        let modes = *state.modes.lock();
        names(modes, page)
    }

    fn store(state: &State, text: &[u8]) -> Result {
        let text = str::from_utf8(text).map_err(|_| EINVAL)?;
        let bits = text.trim().parse().map_err(|_| EINVAL)?;
        *state.modes.lock() = Modes::from_bits(bits).ok_or(EINVAL)?;
        Ok(())
    }
}

/// `known`.
#[vtable]
impl AttributeOperations<1> for State {
    type Data = State;

    fn show(_state: &State, page: &mut [u8; PAGE_SIZE]) -> Result<usize> {
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
