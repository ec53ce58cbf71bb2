// SPDX-License-Identifier: GPL-2.0-only
//! dk_ref: "a reference held elsewhere".
//!
//! Takes and gives back a reference to a child of a PCI device on command, as a subsystem does
//! that keeps a pointer to a device which isn't its own.
//!
//! | file in /sys/kernel/debug/dk_ref | |
//! |---|---|
//! | `hold` | write "0000:00:1f.0/dk0" to take a reference to that child: `ENODEV` if there is none, `EBUSY` if one is held already; "-" or nothing to give it back: `ENOENT` if none is held |
//! | `count` | the held device's reference count, or "-" |
//!
//! Unloading gives the reference back.

use child::Child;
use core::str;
use kernel::debugfs::{Dir, File};
use kernel::fmt;
use kernel::prelude::*;
use kernel::sync::{new_mutex, Arc, Mutex};
use kernel::uaccess::UserSliceReader;

mod child;

module! {
    type: DkRef,
    name: "dk_ref",
    authors: ["The knobrig authors"],
    description: "Holds a reference to a device on command",
    license: "GPL v2",
}

/// The loaded module. Its files go before what they lead to.
#[pin_data]
struct DkRef {
    #[pin]
    hold: File<Arc<Holder>>,
    #[pin]
    count: File<Arc<Holder>>,
    dir: Dir,
}

/// What is held.
#[pin_data]
struct Holder {
    #[pin]
    held: Mutex<Option<Child>>,
}

impl kernel::InPlaceModule for DkRef {
    fn init(_module: &'static ThisModule) -> impl PinInit<Self, Error> {
        let dir = Dir::new(c"dk_ref");
        let holder = Arc::pin_init(
            pin_init!(Holder {
                held <- new_mutex!(None),
            }),
            GFP_KERNEL,
        );
        pin_init::pin_init_scope(move || {
            let holder = holder?;
            Ok(try_pin_init!(Self {
                hold <- dir.write_callback_file(c"hold", holder.clone(), &hold),
                count <- dir.read_callback_file(c"count", holder, &count),
                dir: dir.clone(),
            } ? Error))
        })
    }
}

/// A write to `hold`.
fn hold(holder: &Arc<Holder>, from: &mut UserSliceReader) -> Result {
    /// The longest name that is worth reading.
    const MAX: usize = 128;
    let len = from.len();
    if len > MAX {
        return Err(EINVAL);
    }
    let mut text = [0; MAX];
    from.read_slice(&mut text[..len])?;
    let text = str::from_utf8(&text[..len]).map_err(|_| EINVAL)?;
    let mut held = holder.held.lock();
    match text.trim_end_matches('\n') {
        "" | "-" => held.take().map(drop).ok_or(ENOENT),
        name => {
            let (parent, child) = name.split_once('/').ok_or(EINVAL)?;
            if held.is_some() {
                return Err(EBUSY);
            }
            *held = Some(Child::find(parent, child)?);
            Ok(())
        }
    }
}

/// A read of `count`.
fn count(holder: &Arc<Holder>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match &*holder.held.lock() {
        Some(child) => writeln!(f, "{}", child.references()),
        None => f.write_str("-\n"),
    }
}
