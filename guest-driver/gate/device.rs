// SPDX-License-Identifier: GPL-2.0-only
//! /dev/knobgate: commands are written, lines are read. What a descriptor reads is its own
//! choice; while one is open the module stays.
//!
//! | reads | lines |
//! |---|---|
//! | `events` | `GATE reached`, `GATE left`; waits for the next |
//! | `gates` | for each gate: number, state, calls, thread, when it came, how it was held, when it went on, why |
//! | `passes` | for each noted call: function, thread, when, and of `o` a module under test on the stack, `w` a worker, `i` an interrupt, `a` it can't be preempted |
//!
//! Times are nanoseconds of `CLOCK_MONOTONIC`. A read gives whole lines.

use crate::command;
use crate::gate::{self, GATES};
use crate::sys;
use crate::trail;
use core::str;
use core::sync::atomic::{AtomicU64, AtomicU8, AtomicUsize, Ordering};
use kernel::fmt;
use kernel::fs::{File, Kiocb};
use kernel::iov::{IovIterDest, IovIterSource};
use kernel::miscdevice::{MiscDevice, MiscDeviceRegistration};
use kernel::prelude::*;

/// Longest command.
const COMMAND: usize = 512;
/// Room for any line.
const LINE: usize = 128;

/// What a descriptor reads.
#[repr(u8)]
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reads {
    /// What happens at gates.
    Events,
    /// What came of the gates.
    Gates,
    /// The trail.
    Passes,
}

/// An open descriptor.
pub(crate) struct Opened {
    reads: AtomicU8,
    /// Lines read so far.
    at: AtomicUsize,
}

impl Opened {
    pub(crate) fn read_now(&self, reads: Reads) {
        self.reads.store(reads as u8, Ordering::Relaxed);
        self.at.store(0, Ordering::Relaxed);
    }
}

#[vtable]
impl MiscDevice for Opened {
    type Ptr = KBox<Self>;

    fn open(_: &File, _: &MiscDeviceRegistration<Self>) -> Result<KBox<Self>> {
        let opened = Self {
            reads: AtomicU8::new(Reads::Events as u8),
            at: AtomicUsize::new(0),
        };
        Ok(KBox::new(opened, GFP_KERNEL)?)
    }

    fn write_iter(kiocb: Kiocb<'_, Self::Ptr>, from: &mut IovIterSource<'_>) -> Result<usize> {
        let mut text = [0; COMMAND];
        let len = from.len();
        let into = text.get_mut(..len).ok_or(E2BIG)?;
        if from.copy_from_iter(into) != len {
            return Err(EFAULT);
        }
        let text = str::from_utf8(into).map_err(|_| EINVAL)?;
        command::obey(kiocb.file(), text)?;
        Ok(len)
    }

    fn read_iter(kiocb: Kiocb<'_, Self::Ptr>, to: &mut IovIterDest<'_>) -> Result<usize> {
        let opened = kiocb.file();
        let reads = opened.reads.load(Ordering::Relaxed);
        if reads == Reads::Events as u8 {
            return read_event(to);
        }
        let mut read = 0;
        while to.len() >= LINE {
            let mut line = Line::default();
            let at = opened.at.load(Ordering::Relaxed);
            let written = match reads == Reads::Gates as u8 {
                true => GATES.get(at).map(|gate| gate.line(at, &mut line)),
                false => trail::line(at, &mut line),
            };
            let Some(written) = written else {
                break;
            };
            written.map_err(|_| EINVAL)?;
            read += line.copy(to)?;
            opened.at.store(at + 1, Ordering::Relaxed);
        }
        Ok(read)
    }
}

/// Waits for something to happen at a gate.
fn read_event(to: &mut IovIterDest<'_>) -> Result<usize> {
    if to.len() < LINE {
        return Err(EINVAL);
    }
    loop {
        for (events, what) in [(&gate::REACHED, "reached"), (&gate::LEFT, "left")] {
            if let Some(number) = take(events) {
                let mut line = Line::default();
                fmt::Write::write_fmt(&mut line, fmt!("{number} {what}\n")).map_err(|_| EINVAL)?;
                return line.copy(to);
            }
        }
        sys::wait_until(|| {
            gate::REACHED.load(Ordering::Acquire) | gate::LEFT.load(Ordering::Acquire) != 0
        })?;
    }
}

/// Takes one of the bits.
fn take(events: &AtomicU64) -> Option<usize> {
    let number = gate::bits(events.load(Ordering::Acquire)).next()?;
    let before = events.fetch_and(!(1 << number), Ordering::AcqRel);
    (before & 1 << number != 0).then_some(number)
}

/// A line in the making.
struct Line {
    text: [u8; LINE],
    len: usize,
}

impl Default for Line {
    fn default() -> Self {
        Self {
            text: [0; LINE],
            len: 0,
        }
    }
}

impl Line {
    fn copy(&self, to: &mut IovIterDest<'_>) -> Result<usize> {
        match to.copy_to_iter(&self.text[..self.len]) == self.len {
            true => Ok(self.len),
            false => Err(EFAULT),
        }
    }
}

impl fmt::Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let into = self.text[self.len..]
            .get_mut(..text.len())
            .ok_or(fmt::Error)?;
        into.copy_from_slice(text.as_bytes());
        self.len += text.len();
        Ok(())
    }
}
