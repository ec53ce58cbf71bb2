// SPDX-License-Identifier: GPL-2.0-only
//! Who passes which functions, in what order: noted, nobody held. What a dry run is made of.

use crate::pass::{Call, LIVE};
use crate::sys::{self, Thread};
use core::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, AtomicUsize, Ordering};
use kernel::prelude::*;

/// Threads whose every call is noted. Of others, only those with a module under test on the
/// stack.
pub(crate) const THREADS: usize = 16;
/// Calls that there is room for; the first ones count.
const ROOM: usize = 8192;

struct Pass {
    ns: AtomicU64,
    /// The watched thread's id, function, and [`OWN`], [`WORKER`], [`INTERRUPT`], [`ATOMIC`].
    what: AtomicU64,
}

const OWN: u64 = 1 << 60;
const WORKER: u64 = 1 << 61;
const INTERRUPT: u64 = 1 << 62;
const ATOMIC: u64 = 1 << 63;

static PASSES: [Pass; ROOM] = [const {
    Pass {
        ns: AtomicU64::new(0),
        what: AtomicU64::new(0),
    }
}; ROOM];

struct Watched {
    thread: AtomicUsize,
    tid: AtomicI32,
}

static ON: AtomicBool = AtomicBool::new(false);
static NEXT: AtomicUsize = AtomicUsize::new(0);
static WATCHED: [Watched; THREADS] = [const {
    Watched {
        thread: AtomicUsize::new(0),
        tid: AtomicI32::new(0),
    }
}; THREADS];

/// Whether calls are noted.
pub(crate) fn is_on() -> bool {
    ON.load(Ordering::Relaxed)
}

/// Begins anew, for these threads.
pub(crate) fn begin(threads: impl Iterator<Item = Result<i32>>) -> Result {
    end();
    let mut watched = WATCHED.iter();
    for tid in threads {
        let (tid, place) = (tid?, watched.next().ok_or(E2BIG)?);
        place.tid.store(tid, Ordering::Relaxed);
        place.thread.store(Thread::find(tid)?.0, Ordering::Relaxed);
    }
    watched.for_each(|rest| rest.thread.store(0, Ordering::Relaxed));
    for pass in &PASSES[..NEXT.load(Ordering::Relaxed).min(ROOM)] {
        pass.what.store(0, Ordering::Relaxed);
    }
    NEXT.store(0, Ordering::Release);
    ON.store(true, Ordering::Release);
    LIVE.fetch_add(1, Ordering::AcqRel);
    Ok(())
}

/// Notes no more.
pub(crate) fn end() {
    if ON.swap(false, Ordering::AcqRel) {
        LIVE.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Notes a call, where it is of interest.
pub(crate) fn note(func: u16, call: &Call) {
    let thread = call.current.thread();
    let interrupt = call.context.is_interrupt();
    let watched = |it: &&Watched| Thread(it.thread.load(Ordering::Relaxed)) == thread;
    let tid = match interrupt {
        true => 0,
        false => WATCHED
            .iter()
            .find(watched)
            .map_or(0, |it| it.tid.load(Ordering::Relaxed)),
    };
    if !call.own && tid == 0 {
        return;
    }
    let at = NEXT.fetch_add(1, Ordering::Relaxed);
    let Some(pass) = PASSES.get(at) else {
        return;
    };
    let flag = |set: bool, bit: u64| if set { bit } else { 0 };
    let what = u64::from(tid as u32)
        | u64::from(func) << 32
        | flag(call.own, OWN)
        | flag(!interrupt && call.current.is_worker(), WORKER)
        | flag(interrupt, INTERRUPT)
        | flag(!call.context.is_preemptible(), ATOMIC);
    pass.ns.store(sys::now(), Ordering::Relaxed);
    pass.what.store(what, Ordering::Release);
}

/// Writes the line of one noted call: function, thread (0 for one that isn't watched), its marks, when. `None` after the last.
pub(crate) fn line(at: usize, f: &mut impl kernel::fmt::Write) -> Option<kernel::fmt::Result> {
    let pass = (at < NEXT.load(Ordering::Acquire)).then(|| PASSES.get(at))??;
    let what = pass.what.load(Ordering::Acquire);
    let mark = |bit: u64, mark: &'static str| if what & bit != 0 { mark } else { "" };
    Some(writeln!(
        f,
        "{} {} {} -{}{}{}{}",
        (what >> 32) as u16 & 0x0fff,
        what as u32,
        pass.ns.load(Ordering::Relaxed),
        mark(OWN, "o"),
        mark(WORKER, "w"),
        mark(INTERRUPT, "i"),
        mark(ATOMIC, "a"),
    ))
}
