// SPDX-License-Identifier: GPL-2.0-only
//! What C is asked for: the running thread, the clock, sleeping, waking a reader.
//!
//! Much of it runs where any kernel function may be called from, so it takes no lock, and calls
//! nothing that could be a point itself.

use core::arch::asm;
use core::cell::UnsafeCell;
use core::mem::MaybeUninit;
use core::ptr::null_mut;
use kernel::bindings;
use kernel::prelude::*;

/// A value of C's that stays where it is, and that C itself makes safe to share.
#[repr(transparent)]
pub(crate) struct Shared<T>(UnsafeCell<MaybeUninit<T>>);

// SAFETY: only ever handed to C functions, which lock it themselves.
unsafe impl<T> Sync for Shared<T> {}

impl<T> Shared<T> {
    /// All zeros.
    pub(crate) const fn zeroed() -> Self {
        Self(UnsafeCell::new(MaybeUninit::zeroed()))
    }

    /// For C.
    pub(crate) const fn get(&self) -> *mut T {
        self.0.get().cast()
    }
}

/// Nanoseconds of `CLOCK_MONOTONIC`, from any context.
pub(crate) fn now() -> u64 {
    // SAFETY: no preconditions, NMI included.
    unsafe { bindings::ktime_get_mono_fast_ns() }
}

/// The running thread. In an interrupt: the interrupted one.
///
/// Of `struct task_struct` only fields up to `stats` are used: bindgen puts those after it to
/// other places than C where that, without CONFIG_SCHEDSTATS, is empty and aligned. So a thread is
/// told by its address, and not by its id.
#[derive(Clone, Copy)]
pub(crate) struct Current(*mut bindings::task_struct);

impl Current {
    pub(crate) fn get() -> Self {
        let task: *mut bindings::task_struct;
        // SAFETY: reads a per-CPU variable that, whatever the CPU, names the thread that reads.
        unsafe {
            asm!("movq %gs:current_task(%rip), {}", out(reg) task,
                options(att_syntax, nostack, readonly, preserves_flags))
        };
        Self(task)
    }

    /// Tells it from others.
    pub(crate) fn thread(self) -> Thread {
        Thread(self.0 as usize)
    }

    /// Whether it is a worker of a workqueue.
    pub(crate) fn is_worker(self) -> bool {
        /// PF_WQ_WORKER of include/linux/sched.h.
        const WORKER: u32 = 0x20;
        // SAFETY: the running thread's own.
        unsafe { (&raw const (*self.0).flags).read_volatile() & WORKER != 0 }
    }

    /// Its stack: the first address and the one after the last.
    pub(crate) fn stack(self) -> (usize, usize) {
        /// THREAD_SIZE of arch/x86/include/asm/page_64_types.h.
        const SIZE: usize = 4096 << if cfg!(CONFIG_KASAN) { 3 } else { 2 };
        // SAFETY: the running thread's own; it doesn't change.
        let start = unsafe { (*self.0).stack } as usize;
        (start, start + SIZE)
    }

    /// Whether it was sent a signal.
    pub(crate) fn is_signalled(self) -> bool {
        // SAFETY: the running thread.
        unsafe { bindings::signal_pending(self.0) != 0 }
    }

    /// Its nice value, where it isn't a real-time thread.
    pub(crate) fn nice(self) -> Option<i32> {
        /// MAX_RT_PRIO of include/linux/sched/prio.h.
        const REAL_TIME: i32 = 100;
        /// The priority of nice 0, DEFAULT_PRIO there.
        const ZERO: i32 = 120;
        // SAFETY: the running thread's own.
        unsafe { ((*self.0).prio >= REAL_TIME).then(|| (*self.0).static_prio - ZERO) }
    }

    /// Sets it.
    pub(crate) fn set_nice(self, nice: i32) {
        // SAFETY: an ordinary thread, in a context that can be preempted (callers).
        unsafe { bindings::sched_set_normal(self.0, nice) };
    }
}

/// Which thread: its address, which is its own as long as it lives. 0 is nobody's.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Thread(pub(crate) usize);

impl Thread {
    /// The thread of that id, or `ESRCH`.
    pub(crate) fn find(tid: i32) -> Result<Self> {
        // SAFETY: each look-up takes a reference, or gives null; both are given back, once. Only
        // the address is kept.
        let task = unsafe {
            let pid = bindings::find_get_pid(tid);
            let task = bindings::get_pid_task(pid, bindings::pid_type_PIDTYPE_PID);
            bindings::put_pid(pid);
            if !task.is_null() {
                bindings::put_task_struct(task);
            }
            task
        };
        match task.is_null() {
            true => Err(ESRCH),
            false => Ok(Self(task as usize)),
        }
    }
}

/// What of the context of a call matters to a hold.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Context {
    preempt_count: u32,
    interrupts: bool,
}

impl Context {
    pub(crate) fn get() -> Self {
        let (count, flags): (u32, u64);
        // SAFETY: reads a per-CPU variable that goes with the running thread, and the flags.
        unsafe {
            asm!("movl %gs:__preempt_count(%rip), {0:e}", out(reg) count,
                options(att_syntax, nostack, readonly, preserves_flags));
            asm!("pushfq", "popq {}", out(reg) flags, options(att_syntax));
        }
        Self {
            // The highest bit says, inverted, that a reschedule is due.
            preempt_count: count & !(1 << 31),
            interrupts: flags & (1 << 9) != 0,
        }
    }

