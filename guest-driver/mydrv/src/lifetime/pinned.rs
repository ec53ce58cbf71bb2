// SPDX-License-Identifier: GPL-2.0-only
//! `pinned`: an open knob pins dk0 and the module. The rule of the 2007 thread's example.
//!
//! "Opening either knob adds one to the reference count of dk0 and one to that of mydrv,
//! closing takes both back; the same holds for an opener of /dev/dk0." So with a count of zero
//! nobody refers to dk0 but the driver itself, and the exit function can remove both knobs,
//! delete dk0, see its `->release` run at once, and go.
//!
//! Today's sysfs attributes no longer do this (see `drained`), so the knobs are kernfs files of
//! their own, with an `->open` and a `->release`.
//!
//! # Why the module's text outlives every call into it
//!
//! A count keeps the module; what needs an argument is each stretch of code that runs in the
//! module without one, or after it gave the last one back.
//!
//! - **open that fails.** rmmod has begun, so no count can be had, and `->open` returns
//!   `-ENODEV`; or somebody wants to be alone (`O_EXCL`), and it returns `-EBUSY`. kernfs holds an active reference of the knob around `->open`; removing the
//!   knob waits for it, and exit removes the knobs before it returns.
//! - **close, while the knob exists.** Dropping the [`Opener`] gives back the module's count,
//!   and a few instructions of `->release` follow. kernfs calls it under the node's open-file
//!   mutex and counts the file in `nr_to_release` until after it has returned. Removing the
//!   knob looks at that number, and where it isn't zero takes the mutex: exit waits for the
//!   return.
//! - **close, after an unbind.** Nothing is left to do: removal has drained the open files,
//!   that is, called `->release` for each of them. The thread that did so is in the driver's
//!   `remove`, under the device lock, and unregistering the driver (exit's first step) waits
//!   for that lock, and for the `unbind` attribute's own callers.
//! - **read, write.** The file's count is held from before to after, and kernfs's active
//!   reference with it.
//! - **dk0's `->release`.** The last reference to dk0 is the driver's own, given back in exit,
//!   or, after an unbind, an opener's: it goes back before the opener's count of the module
//!   does. See [`Opener`]. For references that the kernel itself may hold,
//!   [`crate::sys::node`] says why.
//! - **/dev/dk0.** [`crate::sys::chardev`] says why.

use crate::dk0::Dk0;
use crate::rules::{Rules, COMMON};
use crate::sys::kernfs;
use crate::sys::module::Count;
use kernel::prelude::*;
use kernel::sync::aref::ARef;

pub(crate) const RULES: Rules = Rules {
    add_knobs: kernfs::add_knobs::<Opener<Count>>,
    ..COMMON
};

/// What an open knob holds, with `C` the module's count. The fields go in this order: where
/// dk0's reference is the last, `->release` runs in the module's text, so the module's count
/// must still be there.
pub(crate) struct Opener<C> {
    knob: usize,
    dk0: ARef<Dk0>,
    _mydrv: C,
}

impl<C> Opener<C> {
    /// Takes a seat at the knob, and a reference to dk0. Where no seat can be had, what was
    /// counted goes back.
    pub(crate) fn sit(dk0: &Dk0, knob: usize, alone: bool, mydrv: C) -> Result<Self> {
        dk0.data().seats(knob).take(alone)?;
        Ok(Self {
            knob,
            dk0: dk0.into(),
            _mydrv: mydrv,
        })
    }

    pub(crate) fn dk0(&self) -> &ARef<Dk0> {
        &self.dk0
    }
}

impl<C> Drop for Opener<C> {
    fn drop(&mut self) {
        self.dk0.data().seats(self.knob).leave();
    }
}

impl kernfs::Opener for Opener<Count> {
    fn open(dk0: &Dk0, knob: usize, alone: bool) -> Result<Self> {
        Self::sit(dk0, knob, alone, Count::try_take()?)
    }
}
