// SPDX-License-Identifier: GPL-2.0-only
//! `self-destruct`: no unload while dk0 exists, and a knob by which the user gives dk0 up. The
//! 2007 thread's first way.
//!
//! A bound dk0 holds one count of mydrv from probe on, so rmmod fails with `EWOULDBLOCK`,
//! whoever has dk0 open or not. Writing to dk0's attribute `self_destruct` removes the knobs,
//! the attribute itself and dk0, and gives the count back. Then rmmod works. An unbind gives
//! dk0 up as well.
//!
//! Of all who would give dk0 up, two writers or a writer and an unbind, one does: who takes
//! [`Doomed`] out of its place. Another writer gets `-ENODEV`. An unbind that comes second waits
//! until the writer is done, before it takes away what the knobs lead to. That ends: a writer
//! waits for callbacks inside the knobs, each of which has a deadline, and for nothing that
//! an unbind holds.
//!
//! # Why the module's text outlives the writer
//!
//! While he removes the attribute that he is in he has stepped out of sysfs's protection
//! ([`sysfs::inside_self_destruct`]), so removing it waits for others inside but not for him.
//! dk0's count of mydrv keeps the text, until he gives it back as the last thing of note; what
//! follows is a tail, for which exit waits ([`tail`]).

use crate::dk0::Dk0;
use crate::lifetime::drained;
use crate::probe::{Face, Parts};
use crate::rules::{self, Rules};
use crate::sys::module::Count;
use crate::sys::sysfs::SelfDestruct;
use crate::sys::wait::{wait_var, wake_var, Waited};
use crate::sys::{node, sysfs, tail};
use core::ptr::null_mut;
use core::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};
use kernel::prelude::*;
use kernel::{device, pci};

pub(crate) const RULES: Rules = Rules {
    bring_up,
    inside_self_destruct: sysfs::inside_self_destruct,
    teardown,
    exit: node::all_released,
    ..drained::RULES
};

/// What is given up, in this order, and then the count of mydrv.
#[expect(dead_code, reason = "held until they are dropped")]
struct Doomed {
    attribute: SelfDestruct,
    face: Face,
}

/// dk0's, from probe until somebody gives it up. There is one dk0.
static DOOMED: AtomicPtr<(Doomed, Count)> = AtomicPtr::new(null_mut());

/// Threads in [`write`].
static WRITERS: AtomicUsize = AtomicUsize::new(0);

fn take() -> Option<KBox<(Doomed, Count)>> {
    let doomed = DOOMED.swap(null_mut(), Ordering::AcqRel);
    // SAFETY: what is there came from a KBox, and who takes it has it alone.
    (!doomed.is_null()).then(|| unsafe { KBox::from_raw(doomed) })
}

fn bring_up(pdev: &pci::Device<device::Core<'_>>) -> Result<Parts> {
    let mut parts = Parts::bring_up(pdev)?;
    if let Some(face) = parts.face.take() {
        let dk0 = face.dk0.node().clone();
        let attribute = SelfDestruct(dk0.clone());
        let doomed = (Doomed { attribute, face }, Count::try_take()?);
        let doomed = KBox::new(doomed, GFP_KERNEL)?;
        DOOMED.store(KBox::into_raw(doomed), Ordering::Release);
        // From here on it can be written.
        SelfDestruct::add(&dk0).inspect_err(|_| drop(take()))?;
    }
    Ok(parts)
}

/// A write to `self_destruct`.
pub(crate) fn write(dk0: &Dk0) -> Result {
    WRITERS.fetch_add(1, Ordering::Relaxed);
    let given_up = take().map(|doomed| {
        tail::expect();
        let (doomed, count) = KBox::into_inner(doomed);
        let mut doomed = Some(doomed);
        (rules::get().inside_self_destruct)(dk0, &mut || drop(doomed.take()));
        count
    });
    WRITERS.fetch_sub(1, Ordering::Release);
    wake_var(&WRITERS);
    given_up.map(|_count| ()).ok_or(ENODEV)
}

fn teardown(parts: Parts) {
    /// How long to wait before saying so.
    const PATIENCE_MS: u32 = 10_000;
    drop(take());
    let left = || WRITERS.load(Ordering::Acquire) == 0;
    while wait_var(&WRITERS, PATIENCE_MS, left) == Waited::TimedOut {
        pr_warn!("unbinding waits for a writer of self_destruct\n");
    }
    parts.tear_down();
}
