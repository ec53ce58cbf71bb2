// SPDX-License-Identifier: GPL-2.0-only
//! rust_knob: a template for a driver in Rust that uses crates from the registry. Its target is
//! rust_knob.toml beside the manifest.
//!
//! | file in /sys/kernel/debug/rust_knob | |
//! |---|---|
//! | `set` | write a number: the modes that it has set are on, others are `EINVAL` |
//! | `modes` | the modes that are on, by name |
//!
//! A kernel module; on the host this crate is empty.
#![cfg(MODULE)]

use core::str;
use kernel::debugfs::{Dir, File};
use kernel::fmt;
use kernel::prelude::*;
use kernel::sync::{new_mutex, Arc, Mutex};
use kernel::uaccess::UserSliceReader;

module! {
    type: RustKnob,
    name: "rust_knob",
    authors: ["The knobrig authors"],
    description: "A template: two debugfs files and a registry crate",
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

/// The loaded module. Its files go before what they lead to.
#[pin_data]
struct RustKnob {
    #[pin]
    set: File<Arc<State>>,
    #[pin]
    modes: File<Arc<State>>,
    dir: Dir,
}

/// What the files lead to.
#[pin_data]
struct State {
    #[pin]
    modes: Mutex<Modes>,
}

impl kernel::InPlaceModule for RustKnob {
    fn init(_module: &'static ThisModule) -> impl PinInit<Self, Error> {
        let dir = Dir::new(c"rust_knob");
        let state = Arc::pin_init(
            pin_init!(State {
                modes <- new_mutex!(Modes::FAST),
            }),
            GFP_KERNEL,
        );
        pin_init::pin_init_scope(move || {
            let state = state?;
            Ok(try_pin_init!(Self {
                set <- dir.write_callback_file(c"set", state.clone(), &set),
                modes <- dir.read_callback_file(c"modes", state, &modes),
                dir: dir.clone(),
            } ? Error))
        })
    }
}

/// A write to `set`.
fn set(state: &Arc<State>, from: &mut UserSliceReader) -> Result {
    /// The longest number that is worth reading.
    const MAX: usize = 16;
    let len = from.len();
    if len > MAX {
        return Err(EINVAL);
    }
    let mut text = [0; MAX];
    from.read_slice(&mut text[..len])?;
    let text = str::from_utf8(&text[..len]).map_err(|_| EINVAL)?;
    let bits = text.trim().parse().map_err(|_| EINVAL)?;
    *state.modes.lock() = Modes::from_bits(bits).ok_or(EINVAL)?;
    Ok(())
}

/// A read of `modes`.
fn modes(state: &Arc<State>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let modes = *state.modes.lock();
    for (name, _) in modes.iter_names() {
        f.write_str(name)?;
        f.write_str("\n")?;
    }
    Ok(())
}
