// SPDX-License-Identifier: GPL-2.0-only
//! `missing-put`: closing a knob keeps the reference to dk0 that opening took.
//!
//! dk0 is never released. Its memory leaks, and so does what it keeps: the name, its parent.
//!
//! What should be seen, with `pinned`: after a close dk0 counts one more than before the open; the
//! module's count is right. rmmod begins, removes dk0, and waits for ever for the release.

use crate::dk0::Dk0;
use crate::lifetime::pinned::Opener;
use crate::rules::Rules;
use crate::sys::kernfs;
use crate::sys::module::Count;
use core::mem;
use kernel::prelude::*;

pub(crate) fn plant(rules: &mut Rules) {
    rules.add_knobs = kernfs::add_knobs::<Kept>;
}

struct Kept(Opener<Count>);

impl kernfs::Opener for Kept {
    fn open(dk0: &Dk0, knob: usize, alone: bool) -> Result<Self> {
        kernfs::Opener::open(dk0, knob, alone).map(Self)
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        // In place of the one that the opener gives back.
        mem::forget(self.0.dk0().clone());
    }
}
