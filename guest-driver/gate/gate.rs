// SPDX-License-Identifier: GPL-2.0-only
//! The gates: which call is their point, and what came of it.
//!
//! Each is a few words that any context may look at and change. Whoever arms or disarms holds
//! [`crate::command::LOCK`].

use crate::func::Func;
use crate::pass::{Call, LIVE};
use crate::sys::{self, Thread};
use core::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use kernel::prelude::*;

/// How many there are, a bit each in a word.
pub(crate) const COUNT: usize = 64;

/// [`Who`] as a word; no thread's address.
const ANYBODY: usize = 0;
/// See [`ANYBODY`].
const WORKERS: usize = 1;

/// Whose calls count.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Who {
    /// Anybody's, interrupts included.
    Anybody,
    /// Any worker's of a workqueue.
    Workers,
    /// One thread's, of that id.
    Thread(Thread, i32),
}

/// A point.
pub(crate) struct Point {
    pub(crate) func: &'static Func,
    pub(crate) at_return: bool,
    pub(crate) who: Who,
    /// Only calls with a module under test on the stack.
    pub(crate) own: bool,
    /// Which of these calls, from 1.
    pub(crate) occurrence: u32,
    /// The thread is let go after so long.
    pub(crate) hold_ns: u64,
    /// It sleeps, instead of standing as a preempted thread does.
    pub(crate) sleeps: bool,
}

/// How far a gate is.
#[repr(u32)]
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// Not in use.
    Idle,
    /// Its point hasn't come.
    Armed,
    /// Its call has begun; its point is the return.
    Claimed,
    /// It holds a thread.
    Held,
    /// That thread is to go on.
    LetGo,
    /// It has gone on.
    Over,
}

impl State {
    const ALL: [Self; 6] = [
        Self::Idle,
        Self::Armed,
        Self::Claimed,
        Self::Held,
        Self::LetGo,
        Self::Over,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Armed => "armed",
            Self::Claimed => "claimed",
            Self::Held | Self::LetGo => "held",
            Self::Over => "over",
        }
    }
}

/// How a thread was held.
#[repr(u32)]
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum How {
    /// As if preempted.
    Preempted,
    /// Asleep.
    Slept,
    /// Spinning, for a few milliseconds at most: it may neither sleep nor be preempted there.
    Spun,
}

impl How {
    const ALL: [Self; 3] = [Self::Preempted, Self::Slept, Self::Spun];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Preempted => "preempted",
            Self::Slept => "slept",
            Self::Spun => "spun",
        }
    }
}

/// Why a thread went on.
#[repr(u32)]
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Why {
    /// It was released.
    Released,
    /// Its time was over.
    Deadline,
    /// It is being killed.
    Killed,
}

impl Why {
    const ALL: [Self; 3] = [Self::Released, Self::Deadline, Self::Killed];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Released => "released",
            Self::Deadline => "deadline",
            Self::Killed => "killed",
        }
    }
}

/// One gate.
pub(crate) struct Gate {
    state: AtomicU32,
    at_return: AtomicBool,
    /// 0 anybody, 1 workers, else the thread.
    who: AtomicUsize,
    /// That thread's id, or 0.
    tid: AtomicI32,
    own: AtomicBool,
    occurrence: AtomicU32,
    hold_ns: AtomicU64,
    sleeps: AtomicBool,
    /// Calls so far.
    calls: AtomicU32,
    /// Who came to its point.
    holds: AtomicUsize,
    reached_ns: AtomicU64,
    how: AtomicU32,
    left_ns: AtomicU64,
    why: AtomicU32,
}

/// All.
pub(crate) static GATES: [Gate; COUNT] = [const {
    Gate {
        state: AtomicU32::new(0),
        at_return: AtomicBool::new(false),
        who: AtomicUsize::new(0),
        tid: AtomicI32::new(0),
        own: AtomicBool::new(false),
        occurrence: AtomicU32::new(0),
        hold_ns: AtomicU64::new(0),
        sleeps: AtomicBool::new(false),
        calls: AtomicU32::new(0),
        holds: AtomicUsize::new(0),
        reached_ns: AtomicU64::new(0),
        how: AtomicU32::new(0),
        left_ns: AtomicU64::new(0),
        why: AtomicU32::new(0),
    }
}; COUNT];

