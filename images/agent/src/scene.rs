//! What the threads of one episode (or of one `Do`) share: descriptors, signals, the end.

use std::collections::HashSet;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, OnceLock};
use std::time::{Duration, Instant};

use knobrig_proto::Step;
use rustix::event::{EventfdFlags, eventfd};

use crate::gates::{Armed, say};
use crate::lock;
use crate::paths::Paths;
use crate::slots::Slots;

/// The shared things.
#[derive(Debug)]
pub struct Scene {
    /// Descriptors.
    pub slots: Slots,
    /// The paths that are opened.
    pub paths: Paths,
    signals: Mutex<HashSet<String>>,
    /// The function gates that are armed, and where they are released.
    gates: OnceLock<(Armed, File)>,
    /// Rung by a signal and by the end.
    bell: Condvar,
    /// Which phases ran past their deadline; their threads begin no other step.
    abandoned: AtomicU8,
    /// Actors that run once and have not ended.
    once_left: AtomicUsize,
    /// Readable from the end on, for those that stand in `poll`.
    end: Option<OwnedFd>,
}

/// Whom a step is done for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum For {
    /// A thread that goes through its steps once.
    Once,
    /// A thread that loops until the others end.
    Loop,
    /// The thread that does what comes after the actors, stuck ones or not.
    Last,
}

impl Scene {
    /// A scene for these steps, and so many actors that run once.
    pub fn new<'a>(steps: impl Iterator<Item = &'a Step> + Clone, once: usize) -> Self {
        let polls = steps.clone().any(|step| matches!(step, Step::Poll { .. }));
        Self {
            slots: Slots::of(steps.clone()),
            paths: Paths::of(steps),
            signals: Mutex::default(),
            gates: OnceLock::new(),
            bell: Condvar::new(),
            abandoned: AtomicU8::new(0),
            once_left: AtomicUsize::new(once),
            // Without it (no descriptors left) polls last their whole time, no worse.
            end: polls
                .then(|| eventfd(0, EventfdFlags::CLOEXEC).ok())
                .flatten(),
        }
    }

    /// Whether such a thread should end.
    pub fn over(&self, whom: For) -> bool {
        let abandoned = self.abandoned.load(Ordering::Acquire);
        match whom {
            For::Once => abandoned >= 1,
            For::Loop => abandoned >= 1 || self.once_left.load(Ordering::Acquire) == 0,
            For::Last => abandoned >= 2,
        }
    }

    /// Readable once a loop should end.
    pub fn end(&self) -> Option<BorrowedFd<'_>> {
        self.end.as_ref().map(AsFd::as_fd)
    }

    /// An actor that runs once has ended.
    pub fn once_ended(&self) {
        if self.once_left.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.wake();
        }
    }

    /// Gives up on such threads that have not ended, and on those of the phases before.
    pub fn abandon(&self, whom: For) {
        let phase = if whom == For::Last { 2 } else { 1 };
        self.abandoned.fetch_max(phase, Ordering::AcqRel);
        self.wake();
    }

    fn wake(&self) {
        // Under the lock, so that a thread between its look at the end and its sleep hears it.
        let _signals = lock(&self.signals);
        self.bell.notify_all();
        if let Some(end) = &self.end {
            // Fails only when the counter is full: then it is readable already.
            let _ = rustix::io::write(end, &1u64.to_ne_bytes());
        }
    }

    /// Raises a signal.
    pub fn raise(&self, name: String) {
        lock(&self.signals).insert(name);
        self.bell.notify_all();
    }

    /// Function gates are armed. Once per scene.
    pub fn gates_armed(&self, armed: Armed, releaser: File) {
        let _ = self.gates.set((armed, releaser));
    }

    /// A function gate holds somebody.
    pub fn gate_holds(&self, tag: &str) {
        self.raise(held(tag));
    }

    /// Whether a function gate holds, or held, somebody.
    pub fn gate_holds_or_held(&self, tag: &str) -> bool {
        lock(&self.signals).contains(&held(tag))
    }

    /// Waits until a function gate holds, or held, somebody; false as [`Scene::await_signal`],
    /// and where the actor whose calls it counts has ended: it won't come any more.
    pub fn await_gate(&self, tag: &str, by: Option<&str>, deadline: Duration, whom: For) -> bool {
        let held = held(tag);
        let ended = by.map(ended);
        self.await_any(deadline, whom, |signals| {
            match (signals.contains(&held), &ended) {
                (true, _) => Some(true),
                (false, Some(ended)) if signals.contains(ended) => Some(false),
                (false, _) => None,
            }
        })
    }

    /// An actor has ended.
    pub fn actor_ended(&self, name: &str) {
        self.raise(ended(name));
    }

    /// Releases a function gate; false where none is armed by that tag.
    pub fn release_gate(&self, tag: &str) -> bool {
        let Some((armed, releaser)) = self.gates.get() else {
            return false;
        };
        let number = armed.get(tag);
        number.is_some_and(|number| say(releaser, &format!("release {number}")).is_ok())
    }

    /// Waits for a signal; false if it did not come in time, or the end came first.
    pub fn await_signal(&self, name: &str, deadline: Duration, whom: For) -> bool {
        self.await_any(deadline, whom, |signals| {
            signals.contains(name).then_some(true)
        })
    }

    /// Lets time pass, until it is over or the end comes.
    pub fn pass(&self, time: Duration, whom: For) {
        self.await_any(time, whom, |_| None);
    }

    /// Waits until the signals decide, or false.
    fn await_any(
        &self,
        deadline: Duration,
        whom: For,
        decide: impl Fn(&HashSet<String>) -> Option<bool>,
    ) -> bool {
        let begun = Instant::now();
        let mut signals = lock(&self.signals);
        loop {
            if let Some(decided) = decide(&signals) {
                return decided;
            }
            let left = deadline.saturating_sub(begun.elapsed());
            if left.is_zero() || self.over(whom) {
                return false;
            }
            signals = match self.bell.wait_timeout(signals, left) {
                Ok((signals, _)) => signals,
                Err(poisoned) => poisoned.into_inner().0,
            };
        }
    }
}

/// The signal that a gate's hold raises. No name of a signal from outside has a NUL in it.
fn held(tag: &str) -> String {
    format!("\0held {tag}")
}

/// The signal that an actor's end raises.
fn ended(name: &str) -> String {
    format!("\0ended {name}")
}