    /// Whether this is an interrupt's, softirq's or NMI's doing, and not the thread's.
    pub(crate) fn is_interrupt(self) -> bool {
        /// NMI, hardirq, and a softirq being served: include/linux/preempt.h.
        const INTERRUPT: u32 = 0x00ff_0100;
        self.preempt_count & INTERRUPT != 0
    }

    /// Whether the thread may be preempted here.
    pub(crate) fn is_preemptible(self) -> bool {
        self.preempt_count == 0 && self.interrupts
    }
}

/// Lets others run, as if they had preempted this thread: in the eyes of RCU it stays where it
/// is, and goes on. Returns at once where it may not be preempted.
pub(crate) fn be_preempted() {
    // SAFETY: no preconditions: it looks at the context itself.
    unsafe { bindings::preempt_schedule() };
}

/// Sleeps a tick, or until the thread is killed.
pub(crate) fn sleep_a_tick() {
    // SAFETY: may sleep (callers).
    unsafe { bindings::schedule_timeout_killable(1) };
}

/// As [`sleep_a_tick`], whatever comes.
pub(crate) fn sleep_a_tick_surely() {
    // SAFETY: may sleep (callers).
    unsafe { bindings::schedule_timeout_uninterruptible(1) };
}

/// A word of a stack, which may have been left by whoever it belongs to.
pub(crate) fn peek(address: usize) -> usize {
    let word;
    // SAFETY: the caller has seen that the address is one of the running thread's stack.
    unsafe {
        asm!("movq ({}), {}", in(reg) address, out(reg) word,
            options(att_syntax, nostack, readonly, preserves_flags))
    };
    word
}

/// One count of this module.
pub(crate) fn take_count() -> bool {
    // SAFETY: our own module, which is there as long as its code runs.
    unsafe { bindings::try_module_get(&raw mut bindings::__this_module) }
}

/// Gives it back.
///
/// # Safety
/// There is one to give back, and exit waits for who is in the module's text without one.
pub(crate) unsafe fn give_count() {
    // SAFETY: the caller's.
    unsafe { bindings::module_put(&raw mut bindings::__this_module) };
}

/// Waits until every thread has left code that it was preempted in, and every interrupt is over.
pub(crate) fn all_left() {
    // SAFETY: no preconditions in a context that may sleep, as exit is.
    unsafe {
        #[cfg(CONFIG_TASKS_RCU)]
        bindings::synchronize_rcu_tasks();
        bindings::synchronize_rcu();
    }
}

static QUEUE: Shared<bindings::wait_queue_head> = Shared::zeroed();
static BELL: Shared<bindings::irq_work> = Shared::zeroed();

/// # Safety
/// Called once, before anything else of this module.
pub(crate) unsafe fn init() {
    // SAFETY: both are zeroed and not used yet; the name and the key live for ever.
    unsafe {
        bindings::__init_waitqueue_head(
            QUEUE.get(),
            c"knobgate".as_char_ptr(),
            kernel::static_lock_class!().as_ptr(),
        );
        (*BELL.get()).func = Some(rung);
    }
}

/// Lets readers look again, from any context: an interrupt of its own wakes them, since whoever
/// rings may hold the locks that waking takes.
pub(crate) fn ring() {
    // SAFETY: initialized; it may be queued while it is, or runs.
    unsafe { bindings::irq_work_queue(BELL.get()) };
}

/// Nobody rings any more: waits for the last one.
pub(crate) fn still() {
    // SAFETY: initialized; may sleep, as exit may.
    unsafe { bindings::irq_work_sync(BELL.get()) };
}

/// # Safety
/// Called by irq_work with `BELL`.
unsafe extern "C" fn rung(_: *mut bindings::irq_work) {
    // SAFETY: an initialized queue; interrupts may wake.
    unsafe { bindings::__wake_up(QUEUE.get(), bindings::TASK_NORMAL, 0, null_mut()) };
}

/// Waits until `done`, which is looked at whenever somebody rings; a signal ends it with `EINTR`.
pub(crate) fn wait_until(mut done: impl FnMut() -> bool) -> Result {
    let mut entry = MaybeUninit::<bindings::wait_queue_entry>::uninit();
    // SAFETY: `entry` isn't moved and leaves the queue before it goes; the queue is initialized.
    // This is ___wait_event() of include/linux/wait.h.
    unsafe {
        bindings::init_wait_entry(entry.as_mut_ptr(), 0);
        let result = loop {
            let signal = bindings::prepare_to_wait_event(
                QUEUE.get(),
                entry.as_mut_ptr(),
                bindings::TASK_INTERRUPTIBLE as c_int,
            );
            if done() {
                break Ok(());
            }
            if signal != 0 {
                break Err(EINTR);
            }
            bindings::schedule();
        };
        bindings::finish_wait(QUEUE.get(), entry.as_mut_ptr());
        result
    }
}