/// Gates of which it was not read yet that they were reached, and that they were left.
pub(crate) static REACHED: AtomicU64 = AtomicU64::new(0);
/// See [`REACHED`].
pub(crate) static LEFT: AtomicU64 = AtomicU64::new(0);
/// Threads that gates hold.
static HOLDING: AtomicU32 = AtomicU32::new(0);

/// The numbers of the bits that are set.
pub(crate) fn bits(mut word: u64) -> impl Iterator<Item = usize> {
    core::iter::from_fn(move || {
        let lowest = (word != 0).then(|| word.trailing_zeros() as usize);
        word &= word.wrapping_sub(1);
        lowest
    })
}

impl Gate {
    fn change(&self, from: State, to: State) -> bool {
        self.state
            .compare_exchange(from as u32, to as u32, Ordering::AcqRel, Ordering::Acquire)
            .is_ok()
    }

    pub(crate) fn state(&self) -> State {
        let state = self.state.load(Ordering::Acquire) as usize;
        State::ALL.get(state).copied().unwrap_or(State::Idle)
    }

    pub(crate) fn at_return(&self) -> bool {
        self.at_return.load(Ordering::Relaxed)
    }

    /// Whether a call is the one that the gate waits for. Counts it where it is one of those.
    pub(crate) fn is_passed_by(&self, call: &Call) -> bool {
        if self.state() != State::Armed {
            return false;
        }
        let thread = !call.context.is_interrupt();
        let counts = match self.who.load(Ordering::Relaxed) {
            ANYBODY => true,
            WORKERS => thread && call.current.is_worker(),
            it => thread && call.current.thread() == Thread(it),
        };
        if !counts || self.own.load(Ordering::Relaxed) && !call.own {
            return false;
        }
        let calls = self.calls.fetch_add(1, Ordering::Relaxed) + 1;
        calls == self.occurrence.load(Ordering::Relaxed)
    }

    /// The call's return is to be held. It can't be where a copy of the stack arguments could
    /// reach beyond the stack; the gate isn't reached then. Takes a count of the module.
    pub(crate) fn claim(&self, call: &Call) -> bool {
        if !call.deep || !sys::take_count() {
            return false;
        }
        self.holds.store(call.current.thread().0, Ordering::Relaxed);
        if self.change(State::Armed, State::Claimed) {
            return true;
        }
        // SAFETY: taken above; exit waits for who is in the trampoline.
        unsafe { sys::give_count() };
        false
    }

    /// Whether it still waits for the return of this thread.
    pub(crate) fn is_claimed_by(&self, call: &Call) -> bool {
        let thread = Thread(self.holds.load(Ordering::Relaxed));
        self.state() == State::Claimed && thread == call.current.thread()
    }

    /// A thread stands at the point. False if the gate doesn't want it any more.
    pub(crate) fn reach(&self, number: usize, call: &Call, how: How) -> bool {
        let from = match self.at_return() {
            true => State::Claimed,
            false => State::Armed,
        };
        self.holds.store(call.current.thread().0, Ordering::Relaxed);
        self.how.store(how as u32, Ordering::Relaxed);
        self.reached_ns.store(sys::now(), Ordering::Relaxed);
        HOLDING.fetch_add(1, Ordering::AcqRel);
        if !self.change(from, State::Held) {
            HOLDING.fetch_sub(1, Ordering::AcqRel);
            return false;
        }
        REACHED.fetch_or(1 << number, Ordering::AcqRel);
        sys::ring();
        true
    }

    /// The thread goes on.
    pub(crate) fn leave(&self, number: usize, why: Why) {
        self.left_ns.store(sys::now(), Ordering::Relaxed);
        self.why.store(why as u32, Ordering::Relaxed);
        self.state.store(State::Over as u32, Ordering::Release);
        LEFT.fetch_or(1 << number, Ordering::AcqRel);
        sys::ring();
        HOLDING.fetch_sub(1, Ordering::AcqRel);
    }

    /// Whether the thread that it holds is to go on.
    pub(crate) fn lets_go(&self) -> bool {
        self.state() != State::Held
    }

    pub(crate) fn sleeps(&self) -> bool {
        self.sleeps.load(Ordering::Relaxed)
    }

    /// When the thread goes on in any case.
    pub(crate) fn deadline(&self) -> u64 {
        self.reached_ns.load(Ordering::Relaxed) + self.hold_ns.load(Ordering::Relaxed)
    }

    /// One line of all that is known of it: state, calls, the thread that it is for (or 0), when it came, how it was held,
    /// when it went on, why.
    pub(crate) fn line(
        &self,
        number: usize,
        f: &mut impl kernel::fmt::Write,
    ) -> kernel::fmt::Result {
        let how = How::ALL.get(self.how.load(Ordering::Relaxed) as usize);
        let why = Why::ALL.get(self.why.load(Ordering::Relaxed) as usize);
        writeln!(
            f,
            "{} {} {} {} {} {} {} {}",
            number,
            self.state().name(),
            self.calls.load(Ordering::Relaxed),
            self.tid.load(Ordering::Relaxed),
            self.reached_ns.load(Ordering::Relaxed),
            how.map_or("?", |how| how.name()),
            self.left_ns.load(Ordering::Relaxed),
            why.map_or("?", |why| why.name()),
        )
    }
}

/// Arms a gate that isn't in use.
pub(crate) fn arm(number: usize, point: &Point) -> Result {
    let gate = GATES.get(number).ok_or(EINVAL)?;
    if !matches!(gate.state(), State::Idle) {
        return Err(EBUSY);
    }
    gate.at_return.store(point.at_return, Ordering::Relaxed);
    let (who, tid) = match point.who {
        Who::Anybody => (ANYBODY, 0),
        Who::Workers => (WORKERS, 0),
        Who::Thread(thread, tid) => (thread.0, tid),
    };
    gate.tid.store(tid, Ordering::Relaxed);
    gate.who.store(who, Ordering::Relaxed);
    gate.own.store(point.own, Ordering::Relaxed);
    gate.occurrence.store(point.occurrence, Ordering::Relaxed);
    gate.hold_ns.store(point.hold_ns, Ordering::Relaxed);
    gate.sleeps.store(point.sleeps, Ordering::Relaxed);
    gate.calls.store(0, Ordering::Relaxed);
    gate.reached_ns.store(0, Ordering::Relaxed);
    gate.left_ns.store(0, Ordering::Relaxed);
    gate.state.store(State::Armed as u32, Ordering::Release);
    LIVE.fetch_add(1, Ordering::AcqRel);
    point.func.armed.fetch_or(1 << number, Ordering::AcqRel);
    Ok(())
}

/// Lets go whoever the gate holds, and whoever will come to it.
pub(crate) fn release(number: usize) -> Result {
    let gate = GATES.get(number).ok_or(EINVAL)?;
    // One after the other: a thread may come to it meanwhile.
    let _ = gate.change(State::Armed, State::Over)
        || gate.change(State::Claimed, State::Over)
        || gate.change(State::Held, State::LetGo);
    Ok(())
}

/// Releases all. Gives them up for use where nobody is held any more; `ETIMEDOUT` where somebody
/// still is after so many ticks.
pub(crate) fn disarm(ticks: u32) -> Result {
    for number in 0..crate::func::MOST {
        if let Some(func) = crate::func::numbered(number) {
            func.armed.store(0, Ordering::Release);
        }
    }
    (0..COUNT).try_for_each(release)?;
    let mut left = ticks;
    while HOLDING.load(Ordering::Acquire) > 0 {
        left = left.checked_sub(1).ok_or(ETIMEDOUT)?;
        sys::sleep_a_tick_surely();
    }
    for gate in &GATES {
        if gate.state() != State::Idle {
            gate.state.store(State::Idle as u32, Ordering::Release);
            LIVE.fetch_sub(1, Ordering::AcqRel);
        }
    }
    REACHED.store(0, Ordering::Release);
    LEFT.store(0, Ordering::Release);
    Ok(())
}
